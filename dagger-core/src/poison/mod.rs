//! Which parts of a chunk are poisoned, and by what.
//!
//! ```text
//!   add(0..10, a)   add(5..15, b)   heal(0..4)      heal(4..10)
//!   aaaaaaaaaa      aaaaaaaaaabbbbb ····aaaaaabbbbb ··········bbbbb
//! ```
//! 1. An entry is one failed write, and what of its area nobody has overwritten since. Entries stand in the order
//!    in which they were added; one with nothing left is dropped.
//! 2. What an earlier entry has already poisoned is not added again: an element is in one entry at most, `Whole`
//!    aside, so that writes which fail over and over take memory for their elements only.
//! 3. While nothing of an entry is taken away its area stands for itself; then it becomes runs of elements, row by
//!    row. So a failure that is healed as a whole, which is the usual case, costs nothing.
//! 4. What is not made of elements (`Whole` of a chunk without a shape, fields, kinds that a user added) goes only
//!    as a whole, except that ranges of bytes lose the bytes that are healed.
//!
//! It does not know why an area is healed: a successful overwrite and a recovery are the same to it.

mod runs;
#[cfg(test)]
mod tests;

use crate::region::{Area, Axis, Grid, Progression, Shape};
use runs::Runs;

/// The parts of a chunk that failed writes have left in an unknown state, with the causes.
///
/// ```
/// use dagger_core::{Area, Grid, Poison, Progression};
///
/// let part = |start, len| Area::Grid(Grid::line(Progression::range(start, len).into()));
/// let mut poison = Poison::default();
/// poison.add(part(0, 10), None, "disk full");
/// poison.heal(&part(0, 4));
/// assert_eq!(poison.find(&part(2, 2)), None);
/// assert_eq!(poison.find(&part(3, 2)), Some(&"disk full"));
/// poison.heal(&part(4, 6));
/// assert!(poison.is_clean());
/// ```
#[derive(Clone, Debug)]
pub struct Poison<E> {
    entries: Vec<Entry<E>>,
}

#[derive(Clone, Debug)]
struct Entry<E> {
    cause: E,
    left: Left,
}

/// What an entry still poisons.
#[derive(Clone, Debug)]
enum Left {
    /// All of its area. For `Whole`, the shape that the chunk had.
    All(Area, Option<Shape>),
    /// These elements, or bytes.
    Some(Runs),
}

impl<E> Default for Poison<E> {
    fn default() -> Poison<E> {
        Poison { entries: Vec::new() }
    }
}

impl<E: Clone> Poison<E> {
    /// Nothing is poisoned. It allocates nothing.
    #[must_use]
    pub fn new() -> Poison<E> {
        Poison::default()
    }

    /// A write to `area` has failed. Elements that are poisoned already keep their first cause.
    ///
    /// `shape` is the chunk's, if it has one: it makes the elements of `Whole` known, and those of an axis that
    /// reaches to the end. Without it only `Whole` heals `Whole`.
    pub fn add(&mut self, area: Area, shape: Option<&Shape>, cause: E) {
        let area = shape.and_then(|shape| area.clip(shape).ok()).unwrap_or(area);
        let known = |entry: &Entry<E>| matches!(&entry.left, Left::All(known, _) if known.covers(&area));
        if area.is_empty() || self.entries.iter().any(known) {
            return;
        }
        let mut left = Left::All(area, shape.copied());
        let apart = |entry: &Entry<E>| matches!(&left, Left::All(area, _) if !entry.left.overlaps(area));
        if !matches!(left, Left::All(Area::Whole, _))
            && !self.entries.iter().all(apart)
            && let Some(mut runs) = left.runs()
        {
            self.entries.iter().for_each(|entry| entry.left.take_from(&mut runs));
            left = Left::Some(runs);
        }
        if !left.is_empty() {
            self.entries.push(Entry { cause, left });
        }
    }

    /// The chunk turned out to have this shape: makes the elements known of what was poisoned as `Whole` without one.
    pub fn measured(&mut self, shape: &Shape) {
        for entry in &mut self.entries {
            if let Left::All(Area::Whole, known @ None) = &mut entry.left {
                *known = Some(*shape);
            }
        }
    }

    /// Everything in `area` has been written anew, or recovered.
    pub fn heal(&mut self, area: &Area) {
        if area.is_empty() {
            return;
        }
        let mut kept: Vec<Entry<E>> = Vec::with_capacity(self.entries.len());
        for Entry { cause, mut left } in self.entries.drain(..) {
            left.heal(area, &kept);
            if !left.is_empty() {
                kept.push(Entry { cause, left });
            }
        }
        self.entries = kept;
    }

    /// The cause of the first failed write, in the order of [`add`](Poison::add), that has left something of `area`
    /// poisoned.
    #[must_use]
    pub fn find(&self, area: &Area) -> Option<&E> {
        self.entries.iter().find(|entry| entry.left.overlaps(area)).map(|entry| &entry.cause)
    }

    /// The causes of what is still poisoned.
    pub fn causes(&self) -> impl Iterator<Item = &E> {
        self.entries.iter().map(|entry| &entry.cause)
    }

    /// Nothing is poisoned any more.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Whether nothing is poisoned.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Left {
    fn is_empty(&self) -> bool {
        match self {
            Left::All(area, _) => area.is_empty(),
            Left::Some(runs) => runs.is_empty(),
        }
    }

    fn overlaps(&self, area: &Area) -> bool {
        match self {
            Left::All(own, _) => own.overlaps(area),
            Left::Some(runs) => runs.overlaps(area),
        }
    }

    /// All that is left, element by element; `None` if it is not made of elements.
    fn runs(&self) -> Option<Runs> {
        match self {
            Left::Some(runs) => Some(runs.clone()),
            Left::All(Area::Whole, Some(shape)) => {
                let axes = shape.dims().iter().map(|&n| Axis::Step(Progression::range(0, n)));
                Runs::new(&Area::Grid(Grid::boxed(axes).ok()?))
            }
            Left::All(area, _) => Runs::new(area),
        }
    }

    /// Takes what is left here out of `runs`.
    fn take_from(&self, runs: &mut Runs) {
        match self {
            Left::All(area, _) => runs.subtract(area),
            Left::Some(own) => runs.subtract_runs(own),
        }
    }

    /// Takes `area` away. Where this makes elements of an area, those of the `earlier` entries go too.
    fn heal<E>(&mut self, area: &Area, earlier: &[Entry<E>]) {
        match self {
            Left::Some(runs) => runs.subtract(area),
            Left::All(own, _) if area.covers(own) => *self = Left::Some(Runs::default()),
            Left::All(own, _) if own.overlaps(area) => {
                if let Some(mut runs) = self.runs().filter(|runs| runs.is_of_kind(area)) {
                    runs.subtract(area);
                    earlier.iter().for_each(|entry| entry.left.take_from(&mut runs));
                    *self = Left::Some(runs);
                }
            }
            Left::All(..) => {}
        }
    }
}
