//! [`Frozen`]: a datadeps block that was recorded whole, calls and all, and runs again without being issued.
//!
//! ```text
//!   record   block ─▶ tasks, as ever      each step is kept: a copy of its call, what it comes after
//!   run      a place at each chunk, in the queues ─▶ its turn ─▶ runners, at most one a worker
//!            runner: a ready step ─▶ call ─▶ successors' missing −= 1 ─▶ 0: ready
//!            nothing ready, the last runner leaves ─▶ the places are given back
//! ```
//! 1. From the outside a run is one access to each chunk, like that of a guard: others come before it or after it.
//! 2. While its places are granted, the order of the steps among themselves is the graph's alone.
//! 3. One run at a time: each has a place at a chunk that belongs to the graph (`turn`). Who has its turn there may use what
//!    the graph keeps between runs.
//!
//! What happens in a run is in `run.rs`; whether all workers share it, in `ways.rs`.

mod run;
mod ways;

use super::count::Missing;
use super::graph::{Graph, Recording, StepAccess, StepCall};
use super::{Issue, Issuing};
use crate::call::CallsAgain;
use crate::chunk::{
    self, Access, AnyChunk, Chunk, ChunkCell, Chunks, Core, CorePtr, GuardWait, Held, Hold,
    ListedPlaces as Listed, Mode, Other, Outcome, Places as Takes, Refusal, Ticket, Tickets,
};
use crate::error::{Error, Result, TaskInfo};
use crate::pool::{Pool, local};
use crate::scoped::Datadeps;
use crate::sync::prefetch;
use crate::task::Work;
use crossbeam_deque::Worker;
use dagger_core::record::Name;
use dagger_core::{Area, Order, Place};
use parking_lot::Mutex;
use run::Session;
use std::cell::UnsafeCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use ways::Ways;

/// A block of tasks that runs again and again without being issued: as fast as its functions, and some tens of nanoseconds for each.
///
/// [`record`](Frozen::record) runs a block once, as [`datadeps`](crate::datadeps()) does, and keeps what it has spawned: the
/// functions, their by-value arguments, and the order that their accesses give. [`run`](Frozen::run) calls all of it again. What
/// changes from run to run lies in chunks. The block itself does not run again: what it does beside spawning happens once, and
/// where it awaited something a run does not. A [`Plan`](crate::Plan) issues its block in every run, which takes new scalars
/// and closures and any task; a frozen graph costs a half to a tenth of that.
///
/// Every task of the block must be a call that can be made again and accesses a chunk: `spawn!(f(..); repeatable = true)`, where
/// function and by-value arguments are `Clone`. Not futures, results of tasks as arguments, scopes, timeouts; and not chunks with a
/// scope, fields, regions of your own kind and regions that may overlap depending on a length. A name is kept; priorities and
/// ranks give way to the graph's own, by the time that each step took when it was recorded.
///
/// **A run is one access to each of its chunks**, from the outside: it waits for its turn at all of them, and others wait until
/// it has ended. Runs of one graph follow each other, and so do those of several that share a chunk which one of them writes, in the
/// order of the calls of `run`. With a memory limit all chunks of a graph are in memory while it runs.
///
/// **Failure**: after the first step that fails no other begins. The run gives its error, with the task of the recording as root,
/// and all that the graph writes is poisoned, until it is recovered or overwritten as a whole (by a graph, if that is the first
/// that it does with the chunk). Dropping the future of a run cancels it in the same way, unless no step has begun.
///
/// The steps run on the workers of the runtime that `run` was called in, in turns with other tasks; to them
/// [`current`](crate::current()) is a task named `Frozen::run`. A step may spawn tasks and wait for them; it must not wait for another
/// step but by their accesses. While a recording is on each step is recorded like a task.
///
/// ```
/// use dagger_async::prelude::*;
/// fn sweep(u: &Vec<f64>, v: &mut Vec<f64>, step: f64) {
///     v.iter_mut().zip(u).for_each(|(v, u)| *v = u + step);
/// }
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let (u, v) = (Chunk::new(vec![0.0; 8]), Chunk::new(vec![0.0; 8]));
/// let ((), both) = Frozen::record(async {
///     spawn!(sweep(In(&u), Out(&v), 1.0); repeatable = true);
///     spawn!(sweep(In(&v), Out(&u), 1.0); repeatable = true);
/// }).await?;
/// for _ in 1..10 {
///     both.run().await?;
/// }
/// assert_eq!(u.read().await?[0], 20.0);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Frozen(Arc<Inner>);

/// What a graph keeps between its runs. By invariant 3 one run at a time has it.
struct Inner {
    steps: Box<[Step]>,
    /// The successors of each, one list behind the other; those for which most waits come last in their list.
    successors: Box<[u32]>,
    order: Order,
    /// Chunks whose elements are to be found anew after a step, for the steps that have such, in their order.
    moves: Box<[(u32, CorePtr)]>,
    /// Those that come after no other.
    sources: Box<[u32]>,
    /// In the order of their cores; `turn` is one of them.
    chunks: Box<[(CorePtr, Mode)]>,
    _owners: Box<[Arc<dyn AnyChunk>]>,
    /// Invariant 3.
    turn: Chunk<()>,
    /// The tasks that made the calls first.
    tasks: Box<[Recorded]>,
    kept: Mutex<Kept>,
    critical_path: Duration,
    work: Duration,
}

/// What a run leaves for the next.
struct Kept {
    /// Queues of ready steps, empty between runs.
    queues: Vec<Worker<u32>>,
    ways: Ways,
    /// With so many workers.
    workers: usize,
}

/// One call, and how many others it still waits for: a cache line.
#[repr(align(64))]
struct Step {
    missing: Missing,
    /// Where its successors begin in the list of all, and how many there are.
    successors: (u32, u32),
    call: UnsafeCell<Box<dyn CallsAgain>>,
}

// SAFETY: the call is `Send`, and used by the runner that has found the step ready: one in each run, and one run at a time.
unsafe impl Sync for Step {}

impl Step {
    /// One of its predecessors is over. True if that was the last one.
    #[inline]
    fn is_ready_now(&self) -> bool {
        let is_ready = self.missing.count_down();
        if is_ready {
            // It will be called soon, and here perhaps.
            // SAFETY: only the address of the call is read, which never changes.
            prefetch(unsafe { &raw const **self.call.get() }.cast::<u8>());
        }
        is_ready
    }
}

/// The task that made the call of a step first.
struct Recorded {
    task: TaskInfo,
    name: Name,
    site: &'static Location<'static>,
}

impl Frozen {
    /// Runs a block and waits for its tasks, as [`datadeps`](crate::datadeps()) does, and freezes it. Gives what the block gives,
    /// too.
    ///
    /// # Errors
    /// The first failure of a task, as for a block; [`Error::Options`] if something in the block cannot be a step: it says what, and
    /// why.
    pub async fn record<F: Future>(body: F) -> Result<(F::Output, Frozen)> {
        let mut block = pin!(Datadeps::planned(body, Issue::freezing()));
        let output = poll_fn(|cx| block.as_mut().poll(cx)).await?;
        match block.issue().map(Issue::end) {
            Some(Issuing::Recording(recording)) => Ok((output, Frozen(Arc::new(Inner::new(*recording)?)))),
            _ => Err(too_large()),
        }
    }

    /// Runs all steps again. Takes its places at the chunks when it is called, like [`Chunk::read`], and begins when it is awaited
    /// (or spawned) and its turn has come. Until then it holds them, also against the next run: await it, spawn it or drop it.
    ///
    /// # Errors
    /// The failure of a step, or [`Error::Shutdown`]; [`Error::Poisoned`] and [`Error::Taken`] if a chunk cannot be used;
    /// [`Error::Deadlock`] inside a task that holds what it would wait for.
    #[track_caller]
    pub fn run(&self) -> FrozenRun {
        FrozenRun::new(&self.0, Location::caller())
    }

    /// How many steps a run has.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.0.steps.len()
    }

    /// How long a run takes at least, however many processors there are, by the times that were measured when it was recorded.
    #[must_use]
    pub fn critical_path(&self) -> Duration {
        self.0.critical_path
    }

    /// How long its steps took one after the other when they were recorded.
    #[must_use]
    pub fn work(&self) -> Duration {
        self.0.work
    }
}

impl fmt::Debug for Frozen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { steps, chunks, critical_path, work, .. } = &*self.0;
        let mut fields = f.debug_struct("Frozen");
        fields.field("steps", &steps.len()).field("chunks", &(chunks.len() - 1));
        fields.field("critical_path", critical_path).field("work", work).finish()
    }
}

fn too_large() -> Error {
    let message = "a frozen graph has at most 2³⁰ steps, and 65,534 chunks: freeze parts of the block";
    Error::Options { root: None, message: message.into() }
}

impl Inner {
    /// Those that come directly after a step; the one for which most waits is the last.
    #[inline]
    fn successors(&self, step: u32) -> &[u32] {
        let (first, count) = self.steps[step as usize].successors;
        &self.successors[first as usize..][..count as usize]
    }

    /// The queue of the chunk with this number will soon be changed here.
    #[inline]
    fn prefetch(&self, chunk: usize) {
        if let Some((chunk, _)) = self.chunks.get(chunk) {
            prefetch(chunk.as_ptr());
        }
    }

    /// The chunks whose elements are to be found anew after a step.
    fn moves(&self, step: u32) -> impl Iterator<Item = CorePtr> {
        let first = self.moves.partition_point(|&(at, _)| at < step);
        self.moves[first..].iter().take_while(move |&&(at, _)| at == step).map(|&(_, chunk)| chunk)
    }

    fn new(mut recording: Recording) -> Result<Inner> {
        let calls = recording.take_calls()?;
        let graph = recording.finish()?.unwrap_or_default();
        let (count, order) = (graph.steps.len(), &graph.order);
        if graph.ranking.is_partial {
            let message =
                "a task of the block has failed, or was skipped, and the block went on: it cannot be frozen";
            return Err(Error::Options { root: None, message: message.into() });
        }
        // A place for the graph itself, and each has a number of 16 bits, from 1.
        if graph.chunks.len() >= usize::from(u16::MAX) {
            return Err(too_large());
        }
        let mut modes: Vec<Option<Mode>> = vec![None; graph.chunks.len()];
        let mut steps = Vec::with_capacity(count);
        let mut tasks = Vec::with_capacity(count);
        let (mut successors, mut all_moves) = (Vec::new(), Vec::new());
        for (number, StepCall { call, task, name, site }) in calls.into_iter().enumerate().take(count) {
            for access in graph.accesses(number) {
                let mode = &mut modes[access.index as usize];
                *mode = Some(mode_of_all(*mode, access));
            }
            let moved = graph.accesses(number).iter().filter(|access| moves(access));
            all_moves.extend(moved.map(|access| (number as u32, access.chunk)));
            let first = successors.len();
            successors.extend(order.successors(number).iter().rev());
            steps.push(Step {
                missing: Missing::new(order.predecessors(number).len() as u32),
                successors: (first as u32, (successors.len() - first) as u32),
                call: UnsafeCell::new(call),
            });
            tasks.push(Recorded { task, name, site });
        }
        let sources =
            (0..steps.len()).filter(|&step| steps[step].missing.is_source()).map(|step| step as u32);
        let turn = Chunk::new(());
        let Graph { chunks, order, ranking, .. } = graph;
        let accesses = chunks.iter().zip(modes).map(|(chunk, mode)| (chunk.core, mode.unwrap_or(Mode::In)));
        let mut accesses: Vec<_> = accesses.chain([(ChunkCell::core_of(&turn.0), Mode::InOut)]).collect();
        accesses.sort_by_key(|&(core, _)| core);
        let owners = chunks.into_iter().map(|chunk| chunk.owner);
        Ok(Inner {
            sources: sources.collect(),
            steps: steps.into(),
            successors: successors.into(),
            order,
            moves: all_moves.into(),
            chunks: accesses.into(),
            _owners: owners.collect(),
            turn,
            tasks: tasks.into(),
            kept: Mutex::new(Kept { queues: Vec::new(), ways: Ways::NEW, workers: 0 }),
            critical_path: Duration::from_nanos(ranking.critical_path),
            work: Duration::from_nanos(ranking.work),
        })
    }
}

/// How a run accesses a chunk, by one more of its steps. What is overwritten as a whole before it is read needs not be sound.
fn mode_of_all(before: Option<Mode>, access: &StepAccess) -> Mode {
    match (before, access.mode) {
        (None, Mode::Out) if access.part.is_none() => Mode::Out,
        (None | Some(Mode::In), Mode::In) => Mode::In,
        (Some(Mode::Out), _) => Mode::Out,
        _ => Mode::InOut,
    }
}

/// Whether the elements of a chunk may lie elsewhere after this access: as for a task (`Held::release`).
fn moves(access: &StepAccess) -> bool {
    !access.silent && access.mode.writes() && !matches!(access.part.as_deref(), Some(Area::Grid(_)))
}

/// All chunks of a graph.
pub(super) struct Everything(Arc<Inner>);

impl Takes for Everything {
    type Guards = Vec<Hold>;

    fn held(&self) -> std::result::Result<Vec<Held>, Refusal> {
        let held = |(number, &(core, mode)): (usize, &(CorePtr, Mode))| {
            let mut held = Held::new(core, mode, None, false);
            held.set_argument(number as u16 + 1);
            held
        };
        Ok(self.0.chunks.iter().enumerate().map(held).collect())
    }

    fn guards(self, holds: Vec<Hold>) -> Result<Vec<Hold>> {
        Ok(holds)
    }
}

/// The future of [`Frozen::run`].
#[must_use = "it holds its places until it is awaited or dropped"]
pub struct FrozenRun {
    state: State,
    frozen: Arc<Inner>,
    pool: Arc<Pool>,
    site: &'static Location<'static>,
    /// What its places are told by.
    wait: Arc<GuardWait>,
}

enum State {
    Waiting(Access<Everything>),
    /// Nobody was there.
    Granted(AtRest),
    Running(Arc<Session>),
    Over,
}

impl FrozenRun {
    fn new(frozen: &Arc<Inner>, site: &'static Location<'static>) -> FrozenRun {
        let pool = local::with(|local| local.pool().unwrap_or_else(|| crate::runtime::default_pool()).keep());
        let wait = GuardWait::new();
        let (state, wait) = match AtRest::take(frozen, &wait, site) {
            Some(places) => (State::Granted(places), wait),
            None => {
                let access = Access::taken_at(Everything(frozen.clone()), site);
                let wait = access.wait().clone();
                (State::Waiting(access), wait)
            }
        };
        FrozenRun { state, frozen: frozen.clone(), pool, site, wait }
    }

    fn begin(&mut self, places: Places) {
        let session = Session::start(self.frozen.clone(), self.pool.clone(), self.site, places, &self.wait);
        self.state = State::Running(session);
    }
}

impl Future for FrozenRun {
    type Output = Result<()>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = &mut *self;
        if !matches!(this.state, State::Running(_)) {
            refuse_inside_a_recording();
        }
        match &mut this.state {
            State::Waiting(access) => {
                let holds = ready!(Pin::new(access).poll(cx));
                this.state = State::Over;
                this.begin(Places::Guards(holds?));
            }
            State::Granted(_) => {
                if let State::Granted(places) = std::mem::replace(&mut this.state, State::Over) {
                    this.begin(Places::AtRest(places));
                }
            }
            State::Running(_) | State::Over => {}
        }
        let State::Running(session) = &this.state else { return Poll::Pending }; // Polled after its end.
        let outcome = ready!(session.poll_over(cx));
        this.state = State::Over;
        Poll::Ready(outcome)
    }
}

/// A run is no task, so a graph that is being recorded here would lose it.
fn refuse_inside_a_recording() {
    local::with(|local| {
        if let Some(frame) = local.queue() {
            frame.refuse_to_freeze("the run of another one is no task: record its block anew");
        }
    });
}

impl Drop for FrozenRun {
    fn drop(&mut self) {
        if let State::Running(session) = &self.state {
            session.cancel();
        }
    }
}

impl fmt::Debug for FrozenRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Granted(_) | State::Waiting(_) => "waiting",
            State::Running(_) => "running",
            State::Over => "over",
        };
        write!(f, "FrozenRun({state})")
    }
}

impl Chunks for Inner {
    fn visit(&self, visit: &mut dyn FnMut(&Core, Mode)) {
        self.chunks.iter().for_each(|(core, mode)| visit(core, *mode));
    }
}

/// What a run holds.
#[derive(Default)]
enum Places {
    #[default]
    Nothing,
    Guards(Vec<Hold>),
    AtRest(AtRest),
}

impl Places {
    /// Gives everything back as this says, but the chunk that says whose turn it is, which nothing poisons.
    fn end(self, turn: CorePtr, outcome: Outcome<'_>) {
        let outcome = |chunk| if chunk == turn { Outcome::Wrote } else { outcome };
        match self {
            Places::Nothing => {}
            Places::Guards(holds) => holds.into_iter().for_each(|hold| {
                let chunk = hold.chunk().unwrap_or(turn);
                hold.end(outcome(chunk));
            }),
            Places::AtRest(places) => places.give_each(outcome),
        }
    }
}

/// Places at all chunks of a graph that were taken when nobody was there: most runs begin and end so.
struct AtRest {
    frozen: Arc<Inner>,
    /// At the first chunks, in their order.
    places: Vec<Place>,
    /// Not while the places are being taken.
    _listed: Option<Listed>,
}

/// How many chunks before its turn the line of one is asked for.
const AHEAD: usize = 6;

impl AtRest {
    fn take(frozen: &Arc<Inner>, wait: &Arc<GuardWait>, site: &'static Location<'static>) -> Option<AtRest> {
        let ticket = Ticket::other(Other::Guard(wait.clone(), 0)); // Told nothing: they are granted at once.
        let places = Vec::with_capacity(frozen.chunks.len());
        let mut this = AtRest { frozen: frozen.clone(), places, _listed: None };
        // One after the other: whoever comes in between waits there until this gives everything back, by its drop.
        for (at, (chunk, mode)) in frozen.chunks.iter().enumerate() {
            frozen.prefetch(at + AHEAD);
            this.places.push(chunk::take_at_rest(*chunk, &ticket, mode.writes())?);
        }
        let chunks: Weak<Inner> = Arc::downgrade(frozen);
        this._listed = Some(Listed::many(chunks, site));
        Some(this)
    }

    fn give(&mut self, mut give: impl FnMut(&Inner, usize, Place, &mut Tickets)) {
        let mut work = Work::new();
        for (at, place) in std::mem::take(&mut self.places).into_iter().enumerate() {
            give(&self.frozen, at, place, &mut work.tickets);
            work.drain();
        }
    }

    fn give_each<'a>(mut self, outcome: impl Fn(CorePtr) -> Outcome<'a>) {
        self.give(|frozen, at, place, tickets| {
            frozen.prefetch(at + AHEAD);
            let (chunk, mode) = frozen.chunks[at];
            match outcome(chunk) {
                Outcome::Wrote => chunk::give_idle(chunk, place, mode.writes(), tickets),
                other => Held::with_place(chunk, mode, place).release(other, tickets),
            }
        });
    }
}

// Of one that was not used.
impl Drop for AtRest {
    fn drop(&mut self) {
        self.give(|frozen, at, place, tickets| {
            chunk::give_idle(frozen.chunks[at].0, place, false, tickets);
        });
    }
}
