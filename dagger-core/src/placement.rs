//! Where a step goes: a pure choice among processors by when the step would end there.
//!
//! ```text
//!         ┌ queued ───────────▶ run ───────────▶ end      a slow processor that has the data
//!   now ──┤
//!         ├ queued ────▶╷                                 a fast one that does not have it:
//!         └ transfer ─────────▶ run ──▶ end               the data moves while what is queued there runs
//! ```
//! 1. The earliest expected end wins: what is queued, how far the data is and how fast the processor is are all nanoseconds,
//!    so they add up, and no weights have to be tuned.
//! 2. What never ran on a processor is expected to take there as little as where it is fastest: so it gets tried, and the next
//!    choice knows more.
//! 3. The choice depends on the candidates alone, and among equal ends the data moves least.
//!
//! It looks at one step at a time, not at what comes after it: who is first to choose is settled by the ranks of an
//! [`Order`](crate::Order::ranks).

/// A processor that could run a step, and what is expected there; all times are in nanoseconds from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// When what is queued there is over: 0 if it is idle.
    pub queued: u64,
    /// How long it takes to bring the data there that the step needs: 0 if it has all.
    pub transfer: u64,
    /// How long the step runs there; `None` if nothing like it ever ran there.
    pub run: Option<u64>,
}

/// Index of the candidate where the step ends first, as far as is known: it starts when the queue is over and the data is there,
/// whichever is later, as data moves while others compute.
///
/// A run time that is not known is taken as the smallest of those known, and as 0 if none is. Of candidates with equal ends the
/// one with the smallest transfer is taken, of these the one with the shortest queue, of these the first. `None` if there is no
/// candidate.
///
/// ```
/// use dagger_core::{Candidate, earliest_end};
///
/// let cpu = Candidate { queued: 0, transfer: 0, run: Some(9_000) };
/// let gpu = Candidate { queued: 2_000, transfer: 5_000, run: Some(1_000) };
/// assert_eq!(earliest_end(&[cpu, gpu]), Some(1)); // after 6 µs, not 9
/// assert_eq!(earliest_end(&[cpu, Candidate { queued: 20_000, ..gpu }]), Some(0)); // not after 21
/// ```
///
/// # Source
/// Topcuoglu, Hariri, Wu, IEEE Transactions on Parallel and Distributed Systems 13 (2002) 260–274: the second phase of HEFT,
/// here with what is known when the step is ready.
#[must_use]
pub fn earliest_end(candidates: &[Candidate]) -> Option<usize> {
    let untried = candidates.iter().filter_map(|candidate| candidate.run).min().unwrap_or(0);
    (0..candidates.len()).min_by_key(|&at| {
        let Candidate { queued, transfer, run } = candidates[at];
        (queued.max(transfer).saturating_add(run.unwrap_or(untried)), transfer, queued)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(queued: u64, transfer: u64, run: Option<u64>) -> Candidate {
        Candidate { queued, transfer, run }
    }

    #[test]
    fn data_moves_while_others_compute() {
        let candidates =
            [candidate(50, 60, Some(10)), candidate(0, 0, Some(71)), candidate(60, 50, Some(12))];
        assert_eq!(earliest_end(&candidates), Some(0));
        assert_eq!(earliest_end(&candidates[1..]), Some(0));
        assert_eq!(earliest_end(&[]), None);
    }

    #[test]
    fn what_never_ran_somewhere_is_tried_there_unless_the_way_is_too_long() {
        let known = candidate(0, 0, Some(100));
        assert_eq!(earliest_end(&[known, candidate(0, 0, None)]), Some(0), "no reason to leave");
        let busy = candidate(10, 0, Some(100));
        assert_eq!(earliest_end(&[busy, candidate(0, 9, None)]), Some(1));
        assert_eq!(earliest_end(&[busy, candidate(0, 11, None)]), Some(0));
        assert_eq!(earliest_end(&[candidate(0, 8, None), candidate(7, 0, None)]), Some(1), "as 0 everywhere");
    }

    #[test]
    fn of_equal_ends_the_data_moves_least() {
        let far = candidate(0, 5, Some(5));
        let late = candidate(6, 4, Some(4));
        let late_too = candidate(5, 4, Some(5));
        assert_eq!(earliest_end(&[far, late, late_too, late_too]), Some(2));
        assert_eq!(
            earliest_end(&[candidate(u64::MAX, 1, Some(9)), candidate(u64::MAX, 0, Some(9))]),
            Some(1)
        );
    }

    fn time() -> impl Strategy<Value = u64> {
        prop_oneof![0..6u64, Just(u64::MAX)]
    }

    proptest! {
        #[test]
        fn no_other_candidate_is_better(
            all in prop::collection::vec((time(), time(), prop::option::of(time())), 0..8),
        ) {
            let all: Vec<Candidate> = all.into_iter().map(|(queued, transfer, run)| candidate(queued, transfer, run)).collect();
            let known = all.iter().filter_map(|each| each.run).min();
            let end = |each: &Candidate| {
                let run = each.run.or(known).unwrap_or(0);
                (u128::from(each.queued.max(each.transfer)) + u128::from(run)).min(u64::MAX.into())
            };
            match earliest_end(&all) {
                None => prop_assert!(all.is_empty()),
                Some(chosen) => for (at, other) in all.iter().enumerate() {
                    let chosen_is = (end(&all[chosen]), all[chosen].transfer, all[chosen].queued, chosen);
                    prop_assert!(chosen_is <= (end(other), other.transfer, other.queued, at));
                },
            }
        }
    }
}
