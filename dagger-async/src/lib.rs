//! Async-native task parallelism: a task is a future, passing one to another makes an edge.
//!
//! ```
//! use dagger_async::prelude::*;
//!
//! fn square(x: i64) -> i64 { x * x }
//! fn inc(x: i64) -> i64 { x + 1 }
//!
//! #[tokio::main]
//! async fn main() -> dagger_async::Result<()> {
//!     let a = spawn!(square(4));                    // submitted: it may run already
//!     let b = spawn!(inc(a));                       // edge a -> b
//!     assert_eq!(b.await?, 17);
//!
//!     let v = spawn!((|| vec![1.0, 2.0, 3.0])());
//!     let n = spawn!((|v: &Vec<f64>| v.len())(&v)); // by reference: no copy
//!     let s = spawn!((|v: Vec<f64>| v.iter().sum::<f64>())(v));
//!     assert_eq!((n.await?, s.await?), (3, 6.0));
//!     Ok(())
//! }
//! ```
//!
//! * Functions run on pinned worker threads, one for each core; awaiting inside a task frees its processor.
//! * [`spawn!`] takes calls, [`spawn()`] takes futures; [`Options`] say where, when and under which name.
//! * A failure reaches every dependant and keeps its [`Root`]: name, id and `file:line` of the task that failed first.
//! * Tokio's timers and sockets work in every task, whatever runtime the caller uses, or none.
//!
//! How it works inside: `ARCHITECTURE.md` of the repository.

mod call;
mod cancel;
mod chunk;
mod current;
mod error;
mod macros;
mod options;
mod plan;
mod pool;
pub mod record;
mod runtime;
mod scoped;
mod spawn;
#[cfg(feature = "store")]
pub mod store;
#[cfg(not(feature = "store"))]
mod store_absent;
mod sync;
mod task;

#[cfg(feature = "store")]
pub(crate) use store as residency;
#[cfg(not(feature = "store"))]
pub(crate) use store_absent as residency;

pub use call::{Arg, Await, Deps, In, InOut, IntoArg, Out, Retry, TryIntoFuture, Value, retry};
pub use cancel::CancelToken;
pub use chunk::{Access, Chunk, ReadGuard, WriteGuard, access};
pub use current::{Current, current};
pub use dagger_core::{Outside, Processor, ProcessorKind, Scope};
pub use error::{Error, PanicText, Result, Root, TaskInfo};
pub use options::Options;
pub use plan::{Frozen, FrozenRun, Plan, PlanRun, PlanStats};
pub use pool::window::room;
pub use runtime::{Builder, Runtime};
pub use scoped::{
    Bulk, Count, Counted, Counter, Datadeps, InOrder, WithOptions, bulk, counted, datadeps, in_order,
    with_options,
};
pub use spawn::{spawn, try_spawn};
pub use task::{AwaitRef, DTask, Shared, TaskId, Wait, wait_all, wait_any};

/// Regions: what an access is declared on, the views that callees get, and what a container or a kind of region of your own
/// implements.
pub mod region {
    pub use crate::call::{Dep, Readable, Selector, Target};
    pub use crate::chunk::{
        BandOf, Banded, Block, Col, Container, Contiguous, Custom, Cut, Diag, Field, FieldOf, IndexList,
        Linear, Listed, Lower, MatMut, MatRef, Matrix, Part, Positions, Ranges, RawParts, Row, Slice, Step,
        Strict, Strided, TriMut, TriRef, Triangle, Unit, Upper, VecMut, VecRef, View, ViewOf, Whole, band,
        col, diag, index, lower, row, slice, step, upper, view,
    };
    pub use crate::field;
    pub use dagger_core::Region;
}

/// Everything that a program needs: `use dagger_async::prelude::*;`.
pub mod prelude {
    pub use crate::region::{
        MatMut, MatRef, Region, TriMut, TriRef, VecMut, VecRef, diag, index, lower, step, upper,
    };
    pub use crate::{
        Await, CancelToken, Chunk, Current, DTask, Deps, Error, Frozen, In, InOut, Options, Out, Plan,
        Processor, ProcessorKind, ReadGuard, Root, Runtime, Scope, Shared, TaskId, Value, WriteGuard, access,
        bulk, current, datadeps, field, in_order, retry, room, spawn, try_spawn, wait_all, wait_any,
        with_options,
    };
}

/// What `spawn!` expands to. Not part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::call::{Probe, ViaPlain, ViaTask, fallible, make, repeatable, retrying};
    pub use crate::spawn::submit_call;
    pub use crate::task::{CallSite, CloneProbe, NoteClone, NoteNothing};
    pub use dagger_core::TaskName;
}
