//! Frozen graphs: blocks that run again without being issued. A run gives what the block gives.

use dagger_async::prelude::*;
use dagger_async::record;
use dagger_core::record::{End, What};
use dagger_tests::{Census, Gate, Random, on_all_workers, on_workers, watched};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

type Data = Vec<u64>;

const CHUNKS: usize = 5;
const LEN: usize = 12;

fn random_part(random: &mut Random) -> (usize, std::ops::Range<usize>) {
    let start = random.below(LEN);
    (random.below(CHUNKS), start..start + 1 + random.below(LEN - start))
}

fn add(from: &[u64], to: &mut [u64], run: &u64) {
    let sum = from.iter().fold(*run, |sum, &y| sum.wrapping_mul(3).wrapping_add(y));
    to.iter_mut().for_each(|y| *y = y.wrapping_mul(5).wrapping_add(sum));
}

/// The elements lie elsewhere afterwards.
fn replace(from: &Data, to: &mut Data) {
    *to = from.iter().map(|x| x.wrapping_add(1)).collect();
}

fn whole(chunk: &mut Data, x: u64) {
    chunk.iter_mut().for_each(|y| *y = y.wrapping_mul(7).wrapping_add(x));
}

/// A random program: `run` is read by its tasks, the rest is the same in each run.
fn issue(seed: u64, chunks: &[Chunk<Data>], run: &Chunk<u64>) {
    let random = &mut Random(seed);
    for at in 0..random.below(25) {
        match random.below(4) {
            0 | 1 => {
                let (from, mut to) = (random_part(random), random_part(random));
                if from.0 == to.0 {
                    to.0 = (to.0 + 1) % CHUNKS;
                }
                spawn!(add(In(&chunks[from.0].slice(from.1)), InOut(&chunks[to.0].slice(to.1)), In(run)); repeatable = true);
            }
            2 => {
                let a = random.below(CHUNKS);
                let b = (a + 1 + random.below(CHUNKS - 1)) % CHUNKS;
                spawn!(replace(In(&chunks[a]), Out(&chunks[b])); repeatable = true);
            }
            _ => {
                let chunk = &chunks[random.below(CHUNKS)];
                spawn!(whole(InOut(chunk), at as u64); repeatable = true, name = "whole", priority = at as i32 % 3);
            }
        }
    }
}

async fn contents(chunks: &[Chunk<Data>]) -> Vec<Data> {
    let mut contents = Vec::new();
    for chunk in chunks {
        contents.push(chunk.read().await.unwrap().clone());
    }
    contents
}

#[test]
fn a_frozen_graph_gives_what_blocks_give() {
    on_all_workers(|_| async {
        for seed in 0..150 {
            let new = || -> Vec<Chunk<Data>> {
                (0..CHUNKS).map(|at| Chunk::new((at as u64..).take(LEN).collect())).collect()
            };
            let (frozen_chunks, plain) = (new(), new());
            let (run_of_frozen, run_of_plain) = (Chunk::new(0u64), Chunk::new(0u64));
            let (_, frozen) =
                Frozen::record(async { issue(seed, &frozen_chunks, &run_of_frozen) }).await.unwrap();
            datadeps(async { issue(seed, &plain, &run_of_plain) }).await.unwrap();
            for run in 1..5 {
                *run_of_frozen.write().await.unwrap() = run;
                *run_of_plain.write().await.unwrap() = run;
                if run % 2 == 0 {
                    frozen.run().await.unwrap();
                    datadeps(async { issue(seed, &plain, &run_of_plain) }).await.unwrap();
                } else {
                    // Two that are under way at once, and what comes between them.
                    let first = spawn(frozen.run());
                    let between = run_of_frozen.write();
                    let second = spawn(frozen.run());
                    let between = spawn(async move { *between.await.unwrap() = 77 });
                    wait_all([first, second]).await.into_iter().for_each(|run| run.unwrap().unwrap());
                    between.await.unwrap();
                    datadeps(async { issue(seed, &plain, &run_of_plain) }).await.unwrap();
                    if frozen.steps() == 0 {
                        continue;
                    }
                    *run_of_plain.write().await.unwrap() = 77;
                    datadeps(async { issue(seed, &plain, &run_of_plain) }).await.unwrap();
                }
                assert_eq!(contents(&frozen_chunks).await, contents(&plain).await, "seed {seed}, run {run}");
            }
        }
    });
}

#[test]
fn closures_and_values_are_those_of_the_recording_and_cloned_for_each_call() {
    on_all_workers(|_| async {
        let (census, sum) = (Census::new(), Chunk::new(0u64));
        let frozen = {
            let (captured, given) = (census.item(), census.item());
            let mut x = 5;
            let (_, frozen) = Frozen::record(async {
                let item = captured.clone();
                spawn!((move |sum: &mut u64, _given, x: u64| {
                    let _item = &item;
                    *sum += x;
                })(InOut(&sum), given.clone(), x); repeatable = true);
                x = 100; // Is not seen by any run.
            })
            .await
            .unwrap();
            assert_eq!(x, 100);
            frozen
        };
        // Those of the call that was recorded are gone; one of each is kept.
        assert_eq!(census.made() - census.dropped(), 2);
        for _ in 0..9 {
            frozen.run().await.unwrap();
        }
        assert_eq!((*sum.read().await.unwrap(), census.made() - census.dropped()), (50, 2));
        drop(frozen);
        // The worker that has run it last lets go of it a little later.
        while census.made() != census.dropped() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn what_cannot_be_called_again_is_refused_with_its_name() {
    on_all_workers(|_| async {
        struct NotClone;
        async fn later(_: &mut u64) {}
        let chunk = Chunk::new(1u64);
        async fn refused(body: impl Future<Output = ()>) -> String {
            let error = Frozen::record(body).await.err().unwrap();
            assert!(matches!(error, Error::Options { root: Some(_), .. }), "{error}");
            error.to_string()
        }
        async fn needs(body: impl Future<Output = ()>, why: &str) {
            let text = refused(body).await;
            assert!(text.contains(why) && text.contains("frozen.rs:"), "{text}");
        }
        let add = |x: &mut u64, y: u64| *x += y;
        let once = "repeatable = true";
        needs(async { _ = spawn!((|x: &mut u64, _: NotClone| *x += 1)(InOut(&chunk), NotClone)) }, once)
            .await;
        needs(async { _ = spawn!(add(InOut(&chunk), spawn!((|| 1u64)()))) }, "accesses no chunk").await;
        let before = spawn!((|| 1u64)());
        needs(async { _ = spawn!(add(InOut(&chunk), before)) }, once).await;
        needs(async { _ = spawn!(add(InOut(&chunk), Await(async { 1u64 }))) }, once).await;
        needs(async { _ = spawn!(async later(InOut(&chunk))) }, once).await;
        needs(async { _ = spawn!(add(InOut(&chunk), 1); repeatable = false) }, once).await;
        needs(async { _ = spawn(async {}) }, "accesses no chunk").await;
        needs(async { _ = spawn!(add(InOut(&chunk), 1); retries = 1, retry_mutated = true) }, once).await;
        needs(async { _ = spawn!(add(InOut(&chunk), 1); scope = Scope::any(), repeatable = true) }, "scope")
            .await;
        needs(
            async { _ = spawn!(add(InOut(&chunk), 1); timeout = Duration::from_secs(60), repeatable = true) },
            "timeout",
        )
        .await;
        needs(async { _ = spawn!(add(InOut(&chunk), 1); blocking = true, repeatable = true) }, "blocking")
            .await;
        let token = CancelToken::new();
        needs(async { _ = spawn!(add(InOut(&chunk), 1); cancel = token.clone(), repeatable = true) }, "ties")
            .await;
        let body = async { in_order(async { _ = spawn!(add(InOut(&chunk), 1); repeatable = true) }).await };
        needs(body, "ties").await;
        let body = async {
            with_options(Options::new().priority(1), async {
                _ = spawn!(add(InOut(&chunk), 1); repeatable = true)
            })
            .await
        };
        needs(body, "options of a block").await;
        let placed = Chunk::new_in(Scope::any(), 1u64);
        needs(async { _ = spawn!(add(InOut(&placed), 1); repeatable = true) }, "has a scope").await;
        struct Bomb;
        impl Clone for Bomb {
            fn clone(&self) -> Self {
                panic!("no clone")
            }
        }
        let with_bomb = |x: &mut u64, _: Bomb| *x += 0;
        let body = async { _ = spawn!(with_bomb(InOut(&chunk), Bomb); repeatable = true) };
        needs(body, "a `clone` of its function or arguments has panicked").await;
        // What would be lost without a word.
        let ((), inner) =
            Frozen::record(async { _ = spawn!(add(InOut(&chunk), 0); repeatable = true) }).await.unwrap();
        for body in 0..3 {
            let error = Frozen::record(async {
                match body {
                    0 => inner.run().await.unwrap(),
                    1 => Plan::new()
                        .run(async { _ = spawn!(add(InOut(&chunk), 0); repeatable = true) })
                        .await
                        .unwrap(),
                    _ => drop(
                        Frozen::record(async { _ = spawn!(add(InOut(&chunk), 0); repeatable = true) })
                            .await
                            .unwrap(),
                    ),
                }
            });
            let error = error.await.err().unwrap();
            assert!(error.to_string().contains("what runs inside the block cannot be a step"), "{error}");
        }
        let field = Chunk::new((1u64, 2u64));
        let first = field.field(field!((u64, u64), 0));
        needs(async { _ = spawn!(add(InOut(&first), 1); repeatable = true) }, "a field").await;
        // The block has run, but for what was refused by itself.
        assert_eq!(*chunk.read().await.unwrap(), 13);
    });
}

#[test]
fn a_failure_stops_the_run_and_poisons_what_it_writes() {
    on_all_workers(|_| async {
        let (fails, read, a, b) = (Chunk::new(0u64), Chunk::new(7u64), Chunk::new(0u64), Chunk::new(0u64));
        let after = Arc::new(AtomicU64::new(0));
        let seen = after.clone();
        let (_, frozen) = Frozen::record(async {
            spawn!((|fails: &u64, a: &mut u64| match fails {
                0 => {
                    *a += 1;
                    Ok(())
                }
                1 => Err("by plan"),
                _ => panic!("by panic"),
            })(In(&fails), InOut(&a))?; repeatable = true, name = "critical");
            spawn!((move |a: &u64, read: &u64, b: &mut u64| {
                seen.fetch_add(1, SeqCst);
                *b = a + read;
            })(In(&a), In(&read), Out(&b)); repeatable = true);
        })
        .await
        .unwrap();
        for round in 1..4 {
            frozen.run().await.unwrap();
            assert_eq!((*b.read().await.unwrap(), after.load(SeqCst)), (8 + round, 2 * round));
            *fails.write().await.unwrap() = round;
            let error = frozen.run().await.unwrap_err();
            let root = error.root().unwrap();
            assert!(root.name() == "critical" && root.site().contains("frozen.rs:"), "{error}");
            let reason = if round == 1 { "by plan" } else { "by panic" };
            assert!(error.to_string().contains(reason), "{error}");
            // What comes after was not called, and all that the graph writes is poisoned; what it reads is not.
            assert_eq!(after.load(SeqCst), 2 * round);
            for chunk in [&a, &b] {
                let poisoned = chunk.read().await.unwrap_err();
                assert!(matches!(poisoned, Error::Poisoned { .. }), "{poisoned}");
            }
            assert_eq!(*read.read().await.unwrap(), 7);
            // The next run finds that; `b` it would overwrite.
            let refused = frozen.run().await.unwrap_err();
            assert!(matches!(refused, Error::Poisoned { .. }), "{refused}");
            drop(a.recover().await.unwrap());
            *fails.write().await.unwrap() = 0;
            frozen.run().await.unwrap();
            assert_eq!(*b.read().await.unwrap(), 8 + round + 1);
            *a.write().await.unwrap() = round + 1;
            after.store(2 * round + 1, SeqCst);
            datadeps(async { _ = spawn!((|b: &u64| assert!(*b > 0))(In(&b))) }).await.unwrap();
        }
    });
}

#[test]
fn a_failure_when_it_is_recorded_is_that_of_the_block() {
    on_all_workers(|_| async {
        let a = Chunk::new(0u64);
        let error = Frozen::record(async {
            spawn!((|_: &mut u64| Err::<(), _>("early"))(InOut(&a))?; repeatable = true, name = "first");
        });
        let error = error.await.err().unwrap();
        assert_eq!(error.root().unwrap().name(), "first");
    });
}

#[test]
fn a_dropped_run_is_cancelled_and_its_places_are_given_back() {
    on_all_workers(|_| async {
        let (chunk, other) = (Chunk::new(0u64), Chunk::new(0u64));
        let gate = Arc::new(std::sync::Mutex::new((Gate::opened(), Gate::new())));
        let held = gate.clone();
        let (_, frozen) = Frozen::record(async {
            spawn!((move |x: &mut u64| {
                let (gate, started) = held.lock().unwrap().clone();
                started.open();
                gate.block();
                *x += 1;
            })(InOut(&chunk)); repeatable = true);
            spawn!((|x: &u64, y: &mut u64| *y = *x)(In(&chunk), InOut(&other)); repeatable = true);
        })
        .await
        .unwrap();
        // Before its turn: as if it had not been.
        let guard = chunk.read().await.unwrap();
        let mut run = frozen.run();
        assert!(futures::poll!(&mut run).is_pending());
        drop(run);
        drop(guard);
        assert_eq!(*other.read().await.unwrap(), 1);
        for _ in 0..3 {
            let (closed, started) = (Gate::new(), Gate::new());
            *gate.lock().unwrap() = (closed.clone(), started.clone());
            let mut run = frozen.run();
            assert!(futures::poll!(&mut run).is_pending());
            started.pass().await;
            drop(run);
            closed.open();
            // The step that ran has ended, the one after it has not begun.
            let error = other.read().await.unwrap_err();
            assert!(error.to_string().contains("cancelled"), "{error}");
            drop(chunk.recover().await.unwrap());
            drop(other.recover().await.unwrap());
            frozen.run().await.unwrap();
            assert_eq!(*chunk.read().await.unwrap(), *other.read().await.unwrap());
        }
        // What cancels the task that awaits a run lets go of the run, too.
        let (closed, started) = (Gate::new(), Gate::new());
        *gate.lock().unwrap() = (closed.clone(), started.clone());
        let token = CancelToken::new();
        let task = Options::new().cancel(token.clone()).spawn(frozen.run());
        started.pass().await;
        token.cancel();
        assert!(matches!(task.await, Err(Error::Cancelled { .. })));
        closed.open();
        drop(chunk.recover().await.unwrap());
        drop(other.recover().await.unwrap());
        frozen.run().await.unwrap();
    });
}

#[test]
fn others_see_a_run_as_one_access() {
    on_all_workers(|rt| async move {
        let (a, b) = (Chunk::new(0u64), Chunk::new(0u64));
        let (_, frozen) = Frozen::record(async {
            for _ in 0..20 {
                spawn!((|a: &mut u64| *a += 1)(InOut(&a)); repeatable = true);
                spawn!((|b: &mut u64| *b += 1)(InOut(&b)); repeatable = true);
            }
        })
        .await
        .unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let looker = {
            let (a, b, over) = (a.clone(), b.clone(), over.clone());
            std::thread::spawn(move || {
                rt.block_on(async {
                    while !over.load(SeqCst) {
                        let task =
                            spawn!((|a: &u64, b: &u64| *a == *b && a.is_multiple_of(20))(In(&a), In(&b)));
                        assert!(task.await.unwrap(), "seen in the middle of a run");
                    }
                });
            })
        };
        for _ in 0..300 {
            frozen.run().await.unwrap();
        }
        over.store(true, SeqCst);
        tokio::task::spawn_blocking(move || looker.join().unwrap()).await.unwrap();
        assert_eq!((*a.read().await.unwrap(), *b.read().await.unwrap()), (20 * 301, 20 * 301));
    });
}

#[test]
fn a_long_run_leaves_turns_to_other_tasks() {
    on_workers(1, |_| async {
        spawn(async {
            let (chunk, other) = (Chunk::new(0u64), Arc::new(AtomicBool::new(false)));
            let seen = other.clone();
            let steps = 400;
            let (_, frozen) = Frozen::record(async {
                for _ in 0..steps {
                    let seen = seen.clone();
                    spawn!((move |x: &mut u64| {
                        *x += u64::from(seen.load(SeqCst));
                        std::hint::black_box((0..20_000).fold(1u64, |a, b| a.wrapping_mul(b ^ a)));
                    })(InOut(&chunk)); repeatable = true);
                }
            })
            .await
            .unwrap();
            let run = spawn(frozen.run());
            let task = spawn!((move || other.store(true, SeqCst))());
            run.await.unwrap().unwrap();
            task.await.unwrap();
            // The other task has run long before the last step.
            assert!(*chunk.read().await.unwrap() > steps / 2);
        })
        .await
        .unwrap();
    });
}

#[test]
fn a_step_may_spawn_and_wait() {
    on_all_workers(|_| async {
        let chunk = Chunk::new(0u64);
        let (_, frozen) = Frozen::record(async {
            for _ in 0..5 {
                spawn!((|x: &mut u64| {
                    let child = spawn!((|x: u64| x + 1)(*x));
                    *x = child.blocking_wait().unwrap();
                    assert!(current().is_some());
                })(InOut(&chunk)); repeatable = true);
            }
        })
        .await
        .unwrap();
        // In a block, in a task, and with nobody awaiting before the end of the block.
        datadeps(async { frozen.run().await.unwrap() }).await.unwrap();
        spawn(frozen.run()).await.unwrap().unwrap();
        datadeps(async { _ = spawn(frozen.run()) }).await.unwrap();
        assert_eq!(*chunk.read().await.unwrap(), 20);
    });
}

#[test]
fn a_shutdown_ends_a_run() {
    watched(|| {
        for workers in [1, 2, 8] {
            let rt = Runtime::builder().threads(workers).pin(false).build().unwrap();
            let (chunk, gate, started) = (Chunk::new(0u64), Gate::new(), Gate::new());
            let is_first = Arc::new(AtomicBool::new(true));
            let frozen = rt.block_on(async {
                let (gate, started, is_first) = (gate.clone(), started.clone(), is_first.clone());
                Frozen::record(async {
                    for _ in 0..100 {
                        let (gate, started, is_first) = (gate.clone(), started.clone(), is_first.clone());
                        spawn!((move |x: &mut u64| {
                            if !is_first.load(SeqCst) {
                                started.open();
                                gate.block();
                                // All together longer than a turn.
                                let began = Instant::now();
                                while began.elapsed() < Duration::from_micros(100) {}
                            }
                            *x += 1;
                        })(InOut(&chunk)); repeatable = true);
                    }
                })
                .await
                .unwrap()
                .1
            });
            let other = Chunk::new(0u64);
            let late = rt.block_on(async {
                Frozen::record(async {
                    _ = spawn!((|x: &mut u64| *x += 1)(InOut(&other)); repeatable = true)
                })
                .await
                .unwrap()
                .1
            });
            is_first.store(false, SeqCst);
            let run = rt.block_on(async { frozen.run() });
            let waiting = std::thread::spawn(move || futures::executor::block_on(run));
            futures::executor::block_on(started.pass());
            let guard = futures::executor::block_on(other.read()).unwrap();
            let late = rt.block_on(async { late.run() });
            let shutdown = rt.shutdown();
            gate.open();
            futures::executor::block_on(shutdown);
            match waiting.join().unwrap() {
                Err(Error::Shutdown { .. }) => {}
                other => panic!("{other:?}"),
            }
            // One whose turn comes after that.
            drop(guard);
            let late = futures::executor::block_on(late).unwrap_err();
            assert!(matches!(late, Error::Shutdown { .. }), "{late}");
        }
    });
}

#[test]
fn a_recording_has_each_step_after_those_that_it_comes_after() {
    on_all_workers(|_| async {
        let (a, b) = (Chunk::new(0u64), Chunk::new(0u64));
        let (_, frozen) = Frozen::record(async {
            spawn!((|a: &mut u64| *a += 1)(InOut(&a)); repeatable = true, name = "first");
            spawn!((|a: &u64, b: &mut u64| *b += a)(In(&a), InOut(&b)); repeatable = true, name = "second");
            spawn!((|a: &u64, b: &u64| assert!(a <= b))(In(&a), In(&b)); repeatable = true, name = "third");
        })
        .await
        .unwrap();
        let (ran, log) = record::recorded(frozen.run()).await;
        ran.unwrap();
        let records: Vec<_> = log.lanes.iter().flat_map(|lane| &lane.records).collect();
        let mut names = HashMap::new();
        for record in &records {
            if let What::Spawn { task, name, site, .. } = &record.what
                && site.file().ends_with("tests/frozen.rs")
            {
                names.insert(*task, name.as_ref().to_owned());
            }
        }
        let time = |wanted: &str, start: bool| {
            let of = |task: &u64| names.get(task).is_some_and(|name| name == wanted);
            let mut found = records.iter().filter(|record| match &record.what {
                What::Start { task } => start && of(task),
                What::End { task, end } => !start && of(task) && *end == End::Done,
                _ => false,
            });
            let at = found.next().unwrap().at;
            assert!(found.next().is_none());
            at
        };
        for (before, after) in [("first", "second"), ("second", "third")] {
            assert!(time(before, true) <= time(before, false) && time(before, false) <= time(after, true));
        }
        let mut edges: Vec<(&str, &str)> = records
            .iter()
            .filter_map(|record| match &record.what {
                What::After { task, input, .. } => Some((&**names.get(input)?, &**names.get(task)?)),
                _ => None,
            })
            .collect();
        edges.sort_unstable();
        assert_eq!(edges, [("first", "second"), ("first", "third"), ("second", "third")]);
    });
}

#[test]
fn an_empty_block_freezes_to_a_run_that_does_nothing() {
    on_all_workers(|_| async {
        let (_, frozen) = Frozen::record(async {}).await.unwrap();
        assert_eq!(frozen.steps(), 0);
        frozen.run().await.unwrap();
        frozen.run().await.unwrap();
    });
}

#[test]
fn a_graph_says_how_long_it_takes() {
    on_all_workers(|_| async {
        let (a, b) = (Chunk::new(0u64), Chunk::new(0u64));
        let (_, frozen) = Frozen::record(async {
            for chunk in [&a, &b] {
                spawn!((|x: &mut u64| *x = std::hint::black_box((0..50_000).sum()))(InOut(chunk)); repeatable = true);
            }
        })
        .await
        .unwrap();
        assert!(frozen.critical_path() < frozen.work() && frozen.work() < Duration::from_secs(1));
        assert_eq!(frozen.steps(), 2);
        let text = format!("{frozen:?} {:?}", frozen.run());
        assert!(text.contains("steps: 2, chunks: 2") && text.contains("FrozenRun(waiting)"), "{text}");
    });
}

#[test]
fn the_chunks_of_a_run_come_back_to_memory_for_it() {
    let block = |i: u64| -> Data { (0..8192).map(|k| i + k).collect() };
    for workers in [1, 2, 8] {
        watched(move || {
            // Eight blocks fit.
            let rt = Runtime::builder().threads(workers).pin(false).memory_limit(512 << 10).build().unwrap();
            rt.block_on(async {
                let chunks: Vec<Chunk<Data>> = (0..6).map(|i| Chunk::new(block(i))).collect();
                let others: Vec<Chunk<Data>> = (0..20).map(|i| Chunk::new(block(i))).collect();
                let sweep = async {
                    for pair in chunks.windows(2) {
                        spawn!(replace(In(&pair[0]), Out(&pair[1])); repeatable = true);
                    }
                };
                let ((), frozen) = Frozen::record(sweep).await.unwrap();
                for round in 2..5 {
                    datadeps(async {
                        others.iter().for_each(|chunk| _ = spawn!(whole(InOut(chunk), 1)));
                    })
                    .await
                    .unwrap();
                    let misses = rt.memory().misses;
                    chunks[0].write().await.unwrap()[0] = round;
                    frozen.run().await.unwrap();
                    assert!(rt.memory().misses > misses);
                    assert_eq!(chunks[5].read().await.unwrap()[0], round + 5);
                }
                let memory = rt.memory();
                assert_eq!((memory.pinned, memory.reserved, memory.over_budget), (0, 0, 0), "{memory:?}");
            });
        });
    }
}

#[test]
fn a_fan_of_long_steps_has_all_workers() {
    for workers in [2, 4, 8] {
        on_workers(workers, move |_| async move {
            for leaves in [workers / 2, workers] {
                // They end only if all of them run at once.
                let barrier = Arc::new(std::sync::Barrier::new(leaves));
                let (root, ends) =
                    (Chunk::new(0u64), (0..leaves).map(|_| Chunk::new(0u64)).collect::<Vec<_>>());
                let (_, frozen) = Frozen::record(async {
                    for _ in 0..3 {
                        spawn!((|x: &mut u64| *x += 1)(InOut(&root)); repeatable = true);
                        for end in &ends {
                            let barrier = barrier.clone();
                            spawn!((move |root: &u64, end: &mut u64| {
                                barrier.wait();
                                *end += root;
                            })(In(&root), InOut(end)); repeatable = true);
                        }
                    }
                })
                .await
                .unwrap();
                for run in 1..10u64 {
                    frozen.run().await.unwrap();
                    let sum = (1..=3 * (run + 1)).sum::<u64>();
                    assert_eq!(*ends[leaves - 1].read().await.unwrap(), sum);
                }
            }
        });
    }
}

#[test]
fn a_step_that_waits_for_its_own_run_is_told_of_the_deadlock() {
    on_all_workers(|_| async {
        let chunk = Chunk::new(0u64);
        let graph: Arc<std::sync::Mutex<Option<Frozen>>> = Arc::default();
        let (known, inside) = (graph.clone(), chunk.clone());
        let (_, frozen) = Frozen::record(async {
            spawn!((move |x: &mut u64| {
                let Some(graph) = known.lock().unwrap().take() else { return };
                let child = spawn!((|x: &mut u64| *x += 1)(InOut(&inside))).blocking_wait();
                assert!(matches!(child, Err(Error::Deadlock { .. })), "{child:?}");
                let again = spawn(graph.run()).blocking_wait();
                // The wait for the task, or that of the task for the run: whichever closed the cycle.
                assert!(matches!(again.and_then(|run| run), Err(Error::Deadlock { .. })));
                *x += 10;
            })(InOut(&chunk)); repeatable = true);
        })
        .await
        .unwrap();
        *graph.lock().unwrap() = Some(frozen.clone());
        frozen.run().await.unwrap();
        // The child comes later: only the wait for it was refused.
        assert_eq!(*chunk.read().await.unwrap(), 11);
    });
}

#[test]
fn a_run_that_is_dropped_before_its_first_step_leaves_everything_as_it_was() {
    on_workers(1, |_| async {
        let (chunk, gate, started) = (Chunk::new(0u64), Gate::new(), Gate::new());
        let one = |x: &mut u64| *x += 1;
        let (_, frozen) =
            Frozen::record(async { _ = spawn!(one(InOut(&chunk)); repeatable = true) }).await.unwrap();
        let (held, begun) = (gate.clone(), started.clone());
        let busy = spawn!((move || {
            begun.open();
            held.block();
        })());
        started.pass().await;
        let mut run = frozen.run();
        assert!(futures::poll!(&mut run).is_pending());
        drop(run);
        gate.open();
        busy.await.unwrap();
        assert_eq!(*chunk.read().await.unwrap(), 1);
    });
}

#[test]
fn a_region_that_does_not_fit_any_more_is_the_fault_of_its_step() {
    on_all_workers(|_| async {
        let list = Chunk::new(vec![0u64; 8]);
        let (_, frozen) = Frozen::record(async {
            spawn!((|x: &mut [u64]| x[0] += 1)(InOut(&list.slice(4..8))); repeatable = true, name = "region");
        })
        .await
        .unwrap();
        list.write().await.unwrap().truncate(2);
        let error = frozen.run().await.unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { .. }), "{error}");
        assert_eq!(error.root().unwrap().name(), "region");
        list.recover().await.unwrap().resize(9, 0);
        frozen.run().await.unwrap();
        assert_eq!(list.read().await.unwrap()[4], 1);
    });
}

#[test]
fn a_failure_that_the_block_has_swallowed_cannot_be_frozen() {
    on_all_workers(|_| async {
        let chunk = Chunk::new(0u64);
        let error = Frozen::record(async {
            let inner = datadeps(async {
                _ = spawn!((|_: &mut u64| Err::<(), _>("early"))(InOut(&chunk))?; repeatable = true);
            });
            assert!(inner.await.is_err());
        });
        let error = error.await.err().unwrap();
        assert!(error.to_string().contains("has failed, or was skipped"), "{error}");
    });
}

#[test]
fn what_a_panic_carries_may_drop_the_run() {
    struct Payload(Arc<std::sync::Mutex<Option<dagger_async::FrozenRun>>>);
    impl Drop for Payload {
        fn drop(&mut self) {
            let run = self.0.lock().unwrap().take();
            drop(run);
        }
    }
    on_all_workers(|_| async {
        let (chunk, gate, slot) = (Chunk::new(0u64), Gate::new(), Arc::new(std::sync::Mutex::new(None)));
        let panics = Arc::new(AtomicBool::new(false));
        let (held, kept, now) = (gate.clone(), slot.clone(), panics.clone());
        let (_, frozen) = Frozen::record(async {
            spawn!((move |_: &mut u64| {
                if now.load(SeqCst) {
                    held.block();
                    std::panic::panic_any(Payload(kept.clone()));
                }
            })(InOut(&chunk)); repeatable = true);
        })
        .await
        .unwrap();
        panics.store(true, SeqCst);
        let mut run = frozen.run();
        assert!(futures::poll!(&mut run).is_pending());
        *slot.lock().unwrap() = Some(run);
        gate.open();
        assert!(chunk.read().await.is_err());
    });
}

#[test]
fn runs_tasks_plans_and_guards_meet_at_the_same_chunks() {
    watched(|| {
        let rt = Arc::new(Runtime::builder().threads(4).pin(false).build().unwrap());
        rt.block_on(async {
            let chunks: Arc<Vec<Chunk<Data>>> =
                Arc::new((0..CHUNKS).map(|i| Chunk::new(vec![i as u64; LEN])).collect());
            let (run, fails) = (Chunk::new(0u64), Chunk::new(0u64));
            let mut graphs = Vec::new();
            for seed in 1..7 {
                let block = async {
                    issue(seed, &chunks, &run);
                    spawn!((|fails: &u64, _: &mut Data| if fails % 7 == 3 { Err("by plan") } else { Ok(()) })(
                        In(&fails), InOut(&chunks[0])
                    )?; repeatable = true);
                };
                graphs.push(Frozen::record(block).await.unwrap().1);
            }
            let plan = Arc::new(Plan::new());
            let hand = |seed: u64| {
                let (rt, graphs, chunks, plan) = (rt.clone(), graphs.clone(), chunks.clone(), plan.clone());
                let (run, fails) = (run.clone(), fails.clone());
                std::thread::spawn(move || {
                    rt.block_on(async {
                        let random = &mut Random(seed);
                        for _ in 0..400 {
                            let graph = &graphs[random.below(graphs.len())];
                            match random.below(10) {
                                0..4 => _ = graph.run().await,
                                4 => {
                                    let mut run = graph.run();
                                    _ = futures::poll!(&mut run);
                                    tokio::task::yield_now().await;
                                }
                                5 => drop(graph.run()),
                                6 => {
                                    for chunk in chunks.iter() {
                                        drop(chunk.recover().await.unwrap());
                                    }
                                }
                                7 => _ = wait_all([spawn(graph.run()), spawn(graph.run())]).await,
                                8 => *fails.recover().await.unwrap() = random.below(20) as u64,
                                _ => {
                                    _ = plan.run(async { issue(3, &chunks, &run) }).await;
                                    _ = spawn!(replace(In(&chunks[1]), Out(&chunks[2]))).await;
                                }
                            }
                        }
                    });
                })
            };
            let hands: Vec<_> = (0..4).map(hand).collect();
            tokio::task::spawn_blocking(|| hands.into_iter().for_each(|hand| hand.join().unwrap()))
                .await
                .unwrap();
            // All of it is there, and none of it is held.
            *fails.recover().await.unwrap() = 0;
            for chunk in chunks.iter() {
                assert_eq!(chunk.recover().await.unwrap().len(), LEN);
            }
            for graph in &graphs {
                graph.run().await.unwrap();
            }
        });
    });
}
