//! What a tile may hold.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::kernels::Dense;

/// A real number that kernels compute with: `f32` or `f64`.
///
/// Sealed: the kernels are compiled once, in this crate, for these two types.
///
/// ```
/// use dagger_array::{Element, Tile};
///
/// fn trace<T: Element>(tile: &Tile<T>) -> T {
///     (0..tile.rows().min(tile.cols())).map(|i| tile[(i, i)]).sum()
/// }
/// assert_eq!(trace(&Tile::<f32>::identity(3)), 3.0);
/// ```
pub trait Element:
    Dense
    + Copy
    + Default
    + PartialOrd
    + Debug
    + Display
    + Send
    + Sync
    + Sum
    + Neg<Output = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + 'static
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
}

impl Element for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
}

impl Element for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
}
