//! Plain numbers and nothing else: the shape is known to those who read.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use super::{Format, Order, Shaped, Tuple, invalid};

/// Plain numbers as they lie in memory (little-endian on the machines that matter), and nothing else.
///
/// As it stands it is for vectors, whose length is that of the file; [`matrix`](Raw::matrix) and [`array`](Raw::array) state a
/// shape. NumPy's `tofile` and `fromfile`, Fortran's streams and C's `fwrite` have such files.
///
/// ```
/// use dagger_async::store::{Format, Raw};
///
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("dagger-doc-{}.raw", std::process::id()));
/// std::fs::write(&path, [1, 0, 2, 0, 3, 0])?;
/// let numbers: Vec<u16> = Raw.read(&mut std::fs::File::open(&path)?)?;
/// assert_eq!(numbers, [1, 2, 3]);
/// # std::fs::remove_file(&path)
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Raw {
    /// Files with a matrix of this shape, rows one after the other unless [stated](RawArray::column_major) otherwise.
    pub fn matrix(rows: usize, cols: usize) -> RawArray {
        Raw::array([rows, cols])
    }

    /// Files with an array of this shape, the last index running fastest unless [stated](RawArray::column_major) otherwise.
    pub fn array(shape: impl Into<Vec<usize>>) -> RawArray {
        RawArray { shape: shape.into(), order: Order::RowMajor }
    }
}

impl<E: bytemuck::Pod + Send + Sync> Format<Vec<E>> for Raw {
    fn bytes(&self, file: &mut File) -> io::Result<usize> {
        let (there, size) = (file.metadata()?.len(), size_of::<E>());
        if there.checked_rem(size as u64) != Some(0) {
            return Err(invalid(format!("the file has {there} B, asked for numbers of {size} B each")));
        }
        usize::try_from(there).map_err(|_| io::ErrorKind::OutOfMemory.into())
    }

    fn read(&self, file: &mut File) -> io::Result<Vec<E>> {
        let bytes = Format::<Vec<E>>::bytes(self, file)?;
        let mut numbers = crate::store::spill::zeroed(bytes / size_of::<E>())?;
        file.rewind()?;
        file.read_exact(bytemuck::cast_slice_mut(&mut numbers))?;
        Ok(numbers)
    }

    fn write(&self, value: &Vec<E>, file: &mut File) -> io::Result<()> {
        file.write_all(bytemuck::cast_slice(value))
    }
}

/// [`Raw`] numbers in a shape.
#[derive(Clone, Debug)]
pub struct RawArray {
    shape: Vec<usize>,
    order: Order,
}

impl RawArray {
    /// The first index runs fastest in the file: a matrix column by column, as tiles have it in memory.
    #[must_use]
    pub fn column_major(self) -> RawArray {
        RawArray { order: Order::ColumnMajor, ..self }
    }

    /// Compares with the length of the file.
    fn check<T: Shaped>(&self, file: &File) -> io::Result<()> {
        let shape = Tuple(&self.shape);
        if let Some(rank) = T::RANK.filter(|&rank| rank != self.shape.len()) {
            return Err(invalid(format!("stated is shape {shape}, asked for rank {rank}")));
        }
        let there = file.metadata()?.len();
        let bytes = super::count(&self.shape).and_then(|count| count.checked_mul(size_of::<T::Number>()));
        if bytes.is_none_or(|bytes| bytes as u64 != there) {
            let needs = bytes.map_or("more than can be".to_owned(), |bytes| format!("{bytes} B"));
            let dtype = <T::Number as super::Number>::DTYPE;
            return Err(invalid(format!(
                "the file has {there} B, asked for shape {shape} of {dtype}: {needs}"
            )));
        }
        Ok(())
    }
}

impl<T: Shaped> Format<T> for RawArray {
    fn bytes(&self, file: &mut File) -> io::Result<usize> {
        self.check::<T>(file)?;
        T::bytes(&self.shape).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn read(&self, file: &mut File) -> io::Result<T> {
        self.check::<T>(file)?;
        file.rewind()?;
        T::make(&self.shape, self.order, &mut |numbers| file.read_exact(bytemuck::cast_slice_mut(numbers)))
    }

    fn write(&self, value: &T, file: &mut File) -> io::Result<()> {
        let shape = value.shape();
        if shape != self.shape {
            let text = format!("the value has shape {}, stated is {}", Tuple(&shape), Tuple(&self.shape));
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        value.give(self.order, &mut |numbers| file.write_all(bytemuck::cast_slice(numbers)))
    }
}
