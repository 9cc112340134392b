//! Trying again: `spawn!(f(x)?; retries = n, retry_delay = d)` and `spawn(retry(n, d, || async { .. }))`.
//!
//! 1. `n` retries are `n` runs after the first; the last failure is the one that is reported.
//! 2. A panic is a failure, and so is an `Err` of a fallible body. An input that cannot be used is none: it would
//!    not change.
//! 3. A task that was ended (cancelled, timed out, shut down) is not tried again.
//! 4. Between attempts the task is suspended: it holds no processor.

use super::{Body, Borrowing, Stop};
use crate::error::quietly;
use crate::task::{Linker, RawTask};
use dagger_core::Scope;
use std::error::Error as StdError;
use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How many attempts are left, and the pause before the next.
struct Attempts {
    left: u32,
    delay: Duration,
    made: u32,
    pause: Pause,
}

/// What stands between two attempts.
enum Pause {
    None,
    /// Let others run first.
    Yield,
    Sleep(Pin<Box<tokio::time::Sleep>>),
}

impl Attempts {
    fn new(retries: u32, delay: Duration) -> Self {
        Attempts { left: retries, delay, made: 0, pause: Pause::None }
    }

    /// Ends when the next attempt may run.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.pause {
            Pause::None => Poll::Ready(()),
            Pause::Yield => {
                self.pause = Pause::None;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Pause::Sleep(sleep) => {
                ready!(sleep.as_mut().poll(cx));
                self.pause = Pause::None;
                Poll::Ready(())
            }
        }
    }

    /// After a failed attempt: true if there is another one.
    fn again(&mut self) -> bool {
        let ended = crate::current().is_some_and(|task| task.is_cancelled());
        if self.left == 0 || ended {
            return false;
        }
        self.left -= 1;
        self.made += 1;
        crate::pool::set_attempt(self.made);
        self.pause = if self.delay.is_zero() {
            Pause::Yield
        } else {
            Pause::Sleep(Box::pin(tokio::time::sleep(self.delay)))
        };
        true
    }
}

/// A body that is tried again after a failure.
pub struct RetryBody<B> {
    body: B,
    attempts: Attempts,
}

/// Tries the body again after a failure; it must be made with `Again`.
pub fn retrying<B: Body, X>(
    call: Borrowing<B, X>,
    retries: u32,
    delay: Duration,
) -> Borrowing<RetryBody<B>, X> {
    call.map(|body| RetryBody { body, attempts: Attempts::new(retries, delay) })
}

impl<B: Body> Body for RetryBody<B> {
    type Output = B::Output;
    type Name = B::Name;
    const ACCESSES: usize = B::ACCESSES;
    const WRITES: bool = B::WRITES;

    fn link(&self, linker: &mut Linker) {
        self.body.link(linker);
    }
    fn inputs(&self, visit: &mut dyn FnMut(RawTask)) {
        self.body.inputs(visit);
    }
    fn scope(&self, scopes: &mut Option<Scope>) {
        self.body.scope(scopes);
    }
    fn has_begun(&self) -> bool {
        self.attempts.made > 0 || self.body.has_begun()
    }
    fn clear(self: Pin<&mut Self>) {
        // SAFETY: as in `poll`.
        unsafe { self.map_unchecked_mut(|this| &mut this.body) }.clear();
    }
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<B::Output, Stop>> {
        // SAFETY: `body` is pinned when the wrapper is and only projected; `attempts` is `Unpin`.
        let this = unsafe { self.get_unchecked_mut() };
        loop {
            ready!(this.attempts.poll_pause(cx));
            // SAFETY: as above.
            let body = unsafe { Pin::new_unchecked(&mut this.body) };
            let stop = match catch_unwind(AssertUnwindSafe(|| body.poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(Ok(value))) => return Poll::Ready(Ok(value)),
                Ok(Poll::Ready(Err(stop))) => stop,
                Err(payload) => Stop::panic(payload),
            };
            if stop.is_of_inputs() || !this.attempts.again() {
                return Poll::Ready(Err(stop));
            }
            quietly(|| drop(stop));
        }
    }
}

/// Makes a future that runs `make()` again after a failure, up to `retries` times after the first run, `delay` apart.
///
/// A failure is a panic and, under [`try_spawn`](crate::try_spawn), also an `Err`. The last one is reported. Give it
/// to `spawn` or `try_spawn`, or await it inside a task. A task that was cancelled is not tried again.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// static CALLS: AtomicU32 = AtomicU32::new(0);
/// let task = try_spawn(retry(3, std::time::Duration::ZERO, || async {
///     if CALLS.fetch_add(1, Relaxed) < 2 { Err("not yet") } else { Ok(7) }
/// }));
/// assert_eq!(task.await?, 7);
/// # Ok(()) }
/// ```
pub fn retry<M, F>(retries: u32, delay: Duration, make: M) -> Retry<M>
where
    M: FnMut() -> F,
    F: Future,
{
    Retry { make, attempts: Attempts::new(retries, delay) }
}

/// What [`retry`] makes.
#[must_use = "does nothing unless it is spawned or awaited"]
pub struct Retry<M> {
    make: M,
    attempts: Attempts,
}

/// The future of a [`Retry`]. `TRY`: an `Err` is a failure too.
#[doc(hidden)]
pub struct RetryFuture<M, F, C> {
    retry: Retry<M>,
    running: Option<Pin<Box<F>>>,
    is_failure: C,
}

impl<M, F> IntoFuture for Retry<M>
where
    M: FnMut() -> F,
    F: Future,
{
    type Output = F::Output;
    type IntoFuture = RetryFuture<M, F, fn(&F::Output) -> bool>;
    fn into_future(self) -> Self::IntoFuture {
        RetryFuture { retry: self, running: None, is_failure: |_| false }
    }
}

/// What [`try_spawn`](crate::try_spawn) takes: a future of a `Result`, or a [`Retry`] of one.
#[diagnostic::on_unimplemented(
    message = "`try_spawn` takes a future of a `Result`, not `{Self}`",
    note = "use `spawn` for a future whose output is a plain value"
)]
pub trait TryIntoFuture {
    /// What the task gives.
    type Ok;
    /// What fails it.
    type Err;
    /// The future.
    type Future: Future<Output = Result<Self::Ok, Self::Err>>;
    #[doc(hidden)]
    fn try_into_future(self) -> Self::Future;
}

impl<F, T, E> TryIntoFuture for F
where
    F: Future<Output = Result<T, E>>,
{
    type Ok = T;
    type Err = E;
    type Future = F;
    fn try_into_future(self) -> F {
        self
    }
}

impl<M, F, T, E> TryIntoFuture for Retry<M>
where
    M: FnMut() -> F,
    F: Future<Output = Result<T, E>>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    type Ok = T;
    type Err = E;
    type Future = RetryFuture<M, F, fn(&Result<T, E>) -> bool>;
    fn try_into_future(self) -> Self::Future {
        RetryFuture { retry: self, running: None, is_failure: Result::is_err }
    }
}

// The running attempt is boxed, the rest is never pinned.
impl<M, F, C> Unpin for RetryFuture<M, F, C> {}

impl<M, F> Future for RetryFuture<M, F, fn(&F::Output) -> bool>
where
    M: FnMut() -> F,
    F: Future,
{
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        loop {
            ready!(this.retry.attempts.poll_pause(cx));
            let attempt = catch_unwind(AssertUnwindSafe(|| {
                let running = this.running.get_or_insert_with(|| Box::pin((this.retry.make)()));
                running.as_mut().poll(cx)
            }));
            match attempt {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(output)) => {
                    this.running = None;
                    if !(this.is_failure)(&output) || !this.retry.attempts.again() {
                        return Poll::Ready(output);
                    }
                    quietly(|| drop(output));
                }
                Err(payload) => {
                    this.running = None;
                    if !this.retry.attempts.again() {
                        std::panic::resume_unwind(payload);
                    }
                    quietly(|| drop(payload));
                }
            }
        }
    }
}
