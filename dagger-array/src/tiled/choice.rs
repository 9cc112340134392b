//! How large tiles should be.
//!
//! Large tiles let the kernels run at full speed, small ones let many workers have something to do. What is measured here was
//! measured on two cores (Intel, AVX-512, 2 MiB of L2 each, together 157 GFLOP/s in registers), in `f64`, when nothing else ran;
//! `cargo run --release -p dagger-benches --bin dense -- --tile n` measures it anywhere.

/// Tiles are whole numbers of cache lines.
const MULTIPLE: usize = 16;
/// Smaller tiles are not worth their kernels' beginnings and ends.
const SMALLEST: usize = 96;

/// A good order of tiles for [`cholesky`](super::cholesky) of a matrix of order `n` on so many workers.
///
/// 384 where that gives the workers enough to do, else less. With 384 the product of three tiles just about fits the L2 cache, and
/// the kernels of the panel are at 85 to 95 % of the speed of large ones; at order 4096 tiles of 256, 384 and 512 gave 125, 128 and
/// 123 GFLOP/s, at 2048 they gave 115, 118 and 120. With `p` tiles to a side, on average `p² / 7` workers can be busy: the
/// critical path is `p` times a factor, a solve and an update.
///
/// ```
/// use dagger_array::tiled;
///
/// assert_eq!(tiled::cholesky_tile(4096, 2), 384);
/// assert_eq!(tiled::cholesky_tile(4096, 64), 128); // more workers, more tiles
/// ```
#[must_use]
pub fn cholesky_tile(n: usize, threads: usize) -> usize {
    const LARGEST: usize = 384;
    let least = if threads > 1 { root(16 * threads) } else { 1 };
    evenly(n, least, LARGEST)
}

/// A good order of tiles for [`matmul`](super::matmul) and [`add_product`](super::add_product) of square matrices of order `n` on
/// so many workers.
///
/// 1024 where that gives each worker eight tiles of the result, else less. A kernel packs one of its operands, in time that pays
/// off with the number of columns: at order 4096 tiles of 384, 512 and 1024 gave 134, 144 and 147 GFLOP/s.
///
/// ```
/// use dagger_array::tiled;
///
/// assert_eq!((tiled::matmul_tile(4096, 2), tiled::matmul_tile(2048, 2)), (1024, 512));
/// ```
#[must_use]
pub fn matmul_tile(n: usize, threads: usize) -> usize {
    const LARGEST: usize = 1024;
    let least = if threads > 1 { root(8 * threads) } else { 1 };
    evenly(n, least, LARGEST)
}

/// How many tiles to a side the squares have in which [`cholesky_within`](super::cholesky_within) goes through a matrix of order `n`,
/// in tiles of `tile_bytes`, within `memory` bytes: all tiles if they fit, else as many as fit together with the rows and columns that
/// are subtracted from them and those that come next.
///
/// ```
/// use dagger_array::{Tile, tiled};
///
/// let tile = Tile::<f64>::bytes_for(384, 384);
/// assert_eq!(tiled::cholesky_square(42 * 384, 384, tile, 256 << 20), 11);
/// assert_eq!(tiled::cholesky_square(42 * 384, 384, tile, 2 << 30), 42);
/// ```
#[must_use]
pub fn cholesky_square(n: usize, tile: usize, tile_bytes: usize, memory: u64) -> usize {
    let all = n.div_ceil(tile.max(1)).max(1);
    let fit = usize::try_from(memory / tile_bytes.max(1) as u64).unwrap_or(usize::MAX);
    if all.saturating_mul(all + 1) / 2 <= fit {
        return all;
    }
    // Two tile columns of both factors beside the square: those at work and the next ones.
    let side = (fit + 4).isqrt().saturating_sub(2).clamp(1, all);
    // As equal as can be.
    all.div_ceil(all.div_ceil(side))
}

/// The order of tiles that are as equal as can be, `least` of them to a side or more.
fn evenly(n: usize, least: usize, largest: usize) -> usize {
    let side = n.div_ceil(largest).max(least);
    n.div_ceil(side).next_multiple_of(MULTIPLE).clamp(SMALLEST, largest)
}

/// The square root, rounded up.
fn root(x: usize) -> usize {
    let floor = x.isqrt();
    if floor * floor < x { floor + 1 } else { floor }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_gets_tiles_of_a_sensible_size() {
        for n in (0..600).chain([1000, 2048, 4097, 8192, 100_000]) {
            for threads in [0, 1, 2, 3, 8, 64, 1000] {
                let (factor, product) = (cholesky_tile(n, threads), matmul_tile(n, threads));
                assert!((SMALLEST..=384).contains(&factor), "order {n}, {threads} threads: {factor}");
                assert!((SMALLEST..=1024).contains(&product), "order {n}, {threads} threads: {product}");
            }
        }
    }

    #[test]
    fn workers_have_enough_tiles_where_the_matrix_is_large_enough() {
        for threads in [2, 3, 8, 64] {
            for n in [8192usize, 10_000, 16_384] {
                let side = |tile: usize| n.div_ceil(tile);
                assert!(
                    side(cholesky_tile(n, threads)).pow(2) >= 2 * 7 * threads,
                    "order {n}, {threads} threads"
                );
                assert!(side(matmul_tile(n, threads)).pow(2) >= 7 * threads, "order {n}, {threads} threads");
            }
        }
    }

    #[test]
    fn the_last_tile_is_not_a_splinter() {
        for n in [2048usize, 4096, 5000, 8192] {
            for tile in [cholesky_tile(n, 2), matmul_tile(n, 2)] {
                let last = n - (n.div_ceil(tile) - 1) * tile;
                assert!(3 * last >= tile, "order {n}: {last} after tiles of {tile}");
            }
        }
    }

    #[test]
    fn squares_fit_with_what_is_subtracted_from_them() {
        for n in [1, 100, 1000, 16_384] {
            for (tile, bytes) in [(16, 2048), (384, 1_208_320), (1000, 8_000_000)] {
                for tiles in [0, 1, 3, 5, 12, 60, 222, 1_000_000] {
                    let side = cholesky_square(n, tile, bytes, tiles * bytes as u64);
                    let all = n.div_ceil(tile);
                    assert!((1..=all).contains(&side), "{n}, {tile}, {tiles}: {side}");
                    let fits = side == all && all * (all + 1) / 2 <= tiles as usize;
                    assert!(
                        fits || side == 1 || side * side + 4 * side <= tiles as usize,
                        "{n}, {tile}, {tiles}: {side}"
                    );
                }
            }
        }
        assert_eq!(cholesky_square(0, 0, 0, 0), 1);
    }

    #[test]
    fn one_worker_needs_no_more_tiles_than_fit_the_cache() {
        assert_eq!((cholesky_tile(300, 1), cholesky_tile(768, 1), matmul_tile(1024, 1)), (304, 384, 1024));
    }
}
