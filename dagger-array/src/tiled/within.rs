//! Cholesky of a matrix that is larger than the memory that there is for it.
//!
//! ```text
//!   ┌───┐
//!   │ 1 │                   square 5: for k, tile column by tile column from the left:
//!   ├───┼───┐                   subtract the products of tiles of 2 and 3
//!   │ 2 │ 4 │               then those of its own columns, solving with 4; never touch it again
//!   ├───┼───┼───┐
//!   │ 3 │ 5 │ 6 │
//!   └───┴───┴───┘
//! ```
//! 1. Every tile goes through the same steps in the same order as in [`cholesky`], so the result is the same to the last bit.
//! 2. Only the tiles of one square are written to, but for the beginning of the next.
//!
//! It knows nothing of what is in memory: that is the store's.

use std::collections::VecDeque;
use std::ops::Range;

use dagger_async::prelude::*;

use super::{TileMatrix, at_row, check, cholesky, cholesky_square};
use crate::kernels::{gemm, potrf, syrk, trsm};
use crate::{Element, Tile};

/// So many steps are under way: one that runs, and those whose tiles come meanwhile.
///
/// Without a bound, whatever happens to be in memory runs first, and what is read for tasks far ahead takes the room of what is at
/// work: with 64 MiB of 256 MiB that read 1.1 GiB back, 1 to 5 steps read 0.5 GiB. Program order with the best choice of who
/// leaves would be 0.37.
const STEPS_AHEAD: usize = 3;

/// As [`cholesky`], in an order for a matrix that is larger than the memory that there is for it.
///
/// The result is the same, to the last bit. But the matrix is gone through in squares of as many tiles as `memory` bytes hold
/// ([`cholesky_square`]), and each is brought to its end before the next one is begun. So a tile is written down once, when it is
/// final, and with squares of order `s` about n³/(3·s) elements are read back; s² is a little less than `memory`, in elements. No order
/// reads fewer than n³/(3·√(2·memory)). That of `cholesky` goes through all that is left for each tile column, and reads and
/// writes up to n³/(3·tile) each.
///
/// `memory` is that of [`Builder::memory_limit`], or what of it the matrix may use; with enough for the whole matrix this is
/// `cholesky`. Tasks that are spawned beside it compete for the memory. Square by square, what it spawns has priorities from 2
/// downwards.
///
/// # Errors
/// As [`cholesky`].
/// # Cancellation
/// As [`cholesky`].
/// # Source
/// Left-looking, by blocks: Béreux, SIAM J. Matrix Anal. Appl. 30 (2008) 1302–1319. The bound: Beaumont, Eyraud-Dubois, Vérité, Langou,
/// SPAA 2022, 423–433.
///
/// [`Builder::memory_limit`]: https://docs.rs/dagger-async/latest/dagger_async/struct.Builder.html#method.memory_limit
pub async fn cholesky_within<T: Element>(m: &TileMatrix<T>, memory: u64) -> dagger_async::Result<()> {
    check(m.rows == m.cols, "cholesky_within", || format!("{m:?} is not square")).await?;
    let tile_bytes = Tile::<T>::bytes_for(m.tile.min(m.rows), m.tile.min(m.rows));
    let (nt, side) = (m.tile_rows(), cholesky_square(m.rows, m.tile, tile_bytes, memory));
    if side >= nt {
        return cholesky(m).await;
    }
    let squares = |from: usize| (from..nt).step_by(side).map(|at| at..nt.min(at + side));
    datadeps(async {
        let (mut under_way, mut priority) = (VecDeque::new(), 0);
        for cols in squares(0) {
            for rows in squares(cols.start) {
                for k in 0..cols.end {
                    under_way.push_back(step(m, &rows, &cols, k, priority));
                    priority -= 1; // earlier steps first
                    if under_way.len() > STEPS_AHEAD {
                        for task in under_way.pop_front().into_iter().flatten() {
                            task.wait().await; // If it fails, so does the block.
                        }
                    }
                }
            }
        }
    })
    .await
}

/// What tile column `k` of the factor does to a square: to all of it if it lies before, and it is finished itself if it lies inside.
fn step<T: Element>(
    m: &TileMatrix<T>,
    rows: &Range<usize>,
    cols: &Range<usize>,
    k: usize,
    priority: i32,
) -> Vec<DTask<()>> {
    let (offset, mut tasks) = (k * m.tile, Vec::new());
    if cols.contains(&k) {
        if rows.contains(&k) {
            let factor = move |a: &mut Tile<T>| potrf(a).map_err(|error| at_row(error, offset));
            tasks.push(spawn!(factor(InOut(&m[(k, k)]))?; name = "potrf", priority = priority + 2));
        }
        for i in rows.start.max(k + 1)..rows.end {
            tasks.push(spawn!(trsm(In(&m[(k, k)]), InOut(&m[(i, k)])); priority = priority + 1));
        }
    }
    for j in cols.start.max(k + 1)..cols.end {
        if rows.contains(&j) {
            tasks.push(spawn!(syrk(In(&m[(j, k)]), InOut(&m[(j, j)])); priority = priority));
        }
        for i in rows.start.max(j + 1)..rows.end {
            let (l, r) = (&m[(i, k)], &m[(j, k)]);
            tasks.push(spawn!(gemm(In(l), In(r), InOut(&m[(i, j)])); priority = priority));
        }
    }
    tasks
}
