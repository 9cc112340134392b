//! One axis of a grid: a progression or a list, and how two of them compare.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::Outside;
use super::progression::{Progression, common};

/// Elements of one axis, in increasing order.
///
/// ```
/// use dagger_core::{Axis, Progression};
///
/// let picked = Axis::list([9, 1, 5, 4]);
/// assert_eq!(picked.to_string(), "[1, 4, 5, 9]");
/// assert_eq!(picked.then(&Axis::from(Progression::range(1, 2)))?, Axis::list([4, 5]));
/// assert_eq!(Axis::list([3, 5, 7]).to_string(), "(3..8).step_by(2)");
/// # Ok::<(), dagger_core::Outside>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Axis {
    /// Elements in equal steps.
    Step(Progression),
    /// Any elements. [`Axis::list`] makes it, and prefers `Step` where the list is one.
    List(Indices),
}

/// A strictly increasing list of indices; a clone shares it.
///
/// It sorts what it is made from and drops what occurs twice, so that a comparison can rely on the order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Indices(Arc<[usize]>);

impl Deref for Indices {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl FromIterator<usize> for Indices {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Indices {
        let mut sorted: Vec<usize> = indices.into_iter().collect();
        if !sorted.is_sorted_by(|a, b| a < b) {
            sorted.sort_unstable();
            sorted.dedup();
        }
        Indices(sorted.into())
    }
}

impl From<Vec<usize>> for Indices {
    fn from(indices: Vec<usize>) -> Indices {
        indices.into_iter().collect()
    }
}

impl From<Progression> for Axis {
    fn from(progression: Progression) -> Axis {
        Axis::Step(progression)
    }
}

impl Axis {
    /// Every element: `..`.
    #[must_use]
    pub const fn all() -> Axis {
        Axis::Step(Progression::all())
    }

    /// These elements, in increasing order and each once. A list in equal steps becomes [`Axis::Step`].
    #[must_use]
    pub fn list(indices: impl IntoIterator<Item = usize>) -> Axis {
        let indices: Indices = indices.into_iter().collect();
        let step = match *indices {
            [] => return Axis::Step(Progression::range(0, 0)),
            [only] => return Axis::Step(Progression::one(only)),
            [first, second, ..] => second - first,
        };
        if indices.windows(2).all(|pair| pair[1] - pair[0] == step) {
            return Axis::Step(Progression { start: indices[0], step, len: indices.len() });
        }
        Axis::List(indices)
    }

    /// The number of elements, [`Progression::TO_END`] while it is not known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.part().len()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the number of elements is known.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.len() != Progression::TO_END
    }

    /// The element at position `pos`, if there is one.
    #[must_use]
    pub fn at(&self, pos: usize) -> Option<usize> {
        self.part().at(pos)
    }

    /// The position at which `value` stands, if it is an element.
    #[must_use]
    pub fn position(&self, value: usize) -> Option<usize> {
        self.part().position(value)
    }

    /// The elements at the positions `inner`.
    ///
    /// # Errors
    /// Those of [`Progression::then`].
    pub fn then(&self, inner: &Axis) -> Result<Axis, Outside> {
        match (self, inner) {
            (Axis::Step(outer), Axis::Step(inner)) => Ok(Axis::Step(outer.then(*inner)?)),
            (Axis::List(list), Axis::Step(inner)) => {
                let inner = inner.clip(list.len())?;
                Ok(Axis::list(list.iter().copied().skip(inner.start).step_by(inner.step).take(inner.len)))
            }
            (outer, Axis::List(list)) => {
                let bounds = || match outer.is_resolved() {
                    true => Outside::Bounds { axis: 0, what: inner.clone(), len: outer.len() },
                    false => Outside::TooLarge,
                };
                let picked = list.iter().map(|&pos| outer.at(pos)).collect::<Option<Vec<usize>>>();
                picked.map(Axis::list).ok_or_else(bounds)
            }
        }
    }

    /// The same elements on an axis of length `n`: checked, and with a known length.
    ///
    /// # Errors
    /// Those of [`Progression::clip`].
    pub fn clip(&self, n: usize) -> Result<Axis, Outside> {
        match self {
            Axis::Step(progression) => Ok(Axis::Step(progression.clip(n)?)),
            Axis::List(list) if list.last().is_none_or(|&last| last < n) => Ok(self.clone()),
            Axis::List(_) => Err(Outside::Bounds { axis: 0, what: self.clone(), len: n }),
        }
    }

    /// All of it, to be cut and compared without allocation.
    pub(crate) fn part(&self) -> Part<'_> {
        match self {
            Axis::Step(progression) => Part::Step(*progression),
            Axis::List(list) => Part::List(list),
        }
    }

    /// As a progression, if it is one.
    pub(super) fn step(&self) -> Option<Progression> {
        match self {
            Axis::Step(progression) => Some(*progression),
            Axis::List(_) => None,
        }
    }
}

/// Neighbouring positions of an axis.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a> {
    Step(Progression),
    List(&'a [usize]),
}

impl<'a> Part<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            Part::Step(progression) => progression.len,
            Part::List(list) => list.len(),
        }
    }

    pub(super) fn at(self, pos: usize) -> Option<usize> {
        match self {
            Part::Step(progression) => progression.at(pos),
            Part::List(list) => list.get(pos).copied(),
        }
    }

    pub(crate) fn position(self, value: usize) -> Option<usize> {
        match self {
            Part::Step(progression) => progression.position(value),
            Part::List(list) => list.binary_search(&value).ok(),
        }
    }

    /// The elements at these positions, as far as they exist.
    pub(crate) fn slice(self, positions: Range<usize>) -> Part<'a> {
        let (from, to) = (positions.start.min(self.len()), positions.end.min(self.len()));
        match self {
            _ if from >= to => Part::List(&[]),
            Part::Step(progression) => Part::Step(progression.slice(from, to)),
            Part::List(list) => Part::List(&list[from..to]),
        }
    }

    /// The elements between `first` and `last`, both included.
    pub(crate) fn between(self, first: usize, last: usize) -> Part<'a> {
        match self {
            Part::Step(p) => {
                let from = first.saturating_sub(p.start).div_ceil(p.stride());
                let to = if last < p.start { 0 } else { ((last - p.start) / p.stride()).saturating_add(1) };
                self.slice(from..to)
            }
            Part::List(list) => {
                let from = list.partition_point(|&value| value < first);
                self.slice(from..list.partition_point(|&value| value <= last))
            }
        }
    }

    /// The elements in increasing order; endless if it is not resolved.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> + 'a {
        (0..self.len()).map_while(move |pos| self.at(pos))
    }

    /// Whether some element is in both.
    pub(crate) fn overlaps(self, other: Part<'_>) -> bool {
        match (self, other) {
            (Part::Step(a), Part::Step(b)) => common(a, b).is_some(),
            (Part::List(list), Part::Step(step)) | (Part::Step(step), Part::List(list)) => {
                let near = Part::List(list).between(step.start, step.last());
                near.iter().any(|value| step.position(value).is_some())
            }
            (Part::List(a), Part::List(b)) if a.len() > b.len() => Part::List(b).overlaps(Part::List(a)),
            (Part::List(short), Part::List(mut long)) => short.iter().any(|value| {
                long = &long[long.partition_point(|other| other < value)..];
                long.first() == Some(value)
            }),
        }
    }

    /// Whether every element of `inner` is one of `self`.
    pub(crate) fn covers(self, inner: Part<'_>) -> bool {
        match (self, inner) {
            (Part::Step(outer), Part::Step(inner)) => outer.covers(inner),
            // So an endless `inner` is never walked.
            (Part::List(list), inner) if inner.len() > list.len() => false,
            (outer, inner) => inner.iter().all(|value| outer.position(value).is_some()),
        }
    }
}
