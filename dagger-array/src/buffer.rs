//! The memory of one tile: numbers that start as zeros, stay where they are, and leave the process when dropped.
//!
//! ```text
//!   under 128 KiB    Heap     the allocator's: freed memory stays with the process, for the next tile
//!   128 KiB and more Pages    mapped: a drop gives the pages back to the system at once
//!   2 MiB and more   Pages    ┊ unused addresses ┊ huge page ┊ huge page ┊ small pages ┊
//!                             map                ▲ start, 2 MiB aligned                ▲ end of the numbers
//! ```
//! 1. `len` numbers, all initialised, from `start`, whoever owns the memory; no other value reaches them.
//! 2. Moving the buffer moves no number.
//! 3. Huge pages are asked for inside the buffer only: what is resident is never more than what was asked for, rounded up
//!    to small pages, and none of it stays when a neighbour in the address space does.
//!
//! Allocators keep what they are given back: glibc's raises the size from which it maps (to 32 MiB) with the first large
//! block that is freed, and from then on a process that drops half of its tiles stays as large as it was. Hence maps.
//!
//! Measured on a Xeon (Sapphire Rapids) virtual machine, Linux 6.18, for a tile of 512 × 512 `f64`: first touch 500 µs in
//! small pages and 67 µs with huge ones (a heap block that is used again: 53 µs), drop 55 µs and 7 µs, resident in both
//! cases what was asked for. Letting a huge page reach over the end too would nearly double a tile of this size. Filling
//! small pages in advance (`MAP_POPULATE`) halves their cost, and would touch a tile on the thread that makes it instead of
//! the one that fills it.

use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytemuck::Zeroable;
use memmap2::{MmapMut, MmapRaw};

/// From this size on in bytes, memory is mapped: below, the mapping would cost more than the work on a tile.
const MAP_MIN: usize = 128 << 10;

/// Bytes of a small page, nearly everywhere.
const PAGE: usize = 4096;

/// Bytes of a huge page on x86, and on Arm with small pages of 4 KiB. Elsewhere asking for them has no effect.
const HUGE: usize = 2 << 20;

/// At most so many maps at a time, then the heap. Each is up to three areas for the kernel, which allows a process 65530:
/// without any left, threads cannot start and unmapping fails.
const MAPS_MAX: usize = 1 << 14;

/// Maps that exist.
static MAPS: AtomicUsize = AtomicUsize::new(0);

/// As `Box<[T]>`, for plain numbers.
pub(crate) enum Buffer<T> {
    /// Small, or not mapped for some reason.
    Heap(Vec<T>),
    /// Large.
    Pages(Pages, usize),
}

impl<T> Buffer<T> {
    /// `len` zeros; none of them is touched yet if they are many. `None` if there is no memory for them.
    pub(crate) fn try_zeros(len: usize) -> Option<Buffer<T>>
    where
        T: Zeroable,
    {
        let bytes = len.checked_mul(size_of::<T>())?;
        let pages = if bytes < MAP_MIN { None } else { Pages::map(bytes) };
        match pages {
            Some(pages) => Some(Buffer::Pages(pages, len)),
            None => bytemuck::allocation::try_zeroed_vec(len).ok().map(Buffer::Heap),
        }
    }

    /// Bytes of memory that so many numbers will occupy. `None` if that does not fit a `usize`.
    pub(crate) fn bytes_for(len: usize) -> Option<usize> {
        let bytes = len.checked_mul(size_of::<T>())?;
        if bytes < MAP_MIN { Some(bytes) } else { bytes.checked_next_multiple_of(PAGE) }
    }

    /// Bytes of memory that the numbers occupy when all have been touched.
    #[cfg(feature = "store")]
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Buffer::Heap(numbers) => numbers.capacity() * size_of::<T>(),
            Buffer::Pages(_, len) => (len * size_of::<T>()).next_multiple_of(PAGE),
        }
    }

    /// The first number. No reference to a number is made.
    pub(crate) fn as_ptr(&self) -> *const T {
        match self {
            Buffer::Heap(numbers) => numbers.as_ptr(),
            Buffer::Pages(pages, _) => pages.start().cast(),
        }
    }

    /// The first number. No reference to a number is made.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        match self {
            Buffer::Heap(numbers) => numbers.as_mut_ptr(),
            Buffer::Pages(pages, _) => pages.start().cast(),
        }
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Buffer::Heap(numbers) => numbers,
            // SAFETY: `try_zeros` mapped `len` numbers of zeros, which are values of `T` (`Zeroable`), from a page on, and
            // `Pages` keeps them mapped; only `&mut self` writes them.
            Buffer::Pages(pages, len) => unsafe { slice::from_raw_parts(pages.start().cast(), *len) },
        }
    }
}

impl<T> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Buffer::Heap(numbers) => numbers,
            // SAFETY: as in `deref`; `&mut self` makes this the only reference (invariant 1).
            Buffer::Pages(pages, len) => unsafe { slice::from_raw_parts_mut(pages.start().cast(), *len) },
        }
    }
}

/// Mapped memory that nobody else has, and where in it the buffer starts.
pub(crate) struct Pages {
    map: MmapRaw,
    skip: usize,
}

impl Pages {
    /// At least `bytes` zeros, in huge pages as far as they fill some. `None` if the system declines.
    fn map(bytes: usize) -> Option<Pages> {
        if !one_more(&MAPS) {
            return None;
        }
        let spare = if cfg!(all(target_os = "linux", not(miri))) && bytes >= HUGE { HUGE } else { 0 };
        let map = bytes.checked_add(spare).and_then(|bytes| MmapMut::map_anon(bytes).ok());
        let Some(map) = map.map(MmapRaw::from) else {
            MAPS.fetch_sub(1, Relaxed);
            return None;
        };
        let skip = if spare > 0 { map.as_ptr().align_offset(HUGE).min(spare) } else { 0 };
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            use memmap2::Advice::{HugePage, NoHugePage};
            // Wishes: where the kernel knows no huge pages, small ones do. The first is for systems that give them unasked.
            let _ = map.advise(NoHugePage);
            if spare > 0 {
                let _ = map.advise_range(HugePage, skip, bytes / HUGE * HUGE);
            }
        }
        Some(Pages { map, skip })
    }

    fn start(&self) -> *mut u8 {
        self.map.as_mut_ptr().wrapping_add(self.skip)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // The map itself goes right after this: for a moment there is one more than counted.
        MAPS.fetch_sub(1, Relaxed);
    }
}

/// Counts a map, unless there are as many as there may be.
fn one_more(maps: &AtomicUsize) -> bool {
    // Relaxed: the number guards nothing.
    maps.fetch_update(Relaxed, Relaxed, |maps| (maps < MAPS_MAX).then_some(maps + 1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeros_of_the_length_asked_for_in_memory_of_its_own() {
        for len in [0, 1, 7, (MAP_MIN / 8) - 1, MAP_MIN / 8, 100_000, HUGE / 8, HUGE / 8 + 1, 700_000] {
            let mut buffer = Buffer::<u64>::try_zeros(len).unwrap();
            let mut other = Buffer::<u64>::try_zeros(len).unwrap();
            assert_eq!(matches!(buffer, Buffer::Pages(..)), 8 * len >= MAP_MIN, "{len}");
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&number| number == 0), "{len}");
            buffer.fill(1);
            other.fill(2);
            assert!(buffer.iter().all(|&number| number == 1), "{len}");
            let moved = Box::new(other);
            assert!(moved.iter().all(|&number| number == 2), "{len}");
            assert_eq!(
                (buffer.as_ptr(), buffer.as_ptr()),
                (buffer.as_mut_ptr().cast_const(), (*buffer).as_ptr())
            );
        }
    }

    #[test]
    fn more_than_there_can_be_is_none() {
        for len in [usize::MAX, usize::MAX / 8, usize::MAX / 16 + 1, isize::MAX as usize / 8] {
            assert!(Buffer::<u64>::try_zeros(len).is_none(), "{len}");
        }
    }

    #[test]
    fn there_is_a_last_map() {
        let maps = AtomicUsize::new(0);
        assert_eq!((0..2 * MAPS_MAX).filter(|_| one_more(&maps)).count(), MAPS_MAX);
        maps.fetch_sub(1, Relaxed);
        assert!(one_more(&maps) && !one_more(&maps));
    }
}
