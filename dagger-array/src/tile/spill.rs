//! How a tile leaves memory and comes back.
//!
//! ```text
//!   rows cols ld     three u64, little-endian
//!   columns          ld * cols numbers as they lie in memory, padding included: one piece
//! ```
//! The padding is written so that there is one write and one read, at the speed of the disk. It holds numbers, whatever they
//! are (invariant 3 of `tile.rs`).

use std::io::{self, Read, Write};

use dagger_async::store::Spill;

use crate::{Element, Tile};

impl<T: Element> Spill for Tile<T> {
    fn bytes(&self) -> usize {
        self.storage.bytes()
    }

    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        for number in [self.rows, self.cols, self.ld] {
            to.write_all(&(number as u64).to_le_bytes())?;
        }
        to.write_all(bytemuck::cast_slice(self.padded()))
    }

    fn reload(from: &mut dyn Read) -> io::Result<Tile<T>> {
        let mut number = || {
            let mut bytes = [0; 8];
            from.read_exact(&mut bytes)?;
            usize::try_from(u64::from_le_bytes(bytes)).map_err(invalid)
        };
        let (rows, cols, ld) = (number()?, number()?, number()?);
        let is = super::leading_dimension::<T>(rows, cols);
        if is != Some(ld) {
            let is = is.map_or("none".to_owned(), |is| is.to_string());
            let text =
                format!("no tile: {rows}x{cols} with a leading dimension of {ld}, which would be {is}");
            return Err(invalid(text));
        }
        let mut tile = Tile::try_zeros(rows, cols).ok_or(io::ErrorKind::OutOfMemory)?;
        from.read_exact(bytemuck::cast_slice_mut(tile.padded_mut()))?;
        Ok(tile)
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{InvalidData, OutOfMemory, UnexpectedEof};

    use proptest::prelude::*;

    use super::*;
    use crate::tile::tests::poison;

    fn written<T: Element>(tile: &Tile<T>) -> Vec<u8> {
        let mut bytes = Vec::new();
        tile.spill(&mut bytes).unwrap();
        bytes
    }

    fn header(rows: u64, cols: u64, ld: u64) -> Vec<u8> {
        [rows, cols, ld].iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    fn comes_back<T: Element>(rows: usize, cols: usize, element: impl Fn(usize, usize) -> T) {
        let mut tile = Tile::from_fn(rows, cols, element);
        poison(&mut tile);
        let bytes = written(&tile);
        let mut rest = &*bytes;
        let back = Tile::<T>::reload(&mut rest).unwrap();
        assert_eq!((&back, back.ld()), (&tile, tile.ld()));
        assert!(rest.is_empty());
        assert_eq!(back.bytes(), tile.bytes());
        assert_eq!(tile.bytes(), Tile::<T>::bytes_for(rows, cols));
        assert!(tile.bytes() >= rows * cols * size_of::<T>());
        // The pieces before the end are not enough, whatever lies between.
        for end in [0, 1, 8, 23, 24, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            if end < bytes.len() {
                assert_eq!(Tile::<T>::reload(&mut &bytes[..end]).unwrap_err().kind(), UnexpectedEof, "{end}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
        #[test]
        fn a_tile_comes_back_as_it_was(rows in 0usize..40, cols in 0usize..40, seed in any::<u32>()) {
            comes_back(rows, cols, |i, j| f64::from(seed) + (i * 100 + j) as f64);
            comes_back(rows, cols, |i, j| (seed % 100) as f32 - (i * 100 + j) as f32);
        }

        #[test]
        fn what_no_tile_has_written_is_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200), small in any::<bool>()) {
            if small {
                // Plausible numbers, so that more than the first check is reached.
                bytes.iter_mut().take(24).enumerate().filter(|(i, _)| i % 8 != 0).for_each(|(_, byte)| *byte = 0);
            }
            let tile = Tile::<f64>::reload(&mut &*bytes);
            prop_assert!(tile.is_err() || tile.is_ok_and(|tile| written(&tile).len() <= bytes.len()));
        }
    }

    #[test]
    fn a_large_tile_comes_back_and_counts_its_pages() {
        comes_back(300, 517, |i, j| (i * 1000 + j) as f64);
        comes_back(4, 70_000, |i, j| (i * 1000 + j) as f32);
        let tile = Tile::<f64>::zeros(512, 512);
        assert_eq!(tile.bytes(), (520 * 512 * 8 + 56usize).next_multiple_of(4096));
    }

    #[test]
    fn a_shape_that_cannot_be_is_an_error() {
        let kind = |rows, cols, ld| Tile::<f64>::reload(&mut &*header(rows, cols, ld)).unwrap_err().kind();
        assert_eq!(kind(8, 8, 16), InvalidData);
        assert_eq!(kind(8, 8, 0), InvalidData);
        assert_eq!(kind(u64::MAX, 2, 8), InvalidData);
        assert_eq!(kind(u64::MAX, 1, u64::MAX), OutOfMemory);
        assert_eq!(kind(1, u64::MAX, 8), OutOfMemory);
        assert_eq!(kind(1, u64::MAX / 8, 8), OutOfMemory);
        assert_eq!(kind(8, 8, 8), UnexpectedEof);
        let text = Tile::<f64>::reload(&mut &*header(8, 8, 16)).unwrap_err().to_string();
        assert_eq!(text, "no tile: 8x8 with a leading dimension of 16, which would be 8");
    }

    #[test]
    fn tiles_of_another_element_are_not_taken() {
        let bytes = written(&Tile::<f32>::zeros(9, 9));
        assert!(Tile::<f64>::reload(&mut &*bytes).is_err());
    }
}
