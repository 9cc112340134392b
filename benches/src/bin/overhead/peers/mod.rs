//! The runtimes that are compared, ours among them, behind one trait.
//!
//! 1. Each has as many workers as there are CPUs in the list it is started with, one pinned to each.
//! 2. An idle one uses no CPU: all stay alive while the others run.

mod async_executor;
mod dagger;
mod rayon;
mod tokio;

use crate::work::{SUBMITTERS, Side, Work};
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// In the order in which they take turns.
pub(crate) const NAMES: [&str; 5] = ["dagger", "tokio", "async-executor", "rayon", "dagger+record"];

/// Those that are compared unless the user says otherwise.
pub(crate) const PEERS: [&str; 4] = ["dagger", "tokio", "async-executor", "rayon"];

/// A runtime with its workers.
pub(crate) trait Peer {
    /// One of [`NAMES`].
    fn name(&self) -> &'static str;

    /// Runs the program once and asserts its result. `None` if this runtime cannot express it.
    fn run(&self, work: Work, side: Side) -> Option<Duration>;
}

/// Starts those that are named, in the order of [`NAMES`].
pub(crate) fn start(names: &[&str], cpus: &[Option<usize>]) -> Vec<Box<dyn Peer>> {
    let start = |&name: &&str| -> Box<dyn Peer> {
        match name {
            "dagger" => Box::new(dagger::Dagger::start(cpus)),
            "dagger+record" => Box::new(dagger::Recorded::start(cpus)),
            "tokio" => Box::new(tokio::Tokio::start(cpus)),
            "async-executor" => Box::new(async_executor::AsyncExecutor::start(cpus)),
            "rayon" => Box::new(rayon::Rayon::start(cpus)),
            _ => unreachable!("the options name no other peer"),
        }
    };
    NAMES.iter().filter(|name| names.contains(name)).map(start).collect()
}

/// Binds the calling thread to a CPU, if it is known.
fn pin(cpu: Option<usize>) {
    if let Some(id) = cpu {
        // Where the system forbids it, it forbids it to all peers.
        let _ = core_affinity::set_for_current(core_affinity::CoreId { id });
    }
}

/// How long the program takes where it is polled.
async fn timed(work: Work, program: impl Future<Output = u64>) -> Duration {
    let start = Instant::now();
    let result = program.await;
    let time = start.elapsed();
    work.check(result);
    time
}

/// How long it takes until all is done that several threads submit at once. `submit` is the program of one of them, for so many tasks.
fn submitted(work: Work, submit: impl Fn(u64) -> u64 + Sync) -> Duration {
    let barrier = Barrier::new(SUBMITTERS as usize + 1);
    std::thread::scope(|scope| {
        let (barrier, submit) = (&barrier, &submit);
        let thread = |number| {
            // The first has what is left over.
            let rest = if number == 0 { work.count % SUBMITTERS } else { 0 };
            scope.spawn(move || {
                barrier.wait();
                let start = Instant::now();
                (start, submit(work.count / SUBMITTERS + rest))
            })
        };
        let threads: Vec<_> = (0..SUBMITTERS).map(thread).collect();
        barrier.wait();
        let all: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no task fails")).collect();
        let first = all.iter().map(|&(start, _)| start).min();
        let time = first.map(|start| start.elapsed()).unwrap_or_default();
        work.check(all.iter().map(|(_, result)| result).sum());
        time
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::Bench;

    #[test]
    fn every_peer_runs_what_it_can_express_from_both_sides() {
        for peer in start(&NAMES, &[None, None]) {
            for bench in Bench::ALL {
                for side in Side::ALL {
                    let time = peer.run(Work { bench, count: 3 }, side);
                    let expressible = match peer.name() {
                        "dagger" | "dagger+record" => true,
                        "rayon" => !bench.is_ours() && bench != Bench::Chain,
                        _ => !bench.is_ours(),
                    };
                    assert_eq!(time.is_some(), expressible, "{} {bench:?} {side:?}", peer.name());
                }
            }
        }
    }
}
