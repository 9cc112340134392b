//! Regions of tiles: what `Chunk<Tile<T>>` offers through `dagger_async::region`.

use dagger_async::region::{Container, Contiguous, Matrix, RawParts};

use crate::{Element, Tile};

// SAFETY: index (i, j) is element `i + j * ld` from the first one (invariant 1 of `tile.rs`), each once, initialised and in a
// buffer that the tile owns; both functions copy the pointer to it from the header.
unsafe impl<T: Element> Container for Tile<T> {
    type Elem = T;
    unsafe fn raw_parts(this: *const Self) -> RawParts<T> {
        // SAFETY: shared references to the header are allowed here.
        let this = unsafe { &*this };
        RawParts::new(this.as_ptr().cast_mut(), &[this.rows(), this.cols()], &[1, this.ld() as isize])
    }
    unsafe fn raw_parts_mut(this: *mut Self) -> RawParts<T> {
        // SAFETY: nobody else has a reference to the header.
        let this = unsafe { &mut *this };
        let base = this.as_mut_ptr();
        RawParts::new(base, &[this.rows(), this.cols()], &[1, this.ld() as isize])
    }
}

// SAFETY: two axes, and rows lie side by side in a column.
unsafe impl<T: Element> Matrix for Tile<T> {
    type Column = Contiguous;
}
