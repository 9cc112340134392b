//! Where the time of a run went, and how fast it could have been.
//!
//! ```text
//!   task p   ══════╦═══════╗ waits for c ╔══════      the work of p before it spawns c comes before c,
//!                  ╚▶ c ═══╩═════════════╝            its work after the end of c comes after c
//! ```
//! What comes before what, in amounts of run time:
//! 1. a task's own run time is in sequence;
//! 2. if `b` takes the result of `a`, was ordered after it, or follows it by data, all of `a` comes before all of `b`;
//! 3. if a body of `p` spawned `c`, what `p` had run until then comes before all of `c`;
//! 4. if `p` awaited `c`, and ended after it, all of `c` comes before what `p` ran after `c` had ended.
//!
//! The critical path is the longest chain of run time under these rules; times of waiting and the cost of the runtime are not
//! in it. A trace that is not of this world, with tasks that come before themselves, gets the path of what is left when the
//! rules that close cycles are dropped.

use crate::model::{EdgeCause, Task, Trace};
use rustc_hash::FxHashMap;

/// What a run shows: see [`Trace::analysis`].
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Analysis {
    /// T₁: the run time of all tasks. One worker cannot be faster.
    pub work: u64,
    /// T∞: the run time along the critical path. Any number of workers cannot be faster.
    pub span: u64,
    /// The no-wait bound: `work` shared evenly by the workers. These workers cannot be faster.
    pub no_wait: u64,
    /// How long the recording went on.
    pub elapsed: u64,
    /// The critical path, in order. A task that spawned or awaited another one on the path is on it more than once.
    pub critical_path: Vec<Step>,
    /// What each worker did.
    pub workers: Vec<WorkerTime>,
}

/// A task, or a part of it, on the critical path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Step {
    /// The index of the task.
    pub task: usize,
    /// The run time that it adds to the path.
    pub nanos: u64,
}

/// Where the elapsed time of a worker went: the four add up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct WorkerTime {
    /// The index of its lane.
    pub lane: usize,
    /// It ran bodies of tasks.
    pub running: u64,
    /// It was awake between them: the runtime itself, and the search for work. Also the time after the last record, if
    /// records were lost.
    pub overhead: u64,
    /// It slept while tasks had been spawned that waited for others or their data.
    pub waiting: u64,
    /// It slept, and no task waited for another one: there was nothing to do, or all was in hands already.
    pub starved: u64,
}

/// A kind of tasks: what to call it, and which tasks belong to it.
pub type Category<'a> = (&'a str, &'a dyn Fn(&Task) -> bool);

/// The run times of the tasks of one name or category.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Row {
    /// The name or the category.
    pub name: String,
    /// How many tasks have run.
    pub count: usize,
    /// Their run time.
    pub total: u64,
    /// The same per task.
    pub mean: u64,
    /// Half of them ran no longer than this.
    pub p50: u64,
    /// 99 of 100 of them ran no longer than this.
    pub p99: u64,
    /// None of them ran longer.
    pub max: u64,
}

impl Trace {
    /// The bounds, the critical path, and what each worker did. About a microsecond per task and edge.
    #[must_use]
    pub fn analysis(&self) -> Analysis {
        let work = self.tasks.iter().map(Task::run_nanos).fold(0, u64::saturating_add);
        let (span, critical_path) = Points::new(self).longest();
        let workers = self.worker_times();
        let no_wait = work.div_ceil(self.worker_count() as u64);
        Analysis { work, span, no_wait, elapsed: self.nanos, critical_path, workers }
    }

    /// The run times by the names of tasks, the largest total first. Tasks that never ran do not count.
    ///
    /// The percentiles are nearest ranks: run times that occurred.
    #[must_use]
    pub fn by_name(&self) -> Vec<Row> {
        self.rows(|task| Some(&task.name))
    }

    /// As [`Trace::by_name`], for categories: a task belongs to the first whose predicate accepts it, and to none if none does.
    /// [`Trace::by_pattern`] makes them from patterns of names.
    ///
    /// ```
    /// # let trace = dagger_trace::Trace::from_log(&dagger_core::record::Log {
    /// #     began: std::time::SystemTime::now(), nanos: 0, lanes: vec![], lost: 0 });
    /// use dagger_trace::Task;
    /// let rows = trace.by_category(&[
    ///     ("solves", &|task: &Task| task.name.starts_with("tr")),
    ///     ("the rest", &|_| true),
    /// ]);
    /// # assert!(rows.is_empty());
    /// ```
    #[must_use]
    pub fn by_category(&self, categories: &[Category]) -> Vec<Row> {
        self.rows(|task| categories.iter().find(|(_, accepts)| accepts(task)).map(|&(label, _)| label))
    }

    pub(crate) fn rows<'a>(&'a self, key: impl Fn(&'a Task) -> Option<&'a str>) -> Vec<Row> {
        let mut times: FxHashMap<&str, Vec<u64>> = FxHashMap::default();
        for task in self.tasks.iter().filter(|task| !task.runs.is_empty()) {
            if let Some(key) = key(task) {
                times.entry(key).or_default().push(task.run_nanos());
            }
        }
        let mut rows: Vec<Row> = times.into_iter().map(|(name, times)| Row::new(name, times)).collect();
        rows.sort_unstable_by(|a, b| b.total.cmp(&a.total).then_with(|| a.name.cmp(&b.name)));
        rows
    }

    /// How many workers there are, counting those once whose thread was replaced; at least one.
    pub(crate) fn worker_count(&self) -> usize {
        let mut workers: Vec<usize> = self.lanes.iter().filter_map(|lane| lane.worker).collect();
        workers.sort_unstable();
        workers.dedup();
        workers.len().max(1)
    }

    fn worker_times(&self) -> Vec<WorkerTime> {
        let mut running = vec![0u64; self.lanes.len()];
        for run in self.tasks.iter().flat_map(|task| &task.runs) {
            if let Some(running) = running.get_mut(run.lane) {
                *running = running.saturating_add(run.nanos());
            }
        }
        let held = self.held();
        let mut waiting = vec![0u64; self.lanes.len()];
        let mut asleep = vec![0u64; self.lanes.len()];
        for idle in self.idle.iter().filter(|idle| idle.lane < self.lanes.len()) {
            asleep[idle.lane] = asleep[idle.lane].saturating_add(idle.end.saturating_sub(idle.start));
            let first = held.partition_point(|&(_, end)| end <= idle.start);
            for &(start, end) in held[first..].iter().take_while(|&&(start, _)| start < idle.end) {
                let both = end.min(idle.end).saturating_sub(start.max(idle.start));
                waiting[idle.lane] = waiting[idle.lane].saturating_add(both);
            }
        }
        let workers = self.lanes.iter().enumerate().filter(|(_, lane)| lane.worker.is_some());
        let time = workers.map(|(lane, _)| WorkerTime {
            lane,
            running: running[lane],
            overhead: self.nanos.saturating_sub(running[lane]).saturating_sub(asleep[lane]),
            waiting: waiting[lane],
            starved: asleep[lane].saturating_sub(waiting[lane]),
        });
        time.collect()
    }

    /// From when on each task could run: all that it waited for was there. `None` if that is not known.
    pub(crate) fn ready_times(&self) -> Vec<Option<u64>> {
        let mut waits = vec![false; self.tasks.len()];
        for edge in self.edges.iter().filter(|edge| edge.cause != EdgeCause::Awaited) {
            if let Some(waits) = waits.get_mut(edge.to) {
                *waits = true;
            }
        }
        let tasks = self.tasks.iter().zip(waits);
        let ready = tasks.map(|(task, waits)| {
            let spawned = task.spawned.map(|spawned| spawned.at);
            let known = task.ready.or(if waits { None } else { spawned });
            let begun = task.runs.first().map(|run| run.start);
            match (known, begun) {
                (Some(known), Some(begun)) => Some(known.min(begun)),
                (known, begun) => known.or(begun),
            }
        });
        ready.collect()
    }

    /// When at least one task waited for others: intervals in order and apart.
    fn held(&self) -> Vec<(u64, u64)> {
        let tasks = self.tasks.iter().zip(self.ready_times());
        let mut held: Vec<(u64, u64)> = tasks
            .filter_map(|(task, ready)| {
                let until = ready.or(task.ended).unwrap_or(self.nanos);
                task.spawned.map(|spawned| (spawned.at, until))
            })
            .filter(|(from, until)| from < until)
            .collect();
        held.sort_unstable();
        held.dedup_by(|next, last| {
            let joins = next.0 <= last.1;
            if joins {
                last.1 = last.1.max(next.1);
            }
            joins
        });
        held
    }
}

impl Row {
    /// `times` is not empty.
    fn new(name: &str, mut times: Vec<u64>) -> Row {
        times.sort_unstable();
        let count = times.len();
        let total = times.iter().copied().fold(0, u64::saturating_add);
        let rank = |percent: usize| times[(count * percent).div_ceil(100).max(1) - 1];
        let (p50, p99, max) = (rank(50), rank(99), times[count - 1]);
        Row { name: name.into(), count, total, mean: total / count as u64, p50, p99, max }
    }
}

/// The moments of tasks that order them: start and end of each, and between these its spawns and what it awaited.
struct Points {
    /// The task of each point. Points of one task are neighbours, in order; the first is its start, the last its end.
    task: Vec<usize>,
    /// The run time of the task between the point before and this one.
    run: Vec<u64>,
    /// Rules between tasks, as (earlier point, later point), by the earlier one.
    rules: Vec<(usize, usize)>,
}

/// What happens at a point between start and end, in the order that holds at equal times: what is awaited had to be spawned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Inner {
    Spawns(usize),
    Awaited(usize),
}

impl Points {
    fn new(trace: &Trace) -> Points {
        let tasks = &trace.tasks;
        let mut inner: Vec<(usize, u64, Inner)> = Vec::new();
        for (child, task) in tasks.iter().enumerate() {
            if let (Some(parent), Some(spawned)) = (task.parent, task.spawned)
                && parent < tasks.len()
            {
                inner.push((parent, spawned.at, Inner::Spawns(child)));
            }
        }
        let known = |&&edge: &&crate::Edge| edge.from < tasks.len() && edge.to < tasks.len();
        for edge in trace.edges.iter().filter(known).filter(|edge| edge.cause == EdgeCause::Awaited) {
            if let Some(ended) = tasks[edge.from].ended
                && tasks[edge.to].ended.is_none_or(|end| ended < end)
            {
                inner.push((edge.to, ended, Inner::Awaited(edge.from)));
            }
        }
        inner.sort_unstable();

        let mut points = Points { task: Vec::new(), run: Vec::new(), rules: Vec::new() };
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        let mut between = Vec::new();
        let mut inner = inner.into_iter().peekable();
        for (index, task) in tasks.iter().enumerate() {
            starts.push(points.push(index, 0));
            let mut runs = task.runs.iter();
            let (mut run, mut done, mut before) = (runs.next(), 0u64, 0u64);
            while let Some((_, at, what)) = inner.next_if(|&(task, ..)| task == index) {
                while let Some(over) = run.filter(|run| run.end <= at) {
                    done = done.saturating_add(over.nanos());
                    run = runs.next();
                }
                let part = run.map_or(0, |run| at.saturating_sub(run.start));
                let now = done.saturating_add(part).max(before);
                between.push((points.push(index, now - before), what));
                before = now;
            }
            ends.push(points.push(index, task.run_nanos().saturating_sub(before)));
        }
        for (point, what) in between {
            points.rules.push(match what {
                Inner::Spawns(child) => (point, starts[child]),
                Inner::Awaited(other) => (ends[other], point),
            });
        }
        for edge in trace.edges.iter().filter(known).filter(|edge| edge.cause != EdgeCause::Awaited) {
            points.rules.push((ends[edge.from], starts[edge.to]));
        }
        points.rules.sort_unstable();
        points.rules.dedup();
        points
    }

    fn push(&mut self, task: usize, run: u64) -> usize {
        self.task.push(task);
        self.run.push(run);
        self.task.len() - 1
    }

    /// The point after it of the same task.
    fn next(&self, point: usize) -> Option<usize> {
        (self.task.get(point + 1) == Some(&self.task[point])).then_some(point + 1)
    }

    /// The length of the longest chain, and the tasks along it.
    fn longest(&self) -> (u64, Vec<Step>) {
        let count = self.task.len();
        let mut missing = vec![0usize; count];
        for point in 0..count {
            if let Some(next) = self.next(point) {
                missing[next] += 1;
            }
        }
        for &(_, later) in &self.rules {
            missing[later] += 1;
        }
        let mut first_rule = vec![0usize; count + 1];
        for &(earlier, _) in &self.rules {
            first_rule[earlier + 1] += 1;
        }
        for point in 0..count {
            first_rule[point + 1] += first_rule[point];
        }

        let mut length = vec![0u64; count];
        let mut from: Vec<Option<usize>> = vec![None; count];
        let mut done = vec![false; count];
        let mut ready: Vec<usize> = (0..count).filter(|&point| missing[point] == 0).collect();
        let mut oldest = 0;
        loop {
            let point = match ready.pop() {
                Some(point) => point,
                // What is left comes before itself: the oldest goes on without.
                None => match (oldest..count).find(|&point| !done[point]) {
                    Some(point) => {
                        oldest = point + 1;
                        point
                    }
                    None => break,
                },
            };
            if std::mem::replace(&mut done[point], true) {
                continue;
            }
            let own = self.next(point).map(|next| (next, self.run[next]));
            let others =
                self.rules[first_rule[point]..first_rule[point + 1]].iter().map(|&(_, later)| (later, 0));
            for (later, run) in own.into_iter().chain(others) {
                if done[later] {
                    continue;
                }
                let through = length[point].saturating_add(run);
                if through > length[later] {
                    length[later] = through;
                    from[later] = Some(point);
                }
                missing[later] -= 1;
                if missing[later] == 0 {
                    ready.push(later);
                }
            }
        }

        let mut steps: Vec<Step> = Vec::new();
        let mut at = (0..count).max_by_key(|&point| (length[point], std::cmp::Reverse(point)));
        let span = at.map_or(0, |point| length[point]);
        while let Some(point) = at.filter(|_| span > 0) {
            let nanos = length[point] - from[point].map_or(0, |before| length[before]);
            match steps.last_mut().filter(|step| step.task == self.task[point]) {
                Some(step) => step.nanos += nanos,
                None => steps.push(Step { task: self.task[point], nanos }),
            }
            at = from[point];
        }
        steps.reverse();
        (span, steps)
    }
}
