//! Tasks beside Tokio: under either flavour, with none, through its timers, sockets and channels, and in everything
//! that polls a future in its own way.
#![allow(
    clippy::unwrap_used,
    clippy::async_yields_async,
    reason = "helpers of tests; blocks that hand out handles"
)]

use dagger_async::prelude::*;
use futures::executor::block_on;
use futures::future::{join_all, select_all, try_join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Runs a test on a thread of its own and fails by its name when it hangs.
fn guarded(body: impl FnOnce() + Send + 'static) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let (done, ended) = mpsc::channel();
    let body = move || {
        body();
        let _ = done.send(());
    };
    let thread = std::thread::Builder::new().name(name.clone()).spawn(body).unwrap();
    if ended.recv_timeout(Duration::from_secs(120)) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("{name} hangs");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// For tests whose thread is Tokio's: ends the process, naming the test, if it is not dropped in time.
struct Watchdog(#[expect(dead_code, reason = "dropping it tells the watching thread")] mpsc::Sender<()>);

impl Watchdog {
    fn start() -> Self {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let (alive, gone) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if gone.recv_timeout(Duration::from_secs(120)) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{name} hangs");
                std::process::abort();
            }
        });
        Watchdog(alive)
    }
}

fn runtime(threads: usize) -> Runtime {
    Runtime::builder().threads(threads).pin(false).name("beside").build().unwrap()
}

fn tokio_current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn tokio_multi_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn square(x: i64) -> i64 {
    x * x
}

// What a program does with tasks; run under every flavour.

async fn echo_over_tcp() -> Vec<u8> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap()
    });
    let client = spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"there and back").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.unwrap();
        back
    });
    assert_eq!(server.await.unwrap(), 14);
    client.await.unwrap()
}

/// Everything of Tokio that tasks may use. Its tasks run on the current runtime's workers.
async fn program() {
    // Edges.
    let a = spawn!(square(4));
    let b = spawn!((|x: i64| x + 1)(a));
    assert_eq!(b.await.unwrap(), 17);
    // Timers.
    let slept = spawn(async {
        let start = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        start.elapsed()
    });
    assert!(slept.await.unwrap() >= Duration::from_millis(5));
    let late =
        spawn(tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>()).into_future());
    assert!(late.await.unwrap().is_err());
    let ticks = spawn(async {
        let mut interval = tokio::time::interval(Duration::from_millis(1));
        for _ in 0..3 {
            interval.tick().await;
        }
        3
    });
    assert_eq!(ticks.await.unwrap(), 3);
    // Sockets.
    assert_eq!(spawn(echo_over_tcp()).await.unwrap(), b"there and back");
    // Tokio's own tasks and blocking threads, from async bodies and from functions.
    let from_future = spawn(async { tokio::spawn(async { 5 }).await.unwrap() });
    assert_eq!(from_future.await.unwrap(), 5);
    let from_function = spawn!((|| tokio::spawn(async { 6 }))());
    assert_eq!(from_function.await.unwrap().await.unwrap(), 6);
    let from_handle = spawn!((|| tokio::runtime::Handle::current().spawn(async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        7
    }))());
    assert_eq!(from_handle.await.unwrap().await.unwrap(), 7);
    let blocking = spawn(async { tokio::task::spawn_blocking(|| 8).await.unwrap() });
    assert_eq!(blocking.await.unwrap(), 8);
    // A task awaited inside a Tokio task.
    let across = tokio::spawn(async { spawn!(square(3)).await.unwrap() });
    assert_eq!(across.await.unwrap(), 9);
    // Files.
    let path = std::env::temp_dir().join(format!(
        "dagger-tests-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let file = path.clone();
    let read = spawn(async move {
        tokio::fs::write(&file, "on disk").await.unwrap();
        tokio::fs::read_to_string(&file).await.unwrap()
    });
    let read = read.await;
    let _ = std::fs::remove_file(path);
    assert_eq!(read.unwrap(), "on disk");
    // Channels, between tasks and with the outside.
    let (give, mut take) = tokio::sync::mpsc::channel::<i32>(2);
    let producer = spawn(async move {
        for i in 0..50 {
            give.send(i).await.unwrap();
        }
    });
    let consumer = spawn(async move {
        let mut sum = 0;
        while let Some(i) = take.recv().await {
            sum += i;
        }
        sum
    });
    producer.await.unwrap();
    assert_eq!(consumer.await.unwrap(), 1225);
    let notify = Arc::new(tokio::sync::Notify::new());
    let waiting = spawn(notify.clone().notified_owned());
    notify.notify_one();
    waiting.await.unwrap();
    // An async callee, and a function that blocks on a task that needs the reactor.
    async fn later(x: &i64, ms: u64) -> i64 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        *x
    }
    let nine = spawn!(square(3));
    assert_eq!(spawn!(async later(&nine, 1)).await.unwrap(), 9);
    let blocked = spawn!((|| spawn(tokio::time::sleep(Duration::from_millis(1))).blocking_wait().is_ok())());
    assert!(blocked.await.unwrap());
}

#[tokio::test]
async fn a_program_runs_under_the_current_thread_flavour() {
    let _dog = Watchdog::start();
    program().await;
}

#[tokio::test]
async fn a_program_runs_under_the_current_thread_flavour_again() {
    // The default runtime has served another test, whose Tokio runtime is gone.
    let _dog = Watchdog::start();
    program().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_runs_under_the_multi_thread_flavour() {
    let _dog = Watchdog::start();
    program().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_program_runs_under_the_multi_thread_flavour_again() {
    let _dog = Watchdog::start();
    program().await;
}

#[test]
fn a_program_runs_on_a_runtime_of_its_own() {
    guarded(|| {
        for threads in [1, 2, 8] {
            let rt = runtime(threads);
            // `block_on` enters the Tokio context of the runtime: `program` itself uses Tokio outside tasks.
            rt.block_on(program());
            rt.block_on(async { spawn(program()).await.unwrap() });
            block_on(rt.shutdown());
        }
    });
}

#[test]
fn a_program_runs_in_a_task_where_there_is_no_tokio() {
    guarded(|| {
        block_on(async { spawn(program()).await.unwrap() });
        spawn(program()).blocking_wait().unwrap();
        assert_eq!(spawn!(square(6)).blocking_wait().unwrap(), 36);
        let thread =
            std::thread::spawn(|| spawn!((|x: i64| x + 1)(spawn!(square(2)))).blocking_wait().unwrap());
        assert_eq!(thread.join().unwrap(), 5);
        // As a local executor polls it.
        let mut pool = futures::executor::LocalPool::new();
        assert_eq!(pool.run_until(async { spawn!(square(7)).await }).unwrap(), 49);
    });
}

#[test]
fn the_default_runtime_outlives_the_tokio_runtime_of_its_first_user() {
    guarded(|| {
        for tokio_runtime in [tokio_current_thread, tokio_multi_thread] {
            let first = tokio_runtime();
            let task = first.block_on(async {
                spawn!(square(1)).await.unwrap();
                // Waits for a timer when its maker's Tokio runtime goes.
                spawn(async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    echo_over_tcp().await.len()
                })
            });
            drop(first);
            assert_eq!(task.blocking_wait().unwrap(), 14);
            tokio_runtime().block_on(program());
        }
    });
}

#[test]
fn run_works_under_every_executor() {
    guarded(|| {
        let rt = runtime(2);
        let on_worker = async || {
            spawn!((|| std::thread::current().name().unwrap_or_default().starts_with("beside-worker"))())
                .await
                .unwrap()
        };
        for tokio_runtime in [tokio_current_thread(), tokio_multi_thread()] {
            assert!(tokio_runtime.block_on(rt.run(on_worker())));
            tokio_runtime.block_on(async {
                let limited = tokio::time::timeout(Duration::from_secs(60), rt.run(on_worker())).await;
                assert!(limited.unwrap());
                tokio::select! {
                    ok = rt.run(on_worker()) => assert!(ok),
                    () = std::future::pending() => unreachable!(),
                }
                let late =
                    tokio::time::timeout(Duration::from_millis(1), rt.run(std::future::pending::<()>()))
                        .await;
                assert!(late.is_err());
                // Two at once, with another one's spawns in between.
                let other = runtime(1);
                let here = async {
                    for _ in 0..20 {
                        assert!(on_worker().await);
                        tokio::task::yield_now().await;
                    }
                };
                let there = async {
                    for _ in 0..20 {
                        let rt = other.run(async { spawn!(square(2)).await });
                        assert_eq!(rt.await.unwrap(), 4);
                        tokio::task::yield_now().await;
                    }
                };
                tokio::join!(rt.run(here), there);
            });
        }
        assert!(block_on(rt.run(on_worker())));
        assert!(rt.block_on(rt.run(on_worker())));
    });
}

#[test]
fn spawns_go_to_the_runtime_of_the_task_then_of_the_block_then_to_the_default() {
    guarded(|| {
        let thread = || std::thread::current().name().unwrap_or_default().to_owned();
        let rt = runtime(1);
        let (inside, nested) = rt.block_on(async {
            let inside = spawn!(thread()).await.unwrap();
            (inside, spawn(async move { spawn!(thread()).await.unwrap() }).await.unwrap())
        });
        assert!(inside.starts_with("beside-worker") && nested.starts_with("beside-worker"));
        assert!(spawn!(thread()).blocking_wait().unwrap().starts_with("dagger-"));
    });
}

#[test]
fn a_shared_tokio_handle_is_used() {
    guarded(|| {
        let tokio_runtime = tokio_multi_thread();
        let id = tokio_runtime.handle().id();
        let rt =
            Runtime::builder().threads(1).pin(false).tokio(tokio_runtime.handle().clone()).build().unwrap();
        let seen =
            rt.block_on(async { spawn!((|| tokio::runtime::Handle::current().id())()).await.unwrap() });
        assert_eq!(seen, id);
        let outside = rt.block_on(async { tokio::runtime::Handle::current().id() });
        assert_eq!(outside, id);
        rt.block_on(async { spawn(program()).await.unwrap() });
        // Our own timeouts need no driven handle.
        let undriven = tokio_current_thread();
        let rt = Runtime::builder().threads(1).pin(false).tokio(undriven.handle().clone()).build().unwrap();
        let task = rt.block_on(async {
            Options::new().timeout(Duration::from_millis(5)).spawn(std::future::pending::<()>())
        });
        assert!(matches!(task.blocking_wait(), Err(Error::TimedOut { .. })));
        drop(rt);
        drop(tokio_runtime);
    });
}

#[test]
fn a_shared_tokio_runtime_that_ends_first_costs_no_worker() {
    guarded(|| {
        let tokio_runtime = tokio_multi_thread();
        let rt =
            Runtime::builder().threads(1).pin(false).tokio(tokio_runtime.handle().clone()).build().unwrap();
        tokio_runtime.shutdown_background();
        // Timers of a runtime that is gone panic in Tokio: an error of that task.
        let _ =
            rt.block_on(async { spawn(tokio::time::sleep(Duration::from_millis(1))).wait().now_or_never() });
        assert_eq!(rt.block_on(async { spawn!(square(3)).await }).unwrap(), 9);
        block_on(rt.shutdown());
    });
}

// Blocking inside.

#[test]
fn block_on_nests_inside_a_task_of_the_only_worker() {
    guarded(|| {
        let rt = Arc::new(runtime(1));
        let inner = rt.clone();
        let value = rt.block_on(async {
            spawn!((move || {
                assert!(current().is_some());
                inner.block_on(async {
                    assert!(current().is_none(), "the future of `block_on` is no task");
                    let a = spawn!(square(3));
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    let nested = inner.clone();
                    let b = spawn!((move || nested.block_on(async { spawn!(square(4)).await.unwrap() }))());
                    a.await.unwrap() + b.await.unwrap()
                }) + i64::from(current().is_some())
            })())
            .await
        });
        assert_eq!(value.unwrap(), 26);
    });
}

#[test]
fn foreign_executors_block_inside_a_task_of_two_workers() {
    // Another executor's `block_on` gives no place away; the other worker goes on.
    guarded(|| {
        let rt = runtime(2);
        for _ in 0..50 {
            let value = rt.block_on(async {
                spawn!((|| block_on(async { spawn!(square(3)).await.unwrap() }))()).await.unwrap()
            });
            assert_eq!(value, 9);
        }
    });
}

#[test]
fn blocking_wait_in_a_blocking_body_and_in_an_async_body() {
    guarded(|| {
        let rt = runtime(1);
        rt.block_on(async {
            let beside = spawn!((|| spawn!(square(3)).blocking_wait().unwrap())(); blocking = true);
            assert_eq!(beside.await.unwrap(), 9);
            let inside = spawn(async {
                tokio::task::yield_now().await;
                let sleeping = spawn(tokio::time::sleep(Duration::from_millis(1)));
                sleeping.blocking_wait().unwrap();
                tokio::task::yield_now().await;
                spawn!(square(4)).blocking_wait().unwrap()
            });
            assert_eq!(inside.await.unwrap(), 16);
        });
    });
}

// What polls a handle in its own way.

#[test]
fn combinators_take_handles_unchanged() {
    guarded(|| {
        let rt = runtime(2);
        rt.block_on(async {
            let all = join_all((0..100).map(|i| spawn!(square(i)))).await;
            assert_eq!(all.into_iter().map(|x| x.unwrap()).sum::<i64>(), 328_350);
            let all = try_join_all((0..10).map(|i| spawn!(square(i)))).await.unwrap();
            assert_eq!(all.len(), 10);
            let (first, index, rest) = select_all((0..10).map(|i| spawn!(square(i)))).await;
            assert_eq!(first.unwrap(), square(index as i64));
            assert_eq!(rest.len(), 9);
            assert_eq!(wait_all(rest).await.len(), 9);

            let mut unordered: FuturesUnordered<_> = (0..200).map(|i| spawn!(square(i))).collect();
            let mut sum = 0;
            while let Some(x) = unordered.next().await {
                sum += x.unwrap();
            }
            assert_eq!(sum, 2_646_700);

            let slow = spawn(std::future::pending::<i64>());
            let fast = spawn!(square(5));
            tokio::select! {
                _ = slow => unreachable!(),
                x = fast => assert_eq!(x.unwrap(), 25),
            }
            let (mut slow, mut fast) = (spawn(std::future::pending::<i64>()), spawn!(square(5)));
            let chosen = futures::select! {
                x = (&mut slow).fuse() => x,
                x = (&mut fast).fuse() => x,
            };
            assert_eq!(chosen.unwrap(), 25);

            let mut slow = spawn(async {
                tokio::time::sleep(Duration::from_millis(30)).await;
                1
            });
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut slow).await.is_err());
            assert!(tokio::time::timeout(Duration::from_millis(1), slow.wait()).await.is_err());
            assert!(tokio::time::timeout(Duration::from_millis(1), (&slow).into_future()).await.is_err());
            assert_eq!(tokio::time::timeout(Duration::from_secs(60), slow).await.unwrap().unwrap(), 1);

            assert_eq!(wait_any::<i64>(&[]).await, None);
            let some =
                [spawn(std::future::pending::<i64>()), spawn!(square(2)), spawn(std::future::pending())];
            assert_eq!(wait_any(&some).await, Some(1));
            some.iter().for_each(DTask::cancel);
        });
    });
}

/// A waker that counts.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn count() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (count.clone(), Waker::from(count))
}

#[test]
fn the_waker_of_the_last_poll_is_woken() {
    guarded(|| {
        let rt = runtime(1);
        let (open, gate) = oneshot::channel::<i32>();
        let mut task = rt.block_on(async { try_spawn(gate) });
        let (first, first_waker) = count();
        let (last, last_waker) = count();
        assert!(task.poll_unpin(&mut Context::from_waker(&first_waker)).is_pending());
        for _ in 0..10 {
            assert!(task.poll_unpin(&mut Context::from_waker(&last_waker)).is_pending());
        }
        open.send(3).unwrap();
        while last.0.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        assert_eq!((first.0.load(SeqCst), last.0.load(SeqCst)), (0, 1));
        assert!(matches!(task.poll_unpin(&mut Context::from_waker(&last_waker)), Poll::Ready(Ok(3))));
        rt.block_on(rt.idle());
        assert_eq!(Arc::strong_count(&first) + Arc::strong_count(&last), 4, "a waker is kept for nothing");
    });
}

#[test]
fn a_handle_moves_between_tasks_and_threads_after_its_first_poll() {
    guarded(|| {
        let rt = runtime(2);
        for round in 0..200 {
            let (open, gate) = oneshot::channel::<u32>();
            let value = rt.block_on(async {
                let mut task = try_spawn(gate);
                assert!((&mut task).now_or_never().is_none());
                // Polled in one task, then in another, then outside.
                let mut task = spawn(async move {
                    assert!((&mut task).now_or_never().is_none());
                    Mutex::new(Some(task))
                })
                .await
                .unwrap()
                .into_inner()
                .unwrap()
                .unwrap();
                assert!((&mut task).now_or_never().is_none());
                let opener = spawn!((move || open.send(round).unwrap())());
                let value = match round % 3 {
                    0 => spawn(task).await.unwrap().unwrap(),
                    1 => task.await.unwrap(),
                    _ => tokio::task::spawn_blocking(|| task.blocking_wait().unwrap()).await.unwrap(),
                };
                opener.await.unwrap();
                value
            });
            assert_eq!(value, round);
        }
    });
}

#[test]
fn many_wait_for_one_task_and_some_give_up() {
    guarded(|| {
        let rt = runtime(2);
        for round in 0..100 {
            let (open, gate) = oneshot::channel::<u32>();
            rt.block_on(async {
                let task = try_spawn(gate);
                let waiting: Vec<_> = (0..20)
                    .map(|i| {
                        let task = task.clone();
                        spawn(async move {
                            match i % 4 {
                                0 => task.await.unwrap(),
                                1 => *(&task).await.unwrap(),
                                2 => {
                                    task.wait().await;
                                    task.await.unwrap()
                                }
                                _ => {
                                    let mut task = task;
                                    let _ = (&mut task).now_or_never();
                                    let _ = task.wait().now_or_never();
                                    round // Gives up.
                                }
                            }
                        })
                    })
                    .collect();
                open.send(round).unwrap();
                assert!(wait_all(waiting).await.into_iter().all(|x| x.unwrap() == round));
                assert_eq!(task.await.unwrap(), round);
            });
        }
    });
}

#[test]
fn spurious_polls_and_wakes_change_nothing() {
    /// Polls its future on each wake, and wakes itself for a while without reason.
    struct Restless<F>(F, u32);
    impl<F: Future + Unpin> Future for Restless<F> {
        type Output = F::Output;
        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
            if self.1 > 0 {
                self.1 -= 1;
                cx.waker().wake_by_ref();
            }
            self.0.poll_unpin(cx)
        }
    }
    guarded(|| {
        let rt = runtime(2);
        rt.block_on(async {
            for _ in 0..100 {
                let (open, gate) = oneshot::channel::<u32>();
                let task = try_spawn(gate);
                let restless = spawn(Restless(task.clone(), 50));
                let by_ref = spawn(async move {
                    let waits = Restless(pin!((&task).into_future()), 50);
                    *waits.await.unwrap()
                });
                tokio::task::yield_now().await;
                open.send(4).unwrap();
                assert_eq!((restless.await.unwrap().unwrap(), by_ref.await.unwrap()), (4, 4));
            }
        });
    });
}

#[test]
fn a_wait_that_was_given_up_closes_no_cycle() {
    // `outer` looks at `inner` once and gives that wait up; then it waits for a signal. `inner` waits for `outer`, which
    // is no deadlock: the signal comes.
    guarded(|| {
        let rt = runtime(2);
        for round in 0..50 {
            let (signal, signalled) = oneshot::channel::<i32>();
            let (hand, handed) = oneshot::channel::<DTask<i32>>();
            let (looked, has_looked) = oneshot::channel::<()>();
            let inner = rt.block_on(async {
                let inner = spawn(async move {
                    let outer = handed.await.unwrap();
                    has_looked.await.unwrap();
                    outer.await
                });
                let seen = inner.clone();
                let outer = spawn(async move {
                    match round % 3 {
                        0 => assert!(seen.wait().now_or_never().is_none()),
                        1 => assert!((&seen).into_future().now_or_never().is_none()),
                        _ => {
                            let mut seen = seen.clone();
                            assert!((&mut seen).now_or_never().is_none());
                        }
                    }
                    let _ = looked.send(());
                    signalled.await.unwrap()
                });
                assert!(hand.send(outer).is_ok());
                inner
            });
            // `inner` has asked for `outer` when it is suspended for good; nothing outside shows that, so let the
            // worker turn over a few times.
            for _ in 0..20 {
                rt.block_on(async { spawn!(square(1)).await }).unwrap();
            }
            signal.send(5).unwrap();
            let got = inner.blocking_wait().unwrap();
            assert!(matches!(got, Ok(5)), "round {round}: {got:?}");
        }
    });
}

#[test]
fn wakers_are_dropped_with_those_who_gave_up() {
    guarded(|| {
        let rt = runtime(1);
        let task = rt.block_on(async { spawn(std::future::pending::<()>()) });
        let (count, waker) = count();
        for _ in 0..1000 {
            let mut waits = [task.wait(), task.wait(), task.wait()];
            for wait in &mut waits {
                assert!(wait.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
            }
        }
        drop(waker);
        assert_eq!(Arc::strong_count(&count), 1, "wakers of waits that were given up are kept");
        task.cancel();
        assert_eq!(count.0.load(SeqCst), 0);
    });
}

#[test]
fn a_waker_that_panics_or_spawns_costs_nobody_else() {
    struct Rude(AtomicBool);
    impl Wake for Rude {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
            spawn!(square(2));
            panic!("in a waker");
        }
    }
    guarded(|| {
        let rt = runtime(1);
        for _ in 0..20 {
            let (open, gate) = oneshot::channel::<i32>();
            let task = rt.block_on(async { try_spawn(gate) });
            let rude = Arc::new(Rude(AtomicBool::new(false)));
            let waker = Waker::from(rude.clone());
            let mut waits = [task.wait(), task.wait()];
            assert!(waits[0].poll_unpin(&mut Context::from_waker(&waker)).is_pending());
            let (polite, polite_waker) = count();
            assert!(waits[1].poll_unpin(&mut Context::from_waker(&polite_waker)).is_pending());
            open.send(1).unwrap();
            while polite.0.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            assert!(rude.0.load(SeqCst));
            drop(waits);
            assert_eq!(task.blocking_wait().unwrap(), 1);
        }
        rt.block_on(rt.idle());
    });
}

#[test]
fn a_future_is_dropped_where_it_may_use_tokio() {
    // Timers and sockets leave their driver when they are dropped: also by a cancel, and at a shutdown.
    guarded(|| {
        let rt = runtime(1);
        let sleeping = || spawn(async { tokio::time::sleep(Duration::from_secs(3600)).await });
        let tasks: Vec<_> = rt.block_on(async { (0..100).map(|_| sleeping()).collect() });
        tasks.iter().step_by(2).for_each(DTask::cancel);
        block_on(rt.shutdown());
        for (i, task) in tasks.into_iter().enumerate() {
            let error = task.blocking_wait().unwrap_err();
            match i % 2 {
                0 => assert!(matches!(error, Error::Cancelled { .. }), "{error}"),
                _ => assert!(matches!(error, Error::Shutdown { .. }), "{error}"),
            }
        }
    });
}

// At rest.

/// The processor time of the threads whose name starts like this.
fn processor_time(prefix: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for thread in std::fs::read_dir("/proc/self/task").ok()? {
        let path = thread.ok()?.path();
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else { continue };
        if name.starts_with(prefix) {
            let times = std::fs::read_to_string(path.join("schedstat")).ok()?;
            total += Duration::from_nanos(times.split(' ').next()?.trim().parse().ok()?);
        }
    }
    Some(total)
}

#[test]
fn an_idle_runtime_uses_no_processor() {
    guarded(|| {
        let rt = Runtime::builder().threads(4).pin(false).name("quiet").build().unwrap();
        rt.block_on(async {
            for _ in 0..100 {
                spawn!(square(1)).await.unwrap();
            }
            spawn!((|| ())(); blocking = true).await.unwrap();
            spawn!((|| spawn(tokio::time::sleep(Duration::from_millis(1))).blocking_wait())())
                .await
                .unwrap()
                .unwrap();
        });
        // A task that waits for a timer that is far away is idleness, too.
        let waiting = rt.block_on(async { spawn(tokio::time::sleep(Duration::from_secs(3600))) });
        rt.block_on(async { spawn!(square(1)).await }).unwrap();
        let Some(before) = processor_time("quiet") else { return };
        assert!(before > Duration::ZERO, "the threads are not found by their names");
        std::thread::sleep(Duration::from_secs(1)); // The subject is what happens in this second.
        let used = processor_time("quiet").unwrap() - before;
        assert!(used < Duration::from_millis(20), "{used:?} in a second without work");
        waiting.cancel();
    });
}

#[test]
fn workers_beside_one_that_goes_one_by_one_rest() {
    // Each task is spawned and awaited at once: there is never anything for the others, however long it takes.
    for length in [Duration::ZERO, Duration::from_micros(20)] {
        guarded(move || rest_beside_tasks_of(length));
    }
}

fn rest_beside_tasks_of(length: Duration) {
    let rt = Runtime::builder().threads(4).pin(false).name("single").build().unwrap();
    let body = move || {
        let since = std::time::Instant::now();
        while !length.is_zero() && since.elapsed() < length {
            std::hint::spin_loop();
        }
    };
    let used = rt.block_on(async {
        spawn(async move {
            let beginning = std::time::Instant::now();
            while beginning.elapsed() < Duration::from_millis(100) {
                spawn!(body()).await.unwrap();
            }
            let before = processor_time("single");
            let since = std::time::Instant::now();
            while since.elapsed() < Duration::from_millis(500) {
                for _ in 0..100 {
                    spawn!(body()).await.unwrap();
                }
            }
            before.and_then(|before| Some((processor_time("single")? - before, since.elapsed())))
        })
        .await
        .unwrap()
    });
    let Some((used, wall)) = used else { return };
    assert!(
        used < wall.mul_f64(1.4),
        "{used:?} of processor time in {wall:?}, tasks of {length:?}: one worker has work"
    );
}
