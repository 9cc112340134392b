//! The live accesses of a queue, by key.
//!
//! What a slab is, with the link of the free list in a field that an entry has anyway: taking a key and giving it back is
//! much of what an access costs.

use super::fragment::{NONE, OwnPlace};
use super::{Entry, Missing};
use std::ops::{Index, IndexMut};

pub(super) struct Entries<T>(Vec<Entry<T>>);

impl<T> Entry<T> {
    const NOBODYS: Self =
        Entry { ticket: None, sequence: 0, own: 0, missing: Missing(0), place: OwnPlace::NOWHERE };
}

/// Those that are nobody's, linked through their places: the one that was given back first is taken first.
pub(super) struct Free {
    pub(super) first: u32,
    /// Of no meaning where there is no first.
    last: u32,
}

impl Free {
    pub(super) const NONE: Free = Free { first: NONE, last: NONE };
}

/// Takes a granted entry out: its own fragment, and whether it writes. `None` if there is none.
#[inline(always)]
pub(super) fn remove_granted<T>(entries: &mut [Entry<T>], key: u32, free: &mut Free) -> Option<(u32, bool)> {
    let entry = entries.get_mut(key as usize).filter(|entry| entry.missing.is_none())?;
    entry.ticket.take()?;
    entry.place.next = NONE;
    let removed = (entry.own, entry.missing.writes());
    if free.first == NONE {
        free.first = key;
    } else {
        entries[free.last as usize].place.next = key;
    }
    free.last = key;
    Some(removed)
}

impl<T> Entries<T> {
    pub(super) fn new() -> Entries<T> {
        Entries(Vec::new())
    }

    /// Puts an entry in place of the first that is nobody's.
    #[inline(always)]
    pub(super) fn insert(&mut self, entry: Entry<T>, free: &mut Free) -> u32 {
        if free.first == NONE {
            self.grow(free);
        }
        let key = free.first;
        let at = &mut self.0[key as usize];
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

    /// Makes one that is nobody's.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, free: &mut Free) {
        let key = self.0.len() as u32;
        assert!(key < 1 << 31, "a place has 31 bits: so many accesses would be 64 GiB");
        self.0.push(Entry::NOBODYS);
        *free = Free { first: key, last: key };
    }

    /// All of them, by key: looked up once for all that a release does.
    #[inline(always)]
    pub(super) fn all(&mut self) -> &mut [Entry<T>] {
        &mut self.0
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
