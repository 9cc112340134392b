//! [`start`]: a recording of what tasks do, as a [`Trace`].

use crate::Trace;
use dagger_async::record::{self, Recording};

/// Starts to record every task of this process; off by default, near-zero cost when off.
///
/// Recordings may overlap, and be started and stopped as often as one likes; each sees what happened while it was on.
///
/// ```
/// use dagger_async::prelude::*;
/// use dagger_trace::prelude::*;
/// # fn double(x: u64) -> u64 { 2 * x }
/// # fn sum_to(n: u64) -> u64 { (1..=n).sum() }
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let recorder = trace::start();
/// spawn!(double(spawn!(sum_to(10); name = "base")); name = "double").await?;
/// let trace = recorder.finish().await;
/// assert_eq!(trace.tasks.len(), 2);
/// println!("{}", trace.describe());
/// # Ok(()) }
/// ```
pub fn start() -> Recorder {
    Recorder { recording: record::start() }
}

/// As [`start`], with the number of records that each thread keeps (about 64 bytes each; 2²⁰ by default). What comes after
/// them is lost, and counted in [`Trace::lost`].
pub fn start_with(records_max: usize) -> Recorder {
    Recorder { recording: record::start_with(records_max) }
}

/// A recording that is on. Dropping it ends it and forgets what it has recorded.
#[must_use = "dropping it ends the recording"]
#[derive(Debug)]
pub struct Recorder {
    recording: Recording,
}

impl Recorder {
    /// Ends the recording and makes a trace of it.
    ///
    /// Tasks that still run are in it without their end; await them first if they matter. The work is done when the
    /// future is polled; dropping it before that ends the recording and forgets it.
    pub async fn finish(self) -> Trace {
        self.finish_now()
    }

    /// As [`finish`](Self::finish), outside async code.
    pub fn finish_now(self) -> Trace {
        Trace::from_log(&self.recording.stop())
    }
}
