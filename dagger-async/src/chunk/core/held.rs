//! One access of a task or guard: what it is, what it waits for, and what its end leaves at the chunk.

use super::{
    Core, CorePtr, Denied, Held, HeldPart, Marks, Measure, Mode, Outcome, Presence, Refusal, State, Tickets,
    WaitingPlace, clip, drop_owner, is_opaque,
};
use crate::error::Error;
use crate::plan::Run;
use crate::pool::Pool;
use crate::task::RawTask;
use dagger_core::{Area, Place};
use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::Arc;

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
        let marks = Marks(match (fills, &part) {
            (true, _) => Marks::FILLS,
            (false, None) => Marks::PLAIN,
            (false, Some(_)) => 0,
        });
        Held { chunk, mode, part, run: None, turn: None, argument: 0, marks }
    }

    /// An access to the whole with this place.
    pub(crate) fn with_place(chunk: CorePtr, mode: Mode, place: Place) -> Self {
        Held { turn: Some(place.number()), ..Held::new(chunk, mode, None, false) }
    }

    /// Its place in the queue of its chunk, if it has one of its own.
    #[inline]
    fn place(&self) -> Option<Place> {
        self.turn.filter(|_| self.run.is_none()).map(Place::from_number)
    }

    /// Its place is another access's, which covers both.
    #[inline]
    pub(super) fn is_merged(&self) -> bool {
        self.marks.has(Marks::MERGED)
    }

    /// Leaves its place to another access.
    pub(super) fn merge(&mut self) {
        self.marks.set(Marks::MERGED, true);
        self.marks.set(Marks::PLAIN, false);
    }

    /// It makes the value (`Chunk::from_task`).
    #[inline]
    pub(crate) fn fills(&self) -> bool {
        self.marks.has(Marks::FILLS)
    }

    /// A guard has its pin. Those of tasks are known by the task.
    #[cfg(feature = "store")]
    pub(crate) fn is_pinned(&self) -> bool {
        self.marks.has(Marks::PINNED)
    }

    #[cfg(feature = "store")]
    pub(crate) fn set_pinned(&mut self, is_pinned: bool) {
        self.marks.set(Marks::PINNED, is_pinned);
    }

    pub(super) fn measure(&self) -> Option<Measure> {
        self.part.as_ref().and_then(|part| part.measure)
    }

    pub(crate) fn core(&self) -> &Core {
        &self.chunk
    }

    /// It has a place, or shares that of another access of its task, or that of the run of its plan.
    #[inline]
    pub(crate) fn has_place(&self) -> bool {
        self.turn.is_some() || self.is_merged()
    }

    /// It has a place in the queue of its chunk, and one of its own.
    #[inline]
    pub(crate) fn is_queued(&self) -> bool {
        self.place().is_some()
    }

    /// The declared part; `None` is the whole.
    pub(crate) fn part(&self) -> Option<&Area> {
        self.part.as_ref().map(|part| &part.area)
    }

    /// Only its turn, or its runtime, decides whether it may be, or it moves what others measure.
    pub(crate) fn is_intricate(&self) -> bool {
        self.is_merged() || self.fills() || self.chunk.is_placed || is_opaque(self.area())
    }

    /// Leaves the order to the run of a plan.
    #[inline]
    pub(crate) fn follow(&mut self, run: &Run, step: u32, silent: bool) {
        self.run = Some(NonNull::from(run));
        debug_assert!(self.turn.is_none() && !self.is_merged() && step < u32::MAX, "it has no place");
        self.turn = Some(NonZeroU32::MIN.saturating_add(step));
        self.marks.set(Marks::SILENT, silent);
        self.marks.set(Marks::PLAIN, false);
    }

    /// The run that orders it, and its step there.
    #[inline]
    pub(crate) fn step(&self) -> Option<(&Run, u32)> {
        // SAFETY: the step is not completed while there is this access of it.
        self.followed().map(|(run, step)| (unsafe { run.as_ref() }, step))
    }

    /// As [`step`](Self::step), for the one who completes it.
    #[inline]
    pub(crate) fn followed(&self) -> Option<(NonNull<Run>, u32)> {
        self.run.zip(self.turn).map(|(run, turn)| (run, turn.get() - 1))
    }

    pub(crate) fn area(&self) -> &Area {
        static WHOLE: Area = Area::Whole;
        self.part.as_ref().map_or(&WHOLE, |part| &part.area)
    }

    /// The area is what will be accessed: the length is known, or does not matter.
    pub(super) fn is_exact(&self) -> bool {
        self.measure().is_none() || self.area().is_resolved()
    }

    /// A region of elements that has none.
    pub(super) fn has_no_elements(&self) -> bool {
        matches!(self.area(), Area::Grid(grid) if grid.is_empty())
    }

    /// Checks the access against what is known of the chunk now.
    pub(super) fn prepare(&mut self, state: &mut State, pool: *const Pool) -> Result<(), Refusal> {
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

    pub(super) fn is_same_chunk(&self, other: &Held) -> bool {
        self.chunk == other.chunk
    }

    /// As a user would write it.
    pub(super) fn describe(&self) -> String {
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
        self.place().is_none_or(|place| state.queue.is_granted(place))
    }

    /// Why it cannot be used although it was granted, if so.
    pub(crate) fn denied(&self, state: &mut State) -> Option<Denied> {
        state.deny(self.area(), self.mode, self.chunk.value(), self.measure())
    }

    /// What has poisoned it, as far as that can be told of a value that is not in memory. Its turn has come.
    #[cfg(feature = "store")]
    pub(crate) fn known_poison(&self) -> Option<Arc<Error>> {
        if !self.core().needs_a_look() || self.is_merged() || !self.is_exact() {
            return None;
        }
        match self.denied(&mut self.core().lock()) {
            Some(Denied::Poisoned(cause)) => Some(cause),
            Some(Denied::Taken) | None => None,
        }
    }

    /// Its place, to look at from elsewhere while it waits.
    pub(crate) fn waiting_place(&self) -> Option<WaitingPlace> {
        self.place().map(|place| WaitingPlace { chunk: self.chunk.owner(), place })
    }

    /// The tasks that it waits for.
    pub(crate) fn visit_blockers(&self, visit: &mut dyn FnMut(RawTask)) {
        if let Some((run, step)) = self.step() {
            run.visit_predecessors(step, visit);
        }
        if let Some(place) = self.place() {
            self.core().visit_blockers(place, visit);
        }
    }

    /// Ends the access. Tells through `tickets` whose turn came.
    pub(crate) fn release(self, outcome: Outcome<'_>, tickets: &mut Tickets) {
        if !self.release_quickly(outcome, tickets) {
            self.release_slowly(outcome, tickets);
        }
    }

    /// Ends an access as most are, which owns nothing then. False: it is another one.
    #[inline(always)]
    pub(crate) fn release_quickly(&self, outcome: Outcome<'_>, tickets: &mut Tickets) -> bool {
        if let (true, Some(turn), Outcome::Wrote) = (self.marks.has(Marks::PLAIN), self.turn, outcome) {
            let mut state = self.chunk.lock();
            if self.mode == Mode::Out && !state.poison.is_clean() {
                return false;
            }
            if self.mode.writes() && state.parts.is_some() {
                state.parts = None;
            }
            let keep = state.give(Place::from_number(turn), tickets);
            drop(state);
            drop_owner(keep);
            return true;
        }
        self.is_whole() && self.leaves_nothing(outcome)
    }

    /// It is an access to all of the value, and owns nothing.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.part.is_none() && !self.is_merged()
    }

    /// Its end leaves nothing to do at the chunk.
    #[inline]
    pub(crate) fn leaves_nothing(&self, outcome: Outcome<'_>) -> bool {
        self.marks.has(Marks::SILENT) && matches!(outcome, Outcome::Wrote) && !self.chunk.needs_a_look()
    }

    #[cold]
    pub(crate) fn release_slowly(self, outcome: Outcome<'_>, tickets: &mut Tickets) {
        // Errors are the user's: their drop is not run under the lock.
        let mut garbage: Vec<Arc<Error>> = Vec::new();
        // One that was refused has no place, and has touched nothing.
        if !self.has_place() || self.leaves_nothing(outcome) {
            return;
        }
        // Beside others of its task it has no place; the one that has may be given back already, and the chunk with it.
        if self.turn.is_none() && self.has_no_elements() {
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
                        if self.fills() {
                            state.presence = Presence::Missing(Some(cause));
                        } else if let Some(area) = state.resolved(&self) {
                            // What was measured before a whole write says nothing about what it has left.
                            let shape = state.parts.as_ref().map(|parts| parts.shape).filter(|_| !whole);
                            state.poison.add(area, shape.as_ref(), cause);
                        }
                        chunk.look();
                    }
                    Outcome::Wrote if self.fills() => state.presence = Presence::Here,
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
                if is_opaque(self.area()) && !self.is_merged() && self.run.is_none() {
                    state.opaque_writes -= 1;
                }
            }
            if let Some(place) = self.place() {
                keep = state.give(place, tickets);
            }
        }
        crate::error::quietly(|| drop(garbage));
        drop_owner(keep);
    }
}
