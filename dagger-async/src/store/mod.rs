//! Data larger than memory: chunks that leave it when it is full, and come back before their task starts.
//!
//! ```text
//!   task is ready ─▶ all its chunks in memory? ── yes ─▶ pinned ─▶ runs ─▶ unpinned                     (hooks.rs)
//!                          │ no
//!                          ▼
//!     waiting, the oldest first ─▶ room? ── yes ─▶ reload ─▶ pinned ─▶ queued ─▶ runs                   (ledger/)
//!                                   │ no
//!                                   ▼
//!       choose who leaves (farthest next use) ─▶ clean: dropped   dirty: written, then dropped           (jobs.rs)
//! ```
//! * [`Builder::memory_limit`](crate::Builder::memory_limit) sets the budget of a runtime, in bytes of what is in its chunks;
//!   [`spill_to`](crate::Builder::spill_to) where the rest goes, if not to a temporary folder.
//! * [`Spill`] is how a value becomes bytes, and a value again. What cannot is counted and stays.
//! * [`Format`]: how a file holds a value: [`Npy`], [`Raw`]; [`Chunk::from_file`](crate::Chunk::from_file) and
//!   [`to_file`](crate::Chunk::to_file) take it.
//! * [`Runtime::memory`](crate::Runtime::memory) tells how much is where.
//!
//! A chunk belongs to the store of the runtime in which it was made, or whose tasks used it first. A task of another runtime
//! can use it; from then on it stays in memory.
//!
//! # Checkpoints
//!
//! With [`Builder::checkpoint_to`](crate::Builder::checkpoint_to) the results of tasks can outlive the process:
//! `spawn!(f(x); checkpoint = "stage1/42")` writes the result down when there is one, and a later run, of which nothing else
//! needs to be the same, finds it and does not call `f`. So a program that was killed, or that failed at its end, does not begin
//! from the start.
//!
//! ```
//! use dagger_async::prelude::*;
//! use object_store::local::LocalFileSystem;
//!
//! fn simulate(seed: u64) -> Vec<f64> { vec![seed as f64; 1000] }
//! fn mean(x: &Vec<f64>) -> f64 { x.iter().sum::<f64>() / x.len() as f64 }
//!
//! fn run(folder: &std::path::Path) -> dagger_async::Result<dagger_async::store::Checkpoints> {
//!     let rt = Runtime::builder()
//!         .threads(2)
//!         .checkpoint_to(LocalFileSystem::new_with_prefix(folder).unwrap())
//!         .checkpoint_version("1") // Another one when `simulate` computes something else.
//!         .build()?;
//!     rt.block_on(async {
//!         datadeps(async {
//!             for seed in 0..8 {
//!                 let x = spawn!(simulate(seed); checkpoint = format!("simulation/{seed}"));
//!                 spawn!(mean(&x));
//!             }
//!         }).await?;
//!         Ok(rt.checkpoints())
//!     })
//! }
//!
//! # fn main() -> dagger_async::Result<()> {
//! # let folder = std::env::temp_dir().join(format!("dagger-doc-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! let first = run(&folder)?;
//! assert_eq!((first.restored, first.saved), (0, 8));
//! let second = run(&folder)?; // In this process or in another one.
//! assert_eq!((second.restored, second.saved), (8, 0));
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok(()) }
//! ```
//!
//! * **What is the same** is decided by key, version and type alone, not by what the task was given: what goes into the result
//!   belongs into the key (`format!("fit/{name}/{degree}")`), and changed code is a new version. Each key names one task of the
//!   program. A second one with it is [`Error::Options`](crate::Error::Options), if it is spawned elsewhere or before the first is
//!   over; one that is spawned at the same place later on, as when a program runs twice, gets what the first has left (the log
//!   says so, once).
//! * **Which results**: those of [registered](register) types, and plain numbers, `bool` and `()`. A task that writes to chunks
//!   cannot have a checkpoint: what it wrote would be missing after a restore. Let it give the chunk's value instead:
//!   `Chunk::from_task(spawn!(make(x); checkpoint = "x"))`. The same holds for what a body does beside giving its result,
//!   like the tasks that it spawns: after a restore that has not happened.
//! * **When**: a value is written as soon as it is there, on a thread of the store. That is a use of it by reference: who takes it
//!   by value meanwhile gets a clone, or waits. A datadeps block that has ended, and [`Runtime::idle`](crate::Runtime::idle), have
//!   waited for that. What was written is on the disk, whole, or is not found: it gets its name after it was synced. If it cannot
//!   be written the run goes on, with a warning.
//! * **What only fed** a restored task is not run either: a task that was handed to it by value, or whose handles are gone, and
//!   which has not begun, does not use anything else and writes to no chunk; and so on upwards. In a [`bulk`](crate::bulk())
//!   block none has begun; elsewhere they begin when they are spawned, perhaps before the one that is restored is known: where
//!   that costs much let them have checkpoints, too, or make the stage one async task with a checkpoint.
//! * **What was found** when the runtime was built is what is used. A damaged file is not, as far as both its ends and its first
//!   bytes tell (in stores that are no folders: its name). If the rest turns out to be wrong when it is read, the task fails with
//!   [`Error::Reload`](crate::Error::Reload), which says what to delete.
//! * **Where**: `checkpoints/v1/simulation/3.ckpt` in the store, for the version `1`: parts of keys that are not fit for paths are
//!   percent-encoded. What other versions have left is deleted by
//!   [`Runtime::remove_checkpoints`](crate::Runtime::remove_checkpoints), or by hand while nothing runs.
//!
//! # Values that come back
//!
//! A value that leaves memory is dropped, and made anew when it comes back: pointers into it do not last longer than the
//! access that gave them, which is what the borrow checker says anyway.

pub(crate) mod checkpoint;
mod files;
mod format;
mod hooks;
mod jobs;
mod ledger;
#[cfg(feature = "ndarray")]
mod ndarray;
mod numbers;
mod objects;
mod residence;
#[cfg(feature = "serde")]
mod serde;
mod spill;
mod word;

#[cfg(feature = "serde")]
pub use self::serde::Serde;
pub use checkpoint::Checkpoints;
pub use format::{Format, Npy, Number, Order, Raw, RawArray, Shaped};
pub use numbers::Memory;
pub use objects::Compression;
pub use spill::{SizeOf, Spill, register, register_size};

pub(crate) use hooks::*;
pub(crate) use ledger::GuardPin;
pub(crate) use objects::Backing;
pub(crate) use residence::Residence;

use crate::chunk::AnyChunk;
use crate::pool::{Pool, local};
use crate::record;
use dagger_core::record::{Move, What};
use ledger::{Ledger, Settlement};
use objects::Objects;
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

pub use dagger_core::Eviction;
/// The crate whose stores [`Builder::spill_to`](crate::Builder::spill_to) takes.
pub use object_store;

/// What a store is made with.
pub(crate) struct Settings {
    pub(crate) name: String,
    /// Bytes; `None`: three quarters of what the process may use.
    pub(crate) limit: Option<u64>,
    pub(crate) backing: Backing,
    pub(crate) eviction: Eviction,
    pub(crate) compression: Compression,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            name: "dagger".to_owned(),
            limit: None,
            backing: Backing::Temporary { root: None },
            eviction: Eviction::default(),
            compression: Compression::None,
        }
    }
}

/// What of the chunks of a runtime is in memory, and where the rest is. Lives as long as the runtime and its chunks.
pub(crate) struct Store {
    /// In recordings.
    number: u64,
    pub(super) limit: u64,
    eviction: Eviction,
    objects: Objects,
    /// Bytes of values in memory.
    resident: AtomicU64,
    peak: AtomicU64,
    /// Tasks with pins that run, or are queued to.
    active: AtomicI64,
    /// Loads and writes that are under way.
    busy: AtomicU32,
    /// Chunks whose values are not in memory.
    absent: AtomicU64,
    /// Somebody waits for room: who ends a use has it looked at.
    hungry: AtomicBool,
    /// The id of the first task that waits; the largest number if none does.
    first: AtomicU64,
    names: AtomicU64,
    bytes_in: AtomicU64,
    bytes_made: AtomicU64,
    bytes_out: AtomicU64,
    load_nanos: AtomicU64,
    write_nanos: AtomicU64,
    misses: AtomicU64,
    ledger: Mutex<Ledger>,
    /// The pool whose store it is.
    pub(crate) pool: OnceLock<Weak<Pool>>,
    /// Threads that wait until the store is not over its limit.
    spillers: AtomicU32,
    spilling: Mutex<()>,
    spilled: Condvar,
}

impl Store {
    pub(crate) fn new(settings: Settings) -> Arc<Store> {
        static USABLE: OnceLock<Option<u64>> = OnceLock::new();
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let usable = || USABLE.get_or_init(dagger_core::usable_memory).map_or(u64::MAX, |all| all / 4 * 3);
        let limit = settings.limit.unwrap_or_else(usable);
        Arc::new(Store {
            number: NUMBERS.fetch_add(1, Relaxed),
            limit,
            eviction: settings.eviction,
            objects: Objects::new(&settings.name, settings.backing, settings.compression),
            resident: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            active: AtomicI64::new(0),
            busy: AtomicU32::new(0),
            absent: AtomicU64::new(0),
            hungry: AtomicBool::new(false),
            first: AtomicU64::new(u64::MAX),
            names: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_made: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            load_nanos: AtomicU64::new(0),
            write_nanos: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            ledger: Mutex::new(Ledger::new()),
            pool: OnceLock::new(),
            spillers: AtomicU32::new(0),
            spilling: Mutex::new(()),
            spilled: Condvar::new(),
        })
    }

    fn next_name(&self) -> u64 {
        self.names.fetch_add(1, Relaxed)
    }

    fn add_resident(&self, bytes: u64) {
        if bytes != 0 {
            let now = self.resident.fetch_add(bytes, SeqCst) + bytes;
            self.peak.fetch_max(now, Relaxed);
        }
    }

    /// Changes the ledger, and has everybody looked at who may go on by that.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Ledger, &Arc<Store>, &mut Settlement)) {
        let mut settlement = Settlement::default();
        {
            let mut ledger = self.ledger.lock();
            change(&mut ledger, self, &mut settlement);
            ledger.consider(self, &mut settlement);
        }
        settlement.settle(self);
        if self.busy.load(SeqCst) == 0
            && let Some(pool) = self.pool.get().and_then(Weak::upgrade)
        {
            pool.tell_room(); // Nothing may run now.
        }
        if self.spillers.load(SeqCst) != 0 && !self.is_over() {
            drop(self.spilling.lock());
            self.spilled.notify_all();
        }
    }

    /// A thread that is no worker has put a value into a chunk while memory was full: waits until others have left, as long as
    /// any are on their way. So who fills chunks in a loop does not outrun the disk.
    fn wait_for_room(&self) {
        let is_worker = local::with(|local| local.place().is_some() || local.task().is_some());
        if is_worker {
            return;
        }
        self.spillers.fetch_add(1, SeqCst);
        let mut lock = self.spilling.lock();
        while self.is_over() && self.ledger.lock().is_leaving() {
            // What leaves may stop doing so without anybody being told.
            self.spilled.wait_for(&mut lock, Duration::from_millis(20));
        }
        drop(lock);
        self.spillers.fetch_sub(1, SeqCst);
    }

    /// Removes all objects, if there are no chunks any more.
    pub(crate) async fn end(self: &Arc<Self>) {
        // Chunks that are left may be wanted still: their objects go with the last of them.
        if self.bytes_out.load(Relaxed) == 0 || !self.ledger.lock().entries.is_empty() {
            return;
        }
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let started = self.objects.run(move |objects| {
            objects.clear();
            let _ = tell.send(()); // Nobody may wait any more.
        });
        if started {
            let _ = told.await; // It has panicked, or is done.
        }
    }

    /// Looks who may go on.
    fn consider(self: &Arc<Self>) {
        self.change(|_, _, _| {});
    }

    fn consider_if_hungry(self: &Arc<Self>) {
        // SeqCst: see `Ledger::consider`.
        if self.hungry.load(SeqCst) {
            self.consider();
        }
    }

    /// Writes down that a value has moved. Under the lock of the ledger, so that the counts come in their order.
    fn note_move(&self, ledger: &Ledger, chunk: &dyn AnyChunk, bytes: u64, how: Move, took: Duration) {
        if !record::is_on() {
            return;
        }
        let (chunk, nanos) = (chunk.core().id(), took.as_nanos() as u64);
        record::note(|| What::Moved { chunk, bytes, how, nanos });
        let (store, resident, pinned) = (self.number, self.resident.load(Relaxed), ledger.pinned());
        record::note(|| What::Resident { store, bytes: resident, pinned });
    }

    fn is_over(&self) -> bool {
        self.resident.load(Relaxed) > self.limit
    }
}
