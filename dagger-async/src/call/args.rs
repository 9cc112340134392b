//! All arguments of one call, as a tuple.

use super::Turn;
use super::arg::{Arg, AwaitArg, Plain, TaskArg, TaskRefArg};
use crate::error::Error;
use crate::task::{Linker, RawTask};
use std::task::{Context, Poll};

/// The arguments of a call.
pub trait Args: Send + 'static {
    /// What the callee gets.
    type Refs<'a>;

    #[doc(hidden)]
    fn link(&self, linker: &mut Linker);
    #[doc(hidden)]
    fn inputs(&self, turn: Turn, visit: &mut dyn FnMut(RawTask));
    #[doc(hidden)]
    fn poll_ready(&mut self, turn: Turn, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    #[doc(hidden)]
    fn clear(&mut self, turn: Turn);
    #[doc(hidden)]
    fn get(&mut self, turn: Turn) -> Self::Refs<'_>;
}

/// Arguments that can be handed over again: by-value ones are cloned for every attempt.
pub trait RetryArgs: Args {
    /// What the callee gets at this attempt.
    #[doc(hidden)]
    fn get_again(&mut self, turn: Turn) -> Self::Refs<'_>;
}

/// One argument that can be handed over again.
pub trait RetryArg: Arg {
    #[doc(hidden)]
    fn get_again(&mut self, turn: Turn) -> Self::Ref<'_>;
}

impl<T: Clone + Send + 'static> RetryArg for Plain<T> {
    fn get_again(&mut self, _: Turn) -> T {
        self.peek().clone()
    }
}

impl<T: Clone + Send + Sync + 'static> RetryArg for TaskArg<T> {
    fn get_again(&mut self, _: Turn) -> T {
        self.peek().clone()
    }
}

impl<T: Send + Sync + 'static> RetryArg for TaskRefArg<T> {
    fn get_again(&mut self, turn: Turn) -> &T {
        self.get(turn)
    }
}

impl<F> RetryArg for AwaitArg<F>
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
            fn poll_ready(&mut self, turn: Turn, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
                let ($($name,)*) = self;
                #[allow(unused_mut, reason = "the tuple of no arguments")]
                let mut all = Poll::Ready(Ok(()));
                // All of them each time: one awaited future may need another to go on.
                $(match $name.poll_ready(turn, cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Pending => all = Poll::Pending,
                    failed => return failed,
                })*
                let _ = (turn, cx);
                all
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
        impl<$($name: RetryArg),*> RetryArgs for ($($name,)*) {
            fn get_again(&mut self, turn: Turn) -> Self::Refs<'_> {
                let ($($name,)*) = self;
                let _ = turn;
                ($($name.get_again(turn),)*)
            }
        }
    };
}

for_each_arity!(args);
