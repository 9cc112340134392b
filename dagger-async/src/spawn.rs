//! Submitting a task: from a body and options to a cell that waits or is queued.
//!
//! ```text
//!   body ─▶ cell (pending = BIAS) ─▶ link inputs ─▶ pending −= BIAS − waiting ─▶ 0? queue it
//! ```
//! 1. Until the bias is taken off no input can start the task, so linking needs no lock of the task.
//! 2. A task without unfinished inputs that nobody else knows (it has no place at a chunk) is queued without a locked
//!    operation on it.
//! 3. Submitting never waits and never fails: what is wrong is the outcome of the task.

use crate::call::{Body, Fill, FutureBody, TryIntoFuture, fallible, make};
use crate::chunk::{self, Ticket};
use crate::error::Error;
use crate::options::{self, Options, Refused, Spec, Ties};
use crate::pool::{Local, Pool, local, window};
use crate::record;
use crate::runtime;
use crate::task::{self, CallSite, Claim, DTask, Linker, Origin, RawTask, TaskRef};
use dagger_core::Scope;
use std::error::Error as StdError;
use std::future::IntoFuture;
use std::mem::MaybeUninit;
use std::panic::Location;
use std::sync::atomic::Ordering::AcqRel;

/// More inputs than a task can have.
const BIAS: u32 = 1 << 31;

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
    submit(FutureBody(future.into_future()), Origin::Future(Location::caller()), options)
}

#[track_caller]
pub(crate) fn try_spawn_future<F>(future: F, options: Option<Options>) -> DTask<F::Ok>
where
    F: TryIntoFuture,
    F::Future: Send + 'static,
    F::Ok: Send + Sync + 'static,
    F::Err: Into<Box<dyn StdError + Send + Sync>>,
{
    submit(fallible(FutureBody(future.try_into_future())), Origin::Future(Location::caller()), options)
}

/// Submits a call; the end of what `spawn!` expands to.
#[doc(hidden)]
pub fn submit_call<B>(body: B, site: &'static CallSite, options: Option<Options>) -> DTask<B::Output>
where
    B: Body,
    B::Output: Send + Sync + 'static,
{
    submit(body, Origin::Call(site), options)
}

fn submit<B>(body: B, origin: Origin, inline: Option<Options>) -> DTask<B::Output>
where
    B: Body,
    B::Output: Send + Sync + 'static,
{
    submit_after(body, origin, inline, &[])
}

/// Submits a task that also comes after these, however they end.
fn submit_after<B>(body: B, origin: Origin, inline: Option<Options>, after: &[TaskRef]) -> DTask<B::Output>
where
    B: Body,
    B::Output: Send + Sync + 'static,
{
    local::with(|local| {
        let pool = local.pool().unwrap_or_else(|| runtime::default_pool());
        let mut scopes = None;
        body.scope(&mut scopes);
        let (spec, extras) = if inline.is_none() && local.is_plain() && scopes.is_none() && after.is_empty() {
            (None, None)
        } else {
            let (spec, mut ties, refused) = resolve(inline, scopes, pool, local);
            for task in after {
                ties.order_after(task.clone());
            }
            (Some(Box::new(spec)), Some((ties, refused)))
        };
        let task = RawTask::new(body, pool, origin, spec, BIAS);
        record::spawned(&task, pool);
        // Before anything can end it.
        pool.spawned(local);
        if let Some(frame) = local.queue() {
            frame.own(task);
        }
        // SAFETY: the cell starts with one claim, which is the handle's.
        let handle = DTask::new(unsafe { Claim::<B::Output>::adopt(task) });
        let mut linker = Linker::new(task);
        task.link_body::<B>(&mut linker);
        let bounded = linker.accesses.is_some() || local.queue().is_some_and(|frame| frame.is_in_block());
        let inline = local.layer().is_some_and(|layer| layer.runs_inline());
        // A body that may be suspended runs on a worker: what it awaits may need this thread's Tokio context to go on.
        let here = inline && B::IMMEDIATE;
        linker.waiting += u32::from(here); // Kept back from the workers.
        let kept = inline.then(|| TaskRef::new(task));
        launch(task, &mut linker, extras, pool, local);
        if let Some(kept) = kept {
            task::run_inline(kept, here);
        } else if bounded && local.place().is_none() && local.task().is_none() {
            window::wait_for_room(pool);
        }
        handle
    })
}

fn resolve(
    inline: Option<Options>,
    scopes: Option<Scope>,
    pool: &Pool,
    local: &Local,
) -> (Spec, Ties, Option<Refused>) {
    let layer = local.layer().cloned();
    let options = match (inline, &layer) {
        (Some(inline), Some(layer)) => Options::merge(&inline, layer),
        (Some(inline), None) => inline,
        (None, Some(layer)) => Options::clone(layer),
        (None, None) => Options::new(),
    };
    let (spec, mut ties, refused) = options::resolve(options, layer, scopes, pool);
    if let Some(frame) = local.queue() {
        frame.order(&mut ties, local.layer().is_some_and(|layer| layer.is_linear()));
    }
    (spec, ties, refused)
}

/// Takes the places of a task in the queues of the chunks that it accesses.
fn take_places(task: RawTask, linker: &mut Linker) -> Option<Error> {
    let mut accesses = linker.accesses.take();
    let taken = match (linker.refused.take(), &mut accesses) {
        (Some(refusal), _) => Err(*refusal),
        (None, Some(accesses)) => chunk::take_places(accesses, task.pool, |_| Ticket::Task(task)),
        (None, None) => return None,
    };
    // Also those of a refused task: its arguments point to the chunks.
    task.keep_accesses(accesses);
    match taken {
        Ok(taken) => {
            linker.waiting += taken.waiting;
            linker.registers |= taken.foreign;
            None
        }
        Err(refusal) => Some(refusal.into_error(Some(task.info().into()))),
    }
}

fn launch(
    task: RawTask,
    linker: &mut Linker,
    extras: Option<(Ties, Option<Refused>)>,
    pool: &Pool,
    local: &Local,
) {
    let mut refusal = None;
    let known = linker.accesses.is_some();
    if known || linker.refused.is_some() {
        refusal = take_places(task, linker);
    }
    let closed = pool.is_closed_after_count(local);
    if closed || linker.failure.is_some() || linker.registers || extras.is_some() || refusal.is_some() {
        return launch_slowly(task, linker, extras, refusal, pool, local);
    }
    if linker.waiting == 0 && !known {
        task.state.queue_unshared();
        pool.enqueue(task, local);
    } else if task.pending.fetch_sub(BIAS - linker.waiting, AcqRel) == BIAS - linker.waiting {
        task::ready(task);
    }
}

/// A task that others may know already: by a token, a block, the registry.
#[cold]
fn launch_slowly(
    task: RawTask,
    linker: &mut Linker,
    extras: Option<(Ties, Option<Refused>)>,
    refusal: Option<Error>,
    pool: &Pool,
    local: &Local,
) {
    let mut refused = None;
    let mut cancelled = false;
    if let Some((ties, refusal)) = extras {
        refused = refusal;
        cancelled = !task::tie(task, ties, linker);
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
        task::end(task, |_| refusal);
    } else if let Some(refused) = refused {
        task::end(task, |_| refused.into_error(task, pool));
    } else if let Some(error) = linker.failure.take() {
        task::end(task, |_| error);
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
        submit_after(make::f0(|| ()), Origin::Call(&SITE), None, tasks);
    }
}

/// A task that ends when the bodies of all these are gone. It belongs to no block.
pub(crate) fn end_of_block(tasks: &[TaskRef]) -> DTask<()> {
    static SITE: CallSite = CallSite::new("end of block");
    outside_blocks(|| submit_after(make::f0(|| ()), Origin::Call(&SITE), None, tasks))
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

/// Gives a chunk the value of a task.
pub(crate) fn fill<T: Send + Sync + 'static>(
    task: DTask<T>,
    fill: Fill<'_, T>,
    site: &'static Location<'static>,
) {
    let body = make::f2(
        |value: T, slot: &mut MaybeUninit<T>| {
            slot.write(value);
        },
        task,
        fill,
    );
    outside_blocks(|| submit(body, Origin::Named("Chunk::from_task", site), None));
}
