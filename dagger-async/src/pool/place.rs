//! The place of a worker: its queue, and in which order it takes tasks.
//!
//! ```text
//!   pick:   what has waited for 61 picks
//!           priority > 0   slot   own queue, submissions / lanes of priority 0   steal   priority < 0
//! ```
//! 1. A place belongs to one thread at a time and moves to another when its thread blocks.
//! 2. The slot holds the successor that the last completion made ready; after [`STREAK_MAX`] in a row it queues.
//! 3. While there are tasks in lanes, a lane, the own queue or what was submitted goes first, whatever its priority, if nothing was taken
//!    from it for some fifty picks: nothing waits for ever, and a few tasks run in the order of their priorities. Otherwise what was
//!    submitted has one pick in 61.

use super::Pool;
use super::domain::{Domain, EMPTY, EVERY, OVERDUE};
use super::patience::{self, Patience};
use super::standby::Attendance;
use crate::record;
use crate::sync::spin;
use crate::task::RawTask;
use crossbeam_deque::{Steal, Worker};
use dagger_core::record::What;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Picks of the slot in a row.
const STREAK_MAX: u32 = 16;
/// Picks in a round, at whose begin what was submitted comes first.
const ROUND: u32 = 61;
/// Queues of this length are stolen from at once, unless that is done too often; shorter ones when the thief's patience has ended
/// (`patience.rs`).
const PLENTY: usize = 4;
/// Turns of a waiting loop between two looks at somebody who has plenty and is left alone, half a microsecond or more: looking
/// takes the lines of its queue away from it.
pub(crate) const REST: u32 = 32;

/// What a worker owns.
pub(crate) struct Place {
    pub(crate) index: usize,
    queue: Worker<RawTask>,
    slot: Cell<Option<RawTask>>,
    streak: Cell<u32>,
    tick: Cell<u32>,
    /// There were tasks in lanes at the last pick.
    has_lanes: Cell<bool>,
    /// Picks since then, and since its queue was last empty or taken from, or what was submitted was.
    queue_waits: Cell<u32>,
    submissions_wait: Cell<u32>,
    /// Who has had a turn last, of those that have submitted something.
    turn: Cell<usize>,
    /// Which domain is the first to be asked for what is overdue.
    first_domain: Cell<usize>,
    random: Cell<u32>,
    /// A body just returned to the worker's loop: what its completion makes ready may use the slot.
    pub(crate) finishing: Cell<bool>,
    domains: RefCell<(u32, Vec<Arc<Domain>>)>,
    /// With each other worker.
    patience: RefCell<Vec<Patience>>,
    /// Whether it takes part, and what it knows about that.
    pub(super) attendance: RefCell<Attendance>,
    /// It has to stand by before it takes another task.
    stands_by: Cell<bool>,
}

impl Place {
    pub(crate) fn new(index: usize, queue: Worker<RawTask>, workers: usize) -> Self {
        Place {
            index,
            queue,
            slot: Cell::new(None),
            streak: Cell::new(0),
            tick: Cell::new(0),
            has_lanes: Cell::new(false),
            queue_waits: Cell::new(0),
            submissions_wait: Cell::new(0),
            turn: Cell::new(index),
            first_domain: Cell::new(0),
            random: Cell::new(0x9E37_79B9 ^ (index as u32 + 1)),
            finishing: Cell::new(false),
            domains: RefCell::new((0, Vec::new())),
            patience: RefCell::new(vec![Patience::NEW; workers]),
            attendance: RefCell::new(Attendance::new()),
            stands_by: Cell::new(false),
        }
    }

    /// Keeps a plain task to be run here next, if it is the first that the end of another has made ready. False: it is for all.
    #[inline(always)]
    pub(crate) fn keep_next(&self, task: RawTask) -> bool {
        let is_next = self.finishing.get() && self.slot.get().is_none();
        if is_next {
            self.slot.set(Some(task));
        }
        is_next
    }

    /// Queues a plain task, for all.
    #[inline]
    pub(crate) fn push(&self, task: RawTask) {
        self.queue.push(task);
    }

    /// Empties the slot into the queue, where others can reach it.
    #[inline]
    pub(crate) fn flush_slot(&self, pool: &Pool) {
        if let Some(task) = self.slot.take() {
            self.queue.push(task);
            pool.sleep.wake_one();
        }
    }

    /// As [`flush_slot`](Self::flush_slot), then takes the oldest of the queue: alone there it is what was in the slot, and nobody
    /// has to be woken for it.
    #[inline]
    fn flush_and_pop(&self, pool: &Pool) -> Option<RawTask> {
        if let Some(task) = self.slot.take() {
            self.queue.push(task);
            pool.sleep.wake_one_beside(|| self.is_alone());
        }
        self.queue.pop()
    }

    /// The next task from what this worker has or shares, without stealing.
    #[inline(always)]
    pub(crate) fn pick(&self, pool: &Pool) -> Option<RawTask> {
        let tick = self.tick.get();
        if tick + 1 == ROUND {
            self.tick.set(0);
        } else {
            self.tick.set(tick + 1);
        }
        if tick != 0 && pool.domains.are_empty() {
            // Most picks: plain tasks only, and nobody's turn.
            self.has_lanes.set(false);
            return match self.take_slot() {
                None => self.pick_plain(pool),
                task => task,
            };
        }
        self.pick_in_turn(pool, tick)
    }

    /// One that is not in the slot, which is emptied here in any case: nobody can steal from it.
    #[inline]
    fn pick_plain(&self, pool: &Pool) -> Option<RawTask> {
        match self.flush_and_pop(pool) {
            None => self.take_submitted(pool),
            task => task,
        }
    }

    #[inline(never)]
    fn pick_in_turn(&self, pool: &Pool, tick: u32) -> Option<RawTask> {
        if tick == 0 && pool.stealers.len() > 1 {
            pool.count_round(self.index);
            self.stands_by.set(!self.attendance.borrow_mut().ask(pool, ROUND));
        }
        let picked = if pool.domains.are_empty() {
            self.has_lanes.set(false);
            match if tick == 0 { self.take_submitted(pool) } else { None } {
                None => return self.pick_plain(pool),
                submitted => submitted,
            }
        } else {
            self.pick_by_lanes(pool, tick)
        };
        // While another body runs here the slot's task must lie in the queue.
        self.flush_slot(pool);
        picked
    }

    /// True if it has to stand by before it takes another task (`standby.rs`). Says so once.
    #[inline]
    pub(crate) fn has_to_stand_by(&self) -> bool {
        self.stands_by.get() && self.stands_by.replace(false)
    }

    /// Leaves what it has to whoever comes for it.
    pub(super) fn give_back(&self, pool: &Pool) {
        let mut gave = false;
        while let Some(task) = self.queue.pop().or_else(|| self.slot.take()) {
            pool.submissions.share_quietly(task);
            gave = true;
        }
        if gave {
            pool.sleep.wake_one();
        }
    }

    /// The slot's task, unless it has had its turns.
    #[inline]
    fn take_slot(&self) -> Option<RawTask> {
        let task = self.slot.take();
        if task.is_none() {
            self.streak.set(0);
        } else if self.streak.get() >= STREAK_MAX {
            self.streak.set(0);
            self.slot.set(task);
            return None;
        } else {
            self.streak.set(self.streak.get() + 1);
        }
        task
    }

    fn pick_by_lanes(&self, pool: &Pool, tick: u32) -> Option<RawTask> {
        self.refresh(pool);
        let domains = &self.domains.borrow().1;
        if let Some(task) = self.pick_overdue(pool, domains, tick) {
            return Some(task);
        }
        let best = domains.iter().map(|domain| domain.best()).max().unwrap_or(EMPTY).priority();
        // Ranks are an order within a domain: among domains of one priority each has its turn.
        let in_turn =
            || domains.iter().cycle().skip(tick as usize / 2 % domains.len().max(1)).take(domains.len());
        let from_best =
            || in_turn().find(|domain| domain.best().priority() == best).and_then(|domain| domain.pop());
        // Tasks bound to this worker cannot go elsewhere, so in every other pick they go before plain ones; and those that
        // much waits for.
        if (best > 0 || best == 0 && tick.is_multiple_of(2))
            && let Some(task) = from_best()
        {
            return Some(task);
        }
        if let Some(task) = self.take_slot() {
            return Some(task);
        }
        self.flush_slot(pool);
        if let Some(task) = self.take_queued().or_else(|| self.take_waiting(pool)) {
            return Some(task);
        }
        if best == 0 { from_best() } else { None }
    }

    /// What nothing was taken from for too long (invariant 3).
    fn pick_overdue(&self, pool: &Pool, domains: &[Arc<Domain>], tick: u32) -> Option<RawTask> {
        if !self.has_lanes.replace(true) {
            self.queue_waits.set(0);
            self.submissions_wait.set(0);
        }
        let wait = |waits: &Cell<u32>, is_empty: bool| {
            waits.set(if is_empty { 0 } else { waits.get().saturating_add(1) });
            waits.get()
        };
        let queue = wait(&self.queue_waits, self.queue.is_empty());
        let submissions = wait(&self.submissions_wait, pool.submissions.is_empty());
        let mut picked = match () {
            () if queue.max(submissions) <= OVERDUE => None,
            () if queue >= submissions => self.take_queued(),
            () => self.take_waiting(pool),
        };
        if tick.is_multiple_of(EVERY) {
            // All of them are told of the picks, and each is the first in turn.
            let first = self.first_domain.get() % domains.len().max(1);
            self.first_domain.set(first + 1);
            for domain in domains.iter().cycle().skip(first).take(domains.len()) {
                let overdue = domain.pop_overdue(picked.is_none());
                picked = picked.or(overdue);
            }
        }
        picked
    }

    /// While there are tasks in lanes: from the own queue.
    fn take_queued(&self) -> Option<RawTask> {
        self.queue.pop().inspect(|_| self.queue_waits.set(0))
    }

    /// While there are tasks in lanes: of what was submitted.
    fn take_waiting(&self, pool: &Pool) -> Option<RawTask> {
        self.take_submitted(pool).inspect(|_| self.submissions_wait.set(0))
    }

    #[inline]
    fn take_submitted(&self, pool: &Pool) -> Option<RawTask> {
        pool.submissions.take(&self.turn, &self.queue, &pool.sleep)
    }

    /// True if the queue has no second task.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.queue.len() <= 1
    }

    /// Takes from another worker: at once from one that has plenty (but not all the time), from others only when their tasks are not
    /// small. A worker that goes through small tasks is faster alone (`patience.rs`).
    pub(crate) fn steal(&self, pool: &Pool) -> Option<RawTask> {
        let workers = pool.stealers.len();
        let start = self.next_random() as usize % workers;
        let mut patience = self.patience.borrow_mut();
        let by_plan = pool.planned.load(Relaxed) != 0;
        let mut rests = false;
        for victim in (start..workers).chain(0..start) {
            let stealer = &pool.stealers[victim];
            if victim == self.index || stealer.is_empty() {
                continue;
            }
            let is_short = stealer.len() < PLENTY;
            let patience = &mut patience[victim];
            let now = Instant::now();
            let may_take = !is_short && patience.takes_at_once(now)
                || if by_plan {
                    patience.is_slow(pool.progress(victim), patience::SLOW_BY_PLAN, now)
                } else {
                    patience.ends(|| pool.progress(victim), patience::SLOW, now)
                };
            if !may_take {
                rests |= !is_short;
                continue;
            }
            loop {
                match stealer.steal_batch_and_pop(&self.queue) {
                    Steal::Success(task) => {
                        record::note(|| What::Steal { from: victim });
                        return Some(task);
                    }
                    Steal::Empty => break,
                    Steal::Retry => {}
                }
            }
        }
        if rests {
            spin(REST);
        }
        None
    }

    /// A task that everybody else should come before.
    pub(crate) fn pick_low(&self, pool: &Pool) -> Option<RawTask> {
        if pool.domains.are_empty() {
            return None;
        }
        self.domains.borrow().1.iter().max_by_key(|domain| domain.best()).and_then(|domain| domain.pop())
    }

    /// True if this worker could find something: what it looks at before it sleeps. Short queues of others count unless
    /// somebody `watches` them.
    pub(crate) fn sees_work(&self, pool: &Pool, watches: bool) -> bool {
        let enough = if watches { PLENTY } else { 1 };
        if !pool.submissions.is_empty() || pool.stealers.iter().any(|stealer| stealer.len() >= enough) {
            return true;
        }
        // Not by the count of lane tasks: `sleep` relies on what the lanes themselves publish.
        self.refresh(pool);
        self.domains.borrow().1.iter().any(|domain| domain.best() != EMPTY)
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
