//! Plans: blocks that run again by the graph of their first run. Whatever happens, a run gives what a block gives.

use dagger_async::{PlanStats, prelude::*};
use dagger_tests::{
    Census, Gate, Random, isolated, keep_log, logged, on_all_workers, on_workers, runtime, watched,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// What `In(&chunk)` gives.
type Data = Vec<u64>;

const CHUNKS: usize = 5;
const LEN: usize = 12;

fn random_part(random: &mut Random) -> (usize, std::ops::Range<usize>) {
    let start = random.below(LEN);
    (random.below(CHUNKS), start..start + 1 + random.below(LEN - start))
}

/// One line of a program. The number at the end of each differs from run to run.
#[derive(Clone, Debug)]
enum Op {
    /// `to[..] += sum(from[..]) + x`.
    Add { from: (usize, std::ops::Range<usize>), to: (usize, std::ops::Range<usize>) },
    /// `to = from` wholly.
    Copy { from: usize, to: usize },
    /// `chunk += x`, wholly.
    Whole { chunk: usize },
    /// Reads two chunks, gives their sum.
    Sum { chunks: [usize; 2] },
    /// Fails in some runs, before it has written.
    Fail { chunk: usize, run: usize },
    /// The body awaits the last sum.
    Await,
    /// The body reads a chunk by a guard.
    Guard { chunk: usize },
    /// The body asks for room.
    Room,
}

impl Op {
    fn random(random: &mut Random) -> Op {
        let two = |random: &mut Random| {
            let a = random.below(CHUNKS);
            (a, (a + 1 + random.below(CHUNKS - 1)) % CHUNKS)
        };
        match random.below(24) {
            0..9 => {
                let (from, mut to) = (random_part(random), random_part(random));
                if from.0 == to.0 {
                    to.0 = (to.0 + 1) % CHUNKS;
                }
                Op::Add { from, to }
            }
            9..13 => {
                let (from, to) = two(random);
                Op::Copy { from, to }
            }
            13..17 => Op::Whole { chunk: random.below(CHUNKS) },
            17..20 => {
                let (a, b) = two(random);
                Op::Sum { chunks: [a, b] }
            }
            20 => Op::Fail { chunk: random.below(CHUNKS), run: random.below(4) },
            21 => Op::Await,
            22 => Op::Guard { chunk: random.below(CHUNKS) },
            _ => Op::Room,
        }
    }
}

fn add(from: &[u64], to: &mut [u64], x: u64) {
    let sum = from.iter().fold(x, |sum, &y| sum.wrapping_mul(3).wrapping_add(y));
    to.iter_mut().for_each(|y| *y = y.wrapping_mul(5).wrapping_add(sum));
}

fn copy(from: &Data, to: &mut Data) {
    to.clone_from(from);
}

fn whole(chunk: &mut Data, x: u64) {
    chunk.iter_mut().for_each(|y| *y = y.wrapping_mul(7).wrapping_add(x));
}

fn sum(a: &Data, b: &Data) -> u64 {
    a.iter().chain(b).fold(0, |sum, &y| sum.wrapping_mul(11).wrapping_add(y))
}

fn fail(_: &mut Data, fails: bool) -> Result<(), String> {
    if fails { Err("planned".to_owned()) } else { Ok(()) }
}

/// Says that it has started, and adds one once the gate is open.
fn add_one_behind(x: &mut Data, started: Gate, gate: Gate) {
    started.open();
    gate.block();
    x[0] += 1;
}

/// Issues a program once. What it has seen: a fold of all that its body has read.
async fn issue(program: &[Op], chunks: &[Chunk<Data>], run: usize) -> u64 {
    let (mut last, mut seen) = (None, 0u64);
    for (at, op) in program.iter().enumerate() {
        let x = (run * 1000 + at) as u64;
        match op {
            Op::Add { from: (a, from), to: (b, to) } => {
                spawn!(add(In(&chunks[*a].slice(from.clone())), InOut(&chunks[*b].slice(to.clone())), x));
            }
            Op::Copy { from, to } => _ = spawn!(copy(In(&chunks[*from]), Out(&chunks[*to]))),
            Op::Whole { chunk } => _ = spawn!(whole(InOut(&chunks[*chunk]), x)),
            Op::Sum { chunks: [a, b] } => last = Some(spawn!(sum(In(&chunks[*a]), In(&chunks[*b])))),
            Op::Fail { chunk, run: when } => _ = spawn!(fail(InOut(&chunks[*chunk]), run == *when)?),
            Op::Await => {
                if let Some(last) = last.take() {
                    seen = seen.wrapping_mul(13).wrapping_add(last.await.unwrap_or(1));
                }
            }
            Op::Guard { chunk } => {
                let value = chunks[*chunk].read().await.map_or(2, |guard| guard[0]);
                seen = seen.wrapping_mul(13).wrapping_add(value);
            }
            Op::Room => room().await,
        }
    }
    seen
}

/// What is in the chunks, or that they are poisoned; heals them.
async fn contents(chunks: &[Chunk<Data>]) -> Vec<Option<Vec<u64>>> {
    let mut contents = Vec::new();
    for chunk in chunks {
        contents.push(chunk.read().await.ok().map(|guard| guard.clone()));
        drop(chunk.recover().await.unwrap());
    }
    contents
}

/// Runs a program in a plan and beside it in blocks, a few times, sometimes changed, and compares everything.
async fn compare(seed: u64) -> PlanStats {
    let mut random = Random(seed);
    let mut program: Vec<Op> = (0..1 + random.below(25)).map(|_| Op::random(&mut random)).collect();
    let new = || -> Vec<Chunk<Data>> {
        (0..CHUNKS).map(|at| Chunk::new((at as u64..).take(LEN).collect())).collect()
    };
    let (planned, plain) = (new(), new());
    let plan = if seed.is_multiple_of(2) { Plan::new() } else { Plan::ranked() };
    for run in 0..6 {
        if random.below(4) == 0 {
            let at = random.below(program.len());
            match random.below(3) {
                0 => program[at] = Op::random(&mut random),
                1 => program.insert(at, Op::random(&mut random)),
                _ if program.len() > 1 => _ = program.remove(at),
                _ => {}
            }
        }
        let by_plan = plan.run(issue(&program, &planned, run)).await;
        let by_block = datadeps(issue(&program, &plain, run)).await;
        match (&by_plan, &by_block) {
            (Ok(a), Ok(b)) => assert_eq!(a, b, "seed {seed}, run {run}"),
            (Err(a), Err(b)) => {
                assert_eq!(a.root().unwrap().name(), b.root().unwrap().name(), "seed {seed}, run {run}");
                assert_eq!(a.others().len(), b.others().len(), "seed {seed}, run {run}");
            }
            _ => panic!("seed {seed}, run {run}: {by_plan:?} and {by_block:?}"),
        }
        assert_eq!(contents(&planned).await, contents(&plain).await, "seed {seed}, run {run}: {program:?}");
    }
    plan.stats()
}

#[test]
fn a_plan_gives_what_blocks_give() {
    on_all_workers(|_| async {
        let mut all = PlanStats::default();
        for seed in 0..150 {
            let stats = spawn(compare(seed)).await.unwrap();
            all.replayed += stats.replayed;
            all.mismatches += stats.mismatches;
            all.left += stats.left;
            assert_eq!((stats.runs, stats.contended), (6, 0), "seed {seed}");
        }
        // All kinds of runs have been there.
        assert!(all.replayed > 1000 && all.mismatches > 20 && all.left > 20, "{all:?}");
    });
}

#[test]
fn a_program_that_is_the_same_follows_the_graph_from_its_second_run_on() {
    on_all_workers(|_| async {
        let chunks: Vec<Chunk<Vec<u64>>> = (0..CHUNKS).map(|_| Chunk::new(vec![1; LEN])).collect();
        let plan = Plan::new();
        assert_eq!(plan.stats(), PlanStats::default());
        for run in 0..20u64 {
            let sum = plan
                .run(async {
                    for (at, chunk) in chunks.iter().enumerate() {
                        let next = &chunks[(at + 1) % CHUNKS];
                        spawn!(add(In(&chunk.slice(0..6)), InOut(&next.slice(3..9)), run));
                        spawn!((|| ())()); // Accesses nothing: does not count.
                    }
                    spawn!(sum(In(&chunks[0]), In(&chunks[1])))
                })
                .await
                .unwrap();
            sum.await.unwrap();
        }
        let stats = plan.stats();
        assert_eq!((stats.steps, stats.runs, stats.replayed), (6, 20, 19 * 6));
        assert_eq!((stats.mismatches, stats.left, stats.contended), (0, 0, 0));
    });
}

#[test]
fn what_has_become_of_each_run_is_counted() {
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![0u64; 1]), Plan::new());
        let run = async |steps: u64| {
            let block = async {
                for n in 0..steps {
                    spawn!(whole(InOut(&chunk), n));
                }
            };
            plan.run(block).await.unwrap();
        };
        run(3).await;
        run(3).await;
        run(1).await;
        run(0).await;
        // A run that is dropped has not come to its end: it is no shorter one.
        let mut dropped = Box::pin(plan.run(std::future::pending::<()>()));
        assert!(futures::poll!(dropped.as_mut()).is_pending());
        drop(dropped);
        run(3).await;
        let stats = plan.stats();
        assert_eq!((stats.runs, stats.steps, stats.replayed), (6, 3, 7), "{stats:?}");
        assert_eq!((stats.shorter, stats.mismatches, stats.unplanned), (2, 0, 0), "{stats:?}");
        // What is longer is another block.
        run(4).await;
        run(4).await;
        run(4).await;
        let stats = plan.stats();
        assert_eq!((stats.mismatches, stats.shorter, stats.replayed), (1, 2, 14), "{stats:?}");
        assert_eq!(chunk.read().await.unwrap().len(), 1);
    });
}

#[test]
fn a_run_under_a_recording_follows_no_graph_and_keeps_it() {
    // Other tests would be recorded, too.
    isolated("a_run_under_a_recording_follows_no_graph_and_keeps_it", || {
        runtime(2).block_on(async {
            let (chunk, plan) = (Chunk::new(vec![0u64; 1]), Plan::new());
            for run in 0..4 {
                let recording = (run == 2).then(dagger_async::record::start);
                plan.run(async { spawn!(whole(InOut(&chunk), 1)) }).await.unwrap();
                drop(recording.map(|recording| recording.stop()));
            }
            let stats = plan.stats();
            assert_eq!((stats.runs, stats.unplanned, stats.replayed), (4, 1, 2), "{stats:?}");
        });
    });
}

#[test]
fn a_block_that_cannot_be_planned_is_counted_each_time_and_its_task_named_once() {
    keep_log();
    on_workers(2, |_| async {
        struct Pair {
            first: u64,
        }
        let (chunk, pair, plan) = (Chunk::new(vec![0u64; 1]), Chunk::new(Pair { first: 1 }), Plan::new());
        for n in 0..3 {
            plan.run(async {
                spawn!(whole(InOut(&chunk), n));
                spawn!((|x: &mut u64| *x += 1)(InOut(&pair.field(field!(Pair, first)))); name = "unplannable");
            })
            .await
            .unwrap();
        }
        let stats = plan.stats();
        assert_eq!((stats.runs, stats.unplanned, stats.steps, stats.replayed), (3, 3, 0, 0));
        let said = logged("unplannable");
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].contains("and runs it as `datadeps` does") && said[0].contains("a field"),
            "{said:?}"
        );
        assert_eq!(pair.read().await.unwrap().first, 4);
    });
}

#[test]
fn a_window_that_is_full_does_not_end_a_run_by_the_graph() {
    watched(|| {
        let rt = Runtime::builder().threads(2).pin(false).window(8).build().unwrap();
        rt.block_on(async {
            spawn(async {
                let chunk = Chunk::new(vec![0u64; 1]);
                let plan = Plan::new();
                for run in 0..4 {
                    plan.run(async {
                        for _ in 0..500 {
                            room().await;
                            spawn!(whole(InOut(&chunk), run));
                        }
                    })
                    .await
                    .unwrap();
                }
                assert_eq!((plan.stats().replayed, plan.stats().left), (1500, 0));
            })
            .await
            .unwrap();
        });
    });
}

#[test]
fn a_plan_that_runs_cannot_be_run() {
    on_all_workers(|_| async {
        let (plan, gate, chunk) = (Plan::new(), Gate::new(), Chunk::new(vec![0; 1]));
        let held = gate.clone();
        let mut first = Box::pin(plan.run(async {
            spawn!((move |x: &mut Vec<u64>| {
                held.block();
                x[0] += 1;
            })(InOut(&chunk)));
        }));
        assert!(futures::poll!(&mut first).is_pending());
        let error = plan.run(async { spawn!(whole(InOut(&chunk), 1)) }).await.err().unwrap();
        assert!(matches!(error, Error::Options { .. }), "{error}");
        assert!(error.to_string().contains("running already"), "{error}");
        gate.open();
        first.await.unwrap();
        // A body that runs its own plan again.
        let nested = plan.run(async { plan.run(async {}).await.is_err() }).await.unwrap();
        assert!(nested);
        assert_eq!(*chunk.read().await.unwrap(), [1]);
    });
}

#[test]
fn others_see_a_run_as_one_access() {
    on_all_workers(|rt| async move {
        let (a, b) = (Chunk::new(0u64), Chunk::new(0u64));
        let over = Arc::new(AtomicBool::new(false));
        let looks = Arc::new(AtomicU64::new(0));
        let replayed = Arc::new(AtomicU64::new(0));
        let looker = {
            let (a, b, over, looks, rt) = (a.clone(), b.clone(), over.clone(), looks.clone(), rt.clone());
            let replayed = replayed.clone();
            std::thread::spawn(move || {
                rt.block_on(async {
                    let mut seen = 0;
                    while !over.load(SeqCst) {
                        // Taking turns, run by run, none would find the chunks free, and go by the graph.
                        let now = replayed.load(SeqCst);
                        if now == seen {
                            std::thread::yield_now();
                            continue;
                        }
                        seen = now;
                        let (a, b) = access((In(&a), In(&b))).await.unwrap();
                        assert_eq!(*a, *b, "seen in the middle of a run");
                        looks.fetch_add(1, SeqCst);
                    }
                });
            })
        };
        let plan = Plan::new();
        let mut rounds = 0;
        // At least so many runs by the graph, and looks in between.
        while plan.stats().replayed < 4000 || looks.load(SeqCst) < 50 {
            rounds += 1;
            // Outside of the plan the two go together only by one access to both.
            plan.run(async {
                spawn!((|a: &mut u64, b: &mut u64| (*a, *b) = (*a + 1, *b + 1))(InOut(&a), InOut(&b)));
                spawn!((|a: &mut u64, b: &mut u64| (*a, *b) = (*a + 1, *b + 1))(InOut(&a), InOut(&b)));
            })
            .await
            .unwrap();
            replayed.store(plan.stats().replayed, SeqCst);
        }
        over.store(true, SeqCst);
        tokio::task::spawn_blocking(move || looker.join().unwrap()).await.unwrap();
        assert_eq!((*a.read().await.unwrap(), *b.read().await.unwrap()), (2 * rounds, 2 * rounds));
    });
}

#[test]
fn accesses_of_others_wait_for_the_run_and_then_go_on() {
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![0u64; 2]), Plan::new());
        for run in 0..3 {
            let gate = Gate::new();
            let mut running = Box::pin(plan.run(async {
                let held = gate.clone();
                spawn!((move |x: &mut Vec<u64>| {
                    held.block();
                    x[0] += 1;
                })(InOut(&chunk)));
                spawn!((|x: &mut Vec<u64>| x[1] += x[0])(InOut(&chunk)));
            }));
            assert!(futures::poll!(&mut running).is_pending());
            // A guard and a task from outside, while a run goes on.
            let guard = chunk.read();
            let task = {
                let chunk = chunk.clone();
                tokio::spawn(async move { spawn!((|x: &Vec<u64>| x[1])(In(&chunk))).await })
            };
            gate.open();
            running.await.unwrap();
            let expected = [run + 1, (1..=run + 1).sum()];
            assert_eq!(*guard.await.unwrap(), expected);
            assert_eq!(task.await.unwrap().unwrap(), expected[1]);
        }
        assert_eq!(plan.stats().replayed, 4);
    });
}

#[test]
fn a_chunk_that_is_in_use_makes_a_normal_run() {
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![0u64; 1]), Plan::new());
        let run = || plan.run(async { spawn!(whole(InOut(&chunk), 1)) });
        run().await.unwrap();
        let guard = chunk.read().await.unwrap();
        let mut running = Box::pin(run());
        assert!(futures::poll!(&mut running).is_pending());
        drop(guard);
        running.await.unwrap();
        run().await.unwrap();
        let stats = plan.stats();
        assert_eq!((stats.runs, stats.replayed, stats.contended), (3, 1, 1));
        assert_eq!(*chunk.read().await.unwrap(), [57]);
    });
}

#[test]
fn a_dropped_run_cancels_what_has_not_started_and_the_next_one_is_whole() {
    on_all_workers(|_| async {
        let (chunk, other, plan) = (Chunk::new(vec![0u64; 1]), Chunk::new(vec![0u64; 1]), Plan::new());
        for round in 0..4 {
            let (gate, started) = (Gate::new(), Gate::new());
            let mut last = None;
            let mut run = Box::pin(plan.run(async {
                spawn!(add_one_behind(InOut(&chunk), started.clone(), gate.clone()));
                last =
                    Some(spawn!((|x: &Vec<u64>, y: &mut Vec<u64>| y[0] = x[0])(In(&chunk), InOut(&other))));
            }));
            assert!(futures::poll!(&mut run).is_pending());
            started.pass().await;
            if round % 2 == 0 {
                drop(run);
                let error = last.take().unwrap().await.unwrap_err();
                assert!(matches!(error, Error::Cancelled { .. }), "{error}");
                gate.open();
                // What ran goes on; what was to write is poisoned.
                assert_eq!(chunk.read().await.unwrap()[0], round + 1);
                assert!(matches!(other.read().await, Err(Error::Poisoned { .. })));
                other.recover().await.unwrap();
            } else {
                gate.open();
                run.await.unwrap();
                assert_eq!(other.read().await.unwrap()[0], round + 1);
            }
        }
    });
}

#[test]
fn a_dropped_run_cancels_steps_and_other_tasks_in_the_order_of_their_spawns() {
    fn outcome<T: std::fmt::Debug>(result: Result<T, Error>) -> (&'static str, String) {
        let error = result.unwrap_err();
        let root = error.root().unwrap().name().to_owned();
        match error {
            Error::Cancelled { .. } => ("cancelled", root),
            Error::Dependency { .. } => ("depends", root),
            other => panic!("{other}"),
        }
    }
    on_all_workers(|_| async {
        for step_first in [false, true] {
            let (chunk, plan) = (Chunk::new(vec![0u64; 1]), Plan::new());
            for run in 0..4 {
                let (gate, started) = (Gate::new(), Gate::new());
                let held = gate.clone();
                // What a task without accesses waits for before it starts; it is of no block.
                let input = spawn(async move { held.pass().await });
                let mut ends = None;
                let mut block = Box::pin(plan.run(async {
                    spawn!(add_one_behind(InOut(&chunk), started.clone(), gate.clone()));
                    ends = Some(if step_first {
                        let step = spawn!((|x: &mut Data| x[0])(InOut(&chunk)); name = "first");
                        let task = spawn!((|x: u64| x)(step.clone()); name = "second");
                        (step, task)
                    } else {
                        let task = spawn!((|_: ()| 1u64)(input.clone()); name = "first");
                        let step =
                            spawn!((|x: &mut Data, y: u64| x[0] + y)(InOut(&chunk), task.clone()); name = "second");
                        (task, step)
                    });
                }));
                assert!(futures::poll!(&mut block).is_pending());
                started.pass().await;
                if run == 0 {
                    gate.open();
                    block.await.unwrap();
                    continue;
                }
                drop(block);
                let (first, second) = ends.unwrap();
                assert_eq!(outcome(first.await), ("cancelled", "first".to_owned()), "run {run}");
                assert_eq!(outcome(second.await), ("depends", "first".to_owned()), "run {run}");
                gate.open();
                drop(chunk.recover().await.unwrap());
                input.await.unwrap();
            }
            assert_eq!((plan.stats().replayed, plan.stats().left), (6, 0));
        }
    });
}

#[test]
fn a_failure_reaches_what_comes_after_it_and_an_out_heals() {
    on_all_workers(|_| async {
        for by_part in [false, true] {
            let (a, b, plan) = (Chunk::new(vec![0u64; 4]), Chunk::new(vec![0u64; 4]), Plan::new());
            for run in 0..6 {
                let fails = run % 3 == 2;
                let mut reader = None;
                let result = plan
                    .run(async {
                        spawn!(fail(InOut(&a), fails)?);
                        reader = Some(spawn!(sum(In(&a), In(&b))));
                        spawn!((|a: &mut Vec<u64>| a.fill(1))(Out(&a)));
                        match by_part {
                            true => spawn!(add(In(&a.slice(..)), InOut(&b.slice(0..2)), 1)),
                            false => spawn!((|a: &Data, b: &mut Data| add(a, b, 1))(In(&a), InOut(&b))),
                        };
                    })
                    .await;
                let reader = reader.unwrap().await;
                if fails {
                    let error = result.unwrap_err();
                    assert_eq!(error.root().unwrap().name(), "fail");
                    assert!(matches!(reader, Err(Error::Dependency { .. })), "{reader:?}");
                } else {
                    result.unwrap();
                    reader.unwrap();
                }
                assert_eq!(*a.read().await.unwrap(), [1; 4]);
            }
            assert_eq!(plan.stats().replayed, 20);
        }
    });
}

#[test]
fn a_whole_write_between_accesses_by_part_moves_the_elements() {
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![0u64; 4]), Plan::new());
        for run in 0..5 {
            let sum = plan
                .run(async {
                    spawn!((|x: &mut [u64]| x.fill(1))(InOut(&chunk.slice(0..2))));
                    // Another length, elsewhere.
                    spawn!((move |x: &mut Vec<u64>| *x = vec![x[0]; 100 + run])(InOut(&chunk)));
                    spawn!((|x: &mut [u64]| x.fill(2))(InOut(&chunk.slice(90..))));
                    spawn!((|x: &[u64]| (x.len(), x.iter().sum::<u64>()))(In(&chunk.slice(..))))
                })
                .await
                .unwrap();
            assert_eq!(sum.await.unwrap(), (100 + run, 90 + 2 * (10 + run as u64)));
        }
        assert_eq!(plan.stats().replayed, 16);
    });
}

#[test]
fn a_guard_that_the_body_takes_keeps_its_place_in_the_order() {
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![0u64; 1]), Plan::new());
        for run in 0..5 {
            let guard = plan
                .run(async {
                    spawn!((|x: &mut Vec<u64>| x[0] += 1)(InOut(&chunk)));
                    let guard = chunk.read(); // Not awaited here.
                    let seen = tokio::spawn(async move { guard.await.unwrap()[0] });
                    spawn!((|x: &mut Vec<u64>| x[0] += 10)(InOut(&chunk)));
                    seen
                })
                .await
                .unwrap();
            assert_eq!(guard.await.unwrap(), 11 * run + 1);
        }
        assert_eq!((plan.stats().replayed, plan.stats().left), (4, 4));
    });
}

#[test]
fn a_body_that_waits_for_somebody_who_uses_its_chunks_goes_on() {
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![0u64; 1]), Plan::new());
        for run in 0..5 {
            plan.run(async {
                spawn!((|x: &mut Vec<u64>| x[0] += 1)(InOut(&chunk)));
                // Not a spawn nor a guard of the body: it cannot be seen before it waits.
                let chunk = chunk.clone();
                let seen = {
                    let chunk = chunk.clone();
                    tokio::spawn(async move { chunk.read().await.unwrap()[0] }).await.unwrap()
                };
                assert_eq!(seen, 2 * run + 1);
                spawn!((|x: &mut Vec<u64>| x[0] += 1)(InOut(&chunk)));
            })
            .await
            .unwrap();
        }
        // A guard that waits ends the matching, one that comes when the first step is over does so as well.
        let stats = plan.stats();
        assert_eq!((stats.replayed, stats.left), (4, 4));
    });
}

#[test]
fn a_region_that_lies_outside_is_refused_when_its_turn_comes() {
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![0u64; 4]), Plan::new());
        for run in 0..4 {
            let result = plan
                .run(async {
                    let len = if run == 2 { 1 } else { 4 };
                    spawn!((move |x: &mut Vec<u64>| x.resize(len, 7))(InOut(&chunk)));
                    spawn!((|x: &mut [u64]| x.fill(9))(InOut(&chunk.slice(2..4))));
                })
                .await;
            match run {
                2 => assert!(matches!(result, Err(Error::OutOfBounds { .. })), "{result:?}"),
                _ => result.unwrap(),
            }
        }
        assert_eq!(*chunk.read().await.unwrap(), [0, 7, 9, 9]);
        assert_eq!(plan.stats().replayed, 6);
    });
}

/// Adds one to `a`, then `a` to `b`; before that, ten to `b` if there is `another` task. The first says whether a wait in it that closes a
/// cycle, if it has one, is told to be that.
async fn issue_cycle(a: &Chunk<u64>, b: &Chunk<u64>, waits: bool, another: bool) -> (DTask<bool>, DTask<()>) {
    let issued = Gate::new();
    let (inner, all) = (b.clone(), issued.clone());
    let told = spawn!((move |a: &mut u64| {
        *a += 1;
        all.block();
        waits && {
            // Behind what is spawned last, which waits for this one.
            let child = spawn!((|b: &u64| *b)(In(&inner)));
            matches!(child.blocking_wait(), Err(Error::Deadlock { .. }))
        }
    })(InOut(a)));
    if another {
        spawn!((|b: &mut u64| *b += 10)(InOut(b)));
    }
    let last = spawn!((|a: &u64, b: &mut u64| *b += *a)(In(a), InOut(b)));
    issued.open();
    (told, last)
}

#[test]
fn a_step_that_waits_for_a_step_after_it_is_a_deadlock_as_in_a_block() {
    on_all_workers(|_| async {
        let (a, b, plan) = (Chunk::new(0u64), Chunk::new(0u64), Plan::new());
        for waits in [false, true] {
            let (told, last) = plan.run(issue_cycle(&a, &b, waits, false)).await.unwrap();
            assert_eq!((told.await.unwrap(), last.await.unwrap()), (waits, ()));
        }
        let (told, last) = datadeps(issue_cycle(&a, &b, true, false)).await.unwrap();
        assert_eq!((told.await.unwrap(), last.await.unwrap()), (true, ()));
        assert_eq!((*a.read().await.unwrap(), *b.read().await.unwrap()), (3, 6));
    });
}

#[test]
fn a_deadlock_in_a_run_that_has_left_its_graph_is_told_and_later_runs_go_by_the_graph() {
    on_all_workers(|_| async {
        let (a, b, plan) = (Chunk::new(0u64), Chunk::new(0u64), Plan::new());
        // Steps by the graph and runs that have left it so far, and what is in `b`. The run after such a one records anew.
        let runs = [
            (false, 0, 0, 1),
            (false, 2, 0, 3),
            (true, 3, 1, 16),
            (false, 3, 1, 20),
            (false, 5, 1, 25),
            (true, 6, 2, 41),
        ];
        for (run, (leaves, replayed, mismatches, sum)) in runs.into_iter().enumerate() {
            let (told, last) = plan.run(issue_cycle(&a, &b, leaves, leaves)).await.unwrap();
            assert_eq!((told.await.unwrap(), last.await.unwrap()), (leaves, ()), "run {run}");
            let stats = plan.stats();
            assert_eq!((stats.replayed, stats.mismatches), (replayed, mismatches), "run {run}");
            assert_eq!(*b.read().await.unwrap(), sum, "run {run}");
        }
        assert_eq!(*a.read().await.unwrap(), 6);
    });
}

#[test]
fn a_step_that_waits_for_a_chunk_that_no_other_step_needs_goes_on() {
    on_all_workers(|_| async {
        let (a, b, plan) = (Chunk::new(0u64), Chunk::new(7u64), Plan::new());
        for run in 0..4 {
            plan.run(async {
                spawn!((|b: &mut u64| *b += 1)(InOut(&b)));
                let inner = b.clone();
                let seen = spawn!((move |a: &mut u64| {
                    *a += 1;
                    spawn!((|b: &u64| *b)(In(&inner))).blocking_wait().unwrap()
                })(InOut(&a)));
                assert_eq!(seen.await.unwrap(), 8 + run);
            })
            .await
            .unwrap();
        }
    });
}

#[test]
fn the_body_may_wait_for_its_own_tasks_and_goes_on_by_the_graph() {
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![1u64; 4]), Plan::new());
        for _ in 0..5 {
            plan.run(async {
                for _ in 0..3 {
                    spawn!(whole(InOut(&chunk), 1));
                    let norm = spawn!((|x: &Data| x[0])(In(&chunk)));
                    assert!(norm.await.unwrap() > 0);
                }
            })
            .await
            .unwrap();
        }
        assert_eq!((plan.stats().replayed, plan.stats().left), (24, 0));
    });
}

#[test]
fn others_wait_for_the_steps_at_their_chunk_and_for_no_more() {
    on_all_workers(|_| async {
        let (a, b, plan) = (Chunk::new(0u64), Chunk::new(0u64), Plan::new());
        for run in 0..4 {
            plan.run(async {
                // What the step on `a` waits for comes after a guard of `b`.
                let gate = Gate::new();
                spawn!(async held(InOut(&a), gate.clone()));
                spawn!((|b: &mut u64| *b += 1)(InOut(&b)));
                assert_eq!(*b.read().await.unwrap(), 2 * run + 1);
                gate.open();
                spawn!((|b: &mut u64| *b += 1)(InOut(&b)));
            })
            .await
            .unwrap();
        }
        assert_eq!((*a.read().await.unwrap(), *b.read().await.unwrap()), (4, 8));
        assert_eq!((plan.stats().replayed, plan.stats().left), (6, 3));
    });
}

#[test]
fn a_body_that_blocks_or_gives_up_room_is_not_waited_for() {
    for workers in [1, 2] {
        watched(move || {
            let rt = Runtime::builder().threads(workers).pin(false).window(2).build().unwrap();
            rt.block_on(async {
                spawn(async {
                    let (a, plan) = (Chunk::new(0u64), Plan::new());
                    for run in 0..3 {
                        plan.run(async {
                            spawn!((|a: &mut u64| *a += 1)(InOut(&a)));
                            let inner = a.clone();
                            let seen = spawn!((move || {
                                spawn!((|a: &u64| *a)(In(&inner))).blocking_wait().unwrap()
                            })());
                            assert_eq!(seen.blocking_wait().unwrap(), 2 * run + 1);
                            spawn!((|a: &mut u64| *a += 1)(InOut(&a)));
                            futures::future::select(room(), std::future::ready(())).await;
                            let outer = a.clone();
                            let seen = tokio::spawn(async move { *outer.read().await.unwrap() });
                            assert_eq!(seen.await.unwrap(), 2 * run + 2);
                        })
                        .await
                        .unwrap();
                    }
                })
                .await
                .unwrap();
            });
        });
    }
}

#[test]
fn a_plan_inside_the_body_of_another_keeps_the_order() {
    on_all_workers(|_| async {
        let (a, outer, inner) = (Chunk::new(0u64), Plan::new(), Plan::new());
        for _ in 0..4 {
            let seen = outer
                .run(async {
                    spawn!((|x: &mut u64| *x = 1)(InOut(&a)));
                    let mut by_plan = Box::pin(inner.run(async {
                        spawn!((|x: &mut u64| *x += 10)(InOut(&a)));
                    }));
                    let first = futures::poll!(&mut by_plan);
                    spawn!((|x: &mut u64| *x *= 2)(InOut(&a)));
                    if first.is_pending() {
                        by_plan.await.unwrap();
                    }
                    spawn!((|x: &u64| *x)(In(&a)))
                })
                .await
                .unwrap();
            assert_eq!(seen.await.unwrap(), 22);
        }
    });
}

#[test]
fn a_step_that_needs_who_waits_behind_the_run_comes_after_it() {
    on_all_workers(|_| async {
        let (a, b, plan) = (Chunk::new(0u64), Chunk::new(0u64), Plan::new());
        for run in 0..4 {
            plan.run(async {
                spawn!((|x: &mut u64| *x += 1)(InOut(&a)));
                let (inner, waits) = (a.clone(), Gate::new());
                let begun = waits.clone();
                let outside = spawn(async move {
                    let child = spawn!((|x: &u64| *x)(In(&inner)));
                    begun.open();
                    child.await.unwrap()
                });
                waits.pass().await;
                spawn!((|b: &mut u64, seen: u64| *b = seen)(InOut(&b), outside));
            })
            .await
            .unwrap();
            assert_eq!(*b.read().await.unwrap(), run + 1);
        }
    });
}

#[test]
fn a_run_that_is_leaked_keeps_nobody_from_its_chunks() {
    for workers in [1, 2] {
        watched(move || {
            let rt = Runtime::builder().threads(workers).pin(false).build().unwrap();
            let (a, plan) = (Chunk::new(0u64), Plan::new());
            rt.block_on(async {
                for run in 0..2 {
                    let a = a.clone();
                    let mut body = Box::pin(plan.run(async move {
                        spawn!((|x: &mut u64| *x += 1)(InOut(&a)));
                        if run == 1 {
                            std::future::pending::<()>().await;
                        }
                    }));
                    match run {
                        0 => body.await.unwrap(),
                        _ => {
                            assert!(futures::poll!(&mut body).is_pending());
                            std::mem::forget(body);
                        }
                    }
                }
                assert_eq!(*a.read().await.unwrap(), 2);
                assert_eq!(spawn!((|x: &u64| *x)(In(&a))).await.unwrap(), 2);
            });
            futures::executor::block_on(rt.shutdown());
        });
    }
}

#[test]
fn regions_that_meet_at_another_length_are_refused_in_any_run() {
    use dagger_async::region::slice;
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![0u64; 5]), Plan::new());
        for run in 0..2 {
            let result = plan
                .run(async {
                    let both = Deps(&chunk, (InOut(slice(step(0.., 3))), InOut(slice(step(4.., 2)))));
                    spawn!((|(mut a, mut b): (VecMut<u64>, VecMut<u64>)| {
                        a.for_each_mut(|x| *x += 1);
                        b.for_each_mut(|x| *x += 1);
                    })(both));
                })
                .await;
            match run {
                0 => result.unwrap(),
                _ => assert!(matches!(result, Err(Error::Aliased { .. })), "{result:?}"),
            }
            chunk.write().await.unwrap().resize(10, 7);
        }
        assert_eq!(plan.stats().replayed, 0);
    });
}

#[test]
fn a_region_without_elements_waits_for_what_may_change_the_length() {
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![0u64; 4]), Plan::new());
        for run in 0..20 {
            let over = Arc::new(AtomicBool::new(false));
            plan.run(async {
                let (issued, ends) = (Gate::new(), over.clone());
                let all = issued.clone();
                spawn!((move |x: &mut Vec<u64>| {
                    all.block();
                    x.resize(run % 7, 0);
                    ends.store(true, SeqCst);
                })(InOut(&chunk)));
                let over = over.clone();
                spawn!((move |x: &[u64]| assert!(x.is_empty() && over.load(SeqCst)))(In(&chunk.slice(2..2))));
                issued.open();
            })
            .await
            .unwrap();
        }
        assert_eq!(plan.stats().replayed, 38);
    });
}

#[test]
fn a_shutdown_ends_a_run() {
    for workers in [1, 2] {
        watched(move || {
            let rt = Runtime::builder().threads(workers).pin(false).build().unwrap();
            let (chunk, plan) = (Chunk::new(0u64), Plan::new());
            let (never, gate) = tokio::sync::oneshot::channel::<()>();
            let mut gate = Some(gate);
            let tasks = Arc::new(std::sync::Mutex::new(Vec::new()));
            rt.block_on(async {
                for run in 0..3 {
                    let gate = gate.take_if(|_| run == 2);
                    tasks.lock().unwrap().clear();
                    let (tasks, chunk) = (tasks.clone(), chunk.clone());
                    let mut run_by_graph = Box::pin(plan.run(async move {
                        let first = spawn!(async wait(InOut(&chunk), Value(gate)));
                        let second = spawn!(async wait(InOut(&chunk), Value(None)));
                        tasks.lock().unwrap().extend([first, second]);
                    }));
                    if run == 2 {
                        assert!(futures::poll!(&mut run_by_graph).is_pending());
                        std::mem::forget(run_by_graph); // Its tasks wait for ever.
                    } else {
                        run_by_graph.await.unwrap();
                    }
                }
            });
            let ended = async {
                rt.shutdown().await;
                let tasks = std::mem::take(&mut *tasks.lock().unwrap());
                wait_all(tasks).await
            };
            for result in futures::executor::block_on(ended) {
                assert!(matches!(result, Err(Error::Shutdown { .. })), "{result:?}");
            }
            drop(never);
        });
    }
}

async fn held(x: &mut u64, gate: Gate) {
    gate.pass().await;
    *x += 1;
}

async fn wait(x: &mut u64, gate: Option<tokio::sync::oneshot::Receiver<()>>) {
    if let Some(gate) = gate {
        let _ = gate.await;
    }
    *x += 1;
}

#[test]
fn a_plan_keeps_its_chunks_and_nothing_else() {
    on_all_workers(|_| async {
        let census = Census::new();
        let plan = Plan::new();
        {
            let chunk = Chunk::new((census.item(), 0u64));
            for _ in 0..5 {
                plan.run(async {
                    for _ in 0..100 {
                        let item = census.item();
                        spawn!((move |x: &mut (dagger_tests::Item, u64)| {
                            x.1 += 1;
                            drop(item);
                        })(InOut(&chunk)));
                    }
                })
                .await
                .unwrap();
            }
            assert_eq!(chunk.read().await.unwrap().1, 500);
        }
        // The value is dropped with the plan, the closures were with their runs; what ends the last of those may do so a moment
        // later.
        let dropped = async |count: usize| {
            let patience = std::time::Instant::now();
            while census.dropped() < count {
                let late = patience.elapsed() > Duration::from_secs(20);
                assert!(!late, "{} of {}", census.dropped(), census.made());
                tokio::task::yield_now().await;
            }
            assert_eq!(census.dropped(), count);
        };
        dropped(census.made() - 1).await;
        drop(plan);
        dropped(census.made()).await;
    });
}

#[test]
fn blocks_and_queues_inside_a_plan_are_part_of_it() {
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(vec![0u64; 1]), Plan::new());
        for _ in 0..5 {
            plan.run(async {
                in_order(async {
                    spawn!(whole(InOut(&chunk), 1));
                    spawn!(whole(InOut(&chunk), 2));
                })
                .await;
                bulk(async { spawn!(whole(InOut(&chunk), 3)) }).await;
                let inner = datadeps(async { spawn!(whole(InOut(&chunk), 4)) });
                // Its end is awaited: the rest goes to the queues.
                inner.await.unwrap();
                spawn!(whole(InOut(&chunk), 5));
            })
            .await
            .unwrap();
        }
        let expected = (0..5).fold(0u64, |x, _| {
            [1, 2, 3, 4, 5].iter().fold(x, |x: u64, y| x.wrapping_mul(7).wrapping_add(*y))
        });
        assert_eq!(*chunk.read().await.unwrap(), [expected]);
    });
}

#[test]
fn failures_of_steps_and_of_other_tasks_are_in_the_order_of_their_spawns() {
    fn bad(name: &str) -> Result<(), String> {
        Err(name.to_owned())
    }
    on_all_workers(|_| async {
        for step_first in [false, true] {
            let (chunk, plan) = (Chunk::new(vec![0u64; 1]), Plan::new());
            for run in 0..4 {
                let result = plan
                    .run(async {
                        spawn!(whole(InOut(&chunk), 1));
                        if !step_first {
                            spawn!(bad("a task")?; name = "a task");
                        }
                        spawn!(fail(InOut(&chunk), run > 0)?);
                        spawn!(whole(InOut(&chunk), 1)); // Depends on it.
                        if step_first {
                            spawn!(bad("a task")?; name = "a task");
                        }
                    })
                    .await;
                drop(chunk.recover().await.unwrap());
                let error = result.unwrap_err();
                let roots: Vec<&str> = [&error]
                    .into_iter()
                    .chain(error.others())
                    .map(|error| error.root().unwrap().name())
                    .collect();
                match (run, step_first) {
                    (0, _) => assert_eq!(roots, ["a task"]),
                    (_, false) => assert_eq!(roots, ["a task", "fail"]),
                    (_, true) => assert_eq!(roots, ["fail", "a task"]),
                }
            }
            assert_eq!(plan.stats().replayed, 9);
        }
    });
}

#[test]
fn a_long_chain_of_steps_that_is_cancelled_needs_no_stack() {
    const STEPS: u64 = 50_000;
    watched(|| {
        let rt = Runtime::builder().threads(2).pin(false).window(1 << 20).build().unwrap();
        rt.block_on(async {
            let (chunk, plan) = (Chunk::new(vec![0u64; 1]), Plan::new());
            for run in 0..3 {
                let (gate, started) = (Gate::new(), Gate::new());
                let body = async {
                    spawn!(add_one_behind(InOut(&chunk), started.clone(), gate.clone()));
                    for _ in 0..STEPS {
                        spawn!((|x: &mut Vec<u64>| x[0] += 1)(InOut(&chunk)));
                    }
                };
                let mut block = Box::pin(plan.run(body));
                if run == 0 {
                    gate.open();
                    block.await.unwrap();
                    continue;
                }
                assert!(futures::poll!(&mut block).is_pending());
                started.pass().await;
                drop(block);
                gate.open();
                // The first goes on; what was to write is poisoned.
                assert!(matches!(chunk.read().await, Err(Error::Poisoned { .. })));
                assert_eq!(chunk.recover().await.unwrap()[0], STEPS + 1 + run);
            }
        });
    });
}

#[test]
fn a_task_of_a_linear_scope_comes_after_the_step_before_it() {
    on_all_workers(|_| async {
        let (a, b, plan) = (Chunk::new(0u64), Chunk::new(0u64), Plan::new());
        for run in 0..4 {
            let order = Arc::new(AtomicU64::new(0));
            plan.run(async {
                let gate = Gate::new();
                let (held, first) = (gate.clone(), order.clone());
                spawn!((move |a: &mut u64| {
                    held.block();
                    *a += 1;
                    first.fetch_add(1, SeqCst);
                })(InOut(&a)));
                let after = order.clone();
                // Another chunk: only the scope orders it.
                let task = dagger_async::with_options(Options::new().linear(), async {
                    spawn!((move |b: &mut u64| {
                        *b += 1;
                        after.load(SeqCst)
                    })(InOut(&b)))
                })
                .await;
                gate.open();
                assert_eq!(task.await.unwrap(), 1, "run {run}");
            })
            .await
            .unwrap();
        }
        assert_eq!((*a.read().await.unwrap(), *b.read().await.unwrap()), (4, 4));
    });
}

#[test]
fn a_linear_scope_after_a_step_that_is_over_waits_for_nobody() {
    on_all_workers(|_| async {
        let (a, plan) = (Chunk::new(0u64), Plan::new());
        for _ in 0..4 {
            plan.run(async {
                let (send, receive) = tokio::sync::oneshot::channel();
                // It waits for the last task of the block, by another way than an access.
                let first = spawn(async move { receive.await.unwrap() });
                spawn!((|a: &mut u64| *a += 1)(InOut(&a))).await.unwrap();
                dagger_async::with_options(Options::new().linear(), async {
                    spawn!((move || send.send(7u64).unwrap())());
                })
                .await;
                assert_eq!(first.await.unwrap(), 7);
            })
            .await
            .unwrap();
        }
    });
}

#[test]
fn an_error_that_panics_when_it_is_dropped_keeps_nobody_from_the_chunks_of_a_dropped_run() {
    #[derive(Debug)]
    struct Bad;
    impl std::fmt::Display for Bad {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("bad")
        }
    }
    impl std::error::Error for Bad {}
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("an error that panics when it is dropped");
        }
    }
    on_all_workers(|_| async {
        let (chunk, plan) = (Chunk::new(0u64), Plan::new());
        for run in 0..4 {
            let (gate, started) = (Gate::new(), Gate::new());
            let mut block = Box::pin(plan.run(async {
                let (held, begun) = (gate.clone(), started.clone());
                spawn!((move |x: &mut u64| {
                    begun.open();
                    held.block();
                    *x += 1;
                    if run == 0 { Ok(()) } else { Err(Bad) }
                })(InOut(&chunk))?);
            }));
            assert!(futures::poll!(&mut block).is_pending());
            started.pass().await;
            if run == 0 {
                gate.open();
                block.await.unwrap();
                continue;
            }
            drop(block);
            gate.open();
            assert!(chunk.read().await.is_err());
            let healed = std::panic::AssertUnwindSafe(async { drop(chunk.recover().await) });
            drop(futures::FutureExt::catch_unwind(healed).await);
            assert_eq!(*chunk.read().await.unwrap(), run + 1);
        }
    });
}

#[test]
fn a_planned_block_lets_go_of_tasks_that_are_over_whatever_their_turn_among_the_steps() {
    on_all_workers(|_| async {
        for before in [0, 1] {
            let (chunk, plan) = (Chunk::new(0u64), Plan::new());
            // The memory of a task has its name.
            let name: Arc<str> = "kept by the memory of a task".into();
            for run in 0..3 {
                plan.run(async {
                    for _ in 0..before {
                        spawn!((|| ())());
                    }
                    for _ in 0..2000 {
                        spawn!((|| ())(); name = name.clone());
                        spawn!((|x: &mut u64| *x += 1)(InOut(&chunk))).await.unwrap();
                    }
                    let kept = Arc::strong_count(&name);
                    assert!(kept < 1000, "run {run}, {before} before: {kept} of 2000");
                })
                .await
                .unwrap();
            }
            assert_eq!(plan.stats().replayed, 4000);
        }
    });
}
