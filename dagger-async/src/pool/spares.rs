//! Threads beside the workers: they take over the place of a worker that blocks, or run bodies that may block.
//!
//! 1. A job is handed to a thread that waits for one, or to a new thread; at the limit a place is refused (its
//!    owner gets an error) and a blocking task queues.
//! 2. A thread without a job for [`KEEP`] ends, so a burst leaves nothing behind.
//! 3. When the pool is closed and empty the threads end.

use super::domain::{Domain, EVERY, Lane};
use super::{Local, Place, Pool, local, worker};
use crate::error::quietly;
use crate::task::{self, RawTask};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How long an unused thread stays.
const KEEP: Duration = Duration::from_secs(10);

/// The spare threads of a pool.
pub(crate) struct Spares {
    state: Mutex<State>,
    jobs: Condvar,
    /// Tasks that may block, by priority.
    blocking: Domain,
    spare_max: usize,
    blocking_max: usize,
    workers: usize,
}

struct State {
    places: VecDeque<Box<Place>>,
    idle: usize,
    /// Threads at a place, or whose body blocks and gave it away: as many as workers, and the spare ones.
    at_place: usize,
    /// Threads that run a blocking task, and tasks that wait for one.
    at_task: usize,
    queued: usize,
    /// Blocking tasks taken so far.
    taken: usize,
    next_index: usize,
    ended: bool,
}

impl State {
    /// How many threads could start something now.
    fn jobs(&self) -> usize {
        self.places.len() + self.queued
    }
}

/// What a spare thread does next.
enum Job {
    Place(Box<Place>),
    Task(RawTask),
}

impl Spares {
    pub(crate) fn new(workers: usize, spare_max: usize, blocking_max: usize) -> Self {
        let state = State {
            places: VecDeque::new(),
            idle: 0,
            at_place: workers,
            at_task: 0,
            queued: 0,
            taken: 0,
            next_index: workers,
            ended: false,
        };
        let blocking = Domain::new(Box::default(), Arc::default());
        Spares { state: Mutex::new(state), jobs: Condvar::new(), blocking, spare_max, blocking_max, workers }
    }

    /// Gives a place to another thread. `Err` gives it back with the number of threads that there may be, or are
    /// if the system has no more.
    pub(crate) fn hand_over(&self, pool: &Arc<Pool>, place: Box<Place>) -> Result<(), (Box<Place>, usize)> {
        let mut state = self.state.lock();
        let spare = state.at_place - self.workers.min(state.at_place);
        if spare >= self.spare_max {
            return Err((place, self.spare_max));
        }
        if state.idle <= state.jobs() && start(pool, &mut state).is_err() {
            return Err((place, spare));
        }
        state.at_place += 1;
        state.places.push_back(place);
        self.jobs.notify_one();
        Ok(())
    }

    /// Queues a task whose body may block.
    pub(crate) fn run(&self, pool: &Arc<Pool>, task: RawTask, lane: Lane) {
        let mut state = self.state.lock();
        self.blocking.push(task, lane);
        state.queued += 1;
        if state.at_task + state.queued > self.blocking_max {
            return; // One of them takes it when it is done.
        }
        if state.idle < state.jobs() && start(pool, &mut state).is_err() {
            if state.at_task != 0 {
                return;
            }
            // The system refuses even one thread: better here than never.
            let task = self.next_task(&mut state);
            drop(state);
            if let Some(task) = task {
                local::with(|local| task::run(task, pool, local));
                self.state.lock().at_task -= 1;
            }
            return;
        }
        self.jobs.notify_one();
    }

    fn next_task(&self, state: &mut State) -> Option<RawTask> {
        if state.at_task >= self.blocking_max {
            return None;
        }
        let is_due = state.taken.is_multiple_of(EVERY as usize);
        let overdue = if is_due { self.blocking.pop_overdue(true) } else { None };
        let task = overdue.or_else(|| self.blocking.pop())?;
        state.taken += 1;
        state.queued -= 1;
        state.at_task += 1;
        Some(task)
    }

    /// True while a body runs on a blocking thread.
    pub(crate) fn is_busy(&self) -> bool {
        self.state.lock().at_task != 0
    }

    /// Ends the threads that have nothing to do.
    pub(crate) fn end(&self) {
        self.state.lock().ended = true;
        self.jobs.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        let mut timed_out = false;
        loop {
            if let Some(place) = state.places.pop_front() {
                return Some(Job::Place(place));
            }
            if let Some(task) = self.next_task(&mut state) {
                return Some(Job::Task(task));
            }
            if state.ended || timed_out {
                return None;
            }
            state.idle += 1;
            timed_out = self.jobs.wait_for(&mut state, KEEP).timed_out();
            state.idle -= 1;
        }
    }

    /// The life of a worker: works at its place, then, if that has gone to another thread, as a spare.
    pub(crate) fn work_and_serve(&self, pool: &Arc<Pool>, place: Box<Place>) {
        self.work(pool, place);
        let index = {
            let mut state = self.state.lock();
            state.next_index += 1;
            state.next_index - 1
        };
        self.serve(pool, index);
    }

    /// Does jobs until there are none: the life of a spare thread.
    fn serve(&self, pool: &Arc<Pool>, index: usize) {
        while let Some(job) = self.next() {
            match job {
                Job::Place(place) => self.work(pool, place),
                Job::Task(task) => {
                    pool.unpin();
                    local::with(|local| {
                        let _entered = local.enter_pool(pool);
                        local.thread.set(index);
                        quietly(|| task::run(task, pool, local));
                        local.thread.set(usize::MAX);
                    });
                    self.state.lock().at_task -= 1;
                    pool.tell_room();
                }
            }
        }
    }

    /// Works at a place until it is gone.
    fn work(&self, pool: &Arc<Pool>, place: Box<Place>) {
        worker::work(pool, place);
        local::with(|local| self.is_spare_again(local));
    }

    /// The body that gave its place away is over: its thread counts no longer. Said before the task's handles know, so that
    /// whoever waits for them finds the thread free.
    pub(crate) fn is_spare_again(&self, local: &Local) {
        if local.lost_place.replace(false) {
            self.state.lock().at_place -= 1;
        }
    }
}

/// Starts another thread.
fn start(pool: &Arc<Pool>, state: &mut State) -> std::io::Result<()> {
    let index = state.next_index;
    worker::start(pool, "spare", index, move |pool| pool.spares.serve(pool, index))?;
    state.next_index += 1;
    Ok(())
}
