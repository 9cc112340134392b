//! What only fed a restored task, and need not run.

use crate::task::{self, RawTask, TaskRef};
use std::collections::HashMap;

/// Tasks that a body would have used which does not run; and theirs.
#[derive(Default)]
pub(crate) struct Unneeded {
    /// To be looked at.
    open: Vec<TaskRef>,
    /// How many claims on a task are those of bodies that will not run, and are still there.
    claims: HashMap<*const task::Header, u64>,
    /// Those that were ended. Kept, so that no other task has the address of one.
    ended: HashMap<*const task::Header, TaskRef>,
}

impl Unneeded {
    /// An input of a body that is about to be dropped.
    pub(crate) fn add(&mut self, input: RawTask) {
        self.open.push(TaskRef::new(input));
    }

    /// Ends what nobody else needs. The bodies of [`add`](Self::add) are gone.
    pub(crate) fn end(mut self) {
        while let Some(task) = self.open.pop() {
            let raw = task.raw();
            let claims = self.claims.get(&raw.as_ptr()).copied().unwrap_or(0);
            let is_ended = |task: RawTask| self.ended.contains_key(&task.as_ptr());
            let mut inputs = Vec::new();
            if task::end_unneeded(raw, claims, &is_ended, &mut inputs) {
                self.ended.insert(raw.as_ptr(), task);
                for input in inputs {
                    // Its edge and claim stay until the input is done: another look, now with one user less.
                    *self.claims.entry(input.raw().as_ptr()).or_default() += 1;
                    self.open.push(input);
                }
            }
        }
    }
}
