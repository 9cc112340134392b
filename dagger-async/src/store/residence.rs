//! What is known of the value of one chunk: whether it is in memory (`word.rs`), how large it is, how it moves, when it was used.
//!
//! A chunk comes to have a residence while nobody has a place in its queue: so for each place it is known whether it needs a pin.

use super::Store;
use super::files::Temporary;
use super::spill::SpillType;
use super::word::Word;
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

/// See the module.
pub(crate) struct Residence {
    pub(crate) word: Word,
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

impl Residence {
    pub(super) fn new(
        store: Arc<Store>,
        known: fn() -> &'static SpillType,
        chunk: Weak<dyn AnyChunk>,
        present: bool,
        bytes: u64,
    ) -> Self {
        Residence {
            word: Word::new(present),
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
