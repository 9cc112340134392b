//! [`Restore`]: the body in place of one whose result is in the store.

use super::Reserved;
use super::head::Head;
use crate::call::{Body, Stop};
use crate::error::Error;
use crate::pool::local;
use crate::store::objects::{Failure, FailureKind};
use crate::store::spill::Moves;
use crate::task::{Linker, RawTask, TaskRef};
use dagger_core::Scope;
use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use tokio::sync::oneshot;

/// Makes a value of the type that it is for.
///
/// # Safety
/// The moves are those of that type.
pub(super) type Reload = unsafe fn(Moves, &mut dyn Read) -> io::Result<Made>;

/// A value of a type that is not named here.
type Made = Box<dyn Any + Send>;

/// See [`Reload`].
///
/// # Safety
/// The moves are those of `T`.
pub(super) unsafe fn reload<T: Send + 'static>(moves: Moves, from: &mut dyn Read) -> io::Result<Made> {
    let mut room = MaybeUninit::<T>::uninit();
    // SAFETY: room for a `T`, and the moves are those of `T`.
    unsafe { (moves.reload)(room.as_mut_ptr().cast(), from) }?;
    // SAFETY: `reload` has made a value there.
    Ok(Box::new(unsafe { room.assume_init() }))
}

/// A result that is in the store, and is the task's that asked for it.
pub(crate) struct Found {
    reserved: Reserved,
    head: Head,
    moves: Moves,
    reload: Reload,
}

impl Found {
    pub(super) fn new(reserved: Reserved, head: Head, moves: Moves, reload: Reload) -> Found {
        Found { reserved, head, moves, reload }
    }

    /// Blocks.
    fn read(&self) -> Result<Made, Failure> {
        let mut made = None;
        self.reserved.keeping.objects.read_at(&self.reserved.path, &mut |from| {
            made = None; // Of a try before.
            Head::read(from)?.check(&self.head)?;
            // SAFETY: both came from one `Kind`.
            made = Some(unsafe { (self.reload)(self.moves, from) }?);
            Ok(())
        })?;
        made.ok_or_else(|| Failure::other(&self.reserved.path, io::Error::other("it has no value")))
    }

    fn error(&self, failure: &Failure) -> Error {
        let Head { key, version, .. } = &self.head;
        let version = if version.is_empty() { String::new() } else { format!(" of version `{version}`") };
        let root = local::with(|local| local.task()).map(|task| task.info().into());
        let advice = match failure.kind {
            FailureKind::Missing => {
                Some("it was there when the runtime was built; the next run computes it again")
            }
            FailureKind::Denied => None,
            _ => Some("delete it to have the task run again"),
        };
        Error::Reload {
            root,
            chunk: format!("the checkpoint `{key}`{version}").into(),
            path: failure.path.clone(),
            source: Arc::new(Unusable { source: failure.source.clone(), advice }),
        }
    }
}

/// Why a checkpoint cannot be used, and what to do.
#[derive(Debug)]
struct Unusable {
    source: Arc<dyn StdError + Send + Sync>,
    advice: Option<&'static str>,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)?;
        self.advice.map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl StdError for Unusable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// Brings a result back.
pub(crate) struct Restore<T> {
    state: State,
    value: PhantomData<fn() -> T>,
}

enum State {
    New(Found),
    Reading(oneshot::Receiver<(Found, Result<Made, Failure>)>),
    Over,
}

impl<T> Restore<T> {
    pub(crate) fn new(found: Found) -> Self {
        Restore { state: State::New(found), value: PhantomData }
    }
}

impl State {
    /// Ends when the value is there, and the key is given back.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Made, Stop>> {
        if matches!(self, State::New(_))
            && let State::New(found) = std::mem::replace(self, State::Over)
        {
            if let Some(me) = local::with(|local| local.task()) {
                found.reserved.is_of(TaskRef::new(me));
            }
            let (tell, told) = oneshot::channel();
            let keeping = found.reserved.keeping.clone();
            *self = State::Reading(told);
            // If there is no thread the sender is dropped with the job.
            keeping.objects.run(move |_| {
                let read = found.read();
                let _ = tell.send((found, read));
            });
        }
        let State::Reading(told) = self else { return Poll::Pending };
        let read = ready!(Pin::new(told).poll(cx));
        *self = State::Over;
        Poll::Ready(match read {
            Ok((found, Ok(made))) => {
                found.reserved.keeping.restored.fetch_add(1, Relaxed);
                found.reserved.end(None);
                Ok(made)
            }
            Ok((found, Err(failure))) => Err(Stop::void(found.error(&failure))),
            Err(_) => {
                let root = local::with(|local| local.task()).map(|task| task.info().into());
                let message = "its checkpoint cannot be read: the operating system refuses a thread".into();
                Err(Stop::void(Error::Options { root, message }))
            }
        })
    }
}

impl<T: Send + Sync + 'static> Body for Restore<T> {
    type Output = T;
    type Name = Self;
    const ACCESSES: usize = 0;
    const WRITES: bool = false;

    fn link(&self, _linker: &mut Linker) {}
    fn inputs(&self, _visit: &mut dyn FnMut(RawTask)) {}
    fn scope(&self, _scopes: &mut Option<Scope>) {}
    /// It calls no code that must go on: a block that is dropped cancels it.
    fn has_begun(&self) -> bool {
        false
    }
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Stop>> {
        let made = ready!(self.get_mut().state.poll(cx));
        Poll::Ready(made.and_then(|made| match made.downcast::<T>() {
            Ok(value) => Ok(*value),
            Err(_) => Err(Stop::panic(Box::new("a checkpoint of another type (`Found::read`)"))),
        }))
    }
}
