//! One run of a frozen graph.
//!
//! ```text
//!   runner   call ─▶ ready successors ─▶ the first is the next, the others: own queue ─▶ newest first
//!                                                                                └──▶ oldest first ─ another runner
//! ```
//! 1. A runner is a task that takes ready steps, its own ones or those of another one, until there are none. It leaves with its
//!    queue empty; so when the last one leaves no step is ready and none runs, and the run is over.
//! 2. A runner counts from its spawn. Only a runner spawns another, so that the count is zero once.
//! 3. A step becomes ready in the queue of the runner that has ended its last predecessor, and that runner does not leave before
//!    the step is taken: nobody has to be told, more runners are only more hands.
//! 4. While a runner calls a step others can take every ready step but that one, however long it takes.
//! 5. A run that is not shared (`ways.rs`) leaves steps to one runner while they take less than [`SLOW`]: the others watch how
//!    it comes on, and take part as soon as one takes longer. So who watches does not leave while some step is ready. It watches only
//!    while no worker has anything else in its queue, and takes part otherwise: so a run seldom ends later because a runner that does
//!    nothing stands behind other tasks.
//! 6. After a failure steps are taken and not called; what is left of the counts is put right by the last runner.

use super::ways::Ways;
use super::{Inner, Places};
use crate::call::{Body, Stop};
use crate::chunk::{ChunkCell, GuardWait, Outcome, Users};
use crate::error::{Error, Result, TaskInfo, quietly};
use crate::plan::count::Runners;
use crate::pool::patience::Patience;
use crate::pool::{Pool, REST, local};
use crate::record;
use crate::spawn;
use crate::sync::{relax, spin};
use crate::task::{CallSite, Linker, RawTask, TaskId, TaskRef, clone_to_leave};
use crossbeam_deque::{Steal, Stealer, Worker};
use crossbeam_utils::CachePadded;
use dagger_core::Scope;
use dagger_core::record::{Cause, End, What};
use parking_lot::Mutex;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Acquire, Relaxed},
};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How long a runner goes on before other tasks of its worker have a turn.
const TURN: Duration = Duration::from_micros(200);
/// After so many steps it looks at the clock.
const LOOK_EVERY: u64 = 16;
/// So few steps of another runner are left to it for a moment, in a run that is shared.
const FEW: usize = 3;
/// That moment, in turns of a loop: about as long as it takes to come for them.
const GRACE: u32 = 4;
/// Steps that take so long are worth handing over, in a run that is not. Unoptimised they take up to fifty times as long.
const SLOW: Duration = Duration::from_nanos(if cfg!(debug_assertions) { 5000 } else { 100 });
/// How often a runner without a step looks at the queues of the others before it leaves: some microseconds.
const LOOKS: u32 = 24;

/// See the module.
pub(super) struct Session {
    frozen: Arc<Inner>,
    pool: Arc<Pool>,
    site: &'static Location<'static>,
    /// Invariant 2.
    runners: Runners,
    /// Invariant 5.
    is_shared: bool,
    began: Instant,
    /// Some runner has begun.
    has_runner: AtomicBool,
    /// Nothing more is called.
    is_stopped: AtomicBool,
    /// One for each worker.
    lanes: Box<[Lane]>,
    ending: Mutex<Ending>,
    /// Some step was called.
    has_begun: AtomicBool,
    /// The runners that have begun, for those who look for cycles.
    tasks: Mutex<Vec<TaskRef>>,
    /// What the steps are called in a recording, if one was on at the start.
    recorded: Option<Box<[TaskId]>>,
}

/// A queue of ready steps: its owner's end, while no runner has it, and the others'.
struct Lane {
    queue: Mutex<Option<Worker<u32>>>,
    stealer: Stealer<u32>,
    pace: CachePadded<Pace>,
}

/// How the runner that has a lane comes on.
#[derive(Default)]
struct Pace {
    /// One has it, and is not looking for steps elsewhere.
    works: AtomicBool,
    /// Steps that were called from this lane.
    called: AtomicU64,
}

/// What a runner sees that has no step.
enum Look {
    /// It should take one.
    Ready,
    /// Others will soon have taken what is ready.
    LeftAlone,
    Nothing,
}

#[derive(Default)]
struct Ending {
    failure: Option<Error>,
    places: Places,
    waker: Option<Waker>,
    is_over: bool,
}

impl Session {
    /// Begins a run whose turn has come.
    pub(super) fn start(
        frozen: Arc<Inner>,
        pool: Arc<Pool>,
        site: &'static Location<'static>,
        places: Places,
        wait: &GuardWait,
    ) -> Arc<Session> {
        let workers = pool.processors.len();
        let (mut queues, is_shared) = {
            let mut kept = frozen.kept.lock();
            if std::mem::replace(&mut kept.workers, workers) != workers {
                kept.ways = Ways::NEW; // Of another runtime.
            }
            (std::mem::take(&mut kept.queues), kept.ways.is_shared() || workers == 1)
        };
        queues.resize_with(workers.max(queues.len()), Worker::new_lifo);
        // Neighbours stay together; each queue gives its first one first.
        let share = frozen.sources.len().div_ceil(workers).max(1);
        for (sources, queue) in frozen.sources.chunks(share).zip(&queues) {
            sources.iter().rev().for_each(|&source| queue.push(source));
        }
        let lane = |queue: Worker<u32>| Lane {
            stealer: queue.stealer(),
            queue: Mutex::new(Some(queue)),
            pace: CachePadded::default(),
        };
        let runners = frozen.sources.len().min(workers) as u32;
        let session = Arc::new(Session {
            lanes: queues.into_iter().map(lane).collect(),
            runners: Runners::new(runners),
            is_shared,
            began: Instant::now(),
            has_runner: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            ending: Mutex::new(Ending { places, ..Ending::default() }),
            has_begun: AtomicBool::new(false),
            tasks: Mutex::default(),
            recorded: record::is_on().then(|| note_spawns(&frozen)),
            frozen,
            pool,
            site,
        });
        let users: Weak<Session> = Arc::downgrade(&session);
        wait.set_users(users);
        for _ in 0..runners {
            session.spawn_runner();
        }
        if runners == 0 {
            session.end();
        }
        session
    }

    /// Ends once the chunks are given back.
    pub(super) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let new = clone_to_leave(cx.waker());
        let mut ending = self.ending.lock();
        if ending.is_over {
            let failure = ending.failure.take();
            drop(ending);
            return Poll::Ready(failure.map_or(Ok(()), Err));
        }
        let before = ending.waker.replace(new);
        drop(ending);
        drop(before);
        Poll::Pending
    }

    /// Nobody waits for it any more: no further step begins.
    pub(super) fn cancel(&self) {
        self.stop(Error::Cancelled { root: self.info().into() });
    }

    /// The run as others are told of it.
    fn info(&self) -> TaskInfo {
        TaskInfo::new(TaskId::next(), "Frozen::run", self.site)
    }

    /// No step begins any more, because of this, unless there was another reason before.
    #[cold]
    fn stop(&self, why: Error) {
        let unused = {
            let mut ending = self.ending.lock();
            if ending.is_over || ending.failure.is_some() { Some(why) } else { ending.failure.replace(why) }
        };
        self.is_stopped.store(true, Relaxed);
        // Perhaps a user's: not under the lock.
        quietly(|| drop(unused));
    }

    fn spawn_runner(self: &Arc<Self>) {
        static SITE: CallSite = CallSite::new("Frozen::run");
        spawn::spawn_beside(
            Runner { session: self.clone(), lane: None, patience: Vec::new(), task: None, has_left: false },
            &SITE,
            &self.pool,
        );
    }

    /// There is more to do here than one runner does.
    #[inline]
    fn call_for_help(self: &Arc<Self>) {
        let most = self.pool.processors.len() as u32;
        if most > 1 && self.runners.are_few(most) {
            self.get_help(most);
        }
    }

    #[cold]
    fn get_help(self: &Arc<Self>, most: u32) {
        if self.runners.add(most) {
            self.spawn_runner();
        }
    }

    /// A queue for a new runner, those that have something first. There is one for each runner that there may be, and who leaves
    /// gives its own back before it is counted out; so one is free, though it may be another one at each look.
    fn take_lane(&self) -> (usize, Worker<u32>) {
        let take = |index: usize| {
            let queue = self.lanes[index].queue.lock().take()?;
            self.lanes[index].pace.works.store(true, Relaxed);
            Some((index, queue))
        };
        let mut full = (0..self.lanes.len()).filter(|&index| !self.lanes[index].stealer.is_empty());
        let mut found = full.find_map(take);
        let mut round = 0;
        loop {
            if let Some(found) = found.take() {
                return found;
            }
            relax(round);
            round += 1;
            found = (0..self.lanes.len()).find_map(take);
        }
    }

    /// There is a step for whoever comes.
    fn has_ready(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.stealer.is_empty())
    }

    /// A runner has nothing to do any more.
    fn leave(self: &Arc<Self>) {
        self.runners.rest();
        if self.has_ready() && !self.is_stopped.load(Relaxed) {
            self.get_help(self.pool.processors.len() as u32);
        }
        if self.runners.leave() {
            self.end();
        }
    }

    /// The last runner has left.
    fn end(&self) {
        let frozen = &*self.frozen;
        let mut queues: Vec<Worker<u32>> = Vec::with_capacity(self.lanes.len());
        queues.extend(self.lanes.iter().filter_map(|lane| lane.queue.lock().take()));
        if self.is_stopped.load(Acquire) {
            queues.iter().for_each(|queue| while queue.pop().is_some() {});
            frozen.steps.iter().for_each(|step| step.missing.reset());
        }
        let time = self.began.elapsed();
        {
            let mut kept = frozen.kept.lock();
            kept.queues = queues;
            if self.pool.processors.len() > 1 && !self.is_stopped.load(Relaxed) {
                kept.ways.add(time);
            }
        }
        let (places, failure) = {
            let mut ending = self.ending.lock();
            (std::mem::take(&mut ending.places), ending.failure.clone())
        };
        let outcome = match &failure {
            None => Outcome::Wrote,
            Some(failure) if self.has_begun.load(Relaxed) => Outcome::Failed(failure),
            Some(_) => Outcome::Void,
        };
        // From here on another run may have the graph.
        places.end(ChunkCell::core_of(&frozen.turn.0), outcome);
        let waker = {
            let mut ending = self.ending.lock();
            ending.is_over = true;
            ending.waker.take()
        };
        if let Some(waker) = waker {
            quietly(|| waker.wake());
        }
    }

    /// Looks at the lanes of others. `own`: the one of the caller, if it has one.
    fn look(&self, own: Option<usize>, patience: &mut Vec<Patience>) -> Look {
        if self.is_shared || self.pool.has_work_beside() {
            return if self.has_ready() { Look::Ready } else { Look::Nothing };
        }
        patience.resize(self.lanes.len(), Patience::NEW);
        let now = Instant::now();
        let (mut is_ready, mut works, mut is_slow) = (false, false, false);
        for (index, (lane, patience)) in self.lanes.iter().zip(patience).enumerate() {
            if own == Some(index) {
                continue;
            }
            is_ready |= !lane.stealer.is_empty();
            if lane.pace.works.load(Relaxed) {
                works = true;
                is_slow |= patience.is_slow(lane.pace.called.load(Relaxed), SLOW, now);
            }
        }
        match is_ready {
            false => Look::Nothing,
            true if is_slow || !works => Look::Ready,
            true => Look::LeftAlone,
        }
    }

    /// Waits until a runner that has no lane is needed. Otherwise, after a while: whether it will not be.
    fn join(&self, patience: &mut Vec<Patience>) -> std::result::Result<(), bool> {
        if self.is_shared || !self.has_runner.swap(true, Relaxed) {
            return Ok(());
        }
        let mut is_over = false;
        // The first one is about to take its lane, perhaps.
        let mut was_ready = false;
        for look in 0..LOOKS {
            match self.look(None, patience) {
                Look::Ready if was_ready => return Ok(()),
                Look::Ready => (was_ready, is_over) = (true, false),
                Look::LeftAlone => (was_ready, is_over) = (false, false),
                Look::Nothing => (was_ready, is_over) = (false, true),
            }
            spin(if is_over { 1 << (look / 4) } else { REST });
        }
        Err(is_over)
    }

    /// A step of another runner's queue. Otherwise, after a while: whether there is none, or some that are left to others.
    #[cold]
    fn steal(
        self: &Arc<Self>,
        own: usize,
        queue: &Worker<u32>,
        patience: &mut Vec<Patience>,
    ) -> std::result::Result<u32, bool> {
        let works = &self.lanes[own].pace.works;
        works.store(false, Relaxed);
        let mut is_over = false;
        for look in 0..LOOKS {
            let is_alone = self.runners.is_alone();
            match self.look(Some(own), patience) {
                Look::Ready => {
                    for offset in 1..self.lanes.len() {
                        let lane = &self.lanes[(own + offset) % self.lanes.len()];
                        if self.is_shared && (1..FEW).contains(&lane.stealer.len()) {
                            // Its runner will have come to it by the time that it were here, unless what it calls takes long.
                            spin(GRACE);
                        }
                        if let Some(step) = self.steal_from(&lane.stealer, queue) {
                            works.store(true, Relaxed);
                            return Ok(step);
                        }
                    }
                }
                Look::LeftAlone => {
                    is_over = false;
                    spin(REST);
                    continue;
                }
                Look::Nothing => {}
            }
            is_over = true;
            if is_alone {
                break;
            }
            // More and more seldom: who looks takes the line from who works there.
            spin(1 << (look / 4));
        }
        Err(is_over)
    }

    fn steal_from(self: &Arc<Self>, other: &Stealer<u32>, queue: &Worker<u32>) -> Option<u32> {
        loop {
            match other.steal_batch_and_pop(queue) {
                Steal::Success(step) => {
                    // More than one can do at once: for a third one.
                    if self.has_ready() {
                        self.call_for_help();
                    }
                    return Some(step);
                }
                Steal::Retry => std::hint::spin_loop(),
                Steal::Empty => return None,
            }
        }
    }

    /// Runs steps until there are none (true), or it is the turn of others.
    fn work(self: &Arc<Self>, own: usize, queue: &Worker<u32>, patience: &mut Vec<Patience>) -> bool {
        let frozen = &*self.frozen;
        let began = Instant::now();
        let all_called = &self.lanes[own].pace.called;
        let mut called = all_called.load(Relaxed);
        if !self.has_begun.load(Relaxed) && !self.is_stopped.load(Relaxed) {
            self.has_begun.store(true, Relaxed);
        }
        let mut next = None;
        loop {
            let step = match next.take().or_else(|| queue.pop()) {
                Some(step) => step,
                None => match self.steal(own, queue, patience) {
                    Ok(step) => step,
                    Err(is_over) => return is_over,
                },
            };
            if self.is_stopped.load(Relaxed) {
                continue;
            }
            if let Err(stop) = self.call(step) {
                self.stop(stop.into_error(|| frozen.tasks[step as usize].task.clone()));
                continue;
            }
            let mut has_more = false;
            for &successor in frozen.successors(step) {
                if frozen.steps[successor as usize].is_ready_now()
                    && let Some(other) = next.replace(successor)
                {
                    queue.push(other);
                    has_more = true;
                }
            }
            if has_more {
                self.call_for_help();
            }
            called += 1;
            all_called.store(called, Relaxed);
            if called.is_multiple_of(LOOK_EVERY) && began.elapsed() > TURN {
                next.into_iter().for_each(|step| queue.push(step));
                return false;
            }
        }
    }

    /// Calls a step that was taken by this runner.
    #[inline]
    fn call(&self, step: u32) -> std::result::Result<(), Stop> {
        let this = &self.frozen.steps[step as usize];
        let task = self.recorded.as_ref().map(|ids| ids[step as usize].get());
        if let Some(task) = task {
            record::note(|| What::Start { task });
        }
        // SAFETY: a step is ready once in each run, and taken by one runner (`Step`).
        let called = unsafe { &mut *this.call.get() }.call();
        if let Some(task) = task {
            let end = if called.is_ok() { End::Done } else { End::Failed };
            record::note(|| What::End { task, end });
        }
        if !self.frozen.moves.is_empty() {
            self.frozen.moves(step).for_each(|chunk| chunk.lock().forget_elements());
        }
        called
    }
}

/// Writes down the steps of a run as tasks, with what each comes after.
#[cold]
fn note_spawns(frozen: &Inner) -> Box<[TaskId]> {
    let parent = local::with(|local| local.task()).map_or(0, |task| task.id.get());
    let ids: Box<[TaskId]> = frozen.steps.iter().map(|_| TaskId::next()).collect();
    for (step, (id, task)) in ids.iter().zip(&frozen.tasks).enumerate() {
        local::with(|local| local.queue().into_iter().for_each(|frame| frame.notice(*id)));
        let spawn = || What::Spawn { task: id.get(), parent, name: task.name.clone(), site: task.site };
        record::note(spawn);
        for &before in frozen.order.predecessors(step) {
            let (task, input) = (id.get(), ids[before as usize].get());
            record::note(|| What::After { task, input, cause: Cause::Order });
        }
    }
    ids
}

impl Users for Session {
    fn visit(&self, visit: &mut dyn FnMut(RawTask)) {
        self.tasks.lock().iter().for_each(|task| visit(task.raw()));
    }
}

/// A task that takes part in a run.
pub(crate) struct Runner {
    session: Arc<Session>,
    /// From when it takes part to its end.
    lane: Option<(usize, Worker<u32>)>,
    /// With the runner of each lane.
    patience: Vec<Patience>,
    /// Itself, from its first poll on: while the task is in the list of the session that keeps it.
    task: Option<RawTask>,
    has_left: bool,
}

impl Runner {
    fn leave(&mut self) {
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        if let Some(task) = self.task.take() {
            self.session.tasks.lock().retain(|other| other.raw() != task);
        }
        if let Some((index, queue)) = self.lane.take() {
            let lane = &self.session.lanes[index];
            lane.pace.works.store(false, Relaxed);
            *lane.queue.lock() = Some(queue);
        }
        self.session.leave();
    }
}

// One that is dropped before its end: the runtime is being shut down.
impl Drop for Runner {
    fn drop(&mut self) {
        if !self.has_left {
            let session = &self.session;
            session.stop(Error::Shutdown { root: session.info().into() });
            self.leave();
        }
    }
}

impl Body for Runner {
    type Output = ();
    type Name = Runner;
    const ACCESSES: usize = 0;
    const WRITES: bool = false;

    fn link(&self, _: &mut Linker) {}
    fn inputs(&self, _: &mut dyn FnMut(RawTask)) {}
    fn scope(&self, _: &mut Option<Scope>) {}
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::result::Result<(), Stop>> {
        let this = &mut *self;
        if this.task.is_none() {
            this.task = local::with(|local| local.task());
            if let Some(task) = this.task {
                // Whoever waits for a chunk of the run waits for it.
                task.state.lock().set_awaited_by_task();
                this.session.tasks.lock().push(TaskRef::new(task));
            }
        }
        if this.lane.is_none() {
            match this.session.join(&mut this.patience) {
                Ok(()) => this.lane = Some(this.session.take_lane()),
                Err(true) => {
                    this.leave();
                    return Poll::Ready(Ok(()));
                }
                Err(false) => {}
            }
        }
        let is_over = match &this.lane {
            Some((index, queue)) => this.session.work(*index, queue, &mut this.patience),
            None => false,
        };
        if !is_over {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.leave();
        Poll::Ready(Ok(()))
    }
}

#[cfg(all(test, not(dagger_loom)))]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod tests {
    use super::*;
    use crate::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// Records a block whose runs are not shared.
    async fn alone(block: impl Future<Output = ()>) -> Frozen {
        let ((), frozen) = Frozen::record(block).await.unwrap();
        let workers = local::with(|local| local.pool().unwrap().processors.len());
        let mut kept = frozen.0.kept.lock();
        (kept.ways, kept.workers) = (Ways::ALONE, workers);
        drop(kept);
        frozen
    }

    fn runtime(workers: usize) -> Runtime {
        Runtime::builder().threads(workers).pin(false).build().unwrap()
    }

    #[test]
    fn a_run_that_is_left_to_one_gives_what_the_block_gives() {
        let mix = |a: &u64, b: &u64, x: &mut u64| *x = x.wrapping_mul(3) ^ a.wrapping_add(*b);
        for workers in [2, 4] {
            runtime(workers).block_on(async {
                let chunks: Vec<_> = (0..8).map(Chunk::new).collect();
                let mut expected: Vec<u64> = (0..8).collect();
                let places = |n: usize| (n * 3 % 8, (n * 5 + 1) % 8, (n * 7 + 2) % 8);
                let distinct = |n: &usize| {
                    let (a, b, x) = places(*n);
                    a != x && b != x
                };
                let frozen = alone(async {
                    for (a, b, x) in (0..500).filter(distinct).map(places) {
                        spawn!(mix(In(&chunks[a]), In(&chunks[b]), InOut(&chunks[x])); repeatable = true);
                    }
                })
                .await;
                for _ in 0..50 {
                    frozen.run().await.unwrap();
                }
                for _ in 0..51 {
                    for (a, b, x) in (0..500).filter(distinct).map(places) {
                        let (left, right) = (expected[a], expected[b]);
                        mix(&left, &right, &mut expected[x]);
                    }
                }
                for (chunk, expected) in chunks.iter().zip(expected) {
                    assert_eq!(*chunk.read().await.unwrap(), expected);
                }
            });
        }
    }

    #[test]
    fn tiny_steps_are_left_to_one_runner() {
        let runtime = runtime(2);
        runtime.block_on(async {
            let chunk = Chunk::new(0u64);
            let block = async {
                spawn!((|x: &mut u64| *x += 1)(InOut(&chunk)); repeatable = true);
            };
            let frozen = alone(block).await;
            runtime.idle().await;
            let (queue, other) = (Worker::new_lifo(), Worker::new_lifo());
            let lane = |queue: &Worker<u32>| Lane {
                stealer: queue.stealer(),
                queue: Mutex::default(),
                pace: CachePadded::default(),
            };
            let session = Session {
                lanes: [lane(&queue), lane(&other)].into(),
                runners: Runners::new(2),
                is_shared: false,
                began: Instant::now(),
                has_runner: AtomicBool::new(true),
                is_stopped: AtomicBool::new(false),
                ending: Mutex::default(),
                has_begun: AtomicBool::new(true),
                tasks: Mutex::default(),
                recorded: None,
                frozen: frozen.0.clone(),
                pool: local::with(|local| local.pool().unwrap().keep()),
                site: Location::caller(),
            };
            let pace = &session.lanes[0].pace;
            let mut patience = Vec::new();
            let mut look = |steps: u64| {
                pace.called.fetch_add(steps, Relaxed);
                session.look(Some(1), &mut patience)
            };
            pace.works.store(true, Relaxed);
            assert!(matches!(look(0), Look::Nothing), "no step is ready");
            queue.push(0);
            for _ in 0..100 {
                // Whatever the time between two looks is.
                assert!(matches!(look(1 << 40), Look::LeftAlone), "they are made fast");
            }
            let since = Instant::now();
            while since.elapsed() < 2 * SLOW {
                std::hint::spin_loop();
            }
            assert!(matches!(look(0), Look::Ready), "none was made meanwhile");
            assert!(matches!(look(1 << 40), Look::LeftAlone), "and on");
            pace.works.store(false, Relaxed);
            assert!(matches!(look(1 << 40), Look::Ready), "nobody is there who would take it");
            pace.works.store(true, Relaxed);
            assert!(matches!(look(1 << 40), Look::LeftAlone));
            // Who has something else to do does not watch.
            let release = Arc::new(AtomicUsize::new(0));
            let wait = |release: Arc<AtomicUsize>| {
                while release.load(SeqCst) == 0 {
                    std::thread::yield_now();
                }
            };
            let tasks: Vec<_> = (0..8).map(|_| spawn!(wait(release.clone()))).collect();
            assert!(matches!(look(1 << 40), Look::Ready), "six tasks wait for a worker");
            release.store(1, SeqCst);
            for task in tasks {
                task.await.unwrap();
            }
        });
    }

    /// Tiny steps one after the other, then some that go on only when all of them have begun; and so on.
    #[test]
    fn who_watches_takes_part_when_steps_take_long() {
        for workers in [2, 4] {
            runtime(workers).block_on(async {
                let there = Arc::new(AtomicUsize::new(0));
                let meet = move |_: &u64, found: &mut bool| {
                    let (mine, began) = (there.fetch_add(1, SeqCst), Instant::now());
                    let all = (mine / workers + 1) * workers;
                    while there.load(SeqCst) < all && began.elapsed() < Duration::from_secs(60) {
                        std::thread::yield_now();
                    }
                    *found = there.load(SeqCst) >= all;
                };
                let (count, found) = (Chunk::new(0u64), (0..workers).map(|_| Chunk::new(false)));
                let found: Vec<_> = found.collect();
                for tiny in [0, 1, 300] {
                    let frozen = alone(async {
                        for _ in 0..3 {
                            for _ in 0..tiny {
                                spawn!((|x: &mut u64| *x += 1)(InOut(&count)); repeatable = true);
                            }
                            for found in &found {
                                spawn!((meet.clone())(In(&count), InOut(found)); repeatable = true);
                            }
                        }
                    })
                    .await;
                    for _ in 0..30 {
                        frozen.run().await.unwrap();
                        for found in &found {
                            assert!(
                                std::mem::take(&mut *found.write().await.unwrap()),
                                "somebody did not come"
                            );
                        }
                    }
                }
            });
        }
    }

    #[test]
    fn a_run_that_is_left_to_one_can_fail_and_be_dropped() {
        runtime(4).block_on(async {
            let chunks: Vec<_> = (0..64).map(|_| Chunk::new(0u64)).collect();
            let step = |x: &mut u64, n: u64| {
                *x += 1;
                if *x == 5 && n == 70 { Err(std::fmt::Error) } else { Ok(()) }
            };
            let frozen = alone(async {
                for n in 0..640 {
                    spawn!(step(InOut(&chunks[n as usize % 64]), n)?; repeatable = true);
                }
            })
            .await;
            assert!(frozen.run().await.is_ok());
            for chunk in &chunks {
                *chunk.write().await.unwrap() = 3;
            }
            assert!(frozen.run().await.unwrap_err().downcast_ref::<std::fmt::Error>().is_some());
            for _ in 0..100 {
                let mut run = Box::pin(frozen.run());
                drop(futures::poll!(run.as_mut()));
                drop(run);
                for chunk in &chunks {
                    chunk.recover().await.unwrap();
                    *chunk.write().await.unwrap() = 20;
                }
            }
            frozen.run().await.unwrap();
            assert_eq!(*chunks[7].read().await.unwrap(), 30);
        });
    }
}
