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
mod current;
mod error;
mod macros;
mod options;
mod pool;
mod runtime;
mod scoped;
mod spawn;
mod sync;
mod task;

pub use call::{Arg, Await, IntoArg, Retry, TryIntoFuture, Value, retry};
pub use cancel::CancelToken;
pub use current::{Current, current};
pub use dagger_core::{Processor, ProcessorKind, Scope};
pub use error::{Error, PanicText, Result, Root, TaskInfo};
pub use options::Options;
pub use runtime::{Builder, Runtime};
pub use scoped::{Bulk, InOrder, WithOptions, bulk, in_order, with_options};
pub use spawn::{spawn, try_spawn};
pub use task::{AwaitRef, DTask, Shared, TaskId, Wait, wait_all, wait_any};

/// Everything that a program needs: `use dagger_async::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Await, CancelToken, Current, DTask, Error, Options, Processor, ProcessorKind, Root, Runtime, Scope,
        Shared, TaskId, Value, bulk, current, in_order, retry, spawn, try_spawn, wait_all, wait_any,
        with_options,
    };
}

/// What `spawn!` expands to. Not part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::call::{Probe, ViaPlain, ViaTask, fallible, make, retrying};
    pub use crate::spawn::submit_call;
    pub use crate::task::{CallSite, CloneProbe, NoteClone, NoteNothing};
}
