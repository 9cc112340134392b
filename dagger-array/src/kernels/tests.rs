//! Every kernel against the triple loop that defines it, with NaN wherever nothing may be read.

use proptest::prelude::*;

use super::dense::PANEL;
use super::*;
use crate::tile::tests::poison;
use crate::{Element, Tile};

/// What the checks need beyond [`Element`].
trait Number: Element + Into<f64> {
    const EPSILON: f64;
    fn of(x: f64) -> Self;
}

impl Number for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;
    fn of(x: f64) -> f32 {
        x as f32
    }
}

impl Number for f64 {
    const EPSILON: f64 = f64::EPSILON;
    fn of(x: f64) -> f64 {
        x
    }
}

/// Numbers in -0.5..0.5 from a seed.
struct Source(u64);

impl Source {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    }

    fn tile<T: Number>(&mut self, rows: usize, cols: usize) -> Tile<T> {
        let mut tile = Tile::from_fn(rows, cols, |_, _| T::of(self.next()));
        poison(&mut tile);
        tile
    }

    /// Well-conditioned, lower triangular, NaN above the diagonal.
    fn lower<T: Number>(&mut self, n: usize) -> Tile<T> {
        let scale = 1.0 / (n as f64).sqrt();
        let mut tile = Tile::from_fn(n, n, |i, j| match i.cmp(&j) {
            std::cmp::Ordering::Less => T::of(f64::NAN),
            std::cmp::Ordering::Equal => T::of(1.5 + self.next()),
            std::cmp::Ordering::Greater => T::of(scale * self.next()),
        });
        poison(&mut tile);
        tile
    }

    /// Symmetric positive definite, with `above(i, j)` above the diagonal.
    fn positive<T: Number>(&mut self, n: usize, above: impl Fn(usize, usize) -> f64) -> Tile<T> {
        let shift = (n as f64).sqrt() + 1.0; // random symmetric part: its spectrum is within about ±0.6 √n
        let mut tile = Tile::from_fn(n, n, |i, j| match i.cmp(&j) {
            std::cmp::Ordering::Less => T::of(above(i, j)),
            std::cmp::Ordering::Equal => T::of(shift + self.next()),
            std::cmp::Ordering::Greater => T::of(self.next()),
        });
        poison(&mut tile);
        tile
    }
}

/// Element (i, j) as `f64`.
fn at<T: Number>(tile: &Tile<T>, i: usize, j: usize) -> f64 {
    tile[(i, j)].into()
}

/// Σₖ f(k), for k below `n`.
fn sum(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    (0..n).map(f).sum()
}

/// Every element is as `expected` says, up to the rounding of `terms` operations on numbers of at most `size`.
fn assert_close<T: Number>(
    kernel: &str,
    actual: &Tile<T>,
    terms: usize,
    size: f64,
    expected: impl Fn(usize, usize) -> f64,
) {
    for j in 0..actual.cols() {
        for i in 0..actual.rows() {
            let (actual, expected) = (at(actual, i, j), expected(i, j));
            let error = (actual - expected).abs();
            let bound = 4.0 * (terms + 1) as f64 * size * T::EPSILON;
            assert!(error <= bound, "{kernel} ({i}, {j}): {actual} for {expected}, bound {bound}");
        }
    }
}

fn products_are_the_triple_loop<T: Number>(m: usize, n: usize, k: usize, seed: u64) {
    let source = &mut Source(seed);
    let c = source.tile::<T>(m, n);

    let (a, b, mut actual) = (source.tile::<T>(m, k), source.tile::<T>(n, k), c.clone());
    gemm(&a, &b, &mut actual);
    assert_close("gemm", &actual, k, 1.0, |i, j| at(&c, i, j) - sum(k, |l| at(&a, i, l) * at(&b, j, l)));

    let (b, mut actual) = (b.transpose(), c.clone());
    gemm_nn(&a, &b, &mut actual);
    assert_close("gemm_nn", &actual, k, 1.0, |i, j| at(&c, i, j) - sum(k, |l| at(&a, i, l) * at(&b, l, j)));

    let mut actual = c.clone();
    add_product(&a, &b, &mut actual);
    assert_close("add_product", &actual, k, 1.0, |i, j| {
        at(&c, i, j) + sum(k, |l| at(&a, i, l) * at(&b, l, j))
    });

    let (a, mut actual) = (a.transpose(), c.clone());
    gemm_tn(&a, &b, &mut actual);
    assert_close("gemm_tn", &actual, k, 1.0, |i, j| at(&c, i, j) - sum(k, |l| at(&a, l, i) * at(&b, l, j)));

    let (a, c) = (a.transpose(), source.tile::<T>(m, m));
    let mut actual = c.clone();
    syrk(&a, &mut actual);
    assert_close("syrk", &actual, k, 1.0, |i, j| {
        if i < j { at(&c, i, j) } else { at(&c, i, j) - sum(k, |l| at(&a, i, l) * at(&a, j, l)) }
    });
}

/// The solutions, multiplied back, give the right-hand sides.
fn solves_are_undone_by_products<T: Number>(m: usize, n: usize, seed: u64) {
    let source = &mut Source(seed);
    let l = source.lower::<T>(n);
    let low = |i: usize, j: usize| if i < j { 0.0 } else { at(&l, i, j) };

    let b = source.tile::<T>(m, n);
    let mut x = b.clone();
    trsm(&l, &mut x);
    assert_close(
        "trsm",
        &Tile::from_fn(m, n, |i, j| T::of(sum(n, |k| at(&x, i, k) * low(j, k)))),
        n,
        2.0,
        |i, j| at(&b, i, j),
    );

    let b = source.tile::<T>(n, m);
    let mut x = b.clone();
    solve_lower(&l, &mut x);
    let back = Tile::from_fn(n, m, |i, j| T::of(sum(n, |k| low(i, k) * at(&x, k, j))));
    assert_close("solve_lower", &back, n, 2.0, |i, j| at(&b, i, j));

    let mut x = b.clone();
    solve_lower_transposed(&l, &mut x);
    let back = Tile::from_fn(n, m, |i, j| T::of(sum(n, |k| low(k, i) * at(&x, k, j))));
    assert_close("solve_lower_transposed", &back, n, 2.0, |i, j| at(&b, i, j));
}

/// LAPACK's criterion: ‖A − L·Lᵀ‖₁ / (n ‖A‖₁ ε) < 30.
fn factor_times_its_transpose_is_the_matrix<T: Number>(n: usize, seed: u64) {
    let a = Source(seed).positive::<T>(n, |i, j| (i + 1000 * j) as f64);
    let mut l = a.clone();
    poison(&mut l);
    assert_eq!(potrf(&mut l), Ok(()), "n = {n}");

    let (mut residual, mut size) = (0f64, 0f64);
    let rows = l.transpose(); // row i of L as a column
    for j in 0..n {
        let (mut column, mut norm) = (0.0, 0.0);
        for i in 0..n {
            let (low, high) = (i.min(j), i.max(j));
            let product: f64 =
                rows.col(i)[..=low].iter().zip(rows.col(j)).map(|(&x, &y)| x.into() * y.into()).sum();
            column += (at(&a, high, low) - product).abs();
            norm += at(&a, high, low).abs();
            if i < j {
                assert_eq!(at(&l, i, j), at(&a, i, j), "the strict upper triangle is untouched");
            }
        }
        (residual, size) = (residual.max(column), size.max(norm));
    }
    assert!(n == 0 || residual < 30.0 * n as f64 * size * T::EPSILON, "n = {n}: {residual}");

    let expected = sum(n, |i| at(&l, i, i).ln());
    let actual: f64 = log_diagonal(&l).into();
    assert!((actual - expected).abs() <= 8.0 * n as f64 * expected.abs().max(1.0) * T::EPSILON);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn small_shapes_compute_what_the_loops_compute(m in 0..=40usize, n in 0..=40usize, k in 0..=40usize, seed: u64) {
        products_are_the_triple_loop::<f32>(m, n, k, seed);
        products_are_the_triple_loop::<f64>(m, n, k, seed);
        solves_are_undone_by_products::<f32>(m, n, seed);
        solves_are_undone_by_products::<f64>(m, n, seed);
    }
}

#[test]
fn shapes_around_panels_and_pages_compute_what_the_loops_compute() {
    let (below, above) = (PANEL - 1, PANEL + 1);
    for (m, n, k) in [
        (below, above, PANEL),
        (PANEL, PANEL, above),
        (above, below, 2 * PANEL),
        (1, 130, 129),
        (512, 3, 70),
        (97, 1, 200),
    ] {
        products_are_the_triple_loop::<f32>(m, n, k, 1);
        products_are_the_triple_loop::<f64>(m, n, k, 1);
        solves_are_undone_by_products::<f32>(m, n, 1);
        solves_are_undone_by_products::<f64>(m, n, 1);
        solves_are_undone_by_products::<f64>(n, k, 1);
    }
}

#[test]
fn every_order_up_to_300_factors() {
    for n in (0..=70).chain((71..300).step_by(7)).chain([127, 128, 129, 191, 192, 193, 255, 256, 257, 300]) {
        factor_times_its_transpose_is_the_matrix::<f32>(n, n as u64);
        factor_times_its_transpose_is_the_matrix::<f64>(n, n as u64);
    }
}

#[test]
fn the_strict_upper_triangle_is_neither_read_nor_written() {
    for n in [1, 2, 33, PANEL, PANEL + 1, 150] {
        let a = Source(n as u64).positive::<f64>(n, |_, _| f64::NAN);
        let mut l = a.clone();
        assert_eq!(potrf(&mut l), Ok(()));
        assert!(log_diagonal(&l).is_finite());
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            assert_eq!(l[(i, j)].is_nan(), i < j, "({i}, {j}) of order {n}");
        }
    }
}

#[test]
fn the_first_bad_pivot_is_named_wherever_it_is() {
    const BAD: [f64; 5] = [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    fn check<T: Number>(n: usize, pivot: usize, bad: f64) {
        let mut a = Source(n as u64).positive::<T>(n, |_, _| f64::NAN);
        a[(n - 1, n - 1)] = T::of(f64::NAN); // a later one is not the first
        a[(pivot, pivot)] = T::of(bad);
        assert_eq!(potrf(&mut a), Err(NotPositiveDefinite { pivot }), "{bad} at {pivot} of {n}");
    }
    for n in [1, 2, 3, 16, 31, 32, 33, PANEL - 1, PANEL, PANEL + 1] {
        for (pivot, bad) in (0..n).flat_map(|pivot| BAD.map(|bad| (pivot, bad))) {
            check::<f32>(n, pivot, bad);
            check::<f64>(n, pivot, bad);
        }
    }
    for pivot in 0..2 * PANEL + 10 {
        check::<f32>(2 * PANEL + 10, pivot, BAD[pivot % BAD.len()]);
        check::<f64>(2 * PANEL + 10, pivot, BAD[pivot % BAD.len()]);
    }
    for pivot in [0, 63, 64, 65, 127, 128, 191, 192, 255, 256, 298, 299] {
        check::<f64>(300, pivot, f64::NAN);
    }
}

#[test]
fn a_bad_element_below_the_diagonal_is_found_by_the_pivot_of_its_row() {
    for n in [2, 40, PANEL + 3, 150] {
        let good = Source(n as u64).positive::<f64>(n, |_, _| 0.0);
        for i in (1..n).step_by(5) {
            for (j, bad) in (0..i).step_by(11).flat_map(|j| [(j, f64::NAN), (j, f64::INFINITY), (j, 1e300)]) {
                let mut a = good.clone();
                a[(i, j)] = bad;
                assert_eq!(
                    potrf(&mut a),
                    Err(NotPositiveDefinite { pivot: i }),
                    "{bad} at ({i}, {j}) of {n}"
                );
            }
        }
    }
}

#[test]
fn the_same_tiles_give_the_same_bits_on_any_thread() {
    let factor = || {
        let mut l = Source(5).positive::<f64>(200, |_, _| 0.0);
        potrf(&mut l).map(|()| l)
    };
    let elsewhere = std::thread::spawn(factor).join().unwrap();
    assert_eq!(elsewhere, factor());
}

#[test]
fn an_error_names_the_pivot() {
    let error = potrf(&mut Tile::<f64>::zeros(3, 3)).unwrap_err();
    assert_eq!(error.to_string(), "not positive definite: pivot 0 is not a positive finite number");
}

/// Each kernel with one shape that does not fit: the message names them all, the tile to be written is as it was.
#[test]
fn shapes_that_do_not_fit_are_refused_before_anything_is_written() {
    type Case = (&'static str, fn(&mut Tile<f64>), (usize, usize));
    let cases: [Case; 11] = [
        ("potrf: L*Lᵀ takes a of n×n, but a is 3x4", |t| assert!(potrf(t).is_ok()), (3, 4)),
        ("log_diagonal: l is n×n, but l is 3x4", |t| assert!(log_diagonal(t) > 0.0), (3, 4)),
        ("but l is 2x2, b is 2x3", |t| trsm(&Tile::zeros(2, 2), t), (2, 3)),
        ("but l is 3x2, b is 3x3", |t| trsm(&Tile::zeros(3, 2), t), (3, 3)),
        ("but l is 2x2, b is 3x2", |t| solve_lower(&Tile::zeros(2, 2), t), (3, 2)),
        ("but l is 2x2, b is 3x2", |t| solve_lower_transposed(&Tile::zeros(2, 2), t), (3, 2)),
        ("but a is 2x5, c is 3x3", |t| syrk(&Tile::zeros(2, 5), t), (3, 3)),
        ("but a is 2x5, b is 3x4, c is 2x3", |t| gemm(&Tile::zeros(2, 5), &Tile::zeros(3, 4), t), (2, 3)),
        ("but a is 2x5, b is 4x3, c is 2x3", |t| gemm_nn(&Tile::zeros(2, 5), &Tile::zeros(4, 3), t), (2, 3)),
        (
            "but a is 2x5, b is 4x3, c is 2x3",
            |t| add_product(&Tile::zeros(2, 5), &Tile::zeros(4, 3), t),
            (2, 3),
        ),
        ("but a is 5x2, b is 4x3, c is 2x3", |t| gemm_tn(&Tile::zeros(5, 2), &Tile::zeros(4, 3), t), (2, 3)),
    ];
    for (message, kernel, (rows, cols)) in cases {
        let before = Source(1).tile::<f64>(rows, cols);
        let mut tile = before.clone();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| kernel(&mut tile))).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains(message), "{text}");
        assert_eq!(tile, before);
    }
}
