//! Programs are run, and what is seen is written down.

use super::call::{Body, Data, Log, Own, Stuck, fold, fresh, submit};
use super::program::{Cancel, Days, Kind, Make, Place, Program, Stmt, Strand, Task};
use dagger_async::prelude::*;
use dagger_async::store::{Eviction, Memory, register, register_size};
use dagger_tests::faulty::{Faulty, Op, Trouble};
use dagger_tests::{Gate, Scratch};
use object_store::local::LocalFileSystem;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How a task or guard ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    Value(u64),
    /// By itself, or by this root.
    Error {
        variant: &'static str,
        root: Option<String>,
        own: bool,
        error: Error,
    },
}

impl Outcome {
    pub fn of(error: Error, own: Option<&str>) -> Outcome {
        let variant = match &error {
            Error::Task { .. } => "Task",
            Error::Panicked { .. } => "Panicked",
            Error::Dependency { .. } => "Dependency",
            Error::Cancelled { .. } => "Cancelled",
            Error::Poisoned { .. } => "Poisoned",
            Error::TooLarge { .. } => "TooLarge",
            Error::Reload { .. } => "Reload",
            Error::Spill { .. } => "Spill",
            _ => "another",
        };
        let root = error.root().map(|root| root.name().to_owned());
        let own = root.as_deref() == own;
        Outcome::Error { variant, root, own, error }
    }
}

/// What a strand has shown.
#[derive(Default)]
pub struct Seen {
    /// Of tasks, guards, recoveries, what was taken out.
    pub outcomes: HashMap<usize, Outcome>,
    /// Whether each plan and block said that all was well, with the tasks in it.
    pub blocks: Vec<(bool, Vec<usize>)>,
    pub ran: HashSet<usize>,
    pub children: HashMap<usize, Error>,
    /// Each chunk at last: what a read gives, and then what a recovery does.
    pub ends: Vec<(Result<Data, Outcome>, Result<Data, Outcome>)>,
}

pub struct Run {
    pub strands: Vec<Seen>,
    /// When all was over, before the chunks were dropped.
    pub memory: Memory,
    pub faulty: Option<Faulty>,
}

#[derive(Clone)]
pub enum Slot {
    Vector(Chunk<Data>),
    Stuck(Chunk<Stuck>),
    Own(Chunk<Own>),
}

impl Slot {
    fn new(make: &Make) -> Slot {
        let Make { no, kind, len } = *make;
        let bytes = 8 * len as u64;
        match kind {
            Kind::Plain => Slot::Vector(Chunk::new(fresh(no, len))),
            Kind::Lazy => Slot::Vector(Chunk::lazy(bytes, move || fresh(no, len))),
            Kind::Made => Slot::Vector(Chunk::from_task(spawn!((move || fresh(no, len))(); name = "maker"))),
            Kind::Stuck => Slot::Stuck(Chunk::new(Stuck(fresh(no, len)))),
            Kind::LazyStuck => {
                let whole = bytes + size_of::<Stuck>() as u64;
                Slot::Stuck(Chunk::lazy(whole, move || Stuck(fresh(no, len))))
            }
            Kind::Own => Slot::Own(Chunk::new(Own(fresh(no, len)))),
        }
    }
}

pub struct Env {
    pub chunks: Mutex<Vec<Slot>>,
    pub log: Arc<Log>,
    ready: DTask<u64>,
    rt: Arc<Runtime>,
    other: Arc<Runtime>,
    handles: Mutex<HashMap<usize, DTask<u64>>>,
    seen: Mutex<Seen>,
}

/// Names of what is left in a folder, at any depth.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Looks until it is so; what the store still has to do is done by threads of its own.
fn until(what: &str, mut is_so: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match is_so() {
            Ok(()) => return Ok(()),
            Err(text) if Instant::now() > end => return Err(format!("{what}: {text}")),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Runs a program on a runtime of its own. An `Err` is something that should never be, whatever the store does.
pub fn run(program: &Program) -> Result<Run, String> {
    register::<Own>();
    register_size::<Stuck>();
    let case = &program.case;
    let scratch = Scratch::new("store-programs");
    let faulty = match case.place {
        Place::Memory => Some(Faulty::in_memory()),
        Place::Folder if case.days == Days::Good => None,
        _ => Some(Faulty::new(LocalFileSystem::new_with_prefix(&scratch.0).unwrap())),
    };
    let builder = |name: &str| {
        let eviction =
            [Eviction::NextUse, Eviction::NextUse, Eviction::Lru, Eviction::Mru][case.eviction as usize % 4];
        let builder = Runtime::builder().threads(case.workers).pin(false).name(name.to_owned());
        let builder = builder.memory_limit(program.limit).eviction(eviction);
        let builder = match &faulty {
            Some(faulty) => builder.spill_to(faulty.clone()),
            None => builder.spill_folder(scratch.0.clone()),
        };
        Arc::new(builder.build().unwrap())
    };
    let (rt, other) = (builder("one"), builder("other"));
    if let Some(faulty) = &faulty {
        match case.days {
            Days::Good => {}
            Days::Passing(n) => faulty.one_in(n, 7),
            Days::Full(after) => faulty.refuse_after(Op::Put, after, Trouble::Full),
            Days::Denied(after) => faulty.refuse_after(Op::Put, after, Trouble::Denied),
            Days::Injured(n) => faulty.injure_one_in(n, 7),
            Days::InjuredAndPassing(n, m) => {
                faulty.injure_one_in(n, 7);
                faulty.one_in(m, 7);
            }
        }
    }
    let (strands, memory) = rt.block_on(async {
        let runs = program.strands.iter().map(|one| strand(one, &rt, &other));
        let envs = futures::future::join_all(runs).await;
        rt.idle().await;
        other.idle().await;
        let memory = rt.memory();
        let seen = envs.into_iter().map(|env| {
            let mut seen = env.seen.into_inner().unwrap();
            seen.ran = std::mem::take(&mut env.log.ran.lock().unwrap());
            seen.children = std::mem::take(&mut env.log.children.lock().unwrap());
            seen
        });
        (seen.collect::<Vec<_>>(), memory)
    });
    for rt in [&rt, &other] {
        until("when all is dropped", || {
            let m = rt.memory();
            let left = [m.resident, m.pinned, m.reserved, m.spilled, m.chunks as u64];
            if left == [0; 5] { Ok(()) } else { Err(format!("{m:?}")) }
        })?;
    }
    if let Some(faulty) = &faulty {
        until("when all is dropped", || match faulty.paths() {
            paths if paths.is_empty() => Ok(()),
            paths => Err(format!("objects are left: {paths:?}")),
        })?;
    }
    drop((rt, other));
    until("when the runtimes are dropped", || match files(&scratch.0) {
        files if files.is_empty() => Ok(()),
        files => Err(format!("files are left: {files:?}")),
    })?;
    Ok(Run { strands, memory, faulty })
}

async fn strand(strand: &Strand, rt: &Arc<Runtime>, other: &Arc<Runtime>) -> Env {
    let env = Env {
        chunks: Mutex::new(strand.chunks.iter().map(Slot::new).collect()),
        log: Arc::default(),
        ready: spawn!((|| 7)()),
        rt: rt.clone(),
        other: other.clone(),
        handles: Mutex::default(),
        seen: Mutex::default(),
    };
    let body = async {
        for one in &strand.stmts {
            stmt(one, &env).await;
        }
    };
    if strand.block {
        let done = datadeps(body).await;
        let own =
            strand.stmts.iter().filter(|stmt| !matches!(stmt, Stmt::Plan { .. } | Stmt::Dropped { .. }));
        let own = own.flat_map(super::program::tasks_of).map(|task| task.no).collect();
        env.seen.lock().unwrap().blocks.push((done.is_ok(), own));
    } else {
        body.await;
    }
    let handles: Vec<_> = env.handles.lock().unwrap().drain().collect();
    for (no, task) in handles {
        let ended = (&task).await.map(|value| *value);
        env.note(no, ended, Some(&format!("t{no}")));
    }
    let chunks = std::mem::take(&mut *env.chunks.lock().unwrap());
    macro_rules! end {
        ($chunk:expr, $x:ident => $values:expr) => {{
            let read = match $chunk.read().await {
                Ok(guard) => {
                    let $x = &*guard;
                    Ok($values.clone())
                }
                Err(error) => Err(Outcome::of(error, None)),
            };
            let recovered = match $chunk.recover().await {
                Ok(guard) => {
                    let $x = &*guard;
                    Ok($values.clone())
                }
                Err(error) => Err(Outcome::of(error, None)),
            };
            (read, recovered)
        }};
    }
    for chunk in &chunks {
        let end = match chunk {
            Slot::Vector(chunk) => end!(chunk, x => x),
            Slot::Stuck(chunk) => end!(chunk, x => x.0),
            Slot::Own(chunk) => end!(chunk, x => x.0),
        };
        env.seen.lock().unwrap().ends.push(end);
    }
    env
}

impl Env {
    fn note(&self, no: usize, ended: Result<u64, Error>, own: Option<&str>) {
        let outcome = match ended {
            Ok(value) => Outcome::Value(value),
            Err(error) => Outcome::of(error, own),
        };
        self.seen.lock().unwrap().outcomes.insert(no, outcome);
    }

    fn handle(&self, no: usize) -> Option<DTask<u64>> {
        self.handles.lock().unwrap().get(&no).cloned()
    }

    fn chunk(&self, chunk: usize) -> Chunk<Data> {
        let Some(Slot::Vector(chunk)) = self.chunks.lock().unwrap().get(chunk).cloned() else {
            panic!("no vector")
        };
        chunk
    }

    fn replace(&self, chunk: usize, next: &Make) {
        let next = Slot::new(next);
        let before = std::mem::replace(&mut self.chunks.lock().unwrap()[chunk], next);
        drop(before);
    }
}

async fn stmt(stmt: &Stmt, env: &Env) {
    match stmt {
        Stmt::Spawn(task) => spawn_task(task, env).await,
        Stmt::Await(no) => {
            if let Some(task) = env.handle(*no) {
                let _ = (&task).await;
            }
        }
        Stmt::Guard { no, chunks, before, inside, awaits } => {
            let mut places = chunks.iter().map(|&(chunk, writes)| {
                let chunk = env.chunk(chunk);
                match writes {
                    true => (None, Some(chunk.write())),
                    false => (Some(chunk.read()), None),
                }
            });
            let (first, second) = (places.next().unwrap(), places.next());
            drop(places);
            for task in before {
                spawn_task(task, env).await;
            }
            let mut h = Ok(*no as u64);
            let (mut reads, mut writes) = (Vec::new(), Vec::new());
            for (read, write) in [Some(first), second].into_iter().flatten() {
                if let Some(read) = read {
                    match read.await {
                        Ok(guard) => {
                            h = h.map(|h| fold(&guard, h));
                            reads.push(guard);
                        }
                        Err(error) => h = h.and(Err(error)),
                    }
                }
                if let Some(write) = write {
                    match write.await {
                        Ok(mut guard) => {
                            h = h.map(|h| fold(&guard, h));
                            if let Ok(h) = h {
                                guard.iter_mut().for_each(|x| *x ^= h);
                                env.log.ran.lock().unwrap().insert(*no);
                            }
                            writes.push(guard);
                        }
                        Err(error) => h = h.and(Err(error)),
                    }
                }
            }
            for task in inside {
                spawn_task(task, env).await;
            }
            if *awaits {
                for task in inside {
                    let task = env.handle(task.no).unwrap();
                    let _ = (&task).await;
                }
            }
            env.note(*no, h, None);
        }
        Stmt::Recover { no, chunk } => {
            let chunk = env.chunk(*chunk);
            let found = chunk.recover().await.map(|guard| fold(&guard, 0));
            env.note(*no, found, None);
        }
        Stmt::Take { no, chunk, next } => {
            let taken = env.chunk(*chunk).into_inner();
            env.replace(*chunk, next);
            let found = taken.await.map(|value| fold(&value, 0));
            env.note(*no, found, None);
        }
        Stmt::Renew { chunk, next } => env.replace(*chunk, next),
        Stmt::Plan { runs } => {
            let plan = Plan::new();
            for tasks in runs {
                let done = plan.run(async {
                    for task in tasks {
                        spawn_task(task, env).await;
                    }
                });
                let is_ok = done.await.is_ok();
                let tasks = tasks.iter().map(|task| task.no).collect();
                env.seen.lock().unwrap().blocks.push((is_ok, tasks));
            }
        }
        Stmt::Dropped { tasks, polls } => {
            let block = datadeps(async {
                for task in tasks {
                    spawn_task(task, env).await;
                }
                std::future::pending::<()>().await;
            });
            let mut block = pin!(block);
            // At least once: all are spawned.
            for _ in 0..=*polls {
                let _ = futures::poll!(block.as_mut());
                tokio::task::yield_now().await;
            }
        }
        Stmt::Look => _ = (env.rt.memory(), env.other.memory()),
    }
}

async fn spawn_task(task: &Task, env: &Env) {
    let gate = Gate::new();
    let mut options = Options::new().name(format!("t{}", task.no));
    if task.priority != 0 {
        options = options.priority(task.priority);
    }
    if task.blocking {
        options = options.blocking(true);
    }
    if task.memory != 0 {
        options = options.memory(task.memory);
    }
    if task.cancel == Cancel::Unstarted {
        let gate = gate.clone();
        let closed = Options::new().name("gate").spawn(async move { gate.pass().await });
        options = options.syncdeps([&closed]);
    }
    let arg = task.arg.and_then(|arg| env.handle(arg));
    let arg = arg.as_ref().unwrap_or(&env.ready);
    let body = Body {
        no: task.no,
        modes: task.accesses.iter().map(|access| access.mode).collect(),
        end: task.end,
        resize: task.resize,
        children: task.children,
        log: env.log.clone(),
    };
    let handle = match task.other {
        false => submit(env, task.row, &task.accesses, arg, task.is_async, body, options),
        true => {
            env.other
                .run(async { submit(env, task.row, &task.accesses, arg, task.is_async, body, options) })
                .await
        }
    };
    if task.cancel != Cancel::No {
        handle.cancel();
        gate.open();
    }
    env.handles.lock().unwrap().insert(task.no, handle);
}
