//! What a task graph is, decided without side effects: no threads, no Tokio, and no I/O but reading the topology.
//!
//! ```text
//!   Topology ──processors()──▶ Processor ◀──contains()── Scope ◀──execution_scope()── OptionSet
//!   what this machine has      what runs tasks           where a task may run         what a task was given
//!
//!   Area ──enqueue()──▶ AccessQueue ──release()──▶ who may go on          Poison
//!   what of a chunk     the order of its accesses                         what failed writes have left of it
//! ```
//!
//! - [`Topology`]: the CPUs that this process may use, with their cores, caches, packages and NUMA nodes.
//! - [`Processor`] and [`ProcessorKind`]: a place that executes tasks, such as a pinned thread or a GPU.
//! - [`Scope`]: a set of processors, written without knowing the machine, closed under `|` and `&`.
//! - [`OptionSet`]: the options of one task, and how inner ones win over outer ones.
//! - [`Area`]: which elements of a chunk an access touches: everything, slices, boxes, triangles, bands, fields.
//! - [`AccessQueue`]: who waits for whom at one chunk; [`Poison`]: which of its elements a failed write has spoilt.
//! - [`Order`]: who waits for whom in a whole sequence of accesses, for a program that runs again.
//! - [`Eviction`]: who leaves memory when it is full.
//! - [`RunTimes`] and [`Transfers`]: what steps and the ways of their data are expected to take, learnt from what was measured.
//! - [`earliest_end`]: where a step goes, by when it would end on each [`Candidate`].
//! - [`Simulation`]: how long an order of steps would take on processors that do not exist, by a [`Policy`].
//!
//! ```
//! use dagger_core::{OptionSet, Scope, Topology};
//!
//! let machine = Topology::detect();
//! let options = OptionSet::new();
//! let places = machine.processors(0, machine.usable());
//! assert!(places.iter().all(|place| options.execution_scope().contains(place)));
//! assert_eq!(Scope::thread(0) | Scope::thread(1), Scope::threads([1, 0]));
//! ```

mod access;
mod cost;
mod eviction;
mod options;
mod order;
mod placement;
mod poison;
mod processor;
pub mod record;
mod region;
mod scope;
mod simulation;
mod topology;

pub use access::{AccessQueue, Place};
pub use cost::{Rate, RunTimes, Transfers};
pub use eviction::{Eviction, Resident};
pub use options::{OptionSet, TaskName};
pub use order::Order;
pub use placement::{Candidate, earliest_end};
pub use poison::Poison;
pub use processor::{Processor, ProcessorKind};
pub use region::{Area, Axis, Band, Grid, Indices, Outside, Progression, Region, Shape};
pub use scope::Scope;
pub use simulation::{Policy, Schedule, Simulation, Slot};
#[cfg(feature = "hwloc")]
pub use topology::TopologyError;
pub use topology::{Cpu, Topology, usable_memory};
