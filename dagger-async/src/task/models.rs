//! loom models of the cell: every interleaving of completion, waiting, linking, cancelling and waking.
//!
//! They run the real functions of this folder on loom's atomics; accesses to what the lock guards, and to the value, are
//! checked for races. `RUSTFLAGS="--cfg dagger_loom" cargo test -p dagger-async --lib --release loom`.

use super::cell::{RawTask, Step};
use super::claim::Claim;
use super::edge::{Edge, Linker};
use super::handle::DTask;
use super::id::Origin;
use super::run::{complete, end};
use super::state::{Start, Suspend};
use crate::call::{Body, Stop};
use crate::error::Error;
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering::SeqCst};
use loom::thread;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// A value that loom checks and that counts its drops.
struct Value {
    data: UnsafeCell<u32>,
    drops: loom::sync::Arc<AtomicU32>,
}
// SAFETY: loom checks what the models do with it.
unsafe impl Sync for Value {}
// SAFETY: as above.
unsafe impl Send for Value {}

impl Value {
    fn read(&self) -> u32 {
        // SAFETY: loom reports a race.
        self.data.with(|data| unsafe { *data })
    }
}
impl Clone for Value {
    fn clone(&self) -> Self {
        Value { data: UnsafeCell::new(self.read()), drops: self.drops.clone() }
    }
}
impl Drop for Value {
    fn drop(&mut self) {
        self.data.with_mut(|_| ()); // Whatever read it must have happened before.
        self.drops.fetch_add(1, SeqCst);
    }
}

struct Makes(loom::sync::Arc<AtomicU32>);

impl Body for Makes {
    type Output = Value;
    type Name = Self;
    const ACCESSES: usize = 0;
    const WRITES: bool = false;
    fn link(&self, _: &mut Linker) {}
    fn inputs(&self, _: &mut dyn FnMut(RawTask)) {}
    fn scope(&self, _: &mut Option<dagger_core::Scope>) {}
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<Value, Stop>> {
        Poll::Ready(Ok(Value { data: UnsafeCell::new(7), drops: self.0.clone() }))
    }
}

#[track_caller]
fn task(body: Makes) -> (RawTask, DTask<Value>) {
    let task = RawTask::new(|| body, std::ptr::null(), Origin::future(Location::caller()), None, 1);
    // SAFETY: the cell starts with one claim, and `Value` is the output of `Makes`.
    (task, DTask::new(unsafe { Claim::adopt(task) }))
}

/// What a worker does with a queued task, without the pool.
fn work(task: RawTask) {
    let start = task.state.lock().start();
    if let Start::Run { .. } = start {
        // SAFETY: the model's worker took it to `Running`.
        let step = unsafe { (task.vtable.poll)(task, &mut Context::from_waker(Waker::noop())) };
        assert!(matches!(step, Step::Value));
    } else {
        // SAFETY: as above; it was ended before it started.
        unsafe { (task.vtable.drop_body)(task) };
        let counts = task.state.lock().finish(false);
        assert!(!counts);
        return task.release_scheduler();
    }
    // SAFETY: it is this task's, just now.
    let _ = unsafe { complete(task, None).settle(task, super::tell::Effect::Ran) };
    task.release_scheduler();
}

fn queued(drops: &loom::sync::Arc<AtomicU32>) -> (RawTask, DTask<Value>) {
    let (raw, handle) = task(Makes(drops.clone()));
    raw.state.queue_unshared();
    (raw, handle)
}

/// ```text
/// worker              waiter
/// write value   ╳     poll: leave a waker, or take the value
/// DONE, wake          poll again: take it
/// ```
#[test]
fn loom_a_value_is_handed_over_once() {
    loom::model(|| {
        let drops = loom::sync::Arc::new(AtomicU32::new(0));
        let (raw, handle) = queued(&drops);
        let waiter = thread::spawn(move || loom::future::block_on(handle).unwrap().read());
        work(raw);
        assert_eq!(waiter.join().unwrap(), 7);
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn loom_a_handle_dropped_at_any_time_drops_the_value_once() {
    loom::model(|| {
        let drops = loom::sync::Arc::new(AtomicU32::new(0));
        let (raw, handle) = queued(&drops);
        let dropper = thread::spawn(move || drop(handle));
        work(raw);
        dropper.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// Two handles that are awaited at once: each gets a value of its own, and one of them may be the original.
#[test]
fn loom_two_uses_by_value_get_two_values() {
    loom::model(|| {
        let drops = loom::sync::Arc::new(AtomicU32::new(0));
        let (raw, first) = queued(&drops);
        let second = first.clone();
        work(raw);
        let other = thread::spawn(move || loom::future::block_on(first).unwrap().read());
        assert_eq!(loom::future::block_on(second).unwrap().read(), 7);
        assert_eq!(other.join().unwrap(), 7);
        let drops = drops.load(SeqCst);
        assert!(drops == 2 || drops == 3, "{drops}");
    });
}

/// A use by value without `Clone` waits for the use by reference.
#[test]
fn loom_a_sole_use_waits_for_the_shared_one() {
    loom::model(|| {
        let drops = loom::sync::Arc::new(AtomicU32::new(0));
        let (raw, handle) = queued(&drops);
        work(raw);
        let shared = handle.claim().clone();
        let reader = thread::spawn(move || {
            assert_eq!(shared.get().read(), 7);
            drop(shared);
        });
        let value = loom::future::block_on(handle).unwrap();
        assert_eq!(value.read(), 7);
        reader.join().unwrap();
        drop(value);
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// Whoever sees the value flag, without any lock, sees the value.
#[test]
fn loom_a_reader_of_done_sees_the_value() {
    loom::model(|| {
        let drops = loom::sync::Arc::new(AtomicU32::new(0));
        let (raw, handle) = queued(&drops);
        let reader = thread::spawn(move || {
            if handle.raw().state.load().has_value() {
                assert_eq!(handle.claim().get().read(), 7);
            }
            handle
        });
        work(raw);
        drop(reader.join().unwrap());
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn loom_the_last_of_two_readers_drops_the_value() {
    loom::model(|| {
        let drops = loom::sync::Arc::new(AtomicU32::new(0));
        let (raw, handle) = queued(&drops);
        work(raw);
        let shared = handle.claim().clone();
        let reader = thread::spawn(move || {
            assert_eq!(shared.get().read(), 7);
            drop(shared);
        });
        assert_eq!(handle.claim().get().read(), 7);
        drop(handle);
        reader.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// ```text
/// input's worker      spawner of the successor
/// DONE, take    ╳     link the edge
/// pending −= 1  ╳     pending −= BIAS − waiting
/// ```
#[test]
fn loom_a_successor_becomes_ready_once() {
    loom::model(|| {
        const BIAS: u32 = 1 << 31;
        let drops = loom::sync::Arc::new(AtomicU32::new(0));
        let ready = loom::sync::Arc::new(AtomicU32::new(0));
        let (input, handle) = queued(&drops);
        let (successor, kept) = task(Makes(drops.clone()));
        successor.pending.store(BIAS, SeqCst);
        let worker = {
            let ready = ready.clone();
            thread::spawn(move || {
                let start = input.state.lock().start();
                assert!(matches!(start, Start::Run { .. }));
                // SAFETY: taken to `Running` above.
                let step = unsafe { (input.vtable.poll)(input, &mut Context::from_waker(Waker::noop())) };
                assert!(matches!(step, Step::Value));
                for (next, _) in complete(input, None).into_successors() {
                    if next.input_came() {
                        ready.fetch_add(1, SeqCst);
                    }
                }
                input.release_scheduler();
            })
        };
        let edge = Edge::new();
        let mut linker = Linker::new::<Makes>(successor);
        linker.after(handle.raw(), &edge);
        let waiting = linker.waiting;
        if waiting == 0 || successor.pending.fetch_sub(BIAS - waiting, SeqCst) == BIAS - waiting {
            ready.fetch_add(1, SeqCst);
        }
        worker.join().unwrap();
        assert_eq!(ready.load(SeqCst), 1);
        successor.state.queue_unshared();
        work(successor);
        drop((handle, kept));
        assert_eq!(drops.load(SeqCst), 2);
    });
}

/// A cancel beside the run of a function: one outcome, and the value is dropped once either way.
#[test]
fn loom_a_cancel_and_a_completion_give_one_outcome() {
    loom::model(|| {
        let drops = loom::sync::Arc::new(AtomicU32::new(0));
        let (raw, handle) = queued(&drops);
        let kept = handle.clone();
        let canceller = thread::spawn(move || {
            let error = |header: &super::cell::Header| Error::Cancelled { root: header.info().into() };
            end(kept.raw(), error)
        });
        work(raw);
        let cancelled = canceller.join().unwrap();
        let outcome = loom::future::block_on(handle);
        assert_eq!(outcome.is_err(), cancelled);
        let made = drops.load(SeqCst);
        drop(outcome);
        assert!(made <= 1 && drops.load(SeqCst) <= 2);
    });
}

/// ```text
/// worker                 waker
/// poll → Pending
/// suspend          ╳     wake
/// ```
/// The task is queued again by exactly one of them.
#[test]
fn loom_a_wake_is_not_lost_while_a_body_suspends() {
    loom::model(|| {
        let drops = loom::sync::Arc::new(AtomicU32::new(0));
        let (raw, handle) = queued(&drops);
        let start = raw.state.lock().start();
        assert!(matches!(start, Start::Run { first: true }));
        let queued = Arc::new(AtomicU32::new(0));
        let waker = {
            let queued = queued.clone();
            thread::spawn(move || {
                if raw.state.lock().wake() {
                    queued.fetch_add(1, SeqCst);
                }
            })
        };
        let suspend = raw.state.lock().suspend();
        if suspend == Suspend::Again {
            queued.fetch_add(1, SeqCst);
        }
        waker.join().unwrap();
        assert_eq!(queued.load(SeqCst), 1);
        work(raw);
        drop(handle);
        assert_eq!(drops.load(SeqCst), 1);
    });
}
