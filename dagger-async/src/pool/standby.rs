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
//! 1. What is compared is how many tasks are spawned and ended in the whole pool in a time; polls of suspended tasks do not count.
//!    The start of a trial does not count either, as long as it gets better: then lines are still where the other way has left them.
//! 2. On trial are only workers that pick small tasks, or none, while some other one is awake; one at a time, so that what changes
//!    is its doing. Both ways the doubt is for taking part.
//! 3. A worker that stands by has nothing: its tasks are in the shared queue. No wake goes to it, and none is lost: it does not
//!    count as searching.
//! 4. It looks up each [`PERIOD`] (more seldom where dozens stand by), and is back when tasks are large or nothing is done, when there
//!    are tasks that not every worker may run, and for the end of the pool; a body that begins to compute is seen in the period
//!    after. Bodies that spawn while they compute get something done, so it is also back when nobody has come for tasks for
//!    [`QUIET`].
//! 5. A pace that falls by a third is a reason for who stands by to come back soon. Trials of standing by are kept few: where
//!    two get twice as much done as one, each costs a quarter of a millisecond.

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
const SPAN_MOST: Duration = Duration::from_millis(128);
/// How long one stands by although the pace has fallen.
const SPAN_FALLEN: Duration = Duration::from_millis(1);
/// A worker that was away for so long compares with nothing that was before.
const STALE: Duration = Duration::from_millis(20);
/// What a pace is taken from that may have fallen.
const WINDOW: Duration = Duration::from_millis(1);
/// Tasks that take a worker longer are worth a crossing. Unoptimised everything takes ten times as long.
const LARGE: Duration = Duration::from_micros(if cfg!(debug_assertions) { 40 } else { 4 });
/// How long nobody need come for tasks while they are small: a body that fills the window takes a millisecond.
const QUIET: Duration = LARGE.saturating_mul(500);

/// What a pool knows of its workers that stand by.
pub(super) struct Standby {
    started: Instant,
    /// How many they are.
    workers: AtomicUsize,
    /// How often that has changed.
    changes: AtomicU64,
    /// How often one that takes part looks at the counts of all others.
    period: Duration,
    /// Until when nobody else may begin a trial, in nanoseconds from the start.
    reserved: AtomicU64,
    lock: Mutex<()>,
    called: Condvar,
}

impl Standby {
    pub(super) fn new(workers: usize) -> Self {
        Standby {
            started: Instant::now(),
            workers: AtomicUsize::new(0),
            changes: AtomicU64::new(0),
            period: period_among(workers),
            reserved: AtomicU64::new(0),
            lock: Mutex::new(()),
            called: Condvar::new(),
        }
    }

    /// Calls all of them back.
    pub(super) fn call_back(&self) {
        drop(self.lock.lock());
        self.called.notify_all();
    }

    /// One more or one less. Gives the number of changes by then.
    fn change(&self, change: impl FnOnce(&AtomicUsize) -> usize) -> u64 {
        change(&self.workers);
        self.changes.fetch_add(1, SeqCst) + 1
    }

    /// Reserves the time of a trial, unless another one is under way: until when.
    fn reserve(&self, now: Instant) -> Option<u64> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = now.saturating_duration_since(self.started);
        let reserved = self.reserved.load(SeqCst);
        // Twice what it can take: who reserves it releases it, unless it goes into a long body.
        let until = nanos(now + (self.period * SETTLING + TRIAL.max(self.period)) * 2);
        (reserved <= nanos(now)).then_some(())?;
        self.reserved.compare_exchange(reserved, until, SeqCst, SeqCst).ok().map(|_| until)
    }

    /// The trial that had this reservation is over.
    fn release(&self, reservation: u64) {
        // Else it had run out, and is another one's.
        let _ = self.reserved.compare_exchange(reservation, 0, SeqCst, Relaxed);
    }
}

/// So many workers that each look at all counts so often do not hold each other up.
fn period_among(workers: usize) -> Duration {
    PERIOD * u32::try_from(workers / 8).unwrap_or(u32::MAX).clamp(1, 16)
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
    /// How long this way is kept.
    kept: Duration,
    /// With this way, since it has settled; of late, while it is kept.
    pace: Pace,
    /// In the last period, while it settles, and how many periods more it may.
    last: Option<Pace>,
    settling: u32,
    /// With the other way, while this one is on trial.
    other: Option<Pace>,
    /// With this way, when it was found to be better.
    usual: Option<Pace>,
    span: Duration,
}

impl Trial {
    const NEW: Trial = Trial {
        takes_part: true,
        kept: Duration::ZERO,
        pace: Pace::NONE,
        last: None,
        settling: SETTLING,
        other: None,
        usual: None,
        span: SPAN,
    };

    fn is_on(&self) -> bool {
        self.other.is_some()
    }

    /// After another period in this way. `may_try` is asked before the other one is tried.
    fn add(&mut self, pace: Pace, may_try: impl FnOnce() -> bool) {
        self.kept += pace.time;
        if self.settling > 0 {
            let improves = self.last.replace(pace).is_none_or(|last| pace.exceeds(110, last));
            self.settling = if improves { self.settling - 1 } else { 0 };
            if improves {
                return;
            }
        }
        self.pace.add(pace);
        match self.other {
            Some(other) => self.judge(other),
            None if self.pace.time < TRIAL => {}
            None if self.is_due() && may_try() => {
                self.other = Some(self.pace);
                self.turn();
            }
            None if self.pace.time >= WINDOW => self.pace = Pace::NONE,
            None => {}
        }
    }

    fn is_due(&self) -> bool {
        let has_fallen = || self.usual.is_some_and(|usual| !self.pace.exceeds(67, usual));
        self.kept >= self.span || !self.takes_part && self.kept >= SPAN_FALLEN && has_fallen()
    }

    /// This way is on trial.
    fn judge(&mut self, other: Pace) {
        let is_better = if self.takes_part {
            !other.exceeds(105, self.pace) // One of many is not missed so much.
        } else {
            self.pace.exceeds(105, other)
        };
        let is_over = self.pace.time >= TRIAL || !self.pace.exceeds(67, other);
        match (is_over, is_better) {
            (false, _) => return,
            (true, true) => (self.span, self.usual) = (SPAN, Some(self.pace)),
            (true, false) => {
                self.turn();
                (self.span, self.usual) = (self.next_span(), Some(other));
            }
        }
        (self.pace, self.other, self.kept) = (Pace::NONE, None, Duration::ZERO);
    }

    /// After a trial in vain.
    fn next_span(&self) -> Duration {
        SPAN_MOST.min(self.span * 2)
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

    /// The worker takes part, and this is no time to compare: it goes on so.
    fn give_up(&mut self) {
        if self.other.take().is_some() {
            (self.kept, self.usual) = (Duration::ZERO, None);
            self.begin();
        }
    }

    fn begin(&mut self) {
        (self.pace, self.last, self.settling) = (Pace::NONE, None, SETTLING);
    }
}

/// A worker's part in it.
pub(super) struct Attendance {
    trial: Trial,
    reservation: u64,
    /// When it was asked last whether it should stand by.
    asked: Option<Instant>,
    /// When the pool was looked at last, and how much it had done.
    seen: Option<(Instant, u64)>,
    /// How many rounds of picks there had been, and since when.
    rounds: (u64, Instant),
    /// Changes that it knows of.
    changes: u64,
}

impl Attendance {
    pub(super) fn new() -> Attendance {
        let rounds = (0, Instant::now());
        Attendance { trial: Trial::NEW, reservation: 0, asked: None, seen: None, rounds, changes: 0 }
    }

    /// Asks a worker that takes part and has made so many picks since it was asked last. False: it has to stand by.
    #[inline]
    pub(super) fn ask(&mut self, pool: &Pool, picks: u32) -> bool {
        let now = Instant::now();
        let since =
            self.asked.replace(now).map_or(Duration::MAX, |asked| now.saturating_duration_since(asked));
        if since >= LARGE * picks {
            // Large tasks, or it has slept, or its thread did not run.
            self.seen = None;
            if since >= STALE {
                self.trial.give_up();
            }
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
        let has_changed = std::mem::replace(&mut self.changes, changes) != changes;
        let needs_all = pace.has_large(awake.max(1)) || !pool.domains.are_empty() || pool.is_closed();
        let trial = &mut self.trial;
        let was_on = trial.is_on();
        if !trial.takes_part && (needs_all || is_quiet(&mut self.rounds, pool.rounds(), now)) {
            *trial = Trial { span: if was_on { trial.next_span() } else { SPAN }, ..Trial::NEW };
        } else if trial.takes_part && (needs_all || awake < 2) {
            // A large task says nothing about the others.
            trial.give_up();
        } else if has_changed {
            trial.interrupt();
        } else {
            trial.add(pace, || {
                standby.reserve(now).inspect(|&reservation| self.reservation = reservation).is_some()
            });
        }
        if was_on && !trial.is_on() {
            standby.release(self.reservation);
        }
    }
}

/// No worker has come for tasks for a while. `rounds`: so many, when they were last seen to change.
fn is_quiet(rounds: &mut (u64, Instant), now_rounds: u64, now: Instant) -> bool {
    if rounds.0 != now_rounds {
        *rounds = (now_rounds, now);
    }
    now.saturating_duration_since(rounds.1) >= QUIET
}

/// Stands by until it is better to take part.
pub(super) fn stand_by(pool: &Pool, place: &Place) {
    let standby = &pool.standby;
    let mut attendance = place.attendance.borrow_mut();
    let is_late = attendance.seen.is_none_or(|(seen, _)| seen.elapsed() > standby.period * 4);
    if is_late {
        // It has been in a long body since it was asked: the others may have gone meanwhile.
        attendance.trial = Trial::NEW;
        standby.release(attendance.reservation);
        return;
    }
    place.give_back(pool);
    attendance.changes = standby.change(|workers| workers.fetch_add(1, SeqCst));
    record::note(|| What::Sleep);
    attendance.seen = None;
    attendance.rounds = (pool.rounds(), Instant::now());
    loop {
        attendance.look(pool, Instant::now());
        if attendance.trial.takes_part {
            break;
        }
        let wait = period_among(standby.workers.load(Relaxed));
        let mut lock = standby.lock.lock();
        if !pool.is_closed() {
            standby.called.wait_for(&mut lock, wait);
        }
    }
    (attendance.asked, attendance.seen) = (Some(Instant::now()), None);
    attendance.changes = standby.change(|workers| workers.fetch_sub(1, SeqCst));
    record::note(|| What::Wake);
}

#[cfg(all(test, not(dagger_loom)))]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use super::*;
    use crate::pool::{local, worker::block_on};
    use crate::prelude::*;
    use std::sync::Arc;

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
        assert!((12..60).contains(&turns), "{turns}: each 2 ms at first, each 128 ms later");
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
        run(&mut trial, 9, 1000, 0); // Of the ten of a span.
        assert!(trial.takes_part);
        run(&mut trial, 1, 1000, 0);
        assert!(!trial.takes_part);
        let (stood_by, _) = run(&mut trial, 15, 1000, 500);
        assert_eq!(stood_by, 2);

        let mut trial = Trial::NEW;
        run(&mut trial, 10, 1000, 0);
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
        run(&mut trial, 10, 1000, 0);
        assert!(!trial.takes_part && trial.is_on());
        trial.interrupt();
        assert!(trial.takes_part && !trial.is_on());
        // What is seen after a change alone counts, but for the span.
        run(&mut trial, 1, 100, 0);
        trial.interrupt();
        assert_eq!(run(&mut trial, 3, 1000, 0), (0, 1));
        assert!(trial.other.unwrap().exceeds(99, Pace { time: PERIOD, steps: 1000 }));
    }

    #[test]
    fn a_trial_of_taking_part_is_given_up_when_there_is_no_time_for_it() {
        let mut trial = Trial::NEW;
        run(&mut trial, 10, 1000, 1500);
        run(&mut trial, 30, 1000, 1500);
        while !trial.takes_part {
            run(&mut trial, 1, 1000, 1500);
        }
        assert!(trial.is_on(), "it takes part on trial");
        trial.give_up();
        assert!(trial.takes_part && !trial.is_on());
        assert_eq!(run(&mut trial, 9, 100, 0), (0, 0), "a whole span");
    }

    #[test]
    fn who_stands_by_comes_back_soon_when_the_pace_falls_by_a_third() {
        let mut trial = Trial::NEW;
        run(&mut trial, 10_000, 1000, 1500);
        while !trial.is_on() {
            run(&mut trial, 1, 1000, 1500);
        }
        run(&mut trial, 5, 1000, 1500);
        assert!(!trial.takes_part && !trial.is_on() && trial.span == SPAN_MOST);
        assert_eq!(run(&mut trial, 300, 0, 1400), (300, 0), "of 640 in the span");
        let (stood_by, _) = run(&mut trial, 15, 2000, 900);
        assert!(trial.takes_part && stood_by < 10, "{stood_by}");
    }

    #[test]
    fn who_is_one_of_many_is_not_sent_away_for_being_hardly_missed() {
        let mut trial = Trial::NEW;
        run(&mut trial, 10_000, 6300, 6400);
        assert!(trial.takes_part);
        let (stood_by, _) = run(&mut trial, 10_000, 6400, 6300);
        assert!(stood_by < 500, "{stood_by}");
        // It comes back to them, too.
        let mut trial = Trial { takes_part: false, ..Trial::NEW };
        let (stood_by, _) = run(&mut trial, 10_000, 6400, 6300);
        assert!(stood_by < 500, "{stood_by}");
    }

    #[test]
    fn it_is_quiet_when_nobody_has_come_for_a_while() {
        let start = Instant::now();
        let mut rounds = (7, start);
        assert!(!is_quiet(&mut rounds, 7, start + QUIET / 2));
        assert!(!is_quiet(&mut rounds, 8, start + QUIET));
        assert!(!is_quiet(&mut rounds, 8, start + QUIET + QUIET / 2));
        assert!(is_quiet(&mut rounds, 8, start + QUIET * 2));
    }

    #[test]
    fn no_trial_begins_while_it_may_not() {
        let mut trial = Trial::NEW;
        for _ in 0..1000 {
            trial.add(Pace { time: PERIOD, steps: 1000 }, || false);
        }
        assert!(trial.takes_part && !trial.is_on());
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

    /// True once `is_so`; false if that takes too long.
    fn compute_until(is_so: impl Fn() -> bool) -> bool {
        let begun = Instant::now();
        while !is_so() {
            if begun.elapsed() > Duration::from_secs(60) {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    #[test]
    fn who_stands_by_comes_back_for_long_bodies() {
        for workers in [2, 4] {
            let rt = Runtime::builder().threads(workers).pin(false).build().unwrap();
            for _ in 0..5 {
                storm(&rt);
                // Each computes until the others have come, which the runtime cannot see.
                let there = Arc::new(AtomicUsize::new(0));
                let meet = move || {
                    there.fetch_add(1, SeqCst);
                    compute_until(|| there.load(SeqCst) == workers)
                };
                rt.block_on(async {
                    let bodies: Vec<_> = (0..workers).map(|_| spawn!((meet.clone())())).collect();
                    for body in bodies {
                        assert!(body.await.unwrap(), "somebody did not come");
                    }
                });
            }
        }
    }

    #[test]
    fn who_stands_by_comes_back_for_a_body_that_spawns_and_computes_on() {
        let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
        for _ in 0..5 {
            storm(&rt);
            let ended = Arc::new(AtomicUsize::new(0));
            let spawner = move || {
                compute_until(|| {
                    let another = ended.clone();
                    if Arc::strong_count(&ended) < 10_000 {
                        spawn!((move || _ = another.fetch_add(1, SeqCst))());
                    }
                    ended.load(SeqCst) > 100
                })
            };
            rt.block_on(async { assert!(spawn!(spawner()).await.unwrap(), "nobody has run the others") });
        }
    }

    #[test]
    fn who_stands_by_comes_back_for_what_it_alone_may_run_and_for_the_end() {
        let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
        for worker in [0, 1, 0, 1] {
            storm(&rt);
            let here = rt.block_on(async {
                let name = || std::thread::current().name().map(String::from);
                spawn!(name(); scope = Scope::thread(worker)).await
            });
            assert!(here.unwrap().unwrap().ends_with(&format!("worker-{worker}")));
        }
        storm(&rt);
        rt.block_on(rt.idle());
        storm(&rt);
        block_on(rt.shutdown());
    }

    #[test]
    fn one_trial_at_a_time() {
        let standby = Standby::new(2);
        let now = standby.started + Duration::from_millis(1);
        let first = standby.reserve(now).unwrap();
        assert!(standby.reserve(now + PERIOD).is_none());
        standby.release(first);
        assert!(standby.reserve(now + PERIOD).is_some());
        // It may be forgotten: whoever reserved it is in a long body.
        let second = standby.reserve(now + Duration::from_millis(100)).unwrap();
        standby.release(first);
        assert!(standby.reserve(now + Duration::from_millis(101)).is_none(), "it is another one's");
        standby.release(second);
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
