//! A set of elements as runs of neighbours, row by row.

use std::collections::BTreeMap;
use std::ops::Range;

use smallvec::SmallVec;

use crate::region::{Area, Axis, Grid, Part, Progression};

/// The indices along all axes but the last.
type Row = SmallVec<[usize; 2]>;

/// A finite set of elements of one rank, or of bytes.
///
/// Neither an empty row nor an empty run is kept; the runs of a row are in increasing order and apart.
#[derive(Clone, Default, Debug)]
pub(super) struct Runs {
    rows: BTreeMap<Row, Vec<Range<usize>>>,
    /// Bytes stand in one row, like a line.
    bytes: bool,
}

impl Runs {
    /// The elements of a resolved grid, or bytes; `None` for what is not made of elements.
    pub(super) fn new(area: &Area) -> Option<Runs> {
        let grid = match area {
            Area::Bytes(bytes) => {
                let rows = [(Row::new(), vec![bytes.clone()])].into_iter().filter(|_| !bytes.is_empty());
                return Some(Runs { rows: rows.collect(), bytes: true });
            }
            Area::Grid(grid) if grid.is_resolved() => grid,
            _ => return None,
        };
        let mut rows = BTreeMap::new();
        let (last, leading) = grid.axes().split_last()?;
        // The positions in the leading axes, counted like the digits of a clock.
        let mut at: SmallVec<[usize; 6]> = SmallVec::from_elem(0, leading.len());
        if leading.iter().any(Axis::is_empty) {
            return Some(Runs { rows, bytes: false });
        }
        loop {
            let row: Option<Row> = leading.iter().zip(&at).map(|(axis, &pos)| axis.at(pos)).collect();
            let part = last.part().slice(grid.columns(at.first().copied().unwrap_or(0)));
            let runs = neighbours(part);
            if !runs.is_empty() {
                rows.insert(row?, runs);
            }
            let mut axis = leading.len();
            loop {
                let Some(next) = axis.checked_sub(1) else { return Some(Runs { rows, bytes: false }) };
                axis = next;
                at[axis] += 1;
                if at[axis] < leading[axis].len() {
                    break;
                }
                at[axis] = 0;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether elements of `area` could be among these, so that taking them out has a meaning.
    pub(super) fn is_of_kind(&self, area: &Area) -> bool {
        match area {
            Area::Grid(grid) => {
                !self.bytes && self.rows.keys().next().is_none_or(|row| row.len() + 1 == grid.rank())
            }
            Area::Bytes(_) => self.bytes,
            Area::Whole => true,
            Area::Custom(_) => false,
        }
    }

    pub(super) fn overlaps(&self, area: &Area) -> bool {
        if !self.is_of_kind(area) {
            // Kinds that cannot be compared are taken to overlap.
            return !self.is_empty() && !area.is_empty();
        }
        let mut rows = self.rows.iter();
        rows.any(|(row, runs)| {
            let part = row_of(area, row);
            runs.iter().any(|run| part.overlaps(Part::Step(Progression::range(run.start, run.len()))))
        })
    }

    /// Takes out the elements of `area`; nothing if it is of another kind.
    pub(super) fn subtract(&mut self, area: &Area) {
        if self.is_of_kind(area) {
            self.rows.retain(|row, runs| {
                *runs = without(runs, row_of(area, row));
                !runs.is_empty()
            });
        }
    }

    /// Takes out the elements of `other`; nothing if they are of another kind.
    pub(super) fn subtract_runs(&mut self, other: &Runs) {
        if self.bytes != other.bytes {
            return;
        }
        for (row, taken) in &other.rows {
            let Some(runs) = self.rows.get_mut(row) else { continue };
            for run in taken {
                *runs = without(runs, Part::Step(Progression::range(run.start, run.len())));
            }
            if runs.is_empty() {
                self.rows.remove(row);
            }
        }
    }
}

/// The elements of `area` in a row of its rank.
fn row_of<'a>(area: &'a Area, row: &Row) -> Part<'a> {
    const NONE: Part<'static> = Part::List(&[]);
    let grid: &Grid = match area {
        Area::Whole => return Part::Step(Progression::all()),
        Area::Bytes(bytes) => return Part::Step(Progression::range(bytes.start, bytes.len())),
        Area::Custom(_) => return NONE,
        Area::Grid(grid) => grid,
    };
    let Some((last, leading)) = grid.axes().split_last() else { return NONE };
    let mut first = None;
    for (axis, &index) in leading.iter().zip(row) {
        let Some(pos) = axis.position(index) else { return NONE };
        first.get_or_insert(pos);
    }
    last.part().slice(grid.columns(first.unwrap_or(0)))
}

/// The runs, without the elements of `part`.
fn without(runs: &[Range<usize>], part: Part<'_>) -> Vec<Range<usize>> {
    let mut left = Vec::with_capacity(runs.len() + 1);
    for run in runs {
        let mut start = run.start;
        let inside = part.between(run.start, run.end.saturating_sub(1));
        for hole in neighbours(inside) {
            if start < hole.start {
                left.push(start..hole.start);
            }
            start = hole.end;
        }
        if start < run.end {
            left.push(start..run.end);
        }
    }
    left
}

/// The elements as runs that are apart.
fn neighbours(part: Part<'_>) -> Vec<Range<usize>> {
    if let Part::Step(Progression { start, step: 1, len }) = part {
        return (len > 0).then(|| start..start.saturating_add(len)).into_iter().collect();
    }
    let mut runs: Vec<Range<usize>> = Vec::new();
    for value in part.iter() {
        match runs.last_mut() {
            Some(run) if run.end == value => run.end += 1,
            _ => runs.push(value..value + 1),
        }
    }
    runs
}
