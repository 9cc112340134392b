//! [`Chunk`]: a value that belongs to the runtime, and that tasks access in program order.
//!
//! ```text
//!   Chunk ─▶ ChunkCell ┬ Core: queue, poison, where elements lie      (core/)
//!                      └ value                                          (reached by raw pointer only)
//!   In(&c.slice(0..3))  = a chunk and a kind of region                  (select/)    ─▶ view (view.rs)
//!   c.read(), access((..)) = places held outside tasks                  (guard.rs)
//! ```
//! 1. Every reference to the value derives from the one pointer of its cell, and is made for somebody who has a granted
//!    place of the queue: to the whole, or to the elements of the region and nothing else.
//! 2. While a region is out for writing no reference to the whole exists: the queue keeps them apart.
//! 3. The memory of a chunk is kept by its handles, and by its queue while there are accesses in it.

mod container;
mod core;
mod guard;
mod select;
mod selector;
mod view;

pub use container::{Container, Linear, Matrix, RawParts};
pub use guard::{Access, ReadGuard, WriteGuard, access};
pub use select::{
    Banded, Block, Contiguous, Custom, Cut, Field, FieldOf, IndexList, Listed, Part, Positions, Ranges, Step,
    Strided, Triangle, View, Whole, index, step,
};
pub use selector::{
    BandOf, Col, Diag, Lower, Row, Slice, Strict, Unit, Upper, ViewOf, band, col, diag, lower, row, slice,
    upper, view,
};
pub use view::{MatMut, MatRef, TriMut, TriRef, VecMut, VecRef};

pub(crate) use core::{
    AnyChunk, Asker, CellType, Core, CorePtr, Denied, Held, Measure, Mode, Other, Outcome, Refusal, Ticket,
    Tickets, WaitingPlace, Whose, check_merged, give_idle, take_at_rest, take_idle, take_places,
};
#[cfg(feature = "store")]
pub(crate) use guard::poisoned;
pub(crate) use guard::{
    AccessItem, Chunks, GuardWait, Hold, Listed as ListedPlaces, Placed, Places, Reading, Users, Writing,
    visit_waiting_behind_guards,
};
pub(crate) use select::{At, Elements, Kind};

use self::container::Parts;
use crate::call::Fill;
use crate::error::Result;
use crate::pool::local;
use crate::residency;
use crate::task::DTask;
use dagger_core::{Area, Scope};
use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;

/// A value that tasks access in the order in which they were spawned.
///
/// Any `Send + Sync + 'static` type goes in a chunk. Tasks declare how they use it: [`In`](crate::In) gives the function
/// `&T`, [`Out`](crate::Out) and [`InOut`](crate::InOut) give `&mut T`, and the runtime runs together what does not
/// conflict. A part of it (`c.slice(0..3)`, `c.row(1)`, `c.field(field!(Body, x))`) is declared in the same way and arrives as
/// a slice or a view. Outside tasks: [`read`](Chunk::read), [`write`](Chunk::write), [`access`].
///
/// ```
/// use dagger_async::prelude::*;
/// fn add(x: &mut [i64], v: i64) { x.iter_mut().for_each(|x| *x += v) }
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let a = Chunk::new(vec![0i64; 6]);
/// datadeps(async {
///     spawn!(add(InOut(&a.slice(0..3)), 1));
///     spawn!(add(InOut(&a.slice(3..6)), 1));       // beside the first
///     spawn!(add(InOut(&a.slice(2..4)), 1));       // after both
/// }).await?;
/// assert_eq!(*a.read().await?, [1, 1, 2, 2, 1, 1]);
/// # Ok(()) }
/// ```
pub struct Chunk<T: 'static>(pub(crate) Arc<ChunkCell<T>>);

/// The memory of a chunk. The core is at its start: a pointer to the one is a pointer to the other.
#[doc(hidden)]
#[repr(C)]
pub struct ChunkCell<T: 'static> {
    pub(crate) core: Core,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value moves between threads with the accesses that the queue grants, and is shared by readers.
unsafe impl<T: Send + Sync> Send for ChunkCell<T> {}
// SAFETY: as above; everything else in it is `Sync`.
unsafe impl<T: Send + Sync> Sync for ChunkCell<T> {}

impl<T: Send + Sync + 'static> AnyChunk for ChunkCell<T> {
    fn core(&self) -> &Core {
        &self.core
    }
}

impl<T> Drop for ChunkCell<T> {
    fn drop(&mut self) {
        let (is_here, errors) = self.core.take_apart();
        if is_here {
            // SAFETY: there is a value, and nobody else refers to the cell.
            crate::error::quietly(|| unsafe { self.value.get_mut().assume_init_drop() });
        }
        crate::error::quietly(|| drop(errors));
    }
}

impl<T: Send + Sync + 'static> ChunkCell<T> {
    const TYPE: CellType = CellType { value: std::mem::offset_of!(Self, value), arc: Self::owner };

    /// The core by a pointer that reaches all of the cell.
    #[inline]
    pub(crate) fn core_of(cell: &Arc<Self>) -> CorePtr {
        let cell = NonNull::new(Arc::as_ptr(cell).cast_mut()).unwrap_or(NonNull::dangling()); // Never null.
        CorePtr::new(cell.cast())
    }

    /// The address of the value, as [`CorePtr::value`] gives it, without a look at the cell.
    #[inline]
    pub(crate) fn value_of(cell: &Arc<Self>) -> *mut u8 {
        // SAFETY: within the cell.
        unsafe { Arc::as_ptr(cell).cast_mut().byte_add(std::mem::offset_of!(Self, value)).cast() }
    }

    /// The core of the cell that has its value here.
    ///
    /// # Safety
    /// The pointer came from [`CorePtr::value`] or [`value_of`](Self::value_of) of a cell of this type.
    #[inline]
    pub(crate) unsafe fn core_at(value: *mut u8) -> CorePtr {
        // SAFETY: the value lies so far from its core, which lies at the start of the cell; that is not null.
        CorePtr::new(unsafe { NonNull::new_unchecked(value.byte_sub(Self::TYPE.value)) }.cast())
    }

    /// # Safety
    /// The core is that of a cell of this type in an `Arc`, by a pointer of `core_of`, and the cell is alive.
    unsafe fn owner(core: CorePtr) -> Arc<dyn AnyChunk> {
        let cell = core.as_ptr().cast::<Self>();
        // SAFETY: the core is at the start of the cell (`repr(C)`), and the caller's promise.
        unsafe {
            Arc::increment_strong_count(cell);
            Arc::from_raw(cell)
        }
    }
}

/// Where a region lies. The caller has a granted place for it, and `deny` said nothing.
pub(crate) fn locate<T: Send + Sync + 'static, K: Kind<T>>(
    chunk: CorePtr,
    kind: &K,
    mode: Mode,
) -> Result<K::At, Refusal> {
    let value = chunk.value();
    let Some(measure) = K::MEASURE else { return Ok(K::At::new(value, None)) };
    // Under the lock, so that it is measured once for each whole write.
    located(value, kind, || chunk.lock().measured(value, measure, mode.writes()))
}

/// Where a region of a value lies that is no chunk's.
///
/// # Safety
/// Nobody writes the value for as long as what is located is used, and nothing is written through it.
pub(crate) unsafe fn locate_in<T: 'static, K: Kind<T>>(value: *const T, kind: &K) -> Result<K::At, Refusal> {
    let address = value.cast::<u8>().cast_mut();
    let Some(measure) = K::MEASURE else { return Ok(K::At::new(address, None)) };
    // SAFETY: the caller's promise; `measure` is that of `T`.
    located(address, kind, || unsafe { measure(address, false) })
}

fn located<T: 'static, K: Kind<T>>(
    value: *mut u8,
    kind: &K,
    measured: impl FnOnce() -> Parts,
) -> Result<K::At, Refusal> {
    let area = area_of(kind)?;
    let parts = measured();
    let elements = match core::clip(&area, &parts.shape)? {
        Area::Grid(grid) => Some(Elements::new(parts, grid)),
        _ => None,
    };
    Ok(K::At::new(value, elements))
}

/// The area of a kind, or why there can be none.
fn area_of<T: 'static, K: Kind<T>>(kind: &K) -> Result<Area, Refusal> {
    kind.area().map_err(|outside| Refusal::Outside { region: "a region".to_owned(), outside })
}

/// An access of a kind of region, without a place yet.
#[inline]
pub(crate) fn held<T: Send + Sync + 'static, K: Kind<T>>(
    chunk: CorePtr,
    kind: &K,
    mode: Mode,
) -> Result<Held, Refusal> {
    let area = match area_of(kind)? {
        Area::Whole => return Ok(Held::new(chunk, mode, None, false)),
        area => area,
    };
    if mode.writes()
        && let Some(twice) = kind.twice()
    {
        let content = std::any::type_name::<T>();
        let first = format!("element {twice} in a list of a chunk of `{content}`");
        return Err(Refusal::Aliased { first, second: "itself, as it is listed twice".to_owned() });
    }
    Ok(Held::new(chunk, mode, Some((area, K::MEASURE)), false))
}

impl<T: Send + Sync + 'static> Chunk<T> {
    /// Puts a value in a chunk.
    #[track_caller]
    pub fn new(value: T) -> Self {
        Self::make(Some(value), None)
    }

    /// Puts a value in a chunk that lives where `scope` says: tasks that access it run on processors of this scope, of the
    /// current runtime.
    ///
    /// A task whose own scope leaves none of them fails with [`Error::NoProcessor`](crate::Error::NoProcessor), one of another
    /// runtime with [`Error::Foreign`](crate::Error::Foreign).
    #[track_caller]
    pub fn new_in(scope: Scope, value: T) -> Self {
        Self::make(Some(value), Some(scope))
    }

    /// A chunk with the value that a task gives. Accesses wait for the task; if it fails they get its failure, also an
    /// `Out`: there is no value to write into.
    #[track_caller]
    pub fn from_task(task: DTask<T>) -> Self {
        let chunk = Self::make(None, None);
        crate::spawn::fill(task, Fill(&chunk), Location::caller());
        chunk
    }

    #[track_caller]
    fn make(value: Option<T>, scope: Option<Scope>) -> Self {
        let home = scope.is_some().then(|| {
            local::with(|local| {
                let pool = local.pool().unwrap_or_else(|| crate::runtime::default_pool());
                Arc::downgrade(&pool.keep())
            })
        });
        let content = std::any::type_name::<T>();
        let core = Core::new(scope, home, content, Location::caller(), value.is_some(), ChunkCell::<T>::TYPE);
        let value = value.map_or(MaybeUninit::uninit(), MaybeUninit::new);
        let chunk = Chunk(Arc::new(ChunkCell { core, value: UnsafeCell::new(value) }));
        residency::bind_here::<T>(ChunkCell::core_of(&chunk.0));
        chunk
    }

    /// A chunk whose value comes later, from a store.
    #[cfg(feature = "store")]
    #[track_caller]
    pub(crate) fn without_value() -> Self {
        let content = std::any::type_name::<T>();
        let core = Core::new(None, None, content, Location::caller(), false, ChunkCell::<T>::TYPE);
        Chunk(Arc::new(ChunkCell { core, value: UnsafeCell::new(MaybeUninit::uninit()) }))
    }

    fn placed(&self, mode: Mode) -> Placed<T, Whole> {
        Placed { cell: self.0.clone(), kind: Whole, mode }
    }

    /// Read access outside tasks. Takes its place in the queue when it is called; dropping the future gives it back.
    ///
    /// # Errors
    /// [`Error::Poisoned`](crate::Error::Poisoned), [`Error::Taken`](crate::Error::Taken), and
    /// [`Error::Deadlock`](crate::Error::Deadlock) inside a task that writes this chunk by its own arguments, and inside a `bulk` block that
    /// holds back a task for which it would wait.
    #[track_caller]
    pub fn read(&self) -> Access<Reading<T, Whole>> {
        Access::new(Reading(self.placed(Mode::In)))
    }

    /// Write access outside tasks. Takes its place in the queue when it is called; dropping the future gives it back.
    ///
    /// # Errors
    /// As [`read`](Self::read); for a poisoned chunk take [`recover`](Self::recover).
    #[track_caller]
    pub fn write(&self) -> Access<Writing<T, Whole>> {
        Access::new(Writing(self.placed(Mode::InOut)))
    }

    /// Write access to a chunk whatever failed before: clears all of its poison when its turn comes.
    ///
    /// # Errors
    /// As [`read`](Self::read), but [`Error::Poisoned`](crate::Error::Poisoned) only for a chunk
    /// [`from_task`](Self::from_task) whose task failed.
    #[track_caller]
    pub fn recover(&self) -> Access<Writing<T, Whole>> {
        Access::new(Writing(self.placed(Mode::InOut))).recovering()
    }

    /// Waits for the accesses before it and takes the value out. Accesses through other handles that come later fail with
    /// [`Error::Taken`](crate::Error::Taken). Dropping the future leaves the value in the chunk.
    ///
    /// # Errors
    /// As [`read`](Self::read); the value is then dropped with the last handle.
    #[track_caller]
    pub fn into_inner(self) -> impl Future<Output = Result<T>> + Send + Unpin {
        let access = self.write();
        map_output(access, WriteGuard::take)
    }
}

/// A future that maps what another one gives.
fn map_output<F, T, U>(
    mut future: F,
    mut map: impl FnMut(T) -> U + Unpin + Send,
) -> impl Future<Output = Result<U>> + Send + Unpin
where
    F: Future<Output = Result<T>> + Unpin + Send,
{
    std::future::poll_fn(move |cx| {
        std::pin::Pin::new(&mut future).poll(cx).map(|result| result.map(&mut map))
    })
}

impl<T: Send + Sync + 'static, K: Kind<T>> Part<'_, Chunk<T>, K> {
    fn placed(&self, mode: Mode) -> Placed<T, K> {
        Placed { cell: self.source.0.clone(), kind: self.kind.clone(), mode }
    }

    /// As [`Chunk::read`], of this region.
    ///
    /// # Errors
    /// As [`Chunk::read`], and [`Error::OutOfBounds`](crate::Error::OutOfBounds).
    #[track_caller]
    pub fn read(&self) -> Access<Reading<T, K>> {
        Access::new(Reading(self.placed(Mode::In)))
    }

    /// As [`Chunk::write`], of this region.
    ///
    /// # Errors
    /// As [`Chunk::write`], and [`Error::OutOfBounds`](crate::Error::OutOfBounds).
    #[track_caller]
    pub fn write(&self) -> Access<Writing<T, K>> {
        Access::new(Writing(self.placed(Mode::InOut)))
    }
}

impl<T> Clone for Chunk<T> {
    /// Another handle of the same chunk.
    fn clone(&self) -> Self {
        Chunk(self.0.clone())
    }
}

impl<T: Send + Sync + 'static> From<T> for Chunk<T> {
    #[track_caller]
    fn from(value: T) -> Self {
        Chunk::new(value)
    }
}

impl<T> fmt::Debug for Chunk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk<{}>(made at {})", std::any::type_name::<T>(), self.0.core.site)
    }
}
