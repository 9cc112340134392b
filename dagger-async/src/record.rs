//! Recording a run: what happened, written down by each thread for itself.
//!
//! ```text
//!   thread ─▶ its own buffer (a lock that nobody else wants)  ─┐
//!   thread ─▶ its own buffer                                   ├─ stop ─▶ Log
//!   thread ─▶ its own buffer                                  ─┘
//! ```
//! 1. Off, a place that could write something down costs one load of a flag that nobody writes.
//! 2. A buffer is bounded: what finds it full is counted and lost, so the oldest records are those that stay.
//! 3. Times are ticks of the processor's counter where there is one; they become nanoseconds at the stop, by the two moments
//!    at which both clocks were read. The counters of all cores are taken to agree, as the operating system sees to.
//! 4. Several recordings may be on at once; each gets what happened while it was.
//!
//! What is written down is in [`dagger_core::record`]; what can be made of it is the business of others.

pub use crate::scoped::{Recorded, recorded};

use crate::error::Error;
use crate::options::Placement;
use crate::pool::{Pool, local};
use crate::task::Header;
use dagger_core::record::{End, Lane, Log, Name, Record, What};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

/// Recordings that are on.
static ON: AtomicU32 = AtomicU32::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);
static BUFFERS: Mutex<Buffers> = Mutex::new(Buffers { all: Vec::new(), recordings: 0, records_max: 0 });

/// Records that a thread keeps, if the user says nothing.
const RECORDS_MAX: usize = 1 << 20;

struct Buffers {
    all: Vec<Arc<Buffer>>,
    recordings: u32,
    records_max: usize,
}

/// What one thread has written down.
struct Buffer {
    name: String,
    worker: Option<usize>,
    records: Mutex<Vec<Record>>,
}

thread_local!(static BUFFER: RefCell<Option<Arc<Buffer>>> = const { RefCell::new(None) });

/// True while something records.
#[inline]
pub(crate) fn is_on() -> bool {
    ON.load(Relaxed) != 0
}

/// Writes something down, if something records. `what` is made only then.
#[inline]
pub(crate) fn note(what: impl FnOnce() -> What) {
    if is_on() {
        write(what());
    }
}

#[cold]
fn write(what: What) {
    let record = Record { at: ticks(), what };
    // While the thread is torn down there is nowhere to write.
    let written = BUFFER.try_with(|own| {
        let mut own = own.borrow_mut();
        let buffer = own.get_or_insert_with(Buffer::of_this_thread);
        let mut records = buffer.records.lock();
        let room = (records.len() as u64) < RECORDS_ALLOWED.load(Relaxed);
        if room {
            records.push(record);
        }
        room
    });
    if written != Ok(true) {
        LOST.fetch_add(1, Relaxed);
    }
}

/// As `records_max`, for those who only look.
static RECORDS_ALLOWED: AtomicU64 = AtomicU64::new(0);

impl Buffer {
    fn of_this_thread() -> Arc<Buffer> {
        let thread = std::thread::current();
        let buffer = Arc::new(Buffer {
            name: thread.name().unwrap_or("a thread").to_owned(),
            worker: local::with(|local| local.place().map(|place| place.index)),
            records: Mutex::new(Vec::new()),
        });
        BUFFERS.lock().all.push(buffer.clone());
        buffer
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
/// Recordings may overlap; each gets what happened while it was on. While one is on a task costs 200 to 350 ns more, most of
/// it the fresh memory of the records (`BENCHMARKS.md`); off it costs a branch.
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
    let mut buffers = BUFFERS.lock();
    buffers.recordings += 1;
    buffers.records_max = buffers.records_max.max(records_max);
    RECORDS_ALLOWED.store(buffers.records_max as u64, Relaxed);
    ON.fetch_add(1, Relaxed);
    Recording {
        began: SystemTime::now(),
        instant: Instant::now(),
        ticks: ticks(),
        lost: LOST.load(Relaxed),
        stopped: false,
    }
}

/// A recording that is on. Dropping it stops it and forgets what it has recorded.
#[must_use = "dropping it ends the recording"]
#[derive(Debug)]
pub struct Recording {
    began: SystemTime,
    instant: Instant,
    ticks: u64,
    lost: u64,
    stopped: bool,
}

impl Recording {
    /// Ends the recording and gives what happened since its start. Tasks that still run lack their ends.
    pub fn stop(mut self) -> Log {
        let (now, nanos) = (ticks(), self.instant.elapsed().as_nanos() as u64);
        let scale = nanos as f64 / now.saturating_sub(self.ticks).max(1) as f64;
        let mut lanes: Vec<Lane> = Vec::new();
        let buffers = BUFFERS.lock().all.clone();
        for buffer in buffers {
            let records = buffer.records.lock();
            let first = records.partition_point(|record| record.at < self.ticks);
            if first == records.len() {
                continue;
            }
            let at = |at: u64| ((at.saturating_sub(self.ticks) as f64 * scale) as u64).min(nanos);
            let records = records[first..].iter();
            let records =
                records.map(|record| Record { at: at(record.at), what: record.what.clone() }).collect();
            lanes.push(Lane { name: buffer.name.clone(), worker: buffer.worker, records });
        }
        lanes.sort_by_key(|lane| lane.worker.unwrap_or(usize::MAX));
        let lost = LOST.load(Relaxed).wrapping_sub(self.lost);
        self.end();
        Log { began: self.began, nanos, lanes, lost }
    }

    /// Off; the last one clears the buffers, and forgets those of threads that have ended.
    fn end(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        ON.fetch_sub(1, Relaxed);
        let mut garbage = Vec::new();
        let mut buffers = BUFFERS.lock();
        buffers.recordings -= 1;
        if buffers.recordings == 0 {
            buffers.records_max = 0;
            for buffer in &buffers.all {
                garbage.push(std::mem::take(&mut *buffer.records.lock()));
            }
            buffers.all.retain(|buffer| Arc::strong_count(buffer) > 1);
        }
        drop(buffers);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.end();
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

#[cold]
fn write_spawn(task: &Header, pool: &Pool) {
    let parent = local::with(|local| local.task()).map_or(0, |parent| parent.id.get());
    let name = match task.spec.as_ref().and_then(|spec| spec.name.clone()) {
        Some(name) => Name::Given(name),
        None => Name::Callee(task.origin.name((task.vtable.body_name)())),
    };
    let id = task.id.get();
    write(What::Spawn { task: id, parent, name, site: task.origin.location() });
    if let Some(spec) = &task.spec
        && !spec.placement.is_plain()
    {
        let Placement { domain, priority, blocking } = &spec.placement;
        let some = domain.as_ref().filter(|domain| domain.workers.len() < pool.processors.len());
        let workers = some.map(|domain| domain.workers.as_ref().into());
        write(What::Place { task: id, workers, priority: *priority, blocking: *blocking });
    }
}
