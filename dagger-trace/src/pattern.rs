//! Patterns of tasks by patterns of their names.
//!
//! A task belongs to the first category whose pattern its name matches, anywhere unless the pattern says `^` or `$`. Patterns are
//! tried once for each name, not for each task.

use crate::analysis::Row;
use crate::error::TraceError;
use crate::model::Trace;
use regex_lite::Regex;
use rustc_hash::FxHashMap;

/// What tasks without a category are called.
const NONE: &str = "(no category)";

/// Labels and patterns, in the order in which they are tried.
///
/// The syntax is that of the crate `regex`, without Unicode classes: `\w`, `\d` and `(?i)` know ASCII only. A search takes time in
/// proportion to pattern and name, whatever they are.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    patterns: Vec<(String, Regex)>,
}

impl Patterns {
    /// Patterns from pairs of label and pattern. A label may come again: its patterns are alternatives.
    ///
    /// ```
    /// # let trace = dagger_trace::Trace::from_log(&dagger_core::record::Log {
    /// #     began: std::time::SystemTime::now(), nanos: 0, lanes: vec![], lost: 0 });
    /// use dagger_trace::Patterns;
    /// let categories = Patterns::new([("panels", "^(potrf|trsm)$"), ("updates", "syrk|gemm")])?;
    /// let rows = trace.by_pattern(&categories);
    /// println!("{}", trace.describe_by(&categories));
    /// # assert!(rows.is_empty());
    /// # Ok::<(), dagger_trace::TraceError>(())
    /// ```
    ///
    /// # Errors
    /// [`TraceError::BadPattern`].
    pub fn new<L: Into<String>, P: AsRef<str>>(
        categories: impl IntoIterator<Item = (L, P)>,
    ) -> Result<Patterns, TraceError> {
        let compile = |(label, pattern): (L, P)| {
            let (label, pattern) = (label.into(), pattern.as_ref());
            match Regex::new(pattern) {
                Ok(regex) => Ok((label, regex)),
                Err(error) => {
                    let what = error.to_string();
                    Err(TraceError::BadPattern { label, pattern: pattern.to_owned(), what })
                }
            }
        };
        Ok(Patterns { patterns: categories.into_iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// The label of the category that tasks of this name belong to.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&str> {
        self.patterns.iter().find(|(_, pattern)| pattern.is_match(name)).map(|(label, _)| label.as_str())
    }
}

impl Trace {
    /// As [`Trace::by_name`], for the categories of these patterns: tasks of no category are left out.
    #[must_use]
    pub fn by_pattern(&self, categories: &Patterns) -> Vec<Row> {
        let labels = self.labels(categories);
        self.rows(|task| labels.get(task.name.as_str()).copied().flatten())
    }

    /// As [`Trace::describe`], with the tables of run time and critical path by category instead of by name. Tasks of no category
    /// have a row of their own, so that the rows add up to the whole.
    #[must_use]
    pub fn describe_by(&self, categories: &Patterns) -> String {
        let labels = self.labels(categories);
        self.describe_as(["category", "categories"], &|task| {
            labels.get(task.name.as_str()).copied().flatten().unwrap_or(NONE)
        })
    }

    /// The label of each name.
    fn labels<'a>(&'a self, categories: &'a Patterns) -> FxHashMap<&'a str, Option<&'a str>> {
        let mut labels = FxHashMap::default();
        for task in &self.tasks {
            labels.entry(task.name.as_str()).or_insert_with(|| categories.of(&task.name));
        }
        labels
    }
}
