//! Folders, stores that wait or fail, the log, and a type of our own.

use async_trait::async_trait;
use dagger_async::prelude::*;
use dagger_async::store::Spill;
use dagger_tests::Gate;
use dagger_tests::Scratch;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as StorePath;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// A folder of this test, removed at the end.
pub struct Folder(Scratch);

impl Folder {
    pub fn new() -> Folder {
        Folder(Scratch::new("checkpoint"))
    }
    pub fn path(&self) -> &Path {
        &self.0.0
    }
    /// The file of a checkpoint.
    pub fn file(&self, path: &str) -> PathBuf {
        self.0.0.join("checkpoints").join(path)
    }
    /// All files in it, from its root.
    pub fn files(&self) -> Vec<String> {
        let (mut found, mut folders) = (Vec::new(), vec![self.0.0.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(&self.0.0).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }
}

/// A kind of store that outlives the runtimes that use it.
#[derive(Clone)]
pub enum Place {
    Local(Arc<Folder>),
    Memory(Arc<InMemory>),
}

impl Place {
    pub fn all() -> [Place; 2] {
        [Place::local(), Place::Memory(Arc::default())]
    }
    pub fn local() -> Place {
        Place::Local(Arc::new(Folder::new()))
    }
    pub fn folder(&self) -> &Folder {
        match self {
            Place::Local(folder) => folder,
            Place::Memory(_) => panic!("it has no folder"),
        }
    }
    pub fn is_local(&self) -> bool {
        matches!(self, Place::Local(_))
    }
    pub fn builder(&self, workers: usize) -> dagger_async::Builder {
        let builder = Runtime::builder().threads(workers).pin(false);
        match self {
            Place::Local(folder) => {
                builder.checkpoint_to(LocalFileSystem::new_with_prefix(folder.path()).unwrap())
            }
            Place::Memory(store) => builder.checkpoint_to(store.clone()),
        }
    }
    /// A new run of the program.
    pub fn run(&self, workers: usize) -> Runtime {
        self.builder(workers).build().unwrap()
    }
}

/// A store whose writes wait at a gate, or fail.
#[derive(Clone, Debug)]
pub struct Slow {
    inner: Arc<InMemory>,
    pub gate: Shown<Gate>,
    /// A write has come to the gate.
    pub came: Shown<Gate>,
    pub is_full: Arc<AtomicBool>,
    pub hides: Arc<AtomicBool>,
}

#[derive(Clone)]
pub struct Shown<T>(pub T);

impl<T> fmt::Debug for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

impl Slow {
    pub fn new(gate: Gate) -> Slow {
        let (is_full, hides) = Default::default();
        Slow { inner: Arc::default(), gate: Shown(gate), came: Shown(Gate::new()), is_full, hides }
    }
    fn error(&self, kind: io::ErrorKind) -> object_store::Error {
        object_store::Error::Generic { store: "Slow", source: Box::new(io::Error::from(kind)) }
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slow")
    }
}

#[async_trait]
impl ObjectStore for Slow {
    async fn put_opts(&self, to: &StorePath, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.came.0.open();
        self.gate.0.pass().await;
        if self.is_full.load(SeqCst) {
            return Err(self.error(io::ErrorKind::StorageFull));
        }
        self.inner.put_opts(to, payload, options).await
    }
    async fn put_multipart_opts(
        &self,
        to: &StorePath,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, options).await
    }
    async fn get_opts(&self, from: &StorePath, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(from, options).await
    }
    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<StorePath>>,
    ) -> BoxStream<'static, Result<StorePath>> {
        self.inner.delete_stream(paths)
    }
    fn list(&self, prefix: Option<&StorePath>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.hides.load(SeqCst) {
            let error = self.error(io::ErrorKind::PermissionDenied);
            return futures::stream::once(async { Err(error) }).boxed();
        }
        self.inner.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&StorePath>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &StorePath, to: &StorePath, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A value that is not `Clone`.
#[derive(Debug, PartialEq)]
pub struct Unique(pub u64);

impl Spill for Unique {
    fn bytes(&self) -> usize {
        0
    }
    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.0.to_le_bytes())
    }
    fn reload(from: &mut dyn Read) -> io::Result<Self> {
        u64::reload(from).map(Unique)
    }
}
