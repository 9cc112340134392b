//! The places in one fragment, and which of them wait.

use super::entries::{Own, PartEntry};
use std::collections::VecDeque;

/// How an access stands in a fragment. The own ones are also the indices of their lists.
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

/// How an entry stands in the fragment of its own area.
#[derive(Clone, Copy)]
pub(super) struct OwnPlace {
    /// It is granted when so many conflicting places have been released.
    threshold: u32,
    /// While it waits, the next one of its class that does; then that it is granted, to read or to write. Of an entry that is
    /// nobody's, the next such.
    pub(super) next: u32,
}

impl OwnPlace {
    pub(super) const NOWHERE: OwnPlace = OwnPlace { threshold: 0, next: NONE };

    /// In `next`: no key is so large.
    #[inline(always)]
    fn granted(writes: bool) -> u32 {
        if writes { NONE - 1 } else { NONE - 2 }
    }

    /// Whether it is granted, to write or not.
    #[inline(always)]
    pub(super) fn is_granted(&self, writes: bool) -> bool {
        self.next == OwnPlace::granted(writes)
    }
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
    issued: Counts,
    released: Counts,
    /// Of the own places that wait, by class. Without a first one the last is of no meaning.
    first: [u32; 2],
    last: [u32; 2],
    /// Nothing until the first that waits.
    foreign: Option<Box<[VecDeque<Waiter>; 2]>>,
}

impl Default for Fragment {
    fn default() -> Fragment {
        Fragment {
            issued: Counts::default(),
            released: Counts::default(),
            first: [NONE; 2],
            last: [NONE; 2],
            foreign: None,
        }
    }
}

impl Fragment {
    /// What accesses write, if none is to a part: so many bytes at its start.
    pub(super) const WRITTEN: usize = std::mem::offset_of!(Fragment, foreign);

    /// How many places have been taken, and how many of those by writers, modulo 2³².
    #[inline]
    pub(super) fn issued(&self) -> (u32, u32) {
        (self.issued.all, self.issued.conflicting(Class::OwnRead))
    }

    /// How many places have been taken since this one, with it, if it `writes`; else how many by writers.
    pub(super) fn since(&self, place: &OwnPlace, writes: bool) -> u32 {
        self.issued.conflicting(Class::own(writes)).wrapping_sub(place.threshold)
    }

    /// Counts a place. Returns how many conflicting ones come before it, and whether they are all released.
    #[inline(always)]
    fn issue(&mut self, class: Class) -> (u32, bool) {
        let threshold = self.issued.conflicting(class);
        self.issued.add(class);
        (threshold, self.released.conflicting(class) == threshold)
    }

    /// Counts an own place. Returns it, and whether it is granted; else its entry is to [`line_up`](Self::line_up).
    #[inline(always)]
    pub(super) fn take_own(&mut self, writes: bool) -> (OwnPlace, bool) {
        // Apart, so that each is computed for one class.
        let (threshold, granted) =
            if writes { self.issue(Class::OwnWrite) } else { self.issue(Class::OwnRead) };
        (OwnPlace { threshold, next: if granted { OwnPlace::granted(writes) } else { NONE } }, granted)
    }

    /// An entry waits for its own place behind all others of its class.
    #[inline(always)]
    pub(super) fn line_up<T>(&mut self, writes: bool, key: u32, entries: &mut [impl Own<T>]) {
        let list = usize::from(writes);
        match self.first[list] {
            NONE => self.first[list] = key,
            _ => entries[self.last[list] as usize].entry_mut().place.next = key,
        }
        self.last[list] = key;
    }

    /// The keys of the own places that wait to write, in program order.
    pub(super) fn waiting_to_write<T>(&self, entries: &[impl Own<T>]) -> impl Iterator<Item = u32> {
        let entry = |key: u32| entries.get(key as usize).map(|_| key);
        std::iter::successors(entry(self.first[Class::OwnWrite as usize]), move |&key| {
            entry(entries[key as usize].entry().place.next)
        })
    }

    /// Takes a foreign place for the entry with key `entry`. True if it is granted.
    pub(super) fn take_foreign(&mut self, writes: bool, entry: u32) -> bool {
        let (threshold, granted) = self.issue(Class::foreign(writes));
        if !granted {
            self.foreign.get_or_insert_default()[usize::from(writes)].push_back(Waiter { threshold, entry });
        }
        granted
    }

    /// Gives a granted place back and calls `ready` for the ticket of every entry that stands in this fragment and waits nowhere any
    /// more by that. Foreign places that an own one was before are to be granted then.
    #[inline(always)]
    pub(super) fn give<T>(&mut self, class: Class, entries: &mut [impl Own<T>], ready: &mut impl FnMut(&T)) {
        self.released.add(class);
        // What `conflicts` says: a write is in everybody's way.
        let writes = matches!(class, Class::OwnWrite | Class::ForeignWrite);
        if writes {
            self.grant_own(Class::OwnRead, entries, ready);
        }
        self.grant_own(Class::OwnWrite, entries, ready);
    }

    #[inline(always)]
    fn grant_own<T>(&mut self, class: Class, entries: &mut [impl Own<T>], ready: &mut impl FnMut(&T)) {
        let list = class as usize;
        let reached = self.released.conflicting(class);
        let mut next = self.first[list];
        // Thresholds grow along a list, so the first that has not been reached ends it; `NONE` is no entry's key.
        while let Some(own) = entries.get_mut(next as usize)
            && own.entry().place.threshold == reached
        {
            next = own.entry().place.next;
            own.entry_mut().place.next = OwnPlace::granted(class == Class::OwnWrite);
            own.grant(ready);
        }
        self.first[list] = next;
    }

    /// Whether there may be foreign places that wait.
    #[inline(always)]
    pub(super) fn has_foreign(&self) -> bool {
        self.foreign.is_some()
    }

    /// Grants the foreign places that had to wait for an own one that was given back, last of all.
    pub(super) fn grant_foreign<T>(
        &mut self,
        given: Class,
        entries: &mut [PartEntry<T>],
        ready: &mut impl FnMut(&T),
    ) {
        let Some(foreign) = &mut self.foreign else { return };
        for (class, list) in [Class::ForeignRead, Class::ForeignWrite].into_iter().zip(foreign.iter_mut()) {
            if !given.conflicts().contains(&class) {
                continue;
            }
            let reached = self.released.conflicting(class);
            while let Some(waiter) = list.pop_front_if(|first| first.threshold == reached) {
                entries[waiter.entry as usize].grant(ready);
            }
        }
    }

    /// Whether some own place is taken, waiting or granted.
    pub(super) fn has_own(&self) -> bool {
        self.has(Class::OwnRead) || self.has(Class::OwnWrite)
    }

    /// Whether no place is taken.
    #[inline(always)]
    pub(super) fn is_idle(&self) -> bool {
        self.issued.all == self.released.all
    }

    /// Whether some place of this class is taken, waiting or granted.
    pub(super) fn has(&self, class: Class) -> bool {
        self.issued.of(class) != self.released.of(class)
    }
}

/// How many places there have been, taken or released. It wraps: only differences matter, and fewer than 2³² places are live.
///
/// Counted so that one to the whole, which most are, is one or two additions, and what it conflicts with one of the fields.
#[derive(Clone, Copy, Default)]
struct Counts {
    all: u32,
    own_writes: u32,
    foreign_reads: u32,
    foreign_writes: u32,
}

impl Counts {
    #[inline(always)]
    fn add(&mut self, class: Class) {
        self.all = self.all.wrapping_add(1);
        let also = match class {
            Class::OwnRead => return,
            Class::OwnWrite => &mut self.own_writes,
            Class::ForeignRead => &mut self.foreign_reads,
            Class::ForeignWrite => &mut self.foreign_writes,
        };
        *also = also.wrapping_add(1);
    }

    /// Those of a class.
    fn of(&self, class: Class) -> u32 {
        match class {
            Class::OwnRead => {
                let others =
                    self.own_writes.wrapping_add(self.foreign_reads).wrapping_add(self.foreign_writes);
                self.all.wrapping_sub(others)
            }
            Class::OwnWrite => self.own_writes,
            Class::ForeignRead => self.foreign_reads,
            Class::ForeignWrite => self.foreign_writes,
        }
    }

    /// Those that conflict with a class: what `conflicts` says, without its loop.
    #[inline(always)]
    fn conflicting(&self, class: Class) -> u32 {
        match class {
            Class::OwnRead => self.own_writes.wrapping_add(self.foreign_writes),
            Class::OwnWrite => self.all,
            Class::ForeignRead => self.own_writes,
            Class::ForeignWrite => {
                self.all.wrapping_sub(self.foreign_reads).wrapping_sub(self.foreign_writes)
            }
        }
    }
}

#[cfg(test)]
#[test]
fn counts_are_those_of_the_conflicts() {
    let mut counts = Counts::default();
    for (class, times) in Class::ALL.into_iter().zip([1, 10, 100, 1000]) {
        (0..times).for_each(|_| counts.add(class));
        assert_eq!(counts.of(class), times);
    }
    for class in Class::ALL {
        let expected: u32 = class.conflicts().iter().map(|&other| counts.of(other)).sum();
        assert_eq!(counts.conflicting(class), expected);
    }
}

#[cfg(test)]
impl Fragment {
    /// An idle fragment that has had nearly 2³² places of each class.
    pub(super) fn about_to_wrap() -> Fragment {
        let counted = Counts {
            all: u32::MAX - 11,
            own_writes: u32::MAX,
            foreign_reads: u32::MAX - 2,
            foreign_writes: u32::MAX - 5,
        };
        Fragment { issued: counted, released: counted, ..Fragment::default() }
    }

    /// So many foreign places come to write, and go.
    pub(super) fn pass_foreign_writes(&mut self, times: u32) {
        for counts in [&mut self.issued, &mut self.released] {
            counts.all = counts.all.wrapping_add(times);
            counts.foreign_writes = counts.foreign_writes.wrapping_add(times);
        }
    }
}
