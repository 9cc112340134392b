//! `In(&c)`, `Out(&c)`, `InOut(&c)`, `Deps(&c, (..))` and plain `&c` between the parentheses of `spawn!`.
//!
//! 1. An argument points to the chunk and counts nothing: until the task has its places what `spawn!` was given keeps the
//!    chunk ([`Borrowing`](super::Borrowing)), then its queue does, until the body is gone.
//! 2. A view is made when the body has its turn, from a place that the queue granted (`chunk/mod.rs`, invariant 1).

use super::arg::{Arg, IntoArg, TaskRefArg};
use super::args::RetryArg;
use super::{Mutated, Stop, Turn};
use crate::chunk::{
    self, AccessItem, At, Chunk, ChunkCell, CorePtr, Denied, Held, Kind, Measure, Mode, Part, Placed,
    Reading, Refusal, Whole, Writing,
};
use crate::error::Error;
use crate::pool::local;
use crate::residency;
use crate::task::{Claim, DTask, Edge, Linker, RawTask};
use dagger_core::{Area, Scope};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Declares that the task reads a chunk, a region of one, or a task's result: the callee gets `&T`, `&[E]` or a read
/// view.
#[derive(Clone, Copy, Debug)]
pub struct In<X>(pub X);

/// Declares that the task writes all of a chunk or region without reading it: the callee gets `&mut T`, `&mut [E]` or a
/// write view. What it finds there is valid, but unspecified.
#[derive(Clone, Copy, Debug)]
pub struct Out<X>(pub X);

/// Declares that the task reads and writes a chunk or region: the callee gets `&mut T`, `&mut [E]` or a write view.
#[derive(Clone, Copy, Debug)]
pub struct InOut<X>(pub X);

/// Several accesses to one chunk: `Deps(&x, (In(lower().strict()), InOut(diag())))` gives the callee a tuple of views.
#[derive(Clone, Copy, Debug)]
pub struct Deps<X, A>(pub X, pub A);

/// A chunk or part of one that an access can be declared on.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be accessed",
    note = "declare accesses on `&chunk` or on `&part`, like `In(&c)`, `InOut(&c.slice(0..3))`; a task's result can be read only: `In(&task)`"
)]
pub trait Target {
    #[doc(hidden)]
    type Content: Send + Sync + 'static;
    #[doc(hidden)]
    type Kind: Kind<Self::Content>;
    #[doc(hidden)]
    fn target(&self) -> (&Arc<ChunkCell<Self::Content>>, Self::Kind);
}

impl<T: Send + Sync + 'static> Target for &Chunk<T> {
    type Content = T;
    type Kind = Whole;
    fn target(&self) -> (&Arc<ChunkCell<T>>, Whole) {
        (&self.0, Whole)
    }
}

impl<T: Send + Sync + 'static, K: Kind<T>> Target for &Part<'_, Chunk<T>, K> {
    type Content = T;
    type Kind = K;
    fn target(&self) -> (&Arc<ChunkCell<T>>, K) {
        (&self.source.0, self.kind.clone())
    }
}

impl<T: Send + Sync + 'static, K: Kind<T>> Target for Part<'_, Chunk<T>, K> {
    type Content = T;
    type Kind = K;
    fn target(&self) -> (&Arc<ChunkCell<T>>, K) {
        (&self.source.0, self.kind.clone())
    }
}

/// What an access argument has in common. Most are for whole chunks, whose kind takes no room.
struct Granted<T: Send + Sync + 'static, K: Kind<T>> {
    /// The elements are found when its turn has come.
    at: K::At,
    kind: K,
    chunk: PhantomData<fn() -> ChunkCell<T>>,
}

// Where the elements lie is found by each for itself.
impl<T: Send + Sync + 'static, K: Kind<T>> Clone for Granted<T, K> {
    fn clone(&self) -> Self {
        Granted { at: K::At::new(self.at.value(), None), kind: self.kind.clone(), chunk: PhantomData }
    }
}

impl<T: Send + Sync + 'static, K: Kind<T>> Granted<T, K> {
    #[inline]
    fn new((cell, kind): (&Arc<ChunkCell<T>>, K)) -> Self {
        Granted { at: K::At::new(ChunkCell::value_of(cell), None), kind, chunk: PhantomData }
    }

    #[inline]
    fn chunk(&self) -> CorePtr {
        // SAFETY: `value` came from a cell of this type, in `new`.
        unsafe { ChunkCell::<T>::core_at(self.at.value()) }
    }

    #[inline]
    fn link(&self, mode: Mode, linker: &mut Linker) {
        residency::bind::<T>(self.chunk(), linker.pool());
        linker.access(chunk::held(self.chunk(), &self.kind, mode));
    }

    #[inline]
    fn scope(&self, scopes: &mut Option<Scope>) {
        let chunk = self.chunk();
        if chunk.is_placed
            && let Some(scope) = &chunk.scope
        {
            super::narrow(scopes, scope);
        }
    }

    /// Its turn has come: looks whether the data can be used, and where it lies.
    #[inline(always)]
    fn locate(&mut self, mode: Mode) -> Result<(), Stop> {
        let chunk = self.chunk();
        if chunk.needs_a_look() {
            let area = self.kind.area().unwrap_or(Area::Whole);
            look(chunk, &area, mode, K::MEASURE)?;
        }
        self.find(mode).map_err(refused)
    }

    /// Where the data lies, which can be used.
    #[inline(always)]
    fn find(&mut self, mode: Mode) -> Result<(), Refusal> {
        if K::MEASURE.is_some() {
            self.at = chunk::locate(self.chunk(), &self.kind, mode)?;
        }
        Ok(())
    }
}

/// What a flagged chunk says to a granted access of the current task.
#[cold]
fn look(chunk: CorePtr, area: &Area, mode: Mode, measure: Option<Measure>) -> Result<(), Stop> {
    let me = local::with(|local| local.task());
    if let Some(me) = me {
        let guard = me.state.lock();
        let checked = chunk::check_merged(me.accesses(&guard).iter());
        drop(guard);
        checked.map_err(refused)?;
    }
    let denied = chunk.lock().deny(area, mode, chunk.value(), measure);
    match denied {
        None => Ok(()),
        Some(Denied::Poisoned(cause)) => Err(Stop::input(Error::clone(&cause))),
        Some(Denied::Taken) => Err(Stop::void(Error::Taken { root: me.map(|me| me.info().into()) })),
    }
}

fn refused(refusal: Refusal) -> Stop {
    let root = local::with(|local| local.task()).map(|me| me.info().into());
    Stop::void(refusal.into_error(root))
}

/// An argument that reads.
pub struct ReadArg<T: Send + Sync + 'static, K: Kind<T>>(Granted<T, K>);

/// An argument that writes; `FRESH` if it does not read.
pub struct WriteArg<T: Send + Sync + 'static, K: Kind<T>, const FRESH: bool>(Granted<T, K>);

impl<T: Send + Sync + 'static, K: Kind<T>> Clone for ReadArg<T, K> {
    fn clone(&self) -> Self {
        ReadArg(self.0.clone())
    }
}

impl<T: Send + Sync + 'static, K: Kind<T>, const FRESH: bool> Clone for WriteArg<T, K, FRESH> {
    fn clone(&self) -> Self {
        WriteArg(self.0.clone())
    }
}

macro_rules! arg {
    ([$($generics:tt)*] $Arg:ty, $mode:expr, $writes:literal, $Ref:ident, $view:ident) => {
        impl<T: Send + Sync + 'static, K: Kind<T> $($generics)*> Arg for $Arg {
            type Ref<'a> = K::$Ref<'a>;
            const ACCESSES: usize = 1;
            const WRITES: bool = $writes;
            #[inline]
            fn link(&self, linker: &mut Linker) {
                self.0.link($mode, linker);
            }
            fn scope(&self, scopes: &mut Option<Scope>) {
                self.0.scope(scopes);
            }
            #[inline(always)]
            fn poll_ready(&mut self, _: Turn, _cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
                Poll::Ready(self.0.locate($mode))
            }
            #[inline(always)]
            fn locate_again(&mut self, _: Turn) -> Result<(), Stop> {
                // Whoever calls knows of which task it is.
                self.0.find($mode).map_err(|refusal| Stop::void(refusal.into_error(None)))
            }
            fn get(&mut self, _: Turn) -> K::$Ref<'_> {
                // SAFETY: located with a granted place (invariant 2), which is held until the body is gone; the view
                // borrows this argument, which lies in the body.
                unsafe { self.0.kind.$view(&self.0.at) }
            }
        }
    };
}
arg!([] ReadArg<T, K>, Mode::In, false, Ref, view);
arg!([, const FRESH: bool] WriteArg<T, K, FRESH>, if FRESH { Mode::Out } else { Mode::InOut }, true, Mut, view_mut);

impl<T: Send + Sync + 'static, K: Kind<T>, M> RetryArg<M> for ReadArg<T, K> {
    fn get_again(&mut self, turn: Turn) -> K::Ref<'_> {
        self.get(turn)
    }
}

// A retry of what overwrites everything begins anew.
impl<T: Send + Sync + 'static, K: Kind<T>, M> RetryArg<M> for WriteArg<T, K, true> {
    fn get_again(&mut self, turn: Turn) -> K::Mut<'_> {
        self.get(turn)
    }
}

// One that reads what it has half changed has to be asked for: `retry_mutated = true`.
impl<T: Send + Sync + 'static, K: Kind<T>> RetryArg<Mutated> for WriteArg<T, K, false> {
    fn get_again(&mut self, turn: Turn) -> K::Mut<'_> {
        self.get(turn)
    }
}

macro_rules! declared {
    ($Declared:ident, $Arg:ident $(<$fresh:literal>)?, $mode:ident, $Place:ident) => {
        impl<X: Target> IntoArg for $Declared<X> {
            type Arg = $Arg<X::Content, X::Kind $(, $fresh)?>;
            fn into_arg(self, _: Turn) -> Self::Arg {
                $Arg(Granted::new(self.0.target()))
            }
        }
        impl<X: Target> AccessItem for $Declared<X> {
            type Place = $Place<X::Content, X::Kind>;
            fn place(self) -> Self::Place {
                let (cell, kind) = self.0.target();
                $Place(Placed { cell: cell.clone(), kind, mode: Mode::$mode })
            }
        }
    };
}
declared!(Out, WriteArg<true>, Out, Writing);
declared!(InOut, WriteArg<false>, InOut, Writing);

// `In` is also for results of tasks, which are no chunks: what can be read says itself how.

/// What a task can read.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read by a task",
    note = "read `&chunk`, `&part` or `&task`, like `In(&c)`, `In(&c.slice(0..3))`, `In(&task.slice(..))`"
)]
pub trait Readable {
    #[doc(hidden)]
    type Arg: Arg;
    #[doc(hidden)]
    fn read_arg(self, turn: Turn) -> Self::Arg;
}

impl<X: Readable> IntoArg for In<X> {
    type Arg = X::Arg;
    fn into_arg(self, turn: Turn) -> X::Arg {
        self.0.read_arg(turn)
    }
}

impl<X: Target> AccessItem for In<X> {
    type Place = Reading<X::Content, X::Kind>;
    fn place(self) -> Self::Place {
        let (cell, kind) = self.0.target();
        Reading(Placed { cell: cell.clone(), kind, mode: Mode::In })
    }
}

macro_rules! readable {
    ([$($generics:tt)*] $Source:ty, $Arg:ty, |$this:ident| $arg:expr) => {
        impl<$($generics)*> Readable for $Source {
            type Arg = $Arg;
            fn read_arg(self, _: Turn) -> $Arg {
                let $this = self;
                $arg
            }
        }
        impl<$($generics)*> IntoArg for $Source {
            type Arg = $Arg;
            fn into_arg(self, turn: Turn) -> $Arg {
                self.read_arg(turn)
            }
        }
    };
}
readable!([T: Send + Sync + 'static] &Chunk<T>, ReadArg<T, Whole>, |this| ReadArg(Granted::new(this.target())));
readable!([T: Send + Sync + 'static, K: Kind<T>] &Part<'_, Chunk<T>, K>, ReadArg<T, K>, |this| ReadArg(Granted::new(this.target())));
readable!([T: Send + Sync + 'static, K: Kind<T>] &Part<'_, DTask<T>, K>, TaskPartArg<T, K>, |this| TaskPartArg {
    claim: this.source.claim().clone(),
    edge: Edge::new(),
    kind: this.kind.clone(),
    at: None,
});

impl<T: Send + Sync + 'static, K: Kind<T>> Readable for Part<'_, Chunk<T>, K> {
    type Arg = ReadArg<T, K>;
    fn read_arg(self, turn: Turn) -> ReadArg<T, K> {
        (&self).read_arg(turn)
    }
}

impl<T: Send + Sync + 'static, K: Kind<T>> Readable for Part<'_, DTask<T>, K> {
    type Arg = TaskPartArg<T, K>;
    fn read_arg(self, turn: Turn) -> TaskPartArg<T, K> {
        (&self).read_arg(turn)
    }
}

impl<T: Send + Sync + 'static> Readable for &DTask<T> {
    type Arg = TaskRefArg<T>;
    fn read_arg(self, turn: Turn) -> TaskRefArg<T> {
        self.into_arg(turn)
    }
}

/// A region of a task's result.
pub struct TaskPartArg<T: Send + Sync + 'static, K: Kind<T>> {
    claim: Claim<T>,
    edge: Edge,
    kind: K,
    at: Option<K::At>,
}

const LOCATED: &str = "an argument is handed over after it was located (`Arg::get`)";

impl<T: Send + Sync + 'static, K: Kind<T>> Arg for TaskPartArg<T, K> {
    type Ref<'a> = K::Ref<'a>;
    fn link(&self, linker: &mut Linker) {
        linker.after(self.claim.raw(), &self.edge);
    }
    fn inputs(&self, _: Turn, visit: &mut dyn FnMut(RawTask)) {
        visit(self.claim.raw());
    }
    fn scope(&self, scopes: &mut Option<Scope>) {
        super::note_result_scope(self.claim.raw(), scopes);
    }
    fn poll_ready(&mut self, _: Turn, _cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        if let Err(error) = self.claim.check_value() {
            return Poll::Ready(Err(Stop::input(error)));
        }
        let value = std::ptr::from_ref(self.claim.get());
        // SAFETY: the claim keeps the value, which is only read while there are claims.
        let at = unsafe { chunk::locate_in(value, &self.kind) };
        Poll::Ready(at.map(|at| self.at = Some(at)).map_err(refused))
    }
    fn get(&mut self, _: Turn) -> K::Ref<'_> {
        let at = self.at.as_ref().expect(LOCATED);
        // SAFETY: as in `poll_ready`; the view borrows this argument, and with it the claim.
        unsafe { self.kind.view(at) }
    }
}

impl<T: Send + Sync + 'static, K: Kind<T>, M> RetryArg<M> for TaskPartArg<T, K> {
    fn get_again(&mut self, turn: Turn) -> K::Ref<'_> {
        self.get(turn)
    }
}

// Making the value of a chunk.

/// The task gives the chunk its value.
pub(crate) struct Fill<'c, T: Send + Sync + 'static>(pub(crate) &'c Chunk<T>);

/// See [`Fill`].
pub(crate) struct FillArg<T: Send + Sync + 'static>(Granted<T, Whole>);

impl<T: Send + Sync + 'static> IntoArg for Fill<'_, T> {
    type Arg = FillArg<T>;
    fn into_arg(self, _: Turn) -> FillArg<T> {
        FillArg(Granted::new(self.0.target()))
    }
}

impl<T: Send + Sync + 'static> Arg for FillArg<T> {
    type Ref<'a> = &'a mut MaybeUninit<T>;
    const ACCESSES: usize = 1;
    const WRITES: bool = true;
    fn link(&self, linker: &mut Linker) {
        residency::bind::<T>(self.0.chunk(), linker.pool());
        linker.access(Ok(Held::new(self.0.chunk(), Mode::Out, None, true)));
    }
    fn get(&mut self, _: Turn) -> &mut MaybeUninit<T> {
        // SAFETY: the first place in the queue of a chunk that nobody knew before, for writing: nobody else is there.
        unsafe { &mut *self.0.at.value().cast() }
    }
}

// Several accesses to one chunk.

/// Which region of a chunk, without the chunk: `lower()`, `diag()`, `row(3)`.
pub trait Selector<T: 'static>: Sized {
    #[doc(hidden)]
    type Kind: Kind<T>;
    #[doc(hidden)]
    fn select(self, chunk: &Chunk<T>) -> Part<'_, Chunk<T>, Self::Kind>;
}

/// One access of [`Deps`]: `In`, `Out` or `InOut` of a [`Selector`].
pub trait Dep<T: 'static> {
    #[doc(hidden)]
    type Arg: Arg;
    #[doc(hidden)]
    fn dep(self, chunk: &Chunk<T>, turn: Turn) -> Self::Arg;
}

macro_rules! dep {
    ($Declared:ident, $Arg:ident $(<$fresh:literal>)?) => {
        impl<T: Send + Sync + 'static, S: Selector<T>> Dep<T> for $Declared<S> {
            type Arg = $Arg<T, S::Kind $(, $fresh)?>;
            fn dep(self, chunk: &Chunk<T>, _: Turn) -> Self::Arg {
                $Arg(Granted::new(self.0.select(chunk).target()))
            }
        }
    };
}
dep!(In, ReadArg);
dep!(Out, WriteArg<true>);
dep!(InOut, WriteArg<false>);

/// The accesses of a `Deps`.
#[derive(Clone)]
pub struct Group<A>(A);

macro_rules! deps {
    ($($name:ident)+) => {
        #[allow(non_snake_case, reason = "one identifier names the type and its value")]
        impl<T: Send + Sync + 'static, $($name: Dep<T>),+> IntoArg for Deps<&Chunk<T>, ($($name,)+)> {
            type Arg = Group<($($name::Arg,)+)>;
            fn into_arg(self, turn: Turn) -> Self::Arg {
                let Deps(chunk, ($($name,)+)) = self;
                Group(($($name.dep(chunk, turn),)+))
            }
        }
        #[allow(non_snake_case, reason = "one identifier names the type and its value")]
        impl<$($name: Arg),+> Arg for Group<($($name,)+)> {
            type Ref<'a> = ($($name::Ref<'a>,)+);
            const IMMEDIATE: bool = true $(&& $name::IMMEDIATE)+;
            const ACCESSES: usize = 0 $(+ $name::ACCESSES)+;
            const WRITES: bool = false $(|| $name::WRITES)+;
            fn link(&self, linker: &mut Linker) {
                let ($($name,)+) = &self.0;
                $($name.link(linker);)+
            }
            fn scope(&self, scopes: &mut Option<Scope>) {
                let ($($name,)+) = &self.0;
                $($name.scope(scopes);)+
            }
            fn poll_ready(&mut self, turn: Turn, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
                let ($($name,)+) = &mut self.0;
                $(match $name.poll_ready(turn, cx) {
                    Poll::Ready(Ok(())) => {}
                    other => return other,
                })+
                Poll::Ready(Ok(()))
            }
            fn locate_again(&mut self, turn: Turn) -> Result<(), Stop> {
                let ($($name,)+) = &mut self.0;
                $($name.locate_again(turn)?;)+
                Ok(())
            }
            fn get(&mut self, turn: Turn) -> Self::Ref<'_> {
                let ($($name,)+) = &mut self.0;
                ($($name.get(turn),)+)
            }
        }
        #[allow(non_snake_case, reason = "one identifier names the type and its value")]
        impl<Retried, $($name: RetryArg<Retried>),+> RetryArg<Retried> for Group<($($name,)+)> {
            fn get_again(&mut self, turn: Turn) -> Self::Ref<'_> {
                let ($($name,)+) = &mut self.0;
                ($($name.get_again(turn),)+)
            }
        }
    };
}
deps!(A);
deps!(A B);
deps!(A B C);
deps!(A B C D);
deps!(A B C D E);
deps!(A B C D E F);
