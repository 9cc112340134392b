//! [`datadeps`]: a block that owns the tasks spawned in it.
//!
//! 1. The tasks are listed in the order of their spawns. Those that are over leave the list, the oldest first and soon, so
//!    that the memory of a task is that of a later one; a block of ten million tasks lists no more of them than are
//!    unfinished, twice.
//! 2. A failure is collected once for each root, by the innermost block; blocks around wait for the task too, but leave its
//!    failure to the inner one.
//! 3. The end of a block is a task that comes after some of those that are left, the latest, then one that comes after what is
//!    left then, twice as many, and so on. So a wait for a block is a wait for tasks, and a cycle through it is found like any
//!    other; and few of its tasks need an edge, since most of the others are over when the latest are.

use super::failures::Failures;
use super::queue::{Frame, Queue};
use crate::error::{Error, Result};
use crate::plan::Issue;
use crate::pool::local;
use crate::record;
use crate::task::{self, DTask, RawTask, TaskRef};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How many tasks a block lists before it looks which of all are over.
const LISTED_MIN: usize = 256;
/// After so many spawns it looks which of the oldest are over: they lie in another worker's cache perhaps.
const PERIOD: u64 = 16;
/// How many leave the list at a look.
const LEAVE_MAX: usize = 32;
/// So many before its turn the memory of one is asked for.
const AHEAD: usize = 4;
/// The end of a block waits for so many of its latest tasks first.
const AWAITED_MIN: usize = 64;

/// The tasks of a block, and what became of those that left the list.
#[derive(Default)]
pub(super) struct Owned {
    tasks: VecDeque<Listed>,
    /// The whole list is looked through when it is this long.
    limit: usize,
    spawned: u64,
    failures: Failures,
}

pub(super) struct Listed {
    task: TaskRef,
    /// Its place in the order of spawns.
    at: u64,
    /// This block collects its failure.
    collects: bool,
    /// It looks after another task, and is not cancelled while that one runs.
    accompanies: bool,
}

/// Of those that left the list: with these may go what is a user's, so they are dropped when nobody has it.
pub(super) type Over = Vec<TaskRef>;

impl Owned {
    /// Lists a task that nobody else knows yet. True if it is time to [`shorten`](Self::shorten) the list.
    #[must_use]
    #[inline]
    pub(super) fn add(&mut self, task: RawTask, collects: bool) -> bool {
        self.push(TaskRef::of_new(task), collects, false)
    }

    /// As [`add`](Self::add), of a task that others know.
    #[must_use]
    pub(super) fn add_known(&mut self, task: RawTask) -> bool {
        self.push(TaskRef::new(task), true, false)
    }

    /// The place of the next task in the order of spawns.
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.spawned
    }

    /// Counts a task that is not listed.
    #[inline]
    pub(super) fn count(&mut self) {
        self.spawned += 1;
    }

    /// As [`add`](Self::add), of a task that looks after another one.
    #[cfg(feature = "store")]
    #[must_use]
    pub(super) fn add_beside(&mut self, task: RawTask) -> bool {
        self.push(TaskRef::of_new(task), false, true)
    }

    #[inline]
    fn push(&mut self, task: TaskRef, collects: bool, accompanies: bool) -> bool {
        self.tasks.push_back(Listed { task, at: self.spawned, collects, accompanies });
        self.spawned += 1;
        self.spawned.is_multiple_of(PERIOD)
    }

    /// The task that was listed last, and its place in the order of spawns.
    pub(super) fn last(&self) -> Option<(u64, TaskRef)> {
        self.tasks.back().map(|last| (last.at, last.task.clone()))
    }

    /// Takes the oldest off the list that are over, or all, if that does not help.
    pub(super) fn shorten(&mut self, over: &mut Over) {
        for left in 0..LEAVE_MAX {
            if let Some(soon) = self.tasks.get(AHEAD) {
                soon.task.raw().prefetch_state();
            }
            let Some(listed) = self.tasks.pop_front_if(|oldest| oldest.task.is_over()) else {
                if left == 0 && self.tasks.len() >= self.limit.max(LISTED_MIN) {
                    *over = self.prune();
                    self.limit = 2 * self.tasks.len();
                }
                return;
            };
            self.leave(listed, over);
        }
    }

    /// A task that is over has left the list.
    #[inline(always)]
    fn leave(&mut self, listed: Listed, over: &mut Over) {
        if listed.collects && listed.task.error().is_some() {
            drop(self.failures.collect(listed.task.raw(), listed.at));
        }
        over.extend(listed.task.let_go());
    }

    /// Takes what is over off the list, with its failure.
    #[must_use]
    pub(super) fn prune(&mut self) -> Over {
        let mut over = Over::new();
        for _ in 0..self.tasks.len() {
            let Some(listed) = self.tasks.pop_front() else { break };
            if listed.task.is_over() {
                self.leave(listed, &mut over);
            } else {
                self.tasks.push_back(listed);
            }
        }
        over
    }

    /// The latest that are listed, so many at most.
    fn latest(&self, most: usize) -> Vec<TaskRef> {
        let first = self.tasks.len().saturating_sub(most);
        self.tasks.range(first..).map(|listed| listed.task.clone()).collect()
    }

    /// Cancels what has not started.
    fn cancel(self) {
        for listed in self.tasks.into_iter().filter(|listed| !listed.accompanies) {
            task::cancel_unstarted(listed.task.raw());
        }
    }

    /// The first root in the order of spawns, with the others.
    fn into_result(mut self) -> Result<()> {
        for listed in self.tasks.iter().filter(|listed| listed.collects) {
            drop(self.failures.collect(listed.task.raw(), listed.at));
        }
        self.failures.into_result()
    }
}

/// Runs `body` and waits for every task spawned in it.
///
/// Tasks start at once, in an order that gives what their program order gives: two tasks that access the same data, one
/// of them writing, run one after the other. Gives the output of the body, or the first failure of a task in the order of
/// their spawns ([`Error::others`] has the rest) after all of them have ended.
///
/// A block contains the spawns made while its body is polled (`join!` and `select!` included), not those of
/// `tokio::spawn` inside, nor the children of its tasks. The body needs neither `Send` nor `'static`, and may await its
/// tasks. Blocks may nest, and run at once over the same chunks from any threads.
///
/// Dropping the future, or a panic of the body, cancels what has not started; what runs finishes in the background. Regions
/// of writers that were cancelled are poisoned.
///
/// ```
/// use dagger_async::prelude::*;
/// fn fill(x: &mut [i64], v: i64) { x.fill(v) }
/// fn sum(x: &[i64]) -> i64 { x.iter().sum() }
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let a = Chunk::new(vec![0i64; 6]);
/// let total = datadeps(async {
///     spawn!(fill(Out(&a.slice(..)), 7));
///     spawn!(sum(In(&a.slice(0..3))))
/// }).await?;
/// assert_eq!(total.await?, 21);
/// # Ok(()) }
/// ```
pub fn datadeps<F: Future>(body: F) -> Datadeps<F> {
    Datadeps { queue: Queue::block(), output: None, end: None, awaited: 0, body }
}

impl<F: Future> Datadeps<F> {
    /// A block that is a run of a plan.
    pub(crate) fn planned(body: F, issue: Issue) -> Self {
        Datadeps { queue: Queue::planned(issue), output: None, end: None, awaited: 0, body }
    }

    pub(crate) fn issue(&self) -> Option<&Issue> {
        self.queue.plan.as_ref()
    }
}

/// The future of [`datadeps`].
#[must_use = "futures do nothing unless awaited"]
pub struct Datadeps<F: Future> {
    queue: Queue,
    /// Of the body, once it has ended.
    output: Option<F::Output>,
    end: Option<DTask<()>>,
    /// For so many tasks that waits.
    awaited: usize,
    body: F,
}

impl<F: Future> Future for Datadeps<F> {
    type Output = Result<F::Output>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `body` is pinned when `self` is and only projected; the other fields are never pinned.
        let (queue, output, (end, awaited), body) = unsafe {
            let this = self.get_unchecked_mut();
            (
                &this.queue,
                &mut this.output,
                (&mut this.end, &mut this.awaited),
                Pin::new_unchecked(&mut this.body),
            )
        };
        if output.is_none() {
            *output = Some(ready!(Frame::around(queue, || body.poll(cx))));
            queue.prune();
            if let Some(issue) = &queue.plan {
                issue.close();
            }
            // What a `bulk` around this block holds back ends after the bulk: the wait would never end.
            let held = local::with(|local| {
                let frame = local.queue()?;
                let owned = queue.owned.borrow();
                let held = owned.tasks.iter().find(|listed| frame.holds(listed.task.raw()));
                held.map(|listed| listed.task.info())
            });
            if let Some(held) = held {
                drop(queue.owned.take());
                return Poll::Ready(Err(Error::Deadlock { root: held.clone().into(), path: [held].into() }));
            }
        }
        let run = queue.plan.as_ref().and_then(Issue::run);
        let waited = loop {
            if let Some(waited) = end {
                let waited = ready!(Pin::new(waited).poll(cx));
                *end = None;
                if waited.is_err() {
                    break waited;
                }
                queue.prune();
            }
            // In a recording every task of the block is seen to come before its end.
            *awaited = if record::is_on() { usize::MAX } else { awaited.saturating_mul(2).max(AWAITED_MIN) };
            let mut latest = queue.owned.borrow().latest(*awaited);
            if let Some(run) = &run {
                run.latest(*awaited, &mut latest);
            }
            if latest.is_empty() {
                break Ok(());
            }
            *end = Some(crate::spawn::end_of_block(&latest));
        };
        // Its steps are over but for a few instructions, and its places are given back then: the next run can begin by the graph.
        // After a deadlock they may never be.
        if let Some(run) = &run
            && !matches!(waited, Err(Error::Deadlock { .. }))
        {
            ready!(run.poll_over(cx));
        }
        let Some(output) = output.take() else {
            return Poll::Pending; // Polled after its end, which a future may answer as it likes.
        };
        let mut owned = queue.owned.take();
        if let Some(run) = run {
            owned.failures.add(run.take_failures());
        }
        Poll::Ready(match (owned, waited) {
            // The wait itself would never have ended.
            (_, Err(error @ Error::Deadlock { .. })) => Err(error),
            (owned, waited) => owned.into_result().and(waited).map(|()| output),
        })
    }
}

impl<F: Future> Drop for Datadeps<F> {
    fn drop(&mut self) {
        let owned = self.queue.owned.take();
        if let Some(run) = self.queue.plan.as_ref().and_then(Issue::run) {
            run.cancel();
        }
        owned.cancel();
    }
}
