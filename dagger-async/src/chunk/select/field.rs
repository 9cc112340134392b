//! Fields of structs, and regions of a user's own kind.

use super::{Address, At, Kind};
use crate::chunk::core::Measure;
use dagger_core::{Area, Outside, Region};
use std::marker::PhantomData;
use std::sync::Arc;

/// A field of a struct, as [`field!`](crate::field) names it.
pub struct FieldOf<T, F> {
    pub(super) offset: usize,
    types: PhantomData<fn(T) -> F>,
}

impl<T, F> Clone for FieldOf<T, F> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, F> Copy for FieldOf<T, F> {}

impl<T, F> FieldOf<T, F> {
    /// What `field!` expands to.
    ///
    /// `_field` gives a raw pointer, so that nothing but the type of the field itself fits: a reference to a `Box<F>` would
    /// be taken for one to its `F`.
    ///
    /// # Safety
    /// A valid `T` has a valid, aligned `F` at this offset.
    #[doc(hidden)]
    pub const unsafe fn at(offset: usize, _field: fn(&T) -> *const F) -> Self {
        FieldOf { offset, types: PhantomData }
    }
}

/// A field of the struct in a chunk: arrives as `&F`.
pub struct Field<F> {
    pub(super) offset: usize,
    pub(super) types: PhantomData<fn() -> F>,
}

impl<F> Clone for Field<F> {
    fn clone(&self) -> Self {
        Field { offset: self.offset, types: PhantomData }
    }
}

// SAFETY: the bytes of the field (`FieldOf::at`).
unsafe impl<T: 'static, F: Send + Sync + 'static> Kind<T> for Field<F> {
    type Ref<'a> = &'a F;
    type Mut<'a> = &'a mut F;
    type At = Address;
    const MEASURE: Option<Measure> = None;
    fn area(&self) -> Result<Area, Outside> {
        Ok(Area::Bytes(self.offset..self.offset + size_of::<F>()))
    }
    unsafe fn view<'a>(&'a self, at: &'a Address) -> &'a F {
        // SAFETY: `FieldOf::at`, composed with offsets of fields of fields; the caller's promise.
        unsafe { &*at.value().add(self.offset).cast::<F>() }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Address) -> &'a mut F {
        // SAFETY: as above.
        unsafe { &mut *at.value().add(self.offset).cast::<F>() }
    }
}

/// A kind of region that a user adds to the built-in ones: what a callee gets for it. Its overlap test is [`Region`].
///
/// # Safety
/// `view` and `view_mut` reach only what the region says, without a reference to the rest of the value: two regions
/// that do not overlap are accessed at once.
pub unsafe trait View<T>: Region {
    /// What an `In` hands to the callee.
    type Ref<'a>;
    /// What an `Out` or `InOut` hands to the callee.
    type Mut<'a>;
    /// The region of this value, to read.
    ///
    /// # Safety
    /// `value` points to a valid `T`; nobody writes this region of it for `'a`.
    unsafe fn view<'a>(&'a self, value: *const T) -> Self::Ref<'a>;
    /// The region of this value, to write.
    ///
    /// # Safety
    /// `value` points to a valid `T`; nobody else accesses this region of it for `'a`.
    unsafe fn view_mut<'a>(&'a self, value: *mut T) -> Self::Mut<'a>;
}

/// A region of a user's own kind.
pub struct Custom<R>(pub(super) Arc<R>);

impl<R> Clone for Custom<R> {
    fn clone(&self) -> Self {
        Custom(self.0.clone())
    }
}

// SAFETY: the promise of `View`.
unsafe impl<T: 'static, R: View<T>> Kind<T> for Custom<R> {
    type Ref<'a> = R::Ref<'a>;
    type Mut<'a> = R::Mut<'a>;
    type At = Address;
    const MEASURE: Option<Measure> = None;
    fn area(&self) -> Result<Area, Outside> {
        Ok(Area::Custom(self.0.clone()))
    }
    unsafe fn view<'a>(&'a self, at: &'a Address) -> R::Ref<'a> {
        // SAFETY: the caller's promise.
        unsafe { self.0.view(at.value().cast::<T>()) }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Address) -> R::Mut<'a> {
        // SAFETY: the caller's promise.
        unsafe { self.0.view_mut(at.value().cast::<T>()) }
    }
}

/// A field of a struct, for [`Chunk::field`](crate::Chunk::field): `field!(Body, position.x)`. Packed structs are refused by the compiler, and
/// unions, whose fields only `unsafe` code may read.
#[macro_export]
macro_rules! field {
    ($Type:ty, $($field:tt).+) => {{
        // What the user wrote stands outside the `unsafe` block.
        let offset = ::core::mem::offset_of!($Type, $($field).+);
        let field = |of: &$Type| {
            // A reference does not compile for packed structs.
            let _ = &of.$($field).+;
            &raw const of.$($field).+
        };
        // SAFETY: `offset_of!` is the place of this very field, and the function has its type.
        unsafe { $crate::region::FieldOf::<$Type, _>::at(offset, field) }
    }};
}
