//! What the first run of a plan leaves: its steps, their order, and the chunks that they access.

use super::times::{Ranking, Timed, Times};
use crate::chunk::{AnyChunk, CorePtr, Held, Mode};
use crate::task::RawTask;
use dagger_core::{Area, Order};
use std::collections::HashMap;
use std::sync::Arc;

/// A recorded program.
pub(crate) struct Graph {
    pub(super) steps: Box<[Step]>,
    pub(super) order: Order,
    pub(super) chunks: Box<[PlanChunk]>,
    pub(super) ranking: Ranking,
}

/// A spawn that accesses chunks.
pub(super) struct Step {
    /// The address of its place in the program.
    site: usize,
    pub(super) accesses: Box<[StepAccess]>,
}

/// One access of a step, as declared.
pub(super) struct StepAccess {
    chunk: CorePtr,
    /// The number of the chunk in the graph.
    pub(super) index: u32,
    mode: Mode,
    part: Option<Area>,
    /// A success leaves nothing to do at the chunk.
    pub(super) silent: bool,
}

impl StepAccess {
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

/// A chunk that a plan accesses, which the plan keeps.
pub(super) struct PlanChunk {
    pub(super) core: CorePtr,
    /// Some step writes it.
    pub(super) writes: bool,
    /// Those that access it.
    pub(super) steps: Vec<u32>,
    _owner: Arc<dyn AnyChunk>,
}

impl Step {
    fn of(task: RawTask, accesses: &[Held]) -> Step {
        let access = |held: &Held| StepAccess {
            chunk: held.chunk,
            mode: held.mode,
            part: held.part().cloned(),
            index: 0,
            silent: false,
        };
        Step { site: task.origin.address(), accesses: accesses.iter().map(access).collect() }
    }

    /// True if a task that is being spawned is this step again.
    #[inline]
    pub(super) fn is(&self, task: RawTask, accesses: &[Held]) -> bool {
        let same = |(planned, held): (&StepAccess, &Held)| {
            planned.chunk == held.chunk
                && planned.mode == held.mode
                && match (&planned.part, held.part()) {
                    (None, None) => true,
                    (Some(planned), Some(part)) => planned == part,
                    _ => false,
                }
        };
        self.site == task.origin.address()
            && self.accesses.len() == accesses.len()
            && self.accesses.iter().zip(accesses).all(same)
    }
}

/// The steps of a run that is being recorded.
#[derive(Default)]
pub(super) struct Recording {
    steps: Vec<Step>,
    chunks: HashMap<CorePtr, RecordedChunk>,
    /// Some step cannot be planned.
    intricate: bool,
    /// What the steps take, if they are timed.
    times: Option<Arc<Times>>,
}

struct RecordedChunk {
    chunk: PlanChunk,
    has_parts: bool,
}

impl Recording {
    pub(super) fn new(times: Option<Arc<Times>>) -> Recording {
        Recording { times, ..Recording::default() }
    }

    /// How the next step is timed, if it is.
    pub(super) fn timed(&self) -> Option<Timed> {
        self.times.clone().map(|times| Timed::new(times, self.len()))
    }

    /// Notes a spawn, before its places are taken.
    pub(super) fn note(&mut self, task: RawTask, accesses: &[Held]) {
        for held in accesses {
            let known = self.chunks.entry(held.chunk).or_insert_with(|| RecordedChunk {
                chunk: PlanChunk {
                    core: held.chunk,
                    writes: false,
                    steps: Vec::new(),
                    _owner: held.chunk.owner(),
                },
                has_parts: false,
            });
            known.chunk.writes |= held.mode.writes();
            known.has_parts |= held.part().is_some();
            self.intricate |= held.is_intricate();
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
        self.intricate |= pairs.any(|(one, other)| meet(one, other));
        self.steps.push(Step::of(task, accesses));
    }

    /// The spawn that was noted last could not be planned.
    pub(super) fn is_intricate(&mut self) {
        self.intricate = true;
    }

    /// How many steps there are so far.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// The graph, if there is one that can be run.
    pub(super) fn finish(mut self) -> Option<Graph> {
        if self.intricate || self.steps.is_empty() {
            return None;
        }
        let mut order =
            Order::of(self.steps.iter().map(|step| step.accesses.iter().map(StepAccess::ordered)));
        let mut chunks: Vec<RecordedChunk> = self.chunks.into_values().collect();
        chunks.sort_by_key(|known| known.chunk.core);
        let numbers: HashMap<CorePtr, usize> =
            chunks.iter().enumerate().map(|(index, known)| (known.chunk.core, index)).collect();
        for (at, step) in self.steps.iter_mut().enumerate() {
            for access in &mut step.accesses {
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
        Some(Graph { steps: self.steps.into(), order, chunks: chunks.into(), ranking })
    }
}
