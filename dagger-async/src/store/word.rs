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

use crate::sync::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

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

/// See the module.
pub(crate) struct Word(AtomicU64);

impl Word {
    pub(super) fn new(present: bool) -> Self {
        Word(AtomicU64::new(if present { DIRTY } else { ABSENT }))
    }

    /// Keeps the value where it is, if it is there.
    #[inline]
    pub(super) fn pin(&self, writes: bool) -> bool {
        let (refused, unit) =
            if writes { (ABSENT | MOVING | WRITING, WRITER) } else { (ABSENT | MOVING, READER) };
        // SeqCst: whoever looks for a value that can leave sees the pin, or we see that it has left.
        let pinned = self.0.fetch_update(SeqCst, SeqCst, |word| (word & refused == 0).then_some(word + unit));
        pinned.is_ok()
    }

    /// Gives a pin back; `wrote` if the value may have changed.
    #[inline]
    pub(super) fn unpin(&self, writes: bool, wrote: bool) {
        let unit = if writes { WRITER } else { READER };
        let dirty = if wrote { DIRTY } else { 0 };
        // Invariant 3: in one step.
        let _ = self.0.fetch_update(SeqCst, SeqCst, |word| Some((word - unit) | dirty));
    }

    pub(super) fn is_absent(&self) -> bool {
        self.0.load(SeqCst) & ABSENT != 0
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.0.load(SeqCst) & PINS != 0
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.0.load(SeqCst) & DIRTY != 0
    }

    /// It never leaves memory again.
    pub(super) fn stay(&self) {
        self.0.fetch_or(STAYS, SeqCst);
    }

    pub(super) fn leaving(&self) -> Leaving {
        match self.0.load(SeqCst) {
            word if word & (PINS | ABSENT | MOVING | WRITING | STAYS) != 0 => Leaving::Not,
            word if word & DIRTY != 0 => Leaving::Dirty,
            _ => Leaving::Clean,
        }
    }

    /// It is being written, and nobody needs it.
    pub(super) fn may_leave_when_written(&self) -> bool {
        self.0.load(SeqCst) & (PINS | ABSENT | MOVING | WRITING | STAYS) == WRITING
    }

    /// Takes a clean value out of reach. True: the caller drops it.
    pub(crate) fn leave(&self) -> bool {
        let left = self.0.fetch_update(SeqCst, SeqCst, |word| (word == 0).then_some(ABSENT));
        left.is_ok()
    }

    /// Begins to write it down. True: the caller may read it until `written`.
    pub(super) fn write(&self) -> bool {
        let refused = WRITERS | ABSENT | MOVING | WRITING | STAYS;
        let begun =
            self.0.fetch_update(SeqCst, SeqCst, |word| (word & refused == 0).then_some(word | WRITING));
        begun.is_ok()
    }

    /// It is written down, if all went well.
    pub(super) fn written(&self, ok: bool) {
        let over = if ok { WRITING | DIRTY } else { WRITING };
        self.0.fetch_and(!over, SeqCst);
    }

    /// Begins to bring it back. Under the lock of the ledger.
    pub(super) fn load(&self) {
        self.0.fetch_or(MOVING, SeqCst);
    }

    /// It is back, if all went well.
    pub(super) fn loaded(&self, ok: bool) {
        let over = if ok { MOVING | ABSENT } else { MOVING };
        self.0.fetch_and(!over, SeqCst);
    }
}

/// loom models: a ledger that writes down, takes away and brings back, beside those who access the value.
#[cfg(all(test, dagger_loom))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::thread;
    use std::sync::Arc;

    /// What is in the place of a value that has left.
    const GONE: u64 = u64::MAX;

    /// A value, and its copy elsewhere.
    struct Place {
        word: Word,
        value: UnsafeCell<u64>,
        copy: UnsafeCell<u64>,
    }
    // SAFETY: loom reports what races.
    unsafe impl Sync for Place {}
    // SAFETY: as above.
    unsafe impl Send for Place {}

    impl Place {
        fn new() -> Arc<Place> {
            Arc::new(Place { word: Word::new(true), value: UnsafeCell::new(1), copy: UnsafeCell::new(0) })
        }

        fn read(&self) -> u64 {
            // SAFETY: loom reports what races.
            self.value.with(|value| unsafe { *value })
        }

        fn set(&self, new: u64) {
            // SAFETY: as above.
            self.value.with_mut(|value| unsafe { *value = new });
        }

        /// One look of the ledger.
        fn look(&self, ok: bool) {
            match self.word.leaving() {
                Leaving::Dirty if self.word.write() => {
                    if ok {
                        // SAFETY: as above.
                        self.copy.with_mut(|copy| unsafe { *copy = self.read() });
                    }
                    self.word.written(ok);
                }
                Leaving::Clean if self.word.leave() => self.set(GONE),
                _ if self.word.is_absent() => {
                    self.word.load();
                    // SAFETY: as above.
                    self.set(self.copy.with(|copy| unsafe { *copy }));
                    self.word.loaded(true);
                }
                _ => {}
            }
        }

        /// The value at last, wherever it is.
        fn end(&self) -> u64 {
            if self.word.is_absent() {
                self.look(true);
            }
            assert!(!self.word.is_pinned() && !self.word.is_absent());
            let value = self.read();
            if !self.word.is_dirty() {
                // SAFETY: as above.
                assert_eq!(self.copy.with(|copy| unsafe { *copy }), value);
            }
            value
        }
    }

    #[test]
    fn loom_what_is_written_is_not_lost() {
        for ok in [true, false] {
            loom::model(move || {
                let place = Place::new();
                let writer = {
                    let place = place.clone();
                    thread::spawn(move || {
                        let mut writes = 0;
                        for _ in 0..2 {
                            if place.word.pin(true) {
                                place.set(place.read() + 1);
                                place.word.unpin(true, true);
                                writes += 1;
                            }
                        }
                        writes
                    })
                };
                for _ in 0..3 {
                    place.look(ok);
                }
                let writes = writer.join().unwrap();
                assert_eq!(place.end(), 1 + writes);
            });
        }
    }

    #[test]
    fn loom_what_is_read_stays_until_it_is_read() {
        loom::model(|| {
            let place = Place::new();
            place.look(true); // Clean from the start.
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let place = place.clone();
                    thread::spawn(move || {
                        if place.word.pin(false) {
                            assert_eq!(place.read(), 1);
                            place.word.unpin(false, false);
                        }
                    })
                })
                .collect();
            for _ in 0..2 {
                place.look(true);
            }
            readers.into_iter().for_each(|reader| reader.join().unwrap());
            assert_eq!(place.end(), 1);
        });
    }
}
