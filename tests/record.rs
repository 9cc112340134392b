//! What a recording holds of a run.

use dagger_async::prelude::*;
use dagger_async::{record, spawn};
use dagger_core::record::{Cause, End, Log, What};
use dagger_tests::Gate;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// Recordings see the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn records(log: &Log) -> impl Iterator<Item = &What> {
    log.lanes.iter().flat_map(|lane| &lane.records).map(|record| &record.what)
}

fn names(log: &Log) -> HashMap<String, u64> {
    let named = records(log).filter_map(|what| match what {
        What::Spawn { task, name, .. } => Some((name.as_ref().to_owned(), *task)),
        _ => None,
    });
    named.collect()
}

fn ends(log: &Log) -> HashMap<u64, End> {
    let ends = records(log).filter_map(|what| match what {
        What::End { task, end } => Some((*task, *end)),
        _ => None,
    });
    let mut all = HashMap::new();
    for (task, end) in ends {
        assert!(all.insert(task, end).is_none(), "task {task} ended twice");
    }
    all
}

fn run<F: Future>(threads: usize, program: F) -> (F::Output, Log) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let rt = Runtime::builder().threads(threads).pin(false).build().unwrap();
    let recording = record::start();
    let output = rt.block_on(program);
    rt.block_on(rt.idle());
    let log = recording.stop();
    (output, log)
}

#[test]
fn edges_say_why_and_ends_say_how() {
    let (_, log) = run(2, async {
        let a = spawn!((|| 1)(); name = "a");
        let b = spawn!((|x: i32| x + 1)(a); name = "b");
        let c = Options::new().name("c").syncdeps([&b]).spawn(async { 3 });
        let d = Options::new().name("d").spawn(async move { b.await.unwrap() + c.await.unwrap() });
        assert_eq!(d.await.unwrap(), 5);
        let bad = spawn!((|| -> i32 { panic!("bad") })(); name = "bad");
        let refused = spawn!((|x: i32| x)(bad); name = "refused");
        assert!(refused.await.is_err());
        let never = Options::new().name("never").spawn(std::future::pending::<()>());
        never.cancel();
        assert!(never.await.is_err());
    });
    let names = names(&log);
    let edges: HashSet<(u64, u64, Cause)> = records(&log)
        .filter_map(|what| match what {
            What::After { task, input, cause } => Some((*input, *task, *cause)),
            _ => None,
        })
        .collect();
    let edge = |from: &str, to: &str, cause| (names[from], names[to], cause);
    for expected in [
        edge("a", "b", Cause::Argument),
        edge("b", "c", Cause::Order),
        edge("b", "d", Cause::Awaited),
        edge("c", "d", Cause::Awaited),
        edge("bad", "refused", Cause::Argument),
    ] {
        assert!(edges.contains(&expected), "{expected:?} in {edges:?}");
    }
    assert_eq!(edges.len(), 5);
    let ends = ends(&log);
    for (name, end) in [
        ("a", End::Done),
        ("d", End::Done),
        ("bad", End::Failed),
        ("refused", End::Refused),
        ("never", End::Cancelled),
    ] {
        assert_eq!(ends[&names[name]], end, "{name}");
    }
}

#[test]
fn places_and_retries_are_written_down_where_there_are_any() {
    let (_, log) = run(3, async {
        spawn!((|| 1)(); name = "plain").await.unwrap();
        spawn!((|| 1)(); name = "scoped", scope = Scope::threads([0, 2]), priority = 7).await.unwrap();
        spawn!((|| 1)(); name = "urgent", priority = 2).await.unwrap();
        spawn!((|| 1)(); name = "blocking", blocking = true).await.unwrap();
        let third = || dagger_async::current().unwrap().attempt() == 2;
        let tried =
            spawn!((move || if third() { Ok(3) } else { Err("not yet") })()?; name = "tried", retries = 5);
        assert_eq!(tried.await.unwrap(), 3);
        let again = try_spawn(retry(1, std::time::Duration::ZERO, || async { Err::<(), _>("never") }));
        assert!(again.await.is_err());
    });
    let names = names(&log);
    let places: HashMap<u64, (Option<Vec<usize>>, i32, bool)> = records(&log)
        .filter_map(|what| match what {
            What::Place { task, workers, priority, blocking } => {
                Some((*task, (workers.as_deref().map(<[usize]>::to_vec), *priority, *blocking)))
            }
            _ => None,
        })
        .collect();
    assert_eq!(places.len(), 3, "{places:?}");
    assert_eq!(places[&names["scoped"]], (Some(vec![0, 2]), 7, false));
    assert_eq!(places[&names["urgent"]], (None, 2, false));
    assert_eq!(places[&names["blocking"]], (None, 0, true));
    let retries = records(&log).filter_map(|what| match what {
        What::Retry { task, attempt } => Some((*task, *attempt)),
        _ => None,
    });
    let mut retries: Vec<(u64, u32)> = retries.collect();
    retries.sort_unstable();
    let attempts: Vec<u32> = retries.iter().map(|retry| retry.1).collect();
    assert_eq!(attempts, [1, 2, 1], "{retries:?}");
    assert!(retries[..2].iter().all(|retry| retry.0 == names["tried"]));
    assert_eq!(ends(&log)[&names["tried"]], End::Done);
}

#[test]
fn accesses_stand_in_the_order_of_their_chunk() {
    let chunk = Chunk::new(vec![0i64; 8]);
    let (_, log) = run(2, async {
        datadeps(async {
            for i in 0..8 {
                spawn!((|x: &mut [i64]| x[0] += 1)(InOut(&chunk.slice(i..=i))));
                spawn!((|_: &Vec<i64>| ())(&chunk));
            }
        })
        .await
        .unwrap();
    });
    let mut accesses: Vec<(u64, u64, bool, bool)> = records(&log)
        .filter_map(|what| match what {
            What::Access { task, turn, writes, part, .. } => Some((*turn, *task, *writes, part.is_some())),
            _ => None,
        })
        .collect();
    accesses.sort_unstable();
    assert_eq!(accesses.len(), 16);
    let turns: Vec<u64> = accesses.iter().map(|access| access.0).collect();
    assert!(turns.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{turns:?}");
    assert!(accesses.iter().step_by(2).all(|access| access.2 && access.3));
    assert!(accesses.iter().skip(1).step_by(2).all(|access| !access.2 && !access.3));
}

#[test]
fn a_task_runs_on_one_lane_at_a_time_and_times_grow() {
    let (_, log) = run(4, async {
        let tasks: Vec<_> = (0..200)
            .map(|i| {
                spawn(async move {
                    for _ in 0..i % 5 {
                        tokio::task::yield_now().await;
                    }
                    spawn!((|| 7)()).await.unwrap()
                })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), 7);
        }
    });
    assert_eq!(log.lost, 0);
    let mut spawned = 0;
    let mut runs: HashMap<u64, Vec<(u64, u64)>> = HashMap::new();
    for lane in &log.lanes {
        assert!(lane.records.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(lane.records.iter().all(|record| record.at <= log.nanos));
        let mut running: Option<(u64, u64)> = None;
        for record in &lane.records {
            match record.what {
                What::Spawn { .. } => spawned += 1,
                What::Start { task } | What::Resume { task } => {
                    assert!(running.is_none(), "one body at a time");
                    running = Some((task, record.at));
                }
                What::Suspend { task } | What::End { task, .. } => {
                    let (started, at) = running.take().expect("what ends has begun here");
                    assert_eq!(started, task);
                    runs.entry(task).or_default().push((at, record.at));
                }
                _ => {}
            }
        }
    }
    assert_eq!((spawned, runs.len()), (400, 400));
    for mut runs in runs.into_values() {
        runs.sort_unstable();
        assert!(runs.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{runs:?}");
    }
}

#[test]
fn a_full_buffer_counts_what_it_loses_and_recordings_may_overlap() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let rt = Runtime::builder().threads(1).pin(false).build().unwrap();
    let program = || rt.block_on(async { drop(wait_all((0..100).map(|_| spawn!((|| ())()))).await) });
    let outer = record::start_with(50);
    program();
    let inner = record::start_with(50);
    program();
    let (inner, outer) = (inner.stop(), outer.stop());
    assert!(outer.lost > inner.lost && inner.lost > 0, "{} {}", outer.lost, inner.lost);
    assert!(outer.lanes.iter().all(|lane| lane.records.len() <= 50));
    program(); // Off: nothing is kept.
    let fresh = record::start();
    assert_eq!(fresh.stop().lanes.iter().map(|lane| lane.records.len()).sum::<usize>(), 0);
}

/// How many tasks of each name a recording knows by their spawn, and how many have ended.
fn counts(log: &Log) -> (HashMap<String, usize>, usize) {
    let mut spawned = HashMap::new();
    for what in records(log) {
        if let What::Spawn { name, .. } = what {
            *spawned.entry(name.as_ref().to_owned()).or_default() += 1;
        }
    }
    (spawned, ends(log).len())
}

#[test]
fn a_recorded_block_has_its_tasks_their_children_and_no_others() {
    fn add(x: &mut [i64], v: i64) {
        x.iter_mut().for_each(|x| *x += v)
    }
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let rt = Runtime::builder().threads(3).pin(false).build().unwrap();
    let shared = Chunk::new(vec![0i64; 4]);
    let block = |name: &'static str| {
        let shared = &shared;
        record::recorded(async move {
            let parent = Options::new().name(name).spawn(async move {
                let child = spawn(async move { spawn!((|| 1)(); name = "grandchild").await.unwrap() });
                child.await.unwrap()
            });
            datadeps(async {
                for _ in 0..10 {
                    spawn!(add(InOut(&shared.slice(..)), 1); name = name);
                    tokio::task::yield_now().await;
                }
            })
            .await
            .unwrap();
            let made = Chunk::from_task(spawn!((|| vec![7])(); name = "maker"));
            let read = spawn!((|x: &Vec<i64>| x[0])(&made); name = "reader");
            assert_eq!(read.await.unwrap() + parent.await.unwrap(), 8);
        })
    };
    let inside = async {
        let around = async { (0..20).map(|_| spawn!((|| ())(); name = "around")).collect::<Vec<_>>() };
        let (one, other, around) = futures::join!(block("one"), block("other"), around);
        wait_all(around).await;
        (one.1, other.1)
    };
    // Where blocks are polled changes nothing: outside tasks, or in a task that spawns others.
    let outside =
        rt.block_on(async { futures::join!(block("one"), block("other"), async { spawn!((|| ())()) }) });
    let inside = rt.block_on(inside);
    for (log, name) in
        [(&outside.0.1, "one"), (&outside.1.1, "other"), (&inside.0, "one"), (&inside.1, "other")]
    {
        let (spawned, ended) = counts(log);
        let expected = [(name, 11), ("grandchild", 1), ("maker", 1), ("reader", 1), ("Chunk::from_task", 1)];
        for (name, count) in expected {
            assert_eq!(spawned.get(name), Some(&count), "{name} in {spawned:?}");
        }
        // The child is called as its function is, and the block may have had to wait for its tasks.
        let all: usize = spawned.values().sum();
        assert!(all == 16 || all == 17 && spawned.contains_key("end of block"), "{spawned:?}");
        assert_eq!(ended, all);
        assert!(!spawned.contains_key("around"));
        // What the block's tasks waited for in other blocks is not known here; among themselves it is.
        let turns = records(log).filter(|what| matches!(what, What::Access { .. })).count();
        assert_eq!(turns, 12);
    }
}

#[test]
fn a_trace_has_the_tasks_of_the_program_and_no_others() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
    let (chunk, gate) = (Chunk::new(0u64), Gate::new());
    rt.block_on(async {
        // One task holds the others back until the block waits for them.
        let (held, opens) = (gate.clone(), gate.clone());
        let mut block = Box::pin(dagger_trace::trace::record(datadeps(async {
            spawn!((move |x: &mut u64| { held.block(); *x += 1 })(InOut(&chunk)); name = "held");
            for _ in 0..4 {
                spawn!((|x: &mut u64| *x += 1)(InOut(&chunk)));
            }
        })));
        assert!(futures::poll!(&mut block).is_pending());
        opens.open();
        let (result, trace) = block.await;
        result.unwrap();
        assert_eq!(trace.tasks.len(), 5, "{:?}", trace.tasks);
        assert_eq!(trace.edges.len(), 4);
        let steps = in_order(async {
            bulk(async {
                spawn!((|| 1)());
                spawn!((|| 2)())
            })
            .await;
            spawn!((|| 3)())
        });
        let (last, trace) = dagger_trace::trace::record(async { steps.await.await }).await;
        assert_eq!(last.unwrap(), 3);
        assert_eq!(trace.tasks.len(), 3, "{:?}", trace.tasks);
        // The last comes after both of the bulk.
        let edges: Vec<_> = trace.edges.iter().map(|edge| (edge.from, edge.to)).collect();
        assert_eq!(edges, [(0, 2), (1, 2)]);
        // Bulks come after the one before, not after all.
        let bulks = in_order(async {
            for _ in 0..40 {
                bulk(async {
                    spawn!((|| 1)());
                    spawn!((|| 2)());
                })
                .await;
            }
            spawn!((|| 3)())
        });
        let (_, trace) = dagger_trace::trace::record(async { bulks.await.await.unwrap() }).await;
        assert_eq!(trace.tasks.len(), 81);
        let edges: HashSet<_> = trace.edges.iter().map(|edge| (edge.from / 2, edge.to / 2)).collect();
        assert_eq!(edges, (0..40).map(|bulk| (bulk, bulk + 1)).collect());
        assert_eq!(trace.edges.len(), 39 * 4 + 2);
        // Who awaits a block inside a task comes after all of its tasks, however many.
        const MANY: usize = 3000;
        let counter = chunk.clone();
        let waits = async move {
            spawn(async move {
                let held = Gate::new();
                let opens = held.clone();
                datadeps(async {
                    spawn!((move |x: &mut u64| { held.block(); *x += 1 })(InOut(&counter)); blocking = true);
                    (1..MANY).for_each(|_| drop(spawn!((|x: &mut u64| *x += 1)(InOut(&counter)))));
                    opens.open();
                })
                .await
                .unwrap();
            })
            .await
            .unwrap();
        };
        let (_, trace) = dagger_trace::trace::record(waits).await;
        assert_eq!(trace.tasks.len(), 1 + MANY);
        let awaited = trace.edges.iter().filter(|edge| edge.cause == dagger_trace::EdgeCause::Awaited);
        assert!(awaited.clone().all(|edge| edge.to == 0) && awaited.count() > 0, "{:?}", trace.edges.len());
    });
}

#[test]
fn a_recorded_block_that_is_dropped_records_no_more() {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let rt = Runtime::builder().threads(1).pin(false).build().unwrap();
    rt.block_on(async {
        let mut block = Box::pin(record::recorded(async {
            spawn!((|| ())()).await.unwrap();
            std::future::pending::<()>().await;
        }));
        assert!(futures::poll!(&mut block).is_pending());
        drop(block);
        rt.idle().await; // the task goes on
        let outer = record::start();
        let (running, log) = record::recorded(async { spawn(std::future::pending::<()>()) }).await;
        let (spawned, ended) = counts(&log);
        assert_eq!((spawned.values().sum::<usize>(), ended), (1, 0));
        running.cancel();
        let _ = running.await;
        rt.idle().await; // its body is dropped after its handle has ended
        assert_eq!(counts(&outer.stop()).1, 1);
    });
}
