//! The workers of a runtime and what they share.
//!
//! ```text
//!   outside ▶ submissions ─┐            ┌ steal ┐
//!   spawn in a task ──▶ own queue ─▶ worker ─▶ body ─▶ slot (next successor)
//!   scope or priority ──▶ lanes of a domain ─┘
//!   may block ──▶ spare threads ◀── place of a worker whose body blocks
//! ```
//! 1. The memory of a pool outlives its unfinished tasks: worker threads keep it, and they end only when the pool is
//!    closed and no task is unfinished. So a task that is not retired may follow its `pool` pointer; a thread
//!    that is not the pool's own counts itself in (`keep`) before it does what may retire the last one.
//! 2. A task is unfinished from its spawn until its body is gone (or, ended before its inputs came, until then).
//! 3. A pool that is closed runs nothing new: what is queued, suspended or waiting ends with `Shutdown`.

mod affinity;
pub(crate) mod domain;
pub(crate) mod local;
pub(crate) mod patience;
mod place;
mod reactor;
mod sleep;
mod spares;
mod stall;
mod standby;
mod submissions;
pub(crate) mod window;
pub(crate) mod worker;

pub(crate) use local::Local;
pub(crate) use place::{Place, REST};

use crate::error::quietly;
use crate::options::Placement;
use crate::record;
use crate::residency;
use crate::task::{self, RawTask, TaskRef};
use crossbeam_deque::{Stealer, Worker};
use crossbeam_utils::CachePadded;
use dagger_core::Processor;
use dagger_core::record::What;
use domain::Domains;
use parking_lot::Mutex;
use reactor::Reactor;
use slab::Slab;
use sleep::Sleep;
use spares::Spares;
use standby::Standby;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};
use std::time::Duration;
use submissions::Submissions;
use tokio::sync::Notify;

/// What a pool is made with.
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) processors: Vec<Processor>,
    pub(crate) pin: bool,
    pub(crate) spare_threads: usize,
    pub(crate) blocking_threads: usize,
    pub(crate) stall_after: Duration,
    pub(crate) window: Option<usize>,
    pub(crate) tokio: Option<tokio::runtime::Handle>,
    #[cfg(feature = "store")]
    pub(crate) store: Arc<crate::store::Store>,
    #[cfg(feature = "store")]
    pub(crate) checkpoints: Option<Arc<crate::store::checkpoint::Keeping>>,
}

/// What the workers of one runtime share.
pub(crate) struct Pool {
    pub(crate) name: String,
    pub(crate) processors: Vec<Processor>,
    pin: bool,
    /// Of threads that are no workers.
    submissions: Arc<Submissions>,
    stealers: Box<[Stealer<RawTask>]>,
    pub(crate) domains: Domains,
    sleep: Sleep,
    standby: Standby,
    pub(crate) spares: Spares,
    pub(crate) reactor: Reactor,
    /// One for each worker, written by it alone, and one that all other threads share (spawns of most of them are counted with what they
    /// submit).
    counts: Box<[CachePadded<Counts>]>,
    /// Runs of plans by their graphs that go on: they count themselves.
    pub(crate) planned: Arc<AtomicUsize>,
    /// How often each worker has woken: the stall watch sees by it whether anything happened.
    wakes: Box<[CachePadded<AtomicU64>]>,
    closed: AtomicBool,
    /// Tasks that the shutdown must find: suspended ones, and those that wait for tasks of other pools.
    registered: Box<[CachePadded<Mutex<Slab<RawTask>>>]>,
    idle: Notify,
    idle_waiters: AtomicUsize,
    threads: AtomicUsize,
    ended: Notify,
    stall: stall::Watch,
    pub(crate) window: window::Window,
    #[cfg(feature = "store")]
    pub(crate) store: Arc<crate::store::Store>,
    /// Where results of tasks are kept for the next run.
    #[cfg(feature = "store")]
    pub(crate) checkpoints: Option<Arc<crate::store::checkpoint::Keeping>>,
}

#[derive(Default)]
struct Counts {
    spawned: AtomicU64,
    finished: AtomicU64,
    /// Of picks.
    rounds: AtomicU64,
}

impl Pool {
    /// Starts the workers.
    pub(crate) fn start(config: Config) -> std::io::Result<Arc<Pool>> {
        affinity::remember();
        let reactor = Reactor::new(&config.name, config.tokio.clone())?;
        let queues: Vec<Worker<RawTask>> = config.processors.iter().map(|_| Worker::new_fifo()).collect();
        let stealers = queues.iter().map(Worker::stealer).collect();
        let pool = Self::make(config, reactor, stealers);
        #[cfg(feature = "store")]
        let _ = pool.store.pool.set(Arc::downgrade(&pool));
        for (index, queue) in queues.into_iter().enumerate() {
            let started = worker::start(&pool, "worker", index, move |pool| {
                pool.spares.work_and_serve(pool, Box::new(Place::new(index, queue, pool.stealers.len())));
            });
            if let Err(error) = started {
                pool.close();
                return Err(error);
            }
        }
        Ok(pool)
    }

    fn make(config: Config, reactor: Reactor, stealers: Box<[Stealer<RawTask>]>) -> Arc<Pool> {
        let workers = stealers.len();
        Arc::new(Pool {
            reactor,
            name: config.name,
            processors: config.processors,
            pin: config.pin,
            submissions: Submissions::new(),
            stealers,
            domains: Domains::new(workers),
            sleep: Sleep::new(workers),
            standby: Standby::new(workers),
            spares: Spares::new(workers, config.spare_threads, config.blocking_threads),
            counts: (0..=workers).map(|_| CachePadded::default()).collect(),
            planned: Arc::default(),
            wakes: (0..workers).map(|_| CachePadded::default()).collect(),
            closed: AtomicBool::new(false),
            registered: (0..=workers).map(|_| CachePadded::default()).collect(),
            idle: Notify::new(),
            idle_waiters: AtomicUsize::new(0),
            threads: AtomicUsize::new(0),
            ended: Notify::new(),
            stall: stall::Watch::new(config.stall_after),
            window: window::Window::new(config.window, workers),
            #[cfg(feature = "store")]
            store: config.store,
            #[cfg(feature = "store")]
            checkpoints: config.checkpoints,
        })
    }

    /// A pool without threads that was closed from the start.
    pub(crate) fn none() -> Arc<Pool> {
        let config = Config {
            name: String::new(),
            processors: Vec::new(),
            pin: false,
            spare_threads: 0,
            blocking_threads: 0,
            stall_after: Duration::MAX,
            window: None,
            tokio: None,
            #[cfg(feature = "store")]
            store: crate::store::Store::new(crate::store::Settings::default()),
            #[cfg(feature = "store")]
            checkpoints: None,
        };
        let pool = Self::make(config, Reactor::none(), Box::default());
        pool.close();
        pool
    }

    /// Counts the caller in. `self` is alive now (invariant 1) and came from an `Arc`.
    pub(crate) fn keep(&self) -> Arc<Pool> {
        // SAFETY: every pool is made in an `Arc` (`start`), and the caller's reference says that it is alive.
        unsafe {
            Arc::increment_strong_count(self);
            Arc::from_raw(self)
        }
    }

    /// Binds the calling thread to the processor of a worker, if workers are pinned.
    fn pin_to(&self, worker: usize) {
        if let (true, Some(cpu)) = (self.pin, self.processors[worker].cpu) {
            affinity::bind(cpu);
        }
    }

    /// A thread that is no worker is about to wait, perhaps for what it has pushed. The worker of its own CPU can begin as soon
    /// as it does; one that was woken on another CPU may take ten times as long to get there.
    pub(crate) fn wake_near(&self) {
        if !self.pin || self.submissions.is_empty() {
            return;
        }
        let Some(here) = affinity::here() else { return };
        let near = self.processors.iter().take(self.stealers.len()).position(|near| near.cpu == Some(here));
        if let Some(near) = near {
            self.sleep.wake_this(near);
        }
    }

    /// Undoes `pin_to` for a thread that now runs what may block.
    fn unpin(&self) {
        if self.pin {
            affinity::release();
        }
    }

    // Tasks come and go.

    /// A task was made by this thread.
    #[inline]
    pub(crate) fn spawned(&self, local: &Local) {
        match local.place_of(self) {
            Some(place) => bump(&self.counts[place.index].spawned),
            None if self.submissions.count_spawned(local) => {}
            None => _ = self.shared_counts().spawned.fetch_add(1, SeqCst),
        }
    }

    /// A task was retired by this thread.
    pub(crate) fn finished(&self, local: &Local) {
        self.finished_at(local.place_of(self));
    }

    /// A task was retired by the thread that has this place of the pool, or none.
    #[inline(always)]
    pub(crate) fn finished_at(&self, place: Option<&Place>) {
        match place {
            Some(place) => {
                let finished = &self.counts[place.index].finished;
                bump(finished);
                self.tell_room_after(finished.load(Relaxed));
            }
            None => self.finished_outside(),
        }
        if self.is_closed() {
            self.finished_after_close();
        }
    }

    #[cold]
    fn finished_outside(&self) {
        self.shared_counts().finished.fetch_add(1, SeqCst);
        fence(SeqCst);
        self.tell_idle();
        self.tell_room();
    }

    #[cold]
    fn finished_after_close(&self) {
        if self.unfinished() == 0 {
            self.sleep.wake_all();
            self.spares.end();
        }
    }

    /// How many tasks are unfinished. Zero is exact: there was a moment without any.
    pub(crate) fn unfinished(&self) -> u64 {
        // Finished first: who sees a task's end sees its spawn, and the spawns of its children, so the sum of
        // spawns read afterwards is never too small.
        let finished: u64 = self.counts.iter().map(|counts| counts.finished.load(Acquire)).sum();
        fence(SeqCst);
        let spawned: u64 = self.counts.iter().map(|counts| counts.spawned.load(Acquire)).sum();
        spawned.wrapping_add(self.submissions.spawned()).wrapping_sub(finished)
    }

    /// There is a plain task in some queue.
    pub(crate) fn has_work_beside(&self) -> bool {
        !self.submissions.is_empty() || self.stealers.iter().any(|stealer| !stealer.is_empty())
    }

    /// Changes whenever a worker spawns or ends a task.
    fn progress(&self, worker: usize) -> u64 {
        let counts = &self.counts[worker];
        counts.spawned.load(Relaxed).wrapping_add(counts.finished.load(Relaxed))
    }

    /// Changes whenever a task is spawned or ends.
    fn total_progress(&self) -> u64 {
        let shards = (0..self.counts.len()).map(|shard| self.progress(shard));
        shards.fold(self.submissions.spawned(), u64::wrapping_add)
    }

    /// A worker has come for tasks for another round.
    fn count_round(&self, worker: usize) {
        bump(&self.counts[worker].rounds);
    }

    /// Changes whenever a worker has come for tasks a number of times.
    fn rounds(&self) -> u64 {
        self.counts.iter().map(|counts| counts.rounds.load(Relaxed)).fold(0, u64::wrapping_add)
    }

    fn shared_counts(&self) -> &Counts {
        &self.counts[self.stealers.len()]
    }

    /// Queues a task that is in phase `Queued`. The caller keeps the pool alive; the task may be gone afterwards.
    ///
    /// The first that the end of another has made ready runs here next.
    #[inline(always)]
    pub(crate) fn enqueue(&self, task: RawTask, local: &Local) {
        let is_plain = task.spec.as_deref().is_none_or(|spec| spec.placement.is_plain());
        if !is_plain || !local.place_of(self).is_some_and(|place| place.keep_next(task)) {
            self.enqueue_for_all(task, local);
        }
    }

    /// As [`enqueue`](Self::enqueue), of a task that does not run here next: a plain one (as `is_plain` says) for all workers, another one
    /// for those of its lane. One that has just been spawned and waits for nothing comes here, whatever ends around it.
    pub(crate) fn enqueue_for_all(&self, task: RawTask, local: &Local) {
        let place = local.place_of(self);
        match task.spec.as_deref().map(|spec| &spec.placement) {
            Some(placement) if placement.blocking => self.spares.run(&self.keep(), task, placement.lane()),
            Some(placement @ &Placement { domain: Some(key), .. }) => {
                let domain = self.domains.get(key);
                domain.push(task, placement.lane());
                self.sleep.wake_one_of(&domain.workers);
            }
            _ => match place {
                Some(place) => {
                    place.push(task);
                    if self.stealers.len() > 1 {
                        self.sleep.wake_one_beside(|| place.is_alone());
                    }
                }
                None => self.submissions.push(task, local, &self.sleep),
            },
        }
    }

    /// True if this thread's worker may run the task.
    pub(crate) fn may_run_here(&self, task: RawTask, local: &Local) -> bool {
        let Some(place) = local.place_of(self) else { return false };
        match task.spec.as_deref() {
            None => true,
            Some(spec) if spec.placement.blocking => false,
            Some(spec) => spec
                .placement
                .domain
                .map(|key| self.domains.get(key))
                .is_none_or(|domain| domain.workers.binary_search(&place.index).is_ok()),
        }
    }

    // Suspended tasks.

    /// Makes the shutdown find this task. Called by the owner of its body, once.
    pub(crate) fn register(&self, task: RawTask, local: &Local) -> (u32, u32) {
        let shard = local.place_of(self).map_or(self.stealers.len(), |place| place.index);
        let key = self.registered[shard].lock().insert(task);
        (shard as u32, key as u32)
    }

    pub(crate) fn unregister(&self, (shard, key): (u32, u32)) {
        self.registered[shard as usize].lock().remove(key as usize);
    }

    /// The registered tasks, kept in memory.
    fn registered_tasks(&self) -> Vec<TaskRef> {
        let mut tasks = Vec::new();
        for shard in &self.registered {
            tasks.extend(shard.lock().iter().map(|(_, &task)| TaskRef::new(task)));
        }
        tasks
    }

    // Idle.

    /// Ends at a moment without unfinished tasks.
    pub(crate) async fn idle(&self) {
        self.idle_waiters.fetch_add(1, SeqCst);
        let _counted = scopeguard(|| _ = self.idle_waiters.fetch_sub(1, SeqCst));
        loop {
            let mut told = std::pin::pin!(self.idle.notified());
            told.as_mut().enable();
            fence(SeqCst);
            if self.unfinished() == 0 {
                return;
            }
            told.await;
        }
    }

    fn tell_idle(&self) {
        if self.idle_waiters.load(SeqCst) != 0 && self.unfinished() == 0 {
            quietly(|| self.idle.notify_waiters());
        }
    }

    /// What a worker does before it sleeps.
    fn before_sleep(self: &Arc<Self>) {
        fence(SeqCst);
        self.tell_idle();
        self.stall.arm(self);
    }

    /// How long a wait may last before it is reported.
    pub(crate) fn stall_after(&self) -> Option<Duration> {
        self.stall.after()
    }

    // The end.

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// As `is_closed`, ordered against the count of a spawn from outside.
    #[inline]
    pub(crate) fn is_closed_after_count(&self, local: &Local) -> bool {
        // A worker's own body is unfinished while it spawns: the pool cannot end meanwhile.
        if local.place_of(self).is_none() {
            fence(SeqCst);
        }
        self.closed.load(SeqCst)
    }

    /// Ends what waits and lets the workers end. Never blocks.
    pub(crate) fn close(&self) {
        if self.closed.swap(true, SeqCst) {
            return;
        }
        fence(SeqCst);
        self.end_waiting();
        residency::close(self);
        self.tell_room();
        self.standby.call_back();
        self.sleep.wake_all();
        if self.unfinished() == 0 {
            self.spares.end();
        }
    }

    /// Ends the registered tasks, and those that wait, directly or through others, for one of them or for a chunk that is held by one or
    /// outside tasks (a guard may never be dropped).
    fn end_waiting(&self) {
        let mut blocked = self.registered_tasks();
        crate::chunk::visit_waiting_behind_guards(&mut |task, _| blocked.push(TaskRef::new(task)));
        let (mut seen, mut chunks) = (HashSet::new(), HashSet::new());
        while let Some(task) = blocked.pop() {
            if !seen.insert(task.id) {
                continue;
            }
            let is_new = &mut |chunk| chunks.insert(chunk);
            task::visit_waiting_behind(task.raw(), is_new, &mut |next| blocked.push(TaskRef::new(next)));
            if std::ptr::eq(task.raw().pool, self) {
                task::end_by_shutdown(task.raw());
            }
        }
    }

    pub(crate) fn thread_started(&self) {
        self.threads.fetch_add(1, Release);
    }

    fn thread_ended(&self) {
        if self.threads.fetch_sub(1, SeqCst) == 1 {
            quietly(|| self.ended.notify_waiters());
        }
    }

    /// Ends when the last thread has.
    pub(crate) async fn ended(&self) {
        loop {
            let mut told = std::pin::pin!(self.ended.notified());
            told.as_mut().enable();
            if self.threads.load(SeqCst) == 0 {
                return;
            }
            told.await;
        }
    }

    /// The processor with this number: a worker's, or a thread beside them.
    pub(crate) fn processor(&self, thread: usize) -> Processor {
        self.processors.get(thread).cloned().unwrap_or_else(|| Processor::blocking(0, thread))
    }
}

/// Runs `end` when dropped.
fn scopeguard(end: impl FnMut()) -> impl Drop {
    struct Guard<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Guard<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Guard(end)
}

/// Adds one to a count that only this thread writes.
#[inline]
fn bump(count: &AtomicU64) {
    // Release: pairs with the Acquire of `unfinished`.
    count.store(count.load(Relaxed) + 1, Release);
}

/// Says which attempt the current task is at.
pub(crate) fn set_attempt(attempt: u32) {
    local::with(|local| {
        if let Some(task) = local.task() {
            record::note(|| What::Retry { task: task.id.get(), attempt });
            let guard = task.state.lock();
            task.guarded(&guard).extra().attempt = attempt;
        }
    });
}
