//! One run of a plan by its graph: which steps are issued, and which wait for which.
//!
//! ```text
//!   start     a place at each chunk of the plan, if nobody is there
//!   issue     node names its task, missing −= 1: not 0? one more input         one more unfinished
//!   complete  successors' missing −= 1: 0? told      node names nobody         one less
//!   contest   somebody waits behind a place: nothing more is issued; each chunk is given back with its last step
//!   close     nothing more is issued
//!   closed, and none is unfinished: the places that are left are given back
//! ```
//! 1. While a run has its place at a chunk, every other access to it that conflicts waits behind; so the order among its own
//!    steps is the graph's alone, and they need no places.
//! 2. Whoever comes to wait behind a place contests the run. So what its body does afterwards comes after that
//!    access, as in a block, and the access waits for no more than the steps before it at that chunk.
//! 3. `missing` of a node counts its predecessors and its own issue: who brings it to zero finds the task, and lets it count from
//!    the start again, for the next run.
//! 4. A node names its task from its issue until it is completed, and the completion waits for whoever looks at the
//!    node at that moment ([`LOOKED_AT`]). Issue and completion publish the node before they look whether the run is
//!    contested, the contest before it looks at the nodes: of an issue and a contest at once one sees the other, and the
//!    issue takes itself back.
//! 5. The run lives until it is closed and none is unfinished: a step that is not completed, and the one who issues, may use it.

use super::count::{Missing, Unfinished};
use super::graph::Graph;
use crate::chunk::{self, Core, Held, Other, Ticket, Tickets};
use crate::pool::{Pool, local};
use crate::scoped::Failures;
use crate::sync::{prefetch, relax};
use crate::task::{Linker, RawTask, TaskRef, Work};
use dagger_core::Place;
use parking_lot::Mutex;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
};
use std::task::{Context, Poll, Waker};

/// In place of a node's place in the order of spawns: a block lists its task.
const LISTED: u32 = u32::MAX;
/// So many steps before its issue the node of one is asked for: others have counted it down last.
const AHEAD: usize = 8;
/// In the pointer of a node: somebody looks at its task.
const LOOKED_AT: usize = 1;

/// See the module.
pub(crate) struct Run {
    graph: Arc<Graph>,
    nodes: Box<[Node]>,
    unfinished: Unfinished,
    is_contested: AtomicBool,
    /// At the chunks of the graph, in their order.
    places: Mutex<Vec<ChunkPlace>>,
    is_over: AtomicBool,
    /// Of who waits for that.
    waker: Mutex<Option<Waker>>,
    /// Of steps that no block lists, as long as somebody wants them.
    failures: Mutex<Option<Failures>>,
    pool: *const Pool,
    /// Of the pool, where it is counted until it is over.
    planned: Arc<AtomicUsize>,
    /// Invariant 5: dropped by whoever brings the run to its end.
    me: Mutex<Option<Arc<Run>>>,
}

// SAFETY: `pool` is only compared; all else is atomic, locked or constant.
unsafe impl Send for Run {}
// SAFETY: as above.
unsafe impl Sync for Run {}

/// A run that is over, with what has kept it and who waits for that.
#[must_use]
struct Over {
    run: Option<Arc<Run>>,
    waker: Option<Waker>,
}

impl Over {
    /// Gives up the run, perhaps the last to have it, before somebody begins the next. Both may be foreign.
    fn finish(self) {
        crate::error::quietly(|| drop(self.run));
        if let Some(waker) = self.waker {
            crate::error::quietly(|| waker.wake());
        }
    }
}

/// The place of a run at a chunk.
struct ChunkPlace {
    place: Option<Place>,
    /// The steps at this chunk before this one are over, or will never be issued. Moves on once the run is contested.
    next: usize,
}

struct Node {
    /// Invariant 3.
    missing: Missing,
    /// Its place in the order of spawns, if the run is what knows of it ([`LISTED`] otherwise). Constant from its issue on.
    at: AtomicU32,
    /// Invariant 4.
    task: AtomicPtr<()>,
}

impl Node {
    /// The task of a step that is issued and cannot be completed meanwhile.
    fn task(&self) -> RawTask {
        // Acquire: pairs with the issue.
        RawTask::from_data(self.task.load(Acquire).map_addr(|address| address & !LOOKED_AT))
    }

    fn name(&self, task: RawTask) {
        self.task.store(task.as_ptr().cast_mut().cast(), SeqCst);
    }

    fn forget(&self, task: RawTask) {
        let named = task.as_ptr().cast_mut().cast();
        let mut round = 0;
        while self.task.compare_exchange_weak(named, null_mut(), SeqCst, Acquire).is_err() {
            relax(round);
            round += 1;
        }
    }

    fn names_nobody(&self) -> bool {
        self.task.load(SeqCst).is_null()
    }

    /// Calls `visit` with the task of a step that was issued and is not over.
    fn look(&self, visit: &mut dyn FnMut(RawTask)) {
        let mut round = 0;
        loop {
            let task = self.task.load(Acquire);
            if task.is_null() {
                return;
            }
            let looked_at = task.map_addr(|address| address | LOOKED_AT);
            if looked_at != task && self.task.compare_exchange(task, looked_at, AcqRel, Acquire).is_ok() {
                // Not during the visit, which may take locks: a holder does as well.
                let kept = TaskRef::new(RawTask::from_data(task));
                self.task.store(task, Release);
                return visit(kept.raw());
            }
            relax(round);
            round += 1;
        }
    }
}

impl Run {
    /// Begins a run, if nobody accesses the chunks of the graph at this moment. `before`: the one before, of which all steps
    /// were completed, if it may be used again.
    pub(super) fn start(graph: &Arc<Graph>, pool: &Pool, before: Option<Arc<Run>>) -> Option<Arc<Run>> {
        let (nodes, unfinished) = match before.and_then(Arc::into_inner) {
            Some(mut before) => {
                before.unfinished.reopen();
                (before.nodes, before.unfinished)
            }
            None => {
                let node = |step| {
                    let inputs = graph.order.predecessors(step).len() as u32 + 1;
                    let (missing, at) = (Missing::new(inputs), AtomicU32::new(LISTED));
                    Node { missing, at, task: AtomicPtr::new(null_mut()) }
                };
                (
                    (0..graph.steps.len()).map(node).collect(),
                    Unfinished::new(pool.processors.len(), graph.steps.len()),
                )
            }
        };
        let run = Arc::new(Run {
            graph: graph.clone(),
            nodes,
            unfinished,
            is_contested: AtomicBool::new(false),
            places: Mutex::new(Vec::with_capacity(graph.chunks.len())),
            is_over: AtomicBool::new(false),
            waker: Mutex::new(None),
            failures: Mutex::new(Some(Failures::default())),
            pool,
            planned: pool.planned.clone(),
            me: Mutex::new(None),
        });
        run.planned.fetch_add(1, Relaxed);
        *run.me.lock() = Some(run.clone());
        // One after the other: whoever comes in between waits here, and has its place there already, where the run finds it
        // and gives everything back.
        let mut places = run.places.lock();
        let ticket = Ticket::other(Other::Plan(run.clone()));
        for chunk in &graph.chunks {
            let place = chunk::take_idle(chunk.core, &run, &ticket, chunk.writes, pool);
            let is_taken = place.is_some();
            places.push(ChunkPlace { place, next: 0 });
            if !is_taken {
                break;
            }
        }
        let all = places.iter().all(|at| at.place.is_some());
        drop(places);
        if !all {
            run.close(0);
        }
        all.then_some(run)
    }

    /// All its steps are completed, of which so many were issued.
    pub(super) fn is_whole(&self, issued: usize) -> bool {
        issued == self.nodes.len() && self.is_over.load(Acquire)
    }

    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// True if a task that is being spawned is the step with this number.
    #[inline]
    pub(super) fn matches(&self, step: usize, task: RawTask, accesses: &[Held]) -> bool {
        std::ptr::eq(task.pool, self.pool) && self.graph.is_step(step, task, accesses)
    }

    /// Makes a task that [`matches`](Self::matches) the step with this number. `at`: its place in the order of spawns, if no block
    /// lists it.
    ///
    /// # Errors
    /// What is to be drained, if the run is contested.
    pub(super) fn issue(
        &self,
        step: usize,
        task: RawTask,
        accesses: &mut [Held],
        linker: &mut Linker,
        at: Option<u64>,
    ) -> Result<(), Box<Work>> {
        let node = &self.nodes[step];
        if let Some(later) = self.nodes.get(step + AHEAD) {
            prefetch(later);
        }
        let at = at.map_or(LISTED, |at| at.min(u64::from(LISTED - 1)) as u32);
        node.at.store(at, Relaxed);
        node.name(task);
        if self.is_contested.load(SeqCst) {
            node.forget(task);
            // Whoever has contested it may have taken this for an issued step.
            let mut work = Box::new(Work::new());
            self.give_back_at(step, &mut work.tickets);
            return Err(work);
        }
        let planned = self.graph.accesses(step);
        for (held, planned) in accesses.iter_mut().zip(planned) {
            held.follow(self, step as u32, planned.silent);
        }
        if !node.missing.count_down() {
            linker.waiting += 1;
        }
        Ok(())
    }

    /// A step has ended, and its accesses are released. Tells those that waited for it through `tickets`.
    ///
    /// # Safety
    /// Called once for each issued step, whose task this is.
    pub(crate) unsafe fn complete(run: NonNull<Run>, step: u32, task: RawTask, tickets: &mut Tickets) {
        // SAFETY: invariant 5: this step is not completed until the end of this function.
        let this = unsafe { run.as_ref() };
        let node = &this.nodes[step as usize];
        // Its end is not told before that. Relaxed: the issue comes before.
        let at = node.at.load(Relaxed);
        if at != LISTED && task.error().is_some() {
            let before =
                this.failures.lock().as_mut().and_then(|failures| failures.collect(task, u64::from(at)));
            crate::error::quietly(|| drop(before));
        }
        for &successor in this.graph.order.successors(step as usize) {
            let node = &this.nodes[successor as usize];
            if node.missing.count_down() {
                Ticket::task(node.task()).tell_soon(tickets);
            }
        }
        node.forget(task);
        if this.is_contested.load(SeqCst) {
            this.give_back_at(step as usize, tickets);
        }
        let thread = local::with(|local| local.thread.get());
        // SAFETY: as above, until it is counted.
        if unsafe { Unfinished::complete(NonNull::from(&this.unfinished), thread) } {
            this.end(tickets).finish(); // It is not used any more.
        }
    }

    /// Somebody waits behind a place of the run (invariant 2).
    pub(crate) fn contest(&self, tickets: &mut Tickets) {
        if self.is_contested.swap(true, SeqCst) {
            return;
        }
        let mut places = self.places.lock();
        for index in 0..places.len() {
            self.advance(index, &mut places[index], tickets);
        }
    }

    /// A step is over, or will not be: gives back the places at its chunks that wait for no other step.
    fn give_back_at(&self, step: usize, tickets: &mut Tickets) {
        let mut places = self.places.lock();
        for access in self.graph.accesses(step) {
            if let Some(at) = places.get_mut(access.index as usize) {
                self.advance(access.index as usize, at, tickets);
            }
        }
    }

    /// Gives a place back if no step at its chunk is issued and not over. The run is contested.
    fn advance(&self, index: usize, at: &mut ChunkPlace, tickets: &mut Tickets) {
        let chunk = &self.graph.chunks[index];
        while let Some(&step) = chunk.steps.get(at.next) {
            if !self.nodes[step as usize].names_nobody() {
                return;
            }
            at.next += 1;
        }
        if let Some(place) = at.place.take() {
            chunk::give_idle(chunk.core, place, chunk.writes, tickets);
        }
    }

    /// No more steps are issued than these.
    pub(super) fn close(self: &Arc<Self>, issued: usize) {
        if self.unfinished.close(issued as u32) {
            let mut work = Work::new();
            let over = self.end(&mut work.tickets);
            work.drain();
            over.finish();
        }
    }

    /// The last step has been completed and the run is closed.
    fn end(&self, tickets: &mut Tickets) -> Over {
        let run = self.me.lock().take();
        self.planned.fetch_sub(1, Relaxed);
        for (chunk, at) in self.graph.chunks.iter().zip(&mut *self.places.lock()) {
            if let Some(place) = at.place.take() {
                chunk::give_idle(chunk.core, place, chunk.writes, tickets);
            }
        }
        let waker = {
            let mut waker = self.waker.lock();
            self.is_over.store(true, Release);
            waker.take()
        };
        Over { run, waker }
    }

    // What a block does with the tasks that it lists.

    /// Adds unfinished steps that no block lists, the latest first, while there are fewer than `most`.
    pub(crate) fn latest(&self, most: usize, tasks: &mut Vec<TaskRef>) {
        if self.is_over.load(Acquire) {
            return;
        }
        for step in (0..self.nodes.len()).rev() {
            if tasks.len() >= most {
                return;
            }
            let unlisted = self.unlisted(step).map(|(_, task)| task);
            tasks.extend(unlisted.filter(|task| !task.is_over()));
        }
    }

    /// The task of this step, if it is issued and not completed and no block lists it, and its place in the order of spawns.
    pub(super) fn unlisted(&self, step: usize) -> Option<(u64, TaskRef)> {
        let mut task = None;
        let node = &self.nodes[step];
        node.look(&mut |named| task = Some(TaskRef::new(named)));
        let at = node.at.load(Relaxed);
        task.filter(|_| at != LISTED).map(|task| (u64::from(at), task))
    }

    /// The block is dropped: adds the steps that are not completed and that no block lists, with their places in the order of
    /// spawns, and collects no failures any more.
    pub(crate) fn abandon(&self, tasks: &mut Vec<(u64, TaskRef)>) {
        drop(self.take_failures());
        if !self.is_over.load(Acquire) {
            tasks.extend((0..self.nodes.len()).filter_map(|step| self.unlisted(step)));
        }
    }

    /// The failures so far of those that no block lists. No more are collected.
    pub(crate) fn take_failures(&self) -> Failures {
        self.failures.lock().take().unwrap_or_default()
    }

    /// True once somebody has come to wait behind it.
    pub(super) fn is_contested(&self) -> bool {
        self.is_contested.load(Acquire)
    }

    /// Ends once the places are given back.
    pub(crate) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over.load(Acquire) {
            return Poll::Ready(());
        }
        let new = cx.waker().clone();
        let mut waker = self.waker.lock();
        if self.is_over.load(Acquire) {
            return Poll::Ready(());
        }
        let before = waker.replace(new);
        drop(waker);
        drop(before);
        Poll::Pending
    }

    // Who waits for whom, for those who look for cycles. The callers keep the run: they look at a step that is not
    // completed, or hold the lock of a chunk where it has a place.

    /// The tasks that a step waits for.
    pub(crate) fn visit_predecessors(&self, step: u32, visit: &mut dyn FnMut(RawTask)) {
        let steps = self.graph.order.predecessors(step as usize);
        steps.iter().for_each(|&step| self.nodes[step as usize].look(visit));
    }

    /// The unfinished tasks at one of its chunks: for whom its place there waits.
    pub(crate) fn visit_at(&self, chunk: &Core, visit: &mut dyn FnMut(RawTask)) {
        let chunks = &self.graph.chunks;
        if let Ok(index) =
            chunks.binary_search_by_key(&std::ptr::from_ref(chunk), |chunk| chunk.core.as_ptr())
        {
            let chunk = &chunks[index];
            chunk.steps.iter().for_each(|&step| self.nodes[step as usize].look(visit));
        }
    }
}

#[cfg(all(test, not(dagger_loom)))]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#[test]
fn a_pool_counts_its_runs_while_they_go_on_however_they_end() {
    use crate::prelude::*;
    let runtime = Runtime::builder().threads(2).pin(false).build().unwrap();
    let (chunk, plan) = (Chunk::new(0u64), Plan::new());
    let add = |x: &mut u64, n: u64| *x += n;
    runtime.block_on(async {
        let planned = crate::pool::local::with(|local| local.pool().unwrap().planned.clone());
        let counted = &planned;
        let block = |steps: u64, is_counted: usize| {
            let chunk = &chunk;
            async move {
                for n in 0..steps {
                    spawn!(add(InOut(chunk), n));
                }
                assert_eq!(counted.load(Relaxed), is_counted);
            }
        };
        for (steps, is_counted) in [(4, 0), (4, 1), (3, 1), (4, 1)] {
            plan.run(block(steps, is_counted)).await.unwrap();
            assert_eq!(counted.load(Relaxed), 0, "{steps}");
        }
        let guard = chunk.read().await;
        plan.run(block(0, 0)).await.unwrap();
        drop(guard);
        drop(plan.run(block(4, 0)));
        // Leaves the graph at the first spawn, so it is over before its body is.
        let other = async {
            spawn!(add(InOut(&chunk), 1));
            assert_eq!(counted.load(Relaxed), 0);
        };
        plan.run(other).await.unwrap();
        plan.run(block(4, 0)).await.unwrap();
        // One that is dropped while its body waits.
        let mut dropped = Box::pin(plan.run(async {
            block(4, 1).await;
            std::future::pending::<()>().await;
        }));
        assert!(futures::poll!(dropped.as_mut()).is_pending());
        drop(dropped);
        runtime.idle().await;
        assert_eq!(counted.load(Relaxed), 0);
    });
    assert!(plan.stats().replayed > 0);
}
