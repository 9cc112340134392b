//! Dense tiles, and the kernels that tasks run on them.
//!
//! - [`Tile`]: a matrix in one piece of memory, laid out for fast kernels; the operand of a task.
//! - [`kernels`]: plain functions on tiles, one thread each: Cholesky, triangular solves, products.
//! - [`Element`]: what a tile may hold, `f32` or `f64`.
//!
//! A tiled Cholesky factorisation, in program order:
//!
//! ```
//! use dagger_array::Tile;
//! use dagger_array::kernels::{gemm, potrf, syrk, trsm};
//!
//! # fn main() -> Result<(), dagger_array::NotPositiveDefinite> {
//! let (nb, nt) = (8, 3); // tiles of nb × nb, nt of them each way
//! let entry = |i: usize, j: usize| if i == j { 24.0 } else { 1.0 / (1 + i.abs_diff(j)) as f64 };
//! let mut tiles = std::collections::BTreeMap::new();
//! for (i, j) in (0..nt).flat_map(|i| (0..=i).map(move |j| (i, j))) {
//!     tiles.insert((i, j), Tile::from_fn(nb, nb, |r, c| entry(i * nb + r, j * nb + c)));
//! }
//!
//! for k in 0..nt {
//!     let mut diagonal = tiles.remove(&(k, k)).expect("the lower triangle is there");
//!     potrf(&mut diagonal)?;
//!     for i in k + 1..nt {
//!         trsm(&diagonal, tiles.get_mut(&(i, k)).expect("the lower triangle is there"));
//!     }
//!     tiles.insert((k, k), diagonal);
//!     for j in k + 1..nt {
//!         let a = tiles[&(j, k)].clone();
//!         syrk(&a, tiles.get_mut(&(j, j)).expect("the lower triangle is there"));
//!         for i in j + 1..nt {
//!             let b = tiles[&(i, k)].clone();
//!             gemm(&b, &a, tiles.get_mut(&(i, j)).expect("the lower triangle is there"));
//!         }
//!     }
//! }
//! assert!((tiles[&(0, 0)][(0, 0)] - 24f64.sqrt()).abs() < 1e-14);
//! # Ok(())
//! # }
//! ```
//!
//! Every kernel runs on the thread that calls it and starts no other: parallelism comes from tasks, never from inside
//! a tile. Linear algebra is done by [faer](https://docs.rs/faer), always with `Par::Seq`.

mod buffer;
mod element;
pub mod kernels;
mod regions;
mod tile;
pub mod tiled;

pub use element::Element;
pub use kernels::NotPositiveDefinite;
pub use tile::Tile;
pub use tiled::TileMatrix;

/// What programs with arrays need, beside the prelude of `dagger-async`: `use dagger_array::prelude::*;`.
pub mod prelude {
    pub use crate::kernels::{gemm, potrf, syrk, trsm};
    pub use crate::{Element, NotPositiveDefinite, Tile, TileMatrix, tiled};
    pub use ndarray::{Array1, Array2};
}
