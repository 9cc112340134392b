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
//! 4. A node names its task from its issue until it is completed, and the completion waits for whoever looks at the
//!    node at that moment ([`LOOKED_AT`]): so those who look for cycles may follow the graph, and what is over
//!    is not kept.

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
use std::task::{Context, Poll, Waker};

/// In `left` until the run is closed: more than a plan has steps.
const BIAS: u32 = 1 << 31;

/// In the pointer of a node: somebody looks at its task.
const LOOKED_AT: usize = 1;

/// See the module.
pub(crate) struct Run {
    me: Weak<Run>,
    graph: Arc<Graph>,
    nodes: Box<[Node]>,
    left: AtomicU32,
    over: AtomicBool,
    /// Of who waits for that.
    waker: Mutex<Option<Waker>>,
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
    /// Invariant 4.
    task: AtomicPtr<()>,
}

impl Node {
    fn issued(&self, task: RawTask) {
        // Release: whoever finds the task sees its accesses.
        self.task.store(task.as_ptr().cast_mut().cast(), Release);
    }

    /// The task of a step that cannot be completed meanwhile.
    fn task(&self) -> RawTask {
        // Acquire: pairs with the Release of the issue.
        RawTask::from_data(self.task.load(Acquire).map_addr(|address| address & !LOOKED_AT))
    }

    /// The step is over.
    fn completed(&self, task: RawTask) {
        let issued = task.as_ptr().cast_mut().cast();
        let mut round = 0;
        while self.task.compare_exchange_weak(issued, null_mut(), AcqRel, Relaxed).is_err() {
            crate::sync::relax(round);
            round += 1;
        }
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
            if looked_at != task && self.task.compare_exchange(task, looked_at, AcqRel, Relaxed).is_ok() {
                // Not during the visit, which may take locks: a holder does as well.
                let kept = TaskRef::new(RawTask::from_data(task));
                self.task.store(task, Release);
                return visit(kept.raw());
            }
            crate::sync::relax(round);
            round += 1;
        }
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
            waker: Mutex::new(None),
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
        node.issued(task);
        if node.missing.fetch_sub(1, AcqRel) != 1 {
            linker.waiting += 1;
        }
    }

    /// A step has ended, and its accesses are released. Tells its successors through `tickets`.
    ///
    /// # Safety
    /// Called once for each issued step, whose task this is.
    pub(crate) unsafe fn complete(run: NonNull<Run>, step: u32, task: RawTask, tickets: &mut Tickets) {
        {
            // SAFETY: invariant 3: this step is not completed.
            let this = unsafe { run.as_ref() };
            this.nodes[step as usize].completed(task);
            for &successor in this.graph.order.successors(step as usize) {
                let node = &this.nodes[successor as usize];
                if node.missing.fetch_sub(1, AcqRel) == 1 {
                    tickets.push(Ticket::Task(node.task()));
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
        let waker = {
            let mut waker = self.waker.lock();
            self.over.store(true, Release);
            waker.take()
        };
        if let Some(waker) = waker {
            crate::error::quietly(|| waker.wake());
        }
        drop(keep);
    }

    fn give_back(&self, tickets: &mut Tickets) {
        let places = std::mem::take(&mut *self.places.lock());
        for (chunk, place) in self.graph.chunks.iter().zip(places) {
            chunk::give_idle(chunk.core, place, chunk.writes, tickets);
        }
    }

    /// Ends once the places are given back.
    pub(super) fn poll_over(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.over.load(Acquire) {
            return Poll::Ready(());
        }
        let mut waker = self.waker.lock();
        if self.over.load(Acquire) {
            return Poll::Ready(());
        }
        let before = waker.replace(cx.waker().clone());
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

    /// The tasks that were issued and are not over.
    pub(crate) fn visit_unfinished(&self, visit: &mut dyn FnMut(RawTask)) {
        self.nodes.iter().for_each(|node| node.look(visit));
    }
}
