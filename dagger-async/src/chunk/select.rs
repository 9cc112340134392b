//! What an access is declared on: the region methods, and which view each kind of region arrives as.
//!
//! ```text
//!   Vec, [E; N]     slice(a..b) ─▶ &[E]     slice(step(..)), slice(index(..)) ─▶ VecRef
//!   matrices        view ─▶ MatRef     row, col, diag ─▶ VecRef (a column of a tile: &[E])     lower, upper, band ─▶ TriRef
//!   structs         field(field!(T, a.b)) ─▶ &F
//!   anything        the chunk itself ─▶ &T     region(r) ─▶ what `r` says
//! ```
//! 1. A kind carries the region as the user wrote it; a length that is not known yet is open (`TO_END`).
//! 2. What cannot be (a part outside the part around it) is kept as an error and reported by the task.
//! 3. Views are made from the region as it is clipped to the shape at the grant, never from what was written.

use super::Chunk;
use super::container::{Container, Linear, Matrix, Parts, measure};
use super::core::Measure;
use super::view::{MatMut, MatRef, Spacing, TriMut, TriRef, VecMut, VecRef};
use crate::task::DTask;
use dagger_core::{Area, Axis, Band, Grid, Outside, Progression, Region};
use std::marker::PhantomData;
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};
use std::sync::Arc;

/// A region of a chunk, or of a task's result: what [`In`](crate::In), [`Out`](crate::Out) and [`InOut`](crate::InOut)
/// are given.
pub struct Part<'c, S, K> {
    pub(crate) source: &'c S,
    pub(crate) kind: K,
}

impl<S, K: Clone> Clone for Part<'_, S, K> {
    fn clone(&self) -> Self {
        Part { source: self.source, kind: self.kind.clone() }
    }
}

/// A kind of region: what the queue is told, and what the callee gets.
///
/// # Safety
/// The views cover elements of `area` only, and `view_mut` each of them once.
#[doc(hidden)]
pub unsafe trait Kind<T: 'static>: Clone + Send + Sync + 'static {
    /// To read.
    type Ref<'a>;
    /// To write.
    type Mut<'a>;
    /// How to find the elements, for kinds that have some.
    const MEASURE: Option<Measure>;

    /// The region, as far as it is known without the length.
    fn area(&self) -> Result<Area, Outside>;
    /// An element that is listed twice, which is no way to write it.
    fn twice(&self) -> Option<usize> {
        None
    }
    /// # Safety
    /// `at` was located for this kind in a chunk whose elements of this region nobody writes for `'a`.
    unsafe fn view<'a>(&'a self, at: &'a Located) -> Self::Ref<'a>;
    /// # Safety
    /// `at` was located for this kind in a chunk whose elements of this region nobody else accesses for `'a`.
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> Self::Mut<'a>;
}

/// Where a granted region lies.
#[doc(hidden)]
pub struct Located {
    pub(crate) value: *mut u8,
    /// For kinds with elements: where they lie, and the region clipped to their shape.
    pub(crate) elements: Option<(Parts, Grid)>,
}

// SAFETY: addresses; what is made of them is `Send + Sync` by the bounds of the views.
unsafe impl Send for Located {}
// SAFETY: as above.
unsafe impl Sync for Located {}

const LOCATED: &str = "a region of elements is located with its grid (`Core::locate`)";

impl Located {
    fn grid(&self) -> (&Parts, &Grid) {
        let (parts, grid) = self.elements.as_ref().expect(LOCATED);
        (parts, grid)
    }
}

// The whole.

/// The whole chunk: arrives as `&T`.
#[derive(Clone, Copy, Debug)]
pub struct Whole;

// SAFETY: the whole value, as its area says.
unsafe impl<T: 'static> Kind<T> for Whole {
    type Ref<'a> = &'a T;
    type Mut<'a> = &'a mut T;
    const MEASURE: Option<Measure> = None;
    fn area(&self) -> Result<Area, Outside> {
        Ok(Area::Whole)
    }
    unsafe fn view<'a>(&'a self, at: &'a Located) -> &'a T {
        // SAFETY: there is a value (checked when it was located), and the caller's promise.
        unsafe { &*at.value.cast::<T>() }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> &'a mut T {
        // SAFETY: as above.
        unsafe { &mut *at.value.cast::<T>() }
    }
}

// Lines.

/// Along what the elements of a line lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Along {
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
    grid: Result<Grid, Outside>,
    along: Along,
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
    fn coordinates(grid: &Grid, along: Along, position: usize) -> [usize; 2] {
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
pub struct Contiguous(Line);

/// Elements evenly spaced: arrive as [`VecRef`].
#[derive(Clone)]
pub struct Strided(Line);

/// Listed elements: arrive as [`VecRef`], in the order of the list.
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

// Matrices.

/// Rows × columns of a matrix: arrives as [`MatRef`].
#[derive(Clone)]
pub struct Block(Result<Grid, Outside>);

/// A triangle of a matrix with its diagonal: arrives as [`TriRef`].
#[derive(Clone)]
pub struct Triangle {
    band: Banded,
    strict: Band,
}

/// A band of a matrix, a triangle without its diagonal, or a part of one: arrives as [`TriRef`].
#[derive(Clone)]
pub struct Banded {
    grid: Result<Grid, Outside>,
    unit: bool,
}

impl Block {
    fn all() -> Self {
        let all = || Axis::Step(Progression::all());
        Block(Ok(Grid::plane(all(), all())))
    }
    fn sub(
        &self,
        rows: Result<Progression, Outside>,
        cols: Result<Progression, Outside>,
    ) -> Result<Grid, Outside> {
        sub(&self.0, rows, cols)
    }
    fn banded(&self, band: Band) -> Result<Grid, Outside> {
        banded(&self.0, band)
    }
}

fn banded(grid: &Result<Grid, Outside>, band: Band) -> Result<Grid, Outside> {
    grid.as_ref().map_err(Clone::clone)?.sub(&Grid::plane_band(Axis::all(), Axis::all(), band))
}

fn sub(
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

// Fields, and what users add.

/// A field of a struct, as [`field!`](crate::field) names it.
pub struct FieldOf<T, F> {
    offset: usize,
    types: PhantomData<fn(T) -> F>,
}

impl<T, F> Clone for FieldOf<T, F> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, F> Copy for FieldOf<T, F> {}

impl<T, F> FieldOf<T, F> {
    /// What `field!` expands to.
    ///
    /// `_field` gives a raw pointer, so that nothing but the type of the field itself fits: a reference to a `Box<F>` would
    /// be taken for one to its `F`.
    ///
    /// # Safety
    /// A valid `T` has a valid, aligned `F` at this offset.
    #[doc(hidden)]
    pub const unsafe fn at(offset: usize, _field: fn(&T) -> *const F) -> Self {
        FieldOf { offset, types: PhantomData }
    }
}

/// A field of the struct in a chunk: arrives as `&F`.
pub struct Field<F> {
    offset: usize,
    types: PhantomData<fn() -> F>,
}

impl<F> Clone for Field<F> {
    fn clone(&self) -> Self {
        Field { offset: self.offset, types: PhantomData }
    }
}

// SAFETY: the bytes of the field (`FieldOf::at`).
unsafe impl<T: 'static, F: Send + Sync + 'static> Kind<T> for Field<F> {
    type Ref<'a> = &'a F;
    type Mut<'a> = &'a mut F;
    const MEASURE: Option<Measure> = None;
    fn area(&self) -> Result<Area, Outside> {
        Ok(Area::Bytes(self.offset..self.offset + size_of::<F>()))
    }
    unsafe fn view<'a>(&'a self, at: &'a Located) -> &'a F {
        // SAFETY: `FieldOf::at`, composed with offsets of fields of fields; the caller's promise.
        unsafe { &*at.value.add(self.offset).cast::<F>() }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> &'a mut F {
        // SAFETY: as above.
        unsafe { &mut *at.value.add(self.offset).cast::<F>() }
    }
}

/// A kind of region that a user adds to the built-in ones: what a callee gets for it. Its overlap test is [`Region`].
///
/// # Safety
/// `view` and `view_mut` reach only what the region says, without a reference to the rest of the value: two regions
/// that do not overlap are accessed at once.
pub unsafe trait View<T>: Region {
    /// What an `In` hands to the callee.
    type Ref<'a>;
    /// What an `Out` or `InOut` hands to the callee.
    type Mut<'a>;
    /// The region of this value, to read.
    ///
    /// # Safety
    /// `value` points to a valid `T`; nobody writes this region of it for `'a`.
    unsafe fn view<'a>(&'a self, value: *const T) -> Self::Ref<'a>;
    /// The region of this value, to write.
    ///
    /// # Safety
    /// `value` points to a valid `T`; nobody else accesses this region of it for `'a`.
    unsafe fn view_mut<'a>(&'a self, value: *mut T) -> Self::Mut<'a>;
}

/// A region of a user's own kind.
pub struct Custom<R>(Arc<R>);

impl<R> Clone for Custom<R> {
    fn clone(&self) -> Self {
        Custom(self.0.clone())
    }
}

// SAFETY: the promise of `View`.
unsafe impl<T: 'static, R: View<T>> Kind<T> for Custom<R> {
    type Ref<'a> = R::Ref<'a>;
    type Mut<'a> = R::Mut<'a>;
    const MEASURE: Option<Measure> = None;
    fn area(&self) -> Result<Area, Outside> {
        Ok(Area::Custom(self.0.clone()))
    }
    unsafe fn view<'a>(&'a self, at: &'a Located) -> R::Ref<'a> {
        // SAFETY: the caller's promise.
        unsafe { self.0.view(at.value.cast::<T>()) }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> R::Mut<'a> {
        // SAFETY: the caller's promise.
        unsafe { self.0.view_mut(at.value.cast::<T>()) }
    }
}

// The methods.

/// What has regions: a chunk, or the handle of a task.
#[doc(hidden)]
pub trait Source {
    type Content: 'static;
}

impl<T: Send + Sync + 'static> Source for Chunk<T> {
    type Content = T;
}

impl<T: Send + Sync + 'static> Source for DTask<T> {
    type Content = T;
}

/// A kind whose positions do not count from its own first element: it has no parts of its own.
#[derive(Clone)]
pub struct Cut<K>(K);

// SAFETY: as its inner kind.
unsafe impl<T: 'static, K: Kind<T>> Kind<T> for Cut<K> {
    type Ref<'a> = K::Ref<'a>;
    type Mut<'a> = K::Mut<'a>;
    const MEASURE: Option<Measure> = K::MEASURE;
    fn area(&self) -> Result<Area, Outside> {
        self.0.area()
    }
    unsafe fn view<'a>(&'a self, at: &'a Located) -> K::Ref<'a> {
        // SAFETY: the caller's promise.
        unsafe { self.0.view(at) }
    }
    unsafe fn view_mut<'a>(&'a self, at: &'a Located) -> K::Mut<'a> {
        // SAFETY: the caller's promise.
        unsafe { self.0.view_mut(at) }
    }
}

impl<'c, S: Source, K> Part<'c, S, K> {
    fn with<L>(&self, kind: L) -> Part<'c, S, L> {
        Part { source: self.source, kind }
    }
}

macro_rules! line_methods {
    ($($Kind:ident)*) => {$(
        impl<'c, S: Source<Content: Container>> Part<'c, S, $Kind> {
            /// Positions of this part.
            pub fn slice<P: Positions>(&self, positions: P) -> Part<'c, S, P::Of<$Kind>> {
                self.with(positions.of(&self.kind))
            }
        }
    )*};
}
line_methods!(Contiguous Strided);

impl<'c, S: Source<Content: Container>> Part<'c, S, Listed> {
    /// Positions of this list.
    pub fn slice(&self, positions: impl Positions) -> Part<'c, S, Listed> {
        self.with(positions.of_list(&self.kind))
    }
}

impl<'c, S: Source<Content: Matrix>> Part<'c, S, Triangle> {
    /// Without the diagonal.
    pub fn strict(&self) -> Part<'c, S, Banded> {
        self.with(Banded { grid: banded(&self.kind.band.grid, self.kind.strict), unit: false })
    }
    /// With a diagonal of ones that are not stored: the same elements as [`strict`](Self::strict), and the view says
    /// [`is_unit`](TriRef::is_unit).
    pub fn unit(&self) -> Part<'c, S, Banded> {
        self.with(Banded { unit: true, ..self.strict().kind })
    }
    fn band(&self) -> Part<'c, S, Banded> {
        self.with(self.kind.band.clone())
    }
    /// What of it lies in these rows and columns.
    pub fn view(&self, rows: impl Ranges, cols: impl Ranges) -> Part<'c, S, Banded> {
        self.band().view(rows, cols)
    }
    /// What of it lies in a row.
    pub fn row(&self, row: usize) -> Part<'c, S, Cut<Strided>> {
        self.band().row(row)
    }
    /// What of it lies in a column: of a tile as a slice.
    pub fn col(&self, col: usize) -> Part<'c, S, Cut<<S::Content as Matrix>::Column>> {
        self.band().col(col)
    }
}

impl<'c, S: Source<Content: Matrix>> Part<'c, S, Banded> {
    /// What of it lies in these rows and columns.
    pub fn view(&self, rows: impl Ranges, cols: impl Ranges) -> Part<'c, S, Banded> {
        let grid = sub(&self.kind.grid, rows.progression(), cols.progression());
        self.with(Banded { grid, unit: self.kind.unit })
    }
    /// What of it lies in a row.
    pub fn row(&self, row: usize) -> Part<'c, S, Cut<Strided>> {
        let grid = sub(&self.kind.grid, Ok(Progression::one(row)), Ok(Progression::all()));
        self.with(Cut(Strided(Line { grid, along: Along::Row })))
    }
    /// What of it lies in a column: of a tile as a slice.
    pub fn col(&self, col: usize) -> Part<'c, S, Cut<<S::Content as Matrix>::Column>> {
        let grid = sub(&self.kind.grid, Ok(Progression::all()), Ok(Progression::one(col)));
        self.with(Cut(LineKind::new(Line { grid, along: Along::Col })))
    }
}

macro_rules! matrix_methods {
    ($(<$borrow:lifetime>)? $life:lifetime, $Source:ty, $Content:ty, |$this:ident| $block:expr, $part:expr) => {
        /// These rows and columns: arrive as [`MatRef`] or [`MatMut`].
        pub fn view$(<$borrow>)?(&$($borrow)? self, rows: impl Ranges, cols: impl Ranges) -> Part<$life, $Source, Block> {
            let $this = self;
            $part(Block($block.sub(rows.progression(), cols.progression())))
        }
        /// One row: arrives as [`VecRef`] or [`VecMut`].
        pub fn row$(<$borrow>)?(&$($borrow)? self, row: usize) -> Part<$life, $Source, Strided> {
            let $this = self;
            let grid = $block.sub(Ok(Progression::one(row)), Ok(Progression::all()));
            $part(Strided(Line { grid, along: Along::Row }))
        }
        /// One column: of a tile as a slice, else as [`VecRef`] or [`VecMut`].
        pub fn col$(<$borrow>)?(&$($borrow)? self, col: usize) -> Part<$life, $Source, <$Content as Matrix>::Column> {
            let $this = self;
            let grid = $block.sub(Ok(Progression::all()), Ok(Progression::one(col)));
            $part(LineKind::new(Line { grid, along: Along::Col }))
        }
        /// The diagonal: arrives as [`VecRef`] or [`VecMut`].
        pub fn diag$(<$borrow>)?(&$($borrow)? self) -> Part<$life, $Source, Strided> {
            let $this = self;
            $part(Strided(Line { grid: $block.banded(Band::diagonal(0)), along: Along::Diagonal }))
        }
        /// The diagonal and `k` more on each side: arrives as [`TriRef`] or [`TriMut`].
        pub fn band$(<$borrow>)?(&$($borrow)? self, k: usize) -> Part<$life, $Source, Banded> {
            let $this = self;
            let k = i64::try_from(k).unwrap_or(i64::MAX - 1);
            $part(Banded { grid: $block.banded(Band::diagonals(-k, k)), unit: false })
        }
        /// The lower triangle, with the diagonal: arrives as [`TriRef`] or [`TriMut`].
        pub fn lower$(<$borrow>)?(&$($borrow)? self) -> Part<$life, $Source, Triangle> {
            let $this = self;
            let band = Banded { grid: $block.banded(Band::lower()), unit: false };
            $part(Triangle { band, strict: Band::strict_lower() })
        }
        /// The upper triangle, with the diagonal: arrives as [`TriRef`] or [`TriMut`].
        pub fn upper$(<$borrow>)?(&$($borrow)? self) -> Part<$life, $Source, Triangle> {
            let $this = self;
            let band = Banded { grid: $block.banded(Band::upper()), unit: false };
            $part(Triangle { band, strict: Band::strict_upper() })
        }
    };
}

impl<'c, S: Source<Content: Matrix>> Part<'c, S, Block> {
    matrix_methods!('c, S, S::Content, |this| this.kind, |kind| Part { source: this.source, kind });
}

macro_rules! source_methods {
    ($($Source:ident)*) => {$(
        impl<T: Linear + Send + Sync> $Source<T> {
            /// Positions `a..b`, every k-th of them ([`step`]), or listed ones ([`index`]). A range arrives as a slice, the
            /// others as [`VecRef`] or [`VecMut`].
            pub fn slice<P: Positions>(&self, positions: P) -> Part<'_, Self, P::Of<Contiguous>> {
                let all = Contiguous(Line { grid: Ok(Grid::line(Axis::all())), along: Along::Axis });
                Part { source: self, kind: positions.of(&all) }
            }
        }

        impl<T: Matrix + Send + Sync> $Source<T> {
            matrix_methods!(<'a> 'a, Self, T, |this| Block::all(), |kind| Part { source: this, kind });
        }

        impl<T: Send + Sync + 'static> $Source<T> {
            /// A field of the struct that it holds: `c.field(field!(Body, position.x))`. Arrives as a reference to it.
            pub fn field<F: Send + Sync + 'static>(&self, field: FieldOf<T, F>) -> Part<'_, Self, Field<F>> {
                Part { source: self, kind: Field { offset: field.offset, types: PhantomData } }
            }

            /// A region of a kind of your own.
            pub fn region<R: View<T>>(&self, region: R) -> Part<'_, Self, Custom<R>> {
                Part { source: self, kind: Custom(Arc::new(region)) }
            }
        }
    )*};
}
source_methods!(Chunk DTask);

impl<'c, S: Source, F: Send + Sync + 'static> Part<'c, S, Field<F>> {
    /// A field of this field.
    pub fn field<G: Send + Sync + 'static>(&self, field: FieldOf<F, G>) -> Part<'c, S, Field<G>> {
        self.with(Field { offset: self.kind.offset + field.offset, types: PhantomData })
    }
}

/// A field of a struct, for [`Chunk::field`]: `field!(Body, position.x)`. Packed structs are refused by the compiler, and
/// unions, whose fields only `unsafe` code may read.
#[macro_export]
macro_rules! field {
    ($Type:ty, $($field:tt).+) => {{
        // What the user wrote stands outside the `unsafe` block.
        let offset = ::core::mem::offset_of!($Type, $($field).+);
        let field = |of: &$Type| {
            // A reference does not compile for packed structs.
            let _ = &of.$($field).+;
            &raw const of.$($field).+
        };
        // SAFETY: `offset_of!` is the place of this very field, and the function has its type.
        unsafe { $crate::region::FieldOf::<$Type, _>::at(offset, field) }
    }};
}
