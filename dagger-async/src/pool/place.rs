//! The place of a worker: its queue, and in which order it takes tasks.
//!
//! ```text
//!   pick:   each lane's oldest, once in 61 picks
//!           priority > 0   slot   own queue / lanes of priority 0   injector   steal   priority < 0
//! ```
//! 1. A place belongs to one thread at a time and moves to another when its thread blocks.
//! 2. The slot holds the successor that the last completion made ready; after [`STREAK_MAX`] in a row it queues.
//! 3. On each of the first picks of a round of 61 another source (injector, own queue, then each lane) gives its
//!    oldest task, whatever its priority: nothing waits for ever.

use super::Pool;
use super::domain::{Domain, EMPTY};
use crate::task::RawTask;
use crossbeam_deque::{Steal, Worker};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Picks of the slot in a row.
const STREAK_MAX: u32 = 16;
/// Picks in a round of the fairness rule.
const ROUND: u32 = 61;
/// A worker that has just become idle leaves queues shorter than this to their owner...
const PATIENT_LEN: usize = 4;

/// What a worker owns.
pub(crate) struct Place {
    pub(crate) index: usize,
    queue: Worker<RawTask>,
    slot: Cell<Option<RawTask>>,
    streak: Cell<u32>,
    tick: Cell<u32>,
    round: Cell<usize>,
    random: Cell<u32>,
    /// A body just returned to the worker's loop: what its completion makes ready may use the slot.
    pub(crate) finishing: Cell<bool>,
    domains: RefCell<(u32, Vec<Arc<Domain>>)>,
}

impl Place {
    pub(crate) fn new(index: usize, queue: Worker<RawTask>) -> Self {
        Place {
            index,
            queue,
            slot: Cell::new(None),
            streak: Cell::new(0),
            tick: Cell::new(0),
            round: Cell::new(0),
            random: Cell::new(0x9E37_79B9 ^ (index as u32 + 1)),
            finishing: Cell::new(false),
            domains: RefCell::new((0, Vec::new())),
        }
    }

    /// Queues a plain task. True if others should be told.
    pub(crate) fn push(&self, task: RawTask) -> bool {
        if self.finishing.get() && self.slot.get().is_none() {
            self.slot.set(Some(task));
            return false;
        }
        self.queue.push(task);
        true
    }

    /// Empties the slot into the queue, where others can reach it.
    pub(crate) fn flush_slot(&self, pool: &Pool) {
        if let Some(task) = self.slot.take() {
            self.queue.push(task);
            pool.sleep.wake_one();
        }
    }

    /// The next task from what this worker has or shares, without stealing.
    pub(crate) fn pick(&self, pool: &Pool) -> Option<RawTask> {
        let picked = self.pick_next(pool);
        // The slot cannot be stolen: while another body runs here its task must lie in the queue.
        self.flush_slot(pool);
        picked
    }

    fn pick_next(&self, pool: &Pool) -> Option<RawTask> {
        let tick = self.tick.get();
        if tick + 1 == ROUND {
            self.tick.set(0);
            self.round.set(self.round.get().wrapping_add(1));
        } else {
            self.tick.set(tick + 1);
        }
        self.refresh(pool);
        let domains = &self.domains.borrow().1;
        if let Some(task) = self.pick_fairly(pool, domains, tick as usize) {
            return Some(task);
        }
        let best = domains.iter().map(|domain| domain.best()).max().unwrap_or(EMPTY);
        let from_best =
            || domains.iter().find(|domain| domain.best() == best).and_then(|domain| domain.pop());
        // Tasks bound to this worker cannot go elsewhere, so in every other pick they go before plain ones.
        if (best > 0 || best == 0 && tick.is_multiple_of(2))
            && let Some(task) = from_best()
        {
            return Some(task);
        }
        if let Some(task) = self.slot.take() {
            if self.streak.get() < STREAK_MAX {
                self.streak.set(self.streak.get() + 1);
                return Some(task);
            }
            self.queue.push(task);
        }
        self.streak.set(0);
        if let Some(task) = self.queue.pop() {
            return Some(task);
        }
        if best == 0
            && let Some(task) = from_best()
        {
            return Some(task);
        }
        self.take_injected(pool)
    }

    /// Invariant 3.
    fn pick_fairly(&self, pool: &Pool, domains: &[Arc<Domain>], turn: usize) -> Option<RawTask> {
        match turn {
            0 if !pool.injector.is_empty() => self.take_injected(pool),
            1 => self.queue.pop(),
            _ => {
                let lanes: usize = domains.iter().map(|domain| domain.lanes()).sum();
                let turns = ROUND as usize - 2;
                let mut lane = turn.checked_sub(2)?;
                if lanes > turns {
                    // More lanes than turns: each round goes on where the one before ended.
                    lane = (lane + self.round.get().wrapping_mul(turns)) % lanes;
                }
                for domain in domains {
                    match domain.lanes() {
                        lanes if lane < lanes => return domain.pop_lane(lane),
                        lanes => lane -= lanes,
                    }
                }
                None
            }
        }
    }

    fn take_injected(&self, pool: &Pool) -> Option<RawTask> {
        loop {
            match pool.injector.steal_batch_and_pop(&self.queue) {
                Steal::Success(task) => return Some(task),
                Steal::Empty => return None,
                Steal::Retry => {}
            }
        }
    }

    /// Takes from another worker: while `patient`, only from those that have plenty.
    pub(crate) fn steal(&self, pool: &Pool, patient: bool) -> Option<RawTask> {
        let workers = pool.stealers.len();
        let start = self.next_random() as usize % workers;
        for victim in (start..workers).chain(0..start) {
            let stealer = &pool.stealers[victim];
            if victim == self.index || stealer.len() < if patient { PATIENT_LEN } else { 1 } {
                continue;
            }
            loop {
                match stealer.steal_batch_and_pop(&self.queue) {
                    Steal::Success(task) => return Some(task),
                    Steal::Empty => break,
                    Steal::Retry => {}
                }
            }
        }
        None
    }

    /// A task that everybody else should come before.
    pub(crate) fn pick_low(&self) -> Option<RawTask> {
        self.domains.borrow().1.iter().max_by_key(|domain| domain.best()).and_then(|domain| domain.pop())
    }

    /// True if this worker could find something: what it looks at before it sleeps.
    pub(crate) fn sees_work(&self, pool: &Pool) -> bool {
        self.refresh(pool);
        !pool.injector.is_empty()
            || pool.stealers.iter().any(|stealer| !stealer.is_empty())
            || self.domains.borrow().1.iter().any(|domain| domain.best() != EMPTY)
    }

    /// A worker that was woken for a lane and found something else passes the wake on.
    pub(crate) fn wake_for_lanes(&self, pool: &Pool) {
        for domain in self.domains.borrow().1.iter().filter(|domain| domain.best() != EMPTY) {
            pool.sleep.wake_one_of(&domain.workers);
        }
    }

    fn refresh(&self, pool: &Pool) {
        let version = pool.domains.version();
        if self.domains.borrow().0 != version {
            *self.domains.borrow_mut() = (version, pool.domains.with(self.index));
        }
    }

    fn next_random(&self) -> u32 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random.set(x);
        x
    }
}
