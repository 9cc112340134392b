//! The memory of task cells: threads keep the blocks that they free for the tasks that they make next, and hand them on.
//!
//! ```text
//!   get ◀── [ loaded | spare ]  a thread's chains of one size  ──▶ put
//!                 ▲      │ full chains
//!                 └ DEPOT ◀┘     so that what one thread frees another one uses
//! ```
//! 1. Blocks come in sizes of 64 bytes up to [`LARGEST`]; what is larger or wants a larger alignment goes to the global
//!    allocator each time.
//! 2. A thread keeps two chains of [`CHAIN`] blocks of a size at most, the depot [`CHAINS_MAX`]; the rest goes back to the
//!    allocator, so a burst of tasks leaves little behind.
//! 3. A kept block belongs to nobody else: no locked operation is needed for it, but one lock for each chain that
//!    changes hands.

use parking_lot::Mutex;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::ptr::{NonNull, null_mut};

const STEP: usize = 64;
const LARGEST: usize = 512;
const SIZES: usize = LARGEST / STEP;
/// Blocks in a full chain.
const CHAIN: u32 = 128;
/// Full chains of a size in the depot: with those of the threads enough for the default window.
const CHAINS_MAX: usize = 32;
/// What the global allocator gives without extra work.
const ALIGN: usize = 16;

thread_local!(static KEPT: Lists = const { Lists([const { List::new() }; SIZES]) });

/// Full chains, for whoever has none.
static DEPOT: [Mutex<Vec<Chain>>; SIZES] = [const { Mutex::new(Vec::new()) }; SIZES];

struct Lists([List; SIZES]);

/// What a thread keeps of one size.
struct List {
    loaded: Chain,
    /// Full, or none.
    spare: RefCell<Option<Chain>>,
}

/// Blocks of one size, linked through their first word.
struct Chain {
    first: Cell<*mut Link>,
    len: Cell<u32>,
}

struct Link(*mut Link);

// SAFETY: the blocks are the chain's own, and nobody's thread has to do with them.
unsafe impl Send for Chain {}

impl Chain {
    const fn new() -> Self {
        Chain { first: Cell::new(null_mut()), len: Cell::new(0) }
    }

    #[inline]
    fn pop(&self) -> Option<NonNull<u8>> {
        let block = NonNull::new(self.first.get())?;
        // SAFETY: what is in the chain was put there by `push`, which wrote the link, and is nobody else's.
        self.first.set(unsafe { block.read().0 });
        self.len.set(self.len.get() - 1);
        Some(block.cast())
    }

    /// # Safety
    /// The caller gives up the block, which has at least the size and alignment of a `Link`.
    #[inline]
    unsafe fn push(&self, block: NonNull<u8>) {
        // SAFETY: the block is the caller's and large enough.
        unsafe { block.cast::<Link>().write(Link(self.first.get())) };
        self.first.set(block.as_ptr().cast());
        self.len.set(self.len.get() + 1);
    }

    fn replace(&self, other: Chain) -> Chain {
        Chain {
            first: Cell::new(self.first.replace(other.first.get())),
            len: Cell::new(self.len.replace(other.len.get())),
        }
    }

    /// Gives its blocks, which are of this size, back to the allocator.
    fn free(&self, size: usize) {
        while let Some(block) = self.pop() {
            // SAFETY: it came from `alloc` with this layout (`get`).
            unsafe { dealloc(block.as_ptr(), of_size(size)) };
        }
    }
}

impl List {
    const fn new() -> Self {
        List { loaded: Chain::new(), spare: RefCell::new(None) }
    }

    /// The loaded chain is empty: loads another one.
    #[cold]
    fn load(&self, size: usize) -> Option<NonNull<u8>> {
        let full = self.spare.take().or_else(|| DEPOT[size].lock().pop())?;
        self.loaded.replace(full);
        self.loaded.pop()
    }

    /// The loaded chain is full: begins another one.
    #[cold]
    fn unload(&self, size: usize) {
        let full = self.loaded.replace(Chain::new());
        let Some(before) = self.spare.replace(Some(full)) else { return };
        let mut depot = DEPOT[size].lock();
        if depot.len() < CHAINS_MAX {
            depot.push(before);
            return;
        }
        drop(depot);
        before.free(size);
    }
}

impl Drop for Lists {
    fn drop(&mut self) {
        for (size, list) in self.0.iter().enumerate() {
            list.loaded.free(size);
            if let Some(spare) = list.spare.take() {
                spare.free(size);
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
        let kept = KEPT.try_with(|kept| {
            let list = &kept.0[index];
            list.loaded.pop().or_else(|| list.load(index))
        });
        if let Ok(Some(block)) = kept {
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
        let kept = KEPT.try_with(|kept| {
            let list = &kept.0[index];
            if list.loaded.len.get() == CHAIN {
                list.unload(index);
            }
            // SAFETY: the caller's promise; every size is at least that of a link.
            unsafe { list.loaded.push(block) };
        });
        if kept.is_ok() {
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
    fn what_one_thread_frees_another_uses_and_both_keep_a_bounded_number() {
        // A size that no task of these tests has.
        let layout = Layout::new::<[u64; 63]>();
        let size = size_of_layout(layout).unwrap();
        let blocks = 40 * CHAIN as usize;
        let freed: Vec<usize> = std::thread::spawn(move || {
            let blocks: Vec<_> = (0..blocks).map(|_| get(layout)).collect();
            for &block in &blocks {
                // SAFETY: as above.
                unsafe { put(block, layout) };
            }
            KEPT.with(|kept| {
                assert!(kept.0[size].loaded.len.get() <= CHAIN);
                assert_eq!(kept.0[size].spare.borrow().as_ref().map(|spare| spare.len.get()), Some(CHAIN));
            });
            blocks.into_iter().map(|block| block.as_ptr().addr()).collect()
        })
        .join()
        .unwrap();
        assert_eq!(DEPOT[size].lock().len(), CHAINS_MAX);
        let block = get(layout);
        assert!(freed.contains(&block.as_ptr().addr()));
        assert_eq!(DEPOT[size].lock().len(), CHAINS_MAX - 1);
        // SAFETY: as above.
        unsafe { put(block, layout) };
        DEPOT[size].lock().drain(..).for_each(|chain| chain.free(size));
    }
}
