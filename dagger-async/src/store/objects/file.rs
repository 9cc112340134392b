//! Objects as files: written beside their final name and then renamed, read from where they lie into the caller's buffers.
//!
//! 1. A file with the final name of an object is complete: it got that name after its last byte was written (and, when it
//!    is to be durable, is on the disk).
//! 2. A large `write_all` or `read_exact` of the caller goes to the system as it is, in steps of 256 KiB. Scratch: 64 KiB for
//!    small writes, 8 KiB for small reads.

use super::failure::{Cause, Fault};
use super::format::{self, Fill, HEADER_BYTES, Summary, TRAILER_BYTES, Take};
use super::{Compression, unique};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// How the name of a file of ours ends until it is complete.
pub(super) const PART: &str = "part";

/// The same, of files that others may write, too; before it a number that no other writer has.
const SHARED_PART: &str = "dagger-part";

const WRITE_BUFFER_BYTES: usize = 64 << 10;
const READ_BUFFER_BYTES: usize = 8 << 10;

/// Writes a file that needs not last longer than its folder. Nobody else writes this path.
pub(super) fn write(path: &Path, compression: Compression, fill: &mut Fill<'_>) -> Result<Summary, Fault> {
    let part = with_suffix(path, PART);
    let summary = File::create(&part)
        .map_err(Cause::Store)
        .and_then(|file| fill_file(&file, compression, fill))
        .and_then(|summary| fs::rename(&part, path).map(|()| summary).map_err(Cause::Store));
    undo_unless_written(&part, path, summary)
}

/// Writes a file whose path others may write at the same time, this process or another: the last one stays. What a killed
/// writer leaves is removed by [`list`], which knows by the lock that nobody is at it.
pub(super) fn write_shared(
    path: &Path,
    durable: bool,
    compression: Compression,
    fill: &mut Fill<'_>,
) -> Result<Summary, Fault> {
    make_parents(path, durable).map_err(|error| Fault::of(path.display(), error))?;
    let part = with_suffix(path, &format!("{:016x}.{SHARED_PART}", unique()));
    let mut write = || -> Result<Summary, Cause> {
        let file = File::create_new(&part).map_err(Cause::Store)?;
        lock(&file).map_err(Cause::Store)?;
        let summary = fill_file(&file, compression, fill)?;
        publish(&file, &part, path, durable).map_err(Cause::Store)?;
        Ok(summary)
    };
    undo_unless_written(&part, path, write())
}

/// Brings the complete `part` under its final name.
fn publish(file: &File, part: &Path, path: &Path, durable: bool) -> io::Result<()> {
    if durable {
        file.sync_all()?;
    }
    fs::rename(part, path)?;
    if durable {
        sync_folder_of(path)?;
    }
    Ok(())
}

fn undo_unless_written(part: &Path, path: &Path, result: Result<Summary, Cause>) -> Result<Summary, Fault> {
    result.map_err(|cause| {
        // The disk may be full: half an object must not stay. Nothing is left to say if that fails, too.
        let _ = fs::remove_file(part);
        Fault::by(path.display(), cause)
    })
}

fn fill_file(file: &File, compression: Compression, fill: &mut Fill<'_>) -> Result<Summary, Cause> {
    // It passes on what is larger than its buffer.
    format::encode(&mut BufWriter::with_capacity(WRITE_BUFFER_BYTES, file), compression, fill)
}

/// Reads the object in a file.
pub(super) fn read(path: &Path, expected: Option<&Summary>, take: &mut Take<'_>) -> Result<Summary, Fault> {
    let read = File::open(path).map_err(Cause::Store).and_then(|file| read_open(&file, expected, take));
    read.map_err(|cause| Fault::by(path.display(), cause))
}

/// Reads the object in an open file, from its start.
pub(super) fn read_open(
    file: &File,
    expected: Option<&Summary>,
    take: &mut Take<'_>,
) -> Result<Summary, Cause> {
    let stored = file.metadata().map_err(Cause::Store)?.len();
    // It passes on requests that are larger than its buffer.
    format::decode(&mut BufReader::with_capacity(READ_BUFFER_BYTES, file), stored, expected, take)
}

/// What the two ends of a file say.
pub(super) fn check(path: &Path) -> Result<Summary, Fault> {
    let checked = File::open(path).map_err(Cause::Store).and_then(|file| check_open(&file));
    checked.map(|(_, summary)| summary).map_err(|cause| Fault::by(path.display(), cause))
}

/// As [`check`], and lets `take` read the beginning of the payload, whose checksum nobody looks at.
pub(super) fn peek(path: &Path, take: &mut Take<'_>) -> Result<Summary, Fault> {
    let mut peek = || {
        let mut file = File::open(path).map_err(Cause::Store)?;
        let (head, summary) = check_open(&file)?;
        file.seek(SeekFrom::Start(HEADER_BYTES as u64)).map_err(Cause::Store)?;
        let body = Read::take(&file, summary.stored - format::FRAME_BYTES);
        format::peek(&head, &mut BufReader::with_capacity(READ_BUFFER_BYTES, body), take)?;
        Ok(summary)
    };
    peek().map_err(|cause| Fault::by(path.display(), cause))
}

fn check_open(mut file: &File) -> Result<([u8; HEADER_BYTES], Summary), Cause> {
    let mut ends = || -> io::Result<_> {
        let stored = file.metadata()?.len();
        let (mut head, mut tail) = ([0; HEADER_BYTES], [0; TRAILER_BYTES]);
        if stored >= format::FRAME_BYTES {
            file.read_exact(&mut head)?;
            file.seek(SeekFrom::Start(stored - TRAILER_BYTES as u64))?;
            file.read_exact(&mut tail)?;
        }
        Ok((head, tail, stored))
    };
    let (head, tail, stored) = ends().map_err(Cause::Store)?;
    format::check_ends(&head, &tail, stored).map(|summary| (head, summary))
}

/// Removes a file; one that is not there is as good.
pub(super) fn delete(path: &Path) -> Result<(), Fault> {
    gone(fs::remove_file(path)).map_err(|error| Fault::of(path.display(), error))
}

/// All files below `folder` that do not end in [`SHARED_PART`], with their sizes, in no order: a folder that does not exist holds none.
///
/// What killed writers have left half written is removed on the way.
pub(super) fn list(folder: &Path) -> Result<Vec<(PathBuf, u64)>, Fault> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let result = list_one(&folder, &mut folders, &mut found);
        gone(result).map_err(|error| Fault::of(folder.display(), error))?;
    }
    Ok(found)
}

fn list_one(folder: &Path, folders: &mut Vec<PathBuf>, found: &mut Vec<(PathBuf, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // It may go while we look.
        let Ok(data) = entry.metadata() else { continue };
        if data.is_dir() {
            folders.push(path);
        } else if path.extension().is_none_or(|extension| extension != SHARED_PART) {
            found.push((path, data.len()));
        } else if is_abandoned(&path) {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// Whether nobody writes this part. A writer that has not come to locking it yet finds it gone, and starts again.
fn is_abandoned(part: &Path) -> bool {
    File::options().write(true).open(part).is_ok_and(|file| file.try_lock().is_ok())
}

/// Takes the lock of a file that was made just now. Where the file system knows no locks, nobody can take it for abandoned.
pub(super) fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
        // Someone who clears up was faster, and is about to remove it.
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Treats what is not there as done.
pub(super) fn gone(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn make_parents(path: &Path, durable: bool) -> io::Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    if folder.try_exists()? {
        return Ok(());
    }
    make_parents(folder, durable)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ if durable => sync_folder_of(folder),
        _ => Ok(()),
    }
}

/// Brings the entry of `path` to the disk. Where folders cannot be opened, the system does so by itself.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}
