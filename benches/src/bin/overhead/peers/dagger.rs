//! Ours.

use super::{Peer, submitted, timed};
use crate::work::{Bench, DATA, FAN_WIDTH, Side, Work};
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

/// Ours, with a recording on while the program runs.
pub(crate) struct Recorded(Dagger);

impl Recorded {
    pub(crate) fn start(cpus: &[Option<usize>]) -> Self {
        Recorded(Dagger::start(cpus))
    }
}

impl Peer for Recorded {
    fn name(&self) -> &'static str {
        "dagger+record"
    }

    fn run(&self, work: Work, side: Side) -> Option<Duration> {
        // Room for all: a buffer that is full costs less.
        let recording = dagger_async::record::start_with(1 << 24);
        let time = self.0.run(work, side);
        assert_eq!(recording.stop().lost, 0, "every record was kept");
        time
    }
}

async fn program(work: Work) -> u64 {
    let result = match work.bench {
        Bench::Independent => independent(work.count).await,
        Bench::Chain => chain(work.count).await,
        Bench::Fan => fan(work.count).await,
        Bench::OneByOne => one_by_one(work.count).await,
        Bench::Submitters => unreachable!("`run` has threads for it"),
        Bench::DataChain => data_chain(work.count).await,
        Bench::DataFan => data_fan(work.count).await,
        Bench::DataRandom => data_random(work.count).await,
        Bench::DataCholesky => data_cholesky(work.count as usize).await,
        Bench::Block => block(work.count, |_| drop(spawn!(nothing()))).await,
        Bench::BlockNamed => block(work.count, |_| drop(spawn!(nothing(); name = "named"))).await,
        Bench::BlockPriority => block(work.count, |n| drop(spawn!(nothing(); priority = n as i32 % 3))).await,
        Bench::BlockScope => block(work.count, |_| drop(spawn!(nothing(); scope = Scope::thread(0)))).await,
        Bench::BlockOptions => {
            with_options(Options::new().name("named"), block(work.count, |_| drop(spawn!(nothing())))).await
        }
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

// With data: one block each, as a user writes it. From inside, where `spawn!` never waits, a loop of this length asks for
// room now and then.

fn write(x: &mut u64) {
    *x += 1;
}

fn read(_: &u64) {}

fn update(_: &u64, _: &u64, x: &mut u64) {
    *x += 1;
}

async fn now_and_then(n: u64) {
    if n.is_multiple_of(64) {
        room().await;
    }
}

async fn total(data: Vec<Chunk<u64>>) -> dagger_async::Result<u64> {
    let mut sum = 0;
    for datum in data {
        sum += datum.into_inner().await?;
    }
    Ok(sum)
}

async fn data_chain(tasks: u64) -> dagger_async::Result<u64> {
    let datum = Chunk::new(0);
    datadeps(async {
        for n in 0..tasks {
            now_and_then(n).await;
            spawn!(write(InOut(&datum)));
        }
    })
    .await?;
    datum.into_inner().await
}

async fn data_fan(rounds: u64) -> dagger_async::Result<u64> {
    let datum = Chunk::new(0);
    datadeps(async {
        for _ in 0..rounds {
            spawn!(write(InOut(&datum)));
            for n in 0..FAN_WIDTH {
                now_and_then(n).await;
                spawn!(read(In(&datum)));
            }
            spawn!(write(InOut(&datum)));
        }
    })
    .await?;
    datum.into_inner().await
}

async fn data_random(tasks: u64) -> dagger_async::Result<u64> {
    let data: Vec<Chunk<u64>> = (0..DATA).map(|_| Chunk::new(0)).collect();
    let mut state = 1u64;
    // Three different ones, as the accesses of one task must not overlap.
    let mut pick = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (a, b, c) = ((state >> 33) as usize, (state >> 41) as usize, (state >> 49) as usize);
        let (a, b, c) = (a % DATA, b % (DATA - 1), c % (DATA - 2));
        let b = if b >= a { b + 1 } else { b };
        let (low, high) = (a.min(b), a.max(b));
        let c = if c >= low { c + 1 } else { c };
        (a, b, if c >= high { c + 1 } else { c })
    };
    datadeps(async {
        for n in 0..tasks {
            now_and_then(n).await;
            let (a, b, c) = pick();
            spawn!(update(In(&data[a]), In(&data[b]), InOut(&data[c])));
        }
    })
    .await?;
    total(data).await
}

async fn data_cholesky(nt: usize) -> dagger_async::Result<u64> {
    let tiles: Vec<Chunk<u64>> = (0..nt * nt).map(|_| Chunk::new(0)).collect();
    let m = |i: usize, j: usize| &tiles[i * nt + j];
    datadeps(async {
        for k in 0..nt {
            now_and_then(0).await;
            spawn!(write(InOut(m(k, k))));
            for i in k + 1..nt {
                spawn!((|_: &u64, x: &mut u64| *x += 1)(In(m(k, k)), InOut(m(i, k))));
            }
            for j in k + 1..nt {
                spawn!((|_: &u64, x: &mut u64| *x += 1)(In(m(j, k)), InOut(m(j, j))));
                for i in j + 1..nt {
                    spawn!(update(In(m(i, k)), In(m(j, k)), InOut(m(i, j))));
                }
            }
        }
    })
    .await?;
    total(tiles).await
}

fn nothing() {}

async fn block(tasks: u64, spawn: impl Fn(u64)) -> dagger_async::Result<u64> {
    datadeps(async {
        for n in 0..tasks {
            now_and_then(n).await;
            spawn(n);
        }
        tasks
    })
    .await
}
