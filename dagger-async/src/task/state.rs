//! The state word of a task: a lock, a phase and some flags in 32 bits.
//!
//! ```text
//!            inputs there          popped            returned
//!  Waiting ───────────────▶ Queued ──────▶ Running ───────────▶ Retired
//!     │                       ▲   wake       │ ▲                   ▲
//!     │ ended early           └── Suspended ◀┘ └ NOTIFIED: again   │
//!     └────────────────────────────────────────────────────────────┘
//! ```
//! 1. Every change happens under the lock bit, or while nobody else knows the task, or (`abandon`) in one step that succeeds only while
//!    the lock is free; reading needs no lock.
//! 2. `DONE` is set once: whoever sets it decides the outcome, everybody later is refused.
//! 3. A phase says where the *body* is, `DONE` what the *handles* see; a cancelled task is `DONE` while its
//!    body still runs, and `GONE` when it is over. Values and failures pass at `DONE`, mere order at `GONE`.
//! 4. The transitions are functions of the bits alone; each returns what its caller now owes.
//! 5. The runtime's memory outlives every task that is not retired (`pool/mod.rs`, invariant 1).

use crate::sync::AtomicU32;
#[cfg(not(dagger_loom))]
use crate::sync::relax;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const LOCK: u32 = 1;
const PHASE: u32 = 0b111 << 1;
const NOTIFIED: u32 = 1 << 4;
const DONE: u32 = 1 << 5;
const VALUE: u32 = 1 << 6;
const OBSERVED: u32 = 1 << 7;
const STARTED: u32 = 1 << 8;
const AWAITED: u32 = 1 << 9;
const GONE: u32 = 1 << 10;
const UNWANTED: u32 = 1 << 11;
#[cfg(feature = "store")]
const SAVED: u32 = 1 << 12;
const UNNEEDED: u32 = 1 << 13;
const ABANDONED: u32 = 1 << 14;

/// Where the body of a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Phase {
    /// Inputs are missing, or a `bulk` block holds it back.
    Waiting = 0,
    /// In a queue.
    Queued = 1 << 1,
    /// Its body is being polled.
    Running = 2 << 1,
    /// Its async body waits for a wake.
    Suspended = 3 << 1,
    /// The body is gone, or (ended early while waiting) will be dropped by whoever brings its last input.
    Retired = 4 << 1,
}

/// A snapshot of the word, or under the lock the word itself.
#[derive(Clone, Copy)]
pub(crate) struct Bits(u32);

/// What taking a task out of a queue asks for.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Poll the body; `first` on its first poll.
    Run { first: bool },
    /// It was ended while it sat in the queue: drop the body and retire it.
    Discard,
    /// The entry is left over from a run in place: drop one holder.
    Stale,
}

/// What a body that returned `Pending` asks for.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Suspend {
    /// Nothing: a wake will come.
    Wait,
    /// It was woken while it ran: queue it again.
    Again,
    /// It was ended while it ran: drop the body and retire it.
    Discard,
}

/// What the last input of a task asks for.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Queue it.
    Push,
    /// It was ended while it waited (and is retired): drop the body and the scheduler's holder.
    Discard,
}

/// What ending a task before its body did asks for (cancel, timeout, failed input, shutdown).
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was done already.
    Late,
    /// The body waited for inputs: it is retired now, its last input drops it.
    Retire,
    /// The body is suspended: queue it, a worker drops it.
    Push,
    /// The body is queued or runs: whoever has it will see.
    Leave,
}

impl Bits {
    #[inline]
    pub(crate) fn phase(self) -> Phase {
        match self.0 & PHASE {
            0 => Phase::Waiting,
            0b0010 => Phase::Queued,
            0b0100 => Phase::Running,
            0b0110 => Phase::Suspended,
            _ => Phase::Retired,
        }
    }
    #[inline]
    fn set_phase(&mut self, phase: Phase) {
        self.0 = self.0 & !PHASE | phase as u32;
    }
    #[inline]
    fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }
    /// The handles see an outcome.
    #[inline]
    pub(crate) fn is_done(self) -> bool {
        self.has(DONE)
    }
    /// The outcome is a value and it is still there.
    #[inline]
    pub(crate) fn has_value(self) -> bool {
        self.has(VALUE)
    }
    /// Somebody took notice of the failure.
    #[inline]
    pub(crate) fn is_observed(self) -> bool {
        self.has(OBSERVED)
    }
    #[inline]
    pub(crate) fn set_observed(&mut self) {
        self.0 |= OBSERVED;
    }
    /// Its body was polled at least once.
    #[inline]
    pub(crate) fn is_started(self) -> bool {
        self.has(STARTED)
    }
    /// To be cancelled unless it has called the user's code.
    #[inline]
    pub(crate) fn is_unwanted(self) -> bool {
        self.has(UNWANTED)
    }
    pub(crate) fn set_unwanted(&mut self) {
        self.0 |= UNWANTED;
    }
    /// One of its claims is that of the task that writes its value down.
    #[cfg(feature = "store")]
    pub(crate) fn is_saved(self) -> bool {
        self.has(SAVED)
    }
    #[cfg(feature = "store")]
    pub(crate) fn set_saved(&mut self) {
        self.0 |= SAVED;
    }
    /// It was ended because what it fed has its value already: nobody's failure.
    pub(crate) fn is_unneeded(self) -> bool {
        self.has(UNNEEDED)
    }
    #[cfg(feature = "store")]
    pub(crate) fn set_unneeded(&mut self) {
        self.0 |= UNNEEDED;
    }
    /// Its last claim was given up before it was done: that one is still counted, and goes with the scheduler's holder.
    #[inline]
    pub(crate) fn is_abandoned(self) -> bool {
        self.has(ABANDONED)
    }
    #[inline]
    pub(crate) fn abandon(&mut self) {
        self.0 |= ABANDONED;
    }
    /// Its body is gone, and with it all that came before it in order.
    #[inline]
    pub(crate) fn is_gone(self) -> bool {
        self.has(GONE)
    }
    /// Some task has waited for it inside its body.
    #[inline]
    pub(crate) fn is_awaited_by_task(self) -> bool {
        self.has(AWAITED)
    }
    #[inline]
    pub(crate) fn set_awaited_by_task(&mut self) {
        self.0 |= AWAITED;
    }
    /// It is queued, has never run, and has not been ended.
    #[inline]
    pub(crate) fn can_start_first(self) -> bool {
        self.phase() == Phase::Queued && !self.has(STARTED | DONE)
    }
    /// It is in a queue for the first time, ended or not: the one who has its entry has its body.
    #[cfg(feature = "store")]
    pub(crate) fn waits_to_start(self) -> bool {
        self.phase() == Phase::Queued && !self.has(STARTED)
    }
    /// It was woken while it ran.
    pub(crate) fn is_notified(self) -> bool {
        self.has(NOTIFIED)
    }
    /// The value left (or is about to be dropped).
    #[inline]
    pub(crate) fn clear_value(&mut self) {
        self.0 &= !VALUE;
    }

    #[inline]
    pub(crate) fn ready(&mut self) -> Ready {
        if self.is_done() {
            self.0 |= GONE;
            Ready::Discard
        } else {
            debug_assert_eq!(self.phase(), Phase::Waiting);
            self.set_phase(Phase::Queued);
            Ready::Push
        }
    }

    #[inline]
    pub(crate) fn start(&mut self) -> Start {
        if self.phase() != Phase::Queued {
            return Start::Stale;
        }
        self.set_phase(Phase::Running);
        if self.is_done() {
            return Start::Discard;
        }
        let first = !self.has(STARTED);
        self.0 |= STARTED;
        Start::Run { first }
    }

    /// Takes a task that is queued and was never started out of turn. Its queue entry becomes stale.
    pub(crate) fn claim(&mut self) -> bool {
        let free = self.can_start_first();
        if free {
            self.set_phase(Phase::Running);
            self.0 |= STARTED;
        }
        free
    }

    #[inline]
    pub(crate) fn suspend(&mut self) -> Suspend {
        debug_assert_eq!(self.phase(), Phase::Running);
        if self.is_done() {
            Suspend::Discard
        } else if self.has(NOTIFIED) {
            self.0 &= !NOTIFIED;
            self.set_phase(Phase::Queued);
            Suspend::Again
        } else {
            self.set_phase(Phase::Suspended);
            Suspend::Wait
        }
    }

    /// True: the caller queues it.
    #[must_use]
    #[inline]
    pub(crate) fn wake(&mut self) -> bool {
        match self.phase() {
            Phase::Suspended => {
                self.set_phase(Phase::Queued);
                true
            }
            Phase::Running => {
                self.0 |= NOTIFIED;
                false
            }
            _ => false,
        }
    }

    /// The body returned (or was dropped). True: its outcome counts; false: another outcome came before.
    #[must_use]
    #[inline]
    pub(crate) fn finish(&mut self, value: bool) -> bool {
        self.set_phase(Phase::Retired);
        self.0 |= GONE;
        let counts = !self.is_done();
        if counts {
            self.0 |= DONE | if value { VALUE } else { 0 };
        }
        counts
    }

    pub(crate) fn end(&mut self) -> End {
        if self.is_done() {
            return End::Late;
        }
        self.0 |= DONE;
        match self.phase() {
            Phase::Waiting => {
                self.set_phase(Phase::Retired);
                End::Retire
            }
            Phase::Suspended => {
                self.set_phase(Phase::Queued);
                End::Push
            }
            Phase::Queued | Phase::Running | Phase::Retired => End::Leave,
        }
    }
}

/// The word.
pub(crate) struct State {
    word: AtomicU32,
    /// loom cannot follow a spinning lock: in its models a mutex stands for the lock bit.
    #[cfg(dagger_loom)]
    mutex: crate::sync::Mutex<()>,
}

impl State {
    /// A task whose inputs are not there yet.
    #[inline]
    pub(crate) fn waiting() -> Self {
        State {
            word: AtomicU32::new(Phase::Waiting as u32),
            #[cfg(dagger_loom)]
            mutex: crate::sync::Mutex::new(()),
        }
    }

    /// Makes a waiting task that nobody else knows yet queued, without the lock.
    #[inline]
    pub(crate) fn queue_unshared(&self) {
        let bits = self.word.load(Relaxed);
        self.word.store(bits & !PHASE | Phase::Queued as u32, Relaxed);
    }

    /// Somebody will look at the failure of a task that nobody else knows yet.
    pub(crate) fn observe_unshared(&self) {
        self.word.store(self.word.load(Relaxed) | OBSERVED, Relaxed);
    }

    /// The owner of the last claim wants nothing of it any more. False: it is done, or was locked, and so may be.
    #[cfg(not(dagger_loom))]
    #[inline]
    pub(crate) fn abandon(&self) -> bool {
        let mut bits = self.word.load(Relaxed);
        while bits & (LOCK | DONE) == 0 {
            // Release: what was done with the claim happens before the task is freed.
            match self.word.compare_exchange_weak(bits, bits | ABANDONED, Release, Relaxed) {
                Ok(_) => return true,
                Err(now) => bits = now,
            }
        }
        false
    }

    #[cfg(dagger_loom)]
    pub(crate) fn abandon(&self) -> bool {
        let mut guard = self.lock();
        let is_done = guard.is_done();
        if !is_done {
            guard.abandon();
        }
        !is_done
    }

    #[inline]
    pub(crate) fn load(&self) -> Bits {
        // Acquire: pairs with the unlock that set DONE, so that a reader of DONE may read the outcome.
        Bits(self.word.load(Acquire))
    }

    /// Takes the lock bit. Held for a few instructions only: never across user code.
    #[cfg(not(dagger_loom))]
    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_> {
        let mut round = 0;
        loop {
            // Acquire: pairs with the Release store of the unlock before.
            let bits = self.word.fetch_or(LOCK, Acquire);
            if bits & LOCK == 0 {
                return Locked { state: self, bits: Bits(bits) };
            }
            while self.word.load(Relaxed) & LOCK != 0 {
                relax(round);
                round += 1;
            }
        }
    }

    #[cfg(dagger_loom)]
    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_> {
        let mutex = self.mutex.lock().expect("models do not panic under the lock");
        Locked { state: self, bits: Bits(self.word.load(Relaxed)), _mutex: mutex }
    }
}

/// The lock; dropping it publishes the bits.
pub(crate) struct Locked<'a> {
    state: &'a State,
    bits: Bits,
    #[cfg(dagger_loom)]
    _mutex: crate::sync::MutexGuard<'a, ()>,
}

impl std::ops::Deref for Locked<'_> {
    type Target = Bits;
    #[inline]
    fn deref(&self) -> &Bits {
        &self.bits
    }
}

impl std::ops::DerefMut for Locked<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Bits {
        &mut self.bits
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: everything written under the lock (outcome, waiters) is seen by whoever locks or loads next.
        self.state.word.store(self.bits.0 & !LOCK, Release);
    }
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;

    fn bits(phase: Phase) -> Bits {
        Bits(phase as u32)
    }

    #[test]
    fn a_task_walks_from_waiting_to_retired() {
        let mut b = bits(Phase::Waiting);
        assert_eq!(b.ready(), Ready::Push);
        assert_eq!(b.start(), Start::Run { first: true });
        assert_eq!(b.suspend(), Suspend::Wait);
        assert!(b.wake() && !b.wake());
        assert_eq!(b.start(), Start::Run { first: false });
        assert!(!b.wake());
        assert_eq!(b.suspend(), Suspend::Again);
        assert_eq!(b.start(), Start::Run { first: false });
        assert!(b.finish(true));
        assert!(b.is_done() && b.has_value());
        assert_eq!(b.phase(), Phase::Retired);
        assert_eq!(b.end(), End::Late);
    }

    #[test]
    fn an_end_in_each_phase_leaves_one_owner_of_the_body() {
        let mut waiting = bits(Phase::Waiting);
        assert_eq!(waiting.end(), End::Retire);
        assert_eq!(waiting.ready(), Ready::Discard);

        let mut queued = bits(Phase::Queued);
        assert_eq!(queued.end(), End::Leave);
        assert_eq!(queued.start(), Start::Discard);

        let mut running = bits(Phase::Running);
        assert_eq!(running.end(), End::Leave);
        assert!(!running.finish(true) && !running.has_value());

        let mut suspended = bits(Phase::Suspended);
        assert_eq!(suspended.end(), End::Push);
        assert!(!suspended.wake());
        assert_eq!(suspended.start(), Start::Discard);

        let mut polled = bits(Phase::Running);
        assert_eq!(polled.end(), End::Leave);
        assert_eq!(polled.suspend(), Suspend::Discard);
    }

    #[test]
    fn only_an_unstarted_task_is_claimed_and_its_entry_is_stale() {
        let mut b = bits(Phase::Queued);
        assert!(b.claim() && !b.claim());
        assert_eq!(b.start(), Start::Stale);
        assert_eq!(b.suspend(), Suspend::Wait);
        assert!(b.wake() && !b.claim());
    }

    /// In one step beside a lock: neither loses what the other has set.
    #[test]
    fn what_is_abandoned_while_others_lock_stays_so_and_what_is_done_is_not_abandoned() {
        for _ in 0..300 {
            let state = State::waiting();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    state.lock().set_observed();
                    let mut was_abandoned = false;
                    for locked in 0..50 {
                        let mut guard = state.lock();
                        assert!(guard.is_abandoned() || !was_abandoned, "lost by an unlock");
                        assert_eq!(guard.is_notified(), locked % 2 == 1, "lost by the step");
                        guard.bits.0 ^= NOTIFIED;
                        was_abandoned = guard.is_abandoned();
                    }
                });
                while !state.load().is_observed() {
                    std::hint::spin_loop();
                }
                // While it is locked it refuses.
                while !state.abandon() {
                    std::hint::spin_loop();
                }
            });
            assert!(state.load().is_abandoned() && state.load().is_observed());
        }
        let state = State::waiting();
        let locked = state.lock();
        assert!(!state.abandon());
        drop(locked);
        assert_eq!(state.lock().end(), End::Retire);
        assert!(!state.abandon() && !state.load().is_abandoned());
    }
}
