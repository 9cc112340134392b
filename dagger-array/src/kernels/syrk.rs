//! The symmetric update: C ← C − A·Aᵀ, lower triangle.

use faer::prelude::ReborrowMut;

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
    let (a, mut c) = (view(a), view_mut(c));
    for (k, width) in panels(a.ncols()) {
        let slice = a.subcols(k, width);
        T::subtract_product_lower(slice, slice.transpose(), c.rb_mut());
    }
}
