//! Rayon: it has neither handles nor edges, so a scope that ends is the await, and results go to slots.

use super::{Peer, pin, submitted};
use crate::work::{Bench, FAN_WIDTH, Side, Work};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::time::{Duration, Instant};

pub(crate) struct Rayon {
    pool: ThreadPool,
}

impl Rayon {
    pub(crate) fn start(cpus: &[Option<usize>]) -> Self {
        let own = cpus.to_vec();
        let pool = ThreadPoolBuilder::new()
            .num_threads(cpus.len())
            .start_handler(move |worker| pin(own[worker]))
            .build()
            .expect("the system gives us threads");
        Rayon { pool }
    }
}

impl Peer for Rayon {
    fn name(&self) -> &'static str {
        "rayon"
    }

    fn run(&self, work: Work, side: Side) -> Option<Duration> {
        if work.bench.is_ours() {
            return None;
        }
        if work.bench == Bench::Submitters {
            return Some(submitted(work, |tasks| independent(&self.pool, tasks)));
        }
        let program = match work.bench {
            Bench::Independent => independent,
            Bench::Chain => return None, // A task cannot wait for one that was spawned before it.
            Bench::Fan => fan,
            Bench::OneByOne => one_by_one,
            _ => return None,
        };
        let timed = || {
            let start = Instant::now();
            let result = program(&self.pool, work.count);
            let time = start.elapsed();
            work.check(result);
            time
        };
        Some(match side {
            Side::Inside => self.pool.install(timed),
            Side::Outside => timed(),
        })
    }
}

// An in-place scope runs on the calling thread: the worker inside, the main thread outside.

fn independent(pool: &ThreadPool, tasks: u64) -> u64 {
    let mut ones = vec![0; tasks as usize];
    pool.in_place_scope(|scope| {
        for one in &mut ones {
            scope.spawn(|_| *one = 1);
        }
    });
    ones.iter().sum()
}

fn fan(pool: &ThreadPool, rounds: u64) -> u64 {
    let mut sum = 0;
    for _ in 0..rounds {
        let source = one(pool);
        let mut middle = vec![0; FAN_WIDTH as usize];
        pool.in_place_scope(|scope| {
            for value in &mut middle {
                scope.spawn(|_| *value = source);
            }
        });
        let mut sink = 0;
        pool.in_place_scope(|scope| scope.spawn(|_| sink = middle.iter().sum()));
        sum += sink;
    }
    sum
}

fn one_by_one(pool: &ThreadPool, tasks: u64) -> u64 {
    (0..tasks).map(|_| one(pool)).sum()
}

fn one(pool: &ThreadPool) -> u64 {
    let mut one = 0;
    pool.in_place_scope(|scope| scope.spawn(|_| one = 1));
    one
}
