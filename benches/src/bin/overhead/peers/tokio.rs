//! Tokio's multi-thread runtime, without timer and I/O drivers.

use super::{Peer, pin, submitted, timed};
use crate::work::{Bench, FAN_WIDTH, Side, Work};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::spawn;
use tokio::task::JoinError;

pub(crate) struct Tokio {
    runtime: Runtime,
}

impl Tokio {
    pub(crate) fn start(cpus: &[Option<usize>]) -> Self {
        let (free, started) = (cpus.to_vec(), AtomicUsize::new(0));
        let runtime = Builder::new_multi_thread()
            .worker_threads(cpus.len())
            .on_thread_start(move || pin(free[started.fetch_add(1, Relaxed) % free.len()]))
            .build()
            .expect("the system gives us threads");
        Tokio { runtime }
    }
}

impl Peer for Tokio {
    fn name(&self) -> &'static str {
        "tokio"
    }

    fn run(&self, work: Work, side: Side) -> Option<Duration> {
        if work.bench.is_ours() {
            return None;
        }
        if work.bench == Bench::Submitters {
            return Some(submitted(work, |tasks| {
                self.runtime.block_on(independent(tasks)).expect("no task fails")
            }));
        }
        Some(self.runtime.block_on(async {
            match side {
                Side::Inside => spawn(timed(work, program(work))).await.expect("the program ends"),
                Side::Outside => timed(work, program(work)).await,
            }
        }))
    }
}

async fn program(work: Work) -> u64 {
    let result = match work.bench {
        Bench::Independent => independent(work.count).await,
        Bench::Chain => chain(work.count).await,
        Bench::Fan => fan(work.count).await,
        Bench::OneByOne => one_by_one(work.count).await,
        _ => unreachable!("`run` refuses what has data"),
    };
    result.expect("no task fails")
}

async fn independent(tasks: u64) -> Result<u64, JoinError> {
    let handles: Vec<_> = (0..tasks).map(|_| spawn(async { 1 })).collect();
    let mut sum = 0;
    for handle in handles {
        sum += handle.await?;
    }
    Ok(sum)
}

async fn chain(tasks: u64) -> Result<u64, JoinError> {
    let first = spawn(async { 1 });
    (1..tasks).fold(first, |before, _| spawn(async { before.await.expect("no task fails") + 1 })).await
}

async fn fan(rounds: u64) -> Result<u64, JoinError> {
    let mut sum = 0;
    for _ in 0..rounds {
        let source = spawn(async { 1 }).await?;
        let middle: Vec<_> = (0..FAN_WIDTH).map(|_| spawn(async move { source })).collect();
        let sink = spawn(async {
            let mut sum = 0;
            for handle in middle {
                sum += handle.await?;
            }
            Ok(sum)
        });
        sum += sink.await??;
    }
    Ok(sum)
}

async fn one_by_one(tasks: u64) -> Result<u64, JoinError> {
    let mut sum = 0;
    for _ in 0..tasks {
        sum += spawn(async { 1 }).await?;
    }
    Ok(sum)
}
