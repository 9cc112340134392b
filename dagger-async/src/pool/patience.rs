//! How long a worker that has nothing looks at the queue of another one before it takes from it.
//!
//! ```text
//!   short queue   small tasks   its steps follow each other closely: left alone, it is faster so
//!                 a long body   no step for a while: taken from; and from then on at once, while its steps take so long
//!   long queue    taken from at once; but after sixteen times within 16 µs treated as a short one for 100 µs
//! ```
//! 1. What is seen is how many steps the other has made, spawns and ends of tasks, and when they were counted last. A queue of few tasks
//!    whose owner is about to take them costs both of them more than it gives: the lines of the task, and of all that it accesses,
//!    cross over and back.
//! 2. Steps that were made since another search count as those of this one: whoever has been slow is helped out at the first look.
//! 3. A step of a plan takes few lines with it, since it stands in no queue of a chunk: it is worth a crossing sooner.
//! 4. A thief that is back for more all the time keeps up with a worker that spawns: then each new task is next to one that runs, and
//!    both want the same lines. Left alone for a while, who spawns comes ahead; what is taken then keeps the thief busy elsewhere.

use std::time::{Duration, Instant};

/// A worker whose steps take so long is helped out.
pub(super) const SLOW: Duration = Duration::from_nanos(300);
/// While plans run by their graphs.
pub(super) const SLOW_BY_PLAN: Duration = Duration::from_nanos(100);
/// Steals from a long queue that are timed.
const STEALS: u32 = 16;
/// So many in less than this are too many.
const SHORT: Duration = Duration::from_micros(16);
/// How long who was stolen from too often is left alone.
const PAUSE: Duration = Duration::from_micros(100);

/// What a worker has seen of another one.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// When its steps were counted last, and how many there were.
    counted: Option<(Instant, u64)>,
    /// Steals from a long queue, and when the first of each [`STEALS`] was.
    steals: u32,
    since: Option<Instant>,
    /// Until when its long queue is left alone.
    until: Option<Instant>,
}

impl Patience {
    pub(crate) const NEW: Patience = Patience { counted: None, steals: 0, since: None, until: None };

    /// Looks once more, at one that has made so many steps by now. True if the patience ends, since they take `slow` or longer: it may
    /// be stolen from.
    #[inline]
    pub(crate) fn ends(&mut self, steps: u64, slow: Duration, now: Instant) -> bool {
        let (since, before) = *self.counted.get_or_insert((now, steps));
        let (time, made) = (now.saturating_duration_since(since), steps.wrapping_sub(before));
        if made != 0 {
            self.counted = Some((now, steps));
        }
        time.as_nanos() >= slow.as_nanos() * u128::from(made.max(1))
    }

    /// True if it may be stolen from at once, since its queue is long.
    #[inline]
    pub(super) fn takes_at_once(&mut self, now: Instant) -> bool {
        if self.until.is_some() || self.steals.is_multiple_of(STEALS) {
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
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_nanos(90);

    /// How many looks it takes to steal from one that makes a step every so often; `None`: more than 1000.
    fn looks(patience: &mut Patience, start: Instant, step: Duration, slow: Duration) -> Option<u32> {
        let steps = |time: Duration| (time.as_nanos() / step.as_nanos()) as u64;
        (1..=1000).find(|&look| patience.ends(steps(LOOK * look), slow, start + LOOK * look))
    }

    #[test]
    fn long_bodies_are_helped_out_and_small_tasks_never() {
        let start = Instant::now();
        for (step, slow, expected) in [
            (80, SLOW, None),
            (120, SLOW, None),
            (80, SLOW_BY_PLAN, None),
            (150, SLOW_BY_PLAN, Some(4)),
            (10_000, SLOW, Some(5)),
        ] {
            let mut patience = Patience::NEW;
            let looks = looks(&mut patience, start, Duration::from_nanos(step), slow);
            assert_eq!(looks, expected, "{step} ns, {slow:?}");
        }
    }

    #[test]
    fn who_was_slow_is_helped_out_at_the_first_look_of_the_next_search() {
        let (mut patience, mut at) = (Patience::NEW, Instant::now());
        assert!(!patience.ends(0, SLOW, at), "nothing is known");
        for (later, steps, expected) in
            [(1000, 1, true), (1000, 4, true), (1000, 24, false), (1000, 25, true)]
        {
            at += Duration::from_nanos(later);
            assert_eq!(patience.ends(steps, SLOW, at), expected, "{steps}");
        }
        at += Duration::from_micros(10);
        assert!(!patience.ends(225, SLOW, at), "200 steps in 10 µs are fast");
        at += Duration::from_nanos(250);
        assert!(!patience.ends(225, SLOW, at), "none in 250 ns");
        at += Duration::from_nanos(50);
        assert!(patience.ends(225, SLOW, at), "none in 300 ns");
        assert!(patience.ends(225, SLOW, at), "and on, until there is another one");
        assert!(!patience.ends(227, SLOW, at + Duration::from_nanos(100)));
    }

    /// How many of 100 steals are made in a row, one every `gap` nanoseconds.
    fn steals(patience: &mut Patience, at: &mut Instant, gap: u64) -> usize {
        let takes = |_: &usize| {
            *at += Duration::from_nanos(gap);
            patience.takes_at_once(*at)
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
        let stuck = Duration::from_secs(1);
        assert_eq!(
            looks(&mut patience, at, stuck, SLOW),
            Some(5),
            "one that gets nothing done is helped out meanwhile"
        );
    }
}
