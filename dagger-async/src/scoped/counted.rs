//! [`counted`]: how far a block has come, for those who show it.
//!
//! The tasks spawned while the body is polled are listed as a datadeps block lists them; a look at the counter takes those that
//! are over off the list. So a completion costs nothing more, and where nothing counts a spawn neither.

use super::queue::{Frame, Queue};
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
    Counted { queue: Arc::new(Queue::counted()), body }
}

/// The future of [`counted`].
#[must_use = "futures do nothing unless awaited"]
pub struct Counted<F> {
    queue: Arc<Queue>,
    body: F,
}

impl<F> Counted<F> {
    /// What tells how far it has come, from any thread.
    pub fn counter(&self) -> Counter {
        Counter { queue: self.queue.clone() }
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
    queue: Arc<Queue>,
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
        let (spawned, ended, over) = self.queue.owned.lock().count();
        drop(over); // With a task may go a user's value.
        Count { spawned, ended }
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count { spawned, ended } = self.count();
        f.debug_struct("Counter").field("spawned", &spawned).field("ended", &ended).finish()
    }
}
