//! The Tokio side of a runtime: one quiet thread that drives timers and sockets, or a handle of the user's.
//!
//! 1. Workers enter the handle for their whole life, so Tokio's types work in every task.
//! 2. The reactor's thread only drives; no task of ours runs on it.
//! 3. Our own timers (timeouts, the stall watch) are always on the runtime's own reactor: one that the user shares
//!    may not be driven. With a shared handle our reactor starts when the first of them is set.

use std::sync::OnceLock;
use tokio::runtime::{EnterGuard, Handle};

/// The reactor of a pool.
pub(crate) struct Reactor {
    name: String,
    shared: Option<Handle>,
    own: OnceLock<Own>,
}

struct Own {
    handle: Handle,
    /// Dropping it ends the thread, so that nobody who drops a runtime waits.
    _stop: tokio::sync::mpsc::Sender<()>,
}

impl Reactor {
    /// Starts a reactor, or uses `shared`.
    pub(crate) fn new(name: &str, shared: Option<Handle>) -> std::io::Result<Self> {
        let reactor = Reactor { name: name.to_owned(), shared, own: OnceLock::new() };
        if reactor.shared.is_none() {
            let own = start(&reactor.name)?;
            let _ = reactor.own.set(own);
        }
        Ok(reactor)
    }

    /// No reactor until a timer needs one.
    pub(crate) fn none() -> Self {
        Reactor { name: String::new(), shared: None, own: OnceLock::new() }
    }

    /// The handle whose context tasks run in.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        self.shared.as_ref().or_else(|| self.own.get().map(|own| &own.handle))
    }

    /// Enters the Tokio context on this thread.
    pub(crate) fn enter(&self) -> Option<EnterGuard<'_>> {
        self.handle().map(Handle::enter)
    }

    /// The handle that is certainly driven; `None` if the system gives no thread for it.
    pub(crate) fn timers(&self) -> Option<&Handle> {
        if self.own.get().is_none() {
            let own = start(&self.name).ok()?;
            let _ = self.own.set(own);
        }
        self.own.get().map(|own| &own.handle)
    }
}

fn start(name: &str) -> std::io::Result<Own> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name(format!("{name}-blocking"))
        .build()?;
    let handle = runtime.handle().clone();
    let (stop, mut stopped) = tokio::sync::mpsc::channel::<()>(1);
    std::thread::Builder::new().name(format!("{name}-reactor")).spawn(move || {
        super::affinity::release(); // It may be started by a worker.
        runtime.block_on(async { stopped.recv().await });
        // Functions that still run on Tokio's blocking threads are left to themselves.
        runtime.shutdown_background();
    })?;
    Ok(Own { handle, _stop: stop })
}
