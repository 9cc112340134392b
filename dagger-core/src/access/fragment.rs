//! The places in one fragment, and which of them wait.

use super::entries::Entries;
use std::collections::VecDeque;

/// How an access stands in a fragment. The order is that of the tables below.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    OwnRead,
    OwnWrite,
    ForeignRead,
    ForeignWrite,
}

impl Class {
    const ALL: [Class; 4] = [Class::OwnRead, Class::OwnWrite, Class::ForeignRead, Class::ForeignWrite];

    pub(super) fn own(writes: bool) -> Class {
        if writes { Class::OwnWrite } else { Class::OwnRead }
    }

    pub(super) fn foreign(writes: bool) -> Class {
        if writes { Class::ForeignWrite } else { Class::ForeignRead }
    }

    /// The classes that cannot be granted together with this one; the relation is symmetric.
    fn conflicts(self) -> &'static [Class] {
        match self {
            Class::OwnRead => &[Class::OwnWrite, Class::ForeignWrite],
            Class::OwnWrite => &Class::ALL,
            Class::ForeignRead => &[Class::OwnWrite],
            Class::ForeignWrite => &[Class::OwnRead, Class::OwnWrite],
        }
    }
}

/// No entry.
pub(super) const NONE: u32 = u32::MAX;

/// How an entry stands in the fragment of its own area: the place that waits there, and the next one of its class.
#[derive(Clone, Copy)]
pub(super) struct OwnPlace {
    /// It is granted when so many conflicting places have been released.
    threshold: u32,
    pub(super) next: u32,
}

impl OwnPlace {
    pub(super) const NOWHERE: OwnPlace = OwnPlace { threshold: 0, next: NONE };
}

/// A foreign place that waits: `entry` gets it when `threshold` conflicting places have been released.
struct Waiter {
    threshold: u32,
    entry: u32,
}

/// The places of one distinct area. Own places that wait are linked through their entries, since an entry has one own
/// place; foreign ones are listed apart, and chunks that are never accessed by part have none.
#[repr(C)]
pub(super) struct Fragment {
    issued: [u32; 4],
    released: [u32; 4],
    /// Of the own places that wait, by class.
    first: [u32; 2],
    last: [u32; 2],
    /// Nothing until the first that waits.
    foreign: Option<Box<[VecDeque<Waiter>; 2]>>,
}

impl Default for Fragment {
    fn default() -> Fragment {
        Fragment { issued: [0; 4], released: [0; 4], first: [NONE; 2], last: [NONE; 2], foreign: None }
    }
}

impl Fragment {
    /// What accesses write, if none is to a part: so many bytes at its start.
    pub(super) const WRITTEN: usize = std::mem::offset_of!(Fragment, foreign);

    /// How many places have been taken, modulo 2³².
    #[inline]
    pub(super) fn issued(&self) -> u32 {
        let [a, b, c, d] = self.issued;
        a.wrapping_add(b).wrapping_add(c.wrapping_add(d))
    }

    /// Counts a place. Returns how many conflicting ones come before it, and whether they are all released.
    #[inline(always)]
    fn issue(&mut self, class: Class) -> (u32, bool) {
        let threshold = sum(&self.issued, class);
        let issued = &mut self.issued[class as usize];
        *issued = issued.wrapping_add(1);
        (threshold, sum(&self.released, class) == threshold)
    }

    /// Takes the own place of the entry with key `entry`, which misses it if it is not granted. True if it is.
    #[inline]
    pub(super) fn take_own<T>(&mut self, writes: bool, entry: u32, entries: &mut Entries<T>) -> bool {
        // Apart, so that each is computed for one class.
        let (threshold, granted) =
            if writes { self.issue(Class::OwnWrite) } else { self.issue(Class::OwnRead) };
        if !granted {
            let waiting = &mut entries[entry];
            waiting.place = OwnPlace { threshold, next: NONE };
            waiting.missing.add(1);
            let list = usize::from(writes);
            match std::mem::replace(&mut self.last[list], entry) {
                NONE => self.first[list] = entry,
                last => entries[last].place.next = entry,
            }
        }
        granted
    }

    /// Takes a foreign place for the entry with key `entry`. True if it is granted.
    pub(super) fn take_foreign(&mut self, writes: bool, entry: u32) -> bool {
        let (threshold, granted) = self.issue(Class::foreign(writes));
        if !granted {
            self.foreign.get_or_insert_default()[usize::from(writes)].push_back(Waiter { threshold, entry });
        }
        granted
    }

    /// Gives a granted place back and calls `ready` for the ticket of every entry that waits nowhere any more by that.
    #[inline(always)]
    pub(super) fn give<T: Clone>(
        &mut self,
        class: Class,
        entries: &mut Entries<T>,
        ready: &mut impl FnMut(T),
    ) {
        let released = &mut self.released[class as usize];
        *released = released.wrapping_add(1);
        if self.first == [NONE; 2] && self.foreign.is_none() {
            return;
        }
        // What `conflicts` says: a write is in everybody's way, but foreign ones in no foreign one's.
        let writes = matches!(class, Class::OwnWrite | Class::ForeignWrite);
        if writes {
            self.grant_own(Class::OwnRead, entries, ready);
        }
        self.grant_own(Class::OwnWrite, entries, ready);
        if self.foreign.is_some() && matches!(class, Class::OwnRead | Class::OwnWrite) {
            self.grant_foreign(class, entries, ready);
        }
    }

    #[inline(always)]
    fn grant_own<T: Clone>(&mut self, class: Class, entries: &mut Entries<T>, ready: &mut impl FnMut(T)) {
        let list = class as usize;
        let reached = sum(&self.released, class);
        // Thresholds grow along a list, so the first that has not been reached ends it.
        while let Some(entry) = entries.waiting(self.first[list])
            && entry.place.threshold == reached
        {
            self.first[list] = entry.place.next;
            if entry.place.next == NONE {
                self.last[list] = NONE;
            }
            entry.grant(ready);
        }
    }

    fn grant_foreign<T: Clone>(&mut self, given: Class, entries: &mut Entries<T>, ready: &mut impl FnMut(T)) {
        let Some(foreign) = &mut self.foreign else { return };
        for (class, list) in [Class::ForeignRead, Class::ForeignWrite].into_iter().zip(foreign.iter_mut()) {
            if !given.conflicts().contains(&class) {
                continue;
            }
            let reached = sum(&self.released, class);
            while let Some(waiter) = list.pop_front_if(|first| first.threshold == reached) {
                entries[waiter.entry].grant(ready);
            }
        }
    }

    /// Whether some own place is taken, waiting or granted.
    pub(super) fn has_own(&self) -> bool {
        self.has(Class::OwnRead) || self.has(Class::OwnWrite)
    }

    /// Whether no place is taken.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.issued == self.released
    }

    /// Whether some place of this class is taken, waiting or granted.
    pub(super) fn has(&self, class: Class) -> bool {
        self.issued[class as usize] != self.released[class as usize]
    }
}

/// The number of places that conflict with a class, of those counted. It wraps, as the counters do: only
/// differences matter, and fewer than 2³² places are live.
#[inline(always)]
fn sum(counted: &[u32; 4], class: Class) -> u32 {
    let [own_read, own_write, foreign_read, foreign_write] = *counted;
    // As `conflicts` says, without its loop: this is most of what an access costs.
    match class {
        Class::OwnRead => own_write.wrapping_add(foreign_write),
        Class::OwnWrite => {
            own_read.wrapping_add(own_write).wrapping_add(foreign_read).wrapping_add(foreign_write)
        }
        Class::ForeignRead => own_write,
        Class::ForeignWrite => own_read.wrapping_add(own_write),
    }
}

#[cfg(test)]
#[test]
fn sums_are_those_of_the_conflicts() {
    let counted = [1, 10, 100, 1000];
    for class in Class::ALL {
        let expected: u32 = class.conflicts().iter().map(|&other| counted[other as usize]).sum();
        assert_eq!(sum(&counted, class), expected);
    }
}

#[cfg(test)]
impl Fragment {
    /// An idle fragment that has had nearly 2³² places of each class.
    pub(super) fn about_to_wrap() -> Fragment {
        let counted = [u32::MAX - 1, u32::MAX, u32::MAX - 2, u32::MAX - 5];
        Fragment { issued: counted, released: counted, ..Fragment::default() }
    }
}
