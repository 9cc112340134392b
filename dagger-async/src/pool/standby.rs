//! Workers that stand by, because the others get more done without them.
//!
//! A task that crosses to another core takes its lines with it, and those of all that it accesses: 50 ns each within a
//! cache, 200 ns between two. For small tasks that can be more than a second worker gives, and nobody can tell beforehand. So it is
//! tried:
//!
//! ```text
//!   takes part ──span──▶ stands by ··settles··──trial──▶ more done?  yes: kept for a span, then taking part is on trial
//!                                                        no: takes part again, twice as long
//! ```
//! 1. What is compared is how many tasks all workers together spawn and end in a time. The start of a trial does not count, as long
//!    as it gets better: then lines are still where the other way has left them.
//! 2. On trial are only workers that pick small tasks, or none, while some other one is awake; one at a time, so that what changes
//!    is its doing.
//! 3. A worker that stands by has nothing: its tasks are in the shared queue. No wake goes to it, and none is lost: it does not
//!    count as searching.
//! 4. It looks up each [`PERIOD`]. Large tasks, a pool that gets nothing done, tasks bound to workers, and the end of the pool call
//!    it back; so nothing waits for it any longer than that.

use super::{Place, Pool};
use crate::record;
use dagger_core::record::What;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::time::{Duration, Instant};

/// How often one that stands by looks up, and what else a pace is read from.
const PERIOD: Duration = Duration::from_micros(200);
/// A trial, once it has settled.
const TRIAL: Duration = Duration::from_micros(400);
/// In so many periods it has settled, at the latest.
const SETTLING: u32 = 16;
/// How long a way is kept until the other one is tried: at first, and at most.
const SPAN: Duration = Duration::from_millis(2);
const SPAN_MOST: Duration = Duration::from_millis(64);
/// Tasks that take a worker longer are worth a crossing. Unoptimised everything takes ten times as long.
const LARGE: Duration = Duration::from_micros(if cfg!(debug_assertions) { 40 } else { 4 });

/// What a pool knows of its workers that stand by.
pub(super) struct Standby {
    started: Instant,
    /// How many they are.
    workers: AtomicUsize,
    /// How often that has changed.
    changes: AtomicU64,
    /// How often one that takes part looks at the counts of all others.
    period: Duration,
    /// Until when a trial is under way, in nanoseconds from the start.
    reserved: AtomicU64,
    lock: Mutex<()>,
    called: Condvar,
}

impl Standby {
    pub(super) fn new(workers: usize) -> Self {
        Standby {
            started: Instant::now(),
            period: PERIOD * u32::try_from(workers / 8).unwrap_or(u32::MAX).clamp(1, 16),
            workers: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            lock: Mutex::new(()),
            called: Condvar::new(),
        }
    }

    /// Calls all of them back.
    pub(super) fn call(&self) {
        drop(self.lock.lock());
        self.called.notify_all();
    }

    fn change(&self, change: impl FnOnce(&AtomicUsize)) {
        change(&self.workers);
        self.changes.fetch_add(1, SeqCst);
    }

    /// Reserves the time of a trial, unless another one is under way.
    fn reserve(&self, now: Instant) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = now.saturating_duration_since(self.started);
        let reserved = self.reserved.load(SeqCst);
        let until = nanos(now + PERIOD * SETTLING + TRIAL);
        reserved <= nanos(now) && self.reserved.compare_exchange(reserved, until, SeqCst, SeqCst).is_ok()
    }
}

/// What was done in a time.
#[derive(Clone, Copy)]
struct Pace {
    time: Duration,
    /// Spawns and ends: two a task.
    steps: u64,
}

impl Pace {
    const NONE: Pace = Pace { time: Duration::ZERO, steps: 0 };

    fn add(&mut self, other: Pace) {
        self.time += other.time;
        self.steps += other.steps;
    }

    /// More than so many percent of the other one.
    fn exceeds(self, percent: u32, other: Pace) -> bool {
        let product = |time: Duration, steps: u64| time.as_nanos() * u128::from(steps);
        product(other.time, self.steps) * 100 > product(self.time, other.steps) * u128::from(percent)
    }

    /// Of `workers` workers.
    fn has_large(self, workers: usize) -> bool {
        self.time.as_nanos() * workers as u128 * 2 >= LARGE.as_nanos() * u128::from(self.steps)
    }
}

/// Which way is better, as far as a worker knows.
struct Trial {
    takes_part: bool,
    /// With this way, since it has settled.
    pace: Pace,
    /// In the last period, while it settles, and how many periods more it may.
    last: Option<Pace>,
    settling: u32,
    /// With the other way, while this one is on trial.
    other: Option<Pace>,
    span: Duration,
}

impl Trial {
    const NEW: Trial =
        Trial { takes_part: true, pace: Pace::NONE, last: None, settling: SETTLING, other: None, span: SPAN };

    /// After another period in this way. `may_try` is asked before the other one is tried.
    fn add(&mut self, pace: Pace, may_try: impl FnOnce() -> bool) {
        if self.settling > 0 {
            let improves = self.last.replace(pace).is_none_or(|last| pace.exceeds(110, last));
            self.settling = if improves { self.settling - 1 } else { 0 };
            if improves {
                return;
            }
        }
        self.pace.add(pace);
        match self.other {
            None if self.pace.time >= self.span && may_try() => {
                self.other = Some(self.pace);
                self.turn();
            }
            Some(other) if self.pace.time >= TRIAL || !self.pace.exceeds(67, other) => {
                if self.pace.exceeds(105, other) {
                    self.span = SPAN;
                } else {
                    self.turn();
                    self.span = SPAN_MOST.min(self.span * 2);
                }
                (self.pace, self.other) = (Pace::NONE, None);
            }
            _ => {}
        }
    }

    fn turn(&mut self) {
        self.takes_part = !self.takes_part;
        self.begin();
    }

    /// What there was to see has changed: a trial is undone.
    fn interrupt(&mut self) {
        if self.other.take().is_some() {
            self.takes_part = !self.takes_part;
        }
        self.begin();
    }

    fn begin(&mut self) {
        (self.pace, self.last, self.settling) = (Pace::NONE, None, SETTLING);
    }
}

/// A worker's part in it.
pub(super) struct Attendance {
    trial: Trial,
    /// When it was asked last whether it should stand by.
    asked: Option<Instant>,
    /// When the pool was looked at last, and how much it had done.
    seen: Option<(Instant, u64)>,
    /// Changes that it knows of.
    changes: u64,
}

impl Attendance {
    pub(super) const NEW: Attendance = Attendance { trial: Trial::NEW, asked: None, seen: None, changes: 0 };

    /// Asks a worker that has made so many picks since it was asked last. False: it stands by.
    #[inline]
    pub(super) fn takes_part(&mut self, pool: &Pool, picks: u32) -> bool {
        let now = Instant::now();
        let since =
            self.asked.replace(now).map_or(Duration::MAX, |asked| now.saturating_duration_since(asked));
        if since >= LARGE * picks {
            self.seen = None; // Large tasks, or it has slept.
        } else if self.seen.is_none_or(|(seen, _)| now.saturating_duration_since(seen) >= pool.standby.period)
        {
            self.look(pool, now);
        }
        self.trial.takes_part
    }

    #[cold]
    fn look(&mut self, pool: &Pool, now: Instant) {
        let done = pool.total_progress();
        let Some((before, done_before)) = self.seen.replace((now, done)) else { return };
        let pace =
            Pace { time: now.saturating_duration_since(before), steps: done.wrapping_sub(done_before) };
        let standby = &pool.standby;
        let changes = standby.changes.load(SeqCst);
        // One that goes from one to the other may be counted twice.
        let away = standby.workers.load(SeqCst) + pool.sleep.sleeping();
        let awake = pool.stealers.len().saturating_sub(away);
        let trial = &mut self.trial;
        let has_changed = std::mem::replace(&mut self.changes, changes) != changes;
        let ends = pace.has_large(awake.max(1)) || !pool.domains.are_empty() || pool.is_closed();
        if ends && !trial.takes_part {
            *trial = Trial::NEW;
        } else if awake < 2 && trial.takes_part {
            trial.other = None;
            trial.begin();
        } else if has_changed {
            trial.interrupt();
        } else if !ends {
            // A large task says nothing about the others, nor does a time in which this thread did not run.
            trial.add(pace, || standby.reserve(now));
        }
    }
}

/// Stands by until it is better to take part.
pub(super) fn stand_by(pool: &Pool, place: &Place) {
    let standby = &pool.standby;
    place.give_back(pool);
    standby.change(|workers| _ = workers.fetch_add(1, SeqCst));
    record::note(|| What::Sleep);
    {
        let mut attendance = place.attendance.borrow_mut();
        attendance.changes = standby.changes.load(Relaxed);
        attendance.seen = None;
        loop {
            attendance.look(pool, Instant::now());
            if attendance.trial.takes_part {
                break;
            }
            let mut lock = standby.lock.lock();
            if !pool.is_closed() {
                standby.called.wait_for(&mut lock, PERIOD);
            }
        }
        attendance.asked = None;
        attendance.seen = None;
        standby.change(|workers| _ = workers.fetch_sub(1, SeqCst));
        attendance.changes = standby.changes.load(Relaxed);
    }
    record::note(|| What::Wake);
}

#[cfg(all(test, not(dagger_loom)))]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use super::*;
    use crate::pool::{local, worker::block_on};
    use crate::prelude::*;
    use std::sync::{Arc, Barrier};

    /// What a trial does for `periods` in which a worker that takes part, or not, makes the pool do `with` or `without` steps.
    fn run(trial: &mut Trial, periods: u32, with: u64, without: u64) -> (u32, u32) {
        let (mut stood_by, mut turns) = (0, 0);
        for _ in 0..periods {
            let before = trial.takes_part;
            stood_by += u32::from(!before);
            trial.add(Pace { time: PERIOD, steps: if before { with } else { without } }, || true);
            turns += u32::from(trial.takes_part != before);
        }
        (stood_by, turns)
    }

    #[test]
    fn it_stands_by_if_more_is_done_without_it_and_looks_again_now_and_then() {
        let mut trial = Trial::NEW;
        let periods = 10_000; // Two seconds.
        let (stood_by, turns) = run(&mut trial, periods, 1000, 1500);
        assert!(stood_by > periods * 95 / 100, "{stood_by}");
        assert!((20..90).contains(&turns), "{turns}: each 2 ms at first, each 64 ms later");
        // Things change: found out at the next look.
        let (stood_by, _) = run(&mut trial, periods, 1500, 1000);
        assert!(stood_by < periods * 10 / 100, "{stood_by}");
    }

    #[test]
    fn it_takes_part_if_that_is_better_or_about_the_same() {
        for without in [500, 1000, 1040] {
            let mut trial = Trial::NEW;
            let periods = 10_000;
            let (stood_by, _) = run(&mut trial, periods, 1000, without);
            assert!(stood_by > 0 && stood_by < periods * 5 / 100, "{stood_by} with {without}");
        }
    }

    #[test]
    fn a_trial_that_goes_badly_is_short_and_one_that_gets_better_goes_on() {
        let mut trial = Trial::NEW;
        run(&mut trial, 10, 1000, 0); // One in which it settles, nine of the ten of a span.
        assert!(trial.takes_part);
        run(&mut trial, 1, 1000, 0);
        assert!(!trial.takes_part);
        let (stood_by, _) = run(&mut trial, 15, 1000, 500);
        assert_eq!(stood_by, 2);

        let mut trial = Trial::NEW;
        run(&mut trial, 11, 1000, 0);
        for without in [300, 450, 700, 1000, 1600, 1700] {
            run(&mut trial, 1, 1000, without);
            assert!(!trial.takes_part, "it still gets better");
        }
        run(&mut trial, 3, 1000, 1700);
        assert!(!trial.takes_part && trial.other.is_none(), "it is found to be better");
    }

    #[test]
    fn a_trial_that_is_interrupted_is_undone() {
        let mut trial = Trial::NEW;
        run(&mut trial, 11, 1000, 0);
        assert!(!trial.takes_part);
        trial.interrupt();
        assert!(trial.takes_part);
        run(&mut trial, 10, 1000, 0);
        trial.interrupt();
        assert_eq!(run(&mut trial, 10, 1000, 0), (0, 0), "it begins again");
    }

    #[test]
    fn no_trial_begins_while_it_may_not() {
        let mut trial = Trial::NEW;
        for _ in 0..1000 {
            trial.add(Pace { time: PERIOD, steps: 1000 }, || false);
        }
        assert!(trial.takes_part);
    }

    /// Runs empty tasks until a worker stands by.
    fn storm(rt: &Runtime) {
        let storm = async move {
            let pool = local::with(|local| local.pool().unwrap().keep());
            let begun = Instant::now();
            while pool.standby.workers.load(SeqCst) == 0 {
                assert!(begun.elapsed() < Duration::from_secs(60), "nobody has tried to stand by");
                let tasks: Vec<_> = (0..100).map(|_| spawn!((|| ())())).collect();
                for task in tasks {
                    task.await.unwrap();
                }
            }
        };
        rt.block_on(async { spawn(storm).await.unwrap() });
    }

    #[test]
    fn who_stands_by_comes_back_for_a_long_body_and_for_the_end() {
        let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
        for _ in 0..5 {
            storm(&rt);
            // The thread of each blocks until the other has come, which the runtime cannot see.
            let meeting = Arc::new(Barrier::new(2));
            rt.block_on(async {
                let meet = |meeting: Arc<Barrier>| spawn!((move || _ = meeting.wait())());
                let both = [meet(meeting.clone()), meet(meeting)];
                for body in both {
                    body.await.unwrap();
                }
            });
            storm(&rt);
            let there = rt.block_on(async {
                spawn!((|| std::thread::current().name().map(String::from))(); scope = Scope::thread(1)).await
            });
            assert!(there.unwrap().unwrap().ends_with("worker-1"));
        }
        storm(&rt);
        rt.block_on(rt.idle());
        block_on(rt.shutdown());
    }

    #[test]
    fn one_trial_at_a_time() {
        let standby = Standby::new(2);
        let now = standby.started + Duration::from_millis(1);
        assert!(standby.reserve(now));
        assert!(!standby.reserve(now + PERIOD));
        assert!(standby.reserve(now + PERIOD * SETTLING + TRIAL));
    }

    #[test]
    fn tasks_are_large_by_the_time_of_all_workers() {
        // Two workers, and time for 200 tasks.
        let pace = |steps| Pace { time: LARGE * 100, steps };
        assert!(pace(400).has_large(2) && pace(0).has_large(2));
        assert!(!pace(401).has_large(2));
        assert!(!pace(201).has_large(1));
    }
}
