//! What the program prints: a table, the graph it ran as, or JSON.
//!
//! A figure that could not be computed is a dash in the table, with the reason, and `null` in JSON.

use std::fmt::{self, Display, Formatter};

use crate::statistics::{Decade, Growth, Line, Parabola, WEEKS_MIN, YEARS_MIN, YearFigures, YearSummary};

/// All that the tasks found.
#[derive(Debug)]
pub(crate) struct Analysis {
    /// Ascending.
    pub(crate) years: Vec<YearSummary>,
    /// Ascending.
    pub(crate) decades: Vec<Decade>,
    pub(crate) fastest: Option<Growth>,
    pub(crate) line: Option<Line>,
    pub(crate) parabola: Option<Parabola>,
}

/// The table for people.
pub(crate) struct Table<'a>(pub(crate) &'a Analysis);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Table(analysis) = self;
        writeln!(f, "CO₂ in ppm, from weekly values\n")?;
        writeln!(f, "year  weeks     mean      min      max   swing")?;
        for summary in &analysis.years {
            write_year(f, summary)?;
        }
        writeln!(f, "\ndecade     years  ppm/year")?;
        for decade in &analysis.decades {
            write_decade(f, decade)?;
        }
        write_trend(f, analysis)?;
        writeln!(f, "\nSwing: the largest monthly mean of the year minus the smallest.")
    }
}

fn write_year(f: &mut Formatter<'_>, summary: &YearSummary) -> fmt::Result {
    let YearSummary { year, weeks, months, figures } = summary;
    write!(f, "{year:04}  {weeks:>5}")?;
    let Some(figures) = figures else {
        return writeln!(f, "        —        —        —       —  fewer than {WEEKS_MIN} weeks");
    };
    write!(f, " {:>8.2} {:>8.2} {:>8.2}", figures.mean, figures.min, figures.max)?;
    match figures.swing {
        Some(swing) => writeln!(f, " {swing:>7.2}"),
        None => writeln!(f, "       —  only {months} of 12 months: the mean leans to them"),
    }
}

fn write_decade(f: &mut Formatter<'_>, decade: &Decade) -> fmt::Result {
    write!(f, "{:04}–{:04}  {:>5}", decade.from, decade.to(), decade.years)?;
    match decade.ppm_per_year {
        Some(slope) => writeln!(f, "  {slope:>8.3}"),
        None => writeln!(f, "         —  fewer than {YEARS_MIN} usable years"),
    }
}

fn write_trend(f: &mut Formatter<'_>, analysis: &Analysis) -> fmt::Result {
    match analysis.fastest {
        Some(Growth { year, ppm }) => {
            writeln!(f, "\nfastest growth  {year}, {ppm:+.2} ppm over the mean of {}", year - 1)?
        }
        None => writeln!(f, "\nfastest growth  — no two neighbouring usable years")?,
    }
    match analysis.line {
        Some(Line { centre, level, slope, residual }) => writeln!(
            f,
            "linear fit      {level:.2} {slope:+.4}·t  (t = year − {centre:.1}), residual ±{residual:.2} ppm"
        )?,
        None => writeln!(f, "linear fit      — fewer than {YEARS_MIN} usable years")?,
    }
    match analysis.parabola {
        Some(Parabola { centre, level, slope, bend, residual }) => writeln!(
            f,
            "quadratic fit   {level:.2} {slope:+.4}·t {bend:+.5}·t²  (t = year − {centre:.1}), residual ±{residual:.2} ppm"
        ),
        None => writeln!(f, "quadratic fit   — fewer than {YEARS_MIN} usable years"),
    }
}

/// One line of JSON for programs: the years, the decades, the number of tasks and the time.
pub(crate) struct Json<'a> {
    pub(crate) analysis: &'a Analysis,
    pub(crate) tasks: usize,
    pub(crate) seconds: f64,
}

impl Display for Json<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let years = self.analysis.years.iter().map(|summary| {
            let figure = |pick: fn(YearFigures) -> f64| Number(summary.figures.map(pick));
            format!(
                r#"{{"year":{},"n":{},"mean":{},"min":{},"max":{}}}"#,
                summary.year,
                summary.weeks,
                figure(|figures| figures.mean),
                figure(|figures| figures.min),
                figure(|figures| figures.max),
            )
        });
        let decades = self.analysis.decades.iter().map(|decade| {
            let slope = Number(decade.ppm_per_year);
            format!(r#"{{"from":{},"to":{},"ppm_per_year":{slope}}}"#, decade.from, decade.to())
        });
        writeln!(
            f,
            r#"{{"years":[{}],"decades":[{}],"tasks":{},"seconds":{}}}"#,
            years.collect::<Vec<_>>().join(","),
            decades.collect::<Vec<_>>().join(","),
            self.tasks,
            Number(Some(self.seconds)),
        )
    }
}

/// A JSON number: Rust prints a finite `f64` in plain decimal digits, which JSON reads back exactly.
struct Number(Option<f64>);

impl Display for Number {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.filter(|value| value.is_finite()) {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("null"),
        }
    }
}

/// The tasks of a run in the order in which they were spawned, grouped by kind.
///
/// It knows nothing of a runtime: `Id` is whatever tells one task from another. A kind is introduced after
/// the kinds whose results it takes; edges inside a kind are counted but not drawn.
#[derive(Debug)]
pub(crate) struct Graph<Id> {
    tasks: Vec<(Id, usize)>,
    kinds: Vec<Kind>,
    edges: usize,
}

/// The tasks that do the same with different data.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    tasks: usize,
    /// The kinds whose results this one takes, each once, all earlier ones.
    inputs: Vec<usize>,
}

impl<Id: Copy + Eq> Graph<Id> {
    pub(crate) fn new() -> Self {
        Self { tasks: Vec::new(), kinds: Vec::new(), edges: 0 }
    }

    /// Notes a task and the tasks whose results it takes, which were noted before it.
    pub(crate) fn add(&mut self, kind: &'static str, task: Id, inputs: impl IntoIterator<Item = Id>) {
        let place = self.kinds.iter().position(|known| known.name == kind).unwrap_or_else(|| {
            self.kinds.push(Kind { name: kind, tasks: 0, inputs: Vec::new() });
            self.kinds.len() - 1
        });
        self.kinds[place].tasks += 1;
        for input in inputs {
            self.edges += 1;
            let known = self.tasks.iter().find(|(id, _)| *id == input);
            let &(_, source) = known.expect("an input is noted before the task that takes it");
            if source < place && !self.kinds[place].inputs.contains(&source) {
                self.kinds[place].inputs.push(source);
            }
        }
        self.tasks.push((task, place));
    }

    /// How many tasks were spawned.
    pub(crate) fn tasks(&self) -> usize {
        self.tasks.len()
    }
}

impl<Id> Display for Graph<Id> {
    /// Each kind once, behind the first kind whose results it takes.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} tasks, {} edges\n", self.tasks.len(), self.edges)?;
        for place in self.followers(None) {
            self.draw(f, place, "")?;
            writeln!(f)?;
        }
        Ok(())
    }
}

impl<Id> Graph<Id> {
    /// The kinds whose first input is `source`.
    fn followers(&self, source: Option<usize>) -> Vec<usize> {
        let follows = |&place: &usize| self.kinds[place].inputs.first().copied() == source;
        (0..self.kinds.len()).filter(follows).collect()
    }

    /// Draws a kind and what follows it; `margin` begins each further line.
    fn draw(&self, f: &mut Formatter<'_>, place: usize, margin: &str) -> fmt::Result {
        let label = self.label(place);
        f.write_str(&label)?;
        let margin = format!("{margin}{}", " ".repeat(label.chars().count()));
        match self.followers(Some(place)).as_slice() {
            [] => Ok(()),
            [only] => {
                f.write_str(" ─▶ ")?;
                self.draw(f, *only, &format!("{margin}    "))
            }
            [first, middle @ .., last] => {
                f.write_str(" ─┬─▶ ")?;
                self.draw(f, *first, &format!("{margin}  │   "))?;
                for place in middle {
                    write!(f, "\n{margin}  ├─▶ ")?;
                    self.draw(f, *place, &format!("{margin}  │   "))?;
                }
                write!(f, "\n{margin}  └─▶ ")?;
                self.draw(f, *last, &format!("{margin}      "))
            }
        }
    }

    /// Such as `44 × year`, with the further inputs that the drawing has no arrow for.
    fn label(&self, place: usize) -> String {
        let Kind { name, tasks, inputs } = &self.kinds[place];
        let count = if *tasks == 1 { String::new() } else { format!("{tasks} × ") };
        let further: Vec<&str> = inputs.iter().skip(1).map(|&input| self.kinds[input].name).collect();
        let also = if further.is_empty() { String::new() } else { format!(" (and {})", further.join(", ")) };
        format!("{count}{name}{also}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use crate::statistics::{Means, fastest_growth, fit_line, fit_parabola, summarise};

    /// The same analysis without tasks.
    fn analyse(text: &str) -> Analysis {
        let record = Record::from_text(text);
        let years: Vec<YearSummary> =
            record.years().into_iter().map(|year| summarise(&record, year)).collect();
        let decades = years.chunk_by(|a, b| a.year / 10 == b.year / 10);
        let decades = decades.map(|years| Decade::of(years[0].year / 10 * 10, years)).collect();
        let means = Means::of(&years);
        let (line, parabola) = (fit_line(&means), fit_parabola(&means));
        Analysis { years, decades, fastest: fastest_growth(&means), line, parabola }
    }

    fn mauna_loa() -> Analysis {
        analyse(include_str!("../data/mauna_loa_co2.csv"))
    }

    #[test]
    fn the_table_shows_every_year_and_marks_those_without_figures() {
        let table = Table(&mauna_loa()).to_string();
        for line in [
            "1958     25        —        —        —       —  fewer than 26 weeks",
            "1964     31   318.57   315.50   322.00       —  only 9 of 12 months: the mean leans to them",
            "1998     52   366.58   363.50   369.70    5.22",
            "1950–1959      1         —  fewer than 5 usable years",
            "1990–1999     10     1.574",
            "fastest growth  1998, +2.85 ppm over the mean of 1997",
            "linear fit      340.06 +1.3509·t  (t = year − 1980.0), residual ±1.77 ppm",
            "quadratic fit   338.29 +1.3509·t +0.01150·t²  (t = year − 1980.0), residual ±0.71 ppm",
        ] {
            assert!(table.lines().any(|found| found == line), "{line}\n{table}");
        }
        let is_year = |line: &&str| line.starts_with(['1', '2']) && !line.contains('–');
        assert_eq!(table.lines().filter(is_year).count(), 44);
    }

    #[test]
    fn a_record_with_nothing_usable_is_all_marks() {
        let nothing = analyse("date,co2\n19590103,\n");
        let table = Table(&nothing).to_string();
        assert_eq!(table.matches('—').count(), 4 + 1 + 3, "{table}");
        let json = Json { analysis: &nothing, tasks: 8, seconds: 0.5 }.to_string();
        let expected = concat!(
            r#"{"years":[{"year":1959,"n":0,"mean":null,"min":null,"max":null}],"#,
            r#""decades":[{"from":1950,"to":1959,"ppm_per_year":null}],"tasks":8,"seconds":0.5}"#,
            "\n"
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn json_is_well_formed_and_gives_every_digit() {
        let json = Json { analysis: &mauna_loa(), tasks: 55, seconds: 1e-7 }.to_string();
        let rest = json_value(json.trim_end()).expect("one JSON value");
        assert_eq!(rest, "");
        assert_eq!(json.matches("\"year\":").count(), 44);
        assert!(json.contains(r#"{"year":1958,"n":25,"mean":null,"min":null,"max":null}"#));
        assert!(json.contains(r#""tasks":55,"seconds":0.0000001}"#));
        assert_eq!(Number(Some(f64::NAN)).to_string(), "null");
        assert_eq!(Number(Some(f64::INFINITY)).to_string(), "null");
        for bad in ["", "{", "[1,]", "{\"a\":NaN}", "{\"a\" 1}", "-", "1."] {
            assert_ne!(json_value(bad), Some(""), "{bad}");
        }
    }

    /// What follows the JSON value at the start of `text`, for texts without white space and escapes.
    fn json_value(text: &str) -> Option<&str> {
        let list = |text, open, close, item: fn(&str) -> Option<&str>| {
            let mut rest = str::strip_prefix(text, open)?;
            if let Some(rest) = rest.strip_prefix(close) {
                return Some(rest);
            }
            loop {
                rest = item(rest)?;
                match rest.strip_prefix(',') {
                    Some(next) => rest = next,
                    None => return rest.strip_prefix(close),
                }
            }
        };
        match text.as_bytes().first()? {
            b'[' => list(text, '[', ']', json_value),
            b'{' => list(text, '{', '}', |text| {
                let (_, rest) = text.strip_prefix('"')?.split_once('"')?;
                json_value(rest.strip_prefix(':')?)
            }),
            b'n' => text.strip_prefix("null"),
            _ => {
                let digits =
                    |text: &'_ str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let mut rest = text.strip_prefix('-').unwrap_or(text);
                for part in 0..2 {
                    let length = digits(rest);
                    rest = &rest[length..];
                    if length == 0 {
                        return None;
                    }
                    match rest.strip_prefix('.') {
                        Some(fraction) if part == 0 => rest = fraction,
                        _ => break,
                    }
                }
                Some(rest)
            }
        }
    }

    #[test]
    fn the_graph_is_drawn_from_what_was_noted() {
        let mut graph = Graph::new();
        graph.add("read", 0, []);
        graph.add("parse", 1, [0]);
        for year in 2..5 {
            graph.add("year", year, [1]);
        }
        graph.add("decade", 5, [2, 3]);
        graph.add("decade", 6, [4]);
        graph.add("means", 7, [2, 3, 4]);
        graph.add("line", 8, [7]);
        graph.add("parabola", 9, [7, 1]);
        let drawing = "\
10 tasks, 13 edges

read ─▶ parse ─▶ 3 × year ─┬─▶ 2 × decade
                           └─▶ means ─┬─▶ line
                                      └─▶ parabola (and parse)
";
        assert_eq!(graph.to_string(), drawing);
        assert_eq!(graph.tasks(), 10);
    }

    #[test]
    fn branches_that_go_on_keep_their_bar() {
        let mut graph = Graph::new();
        graph.add("a", 'a', []);
        graph.add("b", 'b', ['a']);
        graph.add("c", 'c', ['b']);
        graph.add("d", 'd', ['b']);
        graph.add("e", 'e', ['a']);
        graph.add("f", 'f', ['e', 'a']);
        graph.add("g", 'g', []);
        let drawing = "\
7 tasks, 6 edges

a ─┬─▶ b ─┬─▶ c
   │      └─▶ d
   └─▶ e ─▶ f (and a)
g
";
        assert_eq!(graph.to_string(), drawing);
    }
}
