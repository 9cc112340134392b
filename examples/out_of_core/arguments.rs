//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use dagger_async::store::Eviction;

use crate::size;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Cholesky factorisation of a matrix that is four times as large as the memory that it gets.

Usage: out_of_core [--memory-limit SIZE] [--order N] [--tile N] [--threads N] [--spill DIR] [--eviction POLICY] [--json]

  --memory-limit SIZE  bytes of tiles in memory at once: 256MiB, 1GiB, 64MB, 1000000 (default: 256MiB)
  --order N            rows of the matrix (default: so many that its tiles have four times the limit)
  --tile N             rows and columns of a tile (default: 384, or less where the limit is small)
  --threads N          worker threads, 1 to 1024 (default: one for each core)
  --spill DIR          where tiles go that do not fit (default: in the system's folder for temporary files)
  --eviction POLICY    who leaves first: next-use, lru or mru (default: next-use)
  --json               print JSON instead of a table, and no progress bar
  --help               print this text
";

/// A newcomer's slip, such as a thread for every row, should not ask the system for a million.
const THREADS_MAX: usize = 1024;

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Factor.
    Factor(Settings),
}

/// How much memory, for which matrix, on how many threads, printed how. `None` leaves it to the program.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Bytes.
    pub(crate) memory_limit: u64,
    pub(crate) order: Option<usize>,
    pub(crate) tile: Option<usize>,
    pub(crate) threads: Option<usize>,
    pub(crate) spill: Option<PathBuf>,
    pub(crate) eviction: Eviction,
    pub(crate) json: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            memory_limit: 256 << 20,
            order: None,
            tile: None,
            threads: None,
            spill: None,
            eviction: Eviction::default(),
            json: false,
        }
    }
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
    /// A value that is no number, or none that makes sense.
    #[error("{option} needs {what}, found {found:?}")]
    Value { option: &'static str, what: String, found: OsString },
}

/// Reads the arguments, without the program's own name. An option given twice counts as the last one.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut settings = Settings::default();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let mut value = |option| arguments.next().ok_or(UsageError::NoValue(option));
        match argument.to_str() {
            Some("--memory-limit") => {
                settings.memory_limit = parse_size("--memory-limit", value("--memory-limit")?)?
            }
            Some("--order") => settings.order = Some(parse_count("--order", usize::MAX, value("--order")?)?),
            Some("--tile") => settings.tile = Some(parse_count("--tile", usize::MAX, value("--tile")?)?),
            Some("--threads") => {
                settings.threads = Some(parse_count("--threads", THREADS_MAX, value("--threads")?)?);
            }
            Some("--spill") => settings.spill = Some(value("--spill")?.into()),
            Some("--eviction") => settings.eviction = parse_eviction(value("--eviction")?)?,
            Some("--json") => settings.json = true,
            Some("--help" | "-h") => return Ok(Command::Help),
            _ => return Err(UsageError::Unknown(argument)),
        }
    }
    Ok(Command::Factor(settings))
}

fn parse_count(option: &'static str, max: usize, found: OsString) -> Result<usize, UsageError> {
    match found.to_str().and_then(|digits| digits.parse().ok()) {
        Some(count) if (1..=max).contains(&count) => Ok(count),
        _ if max == usize::MAX => {
            Err(UsageError::Value { option, what: "a number from 1 on".to_owned(), found })
        }
        _ => Err(UsageError::Value { option, what: format!("a number from 1 to {max}"), found }),
    }
}

/// The policies by the names that the command line has for them.
const POLICIES: [(&str, Eviction); 3] =
    [("next-use", Eviction::NextUse), ("lru", Eviction::Lru), ("mru", Eviction::Mru)];

/// What the command line calls a policy.
pub(crate) fn name(eviction: Eviction) -> &'static str {
    POLICIES.iter().find(|(_, policy)| *policy == eviction).map_or("?", |(name, _)| name)
}

fn parse_eviction(found: OsString) -> Result<Eviction, UsageError> {
    match POLICIES.iter().find(|(name, _)| found == *name) {
        Some((_, policy)) => Ok(*policy),
        None => {
            Err(UsageError::Value { option: "--eviction", what: "next-use, lru or mru".to_owned(), found })
        }
    }
}

fn parse_size(option: &'static str, found: OsString) -> Result<u64, UsageError> {
    match found.to_str().and_then(size::parse) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => Err(UsageError::Value { option, what: "a size such as 256MiB, 1GiB or 64MB".to_owned(), found }),
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
        assert_eq!(parse_line(""), Ok(Command::Factor(Settings::default())));
        let line = "--json --memory-limit 1GiB --order 500 --tile 32 --threads 3 --spill s --eviction mru";
        let all = Settings {
            memory_limit: 1 << 30,
            order: Some(500),
            tile: Some(32),
            threads: Some(3),
            spill: Some("s".into()),
            eviction: Eviction::Mru,
            json: true,
        };
        assert_eq!(parse_line(line), Ok(Command::Factor(all)));
        assert_eq!(parse_line("--json --help"), Ok(Command::Help));
    }

    #[test]
    fn a_bad_line_is_named() {
        for (line, expected) in [
            ("--yaml", "unknown option \"--yaml\""),
            ("--spill", "--spill needs a value"),
            ("--memory-limit", "--memory-limit needs a value"),
            ("--memory-limit 0", "--memory-limit needs a size such as 256MiB, 1GiB or 64MB, found \"0\""),
            (
                "--memory-limit some",
                "--memory-limit needs a size such as 256MiB, 1GiB or 64MB, found \"some\"",
            ),
            ("--threads 0", "--threads needs a number from 1 to 1024, found \"0\""),
            ("--threads 1025", "--threads needs a number from 1 to 1024, found \"1025\""),
            ("--tile 0", "--tile needs a number from 1 on, found \"0\""),
            ("--order big", "--order needs a number from 1 on, found \"big\""),
            ("--eviction fifo", "--eviction needs next-use, lru or mru, found \"fifo\""),
        ] {
            assert_eq!(parse_line(line), Err(expected.to_owned()));
        }
    }
}
