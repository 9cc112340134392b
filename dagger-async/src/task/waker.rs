//! The waker of a task's own body: a pointer to the task that counts as a holder.

use super::cell::RawTask;
use super::run;
use std::mem::ManuallyDrop;
use std::task::{RawWaker, RawWakerVTable, Waker};

const VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, release);

/// A waker for the length of one poll: it borrows the reference of whoever polls.
pub(super) fn borrowed(task: RawTask) -> ManuallyDrop<Waker> {
    // SAFETY: the vtable's functions keep `RawWaker`'s contract with the holder count; this one is never dropped,
    // so it takes no count.
    ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(task.as_ptr().cast(), &VTABLE)) })
}

fn clone(data: *const ()) -> RawWaker {
    RawTask::from_data(data).refs.add_holder();
    RawWaker::new(data, &VTABLE)
}

fn wake(data: *const ()) {
    wake_by_ref(data);
    release(data);
}

fn wake_by_ref(data: *const ()) {
    run::wake(RawTask::from_data(data));
}

fn release(data: *const ()) {
    RawTask::from_data(data).release_holder();
}
