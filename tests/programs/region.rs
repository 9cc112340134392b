//! Regions as a program writes them, and which elements they are: by brute force, element by element.
//!
//! 1. [`Region::resolve`] knows nothing of how the runtime compares regions: it lists the elements in the order of the view.
//! 2. What Rust would refuse but can be read as fewer elements (`c.slice(0..9).slice(0..2)` of six) is [`Fault::Maybe`]: the
//!    runtime may refuse it or not.

use dagger_async::region::{Ranges, step};
use dagger_core::{Outside, Progression};
use std::fmt;

/// A small generator: SplitMix64.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n.max(1)
    }
    /// True in one of `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// A range in any of its forms.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bounds {
    Half(usize, usize),
    Closed(usize, usize),
    From(usize),
    To(usize),
    ToClosed(usize),
    All,
}

/// With a step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Stepped(pub Bounds, pub Option<usize>);

impl Bounds {
    fn ends(self) -> (usize, Option<usize>) {
        match self {
            Bounds::Half(a, b) => (a, Some(b)),
            Bounds::Closed(a, b) => (a, Some(b + 1)),
            Bounds::From(a) => (a, None),
            Bounds::To(b) => (0, Some(b)),
            Bounds::ToClosed(b) => (0, Some(b + 1)),
            Bounds::All => (0, None),
        }
    }
    /// Mostly inside a line of `len`.
    pub fn random(rng: &mut Rng, len: usize, wild: bool) -> Bounds {
        let len = if wild && rng.one_in(12) { len + 2 } else { len };
        let a = rng.below(len + 1);
        let b = a + rng.below(len - a + 1);
        match rng.below(7) {
            0 if b > a => Bounds::Closed(a, b - 1),
            1 => Bounds::From(a),
            2 => Bounds::To(b),
            3 if b > 0 => Bounds::ToClosed(b - 1),
            4 => Bounds::All,
            _ => Bounds::Half(a, b),
        }
    }
}

impl Ranges for Bounds {
    fn progression(self) -> Result<Progression, Outside> {
        match self {
            Bounds::Half(a, b) => (a..b).progression(),
            Bounds::Closed(a, b) => (a..=b).progression(),
            Bounds::From(a) => (a..).progression(),
            Bounds::To(b) => (..b).progression(),
            Bounds::ToClosed(b) => (..=b).progression(),
            Bounds::All => (..).progression(),
        }
    }
}

impl Ranges for Stepped {
    fn progression(self) -> Result<Progression, Outside> {
        match self.1 {
            Some(by) => step(self.0, by).progression(),
            None => self.0.progression(),
        }
    }
}

impl Stepped {
    pub fn random(rng: &mut Rng, len: usize, wild: bool) -> Stepped {
        let by = rng.one_in(3).then(|| 1 + rng.below(3));
        Stepped(Bounds::random(rng, len, wild), by)
    }
}

/// One step along a chain of parts of a line.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    Range(Bounds),
    Step(Bounds, usize),
    Index(Vec<usize>),
}

/// What of a matrix, or of a block of it.
#[derive(Clone, PartialEq, Debug)]
pub enum Of {
    Block,
    Row(usize, Vec<Op>),
    Col(usize, Vec<Op>),
    Diag(Vec<Op>),
    /// Upper or lower.
    Triangle(bool),
    /// What of a banded part: then parts of it, at last a row or column.
    Banded(Bandy, Vec<(Stepped, Stepped)>, Option<Cut>),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Bandy {
    Band(usize),
    Strict(bool),
    Unit(bool),
    /// With its diagonal, made a band by a view or a row of it.
    Full(bool),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cut {
    Row(usize),
    Col(usize),
}

#[derive(Clone, PartialEq, Debug)]
pub enum Region {
    Whole,
    Line(Vec<Op>),
    Matrix(Vec<(Stepped, Stepped)>, Of),
    /// 0: a, 1: b, 2: c, 3: c.0, 4: c.1, 5: c, then .0, 6: c, then .1
    Field(usize),
}

/// Whether a region lies outside.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Fault {
    None,
    Maybe,
    Sure,
}

/// The elements of a region, in the order of the view.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub elements: Vec<usize>,
    pub whole: bool,
    pub fault: Fault,
    /// An element is listed twice.
    pub twice: bool,
}

impl Resolved {
    pub fn meets(&self, other: &Resolved) -> bool {
        match (self.whole, other.whole) {
            (true, true) => true,
            (true, false) => !other.elements.is_empty(),
            (false, true) => !self.elements.is_empty(),
            _ => self.elements.iter().any(|element| other.elements.contains(element)),
        }
    }
}

const NOWHERE: usize = usize::MAX;

/// Positions along an axis: of a line around, or of the container itself.
struct Line {
    at: Vec<usize>,
    /// It is the container: positions behind its end can be named.
    open: bool,
    strict: bool,
}

impl Line {
    fn all(len: usize) -> Line {
        Line { at: (0..len).collect(), open: true, strict: false }
    }
    fn at(&mut self, position: usize) -> usize {
        match self.at.get(position) {
            Some(&at) => at,
            None => {
                self.strict = true;
                if self.open { position } else { NOWHERE }
            }
        }
    }
    fn part(&mut self, Stepped(bounds, by): Stepped) -> Vec<usize> {
        let (start, end) = bounds.ends();
        let end = end.unwrap_or(self.at.len());
        self.strict |= start > self.at.len() || end > self.at.len() || by == Some(0);
        let by = by.unwrap_or(1);
        if by == 0 {
            return vec![NOWHERE];
        }
        (start..end.max(start)).step_by(by).collect()
    }
    fn cut(&mut self, positions: &[usize]) {
        self.at = positions.iter().map(|&position| self.at(position)).collect();
        self.open = false;
    }
    fn apply(&mut self, op: &Op) {
        let positions = match op {
            Op::Range(bounds) => self.part(Stepped(*bounds, None)),
            Op::Step(bounds, by) => self.part(Stepped(*bounds, Some(*by))),
            Op::Index(list) => list.clone(),
        };
        self.cut(&positions);
    }
}

impl Region {
    /// The elements in a container of this shape: `dims.1` is 0 for lines.
    pub fn resolve(&self, (rows, cols): (usize, usize)) -> Resolved {
        let len = if cols == 0 { rows } else { rows * cols };
        let done = |elements: Vec<usize>, strict: bool| {
            let fault = match () {
                () if elements.iter().any(|&element| element >= len) => Fault::Sure,
                () if strict => Fault::Maybe,
                () => Fault::None,
            };
            let twice = (1..elements.len()).any(|at| elements[..at].contains(&elements[at]));
            Resolved { elements, whole: false, fault, twice }
        };
        match self {
            Region::Whole => {
                Resolved { elements: (0..len).collect(), whole: true, fault: Fault::None, twice: false }
            }
            Region::Line(ops) => {
                let mut line = Line::all(len);
                ops.iter().for_each(|op| line.apply(op));
                done(line.at, line.strict)
            }
            Region::Field(field) => {
                done([&[0][..], &[1, 2], &[3, 4], &[3], &[4], &[3], &[4]][*field].to_vec(), false)
            }
            Region::Matrix(views, of) => {
                let (mut down, mut across) = (Line::all(rows), Line::all(cols));
                for (r, c) in views {
                    let (r, c) = (down.part(*r), across.part(*c));
                    down.cut(&r);
                    across.cut(&c);
                }
                let strict = |down: &Line, across: &Line| down.strict || across.strict;
                let id = |row: usize, col: usize| {
                    if row >= rows || col >= cols { NOWHERE } else { row * cols + col }
                };
                let line = |elements: Vec<usize>, ops: &[Op], mut strict: bool| {
                    let mut line = Line { at: elements, open: false, strict: false };
                    ops.iter().for_each(|op| line.apply(op));
                    strict |= line.strict;
                    done(line.at, strict)
                };
                match of {
                    Of::Block => {
                        let each = |&c: &usize| down.at.iter().map(move |&r| id(r, c));
                        done(across.at.iter().flat_map(each).collect(), strict(&down, &across))
                    }
                    Of::Row(row, ops) => {
                        let row = down.at(*row);
                        line(across.at.iter().map(|&c| id(row, c)).collect(), ops, strict(&down, &across))
                    }
                    Of::Col(col, ops) => {
                        let col = across.at(*col);
                        line(down.at.iter().map(|&r| id(r, col)).collect(), ops, strict(&down, &across))
                    }
                    Of::Diag(ops) => {
                        let pairs = down.at.iter().zip(&across.at).map(|(&r, &c)| id(r, c));
                        line(pairs.collect(), ops, strict(&down, &across))
                    }
                    Of::Triangle(upper) => banded(Bandy::Full(*upper), &[], None, down, across, &id, &done),
                    Of::Banded(bandy, views, cut) => banded(*bandy, views, *cut, down, across, &id, &done),
                }
            }
        }
    }
}

fn banded(
    bandy: Bandy,
    views: &[(Stepped, Stepped)],
    cut: Option<Cut>,
    mut down: Line,
    mut across: Line,
    id: &dyn Fn(usize, usize) -> usize,
    done: &dyn Fn(Vec<usize>, bool) -> Resolved,
) -> Resolved {
    let keeps = |i: usize, j: usize| match bandy {
        Bandy::Band(k) => i.abs_diff(j) <= k,
        Bandy::Strict(upper) | Bandy::Unit(upper) => {
            if upper {
                j > i
            } else {
                j < i
            }
        }
        Bandy::Full(upper) => {
            if upper {
                j >= i
            } else {
                j <= i
            }
        }
    };
    let mut strict = down.strict || across.strict;
    // Positions in the matrix around decide what is kept, also behind its end.
    let (mut i, mut j) = (Line::all(down.at.len()), Line::all(across.at.len()));
    for (r, c) in views {
        let (r, c) = (i.part(*r), j.part(*c));
        i.cut(&r);
        j.cut(&c);
        (i.open, j.open) = (false, false);
    }
    let rows = match cut {
        Some(Cut::Row(row)) => vec![i.at(row)],
        _ => i.at.clone(),
    };
    let cols = match cut {
        Some(Cut::Col(col)) => vec![j.at(col)],
        _ => j.at.clone(),
    };
    strict |= i.strict || j.strict;
    let mut elements = Vec::new();
    for &col in &cols {
        for &row in &rows {
            if keeps(row, col) {
                elements.push(id(down.at(row), across.at(col)));
            }
        }
    }
    done(elements, strict)
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bounds::Half(a, b) => write!(f, "{a}..{b}"),
            Bounds::Closed(a, b) => write!(f, "{a}..={b}"),
            Bounds::From(a) => write!(f, "{a}.."),
            Bounds::To(b) => write!(f, "..{b}"),
            Bounds::ToClosed(b) => write!(f, "..={b}"),
            Bounds::All => write!(f, ".."),
        }
    }
}

impl fmt::Display for Stepped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(by) => write!(f, "step({}, {by})", self.0),
            None => self.0.fmt(f),
        }
    }
}

fn show_ops(ops: &[Op], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    ops.iter().try_for_each(|op| match op {
        Op::Range(bounds) => write!(f, ".slice({bounds})"),
        Op::Step(bounds, by) => write!(f, ".slice(step({bounds}, {by}))"),
        Op::Index(list) => write!(f, ".slice(index({list:?}))"),
    })
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |upper: bool| if upper { "upper()" } else { "lower()" };
        let show_views = |views: &[(Stepped, Stepped)], f: &mut fmt::Formatter<'_>| {
            views.iter().try_for_each(|(r, c)| write!(f, ".view({r}, {c})"))
        };
        match self {
            Region::Whole => Ok(()),
            Region::Line(ops) => show_ops(ops, f),
            Region::Field(field) => {
                write!(f, "{}", [".a", ".b", ".c", ".c.0", ".c.1", ".c .0", ".c .1"][*field])
            }
            Region::Matrix(views, of) => {
                show_views(views, f)?;
                match of {
                    Of::Block => Ok(()),
                    Of::Row(row, ops) => write!(f, ".row({row})").and_then(|()| show_ops(ops, f)),
                    Of::Col(col, ops) => write!(f, ".col({col})").and_then(|()| show_ops(ops, f)),
                    Of::Diag(ops) => write!(f, ".diag()").and_then(|()| show_ops(ops, f)),
                    Of::Triangle(upper) => write!(f, ".{}", side(*upper)),
                    Of::Banded(bandy, views, cut) => {
                        match bandy {
                            Bandy::Band(k) => write!(f, ".band({k})")?,
                            Bandy::Strict(upper) => write!(f, ".{}.strict()", side(*upper))?,
                            Bandy::Unit(upper) => write!(f, ".{}.unit()", side(*upper))?,
                            Bandy::Full(upper) => write!(f, ".{}", side(*upper))?,
                        }
                        show_views(views, f)?;
                        match cut {
                            Some(Cut::Row(row)) => write!(f, ".row({row})"),
                            Some(Cut::Col(col)) => write!(f, ".col({col})"),
                            None => Ok(()),
                        }
                    }
                }
            }
        }
    }
}
