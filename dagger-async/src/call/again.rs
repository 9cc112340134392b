//! Calls that can be made again: what a frozen graph keeps of a spawn.
//!
//! 1. What can be called again is a body of its own kind, so that other bodies know nothing of it. Which it is says the user: whether a
//!    closure is `Clone` the compiler knows only after it has chosen among methods.
//! 2. A copy is made from a body that has not run, by the one who spawns it; it points to the same chunks, which whoever keeps
//!    it keeps too.
//! 3. A copy is called by one thread at a time, whose turn it is at all those chunks, and who has looked whether they can be used.

use super::args::RetryArgs;
use super::function::{Call, Callee, TryBody};
use super::source::{Mutated, Once};
use super::{Body, Borrowing, Stop, Turn};
use crate::task::{Linker, RawTask};
use dagger_core::Scope;
use std::error::Error as StdError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A call that can be made again and again, whatever it gives.
pub trait Again: Send {
    /// Calls the function with fresh clones of itself and its by-value arguments. Its result is dropped.
    #[doc(hidden)]
    fn call(&mut self) -> Result<(), Stop>;
}

/// A call that can be made again and again.
pub trait Repeated: Send + 'static {
    /// What each gives.
    type Output;
    #[doc(hidden)]
    fn repeat(&mut self) -> Result<Self::Output, Stop>;
}

/// A body whose call can be made again.
#[diagnostic::on_unimplemented(
    message = "this call cannot be made again",
    note = "with `repeatable = true` the function and its by-value arguments must be `Clone`, and no argument a task or an `Await`"
)]
pub trait CallAgain: Body {
    /// Its call.
    #[doc(hidden)]
    type Repeated: Repeated;
    #[doc(hidden)]
    fn repeated(&self) -> Self::Repeated;
}

/// A function and its arguments.
pub struct RepeatedCall<F, A> {
    callee: F,
    args: A,
}

impl<F, A> Repeated for RepeatedCall<F, A>
where
    F: Callee<A> + Clone,
    A: RetryArgs<Mutated>,
{
    type Output = F::Output;
    #[inline]
    fn repeat(&mut self) -> Result<F::Output, Stop> {
        self.args.locate_again(Turn(()))?;
        Ok(self.callee.clone().call(self.args.get_again(Turn(()))))
    }
}

/// One whose `Err` is a failure.
pub struct TryRepeated<R>(R);

impl<R, T, E> Repeated for TryRepeated<R>
where
    R: Repeated<Output = Result<T, E>>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    type Output = T;
    fn repeat(&mut self) -> Result<T, Stop> {
        self.0.repeat()?.map_err(Stop::user)
    }
}

impl<F, A> CallAgain for Call<F, A, Once>
where
    F: Callee<A> + Clone,
    A: RetryArgs<Mutated> + Clone,
{
    type Repeated = RepeatedCall<F, A>;
    fn repeated(&self) -> Self::Repeated {
        let (callee, args) = self.parts();
        RepeatedCall { callee: callee.clone(), args: args.clone() }
    }
}

impl<B> CallAgain for TryBody<B>
where
    B: CallAgain,
    TryBody<B>: Body,
    TryRepeated<B::Repeated>: Repeated,
{
    type Repeated = TryRepeated<B::Repeated>;
    fn repeated(&self) -> Self::Repeated {
        TryRepeated(self.0.repeated())
    }
}

/// Any call.
struct Any<R>(R);

impl<R: Repeated> Again for Any<R> {
    fn call(&mut self) -> Result<(), Stop> {
        // What the result drops may panic too.
        let called = catch_unwind(AssertUnwindSafe(|| self.0.repeat().map(drop)));
        called.unwrap_or_else(|payload| Err(Stop::panic(payload)))
    }
}

/// A body whose call can be made again: `repeatable = true` of `spawn!`.
pub struct Repeatable<B>(B);

/// Lets the call be made again.
pub fn repeatable<B: CallAgain, X>(call: Borrowing<B, X>) -> Borrowing<Repeatable<B>, X> {
    call.map(Repeatable)
}

impl<B: CallAgain> Body for Repeatable<B> {
    type Output = B::Output;
    as_its_body!();

    fn again(&self) -> Option<Box<dyn Again>> {
        Some(Box::new(Any(self.0.repeated())))
    }
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<B::Output, Stop>> {
        // SAFETY: as in `clear`.
        unsafe { self.map_unchecked_mut(|this| &mut this.0) }.poll(cx)
    }
}
