//! How long a worker that has nothing looks at the queue of another one before it takes from it.
//!
//! ```text
//!   short queue   small tasks   its steps follow each other closely: left alone, it is faster so
//!                 a long body   no step for a while: taken from; then at the first look, while its steps take so long
//!   long queue    taken from at once; but after sixteen times within 16 µs treated as a short one for 100 µs
//! ```
//! 1. What is seen is how many steps the other has made, spawns and ends of tasks, and when they were counted last. A queue of few tasks
//!    whose owner is about to take them costs both of them more than it gives: the lines of the task, and of all that it accesses,
//!    cross over and back.
//! 2. Steps that were made since another search count as those of this one. But one who has just come on may be about to take
//!    what it has, which takes a moment: where each task is awaited before the next is spawned there is never anything for others.
//! 3. A step of a plan takes few lines with it, since it stands in no queue of a chunk, and none waits for another in between: it is
//!    worth a crossing sooner, and at the first look.
//! 4. A thief that is back for more all the time keeps up with a worker that spawns: then each new task is next to one that runs, and
//!    both want the same lines. Left alone for a while, who spawns comes ahead; what is taken then keeps the thief busy elsewhere.

use crate::sync::spin;
use std::time::{Duration, Instant};

/// A worker whose steps take so long is helped out. Unoptimised they take up to twenty times as long.
pub(super) const SLOW: Duration = Duration::from_nanos(if cfg!(debug_assertions) { 6000 } else { 300 });
/// While plans run by their graphs.
pub(super) const SLOW_BY_PLAN: Duration = SLOW.checked_div(3).unwrap();
/// Turns of a loop in which one who has just come on would take what it has.
const MOMENT: u32 = if cfg!(debug_assertions) { 80 } else { 4 };
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
    /// They had been slow.
    was_slow: bool,
    /// Steals from a long queue, and when the first of each [`STEALS`] was.
    steals: u32,
    since: Option<Instant>,
    /// Until when its long queue is left alone.
    until: Option<Instant>,
}

impl Patience {
    pub(crate) const NEW: Patience =
        Patience { counted: None, was_slow: false, steals: 0, since: None, until: None };

    /// Looks once more, at one that has made so many steps by now, of which `steps` tells. True if they take `slow` or longer, and none
    /// comes for a moment: it may be stolen from.
    #[inline]
    pub(super) fn ends(&mut self, steps: impl Fn() -> u64, slow: Duration, now: Instant) -> bool {
        let (before, made) = (self.counted, steps());
        if !self.is_slow(made, slow, now) {
            return false;
        }
        if self.counted != before {
            spin(MOMENT);
        }
        self.counted == before || steps() == made
    }

    /// As [`ends`](Self::ends), of one that may have come on.
    #[inline]
    pub(crate) fn is_slow(&mut self, steps: u64, slow: Duration, now: Instant) -> bool {
        let (since, before) = *self.counted.get_or_insert((now, steps));
        let (time, made) = (now.saturating_duration_since(since), steps.wrapping_sub(before));
        let is_slow = time.as_nanos() >= slow.as_nanos() * u128::from(made.max(1));
        if made == 0 {
            return is_slow || self.was_slow;
        }
        (self.counted, self.was_slow) = (Some((now, steps)), is_slow);
        is_slow
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
    const LONG: Duration = Duration::from_nanos(300);
    const BY_PLAN: Duration = Duration::from_nanos(100);

    /// How many looks it takes to see that one is slow that makes a step every so often; `None`: more than 1000.
    fn looks(patience: &mut Patience, start: Instant, step: Duration, slow: Duration) -> Option<u32> {
        let steps = |time: Duration| (time.as_nanos() / step.as_nanos()) as u64;
        (1..=1000).find(|&look| patience.is_slow(steps(LOOK * look), slow, start + LOOK * look))
    }

    #[test]
    fn long_bodies_are_helped_out_and_small_tasks_never() {
        let start = Instant::now();
        for (step, slow, expected) in [
            (80, LONG, None),
            (120, LONG, None),
            (80, BY_PLAN, None),
            (150, BY_PLAN, Some(4)),
            (10_000, LONG, Some(5)),
        ] {
            let mut patience = Patience::NEW;
            let looks = looks(&mut patience, start, Duration::from_nanos(step), slow);
            assert_eq!(looks, expected, "{step} ns, {slow:?}");
        }
    }

    #[test]
    fn who_was_slow_is_helped_out_at_the_first_look() {
        let (mut patience, mut at) = (Patience::NEW, Instant::now());
        let mut look = |later: u64, steps: u64| {
            at += Duration::from_nanos(later);
            patience.ends(|| steps, LONG, at)
        };
        assert!(!look(0, 0), "nothing is known");
        assert!(look(1000, 1), "one step in a microsecond");
        assert!(look(10, 1), "and on, until there is another step");
        assert!(look(1000, 4), "in another search");
        assert!(!look(10_000, 204) && !look(10, 204), "200 steps in 10 µs are fast");
        assert!(!look(250, 204), "none in 260 ns");
        assert!(look(50, 204), "none in 310 ns");
    }

    #[test]
    fn who_does_one_task_after_the_other_is_left_alone_however_long_they_take() {
        // Looked at only while there is a task, a moment after each spawn.
        let (mut patience, start) = (Patience::NEW, Instant::now());
        for round in 0..1000 {
            let looks = std::cell::Cell::new(0);
            let steps = || 2 * round + looks.replace(1);
            assert!(!patience.ends(steps, LONG, start + Duration::from_micros(round)));
        }
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
            looks(&mut patience, at, stuck, LONG),
            Some(5),
            "one that gets nothing done is helped out meanwhile"
        );
    }
}
