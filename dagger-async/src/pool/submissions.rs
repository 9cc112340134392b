//! What threads that are no workers submit: each has a queue and a count of its own, so that several of them write to no common line.
//!
//! ```text
//!   thread ──▶ its queue ─┐
//!   thread ──▶ its queue ─┼─▶ batches, from one queue after the other ──▶ workers
//!   others ──▶ shared ────┘
//! ```
//! 1. A queue belongs to one thread from its first spawn into the pool until it ends: only that one pushes and counts there. What it
//!    leaves behind stays where it is, and the next one goes on with queue and count.
//! 2. A queue with tasks is marked, or somebody awake is about to mark it: its owner marks after the push, and whoever has found it
//!    empty clears the mark before it looks once more. Both fence in between, so that one of them sees the other.
//! 3. The shared queue is for threads beyond the first [`QUEUES`] that there are at a time, for those that are ending, and for what a queue of
//!    [`LONG`] does not take: that one never gives memory back.

use super::sleep::Sleep;
use super::{Local, local};
use crate::sync::{AtomicU64, fence};
use crate::task::RawTask;
use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::ptr::null;
use std::rc::Rc;
use std::sync::atomic::{
    AtomicU64 as Count, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};
use std::sync::{Arc, OnceLock, Weak};

/// Threads that have a queue of their own, at most: the bits of a word.
const QUEUES: usize = 64;
/// Tasks in a queue after which the others go to the shared one.
const LONG: usize = 8192;
/// The length of a queue is looked at after so many pushes: the workers write the line where it stands.
const PERIOD: u32 = 64;

/// See the module.
pub(super) struct Submissions {
    shared: Injector<RawTask>,
    marks: CachePadded<Marks>,
    /// Made one after the other, on first need.
    queues: [OnceLock<Box<Queue>>; QUEUES],
    made: AtomicUsize,
    adding: Mutex<()>,
}

/// A queue as others see it.
struct Queue {
    stealer: Stealer<RawTask>,
    /// Tasks that its owners have spawned.
    spawned: CachePadded<Count>,
    /// The end to push at, while nobody has it.
    free: Mutex<Option<Worker<RawTask>>>,
}

/// Which queues may have tasks.
struct Marks(AtomicU64);

impl Marks {
    fn new() -> Self {
        Marks(AtomicU64::new(0))
    }

    /// After a push and a fence. True if it was not marked.
    #[inline]
    fn mark(&self, queue: usize) -> bool {
        let bit = 1 << queue;
        let is_new = self.0.load(Relaxed) & bit == 0;
        if is_new {
            self.0.fetch_or(bit, SeqCst);
        }
        is_new
    }

    /// This one was found empty. False if it `is_empty` no more: then it stays marked.
    fn clear(&self, queue: usize, is_empty: impl FnOnce() -> bool) -> bool {
        let bit = 1 << queue;
        self.0.fetch_and(!bit, SeqCst);
        fence(SeqCst);
        let is_empty = is_empty();
        if !is_empty {
            self.0.fetch_or(bit, SeqCst);
        }
        is_empty
    }

    /// Those that are marked, as bits.
    #[inline]
    fn all(&self) -> u64 {
        self.0.load(Acquire)
    }
}

/// The bits that are set, ascending.
fn numbers(bits: u64) -> impl Iterator<Item = usize> {
    let mut left = bits;
    std::iter::from_fn(move || {
        let next = (left != 0).then(|| left.trailing_zeros())?;
        left &= left - 1;
        Some(next as usize)
    })
}

impl Submissions {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Submissions {
            shared: Injector::new(),
            marks: CachePadded::new(Marks::new()),
            queues: [const { OnceLock::new() }; QUEUES],
            made: AtomicUsize::new(0),
            adding: Mutex::new(()),
        })
    }

    /// What this thread has here.
    #[inline]
    fn own<'a>(self: &Arc<Self>, local: &'a Local) -> Option<&'a Own> {
        match local.own_submissions() {
            Some(own) if std::ptr::eq(own.of.as_ptr(), Arc::as_ptr(self)) => Some(own),
            _ => self.find_own(local),
        }
    }

    #[cold]
    #[inline(never)]
    fn find_own<'a>(self: &Arc<Self>, local: &'a Local) -> Option<&'a Own> {
        local.set_own_submissions(null()); // It may be forgotten here.
        let find = |all: &RefCell<OfThread>| {
            let all = &mut all.borrow_mut().0;
            let known = all.iter().position(|own| std::ptr::eq(own.of.as_ptr(), Arc::as_ptr(self)));
            let known = known.unwrap_or_else(|| {
                all.retain(|own| own.of.strong_count() != 0); // Of pools that are gone.
                all.push(Rc::new(Own {
                    of: Arc::downgrade(self),
                    queue: self.take_queue(),
                    pushes: Cell::new(0),
                }));
                all.len() - 1
            });
            Rc::as_ptr(&all[known])
        };
        local.set_own_submissions(OF_THREAD.try_with(find).ok()?);
        local.own_submissions()
    }

    /// A queue for this thread, and its number.
    fn take_queue(&self) -> Option<(usize, Worker<RawTask>)> {
        let take = |(number, queue): (usize, &Queue)| {
            Some(number).zip(queue.free.try_lock().and_then(|mut free| free.take()))
        };
        if let Some(taken) = self.queues().enumerate().find_map(take) {
            return Some(taken);
        }
        let _adding = self.adding.lock();
        let number = self.made.load(Relaxed);
        let end = Worker::new_fifo();
        let queue = Queue { stealer: end.stealer(), spawned: CachePadded::default(), free: Mutex::new(None) };
        self.queues.get(number)?.set(Box::new(queue)).ok()?;
        // Release: who sees the number finds the queue.
        self.made.store(number + 1, Release);
        Some((number, end))
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.queues[..self.made.load(Acquire)].iter().filter_map(|queue| queue.get().map(|queue| &**queue))
    }

    fn queue(&self, number: usize) -> Option<&Queue> {
        self.queues[number].get().map(|queue| &**queue)
    }

    /// Counts a task that this thread has made. False: it has no count here.
    #[inline(never)]
    pub(super) fn count_spawned(self: &Arc<Self>, local: &Local) -> bool {
        let own = self.own(local).and_then(|own| own.queue.as_ref());
        let Some(queue) = own.and_then(|(number, _)| self.queue(*number)) else { return false };
        super::bump(&queue.spawned);
        true
    }

    /// How many tasks are counted here.
    pub(super) fn spawned(&self) -> u64 {
        self.queues().map(|queue| queue.spawned.load(Acquire)).fold(0, u64::wrapping_add)
    }

    /// Queues a task of a thread that is no worker, and wakes one if they sleep.
    #[inline(never)]
    pub(super) fn push(self: &Arc<Self>, task: RawTask, local: &Local, sleep: &Sleep) {
        let own = self.own(local).and_then(|own| own.queue_for_more());
        let Some((number, queue)) = own else { return self.share(task, sleep) };
        queue.push(task);
        fence(SeqCst);
        if self.marks.mark(*number) {
            fence(SeqCst); // The mark as well comes before the look at who sleeps.
        }
        sleep.wake_one_after_fence();
    }

    /// Queues a task where all threads do, and wakes a worker.
    pub(super) fn share(&self, task: RawTask, sleep: &Sleep) {
        self.share_quietly(task);
        sleep.wake_one();
    }

    /// As [`share`](Self::share), and wakes nobody.
    pub(super) fn share_quietly(&self, task: RawTask) {
        self.shared.push(task);
    }

    /// There is nothing here, as far as this thread can see.
    pub(super) fn is_empty(&self) -> bool {
        let has_tasks = |number| self.queue(number).is_some_and(|queue| !queue.stealer.is_empty());
        self.shared.is_empty() && !numbers(self.marks.all()).any(has_tasks)
    }

    /// Takes a task, and some more into a worker's queue. `turn`: from which queue that worker has taken last; the next one that has any
    /// comes now.
    #[inline]
    pub(super) fn take(&self, turn: &Cell<usize>, into: &Worker<RawTask>, sleep: &Sleep) -> Option<RawTask> {
        let marks = self.marks.all();
        if marks == 0 && self.shared.is_empty() {
            return None;
        }
        self.take_in_turn(marks, turn, into, sleep)
    }

    #[inline(never)]
    fn take_in_turn(
        &self,
        marks: u64,
        turn: &Cell<usize>,
        into: &Worker<RawTask>,
        sleep: &Sleep,
    ) -> Option<RawTask> {
        let (later, earlier) = split(marks, turn.get());
        let own = |marks| {
            let taken = |queue| self.take_of(queue, into, sleep).inspect(|_| turn.set(queue));
            numbers(marks).find_map(taken)
        };
        // After the last of them comes what is shared.
        let shared = || {
            let taken = until_settled(|| self.shared.steal_batch_and_pop(into));
            taken.inspect(|_| turn.set(QUEUES))
        };
        own(later).or_else(shared).or_else(|| own(earlier))
    }

    /// From the queue with this number, which was marked.
    fn take_of(&self, number: usize, into: &Worker<RawTask>, sleep: &Sleep) -> Option<RawTask> {
        let stealer = &self.queue(number)?.stealer;
        loop {
            let taken = until_settled(|| stealer.steal_batch_and_pop(into));
            if taken.is_some() || self.marks.clear(number, || stealer.is_empty()) {
                return taken;
            }
            sleep.wake_one(); // As after a push: somebody may have looked while it was not marked.
        }
    }
}

/// Of the bits those after this one, and the others.
fn split(bits: u64, last: usize) -> (u64, u64) {
    let later = u64::MAX.checked_shl(last as u32 + 1).unwrap_or(0);
    (bits & later, bits & !later)
}

/// Steals until nobody comes in between.
fn until_settled(steal: impl Fn() -> Steal<RawTask>) -> Option<RawTask> {
    loop {
        match steal() {
            Steal::Success(task) => return Some(task),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

/// What a thread has at one pool.
pub(super) struct Own {
    of: Weak<Submissions>,
    /// Its number, and the end to push at. None was left: the shared one.
    queue: Option<(usize, Worker<RawTask>)>,
    pushes: Cell<u32>,
}

impl Own {
    /// Its queue, if it has one and that is not too long.
    #[inline]
    fn queue_for_more(&self) -> Option<&(usize, Worker<RawTask>)> {
        let queue = self.queue.as_ref()?;
        let pushes = self.pushes.get().wrapping_add(1);
        // Once it is long each push looks.
        if pushes.is_multiple_of(PERIOD) && queue.1.len() >= LONG {
            return None;
        }
        self.pushes.set(pushes);
        Some(queue)
    }
}

/// What a thread has at each pool: there they stay, `Local` points to one.
struct OfThread(Vec<Rc<Own>>);

thread_local!(static OF_THREAD: RefCell<OfThread> = const { RefCell::new(OfThread(Vec::new())) });

impl Drop for OfThread {
    /// The thread ends.
    fn drop(&mut self) {
        local::with(|local| local.set_own_submissions(null()));
        for own in self.0.drain(..).filter_map(Rc::into_inner) {
            if let (Some(of), Some((number, end))) = (own.of.upgrade(), own.queue)
                && let Some(queue) = of.queue(number)
            {
                *queue.free.lock() = Some(end);
            }
        }
    }
}

#[cfg(all(test, not(dagger_loom)))]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use super::*;
    use crate::prelude::*;

    #[test]
    fn each_queue_comes_once_and_first_those_after_the_last() {
        let bits = 1 | 1 << 3 | 1 << 40 | 1 << 63;
        let after = |last| {
            let (later, earlier) = split(bits, last);
            [later, earlier].map(|bits| numbers(bits).collect::<Vec<_>>())
        };
        assert_eq!(after(0), [vec![3, 40, 63], vec![0]]);
        assert_eq!(after(39), [vec![40, 63], vec![0, 3]]);
        assert_eq!(after(63), [vec![], vec![0, 3, 40, 63]]);
        assert_eq!(after(QUEUES), after(63));
        assert_eq!(numbers(u64::MAX).count(), 64);
    }

    fn kept_by_this_thread() -> usize {
        OF_THREAD.with(|all| all.borrow().0.len())
    }

    #[test]
    fn a_thread_forgets_pools_that_are_gone_and_the_next_one_takes_over_its_queue() {
        let runtime = || Runtime::builder().threads(1).pin(false).build().unwrap();
        let kept = runtime();
        let spawn = |runtime: &Runtime| {
            assert_eq!(runtime.block_on(async { spawn!((|| 7)()).await.unwrap() }), 7);
        };
        spawn(&kept);
        for _ in 0..10 {
            let other = runtime();
            spawn(&other);
            spawn(&kept);
            let other = other.shutdown();
            kept.block_on(other);
        }
        // The last ones may still be there: a thread that has ended for the runtime may yet have to give the pool up.
        assert!(kept_by_this_thread() <= 5, "{}", kept_by_this_thread());
        for _ in 0..10 {
            std::thread::scope(|scope| scope.spawn(|| spawn(&kept)).join().unwrap());
        }
        let submissions =
            kept.block_on(async { local::with(|local| local.pool().unwrap().submissions.clone()) });
        assert_eq!(
            submissions.queues().count(),
            2,
            "one for this thread, and one for each of the others in turn"
        );
        assert_eq!(submissions.spawned(), 21);
    }
}

#[cfg(all(test, dagger_loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32 as Tasks;
    use loom::thread;
    use std::time::Duration;

    struct Shared {
        marks: Marks,
        sleep: Sleep,
        tasks: Tasks,
        done: Tasks,
    }

    /// A worker that takes tasks of the only queue until `total` are done, as `Submissions::take` does.
    fn work(shared: &Shared, worker: usize, total: u32) {
        let Shared { marks, sleep, tasks, done } = shared;
        let take = || {
            while marks.all() != 0 {
                if tasks.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
                    return true;
                }
                if marks.clear(0, || tasks.load(Relaxed) == 0) {
                    return false;
                }
                sleep.wake_one();
            }
            false
        };
        let sees_work = || marks.all() != 0 && tasks.load(SeqCst) != 0;
        sleep.start_search();
        while done.load(SeqCst) < total {
            if take() {
                sleep.found(sees_work);
                if done.fetch_add(1, SeqCst) + 1 == total {
                    sleep.wake_all();
                }
                sleep.start_search();
            } else {
                sleep.sleep(worker, Duration::ZERO, |_| sees_work() || done.load(SeqCst) == total);
            }
        }
    }

    fn push(shared: &Shared) {
        // Relaxed on purpose: the fence is what orders it.
        shared.tasks.fetch_add(1, Relaxed);
        fence(SeqCst);
        if shared.marks.mark(0) {
            fence(SeqCst);
        }
        shared.sleep.wake_one_after_fence();
    }

    fn model(workers: usize, pushes: u32) {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(move || {
            let shared = Arc::new(Shared {
                marks: Marks::new(),
                sleep: Sleep::new(workers),
                tasks: Tasks::new(0),
                done: Tasks::new(0),
            });
            let threads: Vec<_> = (0..workers)
                .map(|worker| {
                    let shared = shared.clone();
                    thread::spawn(move || work(&shared, worker, pushes))
                })
                .collect();
            (0..pushes).for_each(|_| push(&shared));
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    /// ```text
    /// owner                      worker
    /// push                       clear
    /// fence                 ╳    fence
    /// marked? mark               look again
    /// ```
    /// If both missed each other the task would lie in a queue that nobody looks at.
    #[test]
    fn loom_a_submission_is_not_missed_by_who_clears_its_mark() {
        model(1, 2);
    }

    #[test]
    fn loom_submissions_are_not_slept_through_by_two_workers() {
        model(2, 2);
    }
}
