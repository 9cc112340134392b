//! The places in one fragment, and which of them wait.

use std::collections::VecDeque;

/// How an access stands in a fragment. The order is that of the tables below.
#[derive(Clone, Copy)]
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

/// One place that waits: `entry` gets it when `threshold` conflicting places have been released.
struct Waiter {
    threshold: u32,
    entry: u32,
}

/// The places of one distinct area.
#[derive(Default)]
pub(super) struct Fragment {
    issued: [u32; 4],
    released: [u32; 4],
    waiting: [VecDeque<Waiter>; 4],
    /// All that wait, so that an uncontended release looks at no list.
    waiters: u32,
}

impl Fragment {
    /// Takes a place. Returns the number of places that are not granted yet: 0 or 1.
    pub(super) fn take(&mut self, class: Class, entry: u32) -> u32 {
        let threshold = sum(&self.issued, class);
        let issued = &mut self.issued[class as usize];
        *issued = issued.wrapping_add(1);
        if sum(&self.released, class) == threshold {
            return 0;
        }
        self.waiting[class as usize].push_back(Waiter { threshold, entry });
        self.waiters += 1;
        1
    }

    /// Gives a granted place back and calls `granted` for every entry whose place is granted by that.
    pub(super) fn give(&mut self, class: Class, mut granted: impl FnMut(u32)) {
        let released = &mut self.released[class as usize];
        *released = released.wrapping_add(1);
        if self.waiters == 0 {
            return;
        }
        for &class in class.conflicts() {
            if self.waiting[class as usize].is_empty() {
                continue;
            }
            let reached = sum(&self.released, class);
            // Thresholds grow along the list, so the first that has not been reached ends it.
            while let Some(waiter) =
                self.waiting[class as usize].pop_front_if(|first| first.threshold == reached)
            {
                self.waiters -= 1;
                granted(waiter.entry);
            }
        }
    }

    /// Whether some own place is taken, waiting or granted.
    pub(super) fn has_own(&self) -> bool {
        self.has(Class::OwnRead) || self.has(Class::OwnWrite)
    }

    /// Whether some place of this class is taken, waiting or granted.
    pub(super) fn has(&self, class: Class) -> bool {
        self.issued[class as usize] != self.released[class as usize]
    }
}

/// The number of places that conflict with a class, of those counted. It wraps, as the counters do: only
/// differences matter, and fewer than 2³² places are live.
#[inline]
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
