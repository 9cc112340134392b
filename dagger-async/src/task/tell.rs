//! Who is told of what: successors of a task that is done, those whose turn at a chunk came, and what they become by that.
//!
//! Failure travels by a worklist, so a chain of a million tasks needs no stack.

use super::cell::RawTask;
use super::edge::Successors;
use super::run::{end_into, untie};
use super::state::Ready;
use crate::chunk::{Held, Other, Outcome, Tickets, Whose};
use crate::error::Error;
use crate::plan::Run;
use crate::pool::local;
use crate::record;
use crate::residency;
use dagger_core::record::What;
use std::mem::ManuallyDrop;

/// What a body may have done to what it accesses.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Written, as far as it came.
    Ran,
    /// Nothing: what it declared could not be granted.
    Void,
}

/// Tells those who wait for a task that is done and gone, and gives up what it accessed.
///
/// # Safety
/// As for [`Work::release`].
#[inline(never)]
pub(super) unsafe fn pass_on(task: RawTask, successors: Successors, failure: Option<Error>, effect: Effect) {
    let mut work = ManuallyDrop::new(Work::new());
    // SAFETY: the caller's promise.
    unsafe { work.release(task, effect) };
    work.tell_tasks();
    if work.tickets.has_more() {
        work.tell_more();
    }
    if !successors.is_empty() {
        work.tell(successors, failure.map(Box::new));
    }
    work.drain();
    if !work.owns_nothing() {
        // Moved only here: a copy reads in large pieces what was just written in small ones, and so waits for the writes.
        drop(ManuallyDrop::into_inner(work));
    }
}

/// Who is still to be told: successors, with the failure that they take on, and those whose turn at a chunk came.
pub(crate) struct Work {
    successors: Vec<(Successors, Option<Box<Error>>)>,
    pub(crate) tickets: Tickets,
}

impl Work {
    #[inline]
    pub(crate) fn new() -> Self {
        Work { successors: Vec::new(), tickets: Tickets::new() }
    }

    /// Its drop, which is a call, would do nothing: so with most.
    #[inline]
    fn owns_nothing(&self) -> bool {
        self.successors.capacity() == 0 && self.tickets.owns_nothing()
    }

    pub(super) fn tell_later(&mut self, successors: Successors, failure: Option<Box<Error>>) {
        if !successors.is_empty() {
            self.successors.push((successors, failure));
        }
    }

    /// Gives up what a task accessed whose body is gone, and which is done.
    ///
    /// # Safety
    /// The caller has set `GONE`, and calls this once.
    #[inline(always)]
    unsafe fn release(&mut self, task: RawTask, effect: Effect) {
        let admitted = residency::is_admitted(task);
        let outcome = match (effect, task.error()) {
            (Effect::Void, _) => Outcome::Void,
            (Effect::Ran, Some(error)) => Outcome::Failed(error),
            (Effect::Ran, None) => Outcome::Wrote,
        };
        if admitted {
            // All pins before the first place, which may be what keeps a chunk.
            // SAFETY: the caller's promise.
            unsafe { residency::leave_all(task, outcome) };
        }
        // SAFETY: the caller's promise: they are ours.
        let step = unsafe { task.gone_accesses() }.first().and_then(Held::followed);
        // Backwards: of those that share a place the first one has it.
        // SAFETY: as above.
        for access in unsafe { task.take_accesses() } {
            // SAFETY: it is ours, and there until it is read.
            let held = unsafe { access.as_ref() };
            let is_over = match step {
                None => held.release_quickly(outcome, &mut self.tickets),
                Some(_) => held.is_whole() && held.leaves_nothing(outcome),
            };
            if !is_over {
                // SAFETY: ours, and not used again.
                unsafe { access.read() }.release_slowly(outcome, &mut self.tickets);
            }
        }
        if admitted {
            residency::left(task);
        }
        if let Some((run, step)) = step {
            // SAFETY: the accesses of the step are released, once.
            unsafe { Run::complete(run, step, task, &mut self.tickets) };
        }
    }

    /// Tells successors now; what that ends is told later.
    #[inline]
    fn tell(&mut self, successors: Successors, failure: Option<Box<Error>>) {
        for (successor, takes_failure) in successors {
            if let (true, Some(error)) = (takes_failure, &failure) {
                end_into(successor, true, |header| error.passed_to(|| header.info()), self);
            }
            if successor.input_came() {
                ready_into(successor, self);
            }
        }
    }

    /// Tells the tasks whose turn came, in the order of their turns; telling one may add others.
    #[inline(always)]
    fn tell_tasks(&mut self) {
        let mut told = 0;
        while let Some(task) = self.tickets.task(told) {
            told += 1;
            if task.input_came() {
                ready_here(task, self);
            }
        }
        self.tickets.clear_tasks();
    }

    /// Tells others whose turn came, and tasks that came after many; telling one may add others.
    #[cold]
    fn tell_more(&mut self) {
        for ticket in self.tickets.take_more() {
            match ticket.whose() {
                Whose::Task(task) => {
                    if task.input_came() {
                        ready_into(task, self);
                    }
                }
                Whose::Other(Other::Plan(_)) => {} // Its places are granted when they are taken.
                Whose::Other(Other::Guard(wait, index)) => wait.granted(*index, &mut self.tickets),
            }
        }
    }

    /// Tells all that are left, and those that come to be by that.
    #[inline]
    pub(crate) fn drain(&mut self) {
        while !self.tickets.is_empty() || !self.successors.is_empty() {
            self.drain_once();
        }
    }

    fn drain_once(&mut self) {
        self.tell_tasks();
        self.tell_more();
        if let Some((successors, failure)) = self.successors.pop() {
            self.tell(successors, failure);
        }
    }
}

/// The last input of a task is there (or a block let go of it).
pub(crate) fn ready(task: RawTask) {
    let mut work = Work::new();
    ready_into(task, &mut work);
    work.drain();
}

/// The last input of a task is there; whom that lets go of is told by the caller.
#[inline(never)]
fn ready_into(task: RawTask, work: &mut Work) {
    ready_here(task, work);
}

/// As [`ready_into`], for the way that most tasks with accesses go.
#[inline(always)]
fn ready_here(task: RawTask, work: &mut Work) {
    let mut guard = task.state.lock();
    match guard.ready() {
        Ready::Push => {
            drop(guard);
            record::note(|| What::Ready { task: task.id.get() });
            if !residency::defer_if_absent(task) {
                push(task);
            }
        }
        Ready::Discard => {
            // What only comes after it in order has waited for this.
            let successors = Successors::take(task.guarded(&guard));
            drop(guard);
            discard_ended(task, successors, work);
        }
    }
}

/// The last input came to a task that was ended while it waited.
#[cold]
fn discard_ended(task: RawTask, successors: Successors, work: &mut Work) {
    // SAFETY: the last input owns the body (`cell.rs`, 3).
    unsafe { (task.vtable.drop_body)(task) };
    work.tell_later(successors, None);
    // SAFETY: `ready` has set `GONE`, just now.
    unsafe { work.release(task, Effect::Ran) };
    untie(task);
    task.release_scheduler();
}

/// Queues a task that this caller took from `Waiting` to `Queued`.
fn push(task: RawTask) {
    local::with(|local| {
        // SAFETY: `cell.rs`, invariant 5: it is queued for the first time and not in a queue yet, so nobody else can run
        // it.
        let pool = unsafe { &*task.pool };
        if local.is_in(task.pool) {
            pool.enqueue(task, local);
        } else {
            pool.keep().enqueue(task, local);
        }
    });
}
