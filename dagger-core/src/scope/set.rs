//! A set of indices of one coordinate (workers, threads, NUMA nodes, devices): all of them, or a finite list.
//!
//! 1. The list of `Set::Of` is strictly increasing.
//! 2. `All` is not equal to any list: the coordinate is unbounded, as scopes are written without a machine.

/// Indices of one coordinate. Invariants 1 and 2 make `==` the equality of sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    All,
    Of(Vec<usize>),
}

impl Set {
    pub(crate) fn of(indices: impl IntoIterator<Item = usize>) -> Set {
        let mut list: Vec<usize> = indices.into_iter().collect();
        list.sort_unstable();
        list.dedup();
        Set::Of(list)
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Set::Of(list) if list.is_empty())
    }

    /// Whether `index` is in; `None` stands for any index that no list mentions.
    pub(crate) fn has(&self, index: Option<usize>) -> bool {
        match (self, index) {
            (Set::All, _) => true,
            (Set::Of(_), None) => false,
            (Set::Of(list), Some(index)) => list.binary_search(&index).is_ok(),
        }
    }

    /// The indices that are mentioned: none for `All`.
    pub(crate) fn mentioned(&self) -> &[usize] {
        match self {
            Set::All => &[],
            Set::Of(list) => list,
        }
    }

    pub(crate) fn is_subset(&self, other: &Set) -> bool {
        match (self, other) {
            (_, Set::All) => true,
            (Set::All, Set::Of(_)) => false,
            (Set::Of(few), Set::Of(many)) => {
                few.len() <= many.len() && few.iter().all(|&i| other.has(Some(i)))
            }
        }
    }

    pub(crate) fn intersection(&self, other: &Set) -> Set {
        match (self, other) {
            (Set::All, set) | (set, Set::All) => set.clone(),
            (Set::Of(a), Set::Of(b)) => {
                let (few, many) = if a.len() <= b.len() { (a, other) } else { (b, self) };
                Set::Of(few.iter().copied().filter(|&i| many.has(Some(i))).collect())
            }
        }
    }

    /// Adds the indices of `other`. Constant time per index when they come in increasing order, as in a loop.
    pub(crate) fn unite(&mut self, other: &Set) {
        match (&mut *self, other) {
            (Set::All, _) => {}
            (_, Set::All) => *self = Set::All,
            (Set::Of(list), Set::Of(more)) => {
                let in_order = list.last() < more.first();
                list.extend_from_slice(more);
                if !in_order {
                    list.sort_unstable();
                    list.dedup();
                }
            }
        }
    }
}
