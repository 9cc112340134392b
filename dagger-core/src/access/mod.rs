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
use std::cmp::Reverse;
use std::num::NonZeroU32;

use crate::region::Area;
use entries::{Entries, Entry, Free, Moment, PartEntry, remove};
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
    entries: Entries<Entry<T>>,
    /// Accesses to nothing that there have been, and that are live.
    nothings: u64,
    nothing: u32,
    /// How often the count of places in `whole` has begun again.
    epoch: u32,
    /// Nothing until the first access to a part.
    parts: Option<Box<Parts<T>>>,
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

    /// In the lowest bit: it is one. Then: it is to a part; it writes. The key is the rest (see `Entries::grow`).
    const PLACE: NonZeroU32 = NonZeroU32::MIN;
    const PART: u32 = 1 << 1;
    const WRITES: u32 = 1 << 2;

    #[inline(always)]
    fn new(key: u32, writes: bool) -> Place {
        Place(Place::PLACE | key << 3 | if writes { Place::WRITES } else { 0 })
    }

    fn of_part(key: u32, writes: bool) -> Place {
        Place(Place::new(key, writes).0 | Place::PART)
    }

    #[inline(always)]
    fn is_part(self) -> bool {
        self.0.get() & Place::PART != 0
    }

    #[inline(always)]
    fn writes(self) -> bool {
        self.0.get() & Place::WRITES != 0
    }

    #[inline(always)]
    fn key(self) -> u32 {
        self.0.get() >> 3
    }
}

struct Parts<T> {
    known: FxHashMap<Area, u32>,
    slots: Slab<Slot>,
    entries: Entries<PartEntry<T>>,
    free: Free,
    /// How many writers there had been when the last access to a part came: the count of the whole is modulo 2³², and one to a part may
    /// outlive so many others.
    last_writes: u64,
}

impl<T> Default for Parts<T> {
    fn default() -> Parts<T> {
        Parts {
            known: FxHashMap::default(),
            slots: Slab::new(),
            entries: Entries::new(),
            free: Free::NONE,
            last_writes: 0,
        }
    }
}

/// What diagnosis knows of a live access.
struct Live<'a, T> {
    ticket: &'a T,
    place: Place,
    writes: bool,
    waits: bool,
    own: u32,
    /// How many accesses that write came since, with it.
    age: u64,
}

impl<T> Live<'_, T> {
    /// Larger for later ones; the same for those that only read, with none that writes between them.
    fn order(&self) -> (Reverse<u64>, bool) {
        // One that writes nothing is not counted as one that writes.
        (Reverse(self.age), self.writes && self.own != NOTHING)
    }
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
        match area {
            Area::Whole => self.enqueue_whole(ticket, writes),
            part => self.enqueue_part(ticket, writes, part),
        }
    }

    /// As [`enqueue`](AccessQueue::enqueue) with [`Area::Whole`], for those who know that: much of what a small task costs.
    #[must_use = "who forgets the place can never release it"]
    #[inline(always)]
    pub fn enqueue_whole(&mut self, ticket: T, writes: bool) -> (Place, bool) {
        // Before the entry is made, so that it is written once.
        let (place, granted) = self.whole.take_own(writes);
        self.note_epoch();
        let (key, entry) = self.entries.take(&mut self.free);
        entry.put(ticket, place);
        if !granted {
            self.whole.line_up(writes, key, self.entries.all());
        }
        (Place::new(key, writes), granted)
    }

    fn enqueue_part(&mut self, ticket: T, writes: bool, area: &Area) -> (Place, bool) {
        let came = self.now();
        let AccessQueue { whole, parts, .. } = self;
        let parts = &mut **parts.get_or_insert_default();
        parts.last_writes = came.writes;
        let own = parts.find_or_add(area);
        let Parts { slots, entries, free, .. } = parts;
        let (key, entry) = entries.take(free);
        entry.own = own;
        entry.writes = writes;
        entry.came = came;
        let Some(slot) = slots.get_mut(own as usize) else {
            // To nothing: it waits for nobody, and nobody for it.
            entry.missing = 0;
            entry.entry.put(ticket, OwnPlace::NOWHERE);
            self.nothings = self.nothings.wrapping_add(1);
            self.nothing += 1;
            return (Place::of_part(key, writes), true);
        };
        let (place, granted) = slot.fragment.take_own(writes);
        entry.entry.put(ticket, place);
        let mut missing = u32::from(!granted);
        if !granted {
            slot.fragment.line_up(writes, key, entries.all());
        }
        missing += u32::from(!whole.take_foreign(writes, key));
        for i in 0..slots[own as usize].older.len() {
            let older = slots[own as usize].older[i] as usize;
            missing += u32::from(!slots[older].fragment.take_foreign(writes, key));
        }
        entries.all()[key as usize].missing = missing;
        self.note_epoch();
        (Place::of_part(key, writes), missing == 0)
    }

    /// A place of the whole has been taken.
    #[inline(always)]
    fn note_epoch(&mut self) {
        if self.whole.issued().0 == 0 {
            self.epoch = self.epoch.wrapping_add(1);
        }
    }

    /// What the counts of the whole are, in full.
    fn now(&self) -> Moment {
        let (places, writes) = self.whole.issued();
        let last = self.parts.as_ref().map_or(0, |parts| parts.last_writes);
        // Where an access to a part with elements is live, fewer than 2³² wrote since the last such: one to the whole waits for it, or it
        // for that.
        let writes = last.wrapping_add(u64::from(writes.wrapping_sub(last as u32)));
        Moment { places: u64::from(self.epoch) << 32 | u64::from(places), writes }
    }

    /// How many accesses there have been: the program order of the next.
    #[must_use]
    #[inline]
    pub fn accesses(&self) -> u64 {
        // Each has a place in `whole`, unless it is to nothing.
        (u64::from(self.epoch) << 32 | u64::from(self.whole.issued().0)).wrapping_add(self.nothings)
    }

    /// Where the next access will be written, unless the queue needs more memory for it: for those who ask for a cache line
    /// before they need it.
    #[must_use]
    #[inline]
    pub fn next_entry(&self) -> *const u8 {
        self.entries.next(&self.free)
    }

    /// Ends a granted access and calls `ready` for the ticket of every access that is granted by that.
    ///
    /// The order of these calls is not the program order. Releasing what was not granted is an error of the
    /// caller: debug builds panic, others ignore it. So it is with a second release, unless the place has come to mean another access
    /// of the same kind.
    #[inline(always)]
    pub fn release(&mut self, place: Place, ready: &mut impl FnMut(&T)) {
        if place.is_part() {
            return self.release_part(place, ready);
        }
        let (writes, entries) = (place.writes(), self.entries.all());
        let granted = |entry: &Entry<T>| entry.place.is_granted(writes).then_some(());
        let Some(()) = remove(entries, place.key(), &mut self.free, granted) else { return not_granted() };
        if writes {
            self.whole.give(Class::OwnWrite, entries, ready);
        } else {
            self.whole.give(Class::OwnRead, entries, ready);
        }
        if self.whole.has_foreign() {
            self.grant_parts(Class::own(writes), ready);
        }
    }

    /// Grants places of accesses to parts, after one to the whole.
    #[inline(never)]
    fn grant_parts(&mut self, given: Class, ready: &mut impl FnMut(&T)) {
        if let Some(parts) = &mut self.parts {
            self.whole.grant_foreign(given, parts.entries.all(), ready);
        }
    }

    #[inline(never)]
    fn release_part(&mut self, place: Place, ready: &mut impl FnMut(&T)) {
        let Some(Parts { slots, entries, free, .. }) = self.parts.as_deref_mut() else {
            return not_granted();
        };
        let entries = entries.all();
        let writes = place.writes();
        let granted = |part: &PartEntry<T>| part.is_granted(writes).then_some(part.own);
        let Some(own) = remove(entries, place.key(), free, granted) else { return not_granted() };
        let Some(slot) = slots.get_mut(own as usize) else {
            self.nothing -= 1;
            return;
        };
        let (class, foreign) = (Class::own(writes), Class::foreign(writes));
        self.whole.give(foreign, self.entries.all(), ready);
        slot.fragment.give(class, entries, ready);
        slot.fragment.grant_foreign(class, entries, ready);
        for i in 0..slots[own as usize].older.len() {
            let older = slots[own as usize].older[i] as usize;
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
        let (key, writes) = (place.key(), place.writes());
        match (place.is_part(), &self.parts) {
            (false, _) => self.entries.get(key).is_some_and(|entry| entry.place.is_granted(writes)),
            (true, Some(parts)) => parts.entries.get(key).is_some_and(|part| part.is_granted(writes)),
            (true, None) => false,
        }
    }

    /// Visits the tickets that an access waits for, in the order of [`waiting`](AccessQueue::waiting); none if it is granted.
    ///
    /// For diagnosis: it looks at every live access.
    pub fn blockers(&self, place: Place, visit: &mut dyn FnMut(&T)) {
        if self.is_granted(place) {
            return;
        }
        let mut live = self.live();
        let Some(at) = live.iter().position(|access| access.place == place) else { return };
        let waits = live.swap_remove(at);
        live.retain(|access| {
            access.order() < waits.order()
                && (access.writes || waits.writes)
                && self.meet(access.own, waits.own)
        });
        visit_in_order(live, visit);
    }

    /// Visits the oldest of the live accesses, granted or waiting, and says whether they write: one that does, or all that came before the
    /// first one that does.
    ///
    /// It looks at every live access.
    pub fn oldest(&self, visit: &mut dyn FnMut(&T, bool)) {
        if self.is_idle() {
            return;
        }
        let live = self.live();
        let first = live.iter().filter(|access| access.order().1).min_by_key(|access| access.order());
        let is_before = |access: &&Live<'_, T>| first.is_none_or(|first| access.order() < first.order());
        let mut before = live.iter().filter(is_before).peekable();
        let alone = if before.peek().is_none() { first } else { None };
        before.chain(alone).for_each(|access| visit(access.ticket, access.writes));
    }

    /// Visits the tickets of the accesses that wait, in program order; where several that only read follow each other, these in any.
    pub fn waiting(&self, visit: &mut dyn FnMut(&T)) {
        let mut live = self.live();
        live.retain(|access| access.waits);
        visit_in_order(live, visit);
    }

    /// Visits the tickets of the accesses that are granted, in the order of [`waiting`](AccessQueue::waiting).
    pub fn granted(&self, visit: &mut dyn FnMut(&T)) {
        let mut live = self.live();
        live.retain(|access| !access.waits);
        visit_in_order(live, visit);
    }

    /// The live accesses, in no order.
    fn live(&self) -> Vec<Live<'_, T>> {
        let now = self.now();
        let parts = || self.parts.iter().flat_map(|parts| parts.entries.iter());
        // Whether one that waits for the whole will write says the list that it is in.
        let entries = self.entries.as_slice();
        let mut will_write = vec![false; entries.len()];
        for key in self.whole.waiting_to_write(entries) {
            will_write[key as usize] = true;
        }
        let wholes = || {
            self.entries.iter().map(|(key, entry, ticket)| {
                let writes = entry.place.is_granted(true) || will_write[key as usize];
                let waits = !entry.place.is_granted(writes);
                let age = u64::from(self.whole.since(&entry.place, writes));
                Live { ticket, place: Place::new(key, writes), writes, waits, own: WHOLE, age }
            })
        };
        // Of those that write, how many places were taken since.
        let part_writes = parts().filter(|(_, part, _)| part.writes && part.own != NOTHING);
        let mut since: Vec<u64> = wholes()
            .filter(|access| access.writes)
            .map(|access| access.age)
            .chain(part_writes.map(|(_, part, _)| now.places.wrapping_sub(part.came.places)))
            .collect();
        since.sort_unstable();
        let wholes = wholes().map(|access| {
            // All that came after a write of the whole are live: they wait for it.
            let writes_since = |age| since.partition_point(|other| *other <= age) as u64;
            let age = if access.writes { writes_since(access.age) } else { access.age };
            Live { age, ..access }
        });
        let parts = parts().map(|(key, part, ticket)| {
            let (writes, age) = (part.writes, now.writes.wrapping_sub(part.came.writes));
            let (place, waits) = (Place::of_part(key, writes), part.missing != 0);
            Live { ticket, place, writes, waits, own: part.own, age }
        });
        wholes.chain(parts).collect()
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

fn visit_in_order<T>(mut accesses: Vec<Live<'_, T>>, visit: &mut dyn FnMut(&T)) {
    accesses.sort_by_key(Live::order);
    accesses.into_iter().for_each(|access| visit(access.ticket));
}

/// What others than the caller should not have to pay for.
#[cold]
fn not_granted() {
    debug_assert!(false, "only a granted access is released");
}

impl<T> Default for AccessQueue<T> {
    fn default() -> AccessQueue<T> {
        AccessQueue::new()
    }
}

impl<T> std::fmt::Debug for AccessQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let live = self.live();
        let waiting = live.iter().filter(|access| access.waits).count();
        f.debug_struct("AccessQueue")
            .field("granted", &(live.len() - waiting))
            .field("waiting", &waiting)
            .field("fragments", &self.parts.as_ref().map_or(0, |parts| parts.slots.len()))
            .finish()
    }
}

impl<T> Parts<T> {
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
