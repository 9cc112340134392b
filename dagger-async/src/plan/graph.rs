//! What the first run of a plan leaves: its steps, their order, and the chunks that they access.

use super::times::{Ranking, Timed, Times};
use crate::call::CallsAgain;
use crate::chunk::{AnyChunk, CorePtr, Held, Mode};
use crate::error::{Error, TaskInfo};
use crate::record;
use crate::task::RawTask;
use dagger_core::record::Name;
use dagger_core::{Area, Order};
use std::collections::HashMap;
use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;

/// A recorded program.
#[derive(Default)]
pub(crate) struct Graph {
    pub(super) steps: Box<[Step]>,
    /// Of all steps, one behind the other: a run looks at them in this order.
    accesses: Box<[StepAccess]>,
    pub(super) order: Order,
    pub(super) chunks: Box<[PlanChunk]>,
    pub(super) ranking: Ranking,
}

/// A spawn that accesses chunks.
pub(super) struct Step {
    /// The address of its place in the program.
    site: usize,
    /// The first of its accesses in the list of all, and how many there are.
    first: u32,
    count: u32,
}

impl Step {
    fn accesses(&self) -> Range<usize> {
        self.first as usize..(self.first + self.count) as usize
    }
}

/// One access of a step, as declared.
pub(super) struct StepAccess {
    pub(super) chunk: CorePtr,
    /// The number of the chunk in the graph.
    pub(super) index: u32,
    pub(super) mode: Mode,
    /// `None`: the whole.
    pub(super) part: Option<Box<Area>>,
    /// A success leaves nothing to do at the chunk.
    pub(super) silent: bool,
}

/// A chunk that a plan accesses, which the plan keeps.
pub(super) struct PlanChunk {
    pub(super) core: CorePtr,
    /// Some step writes it.
    pub(super) writes: bool,
    /// Those that access it.
    pub(super) steps: Vec<u32>,
    pub(super) owner: Arc<dyn AnyChunk>,
}

impl StepAccess {
    fn of(held: &Held) -> StepAccess {
        let part = held.part().cloned().map(Box::new);
        StepAccess { chunk: held.chunk, mode: held.mode, part, index: 0, silent: false }
    }

    /// True if a task that is being spawned accesses the same.
    #[inline]
    fn is(&self, held: &Held) -> bool {
        self.chunk == held.chunk
            && self.mode == held.mode
            && match (&self.part, held.part()) {
                (None, None) => true,
                (Some(planned), Some(part)) => **planned == *part,
                _ => false,
            }
    }

    /// As it stands in the order. What has no elements conflicts with nothing, but where they would be must not change
    /// while that is looked at (as in the queue).
    fn ordered(&self) -> (CorePtr, bool, &Area) {
        match &self.part {
            None => (self.chunk, self.mode.writes(), &Area::Whole),
            Some(part) if part.is_empty() => (self.chunk, false, &Area::Whole),
            Some(part) => (self.chunk, self.mode.writes(), part),
        }
    }
}

impl Graph {
    /// The accesses of this step.
    #[inline]
    pub(super) fn accesses(&self, step: usize) -> &[StepAccess] {
        &self.accesses[self.steps[step].accesses()]
    }

    /// True if a task that is being spawned is this step again.
    #[inline]
    pub(super) fn is_step(&self, step: usize, task: RawTask, accesses: &[Held]) -> bool {
        let Some(planned) = self.steps.get(step) else { return false };
        planned.site == task.origin.address()
            && planned.count as usize == accesses.len()
            && self.accesses(step).iter().zip(accesses).all(|(planned, held)| planned.is(held))
    }
}

/// Steps and accesses have numbers of 32 bits, with room for marks.
const STEPS_MAX: usize = 1 << 30;
const INTRICATE: &str = "it accesses a chunk with a scope, a field, a region of your own kind, or two regions of a chunk that may \
                         overlap, or it was refused";
const ONCE: &str = "it is not said that it can be called again: write `spawn!(f(..); repeatable = true)`";

/// The steps of a run that is being recorded.
#[derive(Default)]
pub(super) struct Recording {
    steps: Vec<Step>,
    accesses: Vec<StepAccess>,
    chunks: HashMap<CorePtr, RecordedChunk>,
    /// The first task that cannot be a step.
    refused: Option<TaskInfo>,
    /// What the steps take, if they are timed.
    times: Option<Arc<Times>>,
    /// What a frozen graph keeps beside, if this is to be one.
    calls: Option<StepCalls>,
}

/// The calls of the steps.
#[derive(Default)]
pub(super) struct StepCalls {
    pub(super) steps: Vec<StepCall>,
    /// Why the first step that cannot be kept is none.
    refusal: Option<Error>,
}

/// The call of a step.
pub(super) struct StepCall {
    pub(super) call: Box<dyn CallsAgain>,
    /// The task that has made it first.
    pub(super) task: TaskInfo,
    pub(super) name: Name,
    pub(super) site: &'static Location<'static>,
}

impl StepCalls {
    fn refuse(&mut self, task: Option<TaskInfo>, why: &str) {
        let what = if task.is_some() { "it" } else { "what runs inside the block" };
        self.refusal.get_or_insert_with(|| Error::Options {
            message: format!("{what} cannot be a step of a frozen graph: {why}").into(),
            root: task.map(Into::into),
        });
    }
}

struct RecordedChunk {
    chunk: PlanChunk,
    has_parts: bool,
}

impl Recording {
    pub(super) fn new(times: Option<Arc<Times>>) -> Recording {
        Recording { times, ..Recording::default() }
    }

    /// Of what is to be frozen.
    pub(super) fn freezing() -> Recording {
        Recording { calls: Some(StepCalls::default()), ..Recording::new(Some(Arc::default())) }
    }

    /// What is recorded cannot be frozen, because of this task, if it is one.
    pub(super) fn refuse(&mut self, task: Option<RawTask>, why: &str) {
        if let Some(calls) = &mut self.calls {
            calls.refuse(task.map(|task| task.info()), why);
        }
    }

    /// Keeps the call of the step that was noted last.
    pub(super) fn keep(&mut self, task: RawTask, call: Result<Option<Box<dyn CallsAgain>>, ()>) {
        match (&mut self.calls, call) {
            (Some(calls), Ok(Some(call))) => {
                let (name, site) = (record::name_of(&task), task.origin.location());
                calls.steps.push(StepCall { call, task: task.info(), name, site });
            }
            (Some(calls), Ok(None)) => calls.refuse(Some(task.info()), ONCE),
            (Some(calls), Err(())) => {
                calls.refuse(Some(task.info()), "a `clone` of its function or arguments has panicked")
            }
            (None, _) => {}
        }
    }

    /// The calls of the steps, if these can be frozen.
    pub(super) fn take_calls(&mut self) -> Result<Vec<StepCall>, Error> {
        let calls = self.calls.take().unwrap_or_default();
        calls.refusal.map_or(Ok(calls.steps), Err)
    }

    /// How the next step is timed, if it is.
    pub(super) fn timed(&self) -> Option<Timed> {
        self.times.clone().map(|times| Timed::new(times, self.len()))
    }

    /// Notes a spawn, before its places are taken.
    pub(super) fn note(&mut self, task: RawTask, accesses: &[Held]) {
        let mut is_intricate = false;
        for held in accesses {
            let known = self.chunks.entry(held.chunk).or_insert_with(|| RecordedChunk {
                chunk: PlanChunk {
                    core: held.chunk,
                    writes: false,
                    steps: Vec::new(),
                    owner: held.chunk.owner(),
                },
                has_parts: false,
            });
            known.chunk.writes |= held.mode.writes();
            known.has_parts |= held.part().is_some();
            is_intricate |= held.is_intricate();
        }
        // What is apart as declared is apart whatever length the chunk has in a later run.
        let meet = |one: &Held, other: &Held| {
            one.chunk == other.chunk
                && (one.mode.writes() || other.mode.writes())
                && one.area().overlaps(other.area())
        };
        let mut pairs = accesses
            .iter()
            .enumerate()
            .flat_map(|(at, one)| accesses[at + 1..].iter().map(move |other| (one, other)));
        if is_intricate || pairs.any(|(one, other)| meet(one, other)) {
            self.refuse_planning(task);
        }
        let (first, count) = (self.accesses.len() as u32, accesses.len() as u32);
        self.steps.push(Step { site: task.origin.address(), first, count });
        self.accesses.extend(accesses.iter().map(StepAccess::of));
    }

    /// This task cannot be a step.
    pub(super) fn refuse_planning(&mut self, task: RawTask) {
        self.refused.get_or_insert_with(|| task.info());
        self.refuse(Some(task), INTRICATE);
    }

    /// How many steps there are so far.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The graph, if there are steps.
    ///
    /// # Errors
    /// [`Error::Options`]: why it cannot be run.
    pub(super) fn finish(mut self) -> Result<Option<Graph>, Error> {
        if let Some(task) = self.refused {
            return Err(Error::Options { root: Some(task.into()), message: INTRICATE.into() });
        }
        if self.steps.len() > STEPS_MAX || u32::try_from(self.accesses.len()).is_err() {
            let message = "the block has more than 2³⁰ tasks with data, or 2³² accesses";
            return Err(Error::Options { root: None, message: message.into() });
        }
        if self.steps.is_empty() {
            return Ok(None);
        }
        let mut order = Order::of(
            self.steps.iter().map(|step| self.accesses[step.accesses()].iter().map(StepAccess::ordered)),
        );
        let mut chunks: Vec<RecordedChunk> = self.chunks.into_values().collect();
        chunks.sort_by_key(|known| known.chunk.core);
        let numbers: HashMap<CorePtr, usize> =
            chunks.iter().enumerate().map(|(index, known)| (known.chunk.core, index)).collect();
        for (at, step) in self.steps.iter().enumerate() {
            for access in &mut self.accesses[step.accesses()] {
                let index = numbers[&access.chunk];
                access.index = index as u32;
                // A whole write of a chunk that is accessed by part leaves its elements to be found anew.
                access.silent = !access.mode.writes() || !chunks[index].has_parts;
                let steps = &mut chunks[index].chunk.steps;
                if steps.last() != Some(&(at as u32)) {
                    steps.push(at as u32);
                }
            }
        }
        let sites: Vec<usize> = self.steps.iter().map(|step| step.site).collect();
        let ranking = Ranking::of(&mut order, &sites, self.times.as_deref());
        let chunks: Vec<PlanChunk> = chunks.into_iter().map(|known| known.chunk).collect();
        Ok(Some(Graph {
            steps: self.steps.into(),
            accesses: self.accesses.into(),
            order,
            chunks: chunks.into(),
            ranking,
        }))
    }
}
