//! Ours.

use super::{Peer, timed};
use crate::work::{Bench, FAN_WIDTH, Side, Work};
use dagger_async::prelude::*;
use dagger_async::spawn;
use std::time::Duration;

pub(crate) struct Dagger {
    runtime: Runtime,
}

impl Dagger {
    /// Its workers pin themselves, to the first CPUs of the topology: those that the others get.
    pub(crate) fn start(cpus: &[Option<usize>]) -> Self {
        let runtime = Runtime::builder().threads(cpus.len()).build().expect("the system gives us threads");
        Dagger { runtime }
    }
}

impl Peer for Dagger {
    fn name(&self) -> &'static str {
        "dagger"
    }

    fn run(&self, work: Work, side: Side) -> Option<Duration> {
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
    };
    result.expect("no task fails")
}

async fn independent(tasks: u64) -> dagger_async::Result<u64> {
    let handles: Vec<_> = (0..tasks).map(|_| spawn!((|| 1)())).collect();
    let mut sum = 0;
    for handle in handles {
        sum += handle.await?;
    }
    Ok(sum)
}

async fn chain(tasks: u64) -> dagger_async::Result<u64> {
    let first = spawn!((|| 1)());
    (1..tasks).fold(first, |before, _| spawn!((|x: u64| x + 1)(before))).await
}

async fn fan(rounds: u64) -> dagger_async::Result<u64> {
    let mut sum = 0;
    for _ in 0..rounds {
        let source = spawn!((|| 1)());
        let middle: Vec<_> = (0..FAN_WIDTH).map(|_| spawn!((|x: &u64| *x)(&source))).collect();
        let sink = spawn(async {
            let mut sum = 0;
            for handle in middle {
                sum += handle.await?;
            }
            dagger_async::Result::Ok(sum)
        });
        sum += sink.await??;
    }
    Ok(sum)
}

async fn one_by_one(tasks: u64) -> dagger_async::Result<u64> {
    let mut sum = 0;
    for _ in 0..tasks {
        sum += spawn!((|| 1)()).await?;
    }
    Ok(sum)
}
