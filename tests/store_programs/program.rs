//! Programs: what proptest makes up ([`Case`]), and what it means ([`Program`]).
//!
//! 1. Every made-up number means something: what is left of a case when parts of it are removed is a case.
//! 2. What a program gives without its spawns is one thing only: chunks of different strands are different ones, and a task
//!    that spawns works on chunks that it has made itself.

use proptest::prelude::*;
use std::fmt;
use std::ops::Range;

/// How a task accesses a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    In,
    Out,
    InOut,
}

impl Mode {
    pub fn writes(self) -> bool {
        self != Mode::In
    }
    pub fn reads(self) -> bool {
        self != Mode::Out
    }
}

/// What is in a chunk, and how it comes there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A vector.
    Plain,
    /// A vector that is made when it is needed.
    Lazy,
    /// A vector that a task gives.
    Made,
    /// A type that is counted, but cannot be written down.
    Stuck,
    /// The same, made when it is needed.
    LazyStuck,
    /// A type of the user's that says how it is written down.
    Own,
}

/// What a row of [`super::call::ROWS`] asks for: a whole vector, a part of one, the unspillable value, the user's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Whole,
    Part,
    Stuck,
    Own,
}

/// Lengths of vectors: 4 KiB is the least that leaves memory.
const LENS: [usize; 6] = [512, 1024, 512, 2048, 4096, 100];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Value,
    FailsBefore,
    FailsAfter,
    Panics,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancel {
    No,
    /// Before it can have started.
    Unstarted,
    /// Right after its spawn: it may have run or not.
    Whenever,
}

// As made up.

#[derive(Clone, Debug)]
pub struct Case {
    pub workers: usize,
    pub eviction: u8,
    pub room: Room,
    pub days: Days,
    pub place: Place,
    /// Nothing that may need more than the budget: then it is never exceeded.
    pub strict: bool,
    pub strands: Vec<RawStrand>,
}

/// The budget.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// The largest task cannot run.
    TooSmall,
    /// The largest task fits if it is alone.
    One,
    /// And one more value.
    OneMore,
    Half,
    All,
}

/// What the store does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Days {
    Good,
    /// One request in so many fails, and goes better another time.
    Passing(u64),
    /// It takes so many objects.
    Full(u64),
    Denied(u64),
    /// One object in so many is not what was written.
    Injured(u64),
    /// And one request in so many fails.
    InjuredAndPassing(u64, u64),
}

impl Days {
    /// Nothing stays lost.
    pub fn are_good_at_last(self) -> bool {
        matches!(self, Days::Good | Days::Passing(_))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Memory,
    /// A local store behind a wrapper.
    Files,
    /// A folder, if the days are good.
    Folder,
}

#[derive(Clone, Debug)]
pub struct RawStrand {
    block: bool,
    vectors: Vec<(u8, u8)>,
    others: (bool, u8),
    stmts: Vec<RawStmt>,
}

#[derive(Clone, Debug)]
enum RawStmt {
    Spawn(RawTask),
    Await(usize),
    Guard {
        chunk: usize,
        writes: bool,
        second: Option<usize>,
        before: Vec<RawTask>,
        inside: Vec<RawTask>,
        awaits: bool,
    },
    Recover(usize),
    Take(usize),
    Renew(usize, u8, u8),
    Plan(Vec<RawTask>, usize),
    Dropped(Vec<RawTask>, usize),
    Look,
}

#[derive(Clone, Debug)]
struct RawTask {
    row: usize,
    at: [usize; 3],
    cut: [(usize, usize); 3],
    arg: Option<usize>,
    end: u8,
    resize: Option<u8>,
    memory: u8,
    is_async: bool,
    blocking: bool,
    priority: i8,
    cancel: u8,
    children: u8,
    other: bool,
}

fn raw_task() -> impl Strategy<Value = RawTask> {
    let what = (any::<usize>(), any::<[usize; 3]>(), any::<[(usize, usize); 3]>());
    let how = (
        prop::option::weighted(0.2, any::<usize>()),
        0..40u8,
        prop::option::weighted(0.2, any::<u8>()),
        0..30u8,
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.05),
        prop_oneof![8 => Just(0i8), 1 => -2..3i8],
    );
    let more = (0..30u8, prop_oneof![8 => Just(0u8), 1 => 1..5u8], prop::bool::weighted(0.04));
    (what, how, more).prop_map(|((row, at, cut), how, (cancel, children, other))| {
        let (arg, end, resize, memory, is_async, blocking, priority) = how;
        RawTask {
            row,
            at,
            cut,
            arg,
            end,
            resize,
            memory,
            is_async,
            blocking,
            priority,
            cancel,
            children,
            other,
        }
    })
}

fn raw_stmt() -> impl Strategy<Value = RawStmt> {
    let tasks = |max| prop::collection::vec(raw_task(), 0..max);
    prop_oneof![
        20 => raw_task().prop_map(RawStmt::Spawn),
        2 => any::<usize>().prop_map(RawStmt::Await),
        3 => (any::<usize>(), any::<bool>(), prop::option::weighted(0.2, any::<usize>()), tasks(3), tasks(3), any::<bool>())
            .prop_map(|(chunk, writes, second, before, inside, awaits)|
                RawStmt::Guard { chunk, writes, second, before, inside, awaits }),
        1 => any::<usize>().prop_map(RawStmt::Recover),
        1 => any::<usize>().prop_map(RawStmt::Take),
        1 => (any::<usize>(), any::<u8>(), any::<u8>()).prop_map(|(chunk, kind, len)| RawStmt::Renew(chunk, kind, len)),
        2 => (tasks(6), 1..4usize).prop_map(|(tasks, runs)| RawStmt::Plan(tasks, runs)),
        1 => (tasks(6), 0..3usize).prop_map(|(tasks, polls)| RawStmt::Dropped(tasks, polls)),
        1 => Just(RawStmt::Look),
    ]
}

pub fn case() -> impl Strategy<Value = Case> {
    let strand = (
        any::<bool>(),
        prop::collection::vec(any::<(u8, u8)>(), 1..7),
        (any::<bool>(), any::<u8>()),
        prop::collection::vec(raw_stmt(), 1..20),
    )
        .prop_map(|(block, vectors, others, stmts)| RawStrand { block, vectors, others, stmts });
    let room = prop_oneof![
        1 => Just(Room::TooSmall),
        6 => Just(Room::One),
        6 => Just(Room::OneMore),
        4 => Just(Room::Half),
        1 => Just(Room::All),
    ];
    let days = prop_oneof![
        4 => Just(Days::Good),
        3 => (2..9u64).prop_map(Days::Passing),
        2 => (0..20u64).prop_map(Days::Full),
        1 => (0..20u64).prop_map(Days::Denied),
        3 => (2..9u64).prop_map(Days::Injured),
        1 => (2..9u64, 2..9u64).prop_map(|(n, m)| Days::InjuredAndPassing(n, m)),
    ];
    let place = prop_oneof![4 => Just(Place::Memory), 1 => Just(Place::Files), 1 => Just(Place::Folder)];
    let setting =
        (prop_oneof![Just(1usize), Just(2), Just(8)], 0..4u8, room, days, place, prop::bool::weighted(0.25));
    (setting, prop::collection::vec(strand, 1..4)).prop_map(
        |((workers, eviction, room, days, place, strict), strands)| Case {
            workers,
            eviction,
            room,
            days,
            place,
            strict,
            strands,
        },
    )
}

// As it is meant.

#[derive(Clone, Debug)]
pub struct Access {
    pub chunk: usize,
    pub mode: Mode,
    pub what: What,
    /// Of a part.
    pub part: Range<usize>,
}

#[derive(Clone, Debug)]
pub struct Task {
    pub no: usize,
    pub row: usize,
    pub accesses: Vec<Access>,
    pub arg: Option<usize>,
    pub end: End,
    /// Of the whole value that it writes first.
    pub resize: Option<usize>,
    pub memory: u64,
    pub is_async: bool,
    pub blocking: bool,
    pub priority: i32,
    pub cancel: Cancel,
    /// How many tasks it spawns and awaits, on chunks of its own.
    pub children: usize,
    /// In the other runtime.
    pub other: bool,
}

#[derive(Clone, Debug)]
pub struct Make {
    pub no: usize,
    pub kind: Kind,
    pub len: usize,
}

#[derive(Clone, Debug)]
pub enum Stmt {
    Spawn(Task),
    Await(usize),
    Guard { no: usize, chunks: Vec<(usize, bool)>, before: Vec<Task>, inside: Vec<Task>, awaits: bool },
    Recover { no: usize, chunk: usize },
    Take { no: usize, chunk: usize, next: Make },
    Renew { chunk: usize, next: Make },
    Plan { runs: Vec<Vec<Task>> },
    Dropped { tasks: Vec<Task>, polls: usize },
    Look,
}

#[derive(Clone, Debug)]
pub struct Strand {
    pub block: bool,
    /// Vectors, then what is stuck, then the user's own.
    pub chunks: Vec<Make>,
    pub stmts: Vec<Stmt>,
}

#[derive(Clone, Debug)]
pub struct Program {
    pub case: Case,
    pub strands: Vec<Strand>,
    pub limit: u64,
    /// Bytes of the largest that a task needs at once.
    pub largest: u64,
    /// No moment needs more than the budget.
    pub fits: bool,
}

/// The length of what the chunks of children hold.
pub const CHILD_LEN: usize = 1024;

struct Maker {
    next: usize,
    strict: bool,
    vectors: usize,
    /// Classes of lengths: small ones stay small.
    small: Vec<bool>,
    tasks: Vec<usize>,
    block: bool,
    /// The largest length that a chunk can come to have.
    longest: Vec<usize>,
}

fn len_of(raw: u8) -> usize {
    LENS[raw as usize % LENS.len()]
}

impl Maker {
    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    fn vector(&self, raw: u8) -> Kind {
        if self.strict { Kind::Lazy } else { [Kind::Plain, Kind::Lazy, Kind::Made][raw as usize % 3] }
    }

    fn make(&mut self, chunk: usize, kind: Kind, len: usize) -> Make {
        self.small[chunk] = len < 512;
        self.longest[chunk] = self.longest[chunk].max(len);
        Make { no: self.number(), kind, len }
    }

    fn task(&mut self, raw: &RawTask, plain: bool, avoid: &[(usize, bool)]) -> Option<Task> {
        let rows = super::call::ROWS;
        let is_vector = |what: What| matches!(what, What::Whole | What::Part);
        let fits = |row: &&(usize, &&[(Mode, What)])| {
            let strict = !self.strict || row.1.iter().all(|(_, what)| is_vector(*what));
            strict && row.1.iter().filter(|(_, what)| is_vector(*what)).count() <= self.vectors
        };
        let rows: Vec<_> = rows.iter().enumerate().collect();
        let rows: Vec<_> = rows.iter().filter(fits).collect();
        let &&(row, kinds) = rows.get(raw.row % rows.len().max(1))?;
        let mut accesses: Vec<Access> = Vec::new();
        for (nth, &(mode, what)) in kinds.iter().enumerate() {
            let chunk = match what {
                What::Stuck => self.vectors,
                What::Own => self.vectors + 1,
                _ => {
                    let mut chunk = raw.at[nth] % self.vectors;
                    while accesses.iter().any(|access| access.chunk == chunk) {
                        chunk = (chunk + 1) % self.vectors;
                    }
                    chunk
                }
            };
            let part = match what {
                What::Part => {
                    let len = if self.small[chunk] { 100 } else { 512 };
                    let start = raw.cut[nth].0 % len;
                    start..start + 1 + raw.cut[nth].1 % (len - start)
                }
                _ => 0..0,
            };
            accesses.push(Access { chunk, mode, what, part });
        }
        let meets = |&(chunk, writes): &(usize, bool)| {
            accesses.iter().any(|access| access.chunk == chunk && (writes || access.mode.writes()))
        };
        if avoid.iter().any(meets) {
            return None;
        }
        let children = if plain || self.strict { 0 } else { raw.children as usize };
        // What waits inside keeps what it has, and others are let in over the budget.
        let is_async = raw.is_async && !self.strict || children > 0;
        let cancel = match raw.cancel {
            _ if plain => Cancel::No,
            0 => Cancel::Unstarted,
            1 if !is_async => Cancel::Whenever,
            _ => Cancel::No,
        };
        let mut end = match raw.end {
            _ if plain => End::Value,
            0 => End::FailsBefore,
            1 => End::FailsAfter,
            2 => End::Panics,
            _ => End::Value,
        };
        let whole = accesses.iter().find(|access| access.mode.writes() && access.what != What::Part);
        let resize = raw.resize.filter(|_| !plain && !self.strict && cancel == Cancel::No).and_then(|len| {
            let chunk = whole?.chunk;
            (!self.small[chunk]).then(|| LENS[len as usize % 5])
        });
        if let (Some(len), Some(whole)) = (resize, whole) {
            self.longest[whole.chunk] = self.longest[whole.chunk].max(len);
            if end != End::Value {
                end = End::FailsBefore;
            }
        }
        let arg = raw.arg.filter(|_| !self.tasks.is_empty()).map(|arg| self.tasks[arg % self.tasks.len()]);
        let no = self.number();
        self.tasks.push(no);
        let other = raw.other && !self.block && !plain && !self.strict && avoid.is_empty();
        Some(Task {
            no,
            row,
            accesses,
            arg,
            end,
            resize,
            memory: if raw.memory == 0 { 10_000 } else { 0 },
            is_async,
            blocking: raw.blocking && !is_async && !plain,
            priority: i32::from(raw.priority),
            cancel,
            children,
            other,
        })
    }

    fn tasks(&mut self, raw: &[RawTask], plain: bool, avoid: &[(usize, bool)]) -> Vec<Task> {
        raw.iter().filter_map(|raw| self.task(raw, plain, avoid)).collect()
    }

    fn stmt(&mut self, raw: &RawStmt) -> Option<Stmt> {
        Some(match raw {
            RawStmt::Spawn(task) => Stmt::Spawn(self.task(task, false, &[])?),
            RawStmt::Await(task) => Stmt::Await(*self.tasks.get(task % self.tasks.len().max(1))?),
            // Who has a guard may keep it: others are let in over the budget rather than wait for that.
            RawStmt::Guard { .. } | RawStmt::Recover(_) | RawStmt::Take(_) if self.strict => return None,
            RawStmt::Guard { chunk, writes, second, before, inside, awaits } => {
                let chunk = chunk % self.vectors;
                let mut chunks = vec![(chunk, *writes)];
                chunks
                    .extend(second.map(|second| (second % self.vectors, false)).filter(|(c, _)| *c != chunk));
                let no = self.number();
                // Their places come after that of the guard; it is had before they are awaited.
                let before = self.tasks(before, false, &[]);
                // What is awaited inside must not wait for the guard, nor for those before.
                let mut avoid = chunks.clone();
                if *awaits {
                    let theirs = before.iter().flat_map(|task| &task.accesses);
                    avoid.extend(theirs.map(|access| (access.chunk, true)));
                }
                let known = self.tasks.clone();
                if *awaits {
                    self.tasks.retain(|task| before.iter().all(|before| before.no != *task));
                }
                let inside = self.tasks(inside, false, if *awaits { &avoid } else { &[] });
                let new: Vec<usize> = inside.iter().map(|task| task.no).collect();
                self.tasks = known.into_iter().chain(new).collect();
                Stmt::Guard { no, chunks, before, inside, awaits: *awaits }
            }
            RawStmt::Recover(chunk) => Stmt::Recover { no: self.number(), chunk: chunk % self.vectors },
            RawStmt::Take(chunk) => {
                let (no, chunk) = (self.number(), chunk % self.vectors);
                let kind = self.vector(0);
                Stmt::Take { no, chunk, next: self.make(chunk, kind, 1024) }
            }
            RawStmt::Renew(chunk, kind, len) => {
                let chunk = chunk % self.vectors;
                let kind = self.vector(*kind);
                Stmt::Renew { chunk, next: self.make(chunk, kind, len_of(*len)) }
            }
            RawStmt::Plan(tasks, runs) => {
                let first = self.tasks(tasks, true, &[]);
                let mut all = vec![first];
                for _ in 1..*runs {
                    let again = all[0].clone().into_iter();
                    let again: Vec<_> = again.map(|task| Task { no: self.number(), ..task }).collect();
                    self.tasks.extend(again.iter().map(|task| task.no));
                    all.push(again);
                }
                Stmt::Plan { runs: all }
            }
            RawStmt::Dropped(tasks, polls) => {
                Stmt::Dropped { tasks: self.tasks(tasks, true, &[]), polls: *polls }
            }
            RawStmt::Look => Stmt::Look,
        })
    }
}

pub fn program(case: &Case) -> Program {
    let mut maker = Maker {
        next: 0,
        strict: case.strict,
        vectors: 0,
        small: Vec::new(),
        tasks: Vec::new(),
        block: false,
        longest: Vec::new(),
    };
    let (mut strands, mut total, mut largest, mut stuck_bytes, mut widest) = (Vec::new(), 0, 0, 0, 0);
    let raw = &case.strands[..if case.strict { 1 } else { case.strands.len() }];
    for raw in raw {
        maker.vectors = raw.vectors.len();
        maker.block = raw.block;
        maker.tasks.clear();
        maker.small = vec![false; maker.vectors + 2];
        maker.longest = vec![0; maker.vectors + 2];
        let mut chunks = Vec::new();
        for (chunk, &(kind, len)) in raw.vectors.iter().enumerate() {
            let kind = maker.vector(kind);
            chunks.push(maker.make(chunk, kind, len_of(len)));
        }
        let stuck = if raw.others.0 { Kind::LazyStuck } else { Kind::Stuck };
        chunks.push(maker.make(maker.vectors, stuck, [512, 1024][raw.others.1 as usize % 2]));
        chunks.push(maker.make(maker.vectors + 1, Kind::Own, [512, 1024][raw.others.1 as usize / 2 % 2]));
        let stmts: Vec<_> = raw.stmts.iter().filter_map(|raw| maker.stmt(raw)).collect();
        let bytes: Vec<u64> = maker.longest.iter().map(|len| 8 * *len as u64 + 100).collect();
        for task in stmts.iter().flat_map(tasks_of) {
            let own: u64 = task.accesses.iter().map(|access| bytes[access.chunk]).sum();
            largest = largest.max(own + task.memory);
            if task.children > 0 {
                largest = largest.max(16 * CHILD_LEN as u64 + 200);
            }
        }
        total += bytes.iter().sum::<u64>();
        stuck_bytes += bytes[maker.vectors];
        widest = widest.max(bytes.iter().copied().max().unwrap_or(0));
        // Small values never leave either, of which each chunk may come to have one.
        stuck_bytes += 1000 * maker.vectors as u64;
        strands.push(Strand { block: raw.block, chunks, stmts });
    }
    // At last each chunk is read by itself.
    let largest: u64 = if case.strict { largest.max(widest) } else { largest.max(4096) };
    let limit = match case.room {
        Room::TooSmall if !case.strict => largest / 2,
        Room::TooSmall | Room::One => largest,
        Room::OneMore => largest + widest,
        Room::Half => (total / 2).max(largest),
        Room::All => 2 * total + largest,
    };
    let limit = if case.strict { limit + stuck_bytes } else { limit };
    Program { case: case.clone(), strands, limit, largest, fits: case.strict && case.days.are_good_at_last() }
}

/// The tasks of a statement.
pub fn tasks_of(stmt: &Stmt) -> Vec<&Task> {
    match stmt {
        Stmt::Spawn(task) => vec![task],
        Stmt::Guard { before, inside, .. } => before.iter().chain(inside).collect(),
        Stmt::Plan { runs } => runs.iter().flatten().collect(),
        Stmt::Dropped { tasks, .. } => tasks.iter().collect(),
        _ => Vec::new(),
    }
}

// How it is shown.

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}(", self.no)?;
        for Access { chunk, mode, what, part } in &self.accesses {
            match what {
                What::Part => write!(f, "{mode:?} c{chunk}[{part:?}], ")?,
                _ => write!(f, "{mode:?} c{chunk}, ")?,
            }
        }
        write!(f, ")")?;
        if let Some(arg) = self.arg {
            write!(f, " of t{arg}")?;
        }
        if self.end != End::Value {
            write!(f, " {:?}", self.end)?;
        }
        if let Some(len) = self.resize {
            write!(f, " resizes to {len}")?;
        }
        if self.memory != 0 {
            write!(f, " memory {}", self.memory)?;
        }
        if self.cancel != Cancel::No {
            write!(f, " cancelled {:?}", self.cancel)?;
        }
        if self.children > 0 {
            write!(f, " with {} children", self.children)?;
        }
        let flags =
            [(self.is_async, " async"), (self.blocking, " blocking"), (self.other, " in the other runtime")];
        flags.iter().filter(|(is, _)| *is).try_for_each(|(_, text)| f.write_str(text))?;
        if self.priority != 0 {
            write!(f, " priority {}", self.priority)?;
        }
        Ok(())
    }
}

impl fmt::Display for Stmt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |f: &mut fmt::Formatter<'_>, tasks: &[Task]| {
            tasks.iter().try_for_each(|task| writeln!(f, "      {task}"))
        };
        match self {
            Stmt::Spawn(task) => writeln!(f, "    {task}"),
            Stmt::Await(task) => writeln!(f, "    await t{task}"),
            Stmt::Guard { no, chunks, before, inside, awaits } => {
                writeln!(f, "    g{no} = places {chunks:?} (chunk, writes); spawn")?;
                all(f, before)?;
                writeln!(f, "    await g{no}; spawn{}", if *awaits { ", await" } else { "" })?;
                all(f, inside)?;
                writeln!(f, "    drop g{no}")
            }
            Stmt::Recover { chunk, .. } => writeln!(f, "    c{chunk}.recover()"),
            Stmt::Take { chunk, next, .. } => writeln!(f, "    c{chunk}.into_inner(), then {next:?}"),
            Stmt::Renew { chunk, next } => writeln!(f, "    c{chunk} = {next:?}"),
            Stmt::Plan { runs } => {
                writeln!(f, "    plan, {} times:", runs.len())?;
                all(f, &runs[0])
            }
            Stmt::Dropped { tasks, polls } => {
                writeln!(f, "    block that is dropped after {polls} polls:")?;
                all(f, tasks)
            }
            Stmt::Look => writeln!(f, "    rt.memory()"),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { workers, eviction, room, days, place, strict, .. } = &self.case;
        writeln!(
            f,
            "{workers} workers, eviction {eviction}, room {room:?} = {} B (the largest needs {}), days {days:?}, place \
             {place:?}, strict {strict}",
            self.limit, self.largest
        )?;
        for strand in &self.strands {
            writeln!(f, "  strand (block: {}) of", strand.block)?;
            for (chunk, make) in strand.chunks.iter().enumerate() {
                writeln!(f, "    c{chunk} = {make:?}")?;
            }
            strand.stmts.iter().try_for_each(|stmt| stmt.fmt(f))?;
        }
        Ok(())
    }
}
