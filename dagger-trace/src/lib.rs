//! What a recorded run of tasks shows.

mod data;
mod draw;
mod gantt;
mod graph;
mod lane;
mod model;

pub use draw::SaveError;
pub use gantt::{Gantt, Lane};
pub use graph::{Colour, Graph};
pub use model::{Access, At, Edge, EdgeCause, Idle, LaneInfo, Run, Steal, Task, Trace};
