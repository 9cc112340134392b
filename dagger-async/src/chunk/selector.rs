//! Regions without a chunk, for [`Deps`](crate::Deps): `lower().strict()`, `diag()`, `row(3)`.

use super::Chunk;
use super::container::{Linear, Matrix};
use super::select::{Banded, Block, Contiguous, Part, Positions, Ranges, Strided, Triangle};
use crate::call::Selector;

macro_rules! selector {
    ($(#[$doc:meta])* $name:ident, $Name:ident { $($field:ident: $Type:ty),* } $T:ident: $Bound:ident => $Kind:ty) => {
        #[doc = concat!("See [`", stringify!($name), "`](fn@", stringify!($name), ").")]
        #[derive(Clone, Copy, Debug)]
        pub struct $Name { $($field: $Type),* }

        $(#[$doc])*
        pub fn $name($($field: $Type),*) -> $Name {
            $Name { $($field),* }
        }

        impl<$T: $Bound> Selector<$T> for $Name {
            type Kind = $Kind;
            fn select(self, chunk: &Chunk<$T>) -> Part<'_, Chunk<$T>, $Kind> {
                chunk.$name($(self.$field),*)
            }
        }
    };
}

selector!(
    /// The diagonal of a matrix.
    diag, Diag {} T: Matrix => Strided);
selector!(
    /// The lower triangle of a matrix, with the diagonal; see also [`Lower::strict`] and [`Lower::unit`].
    lower, Lower {} T: Matrix => Triangle);
selector!(
    /// The upper triangle of a matrix, with the diagonal; see also [`Upper::strict`] and [`Upper::unit`].
    upper, Upper {} T: Matrix => Triangle);
selector!(
    /// A row of a matrix.
    row, Row { row: usize } T: Matrix => Strided);
selector!(
    /// A column of a matrix.
    col, Col { col: usize } T: Matrix => T::Column);
selector!(
    /// The diagonal of a matrix and `k` more on each side.
    band, BandOf { k: usize } T: Matrix => Banded);

/// Positions of a line, rows and columns of a matrix.
macro_rules! ranged {
    ($(#[$doc:meta])* $name:ident, $Name:ident<$($R:ident: $field:ident),*>, $RangeBound:ident, $T:ident: $Bound:ident => $Kind:ty) => {
        #[doc = concat!("See [`", stringify!($name), "`](fn@", stringify!($name), ").")]
        #[derive(Clone, Copy, Debug)]
        pub struct $Name<$($R),*> { $($field: $R),* }

        $(#[$doc])*
        pub fn $name<$($R: $RangeBound),*>($($field: $R),*) -> $Name<$($R),*> {
            $Name { $($field),* }
        }

        impl<$T: $Bound, $($R: $RangeBound),*> Selector<$T> for $Name<$($R),*>
        where
            $Kind: super::select::Kind<$T>,
        {
            type Kind = $Kind;
            fn select(self, chunk: &Chunk<$T>) -> Part<'_, Chunk<$T>, $Kind> {
                chunk.$name($(self.$field),*)
            }
        }
    };
}

ranged!(
    /// Positions of a `Vec` or array.
    slice, Slice<P: positions>, Positions, T: Linear => P::Of<Contiguous>);
ranged!(
    /// Rows and columns of a matrix.
    view, ViewOf<R: rows, C: cols>, Ranges, T: Matrix => Block);

/// See [`Lower::strict`].
#[derive(Clone, Copy, Debug)]
pub struct Strict<S>(S);

/// See [`Lower::unit`].
#[derive(Clone, Copy, Debug)]
pub struct Unit<S>(S);

macro_rules! triangle {
    ($Name:ident) => {
        impl $Name {
            /// Without the diagonal.
            pub fn strict(self) -> Strict<Self> {
                Strict(self)
            }
            /// With a diagonal of ones that are not stored.
            pub fn unit(self) -> Unit<Self> {
                Unit(self)
            }
        }
        impl<T: Matrix> Selector<T> for Strict<$Name> {
            type Kind = Banded;
            fn select(self, chunk: &Chunk<T>) -> Part<'_, Chunk<T>, Banded> {
                self.0.select(chunk).strict()
            }
        }
        impl<T: Matrix> Selector<T> for Unit<$Name> {
            type Kind = Banded;
            fn select(self, chunk: &Chunk<T>) -> Part<'_, Chunk<T>, Banded> {
                self.0.select(chunk).unit()
            }
        }
    };
}
triangle!(Lower);
triangle!(Upper);
