//! The weekly CO₂ record: one line of text a week, one value in ppm or none.
//!
//! ```text
//!   bytes ─▶ UTF-8 ─▶ header `date,co2` ─▶ rows `YYYYMMDD,ppm` ─▶ Record
//! ```
//! 1. A [`Record`] has at least one week, and no date twice.
//! 2. Every date exists in the Gregorian calendar.
//! 3. Every value is a mole fraction: more than 0 and at most 10⁶ ppm. NaN and infinities are not.
//! 4. What breaks a rule is an [`InputError`] that says where; nothing is repaired or skipped.
//!
//! Rows may come in any order; an empty value is a missing week; blank lines may only end the file.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::PathBuf;

/// The first line of the file.
const HEADER: &str = "date,co2";
/// A part of the whole cannot be larger than the whole.
const PPM_MAX: f64 = 1e6;

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// Reads the whole file at `path`, without blocking the thread.
///
/// # Errors
/// [`Problem::Unreadable`] with the operating system's reason.
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

    let (_, header) = lines.next().ok_or_else(|| source.error(None, Problem::Empty))?;
    if header != HEADER {
        return Err(source.error(1, Problem::Header { found: excerpt(header) }));
    }
    let mut weeks = BTreeMap::new();
    for (line, row) in lines {
        let (date, ppm) = parse_row(row).map_err(|problem| source.error(line, problem))?;
        match weeks.entry(date) {
            Entry::Vacant(place) => place.insert((line, ppm)),
            Entry::Occupied(first) => {
                let first_line = first.get().0;
                return Err(source.error(line, Problem::Duplicate { date, first_line }));
            }
        };
    }
    if weeks.is_empty() {
        return Err(source.error(None, Problem::NoRows));
    }
    let weeks = weeks.into_iter().map(|(date, (_, ppm))| (date, ppm)).collect();
    Ok(Record { weeks })
}

/// The weeks of a file by date: `None` is a week without a value.
#[derive(Debug)]
pub(crate) struct Record {
    weeks: BTreeMap<Date, Option<f64>>,
}

impl Record {
    /// The years that have a week in the file, ascending.
    pub(crate) fn years(&self) -> Vec<i32> {
        let mut years: Vec<i32> = self.weeks.keys().map(|date| date.year).collect();
        years.dedup();
        years
    }

    /// The weeks of `year` that have a value, as (month, ppm) in order of time.
    pub(crate) fn values_of(&self, year: i32) -> impl Iterator<Item = (u8, f64)> {
        let first = Date { year, month: 1, day: 1 };
        let last = Date { year, month: 12, day: 31 };
        self.weeks.range(first..=last).filter_map(|(date, ppm)| Some((date.month, (*ppm)?)))
    }
}

/// A day of the Gregorian calendar, from year 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Date {
    year: i32,
    month: u8,
    day: u8,
}

impl Date {
    /// `None` for a day that does not exist, such as 1999-02-30.
    pub(crate) fn new(year: i32, month: u8, day: u8) -> Option<Self> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        (year >= 1 && (1..=days).contains(&day)).then_some(Self { year, month, day })
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
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
pub(crate) enum Problem {
    /// The operating system refused.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// The line holds bytes that are not UTF-8 text.
    #[error("not UTF-8 text")]
    NotUtf8,
    /// Nothing but white space.
    #[error("the file is empty")]
    Empty,
    /// The first line is another one than `date,co2`.
    #[error("the header must be {HEADER:?}, found {found}")]
    Header { found: String },
    /// A header and nothing else.
    #[error("the file has a header but no rows")]
    NoRows,
    /// A row without exactly two fields.
    #[error("a row must be a date and a value (`19580329,316.1`), found {found}")]
    Row { found: String },
    /// The first field does not consist of eight digits.
    #[error("a date must have the form YYYYMMDD, found {found}")]
    DateForm { found: String },
    /// Eight digits, but no such day.
    #[error("the date {digits} does not exist")]
    NoSuchDate { digits: String },
    /// The date stands in the file already.
    #[error("the date {date} is a duplicate of line {first_line}")]
    Duplicate { date: Date, first_line: usize },
    /// The second field is text.
    #[error("the value {found} is not a number")]
    NotANumber { found: String },
    /// NaN or an infinity, or too large for a number.
    #[error("the value {found} is not finite")]
    NotFinite { found: String },
    /// A finite number that is no mole fraction.
    #[error("the value {found} is not between 0 and 1000000 ppm")]
    NotAFraction { found: String },
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
    // Each part fits: at most 9999, 99 and 99.
    let (year, month, day) = (digits / 10_000, digits / 100 % 100, digits % 100);
    Date::new(year as i32, month as u8, day as u8)
        .ok_or_else(|| Problem::NoSuchDate { digits: field.to_owned() })
}

fn parse_ppm(field: &str) -> Result<Option<f64>, Problem> {
    if field.is_empty() {
        return Ok(None);
    }
    let found = || excerpt(field);
    let ppm: f64 = field.parse().map_err(|_| Problem::NotANumber { found: found() })?;
    if !ppm.is_finite() {
        return Err(Problem::NotFinite { found: found() });
    }
    if !(ppm > 0.0 && ppm <= PPM_MAX) {
        return Err(Problem::NotAFraction { found: found() });
    }
    Ok(Some(ppm))
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
impl Record {
    /// A record from the text of a file, for the tests of this program.
    pub(crate) fn from_text(text: &str) -> Self {
        tests::parse_bytes(text.as_bytes()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parse_bytes(bytes: &[u8]) -> Result<Record, InputError> {
        parse(&Source { path: "weeks.csv".into(), bytes: bytes.to_vec() })
    }

    fn message(bytes: &[u8]) -> String {
        parse_bytes(bytes).unwrap_err().to_string()
    }

    #[test]
    fn the_calendar_is_gregorian() {
        let exists = |year, month, day| Date::new(year, month, day).is_some();
        for year in [1960, 1996, 2000, 2400] {
            assert!(exists(year, 2, 29), "{year} is a leap year");
        }
        for year in [1900, 1959, 1999, 2100] {
            assert!(!exists(year, 2, 29), "{year} is not a leap year");
        }
        let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        for (month, days) in (1..).zip(lengths) {
            assert!(!exists(1999, month, 0));
            assert!(exists(1999, month, 1) && exists(1999, month, days));
            assert!(!exists(1999, month, days + 1));
        }
        assert!(!exists(1999, 0, 1) && !exists(1999, 13, 1) && !exists(0, 1, 1));
    }

    #[test]
    fn a_record_keeps_values_and_missing_weeks_by_year() {
        let record = Record::from_text("date,co2\n19591231,316.5\n19600101,\n19590103,315.0\n");
        assert_eq!(record.years(), [1959, 1960]);
        assert_eq!(record.values_of(1959).collect::<Vec<_>>(), [(1, 315.0), (12, 316.5)]);
        assert_eq!(record.values_of(1960).count(), 0);
        assert_eq!(record.values_of(1961).count(), 0);
    }

    #[test]
    fn line_ends_a_byte_order_mark_and_final_blank_lines_do_not_matter() {
        let plain = Record::from_text("date,co2\n19590103,315.0\n19590110,");
        let other = Record::from_text("\u{feff}date,co2\r\n19590103,315.0\r\n19590110,\r\n\r\n");
        assert_eq!(plain.weeks, other.weeks);
    }

    #[test]
    fn bad_input_is_named_with_its_place() {
        let cases: [(&[u8], &str); 25] = [
            (b"", "the file is empty"),
            (b" \n\n", "the file is empty"),
            (b"date,co2\n", "the file has a header but no rows"),
            (b"day,co2\n19590103,315\n", "line 1: the header must be \"date,co2\", found \"day,co2\""),
            (b"19590103,315\n", "line 1: the header must be \"date,co2\", found \"19590103,315\""),
            (b"date,co2\n19590103\n", "line 2: a row must be a date and a value"),
            (b"date,co2\n19590103,315,3\n", "line 2: a row must be a date and a value"),
            (b"date,co2\n\n19590103,315\n", "line 2: a row must be a date and a value"),
            (b"date,co2\n19590103,315\n1959-01-10,315\n", "line 3: a date must have the form YYYYMMDD"),
            (b"date,co2\n1959011,315\n", "line 2: a date must have the form YYYYMMDD"),
            (b"date,co2\n+1959011,315\n", "line 2: a date must have the form YYYYMMDD"),
            (b"date,co2\n,315\n", "line 2: a date must have the form YYYYMMDD"),
            (b"date,co2\n19590103,315\n19990230,368\n", "line 3: the date 19990230 does not exist"),
            (b"date,co2\n19000229,300\n", "line 2: the date 19000229 does not exist"),
            (b"date,co2\n19591301,315\n", "line 2: the date 19591301 does not exist"),
            (
                b"date,co2\n19590103,1\n19590110,\n19590103,\n",
                "line 4: the date 1959-01-03 is a duplicate of line 2",
            ),
            (b"date,co2\n19590103,abc\n", "line 2: the value \"abc\" is not a number"),
            (b"date,co2\n19590103, 315\n", "line 2: the value \" 315\" is not a number"),
            (b"date,co2\n19590103,NaN\n", "line 2: the value \"NaN\" is not finite"),
            (b"date,co2\n19590103,inf\n", "line 2: the value \"inf\" is not finite"),
            (b"date,co2\n19590103,-infinity\n", "line 2: the value \"-infinity\" is not finite"),
            (b"date,co2\n19590103,1e999\n", "line 2: the value \"1e999\" is not finite"),
            (b"date,co2\n19590103,-99.99\n", "line 2: the value \"-99.99\" is not between 0 and 1000000 ppm"),
            (b"date,co2\n19590103,1e300\n", "line 2: the value \"1e300\" is not between 0 and 1000000 ppm"),
            (b"date,co2\n19590103,315\n19590110,31\xff\n", "line 3: not UTF-8 text"),
        ];
        for (bytes, expected) in cases {
            let message = message(bytes);
            assert!(message.starts_with(&format!("weeks.csv: {expected}")), "{message}");
        }
    }

    #[test]
    fn a_message_stays_short_and_printable() {
        let row = format!("date,co2\n19590103,\u{1b}[31m{}\n", "x".repeat(1_000_000));
        let message = message(row.as_bytes());
        assert!(message.len() < 120 && !message.contains('\u{1b}'), "{message}");
    }
}
