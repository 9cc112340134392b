//! Objects: bytes under a name, written once, read back as they were. The blocking layer below the store.
//!
//! ```text
//!            write(name, fill)                     read(object, take)
//!                   │                                     ▲
//!                 header, payload (lz4), length, checksum          format
//!                   │                                     │
//!     ┌─────────────┴──────────┐             ┌────────────┴─────────┐
//!   a file, renamed        put / parts      File            Stream           file, remote
//!     └── root/dagger-…/object-7              └── dagger-…/object-7          folder
//! ```
//! 1. What `read` calls good is what was written: any other bytes are [`FailureKind::Altered`].
//! 2. An object is there whole or not at all. A half-written one has no name that is ever read.
//! 3. Objects of a session are gone after it: removed at its end, or swept by the next process that uses the same root, if
//!    its own was killed. (In stores that are no local folder nobody can know who is dead; what a killed process leaves
//!    there is named `dagger-<pid>-<random>/`.)
//! 4. What may go better another time is tried five times, with 5, 10, 20 and 40 ms between; the rest fails at once.
//!
//! It knows nothing of chunks or tasks: who writes what, how many at a time, and under which numbers, is the caller's business.

mod failure;
mod file;
mod folder;
mod format;
mod remote;
#[cfg(test)]
mod tests;
mod threads;

pub(crate) use failure::{Failure, FailureKind};

use failure::{Fault, retry};
#[cfg(test)]
use folder::LOCK;
use folder::{Folder, session_name};
use format::{Fill, Summary, Take};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use parking_lot::Mutex;
use remote::Remote;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use threads::Threads;

/// Where objects lie, and who does the I/O. Cloning copies a handle; the last one removes the objects of the session.
///
/// Dropping it waits for no thread and for no store: objects in a local folder are removed at once, others in the background
/// (call [`clear`](Objects::clear) first where that may be too late). Jobs that are still queued run before.
///
/// All methods but [`run`](Objects::run) block, and must not be called by async code.
pub(crate) struct Objects {
    shared: Arc<Shared>,
}

/// How [`Objects`] is opened.
#[derive(Clone, Debug)]
pub(crate) enum Backing {
    /// A folder that is made when it is needed, below `root` or below `dagger-spill` in the system's folder for temporary
    /// files.
    Temporary {
        /// Made if it does not exist.
        root: Option<PathBuf>,
    },
    /// A store of the user's.
    Store {
        /// Where all is written.
        store: Arc<dyn ObjectStore>,
        /// The same store if it is a local one: files are then written and read without it.
        local: Option<Arc<LocalFileSystem>>,
    },
}

impl Backing {
    /// A store of the user's.
    pub(crate) fn of<S: ObjectStore>(store: S) -> Backing {
        let store = Arc::new(store);
        let any: Arc<dyn std::any::Any + Send + Sync> = store.clone();
        Backing::Store { store, local: any.downcast().ok() }
    }
}

/// Whether what leaves memory is compressed. What is read is decompressed by what it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// Bytes are written as they are: dense numbers do not get smaller.
    #[default]
    None,
    /// By lz4: for data that repeats itself, and disks slower than about a gigabyte a second. About 1 MiB of scratch per
    /// object that is written or read.
    #[cfg(feature = "lz4")]
    Lz4,
}

/// An object that was written: where it is, and what must be found there.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    at: At,
    summary: Summary,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    File(PathBuf),
    Store(StorePath),
}

impl Object {
    /// What it occupies in the store.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.summary.stored
    }

    /// What was written by the caller.
    #[cfg(test)]
    pub(crate) fn payload_bytes(&self) -> u64 {
        self.summary.payload
    }

    /// Where a user finds it: the path of the file, or of the object in its store.
    #[cfg(test)]
    pub(crate) fn path(&self) -> String {
        self.at.to_string()
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::File(path) => path.display().fmt(f),
            At::Store(path) => path.fmt(f),
        }
    }
}

struct Shared {
    place: Place,
    compression: Compression,
    threads: Threads,
}

enum Place {
    Local(Local),
    Store { store: Arc<dyn ObjectStore>, session: StorePath },
}

struct Local {
    root: PathBuf,
    /// The root is for all users of the machine.
    shared_root: bool,
    /// Maps paths to files where the root is that of a store.
    store: Option<Arc<LocalFileSystem>>,
    /// The last one is written to. Those before it were removed by someone else; their locks are kept, should they come back.
    folders: Mutex<Vec<Arc<Folder>>>,
}

impl Objects {
    /// Objects of a new session. Nothing is done before it is needed, so that errors come from the first write.
    pub(crate) fn new(name: &str, backing: Backing, compression: Compression) -> Objects {
        let local = |root, shared_root, store| {
            Place::Local(Local { root, shared_root, store, folders: Mutex::default() })
        };
        let place = match backing {
            Backing::Temporary { root: Some(root) } => local(root, false, None),
            Backing::Temporary { root: None } => local(std::env::temp_dir().join("dagger-spill"), true, None),
            Backing::Store { store, local: files } => match files.and_then(|files| {
                let root = files.path_to_filesystem(&StorePath::from("x")).ok()?.parent()?.to_path_buf();
                Some((root, files))
            }) {
                Some((root, files)) => local(root, false, Some(files)),
                None => Place::Store { store, session: StorePath::from(session_name()) },
            },
        };
        Objects { shared: Arc::new(Shared { place, compression, threads: Threads::new(name) }) }
    }

    /// Runs `job` on a thread that may block, after those that were given before it; false, and the job is dropped, if the
    /// system has no thread for us.
    ///
    /// At most 16 jobs run at a time, whatever they do; the others wait in a queue that has no bound. A job that panics
    /// ends, and that is all.
    pub(crate) fn run(&self, job: impl FnOnce(&Objects) + Send + 'static) -> bool {
        self.threads().run(Objects { shared: Arc::clone(&self.shared) }, Box::new(job))
    }

    /// Writes what `fill` writes as the object `name` of this session. Names are given once: writing one again while its first
    /// object is in use is the caller's mistake.
    ///
    /// `fill` is called again when it is tried again. Its own errors and panics are [`FailureKind::Other`], and final.
    pub(crate) fn write(
        &self,
        name: u64,
        fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Object, Failure> {
        let name = format!("object-{name}");
        match &self.shared.place {
            Place::Local(local) => retry(|| {
                let folder = local.folder()?;
                let path = folder.path().join(&name);
                let summary = file::write(&path, self.shared.compression, fill).map_err(|mut fault| {
                    // The folder was removed under us: the next try makes another one.
                    fault.again |= fault.failure.kind == FailureKind::Missing;
                    fault
                })?;
                Ok(Object { at: At::File(path), summary })
            }),
            Place::Store { store, session } => self.write_to_store(store, session.clone().join(name), fill),
        }
    }

    /// Reads an object. `take` is called again when it is tried again, and need not read all.
    ///
    /// The length and the checksum are known after `take`: what it has made is to be thrown away unless this returns `Ok`. Its
    /// own errors and panics are [`FailureKind::Other`], and final, if the bytes it saw were good.
    pub(crate) fn read(
        &self,
        object: &Object,
        take: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>,
    ) -> Result<(), Failure> {
        self.read_from(&object.at, Some(&object.summary), take).map(drop)
    }

    /// Removes an object as well as that can be; one that is not there any more is no error. What stays goes with the session.
    pub(crate) fn delete(&self, object: &Object) {
        // The caller has no use for the reason, and the data is not needed any more.
        let _ = match &object.at {
            At::File(path) => retry(|| file::delete(path)),
            At::Store(path) => match &self.shared.place {
                Place::Store { store, .. } => {
                    retry(|| self.remote(store, path)).and_then(|remote| remote.delete(path))
                }
                Place::Local(_) => Ok(()),
            },
        };
    }

    /// The paths of all objects of this session, in no order.
    #[cfg(test)]
    pub(crate) fn list(&self) -> Result<Vec<String>, Failure> {
        match &self.shared.place {
            Place::Local(local) => {
                let folders = local.folders.lock().clone();
                let mut paths = Vec::new();
                for folder in folders {
                    let found = retry(|| file::list(folder.path()))?;
                    let of_objects = found.into_iter().map(|(path, _)| path).filter(|path| {
                        path.file_name().is_some_and(|name| name != LOCK)
                            && path.extension().is_none_or(|extension| extension != file::PART)
                    });
                    paths.extend(of_objects.map(|path| At::File(path).to_string()));
                }
                Ok(paths)
            }
            Place::Store { store, session } => {
                let found = retry(|| self.remote(store, session)?.list(session))?;
                Ok(found.into_iter().map(|(path, _)| path.to_string()).collect())
            }
        }
    }

    /// Removes all objects of this session, and waits until they are gone as well as that can be. Nobody may be writing.
    pub(crate) fn clear(&self) {
        match &self.shared.place {
            Place::Local(local) => {
                let folders = std::mem::take(&mut *local.folders.lock());
                drop(folders);
            }
            Place::Store { store, session } => {
                // Without a runtime nothing has been written.
                if let Some(handle) = self.threads().started() {
                    Remote { store, handle }.delete_all(session);
                }
            }
        }
    }

    /// Writes what `fill` writes under a path that lasts longer than the session: `a/b/c` below the root of the store. The path
    /// is that of an object store: no `..`, no empty parts, no control characters.
    ///
    /// An object that is there is replaced in one step. With `durable` it is on the disk before this returns, if it
    /// is a file (other stores promise that by themselves).
    pub(crate) fn write_at(
        &self,
        path: &str,
        durable: bool,
        fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<Object, Failure> {
        match self.at(path)? {
            At::File(path) => retry(|| {
                let summary = file::write_shared(&path, durable, self.shared.compression, fill);
                let summary = summary.map_err(|mut fault| {
                    // Someone has removed the folder, or took the file for abandoned before it was locked.
                    fault.again |= fault.failure.kind == FailureKind::Missing;
                    fault
                })?;
                Ok(Object { at: At::File(path.clone()), summary })
            }),
            At::Store(path) => match &self.shared.place {
                Place::Store { store, .. } => self.write_to_store(store, path, fill),
                Place::Local(_) => Err(misplaced(path)),
            },
        }
    }

    /// Reads what was written under a path that lasts, as [`read`](Objects::read) does.
    pub(crate) fn read_at(
        &self,
        path: &str,
        take: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>,
    ) -> Result<Object, Failure> {
        let at = self.at(path)?;
        let summary = self.read_from(&at, None, take)?;
        Ok(Object { at, summary })
    }

    /// Whether there is an object under a path that lasts: both ends are looked at and the length, not what is between them.
    pub(crate) fn check_at(&self, path: &str) -> Result<Object, Failure> {
        let at = self.at(path)?;
        let summary = retry(|| match (&at, &self.shared.place) {
            (At::File(path), _) => file::check(path),
            (At::Store(path), Place::Store { store, .. }) => self.remote(store, path)?.check(path),
            (At::Store(path), Place::Local(_)) => Err(Fault { failure: misplaced(path), again: false }),
        })?;
        Ok(Object { at, summary })
    }

    /// Whether objects are files.
    pub(crate) fn are_files(&self) -> bool {
        matches!(self.shared.place, Place::Local(_))
    }

    /// As [`check_at`](Objects::check_at), and hands over the payload, of which `take` reads the beginning. No checksum is
    /// looked at. Of objects that are no files it reads nothing but what `check_at` does.
    pub(crate) fn peek_at(
        &self,
        path: &str,
        take: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>,
    ) -> Result<Object, Failure> {
        match self.at(path)? {
            At::File(path) => {
                let summary = retry(|| file::peek(&path, take))?;
                Ok(Object { at: At::File(path), summary })
            }
            At::Store(_) => self.check_at(path),
        }
    }

    /// Removes what lies at a path that lasts, and the folders that are empty then; what is not there is no error.
    pub(crate) fn delete_at(&self, path: &str) -> Result<(), Failure> {
        match (self.at(path)?, &self.shared.place) {
            (At::File(path), Place::Local(local)) => {
                retry(|| file::delete(&path))?;
                let parents = path.ancestors().skip(1).take_while(|folder| **folder != local.root);
                for folder in parents {
                    // Others may have put something there.
                    if std::fs::remove_dir(folder).is_err() {
                        break;
                    }
                }
                Ok(())
            }
            (At::Store(path), Place::Store { store, .. }) => {
                retry(|| self.remote(store, &path)).and_then(|remote| remote.delete(&path))
            }
            (at, _) => Err(misplaced(at)),
        }
    }

    /// Where a user finds what is at a path that lasts.
    pub(crate) fn shown_at(&self, path: &str) -> String {
        self.at(path).map_or_else(|_| path.to_owned(), |at| at.to_string())
    }

    /// Paths and stored sizes of all that lies below a path that lasts (at any depth), in no order; nothing if there is no
    /// such path. What killed processes have left half written there is removed on the way.
    pub(crate) fn list_at(&self, prefix: &str) -> Result<Vec<(String, u64)>, Failure> {
        match (self.at(prefix)?, &self.shared.place) {
            (At::File(folder), _) => {
                let found = retry(|| file::list(&folder))?;
                let named = found.into_iter().filter_map(|(path, bytes)| {
                    let below = path.strip_prefix(&folder).ok()?;
                    let parts = below.iter().map(|part| part.to_str()).collect::<Option<Vec<_>>>()?;
                    Some((format!("{}/{}", prefix.trim_matches('/'), parts.join("/")), bytes))
                });
                Ok(named.collect())
            }
            (At::Store(prefix), Place::Store { store, .. }) => {
                let found = retry(|| self.remote(store, &prefix)?.list(&prefix))?;
                Ok(found.into_iter().map(|(path, bytes)| (path.to_string(), bytes)).collect())
            }
            (At::Store(prefix), Place::Local(_)) => Err(misplaced(prefix)),
        }
    }

    fn threads(&self) -> &Threads {
        &self.shared.threads
    }

    /// A store with a place to wait for it. `path` is for the error.
    fn remote<'a>(&self, store: &'a Arc<dyn ObjectStore>, path: &StorePath) -> Result<Remote<'a>, Fault> {
        let handle = self.threads().handle().map_err(|error| Fault::of(path, error))?;
        Ok(Remote { store, handle })
    }

    fn write_to_store(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: StorePath,
        fill: &mut Fill<'_>,
    ) -> Result<Object, Failure> {
        let compression = self.shared.compression;
        let summary = retry(|| self.remote(store, &path)?.write(&path, compression, fill))?;
        Ok(Object { at: At::Store(path), summary })
    }

    fn read_from(
        &self,
        at: &At,
        expected: Option<&Summary>,
        take: &mut Take<'_>,
    ) -> Result<Summary, Failure> {
        retry(|| match (at, &self.shared.place) {
            (At::File(path), _) => file::read(path, expected, take),
            (At::Store(path), Place::Store { store, .. }) => {
                self.remote(store, path)?.read(path, expected, take)
            }
            (At::Store(path), Place::Local(_)) => Err(Fault { failure: misplaced(path), again: false }),
        })
    }

    /// Where a path that lasts leads.
    fn at(&self, path: &str) -> Result<At, Failure> {
        let parsed = StorePath::parse(path).map_err(|error| Fault::of(path, error).failure)?;
        if parsed.as_ref().is_empty() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "an empty path names no object");
            return Err(Fault::of(path, error).failure);
        }
        Ok(match &self.shared.place {
            Place::Store { .. } => At::Store(parsed),
            Place::Local(Local { store: Some(store), .. }) => {
                At::File(store.path_to_filesystem(&parsed).map_err(|error| Fault::of(path, error).failure)?)
            }
            Place::Local(Local { root, .. }) => {
                At::File(parsed.parts().fold(root.clone(), |path, part| path.join(part.as_ref())))
            }
        })
    }
}

impl Local {
    /// The folder of this session, made now if there is none (any more).
    fn folder(&self) -> Result<Arc<Folder>, Fault> {
        let mut folders = self.folders.lock();
        if let Some(folder) = folders.last()
            && !folder.is_gone()
        {
            return Ok(Arc::clone(folder));
        }
        let folder = Arc::new(Folder::make(&self.root, self.shared_root)?);
        folders.push(Arc::clone(&folder));
        Ok(folder)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Local folders remove themselves.
        if let Place::Store { store, session } = &self.place {
            let (store, session) = (Arc::clone(store), session.clone());
            self.threads.end_with(move |handle| {
                Remote { store: &store, handle: handle.clone() }.delete_all(&session);
            });
        }
    }
}

/// An object of another [`Objects`].
fn misplaced(path: impl fmt::Display) -> Failure {
    let error = io::Error::new(io::ErrorKind::InvalidInput, "the object is in another store");
    Fault::of(path, error).failure
}

/// A number that nobody else has: 64 bits of the randomness that the system gives to hash maps.
fn unique() -> u64 {
    RandomState::new().build_hasher().finish()
}
