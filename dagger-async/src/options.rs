//! [`Options`]: where, when and under which name a task runs; and what of it a task keeps.

use crate::cancel::CancelToken;
use crate::error::Error;
use crate::plan::Timed;
use crate::pool::Pool;
use crate::pool::domain::{DomainKey, Lane};
use crate::scoped::Ending;
use crate::task::{DTask, Edge, Kept, RawTask, SyncDep, TaskRef};
use dagger_core::{OptionSet, Scope, TaskName};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::future::IntoFuture;
use std::ops::Deref;
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
    #[cfg(feature = "store")]
    checkpoint: Checkpoint,
}

/// What a task was told of its checkpoint.
#[cfg(feature = "store")]
#[derive(Clone, Default)]
pub(crate) struct Checkpoint {
    /// Of this task alone: not merged.
    pub(crate) key: Option<Arc<str>>,
    pub(crate) version: Option<Arc<str>>,
    /// Why it cannot have one.
    pub(crate) refused: Option<String>,
}

impl Options {
    /// No options.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the task in errors, logs and pictures.
    #[inline]
    pub fn name(self, name: impl Into<Arc<str>>) -> Self {
        self.named(TaskName::Shared(name.into()))
    }

    /// As [`name`](Self::name): what `spawn!` makes of a literal, of which no copy is made.
    #[doc(hidden)]
    #[inline]
    pub fn named(mut self, name: TaskName) -> Self {
        self.set.name = Some(name);
        self
    }

    /// The processors that it may run on. Default: every CPU thread of the runtime.
    #[inline]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.set.scope = Some(scope);
        self
    }

    /// Where its result may be used: the task itself, and every task that takes the result as argument, run there.
    #[inline]
    pub fn result_scope(mut self, scope: Scope) -> Self {
        self.set.result_scope = Some(scope);
        self
    }

    /// Among ready tasks the larger priority goes first. Default 0. It does not pass to tasks that it waits for.
    #[inline]
    pub fn priority(mut self, priority: i32) -> Self {
        self.set.priority = Some(priority);
        self
    }

    /// Among ready tasks of the same priority the larger rank goes first: 0 to 8, more counts as 8. Default 0.
    ///
    /// It says how much waits for a task, in comparison with others of the same program; a priority, how urgent all of that is.
    /// Tasks of the same priority with a rank and without one have their turns alternately.
    ///
    /// ```
    /// use dagger_async::prelude::*;
    /// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
    /// async fn library() -> dagger_async::Result<i32> {
    ///     spawn!((|| 42)(); rank = 3).await
    /// }
    /// with_options(Options::new().priority(-1), library()).await?; // after what is urgent, and there by its rank
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn rank(mut self, rank: u8) -> Self {
        self.set.rank = Some(rank.min(RANK_MAX));
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
    #[inline]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.set.timeout = Some(timeout);
        self
    }

    /// A token that cancels the task. Several add up.
    #[inline]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel.push(token);
        self
    }

    /// The body may block its thread (files, foreign locks): it runs on a thread beside the pinned workers.
    #[inline]
    pub fn blocking(mut self, blocking: bool) -> Self {
        self.set.blocking = Some(blocking);
        self
    }

    /// Bytes of memory that the task needs while it runs, beside the chunks that it accesses: what it makes, and scratch. It
    /// starts when they fit in what [`Builder::memory_limit`](crate::Builder::memory_limit) leaves.
    #[cfg(feature = "store")]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.set.memory = Some(bytes);
        self
    }

    /// Keeps the result of the task in the store of [`Builder::checkpoint_to`](crate::Builder::checkpoint_to) under this key: a
    /// later run of the program that finds it there gives it to the task, whose body is not called then. See
    /// [`checkpoints`](crate::store#checkpoints).
    ///
    /// The key names this one task. Any text will do; `/` makes folders. Given to [`with_options`](crate::with_options) it does
    /// nothing, since it cannot name all tasks of a block.
    ///
    /// ```
    /// use dagger_async::prelude::*;
    /// # fn main() -> dagger_async::Result<()> {
    /// let rt = Runtime::builder().threads(2).checkpoint_to(object_store::memory::InMemory::new()).build()?;
    /// rt.block_on(async {
    ///     let parts = datadeps(async {
    ///         let part = |i: u64| spawn!((|i| vec![i; 3])(i); checkpoint = format!("parts/{i}"));
    ///         (0..4).map(part).collect::<Vec<_>>()
    ///     });
    ///     let parts = parts.await?;
    ///     assert_eq!(rt.checkpoints().saved, 4); // A block that has ended has its checkpoints written.
    ///     assert_eq!((&parts[2]).await?[..], [2, 2, 2]);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    #[cfg(feature = "store")]
    pub fn checkpoint(mut self, key: impl Into<Arc<str>>) -> Self {
        self.checkpoint.key = Some(key.into());
        self
    }

    /// The version of what computes results that are kept by [`checkpoint`](Self::checkpoint): results of another version are
    /// not used. Default: that of [`Builder::checkpoint_version`](crate::Builder::checkpoint_version).
    #[cfg(feature = "store")]
    pub fn checkpoint_version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.checkpoint.version = Some(version.into());
        self
    }

    #[cfg(feature = "store")]
    pub(crate) fn of_checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The task cannot have its checkpoint: it fails with this.
    #[cfg(feature = "store")]
    pub(crate) fn refuse(&mut self, why: String) {
        self.checkpoint.refused = Some(why);
    }

    #[cfg(feature = "store")]
    pub(crate) fn has_name(&self) -> bool {
        self.set.name.is_some()
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

    /// No task and no token: nothing that would be kept by it.
    fn refers_to_nobody(&self) -> bool {
        self.syncdeps.is_empty() && self.cancel.is_empty()
    }

    /// As if this rank were given in the outermost block.
    pub(crate) fn rank_if_none(&mut self, rank: u8) {
        self.set.rank.get_or_insert(rank);
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
            #[cfg(feature = "store")]
            checkpoint: Checkpoint {
                version: inner.checkpoint.version.as_ref().or(outer.checkpoint.version.as_ref()).cloned(),
                ..inner.checkpoint.clone()
            },
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let syncdeps: Vec<_> = self.syncdeps.iter().map(|task| task.info()).collect();
        let mut fields = f.debug_struct("Options");
        fields.field("set", &self.set).field("syncdeps", &syncdeps).field("cancel", &self.cancel);
        fields.field("linear", &self.linear).field("inline", &self.inline);
        #[cfg(feature = "store")]
        fields
            .field("checkpoint", &self.checkpoint.key)
            .field("checkpoint_version", &self.checkpoint.version);
        fields.finish()
    }
}

/// What a task keeps of its options for as long as anybody refers to it. Nothing in it is a user's, or leads to another task: it is
/// dropped where user code must not run.
pub(crate) struct Spec {
    name: Option<TaskName>,
    pub(crate) placement: Placement,
    pub(crate) timeout: Option<Duration>,
    pub(crate) result_scope: Option<Scope>,
    #[cfg(feature = "store")]
    pub(crate) memory: Option<u64>,
    /// It is noted how long it takes.
    pub(crate) timed: Option<Timed>,
    pub(crate) inherited: Inherited,
}

/// The options of the block that a task was spawned in: its children inherit them.
pub(crate) enum Inherited {
    Nothing,
    /// They refer to nobody.
    Options(Arc<Options>),
    /// They refer to others, and are among the task's [`Ties`].
    WithTies,
}

/// What a task keeps of its options until it is retired: they refer to other tasks.
pub(crate) struct Ties {
    pub(crate) tokens: Vec<CancelToken>,
    /// What its children inherit, if that refers to others.
    pub(crate) inherited: Option<Arc<Options>>,
    pub(crate) syncdeps: Vec<SyncDep>,
    /// The block that waits for it.
    pub(crate) ends: Option<Arc<Ending>>,
}

#[cfg(feature = "store")]
impl Spec {
    /// That of a task of the runtime's own, which goes before those of the user.
    pub(crate) fn first(name: TaskName, pool: &Pool) -> Spec {
        let priority = i32::MAX;
        let placement = Placement { domain: Some(pool.domains.everyone()), priority, ..Placement::default() };
        Spec {
            name: Some(name),
            placement,
            timeout: None,
            result_scope: None,
            memory: None,
            timed: None,
            inherited: Inherited::Nothing,
        }
    }
}

impl Spec {
    /// The name that it was given, or that of its block.
    pub(crate) fn name(&self) -> Option<&TaskName> {
        self.name.as_ref().or_else(|| match &self.inherited {
            Inherited::Options(options) => options.set.name.as_ref(),
            Inherited::Nothing | Inherited::WithTies => None,
        })
    }

    /// It says more than a name and how urgent the task is.
    pub(crate) fn is_bound(&self) -> bool {
        #[cfg(feature = "store")]
        let has_memory = self.memory.is_some();
        #[cfg(not(feature = "store"))]
        let has_memory = false;
        let is_placed =
            self.placement.blocking || self.placement.is_restricted || self.result_scope.is_some();
        is_placed || self.timeout.is_some() || has_memory
    }
}

impl Ties {
    /// The task has to do with no other, and hands on no option that has.
    pub(crate) fn are_empty(&self) -> bool {
        self.tokens.is_empty() && self.inherited.is_none() && self.syncdeps.is_empty() && self.ends.is_none()
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
    pub(crate) domain: Option<DomainKey>,
    pub(crate) priority: i32,
    rank: u8,
    pub(crate) blocking: bool,
    /// A scope says where.
    is_restricted: bool,
}

/// The largest rank. Each lane has its turn once in 61 picks, so many of them would be no order.
pub(crate) const RANK_MAX: u8 = 8;

impl Placement {
    pub(crate) fn lane(&self) -> Lane {
        Lane::of(self.priority, self.rank)
    }

    /// Any worker, in the order of arrival.
    pub(crate) fn is_plain(&self) -> bool {
        self.domain.is_none() && !self.blocking
    }
}

/// Options that cannot be met: the task fails with them.
pub(crate) enum Refused {
    NoProcessor { asked: Scope, stated: Vec<(&'static str, Scope)> },
    Contradiction(String),
}

/// The options of a task that is being spawned, taken apart where they lie: they are large.
pub(crate) enum Stated<'a> {
    /// Its own, merged with those of its block.
    Own(&'a mut Options),
    /// Those of its block alone, which it keeps.
    OfBlock(&'a Options),
}

impl Deref for Stated<'_> {
    type Target = Options;
    fn deref(&self) -> &Options {
        match self {
            Stated::Own(options) => options,
            Stated::OfBlock(options) => options,
        }
    }
}

/// Resolves options against a pool. `layer` is what the task hands on; `inputs`, where the results of its arguments may be used.
pub(crate) fn resolve(
    options: Stated<'_>,
    layer: Option<&Arc<Options>>,
    inputs: Option<Scope>,
    pool: &Pool,
) -> (Kept<Spec>, Ties, Option<Refused>) {
    #[cfg(feature = "store")]
    let contradiction = options.checkpoint.refused.clone().map(Refused::Contradiction);
    #[cfg(not(feature = "store"))]
    let contradiction = None;
    let (placement, refused) = match place(&options.set, inputs, pool) {
        Ok(placement) => (placement, contradiction),
        Err(refused) => (Placement::default(), Some(refused)),
    };
    let (inherited, tied) = match layer {
        None => (Inherited::Nothing, None),
        Some(layer) if layer.refers_to_nobody() => (Inherited::Options(layer.clone()), None),
        Some(layer) => (Inherited::WithTies, Some(layer.clone())),
    };
    let timeout = options.set.timeout;
    #[cfg(feature = "store")]
    let memory = options.set.memory.filter(|&bytes| bytes != 0);
    let (name, result_scope, syncdeps, tokens) = match options {
        Stated::Own(options) => (
            options.set.name.take(),
            options.set.result_scope.take(),
            std::mem::take(&mut options.syncdeps),
            std::mem::take(&mut options.cancel),
        ),
        // Its name is found in what is inherited, where that is kept with the task.
        Stated::OfBlock(options) => (
            options.set.name.as_ref().filter(|_| !matches!(inherited, Inherited::Options(_))).cloned(),
            options.set.result_scope.clone(),
            options.syncdeps.clone(),
            options.cancel.clone(),
        ),
    };
    let spec = Kept::new(Spec {
        name,
        placement,
        timeout,
        result_scope,
        #[cfg(feature = "store")]
        memory,
        timed: None,
        inherited,
    });
    let syncdeps = syncdeps.into_iter().map(|task| SyncDep { task, edge: Edge::new() }).collect();
    (spec, Ties { tokens, inherited: tied, syncdeps, ends: None }, refused)
}

fn place(set: &OptionSet, inputs: Option<Scope>, pool: &Pool) -> Result<Placement, Refused> {
    let (priority, rank) = (set.priority.unwrap_or(0), set.rank.unwrap_or(0));
    let is_common = priority == 0 && rank == 0;
    let blocking = set.blocking.unwrap_or(false);
    let restricted = set.scope.is_some() || set.result_scope.is_some() || inputs.is_some();
    if !restricted {
        let domain = (!is_common && !blocking).then(|| pool.domains.everyone());
        return Ok(Placement { domain, priority, rank, blocking, is_restricted: false });
    }
    let asked = match (&set.scope, &set.result_scope, &inputs) {
        (Some(scope), None, None) => Cow::Borrowed(scope),
        (.., Some(inputs)) => Cow::Owned(set.execution_scope() & inputs.clone()),
        (.., None) => Cow::Owned(set.execution_scope()),
    };
    let fitting = pool.processors.iter().enumerate().filter(|(_, processor)| asked.contains(processor));
    let workers: SmallVec<[usize; 16]> = fitting.map(|(index, _)| index).collect();
    if workers.is_empty() {
        let asked = asked.into_owned();
        let stated = [
            ("its scope", set.scope.clone()),
            ("its result scope", set.result_scope.clone()),
            ("what it takes", inputs),
        ];
        let stated = stated.into_iter().filter_map(|(what, scope)| Some((what, scope?))).collect();
        return Err(Refused::NoProcessor { asked, stated });
    }
    let everyone = workers.len() == pool.processors.len();
    if blocking && !everyone {
        return Err(Refused::Contradiction(format!(
            "`blocking` runs the body beside the pinned workers, which contradicts the scope {asked}: leave one of \
             them out"
        )));
    }
    let domain = (!blocking && (!is_common || !everyone)).then(|| pool.domains.of(&workers));
    Ok(Placement { domain, priority, rank, blocking, is_restricted: true })
}

impl Refused {
    /// The error of the task that cannot be placed.
    pub(crate) fn into_error(self, task: RawTask, pool: &Pool) -> Error {
        let root = task.info().into();
        match self {
            Refused::Contradiction(message) => Error::Options { root: Some(root), message: message.into() },
            Refused::NoProcessor { asked, stated } => {
                // Of what was stated, rather than of what that has in common, which may be nothing at all.
                let excludes = |processor: &_| stated.iter().find_map(|(_, scope)| scope.explain(processor));
                let reason = |processor: &_| excludes(processor).or_else(|| asked.explain(processor));
                let reason = |processor: &_| reason(processor).unwrap_or_default();
                let processors = pool.processors.iter().map(|p| (p.clone(), reason(p))).collect();
                Error::NoProcessor { root, asked, stated: stated.into(), processors }
            }
        }
    }
}
