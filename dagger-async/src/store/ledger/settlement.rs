//! What is done once the lock of the ledger is given back: all that runs or drops what is a user's.

use super::Source;
use super::request::Who;
use crate::chunk::AnyChunk;
use crate::error::Error;
use crate::pool::{Pool, local};
use crate::store::residence::Residence;
use crate::store::{Store, jobs};
use crate::task::{self, RawTask};
use std::any::Any;
use std::sync::{Arc, Weak};
use std::task::Waker;

/// A chunk of another store, and the store that needs it.
pub(super) type Ask = (Arc<dyn AnyChunk>, Arc<Residence>, Weak<Store>);

/// What is done once the lock is given back.
#[derive(Default)]
pub(in crate::store) struct Settlement {
    pub(super) queued: Vec<(RawTask, Arc<Pool>)>,
    failed: Vec<(RawTask, Arc<Pool>, Error)>,
    /// Entries of tasks that were run or are in a queue without them.
    pub(super) stale: Vec<(RawTask, Arc<Pool>)>,
    /// Who waits no more: what they keep may end with them.
    pub(super) over: Vec<Who>,
    pub(super) wakers: Vec<Waker>,
    pub(super) values: Vec<Box<dyn Any + Send>>,
    pub(super) asked: Vec<(Arc<Residence>, Option<Error>)>,
    pub(super) copies: Vec<Source>,
    /// What is told nobody any more: stores are a user's, and so are their errors.
    pub(super) errors: Vec<Error>,
    /// A value could not be written down.
    pub(super) refused: Option<Error>,
    /// Bytes that were let in over the budget.
    pub(super) let_in: Option<u64>,
    pub(in crate::store) owners: Vec<Arc<dyn AnyChunk>>,
    pub(super) loads: Vec<jobs::Load>,
    pub(super) writes: Vec<jobs::Write>,
    pub(super) others: Vec<Arc<Store>>,
    /// Chunks of other stores that are to come back.
    pub(super) asks: Vec<Ask>,
    /// What others have asked for.
    pub(super) answers: Vec<(Arc<Store>, Arc<Residence>, Option<Error>)>,
    pub(super) deletes: bool,
}

impl Settlement {
    /// The entry of a task goes where it belongs, if the task still needs one. Under no lock of the task.
    pub(super) fn queue(&mut self, task: RawTask, pool: Arc<Pool>) {
        match task.state.load().waits_to_start() {
            true => self.queued.push((task, pool)),
            false => self.stale.push((task, pool)),
        }
    }

    /// A task whose entry we have ends with an error.
    pub(in crate::store) fn fail(&mut self, task: RawTask, pool: Arc<Pool>, error: Error) {
        self.failed.push((task, pool, error));
    }

    /// Does it.
    pub(in crate::store) fn settle(self, store: &Arc<Store>) {
        // Values first: what comes next may need their memory.
        for value in self.values {
            crate::error::quietly(|| drop(value));
        }
        crate::error::quietly(|| drop(self.copies));
        for owner in self.owners {
            crate::error::quietly(|| drop(owner));
        }
        for load in self.loads {
            jobs::start_load(store, load);
        }
        for write in self.writes {
            jobs::start_write(store, write);
        }
        if self.deletes {
            jobs::start_deletes(store);
        }
        local::with(|local| {
            for (task, pool, error) in self.failed {
                task::end(task, |_| error);
                pool.enqueue(task, local);
            }
            for (task, pool) in self.queued {
                pool.enqueue(task, local);
            }
        });
        crate::error::quietly(|| drop((self.over, self.asked)));
        for error in self.errors {
            crate::error::quietly(|| drop(error));
        }
        // Subscribers are a user's, too.
        if let Some(error) = self.refused {
            crate::error::quietly(|| tracing::warn!(target: "dagger", "{error}"));
        }
        if let Some(needed) = self.let_in {
            let text = "let in over the memory limit: nothing else could go on";
            crate::error::quietly(|| tracing::debug!(target: "dagger", needed, "{text}"));
        }
        for (task, _pool) in self.stale {
            task.release_holder();
        }
        for waker in self.wakers {
            crate::error::quietly(|| waker.wake());
        }
        for (owner, residence, store) in self.asks {
            let who = Who::Foreign(owner, residence.clone(), store);
            residence.store.change(|ledger, _, settlement| ledger.wait(i32::MAX, 0, who, settlement));
        }
        for (store, residence, failed) in self.answers {
            store.change(|ledger, _, settlement| ledger.answered(&residence, failed, settlement));
        }
        for other in self.others {
            other.consider();
        }
    }
}
