//! How a file holds a value: [`Format`], and two of them, [`Npy`] and [`Raw`].
//!
//! ```text
//!    Format<T>            T: Shaped             numbers
//!    Npy ──── header ───▶ shape, order ──────▶  pieces, each read or written at once where it lies
//!    RawArray ─ stated ─▶ (Vec, ndarray, tiles)
//! ```
//! * A format reads and writes files; it knows nothing of memory. [`Shaped`] makes values of a shape and gives their numbers;
//!   it knows nothing of files. So a format is written once for all kinds of arrays.
//! * What a file claims is compared with its length before any memory is asked for.

use std::fmt;
use std::fs::File;
use std::io;

mod npy;
mod raw;

pub use npy::Npy;
pub use raw::{Raw, RawArray};

/// How a file holds a value.
///
/// Where the file is positioned before reading does not matter: the value is read from the start, and is all there is. It is
/// written where the file is positioned: at the start of an empty one.
pub trait Format<T>: Send + Sync + 'static {
    /// What the value will occupy in memory beside itself, in bytes: by the header of the file, so this reads little.
    ///
    /// # Errors
    /// As [`read`](Format::read), as far as they show without the data.
    fn bytes(&self, file: &mut File) -> io::Result<usize>;

    /// Reads the value.
    ///
    /// # Errors
    /// What the file gives; [`io::ErrorKind::InvalidData`] if it holds no such value, with what it has and what was asked;
    /// [`io::ErrorKind::OutOfMemory`].
    fn read(&self, file: &mut File) -> io::Result<T>;

    /// Writes the value.
    ///
    /// # Errors
    /// What the file gives, and [`io::ErrorKind::InvalidInput`] for a value that the format cannot hold.
    fn write(&self, value: &T, file: &mut File) -> io::Result<()>;
}

/// The order of the numbers of an array in memory and in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The last index runs fastest: rows of a matrix are contiguous. C, and NumPy unless told otherwise.
    RowMajor,
    /// The first index runs fastest: columns of a matrix are contiguous. Fortran, and tiles.
    ColumnMajor,
}

/// A number that files hold: `f32`, `f64`, or an integer of 8 to 64 bits. Sealed.
pub trait Number: bytemuck::Pod + Send + Sync + sealed::Sealed {
    /// Its kind and its size in bytes, as NumPy writes them: `f8` for `f64`.
    const DTYPE: &'static str;

    /// Turns the bytes of each number around.
    fn swap_all_bytes(numbers: &mut [Self]);
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! number {
    ($($t:ty: $dtype:literal),*) => {$(
        impl sealed::Sealed for $t {}
        impl Number for $t {
            const DTYPE: &'static str = $dtype;
            fn swap_all_bytes(numbers: &mut [$t]) {
                for number in bytemuck::cast_slice_mut::<$t, [u8; size_of::<$t>()]>(numbers) {
                    number.reverse();
                }
            }
        }
    )*};
}

number!(f32: "f4", f64: "f8", i8: "i1", i16: "i2", i32: "i4", i64: "i8", u8: "u1", u16: "u2", u32: "u4", u64: "u8");

/// Numbers in a shape: a value that array files hold.
///
/// Vectors (of rank 1), with the feature `ndarray` its arrays of any rank, and the tiles of `dagger-array` with its feature
/// `store`. Implement it for an array of your own, and all formats read and write it.
pub trait Shaped: Sized + Send + Sync + 'static {
    /// What it holds.
    type Number: Number;

    /// How many indices its shape has; `None` if any number of them.
    const RANK: Option<usize>;

    /// Bytes that a value of this shape occupies beside itself; `None` if there can be no such value.
    fn bytes(shape: &[usize]) -> Option<usize> {
        count(shape)?.checked_mul(size_of::<Self::Number>())
    }

    /// The length along each index.
    fn shape(&self) -> Vec<usize>;

    /// The order in which it has its numbers at hand: giving them in the other one is slower.
    fn order(&self) -> Order;

    /// Gives all numbers in this order, in as large pieces as it can.
    ///
    /// # Errors
    /// What `to` gives.
    fn give(&self, order: Order, to: &mut dyn FnMut(&[Self::Number]) -> io::Result<()>) -> io::Result<()>;

    /// Makes a value of this shape, whose rank is right. `fill` gives the numbers in this order, a piece for each call.
    ///
    /// # Errors
    /// What `fill` gives; [`io::ErrorKind::OutOfMemory`], also where the shape cannot be.
    fn make(
        shape: &[usize],
        order: Order,
        fill: &mut dyn FnMut(&mut [Self::Number]) -> io::Result<()>,
    ) -> io::Result<Self>;
}

impl<E: Number> Shaped for Vec<E> {
    type Number = E;
    const RANK: Option<usize> = Some(1);

    fn shape(&self) -> Vec<usize> {
        vec![self.len()]
    }

    fn order(&self) -> Order {
        Order::RowMajor
    }

    fn give(&self, _: Order, to: &mut dyn FnMut(&[E]) -> io::Result<()>) -> io::Result<()> {
        to(self)
    }

    fn make(
        shape: &[usize],
        _: Order,
        fill: &mut dyn FnMut(&mut [E]) -> io::Result<()>,
    ) -> io::Result<Vec<E>> {
        let mut numbers = super::spill::zeroed(count(shape).ok_or(io::ErrorKind::OutOfMemory)?)?;
        fill(&mut numbers)?;
        Ok(numbers)
    }
}

/// How many numbers a shape holds.
fn count(shape: &[usize]) -> Option<usize> {
    // A length of zero makes all of it zero, whatever overflows beside it.
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |count, &len| count.checked_mul(len))
}

/// A shape as Python writes it: `(3, 4)`, `(3,)`, `()`.
struct Tuple<'a>(&'a [usize]);

impl fmt::Display for Tuple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (index, len) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{len}")?;
        }
        f.write_str(if self.0.len() == 1 { ",)" } else { ")" })
    }
}

fn invalid(text: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
pub(super) mod tests;
