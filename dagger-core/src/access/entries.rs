//! The live accesses of a queue, by key.
//!
//! What a slab is, with the link of the free list in a field that an entry has anyway: taking a key and giving it back is
//! much of what an access costs.

use super::Entry;
use std::ops::{Index, IndexMut};

pub(super) struct Entries<T>(Vec<Entry<T>>);

impl<T> Entries<T> {
    pub(super) fn new() -> Entries<T> {
        Entries(Vec::new())
    }

    /// Puts an entry in the place of the first that is nobody's.
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry<T>, free: &mut u32) -> u32 {
        let key = *free;
        if let Some(place) = self.0.get_mut(key as usize) {
            *free = place.place.next;
            *place = entry;
            return key;
        }
        self.grow(entry)
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
