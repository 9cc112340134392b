//! A task: one unit of work and the future of its result.
//!
//! The cell (`cell.rs`) is one allocation with state (`state.rs`), counts (`refs.rs`), body and value; `run.rs` moves it
//! through its life and `tell.rs` tells those behind it (`edge.rs`); `wait.rs` is how others wait for it; [`DTask`] and [`Shared`] are what
//! users hold.

mod block;
mod cell;
mod claim;
mod edge;
mod handle;
mod id;
#[cfg(all(test, dagger_loom))]
mod models;
mod refs;
mod run;
mod state;
mod tell;
mod wait;
mod waker;

pub use claim::Shared;
pub use handle::{AwaitRef, CloneProbe, DTask, NoteClone, NoteNothing, Wait, wait_all, wait_any};
pub use id::{CallSite, TaskId};

pub(crate) use block::Kept;
pub(crate) use cell::Header;
pub(crate) use cell::{BIAS, RawTask, Step, SyncDep, TaskRef};
#[cfg(feature = "store")]
pub(crate) use claim::AnyClaim;
pub(crate) use claim::Claim;
pub(crate) use edge::{Edge, Linker};
pub(crate) use handle::ThreadWaker;
pub(crate) use id::Origin;
#[cfg(feature = "store")]
pub(crate) use run::end_unneeded;
pub(crate) use run::{cancel_unstarted, end, end_by_shutdown, held_by, register, run, run_inline, tie};
pub(crate) use state::{Locked, Phase};
pub(crate) use tell::{Work, ready};
pub(crate) use wait::{
    await_guard, stop_awaiting_guard, visit_awaited_places, visit_waiting_behind, visit_waits,
};
pub(crate) use waker::clone_to_leave;
