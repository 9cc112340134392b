//! What ran when: a row for each thread or each task, time going right.
//!
//! ```text
//!   worker 0  ▇▇gemm▇▇ ▇trsm▇ ▒▒▒▒▒  87 %     ▇ ran   ▒ slept   · awake without a task
//!   worker 1  ▇▇▇▂▂▄▄▂▂▂▇▇▇▇▇ ▒▒▒▒▒  91 %     ▂ many short runs: their share of the time
//!             0     10    20    30 ms
//! ```
//! 1. Every run is in the picture: as a bar, or as its share of the time in a column of pixels.
//! 2. There are at most so many bars and columns, whatever was recorded: a browser opens it at once.
//! 3. Rows beyond what one can look through are folded by name, or left out; the title says so.

mod canvas;
mod rows;
#[cfg(test)]
mod tests;

use std::path::Path;

use crate::draw;
use crate::error::TraceError;
use crate::model::Trace;

/// What the rows of a Gantt chart are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Lane {
    /// A row for each task: when it waited, was ready, ran and was suspended. Beyond 200 tasks, a row for each name: how many
    /// of them ran at once.
    Task,
    /// A row for each thread: what it ran, when it slept.
    Processor,
    /// Rows for each thread: what it spawned, took from others, when it slept and woke.
    Scheduler,
}

/// The picture of what ran when, by [`Trace::gantt`].
#[must_use = "it is drawn by `save` or `to_svg`"]
#[derive(Clone, Debug)]
pub struct Gantt<'t> {
    trace: &'t Trace,
    lane: Lane,
}

impl Trace {
    /// What ran when, as a picture.
    pub fn gantt(&self, lane: Lane) -> Gantt<'_> {
        Gantt { trace: self, lane }
    }
}

impl Gantt<'_> {
    /// Writes the picture to a file: `.svg`; with the feature `raster` also `.png` and `.pdf`, with fonts of their own.
    ///
    /// # Errors
    /// [`TraceError::UnknownSuffix`] for any other suffix; [`TraceError::Io`] with the path if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TraceError> {
        draw::save(path.as_ref(), draw::with_raster!(".svg"), || self.to_svg())
    }

    /// The picture as the text of an SVG file.
    #[must_use]
    pub fn to_svg(&self) -> String {
        match self.lane {
            Lane::Task => rows::tasks(self.trace),
            Lane::Processor => rows::processors(self.trace),
            Lane::Scheduler => rows::scheduler(self.trace),
        }
    }
}
