//! [`datadeps`]: a block that owns the tasks spawned in it.
//!
//! 1. The tasks are listed in the order of their spawns; those that are over leave the list from time to time, so a block
//!    of ten million tasks keeps no more of them than are unfinished, twice.
//! 2. A failure is collected once for each root, by the innermost block; blocks around wait for the task too, but leave its
//!    failure to the inner one.
//! 3. The end of a block is a task that comes after all that are left, so that a wait for a block is a wait for a task, and a
//!    cycle through it is found like any other.

use super::queue::{Frame, Queue};
use crate::error::{Error, Result};
use crate::pool::local;
use crate::task::{self, DTask, RawTask, TaskId, TaskRef};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// How many tasks a block lists before it looks which are over.
const LISTED_MIN: usize = 256;
/// How many failures a block keeps apart.
const FAILURES_MAX: usize = 1024;

/// The tasks of a block, and what became of those that left the list.
#[derive(Default)]
pub(super) struct Owned {
    tasks: Vec<Listed>,
    /// The list is looked through when it is this long.
    limit: usize,
    spawned: u64,
    failures: HashMap<Option<TaskId>, Failure>,
}

pub(super) struct Listed {
    task: TaskRef,
    /// Its place in the order of spawns.
    at: u64,
    /// This block collects its failure.
    collects: bool,
}

struct Failure {
    at: u64,
    error: Error,
    /// It is that of the root itself, not of a task that depended on it.
    own: bool,
}

impl Owned {
    /// Gives what left the list, which is to be dropped without the lock: with a task may go a user's error.
    #[must_use]
    pub(super) fn add(&mut self, task: RawTask, collects: bool) -> Vec<Listed> {
        let mut over = Vec::new();
        if self.tasks.len() >= self.limit.max(LISTED_MIN) {
            over = self.prune();
            self.limit = 2 * self.tasks.len();
        }
        self.tasks.push(Listed { task: TaskRef::new(task), at: self.spawned, collects });
        self.spawned += 1;
        over
    }

    /// The task that was spawned last.
    pub(super) fn last(&self) -> Option<TaskRef> {
        self.tasks.last().map(|last| last.task.clone())
    }

    /// Takes what is over off the list, with its failure.
    #[must_use]
    fn prune(&mut self) -> Vec<Listed> {
        let Owned { tasks, failures, .. } = self;
        let is_over = |listed: &mut Listed| {
            let state = listed.task.state.load();
            state.is_done() && state.is_gone()
        };
        let over: Vec<Listed> = tasks.extract_if(.., is_over).collect();
        over.iter().for_each(|listed| collect(failures, listed));
        over
    }

    /// How many tasks there were, and how many of them are over. What left the list is to be dropped without the lock.
    #[must_use]
    pub(super) fn count(&mut self) -> (u64, u64, Vec<Listed>) {
        let over = self.prune();
        (self.spawned, self.spawned - self.tasks.len() as u64, over)
    }

    /// Cancels what has not started.
    fn cancel(self) {
        for listed in self.tasks {
            task::cancel_unstarted(listed.task.raw());
        }
    }

    /// The first root in the order of spawns, with the others.
    fn into_result(mut self) -> Result<()> {
        for listed in &self.tasks {
            collect(&mut self.failures, listed);
        }
        let mut failures: Vec<Failure> = self.failures.into_values().collect();
        failures.sort_by_key(|failure| failure.at);
        let mut errors = failures.into_iter().map(|failure| failure.error);
        match errors.next() {
            None => Ok(()),
            Some(first) => Err(first.with_others(errors.collect())),
        }
    }
}

/// Notes the failure of a task that is done.
fn collect(failures: &mut HashMap<Option<TaskId>, Failure>, listed: &Listed) {
    let Some(error) = listed.task.error().filter(|_| listed.collects) else { return };
    let own = error.root().is_none_or(|root| root.id() == listed.task.id);
    let failure = || Failure { at: listed.at, error: error.of_root().clone(), own };
    let full = failures.len() >= FAILURES_MAX;
    match failures.entry(error.root().map(|root| root.id())) {
        Entry::Vacant(place) if !full => _ = place.insert(failure()),
        Entry::Vacant(_) => {}
        // The root's own place in the order is what counts.
        Entry::Occupied(mut known) => {
            if own || !known.get().own && listed.at < known.get().at {
                known.insert(failure());
            }
        }
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
    Datadeps { queue: Queue::block(), output: None, end: None, body }
}

/// The future of [`datadeps`].
#[must_use = "futures do nothing unless awaited"]
pub struct Datadeps<F: Future> {
    queue: Queue,
    /// Of the body, once it has ended.
    output: Option<F::Output>,
    end: Option<DTask<()>>,
    body: F,
}

impl<F: Future> Future for Datadeps<F> {
    type Output = Result<F::Output>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `body` is pinned when `self` is and only projected; the other fields are never pinned.
        let (queue, output, end, body) = unsafe {
            let this = self.get_unchecked_mut();
            (&this.queue, &mut this.output, &mut this.end, Pin::new_unchecked(&mut this.body))
        };
        if output.is_none() {
            *output = Some(ready!(Frame::around(queue, || body.poll(cx))));
            let (over, unfinished) = {
                let mut owned = queue.owned.lock();
                let over = owned.prune();
                (over, owned.tasks.iter().map(|listed| listed.task.clone()).collect::<Vec<TaskRef>>())
            };
            drop(over);
            // What a `bulk` around this block holds back ends after the bulk: the wait would never end.
            let held = local::with(|local| {
                let frame = local.queue()?;
                unfinished.iter().find(|task| frame.holds(task.raw())).map(|task| task.info())
            });
            if let Some(held) = held {
                *queue.owned.lock() = Owned::default();
                return Poll::Ready(Err(Error::Deadlock { root: held.clone().into(), path: [held].into() }));
            }
            if !unfinished.is_empty() {
                *end = Some(crate::spawn::end_of_block(&unfinished));
            }
        }
        let mut waited = Ok(());
        if let Some(end) = end {
            waited = ready!(Pin::new(end).poll(cx));
        }
        *end = None;
        let Some(output) = output.take() else {
            return Poll::Pending; // Polled after its end, which a future may answer as it likes.
        };
        let owned = std::mem::take(&mut *queue.owned.lock());
        Poll::Ready(match (owned, waited) {
            // The wait itself would never have ended.
            (_, Err(error @ Error::Deadlock { .. })) => Err(error),
            (owned, waited) => owned.into_result().and(waited).map(|()| output),
        })
    }
}

impl<F: Future> Drop for Datadeps<F> {
    fn drop(&mut self) {
        let owned = std::mem::take(self.queue.owned.get_mut());
        owned.cancel();
    }
}
