//! The stall watch: tells when nothing has moved for a while although tasks wait for each other.
//!
//! A runtime whose tasks all wait for sockets or timers is quiet, not stalled. A stall is: every worker has slept for
//! the whole time, no blocking body runs, and some task waits for another one. It is reported once, through
//! `tracing` at warn level; nothing is ended, since what is awaited may still come.
//!
//! The watch runs on the reactor and only while there are unfinished tasks and workers sleep.

use super::Pool;
use crate::task::{self, TaskRef};
use std::fmt::Write;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Lines of a report; a stall of a million tasks is not a million lines.
const LINES_MAX: usize = 20;

/// The watch of a pool.
pub(super) struct Watch {
    after: Duration,
    armed: AtomicBool,
}

impl Watch {
    pub(super) fn new(after: Duration) -> Self {
        Watch { after, armed: AtomicBool::new(false) }
    }

    /// How long nothing may move; `None`: never report.
    pub(super) fn after(&self) -> Option<Duration> {
        (self.after != Duration::MAX).then_some(self.after)
    }

    /// Starts to watch if there is anything unfinished. Called by a worker that is about to sleep.
    pub(super) fn arm(&self, pool: &Arc<Pool>) {
        if self.after == Duration::MAX || self.armed.load(Relaxed) || pool.unfinished() == 0 {
            return;
        }
        if let (false, Some(timers)) = (self.armed.swap(true, SeqCst), pool.reactor.timers()) {
            timers.spawn(watch(Arc::downgrade(pool), self.after));
        }
    }
}

async fn watch(pool: Weak<Pool>, after: Duration) {
    let mut seen = None;
    let mut reported = None;
    loop {
        {
            let Some(pool) = pool.upgrade() else { return };
            if pool.unfinished() == 0 {
                pool.stall.armed.store(false, SeqCst);
                // A task that came in between finds the watch armed no more only if it sleeps after this line.
                if pool.unfinished() == 0 || pool.stall.armed.swap(true, SeqCst) {
                    return;
                }
            }
            let moved: u64 = pool.wakes.iter().map(|wakes| wakes.load(SeqCst)).sum();
            let still = seen == Some(moved)
                && pool.sleep.all_asleep()
                && !pool.spares.is_busy()
                && !crate::residency::is_busy(&pool);
            if still && reported != Some(moved) {
                reported = Some(moved);
                if let Some(report) = report(&pool) {
                    tracing::warn!(target: "dagger", runtime = %pool.name, "no task has moved for {after:?}: {report}");
                }
            }
            seen = Some(moved);
        }
        tokio::time::sleep(after).await;
    }
}

/// Who waits for whom; `None` if nobody waits for a task or a chunk.
fn report(pool: &Pool) -> Option<String> {
    let mut waits: Vec<(TaskRef, TaskRef)> = Vec::new();
    let mut behind: Vec<String> = Vec::new();
    for task in pool.registered_tasks() {
        task::visit_awaited_places(task.raw(), &mut |place| {
            if behind.len() <= LINES_MAX
                && let Some(guard) = place.describe()
            {
                behind.push(format!("{} waits for {guard}", task.info()));
            }
        });
        task::visit_waits(task.raw(), &mut |waiting, awaited| {
            if waits.len() <= 10 * LINES_MAX {
                waits.push((waiting, awaited));
            }
        });
    }
    crate::chunk::visit_waiting_behind_guards(&mut |task, guard| {
        if std::ptr::eq(task.pool, pool) && behind.len() <= LINES_MAX {
            behind.push(format!("{} waits for {guard}", task.info()));
        }
    });
    let for_memory = crate::residency::describe_waiting(pool);
    if waits.is_empty() && behind.is_empty() && for_memory.is_none() {
        return None;
    }
    let mut text = format!("{} tasks are unfinished", pool.unfinished());
    for line in for_memory.iter().chain(&behind).take(LINES_MAX) {
        let _ = write!(text, "\n  {line}");
    }
    for (waiting, awaited) in waits.iter().take(LINES_MAX) {
        let what = match awaited.raw().state.load().is_done() {
            true => "until others let go of the value of",
            false => "for",
        };
        let _ = write!(text, "\n  {} waits {what} {}", waiting.info(), awaited.info());
    }
    if waits.len() > LINES_MAX {
        text.push_str("\n  and more");
    }
    Some(text)
}
