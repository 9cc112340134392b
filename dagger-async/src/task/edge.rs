//! Edges between tasks: the list that an input keeps of its successors, and how a task that is being spawned gets into it.
//!
//! An edge lies in the successor and is in the list of its input from `Linker::after` until the input is done (`cell.rs`,
//! invariant 4).

use super::cell::{Guarded, RawTask};
use super::state::Locked;
use crate::call::Body;
use crate::chunk::{Held, Refusal};
use crate::error::Error;
use crate::pool::Pool;
use crate::record;
use dagger_core::record::{Cause, What};
use std::cell::Cell;
use std::ptr::NonNull;

/// A place in the successor list of an input. Lies in the successor (`cell.rs`, invariant 4).
pub(crate) struct Edge {
    next: Cell<*const Edge>,
    successor: Cell<Option<RawTask>>,
    /// The input's failure is the successor's failure; else only the order counts.
    passes_failure: bool,
}

// SAFETY: written by `link` before it is published, then read and written only under the lock of the input, then
// only by the completion that took the list.
unsafe impl Send for Edge {}
// SAFETY: as above.
unsafe impl Sync for Edge {}

impl Edge {
    /// An edge that hands on the failure of its input.
    pub(crate) fn new() -> Self {
        Edge { next: Cell::new(std::ptr::null()), successor: Cell::new(None), passes_failure: true }
    }
    /// An edge that only orders.
    pub(crate) fn order_only() -> Self {
        Edge { passes_failure: false, ..Edge::new() }
    }
}

/// The successors that a completion took over, first linked first.
pub(crate) struct Successors(*const Edge);

impl Successors {
    /// Takes a list that was pushed at its head and reverses it.
    #[inline]
    pub(crate) fn take(guarded: &mut Guarded) -> Self {
        let mut edge = std::mem::replace(&mut guarded.successors, std::ptr::null());
        let mut reversed: *const Edge = std::ptr::null();
        while !edge.is_null() {
            // SAFETY: `cell.rs`, invariant 4: linked edges stay where they are until their input is processed.
            let this = unsafe { &*edge };
            edge = this.next.replace(reversed);
            reversed = this;
        }
        Successors(reversed)
    }
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_null()
    }

    /// One of them takes on a failure.
    pub(crate) fn has_dependent(&self) -> bool {
        let mut edge = self.0;
        // SAFETY: as in `take`.
        while let Some(this) = unsafe { edge.as_ref() } {
            if this.passes_failure {
                return true;
            }
            edge = this.next.get();
        }
        false
    }

    /// Takes those that take on a failure; mere order waits until the body is gone.
    pub(crate) fn take_dependent(guarded: &mut Guarded) -> Self {
        let mut taken: *const Edge = std::ptr::null();
        let mut kept: *const Edge = std::ptr::null();
        let mut all = Successors::take(guarded).0; // In order: pushing them reverses it, twice in all.
        while !all.is_null() {
            // SAFETY: as in `take`.
            let this = unsafe { &*all };
            let list = if this.passes_failure { &mut taken } else { &mut kept };
            all = this.next.replace(*list);
            *list = this;
        }
        guarded.successors = taken;
        let taken = Successors::take(guarded);
        guarded.successors = kept;
        taken
    }
}

impl Iterator for Successors {
    /// The successor, and whether it takes on a failure.
    type Item = (RawTask, bool);
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_null() {
            return None;
        }
        // SAFETY: `cell.rs`, invariant 4: the successor has not been told of this input yet, so its body is in place. All of
        // the edge is read here, before the caller's decrement of `pending` may let it go.
        let edge = unsafe { &*self.0 };
        self.0 = edge.next.get();
        edge.successor.get().map(|successor| (successor, edge.passes_failure))
    }
}

/// Calls `visit` with the successors that wait for `task`.
pub(crate) fn visit_successors(task: RawTask, guard: &Locked<'_>, visit: &mut dyn FnMut(RawTask)) {
    let mut edge = task.guarded(guard).successors;
    while !edge.is_null() {
        // SAFETY: `cell.rs`, invariant 4, and the lock keeps the list.
        let this = unsafe { &*edge };
        if let Some(successor) = this.successor.get() {
            visit(successor);
        }
        edge = this.next.get();
    }
}

/// True if all that need the value of `task` are among these.
#[cfg(feature = "store")]
pub(crate) fn feeds_only(task: RawTask, guard: &Locked<'_>, among: &dyn Fn(RawTask) -> bool) -> bool {
    let mut edge = task.guarded(guard).successors;
    // SAFETY: `cell.rs`, invariant 4, and the lock keeps the list.
    while let Some(this) = unsafe { edge.as_ref() } {
        if this.passes_failure && !this.successor.get().is_some_and(among) {
            return false;
        }
        edge = this.next.get();
    }
    true
}

/// Collects the inputs of a task that is being spawned.
pub struct Linker {
    task: RawTask,
    /// How many inputs are not there yet.
    pub(crate) waiting: u32,
    /// The first failure among those that are.
    pub(crate) failure: Option<Box<Error>>,
    /// It waits for something outside its pool: the shutdown must find it.
    pub(crate) registers: bool,
    /// Where its accesses are written, how many have been, and how many there is room for.
    accesses: NonNull<Held>,
    pub(super) linked: u16,
    room: u16,
    /// The first access that cannot be.
    pub(crate) refused: Option<Box<Refusal>>,
    /// What its inputs are.
    pub(crate) cause: Cause,
    /// The block that it is spawned in has not listed it: it may be a step of its plan.
    pub(crate) may_be_step: bool,
}

impl Linker {
    /// For a task with this body.
    #[inline]
    pub(crate) fn new<B: Body>(task: RawTask) -> Self {
        Linker {
            task,
            waiting: 0,
            failure: None,
            registers: false,
            accesses: task.room_for_accesses::<B>(),
            linked: 0,
            room: const {
                assert!(B::ACCESSES < 1 << 16, "a call has fewer arguments");
                B::ACCESSES as u16
            },
            refused: None,
            cause: Cause::Argument,
            may_be_step: false,
        }
    }

    /// Its drop would do nothing.
    #[inline]
    pub(crate) fn owns_nothing(&self) -> bool {
        self.failure.is_none() && self.refused.is_none()
    }

    /// Makes the task wait for the end of a block: one more input, without an edge.
    pub(crate) fn hold(&mut self) {
        self.waiting += 1;
        self.registers = true;
    }

    /// The pool of the task.
    #[inline]
    pub(crate) fn pool(&self) -> &Pool {
        // SAFETY: `spawn.rs` makes tasks of a pool that it refers to, and links them in the same call.
        unsafe { &*self.task.pool }
    }

    /// Makes the task access a chunk.
    #[inline(always)]
    pub(crate) fn access(&mut self, access: Result<Held, Refusal>) {
        match access {
            Ok(mut held) => {
                assert!(self.linked < self.room, "a body links as many accesses as it says");
                held.set_argument(self.linked + 1);
                // SAFETY: there is room for another one (asserted), and nobody else knows the task, which counts them
                // when all are there.
                unsafe { self.accesses.add(usize::from(self.linked)).write(held) };
                self.linked += 1;
            }
            Err(refusal) => _ = self.refused.get_or_insert_with(|| Box::new(refusal)),
        }
    }

    /// Makes the task wait for `input`. The edge lies in the task and is used once.
    pub(crate) fn after(&mut self, input: RawTask, edge: &Edge) {
        record::note(|| What::After { task: self.task.id.get(), input: input.id.get(), cause: self.cause });
        let mut guard = input.state.lock();
        if !guard.is_done() || !edge.passes_failure && !guard.is_gone() {
            edge.successor.set(Some(self.task));
            let guarded = input.guarded(&guard);
            edge.next.set(guarded.successors);
            guarded.successors = edge;
            self.waiting += 1;
            self.registers |= !std::ptr::eq(input.pool, self.task.pool);
        } else if edge.passes_failure
            && !guard.has_value()
            && !guard.is_unneeded()
            && let Some(error) = input.error()
        {
            let error = error.clone();
            guard.set_observed();
            drop(guard);
            if self.failure.is_none() {
                let task = self.task;
                self.failure = Some(Box::new(error.passed_to(|| task.info())));
            }
        }
    }
}
