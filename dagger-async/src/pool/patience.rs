//! How long a worker that has nothing looks at the short queue of another one before it takes from it.
//!
//! ```text
//!   small tasks   looks: a a b b c c d    progress at each second look: left alone, it is faster so
//!   a long body   looks: a a a a a a a a  no progress for eight looks: stolen from; next time after four, then two
//! ```
//! 1. What is seen is how many tasks the other has spawned and ended. A queue of few tasks whose owner is about to take them costs
//!    both of them more than it gives: the lines of the task, and of all that it accesses, cross over and back.
//! 2. Bodies that outlast the patience halve it, down to [`LEAST`] looks; progress during it restores it. So help for long bodies
//!    comes soon, and one body that was interrupted is forgotten at the next small task.
//! 3. Progress between two searches says nothing.

/// Looks at first, and after progress: about half a microsecond.
const MOST: u32 = 8;
/// It takes two to see that there was no progress.
const LEAST: u32 = 2;

/// What a worker has seen of another one.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// In this search.
    search: u32,
    /// How far the other was, and at how many looks in a row.
    progress: u64,
    looks: u32,
    /// It ends at so many.
    limit: u32,
}

impl Patience {
    pub(super) const NEW: Patience = Patience { search: 0, progress: 0, looks: 0, limit: MOST };

    /// Looks once more, in this search, at one that is so far. True if the patience ends: it may be stolen from.
    #[inline]
    pub(super) fn ends(&mut self, search: u32, progress: u64) -> bool {
        if self.search != search {
            (self.search, self.progress, self.looks) = (search, progress, 0);
        } else if self.progress != progress {
            (self.progress, self.looks, self.limit) = (progress, 0, MOST);
        }
        self.looks += 1;
        self.looks >= self.limit
    }

    /// It was stolen from: its body has outlasted the patience.
    pub(super) fn was_outlasted(&mut self) {
        self.looks = 0;
        self.limit = LEAST.max(self.limit / 2);
    }
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;

    /// How many looks it takes to steal, in a new search at one whose progress is `progress(look)`; `None`: more than 100.
    fn looks(patience: &mut Patience, search: u32, progress: impl Fn(u64) -> u64) -> Option<u64> {
        let looks = (1..=100).find(|&look| patience.ends(search, progress(look)));
        if looks.is_some() {
            patience.was_outlasted();
        }
        looks
    }

    #[test]
    fn long_bodies_are_soon_helped_out_and_small_tasks_never() {
        let mut patience = Patience::NEW;
        let stuck = |at: u64| move |_| at;
        let long: Vec<_> = (1..6).map(|search| looks(&mut patience, search, stuck(7))).collect();
        assert_eq!(long, [8, 4, 2, 2, 2].map(Some));
        // Two looks a task: the first is taken for a long one, then none for ever.
        assert_eq!(looks(&mut patience, 6, |look| look / 2), None);
        assert_eq!(looks(&mut patience, 7, stuck(9)), Some(8));
    }

    #[test]
    fn what_was_done_between_two_searches_is_no_progress() {
        let mut patience = Patience::NEW;
        for (search, expected) in [(1, 8), (2, 4), (3, 2)] {
            let done_meanwhile = u64::from(search) * 1000;
            assert_eq!(looks(&mut patience, search, |_| done_meanwhile), Some(expected));
        }
    }
}
