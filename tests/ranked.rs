//! Ranked plans: what the rest of the plan waits for goes first, by measured times.

use dagger_async::prelude::*;
use dagger_tests::{on_all_workers, watched};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Computes for so long.
fn busy(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        std::hint::spin_loop();
    }
}

const LONG: Duration = Duration::from_millis(2);

type Log = Mutex<Vec<&'static str>>;

fn short(_: &mut u64, log: &Log) {
    log.lock().unwrap().push("short");
}

fn long(_: &mut u64, log: &Log) {
    busy(LONG);
    log.lock().unwrap().push("long");
}

/// Twenty short steps on chunks of their own, then a chain of four long ones: what ran first in the second run.
fn order_of_second_run(
    plan: Plan,
    rank: impl Fn(&Plan) + Send + 'static,
    priority: Option<i32>,
) -> Vec<&'static str> {
    let second = async move {
        let log: &'static Log = Box::leak(Box::default());
        let shorts: Vec<Chunk<u64>> = (0..20).map(Chunk::new).collect();
        let chain = Chunk::new(0);
        let options = priority.map_or(Options::new(), |priority| Options::new().priority(priority));
        for _ in 0..2 {
            log.lock().unwrap().clear();
            plan.run(async {
                shorts.iter().for_each(|own| _ = spawn!(short(InOut(own), log)));
                for _ in 0..4 {
                    spawn!(long(InOut(&chain), log); ..options.clone());
                }
            })
            .await
            .unwrap();
        }
        assert_eq!(plan.stats().replayed, 24);
        rank(&plan);
        std::mem::take(&mut *log.lock().unwrap())
    };
    // On the worker: it starts nothing before the body has ended.
    Runtime::builder().threads(1).build().unwrap().block_on(async { spawn(second).await.unwrap() })
}

#[test]
fn a_step_that_much_waits_for_goes_first() {
    watched(|| {
        let ranked = order_of_second_run(Plan::ranked(), |_| (), None);
        // Other lanes have a turn now and then, so not all of the chain comes first.
        assert!(ranked[..8].iter().filter(|&&name| name == "long").count() == 4, "{ranked:?}");
        let plain = order_of_second_run(Plan::new(), |_| (), None);
        assert!(plain[..8].iter().all(|&name| name == "short"), "{plain:?}");
    });
}

#[test]
fn a_step_keeps_its_own_priority() {
    watched(|| {
        let order = order_of_second_run(Plan::ranked(), |_| (), Some(-1));
        assert!(order[..8].iter().all(|&name| name == "short"), "{order:?}");
    });
}

#[test]
fn a_ranked_plan_says_how_long_it_takes_at_least() {
    watched(|| {
        let rank = |plan: &Plan| {
            let stats = plan.stats();
            assert!(stats.critical_path >= 4 * LONG, "{stats:?}");
            assert!(stats.work >= stats.critical_path, "{stats:?}");
        };
        order_of_second_run(Plan::ranked(), rank, None);
        let none = |plan: &Plan| {
            let stats = plan.stats();
            assert_eq!((stats.critical_path, stats.work), (Duration::ZERO, Duration::ZERO));
        };
        order_of_second_run(Plan::new(), none, None);
    });
}

#[test]
fn the_time_of_a_step_is_that_of_its_polls() {
    const WAIT: Duration = Duration::from_secs(1);
    async fn step(_: &mut u64) {
        busy(LONG);
        tokio::time::sleep(WAIT).await;
        busy(LONG);
    }
    watched(|| {
        Runtime::builder().threads(2).build().unwrap().block_on(async {
            let (chunk, plan) = (Chunk::new(0), Plan::ranked());
            plan.run(async { _ = spawn!(async step(InOut(&chunk))) }).await.unwrap();
            let work = plan.stats().work;
            assert!(work >= 2 * LONG && work < WAIT, "{work:?}");
        });
    });
}

/// What fails is not measured, and nothing is known of it then.
#[test]
fn steps_that_fail_or_block_are_ranked_too() {
    on_all_workers(|_| async {
        let (a, b) = (Chunk::new(0u64), Chunk::new(0u64));
        let plan = Plan::ranked();
        for run in 0..4 {
            let result = plan
                .run(async {
                    spawn!((|_: &mut u64| Err::<(), _>("no"))(InOut(&a))?);
                    spawn!((|b: &mut u64| *b += 1)(InOut(&b)); blocking = true);
                })
                .await;
            assert_eq!(result.unwrap_err().root().unwrap().name(), "(|_: &mut u64| Err::<(), _>(\"no\"))");
            drop(a.recover().await.unwrap());
            assert_eq!(*b.read().await.unwrap(), run + 1);
        }
        assert_eq!(plan.stats().replayed, 6);
    });
}

/// Also without times, where each step counts the same.
#[test]
fn what_a_step_makes_ready_goes_by_rank() {
    let second = async {
        let log: &'static Log = Box::leak(Box::default());
        let (first, tail, chain) = (Chunk::new(0u64), Chunk::new(0u64), Chunk::new(0u64));
        let plan = Plan::new();
        for _ in 0..2 {
            log.lock().unwrap().clear();
            plan.run(async {
                spawn!((|a: &mut u64, b: &mut u64, c: &mut u64| (*a, *b, *c) = (1, 1, 1))(
                    InOut(&first),
                    InOut(&tail),
                    InOut(&chain)
                ));
                spawn!(short(InOut(&tail), log));
                for _ in 0..3 {
                    spawn!(long(InOut(&chain), log));
                }
            })
            .await
            .unwrap();
        }
        assert_eq!(plan.stats().replayed, 5);
        std::mem::take(&mut *log.lock().unwrap())
    };
    watched(|| {
        let order =
            Runtime::builder().threads(1).build().unwrap().block_on(async { spawn(second).await.unwrap() });
        assert_eq!(order[0], "long", "{order:?}");
    });
}
