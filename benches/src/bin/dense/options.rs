//! The command line.

use dagger_benches::arguments::{Command, choose, positive, positives};
use std::path::PathBuf;

/// What `--help` and a wrong argument print.
pub(crate) const USAGE: &str = "\
usage: dense [--json] [--sizes 2048,4096,8192] [--threads 2] [--only cholesky,matmul] [--tile n] [--samples 5]
             [--peers DIR] [--blas-core NAME] [--describe]
  --json       no table at the end: only the lines, a JSON object for each sample as it comes
  --sizes      orders of the matrices
  --threads    numbers of workers (default: one for each usable CPU)
  --only       of cholesky,matmul
  --tile       order of our tiles (default: our own choice)
  --samples    of each figure, after one that is checked and not counted (default 5)
  --peers      a directory with other people's programs and a Makefile: built, and run in turn with ours
  --blas-core  measures OpenBLAS with the kernels of this core too (OPENBLAS_CORETYPE), beside its own choice
  --describe   where the time of one run of ours goes, instead of any figures";

/// An algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Cholesky,
    Matmul,
}

impl Algorithm {
    const ALL: [Algorithm; 2] = [Algorithm::Cholesky, Algorithm::Matmul];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Algorithm::Cholesky => "cholesky",
            Algorithm::Matmul => "matmul",
        }
    }

    /// Floating-point operations at order `n`.
    pub(crate) fn flops(self, n: usize) -> f64 {
        let cube = (n as f64).powi(3);
        match self {
            Algorithm::Cholesky => cube / 3.0,
            Algorithm::Matmul => 2.0 * cube,
        }
    }
}

/// What to measure, and how to print it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) json: bool,
    pub(crate) describe: bool,
    pub(crate) sizes: Vec<usize>,
    pub(crate) threads: Vec<usize>,
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) tile: Option<usize>,
    pub(crate) samples: usize,
    pub(crate) peers: Option<PathBuf>,
    pub(crate) blas_core: Option<String>,
}

impl Options {
    /// Reads the arguments (without the program's name) on a machine with `parallelism` usable CPUs.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = String>,
        parallelism: usize,
    ) -> Result<Command<Options>, String> {
        let mut options = Options {
            json: false,
            describe: false,
            sizes: vec![2048, 4096, 8192],
            threads: vec![parallelism],
            algorithms: Algorithm::ALL.to_vec(),
            tile: None,
            samples: 5,
            peers: None,
            blas_core: None,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("`{argument}` needs a value"));
            match argument.as_str() {
                "--json" => options.json = true,
                "--describe" => options.describe = true,
                "--help" | "-h" => return Ok(Command::Help),
                "--sizes" => options.sizes = positives(&value()?)?,
                "--threads" => options.threads = positives(&value()?)?,
                "--only" => options.algorithms = choose(&value()?, &Algorithm::ALL, Algorithm::name)?,
                "--tile" => options.tile = Some(positive(&value()?)?),
                "--samples" => options.samples = positive(&value()?)?,
                "--peers" => options.peers = Some(value()?.into()),
                "--blas-core" => options.blas_core = Some(value()?),
                _ => return Err(format!("unknown argument `{argument}`")),
            }
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
        assert_eq!((options.sizes, options.threads, options.samples), (vec![2048, 4096, 8192], vec![2], 5));
        assert_eq!(options.algorithms, Algorithm::ALL);
        let options = parse("--only matmul --sizes 64,32 --tile 16 --blas-core Haswell").unwrap();
        assert_eq!((options.sizes, options.tile), (vec![32, 64], Some(16)));
        assert_eq!(
            (options.algorithms, options.blas_core),
            (vec![Algorithm::Matmul], Some("Haswell".to_owned()))
        );
    }

    #[test]
    fn wrong_arguments_are_refused_by_name() {
        for (line, culprit) in
            [("--fast", "--fast"), ("--tile", "--tile"), ("--sizes 0", "`0`"), ("--only lu", "lu")]
        {
            let message = parse(line).unwrap_err();
            assert!(message.contains(culprit), "{line}: {message}");
        }
    }
}
