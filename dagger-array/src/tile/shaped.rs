//! How tiles lie in files: by columns, as in memory but without padding, or by rows.
//!
//! ```text
//!   file      col 0 ┊ col 1 ┊ col 2 ┊ ..        tile      col 0 ┊ pad ┊ col 1 ┊ pad ┊ col 2 ┊ pad ┊ ..
//!             └──── piece ─────┘
//! ```
//! Some columns, or rows, at a time are read into a piece that stays in the cache, and spread from there; so there are few
//! calls of the system, and the tile is touched once. Reading all columns into the tile and moving them there afterwards is
//! as fast for 512 × 512 (7 GB/s from the page cache), and touches a larger one twice.

use std::io;
use std::ops::Range;

use dagger_async::store::{Order, Shaped};

use crate::{Element, Tile};

/// Bytes that are put together before they are written, and read before they are spread. Half as many cost a third of the speed
/// by rows: strips of a column get too short.
const PIECE: usize = 256 << 10;

impl<T: Element> Shaped for Tile<T> {
    type Number = T;
    const RANK: Option<usize> = Some(2);

    fn bytes(shape: &[usize]) -> Option<usize> {
        let [rows, cols] = *shape else { return None };
        let len = super::storage_len::<T>(super::leading_dimension::<T>(rows, cols)?, cols)?;
        len.checked_mul(size_of::<T>())
    }

    fn shape(&self) -> Vec<usize> {
        vec![self.rows, self.cols]
    }

    fn order(&self) -> Order {
        Order::ColumnMajor
    }

    fn give(&self, order: Order, to: &mut dyn FnMut(&[T]) -> io::Result<()>) -> io::Result<()> {
        match order {
            Order::ColumnMajor if self.rows == self.ld => to(self.padded()),
            Order::ColumnMajor => give_columns(self, to),
            Order::RowMajor => give_rows(self, to),
        }
    }

    fn make(
        shape: &[usize],
        order: Order,
        fill: &mut dyn FnMut(&mut [T]) -> io::Result<()>,
    ) -> io::Result<Tile<T>> {
        let [rows, cols] = *shape else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut tile = Tile::try_zeros(rows, cols).ok_or(io::ErrorKind::OutOfMemory)?;
        match order {
            Order::ColumnMajor => fill_columns(&mut tile, fill)?,
            Order::RowMajor => fill_rows(&mut tile, fill)?,
        }
        Ok(tile)
    }
}

fn give_columns<T: Element>(tile: &Tile<T>, to: &mut dyn FnMut(&[T]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = Vec::new();
    for columns in pieces::<T>(tile.cols, tile.rows) {
        if columns.len() == 1 {
            to(tile.col(columns.start))?;
        } else {
            piece.clear();
            columns.for_each(|j| piece.extend_from_slice(tile.col(j)));
            to(&piece)?;
        }
    }
    Ok(())
}

fn fill_columns<T: Element>(
    tile: &mut Tile<T>,
    fill: &mut dyn FnMut(&mut [T]) -> io::Result<()>,
) -> io::Result<()> {
    let (rows, ld) = (tile.rows, tile.ld);
    if rows == ld {
        return fill(tile.padded_mut());
    }
    let mut piece = Vec::new();
    for columns in pieces::<T>(tile.cols, rows) {
        if columns.len() == 1 {
            fill(tile.col_mut(columns.start))?;
        } else {
            piece.resize(columns.len() * rows, T::ZERO);
            fill(&mut piece)?;
            let places = tile.padded_mut()[columns.start * ld..].chunks_mut(ld);
            places.zip(piece.chunks(rows)).for_each(|(place, column)| place[..rows].copy_from_slice(column));
        }
    }
    Ok(())
}

fn give_rows<T: Element>(tile: &Tile<T>, to: &mut dyn FnMut(&[T]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = Vec::new();
    for rows in pieces::<T>(tile.rows, tile.cols) {
        piece.resize(rows.len() * tile.cols, T::ZERO);
        for j in 0..tile.cols {
            let strip = &tile.col(j)[rows.clone()];
            piece[j..].iter_mut().step_by(tile.cols).zip(strip).for_each(|(to, from)| *to = *from);
        }
        to(&piece)?;
    }
    Ok(())
}

fn fill_rows<T: Element>(
    tile: &mut Tile<T>,
    fill: &mut dyn FnMut(&mut [T]) -> io::Result<()>,
) -> io::Result<()> {
    let cols = tile.cols;
    let mut piece = Vec::new();
    for rows in pieces::<T>(tile.rows, cols) {
        piece.resize(rows.len() * cols, T::ZERO);
        fill(&mut piece)?;
        for j in 0..cols {
            let strip = &mut tile.col_mut(j)[rows.clone()];
            strip.iter_mut().zip(piece[j..].iter().step_by(cols)).for_each(|(to, from)| *to = *from);
        }
    }
    Ok(())
}

/// Rows or columns of `len` elements, `lanes` of them, in groups that make a piece. None if they have no elements.
fn pieces<T>(lanes: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    let line = super::LINE / size_of::<T>();
    let most = PIECE / size_of::<T>() / len.max(1);
    // Of rows: whole cache lines of every column.
    let most = if most > line { most / line * line } else { most.max(1) };
    let lanes = if len == 0 { 0 } else { lanes };
    (0..lanes).step_by(most).map(move |first| first..lanes.min(first + most))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use dagger_async::store::{Format, Npy, Raw};
    use ndarray::{Array2, ShapeBuilder};
    use proptest::prelude::*;

    use super::*;
    use crate::tile::tests::poison;

    fn file() -> File {
        static NTH: AtomicU32 = AtomicU32::new(0);
        let name = format!("dagger-tile-{}-{}", std::process::id(), NTH.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let _ = std::fs::remove_file(path);
        file
    }

    fn written<T>(format: &impl Format<T>, value: &T) -> File {
        let mut file = file();
        format.write(value, &mut file).unwrap();
        file
    }

    fn comes_back<T: Element>(rows: usize, cols: usize, element: impl Fn(usize, usize) -> T) {
        let mut tile = Tile::from_fn(rows, cols, &element);
        poison(&mut tile);
        // One that the other crate knows, in both orders.
        let array = Array2::from_shape_fn((rows, cols).f(), |(i, j)| element(i, j));
        let same = |tile: &Tile<T>| assert!(tile.iter().eq(array.t().iter()) && tile.rows() == rows);

        let mut npy = written(&Npy, &tile);
        same(&Npy.read(&mut npy).unwrap());
        assert_eq!(Npy.read(&mut npy).ok(), Some(array.clone()));
        let bytes = Format::<Tile<T>>::bytes(&Npy, &mut npy).unwrap();
        let is = dagger_async::store::Spill::bytes(&tile);
        assert!(is >= bytes && is < bytes + 4096);
        same(&Npy.read(&mut written(&Npy, &array)).unwrap());
        same(&Npy.read(&mut written(&Npy, &array.as_standard_layout().into_owned())).unwrap());

        let raw = Raw::matrix(rows, cols);
        for raw in [raw.clone(), raw.column_major()] {
            let mut file = written(&raw, &tile);
            same(&raw.read(&mut file).unwrap());
            assert_eq!(raw.read(&mut file).ok(), Some(array.clone()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn a_tile_comes_back_from_every_file_and_is_an_array_there(rows in 0usize..40, cols in 0usize..40) {
            comes_back(rows, cols, |i, j| (i * 100 + j) as f64);
            comes_back(rows, cols, |i, j| (i * 100 + j) as f32);
        }
    }

    #[test]
    fn tiles_of_several_pieces_come_back() {
        for (rows, cols) in
            [(300, 517), (517, 300), (2, 40_000), (40_000, 2), (70_001, 1), (1, 70_001), (3, 40_000)]
        {
            comes_back(rows, cols, |i, j| (i * 70_001 + j) as f64);
            comes_back(rows, cols, |i, j| (i * 101 + j) as f32);
        }
    }

    #[test]
    fn what_is_no_such_matrix_is_an_error() {
        let error = |result: io::Result<Tile<f64>>| result.unwrap_err().to_string();
        let mut npy = written(&Npy, &vec![1.0f64; 6]);
        assert_eq!(error(Npy.read(&mut npy)), "the file has f8 in shape (6,), asked for f8 of rank 2");
        let mut npy = written(&Npy, &Tile::<f32>::zeros(2, 3));
        assert_eq!(error(Npy.read(&mut npy)), "the file has f4 in shape (2, 3), asked for f8 of rank 2");
        let mut raw = written(&Raw, &vec![1.0f64; 6]);
        let text = error(Raw::matrix(2, 4).read(&mut raw));
        assert_eq!(text, "the file has 48 B, asked for shape (2, 4) of f8: 64 B");
        // A matrix without elements may have any number of columns, but memory has not.
        let absurd = Tile::<f64>::make(&[0, usize::MAX], Order::RowMajor, &mut |_| Ok(()));
        assert_eq!(absurd.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(<Tile<f64> as Shaped>::bytes(&[0, usize::MAX]), None);
    }
}
