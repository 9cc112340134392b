//! Each view reads and writes exactly its elements: random containers and compositions of regions, against coordinates.
//!
//! ```text
//!   container ─▶ region ─▶ region of it ─▶ ...      the oracle applies each step to a list of coordinates
//!   a task reads through the view    == the values at those coordinates, by get, index, for_each, len alike
//!   a task writes through the view   == those coordinates changed, and nothing else
//! ```
//! What the oracle calls outside is `OutOfBounds`, or (a range that begins a little behind an open end) empty.

use dagger_async::prelude::*;
use dagger_async::region::*;
use ndarray::{Array2, Axis, ShapeBuilder};
use proptest::prelude::*;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Once, OnceLock};

fn rt() -> &'static Runtime {
    static RT: OnceLock<Runtime> = OnceLock::new();
    RT.get_or_init(|| Runtime::builder().threads(2).build().unwrap())
}

// What views show, seen in every way that they offer.

/// The elements of a view in their order, after asking for each of them in every way.
trait Look {
    fn look(&self) -> Vec<i64>;
}

/// Adds 1000 to each element, in one of several ways.
trait Bump {
    fn bump(&mut self, way: usize);
}

fn panics(f: impl FnOnce()) -> bool {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            let expected = panic.payload().downcast_ref::<String>();
            if !expected.is_some_and(|text| text.contains("is not an element of")) {
                before(panic);
            }
        }));
    });
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

impl Look for &[i64] {
    fn look(&self) -> Vec<i64> {
        self.to_vec()
    }
}
impl Look for &mut [i64] {
    fn look(&self) -> Vec<i64> {
        self.to_vec()
    }
}
impl Bump for &mut [i64] {
    fn bump(&mut self, _: usize) {
        self.iter_mut().for_each(|x| *x += 1000);
    }
}

macro_rules! look {
    ($($Vec:ident $Mat:ident $Tri:ident)*) => {$(
        impl Look for $Vec<'_, i64> {
            fn look(&self) -> Vec<i64> {
                let mut all = Vec::new();
                self.for_each(|x| all.push(*x));
                assert_eq!((self.len(), self.is_empty()), (all.len(), all.is_empty()));
                for (i, x) in all.iter().enumerate() {
                    assert_eq!((self.get(i), &self[i]), (Some(x), x));
                }
                assert_eq!((self.get(all.len()), self.get(usize::MAX)), (None, None));
                assert!(panics(|| _ = self[all.len()]));
                all
            }
        }
        impl Look for $Mat<'_, i64> {
            fn look(&self) -> Vec<i64> {
                let mut all = Vec::new();
                self.for_each(|x| all.push(*x));
                let (rows, cols) = (self.rows(), self.cols());
                assert_eq!(rows * cols, all.len());
                for j in 0..cols {
                    for i in 0..rows {
                        let x = &all[j * rows + i];
                        assert_eq!((self.get(i, j), &self[(i, j)]), (Some(x), x));
                    }
                    assert_eq!((self.get(rows, j), self.get(usize::MAX, j)), (None, None));
                }
                assert_eq!((self.get(0, cols), self.get(rows, cols)), (None, None));
                assert!(panics(|| _ = self[(rows, 0)]) && panics(|| _ = self[(0, cols)]));
                all
            }
        }
        impl Look for $Tri<'_, i64> {
            fn look(&self) -> Vec<i64> {
                let mut all = Vec::new();
                self.for_each(|x| all.push(*x));
                assert_eq!((self.len(), self.is_empty()), (all.len(), all.is_empty()));
                let mut next = all.iter();
                for j in 0..self.cols() + 2 {
                    let own = self.col_range(j);
                    for i in 0..self.rows() + 2 {
                        let x = if own.contains(&i) { next.next() } else { None };
                        assert_eq!(self.get(i, j), x);
                        match x {
                            Some(x) => assert_eq!(&self[(i, j)], x),
                            None if (i + j) % 3 == 0 => assert!(panics(|| _ = self[(i, j)])),
                            None => {}
                        }
                    }
                }
                assert_eq!(next.next(), None);
                all
            }
        }
    )*};
}
look!(VecRef MatRef TriRef VecMut MatMut TriMut);

impl Bump for VecMut<'_, i64> {
    fn bump(&mut self, way: usize) {
        let len = self.len();
        match way % 3 {
            0 => self.for_each_mut(|x| *x += 1000),
            1 => (0..len).for_each(|i| self[i] += 1000),
            _ => (0..len).for_each(|i| *self.get_mut(i).unwrap() += 1000),
        }
        assert!(self.get_mut(len).is_none() && panics(|| self[len] = 0));
    }
}
impl Bump for MatMut<'_, i64> {
    fn bump(&mut self, way: usize) {
        let (rows, cols) = (self.rows(), self.cols());
        match way % 3 {
            0 => self.for_each_mut(|x| *x += 1000),
            1 => (0..rows).for_each(|i| (0..cols).for_each(|j| self[(i, j)] += 1000)),
            _ => (0..rows).for_each(|i| (0..cols).for_each(|j| *self.get_mut(i, j).unwrap() += 1000)),
        }
        assert!(self.get_mut(rows, 0).is_none() && panics(|| self[(0, cols)] = 0));
    }
}
impl Bump for TriMut<'_, i64> {
    fn bump(&mut self, way: usize) {
        for j in 0..self.cols() {
            match way % 3 {
                0 => break,
                1 => self.col_range(j).for_each(|i| self[(i, j)] += 1000),
                _ => (0..self.rows()).for_each(|i| {
                    if let Some(x) = self.get_mut(i, j) {
                        *x += 1000;
                    }
                }),
            }
        }
        if way.is_multiple_of(3) {
            self.for_each_mut(|x| *x += 1000);
        }
        let end = self.rows();
        assert!(panics(|| self[(end, 0)] = 0));
    }
}

// Accesses.

/// What one region gave.
type Seen = Result<Vec<i64>, Error>;

/// How a region is accessed: by a task or a guard, and whether the length is known when it is declared.
#[derive(Clone, Copy, Debug)]
struct How {
    guard: bool,
    unknown: bool,
    way: usize,
}

fn look<V: Look>(v: &V) -> Vec<i64> {
    v.look()
}

fn change<V: Look + Bump>(v: &mut V, way: usize) -> Vec<i64> {
    let seen = v.look();
    v.bump(way);
    seen
}

/// Declares accesses while a writer of the whole is, or is not, before them.
fn declared<T: Send + Sync + 'static, R>(chunk: &Chunk<T>, how: How, declare: impl FnOnce() -> R) -> R {
    let before = how.unknown.then(|| chunk.write());
    let declared = declare();
    drop(before);
    declared
}

/// A container of the tests: its values in the order of coordinates, which begin as 1, 8, 15, ...
trait Case: Container<Elem = i64> {
    fn values(&self) -> Vec<i64>;
}

fn start(len: usize) -> Vec<i64> {
    (0..len as i64).map(|i| 7 * i + 1).collect()
}

/// The elements that a region has, in the order of the view; `None`: some of them are outside.
type Own = Option<Vec<usize>>;

/// A region of a chunk in use.
struct Use<'c, T: 'static> {
    chunk: &'c Chunk<T>,
    how: How,
    /// What was done, for the report, and in how many steps.
    path: String,
    depth: usize,
    /// It may be refused: a column of rows with a step is no slice.
    may_refuse: bool,
}

impl<T: Case> Use<'_, T> {
    fn then(self, step: impl std::fmt::Debug) -> Self {
        Use { path: format!("{} {step:?}", self.path), depth: self.depth + 1, ..self }
    }

    /// Reads and writes the region and compares.
    fn check(self, own: Own, (seen, written): (Seen, Seen)) {
        let after = rt().block_on(async { self.chunk.read().await.unwrap().values() });
        let mut expected = start(after.len());
        let path = &self.path;
        match own {
            None => match (seen, written) {
                (Err(Error::OutOfBounds { .. }), Err(Error::OutOfBounds { .. } | Error::Aliased { .. })) => {}
                (Ok(seen), _) if seen.is_empty() => {}
                // A part that fits, of a part that would not: values say which elements they are.
                (Ok(seen), Ok(written)) if self.depth > 1 => {
                    assert_eq!(seen, written, "{path}");
                    seen.iter().for_each(|&value| expected[(value as usize - 1) / 7] += 1000);
                }
                (Ok(_), Err(Error::Aliased { .. })) if self.depth > 1 => {}
                other => panic!("outside, but {other:?}: {path}"),
            },
            Some(_) if self.may_refuse && seen.is_err() => {
                let outside = |gave: &Seen| matches!(gave, Err(Error::OutOfBounds { .. }));
                assert!(outside(&seen) && outside(&written), "{seen:?}, {written:?}: {path}");
            }
            Some(own) => {
                let values: Vec<i64> = own.iter().map(|&id| expected[id]).collect();
                assert_eq!(seen.as_ref().ok(), Some(&values), "{seen:?}: {path}");
                let mut once = own.clone();
                once.sort_unstable();
                once.dedup();
                if once.len() < own.len() {
                    assert!(matches!(written, Err(Error::Aliased { .. })), "{written:?}: {path}");
                } else {
                    assert_eq!(written.as_ref().ok(), Some(&values), "{written:?}: {path}");
                    own.iter().for_each(|&id| expected[id] += 1000);
                }
            }
        }
        assert_eq!(after, expected, "{path}");
    }
}

macro_rules! check {
    ($use:expr, $own:expr, $part:expr) => {{
        let (at, part) = ($use, $part);
        let (chunk, how) = (at.chunk, at.how);
        let (seen, written) = rt().block_on(async {
            if how.guard {
                let (read, write) = declared(chunk, how, || (part.read(), part.write()));
                let seen = read.await.map(|guard| look(&guard.get()));
                let written = write.await.map(|mut guard| {
                    assert_eq!(look(&guard.get()), look(&guard.get_mut()));
                    change(&mut guard.get_mut(), how.way)
                });
                (seen, written)
            } else {
                let (read, write) = declared(chunk, how, || {
                    let read = spawn!((|v| look(&v))(In(&part)));
                    (read, spawn!((move |mut v| change(&mut v, how.way))(InOut(&part))))
                });
                (read.await, write.await)
            }
        });
        at.check($own, (seen, written));
    }};
}

// Steps of a composition.

/// A step, in numbers that are fitted to what is there.
#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    by: usize,
    list: Vec<usize>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let number = 0..1000usize;
    let list = prop::collection::vec(0..1000usize, 0..6);
    let step = (0u8..64, number.clone(), number.clone(), number.clone(), number, 0..5usize, list)
        .prop_map(|(kind, a, b, c, d, by, list)| Step { kind, a, b, c, d, by, list });
    prop::collection::vec(step, 0..5)
}

fn config(cases: u32) -> ProptestConfig {
    let more = std::env::var("DAGGER_TESTS_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1u32);
    let cases = cases * more;
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn hows() -> impl Strategy<Value = How> {
    (any::<bool>(), any::<bool>(), 0..3usize).prop_map(|(guard, unknown, way)| How { guard, unknown, way })
}

/// A range as a user may write it.
#[derive(Clone, Copy, Debug)]
enum Span {
    Half(usize, usize),
    Closed(usize, usize),
    From(usize),
    To(usize),
    ToClosed(usize),
    All,
}

macro_rules! with_span {
    ($span:expr, |$range:ident| $body:expr) => {
        match $span {
            Span::Half(a, b) => {
                let $range = a..b;
                $body
            }
            Span::Closed(a, b) => {
                let $range = a..=b;
                $body
            }
            Span::From(a) => {
                let $range = a..;
                $body
            }
            Span::To(b) => {
                let $range = ..b;
                $body
            }
            Span::ToClosed(b) => {
                let $range = ..=b;
                $body
            }
            Span::All => {
                let $range = ..;
                $body
            }
        }
    };
}

impl Span {
    /// Mostly within `n`.
    fn fitted(a: usize, b: usize, n: usize) -> Span {
        let (mut lo, mut hi) = (a % (n + 1), b % (n + 1));
        if !a.is_multiple_of(13) && lo > hi {
            (lo, hi) = (hi, lo);
        }
        let hi = if b.is_multiple_of(17) { hi + 1 + n } else { hi };
        match a / 7 % 6 {
            1 if hi > 0 => Span::Closed(lo, hi - 1),
            2 => Span::From(if b.is_multiple_of(17) { n + 1 } else { lo }),
            3 => Span::To(hi),
            4 if hi > 0 => Span::ToClosed(hi - 1),
            5 => Span::All,
            _ => Span::Half(lo, hi),
        }
    }

    fn picks(self, by: usize, n: usize) -> Option<Vec<usize>> {
        let (lo, hi) = match self {
            Span::Half(a, b) => (a, b),
            Span::Closed(a, b) => (a, b + 1),
            Span::From(a) => (a, n),
            Span::To(b) => (0, b),
            Span::ToClosed(b) => (0, b + 1),
            Span::All => (0, n),
        };
        if by == 0 || lo > hi {
            return None;
        }
        // What a step leaves out may be outside.
        let picked: Vec<usize> = (lo..hi).step_by(by).collect();
        picked.last().map_or(lo, |last| last + 1).le(&n).then_some(picked)
    }
}

fn picked(own: &Own, positions: Option<Vec<usize>>) -> Own {
    let (own, positions) = (own.as_ref()?, positions?);
    positions.into_iter().map(|position| own.get(position).copied()).collect()
}

/// Two columns, rows, ... of which one is mostly there.
fn index_in(a: usize, n: usize) -> usize {
    if a.is_multiple_of(11) { a % (2 * n + 1) } else { a % n.max(1) }
}

fn len(own: &Own) -> usize {
    own.as_ref().map_or(3, Vec::len)
}

fn list_in(step: &Step, n: usize) -> Vec<usize> {
    let mut list: Vec<usize> = step.list.iter().map(|&at| index_in(at, n)).collect();
    if !step.a.is_multiple_of(3) {
        list.sort_unstable();
        list.dedup();
        if step.a.is_multiple_of(2) {
            list.reverse();
        }
    }
    list
}

fn in_list(list: &[usize], n: usize) -> Option<Vec<usize>> {
    list.iter().all(|&at| at < n).then(|| list.to_vec())
}

macro_rules! line {
    ($name:ident, $Kind:ty, $even:ident) => {
        fn $name<T: Case>(at: Use<'_, T>, part: Part<'_, Chunk<T>, $Kind>, own: Own, steps: &[Step]) {
            let Some((step, rest)) = steps.split_first() else { return check!(at, own, part) };
            let n = len(&own);
            let span = Span::fitted(step.a, step.b, n);
            match step.kind % 3 {
                0 => {
                    let own = picked(&own, span.picks(1, n));
                    let part = with_span!(span, |range| part.slice(range));
                    $name(at.then(span), part, own, rest)
                }
                1 => {
                    let own = picked(&own, span.picks(step.by, n));
                    let part =
                        with_span!(span, |range| part.slice(dagger_async::region::step(range, step.by)));
                    $even(at.then((span, step.by)), part, own, rest)
                }
                _ => {
                    let list = list_in(step, n);
                    let own = picked(&own, in_list(&list, n));
                    let part = part.slice(index(list.clone()));
                    listed(at.then(list), part, own, rest)
                }
            }
        }
    };
}
line!(contiguous, Contiguous, strided);
line!(strided, Strided, strided);
line!(listed, Listed, listed);

fn line<T: Case + Linear>(value: T, how: How, steps: &[Step]) {
    let n = value.values().len();
    let chunk = Chunk::new(value);
    let at = Use { chunk: &chunk, how, path: format!("{how:?} of {n}:"), depth: 0, may_refuse: false };
    let Some((step, rest)) = steps.split_first() else {
        return check!(at, Some((0..n).collect()), chunk.slice(..));
    };
    let all: Own = Some((0..n).collect());
    let span = Span::fitted(step.a, step.b, n);
    match step.kind % 3 {
        0 => {
            let own = picked(&all, span.picks(1, n));
            contiguous(at.then(span), with_span!(span, |range| chunk.slice(range)), own, rest)
        }
        1 => {
            let own = picked(&all, span.picks(step.by, n));
            let part = with_span!(span, |range| chunk.slice(dagger_async::region::step(range, step.by)));
            strided(at.then((span, step.by)), part, own, rest)
        }
        _ => {
            let list = list_in(step, n);
            let own = picked(&all, in_list(&list, n));
            listed(at.then(&list), chunk.slice(index(list.clone())), own, rest)
        }
    }
}

impl Case for Vec<i64> {
    fn values(&self) -> Vec<i64> {
        self.clone()
    }
}

impl<const N: usize> Case for [i64; N] {
    fn values(&self) -> Vec<i64> {
        self.to_vec()
    }
}

proptest! {
    #![proptest_config(config(600))]

    #[test]
    fn a_region_of_a_vec_has_exactly_its_elements(n in 0..12usize, how in hows(), steps in steps()) {
        line(start(n), how, &steps);
    }

    #[test]
    fn a_region_of_an_array_has_exactly_its_elements(how in hows(), steps in steps()) {
        let mut array = [0i64; 7];
        array.copy_from_slice(&start(7));
        line(array, how, &steps);
    }
}

// Matrices.

/// A matrix of the tests.
trait Grid: Case + Matrix {
    fn column(at: Use<'_, Self>, part: Part<'_, Chunk<Self>, Self::Column>, own: Own, steps: &[Step]);
    fn cut_column(at: Use<'_, Self>, part: Part<'_, Chunk<Self>, Cut<Self::Column>>, own: Own);
}

impl Case for Array2<i64> {
    fn values(&self) -> Vec<i64> {
        self.iter().copied().collect()
    }
}

impl Grid for Array2<i64> {
    fn column(at: Use<'_, Self>, part: Part<'_, Chunk<Self>, Strided>, own: Own, steps: &[Step]) {
        strided(at, part, own, steps);
    }
    fn cut_column(at: Use<'_, Self>, part: Part<'_, Chunk<Self>, Cut<Strided>>, own: Own) {
        check!(at, own, part);
    }
}

/// Column by column, with something between the columns that nobody may touch.
struct Columns {
    rows: usize,
    cols: usize,
    data: Vec<i64>,
}

const BETWEEN: i64 = -5;

impl Columns {
    fn new(rows: usize, cols: usize) -> Self {
        let values = start(rows * cols);
        let mut data = Vec::new();
        for j in 0..cols {
            data.extend((0..rows).map(|i| values[i * cols + j]));
            data.extend([BETWEEN; 2]);
        }
        Columns { rows, cols, data }
    }
}

// SAFETY: every index within the shape lies in `data`, and no reference to its elements is made.
unsafe impl Container for Columns {
    type Elem = i64;
    unsafe fn raw_parts(this: *const Self) -> RawParts<i64> {
        // SAFETY: nobody has it exclusively.
        let this = unsafe { &*this };
        let strides = [1, this.rows as isize + 2];
        RawParts::new(this.data.as_ptr().cast_mut(), &[this.rows, this.cols], &strides)
    }
    unsafe fn raw_parts_mut(this: *mut Self) -> RawParts<i64> {
        // SAFETY: nobody has a reference to it.
        let this = unsafe { &mut *this };
        let strides = [1, this.rows as isize + 2];
        RawParts::new(this.data.as_mut_ptr(), &[this.rows, this.cols], &strides)
    }
}

// SAFETY: two axes, and the rows of a column lie side by side.
unsafe impl Matrix for Columns {
    type Column = Contiguous;
}

impl Case for Columns {
    fn values(&self) -> Vec<i64> {
        let column = self.rows + 2;
        for j in 0..self.cols {
            assert_eq!(self.data[j * column + self.rows..][..2], [BETWEEN; 2]);
        }
        let at = |id: usize| self.data[id % self.cols * column + id / self.cols];
        (0..self.rows * self.cols).map(at).collect()
    }
}

impl Grid for Columns {
    fn column(at: Use<'_, Self>, part: Part<'_, Chunk<Self>, Contiguous>, own: Own, steps: &[Step]) {
        contiguous(Use { may_refuse: true, ..at }, part, own, steps);
    }
    fn cut_column(at: Use<'_, Self>, part: Part<'_, Chunk<Self>, Cut<Contiguous>>, own: Own) {
        check!(Use { may_refuse: true, ..at }, own, part);
    }
}

/// Rows and columns that a part has, and which of their crossings are its own.
#[derive(Clone)]
struct Plane {
    /// `ids[row][col]`; `None`: not an element of the part.
    ids: Vec<Vec<Option<usize>>>,
    cols: usize,
}

impl Plane {
    fn kept(&self, keep: impl Fn(usize, usize) -> bool) -> Plane {
        let mut kept = self.clone();
        for (i, row) in kept.ids.iter_mut().enumerate() {
            row.iter_mut().enumerate().for_each(|(j, id)| *id = id.filter(|_| keep(i, j)));
        }
        kept
    }
    fn view(&self, rows: Option<Vec<usize>>, cols: Option<Vec<usize>>) -> Option<Plane> {
        let (rows, cols) = (rows?, cols?);
        let ids = rows.iter().map(|&i| cols.iter().map(|&j| self.ids[i][j]).collect()).collect();
        Some(Plane { ids, cols: cols.len() })
    }
    fn own(&self) -> Vec<usize> {
        (0..self.cols).flat_map(|j| self.ids.iter().filter_map(move |row| row[j])).collect()
    }
    fn row(&self, i: usize) -> Own {
        Some(self.ids.get(i)?.iter().flatten().copied().collect())
    }
    fn col(&self, j: usize) -> Own {
        (j < self.cols).then(|| self.ids.iter().filter_map(|row| row[j]).collect())
    }
}

fn size(plane: &Option<Plane>) -> [usize; 2] {
    plane.as_ref().map_or([3, 3], |plane| [plane.ids.len(), plane.cols])
}

/// The spans that a view is taken of: plain, or with a step.
fn spans(step: &Step, plane: &Option<Plane>) -> ([Span; 2], Option<usize>, Option<Plane>) {
    let [rows, cols] = size(plane);
    let by = (step.kind / 16 % 2 == 1).then_some(step.by);
    let spans = [Span::fitted(step.a, step.b, rows), Span::fitted(step.c, step.d, cols)];
    let inner = plane
        .as_ref()
        .and_then(|plane| plane.view(spans[0].picks(by.unwrap_or(1), rows), spans[1].picks(1, cols)));
    (spans, by, inner)
}

macro_rules! with_view {
    ($part:expr, $spans:expr, $by:expr) => {
        match $by {
            None => with_span!($spans[0], |rows| with_span!($spans[1], |cols| $part.view(rows, cols))),
            Some(by) => with_span!($spans[0], |rows| with_span!($spans[1], |cols| {
                $part.view(dagger_async::region::step(rows, by), cols)
            })),
        }
    };
}

macro_rules! block {
    ($name:ident, $Part:ty) => {
        fn $name<T: Grid>(at: Use<'_, T>, part: $Part, plane: Option<Plane>, steps: &[Step]) {
            let Some((step, rest)) = steps.split_first() else {
                let part = part.view(.., ..);
                return check!(at, plane.map(|plane| plane.own()), part);
            };
            let [rows, cols] = size(&plane);
            let (i, j) = (index_in(step.a, rows), index_in(step.b, cols));
            let kept = |keep: &dyn Fn(usize, usize) -> bool| plane.as_ref().map(|plane| plane.kept(keep));
            match step.kind % 8 {
                0 | 1 => {
                    let (spans, by, inner) = spans(step, &plane);
                    block(at.then((spans, by)), with_view!(part, spans, by), inner, rest)
                }
                2 => {
                    let own = plane.as_ref().and_then(|plane| plane.row(i));
                    strided(at.then(("row", i)), part.row(i), own, rest)
                }
                3 => {
                    let own = plane.as_ref().and_then(|plane| plane.col(j));
                    T::column(at.then(("col", j)), part.col(j), own, rest)
                }
                4 => {
                    let own = kept(&|i, j| i == j).map(|plane| plane.own());
                    strided(at.then("diag"), part.diag(), own, rest)
                }
                5 => {
                    let k = step.c % 4;
                    let plane = kept(&|i, j| i.abs_diff(j) <= k);
                    banded(at.then(("band", k)), part.band(k), plane, false, rest)
                }
                6 => triangle(at.then("lower"), part.lower(), kept(&|i, j| i >= j), rest),
                _ => triangle(at.then("upper"), part.upper(), kept(&|i, j| i <= j), rest),
            }
        }
    };
}
block!(matrix, &Chunk<T>);
block!(block, Part<'_, Chunk<T>, Block>);

fn triangle<T: Grid>(
    at: Use<'_, T>,
    part: Part<'_, Chunk<T>, Triangle>,
    plane: Option<Plane>,
    steps: &[Step],
) {
    let Some((step, rest)) = steps.split_first() else {
        return check!(at, plane.map(|plane| plane.own()), part);
    };
    let [rows, cols] = size(&plane);
    let (i, j) = (index_in(step.a, rows), index_in(step.b, cols));
    let strict = || plane.as_ref().map(|plane| plane.kept(|i, j| i != j));
    match step.kind % 6 {
        0 => banded(at.then("strict"), part.strict(), strict(), false, rest),
        1 => banded(at.then("unit"), part.unit(), strict(), true, rest),
        2 => {
            let own = plane.as_ref().and_then(|plane| plane.row(i));
            check!(at.then(("row", i)), own, part.row(i))
        }
        3 => {
            let own = plane.as_ref().and_then(|plane| plane.col(j));
            T::cut_column(at.then(("col", j)), part.col(j), own)
        }
        _ => {
            let (spans, by, inner) = spans(step, &plane);
            banded(at.then((spans, by)), with_view!(part, spans, by), inner, false, rest)
        }
    }
}

fn banded<T: Grid>(
    at: Use<'_, T>,
    part: Part<'_, Chunk<T>, Banded>,
    plane: Option<Plane>,
    unit: bool,
    steps: &[Step],
) {
    let Some((step, rest)) = steps.split_first() else {
        let (chunk, want) = (at.chunk, plane.as_ref().map(|plane| [plane.ids.len(), plane.cols]));
        let seen = rt().block_on(async {
            let shape = spawn!((|v: TriRef<'_, i64>| ([v.rows(), v.cols()], v.is_unit()))(In(&part)));
            drop(chunk.read());
            shape.await
        });
        if let Some(want) = want {
            assert_eq!(seen.ok(), Some((want, unit)), "{}", at.path);
        }
        return check!(at, plane.map(|plane| plane.own()), part);
    };
    let [rows, cols] = size(&plane);
    let (i, j) = (index_in(step.a, rows), index_in(step.b, cols));
    match step.kind % 4 {
        0 => {
            let own = plane.as_ref().and_then(|plane| plane.row(i));
            check!(at.then(("row", i)), own, part.row(i))
        }
        1 => {
            let own = plane.as_ref().and_then(|plane| plane.col(j));
            T::cut_column(at.then(("col", j)), part.col(j), own)
        }
        _ => {
            let (spans, by, inner) = spans(step, &plane);
            banded(at.then((spans, by)), with_view!(part, spans, by), inner, unit, rest)
        }
    }
}

fn grid<T: Grid>(value: T, rows: usize, cols: usize, how: How, steps: &[Step]) {
    assert_eq!(value.values(), start(rows * cols));
    let chunk = Chunk::new(value);
    let ids = (0..rows).map(|i| (0..cols).map(|j| Some(i * cols + j)).collect()).collect();
    let at =
        Use { chunk: &chunk, how, path: format!("{how:?} of {rows} x {cols}:"), depth: 0, may_refuse: false };
    matrix(at, &chunk, Some(Plane { ids, cols }), steps);
}

/// The matrix of `start` in some order of its elements in memory.
fn array(rows: usize, cols: usize, order: usize) -> Array2<i64> {
    let shape = (rows, cols);
    let mut array = match order % 3 {
        0 => Array2::zeros(shape),
        1 => Array2::zeros(shape.f()),
        // Every second row and column of a larger one.
        _ => {
            let mut large = Array2::zeros((2 * rows, 2 * cols));
            large.slice_collapse(ndarray::s![..;2, ..;2]);
            large
        }
    };
    for axis in 0..2 {
        if order >> (2 + axis) & 1 == 1 {
            array.invert_axis(Axis(axis));
        }
    }
    array.iter_mut().zip(start(rows * cols)).for_each(|(x, value)| *x = value);
    array
}

proptest! {
    #![proptest_config(config(1200))]

    #[test]
    fn a_region_of_an_ndarray_has_exactly_its_elements(
        rows in 0..7usize, cols in 0..7usize, order in 0..16usize, how in hows(), steps in steps(),
    ) {
        grid(array(rows, cols, order), rows, cols, how, &steps);
    }

    #[test]
    fn a_region_of_columns_has_exactly_its_elements(
        rows in 0..7usize, cols in 0..7usize, how in hows(), steps in steps(),
    ) {
        grid(Columns::new(rows, cols), rows, cols, how, &steps);
    }
}

// Several regions of one chunk.

/// A callee's tuple of two views.
fn pair<A: Look, B: Look + Bump>((read, mut write): (A, B)) -> (Vec<i64>, Vec<i64>) {
    (read.look(), change(&mut write, 0))
}

/// A selector, and whether it has the crossing of a row and a column.
macro_rules! with_pairs {
    ($check:ident: $($name:ident = $selector:expr, $has:expr;)*) => {
        with_pairs!(@ $check [$({ $selector, $has })*] $({ $selector, $has })*);
    };
    (@ $check:ident $all:tt $($one:tt)*) => { $(with_pairs!(@@ $check $one $all);)* };
    (@@ $check:ident $one:tt [$($other:tt)*]) => { $(with_pairs!(@@@ $check $one $other);)* };
    (@@@ $check:ident { $a:expr, $a_has:expr } { $b:expr, $b_has:expr }) => { $check!($a, $a_has, $b, $b_has) };
}

#[test]
fn parts_of_one_chunk_are_aliased_exactly_where_they_meet() {
    let value = || array(4, 5, 5);
    let own = |has: &dyn Fn(usize, usize) -> bool| -> Vec<usize> {
        (0..5)
            .flat_map(|j| (0..4).filter(move |&i| has(i, j)).map(move |i| i * 5 + j).collect::<Vec<_>>())
            .collect()
    };
    let mut met = 0;
    macro_rules! check {
        ($a:expr, $a_has:expr, $b:expr, $b_has:expr) => {{
            let (a, b) = (own(&$a_has), own(&$b_has));
            let meet = a.iter().any(|id| b.contains(id));
            let what = concat!(stringify!($a), " and ", stringify!($b));
            for unknown in [false, true] {
                let chunk = Chunk::new(value());
                let how = How { guard: false, unknown, way: 0 };
                let gave = rt().block_on(async {
                    let deps = || spawn!((|both| pair(both))(Deps(&chunk, (In($a), InOut($b)))));
                    declared(&chunk, how, deps).await
                });
                let mut expected = start(20);
                if meet {
                    met += 1;
                    assert!(matches!(gave, Err(Error::Aliased { .. })), "{what}: {gave:?}");
                } else {
                    let values = |ids: &[usize]| ids.iter().map(|&id| expected[id]).collect::<Vec<_>>();
                    assert_eq!(gave.ok(), Some((values(&a), values(&b))), "{what}");
                    b.iter().for_each(|&id| expected[id] += 1000);
                }
                let after = rt().block_on(async { chunk.read().await.unwrap().values() });
                assert_eq!(after, expected, "{what}");
            }
        }};
    }
    with_pairs! { check:
        a = lower(), |i: usize, j: usize| i >= j;
        b = upper(), |i: usize, j: usize| i <= j;
        c = lower().strict(), |i: usize, j: usize| i > j;
        d = upper().unit(), |i: usize, j: usize| i < j;
        e = diag(), |i: usize, j: usize| i == j;
        f = row(2), |i: usize, _: usize| i == 2;
        g = col(4), |_: usize, j: usize| j == 4;
        h = view(1..3, 0..2), |i: usize, j: usize| (1..3).contains(&i) && j < 2;
        i = view(dagger_async::region::step(.., 3), 3..), |i: usize, j: usize| i.is_multiple_of(3) && j >= 3;
        j = band(1), |i: usize, j: usize| i.abs_diff(j) <= 1;
    }
    assert!((50..190).contains(&met), "{met}");
}

#[test]
fn positions_of_a_line_select_too() {
    rt().block_on(async {
        let chunk = Chunk::new(start(6));
        let odd = || dagger_async::region::step(1.., 2);
        let deps = Deps(&chunk, (In(slice(0..1)), InOut(slice(odd())), Out(slice(index([4, 2])))));
        let task = spawn!((|(a, mut b, mut c): (&[i64], VecMut<'_, i64>, VecMut<'_, i64>)| {
            (a.to_vec(), change(&mut b, 1), change(&mut c, 2))
        })(deps));
        assert_eq!(task.await.unwrap(), (vec![1], vec![8, 22, 36], vec![29, 15]));
        assert_eq!(*chunk.read().await.unwrap(), [1, 1008, 1015, 1022, 1029, 1036]);
    });
}

// Results of tasks.

#[test]
fn regions_of_results_are_read() {
    rt().block_on(async {
        let line = spawn!((|| start(6))());
        let a = spawn!((|v: &[i64], w: VecRef<'_, i64>| (look(&v), look(&w)))(
            In(&line.slice(2..4)),
            In(&line.slice(index([5, 0])).slice(1..))
        ));
        let outside = spawn!((|v: &[i64]| v.len())(In(&line.slice(..7))));
        assert_eq!(a.await.unwrap(), (vec![15, 22], vec![1]));
        assert!(matches!(outside.await, Err(Error::OutOfBounds { .. })));
        let plane = spawn!((|| array(3, 3, 6))());
        let b = spawn!((|v: TriRef<'_, i64>, w: VecRef<'_, i64>, m: MatRef<'_, i64>| {
            (look(&v), look(&w), look(&m))
        })(In(&plane.lower().strict()), In(&plane.row(1)), In(&plane.view(1.., ..1))));
        assert_eq!(b.await.unwrap(), (vec![22, 43, 50], vec![22, 29, 36], vec![22, 43]));
    });
}

// Elements without a size, fields.

#[test]
fn elements_without_a_size_have_regions() {
    rt().block_on(async {
        let chunk = Chunk::new(vec![(); 10]);
        let a = spawn!((|v: &mut [()]| v.len())(InOut(&chunk.slice(2..7))));
        let b = spawn!((|mut v: VecMut<'_, ()>| {
            v.for_each_mut(|()| ());
            (v.len(), v.get(5).is_some())
        })(InOut(&chunk.slice(dagger_async::region::step(.., 2)))));
        assert_eq!((a.await.unwrap(), b.await.unwrap()), (5, (5, false)));
        let twice = spawn!((|_: VecMut<'_, ()>| ())(InOut(&chunk.slice(index([3, 3])))));
        assert!(matches!(twice.await, Err(Error::Aliased { .. })));
        assert!(matches!(chunk.slice(..11).read().await, Err(Error::OutOfBounds { .. })));
        let empty = Chunk::new([0i64; 0]);
        assert!(empty.slice(..).write().await.unwrap().is_empty());
    });
}

#[derive(Debug, PartialEq, Default)]
struct Body {
    name: String,
    at: (i64, f64),
    motion: Motion,
    nothing: (),
}

#[derive(Debug, PartialEq, Default)]
struct Motion {
    speed: Box<f64>,
    turns: [u16; 3],
}

#[test]
fn fields_of_fields_are_accessed_side_by_side() {
    rt().block_on(async {
        let chunk = Chunk::new(Body::default());
        let motion = chunk.field(field!(Body, motion));
        let task = spawn!((|name: &mut String,
                            x: &mut i64,
                            y: &f64,
                            speed: &mut Box<f64>,
                            turns: &mut [u16; 3],
                            nothing: &mut ()| {
            name.push_str("moon");
            *x += 3;
            **speed = *y + 1.0;
            turns[1] = 7;
            *nothing = ();
        })(
            InOut(&chunk.field(field!(Body, name))),
            InOut(&chunk.field(field!(Body, at.0))),
            In(&chunk.field(field!(Body, at)).field(field!((i64, f64), 1))),
            InOut(&motion.field(field!(Motion, speed))),
            InOut(&chunk.field(field!(Body, motion.turns))),
            InOut(&chunk.field(field!(Body, nothing)))
        ));
        task.await.unwrap();
        let expected = Body {
            name: "moon".to_owned(),
            at: (3, 0.0),
            motion: Motion { speed: Box::new(1.0), turns: [0, 7, 0] },
            nothing: (),
        };
        assert_eq!(*chunk.read().await.unwrap(), expected);
        let both = spawn!((|_: &mut Motion, _: &[u16; 3]| ())(
            InOut(&motion),
            In(&chunk.field(field!(Body, motion.turns)))
        ));
        assert!(matches!(both.await, Err(Error::Aliased { .. })));
        assert_eq!(chunk.into_inner().await.unwrap(), expected);
    });
}

// What lies outside.

#[test]
fn bounds_are_those_at_the_turn() {
    rt().block_on(async {
        let chunk = Chunk::new(start(4));
        let outside = |task: Result<Vec<i64>, Error>| matches!(task, Err(Error::OutOfBounds { .. }));
        assert!(outside(spawn!((|v: &[i64]| v.to_vec())(In(&chunk.slice(2..5)))).await));
        let grow = spawn!((|v: &mut Vec<i64>| v.extend([5; 4]))(InOut(&chunk)));
        let fits = spawn!((|v: &[i64]| v.to_vec())(In(&chunk.slice(3..6))));
        let shrink = spawn!((|v: &mut Vec<i64>| v.truncate(2))(InOut(&chunk)));
        let late = spawn!((|v: &mut [i64]| {
            v.fill(0);
            v.to_vec()
        })(InOut(&chunk.slice(1..3))));
        let rest = spawn!((|v: &[i64]| v.to_vec())(In(&chunk.slice(1..))));
        let none = spawn!((|v: &[i64]| v.to_vec())(In(&chunk.slice(2..))));
        grow.await.unwrap();
        shrink.await.unwrap();
        assert_eq!(fits.await.unwrap(), [22, 5, 5]);
        assert!(outside(late.await));
        assert_eq!((rest.await.unwrap(), none.await.unwrap()), (vec![8], vec![]));
        assert!(matches!(chunk.slice(3..).read().await, Err(Error::OutOfBounds { .. })));
        // What was refused has poisoned nothing.
        assert_eq!(*chunk.read().await.unwrap(), [1, 8]);
    });
}

// A kind of region of a user's own.

/// The nodes of one part of a graph.
#[derive(Debug)]
struct Nodes {
    part: u64,
    parts: u64,
}

impl Nodes {
    fn has(&self, node: usize) -> bool {
        node as u64 % self.parts == self.part
    }
}

impl Region for Nodes {
    fn overlaps(&self, other: &dyn Region) -> bool {
        match other.as_any().downcast_ref::<Nodes>() {
            Some(other) => (0..64).any(|node| self.has(node) && other.has(node)),
            None => true,
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A graph whose nodes are reached one by one.
struct Graph {
    nodes: Box<[i64]>,
}

struct Node<'a>(*mut i64, usize, &'a Nodes);

// SAFETY: exclusive access to the nodes of a part.
unsafe impl Send for Node<'_> {}

impl Node<'_> {
    fn add(&mut self, value: i64) -> usize {
        let own = (0..self.1).filter(|&node| self.2.has(node));
        // SAFETY: a node of the region, which this has exclusively.
        own.map(|node| unsafe { *self.0.add(node) += value }).count()
    }
}

// SAFETY: only nodes of the part are reached; the reference to the box is not one to its nodes.
unsafe impl View<Graph> for Nodes {
    type Ref<'a> = usize;
    type Mut<'a> = Node<'a>;
    unsafe fn view(&self, value: *const Graph) -> usize {
        // SAFETY: the address of the nodes and their number, read through a pointer to the box itself.
        let nodes: *const [i64] = unsafe { (&raw const (*value).nodes).cast::<*const [i64]>().read() };
        (0..nodes.len()).filter(|&node| self.has(node)).count()
    }
    unsafe fn view_mut<'a>(&'a self, value: *mut Graph) -> Node<'a> {
        // SAFETY: as above.
        let nodes: *mut [i64] = unsafe { (&raw const (*value).nodes).cast::<*mut [i64]>().read() };
        Node(nodes.cast(), nodes.len(), self)
    }
}

#[test]
fn a_kind_of_region_of_a_users_own_orders_what_it_says() {
    rt().block_on(async {
        let graph = Chunk::new(Graph { nodes: vec![0; 12].into() });
        let (entered, wait) = std::sync::mpsc::channel();
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let (first, third) = (Nodes { part: 0, parts: 3 }, Nodes { part: 1, parts: 3 });
        // Two that do not meet are there at once; the one that meets the first comes after.
        let held = spawn!((move |mut nodes: Node<'_>| {
            gate.lock().unwrap().recv().unwrap();
            nodes.add(1)
        })(InOut(&graph.region(first))));
        let beside = spawn!((move |mut nodes: Node<'_>| {
            entered.send(()).unwrap();
            nodes.add(10)
        })(InOut(&graph.region(third))));
        let after =
            spawn!((|mut nodes: Node<'_>| nodes.add(100))(InOut(&graph.region(Nodes { part: 0, parts: 2 }))));
        wait.recv().unwrap();
        assert!(!after.is_finished());
        go.send(()).unwrap();
        assert_eq!((held.await.unwrap(), beside.await.unwrap(), after.await.unwrap()), (4, 4, 6));
        let count = spawn!((|nodes: usize| nodes)(In(&graph.region(Nodes { part: 4, parts: 5 }))));
        assert_eq!(count.await.unwrap(), 2);
        let nodes = graph.into_inner().await.unwrap().nodes;
        assert_eq!(&nodes[..6], [101, 10, 100, 1, 110, 0]);
    });
}
