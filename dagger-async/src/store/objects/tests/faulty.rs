//! A store with bad days: passes requests on to another one, but fails, refuses or delays some, as it is told at run time.

// It is to stand on its own.
#![allow(unreachable_pub)]

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// What a request that fails says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// An error that may go away.
    Passing,
    /// No room: requests that write fail, others do not.
    Full,
    /// No rights.
    Denied,
}

/// Which requests fail, and how.
#[derive(Clone, Debug, Default)]
struct Plan {
    /// Every n-th request fails so.
    trouble: Option<(u64, Trouble)>,
    delay: Option<Duration>,
}

#[derive(Default, Debug)]
struct Counts {
    requests: u64,
    failed: u64,
    deleted: u64,
    open_uploads: i64,
    parts: u64,
    parts_max: u64,
}

/// The store. Clones are the same one: keep one to change its faults while another is in use.
#[derive(Clone, Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Mutex<Plan>>,
    counts: Arc<(Mutex<Counts>, Condvar)>,
}

impl Faulty {
    /// Passes everything on until it is told otherwise.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Faulty { inner, plan: Arc::default(), counts: Arc::default() }
    }

    /// Every `n`-th request from now on fails with `trouble`; `fail_every(1, ..)` all of them.
    pub fn fail_every(&self, n: u64, trouble: Trouble) {
        self.plan.lock().unwrap().trouble = Some((n, trouble));
    }

    /// Every request takes this much longer.
    pub fn delay(&self, delay: Duration) {
        self.plan.lock().unwrap().delay = Some(delay);
    }

    /// No request fails or waits any more.
    pub fn heal(&self) {
        *self.plan.lock().unwrap() = Plan::default();
    }

    /// Requests until now: all of them, and those that were made fail.
    pub fn requests(&self) -> (u64, u64) {
        let counts = self.counts.0.lock().unwrap();
        (counts.requests, counts.failed)
    }

    /// Uploads in parts that were neither completed nor aborted.
    pub fn open_uploads(&self) -> i64 {
        self.counts.0.lock().unwrap().open_uploads
    }

    /// How many parts were on their way at the same time, at most.
    pub fn parts_max(&self) -> u64 {
        self.counts.0.lock().unwrap().parts_max
    }

    /// Blocks until `n` objects have been deleted, but not for ever: whether they were.
    pub fn wait_for_deleted(&self, n: u64) -> bool {
        let counts = self.counts.0.lock().unwrap();
        let waited = self.counts.1.wait_timeout_while(counts, Duration::from_secs(20), |c| c.deleted < n);
        !waited.unwrap().1.timed_out()
    }

    async fn pass(&self, what: &'static str, writes: bool) -> Result<()> {
        let plan = self.plan.lock().unwrap().clone();
        let number = {
            let mut counts = self.counts.0.lock().unwrap();
            counts.requests += 1;
            counts.requests
        };
        if let Some(delay) = plan.delay {
            tokio::time::sleep(delay).await;
        }
        match plan.trouble {
            Some((n, trouble)) if number.is_multiple_of(n) && (writes || trouble != Trouble::Full) => {
                self.counts.0.lock().unwrap().failed += 1;
                Err(error(what, trouble))
            }
            _ => Ok(()),
        }
    }

    fn count(&self, note: impl FnOnce(&mut Counts)) {
        note(&mut self.counts.0.lock().unwrap());
        self.counts.1.notify_all();
    }
}

fn error(what: &'static str, trouble: Trouble) -> object_store::Error {
    let store = "Faulty";
    match trouble {
        Trouble::Passing => {
            object_store::Error::Generic { store, source: format!("{what}: a bad day").into() }
        }
        // As a local store wraps it.
        Trouble::Full => object_store::Error::Generic {
            store,
            source: Box::new(io::Error::from(io::ErrorKind::StorageFull)),
        },
        Trouble::Denied => {
            object_store::Error::PermissionDenied { path: what.into(), source: "not for you".into() }
        }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.pass("put", true).await?;
        self.inner.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.pass("put_multipart", true).await?;
        let upload = self.inner.put_multipart_opts(to, options).await?;
        self.count(|counts| counts.open_uploads += 1);
        Ok(Box::new(Upload { upload, store: self.clone() }))
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass("get", false).await?;
        self.inner.get_opts(from, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let paths = paths.then(move |path| {
            let store = store.clone();
            async move { store.pass("delete", false).await.and(path) }
        });
        let store = self.clone();
        let deleted = self.inner.delete_stream(paths.boxed());
        deleted
            .inspect(move |result| store.count(|counts| counts.deleted += u64::from(result.is_ok())))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, inner) = (self.clone(), self.inner.list(prefix));
        let first = async move { store.pass("list", false).await };
        let all = futures::stream::once(first).flat_map({
            let mut inner = Some(inner);
            move |passed| match passed {
                Ok(()) => inner.take().unwrap_or_else(|| futures::stream::empty().boxed()),
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            }
        });
        all.boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.pass("list", false).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.pass("copy", true).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    store: Faulty,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, part) = (self.store.clone(), self.upload.put_part(data));
        Box::pin(async move {
            store.count(|counts| {
                counts.parts += 1;
                counts.parts_max = counts.parts_max.max(counts.parts);
            });
            let passed = store.pass("part", true).await;
            let result = if passed.is_ok() { part.await } else { passed };
            store.count(|counts| counts.parts -= 1);
            result
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.pass("complete", true).await?;
        let result = self.upload.complete().await?;
        self.store.count(|counts| counts.open_uploads -= 1);
        Ok(result)
    }

    /// Never fails: it is what comes after a failure.
    async fn abort(&mut self) -> Result<()> {
        self.store.count(|counts| counts.open_uploads -= 1);
        self.upload.abort().await
    }
}
