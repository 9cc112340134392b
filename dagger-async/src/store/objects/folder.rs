//! The folder of a session: objects of one process that nobody needs after it.
//!
//! ```text
//!   root/dagger-<pid>-<random>/lock         locked for as long as its owner lives
//!                              object-7
//!                              object-8.part
//! ```
//! 1. Who holds the lock of a folder, and finds the lock file still in its place, owns the folder.
//! 2. The lock file is the last one to be removed, and its lock is held until then: half-removed folders can be recognised.
//!
//! A folder is made, and then locked. Whoever sweeps may come between, and take the lock first:
//! ```text
//! owner                         sweeper
//! make folder and lock file
//!                               takes the lock, removes file and folder, unlocks
//! locks a file without a name
//! lock file is not there: makes another folder
//! ```
//! A sweeper that is later finds the lock held, and one that has the lock when the owner asks makes it try another name.

use super::failure::Fault;
use super::{file, unique};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};

/// The lock file of a folder.
pub(super) const LOCK: &str = "lock";

const PREFIX: &str = "dagger";

/// How often a sweeper may be faster before that is an error.
const TRIES: usize = 16;

/// The name of a session: a folder, or what its objects have in common.
pub(super) fn session_name() -> String {
    format!("{PREFIX}-{}-{:016x}", std::process::id(), unique())
}

fn is_session_name(name: &str) -> bool {
    let mut parts = name.split('-');
    let parts = (parts.next(), parts.next(), parts.next(), parts.next());
    let (Some(PREFIX), Some(pid), Some(random), None) = parts else { return false };
    pid.parse::<u32>().is_ok() && random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A folder of ours. Dropping it removes it with all that is in it, as far as that can be.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

impl Folder {
    /// Makes a new folder in `root`, which is made too if need be, and before that removes what dead processes have left
    /// there.
    pub(super) fn make(root: &Path, shared: bool) -> Result<Folder, Fault> {
        make_root(root, shared).map_err(|error| Fault::of(root.display(), error))?;
        sweep(root);
        let mut last = None;
        for _ in 0..TRIES {
            let path = root.join(session_name());
            match Self::begin(&path).and_then(|lock| Self::own(path.clone(), lock)) {
                Ok(folder) => return Ok(folder),
                Err(error) if error.kind() == io::ErrorKind::NotFound => last = Some(error),
                Err(error) => {
                    // Empty, if it is there.
                    let _ = fs::remove_dir(&path);
                    return Err(Fault::of(path.display(), error));
                }
            }
        }
        let error = last.unwrap_or_else(|| io::ErrorKind::NotFound.into());
        Err(Fault::of(root.display(), error))
    }

    /// Makes a folder, which nobody owns yet, with its lock file.
    pub(super) fn begin(path: &Path) -> io::Result<File> {
        private().create(path)?;
        File::create_new(path.join(LOCK))
    }

    /// Takes a folder that was begun; `NotFound` if a sweeper was faster.
    pub(super) fn own(path: PathBuf, lock: File) -> io::Result<Folder> {
        file::lock(&lock)?;
        // Invariant 1: the lock of a file that was removed is nobody's.
        if !path.join(LOCK).try_exists()? {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Folder { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether someone has removed it under us. When in doubt, nobody has.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.path.try_exists(), Ok(false))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What stays is swept by the next process.
        let _ = remove(&self.path);
    }
}

/// Removes the folders in `root` whose owners are dead. What cannot be looked at or removed is left.
pub(super) fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder && entry.file_name().to_str().is_some_and(is_session_name) {
            sweep_one(&entry.path());
        }
    }
}

fn sweep_one(path: &Path) {
    match File::options().read(true).write(true).open(path.join(LOCK)) {
        Ok(lock) => {
            if lock.try_lock().is_ok() {
                // The lock is held until all is gone (invariant 2).
                let _ = remove(path);
            }
        }
        // Its owner was killed (or is) between making the folder and the file. One that is not empty is not ours to judge.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let _ = fs::remove_dir(path);
        }
        // Another user's.
        Err(_) => {}
    }
}

/// Removes a folder whose lock we hold.
fn remove(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        let folder = entry.file_type()?.is_dir();
        file::gone(if folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) })?;
    }
    file::gone(fs::remove_file(path.join(LOCK)))?;
    fs::remove_dir(path)
}

/// What is spilled is for nobody else to read.
fn private() -> DirBuilder {
    #[allow(unused_mut)] // elsewhere than on Unix
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Makes the root. One that all users of the machine have in common is made for them like `/tmp`: each may make folders there
/// and remove its own.
fn make_root(root: &Path, shared: bool) -> io::Result<()> {
    if root.try_exists()? {
        return Ok(());
    }
    fs::create_dir_all(root)?;
    #[cfg(unix)]
    if shared {
        use std::os::unix::fs::PermissionsExt;
        // Ours alone, if that cannot be.
        let _ = fs::set_permissions(root, fs::Permissions::from_mode(0o1777));
    }
    #[cfg(not(unix))]
    let _ = shared;
    Ok(())
}
