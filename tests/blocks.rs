//! `datadeps`: what a block contains, waits for, returns and cancels, wherever it is awaited.

use dagger_async::prelude::*;
use dagger_tests::{Failure, Gate, WORKERS, on_all_workers, on_workers, runtime, watched};
use futures::future::{BoxFuture, join_all, pending, ready};
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, poll};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Numbers = Chunk<Vec<i64>>;

fn numbers(len: usize) -> Numbers {
    Chunk::new(vec![0; len])
}
fn add(x: &mut [i64], v: i64) {
    x.iter_mut().for_each(|x| *x += v)
}
fn sum(x: &[i64]) -> i64 {
    x.iter().sum()
}
fn no_luck(text: &str) -> Result<(), Failure> {
    Err(Failure(text.to_owned()))
}
async fn pass(gate: Gate) {
    gate.pass().await
}
async fn pass_then_fail(gate: Gate, text: &'static str) -> Result<(), Failure> {
    gate.pass().await;
    no_luck(text)
}
async fn pass_then_add(x: &mut [i64], started: Gate, go: Gate) {
    started.open();
    go.pass().await;
    add(x, 1)
}

/// Where a block is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Task,
    BlockOn,
    TokioCurrentThread,
    TokioMultiThread,
}

impl Place {
    const ALL: [Place; 4] = [Place::Task, Place::BlockOn, Place::TokioCurrentThread, Place::TokioMultiThread];

    fn run(self, rt: &Arc<Runtime>, test: BoxFuture<'static, ()>) {
        match self {
            Place::Task => rt.block_on(async { spawn(test).await.unwrap() }),
            Place::BlockOn => rt.block_on(test),
            Place::TokioCurrentThread => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(rt.run(test)),
            Place::TokioMultiThread => {
                let tokio =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
                let rt = rt.clone();
                let spawned = async { tokio::spawn(async move { rt.run(test).await }).await };
                tokio.unwrap().block_on(spawned).unwrap()
            }
        }
    }
}

/// The full product of places and numbers of workers.
fn everywhere<F, M>(test: M)
where
    M: Fn(Arc<Runtime>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    for place in Place::ALL {
        for workers in WORKERS {
            let test = test.clone();
            watched(move || {
                eprintln!("{place:?} on {workers} workers");
                let rt = runtime(workers);
                place.run(&rt, test(rt.clone()).boxed());
                rt.block_on(rt.idle());
            });
        }
    }
}

fn names(errors: &[Error]) -> Vec<String> {
    errors.iter().map(|error| error.root().unwrap().name().to_owned()).collect()
}

// What it gives.

#[test]
fn a_block_gives_the_output_of_its_body_when_all_its_tasks_have_ended() {
    everywhere(|_rt| async {
        let ended = Arc::new(AtomicUsize::new(0));
        for i in 0..20 {
            let (tasks, text) = datadeps(async {
                let tasks: Vec<DTask<()>> = (0..i)
                    .map(|_| {
                        let ended = ended.clone();
                        spawn(async move {
                            tokio::task::yield_now().await;
                            ended.fetch_add(1, SeqCst);
                        })
                    })
                    .collect();
                (tasks, "output".to_owned())
            })
            .await
            .unwrap();
            assert!(tasks.iter().all(DTask::is_finished));
            assert_eq!((ended.swap(0, SeqCst), text.as_str()), (i, "output"));
        }
        datadeps(async {}).await.unwrap();
    });
}

#[test]
fn a_body_that_uses_the_question_mark_gives_a_result_in_a_result() {
    everywhere(|_rt| async {
        async fn twice() -> Result<i64, Error> {
            let x = datadeps(async {
                let x = spawn!((|| 4)()).await?;
                let y = spawn!((|x: i64| x + 1)(x)).await?;
                Ok::<i64, Error>(y)
            })
            .await??;
            Ok(x)
        }
        assert_eq!(twice().await.unwrap(), 5);
        // The body's own `Err` is its output; all that it had spawned has ended.
        let ended = Arc::new(AtomicUsize::new(0));
        let given = datadeps(async {
            for _ in 0..50 {
                let ended = ended.clone();
                spawn(async move {
                    tokio::task::yield_now().await;
                    ended.fetch_add(1, SeqCst);
                });
            }
            no_luck("the body's own")?;
            Ok::<(), Failure>(())
        })
        .await
        .unwrap();
        assert_eq!((given, ended.load(SeqCst)), (Err(Failure("the body's own".into())), 50));
    });
}

#[test]
fn a_block_returns_the_first_root_in_the_order_of_spawns_whichever_came_first() {
    everywhere(|_rt| async {
        for turns in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let gates = [Gate::new(), Gate::new(), Gate::new()];
            let error = datadeps(async {
                let a = spawn!(async pass_then_fail(gates[0].clone(), "0")?; name = "a");
                // Dependants are no roots, also those spawned before another root.
                let next = spawn!((|(): ()| ())(a); name = "next");
                let b = spawn!(async pass_then_fail(gates[1].clone(), "1")?; name = "b");
                spawn!(async pass_then_fail(gates[2].clone(), "2")?; name = "c");
                spawn!((|(): (), (): ()| ())(next, b); name = "last");
                for turn in turns {
                    gates[turn].open();
                    tokio::task::yield_now().await;
                }
            })
            .await
            .unwrap_err();
            assert!(matches!(error, Error::Task { .. }), "{error:?}");
            assert_eq!(error.root().unwrap().name(), "a");
            assert_eq!(error.downcast_ref::<Failure>().unwrap().0, "0");
            assert_eq!(names(error.others()), ["b", "c"]);
            assert!(error.others().iter().all(|other| matches!(other, Error::Task { .. })));
            assert!(error.others().iter().all(|other| other.others().is_empty()));
        }
    });
}

#[test]
fn a_root_outside_of_the_block_counts_where_its_first_dependant_stands() {
    everywhere(|_rt| async {
        let outside = spawn!(no_luck("outside")?; name = "outside");
        let error = datadeps(async {
            spawn!((|| ())());
            let first = spawn!((|(): ()| ())(outside); name = "dependant");
            spawn!((|(): ()| ())(first); name = "dependant");
            spawn!(no_luck("inside")?; name = "inside");
        })
        .await
        .unwrap_err();
        assert_eq!(error.root().unwrap().name(), "outside");
        assert!(matches!(error, Error::Task { .. }), "the root's own error, not {error:?}");
        assert_eq!(names(error.others()), ["inside"]);
    });
}

#[test]
fn a_failure_counts_though_its_handle_was_awaited_inside() {
    everywhere(|_rt| async {
        let error = datadeps(async {
            let own = spawn!(no_luck("seen")?; name = "seen").await.unwrap_err();
            assert!(own.others().is_empty());
            // Also one that was waited for by reference, or with a `?` that is the output.
            let kept = spawn!(no_luck("kept")?; name = "kept");
            assert!((&kept).await.is_err());
            kept.await
        })
        .await
        .unwrap_err();
        assert_eq!(error.root().unwrap().name(), "seen");
        assert_eq!(names(error.others()), ["kept"]);
    });
}

#[test]
fn every_kind_of_failure_is_returned() {
    everywhere(|_rt| async {
        let error = datadeps(async { spawn!((|| -> () { panic!("text") })()) }).await.unwrap_err();
        assert!(matches!(error, Error::Panicked { .. }), "{error:?}");
        let error = datadeps(async { spawn(pending::<()>()).cancel() }).await.unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
        let slow = Options::new().timeout(Duration::from_millis(1));
        let error = datadeps(async { slow.spawn(pending::<()>()) }).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
        let error = datadeps(async { spawn!((|| ())(); scope = Scope::threads([])) }).await.unwrap_err();
        assert!(matches!(error, Error::NoProcessor { .. }), "{error:?}");
        let chunk = numbers(3);
        let error = datadeps(async { spawn!(add(InOut(&chunk.slice(2..5)), 1)) }).await.unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { .. }), "{error:?}");
        let error = datadeps(async {
            spawn!((|_: &mut [i64], _: &[i64]| ())(InOut(&chunk.slice(..)), In(&chunk.slice(..))))
        })
        .await
        .unwrap_err();
        assert!(matches!(error, Error::Aliased { .. }), "{error:?}");
    });
}

#[test]
fn a_reader_of_what_failed_in_an_earlier_block_gives_that_root() {
    everywhere(|_rt| async {
        let chunk = numbers(4);
        let first = datadeps(async {
            spawn!((|_: &mut [i64]| no_luck("x"))(InOut(&chunk.slice(..)))?; name = "culprit");
            spawn!(add(InOut(&chunk.slice(..)), 1); name = "victim");
        })
        .await
        .unwrap_err();
        assert!(first.others().is_empty(), "a refused task is no root");
        let second = datadeps(async {
            spawn!(sum(In(&chunk.slice(..))); name = "victim");
        })
        .await
        .unwrap_err();
        for error in [first, second] {
            assert_eq!(error.root().unwrap().name(), "culprit");
            assert!(matches!(error, Error::Task { .. }), "{error:?}");
        }
    });
}

#[test]
fn a_failing_block_has_drained() {
    everywhere(|_rt| async {
        let (go, ended) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
        let mut block = Box::pin(datadeps(async {
            spawn!(no_luck("first")?);
            for _ in 0..30 {
                let (go, ended) = (go.clone(), ended.clone());
                spawn(async move {
                    go.pass().await;
                    ended.fetch_add(1, SeqCst);
                });
            }
        }));
        for _ in 0..10 {
            assert!(poll!(&mut block).is_pending(), "it did not wait for its tasks");
            tokio::task::yield_now().await;
        }
        go.open();
        assert!(block.await.is_err());
        assert_eq!(ended.load(SeqCst), 30);
    });
}

#[test]
fn failures_of_tasks_that_are_long_gone_keep_their_place_in_the_order() {
    everywhere(|_rt| async {
        let fail_at = [1500, 1501, 2999, 40];
        let error = datadeps(async {
            for i in 0..3000 {
                let fails = fail_at.contains(&i);
                spawn!((move || if fails { no_luck("x") } else { Ok(()) })()?; name = i.to_string());
                if i % 500 == 0 {
                    tokio::task::yield_now().await;
                    room().await;
                }
            }
        })
        .await
        .unwrap_err();
        assert_eq!(error.root().unwrap().name(), "40");
        assert_eq!(names(error.others()), ["1500", "1501", "2999"]);
    });
}

#[test]
fn thousands_of_failures_end_and_the_first_is_returned() {
    everywhere(|_rt| async {
        let error = datadeps(async {
            for i in 0..3000 {
                spawn!(no_luck("x")?; name = i.to_string());
            }
        })
        .await
        .unwrap_err();
        assert_eq!(error.root().unwrap().name(), "0");
        assert!(!error.others().is_empty());
    });
}

// Blocks in blocks.

#[test]
fn a_failure_of_an_inner_block_that_the_user_handles_does_not_fail_the_outer_one() {
    everywhere(|_rt| async {
        let (inner, text) = datadeps(async {
            let inner = datadeps(async {
                let bad = spawn!(no_luck("inner")?; name = "inner");
                spawn!((|(): ()| ())(bad));
            })
            .await;
            spawn!((|| ())());
            (inner, "went on")
        })
        .await
        .unwrap();
        assert_eq!(inner.unwrap_err().root().unwrap().name(), "inner");
        assert_eq!(text, "went on");
        // One that is passed on by `?` is the output of the outer one.
        let outer = datadeps(async {
            datadeps(async { spawn!(no_luck("inner")?; name = "inner") }).await?;
            Ok::<(), Error>(())
        })
        .await
        .unwrap();
        assert_eq!(outer.unwrap_err().root().unwrap().name(), "inner");
        // A task of the outer one that depends on it does fail the outer one.
        let error = datadeps(async {
            let bad = datadeps(async { bulk(async { spawn!(no_luck("inner")?; name = "inner") }).await });
            let bad = bad.now_or_never().and_then(Result::ok);
            let next = spawn!((|| no_luck("outer"))()?; name = "outer");
            (bad, next)
        })
        .await
        .map(drop)
        .unwrap_err();
        assert_eq!(error.root().unwrap().name(), "outer");
    });
}

fn nested(depth: i64, chunk: Numbers, bad: i64) -> BoxFuture<'static, Result<i64, Error>> {
    async move {
        let inner = datadeps(async {
            spawn!(add(InOut(&chunk.slice(..)), 1));
            if depth == bad {
                spawn!(no_luck("x")?; name = "deep");
            }
            let inner = if depth == 0 { Ok(0) } else { nested(depth - 1, chunk.clone(), bad).await };
            spawn!(add(InOut(&chunk.slice(..)), 1));
            inner
        })
        .await??;
        Ok(inner + 1)
    }
    .boxed()
}

#[test]
fn a_hundred_blocks_nest() {
    everywhere(|_rt| async {
        let chunk = numbers(2);
        assert_eq!(nested(99, chunk.clone(), -1).await.unwrap(), 100);
        assert_eq!(*chunk.read().await.unwrap(), [200; 2]);
        let error = nested(99, chunk.clone(), 0).await.unwrap_err();
        assert_eq!(error.root().unwrap().name(), "deep");
        assert_eq!(*chunk.read().await.unwrap(), [400; 2]);
    });
}

#[test]
fn a_hundred_tasks_nest_with_a_block_in_each() {
    fn nest(depth: usize, count: Chunk<usize>) -> BoxFuture<'static, usize> {
        async move {
            let inner = datadeps(async {
                spawn!((|count: &mut usize| *count += 1)(InOut(&count)));
                match depth {
                    0 => 0,
                    _ => spawn(nest(depth - 1, count.clone())).await.unwrap(),
                }
            });
            inner.await.unwrap() + 1
        }
        .boxed()
    }
    everywhere(|_rt| async {
        let count = Chunk::new(0);
        assert_eq!(nest(99, count.clone()).await, 100);
        assert_eq!(*count.read().await.unwrap(), 100);
    });
}

#[test]
fn an_outer_block_waits_for_what_a_dropped_inner_one_left_running() {
    everywhere(|_rt| async {
        let (chunk, started, go) = (numbers(2), Gate::new(), Gate::new());
        let mut outer = Box::pin(datadeps(async {
            let mut inner = Box::pin(datadeps(async {
                spawn!(async pass_then_add(InOut(&chunk.slice(..)), started.clone(), go.clone()));
                pending::<()>().await;
            }));
            assert!(poll!(&mut inner).is_pending());
            started.pass().await;
        }));
        started_while_polled(&mut outer, &started).await;
        for _ in 0..10 {
            assert!(poll!(&mut outer).is_pending(), "it left a task running");
            tokio::task::yield_now().await;
        }
        go.open();
        outer.await.unwrap();
        assert_eq!(*chunk.read().await.unwrap(), [1; 2]);
    });
}

/// Polls until the gate is open.
async fn started_while_polled<F: Future + Unpin>(future: &mut F, gate: &Gate) {
    tokio::select! {
        biased;
        () = gate.pass() => {}
        _ = future => panic!("it ended"),
    }
}

#[test]
fn many_blocks_over_the_same_chunks_from_many_threads_end() {
    for workers in WORKERS {
        watched(move || {
            let rt = runtime(workers);
            let chunks: Vec<Numbers> = (0..3).map(|_| numbers(4)).collect();
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (rt, chunks) = (rt.clone(), chunks.clone());
                    std::thread::spawn(move || {
                        rt.block_on(async {
                            let blocks = (0..5).map(|nth| {
                                let chunks = &chunks;
                                datadeps(async move {
                                    for i in 0..40 {
                                        let (x, y) = ((thread + i) % 3, (thread + nth + i) % 3);
                                        if x != y {
                                            spawn!((|x: &mut [i64], y: &mut [i64]| {
                                                add(x, 1);
                                                add(y, -1);
                                            })(
                                                InOut(&chunks[x].slice(..)),
                                                InOut(&chunks[y].slice(..))
                                            ));
                                        }
                                        if i % 10 == nth {
                                            datadeps(async {
                                                spawn!(sum(In(&chunks[y].slice(1..))));
                                            })
                                            .await
                                            .unwrap();
                                        }
                                    }
                                })
                            });
                            assert!(join_all(blocks).await.iter().all(Result::is_ok));
                        });
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let all = rt.block_on(async {
                let mut all = 0;
                for chunk in &chunks {
                    all += sum(&chunk.read().await.unwrap());
                }
                all
            });
            assert_eq!(all, 0);
        });
    }
}

// What ends it early.

/// How a block ends without being awaited to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Early {
    Select,
    Timeout,
    Dropped,
    DroppedWhileDraining,
    Panic,
    ItsTaskIsCancelled,
}

impl Early {
    const ALL: [Early; 6] = [
        Early::Select,
        Early::Timeout,
        Early::Dropped,
        Early::DroppedWhileDraining,
        Early::Panic,
        Early::ItsTaskIsCancelled,
    ];
}

/// The tasks of the block of [`end_early`].
struct Tasks {
    running: DTask<()>,
    behind: DTask<()>,
    without_argument: DTask<()>,
    done: DTask<i64>,
}

/// Ends a block early in which one task runs, and others have not started.
async fn end_early(early: Early, chunk: &Numbers, go: &Gate) -> Tasks {
    let (started, spawned) = (Gate::new(), Arc::new(Mutex::new(None)));
    let body = {
        let (chunk, go, started, spawned) = (chunk.clone(), go.clone(), started.clone(), spawned.clone());
        async move {
            let done = spawn!(sum(In(&chunk.slice(..))));
            done.wait().await;
            let running = spawn!(async pass_then_add(InOut(&chunk.slice(0..2)), started.clone(), go));
            let behind = spawn!(add(InOut(&chunk.slice(1..3)), 1); name = "behind");
            let without_argument =
                spawn!(add(Out(&chunk.slice(4..6)), Await(pending::<i64>())); name = "without argument");
            started.pass().await;
            *spawned.lock().unwrap() = Some(Tasks { running, behind, without_argument, done });
            match early {
                Early::Panic => panic!("in the body"),
                Early::DroppedWhileDraining => {}
                _ => pending().await,
            }
        }
    };
    let is_spawned = || spawned.lock().unwrap().is_some();
    match early {
        Early::Select => {
            let until = async {
                while !is_spawned() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                _ = datadeps(body) => panic!("it ended"),
                () = until => {}
            }
        }
        Early::Timeout => {
            let mut block = pin!(datadeps(body));
            while !is_spawned() {
                assert!(tokio::time::timeout(Duration::from_millis(2), &mut block).await.is_err());
            }
        }
        Early::Dropped | Early::DroppedWhileDraining => {
            let mut block = Box::pin(datadeps(body));
            while !is_spawned() {
                assert!(poll!(&mut block).is_pending());
                tokio::task::yield_now().await;
            }
            drop(block);
        }
        Early::Panic => {
            let payload = AssertUnwindSafe(datadeps(body)).catch_unwind().await.unwrap_err();
            assert_eq!(*payload.downcast_ref::<&str>().unwrap(), "in the body");
        }
        Early::ItsTaskIsCancelled => {
            let outer = spawn(datadeps(body));
            while !is_spawned() {
                tokio::task::yield_now().await;
            }
            outer.cancel();
            assert!(matches!(outer.await, Err(Error::Cancelled { .. })));
        }
    }
    let tasks = spawned.lock().unwrap().take();
    tasks.unwrap()
}

#[test]
fn a_block_that_is_dropped_cancels_what_has_not_started_and_lets_run_what_runs() {
    for early in Early::ALL {
        everywhere(move |_rt| async move {
            eprintln!("{early:?}");
            let (chunk, go) = (numbers(8), Gate::new());
            let tasks = end_early(early, &chunk, &go).await;
            for (task, name) in [(tasks.behind, "behind"), (tasks.without_argument, "without argument")] {
                let error = task.await.unwrap_err();
                assert!(matches!(error, Error::Cancelled { .. }), "{name}: {error:?}");
            }
            assert!(!tasks.running.is_finished());
            assert_eq!(tasks.done.await.unwrap(), 0);
            let untouched = spawn!(sum(In(&chunk.slice(6..))));
            assert_eq!(untouched.await.unwrap(), 0);
            let (first, second, third) = (
                spawn!(sum(In(&chunk.slice(0..1)))),
                spawn!(sum(In(&chunk.slice(1..3)))),
                spawn!(sum(In(&chunk.slice(4..6)))),
            );
            let third = third.await.unwrap_err();
            go.open();
            tasks.running.await.unwrap();
            assert_eq!(first.await.unwrap(), 1);
            let second = second.await.unwrap_err();
            for (error, name) in [(second, "behind"), (third, "without argument")] {
                let Error::Dependency { root, cause, .. } = &error else { panic!("{error:?}") };
                assert_eq!(root.name(), name);
                assert!(matches!(**cause, Error::Cancelled { .. }), "{error:?}");
            }
            // Another block repairs it.
            datadeps(async { spawn!(add(Out(&chunk.slice(..)), 1)) }).await.unwrap().await.unwrap();
            chunk.read().await.unwrap();
        });
    }
}

#[test]
fn a_block_that_is_dropped_before_it_is_polled_has_spawned_nothing() {
    everywhere(|rt| async move {
        let held = Arc::new(());
        let inside = held.clone();
        drop(datadeps(async move {
            let inside = inside;
            spawn!((|_: Arc<()>| ())(inside));
        }));
        assert_eq!(Arc::strong_count(&held), 1);
        let _ = rt;
    });
}

#[test]
fn a_body_that_panics_at_once_cancels_what_it_spawned() {
    everywhere(|_rt| async {
        let spawned = Arc::new(Mutex::new(Vec::new()));
        let tasks = spawned.clone();
        let block = datadeps(async move {
            for _ in 0..10 {
                let task = spawn!((|x: i32| x)(Await(pending::<i32>())));
                tasks.lock().unwrap().push(task);
            }
            panic!("in the body")
        });
        let block: Result<Result<(), Error>, _> = AssertUnwindSafe(block).catch_unwind().await;
        assert!(block.is_err());
        let tasks = std::mem::take(&mut *spawned.lock().unwrap());
        for task in tasks {
            assert!(matches!(task.await, Err(Error::Cancelled { .. })));
        }
        // The thread that panicked is in no block any more.
        assert_eq!(spawn!((|| 1)()).await.unwrap(), 1);
    });
}

#[test]
fn a_dropped_block_cancels_tasks_whose_arguments_are_being_polled() {
    // worker                       caller
    // polls the argument    ╳      drops the block
    on_all_workers(|_rt| async {
        for round in 0..2000 {
            let kept = Arc::new(Mutex::new(Vec::new()));
            let spawned = kept.clone();
            let mut block = Box::pin(datadeps(async move {
                for _ in 0..3 {
                    let task = spawn!((|x: i32| x)(Await(pending::<i32>())));
                    spawned.lock().unwrap().push(task);
                }
                pending::<()>().await;
            }));
            assert!(poll!(&mut block).is_pending());
            (0..round % 300 * 10).for_each(|_| std::hint::spin_loop());
            drop(block);
            let tasks = std::mem::take(&mut *kept.lock().unwrap());
            for task in tasks {
                assert!(matches!(task.await, Err(Error::Cancelled { .. })));
            }
        }
    });
}

#[test]
fn forgetting_a_block_is_harmless() {
    everywhere(|_rt| async {
        let (chunk, go, started) = (numbers(4), Gate::new(), Gate::new());
        let mut block = Box::pin(datadeps({
            let (chunk, go, started) = (chunk.clone(), go.clone(), started.clone());
            async move {
                spawn!(async pass_then_add(InOut(&chunk.slice(..)), started, go));
                for _ in 0..100 {
                    spawn!(add(InOut(&chunk.slice(..)), 1));
                }
                pending::<()>().await;
            }
        }));
        started_while_polled(&mut block, &started).await;
        std::mem::forget(block);
        let after = spawn!(sum(In(&chunk.slice(..))));
        go.open();
        assert_eq!(after.await.unwrap(), 404);
    });
}

// Among other blocks.

/// What began and ended, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<(usize, &'static str)>>>);

impl Diary {
    fn note(&self, task: usize, what: &'static str) {
        self.0.lock().unwrap().push((task, what));
    }
    /// Spawns an independent task, of a kind that its number chooses.
    fn spawn(&self, task: usize) -> DTask<()> {
        let diary = self.clone();
        match task % 3 {
            0 => spawn(async move {
                diary.note(task, "begins");
                tokio::task::yield_now().await;
                diary.note(task, "ends");
            }),
            1 => spawn!((move || {
                diary.note(task, "begins");
                std::thread::yield_now();
                diary.note(task, "ends");
            })()),
            _ => spawn!((move || -> () {
                diary.note(task, "begins");
                diary.note(task, "ends");
                panic!("on purpose")
            })()),
        }
    }
    #[track_caller]
    fn assert_one_after_another(&self, count: usize) {
        let expected: Vec<_> = (0..count).flat_map(|i| [(i, "begins"), (i, "ends")]).collect();
        assert_eq!(*self.0.lock().unwrap(), expected);
    }
}

#[test]
fn a_block_inside_in_order_adds_its_tasks_to_the_order() {
    on_all_workers(|rt| async move {
        let diary = Diary::default();
        in_order(async {
            diary.spawn(0);
            diary.spawn(1);
            let inner = datadeps(async { (2..30).map(|i| diary.spawn(i)).collect::<Vec<_>>() }).await;
            assert!(inner.is_err());
            diary.spawn(30);
        })
        .await;
        // And the other way round: the block waits for the steps.
        let steps = Diary::default();
        assert!(
            datadeps(async {
                in_order(async {
                    (0..20).for_each(|i| _ = steps.spawn(i));
                })
                .await
            })
            .await
            .is_err()
        );
        steps.assert_one_after_another(20);
        rt.idle().await;
        diary.assert_one_after_another(31);
    });
}

#[test]
fn awaiting_a_block_inside_a_bulk_is_a_deadlock_and_its_tasks_go_on() {
    everywhere(|_rt| async {
        let chunk = numbers(2);
        let (task, error) = bulk(async {
            let kept = Arc::new(Mutex::new(None));
            let inner = kept.clone();
            let error = datadeps(async {
                *inner.lock().unwrap() = Some(spawn!(add(InOut(&chunk.slice(..)), 1); name = "held"));
            })
            .await
            .unwrap_err();
            let task = kept.lock().unwrap().take();
            (task.unwrap(), error)
        })
        .await;
        assert!(matches!(error, Error::Deadlock { .. }), "{error:?}");
        assert!(error.to_string().contains("held"), "{error}");
        task.await.unwrap();
        assert_eq!(*chunk.read().await.unwrap(), [1; 2]);
    });
}

#[test]
fn awaiting_a_guard_behind_what_a_bulk_holds_back_is_a_deadlock_inside_and_outside_tasks() {
    let block = || async {
        let (chunk, frozen) = (numbers(2), numbers(2));
        let ((), frozen) = Frozen::record(async {
            spawn!(add(InOut(&frozen.slice(..)), 1); repeatable = true);
            spawn!(add(InOut(&chunk.slice(..)), 1); repeatable = true);
        })
        .await
        .unwrap();
        let (task, errors) = bulk(async {
            let held = spawn!(add(InOut(&chunk.slice(..)), 1); name = "held");
            // Behind one that is held back, through another.
            let behind =
                spawn!((|(): &(), x: &mut Vec<i64>| x.push(1))(&held, InOut(&chunk)); name = "behind");
            let errors = [
                chunk.read().await.map(drop),
                chunk.write().await.map(drop),
                access((In(&chunk),)).await.map(drop),
                frozen.run().await,
                held.clone().await,
            ];
            drop(behind);
            (held, errors)
        })
        .await;
        for error in errors {
            let error = error.unwrap_err();
            assert!(matches!(error, Error::Deadlock { .. }), "{error:?}");
            let text = error.to_string();
            assert!(
                text.contains("`held`") && text.ends_with("the end of the `bulk` block that this wait is in"),
                "{text}"
            );
        }
        task.await.unwrap();
        assert_eq!(*chunk.read().await.unwrap(), [2, 2, 1]);
    };
    on_all_workers(move |_| async move {
        block().await;
        spawn(block()).await.unwrap();
    });
}

#[test]
fn a_block_owns_the_tasks_of_a_bulk_inside() {
    everywhere(|_rt| async {
        let chunk = numbers(2);
        let tasks = datadeps(async {
            bulk(async { (0..20).map(|_| spawn!(add(InOut(&chunk.slice(..)), 1))).collect::<Vec<_>>() }).await
        })
        .await
        .unwrap();
        assert!(tasks.iter().all(DTask::is_finished));
        assert_eq!(*chunk.read().await.unwrap(), [20; 2]);
        // One that is dropped midway cancels its tasks, which fails the block.
        let error = datadeps(async {
            let mut held = Box::pin(bulk(async {
                spawn!((|| ())());
                pending::<()>().await;
            }));
            assert!(poll!(&mut held).is_pending());
        })
        .await
        .unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
    });
}

#[test]
fn options_around_a_block_and_inside_it_reach_its_tasks() {
    everywhere(|rt| async move {
        let last = rt.processors().len() - 1;
        let here = || (current().unwrap().name().to_owned(), current().unwrap().processor().thread);
        let token = CancelToken::new();
        let options =
            Options::new().name("from around").scope(Scope::thread(last)).priority(3).cancel(token.clone());
        let (around, inline, inside) = with_options(
            options.clone(),
            datadeps(async {
                let around = spawn!((here)());
                let inline = spawn!((here)(); name = "inline");
                let inside = with_options(Options::new().name("inner"), async { spawn!((here)()) }).await;
                (around.await, inline.await, inside.await)
            }),
        )
        .await
        .unwrap();
        assert_eq!(around.unwrap(), ("from around".to_owned(), last));
        assert_eq!(inline.unwrap(), ("inline".to_owned(), last));
        assert_eq!(inside.unwrap(), ("inner".to_owned(), last));
        let go = Gate::new();
        let mut block = Box::pin(with_options(
            options,
            datadeps(async {
                spawn!(async pass(go.clone()));
                spawn(async { spawn(pending::<()>()).await })
            }),
        ));
        assert!(poll!(&mut block).is_pending());
        token.cancel();
        let error = block.await.map(drop).unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
        assert_eq!(error.root().unwrap().name(), "from around");
    });
}

/// All of one worker, while it is busy: then the order in which tasks start is that of their priorities.
#[test]
fn priority_around_a_block_reaches_its_tasks() {
    on_workers(1, |_rt| async {
        let (started, go, order) = (Gate::new(), Gate::new(), Arc::new(Mutex::new(Vec::new())));
        let (is_started, may_end) = (started.clone(), go.clone());
        spawn!((move || {
            is_started.open();
            may_end.block();
        })());
        started.pass().await;
        let note = |what: &'static str| {
            let order = order.clone();
            move || order.lock().unwrap().push(what)
        };
        let (low, high) = (note("low"), note("high"));
        let low = with_options(Options::new().priority(-5), datadeps(async { spawn!((low)()) }));
        let high = with_options(Options::new().priority(5), datadeps(async { spawn!((high)()) }));
        let (mut low, mut high) = (Box::pin(low), Box::pin(high));
        assert!(poll!(&mut low).is_pending() && poll!(&mut high).is_pending());
        go.open();
        low.await.unwrap();
        high.await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["high", "low"]);
    });
}

#[test]
fn linear_runs_each_task_of_a_block_after_the_one_before() {
    everywhere(|_rt| async {
        for _ in 0..5 {
            let diary = Diary::default();
            let error = with_options(
                Options::new().linear(),
                datadeps(async {
                    for i in 0..50 {
                        diary.spawn(i);
                        if i % 7 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                }),
            )
            .await
            .unwrap_err();
            // The failed ones hold nobody up.
            assert!(matches!(error, Error::Panicked { .. }));
            assert_eq!(error.others().len(), 15);
            diary.assert_one_after_another(50);
        }
    });
}

#[test]
fn inline_runs_each_task_where_it_is_spawned_before_spawn_returns() {
    everywhere(|_rt| async {
        let thread = || std::thread::current().id();
        let chunk = numbers(3);
        with_options(
            Options::new().inline(),
            datadeps(async {
                for i in 1..20 {
                    let here = thread();
                    let task = spawn!((move |x: &mut [i64]| {
                        add(x, 1);
                        thread()
                    })(InOut(&chunk.slice(..))));
                    assert!(task.is_finished());
                    assert_eq!(task.clone().now_or_never().unwrap().unwrap(), here);
                    // An async body runs on a worker, but has ended all the same.
                    let task = spawn(async move {
                        tokio::task::yield_now().await;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        ready(i).await
                    });
                    assert!(task.is_finished());
                    assert_eq!(task.now_or_never().unwrap().unwrap(), i);
                    let task = spawn!(async (|x: i64| async move { x })(spawn!(sum(In(&chunk.slice(..))))));
                    assert_eq!(task.now_or_never().unwrap().unwrap(), 3 * i);
                    tokio::task::yield_now().await;
                }
            }),
        )
        .await
        .unwrap();
        // Failures are those of tasks all the same.
        let error = with_options(
            Options::new().inline(),
            datadeps(async {
                let bad = spawn!(no_luck("x")?; name = "bad");
                assert!(bad.is_finished());
                spawn!((|| -> () { panic!("y") })(); name = "worse");
                spawn!((|(): ()| ())(bad));
                let child = spawn(async { spawn!((|| 4)()).await.unwrap() });
                assert_eq!(child.now_or_never().unwrap().unwrap(), 4);
            }),
        )
        .await
        .unwrap_err();
        assert_eq!(error.root().unwrap().name(), "bad");
        assert_eq!(names(error.others()), ["worse"]);
    });
}

#[test]
fn no_worker_takes_an_inline_task_from_the_thread_that_spawns_it() {
    everywhere(|_rt| async {
        with_options(Options::new().inline(), async {
            for _ in 0..2000 {
                let thread = || std::thread::current().id();
                let here = thread();
                assert_eq!(spawn!((thread)()).now_or_never().unwrap().unwrap(), here);
            }
        })
        .await;
    });
}

#[test]
fn an_inline_task_waits_for_accesses_of_other_blocks() {
    everywhere(|_rt| async {
        let (chunk, started, go) = (numbers(3), Gate::new(), Gate::new());
        let before = spawn!(async pass_then_add(InOut(&chunk.slice(..)), started.clone(), go.clone()));
        started.pass().await;
        let opener = {
            let go = go.clone();
            std::thread::spawn(move || go.open())
        };
        let now = with_options(Options::new().inline(), async { spawn!(sum(In(&chunk.slice(..)))) }).await;
        assert!(now.is_finished());
        assert_eq!(now.await.unwrap(), 3);
        before.await.unwrap();
        opener.join().unwrap();
    });
}

// What it contains.

#[test]
fn children_of_tasks_and_spawns_of_tokio_tasks_are_not_contained() {
    everywhere(|rt| async move {
        let go = Gate::new();
        let (child, other) = datadeps(async {
            let gate = go.clone();
            let parent = spawn!((move || {
                spawn!((|| no_luck("child"))()?);
                spawn!(async pass(gate))
            })());
            let (gate, rt) = (go.clone(), rt.clone());
            let other = tokio::spawn(async move {
                rt.run(async {
                    drop(spawn!((|| no_luck("other"))()?));
                    spawn!(async pass(gate))
                })
                .await
            });
            (parent.await.unwrap(), other.await.unwrap())
        })
        .await
        .unwrap();
        assert!(!child.is_finished() && !other.is_finished());
        go.open();
        child.await.unwrap();
        other.await.unwrap();
    });
}

#[test]
fn spawns_under_join_and_select_and_in_streams_are_contained() {
    everywhere(|_rt| async {
        let (chunk, ended) = (numbers(4), Arc::new(AtomicUsize::new(0)));
        datadeps(async {
            let later = || async {
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                    let ended = ended.clone();
                    spawn(async move {
                        tokio::task::yield_now().await;
                        ended.fetch_add(1, SeqCst);
                    });
                    spawn!(add(InOut(&chunk.slice(..)), 1));
                }
            };
            tokio::join!(later(), later(), async {
                datadeps(later()).await.unwrap();
            });
            futures::join!(later(), later());
            tokio::select! {
                () = later() => {}
                () = pending() => {}
            }
            let mut stream: FuturesUnordered<_> = (0..2).map(|_| later()).collect();
            while stream.next().await.is_some() {}
            join_all((0..2).map(|_| later())).await;
        })
        .await
        .unwrap();
        assert_eq!(ended.load(SeqCst), 50);
        assert_eq!(chunk.read().now_or_never().unwrap().unwrap()[..], [50; 4]);
    });
}

#[test]
fn blocks_polled_in_turn_on_one_thread_keep_their_tasks_apart() {
    everywhere(|_rt| async {
        let (left, right) = tokio::join!(
            datadeps(async {
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                    spawn!((|| ())());
                }
            }),
            datadeps(async {
                for i in 0..20 {
                    tokio::task::yield_now().await;
                    spawn!((move || if i == 11 { no_luck("right") } else { Ok(()) })()?; name = i.to_string());
                }
            })
        );
        left.unwrap();
        assert_eq!(right.unwrap_err().root().unwrap().name(), "11");
    });
}

#[test]
fn the_body_is_neither_send_nor_static() {
    on_all_workers(|rt| async move {
        let mut local = vec![1i64, 2];
        let shared = Rc::new(std::cell::Cell::new(0));
        let chunk = numbers(2);
        datadeps(async {
            for i in 0..10 {
                let task = spawn!((|x: &mut [i64], v: i64| {
                    add(x, v);
                    v
                })(InOut(&chunk.slice(..)), i));
                let shared = shared.clone();
                shared.set(shared.get() + task.await.unwrap());
                local.push(shared.get());
            }
        })
        .await
        .unwrap();
        assert_eq!((local.len(), shared.get()), (12, 45));
        let _ = rt;
    });
    watched(|| {
        let rt = runtime(2);
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let set = tokio::task::LocalSet::new();
        let shared = Rc::new(std::cell::Cell::new(0));
        let seen = shared.clone();
        set.spawn_local(async move {
            let given = rt.run(datadeps(async {
                let task = spawn!((|| 3)());
                tokio::task::yield_now().await;
                shared.set(task.await.unwrap());
            }));
            given.await.unwrap();
        });
        tokio.block_on(set);
        assert_eq!(seen.get(), 3);
    });
}

#[test]
fn a_task_of_a_block_may_be_awaited_inside_and_outside_and_by_another_block() {
    everywhere(|_rt| async {
        let go = Gate::new();
        let (left, right) = (Arc::new(Mutex::new(None)), Gate::new());
        let kept = left.clone();
        let first = datadeps(async {
            let gate = go.clone();
            let task = spawn(async move {
                gate.pass().await;
                5
            });
            *kept.lock().unwrap() = Some(task.clone());
            right.open();
            task.await.unwrap()
        });
        let second = datadeps(async {
            right.pass().await;
            let task = left.lock().unwrap().clone().unwrap();
            let next = spawn!((|x: i32| x + 1)(task));
            go.open();
            next.await.unwrap()
        });
        let (first, second) = tokio::join!(first, second);
        assert_eq!((first.unwrap(), second.unwrap()), (5, 6));
    });
}

#[test]
fn a_cycle_through_an_early_task_of_a_block_is_found_behind_many_later_ones() {
    on_all_workers(|_| async {
        let (send, receive) = tokio::sync::oneshot::channel::<DTask<bool>>();
        let (gate, begun) = (Gate::new(), Gate::new());
        let (held, waits) = (gate.clone(), begun.clone());
        let outer = spawn(async move {
            let block = datadeps(async {
                spawn(async move {
                    let outer = receive.await.unwrap();
                    waits.open();
                    matches!(outer.await, Err(Error::Deadlock { .. }))
                });
                // Its end waits for the latest of these first.
                for _ in 0..500 {
                    let held = held.clone();
                    spawn(async move { held.pass().await });
                }
            });
            block.await.is_err()
        });
        send.send(outer.clone()).unwrap();
        begun.pass().await;
        gate.open();
        // One of the two is told, and both end.
        outer.await.unwrap();
    });
}

#[test]
fn a_block_ends_when_its_last_task_has_whichever_that_is() {
    on_all_workers(|_| async {
        for late in [0, 1, 100, 699] {
            let (gate, ended) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
            let mut block = Box::pin(datadeps(async {
                for at in 0..700 {
                    let (gate, ended) = (gate.clone(), ended.clone());
                    spawn(async move {
                        if at % 100 == late % 100 && at <= late {
                            gate.pass().await;
                        }
                        ended.fetch_add(1, SeqCst);
                    });
                }
            }));
            assert!(futures::poll!(&mut block).is_pending());
            gate.open();
            block.await.unwrap();
            assert_eq!(ended.load(SeqCst), 700);
        }
    });
}

#[test]
fn of_many_failures_the_earliest_are_kept_also_one_that_comes_last() {
    fn fails(at: usize) -> Result<(), std::io::Error> {
        Err(std::io::Error::other(at.to_string()))
    }
    on_all_workers(|_| async {
        let gate = Gate::new();
        let held = gate.clone();
        let error = datadeps(async {
            try_spawn(async move {
                held.pass().await;
                fails(0)
            });
            let mut last = None;
            for at in 1..3000 {
                last = Some(spawn!(fails(at)?));
            }
            last.unwrap().wait().await;
            gate.open();
        })
        .await
        .unwrap_err();
        let number =
            |error: &Error| error.downcast_ref::<std::io::Error>().unwrap().to_string().parse().unwrap();
        let numbers: Vec<usize> = [&error].into_iter().chain(error.others()).map(number).collect();
        // It has made the last one of those that were kept give way.
        assert_eq!(numbers, (0..1024).collect::<Vec<_>>());
    });
}

#[test]
fn a_cycle_through_an_early_task_that_the_later_ones_wait_for_is_found() {
    on_all_workers(|_| async {
        let (tell, told) = tokio::sync::oneshot::channel::<DTask<bool>>();
        let (send, _) = tokio::sync::broadcast::channel::<()>(4);
        let early = send.clone();
        let outer = spawn(async move {
            let is_told = datadeps(async {
                let is_told = try_spawn(async move {
                    let outer = told.await.unwrap();
                    let is_told = matches!(outer.await, Err(Error::Deadlock { .. }));
                    early.send(()).unwrap();
                    Ok::<_, std::io::Error>(is_told)
                });
                for _ in 0..300 {
                    let mut received = send.subscribe();
                    spawn(async move { received.recv().await.unwrap() });
                }
                is_told
            })
            .await;
            // Either the early task was told, or the end of the block.
            match is_told {
                Ok(is_told) => is_told.await.unwrap(),
                Err(error) => matches!(error, Error::Deadlock { .. }),
            }
        });
        tell.send(outer.clone()).unwrap();
        assert!(outer.await.unwrap());
    });
}

/// As many accesses as a call has arguments, in orders of their own: those of one task are granted together or not at all.
#[test]
fn tasks_with_many_accesses_that_come_from_all_sides_do_not_overlap() {
    fn eight([a, b, c, d]: [&mut u64; 4], [e, f, g, h]: [&mut u64; 4]) {
        for x in [a, b, c, d, e, f, g, h] {
            *x += 1;
        }
    }
    #[expect(clippy::too_many_arguments, reason = "that is the test")]
    fn twelve(
        a: &mut u64,
        b: &mut u64,
        c: &mut u64,
        d: &mut u64,
        e: &mut u64,
        f: &mut u64,
        g: &mut u64,
        h: &mut u64,
        i: &mut u64,
        j: &mut u64,
        k: &mut u64,
        l: &mut u64,
    ) {
        eight([a, b, c, d], [e, f, g, h]);
        eight([i, j, k, l], [&mut 0, &mut 0, &mut 0, &mut 0]);
    }
    const TASKS: usize = 200;
    on_workers(3, |_rt| async {
        let chunks: Arc<Vec<Chunk<u64>>> = Arc::new((0..12).map(|_| Chunk::new(0)).collect());
        let spawners = (0..4).map(|spawner| {
            let chunks = chunks.clone();
            spawn(async move {
                datadeps(async {
                    for task in 0..TASKS {
                        // Upwards, downwards, and by sevens.
                        let c = |at: usize| match (task + spawner) % 3 {
                            0 => &chunks[at],
                            1 => &chunks[11 - at],
                            _ => &chunks[(at * 7 + task) % 12],
                        };
                        let all = InOut;
                        spawn!(twelve(
                            all(c(0)),
                            all(c(1)),
                            all(c(2)),
                            all(c(3)),
                            all(c(4)),
                            all(c(5)),
                            all(c(6)),
                            all(c(7)),
                            all(c(8)),
                            all(c(9)),
                            all(c(10)),
                            all(c(11))
                        ));
                    }
                })
                .await
            })
        });
        for block in wait_all(spawners.collect::<Vec<_>>()).await {
            block.unwrap().unwrap();
        }
        for chunk in chunks.iter() {
            assert_eq!(*chunk.read().await.unwrap(), 4 * TASKS as u64);
        }
    });
}
