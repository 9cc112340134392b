//! A recorded run as tasks, their runs and the edges between them.
//!
//! ```text
//!   Log: records, lane by lane                      Trace: tasks, in the order of their spawns
//!   lane 0  Start 1 .. Suspend 1 .. Start 2 ..  ──▶  task 1  runs [lane 0, 10..20] [lane 1, 50..60]  ended 60
//!   lane 1  Resume 1 .. End 1                        task 2  runs [lane 0, 25..40]   edges 1 ─argument▶ 2
//! ```
//! 1. A lane does one thing at a time: its runs and idle times do not overlap. A task that runs another one inside its own
//!    body (a wait that helps, an inline task) therefore has a run before that and one after it.
//! 2. The runs of a task are in the order of time, do not overlap, and none is after its end.
//! 3. All times are at most `nanos`; a run and an idle time start no later than they end.
//! 4. Indices (`Task::parent`, `Edge`, and the lanes) are within `tasks` and `lanes`.
//! 5. Moves are in the order of their starts, and may overlap, also within a lane. Samples are in the order of time.
//!
//! It knows nothing of files and pictures, and computes nothing that needs all tasks at once except the edges of data.

use crate::data;
use crate::lane::{Doing, LaneWalk, Piece};
use dagger_core::Area;
use dagger_core::record::{Cause, End, Log, Move, Name, Record, What};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

/// A recorded run. Times are nanoseconds since `began`.
///
/// ```
/// use dagger_core::record::{End, Lane, Log, Name, Record, What};
/// use dagger_trace::Trace;
/// use std::panic::Location;
///
/// let (name, site) = (Name::Callee("double"), Location::caller());
/// let records = [
///     (10, What::Spawn { task: 1, parent: 0, name, site }),
///     (20, What::Start { task: 1 }),
///     (50, What::End { task: 1, end: End::Done }),
/// ];
/// let records = records.into_iter().map(|(at, what)| Record { at, what }).collect();
/// let lane = Lane { name: "worker 0".into(), worker: Some(0), records };
/// let log = Log { began: std::time::SystemTime::now(), nanos: 100, lanes: vec![lane], lost: 0 };
///
/// let trace = Trace::from_log(&log);
/// assert_eq!(trace.tasks[0].name, "double");
/// assert_eq!((trace.tasks[0].runs[0].start, trace.tasks[0].runs[0].end), (20, 50));
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Trace {
    /// When the recording began, by the clock on the wall.
    pub began: SystemTime,
    /// How long it went on.
    pub nanos: u64,
    /// The threads that took part.
    pub lanes: Vec<LaneInfo>,
    /// In the order of their spawns. Those whose spawn is not in the recording are first.
    pub tasks: Vec<Task>,
    /// Which task came after which, by the later one. Those by data are only the immediate ones: what follows from two
    /// others is left out where that is cheap to see. Who waited for a block came after its tasks; where a step of an `in_order` block
    /// came after a `bulk` of very many, only after the one that ended last.
    pub edges: Vec<Edge>,
    /// When threads slept, lane by lane.
    pub idle: Vec<Idle>,
    /// When a worker took tasks from another one's queue, lane by lane.
    pub steals: Vec<Steal>,
    /// What stores moved between memory and elsewhere, in the order of the starts.
    pub moves: Vec<Moved>,
    /// What stores held in memory, in the order of time.
    pub samples: Vec<Sample>,
    /// How many records did not fit into their buffers: the newest ones of each lane are missing.
    pub lost: u64,
}

/// A thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneInfo {
    /// Its name.
    pub name: String,
    /// The number of the worker that it is, if it is one.
    pub worker: Option<usize>,
}

/// A task, as far as the recording knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Task {
    /// Its number in the process that ran it.
    pub id: u64,
    /// Its name; `?` if its spawn is not in the recording.
    pub name: String,
    /// Where in the program it was spawned, as `file:line`; empty if its spawn is not in the recording.
    pub site: String,
    /// The task whose body spawned it; `None` outside tasks, and if that task is not in the recording.
    pub parent: Option<usize>,
    /// Where and when it was spawned.
    pub spawned: Option<At>,
    /// Where it may run; `None`: on any worker, in its turn.
    pub place: Option<Place>,
    /// How often it was tried again after a failure.
    pub retries: u32,
    /// When all that it waited for was there.
    pub ready: Option<u64>,
    /// When its body ran, in the order of time. Between them it waited, or another task ran inside it.
    pub runs: Vec<Run>,
    /// When it ended.
    pub ended: Option<u64>,
    /// How it ended.
    pub end: Option<End>,
    /// What it touched of which chunks.
    pub accesses: Vec<Access>,
}

impl Task {
    /// For how long its body ran, all runs together.
    #[must_use]
    pub fn run_nanos(&self) -> u64 {
        self.runs.iter().map(Run::nanos).fold(0, u64::saturating_add)
    }
}

/// Where a task may run, and when: why it ran where it did. Others run where they became ready, or where a worker without work
/// took them to ([`Steal`]).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The workers that its scope leaves, by number; `None`: all.
    pub workers: Option<Vec<usize>>,
    /// Its priority: larger ones first.
    pub priority: i32,
    /// It ran beside the workers, since its body may block.
    pub blocking: bool,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.workers {
            _ if self.blocking => f.write_str("a thread beside the workers")?,
            None => f.write_str("any worker")?,
            Some(workers) => {
                f.write_str(if workers.len() == 1 { "worker" } else { "workers" })?;
                for (nth, worker) in workers.iter().enumerate() {
                    write!(f, "{}{worker}", if nth == 0 { " " } else { ", " })?;
                }
            }
        }
        if self.priority == 0 { Ok(()) } else { write!(f, ", priority {}", self.priority) }
    }
}

/// A thread and a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct At {
    /// The index of the lane.
    pub lane: usize,
    /// The moment.
    pub at: u64,
}

/// A time during which a task's body ran, without interruption, on one thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The index of the lane.
    pub lane: usize,
    /// From here on.
    pub start: u64,
    /// Up to here.
    pub end: u64,
}

impl Run {
    /// How long it is.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What a task touched of a chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    /// The chunk: a number of its own in the process that ran it.
    pub chunk: u64,
    /// The order of the accesses to this chunk.
    pub turn: u64,
    /// It writes.
    pub writes: bool,
    /// Which part, as it would be written: `whole`, `0..3`, `lower`.
    pub part: String,
}

/// One task came after another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Edge {
    /// The index of the earlier task.
    pub from: usize,
    /// The index of the later one.
    pub to: usize,
    /// Why.
    pub cause: EdgeCause,
}

/// Why a task came after another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum EdgeCause {
    /// It takes the other one's result.
    Argument,
    /// It was told to wait for it.
    Order,
    /// It awaited it inside its body: it had started before, and what it ran afterwards came later.
    Awaited,
    /// Both access overlapping parts of this chunk, and one of them writes.
    Data {
        /// The number of the chunk.
        chunk: u64,
    },
}

/// A time during which a thread slept because it found nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Idle {
    /// The index of the lane.
    pub lane: usize,
    /// From here on.
    pub start: u64,
    /// Up to here.
    pub end: u64,
}

/// A worker took tasks from another one's queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Steal {
    /// The index of the lane that took them.
    pub lane: usize,
    /// When.
    pub at: u64,
    /// The number of the worker that it took them from (not the index of a lane).
    pub from: usize,
}

/// A value got into memory, or out of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// The index of the lane that wrote it down: the thread that saw its end.
    pub lane: usize,
    /// From here on.
    pub start: u64,
    /// Up to here.
    pub end: u64,
    /// The chunk that the value is of, as in [`Access::chunk`].
    pub chunk: u64,
    /// The size of the value in memory.
    pub bytes: u64,
    /// How it moved.
    pub how: Move,
}

impl Moved {
    /// How long it took.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// What a store held in memory from a moment on, until its next sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// The store: a number of its own in the process that ran it.
    pub store: u64,
    /// The moment.
    pub at: u64,
    /// All that was resident.
    pub bytes: u64,
    /// What of it could not leave then.
    pub pinned: u64,
}

impl Trace {
    /// Puts together what the threads wrote down.
    ///
    /// A log may lack records: the recording began or ended in the middle, or buffers were full. Then
    /// - a run that had begun before the recording counts from its beginning, or from the last thing that its lane did;
    /// - a run or a sleep that had not ended counts to the end of the recording, or, if records were lost, to the last record
    ///   of its lane;
    /// - a move that had begun before the recording counts from its beginning; one that had not ended is not known;
    /// - a task is known if there is a record of its own; an edge from a task that is not known is left out;
    /// - all else that is missing stays `None`.
    ///
    /// Times beyond the end of the recording, and times that go back within a lane, are set to the nearest one in order.
    #[must_use]
    pub fn from_log(log: &Log) -> Trace {
        let mut build = Build::default();
        for (lane, entry) in log.lanes.iter().enumerate() {
            build.lane(lane, &entry.records, log.nanos, log.lost > 0);
        }
        let lanes =
            log.lanes.iter().map(|lane| LaneInfo { name: lane.name.clone(), worker: lane.worker }).collect();
        build.finish(log, lanes)
    }
}

/// Edges that a joint is replaced by, at most, if they are more than twice as many as it had.
const JOINED_MAX: usize = 10_000;

/// A task, and what needs the others to be known.
struct Known {
    task: Task,
    /// None of the program's: what came after it came after its inputs.
    is_joint: bool,
    /// The parent's id.
    parent: u64,
    /// The time of its first record.
    first: u64,
}

/// An access, of a task by its place among `Build::known`.
struct Touch {
    known: usize,
    chunk: u64,
    turn: u64,
    writes: bool,
    part: Option<Arc<Area>>,
}

#[derive(Default)]
struct Build {
    known: Vec<Known>,
    by_id: FxHashMap<u64, usize>,
    /// The later task, the earlier one's id, why.
    after: Vec<(usize, u64, Cause)>,
    touches: Vec<Touch>,
    idle: Vec<Idle>,
    steals: Vec<Steal>,
    moves: Vec<Moved>,
    samples: Vec<Sample>,
    /// Runs whose start is not in the recording.
    begun_before: Vec<(usize, Run)>,
}

impl Build {
    fn known(&mut self, id: u64, at: u64) -> usize {
        let known = *self.by_id.entry(id).or_insert_with(|| {
            let task = Task {
                id,
                name: "?".into(),
                site: String::new(),
                parent: None,
                spawned: None,
                place: None,
                retries: 0,
                ready: None,
                runs: Vec::new(),
                ended: None,
                end: None,
                accesses: Vec::new(),
            };
            self.known.push(Known { task, is_joint: false, parent: 0, first: at });
            self.known.len() - 1
        });
        self.known[known].first = self.known[known].first.min(at);
        known
    }

    fn lane(&mut self, lane: usize, records: &[Record], nanos: u64, lossy: bool) {
        let mut walk = LaneWalk::new();
        let mut now = 0;
        for record in records {
            now = record.at.min(nanos).max(now);
            self.record(lane, now, &record.what, &mut walk);
        }
        let piece = walk.close(if lossy { now } else { nanos });
        self.piece(lane, piece);
    }

    fn record(&mut self, lane: usize, at: u64, what: &What, walk: &mut LaneWalk) {
        match what {
            What::Spawn { task, parent, name, site } => {
                let known = self.known(*task, at);
                let known = &mut self.known[known];
                if known.task.spawned.is_none() {
                    known.task.name = name.as_ref().to_owned();
                    known.is_joint = matches!(name, Name::Joint(_));
                    known.task.site = format!("{}:{}", site.file(), site.line());
                    known.task.spawned = Some(At { lane, at });
                    known.parent = *parent;
                }
            }
            What::Place { task, workers, priority, blocking } => {
                let known = self.known(*task, at);
                let workers = workers.as_deref().map(<[usize]>::to_vec);
                self.known[known].task.place =
                    Some(Place { workers, priority: *priority, blocking: *blocking });
            }
            What::Retry { task, attempt } => {
                let known = self.known(*task, at);
                let retries = &mut self.known[known].task.retries;
                *retries = (*retries).max(*attempt);
            }
            What::After { task, input, cause } => {
                let known = self.known(*task, at);
                self.after.push((known, *input, *cause));
            }
            What::Access { task, chunk, turn, writes, part } => {
                let known = self.known(*task, at);
                let (chunk, turn, writes, part) = (*chunk, *turn, *writes, part.clone());
                self.touches.push(Touch { known, chunk, turn, writes, part });
            }
            What::Ready { task } => {
                let known = self.known(*task, at);
                let ready = &mut self.known[known].task.ready;
                *ready = Some(ready.map_or(at, |before| before.min(at)));
            }
            What::Start { task } | What::Resume { task } => {
                let known = self.known(*task, at);
                let piece = walk.begin(Doing::Task(known), at);
                self.piece(lane, piece);
            }
            What::Suspend { task } => {
                let known = self.known(*task, at);
                self.stop(lane, known, at, true, walk);
            }
            What::End { task, end } => {
                let known = self.known(*task, at);
                if self.known[known].task.ended.is_none_or(|before| at < before) {
                    self.known[known].task.ended = Some(at);
                    self.known[known].task.end = Some(*end);
                }
                self.stop(lane, known, at, matches!(end, End::Done | End::Failed), walk);
            }
            What::Steal { from } => self.steals.push(Steal { lane, at, from: *from }),
            What::Sleep => {
                let piece = walk.begin(Doing::Sleep, at);
                self.piece(lane, piece);
            }
            What::Wake => match walk.finish(Doing::Sleep, at) {
                Ok(piece) => self.piece(lane, piece),
                Err(start) => self.idle.push(Idle { lane, start, end: at }),
            },
            &What::Moved { chunk, bytes, how, nanos } => {
                self.moves.push(Moved { lane, start: at.saturating_sub(nanos), end: at, chunk, bytes, how });
            }
            &What::Resident { store, bytes, pinned } => {
                self.samples.push(Sample { store, at, bytes, pinned });
            }
            _ => {} // a kind of record that is newer than this crate
        }
    }

    /// A task stopped running here; `ran` if that says that it had been running.
    fn stop(&mut self, lane: usize, known: usize, at: u64, ran: bool, walk: &mut LaneWalk) {
        if !ran && !walk.does(Doing::Task(known)) {
            return;
        }
        match walk.finish(Doing::Task(known), at) {
            Ok(piece) => self.piece(lane, piece),
            Err(start) => self.begun_before.push((known, Run { lane, start, end: at })),
        }
    }

    fn piece(&mut self, lane: usize, piece: Option<Piece>) {
        let Some(Piece { doing, start, end }) = piece else { return };
        match doing {
            Doing::Task(known) => self.known[known].task.runs.push(Run { lane, start, end }),
            Doing::Sleep => self.idle.push(Idle { lane, start, end }),
        }
    }

    /// Puts edges from the inputs of each joint in place of those from the joint, and forgets it.
    fn dissolve_joints(&mut self) {
        let joints: FxHashSet<u64> =
            self.known.iter().filter(|known| known.is_joint).map(|known| known.task.id).collect();
        if joints.is_empty() {
            return;
        }
        let is_joint = |known: usize| self.known[known].is_joint;
        let mut inputs: FxHashMap<u64, Vec<u64>> = FxHashMap::default();
        let mut outputs: FxHashMap<u64, usize> = FxHashMap::default();
        for &(known, input, _) in &self.after {
            if is_joint(known) {
                inputs.entry(self.known[known].task.id).or_default().push(input);
            } else if joints.contains(&input) {
                *outputs.entry(input).or_default() += 1;
            }
        }
        // What comes before each joint that something comes after, through others as well.
        let ended = |id: &u64| self.by_id.get(id).and_then(|&known| self.known[known].task.ended);
        let mut before: FxHashMap<u64, Vec<u64>> = FxHashMap::default();
        for (&joint, &outputs) in &outputs {
            let (mut found, mut seen, mut open) = (Vec::new(), FxHashSet::from_iter([joint]), vec![joint]);
            while let Some(next) = open.pop() {
                for &input in inputs.get(&next).into_iter().flatten() {
                    match () {
                        () if !seen.insert(input) => {}
                        () if joints.contains(&input) => open.push(input),
                        () => found.push(input),
                    }
                }
            }
            // No more than twice the edges that there were are always fine.
            let few = JOINED_MAX.max(2 * (found.len() + outputs));
            if found.len().saturating_mul(outputs) > few {
                found = found.into_iter().max_by_key(ended).into_iter().collect();
            }
            before.insert(joint, found);
        }
        let mut after = Vec::with_capacity(self.after.len());
        for &(known, input, cause) in &self.after {
            match before.get(&input) {
                _ if is_joint(known) => {}
                Some(found) => after.extend(found.iter().map(|&input| (known, input, cause))),
                None => after.push((known, input, cause)),
            }
        }
        // Those that are left move together.
        let mut left = 0..self.known.len();
        let place: Vec<Option<usize>> =
            self.known.iter().map(|known| if known.is_joint { None } else { left.next() }).collect();
        self.after = after
            .into_iter()
            .filter_map(|(known, input, cause)| Some((place[known]?, input, cause)))
            .collect();
        self.touches.retain_mut(|touch| place[touch.known].inspect(|&known| touch.known = known).is_some());
        self.known.retain(|known| !known.is_joint);
        self.by_id =
            self.known.iter().enumerate().map(|(known, Known { task, .. })| (task.id, known)).collect();
    }

    fn finish(mut self, log: &Log, lanes: Vec<LaneInfo>) -> Trace {
        for (known, run) in std::mem::take(&mut self.begun_before) {
            let task = &mut self.known[known].task;
            if task.spawned.is_none() && task.ready.is_none() {
                task.runs.push(run); // else it never ran: it ended without
            }
        }
        self.dissolve_joints();
        self.touches.sort_by_key(|touch| (touch.chunk, touch.turn));
        for touch in &self.touches {
            let part = touch.part.as_deref().map_or_else(|| "whole".into(), Area::to_string);
            let (chunk, turn, writes) = (touch.chunk, touch.turn, touch.writes);
            self.known[touch.known].task.accesses.push(Access { chunk, turn, writes, part });
        }

        let mut order: Vec<usize> = (0..self.known.len()).collect();
        order.sort_by_key(|&known| {
            let Known { task, first, .. } = &self.known[known];
            (task.spawned.map(|spawned| spawned.at), *first, task.id)
        });
        let mut index = vec![0; order.len()];
        for (place, &known) in order.iter().enumerate() {
            index[known] = place;
        }
        let find = |id: u64| self.by_id.get(&id).map(|&known| index[known]);

        let mut edges = FxHashSet::default();
        for &(known, input, cause) in &self.after {
            let cause = match cause {
                Cause::Argument => EdgeCause::Argument,
                Cause::Awaited => EdgeCause::Awaited,
                _ => EdgeCause::Order,
            };
            if let Some(from) = find(input) {
                edges.insert(Edge { from, to: index[known], cause });
            }
        }
        for chunk in self.touches.chunk_by(|a, b| a.chunk == b.chunk) {
            let cause = EdgeCause::Data { chunk: chunk[0].chunk };
            let touches: Vec<data::Touch> = chunk
                .iter()
                .map(|here| {
                    let &Touch { known: task, turn, writes, ref part, .. } = here;
                    data::Touch { task, turn, writes, part: part.as_deref().unwrap_or(&Area::Whole) }
                })
                .collect();
            for (from, to) in data::immediate(&touches) {
                edges.insert(Edge { from: index[from], to: index[to], cause });
            }
        }
        let mut edges: Vec<Edge> = edges.into_iter().filter(|edge| edge.from != edge.to).collect();
        edges.sort_unstable_by_key(|edge| (edge.to, edge.from, edge.cause));

        let parents: Vec<Option<usize>> = self.known.iter().map(|known| find(known.parent)).collect();
        let mut tasks: Vec<(usize, Task)> = Vec::with_capacity(order.len());
        for (known, (mut task, parent)) in
            self.known.into_iter().map(|known| known.task).zip(parents).enumerate()
        {
            task.parent = parent.filter(|&parent| parent != index[known]);
            tidy(&mut task);
            tasks.push((index[known], task));
        }
        tasks.sort_unstable_by_key(|&(place, _)| place);
        let tasks = tasks.into_iter().map(|(_, task)| task).collect();
        self.moves.sort_by_key(|moved| (moved.start, moved.end));
        self.samples.sort_by_key(|sample| sample.at);
        let Log { began, nanos, lost, .. } = *log;
        let Build { idle, steals, moves, samples, .. } = self;
        Trace { began, nanos, lanes, tasks, edges, idle, steals, moves, samples, lost }
    }
}

/// Runs in order, apart, and not after the end (invariant 2).
fn tidy(task: &mut Task) {
    task.runs.sort_by_key(|run| (run.start, run.end));
    if let Some(ended) = task.ended {
        task.runs.retain(|run| run.start <= ended);
        for run in &mut task.runs {
            run.end = run.end.min(ended);
        }
    }
    for next in 1..task.runs.len() {
        let start = task.runs[next].start;
        let run = &mut task.runs[next - 1];
        run.end = run.end.min(start);
    }
}
