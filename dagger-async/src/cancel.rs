//! Cancelling many tasks by one token.

use crate::error::Error;
use crate::task::{self, RawTask, TaskRef};
use parking_lot::Mutex;
use slab::Slab;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire},
};

/// Cancels every task that was given it, by [`Options::cancel`](crate::Options::cancel) or through
/// [`with_options`](crate::with_options), also children and grandchildren.
///
/// Clones are the same token. What is spawned with a token that is cancelled already is cancelled at once.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() {
/// let token = CancelToken::new();
/// let task = Options::new().cancel(token.clone()).spawn(std::future::pending::<()>());
/// token.cancel();
/// assert!(matches!(task.await, Err(Error::Cancelled { .. })));
/// # }
/// ```
#[derive(Clone, Default)]
pub struct CancelToken(Arc<Token>);

#[derive(Default)]
struct Token {
    cancelled: AtomicBool,
    tasks: Mutex<Slab<TaskRef>>,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the tasks that have it, as [`DTask::cancel`](crate::DTask::cancel) does. A second call does nothing.
    pub fn cancel(&self) {
        if self.0.cancelled.swap(true, AcqRel) {
            return;
        }
        // Tasks that end leave the list under its lock: take it, end them without.
        let tasks: Vec<TaskRef> = self.0.tasks.lock().iter().map(|(_, task)| task.clone()).collect();
        for task in tasks {
            cancel(task.raw());
        }
    }

    /// True once somebody has cancelled it.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Acquire)
    }

    /// Adds a task that is being spawned; the key takes it out again. `None`: the token is cancelled.
    pub(crate) fn register(&self, task: RawTask) -> Option<usize> {
        let key = self.0.tasks.lock().insert(TaskRef::new(task));
        if self.is_cancelled() {
            // Either `cancel` saw it in the list or we see the flag; both do no harm.
            self.unregister(key);
            return None;
        }
        Some(key)
    }

    pub(crate) fn unregister(&self, key: usize) {
        let task = self.0.tasks.lock().try_remove(key);
        drop(task);
    }
}

fn cancel(task: RawTask) {
    task::end(task, |header| Error::Cancelled { root: header.info().into() });
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CancelToken({})", if self.is_cancelled() { "cancelled" } else { "live" })
    }
}
