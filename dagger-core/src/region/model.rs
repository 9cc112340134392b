//! Random areas for tests, each with the set of elements that it must have, made without the code under test.
//!
//! All comes from a tape of numbers, which proptest makes and shrinks: zeros, and what lies behind the end of the
//! tape, give the simplest area.

use std::collections::BTreeSet;

use super::{Area, Axis, Band, Grid, Outside, Progression, Shape};

pub(crate) type Elements = BTreeSet<Vec<usize>>;

/// Numbers to choose by.
pub(crate) struct Tape<'a>(pub(crate) std::slice::Iter<'a, u8>);

impl Tape<'_> {
    /// A number below `n`, which is at least 1.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or(0)) % n
    }

    fn signed(&mut self, most: usize) -> i64 {
        self.below(2 * most + 1) as i64 - most as i64
    }

    /// A shape with few elements, of any rank.
    pub(crate) fn shape(&mut self) -> Shape {
        let rank = [1, 2, 2, 2, 3, 4, 5, 6][self.below(8)];
        let most = [0, 12, 8, 4, 3, 3, 2][rank];
        let dims: Vec<usize> = (0..rank).map(|_| most - self.below(most + 1)).collect();
        Shape::new(&dims).unwrap()
    }

    /// An axis within the length `n`, often up to an end that it does not know.
    pub(crate) fn axis(&mut self, n: usize) -> Axis {
        let kind = self.below(8);
        let start = self.below(n + 1);
        let step = 1 + self.below(3);
        let count = self.below((n - start).div_ceil(step) + 1);
        match kind {
            0 | 1 => Axis::all(),
            2 => Progression { start, step: 1, len: Progression::TO_END }.into(),
            3 => Progression { start, step, len: Progression::TO_END }.into(),
            4 if start < n => Progression::one(start).into(),
            5 => Axis::list((0..n).filter(|_| self.below(3) == 0)),
            _ => Progression { start, step, len: count }.into(),
        }
    }

    pub(crate) fn band(&mut self) -> Band {
        match self.below(8) {
            0 => Band::lower(),
            1 => Band::strict_lower(),
            2 => Band::upper(),
            3 => Band::strict_upper(),
            4 => Band::diagonal(0),
            5 => Band::diagonal(self.signed(4)),
            6 => Band::diagonals(self.signed(4), self.signed(4)),
            _ => Band {
                row_step: self.signed(3),
                col_step: self.signed(3),
                lo: [self.signed(6), i64::MIN][self.below(2)],
                hi: [self.signed(6), i64::MAX][self.below(2)],
            },
        }
    }

    /// A grid within a shape, perhaps a part of a part of one; not clipped.
    pub(crate) fn grid(&mut self, shape: &Shape) -> (Grid, Model) {
        let (mut grid, mut model) = self.simple(shape);
        for _ in 0..self.below(3) {
            let (inner, inner_model) = self.simple(&model.shape());
            // The lengths that `inner` was chosen for are known to `outer` only when it is clipped.
            let outer = if self.below(2) == 0 { grid.clip(shape).unwrap() } else { grid.clone() };
            match outer.sub(&inner) {
                Ok(sub) => (grid, model) = (sub, model.sub(&inner_model)),
                Err(Outside::Unsupported(_)) => {
                    assert!(!grid.bands().is_empty());
                    assert!(inner.axes().iter().any(|axis| matches!(axis, Axis::List(_))));
                }
                Err(error) => panic!("{inner} of {grid}: {error}"),
            }
        }
        (grid, model)
    }

    fn simple(&mut self, shape: &Shape) -> (Grid, Model) {
        let mut axes: Vec<Axis> = shape.dims().iter().map(|&n| self.axis(n)).collect();
        if axes.len() == 2 && self.below(8) == 1 && shape.dims()[0] == shape.dims()[1] {
            axes[1] = axes[0].clone();
        }
        let mut model =
            Model::cross(axes.iter().zip(shape.dims()).map(|(axis, &n)| elements(axis, n)).collect());
        if axes.len() == 2 && self.below(2) == 1 {
            let band = self.band();
            model.has.retain(|at| within(band, at));
            return (Grid::plane_band(axes[0].clone(), axes[1].clone(), band), model);
        }
        (Grid::boxed(axes).unwrap(), model)
    }

    /// An area of any kind but a custom one, clipped, with its elements. `Whole` has one that no other area has;
    /// a byte is `[offset]` behind a marker.
    pub(crate) fn area(&mut self, shape: &Shape) -> (Area, Elements) {
        match self.below(12) {
            1 => {
                let start = self.below(6);
                let bytes = start..start + self.below(4);
                (Area::Bytes(bytes.clone()), bytes.map(|byte| vec![byte; 8]).collect())
            }
            2 => {
                let (_, all) = Tape([].iter()).grid(shape);
                (Area::Whole, all.elements().into_iter().chain([vec![]]).collect())
            }
            _ => {
                let (grid, model) = self.grid(shape);
                (Area::Grid(grid.clip(shape).unwrap()), model.elements())
            }
        }
    }
}

/// A grid as a table: the elements of each axis by position, and the positions that are in.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    axes: Vec<Vec<usize>>,
    has: Elements,
}

impl Model {
    fn cross(axes: Vec<Vec<usize>>) -> Model {
        let mut has = Elements::from([vec![]]);
        for axis in &axes {
            let longer =
                |at: &Vec<usize>| (0..axis.len()).map(|pos| [&at[..], &[pos]].concat()).collect::<Vec<_>>();
            has = has.iter().flat_map(longer).collect();
        }
        Model { axes, has }
    }

    fn at(&self, positions: &[usize]) -> Vec<usize> {
        positions.iter().zip(&self.axes).map(|(&pos, axis)| axis[pos]).collect()
    }

    /// The lengths of the axes.
    pub(crate) fn shape(&self) -> Shape {
        Shape::new(&self.axes.iter().map(Vec::len).collect::<Vec<_>>()).unwrap()
    }

    /// What `inner`, in positions of these axes, picks.
    pub(crate) fn sub(&self, inner: &Model) -> Model {
        let has = inner.has.iter().filter(|at| self.has.contains(&inner.at(at))).cloned().collect();
        let pick = |(outer, inner): (&Vec<usize>, &Vec<usize>)| inner.iter().map(|&pos| outer[pos]).collect();
        Model { axes: self.axes.iter().zip(&inner.axes).map(pick).collect(), has }
    }

    pub(crate) fn elements(&self) -> Elements {
        self.has.iter().map(|at| self.at(at)).collect()
    }
}

/// What an axis means on a length, from its definition.
fn elements(axis: &Axis, n: usize) -> Vec<usize> {
    match axis {
        Axis::List(list) => list.to_vec(),
        &Axis::Step(Progression { start, step, len: Progression::TO_END }) => {
            (start..n).step_by(step).collect()
        }
        &Axis::Step(Progression { start, step, len }) => (0..len).map(|pos| start + pos * step).collect(),
    }
}

/// What a band means, from its definition.
fn within(band: Band, at: &[usize]) -> bool {
    let value = band.col_step * at[1] as i64 - band.row_step * at[0] as i64;
    band.lo <= value && value <= band.hi
}

/// What a clipped grid says that it has, through its public face.
pub(crate) fn stated(grid: &Grid) -> Elements {
    let mut at = vec![vec![]];
    for (i, axis) in grid.axes().iter().enumerate() {
        let last = i + 1 == grid.rank();
        let columns = |row: &Vec<usize>| {
            if last { grid.columns(row.first().copied().unwrap_or(0)) } else { 0..axis.len() }
        };
        at = at
            .iter()
            .flat_map(|row| columns(row).map(|pos| [&row[..], &[pos]].concat()).collect::<Vec<_>>())
            .collect();
    }
    let element =
        |at: &Vec<usize>| at.iter().zip(grid.axes()).map(|(&pos, axis)| axis.at(pos).unwrap()).collect();
    at.iter().map(element).collect()
}
