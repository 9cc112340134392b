//! What a recorded run of tasks shows: where the time went, what was critical, and pictures of it in other programs.
//!
//! ```text
//!   Log ──from_log()──▶ Trace ──describe()─────▶ a page of text: bounds, workers, time by name, critical path
//!   what the threads    tasks  ──analysis()────▶ the same as numbers
//!   wrote down          runs   ──save_chrome()─▶ JSON for Perfetto and chrome://tracing
//!                       edges  ──save(), load()─ a file, to look at elsewhere, also with the program `dagger-trace`
//! ```
//!
//! - [`Trace`]: the run as tasks, their runs on threads, and the edges between them. Order by data is found here, from what the
//!   tasks accessed.
//! - [`Analysis`]: work and critical path (T₁ and T∞), the bounds they put on the elapsed time, and what each worker did instead
//!   of running tasks.
//! - [`Row`]: run times by name of task or by categories of your own ([`Patterns`], [`Category`]).
//! - [`Moved`] and [`Sample`]: what stores moved between memory and elsewhere, and what they held; [`MoveRow`]: their sums.
//! - [`Change`]: what became slower between two runs.
//! - [`Graph`] and [`Gantt`]: what waited for what, and what ran when, as pictures for browsers.
//! - [`TraceError`]: what can go wrong with files. Reading a damaged one is an error that says where, never a panic.
//!
//! ```
//! use dagger_core::record::{Cause, End, Lane, Log, Name, Record, What};
//! use dagger_trace::prelude::*;
//!
//! // Two tasks on one worker, the second one with the result of the first.
//! let site = std::panic::Location::caller();
//! let spawn = |task, name| What::Spawn { task, parent: 0, name: Name::Callee(name), site };
//! let records = [
//!     (0, spawn(1, "sum")),
//!     (0, spawn(2, "double")),
//!     (0, What::After { task: 2, input: 1, cause: Cause::Argument }),
//!     (10_000, What::Start { task: 1 }),
//!     (40_000, What::End { task: 1, end: End::Done }),
//!     (50_000, What::Start { task: 2 }),
//!     (90_000, What::End { task: 2, end: End::Done }),
//! ];
//! let records = records.into_iter().map(|(at, what)| Record { at, what }).collect();
//! let lanes = vec![Lane { name: "worker 0".into(), worker: Some(0), records }];
//! let trace = Trace::from_log(&Log { began: std::time::SystemTime::now(), nanos: 100_000, lanes, lost: 0 });
//!
//! let analysis = trace.analysis();
//! assert_eq!((analysis.work, analysis.span, analysis.elapsed), (70_000, 70_000, 100_000));
//! let path: Vec<&str> = analysis.critical_path.iter().map(|step| trace.tasks[step.task].name.as_str()).collect();
//! assert_eq!(path, ["sum", "double"]);
//! println!("{}", trace.describe());
//! # assert!(trace.describe().contains("double"));
//! ```
//!
//! Everything here is pure but the reading and writing of files, and starts no threads. What is written down is decided in
//! `dagger-async`; [`trace::start`] starts it, [`trace::record`] does so for one block.

mod analysis;
mod chrome;
mod data;
mod describe;
mod diff;
mod draw;
mod error;
mod file;
mod gantt;
mod graph;
mod lane;
mod model;
mod moves;
mod pattern;
#[cfg(feature = "progress")]
mod progress;
#[cfg(feature = "raster")]
mod raster;
mod recorder;
#[cfg(test)]
#[path = "../examples/pictures/samples.rs"]
mod samples;
mod show;
#[cfg(test)]
mod tests;

// The samples are an example's: they name this crate as its users do.
#[cfg(test)]
extern crate self as dagger_trace;

pub use analysis::{Analysis, Category, Row, Step, WorkerTime};
pub use diff::Change;
pub use error::TraceError;
pub use gantt::{Gantt, Lane};
pub use graph::{Colour, Graph};
pub use model::{Access, At, Edge, EdgeCause, Idle, LaneInfo, Moved, Place, Run, Sample, Steal, Task, Trace};
pub use moves::MoveRow;
pub use pattern::Patterns;
#[cfg(feature = "progress")]
pub use progress::{Progress, WithProgress};

/// Recording: [`trace::start`] everything, [`trace::record`] one block.
pub mod trace {
    pub use crate::recorder::{Recorder, record, start, start_with};
}

/// What most programs need: `use dagger_trace::prelude::*;`.
pub mod prelude {
    #[cfg(feature = "progress")]
    pub use crate::WithProgress;
    pub use crate::{Analysis, Lane, Trace, TraceError, trace};
}
