//! The threads that do the I/O: a Tokio runtime of their own, so that neither workers nor the user's runtime wait for a disk.
//!
//! ```text
//!   run(job) ─▶ queue ─▶ at most 16 threads of the runtime's blocking pool, each until the queue is empty
//!                                │ a store does blocking calls of its own there
//!                                ▼
//!                       16 more threads of the pool
//! ```
//! 1. Nothing is started before it is needed.
//! 2. Jobs never occupy the whole pool: what a store runs there for a job that waits for it gets a thread.
//! 3. Ending never waits.
//!
//! The queue has no bound of its own: who gives jobs decides how many there are at a time. It is first in, first out.

use super::Objects;
use crate::error::quietly;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that jobs can occupy.
pub(super) const JOB_THREADS_MAX: usize = 16;
const STORE_THREADS_MAX: usize = 16;

type Job = Box<dyn FnOnce(&Objects) + Send>;

pub(super) struct Threads {
    name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    runtime: Option<Background>,
    /// Empty when no thread is at it.
    jobs: VecDeque<Job>,
    /// Threads that take jobs.
    active: usize,
}

impl Threads {
    pub(super) fn new(name: &str) -> Self {
        Threads { name: format!("{name}-store"), state: Mutex::default() }
    }

    /// Where futures are run.
    pub(super) fn handle(&self) -> io::Result<Handle> {
        self.handle_of(&mut self.state.lock())
    }

    /// As [`handle`](Threads::handle), if anything has been started.
    pub(super) fn started(&self) -> Option<Handle> {
        self.state.lock().runtime.as_ref().map(|runtime| runtime.handle.clone())
    }

    fn handle_of(&self, state: &mut State) -> io::Result<Handle> {
        if let Some(runtime) = &state.runtime {
            return Ok(runtime.handle.clone());
        }
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).max_blocking_threads(JOB_THREADS_MAX + STORE_THREADS_MAX);
        builder.thread_name(&self.name).enable_all();
        let runtime = not_panicking(|| builder.build())??;
        let handle = runtime.handle().clone();
        state.runtime = Some(Background { handle: handle.clone(), runtime: Some(runtime) });
        Ok(handle)
    }

    /// Queues `job`; false, and the job is dropped, if there is no thread to do it. The threads keep `objects` until the queue
    /// is empty.
    pub(super) fn run(&self, objects: Objects, job: Job) -> bool {
        let mut state = self.state.lock();
        state.jobs.push_back(job);
        if state.active == JOB_THREADS_MAX {
            return true;
        }
        let started = self.handle_of(&mut state).and_then(|handle| {
            not_panicking(|| {
                drop(handle.spawn_blocking(move || {
                    while let Some(job) = objects.threads().next() {
                        quietly(|| job(&objects));
                    }
                }));
            })
        });
        match started {
            Ok(()) => state.active += 1,
            Err(_) if state.active == 0 => {
                let job = state.jobs.pop_back();
                drop(state);
                quietly(|| drop(job));
                return false;
            }
            // The others will come to it.
            Err(_) => {}
        }
        true
    }

    /// The next job of a thread; `None` sends it away.
    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let job = state.jobs.pop_front();
        if job.is_none() {
            state.active -= 1;
        }
        job
    }

    /// Runs `last` in the background, and ends the threads after it. Nothing happens if there were none.
    pub(super) fn end_with(&mut self, last: impl FnOnce(&Handle) + Send + 'static) {
        if let Some(runtime) = self.state.get_mut().runtime.take() {
            let handle = runtime.handle.clone();
            // If there is no thread for it, it is not done.
            let _ = not_panicking(|| {
                drop(handle.spawn_blocking(move || quietly(|| last(&runtime.handle))));
            });
        }
    }
}

/// Tokio panics where the system refuses a thread.
fn not_panicking<T>(code: impl FnOnce() -> T) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(code))
        .map_err(|payload| io::Error::other(crate::error::PanicText::of(payload)))
}

/// A runtime that may be dropped anywhere, on a thread of its own and inside of async code: that waits for nothing.
struct Background {
    handle: Handle,
    /// `Some` until it is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
