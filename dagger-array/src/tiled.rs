//! Linear algebra on matrices of tiles: each algorithm is its program order, and the tiles that its tasks access give the
//! graph.
//!
//! ```text
//!   L00                  potrf(0,0) ─▶ trsm(1,0), trsm(2,0) ─▶ syrk(1,1), gemm(2,1), syrk(2,2) ─▶ potrf(1,1) ..
//!   L10 L11              a task a tile and step; independent ones run at once, and the next step starts
//!   L20 L21 L22          before the last one has ended
//! ```
//! 1. Every function here is one datadeps block: it returns when all of its tasks have ended.
//! 2. Tasks of different blocks over the same tiles are ordered too, so blocks need not be awaited one by one.

mod choice;
#[cfg(feature = "store")]
mod lazy;
mod rank;
mod within;

use std::fmt;
use std::ops::Index;

use dagger_async::prelude::*;

pub use self::choice::{cholesky_square, cholesky_tile, matmul_tile};
use self::rank::{Factorization, Substitution};
pub use self::within::cholesky_within;
use crate::kernels::{
    NotPositiveDefinite, add_product as add_tile_product, gemm, gemm_nn, gemm_tn, log_diagonal, potrf,
    solve_lower, solve_lower_transposed, syrk, trsm,
};
use crate::{Element, Tile};

/// A matrix in square tiles (those of the last row and column are smaller where the size asks for it), each a chunk.
///
/// `m[(i, j)]` is the chunk of tile row `i` and tile column `j`. A lower one has the tiles on and below the diagonal only.
pub struct TileMatrix<T: Element> {
    rows: usize,
    cols: usize,
    tile: usize,
    lower: bool,
    chunks: Vec<Chunk<Tile<T>>>,
}

/// How many tiles of this size cover `len` elements.
fn tiles(len: usize, tile: usize) -> usize {
    len.div_ceil(tile)
}

impl<T: Element> TileMatrix<T> {
    /// A `rows × cols` matrix whose element (i, j) is `element(i, j)`. A task for each tile calls it, column by column.
    ///
    /// # Panics
    /// If `tile` is 0.
    pub fn from_fn<F>(rows: usize, cols: usize, tile: usize, element: F) -> Self
    where
        F: Fn(usize, usize) -> T + Clone + Send + Sync + 'static,
    {
        Self::make(rows, cols, tile, false, element)
    }

    /// The lower triangle, in tiles, of a symmetric matrix of order `n`: `element` is called with `i >= j` in the tiles
    /// below the diagonal, and everywhere in those on it.
    ///
    /// # Panics
    /// If `tile` is 0.
    pub fn lower_from_fn<F>(n: usize, tile: usize, element: F) -> Self
    where
        F: Fn(usize, usize) -> T + Clone + Send + Sync + 'static,
    {
        Self::make(n, n, tile, true, element)
    }

    /// A `rows × cols` matrix of zeros.
    ///
    /// # Panics
    /// If `tile` is 0.
    pub fn zeros(rows: usize, cols: usize, tile: usize) -> Self {
        Self::of_tiles(rows, cols, tile, false, |_, _, m, n| move || Tile::zeros(m, n))
    }

    fn make<F>(rows: usize, cols: usize, tile: usize, lower: bool, element: F) -> Self
    where
        F: Fn(usize, usize) -> T + Clone + Send + Sync + 'static,
    {
        Self::of_tiles(rows, cols, tile, lower, |i, j, m, n| {
            let element = element.clone();
            move || Tile::from_fn(m, n, |r, c| element(i * tile + r, j * tile + c))
        })
    }

    /// `fill(i, j, rows, cols)` gives what makes tile (i, j).
    fn of_tiles<F>(
        rows: usize,
        cols: usize,
        tile: usize,
        lower: bool,
        fill: impl Fn(usize, usize, usize, usize) -> F,
    ) -> Self
    where
        F: FnOnce() -> Tile<T> + Send + 'static,
    {
        assert!(tile > 0, "a tile has at least one row and column");
        #[cfg(feature = "store")]
        T::make_known(); // Before the first chunk.
        let make = |i: usize, j: usize| {
            let (m, n) = (tile.min(rows - i * tile), tile.min(cols - j * tile));
            let fill = fill(i, j, m, n);
            #[cfg(feature = "store")]
            let filled = {
                // One that is too large says so itself, when it is made.
                let bytes = Tile::<T>::checked_bytes_for(m, n).unwrap_or(0);
                spawn!(fill(); name = "fill tile", memory = bytes as u64)
            };
            #[cfg(not(feature = "store"))]
            let filled = spawn!(fill(); name = "fill tile");
            Chunk::from_task(filled)
        };
        let columns = |i: usize| if lower { i + 1 } else { tiles(cols, tile) };
        let chunks = (0..tiles(rows, tile)).flat_map(|i| (0..columns(i)).map(move |j| (i, j)));
        let chunks = chunks.map(|(i, j)| make(i, j)).collect();
        TileMatrix { rows, cols, tile, lower, chunks }
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many columns it has.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// How many rows and columns a tile has, but for the last ones.
    pub fn tile(&self) -> usize {
        self.tile
    }

    /// How many rows of tiles it has.
    pub fn tile_rows(&self) -> usize {
        tiles(self.rows, self.tile)
    }

    /// How many columns of tiles it has.
    pub fn tile_cols(&self) -> usize {
        tiles(self.cols, self.tile)
    }

    /// The chunk of a tile, if it has one.
    pub fn get(&self, i: usize, j: usize) -> Option<&Chunk<Tile<T>>> {
        match self.lower {
            _ if i >= self.tile_rows() => None,
            true if j <= i => self.chunks.get(i * (i + 1) / 2 + j),
            false if j < self.tile_cols() => self.chunks.get(i * self.tile_cols() + j),
            _ => None,
        }
    }

    /// The chunks of all tiles, row by row.
    pub fn chunks(&self) -> &[Chunk<Tile<T>>] {
        &self.chunks
    }

    /// The elements, row by row, once all accesses before this one have ended; zero where there is no tile.
    ///
    /// # Errors
    /// As [`Chunk::read`].
    pub async fn collect(&self) -> dagger_async::Result<Vec<Vec<T>>> {
        let mut all = vec![vec![T::ZERO; self.cols]; self.rows];
        for i in 0..self.tile_rows() {
            for j in 0..self.tile_cols() {
                let Some(chunk) = self.get(i, j) else { continue };
                let tile = chunk.read().await?;
                for r in 0..tile.rows() {
                    for c in 0..tile.cols() {
                        all[i * self.tile + r][j * self.tile + c] = tile[(r, c)];
                    }
                }
            }
        }
        Ok(all)
    }
}

impl<T: Element> Index<(usize, usize)> for TileMatrix<T> {
    type Output = Chunk<Tile<T>>;
    /// # Panics
    /// If there is no such tile.
    #[track_caller]
    fn index(&self, (i, j): (usize, usize)) -> &Chunk<Tile<T>> {
        match self.get(i, j) {
            Some(chunk) => chunk,
            None => panic!("no tile ({i}, {j}) in {self:?}"),
        }
    }
}

impl<T: Element> fmt::Debug for TileMatrix<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = if self.lower { "lower " } else { "" };
        write!(f, "TileMatrix({shape}{} x {} in tiles of {})", self.rows, self.cols, self.tile)
    }
}

/// Matrices that do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {what}")]
#[non_exhaustive]
pub struct ShapeError {
    /// The operation that was asked for.
    pub operation: &'static str,
    /// What does not fit.
    pub what: String,
}

/// Fails as a task does: so that one kind of error comes out of every function here.
async fn check(
    fits: bool,
    operation: &'static str,
    what: impl FnOnce() -> String,
) -> dagger_async::Result<()> {
    if fits {
        return Ok(());
    }
    let error = ShapeError { operation, what: what() };
    Options::new().name(operation).try_spawn(async move { Err::<(), _>(error) }).await
}

/// Factors a symmetric positive definite `A = L·Lᵀ` in place, tile by tile.
///
/// Only the lower triangle is read. It receives `L`; the strict upper triangle of the tiles on the diagonal is untouched.
/// About n³/3 flops in p(p+1)(p+2)/6 tasks, `p` tiles to a side. The tasks that most waits for go first
/// (by [`Options::rank`]: among themselves, not before other tasks).
///
/// # Errors
/// [`NotPositiveDefinite`] (by [`Error::downcast_ref`]) with the 0-based row of the first bad pivot in the whole matrix;
/// `m` is then part factored, and the tiles that were not reached are poisoned. [`ShapeError`] if it is not square.
/// # Cancellation
/// Dropping the future stops new tiles from starting. Those that run finish in the background; the tiles that were not
/// reached are poisoned with `Cancelled` until they are rewritten or recovered.
/// # Source
/// Buttari, Langou, Kurzak, Dongarra, Parallel Computing 35 (2009) 38–53.
pub async fn cholesky<T: Element>(m: &TileMatrix<T>) -> dagger_async::Result<()> {
    check(m.rows == m.cols, "cholesky", || format!("{m:?} is not square")).await?;
    let (nt, nb) = (m.tile_rows(), m.tile);
    let ranks = Factorization { n: nt };
    datadeps(async {
        for k in 0..nt {
            let offset = k * nb;
            let factor = move |a: &mut Tile<T>| potrf(a).map_err(|error| at_row(error, offset));
            spawn!(factor(InOut(&m[(k, k)]))?; repeatable = true, name = "potrf", rank = ranks.potrf(k));
            for i in k + 1..nt {
                spawn!(trsm(In(&m[(k, k)]), InOut(&m[(i, k)])); repeatable = true, rank = ranks.trsm(k));
            }
            for j in k + 1..nt {
                spawn!(syrk(In(&m[(j, k)]), InOut(&m[(j, j)])); repeatable = true, rank = ranks.syrk(j, k));
                for i in j + 1..nt {
                    let (l, r) = (&m[(i, k)], &m[(j, k)]);
                    spawn!(gemm(In(l), In(r), InOut(&m[(i, j)])); repeatable = true, rank = ranks.gemm(j, k));
                }
            }
        }
    })
    .await
}

/// The row in the whole matrix of a pivot that a tile has refused.
fn at_row(mut error: NotPositiveDefinite, offset: usize) -> NotPositiveDefinite {
    error.pivot += offset;
    error
}

/// Solves `L·X = B` in place of `B`: forward substitution with the factor that [`cholesky`] leaves.
///
/// `l` is n × n and only its lower triangle is read; `b` is n × k, in tiles of the same size. About n²·k flops.
///
/// # Errors
/// [`ShapeError`] if they do not fit; what has failed before in `l` or `b`.
/// # Cancellation
/// As [`cholesky`], for the tiles of `b`.
pub async fn solve_lower_in_place<T: Element>(
    l: &TileMatrix<T>,
    b: &TileMatrix<T>,
) -> dagger_async::Result<()> {
    check_solve("solve_lower_in_place", l, b).await?;
    let ranks = Substitution { n: b.tile_rows() };
    datadeps(async {
        for k in 0..b.tile_rows() {
            for j in 0..b.tile_cols() {
                let rank = ranks.solve(k);
                spawn!(solve_lower(In(&l[(k, k)]), InOut(&b[(k, j)])); repeatable = true, rank = rank);
                for i in k + 1..b.tile_rows() {
                    let (l, x) = (&l[(i, k)], &b[(k, j)]);
                    spawn!(gemm_nn(In(l), In(x), InOut(&b[(i, j)])); repeatable = true, rank = ranks.update(i, k));
                }
            }
        }
    })
    .await
}

/// Solves `Lᵀ·X = B` in place of `B`: backward substitution with the factor that [`cholesky`] leaves.
///
/// Shapes, errors and cancellation as [`solve_lower_in_place`].
pub async fn solve_lower_transposed_in_place<T: Element>(
    l: &TileMatrix<T>,
    b: &TileMatrix<T>,
) -> dagger_async::Result<()> {
    check_solve("solve_lower_transposed_in_place", l, b).await?;
    let (last, ranks) = (b.tile_rows().saturating_sub(1), Substitution { n: b.tile_rows() });
    datadeps(async {
        for k in (0..b.tile_rows()).rev() {
            for j in 0..b.tile_cols() {
                let (diagonal, x, rank) = (&l[(k, k)], &b[(k, j)], ranks.solve(last - k));
                spawn!(solve_lower_transposed(In(diagonal), InOut(x)); repeatable = true, rank = rank);
                for i in 0..k {
                    let (l, x, rank) = (&l[(k, i)], &b[(k, j)], ranks.update(last - i, last - k));
                    spawn!(gemm_tn(In(l), In(x), InOut(&b[(i, j)])); repeatable = true, rank = rank);
                }
            }
        }
    })
    .await
}

async fn check_solve<T: Element>(
    operation: &'static str,
    l: &TileMatrix<T>,
    b: &TileMatrix<T>,
) -> dagger_async::Result<()> {
    let fits = l.rows == l.cols && l.rows == b.rows && l.tile == b.tile && !b.lower;
    check(fits, operation, || format!("{l:?} and {b:?}")).await
}

/// The natural logarithm of the determinant of `A = L·Lᵀ`, from the factor that [`cholesky`] leaves: twice the sum of the
/// logarithms of its diagonal.
///
/// # Errors
/// What has failed before in `l`.
/// # Cancellation
/// Dropping the future leaves `l` as it is.
pub async fn log_determinant<T: Element>(l: &TileMatrix<T>) -> dagger_async::Result<T> {
    check(l.rows == l.cols, "log_determinant", || format!("{l:?} is not square")).await?;
    let sums: Vec<DTask<T>> = (0..l.tile_rows()).map(|k| spawn!(log_diagonal(In(&l[(k, k)])))).collect();
    let mut sum = T::ZERO;
    for part in sums {
        sum += part.await?;
    }
    Ok(sum + sum)
}

/// The product `A·B`, in tiles of the same size.
///
/// `a` is m × k, `b` is k × n, neither a lower triangle. 2·m·n·k flops, a task for each tile of the result and each step
/// along `k`.
///
/// # Errors
/// [`ShapeError`] if they do not fit; what has failed before in `a` or `b`.
/// # Cancellation
/// Dropping the future stops new tiles from starting; those that run finish in the background.
///
/// ```
/// use dagger_array::prelude::*;
/// # use dagger_async::prelude::*;
/// # fn main() -> dagger_async::Result<()> { Runtime::new()?.block_on(async {
/// let a = TileMatrix::from_fn(5, 7, 3, |i, j| (i + j) as f64);
/// let b = TileMatrix::from_fn(7, 2, 3, |i, j| if i == j { 2.0 } else { 0.0 });
/// let c = tiled::matmul(&a, &b).await?;
/// assert_eq!(c.collect().await?[4], [8.0, 10.0]);
/// # Ok(()) }) }
/// ```
pub async fn matmul<T: Element>(a: &TileMatrix<T>, b: &TileMatrix<T>) -> dagger_async::Result<TileMatrix<T>> {
    check_product("matmul", a, b, None).await?;
    let c = TileMatrix::zeros(a.rows, b.cols, a.tile);
    spawn_products(a, b, &c).await?;
    Ok(c)
}

/// `C ← C + A·B`.
///
/// `a` is m × k, `b` is k × n, `c` is m × n, none a lower triangle, in tiles of one size. Otherwise as [`matmul`]; if the future is
/// dropped, the tiles of `c` that were not reached are poisoned with `Cancelled` until they are rewritten or recovered.
///
/// # Errors
/// [`ShapeError`] if they do not fit, and `c` is as it was; what has failed before in `a`, `b` or `c`.
pub async fn add_product<T: Element>(
    a: &TileMatrix<T>,
    b: &TileMatrix<T>,
    c: &TileMatrix<T>,
) -> dagger_async::Result<()> {
    check_product("add_product", a, b, Some(c)).await?;
    spawn_products(a, b, c).await
}

/// Tile after tile of the result, each step of it after the one before: a worker keeps the tile that it adds to.
async fn spawn_products<T: Element>(
    a: &TileMatrix<T>,
    b: &TileMatrix<T>,
    c: &TileMatrix<T>,
) -> dagger_async::Result<()> {
    datadeps(async {
        for i in 0..c.tile_rows() {
            for j in 0..c.tile_cols() {
                room().await; // the only algorithm here with so many tasks for each tile
                for k in 0..a.tile_cols() {
                    let (a, b, c) = (&a[(i, k)], &b[(k, j)], &c[(i, j)]);
                    spawn!(add_tile_product(In(a), In(b), InOut(c)); repeatable = true, name = "add_product");
                }
            }
        }
    })
    .await
}

async fn check_product<T: Element>(
    operation: &'static str,
    a: &TileMatrix<T>,
    b: &TileMatrix<T>,
    c: Option<&TileMatrix<T>>,
) -> dagger_async::Result<()> {
    let full = |m: &TileMatrix<T>| !m.lower && m.tile == a.tile;
    let fits = a.cols == b.rows
        && full(a)
        && full(b)
        && c.is_none_or(|c| full(c) && (c.rows, c.cols) == (a.rows, b.cols));
    let what = || match c {
        Some(c) => format!("{a:?}, {b:?} and {c:?}"),
        None => format!("{a:?} and {b:?}"),
    };
    check(fits, operation, what).await
}
