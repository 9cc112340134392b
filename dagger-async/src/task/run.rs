//! What moves a task: run, finish, end early, tell successors. Acts on what `state.rs` decides.
//!
//! 1. Completion is one critical section: outcome, `DONE` and taking the waiters; all telling happens after it.
//! 2. A task is retired once: by whoever dropped its body, or by whoever ended it while it waited for inputs.

use super::cell::{Awaiting, Guarded, RawTask, Step, SyncDep, TaskRef};
#[cfg(feature = "store")]
use super::edge::feeds_only;
use super::edge::{Linker, Successors};
use super::state::{End, Locked, Phase, Ready, Start, Suspend};
use super::tell::{Effect, Work, pass_on, ready};
use super::{wait, waker};
use crate::call::Stop;
use crate::error::{Error, quietly};
use crate::options::{Inherited, Options, Ties};
use crate::pool::{Local, Place, Pool, local, worker};
use crate::record;
use crate::residency;
use dagger_core::Scope;
use dagger_core::record::{Cause, What};
use std::sync::Arc;
use std::sync::atomic::{Ordering::SeqCst, fence};
use std::task::{Context, Waker};

/// Runs a task that came out of a queue of `pool`.
pub(crate) fn run(task: RawTask, pool: &Pool, local: &Local) {
    let (start, awaited) = {
        let mut guard = task.state.lock();
        if residency::is_limited(task)
            && guard.can_start_first()
            && !pool.is_closed()
            && !residency::admit(task, &guard)
        {
            drop(guard);
            return residency::defer(task);
        }
        let start = guard.start();
        // A stale entry says nothing about the body: it may be suspended.
        let awaited = match start {
            Start::Stale => Awaiting::Nothing,
            _ => task.guarded(&guard).take_awaiting(),
        };
        (start, awaited)
    };
    drop(awaited);
    match start {
        Start::Stale => task.release_holder(),
        Start::Discard => discard(task, pool, local),
        Start::Run { .. } if pool.is_closed() => {
            end(task, |header| Error::Shutdown { root: header.info().into() });
            discard(task, pool, local);
        }
        Start::Run { first } => step_here(task, first, pool, local),
    }
}

/// Runs a task in place of waiting for it, if it is queued, was never started and may run here.
pub(super) fn run_in_place(task: RawTask, local: &Local) -> bool {
    let Some(pool) = local.employer().filter(|pool| std::ptr::eq(*pool, task.pool)) else { return false };
    let mut guard = task.state.lock();
    // Under the lock it stays queued; only its spec is looked at.
    if pool.is_closed() || !pool.may_run_here(task, local) || !guard.can_start_first() {
        return false;
    }
    if residency::is_limited(task) && !residency::admit(task, &guard) || !guard.claim() {
        return false;
    }
    guard.set_awaited_by_task();
    task.refs.add_holder(); // For the queue entry, which is stale now.
    drop(guard);
    nested(task, pool, local);
    true
}

/// Runs a task on top of the body that waits for it.
fn nested(task: RawTask, pool: &Pool, local: &Local) {
    let Some(below) = local.task() else { return step(task, true, pool, local) };
    residency::pause(below);
    step(task, true, pool, local);
    residency::resume(below);
}

/// Runs a task that was just spawned on this thread if it is kept back for that (`here`), and waits for its end (the
/// option `inline`).
pub(crate) fn run_inline(kept: TaskRef, here: bool) {
    let task = kept.raw();
    // The one input that the spawn has kept back: nobody else could take the task so far.
    if here && task.input_came() {
        local::with(|local| {
            let mut guard = task.state.lock();
            if guard.is_done() || !worker::stack_has_room() {
                drop(guard);
                return ready(task);
            }
            if guard.ready() == Ready::Push && residency::is_limited(task) && !residency::admit(task, &guard)
            {
                drop(guard);
                return residency::defer(task);
            }
            let claimed = guard.claim();
            debug_assert!(claimed, "its last input has just come");
            // SAFETY: `cell.rs`, invariant 5: it is not retired, and we have the lock.
            let pool = unsafe { &*task.pool }.keep();
            drop(guard);
            nested(task, &pool, local);
        });
    }
    // What is left waits for inputs, or is an async body that waits.
    if let Err(error) = super::handle::block_until_done(task) {
        tracing::error!(target: "dagger", "an inline task goes on by itself: {error}");
    }
}

/// As [`step_here`], apart: for the ways that few tasks go.
#[inline(never)]
fn step(task: RawTask, first: bool, pool: &Pool, local: &Local) {
    step_here(task, first, pool, local);
}

#[inline(always)]
fn step_here(task: RawTask, first: bool, pool: &Pool, local: &Local) {
    if first {
        task.prefetch_chunks();
        start_timer(task, pool);
        record::note(|| What::Start { task: task.id.get() });
    } else {
        record::note(|| What::Resume { task: task.id.get() });
        residency::resume(task);
    }
    let step = {
        let tied;
        let layer = match task.spec.as_deref().map(|spec| &spec.inherited) {
            None | Some(Inherited::Nothing) => None,
            Some(Inherited::Options(options)) => Some(options),
            Some(Inherited::WithTies) => {
                tied = tied_options(task);
                tied.as_ref()
            }
        };
        let _entered = local.enter_task(task, layer);
        let waker = waker::borrowed(task);
        // SAFETY: this thread took the task to `Running`.
        let poll = || unsafe { (task.vtable.poll)(task, &mut Context::from_waker(&waker)) };
        let poll = || match task.spec.as_ref().and_then(|spec| spec.timed.as_ref()) {
            None => poll(),
            Some(timed) => timed.poll(task, poll),
        };
        if tracing::enabled!(target: "dagger", tracing::Level::DEBUG) {
            in_span(task, first, pool, poll)
        } else {
            poll()
        }
    };
    match step {
        Step::Pending => suspend(task, pool, local),
        Step::Value => finish(task, None, Effect::Ran, pool, local),
        Step::Stopped(stop) => stopped(task, stop, pool, local),
    }
}

/// The options of its block that its children inherit, where those refer to others.
fn tied_options(task: RawTask) -> Option<Arc<Options>> {
    let guard = task.state.lock();
    task.guarded(&guard).known_extra().and_then(|extra| extra.inherited.clone())
}

/// The body ended without a value.
#[cold]
#[inline(never)]
fn stopped(task: RawTask, stop: Stop, pool: &Pool, local: &Local) {
    let effect = if stop.is_void() { Effect::Void } else { Effect::Ran };
    finish(task, Some(Box::new(stop.into_error(|| task.info()))), effect, pool, local);
}

/// Polls a body inside the span of its task, which lasts from its first poll to its last.
#[cold]
fn in_span(task: RawTask, first: bool, pool: &Pool, poll: impl FnOnce() -> Step) -> Step {
    let kept = if first {
        None
    } else {
        let guard = task.state.lock();
        task.guarded(&guard).known_extra().and_then(|extra| extra.span.take())
    };
    // A subscriber is foreign code, and may have come after the first poll.
    let span = kept.unwrap_or_else(|| {
        let (id, site) = (task.id.get(), task.origin.location());
        let scope = scope_of(task, pool);
        tracing::debug_span!(target: "dagger", "task", name = task.name(), id, scope, %site)
    });
    let step = span.in_scope(poll);
    if matches!(step, Step::Pending) {
        let guard = task.state.lock();
        task.guarded(&guard).extra().span = Some(span);
    }
    step
}

/// Where a task may run, as a scope is written.
fn scope_of(task: RawTask, pool: &Pool) -> String {
    let Some(spec) = &task.spec else { return Scope::default().to_string() };
    match spec.placement.domain.map(|key| pool.domains.get(key)) {
        _ if spec.placement.blocking => "beside the workers".to_owned(),
        Some(domain) if domain.workers.len() < pool.processors.len() => {
            Scope::threads(domain.workers.iter().map(|&worker| pool.processors[worker].thread)).to_string()
        }
        _ => Scope::default().to_string(),
    }
}

fn suspend(task: RawTask, pool: &Pool, local: &Local) {
    record::note(|| What::Suspend { task: task.id.get() });
    // Before the lock: what is looked at under it, and the step that it ends with, belong together.
    if residency::is_admitted(task) && !task.state.load().is_notified() {
        residency::pause(task);
    }
    let mut guard = task.state.lock();
    if task.guarded(&guard).rare().registered.is_none() {
        drop(guard);
        register(task, pool, local);
        guard = task.state.lock();
    }
    // The shutdown skips bodies that run, and looks at the phase under this lock: either it sees this one suspended,
    // or we see that it has begun.
    if pool.is_closed() {
        drop(guard);
        end(task, |header| Error::Shutdown { root: header.info().into() });
        guard = task.state.lock();
    } else if guard.is_unwanted() {
        drop(guard);
        // SAFETY: this thread took the task to `Running`, and the body is there: it is pending.
        if !unsafe { (task.vtable.has_begun)(task) } {
            end(task, |header| Error::Cancelled { root: header.info().into() });
        }
        guard = task.state.lock();
    }
    // Somebody may wait for it, and it closes a cycle. After the unlock it may run elsewhere and end.
    let kept = wait::is_waited_for(task, &guard).then(|| TaskRef::new(task));
    let suspend = guard.suspend();
    if suspend == Suspend::Again {
        residency::resume(task); // Nobody else has it until the lock is free.
    }
    drop(guard);
    match suspend {
        Suspend::Wait => {
            if let Some(kept) = kept {
                look_again(kept.raw());
            }
        }
        Suspend::Again => pool.enqueue(task, local),
        Suspend::Discard => discard(task, pool, local),
    }
}

/// Wakes a suspended task that has come to be part of a cycle: its wait will look again, and find the cycle whole.
pub(super) fn look_again(task: RawTask) {
    // Whoever suspends and whoever drops the last foreign waker both publish first: one of them sees the other.
    fence(SeqCst);
    let state = task.state.load();
    if state.phase() == Phase::Suspended && wait::closes_cycle(task) {
        wake(task);
    }
}

/// Makes the shutdown and the stall watch find this task. The caller runs its body, or has not launched it yet.
pub(crate) fn register(task: RawTask, pool: &Pool, local: &Local) {
    let known = {
        let guard = task.state.lock();
        task.guarded(&guard).rare().registered.is_some()
    };
    if known {
        return;
    }
    let key = pool.register(task, local);
    let late = {
        let guard = task.state.lock();
        let late = guard.phase() == Phase::Retired;
        if !late {
            task.guarded(&guard).rare().registered = Some(key);
        }
        late
    };
    if late {
        pool.unregister(key); // Ended before its launch, and its lists are left already.
    }
}

/// Gives a task that is being launched what it has to do with others. False if one of its tokens is cancelled.
pub(crate) fn tie(task: RawTask, ties: Ties, linker: &mut Linker) -> bool {
    let tokens: Vec<_> = ties.tokens.iter().map(|token| (token.clone(), None)).collect();
    let syncdeps: Box<[SyncDep]> = ties.syncdeps.into();
    let edges: *const [SyncDep] = &raw const *syncdeps;
    {
        let guard = task.state.lock();
        let extra = task.guarded(&guard).extra();
        extra.tokens = tokens;
        extra.inherited = ties.inherited;
        extra.ends = ties.ends;
        extra.syncdeps = syncdeps;
    }
    linker.cause = Cause::Order;
    // SAFETY: boxed, and kept in `extra` until the last input is there (the caller holds `pending`); from here on only
    // shared references are made to it.
    for dep in unsafe { &*edges } {
        linker.after(dep.task.raw(), &dep.edge);
    }
    for (index, token) in ties.tokens.iter().enumerate() {
        let Some(key) = token.register(task) else { return false };
        let late = {
            let guard = task.state.lock();
            let known = task.guarded(&guard).extra().tokens.get_mut(index);
            known.map(|(_, known)| *known = Some(key)).is_none()
        };
        if late {
            token.unregister(key); // Cancelled meanwhile, and its lists are left already.
        }
    }
    true
}

/// Remembers whose block holds a task back.
pub(crate) fn held_by(task: RawTask, owner: RawTask) {
    let owner = TaskRef::new(owner);
    let guard = task.state.lock();
    task.guarded(&guard).extra().held_by = Some(owner);
}

/// The current task is about to block its thread.
pub(super) fn register_blocked(local: &Local) {
    if let (Some(task), Some(pool)) = (local.task(), local.pool())
        && std::ptr::eq(task.pool, pool)
    {
        register(task, pool, local);
    }
}

/// Ends a task whose runtime shuts down, unless its body runs: that may return.
pub(crate) fn end_by_shutdown(task: RawTask) {
    let running = task.state.lock().phase() == Phase::Running;
    if !running {
        end(task, |header| Error::Shutdown { root: header.info().into() });
    }
}

/// Drops the body of a task that was ended before it returned.
fn discard(task: RawTask, pool: &Pool, local: &Local) {
    {
        let _entered = local.enter_pool(pool);
        // SAFETY: this thread took the task to `Running`, and it will not be polled again.
        unsafe { (task.vtable.drop_body)(task) };
    }
    record::note(|| What::End { task: task.id.get(), end: record::end_of(task.error()) });
    let successors = {
        let mut guard = task.state.lock();
        let counts = guard.finish(false);
        debug_assert!(!counts, "only what is done is discarded");
        Successors::take(task.guarded(&guard))
    };
    // SAFETY: `finish` has set `GONE`, just now.
    unsafe { pass_on(task, successors, None, Effect::Ran) };
    retire(task, false, pool, local.place_of(pool));
}

/// Takes the wakers that few tasks have beside the first one.
fn other_wakers(guarded: &mut Guarded) -> slab::Slab<Waker> {
    guarded.known_extra().map(|extra| std::mem::take(&mut extra.wakers)).unwrap_or_default()
}

fn wake_all(first: Option<Waker>, others: slab::Slab<Waker>) {
    for waker in first.into_iter().chain(others.into_iter().map(|(_, waker)| waker)) {
        quietly(|| waker.wake());
    }
}

/// What a completion owes, all of it outside the lock.
#[must_use]
pub(super) struct Completed {
    waker: Option<Waker>,
    successors: Successors,
    /// Nobody wants the value, or another outcome came first.
    drop_value: bool,
    /// It is in no list and waits for nobody: most tasks.
    free: bool,
    more: Option<Box<More>>,
}

/// What few completions owe.
struct More {
    wakers: slab::Slab<Waker>,
    /// The successors take on the error.
    failed: bool,
    /// Nobody holds a handle and nobody takes the failure on: it is logged.
    unseen: bool,
}

/// The body is gone; its value lies in the slot unless there is an error. Publishes the outcome (invariant 1).
#[inline(always)]
pub(super) fn complete(task: RawTask, error: Option<Box<Error>>) -> Completed {
    let is_value = error.is_none();
    let mut guard = task.state.lock();
    let (successors, free) = {
        let guarded = task.guarded(&guard);
        (Successors::take(guarded), guarded.is_free())
    };
    if !guard.finish(is_value) {
        // It was ended before; what only comes after it in order has waited for the body.
        return Completed { waker: None, successors, drop_value: is_value, free, more: None };
    }
    let unclaimed = task.claims(&guard) == 0;
    let drop_value = is_value && unclaimed;
    if drop_value {
        guard.clear_value();
    }
    let guarded = task.guarded(&guard);
    let waker = guarded.waker.take();
    let few = !is_value || !guarded.is_common();
    let more = if few { complete_more(task, &mut guard, error, &successors, unclaimed) } else { None };
    Completed { waker, successors, drop_value, free, more }
}

#[cold]
fn complete_more(
    task: RawTask,
    guard: &mut Locked<'_>,
    error: Option<Box<Error>>,
    successors: &Successors,
    unclaimed: bool,
) -> Option<Box<More>> {
    let wakers = other_wakers(task.guarded(guard));
    let failed = error.is_some();
    if !failed && wakers.is_empty() {
        return None;
    }
    task.set_error(guard, error);
    // What only comes after it in order does not look.
    let taken_on = failed && successors.has_dependent();
    let unseen = failed && unclaimed && !taken_on && !guard.is_observed();
    if unseen || taken_on {
        guard.set_observed();
    }
    Some(Box::new(More { wakers, failed, unseen }))
}

impl Completed {
    /// The successors alone, for the models.
    #[cfg(all(test, dagger_loom))]
    pub(super) fn into_successors(self) -> impl Iterator<Item = (RawTask, bool)> {
        wake_all(self.waker, self.more.map(|more| more.wakers).unwrap_or_default());
        self.successors
    }

    /// Drops what nobody wants and tells those who wait. True if the task is in no list.
    ///
    /// # Safety
    /// `complete` gave it for this task, just now.
    #[inline(always)]
    pub(super) unsafe fn settle(self, task: RawTask, effect: Effect) -> bool {
        if self.drop_value {
            // SAFETY: `VALUE` is not set and the body is gone: the value is ours alone.
            unsafe { (task.vtable.drop_value)(task) };
        }
        if let Some(more) = self.more {
            // SAFETY: the caller's promise.
            unsafe { settle_more(task, self.successors, self.waker, *more, effect) };
            return self.free;
        }
        // Most tasks have neither, and a worklist is worth more than what it would do for them.
        if task.has_accesses() || residency::is_admitted(task) || !self.successors.is_empty() {
            // SAFETY: `complete` has set `GONE`.
            unsafe { pass_on(task, self.successors, None, effect) };
        }
        if let Some(waker) = self.waker {
            quietly(|| waker.wake());
        }
        self.free
    }
}

/// # Safety
/// As for [`Completed::settle`].
#[cold]
unsafe fn settle_more(
    task: RawTask,
    successors: Successors,
    waker: Option<Waker>,
    more: More,
    effect: Effect,
) {
    let failure = if more.failed { task.error().cloned() } else { None };
    if let (true, Some(failure)) = (more.unseen, &failure) {
        report(failure);
    }
    // SAFETY: `complete` has set `GONE`.
    unsafe { pass_on(task, successors, failure, effect) };
    wake_all(waker, more.wakers);
}

#[inline(always)]
fn finish(task: RawTask, error: Option<Box<Error>>, effect: Effect, pool: &Pool, local: &Local) {
    if local.lost_place.get() && local.depth.get() == 0 {
        pool.spares.is_spare_again(local);
    }
    record::note(|| What::End { task: task.id.get(), end: record::end_of(error.as_deref()) });
    let completed = complete(task, error);
    // What this completion makes ready may run next on this worker, but not while another body of its stack goes on.
    if let Some(place) = local.place_of(pool).filter(|_| local.depth.get() == 0) {
        place.finishing.set(true);
    }
    // SAFETY: `completed` is this task's.
    let free = unsafe { completed.settle(task, effect) };
    // A value that was dropped may have blocked, and the place has gone to another thread (`worker.rs`, 2): asked for anew.
    let place = local.place_of(pool);
    if let Some(place) = place.filter(|_| local.depth.get() == 0) {
        place.finishing.set(false);
    }
    retire(task, free, pool, place);
}

/// Cancels a task unless its body has started: a block that is dropped does that to its tasks.
pub(crate) fn cancel_unstarted(task: RawTask) {
    let mut work = Work::new();
    end_into(task, false, |header| Error::Cancelled { root: header.info().into() }, &mut work);
    work.drain();
}

/// Ends a task before its body does. The caller keeps the task in memory. False if it was done already.
pub(crate) fn end(task: RawTask, error: impl FnOnce(&super::cell::Header) -> Error) -> bool {
    if task.state.load().is_done() {
        return false;
    }
    let mut work = Work::new();
    let ended = end_into(task, true, error, &mut work);
    work.drain();
    ended
}

pub(super) fn end_into(
    task: RawTask,
    also_started: bool,
    error: impl FnOnce(&super::cell::Header) -> Error,
    work: &mut Work,
) -> bool {
    let error = Box::new(error(&task));
    let mut guard = task.state.lock();
    if !also_started && guard.is_started() {
        let rests = matches!(guard.phase(), Phase::Queued | Phase::Suspended);
        // SAFETY: under the lock, in one of these phases; it is not done, so the body is there.
        if !rests || guard.is_done() || unsafe { (task.vtable.has_begun)(task) } {
            // One that is being polled may only be awaiting its arguments: its poll decides.
            guard.set_unwanted();
            return false;
        }
    }
    end_locked(task, guard, error, work)
}

/// Ends a task that has not started and that nobody needs but these: bodies that will not run, which have so many claims on it,
/// and nothing depends on it that is not one of them. Lists its inputs then, which its own body keeps until they are done.
///
/// One that writes to a chunk is needed there.
#[cfg(feature = "store")]
pub(crate) fn end_unneeded(
    task: RawTask,
    claims: u64,
    is_one_of_them: &dyn Fn(RawTask) -> bool,
    inputs: &mut Vec<TaskRef>,
) -> bool {
    let error = Box::new(Error::Cancelled { root: task.info().into() });
    let mut work = Work::new();
    let ended = {
        let mut guard = task.state.lock();
        let claims = claims + u64::from(guard.is_saved());
        let rests = matches!(guard.phase(), Phase::Waiting | Phase::Queued) && !guard.is_started();
        let is_needed = guard.is_done()
            || !rests
            || task.claims(&guard) != claims
            || task.guarded(&guard).waker.is_some()
            || task.accesses(&guard).iter().any(|held| held.mode.writes())
            || !feeds_only(task, &guard, is_one_of_them);
        if is_needed {
            return false;
        }
        guard.set_unneeded();
        guard.set_observed();
        // SAFETY: the lock is held in phase `Waiting` or `Queued`; inputs are kept by the claims in the body.
        unsafe { (task.vtable.inputs)(task, &mut |input| inputs.push(TaskRef::new(input))) };
        end_locked(task, guard, error, &mut work)
    };
    work.drain();
    ended
}

fn end_locked(task: RawTask, mut guard: Locked<'_>, error: Box<Error>, work: &mut Work) -> bool {
    let unclaimed = task.claims(&guard) == 0;
    let end = guard.end();
    if end == End::Late {
        return false;
    }
    // Here the task is not retired, so its pool is alive: count ourselves in before we may retire it.
    let pool = match end {
        // SAFETY: `cell.rs`, invariant 5.
        End::Retire | End::Push => Some(unsafe { &*task.pool }.keep()),
        // SAFETY: as above.
        End::Leave if residency::is_limited(task) => Some(unsafe { &*task.pool }.keep()),
        End::Late | End::Leave => None,
    };
    let guarded = task.guarded(&guard);
    let (waker, others) = (guarded.waker.take(), other_wakers(guarded));
    let successors = Successors::take_dependent(guarded);
    let failure = Error::clone(&error);
    task.set_error(&guard, Some(error));
    let unseen = unclaimed && successors.is_empty() && !guard.is_observed();
    if unseen || !successors.is_empty() {
        guard.set_observed();
    }
    drop(guard);
    if matches!(end, End::Retire) {
        // Before anybody who waits for it is told.
        record::note(|| What::End { task: task.id.get(), end: record::end_of(Some(&failure)) });
    }
    if unseen {
        report(&failure);
    }
    work.tell_later(successors, Some(Box::new(failure)));
    wake_all(waker, others);
    if let Some(pool) = pool {
        local::with(|local| match end {
            End::Push => pool.enqueue(task, local),
            End::Leave => residency::ended(task, &pool),
            _ => {
                // The last input drops the body and gives up the scheduler's holder.
                leave_lists(task, &pool);
                pool.finished(local);
            }
        });
    }
    true
}

/// Wakes a suspended body. The caller keeps the task in memory.
pub(crate) fn wake(task: RawTask) {
    local::with(|local| {
        let kept;
        {
            let mut guard = task.state.lock();
            if !guard.wake() {
                return;
            }
            residency::resume(task); // Nobody else has it until the lock is free.
            // A stale queue entry may run the task as soon as the lock is free: what we need of it is taken here.
            // SAFETY: `cell.rs`, invariant 5: it is not retired, and we have the lock.
            kept = (!local.is_in(task.pool)).then(|| unsafe { &*task.pool }.keep());
        }
        match &kept {
            Some(pool) => pool.enqueue(task, local),
            // SAFETY: this thread is in that pool, so somebody on its stack keeps it.
            None => unsafe { &*task.pool }.enqueue(task, local),
        }
    });
}

/// The body is gone: nothing of the pool belongs to the task any more.
/// `free`: it is in no list, so there is nothing to leave.
#[inline(always)]
fn retire(task: RawTask, free: bool, pool: &Pool, place: Option<&Place>) {
    if !free {
        leave_lists(task, pool);
        untie(task);
    }
    pool.finished_at(place);
    task.release_scheduler();
}

/// Takes the task out of the pool's registry, its timer's and its tokens' lists.
fn leave_lists(task: RawTask, pool: &Pool) {
    let (registered, awaiting, timer, tokens, span) = {
        let guard = task.state.lock();
        let guarded = task.guarded(&guard);
        let (timer, tokens, span) = match guarded.known_extra() {
            Some(extra) => (extra.timer.take(), std::mem::take(&mut extra.tokens), extra.span.take()),
            None => (None, Vec::new(), None),
        };
        (guarded.take_registered(), guarded.take_awaiting(), timer, tokens, span)
    };
    drop(awaiting);
    quietly(|| drop(span));
    if let Some(key) = registered {
        pool.unregister(key);
    }
    if let Some(timer) = timer {
        timer.abort();
    }
    for (token, key) in tokens {
        if let Some(key) = key {
            token.unregister(key);
        }
    }
}

/// Lets go of the tasks that it waited for and of options that it handed on and that refer to others, so that what is kept is not kept for
/// ever by what came after. Its inputs are there.
pub(super) fn untie(task: RawTask) {
    if task.spec.is_none() {
        return;
    }
    let ties = {
        let guard = task.state.lock();
        let extra = task.guarded(&guard).known_extra();
        extra.map(|extra| {
            (
                std::mem::take(&mut extra.syncdeps),
                extra.inherited.take(),
                extra.held_by.take(),
                extra.ends.take(),
            )
        })
    };
    drop(ties);
}

#[inline]
fn start_timer(task: RawTask, pool: &Pool) {
    if let Some(after) = task.spec.as_deref().and_then(|spec| spec.timeout) {
        start_timer_of(task, after, pool);
    }
}

#[cold]
fn start_timer_of(task: RawTask, after: std::time::Duration, pool: &Pool) {
    let Some(timers) = pool.reactor.timers() else { return };
    let deadline = tokio::time::Instant::now().checked_add(after);
    let Some(deadline) = deadline else { return }; // Longer than the clock counts.
    let held = TaskRef::new(task);
    let timer = timers.spawn(async move {
        tokio::time::sleep_until(deadline).await;
        end(held.raw(), |header| Error::TimedOut { root: header.info().into(), after });
    });
    let guard = task.state.lock();
    let retired = guard.phase() == Phase::Retired;
    debug_assert!(!retired, "the body has not run yet");
    task.guarded(&guard).extra().timer = Some(timer.abort_handle());
}

/// Logs a failure that nobody will see otherwise, once for its root.
pub(super) fn report(error: &Error) {
    if error.is_deliberate() {
        return;
    }
    if let Some(root) = error.root()
        && root.report()
    {
        // The subscriber and the error's text are foreign code.
        quietly(|| {
            tracing::error!(target: "dagger", task = root.name(), id = root.id().get(), site = root.site(), "{error}");
        });
    }
}
