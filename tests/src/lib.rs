//! What the tests share: a watchdog, gates that threads and tasks can wait at, counted values, bodies of every kind.
//!
//! ```text
//!   for_each_case(|case| ..)      case = runtime with 1, 2 or 8 workers × kind of body
//!   case.kind.spawn(options, Body::new().returns(7))      ─▶ DTask<Output>
//! ```
//! 1. No test sleeps to be in step with a task: it waits at a [`Gate`], or for a value that says so.
//! 2. No test hangs: [`watched`] ends it after a minute, with its name (`DAGGER_TESTS_SECONDS` sets another limit).

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

pub mod faulty;
mod log;

pub use log::{keep_log, logged, logged_as};

use dagger_async::prelude::*;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// The numbers of workers that every situation is tried with.
pub const WORKERS: [usize; 3] = [1, 2, 8];

/// Runs `test` on a thread of its own and panics if it has not ended after a minute.
#[track_caller]
pub fn watched(test: impl FnOnce() + Send + 'static) {
    watched_as(String::new(), test);
}

#[track_caller]
fn watched_as(case: String, test: impl FnOnce() + Send + 'static) {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let place = Location::caller();
    let (done, ended) = mpsc::channel();
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(test));
        let _ = done.send(result);
    });
    thread.unwrap();
    let seconds = std::env::var("DAGGER_TESTS_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    match ended.recv_timeout(Duration::from_secs(seconds)) {
        Ok(Ok(())) => {}
        Ok(Err(payload)) => {
            eprintln!("in {name} {case}");
            resume_unwind(payload)
        }
        Err(_) => panic!("{name} {case} ({place}) has not ended after {seconds} s"),
    }
}

/// Runs the future on a runtime with so many workers, watched. Used where the kind of body does not matter.
#[track_caller]
pub fn on_workers<F, M>(workers: usize, make: M)
where
    M: FnOnce(Arc<Runtime>) -> F + Send + 'static,
    F: Future<Output = ()>,
{
    watched_as(format!("on {workers} workers"), move || {
        let rt = runtime(workers);
        rt.block_on(make(rt.clone()));
    });
}

/// Runs the future on 1, 2 and 8 workers.
#[track_caller]
pub fn on_all_workers<F, M>(make: M)
where
    M: Fn(Arc<Runtime>) -> F + Clone + Send + 'static,
    F: Future<Output = ()>,
{
    for workers in WORKERS {
        on_workers(workers, make.clone());
    }
}

/// A runtime with so many workers.
pub fn runtime(workers: usize) -> Arc<Runtime> {
    Arc::new(Runtime::builder().threads(workers).pin(false).name(format!("test-{workers}")).build().unwrap())
}

/// Runs `test` of the test `name` in a process of its own: for what might abort it.
#[track_caller]
pub fn isolated(name: &str, test: impl FnOnce() + Send + 'static) {
    const INSIDE: &str = "DAGGER_TESTS_ISOLATED";
    if std::env::var(INSIDE).as_deref() == Ok(name) {
        watched(test);
        return;
    }
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).args(["--exact", name, "--nocapture"]).env(INSIDE, name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let tail =
        text.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
    assert!(output.status.success(), "the process of {name} ended with {}:\n{tail}", output.status);
}

/// A small generator, so that a failing case is named by its seed.
pub struct Random(pub u64);

impl Random {
    /// A number below that.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

/// A door that is opened once; threads and tasks can wait at it.
#[derive(Clone, Default)]
pub struct Gate(Arc<GateState>);

#[derive(Default)]
struct GateState {
    open: Mutex<bool>,
    opened: Condvar,
    notify: tokio::sync::Notify,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }
    /// An open one.
    pub fn opened() -> Self {
        let gate = Self::new();
        gate.open();
        gate
    }
    /// Lets everybody pass from now on.
    pub fn open(&self) {
        *self.0.open.lock().unwrap() = true;
        self.0.opened.notify_all();
        self.0.notify.notify_waiters();
    }
    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        *self.0.open.lock().unwrap()
    }
    /// Blocks the thread until it is open.
    pub fn block(&self) {
        let open = self.0.open.lock().unwrap();
        drop(self.0.opened.wait_while(open, |open| !*open).unwrap());
    }
    /// Waits until it is open.
    pub async fn pass(&self) {
        loop {
            let notified = self.0.notify.notified();
            if self.is_open() {
                return;
            }
            notified.await;
        }
    }
}

/// Counts how many of its [`Item`]s were made and dropped.
#[derive(Clone, Default)]
pub struct Census(Arc<(AtomicUsize, AtomicUsize)>);

impl Census {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }
    /// One more.
    pub fn item(&self) -> Item {
        self.0.0.fetch_add(1, SeqCst);
        Item(self.clone())
    }
    /// How many were made.
    pub fn made(&self) -> usize {
        self.0.0.load(SeqCst)
    }
    /// How many were dropped.
    pub fn dropped(&self) -> usize {
        self.0.1.load(SeqCst)
    }
}

/// One of a [`Census`]. A clone is another one.
pub struct Item(Census);

impl Clone for Item {
    fn clone(&self) -> Self {
        self.0.item()
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.0.0.1.fetch_add(1, SeqCst);
    }
}

/// What a [`Body`] gives: a number, and an item that counts results. Not `Clone`.
pub struct Output {
    /// The number.
    pub value: i32,
    /// Counts results.
    pub item: Item,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// The error of the bodies that fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// How a body ends.
#[derive(Clone, Debug)]
pub enum End {
    /// With a value.
    Value(i32),
    /// With an `Err`; in a body that cannot, with a panic of the same text.
    Err(String),
    /// With a panic.
    Panic(String),
}

/// What the body of a task does: says that it has started, waits at a gate, ends.
#[derive(Clone)]
pub struct Body {
    /// Opened when it runs.
    pub started: Gate,
    /// Waited for before it ends.
    pub go: Gate,
    /// Opened after that.
    pub left: Gate,
    /// How it ends.
    pub end: End,
    /// Counts what the body holds.
    pub held: Census,
    /// Counts results.
    pub results: Census,
    /// How often it ran.
    pub runs: Arc<AtomicUsize>,
}

impl Default for Body {
    fn default() -> Self {
        Body {
            started: Gate::new(),
            go: Gate::opened(),
            left: Gate::new(),
            end: End::Value(0),
            held: Census::new(),
            results: Census::new(),
            runs: Arc::default(),
        }
    }
}

impl Body {
    /// Ends at once with the value 0.
    pub fn new() -> Self {
        Self::default()
    }
    /// Waits at `go`, which is closed.
    pub fn waits(mut self) -> Self {
        self.go = Gate::new();
        self
    }
    /// Ends with this value.
    pub fn returns(mut self, value: i32) -> Self {
        self.end = End::Value(value);
        self
    }
    /// Ends with this error.
    pub fn fails(mut self, text: &str) -> Self {
        self.end = End::Err(text.to_owned());
        self
    }
    /// Panics with this text.
    pub fn panics(mut self, text: &str) -> Self {
        self.end = End::Panic(text.to_owned());
        self
    }
    /// How often it ran.
    pub fn runs(&self) -> usize {
        self.runs.load(SeqCst)
    }

    fn finish(&self) -> Result<Output, Failure> {
        self.left.open();
        match &self.end {
            End::Value(value) => Ok(Output { value: *value, item: self.results.item() }),
            End::Err(text) => Err(Failure(text.clone())),
            End::Panic(text) => panic!("{text}"),
        }
    }
    fn start(&self) {
        self.runs.fetch_add(1, SeqCst);
        self.started.open();
    }
}

/// A body and an item that it holds.
type Held = (Body, Item);

fn try_sync((body, _item): Held) -> Result<Output, Failure> {
    body.start();
    body.go.block();
    body.finish()
}
fn plain_sync(held: Held) -> Output {
    try_sync(held).unwrap_or_else(|failure| panic!("{failure}"))
}
async fn try_async((body, _item): Held) -> Result<Output, Failure> {
    body.start();
    body.go.pass().await;
    body.finish()
}
async fn plain_async(held: Held) -> Output {
    try_async(held).await.unwrap_or_else(|failure| panic!("{failure}"))
}

/// The kinds of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `spawn!(f(x))`
    Sync,
    /// `spawn!(f(x)?)`
    TrySync,
    /// `spawn!(async f(x))`
    AsyncFn,
    /// `spawn!(async f(x)?)`
    TryAsyncFn,
    /// `spawn(future)`
    Future,
    /// `try_spawn(future)`
    TryFuture,
    /// `spawn!(f(x)?; blocking = true)`
    Blocking,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 7] = [
        Kind::Sync,
        Kind::TrySync,
        Kind::AsyncFn,
        Kind::TryAsyncFn,
        Kind::Future,
        Kind::TryFuture,
        Kind::Blocking,
    ];
    /// True if the body can be dropped where it waits.
    pub fn is_async(self) -> bool {
        !matches!(self, Kind::Sync | Kind::TrySync | Kind::Blocking)
    }
    /// True if an `Err` fails the task.
    pub fn is_fallible(self) -> bool {
        matches!(self, Kind::TrySync | Kind::TryAsyncFn | Kind::TryFuture | Kind::Blocking)
    }
    /// True if the body keeps a worker from other tasks while it waits.
    pub fn occupies_worker(self) -> bool {
        matches!(self, Kind::Sync | Kind::TrySync)
    }

    /// Spawns the body.
    #[track_caller]
    pub fn spawn(self, options: Options, body: &Body) -> DTask<Output> {
        let held = (body.clone(), body.held.item());
        match self {
            Kind::Sync => spawn!(plain_sync(held); ..options),
            Kind::TrySync => spawn!(try_sync(held)?; ..options),
            Kind::AsyncFn => spawn!(async plain_async(held); ..options),
            Kind::TryAsyncFn => spawn!(async try_async(held)?; ..options),
            Kind::Future => options.spawn(plain_async(held)),
            Kind::TryFuture => options.try_spawn(try_async(held)),
            Kind::Blocking => spawn!(try_sync(held)?; blocking = true, ..options),
        }
    }

    /// Spawns the body with `retries`, the macro's or `retry`.
    #[track_caller]
    pub fn spawn_retrying(self, options: Options, body: &Body, n: u32, d: Duration) -> DTask<Output> {
        let held = (body.clone(), body.held.item());
        match self {
            Kind::Sync => spawn!(plain_sync(held); retries = n, retry_delay = d, ..options),
            Kind::TrySync => spawn!(try_sync(held)?; retries = n, retry_delay = d, ..options),
            Kind::AsyncFn => spawn!(async plain_async(held); retries = n, retry_delay = d, ..options),
            Kind::TryAsyncFn => spawn!(async try_async(held)?; retries = n, retry_delay = d, ..options),
            Kind::Future => options.spawn(retry(n, d, move || plain_async(held.clone()))),
            Kind::TryFuture => options.try_spawn(retry(n, d, move || try_async(held.clone()))),
            Kind::Blocking => {
                spawn!(try_sync(held)?; retries = n, retry_delay = d, blocking = true, ..options)
            }
        }
    }
}

/// A kind of body and a runtime to try it on.
#[derive(Clone)]
pub struct Case {
    /// The runtime.
    pub rt: Arc<Runtime>,
    /// How many workers it has.
    pub workers: usize,
    /// The kind of body.
    pub kind: Kind,
}

impl Case {
    /// Spawns a body of this kind.
    #[track_caller]
    pub fn spawn(&self, body: &Body) -> DTask<Output> {
        self.kind.spawn(Options::new(), body)
    }
    /// Spawns a body of this kind with options.
    #[track_caller]
    pub fn spawn_with(&self, options: Options, body: &Body) -> DTask<Output> {
        self.kind.spawn(options, body)
    }
    /// Keeps every worker busy until the gate that it gives is opened.
    pub async fn occupy(&self) -> Gate {
        let go = Gate::new();
        for _ in 0..self.workers {
            let body = Body { go: go.clone(), ..Body::new() };
            Kind::Sync.spawn(Options::new().name("occupier"), &body);
            body.started.pass().await;
        }
        go
    }
}

/// Walks the product of kinds and numbers of workers; each case is watched.
#[track_caller]
pub fn for_each_case<F, M>(make: M)
where
    M: Fn(Case) -> F + Clone + Send + 'static,
    F: Future<Output = ()>,
{
    for workers in WORKERS {
        for kind in Kind::ALL {
            let make = make.clone();
            watched_as(format!("({kind:?} on {workers} workers)"), move || {
                let rt = runtime(workers);
                let case = Case { rt: rt.clone(), workers, kind };
                rt.block_on(make(case));
                // What still runs ends, and nothing was lost on the way.
                rt.block_on(rt.idle());
            });
        }
    }
}

/// How long `run` took.
pub async fn timed<R>(run: impl Future<Output = R>) -> (R, Duration) {
    let start = Instant::now();
    let result = run.await;
    (result, start.elapsed())
}

/// Looks until it is so: for what other threads bring about, and nobody tells. Fails after 20 s.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

/// A folder of its own under the system's for temporary files, which goes with all that is in it.
pub struct Scratch(pub PathBuf);

impl Scratch {
    /// A new one, for the tests of this name.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("dagger-{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, SeqCst));
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path); // Of a process with this number that was killed.
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
