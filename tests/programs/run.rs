//! Programs: how they are made, shown, made smaller, and run.

use super::call::{
    Access, Body, CHUNKS, Chunks, End, Fields, GUARDS, Kind, Log, Mode, Point, Ran, Row, Table, deps_regions,
    guard,
};
use super::region::{Bandy, Bounds, Cut, Fault, Of, Op, Region, Rng, Stepped};
use dagger_async::prelude::*;
use dagger_tests::Gate;
use ndarray::{Array2, ShapeBuilder};
use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cancel {
    No,
    /// Before it can have started.
    Unstarted,
    /// Right after its spawn: it may have run or not.
    Whenever,
}

#[derive(Clone, Debug)]
pub struct Task {
    pub no: usize,
    pub table: Table,
    pub accesses: Vec<Access>,
    /// The task whose result it takes.
    pub arg: Option<usize>,
    pub end: End,
    pub resize: Option<usize>,
    pub cancel: Cancel,
    pub blocking: bool,
    pub priority: i32,
    /// It accesses nothing and runs a program of its own.
    pub inner: Option<Box<Program>>,
}

#[derive(Clone, Debug)]
pub enum Stmt {
    Spawn(Task),
    /// A block in the block.
    Block(usize, Vec<Stmt>),
    /// Of a task, in the body.
    Await(usize),
    /// Takes places, spawns, and then waits for its turn.
    Guard {
        no: usize,
        accesses: Vec<Access>,
        between: Vec<Task>,
    },
    Recover {
        no: usize,
        chunk: usize,
    },
    Room,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Order {
    Free,
    Linear,
    Inline,
}

#[derive(Clone, Debug)]
pub struct Program {
    /// Its block has this number.
    pub no: usize,
    pub lens: [usize; 2],
    pub dims: (usize, usize),
    /// How the matrix lies in memory.
    pub columns_first: bool,
    /// Which chunks are made by a task.
    pub made: [bool; CHUNKS],
    pub order: Order,
    pub stmts: Vec<Stmt>,
}

impl Program {
    pub fn dims_of(&self, chunk: usize) -> (usize, usize) {
        match chunk {
            0 | 1 => (self.lens[chunk], 0),
            3 => self.dims,
            _ => (5, 0),
        }
    }
}

pub fn initial(chunk: usize, at: usize) -> i64 {
    (100 * chunk + at) as i64
}

// Making programs.

pub struct Maker {
    pub rng: Rng,
    next: usize,
    /// Lengths as they will be, and what is known.
    lens: [usize; 2],
    dims: (usize, usize),
    tasks: Vec<usize>,
    /// Nothing fails, nothing lies outside.
    clean: bool,
    /// No waits that an inline task could not end.
    order: Order,
    depth: usize,
}

pub fn program(seed: u64, size: usize) -> Program {
    let mut rng = Rng(seed);
    let order = match rng.below(10) {
        0 => Order::Linear,
        1 => Order::Inline,
        _ => Order::Free,
    };
    let clean = rng.one_in(3);
    let mut maker =
        Maker { rng, next: 0, lens: [0; 2], dims: (0, 0), tasks: Vec::new(), clean, order, depth: 0 };
    maker.program(size)
}

impl Maker {
    /// One that makes single accesses.
    pub fn of_accesses(seed: u64, lens: [usize; 2], dims: (usize, usize)) -> Maker {
        Maker {
            rng: Rng(seed),
            next: 0,
            lens,
            dims,
            tasks: Vec::new(),
            clean: true,
            order: Order::Free,
            depth: 0,
        }
    }

    /// A task that cannot fail and runs nothing inside.
    pub fn plain_task(&mut self) -> Task {
        let lens = self.lens;
        loop {
            let task = self.task(0);
            self.lens = lens;
            if !is_faulty(&task.accesses, &|chunk| self.dims_of(chunk)) && task.resize.is_none() {
                return task;
            }
        }
    }

    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    fn program(&mut self, size: usize) -> Program {
        let lens = [1 + self.rng.below(7), 4 + self.rng.below(3)];
        let dims = *self.rng.pick(&[(3, 3), (4, 4), (4, 3), (2, 5), (1, 3), (5, 2)]);
        let around = (self.lens, self.dims, std::mem::take(&mut self.tasks));
        (self.lens, self.dims) = (lens, dims);
        let no = self.number();
        let made = std::array::from_fn(|_| self.rng.one_in(8));
        let columns_first = self.rng.one_in(2);
        let stmts = self.stmts(size);
        (self.lens, self.dims, self.tasks) = around;
        Program { no, lens, dims, columns_first, made, order: self.order, stmts }
    }

    fn stmts(&mut self, size: usize) -> Vec<Stmt> {
        let count = 1 + self.rng.below(size);
        (0..count).map(|_| self.stmt(size)).collect()
    }

    fn stmt(&mut self, size: usize) -> Stmt {
        match self.rng.below(40) {
            0 | 1 if self.depth < 2 && size > 2 => {
                self.depth += 1;
                let no = self.number();
                let stmts = self.stmts(size / 2);
                self.depth -= 1;
                Stmt::Block(no, stmts)
            }
            2 | 3 if !self.tasks.is_empty() => Stmt::Await(*self.rng.pick(&self.tasks)),
            4 | 5 => {
                let no = self.number();
                let row = *self.rng.pick(GUARDS);
                let accesses = self.accesses(row);
                let between = match self.order {
                    Order::Inline => 0,
                    _ => self.rng.below(3),
                };
                let between = (0..between).map(|_| self.task(0)).collect();
                Stmt::Guard { no, accesses, between }
            }
            6 if !self.clean => Stmt::Recover { no: self.number(), chunk: self.rng.below(CHUNKS) },
            7 => Stmt::Room,
            _ => Stmt::Spawn(self.task(size)),
        }
    }

    fn task(&mut self, size: usize) -> Task {
        let no = self.number();
        let table = match self.rng.below(20) {
            0..5 => Table::One,
            5 | 6 => Table::OneRef,
            7 | 8 => Table::OneValue,
            9..14 => Table::Two,
            14 | 15 => Table::Three,
            16 => Table::Four,
            17 => Table::Deps(self.rng.below(Table::Deps(0).rows().len())),
            _ => Table::Async,
        };
        let row = match table {
            Table::Deps(nth) => table.rows()[nth],
            _ => *self.rng.pick(table.rows()),
        };
        let mut accesses = self.accesses(row);
        if let Table::Deps(nth) = table {
            let mut regions: Vec<Region> = accesses.iter().map(|access| access.region.clone()).collect();
            deps_regions(nth, self.dims.0, self.dims.1, &mut regions);
            let chunk = accesses[0].chunk;
            for (access, region) in accesses.iter_mut().zip(regions) {
                access.region = region;
                access.chunk = chunk;
            }
        }
        let arg = match self.tasks.is_empty() {
            false if table.takes_argument() => Some(*self.rng.pick(&self.tasks)),
            _ => None,
        };
        let inner = (size > 2 && self.depth < 2 && self.rng.one_in(30)).then(|| {
            self.depth += 1;
            let inner = self.program(size / 2);
            self.depth -= 1;
            Box::new(inner)
        });
        let whole = accesses.iter().any(|access| access.kind == Kind::VWhole && access.mode.writes());
        let resize = (whole && self.rng.one_in(3)).then(|| 1 + self.rng.below(7));
        let (end, cancel) = match self.rng.below(24) {
            _ if self.clean => (End::Value, Cancel::No),
            which @ 0..4 => {
                let at = *self.rng.pick(&[Point::Before, Point::Between, Point::After]);
                (End::Fails { at, panics: which == 0 }, Cancel::No)
            }
            4 if self.order != Order::Inline => (End::Value, Cancel::Unstarted),
            5 if inner.is_none() && table != Table::Async => (End::Value, Cancel::Whenever),
            _ => (End::Value, Cancel::No),
        };
        if let Some(len) = resize.filter(|_| inner.is_none()) {
            for access in accesses.iter().filter(|access| access.kind == Kind::VWhole && access.mode.writes())
            {
                self.lens[access.chunk] = len;
            }
        }
        self.tasks.push(no);
        let blocking = table == Table::One && self.rng.one_in(20);
        let priority = if self.rng.one_in(8) { self.rng.below(5) as i32 - 2 } else { 0 };
        Task { no, table, accesses, arg, end, resize, cancel, blocking, priority, inner }
    }

    fn accesses(&mut self, row: Row) -> Vec<Access> {
        for _ in 0..200 {
            let mut accesses: Vec<Access> = Vec::new();
            for &(mode, kind) in row {
                let access = self.access(mode, kind);
                accesses.push(access);
            }
            let wild = !self.clean && self.rng.one_in(10);
            if wild || !is_faulty(&accesses, &|chunk| self.dims_of(chunk)) {
                return accesses;
            }
        }
        row.iter().map(|&(mode, kind)| self.access(mode, kind)).collect()
    }

    pub fn dims_of(&self, chunk: usize) -> (usize, usize) {
        match chunk {
            0 | 1 => (self.lens[chunk], 0),
            3 => self.dims,
            _ => (5, 0),
        }
    }

    pub fn access(&mut self, mode: Mode, kind: Kind) -> Access {
        use Kind::*;
        let chunk = match kind {
            VWhole | VRange | VStep | VList => self.rng.below(4).min(1),
            AWhole | ARange | AStep | AList => 2,
            SWhole | SInt | SArray | SPair => 4,
            _ => 3,
        };
        Access { chunk, mode, kind, region: self.region(kind, chunk) }
    }

    pub fn region(&mut self, kind: Kind, chunk: usize) -> Region {
        use Kind::*;
        let wild = !self.clean;
        let dims = self.dims_of(chunk);
        let rng = &mut self.rng;
        match kind {
            VWhole | AWhole | MWhole | SWhole => Region::Whole,
            VRange | ARange => Region::Line(line(rng, dims.0, Some(false), wild)),
            VStep | AStep => Region::Line(line(rng, dims.0, Some(true), wild)),
            VList | AList => Region::Line(line(rng, dims.0, None, wild)),
            SInt => Region::Field(*rng.pick(&[0, 0, 3, 4, 5, 6])),
            SArray => Region::Field(1),
            SPair => Region::Field(2),
            _ => {
                let mut dims = dims;
                let mut views = Vec::new();
                let chain = match kind {
                    MBlock => 1 + rng.below(2),
                    _ => rng.below(4).saturating_sub(2),
                };
                for _ in 0..chain {
                    views.push(cut(rng, &mut dims, wild));
                }
                let row = |rng: &mut Rng, dims: (usize, usize)| {
                    let more = usize::from(wild && rng.one_in(15));
                    rng.below(dims.0 + more)
                };
                let col = |rng: &mut Rng, dims: (usize, usize)| {
                    let more = usize::from(wild && rng.one_in(15));
                    rng.below(dims.1 + more)
                };
                let of = match kind {
                    MBlock => Of::Block,
                    MLine | MList => {
                        let ops = |rng: &mut Rng, len: usize| match kind {
                            MList => line(rng, len, None, wild).into_iter().collect(),
                            _ if rng.one_in(2) => Vec::new(),
                            _ => line(rng, len, Some(rng.clone().one_in(2)), wild),
                        };
                        match rng.below(3) {
                            0 => Of::Row(row(rng, dims), ops(rng, dims.1)),
                            1 => Of::Col(col(rng, dims), ops(rng, dims.0)),
                            _ => Of::Diag(ops(rng, dims.0.min(dims.1))),
                        }
                    }
                    MTri => Of::Triangle(rng.one_in(2)),
                    _ => {
                        let upper = rng.one_in(2);
                        let bandy = match rng.below(4) {
                            0 => Bandy::Band(rng.below(3)),
                            1 => Bandy::Strict(upper),
                            2 => Bandy::Unit(upper),
                            _ => Bandy::Full(upper),
                        };
                        let mut inner = Vec::new();
                        let least = usize::from(kind == MBand && matches!(bandy, Bandy::Full(_)));
                        for _ in 0..least.max(rng.below(3).saturating_sub(1)) {
                            inner.push(cut(rng, &mut dims, wild));
                        }
                        let at = (kind == MCut).then(|| match rng.one_in(2) {
                            true => Cut::Row(rng.below(dims.0)),
                            false => Cut::Col(rng.below(dims.1)),
                        });
                        Of::Banded(bandy, inner, at)
                    }
                };
                Region::Matrix(views, of)
            }
        }
    }
}

/// Rows and columns of what is left.
fn cut(rng: &mut Rng, dims: &mut (usize, usize), wild: bool) -> (Stepped, Stepped) {
    let mut one = |len: &mut usize| {
        let part = if rng.one_in(4) { Stepped(Bounds::All, None) } else { Stepped::random(rng, *len, wild) };
        *len = length(part, *len);
        part
    };
    (one(&mut dims.0), one(&mut dims.1))
}

fn length(Stepped(bounds, by): Stepped, len: usize) -> usize {
    let resolved = Region::Line(vec![Op::Step(bounds, by.unwrap_or(1))]).resolve((len, 0));
    resolved.elements.len().min(len)
}

/// A chain that ends as ranges (`Some(false)`), with a step (`Some(true)`) or a list.
fn line(rng: &mut Rng, mut len: usize, kind: Option<bool>, wild: bool) -> Vec<Op> {
    let mut ops = Vec::new();
    let before = if kind == Some(false) { 0 } else { rng.below(4).saturating_sub(2) };
    for _ in 0..before {
        let bounds = Bounds::random(rng, len, wild);
        len = length(Stepped(bounds, None), len);
        ops.push(Op::Range(bounds));
    }
    let first = match kind {
        Some(false) => Op::Range(Bounds::random(rng, len, wild)),
        Some(true) => {
            let zero = wild && rng.one_in(60);
            Op::Step(Bounds::random(rng, len, wild), if zero { 0 } else { 1 + rng.below(3) })
        }
        None => {
            let count = rng.below(len + 1);
            let mut left: Vec<usize> = (0..len).collect();
            let mut list: Vec<usize> = (0..count).map(|_| left.remove(rng.below(left.len()))).collect();
            if wild && rng.one_in(10) {
                list.push(rng.below(len + 2));
            }
            Op::Index(list)
        }
    };
    len = match &first {
        Op::Range(bounds) => length(Stepped(*bounds, None), len),
        Op::Step(bounds, by) => length(Stepped(*bounds, Some((*by).max(1))), len),
        Op::Index(list) => list.len(),
    };
    ops.push(first);
    if rng.one_in(4) {
        let bounds = Bounds::random(rng, len, wild);
        ops.push(match kind {
            Some(false) => Op::Range(bounds),
            Some(true) if rng.one_in(2) => Op::Step(bounds, 1 + rng.below(2)),
            None if rng.one_in(2) => Op::Index((0..len).rev().collect()),
            _ => Op::Range(bounds),
        });
    }
    ops
}

/// Lies outside, or accesses an element twice.
pub fn is_faulty(accesses: &[Access], dims: &dyn Fn(usize) -> (usize, usize)) -> bool {
    let resolved: Vec<_> = accesses.iter().map(|access| access.region.resolve(dims(access.chunk))).collect();
    let outside = resolved.iter().any(|resolved| resolved.fault != Fault::None);
    let twice =
        accesses.iter().zip(&resolved).any(|(access, resolved)| access.mode.writes() && resolved.twice);
    let aliased = (0..accesses.len()).any(|i| {
        (0..i).any(|j| {
            let (one, other) = (&accesses[i], &accesses[j]);
            one.chunk == other.chunk
                && (one.mode.writes() || other.mode.writes())
                && resolved[i].meets(&resolved[j])
        })
    });
    outside || twice || aliased
}

// Making them smaller.

impl Program {
    /// Programs that are a little smaller, the smallest first.
    pub fn smaller(&self) -> Vec<Program> {
        let mut all = Vec::new();
        let with = |stmts: Vec<Stmt>| Program { stmts, ..self.clone() };
        let n = self.stmts.len();
        if n > 3 {
            all.push(with(self.stmts[..n / 2].to_vec()));
            all.push(with(self.stmts[n / 2..].to_vec()));
        }
        all.extend(smaller_lists(&self.stmts).into_iter().map(with));
        if self.order != Order::Free {
            all.push(Program { order: Order::Free, ..self.clone() });
        }
        for chunk in 0..CHUNKS {
            if self.made[chunk] {
                let mut made = self.made;
                made[chunk] = false;
                all.push(Program { made, ..self.clone() });
            }
        }
        all
    }
}

fn smaller_lists(stmts: &[Stmt]) -> Vec<Vec<Stmt>> {
    let mut all = Vec::new();
    for at in 0..stmts.len() {
        let instead = |new: Vec<Stmt>| [&stmts[..at], &new[..], &stmts[at + 1..]].concat();
        all.push(instead(Vec::new()));
        match &stmts[at] {
            Stmt::Block(no, inner) => {
                all.push(instead(inner.clone()));
                all.extend(
                    smaller_lists(inner).into_iter().map(|inner| instead(vec![Stmt::Block(*no, inner)])),
                );
            }
            Stmt::Guard { no, accesses, between } => {
                for nth in 0..between.len() {
                    let mut between = between.clone();
                    between.remove(nth);
                    all.push(instead(vec![Stmt::Guard { no: *no, accesses: accesses.clone(), between }]));
                }
            }
            Stmt::Spawn(task) => {
                let mut with = |task: Task| all.push(instead(vec![Stmt::Spawn(task)]));
                if let Some(inner) = &task.inner {
                    with(Task { inner: None, ..task.clone() });
                    for inner in inner.smaller() {
                        with(Task { inner: Some(Box::new(inner)), ..task.clone() });
                    }
                }
                if task.cancel != Cancel::No {
                    with(Task { cancel: Cancel::No, ..task.clone() });
                }
                if task.end != End::Value {
                    with(Task { end: End::Value, ..task.clone() });
                }
                if task.arg.is_some() {
                    with(Task { arg: None, ..task.clone() });
                }
                if task.resize.is_some() {
                    with(Task { resize: None, ..task.clone() });
                }
                if task.priority != 0 || task.blocking {
                    with(Task { priority: 0, blocking: false, ..task.clone() });
                }
                if task.accesses.len() > 1 && !matches!(task.table, Table::Deps(_)) {
                    for access in &task.accesses {
                        let accesses = vec![access.clone()];
                        with(Task { table: Table::One, accesses, arg: None, ..task.clone() });
                    }
                }
                for nth in 0..task.accesses.len() {
                    if let (Region::Line(ops), false) =
                        (&task.accesses[nth].region, matches!(task.table, Table::Deps(_)))
                    {
                        for op in 0..ops.len() {
                            let mut fewer = ops.clone();
                            let gone = fewer.remove(op);
                            let kind = |ops: &[Op]| {
                                (
                                    ops.iter().any(|op| matches!(op, Op::Step(..))),
                                    ops.iter().any(|op| matches!(op, Op::Index(_))),
                                    ops.first().is_some_and(|op| matches!(op, Op::Range(_))),
                                )
                            };
                            if kind(&fewer) == kind(ops) && !fewer.is_empty() && matches!(gone, Op::Range(_))
                            {
                                let mut task = task.clone();
                                task.accesses[nth].region = Region::Line(fewer);
                                with(task);
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }
    all
}

// Showing them.

const NAMES: [&str; CHUNKS] = ["v", "w", "a", "m", "s"];

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Access { chunk, mode, region, .. } = self;
        match mode {
            Mode::Ref => write!(f, "&{}{region}", NAMES[*chunk]),
            _ => write!(f, "{mode:?}({}{region})", NAMES[*chunk]),
        }
    }
}

fn show_all(accesses: &[Access]) -> String {
    accesses.iter().map(|access| access.to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(inner) = &self.inner {
            write!(f, "t{} = spawn {{ {inner} }}", self.no)?;
        } else {
            write!(f, "t{} = {:?}({})", self.no, self.table, show_all(&self.accesses))?;
        }
        if let Some(arg) = self.arg {
            write!(f, " of t{arg}")?;
        }
        if let Some(len) = self.resize {
            write!(f, " resizes to {len}")?;
        }
        if let End::Fails { at, panics } = self.end {
            write!(f, " {} {at:?}", if panics { "panics" } else { "fails" })?;
        }
        if self.cancel != Cancel::No {
            write!(f, " cancelled {:?}", self.cancel)?;
        }
        if self.blocking {
            write!(f, " blocking")?;
        }
        if self.priority != 0 {
            write!(f, " priority {}", self.priority)?;
        }
        Ok(())
    }
}

impl fmt::Display for Stmt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stmt::Spawn(task) => task.fmt(f),
            Stmt::Block(no, stmts) => {
                writeln!(f, "block {no} {{")?;
                stmts.iter().try_for_each(|stmt| writeln!(f, "{stmt}"))?;
                write!(f, "}}")
            }
            Stmt::Await(task) => write!(f, "await t{task}"),
            Stmt::Guard { no, accesses, between } => {
                write!(f, "g{no} = access({})", show_all(accesses))?;
                between.iter().try_for_each(|task| write!(f, "\n{task}"))?;
                write!(f, "\nawait g{no}")
            }
            Stmt::Recover { chunk, .. } => write!(f, "{}.recover().await", NAMES[*chunk]),
            Stmt::Room => write!(f, "room().await"),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made: Vec<&str> = (0..CHUNKS).filter(|&at| self.made[at]).map(|at| NAMES[at]).collect();
        let Program { lens, dims, columns_first, order, .. } = self;
        writeln!(
            f,
            "v: [{}], w: [{}], a: [5], m: {dims:?} columns first: {columns_first}, made by tasks: {made:?}, order {order:?}",
            lens[0], lens[1]
        )?;
        self.stmts.iter().try_for_each(|stmt| writeln!(f, "{stmt}"))
    }
}

// Running them.

/// How a task or guard ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    Value(i64),
    /// The variant of the error, and the name of its root.
    Error(&'static str, Option<String>),
}

/// What a run showed.
#[derive(Clone, Default, Debug)]
pub struct Seen {
    /// Tasks, guards and recoveries by number.
    pub outcomes: HashMap<usize, Outcome>,
    /// Blocks by number: the failures they gave, as variant and root.
    pub blocks: HashMap<usize, Vec<Outcome>>,
    pub ran: HashMap<usize, Ran>,
    pub inner: HashMap<usize, Seen>,
    /// Each chunk at last: what a read gives, and what is in it.
    pub ends: Vec<(Option<Outcome>, Vec<i64>)>,
}

pub fn outcome(error: &Error) -> Outcome {
    let variant = match error {
        Error::Task { .. } => "Task",
        Error::Panicked { .. } => "Panicked",
        Error::Dependency { .. } => "Dependency",
        Error::Cancelled { .. } => "Cancelled",
        Error::Poisoned { .. } => "Poisoned",
        Error::Aliased { .. } => "Aliased",
        Error::OutOfBounds { .. } => "OutOfBounds",
        Error::Deadlock { .. } => "Deadlock",
        _ => "another",
    };
    Outcome::Error(variant, error.root().map(|root| root.name().to_owned()))
}

fn result(result: &dagger_async::Result<i64>) -> Outcome {
    match result {
        Ok(value) => Outcome::Value(*value),
        Err(error) => outcome(error),
    }
}

struct Env {
    /// Of the block with this number.
    plan: Option<(usize, Arc<Plan>)>,
    chunks: Chunks,
    log: Arc<Log>,
    ready: DTask<i64>,
    handles: Mutex<HashMap<usize, DTask<i64>>>,
    seen: Mutex<Seen>,
}

fn chunk<T: Send + Sync + 'static>(made: bool, value: impl FnOnce() -> T + Send + 'static) -> Chunk<T> {
    match made {
        true => Chunk::from_task(spawn!((value)(); name = "maker")),
        false => Chunk::new(value()),
    }
}

pub fn chunks(program: &Program) -> Chunks {
    let vec = |at: usize| {
        let len = program.lens[at];
        chunk(program.made[at], move || (0..len).map(|nth| initial(at, nth)).collect::<Vec<i64>>())
    };
    let dims = program.dims;
    let columns_first = program.columns_first;
    Chunks {
        v: [vec(0), vec(1)],
        a: chunk(program.made[2], || std::array::from_fn(|nth| initial(2, nth))),
        m: chunk(program.made[3], move || {
            Array2::from_shape_fn(dims.set_f(columns_first), |(r, c)| initial(3, r * dims.1 + c))
        }),
        s: chunk(program.made[4], || {
            let at = |nth| initial(4, nth);
            Fields { a: at(0), b: [at(1), at(2)], c: (at(3), at(4)) }
        }),
    }
}

/// What is in them.
pub async fn contents(chunks: &Chunks) -> Vec<Vec<i64>> {
    use super::call::Look;
    let Chunks { v, a, m, s } = chunks;
    vec![
        (&*v[0].read().await.unwrap()).get(),
        (&*v[1].read().await.unwrap()).get(),
        (&*a.read().await.unwrap()).get(),
        (&*m.read().await.unwrap()).get(),
        (&*s.read().await.unwrap()).get(),
    ]
}

/// Runs a program where it is awaited.
pub fn run(program: &Program) -> Pin<Box<dyn Future<Output = Seen> + Send + '_>> {
    Box::pin(async move {
        let chunks = chunks(program);
        run_on(program, chunks, None).await
    })
}

/// What was seen of each of several runs, with the program as it was then; and how many spawns were replayed.
type Runs = (Vec<(Program, Seen)>, u64);

/// Runs the main block of a program by a plan, so many times on the same chunks. Their values are new each time, and, if it
/// `grows`, longer.
pub fn run_by_plan(
    program: &Program,
    times: usize,
    grows: bool,
) -> Pin<Box<dyn Future<Output = Runs> + Send + '_>> {
    Box::pin(async move {
        let (all, plan) = (chunks(program), Arc::new(Plan::new()));
        let mut seen = Vec::new();
        for run in 0..times {
            let more = if grows { run } else { 0 };
            let program = Program {
                lens: program.lens.map(|len| len + 3 * more),
                dims: (program.dims.0 + more, program.dims.1 + more),
                ..program.clone()
            };
            let Chunks { v: [v, w], a, m, s } = chunks(&program);
            *all.v[0].recover().await.unwrap() = v.into_inner().await.unwrap();
            *all.v[1].recover().await.unwrap() = w.into_inner().await.unwrap();
            *all.a.recover().await.unwrap() = a.into_inner().await.unwrap();
            *all.m.recover().await.unwrap() = m.into_inner().await.unwrap();
            *all.s.recover().await.unwrap() = s.into_inner().await.unwrap();
            let one = run_on(&program, all.clone(), Some(plan.clone())).await;
            seen.push((program, one));
        }
        (seen, plan.stats().replayed)
    })
}

fn run_on(
    program: &Program,
    chunks: Chunks,
    plan: Option<Arc<Plan>>,
) -> Pin<Box<dyn Future<Output = Seen> + Send + '_>> {
    Box::pin(async move {
        let env = Env {
            plan: plan.map(|plan| (program.no, plan)),
            chunks,
            log: Arc::default(),
            ready: spawn!((|| 7)()),
            handles: Mutex::default(),
            seen: Mutex::default(),
        };
        let main = block(program.no, &program.stmts, &env);
        match program.order {
            Order::Free => main.await,
            Order::Linear => with_options(Options::new().linear(), main).await,
            Order::Inline => with_options(Options::new().inline(), main).await,
        }
        let handles: Vec<_> = env.handles.lock().unwrap().drain().collect();
        let mut seen = std::mem::take(&mut *env.seen.lock().unwrap());
        for (no, task) in handles {
            let ended = (&task).await;
            seen.outcomes.insert(no, result(&ended.map(|value| *value)));
        }
        macro_rules! end {
            ($chunk:expr) => {{
                let chunk = $chunk;
                let poison = chunk.read().await.err().map(|error| outcome(&error));
                // What was cancelled while it ran is over when this has its turn.
                let guard = chunk.recover().await.unwrap();
                use super::call::Look;
                seen.ends.push((poison, (&*guard).get()));
            }};
        }
        let Chunks { v, a, m, s } = &env.chunks;
        end!(&v[0]);
        end!(&v[1]);
        end!(a);
        end!(m);
        end!(s);
        seen.ran = env.log.ran.lock().unwrap().iter().map(|ran| (ran.no, *ran)).collect();
        seen.inner = std::mem::take(&mut env.log.inner.lock().unwrap());
        seen
    })
}

fn block<'a>(no: usize, stmts: &'a [Stmt], env: &'a Env) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
    Box::pin(async move {
        let body = async {
            for one in stmts {
                stmt(one, env).await;
            }
        };
        let done = match &env.plan {
            Some((planned, plan)) if *planned == no => plan.run(body).await,
            _ => datadeps(body).await,
        };
        let failures = match &done {
            Ok(()) => Vec::new(),
            Err(error) => std::iter::once(error).chain(error.others()).map(outcome).collect(),
        };
        env.seen.lock().unwrap().blocks.insert(no, failures);
    })
}

async fn stmt(stmt: &Stmt, env: &Env) {
    match stmt {
        Stmt::Spawn(task) => spawn_task(task, env),
        Stmt::Block(no, stmts) => block(*no, stmts, env).await,
        Stmt::Await(task) => {
            let task = env.handles.lock().unwrap().get(task).cloned();
            if let Some(task) = task {
                let _ = (&task).await;
            }
        }
        Stmt::Guard { no, accesses, between } => {
            let body = Body {
                no: *no,
                modes: accesses.iter().map(|access| access.mode).collect(),
                end: End::Value,
                resize: None,
                log: env.log.clone(),
                hook: None,
            };
            let place = guard(&env.chunks, accesses, body);
            between.iter().for_each(|task| spawn_task(task, env));
            let ended = result(&place.await);
            env.seen.lock().unwrap().outcomes.insert(*no, ended);
        }
        Stmt::Recover { no, chunk } => {
            let Chunks { v, a, m, s } = &env.chunks;
            use super::call::Look;
            let found = match chunk {
                0 | 1 => v[*chunk].recover().await.map(|guard| (&*guard).get()),
                2 => a.recover().await.map(|guard| (&*guard).get()),
                3 => m.recover().await.map(|guard| (&*guard).get()),
                _ => s.recover().await.map(|guard| (&*guard).get()),
            };
            let ended = result(&found.map(|found| super::call::fold(*no, None, &[found])));
            env.seen.lock().unwrap().outcomes.insert(*no, ended);
        }
        Stmt::Room => room().await,
    }
}

fn spawn_task(task: &Task, env: &Env) {
    let gate = Gate::new();
    let mut options = Options::new().name(format!("t{}", task.no));
    if task.priority != 0 {
        options = options.priority(task.priority);
    }
    if task.blocking {
        options = options.blocking(true);
    }
    if task.cancel == Cancel::Unstarted {
        let gate = gate.clone();
        let closed = Options::new().name("gate").spawn(async move { gate.pass().await });
        options = options.syncdeps([&closed]);
    }
    let handle = match &task.inner {
        Some(inner) => {
            let (no, inner, log) = (task.no, inner.clone(), env.log.clone());
            options.spawn(async move {
                let seen = run(&inner).await;
                let found: Vec<Vec<i64>> = seen.ends.iter().map(|(_, found)| found.clone()).collect();
                log.inner.lock().unwrap().insert(no, seen);
                super::call::fold(no, None, &found)
            })
        }
        None => {
            let body = Body {
                no: task.no,
                modes: task.accesses.iter().map(|access| access.mode).collect(),
                end: task.end,
                resize: task.resize,
                log: env.log.clone(),
                hook: None,
            };
            let arg = task.arg.and_then(|arg| env.handles.lock().unwrap().get(&arg).cloned());
            let arg = arg.as_ref().unwrap_or(&env.ready);
            task.table.spawn(&env.chunks, &task.accesses, arg, body, options)
        }
    };
    if task.cancel != Cancel::No {
        handle.cancel();
        gate.open();
    }
    env.handles.lock().unwrap().insert(task.no, handle);
}
