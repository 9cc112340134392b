//! Containers whose elements can be accessed apart: where their elements lie.

use dagger_core::Shape;

/// Where the elements of a container lie, in elements of a type that its owner knows.
#[derive(Clone)]
pub struct Parts {
    pub(crate) base: *mut u8,
    pub(crate) shape: Shape,
    /// Distance between neighbours along each axis, in elements.
    pub(crate) strides: [isize; 6],
    /// The elements may be written through `base`.
    pub(crate) writes: bool,
}

/// Where the elements of a container lie: what [`Container::raw_parts`] reports.
#[derive(Clone, Debug)]
pub struct RawParts<E> {
    base: *mut E,
    shape: Shape,
    strides: [isize; 6],
}

impl<E> RawParts<E> {
    /// Elements at `base + Σ index[axis] · strides[axis]`, for each index below `dims`. One to six axes; strides are in elements.
    ///
    /// # Panics
    /// If there is no axis, more than six, or not a stride for each.
    pub fn new(base: *mut E, dims: &[usize], strides: &[isize]) -> Self {
        assert!(
            (1..=6).contains(&dims.len()) && dims.len() == strides.len(),
            "a container has one to six axes, with a stride each: {} and {}",
            dims.len(),
            strides.len()
        );
        let mut all = [0; 6];
        all[..strides.len()].copy_from_slice(strides);
        let shape = Shape::new(dims).unwrap_or(Shape::line(0));
        RawParts { base, shape, strides: all }
    }
}

/// A container whose elements can be accessed apart, so that tasks on disjoint regions of it run at once.
///
/// Implemented for `Vec<E>`, `[E; N]`, and with the feature `ndarray` for `ndarray::Array<E, D>`.
///
/// # Safety
/// Both functions report the same base pointer, shape and strides, by which every index within the shape leads to an
/// element of its own, initialised, that the container owns; it stays so until the container is next used by `&mut` or
/// moved. No reference to elements may be made, and none that covers them (an array is its elements); elements may be
/// written through what `raw_parts_mut` gives.
pub unsafe trait Container: Sized + Send + Sync + 'static {
    /// What it contains.
    type Elem: Send + Sync + 'static;

    /// Where the elements lie, to read them.
    ///
    /// # Safety
    /// `this` points to a live value. Others may have it by `&Self` meanwhile, or references to elements; nobody has it by
    /// `&mut`.
    unsafe fn raw_parts(this: *const Self) -> RawParts<Self::Elem>;

    /// Where the elements lie, to write them too.
    ///
    /// # Safety
    /// `this` points to a live value. Others may have references to elements meanwhile; nobody has one to the container.
    unsafe fn raw_parts_mut(this: *mut Self) -> RawParts<Self::Elem>;
}

/// A container of rank 1 whose elements lie side by side: its ranges are slices.
///
/// # Safety
/// The shape has one axis, with stride 1.
pub unsafe trait Linear: Container {}

/// A container of rank 2.
///
/// # Safety
/// The shape has two axes, rows and columns. If `Column` is [`Contiguous`](crate::region::Contiguous) the stride
/// between rows is 1.
pub unsafe trait Matrix: Container {
    /// How a column arrives: as a slice, or as a strided view.
    type Column: super::select::LineKind + super::select::Kind<Self>;
}

// SAFETY: the buffer of a `Vec` is its own allocation; `as_ptr` and `as_mut_ptr` copy the pointer to it from the header
// and make no reference to elements, as they promise.
unsafe impl<E: Send + Sync + 'static> Container for Vec<E> {
    type Elem = E;
    unsafe fn raw_parts(this: *const Self) -> RawParts<E> {
        // SAFETY: a shared reference to the header only, which is allowed here.
        let this = unsafe { &*this };
        RawParts::new(this.as_ptr().cast_mut(), &[this.len()], &[1])
    }
    unsafe fn raw_parts_mut(this: *mut Self) -> RawParts<E> {
        // SAFETY: nobody else has a reference to the header.
        let this = unsafe { &mut *this };
        RawParts::new(this.as_mut_ptr(), &[this.len()], &[1])
    }
}

// SAFETY: as above, stride 1.
unsafe impl<E: Send + Sync + 'static> Linear for Vec<E> {}

// SAFETY: the elements are the array itself, reached by a cast without any reference.
unsafe impl<E: Send + Sync + 'static, const N: usize> Container for [E; N] {
    type Elem = E;
    unsafe fn raw_parts(this: *const Self) -> RawParts<E> {
        RawParts::new(this.cast::<E>().cast_mut(), &[N], &[1])
    }
    unsafe fn raw_parts_mut(this: *mut Self) -> RawParts<E> {
        RawParts::new(this.cast::<E>(), &[N], &[1])
    }
}

// SAFETY: as above, stride 1.
unsafe impl<E: Send + Sync + 'static, const N: usize> Linear for [E; N] {}

/// As [`Container::raw_parts`], or to write as [`Container::raw_parts_mut`], for a queue that does not know the type.
pub(crate) unsafe fn measure<T: Container>(this: *mut u8, writes: bool) -> Parts {
    let measure = || {
        // SAFETY: the caller's promise, which is that of the function called; `this` points to a `T`.
        unsafe { if writes { T::raw_parts_mut(this.cast()) } else { T::raw_parts(this.cast()) } }
    };
    // A user's code, under the lock: a panic must not get past it. What cannot be measured has no elements.
    let nothing = |_| RawParts::new(std::ptr::dangling_mut(), &[0], &[1]);
    let RawParts { base, shape, strides } =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(measure)).unwrap_or_else(nothing);
    Parts { base: base.cast(), shape, strides, writes }
}

#[cfg(feature = "ndarray")]
mod nd {
    use super::{Container, Matrix, RawParts};
    use ndarray::{Array, Dimension, Ix2};

    // SAFETY: an owned array has a buffer of its own; `as_ptr` copies its pointer (to the logical first element) from
    // the header, strides may be negative and are reported as they are.
    unsafe impl<E: Send + Sync + 'static, D: Dimension + 'static> Container for Array<E, D> {
        type Elem = E;
        unsafe fn raw_parts(this: *const Self) -> RawParts<E> {
            // SAFETY: a shared reference to the header only, which is allowed here.
            let this = unsafe { &*this };
            parts(this.as_ptr().cast_mut(), this.shape(), this.strides())
        }
        unsafe fn raw_parts_mut(this: *mut Self) -> RawParts<E> {
            // SAFETY: nobody else has a reference to the header.
            let this = unsafe { &mut *this };
            let base = this.as_mut_ptr();
            parts(base, this.shape(), this.strides())
        }
    }

    fn parts<E>(base: *mut E, shape: &[usize], strides: &[isize]) -> RawParts<E> {
        match shape.len() {
            // A scalar is a line of one.
            0 => RawParts::new(base, &[1], &[1]),
            1..=6 => RawParts::new(base, shape, strides),
            // More axes than regions have: its only region is the whole.
            _ => RawParts::new(base, &[0], &[1]),
        }
    }

    // SAFETY: two axes; columns are strided in general.
    unsafe impl<E: Send + Sync + 'static> Matrix for Array<E, Ix2> {
        type Column = super::super::select::Strided;
    }
}
