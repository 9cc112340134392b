//! Waiting for a task: leaving a waker with it, and finding out when that would never end.
//!
//! A wait made inside a task is an edge too: `awaiting` of the waiting task says for whom. Before a wait begins,
//! and after its edge is published, the waits that start at the awaited task are followed:
//!
//! * a task that has not started waits for each of its inputs (arguments, `syncdeps`);
//! * a task that blocks its thread waits for the one that it blocks on;
//! * a suspended task waits for the one that it awaits, if nothing else can wake it: one waker is out, and it is there.
//!
//! A path back to the waiting task is a [`Error::Deadlock`] for this wait; the awaited task goes on. Since every
//! wait publishes first and looks then, of two that close a cycle at once one sees the other. What other wakers may
//! end (`select!` with a timer, say) is not called a deadlock; the stall watch shows it if it lasts.
//!
//! The search starts only if some task waits for the waiting one, so an ordinary await costs no search.

use super::cell::{RawTask, TaskRef, visit_successors};
use super::state::{Locked, Phase};
use crate::error::{Error, TaskInfo};
use crate::pool::{Local, local};
use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// How many tasks a search looks at before it leaves the matter to the stall watch.
const SEARCH_MAX: usize = 1 << 16;

/// The key of a waiter that has left no waker.
pub(crate) const NONE: u32 = 0;
const INLINE: u32 = 1;

/// Ends when `task` is done; until then `waker` is left under `key`.
///
/// # Errors
/// `Deadlock`, if the wait would never end.
pub(crate) fn poll_done(task: RawTask, key: &mut u32, waker: &Waker) -> Poll<Result<(), Error>> {
    if task.state.load().is_done() {
        return Poll::Ready(Ok(()));
    }
    local::with(|local| {
        if !leave_waker(task, key, waker, local.task().is_some()) {
            return Poll::Ready(Ok(()));
        }
        match check(task, false, local) {
            Some(error) => {
                withdraw(task, key);
                Poll::Ready(Err(error))
            }
            None => Poll::Pending,
        }
    })
}

/// Leaves a waker; false if the task is done.
pub(super) fn leave_waker(task: RawTask, key: &mut u32, waker: &Waker, by_task: bool) -> bool {
    let fresh = {
        let guard = task.state.lock();
        let guarded = task.guarded(&guard);
        let known = match *key {
            NONE => None,
            INLINE => guarded.waker.as_ref(),
            other => guarded.extra.as_ref().and_then(|extra| extra.wakers.get(other as usize - 2)),
        };
        !known.is_some_and(|known| known.will_wake(waker))
    };
    if !fresh {
        return !task.state.load().is_done();
    }
    // Cloning and dropping a waker is foreign code: never under the lock.
    let waker = waker.clone();
    let mut guard = task.state.lock();
    if guard.is_done() {
        drop(guard);
        return false;
    }
    if by_task {
        guard.set_awaited_by_task();
    }
    let guarded = task.guarded(&guard);
    let old = match *key {
        NONE if guarded.waker.is_none() => {
            *key = INLINE;
            guarded.waker.replace(waker)
        }
        NONE => {
            *key = guarded.extra().wakers.insert(waker) as u32 + 2;
            None
        }
        INLINE => guarded.waker.replace(waker),
        other => match guarded.extra().wakers.get_mut(other as usize - 2) {
            Some(place) => Some(std::mem::replace(place, waker)),
            None => Some(waker),
        },
    };
    drop(guard);
    drop(old);
    true
}

/// Takes the waker under `key` away.
pub(crate) fn withdraw(task: RawTask, key: &mut u32) {
    let key = std::mem::replace(key, NONE);
    if key == NONE || task.state.load().is_done() {
        return; // The completion took all of them.
    }
    let old = {
        let guard = task.state.lock();
        if guard.is_done() {
            return;
        }
        let guarded = task.guarded(&guard);
        match key {
            INLINE => guarded.waker.take(),
            other => guarded.extra().wakers.try_remove(other as usize - 2),
        }
    };
    drop(old);
}

/// The current task is about to wait for `target`, `blocking` its thread or not: publishes that, then says whether it
/// would ever end.
pub(crate) fn check(target: RawTask, blocking: bool, local: &Local) -> Option<Error> {
    if local.queue().is_some_and(|queue| queue.holds(target)) {
        let path = [target.info()];
        return Some(Error::Deadlock { root: target.info().into(), path: Arc::new(path) });
    }
    let me = local.task()?;
    if me == target {
        return Some(deadlock(&[TaskRef::new(me)]));
    }
    let waited_for = {
        let guard = me.state.lock();
        let guarded = me.guarded(&guard);
        let before = guarded.awaiting.replace((TaskRef::new(target), blocking));
        let waited_for = guard.is_awaited_by_task() || !guarded.successors.is_null();
        drop(guard);
        drop(before);
        waited_for
    };
    if !waited_for && local.queue().is_none() {
        return None;
    }
    find_path(target, me, local).map(|path| deadlock(&path))
}

/// The current task has stopped waiting.
pub(super) fn stop_waiting(local: &Local) {
    if let Some(me) = local.task() {
        let before = {
            let guard = me.state.lock();
            me.guarded(&guard).awaiting.take()
        };
        drop(before);
    }
}

fn deadlock(path: &[TaskRef]) -> Error {
    let path: Arc<[TaskInfo]> = path.iter().map(|task| task.info()).collect();
    Error::Deadlock { root: path[0].clone().into(), path }
}

/// The tasks from `goal` (which waits for `start`) to the last one that waits for `goal`, or for a task that the
/// block around `goal` holds back.
fn find_path(start: RawTask, goal: RawTask, local: &Local) -> Option<Vec<TaskRef>> {
    let mut came_from: HashMap<*const super::cell::Header, Option<TaskRef>> = HashMap::new();
    let mut open = vec![TaskRef::new(start)];
    came_from.insert(start.as_ptr(), None);
    while let Some(task) = open.pop() {
        let held = local.queue().is_some_and(|queue| queue.holds(task.raw()));
        let mut next = Vec::new();
        if !held {
            waits_of(task.raw(), &mut |awaited| next.push(awaited));
        }
        if held || next.iter().any(|awaited| awaited.raw() == goal) {
            let mut path = vec![task];
            while let Some(Some(before)) = path.last().and_then(|last| came_from.get(&last.raw().as_ptr())) {
                let before = before.clone();
                path.push(before);
            }
            path.push(TaskRef::new(goal));
            path.reverse();
            return Some(path);
        }
        for awaited in next {
            if came_from.len() >= SEARCH_MAX {
                return None;
            }
            let entry = came_from.entry(awaited.raw().as_ptr());
            if let std::collections::hash_map::Entry::Vacant(entry) = entry {
                entry.insert(Some(task.clone()));
                open.push(awaited);
            }
        }
    }
    None
}

/// The tasks without which `task` certainly does not end.
fn waits_of(task: RawTask, visit: &mut dyn FnMut(TaskRef)) {
    let guard = task.state.lock();
    if guard.is_done() {
        return;
    }
    match guard.phase() {
        Phase::Waiting => visit_inputs(task, &guard, visit),
        Phase::Running | Phase::Suspended => {
            if let Some((awaited, blocking)) = &task.guarded(&guard).awaiting {
                // A suspended body that left just one waker left it with the task that it awaits: beside it there
                // are the scheduler's holder and what timers and tokens hold, which may end the wait.
                let only = guard.phase() == Phase::Suspended && task.refs.holders() == 2;
                if *blocking || only {
                    visit(awaited.clone());
                }
            }
        }
        Phase::Queued | Phase::Retired => {}
    }
}

fn visit_inputs(task: RawTask, _guard: &Locked<'_>, visit: &mut dyn FnMut(TaskRef)) {
    let mut undone = |input: RawTask| {
        if !input.state.load().is_done() {
            visit(TaskRef::new(input));
        }
    };
    // SAFETY: the lock is held in phase `Waiting`; inputs are kept by the claims in the body.
    unsafe { (task.vtable.inputs)(task, &mut undone) };
    if let Some(spec) = task.spec.as_deref() {
        for dep in &spec.syncdeps {
            undone(dep.task.raw());
        }
    }
}

/// Who waits for this registered task, and for whom it waits, as far as a message says it. A task that waits for itself
/// waits for other users of its input's value.
pub(crate) fn visit_waits(task: RawTask, visit: &mut dyn FnMut(TaskRef, TaskRef)) {
    let mut successors = Vec::new();
    let awaited = {
        let guard = task.state.lock();
        if guard.is_done() {
            return;
        }
        visit_successors(task, &guard, &mut |successor| successors.push(TaskRef::new(successor)));
        task.guarded(&guard).awaiting.as_ref().map(|(awaited, _)| awaited.clone())
    };
    if let Some(awaited) = awaited
        && !awaited.raw().state.load().is_done()
    {
        visit(TaskRef::new(task), awaited);
    }
    for successor in successors {
        visit(successor, TaskRef::new(task));
    }
}
