//! The failures of the tasks of a block: one for each root, in the order of spawns.

use crate::error::{Error, Result};
use crate::task::{RawTask, TaskId};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// How many a block keeps apart.
const MAX: usize = 1024;

/// Those that were collected so far.
#[derive(Default)]
pub(crate) struct Failures(HashMap<Option<TaskId>, Failure>);

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
        let full = self.0.len() >= MAX;
        match self.0.entry(root) {
            Entry::Vacant(place) if !full => {
                place.insert(failure);
                None
            }
            Entry::Vacant(_) => {
                // The earliest are kept, also of those that are seen late.
                let last = self.0.iter().max_by_key(|(_, known)| known.at).map(|(&id, known)| (id, known.at));
                let (id, _) = last.filter(|&(_, at)| failure.at < at)?;
                let before = self.0.remove(&id);
                self.0.insert(root, failure);
                before.map(|before| before.error)
            }
            // The root's own place in the order is what counts.
            Entry::Occupied(mut known) => {
                let counts = failure.own || !known.get().own && failure.at < known.get().at;
                counts.then(|| known.insert(failure).error)
            }
        }
    }

    /// Those of the same block that were collected elsewhere.
    pub(crate) fn add(&mut self, others: Failures) {
        for (root, failure) in others.0 {
            drop(self.note(root, failure));
        }
    }

    /// The first root in the order of spawns, with the others.
    pub(super) fn into_result(self) -> Result<()> {
        let mut failures: Vec<Failure> = self.0.into_values().collect();
        failures.sort_by_key(|failure| failure.at);
        let mut errors = failures.into_iter().map(|failure| failure.error);
        match errors.next() {
            None => Ok(()),
            Some(first) => Err(first.with_others(errors.collect())),
        }
    }
}
