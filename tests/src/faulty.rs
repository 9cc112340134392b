//! A store with bad days: passes requests on to another one, but fails, refuses, alters or holds up some, as it is told at run
//! time.
//!
//! ```text
//!   put, get, delete, list ─▶ gate? ─▶ refused? ─▶ one in n? ─▶ inner store ─▶ lost, cut or altered? ─▶ answer
//! ```
//! 1. What fails by `one_in` fails at most three times in a row for the same path: five tries are always enough.
//! 2. What is injured stays so: each `get` of that path gives the same.
//! 3. Everything that was done to anybody is noted, so that a test can ask whether an error was deserved.

use crate::Gate;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Writes an object, or a part of it.
    Put,
    /// Reads one.
    Get,
    /// Removes one.
    Delete,
    /// Asks for their names.
    List,
}

/// What a request that is refused says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// An error that may go away.
    Passing,
    /// "No space left on device", as a local store wraps it.
    Full,
    /// No rights.
    Denied,
    /// No such object.
    Missing,
    /// Nothing: it panics.
    Panic,
}

/// What can have become of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injury {
    /// It is not there.
    Lost,
    /// Its second half is not there.
    Cut,
    /// A byte in the middle is another one.
    Altered,
}

#[derive(Default)]
struct Plan {
    /// One in n, by this seed.
    passing: Option<(u64, u64)>,
    /// After so many more of them.
    refused: HashMap<Op, (u64, Trouble)>,
    injured: Option<(u64, u64)>,
    injuries: HashMap<String, Injury>,
    all: Option<Injury>,
    held: HashMap<Op, Gate>,
}

#[derive(Default)]
struct Notes {
    requests: HashMap<Op, u64>,
    failed: u64,
    failed_in_a_row: HashMap<(Op, String), u32>,
    refused: HashSet<(Op, String)>,
    injured: HashSet<String>,
    /// That wait at a gate.
    waiting: HashMap<Op, u64>,
    open_uploads: i64,
}

#[derive(Default)]
struct State {
    plan: Mutex<Plan>,
    notes: Mutex<Notes>,
    noted: Condvar,
}

/// The store. Clones are the same one: keep one to change its faults while another is in use.
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    state: Arc<State>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Some number of these numbers.
fn hash(seed: u64, of: &str, more: u64) -> u64 {
    let bytes = of.bytes().map(u64::from).chain([more]);
    bytes.fold(seed ^ 0x9E37_79B9_7F4A_7C15, |h, b| {
        let h = (h ^ b).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        h ^ (h >> 29)
    }) >> 7
}

/// The name of an object without the prefix of its session, which is another one in each run.
fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

impl Faulty {
    /// Passes everything on until it is told otherwise.
    pub fn new(inner: impl ObjectStore) -> Self {
        Faulty { inner: Arc::new(inner), state: Arc::default() }
    }

    /// Over an empty store in memory.
    pub fn in_memory() -> Self {
        Self::new(InMemory::new())
    }

    /// One request in `n` fails, and goes better another time.
    pub fn one_in(&self, n: u64, seed: u64) {
        lock(&self.state.plan).passing = Some((n, seed));
    }

    /// All requests of a kind fail from now on.
    pub fn refuse(&self, op: Op, trouble: Trouble) {
        self.refuse_after(op, 0, trouble);
    }

    /// So many more requests of a kind are answered, then they fail.
    pub fn refuse_after(&self, op: Op, more: u64, trouble: Trouble) {
        lock(&self.state.plan).refused.insert(op, (more, trouble));
    }

    /// One object in `n` is lost, cut or altered, whatever is written.
    pub fn injure_one_in(&self, n: u64, seed: u64) {
        lock(&self.state.plan).injured = Some((n, seed));
    }

    /// All objects are injured, those that come too.
    pub fn injure_all(&self, injury: Injury) {
        lock(&self.state.plan).all = Some(injury);
    }

    /// This object is injured.
    pub fn injure(&self, path: &str, injury: Injury) {
        lock(&self.state.plan).injuries.insert(path.to_owned(), injury);
    }

    /// Requests of a kind wait at this gate.
    pub fn hold(&self, op: Op) -> Gate {
        let gate = Gate::new();
        lock(&self.state.plan).held.insert(op, gate.clone());
        gate
    }

    /// From now on every request is answered as it should be; who waits at a gate goes on.
    pub fn heal(&self) {
        let plan = std::mem::take(&mut *lock(&self.state.plan));
        plan.held.values().for_each(Gate::open);
    }

    /// Requests of a kind until now.
    pub fn requests(&self, op: Op) -> u64 {
        lock(&self.state.notes).requests.get(&op).copied().unwrap_or(0)
    }

    /// Requests that were made fail.
    pub fn failed(&self) -> u64 {
        lock(&self.state.notes).failed
    }

    /// Whether a request of this kind for this path was refused for good.
    pub fn has_refused(&self, op: Op, path: &str) -> bool {
        lock(&self.state.notes).refused.contains(&(op, path.to_owned()))
    }

    /// Whether somebody asked for this object and did not get what was written.
    pub fn has_injured(&self, path: &str) -> bool {
        lock(&self.state.notes).injured.contains(path)
    }

    /// Uploads in parts that were neither completed nor aborted.
    pub fn open_uploads(&self) -> i64 {
        lock(&self.state.notes).open_uploads
    }

    /// The paths of all objects, past all faults.
    pub fn paths(&self) -> Vec<String> {
        let all = self.inner.list(None).map(|object| object.map(|object| object.location.to_string()));
        let found = futures::executor::block_on(all.collect::<Vec<_>>());
        found.into_iter().filter_map(Result::ok).collect()
    }

    /// Blocks until `n` requests of a kind wait at the gate. Panics if they do not come.
    pub fn wait_held(&self, op: Op, n: u64) {
        self.wait(|notes| notes.waiting.get(&op).copied().unwrap_or(0) >= n, "requests at the gate");
    }

    /// Blocks until there were `n` requests of a kind. Panics if they do not come.
    pub fn wait_requests(&self, op: Op, n: u64) {
        self.wait(|notes| notes.requests.get(&op).copied().unwrap_or(0) >= n, "requests");
    }

    /// Blocks until there is no object any more. Panics if that does not come.
    pub fn wait_empty(&self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let before = self.requests(Op::Delete);
            let left = self.paths();
            if left.is_empty() {
                return;
            }
            let notes = lock(&self.state.notes);
            let none_since =
                |notes: &mut Notes| notes.requests.get(&Op::Delete).copied().unwrap_or(0) == before;
            // A delete is noted before it is done: look again soon.
            let (notes, _) = self
                .state
                .noted
                .wait_timeout_while(notes, Duration::from_millis(20), none_since)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            drop(notes);
            assert!(Instant::now() < until, "objects are left: {left:?}");
        }
    }

    #[track_caller]
    fn wait(&self, is_so: impl Fn(&Notes) -> bool, what: &str) {
        let notes = lock(&self.state.notes);
        let (notes, waited) = self
            .state
            .noted
            .wait_timeout_while(notes, PATIENCE, |notes| !is_so(notes))
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(!waited.timed_out(), "no such {what}: {:?}", notes.requests);
    }

    fn note<T>(&self, note: impl FnOnce(&mut Notes) -> T) -> T {
        let noted = note(&mut lock(&self.state.notes));
        self.state.noted.notify_all();
        noted
    }

    async fn pass(&self, op: Op, path: &Path) -> Result<()> {
        let gate = lock(&self.state.plan).held.get(&op).cloned();
        let number = self.note(|notes| {
            let number = notes.requests.entry(op).or_default();
            *number += 1;
            *number
        });
        if let Some(gate) = gate {
            self.note(|notes| *notes.waiting.entry(op).or_default() += 1);
            let _leaves = Leaves(self, op);
            gate.pass().await;
        }
        let (trouble, passing) = {
            let mut plan = lock(&self.state.plan);
            let refused = plan.refused.get_mut(&op);
            let trouble = refused.and_then(|(left, trouble)| {
                let is_due = *left == 0;
                *left = left.saturating_sub(1);
                is_due.then_some(*trouble)
            });
            (trouble, plan.passing)
        };
        if let Some(trouble) = trouble {
            self.note(|notes| {
                notes.failed += 1;
                notes.refused.insert((op, path.to_string()));
            });
            return Err(error(op, path, trouble));
        }
        let key = (op, path.to_string());
        let fails =
            passing.is_some_and(|(n, seed)| hash(seed, name(path.as_ref()), number).is_multiple_of(n));
        let fails = self.note(|notes| {
            let in_a_row = notes.failed_in_a_row.entry(key).or_default();
            let fails = fails && *in_a_row < 3;
            *in_a_row = if fails { *in_a_row + 1 } else { 0 };
            notes.failed += u64::from(fails);
            fails
        });
        if fails { Err(error(op, path, Trouble::Passing)) } else { Ok(()) }
    }

    fn injury(&self, path: &Path) -> Option<Injury> {
        const ALL: [Injury; 3] = [Injury::Lost, Injury::Cut, Injury::Altered];
        let plan = lock(&self.state.plan);
        let by_chance = plan.injured.and_then(|(n, seed)| {
            let hash = hash(seed, name(path.as_ref()), 0);
            hash.is_multiple_of(n).then(|| ALL[(hash / n % 3) as usize])
        });
        let injury = plan.injuries.get(path.as_ref()).copied().or(plan.all).or(by_chance);
        drop(plan);
        if injury.is_some() {
            self.note(|notes| notes.injured.insert(path.to_string()));
        }
        injury
    }
}

/// What does not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request that waits at a gate, or was dropped there.
struct Leaves<'a>(&'a Faulty, Op);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.note(|notes| *notes.waiting.entry(self.1).or_default() -= 1);
    }
}

fn error(op: Op, path: &Path, trouble: Trouble) -> object_store::Error {
    let path = path.to_string();
    match trouble {
        Trouble::Passing => {
            object_store::Error::Generic { store: "Faulty", source: format!("{op:?}: a bad day").into() }
        }
        Trouble::Full => object_store::Error::Generic {
            store: "Faulty",
            source: Box::new(io::Error::from_raw_os_error(28)), // ENOSPC
        },
        Trouble::Denied => object_store::Error::PermissionDenied { path, source: "not for you".into() },
        Trouble::Missing => object_store::Error::NotFound { path, source: "it is gone".into() },
        Trouble::Panic => panic!("{op:?} of {path}: the store panics"),
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, to: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.pass(Op::Put, to).await?;
        self.inner.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.pass(Op::Put, to).await?;
        let upload = self.inner.put_multipart_opts(to, options).await?;
        self.note(|notes| notes.open_uploads += 1);
        Ok(Box::new(Upload { upload, to: to.clone(), store: self.clone() }))
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.pass(Op::Get, from).await?;
        let Some(injury) = self.injury(from) else { return self.inner.get_opts(from, options).await };
        if injury == Injury::Lost {
            return Err(error(Op::Get, from, Trouble::Missing));
        }
        let good = self.inner.get_opts(from, options).await?;
        let (mut meta, attributes, extensions) =
            (good.meta.clone(), good.attributes.clone(), good.extensions.clone());
        let mut bytes = good.bytes().await?.to_vec();
        let half = bytes.len() / 2;
        match injury {
            Injury::Altered => {
                if let Some(byte) = bytes.get_mut(half) {
                    *byte ^= 1;
                }
            }
            _ => bytes.truncate(half),
        }
        meta.size = bytes.len() as u64;
        let range = 0..meta.size;
        let stream = futures::stream::once(async move { Ok(Bytes::from(bytes)) }).boxed();
        Ok(GetResult { payload: GetResultPayload::Stream(stream), meta, range, attributes, extensions })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let paths = paths.then(move |path| {
            let store = store.clone();
            async move {
                let path = path?;
                store.pass(Op::Delete, &path).await?;
                Ok(path)
            }
        });
        self.inner.delete_stream(paths.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, inner) = (self.clone(), self.inner.list(prefix));
        let first = async move { store.pass(Op::List, &Path::default()).await };
        let mut inner = Some(inner);
        let all = futures::stream::once(first).flat_map(move |passed| match passed {
            Ok(()) => inner.take().unwrap_or_else(|| futures::stream::empty().boxed()),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        });
        all.boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.pass(Op::List, &Path::default()).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.pass(Op::Put, to).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    to: Path,
    store: Faulty,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, to, part) = (self.store.clone(), self.to.clone(), self.upload.put_part(data));
        Box::pin(async move {
            store.pass(Op::Put, &to).await?;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.pass(Op::Put, &self.to).await?;
        let result = self.upload.complete().await?;
        self.store.note(|notes| notes.open_uploads -= 1);
        Ok(result)
    }

    /// Never fails: it is what comes after a failure.
    async fn abort(&mut self) -> Result<()> {
        self.store.note(|notes| notes.open_uploads -= 1);
        self.upload.abort().await
    }
}
