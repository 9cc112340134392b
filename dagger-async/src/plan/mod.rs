//! [`Plan`]: a datadeps block that runs again and again, by the graph of its first run.
//!
//! ```text
//!   first run    spawns ─▶ queues of the chunks, as ever        each spawn is noted: site, accesses
//!                end    ─▶ Graph: which step comes after which
//!   later runs   a place at each chunk, at once ─▶ Run
//!                spawn  ─▶ the same step? ─▶ inputs counted along the graph: no queue, no region is looked at
//!                other  ─▶ mismatch: the rest of this run as ever
//! ```
//! 1. A run by the graph gives what a run without it gives: steps are matched one by one, and what is not the same goes to
//!    the queues, behind the places of the run.
//! 2. From the outside a run by the graph is one access to each chunk: others come before it or after it. Therefore it
//!    is left as soon as somebody comes to wait behind it, on whom its body might wait.
//! 3. One run at a time; who comes too early gets an error.

mod count;
mod frozen;
mod graph;
mod run;
mod times;

pub use frozen::{Frozen, FrozenRun};
pub(crate) use run::Run;
pub(crate) use times::Timed;

use crate::chunk::Held;
use crate::error::{Error, Result, quietly};
use crate::options::{Inherited, Spec};
use crate::pool::local;
use crate::record;
use crate::scoped::Datadeps;
use crate::task::{Linker, RawTask, TaskRef};
use graph::{Graph, Recording};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use times::Times;

/// How often a ranked plan records anew because steps have failed.
const PARTIAL_MAX: u32 = 2;

/// A block of tasks that runs more than once: the same spawns on the same chunks, with new scalars and closures.
///
/// The first [`run`](Plan::run) records the order of its tasks. Later ones issue the block again; each spawn that accesses
/// chunks is compared with the one recorded at its position (call site, chunks, regions, modes), and if it is the same its
/// predecessors are known: no queue is entered and no region looked at. Spawns without accesses to chunks do not matter.
///
/// What differs falls back to a normal run from there on, with the same result; the run after it records anew. A run falls
/// back for its rest, too, when somebody else comes to wait for one of its chunks (a guard, a task outside the plan); and from the start when others access its chunks at that
/// moment, or a recording is on. All of these, and runs that end before the last recorded step, are counted in [`stats`](Plan::stats).
///
/// Results, errors, cancellation and poison are those of a [`datadeps`](crate::datadeps()) block. A plan keeps the chunks
/// that it has recorded. Chunks with a scope, fields, regions of your own kind, and accesses of one task that may overlap
/// depending on a length are not planned: a block with such runs normally every time, and a warning (`tracing`, target `dagger`) says once
/// which task it is.
///
/// ```
/// use dagger_async::prelude::*;
/// fn sweep(u: &Vec<f64>, v: &mut Vec<f64>, step: usize) {
///     v.iter_mut().zip(u).for_each(|(v, u)| *v = u + step as f64);
/// }
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let (u, v) = (Chunk::new(vec![0.0; 8]), Chunk::new(vec![0.0; 8]));
/// let plan = Plan::new();
/// for step in 0..10 {
///     plan.run(async {
///         spawn!(sweep(In(&u), Out(&v), step));
///         spawn!(sweep(In(&v), Out(&u), step));
///     }).await?;
/// }
/// assert_eq!(u.read().await?[0], 90.0);
/// assert_eq!((plan.stats().runs, plan.stats().replayed), (10, 18));
/// # Ok(()) }
/// ```
#[derive(Default)]
pub struct Plan(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Its steps are timed, and have ranks by that.
    is_ranked: bool,
    /// Runs that have recorded without the times of all steps.
    partial: AtomicU32,
    phase: Mutex<Phase>,
    runs: AtomicU64,
    replayed: AtomicU64,
    mismatches: AtomicU64,
    contended: AtomicU64,
    left: AtomicU64,
    shorter: AtomicU64,
    unplanned: AtomicU64,
    /// Somebody was told why the block cannot be planned.
    is_told: AtomicBool,
}

#[derive(Default)]
enum Phase {
    #[default]
    Empty,
    /// With the last run by it, if all its steps were completed.
    Recorded(Arc<Graph>, Option<Arc<Run>>),
    Running,
}

/// What became of the runs of a [`Plan`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PlanStats {
    /// Spawns that the recorded block has, of those that access chunks; 0 when nothing is recorded.
    pub steps: usize,
    /// Runs that have begun.
    pub runs: u64,
    /// Spawns, over all runs, that followed the graph.
    pub replayed: u64,
    /// Runs that left the graph because a spawn was another one than recorded.
    pub mismatches: u64,
    /// Runs that left the graph because others came to wait for its chunks.
    pub left: u64,
    /// Runs that did not begin by the graph because others accessed its chunks at that moment.
    pub contended: u64,
    /// Runs that followed the graph and ended before its last step. It is kept.
    pub shorter: u64,
    /// Runs of a block that could not be planned, and runs while there was a recording on.
    pub unplanned: u64,
    /// How long the recorded block is expected to take at least, however many processors there are; zero unless the plan is
    /// [`ranked`](Plan::ranked) and something is recorded.
    pub critical_path: Duration,
    /// How long its steps are expected to take one after the other; zero as above.
    pub work: Duration,
}

impl Plan {
    /// A plan that has recorded nothing.
    #[must_use]
    pub fn new() -> Plan {
        Plan::default()
    }

    /// A plan that has recorded nothing, and gives its steps ranks.
    ///
    /// A run that records measures how long each step takes. The rank of a step is the longest way from its start to the end of
    /// the plan, so the larger it is the more waits for the step. Later runs give each step that has no
    /// [`rank`](crate::Options::rank) of its own one of 1 to 8 in proportion to that. It orders the steps among themselves; tasks
    /// without a rank have every other turn beside them. What leaves the graph has none.
    ///
    /// Worth it where more is ready than there are processors and a step takes many microseconds: a task with a rank costs some
    /// 200 ns more. Without it a plan ranks too, every step counting the same, but only to choose which of those that a step's
    /// end makes ready runs next. A run in which steps fail measures less than all; up to two such are recorded anew.
    ///
    /// ```
    /// use dagger_async::prelude::*;
    /// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
    /// let (a, b) = (Chunk::new(0_u64), Chunk::new(0_u64));
    /// let plan = Plan::ranked();
    /// for _ in 0..3 {
    ///     plan.run(async {
    ///         spawn!((|a: &mut u64| *a += 1)(InOut(&a)));
    ///         spawn!((|a: &u64, b: &mut u64| *b += a)(In(&a), InOut(&b)));
    ///     }).await?;
    /// }
    /// let stats = plan.stats();
    /// assert!(stats.critical_path == stats.work && !stats.work.is_zero()); // one after the other
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn ranked() -> Plan {
        Plan(Arc::new(Inner { is_ranked: true, ..Inner::default() }))
    }

    /// Runs a block, as [`datadeps`](crate::datadeps()) does.
    ///
    /// # Errors
    /// The first failure of a task, as for a block; [`Error::Options`] if the plan is running already.
    pub fn run<F: Future>(&self, body: F) -> PlanRun<F> {
        let block = Datadeps::planned(body, Issue::new(self.0.is_ranked));
        PlanRun { plan: self.0.clone(), state: State::New, block }
    }

    /// What became of the runs so far.
    #[must_use]
    pub fn stats(&self) -> PlanStats {
        let (steps, critical_path, work) = match &*self.0.phase.lock() {
            Phase::Recorded(graph, _) => (graph.steps.len(), graph.ranking.critical_path, graph.ranking.work),
            Phase::Empty | Phase::Running => (0, 0, 0),
        };
        let (critical_path, work) = (Duration::from_nanos(critical_path), Duration::from_nanos(work));
        let counted = |count: &AtomicU64| count.load(Relaxed);
        PlanStats {
            steps,
            runs: counted(&self.0.runs),
            replayed: counted(&self.0.replayed),
            mismatches: counted(&self.0.mismatches),
            left: counted(&self.0.left),
            contended: counted(&self.0.contended),
            shorter: counted(&self.0.shorter),
            unplanned: counted(&self.0.unplanned),
            critical_path,
            work,
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plan").field(&self.stats()).finish()
    }
}

/// How the spawns of one run are issued. Used by the thread that polls the body of the run, or by its owner.
pub(crate) struct Issue {
    issuing: RefCell<Issuing>,
    /// That by the graph, if there is one, also when it was left.
    run: RefCell<Option<Arc<Run>>>,
    /// Its steps have options that come from here: they are timed, or have ranks by that.
    is_ranked: bool,
    /// The steps are recorded to be called again without being issued.
    is_freezing: bool,
}

#[derive(Default)]
enum Issuing {
    /// By the queues of the chunks.
    #[default]
    Normally,
    /// So too, and noted.
    Recording(Box<Recording>),
    /// By the graph.
    Following { run: Arc<Run>, next: usize },
    /// By the queues again, after so many steps by the graph.
    Left { why: Why, replayed: usize },
    /// The body has ended.
    Followed { replayed: usize },
}

/// Why a run leaves the graph.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Mismatch,
    Contested,
}

impl Issue {
    fn new(is_ranked: bool) -> Issue {
        Issue { issuing: RefCell::default(), run: RefCell::default(), is_ranked, is_freezing: false }
    }

    /// Records what is to be frozen.
    fn freezing() -> Issue {
        let issuing = RefCell::new(Issuing::Recording(Box::new(Recording::freezing())));
        Issue { issuing, run: RefCell::default(), is_ranked: true, is_freezing: true }
    }

    /// True if steps are recorded to be frozen.
    pub(crate) fn is_freezing(&self) -> bool {
        self.is_freezing
    }

    /// Looks whether a task that is being spawned can be a step of a frozen graph.
    #[cold]
    pub(crate) fn examine(&self, task: RawTask, has_accesses: bool, has_ties: bool) {
        let spec = task.spec.as_deref();
        let is_bound = spec.is_some_and(Spec::is_bound);
        let why = match () {
            () if !has_accesses => "it accesses no chunk",
            () if has_ties || spec.is_some_and(|spec| !matches!(spec.inherited, Inherited::Nothing)) => {
                "it has options of a block, or ties to other tasks: they would be forgotten"
            }
            () if is_bound => {
                "it has a scope, a timeout, or the options `blocking` or `memory`: they would be forgotten"
            }
            () => return,
        };
        self.refuse(Some(task), why);
    }

    /// What is recorded cannot be frozen, because of this task, if it is one.
    #[cold]
    pub(crate) fn refuse(&self, task: Option<RawTask>, why: &str) {
        if let Issuing::Recording(recording) = &mut *self.issuing.borrow_mut() {
            recording.refuse(task, why);
        }
    }

    /// True if steps are timed, or have ranks by that.
    pub(crate) fn is_ranked(&self) -> bool {
        self.is_ranked
    }

    /// How the step that is spawned now is timed, if it is.
    pub(crate) fn timed(&self) -> Option<Timed> {
        match &*self.issuing.borrow() {
            Issuing::Recording(recording) => recording.timed(),
            _ => None,
        }
    }

    /// The rank of the step that is to be spawned now: if another one is, its way through the lanes means nothing.
    pub(crate) fn rank_of_next(&self) -> Option<u8> {
        match &*self.issuing.borrow() {
            Issuing::Following { run, next } => run.graph().ranking.rank(*next),
            _ => None,
        }
    }

    /// True if the next spawn may be a step of a run by the graph.
    #[inline]
    pub(crate) fn is_following(&self) -> bool {
        matches!(*self.issuing.borrow(), Issuing::Following { .. })
    }

    /// The run by the graph, also when it was left.
    pub(crate) fn run(&self) -> Option<Arc<Run>> {
        self.run.borrow().clone()
    }

    /// The last step that was issued by the graph, if it is not over, and its place in the order of spawns.
    pub(crate) fn last_step(&self) -> Option<(u64, TaskRef)> {
        let issued = match *self.issuing.borrow() {
            Issuing::Following { next: issued, .. }
            | Issuing::Left { replayed: issued, .. }
            | Issuing::Followed { replayed: issued } => issued,
            Issuing::Normally | Issuing::Recording(_) => 0,
        };
        self.run()?.unlisted(issued.checked_sub(1)?)
    }

    /// Makes a task that is being spawned the next step of the run by the graph, if it is that. `at`: its place in the order of
    /// spawns, if the run is what knows of it.
    #[inline]
    pub(crate) fn follow(&self, task: RawTask, linker: &mut Linker, at: Option<u64>) -> bool {
        let (why, work) = match &mut *self.issuing.borrow_mut() {
            Issuing::Following { run, .. } if run.is_contested() => (Why::Contested, None),
            Issuing::Following { run, next } => {
                // SAFETY: the task is being spawned, by the caller.
                let accesses = unsafe { task.new_accesses() };
                if linker.refused.is_none() && run.matches(*next, task, accesses) {
                    match run.issue(*next, task, accesses, linker, at) {
                        Ok(()) => {
                            *next += 1;
                            return true;
                        }
                        Err(work) => (Why::Contested, Some(work)),
                    }
                } else {
                    (Why::Mismatch, None)
                }
            }
            _ => return false,
        };
        // Both tell others, and may drop what is foreign: not while this is borrowed.
        if let Some(mut work) = work {
            work.drain();
        }
        self.stop_following(|replayed| Issuing::Left { why, replayed });
        false
    }

    /// Notes a task that is being spawned and is no step by the graph, before it takes its places, if this is a recording.
    pub(crate) fn note(&self, task: RawTask) {
        // Clones what is a user's: before anything is borrowed.
        // SAFETY: the task is being spawned, by the caller.
        let copy = || catch_unwind(AssertUnwindSafe(|| unsafe { task.call_again() }));
        let copy = if self.is_freezing { copy() } else { Ok(None) };
        let copy = copy.map_err(|payload| quietly(|| drop(payload)));
        if let Issuing::Recording(recording) = &mut *self.issuing.borrow_mut() {
            // SAFETY: as above.
            recording.note(task, unsafe { task.new_accesses() });
            recording.keep(task, copy);
        }
    }

    /// The task that was noted has taken its places, or was refused.
    pub(crate) fn note_placed(&self, task: RawTask, is_refused: bool) {
        if let Issuing::Recording(recording) = &mut *self.issuing.borrow_mut() {
            // SAFETY: the task is being spawned, by the caller.
            let accesses = unsafe { task.new_accesses() };
            if is_refused || accesses.iter().any(Held::is_intricate) {
                recording.refuse_planning(task);
            }
        }
    }

    /// The body has ended: nothing more is issued.
    pub(crate) fn close(&self) {
        self.stop_following(|replayed| Issuing::Followed { replayed });
    }

    fn stop_following(&self, then: impl FnOnce(usize) -> Issuing) {
        let mut issuing = self.issuing.borrow_mut();
        let Issuing::Following { next, .. } = *issuing else { return };
        let followed = std::mem::replace(&mut *issuing, then(next));
        // Ending a run tells others, and may drop what is foreign: not while this is borrowed.
        drop(issuing);
        if let Issuing::Following { run, next } = followed {
            run.close(next);
        }
    }

    fn begin(&self, issuing: Issuing) {
        if let Issuing::Following { run, .. } = &issuing {
            drop(self.run.replace(Some(run.clone())));
        }
        drop(self.issuing.replace(issuing));
    }

    /// What it came to.
    fn end(&self) -> Issuing {
        self.issuing.take()
    }

    /// Gives up the run by the graph, and gives it if all its steps were issued, and are completed.
    fn take_run(&self) -> Option<Arc<Run>> {
        let issued = match *self.issuing.borrow() {
            Issuing::Followed { replayed } => Some(replayed),
            _ => None,
        };
        self.run.take().filter(|run| issued.is_some_and(|issued| run.is_whole(issued)))
    }
}

/// The future of [`Plan::run`].
#[must_use = "futures do nothing unless awaited"]
pub struct PlanRun<F: Future> {
    plan: Arc<Inner>,
    state: State,
    block: Datadeps<F>,
}

enum State {
    New,
    /// The graph that it began with.
    Begun(Option<Arc<Graph>>),
    Over,
}

impl<F: Future> Future for PlanRun<F> {
    type Output = Result<F::Output>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `block` is pinned when `self` is and only projected; the other fields are never pinned.
        let (plan, state, mut block) = unsafe {
            let this = self.get_unchecked_mut();
            (&this.plan, &mut this.state, Pin::new_unchecked(&mut this.block))
        };
        if matches!(state, State::New) {
            let (graph, before) = match std::mem::replace(&mut *plan.phase.lock(), Phase::Running) {
                Phase::Empty => (None, None),
                Phase::Recorded(graph, before) => (Some(graph), before),
                Phase::Running => return Poll::Ready(Err(is_running())),
            };
            *state = begin(plan, graph, before, block.issue());
        }
        let output = ready!(block.as_mut().poll(cx));
        end(plan, state, block.issue(), true);
        Poll::Ready(output)
    }
}

fn is_running() -> Error {
    let message = "the plan is running already: a plan has one run at a time; make another plan for what runs beside it";
    Error::Options { root: None, message: message.into() }
}

fn begin(plan: &Inner, graph: Option<Arc<Graph>>, before: Option<Arc<Run>>, issue: Option<&Issue>) -> State {
    plan.runs.fetch_add(1, Relaxed);
    // A recording finds the order by the places in the queues, which a run by the graph does not take.
    let followed = graph.as_ref().filter(|_| !record::is_on());
    let run = followed.and_then(|graph| {
        local::with(|local| {
            let pool = local.pool().unwrap_or_else(|| crate::runtime::default_pool());
            Run::start(graph, pool, before)
        })
    });
    let issuing = match (&graph, &run) {
        (_, Some(run)) => Issuing::Following { run: run.clone(), next: 0 },
        (Some(_), None) => {
            let counted = if followed.is_some() { &plan.contended } else { &plan.unplanned };
            counted.fetch_add(1, Relaxed);
            Issuing::Normally
        }
        (None, None) => {
            let times = plan.is_ranked.then(Arc::<Times>::default);
            Issuing::Recording(Box::new(Recording::new(times)))
        }
    };
    if let Some(issue) = issue {
        issue.begin(issuing);
    }
    State::Begun(graph)
}

/// The run has ended, or is dropped. `finished`: it has given a result.
fn end(plan: &Inner, state: &mut State, issue: Option<&Issue>, finished: bool) {
    let State::Begun(mut recorded) = std::mem::replace(state, State::Over) else { return };
    // A run that follows the graph still is closed here.
    let mut run = None;
    let issuing = issue.map_or(Issuing::Normally, |issue| {
        issue.close();
        // A block that is dropped looks at what is left of it.
        run = if finished { issue.take_run() } else { None };
        issue.end()
    });
    match issuing {
        Issuing::Recording(recording) if finished => {
            recorded = match recording.finish() {
                Ok(graph) => graph.map(Arc::new),
                Err(refused) => {
                    plan.unplanned.fetch_add(1, Relaxed);
                    if !plan.is_told.swap(true, Relaxed) {
                        quietly(
                            || tracing::warn!(target: "dagger", "a plan could not record its block, and runs it as `datadeps` does: {refused}"),
                        );
                    }
                    None
                }
            };
            if recorded.as_ref().is_some_and(|graph| graph.ranking.is_partial)
                && plan.partial.fetch_add(1, Relaxed) < PARTIAL_MAX
            {
                recorded = None;
            }
        }
        Issuing::Followed { replayed } => {
            plan.replayed.fetch_add(replayed as u64, Relaxed);
            let is_shorter = finished && recorded.as_ref().is_some_and(|graph| replayed < graph.steps.len());
            plan.shorter.fetch_add(u64::from(is_shorter), Relaxed);
        }
        Issuing::Left { why, replayed } => {
            plan.replayed.fetch_add(replayed as u64, Relaxed);
            match why {
                Why::Mismatch => {
                    plan.mismatches.fetch_add(1, Relaxed);
                    recorded = None;
                }
                Why::Contested => _ = plan.left.fetch_add(1, Relaxed),
            }
        }
        _ => {}
    }
    *plan.phase.lock() = recorded.map_or(Phase::Empty, |graph| Phase::Recorded(graph, run));
}

impl<F: Future> Drop for PlanRun<F> {
    fn drop(&mut self) {
        end(&self.plan, &mut self.state, self.block.issue(), false);
    }
}
