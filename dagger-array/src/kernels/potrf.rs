//! The Cholesky factor of one tile.

use faer::prelude::{Reborrow, ReborrowMut};

use super::dense::{PANEL, panels, view_mut};
use super::shapes::{require, shape};
use super::syrk::subtract_gram;
use super::trsm::solve_right;
use crate::{Element, Tile};

/// The matrix has no Cholesky factor: a pivot is not a positive finite number.
///
/// Nothing is wrong with the program. Shift the diagonal, or use a factorisation for indefinite matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not positive definite: pivot {pivot} is not a positive finite number")]
#[non_exhaustive]
pub struct NotPositiveDefinite {
    /// The row of the first bad pivot, from 0. The leading minors of a smaller order are positive.
    pub pivot: usize,
}

/// A = L·Lᵀ in place, for a symmetric positive definite tile of which only the lower triangle is read.
///
/// `a` is n × n. The lower triangle receives `L`, with a positive diagonal; the strict upper triangle is untouched.
/// n³/3 flops; one panel of memory of its own, at most 64 columns of 64 rows.
///
/// # Errors
/// [`NotPositiveDefinite`] with the row of the first pivot that is zero, negative, infinite or NaN. An element that is
/// NaN or infinite is found at the latest by the pivot of its row. `a` is then part factored.
///
/// # Panics
/// If `a` is not square; `a` is then as it was.
///
/// ```
/// use dagger_array::{Tile, kernels::potrf};
///
/// let mut a = Tile::from_fn(2, 2, |i, j| if i == j { 4.0 } else { 2.0 });
/// assert!(potrf(&mut a).is_ok());
/// assert_eq!((a[(0, 0)], a[(1, 0)], a[(0, 1)]), (2.0, 1.0, 2.0));
/// assert!((a[(1, 1)] - 3f64.sqrt()).abs() < 1e-15);
///
/// let mut a = Tile::from_fn(2, 2, |i, j| if i == j { 1.0 } else { 2.0 });
/// assert_eq!(potrf(&mut a).map_err(|error| error.pivot), Err(1));
/// ```
#[track_caller]
pub fn potrf<T: Element>(a: &mut Tile<T>) -> Result<(), NotPositiveDefinite> {
    require(a.rows() == a.cols(), "potrf", "L*Lᵀ takes a of n×n", &[("a", shape(a))]);
    let n = a.rows();
    // faer writes above the diagonal of what it factors, so it factors a copy of each diagonal block.
    let mut block = Tile::zeros(n.min(PANEL), n.min(PANEL));
    for (k, width) in panels(n) {
        for j in 0..width {
            block.col_mut(j)[j..width].copy_from_slice(&a.col(k + j)[k + j..k + width]);
        }
        let factored = T::factor(view_mut(&mut block).submatrix_mut(0, 0, width, width));
        for j in 0..width {
            a.col_mut(k + j)[k + j..k + width].copy_from_slice(&block.col(j)[j..width]);
        }
        factored.map_err(|pivot| NotPositiveDefinite { pivot: k + pivot })?;

        let (diagonal, _, mut below, trailing) =
            view_mut(a).submatrix_mut(k, k, n - k, n - k).split_at_mut(width, width);
        solve_right(diagonal.rb(), below.rb_mut());
        subtract_gram(below.rb(), trailing);
    }
    Ok(())
}

/// The sum of the natural logarithms of the diagonal: half of ln det A, where A = L·Lᵀ.
///
/// `l` is n × n. NaN if an element of the diagonal is negative or NaN, −∞ if one is zero.
///
/// # Panics
/// If `l` is not square.
///
/// ```
/// use dagger_array::{Tile, kernels::log_diagonal};
///
/// let l = Tile::from_fn(3, 3, |i, j| if i == j { 1f64.exp() } else { 0.0 });
/// assert!((log_diagonal(&l) - 3.0).abs() < 1e-15);
/// ```
#[track_caller]
pub fn log_diagonal<T: Element>(l: &Tile<T>) -> T {
    require(l.rows() == l.cols(), "log_diagonal", "l is n×n", &[("l", shape(l))]);
    (0..l.rows()).map(|i| l[(i, i)].ln()).sum()
}
