//! Whether a callee and its arguments are used up by a call or kept for another one.

use super::Turn;
use super::args::{Args, RetryArgs};
use std::marker::PhantomData;

/// Where a call takes its callee and arguments from.
pub trait Source<F, A: Args>: Send + 'static {
    #[doc(hidden)]
    fn callee(slot: &mut Option<F>) -> F;
    #[doc(hidden)]
    fn args(args: &mut A) -> A::Refs<'_>;
}

/// The body is called once: everything moves.
pub struct Once;

/// The body may be called again: the callee and by-value arguments are cloned each time. `M` says what becomes of
/// `InOut` arguments.
pub struct Again<M = Kept>(PhantomData<M>);

/// Nothing that a failed attempt has changed is used again.
pub struct Kept;

/// An attempt may find what the one before has changed (`retry_mutated = true`).
pub struct Mutated;

const KEPT: &str = "a body that returned is polled again only as `Again` (`Body::poll`)";

impl<F, A: Args> Source<F, A> for Once {
    fn callee(slot: &mut Option<F>) -> F {
        slot.take().expect(KEPT)
    }
    fn args(args: &mut A) -> A::Refs<'_> {
        args.get(Turn(()))
    }
}

impl<F: Clone, A: RetryArgs<M>, M: Send + 'static> Source<F, A> for Again<M> {
    fn callee(slot: &mut Option<F>) -> F {
        slot.clone().expect(KEPT)
    }
    fn args(args: &mut A) -> A::Refs<'_> {
        args.get_again(Turn(()))
    }
}
