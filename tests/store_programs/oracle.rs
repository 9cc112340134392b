//! The same program without its spawns: every task where it stands, with plain values.
//!
//! 1. Where the store has failed a task or a guard, the run says so; that is checked against what was done to the store, and
//!    gone on with: who comes after gets the poison of that task, and nothing else.
//! 2. Poison is kept element by element: an element keeps the first cause, a failed writer poisons all that it would write, an
//!    `Out` that succeeds heals its own elements.

use super::call::{Body, Cell, Data, Log, children, fold, fresh};
use super::program::{Access, Cancel, End, Kind, Make, Mode, Program, Room, Stmt, Strand, Task, What};
use super::run::{Outcome, Run, Seen};
use dagger_async::Error;
use dagger_tests::Failure;
use dagger_tests::faulty::Op;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// What runs have shown, in numbers.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    pub programs: usize,
    pub tasks: usize,
    pub values: usize,
    pub reloads_failed: usize,
    pub spills_failed: usize,
    pub too_large: usize,
    pub poisoned: usize,
    pub cancelled: usize,
    pub guards: usize,
    pub evictions: u64,
    pub misses: u64,
    pub over_budget: u64,
    pub faults: u64,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.programs += other.programs;
        self.tasks += other.tasks;
        self.values += other.values;
        self.reloads_failed += other.reloads_failed;
        self.spills_failed += other.spills_failed;
        self.too_large += other.too_large;
        self.poisoned += other.poisoned;
        self.cancelled += other.cancelled;
        self.guards += other.guards;
        self.evictions += other.evictions;
        self.misses += other.misses;
        self.over_budget += other.over_budget;
        self.faults += other.faults;
    }
}

struct Chunk {
    values: Data,
    poison: Vec<Option<String>>,
    kind: Kind,
}

impl Chunk {
    fn new(make: &Make) -> Chunk {
        Chunk { values: fresh(make.no, make.len), poison: vec![None; make.len], kind: make.kind }
    }
    fn roots(&self, range: Range<usize>) -> HashSet<&String> {
        self.poison[range].iter().flatten().collect()
    }
    fn heal(&mut self, range: Range<usize>) {
        self.poison[range].fill(None);
    }
    /// The name of the type in it.
    fn content(&self) -> &'static str {
        match self.kind {
            Kind::Stuck | Kind::LazyStuck => "Stuck",
            Kind::Own => "Own",
            _ => "Vec<u64>",
        }
    }
}

struct Oracle<'p> {
    program: &'p Program,
    run: &'p Run,
    seen: &'p Seen,
    chunks: Vec<Chunk>,
    results: HashMap<usize, Result<u64, String>>,
}

type Checked<T = ()> = Result<T, String>;

pub fn check(program: &Program, run: &Run, tally: &mut Tally) -> Checked {
    tally.programs += 1;
    for (nth, (strand, seen)) in program.strands.iter().zip(&run.strands).enumerate() {
        let chunks = strand.chunks.iter().map(Chunk::new).collect();
        let mut oracle = Oracle { program, run, seen, chunks, results: HashMap::new() };
        oracle.strand(strand, tally).map_err(|text| format!("strand {nth}: {text}"))?;
    }
    let memory = &run.memory;
    tally.evictions += memory.evictions;
    tally.misses += memory.misses;
    tally.over_budget += memory.over_budget;
    tally.faults += run.faulty.as_ref().map_or(0, |faulty| faulty.failed());
    if memory.pinned != 0 || memory.reserved != 0 {
        return Err(format!("something is in use when all is over: {memory:?}"));
    }
    if program.fits && memory.over_budget != 0 {
        return Err(format!("let in over the budget although everything could fit: {memory:?}"));
    }
    if program.fits && memory.peak > memory.limit {
        return Err(format!("more in memory than the budget: {memory:?}"));
    }
    Ok(())
}

impl<'p> Oracle<'p> {
    fn strand(&mut self, strand: &Strand, tally: &mut Tally) -> Checked {
        for stmt in &strand.stmts {
            self.stmt(stmt, tally)?;
        }
        for (is_ok, tasks) in &self.seen.blocks {
            let expected = tasks.iter().all(|task| self.results.get(task).is_none_or(Result::is_ok));
            if *is_ok != expected {
                return Err(format!("the block of {tasks:?} said {is_ok}, not {expected}"));
            }
        }
        for at in 0..self.chunks.len() {
            let (read, recovered) = &self.seen.ends[at];
            let chunk = &self.chunks[at];
            let roots = chunk.roots(0..chunk.poison.len());
            match read {
                Ok(_) if !roots.is_empty() => {
                    return Err(format!("c{at} is clean at last, it has {roots:?}"));
                }
                Ok(values) if *values != chunk.values => return Err(wrong_values(at, values, &chunk.values)),
                Ok(_) => {}
                Err(outcome) => self.guard_error(outcome, &[at], &format!("the last read of c{at}"))?,
            }
            match recovered {
                Ok(values) if *values != chunk.values => return Err(wrong_values(at, values, &chunk.values)),
                Ok(_) => {}
                Err(Outcome::Error { variant: "Poisoned", .. }) => {
                    return Err(format!("c{at} is poisoned when it is recovered"));
                }
                Err(outcome) => self.guard_error(outcome, &[at], &format!("the recovery of c{at}"))?,
            }
        }
        Ok(())
    }

    fn stmt(&mut self, stmt: &Stmt, tally: &mut Tally) -> Checked {
        match stmt {
            Stmt::Spawn(task) => self.task(task, false, tally),
            Stmt::Await(_) | Stmt::Look => Ok(()),
            Stmt::Guard { no, chunks, before, inside, .. } => {
                self.guard(*no, chunks, tally)?;
                before.iter().chain(inside).try_for_each(|task| self.task(task, false, tally))
            }
            Stmt::Recover { no, chunk } => {
                let all = 0..self.chunks[*chunk].values.len();
                let expected = fold(&self.chunks[*chunk].values, 0);
                match self.outcome(*no)? {
                    Outcome::Value(value) => {
                        self.chunks[*chunk].heal(all);
                        same(*value, expected, &format!("recovery {no}"))
                    }
                    Outcome::Error { variant: "Poisoned", .. } => Err(format!("recovery {no} is poisoned")),
                    // What could not be had is as it was.
                    other => self.guard_error(other, &[*chunk], &format!("recovery {no}")),
                }
            }
            Stmt::Take { no, chunk, next } => {
                let roots = self.chunks[*chunk].roots(0..self.chunks[*chunk].values.len());
                match self.outcome(*no)? {
                    Outcome::Value(_) if !roots.is_empty() => {
                        return Err(format!("c{chunk} was taken by {no}, it has {roots:?}"));
                    }
                    Outcome::Value(value) => {
                        same(*value, fold(&self.chunks[*chunk].values, 0), &format!("what {no} took"))?;
                    }
                    other => self.guard_error(other, &[*chunk], &format!("into_inner {no}"))?,
                }
                self.chunks[*chunk] = Chunk::new(next);
                Ok(())
            }
            Stmt::Renew { chunk, next } => {
                self.chunks[*chunk] = Chunk::new(next);
                Ok(())
            }
            Stmt::Plan { runs } => runs.iter().flatten().try_for_each(|task| self.task(task, false, tally)),
            Stmt::Dropped { tasks, .. } => tasks.iter().try_for_each(|task| self.task(task, true, tally)),
        }
    }

    fn outcome(&self, no: usize) -> Checked<&'p Outcome> {
        self.seen.outcomes.get(&no).ok_or_else(|| format!("{no} has no outcome"))
    }

    fn guard(&mut self, no: usize, chunks: &[(usize, bool)], tally: &mut Tally) -> Checked {
        tally.guards += 1;
        let mut h = no as u64;
        // Each is had by itself: what is written by one is written though another fails.
        let outcome = self.outcome(no)?.clone();
        let all: Vec<usize> = chunks.iter().map(|(chunk, _)| *chunk).collect();
        let has_roots = |oracle: &Self, at: usize| {
            let chunk = &oracle.chunks[at];
            !chunk.roots(0..chunk.values.len()).is_empty()
        };
        match outcome {
            Outcome::Value(value) => {
                for &(at, writes) in chunks {
                    if has_roots(self, at) {
                        return Err(format!("g{no} has c{at}, which is poisoned"));
                    }
                    h = fold(&self.chunks[at].values, h);
                    if writes {
                        self.chunks[at].values.iter_mut().for_each(|x| *x ^= h);
                    }
                }
                same(value, h, &format!("g{no}"))
            }
            error => {
                self.guard_error(&error, &all, &format!("g{no}"))?;
                // The second is only read; if it was the one that failed, the first has been written.
                if let [(first, true), _] = *chunks
                    && self.seen.ran.contains(&no)
                {
                    let h = fold(&self.chunks[first].values, h);
                    self.chunks[first].values.iter_mut().for_each(|x| *x ^= h);
                }
                Ok(())
            }
        }
    }

    /// Whether a guard may end so.
    fn guard_error(&self, outcome: &Outcome, chunks: &[usize], what: &str) -> Checked {
        let Outcome::Error { variant, root, error, .. } = outcome else { return Ok(()) };
        let poison = |at: &usize| {
            let chunk = &self.chunks[*at];
            root.as_ref().is_some_and(|root| chunk.roots(0..chunk.values.len()).contains(root))
        };
        match *variant {
            "Poisoned" if chunks.iter().any(poison) => Ok(()),
            "Reload" => {
                if root.is_some() {
                    return Err(format!("{what} has a root: {error:?}"));
                }
                self.deserved(error, chunks).map_err(|text| format!("{what}: {text}"))
            }
            _ => Err(format!("{what} gave {error:?}")),
        }
    }

    /// Whether the store may say this to somebody who needs these chunks.
    fn deserved(&self, error: &Error, chunks: &[usize]) -> Checked {
        if let Error::TooLarge { bytes, budget, .. } = error {
            let is_so = *budget == self.program.limit && bytes > budget && self.program.largest >= *bytes;
            return if is_so { Ok(()) } else { Err(format!("{error:?} of {}", self.program.limit)) };
        }
        let Some(faulty) = &self.run.faulty else { return Err(format!("nothing was wrong, but {error:?}")) };
        match error {
            Error::Reload { chunk, path, .. } => {
                let is_one = chunks.iter().any(|&at| chunk.contains(self.chunks[at].content()));
                if !is_one || !chunk.contains("store_programs/run.rs:") {
                    return Err(format!("it names {chunk}"));
                }
                match faulty.has_injured(path) {
                    true => Ok(()),
                    false => Err(format!("there is nothing wrong with {path}, but {error:?}")),
                }
            }
            Error::Spill { path, .. } => match faulty.has_refused(Op::Put, path) {
                true if self.program.case.room == Room::All => {
                    Err(format!("there is room for all, but {error:?}"))
                }
                true => Ok(()),
                false => Err(format!("nobody refused {path}, but {error:?}")),
            },
            other => Err(format!("not of the store: {other:?}")),
        }
    }

    fn range(&self, access: &Access) -> Range<usize> {
        match access.what {
            What::Part => access.part.clone(),
            _ => 0..self.chunks[access.chunk].values.len(),
        }
    }

    fn task(&mut self, task: &Task, is_dropped: bool, tally: &mut Tally) -> Checked {
        tally.tasks += 1;
        let name = format!("t{}", task.no);
        let outcome = self.outcome(task.no)?.clone();
        let reading = task.accesses.iter().filter(|access| access.mode.reads());
        let mut met: HashSet<String> =
            reading.flat_map(|access| self.chunks[access.chunk].roots(self.range(access))).cloned().collect();
        let arg = match task.arg.map(|arg| self.results[&arg].clone()) {
            None => 7,
            Some(Ok(value)) => value,
            Some(Err(root)) => {
                met.insert(root);
                0
            }
        };
        let ran = self.seen.ran.contains(&task.no);
        let may_be_cancelled = is_dropped || task.cancel != Cancel::No;
        let result = match outcome {
            Outcome::Value(value) => {
                tally.values += 1;
                if !met.is_empty() || task.end != End::Value || task.cancel == Cancel::Unstarted {
                    return Err(format!("{name} gave a value; it met {met:?}"));
                }
                let expected =
                    self.body(task, arg).map_err(|failure| format!("{name} did not fail: {failure}"))?;
                self.heal(task);
                same(value, expected, &name)?;
                Ok(value)
            }
            Outcome::Error { variant: "Cancelled", own: true, .. } if may_be_cancelled => {
                tally.cancelled += 1;
                if ran {
                    let _ = self.body(task, arg);
                }
                Err(name)
            }
            Outcome::Error { variant, own: true, error, .. } => {
                if !met.is_empty() {
                    return Err(format!("{name} gave {error:?}, it met {met:?}"));
                }
                match variant {
                    "Task" | "Panicked" => {
                        let planned = match variant {
                            "Panicked" => task.end == End::Panics,
                            _ => matches!(task.end, End::FailsBefore | End::FailsAfter),
                        };
                        match self.seen.children.get(&task.no) {
                            Some(child) => {
                                self.child(child).map_err(|text| format!("a child of {name}: {text}"))?
                            }
                            None if !planned => return Err(format!("{name} gave {error:?}")),
                            None => {}
                        }
                        if ran {
                            let _ = self.body(task, arg);
                        }
                    }
                    "Reload" | "Spill" | "TooLarge" => {
                        let chunks: Vec<usize> = task.accesses.iter().map(|access| access.chunk).collect();
                        self.deserved(&error, &chunks).map_err(|text| format!("{name}: {text}"))?;
                        if ran {
                            return Err(format!("{name} ran, and gave {error:?}"));
                        }
                        match variant {
                            "Reload" => tally.reloads_failed += 1,
                            "Spill" => tally.spills_failed += 1,
                            _ => tally.too_large += 1,
                        }
                    }
                    _ => return Err(format!("{name} gave {error:?}")),
                }
                Err(name)
            }
            Outcome::Error { variant: "Dependency", root: Some(root), .. } if met.contains(&root) => {
                tally.poisoned += 1;
                Err(root)
            }
            // By its syncdep, or its maker: nothing of that fails.
            Outcome::Error { error, .. } => return Err(format!("{name} gave {error:?}; it met {met:?}")),
        };
        if let Err(root) = &result {
            self.poison(task, root);
        }
        self.results.insert(task.no, result);
        Ok(())
    }

    /// Whether the store may have failed a child so.
    fn child(&self, error: &Error) -> Checked {
        let cause = match error {
            Error::Dependency { cause, .. } => cause.clone(),
            error => Arc::new(error.clone()),
        };
        let faulty = self.run.faulty.as_ref();
        let is_deserved = match &*cause {
            Error::Reload { path, .. } => faulty.is_some_and(|faulty| faulty.has_injured(path)),
            Error::Spill { path, .. } => faulty.is_some_and(|faulty| faulty.has_refused(Op::Put, path)),
            Error::TooLarge { budget, .. } => self.program.largest > *budget,
            _ => false,
        };
        if is_deserved { Ok(()) } else { Err(format!("{error:?}")) }
    }

    /// What the body does.
    fn body(&mut self, task: &Task, arg: u64) -> Result<u64, Failure> {
        let modes: Vec<Mode> = task.accesses.iter().map(|access| access.mode).collect();
        let end = if task.end == End::Panics { End::FailsAfter } else { task.end };
        let log = Arc::new(Log::default());
        let body = Body { no: task.no, modes, end, resize: task.resize, children: 0, log };
        let ranges: Vec<Range<usize>> = task.accesses.iter().map(|access| self.range(access)).collect();
        let accesses = task.accesses.iter().zip(&ranges);
        let mut data: Vec<Data> = accesses
            .map(|(access, range)| self.chunks[access.chunk].values[range.clone()].to_vec())
            .collect();
        let h = body.read(arg, &data.iter().map(|data| data as &dyn Cell).collect::<Vec<_>>());
        let h = h.wrapping_add(children(task.no, task.children));
        let done = body.write(h, &mut data.iter_mut().map(|data| data as &mut dyn Cell).collect::<Vec<_>>());
        for ((access, range), data) in task.accesses.iter().zip(ranges).zip(data) {
            let chunk = &mut self.chunks[access.chunk];
            match access.what {
                What::Part => chunk.values[range].copy_from_slice(&data),
                _ => chunk.values = data,
            }
            if chunk.poison.len() != chunk.values.len() {
                chunk.poison = vec![None; chunk.values.len()]; // It succeeds.
            }
        }
        done
    }

    fn heal(&mut self, task: &Task) {
        for access in task.accesses.iter().filter(|access| access.mode == Mode::Out) {
            let range = self.range(access);
            self.chunks[access.chunk].heal(range);
        }
    }

    fn poison(&mut self, task: &Task, root: &str) {
        for access in task.accesses.iter().filter(|access| access.mode.writes()) {
            let range = self.range(access);
            for poison in &mut self.chunks[access.chunk].poison[range] {
                poison.get_or_insert_with(|| root.to_owned());
            }
        }
    }
}

fn same(found: u64, expected: u64, what: &str) -> Checked {
    if found == expected { Ok(()) } else { Err(format!("{what} gave {found:#x}, not {expected:#x}")) }
}

fn wrong_values(chunk: usize, found: &[u64], expected: &[u64]) -> String {
    let first = found.iter().zip(expected).position(|(found, expected)| found != expected);
    format!("c{chunk} holds {} values, not {}; the first other one is {first:?}", found.len(), expected.len())
}
