//! [`Options`]: where, when and under which name a task runs; and what of it a task keeps.

use crate::cancel::CancelToken;
use crate::error::Error;
use crate::pool::Pool;
use crate::pool::domain::Domain;
use crate::task::{DTask, Edge, RawTask, SyncDep, TaskRef};
use dagger_core::{OptionSet, Scope};
use std::error::Error as StdError;
use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

/// Options of a task.
///
/// Given inline (`spawn!(f(x); name = "a", priority = 2)`), as a value (`spawn!(f(x); ..options)`,
/// [`options.spawn(future)`](Options::spawn)) or for everything spawned inside a block
/// ([`with_options`](crate::with_options)). Inline beats the block, the inner block the outer one; `syncdeps` and
/// `cancel` add up.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let options = Options::new().name("sum-task").scope(Scope::thread(0)).priority(5);
/// let task = spawn!((|a, b| a + b)(10, 32); ..options);
/// assert_eq!(task.name(), "sum-task");
/// assert_eq!(task.await?, 42);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
#[must_use = "options do nothing until a task is spawned with them"]
pub struct Options {
    set: OptionSet,
    syncdeps: Vec<TaskRef>,
    cancel: Vec<CancelToken>,
    linear: bool,
    inline: bool,
}

impl Options {
    /// No options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the task in errors, logs and pictures.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.set.name = Some(name.into());
        self
    }

    /// The processors that it may run on. Default: every CPU thread of the runtime.
    pub fn scope(mut self, scope: Scope) -> Self {
        self.set.scope = Some(scope);
        self
    }

    /// Where its result may be used: the task itself, and every task that takes the result as argument, run there.
    pub fn result_scope(mut self, scope: Scope) -> Self {
        self.set.result_scope = Some(scope);
        self
    }

    /// Among ready tasks the larger priority goes first. Default 0. It does not pass to tasks that it waits for.
    pub fn priority(mut self, priority: i32) -> Self {
        self.set.priority = Some(priority);
        self
    }

    /// Tasks to wait for without using their values. May be repeated; a failed one fails the task.
    pub fn syncdeps<'a, T, I>(mut self, tasks: I) -> Self
    where
        T: Send + Sync + 'static,
        I: IntoIterator<Item = &'a DTask<T>>,
    {
        self.syncdeps.extend(tasks.into_iter().map(|task| TaskRef::new(task.raw())));
        self
    }

    /// The time that the task has, counted from its first start over suspensions and retries. When it is over the handles
    /// give [`Error::TimedOut`]; an async body is dropped, a running function is not interrupted.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.set.timeout = Some(timeout);
        self
    }

    /// A token that cancels the task. Several add up.
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel.push(token);
        self
    }

    /// The body may block its thread (files, foreign locks): it runs on a thread beside the pinned workers.
    pub fn blocking(mut self, blocking: bool) -> Self {
        self.set.blocking = Some(blocking);
        self
    }

    /// Each task of a datadeps block runs after the one before, for debugging: if that changes the result, a declaration
    /// is wrong. Give it to [`with_options`](crate::with_options) around [`datadeps`](crate::datadeps()).
    pub fn linear(mut self) -> Self {
        self.linear = true;
        self
    }

    /// Each spawn returns when its task has ended, one after the other. A function runs on the spot, on the thread that spawns,
    /// so that a debugger shows who spawned it; an async body, and a function whose inputs are not there yet, run on a
    /// worker while the thread waits. Give it to [`with_options`](crate::with_options).
    pub fn inline(mut self) -> Self {
        self.inline = true;
        self
    }

    pub(crate) fn is_linear(&self) -> bool {
        self.linear
    }

    pub(crate) fn runs_inline(&self) -> bool {
        self.inline
    }

    /// Spawns a future with these options; see [`spawn`](crate::spawn()).
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> DTask<F::Output>
    where
        F: IntoFuture,
        F::IntoFuture: Send + 'static,
        F::Output: Send + Sync + 'static,
    {
        crate::spawn::spawn_future(future, Some(self))
    }

    /// Spawns a future whose `Err` fails the task with these options; see [`try_spawn`](crate::try_spawn).
    #[track_caller]
    pub fn try_spawn<F>(self, future: F) -> DTask<F::Ok>
    where
        F: crate::TryIntoFuture,
        F::Future: Send + 'static,
        F::Ok: Send + Sync + 'static,
        F::Err: Into<Box<dyn StdError + Send + Sync>>,
    {
        crate::spawn::try_spawn_future(future, Some(self))
    }

    /// `inner` over `outer`.
    pub(crate) fn merge(inner: &Options, outer: &Options) -> Options {
        let both = |inner: &[TaskRef], outer: &[TaskRef]| inner.iter().chain(outer).cloned().collect();
        Options {
            set: OptionSet::merge(&inner.set, &outer.set),
            syncdeps: both(&inner.syncdeps, &outer.syncdeps),
            cancel: inner.cancel.iter().chain(&outer.cancel).cloned().collect(),
            linear: inner.linear || outer.linear,
            inline: inner.inline || outer.inline,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let syncdeps: Vec<_> = self.syncdeps.iter().map(|task| task.info()).collect();
        f.debug_struct("Options")
            .field("set", &self.set)
            .field("syncdeps", &syncdeps)
            .field("cancel", &self.cancel)
            .field("linear", &self.linear)
            .field("inline", &self.inline)
            .finish()
    }
}

/// What a task keeps of its options for as long as anybody refers to it.
pub(crate) struct Spec {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) placement: Placement,
    pub(crate) timeout: Option<Duration>,
    pub(crate) result_scope: Option<Scope>,
}

/// What a task keeps of its options until it is retired: they refer to other tasks.
pub(crate) struct Ties {
    pub(crate) tokens: Vec<CancelToken>,
    pub(crate) layer: Option<Arc<Options>>,
    pub(crate) syncdeps: Vec<SyncDep>,
}

impl Ties {
    /// The task has to do with no other, and no option to hand on.
    pub(crate) fn are_empty(&self) -> bool {
        self.tokens.is_empty() && self.layer.is_none() && self.syncdeps.is_empty()
    }

    /// Makes the task wait for another one's end, however it ends.
    pub(crate) fn order_after(&mut self, task: TaskRef) {
        self.syncdeps.push(SyncDep { task, edge: Edge::order_only() });
    }
}

/// Which queue a task goes to.
#[derive(Default)]
pub(crate) struct Placement {
    /// `None`: any worker.
    pub(crate) domain: Option<Arc<Domain>>,
    pub(crate) priority: i32,
    pub(crate) blocking: bool,
}

impl Placement {
    /// Any worker, in the order of arrival.
    pub(crate) fn is_plain(&self) -> bool {
        self.domain.is_none() && !self.blocking
    }
}

/// Options that cannot be met: the task fails with them.
pub(crate) enum Refused {
    NoProcessor { asked: Scope },
    Contradiction(String),
}

/// Resolves options against a pool. `inputs` is where the results of the task's arguments may be used.
pub(crate) fn resolve(
    options: Options,
    layer: Option<Arc<Options>>,
    inputs: Option<Scope>,
    pool: &Pool,
) -> (Spec, Ties, Option<Refused>) {
    let Options { set, syncdeps, cancel, .. } = options;
    let (placement, refused) = match place(&set, inputs, pool) {
        Ok(placement) => (placement, None),
        Err(refused) => (Placement::default(), Some(refused)),
    };
    let spec = Spec { name: set.name, placement, timeout: set.timeout, result_scope: set.result_scope };
    let syncdeps = syncdeps.into_iter().map(|task| SyncDep { task, edge: Edge::new() }).collect();
    (spec, Ties { tokens: cancel, layer, syncdeps }, refused)
}

fn place(set: &OptionSet, inputs: Option<Scope>, pool: &Pool) -> Result<Placement, Refused> {
    let priority = set.priority.unwrap_or(0);
    let blocking = set.blocking.unwrap_or(false);
    let restricted = set.scope.is_some() || set.result_scope.is_some() || inputs.is_some();
    if !restricted {
        let domain = (priority != 0 && !blocking).then(|| pool.domains.everyone());
        return Ok(Placement { domain, priority, blocking });
    }
    let asked = match inputs {
        Some(inputs) => set.execution_scope() & inputs,
        None => set.execution_scope(),
    };
    let fitting = pool.processors.iter().enumerate().filter(|(_, processor)| asked.contains(processor));
    let workers: Vec<usize> = fitting.map(|(index, _)| index).collect();
    if workers.is_empty() {
        return Err(Refused::NoProcessor { asked });
    }
    let everyone = workers.len() == pool.processors.len();
    if blocking && !everyone {
        return Err(Refused::Contradiction(format!(
            "`blocking` runs the body beside the pinned workers, which contradicts the scope {asked}: leave one of \
             them out"
        )));
    }
    let domain = (!blocking && (priority != 0 || !everyone)).then(|| pool.domains.of(&workers));
    Ok(Placement { domain, priority, blocking })
}

impl Refused {
    /// The error of the task that cannot be placed.
    pub(crate) fn into_error(self, task: RawTask, pool: &Pool) -> Error {
        let root = task.info().into();
        match self {
            Refused::Contradiction(message) => Error::Options { root: Some(root), message: message.into() },
            Refused::NoProcessor { asked } => {
                let reason = |processor: &_| asked.explain(processor).unwrap_or_default();
                let processors = pool.processors.iter().map(|p| (p.clone(), reason(p))).collect();
                Error::NoProcessor { root, asked, processors }
            }
        }
    }
}
