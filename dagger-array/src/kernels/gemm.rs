//! Products: C ← C − A·Bᵀ, the forms without and with the other transpose, and C ← C + A·B.

use faer::prelude::ReborrowMut;

use super::dense::{panels, view, view_mut};
use super::shapes::{require, shape};
use crate::{Element, Tile};

/// C ← C − A·Bᵀ, the update of a tiled Cholesky factorisation.
///
/// `a` is m × k, `b` is n × k, `c` is m × n. 2·m·n·k flops, no memory of its own.
///
/// # Panics
/// If the shapes do not fit; `c` is then as it was.
///
/// ```
/// use dagger_array::{Tile, kernels::gemm};
///
/// let (a, b) = (Tile::from_fn(2, 3, |i, _| i as f64), Tile::from_fn(4, 3, |j, _| j as f64));
/// let mut c = Tile::zeros(2, 4);
/// gemm(&a, &b, &mut c);
/// assert_eq!(c[(1, 3)], -9.0);
/// ```
#[track_caller]
pub fn gemm<T: Element>(a: &Tile<T>, b: &Tile<T>, c: &mut Tile<T>) {
    let shapes = [("a", shape(a)), ("b", shape(b)), ("c", shape(c))];
    let fits = a.cols() == b.cols() && shape(c) == (a.rows(), b.rows());
    require(fits, "gemm", "C - A*Bᵀ takes a of m×k, b of n×k and c of m×n", &shapes);
    let (a, b, mut c) = (view(a), view(b), view_mut(c));
    for (k, width) in panels(a.ncols()) {
        T::subtract_product(a.subcols(k, width), b.subcols(k, width).transpose(), c.rb_mut());
    }
}

/// C ← C − A·B, the update of a backward or forward solve whose triangle is not transposed.
///
/// `a` is m × k, `b` is k × n, `c` is m × n. 2·m·n·k flops, no memory of its own.
///
/// # Panics
/// If the shapes do not fit; `c` is then as it was.
#[track_caller]
pub fn gemm_nn<T: Element>(a: &Tile<T>, b: &Tile<T>, c: &mut Tile<T>) {
    let shapes = [("a", shape(a)), ("b", shape(b)), ("c", shape(c))];
    let fits = a.cols() == b.rows() && shape(c) == (a.rows(), b.cols());
    require(fits, "gemm_nn", "C - A*B takes a of m×k, b of k×n and c of m×n", &shapes);
    T::subtract_product(view(a), view(b), view_mut(c));
}

/// C ← C − Aᵀ·B, the update of a backward solve with the transpose of a lower triangle.
///
/// `a` is k × m, `b` is k × n, `c` is m × n. 2·m·n·k flops, no memory of its own.
///
/// # Panics
/// If the shapes do not fit; `c` is then as it was.
#[track_caller]
pub fn gemm_tn<T: Element>(a: &Tile<T>, b: &Tile<T>, c: &mut Tile<T>) {
    let shapes = [("a", shape(a)), ("b", shape(b)), ("c", shape(c))];
    let fits = a.rows() == b.rows() && shape(c) == (a.cols(), b.cols());
    require(fits, "gemm_tn", "C - Aᵀ*B takes a of k×m, b of k×n and c of m×n", &shapes);
    T::subtract_product(view(a).transpose(), view(b), view_mut(c));
}

/// C ← C + A·B, the step of a tiled product.
///
/// `a` is m × k, `b` is k × n, `c` is m × n. 2·m·n·k flops. The operands are packed into memory that each thread keeps.
///
/// # Panics
/// If the shapes do not fit; `c` is then as it was.
///
/// ```
/// use dagger_array::{Tile, kernels::add_product};
///
/// let (a, b) = (Tile::from_fn(2, 3, |i, _| i as f64), Tile::from_fn(3, 4, |_, j| j as f64));
/// let mut c = Tile::from_fn(2, 4, |_, _| 1.0);
/// add_product(&a, &b, &mut c);
/// assert_eq!((c[(0, 3)], c[(1, 3)]), (1.0, 10.0));
/// ```
#[track_caller]
pub fn add_product<T: Element>(a: &Tile<T>, b: &Tile<T>, c: &mut Tile<T>) {
    let shapes = [("a", shape(a)), ("b", shape(b)), ("c", shape(c))];
    let fits = a.cols() == b.rows() && shape(c) == (a.rows(), b.cols());
    require(fits, "add_product", "C + A*B takes a of m×k, b of k×n and c of m×n", &shapes);
    T::add_product(view(a), view(b), view_mut(c));
}
