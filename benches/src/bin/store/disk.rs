//! Plain files: what ours is compared with, and what both need of the disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// A store has four writes under way: more looks than that see each of them end.
const TRIES: usize = 100;
/// Linux 6.18 with ext4 takes a third of the time for this than for aligned steps of 1 MiB or more (5 against 1.6 GB/s on four
/// threads, 3 against 0.6 on one).
const WRITE_BYTES: usize = 256 << 10;

/// A folder that is removed with all that is in it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new one in `parent`.
    pub(crate) fn new(parent: &Path, name: &str) -> io::Result<Folder> {
        let path = parent.join(format!("dagger-bench-{}-{name}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// All files in it and in its folders.
    pub(crate) fn files(&self) -> io::Result<Vec<PathBuf>> {
        let (mut folders, mut files) = (vec![self.0.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        Ok(files)
    }

    /// Does something to every file. A store may still be at its last ones, and give them their final names meanwhile: then all
    /// are looked at again.
    fn each(&self, act: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
        for _ in 0..TRIES {
            let one = |path: PathBuf| File::open(path).and_then(|file| act(&file));
            match self.files().and_then(|files| files.into_iter().try_for_each(one)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
        }
        Err(io::Error::other("its files change all the time"))
    }

    /// Brings all files to the disk.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.each(File::sync_data)
    }

    /// Makes the system forget what it has of the files in memory: the next reader gets it from the disk.
    pub(crate) fn forget(&self) -> io::Result<()> {
        self.flush()?;
        self.each(|file| {
            #[cfg(target_os = "linux")]
            rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?;
            let _ = file;
            Ok(())
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Does `work` for 0..count on so many threads; each has a buffer of its own for all of it.
fn on_threads(
    threads: usize,
    count: usize,
    bytes: usize,
    work: impl Fn(usize, &mut [u8]) -> io::Result<()> + Sync,
) -> io::Result<f64> {
    let next = AtomicUsize::new(0);
    // Touched before the clock starts.
    let mut buffers = vec![vec![1u8; bytes]; threads];
    let start = Instant::now();
    let run = |buffer: &mut Vec<u8>| {
        loop {
            match next.fetch_add(1, Relaxed) {
                i if i < count => work(i, buffer)?,
                _ => return Ok(()),
            }
        }
    };
    let run = &run;
    std::thread::scope(|scope| {
        let running: Vec<_> = buffers.iter_mut().map(|buffer| scope.spawn(move || run(buffer))).collect();
        running
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a panic"))))
    })?;
    Ok(start.elapsed().as_secs_f64())
}

/// Writes so many files; seconds.
pub(crate) fn write(folder: &Folder, threads: usize, count: usize, bytes: usize) -> io::Result<f64> {
    on_threads(threads, count, bytes, |i, buffer| {
        buffer[..8].copy_from_slice(&(i as u64).to_le_bytes());
        let mut file = File::create(folder.path().join(i.to_string()))?;
        buffer.chunks(WRITE_BYTES).try_for_each(|part| file.write_all(part))
    })
}

/// Reads what [`write`] has written; seconds.
pub(crate) fn read(folder: &Folder, threads: usize, count: usize, bytes: usize) -> io::Result<f64> {
    on_threads(threads, count, bytes, |i, buffer| {
        File::open(folder.path().join(i.to_string()))?.read_exact(buffer)?;
        if buffer[..8] == (i as u64).to_le_bytes() { Ok(()) } else { Err(io::Error::other("another object")) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_removed() {
        let folder = Folder::new(&std::env::temp_dir(), "disk-test").unwrap();
        write(&folder, 2, 5, 1000).unwrap();
        folder.forget().unwrap();
        assert_eq!(folder.files().unwrap().len(), 5);
        read(&folder, 2, 5, 1000).unwrap();
        fs::rename(folder.path().join("1"), folder.path().join("2")).unwrap();
        assert!(read(&folder, 2, 5, 1000).is_err());
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
