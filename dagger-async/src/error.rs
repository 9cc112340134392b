//! What can go wrong with a task, and where it began.
//!
//! Every failure has a [`Root`]: the task that failed first, with its name, id and spawn site. Tasks that depended
//! on it get [`Error::Dependency`] with that same root, however far down the graph they are.

use crate::task::TaskId;
use dagger_core::{Outside, Processor, Scope};
use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// The result of a task.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a task has no result.
///
/// Cheap to clone. Match variants with `{ .. }`; fields and variants may be added.
#[derive(Clone)]
#[non_exhaustive]
pub enum Error {
    /// The task's function returned `Err` (spawned with `?`, or by [`try_spawn`](crate::try_spawn)).
    /// [`Error::downcast_ref`] finds the user's error.
    #[non_exhaustive]
    Task {
        /// The task that failed: this one.
        root: Root,
        /// What its function returned.
        error: Arc<dyn StdError + Send + Sync>,
    },
    /// The task's function panicked.
    #[non_exhaustive]
    Panicked {
        /// The task that panicked: this one.
        root: Root,
        /// The text of the panic.
        text: PanicText,
    },
    /// A task that this one depends on failed, so this one never ran.
    #[non_exhaustive]
    Dependency {
        /// The task that failed first.
        root: Root,
        /// The task that did not run because of it.
        task: TaskInfo,
        /// The error of the root.
        cause: Arc<Error>,
    },
    /// The task was cancelled: by its handle, by a [`CancelToken`](crate::CancelToken), or with the block that owned it.
    #[non_exhaustive]
    Cancelled {
        /// The task that was cancelled.
        root: Root,
    },
    /// The task took longer than its `timeout`.
    #[non_exhaustive]
    TimedOut {
        /// The task that was too slow.
        root: Root,
        /// The limit that it had, counted from its first start.
        after: Duration,
    },
    /// No processor of the runtime is in the task's scope. The text lists each processor with the reason.
    #[non_exhaustive]
    NoProcessor {
        /// The task that has nowhere to run.
        root: Root,
        /// What was asked for: what is in all that was stated.
        asked: Scope,
        /// What was stated, and where: the scope, the result scope, the scope of the chunks and results that it takes.
        stated: Arc<[(&'static str, Scope)]>,
        /// The processors that there are, each with the reason why it does not fit.
        processors: Arc<[(Processor, String)]>,
    },
    /// Waiting here would never end: the awaited task waits, directly or through others, for the waiting one.
    /// The awaited task has not failed; it goes on when the waiting one ends.
    #[non_exhaustive]
    Deadlock {
        /// The task that wanted to wait (the awaited one, when the wait was not made by a task).
        root: Root,
        /// The cycle: each task waits for the next, the last for the first, or for the end of the `bulk` block inside which the wait
        /// would be.
        path: Arc<[TaskInfo]>,
        /// The last one waits for the end of that block.
        in_bulk: bool,
    },
    /// Two arguments of a task touch the same elements, and one of them writes. The task never ran and poisons nothing.
    /// Declare one access that covers both, or disjoint regions.
    #[non_exhaustive]
    Aliased {
        /// The task with these arguments; `None` for [`access`](crate::access).
        root: Option<Root>,
        /// The one argument: its position, counted from 1, its access mode and region.
        first: Arc<str>,
        /// The other one.
        second: Arc<str>,
    },
    /// A region reaches beyond its chunk, or has another rank. The task never ran and poisons nothing.
    #[non_exhaustive]
    OutOfBounds {
        /// The task with this argument; `None` for guards.
        root: Option<Root>,
        /// The region, as a Rust range where it is one.
        region: Arc<str>,
        /// What is wrong with it, with the length.
        outside: Outside,
    },
    /// The region holds data that a failed or cancelled task left half written. Overwrite it with a task that declares
    /// `Out`, or take [`Chunk::recover`](crate::Chunk::recover).
    #[non_exhaustive]
    Poisoned {
        /// The task that failed first.
        root: Root,
        /// Its error.
        cause: Arc<Error>,
    },
    /// The chunk was placed in another runtime (by [`Chunk::new_in`](crate::Chunk::new_in)), where this task cannot run.
    #[non_exhaustive]
    Foreign {
        /// The task; `None` for guards.
        root: Option<Root>,
        /// The type of what is in the chunk.
        chunk: &'static str,
    },
    /// The runtime was shut down before the task ended, or before it was spawned.
    #[non_exhaustive]
    Shutdown {
        /// The task that was ended.
        root: Root,
    },
    /// Options that contradict each other or cannot be met. For a task: it never ran.
    #[non_exhaustive]
    Options {
        /// The task with these options; `None` for those of a runtime.
        root: Option<Root>,
        /// Which option, and what to do.
        message: Arc<str>,
    },
    /// The value was moved out: of this handle by an earlier `.await` on it, or of the chunk by
    /// [`Chunk::into_inner`](crate::Chunk::into_inner).
    #[non_exhaustive]
    Taken {
        /// The task whose value is gone, or that finds the chunk empty; `None` for guards.
        root: Option<Root>,
    },
    /// The task needs more memory at once than the runtime may use: its chunks and what it declares together. The task never
    /// ran. Use smaller chunks, or raise [`Builder::memory_limit`](crate::Builder::memory_limit).
    #[cfg(feature = "store")]
    #[non_exhaustive]
    TooLarge {
        /// The task.
        root: Option<Root>,
        /// What it needs.
        bytes: u64,
        /// What there is.
        budget: u64,
    },
    /// The value of a chunk could not be brought back into memory. What was written of it is left where it is: the next
    /// access tries again.
    #[cfg(feature = "store")]
    #[non_exhaustive]
    Reload {
        /// The task that needed it; `None` for guards.
        root: Option<Root>,
        /// The chunk: its type, and where it was made.
        chunk: Arc<str>,
        /// The file or object.
        path: Arc<str>,
        /// What is wrong with it.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// There is no room in memory, and none could be made: the value of another chunk could not be written down. It is still
    /// in memory.
    #[cfg(feature = "store")]
    #[non_exhaustive]
    Spill {
        /// The task that needed the room.
        root: Option<Root>,
        /// The chunk that could not be written: its type, and where it was made.
        chunk: Arc<str>,
        /// The file or object.
        path: Arc<str>,
        /// Why not.
        source: Arc<dyn StdError + Send + Sync>,
    },
    /// A blocking wait inside a task needs a thread to take over its processor, and as many as allowed exist.
    /// Await instead of blocking, or raise [`Builder::spare_threads`](crate::Builder::spare_threads).
    #[non_exhaustive]
    TooManyThreads {
        /// The task that wanted to wait.
        root: Root,
        /// How many spare threads the runtime may have, or has when the system refuses another.
        limit: usize,
    },
}

/// The root of every variant that has one.
macro_rules! roots {
    ($error:expr, $as:ident) => {
        match $error {
            Error::Task { root, .. }
            | Error::Panicked { root, .. }
            | Error::Dependency { root, .. }
            | Error::Cancelled { root }
            | Error::TimedOut { root, .. }
            | Error::NoProcessor { root, .. }
            | Error::Deadlock { root, .. }
            | Error::Shutdown { root }
            | Error::Poisoned { root, .. }
            | Error::TooManyThreads { root, .. } => Some(root),
            Error::Options { root, .. }
            | Error::Aliased { root, .. }
            | Error::OutOfBounds { root, .. }
            | Error::Foreign { root, .. }
            | Error::Taken { root } => root.$as(),
            #[cfg(feature = "store")]
            Error::TooLarge { root, .. } | Error::Reload { root, .. } | Error::Spill { root, .. } => {
                root.$as()
            }
        }
    };
}

impl Error {
    /// The task that failed first; `None` for errors that belong to no task.
    pub fn root(&self) -> Option<&Root> {
        roots!(self, as_ref)
    }

    fn root_mut(&mut self) -> Option<&mut Root> {
        roots!(self, as_mut)
    }

    /// The user's error of type `E`, if that is what went wrong: looks through dependencies and through errors of
    /// tasks that were passed on by other tasks.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        let mut next: Option<&(dyn StdError + 'static)> = Some(self);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<E>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    /// The further failures of a block, after the one that it returned. Empty elsewhere.
    pub fn others(&self) -> &[Error] {
        self.root().and_then(|root| root.others.as_deref()).unwrap_or_default()
    }

    /// The same failure, with the further ones of a block. They lie in the root, which every failure of a task has.
    pub(crate) fn with_others(mut self, others: Vec<Error>) -> Error {
        if let (false, Some(root)) = (others.is_empty(), self.root_mut()) {
            root.others = Some(others.into());
        }
        self
    }

    /// The same failure, of this task.
    #[cfg(feature = "store")]
    pub(crate) fn with_root(&self, task: Root) -> Error {
        let mut error = self.clone();
        if let Error::TooLarge { root, .. } | Error::Reload { root, .. } | Error::Spill { root, .. } =
            &mut error
        {
            *root = Some(task);
        }
        error
    }

    /// The error of the task that failed first.
    pub(crate) fn of_root(&self) -> &Error {
        match self {
            Error::Dependency { cause, .. } | Error::Poisoned { cause, .. } => cause,
            error => error,
        }
    }

    /// The failure of `task` because of this failure of one of its inputs.
    pub(crate) fn passed_to(&self, task: impl FnOnce() -> TaskInfo) -> Error {
        match self {
            // Passed on by hand, as the result of a block: its root is what counts.
            Error::Poisoned { root, cause } => {
                Error::Dependency { root: root.clone(), task: task(), cause: cause.clone() }
            }
            Error::Dependency { root, cause, .. } => {
                Error::Dependency { root: root.clone(), task: task(), cause: cause.clone() }
            }
            // A runtime that ends has not failed: what waited in it ends the same way.
            Error::Shutdown { .. } => Error::Shutdown { root: task().into() },
            error => match error.root() {
                Some(root) => {
                    Error::Dependency { root: root.clone(), task: task(), cause: Arc::new(error.clone()) }
                }
                None => error.clone(),
            },
        }
    }

    /// An error that somebody asked for: not worth a line in the log when nobody looks.
    /// What was refused without a task to blame is this one's.
    pub(crate) fn or_of(mut self, task: impl FnOnce() -> TaskInfo) -> Error {
        if let Error::OutOfBounds { root, .. } | Error::Aliased { root, .. } | Error::Foreign { root, .. } =
            &mut self
        {
            root.get_or_insert_with(|| task().into());
        }
        self
    }

    pub(crate) fn is_deliberate(&self) -> bool {
        match self {
            Error::Cancelled { .. } | Error::Shutdown { .. } => true,
            Error::Dependency { cause, .. } => cause.is_deliberate(),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Task { root, error } => write!(f, "{root} failed: {error}"),
            Error::Panicked { root, text } => write!(f, "{root} panicked: {text}"),
            Error::Dependency { root, task, cause } => {
                write!(f, "{task} did not run, because of its root task {root}: {}", Reason(cause))
            }
            Error::Cancelled { root } => write!(f, "{root} was cancelled"),
            Error::TimedOut { root, after } => {
                write!(f, "{root} did not end within its timeout of {after:?}")
            }
            Error::NoProcessor { root, stated, processors, .. } => {
                write!(f, "no processor for {root}: it asks for ")?;
                for (nth, (what, scope)) in stated.iter().enumerate() {
                    match stated.len() {
                        1 => write!(f, "{scope}")?,
                        _ => write!(f, "{}{scope} by {what}", if nth == 0 { "" } else { " and " })?,
                    }
                }
                let shown = 16.min(processors.len());
                for (processor, reason) in &processors[..shown] {
                    write!(f, "\n  {processor}: {reason}")?;
                }
                match processors.len() - shown {
                    0 => Ok(()),
                    more => write!(f, "\n  and {more} more"),
                }
            }
            Error::Deadlock { path, in_bulk, .. } => {
                write!(f, "waiting here would never end: ")?;
                for task in path.iter() {
                    write!(f, "{task} waits for ")?;
                }
                match path.first() {
                    _ if *in_bulk => f.write_str("the end of the `bulk` block that this wait is in"),
                    Some(first) if path.len() > 1 => write!(f, "`{}` (#{})", first.name(), first.id()),
                    _ => f.write_str("itself"),
                }
            }
            Error::Shutdown { root } => write!(f, "{root} was ended by the shutdown of its runtime"),
            Error::Options { root: Some(root), message } => write!(f, "options of {root}: {message}"),
            Error::Options { root: None, message } => write!(f, "options: {message}"),
            Error::Taken { root: Some(root) } => {
                write!(f, "the value that {root} should give or use was taken before")
            }
            Error::Taken { root: None } => f.write_str("the value of this chunk was taken by `into_inner`"),
            Error::Aliased { root, first, second } => {
                match root {
                    Some(root) => write!(f, "{root} would access the same elements twice: ")?,
                    None => f.write_str("this would access the same elements twice: ")?,
                }
                write!(f, "{first} overlaps {second}, and one of them writes")
            }
            Error::OutOfBounds { root, region, outside } => {
                match root {
                    Some(root) => write!(f, "{root} asks for {region}")?,
                    None => write!(f, "a guard asks for {region}")?,
                }
                write!(f, ": {outside}")
            }
            Error::Poisoned { root, cause } => {
                write!(f, "the data is poisoned: {root} {}", Reason(cause))
            }
            Error::Foreign { root: Some(root), chunk } => {
                write!(f, "{root} cannot use a chunk of `{chunk}` that was placed in another runtime")
            }
            Error::Foreign { root: None, chunk } => {
                write!(f, "this chunk of `{chunk}` was placed in another runtime")
            }
            #[cfg(feature = "store")]
            Error::TooLarge { root, bytes, budget } => {
                match root {
                    Some(root) => write!(f, "{root} needs")?,
                    None => f.write_str("this needs")?,
                }
                write!(
                    f,
                    " {bytes} bytes in memory at once, and the limit is {budget}: use smaller chunks, or raise \
                     `Builder::memory_limit`"
                )
            }
            #[cfg(feature = "store")]
            Error::Reload { root, chunk, path, source } => {
                if let Some(root) = root {
                    write!(f, "{root} did not run: ")?;
                }
                write!(f, "{chunk} could not be read back from {path}: {source}")
            }
            #[cfg(feature = "store")]
            Error::Spill { root, chunk, path, source } => {
                if let Some(root) = root {
                    write!(f, "{root} did not run, for want of memory: ")?;
                }
                write!(f, "{chunk} could not be written to {path}, and stays in memory: {source}")
            }
            Error::TooManyThreads { root, limit } => write!(
                f,
                "{root} wants to block, but all {limit} spare threads are in use: await instead, or raise \
                 `Builder::spare_threads`"
            ),
        }
    }
}

/// What happened to a root, without naming it again.
struct Reason<'a>(&'a Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Error::Task { error, .. } => write!(f, "failed: {error}"),
            Error::Panicked { text, .. } => write!(f, "panicked: {text}"),
            Error::Cancelled { .. } => f.write_str("was cancelled"),
            Error::TimedOut { after, .. } => write!(f, "did not end within its timeout of {after:?}"),
            other => fmt::Display::fmt(other, f),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = match self {
            Error::Task { .. } => "Task",
            Error::Panicked { .. } => "Panicked",
            Error::Dependency { .. } => "Dependency",
            Error::Cancelled { .. } => "Cancelled",
            Error::TimedOut { .. } => "TimedOut",
            Error::NoProcessor { .. } => "NoProcessor",
            Error::Deadlock { .. } => "Deadlock",
            Error::Shutdown { .. } => "Shutdown",
            Error::Aliased { .. } => "Aliased",
            Error::OutOfBounds { .. } => "OutOfBounds",
            Error::Poisoned { .. } => "Poisoned",
            Error::Foreign { .. } => "Foreign",
            Error::Options { .. } => "Options",
            Error::Taken { .. } => "Taken",
            Error::TooManyThreads { .. } => "TooManyThreads",
            #[cfg(feature = "store")]
            Error::TooLarge { .. } => "TooLarge",
            #[cfg(feature = "store")]
            Error::Reload { .. } => "Reload",
            #[cfg(feature = "store")]
            Error::Spill { .. } => "Spill",
        };
        // `main` returning `Err` prints this: the sentence matters more than the fields.
        write!(f, "{variant}: {self}")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Task { error, .. } => Some(&**error),
            Error::Panicked { text, .. } => Some(text),
            Error::Dependency { cause, .. } | Error::Poisoned { cause, .. } => Some(&**cause),
            Error::OutOfBounds { outside, .. } => Some(outside),
            #[cfg(feature = "store")]
            Error::Reload { source, .. } | Error::Spill { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

/// Which task: its name, its id and where it was spawned.
#[derive(Clone)]
pub struct TaskInfo(Arc<TaskInfoData>);

struct TaskInfoData {
    id: TaskId,
    name: Box<str>,
    site: Box<str>,
    reported: AtomicBool,
}

impl TaskInfo {
    pub(crate) fn new(id: TaskId, name: &str, location: &std::panic::Location<'_>) -> Self {
        TaskInfo(Arc::new(TaskInfoData {
            id,
            name: name.into(),
            site: format!("{}:{}", location.file(), location.line()).into(),
            reported: AtomicBool::new(false),
        }))
    }
    /// The id of the task.
    pub fn id(&self) -> TaskId {
        self.0.id
    }
    /// Its name: the given one, else its callee as written.
    pub fn name(&self) -> &str {
        &self.0.name
    }
    /// Where it was spawned, as `file:line`.
    pub fn site(&self) -> &str {
        &self.0.site
    }
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (#{}, spawned at {})", self.name(), self.id(), self.site())
    }
}

impl fmt::Debug for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The task that failed first.
#[derive(Clone)]
pub struct Root {
    task: TaskInfo,
    /// The further failures of the block that returned this one.
    others: Option<Arc<[Error]>>,
}

impl Root {
    /// The id of the task.
    pub fn id(&self) -> TaskId {
        self.task.id()
    }
    /// Its name: the given one, else its callee as written.
    pub fn name(&self) -> &str {
        self.task.name()
    }
    /// Where it was spawned, as `file:line`.
    pub fn site(&self) -> &str {
        self.task.site()
    }
    /// True for the first caller only: a failure is logged once.
    pub(crate) fn report(&self) -> bool {
        !self.task.0.reported.swap(true, Relaxed)
    }
}

impl From<TaskInfo> for Root {
    fn from(info: TaskInfo) -> Self {
        Root { task: info, others: None }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.task, f)
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.task, f)
    }
}

/// The text of a panic, as the source of [`Error::Panicked`].
#[derive(Clone, PartialEq, Eq)]
pub struct PanicText(Arc<str>);

impl PanicText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text of a payload: strings as they are, errors and plain values as they print.
    pub(crate) fn of(payload: Box<dyn Any + Send>) -> Self {
        // The text of an error is made by foreign code, which may panic itself.
        let text = catch_unwind(AssertUnwindSafe(|| text_of(&*payload))).ok().flatten();
        let text = text.unwrap_or_else(|| format!("a payload that is no text ({:?})", (*payload).type_id()));
        quietly(move || drop(payload));
        PanicText(text.into())
    }
}

fn text_of(payload: &(dyn Any + Send)) -> Option<String> {
    type BoxedError = Box<dyn StdError + Send + Sync>;
    macro_rules! first_of {
        ($($t:ty),*) => {
            None$(.or_else(|| payload.downcast_ref::<$t>().map(|value| value.to_string())))*
        };
    }
    first_of!(
        &'static str,
        String,
        Box<str>,
        Arc<str>,
        std::borrow::Cow<'static, str>,
        Error,
        BoxedError,
        Box<dyn StdError + Send>,
        std::io::Error,
        fmt::Error,
        i8,
        u8,
        i16,
        u16,
        i32,
        u32,
        i64,
        u64,
        i128,
        u128,
        isize,
        usize,
        f32,
        f64,
        bool,
        char
    )
}

impl fmt::Display for PanicText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PanicText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for PanicText {}

/// Runs user code that may panic where nobody can be told (a `Drop`, a waker): the panic hook has printed it, and
/// it costs neither the worker nor other tasks.
#[inline]
pub(crate) fn quietly(code: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(code)) {
        // A payload whose own drop panics is not worth a process.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(payload))).map_err(std::mem::forget);
    }
}
