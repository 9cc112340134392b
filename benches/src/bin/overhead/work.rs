//! What is measured: which program, of how many tasks, from where.

/// Tasks between the source and the sink of a `fan`.
pub(crate) const FAN_WIDTH: u64 = 1000;

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bench {
    /// Spawn all, then await all.
    Independent,
    /// Each takes the one before.
    Chain,
    /// A source, [`FAN_WIDTH`] tasks that take it, a sink that takes them; round after round.
    Fan,
    /// Spawn one, await it.
    OneByOne,
    /// [`SUBMITTERS`] threads that are no workers, each as in `Independent`, with a part of the tasks.
    Submitters,
    /// Each `InOut` of the same datum, in one block.
    DataChain,
    /// `InOut`, `In` [`FAN_WIDTH`] times, `InOut` of one datum; round after round, in one block.
    DataFan,
    /// `In`, `In`, `InOut` of three of [`DATA`] data, picked at random, in one block.
    DataRandom,
    /// The tasks of a tile Cholesky of `count` tiles to a side, in one block.
    DataCholesky,
    /// Without data or options, in one block: what the rest is compared with.
    Block,
    /// The same with a name each.
    BlockNamed,
    /// The same with one of three priorities.
    BlockPriority,
    /// The same, all bound to one worker.
    BlockScope,
    /// The same in a `with_options` with a name.
    BlockOptions,
}

/// Threads that submit at once in [`Bench::Submitters`].
pub(crate) const SUBMITTERS: u64 = 4;

/// How many data [`Bench::DataRandom`] picks from.
pub(crate) const DATA: usize = 100;

impl Bench {
    pub(crate) const ALL: [Bench; 14] = [
        Bench::Independent,
        Bench::Chain,
        Bench::Fan,
        Bench::OneByOne,
        Bench::Submitters,
        Bench::DataChain,
        Bench::DataFan,
        Bench::DataRandom,
        Bench::DataCholesky,
        Bench::Block,
        Bench::BlockNamed,
        Bench::BlockPriority,
        Bench::BlockScope,
        Bench::BlockOptions,
    ];

    /// Of blocks, data and options: the peers here have no such things.
    pub(crate) fn is_ours(self) -> bool {
        let also_theirs = [Bench::Independent, Bench::Chain, Bench::Fan, Bench::OneByOne, Bench::Submitters];
        !also_theirs.contains(&self)
    }

    /// It can be run from this side.
    pub(crate) fn is_from(self, side: Side) -> bool {
        side == Side::Outside || self != Bench::Submitters
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Bench::Independent => "independent",
            Bench::Chain => "chain",
            Bench::Fan => "fan",
            Bench::OneByOne => "one_by_one",
            Bench::Submitters => "submitters",
            Bench::DataChain => "data_chain",
            Bench::DataFan => "data_fan",
            Bench::DataRandom => "data_random",
            Bench::DataCholesky => "data_cholesky",
            Bench::Block => "block",
            Bench::BlockNamed => "block_named",
            Bench::BlockPriority => "block_priority",
            Bench::BlockScope => "block_scope",
            Bench::BlockOptions => "block_options",
        }
    }
}

/// Where the program runs that submits the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// As a task, on a worker.
    Inside,
    /// On a thread that is no worker.
    Outside,
}

impl Side {
    pub(crate) const ALL: [Side; 2] = [Side::Inside, Side::Outside];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Inside => "inside",
            Side::Outside => "outside",
        }
    }
}

/// A program and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) bench: Bench,
    /// Tasks, but for a `fan` and `data_fan`: rounds; for `data_cholesky`: tiles to a side.
    pub(crate) count: u64,
}

impl Work {
    /// The full size, or (`quick`) a tenth of it; a hundredth of `one_by_one`, which waits most of the time.
    pub(crate) fn new(bench: Bench, quick: bool) -> Work {
        let (full, part) = match bench {
            Bench::Independent | Bench::Submitters => (1_000_000, 10),
            Bench::Chain => (100_000, 10),
            Bench::Fan => (100, 10),
            Bench::OneByOne => (100_000, 100),
            Bench::DataChain | Bench::DataRandom => (100_000, 10),
            Bench::Block
            | Bench::BlockNamed
            | Bench::BlockPriority
            | Bench::BlockScope
            | Bench::BlockOptions => (200_000, 10),
            Bench::DataFan => (10, 10),
            // A tenth of the tasks.
            Bench::DataCholesky => return Work { bench, count: if quick { 17 } else { 40 } },
        };
        Work { bench, count: if quick { full / part } else { full } }
    }

    /// How many tasks the program spawns.
    pub(crate) fn tasks(self) -> u64 {
        match self.bench {
            Bench::Fan | Bench::DataFan => self.count * (FAN_WIDTH + 2),
            Bench::DataCholesky => self.count * (self.count + 1) * (self.count + 2) / 6,
            _ => self.count,
        }
    }

    /// Asserts the result: every program adds up ones, one for each task but the sources and sinks of a `fan`, and in
    /// `data_fan` for the writers only. Those of the blocks without data do nothing: it is how many were spawned.
    pub(crate) fn check(self, result: u64) {
        let expected = match self.bench {
            Bench::Fan => self.count * FAN_WIDTH,
            Bench::DataFan => self.count * 2,
            _ => self.tasks(),
        };
        assert_eq!(result, expected, "{} computed something else", self.bench.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_sinks_count_as_tasks() {
        let fan = Work::new(Bench::Fan, false);
        assert_eq!(fan.tasks(), 100_200);
        fan.check(100_000);
        assert_eq!(Work::new(Bench::DataCholesky, false).tasks(), 11_480);
    }

    #[test]
    fn quick_is_smaller() {
        for bench in Bench::ALL {
            assert!(Work::new(bench, true).tasks() * 10 <= Work::new(bench, false).tasks(), "{bench:?}");
        }
    }
}
