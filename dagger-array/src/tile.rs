//! One dense matrix in one piece of memory: the operand of a kernel.
//!
//! ```text
//!   storage   ┊ slack ┊ a00 a10 a20 ┊ pad ┊ a01 a11 a21 ┊ pad ┊ ...
//!                     ▲             ▲     ▲
//!                   start         rows    ld       start is 64-byte aligned, ld an odd number of cache lines
//! ```
//!
//! 1. Element (i, j) is `storage[start + i + j * ld]`; `rows <= ld`, and `start + ld * cols <= storage.len()`.
//! 2. With two columns or more, `ld` is an odd number of cache lines: every column starts on a line of its own, and
//!    no stride is a multiple of 128 bytes, so none of 4096. Columns 4 KiB apart share one set of the L1 cache:
//!    at 512 columns of 512 `f64` that cost 40 % of a product.
//! 3. Slack and padding are never read as data. They hold initialised numbers, whatever they are.
//!
//! Alignment is for speed only: nothing is wrong where an allocator, or an interpreter, gives less. Where the memory comes
//! from, and that it goes back to the system when a tile is dropped: `buffer.rs`.

use std::any::type_name;
use std::fmt;
use std::ops::{Index, IndexMut};

use crate::Element;
use crate::buffer::Buffer;

/// Bytes of a cache line on the machines that matter here.
const LINE: usize = 64;

/// A dense matrix of `f32` or `f64`, column by column, in one piece of memory.
///
/// Columns are contiguous ([`col`](Tile::col)) and [`ld`](Tile::ld) elements apart, which is at least the number of
/// rows. What lies between is padding for the sake of the caches; no operation reads it.
///
/// ```
/// use dagger_array::Tile;
///
/// let mut a = Tile::from_fn(3, 2, |i, j| (10 * i + j) as f64);
/// a[(2, 1)] = 7.0;
/// assert_eq!(a.col(1), [1.0, 11.0, 7.0]);
/// assert_eq!(a.transpose()[(1, 2)], 7.0);
/// ```
///
/// The memory belongs to the tile: a clone copies it, a move does not. From 128 KiB on it is mapped, so that dropping a tile
/// makes the process smaller at once, and in huge pages where the system has them.
pub struct Tile<T> {
    storage: Buffer<T>,
    start: usize,
    rows: usize,
    cols: usize,
    ld: usize,
}

impl<T: Element> Tile<T> {
    /// A tile of zeros.
    ///
    /// # Panics
    /// As `Vec`, when the size in bytes does not fit an `isize`.
    pub fn zeros(rows: usize, cols: usize) -> Tile<T> {
        let ld = leading_dimension::<T>(rows, cols).expect("capacity overflow");
        let len = storage_len::<T>(ld, cols).expect("capacity overflow");
        // Where there is no memory, a vector ends the program in the usual way.
        let storage = Buffer::try_zeros(len).unwrap_or_else(|| Buffer::Heap(vec![T::ZERO; len]));
        Tile::in_storage(storage, rows, cols, ld)
    }

    /// As [`zeros`](Tile::zeros); `None` if there is no memory, or can be none, for so many.
    #[cfg(feature = "store")]
    pub(crate) fn try_zeros(rows: usize, cols: usize) -> Option<Tile<T>> {
        let ld = leading_dimension::<T>(rows, cols)?;
        let storage = Buffer::try_zeros(storage_len::<T>(ld, cols)?)?;
        Some(Tile::in_storage(storage, rows, cols, ld))
    }

    /// Bytes of memory that a tile of this shape takes, padding included: what it counts in the budget of a runtime.
    ///
    /// # Panics
    /// As [`zeros`](Tile::zeros).
    ///
    /// ```
    /// # use dagger_array::Tile;
    /// assert_eq!(Tile::<f64>::bytes_for(384, 384), 1_208_320); // 2 % more than 384 * 384 * 8
    /// ```
    pub fn bytes_for(rows: usize, cols: usize) -> usize {
        Self::checked_bytes_for(rows, cols).expect("capacity overflow")
    }

    pub(crate) fn checked_bytes_for(rows: usize, cols: usize) -> Option<usize> {
        let len = leading_dimension::<T>(rows, cols).and_then(|ld| storage_len::<T>(ld, cols));
        len.and_then(Buffer::<T>::bytes_for)
    }

    /// Every tile is made here.
    fn in_storage(storage: Buffer<T>, rows: usize, cols: usize, ld: usize) -> Tile<T> {
        #[cfg(feature = "store")]
        T::make_known();
        let start = aligned(&storage, slack::<T>());
        Tile { storage, start, rows, cols, ld }
    }

    /// The tile whose element (i, j) is `element(i, j)`, called column by column.
    ///
    /// # Panics
    /// As [`zeros`](Tile::zeros).
    pub fn from_fn(rows: usize, cols: usize, mut element: impl FnMut(usize, usize) -> T) -> Tile<T> {
        let mut tile = Tile::zeros(rows, cols);
        for j in 0..cols {
            for (i, entry) in tile.col_mut(j).iter_mut().enumerate() {
                *entry = element(i, j);
            }
        }
        tile
    }

    /// The identity of order `n`.
    ///
    /// # Panics
    /// As [`zeros`](Tile::zeros).
    pub fn identity(n: usize) -> Tile<T> {
        let mut tile = Tile::zeros(n, n);
        for i in 0..n {
            tile[(i, i)] = T::ONE;
        }
        tile
    }

    /// A new tile, `cols × rows`, whose element (j, i) is this one's (i, j).
    #[must_use = "it is a new tile"]
    pub fn transpose(&self) -> Tile<T> {
        Tile::from_fn(self.cols, self.rows, |i, j| self[(j, i)])
    }

    /// Sets every element to `value`.
    pub fn fill(&mut self, value: T) {
        for j in 0..self.cols {
            self.col_mut(j).fill(value);
        }
    }
}

impl<T> Tile<T> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The leading dimension: how many elements a column starts after the one before. At least 1 and at least
    /// [`rows`](Tile::rows).
    pub fn ld(&self) -> usize {
        self.ld
    }

    /// Element (i, j), unless it is out of range.
    pub fn get(&self, i: usize, j: usize) -> Option<&T> {
        (i < self.rows && j < self.cols).then(|| &self.padded()[i + j * self.ld])
    }

    /// Element (i, j), unless it is out of range.
    pub fn get_mut(&mut self, i: usize, j: usize) -> Option<&mut T> {
        let ld = self.ld;
        (i < self.rows && j < self.cols).then(|| &mut self.padded_mut()[i + j * ld])
    }

    /// Column `j`, from its first row to its last.
    ///
    /// # Panics
    /// If `j` is not less than the number of columns.
    #[track_caller]
    pub fn col(&self, j: usize) -> &[T] {
        self.check_column(j);
        &self.padded()[j * self.ld..][..self.rows]
    }

    /// Column `j`, from its first row to its last.
    ///
    /// # Panics
    /// If `j` is not less than the number of columns.
    #[track_caller]
    pub fn col_mut(&mut self, j: usize) -> &mut [T] {
        self.check_column(j);
        let (at, rows) = (j * self.ld, self.rows);
        &mut self.padded_mut()[at..][..rows]
    }

    /// All elements, column by column.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.padded().chunks(self.ld).flat_map(|column| &column[..self.rows])
    }

    /// All elements, column by column.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let (rows, ld) = (self.rows, self.ld);
        self.padded_mut().chunks_mut(ld).flat_map(move |column| &mut column[..rows])
    }

    /// Where element (0, 0) is; element (i, j) is `i + j * ld()` further. Dangling if the tile has no elements.
    ///
    /// The pointer is copied out of the tile: no reference to an element is made, so this may be called while others
    /// hold references to elements that were made from pointers. It stays valid while the tile is neither dropped nor
    /// assigned to; moving the tile moves no element. To write, take [`as_mut_ptr`](Tile::as_mut_ptr).
    pub fn as_ptr(&self) -> *const T {
        self.storage.as_ptr().wrapping_add(self.start)
    }

    /// Where element (0, 0) is; element (i, j) is `i + j * ld()` further. Dangling if the tile has no elements.
    ///
    /// As [`as_ptr`](Tile::as_ptr): no reference to an element is made.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.storage.as_mut_ptr().wrapping_add(self.start)
    }

    /// The columns with their padding, `ld * cols` numbers.
    pub(crate) fn padded(&self) -> &[T] {
        &self.storage[self.start..][..self.ld * self.cols]
    }

    /// The columns with their padding, `ld * cols` numbers.
    pub(crate) fn padded_mut(&mut self) -> &mut [T] {
        &mut self.storage[self.start..][..self.ld * self.cols]
    }

    #[track_caller]
    fn check_column(&self, j: usize) {
        assert!(j < self.cols, "column {j} is out of range for a tile of {}x{}", self.rows, self.cols);
    }
}

impl<T> Index<(usize, usize)> for Tile<T> {
    type Output = T;

    /// # Panics
    /// If the row or the column is out of range.
    #[track_caller]
    fn index(&self, (i, j): (usize, usize)) -> &T {
        match self.get(i, j) {
            Some(element) => element,
            None => out_of_range(i, j, self.rows, self.cols),
        }
    }
}

impl<T> IndexMut<(usize, usize)> for Tile<T> {
    /// # Panics
    /// If the row or the column is out of range.
    #[track_caller]
    fn index_mut(&mut self, (i, j): (usize, usize)) -> &mut T {
        let (rows, cols) = (self.rows, self.cols);
        match self.get_mut(i, j) {
            Some(element) => element,
            None => out_of_range(i, j, rows, cols),
        }
    }
}

#[cold]
#[track_caller]
fn out_of_range(i: usize, j: usize, rows: usize, cols: usize) -> ! {
    panic!("index ({i}, {j}) is out of range for a tile of {rows}x{cols}");
}

/// Copies the elements.
impl<T: Element> Clone for Tile<T> {
    fn clone(&self) -> Tile<T> {
        let mut copy = Tile::zeros(self.rows, self.cols);
        copy.padded_mut().copy_from_slice(self.padded());
        copy
    }

    /// Copies into the memory that is there, if the shapes are equal.
    fn clone_from(&mut self, source: &Tile<T>) {
        if (self.rows, self.cols) == (source.rows, source.cols) {
            self.padded_mut().copy_from_slice(source.padded());
        } else {
            *self = source.clone();
        }
    }
}

/// Equal shapes and equal elements.
impl<T: PartialEq> PartialEq for Tile<T> {
    fn eq(&self, other: &Tile<T>) -> bool {
        (self.rows, self.cols) == (other.rows, other.cols) && self.iter().eq(other.iter())
    }
}

/// The shape and the first elements, row by row: `Tile<f64> 3x4 [[1.0, 2.0, 3.0, ..], ..]`.
impl<T: fmt::Debug> fmt::Debug for Tile<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CORNER: usize = 3;
        write!(f, "Tile<{}> {}x{} ", type_name::<T>(), self.rows, self.cols)?;
        let row = |i: usize| {
            fmt::from_fn(move |f| {
                let mut list = f.debug_list();
                list.entries((0..self.cols.min(CORNER)).map(|j| &self[(i, j)]));
                if self.cols > CORNER { list.finish_non_exhaustive() } else { list.finish() }
            })
        };
        let mut list = f.debug_list();
        list.entries((0..self.rows.min(CORNER)).map(row));
        if self.rows > CORNER { list.finish_non_exhaustive() } else { list.finish() }
    }
}

/// Rows rounded up to whole cache lines, one more if their number is even (invariant 2).
///
/// A single column has no neighbour, and no padding either. `None` if it does not fit a `usize`.
fn leading_dimension<T>(rows: usize, cols: usize) -> Option<usize> {
    if cols < 2 {
        return Some(rows.max(1));
    }
    let line = LINE / size_of::<T>();
    (rows.max(1).div_ceil(line) | 1).checked_mul(line)
}

/// How many elements lie before the first column, at most, for it to start on a cache line.
const fn slack<T>() -> usize {
    LINE / size_of::<T>() - 1
}

/// Columns with their padding, and the slack before them. `None` if it does not fit a `usize`.
fn storage_len<T>(ld: usize, cols: usize) -> Option<usize> {
    ld.checked_mul(cols)?.checked_add(slack::<T>())
}

/// How many elements to skip, at most `slack`, for the first column to start on a cache line.
///
/// A `Vec` promises the alignment of its element only, and large ones start 16 bytes into a page with the usual
/// allocators. Kernels then load every vector from two cache lines, at a cost of 3 to 12 %.
fn aligned<T>(storage: &[T], slack: usize) -> usize {
    let skip = storage.as_ptr().align_offset(LINE);
    if skip <= slack { skip } else { 0 }
}

#[cfg(feature = "store")]
mod shaped;
#[cfg(feature = "store")]
mod spill;
#[cfg(test)]
pub(crate) mod tests;
