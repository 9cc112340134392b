//! The failures of the tasks of a block: one for each root, in the order of spawns.

use crate::error::{Error, Result};
use crate::task::{RawTask, TaskId};
use std::collections::HashMap;

/// How many a block keeps apart.
const MAX: usize = 1024;

/// Those that were collected so far.
#[derive(Default)]
pub(crate) struct Failures {
    known: HashMap<Option<TaskId>, Failure>,
    /// No place of those in the order of spawns is after this one.
    latest: u64,
}

struct Failure {
    /// Its place in the order of spawns.
    at: u64,
    error: Error,
    /// It is that of the root itself, not of a task that depended on it.
    own: bool,
}

impl Failures {
    /// Notes the failure of a task that is done, if it has failed. What it gives has to give way: with it may go what is a user's.
    #[cold]
    pub(crate) fn collect(&mut self, task: RawTask, at: u64) -> Option<Error> {
        let error = task.error().filter(|_| !task.state.load().is_unneeded())?;
        let own = error.root().is_none_or(|root| root.id() == task.id);
        let root = error.root().map(|root| root.id());
        self.note(root, Failure { at, error: error.of_root().clone(), own })
    }

    fn note(&mut self, root: Option<TaskId>, failure: Failure) -> Option<Error> {
        // The root's own place in the order is what counts.
        if let Some(known) = self.known.get_mut(&root) {
            let counts = failure.own || !known.own && failure.at < known.at;
            self.latest = self.latest.max(failure.at);
            return counts.then(|| std::mem::replace(known, failure).error);
        }
        if self.known.len() < MAX {
            self.latest = self.latest.max(failure.at);
            self.known.insert(root, failure);
            return None;
        }
        // The earliest are kept, also of those that are seen late. Most come in order.
        if failure.at >= self.latest {
            return None;
        }
        let (&last, at) =
            self.known.iter().map(|(root, known)| (root, known.at)).max_by_key(|&(_, at)| at)?;
        self.latest = at;
        if failure.at >= at {
            return None;
        }
        let before = self.known.remove(&last);
        self.known.insert(root, failure);
        before.map(|before| before.error)
    }

    /// Those of the same block that were collected elsewhere.
    pub(crate) fn add(&mut self, others: Failures) {
        for (root, failure) in others.known {
            drop(self.note(root, failure));
        }
    }

    /// The first root in the order of spawns, with the others.
    pub(super) fn into_result(self) -> Result<()> {
        let mut failures: Vec<Failure> = self.known.into_values().collect();
        failures.sort_by_key(|failure| failure.at);
        let mut errors = failures.into_iter().map(|failure| failure.error);
        match errors.next() {
            None => Ok(()),
            Some(first) => Err(first.with_others(errors.collect())),
        }
    }
}
