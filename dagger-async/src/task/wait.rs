//! Waiting for a task: leaving a waker with it, and finding out when that would never end.
//!
//! A wait made inside a task is an edge too: `awaiting` of the waiting task says for whom. Before a wait begins,
//! and after its edge is published, the waits that start at the awaited task are followed:
//!
//! * a task that has not started waits for each of its inputs (arguments, `syncdeps`);
//! * a task that blocks its thread waits for the one that it blocks on;
//! * a suspended task waits for the one that it awaits, if that is the only one and nobody else has its waker.
//!
//! A path back to the waiting task is a [`Error::Deadlock`] for this wait; the awaited task goes on. A wait publishes
//! its edge before it looks, and a body that suspends looks again, so of those that close a cycle at once the last
//! one sees it whole. What other wakers may end (`select!` with a timer, say) is not called a deadlock; the stall watch shows it if it lasts.
//!
//! The search starts only if somebody may wait for the waiting one: a task that awaits it, one that comes after it or waits for
//! a chunk that it accesses, a block that ends. So an ordinary await costs no search.

use super::cell::{Awaiting, RawTask, TaskRef};
use super::edge::visit_successors;
use super::state::{Locked, Phase};
use super::{run, waker};
use crate::chunk::{Core, WaitingPlace};
use crate::error::{Error, TaskInfo};
use crate::pool::{Local, Pool, local};
use crate::record;
use dagger_core::record::{Cause, What};
use smallvec::{SmallVec, smallvec};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::task::{Poll, Waker};

/// How many tasks the searches of one poll look at before they leave the matter to the stall watch.
const SEARCH_MAX: usize = 1 << 14;

/// The key of a waiter that has left no waker.
pub(crate) const NONE: u32 = 0;
const INLINE: u32 = 1;

/// Ends when `task` is done; until then `waker` is left under `key`.
///
/// # Errors
/// `Deadlock`, if the wait would never end.
#[inline]
pub(crate) fn poll_done(task: RawTask, key: &mut u32, waker: &Waker) -> Poll<Result<(), Error>> {
    if *key == NONE {
        note_await(task);
    }
    if task.state.load().is_done() {
        return Poll::Ready(Ok(()));
    }
    poll_undone(task, key, waker)
}

fn poll_undone(task: RawTask, key: &mut u32, waker: &Waker) -> Poll<Result<(), Error>> {
    local::with(|local| {
        if !leave_waker(task, key, waker, local.task().is_some()) {
            return Poll::Ready(Ok(()));
        }
        let by_own = local.task().is_some_and(|me| waker::is_of(waker, me));
        if let Some(error) = check(task, if by_own { Kind::Await } else { Kind::AwaitOtherwise }, local) {
            withdraw(task, key);
            return Poll::Ready(Err(error));
        }
        if local.place().is_none() {
            wake_near(task);
        }
        Poll::Pending
    })
}

/// A thread that is no worker is about to wait for a task, which may have no worker yet.
fn wake_near(task: RawTask) {
    let pool = {
        let guard = task.state.lock();
        match guard.phase() {
            // SAFETY: `cell.rs`, invariant 5: it is not retired, and we have the lock. Tasks of models have no pool.
            Phase::Queued => unsafe { task.pool.as_ref() }.map(Pool::keep),
            _ => None,
        }
    };
    if let Some(pool) = pool {
        pool.wake_near();
    }
}

/// Writes down that the current task awaits another one.
#[inline]
pub(super) fn note_await(input: RawTask) {
    if record::is_on() {
        write_await(input);
    }
}

#[cold]
fn write_await(input: RawTask) {
    if let Some(me) = local::with(|local| local.task()) {
        let (task, input) = (me.id.get(), input.id.get());
        record::note(|| What::After { task, input, cause: Cause::Awaited });
    }
}

/// Leaves a waker; false if the task is done.
#[inline(always)]
pub(super) fn leave_waker(task: RawTask, key: &mut u32, waker: &Waker, by_task: bool) -> bool {
    let fresh = *key == NONE || {
        let guard = task.state.lock();
        let guarded = task.guarded(&guard);
        let known = match *key {
            NONE => None,
            INLINE => guarded.waker.as_ref(),
            other => guarded.known_extra().and_then(|extra| extra.wakers.get(other as usize - 2)),
        };
        !known.is_some_and(|known| waker::is_same(known, waker))
    };
    if !fresh {
        return !task.state.load().is_done();
    }
    // Cloning and dropping a waker is foreign code: never under the lock.
    let waker = waker::clone_to_leave(waker);
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
    if key == NONE {
        return;
    }
    if task.state.load().is_done() {
        return; // The completion took all of them, and `awaiting` ended with the poll that it woke.
    }
    local::with(|local| stop_waiting_for(task, local));
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

/// How a task waits for another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It has left its own waker.
    Await,
    /// What it has left wakes it in the end.
    AwaitOtherwise,
    /// Blocks its thread, or runs the other one on its stack.
    Block,
}

/// The current task is about to wait for `target`: publishes that, then says whether it would never end.
#[inline(always)]
pub(super) fn check(target: RawTask, kind: Kind, local: &Local) -> Option<Error> {
    if local.queue().is_some_and(|queue| queue.holds(target)) {
        return Some(deadlock(&[TaskRef::new(target)], true));
    }
    let me = local.task()?;
    if me == target {
        return Some(deadlock(&[TaskRef::new(me)], false));
    }
    if kind == Kind::Block {
        // An await has done so when it left its waker. Of two that wait for each other, one sees the other's mark and,
        // since marking comes before publishing, its edge.
        target.state.lock().set_awaited_by_task();
    }
    let waited_for = {
        let guard = me.state.lock();
        let guarded = me.guarded(&guard);
        let awaiting = &mut guarded.rare().awaiting;
        let is_only = match &*awaiting {
            Awaiting::Nothing => true,
            Awaiting::One(other) => *other == target,
            Awaiting::Kept(other) => other.raw() == target,
            _ => false,
        };
        let next = match kind {
            Kind::Block => Awaiting::Blocked(TaskRef::new(target)),
            Kind::Await if is_only => Awaiting::One(target),
            Kind::AwaitOtherwise if is_only => Awaiting::Kept(TaskRef::new(target)),
            Kind::Await | Kind::AwaitOtherwise => Awaiting::Many,
        };
        let before = std::mem::replace(awaiting, next);
        let waited_for = is_waited_for(me, &guard);
        drop(guard);
        drop(before);
        waited_for
    };
    if !waited_for && local.queue().is_none() {
        return None;
    }
    find_path(target, Some(me), local).map(|(path, in_bulk)| deadlock(&path, in_bulk))
}

/// True if somebody may wait for this task: for it, after it in order, or for a chunk that it holds, who is not counted.
pub(super) fn is_waited_for(task: RawTask, guard: &Locked<'_>) -> bool {
    guard.is_awaited_by_task() || !task.guarded(guard).successors.is_null() || task.has_accesses()
}

/// True if a task that has just suspended closes a cycle: two of them may have looked while the other still ran.
pub(super) fn closes_cycle(me: RawTask) -> bool {
    let mut targets: SmallVec<[TaskRef; 1]> = SmallVec::new();
    {
        let guard = me.state.lock();
        let guarded = me.guarded(&guard);
        if !is_waited_for(me, &guard)
            || guard.phase() != Phase::Suspended
            || me.foreign_wakers.load(Acquire) != 0
        {
            return false;
        }
        match guarded.awaiting() {
            Some(&Awaiting::One(target)) => targets.push(TaskRef::new(target)),
            Some(Awaiting::Kept(target)) => targets.push(target.clone()),
            Some(Awaiting::Guard(places)) => {
                for place in places.iter() {
                    place.visit_blockers(&mut |holder| targets.push(TaskRef::new(holder)));
                }
            }
            _ => return false,
        }
    }
    let closes = |target: &TaskRef| {
        target.raw() == me || local::with(|local| find_path(target.raw(), Some(me), local)).is_some()
    };
    targets.iter().any(closes)
}

/// The current task no longer waits for `target`.
pub(super) fn stop_waiting_for(target: RawTask, local: &Local) {
    let Some(me) = local.task() else { return };
    let before = {
        let guard = me.state.lock();
        let guarded = me.guarded(&guard);
        match guarded.awaiting() {
            Some(Awaiting::Kept(awaited) | Awaiting::Blocked(awaited)) if awaited.raw() == target => {
                guarded.take_awaiting()
            }
            Some(&Awaiting::One(awaited)) if awaited == target => guarded.take_awaiting(),
            _ => Awaiting::Nothing,
        }
    };
    drop(before);
}

fn deadlock(path: &[TaskRef], in_bulk: bool) -> Error {
    let path: Arc<[TaskInfo]> = path.iter().map(|task| task.info()).collect();
    Error::Deadlock { root: path[0].clone().into(), path, in_bulk }
}

/// The tasks from `goal` (which waits for `start`; none: who does so is no task) to the last one that waits for `goal`, or that a `bulk`
/// block around holds back. True: that one.
fn find_path(start: RawTask, goal: Option<RawTask>, local: &Local) -> Option<(Vec<TaskRef>, bool)> {
    let mut came_from: HashMap<*const super::cell::Header, Option<TaskRef>> = HashMap::new();
    let mut open: SmallVec<[TaskRef; 1]> = smallvec![TaskRef::new(start)];
    while let Some(task) = open.pop() {
        let held = local.queue().is_some_and(|queue| queue.holds(task.raw()));
        let mut next: SmallVec<[TaskRef; 2]> = SmallVec::new();
        if !held {
            waits_of(task.raw(), &mut |awaited| next.push(awaited));
        }
        if held || next.iter().any(|awaited| Some(awaited.raw()) == goal) {
            let mut path = vec![task];
            while let Some(Some(before)) = path.last().and_then(|last| came_from.get(&last.raw().as_ptr())) {
                let before = before.clone();
                path.push(before);
            }
            path.extend(goal.map(TaskRef::new));
            path.reverse();
            return Some((path, held));
        }
        for awaited in next {
            if local.searched.get() >= SEARCH_MAX {
                return None;
            }
            if came_from.is_empty() {
                came_from.insert(start.as_ptr(), None);
            }
            if let Entry::Vacant(entry) = came_from.entry(awaited.raw().as_ptr()) {
                local.searched.set(local.searched.get() + 1);
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
    let (mut owner, mut ends) = (None, None);
    match guard.phase() {
        Phase::Waiting => {
            visit_inputs(task, &guard, visit);
            ends = task.guarded(&guard).known_extra().and_then(|extra| extra.ends.clone());
            owner = task.guarded(&guard).known_extra().and_then(|extra| extra.held_by.clone());
        }
        phase @ (Phase::Running | Phase::Suspended) => {
            // A suspended body that nobody else can wake.
            let is_sure = phase == Phase::Suspended && task.foreign_wakers.load(Acquire) == 0;
            match task.guarded(&guard).awaiting() {
                Some(Awaiting::Blocked(awaited)) => visit(awaited.clone()),
                Some(&Awaiting::One(awaited)) if is_sure => visit(TaskRef::new(awaited)),
                Some(Awaiting::Kept(awaited)) if is_sure => visit(awaited.clone()),
                Some(Awaiting::Guard(places)) if is_sure => {
                    for place in places.iter() {
                        place.visit_blockers(&mut |holder| visit(TaskRef::new(holder)));
                    }
                }
                _ => {}
            }
        }
        Phase::Queued | Phase::Retired => {}
    }
    drop(guard);
    // The end of a block has edges to some of its tasks only, but waits for all.
    if let Some(ends) = ends {
        ends.visit(visit);
    }
    // Only the body with the `bulk` block knows what it holds back: if it waits, its wait has to look again.
    if let Some(owner) = owner
        && local::with(|local| local.task()) != Some(owner.raw())
    {
        run::wake(owner.raw());
    }
}

fn visit_inputs(task: RawTask, guard: &Locked<'_>, visit: &mut dyn FnMut(TaskRef)) {
    let mut undone = |input: RawTask| {
        if !input.state.load().is_done() {
            visit(TaskRef::new(input));
        }
    };
    // SAFETY: the lock is held in phase `Waiting`; inputs are kept by the claims in the body.
    unsafe { (task.vtable.inputs)(task, &mut undone) };
    if let Some(extra) = task.guarded(guard).known_extra() {
        for dep in &extra.syncdeps {
            undone(dep.task.raw());
        }
    }
    // Those whose places come before its own. They keep their places, and with them their memory, until they release
    // them, which needs the lock of the chunk that is held here.
    for access in task.accesses(guard) {
        access.visit_blockers(&mut |holder| visit(TaskRef::new(holder)));
    }
}

/// Calls `visit` with each task that waits for `task` (those that only come after it in order wait even when it was ended, until its body
/// is gone) or for a chunk which it accesses, or will, if that `is_new`.
pub(crate) fn visit_waiting_behind(
    task: RawTask,
    is_new: &mut dyn FnMut(*const Core) -> bool,
    visit: &mut dyn FnMut(RawTask),
) {
    let guard = task.state.lock();
    visit_successors(task, &guard, visit);
    for access in task.accesses(&guard).iter().filter(|access| access.has_place()) {
        if is_new(access.core()) {
            access.core().visit_waiting_tasks(visit);
        }
    }
}

/// The current task no longer awaits a guard.
pub(crate) fn stop_awaiting_guard() {
    let before = local::with(|local| {
        let me = local.task()?;
        let guard = me.state.lock();
        let guarded = me.guarded(&guard);
        matches!(guarded.awaiting(), Some(Awaiting::Guard(_))).then(|| guarded.take_awaiting())
    });
    drop(before);
}

/// A guard is about to be awaited here whose places wait for these tasks: the error, if that would never end.
pub(crate) fn await_guard(
    places: impl FnOnce() -> Arc<Vec<WaitingPlace>>,
    holders: &[TaskRef],
) -> Option<Error> {
    local::with(|local| {
        let Some(me) = local.task() else {
            local.searched.set(0); // Of this poll.
            let path = holders.iter().find_map(|holder| find_path(holder.raw(), None, local));
            return path.map(|(path, in_bulk)| deadlock(&path, in_bulk));
        };
        let places = places();
        let before = {
            let guard = me.state.lock();
            let awaiting = &mut me.guarded(&guard).rare().awaiting;
            let next = match awaiting {
                Awaiting::Nothing | Awaiting::Guard(_) => Awaiting::Guard(places),
                _ => Awaiting::Many,
            };
            std::mem::replace(awaiting, next)
        };
        drop(before);
        for holder in holders {
            if holder.raw() == me {
                return Some(deadlock(&[TaskRef::new(me)], false));
            }
            if let Some((path, in_bulk)) = find_path(holder.raw(), Some(me), local) {
                return Some(deadlock(&path, in_bulk));
            }
        }
        None
    })
}

/// Whoever runs here waits until the value of `task` is its alone. Makes the stall watch see that; outside tasks, where
/// it does not look, a timer stands for it.
pub(super) fn watch_for_sole(task: RawTask, fresh: bool) {
    local::with(|local| {
        if let Some(me) = local.task() {
            let before = {
                let guard = me.state.lock();
                std::mem::replace(&mut me.guarded(&guard).rare().awaiting, Awaiting::Kept(TaskRef::new(task)))
            };
            return drop(before);
        }
        if cfg!(dagger_loom) {
            return; // A model has no runtime.
        }
        let pool = local.pool().unwrap_or_else(|| crate::runtime::default_pool());
        if let (true, Some(after), Some(timers)) = (fresh, pool.stall_after(), pool.reactor.timers()) {
            let task = TaskRef::new(task);
            timers.spawn(async move {
                tokio::time::sleep(after).await;
                let waits = {
                    let guard = task.state.lock();
                    task.raw().guarded(&guard).extra().sole.is_some()
                };
                if waits {
                    tracing::warn!(
                        target: "dagger",
                        "for {after:?} a use by value of {} has waited for its uses by reference to end",
                        task.info()
                    );
                }
            });
        }
    });
}

/// Calls `visit` with each place of the guard that a suspended task awaits.
pub(crate) fn visit_awaited_places(task: RawTask, visit: &mut dyn FnMut(&WaitingPlace)) {
    let places = {
        let guard = task.state.lock();
        match task.guarded(&guard).awaiting() {
            Some(Awaiting::Guard(places)) if guard.phase() == Phase::Suspended => places.clone(),
            _ => return,
        }
    };
    places.iter().for_each(visit);
}

/// Who waits for this registered task, and for whom it waits. One that waits for a task that is done waits for the
/// other uses of its value.
pub(crate) fn visit_waits(task: RawTask, visit: &mut dyn FnMut(TaskRef, TaskRef)) {
    let mut successors = Vec::new();
    let awaited = {
        let guard = task.state.lock();
        if guard.is_done() {
            return;
        }
        visit_successors(task, &guard, &mut |successor| successors.push(TaskRef::new(successor)));
        match task.guarded(&guard).awaiting() {
            Some(&Awaiting::One(awaited)) if guard.phase() == Phase::Suspended => Some(TaskRef::new(awaited)),
            Some(Awaiting::Kept(awaited) | Awaiting::Blocked(awaited)) => Some(awaited.clone()),
            _ => None,
        }
    };
    if let Some(awaited) = awaited {
        visit(TaskRef::new(task), awaited);
    }
    for successor in successors {
        visit(successor, TaskRef::new(task));
    }
}
