//! Results of tasks that outlive the process: what is there, who writes it, who brings it back.
//!
//! ```text
//!   spawn!(f(x); checkpoint = "k") ─▶ ask: is "k" in the index?
//!        │ no                                 │ yes
//!        ▼                                    ▼
//!   f(x) ─────▶ value                   f and x are dropped, what only fed them ends   (skip.rs)
//!                 │ claim                     │
//!                 ▼                           ▼
//!   Save: writes it on an I/O thread    Restore: reads it on an I/O thread             (save.rs, restore.rs)
//! ```
//! 1. The index says what is in the store: listed when the runtime is built, then kept up by what is written. A spawn does no I/O.
//! 2. At most one task at a time has a key ([`Reserved`]); one that ended without a value never had it.
//! 3. A value is given to a task only if it was written for the same version, key and type ([`Head`]).
//! 4. What hangs on the type of the body is a constant ([`Kind`]), on that of the result one body (`Restore`) and two functions.
//!
//! Paths: `names.rs`. How objects are written so that half of one is never read: `objects/`.

mod head;
mod names;
mod restore;
mod save;
mod skip;

pub(crate) use restore::{Found, Restore};
pub(crate) use save::Save;
pub(crate) use skip::Unneeded;

use super::objects::{Backing, Compression, Failure, Objects};
use super::spill::moves_of_result;
use crate::call::Body;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::pool::Pool;
use crate::task::{Origin, TaskRef};
use head::Head;
use parking_lot::Mutex;
use restore::Reload;
use std::any::TypeId;
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};

/// How many objects are looked at by one thread, at least, when the index is made.
const LOOKS_MIN: usize = 64;
/// And by how many threads at most.
const LOOKERS_MAX: usize = 8;
/// How many unusable objects are warned of one by one.
const WARNINGS_MAX: usize = 10;

/// How many results were kept and brought back: what [`Runtime::checkpoints`](crate::Runtime::checkpoints) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checkpoints {
    /// In the store when the runtime was built, of all versions.
    pub found: u64,
    /// Tasks that got their results from there.
    pub restored: u64,
    /// Results that were written.
    pub saved: u64,
    /// Results that could not be written.
    pub failed: u64,
}

impl fmt::Display for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Checkpoints { found, restored, saved, failed } = self;
        write!(f, "{found} checkpoints found, {restored} tasks restored, {saved} saved")?;
        if *failed > 0 { write!(f, ", {failed} could not be saved") } else { Ok(()) }
    }
}

/// Where the checkpoints of a runtime are, and what is known of them.
pub(crate) struct Keeping {
    objects: Objects,
    version: Arc<str>,
    /// By path.
    index: Mutex<HashMap<Arc<str>, Entry>>,
    turns: AtomicU64,
    /// A key was used again, and the log says so.
    reused: AtomicBool,
    found: u64,
    restored: AtomicU64,
    saved: AtomicU64,
    failed: AtomicU64,
}

#[derive(Default)]
struct Entry {
    there: There,
    /// The task of this run that has the key, or had it.
    user: Option<User>,
}

/// What lies at a path.
#[derive(Default)]
enum There {
    #[default]
    Nothing,
    /// A checkpoint of this type.
    Of(Box<str>),
    /// Something with the right name: what it is will be seen when it is read.
    Unseen,
}

struct User {
    /// Says whose reservation it is.
    turn: u64,
    site: &'static Location<'static>,
    stage: Stage,
}

enum Stage {
    /// It is being spawned.
    New,
    /// It runs, or its value is being written or read.
    Busy(TaskRef),
    /// It has had its value, and that was written, or could not be.
    Over,
}

/// What a task is, as far as its checkpoint is concerned.
pub(crate) struct Kind {
    result: TypeId,
    type_name: fn() -> &'static str,
    reload: Reload,
    writes: bool,
    /// The name of a body that is a future.
    body: fn() -> &'static str,
}

impl Kind {
    /// Constant, so that a spawn has no code for it.
    pub(crate) const fn of<B: Body>() -> Kind
    where
        B::Output: Send + Sync + 'static,
    {
        Kind {
            result: TypeId::of::<B::Output>(),
            type_name: std::any::type_name::<B::Output>,
            reload: restore::reload::<B::Output>,
            writes: B::WRITES,
            body: std::any::type_name::<B::Name>,
        }
    }
}

/// What becomes of a task with a key.
pub(crate) enum Asked {
    /// It runs, and its value is written, unless that has no sense (the options say then what is wrong, if anything is).
    Run(Option<Save>),
    Restore(Found),
}

/// Looks what becomes of a task with this key and these options.
pub(crate) fn ask(key: &str, options: &mut Options, pool: &Pool, origin: Origin, kind: &Kind) -> Asked {
    let version = options.of_checkpoint().version.clone();
    let asked = decide(key, version.as_deref(), pool.checkpoints.as_ref(), origin, kind);
    let asked = asked.unwrap_or_else(|message| {
        options.refuse(message);
        Asked::Run(None)
    });
    // A body in place of another one has its name, too.
    if matches!(asked, Asked::Restore(_)) && !options.has_name() {
        *options = std::mem::take(options).name(origin.name((kind.body)()));
    }
    asked
}

fn decide(
    key: &str,
    version: Option<&str>,
    keeping: Option<&Arc<Keeping>>,
    origin: Origin,
    kind: &Kind,
) -> Result<Asked, String> {
    let Some(keeping) = keeping else {
        return Err(format!(
            "`checkpoint = {key:?}` needs a store to keep results in: give one to `Builder::checkpoint_to`"
        ));
    };
    if key.is_empty() {
        return Err("`checkpoint = \"\"`: an empty key names no task".to_owned());
    }
    if kind.writes {
        return Err(format!(
            "`checkpoint = {key:?}`: the task writes to a chunk (`Out`, `InOut`), which would be missing when its result is \
             restored: let it give the value and make the chunk by `Chunk::from_task`"
        ));
    }
    let type_name = (kind.type_name)();
    let Some(moves) = moves_of_result(kind.result) else {
        return Err(format!(
            "`checkpoint = {key:?}`: it is not known how a `{0}` is written down: implement `store::Spill` for it, and call \
             `store::register::<{0}>()` before",
            type_name
        ));
    };
    let version = version.unwrap_or(&keeping.version);
    let Some(path) = names::path_of(version, key) else { return Err(too_long(version)) };
    let path: Arc<str> = path.into();
    let (reserved, is_there) = match keeping.reserve(&path, key, type_name, origin.location())? {
        Reserving::Saved => return Ok(Asked::Run(None)),
        Reserving::Done(reserved, is_there) => (reserved, is_there),
    };
    let [version, key, type_name] = [version, key, type_name].map(str::to_owned);
    let head = Head { version, key, type_name };
    Ok(match is_there {
        true => Asked::Restore(Found::new(reserved, head, moves, kind.reload)),
        false => Asked::Run(Some(Save::new(reserved, head, moves, origin))),
    })
}

fn too_long(version: &str) -> String {
    format!("`checkpoint_version({version:?})`: a version has at most about 190 bytes")
}

/// What comes of asking for a key.
enum Reserving {
    /// The task has it; whether there is a value.
    Done(Reserved, bool),
    /// The value of a task before it at the same place is being written.
    Saved,
}

/// A key is a task's, until this is ended, or dropped: then the task had no value.
pub(crate) struct Reserved {
    keeping: Arc<Keeping>,
    path: Arc<str>,
    turn: u64,
}

impl Reserved {
    /// The task that has it is spawned.
    fn is_of(&self, task: TaskRef) {
        let mut index = self.keeping.index.lock();
        if let Some(user) = self.user(&mut index) {
            user.stage = Stage::Busy(task);
        }
    }

    fn user<'a>(&self, index: &'a mut HashMap<Arc<str>, Entry>) -> Option<&'a mut User> {
        index.get_mut(&self.path)?.user.as_mut().filter(|user| user.turn == self.turn)
    }

    /// The task has had its value, which lies in the store now if a type is given.
    fn end(self, written: Option<&str>) {
        let mut index = self.keeping.index.lock();
        let mut before = None;
        if let Some(user) = self.user(&mut index) {
            before = Some(std::mem::replace(&mut user.stage, Stage::Over));
        }
        if let (Some(type_name), Some(entry)) = (written, index.get_mut(&self.path)) {
            entry.there = There::Of(type_name.into());
        }
        drop(index);
        drop(before); // With a task may go a user's error.
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut index = self.keeping.index.lock();
        let unused = self.user(&mut index).is_some_and(|user| !matches!(user.stage, Stage::Over));
        let before =
            if unused { index.get_mut(&self.path).and_then(|entry| entry.user.take()) } else { None };
        drop(index);
        drop(before);
    }
}

impl Keeping {
    /// Lists what is in the store, and waits for that. The error is a sentence.
    pub(crate) fn open(
        name: &str,
        backing: Backing,
        compression: Compression,
        version: Arc<str>,
    ) -> Result<Arc<Keeping>, String> {
        if !names::is_version(&version) {
            return Err(too_long(&version));
        }
        let objects = Objects::new(&format!("{name}-checkpoint"), backing, compression);
        let index = look(&objects)?;
        let found = index.len() as u64;
        let [turns, restored, saved, failed] = [const { AtomicU64::new(0) }; 4];
        let index = Mutex::new(index);
        let reused = AtomicBool::new(false);
        Ok(Arc::new(Keeping { objects, version, index, turns, reused, found, restored, saved, failed }))
    }

    pub(crate) fn numbers(&self) -> Checkpoints {
        let [restored, saved, failed] =
            [&self.restored, &self.saved, &self.failed].map(|number| number.load(Relaxed));
        Checkpoints { found: self.found, restored, saved, failed }
    }

    /// Gives a key to a task that is being spawned at this place, or says why not.
    fn reserve(
        self: &Arc<Self>,
        path: &Arc<str>,
        key: &str,
        type_name: &str,
        site: &'static Location<'static>,
    ) -> Result<Reserving, String> {
        let mut index = self.index.lock();
        let entry = index.entry(path.clone()).or_default();
        if let Some(user) = &entry.user {
            let (is_done, has_failed) = match &user.stage {
                Stage::New => (false, false),
                Stage::Busy(task) => (task.state.load().is_done(), task.error().is_some()),
                Stage::Over => (true, false),
            };
            if !is_done || !has_failed && user.site != site {
                let (when, other) = if is_done { ("had", "other") } else { ("has", "unfinished") };
                return Err(format!(
                    "`checkpoint = {key:?}`: the {other} task that was spawned at {}:{} {when} this key, and would get the \
                     result of this one: a key names one task",
                    user.site.file(),
                    user.site.line()
                ));
            }
            if !has_failed && matches!(user.stage, Stage::Busy(_)) {
                return Ok(Reserving::Saved);
            }
        }
        let (is_there, other) = match &entry.there {
            There::Nothing => (false, None),
            There::Unseen => (true, None),
            There::Of(other) if **other == *type_name => (true, None),
            There::Of(other) => (false, Some(other.clone())),
        };
        let turn = self.turns.fetch_add(1, Relaxed);
        let before = entry.user.replace(User { turn, site, stage: Stage::New });
        drop(index);
        let is_reused = before.as_ref().is_some_and(|before| matches!(before.stage, Stage::Over));
        drop(before);
        // Most likely it runs the same program twice. If not, this is the only sign of a result that is wrong.
        if is_there && is_reused && !self.reused.swap(true, Relaxed) {
            tracing::warn!(
                target: "dagger", key,
                "the key `{key}` is used for the second time in this run, at {site}, and gets the result of the first time: if \
                 that is another task, what tells them apart belongs into the key (said once)"
            );
        }
        if let Some(other) = other {
            let path = self.objects.shown_at(path);
            tracing::warn!(
                target: "dagger", key, path,
                "the checkpoint `{key}` at {path} is a `{other}`, and its task gives a `{type_name}` now: it runs again"
            );
        }
        Ok(Reserving::Done(Reserved { keeping: self.clone(), path: path.clone(), turn }, is_there))
    }

    /// Deletes all that lies under versions of which `which` says so; how much that was.
    pub(crate) async fn remove(
        self: Arc<Self>,
        mut which: impl FnMut(&str) -> bool + Send + 'static,
    ) -> Result<u64> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let keeping = self.clone();
        let started = self.objects.run(move |objects| {
            let mut remove = || {
                let mut removed = 0;
                for (path, _) in objects.list_at(names::ROOT)? {
                    if names::version_in(&path).is_some_and(|version| which(&version)) {
                        objects.delete_at(&path)?;
                        if let Some(entry) = keeping.index.lock().get_mut(&*path) {
                            entry.there = There::Nothing;
                        }
                        removed += 1;
                    }
                }
                Ok::<u64, Failure>(removed)
            };
            let _ = tell.send(remove());
        });
        let removed = if started { told.await.ok() } else { None };
        let message = match removed {
            Some(Ok(removed)) => return Ok(removed),
            Some(Err(failure)) => format!("checkpoints could not be removed: {failure}"),
            None => "checkpoints could not be removed: no thread, or a panic".to_owned(),
        };
        Err(Error::Options { root: None, message: message.into() })
    }
}

/// What the store has; what is not usable is named in the log.
fn look(objects: &Objects) -> Result<HashMap<Arc<str>, Entry>, String> {
    let refused = |failure: Failure| format!("`checkpoint_to`: the store cannot be listed: {failure}");
    let no_thread =
        || "`checkpoint_to`: the operating system refuses a thread that lists the store".to_owned();
    let listed = on_io_threads(objects, vec![()], |objects, ()| objects.list_at(names::ROOT));
    let listed = listed.ok_or_else(no_thread)?.into_iter().next().unwrap_or_else(|| Ok(Vec::new()));
    let paths = listed.map_err(refused)?.into_iter().map(|(path, _)| path);
    let paths: Vec<String> = paths.filter(|path| names::version_in(path).is_some()).collect();
    if !objects.are_files() {
        let entry = |path: String| (path.into(), Entry { there: There::Unseen, user: None });
        return Ok(paths.into_iter().map(entry).collect());
    }
    let share = paths.len().div_ceil(LOOKERS_MAX).max(LOOKS_MIN);
    let shares = paths.chunks(share).map(<[String]>::to_vec).collect();
    let looked = on_io_threads(objects, shares, |objects, paths: Vec<String>| {
        let looked = paths.into_iter().map(|path| (head_at(objects, &path), path));
        looked.collect::<Vec<_>>()
    });
    let (mut index, mut unusable) = (HashMap::new(), 0);
    for (head, path) in looked.ok_or_else(no_thread)?.into_iter().flatten() {
        match head {
            Ok(head) => {
                _ = index.insert(path.into(), Entry { there: There::Of(head.type_name.into()), user: None });
            }
            Err(reason) => {
                unusable += 1;
                if unusable <= WARNINGS_MAX {
                    let path = objects.shown_at(&path);
                    tracing::warn!(target: "dagger", path, "{path} is no usable checkpoint, its task runs again: {reason}");
                }
            }
        }
    }
    if unusable > WARNINGS_MAX {
        tracing::warn!(target: "dagger", "and {} more are no usable checkpoints", unusable - WARNINGS_MAX);
    }
    Ok(index)
}

/// The head of a file, if it is a checkpoint as far as its ends tell, and lies where it belongs.
fn head_at(objects: &Objects, path: &str) -> Result<Head, String> {
    let mut head = None;
    let peeked = objects.peek_at(path, &mut |from| {
        head = Some(Head::read(from)?);
        Ok(())
    });
    peeked.map_err(|failure| failure.source.to_string())?;
    let head = head.ok_or("it has no head")?;
    match names::path_of(&head.version, &head.key) {
        Some(own) if own == path => Ok(head),
        _ => Err(format!("it is {head}, which belongs elsewhere")),
    }
}

/// Has `work` done for each of `all` on threads that may block, and waits; `None` if there are none.
fn on_io_threads<A, R>(
    objects: &Objects,
    all: Vec<A>,
    work: impl Fn(&Objects, A) -> R + Clone + Send + 'static,
) -> Option<Vec<R>>
where
    A: Send + 'static,
    R: Send + 'static,
{
    let (tell, told) = mpsc::channel();
    let expected = all.len();
    for one in all {
        let (work, tell) = (work.clone(), tell.clone());
        if !objects.run(move |objects| _ = tell.send(work(objects, one))) {
            return None;
        }
    }
    drop(tell);
    let results: Vec<R> = told.iter().collect();
    (results.len() == expected).then_some(results)
}
