//! `spawn!(f(a, b))` for ordinary functions and closures.

use super::arg::Arg;
use super::args::Args;
use super::source::{Again, Mutated, Once, Source};
use super::{Body, Borrowing, Stop, Turn};
use crate::error::quietly;
use crate::task::{Linker, RawTask};
use dagger_core::Scope;
use std::error::Error as StdError;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A function that takes these arguments.
pub trait Callee<A: Args>: Send + 'static {
    /// What it returns.
    type Output;
    #[doc(hidden)]
    fn call(self, args: A::Refs<'_>) -> Self::Output;
}

macro_rules! callee {
    ($($name:ident)*) => {
        #[allow(non_snake_case, reason = "one identifier names the type and its value")]
        impl<Function, Output, $($name: Arg),*> Callee<($($name,)*)> for Function
        where
            Function: for<'a> FnOnce($($name::Ref<'a>),*) -> Output + Send + 'static,
        {
            type Output = Output;
            fn call(self, ($($name,)*): <($($name,)*) as Args>::Refs<'_>) -> Output {
                self($($name),*)
            }
        }
    };
}

for_each_arity!(callee);

/// A call of a function.
pub struct Call<F, A, S> {
    callee: Option<F>,
    args: A,
    begun: bool,
    source: PhantomData<S>,
}

impl<F, A, S> Call<F, A, S> {
    pub(crate) fn new(callee: F, args: A) -> Self {
        Call { callee: Some(callee), args, begun: false, source: PhantomData }
    }
}

impl<F, A> Call<F, A, Once> {
    /// The function and its arguments, before they are used.
    pub(super) fn parts(&self) -> (&F, &A) {
        (self.callee.as_ref().expect("a call is looked at before it is made (`submit`)"), &self.args)
    }
}

impl<F, A, X> Borrowing<Call<F, A, Again>, X> {
    /// An attempt may find what the one before has changed.
    pub fn mutated(self) -> Borrowing<Call<F, A, Again<Mutated>>, X> {
        self.map(|Call { callee, args, begun, .. }| Call { callee, args, begun, source: PhantomData })
    }
}

// Nothing in it is pinned: awaited futures are boxed, edges are reached through cells.
impl<F, A, S> Unpin for Call<F, A, S> {}

impl<F, A, S> Body for Call<F, A, S>
where
    F: Callee<A>,
    A: Args,
    S: Source<F, A>,
{
    type Output = F::Output;
    type Name = F;
    const IMMEDIATE: bool = A::IMMEDIATE;
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
        self.begun
    }
    fn clear(mut self: Pin<&mut Self>) {
        let callee = self.callee.take();
        quietly(|| drop(callee));
        self.args.clear(Turn(()));
    }
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<F::Output, Stop>> {
        if let Err(stop) = ready!(self.args.poll_ready(Turn(()), cx)) {
            return Poll::Ready(Err(stop));
        }
        self.begun = true;
        let callee = S::callee(&mut self.callee);
        Poll::Ready(Ok(callee.call(S::args(&mut self.args))))
    }
}

/// A body whose `Err` fails the task: the `?` of `spawn!(f(x)?)`.
pub struct TryBody<B>(pub(crate) B);

/// An `Err` of this body fails its task.
pub fn fallible<B: Body, X>(call: Borrowing<B, X>) -> Borrowing<TryBody<B>, X> {
    call.map(TryBody)
}

impl<B, T, E> Body for TryBody<B>
where
    B: Body<Output = Result<T, E>>,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    type Output = T;
    as_its_body!();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Stop>> {
        // SAFETY: as in `clear`.
        let body = unsafe { self.map_unchecked_mut(|this| &mut this.0) };
        match ready!(body.poll(cx)) {
            Ok(Ok(value)) => Poll::Ready(Ok(value)),
            Ok(Err(error)) => Poll::Ready(Err(Stop::user(error))),
            Err(stop) => Poll::Ready(Err(stop)),
        }
    }
}
