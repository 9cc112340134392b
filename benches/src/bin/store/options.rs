//! The command line.

use dagger_benches::arguments::{Command, choose, positive};
use std::path::PathBuf;

/// What `--help` and a wrong argument print.
pub(crate) const USAGE: &str = "\
usage: store [--json] [--gib 4] [--dir DIR] [--object-mib 2] [--limit-mib 256] [--threads 2] [--samples 3]
             [--flush none,disk] [--only files,cholesky]
  --json        no table at the end: only the lines, a JSON object for each sample as it comes
  --gib         what is spilled and reloaded in a sample, in GiB
  --dir         where: a folder of its own is made there and removed (default: the system's for temporary files)
  --object-mib  of each object, in MiB
  --limit-mib   the memory limit of our runtimes, in MiB; the matrix of `cholesky` has four times that
  --threads     workers (default: one for each usable CPU)
  --samples     of each figure (default 3)
  --flush       none: written is what the system has; disk: what is on the disk, by fdatasync of each file at the end
  --only        of files,cholesky";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Spill and reload beside plain files.
    Files,
    /// A factorisation out of core and in core.
    Cholesky,
}

/// When something counts as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    None,
    Disk,
}

impl Part {
    const ALL: [Part; 2] = [Part::Files, Part::Cholesky];

    fn name(self) -> &'static str {
        match self {
            Part::Files => "files",
            Part::Cholesky => "cholesky",
        }
    }
}

impl Flush {
    const ALL: [Flush; 2] = [Flush::None, Flush::Disk];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Flush::None => "none",
            Flush::Disk => "disk",
        }
    }
}

/// What to measure, and how to print it. Sizes are in bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) json: bool,
    pub(crate) bytes: u64,
    pub(crate) object: u64,
    pub(crate) limit: u64,
    pub(crate) dir: PathBuf,
    pub(crate) threads: usize,
    pub(crate) samples: usize,
    pub(crate) flush: Vec<Flush>,
    pub(crate) only: Vec<Part>,
}

impl Options {
    /// Reads the arguments (without the program's name) on a machine with `parallelism` usable CPUs.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = String>,
        parallelism: usize,
    ) -> Result<Command<Options>, String> {
        let mut options = Options {
            json: false,
            bytes: 4 << 30,
            object: 2 << 20,
            limit: 256 << 20,
            dir: std::env::temp_dir(),
            threads: parallelism,
            samples: 3,
            flush: Flush::ALL.to_vec(),
            only: Part::ALL.to_vec(),
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("`{argument}` needs a value"));
            let mut size = |unit: u64| -> Result<u64, String> {
                let text = value()?;
                let bytes = (positive(&text)? as u64).checked_mul(unit);
                bytes.ok_or(format!("`{text}` is more than there can be"))
            };
            match argument.as_str() {
                "--json" => options.json = true,
                "--help" | "-h" => return Ok(Command::Help),
                "--gib" => options.bytes = size(1 << 30)?,
                "--mib" => options.bytes = size(1 << 20)?, // for tests
                "--object-mib" => options.object = size(1 << 20)?,
                "--limit-mib" => options.limit = size(1 << 20)?,
                "--dir" => options.dir = value()?.into(),
                "--threads" => options.threads = positive(&value()?)?,
                "--samples" => options.samples = positive(&value()?)?,
                "--flush" => options.flush = choose(&value()?, &Flush::ALL, Flush::name)?,
                "--only" => options.only = choose(&value()?, &Part::ALL, Part::name)?,
                _ => return Err(format!("unknown argument `{argument}`")),
            }
        }
        if options.object.saturating_mul(8) > options.limit {
            return Err("`--limit-mib` has to hold eight objects of `--object-mib`".to_owned());
        }
        Ok(Command::Measure(options))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        match Options::parse(line.split_whitespace().map(str::to_owned), 2)? {
            Command::Measure(options) => Ok(options),
            Command::Help => Err("help".to_owned()),
        }
    }

    #[test]
    fn arguments_say_what_to_measure() {
        let options = parse("").unwrap();
        assert_eq!((options.bytes, options.object, options.limit), (4 << 30, 2 << 20, 256 << 20));
        assert_eq!((options.threads, options.samples, options.only.len()), (2, 3, 2));
        let options =
            parse("--gib 1 --object-mib 1 --limit-mib 16 --flush disk --only files --dir x").unwrap();
        assert_eq!((options.bytes, options.object, options.limit), (1 << 30, 1 << 20, 16 << 20));
        assert_eq!((options.flush, options.only), (vec![Flush::Disk], vec![Part::Files]));
        assert_eq!(options.dir, PathBuf::from("x"));
    }

    #[test]
    fn wrong_arguments_are_refused_by_name() {
        for (line, culprit) in [
            ("--fast", "--fast"),
            ("--dir", "--dir"),
            ("--gib 0", "`0`"),
            ("--gib 99999999999999", "`99999999999999`"),
            ("--only dogs", "dogs"),
            ("--flush sometimes", "sometimes"),
            ("--limit-mib 15", "eight objects"),
        ] {
            let message = parse(line).unwrap_err();
            assert!(message.contains(culprit), "{line}: {message}");
        }
    }
}
