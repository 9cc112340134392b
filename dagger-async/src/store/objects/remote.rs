//! Objects in any store: requests that a thread waits for.
//!
//! 1. An object appears whole or not at all: small ones by one `put`, larger ones by an upload in parts, which is aborted when
//!    anything fails.
//! 2. Scratch for one object that is written: at most [`PART_BYTES`] that are gathered and [`PARTS_MAX`] parts on their
//!    way, together 40 MiB. For one that is read: what the store hands over at a time.

use super::Compression;
use super::failure::{Cause, FIRST_DELAY, Failure, Fault, RETRIES, judge, retry};
use super::file::read_open;
use super::format::{self, FRAME_BYTES, Fill, HEADER_BYTES, Summary, TRAILER_BYTES, Take};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// The size of a part, and from where an object is written in parts.
pub(super) const PART_BYTES: usize = 8 << 20;

/// How many parts of an upload are on their way at a time.
const PARTS_MAX: usize = 4;

/// How many requests remove what a session leaves.
const REMOVALS_MAX: usize = 8;

/// A store, and where its requests are waited for. The calling thread blocks; it must not be running async code.
pub(super) struct Remote<'a> {
    pub(super) store: &'a Arc<dyn ObjectStore>,
    pub(super) handle: Handle,
}

impl Remote<'_> {
    pub(super) fn write(
        &self,
        path: &Path,
        compression: Compression,
        fill: &mut Fill<'_>,
    ) -> Result<Summary, Fault> {
        let mut upload = Upload { remote: self, path, part: Vec::new(), parts: None };
        let result = format::encode(&mut upload, compression, fill)
            .and_then(|summary| upload.finish().map(|()| summary).map_err(Cause::Store));
        if result.is_err() {
            upload.abandon();
        }
        result.map_err(|cause| Fault::by(path, cause))
    }

    pub(super) fn read(
        &self,
        path: &Path,
        expected: Option<&Summary>,
        take: &mut Take<'_>,
    ) -> Result<Summary, Fault> {
        let got = self.handle.block_on(self.store.get(path)).map_err(|error| Fault::of(path, error))?;
        let result = match got.payload {
            GetResultPayload::File(file, _) => read_open(&file, expected, take),
            GetResultPayload::Stream(stream) => {
                let mut stream = stream;
                let next = || self.handle.block_on(poll_fn(|to| stream.as_mut().poll_next(to)));
                format::decode(&mut Chunks { next, chunk: Bytes::new() }, got.meta.size, expected, take)
            }
        };
        result.map_err(|cause| Fault::by(path, cause))
    }

    /// What the two ends of an object say.
    pub(super) fn check(&self, path: &Path) -> Result<Summary, Fault> {
        let ends = async {
            let stored = self.store.head(path).await?.size;
            if stored < FRAME_BYTES {
                return Ok((stored, Vec::new()));
            }
            let ranges = [0..HEADER_BYTES as u64, stored - TRAILER_BYTES as u64..stored];
            Ok((stored, self.store.get_ranges(path, &ranges).await?))
        };
        let (stored, ends) =
            self.handle.block_on(ends).map_err(|error: object_store::Error| Fault::of(path, error))?;
        let mut ends = ends.iter();
        let head = ends.next().and_then(|bytes| bytes.as_ref().try_into().ok()).unwrap_or([0; HEADER_BYTES]);
        let tail = ends.next().and_then(|bytes| bytes.as_ref().try_into().ok()).unwrap_or([0; TRAILER_BYTES]);
        format::check_ends(&head, &tail, stored).map_err(|cause| Fault::by(path, cause))
    }

    /// Removes an object; one that is not there is as good.
    pub(super) fn delete(&self, path: &Path) -> Result<(), Failure> {
        retry(|| match self.handle.block_on(self.store.delete(path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(Fault::of(path, error)),
        })
    }

    /// All objects below `prefix` with their sizes, in no order.
    pub(super) fn list(&self, prefix: &Path) -> Result<Vec<(Path, u64)>, Fault> {
        self.handle.block_on(list(self.store, prefix)).map_err(|error| Fault::of(prefix, error))
    }

    /// Removes all objects below `prefix`, as far as that can be.
    pub(super) fn delete_all(&self, prefix: &Path) {
        self.handle.block_on(async {
            let Ok(found) = again(|| list(self.store, prefix)).await else { return };
            let mut removals = JoinSet::new();
            for (path, _) in found {
                if removals.len() == REMOVALS_MAX {
                    removals.join_next().await;
                }
                let store = Arc::clone(self.store);
                removals.spawn_on(async move { again(|| store.delete(&path)).await }, &self.handle);
            }
            while removals.join_next().await.is_some() {}
        });
    }
}

async fn list(store: &Arc<dyn ObjectStore>, prefix: &Path) -> object_store::Result<Vec<(Path, u64)>> {
    let mut stream = store.list(Some(prefix));
    let mut found = Vec::new();
    while let Some(object) = poll_fn(|to| stream.as_mut().poll_next(to)).await {
        let object = object?;
        found.push((object.location, object.size));
    }
    Ok(found)
}

/// As [`retry`], of a request that is awaited.
async fn again<T, F: Future<Output = object_store::Result<T>>>(
    mut request: impl FnMut() -> F,
) -> object_store::Result<T> {
    let mut delay = FIRST_DELAY;
    for _ in 0..RETRIES {
        match request().await {
            Err(error) if judge(&error).1 => tokio::time::sleep(delay).await,
            other => return other,
        }
        delay *= 2;
    }
    request().await
}

/// A stream of chunks, read by a thread that waits for each.
struct Chunks<N> {
    next: N,
    chunk: Bytes,
}

impl<N: FnMut() -> Option<object_store::Result<Bytes>>> Read for Chunks<N> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        while self.chunk.is_empty() {
            match (self.next)() {
                Some(chunk) => self.chunk = chunk.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let piece = self.chunk.split_to(to.len().min(self.chunk.len()));
        to[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

/// An object on its way to a store. It ends by `finish`, or by `abandon`.
struct Upload<'a> {
    remote: &'a Remote<'a>,
    path: &'a Path,
    /// What is gathered for the next part.
    part: Vec<u8>,
    /// `None` as long as all fits into one `put`.
    parts: Option<Parts>,
}

struct Parts {
    upload: Box<dyn MultipartUpload>,
    sending: JoinSet<object_store::Result<()>>,
}

impl Parts {
    /// Waits until at most `left` parts are on their way.
    async fn wait(&mut self, left: usize) -> io::Result<()> {
        while self.sending.len() > left
            && let Some(sent) = self.sending.join_next().await
        {
            sent.map_err(io::Error::other)?.map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Upload<'_> {
    /// Sends what is gathered.
    fn send(&mut self) -> io::Result<()> {
        let handle = &self.remote.handle;
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => {
                let upload = handle.block_on(self.remote.store.put_multipart(self.path));
                none.insert(Parts { upload: upload.map_err(io::Error::other)?, sending: JoinSet::new() })
            }
        };
        handle.block_on(parts.wait(PARTS_MAX - 1))?;
        let part = PutPayload::from(Bytes::from(std::mem::take(&mut self.part)));
        parts.sending.spawn_on(parts.upload.put_part(part), handle);
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let handle = &self.remote.handle;
        if self.parts.is_none() {
            let all = PutPayload::from(Bytes::from(std::mem::take(&mut self.part)));
            return handle
                .block_on(self.remote.store.put(self.path, all))
                .map(drop)
                .map_err(io::Error::other);
        }
        if !self.part.is_empty() {
            self.send()?;
        }
        if let Some(parts) = &mut self.parts {
            handle.block_on(async {
                parts.wait(0).await?;
                parts.upload.complete().await.map(drop).map_err(io::Error::other)
            })?;
        }
        Ok(())
    }

    /// Tells the store to forget the parts that it has. If it fails again, they are its own to clear up.
    fn abandon(&mut self) {
        if let Some(mut parts) = self.parts.take() {
            self.remote.handle.block_on(async {
                parts.sending.shutdown().await;
                let _ = parts.upload.abort().await;
            });
        }
    }
}

impl Write for Upload<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let piece = &from[..from.len().min(PART_BYTES - self.part.len())];
        self.part.extend_from_slice(piece);
        if self.part.len() == PART_BYTES {
            self.send()?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
