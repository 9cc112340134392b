//! What the store does with a chunk: it lends the value, takes it away, and brings it back.
//!
//! 1. It does so only while nobody has a pin (`store/word.rs`), so nothing is out that came from the value.
//! 2. Others look at the value without a pin under the lock only, and only while it is [`Presence::Here`].

use super::{AnyChunk, Core, CorePtr, Held, Presence, Whose};
use crate::residency::{Residence, Slot};
use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl Core {
    /// In recordings.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// What the store knows of it, if it belongs to one.
    #[inline]
    pub(crate) fn residence(&self) -> Option<&Arc<Residence>> {
        self.slot.get()
    }

    /// The store reads the value from now on, or no more.
    pub(crate) fn lend(&self, lent: bool) {
        self.lock().is_lent = lent;
    }

    /// The value is there again.
    pub(crate) fn back(&self) {
        let mut state = self.lock();
        state.presence = Presence::Here;
    }

    /// The id of the first task that will use it, and whether that writes: those that come later have larger ids. A guard, and
    /// the run of a plan, will soon.
    pub(crate) fn next_use(&self) -> Option<(u64, bool)> {
        let mut first: Option<(u64, bool)> = None;
        self.lock().queue.oldest(&mut |ticket, writes| {
            let id = match ticket.whose() {
                Whose::Task(task) => task.id.get(),
                Whose::Other(_) => 0,
            };
            first = Some(first.map_or((id, writes), |first| first.min((id, writes))));
        });
        first
    }
}

impl CorePtr {
    /// The core of a chunk that the caller owns.
    pub(crate) fn of(owner: &Arc<dyn AnyChunk>) -> CorePtr {
        let cell = NonNull::new(Arc::as_ptr(owner).cast::<Core>().cast_mut()).unwrap_or(NonNull::dangling());
        CorePtr::new(cell) // The core is at the start of its cell.
    }

    /// A task will make its value.
    pub(crate) fn awaits_value(self) -> bool {
        matches!(self.lock().presence, Presence::Missing(None))
    }

    /// Gives the chunk to a store, unless somebody has a place in its queue, or there will be no value.
    pub(crate) fn move_in(self, residence: &Arc<Residence>) -> bool {
        let state = self.lock();
        if !state.queue.is_idle() {
            return false;
        }
        let bytes = match state.presence {
            // SAFETY: there is a value, and nobody has a place: nothing is out.
            Presence::Here => unsafe { residence.measure(self.value()) },
            Presence::Missing(None) => 0,
            Presence::Away | Presence::Missing(Some(_)) | Presence::Taken => return false,
        };
        // Counted before anybody can find it.
        residence.count(bytes);
        let moved = self.slot.set(residence);
        if !moved {
            residence.count(0);
        }
        moved
    }

    /// Gives a new chunk to a store that will make its value.
    pub(crate) fn move_in_absent(self, residence: &Arc<Residence>) {
        let mut state = self.lock();
        if self.slot.set(residence) {
            state.presence = Presence::Away;
            self.look.store(false, Relaxed); // As for a value that is there.
        }
    }

    /// Takes the value out of its place: nobody has a pin, and nobody gets one until it is [`back`](Core::back).
    pub(crate) fn evict(self, residence: &Residence) -> Option<Box<dyn Any + Send>> {
        let mut state = self.lock();
        if !matches!(state.presence, Presence::Here) || !residence.word.leave() {
            return None;
        }
        state.presence = Presence::Away;
        // The shape stays what it is; where the elements lie does not.
        if let Some(parts) = &mut state.parts {
            (parts.base, parts.writes) = (std::ptr::null_mut(), false);
        }
        // SAFETY: there is a value, of the type of the residence; nothing is out (invariant 1), and it is used no more.
        Some(unsafe { residence.take(self.value()) })
    }
}

impl Held {
    pub(crate) fn core_ptr(&self) -> CorePtr {
        self.chunk
    }

    /// The task that makes the value has made it: said before the pin is given back, after which it may be taken away.
    pub(crate) fn has_filled(&self) {
        self.chunk.lock().presence = Presence::Here;
    }

    /// The value, for the one who has written it and not released it yet; `None` if there is none.
    pub(crate) fn value_to_measure(&self) -> Option<*const u8> {
        let is_here = matches!(self.chunk.lock().presence, Presence::Here);
        is_here.then(|| self.chunk.value().cast_const())
    }
}

#[cfg(all(test, not(dagger_loom)))]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#[test]
fn the_next_use_is_that_of_the_first_task_wherever_it_stands_in_the_queue() {
    use crate::chunk::{Chunk, ChunkCell};
    use crate::prelude::*;
    let runtime = Runtime::builder().threads(1).pin(false).build().unwrap();
    runtime.block_on(async {
        let chunk = Chunk::new(7u64);
        let next_use = || ChunkCell::core_of(&chunk.0).next_use();
        assert_eq!(next_use(), None);
        let (first, second) = (chunk.read().await.unwrap(), chunk.read().await.unwrap());
        assert_eq!(next_use(), Some((0, false)), "a guard will soon");
        // What is given back first is taken first: the reader that comes first stands behind the other.
        drop(second);
        drop(first);
        let (open, gate) = tokio::sync::watch::channel(false);
        let read = |gate: tokio::sync::watch::Receiver<bool>| {
            spawn!(async (|x: &u64| {
                let (x, mut gate) = (*x, gate);
                async move {
                    gate.wait_for(|open| *open).await.unwrap();
                    x
                }
            })(In(&chunk)))
        };
        let readers = [read(gate.clone()), read(gate)];
        let writer = spawn!((|x: &mut u64| *x += 1)(InOut(&chunk)));
        assert_eq!(next_use(), Some((readers[0].id().get(), false)));
        open.send_replace(true);
        for reader in readers {
            assert_eq!(reader.await.unwrap(), 7);
        }
        writer.await.unwrap();
        assert_eq!(next_use(), None);
    });
}
