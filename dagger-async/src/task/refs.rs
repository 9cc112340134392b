//! The two counts of a task in one word: who may use its value, and who needs its memory.
//!
//! ```text
//!   63            32 31    30            0
//!  [    holders     | sole |   claims     ]
//! ```
//! * A *claim* is a use of the value: a handle, an argument, a [`Shared`](crate::Shared).
//! * A *holder* keeps the memory only: the scheduler until the task is retired, a waker, a stale queue entry.
//!
//! 1. A claim is made from a claim, so claims never rise from zero.
//! 2. The value is dropped by whoever brings the claims to zero, or by the completion that finds them there. A last claim that is
//!    given up before the task is done is only marked (`State::abandon`), and goes with the scheduler's holder: one locked
//!    operation less for each task whose handle is dropped at once.
//! 3. The memory is freed by whoever brings the whole word to zero.
//! 4. `sole` says that the owner of one claim waits until it is the only one; the release that leaves one wakes it.

use crate::sync::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

const CLAIM: u64 = 1;
const CLAIMS: u64 = (1 << 31) - 1;
const SOLE: u64 = 1 << 31;
const HOLDER: u64 = 1 << 32;

/// The word.
pub(crate) struct Refs(AtomicU64);

/// What giving up a claim that is not the last asks for.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Released {
    /// Others have claims.
    Shared,
    /// One claim is left and its owner waits for that: wake it. The caller is a holder now, since that owner may
    /// be gone at any time.
    Sole,
    /// This is the last claim and it is *not* released yet: see [`State::abandon`](super::state::State::abandon) and, of a task that
    /// is done, [`Refs::release_last`].
    Last,
}

impl Refs {
    /// One claim (the handle) and one holder (the scheduler).
    #[inline]
    pub(crate) fn new() -> Self {
        Refs(AtomicU64::new(HOLDER + CLAIM))
    }

    #[inline]
    pub(crate) fn add_claim(&self) {
        // Relaxed, as in `Arc`: a new reference is made from one that is there.
        let before = self.0.fetch_add(CLAIM, Relaxed);
        if before & CLAIMS >= CLAIMS / 2 {
            std::process::abort(); // 10⁹ leaked handles: the count must not wrap.
        }
    }

    #[inline]
    pub(crate) fn add_holder(&self) {
        let before = self.0.fetch_add(HOLDER, Relaxed);
        if before >= 1 << 63 {
            std::process::abort();
        }
    }

    /// The one who has just given up the last holder takes it back.
    #[inline]
    pub(crate) fn hold_again(&self) {
        self.0.store(HOLDER, Relaxed);
    }

    /// As `add_holder`, while nobody else knows the task.
    #[inline]
    pub(crate) fn add_holder_unshared(&self) {
        self.0.store(self.0.load(Relaxed) + HOLDER, Relaxed);
    }

    /// How many may use the value.
    #[inline]
    pub(crate) fn claims(&self) -> u64 {
        // Acquire: pairs with the AcqRel of each release, so that "only ours is left" means that the uses of
        // the others are over.
        self.0.load(Acquire) & CLAIMS
    }

    /// Gives up a claim unless it is the last one.
    #[inline]
    pub(crate) fn release_claim(&self) -> Released {
        let mut word = self.0.load(Acquire);
        loop {
            let claims = word & CLAIMS;
            if claims == 1 {
                return Released::Last; // Stable: nobody else has a claim to make another from.
            }
            // AcqRel: our use of the value happens before the last one's drop of it.
            let sole = claims == 2 && word & SOLE != 0;
            let after = if sole { word - CLAIM + HOLDER } else { word - CLAIM };
            match self.0.compare_exchange_weak(word, after, AcqRel, Acquire) {
                Ok(_) if sole => return Released::Sole,
                Ok(_) => return Released::Shared,
                Err(now) => word = now,
            }
        }
    }

    /// Gives up the last claim, of a task that is done. The caller becomes a holder instead.
    #[inline]
    pub(crate) fn release_last(&self) {
        let before = self.0.fetch_add(HOLDER - CLAIM, AcqRel);
        debug_assert_eq!(before & CLAIMS, 1);
    }

    /// Gives up the last claim of a task that is done and has no value left. True: nothing refers to the task any more
    /// and the caller frees it.
    #[must_use]
    pub(crate) fn release_last_of_done(&self) -> bool {
        // As in `release_holder`.
        if self.0.load(Acquire) & !SOLE == CLAIM {
            return true;
        }
        (self.0.fetch_sub(CLAIM, AcqRel) & !SOLE) == CLAIM
    }

    /// Asks to be woken when only the caller's claim is left. False: that is so already.
    pub(crate) fn want_sole(&self) -> bool {
        self.0.fetch_or(SOLE, AcqRel) & CLAIMS > 1
    }

    /// Gives up a holder. True: nothing refers to the task any more and the caller frees it.
    #[must_use]
    #[inline]
    pub(crate) fn release_holder(&self) -> bool {
        self.release(HOLDER)
    }

    /// The scheduler gives up its holder, and the last claim with it if that was abandoned. True: as above.
    #[must_use]
    #[inline]
    pub(crate) fn release_scheduler(&self, abandoned: bool) -> bool {
        self.release(if abandoned { HOLDER + CLAIM } else { HOLDER })
    }

    #[inline]
    fn release(&self, ours: u64) -> bool {
        // Acquire: pairs with the releases of all others. When the word says that only we are left, no
        // locked operation is needed: nobody is there to change it.
        if self.0.load(Acquire) & !SOLE == ours {
            return true;
        }
        (self.0.fetch_sub(ours, AcqRel) & !SOLE) == ours
    }
}
