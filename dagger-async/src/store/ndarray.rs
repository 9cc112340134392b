//! How arrays of `ndarray` leave memory and come back, and lie in files.
//!
//! ```text
//!   order rank    u64 each, little-endian; order: 0 row-major, 1 column-major
//!   shape         u64 for each index
//!   numbers       in that order: one piece, as they lie in memory where they lie without gaps
//! ```

use std::io::{self, Read, Write};

use bytemuck::Pod;
use ndarray::{Array, ArrayView, Dimension, ShapeBuilder};

use super::format::{Number, Order, Shaped};
use super::spill::{Spill, read_len, zeroed};

/// More indices than any array has: a rank beyond is a damaged one.
const RANK_MAX: usize = 1 << 10;

/// Comes back in the same order of elements: column-major stays so; what is neither, or has gaps, becomes row-major.
///
/// Counted are the elements: memory beside them, which slicing an owned array can leave, is not seen.
impl<E: Pod + Send + Sync, D: Dimension + 'static> Spill for Array<E, D> {
    fn bytes(&self) -> usize {
        self.len() * size_of::<E>()
    }

    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        let order = order_of(&self.view());
        let rank = self.ndim();
        if rank > RANK_MAX {
            return Err(invalid(format!("an array of rank {rank}, where {RANK_MAX} is the most")));
        }
        let head = [u64::from(order == Order::ColumnMajor), rank as u64];
        let numbers = head.into_iter().chain(self.shape().iter().map(|&len| len as u64));
        let bytes: Vec<u8> = numbers.flat_map(u64::to_le_bytes).collect();
        to.write_all(&bytes)?;
        pieces(self.view(), order, &mut |elements| to.write_all(bytemuck::cast_slice(elements)))
    }

    fn reload(from: &mut dyn Read) -> io::Result<Self> {
        let order = match read_len(from)? {
            0 => Order::RowMajor,
            1 => Order::ColumnMajor,
            other => return Err(invalid(format!("no array: {other} for the order of its elements"))),
        };
        let rank = read_len(from)?;
        if D::NDIM.is_some_and(|asked| asked != rank) || rank > RANK_MAX {
            return Err(invalid(format!("no array of this type: its rank is {rank}")));
        }
        let shape = (0..rank).map(|_| read_len(from)).collect::<io::Result<Vec<usize>>>()?;
        filled(&shape, order, &mut |elements| from.read_exact(bytemuck::cast_slice_mut(elements)))
    }
}

impl<E: Number, D: Dimension + 'static> Shaped for Array<E, D> {
    type Number = E;
    const RANK: Option<usize> = D::NDIM;

    fn shape(&self) -> Vec<usize> {
        self.shape().to_vec()
    }

    fn order(&self) -> Order {
        order_of(&self.view())
    }

    fn give(&self, order: Order, to: &mut dyn FnMut(&[E]) -> io::Result<()>) -> io::Result<()> {
        pieces(self.view(), order, to)
    }

    fn make(
        shape: &[usize],
        order: Order,
        fill: &mut dyn FnMut(&mut [E]) -> io::Result<()>,
    ) -> io::Result<Self> {
        filled(shape, order, fill)
    }
}

/// Column-major if the elements lie so without gaps, and not row-major.
fn order_of<E, D: Dimension>(array: &ArrayView<'_, E, D>) -> Order {
    let is_column_major = !array.is_standard_layout() && array.t().is_standard_layout();
    if is_column_major { Order::ColumnMajor } else { Order::RowMajor }
}

/// All elements in this order: one piece if they lie so, else copies of them.
fn pieces<E: Pod, D: Dimension>(
    array: ArrayView<'_, E, D>,
    order: Order,
    to: &mut dyn FnMut(&[E]) -> io::Result<()>,
) -> io::Result<()> {
    // Row-major of the transposed one is column-major.
    let array = if order == Order::ColumnMajor { array.reversed_axes() } else { array };
    if let Some(elements) = array.as_slice() {
        return to(elements);
    }
    let most = ((256 << 10) / size_of::<E>().max(1)).clamp(1, array.len().max(1));
    let mut piece = Vec::with_capacity(most);
    for element in &array {
        piece.push(*element);
        if piece.len() == most {
            to(&piece)?;
            piece.clear();
        }
    }
    if piece.is_empty() { Ok(()) } else { to(&piece) }
}

/// An array of this shape, in this order, whose elements are filled in at once.
fn filled<E: Pod, D: Dimension>(
    shape: &[usize],
    order: Order,
    fill: &mut dyn FnMut(&mut [E]) -> io::Result<()>,
) -> io::Result<Array<E, D>> {
    let mut dim = D::zeros(shape.len());
    dim.slice_mut().copy_from_slice(shape);
    // `ndarray` wants this of shapes with a zero among them too.
    let positive = shape.iter().filter(|&&len| len > 0);
    let product = positive.copied().try_fold(1usize, usize::checked_mul);
    let product = product.filter(|&product| isize::try_from(product).is_ok());
    let product = product.ok_or(io::ErrorKind::OutOfMemory)?;
    let len = if shape.contains(&0) { 0 } else { product };
    let mut elements = zeroed(len)?;
    fill(&mut elements)?;
    Array::from_shape_vec(dim.set_f(order == Order::ColumnMajor), elements).map_err(invalid)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
