//! The waker of a task's own body: a pointer to the task that counts as a holder.
//!
//! There are two kinds, so that a search for deadlocks knows what may wake a body: those left with a task that it waits
//! for, and all others, which are counted in `foreign_wakers`.

use super::cell::RawTask;
use super::run;
use crate::pool::local;
use std::mem::ManuallyDrop;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::task::{RawWaker, RawWakerVTable, Waker};

static FOREIGN: RawWakerVTable = RawWakerVTable::new(clone, wake_foreign, wake_by_ref, drop_foreign);
static LEFT: RawWakerVTable = RawWakerVTable::new(clone, wake_left, wake_by_ref, drop_left);

/// A waker for the length of one poll: it borrows the reference of whoever polls.
pub(super) fn borrowed(task: RawTask) -> ManuallyDrop<Waker> {
    // SAFETY: the vtables' functions keep `RawWaker`'s contract with the holder count; this one is never dropped,
    // so it takes no count.
    ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(task.as_ptr().cast(), &FOREIGN)) })
}

/// A clone to leave with a task.
pub(crate) fn clone_to_leave(waker: &Waker) -> Waker {
    if !is_ours(waker) {
        return waker.clone();
    }
    RawTask::from_data(waker.data()).refs.add_holder();
    // SAFETY: as in `borrowed`, with a count of its own.
    unsafe { Waker::from_raw(RawWaker::new(waker.data(), &LEFT)) }
}

/// True if `left` wakes what `waker` wakes.
pub(super) fn is_same(left: &Waker, waker: &Waker) -> bool {
    left.will_wake(waker) || is_ours(left) && is_ours(waker) && left.data() == waker.data()
}

/// True if it wakes this task, and only that.
pub(super) fn is_of(waker: &Waker, task: RawTask) -> bool {
    is_ours(waker) && std::ptr::eq(waker.data().cast(), task.as_ptr())
}

fn is_ours(waker: &Waker) -> bool {
    std::ptr::eq(waker.vtable(), &FOREIGN) || std::ptr::eq(waker.vtable(), &LEFT)
}

fn clone(data: *const ()) -> RawWaker {
    let task = RawTask::from_data(data);
    task.refs.add_holder();
    // Relaxed: made by the body's own thread before it suspends, or from one that is counted.
    task.foreign_wakers.fetch_add(1, Relaxed);
    RawWaker::new(data, &FOREIGN)
}

fn wake_foreign(data: *const ()) {
    wake_by_ref(data);
    drop_foreign(data);
}

fn wake_left(data: *const ()) {
    wake_by_ref(data);
    RawTask::from_data(data).release_holder();
}

fn wake_by_ref(data: *const ()) {
    run::wake(RawTask::from_data(data));
}

fn drop_foreign(data: *const ()) {
    let task = RawTask::from_data(data);
    // AcqRel: whoever reads zero under the lock sees the wakes that came before.
    if task.foreign_wakers.fetch_sub(1, AcqRel) == 1 {
        run::look_again(task); // What may wake it is known from here on.
    }
    task.release_holder();
}

fn drop_left(data: *const ()) {
    let task = RawTask::from_data(data);
    // Whoever gives it back without a wake may free the task that it was left with. (The task itself has forgotten that, if it
    // still waited for it: `wait::withdraw`.)
    if local::with(|local| local.task()) != Some(task) {
        let guard = task.state.lock();
        task.guarded(&guard).forget_awaited();
    }
    task.release_holder();
}
