//! What order costs: graphs of tiny tasks in ours and, if there are programs of theirs, in other runtimes.
//!
//! ```text
//!   cargo run --release -p dagger-benches --bin taskbench -- --peers DIR
//!
//!   for each number of workers and each bench:
//!     (ping-pong, a sample of ours, ping-pong, a sample of each peer, ..) × samples
//! ```
//!
//! | bench | program | figure |
//! | --- | --- | --- |
//! | `spawn` | 10⁶ independent tasks | ns a task |
//! | `chain` | 10⁵ tasks, each `InOut` on the same chunk | |
//! | `fanout` | 10 times `InOut`, 1000 × `In`, `InOut` on one chunk | |
//! | `random` | 10⁵ tasks, `In`, `In`, `InOut` on three of 100 chunks | |
//! | `cholesky_dag` | the 11,480 tasks of a Cholesky of 40 × 40 tiles | |
//! | `stencil` | 1000 steps of 4 and of 64 points, each reading itself and its neighbours | |
//! | `trivial` .. `random_nearest` | the other patterns of Task Bench | |
//! | `metg50`, `metg80` | the stencil with a kernel: the granularity at 50 and 80 % of the peak | µs |
//!
//! * A run is one datadeps block over chunks that are there: all tasks are spawned and waited for. A sample is the mean of the
//!   runs of 0.1 s, after one that is not counted. Bodies are empty but in the stencil, whose tasks check that their inputs
//!   are those of the step before, and in the patterns, which compute a number from what they read.
//! * *Inside*: the program is itself a task, on one of the workers. *Outside*: it runs on the main thread.
//! * The granularity is `threads × wall / tasks` for the shortest kernel with which the efficiency, kernel iterations a second
//!   as a part of those of threads that do nothing else, reaches the target.

mod bench;
mod graph;
mod kernel;
mod metg;
mod options;

use bench::{Bench, PROGRAMS};
use dagger_async::prelude::*;
use dagger_benches::arguments;
use dagger_benches::line::Line;
use dagger_benches::log::Log;
use dagger_benches::machine::cpu_model;
use dagger_benches::peers::{Call, Programs};
use dagger_benches::report::{self, Better, OURS};
use graph::basic::{Chain, Cholesky, Fanout, Random, Spawn};
use graph::pattern::Points;
use graph::stencil::{Grid, Stencil};
use graph::{Graph, region};
use metg::Search;
use options::{Options, Side};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the runs of a sample take.
const SAMPLE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    arguments::run(options::USAGE, Options::parse, measure)
}

/// Measures everything in turn. Lines are printed as they come, a table at the end on the standard error.
fn measure(options: &Options) {
    let programs = Programs::or_none(options.peers.as_deref());
    let mut log = Log::new();
    for &threads in &options.threads {
        let runtime = Runtime::builder().threads(threads).build().expect("the system gives us threads");
        let peak = options
            .benches
            .iter()
            .any(|bench| matches!(bench, Bench::Metg { .. }))
            .then(|| kernel::peak_iterations_per_second(threads, if options.quick { 1 } else { 20 }));
        let ours = Ours { runtime, threads, peak: peak.unwrap_or_default(), quick: options.quick };
        for &bench in &options.benches {
            for rep in 0..options.samples {
                for &side in options.sides(bench) {
                    log.add(rep, || ours.sample(bench, side, Mode::Block));
                    if bench.has_data() {
                        log.add(rep, || ours.sample(bench, side, Mode::Rerun));
                        log.add(rep, || ours.sample(bench, side, Mode::Frozen));
                    }
                }
                for program in
                    programs.iter().flat_map(|all| PROGRAMS.into_iter().filter(|name| all.has(name)))
                {
                    let Some(name) = bench.of_peer(program, threads) else { continue };
                    let call = Call { program, threads, benches: &[name], blas_threads: 1, blas_core: None };
                    log.add(rep, || programs.iter().flat_map(|programs| programs.run(call)).collect());
                }
            }
        }
    }
    if !options.json {
        eprintln!(
            "ns a task, of metg µs; median [min–max]; better by: the best peer that builds its graph in each run ÷ ours; \
             *: other processes ran too; {}\n",
            cpu_model()
        );
        eprint!("{}", report::table(log.lines(), Better::Less, |line| line.bench.clone()));
    }
}

/// How a graph runs again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Built anew, as a block.
    Block,
    /// By a plan.
    Rerun,
    /// Frozen: not issued either.
    Frozen,
}

impl Mode {
    /// As the lines call it, where they say so.
    fn name(self) -> Option<&'static str> {
        match self {
            Mode::Block => None,
            Mode::Rerun => Some("rerun"),
            Mode::Frozen => Some("frozen"),
        }
    }
}

/// The runs of one graph.
enum Runs {
    Block,
    Rerun(Plan),
    /// Once it is recorded, by its first run.
    Frozen(OnceLock<Frozen>),
}

impl Runs {
    fn new(mode: Mode) -> Self {
        match mode {
            Mode::Block => Runs::Block,
            Mode::Rerun => Runs::Rerun(Plan::new()),
            Mode::Frozen => Runs::Frozen(OnceLock::new()),
        }
    }

    async fn once(&self, graph: &impl Graph) {
        match self {
            Runs::Block => region(graph).await,
            Runs::Rerun(plan) => plan.run(graph.issue()).await.expect("no task fails"),
            Runs::Frozen(known) => match known.get() {
                Some(frozen) => frozen.run().await.expect("no task fails"),
                None => {
                    let ((), frozen) = Frozen::record(graph.issue()).await.expect("no task fails");
                    assert_eq!(frozen.steps() as u64, graph.tasks());
                    known.get_or_init(|| frozen);
                }
            },
        }
    }

    /// Panics if a run after the first one did not follow the graph of the plan.
    fn check(&self) {
        let Runs::Rerun(plan) = self else { return };
        let stats = plan.stats();
        assert_eq!(stats.replayed, (stats.runs - 1) * stats.steps as u64, "{stats:?}");
    }
}

/// Our runtime, with so many workers.
struct Ours {
    runtime: Runtime,
    threads: usize,
    /// Kernel iterations a second, where a bench needs them.
    peak: f64,
    quick: bool,
}

impl Ours {
    fn sample(&self, bench: Bench, side: Side, mode: Mode) -> Vec<Line> {
        let line = |name: &str, value: Option<f64>, unit: &str| {
            let line =
                Line::new(OURS, name, value, unit).with("threads", self.threads).with("from", side.name());
            let line = mode.name().into_iter().fold(line, |line, mode| line.with("mode", mode));
            bench.params().into_iter().fold(line, |line, (key, size)| line.with(key, size))
        };
        let ns = match bench {
            Bench::Spawn { tasks } => self.ns_per_task(side, mode, <Spawn>::new(tasks as u64)),
            Bench::Chain { tasks } => self.ns_per_task(side, mode, <Chain>::new(tasks as u64)),
            Bench::Fanout { width, rounds } => {
                self.ns_per_task(side, mode, <Fanout>::new(width as u64, rounds as u64))
            }
            Bench::Random { tasks, data } => self.ns_per_task(side, mode, <Random>::new(tasks as u64, data)),
            Bench::CholeskyDag { tiles } => self.ns_per_task(side, mode, <Cholesky>::new(tiles)),
            Bench::Stencil { width, steps } => {
                self.ns_per_task(side, mode, Stencil::new(&Grid::new(width), steps, 0))
            }
            Bench::Pattern { pattern, width, steps } => {
                self.ns_per_task(side, mode, Points::new(pattern, width, steps))
            }
            Bench::Metg { width, steps, percent } => {
                let targets = [(50, "metg50"), (80, "metg80")];
                let targets =
                    targets.into_iter().filter(|&(target, _)| percent.is_none_or(|only| only == target));
                let search =
                    |(target, name)| line(name, self.granularity_us(side, mode, target, width, steps), "us");
                return targets.map(search).collect();
            }
        };
        vec![line(bench.name(), Some(ns), "ns/task")]
    }

    /// The mean over the runs of a sample, after one that is not counted.
    fn ns_per_task(&self, side: Side, mode: Mode, graph: impl Graph) -> f64 {
        let (tasks, at_least) = (graph.tasks() as f64, if self.quick { Duration::ZERO } else { SAMPLE });
        let run = self.on(side, async move {
            let runs = Runs::new(mode);
            runs.once(&graph).await;
            let (start, mut count) = (Instant::now(), 0);
            loop {
                runs.once(&graph).await;
                count += 1;
                let time = start.elapsed();
                if time >= at_least {
                    runs.check();
                    return time.as_secs_f64() / f64::from(count);
                }
            }
        });
        run * 1e9 / tasks
    }

    fn granularity_us(
        &self,
        side: Side,
        mode: Mode,
        percent: u32,
        width: usize,
        steps: usize,
    ) -> Option<f64> {
        let (grid, peak) = (Grid::new(width), self.peak);
        let tasks = Stencil::new(&grid, steps, 0).tasks();
        let mut calls = 0;
        let search = Search { target: f64::from(percent) / 100.0, threads: self.threads, tasks, peak };
        search.granularity_us(|iterations| {
            calls += 1;
            if self.quick && calls > 3 {
                return tasks as f64 * iterations as f64 / peak; // as if it were perfect
            }
            self.wall(side, mode, &grid, steps, iterations)
        })
    }

    /// Seconds of all tasks with a kernel each; what runs a graph again has recorded it before.
    fn wall(&self, side: Side, mode: Mode, grid: &Arc<Grid>, steps: usize, iterations: u64) -> f64 {
        let stencil = Stencil::new(grid, steps, iterations);
        self.on(side, async move {
            let runs = Runs::new(mode);
            if mode != Mode::Block {
                runs.once(&stencil).await;
            }
            let start = Instant::now();
            runs.once(&stencil).await;
            let seconds = start.elapsed().as_secs_f64();
            runs.check();
            seconds
        })
    }

    /// Runs a program as a task, or on this thread.
    fn on<T: Send + Sync + 'static>(
        &self,
        side: Side,
        program: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.runtime.block_on(async {
            match side {
                Side::Inside => dagger_async::spawn(program).await.expect("the program ends"),
                Side::Outside => program.await,
            }
        })
    }
}
