//! Which elements two grids share, and whether one has all of the other's.
//!
//! ```text
//!   no band      axis by axis                                                   constant time
//!   progressions the bands of both, seen from the box that both axes share      constant time for equal steps,
//!                                                                               else a loop over rows
//!   lists        row by row: each grid has one run of neighbours in a row       rows × list
//! ```

use super::Grid;
use super::axis::{Axis, Part};
use super::band::{Form, Forms, has_point, merge};
use super::progression::{Common, Progression, common};

impl Grid {
    /// Whether some element is in both.
    ///
    /// Grids of different ranks are not compared: the answer is yes if both have elements. It is also yes, at
    /// times wrongly, for several bands of different slopes in planes that are endless in both directions.
    #[must_use]
    pub fn overlaps(&self, other: &Grid) -> bool {
        if self.rank() != other.rank() {
            return !self.is_empty() && !other.is_empty();
        }
        let mut pairs = self.axes().iter().zip(other.axes());
        if !pairs.all(|(a, b)| a.part().overlaps(b.part())) {
            return false;
        }
        let ([rows_a, cols_a], [rows_b, cols_b]) = (self.axes(), other.axes()) else { return true };
        if self.bands().is_empty() && other.bands().is_empty() {
            return true;
        }
        let steps = [rows_a, rows_b, cols_a, cols_b].map(Axis::step);
        if let [Some(rows_a), Some(rows_b), Some(cols_a), Some(cols_b)] = steps {
            let (Some(rows), Some(cols)) = (common(rows_a, rows_b), common(cols_a, cols_b)) else {
                return false;
            };
            return shared_forms(self, other, &rows, &cols)
                .is_none_or(|forms| has_point(rows.left.len, cols.left.len, &forms));
        }
        if rows_a.step().is_some() && rows_b.step().is_some() {
            // The list is among the columns, so they are few: make them the rows.
            return match (self.transpose(), other.transpose()) {
                (Some(a), Some(b)) => overlaps_by_rows(&a, &b),
                _ => true,
            };
        }
        overlaps_by_rows(self, other)
    }

    /// Whether every element of `inner` is in `self`.
    ///
    /// Exact for equal ranks if `inner` is resolved along one axis at least. Otherwise no may mean not known.
    #[must_use]
    pub fn covers(&self, inner: &Grid) -> bool {
        if self == inner || inner.is_empty() {
            return true;
        }
        if self.rank() != inner.rank() {
            return false;
        }
        let mut pairs = self.axes().iter().zip(inner.axes());
        let boxes = pairs.all(|(outer, inner)| outer.part().covers(inner.part()));
        if boxes && self.bands().is_empty() {
            return true;
        }
        let ([rows_a, cols_a], [rows_b, cols_b]) = (self.axes(), inner.axes()) else { return boxes };
        if !boxes && inner.bands().is_empty() {
            return false;
        }
        let steps = [rows_a, rows_b, cols_a, cols_b].map(Axis::step);
        if let (true, [Some(rows_a), Some(rows_b), Some(cols_a), Some(cols_b)]) = (boxes, steps) {
            let seen = rows_b.seen_in(rows_a).zip(cols_b.seen_in(cols_a));
            if seen.is_some_and(|(rows, cols)| implied(self, inner, rows, cols)) {
                return true;
            }
        }
        if rows_b.is_resolved() {
            covers_by_rows(self, inner)
        } else if cols_b.is_resolved() {
            match (self.transpose(), inner.transpose()) {
                (Some(outer), Some(inner)) => covers_by_rows(&outer, &inner),
                _ => false,
            }
        } else {
            false
        }
    }
}

/// The bands of both grids as conditions on positions in what their axes share; `None` if a number gets too large.
fn shared_forms(a: &Grid, b: &Grid, rows: &Common, cols: &Common) -> Option<Forms> {
    let mut forms = Forms::new();
    for band in a.bands() {
        merge(&mut forms, band.form().substitute(rows.left, cols.left)?);
    }
    for band in b.bands() {
        merge(&mut forms, band.form().substitute(rows.right, cols.right)?);
    }
    Some(forms)
}

/// Whether each band of `outer` follows from a parallel one of `inner`, whose positions are `rows` and `cols` in
/// the axes of `outer`. A no decides nothing: the box may be so small that it needs no band.
fn implied(outer: &Grid, inner: &Grid, rows: Progression, cols: Progression) -> bool {
    let known = inner.forms();
    outer.bands().iter().all(|band| {
        let Some(form) = band.form().substitute(rows, cols).map(Form::reduce) else { return false };
        known.iter().any(|known| known.is_parallel(form) && form.lo <= known.lo && known.hi <= form.hi)
    })
}

/// Needs a list among the rows.
fn overlaps_by_rows(a: &Grid, b: &Grid) -> bool {
    let ([rows_a, cols_a], [rows_b, cols_b]) = (a.axes(), b.axes()) else { return true };
    let (few, many) = if rows_a.len() <= rows_b.len() { (rows_a, rows_b) } else { (rows_b, rows_a) };
    let mut shared = few.part().iter().filter(|&row| many.position(row).is_some());
    shared.any(|row| {
        let runs = [(a, rows_a, cols_a), (b, rows_b, cols_b)];
        let [left, right] = runs.map(|(grid, rows, cols)| run(grid, rows, cols, row));
        left.overlaps(right)
    })
}

/// Needs finitely many rows in `inner`.
fn covers_by_rows(outer: &Grid, inner: &Grid) -> bool {
    let ([rows_a, cols_a], [rows_b, cols_b]) = (outer.axes(), inner.axes()) else { return false };
    rows_b
        .part()
        .iter()
        .enumerate()
        .all(|(i, row)| run(outer, rows_a, cols_a, row).covers(cols_b.part().slice(inner.columns(i))))
}

/// The elements of a plane in the row `row`, nothing if it does not have it.
fn run<'a>(grid: &Grid, rows: &Axis, cols: &'a Axis, row: usize) -> Part<'a> {
    rows.position(row).map_or(Part::List(&[]), |pos| cols.part().slice(grid.columns(pos)))
}
