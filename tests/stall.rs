//! A wait that nothing will end is shown, once, with who waits for whom; a runtime that waits for the world is not.
#![allow(
    clippy::unwrap_used,
    clippy::async_yields_async,
    reason = "helpers of tests; blocks that hand out handles"
)]

use dagger_async::prelude::*;
use dagger_tests::{keep_log, logged, logged_as};
use futures::FutureExt;
use futures::executor::block_on;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tracing::Level;

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

const AFTER: Duration = Duration::from_millis(200);

/// A runtime whose stall reports this test sees, by its name.
fn watched(name: &str) -> Runtime {
    keep_log();
    Runtime::builder().threads(2).pin(false).name(name).stall_after(AFTER).build().unwrap()
}

/// The warnings that name this runtime.
fn reports(name: &str) -> Vec<String> {
    logged_as(Level::WARN, name)
}

/// Waits for the first report; the time is the subject here.
fn first_report(name: &str) -> String {
    let start = Instant::now();
    loop {
        if let Some(report) = reports(name).into_iter().next() {
            return report;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "no report although nothing moved for long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `Send + Sync` but not `Clone`.
struct Unique;

#[test]
fn a_use_by_value_that_waits_for_a_live_shared_is_reported_once() {
    guarded(|| {
        let rt = watched("stall-shared");
        let (giver_line, taker_line);
        let (shared, taker) = {
            let (shared, giver) = rt.block_on(async {
                let giver = spawn!((|| Unique)(); name = "giver");
                ((&giver).await.unwrap(), giver)
            });
            giver_line = line!() - 3;
            let taker = rt.block_on(async { spawn!((|_: Unique| 1)(giver); name = "taker") });
            taker_line = line!() - 1;
            (shared, taker)
        };
        let report = first_report("stall-shared");
        for part in ["giver", "taker", &format!("stall.rs:{giver_line}"), &format!("stall.rs:{taker_line}")] {
            assert!(report.contains(part), "the report does not say {part}: {report}");
        }
        // It is said once, however long it lasts.
        std::thread::sleep(AFTER * 5);
        assert_eq!(reports("stall-shared").len(), 1);
        // Nothing was ended: it may still come.
        assert!(!taker.is_finished());
        drop(shared);
        assert_eq!(taker.blocking_wait().unwrap(), 1);
    });
}

#[test]
fn tasks_that_wait_for_a_task_that_never_ends_are_reported() {
    guarded(|| {
        let rt = watched("stall-never");
        let (never, next, last) = rt.block_on(async {
            let never = Options::new().name("never").spawn(std::future::pending::<i32>());
            let next = spawn!((|x: i32| x)(never.clone()); name = "next");
            let awaited = next.clone();
            let last = Options::new().name("last").spawn(async move { awaited.await.is_err() });
            (never, next, last)
        });
        let report = first_report("stall-never");
        for part in ["`never`", "`next`", "stall.rs:"] {
            assert!(report.contains(part), "the report does not say {part}: {report}");
        }
        never.cancel();
        assert!(next.blocking_wait().is_err() && last.blocking_wait().unwrap());
    });
}

#[test]
fn a_body_that_blocks_on_a_task_that_never_ends_is_reported() {
    guarded(|| {
        let rt = watched("stall-block");
        let (never, blocked) = rt.block_on(async {
            let never = Options::new().name("never").spawn(std::future::pending::<i32>());
            let awaited = never.clone();
            (never, spawn!((move || awaited.blocking_wait().is_err())(); name = "blocked"))
        });
        let report = first_report("stall-block");
        assert!(report.contains("`never`") && report.contains("`blocked`"), "{report}");
        never.cancel();
        assert!(blocked.blocking_wait().unwrap());
    });
}

#[test]
fn a_stall_that_goes_on_after_something_moved_is_reported_again_at_most_once_more() {
    guarded(|| {
        let rt = watched("stall-twice");
        let (never, next) = rt.block_on(async {
            let never = spawn(std::future::pending::<i32>());
            let next = spawn!((|x: i32| x)(never.clone()));
            (never, next)
        });
        first_report("stall-twice");
        rt.block_on(async { spawn!((|| ())()).await.unwrap() });
        std::thread::sleep(AFTER * 8);
        let count = reports("stall-twice").len();
        assert!((1..=2).contains(&count), "{count} reports");
        never.cancel();
        assert!(next.blocking_wait().is_err());
    });
}

#[test]
fn waiting_for_a_timer_is_no_stall() {
    guarded(|| {
        let rt = watched("quiet-timer");
        let slept = rt.block_on(async { spawn(tokio::time::sleep(AFTER * 6)) });
        slept.blocking_wait().unwrap();
        assert_eq!(reports("quiet-timer"), [""; 0]);
    });
}

#[test]
fn waiting_outside_is_no_stall() {
    guarded(|| {
        let rt = watched("quiet-idle");
        rt.block_on(async { spawn!((|| ())()).await.unwrap() });
        rt.block_on(async { tokio::time::sleep(AFTER * 4).await }); // No task is unfinished.
        assert_eq!(reports("quiet-idle"), [""; 0]);
    });
}

#[test]
fn a_long_function_is_no_stall() {
    guarded(|| {
        let rt = watched("quiet-long");
        for blocking in [false, true] {
            let last = rt.block_on(async {
                let long = spawn!((|| std::thread::sleep(AFTER * 4))(); blocking = blocking);
                spawn!((|(): ()| 1)(long))
            });
            assert_eq!(last.blocking_wait().unwrap(), 1);
        }
        assert_eq!(reports("quiet-long"), [""; 0]);
    });
}

#[test]
fn a_watch_that_is_off_reports_nothing_and_holds_nothing_up() {
    guarded(|| {
        drop(watched("other")); // The subscriber.
        let rt = Runtime::builder()
            .threads(1)
            .pin(false)
            .name("stall-off")
            .stall_after(Duration::MAX)
            .build()
            .unwrap();
        let next = rt.block_on(async {
            let never = spawn(std::future::pending::<i32>());
            spawn!((|x: i32| x)(never))
        });
        std::thread::sleep(AFTER * 2);
        assert!(!next.is_finished());
        block_on(rt.shutdown());
        assert!(matches!(next.blocking_wait(), Err(Error::Shutdown { .. })));
        assert_eq!(reports("stall-off"), [""; 0]);
    });
}

#[test]
fn a_watched_runtime_ends_in_the_middle_of_a_stall() {
    guarded(|| {
        let rt = watched("stall-end");
        let next = rt.block_on(async {
            let never = spawn(std::future::pending::<i32>());
            spawn!((|x: i32| x)(never))
        });
        first_report("stall-end");
        block_on(rt.shutdown());
        assert!(matches!(next.blocking_wait(), Err(Error::Shutdown { .. })));
    });
}

#[test]
fn a_failure_that_nobody_can_see_is_logged_once_at_error_level() {
    guarded(|| {
        let rt = watched("unseen");
        let errors = |name: &str| logged_as(Level::ERROR, name).len();
        rt.block_on(async {
            drop(spawn!((|| -> i32 { panic!("x") })(); name = "dropped before"));
            let task = spawn!((|| -> i32 { panic!("x") })(); name = "dropped after");
            task.wait().await;
            drop(task);
            let seen = spawn!((|| -> i32 { panic!("x") })(); name = "awaited");
            assert!(seen.await.is_err());
            let root = spawn!((|| -> i32 { panic!("x") })(); name = "passed on");
            let fan: Vec<_> = (0..5).map(|_| spawn!((|x: &i32| *x)(&root); name = "dependant")).collect();
            drop(root);
            drop(fan);
            let cancelled = spawn(std::future::pending::<()>());
            cancelled.cancel();
            drop(cancelled);
            assert!(
                rt.idle().now_or_never().is_some() || {
                    rt.idle().await;
                    true
                }
            );
        });
        assert_eq!(errors("dropped before"), 1);
        assert_eq!(errors("dropped after"), 1);
        assert_eq!(errors("awaited"), 0);
        assert_eq!(errors("passed on"), 1, "{:?}", logged("passed on"));
        assert_eq!(errors("was cancelled"), 0);
    });
}
