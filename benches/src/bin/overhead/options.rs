//! The command line.

use crate::peers;
use crate::work::{Bench, Side};
use dagger_benches::arguments::{Command, choose, positive, positives};

/// What `--help` and a wrong argument print.
pub(crate) const USAGE: &str = "\
usage: overhead [--json] [--quick] [--threads 1,2] [--reps 7] [--only BENCH,..] [--from SIDE,..] [--peers PEER,..] [--trace]
  --json     one JSON object a line for each bench, peer, side and number of workers, instead of a table
  --quick    a tenth of the tasks or less, 3 repetitions unless --reps says otherwise, none of them uncounted
  --threads  numbers of workers (default: 1 and one for each usable CPU)
  --reps     repetitions that are counted (default 7)
  --only     of independent,chain,fan,one_by_one,submitters,data_chain,data_fan,data_random,data_cholesky,
             block,block_named,block_priority,block_scope,block_options
  --from     of inside,outside
  --peers    of dagger,tokio,async-executor,rayon,dagger+record (default: all but the last)
  --trace    dagger alone, beside itself with a recording on";

/// What to measure, and how to print it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) json: bool,
    pub(crate) quick: bool,
    /// Numbers of workers, ascending, each once.
    pub(crate) threads: Vec<usize>,
    pub(crate) reps: usize,
    pub(crate) benches: Vec<Bench>,
    pub(crate) sides: Vec<Side>,
    pub(crate) peers: Vec<&'static str>,
}

impl Options {
    /// Reads the arguments (without the program's name) on a machine with `parallelism` usable CPUs.
    pub(crate) fn parse(
        arguments: impl IntoIterator<Item = String>,
        parallelism: usize,
    ) -> Result<Command<Options>, String> {
        let (mut json, mut quick, mut reps) = (false, false, None);
        let mut threads = if parallelism > 1 { vec![1, parallelism] } else { vec![1] };
        let mut benches = Bench::ALL.to_vec();
        let mut sides = Side::ALL.to_vec();
        let mut peers = peers::PEERS.to_vec();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("`{argument}` needs a value"));
            match argument.as_str() {
                "--json" => json = true,
                "--quick" => quick = true,
                "--trace" => peers = vec!["dagger", "dagger+record"],
                "--help" | "-h" => return Ok(Command::Help),
                "--reps" => reps = Some(positive(&value()?)?),
                "--threads" => threads = positives(&value()?)?,
                "--only" => benches = choose(&value()?, &Bench::ALL, |bench| bench.name())?,
                "--from" => sides = choose(&value()?, &Side::ALL, |side| side.name())?,
                "--peers" => peers = choose(&value()?, &peers::NAMES, |name| name)?,
                _ => return Err(format!("unknown argument `{argument}`")),
            }
        }
        let reps = reps.unwrap_or(if quick { 3 } else { 7 });
        Ok(Command::Measure(Options { json, quick, threads, reps, benches, sides, peers }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, parallelism: usize) -> Result<Options, String> {
        match Options::parse(line.split_whitespace().map(str::to_owned), parallelism)? {
            Command::Measure(options) => Ok(options),
            Command::Help => Err("help".to_owned()),
        }
    }

    #[test]
    fn without_arguments_everything_is_measured() {
        let options = parse("", 2).unwrap();
        assert_eq!(
            (options.threads, options.reps, options.json, options.quick),
            (vec![1, 2], 7, false, false)
        );
        assert_eq!((options.benches.len(), options.sides.len(), options.peers.len()), (14, 2, 4));
        assert_eq!(parse("", 1).unwrap().threads, [1]);
    }

    #[test]
    fn lists_choose_rows_in_their_usual_order() {
        let options =
            parse("--only one_by_one,chain --from outside --peers tokio,dagger --threads 4,1,4", 2).unwrap();
        assert_eq!(options.benches, [Bench::Chain, Bench::OneByOne]);
        assert_eq!(options.sides, [Side::Outside]);
        assert_eq!(options.peers, ["dagger", "tokio"]);
        assert_eq!(options.threads, [1, 4]);
    }

    #[test]
    fn quick_means_three_repetitions_unless_told_otherwise() {
        assert_eq!(parse("--quick", 1).unwrap().reps, 3);
        assert_eq!(parse("--reps 5 --quick", 1).unwrap().reps, 5);
    }

    #[test]
    fn wrong_arguments_are_refused_by_name() {
        for (line, culprit) in [
            ("--fast", "--fast"),
            ("--reps", "--reps"),
            ("--reps 0", "`0`"),
            ("--threads 1,,2", "``"),
            ("--only chain,china", "china"),
            ("--from left", "left"),
        ] {
            let message = parse(line, 1).unwrap_err();
            assert!(message.contains(culprit), "{line}: {message}");
        }
        assert_eq!(Options::parse(["--help".to_owned()], 1), Ok(Command::Help));
    }
}
