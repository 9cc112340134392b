//! `timeout`: from the first start, over suspensions and retries.

use dagger_async::prelude::*;
use dagger_tests::{Body, Gate, Kind, Output, for_each_case, on_all_workers, on_workers, timed};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(30);
const LONG: Duration = Duration::from_secs(600);

fn value_of(output: &Output) -> i32 {
    output.value
}
fn named(name: &str) -> Options {
    Options::new().name(name)
}

#[track_caller]
fn assert_timed_out<T: std::fmt::Debug>(result: Result<T, Error>, name: &str, limit: Duration) {
    match &result {
        Err(error @ Error::TimedOut { root, after, .. }) => {
            assert_eq!((root.name(), *after), (name, limit));
            assert_eq!(error.root().unwrap().name(), name);
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(&format!("{limit:?}")), "{text}");
        }
        other => panic!("no timeout: {other:?}"),
    }
}

/// A sync body goes on when its handle has ended; an async one is dropped where it waits.
#[test]
fn a_body_that_takes_too_long_ends_its_handle() {
    for_each_case(|case| async move {
        let body = Body::new().waits().returns(7);
        let task = case.spawn_with(named("slow").timeout(SHORT), &body);
        body.started.pass().await;
        let next = spawn!(value_of(&task); name = "next");
        let (result, took) = timed(task).await;
        assert_timed_out(result, "slow", SHORT);
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(!body.left.is_open());
        let error = next.await.unwrap_err();
        let Error::Dependency { root, cause, .. } = &error else { panic!("{error}") };
        assert_eq!(root.name(), "slow");
        assert!(matches!(**cause, Error::TimedOut { .. }));
        if case.kind.is_async() {
            case.rt.idle().await;
            assert_eq!((body.results.made(), body.held.dropped()), (0, 1));
        } else {
            body.go.open();
            case.rt.idle().await;
            assert_eq!((body.results.made(), body.results.dropped(), body.held.dropped()), (1, 1, 1));
        }
    });
}

#[test]
fn a_body_that_is_in_time_is_not_touched() {
    for_each_case(|case| async move {
        for limit in [LONG, Duration::MAX, Duration::from_secs(u64::MAX), Duration::MAX / 2] {
            let task = case.spawn_with(named("fast").timeout(limit), &Body::new().returns(7));
            assert_eq!(task.await.unwrap().value, 7);
        }
    });
}

#[test]
fn a_failure_in_time_is_not_a_timeout() {
    for_each_case(|case| async move {
        let error =
            case.spawn_with(named("bad").timeout(LONG), &Body::new().panics("bad")).await.unwrap_err();
        assert!(matches!(error, Error::Panicked { .. }), "{error}");
    });
}

#[test]
fn the_time_before_the_first_start_does_not_count() {
    for_each_case(|case| async move {
        // Behind an input, and behind busy workers, for longer than the limit.
        let before = Body::new().waits();
        let input = Kind::Future.spawn(Options::new(), &before);
        let limit = Duration::from_millis(300);
        let task =
            case.spawn_with(named("patient").timeout(limit).syncdeps([&input]), &Body::new().returns(1));
        let busy = case.occupy().await;
        let queued = case.spawn_with(named("queued").timeout(limit), &Body::new().returns(2));
        tokio::time::sleep(Duration::from_millis(400)).await;
        before.go.open();
        busy.open();
        assert_eq!(task.await.unwrap().value, 1);
        assert_eq!(queued.await.unwrap().value, 2);
    });
}

#[test]
fn it_counts_over_suspensions() {
    on_all_workers(|rt| async move {
        let polls = Arc::new(AtomicU32::new(0));
        let counted = polls.clone();
        let task = named("napper").timeout(SHORT).spawn(async move {
            loop {
                counted.fetch_add(1, SeqCst);
                tokio::time::sleep(SHORT / 10).await;
            }
        });
        let result: Result<(), Error> = task.await;
        assert_timed_out(result, "napper", SHORT);
        rt.idle().await;
        let polled = polls.load(SeqCst);
        assert!(polled <= 12, "ten naps of a tenth each, not {polled}");
    });
}

#[test]
fn it_counts_over_retries() {
    for_each_case(|case| async move {
        let body = Body::new().panics("again");
        let pause = SHORT / 3;
        let task = case.kind.spawn_retrying(named("stubborn").timeout(SHORT), &body, u32::MAX, pause);
        let (result, took) = timed(task).await;
        assert_timed_out(result, "stubborn", SHORT);
        assert!(took < Duration::from_secs(5), "{took:?}");
        case.rt.idle().await;
        assert!((1..=4).contains(&body.runs()), "{} runs", body.runs());
    });
}

#[test]
fn it_counts_while_the_pause_lasts() {
    for_each_case(|case| async move {
        let body = Body::new().panics("again");
        let task = case.kind.spawn_retrying(named("pausing").timeout(SHORT), &body, 3, LONG);
        assert_timed_out(task.await, "pausing", SHORT);
        case.rt.idle().await;
        assert_eq!(body.runs(), 1);
    });
}

#[test]
fn a_zero_timeout_ends_what_does_not_end_at_once() {
    for_each_case(|case| async move {
        let body = Body::new().waits();
        let task = case.spawn_with(named("none").timeout(Duration::ZERO), &body);
        assert_timed_out(task.await, "none", Duration::ZERO);
        body.go.open();
        case.rt.idle().await;
        assert_eq!(body.held.made(), body.held.dropped());
    });
}

#[test]
fn a_timeout_is_the_outcome_only_if_it_comes_first() {
    for_each_case(|case| async move {
        // A cancel before it wins; so does the end.
        let body = Body::new().waits();
        let task = case.spawn_with(named("x").timeout(LONG), &body);
        body.started.pass().await;
        task.cancel();
        assert!(matches!(task.await, Err(Error::Cancelled { .. })));
        body.go.open();
        for round in 0..20u32 {
            let task = case.spawn_with(
                named("x").timeout(Duration::from_micros(u64::from(round) * 50)),
                &Body::new().returns(1),
            );
            match task.await {
                Ok(output) => assert_eq!(output.value, 1),
                Err(error) => assert!(matches!(error, Error::TimedOut { .. }), "{error}"),
            }
        }
    });
}

#[test]
fn inline_beats_the_block_and_children_inherit_that_of_the_block() {
    on_all_workers(|rt| async move {
        let (go, block) = (Gate::new(), Options::new().timeout(SHORT));
        let door = go.clone();
        let (short, long, child) = with_options(block, async {
            let short: DTask<()> = named("short").spawn(std::future::pending());
            let long = named("long").timeout(LONG).spawn(async move {
                door.pass().await;
                1
            });
            let parent = named("parent").timeout(LONG).spawn(async {
                let child: DTask<()> = named("child").spawn(std::future::pending());
                child.await
            });
            (short, long, parent)
        })
        .await;
        assert_timed_out(short.await, "short", SHORT);
        assert_timed_out(child.await.unwrap(), "child", SHORT);
        go.open();
        assert_eq!(long.await.unwrap(), 1);
        rt.idle().await;
    });
}

#[test]
fn a_body_sees_that_its_time_is_over() {
    on_workers(1, |rt| async move {
        let (go, seen) = (Gate::new(), Gate::new());
        let (door, sees) = (go.clone(), seen.clone());
        let task = spawn!((move || {
            assert!(!current().unwrap().is_cancelled());
            door.block();
            if current().unwrap().is_cancelled() {
                sees.open();
            }
        })(); name = "slow", timeout = SHORT);
        assert_timed_out(task.await, "slow", SHORT);
        go.open();
        rt.idle().await;
        assert!(seen.is_open());
    });
}

/// The wait of a body that blocks counts.
#[test]
fn blocking_waits_count() {
    on_all_workers(|rt| async move {
        for kind in [Kind::Future, Kind::Blocking] {
            let body = Body::new().waits();
            let inner = kind.spawn(Options::new(), &body);
            let outer = spawn!((move || inner.blocking_wait().map(|output| output.value))(); name = "outer", timeout = SHORT);
            assert_timed_out(outer.await, "outer", SHORT);
            body.go.open();
            rt.idle().await;
        }
    });
}

#[test]
fn many_timeouts_end_all() {
    on_all_workers(|rt| async move {
        let tasks: Vec<DTask<()>> =
            (0..1000).map(|_| named("one").timeout(SHORT).spawn(std::future::pending())).collect();
        for result in wait_all(tasks).await {
            assert_timed_out(result, "one", SHORT);
        }
        rt.idle().await;
    });
}
