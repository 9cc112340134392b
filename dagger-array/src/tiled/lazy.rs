//! Matrices whose tiles are made when they are needed: none of them is in memory, or anywhere else, before.

use std::ops::Range;

use dagger_async::prelude::*;

use super::{TileMatrix, tiles};
use crate::{Element, Tile};

impl<T: Element> TileMatrix<T> {
    /// The lower triangle, in tiles, of a symmetric matrix of order `n`, for a runtime that has less memory than that takes
    /// (feature `store`). `make(rows, cols)` gives the tile with these elements when a task needs it, on a thread of the store; on
    /// the diagonal all of it, also what lies above.
    ///
    /// While nobody has written to a tile it leaves memory without being written down, and is made again: `make` gives the same
    /// each time. See [`Chunk::lazy`]. The tiles belong to the current runtime.
    ///
    /// # Panics
    /// If `tile` is 0.
    ///
    /// ```
    /// use dagger_array::prelude::*;
    /// # use dagger_async::prelude::*;
    /// # fn main() -> dagger_async::Result<()> {
    /// let rt = Runtime::builder().memory_limit(1 << 20).build()?;
    /// rt.block_on(async {
    ///     let entry = |i, j| if i == j { 800.0 } else { 1.0 };
    ///     let m = TileMatrix::lower_lazy(800, 64, move |rows, cols| {
    ///         Tile::from_fn(rows.len(), cols.len(), |r, c| entry(rows.start + r, cols.start + c))
    ///     });
    ///     tiled::cholesky_within(&m, 1 << 20).await?; // of 2.9 MB
    ///     assert!((m[(0, 0)].read().await?[(1, 0)] - 1.0 / 800f64.sqrt()).abs() < 1e-15);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn lower_lazy<F>(n: usize, tile: usize, make: F) -> Self
    where
        F: Fn(Range<usize>, Range<usize>) -> Tile<T> + Clone + Send + Sync + 'static,
    {
        assert!(tile > 0, "a tile has at least one row and column");
        T::make_known();
        let range = |i: usize| i * tile..n.min((i + 1) * tile);
        let chunks = (0..tiles(n, tile)).flat_map(|i| (0..=i).map(move |j| (range(i), range(j))));
        let chunks = chunks.map(|(rows, cols)| {
            let (make, bytes) = (make.clone(), Tile::<T>::bytes_for(rows.len(), cols.len()));
            Chunk::lazy(bytes as u64, move || make(rows.clone(), cols.clone()))
        });
        TileMatrix { rows: n, cols: n, tile, lower: true, chunks: chunks.collect() }
    }
}
