//! async-executor's `StaticExecutor` (it keeps no list of its tasks, so it is the cheaper one) on threads of our own.

use super::{Peer, pin, submitted, timed};
use crate::work::{Bench, FAN_WIDTH, Side, Work};
use async_executor::StaticExecutor;
use futures::channel::oneshot;
use futures::executor::block_on;
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) struct AsyncExecutor {
    /// Never freed: a few hundred bytes for each number of workers.
    executor: &'static StaticExecutor,
    /// Dropping them ends the threads.
    running: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl AsyncExecutor {
    pub(crate) fn start(cpus: &[Option<usize>]) -> Self {
        let executor: &'static StaticExecutor = Box::leak(Box::default());
        let (running, threads) = cpus
            .iter()
            .map(|&cpu| {
                let (running, ended) = oneshot::channel();
                let thread = std::thread::spawn(move || {
                    pin(cpu);
                    // It ends with an error, as the sender is dropped.
                    let _ = block_on(executor.run(ended));
                });
                (running, thread)
            })
            .unzip();
        AsyncExecutor { executor, running, threads }
    }
}

impl Drop for AsyncExecutor {
    fn drop(&mut self) {
        self.running.clear();
        for thread in self.threads.drain(..) {
            // A panic in it was printed when it happened.
            let _ = thread.join();
        }
    }
}

impl Peer for AsyncExecutor {
    fn name(&self) -> &'static str {
        "async-executor"
    }

    fn run(&self, work: Work, side: Side) -> Option<Duration> {
        if work.bench.is_ours() {
            return None;
        }
        if work.bench == Bench::Submitters {
            return Some(submitted(work, |tasks| block_on(independent(self.executor, tasks))));
        }
        let program = timed(work, program(self.executor, work));
        Some(match side {
            Side::Inside => block_on(self.executor.spawn(program)),
            Side::Outside => block_on(program),
        })
    }
}

async fn program(executor: &'static StaticExecutor, work: Work) -> u64 {
    match work.bench {
        Bench::Independent => independent(executor, work.count).await,
        Bench::Chain => chain(executor, work.count).await,
        Bench::Fan => fan(executor, work.count).await,
        Bench::OneByOne => one_by_one(executor, work.count).await,
        _ => unreachable!("`run` refuses what has data"),
    }
}

async fn independent(executor: &'static StaticExecutor, tasks: u64) -> u64 {
    let handles: Vec<_> = (0..tasks).map(|_| executor.spawn(async { 1 })).collect();
    let mut sum = 0;
    for handle in handles {
        sum += handle.await;
    }
    sum
}

async fn chain(executor: &'static StaticExecutor, tasks: u64) -> u64 {
    let first = executor.spawn(async { 1 });
    (1..tasks).fold(first, |before, _| executor.spawn(async { before.await + 1 })).await
}

async fn fan(executor: &'static StaticExecutor, rounds: u64) -> u64 {
    let mut sum = 0;
    for _ in 0..rounds {
        let source = executor.spawn(async { 1 }).await;
        let middle: Vec<_> = (0..FAN_WIDTH).map(|_| executor.spawn(async move { source })).collect();
        let sink = executor.spawn(async {
            let mut sum = 0;
            for handle in middle {
                sum += handle.await;
            }
            sum
        });
        sum += sink.await;
    }
    sum
}

async fn one_by_one(executor: &'static StaticExecutor, tasks: u64) -> u64 {
    let mut sum = 0;
    for _ in 0..tasks {
        sum += executor.spawn(async { 1 }).await;
    }
    sum
}
