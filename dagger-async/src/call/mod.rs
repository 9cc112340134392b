//! From `spawn!(f(a, b))` to a body that the scheduler can poll.
//!
//! ```text
//!  a: DTask<T>  ──IntoArg──▶  Arg (keeps a claim, has an edge)  ──ready──▶  Ref<'a> = T
//!  b: &DTask<U> ──IntoArg──▶  Arg                               ──ready──▶  Ref<'a> = &'a U
//!                        f: for<'a> FnOnce(T, &'a U) -> R   ──Call──▶  Body<Output = R>
//! ```
//! 1. A body is polled only after all linked inputs are done and none of those that pass failures on failed.
//! 2. `link` and `inputs` take `&self`: the edges are written by others while the body waits, through their cells.
//! 3. A synchronous callee runs inside one poll; everything that it borrows lies in the body, which outlives it.
//!
//! The traits here are public because the functions behind `spawn!` name them; what could break an invariant takes
//! a [`Turn`] or a `Linker`, which nobody outside can make.

/// Calls `$macro! { A B .. }` for 0 to 12 names.
macro_rules! for_each_arity {
    ($macro:ident) => {
        $macro! {}
        $macro! { A }
        $macro! { A B }
        $macro! { A B C }
        $macro! { A B C D }
        $macro! { A B C D E }
        $macro! { A B C D E G }
        $macro! { A B C D E G H }
        $macro! { A B C D E G H I }
        $macro! { A B C D E G H I J }
        $macro! { A B C D E G H I J K }
        $macro! { A B C D E G H I J K L }
        $macro! { A B C D E G H I J K L M }
    };
}

/// What a body does as the body in its field `0`, beside what it does with the outcome.
macro_rules! as_its_body {
    () => {
        type Name = B::Name;
        const IMMEDIATE: bool = B::IMMEDIATE;
        const ACCESSES: usize = B::ACCESSES;
        const WRITES: bool = B::WRITES;

        fn link(&self, linker: &mut Linker) {
            self.0.link(linker);
        }
        fn inputs(&self, visit: &mut dyn FnMut(RawTask)) {
            self.0.inputs(visit);
        }
        fn scope(&self, scopes: &mut Option<Scope>) {
            self.0.scope(scopes);
        }
        fn has_begun(&self) -> bool {
            self.0.has_begun()
        }
        fn clear(self: Pin<&mut Self>) {
            // SAFETY: the field is pinned when the wrapper is; the wrapper has no `Drop` and never moves it.
            unsafe { self.map_unchecked_mut(|this| &mut this.0) }.clear();
        }
    };
}

mod access;
mod again;
mod arg;
mod args;
mod asynchronous;
mod function;
mod future;
mod retry;
mod source;

pub(crate) use access::Fill;
pub use access::{Dep, Deps, In, InOut, Out, Readable, Selector, Target};
pub(crate) use again::Again as CallsAgain;
pub use again::repeatable;
pub use arg::{Arg, Await, IntoArg, Probe, Value, ViaPlain, ViaTask};
pub(crate) use asynchronous::{AsyncCall, AsyncCallee};
pub use function::fallible;
pub(crate) use function::{Call, TryBody};
pub use retry::{Retry, TryIntoFuture, retry, retrying};
pub(crate) use source::{Again, Mutated, Once};

pub(crate) use future::FutureBody;

/// `spawn!` dispatches here by the number of arguments; see `make.rs`.
pub mod make;

use crate::error::{Error, PanicText, TaskInfo};
use crate::task::{Linker, RawTask};
use dagger_core::Scope;
use std::any::Any;
use std::error::Error as StdError;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What a task does: the scheduler's view of a call or a future.
pub trait Body: Send + 'static {
    /// What it ends with.
    type Output;
    /// The type that names a task made from a future.
    type Name: ?Sized;
    /// One poll runs it to its end, and polls no future of the user's.
    const IMMEDIATE: bool = false;
    /// How many accesses it links at most.
    const ACCESSES: usize;
    /// One of them writes.
    const WRITES: bool;

    /// Makes the task wait for its inputs.
    fn link(&self, linker: &mut Linker);
    /// Lists the tasks that `link` was given.
    fn inputs(&self, visit: &mut dyn FnMut(RawTask));
    /// Narrows the scope of the task to where its inputs may be used.
    fn scope(&self, scopes: &mut Option<Scope>);
    /// True once the user's code has been called, not only its arguments awaited.
    fn has_begun(&self) -> bool {
        true
    }
    /// A copy of its call to be made again, if it can be: before it has run.
    fn again(&self) -> Option<Box<dyn CallsAgain>> {
        None
    }
    /// Drops what the user gave, piece by piece: two drops that panic in one go would abort the process.
    fn clear(self: Pin<&mut Self>) {}
    /// Runs the body, or one step of it.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Self::Output, Stop>>;
}

/// The proof that a body has its turn: its inputs are done and nobody else touches it; or that it is being made. Made in
/// this module only, so that the arguments of a task cannot be used by anybody else.
#[derive(Clone, Copy)]
pub struct Turn(());

/// A body that is about to be submitted, together with the lifetimes of what `spawn!` was given: the arguments point to
/// chunks that only those keep until the task has its places in their queues.
pub struct Borrowing<B, X> {
    body: B,
    given: PhantomData<X>,
}

impl<B, X> Borrowing<B, X> {
    fn new(body: B) -> Self {
        Borrowing { body, given: PhantomData }
    }

    fn map<C>(self, wrap: impl FnOnce(B) -> C) -> Borrowing<C, X> {
        Borrowing::new(wrap(self.body))
    }

    /// The body, for the one who submits it in the call that it was given to.
    pub(crate) fn body(self) -> B {
        self.body
    }
}

/// Why a body ended without a value. One word, since what a body gives is passed on a few times; few end so.
pub struct Stop(Box<Why>);

enum Why {
    /// The user's function returned `Err`.
    User(Arc<dyn StdError + Send + Sync>),
    /// It panicked.
    Panic(Box<dyn Any + Send>),
    /// An input could not be used.
    Input(Error),
    /// What it declares to access cannot be granted: it never ran and poisons nothing.
    Void(Error),
}

impl Stop {
    /// A user's error of any type that can become one.
    #[cold]
    pub(crate) fn user<E: Into<Box<dyn StdError + Send + Sync>>>(error: E) -> Self {
        Stop(Box::new(Why::User(Arc::from(error.into()))))
    }

    /// The user's function panicked with this.
    #[cold]
    pub(crate) fn panic(payload: Box<dyn Any + Send>) -> Self {
        Stop(Box::new(Why::Panic(payload)))
    }

    /// An input could not be used.
    #[cold]
    pub(crate) fn input(error: Error) -> Self {
        Stop(Box::new(Why::Input(error)))
    }

    /// What it declares to access cannot be granted: it never ran and poisons nothing.
    #[cold]
    pub(crate) fn void(error: Error) -> Self {
        Stop(Box::new(Why::Void(error)))
    }

    /// Nothing was touched.
    pub(crate) fn is_void(&self) -> bool {
        matches!(*self.0, Why::Void(_))
    }

    /// The user's function was not called, and would not be if it was tried again.
    pub(crate) fn is_of_inputs(&self) -> bool {
        matches!(*self.0, Why::Input(_) | Why::Void(_))
    }

    /// The error of the task that it has stopped.
    pub(crate) fn into_error(self, task: impl Fn() -> TaskInfo) -> Error {
        match *self.0 {
            Why::User(error) => Error::Task { root: task().into(), error },
            Why::Panic(payload) => Error::Panicked { root: task().into(), text: PanicText::of(payload) },
            Why::Input(error) => error.passed_to(task),
            Why::Void(error) => error.or_of(task),
        }
    }
}

/// A task runs where its data is.
fn narrow(scopes: &mut Option<Scope>, to: &Scope) {
    *scopes = Some(match scopes.take() {
        Some(scope) => scope & to.clone(),
        None => to.clone(),
    });
}

/// A task runs where the results that it takes may be used.
fn note_result_scope(input: RawTask, scopes: &mut Option<Scope>) {
    if let Some(scope) = input.spec.as_deref().and_then(|spec| spec.result_scope.as_ref()) {
        narrow(scopes, scope);
    }
}
