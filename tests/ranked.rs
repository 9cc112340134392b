//! Ranked plans: what the rest of the plan waits for goes first, by measured times.

use dagger_async::{PlanStats, prelude::*};
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

const LONG: Duration = Duration::from_micros(200);

type Log = Mutex<Vec<&'static str>>;

fn short(_: &mut u64, log: &Log) {
    log.lock().unwrap().push("short");
}

fn long(_: &mut u64, log: &Log, fails: bool) -> Result<(), &'static str> {
    if fails {
        return Err("planned");
    }
    busy(LONG);
    log.lock().unwrap().push("long");
    Ok(())
}

/// Runs `block` as one task of a runtime with one worker, which starts nothing else before the block waits, after so many picks
/// that each phase of a round of 61 has been there: in how many of those it gives true. A phase in which it gives nothing is
/// run again.
fn in_how_many_phases<F: Future<Output = Option<bool>> + Send + 'static>(block: fn() -> F) -> usize {
    let phase = |picks: usize| {
        let picked = async move {
            for _ in 0..picks {
                spawn!((|| ())()).await.unwrap();
            }
            block().await
        };
        Runtime::builder().threads(1).build().unwrap().block_on(async { spawn(picked).await.unwrap() })
    };
    (0..61).filter(|&picks| (0..50).find_map(|_| phase(picks)).expect("the machine is too busy")).count()
}

/// Twenty short steps on chunks of their own, then a chain of four long ones: what ran when in the third run.
async fn order_of_third_run(plan: &Plan, options: Options, fails: usize) -> Vec<&'static str> {
    let log: &'static Log = Box::leak(Box::default());
    let shorts: Vec<Chunk<u64>> = (0..20).map(Chunk::new).collect();
    let chain = Chunk::new(0);
    for run in 0..3 {
        log.lock().unwrap().clear();
        let result = plan
            .run(async {
                shorts.iter().for_each(|own| _ = spawn!(short(InOut(own), log)));
                for at in 0..4 {
                    spawn!(long(InOut(&chain), log, run < fails && at == 0)?; ..options.clone());
                }
            })
            .await;
        assert_eq!(result.is_err(), run < fails);
        drop(chain.recover().await.unwrap());
    }
    std::mem::take(&mut *log.lock().unwrap())
}

/// True if the long steps are among the first eight of the third run. Nothing if the steps took twice what they compute when they
/// were recorded: other programs had the processor, perhaps in a short one.
async fn has_long_ones_first(plan: &Plan, fails: usize) -> Option<bool> {
    let order = order_of_third_run(plan, Options::new(), fails).await;
    (plan.stats().work < 8 * LONG).then(|| order[..8].iter().filter(|&&name| name == "long").count() == 4)
}

#[test]
fn a_step_that_much_waits_for_goes_first() {
    async fn ranked() -> Option<bool> {
        has_long_ones_first(&Plan::ranked(), 0).await
    }
    async fn plain() -> Option<bool> {
        let order = order_of_third_run(&Plan::new(), Options::new(), 0).await;
        Some(order[..8].iter().all(|&name| name == "short"))
    }
    // Its options are those of the block, but for the rank.
    async fn with_options_around() -> Option<bool> {
        with_options(Options::new().name("all"), has_long_ones_first(&Plan::ranked(), 0)).await
    }
    watched(|| {
        let (ranked, plain) = (in_how_many_phases(ranked), in_how_many_phases(plain));
        assert!(ranked >= 50 && plain >= 50, "{ranked} and {plain} of 61");
        let around = in_how_many_phases(with_options_around);
        assert!(around >= 50, "{around} of 61");
    });
}

#[test]
fn a_step_keeps_its_own_rank() {
    async fn last() -> Option<bool> {
        let order = order_of_third_run(&Plan::ranked(), Options::new().rank(0), 0).await;
        Some(order[20..] == ["long"; 4])
    }
    async fn low() -> Option<bool> {
        let order = order_of_third_run(&Plan::ranked(), Options::new().priority(-1), 0).await;
        Some(order[20..] == ["long"; 4])
    }
    watched(|| {
        let (last, low) = (in_how_many_phases(last), in_how_many_phases(low));
        // Without a rank it has every other turn.
        assert!(last == 0 && low >= 30, "{last} and {low} of 61");
    });
}

#[test]
fn runs_that_fail_are_not_what_a_plan_is_ranked_by() {
    async fn failed(runs: usize) -> Option<bool> {
        let plan = Plan::ranked();
        let is_first = has_long_ones_first(&plan, runs).await;
        assert!(plan.stats().work >= 4 * LONG, "{:?}", plan.stats());
        is_first
    }
    watched(|| {
        let once = in_how_many_phases(|| failed(1));
        assert!(once >= 50, "{once} of 61");
        // The third one is the first that ends well, and recorded too.
        let twice = in_how_many_phases(|| failed(2));
        assert_eq!(twice, 0);
    });
}

/// Where steps fail in each run, they are ranked by what is known.
#[test]
fn a_plan_whose_steps_always_fail_follows_its_graph_too() {
    on_all_workers(|_| async {
        let (a, b) = (Chunk::new(0u64), Chunk::new(0u64));
        let plan = Plan::ranked();
        for run in 0..6 {
            let result = plan
                .run(async {
                    spawn!((|_: &mut u64| Err::<(), _>("no"))(InOut(&a))?; name = "fails");
                    spawn!((|_: &mut u64| ())(InOut(&a)); name = "is skipped");
                    spawn!((|b: &mut u64| *b += 1)(InOut(&b)); blocking = true);
                })
                .await;
            assert_eq!(result.unwrap_err().root().unwrap().name(), "fails");
            drop(a.recover().await.unwrap());
            assert_eq!(*b.read().await.unwrap(), run + 1);
        }
        assert_eq!(plan.stats().replayed, 3 * 3, "{:?}", plan.stats());
        assert!(plan.stats().work > plan.stats().critical_path);
    });
}

#[test]
fn a_ranked_plan_says_how_long_it_is_expected_to_take() {
    watched(|| {
        Runtime::builder().threads(2).build().unwrap().block_on(async {
            let plan = Plan::ranked();
            order_of_third_run(&plan, Options::new(), 0).await;
            let PlanStats { critical_path, work, .. } = plan.stats();
            assert!(critical_path >= 4 * LONG && work >= critical_path, "{critical_path:?}, {work:?}");
            let plan = Plan::new();
            order_of_third_run(&plan, Options::new(), 0).await;
            let PlanStats { critical_path, work, .. } = plan.stats();
            assert_eq!((critical_path, work), (Duration::ZERO, Duration::ZERO));
        });
    });
}

/// One site, whose steps take less and less: each counts as what it has taken.
#[test]
fn steps_of_one_site_need_not_take_the_same() {
    watched(|| {
        Runtime::builder().threads(2).build().unwrap().block_on(async {
            let (chunk, plan) = (Chunk::new(0), Plan::ranked());
            let step = |_: &mut u64, time| busy(time);
            plan.run(async {
                for at in 0..100 {
                    spawn!((step)(InOut(&chunk), if at < 10 { LONG } else { Duration::ZERO }));
                }
            })
            .await
            .unwrap();
            assert!(plan.stats().work >= 10 * LONG, "{:?}", plan.stats());
        });
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

/// Also without times, where each step counts the same.
#[test]
fn what_a_step_makes_ready_goes_by_rank() {
    async fn chain_first() -> Option<bool> {
        let log: &'static Log = Box::leak(Box::default());
        let (head, tail, chain) = (Chunk::new(0u64), Chunk::new(0u64), Chunk::new(0u64));
        let plan = Plan::new();
        for _ in 0..2 {
            log.lock().unwrap().clear();
            plan.run(async {
                spawn!((|_: &mut u64, _: &mut u64, _: &mut u64| ())(
                    InOut(&head),
                    InOut(&tail),
                    InOut(&chain)
                ));
                spawn!(short(InOut(&tail), log));
                for _ in 0..3 {
                    spawn!(long(InOut(&chain), log, false)?);
                }
            })
            .await
            .unwrap();
        }
        assert_eq!(plan.stats().replayed, 5);
        let first = log.lock().unwrap()[0];
        Some(first == "long")
    }
    watched(|| {
        let first = in_how_many_phases(chain_first);
        assert!(first >= 50, "{first} of 61");
    });
}
