//! The bridge to faer: what a kernel is made of, compiled here once for `f32` and once for `f64`.
//!
//! The functions are not generic where they are called, so a crate that uses them compiles none of faer's generic code
//! again, and gets it optimised even where it is not optimised itself. `Par::Seq` stands in every call: faer's default
//! is a process-wide setting, and may be a thread pool.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{
    LltError, LltParams, cholesky_in_place, cholesky_in_place_scratch,
};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{BlockStructure, matmul as triangular_matmul};
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Accum, Auto, MatMut, MatRef, Par, Spec};

use crate::Tile;

// With files, what a tile holds is a number that files hold.
#[cfg(not(feature = "store"))]
use bytemuck::Pod as Number;
#[cfg(feature = "store")]
use dagger_async::store::Number;

/// The operations of a kernel, on views. The module is private, so nobody else can name or implement it.
pub trait Dense: Number {
    /// A = L·Lᵀ in place. Writes the strict upper triangle too: whatever was there is lost.
    ///
    /// # Errors
    /// The index of the first pivot that is not a positive finite number.
    fn factor(a: MatMut<'_, Self>) -> Result<(), usize>;

    /// B ← L⁻¹·B, reading the lower triangle only.
    fn solve_lower(l: MatRef<'_, Self>, b: MatMut<'_, Self>);

    /// B ← U⁻¹·B, reading the upper triangle only.
    fn solve_upper(u: MatRef<'_, Self>, b: MatMut<'_, Self>);

    /// C ← C − A·B.
    fn subtract_product(a: MatRef<'_, Self>, b: MatRef<'_, Self>, c: MatMut<'_, Self>);

    /// C ← C + A·B.
    fn add_product(a: MatRef<'_, Self>, b: MatRef<'_, Self>, c: MatMut<'_, Self>);

    /// The lower triangle of C ← C − A·B; the strict upper one is neither read nor written.
    fn subtract_product_lower(a: MatRef<'_, Self>, b: MatRef<'_, Self>, c: MatMut<'_, Self>);

    /// The natural logarithm.
    fn ln(self) -> Self;

    /// Tiles of this type are known to the store from now on. Costs a load from the second call on.
    #[cfg(feature = "store")]
    fn make_known();
}

macro_rules! dense {
    ($($t:ty),*) => {$(
        impl Dense for $t {
            fn factor(a: MatMut<'_, $t>) -> Result<(), usize> {
                let params = Spec::new(LltParams { recursion_threshold: leaf::<$t>(), ..Auto::<$t>::auto() });
                let mut scratch = MemBuffer::new(cholesky_in_place_scratch::<$t>(a.nrows(), Par::Seq, params));
                match cholesky_in_place(a, Default::default(), Par::Seq, MemStack::new(&mut scratch), params) {
                    Ok(_) => Ok(()),
                    Err(LltError::NonPositivePivot { index }) => Err(index),
                }
            }

            fn solve_lower(l: MatRef<'_, $t>, b: MatMut<'_, $t>) {
                solve_lower_triangular_in_place(l, b, Par::Seq);
            }

            fn solve_upper(u: MatRef<'_, $t>, b: MatMut<'_, $t>) {
                solve_upper_triangular_in_place(u, b, Par::Seq);
            }

            fn subtract_product(a: MatRef<'_, $t>, b: MatRef<'_, $t>, c: MatMut<'_, $t>) {
                matmul(c, Accum::Add, a, b, -1.0, Par::Seq);
            }

            fn add_product(a: MatRef<'_, $t>, b: MatRef<'_, $t>, c: MatMut<'_, $t>) {
                matmul(c, Accum::Add, a, b, 1.0, Par::Seq);
            }

            fn subtract_product_lower(a: MatRef<'_, $t>, b: MatRef<'_, $t>, c: MatMut<'_, $t>) {
                use BlockStructure::{Rectangular, TriangularLower};
                triangular_matmul(c, TriangularLower, Accum::Add, a, Rectangular, b, Rectangular, -1.0, Par::Seq);
            }

            fn ln(self) -> $t {
                <$t>::ln(self)
            }

            #[cfg(feature = "store")]
            fn make_known() {
                static KNOWN: std::sync::Once = std::sync::Once::new();
                KNOWN.call_once(dagger_async::store::register::<Tile<$t>>);
            }
        }
    )*};
}

dense!(f32, f64);

/// The order below which faer factors by columns instead of by blocks: 128 bytes of a column.
///
/// Its default of 64 is 10 to 30 % slower up to 256: one column after the other runs at a tenth of the CPU's speed.
const fn leaf<T>() -> usize {
    128 / size_of::<T>()
}

/// How many columns of a common dimension one product takes (see "Speed" in the parent).
///
/// Measured with `f64` of order 256 to 512: slices of 64 make `gemm` 11 to 21 % and `syrk` 5 to 15 % faster than the
/// whole; with 128 some of that is lost, with 32 the additional passes over the result cost more.
pub(super) const PANEL: usize = 64;

/// The slices of a common dimension of `k`: where each starts and how long it is.
pub(super) fn panels(k: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..k).step_by(PANEL).map(move |start| (start, PANEL.min(k - start)))
}

/// The elements of a tile, for reading.
pub(super) fn view<T>(tile: &Tile<T>) -> MatRef<'_, T> {
    MatRef::from_column_major_slice_with_stride(tile.padded(), tile.rows(), tile.cols(), tile.ld())
}

/// The elements of a tile, for writing.
pub(super) fn view_mut<T>(tile: &mut Tile<T>) -> MatMut<'_, T> {
    let (rows, cols, ld) = (tile.rows(), tile.cols(), tile.ld());
    MatMut::from_column_major_slice_with_stride_mut(tile.padded_mut(), rows, cols, ld)
}
