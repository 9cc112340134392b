//! [`Save`]: the task beside a task with a key, which writes down its value.

use super::head::Head;
use super::{Keeping, Reserved};
use crate::call::{Body, Stop};
use crate::store::objects::Failure;
use crate::store::spill::Moves;
use crate::task::{AnyClaim, Edge, Linker, Origin, RawTask, TaskRef};
use dagger_core::Scope;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// Writes the value of a task, whatever its type, when there is one. It is a use of it by reference.
pub(crate) struct Save {
    /// Of order only: it comes after the body, however that ends.
    edge: Edge,
    origin: Origin,
    /// Until it is written.
    value: Option<AnyClaim>,
    what: Option<What>,
    written: Option<oneshot::Receiver<()>>,
}

struct What {
    reserved: Reserved,
    head: Head,
    moves: Moves,
}

impl Save {
    pub(super) fn new(reserved: Reserved, head: Head, moves: Moves, origin: Origin) -> Save {
        let what = Some(What { reserved, head, moves });
        Save { edge: Edge::order_only(), origin, value: None, what, written: None }
    }

    /// Spawns it beside its task, which is being spawned.
    pub(crate) fn attach(mut self, value: AnyClaim) {
        let Some(what) = &self.what else { return };
        value.raw().state.lock().set_saved();
        what.reserved.is_of(TaskRef::new(value.raw()));
        self.value = Some(value);
        let name = format!("checkpoint `{}`", what.head.key);
        let origin = self.origin;
        crate::spawn::accompany(self, origin, name.into());
    }

    /// Starts to write, if there is a value.
    fn start(&mut self) -> Option<oneshot::Receiver<()>> {
        let (value, what) = (self.value.take()?, self.what.take()?);
        value.value()?;
        let (tell, told) = oneshot::channel();
        let keeping = what.reserved.keeping.clone();
        let started = keeping.objects.run(move |_| {
            what.write(&value);
            drop(value);
            let _ = tell.send(());
        });
        if !started {
            // The job was dropped, and with it what says which task it was.
            keeping.failed.fetch_add(1, Relaxed);
            tracing::warn!(target: "dagger", "a checkpoint could not be saved: the operating system refuses a thread");
        }
        Some(told)
    }
}

impl What {
    fn write(self, value: &AnyClaim) {
        let What { reserved, head, moves } = self;
        let Some(at) = value.value() else { return };
        let keeping: &Keeping = &reserved.keeping;
        let written = keeping.objects.write_at(&reserved.path, true, &mut |to| {
            head.write(to)?;
            // SAFETY: the claim keeps the value, which is only read meanwhile, and `moves` are those of its type.
            unsafe { (moves.spill)(at, to) }
        });
        match written {
            Ok(_) => {
                keeping.saved.fetch_add(1, Relaxed);
                reserved.end(Some(&head.type_name));
            }
            Err(failure) => {
                keeping.failed.fetch_add(1, Relaxed);
                warn(&head.key, value.raw(), &failure);
                reserved.end(None);
            }
        }
    }
}

fn warn(key: &str, task: RawTask, failure: &Failure) {
    let (task, Failure { path, source, .. }) = (task.info(), failure);
    tracing::warn!(
        target: "dagger", key,
        "the result of {task} could not be saved as checkpoint `{key}` at {path}, another run computes it again: {source}"
    );
}

impl Body for Save {
    type Output = ();
    type Name = Self;
    const ACCESSES: usize = 0;
    const WRITES: bool = false;

    fn link(&self, linker: &mut Linker) {
        if let Some(value) = &self.value {
            linker.after(value.raw(), &self.edge);
        }
    }
    fn inputs(&self, visit: &mut dyn FnMut(RawTask)) {
        if let Some(value) = &self.value {
            visit(value.raw());
        }
    }
    fn scope(&self, _scopes: &mut Option<Scope>) {}
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let this = self.get_mut();
        if this.value.is_some() {
            this.written = this.start();
        }
        match &mut this.written {
            // An error says that the job is gone, which has told why.
            Some(written) => Pin::new(written).poll(cx).map(|_| Ok(())),
            None => Poll::Ready(Ok(())),
        }
    }
}
