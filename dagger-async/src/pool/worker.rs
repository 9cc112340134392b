//! The loop of a worker, and what happens when a body blocks.
//!
//! 1. A thread works as long as it has a place. When a body blocks, its place goes to a spare thread; the body goes
//!    on without one when its wait ends, and its thread then is a spare itself.
//! 2. No reference to the place is kept while user code runs: it may leave the thread meanwhile.
//! 3. Nothing runs on top of a waiting body but the very task that it waits for (`run_in_place`), and only while
//!    the stack has room.

use super::{Local, Place, Pool, local, standby};
use crate::record;
use crate::residency;
use crate::task::{self, RawTask, ThreadWaker};
use dagger_core::record::What;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Polls before an idle worker sleeps, about 10 µs: spinning longer would take the core from others.
const POLLS: u32 = 100;
/// After so many polls the core goes to whoever wants it: a thread that waits for what this worker has just done.
const YIELD_EVERY: u32 = 10;
/// How long the watcher sleeps at first, and at most (`sleep.rs`, invariant 5).
const WATCH_MIN: Duration = Duration::from_micros(200);
const WATCH_MAX: Duration = Duration::from_millis(5);

/// Works at `place` until the pool has ended or the place has gone to another thread.
pub(crate) fn work(pool: &Arc<Pool>, place: Box<Place>) {
    pool.pin_to(place.index);
    stack_has_room(); // From here on it is measured.
    local::with(|local| {
        let _entered = local.enter_pool(pool);
        local.set_place(place, pool);
        while let Some(place) = local.place() {
            match next(pool, place) {
                Some(task) => {
                    place.finishing.set(false);
                    // What may panic is caught where it is called; a place is too precious to rely on that.
                    crate::error::quietly(|| task::run(task, pool, local));
                }
                None => {
                    drop(local.take_place());
                    break;
                }
            }
        }
        local.thread.set(usize::MAX);
    });
}

/// The next task; `None` when the pool has ended.
fn next(pool: &Arc<Pool>, place: &Place) -> Option<RawTask> {
    if place.has_to_stand_by() {
        standby::stand_by(pool, place);
    }
    if let Some(task) = place.pick(pool) {
        return Some(task);
    }
    pool.sleep.start_search();
    let mut woken = false;
    let mut watch = WATCH_MIN;
    loop {
        for poll in 1..=POLLS {
            let found = place.pick(pool).or_else(|| place.steal(pool)).or_else(|| place.pick_low(pool));
            if let Some(task) = found {
                pool.sleep.found(|| place.sees_work(pool, false));
                if !pool.domains.are_empty() {
                    place.wake_for_lanes(pool);
                }
                return Some(task);
            }
            if place.has_to_stand_by() {
                pool.sleep.found(|| place.sees_work(pool, false)); // It does not search meanwhile.
                standby::stand_by(pool, place);
                pool.sleep.start_search();
            } else if poll.is_multiple_of(YIELD_EVERY) {
                pool.sleep.pause_search(|| place.sees_work(pool, false));
            } else {
                std::hint::spin_loop();
            }
        }
        if pool.is_closed() && pool.unfinished() == 0 {
            pool.sleep.found(|| false);
            // The last two tasks may have ended at once, each believing in the other: tell the rest.
            pool.sleep.wake_all();
            pool.spares.end();
            return None;
        }
        if woken {
            pool.sleep.was_in_vain();
        }
        pool.before_sleep();
        let work = |watches| {
            pool.tell_room(); // The last one to sleep: nothing runs any more.
            place.sees_work(pool, watches) || pool.is_closed() && pool.unfinished() == 0
        };
        record::note(|| What::Sleep);
        woken = pool.sleep.sleep(place.index, watch, work);
        record::note(|| What::Wake);
        watch = if woken { WATCH_MIN } else { WATCH_MAX.min(watch * 2) };
        pool.wakes[place.index].fetch_add(1, SeqCst);
    }
}

/// Lets others use this thread's processor while `wait` blocks. Not a worker: just waits.
///
/// # Errors
/// How many spare threads there are, when none can take over.
pub(crate) fn blocking<R>(wait: impl FnOnce() -> R) -> Result<R, usize> {
    local::with(|local| {
        if let Some(pool) = local.employer().map(Pool::keep)
            && let Some(place) = local.take_place()
        {
            place.flush_slot(&pool);
            if let Err((place, limit)) = pool.spares.hand_over(&pool, place) {
                local.set_place(place, &pool);
                return Err(limit);
            }
            local.lost_place.set(true);
        }
        Ok(paused(local, wait))
    })
}

/// Runs `wait`, during which the body on this thread does not go on.
fn paused<R>(local: &Local, wait: impl FnOnce() -> R) -> R {
    let Some(body) = local.task() else { return wait() };
    residency::pause(body);
    let waited = wait();
    residency::resume(body);
    waited
}

/// Drives a future on this thread. A worker's processor goes to a spare thread while it waits, if one can be had.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(ThreadWaker(std::thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => {
                if blocking(std::thread::park).is_err() {
                    local::with(|local| paused(local, std::thread::park));
                }
            }
        }
    }
}

/// True if there is room on this stack for another body: at least half of what worker threads have.
pub(crate) fn stack_has_room() -> bool {
    thread_local!(static TOP: usize = here());
    TOP.with(|top| top.abs_diff(here())) < STACK_BYTES / 2
}

/// The stack of worker and spare threads.
const STACK_BYTES: usize = 4 << 20;

fn here() -> usize {
    let mark = 0u8;
    std::ptr::from_ref(std::hint::black_box(&mark)).addr()
}

/// Starts a thread of the pool, inside its Tokio context. The pool knows when it ends, however it ends.
pub(crate) fn start(
    pool: &Arc<Pool>,
    role: &str,
    index: usize,
    run: impl FnOnce(&Arc<Pool>) + Send + 'static,
) -> std::io::Result<()> {
    pool.thread_started();
    let counted = ThreadCount(pool.clone());
    let builder =
        std::thread::Builder::new().name(format!("{}-{role}-{index}", pool.name)).stack_size(STACK_BYTES);
    builder.spawn(move || {
        let counted = counted;
        let _reactor = counted.0.reactor.enter();
        run(&counted.0);
    })?;
    Ok(())
}

struct ThreadCount(Arc<Pool>);

impl Drop for ThreadCount {
    fn drop(&mut self) {
        self.0.thread_ended();
    }
}
