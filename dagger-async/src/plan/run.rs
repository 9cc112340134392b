//! One run of a plan by its graph: which steps are issued, and which wait for which.
//!
//! ```text
//!   start    a place at each chunk of the plan, if nobody is there           left = BIAS
//!   issue    node.task = task, node.missing −= 1: not 0? one more input
//!   complete successors' missing −= 1: 0? told                               left −= 1
//!   close    no more steps are issued                                        left −= BIAS − issued
//!   left = 0 the places are given back
//! ```
//! 1. While a run has its places every other access to its chunks waits for its end; so the order among its own
//!    steps is the graph's alone, and they need no places.
//! 2. `missing` of a node counts its predecessors and its own issue: who brings it to zero finds the task.
//! 3. The run lives until `left` is zero, by its places: a step that is not completed may use it.
//! 4. The memory of issued tasks is kept until the run is dropped, so that whoever looks for cycles may follow the graph.

use super::graph::Graph;
use crate::chunk::{self, Tickets};
use crate::chunk::{Held, Ticket};
use crate::pool::Pool;
use crate::record;
use crate::task::{Linker, RawTask, TaskRef, Work};
use dagger_core::Place;
use parking_lot::Mutex;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::sync::{Arc, Weak};

/// In `left` until the run is closed: more than a plan has steps.
const BIAS: u32 = 1 << 31;

/// See the module.
pub(crate) struct Run {
    me: Weak<Run>,
    graph: Arc<Graph>,
    nodes: Box<[Node]>,
    left: AtomicU32,
    over: AtomicBool,
    pool: *const Pool,
    /// Those at the chunks of the graph, in their order.
    places: Mutex<Vec<Place>>,
}

// SAFETY: `pool` is only compared; all else is atomic, locked or constant.
unsafe impl Send for Run {}
// SAFETY: as above.
unsafe impl Sync for Run {}

struct Node {
    /// Invariant 2.
    missing: AtomicU32,
    /// Null until it is issued; then counted as a holder (invariant 4).
    task: AtomicPtr<()>,
}

impl Node {
    fn task(&self) -> Option<RawTask> {
        // Acquire: pairs with the Release of the issue.
        NonNull::new(self.task.load(Acquire)).map(|task| RawTask::from_data(task.as_ptr()))
    }
}

impl Run {
    /// Begins a run, if nobody accesses the chunks of the graph at this moment.
    pub(super) fn start(graph: &Arc<Graph>, pool: *const Pool) -> Option<Arc<Run>> {
        let node = |step| {
            let missing = graph.order.predecessors(step).len() as u32 + 1;
            Node { missing: AtomicU32::new(missing), task: AtomicPtr::new(null_mut()) }
        };
        let run = Arc::new_cyclic(|me| Run {
            me: me.clone(),
            graph: graph.clone(),
            nodes: (0..graph.steps.len()).map(node).collect(),
            left: AtomicU32::new(BIAS),
            over: AtomicBool::new(false),
            pool,
            places: Mutex::new(Vec::with_capacity(graph.chunks.len())),
        });
        // One after the other: whoever comes in between waits here and lets itself be waited for there, where the run
        // finds it and gives everything back.
        let mut places = run.places.lock();
        for chunk in &graph.chunks {
            match chunk::take_idle(chunk.core, &run, chunk.writes, pool) {
                Some(place) => places.push(place),
                None => break,
            }
        }
        let all = places.len() == graph.chunks.len();
        drop(places);
        if all {
            return Some(run);
        }
        let mut work = Work::new();
        run.give_back(&mut work.tickets);
        work.drain();
        None
    }

    /// True if a task that is being spawned is the step with this number.
    #[inline]
    pub(super) fn matches(&self, step: usize, task: RawTask, accesses: &[Held]) -> bool {
        std::ptr::eq(task.pool, self.pool)
            && self.graph.steps.get(step).is_some_and(|step| step.is(task, accesses))
    }

    /// Makes a task that [`matches`](Self::matches) the step with this number.
    pub(super) fn issue(
        self: &Arc<Self>,
        step: usize,
        task: RawTask,
        accesses: &mut [Held],
        linker: &mut Linker,
    ) {
        let planned = &self.graph.steps[step].accesses;
        for (held, planned) in accesses.iter_mut().zip(planned) {
            held.follow(self, step as u32, planned.silent);
            if record::is_on() {
                held.record(task);
            }
        }
        let node = &self.nodes[step];
        std::mem::forget(TaskRef::new(task));
        // Release, both: whoever brings `missing` to zero, or finds the task otherwise, sees its accesses.
        node.task.store(task.as_ptr().cast_mut().cast(), Release);
        if node.missing.fetch_sub(1, AcqRel) != 1 {
            linker.waiting += 1;
        }
    }

    /// A step has ended, and its accesses are released. Tells its successors through `tickets`.
    ///
    /// # Safety
    /// Called once for each issued step.
    pub(crate) unsafe fn complete(run: NonNull<Run>, step: u32, tickets: &mut Tickets) {
        {
            // SAFETY: invariant 3: this step is not completed.
            let this = unsafe { run.as_ref() };
            for &successor in this.graph.order.successors(step as usize) {
                let node = &this.nodes[successor as usize];
                if node.missing.fetch_sub(1, AcqRel) == 1
                    && let Some(task) = node.task()
                {
                    tickets.push(Ticket::Task(task));
                }
            }
        }
        // SAFETY: as above; afterwards it may be gone, unless this was the last.
        let last = unsafe { run.as_ref() }.left.fetch_sub(1, AcqRel) == 1;
        if last {
            // SAFETY: the last one gives the places back, which keep the run until then.
            unsafe { run.as_ref() }.end(tickets);
        }
    }

    /// No more steps are issued than these.
    pub(super) fn close(self: &Arc<Self>, issued: usize) {
        let rest = BIAS - issued as u32;
        if self.left.fetch_sub(rest, AcqRel) == rest {
            let mut work = Work::new();
            self.end(&mut work.tickets);
            work.drain();
        }
    }

    /// The last step has been completed and the run is closed.
    fn end(&self, tickets: &mut Tickets) {
        let keep = self.me.upgrade(); // With the places goes what kept it.
        self.give_back(tickets);
        self.over.store(true, Release);
        drop(keep);
    }

    fn give_back(&self, tickets: &mut Tickets) {
        let places = std::mem::take(&mut *self.places.lock());
        for (chunk, place) in self.graph.chunks.iter().zip(places) {
            chunk::give_idle(chunk.core, place, chunk.writes, tickets);
        }
    }

    /// True once the places are given back.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Acquire)
    }

    // Who waits for whom, for those who look for cycles. The callers keep the run: they look at a step that is not
    // completed, or hold the lock of a chunk where it has a place.

    /// The tasks that a step waits for.
    pub(crate) fn visit_predecessors(&self, step: u32, visit: &mut dyn FnMut(RawTask)) {
        let steps = self.graph.order.predecessors(step as usize).iter();
        let tasks = steps.filter_map(|&step| self.nodes[step as usize].task());
        tasks.filter(|task| !task.state.load().is_gone()).for_each(visit);
    }

    /// The tasks that were issued and are not over.
    pub(crate) fn visit_unfinished(&self, visit: &mut dyn FnMut(RawTask)) {
        let tasks = self.nodes.iter().filter_map(Node::task);
        tasks.filter(|task| !task.state.load().is_gone()).for_each(visit);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(task) = node.task() {
                task.release_holder();
            }
            node.task.store(null_mut(), Relaxed);
        }
    }
}
