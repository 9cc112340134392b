//! One name for the primitives of the lock-free parts, so that loom can stand in for them.
//!
//! Under `--cfg dagger_loom` the state word, the reference counts and the sleep protocol run on loom's
//! atomics and their models (`cargo test -p dagger-async --lib loom`) explore every interleaving.
//! The cfg is ours: plain `--cfg loom` would also change Tokio.

#[cfg(dagger_loom)]
pub(crate) use loom::{
    sync::atomic::{AtomicU32, AtomicU64, fence},
    sync::{Condvar, Mutex, MutexGuard},
};
#[cfg(not(dagger_loom))]
pub(crate) use std::{
    sync::atomic::{AtomicU32, AtomicU64, fence},
    sync::{Condvar, Mutex, MutexGuard},
};

/// Waits a moment for a lock that is held for a few instructions: first on the core, then by letting
/// its holder run (it may have been pre-empted on the core that we spin on).
#[cfg(not(dagger_loom))]
pub(crate) fn relax(round: u32) {
    if round < 32 {
        std::hint::spin_loop();
    } else if round < 256 {
        std::thread::yield_now();
    } else {
        // Only a holder of lower real-time priority on this core makes us come here.
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
}

/// A cell whose accesses loom checks.
#[cfg(not(dagger_loom))]
pub(crate) use std::cell::UnsafeCell;

#[cfg(dagger_loom)]
pub(crate) struct UnsafeCell<T>(loom::cell::UnsafeCell<()>, std::cell::UnsafeCell<T>);

#[cfg(dagger_loom)]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        UnsafeCell(loom::cell::UnsafeCell::new(()), std::cell::UnsafeCell::new(value))
    }
    /// Counts as a write at this point of the model.
    pub(crate) fn get(&self) -> *mut T {
        self.0.with_mut(|_| self.1.get())
    }
}
