//! Who leaves memory when it is full: a pure choice among values of which little is known.
//!
//! ```text
//!   next use     none   none   40    12    3      in this order they leave
//!   bytes        2      1      4     4     8      5 are needed
//!                [──────────────]                 the first that are enough: 2 + 1 + 4
//!                [──]          [──]               without who is superfluous, from the last one back: 2 + 4
//! ```
//! 1. Those chosen free enough, or are all that free anything.
//! 2. None of them is superfluous: without any one of them the rest would not free enough.
//! 3. The choice depends on its arguments alone: equal ones leave in the order of their indices.
//!
//! It knows nothing of what is pinned, written or awaited: what may not leave is not among the residents.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What is known of a value that could leave memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// What it takes of the memory: as much is freed when it leaves.
    pub bytes: u64,
    /// When it is used next, smaller is sooner; `None` if no use is known.
    pub next_use: Option<u64>,
    /// When it was used last, larger is later.
    pub last_use: u64,
    /// An equal copy lies elsewhere, so it need not be written.
    pub clean: bool,
}

/// Who leaves first.
///
/// ```
/// use dagger_core::{Eviction, Resident};
///
/// let value = |next_use, last_use| Resident { bytes: 100, next_use, last_use, clean: false };
/// let residents = [value(Some(7), 1), value(Some(50), 2), value(None, 3), value(Some(8), 4)];
///
/// // Nobody will want the third one, as far as is known, and the second one not before long.
/// assert_eq!(Eviction::NextUse.choose(&residents, 150), [2, 1]);
/// assert_eq!(Eviction::Lru.choose(&residents, 150), [0, 1]);
/// assert_eq!(Eviction::Mru.choose(&residents, 150), [3, 2]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Eviction {
    /// First what has no known use, then what is used farthest in the future; of equals the least recently used first. With
    /// values of one size and a future that is known nothing has fewer reloads.
    ///
    /// # Source
    /// Belady, IBM Systems Journal 5 (1966) 78–101: the algorithm MIN.
    #[default]
    NextUse,
    /// The least recently used first: good where what was used just now is used again.
    Lru,
    /// The most recently used first: good where more than fits is gone through again and again, in the same order.
    Mru,
}

impl Eviction {
    /// Indices of those that leave so that at least `bytes` are freed, in the order in which they should; all that free
    /// anything if these have less together.
    ///
    /// Of those that are equal by this policy clean ones leave before dirty ones, then larger ones before smaller ones. Who
    /// turns out superfluous, because someone large comes after, stays.
    ///
    /// Takes O(n + k log n) for `k` that are looked at, and memory for all n.
    #[must_use]
    pub fn choose(self, residents: &[Resident], bytes: u64) -> Vec<usize> {
        if bytes == 0 {
            return Vec::new();
        }
        let bytes = u128::from(bytes); // as no sum of sizes overflows
        let some = residents.iter().enumerate().filter(|(_, resident)| resident.bytes > 0);
        let mut rest: BinaryHeap<Rank> = some.map(|(index, resident)| self.rank(index, resident)).collect();
        let (mut freed, mut chosen) = (0, Vec::new());
        while freed < bytes
            && let Some((.., size, Reverse(index))) = rest.pop()
        {
            freed += u128::from(size);
            chosen.push(index);
        }
        // From the last one back: who should rather stay is spared first.
        let mut spare = freed.saturating_sub(bytes);
        chosen.reverse();
        chosen.retain(|&index| {
            let size = u128::from(residents[index].bytes);
            let superfluous = size <= spare;
            spare -= if superfluous { size } else { 0 };
            !superfluous
        });
        chosen.reverse();
        chosen
    }

    fn rank(self, index: usize, resident: &Resident) -> Rank {
        let &Resident { bytes, next_use, last_use, clean } = resident;
        let (unused, distance, age) = match self {
            Eviction::NextUse => (next_use.is_none(), next_use.unwrap_or(0), !last_use),
            Eviction::Lru => (false, 0, !last_use),
            Eviction::Mru => (false, 0, last_use),
        };
        (unused, distance, age, clean, bytes, Reverse(index))
    }
}

/// Greater ones leave first: no known use, the next use, the age, clean, the size, the index.
type Rank = (bool, u64, u64, bool, u64, Reverse<usize>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Ordering;
    use std::collections::{BTreeMap, HashMap};

    const ALL: [Eviction; 3] = [Eviction::NextUse, Eviction::Lru, Eviction::Mru];

    fn resident(bytes: u64, next_use: Option<u64>, last_use: u64, clean: bool) -> Resident {
        Resident { bytes, next_use, last_use, clean }
    }

    /// Who of two leaves first, said as the documentation says it.
    fn before(policy: Eviction, a: &Resident, b: &Resident) -> Ordering {
        let least_recent = a.last_use.cmp(&b.last_use);
        let by_policy = match policy {
            Eviction::Lru => least_recent,
            Eviction::Mru => least_recent.reverse(),
            Eviction::NextUse => match (a.next_use, b.next_use) {
                (None, None) => least_recent,
                (None, Some(_)) => Ordering::Less,
                (Some(_), None) => Ordering::Greater,
                (Some(a), Some(b)) => b.cmp(&a).then(least_recent),
            },
        };
        by_policy.then(b.clean.cmp(&a.clean)).then(b.bytes.cmp(&a.bytes))
    }

    /// All in order, cut where it is enough; then without whoever is superfluous, again and again.
    fn naive(policy: Eviction, residents: &[Resident], bytes: u64) -> Vec<usize> {
        let freed = |chosen: &[usize]| chosen.iter().map(|&at| u128::from(residents[at].bytes)).sum::<u128>();
        let mut order: Vec<usize> = (0..residents.len()).filter(|&at| residents[at].bytes > 0).collect();
        order.sort_by(|&a, &b| before(policy, &residents[a], &residents[b]));
        let enough = (0..=order.len()).find(|&many| freed(&order[..many]) >= u128::from(bytes));
        let Some(enough) = enough else { return order };
        order.truncate(enough);
        let without = |order: &[usize], at: usize| [&order[..at], &order[at + 1..]].concat();
        while let Some(at) =
            (0..order.len()).rev().find(|&at| freed(&without(&order, at)) >= u128::from(bytes))
        {
            order.remove(at);
        }
        order
    }

    #[test]
    fn without_a_known_use_comes_before_the_farthest_use() {
        let residents = [
            resident(1, Some(u64::MAX), 0, true),
            resident(1, None, 9, false),
            resident(1, Some(0), 0, true),
        ];
        assert_eq!(Eviction::NextUse.choose(&residents, 9), [1, 0, 2]);
    }

    #[test]
    fn of_equals_the_oldest_then_the_clean_then_the_larger_leave_first() {
        let residents = [
            resident(1, Some(5), 8, true),
            resident(1, Some(5), 7, false),
            resident(2, Some(5), 7, false),
            resident(1, Some(5), 7, true),
            resident(1, Some(5), 7, true),
        ];
        assert_eq!(Eviction::NextUse.choose(&residents, 9), [3, 4, 2, 1, 0]);
        assert_eq!(Eviction::Lru.choose(&residents, 9), [3, 4, 2, 1, 0]);
        assert_eq!(Eviction::Mru.choose(&residents, 9), [0, 3, 4, 2, 1]);
    }

    #[test]
    fn who_is_not_needed_stays() {
        let value = |bytes, next_use| resident(bytes, next_use, 0, false);
        let residents =
            [value(1, None), value(2, None), value(4, Some(40)), value(4, Some(12)), value(8, Some(3))];
        assert_eq!(Eviction::NextUse.choose(&residents, 5), [1, 2]);
        assert_eq!(Eviction::NextUse.choose(&residents, 19), [1, 0, 2, 3, 4]);
        assert_eq!(Eviction::NextUse.choose(&residents, 20), [1, 0, 2, 3, 4]);
        assert_eq!(Eviction::NextUse.choose(&residents, 12), [2, 4]);
        assert_eq!(Eviction::NextUse.choose(&residents, 0), [0; 0]);
        assert_eq!(Eviction::NextUse.choose(&[], 1), [0; 0]);
        assert_eq!(Eviction::NextUse.choose(&[value(0, None), value(3, None)], u64::MAX), [1]);
        assert_eq!(Eviction::NextUse.choose(&[value(u64::MAX, None); 3], u64::MAX), [0]);
    }

    /// The future of a sequence of uses, and the past so far: how many of them miss a cache of `places` values of one size.
    fn misses(policy: Eviction, uses: &[usize], places: usize) -> usize {
        let mut last_use = BTreeMap::new();
        let mut missed = 0;
        for (now, value) in uses.iter().enumerate() {
            if !last_use.contains_key(value) {
                missed += 1;
                let next_use = |value| uses[now..].iter().position(|&used| used == value);
                let (values, residents): (Vec<usize>, Vec<Resident>) = last_use
                    .iter()
                    .map(|(&value, &at)| {
                        (value, resident(1, next_use(value).map(|ahead| ahead as u64), at, false))
                    })
                    .unzip();
                let full = values.len() == places;
                for index in policy.choose(&residents, full.into()) {
                    last_use.remove(&values[index]);
                }
            }
            last_use.insert(*value, now as u64);
            assert!(last_use.len() <= places);
        }
        missed
    }

    /// The fewest misses that any policy has: by trying all, with the residents as bits.
    fn fewest_misses(uses: &[usize], places: usize) -> usize {
        let mut reached = HashMap::from([(0u32, 0)]);
        for value in uses {
            let mut next = HashMap::new();
            for (before, missed) in reached {
                let mut reach = |after: u32, missed: usize| {
                    let fewest = next.entry(after).or_insert(missed);
                    *fewest = missed.min(*fewest);
                };
                let bit = 1 << value;
                if before & bit != 0 {
                    reach(before, missed);
                } else if before.count_ones() < places as u32 {
                    reach(before | bit, missed + 1);
                } else {
                    let leave = (0..u32::BITS).map(|place| 1 << place).filter(|other| before & other != 0);
                    leave.for_each(|other| reach(before & !other | bit, missed + 1));
                }
            }
            reached = next;
        }
        reached.into_values().min().unwrap_or(0)
    }

    #[test]
    fn the_most_recent_leaves_first_where_all_is_gone_through_again_and_again() {
        let sweeps: Vec<usize> = (0..10).flat_map(|_| 0..8).collect();
        assert_eq!(misses(Eviction::Lru, &sweeps, 7), 80, "always what comes next has just left");
        // All once; then seven of eight stay, and the hole wanders.
        assert_eq!(misses(Eviction::Mru, &sweeps, 7), misses(Eviction::NextUse, &sweeps, 7));
        assert!(misses(Eviction::Mru, &sweeps, 7) < 20);
        for places in 1..=8 {
            let [lru, mru] = [Eviction::Lru, Eviction::Mru].map(|policy| misses(policy, &sweeps, places));
            assert!(mru < lru || places == 1 || places == 8, "{places}: {mru}, {lru}");
        }
    }

    prop_compose! {
        fn residents()(
            all in prop::collection::vec((0u64..6, prop::option::of(0u64..4), 0u64..4, any::<bool>()), 0..40),
            large in prop::option::of(0usize..40),
        ) -> Vec<Resident> {
            let all = all.into_iter().enumerate().map(|(at, (bytes, next_use, last_use, clean))| {
                let bytes = if large == Some(at) { u64::MAX - bytes } else { bytes };
                resident(bytes, next_use, last_use, clean)
            });
            all.collect()
        }
    }

    proptest! {
        #[test]
        fn the_choice_is_that_of_the_definition(
            residents in residents(), bytes in prop_oneof![0u64..60, Just(u64::MAX)],
        ) {
            for policy in ALL {
                prop_assert_eq!(policy.choose(&residents, bytes), naive(policy, &residents, bytes));
            }
        }

        #[test]
        fn who_knows_the_future_has_the_fewest_misses(
            uses in prop::collection::vec(0usize..7, 0..60), places in 1usize..7,
        ) {
            let [known, lru, mru] = ALL.map(|policy| misses(policy, &uses, places));
            prop_assert!(known <= lru && known <= mru, "{} {} {}", known, lru, mru);
            prop_assert_eq!(known, fewest_misses(&uses, places));
        }
    }
}
