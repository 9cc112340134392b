//! `retries`, `retry_delay` and `retry(..)`.

use dagger_async::prelude::*;
use dagger_tests::{
    Body, Census, Failure, Gate, Item, Kind, for_each_case, on_all_workers, on_workers, timed,
};
use std::panic::panic_any;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

const NOW: Duration = Duration::ZERO;

/// Counts calls, and says which of them succeeds.
#[derive(Clone)]
struct Calls(Arc<(AtomicU32, u32)>);

impl Calls {
    fn succeed_at(call: u32) -> Self {
        Calls(Arc::new((AtomicU32::new(0), call)))
    }
    fn count(&self) -> u32 {
        self.0.0.load(SeqCst)
    }
    /// `Err` with the number of the call, from 0, before the one that succeeds.
    fn call(&self) -> Result<u32, Failure> {
        let call = self.0.0.fetch_add(1, SeqCst);
        assert_eq!(current().unwrap().attempt(), call, "attempt() counts from 0");
        if call == self.0.1 { Ok(call) } else { Err(Failure(format!("call {call}"))) }
    }
    async fn later(&self) -> Result<u32, Failure> {
        tokio::task::yield_now().await;
        let result = self.call();
        tokio::task::yield_now().await;
        result
    }
}

fn fallible(calls: Calls) -> Result<u32, Failure> {
    calls.call()
}
fn panicking(calls: Calls) -> u32 {
    calls.call().unwrap_or_else(|error| panic!("{error}"))
}
async fn fallible_later(calls: Calls) -> Result<u32, Failure> {
    calls.later().await
}
async fn panicking_later(calls: Calls) -> u32 {
    calls.later().await.unwrap_or_else(|error| panic!("{error}"))
}
async fn by_reference(calls: &Calls) -> Result<u32, Failure> {
    calls.later().await
}

/// The ways to say that a call is tried again `n` times.
const WAYS: usize = 12;

fn spawn_way(way: usize, calls: &Calls, n: u32) -> DTask<u32> {
    let calls = calls.clone();
    match way {
        0 => spawn!(fallible(calls)?; retries = n),
        1 => spawn!(panicking(calls); retries = n),
        2 => spawn!(async fallible_later(calls)?; retries = n),
        3 => spawn!(async panicking_later(calls); retries = n),
        4 => spawn!((move || calls.call())()?; retries = n),
        5 => spawn!(fallible(calls)?; retries = n, blocking = true),
        6 => spawn!(fallible(calls)?; retry_delay = Duration::from_micros(10), retries = n),
        7 => try_spawn(retry(n, NOW, move || fallible_later(calls.clone()))),
        8 => spawn(retry(n, NOW, move || panicking_later(calls.clone()))),
        9 => Options::new().name("x").spawn(retry(n, NOW, move || panicking_later(calls.clone()))),
        10 => Options::new().try_spawn(retry(n, NOW, move || fallible_later(calls.clone()))),
        11 => {
            let calls = spawn(async move { calls });
            spawn!(async by_reference(&calls)?; retries = n, name = "by reference")
        }
        _ => unreachable!(),
    }
}

#[test]
fn n_retries_are_n_runs_after_the_first() {
    on_all_workers(|_rt| async {
        for way in 0..WAYS {
            for n in [0, 1, 2, 5] {
                // It succeeds at the last run that there is, or would at the next.
                for (succeed_at, runs) in [(0, 1), (n, n + 1), (n + 1, n + 1)] {
                    let calls = Calls::succeed_at(succeed_at);
                    let result = spawn_way(way, &calls, n).await;
                    assert_eq!(calls.count(), runs, "way {way}, {n} retries");
                    match result {
                        Ok(call) => assert_eq!((call, succeed_at <= n), (succeed_at, true)),
                        Err(error) => {
                            assert!(succeed_at > n, "way {way}: {error}");
                            let last = format!("call {n}");
                            assert!(error.to_string().contains(&last), "the last error is reported: {error}");
                            assert!(matches!(error, Error::Task { .. } | Error::Panicked { .. }));
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn a_body_of_each_kind_is_tried_again() {
    for_each_case(|case| async move {
        for (n, delay) in [(0, NOW), (3, NOW), (2, Duration::from_micros(100))] {
            for body in [Body::new().panics("again"), Body::new().fails("again")] {
                let task = case.kind.spawn_retrying(Options::new().name("stubborn"), &body, n, delay);
                let error = task.await.unwrap_err();
                assert!(error.to_string().contains("again"), "{error}");
                assert_eq!(error.root().unwrap().name(), "stubborn");
                case.rt.idle().await;
                assert_eq!(body.runs() as u32, n + 1);
                assert_eq!(body.held.made(), body.held.dropped());
            }
            let body = Body::new().returns(7);
            let task = case.kind.spawn_retrying(Options::new(), &body, n, delay);
            assert_eq!(task.await.unwrap().value, 7);
            case.rt.idle().await;
            assert_eq!((body.runs(), body.results.made(), body.results.dropped()), (1, 1, 1));
            assert_eq!(body.held.made(), body.held.dropped());
        }
    });
}

/// Under `spawn`, and without `?`, an `Err` is a plain value: it is no failure.
#[test]
fn an_err_is_a_plain_value_where_it_fails_nothing() {
    on_all_workers(|_rt| async {
        let calls = Calls::succeed_at(3);
        let of_task = calls.clone();
        let task = spawn(retry(5, NOW, move || fallible_later(of_task.clone())));
        assert_eq!(task.await.unwrap(), Err(Failure("call 0".into())));
        assert_eq!(calls.count(), 1);
        let calls = Calls::succeed_at(3);
        let task = spawn!(fallible(calls.clone()); retries = 5);
        assert_eq!(task.await.unwrap(), Err(Failure("call 0".into())));
        assert_eq!(calls.count(), 1);
    });
}

#[test]
fn retry_can_be_awaited_inside_a_task_and_outside() {
    on_all_workers(|_rt| async {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let inside = spawn(async move {
            retry(3, NOW, move || {
                let call = counted.fetch_add(1, SeqCst);
                async move {
                    assert!(call == 2, "call {call}");
                    call
                }
            })
            .await
        });
        assert_eq!(inside.await.unwrap(), 2);
        let count = AtomicU32::new(0);
        let outside = retry(3, Duration::from_millis(1), || {
            let call = count.fetch_add(1, SeqCst);
            async move {
                assert!(call == 3, "call {call}");
                call
            }
        });
        assert_eq!(outside.await, 3);
    });
}

#[test]
fn the_number_of_retries_is_any_u32_expression() {
    on_workers(1, |_rt| async {
        fn some() -> u32 {
            2
        }
        struct Settings {
            retries: u32,
        }
        let settings = Settings { retries: 1 };
        for (task, runs) in [
            (spawn!(panicking(Calls::succeed_at(2)); retries = some()), 2),
            (spawn!(panicking(Calls::succeed_at(1)); retries = settings.retries), 1),
            (spawn!(panicking(Calls::succeed_at(3)); retries = if runs() { 1 + 2 } else { 0 }), 3),
            (spawn!(panicking(Calls::succeed_at(3)); retries = u32::MAX), 3),
        ] {
            assert_eq!(task.await.unwrap(), runs);
        }
        fn runs() -> bool {
            true
        }
    });
}

#[test]
fn the_delay_passes_between_the_runs() {
    for_each_case(|case| async move {
        let delay = Duration::from_millis(20);
        let body = Body::new().panics("again");
        let task = case.kind.spawn_retrying(Options::new(), &body, 2, delay);
        let (result, took) = timed(task).await;
        assert!(result.is_err());
        assert!(took >= 2 * delay && took < 2 * delay + Duration::from_secs(5), "{took:?}");
        assert_eq!(body.runs(), 3);
    });
}

/// Between two runs the task holds no worker.
#[test]
fn the_pause_leaves_the_worker_to_others() {
    for_each_case(|case| async move {
        let body = Body::new().panics("again");
        let tasks: Vec<_> = (0..case.workers)
            .map(|_| case.kind.spawn_retrying(Options::new(), &body, 1, Duration::from_secs(600)))
            .collect();
        body.started.pass().await;
        assert_eq!(spawn!((|| 1)()).await.unwrap(), 1);
        for task in tasks {
            task.cancel();
            assert!(task.await.is_err());
        }
    });
}

#[test]
fn arguments_by_value_are_cloned_for_each_run() {
    on_all_workers(|rt| async move {
        for way in ["plain", "task", "await"] {
            let census = Census::new();
            let calls = Calls::succeed_at(2);
            let callee = move |_item: Item| calls.call();
            let task = match way {
                "plain" => spawn!((callee)(census.item())?; retries = 4),
                "task" => {
                    let of_task = census.clone();
                    let item = spawn!((move || of_task.item())());
                    spawn!((callee)(item)?; retries = 4)
                }
                _ => {
                    let item = census.item();
                    spawn!((callee)(Await(async move { item }))?; retries = 4)
                }
            };
            assert_eq!(task.await.unwrap(), 2);
            rt.idle().await;
            assert!((3..=4).contains(&census.made()), "{way}: three runs, {} items", census.made());
            assert_eq!(census.made(), census.dropped());
        }
    });
}

#[test]
fn arguments_by_reference_are_the_same_each_time() {
    on_all_workers(|_rt| async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let text = spawn!((|| "text".to_owned())());
        let sees = seen.clone();
        let task = spawn!((move |text: &String| {
            let mut seen = sees.lock().unwrap();
            seen.push(text.as_ptr() as usize);
            let runs = seen.len();
            drop(seen);
            assert!(runs == 3, "run {runs}");
            text.len()
        })(&text); retries = 5);
        assert_eq!(task.await.unwrap(), 4);
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen, [seen[0]; 3]);
    });
}

/// What a run changes in its captures is not seen by the next.
#[test]
fn a_closure_starts_each_run_as_it_was() {
    on_all_workers(|_rt| async {
        let mut own = 0;
        let task = spawn!((move || {
            own += 1;
            if current().unwrap().attempt() < 3 { Err(Failure(own.to_string())) } else { Ok(own) }
        })()?; retries = 3);
        assert_eq!(task.await.unwrap(), 1);
    });
}

#[test]
fn a_failed_input_is_not_tried_again() {
    on_all_workers(|_rt| async {
        let calls = Calls::succeed_at(0);
        let bad = spawn!((|| -> Calls { panic!("bad") })(); name = "bad");
        let task = spawn!(fallible(bad)?; retries = 10);
        assert_eq!(task.await.unwrap_err().root().unwrap().name(), "bad");
        assert_eq!(calls.count(), 0);
    });
}

#[test]
fn a_failure_is_handed_on_only_after_the_last_run() {
    on_all_workers(|_rt| async {
        let calls = Calls::succeed_at(3);
        let task = spawn!(fallible(calls.clone())?; retries = 3);
        let next = spawn!((|x: u32| x + 1)(task));
        assert_eq!(next.await.unwrap(), 4);
        let task = spawn!(fallible(Calls::succeed_at(9))?; retries = 3, name = "root");
        let error = spawn!((|x: u32| x + 1)(task)).await.unwrap_err();
        assert!(error.to_string().contains("root") && error.to_string().contains("call 3"), "{error}");
    });
}

#[test]
fn attempt_is_0_without_retries() {
    for_each_case(|case| async move {
        let read = || current().unwrap().attempt();
        let attempt = match case.kind {
            kind if kind.is_async() => spawn(async move { read() }).await,
            kind => spawn!((read)(); blocking = kind == Kind::Blocking).await,
        };
        assert_eq!(attempt.unwrap(), 0);
    });
}

/// The attempt is the task's, also after suspensions; a child counts for itself.
#[test]
fn attempt_is_that_of_the_task_itself() {
    on_all_workers(|_rt| async {
        let task = try_spawn(retry(3, NOW, || async {
            tokio::task::yield_now().await;
            let child = spawn!((|| current().unwrap().attempt())()).await.unwrap();
            assert_eq!(child, 0);
            let attempt = current().unwrap().attempt();
            if attempt < 2 { Err("again") } else { Ok(attempt) }
        }));
        assert_eq!(task.await.unwrap(), 2);
    });
}

/// Panics when it is dropped.
struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a drop that panics");
    }
}

#[test]
fn a_payload_whose_drop_panics_does_not_end_the_retries() {
    on_all_workers(|rt| async move {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = runs.clone();
        let body = move || {
            if counted.fetch_add(1, SeqCst) < 2 {
                panic_any(Bomb);
            }
            7
        };
        let task = spawn!((body.clone())(); retries = 5);
        assert_eq!(task.await.unwrap(), 7);
        runs.store(0, SeqCst);
        let task = spawn(retry(5, NOW, move || {
            let body = body.clone();
            async move { body() }
        }));
        assert_eq!(task.await.unwrap(), 7);
        rt.idle().await;
    });
}

#[test]
fn an_error_whose_drop_panics_does_not_end_the_retries() {
    #[derive(Debug)]
    struct Loud(bool);
    impl std::fmt::Display for Loud {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("loud")
        }
    }
    impl std::error::Error for Loud {}
    impl Drop for Loud {
        fn drop(&mut self) {
            assert!(self.0, "a drop that panics");
        }
    }
    on_all_workers(|_rt| async {
        let attempt = || current().unwrap().attempt();
        let again = move || if attempt() < 2 { Err(Loud(false)) } else { Ok(7) };
        assert_eq!(spawn!((again)()?; retries = 5).await.unwrap(), 7);
        assert_eq!(try_spawn(retry(5, NOW, move || async move { again() })).await.unwrap(), 7);
    });
}

/// A `retry` gives its number of runs to each task that awaits it, and to no other.
#[test]
fn many_tasks_are_tried_again_at_once() {
    on_all_workers(|_rt| async {
        let gate = Gate::new();
        let tasks: Vec<_> = (0..200u32)
            .map(|index| {
                let door = gate.clone();
                let calls = Calls::succeed_at(index % 5);
                try_spawn(retry(4, NOW, move || {
                    let (door, calls) = (door.clone(), calls.clone());
                    async move {
                        door.pass().await;
                        calls.later().await
                    }
                }))
            })
            .collect();
        gate.open();
        for (index, result) in wait_all(tasks).await.into_iter().enumerate() {
            assert_eq!(result.unwrap() as usize, index % 5);
        }
    });
}
