//! What every chunk has, whatever is in it: the queue of its accesses, its poison, where its elements lie.
//!
//! ```text
//!   spawn!(f(In(&a), InOut(&b)))          lock a and b           ─▶ check ─▶ enqueue ─▶ unlock
//!   a: [R1 R2] [W3] ...   granted ─▶ pending −= 1 ─▶ 0: the task is queued
//!   body gone ─▶ poison or heal ─▶ release ─▶ tickets of those whose turn came
//! ```
//! 1. A task takes its places in all its queues at once, under all their locks: any two tasks stand in the same order in every
//!    queue that they share, so queues alone never close a cycle. Who waits for a lock while it has others takes them by address.
//! 2. A granted place is kept until its body is gone, however that ends; a cancelled waiter keeps its place and passes
//!    on when its turn comes. What is poisoned is therefore known before the next turn.
//! 3. A ticket is counted down outside the locks; until that is done its task cannot start, nor end.
//! 4. Where the elements lie is measured under the lock when a region is granted and no whole write is: then nobody has
//!    the container exclusively, and it stays as it is until the next whole write.
//! 5. A queue with places in it keeps its chunk: an access counts nothing by itself.
//!
//! What an access is and leaves is in `held.rs`, how places are taken in `places.rs`.

mod held;
mod places;
#[cfg(feature = "store")]
mod residence;
mod ticket;

use places::Taking;
pub(crate) use places::{check_merged, give_idle, take_at_rest, take_idle, take_places};
pub(crate) use ticket::{Other, Ticket, Tickets, Whose};

use super::container::Parts;
use super::guard::{self, GuardWait};
use crate::error::{Error, Root};
use crate::plan::Run;
use crate::pool::Pool;
use crate::record;
use crate::residency;
use crate::sync::{SpinGuard, SpinLock};
#[cfg(not(dagger_loom))]
use crate::task::Header;
use crate::task::{RawTask, TaskRef};
use dagger_core::record::What;
use dagger_core::{AccessQueue, Area, Outside, Place, Poison, Scope, Shape};
use std::mem::offset_of;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// How a task uses a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    In,
    Out,
    InOut,
}

impl Mode {
    pub(crate) fn writes(self) -> bool {
        self != Mode::In
    }
    /// What it finds there matters.
    pub(crate) fn reads(self) -> bool {
        self != Mode::Out
    }
}

/// Who takes places.
#[derive(Clone, Copy)]
pub(crate) enum Asker<'a> {
    /// A task, of its runtime.
    Task(RawTask),
    /// A guard, of none.
    Guard(&'a Arc<GuardWait>),
}

impl Asker<'_> {
    /// What its access with this number is told by.
    #[inline]
    fn ticket(self, argument: u16) -> Ticket {
        match self {
            Asker::Task(task) => Ticket::task(task),
            Asker::Guard(wait) => Ticket::other(Other::Guard(wait.clone(), u32::from(argument) - 1)),
        }
    }

    fn pool(self) -> *const Pool {
        match self {
            Asker::Task(task) => task.pool,
            Asker::Guard(_) => std::ptr::null(),
        }
    }
}

/// A chunk without its type.
pub(crate) trait AnyChunk: Send + Sync {
    fn core(&self) -> &Core;
}

/// See the module. What every access writes comes first, in one cache line.
#[repr(C, align(64))]
pub(crate) struct Core {
    state: SpinLock<State>,
    /// Something is poisoned or missing, or declared too coarsely: look closer before a grant is used.
    look: AtomicBool,
    /// It has a scope and a home.
    pub(crate) is_placed: bool,
    cell: CellType,
    slot: residency::Slot,
    pub(crate) scope: Option<Scope>,
    /// The runtime that it was placed in, if it was.
    pub(crate) home: Option<Weak<Pool>>,
    pub(crate) content: &'static str,
    pub(crate) site: &'static Location<'static>,
    /// Unique in the process.
    id: u64,
}

/// What a core knows of the cell that it lies in.
#[derive(Clone, Copy)]
pub(crate) struct CellType {
    /// Distance from the core to the value, in bytes.
    pub(crate) value: usize,
    /// Counts the caller in as an owner of the cell.
    pub(crate) arc: unsafe fn(CorePtr) -> Arc<dyn AnyChunk>,
}

/// A pointer to the core of a chunk, by which all of the chunk can be reached. Whoever keeps one says what keeps the chunk: an
/// owner of the cell, or a place in the queue (invariant 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CorePtr(NonNull<Core>);

// SAFETY: `Core` is `Sync`, and so is the cell around it (`AnyChunk`).
unsafe impl Send for CorePtr {}
// SAFETY: as above.
unsafe impl Sync for CorePtr {}

impl Deref for CorePtr {
    type Target = Core;
    #[inline]
    fn deref(&self) -> &Core {
        // SAFETY: kept by whoever holds this pointer (see the type).
        unsafe { self.0.as_ref() }
    }
}

impl CorePtr {
    /// The core of a cell, by a pointer to it that came from all of the cell.
    pub(crate) fn new(core: NonNull<Core>) -> Self {
        CorePtr(core)
    }

    pub(crate) fn as_ptr(self) -> *const Core {
        self.0.as_ptr()
    }

    /// The address of the value.
    pub(crate) fn value(self) -> *mut u8 {
        // SAFETY: the core lies in a cell, so far from its value (`CellType`).
        unsafe { self.0.cast::<u8>().byte_add(self.cell.value).as_ptr() }
    }

    /// Another owner of the chunk.
    pub(crate) fn owner(self) -> Arc<dyn AnyChunk> {
        // SAFETY: `arc` is of this cell's type, and the cell is alive (see the type).
        unsafe { (self.cell.arc)(self) }
    }
}

// The lock, and what of the queue every access writes: 8 + 56 bytes.
const _: () = assert!(offset_of!(Core, state) == 0 && SpinLock::<State>::VALUE <= 8);

// Of a chunk that is accessed as a whole three lines are touched: this, that of the entries' address and of the owner, and the one
// before the last field that says where the value lies.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(
    SpinLock::<State>::VALUE + offset_of!(State, keep) + size_of::<usize>() <= 2 * 64
        && SpinLock::<State>::VALUE + offset_of!(State, run) >= 3 * 64
        && offset_of!(Core, cell) < 4 * 64
);

/// What the lock protects. What every access writes is at the start of the queue.
#[repr(C)]
pub(crate) struct State {
    queue: AccessQueue<Ticket>,
    /// Invariant 5.
    keep: Option<Arc<dyn AnyChunk>>,
    poison: Poison<Arc<Error>>,
    pub(crate) presence: Presence,
    /// Live writes of something that may contain the container, or be in it: fields, regions of a user's kind.
    opaque_writes: u32,
    /// What follows is looked at by most accesses, and with it what comes behind the lock: from here on a line of their own.
    _line: usize,
    /// The store reads the value.
    #[cfg(feature = "store")]
    is_lent: bool,
    /// The run of a plan that has a place here, which is the first. Kept by the ticket of that.
    run: Option<NonNull<Run>>,
    /// `None` when not measured since the last whole write.
    parts: Option<Box<Parts>>,
    /// The runtime whose tasks came here first, and whether others came: then the shutdown of each must find its own.
    tasks_of: *const Pool,
    is_shared: bool,
}

// SAFETY: the pointers (of measured parts, of a run, and of a pool, which is only compared) are addresses; what they lead to is
// `Send + Sync` by the bounds of the chunk, or by itself.
unsafe impl Send for State {}

/// Whether there is a value.
pub(crate) enum Presence {
    Here,
    /// There is one, but not in memory.
    #[cfg(feature = "store")]
    Away,
    /// The task that should have made it failed, or has not run yet.
    Missing(Option<Arc<Error>>),
    /// It was moved out.
    Taken,
}

/// One access: a place in the queue of a chunk. While it has one the queue keeps the chunk; before that, the caller does.
///
/// Half a cache line: a task with three of them, by reference, is four lines.
pub struct Held {
    pub(crate) chunk: CorePtr,
    /// `None`: the whole.
    part: Option<Box<HeldPart>>,
    /// The run of a plan orders it, which has places of its own. The run lives until all its steps have been completed.
    run: Option<NonNull<Run>>,
    /// Its place in the queue, if it has one; where a run orders it, the number of its step there, plus one.
    turn: Option<NonZeroU32>,
    /// Which argument it is, from 1.
    argument: u16,
    pub(crate) mode: Mode,
    marks: Marks,
}

const _: () = assert!(size_of::<Held>() <= 32);
// Three references and what the call keeps beside them are 32 bytes.
#[cfg(not(dagger_loom))]
const _: () = assert!(size_of::<Header>() + 32 + 3 * size_of::<Held>() <= 4 * 64);

/// What else is true of an access.
#[derive(Clone, Copy)]
struct Marks(u8);

impl Marks {
    /// Its place is another access's, which covers both.
    const MERGED: u8 = 1;
    /// It is to the whole, by the queue, and does not make the value: what most are.
    const PLAIN: u8 = 1 << 1;
    /// It makes the value (`Chunk::from_task`).
    const FILLS: u8 = 1 << 2;
    /// A success leaves nothing to do at the chunk, unless that wants a look.
    const SILENT: u8 = 1 << 3;
    /// A guard has its pin. Those of tasks are known by the task.
    #[cfg(feature = "store")]
    const PINNED: u8 = 1 << 4;

    #[inline]
    fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }
    #[inline]
    fn set(&mut self, mark: u8, is_so: bool) {
        self.0 = self.0 & !mark | if is_so { mark } else { 0 };
    }
}

// SAFETY: `run` is an address; `Run` is `Sync`.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

/// A part of a chunk that is accessed.
struct HeldPart {
    /// As declared, or clipped to the length where that was known.
    area: Area,
    measure: Option<Measure>,
}

/// How to find out where the elements of a container lie.
pub(crate) type Measure = unsafe fn(*mut u8, bool) -> Parts;

/// The place of a guard that a task awaits. While the task is suspended in that await the place is still the same; a description may be of
/// another one.
pub(crate) struct WaitingPlace {
    chunk: Arc<dyn AnyChunk>,
    place: Place,
}

impl WaitingPlace {
    /// The tasks that it waits for.
    pub(crate) fn visit_blockers(&self, visit: &mut dyn FnMut(RawTask)) {
        self.chunk.core().visit_blockers(self.place, visit);
    }

    /// The guard that it is for, and who may be before it; `None` if its turn has come.
    pub(crate) fn describe(&self) -> Option<String> {
        let core = self.chunk.core();
        if core.lock().queue.is_granted(self.place) {
            return None;
        }
        let mut tasks = Vec::new();
        self.visit_blockers(&mut |task| tasks.push(TaskRef::new(task)));
        let tasks = tasks.iter().map(|task| task.info().to_string());
        let guards = guard::sites_at(core).into_iter().map(|site| format!("a guard taken at {site}"));
        let others: Vec<String> = tasks.chain(guards).take(DESCRIBED_MAX).collect();
        let (content, made) = (core.content, core.site);
        let others = others.join(", ");
        Some(format!(
            "a guard of a chunk of `{content}` (made at {made}), which is held or waited for by {others}"
        ))
    }
}

/// Others at a chunk that a description names.
const DESCRIBED_MAX: usize = 8;

/// What is wrong with a declared access.
pub enum Refusal {
    Outside { region: String, outside: Outside },
    Aliased { first: String, second: String },
    Foreign { content: &'static str },
}

impl Refusal {
    pub(crate) fn into_error(self, root: Option<Root>) -> Error {
        match self {
            Refusal::Outside { region, outside } => {
                Error::OutOfBounds { root, region: region.into(), outside }
            }
            Refusal::Aliased { first, second } => {
                Error::Aliased { root, first: first.into(), second: second.into() }
            }
            Refusal::Foreign { content } => Error::Foreign { root, chunk: content },
        }
    }
}

/// Why a granted access cannot be used.
pub(crate) enum Denied {
    /// What it would read was left half written.
    Poisoned(Arc<Error>),
    /// The value was moved out.
    Taken,
}

/// What became of what was accessed.
#[derive(Clone, Copy)]
pub(crate) enum Outcome<'a> {
    Wrote,
    Failed(&'a Error),
    /// Nothing was touched.
    Void,
}

impl Core {
    pub(crate) fn new(
        scope: Option<Scope>,
        home: Option<Weak<Pool>>,
        content: &'static str,
        site: &'static Location<'static>,
        is_here: bool,
        cell: CellType,
    ) -> Self {
        let presence = if is_here { Presence::Here } else { Presence::Missing(None) };
        Core {
            is_placed: home.is_some(),
            cell,
            slot: residency::Slot::default(),
            state: SpinLock::new(State {
                queue: AccessQueue::new(),
                keep: None,
                run: None,
                poison: Poison::new(),
                parts: None,
                presence,
                opaque_writes: 0,
                _line: 0,
                tasks_of: std::ptr::null(),
                is_shared: false,
                #[cfg(feature = "store")]
                is_lent: false,
            }),
            look: AtomicBool::new(!is_here),
            scope,
            home,
            content,
            site,
            id: {
                static NEXT: AtomicU64 = AtomicU64::new(1);
                NEXT.fetch_add(1, Relaxed)
            },
        }
    }

    #[inline]
    pub(crate) fn lock(&self) -> SpinGuard<'_, State> {
        self.state.lock()
    }

    /// Takes the state apart for the one who drops the chunk: true if there is a value, and what may be a user's.
    pub(crate) fn take_apart(&mut self) -> (bool, impl Sized + use<>) {
        let state = self.state.get_mut();
        let presence = std::mem::replace(&mut state.presence, Presence::Taken);
        let is_here = matches!(presence, Presence::Here);
        residency::dropped(self.slot.take(), is_here);
        (is_here, (presence, std::mem::take(&mut state.poison)))
    }

    /// Makes accesses look before they use a grant.
    pub(crate) fn look(&self) {
        self.look.store(true, Relaxed);
    }

    /// Something must be looked at before a grant of this chunk is used.
    #[inline]
    pub(crate) fn needs_a_look(&self) -> bool {
        // Relaxed: whoever set it released its place afterwards, and we have ours.
        self.look.load(Relaxed)
    }

    /// Calls `visit` with the tasks that a place waits for, under the lock; none once it is granted.
    pub(crate) fn visit_blockers(&self, place: Place, visit: &mut dyn FnMut(RawTask)) {
        self.lock().queue.blockers(place, &mut |ticket| match ticket.whose() {
            Whose::Task(task) => visit(task),
            Whose::Other(Other::Plan(run)) => run.visit_at(self, visit),
            Whose::Other(Other::Guard(wait, _)) => wait.visit_users(visit),
        });
    }

    /// Calls `visit` with each task that waits here, in the order of their places, under the lock; readers side by side in any.
    pub(crate) fn visit_waiting_tasks(&self, visit: &mut dyn FnMut(RawTask)) {
        self.lock().queue.waiting(&mut |ticket| {
            if let Whose::Task(task) = ticket.whose() {
                visit(task);
            }
        });
    }
}

impl State {
    /// The shape, if nothing that is queued can change it.
    fn stable_shape(&mut self, value: *mut u8, measure: Option<Measure>) -> Option<Shape> {
        let measure = measure?;
        if self.queue.live_whole_write() || self.opaque_writes != 0 {
            return None;
        }
        let is_here = matches!(self.presence, Presence::Here);
        if self.parts.is_none() && self.queue.is_idle() && is_here {
            #[cfg(feature = "store")]
            let may_write = !self.is_lent;
            #[cfg(not(feature = "store"))]
            let may_write = true;
            // SAFETY: there is a value, and nobody has a place: nothing is out, but for the store, if it reads the value.
            self.parts = Some(Box::new(unsafe { measure(value, may_write) }));
        }
        self.parts.as_ref().map(|parts| parts.shape)
    }

    /// Where the next access will be written.
    #[inline]
    fn next_entry(&self) -> *const u8 {
        self.queue.next_entry()
    }

    /// Takes a place for an access whose chunk this is.
    fn enqueue(&mut self, held: &mut Held, ticket: Ticket, pool: *const Pool, taking: &mut Taking) {
        let (writes, area) = match held.is_merged() {
            true => (true, &Area::Whole),
            // No elements conflict with nothing; but where they would be must not change while that is looked at.
            false if held.has_no_elements() => (false, &Area::Whole),
            false => (held.mode.writes(), held.area()),
        };
        let place = self.take(held.chunk, ticket, writes, area, pool, taking);
        if writes && is_opaque(area) {
            self.opaque_writes += 1;
        }
        held.turn = Some(place.number());
    }

    #[inline(always)]
    fn take(
        &mut self,
        chunk: CorePtr,
        ticket: Ticket,
        writes: bool,
        area: &Area,
        pool: *const Pool,
        taking: &mut Taking,
    ) -> Place {
        if self.keep.is_none() {
            self.keep = Some(chunk.owner());
        }
        let (place, granted) = match area {
            Area::Whole => self.queue.enqueue_whole(ticket, writes),
            part => self.queue.enqueue(ticket, writes, part),
        };
        self.note_pool(pool);
        taking.taken.waiting += u32::from(!granted);
        if !granted && (self.is_shared || self.run.is_some()) {
            self.wait_specially(taking);
        }
        place
    }

    /// Somebody waits here whom others have to know of.
    #[cold]
    fn wait_specially(&self, taking: &mut Taking) {
        taking.taken.foreign |= self.is_shared;
        if let Some(run) = self.run {
            // SAFETY: it came from an `Arc` (`take_idle`), and the ticket of its place, which is here, counts as one.
            taking.behind.push(unsafe {
                Arc::increment_strong_count(run.as_ptr());
                Arc::from_raw(run.as_ptr())
            });
        }
    }

    /// Takes a place where nobody is: it is granted.
    fn take_first(&mut self, ticket: &Ticket, writes: bool) -> Place {
        let (place, granted) = self.queue.enqueue_whole(ticket.clone(), writes);
        debug_assert!(granted, "nobody is there");
        place
    }

    /// A task of this runtime takes a place; null: a guard does.
    #[inline(always)]
    fn note_pool(&mut self, pool: *const Pool) {
        if std::ptr::eq(self.tasks_of, pool) {
            return;
        }
        if self.tasks_of.is_null() {
            self.tasks_of = pool;
        } else if !pool.is_null() {
            self.is_shared = true;
        }
    }

    /// Gives a place back. What it gives is to be dropped without the lock: it may be the last owner of the chunk.
    #[must_use]
    #[inline]
    fn give(&mut self, place: Place, tickets: &mut Tickets) -> Option<Arc<dyn AnyChunk>> {
        self.queue.release(place, &mut |ticket: &Ticket| ticket.tell_soon(tickets));
        if self.queue.is_idle() { self.keep.take() } else { None }
    }

    /// Notes the access of a task for a recording.
    #[cold]
    fn record(&self, held: &Held, task: RawTask, writes: bool) {
        // What shares a place with another access waits as for the whole.
        let part = held.part.as_ref().filter(|_| !held.is_merged());
        let (task, chunk, turn) = (task.id.get(), held.chunk.id, self.queue.accesses());
        match part {
            // Apart, since most are so: code that knows it is half as long.
            None => record::note(|| What::Access { task, chunk, turn, writes, part: None }),
            Some(part) => {
                let part = Some(Arc::new(part.area.clone()));
                record::note(|| What::Access { task, chunk, turn, writes, part });
            }
        }
    }

    /// There is a value in memory, and none of it is poisoned.
    fn is_sound(&self) -> bool {
        matches!(self.presence, Presence::Here) && self.poison.is_clean()
    }

    /// They may lie elsewhere now.
    pub(crate) fn forget_elements(&mut self) {
        self.parts = None;
    }

    /// Where the elements lie. The caller has a granted place for a region, to write it if `writes`.
    pub(crate) fn measured(&mut self, value: *mut u8, measure: Measure, writes: bool) -> Parts {
        match &self.parts {
            // Of a value that was away only the shape is known.
            Some(parts) if (parts.writes || !writes) && !parts.base.is_null() => Parts::clone(parts),
            _ => {
                // SAFETY: invariant 4: a region is granted, so no whole write is, and where it is written no whole read
                // either; there is a value (the caller asked).
                let parts = unsafe { measure(value, writes) };
                Parts::clone(self.parts.insert(Box::new(parts)))
            }
        }
    }

    /// The area of a granted access as the shape makes it; `None` if it lies outside, so that nothing was touched.
    fn resolved(&mut self, held: &Held) -> Option<Area> {
        match held.measure() {
            Some(measure) if matches!(self.presence, Presence::Here) => {
                let parts = self.measured(held.chunk.value(), measure, false);
                held.area().clip(&parts.shape).ok()
            }
            _ => Some(held.area().clone()),
        }
    }

    /// Why this granted access cannot be used, if so.
    pub(crate) fn deny(
        &mut self,
        area: &Area,
        mode: Mode,
        value: *mut u8,
        measure: Option<Measure>,
    ) -> Option<Denied> {
        match &self.presence {
            Presence::Here => {}
            #[cfg(feature = "store")]
            Presence::Away => {} // Who asks has a pin, or was refused before.
            Presence::Taken => return Some(Denied::Taken),
            Presence::Missing(Some(cause)) => return Some(Denied::Poisoned(cause.clone())),
            Presence::Missing(None) => {} // The access that makes it.
        }
        if !mode.reads() || self.poison.is_clean() {
            return None;
        }
        // As it is clipped: what was declared to the end may have no elements.
        let clipped = match measure {
            Some(measure) if matches!(self.presence, Presence::Here) => {
                area.clip(&self.measured(value, measure, false).shape).ok()
            }
            _ => None,
        };
        let cause = self.poison.find(clipped.as_ref().unwrap_or(area));
        cause.map(|cause| Denied::Poisoned(cause.clone()))
    }

    /// Clears all poison. What it gives is to be dropped without the lock.
    #[must_use]
    pub(crate) fn recover(&mut self) -> Poison<Arc<Error>> {
        std::mem::take(&mut self.poison)
    }
}

/// Neither the whole nor elements: what it writes may move the elements, for all that is known.
fn is_opaque(area: &Area) -> bool {
    matches!(area, Area::Bytes(_) | Area::Custom(_))
}

/// Gives up what may be the last owner of a chunk: with it may go a user's value or error, whose drop may panic.
#[inline(always)]
fn drop_owner(owner: Option<Arc<dyn AnyChunk>>) {
    if let Some(owner) = owner {
        drop_last_owner(owner);
    }
}

#[inline(never)]
fn drop_last_owner(owner: Arc<dyn AnyChunk>) {
    crate::error::quietly(|| drop(owner));
}

pub(crate) fn clip(area: &Area, shape: &Shape) -> Result<Area, Refusal> {
    area.clip(shape).map_err(|outside| Refusal::Outside { region: area.to_string(), outside })
}
