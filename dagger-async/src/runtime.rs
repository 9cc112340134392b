//! [`Runtime`]: the workers, and the reactor beside them.
//!
//! Most programs never make one: the first spawn outside any runtime starts a default one with a worker for each usable
//! core, which lives as long as the process.

use crate::error::{Error, Result};
use crate::pool::{Config, Pool, local, worker};
use dagger_core::{Processor, Topology};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

/// A set of pinned workers that run tasks, with the Tokio reactor that drives their timers and sockets.
///
/// Dropping it ends what waits (with [`Error::Shutdown`]) and lets running functions finish in the background; it never
/// blocks or panics, also inside async code or on one of its own workers.
///
/// ```
/// use dagger_async::prelude::*;
/// # fn main() -> dagger_async::Result<()> {
/// let rt = Runtime::builder().threads(2).name("solver").build()?;
/// let sum = rt.block_on(async { spawn!((|| (1..=10).sum::<i32>())()).await })?;
/// assert_eq!(sum, 55);
/// # Ok(()) }
/// ```
pub struct Runtime {
    pool: Arc<Pool>,
}

impl Runtime {
    /// Settings for a new runtime.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A runtime with the default settings: a pinned worker for each usable core.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Runs a future on this thread until it ends. What it spawns goes to this runtime, and Tokio's timers and sockets
    /// work in it. The future itself is no task: [`current`](crate::current) is `None` in it.
    ///
    /// Inside a task the worker's processor goes to a spare thread meanwhile.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _reactor = self.pool.reactor.enter();
        worker::block_on(In { pool: &self.pool, task_left: true, future })
    }

    /// Polls a future where it is awaited, with this runtime as the one that its spawns go to.
    pub fn run<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<'_, F> {
        In { pool: &self.pool, task_left: false, future }
    }

    /// Ends when no task of this runtime is unfinished. Inside one of its tasks that never is: that task is unfinished.
    pub async fn idle(&self) {
        self.pool.idle().await;
    }

    /// Ends the runtime: suspended and waiting tasks end with [`Error::Shutdown`], running functions are waited for.
    /// A task spawned afterwards fails with `Shutdown`. An async body that runs at that moment sees what it awaits end so, and may
    /// go on to return: its result counts. At its next wait it ends.
    ///
    /// With the feature `store`: what chunks have left outside memory is removed before it ends, if they are dropped. A process that
    /// ends without waiting for this may leave it to the next one that spills to the same folder.
    ///
    /// Dropping the future leaves the rest to the background.
    pub fn shutdown(self) -> impl Future<Output = ()> + Send + 'static {
        let pool = self.pool.clone();
        drop(self); // Closes it.
        async move {
            pool.ended().await;
            #[cfg(feature = "store")]
            pool.store.end().await;
        }
    }

    /// How much of the data in chunks is in memory, how much elsewhere, and what has moved.
    #[cfg(feature = "store")]
    pub fn memory(&self) -> crate::store::Memory {
        self.pool.store.memory()
    }

    /// How many results of tasks were brought back from the store of [`Builder::checkpoint_to`], and how many were written there.
    /// All 0 without one.
    #[cfg(feature = "store")]
    pub fn checkpoints(&self) -> crate::store::Checkpoints {
        self.pool.checkpoints.as_ref().map(|keeping| keeping.numbers()).unwrap_or_default()
    }

    /// Deletes the checkpoints of all versions for which `which` says `true`, and gives how many there were; damaged ones, too.
    /// Those that a program before this one has left: `rt.remove_checkpoints(|version| version != "3")`; all of them:
    /// `rt.remove_checkpoints(|_| true)`.
    ///
    /// No task with a key of these versions should be unfinished: one that is restored may find nothing.
    ///
    /// # Errors
    /// [`Error::Options`]: there is no [`Builder::checkpoint_to`], or the store refuses.
    /// # Cancellation
    /// Dropping the future leaves the rest to the background.
    #[cfg(feature = "store")]
    pub async fn remove_checkpoints(&self, which: impl FnMut(&str) -> bool + Send + 'static) -> Result<u64> {
        match &self.pool.checkpoints {
            Some(keeping) => keeping.clone().remove(which).await,
            None => {
                let message = "`remove_checkpoints`: the runtime has no `Builder::checkpoint_to`".into();
                Err(Error::Options { root: None, message })
            }
        }
    }

    /// The processors that tasks can run on.
    pub fn processors(&self) -> Vec<Processor> {
        self.pool.processors.clone()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.pool.close();
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Runtime(`{}`, {} workers, {} unfinished tasks, window exceeded {} times)",
            self.pool.name,
            self.pool.processors.len(),
            self.pool.unfinished(),
            self.pool.window.grown()
        )
    }
}

/// A future whose spawns go to a runtime.
struct In<'a, F> {
    pool: &'a Arc<Pool>,
    task_left: bool,
    future: F,
}

impl<F: Future> Future for In<'_, F> {
    type Output = F::Output;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is pinned when `self` is and only projected; the other fields are `Unpin`.
        let (pool, task_left, future) = unsafe {
            let this = self.get_unchecked_mut();
            (this.pool, this.task_left, Pin::new_unchecked(&mut this.future))
        };
        local::with(|local| {
            let _left = task_left.then(|| local.leave_task());
            let _entered = local.enter_runtime(pool);
            future.poll(cx)
        })
    }
}

/// The machine as the first runtime saw it: a thread that builds another one may be bound to one core by then.
fn topology() -> &'static Topology {
    static TOPOLOGY: OnceLock<Topology> = OnceLock::new();
    TOPOLOGY.get_or_init(Topology::detect)
}

/// The pool of the default runtime.
pub(crate) fn default_pool() -> &'static Pool {
    static DEFAULT: OnceLock<Runtime> = OnceLock::new();
    &DEFAULT
        .get_or_init(|| {
            let builder = || Runtime::builder().name("dagger");
            match builder().build().or_else(|_| builder().threads(1).build()) {
                Ok(runtime) => runtime,
                Err(error) => {
                    // No thread to be had: every task fails with `Shutdown`, and this says why.
                    tracing::error!(target: "dagger", "the default runtime cannot start: {error}");
                    Runtime { pool: Pool::none() }
                }
            }
        })
        .pool
}

/// Workers of a runtime, at most: more than any machine has. What is made before the first of their threads starts fits into memory.
const THREADS_MAX: usize = 1 << 16;

/// Settings of a [`Runtime`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    threads: Option<usize>,
    pin: bool,
    name: String,
    spare_threads: usize,
    blocking_threads: usize,
    stall_after: Duration,
    window: Option<usize>,
    tokio: Option<tokio::runtime::Handle>,
    #[cfg(feature = "store")]
    store: StoreOptions,
}

/// What of the settings is the store's.
#[cfg(feature = "store")]
#[derive(Clone, Debug, Default)]
struct StoreOptions {
    limit: Option<u64>,
    backing: Option<crate::store::Backing>,
    folder: Option<std::path::PathBuf>,
    eviction: crate::store::Eviction,
    compression: crate::store::Compression,
    checkpoints: Option<crate::store::Backing>,
    checkpoint_version: Option<Arc<str>>,
}

impl Default for Builder {
    fn default() -> Self {
        Builder {
            threads: None,
            pin: true,
            name: "dagger".to_owned(),
            spare_threads: 512,
            blocking_threads: 512,
            stall_after: Duration::from_secs(10),
            window: None,
            tokio: None,
            #[cfg(feature = "store")]
            store: StoreOptions::default(),
        }
    }
}

/// Data larger than memory (feature `store`); see [`store`](crate::store).
#[cfg(feature = "store")]
impl Builder {
    /// Bytes of values of chunks that may be in memory at once. Default: three quarters of what the process may use (the memory
    /// of the machine, or the limit of its cgroup).
    ///
    /// Chunks over the limit leave memory, and come back before a task that needs them starts. A single task that needs more
    /// at once fails with [`Error::TooLarge`].
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.store.limit = Some(bytes);
        self
    }

    /// Where chunks go that leave memory: any [`object_store`]. Default: a folder of this process under
    /// [`spill_folder`](Self::spill_folder).
    ///
    /// Objects lie there under a prefix that no other process uses, and are deleted when their chunks are dropped, all of them
    /// at the end. [`LocalFileSystem`](object_store::local::LocalFileSystem) is read and written without copies.
    pub fn spill_to<S: object_store::ObjectStore>(mut self, store: S) -> Self {
        self.store.backing = Some(crate::store::Backing::of(store));
        self
    }

    /// The folder in which the runtime makes a folder of its own for chunks that leave memory (default: `dagger-spill` in the
    /// system's folder for temporary files). What processes that were killed have left there is removed.
    pub fn spill_folder(mut self, folder: impl Into<std::path::PathBuf>) -> Self {
        self.store.folder = Some(folder.into());
        self
    }

    /// Which chunks leave memory first (default: those whose next use is farthest away).
    pub fn eviction(mut self, eviction: crate::store::Eviction) -> Self {
        self.store.eviction = eviction;
        self
    }

    /// Where results of tasks with the option [`checkpoint`](crate::Options::checkpoint) are kept for the next run: any
    /// [`object_store`], typically a [`LocalFileSystem`](object_store::local::LocalFileSystem) with a prefix. See
    /// [`checkpoints`](crate::store#checkpoints).
    ///
    /// [`build`](Self::build) looks what is there: it lists the store, and reads the first bytes of each file.
    pub fn checkpoint_to<S: object_store::ObjectStore>(mut self, store: S) -> Self {
        self.store.checkpoints = Some(crate::store::Backing::of(store));
        self
    }

    /// The version of what computes the results that are kept (default: an empty one). Results of another version are not used:
    /// change it when the code changes what they are.
    pub fn checkpoint_version(mut self, version: impl Into<Arc<str>>) -> Self {
        self.store.checkpoint_version = Some(version.into());
        self
    }

    /// How what leaves memory, and what is kept by checkpoints, is compressed (default: not at all).
    pub fn spill_compression(mut self, compression: crate::store::Compression) -> Self {
        self.store.compression = compression;
        self
    }
}

impl Builder {
    /// How many workers. Default: one for each core that the affinity mask and the cgroup's quota leave to the process.
    ///
    /// While tasks are small (less than about 4 µs) some of them stand by if the others get more done without them. They are
    /// back within half a millisecond when tasks are larger, and within two when a body spawns and computes on (a few
    /// milliseconds where dozens stand by).
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Whether each worker is bound to one core (default) or left to the operating system.
    pub fn pin(mut self, pin: bool) -> Self {
        self.pin = pin;
        self
    }

    /// The name of the runtime; its threads are called `name-worker-0` and so on.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many threads may take over the processors of bodies that block in `blocking_wait` or `block_on` (default 512).
    /// Beyond, such a wait is [`Error::TooManyThreads`]. They are started when needed and end when unused.
    pub fn spare_threads(mut self, threads: usize) -> Self {
        self.spare_threads = threads;
        self
    }

    /// How many bodies with the option `blocking` may run at once (default 512); more of them queue.
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        self.blocking_threads = threads;
        self
    }

    /// How long nothing may move while tasks wait for each other before that is reported, at warn level, with who waits
    /// for whom (default 10 s). `Duration::MAX` turns the watch off.
    pub fn stall_after(mut self, after: Duration) -> Self {
        self.stall_after = after;
        self
    }

    /// How many tasks may be unfinished before a `spawn!` that accesses chunks, or lies in a datadeps block, waits for some
    /// to end (default 1,024 for each worker, at least 2,048). Only threads that are no workers wait, and only while something
    /// runs; inside tasks await [`room`](crate::room). At least 1.
    pub fn window(mut self, tasks: usize) -> Self {
        self.window = Some(tasks);
        self
    }

    /// Uses this Tokio runtime for the timers and sockets of tasks, instead of a reactor of its own. It has to be driven: a
    /// multi-thread runtime always is, a current-thread one only inside its `block_on`.
    pub fn tokio(mut self, handle: tokio::runtime::Handle) -> Self {
        self.tokio = Some(handle);
        self
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// [`Error::Options`]: zero threads or more than 65,536, or the operating system refuses a thread or the reactor, or a store of checkpoints cannot
    /// be listed.
    pub fn build(self) -> Result<Runtime> {
        let refuse = |message: String| Err(Error::Options { root: None, message: message.into() });
        if self.threads == Some(0) {
            return refuse("`threads(0)`: a runtime needs at least one worker".to_owned());
        }
        if self.threads.is_some_and(|threads| threads > THREADS_MAX) {
            return refuse(format!("`threads(..)`: a runtime has at most {THREADS_MAX} workers"));
        }
        if self.window == Some(0) {
            return refuse("`window(0)`: no task could ever be spawned".to_owned());
        }
        if self.blocking_threads == 0 {
            return refuse(
                "`blocking_threads(0)`: tasks with the option `blocking` could never run".to_owned(),
            );
        }
        #[cfg(feature = "store")]
        if self.store.limit == Some(0) {
            return refuse("`memory_limit(0)`: nothing could ever be in memory".to_owned());
        }
        if self.name.contains('\0') {
            return refuse(format!("`name({:?})`: a thread name cannot contain a zero byte", self.name));
        }
        let topology = topology();
        let threads = self.threads.unwrap_or_else(|| topology.usable());
        #[cfg(feature = "store")]
        let (store_name, checkpoints) = {
            let version = self.store.checkpoint_version.unwrap_or_default();
            let open =
                |to| crate::store::checkpoint::Keeping::open(&self.name, to, self.store.compression, version);
            match self.store.checkpoints.map(open).transpose() {
                Ok(checkpoints) => (self.name.clone(), checkpoints),
                Err(message) => return refuse(message),
            }
        };
        let config = Config {
            name: self.name,
            processors: topology.processors(0, threads),
            pin: self.pin,
            spare_threads: self.spare_threads,
            blocking_threads: self.blocking_threads,
            stall_after: self.stall_after,
            window: self.window,
            tokio: self.tokio,
            #[cfg(feature = "store")]
            store: crate::store::Store::new(crate::store::Settings {
                name: store_name,
                limit: self.store.limit,
                backing: self
                    .store
                    .backing
                    .unwrap_or(crate::store::Backing::Temporary { root: self.store.folder }),
                eviction: self.store.eviction,
                compression: self.store.compression,
            }),
            #[cfg(feature = "store")]
            checkpoints,
        };
        match Pool::start(config) {
            Ok(pool) => Ok(Runtime { pool }),
            Err(error) => refuse(format!(
                "the operating system refused a thread or the reactor of the runtime: {error}"
            )),
        }
    }
}
