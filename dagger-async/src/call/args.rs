//! All arguments of one call, as a tuple.

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
    fn inputs(&self, visit: &mut dyn FnMut(RawTask));
    #[doc(hidden)]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    #[doc(hidden)]
    fn get(&mut self) -> Self::Refs<'_>;
}

/// Arguments that can be handed over again: by-value ones are cloned for every attempt.
pub trait RetryArgs: Args {
    /// What the callee gets at this attempt.
    #[doc(hidden)]
    fn get_again(&mut self) -> Self::Refs<'_>;
}

/// One argument that can be handed over again.
pub trait RetryArg: Arg {
    #[doc(hidden)]
    fn get_again(&mut self) -> Self::Ref<'_>;
}

impl<T: Clone + Send + 'static> RetryArg for Plain<T> {
    fn get_again(&mut self) -> T {
        self.peek().clone()
    }
}

impl<T: Clone + Send + Sync + 'static> RetryArg for TaskArg<T> {
    fn get_again(&mut self) -> T {
        self.peek().clone()
    }
}

impl<T: Send + Sync + 'static> RetryArg for TaskRefArg<T> {
    fn get_again(&mut self) -> &T {
        self.get()
    }
}

impl<F> RetryArg for AwaitArg<F>
where
    F: Future + Send + 'static,
    F::Output: Clone + Send + 'static,
{
    fn get_again(&mut self) -> F::Output {
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
            fn inputs(&self, visit: &mut dyn FnMut(RawTask)) {
                let ($($name,)*) = self;
                $($name.inputs(visit);)*
                let _ = visit;
            }
            fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
                let ($($name,)*) = self;
                $(match $name.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    other => return other,
                })*
                let _ = cx;
                Poll::Ready(Ok(()))
            }
            fn get(&mut self) -> Self::Refs<'_> {
                let ($($name,)*) = self;
                ($($name.get(),)*)
            }
        }

        #[allow(non_snake_case, reason = "one identifier names the type and its value")]
        #[allow(clippy::unused_unit, reason = "the tuple of no arguments")]
        impl<$($name: RetryArg),*> RetryArgs for ($($name,)*) {
            fn get_again(&mut self) -> Self::Refs<'_> {
                let ($($name,)*) = self;
                ($($name.get_again(),)*)
            }
        }
    };
}

for_each_arity!(args);
