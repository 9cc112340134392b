//! The symmetric update: C ← C − A·Aᵀ, lower triangle.

use faer::prelude::ReborrowMut;
use faer::{MatMut, MatRef};

use super::dense::{panels, view, view_mut};
use super::shapes::{require, shape};
use crate::{Element, Tile};

/// The lower triangle of C ← C − A·Aᵀ; the strict upper triangle of `c` is untouched.
///
/// `a` is n × k, `c` is n × n. n²·k flops, no memory of its own.
///
/// # Panics
/// If the shapes do not fit; `c` is then as it was.
///
/// ```
/// use dagger_array::{Tile, kernels::syrk};
///
/// let a = Tile::from_fn(2, 3, |i, _| (i + 1) as f64);
/// let mut c = Tile::zeros(2, 2);
/// syrk(&a, &mut c);
/// assert_eq!((c[(1, 0)], c[(0, 1)]), (-6.0, 0.0));
/// ```
#[track_caller]
pub fn syrk<T: Element>(a: &Tile<T>, c: &mut Tile<T>) {
    let fits = shape(c) == (a.rows(), a.rows());
    require(fits, "syrk", "C - A*Aᵀ takes a of n×k and c of n×n", &[("a", shape(a)), ("c", shape(c))]);
    subtract_gram(view(a), view_mut(c));
}

/// Up to this order a triangle is updated in one piece.
///
/// Faer computes blocks of 24 or 48 rows and throws away what lies above the diagonal, so the triangles have to be small:
/// with 48 `syrk` is 3 to 8 % faster from 256 to 512 than as one triangle; with 24 it is three times slower.
const LEAF: usize = 48;

/// The lower triangle of C ← C − A·Aᵀ: two triangles, and between them a product that runs at full speed.
pub(super) fn subtract_gram<T: Element>(a: MatRef<'_, T>, mut c: MatMut<'_, T>) {
    let n = a.nrows();
    if n <= LEAF {
        return T::subtract_product_lower(a, a.transpose(), c);
    }
    let half = (n / 2).next_multiple_of(LEAF); // below n: at least 49 rows in two halves, rounded up to 48 or more
    let (above, below) = a.split_at_row(half);
    let (first, _, mut between, last) = c.rb_mut().split_at_mut(half, half);
    subtract_gram(above, first);
    for (k, width) in panels(a.ncols()) {
        T::subtract_product(below.subcols(k, width), above.subcols(k, width).transpose(), between.rb_mut());
    }
    subtract_gram(below, last);
}
