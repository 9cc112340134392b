//! Recording a run: what happened, written down by each thread for itself.
//!
//! ```text
//!   thread ─▶ words in its own segments ─┐
//!   thread ─▶ words in its own segments  ├─ stop ─▶ Log
//!   thread ─▶ words in its own segments ─┘
//! ```
//! 1. Off, a place that could write something down costs one load of a word that nobody writes.
//! 2. What a thread keeps is bounded: what comes after that is counted and lost, so the oldest records are those that stay.
//! 3. Times are ticks of the processor's counter where there is one; they become nanoseconds at the stop, by the two moments
//!    at which both clocks were read. The counters of all cores are taken to agree, as the operating system sees to.
//! 4. What a task comes after and accesses has the time of its spawn: the clock is read once for these.
//! 5. Several recordings may be on at once; each gets what happened while it was.
//! 6. Any thread may write something down, also one that is no worker: it gets a lane of its own, by its name.
//!
//! What is written down is in [`dagger_core::record`]; what can be made of it is the business of others.

pub use crate::scoped::{Recorded, recorded};

mod buffer;
mod words;

use crate::error::Error;
use crate::options::Placement;
use crate::pool::{Pool, local};
use crate::task::Header;
use dagger_core::record::{End, Log, Name, What};
use std::time::{Instant, SystemTime};

/// Records that a thread keeps, if the user says nothing.
const RECORDS_MAX: usize = 1 << 20;

/// True while something records.
#[inline]
pub(crate) fn is_on() -> bool {
    buffer::is_on()
}

/// Writes something down, if something records. `what` is made only then.
#[inline]
pub(crate) fn note(what: impl FnOnce() -> What) {
    /// Out of the way of who does not record, and with the kind of `what` known.
    #[cold]
    #[inline(never)]
    fn write(what: impl FnOnce() -> What) {
        buffer::write(what);
    }
    if is_on() {
        write(what);
    }
}

/// The processor's counter, or nanoseconds where there is none.
#[inline]
fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction; user programs may use it unless the operating system forbids
    // it, which none does that Rust's standard library runs on.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static BASE: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        BASE.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Starts a recording of everything that tasks of this process do, until [`Recording::stop`].
///
/// Recordings may overlap; each gets what happened while it was on. While one is on a task costs 60 to 130 ns more, a third
/// to a half of it for reading the clock, and leaves 64 bytes, or 128 with three accesses (`BENCHMARKS.md`); off it costs a branch.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let recording = dagger_async::record::start();
/// spawn!((|| 42)()).await?;
/// let log = recording.stop();
/// assert!(log.lanes.iter().any(|lane| !lane.records.is_empty()));
/// # Ok(()) }
/// ```
pub fn start() -> Recording {
    start_with(RECORDS_MAX)
}

/// As [`start`], with the number of records that a thread keeps; what comes after them is lost, and counted in
/// [`Log::lost`]. Of several recordings at once the largest number counts.
pub fn start_with(records_max: usize) -> Recording {
    let lost = buffer::begin(records_max);
    Recording { began: SystemTime::now(), instant: Instant::now(), ticks: ticks(), lost }
}

/// A recording that is on. Dropping it stops it and forgets what it has recorded.
#[must_use = "dropping it ends the recording"]
#[derive(Debug)]
pub struct Recording {
    began: SystemTime,
    instant: Instant,
    ticks: u64,
    lost: u64,
}

impl Recording {
    /// Ends the recording and gives what happened since its start. Tasks that still run lack their ends.
    pub fn stop(self) -> Log {
        let (now, nanos) = (ticks(), self.instant.elapsed().as_nanos() as u64);
        let scale = nanos as f64 / now.saturating_sub(self.ticks).max(1) as f64;
        // What was written down while we came here is of the last moment.
        let (lanes, lost) = buffer::read(self.ticks, |ticks| ((ticks as f64 * scale) as u64).min(nanos));
        Log { began: self.began, nanos, lanes, lost: lost.wrapping_sub(self.lost) }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        buffer::end();
    }
}

/// How a task ended, as it is written down.
pub(crate) fn end_of(error: Option<&Error>) -> End {
    match error {
        None => End::Done,
        Some(Error::Dependency { .. }) => End::Refused,
        Some(Error::Cancelled { .. } | Error::TimedOut { .. } | Error::Shutdown { .. }) => End::Cancelled,
        Some(_) => End::Failed,
    }
}

/// The spawn of a task, by whatever runs here, and where it may run if that is not anywhere.
#[inline]
pub(crate) fn spawned(task: &Header, pool: &Pool) {
    if is_on() {
        write_spawn(task, pool);
    }
}

/// The name of a task that has not run, as it is written down.
pub(crate) fn name_of(task: &Header) -> Name {
    match task.spec.as_ref().and_then(|spec| spec.name().cloned()) {
        None => task.origin.record_name((task.vtable.body_name)()),
        Some(name) => Name::Given(name),
    }
}

#[cold]
fn write_spawn(task: &Header, pool: &Pool) {
    let parent = local::with(|local| local.task()).map_or(0, |parent| parent.id.get());
    let id = task.id.get();
    let body = (task.vtable.body_name)();
    match task.spec.as_ref().and_then(|spec| spec.name().cloned()) {
        None => buffer::write_spawn(id, parent, task.origin, body),
        Some(name) => {
            let (name, site) = (Name::Given(name), task.origin.location());
            buffer::write(|| What::Spawn { task: id, parent, name, site });
        }
    }
    if let Some(spec) = &task.spec
        && !spec.placement.is_plain()
    {
        let Placement { domain, priority, blocking, .. } = &spec.placement;
        let some = domain
            .map(|key| pool.domains.get(key))
            .filter(|domain| domain.workers.len() < pool.processors.len());
        let workers = some.map(|domain| domain.workers.as_ref().into());
        buffer::write(|| What::Place { task: id, workers, priority: *priority, blocking: *blocking });
    }
}
