//! Which of a sequence of steps come before which, by what they access: all edges at once, for a program that runs again.
//!
//! ```text
//!   step      accesses           predecessors
//!   0         write a            ·
//!   1         read a, write b    0
//!   2         read a, write c    0
//!   3         write a            1 2          (0 comes before both)
//! ```
//! 1. Two steps that access overlapping areas of a chunk, one of them to write, are ordered as in the sequence, directly or
//!    through others.
//! 2. Steps that do not conflict are not ordered but through others: an edge is between two that conflict. It is left out
//!    where another access to the same chunk lies between.
//! 3. What a later write covers is forgotten: whoever conflicts with it conflicts with that write too.
//!
//! What [`AccessQueue`](crate::AccessQueue) finds step by step, while steps come and go, this finds for a whole sequence.

use crate::region::Area;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::hash::Hash;

/// The order of a sequence of steps.
///
/// ```
/// use dagger_core::{Area, Order};
///
/// let (whole, read, write) = (Area::Whole, false, true);
/// let order = Order::of([
///     vec![('a', write, &whole)],
///     vec![('a', read, &whole), ('b', write, &whole)],
///     vec![('a', read, &whole), ('c', write, &whole)],
///     vec![('a', write, &whole)],
/// ]);
/// assert_eq!(order.predecessors(3), [1, 2]);
/// assert_eq!(order.successors(0), [1, 2]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Order {
    predecessors: Lists,
    successors: Lists,
}

/// A list for each step, one behind the other.
#[derive(Clone, Debug, Default)]
struct Lists {
    /// Where each begins, and where the last one ends.
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    #[inline]
    fn get(&self, step: usize) -> &[u32] {
        let bounds = self.starts.get(step).zip(self.starts.get(step + 1));
        bounds.and_then(|(&start, &end)| self.items.get(start as usize..end as usize)).unwrap_or(&[])
    }
}

impl Order {
    /// The order of steps that access chunks, each named by a key, to write or only to read.
    pub fn of<'a, K, S>(steps: impl IntoIterator<Item = S>) -> Order
    where
        K: Hash + Eq,
        S: IntoIterator<Item = (K, bool, &'a Area)>,
    {
        let mut live: FxHashMap<K, Vec<Live<'a>>> = FxHashMap::default();
        let mut predecessors = Lists { starts: vec![0], items: Vec::new() };
        for (step, accesses) in steps.into_iter().enumerate() {
            let first = predecessors.items.len();
            for (key, writes, area) in accesses {
                let live = live.entry(key).or_default();
                let step = step as u32;
                let conflicts = |other: &Live| {
                    other.step != step && (writes || other.writes) && other.area.overlaps(area)
                };
                for (at, other) in live.iter().enumerate().filter(|(_, other)| conflicts(other)) {
                    // A write comes before whatever came to overlap it since: through that, if it conflicts with this too.
                    let mut since = live[at + 1..].iter().filter(|since| since.step != other.step);
                    let through = |since: &Live| conflicts(since) && since.area.overlaps(other.area);
                    if !(other.writes && since.any(through)) {
                        predecessors.items.push(other.step);
                    }
                }
                if writes {
                    live.retain(|other| other.step == step || !area.covers(other.area));
                }
                live.push(Live { step, writes, area });
            }
            predecessors.items[first..].sort_unstable();
            let mut kept = first;
            for at in first..predecessors.items.len() {
                if at == first || predecessors.items[at] != predecessors.items[at - 1] {
                    predecessors.items[kept] = predecessors.items[at];
                    kept += 1;
                }
            }
            predecessors.items.truncate(kept);
            predecessors.starts.push(kept as u32);
        }
        let successors = predecessors.reversed();
        Order { predecessors, successors }
    }

    /// How many steps there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.predecessors.starts.len().saturating_sub(1)
    }

    /// Whether there is no step.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The steps that come directly before one, ascending.
    #[must_use]
    pub fn predecessors(&self, step: usize) -> &[u32] {
        self.predecessors.get(step)
    }

    /// The steps that come directly after one: ascending, or the largest rank first after
    /// [`sort_successors`](Order::sort_successors).
    #[must_use]
    #[inline]
    pub fn successors(&self, step: usize) -> &[u32] {
        self.successors.get(step)
    }

    /// The rank of each step: the longest way from its start to the end of all, where a step takes as long as `cost` says. The
    /// largest of all is the length of the critical path.
    ///
    /// ```
    /// use dagger_core::{Area, Order};
    ///
    /// let steps = [vec![('a', true)], vec![('a', false), ('b', true)], vec![('a', false), ('c', true)], vec![('c', true)]];
    /// let order = Order::of(steps.map(|step| step.into_iter().map(|(key, writes)| (key, writes, &Area::Whole))));
    /// assert_eq!(order.ranks(|step| [1, 5, 3, 3][step]), [7, 5, 6, 3]);
    /// ```
    #[must_use]
    pub fn ranks(&self, cost: impl Fn(usize) -> u64) -> Vec<u64> {
        let mut ranks = vec![0; self.len()];
        for step in (0..self.len()).rev() {
            // Successors have larger numbers.
            let rest = self.successors(step).iter().map(|&after| ranks[after as usize]).max();
            ranks[step] = cost(step).saturating_add(rest.unwrap_or(0));
        }
        ranks
    }

    /// Lists the successors of each step by their `ranks`, the largest first, and those of equal rank ascending. Steps without
    /// a rank come last.
    pub fn sort_successors(&mut self, ranks: &[u64]) {
        let Lists { starts, items } = &mut self.successors;
        for bounds in starts.windows(2) {
            let list = &mut items[bounds[0] as usize..bounds[1] as usize];
            list.sort_unstable_by_key(|&step| (Reverse(ranks.get(step as usize)), step));
        }
    }
}

impl Lists {
    /// In whose lists each is.
    fn reversed(&self) -> Lists {
        let mut starts = vec![0u32; self.starts.len() + 1];
        // Counted two places on, so that the loop below leaves each start where it belongs.
        self.items.iter().for_each(|&item| starts[item as usize + 2] += 1);
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut items = vec![0; self.items.len()];
        for step in 0..self.starts.len() - 1 {
            for &item in self.get(step) {
                let place = &mut starts[item as usize + 1];
                items[*place as usize] = step as u32;
                *place += 1;
            }
        }
        starts.pop();
        Lists { starts, items }
    }
}

/// An access that no later write has covered.
struct Live<'a> {
    step: u32,
    writes: bool,
    area: &'a Area,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::{Grid, Progression};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn area(start: usize, len: usize) -> Area {
        if len == 0 { Area::Whole } else { Area::Grid(Grid::line(Progression::range(start, len).into())) }
    }

    fn order_of(steps: &[Vec<(usize, bool)>]) -> Order {
        Order::of(steps.iter().map(|step| step.iter().map(|&(key, writes)| (key, writes, &Area::Whole))))
    }

    proptest! {
        #[test]
        fn ranks_are_the_longest_ways(
            steps in vec((vec((0..4_usize, any::<bool>()), 0..4), 0..100_u64), 0..30),
        ) {
            let (steps, costs): (Vec<_>, Vec<u64>) = steps.into_iter().unzip();
            let mut order = order_of(&steps);
            // Every way there is, by the edges of the predecessors.
            fn ends(order: &Order, costs: &[u64], from: usize) -> u64 {
                let after = (from + 1..order.len()).filter(|&step| order.predecessors(step).contains(&(from as u32)));
                costs[from] + after.map(|step| ends(order, costs, step)).max().unwrap_or(0)
            }
            // Ways may be many: short programs whole, long ones by their end.
            let ranks = order.ranks(|step| costs[step]);
            for step in (0..steps.len()).rev().take(14) {
                prop_assert_eq!(ranks[step], ends(&order, &costs, step));
            }
            for (step, &rank) in ranks.iter().enumerate() {
                let after = order.successors(step).iter().map(|&after| ranks[after as usize]).max();
                prop_assert_eq!(rank, costs[step] + after.unwrap_or(0));
            }
            let before: Vec<Vec<u32>> = (0..steps.len()).map(|step| order.successors(step).to_vec()).collect();
            order.sort_successors(&ranks);
            for (step, before) in before.into_iter().enumerate() {
                let after = order.successors(step);
                prop_assert!(after.is_sorted_by_key(|&step| (Reverse(ranks[step as usize]), step)));
                let mut after = after.to_vec();
                after.sort_unstable();
                prop_assert_eq!(after, before);
            }
        }

        #[test]
        fn exactly_what_conflicts_is_ordered(
            steps in vec(vec((0..3_usize, any::<bool>(), 0..8_usize, 0..5_usize), 0..4), 0..40),
        ) {
            let steps: Vec<Vec<(usize, bool, Area)>> = steps
                .into_iter()
                .map(|step| step.into_iter().map(|(key, writes, at, len)| (key, writes, area(at, len))).collect())
                .collect();
            let order = Order::of(
                steps.iter().map(|step| step.iter().map(|(key, writes, area)| (*key, *writes, area))),
            );
            prop_assert_eq!(order.len(), steps.len());
            let conflict = |a: usize, b: usize| {
                steps[a].iter().any(|x| {
                    steps[b].iter().any(|y| x.0 == y.0 && (x.1 || y.1) && x.2.overlaps(&y.2))
                })
            };
            // What is reachable over the edges, and what over all conflicts.
            let (mut found, mut wanted) = (vec![], vec![]);
            for step in 0..steps.len() {
                let reach = |sets: &Vec<Vec<bool>>, before: &[usize]| {
                    let mut set = vec![false; step];
                    for &before in before {
                        set[before] = true;
                        for (at, &is) in sets[before].iter().enumerate() {
                            set[at] |= is;
                        }
                    }
                    set
                };
                let edges: Vec<usize> = order.predecessors(step).iter().map(|&step| step as usize).collect();
                for &before in &edges {
                    prop_assert!(before < step && conflict(before, step), "{} before {}", before, step);
                    prop_assert!(order.successors(before).contains(&(step as u32)));
                }
                let conflicts: Vec<usize> = (0..step).filter(|&before| conflict(before, step)).collect();
                found.push(reach(&found, &edges));
                wanted.push(reach(&wanted, &conflicts));
            }
            prop_assert_eq!(found, wanted);
            let edges = |of: &dyn Fn(usize) -> usize| (0..steps.len()).map(of).sum::<usize>();
            prop_assert_eq!(
                edges(&|step| order.predecessors(step).len()),
                edges(&|step| order.successors(step).len())
            );
        }
    }
}
