//! What a task costs: empty tasks in ours and in its peers, in nanoseconds per task.
//!
//! ```text
//!   cargo run --release -p dagger-benches --bin overhead
//!
//!   for each number of workers: one runtime per peer, workers pinned to the same CPUs
//!     for each side and bench:  ping-pong,  (dagger, tokio, async-executor, rayon) × repetitions,  ping-pong
//! ```
//!
//! | bench | program | tasks |
//! | --- | --- | --- |
//! | `independent` | spawns empty tasks, then awaits every handle | 10⁶ |
//! | `chain` | each task takes the handle of the one before; the last is awaited | 10⁵ |
//! | `fan` | 100 times: a source, 1000 tasks that take its value, a sink that takes theirs | 100 × 1002 |
//! | `one_by_one` | spawns an empty task and awaits it, again and again | 10⁵ |
//! | `submitters` | four threads that are no workers, each as `independent` with a quarter of the tasks; from outside only | 10⁶ |
//! | `data_chain` | one block; each task is `InOut` on the same chunk | 10⁵ |
//! | `data_fan` | one block; 10 times: `InOut`, 1000 × `In`, `InOut` on one chunk | 10 × 1002 |
//! | `data_random` | one block; each task is `In`, `In`, `InOut` on three of 100 chunks | 10⁵ |
//! | `data_cholesky` | one block; the tasks of a Cholesky of 40 × 40 tiles, empty | 11,480 |
//! | `block` | one block of empty tasks | 2·10⁵ |
//! | `block_named`, `block_priority`, `block_scope` | the same, with a name, one of three priorities, one worker for all | 2·10⁵ |
//! | `block_options` | the same, in a `with_options` with a name | 2·10⁵ |
//!
//! * *Inside*: the program is itself a task, on one of the workers. *Outside*: it runs on the main thread, which is no
//!   worker and pinned nowhere (`block_on` of each runtime; an in-place scope of Rayon's pool).
//! * The clock runs in the program, from before the first spawn until the result is there and all handles are gone.
//!   The result is asserted.
//! * Of each peer the cheapest honest way: Tokio without its timer and I/O drivers, async-executor's `StaticExecutor`.
//!   In `fan` the peers' programs await the source and spawn the 1000 with its value, which costs less than a
//!   `futures::future::Shared` of its handle; ours submits all at once, with an edge from the source to each.
//!   Rayon has no handles: a scope that ends is the await, results go to slots; it cannot express `chain`.
//! * Peers alternate within each repetition; the first repetition is not counted. All use one allocator, the system's or
//!   (feature `mimalloc`) mimalloc.
//! * The ping-pong says which state the machine is in (see `pingpong` in the library): compare rows of one state only.

mod options;
mod peers;
mod report;
mod work;

use dagger_benches::arguments;
use dagger_benches::pingpong;
use dagger_benches::spread::Spread;
use dagger_core::Topology;
use options::Options;
use peers::Peer;
use report::Report;
use std::process::ExitCode;
use work::{Side, Work};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    arguments::run(options::USAGE, Options::parse, measure)
}

/// Measures every row and prints it as soon as it is there.
fn measure(options: &Options) {
    let topology = Topology::detect();
    let probe = pingpong::Probe::new(&topology);
    let mut report = Report::new(options);
    report.open();
    for &threads in &options.threads {
        let cpus: Vec<Option<usize>> =
            topology.processors(0, threads).into_iter().map(|processor| processor.cpu).collect();
        let peers = peers::start(&options.peers, &cpus);
        for &side in &options.sides {
            for &bench in options.benches.iter().filter(|bench| bench.is_from(side)) {
                let work = Work::new(bench, options.quick);
                let before = probe.as_ref().map(pingpong::Probe::transfer_ns);
                let spreads = measure_row(&peers, work, side, options);
                let after = probe.as_ref().map(pingpong::Probe::transfer_ns);
                report.row(report::Row { bench, side, threads, pingpong_ns: before.zip(after), spreads });
            }
        }
    }
    report.close();
}

/// Nanoseconds per task of every peer that can express the work.
fn measure_row(
    peers: &[Box<dyn Peer>],
    work: Work,
    side: Side,
    options: &Options,
) -> Vec<(&'static str, Spread)> {
    let mut samples = vec![Vec::with_capacity(options.reps); peers.len()];
    let uncounted = if options.quick { 0 } else { 1 };
    for rep in 0..uncounted + options.reps {
        for (peer, samples) in peers.iter().zip(&mut samples) {
            let time = peer.run(work, side);
            if let (Some(time), true) = (time, rep >= uncounted) {
                samples.push(time.as_secs_f64() * 1e9 / work.tasks() as f64);
            }
        }
    }
    let spreads = samples.into_iter().map(Spread::of);
    peers
        .iter()
        .map(|peer| peer.name())
        .zip(spreads)
        .filter_map(|(name, spread)| Some((name, spread?)))
        .collect()
}
