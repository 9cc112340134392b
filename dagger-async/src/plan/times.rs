//! How long the steps of a plan take, and which of them most waits for.
//!
//! ```text
//!   recording   a step's polls, timed ─▶ Times, by the number of the step
//!        end    costs ─▶ ranks ─▶ successors by rank, and a rank in eighths for each step
//! ```
//! 1. Only the steps of a ranked plan are timed, in the runs that record: the others know of it by a test that they make anyway.
//! 2. What is measured is the time of the polls, not that between them.
//! 3. A step that has failed, or was skipped as another one has failed, counts as the mean of the others of its spawn site, else
//!    of all.

use crate::options::RANK_MAX;
use crate::task::{self, RawTask};
use dagger_core::Order;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

/// What the steps of one run have taken, in nanoseconds.
#[derive(Default)]
pub(super) struct Times(Mutex<Vec<Option<NonZeroU64>>>);

/// A step that is timed.
pub(crate) struct Timed {
    times: Arc<Times>,
    step: usize,
}

impl Timed {
    pub(super) fn new(times: Arc<Times>, step: usize) -> Timed {
        Timed { times, step }
    }

    /// Polls the task of the step, and counts how long that takes.
    #[cold]
    #[inline(never)]
    pub(crate) fn poll(&self, task: RawTask, poll: impl FnOnce() -> task::Step) -> task::Step {
        let begun = Instant::now();
        let outcome = poll();
        let nanos = begun.elapsed().as_nanos().try_into().unwrap_or(u64::MAX);
        let before = {
            let guard = task.state.lock();
            let header = task.guarded(&guard);
            if matches!(outcome, task::Step::Pending) {
                let polled = &mut header.extra().polled;
                *polled = polled.saturating_add(nanos);
                return outcome;
            }
            header.known_extra().map_or(0, |extra| extra.polled)
        };
        if !matches!(outcome, task::Step::Value) {
            return outcome;
        }
        let mut times = self.times.0.lock();
        if times.len() <= self.step {
            times.resize(self.step + 1, None);
        }
        times[self.step] = Some(NonZeroU64::MIN.saturating_add(nanos.saturating_add(before)));
        outcome
    }
}

impl Times {
    /// What each step costs, and whether all were measured. The steps were spawned at these sites.
    fn costs(&self, sites: &[usize]) -> (Vec<u64>, bool) {
        let times = self.0.lock();
        let known: Vec<_> = (0..sites.len()).map(|step| times.get(step).copied().flatten()).collect();
        let mut by_site: HashMap<usize, Mean> = HashMap::new();
        let mut all = Mean::default();
        for (&site, time) in sites.iter().zip(&known) {
            if let Some(time) = time {
                by_site.entry(site).or_default().add(*time);
                all.add(*time);
            }
        }
        let cost = |(site, time): (&usize, &Option<NonZeroU64>)| match time {
            Some(time) => time.get(),
            None => by_site.get(site).unwrap_or(&all).get(),
        };
        (sites.iter().zip(&known).map(cost).collect(), known.iter().all(Option::is_some))
    }
}

#[derive(Default)]
struct Mean {
    sum: u64,
    count: u64,
}

impl Mean {
    fn add(&mut self, time: NonZeroU64) {
        self.sum = self.sum.saturating_add(time.get());
        self.count += 1;
    }
    fn get(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(1)
    }
}

/// What the steps of a plan are worth.
#[derive(Default)]
pub(super) struct Ranking {
    /// In eighths of the critical path; none where they have no times.
    ranks: Box<[u8]>,
    /// In nanoseconds; 0 where they have no times.
    pub(super) critical_path: u64,
    pub(super) work: u64,
    /// Some steps have no times, of those that should.
    pub(super) is_partial: bool,
}

impl Ranking {
    /// Ranks the steps, which were spawned at these sites, and sorts the successors of each. Without times every step counts 1.
    pub(super) fn of(order: &mut Order, sites: &[usize], times: Option<&Times>) -> Ranking {
        let (costs, is_whole) =
            times.map_or_else(|| (vec![1; sites.len()], true), |times| times.costs(sites));
        let ranks = order.ranks(|step| costs[step]);
        order.sort_successors(&ranks);
        if times.is_none() {
            return Ranking::default();
        }
        let critical_path = ranks.iter().copied().max().unwrap_or(0);
        // From 1: what has none would have its turns beside all that has one.
        let eighths = |&rank: &u64| {
            (u128::from(rank) * u128::from(RANK_MAX)).div_ceil(u128::from(critical_path.max(1))) as u8
        };
        let work = costs.iter().fold(0, |sum: u64, &cost| sum.saturating_add(cost));
        Ranking { ranks: ranks.iter().map(eighths).collect(), critical_path, work, is_partial: !is_whole }
    }

    /// The rank of a step.
    pub(super) fn rank(&self, step: usize) -> Option<u8> {
        self.ranks.get(step).copied()
    }
}
