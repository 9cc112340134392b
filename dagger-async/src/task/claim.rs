//! A claim: one use of a task's value, by value or by reference.
//!
//! 1. While a claim exists the value, once there, stays where it is, unless this very claim takes it.
//! 2. A claim takes the value by moving it if it is the only one, else by cloning, if it is known how; else it waits
//!    until it is the only one.
//! 3. A claim through which the value was moved is *spent*: it neither reads nor drops the value again. It was the only
//!    one then, so every later claim is a clone of it, and spent too; the flag `VALUE` may stay as it is.

use super::cell::RawTask;
use super::wait::{self, NONE};
use crate::error::{Error, Result};
use std::marker::PhantomData;
use std::task::{Poll, Waker};

/// In place of a waiter's key: the value was taken through this claim.
const SPENT: u32 = u32::MAX;

/// A counted use of the value of a task with output `T`. Also carries the waker that its owner left with the task.
pub(crate) struct Claim<T: Send + Sync + 'static> {
    task: RawTask,
    key: u32,
    /// Invariant in `T`: what one handle notes of `T`'s `Clone` others use.
    value: PhantomData<fn(T) -> T>,
}

impl<T: Send + Sync + 'static> Claim<T> {
    /// Takes over a claim that the caller owns.
    ///
    /// # Safety
    /// `T` is the output type of the task's body.
    pub(crate) unsafe fn adopt(task: RawTask) -> Self {
        Claim { task, key: NONE, value: PhantomData }
    }

    /// The task, alive as long as the claim.
    #[inline]
    pub(crate) fn raw(&self) -> RawTask {
        self.task
    }

    /// Ends when the task is done.
    #[inline]
    pub(crate) fn poll_done(&mut self, waker: &Waker) -> Poll<Result<()>> {
        wait::poll_done(self.task, &mut self.key, waker)
    }

    /// The error of the done task, or `Taken`, if there is no value.
    #[inline]
    pub(crate) fn check_value(&self) -> Result<()> {
        if self.key == SPENT {
            return Err(Error::Taken { root: Some(self.task.info().into()) });
        }
        if self.task.state.load().has_value() {
            return Ok(());
        }
        match self.task.error() {
            Some(error) => {
                let error = error.clone();
                self.task.state.lock().set_observed();
                Err(error)
            }
            None => Err(Error::Taken { root: Some(self.task.info().into()) }),
        }
    }

    /// The value. `check_value` said that it is there.
    #[inline]
    pub(crate) fn get(&self) -> &T {
        // SAFETY: there is a value (the caller asked), `T` is its type (`adopt`), and invariant 1 keeps it: it is
        // moved or dropped only through the last claim, and `take` needs this claim exclusively.
        unsafe { self.task.value::<T>().as_ref() }
    }

    /// Ends when `take` may be called, or with the reason why it may not.
    #[inline]
    pub(crate) fn poll_takeable(&mut self, waker: &Waker) -> Poll<Result<()>> {
        if let Err(error) = self.check_value() {
            return Poll::Ready(Err(error));
        }
        // SAFETY: `T` is the output type (`adopt`).
        if self.task.refs.claims() == 1 || unsafe { self.task.clone_fn::<T>() }.is_some() {
            return Poll::Ready(Ok(()));
        }
        let waker = waker.clone();
        let old = {
            let guard = self.task.state.lock();
            self.task.guarded(&guard).extra().sole.replace(waker)
        };
        let fresh = old.is_none();
        drop(old);
        if !self.task.refs.want_sole() {
            return Poll::Ready(Ok(()));
        }
        wait::watch_for_sole(self.task, fresh);
        Poll::Pending
    }

    /// The value of a task that is done, if this is the only claim on it.
    #[inline]
    pub(crate) fn take_alone(&mut self) -> Option<T> {
        let task = self.task;
        if self.key == SPENT || !task.state.load().has_value() || task.refs.claims() != 1 {
            return None;
        }
        self.key = SPENT;
        // SAFETY: as in `take`.
        Some(unsafe { task.value::<T>().read() })
    }

    /// The value, moved if this is the only claim, else cloned. `poll_takeable` ended well.
    #[inline]
    pub(crate) fn take(&mut self) -> T {
        if self.task.refs.claims() != 1 {
            // SAFETY: `T` is the output type (`adopt`).
            if let Some(clone) = unsafe { self.task.clone_fn::<T>() } {
                return clone(self.get());
            }
        }
        // Nobody else has a claim to look at the value by: this one remembers that it is gone.
        self.key = SPENT;
        // SAFETY: the value is there (`poll_takeable`), ours is the only claim, and a spent claim, or a clone of one,
        // neither reads nor drops it again.
        unsafe { self.task.value::<T>().read() }
    }

    /// True if the value was taken through this handle.
    pub(crate) fn is_spent(&self) -> bool {
        self.key == SPENT
    }
}

impl<T: Send + Sync + 'static> Clone for Claim<T> {
    /// Another use of the same value; the waker stays with the original.
    #[inline]
    fn clone(&self) -> Self {
        self.task.refs.add_claim();
        let key = if self.key == SPENT { SPENT } else { NONE };
        Claim { task: self.task, key, value: PhantomData }
    }
}

impl<T: Send + Sync + 'static> Drop for Claim<T> {
    #[inline]
    fn drop(&mut self) {
        match self.key {
            SPENT => return self.task.release_spent_claim(),
            NONE => {}
            _ => wait::withdraw(self.task, &mut self.key),
        }
        self.task.release_claim();
    }
}

/// A counted use of the value of a task, whatever its type.
#[cfg(feature = "store")]
pub(crate) struct AnyClaim(RawTask);

#[cfg(feature = "store")]
impl AnyClaim {
    /// Another use of the value.
    ///
    /// # Safety
    /// There is a claim on the task, and the value was not taken.
    pub(crate) unsafe fn of(task: RawTask) -> Self {
        task.refs.add_claim();
        AnyClaim(task)
    }

    /// The task, alive as long as the claim.
    pub(crate) fn raw(&self) -> RawTask {
        self.0
    }

    /// The value, which stays there, and is only read, as long as the claim (invariant 1); `None` while there is none.
    pub(crate) fn value(&self) -> Option<*const u8> {
        // SAFETY: there is a value; as a place of bytes it has any type.
        self.0.state.load().has_value().then(|| unsafe { self.0.value::<u8>() }.as_ptr().cast_const())
    }
}

#[cfg(feature = "store")]
impl Drop for AnyClaim {
    fn drop(&mut self) {
        self.0.release_claim();
    }
}

/// The value of a task by reference, as `(&task).await` gives it; derefs to `T`.
///
/// As long as it lives the value stays: a use by value of a `T` that is not `Clone` waits for it to be dropped.
pub struct Shared<T: Send + Sync + 'static>(Claim<T>);

impl<T: Send + Sync + 'static> Shared<T> {
    /// The caller saw `check_value` say yes.
    pub(crate) fn new(claim: Claim<T>) -> Self {
        Shared(claim)
    }
}

impl<T: Send + Sync + 'static> std::ops::Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.get()
    }
}

impl<T: Send + Sync + 'static> AsRef<T> for Shared<T> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: Send + Sync + 'static> Clone for Shared<T> {
    /// Another reference to the same value.
    #[inline]
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T: Send + Sync + std::fmt::Debug + 'static> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Send + Sync + std::fmt::Display + 'static> std::fmt::Display for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}
