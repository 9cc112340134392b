//! How long the steps of a plan take, and which of them are urgent.
//!
//! ```text
//!   recording   a step's polls, timed ─▶ RunTimes by spawn site
//!        end    cost of a step = expected of its site ─▶ ranks ─▶ successors by rank, a priority for each step
//! ```
//! 1. Only the steps of a ranked plan are timed, in the runs that record: the others know of it by a test that they make anyway.
//! 2. What is measured is the time of the polls, not that between them: what a step needs a processor for.

use crate::task::{RawTask, Step};
use dagger_core::{Order, ProcessorKind, RunTimes};
use parking_lot::Mutex;
use std::time::Instant;

/// How many priorities the steps of a plan have. Each lane has its turn once in 61 picks, so many lanes would be no order.
const PRIORITIES: u64 = 8;

/// What the steps of a plan have taken, by their spawn sites.
pub(crate) struct Times(Mutex<RunTimes<usize, ProcessorKind>>);

impl Times {
    pub(super) fn new() -> Times {
        Times(Mutex::new(RunTimes::new()))
    }

    /// Polls a step, and counts how long that takes.
    #[cold]
    #[inline(never)]
    pub(crate) fn poll(&self, task: RawTask, poll: impl FnOnce() -> Step) -> Step {
        let (site, begun) = (task.origin.address(), Instant::now());
        let step = poll();
        let nanos = begun.elapsed().as_nanos().try_into().unwrap_or(u64::MAX);
        let before = {
            let guard = task.state.lock();
            let header = task.guarded(&guard);
            match step {
                Step::Pending => {
                    let polled = &mut header.extra().polled;
                    *polled = polled.saturating_add(nanos);
                    return step;
                }
                _ => header.known_extra().map_or(0, |extra| extra.polled),
            }
        };
        if matches!(step, Step::Value) {
            self.0.lock().observe(site, ProcessorKind::Cpu, nanos.saturating_add(before));
        }
        step
    }

    /// What a step spawned there takes; 1 where none has ended well.
    fn expected(&self, site: usize) -> u64 {
        self.0.lock().expected(&site, &ProcessorKind::Cpu).unwrap_or(1)
    }
}

/// What the steps of a plan are worth, by their ranks.
#[derive(Default)]
pub(super) struct Ranking {
    /// Of each step; none where they have no times.
    priorities: Box<[i32]>,
    /// In nanoseconds; 0 where they have no times.
    pub(super) critical_path: u64,
    pub(super) work: u64,
}

impl Ranking {
    /// Ranks the steps, which are spawned at these sites, and sorts the successors of each. Without times every step counts 1.
    pub(super) fn of(
        order: &mut Order,
        sites: impl Iterator<Item = usize>,
        times: Option<&Times>,
    ) -> Ranking {
        let costs: Vec<u64> = sites.map(|site| times.map_or(1, |times| times.expected(site))).collect();
        let ranks = order.ranks(|step| costs[step]);
        order.sort_successors(&ranks);
        if times.is_none() {
            return Ranking::default();
        }
        let critical_path = ranks.iter().copied().max().unwrap_or(0);
        // The largest is just below `PRIORITIES`, so that the least urgent go the plain way.
        let priority = |&rank: &u64| {
            (u128::from(rank) * u128::from(PRIORITIES) / (u128::from(critical_path) + 1)) as i32
        };
        let work = costs.iter().fold(0, |sum: u64, &cost| sum.saturating_add(cost));
        Ranking { priorities: ranks.iter().map(priority).collect(), critical_path, work }
    }

    /// The priority of a step, if it is not the common one.
    pub(super) fn priority(&self, step: usize) -> Option<i32> {
        self.priorities.get(step).copied().filter(|&priority| priority != 0)
    }
}
