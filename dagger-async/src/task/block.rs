//! The memory of task cells: threads keep the blocks that they free for the tasks that they make next, and hand them on.
//!
//! ```text
//!   get ◀── [ loaded | spare ]  a thread's chains of one size  ──▶ put
//!                 ▲      │ full chains
//!                 └ DEPOT ◀┘     so that what one thread frees another one uses
//!                 ▲    │ what is too much
//!               bundles of some, from the global allocator
//! ```
//! 1. Blocks come in sizes of 64 bytes up to [`LARGEST`], and lie on lines of their own: no two tasks share one. What is larger
//!    or wants a larger alignment goes to the global allocator each time.
//! 2. A thread keeps two chains of [`CHAIN`] blocks of a size at most, the depot [`CHAINS_MAX`]; the rest is given up, and a
//!    bundle whose blocks are all given up goes back to the allocator. So a burst of tasks leaves little behind: at most the
//!    bundles of what is kept and of what is in use, 7 to 21 blocks each.
//! 3. A kept block belongs to nobody else: no locked operation is needed for it, but one lock for each chain that
//!    changes hands.

use crate::sync::prefetch;
use parking_lot::Mutex;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicUsize, Ordering::AcqRel};

const STEP: usize = 64;
const LARGEST: usize = 512;
const SIZES: usize = LARGEST / STEP;
/// Blocks in a full chain.
const CHAIN: u32 = 128;
/// Full chains of a size in the depot: with those of the threads enough for the default window.
const CHAINS_MAX: usize = 32;
/// A cache line.
const ALIGN: usize = STEP;

/// The start of a bundle; its blocks follow on the lines behind.
struct Bundle {
    /// How many of its blocks have been given up.
    given_up: AtomicUsize,
}

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

    /// The blocks of a new bundle.
    #[cold]
    fn bundle(size: usize) -> Chain {
        let layout = of_bundle(size);
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        // SAFETY: ours, large enough and aligned.
        unsafe { start.cast().write(Bundle { given_up: AtomicUsize::new(0) }) };
        let chain = Chain::new();
        for index in (0..in_bundle(size)).rev() {
            // SAFETY: `in_bundle` blocks have room behind the first line, and are nobody's.
            unsafe { chain.push(start.add(STEP + index * bytes(size))) };
        }
        chain
    }

    /// Gives up its blocks, which are of this size.
    fn give_up(&self, size: usize) {
        while let Some(block) = self.pop() {
            let bundle = block.as_ptr().map_addr(|address| address & !(of_bundle(size).align() - 1));
            // SAFETY: the block came from a bundle (`get`), which is there until all of its blocks are given up.
            let given_up = unsafe { &(*bundle.cast::<Bundle>()).given_up };
            // AcqRel: the last one comes after what the others have done with theirs.
            if given_up.fetch_add(1, AcqRel) + 1 == in_bundle(size) {
                // SAFETY: it came from `alloc` with this layout, and nobody has any of its blocks.
                unsafe { dealloc(bundle, of_bundle(size)) };
            }
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
        let full = self.spare.take().or_else(|| DEPOT[size].lock().pop());
        self.loaded.replace(full.unwrap_or_else(|| Chain::bundle(size)));
        self.loaded.pop()
    }

    /// The loaded chain is full: begins another one.
    #[cold]
    fn unload(&self, size: usize) {
        let full = self.loaded.replace(Chain::new());
        let Some(before) = self.spare.replace(Some(full)) else { return };
        deposit(before, size);
    }
}

/// Leaves a chain to whoever needs one.
fn deposit(chain: Chain, size: usize) {
    let mut depot = DEPOT[size].lock();
    if depot.len() < CHAINS_MAX {
        depot.push(chain);
        return;
    }
    drop(depot);
    chain.give_up(size);
}

impl Drop for Lists {
    fn drop(&mut self) {
        for (size, list) in self.0.iter().enumerate() {
            list.loaded.give_up(size);
            if let Some(spare) = list.spare.take() {
                spare.give_up(size);
            }
        }
    }
}

/// Bytes of the largest bundle.
const PAGE: usize = 4096;

/// The bytes of a block of this size.
const fn bytes(size: usize) -> usize {
    (size + 1) * STEP
}

/// The layout of a bundle of blocks of this size: a power of two, to which it is aligned too, so that the address of a block says
/// which is its bundle.
const fn of_bundle(size: usize) -> Layout {
    let whole = (16 * bytes(size)).next_power_of_two();
    let len = if whole < PAGE { whole } else { PAGE };
    match Layout::from_size_align(len, len) {
        Ok(layout) => layout,
        Err(_) => panic!("a few lines are a layout"),
    }
}

/// How many blocks of this size there are in a bundle.
const fn in_bundle(size: usize) -> usize {
    (of_bundle(size).size() - STEP) / bytes(size)
}

const _: () = assert!(in_bundle(0) <= CHAIN as usize, "a bundle is a chain");

/// Which size a layout belongs to. With `--cfg dagger_unpooled` none: a sanitizer then sees what is used after it was given back.
#[inline]
pub(super) const fn size_of_layout(layout: Layout) -> Option<usize> {
    if cfg!(dagger_unpooled) || layout.align() > ALIGN || layout.size() > LARGEST {
        return None;
    }
    Some(layout.size().div_ceil(STEP).saturating_sub(1))
}

/// A block for this layout.
#[inline]
pub(super) fn get(layout: Layout) -> NonNull<u8> {
    if let Some(size) = size_of_layout(layout) {
        let kept = KEPT.try_with(|kept| {
            let list = &kept.0[size];
            let block = list.loaded.pop().or_else(|| list.load(size));
            // Another thread has used the next one last: what is behind its link comes from there meanwhile.
            let next = list.loaded.first.get().cast::<u8>();
            (1..=size).for_each(|line| prefetch(next.wrapping_add(STEP * line)));
            block
        });
        if let Ok(Some(block)) = kept {
            return block;
        }
        return get_at_the_end(size);
    }
    // SAFETY: no layout of a task cell has size zero: there is always a header.
    NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

/// A block for a thread that is being torn down, which keeps none.
#[cold]
fn get_at_the_end(size: usize) -> NonNull<u8> {
    let chain = DEPOT[size].lock().pop().unwrap_or_else(|| Chain::bundle(size));
    let block = chain.pop();
    if chain.len.get() != 0 {
        deposit(chain, size);
    }
    block.unwrap_or_else(|| handle_alloc_error(of_bundle(size))) // No chain in the depot is empty, and no bundle.
}

/// Gives a block back.
///
/// # Safety
/// It came from `get` with the same layout, and the caller gives it up.
#[inline]
pub(super) unsafe fn put(block: NonNull<u8>, layout: Layout) {
    // SAFETY: the caller's promise.
    unsafe { put_sized(block, layout, size_of_layout(layout)) };
}

/// As [`put`], where the size of the layout is known.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn put_sized(block: NonNull<u8>, layout: Layout, size: Option<usize>) {
    let Some(size) = size else {
        // SAFETY: the caller's promise.
        return unsafe { dealloc(block.as_ptr(), layout) };
    };
    let kept = KEPT.try_with(|kept| {
        let list = &kept.0[size];
        if list.loaded.len.get() == CHAIN {
            list.unload(size);
        }
        // SAFETY: the caller's promise; every size is at least that of a link.
        unsafe { list.loaded.push(block) };
    });
    if kept.is_err() {
        // The thread is being torn down, and keeps none.
        let chain = Chain::new();
        // SAFETY: as above.
        unsafe { chain.push(block) };
        chain.give_up(size);
    }
}

/// A box in such a block: for what comes and goes with a task.
pub(crate) struct Kept<T>(NonNull<T>);

// SAFETY: it owns the value, as a `Box` does.
unsafe impl<T: Send> Send for Kept<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Kept<T> {}

impl<T> Kept<T> {
    const LAYOUT: Layout = Layout::new::<T>();

    #[inline]
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
        DEPOT[size].lock().drain(..).for_each(|chain| chain.give_up(size));
    }

    #[test]
    fn blocks_share_no_line_and_a_bundle_holds_what_it_says() {
        for size in 0..SIZES {
            let chain = Chain::bundle(size);
            let blocks: Vec<NonNull<u8>> = std::iter::from_fn(|| chain.pop()).collect();
            let mut starts: Vec<usize> = blocks.iter().map(|block| block.as_ptr().addr()).collect();
            assert!(starts.is_sorted() && starts.len() == in_bundle(size));
            let bundle = of_bundle(size).size();
            let start = starts[0] & !(bundle - 1);
            assert!(starts[0] >= start + size_of::<Bundle>());
            starts.push(start + bundle);
            assert!(starts.windows(2).all(|pair| pair[0] % STEP == 0 && pair[1] - pair[0] >= bytes(size)));
            for block in blocks {
                // SAFETY: each was popped above; the last one ends the bundle.
                unsafe { chain.push(block) };
            }
            chain.give_up(size);
        }
    }

    #[test]
    fn a_thread_that_is_torn_down_still_gets_and_gives_blocks() {
        struct Late(Layout);
        impl Drop for Late {
            fn drop(&mut self) {
                let blocks: Vec<_> = (0..3).map(|_| get(self.0)).collect();
                assert!(blocks[0] != blocks[1] && blocks[1] != blocks[2]);
                // SAFETY: each is given back once, with its layout.
                blocks.into_iter().for_each(|block| unsafe { put(block, self.0) });
            }
        }
        thread_local!(static LATE: Late = const { Late(Layout::new::<[u64; 55]>()) });
        std::thread::spawn(|| {
            LATE.with(|_| {}); // Before the lists: it is dropped after them.
            // SAFETY: as above.
            unsafe { put(get(Layout::new::<[u64; 55]>()), Layout::new::<[u64; 55]>()) };
        })
        .join()
        .unwrap();
    }
}
