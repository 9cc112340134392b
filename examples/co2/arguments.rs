//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::size;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
A forecast of the CO₂ in the air of Mauna Loa: Gaussian-process regression on its weekly record, as a graph of tasks.

Usage: co2 [--csv PATH] [--at YEARS] [--noise PPM] [--tile N] [--threads N] [--memory-limit SIZE] [--out DIR]
           [--trace DIR] [--json]

  --csv PATH   a file with the columns `date,co2` (default: the record of Mauna Loa)
  --at YEARS   what to predict, separated by commas; decimals are welcome (default: 2002,2010,2020)
  --noise PPM  standard deviation of the error of one value (default: 0.19)
  --tile N     rows and columns of a tile (default: 256)
  --threads N  worker threads, 1 to 1024 (default: one for each core)
  --memory-limit SIZE  bytes of tiles in memory at once, such as 16MiB; the rest goes to files (default: three quarters of
               what the process may use)
  --out DIR    where to write forecast.svg (default: here)
  --trace DIR  record the run and write what it shows there: graph.svg, gantt.svg, trace.json (for Perfetto), describe.txt
               and run.trace (for the program dagger-trace)
  --json       print JSON instead of a table
  --help       print this text
";

/// A newcomer's slip, such as a thread for every row, should not ask the system for a million.
const THREADS_MAX: usize = 1024;

/// Measured with the 2225 values of the record on two cores, best of 12 runs of the whole program: 0.216 s with 224 to 288,
/// 0.221 with 384, 0.223 with 128, 0.234 with 448 or 560, 0.264 with 64. Smaller tiles make tasks too short for a kernel to
/// reach its speed; larger ones are too few to keep two cores busy to the end. 256 makes 9 × 9 of them.
const TILE: usize = 256;

/// The record that the example brings along: found from any working directory.
const MAUNA_LOA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/mauna_loa_co2.csv");

/// What to do.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Predict.
    Forecast(Settings),
}

/// What to predict from what, cut how, on how many threads, printed how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) csv: PathBuf,
    pub(crate) at: Vec<f64>,
    pub(crate) noise: f64,
    pub(crate) tile: usize,
    /// `None` leaves the number to the runtime.
    pub(crate) threads: Option<usize>,
    /// In bytes. `None` leaves it to the runtime, and nothing is said of it.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) out: PathBuf,
    /// Where to write what the recorded run shows.
    pub(crate) trace: Option<PathBuf>,
    pub(crate) json: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            csv: MAUNA_LOA.into(),
            at: vec![2002.0, 2010.0, 2020.0],
            noise: 0.19,
            tile: TILE,
            threads: None,
            memory_limit: None,
            out: ".".into(),
            trace: None,
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
            Some("--csv") => settings.csv = value("--csv")?.into(),
            Some("--at") => settings.at = parse_years(value("--at")?)?,
            Some("--noise") => settings.noise = parse_noise(value("--noise")?)?,
            Some("--tile") => settings.tile = parse_count("--tile", usize::MAX, value("--tile")?)?,
            Some("--threads") => {
                settings.threads = Some(parse_count("--threads", THREADS_MAX, value("--threads")?)?);
            }
            Some("--memory-limit") => settings.memory_limit = Some(parse_size(value("--memory-limit")?)?),
            Some("--out") => settings.out = value("--out")?.into(),
            Some("--trace") => settings.trace = Some(value("--trace")?.into()),
            Some("--json") => settings.json = true,
            Some("--help" | "-h") => return Ok(Command::Help),
            _ => return Err(UsageError::Unknown(argument)),
        }
    }
    Ok(Command::Forecast(settings))
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

fn parse_size(found: OsString) -> Result<u64, UsageError> {
    match found.to_str().and_then(size::parse) {
        Some(bytes) if bytes > 0 => Ok(bytes),
        _ => {
            let what = "a size such as 16MiB, 1GiB or 64MB".to_owned();
            Err(UsageError::Value { option: "--memory-limit", what, found })
        }
    }
}

fn parse_years(found: OsString) -> Result<Vec<f64>, UsageError> {
    let year = |text: &str| text.trim().parse().ok().filter(|year| (0.0..10_000.0).contains(year));
    match found.to_str().and_then(|text| text.split(',').map(year).collect()) {
        Some(years) => Ok(years),
        None => {
            let what = "years from 0 to 9999, separated by commas".to_owned();
            Err(UsageError::Value { option: "--at", what, found })
        }
    }
}

fn parse_noise(found: OsString) -> Result<f64, UsageError> {
    match found.to_str().and_then(|digits| digits.parse().ok()) {
        Some(noise) if (0.0..=1e6).contains(&noise) => Ok(noise),
        _ => Err(UsageError::Value { option: "--noise", what: "ppm from 0 to 1000000".to_owned(), found }),
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
        let Ok(Command::Forecast(settings)) = parse_line("") else { panic!("no options are fine") };
        assert!(settings.csv.is_absolute() && settings.csv.exists());

        let line = "--json --threads 3 --csv a.csv --at 1990.5,2050 --noise 0 --tile 32 --out pictures --trace t --memory-limit 1KiB";
        let all = Settings {
            csv: "a.csv".into(),
            at: vec![1990.5, 2050.0],
            noise: 0.0,
            tile: 32,
            threads: Some(3),
            memory_limit: Some(1024),
            out: "pictures".into(),
            trace: Some("t".into()),
            json: true,
        };
        assert_eq!(parse_line(line), Ok(Command::Forecast(all)));
        assert_eq!(parse_line("--json --help"), Ok(Command::Help));
        assert!(HELP.contains(&format!("(default: {})", Settings::default().tile)));
    }

    #[test]
    fn a_bad_line_is_named() {
        for (line, expected) in [
            ("--yaml", "unknown option \"--yaml\""),
            ("--out", "--out needs a value"),
            ("--threads 0", "--threads needs a number from 1 to 1024, found \"0\""),
            ("--threads 1025", "--threads needs a number from 1 to 1024, found \"1025\""),
            ("--memory-limit 0B", "--memory-limit needs a size such as 16MiB, 1GiB or 64MB, found \"0B\""),
            (
                "--memory-limit much",
                "--memory-limit needs a size such as 16MiB, 1GiB or 64MB, found \"much\"",
            ),
            ("--tile 0", "--tile needs a number from 1 on, found \"0\""),
            ("--tile big", "--tile needs a number from 1 on, found \"big\""),
            ("--at soon", "--at needs years from 0 to 9999, separated by commas, found \"soon\""),
            ("--at 2002,", "--at needs years from 0 to 9999, separated by commas, found \"2002,\""),
            ("--at NaN", "--at needs years from 0 to 9999, separated by commas, found \"NaN\""),
            ("--at 1e9", "--at needs years from 0 to 9999, separated by commas, found \"1e9\""),
            ("--noise -1", "--noise needs ppm from 0 to 1000000, found \"-1\""),
        ] {
            assert_eq!(parse_line(line), Err(expected.to_owned()));
        }
    }
}
