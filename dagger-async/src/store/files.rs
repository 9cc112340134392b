//! Chunks whose values come from elsewhere: computed when they are needed, or read from a file.
//!
//! Such a chunk has a copy from the start, which is what makes its value. While it is not written to it leaves memory without
//! being written down, and is made again.

use super::format::Format;
use super::hooks::bind_absent;
use super::jobs;
use super::ledger::Recipe;
use super::objects::Failure;
use crate::chunk::{AnyChunk, Chunk, ChunkCell, ReadGuard};
use crate::error::Result;
use crate::pool::local;
use std::fs::{self, File};
use std::io;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::oneshot;

/// What computes a value.
struct Computed<F>(F);

impl<T, F: Fn() -> T + Send + Sync> Recipe for Computed<F> {
    unsafe fn make(&self, room: *mut u8) -> io::Result<()> {
        let value = (self.0)();
        // SAFETY: the caller's promise: the recipe was made for this type.
        unsafe { room.cast::<T>().write(value) };
        Ok(())
    }
    fn path(&self) -> String {
        format!("what `{}` makes", std::any::type_name::<F>())
    }
}

/// A file that holds a value.
struct InFile<T, F> {
    path: Arc<Path>,
    format: F,
    value: PhantomData<fn() -> T>,
}

impl<T, F: Format<T>> Recipe for InFile<T, F> {
    unsafe fn make(&self, room: *mut u8) -> io::Result<()> {
        let value = self.format.read(&mut File::open(&self.path)?)?;
        // SAFETY: the caller's promise: the recipe was made for this type.
        unsafe { room.cast::<T>().write(value) };
        Ok(())
    }
    fn path(&self) -> String {
        self.path.display().to_string()
    }
}

/// A file that goes with its chunk.
pub(super) struct Temporary(Arc<Path>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(target: "dagger", "{} could not be removed with its chunk: {error}", self.0.display());
        }
    }
}

/// Writes a file beside its place and then puts it there: nobody finds half of it.
fn write_file<T>(value: &T, path: &Path, format: &impl Format<T>) -> io::Result<()> {
    // A name of its own: two may write to one path at once.
    static PARTS: AtomicU64 = AtomicU64::new(0);
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}-{}.part", std::process::id(), PARTS.fetch_add(1, Relaxed)));
    let part = PathBuf::from(part);
    let write = || {
        let mut file = File::create(&part)?;
        format.write(value, &mut file)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&part); // The first error counts.
    }
    written
}

impl<T: Send + Sync + 'static> Chunk<T> {
    /// A chunk whose value is in a file, which is opened when a task or guard first needs it.
    ///
    /// What is wrong with the file is the [`Error::Reload`](crate::Error::Reload) of those who need the value. The budget reserves as
    /// much as the file is long; the value counts as what it occupies. Writing to the chunk does not change the file:
    /// [`to_file`](Self::to_file) does. The file stays when the chunk is dropped.
    ///
    /// ```
    /// use dagger_async::prelude::*;
    /// use dagger_async::store::Npy;
    /// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
    /// # let path = std::env::temp_dir().join(format!("dagger-from-file-{}.npy", std::process::id()));
    /// Chunk::new(vec![1.0f64, 2.0, 3.0]).to_file(&path, Npy).await?;
    /// let read: Chunk<Vec<f64>> = Chunk::from_file(&path, Npy);
    /// let sum = spawn!((|x: &Vec<f64>| x.iter().sum::<f64>())(&read));
    /// assert_eq!(sum.await?, 6.0);
    /// # drop(std::fs::remove_file(&path));
    /// # Ok(()) }
    /// ```
    #[track_caller]
    pub fn from_file(path: impl AsRef<Path>, format: impl Format<T>) -> Self {
        Self::in_file(path.as_ref().into(), format)
    }

    /// As [`from_file`](Self::from_file), of a file that is removed when the last handle of the chunk is dropped.
    #[track_caller]
    pub fn from_temporary_file(path: impl AsRef<Path>, format: impl Format<T>) -> Self {
        let path: Arc<Path> = path.as_ref().into();
        let chunk = Self::in_file(path.clone(), format);
        if let Some(residence) = chunk.0.core.residence() {
            residence.goes_with(Temporary(path));
        }
        chunk
    }

    #[track_caller]
    fn in_file(path: Arc<Path>, format: impl Format<T>) -> Self {
        let chunk = Self::without_value();
        // What is wrong with it shows when it is read.
        let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let recipe = InFile { path, format, value: PhantomData };
        bind_absent::<T>(ChunkCell::core_of(&chunk.0), bytes, Arc::new(recipe));
        chunk
    }

    /// Writes the value to a file, when the accesses before it have ended. The file is complete or not there: it is written beside
    /// its place (with a suffix that ends in `.part`), flushed to the disk, and renamed.
    ///
    /// It takes its place in the queue of the chunk when it is called; the file is written on a thread of the store.
    /// Dropping the future before the value is there leaves the file as it was.
    ///
    /// # Errors
    /// Those of [`read`](Chunk::read), and [`Error::Spill`](crate::Error::Spill) with the path and what is wrong.
    #[track_caller]
    pub fn to_file(
        &self,
        path: impl AsRef<Path>,
        format: impl Format<T>,
    ) -> impl Future<Output = Result<()>> + Send + 'static {
        let (access, path) = (self.read(), path.as_ref().to_owned());
        async move { write_guarded(access.await?, path, format).await }
    }
}

async fn write_guarded<T: Send + Sync + 'static>(
    guard: ReadGuard<T>,
    path: PathBuf,
    format: impl Format<T>,
) -> Result<()> {
    let owner: Arc<dyn AnyChunk> = guard.chunk().0;
    let place = path.display().to_string();
    let store = local::with(|local| {
        let pool = local.pool().unwrap_or_else(|| crate::runtime::default_pool());
        owner.core().residence().map_or_else(|| pool.store.clone(), |residence| residence.store.clone())
    });
    let (tell, told) = oneshot::channel();
    let started = store.objects.run(move |_| {
        // The format is a user's code.
        let written = catch_unwind(AssertUnwindSafe(|| write_file(&*guard, &path, &format)));
        drop(guard);
        let written = written.unwrap_or_else(|payload| {
            Err(io::Error::other(format!("it panicked: {}", crate::error::PanicText::of(payload))))
        });
        let _ = tell.send(written); // Nobody may want to know.
    });
    let written = match started {
        true => told.await.unwrap_or_else(|_| Err(io::Error::other("the store has ended"))),
        false => Err(jobs::no_thread()),
    };
    written.map_err(|error| jobs::spill_error(&*owner, &Failure::other(&place, error)))
}

impl<T: Send + Sync + 'static> Chunk<T> {
    /// A chunk whose value `make` computes when a task or guard first needs it, on a thread of the store.
    ///
    /// `bytes` is what the value will occupy, for the budget to be kept while it is made. While nobody has written to the
    /// chunk its value leaves memory without being written down, and is made again: `make` gives the same value each time.
    /// It runs on a thread of the store, and must not wait for tasks or chunks: their turn may come only after it.
    ///
    /// If it panics, who needs the value gets [`Error::Reload`](crate::Error::Reload), and the next one tries again.
    ///
    /// ```
    /// use dagger_async::prelude::*;
    /// # fn main() -> dagger_async::Result<()> {
    /// let rt = Runtime::builder().threads(2).memory_limit(1 << 20).build()?;
    /// rt.block_on(async {
    ///     // Sixteen times half a megabyte: never more than one megabyte in memory.
    ///     let parts: Vec<_> = (0..16u64).map(|i| Chunk::lazy(1 << 19, move || vec![i; 1 << 16])).collect();
    ///     let total = Chunk::new(0u64);
    ///     datadeps(async {
    ///         for part in &parts {
    ///             spawn!((|sum: &mut u64, part: &Vec<u64>| *sum += part.iter().sum::<u64>())(InOut(&total), In(part)));
    ///         }
    ///     })
    ///     .await?;
    ///     assert_eq!(*total.read().await?, (0..16).sum::<u64>() << 16);
    ///     assert!(rt.memory().peak <= 1 << 20);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    #[track_caller]
    pub fn lazy(bytes: u64, make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        let chunk = Self::without_value();
        bind_absent::<T>(ChunkCell::core_of(&chunk.0), bytes, Arc::new(Computed(make)));
        chunk
    }
}
