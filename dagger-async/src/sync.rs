//! One name for the primitives of the lock-free parts, so that loom can stand in for them.
//!
//! Under `--cfg dagger_loom` the state word, the reference counts, the sleep protocol and the other counts and marks that are agreed on
//! without a lock run on loom's atomics, and their models (`cargo test -p dagger-async --lib loom`) explore every interleaving.
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

#[cfg(dagger_loom)]
pub(crate) use loom::thread::yield_now;
#[cfg(not(dagger_loom))]
pub(crate) use std::thread::yield_now;

/// Waits a moment for a lock that is held for a few instructions: first on the core, then by letting
/// its holder run (it may have been pre-empted on the core that we spin on).
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

/// Waits for so many turns of a loop.
pub(crate) fn spin(turns: u32) {
    (0..turns).for_each(|_| std::hint::spin_loop());
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

/// A lock for what is held for a few instructions: one locked operation to take it, none to give it back.
#[repr(C)]
pub(crate) struct SpinLock<T> {
    locked: std::sync::atomic::AtomicBool,
    value: std::cell::UnsafeCell<T>,
}

// SAFETY: the lock hands the value to one thread at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// Where the value lies behind the lock.
    pub(crate) const VALUE: usize = std::mem::offset_of!(Self, value);

    pub(crate) const fn new(value: T) -> Self {
        SpinLock {
            locked: std::sync::atomic::AtomicBool::new(false),
            value: std::cell::UnsafeCell::new(value),
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
        // Acquire: pairs with the Release store of the unlock before.
        if self.locked.swap(true, std::sync::atomic::Ordering::Acquire) {
            self.wait();
        }
        SpinGuard { lock: self, here: std::marker::PhantomData }
    }

    /// As [`lock`](Self::lock), without a guard: the lock is the caller's until it makes one.
    #[inline]
    pub(crate) fn lock_to_keep(&self) {
        std::mem::forget(self.lock());
    }

    /// As [`lock_to_keep`](Self::lock_to_keep), if nobody has the lock.
    #[inline]
    pub(crate) fn try_lock_to_keep(&self) -> bool {
        // Acquire: as in `lock`.
        !self.locked.swap(true, std::sync::atomic::Ordering::Acquire)
    }

    /// The guard of a lock that the caller has taken to keep.
    ///
    /// # Safety
    /// It is called once for each time that it was taken so, by the thread that has it.
    #[inline]
    pub(crate) unsafe fn taken(&self) -> SpinGuard<'_, T> {
        SpinGuard { lock: self, here: std::marker::PhantomData }
    }

    #[cold]
    fn wait(&self) {
        let mut round = 0;
        loop {
            while self.locked.load(std::sync::atomic::Ordering::Relaxed) {
                relax(round);
                round += 1;
            }
            if !self.locked.swap(true, std::sync::atomic::Ordering::Acquire) {
                return;
            }
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

/// The value of a lock that is taken; dropping it gives the lock back.
pub(crate) struct SpinGuard<'a, T> {
    lock: &'a SpinLock<T>,
    /// Neither `Send` nor `Sync`.
    here: std::marker::PhantomData<*mut T>,
}

impl<T> std::ops::Deref for SpinGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is ours.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> std::ops::DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.locked.store(false, std::sync::atomic::Ordering::Release);
    }
}

#[cfg(all(test, not(dagger_loom)))]
#[test]
fn a_spin_lock_lets_one_in_at_a_time() {
    let lock = SpinLock::new(0u64);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20_000).for_each(|_| *lock.lock() += 1));
        }
    });
    assert_eq!(*lock.lock(), 80_000);
}

/// Asks for the cache line at an address that will soon be written, so that it comes while other things are done.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint: it reads and writes nothing, whatever the address; where a processor does not implement it, it is a no-op.
    // (The intrinsic asks for the line to be read only, unless the target has a feature that the least x86-64 has not.)
    unsafe {
        std::arch::asm!("prefetchw [{0}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = at;
}
