//! [`current`]: what a task knows of itself.

use crate::pool::local;
use crate::task::{TaskId, TaskRef};
use dagger_core::Processor;
use std::fmt;

/// The task whose body is running here; `None` outside tasks, also in the future of `block_on`.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// assert!(current().is_none());
/// let (name, attempt) = spawn!((|| {
///     let task = current().unwrap();
///     (task.name().to_owned(), task.attempt())
/// })(); name = "me").await?;
/// assert_eq!((name.as_str(), attempt), ("me", 0));
/// # Ok(()) }
/// ```
pub fn current() -> Option<Current> {
    local::with(|local| {
        let task = local.task()?;
        let thread = local.thread.get();
        // SAFETY: the task is not retired while its body runs, so its pool is alive (`cell.rs`, invariant 5).
        let processor = unsafe { &*task.pool }.processor(thread);
        Some(Current { task: TaskRef::new(task), processor })
    })
}

/// A running task, as [`current`] gives it.
#[derive(Clone)]
pub struct Current {
    task: TaskRef,
    processor: Processor,
}

impl Current {
    /// The id, as [`DTask::id`](crate::DTask::id).
    pub fn id(&self) -> TaskId {
        self.task.id
    }

    /// The name, as [`DTask::name`](crate::DTask::name).
    pub fn name(&self) -> &str {
        self.task.name()
    }

    /// Where this part of the body runs: `thread` is the i of `Scope::thread(i)`. A body that may block (option `blocking`)
    /// runs beside the workers, on a processor of kind `Blocking`. An async body may go on elsewhere after an `.await`.
    pub fn processor(&self) -> Processor {
        self.processor.clone()
    }

    /// 0 at the first run, then counted up by retries.
    pub fn attempt(&self) -> u32 {
        let guard = self.task.state.lock();
        self.task.raw().guarded(&guard).known_extra().map_or(0, |extra| extra.attempt)
    }

    /// True when the handles have an outcome already (a cancel, a timeout, a shutdown): what the body returns will be
    /// dropped, so it may as well return early.
    pub fn is_cancelled(&self) -> bool {
        self.task.state.load().is_done()
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Current(`{}` #{} on {})", self.name(), self.id(), self.processor)
    }
}
