//! The live accesses of a queue, by key.
//!
//! What a slab is, with the link of the free list in a field that an entry has anyway: taking a key and giving it back is
//! much of what an access costs.

use super::Entry;
use super::fragment::NONE;
use std::ops::{Index, IndexMut};

pub(super) struct Entries<T>(Vec<Entry<T>>);

/// Those that are nobody's, linked through their places: the one that was given back first is taken first.
pub(super) struct Free {
    pub(super) first: u32,
    /// Of no meaning where there is no first.
    last: u32,
}

impl Free {
    pub(super) const NONE: Free = Free { first: NONE, last: NONE };
}

impl<T> Entries<T> {
    pub(super) fn new() -> Entries<T> {
        Entries(Vec::new())
    }

    /// Puts an entry in place of the first that is nobody's.
    #[inline(always)]
    pub(super) fn insert(&mut self, entry: Entry<T>, free: &mut Free) -> u32 {
        let key = free.first;
        let Some(at) = self.0.get_mut(key as usize) else { return self.grow(entry) };
        free.first = at.place.next;
        // Field by field: put together elsewhere it would be read in other pieces than it was written in, which waits for
        // the writes. Nobody's entry has no ticket that would have to be dropped.
        std::mem::forget(std::mem::replace(&mut at.ticket, entry.ticket));
        at.sequence = entry.sequence;
        at.own = entry.own;
        at.missing = entry.missing;
        at.place = entry.place;
        key
    }

    #[cold]
    fn grow(&mut self, entry: Entry<T>) -> u32 {
        self.0.push(entry);
        self.0.len() as u32 - 1
    }

    /// Takes a granted entry out: its own fragment, and whether it writes. `None` if there is none.
    #[inline]
    pub(super) fn remove_granted(&mut self, key: u32, free: &mut Free) -> Option<(u32, bool)> {
        let entry = self.0.get_mut(key as usize).filter(|entry| entry.missing.is_none())?;
        entry.ticket.take()?;
        entry.place.next = NONE;
        let removed = (entry.own, entry.missing.writes());
        if free.first == NONE {
            free.first = key;
        } else {
            self.0[free.last as usize].place.next = key;
        }
        free.last = key;
        Some(removed)
    }

    /// Where the next entry will be made, as long as there is room.
    #[inline]
    pub(super) fn next(&self, free: &Free) -> *const u8 {
        self.0.as_ptr().wrapping_add(self.0.len().min(free.first as usize)).cast()
    }

    #[inline]
    pub(super) fn get(&self, key: u32) -> Option<&Entry<T>> {
        self.0.get(key as usize).filter(|entry| entry.ticket.is_some())
    }

    /// The entry with this key, which the caller got from a list of waiting ones; `None` for `NONE`.
    #[inline]
    pub(super) fn waiting(&mut self, key: u32) -> Option<&mut Entry<T>> {
        self.0.get_mut(key as usize)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.0.iter().filter(|entry| entry.ticket.is_some())
    }
}

impl<T> Index<u32> for Entries<T> {
    type Output = Entry<T>;
    #[inline]
    fn index(&self, key: u32) -> &Entry<T> {
        &self.0[key as usize]
    }
}

impl<T> IndexMut<u32> for Entries<T> {
    #[inline]
    fn index_mut(&mut self, key: u32) -> &mut Entry<T> {
        &mut self.0[key as usize]
    }
}
