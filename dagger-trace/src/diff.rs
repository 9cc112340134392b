//! What became slower from one run to another.

use crate::analysis::Row;
use crate::model::Trace;
use crate::show::{count, short, time};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The tasks of one name in two runs.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Change {
    /// The name.
    pub name: String,
    /// In the earlier run; `None` if no such task ran there.
    pub before: Option<Row>,
    /// In the later run.
    pub after: Option<Row>,
}

impl Change {
    /// How many times longer a task of this name runs in the mean; `None` if it ran only once in two, or for no time at first.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        let mean = |row: &Row| row.total as f64 / row.count as f64;
        let before = self.before.as_ref().map(mean).filter(|&before| before > 0.0)?;
        Some(mean(self.after.as_ref()?) / before)
    }
}

impl Trace {
    /// The names of tasks that ran in this run or in a later one, with their run times: first what became slowest, last what is
    /// in one of them only.
    #[must_use]
    pub fn diff(&self, after: &Trace) -> Vec<Change> {
        let mut changes: BTreeMap<String, (Option<Row>, Option<Row>)> = BTreeMap::new();
        for row in self.by_name() {
            let name = row.name.clone();
            changes.entry(name).or_default().0 = Some(row);
        }
        for row in after.by_name() {
            let name = row.name.clone();
            changes.entry(name).or_default().1 = Some(row);
        }
        let changes = changes.into_iter().map(|(name, (before, after))| Change { name, before, after });
        let mut changes: Vec<Change> = changes.collect();
        let key = |change: &Change| change.ratio().unwrap_or(-1.0);
        changes.sort_by(|a, b| key(b).total_cmp(&key(a)));
        changes
    }

    /// [`Trace::diff`] as a table.
    #[must_use]
    pub fn describe_diff(&self, after: &Trace) -> String {
        let mut text = format!(
            "{:<36}{:>9}{:>9}{:>11}{:>11}{:>9}\n",
            "run time by name", "count", "", "mean", "", "ratio"
        );
        for change in self.diff(after) {
            let rows = [&change.before, &change.after];
            let [a, b] = rows.map(|row| row.as_ref().map_or_else(|| "-".into(), |row| count(row.count)));
            let [c, d] = rows.map(|row| row.as_ref().map_or_else(|| "-".into(), |row| time(row.mean)));
            let ratio = change.ratio().map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:<36}{a:>9}{b:>9}{c:>11}{d:>11}{ratio:>9}", short(&change.name, 36));
        }
        text
    }
}
