//! How long a worker that has nothing looks at the queue of another one before it takes from it.
//!
//! ```text
//!   short queue   small tasks   looks: a a b b c c d    progress at each second look: left alone, it is faster so
//!                 a long body   looks: a a a a a a a a  no progress for eight looks: stolen from; next time after four, then two
//!   long queue    taken from at once; but after sixteen times within 16 µs treated as a short one for 100 µs
//! ```
//! 1. What is seen is how many tasks the other has spawned and ended. A queue of few tasks whose owner is about to take them costs
//!    both of them more than it gives: the lines of the task, and of all that it accesses, cross over and back.
//! 2. Bodies that outlast the patience halve it, down to [`LEAST`] looks; progress during it restores it. So help for long bodies
//!    comes soon, and one body that was interrupted is forgotten at the next small task.
//! 3. Progress between two searches says nothing.
//! 4. A thief that is back for more all the time keeps up with a worker that spawns: then each new task is next to one that runs, and
//!    both want the same lines. Left alone for a while, who spawns comes ahead; what is taken then keeps the thief busy elsewhere.

use super::place::Search;
use std::time::{Duration, Instant};

/// Looks at first, and after progress: about half a microsecond.
const MOST: u32 = 8;
/// It takes two to see that there was no progress.
const LEAST: u32 = 2;
/// Steals from a long queue that are timed.
const STEALS: u32 = 16;
/// So many in less than this are too many.
const SHORT: Duration = Duration::from_micros(16);
/// How long who was stolen from too often is left alone.
const PAUSE: Duration = Duration::from_micros(100);

/// What a worker has seen of another one.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// In this search.
    search: Search,
    /// How far the other was, and at how many looks in a row.
    progress: u64,
    looks: u32,
    /// It ends at so many.
    limit: u32,
    /// Steals from a long queue, and when the first of each [`STEALS`] was.
    steals: u32,
    since: Option<Instant>,
    /// Until when its long queue is left alone.
    until: Option<Instant>,
}

impl Patience {
    pub(super) const NEW: Patience = Patience {
        search: Search(0),
        progress: 0,
        looks: 0,
        limit: MOST,
        steals: 0,
        since: None,
        until: None,
    };

    /// Looks once more, in this search, at one that is so far. True if the patience ends: it may be stolen from.
    #[inline]
    pub(super) fn ends(&mut self, search: Search, progress: u64) -> bool {
        if self.search != search {
            (self.search, self.progress, self.looks) = (search, progress, 0);
        } else if self.progress != progress {
            (self.progress, self.looks, self.limit) = (progress, 0, MOST);
        }
        self.looks += 1;
        self.looks >= self.limit
    }

    /// True if it may be stolen from at once, since its queue is long.
    #[inline]
    pub(super) fn takes_at_once(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.until.is_some() || self.steals.is_multiple_of(STEALS) {
            let now = now();
            if self.until.is_some_and(|until| now < until) {
                return false;
            }
            // Right after a pause nothing is timed yet.
            let is_back = self.until.take().is_some();
            let since = self.since.replace(now).filter(|_| !is_back);
            if since.is_some_and(|since| now.saturating_duration_since(since) < SHORT) {
                self.until = Some(now + PAUSE);
                return false;
            }
        }
        self.steals = self.steals.wrapping_add(1);
        true
    }

    /// It was stolen from: its body has outlasted the patience.
    pub(super) fn was_outlasted(&mut self) {
        self.looks = 0;
        self.limit = LEAST.max(self.limit / 2);
    }
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;

    /// How many looks it takes to steal, in a new search at one whose progress is `progress(look)`; `None`: more than 100.
    fn looks(patience: &mut Patience, search: u32, progress: impl Fn(u64) -> u64) -> Option<u64> {
        let looks = (1..=100).find(|&look| patience.ends(Search(search), progress(look)));
        if looks.is_some() {
            patience.was_outlasted();
        }
        looks
    }

    #[test]
    fn long_bodies_are_soon_helped_out_and_small_tasks_never() {
        let mut patience = Patience::NEW;
        let stuck = |at: u64| move |_| at;
        let long: Vec<_> = (1..6).map(|search| looks(&mut patience, search, stuck(7))).collect();
        assert_eq!(long, [8, 4, 2, 2, 2].map(Some));
        // Two looks a task: the first is taken for a long one, then none for ever.
        assert_eq!(looks(&mut patience, 6, |look| look / 2), None);
        assert_eq!(looks(&mut patience, 7, stuck(9)), Some(8));
    }

    /// How many of 100 steals are made in a row, one every `gap` nanoseconds.
    fn steals(patience: &mut Patience, at: &mut Instant, gap: u64) -> usize {
        let takes = |_: &usize| {
            *at += Duration::from_nanos(gap);
            patience.takes_at_once(|| *at)
        };
        (0..100).take_while(takes).count()
    }

    #[test]
    fn who_is_stolen_from_all_the_time_is_left_alone_for_a_while() {
        let (mut patience, mut at) = (Patience::NEW, Instant::now());
        assert_eq!(steals(&mut patience, &mut at, 1000), 100, "now and then");
        assert!(steals(&mut patience, &mut at, 100) < 32);
        assert_eq!(steals(&mut patience, &mut at, 100), 0, "still left alone");
        at += PAUSE;
        assert_eq!(steals(&mut patience, &mut at, 100), 16, "and again");
        assert_eq!(
            looks(&mut patience, 1, |_| 7),
            Some(8),
            "a body that gets nothing done is helped out meanwhile"
        );
    }

    #[test]
    fn what_was_done_between_two_searches_is_no_progress() {
        let mut patience = Patience::NEW;
        for (search, expected) in [(1, 8), (2, 4), (3, 2)] {
            let done_meanwhile = u64::from(search) * 1000;
            assert_eq!(looks(&mut patience, search, |_| done_meanwhile), Some(expected));
        }
    }
}
