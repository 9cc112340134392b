//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
The weekly CO₂ record of Mauna Loa, summarised by a graph of tasks.

Usage: quickstart [--csv PATH] [--threads N] [--json]

  --csv PATH   a file with the columns `date,co2` (default: the record of Mauna Loa)
  --threads N  worker threads, 1 to 1024 (default: one for each core)
  --json       print JSON instead of a table
  --help       print this text
";

/// A newcomer's slip, such as a thread for every row, should not ask the system for a million.
const THREADS_MAX: usize = 1024;

/// The record that the example brings along: found from any working directory.
const MAUNA_LOA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/mauna_loa_co2.csv");

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Analyse a record.
    Analyse(Settings),
}

/// Which record, on how many threads, printed how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) csv: PathBuf,
    /// `None` leaves the number to the runtime.
    pub(crate) threads: Option<usize>,
    pub(crate) json: bool,
}

/// A command line that says nothing we could do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// An argument that is no option.
    #[error("unknown option {0:?}")]
    Unknown(OsString),
    /// An option at the end that needs a value.
    #[error("{0} needs a value")]
    NoValue(&'static str),
    /// A thread count that is no number, 0, or too large.
    #[error("--threads needs a number from 1 to {THREADS_MAX}, found {0:?}")]
    Threads(OsString),
}

/// Reads the arguments, without the program's own name. An option given twice counts as the last one.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut settings = Settings { csv: MAUNA_LOA.into(), threads: None, json: false };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = |option| arguments.next().ok_or(UsageError::NoValue(option));
        match argument.to_str() {
            Some("--csv") => settings.csv = value("--csv")?.into(),
            Some("--threads") => settings.threads = Some(parse_threads(value("--threads")?)?),
            Some("--json") => settings.json = true,
            Some("--help" | "-h") => return Ok(Command::Help),
            _ => return Err(UsageError::Unknown(argument)),
        }
    }
    Ok(Command::Analyse(settings))
}

fn parse_threads(value: OsString) -> Result<usize, UsageError> {
    let threads = value.to_str().and_then(|digits| digits.parse().ok());
    match threads {
        Some(threads) if (1..=THREADS_MAX).contains(&threads) => Ok(threads),
        _ => Err(UsageError::Threads(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_option_has_a_default_and_can_be_set() {
        let Ok(Command::Analyse(settings)) = parse_line("") else { panic!("no options are fine") };
        assert!(settings.csv.is_absolute() && settings.csv.exists());
        assert_eq!((settings.threads, settings.json), (None, false));

        let all = Settings { csv: "a.csv".into(), threads: Some(3), json: true };
        assert_eq!(parse_line("--json --threads 3 --csv a.csv"), Ok(Command::Analyse(all)));
        assert_eq!(parse_line("--json --help"), Ok(Command::Help));
    }

    #[test]
    fn a_bad_line_is_named() {
        for (line, expected) in [
            ("--yaml", "unknown option \"--yaml\""),
            ("a.csv", "unknown option \"a.csv\""),
            ("--csv", "--csv needs a value"),
            ("--threads", "--threads needs a value"),
            ("--threads 0", "--threads needs a number from 1 to 1024, found \"0\""),
            ("--threads -1", "--threads needs a number from 1 to 1024, found \"-1\""),
            ("--threads two", "--threads needs a number from 1 to 1024, found \"two\""),
            ("--threads 1025", "--threads needs a number from 1 to 1024, found \"1025\""),
        ] {
            assert_eq!(parse_line(line), Err(expected.to_owned()));
        }
    }
}
