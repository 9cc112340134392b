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
}

impl Bench {
    pub(crate) const ALL: [Bench; 4] = [Bench::Independent, Bench::Chain, Bench::Fan, Bench::OneByOne];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Bench::Independent => "independent",
            Bench::Chain => "chain",
            Bench::Fan => "fan",
            Bench::OneByOne => "one_by_one",
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
    /// Tasks, but for a `fan`: rounds.
    pub(crate) count: u64,
}

impl Work {
    /// The full size, or (`quick`) a tenth of it; a hundredth of `one_by_one`, which waits most of the time.
    pub(crate) fn new(bench: Bench, quick: bool) -> Work {
        let (full, part) = match bench {
            Bench::Independent => (1_000_000, 10),
            Bench::Chain => (100_000, 10),
            Bench::Fan => (100, 10),
            Bench::OneByOne => (100_000, 100),
        };
        Work { bench, count: if quick { full / part } else { full } }
    }

    /// How many tasks the program spawns.
    pub(crate) fn tasks(self) -> u64 {
        match self.bench {
            Bench::Fan => self.count * (FAN_WIDTH + 2),
            _ => self.count,
        }
    }

    /// Asserts the result: every program adds up ones, one for each task but the sources and sinks of a `fan`.
    pub(crate) fn check(self, result: u64) {
        let expected = match self.bench {
            Bench::Fan => self.count * FAN_WIDTH,
            _ => self.count,
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
    }

    #[test]
    fn quick_is_smaller() {
        for bench in Bench::ALL {
            assert!(Work::new(bench, true).tasks() * 10 <= Work::new(bench, false).tasks());
        }
    }
}
