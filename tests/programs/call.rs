//! How a task of a program is spawned: the types of its accesses are fixed in tables, their regions are not.
//!
//! 1. A row of a table is one list of modes and kinds; the generator picks a row, then regions of these kinds.
//! 2. A body folds all that it reads into a hash, in order, and writes what follows from it: no two orders give the same.

use super::region::{Bandy, Bounds, Cut, Of, Op, Region};
use dagger_async::prelude::*;
use dagger_async::region::{
    Banded, Block, Contiguous, Cut as CutKind, Field, Listed, Part, Strided, Triangle, band, col, row, slice,
    view,
};
use dagger_tests::Failure;
use ndarray::Array2;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// The struct with fields.
#[derive(Clone, Default, Debug)]
pub struct Fields {
    pub a: i64,
    pub b: [i64; 2],
    pub c: (i64, i64),
}

/// What a program works on. By number: 0 and 1 are `v`, 2 `a`, 3 `m`, 4 `s`.
#[derive(Clone)]
pub struct Chunks {
    pub v: [Chunk<Vec<i64>>; 2],
    pub a: Chunk<[i64; 5]>,
    pub m: Chunk<Array2<i64>>,
    pub s: Chunk<Fields>,
}

pub const CHUNKS: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    In,
    Out,
    InOut,
    /// `&chunk`, which is `In`.
    Ref,
}

impl Mode {
    pub fn writes(self) -> bool {
        matches!(self, Mode::Out | Mode::InOut)
    }
    pub fn reads(self) -> bool {
        self != Mode::Out
    }
}

/// Type of container and kind of region. V: `Vec`, A: array, M: matrix, S: struct.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    VWhole,
    VRange,
    VStep,
    VList,
    AWhole,
    ARange,
    AStep,
    AList,
    MWhole,
    MBlock,
    MLine,
    MList,
    MTri,
    MBand,
    MCut,
    SWhole,
    SInt,
    SArray,
    SPair,
}

impl Kind {
    pub const ALL: [Kind; 19] = {
        use Kind::*;
        [
            VWhole, VRange, VStep, VList, AWhole, ARange, AStep, AList, MWhole, MBlock, MLine, MList, MTri,
            MBand, MCut, SWhole, SInt, SArray, SPair,
        ]
    };
}

#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    pub chunk: usize,
    pub mode: Mode,
    pub kind: Kind,
    pub region: Region,
}

// Building the parts.

type P<'c, T, K> = Part<'c, Chunk<T>, K>;
const SHAPE: &str = "a region of this kind";

macro_rules! ranged {
    ($part:expr, $bounds:expr) => {
        match $bounds {
            Bounds::Half(a, b) => $part.slice(a..b),
            Bounds::Closed(a, b) => $part.slice(a..=b),
            Bounds::From(a) => $part.slice(a..),
            Bounds::To(b) => $part.slice(..b),
            Bounds::ToClosed(b) => $part.slice(..=b),
            Bounds::All => $part.slice(..),
        }
    };
}

/// The parts of a line container: the longest chain of ranges, then of steps, then of lists.
macro_rules! line_container {
    ($T:ty, $range:ident, $step:ident, $list:ident) => {
        fn $range<'c>(c: &'c Chunk<$T>, ops: &[Op]) -> P<'c, $T, Contiguous> {
            let Some((Op::Range(first), rest)) = ops.split_first() else { panic!("{SHAPE}") };
            rest.iter().fold(ranged!(c, *first), |part, op| {
                let Op::Range(bounds) = op else { panic!("{SHAPE}") };
                ranged!(part, *bounds)
            })
        }
        fn $step<'c>(c: &'c Chunk<$T>, ops: &[Op]) -> P<'c, $T, Strided> {
            let first = ops.iter().position(|op| matches!(op, Op::Step(..))).expect(SHAPE);
            let Op::Step(bounds, by) = ops[first] else { panic!("{SHAPE}") };
            let part = match first {
                0 => c.slice(step(bounds, by)),
                _ => $range(c, &ops[..first]).slice(step(bounds, by)),
            };
            strided(part, &ops[first + 1..])
        }
        fn $list<'c>(c: &'c Chunk<$T>, ops: &[Op]) -> P<'c, $T, Listed> {
            let first = ops.iter().position(|op| matches!(op, Op::Index(_))).expect(SHAPE);
            let Op::Index(list) = &ops[first] else { panic!("{SHAPE}") };
            let list = index(list.iter().copied());
            let before = &ops[..first];
            let part = match () {
                () if first == 0 => c.slice(list),
                () if before.iter().any(|op| matches!(op, Op::Step(..))) => $step(c, before).slice(list),
                () => $range(c, before).slice(list),
            };
            listed(part, &ops[first + 1..])
        }
    };
}
line_container!(Vec<i64>, v_range, v_step, v_list);
line_container!([i64; 5], a_range, a_step, a_list);

fn strided<'c, T: dagger_async::region::Container>(part: P<'c, T, Strided>, ops: &[Op]) -> P<'c, T, Strided> {
    ops.iter().fold(part, |part, op| match op {
        Op::Range(bounds) => ranged!(part, *bounds),
        Op::Step(bounds, by) => part.slice(step(*bounds, *by)),
        Op::Index(_) => panic!("{SHAPE}"),
    })
}

fn listed<'c, T: dagger_async::region::Container>(part: P<'c, T, Listed>, ops: &[Op]) -> P<'c, T, Listed> {
    ops.iter().fold(part, |part, op| match op {
        Op::Range(bounds) => ranged!(part, *bounds),
        Op::Step(bounds, by) => part.slice(step(*bounds, *by)),
        Op::Index(list) => part.slice(index(list.iter().copied())),
    })
}

type M = Array2<i64>;

fn block<'c>(c: &'c Chunk<M>, views: &[(super::region::Stepped, super::region::Stepped)]) -> P<'c, M, Block> {
    let (first, rest) = views.split_first().expect(SHAPE);
    rest.iter().fold(c.view(first.0, first.1), |part, (rows, cols)| part.view(*rows, *cols))
}

macro_rules! on_block {
    ($c:ident, $views:ident, |$of:ident| $part:expr) => {
        match $views.is_empty() {
            true => {
                let $of = $c;
                $part
            }
            false => {
                let around = block($c, $views);
                let $of = &around;
                $part
            }
        }
    };
}

fn m_block<'c>(c: &'c Chunk<M>, region: &Region) -> P<'c, M, Block> {
    let Region::Matrix(views, Of::Block) = region else { panic!("{SHAPE}") };
    block(c, views)
}

fn m_line_from<'c>(
    c: &'c Chunk<M>,
    views: &[(super::region::Stepped, super::region::Stepped)],
    of: &Of,
) -> P<'c, M, Strided> {
    match of {
        Of::Row(at, _) => on_block!(c, views, |of| of.row(*at)),
        Of::Col(at, _) => on_block!(c, views, |of| of.col(*at)),
        Of::Diag(_) => on_block!(c, views, |of| of.diag()),
        _ => panic!("{SHAPE}"),
    }
}

fn m_line<'c>(c: &'c Chunk<M>, region: &Region) -> P<'c, M, Strided> {
    let Region::Matrix(views, of) = region else { panic!("{SHAPE}") };
    let (Of::Row(_, ops) | Of::Col(_, ops) | Of::Diag(ops)) = of else { panic!("{SHAPE}") };
    strided(m_line_from(c, views, of), ops)
}

fn m_list<'c>(c: &'c Chunk<M>, region: &Region) -> P<'c, M, Listed> {
    let Region::Matrix(views, of) = region else { panic!("{SHAPE}") };
    let (Of::Row(_, ops) | Of::Col(_, ops) | Of::Diag(ops)) = of else { panic!("{SHAPE}") };
    let first = ops.iter().position(|op| matches!(op, Op::Index(_))).expect(SHAPE);
    let Op::Index(list) = &ops[first] else { panic!("{SHAPE}") };
    let part = strided(m_line_from(c, views, of), &ops[..first]).slice(index(list.iter().copied()));
    listed(part, &ops[first + 1..])
}

fn triangle<'c>(
    c: &'c Chunk<M>,
    views: &[(super::region::Stepped, super::region::Stepped)],
    upper: bool,
) -> P<'c, M, Triangle> {
    match upper {
        true => on_block!(c, views, |of| of.upper()),
        false => on_block!(c, views, |of| of.lower()),
    }
}

fn m_tri<'c>(c: &'c Chunk<M>, region: &Region) -> P<'c, M, Triangle> {
    let Region::Matrix(views, Of::Triangle(upper)) = region else { panic!("{SHAPE}") };
    triangle(c, views, *upper)
}

fn m_band<'c>(c: &'c Chunk<M>, region: &Region) -> P<'c, M, Banded> {
    let Region::Matrix(around, Of::Banded(bandy, views, _)) = region else { panic!("{SHAPE}") };
    let (part, views) = match *bandy {
        Bandy::Band(k) => (on_block!(c, around, |of| of.band(k)), &views[..]),
        Bandy::Strict(upper) => (triangle(c, around, upper).strict(), &views[..]),
        Bandy::Unit(upper) => (triangle(c, around, upper).unit(), &views[..]),
        Bandy::Full(upper) => {
            let (first, rest) = views.split_first().expect(SHAPE);
            (triangle(c, around, upper).view(first.0, first.1), rest)
        }
    };
    views.iter().fold(part, |part, (rows, cols)| part.view(*rows, *cols))
}

fn m_cut<'c>(c: &'c Chunk<M>, region: &Region) -> P<'c, M, CutKind<Strided>> {
    let Region::Matrix(around, Of::Banded(bandy, views, Some(cut))) = region else { panic!("{SHAPE}") };
    if let (Bandy::Full(upper), []) = (bandy, &views[..]) {
        let part = triangle(c, around, *upper);
        return match *cut {
            Cut::Row(at) => part.row(at),
            Cut::Col(at) => part.col(at),
        };
    }
    let part = m_band(c, region);
    match *cut {
        Cut::Row(at) => part.row(at),
        Cut::Col(at) => part.col(at),
    }
}

fn s_int<'c>(c: &'c Chunk<Fields>, region: &Region) -> P<'c, Fields, Field<i64>> {
    let pair = || c.field(field!(Fields, c));
    match region {
        Region::Field(0) => c.field(field!(Fields, a)),
        Region::Field(3) => c.field(field!(Fields, c.0)),
        Region::Field(4) => c.field(field!(Fields, c.1)),
        Region::Field(5) => pair().field(field!((i64, i64), 0)),
        Region::Field(6) => pair().field(field!((i64, i64), 1)),
        _ => panic!("{SHAPE}"),
    }
}

fn ops(region: &Region) -> &[Op] {
    let Region::Line(ops) = region else { panic!("{SHAPE}") };
    ops
}

macro_rules! part {
    (VWhole $c:ident, $a:ident) => {
        &$c.v[$a.chunk]
    };
    (VRange $c:ident, $a:ident) => {
        v_range(&$c.v[$a.chunk], ops(&$a.region))
    };
    (VStep $c:ident, $a:ident) => {
        v_step(&$c.v[$a.chunk], ops(&$a.region))
    };
    (VList $c:ident, $a:ident) => {
        v_list(&$c.v[$a.chunk], ops(&$a.region))
    };
    (AWhole $c:ident, $a:ident) => {
        &$c.a
    };
    (ARange $c:ident, $a:ident) => {
        a_range(&$c.a, ops(&$a.region))
    };
    (AStep $c:ident, $a:ident) => {
        a_step(&$c.a, ops(&$a.region))
    };
    (AList $c:ident, $a:ident) => {
        a_list(&$c.a, ops(&$a.region))
    };
    (MWhole $c:ident, $a:ident) => {
        &$c.m
    };
    (MBlock $c:ident, $a:ident) => {
        m_block(&$c.m, &$a.region)
    };
    (MLine $c:ident, $a:ident) => {
        m_line(&$c.m, &$a.region)
    };
    (MList $c:ident, $a:ident) => {
        m_list(&$c.m, &$a.region)
    };
    (MTri $c:ident, $a:ident) => {
        m_tri(&$c.m, &$a.region)
    };
    (MBand $c:ident, $a:ident) => {
        m_band(&$c.m, &$a.region)
    };
    (MCut $c:ident, $a:ident) => {
        m_cut(&$c.m, &$a.region)
    };
    (SWhole $c:ident, $a:ident) => {
        &$c.s
    };
    (SInt $c:ident, $a:ident) => {
        s_int(&$c.s, &$a.region)
    };
    (SArray $c:ident, $a:ident) => {
        $c.s.field(field!(Fields, b))
    };
    (SPair $c:ident, $a:ident) => {
        $c.s.field(field!(Fields, c))
    };
}

/// `&chunk` or `&part`.
trait Plain<'x> {
    type Out;
    fn plain(&'x self) -> Self::Out;
}
impl<'x, T: 'static> Plain<'x> for &'x Chunk<T> {
    type Out = &'x Chunk<T>;
    fn plain(&'x self) -> &'x Chunk<T> {
        self
    }
}
impl<'x, 'c: 'x, T: 'static, K: 'x> Plain<'x> for P<'c, T, K> {
    type Out = &'x P<'c, T, K>;
    fn plain(&'x self) -> &'x P<'c, T, K> {
        self
    }
}

macro_rules! arg {
    (Ref $kind:ident $c:ident, $a:ident) => { part!($kind $c, $a).plain() };
    ($mode:ident $kind:ident $c:ident, $a:ident) => { $mode(part!($kind $c, $a)) };
}

// What bodies do.

/// Whatever a callee is given: its elements in order.
pub trait Look {
    fn get(&self) -> Vec<i64>;
    fn put(&mut self, _value: &mut dyn FnMut(i64) -> i64) {
        panic!("to read")
    }
    fn resize(&mut self, _len: usize) {}
}

macro_rules! look {
    ($($Read:ty, $Write:ty: |$this:ident| $get:expr, |$that:ident, $f:ident| $put:expr;)*) => {$(
        impl Look for $Read {
            fn get(&self) -> Vec<i64> {
                let $this = self;
                $get
            }
        }
        impl Look for $Write {
            fn get(&self) -> Vec<i64> {
                let $this = self;
                $get
            }
            fn put(&mut self, $f: &mut dyn FnMut(i64) -> i64) {
                let $that = self;
                $put
            }
        }
    )*};
}
macro_rules! all {
    ($view:ident) => {{
        let mut all = Vec::new();
        $view.for_each(|x| all.push(*x));
        all
    }};
}
look! {
    &[i64], &mut [i64]: |x| x.to_vec(), |x, f| x.iter_mut().for_each(|x| *x = f(*x));
    &[i64; 5], &mut [i64; 5]: |x| x.to_vec(), |x, f| x.iter_mut().for_each(|x| *x = f(*x));
    &[i64; 2], &mut [i64; 2]: |x| x.to_vec(), |x, f| x.iter_mut().for_each(|x| *x = f(*x));
    &i64, &mut i64: |x| vec![**x], |x, f| **x = f(**x);
    &(i64, i64), &mut (i64, i64): |x| vec![x.0, x.1], |x, f| { x.0 = f(x.0); x.1 = f(x.1) };
    &Fields, &mut Fields: |x| vec![x.a, x.b[0], x.b[1], x.c.0, x.c.1],
        |x, f| {
            x.a = f(x.a);
            x.b = x.b.map(&mut *f);
            x.c = (f(x.c.0), f(x.c.1));
        };
    &Array2<i64>, &mut Array2<i64>: |x| x.iter().copied().collect(), |x, f| x.iter_mut().for_each(|x| *x = f(*x));
    VecRef<'_, i64>, VecMut<'_, i64>: |x| all!(x), |x, f| x.for_each_mut(|x| *x = f(*x));
    MatRef<'_, i64>, MatMut<'_, i64>: |x| all!(x), |x, f| x.for_each_mut(|x| *x = f(*x));
    TriRef<'_, i64>, TriMut<'_, i64>: |x| all!(x), |x, f| x.for_each_mut(|x| *x = f(*x));
}
impl Look for &Vec<i64> {
    fn get(&self) -> Vec<i64> {
        self.to_vec()
    }
}
impl Look for &mut Vec<i64> {
    fn get(&self) -> Vec<i64> {
        self.to_vec()
    }
    fn put(&mut self, f: &mut dyn FnMut(i64) -> i64) {
        self.iter_mut().for_each(|x| *x = f(*x));
    }
    fn resize(&mut self, len: usize) {
        Vec::resize(self, len, 0);
    }
}

pub fn mix(h: i64, x: i64) -> i64 {
    (h ^ x).wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64).rotate_left(23).wrapping_add(x)
}

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum End {
    Value,
    /// Before it has written anything, after the first access that writes, or at last; with an `Err` or a panic.
    Fails {
        at: Point,
        panics: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Point {
    Before,
    Between,
    After,
}

/// One run of a body.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    pub no: usize,
    pub start: usize,
    pub end: usize,
}

/// What bodies write down while they run.
#[derive(Default)]
pub struct Log {
    clock: AtomicUsize,
    pub ran: Mutex<Vec<Ran>>,
    /// Of the programs that tasks run inside.
    pub inner: Mutex<HashMap<usize, super::run::Seen>>,
}

/// Called by a body while it runs.
pub type Hook = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone)]
pub struct Body {
    pub no: usize,
    pub modes: Vec<Mode>,
    pub end: End,
    /// The new length of each `Vec` that is written as a whole.
    pub resize: Option<usize>,
    pub log: Arc<Log>,
    pub hook: Option<Hook>,
}

/// From the start of a body to its end, however that comes.
pub struct Ticks<'b>(&'b Body, usize);

impl Drop for Ticks<'_> {
    fn drop(&mut self) {
        let end = self.0.log.clock.fetch_add(1, SeqCst);
        self.0.log.ran.lock().unwrap().push(Ran { no: self.0.no, start: self.1, end });
    }
}

impl Body {
    pub fn start(&self) -> Ticks<'_> {
        let start = self.log.clock.fetch_add(1, SeqCst);
        if let Some(hook) = &self.hook {
            hook();
        }
        Ticks(self, start)
    }
    pub fn read(&self, arg: Option<i64>, views: &[&dyn Look]) -> i64 {
        let reads = self.modes.iter().zip(views).filter(|(mode, _)| mode.reads());
        let found: Vec<Vec<i64>> = reads.map(|(_, view)| view.get()).collect();
        fold(self.no, arg, &found)
    }
    pub fn write(&self, h: i64, views: &mut [&mut dyn Look]) -> Result<i64, Failure> {
        self.point(Point::Before)?;
        let writing = self.modes.iter().zip(views).filter(|(mode, _)| mode.writes());
        for (nth, (mode, view)) in writing.enumerate() {
            if nth > 0 {
                self.point(Point::Between)?;
            }
            if let Some(len) = self.resize {
                view.resize(len);
            }
            let mut at = 0;
            view.put(&mut |old| {
                at += 1;
                written(h, *mode, at, old)
            });
        }
        self.point(Point::Between)?;
        self.point(Point::After)?;
        Ok(h)
    }
    fn point(&self, here: Point) -> Result<(), Failure> {
        match self.end {
            End::Fails { at, panics: false } if at == here => Err(Failure(format!("t{}", self.no))),
            // Without the hook that prints.
            End::Fails { at, panics: true } if at == here => {
                std::panic::resume_unwind(Box::new(format!("t{}", self.no)))
            }
            _ => Ok(()),
        }
    }
    fn run(&self, arg: Option<i64>, views: &mut [&mut dyn Look]) -> Result<i64, Failure> {
        let _ticks = self.start();
        let reading: Vec<&dyn Look> = views.iter().map(|view| &**view as &dyn Look).collect();
        let h = self.read(arg, &reading);
        self.write(h, views)
    }
}

/// What a body makes of what it finds.
pub fn fold(no: usize, arg: Option<i64>, found: &[Vec<i64>]) -> i64 {
    let h = mix(no as i64, arg.unwrap_or(-1));
    found.iter().fold(h, |h, values| values.iter().fold(mix(h, values.len() as i64), |h, x| mix(h, *x)))
}

/// What it writes to the `at`-th element of an access, from 1.
pub fn written(h: i64, mode: Mode, at: i64, old: i64) -> i64 {
    mix(mix(h, at), if mode == Mode::InOut { old } else { 5 })
}

// The tables.

pub type Row = &'static [(Mode, Kind)];

macro_rules! table {
    ($List:ident $spawn:ident, $form:ident; $( $(#[$meta:meta])* ($($m:ident $k:ident $x:ident),+) )*) => {
        pub const $List: &[Row] = &[$( &[$((Mode::$m, Kind::$k)),+] ),*];
        #[allow(unused_variables, reason = "some kinds are the same whatever the region")]
        fn $spawn(c: &Chunks, accesses: &[Access], arg: &DTask<i64>, body: Body, options: Options) -> DTask<i64> {
            let _ = arg;
            let row: Vec<(Mode, Kind)> = accesses.iter().map(|access| (access.mode, access.kind)).collect();
            match (row.as_slice(), accesses) {
                $( ([$((Mode::$m, Kind::$k)),+], [$($x),+]) => table!(@ c, body, options, arg, $form $($m $k $x),+), )*
                _ => panic!("no row for {row:?}"),
            }
        }
    };
    (@ $c:ident, $body:ident, $options:ident, $task:ident, plain $($m:ident $k:ident $x:ident),+) => {
        spawn!((move |$(mut $x),+| $body.run(None, &mut [$(&mut $x),+]))($(arg!($m $k $c, $x)),+)?; ..$options)
    };
    (@ $c:ident, $body:ident, $options:ident, $task:ident, by_ref $($m:ident $k:ident $x:ident),+) => {
        spawn!((move |arg: &i64, $(mut $x),+| $body.run(Some(*arg), &mut [$(&mut $x),+]))($task, $(arg!($m $k $c, $x)),+)?; ..$options)
    };
    (@ $c:ident, $body:ident, $options:ident, $task:ident, by_value $($m:ident $k:ident $x:ident),+) => {
        spawn!((move |$(mut $x),+, arg: i64| $body.run(Some(arg), &mut [$(&mut $x),+]))($(arg!($m $k $c, $x)),+, $task.clone())?; ..$options)
    };
}

macro_rules! singles {
    ($List:ident $spawn:ident $form:ident; $($k:ident)*) => {
        table!($List $spawn, $form; $((In $k x))* $((Out $k x))* $((InOut $k x))* $((Ref $k x))*);
    };
}
singles!(ONE spawn_one plain; VWhole VRange VStep VList AWhole ARange AStep AList MWhole MBlock MLine MList MTri MBand MCut
    SWhole SInt SArray SPair);
singles!(ONE_REF spawn_one_ref by_ref; VWhole VRange VStep AList MWhole MBlock MLine MTri MBand SInt);
singles!(ONE_VALUE spawn_one_value by_value; VRange AWhole AStep VList MBlock MLine MCut MBand SPair);

table!(TWO spawn_two, plain;
    (InOut VRange x, In VRange y) (InOut VRange x, In VStep y) (InOut VRange x, Ref VWhole y) (In VRange x, InOut VList y)
    (InOut VWhole x, In MBlock y) (In VWhole x, InOut VWhole y) (Out VWhole x, In AWhole y) (InOut VWhole x, InOut SInt y)
    (InOut VStep x, In VStep y) (InOut VStep x, InOut VStep y) (Out VStep x, In VList y) (Out VRange x, Out VRange y)
    (InOut VList x, In VList y) (Ref VList x, Out AList y) (InOut VRange x, InOut ARange y) (InOut ARange x, In ARange y)
    (InOut AStep x, In AList y) (Out AWhole x, Ref VWhole y) (InOut AStep x, InOut MLine y) (In AWhole x, InOut MTri y)
    (InOut MBlock x, In MBlock y) (InOut MBlock x, In MLine y) (InOut MBlock x, In MTri y) (InOut MBlock x, In MBand y)
    (Out MBlock x, Ref MCut y) (InOut MLine x, In MLine y) (InOut MLine x, In MTri y) (InOut MLine x, In MBand y)
    (InOut MLine x, In MCut y) (Out MLine x, Out MLine y) (InOut MTri x, In MBand y) (InOut MTri x, InOut MBand y)
    (InOut MTri x, In MLine y) (InOut MBand x, In MBand y) (Out MBand x, InOut MBand y) (InOut MCut x, In MCut y)
    (InOut MList x, In MLine y) (InOut MList x, In MList y) (InOut MWhole x, In VWhole y) (In MWhole x, InOut VStep y)
    (InOut MTri x, In MTri y) (Out MTri x, In VRange y) (InOut SInt x, In SInt y) (InOut SInt x, InOut SInt y)
    (InOut SArray x, In SPair y) (Out SPair x, In SArray y) (InOut SPair x, In SInt y) (InOut SWhole x, In VRange y)
    (In SWhole x, InOut MBlock y) (Out SInt x, In MLine y) (InOut SArray x, InOut VRange y) (In MBlock x, In VRange y)
);
table!(THREE spawn_three, by_ref;
    (InOut VRange x, In VRange y, In VStep z) (InOut VStep x, InOut MBlock y, In ARange z) (InOut MBlock x, In MLine y, In MLine z)
    (InOut MBand x, In MTri y, InOut VRange z) (InOut SInt x, In SArray y, In SPair z) (In AWhole x, Out VWhole y, InOut VRange z)
    (InOut MLine x, InOut MLine y, InOut MLine z) (Out AList x, In VList y, Ref MWhole z) (InOut VRange x, InOut VRange y, InOut VRange z)
);
table!(FOUR spawn_four, by_value;
    (InOut VRange x, In VRange y, InOut MBlock z, In SInt w) (In VStep x, InOut VStep y, InOut AStep z, In AStep w)
    (InOut MLine x, InOut MBand y, In MBlock z, In VWhole w) (InOut SInt x, InOut SInt y, InOut SArray z, Ref AWhole w)
    (InOut VWhole x, InOut AWhole y, InOut MWhole z, InOut SWhole w) (Out VRange x, Out VRange y, Out MTri z, In MBand w)
);

macro_rules! async_table {
    ($( $name:ident ($($m:ident $k:ident $x:ident: $T:ty),+) )*) => {
        pub const ASYNC: &[Row] = &[$( &[$((Mode::$m, Kind::$k)),+] ),*];
        $(
            #[allow(unused_mut, reason = "what is read is not changed")]
            async fn $name($(mut $x: $T),+, body: Body) -> Result<i64, Failure> {
                let _ticks = body.start();
                tokio::task::yield_now().await;
                let h = body.read(None, &[$(&$x),+]);
                tokio::task::yield_now().await;
                let done = body.write(h, &mut [$(&mut $x),+]);
                tokio::task::yield_now().await;
                done
            }
        )*
        fn spawn_async(c: &Chunks, accesses: &[Access], body: Body, options: Options) -> DTask<i64> {
            let row: Vec<(Mode, Kind)> = accesses.iter().map(|access| (access.mode, access.kind)).collect();
            match (row.as_slice(), accesses) {
                $( ([$((Mode::$m, Kind::$k)),+], [$($x),+]) => spawn!(async $name($(arg!($m $k c, $x)),+, body)?; ..options), )*
                _ => panic!("no row for {row:?}"),
            }
        }
    };
}
async_table! {
    async_a(In VRange x: &[i64])
    async_b(InOut VRange x: &mut [i64])
    async_c(Out VStep x: VecMut<'_, i64>)
    async_d(InOut VWhole x: &mut Vec<i64>)
    async_e(InOut MBlock x: MatMut<'_, i64>)
    async_f(InOut MBand x: TriMut<'_, i64>)
    async_g(InOut VRange x: &mut [i64], In MLine y: VecRef<'_, i64>)
    async_h(Out AList x: VecMut<'_, i64>)
    async_i(In MTri x: TriRef<'_, i64>, InOut SInt y: &mut i64)
}

macro_rules! deps_table {
    ($( ($chunk:ident; $($m:ident $k:ident $x:ident => $selector:expr),+) )*) => {
        pub const DEPS: &[Row] = &[$( &[$((Mode::$m, Kind::$k)),+] ),*];
        /// How the regions of a row of `DEPS` look: the rest of them is random.
        #[allow(unused_variables, reason = "some selectors say it all")]
        fn spawn_deps(c: &Chunks, nth: usize, accesses: &[Access], body: Body, options: Options) -> DTask<i64> {
            let mut row = 0..;
            $(
                if row.next() == Some(nth) {
                    let [$($x),+] = accesses else { panic!("{SHAPE}") };
                    let first = &accesses[0];
                    return spawn!((move |($(mut $x),+,)| body.run(None, &mut [$(&mut $x),+]))(
                        Deps(deps_table!(@ $chunk c first), ($($m($selector)),+,))
                    )?; ..options);
                }
            )*
            panic!("no such row")
        }
    };
    (@ v $c:ident $first:ident) => { &$c.v[$first.chunk] };
    (@ m $c:ident $first:ident) => { &$c.m };
}
deps_table! {
    (m; In MTri x => lower(), InOut MBand y => upper().strict())
    (m; In MBand x => lower().strict(), InOut MLine y => diag())
    (m; Out MLine x => row(at_row(x)), In MBlock y => view(at_view(y).0, at_view(y).1))
    (m; InOut MLine x => col(at_col(x)), In MBand y => band(at_band(y)))
    (m; In MLine x => row(at_row(x)), In MLine y => row(at_row(y)), InOut MLine z => row(at_row(z)))
    (m; InOut MTri x => upper(), InOut MBand y => lower().unit())
    (v; In VStep x => slice(at_step(x)), InOut VStep y => slice(at_step(y)))
    (v; In VList x => slice(index(at_list(x))), Out VStep y => slice(at_step(y)), InOut VStep z => slice(at_step(z)))
}

/// The regions of a row of `DEPS` as selectors can say them, from random ones.
pub fn deps_regions(nth: usize, rows: usize, cols: usize, regions: &mut [Region]) {
    let of = |of: Of| Region::Matrix(Vec::new(), of);
    let line = |n: usize| Of::Row(n % rows.max(1), Vec::new());
    let seed = regions.iter().map(|region| region.to_string().len()).sum::<usize>();
    match nth {
        0 => {
            regions[0] = of(Of::Triangle(false));
            regions[1] = of(Of::Banded(Bandy::Strict(true), Vec::new(), None));
        }
        1 => {
            regions[0] = of(Of::Banded(Bandy::Strict(false), Vec::new(), None));
            regions[1] = of(Of::Diag(Vec::new()));
        }
        2 => {
            regions[0] = of(line(seed));
            if let Region::Matrix(views, Of::Block) = &mut regions[1] {
                views.truncate(1);
            }
        }
        3 => {
            regions[0] = of(Of::Col(seed % cols.max(1), Vec::new()));
            regions[1] = of(Of::Banded(Bandy::Band(seed % 3), Vec::new(), None));
        }
        4 => {
            for (nth, region) in regions.iter_mut().enumerate() {
                *region = of(line(seed / (nth + 1) + nth));
            }
        }
        5 => {
            regions[0] = of(Of::Triangle(true));
            regions[1] = of(Of::Banded(Bandy::Unit(false), Vec::new(), None));
        }
        _ => {
            for region in regions {
                let Region::Line(ops) = region else { panic!("{SHAPE}") };
                ops.retain(|op| !matches!(op, Op::Range(_)));
                ops.truncate(1);
            }
        }
    }
}

fn at_row(access: &Access) -> usize {
    let Region::Matrix(_, Of::Row(at, _)) = access.region else { panic!("{SHAPE}") };
    at
}
fn at_col(access: &Access) -> usize {
    let Region::Matrix(_, Of::Col(at, _)) = access.region else { panic!("{SHAPE}") };
    at
}
fn at_band(access: &Access) -> usize {
    let Region::Matrix(_, Of::Banded(Bandy::Band(k), ..)) = access.region else { panic!("{SHAPE}") };
    k
}
fn at_view(access: &Access) -> (super::region::Stepped, super::region::Stepped) {
    let Region::Matrix(views, Of::Block) = &access.region else { panic!("{SHAPE}") };
    views[0]
}
fn at_step(access: &Access) -> dagger_async::region::Step<Bounds> {
    let Some(Op::Step(bounds, by)) = ops(&access.region).first() else { panic!("{SHAPE}") };
    step(*bounds, *by)
}
fn at_list(access: &Access) -> Vec<usize> {
    let Some(Op::Index(list)) = ops(&access.region).first() else { panic!("{SHAPE}") };
    list.clone()
}

/// Which table a task is in.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Table {
    One,
    OneRef,
    OneValue,
    Two,
    Three,
    Four,
    Async,
    /// And which row.
    Deps(usize),
}

impl Table {
    pub fn rows(self) -> &'static [Row] {
        match self {
            Table::One => ONE,
            Table::OneRef => ONE_REF,
            Table::OneValue => ONE_VALUE,
            Table::Two => TWO,
            Table::Three => THREE,
            Table::Four => FOUR,
            Table::Async => ASYNC,
            Table::Deps(_) => DEPS,
        }
    }
    pub fn takes_argument(self) -> bool {
        matches!(self, Table::OneRef | Table::OneValue | Table::Three | Table::Four)
    }
    pub fn spawn(
        self,
        c: &Chunks,
        accesses: &[Access],
        arg: &DTask<i64>,
        body: Body,
        options: Options,
    ) -> DTask<i64> {
        match self {
            Table::One => spawn_one(c, accesses, arg, body, options),
            Table::OneRef => spawn_one_ref(c, accesses, arg, body, options),
            Table::OneValue => spawn_one_value(c, accesses, arg, body, options),
            Table::Two => spawn_two(c, accesses, arg, body, options),
            Table::Three => spawn_three(c, accesses, arg, body, options),
            Table::Four => spawn_four(c, accesses, arg, body, options),
            Table::Async => spawn_async(c, accesses, body, options),
            Table::Deps(nth) => spawn_deps(c, nth, accesses, body, options),
        }
    }
}

/// The forms of access outside tasks.
pub const GUARDS: &[Row] = &[
    &[(Mode::In, Kind::VWhole)],
    &[(Mode::InOut, Kind::VWhole)],
    &[(Mode::In, Kind::VRange)],
    &[(Mode::InOut, Kind::VRange)],
    &[(Mode::InOut, Kind::MLine)],
    &[(Mode::In, Kind::MTri)],
    &[(Mode::InOut, Kind::SPair)],
    &[(Mode::In, Kind::VRange), (Mode::InOut, Kind::MBlock)],
    &[(Mode::Out, Kind::VStep), (Mode::In, Kind::AWhole)],
    &[(Mode::Out, Kind::VRange), (Mode::InOut, Kind::VRange)],
    &[(Mode::Out, Kind::AWhole)],
];

/// A future of an access outside tasks that does what a body does.
pub type Guarded<'c> = std::pin::Pin<Box<dyn Future<Output = dagger_async::Result<i64>> + Send + 'c>>;

/// Takes its places at once; what it gives does the rest.
pub fn guard<'c>(c: &'c Chunks, accesses: &[Access], body: Body) -> Guarded<'c> {
    let row: Vec<(Mode, Kind)> = accesses.iter().map(|access| (access.mode, access.kind)).collect();
    let x = &accesses[0];
    macro_rules! one {
        ($place:expr, |$g:ident| $read:expr, $write:expr) => {{
            let place = $place;
            Box::pin(async move {
                #[allow(unused_mut, reason = "what is read is not changed")]
                let mut $g = place.await?;
                let _ticks = body.start();
                let h = body.read(None, $read);
                Ok(body.write(h, $write).unwrap())
            })
        }};
    }
    match GUARDS.iter().position(|known| *known == row.as_slice()).expect(SHAPE) {
        0 => one!(c.v[x.chunk].read(), |g| &[&&*g], &mut []),
        1 => one!(c.v[x.chunk].write(), |g| &[&&*g], &mut [&mut &mut *g]),
        2 => one!(part!(VRange c, x).read(), |g| &[&&*g], &mut []),
        3 => one!(part!(VRange c, x).write(), |g| &[&&*g], &mut [&mut &mut *g]),
        4 => one!(part!(MLine c, x).write(), |g| &[&g.get()], &mut [&mut g.get_mut()]),
        5 => one!(part!(MTri c, x).read(), |g| &[&g.get()], &mut []),
        6 => one!(part!(SPair c, x).write(), |g| &[&g.get()], &mut [&mut g.get_mut()]),
        7 => {
            let y = &accesses[1];
            let place = access((In(part!(VRange c, x)), InOut(part!(MBlock c, y))));
            one!(place, |g| &[&&*g.0, &g.1.get()], &mut [&mut Nothing, &mut g.1.get_mut()])
        }
        8 => {
            let place = access((Out(part!(VStep c, x)), In(&c.a)));
            one!(place, |g| &[&Nothing, &&*g.1], &mut [&mut g.0.get_mut()])
        }
        9 => {
            let y = &accesses[1];
            let place = access((Out(part!(VRange c, x)), InOut(part!(VRange c, y))));
            one!(place, |g| &[&Nothing, &&*g.1], &mut [&mut &mut *g.0, &mut &mut *g.1])
        }
        _ => one!(access((Out(&c.a),)), |g| &[&Nothing], &mut [&mut &mut *g.0]),
    }
}

/// Stands where the other mode is not asked.
struct Nothing;
impl Look for Nothing {
    fn get(&self) -> Vec<i64> {
        Vec::new()
    }
}
