//! [`DTask`]: the handle of a task, and the ways to wait for it.

use super::cell::RawTask;
use super::claim::{Claim, Shared};
use super::id::TaskId;
use super::run;
use super::wait::{self, Kind, NONE};
use crate::error::{Error, PanicText, Result};
use crate::pool::{Local, local, worker};
use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

/// The handle of a task: a future of its result.
///
/// The task is submitted when the handle is made, and runs whether or not anybody waits; dropping the handle detaches it.
/// Awaiting gives `Result<T>`. A use by value (`.await`, or as an argument of [`spawn!`](crate::spawn!)) moves the value if
/// it is the last one, else clones it; where `T` is not `Clone` it waits for the uses by reference to end.
/// `(&task).await` gives a [`Shared`], which derefs to `T`.
///
/// Dropping the future that awaits only stops waiting. After an await that took the value, another one through `&mut`
/// gives [`Error::Taken`].
pub struct DTask<T: Send + Sync + 'static>(Claim<T>);

impl<T: Send + Sync + 'static> DTask<T> {
    pub(crate) fn new(claim: Claim<T>) -> Self {
        DTask(claim)
    }
    pub(crate) fn into_claim(self) -> Claim<T> {
        self.0
    }
    pub(crate) fn claim(&self) -> &Claim<T> {
        &self.0
    }
    pub(crate) fn raw(&self) -> RawTask {
        self.0.raw()
    }

    /// The id of the task.
    pub fn id(&self) -> TaskId {
        self.0.raw().id
    }

    /// The given name, else the callee as written (for a future: the function that made it).
    pub fn name(&self) -> &str {
        // The borrow is of the handle: its claim keeps the task, whose name never changes.
        // SAFETY: as said; `RawTask` is a pointer without a lifetime of its own.
        unsafe { &*std::ptr::from_ref(self.0.raw().name()) }
    }

    /// True when there is a result: a value, an error, or the end by a cancel or timeout.
    pub fn is_finished(&self) -> bool {
        self.0.raw().state.load().is_done()
    }

    /// Ends the task: its handles give [`Error::Cancelled`] at once, its dependants never run.
    ///
    /// A body that has not started never will; an async body is dropped at its suspension; a running function is not
    /// interrupted, its result is dropped when it returns. Children that it spawned go on. Does nothing to a task that has
    /// ended.
    pub fn cancel(&self) {
        run::end(self.0.raw(), |header| Error::Cancelled { root: header.info().into() });
    }

    /// Waits for the end of the task and reports no error. Dropping the future stops waiting.
    pub fn wait(&self) -> Wait<'_, T> {
        Wait { task: self, key: NONE }
    }

    /// Blocks the thread until the task has ended; for use outside async code.
    ///
    /// Inside a task it works too: the awaited task is run in place if it is ready; otherwise this worker's
    /// processor goes to a spare thread for as long as this one waits.
    ///
    /// # Errors
    /// As awaiting, and [`Error::TooManyThreads`] when no spare thread can take over.
    pub fn blocking_wait(self) -> Result<T> {
        block_until_done(self.raw())?;
        // Done; but the value may have to wait for uses by reference.
        worker::block_on(self)
    }
}

/// Blocks until the task is done.
pub(super) fn block_until_done(task: RawTask) -> Result<()> {
    if task.state.load().is_done() {
        return Ok(());
    }
    local::with(|local| {
        wait::note_await(task);
        run::register_blocked(local);
        let waited = match wait::check(task, Kind::Block, local) {
            Some(error) => Err(error),
            None => block(task, local),
        };
        wait::stop_waiting_for(task, local);
        waited
    })
}

fn block(task: RawTask, local: &Local) -> Result<()> {
    while !task.state.load().is_done() {
        if local.task().is_some() && worker::stack_has_room() && run::run_in_place(task, local) {
            continue;
        }
        let waker = Waker::from(Arc::new(ThreadWaker(std::thread::current())));
        let mut key = NONE;
        let by_task = local.task().is_some();
        let waited = worker::blocking(|| {
            while wait::leave_waker(task, &mut key, &waker, by_task) {
                std::thread::park();
            }
        });
        if let Err(limit) = waited {
            return Err(Error::TooManyThreads { root: local.task().unwrap_or(task).info().into(), limit });
        }
    }
    Ok(())
}

/// Wakes a thread that parks.
pub(crate) struct ThreadWaker(pub(crate) std::thread::Thread);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

impl<T: Send + Sync + 'static> Future for DTask<T> {
    type Output = Result<T>;
    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let claim = &mut self.0;
        match claim.poll_done(cx.waker()) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) => match claim.take_alone() {
                Some(value) => Poll::Ready(Ok(value)),
                None => poll_take(claim, cx.waker()),
            },
        }
    }
}

/// Takes the value of a task that is done, if there is one and others do not keep it from that.
fn poll_take<T: Send + Sync + 'static>(claim: &mut Claim<T>, waker: &Waker) -> Poll<Result<T>> {
    ready!(claim.poll_takeable(waker))?;
    // `T::clone` is the user's.
    let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| claim.take()));
    Poll::Ready(
        taken.map_err(|payload| Error::Panicked {
            root: claim.raw().info().into(),
            text: PanicText::of(payload),
        }),
    )
}

impl<'a, T: Send + Sync + 'static> IntoFuture for &'a DTask<T> {
    type Output = Result<Shared<T>>;
    type IntoFuture = AwaitRef<'a, T>;
    fn into_future(self) -> AwaitRef<'a, T> {
        AwaitRef { task: self, key: NONE }
    }
}

/// The future of `(&task).await`.
#[must_use = "futures do nothing unless awaited"]
pub struct AwaitRef<'a, T: Send + Sync + 'static> {
    task: &'a DTask<T>,
    key: u32,
}

impl<T: Send + Sync + 'static> Future for AwaitRef<'_, T> {
    type Output = Result<Shared<T>>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.task;
        ready!(wait::poll_done(task.raw(), &mut self.key, cx.waker()))?;
        task.0.check_value()?;
        Poll::Ready(Ok(Shared::new(task.0.clone())))
    }
}

impl<T: Send + Sync + 'static> Drop for AwaitRef<'_, T> {
    fn drop(&mut self) {
        wait::withdraw(self.task.raw(), &mut self.key);
    }
}

/// The future of [`DTask::wait`].
#[must_use = "futures do nothing unless awaited"]
pub struct Wait<'a, T: Send + Sync + 'static> {
    task: &'a DTask<T>,
    key: u32,
}

impl<T: Send + Sync + 'static> Future for Wait<'_, T> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.task;
        if let Err(error) = ready!(wait::poll_done(task.raw(), &mut self.key, cx.waker())) {
            // There is nobody to give it to, and waiting on would never end.
            tracing::error!(target: "dagger", "wait() returned before its task ended: {error}");
        }
        Poll::Ready(())
    }
}

impl<T: Send + Sync + 'static> Drop for Wait<'_, T> {
    fn drop(&mut self) {
        wait::withdraw(self.task.raw(), &mut self.key);
    }
}

impl<T: Clone + Send + Sync + 'static> Clone for DTask<T> {
    /// Another handle of the same task. Each use by value gets a value of its own.
    fn clone(&self) -> Self {
        self.raw().set_clone::<T>(T::clone);
        DTask(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for DTask<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.raw().state.load();
        let state = match (state.is_done(), state.has_value() && !self.0.is_spent()) {
            (false, _) => format!("{:?}", state.phase()),
            (true, true) => "Done".to_owned(),
            (true, false) if self.raw().error().is_some() => "Failed".to_owned(),
            (true, false) => "Taken".to_owned(),
        };
        write!(f, "DTask(`{}` #{} {state})", self.name(), self.id())
    }
}

/// Waits for all tasks; their results in the order given.
///
/// Dropping the future detaches those that have not ended.
pub async fn wait_all<T, I>(tasks: I) -> Vec<Result<T>>
where
    T: Send + Sync + 'static,
    I: IntoIterator<Item = DTask<T>>,
{
    // One after the other: the slowest decides, and each wakes at most once.
    let tasks: Vec<DTask<T>> = tasks.into_iter().collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await);
    }
    results
}

/// Waits until one of the tasks has ended, and says which; of several the first in the list. `None` for an empty list.
pub async fn wait_any<T: Send + Sync + 'static>(tasks: &[DTask<T>]) -> Option<usize> {
    if tasks.is_empty() {
        return None;
    }
    let mut waits: Vec<Wait<'_, T>> = tasks.iter().map(DTask::wait).collect();
    std::future::poll_fn(|cx| {
        for (index, wait) in waits.iter_mut().enumerate() {
            if Pin::new(wait).poll(cx).is_ready() {
                return Poll::Ready(Some(index));
            }
        }
        Poll::Pending
    })
    .await
}

/// `spawn!` lets a task know how its value is cloned where the compiler knows that it can be: see
/// [`NoteClone`].
#[doc(hidden)]
pub struct CloneProbe<'a, T: Send + Sync + 'static>(pub &'a DTask<T>);

/// Found for `T: Clone`.
#[doc(hidden)]
pub trait NoteClone {
    fn note(&self);
}

impl<T: Clone + Send + Sync + 'static> NoteClone for CloneProbe<'_, T> {
    fn note(&self) {
        self.0.raw().set_clone::<T>(T::clone);
    }
}

/// Found for every other `T`.
#[doc(hidden)]
pub trait NoteNothing {
    fn note(&self);
}

impl<T: Send + Sync + 'static> NoteNothing for &CloneProbe<'_, T> {
    fn note(&self) {}
}
