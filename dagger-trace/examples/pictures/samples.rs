//! Invented runs: programs of known shape, as a simple scheduler would have run them.

use dagger_trace::{Access, At, Edge, EdgeCause, Idle, LaneInfo, Run, Steal, Task, Trace};
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

/// A task before it has run.
pub(crate) struct Plan {
    pub(crate) name: String,
    /// Nanoseconds of each of its runs, and of the pause after it.
    pub(crate) runs: Vec<(u64, u64)>,
    /// Chunks, and whether it writes them.
    pub(crate) touches: Vec<(u64, bool)>,
    /// Tasks whose results it takes.
    pub(crate) inputs: Vec<usize>,
}

/// Numbers that look random and are the same every time.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From 0 to `below` - 1.
    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below.max(1)
    }

    /// About `nanos`, a quarter more or less.
    fn about(&mut self, nanos: u64) -> u64 {
        nanos * 3 / 4 + self.roll(nanos / 2 + 1)
    }
}

/// The tiled Cholesky factorisation of `p × p` tiles: p(p+1)(p+2)/6 tasks.
pub(crate) fn cholesky(p: u64, workers: usize) -> Trace {
    let mut dice = Dice::new(p);
    let mut plans = Vec::new();
    let tile = |row: u64, column: u64| row * (row + 1) / 2 + column;
    let mut add = |name: &str, nanos: u64, touches: Vec<(u64, bool)>| {
        plans.push(Plan { name: name.to_owned(), runs: vec![(nanos, 0)], touches, inputs: Vec::new() });
    };
    for k in 0..p {
        add("potrf", dice.about(95_000), vec![(tile(k, k), true)]);
        for i in k + 1..p {
            add("trsm", dice.about(130_000), vec![(tile(k, k), false), (tile(i, k), true)]);
        }
        for i in k + 1..p {
            add("syrk", dice.about(120_000), vec![(tile(i, k), false), (tile(i, i), true)]);
            for j in k + 1..i {
                let reads = [(tile(i, k), false), (tile(j, k), false)];
                add("gemm", dice.about(210_000), [&reads[..], &[(tile(i, j), true)]].concat());
            }
        }
    }
    simulate(&plans, workers)
}

/// One task, many that take its result, one that takes all of theirs.
pub(crate) fn fan(wide: usize, workers: usize) -> Trace {
    let mut dice = Dice::new(7);
    let mut plans = vec![plan("load", 400_000, vec![])];
    plans.extend((0..wide).map(|_| plan("map", dice.about(150_000), vec![0])));
    plans.push(plan("reduce", 600_000, (1..=wide).collect()));
    simulate(&plans, workers)
}

/// One after the other.
pub(crate) fn chain(long: usize) -> Trace {
    let mut dice = Dice::new(3);
    let plans: Vec<Plan> = (0..long)
        .map(|at| {
            plan(&format!("step {at}"), dice.about(2_000), (at > 0).then(|| at - 1).into_iter().collect())
        })
        .collect();
    simulate(&plans, 2)
}

/// Items that pass through stages, which wait for input and output in the middle.
pub(crate) fn pipeline(items: usize, stages: usize, workers: usize) -> Trace {
    const STAGES: [&str; 5] = ["fetch page", "parse", "embed vectors", "write to store", "notify"];
    let mut dice = Dice::new(5);
    let mut plans = Vec::new();
    for item in 0..items {
        for stage in 0..stages {
            let mut inputs = Vec::new();
            if stage > 0 {
                inputs.push(plans.len() - 1);
            }
            if item > 0 {
                inputs.push(plans.len() - stages);
            }
            let mut plan = plan(STAGES[stage % 5], dice.about(300_000), inputs);
            if stage % 2 == 0 {
                plan.runs = vec![(dice.about(80_000), dice.about(900_000)), (dice.about(200_000), 0)];
            }
            plans.push(plan);
        }
    }
    simulate(&plans, workers)
}

/// Tasks with names of their own.
pub(crate) fn many_names(tasks: usize, workers: usize) -> Trace {
    let mut dice = Dice::new(9);
    let plans: Vec<Plan> = (0..tasks)
        .map(|at| {
            let inputs = (0..2.min(at)).map(|_| at - 1 - dice.roll(40.min(at as u64)) as usize);
            let inputs = inputs.collect::<BTreeSet<_>>().into_iter().collect();
            let name = format!("station {:03} of the northern line", dice.roll(400));
            plan(&name, dice.about(40_000), inputs)
        })
        .collect();
    simulate(&plans, workers)
}

/// A task that runs once and takes results.
pub(crate) fn plan(name: &str, nanos: u64, inputs: Vec<usize>) -> Plan {
    Plan { name: name.to_owned(), runs: vec![(nanos, 0)], touches: Vec::new(), inputs }
}

/// Runs the plans on workers: who is free takes the oldest task that is ready. A main thread spawns them one by one.
pub(crate) fn simulate(plans: &[Plan], workers: usize) -> Trace {
    const SPAWN: u64 = 350;
    const OVERHEAD: u64 = 900;
    /// Who waits longer than this sleeps.
    const PATIENCE: u64 = 20_000;
    let mut dice = Dice::new(plans.len() as u64);
    let main = workers;
    let edges = edges(plans);
    let mut waits = vec![0usize; plans.len()];
    let mut next = vec![Vec::new(); plans.len()];
    let seen: BTreeSet<(usize, usize)> = edges.iter().map(|edge| (edge.from, edge.to)).collect();
    for &(from, to) in &seen {
        waits[to] += 1;
        next[from].push(to);
    }
    let mut tasks: Vec<Task> = plans
        .iter()
        .enumerate()
        .map(|(at, plan)| Task {
            id: at as u64 + 1,
            name: plan.name.clone(),
            site: format!("src/main.rs:{}", 20 + plan.name.len()),
            parent: None,
            spawned: Some(At { lane: main, at: at as u64 * SPAWN }),
            ready: None,
            runs: Vec::new(),
            ended: None,
            end: Some(dagger_core::record::End::Done),
            place: None,
            retries: 0,
            accesses: plan
                .touches
                .iter()
                .map(|&(chunk, writes)| Access { chunk, turn: at as u64, writes, part: "whole".to_owned() })
                .collect(),
        })
        .collect();
    // By the time from which it can run: the task, and which of its runs.
    let mut queue: BTreeSet<(u64, usize, usize)> = BTreeSet::new();
    for at in (0..plans.len()).filter(|&at| waits[at] == 0) {
        queue.insert((at as u64 * SPAWN, at, 0));
        tasks[at].ready = Some(at as u64 * SPAWN);
    }
    let mut free = vec![0u64; workers];
    let (mut idle, mut steals) = (Vec::new(), Vec::new());
    let mut end = 0;
    while let Some((from, task, run)) = queue.pop_first() {
        let lane = (0..workers).min_by_key(|&lane| (free[lane].max(from), lane)).unwrap_or(0);
        let start = free[lane].max(from) + OVERHEAD / 2 + dice.roll(OVERHEAD);
        if from > free[lane] + PATIENCE {
            idle.push(Idle { lane, start: free[lane] + 3_000, end: from });
        }
        if workers > 1 && dice.roll(6) == 0 {
            let victim = (lane + 1 + dice.roll(workers as u64 - 1) as usize) % workers;
            steals.push(Steal { lane, at: start - OVERHEAD / 3, from: victim });
        }
        let (nanos, pause) = plans[task].runs[run];
        let stop = start + nanos;
        free[lane] = stop;
        end = end.max(stop);
        tasks[task].runs.push(Run { lane, start, end: stop });
        if run + 1 < plans[task].runs.len() {
            queue.insert((stop + pause, task, run + 1));
            continue;
        }
        tasks[task].ended = Some(stop);
        for &to in &next[task] {
            waits[to] -= 1;
            let ready = tasks[to].ready.unwrap_or(to as u64 * SPAWN).max(stop);
            tasks[to].ready = Some(ready);
            if waits[to] == 0 {
                queue.insert((ready, to, 0));
            }
        }
    }
    for (lane, &free) in free.iter().enumerate().filter(|(_, free)| **free + PATIENCE < end) {
        idle.push(Idle { lane, start: free + 3_000, end });
    }
    let name = |lane| LaneInfo { name: format!("worker {lane}"), worker: Some(lane) };
    let mut lanes: Vec<LaneInfo> = (0..workers).map(name).collect();
    lanes.push(LaneInfo { name: "main".to_owned(), worker: None });
    let (moves, samples) = (Vec::new(), Vec::new());
    let (began, nanos) = (SystemTime::UNIX_EPOCH, end + 5_000);
    Trace { began, nanos, lanes, tasks, edges, idle, steals, moves, samples, lost: 0 }
}

fn edges(plans: &[Plan]) -> Vec<Edge> {
    let mut edges = Vec::new();
    let mut last: BTreeMap<u64, (Option<usize>, Vec<usize>)> = BTreeMap::new();
    for (to, plan) in plans.iter().enumerate() {
        edges.extend(plan.inputs.iter().map(|&from| Edge { from, to, cause: EdgeCause::Argument }));
        for &(chunk, writes) in &plan.touches {
            let (writer, readers) = last.entry(chunk).or_default();
            let before: Vec<usize> = if writes && !readers.is_empty() {
                readers.clone()
            } else {
                writer.iter().copied().collect()
            };
            edges.extend(before.into_iter().map(|from| Edge { from, to, cause: EdgeCause::Data { chunk } }));
            if writes {
                (*writer, *readers) = (Some(to), Vec::new());
            } else {
                readers.push(to);
            }
        }
    }
    edges
}
