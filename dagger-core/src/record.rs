//! What a run leaves behind: records of what happened, lane by lane, with nanoseconds.
//!
//! ```text
//!   lane 0 (worker 0)   Spawn 1   After 2←1   Access 2   Ready 1   Start 1   End 1   Start 2 ..
//!   lane 1 (worker 1)             Steal 3     Start 3    Suspend 3           Resume 3   End 3
//!   lane 2 (main)       Spawn 3 ..
//!   lane 3 (store)      Moved 7   Resident    Moved 8   Resident
//! ```
//! 1. A lane is a thread; its records are in the order of their times. Times count from the start of the recording.
//! 2. A task has at most one `Spawn` and one `End`; between its `Start` (or `Resume`) and its next `Suspend` or `End` it runs
//!    on the lane of that record. A recording that begins or ends in the middle of a run lacks some of them.
//! 3. Order by data is not recorded as edges but as accesses, in the order of the queue of each chunk (`turn`): what came
//!    before and conflicts is an edge. So recording costs the same whatever waits.
//! 4. What a task comes after by its spawn, and what it accesses, has the time of that spawn or a later one: the order of
//!    accesses is that of turns, not of times.
//! 5. A move of data is written down at its end, and says how long it took: a lane may have several under way at once.
//!
//! It knows nothing of how a log is made, or shown.

use crate::TaskName;
use crate::region::Area;
use std::collections::{HashMap, HashSet};
use std::panic::Location;
use std::sync::Arc;
use std::time::SystemTime;

/// A recording: what every thread wrote down.
#[derive(Clone, Debug)]
pub struct Log {
    /// When it began, by the clock on the wall.
    pub began: SystemTime,
    /// How long it went on.
    pub nanos: u64,
    /// One for each thread that took part.
    pub lanes: Vec<Lane>,
    /// Records that found their buffer full and are not here: the newest ones of each lane are missing.
    pub lost: u64,
}

impl Log {
    /// Keeps the records of these tasks and their descendants only, and those of no task: when workers slept and stole, and
    /// what stores moved, for whatever task.
    ///
    /// A descendant is known by the record of its spawn: one that was spawned before the recording, or whose spawn was lost, is
    /// left out with what it has spawned. Lanes of other threads that have nothing left go.
    pub fn retain_tasks(&mut self, roots: impl IntoIterator<Item = u64>) {
        let mut children: HashMap<u64, Vec<u64>> = HashMap::new();
        for record in self.lanes.iter().flat_map(|lane| &lane.records) {
            if let What::Spawn { task, parent, .. } = record.what {
                children.entry(parent).or_default().push(task);
            }
        }
        let mut kept: HashSet<u64> = roots.into_iter().collect();
        let mut next: Vec<u64> = kept.iter().copied().collect();
        while let Some(task) = next.pop() {
            next.extend(children.get(&task).into_iter().flatten().filter(|&&child| kept.insert(child)));
        }
        for lane in &mut self.lanes {
            lane.records.retain(|record| record.what.task().is_none_or(|task| kept.contains(&task)));
        }
        self.lanes.retain(|lane| lane.worker.is_some() || !lane.records.is_empty());
    }
}

/// What one thread wrote down.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The name of the thread.
    pub name: String,
    /// The number of the worker that it is, if it is one.
    pub worker: Option<usize>,
    /// In the order of their times.
    pub records: Vec<Record>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Record {
    /// Nanoseconds since the recording began.
    pub at: u64,
    /// What it was.
    pub what: What,
}

/// The name of a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Name {
    /// The callee as it is written, or the function that made a future.
    Callee(&'static str),
    /// A name that was given.
    Given(TaskName),
    /// No spawn of the program: a task of the runtime's own that ends after others, as a block does.
    Joint(&'static str),
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        match self {
            Name::Callee(name) | Name::Joint(name) => name,
            Name::Given(name) => name,
        }
    }
}

/// Why a task comes after another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// It takes the other one's result.
    Argument,
    /// It was told to wait for it (`syncdeps`), or an `in_order` block orders them.
    Order,
    /// It awaited it inside its body.
    Awaited,
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum End {
    /// With a value.
    Done,
    /// With an error of its own, or a panic.
    Failed,
    /// Never ran, because of another one's failure.
    Refused,
    /// Cancelled, timed out, or ended by the shutdown.
    Cancelled,
}

/// How a value got into memory, or out of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Move {
    /// It was written out: it may leave memory.
    Spilled,
    /// It left memory without being written: an equal copy lies elsewhere.
    Dropped,
    /// It was read back.
    Reloaded,
    /// It was made, by the first who needed it.
    Made,
}

/// What happened. Tasks are named by their id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum What {
    /// A task was spawned here.
    Spawn {
        /// The task.
        task: u64,
        /// The task whose body spawned it; 0 outside tasks.
        parent: u64,
        /// Its name.
        name: Name,
        /// Where in the program.
        site: &'static Location<'static>,
    },
    /// A task was spawned that not every worker may run in its turn. Others have no such record: they run where they became ready,
    /// or where a worker without work took them (`Steal`).
    Place {
        /// The task.
        task: u64,
        /// The workers that its scope leaves, by number, where that is not all.
        workers: Option<Arc<[usize]>>,
        /// Its priority.
        priority: i32,
        /// It runs beside the workers, since its body may block.
        blocking: bool,
    },
    /// `task` comes after `input`.
    After {
        /// The later one.
        task: u64,
        /// The earlier one.
        input: u64,
        /// Why.
        cause: Cause,
    },
    /// A task has taken its place in the queue of a chunk.
    Access {
        /// The task.
        task: u64,
        /// The chunk: a number of its own in this process.
        chunk: u64,
        /// The order of places in this chunk, whatever thread took them.
        turn: u64,
        /// It writes.
        writes: bool,
        /// Which part; `None` is the whole.
        part: Option<Arc<Area>>,
    },
    /// All that the task waited for is there.
    Ready {
        /// The task.
        task: u64,
    },
    /// Its body is polled for the first time, from here on.
    Start {
        /// The task.
        task: u64,
    },
    /// Its body waits, and the thread does something else.
    Suspend {
        /// The task.
        task: u64,
    },
    /// Its body is polled again.
    Resume {
        /// The task.
        task: u64,
    },
    /// An attempt of it has failed, and it is tried again.
    Retry {
        /// The task.
        task: u64,
        /// The attempt that comes now: 1 is the second.
        attempt: u32,
    },
    /// It has ended.
    End {
        /// The task.
        task: u64,
        /// How.
        end: End,
    },
    /// This worker took tasks from another one's queue.
    Steal {
        /// From which worker.
        from: usize,
    },
    /// This worker found nothing to do and sleeps.
    Sleep,
    /// It was woken.
    Wake,
    /// A store has moved the value of a chunk. The record is of the end of the move, by the thread that saw it.
    Moved {
        /// The chunk, by the number that it has in `Access`.
        chunk: u64,
        /// The size of the value in memory.
        bytes: u64,
        /// How.
        how: Move,
        /// How long it took.
        nanos: u64,
    },
    /// What a store holds in memory from here on. The order of those of a store is that of their times, whatever thread wrote
    /// them down.
    Resident {
        /// The store: a number of its own in this process.
        store: u64,
        /// All that is resident.
        bytes: u64,
        /// What of it may not leave now.
        pinned: u64,
    },
}

impl What {
    /// The task that it happened to; `None` if it happened to a worker or a store.
    #[must_use]
    pub fn task(&self) -> Option<u64> {
        match *self {
            What::Spawn { task, .. }
            | What::Place { task, .. }
            | What::Retry { task, .. }
            | What::After { task, .. }
            | What::Access { task, .. }
            | What::Ready { task }
            | What::Start { task }
            | What::Suspend { task }
            | What::Resume { task }
            | What::End { task, .. } => Some(task),
            What::Steal { .. } | What::Sleep | What::Wake | What::Moved { .. } | What::Resident { .. } => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_are_roots_and_their_descendants() {
        let spawn = |task, parent| {
            let (name, site) = (Name::Callee("a"), Location::caller());
            What::Spawn { task, parent, name, site }
        };
        let lane = |worker: Option<usize>, records: Vec<What>| {
            let records = records.into_iter().map(|what| Record { at: 1, what }).collect();
            Lane { name: "a lane".to_owned(), worker, records }
        };
        let lanes = vec![
            lane(None, vec![spawn(1, 0), spawn(2, 0), spawn(5, 9)]),
            lane(Some(0), vec![spawn(4, 3), What::Start { task: 2 }, What::Sleep]),
            lane(Some(1), vec![spawn(3, 1), What::Ready { task: 9 }]),
            lane(None, vec![What::Start { task: 9 }]),
            lane(Some(2), vec![What::Start { task: 9 }]),
            lane(None, vec![What::Resident { store: 9, bytes: 1, pinned: 0 }, What::Start { task: 9 }]),
        ];
        let mut log = Log { began: SystemTime::UNIX_EPOCH, nanos: 2, lanes, lost: 0 };
        log.retain_tasks([1, 5]);
        let shown: Vec<Vec<Option<u64>>> = log
            .lanes
            .iter()
            .map(|lane| lane.records.iter().map(|record| record.what.task()).collect())
            .collect();
        assert_eq!(shown, [vec![Some(1), Some(5)], vec![Some(4), None], vec![Some(3)], vec![], vec![None]]);
    }
}
