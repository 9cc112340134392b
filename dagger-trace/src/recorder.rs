//! [`start`] and [`record`]: a recording of what tasks do, as a [`Trace`].

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

/// Records what the tasks of `body` do: those that it spawns while it is polled, and their children and grandchildren.
///
/// The recording begins with the first poll and ends with the body, whose output is given with the trace. The body is usually a
/// datadeps block, which waits for its tasks; of others, tasks that still run are in the trace without their end. What other
/// tasks did meanwhile is not in it: the time of workers that ran them counts as `overhead`. Recordings of blocks, and of
/// everything, may overlap; each sees its own. While one is on, every task of the process pays for the recording. Dropping
/// the future drops the body and forgets what was recorded.
///
/// ```
/// use dagger_async::prelude::*;
/// use dagger_trace::prelude::*;
/// # fn double(x: u64) -> u64 { 2 * x }
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// spawn!(double(1));
/// let (sum, trace) = trace::record(datadeps(async {
///     let a = spawn!(double(20));
///     spawn!(double(a))
/// }))
/// .await;
/// assert_eq!(sum?.await?, 80);
/// assert_eq!(trace.tasks.iter().filter(|task| task.name == "double").count(), 2);
/// # Ok(()) }
/// ```
pub async fn record<F: Future>(body: F) -> (F::Output, Trace) {
    let (output, log) = record::recorded(body).await;
    (output, Trace::from_log(&log))
}
