//! Solves with a lower triangular tile, from the right and from the left.

use faer::prelude::{Reborrow, ReborrowMut};
use faer::{MatMut, MatRef};

use super::dense::{panels, view, view_mut};
use super::shapes::{require, shape};
use crate::{Element, Tile};

/// B ← B·L⁻ᵀ, the solve of a tiled Cholesky factorisation.
///
/// `l` is n × n and only its lower triangle is read, `b` is m × n. m·n² flops, no memory of its own.
///
/// # Panics
/// If the shapes do not fit; `b` is then as it was.
///
/// ```
/// use dagger_array::{Tile, kernels::trsm};
///
/// let l = Tile::from_fn(2, 2, |i, j| if i < j { f64::NAN } else { 2.0 });
/// let mut b = Tile::from_fn(1, 2, |_, j| if j == 0 { 2.0 } else { 6.0 });
/// trsm(&l, &mut b);
/// assert_eq!(b.iter().copied().collect::<Vec<_>>(), [1.0, 2.0]);
/// ```
#[track_caller]
pub fn trsm<T: Element>(l: &Tile<T>, b: &mut Tile<T>) {
    let fits = l.rows() == l.cols() && b.cols() == l.rows();
    require(fits, "trsm", "B*L⁻ᵀ takes l of n×n and b of m×n", &[("l", shape(l)), ("b", shape(b))]);
    solve_right(view(l), view_mut(b));
}

/// B ← L⁻¹·B, the forward solve.
///
/// `l` is n × n and only its lower triangle is read, `b` is n × m. m·n² flops, no memory of its own.
///
/// # Panics
/// If the shapes do not fit; `b` is then as it was.
#[track_caller]
pub fn solve_lower<T: Element>(l: &Tile<T>, b: &mut Tile<T>) {
    let fits = l.rows() == l.cols() && b.rows() == l.rows();
    require(fits, "solve_lower", "L⁻¹*B takes l of n×n and b of n×m", &[("l", shape(l)), ("b", shape(b))]);
    T::solve_lower(view(l), view_mut(b));
}

/// B ← L⁻ᵀ·B, the backward solve.
///
/// `l` is n × n and only its lower triangle is read, `b` is n × m. m·n² flops, no memory of its own.
///
/// # Panics
/// If the shapes do not fit; `b` is then as it was.
///
/// ```
/// use dagger_array::{Tile, kernels::{potrf, solve_lower, solve_lower_transposed}};
///
/// # fn main() -> Result<(), dagger_array::NotPositiveDefinite> {
/// let mut a = Tile::from_fn(2, 2, |i, j| if i == j { 2.0 } else { 1.0 });
/// let mut x = Tile::from_fn(2, 1, |_, _| 3.0);
/// potrf(&mut a)?;
/// solve_lower(&a, &mut x);
/// solve_lower_transposed(&a, &mut x); // A·x = [3, 3]
/// assert!(x.iter().all(|x: &f64| (x - 1.0).abs() < 1e-15));
/// # Ok(())
/// # }
/// ```
#[track_caller]
pub fn solve_lower_transposed<T: Element>(l: &Tile<T>, b: &mut Tile<T>) {
    let fits = l.rows() == l.cols() && b.rows() == l.rows();
    let shapes = [("l", shape(l)), ("b", shape(b))];
    require(fits, "solve_lower_transposed", "L⁻ᵀ*B takes l of n×n and b of n×m", &shapes);
    T::solve_upper(view(l).transpose(), view_mut(b));
}

/// B ← B·L⁻ᵀ by panels of columns: solve one, then take it out of all that follow.
pub(super) fn solve_right<T: Element>(l: MatRef<'_, T>, mut b: MatMut<'_, T>) {
    let n = l.nrows();
    for (k, width) in panels(n) {
        let (mut solved, mut rest) = b.rb_mut().subcols_mut(k, n - k).split_at_col_mut(width);
        T::solve_lower(l.submatrix(k, k, width, width), solved.rb_mut().transpose_mut());
        let below = l.submatrix(k + width, k, n - k - width, width);
        T::subtract_product(solved.rb(), below.transpose(), rest.rb_mut());
    }
}
