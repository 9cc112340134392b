//! The window: how many unfinished tasks there may be before a thread that spawns into a block has to wait.
//!
//! 1. Only threads that are no workers wait, and only while a worker runs something or the store moves data: when everything that is left is
//!    suspended or waits for data, what is awaited may need the very thread that waits. Then the window grows.
//! 2. Whoever waits is told by a task that ends while there is room (a quarter of the window, if it is large), by each worker
//!    that finds nothing to do while there is any, and by the last one that goes to sleep.
//! 3. A body that runs may itself wait for the thread that spawns, which nobody can see: a wait in which no task ends
//!    for [`PATIENCE`] is over.

use super::{Pool, local};
use crate::task::ThreadWaker;
use parking_lot::Mutex;
use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
    fence,
};
use std::task::{Poll, Waker};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(100);

/// A window that need not be used to its last place.
const LARGE: usize = 256;
/// After so many ends a worker looks whether there is room in one.
const PERIOD: u64 = 16;

/// Unfinished tasks a worker, if the user says nothing: what stays in its caches.
const DEFAULT: usize = 1024;

/// The window of a pool.
pub(crate) struct Window {
    limit: usize,
    /// Each with the number of its wait.
    waiters: Mutex<Vec<(u64, Waker)>>,
    waiting: AtomicU32,
    grown: AtomicU64,
}

impl Window {
    pub(super) fn new(limit: Option<usize>, workers: usize) -> Self {
        Window {
            limit: limit.unwrap_or(DEFAULT * workers.max(2)),
            waiters: Mutex::new(Vec::new()),
            waiting: AtomicU32::new(0),
            grown: AtomicU64::new(0),
        }
    }

    /// Lists a waker, in place of an earlier one of the same wait.
    fn add(&self, wait: u64, waker: Waker) {
        let mut waiters = self.waiters.lock();
        let before = match waiters.iter_mut().find(|(known, _)| *known == wait) {
            Some((_, known)) => Some(std::mem::replace(known, waker)),
            None => {
                waiters.push((wait, waker));
                None
            }
        };
        self.waiting.store(waiters.len() as u32, SeqCst);
        drop(waiters);
        drop(before);
    }

    /// The number of a new wait.
    fn next_wait() -> u64 {
        static WAITS: AtomicU64 = AtomicU64::new(0);
        WAITS.fetch_add(1, Relaxed)
    }

    fn is_waited_for(&self) -> bool {
        self.waiting.load(Relaxed) != 0
    }

    /// How often somebody went on with a full window, because nothing ran.
    pub(crate) fn grown(&self) -> u64 {
        self.grown.load(Relaxed)
    }
}

impl Pool {
    /// After a task has ended, the `ended`th of its worker: tells those who wait for room, now and then if the window is
    /// large.
    #[inline]
    pub(super) fn tell_room_after(&self, ended: u64) {
        if self.window.is_waited_for() && (self.window.limit < LARGE || ended.is_multiple_of(PERIOD)) {
            self.tell_if(Self::has_much_room);
        }
    }

    /// A worker finds nothing to do: tells those who wait for room, if there is any or nothing runs. They could give it
    /// something.
    pub(crate) fn tell_room(&self) {
        self.tell_if(|pool| pool.has_room() || pool.nothing_runs());
    }

    fn tell_if(&self, there_is: impl FnOnce(&Self) -> bool) {
        if self.window.is_waited_for() && there_is(self) {
            let waiters = {
                let mut waiters = self.window.waiters.lock();
                self.window.waiting.store(0, SeqCst);
                std::mem::take(&mut *waiters)
            };
            waiters.into_iter().for_each(|(_, waiter)| crate::error::quietly(|| waiter.wake()));
        }
    }

    fn has_room(&self) -> bool {
        self.unfinished() < self.window.limit as u64
    }

    /// A spawner that is told of each place that becomes free would go to and fro between the workers.
    fn has_much_room(&self) -> bool {
        let limit = self.window.limit;
        let margin = if limit < LARGE { 1 } else { limit / 4 };
        self.unfinished() + margin as u64 <= limit as u64
    }

    fn nothing_runs(&self) -> bool {
        // A worker on its way to sleep looks at the queues once more and comes back: until then it counts as asleep.
        self.sleep.all_asleep()
            && !self.spares.is_busy()
            && !self.has_ready()
            && !crate::residency::is_busy(self)
    }

    fn has_ready(&self) -> bool {
        !self.domains.are_empty() || self.has_work_beside()
    }

    /// True if a wait for room is over; a window that is full then has grown.
    fn lets_in(&self) -> bool {
        if self.has_room() || self.is_closed() {
            return true;
        }
        let grows = self.nothing_runs();
        if grows {
            self.window.grown.fetch_add(1, Relaxed);
        }
        grows
    }
}

/// A thread that is no worker has spawned a task: waits while the window is full (invariant 1).
pub(crate) fn wait_for_room(pool: &Pool) {
    thread_local!(static SPAWNED: Cell<u32> = const { Cell::new(0) });
    // Looking costs more than a spawn, so a large window is looked at now and then.
    let period = (pool.window.limit / 64).clamp(1, 64) as u32;
    let due = SPAWNED.try_with(|spawned| {
        spawned.set(spawned.get().wrapping_add(1));
        spawned.get() % period == 0
    });
    if due != Ok(true) || pool.lets_in() {
        return;
    }
    let waker = Waker::from(Arc::new(ThreadWaker(std::thread::current())));
    let wait = Window::next_wait();
    let finished =
        || pool.counts.iter().map(|counts| counts.finished.load(Relaxed)).fold(0, u64::wrapping_add);
    loop {
        let before = finished();
        pool.window.add(wait, waker.clone());
        fence(SeqCst);
        if pool.lets_in() {
            return;
        }
        std::thread::park_timeout(PATIENCE);
        if pool.lets_in() {
            return;
        }
        if finished() == before {
            pool.window.grown.fetch_add(1, Relaxed);
            return;
        }
    }
}

/// Ends when there is room in the window of the current runtime: fewer unfinished tasks than
/// [`Builder::window`](crate::Builder::window), or nothing that runs, so that waiting for room could be in vain.
///
/// A loop that spawns many tasks inside a task awaits it now and then, so that memory stays bounded; outside tasks `spawn!` in
/// a block does that by itself, by blocking its thread. Dropping the future stops waiting.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let total = Chunk::new(0u64);
/// datadeps(async {
///     for i in 0..10_000 {
///         room().await;
///         spawn!((|total: &mut u64, i| *total += i)(InOut(&total), i));
///     }
/// }).await?;
/// assert_eq!(*total.read().await?, 49_995_000);
/// # Ok(()) }
/// ```
pub fn room() -> impl Future<Output = ()> + Send + Unpin {
    let mut told = false;
    let wait = Window::next_wait();
    std::future::poll_fn(move |cx| {
        local::with(|local| {
            let pool = local.pool().unwrap_or_else(|| crate::runtime::default_pool());
            // Told without room: nothing ran a moment ago. That this very worker runs us now says nothing.
            if pool.lets_in() || told && !pool.window.is_waited_for() {
                return Poll::Ready(());
            }
            pool.window.add(wait, cx.waker().clone());
            told = true;
            fence(SeqCst);
            if pool.lets_in() { Poll::Ready(()) } else { Poll::Pending }
        })
    })
}
