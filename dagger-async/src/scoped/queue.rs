//! The frame of a block whose body is being polled, whatever kind it is; [`in_order`] and [`bulk`].

use super::block::{Over, Owned};
use super::counted::Counting;
use crate::error::Error;
use crate::options::Ties;
use crate::plan::Issue;
use crate::pool::local;
use crate::task::{self, Linker, Phase, RawTask, TaskId, TaskRef};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What a block remembers of the tasks spawned in it. Used by the thread that polls the block's body, or by its owner.
pub(super) struct Queue {
    kind: Kind,
    /// In order: the tasks of the last step. Bulk: all that it holds back.
    tasks: RefCell<Vec<TaskRef>>,
    /// Block: the tasks that it owns.
    pub(super) owned: RefCell<Owned>,
    /// Block: how its spawns are issued, if it is a run of a plan.
    pub(super) plan: Option<Issue>,
    /// Look: what is told of each task.
    pub(super) looks: Looks,
}

/// What a block does that only looks on.
pub(super) enum Looks {
    Nowhere,
    Counts(Arc<Mutex<Counting>>),
    /// The ids of all that was spawned in it.
    Notices(RefCell<Vec<u64>>),
}

impl Queue {
    fn new(kind: Kind) -> Self {
        let (tasks, owned) = (RefCell::new(Vec::new()), RefCell::new(Owned::default()));
        Queue { kind, tasks, owned, plan: None, looks: Looks::Nowhere }
    }
    pub(super) fn block() -> Self {
        Self::new(Kind::Block)
    }
    pub(super) fn looking(looks: Looks) -> Self {
        Queue { looks, ..Self::new(Kind::Look) }
    }

    /// A block that only looks on is told of a task.
    #[cold]
    fn look(&self, task: RawTask) {
        match &self.looks {
            Looks::Nowhere => {}
            Looks::Counts(counting) => {
                let over = counting.lock().add(task);
                drop(over); // without the lock
            }
            Looks::Notices(noticed) => noticed.borrow_mut().push(task.id.get()),
        }
    }

    pub(super) fn planned(issue: Issue) -> Self {
        Queue { plan: Some(issue), ..Self::block() }
    }

    /// The task that was spawned last in this block, if it is not over.
    fn last(&self) -> Option<TaskRef> {
        let (listed, next) = {
            let owned = self.owned.borrow();
            (owned.last(), owned.next())
        };
        let step = self.plan.as_ref().and_then(Issue::last_step);
        [listed, step].into_iter().flatten().find(|&(at, _)| at + 1 == next).map(|(_, task)| task)
    }

    /// Lets go of all tasks that are over.
    pub(super) fn prune(&self) {
        let over = self.owned.borrow_mut().prune();
        drop(over); // Nothing is borrowed.
    }

    /// Lets go of tasks that are over.
    #[cold]
    fn shorten(&self) {
        let mut over = Over::default();
        self.owned.borrow_mut().shorten(&mut over);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    InOrder,
    Bulk,
    Block,
    /// Counts or records.
    Look,
}

/// A block whose body is being polled, and those around it.
pub(crate) struct Frame {
    queue: *const Queue,
    outer: *const Frame,
    /// It is a datadeps block, a run of a plan or not, and there is no block of any kind around it: what most tasks are spawned in.
    is_alone: bool,
    /// All blocks from here outwards are datadeps blocks, or only look on.
    only_owns: bool,
    /// One of them is a run of a plan.
    is_planned: bool,
    /// The innermost of those is of a ranked plan.
    is_ranked: bool,
}

impl Frame {
    /// Runs `poll` with `queue` as the innermost block.
    pub(super) fn around<R>(queue: &Queue, poll: impl FnOnce() -> R) -> R {
        local::with(|local| {
            let outer = local.queue().map_or(std::ptr::null(), std::ptr::from_ref);
            let owns = matches!(queue.kind, Kind::Block | Kind::Look);
            let only_owns = owns && local.queue().is_none_or(Frame::only_owns);
            let is_planned = queue.plan.is_some() || local.queue().is_some_and(|outer| outer.is_planned);
            let is_ranked = match &queue.plan {
                Some(issue) => issue.is_ranked(),
                None => local.queue().is_some_and(|outer| outer.is_ranked),
            };
            if queue.plan.is_some()
                && let Some(outer) = local.queue()
            {
                outer.refuse_to_freeze("a plan, or another graph that is recorded, has tasks of its own");
            }
            let is_alone = queue.kind == Kind::Block && outer.is_null();
            let frame = Frame { queue, outer, is_alone, only_owns, is_planned, is_ranked };
            let _entered = local.enter_queue(&frame);
            poll()
        })
    }

    fn queue(&self) -> &Queue {
        // SAFETY: frames live on the stack below the poll of their block, which borrows the queue.
        unsafe { &*self.queue }
    }

    /// This block and those around it, innermost first.
    fn chain(&self) -> impl Iterator<Item = &Queue> {
        let mut next = Some(self);
        std::iter::from_fn(move || {
            let frame = next?;
            // SAFETY: the frame around is further down the same stack.
            next = unsafe { frame.outer.as_ref() };
            Some(frame.queue())
        })
    }

    /// True if no block here orders tasks or holds them back.
    #[inline]
    pub(crate) fn only_owns(&self) -> bool {
        self.only_owns
    }

    /// True if a task that is spawned here gets nothing from the blocks but owners.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.only_owns && !self.is_ranked
    }

    /// One of the blocks is a run of a plan.
    #[inline]
    pub(crate) fn is_planned(&self) -> bool {
        self.is_planned
    }

    /// The innermost run of a plan, if that is ranked.
    pub(crate) fn ranked_plan(&self) -> Option<&Issue> {
        if self.is_ranked { self.planned().map(|(_, plan)| plan) } else { None }
    }

    /// The innermost recording of a frozen graph.
    #[cold]
    pub(crate) fn freezing(&self) -> Option<&Issue> {
        self.ranked_plan().filter(|issue| issue.is_freezing())
    }

    /// Whatever runs here is no step of a graph that is being recorded to be frozen.
    #[cold]
    pub(crate) fn refuse_to_freeze(&self, why: &str) {
        let issues = self.chain().filter_map(|queue| queue.plan.as_ref());
        issues.filter(|issue| issue.is_freezing()).for_each(|issue| issue.refuse(None, why));
    }

    /// The innermost run of a plan, and its block.
    #[inline]
    fn planned(&self) -> Option<(&Queue, &Issue)> {
        if self.is_planned {
            self.chain().find_map(|queue| Some((queue, queue.plan.as_ref()?)))
        } else {
            None
        }
    }

    /// True inside a datadeps block.
    pub(crate) fn is_in_block(&self) -> bool {
        self.chain().any(|queue| queue.kind == Kind::Block)
    }

    /// As [`own`](Self::own), as it is for most tasks, without a call. `None`: it takes that to do it. A block that is alone only owns.
    #[inline(always)]
    pub(crate) fn own_quickly(&self, task: RawTask, has_accesses: bool) -> Option<bool> {
        let queue = self.queue();
        if !self.is_alone {
            return None;
        }
        let may_be_step = match &queue.plan {
            None if queue.owned.try_borrow_mut().is_ok_and(|mut owned| owned.add_quickly(task)) => false,
            Some(plan) if has_accesses && plan.is_following() => true,
            _ => return None,
        };
        task.state.observe_unshared();
        Some(may_be_step)
    }

    /// The blocks around a new task, that nobody else knows yet, become its owners. True if the innermost will know by
    /// [`place`](Self::place) or [`list`](Self::list) whether it has to list it: it may be a step of its plan, whose run
    /// knows its steps.
    pub(crate) fn own(&self, task: RawTask, has_accesses: bool) -> bool {
        let mut innermost = true;
        let mut may_be_step = false;
        for queue in self.chain() {
            match queue.kind {
                Kind::Block => {}
                Kind::Look => {
                    queue.look(task);
                    continue;
                }
                Kind::InOrder | Kind::Bulk => continue,
            }
            if innermost {
                task.state.observe_unshared();
                let plan = queue.plan.as_ref().filter(|_| has_accesses && self.only_owns);
                may_be_step = plan.is_some_and(Issue::is_following);
            }
            if !(innermost && may_be_step) && queue.owned.borrow_mut().add(task, innermost) {
                queue.shorten();
            }
            innermost = false;
        }
        may_be_step
    }

    /// The innermost block owns a task that is no step of its plan.
    #[cold]
    pub(crate) fn list(&self, task: RawTask) {
        if let Some(queue) = self.chain().find(|queue| queue.kind == Kind::Block)
            && queue.owned.borrow_mut().add_known(task)
        {
            queue.shorten();
        }
    }

    /// Gives a task that is being spawned its turn, by the graph of the plan that runs here or by the queues of the chunks:
    /// `take_places` does the latter.
    pub(crate) fn place(
        &self,
        task: RawTask,
        linker: &mut Linker,
        take_places: impl FnOnce(&mut Linker) -> Option<Box<Error>>,
    ) -> Option<Box<Error>> {
        let planned = self.planned();
        if let Some((queue, plan)) = planned {
            // Where it is not listed, it has a place in the order of spawns here.
            let at = linker.may_be_step.then(|| queue.owned.borrow().next());
            if plan.follow(task, linker, at) {
                if at.is_some() {
                    queue.owned.borrow_mut().count();
                }
                return None;
            }
            if at.is_some() {
                self.list(task);
            }
        }
        Self::place_by_chunks(planned.map(|(_, plan)| plan), task, linker, take_places)
    }

    /// A task is no step of the graph of a plan.
    #[inline(never)]
    fn place_by_chunks(
        plan: Option<&Issue>,
        task: RawTask,
        linker: &mut Linker,
        take_places: impl FnOnce(&mut Linker) -> Option<Box<Error>>,
    ) -> Option<Box<Error>> {
        if let Some(plan) = plan {
            plan.note(task);
        }
        let refusal = take_places(linker);
        if let Some(plan) = plan {
            plan.note_placed(task, refusal.is_some());
        }
        refusal
    }

    /// The blocks around a new task, that nobody else knows yet, wait for it, but it is none of their steps, and its failure
    /// not theirs.
    #[cfg(feature = "store")]
    pub(crate) fn accompany(&self, task: RawTask) {
        for queue in self.chain().filter(|queue| queue.kind == Kind::Block) {
            if queue.owned.borrow_mut().add_beside(task) {
                queue.shorten();
            }
        }
        self.notice(task.id);
    }

    /// A task that the runtime has spawned here for its own ends, that no block owns, is recorded like others.
    pub(crate) fn notice(&self, task: TaskId) {
        for queue in self.chain() {
            if let Looks::Notices(noticed) = &queue.looks {
                noticed.borrow_mut().push(task.get());
            }
        }
    }

    /// True if a `bulk` block whose body is being polled here holds tasks back.
    pub(crate) fn holds_any(&self) -> bool {
        self.chain().any(|queue| queue.kind == Kind::Bulk && !queue.tasks.borrow().is_empty())
    }

    /// True if a `bulk` block whose body is being polled here holds the task back.
    pub(crate) fn holds(&self, task: RawTask) -> bool {
        if task.state.load().phase() != Phase::Waiting {
            return false;
        }
        let mut bulks = self.chain().filter(|queue| queue.kind == Kind::Bulk);
        bulks.any(|queue| queue.tasks.borrow().iter().any(|held| held.raw() == task))
    }

    /// True if the next task spawned here is a step of an `in_order` block.
    pub(crate) fn is_step(&self) -> bool {
        self.chain().take_while(|queue| queue.kind != Kind::Bulk).any(|queue| queue.kind == Kind::InOrder)
    }

    /// The steps that a task spawned here comes after.
    pub(crate) fn order(&self, ties: &mut Ties, linear: bool) {
        if linear && let Some(block) = self.chain().find(|queue| queue.kind == Kind::Block) {
            block.last().into_iter().for_each(|before| ties.order_after(before));
        }
        for queue in self.chain().filter(|queue| queue.kind == Kind::InOrder) {
            for before in queue.tasks.borrow().iter() {
                ties.order_after(before.clone());
            }
        }
    }

    /// The task is spawned: it is the last step, or held back.
    pub(crate) fn add(&self, task: RawTask, linker: &mut Linker) {
        let mut held = false;
        for queue in self.chain() {
            match queue.kind {
                Kind::Bulk => {
                    queue.tasks.borrow_mut().push(TaskRef::new(task));
                    linker.hold();
                    if let Some(owner) = local::with(|local| local.task()) {
                        task::held_by(task, owner);
                    }
                    held = true;
                }
                Kind::InOrder if !held => drop(queue.tasks.replace(vec![TaskRef::new(task)])),
                Kind::Block | Kind::Look => {}
                Kind::InOrder => {} // The whole bulk is the step, when it ends.
            }
        }
    }
}

/// Runs each task spawned in `body` after the one before it has ended, however it ended.
///
/// Gives the output of the body as it is and does not wait for the tasks. A [`bulk`] inside is one step. Neither block
/// is inherited by tasks. Dropping the future drops the body; what was spawned goes on, in order.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let last = in_order(async {
///     spawn!((|| println!("first"))());
///     spawn!((|| println!("second"))())
/// }).await;
/// last.await
/// # }
/// ```
pub fn in_order<F: Future>(body: F) -> InOrder<F> {
    InOrder { queue: Queue::new(Kind::InOrder), body }
}

/// The future of [`in_order`].
#[must_use = "futures do nothing unless awaited"]
pub struct InOrder<F> {
    queue: Queue,
    body: F,
}

impl<F: Future> Future for InOrder<F> {
    type Output = F::Output;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `body` is pinned when `self` is and only projected; the queue is `Unpin`.
        let (queue, body) = unsafe {
            let this = self.get_unchecked_mut();
            (&this.queue, Pin::new_unchecked(&mut this.body))
        };
        Frame::around(queue, || body.poll(cx))
    }
}

/// Holds back the tasks spawned in `body` until it ends, then submits them together.
///
/// Gives the output of the body as it is and does not wait for the tasks. Awaiting one of its own tasks inside is
/// [`Error::Deadlock`], and the task goes on when the block ends. When the future is dropped before that, or the body
/// panics, the tasks are cancelled.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let tasks = bulk(async { (0..4).map(|i| spawn!((|i: i32| i * i)(i))).collect::<Vec<_>>() }).await;
/// let squares: Vec<i32> = wait_all(tasks).await.into_iter().collect::<Result<_, _>>()?;
/// assert_eq!(squares, [0, 1, 4, 9]);
/// # Ok(()) }
/// ```
pub fn bulk<F: Future>(body: F) -> Bulk<F> {
    Bulk { queue: Queue::new(Kind::Bulk), body }
}

/// The future of [`bulk`].
#[must_use = "futures do nothing unless awaited"]
pub struct Bulk<F> {
    queue: Queue,
    body: F,
}

impl<F: Future> Future for Bulk<F> {
    type Output = F::Output;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `body` is pinned when `self` is and only projected; the queue is `Unpin`.
        let (queue, body) = unsafe {
            let this = self.get_unchecked_mut();
            (&this.queue, Pin::new_unchecked(&mut this.body))
        };
        let output = match Frame::around(queue, || body.poll(cx)) {
            Poll::Ready(output) => output,
            Poll::Pending => return Poll::Pending,
        };
        let tasks = queue.tasks.take();
        for task in &tasks {
            release(task);
        }
        // After that: with the option `inline` it waits for them.
        crate::spawn::end_step(&tasks);
        Poll::Ready(output)
    }
}

fn release(task: &TaskRef) {
    if task.raw().input_came() {
        task::ready(task.raw());
    }
}

impl<F> Drop for Bulk<F> {
    fn drop(&mut self) {
        let tasks = self.queue.tasks.take();
        for task in tasks {
            task::end(task.raw(), |header| Error::Cancelled { root: header.info().into() });
            release(&task);
        }
    }
}
