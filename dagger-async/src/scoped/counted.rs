//! [`counted`]: how far a block has come, for those who show it.
//!
//! The tasks spawned while the body is polled are listed; a look at the counter takes those that are over off the list. So a
//! completion costs nothing more, and where nothing counts a spawn neither.

use super::queue::{Frame, Looks, Queue};
use crate::task::{RawTask, TaskRef};
use parking_lot::Mutex;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Polls `body` and counts the tasks that it spawns, those of datadeps blocks inside it included, those of its tasks not.
///
/// It changes nothing else: the output is that of the body, and it waits for no task. Dropping the future drops the body.
/// While it lives, a task that has ended keeps its memory until somebody looks at the [`Counter`], or the list has doubled.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let block = dagger_async::counted(datadeps(async {
///     for i in 0..10 {
///         spawn!((|i: i32| i * i)(i));
///     }
/// }));
/// let counter = block.counter();
/// assert_eq!(counter.count().spawned, 0);
/// block.await?;
/// let count = counter.count();
/// assert_eq!((count.spawned, count.ended), (10, 10));
/// # Ok(()) }
/// ```
pub fn counted<F: Future>(body: F) -> Counted<F> {
    let counting = Arc::<Mutex<Counting>>::default();
    Counted { queue: Queue::looking(Looks::Counts(counting.clone())), counting, body }
}

/// How long the list is at least when it is looked through.
const LISTED_MIN: usize = 256;

/// The tasks that have not ended, as far as is known, and how many there were.
#[derive(Default)]
pub(super) struct Counting {
    tasks: Vec<TaskRef>,
    spawned: u64,
    /// The list is looked through when it is this long.
    limit: usize,
}

impl Counting {
    /// Lists a new task. What it gives is over, and to be dropped without the lock: with a task may go a user's value.
    #[must_use]
    pub(super) fn add(&mut self, task: RawTask) -> Vec<TaskRef> {
        let mut over = Vec::new();
        if self.tasks.len() >= self.limit.max(LISTED_MIN) {
            over = self.prune();
            self.limit = 2 * self.tasks.len();
        }
        self.tasks.push(TaskRef::new(task));
        self.spawned += 1;
        over
    }

    /// Takes what is over off the list.
    #[must_use]
    fn prune(&mut self) -> Vec<TaskRef> {
        self.tasks.extract_if(.., |task| task.is_over()).collect()
    }
}

/// The future of [`counted`].
#[must_use = "futures do nothing unless awaited"]
pub struct Counted<F> {
    queue: Queue,
    counting: Arc<Mutex<Counting>>,
    body: F,
}

impl<F> Counted<F> {
    /// What tells how far it has come, from any thread.
    pub fn counter(&self) -> Counter {
        Counter { counting: self.counting.clone() }
    }
}

impl<F: Future> Future for Counted<F> {
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

/// Tells how far a [`counted`] block has come. A clone is one more handle to the same count.
#[derive(Clone)]
pub struct Counter {
    counting: Arc<Mutex<Counting>>,
}

/// How far a block has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Count {
    /// Tasks spawned so far.
    pub spawned: u64,
    /// Those that are over, however they ended.
    pub ended: u64,
}

impl Counter {
    /// Looks at all tasks that had not ended at the last look: about 10 ns each, during which no task can be spawned in the
    /// block. A few times a second is what it is made for.
    pub fn count(&self) -> Count {
        let mut counting = self.counting.lock();
        let over = counting.prune();
        let (spawned, left) = (counting.spawned, counting.tasks.len() as u64);
        drop(counting);
        drop(over);
        Count { spawned, ended: spawned - left }
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { spawned, ended } = self.count();
        f.debug_struct("Counter").field("spawned", &spawned).field("ended", &ended).finish()
    }
}
