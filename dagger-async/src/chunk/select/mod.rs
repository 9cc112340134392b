//! What an access is declared on: the region methods, and which view each kind of region arrives as.
//!
//! ```text
//!   Vec, [E; N]     slice(a..b) ─▶ &[E]     slice(step(..)), slice(index(..)) ─▶ VecRef
//!   matrices        view ─▶ MatRef     row, col, diag ─▶ VecRef (a column of a tile: &[E])     lower, upper, band ─▶ TriRef
//!   structs         field(field!(T, a.b)) ─▶ &F
//!   anything        the chunk itself ─▶ &T     region(r) ─▶ what `r` says
//! ```
//! 1. A kind carries the region as the user wrote it; a length that is not known yet is open (`TO_END`).
//! 2. What cannot be (a part outside the part around it) is kept as an error and reported by the task.
//! 3. Views are made from the region as it is clipped to the shape at the grant, never from what was written.

mod field;
mod line;
mod matrix;
mod methods;

pub use field::{Custom, Field, FieldOf, View};
pub(crate) use line::LineKind;
pub use line::{Contiguous, IndexList, Listed, Positions, Ranges, Step, Strided, index, step};
pub use matrix::{Banded, Block, Triangle};

use super::Chunk;
use super::container::Parts;
use super::core::Measure;
use crate::task::{DTask, Kept};
use dagger_core::{Area, Grid, Outside};

/// A region of a chunk, or of a task's result: what [`In`](crate::In), [`Out`](crate::Out) and [`InOut`](crate::InOut)
/// are given.
pub struct Part<'c, S, K> {
    pub(crate) source: &'c S,
    pub(crate) kind: K,
}

impl<S, K: Clone> Clone for Part<'_, S, K> {
    fn clone(&self) -> Self {
        Part { source: self.source, kind: self.kind.clone() }
    }
}

/// A kind of region: what the queue is told, and what the callee gets.
///
/// # Safety
/// The views cover elements of `area` only, and `view_mut` each of them once.
#[doc(hidden)]
pub unsafe trait Kind<T: 'static>: Clone + Send + Sync + 'static {
    /// To read.
    type Ref<'a>;
    /// To write.
    type Mut<'a>;
    /// What is known of where a granted region lies: an [`Address`] for kinds without elements.
    type At: At;
    /// How to find the elements, for kinds that have some.
    const MEASURE: Option<Measure>;

    /// The region, as far as it is known without the length.
    fn area(&self) -> Result<Area, Outside>;
    /// An element that is listed twice, which is no way to write it.
    fn twice(&self) -> Option<usize> {
        None
    }
    /// # Safety
    /// `at` was located for this kind in a chunk whose elements of this region nobody writes for `'a`.
    unsafe fn view<'a>(&'a self, at: &'a Self::At) -> Self::Ref<'a>;
    /// # Safety
    /// `at` was located for this kind in a chunk whose elements of this region nobody else accesses for `'a`.
    unsafe fn view_mut<'a>(&'a self, at: &'a Self::At) -> Self::Mut<'a>;
}

/// Where a granted region lies.
#[doc(hidden)]
pub trait At: Sized + Send + Sync + 'static {
    /// In this value. `elements`: where they lie, and the region clipped to their shape, once that was found.
    fn new(value: *mut u8, elements: Option<Elements>) -> Self;
    /// The address of the value.
    fn value(&self) -> *mut u8;
}

/// Where elements lie, and a region of them.
#[doc(hidden)]
pub struct Elements(Kept<(Parts, Grid)>);

impl Elements {
    pub(crate) fn new(parts: Parts, grid: Grid) -> Elements {
        Elements(Kept::new((parts, grid)))
    }
}

/// Where the value lies: all there is to know for a kind without elements. It owns nothing, so arguments that are whole chunks, as most
/// are, need no drop.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Address(*mut u8);

// SAFETY: an address; what is made of it is `Send + Sync` by the bounds of the views.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl At for Address {
    #[inline]
    fn new(value: *mut u8, _: Option<Elements>) -> Self {
        Address(value)
    }
    #[inline]
    fn value(&self) -> *mut u8 {
        self.0
    }
}

/// Where the value lies, and elements of it.
#[doc(hidden)]
pub struct Located {
    value: *mut u8,
    elements: Option<Elements>,
}

impl At for Located {
    fn new(value: *mut u8, elements: Option<Elements>) -> Self {
        Located { value, elements }
    }
    fn value(&self) -> *mut u8 {
        self.value
    }
}

// SAFETY: addresses; what is made of them is `Send + Sync` by the bounds of the views.
unsafe impl Send for Located {}
// SAFETY: as above.
unsafe impl Sync for Located {}

const LOCATED: &str = "a region of elements is located with its grid (`Core::locate`)";

impl Located {
    fn grid(&self) -> (&Parts, &Grid) {
        let (parts, grid) = &*self.elements.as_ref().expect(LOCATED).0;
        (parts, grid)
    }
}

/// The whole chunk: arrives as `&T`.
#[derive(Clone, Copy, Debug)]
pub struct Whole;

// SAFETY: the whole value, as its area says.
unsafe impl<T: 'static> Kind<T> for Whole {
    type Ref<'a> = &'a T;
    type Mut<'a> = &'a mut T;
    type At = Address;
    const MEASURE: Option<Measure> = None;
    fn area(&self) -> Result<Area, Outside> {
        Ok(Area::Whole)
    }
    unsafe fn view<'a>(&'a self, at: &'a Address) -> &'a T {
        // SAFETY: there is a value (checked when it was located), and the caller's promise.
        unsafe { &*at.value().cast::<T>() }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Address) -> &'a mut T {
        // SAFETY: as above.
        unsafe { &mut *at.value().cast::<T>() }
    }
}

/// What has regions: a chunk, or the handle of a task.
#[doc(hidden)]
pub trait Source {
    type Content: 'static;
}

impl<T: Send + Sync + 'static> Source for Chunk<T> {
    type Content = T;
}

impl<T: Send + Sync + 'static> Source for DTask<T> {
    type Content = T;
}

/// A kind whose positions do not count from its own first element: it has no parts of its own.
#[derive(Clone)]
pub struct Cut<K>(K);

// SAFETY: as its inner kind.
unsafe impl<T: 'static, K: Kind<T>> Kind<T> for Cut<K> {
    type Ref<'a> = K::Ref<'a>;
    type Mut<'a> = K::Mut<'a>;
    type At = K::At;
    const MEASURE: Option<Measure> = K::MEASURE;
    fn area(&self) -> Result<Area, Outside> {
        self.0.area()
    }
    unsafe fn view<'a>(&'a self, at: &'a K::At) -> K::Ref<'a> {
        // SAFETY: the caller's promise.
        unsafe { self.0.view(at) }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a K::At) -> K::Mut<'a> {
        // SAFETY: the caller's promise.
        unsafe { self.0.view_mut(at) }
    }
}
