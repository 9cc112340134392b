//! The weekly CO₂ record: one line of text a week, one value in ppm or none.
//!
//! 1. The times of a [`Record`] ascend, no two are equal, and every value is finite.
//! 2. What is wrong with a file is an [`InputError`] that says where; nothing is repaired.
//!
//! Rows may come in any order; an empty value is a missing week; blank lines may only end the file.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

/// The first line of the file.
const HEADER: &str = "date,co2";
/// With a single value there is nothing to compare, and after its mean is taken off nothing is left.
const VALUES_MIN: usize = 2;
/// The covariances of this many values take 1.6 GB.
const VALUES_MAX: usize = 20_000;
/// A part of the whole cannot be larger than the whole.
const PPM_MAX: f64 = 1e6;

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// The weeks that have a value.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Years as decimals.
    pub(crate) times: Vec<f64>,
    /// In ppm, less their mean.
    pub(crate) values: Vec<f64>,
    /// In ppm.
    pub(crate) mean: f64,
}

/// Reads the whole file at `path`, without blocking the thread.
///
/// # Cancellation
/// Dropping the future gives the contents up; nothing is left behind.
pub(crate) async fn read(path: PathBuf) -> Result<Source, InputError> {
    match tokio::fs::read(&path).await {
        Ok(bytes) => Ok(Source { path, bytes }),
        Err(reason) => Err(InputError { path, line: None, problem: Problem::Unreadable(reason) }),
    }
}

/// Turns the text into weeks, or says what is wrong with it and in which line.
pub(crate) fn parse(source: &Source) -> Result<Record, InputError> {
    let text = std::str::from_utf8(&source.bytes).map_err(|error| {
        let before = &source.bytes[..error.valid_up_to()];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        source.error(line, Problem::NotUtf8)
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).trim_end();
    let mut lines = (1..).zip(text.lines());
    match lines.next() {
        Some((_, HEADER)) => {}
        Some((line, other)) => return Err(source.error(line, Problem::Header { found: excerpt(other) })),
        None => return Err(source.error(None, Problem::Empty)),
    }

    let mut weeks = BTreeMap::new();
    for (line, row) in lines {
        let (date, ppm) = parse_row(row).map_err(|problem| source.error(line, problem))?;
        if let Some((first_line, _)) = weeks.insert(date, (line, ppm)) {
            return Err(source.error(line, Problem::Duplicate { first_line }));
        }
    }
    let weeks = weeks.into_iter().filter_map(|(date, (_, ppm))| Some((date.year_decimal(), ppm?)));
    let (times, mut values): (Vec<f64>, Vec<f64>) = weeks.unzip();
    if values.len() < VALUES_MIN {
        return Err(source.error(None, Problem::TooFew { values: values.len() }));
    }
    if values.len() > VALUES_MAX {
        return Err(source.error(None, Problem::TooMany { values: values.len() }));
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter_mut().for_each(|value| *value -= mean);
    Ok(Record { times, values, mean })
}

/// A day of the Gregorian calendar, from year 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Date {
    year: u32,
    month: u32,
    day: u32,
}

impl Date {
    /// `None` for a day that does not exist, such as 1999-02-30.
    fn new(year: u32, month: u32, day: u32) -> Option<Self> {
        let date = Self { year, month, day };
        let exists = year >= 1 && (1..=12).contains(&month) && (1..=date.days_of(month)).contains(&day);
        exists.then_some(date)
    }

    fn days_of(self, month: u32) -> u32 {
        let Date { year, .. } = self;
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// The year, and the part of it that is over when the day begins.
    fn year_decimal(self) -> f64 {
        let days = |months: std::ops::Range<u32>| months.map(|month| self.days_of(month)).sum::<u32>();
        f64::from(self.year) + f64::from(days(1..self.month) + self.day - 1) / f64::from(days(1..13))
    }
}

/// Why a file is not a record. The text names the file, the line if there is one, and the problem.
#[derive(Debug)]
pub(crate) struct InputError {
    path: PathBuf,
    line: Option<usize>,
    problem: Problem,
}

impl std::error::Error for InputError {}

impl std::fmt::Display for InputError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.path.display())?;
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}", self.problem)
    }
}

/// What is wrong. The texts from the file are excerpts: a few characters, escaped.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("not UTF-8 text")]
    NotUtf8,
    #[error("the file is empty")]
    Empty,
    #[error("the header must be {HEADER:?}, found {found}")]
    Header { found: String },
    #[error("a row must be a date and a value (`19580329,316.1`), found {found}")]
    Row { found: String },
    #[error("a date must have the form YYYYMMDD, found {found}")]
    DateForm { found: String },
    #[error("the date {found} does not exist")]
    NoSuchDate { found: String },
    #[error("the date is a duplicate of line {first_line}")]
    Duplicate { first_line: usize },
    #[error("the value {found} is not a number")]
    NotANumber { found: String },
    #[error("the value {found} is not between 0 and 1000000 ppm")]
    NotAFraction { found: String },
    #[error("too few rows: {values} with a value, and a regression takes at least {VALUES_MIN}")]
    TooFew { values: usize },
    #[error("too many rows: {values} with a value, and their covariances are held for at most {VALUES_MAX}")]
    TooMany { values: usize },
}

impl Source {
    fn error(&self, line: impl Into<Option<usize>>, problem: Problem) -> InputError {
        InputError { path: self.path.clone(), line: line.into(), problem }
    }
}

fn parse_row(row: &str) -> Result<(Date, Option<f64>), Problem> {
    match row.split_once(',') {
        Some((date, ppm)) if !ppm.contains(',') => Ok((parse_date(date)?, parse_ppm(ppm)?)),
        _ => Err(Problem::Row { found: excerpt(row) }),
    }
}

fn parse_date(field: &str) -> Result<Date, Problem> {
    let form = || Problem::DateForm { found: excerpt(field) };
    if field.len() != 8 || !field.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(form());
    }
    let digits: u32 = field.parse().map_err(|_| form())?;
    Date::new(digits / 10_000, digits / 100 % 100, digits % 100)
        .ok_or_else(|| Problem::NoSuchDate { found: field.to_owned() })
}

fn parse_ppm(field: &str) -> Result<Option<f64>, Problem> {
    if field.is_empty() {
        return Ok(None);
    }
    let found = || excerpt(field);
    let ppm: f64 = field.parse().map_err(|_| Problem::NotANumber { found: found() })?;
    if ppm > 0.0 && ppm <= PPM_MAX { Ok(Some(ppm)) } else { Err(Problem::NotAFraction { found: found() }) }
}

/// The beginning of a text from the file, quoted, with control characters escaped.
fn excerpt(text: &str) -> String {
    const CHARACTERS_MAX: usize = 40;
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Record, String> {
        let source = Source { path: "weeks.csv".into(), bytes: text.into() };
        parse(&source).map_err(|error| error.to_string())
    }

    #[test]
    fn times_are_decimals_of_years_of_their_own_length() {
        let of = |year, month, day| Date::new(year, month, day).unwrap().year_decimal();
        assert_eq!(of(1958, 1, 1), 1958.0);
        assert_eq!(of(1958, 3, 29), 1958.0 + 87.0 / 365.0);
        assert_eq!(of(1999, 12, 31), 1999.0 + 364.0 / 365.0);
        assert_eq!(of(2000, 12, 31), 2000.0 + 365.0 / 366.0);
        assert_eq!(of(1900, 3, 1), 1900.0 + 59.0 / 365.0);
        assert_eq!(of(1996, 3, 1), 1996.0 + 60.0 / 366.0);
        assert!(Date::new(1999, 2, 29).is_none() && Date::new(2000, 2, 29).is_some());
        assert!(Date::new(0, 1, 1).is_none() && Date::new(1999, 13, 1).is_none());
    }

    #[test]
    fn a_record_is_sorted_and_centred_without_missing_weeks() {
        let record = parse_text("\u{feff}date,co2\r\n19590110,4\r\n19590103,\r\n19580101,2\r\n\r\n").unwrap();
        assert_eq!(record.times, [1958.0, 1959.0 + 9.0 / 365.0]);
        assert_eq!((record.mean, record.values), (3.0, vec![-1.0, 1.0]));
    }

    #[test]
    fn bad_input_is_named_with_its_place() {
        let cases = [
            ("", "the file is empty"),
            ("day,co2\n19590103,3\n", "line 1: the header must be \"date,co2\", found \"day,co2\""),
            ("date,co2\n", "too few rows: 0 with a value"),
            ("date,co2\n19590103,3\n19590110,\n", "too few rows: 1 with a value"),
            ("date,co2\n19590103\n", "line 2: a row must be a date and a value"),
            ("date,co2\n\n19590103,3\n", "line 2: a row must be a date and a value"),
            ("date,co2\n1959-01-03,3\n", "line 2: a date must have the form YYYYMMDD"),
            ("date,co2\n19590103,3\n19590229,3\n", "line 3: the date 19590229 does not exist"),
            ("date,co2\n19590103,3\n19590103,\n", "line 3: the date is a duplicate of line 2"),
            ("date,co2\n19590103,x\n", "line 2: the value \"x\" is not a number"),
            ("date,co2\n19590103,NaN\n", "line 2: the value \"NaN\" is not between 0 and 1000000 ppm"),
            ("date,co2\n19590103,inf\n", "line 2: the value \"inf\" is not between 0 and 1000000 ppm"),
            ("date,co2\n19590103,-9\n", "line 2: the value \"-9\" is not between 0 and 1000000 ppm"),
        ];
        for (text, expected) in cases {
            let message = parse_text(text).unwrap_err();
            assert!(message.starts_with(&format!("weeks.csv: {expected}")), "{message}");
        }
    }
}
