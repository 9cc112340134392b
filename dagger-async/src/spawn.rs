//! Submitting a task: from a body and options to a cell that waits or is queued.
//!
//! ```text
//!   body ─▶ cell (pending = BIAS) ─▶ link inputs ─▶ pending −= BIAS − waiting ─▶ 0? queue it
//! ```
//! 1. Until the bias is taken off no input can start the task, so linking needs no lock of the task.
//! 2. A task without unfinished inputs that nobody else knows (it has no place at a chunk) is queued without a locked
//!    operation on it.
//! 3. Submitting never waits and never fails: what is wrong is the outcome of the task.

use crate::call::{Body, Borrowing, Fill, FutureBody, TryBody, TryIntoFuture, make};
use crate::chunk::{self, Asker};
use crate::error::Error;
use crate::options::{self, Options, Refused, Spec, Stated, Ties};
use crate::plan::Issue;
use crate::pool::{Local, Pool, local, window};
use crate::record;
use crate::runtime;
use crate::scoped::{Ending, Frame};
#[cfg(feature = "store")]
use crate::store::checkpoint::{self, Asked, Found, Kind, Restore, Save, Unneeded};
#[cfg(feature = "store")]
use crate::task::AnyClaim;
use crate::task::{self, BIAS, CallSite, Claim, DTask, Kept, Linker, Origin, RawTask, TaskRef};
use dagger_core::Scope;
#[cfg(feature = "store")]
use dagger_core::TaskName;
use std::error::Error as StdError;
use std::future::IntoFuture;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Release};

/// Spawns a future as a task, like `tokio::spawn`: it starts at once, on a worker of the current runtime.
///
/// For function calls there is [`spawn!`](crate::spawn!). An `Err` that the future gives is a plain value; see
/// [`try_spawn`]. Takes a [`retry`](crate::retry) too.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let task = spawn(async { 6 * spawn!((|| 7)()).await.unwrap() });
/// assert_eq!(task.await?, 42);
/// # Ok(()) }
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> DTask<F::Output>
where
    F: IntoFuture,
    F::IntoFuture: Send + 'static,
    F::Output: Send + Sync + 'static,
{
    spawn_future(future, None)
}

/// Spawns a future of a `Result` as a task that fails with its `Err`.
///
/// Dependants and handles get [`Error::Task`], and [`Error::downcast_ref`] finds the user's error.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() {
/// let task = try_spawn(async { "x".parse::<i32>() });
/// let error = task.await.unwrap_err();
/// assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
/// # }
/// ```
#[track_caller]
pub fn try_spawn<F>(future: F) -> DTask<F::Ok>
where
    F: TryIntoFuture,
    F::Future: Send + 'static,
    F::Ok: Send + Sync + 'static,
    F::Err: Into<Box<dyn StdError + Send + Sync>>,
{
    try_spawn_future(future, None)
}

#[track_caller]
pub(crate) fn spawn_future<F>(future: F, options: Option<Options>) -> DTask<F::Output>
where
    F: IntoFuture,
    F::IntoFuture: Send + 'static,
    F::Output: Send + Sync + 'static,
{
    submit(FutureBody(future.into_future()), Origin::future(Location::caller()), options, After::NOTHING)
}

#[track_caller]
pub(crate) fn try_spawn_future<F>(future: F, options: Option<Options>) -> DTask<F::Ok>
where
    F: TryIntoFuture,
    F::Future: Send + 'static,
    F::Ok: Send + Sync + 'static,
    F::Err: Into<Box<dyn StdError + Send + Sync>>,
{
    let body = TryBody(FutureBody(future.try_into_future()));
    submit(body, Origin::future(Location::caller()), options, After::NOTHING)
}

/// Submits a call; the end of what `spawn!` expands to. What the call borrows lives until this returns.
#[doc(hidden)]
#[inline(always)]
pub fn submit_call<B, X>(
    call: Borrowing<B, X>,
    site: &'static CallSite,
    options: Option<Options>,
) -> DTask<B::Output>
where
    B: Body,
    B::Output: Send + Sync + 'static,
{
    submit(call.body(), Origin::call(site), options, After::NOTHING)
}

/// Inlined, and the options by reference: where there are none the compiler sees it, and none are moved or dropped.
#[inline(always)]
fn submit<B>(body: B, origin: Origin, inline: Option<Options>, after: After<'_>) -> DTask<B::Output>
where
    B: Body,
    B::Output: Send + Sync + 'static,
{
    let mut body = ManuallyDrop::new(body);
    // SAFETY: not used again here.
    let body = unsafe { Given::new(&mut body) };
    if inline.is_none() {
        std::mem::forget(inline); // Nothing; to drop it would be a call.
        return submit_given(body, origin, None, after);
    }
    let mut inline = inline;
    submit_given(body, origin, inline.as_mut(), after)
}

/// A body that is given away where it lies, to be moved once: each copy of what was just written piece by piece reads it in other
/// pieces, and so waits for the writes.
struct Given<'a, B>(&'a mut ManuallyDrop<B>);

impl<'a, B> Given<'a, B> {
    /// # Safety
    /// The body is not used any more but through this.
    unsafe fn new(body: &'a mut ManuallyDrop<B>) -> Self {
        Given(body)
    }

    #[inline(always)]
    fn take(self) -> B {
        let this = ManuallyDrop::new(self);
        // SAFETY: whoever made `this` does not use it (`new`), and nor do we: neither it nor `this` is dropped.
        unsafe { std::ptr::read(&raw const **this.0) }
    }
}

impl<B> Drop for Given<'_, B> {
    /// It was not taken: something has unwound.
    fn drop(&mut self) {
        // SAFETY: whoever made it does not use it (`new`), and it was not taken.
        unsafe { ManuallyDrop::drop(self.0) };
    }
}

/// Spawns a task for the runtime's own ends for which the blocks here wait as for those of the user.
#[cfg(feature = "store")]
pub(crate) fn accompany<B: Body<Output = ()>>(body: B, origin: Origin, name: TaskName) {
    local::with(|local| {
        let pool = local.pool().unwrap_or_else(|| runtime::default_pool());
        let frame = local.queue();
        let _left = local.leave_blocks();
        let spec = Some(Kept::new(Spec::first(name, pool)));
        let task = RawTask::new(|| body, pool, origin, spec, BIAS);
        record::spawned(&task, pool);
        pool.spawned(local);
        if let Some(frame) = frame {
            frame.accompany(task);
        }
        // SAFETY: the cell starts with one claim, which is this one: nobody wants its value.
        let claim = unsafe { Claim::<()>::adopt(task) };
        let mut linker = Linker::new::<B>(task);
        linker.cause = dagger_core::record::Cause::Order;
        task.link_body::<B>(&mut linker);
        launch(task, &mut linker, None, pool, local);
        drop(claim);
    });
}

/// After what a task comes that is not said by its arguments.
#[derive(Clone, Copy)]
struct After<'a> {
    /// However they end.
    tasks: &'a [TaskRef],
    /// It is the end of a block, or a part of that.
    ends: Option<&'a Arc<Ending>>,
}

impl After<'_> {
    const NOTHING: After<'static> = After { tasks: &[], ends: None };

    #[inline]
    fn is_nothing(self) -> bool {
        self.tasks.is_empty() && self.ends.is_none()
    }
}

/// As [`submit`]. Takes what is in the options.
fn submit_given<B>(
    body: Given<'_, B>,
    origin: Origin,
    inline: Option<&mut Options>,
    after: After<'_>,
) -> DTask<B::Output>
where
    B: Body,
    B::Output: Send + Sync + 'static,
{
    local::with(|local| {
        let pool = local.pool().unwrap_or_else(|| runtime::default_pool());
        let mut scopes = None;
        body.0.scope(&mut scopes);
        let is_plain = inline.is_none() && local.is_plain() && scopes.is_none() && after.is_nothing();
        let (spec, extras) = if is_plain {
            (None, None)
        } else {
            let accesses = B::ACCESSES != 0;
            #[cfg(feature = "store")]
            let said = Said { inline, scopes, after, accesses, origin, kind: const { &Kind::of::<B>() } };
            #[cfg(not(feature = "store"))]
            let said = Said { inline, scopes, after, accesses };
            specify(said, pool, local)
        };
        let task = RawTask::new(|| body.take(), pool, origin, spec, BIAS);
        if !is_plain && let Some(issue) = local.queue().and_then(Frame::freezing) {
            issue.examine(task, B::ACCESSES != 0, extras.is_some());
        }
        #[cfg(feature = "store")]
        if extras.as_ref().is_some_and(|extras| extras.found.is_some()) {
            // SAFETY: the task was made just now, and its body gives what is asked for.
            return unsafe { restore::<B::Output>(task, extras, pool, local) };
        }
        // SAFETY: the task was made just now, with this body.
        unsafe { submit_made::<B>(task, extras, pool, local) }
    })
}

/// Submits a task that is made, and gives its handle.
///
/// # Safety
/// The task was made with a body of this type, and nobody else knows it.
#[inline]
unsafe fn submit_made<B>(
    task: RawTask,
    extras: Option<Box<Extras>>,
    pool: &Pool,
    local: &Local,
) -> DTask<B::Output>
where
    B: Body,
    B::Output: Send + Sync + 'static,
{
    let may_be_step = begin(task, B::ACCESSES != 0, pool, local);
    // SAFETY: the cell starts with one claim, which is the handle's.
    let handle = DTask::new(unsafe { Claim::<B::Output>::adopt(task) });
    let mut linker = ManuallyDrop::new(Linker::new::<B>(task));
    linker.may_be_step = may_be_step;
    task.link_body::<B>(&mut linker);
    submit_linked(task, &mut linker, extras, B::IMMEDIATE, pool, local);
    if !linker.owns_nothing() {
        drop(ManuallyDrop::into_inner(linker)); // A call: few need it.
    }
    handle
}

/// Tells of a task that was made, before anything can end it. True if it may be a step of a plan, and is not listed.
fn begin(task: RawTask, has_accesses: bool, pool: &Pool, local: &Local) -> bool {
    // What follows calls nobody, so that it needs to keep nothing.
    if !record::is_on()
        && let Some(may_be_step) =
            local.queue().map_or(Some(false), |frame| frame.own_quickly(task, has_accesses))
    {
        pool.spawned(local);
        return may_be_step;
    }
    begin_slowly(task, has_accesses, pool, local)
}

/// As [`begin`].
#[inline(never)]
fn begin_slowly(task: RawTask, has_accesses: bool, pool: &Pool, local: &Local) -> bool {
    record::spawned(&task, pool);
    pool.spawned(local);
    local.queue().is_some_and(|frame| frame.own(task, has_accesses))
}

/// Launches a task whose inputs are linked, and waits where that is asked for. `immediate`: its body is.
///
/// The linker by reference: a copy reads in one piece what was just written in several, and so waits for all earlier writes.
fn submit_linked(
    task: RawTask,
    linker: &mut Linker,
    extras: Option<Box<Extras>>,
    immediate: bool,
    pool: &Pool,
    local: &Local,
) {
    if local.layer().is_some_and(|layer| layer.runs_inline()) {
        // A body that may be suspended runs on a worker: what it awaits may need this thread's Tokio context to go on.
        linker.waiting += u32::from(immediate); // Kept back from the workers.
        let kept = TaskRef::new(task);
        launch(task, linker, extras, pool, local);
        return task::run_inline(kept, immediate);
    }
    let bounded = local.place().is_none()
        && local.task().is_none()
        && (task.has_accesses() || local.queue().is_some_and(|frame| frame.is_in_block()));
    launch(task, linker, extras, pool, local);
    if bounded {
        window::wait_for_room(pool);
    }
}

/// Submits a task that brings a result back, in place of one that would compute it, which is freed. What only fed that one ends.
///
/// # Safety
/// The task was made with a body that gives a `T`, and nobody else knows it.
#[cfg(feature = "store")]
#[cold]
#[inline(never)]
unsafe fn restore<T: Send + Sync + 'static>(
    task: RawTask,
    mut extras: Option<Box<Extras>>,
    pool: &Pool,
    local: &Local,
) -> DTask<T> {
    let found = extras.as_mut().and_then(|extras| extras.found.take());
    let body = Restore::<T>::new(found.expect("a task is restored of what was found (`submit_given`)"));
    let origin = task.origin;
    let mut unneeded = Unneeded::default();
    // SAFETY: the caller's promise.
    let spec = unsafe { task.free_unknown(&mut |input| unneeded.add(input)) };
    let task = RawTask::new(|| body, pool, origin, spec, BIAS);
    // SAFETY: it was made just now, with this body.
    let handle = unsafe { submit_made::<Restore<T>>(task, extras, pool, local) };
    unneeded.end();
    handle
}

/// What a task is submitted with.
struct Said<'a> {
    inline: Option<&'a mut Options>,
    scopes: Option<Scope>,
    after: After<'a>,
    /// It accesses chunks.
    accesses: bool,
    #[cfg(feature = "store")]
    origin: Origin,
    #[cfg(feature = "store")]
    kind: &'static Kind,
}

/// What a task has to do with others, or why it cannot be placed.
struct Extras {
    ties: Ties,
    refused: Option<Refused>,
    /// What writes its value down.
    #[cfg(feature = "store")]
    save: Option<Save>,
    /// Its value is there.
    #[cfg(feature = "store")]
    found: Option<Found>,
}

/// The options of a task as it keeps them, and what else they ask for.
#[inline(never)]
fn specify(said: Said<'_>, pool: &Pool, local: &Local) -> (Option<Kept<Spec>>, Option<Box<Extras>>) {
    let layer = local.layer();
    let frame = local.queue();
    let ranked = frame.filter(|_| said.accesses).and_then(Frame::ranked_plan);
    let rank = ranked.and_then(Issue::rank_of_next);
    #[cfg(feature = "store")]
    let key = said.inline.as_ref().and_then(|options| options.of_checkpoint().key.clone());
    let mut made = None;
    let mut options = match (said.inline, layer) {
        (Some(inline), Some(layer)) => Stated::Own(made.insert(Options::merge(inline, layer))),
        (Some(inline), None) => Stated::Own(inline),
        (None, Some(layer)) if rank.is_none() => Stated::OfBlock(layer),
        (None, Some(layer)) => Stated::Own(made.insert(Options::clone(layer))),
        (None, None) => Stated::Own(made.insert(Options::new())),
    };
    if let (Stated::Own(options), Some(rank)) = (&mut options, rank) {
        options.rank_if_none(rank);
    }
    #[cfg(feature = "store")]
    let asked = match (&mut options, key) {
        (Stated::Own(options), Some(key)) => checkpoint::ask(&key, options, pool, said.origin, said.kind),
        _ => Asked::Run(None),
    };
    #[cfg(feature = "store")]
    let (save, found) = match asked {
        Asked::Run(save) => (save, None),
        Asked::Restore(found) => (None, Some(found)),
    };
    #[cfg(feature = "store")]
    let scopes = said.scopes.filter(|_| found.is_none()); // It has no inputs then.
    #[cfg(not(feature = "store"))]
    let scopes = said.scopes;
    let (mut spec, mut ties, refused) = options::resolve(options, layer, scopes, pool);
    #[cfg(feature = "store")]
    let ranked = ranked.filter(|_| found.is_none()); // Its body is not called then.
    spec.timed = ranked.and_then(Issue::timed);
    // What ends a step comes after the tasks of that, and these after the step before.
    if let Some(frame) = frame.filter(|_| said.after.tasks.is_empty()) {
        frame.order(&mut ties, local.layer().is_some_and(|layer| layer.is_linear()));
    }
    for task in said.after.tasks {
        ties.order_after(task.clone());
    }
    ties.ends = said.after.ends.cloned();
    let alone = ties.are_empty() && refused.is_none() && frame.is_none_or(Frame::only_owns);
    #[cfg(feature = "store")]
    let alone = alone && save.is_none() && found.is_none();
    let extras = || {
        Box::new(Extras {
            ties,
            refused,
            #[cfg(feature = "store")]
            save,
            #[cfg(feature = "store")]
            found,
        })
    };
    (Some(spec), (!alone).then(extras))
}

/// Takes the places of a task in the queues of the chunks that it accesses.
#[inline(never)]
fn take_places(task: RawTask, linker: &mut Linker) -> Option<Box<Error>> {
    let taken = match linker.refused.take() {
        Some(refusal) => Err(refusal),
        // SAFETY: the task is being spawned, here.
        None => chunk::take_places(unsafe { task.new_accesses() }, Asker::Task(task)),
    };
    match taken {
        Ok(taken) => {
            linker.waiting += taken.waiting;
            linker.registers |= taken.foreign;
            None
        }
        Err(refusal) => Some(Box::new(refusal.into_error(Some(task.info().into())))),
    }
}

#[inline(always)]
fn launch(task: RawTask, linker: &mut Linker, extras: Option<Box<Extras>>, pool: &Pool, local: &Local) {
    let mut refusal = None;
    let known = task.has_accesses();
    if known || linker.refused.is_some() {
        refusal = match local.queue().filter(|frame| frame.is_planned()) {
            None => take_places(task, linker),
            Some(frame) => frame.place(task, linker, |linker| take_places(task, linker)),
        };
    } else if linker.may_be_step
        && let Some(frame) = local.queue()
    {
        frame.list(task); // It has no accesses after all.
    }
    let closed = pool.is_closed_after_count(local);
    if closed || linker.failure.is_some() || linker.registers || extras.is_some() || refusal.is_some() {
        return launch_slowly(task, linker, extras, refusal, pool, local);
    }
    std::mem::forget((extras, refusal)); // Nothing; to drop it would be a call.
    let waiting = linker.waiting;
    if waiting == 0 && !known {
        task.state.queue_unshared();
        pool.enqueue_for_all(task, local);
    } else if waiting == 0 {
        // Nobody else counts it down. Release: who looks at its accesses sees them.
        task.pending.store(0, Release);
        task::ready(task);
    } else if task.pending.fetch_sub(BIAS - waiting, AcqRel) == BIAS - waiting {
        task::ready(task);
    }
}

/// A task that others may know already: by a token, a block, the registry.
#[cold]
#[inline(never)]
fn launch_slowly(
    task: RawTask,
    linker: &mut Linker,
    extras: Option<Box<Extras>>,
    refusal: Option<Box<Error>>,
    pool: &Pool,
    local: &Local,
) {
    let mut refused = None;
    let mut cancelled = false;
    if let Some(extras) = extras {
        #[cfg(feature = "store")]
        if let Some(save) = extras.save {
            // SAFETY: its value was not taken: the handle is still with the caller.
            save.attach(unsafe { AnyClaim::of(task) });
        }
        refused = extras.refused;
        cancelled = !task::tie(task, extras.ties, linker);
        if let Some(frame) = local.queue() {
            frame.add(task, linker);
        }
    }
    if linker.registers {
        task::register(task, pool, local);
    }
    if pool.is_closed_after_count(local) {
        task::end(task, |header| Error::Shutdown { root: header.info().into() });
    } else if cancelled {
        task::end(task, |header| Error::Cancelled { root: header.info().into() });
    } else if let Some(refusal) = refusal {
        task::end(task, |_| *refusal);
    } else if let Some(refused) = refused {
        task::end(task, |_| refused.into_error(task, pool));
    } else if let Some(error) = linker.failure.take() {
        task::end(task, |_| *error);
    }
    if task.pending.fetch_sub(BIAS - linker.waiting, AcqRel) == BIAS - linker.waiting {
        task::ready(task);
    }
}

/// Makes the tasks of a `bulk` that ends one step of the `in_order` block around it: a task that ends after all of
/// them, so that the next step needs one edge.
pub(crate) fn end_step(tasks: &[TaskRef]) {
    static SITE: CallSite = CallSite::new("end of bulk");
    let is_step = local::with(|local| local.queue().is_some_and(|queue| queue.is_step()));
    if is_step && !tasks.is_empty() {
        let after = After { tasks, ..After::NOTHING };
        submit(make::f0(|| ()).body(), Origin::joint(&SITE), None, after);
    }
}

/// A task that ends when the bodies of all these are gone, for which a block waits that ends. It belongs to no block.
pub(crate) fn end_of_block(tasks: &[TaskRef], ending: &Arc<Ending>) -> DTask<()> {
    static SITE: CallSite = CallSite::new("end of block");
    let after = After { tasks, ends: Some(ending) };
    outside_blocks(|| submit(make::f0(|| ()).body(), Origin::joint(&SITE), None, after))
}

/// Spawns a task that no block owns, with the options of none.
fn outside_blocks<T>(submit: impl FnOnce() -> DTask<T>) -> DTask<T>
where
    T: Send + Sync + 'static,
{
    local::with(|local| {
        let left = local.leave_blocks();
        let task = submit();
        drop(left);
        if let Some(frame) = local.queue() {
            frame.notice(task.id());
        }
        task
    })
}

/// Spawns a task for what goes on beside all blocks, in this runtime.
pub(crate) fn spawn_beside<B: Body<Output = ()>>(body: B, site: &'static CallSite, pool: &Pool) {
    local::with(|local| {
        let _entered = local.enter_runtime(pool);
        outside_blocks(|| submit(body, Origin::call(site), None, After::NOTHING));
    });
}

/// Gives a chunk the value of a task.
pub(crate) fn fill<T: Send + Sync + 'static>(
    task: DTask<T>,
    fill: Fill<'_, T>,
    site: &'static Location<'static>,
) {
    let call = make::f2(
        |value: T, slot: &mut MaybeUninit<T>| {
            slot.write(value);
        },
        task,
        fill,
    );
    outside_blocks(|| submit(call.body(), Origin::filled(site), None, After::NOTHING));
}

#[cfg(all(test, not(dagger_loom)))]
#[test]
fn a_body_that_is_given_is_dropped_once_whether_or_not_it_is_taken() {
    let body = Arc::new(());
    let mut taken = ManuallyDrop::new(body.clone());
    // SAFETY: not used again.
    let taken = unsafe { Given::new(&mut taken) }.take();
    assert_eq!(Arc::strong_count(&body), 2);
    drop(taken);
    assert_eq!(Arc::strong_count(&body), 1);
    let mut left = ManuallyDrop::new(body.clone());
    // SAFETY: not used again.
    drop(unsafe { Given::new(&mut left) });
    assert_eq!(Arc::strong_count(&body), 1);
}
