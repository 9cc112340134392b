//! The queue of one chunk: who may touch which part of it, and in which order.
//!
//! ```text
//!   fragment    places, in program order                older fragments that it overlaps
//!   whole       w1  r2  ·   ·  (r4)(w5)                 none
//!   0..3                r3  ·   ·                       whole
//!   2..6                    r4 (w5)                     whole, 0..3
//!               a letter: the own place of an access; in brackets: its foreign places
//! ```
//! 1. An access waits for exactly the earlier live accesses that overlap it where one of the two writes.
//! 2. A fragment is one distinct area. `Whole` is always one and the oldest; another comes into being with its
//!    first access, and is dropped some time after its last.
//! 3. An access takes an *own* place in its fragment and a *foreign* one in each **older** fragment that overlaps
//!    it. So two accesses that overlap meet in exactly one fragment, the older of theirs, where one of them at
//!    least has its own place; two foreign places never conflict.
//! 4. A place waits until as many conflicting places of its fragment are released as had been issued when it came.
//!    A later one cannot be released before, since it waits in turn; so a count says as much as a list.
//! 5. An access is granted when all its places are. It never leaves before: who gives up keeps its place until it
//!    is granted, and releases it then.
//! 6. A fragment without live own places is dead and may be dropped, foreign places included: nobody waits there,
//!    and nobody will, because if its area comes back it is newer than all and takes its places in the others.
//!
//! The geometry is done once per new fragment: an access to a known one costs a hash, and a counter for each
//! fragment that it overlaps. It knows nothing of threads, tasks or memory.

mod entries;
mod fragment;
#[cfg(test)]
mod tests;

use rustc_hash::FxHashMap;
use slab::Slab;
use smallvec::SmallVec;
use std::num::NonZeroU32;

use crate::region::Area;
use entries::{Entries, Free, remove_granted};
use fragment::{Class, Fragment, OwnPlace};

/// The own fragment of an access to everything.
const WHOLE: u32 = u32::MAX;
/// The own fragment of an access to nothing.
const NOTHING: u32 = u32::MAX - 1;
/// So many dead fragments are always kept, for the next access to the same area.
const DEAD_KEPT: usize = 64;

/// The accesses to one chunk, in program order, as a pure state machine. `T` stands for whoever accesses.
///
/// ```
/// use dagger_core::{AccessQueue, Area, Grid, Progression};
///
/// let part = |start, len| Area::Grid(Grid::line(Progression::range(start, len).into()));
/// let mut queue = AccessQueue::new();
/// let (a, granted_a) = queue.enqueue('a', true, &part(0, 3));
/// let (b, granted_b) = queue.enqueue('b', true, &part(3, 3));
/// let (_, granted_c) = queue.enqueue('c', false, &part(2, 2));
/// assert_eq!((granted_a, granted_b, granted_c), (true, true, false)); // c overlaps both
///
/// let mut ready = Vec::new();
/// queue.release(b, &mut |&ticket| ready.push(ticket));
/// assert!(ready.is_empty());
/// queue.release(a, &mut |&ticket| ready.push(ticket));
/// assert_eq!(ready, ['c']);
/// ```
#[repr(C)]
pub struct AccessQueue<T> {
    // What every access to the whole writes comes first and is 56 bytes long, so that it can share a cache line with a lock.
    free: Free,
    whole: Fragment,
    // The rest is read only, for those.
    entries: Entries<T>,
    /// Accesses to nothing that there have been, modulo 2³², and that are live.
    nothings: u32,
    nothing: u32,
    /// How often the count of accesses has begun again.
    epoch: u32,
    /// Nothing until the first access to a part.
    parts: Option<Box<Parts>>,
}

// See its first lines: beside a lock in a cache line.
const _: () = assert!(std::mem::offset_of!(AccessQueue<u64>, whole) + Fragment::WRITTEN <= 56);

/// A live access in its queue. It is a key: after the release it may come to mean another access.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place(NonZeroU32);

impl Place {
    /// For who keeps it beside something else in a word.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn number(self) -> NonZeroU32 {
        self.0
    }

    /// The place with this [`number`](Place::number).
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn from_number(number: NonZeroU32) -> Place {
        Place(number)
    }

    /// Of the entry with this key (fewer than 2³¹ are live: see `Entries::grow`).
    #[inline]
    fn of(key: u32) -> Place {
        Place(NonZeroU32::MIN | key << 1)
    }

    #[inline]
    fn key(self) -> u32 {
        self.0.get() >> 1
    }
}

struct Entry<T> {
    /// `None`: nobody's.
    ticket: Option<T>,
    sequence: u64,
    own: u32,
    /// Places not granted yet.
    missing: Missing,
    place: OwnPlace,
}

/// How many places an access misses, and whether it writes: in one word, so that an entry is half a cache line.
#[derive(Clone, Copy)]
struct Missing(u32);

impl Missing {
    const WRITES: u32 = 1 << 31;

    fn none(writes: bool) -> Missing {
        Missing(if writes { Missing::WRITES } else { 0 })
    }
    fn one(writes: bool) -> Missing {
        Missing(Missing::none(writes).0 + 1)
    }
    #[inline]
    fn is_none(self) -> bool {
        self.0 & !Missing::WRITES == 0
    }
    #[inline]
    fn writes(self) -> bool {
        self.0 & Missing::WRITES != 0
    }
    #[inline]
    fn add(&mut self, places: u32) {
        self.0 += places;
    }
    #[inline]
    fn grant(&mut self) {
        self.0 -= 1;
    }
}

const _: () = assert!(size_of::<Entry<std::ptr::NonNull<()>>>() <= 32);

impl<T> Entry<T> {
    /// One of its places is granted.
    #[inline(always)]
    fn grant(&mut self, ready: &mut impl FnMut(&T)) {
        self.missing.grant();
        if self.missing.is_none()
            && let Some(ticket) = &self.ticket
        {
            ready(ticket);
        }
    }
}

#[derive(Default)]
struct Parts {
    known: FxHashMap<Area, u32>,
    slots: Slab<Slot>,
}

struct Slot {
    fragment: Fragment,
    /// The fragments that are older and overlap this one, but for `WHOLE`, which always does.
    older: SmallVec<[u32; 6]>,
}

impl<T> AccessQueue<T> {
    /// A queue without accesses. It allocates nothing.
    #[must_use]
    pub fn new() -> AccessQueue<T> {
        AccessQueue {
            free: Free::NONE,
            whole: Fragment::default(),
            entries: Entries::new(),
            nothings: 0,
            nothing: 0,
            epoch: 0,
            parts: None,
        }
    }

    /// Adds an access behind all others. If it must wait (`false`), a later [`release`](AccessQueue::release)
    /// reports its ticket, once.
    ///
    /// An empty area is granted at once. Constant time for `Whole`; else a hash and a step for each known fragment
    /// that the area overlaps, and a comparison with every known fragment if the area is new.
    #[must_use = "who forgets the place can never release it"]
    #[inline]
    pub fn enqueue(&mut self, ticket: T, writes: bool, area: &Area) -> (Place, bool) {
        let own = match area {
            Area::Whole => return self.enqueue_whole(ticket, writes),
            part => self.parts.get_or_insert_default().find_or_add(part),
        };
        let key = self.insert(ticket, own, writes);
        let granted = if own == NOTHING {
            self.nothings = self.nothings.wrapping_add(1);
            self.nothing += 1;
            true
        } else {
            self.take_parts(own as usize, writes, key)
        };
        (Place::of(key), granted)
    }

    /// As [`enqueue`](AccessQueue::enqueue) with [`Area::Whole`], for those who know that: much of what a small task costs.
    #[must_use = "who forgets the place can never release it"]
    #[inline(always)]
    pub fn enqueue_whole(&mut self, ticket: T, writes: bool) -> (Place, bool) {
        let sequence = self.next_sequence();
        // Before the entry is made, so that it is written once.
        let (place, granted) = self.whole.issue_own(writes);
        let missing = if granted { Missing::none(writes) } else { Missing::one(writes) };
        let entry = Entry { ticket: Some(ticket), sequence, own: WHOLE, missing, place };
        let key = self.entries.insert(entry, &mut self.free);
        if !granted {
            self.whole.line_up(writes, key, &mut self.entries);
        }
        (Place::of(key), granted)
    }

    fn insert(&mut self, ticket: T, own: u32, writes: bool) -> u32 {
        let (sequence, missing) = (self.next_sequence(), Missing::none(writes));
        let entry = Entry { ticket: Some(ticket), sequence, own, missing, place: OwnPlace::NOWHERE };
        self.entries.insert(entry, &mut self.free)
    }

    /// The program order of an access that is about to be counted.
    #[inline(always)]
    fn next_sequence(&mut self) -> u64 {
        let sequence = self.accesses();
        if sequence as u32 == u32::MAX {
            self.epoch = self.epoch.wrapping_add(1);
        }
        sequence
    }

    /// How many accesses there have been: the program order of the next.
    #[must_use]
    #[inline]
    pub fn accesses(&self) -> u64 {
        // Each has a place in `whole`, unless it is to nothing.
        u64::from(self.epoch) << 32 | u64::from(self.whole.issued().wrapping_add(self.nothings))
    }

    /// Where the next access will be written, unless the queue needs more memory for it: for those who ask for a cache line
    /// before they need it.
    #[must_use]
    #[inline]
    pub fn next_entry(&self) -> *const u8 {
        self.entries.next(&self.free)
    }

    /// Takes the places of an access to a part. True if all are granted.
    fn take_parts(&mut self, own: usize, writes: bool, key: u32) -> bool {
        let AccessQueue { entries, whole, parts, .. } = self;
        let slots = &mut parts.get_or_insert_default().slots;
        slots[own].fragment.take_own(writes, key, entries);
        let mut missing = u32::from(!whole.take_foreign(writes, key));
        for i in 0..slots[own].older.len() {
            let older = slots[own].older[i] as usize;
            missing += u32::from(!slots[older].fragment.take_foreign(writes, key));
        }
        let entry = &mut entries[key];
        entry.missing.add(missing);
        entry.missing.is_none()
    }

    /// Ends a granted access and calls `ready` for the ticket of every access that is granted by that.
    ///
    /// The order of these calls is not the program order. Releasing what was not granted is an error of the
    /// caller: debug builds panic, others ignore it.
    #[inline(always)]
    pub fn release(&mut self, place: Place, ready: &mut impl FnMut(&T)) {
        let entries = self.entries.all();
        let Some((own, writes)) = remove_granted(entries, place.key(), &mut self.free) else {
            debug_assert!(false, "only a granted access is released");
            return;
        };
        match own {
            WHOLE if writes => self.whole.give(Class::OwnWrite, entries, ready),
            WHOLE => self.whole.give(Class::OwnRead, entries, ready),
            NOTHING => self.nothing -= 1,
            own => self.give_parts(own as usize, writes, ready),
        }
    }

    fn give_parts(&mut self, own: usize, writes: bool, ready: &mut impl FnMut(&T)) {
        let AccessQueue { entries, whole, parts, .. } = self;
        let entries = entries.all();
        let Some(Parts { slots, .. }) = parts.as_deref_mut() else { return };
        let foreign = Class::foreign(writes);
        whole.give(foreign, entries, ready);
        slots[own].fragment.give(Class::own(writes), entries, ready);
        for i in 0..slots[own].older.len() {
            let older = slots[own].older[i] as usize;
            slots[older].fragment.give(foreign, entries, ready);
        }
    }

    /// Whether there is no live access.
    #[must_use]
    #[inline]
    pub fn is_idle(&self) -> bool {
        // An access to a part has a place in `whole` too.
        self.whole.is_idle() && self.nothing == 0
    }

    /// Whether some live access, granted or waiting, writes [`Area::Whole`].
    #[must_use]
    pub fn live_whole_write(&self) -> bool {
        self.whole.has(Class::OwnWrite)
    }

    /// Whether this access is live and granted.
    #[must_use]
    pub fn is_granted(&self, place: Place) -> bool {
        self.entries.get(place.key()).is_some_and(|entry| entry.missing.is_none())
    }

    /// Visits the tickets that an access waits for, in program order; none if it is granted.
    ///
    /// For diagnosis: it looks at every live access.
    pub fn blockers(&self, place: Place, visit: &mut dyn FnMut(&T)) {
        let Some(waiting) = self.entries.get(place.key()) else { return };
        self.in_order(visit, |entry| {
            entry.sequence < waiting.sequence
                && (entry.missing.writes() || waiting.missing.writes())
                && self.meet(entry.own, waiting.own)
        });
    }

    /// The ticket of the oldest live access, granted or waiting, and whether it writes. It looks at every live access.
    #[must_use]
    pub fn oldest(&self) -> Option<(&T, bool)> {
        let entry = self.entries.iter().min_by_key(|entry| entry.sequence)?;
        Some((entry.ticket.as_ref()?, entry.missing.writes()))
    }

    /// Visits the tickets of the accesses that wait, in program order.
    pub fn waiting(&self, visit: &mut dyn FnMut(&T)) {
        self.in_order(visit, |entry| !entry.missing.is_none());
    }

    /// Visits the tickets of the accesses that are granted, in program order.
    pub fn granted(&self, visit: &mut dyn FnMut(&T)) {
        self.in_order(visit, |entry| entry.missing.is_none());
    }

    fn in_order(&self, visit: &mut dyn FnMut(&T), keep: impl Fn(&Entry<T>) -> bool) {
        let mut kept: Vec<&Entry<T>> = self.entries.iter().filter(|entry| keep(entry)).collect();
        kept.sort_unstable_by_key(|entry| entry.sequence);
        kept.into_iter().filter_map(|entry| entry.ticket.as_ref()).for_each(visit);
    }

    /// Whether two fragments with live accesses overlap.
    fn meet(&self, a: u32, b: u32) -> bool {
        if a == NOTHING || b == NOTHING {
            return false;
        }
        let knows = |newer: u32, older: u32| {
            let slot = self.parts.as_ref().and_then(|parts| parts.slots.get(newer as usize));
            slot.is_some_and(|slot| slot.older.contains(&older))
        };
        a == b || a == WHOLE || b == WHOLE || knows(a, b) || knows(b, a)
    }
}

impl<T> Default for AccessQueue<T> {
    fn default() -> AccessQueue<T> {
        AccessQueue::new()
    }
}

impl<T> std::fmt::Debug for AccessQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.entries.iter().filter(|entry| !entry.missing.is_none()).count();
        f.debug_struct("AccessQueue")
            .field("granted", &(self.entries.iter().count() - waiting))
            .field("waiting", &waiting)
            .field("fragments", &self.parts.as_ref().map_or(0, |parts| parts.slots.len()))
            .finish()
    }
}

impl Parts {
    /// The fragment of an area other than `Whole`, `NOTHING` if the area is empty.
    fn find_or_add(&mut self, area: &Area) -> u32 {
        match self.known.get(area) {
            Some(&fragment) => fragment,
            None if area.is_empty() => NOTHING,
            None => self.add(area),
        }
    }

    /// Makes a fragment. This compares with all others anyway, so it is also the time to drop dead ones.
    #[cold]
    fn add(&mut self, area: &Area) -> u32 {
        self.purge();
        let overlapping = self.known.iter().filter(|(other, _)| other.overlaps(area));
        let mut older: SmallVec<[u32; 6]> = overlapping.map(|(_, &fragment)| fragment).collect();
        // The order of a hash map is nobody's business: two equal programs do the same steps.
        older.sort_unstable();
        let fragment = self.slots.insert(Slot { fragment: Fragment::default(), older }) as u32;
        self.known.insert(area.clone(), fragment);
        fragment
    }

    /// Drops the dead fragments if they are many: more than twice as many as the live ones, and than `DEAD_KEPT`.
    fn purge(&mut self) {
        if self.slots.len() <= DEAD_KEPT {
            return;
        }
        let live = self.slots.iter().filter(|(_, slot)| slot.fragment.has_own()).count();
        if self.slots.len() - live <= DEAD_KEPT.max(2 * live) {
            return;
        }
        self.slots.retain(|_, slot| slot.fragment.has_own());
        let slots = &self.slots;
        self.known.retain(|_, fragment| slots.contains(*fragment as usize));
        let kept: Vec<bool> = (0..slots.capacity()).map(|key| slots.contains(key)).collect();
        for (_, slot) in &mut self.slots {
            slot.older.retain(|older| kept.get(*older as usize).copied().unwrap_or(false));
        }
    }
}
