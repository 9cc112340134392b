//! Grids: boxes of any rank, and the bands that cut them in a plane.

use std::ops::Range;

use smallvec::SmallVec;

use super::axis::Axis;
use super::band::{Band, Form, Forms, has_point, merge};
use super::progression::Progression;
use super::{MAX_RANK, Outside, Shape};

/// The elements at which the axes of a box cross; in a plane also within bands.
///
/// Up to rank 2 a grid without lists takes no memory of its own.
///
/// ```
/// use dagger_core::{Axis, Band, Grid, Progression};
///
/// let lower = Grid::plane_band(Axis::all(), Axis::all(), Band::lower());
/// let tile = Grid::plane(Progression::range(2, 4).into(), Progression::range(3, 3).into());
/// let corner = lower.sub(&tile)?;
/// assert_eq!(corner.columns(0), 0..0); // row 2 has the columns 0 to 2, the tile starts at 3
/// assert_eq!(corner.columns(2), 0..2); // row 4, columns 3 and 4
/// # Ok::<(), dagger_core::Outside>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Grid {
    axes: SmallVec<[Axis; 2]>,
    /// Reduced, in increasing order, no two parallel; empty unless the rank is 2.
    bands: SmallVec<[Band; 1]>,
}

impl Grid {
    /// Elements of a sequence.
    #[must_use]
    pub fn line(axis: Axis) -> Grid {
        let mut axes = SmallVec::new();
        axes.push(axis);
        Grid { axes, bands: SmallVec::new() }
    }

    /// The elements of a matrix where these rows and columns cross.
    #[must_use]
    pub fn plane(rows: Axis, cols: Axis) -> Grid {
        Grid { axes: SmallVec::from_buf([rows, cols]), bands: SmallVec::new() }
    }

    /// What a band leaves of a plane; it counts positions in `rows` and `cols`.
    #[must_use]
    pub fn plane_band(rows: Axis, cols: Axis, band: Band) -> Grid {
        let plane = Grid::plane(rows, cols);
        // Reducing makes no number larger, except `-i64::MIN`: such a band is kept as it was written.
        let band = band.form().reduce().band().unwrap_or(band);
        let bounded = band.lo != i64::MIN || band.hi != i64::MAX;
        Grid { bands: SmallVec::from_iter(bounded.then_some(band)), ..plane }
    }

    /// A box of rank 1 to 6.
    ///
    /// # Errors
    /// [`Outside::Rank`] for any other rank.
    pub fn boxed(axes: impl IntoIterator<Item = Axis>) -> Result<Grid, Outside> {
        let axes: SmallVec<[Axis; 2]> = axes.into_iter().take(MAX_RANK + 1).collect();
        match axes.len() {
            1..=MAX_RANK => Ok(Grid { axes, bands: SmallVec::new() }),
            asked => Err(Outside::Rank { asked, has: MAX_RANK }),
        }
    }

    /// The number of axes.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.axes.len()
    }

    /// The axes, rows before columns.
    #[must_use]
    pub fn axes(&self) -> &[Axis] {
        &self.axes
    }

    /// The bands; an element is within all of them. No two have the same steps, so there is rarely more than one.
    #[must_use]
    pub fn bands(&self) -> &[Band] {
        &self.bands
    }

    /// The positions in the last axis that belong to position `row` of the first, in a plane with or without
    /// bands. Of a line, or a box of more than two axes, the whole last axis.
    ///
    /// While the last axis is not resolved, the end may be [`Progression::TO_END`].
    #[must_use]
    pub fn columns(&self, row: usize) -> Range<usize> {
        let (mut from, mut to) = (0, self.axes.last().map_or(0, Axis::len));
        self.bands.iter().for_each(|band| band.form().cut(row, &mut from, &mut to));
        if from < to { from..to } else { 0..0 }
    }

    /// The positions in the first axis that belong to position `col` of the last, in a plane with or without bands:
    /// [`columns`](Grid::columns) with rows and columns in each other's place.
    #[must_use]
    pub fn rows(&self, col: usize) -> Range<usize> {
        let (mut from, mut to) = (0, self.axes.first().map_or(0, Axis::len));
        self.bands.iter().for_each(|band| band.form().transpose().cut(col, &mut from, &mut to));
        if from < to { from..to } else { 0..0 }
    }

    /// Whether there is no element. Axes that are not resolved count as endless.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        if self.axes.iter().any(Axis::is_empty) {
            return true;
        }
        match &self.axes[..] {
            [rows, cols] if !self.bands.is_empty() => !has_point(rows.len(), cols.len(), &self.forms()),
            _ => false,
        }
    }

    /// Whether the length of every axis is known.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.axes.iter().all(Axis::is_resolved)
    }

    /// The elements that `inner` picks, where `inner` counts positions in the axes of `self`.
    ///
    /// # Errors
    /// [`Outside::Bounds`] and [`Outside::Rank`] if `inner` does not fit, [`Outside::Step`] and
    /// [`Outside::TooLarge`] as for [`Progression::then`], and [`Outside::Unsupported`] if lists pick rows or
    /// columns of a band: that is only possible with the same list for both, and bands that end at the
    /// main diagonal or beside it.
    pub fn sub(&self, inner: &Grid) -> Result<Grid, Outside> {
        if self.rank() != inner.rank() {
            return Err(Outside::Rank { asked: inner.rank(), has: self.rank() });
        }
        let axes = self.each_axis(&inner.axes, Axis::then)?;
        let [rows, cols] = &inner.axes[..] else { return Ok(Grid { axes, bands: SmallVec::new() }) };
        if self.bands.is_empty() {
            return Ok(Grid { axes, bands: inner.bands.clone() });
        }
        let mut forms = inner.forms();
        for band in &self.bands {
            merge(&mut forms, seen_from(*band, rows, cols)?);
        }
        let mut bands = SmallVec::new();
        for form in forms {
            bands.push(form.band()?);
        }
        bands.sort_unstable();
        Ok(Grid { axes, bands })
    }

    /// The same elements of a chunk of this shape: checked, and with all lengths known.
    ///
    /// # Errors
    /// [`Outside::Rank`] if the ranks differ, else those of [`Progression::clip`] for the first axis that has one.
    pub fn clip(&self, shape: &Shape) -> Result<Grid, Outside> {
        if self.rank() != shape.rank() {
            return Err(Outside::Rank { asked: self.rank(), has: shape.rank() });
        }
        let axes = self.each_axis(shape.dims(), |axis, &n| axis.clip(n))?;
        Ok(Grid { axes, bands: self.bands.clone() })
    }

    /// The axes that `change` makes of these and `others`. They are pushed: collecting results costs more than
    /// the change.
    fn each_axis<T>(
        &self,
        others: &[T],
        change: impl Fn(&Axis, &T) -> Result<Axis, Outside>,
    ) -> Result<SmallVec<[Axis; 2]>, Outside> {
        let mut axes = SmallVec::new();
        for (i, (axis, other)) in self.axes.iter().zip(others).enumerate() {
            axes.push(change(axis, other).map_err(|error| error.on(i))?);
        }
        Ok(axes)
    }

    /// The bands, in the form that is computed with.
    pub(super) fn forms(&self) -> Forms {
        self.bands.iter().map(|band| band.form()).collect()
    }

    /// The same elements where rows and columns have changed places; only for planes.
    pub(super) fn transpose(&self) -> Option<Grid> {
        let [rows, cols] = &self.axes[..] else { return None };
        let bands = self.bands.iter().map(|band| band.form().transpose().band().ok());
        Some(Grid {
            axes: SmallVec::from_buf([cols.clone(), rows.clone()]),
            bands: bands.collect::<Option<_>>()?,
        })
    }
}

/// A band, as a condition on positions in `rows` and `cols`, which pick from what the band counts.
fn seen_from(band: Band, rows: &Axis, cols: &Axis) -> Result<Form, Outside> {
    match (rows, cols) {
        (Axis::Step(rows), Axis::Step(cols)) => band.form().substitute(*rows, *cols).ok_or(Outside::TooLarge),
        // With the same increasing list on both sides, `<`, `=` and `>` of elements are those of positions.
        (Axis::List(rows), Axis::List(cols))
            if rows == cols
                && (band.row_step, band.col_step) == (1, 1)
                && matches!(band.lo, i64::MIN | 0 | 1)
                && matches!(band.hi, i64::MAX | 0 | -1) =>
        {
            Ok(band.form())
        }
        _ => Err(Outside::Unsupported("rows or columns of a band or triangle picked by a list")),
    }
}

impl Progression {
    /// This progression as one of the other's positions, if all of it is covered.
    pub(super) fn seen_in(self, outer: Progression) -> Option<Progression> {
        let start = outer.position(self.start)?;
        Some(Progression { start, step: (self.stride() / outer.stride()).max(1), len: self.len })
    }
}
