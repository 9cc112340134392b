//! The live accesses of a queue, by key.
//!
//! What a slab is, with the link of the free list in a field that an entry has anyway: taking a key and giving it back is
//! much of what an access costs.

use super::fragment::OwnPlace;
use super::{Entry, Missing};
use std::ops::{Index, IndexMut};

pub(super) struct Entries<T>(Vec<Entry<T>>);

impl<T> Entries<T> {
    pub(super) fn new() -> Entries<T> {
        Entries(Vec::new())
    }

    /// Makes an entry of the first that is nobody's. Its place is that of no list.
    #[inline(always)]
    pub(super) fn insert(&mut self, ticket: T, sequence: u64, own: u32, writes: bool, free: &mut u32) -> u32 {
        let missing = Missing::none(writes);
        let key = *free;
        let Some(entry) = self.0.get_mut(key as usize) else {
            return self.grow(Entry {
                ticket: Some(ticket),
                sequence,
                own,
                missing,
                place: OwnPlace::NOWHERE,
            });
        };
        *free = entry.place.next;
        // Field by field: put together elsewhere it would be read in other pieces than it was written in, which waits for
        // the writes. Nobody's entry has no ticket that would have to be dropped.
        std::mem::forget(entry.ticket.replace(ticket));
        entry.sequence = sequence;
        entry.own = own;
        entry.missing = missing;
        entry.place = OwnPlace::NOWHERE;
        key
    }

    #[cold]
    fn grow(&mut self, entry: Entry<T>) -> u32 {
        self.0.push(entry);
        self.0.len() as u32 - 1
    }

    /// Takes a granted entry out: its own fragment, and whether it writes. `None` if there is none.
    #[inline]
    pub(super) fn remove_granted(&mut self, key: u32, free: &mut u32) -> Option<(u32, bool)> {
        let entry = self.0.get_mut(key as usize).filter(|entry| entry.missing.is_none())?;
        entry.ticket.take()?;
        entry.place.next = *free;
        *free = key;
        Some((entry.own, entry.missing.writes()))
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
