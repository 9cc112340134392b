//! Tiled algorithms on real threads, against dense loops that know of no tiles.

#![allow(clippy::unwrap_used, reason = "these are tests, helpers included")]

use dagger_array::kernels::{gemm, potrf};
use dagger_array::tiled::{self, ShapeError};
use dagger_array::{Element, NotPositiveDefinite, Tile, TileMatrix};
use dagger_async::prelude::*;

/// A dense matrix in `f64`, whatever the tiles hold.
type Dense = Vec<Vec<f64>>;

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

/// A number in -1..1 that depends on the place only, and is the same in `f32`.
fn noise(i: usize, j: usize) -> f64 {
    let mixed = ((i * 40_503 + j * 9_973 + 17) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 48) as f64 / 32_768.0 - 1.0
}

/// Element (i, j) of a symmetric positive definite matrix of any order: its diagonal outweighs its rows.
fn positive(i: usize, j: usize) -> f64 {
    if i == j { 4.0 } else { noise(i.max(j), i.min(j)) / (1 + i.abs_diff(j)).pow(2) as f64 }
}

/// The lower factor, column by column as it is defined.
fn factor(n: usize, a: impl Fn(usize, usize) -> f64) -> Dense {
    let mut l = vec![vec![0.0; n]; n];
    for j in 0..n {
        for i in j..n {
            let sum: f64 = (0..j).map(|k| l[i][k] * l[j][k]).sum();
            l[i][j] = if i == j { (a(i, i) - sum).sqrt() } else { (a(i, j) - sum) / l[j][j] };
        }
    }
    l
}

/// L⁻¹·B.
fn forward(l: &Dense, mut b: Dense) -> Dense {
    for i in 0..b.len() {
        for c in 0..b[i].len() {
            let sum: f64 = (0..i).map(|k| l[i][k] * b[k][c]).sum();
            b[i][c] = (b[i][c] - sum) / l[i][i];
        }
    }
    b
}

/// L⁻ᵀ·B.
fn backward(l: &Dense, mut b: Dense) -> Dense {
    let n = b.len();
    for i in (0..n).rev() {
        for c in 0..b[i].len() {
            let sum: f64 = (i + 1..n).map(|k| l[k][i] * b[k][c]).sum();
            b[i][c] = (b[i][c] - sum) / l[i][i];
        }
    }
    b
}

fn dense(rows: usize, cols: usize, element: impl Fn(usize, usize) -> f64) -> Dense {
    (0..rows).map(|i| (0..cols).map(|j| element(i, j)).collect()).collect()
}

/// The rounding of sums of up to `n` terms below about 4, of a well-conditioned matrix.
#[track_caller]
fn assert_close<T: Number>(what: &str, actual: &[Vec<T>], expected: &Dense) {
    let bound = 32.0 * (expected.len() as f64).sqrt() * T::EPSILON;
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        for (j, (&a, &b)) in actual.iter().zip(expected).enumerate() {
            let a: f64 = a.into();
            assert!((a - b).abs() <= bound, "{what} ({i}, {j}): {a} for {b}, bound {bound}");
        }
    }
}

fn runtime(threads: usize) -> Runtime {
    Runtime::builder().threads(threads).build().unwrap()
}

/// Above the diagonal nothing may be read: it is NaN there, in the tiles on the diagonal.
fn lower_tiles<T: Number>(n: usize, tile: usize) -> TileMatrix<T> {
    TileMatrix::lower_from_fn(n, tile, |i, j| T::of(if i < j { f64::NAN } else { positive(i, j) }))
}

fn tiles_agree_with_the_dense_loops<T: Number>() {
    for threads in [1, 2, 4] {
        let runtime = runtime(threads);
        for n in [1, 2, 7, 64, 100, 257] {
            let l = factor(n, positive);
            let (z, cols) = (dense(n, 5, noise), 5);
            let (x, y) = (forward(&l, z.clone()), backward(&l, z));
            let log_determinant = 2.0 * (0..n).map(|i| l[i][i].ln()).sum::<f64>();
            for tile in [1, 3, 32, 64, 300] {
                // Tens of thousands of tasks are enough on one number of threads.
                if n > 40 * tile && threads != 2 || n > 100 * tile {
                    continue;
                }
                let what = format!("order {n}, tiles of {tile}, {threads} threads, {} bytes", size_of::<T>());
                runtime.block_on(async {
                    let m = lower_tiles::<T>(n, tile);
                    let [below, above] =
                        [0; 2].map(|_| TileMatrix::from_fn(n, cols, tile, |i, j| T::of(noise(i, j))));
                    tiled::cholesky(&m).await.unwrap();
                    tiled::solve_lower_in_place(&m, &below).await.unwrap();
                    tiled::solve_lower_transposed_in_place(&m, &above).await.unwrap();
                    let logarithm: f64 = tiled::log_determinant(&m).await.unwrap().into();

                    let mut factored = m.collect().await.unwrap();
                    for (i, row) in factored.iter_mut().enumerate() {
                        for (j, above) in row.iter_mut().enumerate().skip(i + 1) {
                            // Untouched where there is a tile, zero where there is none.
                            let left: f64 = std::mem::replace(above, T::ZERO).into();
                            assert_eq!(left.is_nan(), i / tile == j / tile, "{what} ({i}, {j})");
                        }
                    }
                    assert_close(&what, &factored, &l);
                    assert_close(&what, &below.collect().await.unwrap(), &x);
                    assert_close(&what, &above.collect().await.unwrap(), &y);
                    let bound = 32.0 * n as f64 * T::EPSILON;
                    assert!((logarithm - log_determinant).abs() <= bound, "{what}: {logarithm}");
                });
            }
        }
    }
}

#[test]
fn tiles_of_f64_agree_with_the_dense_loops() {
    tiles_agree_with_the_dense_loops::<f64>();
}

#[test]
fn tiles_of_f32_agree_with_the_dense_loops() {
    tiles_agree_with_the_dense_loops::<f32>();
}

/// `to = from`, with this on the diagonal of the matrix if the tile lies there.
fn copy(from: &Tile<f64>, diagonal: &f64, to: &mut Tile<f64>, is_diagonal: bool) {
    to.iter_mut().zip(from.iter()).for_each(|(to, from)| *to = *from);
    for i in 0..if is_diagonal { to.rows() } else { 0 } {
        *to.get_mut(i, i).unwrap() = *diagonal;
    }
}

#[test]
fn a_frozen_factorisation_is_made_again_for_other_numbers() {
    for threads in [1, 2, 4] {
        runtime(threads).block_on(async {
            let (n, tile) = (70, 16);
            let (a, m, diagonal) =
                (lower_tiles::<f64>(n, tile), lower_tiles::<f64>(n, tile), Chunk::new(4.0));
            let x = TileMatrix::<f64>::zeros(n, 3, tile);
            let b = TileMatrix::from_fn(n, 3, tile, noise);
            let solve = async {
                for (i, j) in (0..a.tile_rows()).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                    let (a, m) = (a.get(i, j).unwrap(), m.get(i, j).unwrap());
                    spawn!(copy(In(a), In(&diagonal), Out(m), i == j); repeatable = true);
                }
                for (b, x) in b.chunks().iter().zip(x.chunks()) {
                    spawn!(copy(In(b), In(&diagonal), Out(x), false); repeatable = true);
                }
                tiled::cholesky(&m).await?;
                tiled::solve_lower_in_place(&m, &x).await
            };
            let (solved, frozen) = Frozen::record(solve).await.unwrap();
            solved.unwrap();
            for value in [4.0, 5.0, 7.5] {
                *diagonal.write().await.unwrap() = value;
                frozen.run().await.unwrap();
                let l = factor(n, |i, j| if i == j { value } else { positive(i, j) });
                assert_close("again", &x.collect().await.unwrap(), &forward(&l, dense(n, 3, noise)));
            }
            // A pivot that is none fails the run, as it fails the block.
            *diagonal.write().await.unwrap() = -1.0;
            let error = frozen.run().await.unwrap_err();
            assert_eq!(error.downcast_ref::<NotPositiveDefinite>().unwrap().pivot, 0);
            assert_eq!(error.root().unwrap().name(), "potrf");
            assert!(x.collect().await.is_err());
            // All of it is overwritten first: the next run finds nothing poisoned.
            *diagonal.write().await.unwrap() = 4.0;
            frozen.run().await.unwrap();
            let l = factor(n, positive);
            assert_close("after a failure", &x.collect().await.unwrap(), &forward(&l, dense(n, 3, noise)));
        });
    }
}

/// C + A·B by its definition.
fn plus_product(c: &Dense, a: &Dense, b: &Dense) -> Dense {
    let entry = |i: usize, j: usize| c[i][j] + (0..b.len()).map(|k| a[i][k] * b[k][j]).sum::<f64>();
    dense(c.len(), c.first().map_or(0, Vec::len), entry)
}

/// In `T`, with other numbers in each of the three.
fn operand<T: Number>(which: usize, rows: usize, cols: usize, tile: usize) -> TileMatrix<T> {
    TileMatrix::from_fn(rows, cols, tile, move |i, j| T::of(noise(i + 1000 * which, j)))
}

fn products_agree_with_the_triple_loop<T: Number>(threads: usize, [m, n, k]: [usize; 3], tile: usize) {
    runtime(threads).block_on(async {
        let what =
            format!("{m} x {k} by {k} x {n} in tiles of {tile}, {threads} threads, {} bytes", size_of::<T>());
        let (a, b, c) =
            (operand::<T>(0, m, k, tile), operand::<T>(1, k, n, tile), operand::<T>(2, m, n, tile));
        let of = |which: usize, rows, cols| dense(rows, cols, |i, j| noise(i + 1000 * which, j));
        let expected = plus_product(&of(2, m, n), &of(0, m, k), &of(1, k, n));
        tiled::add_product(&a, &b, &c).await.unwrap();
        // Terms of at most 1: a bound that grows with their number.
        let close = |actual: &[Vec<T>], expected: &Dense| {
            assert_eq!(actual.len(), m, "{what}");
            for (actual, expected) in actual.iter().zip(expected) {
                assert_eq!(actual.len(), n, "{what}");
                for (&x, &y) in actual.iter().zip(expected) {
                    let x: f64 = x.into();
                    assert!((x - y).abs() <= 2.0 * (k + 2) as f64 * T::EPSILON, "{what}: {x} for {y}");
                }
            }
        };
        close(&c.collect().await.unwrap(), &expected);
        let product = tiled::matmul(&a, &b).await.unwrap();
        assert_eq!((product.rows(), product.cols(), product.tile()), (m, n, tile));
        let nothing = dense(m, n, |_, _| 0.0);
        close(&product.collect().await.unwrap(), &plus_product(&nothing, &of(0, m, k), &of(1, k, n)));
    });
}

#[test]
fn products_of_odd_sizes_agree_with_the_triple_loop() {
    for threads in [1, 2, 4] {
        for shape in [[1, 1, 1], [7, 5, 3], [33, 65, 31], [64, 1, 100], [1, 64, 100], [97, 101, 103]] {
            for tile in [1, 5, 32, 200] {
                if shape.iter().product::<usize>() > 40_000 * tile * tile * tile {
                    continue; // tens of thousands of tasks show nothing that thousands do not
                }
                products_agree_with_the_triple_loop::<f64>(threads, shape, tile);
                products_agree_with_the_triple_loop::<f32>(threads, shape, tile);
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 40, ..Default::default() })]

    #[test]
    fn products_of_any_shape_agree_with_the_triple_loop(
        m in 0..40usize, n in 0..40usize, k in 0..40usize, tile in 3..50usize, threads in 1..4usize,
    ) {
        products_agree_with_the_triple_loop::<f64>(threads, [m, n, k], tile);
    }
}

#[test]
fn products_have_the_same_bits_on_any_number_of_threads() {
    let product = |threads| {
        runtime(threads).block_on(async {
            let (a, b) = (operand::<f64>(0, 70, 90, 16), operand::<f64>(1, 90, 50, 16));
            tiled::matmul(&a, &b).await.unwrap().collect().await.unwrap()
        })
    };
    let alone = product(1);
    assert!([2, 4].into_iter().all(|threads| product(threads) == alone));
}

#[test]
fn ten_tiles_to_a_side_are_220_tasks() {
    // Each thread takes the ids of tasks in runs, so on a new one they count what it spawns.
    let spawned = std::thread::spawn(|| {
        runtime(2).block_on(async {
            let m = lower_tiles::<f64>(80, 8);
            for tile in m.chunks() {
                tile.read().await.unwrap();
            }
            let id = || spawn(async {}).id().get();
            let before = id();
            tiled::cholesky(&m).await.unwrap();
            id() - before - 1
        })
    });
    // And one for the end of the block, if it has to be waited for.
    let spawned = spawned.join().unwrap();
    assert!((220..=221).contains(&spawned), "{spawned}");
}

#[test]
fn a_bad_pivot_is_reported_with_its_row_in_the_whole_matrix() {
    let (n, tile) = (50, 8);
    for threads in [1, 4] {
        let runtime = runtime(threads);
        // The first, an inner and the last row of every tile row; the last one is smaller.
        for bad in (0..n).filter(|row| [0, 3, 7].contains(&(row % tile)) || *row == n - 1) {
            runtime.block_on(async {
                let spoiled = move |i, j| if (i, j) == (bad, bad) { -1.0 } else { positive(i, j) };
                let m = TileMatrix::<f64>::lower_from_fn(n, tile, spoiled);
                let error = tiled::cholesky(&m).await.unwrap_err();
                assert_eq!(error.downcast_ref::<NotPositiveDefinite>().unwrap().pivot, bad);
                assert!(error.others().is_empty(), "{error:?}");
                let root = error.root().unwrap().id();

                let failed = bad / tile;
                for i in 0..m.tile_rows() {
                    for j in 0..=i {
                        // The columns before the failed tile are done; from it on, every tile still had a task to come.
                        let reached = j < failed;
                        let read = m[(i, j)].read().await;
                        assert_eq!(read.is_ok(), reached, "row {bad}, tile ({i}, {j}): {read:?}");
                        if let Err(poison) = read {
                            assert!(matches!(poison, Error::Poisoned { .. }), "{poison}");
                            assert_eq!(poison.root().unwrap().id(), root);
                            assert_eq!(poison.downcast_ref::<NotPositiveDefinite>().unwrap().pivot, bad);
                        }
                    }
                }
                // What depends on it is told why, as long as it is not mended.
                let b = TileMatrix::from_fn(n, 1, tile, |_, _| 1.0);
                let error = tiled::solve_lower_in_place(&m, &b).await.unwrap_err();
                assert_eq!(error.root().unwrap().id(), root);
                let error = tiled::log_determinant(&m).await.unwrap_err();
                assert_eq!(error.downcast_ref::<NotPositiveDefinite>().unwrap().pivot, bad);

                // Recovered and filled anew, the same tiles factor.
                for i in 0..m.tile_rows() {
                    for j in 0..=i {
                        let mut guard = m[(i, j)].recover().await.unwrap();
                        let (rows, cols) = (guard.rows(), guard.cols());
                        *guard = Tile::from_fn(rows, cols, |r, c| positive(i * tile + r, j * tile + c));
                    }
                }
                tiled::cholesky(&m).await.unwrap();
                let log: f64 = tiled::log_determinant(&m).await.unwrap();
                let l = factor(n, positive);
                let expected = 2.0 * (0..n).map(|i| l[i][i].ln()).sum::<f64>();
                assert!((log - expected).abs() < 1e-12, "{log} for {expected}");
            });
        }
    }
}

#[test]
fn what_does_not_fit_is_a_shape_error_and_changes_nothing() {
    runtime(2).block_on(async {
        let of = |rows, cols, tile| TileMatrix::from_fn(rows, cols, tile, |i, j| (10 * i + j) as f64);
        let named = |result: dagger_async::Result<()>, operation: &str, what: &str| {
            let error = result.unwrap_err();
            let shape = error.downcast_ref::<ShapeError>().unwrap();
            assert_eq!((shape.operation, shape.what.as_str()), (operation, what));
        };
        let wide = of(4, 6, 2);
        named(tiled::cholesky(&wide).await, "cholesky", "TileMatrix(4 x 6 in tiles of 2) is not square");
        assert_eq!(wide.collect().await.unwrap()[3][5], 35.0);
        let log = tiled::log_determinant(&wide).await.map(|_| ());
        named(log, "log_determinant", "TileMatrix(4 x 6 in tiles of 2) is not square");

        let l = lower_tiles::<f64>(4, 2);
        for (b, shown) in [
            (of(5, 1, 2), "TileMatrix(5 x 1 in tiles of 2)"),
            (of(4, 1, 3), "TileMatrix(4 x 1 in tiles of 3)"),
            (lower_tiles(4, 2), "TileMatrix(lower 4 x 4 in tiles of 2)"),
        ] {
            let what = format!("TileMatrix(lower 4 x 4 in tiles of 2) and {shown}");
            named(tiled::solve_lower_in_place(&l, &b).await, "solve_lower_in_place", &what);
            let transposed = tiled::solve_lower_transposed_in_place(&l, &b).await;
            named(transposed, "solve_lower_transposed_in_place", &what);
        }
        // Products: every way in which two or three do not fit.
        let (a, b, c) = (of(4, 6, 2), of(6, 3, 2), of(4, 3, 2));
        let full = |rows, cols, tile| format!("TileMatrix({rows} x {cols} in tiles of {tile})");
        let lower = "TileMatrix(lower 4 x 4 in tiles of 2)".to_owned();
        for (x, y, z, shown) in [
            (&a, &c, None, [full(4, 6, 2), full(4, 3, 2)].join(" and ")),
            (&a, &of(6, 3, 3), None, [full(4, 6, 2), full(6, 3, 3)].join(" and ")),
            (&l, &c, None, [lower.clone(), full(4, 3, 2)].join(" and ")),
            (&of(4, 4, 2), &l, None, [full(4, 4, 2), lower.clone()].join(" and ")),
            (
                &a,
                &b,
                Some(&of(3, 4, 2)),
                format!("{}, {} and {}", full(4, 6, 2), full(6, 3, 2), full(3, 4, 2)),
            ),
            (
                &a,
                &b,
                Some(&of(4, 3, 3)),
                format!("{}, {} and {}", full(4, 6, 2), full(6, 3, 2), full(4, 3, 3)),
            ),
            (&of(4, 4, 2), &of(4, 4, 2), Some(&l), format!("{0}, {0} and {lower}", full(4, 4, 2))),
        ] {
            match z {
                Some(z) => named(tiled::add_product(x, y, z).await, "add_product", &shown),
                None => named(tiled::matmul(x, y).await.map(|_| ()), "matmul", &shown),
            }
        }
        assert_eq!(c.collect().await.unwrap()[3], [30.0, 31.0, 32.0]);
        // Nothing to do is no error.
        let nothing = tiled::matmul(&of(3, 0, 2), &of(0, 2, 2)).await.unwrap();
        assert_eq!(nothing.collect().await.unwrap(), vec![vec![0.0; 2]; 3]);
        assert!(tiled::matmul(&of(0, 3, 2), &of(3, 0, 2)).await.unwrap().chunks().is_empty());
        let (none, empty) = (lower_tiles::<f64>(0, 4), of(0, 3, 4));
        tiled::cholesky(&none).await.unwrap();
        tiled::solve_lower_in_place(&none, &empty).await.unwrap();
        assert_eq!(tiled::log_determinant(&none).await.unwrap(), 0.0);
    });
}

/// Polls both until both have ended: the tasks of `b` are spawned while those of `a` run.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut x, mut y) = (None, None);
    std::future::poll_fn(move |cx| {
        if x.is_none()
            && let std::task::Poll::Ready(output) = a.as_mut().poll(cx)
        {
            x = Some(output);
        }
        if y.is_none()
            && let std::task::Poll::Ready(output) = b.as_mut().poll(cx)
        {
            y = Some(output);
        }
        match (x.take(), y.take()) {
            (Some(x), Some(y)) => std::task::Poll::Ready((x, y)),
            (left, right) => {
                (x, y) = (left, right);
                std::task::Poll::Pending
            }
        }
    })
    .await
}

#[test]
fn blocks_over_the_same_tiles_need_not_be_awaited_one_by_one() {
    let (n, tile) = (60, 8);
    let l = factor(n, positive);
    let expected = backward(&l, forward(&l, dense(n, 9, noise)));
    for threads in [1, 2, 4] {
        runtime(threads).block_on(async {
            let m = lower_tiles::<f64>(n, tile);
            let b = TileMatrix::from_fn(n, 9, tile, noise);
            // The factorisation and both solves are in flight together; the tiles order them.
            let solves =
                both(tiled::solve_lower_in_place(&m, &b), tiled::solve_lower_transposed_in_place(&m, &b));
            let (factored, (forward, backward)) = both(tiled::cholesky(&m), solves).await;
            factored.unwrap();
            forward.unwrap();
            backward.unwrap();
            assert_close("in flight", &b.collect().await.unwrap(), &expected);
        });
    }
}

#[test]
fn a_failed_operand_is_the_root_of_the_product() {
    runtime(2).block_on(async {
        let (a, b) = (operand::<f64>(0, 6, 6, 2), operand::<f64>(1, 6, 6, 2));
        let fails = |_: &mut Tile<f64>| panic!("no such tile");
        spawn!(fails(InOut(&a[(1, 2)])); name = "loader").wait().await;
        let c = operand::<f64>(2, 6, 6, 2);
        let error = tiled::add_product(&a, &b, &c).await.unwrap_err();
        assert_eq!(error.root().unwrap().name(), "loader");
        // One row of tiles depends on it.
        for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
            assert_eq!(c[(i, j)].read().await.is_err(), i == 1, "tile ({i}, {j})");
        }
    });
}

#[test]
fn a_dropped_factorisation_leaves_tiles_that_can_be_recovered() {
    runtime(2).block_on(async {
        let m = lower_tiles::<f64>(64, 8);
        let held = m[(0, 0)].read().await.unwrap(); // nothing can start
        let mut factorisation = Box::pin(tiled::cholesky(&m));
        let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(factorisation.as_mut().poll(cx))).await;
        assert!(polled.is_pending());
        drop(factorisation);
        drop(held);
        let error = m[(7, 7)].read().await.unwrap_err();
        assert!(matches!(error, Error::Poisoned { .. }), "{error}");
        for tile in m.chunks() {
            drop(tile.recover().await.unwrap()); // not one was written
        }
        tiled::cholesky(&m).await.unwrap();
    });
}

/// Element (i, j) of the tiles below.
fn place(i: usize, j: usize) -> f64 {
    (100 * i + j) as f64
}

#[test]
fn regions_of_a_tile_reach_their_elements_and_no_others() {
    runtime(2).block_on(async {
        // Adds one to each element of the region, and checks which were reached.
        macro_rules! reaches {
            (|$c:ident| $region:expr, $add:expr, $inside:expr) => {{
                let $c = Chunk::new(Tile::from_fn(5, 7, place));
                let reached = spawn!($add(InOut(&$region)));
                assert!(reached.await.is_ok(), stringify!($region));
                let (tile, inside): (_, fn(usize, usize) -> bool) = ($c.read().await.unwrap(), $inside);
                for i in 0..5 {
                    for j in 0..7 {
                        let added = if inside(i, j) { 1.0 } else { 0.0 };
                        assert_eq!(tile[(i, j)], place(i, j) + added, "{} ({i}, {j})", stringify!($region));
                    }
                }
            }};
        }
        fn tri(mut x: TriMut<'_, f64>) {
            x.for_each_mut(|x| *x += 1.0);
        }
        fn mat(mut x: MatMut<'_, f64>) {
            x.for_each_mut(|x| *x += 1.0);
        }
        fn line(mut x: VecMut<'_, f64>) {
            x.for_each_mut(|x| *x += 1.0);
        }
        fn slice(x: &mut [f64]) {
            x.iter_mut().for_each(|x| *x += 1.0);
        }
        fn unit(mut x: TriMut<'_, f64>) {
            assert!(x.is_unit());
            x.for_each_mut(|x| *x += 1.0);
        }
        reaches!(|c| c.lower(), tri, |i, j| i >= j);
        reaches!(|c| c.upper(), tri, |i, j| i <= j);
        reaches!(|c| c.lower().strict(), tri, |i, j| i > j);
        reaches!(|c| c.upper().strict(), tri, |i, j| i < j);
        reaches!(|c| c.lower().unit(), unit, |i, j| i > j);
        reaches!(|c| c.upper().unit(), unit, |i, j| i < j);
        reaches!(|c| c.diag(), line, |i, j| i == j);
        reaches!(|c| c.band(1), tri, |i, j| i.abs_diff(j) <= 1);
        reaches!(|c| c.row(3), line, |i, _| i == 3);
        reaches!(|c| c.col(4), slice, |_, j| j == 4);
        reaches!(|c| c.col(4).slice(1..3), slice, |i, j| j == 4 && (1..3).contains(&i));
        reaches!(|c| c.view(1..3, 2..), mat, |i, j| (1..3).contains(&i) && j >= 2);
        reaches!(|c| c.view(step(0..5, 2), step(1..7, 3)), mat, |i, j| i % 2 == 0 && j % 3 == 1);
        reaches!(|c| c.view(1..4, 1..4).lower().strict(), tri, |i, j| (1..4).contains(&i) && j >= 1 && i > j);
        reaches!(|c| c.lower().col(2), slice, |i, j| j == 2 && i >= 2);
    });
}

#[test]
fn a_column_arrives_as_a_slice_also_to_read_and_to_overwrite() {
    runtime(2).block_on(async {
        let c = Chunk::new(Tile::from_fn(5, 7, place));
        let sum = spawn!((|x: &[f64]| x.iter().sum::<f64>())(In(&c.col(6))));
        let fill = spawn!((|x: &mut [f64], v: f64| x.fill(v))(Out(&c.col(0)), -1.0));
        assert_eq!(sum.await.unwrap(), (0..5).map(|i| place(i, 6)).sum::<f64>());
        fill.await.unwrap();
        assert_eq!(c.read().await.unwrap().col(0), [-1.0; 5]);
        let outside = spawn!((|x: &[f64]| x.len())(In(&c.col(7)))).await.unwrap_err();
        assert!(matches!(outside, Error::OutOfBounds { .. }), "{outside}");
    });
}

#[test]
fn regions_of_one_tile_go_together_in_deps() {
    runtime(2).block_on(async {
        let c = Chunk::new(Tile::from_fn(4, 4, place));
        // Puts the sum of the part of each row below the diagonal on the diagonal, and clears what is above.
        fn sums((below, mut diagonal, mut above): (TriRef<'_, f64>, VecMut<'_, f64>, TriMut<'_, f64>)) {
            for i in 0..4 {
                diagonal[i] = (0..i).map(|j| below[(i, j)]).sum();
            }
            assert!(below.get(0, 0).is_none() && above.get(1, 1).is_none());
            above.for_each_mut(|x| *x = 0.0);
        }
        spawn!(sums(Deps(&c, (In(lower().strict()), Out(diag()), InOut(upper().strict()))))).await.unwrap();
        let tile = c.read().await.unwrap();
        for (i, j) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))) {
            let expected = match i.cmp(&j) {
                std::cmp::Ordering::Greater => place(i, j),
                std::cmp::Ordering::Equal => (0..i).map(|j| place(i, j)).sum(),
                std::cmp::Ordering::Less => 0.0,
            };
            assert_eq!(tile[(i, j)], expected, "({i}, {j})");
        }
        drop(tile);
        // The diagonal belongs to both triangles.
        let both = |_: (TriRef<'_, f64>, TriMut<'_, f64>)| ();
        let aliased = spawn!(both(Deps(&c, (In(lower()), InOut(upper()))))).await.unwrap_err();
        assert!(matches!(aliased, Error::Aliased { .. }), "{aliased}");
    });
}

#[test]
fn disjoint_regions_of_a_tile_run_at_once_and_overlapping_ones_in_order() {
    let runtime = runtime(2);
    runtime.block_on(async {
        let c = Chunk::new(Tile::from_fn(6, 6, |_, _| 0.0));
        // Both wait for the other one, so they end only if they run at once.
        let meeting = std::sync::Arc::new(std::sync::Barrier::new(2));
        let [here, there] = [meeting.clone(), meeting];
        datadeps(async {
            spawn!((move |mut x: TriMut<'_, f64>| {
                here.wait();
                x.for_each_mut(|x| *x = 1.0);
            })(InOut(&c.lower().strict())));
            spawn!((move |mut x: TriMut<'_, f64>| {
                there.wait();
                x.for_each_mut(|x| *x = 2.0);
            })(InOut(&c.upper().strict())));
            spawn!((|x: &mut [f64]| x.iter_mut().for_each(|x| *x = 10.0 * *x + 1.0))(InOut(&c.col(2))));
        })
        .await
        .unwrap();
        assert_eq!(c.read().await.unwrap().col(2), [21.0, 21.0, 1.0, 11.0, 11.0, 11.0]);
    });
}

#[test]
fn kernels_run_in_tasks_on_chunks_of_tiles() {
    runtime(2).block_on(async {
        let (a, c) = (Chunk::new(Tile::from_fn(3, 2, place)), Chunk::new(Tile::<f64>::identity(3)));
        let bad = Chunk::new(Tile::from_fn(2, 2, |i, j| if i == j { 1.0 } else { 2.0 }));
        let block = datadeps(async {
            spawn!(gemm(In(&a), In(&a), InOut(&c)));
            spawn!(potrf(InOut(&bad))?);
        });
        let error = block.await.unwrap_err();
        assert_eq!(error.downcast_ref::<NotPositiveDefinite>().unwrap().pivot, 1);
        assert_eq!(c.read().await.unwrap()[(1, 1)], 1.0 - 100.0 * 100.0 - 101.0 * 101.0);
    });
}

/// A result to the last bit, so that a checksum of it says whether two programs agree.
#[test]
fn any_order_of_squares_gives_the_same_bits() {
    for threads in [1, 3] {
        for (n, tile) in [(1, 1), (97, 16), (160, 16), (70, 32)] {
            let bytes = Tile::<f64>::bytes_for(tile, tile) as u64;
            runtime(threads).block_on(async {
                let whole = lower_tiles::<f64>(n, tile);
                tiled::cholesky(&whole).await.unwrap();
                let expected = whole.collect().await.unwrap();
                for tiles in [0, 1, 5, 12, 21, 32, 1000] {
                    let m = lower_tiles::<f64>(n, tile);
                    tiled::cholesky_within(&m, tiles * bytes).await.unwrap();
                    let found = m.collect().await.unwrap();
                    for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        // Above the diagonal there are NaNs.
                        assert_eq!(
                            found[..=i],
                            expected[..=i],
                            "order {n}, memory for {tiles} tiles, row {i}"
                        );
                    }
                }
            });
        }
    }
}

#[test]
fn squares_report_the_bad_row_of_the_whole_matrix() {
    runtime(2).block_on(async {
        let bad = |i: usize, j: usize| if i == j && i == 71 { -1.0 } else { positive(i, j) };
        let m = TileMatrix::lower_from_fn(100, 16, bad);
        let memory = 6 * Tile::<f64>::bytes_for(16, 16) as u64;
        let error = tiled::cholesky_within(&m, memory).await.unwrap_err();
        assert_eq!(error.downcast_ref::<NotPositiveDefinite>().unwrap().pivot, 71, "{error}");
        let wide = TileMatrix::<f64>::zeros(4, 6, 2);
        let error = tiled::cholesky_within(&wide, memory).await.unwrap_err();
        assert!(error.downcast_ref::<ShapeError>().is_some(), "{error}");
    });
}
