//! What every chunk has, whatever is in it: the queue of its accesses, its poison, where its elements lie.
//!
//! ```text
//!   spawn!(f(In(&a), InOut(&b)))          lock a, b (by address) ─▶ check ─▶ enqueue ─▶ unlock
//!   a: [R1 R2] [W3] ...   granted ─▶ pending −= 1 ─▶ 0: the task is queued
//!   body gone ─▶ poison or heal ─▶ release ─▶ tickets of those whose turn came
//! ```
//! 1. A task takes its places in all its queues at once, under all their locks, taken by address: any two tasks stand in
//!    the same order in every queue that they share, so queues alone never close a cycle.
//! 2. A granted place is kept until its body is gone, however that ends; a cancelled waiter keeps its place and passes
//!    on when its turn comes. What is poisoned is therefore known before the next turn.
//! 3. A ticket is counted down outside the locks; until that is done its task cannot start, nor end.
//! 4. Where the elements lie is measured under the lock when a region is granted and no whole write is: then nobody has
//!    the container exclusively, and it stays as it is until the next whole write.
//! 5. A queue with places in it keeps its chunk: an access counts nothing by itself.

use super::container::Parts;
use super::guard::GuardWait;
use crate::error::{Error, Root};
use crate::plan::Run;
use crate::pool::Pool;
use crate::record;
use crate::sync::{SpinGuard, SpinLock};
use crate::task::{RawTask, Work};
use dagger_core::record::What;
use dagger_core::{AccessQueue, Area, Outside, Place, Poison, Scope, Shape};
use smallvec::SmallVec;
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

/// Whose turn comes.
#[derive(Clone)]
pub(crate) enum Ticket {
    Task(RawTask),
    /// A guard, and which of its places.
    Guard(Arc<GuardWait>, u32),
    /// The run of a plan, whose places are granted at once or not taken, and which of its chunks this is.
    Plan(Arc<Run>, u32),
}

/// Those whose turn came, to be told outside the locks.
pub(crate) type Tickets = SmallVec<[Ticket; 6]>;

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
            Asker::Task(task) => Ticket::Task(task),
            Asker::Guard(wait) => Ticket::Guard(wait.clone(), u32::from(argument) - 1),
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

/// See the module. What every access needs comes first.
#[repr(C)]
pub(crate) struct Core {
    /// Something is poisoned or missing, or declared too coarsely: look closer before a grant is used.
    look: AtomicBool,
    /// It has a scope and a home.
    pub(crate) is_placed: bool,
    state: SpinLock<State>,
    cell: CellType,
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

/// What the lock protects.
pub(crate) struct State {
    queue: AccessQueue<Ticket>,
    /// Invariant 5.
    keep: Option<Arc<dyn AnyChunk>>,
    /// The run of a plan that has a place here, which is the first.
    run: Option<Arc<Run>>,
    poison: Poison<Arc<Error>>,
    /// `None` when not measured since the last whole write.
    parts: Option<Box<Parts>>,
    pub(crate) presence: Presence,
    /// Live writes of something that may contain the container, or be in it: fields, regions of a user's kind.
    opaque_writes: u32,
    /// The runtime whose tasks came here first, and whether others came: then the shutdown of each must find its own.
    tasks_of: *const Pool,
    is_shared: bool,
    /// How many places were taken.
    turn: u64,
}

// SAFETY: the pointers (of measured parts, and of a pool, which is only compared) are addresses; what they lead to is
// `Send + Sync` by the bounds of the chunk.
unsafe impl Send for State {}

/// Whether there is a value.
pub(crate) enum Presence {
    Here,
    /// The task that should have made it failed, or has not run yet.
    Missing(Option<Arc<Error>>),
    /// It was moved out.
    Taken,
}

/// One access: a place in the queue of a chunk. While it has one the queue keeps the chunk; before that, the caller does.
pub struct Held {
    pub(crate) chunk: CorePtr,
    /// `None`: the whole.
    part: Option<Box<HeldPart>>,
    place: Option<Place>,
    /// The run of a plan orders it, which has places of its own: this is of its step with this number. The run lives until
    /// all its steps have been completed.
    run: Option<NonNull<Run>>,
    step: u32,
    /// Which argument it is, from 1.
    argument: u16,
    pub(crate) mode: Mode,
    /// The place is another access's, which covers both.
    merged: bool,
    /// It makes the value (`Chunk::from_task`).
    pub(crate) fills: bool,
    /// A success leaves nothing to do at the chunk, unless that wants a look.
    silent: bool,
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

/// The place of a guard that a task awaits. Looked at only while the task is suspended in that await, so that the place is
/// still the same.
pub(crate) struct WaitingPlace {
    chunk: Arc<dyn AnyChunk>,
    place: Place,
}

impl WaitingPlace {
    /// The tasks that it waits for.
    pub(crate) fn visit_blockers(&self, visit: &mut dyn FnMut(RawTask)) {
        self.chunk.core().lock().visit_blockers(self.place, visit);
    }
}

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
            state: SpinLock::new(State {
                queue: AccessQueue::new(),
                keep: None,
                run: None,
                poison: Poison::new(),
                parts: None,
                presence,
                opaque_writes: 0,
                tasks_of: std::ptr::null(),
                is_shared: false,
                turn: 0,
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
        (matches!(presence, Presence::Here), (presence, std::mem::take(&mut state.poison)))
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

    /// Calls `visit` with each task that waits here, in program order, under the lock.
    pub(crate) fn visit_waiting_tasks(&self, visit: &mut dyn FnMut(RawTask)) {
        self.lock().queue.waiting(&mut |ticket| {
            if let Ticket::Task(task) = ticket {
                visit(*task);
            }
        });
    }
}

impl State {
    /// The shape, if nothing that is queued can change it.
    fn stable_shape(&mut self, value: *mut u8, measure: Option<Measure>) -> Option<Shape> {
        let measure = measure?;
        if self.queue.live_whole_write()
            || self.opaque_writes != 0
            || !matches!(self.presence, Presence::Here)
        {
            return None;
        }
        if self.parts.is_none() && self.queue.is_idle() {
            // SAFETY: there is a value, and nobody has a place: nothing is out.
            self.parts = Some(Box::new(unsafe { measure(value, true) }));
        }
        self.parts.as_ref().map(|parts| parts.shape)
    }

    /// Takes a place for an access whose chunk this is.
    fn enqueue(&mut self, held: &mut Held, ticket: Ticket, pool: *const Pool, taken: &mut Taken) {
        let (writes, area) = match held.merged {
            true => (true, &Area::Whole),
            // No elements conflict with nothing; but where they would be must not change while that is looked at.
            false if held.has_no_elements() => (false, &Area::Whole),
            false => (held.mode.writes(), held.area()),
        };
        let place = self.take(held.chunk, ticket, writes, area, pool, taken);
        if writes && is_opaque(area) {
            self.opaque_writes += 1;
        }
        held.place = Some(place);
    }

    #[inline]
    fn take(
        &mut self,
        chunk: CorePtr,
        ticket: Ticket,
        writes: bool,
        area: &Area,
        pool: *const Pool,
        taken: &mut Taken,
    ) -> Place {
        if self.keep.is_none() {
            self.keep = Some(chunk.owner());
        }
        let (place, granted) = self.queue.enqueue(ticket, writes, area);
        if self.tasks_of.is_null() {
            self.tasks_of = pool;
        } else if !std::ptr::eq(self.tasks_of, pool) && !pool.is_null() {
            self.is_shared = true;
        }
        if !granted {
            taken.waiting += 1;
            taken.foreign |= self.is_shared;
            if let Some(run) = &self.run {
                taken.behind.push(run.clone());
            }
        }
        self.turn += 1;
        place
    }

    /// Gives a place back. What it gives is to be dropped without the lock: it may be the last owner of the chunk.
    #[must_use]
    #[inline]
    fn give(&mut self, place: Place, tickets: &mut Tickets) -> Option<Arc<dyn AnyChunk>> {
        self.queue.release(place, &mut |ticket| tickets.push(ticket));
        if self.queue.is_idle() { self.keep.take() } else { None }
    }

    /// Notes the access of a task for a recording.
    #[cold]
    fn record(&self, held: &Held, task: RawTask, writes: bool) {
        // What shares a place with another access waits as for the whole.
        let part = held.part.as_ref().filter(|_| !held.merged);
        let (task, chunk, turn) = (task.id.get(), held.chunk.id, self.turn);
        match part {
            // Apart, since most are so: code that knows it is half as long.
            None => record::note(|| What::Access { task, chunk, turn, writes, part: None }),
            Some(part) => {
                let part = Some(Arc::new(part.area.clone()));
                record::note(|| What::Access { task, chunk, turn, writes, part });
            }
        }
    }

    /// Where the elements lie. The caller has a granted place for a region, to write it if `writes`.
    pub(crate) fn measured(&mut self, value: *mut u8, measure: Measure, writes: bool) -> Parts {
        match &self.parts {
            Some(parts) if parts.writes || !writes => Parts::clone(parts),
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

    /// Calls `visit` with the tasks that a place waits for; none once it is granted.
    fn visit_blockers(&self, place: Place, visit: &mut dyn FnMut(RawTask)) {
        self.queue.blockers(place, &mut |ticket| match ticket {
            Ticket::Task(task) => visit(*task),
            Ticket::Plan(run, chunk) => run.visit_at(*chunk, visit),
            Ticket::Guard(..) => {}
        });
    }

    /// Clears all poison. What it gives is to be dropped without the lock.
    #[must_use]
    pub(crate) fn recover(&mut self) -> Poison<Arc<Error>> {
        std::mem::take(&mut self.poison)
    }
}

impl Held {
    /// An access that has no place yet.
    #[inline]
    pub(crate) fn new(
        chunk: CorePtr,
        mode: Mode,
        part: Option<(Area, Option<Measure>)>,
        fills: bool,
    ) -> Self {
        let part = part.map(|(area, measure)| Box::new(HeldPart { area, measure }));
        Held {
            chunk,
            mode,
            part,
            place: None,
            run: None,
            step: 0,
            argument: 0,
            merged: false,
            fills,
            silent: false,
        }
    }

    fn measure(&self) -> Option<Measure> {
        self.part.as_ref().and_then(|part| part.measure)
    }

    pub(crate) fn core(&self) -> &Core {
        &self.chunk
    }

    /// It has a place, or shares that of another access of its task, or that of the run of its plan.
    #[inline]
    pub(crate) fn has_place(&self) -> bool {
        self.place.is_some() || self.merged || self.run.is_some()
    }

    /// The declared part; `None` is the whole.
    pub(crate) fn part(&self) -> Option<&Area> {
        self.part.as_ref().map(|part| &part.area)
    }

    /// Only its turn, or its runtime, decides whether it may be, or it moves what others measure.
    pub(crate) fn is_intricate(&self) -> bool {
        self.merged || self.fills || self.chunk.is_placed || is_opaque(self.area())
    }

    /// Leaves the order to the run of a plan.
    #[inline]
    pub(crate) fn follow(&mut self, run: &Run, step: u32, silent: bool) {
        self.run = Some(NonNull::from(run));
        (self.step, self.silent) = (step, silent);
    }

    /// The run that orders it, and its step there.
    #[inline]
    pub(crate) fn step(&self) -> Option<(&Run, u32)> {
        // SAFETY: the step is not completed while there is this access of it.
        self.run.map(|run| (unsafe { run.as_ref() }, self.step))
    }

    /// As [`step`](Self::step), for the one who completes it.
    #[inline]
    pub(crate) fn followed(&self) -> Option<(NonNull<Run>, u32)> {
        self.run.map(|run| (run, self.step))
    }

    pub(crate) fn area(&self) -> &Area {
        static WHOLE: Area = Area::Whole;
        self.part.as_ref().map_or(&WHOLE, |part| &part.area)
    }

    /// The area is what will be accessed: the length is known, or does not matter.
    fn is_exact(&self) -> bool {
        self.measure().is_none() || self.area().is_resolved()
    }

    /// A region of elements that has none.
    fn has_no_elements(&self) -> bool {
        matches!(self.area(), Area::Grid(grid) if grid.is_empty())
    }

    /// Checks the access against what is known of the chunk now.
    fn prepare(&mut self, state: &mut State, pool: *const Pool) -> Result<(), Refusal> {
        let core: &Core = &self.chunk;
        if let Some(home) = &core.home
            && !pool.is_null()
            && !std::ptr::eq(home.as_ptr(), pool)
        {
            return Err(Refusal::Foreign { content: core.content });
        }
        if let Some(part) = &mut self.part
            && let Some(shape) = state.stable_shape(self.chunk.value(), part.measure)
        {
            part.area = clip(&part.area, &shape)?;
        }
        Ok(())
    }

    pub(crate) fn argument(&self) -> u16 {
        self.argument
    }

    pub(crate) fn set_argument(&mut self, argument: u16) {
        self.argument = argument;
    }

    fn is_same_chunk(&self, other: &Held) -> bool {
        self.chunk == other.chunk
    }

    /// As a user would write it.
    fn describe(&self) -> String {
        match self.area() {
            Area::Whole => {
                format!("argument {}, {:?} of a chunk of `{}`", self.argument, self.mode, self.core().content)
            }
            _ => {
                let content = self.core().content;
                format!(
                    "argument {}, {:?} of {} of a chunk of `{content}`",
                    self.argument,
                    self.mode,
                    self.area()
                )
            }
        }
    }

    /// True if the place was granted. Under the lock of its chunk.
    pub(crate) fn is_granted(&self, state: &State) -> bool {
        self.place.is_none_or(|place| state.queue.is_granted(place))
    }

    /// Why it cannot be used although it was granted, if so.
    pub(crate) fn denied(&self, state: &mut State) -> Option<Denied> {
        state.deny(self.area(), self.mode, self.chunk.value(), self.measure())
    }

    /// Its place, to look at from elsewhere while it waits.
    pub(crate) fn waiting_place(&self) -> Option<WaitingPlace> {
        self.place.map(|place| WaitingPlace { chunk: self.chunk.owner(), place })
    }

    /// The tasks that it waits for.
    pub(crate) fn visit_blockers(&self, visit: &mut dyn FnMut(RawTask)) {
        if let Some((run, step)) = self.step() {
            run.visit_predecessors(step, visit);
        }
        if let Some(place) = self.place {
            self.core().lock().visit_blockers(place, visit);
        }
    }

    /// Ends the access. Tells through `tickets` whose turn came.
    #[inline]
    pub(crate) fn release(self, outcome: Outcome<'_>, tickets: &mut Tickets) {
        if let (Some(place), None, false, false, Outcome::Wrote) =
            (self.place, &self.part, self.merged, self.fills, outcome)
        {
            let mut state = self.chunk.lock();
            if self.mode != Mode::Out || state.poison.is_clean() {
                if self.mode.writes() {
                    state.parts = None;
                }
                let keep = state.give(place, tickets);
                drop(state);
                return drop_owner(keep);
            }
        } else if self.silent && matches!(outcome, Outcome::Wrote) && !self.chunk.needs_a_look() {
            return;
        }
        self.release_slowly(outcome, tickets);
    }

    #[cold]
    fn release_slowly(mut self, outcome: Outcome<'_>, tickets: &mut Tickets) {
        // Errors are the user's: their drop is not run under the lock.
        let mut garbage: Vec<Arc<Error>> = Vec::new();
        // One that was refused has no place, and has touched nothing.
        if !self.has_place() {
            return;
        }
        // Beside others of its task it has no place; the one that has may be given back already, and the chunk with it.
        if self.place.is_none() && self.run.is_none() && self.has_no_elements() {
            return;
        }
        let mut keep = None;
        {
            let chunk = self.chunk;
            let mut state = chunk.lock();
            let state = &mut *state;
            if self.mode.writes() {
                let whole = self.part.is_none();
                match outcome {
                    Outcome::Failed(error) => {
                        let cause = Arc::new(error.clone());
                        if self.fills {
                            state.presence = Presence::Missing(Some(cause));
                        } else if let Some(area) = state.resolved(&self) {
                            // What was measured before a whole write says nothing about what it has left.
                            let shape = state.parts.as_ref().map(|parts| parts.shape).filter(|_| !whole);
                            state.poison.add(area, shape.as_ref(), cause);
                        }
                        chunk.look();
                    }
                    Outcome::Wrote if self.fills => state.presence = Presence::Here,
                    Outcome::Wrote if self.mode == Mode::Out && !state.poison.is_clean() => {
                        // A whole write that failed knew no elements; this access has measured them.
                        if let Some(parts) = &state.parts {
                            state.poison.measured(&parts.shape);
                        }
                        if let Some(area) = state.resolved(&self) {
                            garbage.extend(state.poison.causes().cloned());
                            state.poison.heal(&area);
                        }
                    }
                    Outcome::Wrote | Outcome::Void => {}
                }
                if !matches!(self.area(), Area::Grid(_)) {
                    state.parts = None;
                }
                if is_opaque(self.area()) && !self.merged && self.run.is_none() {
                    state.opaque_writes -= 1;
                }
            }
            if let Some(place) = self.place.take() {
                keep = state.give(place, tickets);
            }
        }
        crate::error::quietly(|| drop(garbage));
        drop_owner(keep);
    }
}

/// Neither the whole nor elements: what it writes may move the elements, for all that is known.
fn is_opaque(area: &Area) -> bool {
    matches!(area, Area::Bytes(_) | Area::Custom(_))
}

/// Takes places for all accesses at once (invariant 1), and says how many are still to be granted, each of which is told
/// once by its ticket. Those of the same chunk stand side by side afterwards.
pub(crate) fn take_places(held: &mut [Held], asker: Asker<'_>) -> Result<Taken, Refusal> {
    let mut taken = Taken::nothing();
    // A handful at most, and often in order: insertion.
    for sorted in 1..held.len() {
        let mut at = sorted;
        while at > 0 && held[at].chunk < held[at - 1].chunk {
            held.swap(at, at - 1);
            at -= 1;
        }
    }
    let are_wholes = held.iter().all(|held| held.part.is_none() && !held.chunk.is_placed);
    if are_wholes && held.windows(2).all(|pair| !pair[0].is_same_chunk(&pair[1])) {
        take_wholes(held, asker, &mut taken);
    } else {
        take_regions(held, asker, &mut taken)?;
    }
    if !taken.behind.is_empty() {
        taken.contest();
    }
    Ok(taken)
}

/// Takes the places for accesses to different chunks as a whole: what most tasks do, and what cannot be refused.
fn take_wholes(held: &mut [Held], asker: Asker<'_>, taken: &mut Taken) {
    let Some((first, others)) = held.split_first_mut() else { return };
    let chunk = first.chunk;
    let mut state = chunk.lock();
    // All locks are taken on the way down and given back on the way up.
    take_wholes(others, asker, taken);
    let writes = first.mode.writes();
    first.place =
        Some(state.take(chunk, asker.ticket(first.argument), writes, &Area::Whole, asker.pool(), taken));
    if let Asker::Task(task) = asker
        && record::is_on()
    {
        state.record(first, task, writes);
    }
}

fn take_regions(held: &mut [Held], asker: Asker<'_>, taken: &mut Taken) -> Result<(), Refusal> {
    let pool = asker.pool();
    let chunks: SmallVec<[CorePtr; 4]> =
        held.chunk_by(Held::is_same_chunk).map(|group| group[0].chunk).collect();
    let mut locks: SmallVec<[SpinGuard<'_, State>; 4]> = chunks.iter().map(|chunk| chunk.lock()).collect();
    // First all that can be refused: a task that is refused takes no place anywhere.
    let mut coarse: SmallVec<[bool; 4]> = SmallVec::new();
    for (state, group) in locks.iter_mut().zip(held.chunk_by_mut(Held::is_same_chunk)) {
        group.iter_mut().try_for_each(|held| held.prepare(state, pool))?;
        coarse.push(group.len() > 1 && (overlap(group)? || is_mixed(group)));
        if coarse.last() == Some(&true) && pool.is_null() {
            // Guards end one by one, and could not share a place.
            return Err(aliased(&group[0], &group[1]));
        }
    }
    let groups = held.chunk_by_mut(Held::is_same_chunk);
    for ((state, group), coarse) in locks.iter_mut().zip(groups).zip(coarse) {
        if coarse {
            // The length is not known yet, and neither is whether they overlap. They share one place, which covers all,
            // and the turn decides.
            group.iter_mut().for_each(|held| held.merged = true);
            group[0].core().look();
        }
        let places = if coarse { 1 } else { group.len() };
        let has_elements = group.iter().any(|held| !held.has_no_elements());
        for held in &mut group[..places] {
            // One without elements needs no place of its own beside one with some.
            if !coarse && has_elements && held.has_no_elements() {
                held.merged = true;
                continue;
            }
            state.enqueue(held, asker.ticket(held.argument), pool, taken);
            if let Asker::Task(task) = asker
                && record::is_on()
            {
                let writes = held.merged || !held.has_no_elements() && held.mode.writes();
                state.record(held, task, writes);
            }
        }
    }
    Ok(())
}

/// Takes a place for the run of a plan at the chunk with this number, if nobody is there: it is granted then.
pub(crate) fn take_idle(
    chunk: CorePtr,
    run: &Arc<Run>,
    number: u32,
    writes: bool,
    pool: *const Pool,
) -> Option<Place> {
    let mut state = chunk.lock();
    if !state.queue.is_idle() {
        return None;
    }
    let ticket = Ticket::Plan(run.clone(), number);
    let place = state.take(chunk, ticket, writes, &Area::Whole, pool, &mut Taken::nothing());
    state.run = Some(run.clone());
    Some(place)
}

/// Gives the place of a run back.
pub(crate) fn give_idle(chunk: CorePtr, place: Place, writes: bool, tickets: &mut Tickets) {
    let mut state = chunk.lock();
    if writes {
        state.parts = None;
    }
    let run = state.run.take();
    let keep = state.give(place, tickets);
    drop(state);
    drop(run);
    drop_owner(keep);
}

/// Gives up what may be the last owner of a chunk: with it may go a user's value or error, whose drop may panic.
fn drop_owner(owner: Option<Arc<dyn AnyChunk>>) {
    if owner.is_some() {
        crate::error::quietly(|| drop(owner));
    }
}

/// True if accesses of one task to one chunk are to fields (or regions of a user's kind) and to no elements: the one may
/// move what the other measures.
fn is_mixed(group: &[Held]) -> bool {
    group.iter().any(|held| is_opaque(held.area())) && group.iter().any(Held::has_no_elements)
}

/// True if accesses of one task to one chunk may overlap, one of them writing.
///
/// # Errors
/// If they do.
fn overlap(group: &[Held]) -> Result<bool, Refusal> {
    let mut may = false;
    for (at, one) in group.iter().enumerate() {
        for other in &group[at + 1..] {
            if (one.mode.writes() || other.mode.writes()) && one.area().overlaps(other.area()) {
                if one.is_exact() && other.is_exact() {
                    return Err(aliased(one, other));
                }
                may = true;
            }
        }
    }
    Ok(may)
}

/// What taking places came to.
pub(crate) struct Taken {
    /// How many are still to be granted.
    pub(crate) waiting: u32,
    /// Some of those wait where tasks of another runtime do.
    pub(crate) foreign: bool,
    /// Runs of plans that have a place before: they are to be told.
    behind: SmallVec<[Arc<Run>; 1]>,
}

impl Taken {
    fn nothing() -> Self {
        Taken { waiting: 0, foreign: false, behind: SmallVec::new() }
    }

    /// Tells the runs that somebody waits behind them, without any lock.
    fn contest(&mut self) {
        for run in std::mem::take(&mut self.behind) {
            let mut work = Work::new();
            run.contest(&mut work.tickets);
            work.drain();
        }
    }
}

pub(crate) fn clip(area: &Area, shape: &Shape) -> Result<Area, Refusal> {
    area.clip(shape).map_err(|outside| Refusal::Outside { region: area.to_string(), outside })
}

fn aliased(one: &Held, other: &Held) -> Refusal {
    let (first, second) = if one.argument <= other.argument { (one, other) } else { (other, one) };
    Refusal::Aliased { first: first.describe(), second: second.describe() }
}

/// Checks what could not be checked when the places were taken. The places are granted.
pub(crate) fn check_merged<'a>(held: impl Iterator<Item = &'a Held>) -> Result<(), Refusal> {
    let merged: SmallVec<[&Held; 4]> = held.filter(|held| held.merged).collect();
    for (at, one) in merged.iter().enumerate() {
        for other in merged[at + 1..].iter().filter(|other| other.is_same_chunk(one)) {
            if !one.mode.writes() && !other.mode.writes() {
                continue;
            }
            let mut state = one.core().lock();
            let mut resolve = |held: &Held| match held.measure() {
                Some(measure) => {
                    let parts = state.measured(held.chunk.value(), measure, false);
                    clip(held.area(), &parts.shape)
                }
                None => Ok(held.area().clone()),
            };
            let (first, second) = (resolve(one)?, resolve(other)?);
            drop(state);
            if first.overlaps(&second) {
                return Err(aliased(one, other));
            }
        }
    }
    Ok(())
}
