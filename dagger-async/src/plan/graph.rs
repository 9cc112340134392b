//! What the first run of a plan leaves: its steps, their order, and the chunks that they access.

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
    mode: Mode,
    part: Option<Area>,
    /// A success leaves nothing to do at the chunk.
    pub(super) silent: bool,
}

/// A chunk that a plan accesses, which the plan keeps.
pub(super) struct PlanChunk {
    pub(super) core: CorePtr,
    /// Some step writes it.
    pub(super) writes: bool,
    _owner: Arc<dyn AnyChunk>,
}

impl Step {
    fn of(task: RawTask, accesses: &[Held]) -> Step {
        let access = |held: &Held| StepAccess {
            chunk: held.chunk,
            mode: held.mode,
            part: held.part().cloned(),
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
}

struct RecordedChunk {
    chunk: PlanChunk,
    has_parts: bool,
}

impl Recording {
    /// Notes a spawn, before its places are taken.
    pub(super) fn note(&mut self, task: RawTask, accesses: &[Held]) {
        for held in accesses {
            let known = self.chunks.entry(held.chunk).or_insert_with(|| RecordedChunk {
                chunk: PlanChunk { core: held.chunk, writes: false, _owner: held.chunk.owner() },
                has_parts: false,
            });
            known.chunk.writes |= held.mode.writes();
            known.has_parts |= held.part().is_some();
            self.intricate |= held.is_intricate();
        }
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
        for access in self.steps.iter_mut().flat_map(|step| &mut step.accesses) {
            // A whole write of a chunk that is accessed by part leaves its elements to be found anew.
            access.silent = !access.mode.writes() || !self.chunks[&access.chunk].has_parts;
        }
        let steps = self.steps.iter().map(|step| {
            step.accesses.iter().map(|access| {
                (access.chunk, access.mode.writes(), access.part.as_ref().unwrap_or(&Area::Whole))
            })
        });
        let order = Order::of(steps);
        let mut chunks: Vec<PlanChunk> = self.chunks.into_values().map(|known| known.chunk).collect();
        chunks.sort_by_key(|chunk| chunk.core);
        Some(Graph { steps: self.steps.into(), order, chunks: chunks.into() })
    }
}
