//! [`datadeps`]: a block that owns the tasks spawned in it.
//!
//! 1. The tasks are listed in the order of their spawns. Those that are over leave the list, the oldest first and soon, so
//!    that the memory of a task is that of a later one; a block of ten million tasks lists no more of them than are
//!    unfinished, twice.
//! 2. A failure is collected once for each root, by the innermost block; blocks around wait for the task too, but leave its
//!    failure to the inner one.
//! 3. The end of a block is a task that comes after some of those that are left, the latest, then one that comes after what is
//!    left then, twice as many, and so on: few of its tasks need an edge, since most of the others are over when the latest are.
//!    A search for a cycle that comes to such a task goes on to all that are left ([`Ending`]), and they are marked as waited
//!    for; so a cycle through the end of a block is found like any other.
//! 4. Steps of a run of a plan are not listed: the run knows them. They have places in the order of spawns as well.
//! 5. When the runtime is shut down a block may end before the last bodies of its tasks have returned.

use super::failures::Failures;
use super::queue::{Frame, Queue};
use crate::error::{Error, Result};
use crate::plan::{Issue, Run};
use crate::pool::local;
use crate::record;
use crate::task::{self, DTask, RawTask, TaskRef};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// How many tasks a block lists before it looks which of all are over.
const LISTED_MIN: usize = 256;
/// After so many spawns it looks which of the oldest are over: they lie in another worker's cache perhaps.
const PERIOD: u32 = 16;
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
    /// Those that are not listed are counted too.
    spawned: u64,
    /// Modulo 2³².
    listed: u32,
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
#[derive(Default)]
pub(super) struct Over {
    _tasks: Vec<TaskRef>,
    _errors: Vec<Error>,
}

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

    /// As [`add`](Self::add) of a task whose failure is collected here, if it is neither time to shorten the list nor to make room
    /// in it. False: it is.
    #[must_use]
    #[inline(always)]
    pub(super) fn add_quickly(&mut self, task: RawTask) -> bool {
        let has_room = self.tasks.len() < self.tasks.capacity();
        let quickly = has_room && !self.listed.wrapping_add(1).is_multiple_of(PERIOD);
        if quickly {
            let is_time = self.add(task, true);
            debug_assert!(!is_time, "it was not time to shorten the list");
        }
        quickly
    }

    #[inline(always)]
    fn push(&mut self, task: TaskRef, collects: bool, accompanies: bool) -> bool {
        self.tasks.push_back(Listed { task, at: self.spawned, collects, accompanies });
        self.spawned += 1;
        self.listed = self.listed.wrapping_add(1);
        self.listed.is_multiple_of(PERIOD)
    }

    /// The task that is listed last, and its place in the order of spawns.
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
            over._errors.extend(self.failures.collect(listed.task.raw(), listed.at));
        }
        if let Some(last) = listed.task.let_go() {
            over._tasks.push(last);
        }
    }

    /// Takes what is over off the list, with its failure.
    #[must_use]
    pub(super) fn prune(&mut self) -> Over {
        let mut over = Over::default();
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

    /// Cancels what has not started, of these and of the steps of a run, in the order of spawns.
    fn cancel(self, run: Option<&Run>) {
        let listed = self.tasks.into_iter().filter(|listed| !listed.accompanies);
        let mut tasks: Vec<(u64, TaskRef)> = listed.map(|listed| (listed.at, listed.task)).collect();
        if let Some(run) = run {
            run.abandon(&mut tasks);
            tasks.sort_by_key(|&(at, _)| at);
        }
        for (_, task) in tasks {
            task::cancel_unstarted(task.raw());
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
    Datadeps::of(Queue::block(), body)
}

impl<F: Future> Datadeps<F> {
    fn of(queue: Queue, body: F) -> Self {
        Datadeps { queue, output: None, ending: None, end: None, awaited: 0, is_over: false, body }
    }

    /// A block that is a run of a plan.
    pub(crate) fn planned(body: F, issue: Issue) -> Self {
        Datadeps::of(Queue::planned(issue), body)
    }

    pub(crate) fn issue(&self) -> Option<&Issue> {
        self.queue.plan.as_ref()
    }
}

/// A block whose body has ended.
pub(crate) struct Ending {
    owned: Mutex<Owned>,
    /// If it is one of a plan.
    run: Option<Arc<Run>>,
}

impl Ending {
    fn new(owned: Owned, run: Option<Arc<Run>>) -> Arc<Ending> {
        for listed in &owned.tasks {
            // One with accesses counts as waited for anyway.
            if !listed.task.raw().has_accesses() {
                listed.task.state.lock().set_awaited_by_task();
            }
        }
        Arc::new(Ending { owned: Mutex::new(owned), run })
    }

    /// Lets go of all tasks that are over.
    fn prune(&self) {
        let over = self.owned.lock().prune();
        drop(over); // Without the lock.
    }

    /// Forgets its tasks, which go on.
    fn let_go(&self) {
        let owned = std::mem::take(&mut *self.owned.lock());
        drop(owned); // Without the lock.
    }

    /// The latest that are unfinished, about so many.
    fn latest(&self, most: usize) -> Vec<TaskRef> {
        let mut latest = self.owned.lock().latest(most);
        if let Some(run) = &self.run {
            run.latest(most, &mut latest);
        }
        latest
    }

    /// Calls `visit` with the tasks that it waits for.
    pub(crate) fn visit(&self, visit: &mut dyn FnMut(TaskRef)) {
        self.latest(usize::MAX).into_iter().filter(|task| !task.state.load().is_done()).for_each(visit);
    }

    /// All tasks are over: the first failure, if there is one.
    fn result(&self) -> Result<()> {
        let mut owned = std::mem::take(&mut *self.owned.lock());
        if let Some(run) = &self.run {
            owned.failures.add(run.take_failures());
        }
        owned.into_result()
    }
}

/// The future of [`datadeps`].
#[must_use = "futures do nothing unless awaited"]
pub struct Datadeps<F: Future> {
    queue: Queue,
    /// Of the body, once it has ended.
    output: Option<F::Output>,
    /// From then on.
    ending: Option<Arc<Ending>>,
    end: Option<DTask<()>>,
    /// For so many tasks that waits.
    awaited: usize,
    /// It has given a result.
    is_over: bool,
    body: F,
}

impl<F: Future> Future for Datadeps<F> {
    type Output = Result<F::Output>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `body` is pinned when `self` is and only projected; the other fields are never pinned.
        let (queue, output, known, end, awaited, is_over, body) = unsafe {
            let Datadeps { queue, output, ending, end, awaited, is_over, body } = self.get_unchecked_mut();
            (queue, output, ending, end, awaited, is_over, Pin::new_unchecked(body))
        };
        if *is_over {
            return Poll::Pending; // Polled after its end, which a future may answer as it likes.
        }
        let ending = match known {
            Some(ending) => ending.clone(),
            None => {
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
                let run = queue.plan.as_ref().and_then(Issue::run);
                let ending = known.insert(Ending::new(queue.owned.take(), run)).clone();
                if let Some(held) = held {
                    (*is_over, *known) = (true, None);
                    ending.let_go();
                    return Poll::Ready(Err(Error::Deadlock {
                        root: held.clone().into(),
                        path: [held].into(),
                        in_bulk: true,
                    }));
                }
                ending
            }
        };
        let waited = loop {
            if let Some(waited) = end {
                let waited = ready!(Pin::new(waited).poll(cx));
                *end = None;
                if waited.is_err() {
                    break waited;
                }
                ending.prune();
            }
            // In a recording every task of the block is seen to come before its end.
            *awaited = if record::is_on() { usize::MAX } else { awaited.saturating_mul(2).max(AWAITED_MIN) };
            let latest = ending.latest(*awaited);
            if latest.is_empty() {
                break Ok(());
            }
            *end = Some(crate::spawn::end_of_block(&latest, &ending));
        };
        // The wait itself would never have ended, and what is left goes on.
        if let Err(error @ Error::Deadlock { .. }) = waited {
            (*is_over, *known) = (true, None);
            ending.let_go();
            return Poll::Ready(Err(error));
        }
        // Its steps are over but for a few instructions, and its places are given back then: the next run can begin by the graph.
        if let Some(run) = &ending.run {
            ready!(run.poll_over(cx));
        }
        (*is_over, *known) = (true, None);
        let result = ending.result().and(waited);
        match output.take() {
            Some(output) => Poll::Ready(result.map(|()| output)),
            None => Poll::Pending, // Not reached: its body has ended.
        }
    }
}

impl<F: Future> Drop for Datadeps<F> {
    fn drop(&mut self) {
        let (owned, run) = match &self.ending {
            // It has given a result, and what is left goes on.
            _ if self.is_over => return,
            None => (self.queue.owned.take(), self.queue.plan.as_ref().and_then(Issue::run)),
            Some(ending) => (std::mem::take(&mut *ending.owned.lock()), ending.run.clone()),
        };
        owned.cancel(run.as_deref());
    }
}
