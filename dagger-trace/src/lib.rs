//! What a recorded run of tasks shows.

mod data;
mod lane;
mod model;

pub use model::{Access, At, Edge, EdgeCause, Idle, LaneInfo, Run, Steal, Task, Trace};
