//! The command line.

use crate::bench::Bench;
use dagger_benches::arguments::{Command, choose, positive, positives};
use std::path::PathBuf;

/// What `--help` and a wrong argument print.
pub(crate) const USAGE: &str = "\
usage: taskbench [--json] [--threads 1,2] [--samples 5] [--only NAME,..] [--from SIDE,..] [--peers DIR] [--quick] [NAME..]
  --json     no table at the end: only the lines, a JSON object for each sample as it comes
  --threads  numbers of workers (default: 1 and one for each usable CPU)
  --samples  of each figure (default 5)
  --only     names, as after the options
  --from     inside: the program is a task on a worker; outside: it runs on another thread
             (default: both for spawn, inside for all others)
  --peers    a directory with other people's programs and a Makefile: built, and run in turn with ours
  --quick    each sample is one run, each search for a granularity ends early: to see that it works
NAME is BENCH[:SIZE[:SIZE]]; without any: spawn chain fanout random cholesky_dag stencil:4 stencil:64 metg:4 metg:64
  spawn:TASKS  chain:TASKS  fanout:WIDTH:ROUNDS  random:TASKS:DATA  cholesky_dag:TILES  stencil:WIDTH:STEPS
  metg:WIDTH:STEPS (metg50 and metg80)  patterns (all that follow), each with WIDTH:STEPS:
  trivial no_comm stencil_1d_periodic dom tree fft all_to_all nearest spread random_nearest";

/// Where the program runs that submits the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// As a task, on a worker.
    Inside,
    /// On a thread that is no worker.
    Outside,
}

impl Side {
    const ALL: [Side; 2] = [Side::Inside, Side::Outside];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Inside => "inside",
            Side::Outside => "outside",
        }
    }
}

/// What to measure, and how to print it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) json: bool,
    pub(crate) quick: bool,
    pub(crate) samples: usize,
    /// Numbers of workers, ascending, each once.
    pub(crate) threads: Vec<usize>,
    pub(crate) benches: Vec<Bench>,
    sides: Option<Vec<Side>>,
    pub(crate) peers: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments (without the program's name) on a machine with `parallelism` usable CPUs.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = String>,
        parallelism: usize,
    ) -> Result<Command<Options>, String> {
        let mut options = Options {
            json: false,
            quick: false,
            samples: 5,
            threads: if parallelism > 1 { vec![1, parallelism] } else { vec![1] },
            benches: Vec::new(),
            sides: None,
            peers: None,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("`{argument}` needs a value"));
            match argument.as_str() {
                "--json" => options.json = true,
                "--quick" => options.quick = true,
                "--help" | "-h" => return Ok(Command::Help),
                "--samples" => options.samples = positive(&value()?)?,
                "--threads" => options.threads = positives(&value()?)?,
                "--only" => options.add(value()?.split(','))?,
                "--from" => options.sides = Some(choose(&value()?, &Side::ALL, Side::name)?),
                "--peers" => options.peers = Some(value()?.into()),
                _ if argument.starts_with('-') => return Err(format!("unknown argument `{argument}`")),
                _ => options.add([argument.as_str()])?,
            }
        }
        if options.benches.is_empty() {
            options.add(Bench::DEFAULT)?;
        }
        Ok(Command::Measure(options))
    }

    fn add<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
        for name in names {
            for bench in Bench::parse(name.trim())? {
                if !self.benches.contains(&bench) {
                    self.benches.push(bench);
                }
            }
        }
        Ok(())
    }

    /// From where a bench is measured.
    pub(crate) fn sides(&self, bench: Bench) -> &[Side] {
        match (&self.sides, bench) {
            (Some(sides), _) => sides,
            (None, Bench::Spawn { .. }) => &Side::ALL,
            (None, _) => &[Side::Inside],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::pattern::Pattern;

    fn parse(line: &str, parallelism: usize) -> Result<Options, String> {
        match Options::parse(line.split_whitespace().map(str::to_owned), parallelism)? {
            Command::Measure(options) => Ok(options),
            Command::Help => Err("help".to_owned()),
        }
    }

    #[test]
    fn without_arguments_the_usual_benches_are_measured() {
        let options = parse("", 2).unwrap();
        assert_eq!((options.threads.clone(), options.samples, options.json), (vec![1, 2], 5, false));
        assert_eq!(options.benches.len(), 9);
        assert_eq!(options.sides(options.benches[0]).len(), 2);
        assert_eq!(options.sides(options.benches[1]), [Side::Inside]);
        assert_eq!(parse("", 1).unwrap().threads, [1]);
    }

    #[test]
    fn names_come_with_sizes_and_alone() {
        let options = parse("stencil:3:7 --only chain,metg80:4 dom patterns --threads 4,1,4", 2).unwrap();
        let metg = Bench::Metg { width: 4, steps: 1000, percent: Some(80) };
        assert_eq!(
            options.benches[..4],
            [
                Bench::Stencil { width: 3, steps: 7 },
                Bench::Chain { tasks: 100_000 },
                metg,
                Bench::Pattern { pattern: Pattern::Dom, width: 64, steps: 1000 },
            ]
        );
        assert_eq!(options.benches.len(), 3 + Pattern::ALL.len(), "dom is there once");
        assert_eq!(options.threads, [1, 4]);
        let both = parse("stencil metg50", 1).unwrap().benches;
        let widths = both.iter().map(|bench| bench.params()[0].1).collect::<Vec<_>>();
        assert_eq!(widths, [4, 64, 4, 64]);
    }

    #[test]
    fn wrong_arguments_are_refused_by_name() {
        for (line, culprit) in [
            ("--fast", "--fast"),
            ("--samples", "--samples"),
            ("--samples 0", "`0`"),
            ("--threads 1,,2", "``"),
            ("china", "china"),
            ("chain:0", "chain:0"),
            ("chain:1:2", "chain:1:2"),
            ("random:10:2", "random:10:2"),
            ("stencil:1", "stencil:1"),
            ("all_to_all:11", "all_to_all:11"),
            ("--from left", "left"),
        ] {
            let message = parse(line, 1).unwrap_err();
            assert!(message.contains(culprit), "{line}: {message}");
        }
        assert_eq!(Options::parse(["--help".to_owned()], 1), Ok(Command::Help));
    }
}
