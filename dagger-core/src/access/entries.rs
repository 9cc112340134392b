//! The live accesses of a queue, by key: those to the whole, and apart from them those to a part, which need more.
//!
//! What a slab is, with the link of the free list in a field that an entry has anyway: taking a key and giving it back is
//! much of what an access costs.

use super::fragment::{NONE, OwnPlace};

/// An access to the whole, and what one to a part begins with. Four of them are a cache line.
pub(super) struct Entry<T> {
    /// `None`: nobody's.
    pub(super) ticket: Option<T>,
    pub(super) place: OwnPlace,
}

const _: () = assert!(size_of::<Entry<std::ptr::NonNull<()>>>() <= 16);

/// An access to a part.
pub(super) struct PartEntry<T> {
    pub(super) entry: Entry<T>,
    /// Its fragment.
    pub(super) own: u32,
    pub(super) writes: bool,
    /// How many of its places are not granted yet.
    pub(super) missing: u32,
    /// When it came.
    pub(super) came: Moment,
}

/// How many places of the whole had been taken, and how many of those by writers.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) places: u64,
    pub(super) writes: u64,
}

/// What stands in the fragment of its own area.
pub(super) trait Own<T>: Sized {
    const NOBODYS: Self;

    fn entry(&self) -> &Entry<T>;
    fn entry_mut(&mut self) -> &mut Entry<T>;

    /// One of its places is granted.
    fn grant(&mut self, ready: &mut impl FnMut(&T));
}

impl<T> Entry<T> {
    /// Makes what is nobody's somebody's.
    #[inline(always)]
    pub(super) fn put(&mut self, ticket: T, place: OwnPlace) {
        // Field by field: put together elsewhere it would be read in other pieces than it was written in, which waits for
        // the writes. Nobody's entry has no ticket that would have to be dropped.
        std::mem::forget(self.ticket.replace(ticket));
        self.place = place;
    }
}

impl<T> Own<T> for Entry<T> {
    const NOBODYS: Self = Entry { ticket: None, place: OwnPlace::NOWHERE };

    #[inline(always)]
    fn entry(&self) -> &Entry<T> {
        self
    }
    #[inline(always)]
    fn entry_mut(&mut self) -> &mut Entry<T> {
        self
    }
    /// It has no other.
    #[inline(always)]
    fn grant(&mut self, ready: &mut impl FnMut(&T)) {
        if let Some(ticket) = &self.ticket {
            ready(ticket);
        }
    }
}

impl<T> PartEntry<T> {
    /// Whether it is granted, to write or not.
    pub(super) fn is_granted(&self, writes: bool) -> bool {
        self.missing == 0 && self.writes == writes
    }
}

impl<T> Own<T> for PartEntry<T> {
    const NOBODYS: Self = PartEntry {
        entry: Entry::NOBODYS,
        own: 0,
        writes: false,
        missing: 0,
        came: Moment { places: 0, writes: 0 },
    };

    fn entry(&self) -> &Entry<T> {
        &self.entry
    }
    fn entry_mut(&mut self) -> &mut Entry<T> {
        &mut self.entry
    }
    fn grant(&mut self, ready: &mut impl FnMut(&T)) {
        self.missing -= 1;
        if self.missing == 0 {
            self.entry.grant(ready);
        }
    }
}

pub(super) struct Entries<E>(Vec<E>);

/// Those that are nobody's, linked through their places: the one that was given back first is taken first.
pub(super) struct Free {
    first: u32,
    /// Of no meaning where there is no first.
    last: u32,
}

impl Free {
    pub(super) const NONE: Free = Free { first: NONE, last: NONE };
}

/// Makes an entry nobody's, if there is one and `check` gives something of it.
#[inline(always)]
pub(super) fn remove<T, E: Own<T>, R>(
    entries: &mut [E],
    key: u32,
    free: &mut Free,
    check: impl FnOnce(&E) -> Option<R>,
) -> Option<R> {
    let own = entries.get_mut(key as usize)?;
    let checked = check(own)?;
    own.entry_mut().ticket.take()?;
    own.entry_mut().place = OwnPlace::NOWHERE;
    if free.first == NONE {
        free.first = key;
    } else {
        entries[free.last as usize].entry_mut().place.next = key;
    }
    free.last = key;
    Some(checked)
}

impl<E> Entries<E> {
    pub(super) const fn new() -> Entries<E> {
        Entries(Vec::new())
    }

    /// The first that is nobody's, to be made somebody's.
    #[inline(always)]
    pub(super) fn take<T>(&mut self, free: &mut Free) -> (u32, &mut E)
    where
        E: Own<T>,
    {
        if free.first == NONE {
            self.grow(free);
        }
        let key = free.first;
        let entry = &mut self.0[key as usize];
        free.first = entry.entry().place.next;
        (key, entry)
    }

    /// Makes one that is nobody's.
    #[cold]
    #[inline(never)]
    fn grow<T>(&mut self, free: &mut Free)
    where
        E: Own<T>,
    {
        let key = self.0.len() as u32;
        assert!(key < 1 << 29, "a key has 29 bits: so many accesses would be 8 GiB");
        self.0.push(E::NOBODYS);
        *free = Free { first: key, last: key };
    }

    /// All of them, by key: looked up once for all that a release does.
    #[inline(always)]
    pub(super) fn all(&mut self) -> &mut [E] {
        &mut self.0
    }

    /// All of them, by key, to look at.
    pub(super) fn as_slice(&self) -> &[E] {
        &self.0
    }

    /// Where the next entry will be made, as long as there is room.
    #[inline]
    pub(super) fn next(&self, free: &Free) -> *const u8 {
        self.0.as_ptr().wrapping_add(self.0.len().min(free.first as usize)).cast()
    }

    #[inline]
    pub(super) fn get<T>(&self, key: u32) -> Option<&E>
    where
        E: Own<T>,
    {
        self.0.get(key as usize).filter(|entry| entry.entry().ticket.is_some())
    }

    /// Those that are somebody's, with their keys.
    pub(super) fn iter<'a, T: 'a>(&'a self) -> impl Iterator<Item = (u32, &'a E, &'a T)>
    where
        E: Own<T> + 'a,
    {
        let all = (0..).zip(&self.0);
        all.filter_map(|(key, entry)| entry.entry().ticket.as_ref().map(|ticket| (key, entry, ticket)))
    }
}
