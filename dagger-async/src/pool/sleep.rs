//! Who sleeps and who is woken: the protocol that loses no wake.
//!
//! ```text
//!   worker:  searching −= 1   join the sleepers   fence   look again   block
//!   pusher:  push             fence               sleepers, and none searching?   wake one
//! ```
//! 1. Both sides publish, fence (SeqCst), then look at the other's side: one of them sees the other, so a task is
//!    never queued while everybody who could run it sleeps.
//! 2. A woken worker counts as searching until it finds work or sleeps; while somebody searches, nobody is woken.
//! 3. Whoever stops searching looks at the queues once more and wakes the next one if there is work (a burst
//!    costs one wake at a time), so a pusher that saw a searcher may leave.
//! 4. Each sleeper leaves the list once for each sleep: taken by a waker, who then delivers a token, or by itself when it
//!    has found work or its time is up. The list's lock is taken only by those who sleep or wake, which cost far more than it does.
//! 5. While some worker is awake one sleeper at most is the *watcher*, which sleeps for a limited time. When wakes for a
//!    single task have been in vain several times in a row (the pusher took the task itself before the woken worker
//!    came), such a push wakes nobody as long as there is a watcher: the task is taken by its pusher or, if that computes
//!    on, by the watcher.

use crate::sync::{AtomicU32, Condvar, Mutex, MutexGuard, fence};
use crossbeam_utils::CachePadded;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

/// Wakes in vain after which a single task wakes nobody.
const VAIN_MAX: u32 = 4;

/// The sleepers of a pool.
pub(crate) struct Sleep {
    /// Indices of the workers that sleep, the one that slept last at the end.
    sleepers: Mutex<Vec<usize>>,
    /// The length of the list, for those who only look.
    sleeping: CachePadded<AtomicU32>,
    searching: CachePadded<AtomicU32>,
    /// Wakes in a row after which the woken worker found nothing.
    vain: CachePadded<AtomicU32>,
    watching: CachePadded<AtomicU32>,
    tokens: Box<[CachePadded<Token>]>,
}

/// The end of a sleep.
struct Token {
    delivered: Mutex<bool>,
    changed: Condvar,
}

impl Token {
    fn deliver(&self) {
        *lock(&self.delivered) = true;
        self.changed.notify_one();
    }
    /// True if it was delivered in time. In a model time is always up.
    #[cfg(dagger_loom)]
    fn wait_for(&self, _time: Duration) -> bool {
        std::mem::take(&mut *lock(&self.delivered))
    }

    /// True if it was delivered in time.
    #[cfg(not(dagger_loom))]
    fn wait_for(&self, time: Duration) -> bool {
        let delivered = lock(&self.delivered);
        let (mut delivered, _) = self
            .changed
            .wait_timeout_while(delivered, time, |delivered| !*delivered)
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::take(&mut *delivered)
    }
    fn wait(&self) {
        let mut delivered = lock(&self.delivered);
        while !*delivered {
            delivered = self.changed.wait(delivered).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        *delivered = false;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing can panic under these locks.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Sleep {
    /// All workers awake, none searching.
    pub(crate) fn new(workers: usize) -> Self {
        let token = || CachePadded::new(Token { delivered: Mutex::new(false), changed: Condvar::new() });
        Sleep {
            sleepers: Mutex::new(Vec::with_capacity(workers)),
            sleeping: CachePadded::new(AtomicU32::new(0)),
            searching: CachePadded::new(AtomicU32::new(0)),
            vain: CachePadded::new(AtomicU32::new(0)),
            watching: CachePadded::new(AtomicU32::new(0)),
            tokens: (0..workers).map(|_| token()).collect(),
        }
    }

    /// The worker starts to search.
    pub(crate) fn start_search(&self) {
        self.searching.fetch_add(1, SeqCst);
    }

    /// Lets others use the core of a worker that searches, unless there is `work`. It may be gone for long, so it does not
    /// count as searching meanwhile (invariant 3).
    pub(crate) fn pause_search(&self, work: impl FnOnce() -> bool) {
        self.searching.fetch_sub(1, SeqCst);
        fence(SeqCst);
        if !work() {
            crate::sync::yield_now();
        }
        self.searching.fetch_add(1, SeqCst);
    }

    /// A worker that was woken found nothing.
    pub(crate) fn was_in_vain(&self) {
        self.vain.fetch_add(1, Relaxed);
    }

    /// The worker found work, or stops to search. `more` says whether there is some left (invariant 3).
    pub(crate) fn found(&self, more: impl FnOnce() -> bool) {
        if self.vain.load(Relaxed) != 0 {
            self.vain.store(0, Relaxed);
        }
        if self.searching.fetch_sub(1, SeqCst) == 1 {
            fence(SeqCst);
            if more() {
                self.wake_one();
            }
        }
    }

    /// Sleeps until woken unless `work`, told whether this worker watches, sees something to do. The worker searches before and after. If it becomes the
    /// watcher it sleeps for `watch` at most. True: it was woken.
    pub(crate) fn sleep(&self, worker: usize, watch: Duration, work: impl FnOnce(bool) -> bool) -> bool {
        self.searching.fetch_sub(1, SeqCst);
        let watches = {
            let mut sleepers = lock(&self.sleepers);
            sleepers.push(worker);
            self.count(&sleepers);
            // No model has time.
            let watches = cfg!(not(dagger_loom))
                && sleepers.len() < self.tokens.len()
                && self.watching.load(Relaxed) == 0;
            if watches {
                self.watching.store(1, Relaxed);
            }
            watches
        };
        fence(SeqCst);
        let leave = || self.take(|sleepers| sleepers.iter().position(|&sleeper| sleeper == worker)).is_some();
        let mut left = work(watches) && leave();
        if watches {
            let woken = !left && self.tokens[worker].wait_for(watch);
            self.watching.store(0, Relaxed);
            if woken {
                return true;
            }
            left = left || leave();
        }
        if !left {
            // Invariant 4: either nobody has woken us yet, or the token is on its way.
            self.tokens[worker].wait();
        }
        !left
    }

    /// After a push that any worker may take.
    #[inline]
    pub(crate) fn wake_one(&self) {
        fence(SeqCst);
        self.wake_one_after_fence();
    }

    /// As [`wake_one`](Self::wake_one): since the push there was a fence.
    #[inline]
    pub(crate) fn wake_one_after_fence(&self) {
        if self.sleeping.load(Relaxed) == 0 || self.searching.load(Relaxed) != 0 {
            return;
        }
        let taken = self.take(|sleepers| match self.searching.load(SeqCst) {
            0 => sleepers.len().checked_sub(1),
            _ => None,
        });
        if let Some(worker) = taken {
            self.tokens[worker].deliver();
        }
    }

    /// After a push to a queue of one worker; `alone` says whether the task is the only one there (invariant 5).
    #[inline]
    pub(crate) fn wake_one_beside(&self, alone: impl FnOnce() -> bool) {
        fence(SeqCst);
        if self.sleeping.load(Relaxed) == 0 || self.searching.load(Relaxed) != 0 {
            return;
        }
        if self.vain.load(Relaxed) >= VAIN_MAX && self.watching.load(Relaxed) != 0 && alone() {
            return;
        }
        self.wake_one();
    }

    /// Wakes this worker, if it sleeps, whoever searches.
    pub(crate) fn wake_this(&self, worker: usize) {
        if self.sleeping.load(Relaxed) != 0
            && self.take(|sleepers| sleepers.iter().position(|&sleeper| sleeper == worker)).is_some()
        {
            self.tokens[worker].deliver();
        }
    }

    /// After a push that only these workers (ascending) may take: wakes one of them that sleeps.
    pub(crate) fn wake_one_of(&self, workers: &[usize]) {
        fence(SeqCst);
        if self.sleeping.load(Relaxed) == 0 {
            return;
        }
        let taken =
            self.take(|sleepers| sleepers.iter().rposition(|sleeper| workers.binary_search(sleeper).is_ok()));
        if let Some(worker) = taken {
            self.tokens[worker].deliver();
        }
    }

    /// Wakes everybody.
    pub(crate) fn wake_all(&self) {
        fence(SeqCst);
        while let Some(worker) = self.take(|sleepers| sleepers.len().checked_sub(1)) {
            self.tokens[worker].deliver();
        }
    }

    /// How many workers sleep.
    pub(crate) fn sleeping(&self) -> usize {
        self.sleeping.load(Relaxed) as usize
    }

    /// True if no worker is awake.
    pub(crate) fn all_asleep(&self) -> bool {
        self.sleeping.load(SeqCst) as usize == self.tokens.len()
    }

    /// Takes the sleeper that `choose` points at off the list; it counts as searching from here on.
    fn take(&self, choose: impl FnOnce(&[usize]) -> Option<usize>) -> Option<usize> {
        let mut sleepers = lock(&self.sleepers);
        let worker = choose(&sleepers).map(|index| sleepers.remove(index))?;
        self.searching.fetch_add(1, SeqCst);
        self.count(&sleepers);
        Some(worker)
    }

    fn count(&self, sleepers: &[usize]) {
        self.sleeping.store(sleepers.len() as u32, SeqCst);
    }
}

#[cfg(all(test, dagger_loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32 as Tasks;
    use loom::thread;

    /// A worker that takes `take` tasks and then stops.
    fn worker(sleep: &Sleep, index: usize, tasks: &Tasks, done: &Tasks, total: u32) {
        let try_take = || tasks.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok();
        sleep.start_search();
        let mut paused = false;
        while done.load(SeqCst) < total {
            if try_take() {
                sleep.found(|| tasks.load(SeqCst) > 0);
                if done.fetch_add(1, SeqCst) + 1 == total {
                    sleep.wake_all();
                }
                sleep.start_search();
            } else {
                if !std::mem::replace(&mut paused, true) {
                    sleep.pause_search(|| tasks.load(SeqCst) > 0);
                    continue;
                }
                sleep.sleep(index, Duration::ZERO, |_| tasks.load(SeqCst) > 0 || done.load(SeqCst) == total);
            }
        }
    }

    type Shared = (Sleep, Tasks, Tasks);

    /// Runs `push` beside so many workers that do this.
    fn beside(workers: usize, work: fn(usize, &Shared), push: fn(&Shared)) {
        let shared = Arc::new((Sleep::new(workers), Tasks::new(0), Tasks::new(0)));
        let start = |index| {
            let shared = shared.clone();
            thread::spawn(move || work(index, &shared))
        };
        let workers: Vec<_> = (0..workers).map(start).collect();
        push(&shared);
        for worker in workers {
            worker.join().unwrap();
        }
    }

    fn push(sleep: &Sleep, tasks: &Tasks) {
        // Relaxed on purpose: the fence of `wake_one` is what orders it.
        tasks.fetch_add(1, Relaxed);
        sleep.wake_one();
    }

    /// ```text
    /// pusher                    worker
    /// push                      asleep, sleeping += 1
    /// fence               ╳     fence
    /// sleeping? wake            look again
    /// ```
    /// If both missed each other the worker would sleep for ever, and loom reports the deadlock.
    #[test]
    fn loom_a_push_is_not_slept_through() {
        let work = |index, (sleep, tasks, done): &Shared| worker(sleep, index, tasks, done, 1);
        loom::model(move || beside(1, work, |(sleep, tasks, _)| push(sleep, tasks)));
    }

    /// A task that only worker 1 may take, while worker 0 sleeps, or wakes in vain.
    #[test]
    fn loom_a_push_for_one_worker_is_not_slept_through() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        let work = |index, (sleep, tasks, done): &Shared| {
            sleep.start_search();
            while done.load(SeqCst) == 0 {
                if index == 1 && tasks.load(SeqCst) != 0 {
                    sleep.found(|| false);
                    done.store(1, SeqCst);
                    sleep.wake_all();
                    sleep.start_search();
                } else {
                    let sees = |_| index == 1 && tasks.load(SeqCst) != 0 || done.load(SeqCst) != 0;
                    sleep.sleep(index, Duration::ZERO, sees);
                }
            }
        };
        model.check(move || {
            // Relaxed on purpose, as in `push`.
            beside(2, work, |(sleep, tasks, _)| {
                tasks.store(1, Relaxed);
                sleep.wake_one_of(&[1]);
            });
        });
    }

    /// Two pushes, two workers: the one who is woken wakes the other if there is more.
    #[test]
    fn loom_two_pushes_are_not_slept_through_by_two_workers() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        let work = |index, (sleep, tasks, done): &Shared| worker(sleep, index, tasks, done, 2);
        model.check(move || {
            beside(2, work, |(sleep, tasks, _)| {
                push(sleep, tasks);
                push(sleep, tasks);
            });
        });
    }
}
