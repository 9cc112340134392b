//! What a thread knows of where it is: worker, runtime, task, options in effect.
//!
//! 1. Every pointer but `own` is set for the length of a call on this thread's stack and put back after it, so that what it
//!    points to outlives it.
//! 2. `pool` is kept alive by the one who set it: whoever runs here may use it without counting.

use super::submissions::Own;
use super::{Place, Pool};
use crate::options::Options;
use crate::scoped::Frame;
use crate::task::RawTask;
use std::cell::Cell;
use std::ptr::null;
use std::sync::Arc;

thread_local! {
    static LOCAL: Local = const {
        Local { place: Cell::new(null()), employer: Cell::new(null()), pool: Cell::new(null()), task: Cell::new(None), lost_place: Cell::new(false), thread: Cell::new(usize::MAX),
            depth: Cell::new(0), searched: Cell::new(0), layer: Cell::new(null()), queue: Cell::new(null()), own: Cell::new(null()) }
    };
}

/// The state of this thread.
pub(crate) struct Local {
    /// The worker's place, while the thread has one.
    place: Cell<*const Place>,
    /// The pool that the place belongs to. `pool` may be another one, inside `Runtime::run` or `block_on`.
    employer: Cell<*const Pool>,
    pool: Cell<*const Pool>,
    /// The task whose body is being polled.
    task: Cell<Option<RawTask>>,
    /// The body on this stack gave its place to a spare thread.
    pub(crate) lost_place: Cell<bool>,
    /// The number of the worker (or of the thread beside the workers) that runs here.
    pub(crate) thread: Cell<usize>,
    /// How many tasks the deadlock searches of this poll have looked at.
    pub(crate) searched: Cell<usize>,
    /// How many bodies are on this stack.
    pub(crate) depth: Cell<u32>,
    /// The options of `with_options` in effect.
    layer: Cell<*const Arc<Options>>,
    /// The innermost block whose body is being polled.
    queue: Cell<*const Frame>,
    /// Where it has submitted last, as no worker.
    own: Cell<*const Own>,
}

/// Runs `f` with this thread's state.
#[inline(always)]
pub(crate) fn with<R>(f: impl FnOnce(&Local) -> R) -> R {
    // Only the address goes through the accessor, so that `f` is not moved, and becomes a part of its caller.
    let local = LOCAL.with(std::ptr::from_ref);
    const { assert!(!std::mem::needs_drop::<Local>(), "it is there until the thread is gone") };
    // SAFETY: this thread's, which goes on until `f` has returned; it is never torn down before that (asserted).
    f(unsafe { &*local })
}

impl Local {
    #[inline]
    pub(crate) fn place(&self) -> Option<&Place> {
        // SAFETY: set by `set_place` to a place that this thread owns until `take_place`; callers do not keep the
        // reference across user code (worker.rs, invariant 2).
        unsafe { self.place.get().as_ref() }
    }
    /// The place, if it belongs to this pool.
    #[inline]
    pub(crate) fn place_of(&self, pool: *const Pool) -> Option<&Place> {
        if std::ptr::eq(self.employer.get(), pool) { self.place() } else { None }
    }
    /// Makes the thread the owner of a place of a pool, which it keeps alive until it gives the place away.
    pub(crate) fn set_place(&self, place: Box<Place>, pool: &Pool) {
        debug_assert!(self.place.get().is_null());
        self.employer.set(pool);
        self.thread.set(place.index);
        self.place.set(Box::into_raw(place));
    }
    /// The pool that the thread's place belongs to, while it has one.
    #[inline]
    pub(crate) fn employer(&self) -> Option<&Pool> {
        // SAFETY: kept by the worker's loop, which is further down this stack (`set_place`).
        self.place().and(unsafe { self.employer.get().as_ref() })
    }
    /// Takes the place from the thread.
    pub(crate) fn take_place(&self) -> Option<Box<Place>> {
        let place = self.place.replace(null()).cast_mut();
        // SAFETY: it came from `Box::into_raw` in `set_place` and is taken once.
        (!place.is_null()).then(|| unsafe { Box::from_raw(place) })
    }
    #[inline]
    pub(crate) fn pool(&self) -> Option<&Pool> {
        // SAFETY: invariant 2.
        unsafe { self.pool.get().as_ref() }
    }
    #[inline]
    pub(crate) fn is_in(&self, pool: *const Pool) -> bool {
        std::ptr::eq(self.pool.get(), pool)
    }
    #[inline]
    pub(crate) fn task(&self) -> Option<RawTask> {
        self.task.get()
    }
    #[inline]
    pub(crate) fn layer(&self) -> Option<&Arc<Options>> {
        // SAFETY: invariant 1.
        unsafe { self.layer.get().as_ref() }
    }
    #[inline]
    pub(crate) fn queue(&self) -> Option<&Frame> {
        // SAFETY: invariant 1.
        unsafe { self.queue.get().as_ref() }
    }
    /// True if no option, no block that orders or holds back and no run of a ranked plan is in effect here.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.layer.get().is_null() && self.queue().is_none_or(Frame::is_plain)
    }

    /// What this thread has at the pool to which it has submitted last.
    #[inline]
    pub(super) fn own_submissions(&self) -> Option<&Own> {
        // SAFETY: `submissions.rs` sets it to what this thread keeps, and to null before that goes, with the thread or when pools are
        // forgotten, which is in `Submissions::own` alone: callers do not keep the reference across another call of that.
        unsafe { self.own.get().as_ref() }
    }
    pub(super) fn set_own_submissions(&self, own: *const Own) {
        self.own.set(own);
    }

    /// The thread works for `pool`, on no task, until the guard is dropped. The caller keeps the pool for as long.
    pub(crate) fn enter_pool(&self, pool: &Pool) -> Entered<'_> {
        let entered = self.leave_task();
        self.pool.set(pool);
        entered
    }
    /// Spawns go to `pool` until the guard is dropped. The caller keeps the pool for as long.
    pub(crate) fn enter_runtime(&self, pool: &Pool) -> Entered<'_> {
        let entered = self.remember();
        self.pool.set(pool);
        entered
    }
    /// The body of `task` is being polled until the guard is dropped.
    #[inline]
    pub(crate) fn enter_task(&self, task: RawTask, layer: Option<&Arc<Options>>) -> Entered<'_> {
        let entered = self.remember();
        self.pool.set(task.pool);
        self.task.set(Some(task));
        self.layer.set(layer.map_or(null(), std::ptr::from_ref));
        self.searched.set(0);
        self.queue.set(null());
        self.depth.set(self.depth.get() + 1);
        entered
    }
    /// No task is running here until the guard is dropped (`block_on`).
    pub(crate) fn leave_task(&self) -> Entered<'_> {
        let entered = self.remember();
        self.task.set(None);
        self.layer.set(null());
        self.queue.set(null());
        entered
    }
    /// Spawns belong to no block and have no options of one until the guard is dropped.
    pub(crate) fn leave_blocks(&self) -> Entered<'_> {
        let entered = self.remember();
        self.layer.set(null());
        self.queue.set(null());
        entered
    }
    pub(crate) fn enter_layer(&self, layer: &Arc<Options>) -> Entered<'_> {
        let entered = self.remember();
        self.layer.set(layer);
        entered
    }
    pub(crate) fn enter_queue(&self, queue: &Frame) -> Entered<'_> {
        let entered = self.remember();
        self.queue.set(queue);
        entered
    }
    #[inline]
    fn remember(&self) -> Entered<'_> {
        Entered {
            local: self,
            pool: self.pool.get(),
            task: self.task.get(),
            layer: self.layer.get(),
            queue: self.queue.get(),
            depth: self.depth.get(),
        }
    }
}

/// Puts the thread's state back when dropped.
pub(crate) struct Entered<'a> {
    local: &'a Local,
    pool: *const Pool,
    task: Option<RawTask>,
    layer: *const Arc<Options>,
    queue: *const Frame,
    depth: u32,
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        self.local.pool.set(self.pool);
        self.local.task.set(self.task);
        self.local.layer.set(self.layer);
        self.local.queue.set(self.queue);
        self.local.depth.set(self.depth);
    }
}
