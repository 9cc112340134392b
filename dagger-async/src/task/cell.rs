//! The memory of a task: one allocation with header, then body, later result.
//!
//! ```text
//!  ┌ Header ──────────────────────────────────────────────┐┌ Slot ────────────────┐┌ Held ─────┐
//!  │ state  pending  refs  vtable  pool  id  origin  spec ││ body  ──▶  value     ││ each of   │
//!  │ guarded: wakers, successors, error (under the lock)  ││ (the value lies over ││ its       │
//!  └──────────────────────────────────────────────────────┘│  the finished body)  ││ accesses  │
//!                                                          └──────────────────────┘└───────────┘
//! ```
//! 1. The cell never moves; everything refers to it by pointer and is counted in `refs` (see `refs.rs`).
//! 2. `guarded` is touched only under the lock of `state`, or by the one who frees the cell.
//! 3. The slot holds the body until the phase is `Retired` (or its last input discards it), then the value while
//!    the flag `VALUE` is set, unless the only claim took it: that claim, and clones of it, remember so (`claim.rs`).
//!    The body is touched only by whoever took the task from `Queued` to `Running`, or brought its last input.
//! 4. An [`Edge`] lies in the body (or spec) of the successor and is in the list of its input from `link` until
//!    the input is done; `pending` keeps the body in place for as long.
//! 5. `pool` may be followed while the task is not retired, under the lock or by the owner of the body.
//! 6. The accesses are written by the one who spawns, before the bias leaves `pending`; from then until the body is gone
//!    (`GONE`) they are only read, under the lock or by who has the body; then whoever set `GONE` takes them.

use super::block::{self, Kept};
use super::edge::{Edge, Linker};
use super::id::{Origin, TaskId};
use super::refs::{Refs, Released};
use super::state::State;
use crate::call::{Body, CallsAgain, Stop};
use crate::cancel::CancelToken;
use crate::chunk::{Held, WaitingPlace};
use crate::error::{Error, TaskInfo};
use crate::options::{Options, Spec};
use crate::pool::Pool;
use crate::scoped::Ending;
use crate::sync::{AtomicU32, UnsafeCell, prefetch};
use std::alloc::Layout;
use std::mem::{ManuallyDrop, offset_of};
use std::ops::Deref;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicPtr, AtomicU32 as Counter,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use std::task::{Context, Poll, Waker};

/// Added to `pending` while a task is being spawned: more inputs than a task can have.
pub(crate) const BIAS: u32 = 1 << 31;

/// In `accesses`: how many there are.
const COUNT: u32 = (1 << 16) - 1;
/// In `accesses`: the store has admitted the task, so that each of its accesses that needs one has a pin.
#[cfg(feature = "store")]
const ADMITTED: u32 = 1 << 31;
/// In `accesses`: an admitted task runs, or is queued to.
#[cfg(feature = "store")]
const ACTIVE: u32 = 1 << 30;
/// In `accesses`: it has declared memory.
#[cfg(feature = "store")]
const DECLARES: u32 = 1 << 29;

/// What every task has. What every task uses comes first, so that it lies in few cache lines: they travel from the core
/// that spawns to the one that runs, and back.
#[repr(C)]
pub struct Header {
    pub(crate) state: State,
    /// Inputs that are not there, plus a bias while they are being linked.
    pub(crate) pending: AtomicU32,
    pub(crate) refs: Refs,
    pub(crate) vtable: &'static VTable,
    pub(crate) pool: *const Pool,
    guarded: UnsafeCell<Guarded>,
    /// Options, for the tasks that have any.
    pub(crate) spec: Option<Kept<Spec>>,
    /// Written once, under the lock, before `DONE` is published; read by whoever saw `DONE`.
    error: std::cell::UnsafeCell<Option<Box<Error>>>,
    /// How many accesses lie behind the slot, and whether the store has admitted it: changed by the one who spawns, then by
    /// whoever has the body or, before its first start, the lock.
    accesses: Counter,
    /// Wakers of the body that are not left with a task: while there are any, who wakes it is not known.
    pub(crate) foreign_wakers: AtomicU32,
    /// `fn(&T) -> T` once somebody who knew that `T: Clone` has said so.
    clone: AtomicPtr<()>,
    pub(crate) id: TaskId,
    pub(crate) origin: Origin,
}

/// What the lock protects.
#[repr(C)]
pub(crate) struct Guarded {
    pub(crate) waker: Option<Waker>,
    pub(crate) successors: *const Edge,
    rare: Option<Kept<Rare>>,
}

/// What tasks have that wait inside their body, or have an [`Extra`].
#[derive(Default)]
pub(crate) struct Rare {
    /// The task that this one waits for inside its body.
    pub(crate) awaiting: Awaiting,
    /// Place in the pool's list of suspended tasks, from the first suspension on.
    pub(crate) registered: Option<(u32, u32)>,
    extra: Option<Box<Extra>>,
}

/// For which task another one waits inside its body.
#[derive(Default)]
pub(crate) enum Awaiting {
    #[default]
    Nothing,
    /// An async body awaits this one, and has left the waker of its own task with it. Not counted: while the task that awaits is
    /// suspended, and its lock is held, this one is there. It is freed only after it has woken the other, which under that lock
    /// ends the suspension, or has given the waker back, which makes the other forget it (`waker.rs`).
    One(RawTask),
    /// An async body awaits this one some other way.
    Kept(TaskRef),
    /// An async body awaits several; which of them it needs we cannot know.
    Many,
    /// The thread is blocked until this one is done.
    Blocked(TaskRef),
    /// An async body awaits a guard.
    Guard(Arc<Vec<WaitingPlace>>),
}

/// A task to wait for without its value.
pub(crate) struct SyncDep {
    pub(crate) task: TaskRef,
    pub(crate) edge: Edge,
}

impl Guarded {
    /// The task is in no list, and waits for nobody inside its body.
    #[inline]
    pub(crate) fn is_free(&self) -> bool {
        self.rare.as_ref().is_none_or(|rare| {
            rare.extra.is_none() && rare.registered.is_none() && matches!(rare.awaiting, Awaiting::Nothing)
        })
    }

    /// It owns nothing.
    #[inline]
    fn is_bare(&self) -> bool {
        self.waker.is_none() && self.rare.is_none()
    }

    /// It has no [`Rare`], and with it no [`Extra`].
    #[inline]
    pub(crate) fn is_common(&self) -> bool {
        self.rare.is_none()
    }

    /// Made on first need.
    #[inline]
    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_with(|| Kept::new(Rare::default()))
    }

    /// For whom it waits inside its body, if it ever did.
    pub(crate) fn awaiting(&self) -> Option<&Awaiting> {
        self.rare.as_ref().map(|rare| &rare.awaiting)
    }

    /// It waits for nobody inside its body any more. What it gives is to be dropped without the lock.
    #[inline]
    pub(crate) fn take_awaiting(&mut self) -> Awaiting {
        self.rare.as_mut().map(|rare| std::mem::take(&mut rare.awaiting)).unwrap_or_default()
    }

    /// A waker of it was given back: what it awaits is not known to be there any more.
    pub(crate) fn forget_awaited(&mut self) {
        if let Some(rare) = &mut self.rare
            && let Awaiting::One(_) = rare.awaiting
        {
            rare.awaiting = Awaiting::Many;
        }
    }

    /// It is in the pool's list no more.
    pub(crate) fn take_registered(&mut self) -> Option<(u32, u32)> {
        self.rare.as_mut().and_then(|rare| rare.registered.take())
    }

    /// Made on first need.
    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.rare().extra.get_or_insert_default()
    }

    /// If there is one.
    pub(crate) fn known_extra(&mut self) -> Option<&mut Extra> {
        self.rare.as_mut().and_then(|rare| rare.extra.as_deref_mut())
    }
}

/// What few tasks need.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) wakers: slab::Slab<Waker>,
    pub(crate) sole: Option<Waker>,
    pub(crate) timer: Option<tokio::task::AbortHandle>,
    /// The tokens that may cancel it, with its key at those that know it.
    pub(crate) tokens: Vec<(CancelToken, Option<usize>)>,
    pub(crate) attempt: u32,
    /// The options of the block that it was spawned in, which its children inherit, if they refer to others.
    pub(crate) inherited: Option<Arc<Options>>,
    /// The task whose `bulk` block holds it back.
    pub(crate) held_by: Option<TaskRef>,
    /// Tasks to wait for without their values; the edges lie here.
    pub(crate) syncdeps: Box<[SyncDep]>,
    /// The block that waits for it, of whose tasks it comes after some.
    pub(crate) ends: Option<Arc<Ending>>,
    /// Its `tracing` span, between two polls.
    pub(crate) span: Option<tracing::Span>,
    /// Nanoseconds that its polls have taken, if they are timed.
    pub(crate) polled: u64,
}

/// What differs by the type of the body.
pub(crate) struct VTable {
    /// Polls the body once. When it returns anything but `Pending` the body is gone, after `Value` the value is
    /// there.
    pub(crate) poll: unsafe fn(RawTask, &mut Context<'_>) -> Step,
    pub(crate) drop_body: unsafe fn(RawTask),
    pub(crate) drop_value: unsafe fn(RawTask),
    /// True once the body has called the user's code.
    pub(crate) has_begun: unsafe fn(RawTask) -> bool,
    /// Links the inputs of the body, or lists them.
    pub(crate) inputs: unsafe fn(RawTask, &mut dyn FnMut(RawTask)),
    /// Copies a body that has not run for later calls, if it can be.
    again: unsafe fn(RawTask) -> Option<Box<dyn CallsAgain>>,
    layout: Layout,
    /// Of its blocks.
    size: Option<usize>,
    value_offset: usize,
    held_offset: usize,
    pub(crate) body_name: fn() -> &'static str,
}

/// What one poll of a body came to.
pub(crate) enum Step {
    Pending,
    Value,
    Stopped(Stop),
}

#[repr(C)]
struct TaskCell<B: Body> {
    header: Header,
    slot: std::cell::UnsafeCell<Slot<B>>,
}

#[repr(C)]
union Slot<B: Body> {
    body: ManuallyDrop<B>,
    value: ManuallyDrop<B::Output>,
}

impl<B: Body> TaskCell<B> {
    /// The accesses lie behind the cell.
    const HELD_OFFSET: usize = size_of::<Self>().next_multiple_of(align_of::<Held>());
    const LAYOUT: Layout = {
        let align =
            if align_of::<Self>() > align_of::<Held>() { align_of::<Self>() } else { align_of::<Held>() };
        let size = Self::HELD_OFFSET + B::ACCESSES * size_of::<Held>();
        match Layout::from_size_align(size, align) {
            Ok(layout) => layout,
            Err(_) => panic!("a task fits into the address space"),
        }
    };

    const VTABLE: VTable = VTable {
        poll: Self::poll,
        drop_body: Self::drop_body,
        drop_value: Self::drop_value,
        inputs: Self::inputs,
        has_begun: Self::has_begun,
        again: Self::again,
        layout: Self::LAYOUT,
        size: block::size_of_layout(Self::LAYOUT),
        value_offset: offset_of!(TaskCell<B>, slot),
        held_offset: Self::HELD_OFFSET,
        body_name: std::any::type_name::<B::Name>,
    };

    #[inline]
    fn slot(task: RawTask) -> *mut Slot<B> {
        let cell = task.0.as_ptr().cast::<TaskCell<B>>();
        // SAFETY: the vtable with this function belongs to a cell of this type, alive by the caller's reference;
        // `raw_get` makes no reference.
        unsafe { std::cell::UnsafeCell::raw_get(&raw const (*cell).slot) }
    }

    unsafe fn poll(task: RawTask, cx: &mut Context<'_>) -> Step {
        let slot = Self::slot(task);
        // SAFETY: the caller took the task to `Running` (invariant 3), so the body is there and only ours; it is
        // pinned because the cell never moves and the body is dropped in place.
        let body = unsafe { Pin::new_unchecked(&mut *(*slot).body) };
        let out = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body.poll(cx)));
        let out = match out {
            Ok(Poll::Pending) => return Step::Pending,
            Ok(Poll::Ready(out)) => out,
            Err(payload) => Err(Stop::panic(payload)),
        };
        // SAFETY: as above; nobody looks at the body again.
        unsafe { Self::drop_body(task) };
        match out {
            Ok(value) => {
                // SAFETY: the body is gone, the slot is ours until the state says `DONE | VALUE`.
                unsafe { (&raw mut (*slot).value).write(ManuallyDrop::new(value)) };
                Step::Value
            }
            Err(stop) => Step::Stopped(stop),
        }
    }

    unsafe fn drop_body(task: RawTask) {
        let slot = Self::slot(task);
        if std::mem::needs_drop::<B>() {
            // SAFETY: the caller owns the body (invariant 3) and this is the end of it; it stays in place until it is
            // dropped below.
            crate::error::quietly(|| unsafe { Pin::new_unchecked(&mut *(*slot).body) }.clear());
        }
        // SAFETY: as above. A panic leaves it dropped as far as drop glue goes; nobody touches it again.
        crate::error::quietly(|| unsafe { ManuallyDrop::drop(&mut (*slot).body) });
    }

    unsafe fn drop_value(task: RawTask) {
        // SAFETY: the caller cleared `VALUE` under the lock, so the value is there and only its own.
        crate::error::quietly(|| unsafe { ManuallyDrop::drop(&mut (*Self::slot(task)).value) });
    }

    unsafe fn has_begun(task: RawTask) -> bool {
        // SAFETY: the caller took the task to `Running`, or holds the lock in phase `Queued` or `Suspended`: nobody has the
        // body mutably.
        unsafe { (*Self::slot(task)).body.has_begun() }
    }

    unsafe fn again(task: RawTask) -> Option<Box<dyn CallsAgain>> {
        // SAFETY: the caller spawns the task: the body is there, and nobody has it mutably.
        unsafe { (*Self::slot(task)).body.again() }
    }

    unsafe fn inputs(task: RawTask, visit: &mut dyn FnMut(RawTask)) {
        // SAFETY: the caller holds the lock in phase `Waiting` or `Queued`, in which nobody has the body mutably.
        unsafe { (*Self::slot(task)).body.inputs(visit) }
    }
}

/// With a header goes nothing that may be a user's.
///
/// # Safety
/// Nothing refers to the cell any more.
#[inline]
unsafe fn is_bare(header: NonNull<Header>) -> bool {
    // SAFETY: the caller's promise: it is ours alone.
    unsafe {
        let Header { guarded, error, .. } = header.as_ref();
        (*guarded.get()).is_bare() && (*error.get()).is_none()
    }
}

/// Drops what is in a header.
///
/// # Safety
/// Nothing refers to the cell any more.
#[cold]
unsafe fn clear(header: NonNull<Header>) {
    // The user's error is dropped apart, so that its panic does not keep the block.
    // SAFETY: the caller's promise: it is ours alone.
    let error = unsafe { (*header.as_ref().error.get()).take() };
    crate::error::quietly(|| drop(error));
    // SAFETY: as above.
    unsafe { header.drop_in_place() };
}

/// A pointer to a task. Whoever keeps one says which count keeps the task alive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RawTask(NonNull<Header>);

// SAFETY: bodies and outputs are `Send` (bounds of `Body`), outputs also `Sync`; what is in the header is atomic or
// guarded by the lock, and `pool` points to a `Sync` type.
unsafe impl Send for RawTask {}
// SAFETY: as above.
unsafe impl Sync for RawTask {}

impl Deref for RawTask {
    type Target = Header;
    #[inline]
    fn deref(&self) -> &Header {
        // SAFETY: kept by whoever holds this pointer, through a count in `refs` (see the type).
        unsafe { self.0.as_ref() }
    }
}

impl RawTask {
    /// Makes the cell of a task in phase `Waiting`, with one claim and the scheduler's holder. The body is asked for when its place is
    /// there: so it is moved once.
    #[inline(always)]
    pub(crate) fn new<B: Body>(
        body: impl FnOnce() -> B,
        pool: *const Pool,
        origin: Origin,
        spec: Option<Kept<Spec>>,
        pending: u32,
    ) -> Self {
        #[cfg(feature = "store")]
        let marks = if spec.as_ref().is_some_and(|spec| spec.memory.is_some()) { DECLARES } else { 0 };
        #[cfg(not(feature = "store"))]
        let marks = 0;
        let cell = block::get(TaskCell::<B>::LAYOUT).cast::<TaskCell<B>>();
        let header = Header {
            state: State::waiting(),
            pending: AtomicU32::new(pending),
            refs: Refs::new(),
            vtable: &TaskCell::<B>::VTABLE,
            pool,
            id: TaskId::next(),
            origin,
            clone: AtomicPtr::new(std::ptr::null_mut()),
            foreign_wakers: AtomicU32::new(0),
            accesses: Counter::new(marks),
            spec,
            guarded: UnsafeCell::new(Guarded { waker: None, successors: std::ptr::null(), rare: None }),
            error: std::cell::UnsafeCell::new(None),
        };
        // In two pieces, each into its place: in one it would be put together elsewhere and copied.
        // SAFETY: the block has this layout and is ours.
        unsafe {
            (&raw mut (*cell.as_ptr()).header).write(header);
            (&raw mut (*cell.as_ptr()).slot)
                .write(std::cell::UnsafeCell::new(Slot { body: ManuallyDrop::new(body()) }));
        }
        RawTask(cell.cast())
    }

    /// It will soon run here, and has accesses: asks for its memory.
    #[inline(always)]
    pub(crate) fn prefetch(self) {
        for line in 0..3 {
            prefetch(self.as_ptr().cast::<u8>().wrapping_add(64 * line));
        }
    }

    /// Its places will be given back when the body, which is about to run, has ended: asks for what that writes. Not for a single
    /// one, whose line the next to take a place there needs meanwhile.
    #[inline(always)]
    pub(crate) fn prefetch_chunks(self) {
        let count = self.count();
        if count > 1 {
            // SAFETY: invariant 6: the caller has the body.
            let held = unsafe { std::slice::from_raw_parts(self.held(), count) };
            held.iter().filter(|held| held.is_queued()).for_each(|held| prefetch(held.chunk.as_ptr()));
        }
    }

    /// Its state will soon be looked at here.
    #[inline(always)]
    pub(crate) fn prefetch_state(self) {
        prefetch(self.as_ptr());
    }

    fn held(self) -> *mut Held {
        // SAFETY: the accesses lie at this offset of the cell, which the header starts.
        unsafe { self.0.byte_add(self.vtable.held_offset).cast().as_ptr() }
    }

    /// True if it accesses something.
    #[inline]
    pub(crate) fn has_accesses(self) -> bool {
        self.accesses.load(Relaxed) & COUNT != 0
    }

    /// What it accesses, from its spawn until its body is gone. The guard is that of its own lock.
    pub(crate) fn accesses<'a>(self, guard: &'a super::state::Locked<'_>) -> &'a [Held] {
        // Acquire: pairs with the AcqRel of the one who took the bias off.
        if guard.is_gone() || self.pending.load(Acquire) >= BIAS / 2 {
            return &[];
        }
        // SAFETY: invariant 6: written, and not taken while `GONE` is not set, which takes the lock.
        unsafe { std::slice::from_raw_parts(self.held(), self.count()) }
    }

    #[inline]
    pub(super) fn count(self) -> usize {
        (self.accesses.load(Relaxed) & COUNT) as usize
    }

    /// Where the accesses of a task with this body lie: as many as that says (`Body::ACCESSES`).
    #[inline(always)]
    pub(super) fn room_for_accesses<B: Body>(self) -> NonNull<Held> {
        // SAFETY: within the cell (`TaskCell::LAYOUT`), which whoever links a task has made with this body (`Linker::new`).
        unsafe { self.0.byte_add(TaskCell::<B>::HELD_OFFSET).cast() }
    }

    /// The accesses of a task that is being spawned.
    ///
    /// # Safety
    /// The caller spawns the task and has not taken the bias off.
    pub(crate) unsafe fn new_accesses<'a>(self) -> &'a mut [Held] {
        // SAFETY: invariant 6: only the caller knows of them.
        unsafe { std::slice::from_raw_parts_mut(self.held(), self.count()) }
    }

    /// The accesses of a task whose body is gone, before they are taken.
    ///
    /// # Safety
    /// The caller has set `GONE`, and has not taken them.
    #[inline]
    pub(crate) unsafe fn gone_accesses<'a>(self) -> &'a [Held] {
        // SAFETY: invariant 6: they are the caller's alone now.
        unsafe { std::slice::from_raw_parts(self.held(), self.count()) }
    }

    /// Takes the accesses out, the last one first: each is the caller's, in its place.
    ///
    /// # Safety
    /// The caller has set `GONE`, and calls this once.
    #[inline]
    pub(crate) unsafe fn take_accesses(self) -> impl Iterator<Item = NonNull<Held>> {
        let held = self.held();
        // SAFETY: invariant 6: they are the caller's alone now, and each is given once.
        (0..self.count()).rev().map(move |index| unsafe { NonNull::new_unchecked(held.add(index)) })
    }

    /// Its admission has to be looked at before its first start.
    #[cfg(feature = "store")]
    #[inline]
    pub(crate) fn may_need_admission(self) -> bool {
        let accesses = self.accesses.load(Relaxed);
        accesses & (COUNT | DECLARES) != 0 && accesses & ADMITTED == 0
    }

    #[cfg(feature = "store")]
    pub(crate) fn is_admitted(self) -> bool {
        self.accesses.load(Relaxed) & ADMITTED != 0
    }

    /// Under the lock, before its first start.
    #[cfg(feature = "store")]
    pub(crate) fn set_admitted(self, _lock: &super::state::Locked<'_>) {
        self.accesses.store(self.accesses.load(Relaxed) | ADMITTED | ACTIVE, Relaxed);
    }

    /// Sets whether an admitted task runs; the caller has the body. What it was before.
    #[cfg(feature = "store")]
    pub(crate) fn set_active(self, active: bool) -> bool {
        let accesses = self.accesses.load(Relaxed);
        self.accesses.store(if active { accesses | ACTIVE } else { accesses & !ACTIVE }, Relaxed);
        accesses & ACTIVE != 0
    }

    /// Bytes that it has declared to need while it runs, beside its chunks.
    #[cfg(feature = "store")]
    pub(crate) fn declared_memory(self) -> u64 {
        self.spec.as_ref().and_then(|spec| spec.memory).unwrap_or(0).min(1 << 48)
    }

    /// The body, to link its inputs, before anybody else knows the task.
    pub(crate) fn link_body<B: Body>(self, linker: &mut Linker) {
        // SAFETY: called by `submit` with the `B` that it made the cell of, while `pending` is held.
        let body = unsafe { &(*TaskCell::<B>::slot(self)).body };
        body.link(linker);
        // They are all there, and nobody else knows of them yet (invariant 6).
        self.accesses.store(self.accesses.load(Relaxed) + u32::from(linker.linked), Relaxed);
    }

    /// A copy of its call, to be made again, if it can be.
    ///
    /// # Safety
    /// The caller spawns the task and has not taken the bias off.
    pub(crate) unsafe fn call_again(self) -> Option<Box<dyn CallsAgain>> {
        // SAFETY: the caller's promise: its body has not run, and nobody else touches it.
        unsafe { (self.vtable.again)(self) }
    }

    /// Frees a task that nobody knows, with its body, whose inputs are listed before. Gives its options.
    ///
    /// # Safety
    /// It was made, and that is all.
    #[cfg(feature = "store")]
    pub(crate) unsafe fn free_unknown(self, visit: &mut dyn FnMut(RawTask)) -> Option<Kept<Spec>> {
        // SAFETY: the caller's promise: the cell and its body are ours alone, there is no value and nothing is linked.
        unsafe {
            (self.vtable.inputs)(self, visit);
            (self.vtable.drop_body)(self);
            let spec = (*self.0.as_ptr()).spec.take();
            self.free();
            spec
        }
    }

    /// [`as_ptr`](RawTask::as_ptr), of which it is known that it is not null.
    #[inline]
    pub(crate) fn pointer(self) -> NonNull<Header> {
        self.0
    }

    #[inline]
    pub(crate) fn as_ptr(self) -> *const Header {
        self.0.as_ptr()
    }

    /// A waker's data back to the task; the pointer came from [`RawTask::as_ptr`].
    pub(crate) fn from_data(data: *const ()) -> Self {
        // A null pointer cannot come from `as_ptr`; the fallback is never read.
        RawTask(NonNull::new(data.cast_mut().cast()).unwrap_or(NonNull::dangling()))
    }

    /// How many may still want its value. The guard is that of its own lock.
    #[inline]
    pub(crate) fn claims(self, guard: &super::state::Locked<'_>) -> u64 {
        if guard.is_abandoned() { 0 } else { self.refs.claims() }
    }

    /// The scheduler has done with it, and its outcome is there; may free the task.
    #[inline]
    pub(crate) fn release_scheduler(self) {
        if self.refs.release_scheduler(self.state.load().is_abandoned()) {
            // SAFETY: that was the last reference.
            unsafe { self.free() };
        }
    }

    /// The value of a done task.
    ///
    /// # Safety
    /// The caller has a claim, saw `VALUE` set, and `T` is the output type of the body.
    pub(crate) unsafe fn value<T>(self) -> NonNull<T> {
        // SAFETY: the header lies at the start of its cell, the value at this offset of it.
        unsafe { self.0.byte_add(self.vtable.value_offset).cast() }
    }

    /// One input came. True: it was the last; otherwise the task may be gone.
    #[inline]
    pub(crate) fn input_came(self) -> bool {
        // AcqRel: what the inputs' completions wrote is seen by whoever starts the body. A count that reads 1
        // needs no locked operation: nobody else is left to change it.
        self.pending.load(Acquire) == 1 || self.pending.fetch_sub(1, AcqRel) == 1
    }

    /// # Safety
    /// Nothing refers to the task any more.
    #[inline]
    unsafe fn free(self) {
        // SAFETY: the caller's promise.
        unsafe {
            if is_bare(self.0) {
                self.free_bare();
            } else {
                self.free_all();
            }
        }
    }

    /// # Safety
    /// As for [`free`](Self::free).
    #[cold]
    unsafe fn free_all(self) {
        let VTable { layout, size, .. } = *self.vtable;
        // SAFETY: the caller's promise. The slot is a union: its drop is nothing, body and value were dropped by their owners.
        unsafe {
            clear(self.0);
            block::put_sized(self.0.cast(), layout, size);
        }
    }

    /// # Safety
    /// As for [`free`](Self::free), and it is bare.
    #[inline(always)]
    unsafe fn free_bare(self) {
        // SAFETY: the caller's promise: the cell is ours alone, and came from `get` with this layout.
        unsafe {
            if let Some(spec) = (*self.0.as_ptr()).spec.take() {
                drop(spec);
            }
            block::put_sized(self.0.cast(), self.vtable.layout, self.vtable.size);
        }
    }

    /// Gives up a holder that the caller owns; may free the task.
    #[inline]
    pub(crate) fn release_holder(self) {
        if self.refs.release_holder() {
            // SAFETY: that was the last reference.
            unsafe { self.free() };
        }
    }

    /// Gives up a claim that the caller owns; drops the value after the last, may free the task.
    #[inline]
    pub(crate) fn release_claim(self) {
        match self.refs.release_claim() {
            Released::Shared => {}
            Released::Sole => self.tell_sole(),
            Released::Last => self.release_last_claim(),
        }
    }

    /// As `release_claim`, for one through which the value was taken: then it is gone for all of them.
    #[inline]
    pub(crate) fn release_spent_claim(self) {
        match self.refs.release_claim() {
            Released::Shared => {}
            Released::Sole => self.tell_sole(),
            Released::Last => {
                if self.refs.release_last_of_done() {
                    // SAFETY: that was the last reference.
                    unsafe { self.free() };
                }
            }
        }
    }

    /// One claim is left: wakes its owner, who waits for that. The caller has a holder to give up.
    fn tell_sole(self) {
        let sole = {
            let guard = self.state.lock();
            self.guarded(&guard).known_extra().and_then(|extra| extra.sole.take())
        };
        if let Some(waker) = sole {
            crate::error::quietly(|| waker.wake());
        }
        self.release_holder();
    }

    #[inline]
    fn release_last_claim(self) {
        // Nothing of it is touched afterwards: it may be done and freed.
        if !self.state.abandon() {
            self.release_last_claim_of_done();
        }
    }

    /// As `release_last_claim`, of one that is done, or about to be.
    fn release_last_claim_of_done(self) {
        let mut guard = self.state.lock();
        if !guard.is_done() {
            guard.abandon();
            return;
        }
        self.refs.release_last();
        let has_value = guard.has_value();
        guard.clear_value();
        let unseen = if guard.is_observed() { None } else { self.error().cloned() };
        drop(guard);
        if has_value {
            // SAFETY: we cleared `VALUE` under the lock, and no claim is left.
            unsafe { (self.vtable.drop_value)(self) };
        }
        if let Some(error) = unseen {
            super::run::report(&error);
        }
        self.release_holder();
    }
}

impl Header {
    /// What the lock protects. `_proof` is the lock of this task's state.
    #[expect(clippy::mut_from_ref, reason = "the lock makes it exclusive")]
    #[inline]
    pub(crate) fn guarded<'a>(&'a self, _proof: &'a super::state::Locked<'_>) -> &'a mut Guarded {
        // SAFETY: invariant 2; callers pass the lock of this very task (all calls are in this folder and read
        // `task.guarded(&task.state.lock())`), and keep the reference shorter than the lock.
        unsafe { &mut *self.guarded.get() }
    }

    /// The error of a task that is done without a value.
    pub(crate) fn error(&self) -> Option<&Error> {
        if !self.state.load().is_done() {
            return None;
        }
        // SAFETY: it is written before DONE is published (which we saw, with Acquire) and never after.
        unsafe { (*self.error.get()).as_deref() }
    }

    /// Sets the outcome of a task that becomes done under this lock.
    pub(crate) fn set_error(&self, _proof: &super::state::Locked<'_>, error: Option<Box<Error>>) {
        // SAFETY: DONE is not published before the lock is given back, so nobody reads; the lock keeps writers apart,
        // and the state refuses a second outcome.
        unsafe { *self.error.get() = error };
    }

    /// It has an outcome, and its body is gone: nothing more happens to it.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state.load();
        state.is_done() && state.is_gone()
    }

    pub(crate) fn info(&self) -> TaskInfo {
        TaskInfo::new(self.id, self.name(), self.origin.location())
    }

    pub(crate) fn name(&self) -> &str {
        match self.spec.as_ref().and_then(|spec| spec.name()) {
            Some(name) => name,
            None => self.origin.name((self.vtable.body_name)()),
        }
    }

    /// Remembers how to clone the value.
    pub(crate) fn set_clone<T>(&self, clone: fn(&T) -> T) {
        // Relaxed would do for the pointer to a function; Release costs nothing here.
        self.clone.store(clone as *mut (), Release);
    }

    /// How to clone the value, if anybody knows.
    ///
    /// # Safety
    /// `T` is the output type of the body.
    pub(crate) unsafe fn clone_fn<T>(&self) -> Option<fn(&T) -> T> {
        let clone = self.clone.load(Acquire);
        // SAFETY: only `set_clone::<T>` stores here, called with the handle's `T`.
        (!clone.is_null()).then(|| unsafe { std::mem::transmute::<*mut (), fn(&T) -> T>(clone) })
    }
}

/// Keeps the memory of a task, not its value.
pub(crate) struct TaskRef(RawTask);

impl TaskRef {
    /// Adds a holder to a task that the caller knows to be alive.
    pub(crate) fn new(task: RawTask) -> Self {
        task.refs.add_holder();
        TaskRef(task)
    }
    /// As `new`, for a task that nobody else knows yet.
    #[inline]
    pub(crate) fn of_new(task: RawTask) -> Self {
        task.refs.add_holder_unshared();
        TaskRef(task)
    }
    #[inline]
    pub(crate) fn raw(&self) -> RawTask {
        self.0
    }

    /// As its drop, but that if it is the last and with the task may go what is a user's, it is given back.
    #[inline(always)]
    pub(crate) fn let_go(self) -> Option<TaskRef> {
        let task = std::mem::ManuallyDrop::new(self).0;
        if !task.refs.release_holder() {
            return None;
        }
        // SAFETY: that was the last reference.
        if unsafe { is_bare(task.0) } {
            // SAFETY: as above.
            unsafe { task.free_bare() };
            return None;
        }
        task.refs.hold_again();
        Some(TaskRef(task))
    }
}

impl Clone for TaskRef {
    fn clone(&self) -> Self {
        TaskRef::new(self.0)
    }
}

impl Drop for TaskRef {
    fn drop(&mut self) {
        self.0.release_holder();
    }
}

impl Deref for TaskRef {
    type Target = Header;
    #[inline]
    fn deref(&self) -> &Header {
        &self.0
    }
}

// The header is part of every task: it must not grow by accident.
#[cfg(not(dagger_loom))]
const _: () = assert!(size_of::<Header>() <= 112);
