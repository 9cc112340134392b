//! The memory of task cells: a thread keeps some of the blocks that it frees for the tasks that it makes next.
//!
//! 1. Blocks come in sizes of 64 bytes up to [`LARGEST`]; what is larger or wants a larger alignment goes to the global
//!    allocator each time.
//! 2. A thread keeps [`KEPT_MAX`] blocks of a size at most and gives the rest back, so a burst of tasks leaves little behind.
//! 3. A kept block belongs to nobody else: no locked operation is needed for it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::{NonNull, null_mut};

const STEP: usize = 64;
const LARGEST: usize = 512;
const SIZES: usize = LARGEST / STEP;
/// Enough for a fan of a thousand tasks.
const KEPT_MAX: u32 = 1024;
/// What the global allocator gives without extra work.
const ALIGN: usize = 16;

thread_local!(static KEPT: Lists = const { Lists([const { List::new() }; SIZES]) });

struct Lists([List; SIZES]);

/// Blocks of one size, linked through their first word.
struct List {
    first: Cell<*mut Link>,
    len: Cell<u32>,
}

struct Link(*mut Link);

impl List {
    const fn new() -> Self {
        List { first: Cell::new(null_mut()), len: Cell::new(0) }
    }

    fn pop(&self) -> Option<NonNull<u8>> {
        let block = NonNull::new(self.first.get())?;
        // SAFETY: what is in the list was put there by `push`, which wrote the link, and is nobody else's.
        self.first.set(unsafe { block.read().0 });
        self.len.set(self.len.get() - 1);
        Some(block.cast())
    }

    /// False if there are enough.
    ///
    /// # Safety
    /// The caller gives up the block, which has at least the size and alignment of a `Link`.
    unsafe fn push(&self, block: NonNull<u8>) -> bool {
        if self.len.get() == KEPT_MAX {
            return false;
        }
        // SAFETY: the block is the caller's and large enough.
        unsafe { block.cast::<Link>().write(Link(self.first.get())) };
        self.first.set(block.as_ptr().cast());
        self.len.set(self.len.get() + 1);
        true
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        for (index, list) in self.0.iter().enumerate() {
            while let Some(block) = list.pop() {
                // SAFETY: it came from `alloc` with this layout (`get`).
                unsafe { dealloc(block.as_ptr(), of_size(index)) };
            }
        }
    }
}

/// The layout of blocks of this size.
fn of_size(index: usize) -> Layout {
    // Constants: a positive multiple of the alignment below `isize::MAX`.
    Layout::from_size_align((index + 1) * STEP, ALIGN).unwrap_or(Layout::new::<[u64; LARGEST]>())
}

/// Which size a layout belongs to.
#[inline]
fn size_of_layout(layout: Layout) -> Option<usize> {
    (layout.align() <= ALIGN && layout.size() <= LARGEST).then(|| layout.size().div_ceil(STEP).max(1) - 1)
}

/// A block for this layout.
#[inline]
pub(super) fn get(layout: Layout) -> NonNull<u8> {
    let size = size_of_layout(layout);
    if let Some(index) = size {
        // While the thread is torn down there is no list any more.
        if let Ok(Some(block)) = KEPT.try_with(|kept| kept.0[index].pop()) {
            return block;
        }
    }
    let layout = size.map_or(layout, of_size);
    // SAFETY: no layout of a task cell has size zero: there is always a header.
    NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Gives a block back.
///
/// # Safety
/// It came from `get` with the same layout, and the caller gives it up.
#[inline]
pub(super) unsafe fn put(block: NonNull<u8>, layout: Layout) {
    let size = size_of_layout(layout);
    if let Some(index) = size {
        // SAFETY: the caller's promise; every size is at least that of a link.
        let kept = KEPT.try_with(|kept| unsafe { kept.0[index].push(block) });
        if kept == Ok(true) {
            return;
        }
    }
    // SAFETY: the caller's promise.
    unsafe { dealloc(block.as_ptr(), size.map_or(layout, of_size)) };
}

/// A box in such a block: for what comes and goes with a task.
pub(crate) struct Kept<T>(NonNull<T>);

// SAFETY: it owns the value, as a `Box` does.
unsafe impl<T: Send> Send for Kept<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Kept<T> {}

impl<T> Kept<T> {
    const LAYOUT: Layout = Layout::new::<T>();

    pub(crate) fn new(value: T) -> Self {
        const { assert!(size_of::<T>() > 0, "a block has a size") };
        let block = get(Self::LAYOUT).cast::<T>();
        // SAFETY: the block has this layout and is ours.
        unsafe { block.write(value) };
        Kept(block)
    }
}

impl<T> std::ops::Deref for Kept<T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: ours, and written by `new`.
        unsafe { self.0.as_ref() }
    }
}

impl<T> std::ops::DerefMut for Kept<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        // SAFETY: ours; nobody refers to it any more. A panic of the value's drop only leaks the block.
        unsafe {
            self.0.drop_in_place();
            put(self.0.cast(), Self::LAYOUT);
        }
    }
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_freed_block_is_the_next_of_its_size_and_other_sizes_are_apart() {
        let (small, large) = (Layout::new::<[u64; 9]>(), Layout::new::<[u64; 40]>());
        let huge = Layout::new::<[u64; 100]>();
        let block = get(small);
        // SAFETY: each block is given back once, with its layout.
        unsafe {
            put(block, small);
            let other = get(large);
            assert_ne!(block, other);
            assert_eq!(get(Layout::new::<[u64; 16]>()), block);
            put(block, small);
            put(other, large);
            let far = get(huge);
            put(far, huge);
        }
    }

    #[test]
    fn a_kept_box_drops_its_value_and_gives_its_block_back() {
        let value = std::sync::Arc::new(());
        let kept = Kept::new((value.clone(), [0u64; 9]));
        let block = kept.0.cast::<u8>();
        assert_eq!((std::sync::Arc::strong_count(&value), kept.1[8]), (2, 0));
        drop(kept);
        assert_eq!(std::sync::Arc::strong_count(&value), 1);
        assert_eq!(get(Layout::new::<[u64; 10]>()), block);
        // SAFETY: as above.
        unsafe { put(block, Layout::new::<[u64; 10]>()) };
    }

    #[test]
    fn a_thread_keeps_a_bounded_number_and_frees_them_when_it_ends() {
        std::thread::spawn(|| {
            let layout = Layout::new::<[u64; 9]>();
            let blocks: Vec<_> = (0..3000).map(|_| get(layout)).collect();
            for block in blocks {
                // SAFETY: as above.
                unsafe { put(block, layout) };
            }
            assert_eq!(KEPT.with(|kept| kept.0[1].len.get()), KEPT_MAX);
        })
        .join()
        .unwrap();
    }
}
