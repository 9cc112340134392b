//! How a runtime ends: what is waited for, what ends with `Shutdown`, and what may still be used afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::async_yields_async,
    reason = "helpers of tests; blocks that hand out handles"
)]

use dagger_async::prelude::*;
use futures::FutureExt;
use futures::executor::block_on;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
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

fn runtime(threads: usize) -> Runtime {
    Runtime::builder().threads(threads).pin(false).name("ends").build().unwrap()
}

/// A body that runs until it is told to return.
struct Body {
    release: mpsc::Sender<()>,
    returned: Arc<AtomicBool>,
}

impl Body {
    /// A function for the body; the receiver hears of its start.
    fn new() -> (Self, mpsc::Receiver<()>, impl FnOnce() -> i32 + Clone + Send) {
        let (start, started) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let returned = Arc::new(AtomicBool::new(false));
        let flag = returned.clone();
        let run = move || {
            start.send(()).unwrap();
            let _ = released.lock().unwrap().recv();
            flag.store(true, SeqCst);
            7
        };
        (Body { release, returned }, started, run)
    }
    fn has_returned(&self) -> bool {
        self.returned.load(SeqCst)
    }
    fn release(&self) {
        let _ = self.release.send(());
    }
}

fn is_shutdown<T>(result: &dagger_async::Result<T>) -> bool {
    matches!(result, Err(Error::Shutdown { .. }))
}

// What is waited for.

#[test]
fn shutdown_waits_for_running_functions() {
    guarded(|| {
        for blocking in [false, true] {
            let rt = runtime(2);
            let (body, started, run) = Body::new();
            let task = rt.block_on(async { spawn!(run(); blocking = blocking) });
            started.recv().unwrap();
            let mut ending = Box::pin(rt.shutdown());
            assert!((&mut ending).now_or_never().is_none(), "ended beside a running function");
            assert!(!body.has_returned());
            body.release();
            block_on(ending);
            assert!(body.has_returned());
            // It was running: its result counts.
            assert_eq!(task.blocking_wait().unwrap(), 7);
        }
    });
}

#[test]
fn shutdown_waits_for_functions_on_spare_threads() {
    // Two bodies block in `blocking_wait` (their places are with spare threads), one runs there.
    guarded(|| {
        let rt = runtime(1);
        let (body, started, run) = Body::new();
        let (outer, inner) = rt.block_on(async {
            let (open, gate) = oneshot::channel::<()>();
            let gated = spawn(async move { gate.await.is_ok() });
            let outer = spawn!((move || {
                let first = gated.clone();
                let middle = spawn!((move || first.blocking_wait().is_ok())());
                let last = spawn!((move |run: i32| {
                    drop(open);
                    run
                })(spawn!(run())));
                (middle.blocking_wait().is_ok(), last.is_finished())
            })());
            (outer, ())
        });
        let () = inner;
        started.recv().unwrap();
        let mut ending = Box::pin(rt.shutdown());
        assert!((&mut ending).now_or_never().is_none());
        body.release();
        block_on(ending);
        assert!(body.has_returned());
        assert!(outer.is_finished());
    });
}

#[test]
fn a_shutdown_future_may_be_dropped() {
    guarded(|| {
        let rt = runtime(1);
        let (body, started, run) = Body::new();
        let task = rt.block_on(async { spawn!(run()) });
        started.recv().unwrap();
        let mut ending = Box::pin(rt.shutdown());
        assert!((&mut ending).now_or_never().is_none());
        drop(ending);
        body.release();
        assert_eq!(task.blocking_wait().unwrap(), 7);
    });
}

#[test]
fn shutdown_begins_when_it_is_called() {
    // A future that is never polled has no effect; `shutdown` is one, but it takes the runtime: dropping that ends it.
    guarded(|| {
        let rt = runtime(1);
        let task = rt.block_on(async { spawn(std::future::pending::<()>()) });
        drop(rt.shutdown());
        assert!(is_shutdown(&task.blocking_wait()));
    });
}

#[test]
fn shutdown_is_quick_at_every_moment_of_a_task() {
    // closer           worker
    // close()    ╳     the last task ends
    guarded(|| {
        let rounds = if cfg!(debug_assertions) { 1500 } else { 6000 };
        for round in 0..rounds {
            let rt = runtime(1 + round % 3);
            let task = rt.block_on(async {
                match round % 4 {
                    0 => spawn!((|| ())()),
                    1 => spawn(async { tokio::task::yield_now().await }),
                    2 => spawn!((|| ())(); blocking = true),
                    _ => spawn!((|| spawn!((|| ())()).blocking_wait().unwrap_or(()))()),
                }
            });
            for _ in 0..round % 500 {
                std::hint::spin_loop();
            }
            if round % 2 == 0 {
                while !task.is_finished() {
                    std::hint::spin_loop();
                }
            }
            let start = Instant::now();
            block_on(rt.shutdown());
            assert!(start.elapsed() < Duration::from_secs(5), "round {round} took {:?}", start.elapsed());
            assert!(task.is_finished());
        }
    });
}

#[test]
fn shutdown_of_an_idle_runtime_is_quick() {
    guarded(|| {
        for threads in [1, 2, 8] {
            let rt = runtime(threads);
            rt.block_on(async {
                spawn!((|| ())()).await.unwrap();
                spawn!((|| ())(); blocking = true).await.unwrap();
                // A spare thread that nobody needs any more.
                spawn!((|| spawn(tokio::time::sleep(Duration::from_millis(1))).blocking_wait().unwrap())())
                    .await
                    .unwrap();
            });
            let start = Instant::now();
            block_on(rt.shutdown());
            assert!(start.elapsed() < Duration::from_secs(5), "{threads} workers took {:?}", start.elapsed());
        }
    });
}

// What ends with `Shutdown`.

#[test]
fn what_has_not_run_ends_with_shutdown() {
    guarded(|| {
        for threads in [1, 2] {
            let rt = runtime(threads);
            let (bodies, tasks) = rt.block_on(async {
                let mut bodies = Vec::new();
                for _ in 0..threads {
                    let (body, started, run) = Body::new();
                    bodies.push((body, spawn!(run())));
                    started.recv().unwrap();
                }
                let suspended = spawn(std::future::pending::<i32>());
                let in_a_timer = spawn(async {
                    tokio::time::sleep(Duration::from_secs(3600)).await;
                    1
                });
                let queued = spawn!((|| 1)());
                let queued_low = spawn!((|| 1)(); priority = -3);
                let queued_bound = spawn!((|| 1)(); scope = Scope::thread(0));
                let waiting = spawn!((|x: i32| x)(suspended.clone()));
                let behind_running = spawn!((|x: &i32| *x)(&bodies[0].1));
                let synced = spawn!((|| 1)(); syncdeps = [&suspended]);
                let asynchronous = spawn(async { 1 });
                let tasks = vec![
                    ("suspended", suspended),
                    ("in a timer", in_a_timer),
                    ("queued", queued),
                    ("queued with a low priority", queued_low),
                    ("queued for a thread", queued_bound),
                    ("waiting for a suspended one", waiting),
                    ("waiting for a running one", behind_running),
                    ("after a suspended one", synced),
                    ("a queued future", asynchronous),
                ];
                (bodies, tasks)
            });
            let ending = rt.shutdown();
            for (body, _) in &bodies {
                body.release();
            }
            block_on(ending);
            for (what, task) in tasks {
                assert!(task.is_finished(), "{what}");
                let result = task.blocking_wait();
                assert!(is_shutdown(&result), "{what}: {result:?}");
            }
            for (_, task) in bodies {
                assert_eq!(task.blocking_wait().unwrap(), 7);
            }
        }
    });
}

#[test]
fn suspended_tasks_end_at_once_not_when_running_functions_have() {
    guarded(|| {
        let rt = runtime(1);
        let (body, started, run) = Body::new();
        let (running, suspended, next) = rt.block_on(async {
            let suspended = spawn(std::future::pending::<i32>());
            let next = spawn!((|x: i32| x)(suspended.clone()));
            spawn!((|| ())()).await.unwrap(); // `suspended` was queued before: it is suspended now.
            (spawn!(run()), suspended, next)
        });
        started.recv().unwrap();
        let ending = rt.shutdown();
        assert!(is_shutdown(&suspended.blocking_wait()));
        assert!(is_shutdown(&next.blocking_wait()));
        assert!(!body.has_returned());
        body.release();
        block_on(ending);
        assert_eq!(running.blocking_wait().unwrap(), 7);
    });
}

/// Tells when it is dropped.
struct Told(mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_task_that_awaits_another_ends_with_shutdown_too() {
    guarded(|| {
        let rt = runtime(1);
        let (tell, seen) = mpsc::channel();
        let outer = rt.block_on(async {
            let told = Told(tell);
            let outer = spawn(async move {
                let _told = told;
                let _ = spawn(std::future::pending::<()>()).await;
                unreachable!("the runtime is gone");
            });
            spawn!((|| ())()).await.unwrap(); // `outer` was queued before: it is suspended now.
            outer
        });
        block_on(rt.shutdown());
        assert!(is_shutdown(&outer.blocking_wait()));
        seen.recv().unwrap(); // The body was dropped.
    });
}

#[test]
fn a_body_that_runs_when_the_end_begins_sees_what_it_awaits_end() {
    // Whether `outer` waits, runs or suspends itself at that moment is left to chance: either it ends there, or it goes on
    // with the error of the other and its result counts.
    guarded(|| {
        for _ in 0..300 {
            let rt = runtime(2);
            let (tell, seen) = mpsc::channel();
            let outer = rt.block_on(async {
                let told = Told(tell);
                spawn(async move {
                    let _told = told;
                    spawn(std::future::pending::<()>()).await
                })
            });
            block_on(rt.shutdown());
            match outer.blocking_wait() {
                Ok(inner) => assert!(is_shutdown(&inner)),
                ended => assert!(is_shutdown(&ended)),
            }
            seen.recv().unwrap(); // The body was dropped.
        }
    });
}

#[test]
fn a_body_that_blocks_on_a_suspended_task_returns() {
    guarded(|| {
        for threads in [1, 2] {
            let rt = runtime(threads);
            let (start, started) = mpsc::channel();
            let outer = rt.block_on(async {
                let suspended = spawn(std::future::pending::<()>());
                spawn!((|| ())()).await.unwrap();
                spawn!((move || {
                    start.send(()).unwrap();
                    is_shutdown(&suspended.blocking_wait())
                })())
            });
            started.recv().unwrap();
            block_on(rt.shutdown());
            assert!(outer.blocking_wait().unwrap());
        }
    });
}

#[test]
fn spawns_after_the_end_fail_with_shutdown() {
    guarded(|| {
        let rt = runtime(1);
        let (body, started, run) = Body::new();
        let (go_on, gone_on) = mpsc::channel::<()>();
        let gone_on = Mutex::new(gone_on);
        // A running body whose runtime closes meanwhile: its spawns go to that runtime.
        let spawner = rt.block_on(async {
            spawn!((move || {
                run();
                gone_on.lock().unwrap().recv().unwrap();
                let plain = spawn!((|| 1)());
                let future = spawn(async { 1 });
                let beside = spawn!((|| 1)(); blocking = true);
                let bound = spawn!((|| 1)(); scope = Scope::thread(0), priority = 4);
                let dependant = spawn!((|x: &i32| *x)(&plain));
                vec![plain, future, beside, bound, dependant]
            })())
        });
        started.recv().unwrap();
        body.release();
        let ending = rt.shutdown();
        go_on.send(()).unwrap();
        block_on(ending);
        for task in spawner.blocking_wait().unwrap() {
            let name = task.name().to_owned();
            let result = task.blocking_wait();
            assert!(is_shutdown(&result), "{name}: {result:?}");
        }
    });
}

#[test]
fn spawns_inside_run_of_a_runtime_that_a_task_dropped_fail_with_shutdown() {
    // The runtime is dropped inside its own `block_on`, which holds a borrow: only through an `Arc` that it does not
    // own. What is left is a spawn from a body of that runtime, and a bulk that is still open.
    guarded(|| {
        let rt = runtime(2);
        let mut block = Box::pin(bulk(async {
            let held = spawn!((|| 1)());
            let next = spawn!((|x: &i32| x + 1)(&held));
            tokio::task::yield_now().await;
            (held, next, spawn!((|| 3)()))
        }));
        rt.block_on(async {
            assert!(futures::poll!(&mut block).is_pending());
        });
        block_on(rt.shutdown());
        let other = runtime(1);
        // The third is spawned after the end of the first runtime, where the block is polled now.
        let (held, next, late) = other.block_on(block);
        assert!(is_shutdown(&held.blocking_wait()));
        assert!(is_shutdown(&next.blocking_wait()));
        assert_eq!(late.blocking_wait().unwrap(), 3);
    });
}

#[test]
fn an_open_bulk_does_not_hold_up_the_end() {
    guarded(|| {
        for drop_it in [false, true] {
            let rt = runtime(1);
            let held = Arc::new(Mutex::new(Vec::new()));
            let kept = held.clone();
            let mut block = Box::pin(bulk(async move {
                for _ in 0..100 {
                    kept.lock().unwrap().push(spawn!((|| 1)()));
                }
                tokio::task::yield_now().await;
            }));
            rt.block_on(async { assert!(futures::poll!(&mut block).is_pending()) });
            block_on(rt.shutdown());
            match drop_it {
                true => drop(block),
                false => block_on(block),
            }
            for task in held.lock().unwrap().drain(..) {
                assert!(is_shutdown(&task.blocking_wait()));
            }
        }
    });
}

#[test]
fn shutdown_in_the_middle_of_everything() {
    guarded(|| {
        let rounds = if cfg!(debug_assertions) { 100 } else { 400 };
        for round in 0..rounds {
            let rt = runtime(1 + round % 3);
            let handle_count = Arc::new(AtomicUsize::new(0));
            let tasks = rt.block_on(async {
                let mut tasks: Vec<DTask<usize>> = Vec::new();
                for i in 0..200 {
                    let count = handle_count.clone();
                    tasks.push(match i % 7 {
                        0 => spawn!((move || count.fetch_add(1, SeqCst))()),
                        1 => spawn!((move |x: &usize| x + count.load(SeqCst))(&tasks[i - 1])),
                        2 => spawn(async move {
                            tokio::time::sleep(Duration::from_micros(50)).await;
                            count.fetch_add(1, SeqCst)
                        }),
                        3 => spawn!((move || count.fetch_add(1, SeqCst))(); blocking = true),
                        4 => {
                            let other = tasks[i - 2].clone();
                            spawn!((move || other.blocking_wait().unwrap_or(0))())
                        }
                        5 => {
                            let other = tasks[i - 1].clone();
                            spawn(async move { spawn!((|x: usize| x)(other)).await.unwrap_or(1) })
                        }
                        _ => spawn!((|x: usize, y: usize| x + y)(tasks[i - 3].clone(), tasks[i - 5].clone());
                            priority = i as i32 % 5 - 2),
                    });
                }
                tasks
            });
            for _ in 0..round * 20 {
                std::hint::spin_loop();
            }
            block_on(rt.shutdown());
            for task in tasks {
                assert!(task.is_finished(), "{task:?} has no end");
                if let Err(error) = task.blocking_wait() {
                    assert!(matches!(error, Error::Shutdown { .. }), "{error}");
                }
            }
            assert_eq!(Arc::strong_count(&handle_count), 1, "a body was leaked");
        }
    });
}

// Dropping.

#[test]
fn drop_does_not_wait_for_a_running_function() {
    guarded(|| {
        for blocking in [false, true] {
            let rt = runtime(1);
            let (body, started, run) = Body::new();
            let task = rt.block_on(async { spawn!(run(); blocking = blocking) });
            started.recv().unwrap();
            drop(rt); // Would hang: the body is released afterwards.
            assert!(!body.has_returned());
            body.release();
            assert_eq!(task.blocking_wait().unwrap(), 7);
        }
    });
}

#[test]
fn a_runtime_may_be_dropped_by_its_own_task() {
    guarded(|| {
        for kind in 0..3 {
            let rt = Arc::new(Mutex::new(Some(runtime(1))));
            let (give, given) = mpsc::channel::<Runtime>();
            let given = Mutex::new(given);
            let rt_owned = rt.lock().unwrap().take().unwrap();
            let task = rt_owned.block_on(async {
                match kind {
                    0 => spawn!((move || {
                        let own = given.lock().unwrap().recv().unwrap();
                        drop(own);
                        1
                    })()),
                    1 => spawn(async move {
                        let own = given.lock().unwrap().recv().unwrap();
                        drop(own);
                        1
                    }),
                    _ => spawn!((move || {
                        let own = given.lock().unwrap().recv().unwrap();
                        drop(own);
                        1
                    })(); blocking = true),
                }
            });
            give.send(rt_owned).unwrap();
            assert_eq!(task.blocking_wait().unwrap(), 1, "a running body may return");
        }
    });
}

#[test]
fn a_task_that_awaits_the_shutdown_of_its_own_runtime_ends_with_shutdown() {
    guarded(|| {
        let rt = runtime(1);
        let (give, given) = oneshot::channel::<Runtime>();
        let task = rt.block_on(async { spawn(async move { given.await.unwrap().shutdown().await }) });
        assert!(give.send(rt).is_ok());
        assert!(is_shutdown(&task.blocking_wait()));
    });
}

#[test]
fn a_runtime_may_be_dropped_inside_async_code() {
    guarded(|| {
        let current_thread = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        current_thread.block_on(async {
            let rt = runtime(2);
            assert_eq!(rt.run(async { spawn!((|| 1)()).await }).await.unwrap(), 1);
            drop(rt);
            let rt = runtime(2);
            rt.shutdown().await;
        });
        let multi =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        multi.block_on(async {
            tokio::spawn(async {
                let rt = runtime(2);
                assert_eq!(rt.run(async { spawn!((|| 1)()).await }).await.unwrap(), 1);
            })
            .await
            .unwrap();
        });
    });
}

#[test]
fn a_task_may_own_a_runtime() {
    // The thread is a worker of `outer` and for a while enters `inner`: neither may take the other's tasks, or count them.
    guarded(|| {
        for (outer_threads, inner_threads) in [(1, 1), (1, 3), (3, 1)] {
            for blocking in [false, true] {
                let outer = runtime(outer_threads);
                let use_inner = move || async move {
                    let inner =
                        Runtime::builder().threads(inner_threads).pin(false).name("inner").build().unwrap();
                    let thread = || std::thread::current().name().unwrap_or_default().to_owned();
                    let all = async {
                        let tasks = (0..20).map(|_| spawn!(thread()));
                        wait_all(tasks.collect::<Vec<_>>()).await
                    };
                    let names = if blocking { inner.block_on(all) } else { inner.run(all).await };
                    inner.idle().await;
                    inner.shutdown().await;
                    names.into_iter().all(|name| name.unwrap().starts_with("inner-worker"))
                };
                let tasks = outer.block_on(async { [0; 5].map(|_| spawn(use_inner())) });
                for task in tasks {
                    assert!(
                        task.blocking_wait().unwrap(),
                        "a task of the inner runtime ran on a worker of the outer"
                    );
                }
                block_on(outer.idle());
                block_on(outer.shutdown());
            }
        }
    });
}

#[test]
fn a_runtime_may_be_dropped_while_a_panic_unwinds() {
    guarded(|| {
        let caught = std::panic::catch_unwind(|| {
            let rt = runtime(2);
            let _task = rt.block_on(async { spawn(std::future::pending::<()>()) });
            panic!("unwind over {rt:?}");
        });
        assert!(caught.is_err());
        let rt = runtime(1);
        let error = rt.block_on(async {
            spawn!((|| {
                let _inner = runtime(1);
                panic!("in a task");
            })())
            .await
            .unwrap_err()
        });
        assert!(matches!(error, Error::Panicked { .. }));
    });
}

// What may be used afterwards.

#[test]
fn values_and_handles_outlive_the_runtime() {
    guarded(|| {
        let rt = runtime(2);
        let (value, mut failed, shared, unused) = rt.block_on(async {
            let value = spawn!((|| "text".to_owned())(); name = "value");
            let failed = spawn!((|| -> i32 { panic!("no") })());
            let shared = (&value).await.unwrap();
            failed.wait().await;
            let unused = spawn!((|| vec![1u8; 1000])());
            unused.wait().await;
            (value, failed, shared, unused)
        });
        block_on(rt.shutdown());
        assert_eq!(value.name(), "value");
        assert!(value.is_finished());
        value.cancel(); // Nothing.
        assert_eq!(&*shared, "text");
        assert_eq!(value.clone().blocking_wait().unwrap(), "text");
        assert!(matches!(block_on(&mut failed), Err(Error::Panicked { .. })));
        drop(unused);
        // Its results are arguments elsewhere.
        let other = runtime(1);
        let (length, error) = other.block_on(async {
            let length = spawn!((|text: &String| text.len())(&value)).await.unwrap();
            let error = spawn!((|x: i32| x)(failed)).await.unwrap_err();
            (length, error)
        });
        assert_eq!(length, 4);
        assert!(matches!(error, Error::Dependency { .. }));
        drop(shared);
        assert_eq!(block_on(value).unwrap(), "text");
    });
}

/// Puts the waker of whoever polls it where others can use it.
struct Exposed(Arc<Mutex<Vec<Waker>>>);

impl Future for Exposed {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.lock().unwrap().push(cx.waker().clone());
        Poll::Pending
    }
}

#[test]
fn wakers_may_be_used_during_and_after_the_end() {
    // waker thread             runtime
    // wake, wake, wake   ╳     shutdown, threads end
    guarded(|| {
        let rounds = if cfg!(debug_assertions) { 300 } else { 1500 };
        for round in 0..rounds {
            let rt = runtime(1 + round % 2);
            let wakers = Arc::new(Mutex::new(Vec::new()));
            let tasks: Vec<_> = rt.block_on(async {
                let tasks = (0..20).map(|_| spawn(Exposed(wakers.clone()))).collect();
                spawn!((|| ())()).await.unwrap();
                tasks
            });
            let (ready, is_ready) = mpsc::channel();
            let stop = Arc::new(AtomicBool::new(false));
            let (seen, pool) = (stop.clone(), wakers.clone());
            let waking = std::thread::spawn(move || {
                let mut held = Vec::new();
                ready.send(()).unwrap();
                let mut wakes = 0;
                while !seen.load(SeqCst) || wakes < 100 {
                    held.append(&mut pool.lock().unwrap());
                    held.iter().for_each(Waker::wake_by_ref);
                    held.truncate(64);
                    wakes += 1;
                }
                held
            });
            is_ready.recv().unwrap();
            match round % 3 {
                0 => drop(rt),
                _ => block_on(rt.shutdown()),
            }
            stop.store(true, SeqCst);
            let held = waking.join().unwrap();
            for task in tasks {
                assert!(is_shutdown(&task.blocking_wait()));
            }
            // All of the runtime is gone; wakers and their clones still do no harm.
            for waker in held {
                waker.wake_by_ref();
                drop(waker.clone());
                waker.wake();
            }
        }
    });
}

#[test]
fn handles_may_be_cancelled_and_dropped_by_others_during_the_end() {
    guarded(|| {
        let rounds = if cfg!(debug_assertions) { 200 } else { 1000 };
        for round in 0..rounds {
            let rt = runtime(2);
            let tasks: Vec<DTask<i32>> = rt.block_on(async {
                (0..60)
                    .map(|i| match i % 3 {
                        0 => spawn(std::future::pending::<i32>()),
                        1 => spawn!((|| 1)()),
                        _ => spawn(async {
                            tokio::task::yield_now().await;
                            2
                        }),
                    })
                    .collect()
            });
            let others = std::thread::spawn(move || {
                for (i, task) in tasks.into_iter().enumerate() {
                    match (i + round) % 3 {
                        0 => task.cancel(),
                        1 => drop(task),
                        _ => match task.blocking_wait() {
                            Ok(_) | Err(Error::Shutdown { .. }) => {}
                            Err(error) => panic!("{error}"),
                        },
                    }
                }
            });
            block_on(rt.shutdown());
            others.join().unwrap();
        }
    });
}

// Idle.

#[test]
fn idle_ends_when_and_only_when_nothing_is_unfinished() {
    guarded(|| {
        let rt = runtime(2);
        rt.block_on(rt.idle());
        let (open, gate) = oneshot::channel::<()>();
        let (body, started, run) = Body::new();
        let (suspended, running, waiting) = rt.block_on(async {
            let suspended = spawn(async move { gate.await.is_ok() });
            let waiting = spawn!((|x: bool| x)(suspended.clone()));
            (suspended, spawn!(run()), waiting)
        });
        started.recv().unwrap();
        let mut idle = Box::pin(rt.idle());
        assert!((&mut idle).now_or_never().is_none());
        // A cancelled body that runs is unfinished until it returns.
        running.cancel();
        assert!(matches!(running.blocking_wait(), Err(Error::Cancelled { .. })));
        assert!((&mut idle).now_or_never().is_none());
        open.send(()).unwrap();
        assert!(suspended.blocking_wait().unwrap() && waiting.blocking_wait().unwrap());
        assert!((&mut idle).now_or_never().is_none(), "the cancelled body still runs");
        body.release();
        rt.block_on(idle);
        assert!(body.has_returned());
    });
}

#[test]
fn idle_ends_when_the_drop_of_a_value_that_nobody_wanted_has_blocked() {
    /// Its drop waits for another task, on a worker, which meanwhile gives its processor to a spare thread.
    struct Blocks(Option<oneshot::Sender<()>>, std::sync::Mutex<std::sync::mpsc::Receiver<()>>);
    impl Drop for Blocks {
        fn drop(&mut self) {
            spawn!((|| ())()).blocking_wait().unwrap();
            self.0.take().unwrap().send(()).unwrap();
            self.1.lock().unwrap().recv().unwrap();
        }
    }
    guarded(|| {
        for _ in 0..20 {
            let rt = runtime(1);
            let (dropping, is_dropping) = oneshot::channel();
            let (go, wait) = std::sync::mpsc::channel();
            let (open, gate) = std::sync::mpsc::channel::<()>();
            rt.block_on(async {
                let value = Blocks(Some(dropping), std::sync::Mutex::new(wait));
                drop(spawn!((move || {
                    gate.recv().unwrap();
                    value
                })()));
            });
            open.send(()).unwrap();
            block_on(is_dropping).unwrap();
            // The other thread, which has the place now, finds nothing and sleeps, soon or later: what it has counted stays.
            let mut idle = Box::pin(rt.idle());
            assert!((&mut idle).now_or_never().is_none());
            for _ in 0..50 {
                rt.block_on(async { spawn!((|| ())()).await }).unwrap();
            }
            go.send(()).unwrap();
            rt.block_on(idle);
        }
    });
}

#[test]
fn idle_waits_for_detached_children_and_for_cancelled_suspended_tasks() {
    guarded(|| {
        let rt = runtime(2);
        for _ in 0..200 {
            let count = Arc::new(AtomicUsize::new(0));
            let held = count.clone();
            rt.block_on(async {
                spawn!((move || {
                    for _ in 0..10 {
                        let count = held.clone();
                        spawn(async move {
                            tokio::task::yield_now().await;
                            let count = count.clone();
                            spawn!((move || count.fetch_add(1, SeqCst))());
                        });
                    }
                })());
                let owned = count.clone();
                spawn(async move {
                    let _owned = owned;
                    std::future::pending::<()>().await;
                })
                .cancel();
                rt.idle().await;
            });
            assert_eq!(count.load(SeqCst), 10);
            assert_eq!(Arc::strong_count(&count), 1, "a body is left");
        }
    });
}

#[test]
fn many_may_wait_for_idle() {
    guarded(|| {
        let rt = Arc::new(runtime(1));
        for _ in 0..50 {
            let (body, started, run) = Body::new();
            let task = rt.block_on(async { spawn!(run()) });
            started.recv().unwrap();
            let waiting: Vec<_> = (0..4)
                .map(|_| {
                    let (rt, returned) = (rt.clone(), body.returned.clone());
                    std::thread::spawn(move || {
                        block_on(rt.idle());
                        assert!(returned.load(SeqCst));
                    })
                })
                .collect();
            assert!(Box::pin(rt.idle()).now_or_never().is_none()); // One that gives up.
            body.release();
            waiting.into_iter().for_each(|thread| thread.join().unwrap());
            task.blocking_wait().unwrap();
        }
    });
}

// Two runtimes.

#[test]
fn results_cross_between_runtimes_in_both_directions() {
    guarded(|| {
        let (left, right) = (runtime(1), runtime(2));
        let mut last = left.block_on(async { spawn!((|| 0)()) });
        for _ in 0..200 {
            last = right.block_on(async { spawn!((|x: i32| x + 1)(last)) });
            last = left.block_on(async { spawn!((|x: &i32| x + 1)(&last)) });
            let awaited = last;
            last = right.block_on(async { spawn(async move { awaited.await.unwrap() + 1 }) });
            let awaited = last;
            last = left.block_on(async { spawn!((move || awaited.blocking_wait().unwrap() + 1)()) });
        }
        assert_eq!(last.blocking_wait().unwrap(), 800);
    });
}

#[test]
fn callees_run_on_the_runtime_they_were_spawned_on() {
    guarded(|| {
        let left = Runtime::builder().threads(1).name("left").build().unwrap();
        let right = Runtime::builder().threads(1).name("right").build().unwrap();
        let thread = || std::thread::current().name().unwrap_or_default().to_owned();
        let first = left.block_on(async { spawn!(thread()) });
        let second = right.block_on(async { spawn!((move |first: String| (first, thread()))(first)) });
        let (first, second) = second.blocking_wait().unwrap();
        assert!(first.starts_with("left-worker") && second.starts_with("right-worker"), "{first}, {second}");
        // A child goes where its parent is.
        let nested = right.block_on(async { spawn(async move { spawn!(thread()).await.unwrap() }) });
        assert!(nested.blocking_wait().unwrap().starts_with("right-worker"));
    });
}

#[test]
fn tasks_that_wait_for_another_runtime_end_at_once() {
    guarded(|| {
        let (left, right) = (runtime(1), runtime(1));
        let (open, gate) = oneshot::channel::<()>();
        let foreign = left.block_on(async { spawn(async move { gate.await.is_ok() }) });
        let (by_argument, by_await, by_syncdep) = right.block_on(async {
            let by_argument = spawn!((|x: bool| x)(foreign.clone()));
            let awaited = foreign.clone();
            let by_await = spawn(async move { awaited.await.unwrap() });
            let by_syncdep = spawn!((|| true)(); syncdeps = [&foreign]);
            (by_argument, by_await, by_syncdep)
        });
        block_on(right.shutdown());
        for task in [by_argument, by_await, by_syncdep] {
            assert!(task.is_finished());
            let result = task.blocking_wait();
            assert!(is_shutdown(&result), "{result:?}");
        }
        assert!(!foreign.is_finished());
        open.send(()).unwrap(); // Reaches the tasks that are gone, too.
        assert!(foreign.blocking_wait().unwrap());
        block_on(left.shutdown());
    });
}

#[test]
fn the_end_of_one_runtime_ends_dependants_in_another() {
    guarded(|| {
        let (left, right) = (runtime(1), runtime(1));
        let foreign = left.block_on(async { spawn(std::future::pending::<i32>()) });
        let (by_argument, by_await) = right.block_on(async {
            let awaited = foreign.clone();
            (spawn!((|x: i32| x)(foreign)), spawn(async move { awaited.await.is_err() }))
        });
        drop(left);
        let result = by_argument.blocking_wait();
        assert!(result.is_err(), "{result:?}");
        assert!(by_await.blocking_wait().unwrap());
        assert_eq!(right.block_on(async { spawn!((|| 1)()).await }).unwrap(), 1);
    });
}

/// A runtime whose list of tasks is not kept in order finds what lies at their old addresses when it ends: ends `rt`
/// beside waiting tasks of another runtime that have the shape of those that `rt` has had.
fn end_beside_innocent_tasks(rt: Runtime) {
    let other = runtime(1);
    let innocent: Vec<_> = other.block_on(async {
        let pending = spawn(std::future::pending::<i32>());
        (0..300).map(|_| spawn!((|x: i32| x)(pending.clone()))).collect()
    });
    block_on(rt.idle());
    block_on(rt.shutdown());
    assert!(
        innocent.iter().all(|task| !task.is_finished()),
        "the end of a runtime ended a task of another one"
    );
}

/// A body that fails when it is told to.
fn failing() -> (mpsc::Sender<()>, DTask<i32>) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let task = spawn!((move || -> i32 {
        let _ = gate.lock().unwrap().recv();
        std::panic::resume_unwind(Box::new("on purpose"))
    })());
    (open, task)
}

fn hesitate(spins: usize) {
    (0..spins).for_each(|_| std::hint::spin_loop());
}

#[test]
fn a_foreign_input_may_fail_while_its_dependant_is_spawned() {
    // left                      caller
    // the input fails     ╳     spawns on `right`; then shuts `right` down
    guarded(|| {
        let left = runtime(1);
        let rounds = if cfg!(debug_assertions) { 300 } else { 600 };
        for round in 0..rounds {
            let right = runtime(1);
            for i in 0..100 {
                let (open, failing) = left.block_on(async { failing() });
                open.send(()).unwrap();
                hesitate((round * 37 + i * 11) % 1500);
                let dependant = right.block_on(async { spawn!((|x: i32| x)(failing)) });
                if i % 2 == 0 {
                    assert!(matches!(dependant.blocking_wait(), Err(Error::Dependency { .. })));
                }
            }
            end_beside_innocent_tasks(right);
        }
    });
}

#[test]
fn an_input_may_fail_while_its_dependant_is_spawned_in_a_bulk() {
    guarded(|| {
        let rounds = if cfg!(debug_assertions) { 300 } else { 600 };
        for round in 0..rounds {
            let rt = runtime(1);
            rt.block_on(async {
                for i in 0..100 {
                    let (open, failing) = failing();
                    let dependant = bulk(async {
                        open.send(()).unwrap();
                        hesitate((round * 37 + i * 11) % 1500);
                        spawn!((|x: i32| x)(failing))
                    })
                    .await;
                    if i % 2 == 0 {
                        assert!(matches!(dependant.await, Err(Error::Dependency { .. })));
                    }
                }
            });
            end_beside_innocent_tasks(rt);
        }
    });
}

#[test]
fn two_runtimes_shut_each_other_down() {
    guarded(|| {
        for _ in 0..50 {
            let (left, right) = (runtime(1), runtime(1));
            let a = left.block_on(async { spawn(std::future::pending::<()>()) });
            let b = right.block_on(async { spawn!((|(): ()| ())(a.clone())) });
            let c = left.block_on(async { spawn!((|(): ()| ())(b.clone())) });
            let ends = [left, right].map(|rt| std::thread::spawn(move || block_on(rt.shutdown())));
            ends.into_iter().for_each(|end| end.join().unwrap());
            for task in [a, b, c] {
                let error = task.blocking_wait().unwrap_err();
                assert!(matches!(error, Error::Shutdown { .. } | Error::Dependency { .. }), "{error}");
            }
        }
    });
}

// Making one.

#[test]
fn a_runtime_needs_a_worker_and_a_name_that_threads_can_have() {
    guarded(|| {
        for many in [usize::MAX, 1 << 42, (1 << 16) + 1] {
            let error = Runtime::builder().threads(many).build().unwrap_err();
            assert!(matches!(error, Error::Options { .. }) && error.to_string().contains("65536"), "{error}");
        }
        let error = Runtime::builder().threads(0).build().unwrap_err();
        assert!(matches!(error, Error::Options { .. }), "{error}");
        assert!(error.root().is_none());
        assert!(error.to_string().contains("threads"), "{error}");
        let error = Runtime::builder().threads(1).name("a\0b").build().unwrap_err();
        assert!(matches!(error, Error::Options { .. }), "{error}");
        for name in ["", "löwe", "a name with spaces", "x".repeat(300).as_str()] {
            let rt = Runtime::builder().threads(1).name(name).build().unwrap();
            assert_eq!(rt.block_on(async { spawn!((|| 1)()).await }).unwrap(), 1);
        }
    });
}

#[test]
fn processors_are_the_workers_in_order() {
    guarded(|| {
        for threads in [1, 3] {
            let rt = runtime(threads);
            let processors = rt.processors();
            assert_eq!(processors.len(), threads);
            for (i, processor) in processors.iter().enumerate() {
                assert_eq!((processor.worker, processor.thread), (0, i));
                let here = rt.block_on(async {
                    spawn!((|| current().unwrap().processor())(); scope = Scope::thread(i)).await.unwrap()
                });
                assert_eq!(here, *processor);
            }
            assert!(rt.block_on(async { current() }).is_none());
        }
    });
}

#[test]
fn runtimes_come_and_go_by_the_hundred() {
    guarded(|| {
        let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
        let before = threads();
        for _ in 0..300 {
            let rt = runtime(2);
            let task = rt.block_on(async { spawn(std::future::pending::<()>()) });
            drop(rt);
            assert!(is_shutdown(&task.blocking_wait()));
        }
        // Other tests run beside this one; a leak of even one thread for each runtime would be 300.
        let start = Instant::now();
        while threads() > before + 150 {
            assert!(start.elapsed() < Duration::from_secs(20), "{} threads are left of {before}", threads());
            std::thread::yield_now();
        }
    });
}
