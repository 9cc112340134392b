//! Kernels: plain functions on tiles, for one task each.
//!
//! ```text
//!   factor    potrf        A = L·Lᵀ                  log_diagonal   Σ ln Lᵢᵢ
//!   solve     trsm         B ← B·L⁻ᵀ                 solve_lower    B ← L⁻¹·B    solve_lower_transposed  B ← L⁻ᵀ·B
//!   product   gemm         C ← C − A·Bᵀ              gemm_nn        C ← C − A·B  gemm_tn                 C ← C − Aᵀ·B
//!             syrk         C ← C − A·Aᵀ (lower)       add_product    C ← C + A·B
//! ```
//!
//! 1. A kernel runs on the thread that calls it and starts no other.
//! 2. Of a triangular operand only the lower triangle is read or written; the strict upper one is never touched.
//! 3. The padding of a tile is neither read as data nor written.
//! 4. Shapes are checked before anything is written: a kernel that panics has changed nothing.
//! 5. The same tiles give the same bits on the same CPU, whichever thread or task runs the kernel.
//!
//! Parameters are in the order read, then written, so that a task reads `spawn!(gemm(In(..), In(..), InOut(..)))`.
//! Tiles may have any shape that fits the others, zero rows or columns included. What is not checked is what BLAS does
//! not check either: a zero on the diagonal of a triangular operand gives infinities and NaN.
//!
//! # Speed
//! A product with a transposed second operand reads a row of it in every step, one page of memory after another. From
//! about a hundred columns on that exhausts the first level of the TLB, so `gemm`, `syrk`, `trsm` and `potrf` go
//! through their common dimension in slices of 64 columns. Tiles of 256 to 512 rows are good;
//! [`tiled::cholesky_tile`](crate::tiled::cholesky_tile) and [`tiled::matmul_tile`](crate::tiled::matmul_tile) choose.

mod dense;
mod gemm;
mod potrf;
mod shapes;
mod syrk;
mod trsm;

#[cfg(test)]
mod tests;

pub(crate) use self::dense::Dense;
pub use self::gemm::{add_product, gemm, gemm_nn, gemm_tn};
pub use self::potrf::{NotPositiveDefinite, log_diagonal, potrf};
pub use self::syrk::syrk;
pub use self::trsm::{solve_lower, solve_lower_transposed, trsm};
