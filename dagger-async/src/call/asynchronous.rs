//! `spawn!(async f(a, &b))`: an `async fn` that borrows from the task.
//!
//! The future borrows the arguments, which lie beside it in the pinned body; it is boxed, so that its type need
//! not be named for every lifetime.

use super::arg::Arg;
use super::args::Args;
use super::source::{Again, Mutated, Source};
use super::{Body, Borrowing, Stop, Turn};
use crate::error::quietly;
use crate::task::{Linker, RawTask};
use dagger_core::Scope;
use std::future::Future;
use std::marker::{PhantomData, PhantomPinned};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An async function that takes these arguments and whose future is `Send`.
pub trait AsyncCallee<A: Args>: Send + 'static {
    /// What its future gives.
    type Output;
    #[doc(hidden)]
    fn call<'a>(self, args: A::Refs<'a>) -> BoxFuture<'a, Self::Output>;
}

macro_rules! async_callee {
    ($trait:ident $($name:ident)*) => {
        /// A function of one lifetime whose future is `Send`; `for<'a>` of it is what `spawn!(async ..)` needs.
        pub trait $trait<'a, $($name),*>: FnOnce($($name),*) -> <Self as $trait<'a, $($name),*>>::Future {
            /// What the future gives.
            type Output;
            /// The future.
            type Future: Future<Output = <Self as $trait<'a, $($name),*>>::Output> + Send + 'a;
        }

        impl<'a, Function, Fut, $($name),*> $trait<'a, $($name),*> for Function
        where
            Function: FnOnce($($name),*) -> Fut,
            Fut: Future + Send + 'a,
        {
            type Output = Fut::Output;
            type Future = Fut;
        }

        #[allow(non_snake_case, reason = "one identifier names the type and its value")]
        impl<Function, Output, $($name: Arg),*> AsyncCallee<($($name,)*)> for Function
        where
            Function: for<'a> $trait<'a, $($name::Ref<'a>,)* Output = Output> + Send + 'static,
        {
            type Output = Output;
            fn call<'a>(self, ($($name,)*): <($($name,)*) as Args>::Refs<'a>) -> BoxFuture<'a, Output> {
                Box::pin(self($($name),*))
            }
        }
    };
}

async_callee!(AsyncFn0);
async_callee!(AsyncFn1 A);
async_callee!(AsyncFn2 A B);
async_callee!(AsyncFn3 A B C);
async_callee!(AsyncFn4 A B C D);
async_callee!(AsyncFn5 A B C D E);
async_callee!(AsyncFn6 A B C D E G);
async_callee!(AsyncFn7 A B C D E G H);
async_callee!(AsyncFn8 A B C D E G H I);
async_callee!(AsyncFn9 A B C D E G H I J);
async_callee!(AsyncFn10 A B C D E G H I J K);
async_callee!(AsyncFn11 A B C D E G H I J K L);
async_callee!(AsyncFn12 A B C D E G H I J K L M);

/// A call of an async function.
pub struct AsyncCall<F: AsyncCallee<A>, A: Args, S> {
    /// Borrows from `args`; stands before it, so that it is dropped first.
    future: Option<BoxFuture<'static, F::Output>>,
    callee: Option<F>,
    args: A,
    source: PhantomData<S>,
    _pinned: PhantomPinned,
}

impl<F: AsyncCallee<A>, A: Args, S> AsyncCall<F, A, S> {
    pub(crate) fn new(callee: F, args: A) -> Self {
        AsyncCall { future: None, callee: Some(callee), args, source: PhantomData, _pinned: PhantomPinned }
    }
}

impl<F: AsyncCallee<A>, A: Args, X> Borrowing<AsyncCall<F, A, Again>, X> {
    /// An attempt may find what the one before has changed.
    pub fn mutated(self) -> Borrowing<AsyncCall<F, A, Again<Mutated>>, X> {
        self.map(|AsyncCall { callee, args, .. }| AsyncCall {
            future: None,
            callee,
            args,
            source: PhantomData,
            _pinned: PhantomPinned,
        })
    }
}

impl<F, A, S> Body for AsyncCall<F, A, S>
where
    F: AsyncCallee<A>,
    F::Output: 'static,
    A: Args,
    S: Source<F, A>,
{
    type Output = F::Output;
    type Name = F;
    const ACCESSES: usize = A::ACCESSES;
    const WRITES: bool = A::WRITES;

    fn link(&self, linker: &mut Linker) {
        self.args.link(linker);
    }
    fn inputs(&self, visit: &mut dyn FnMut(RawTask)) {
        self.args.inputs(Turn(()), visit);
    }
    fn scope(&self, scopes: &mut Option<Scope>) {
        self.args.scope(scopes);
    }
    fn has_begun(&self) -> bool {
        self.future.is_some()
    }
    fn clear(self: Pin<&mut Self>) {
        // SAFETY: the future, which borrows from `args`, goes first, in place as pinning asks.
        let this = unsafe { self.get_unchecked_mut() };
        quietly(|| this.future = None);
        let callee = this.callee.take();
        quietly(|| drop(callee));
        this.args.clear(Turn(()));
    }
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<F::Output, Stop>> {
        // SAFETY: nothing is moved out of `args` while `future` borrows it; `Drop` is by fields, `future` first.
        let this = unsafe { self.get_unchecked_mut() };
        if this.future.is_none() {
            if let Err(stop) = ready!(this.args.poll_ready(Turn(()), cx)) {
                return Poll::Ready(Err(stop));
            }
            let callee = S::callee(&mut this.callee);
            let future = callee.call(S::args(&mut this.args));
            // SAFETY: the future borrows only `this.args`, which is pinned with the body, is not touched while
            // the future lives, and outlives it (field order, and `future = None` below before another attempt).
            this.future = Some(unsafe {
                std::mem::transmute::<BoxFuture<'_, F::Output>, BoxFuture<'static, F::Output>>(future)
            });
        }
        let Some(future) = &mut this.future else { return Poll::Pending };
        // An unwinding poll must not leave a half-run future for the next attempt.
        let out = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match out {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => {
                this.future = None;
                Poll::Ready(Ok(output))
            }
            Err(payload) => {
                this.future = None;
                Poll::Ready(Err(Stop::panic(payload)))
            }
        }
    }
}
