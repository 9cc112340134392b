//! What can go wrong with a task, and where it began.
//!
//! Every failure has a [`Root`]: the task that failed first, with its name, id and spawn site. Tasks that depended
//! on it get [`Error::Dependency`] with that same root, however far down the graph they are.

use crate::task::TaskId;
use dagger_core::{Processor, Scope};
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
        /// What was asked for: scope and result scope together.
        asked: Scope,
        /// The processors that there are, each with the reason why it does not fit.
        processors: Arc<[(Processor, String)]>,
    },
    /// Waiting here would never end: the awaited task waits, directly or through others, for the waiting one.
    /// The awaited task has not failed; it goes on when the waiting one ends.
    #[non_exhaustive]
    Deadlock {
        /// The task that wanted to wait (the awaited one, when the wait was not made by a task).
        root: Root,
        /// The cycle: each task waits for the next, the last for the first.
        path: Arc<[TaskInfo]>,
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
    /// The value was moved out of this handle by an earlier `.await` on it.
    #[non_exhaustive]
    Taken {
        /// The task whose value is gone.
        root: Root,
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

impl Error {
    /// The task that failed first; `None` for errors that belong to no task.
    pub fn root(&self) -> Option<&Root> {
        match self {
            Error::Task { root, .. }
            | Error::Panicked { root, .. }
            | Error::Dependency { root, .. }
            | Error::Cancelled { root }
            | Error::TimedOut { root, .. }
            | Error::NoProcessor { root, .. }
            | Error::Deadlock { root, .. }
            | Error::Shutdown { root }
            | Error::Taken { root }
            | Error::TooManyThreads { root, .. } => Some(root),
            Error::Options { root, .. } => root.as_ref(),
        }
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
        &[]
    }

    /// The failure of `task` because of this failure of one of its inputs.
    pub(crate) fn passed_to(&self, task: impl FnOnce() -> TaskInfo) -> Error {
        match self {
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
            Error::NoProcessor { root, asked, processors } => {
                write!(f, "no processor for {root}: it asks for {asked}")?;
                let shown = 16.min(processors.len());
                for (processor, reason) in &processors[..shown] {
                    write!(f, "\n  {processor}: {reason}")?;
                }
                match processors.len() - shown {
                    0 => Ok(()),
                    more => write!(f, "\n  and {more} more"),
                }
            }
            Error::Deadlock { path, .. } => {
                write!(f, "waiting here would never end: ")?;
                for task in path.iter() {
                    write!(f, "{task} waits for ")?;
                }
                match path.first() {
                    Some(first) if path.len() > 1 => write!(f, "`{}` (#{})", first.name(), first.id()),
                    _ => f.write_str("itself"),
                }
            }
            Error::Shutdown { root } => write!(f, "{root} was ended by the shutdown of its runtime"),
            Error::Options { root: Some(root), message } => write!(f, "options of {root}: {message}"),
            Error::Options { root: None, message } => write!(f, "options: {message}"),
            Error::Taken { root } => {
                write!(f, "the value of {root} was taken by an earlier await of this handle")
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
            Error::Options { .. } => "Options",
            Error::Taken { .. } => "Taken",
            Error::TooManyThreads { .. } => "TooManyThreads",
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
            Error::Dependency { cause, .. } => Some(&**cause),
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
pub struct Root(TaskInfo);

impl Root {
    /// The id of the task.
    pub fn id(&self) -> TaskId {
        self.0.id()
    }
    /// Its name: the given one, else its callee as written.
    pub fn name(&self) -> &str {
        self.0.name()
    }
    /// Where it was spawned, as `file:line`.
    pub fn site(&self) -> &str {
        self.0.site()
    }
    /// True for the first caller only: a failure is logged once.
    pub(crate) fn report(&self) -> bool {
        !self.0.0.reported.swap(true, Relaxed)
    }
}

impl From<TaskInfo> for Root {
    fn from(info: TaskInfo) -> Self {
        Root(info)
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
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
