//! One run of a frozen graph.
//!
//! ```text
//!   runner   own steps (a stack) ─▶ call ─▶ ready successors ─▶ own steps
//!               └─ the oldest, while others find nothing ─▶ shared ◀── steal ─ another runner
//! ```
//! 1. A runner is a task that takes ready steps, its own ones or those that another one shares, until there are none. It leaves with
//!    its queue empty; so when the last one leaves no step is ready and none runs, and the run is over.
//! 2. A runner counts from its spawn. Only a runner spawns another, so that the count is zero once.
//! 3. A step becomes ready in the queue of the runner that has ended its last predecessor, and that runner does not leave before
//!    the step is taken: nobody has to be told, more runners are only more hands.
//! 4. While a runner calls a step and has others, some of them are shared: a long call keeps nobody from working.
//! 5. After a failure steps are taken and not called; what is left of the counts is put right by the last runner.

use super::count::Runners;
use super::{Inner, Places};
use crate::call::{Body, Stop};
use crate::chunk::ChunkCell;
use crate::error::{Error, Result, TaskInfo, quietly};
use crate::pool::{Pool, local};
use crate::record;
use crate::spawn;
use crate::sync::relax;
use crate::task::{CallSite, Linker, RawTask, TaskId, clone_to_leave};
use crossbeam_deque::{Steal, Stealer, Worker};
use dagger_core::Scope;
use dagger_core::record::{Cause, End, What};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed},
};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// How long a runner goes on before other tasks of its worker have a turn.
const TURN: Duration = Duration::from_micros(200);
/// After so many steps it looks at the clock.
const LOOK_EVERY: u32 = 32;
/// How many steps are shared at a time.
const SHARED_MAX: usize = 16;
/// How often a runner without a step looks at the queues of the others before it leaves: some microseconds.
const LOOKS: u32 = 24;

/// See the module.
pub(super) struct Session {
    frozen: Arc<Inner>,
    pool: Arc<Pool>,
    site: &'static Location<'static>,
    /// Invariant 2.
    runners: Runners,
    /// Nothing more is called.
    is_stopped: AtomicBool,
    /// One for each worker.
    lanes: Box<[Lane]>,
    ending: Mutex<Ending>,
    /// The ids of the steps in a recording that is on: from the first on, one after the other.
    recorded: Option<Box<[TaskId]>>,
}

/// A queue of ready steps, while no runner has it, and the end of it at which others take some.
struct Lane {
    queue: Mutex<Option<Queue>>,
    stealer: Stealer<u32>,
}

/// Ready steps.
pub(super) struct Queue {
    /// The newest is the next.
    own: VecDeque<u32>,
    /// Older ones, that others may take.
    shared: Worker<u32>,
}

impl Queue {
    fn new() -> Queue {
        Queue { own: VecDeque::new(), shared: Worker::new_fifo() }
    }

    fn pop(&mut self) -> Option<u32> {
        self.own.pop_back().or_else(|| self.shared.pop())
    }

    /// Shares some of the oldest if there are none that are.
    #[inline]
    fn share(&mut self) {
        if !self.own.is_empty() && self.shared.is_empty() {
            let count = self.own.len().div_ceil(2).min(SHARED_MAX);
            self.own.drain(..count).for_each(|step| self.shared.push(step));
        }
    }

    fn share_all(&mut self) {
        self.own.drain(..).for_each(|step| self.shared.push(step));
    }
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
    ) -> Arc<Session> {
        places.begin();
        let workers = pool.processors.len();
        let mut queues = std::mem::take(&mut *frozen.queues.lock());
        queues.resize_with(workers.max(queues.len()), Queue::new);
        // Neighbours stay together; each queue gives its first one first.
        let share = frozen.sources.len().div_ceil(workers).max(1);
        for (sources, queue) in frozen.sources.chunks(share).zip(&mut queues) {
            queue.own.extend(sources.iter().rev());
            queue.share_all();
        }
        let lane = |queue: Queue| Lane { stealer: queue.shared.stealer(), queue: Mutex::new(Some(queue)) };
        let runners = frozen.sources.len().min(workers) as u32;
        let session = Arc::new(Session {
            lanes: queues.into_iter().map(lane).collect(),
            runners: Runners::new(runners),
            is_stopped: AtomicBool::new(false),
            ending: Mutex::new(Ending { places, ..Ending::default() }),
            recorded: record::is_on().then(|| note_spawns(&frozen)),
            frozen,
            pool,
            site,
        });
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
        self.stop(|session| Error::Cancelled { root: session.info().into() });
    }

    /// The run as others are told of it.
    fn info(&self) -> TaskInfo {
        TaskInfo::new(TaskId::next(), "Frozen::run", self.site)
    }

    /// No step begins any more, because of this, unless there was another reason before.
    #[cold]
    fn stop(&self, why: impl FnOnce(&Session) -> Error) {
        {
            let mut ending = self.ending.lock();
            if ending.is_over {
                return;
            }
            if ending.failure.is_none() {
                ending.failure = Some(why(self));
            }
        }
        self.is_stopped.store(true, Relaxed);
    }

    fn spawn_runner(self: &Arc<Self>) {
        static SITE: CallSite = CallSite::new("Frozen::run");
        spawn::spawn_beside(Runner { session: self.clone(), lane: None, has_left: false }, &SITE, &self.pool);
    }

    /// There is more to do here than one runner does.
    #[inline]
    fn call_for_help(self: &Arc<Self>) {
        if self.runners.are_fewer_than(self.pool.processors.len()) {
            self.get_help();
        }
    }

    #[cold]
    fn get_help(self: &Arc<Self>) {
        if self.runners.add(self.pool.processors.len()) {
            self.spawn_runner();
        }
    }

    /// A queue for a new runner, those that have something first. There is one for each runner that there may be, and who leaves
    /// gives its own back before it is counted out; so one is free, though it may be another one at each look.
    fn take_lane(&self) -> (usize, Queue) {
        let take = |index: usize| Some((index, self.lanes[index].queue.lock().take()?));
        let full = (0..self.lanes.len()).filter(|&index| !self.lanes[index].stealer.is_empty());
        let mut found = full.into_iter().find_map(take);
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

    /// A runner has nothing to do any more.
    fn leave(&self) {
        if self.runners.leave() {
            self.end();
        }
    }

    /// The last runner has left.
    fn end(&self) {
        let frozen = &*self.frozen;
        let mut queues: Vec<Queue> = Vec::with_capacity(self.lanes.len());
        queues.extend(self.lanes.iter().filter_map(|lane| lane.queue.lock().take()));
        if self.is_stopped.load(Acquire) {
            queues.iter_mut().for_each(|queue| while queue.pop().is_some() {});
            frozen.steps.iter().for_each(|step| step.missing.reset());
        }
        *frozen.queues.lock() = queues;
        let (places, failure) = {
            let mut ending = self.ending.lock();
            (std::mem::take(&mut ending.places), ending.failure.clone())
        };
        // From here on another run may have the graph.
        places.end(ChunkCell::core_of(&frozen.turn.0), failure.as_ref());
        let waker = {
            let mut ending = self.ending.lock();
            ending.is_over = true;
            ending.waker.take()
        };
        if let Some(waker) = waker {
            quietly(|| waker.wake());
        }
    }

    /// A step of another runner's queue, or nothing after a while.
    #[cold]
    fn steal(&self, own: usize, queue: &mut Queue) -> Option<u32> {
        for look in 0..LOOKS {
            let is_alone = self.runners.is_alone();
            for offset in 1..self.lanes.len() {
                let lane = &self.lanes[(own + offset) % self.lanes.len()];
                while !lane.stealer.is_empty() {
                    match lane.stealer.steal_batch_and_pop(&queue.shared) {
                        Steal::Success(step) => return Some(step),
                        Steal::Retry => std::hint::spin_loop(),
                        Steal::Empty => break,
                    }
                }
            }
            if is_alone {
                return None;
            }
            // More and more seldom: who looks takes the line from who works there.
            for _ in 0..1 << (look / 4) {
                std::hint::spin_loop();
            }
        }
        None
    }

    /// Runs steps until there are none (true), or it is the turn of others.
    fn work(self: &Arc<Self>, own: usize, queue: &mut Queue) -> bool {
        let frozen = &*self.frozen;
        let began = Instant::now();
        let mut called = 0_u32;
        let mut next = None;
        loop {
            let Some(step) = next.take().or_else(|| queue.pop()).or_else(|| self.steal(own, queue)) else {
                return true;
            };
            if self.is_stopped.load(Relaxed) {
                continue;
            }
            if let Err(stop) = self.call(step) {
                self.stop(|_| stop.into_error(|| frozen.tasks[step as usize].task.clone()));
                continue;
            }
            for &successor in frozen.successors(step) {
                if frozen.steps[successor as usize].is_ready_now()
                    && let Some(other) = next.replace(successor)
                {
                    queue.own.push_back(other);
                }
            }
            if !queue.own.is_empty() {
                queue.share();
                self.call_for_help();
            }
            called += 1;
            if called.is_multiple_of(LOOK_EVERY) && began.elapsed() > TURN {
                queue.own.extend(next);
                queue.share_all();
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

/// A task that takes part in a run.
pub(crate) struct Runner {
    session: Arc<Session>,
    /// From its first poll to its end.
    lane: Option<(usize, Queue)>,
    has_left: bool,
}

impl Runner {
    fn leave(&mut self) {
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        if let Some((index, queue)) = self.lane.take() {
            *self.session.lanes[index].queue.lock() = Some(queue);
        }
        self.session.leave();
    }
}

// One that is dropped before its end: the runtime is being shut down.
impl Drop for Runner {
    fn drop(&mut self) {
        if !self.has_left {
            self.session.stop(|session| Error::Shutdown { root: session.info().into() });
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
        let (index, queue) = this.lane.get_or_insert_with(|| this.session.take_lane());
        if !this.session.work(*index, queue) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.leave();
        Poll::Ready(Ok(()))
    }
}
