//! The shape of a chunk, and what does not fit in it.

use super::{Axis, MAX_RANK};

/// The extent of a chunk along each of its axes, 1 to 6 of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// A shape of these extents.
    ///
    /// # Errors
    /// [`Outside::Rank`] for no axis, or more than 6.
    pub fn new(dims: &[usize]) -> Result<Shape, Outside> {
        let mut shape = Shape { dims: [0; MAX_RANK], rank: dims.len() as u8 };
        match shape.dims.get_mut(..dims.len()) {
            Some(own) if !dims.is_empty() => own.copy_from_slice(dims),
            _ => return Err(Outside::Rank { asked: dims.len(), has: MAX_RANK }),
        }
        Ok(shape)
    }

    /// A sequence of `len` elements.
    #[must_use]
    pub const fn line(len: usize) -> Shape {
        Shape { dims: [len, 0, 0, 0, 0, 0], rank: 1 }
    }

    /// A matrix.
    #[must_use]
    pub const fn plane(rows: usize, cols: usize) -> Shape {
        Shape { dims: [rows, cols, 0, 0, 0, 0], rank: 2 }
    }

    /// The extents, rows before columns.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank()]
    }

    /// The number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }
}

/// Why a region does not fit in a chunk, or in the region it was taken of.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Outside {
    /// Elements behind the end of an axis: ask for fewer, or make the chunk longer first.
    Bounds {
        /// The axis, from 0.
        axis: usize,
        /// What was asked for.
        what: Axis,
        /// How many elements there are.
        len: usize,
    },
    /// A region of a rank that the chunk does not have.
    Rank {
        /// The rank asked for.
        asked: usize,
        /// The rank there is; where a rank is chosen freely, the largest one.
        has: usize,
    },
    /// A range that ends before it starts.
    Reversed {
        /// Its start.
        start: usize,
        /// Its end.
        end: usize,
    },
    /// A step of 0.
    Step,
    /// A position or a bound that does not fit in 64 bits.
    TooLarge,
    /// A region that no area can describe exactly. Declare a larger one.
    Unsupported(&'static str),
}

impl Outside {
    /// The same, met on this axis.
    pub(super) fn on(self, axis: usize) -> Outside {
        match self {
            Outside::Bounds { what, len, .. } => Outside::Bounds { axis, what, len },
            other => other,
        }
    }
}

impl std::error::Error for Outside {}
