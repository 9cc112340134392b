//! Whether the value of a chunk is in memory, and who needs it there: one word, which every access passes.
//!
//! ```text
//!             evict (nobody has a pin)            reload
//!   present ──────────────────────────▶ absent ──────────▶ moving ──▶ present, with the pins of those who waited
//!      │ ▲
//!      ▼ │  written down while readers may go on, writers not
//!    writing
//! ```
//! 1. Who accesses the value has a pin, from before its first look until after its last; only what is present is pinned.
//! 2. A value leaves memory only without pins, and is written down only without pins of writers.
//! 3. `DIRTY` is set before the pin of the writer is given back: what is not dirty equals its copy.
//! 4. A chunk comes to have a residence while nobody has a place in its queue: so for each place it is known whether it
//!    needs a pin.

use super::Store;
use super::files::Temporary;
use super::spill::SpillType;
use crate::chunk::AnyChunk;
use parking_lot::Mutex;
use std::any::Any;
use std::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, OnceLock, Weak};

/// Nothing counts as more, so that sums stay sums.
pub(super) const HUGE: u64 = 1 << 48;

const READER: u64 = 1;
const WRITER: u64 = 1 << 20;
const PINS: u64 = (1 << 40) - 1;
const WRITERS: u64 = PINS & !(WRITER - 1);
/// There is no value in memory.
const ABSENT: u64 = 1 << 40;
/// It is on its way: nobody else may touch its place.
const MOVING: u64 = 1 << 41;
/// It is being written down.
const WRITING: u64 = 1 << 42;
/// No copy elsewhere equals it.
const DIRTY: u64 = 1 << 43;
/// It stays in memory from now on.
const STAYS: u64 = 1 << 44;

/// See the module.
pub(crate) struct Residence {
    word: AtomicU64,
    /// Bytes that leave memory with it; of an absent one those that will come.
    bytes: AtomicU64,
    /// What the user says of a value of an unknown type.
    declared: u64,
    /// The id of the last task that had a pin: later tasks have larger ones.
    used: AtomicU64,
    pins: AtomicU64,
    /// What is known of the type, and how to look it up: it may become known later.
    of: AtomicPtr<SpillType>,
    known: fn() -> &'static SpillType,
    pub(super) chunk: Weak<dyn AnyChunk>,
    pub(super) store: Arc<Store>,
    /// Its entry in the ledger.
    pub(super) key: OnceLock<usize>,
    /// What is removed when the chunk is dropped.
    file: OnceLock<Temporary>,
    /// Stores of other runtimes whose tasks need it.
    listeners: Mutex<Vec<Weak<Store>>>,
}

/// What a value that nobody needs can be asked to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Leaving {
    /// It has an equal copy: it can go.
    Clean,
    /// It has to be written first.
    Dirty,
    /// Somebody needs it, or it is on its way, or gone.
    Not,
}

impl Residence {
    pub(super) fn new(
        store: Arc<Store>,
        known: fn() -> &'static SpillType,
        chunk: Weak<dyn AnyChunk>,
        present: bool,
        bytes: u64,
    ) -> Self {
        let word = if present { DIRTY } else { ABSENT };
        Residence {
            word: AtomicU64::new(word),
            bytes: AtomicU64::new(bytes),
            declared: bytes,
            used: AtomicU64::new(0),
            pins: AtomicU64::new(0),
            of: AtomicPtr::new(std::ptr::from_ref(known()).cast_mut()),
            known,
            chunk,
            store,
            key: OnceLock::new(),
            file: OnceLock::new(),
            listeners: Mutex::new(Vec::new()),
        }
    }

    /// A file is removed with the chunk.
    pub(super) fn goes_with(&self, file: Temporary) {
        let _ = self.file.set(file); // A chunk is made of one file.
    }

    /// What is known of the type.
    pub(super) fn of(&self) -> &'static SpillType {
        // SAFETY: only what `known` gives is stored, which lives for ever and is never written.
        let of = unsafe { &*self.of.load(Relaxed) };
        if !of.is_unknown {
            return of;
        }
        let of = (self.known)();
        self.of.store(std::ptr::from_ref(of).cast_mut(), Relaxed);
        of
    }

    /// Tells another store whenever something has happened here.
    pub(super) fn tell(&self, store: &Arc<Store>) {
        let mut listeners = self.listeners.lock();
        if !listeners.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(store))) {
            listeners.push(Arc::downgrade(store));
        }
    }

    pub(super) fn listeners(&self) -> Vec<Arc<Store>> {
        self.listeners.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Keeps the value where it is, if it is there.
    #[inline]
    pub(super) fn pin(&self, writes: bool) -> bool {
        let (refused, unit) =
            if writes { (ABSENT | MOVING | WRITING, WRITER) } else { (ABSENT | MOVING, READER) };
        // SeqCst: whoever looks for a value that can leave sees the pin, or we see that it has left.
        let pinned =
            self.word.fetch_update(SeqCst, SeqCst, |word| (word & refused == 0).then_some(word + unit));
        pinned.is_ok()
    }

    /// Gives a pin back; `wrote` if the value may have changed.
    #[inline]
    pub(super) fn unpin(&self, writes: bool, wrote: bool) {
        let unit = if writes { WRITER } else { READER };
        let dirty = if wrote { DIRTY } else { 0 };
        // Invariant 3: in one step.
        let _ = self.word.fetch_update(SeqCst, SeqCst, |word| Some((word - unit) | dirty));
    }

    /// Notes a use by a task with this id.
    #[inline]
    pub(super) fn note_use(&self, id: u64) {
        self.used.store(id, Relaxed);
        self.pins.fetch_add(1, Relaxed);
    }

    pub(super) fn last_use(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// How often it was found in memory.
    pub(super) fn hits(&self) -> u64 {
        self.pins.load(Relaxed)
    }

    pub(super) fn is_absent(&self) -> bool {
        self.word.load(SeqCst) & ABSENT != 0
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.word.load(SeqCst) & PINS != 0
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.word.load(SeqCst) & DIRTY != 0
    }

    /// It never leaves memory again.
    pub(super) fn stay(&self) {
        self.word.fetch_or(STAYS, SeqCst);
    }

    pub(super) fn leaving(&self) -> Leaving {
        match self.word.load(SeqCst) {
            word if word & (PINS | ABSENT | MOVING | WRITING | STAYS) != 0 => Leaving::Not,
            word if word & DIRTY != 0 => Leaving::Dirty,
            _ => Leaving::Clean,
        }
    }

    /// Takes a clean value out of reach. True: the caller drops it.
    pub(crate) fn leave(&self) -> bool {
        let left = self.word.fetch_update(SeqCst, SeqCst, |word| (word == 0).then_some(ABSENT));
        left.is_ok()
    }

    /// Begins to write it down. True: the caller may read it until `written`.
    pub(super) fn write(&self) -> bool {
        let refused = WRITERS | ABSENT | MOVING | WRITING | STAYS;
        let begun =
            self.word.fetch_update(SeqCst, SeqCst, |word| (word & refused == 0).then_some(word | WRITING));
        begun.is_ok()
    }

    /// It is written down, if all went well.
    pub(super) fn written(&self, ok: bool) {
        let over = if ok { WRITING | DIRTY } else { WRITING };
        self.word.fetch_and(!over, SeqCst);
    }

    /// Begins to bring it back. Under the lock of the ledger.
    pub(super) fn load(&self) {
        self.word.fetch_or(MOVING, SeqCst);
    }

    /// It is back, if all went well.
    pub(super) fn loaded(&self, ok: bool) {
        let over = if ok { MOVING | ABSENT } else { MOVING };
        self.word.fetch_and(!over, SeqCst);
    }

    /// Moves a value out of its place.
    ///
    /// # Safety
    /// It is of the type of this residence, the caller's, and used there no more.
    pub(crate) unsafe fn take(&self, value: *mut u8) -> Box<dyn Any + Send> {
        // SAFETY: the caller's promise.
        unsafe { (self.of().take)(value) }
    }

    /// The bytes of a value.
    ///
    /// # Safety
    /// It is of the type of this residence, and nobody writes it meanwhile.
    pub(crate) unsafe fn measure(&self, value: *const u8) -> u64 {
        let of = self.of();
        if of.is_unknown && self.declared != 0 {
            return self.declared;
        }
        // A user's code, perhaps under a lock: a panic must not get past it.
        // SAFETY: the caller's promise.
        let bytes = std::panic::catch_unwind(|| unsafe { (of.bytes)(value) });
        bytes.map_or(0, |bytes| (bytes as u64).min(HUGE))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Sets the size of a value that is the caller's alone, and counts it in its store.
    pub(crate) fn count(&self, bytes: u64) {
        let before = self.set_bytes(bytes);
        match bytes.checked_sub(before) {
            Some(more) => self.store.add_resident(more),
            None => _ = self.store.resident.fetch_sub(before - bytes, SeqCst),
        }
    }

    /// Sets its size; gives the one before.
    pub(crate) fn set_bytes(&self, bytes: u64) -> u64 {
        self.bytes.swap(bytes, Relaxed)
    }
}
