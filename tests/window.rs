//! The window of unfinished tasks: who waits for room, who never does, and what memory a block of many tasks takes.

use dagger_async::prelude::*;
use dagger_tests::{Gate, watched};
use futures::executor::block_on;
use futures::poll;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

fn runtime(workers: usize, window: usize) -> Runtime {
    Runtime::builder().threads(workers).pin(false).window(window).build().unwrap()
}

/// Counts the tasks that have ended.
#[derive(Clone, Default)]
struct Ended(Arc<AtomicUsize>);

impl Ended {
    fn note(&self) {
        self.0.fetch_add(1, SeqCst);
    }
    fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// Where a thread that is no worker spawns: it waits in both.
#[derive(Clone, Copy, Debug)]
enum Into {
    Block,
    Chunk,
}

// A thread that is no worker.

/// A wait in which nothing ends is over after a tenth of a second, since a body may wait for the very thread that spawns.
const PATIENCE: Duration = Duration::from_millis(100);

#[test]
fn a_spawn_into_a_full_window_waits_for_a_task_to_end() {
    for into in [Into::Block, Into::Chunk] {
        for workers in [1, 2, 8] {
            for _ in 0..10 {
                watched(move || {
                    let rt = runtime(workers, 10);
                    let (chunk, ended, spawned) = (Chunk::new(0u64), Ended::default(), Ended::default());
                    let (started, go) = (Gate::new(), Gate::new());
                    let opener = {
                        let (spawned, started, go) = (spawned.clone(), started.clone(), go.clone());
                        std::thread::spawn(move || {
                            started.block();
                            while spawned.count() < 9 {
                                std::thread::yield_now();
                            }
                            // Time for a tenth and eleventh spawn that would not wait.
                            (0..50).for_each(|_| std::thread::yield_now());
                            go.open();
                        })
                    };
                    let spawn_one = |at: usize| {
                        let (ended, started, go) = (ended.clone(), started.clone(), go.clone());
                        let body = move |x: &mut u64| {
                            if at == 0 {
                                started.open();
                                go.block();
                            }
                            *x += 1;
                            ended.note();
                        };
                        spawn!((body)(InOut(&chunk)))
                    };
                    rt.block_on(async {
                        let spawn_all = async {
                            spawn_one(0);
                            started.pass().await;
                            for at in 1..9 {
                                spawned.note();
                                spawn_one(at);
                            }
                            spawned.note();
                            let start = Instant::now();
                            spawn_one(9);
                            spawn_one(10);
                            assert!(
                                ended.count() > 0 || start.elapsed() >= PATIENCE * 9 / 10,
                                "eleven are unfinished in a window of ten after {:?}",
                                start.elapsed()
                            );
                        };
                        match into {
                            Into::Block => datadeps(spawn_all).await.unwrap(),
                            Into::Chunk => spawn_all.await,
                        }
                    });
                    opener.join().unwrap();
                    assert_eq!(*block_on(chunk.into_inner()).as_ref().unwrap(), 11);
                });
            }
        }
    }
}

#[test]
fn a_block_of_many_tasks_keeps_few_of_them_unfinished() {
    for workers in [1, 2, 8] {
        watched(move || {
            let rt = runtime(workers, 32);
            let (chunk, ended) = (Chunk::new(0u64), Ended::default());
            let most = rt.block_on(async {
                let mut most = 0;
                datadeps(async {
                    for spawned in 1..=20_000 {
                        let ended_one = ended.clone();
                        spawn!((move |x: &mut u64| {
                            *x += 1;
                            ended_one.note();
                        })(InOut(&chunk)));
                        most = most.max(spawned - ended.count());
                    }
                })
                .await
                .unwrap();
                most
            });
            assert!(most <= 64, "{most} were unfinished in a window of 32");
            assert_eq!(block_on(chunk.into_inner()).unwrap(), 20_000);
        });
    }
}

#[test]
fn a_spawn_outside_of_blocks_and_chunks_waits_for_nothing() {
    watched(|| {
        let rt = runtime(1, 4);
        let (started, go, ended) = (Gate::new(), Gate::new(), Ended::default());
        rt.block_on(async {
            let (is_started, may_end) = (started.clone(), go.clone());
            spawn!((move || {
                is_started.open();
                may_end.block();
            })());
            started.pass().await;
            for _ in 0..2000 {
                let ended = ended.clone();
                spawn!((move || ended.note())());
            }
            assert_eq!(ended.count(), 0);
            go.open();
            rt.idle().await;
            assert_eq!(ended.count(), 2000);
        });
    });
}

// What is left waits for the one that spawns: the window grows.

/// Everything of this many tasks would take minutes if each spawn had to lose its patience.
const MANY: usize = 2000;

fn on_a_current_thread<F: Future>(rt: &Runtime, future: F) -> F::Output {
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let set = tokio::task::LocalSet::new();
    set.block_on(&tokio, rt.run(future))
}

#[test]
fn tasks_that_wait_for_the_callers_own_timer_do_not_hold_it_up() {
    for workers in [1, 2, 8] {
        watched(move || {
            let rt = runtime(workers, 4);
            let count = on_a_current_thread(&rt, async {
                let (tell, told) = tokio::sync::watch::channel(false);
                // Driven by the caller's thread, as its timer is.
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    tell.send(true).unwrap();
                });
                datadeps(async {
                    let tasks: Vec<_> = (0..MANY)
                        .map(|_| {
                            let mut told = told.clone();
                            spawn(async move { told.wait_for(|told| *told).await.is_ok() })
                        })
                        .collect();
                    wait_all(tasks).await.into_iter().filter(|told| *told.as_ref().unwrap()).count()
                })
                .await
            });
            assert_eq!(count.unwrap(), MANY);
        });
    }
}

#[test]
fn tasks_that_wait_for_the_callers_channels_do_not_hold_it_up() {
    for workers in [1, 2, 8] {
        watched(move || {
            let rt = runtime(workers, 4);
            on_a_current_thread(&rt, async {
                let total = Chunk::new(0usize);
                datadeps(async {
                    let senders: Vec<oneshot::Sender<usize>> = (0..MANY)
                        .map(|_| {
                            let (send, receive) = oneshot::channel();
                            let number = async { receive.await.unwrap() };
                            spawn!((|x: &mut usize, number: usize| *x += number)(
                                InOut(&total),
                                Await(number)
                            ));
                            send
                        })
                        .collect();
                    senders.into_iter().for_each(|send| send.send(2).unwrap());
                })
                .await
                .unwrap();
                assert_eq!(*total.read().await.unwrap(), 2 * MANY);
            });
        });
    }
}

#[test]
fn tasks_that_wait_for_a_guard_of_the_caller_do_not_hold_it_up() {
    for workers in [1, 2, 8] {
        watched(move || {
            let rt = runtime(workers, 4);
            rt.block_on(async {
                let total = Chunk::new(0usize);
                let guard = total.write().await.unwrap();
                datadeps(async {
                    for _ in 0..MANY {
                        spawn!((|x: &mut usize| *x += 1)(InOut(&total)));
                    }
                    drop(guard);
                })
                .await
                .unwrap();
                assert_eq!(*total.read().await.unwrap(), MANY);
            });
        });
    }
}

/// Nobody can see that the body waits for the one that spawns; patience ends the wait.
#[test]
fn a_body_that_blocks_until_the_caller_has_spawned_more_does_not_hold_it_up_for_ever() {
    watched(|| {
        let rt = runtime(1, 4);
        let go = Gate::new();
        rt.block_on(async {
            datadeps(async {
                for at in 0..10 {
                    let go = go.clone();
                    spawn!((move || if at == 0 {
                        go.block()
                    })());
                }
                go.open();
            })
            .await
            .unwrap();
        });
    });
}

// Workers.

#[test]
fn a_worker_never_waits_for_room() {
    for blocking in [false, true] {
        watched(move || {
            let rt = runtime(1, 4);
            let (chunk, ended) = (Chunk::new(0usize), Ended::default());
            let seen = rt.block_on(async {
                let (chunk, ended) = (chunk.clone(), ended.clone());
                let body = move || {
                    let spawn_all = async {
                        for _ in 0..MANY {
                            let ended = ended.clone();
                            spawn!((move |x: &mut usize| {
                                *x += 1;
                                ended.note();
                            })(InOut(&chunk)));
                        }
                        ended.count()
                    };
                    let mut block = std::pin::pin!(datadeps(spawn_all));
                    // Polled once: the spawns are made, the block is not awaited.
                    let first = futures::FutureExt::now_or_never(&mut block);
                    let seen = ended.count();
                    drop(first);
                    seen
                };
                spawn!((body)(); blocking = blocking).await.unwrap()
            });
            if !blocking {
                assert_eq!(seen, 0, "the only worker was busy, yet something ended");
            }
        });
    }
}

#[test]
fn room_waits_while_the_window_is_full_and_something_runs() {
    watched(|| {
        let rt = runtime(1, 3);
        rt.block_on(async {
            room().await;
            let (started, go) = (Gate::new(), Gate::new());
            let (is_started, may_end) = (started.clone(), go.clone());
            spawn!((move || {
                is_started.open();
                may_end.block();
            })());
            started.pass().await;
            room().await;
            spawn!((|| ())());
            room().await;
            spawn!((|| ())());
            let mut full = room();
            let mut given_up = room();
            assert!(poll!(&mut full).is_pending() && poll!(&mut given_up).is_pending());
            drop(given_up);
            go.open();
            full.await;
            room().await;
        });
    });
}

#[test]
fn room_inside_a_task_keeps_few_tasks_unfinished() {
    for workers in [1, 2, 8] {
        watched(move || {
            let rt = runtime(workers, 32);
            let (chunk, ended) = (Chunk::new(0u64), Ended::default());
            let (inside, count) = (chunk.clone(), ended.clone());
            let task = rt.block_on(async move {
                spawn(async move {
                    let mut most = 0;
                    datadeps(async {
                        for spawned in 1..=20_000 {
                            room().await;
                            let ended = count.clone();
                            spawn!((move |x: &mut u64| {
                                *x += 1;
                                ended.note();
                            })(InOut(&inside)));
                            most = most.max(spawned - count.count());
                        }
                    })
                    .await
                    .unwrap();
                    most
                })
                .await
            });
            let most = task.unwrap();
            assert!(most <= 64, "{most} were unfinished in a window of 32");
            assert_eq!(block_on(chunk.into_inner()).unwrap(), 20_000);
        });
    }
}

#[test]
fn many_tasks_may_wait_for_room_in_a_window_smaller_than_they_are() {
    for workers in [1, 2, 8] {
        for window in [1, 4] {
            watched(move || {
                let rt = runtime(workers, window);
                let chunk = Chunk::new(0u64);
                let tasks: Vec<_> = rt.block_on(async {
                    (0..20)
                        .map(|_| {
                            let chunk = chunk.clone();
                            spawn(async move {
                                for at in 0..50 {
                                    room().await;
                                    spawn!((|x: &mut u64| *x += 1)(InOut(&chunk)));
                                    if at % 10 == 0 {
                                        // One that gives up must not take another's turn.
                                        tokio::select! {
                                            biased;
                                            () = room() => {}
                                            () = tokio::task::yield_now() => {}
                                        }
                                    }
                                }
                            })
                        })
                        .collect()
                });
                for task in tasks {
                    task.blocking_wait().unwrap();
                }
                rt.block_on(rt.idle());
                assert_eq!(block_on(chunk.into_inner()).unwrap(), 1000);
            });
        }
    }
}

#[test]
fn room_returns_when_all_that_is_left_waits_for_the_caller() {
    for workers in [1, 2, 8] {
        watched(move || {
            let rt = runtime(workers, 4);
            rt.block_on(async {
                let mut senders = Vec::new();
                let total = Chunk::new(0usize);
                datadeps(async {
                    for _ in 0..MANY {
                        room().await;
                        let (send, receive) = oneshot::channel::<usize>();
                        let number = async { receive.await.unwrap() };
                        spawn!((|x: &mut usize, number: usize| *x += number)(InOut(&total), Await(number)));
                        senders.push(send);
                    }
                    senders.into_iter().for_each(|send| send.send(1).unwrap());
                })
                .await
                .unwrap();
                assert_eq!(*total.read().await.unwrap(), MANY);
            });
        });
    }
}

#[test]
fn several_threads_may_wait_for_room_at_once() {
    watched(|| {
        let rt = Arc::new(runtime(2, 8));
        let chunk = Chunk::new(0u64);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (rt, chunk) = (rt.clone(), chunk.clone());
                std::thread::spawn(move || {
                    rt.block_on(datadeps(async {
                        for _ in 0..5000 {
                            spawn!((|x: &mut u64| *x += 1)(InOut(&chunk)));
                        }
                    }))
                    .unwrap();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(block_on(chunk.into_inner()).unwrap(), 20_000);
    });
}

// Memory.

const TASKS: &str = "DAGGER_TESTS_TASKS";
const SPAWNER: &str = "DAGGER_TESTS_SPAWNER";

/// The most memory that a process of its own takes for a block of so many tasks, in KiB.
fn peak_kib(test: &str, spawner: &str, tasks: u64) -> u64 {
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own)
        .args(["--exact", test, "--nocapture"])
        .env(TASKS, tasks.to_string())
        .env(SPAWNER, spawner)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().find_map(|line| line.split("peak KiB: ").nth(1));
    line.unwrap_or_else(|| panic!("no figure in {text}")).trim().parse().unwrap()
}

/// A block of so many tasks over a few chunks, and some without any.
async fn block_of(tasks: u64, awaits_room: bool) {
    let chunks: Vec<Chunk<u64>> = (0..8).map(|_| Chunk::new(0)).collect();
    datadeps(async {
        for i in 0..tasks {
            if awaits_room {
                room().await;
            }
            match i % 9 {
                8 => _ = spawn!((|i: u64| i)(i)),
                at => _ = spawn!((|x: &mut u64, i: u64| *x += i)(InOut(&chunks[at as usize]), i)),
            }
        }
    })
    .await
    .unwrap();
    let mut total = 0;
    for chunk in chunks {
        total += chunk.into_inner().await.unwrap();
    }
    let expected: u64 = (0..tasks).filter(|i| i % 9 != 8).sum();
    assert_eq!(total, expected);
}

fn memory_of_ten_times_as_many_tasks(test: &'static str, spawner: &'static str) {
    if let Ok(tasks) = std::env::var(TASKS) {
        let tasks: u64 = tasks.parse().unwrap();
        let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
        let start = Instant::now();
        match std::env::var(SPAWNER).as_deref() {
            Ok("outside") => rt.block_on(block_of(tasks, false)),
            _ => rt.block_on(async { spawn(block_of(tasks, true)).await.unwrap() }),
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        println!("\npeak KiB: {}", line.trim().trim_end_matches(" kB"));
        eprintln!("{tasks} tasks in {:?}", start.elapsed());
        return;
    }
    // A run of the release build takes seconds, one of the other minutes.
    let few = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let (small, large) = (peak_kib(test, spawner, few), peak_kib(test, spawner, 10 * few));
    println!("{few} tasks: {small} KiB, {} tasks: {large} KiB", 10 * few);
    assert!(
        large <= small + small / 10 + 8 * 1024,
        "{large} KiB for {} tasks, {small} KiB for {few}",
        10 * few
    );
}

#[test]
#[cfg(target_os = "linux")]
fn ten_times_as_many_tasks_of_a_block_outside_take_no_more_memory() {
    memory_of_ten_times_as_many_tasks(
        "ten_times_as_many_tasks_of_a_block_outside_take_no_more_memory",
        "outside",
    );
}

#[test]
#[cfg(target_os = "linux")]
fn ten_times_as_many_tasks_of_a_block_inside_a_task_take_no_more_memory() {
    memory_of_ten_times_as_many_tasks(
        "ten_times_as_many_tasks_of_a_block_inside_a_task_take_no_more_memory",
        "inside",
    );
}

#[test]
fn room_in_a_large_window_is_told_of_though_most_of_it_is_taken_and_something_runs() {
    for workers in [1, 2] {
        watched(move || {
            let rt = runtime(workers, 256);
            rt.block_on(async {
                spawn(async {
                    // 220 that wait for ever, and one body that runs all the time, beside the workers.
                    let (stop, mut waits) = (Gate::new(), Vec::new());
                    for _ in 0..220 {
                        let (open, gate) = tokio::sync::oneshot::channel::<()>();
                        waits.push(open);
                        spawn(async move { gate.await.is_ok() });
                    }
                    let stopped = stop.clone();
                    let runs = spawn!((move || stopped.block())(); blocking = true);
                    for n in 0..2000u64 {
                        room().await;
                        spawn!((|n: u64| n)(n));
                    }
                    stop.open();
                    drop(waits);
                    runs.await.unwrap();
                })
                .await
                .unwrap();
            });
        });
    }
}
