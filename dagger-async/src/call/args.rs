//! All arguments of one call, as a tuple.

use super::arg::{Arg, AwaitArg, Plain, TaskArg, TaskRefArg};
use super::{Stop, Turn};
use crate::task::{Linker, RawTask};
use dagger_core::Scope;
use std::task::{Context, Poll};

/// The arguments of a call.
pub trait Args: Send + 'static {
    /// What the callee gets.
    type Refs<'a>;
    #[doc(hidden)]
    const IMMEDIATE: bool;
    #[doc(hidden)]
    const ACCESSES: usize;
    #[doc(hidden)]
    const WRITES: bool;

    #[doc(hidden)]
    fn link(&self, linker: &mut Linker);
    #[doc(hidden)]
    fn inputs(&self, turn: Turn, visit: &mut dyn FnMut(RawTask));
    #[doc(hidden)]
    fn scope(&self, scopes: &mut Option<Scope>);
    #[doc(hidden)]
    fn poll_ready(&mut self, turn: Turn, cx: &mut Context<'_>) -> Poll<Result<(), Stop>>;
    #[doc(hidden)]
    fn locate_again(&mut self, turn: Turn) -> Result<(), Stop>;
    #[doc(hidden)]
    fn clear(&mut self, turn: Turn);
    #[doc(hidden)]
    fn get(&mut self, turn: Turn) -> Self::Refs<'_>;
}

/// Arguments that can be handed over again: by-value ones are cloned for every attempt.
pub trait RetryArgs<M>: Args {
    /// What the callee gets at this attempt.
    #[doc(hidden)]
    fn get_again(&mut self, turn: Turn) -> Self::Refs<'_>;
}

/// One argument that can be handed over again.
#[diagnostic::on_unimplemented(
    message = "an argument of this task cannot be used by a second attempt",
    note = "by-value arguments must be `Clone`; with `InOut` a retry finds what the failed attempt has left: write `retry_mutated = true` if it may"
)]
pub trait RetryArg<M>: Arg {
    #[doc(hidden)]
    fn get_again(&mut self, turn: Turn) -> Self::Ref<'_>;
}

impl<T: Clone + Send + 'static, M> RetryArg<M> for Plain<T> {
    fn get_again(&mut self, _: Turn) -> T {
        self.peek().clone()
    }
}

impl<T: Clone + Send + Sync + 'static, M> RetryArg<M> for TaskArg<T> {
    fn get_again(&mut self, _: Turn) -> T {
        self.peek().clone()
    }
}

impl<T: Send + Sync + 'static, M> RetryArg<M> for TaskRefArg<T> {
    fn get_again(&mut self, turn: Turn) -> &T {
        self.get(turn)
    }
}

impl<F, M> RetryArg<M> for AwaitArg<F>
where
    F: Future + Send + 'static,
    F::Output: Clone + Send + 'static,
{
    fn get_again(&mut self, _: Turn) -> F::Output {
        self.peek().clone()
    }
}

macro_rules! args {
    ($($name:ident)*) => {
        #[allow(non_snake_case, reason = "one identifier names the type and its value")]
        #[allow(clippy::unused_unit, reason = "the tuple of no arguments")]
        impl<$($name: Arg),*> Args for ($($name,)*) {
            type Refs<'a> = ($($name::Ref<'a>,)*);
            const IMMEDIATE: bool = true $(&& $name::IMMEDIATE)*;
            const ACCESSES: usize = 0 $(+ $name::ACCESSES)*;
            const WRITES: bool = false $(|| $name::WRITES)*;
            fn link(&self, linker: &mut Linker) {
                let ($($name,)*) = self;
                $($name.link(linker);)*
                let _ = linker;
            }
            fn inputs(&self, turn: Turn, visit: &mut dyn FnMut(RawTask)) {
                let ($($name,)*) = self;
                $($name.inputs(turn, visit);)*
                let _ = (turn, visit);
            }
            fn scope(&self, scopes: &mut Option<Scope>) {
                let ($($name,)*) = self;
                $($name.scope(scopes);)*
                let _ = scopes;
            }
            #[inline]
            fn poll_ready(&mut self, turn: Turn, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
                let ($($name,)*) = self;
                #[allow(unused_mut, reason = "the tuple of no arguments")]
                let mut is_pending = false;
                // All of them each time: one awaited future may need another to go on.
                $(match $name.poll_ready(turn, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Pending => is_pending = true,
                    Poll::Ready(Err(stop)) => return Poll::Ready(Err(stop)),
                })*
                let _ = (turn, cx);
                if is_pending { Poll::Pending } else { Poll::Ready(Ok(())) }
            }
            #[inline]
            fn locate_again(&mut self, turn: Turn) -> Result<(), Stop> {
                let ($($name,)*) = self;
                let _ = turn;
                $($name.locate_again(turn)?;)*
                Ok(())
            }
            fn clear(&mut self, turn: Turn) {
                let ($($name,)*) = self;
                $($name.clear(turn);)*
                let _ = turn;
            }
            fn get(&mut self, turn: Turn) -> Self::Refs<'_> {
                let ($($name,)*) = self;
                let _ = turn;
                ($($name.get(turn),)*)
            }
        }

        #[allow(non_snake_case, reason = "one identifier names the type and its value")]
        #[allow(clippy::unused_unit, reason = "the tuple of no arguments")]
        impl<Retried, $($name: RetryArg<Retried>),*> RetryArgs<Retried> for ($($name,)*) {
            fn get_again(&mut self, turn: Turn) -> Self::Refs<'_> {
                let ($($name,)*) = self;
                let _ = turn;
                ($($name.get_again(turn),)*)
            }
        }
    };
}

for_each_arity!(args);
