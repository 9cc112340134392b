//! Dense tiles, the operands of tasks.
//!
//! - [`Tile`]: a matrix in one piece of memory, laid out for fast kernels.
//! - [`Element`]: what a tile may hold, `f32` or `f64`.

mod element;
mod tile;

pub use element::Element;
pub use tile::Tile;
