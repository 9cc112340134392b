//! Rows × columns of a matrix, and what bands leave of them.

use super::line::{Along, Line};
use super::{Kind, Located};
use crate::chunk::container::{Container, Parts, measure};
use crate::chunk::core::Measure;
use crate::chunk::view::{MatMut, MatRef, TriMut, TriRef};
use dagger_core::{Area, Axis, Band, Grid, Outside, Progression};
use std::marker::PhantomData;

/// Rows × columns of a matrix: arrives as [`MatRef`](crate::region::MatRef).
#[derive(Clone)]
pub struct Block(pub(super) Result<Grid, Outside>);

/// A triangle of a matrix with its diagonal: arrives as [`TriRef`](crate::region::TriRef).
#[derive(Clone)]
pub struct Triangle {
    pub(super) band: Banded,
    pub(super) strict: Band,
}

/// A band of a matrix, a triangle without its diagonal, or a part of one: arrives as [`TriRef`](crate::region::TriRef).
#[derive(Clone)]
pub struct Banded {
    pub(super) grid: Result<Grid, Outside>,
    pub(super) unit: bool,
}

impl Block {
    pub(super) fn all() -> Self {
        let all = || Axis::Step(Progression::all());
        Block(Ok(Grid::plane(all(), all())))
    }
    pub(super) fn sub(
        &self,
        rows: Result<Progression, Outside>,
        cols: Result<Progression, Outside>,
    ) -> Result<Grid, Outside> {
        sub(&self.0, rows, cols)
    }
    pub(super) fn banded(&self, band: Band) -> Result<Grid, Outside> {
        banded(&self.0, band)
    }
}

pub(super) fn banded(grid: &Result<Grid, Outside>, band: Band) -> Result<Grid, Outside> {
    grid.as_ref().map_err(Clone::clone)?.sub(&Grid::plane_band(Axis::all(), Axis::all(), band))
}

pub(super) fn sub(
    grid: &Result<Grid, Outside>,
    rows: Result<Progression, Outside>,
    cols: Result<Progression, Outside>,
) -> Result<Grid, Outside> {
    grid.clone()?.sub(&Grid::plane(Axis::Step(rows?), Axis::Step(cols?)))
}

/// The corner of a clipped block in memory, its size and strides.
fn corner(parts: &Parts, grid: &Grid) -> (isize, [usize; 2], [isize; 2]) {
    let axes = grid.axes();
    let sizes = [axes[0].len(), axes[1].len()];
    if sizes.contains(&0) {
        return (0, sizes, [1, 1]);
    }
    let stride = |axis: usize| match &axes[axis] {
        // The step of a single element may be anything, and is not used.
        Axis::Step(progression) => (progression.step as isize).wrapping_mul(parts.strides[axis]),
        Axis::List(_) => parts.strides[axis], // Of one element: lists make lines only.
    };
    let [row, col] = Line::coordinates(grid, Along::Diagonal, 0);
    let offset = row as isize * parts.strides[0] + col as isize * parts.strides[1];
    (offset, sizes, [stride(0), stride(1)])
}

macro_rules! mat_view {
    ($View:ident, $at:ident $(, $unit:expr)?) => {{
        let (parts, grid) = $at.grid();
        let (offset, [rows, cols], strides) = corner(parts, grid);
        // SAFETY: the corner lies within the shape, to which the grid was clipped.
        let first = unsafe { parts.base.cast::<T::Elem>().offset(offset) };
        $View { first, rows, cols, strides, $(grid, unit: $unit,)? life: PhantomData }
    }};
}

// SAFETY: the elements of the clipped grid, each once.
unsafe impl<T: Container> Kind<T> for Block {
    type Ref<'a> = MatRef<'a, T::Elem>;
    type Mut<'a> = MatMut<'a, T::Elem>;
    type At = Located;
    const MEASURE: Option<Measure> = Some(measure::<T>);
    fn area(&self) -> Result<Area, Outside> {
        self.0.clone().map(Area::Grid)
    }
    unsafe fn view<'a>(&'a self, at: &'a Located) -> MatRef<'a, T::Elem> {
        mat_view!(MatRef, at)
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> MatMut<'a, T::Elem> {
        mat_view!(MatMut, at)
    }
}

// SAFETY: the elements of the clipped grid that its bands leave, each once.
unsafe impl<T: Container> Kind<T> for Banded {
    type Ref<'a> = TriRef<'a, T::Elem>;
    type Mut<'a> = TriMut<'a, T::Elem>;
    type At = Located;
    const MEASURE: Option<Measure> = Some(measure::<T>);
    fn area(&self) -> Result<Area, Outside> {
        self.grid.clone().map(Area::Grid)
    }
    unsafe fn view<'a>(&'a self, at: &'a Located) -> TriRef<'a, T::Elem> {
        mat_view!(TriRef, at, self.unit)
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> TriMut<'a, T::Elem> {
        mat_view!(TriMut, at, self.unit)
    }
}

// SAFETY: as its band.
unsafe impl<T: Container> Kind<T> for Triangle {
    type Ref<'a> = TriRef<'a, T::Elem>;
    type Mut<'a> = TriMut<'a, T::Elem>;
    type At = Located;
    const MEASURE: Option<Measure> = Some(measure::<T>);
    fn area(&self) -> Result<Area, Outside> {
        <Banded as Kind<T>>::area(&self.band)
    }
    unsafe fn view<'a>(&'a self, at: &'a Located) -> TriRef<'a, T::Elem> {
        // SAFETY: the caller's promise.
        unsafe { <Banded as Kind<T>>::view(&self.band, at) }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> TriMut<'a, T::Elem> {
        // SAFETY: the caller's promise.
        unsafe { <Banded as Kind<T>>::view_mut(&self.band, at) }
    }
}
