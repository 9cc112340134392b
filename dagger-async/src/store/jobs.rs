//! Loads, writes and deletes: what the threads of the store do, without the lock of the ledger.

use super::Store;
use super::ledger::{Settlement, Source};
use super::objects::{Failure, Object};
use super::residence::Residence;
use crate::chunk::{AnyChunk, CorePtr};
use crate::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A value that is to come back. Its place is the job's while it does (`MOVING`).
pub(super) struct Load {
    pub(super) key: usize,
    pub(super) residence: Arc<Residence>,
    pub(super) source: Source,
    pub(super) owner: Arc<dyn AnyChunk>,
}

/// A value that is to be written down. Nobody writes to it meanwhile (`WRITING`).
pub(super) struct Write {
    pub(super) key: usize,
    pub(super) residence: Arc<Residence>,
    pub(super) owner: Arc<dyn AnyChunk>,
}

/// What an error says of a chunk.
fn describe(chunk: &dyn AnyChunk) -> Arc<str> {
    let core = chunk.core();
    format!("a chunk of `{}` (made at {}:{})", core.content, core.site.file(), core.site.line()).into()
}

pub(super) fn no_thread() -> io::Error {
    io::Error::other("the operating system gives the store no thread")
}

pub(super) fn start_load(store: &Arc<Store>, load: Load) {
    let for_job = store.clone();
    // Kept here too, for the one who finds that there is no thread.
    let (key, owner) = (load.key, load.owner.clone());
    let started = store.objects.run(move |_| {
        let began = Instant::now();
        let (key, owner) = (load.key, load.owner.clone());
        let is_made = matches!(load.source, Source::Recipe(_));
        let result = caught(|| do_load(&for_job, load));
        if let Ok(bytes) = &result
            && is_made
        {
            for_job.bytes_made.fetch_add(*bytes, Relaxed);
        } else if let Ok(bytes) = &result {
            for_job.bytes_in.fetch_add(*bytes, Relaxed);
            for_job.load_nanos.fetch_add(began.elapsed().as_nanos() as u64, Relaxed);
        }
        let result = result.map_err(|failure| reload_error(&*owner, &failure));
        for_job.change(|ledger, store, settlement| {
            ledger.loaded(store, key, &owner, result, began.elapsed(), settlement);
            settlement.keep(owner);
        });
    });
    if !started {
        let error = reload_error(&*owner, &Failure::other("the store", no_thread()));
        store.change(|ledger, store, settlement| {
            ledger.loaded(store, key, &owner, Err(error), Duration::ZERO, settlement);
            settlement.keep(owner);
        });
    }
}

/// A store is a user's code: if it panics it has failed.
fn caught<T>(job: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|payload| {
        let text = format!("the store panicked: {}", crate::error::PanicText::of(payload));
        Err(Failure::other("the store", io::Error::other(text)))
    })
}

fn reload_error(owner: &dyn AnyChunk, failure: &Failure) -> Error {
    let (path, source) = (failure.path.clone(), failure.source.clone());
    Error::Reload { root: None, chunk: describe(owner), path, source }
}

/// Makes the value in its place; gives its bytes.
fn do_load(store: &Store, load: Load) -> Result<u64, Failure> {
    let Load { residence, source, owner, .. } = load;
    let room = CorePtr::of(&owner).value();
    let of = residence.of();
    match source {
        Source::Object(object) => {
            let moves = of.moves.ok_or_else(|| Failure::other("", io::Error::other("it cannot be read")))?;
            let mut is_made = false;
            let result = store.objects.read(&object, &mut |from| {
                if std::mem::take(&mut is_made) {
                    // SAFETY: made in an attempt before, and nobody else knows of it.
                    drop(unsafe { (of.take)(room) });
                }
                // SAFETY: the room is ours while the value moves (`MOVING`), and is of this type.
                unsafe { (moves.reload)(room, from) }?;
                is_made = true;
                Ok(())
            });
            if result.is_err() && is_made {
                // SAFETY: as above.
                let value = unsafe { (of.take)(room) };
                crate::error::quietly(|| drop(value));
            }
            result?;
        }
        Source::Recipe(recipe) => {
            // SAFETY: the room is ours while the value moves (`MOVING`), and is of this type.
            let made = catch_unwind(AssertUnwindSafe(|| unsafe { recipe.make(room) }));
            let made = made.unwrap_or_else(|payload| {
                Err(io::Error::other(format!("it panicked: {}", crate::error::PanicText::of(payload))))
            });
            made.map_err(|error| Failure::other(&recipe.path(), error))?;
        }
        Source::Nothing => return Err(Failure::other("", io::Error::other("it has no copy"))),
    }
    // SAFETY: the value is there, and nobody else has it yet.
    Ok(unsafe { residence.measure(room) })
}

pub(super) fn start_write(store: &Arc<Store>, write: Write) {
    let for_job = store.clone();
    let (key, owner) = (write.key, write.owner.clone());
    let started = store.objects.run(move |objects| {
        let Write { key, residence, owner } = write;
        let began = Instant::now();
        let value = CorePtr::of(&owner).value();
        let result = match residence.of().moves {
            // SAFETY: nobody writes the value until `written` (`WRITING`), and it is of this type.
            Some(moves) => caught(|| {
                // SAFETY: as above.
                objects.write(for_job.next_name(), &mut |to| unsafe { (moves.spill)(value, to) })
            }),
            None => Err(Failure::other("", io::Error::other("it cannot be written"))),
        };
        if let Ok(object) = &result {
            for_job.bytes_out.fetch_add(object.stored_bytes(), Relaxed);
            for_job.write_nanos.fetch_add(began.elapsed().as_nanos() as u64, Relaxed);
        }
        let result = result.map_err(|failure| spill_error(&*owner, &failure));
        for_job.change(|ledger, store, settlement| {
            ledger.written(store, key, &owner, result, began.elapsed(), settlement);
            settlement.keep(owner);
        });
    });
    if !started {
        let result: Result<Object, Error> =
            Err(spill_error(&*owner, &Failure::other("the store", no_thread())));
        store.change(|ledger, store, settlement| {
            ledger.written(store, key, &owner, result, Duration::ZERO, settlement);
            settlement.keep(owner);
        });
    }
}

pub(super) fn spill_error(owner: &dyn AnyChunk, failure: &Failure) -> Error {
    let (path, source) = (failure.path.clone(), failure.source.clone());
    Error::Spill { root: None, chunk: describe(owner), path, source }
}

/// Deletes what nobody needs any more, until there is nothing left of it.
pub(super) fn start_deletes(store: &Arc<Store>) {
    {
        let mut ledger = store.ledger.lock();
        if std::mem::replace(&mut ledger.deleting, true) {
            return;
        }
    }
    let for_job = store.clone();
    let started = store.objects.run(move |objects| {
        loop {
            let doomed = {
                let mut ledger = for_job.ledger.lock();
                ledger.deleting = !ledger.doomed.is_empty();
                std::mem::take(&mut ledger.doomed)
            };
            if doomed.is_empty() {
                return;
            }
            for object in doomed {
                // A load that has it at this moment reads an open file, or fails for nobody.
                crate::error::quietly(|| objects.delete(&object));
            }
        }
    });
    if !started {
        store.ledger.lock().deleting = false;
    }
}

impl Settlement {
    /// Gives up an owner of a chunk, later.
    pub(super) fn keep(&mut self, owner: Arc<dyn AnyChunk>) {
        self.owners.push(owner);
    }
}
