//! The same program without its spawns: every task where it stands, with plain values.
//!
//! 1. Where the runtime may choose (which of several failures a task meets first, whether a task that is cancelled right
//!    after its spawn ran), the run says what it chose; that is checked against what it may choose, and gone on with.
//! 2. Poison is kept element by element. An element keeps the first cause; a failed writer poisons all that it would write,
//!    what was refused for its accesses poisons nothing; an `Out` that succeeds heals its own elements only.

use super::call::{Access, CHUNKS, End, Mode, Point, fold, written};
use super::region::{Fault, Region, Resolved};
use super::run::{Cancel, Outcome, Program, Seen, Stmt, Task, initial};
use std::collections::HashMap;

struct Cell {
    values: Vec<i64>,
    poison: Vec<Option<String>>,
    /// Of a struct: it has no elements that a failed write of the whole could be split into.
    all: Option<String>,
    /// Of elements that a failed write of the whole has cut off, or added: these may be named until the whole is written.
    ghosts: Vec<String>,
    cols: usize,
}

struct Oracle<'p> {
    seen: &'p Seen,
    cells: Vec<Cell>,
    /// Bodies that ran, in program order, with what they accessed.
    bodies: Vec<(usize, Vec<Area>)>,
    /// Tasks in program order, whether they ran or not, with what they would access; `None` where that is not certain.
    places: Vec<(usize, Option<Vec<Area>>)>,
    /// How tasks ended.
    outcomes: HashMap<usize, Outcome>,
    /// The variant of each root's own error.
    roots: HashMap<String, &'static str>,
}

/// Why a run cannot be judged, or is wrong.
enum Stop {
    Unclear,
    Wrong(String),
}

/// Which tasks of a program had to come after which.
#[derive(Clone, Default, Debug)]
pub struct Dependences {
    /// Pairs (earlier, later) of tasks that access the same elements, one of them to write.
    pub conflicts: Vec<(usize, usize)>,
    /// Pairs that may be ordered though they share no element: an access without elements still needs the length to stay; if the
    /// length is not known at the spawn, regions with an open end share an element if they would in a longer chunk, and two
    /// accesses of one task share a place that covers the chunk.
    pub wider: Vec<(usize, usize)>,
    /// Tasks of which it is not certain what they would have accessed.
    pub unclear: Vec<usize>,
}

/// What a run has shown, in numbers.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    pub programs: usize,
    pub tasks: usize,
    pub values: usize,
    pub failed: usize,
    pub refused: usize,
    pub cancelled: usize,
    pub poisoned: usize,
    pub guards: usize,
    pub pairs: usize,
    pub unclear: usize,
    /// Of a single run, of all programs in it together. Tallies that are added up have none.
    pub dependences: Dependences,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.programs += other.programs;
        self.tasks += other.tasks;
        self.values += other.values;
        self.failed += other.failed;
        self.refused += other.refused;
        self.cancelled += other.cancelled;
        self.poisoned += other.poisoned;
        self.guards += other.guards;
        self.pairs += other.pairs;
        self.unclear += other.unclear;
    }
}

/// Whether a run gave what the program gives without its spawns.
pub fn check(program: &Program, seen: &Seen) -> Result<Tally, String> {
    let mut tally = Tally { programs: 1, ..Tally::default() };
    match check_program(program, seen, &mut tally) {
        Ok(_) => Ok(tally),
        Err(Stop::Unclear) => {
            tally.unclear += 1;
            Ok(tally)
        }
        Err(Stop::Wrong(text)) => Err(text),
    }
}

fn check_program(program: &Program, seen: &Seen, tally: &mut Tally) -> Result<Vec<Vec<i64>>, Stop> {
    let mut oracle = Oracle::new(program, seen);
    oracle.block(program.no, &program.stmts, tally)?;
    for (chunk, (read, values)) in seen.ends.iter().enumerate() {
        let cell = &oracle.cells[chunk];
        let whole = Access { chunk, mode: Mode::In, kind: super::call::Kind::VWhole, region: Region::Whole };
        let roots = cell.roots(&whole.region.resolve(cell.dims()));
        match read {
            None if !roots.is_empty() => {
                return wrong(format!("chunk {chunk} is clean at last, but not healed from {roots:?}"));
            }
            Some(Outcome::Error("Poisoned", Some(root)))
                if roots.contains(root) || cell.ghosts.contains(root) => {}
            Some(other) => return wrong(format!("at last chunk {chunk} gives {other:?}, it has {roots:?}")),
            None => {}
        }
        if *values != cell.values {
            return wrong(format!("chunk {chunk} holds {values:?} at last, not {:?}", cell.values));
        }
    }
    oracle.order(tally)?;
    oracle.dependences(&mut tally.dependences);
    Ok(oracle.cells.into_iter().map(|cell| cell.values).collect())
}

/// What one access touches.
pub struct Area {
    chunk: usize,
    writes: bool,
    elements: Resolved,
    region: Region,
    dims: (usize, usize),
}

impl Area {
    fn new(access: &Access, elements: Resolved, dims: (usize, usize)) -> Area {
        Area {
            chunk: access.chunk,
            writes: access.mode.writes(),
            elements,
            region: access.region.clone(),
            dims,
        }
    }

    /// The same in a longer chunk: long enough for steps of steps to meet if they ever do.
    fn longer(&self) -> Resolved {
        self.region.resolve(match self.dims {
            (len, 0) => (len + 40, 0),
            (rows, cols) => (rows + 12, cols + 12),
        })
    }

    /// See [`Dependences::wider`]; `its` and `theirs` are all that the two tasks access.
    fn may_wait(&self, its: &[Area], other: &Area, theirs: &[Area]) -> bool {
        let shares = |all: &[Area]| {
            let mut here = all.iter().filter(|area| area.chunk == self.chunk);
            here.clone().count() > 1 && here.any(|area| area.writes)
        };
        let is_empty = |area: &Area| area.elements.elements.is_empty();
        let writes = self.writes || other.writes;
        self.chunk == other.chunk
            && (self.writes && is_empty(self)
                || other.writes && is_empty(other)
                || is_empty(self) != is_empty(other)
                || shares(its)
                || shares(theirs)
                || writes && self.longer().meets(&other.longer()))
    }

    pub fn conflicts(&self, other: &Area) -> bool {
        self.chunk == other.chunk && (self.writes || other.writes) && self.elements.meets(&other.elements)
    }
}

/// What these accesses touch, in a program that changes no length.
pub fn areas(program: &Program, accesses: &[Access]) -> Vec<Area> {
    let area = |access: &Access| {
        let dims = program.dims_of(access.chunk);
        Area::new(access, access.region.resolve(dims), dims)
    };
    accesses.iter().map(area).collect()
}

/// Runs tasks that cannot fail in this order: their results, and what the chunks hold then.
pub fn replay(program: &Program, tasks: &[&Task]) -> (HashMap<usize, i64>, Vec<Vec<i64>>) {
    let seen = Seen::default();
    let mut oracle = Oracle::new(program, &seen);
    let mut results = HashMap::new();
    for task in tasks {
        let areas = oracle.resolve(&task.accesses);
        let arg = task.table.takes_argument().then_some(7);
        let result = oracle.body(task.no, &task.accesses, &areas, arg, End::Value, None);
        results.insert(task.no, result.unwrap());
    }
    (results, oracle.cells.into_iter().map(|cell| cell.values).collect())
}

fn wrong<T>(text: String) -> Result<T, Stop> {
    Err(Stop::Wrong(text))
}

impl Cell {
    fn dims(&self) -> (usize, usize) {
        match self.cols {
            0 => (self.values.len(), 0),
            cols => (self.values.len() / cols, cols),
        }
    }
    fn clear(&mut self) {
        self.poison.fill(None);
        self.all = None;
        self.ghosts.clear();
    }
    /// Which failures are left in there.
    fn roots(&self, area: &Resolved) -> Vec<String> {
        let elements = area.elements.iter().filter_map(|&at| self.poison.get(at)?.clone());
        let all = self.all.clone().filter(|_| area.whole || !area.elements.is_empty());
        elements.chain(all).collect()
    }
}

impl<'p> Oracle<'p> {
    fn new(program: &Program, seen: &'p Seen) -> Self {
        let cells = (0..CHUNKS).map(|chunk| {
            let (rows, cols) = program.dims_of(chunk);
            let len = if cols == 0 { rows } else { rows * cols };
            let values = (0..len).map(|at| initial(chunk, at)).collect();
            Cell { values, poison: vec![None; len], all: None, ghosts: Vec::new(), cols }
        });
        Oracle {
            seen,
            cells: cells.collect(),
            bodies: Vec::new(),
            places: Vec::new(),
            outcomes: HashMap::new(),
            roots: HashMap::new(),
        }
    }

    fn block(&mut self, no: usize, stmts: &[Stmt], tally: &mut Tally) -> Result<(), Stop> {
        let mut own: Vec<usize> = Vec::new();
        for stmt in stmts {
            match stmt {
                Stmt::Spawn(task) => {
                    self.task(task, tally)?;
                    own.push(task.no);
                }
                Stmt::Block(no, stmts) => self.block(*no, stmts, tally)?,
                Stmt::Guard { no, accesses, between } => {
                    self.guard(*no, accesses, tally)?;
                    for task in between {
                        self.task(task, tally)?;
                        own.push(task.no);
                    }
                }
                Stmt::Recover { no, chunk } => {
                    let cell = &mut self.cells[*chunk];
                    cell.clear();
                    let expected = Outcome::Value(fold(*no, None, std::slice::from_ref(&cell.values)));
                    if self.seen.outcomes.get(no) != Some(&expected) {
                        return wrong(format!(
                            "recovery {no} gave {:?}, not {expected:?}",
                            self.seen.outcomes.get(no)
                        ));
                    }
                }
                Stmt::Await(_) | Stmt::Room => {}
            }
        }
        // A block gives each root once, in the order of spawns: that of the root itself, if it is here.
        let mut roots: Vec<(String, usize)> = Vec::new();
        for (at, task) in own.iter().enumerate() {
            let Some(Outcome::Error(_, Some(root))) = self.outcomes.get(task) else { continue };
            let at = own.iter().position(|task| *root == format!("t{task}")).unwrap_or(at);
            if !roots.iter().any(|(known, _)| known == root) {
                roots.push((root.clone(), at));
            }
        }
        roots.sort_by_key(|(_, at)| *at);
        let expected: Vec<Outcome> =
            roots.into_iter().map(|(root, _)| Outcome::Error(self.roots[&root], Some(root))).collect();
        match self.seen.blocks.get(&no) {
            Some(found) if *found == expected => Ok(()),
            found => wrong(format!("block {no} gave {found:?}, not {expected:?}")),
        }
    }

    fn resolve(&self, accesses: &[Access]) -> Vec<Resolved> {
        accesses.iter().map(|access| access.region.resolve(self.cells[access.chunk].dims())).collect()
    }

    /// What may be wrong with these accesses: (must be refused, for aliasing), (must, may be for bounds).
    fn faults(accesses: &[Access], areas: &[Resolved]) -> (bool, Fault) {
        let mut aliased = accesses.iter().zip(areas).any(|(access, area)| access.mode.writes() && area.twice);
        for i in 0..accesses.len() {
            for j in 0..i {
                aliased |= accesses[i].chunk == accesses[j].chunk
                    && (accesses[i].mode.writes() || accesses[j].mode.writes())
                    && areas[i].meets(&areas[j]);
            }
        }
        let outside = match () {
            () if areas.iter().any(|area| area.fault == Fault::Sure) => Fault::Sure,
            () if areas.iter().any(|area| area.fault == Fault::Maybe) => Fault::Maybe,
            () => Fault::None,
        };
        (aliased, outside)
    }

    fn poison_met(&self, accesses: &[Access], areas: &[Resolved]) -> Vec<String> {
        let reading = accesses.iter().zip(areas).filter(|(access, _)| access.mode.reads());
        reading.flat_map(|(access, area)| self.cells[access.chunk].roots(area)).collect()
    }

    /// Something that is not there any more was poisoned by this root.
    fn is_ghost(&self, accesses: &[Access], root: &String) -> bool {
        accesses.iter().any(|access| self.cells[access.chunk].ghosts.contains(root))
    }

    /// Something of one of these chunks is poisoned by this root.
    fn is_somewhere(&self, accesses: &[Access], root: &String) -> bool {
        accesses
            .iter()
            .any(|access| self.cells[access.chunk].poison.iter().flatten().any(|known| known == root))
    }

    fn task(&mut self, task: &Task, tally: &mut Tally) -> Result<(), Stop> {
        let name = format!("t{}", task.no);
        let Some(seen) = self.seen.outcomes.get(&task.no) else {
            return wrong(format!("{name} has no outcome"));
        };
        tally.tasks += 1;
        let accesses: &[Access] = if task.inner.is_some() { &[] } else { &task.accesses };
        let areas = self.resolve(accesses);
        let (aliased, outside) = Self::faults(accesses, &areas);
        let mut roots = self.poison_met(accesses, &areas);
        let arg = if task.inner.is_none() {
            task.arg.and_then(|arg| self.outcomes.get(&arg).cloned())
        } else {
            None
        };
        if let Some(Outcome::Error(_, Some(root))) = &arg {
            roots.push(root.clone());
        }
        let ran = self.seen.ran.contains_key(&task.no) || self.seen.inner.contains_key(&task.no);
        let is_faulty = aliased || outside != Fault::None;
        let touched = accesses.iter().zip(&areas);
        let dims = |access: &Access| self.cells[access.chunk].dims();
        let touched = touched.map(|(access, area)| Area::new(access, area.clone(), dims(access)));
        self.places.push((task.no, (!is_faulty).then(|| touched.collect())));
        let must_fail =
            aliased || outside == Fault::Sure || !roots.is_empty() || task.cancel == Cancel::Unstarted;
        let refused = |what: &str| {
            wrong(format!(
                "{name} ended with {seen:?}: {what}; aliased: {aliased}, outside: {outside:?}, poison: {roots:?}"
            ))
        };
        self.outcomes.insert(task.no, seen.clone());
        let mut void = false;
        match seen {
            Outcome::Error("Aliased", Some(root)) if aliased && *root == name => void = true,
            Outcome::Error("OutOfBounds", Some(root)) if outside != Fault::None && *root == name => {
                void = true
            }
            Outcome::Error("Dependency", Some(root))
                if roots.contains(root) || self.is_ghost(accesses, root) => {}
            // What lies outside is as unknown as the length that a failed write of the whole has left.
            Outcome::Error("Dependency", Some(root))
                if outside != Fault::None && self.is_somewhere(accesses, root) => {}
            Outcome::Error("Cancelled", Some(root)) if task.cancel != Cancel::No && *root == name => {}
            Outcome::Error(variant @ ("Task" | "Panicked"), Some(root)) if !must_fail && *root == name => {
                let End::Fails { panics, .. } = task.end else { return refused("it should not fail") };
                if panics != (*variant == "Panicked") || !ran {
                    return refused("it failed in another way");
                }
            }
            Outcome::Value(_) if !must_fail && ran => {}
            _ => return refused("this may not be"),
        }
        if let Outcome::Error(variant, Some(root)) = seen
            && *root == name
        {
            self.roots.insert(root.clone(), variant);
        }
        if ran
            && (must_fail
                || !matches!(seen, Outcome::Value(_) | Outcome::Error("Task" | "Panicked" | "Cancelled", _)))
        {
            return refused("its body should not have run");
        }
        if is_faulty
            && !void
            && !matches!(seen, Outcome::Value(_))
            && accesses.iter().any(|access| access.mode.writes())
        {
            // Whether it had taken its places is not to be seen.
            return Err(Stop::Unclear);
        }
        if ran {
            let value = match &task.inner {
                Some(inner) => {
                    let Some(seen) = self.seen.inner.get(&task.no) else {
                        return refused("nothing of its program");
                    };
                    let found = check_program(inner, seen, tally)?;
                    Ok(fold(task.no, None, &found))
                }
                None => {
                    let given = match arg {
                        Some(Outcome::Value(value)) => Some(value),
                        _ => task.table.takes_argument().then_some(7),
                    };
                    self.body(task.no, accesses, &areas, given, task.end, task.resize)
                }
            };
            match (seen, value) {
                (Outcome::Value(found), Ok(expected)) if *found != expected => {
                    return wrong(format!("{name} gave {found}, not {expected}"));
                }
                (Outcome::Value(_), Err(())) => return wrong(format!("{name} did not fail")),
                _ => {}
            }
        }
        match seen {
            Outcome::Value(_) => {
                tally.values += 1;
                self.heal(accesses, &areas);
            }
            _ if void => tally.refused += 1,
            Outcome::Error(variant, root) => {
                match *variant {
                    "Cancelled" => tally.cancelled += 1,
                    "Dependency" => tally.poisoned += 1,
                    _ => tally.failed += 1,
                }
                // Its length may be another one now.
                let areas = self.resolve(accesses);
                for (access, area) in accesses.iter().zip(&areas).filter(|(access, _)| access.mode.writes()) {
                    self.poison(access, area, root.as_deref().unwrap_or_default());
                }
            }
        }
        Ok(())
    }

    fn guard(&mut self, no: usize, accesses: &[Access], tally: &mut Tally) -> Result<(), Stop> {
        let Some(seen) = self.seen.outcomes.get(&no) else { return wrong(format!("g{no} has no outcome")) };
        tally.guards += 1;
        let areas = self.resolve(accesses);
        let (aliased, outside) = Self::faults(accesses, &areas);
        let roots = self.poison_met(accesses, &areas);
        let may_alias = accesses.len() > 1
            && accesses.iter().all(|access| access.chunk == accesses[0].chunk)
            && accesses.iter().any(|access| access.mode.writes());
        match seen {
            // Guards are refused at once where the length is not known yet and two of them might overlap.
            Outcome::Error("Aliased", None) if aliased || may_alias => {}
            Outcome::Error("OutOfBounds", None) if outside != Fault::None => {}
            Outcome::Error("Poisoned", Some(root))
                if roots.contains(root) || self.is_ghost(accesses, root) => {}
            Outcome::Error("Poisoned", Some(root))
                if outside != Fault::None && self.is_somewhere(accesses, root) => {}
            Outcome::Value(found) if !aliased && outside != Fault::Sure && roots.is_empty() => {
                let value = self.body(no, accesses, &areas, None, End::Value, None);
                if Ok(*found) != value {
                    return wrong(format!("g{no} gave {found}, not {value:?}"));
                }
                self.heal(accesses, &areas);
            }
            _ => {
                return wrong(format!(
                    "g{no} ended with {seen:?}; aliased: {aliased}, outside: {outside:?}, poison: {roots:?}"
                ));
            }
        }
        Ok(())
    }

    /// What a body does.
    fn body(
        &mut self,
        no: usize,
        accesses: &[Access],
        areas: &[Resolved],
        arg: Option<i64>,
        end: End,
        resize: Option<usize>,
    ) -> Result<i64, ()> {
        let touched = accesses.iter().zip(areas).map(|(access, area)| {
            let cell = &self.cells[access.chunk];
            debug_assert!(area.elements.iter().all(|&at| at < cell.values.len()));
            Area::new(access, area.clone(), cell.dims())
        });
        self.bodies.push((no, touched.collect()));
        let reading = accesses.iter().zip(areas).filter(|(access, _)| access.mode.reads());
        let found: Vec<Vec<i64>> = reading
            .map(|(access, area)| {
                area.elements.iter().map(|&at| self.cells[access.chunk].values[at]).collect()
            })
            .collect();
        let h = fold(no, arg, &found);
        let fails = |here: Point| matches!(end, End::Fails { at, .. } if at == here);
        if fails(Point::Before) {
            return Err(());
        }
        let writing = accesses.iter().zip(areas).filter(|(access, _)| access.mode.writes());
        for (nth, (access, area)) in writing.enumerate() {
            if nth > 0 && fails(Point::Between) {
                return Err(());
            }
            let cell = &mut self.cells[access.chunk];
            let mut elements = area.elements.clone();
            if let Some(len) = resize.filter(|_| access.kind == super::call::Kind::VWhole) {
                cell.values.resize(len, 0);
                let gone = cell.poison.split_off(len.min(cell.poison.len()));
                cell.ghosts.extend(gone.into_iter().flatten());
                // What was refused as a whole knew no length: it may stand for the new elements too.
                cell.ghosts.extend(cell.poison.iter().flatten().cloned());
                cell.poison.resize(len, None);
                elements = (0..len).collect();
            }
            for (nth, at) in elements.into_iter().enumerate() {
                cell.values[at] = written(h, access.mode, nth as i64 + 1, cell.values[at]);
            }
        }
        if fails(Point::Between) || fails(Point::After) { Err(()) } else { Ok(h) }
    }

    fn poison(&mut self, access: &Access, area: &Resolved, root: &str) {
        let cell = &mut self.cells[access.chunk];
        if access.chunk == 4 && area.whole {
            cell.all.get_or_insert(root.to_owned());
        } else if cell.all.is_none() {
            for &at in &area.elements {
                cell.poison[at].get_or_insert(root.to_owned());
            }
        }
    }

    fn heal(&mut self, accesses: &[Access], areas: &[Resolved]) {
        for (access, area) in accesses.iter().zip(areas).filter(|(access, _)| access.mode == Mode::Out) {
            let cell = &mut self.cells[access.chunk];
            if area.whole {
                cell.clear();
            } else {
                area.elements.iter().for_each(|&at| cell.poison[at] = None);
            }
        }
    }

    /// Conflicting bodies ran one after the other, in program order.
    fn order(&self, tally: &mut Tally) -> Result<(), Stop> {
        for (at, (later, its)) in self.bodies.iter().enumerate() {
            for (earlier, theirs) in &self.bodies[..at] {
                if !its.iter().any(|one| theirs.iter().any(|other| one.conflicts(other))) {
                    continue;
                }
                tally.pairs += 1;
                let (Some(before), Some(after)) = (self.seen.ran.get(earlier), self.seen.ran.get(later))
                else {
                    continue;
                };
                if before.end > after.start {
                    return wrong(format!("{later} began before {earlier} had ended: {before:?}, {after:?}"));
                }
            }
        }
        Ok(())
    }

    /// Which tasks conflict, whether they ran or not: a place in a queue is taken either way.
    fn dependences(&self, found: &mut Dependences) {
        for (at, (later, its)) in self.places.iter().enumerate() {
            let Some(its) = its else {
                found.unclear.push(*later);
                continue;
            };
            for (earlier, theirs) in &self.places[..at] {
                let Some(theirs) = theirs else { continue };
                let pairs = || its.iter().flat_map(|one| theirs.iter().map(move |other| (one, other)));
                if pairs().any(|(one, other)| one.conflicts(other)) {
                    found.conflicts.push((*earlier, *later));
                } else if pairs().any(|(one, other)| one.may_wait(its, other, theirs)) {
                    found.wider.push((*earlier, *later));
                }
            }
        }
    }
}
