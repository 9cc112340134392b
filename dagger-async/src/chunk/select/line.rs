//! Elements on a line: ranges, steps, index lists; rows, columns and diagonals of a matrix.

use super::{Kind, Located};
use crate::chunk::container::{Container, Parts, measure};
use crate::chunk::core::Measure;
use crate::chunk::view::{Spacing, VecMut, VecRef};
use dagger_core::{Area, Axis, Band, Grid, Outside, Progression};
use std::marker::PhantomData;
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};
use std::sync::Arc;

/// Along what the elements of a line lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Along {
    /// The only axis.
    Axis,
    Row,
    Col,
    Diagonal,
}

/// Elements on a line.
#[doc(hidden)]
#[derive(Clone)]
pub struct Line {
    pub(super) grid: Result<Grid, Outside>,
    pub(super) along: Along,
}

/// Where an even line lies in memory.
struct Run {
    offset: isize,
    len: usize,
    stride: isize,
}

impl Line {
    /// The part of it that lies at these positions.
    fn at(&self, positions: Axis) -> Line {
        let zero = || Axis::Step(Progression::one(0));
        let inner = match self.along {
            Along::Axis => Grid::line(positions),
            Along::Row => Grid::plane(zero(), positions),
            Along::Col => Grid::plane(positions, zero()),
            Along::Diagonal => Grid::plane(positions.clone(), positions),
        };
        Line { grid: self.grid.clone().and_then(|grid| grid.sub(&inner)), along: self.along }
    }

    /// The coordinates of a position.
    pub(super) fn coordinates(grid: &Grid, along: Along, position: usize) -> [usize; 2] {
        let at = |axis: usize, position: usize| grid.axes()[axis].at(position).unwrap_or(usize::MAX);
        match along {
            Along::Axis => [at(0, position), 0],
            Along::Row => [at(0, 0), at(1, position)],
            Along::Col => [at(0, position), at(1, 0)],
            Along::Diagonal => [at(0, position), at(1, position)],
        }
    }

    fn run(&self, parts: &Parts, grid: &Grid) -> Run {
        let axes = grid.axes();
        let positions = match self.along {
            Along::Axis => 0..axes[0].len(),
            Along::Row => grid.columns(0),
            Along::Col => grid.rows(0),
            Along::Diagonal => 0..axes[0].len().min(axes[1].len()),
        };
        if positions.is_empty() {
            return Run { offset: 0, len: 0, stride: 1 };
        }
        let offset = |position| {
            let [row, col] = Self::coordinates(grid, self.along, position);
            row as isize * parts.strides[0] + col as isize * parts.strides[1]
        };
        let first = offset(positions.start);
        let stride = if positions.len() > 1 { offset(positions.start + 1) - first } else { 1 };
        Run { offset: first, len: positions.len(), stride }
    }
}

/// A line whose elements lie evenly.
#[doc(hidden)]
pub trait LineKind: Clone + Send + Sync + 'static {
    fn new(line: Line) -> Self;
    fn line(&self) -> &Line;
}

/// Elements side by side: arrive as `&[E]`.
#[derive(Clone)]
pub struct Contiguous(pub(super) Line);

/// Elements evenly spaced: arrive as [`VecRef`](crate::region::VecRef).
#[derive(Clone)]
pub struct Strided(pub(super) Line);

/// Listed elements: arrive as [`VecRef`](crate::region::VecRef), in the order of the list.
#[derive(Clone)]
pub struct Listed {
    grid: Result<Grid, Outside>,
    list: Arc<[[usize; 2]]>,
}

impl LineKind for Contiguous {
    fn new(mut line: Line) -> Self {
        // The type of a view does not say whether its rows have a step.
        let is_apart = |rows: &Axis| matches!(rows, Axis::Step(rows) if rows.step != 1 && rows.len > 1);
        if line.along == Along::Col && line.grid.as_ref().is_ok_and(|grid| is_apart(&grid.axes()[0])) {
            line.grid = Err(Outside::Unsupported("a column of rows with a step, as a slice"));
        }
        Contiguous(line)
    }
    fn line(&self) -> &Line {
        &self.0
    }
}

impl LineKind for Strided {
    fn new(line: Line) -> Self {
        Strided(line)
    }
    fn line(&self) -> &Line {
        &self.0
    }
}

// SAFETY: `run` gives the elements of the clipped grid; that they lie side by side is promised by `Linear` or
// `Matrix::Column`, whose methods make this kind, and checked: a kind could be brought to another container.
unsafe impl<T: Container> Kind<T> for Contiguous {
    type Ref<'a> = &'a [T::Elem];
    type Mut<'a> = &'a mut [T::Elem];
    type At = Located;
    const MEASURE: Option<Measure> = Some(measure::<T>);
    fn area(&self) -> Result<Area, Outside> {
        self.0.grid.clone().map(Area::Grid)
    }
    unsafe fn view<'a>(&'a self, at: &'a Located) -> &'a [T::Elem] {
        let (parts, grid) = at.grid();
        let run = self.0.run(parts, grid);
        assert_eq!(run.stride, 1, "a column that arrives as a slice lies side by side (`Matrix`)");
        // SAFETY: elements of the container (`raw_parts`), within its shape (clipped), and the caller's promise.
        unsafe { std::slice::from_raw_parts(parts.base.cast::<T::Elem>().offset(run.offset), run.len) }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> &'a mut [T::Elem] {
        let (parts, grid) = at.grid();
        let run = self.0.run(parts, grid);
        assert_eq!(run.stride, 1, "a column that arrives as a slice lies side by side (`Matrix`)");
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(parts.base.cast::<T::Elem>().offset(run.offset), run.len) }
    }
}

macro_rules! vec_view {
    ($View:ident, $at:ident, $run:expr) => {{
        let (parts, grid) = $at.grid();
        let run: Run = $run(parts, grid);
        // SAFETY: the first element lies within the shape, to which the grid was clipped.
        let first = unsafe { parts.base.cast::<T::Elem>().offset(run.offset) };
        $View { first, len: run.len, spacing: Spacing::Even(run.stride), life: PhantomData }
    }};
}

// SAFETY: `run` gives the elements of the clipped grid, each once.
unsafe impl<T: Container> Kind<T> for Strided {
    type Ref<'a> = VecRef<'a, T::Elem>;
    type Mut<'a> = VecMut<'a, T::Elem>;
    type At = Located;
    const MEASURE: Option<Measure> = Some(measure::<T>);
    fn area(&self) -> Result<Area, Outside> {
        self.0.grid.clone().map(Area::Grid)
    }
    unsafe fn view<'a>(&'a self, at: &'a Located) -> VecRef<'a, T::Elem> {
        vec_view!(VecRef, at, |parts, grid| self.0.run(parts, grid))
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> VecMut<'a, T::Elem> {
        vec_view!(VecMut, at, |parts, grid| self.0.run(parts, grid))
    }
}

// SAFETY: the list holds the elements of the grid, and for writing none twice (`twice`).
unsafe impl<T: Container> Kind<T> for Listed {
    type Ref<'a> = VecRef<'a, T::Elem>;
    type Mut<'a> = VecMut<'a, T::Elem>;
    type At = Located;
    const MEASURE: Option<Measure> = Some(measure::<T>);
    fn area(&self) -> Result<Area, Outside> {
        self.grid.clone().map(Area::Grid)
    }
    fn twice(&self) -> Option<usize> {
        let mut sorted = self.list.to_vec();
        sorted.sort_unstable();
        sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0][0])
    }
    unsafe fn view<'a>(&'a self, at: &'a Located) -> VecRef<'a, T::Elem> {
        let (parts, _) = at.grid();
        let spacing = Spacing::Listed(&self.list, [parts.strides[0], parts.strides[1]]);
        VecRef { first: parts.base.cast(), len: self.list.len(), spacing, life: PhantomData }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> VecMut<'a, T::Elem> {
        let (parts, _) = at.grid();
        let spacing = Spacing::Listed(&self.list, [parts.strides[0], parts.strides[1]]);
        VecMut { first: parts.base.cast(), len: self.list.len(), spacing, life: PhantomData }
    }
}

/// Which positions of an axis: `a..b`, `a..=b`, `a..`, `..b`, `..`, or every k-th of them, [`step`].
pub trait Ranges: Sized {
    #[doc(hidden)]
    fn progression(self) -> Result<Progression, Outside>;
}

/// Which positions of a line: a range, a [`step`], or an [`index`] list.
pub trait Positions: Sized {
    /// What part of such a line it makes.
    #[doc(hidden)]
    type Of<K: LineKind>: Clone;
    #[doc(hidden)]
    fn of<K: LineKind>(self, line: &K) -> Self::Of<K>;
    #[doc(hidden)]
    fn of_list(self, list: &Listed) -> Listed;
}

macro_rules! ranges {
    ($($Range:ty)*) => {$(
        impl Ranges for $Range {
            fn progression(self) -> Result<Progression, Outside> {
                Progression::from_bounds(self)
            }
        }
        impl Positions for $Range {
            type Of<K: LineKind> = K;
            fn of<K: LineKind>(self, kind: &K) -> K {
                K::new(even(kind.line(), self.progression()))
            }
            fn of_list(self, list: &Listed) -> Listed {
                list.even(self.progression())
            }
        }
    )*};
}
ranges!(Range<usize> RangeInclusive<usize> RangeFrom<usize> RangeTo<usize> RangeToInclusive<usize> RangeFull);

fn even(line: &Line, positions: Result<Progression, Outside>) -> Line {
    match positions {
        Ok(positions) => line.at(Axis::Step(positions)),
        Err(outside) => Line { grid: Err(outside), along: line.along },
    }
}

impl Listed {
    fn even(&self, positions: Result<Progression, Outside>) -> Listed {
        let picked = positions.and_then(|positions| positions.clip(self.list.len()));
        match picked {
            Ok(picked) => self.pick((0..picked.len).filter_map(|nth| picked.at(nth))),
            Err(outside) => Listed { grid: Err(outside), list: self.list.clone() },
        }
    }

    fn pick(&self, positions: impl Iterator<Item = usize>) -> Listed {
        let list: Arc<[[usize; 2]]> = positions.map(|position| self.list[position]).collect();
        let grid = self.grid.clone().and_then(|grid| listed_grid(&list, &grid));
        Listed { grid, list }
    }
}

/// The grid of listed elements of a line, which is one axis, a row, a column or a diagonal.
fn listed_grid(list: &[[usize; 2]], line: &Grid) -> Result<Grid, Outside> {
    let axis = |which: usize| Axis::list(list.iter().map(|at| at[which]));
    Ok(match (line.rank(), line.bands()) {
        (1, _) => Grid::line(axis(0)),
        (_, []) => Grid::plane(axis(0), axis(1)),
        // On a diagonal both lists have the same length, and their positions agree.
        _ => Grid::plane_band(axis(0), axis(1), Band::diagonal(0)),
    })
}

/// Every `by`-th position of a range: see [`step`].
#[derive(Clone, Debug)]
pub struct Step<R> {
    range: R,
    by: usize,
}

/// Every `by`-th position of a range, beginning with its first: `c.slice(step(0..10, 3))` is 0, 3, 6 and 9.
///
/// A step of zero is [`Error::OutOfBounds`](crate::Error::OutOfBounds).
pub fn step<R: Ranges>(range: R, by: usize) -> Step<R> {
    Step { range, by }
}

impl<R: Ranges> Ranges for Step<R> {
    fn progression(self) -> Result<Progression, Outside> {
        self.range.progression()?.step_by(self.by)
    }
}

impl<R: Ranges> Positions for Step<R> {
    type Of<K: LineKind> = Strided;
    fn of<K: LineKind>(self, kind: &K) -> Strided {
        Strided(even(kind.line(), self.progression()))
    }
    fn of_list(self, list: &Listed) -> Listed {
        list.even(self.progression())
    }
}

/// Listed positions: see [`index`].
#[derive(Clone, Debug)]
pub struct IndexList(Arc<[usize]>);

/// Listed positions, in the order in which they arrive: `c.slice(index([5, 1, 3]))`.
///
/// A position that is listed twice may be read, but writing it is [`Error::Aliased`](crate::Error::Aliased).
pub fn index(positions: impl IntoIterator<Item = usize>) -> IndexList {
    IndexList(positions.into_iter().collect())
}

impl Positions for IndexList {
    type Of<K: LineKind> = Listed;
    fn of<K: LineKind>(self, kind: &K) -> Listed {
        let line = kind.line();
        let grid = line.at(Axis::list(self.0.iter().copied())).grid;
        // The coordinates are those of the line around it; where that is an error, there are none.
        let list = match (&line.grid, &grid) {
            (Ok(around), Ok(_)) => {
                self.0.iter().map(|&at| Line::coordinates(around, line.along, at)).collect()
            }
            _ => Arc::default(),
        };
        Listed { grid, list }
    }
    fn of_list(self, list: &Listed) -> Listed {
        match self.0.iter().find(|&&at| at >= list.list.len()) {
            Some(&outside) => {
                let clipped = Progression::one(outside).clip(list.list.len());
                let grid = list.grid.clone().and_then(|grid| clipped.map(|_| grid));
                Listed { grid, list: list.list.clone() }
            }
            None => list.pick(self.0.iter().copied()),
        }
    }
}
