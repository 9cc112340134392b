//! Who asks for values in memory, and what becomes of that.

use super::settlement::Settlement;
use crate::chunk::AnyChunk;
use crate::error::Error;
use crate::pool::Pool;
use crate::store::Store;
use crate::store::residence::Residence;
use crate::task::RawTask;
use parking_lot::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::task::Waker;

/// Who asks for values in memory.
#[derive(Clone)]
pub(in crate::store) enum Who {
    /// A task whose queue entry the ledger has, and its pool.
    Task(RawTask, Arc<Pool>),
    Guard(Arc<GuardPin>),
    /// A chunk that a task of another runtime needs: its store looks again then.
    Foreign(Arc<dyn AnyChunk>, Arc<Residence>, Weak<Store>),
    /// A task that was let go while these were on their way.
    Nobody(Vec<Arc<dyn AnyChunk>>),
}

/// One that is admitted, and whose loads are under way.
pub(super) struct Admitted {
    pub(super) who: Who,
    pub(super) needs: Vec<Need>,
    pub(super) missing: usize,
    pub(super) memory: u64,
    pub(super) failed: Option<Error>,
}

/// A chunk that somebody needs.
pub(super) struct Need {
    pub(super) residence: Arc<Residence>,
    pub(super) writes: bool,
    pub(super) pinned: bool,
}

/// A guard that waits for its chunk to be in memory.
pub(crate) struct GuardPin {
    pub(in crate::store) residence: Arc<Residence>,
    pub(in crate::store) writes: bool,
    pub(in crate::store) wait: Mutex<GuardWaiting>,
    /// A chunk that is being loaded is not dropped.
    pub(in crate::store) _owner: Arc<dyn AnyChunk>,
}

#[derive(Default)]
pub(in crate::store) struct GuardWaiting {
    /// It has its pin.
    pub(in crate::store) granted: bool,
    pub(in crate::store) failed: Option<Error>,
    pub(in crate::store) abandoned: bool,
    pub(in crate::store) waker: Option<Waker>,
}

impl Admitted {
    /// Lets a task go before all that it needs is there. Gives the memory that it had declared.
    pub(super) fn let_go(&mut self, settlement: &mut Settlement) -> u64 {
        let Who::Task(task, pool) = &self.who else { return 0 };
        settlement.queue(*task, pool.clone());
        // What is on its way is not dropped before it is there. The task has places at them until it is queued.
        let owners = self.needs.iter().filter_map(|need| need.residence.chunk.upgrade()).collect();
        settlement.over.push(std::mem::replace(&mut self.who, Who::Nobody(owners)));
        std::mem::take(&mut self.memory)
    }
}

pub(super) fn unpin(needs: &[Need]) {
    needs.iter().filter(|need| need.pinned).for_each(|need| need.residence.word.unpin(need.writes, false));
}

/// What somebody needs, and the memory that it has declared; `None` if it waits no more.
pub(super) fn needs_of(who: &Who, settlement: &mut Settlement) -> Option<(Vec<Need>, u64)> {
    let need =
        |residence: &Arc<Residence>, writes| Need { residence: residence.clone(), writes, pinned: false };
    match who {
        Who::Task(task, pool) => {
            let lock = task.state.lock();
            if !lock.can_start_first() {
                drop(lock);
                settlement.queue(*task, pool.clone());
                return None;
            }
            let accesses = task.accesses(&lock).iter();
            let needs = accesses.filter_map(|held| Some(need(held.core().residence()?, held.mode.writes())));
            Some((needs.collect(), task.declared_memory()))
        }
        Who::Guard(guard) if guard.wait.lock().abandoned => None,
        Who::Guard(guard) => Some((vec![need(&guard.residence, guard.writes)], 0)),
        Who::Foreign(_, residence, _) => Some((vec![need(residence, false)], 0)),
        Who::Nobody(_) => None,
    }
}

/// One who was admitted has all that it needs, or will never have.
pub(super) fn grant(store: &Arc<Store>, admitted: Admitted, reserved: &mut u64, settlement: &mut Settlement) {
    let Admitted { who, needs, memory, failed, .. } = admitted;
    let complete = failed.is_none() && needs.iter().all(|need| need.pinned);
    match who {
        Who::Task(task, pool) => {
            let lock = task.state.lock();
            let starts = lock.can_start_first();
            if starts && complete {
                store.active.fetch_add(1, SeqCst);
                task.set_admitted(&lock);
                for need in &needs {
                    need.residence.note_use(task.id.get());
                }
                drop(lock);
                return settlement.queued.push((task, pool));
            }
            drop(lock);
            unpin(&needs);
            *reserved -= memory;
            match failed {
                Some(error) if starts => {
                    settlement.fail(task, pool, error.with_root(task.info().into()));
                    settlement.errors.push(error);
                }
                // Ended meanwhile, or run in place.
                failed => {
                    settlement.errors.extend(failed);
                    settlement.queue(task, pool);
                }
            }
        }
        Who::Guard(guard) => {
            let mut waiting = guard.wait.lock();
            if waiting.abandoned || !complete {
                unpin(&needs);
            }
            waiting.granted = complete;
            settlement.errors.extend(std::mem::replace(&mut waiting.failed, failed));
            settlement.wakers.extend(waiting.waker.take());
            drop(waiting);
            settlement.over.push(Who::Guard(guard));
        }
        Who::Nobody(owners) => {
            settlement.errors.extend(failed);
            unpin(&needs);
            settlement.owners.extend(owners);
        }
        Who::Foreign(owner, residence, listener) => {
            unpin(&needs);
            settlement.owners.push(owner);
            settlement.others.extend(residence.listeners());
            settlement.answers.extend(listener.upgrade().map(|listener| (listener, residence, failed)));
        }
    }
}
