//! What went wrong with an object, and whether another try can help.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// How often a request is repeated after the first try.
pub(super) const RETRIES: u32 = 4;

/// The wait before the first repetition; it doubles with each.
pub(super) const FIRST_DELAY: Duration = Duration::from_millis(5);

/// Why an object could not be written, read or listed. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// What a user looks for: the path of a file, or of an object in its store.
    pub(crate) path: Arc<str>,
    /// The error of the last try.
    pub(crate) source: Arc<dyn Error + Send + Sync>,
    pub(crate) kind: FailureKind,
}

/// What a [`Failure`] means for the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// What is stored is not what was written: its length or its checksum is another one.
    Altered,
    /// There is no such object.
    Missing,
    /// The store has no room.
    Full,
    /// The store does not let us.
    Denied,
    /// Anything else: an I/O error that stayed through all tries, or an error of the caller's own code.
    Other,
}

impl Failure {
    /// What no store has said.
    pub(crate) fn other(path: &str, source: io::Error) -> Failure {
        Failure { path: path.into(), source: Arc::new(source), kind: FailureKind::Other }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.source)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

/// What is wrong with stored bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Altered {
    Length { expected: u64, found: u64 },
    NoObject,
    Version(u16),
    Flags(u16),
    Payload { expected: (u64, u32), found: (u64, u32) },
    Ends,
    Frame(String),
}

impl fmt::Display for Altered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Altered::Length { expected, found } => {
                write!(f, "{found} B are stored where {expected} B were written")
            }
            Altered::NoObject => f.write_str("this is no object that was written here"),
            Altered::Version(version) => {
                write!(f, "the object has format version {version}, which is not known")
            }
            Altered::Flags(flags) => write!(f, "the object has flags {flags:#x}, which are not known"),
            Altered::Payload { expected, found } => write!(
                f,
                "the payload has {} B and checksum {:08x}, but {} B and {:08x} were written",
                found.0, found.1, expected.0, expected.1
            ),
            Altered::Ends => f.write_str("the end of the object is damaged"),
            Altered::Frame(error) => write!(f, "the compressed payload is damaged: {error}"),
        }
    }
}

impl Error for Altered {}

impl From<Altered> for io::Error {
    fn from(altered: Altered) -> io::Error {
        io::Error::new(ErrorKind::InvalidData, altered)
    }
}

/// Who failed while an object passed: the store, or the caller's code that makes or takes the payload.
#[derive(Debug)]
pub(super) enum Cause {
    Store(io::Error),
    Caller(io::Error),
}

impl From<Altered> for Cause {
    fn from(altered: Altered) -> Cause {
        Cause::Store(altered.into())
    }
}

/// Why one try failed.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) failure: Failure,
    /// Another try can end otherwise.
    pub(super) again: bool,
}

impl Fault {
    /// A fault of the store, judged by its error.
    pub(super) fn of(path: impl fmt::Display, error: impl Error + Send + Sync + 'static) -> Fault {
        let (kind, again) = judge(&error);
        let failure = Failure { path: path.to_string().into(), source: Arc::new(error), kind };
        Fault { failure, again }
    }

    pub(super) fn by(path: impl fmt::Display, cause: Cause) -> Fault {
        match cause {
            Cause::Store(error) => Fault::of(path, error),
            // What its code says is final, and a `NotFound` of its own is not ours.
            Cause::Caller(error) => Fault {
                failure: Failure {
                    path: path.to_string().into(),
                    source: Arc::new(error),
                    kind: FailureKind::Other,
                },
                again: false,
            },
        }
    }
}

/// Repeats what may go better another time, sleeping between the tries: for threads that may block.
pub(super) fn retry<T>(mut attempt: impl FnMut() -> Result<T, Fault>) -> Result<T, Failure> {
    let mut delay = FIRST_DELAY;
    for _ in 0..RETRIES {
        match attempt() {
            Err(fault) if fault.again => std::thread::sleep(delay),
            other => return other.map_err(|fault| fault.failure),
        }
        delay *= 2;
    }
    attempt().map_err(|fault| fault.failure)
}

/// What an error means, and whether another try can help. Stores wrap errors of the system more than once: the first in the
/// chain that says something decides.
pub(super) fn judge(error: &(dyn Error + 'static)) -> (FailureKind, bool) {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<Altered>() {
            return (FailureKind::Altered, false);
        }
        next = if let Some(error) = error.downcast_ref::<io::Error>() {
            if let Some(judged) = judge_io(error.kind()) {
                return judged;
            }
            // Not `source()`, which leaves out the wrapped error itself.
            error.get_ref().map(|inner| inner as &(dyn Error + 'static))
        } else {
            if let Some(judged) = error.downcast_ref::<object_store::Error>().and_then(judge_store) {
                return judged;
            }
            error.source()
        };
    }
    (FailureKind::Other, true)
}

fn judge_io(kind: ErrorKind) -> Option<(FailureKind, bool)> {
    use ErrorKind::{
        FileTooLarge, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied,
        QuotaExceeded, ReadOnlyFilesystem, StorageFull, Unsupported,
    };
    match kind {
        NotFound => Some((FailureKind::Missing, false)),
        PermissionDenied | ReadOnlyFilesystem => Some((FailureKind::Denied, false)),
        StorageFull | QuotaExceeded | FileTooLarge => Some((FailureKind::Full, false)),
        Unsupported | InvalidInput | InvalidFilename | NotADirectory | IsADirectory => {
            Some((FailureKind::Other, false))
        }
        _ => None,
    }
}

fn judge_store(error: &object_store::Error) -> Option<(FailureKind, bool)> {
    use object_store::Error::{
        AlreadyExists, InvalidPath, NotFound, NotImplemented, NotSupported, PermissionDenied,
        Unauthenticated, UnknownConfigurationKey,
    };
    match error {
        NotFound { .. } => Some((FailureKind::Missing, false)),
        PermissionDenied { .. } | Unauthenticated { .. } => Some((FailureKind::Denied, false)),
        NotSupported { .. }
        | NotImplemented { .. }
        | InvalidPath { .. }
        | AlreadyExists { .. }
        | UnknownConfigurationKey { .. } => Some((FailureKind::Other, false)),
        _ => None,
    }
}
