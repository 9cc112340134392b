//! Cancelling a task in each of its states, by handle and by token.

use dagger_async::prelude::*;
use dagger_tests::{Body, Case, Census, Gate, Kind, Output, for_each_case, on_all_workers, on_workers};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tokio::sync::oneshot;

#[track_caller]
fn assert_cancelled<T: std::fmt::Debug>(result: Result<T, Error>, name: &str) {
    match &result {
        Err(error @ Error::Cancelled { root, .. }) => {
            assert_eq!(root.name(), name);
            assert!(error.to_string().contains(name), "{error}");
        }
        other => panic!("not cancelled: {other:?}"),
    }
}

/// A dependant never ran because of the cancelled `name`.
#[track_caller]
fn assert_dependant<T: std::fmt::Debug>(result: Result<T, Error>, name: &str) {
    match &result {
        Err(error @ Error::Dependency { root, cause, .. }) => {
            assert_eq!(root.name(), name);
            assert!(matches!(**cause, Error::Cancelled { .. }), "{cause:?}");
            assert_eq!(error.root().unwrap().id(), root.id());
        }
        other => panic!("not a failed dependency: {other:?}"),
    }
}

fn named(name: &str) -> Options {
    Options::new().name(name)
}

fn value_of(output: &Output) -> i32 {
    output.value
}

/// The ways to cancel a task.
#[derive(Clone, Copy, Debug)]
enum By {
    Handle,
    Token,
    OneOfTwoTokens,
    TokenOfTheBlock,
}

impl By {
    const ALL: [By; 4] = [By::Handle, By::Token, By::OneOfTwoTokens, By::TokenOfTheBlock];

    /// Spawns a task that this way can cancel.
    async fn spawn(self, case: &Case, options: Options, body: &Body) -> Target {
        let token = CancelToken::new();
        let task = match self {
            By::Handle => case.spawn_with(options, body),
            By::Token => case.spawn_with(options.cancel(token.clone()), body),
            By::OneOfTwoTokens => {
                case.spawn_with(options.cancel(CancelToken::new()).cancel(token.clone()), body)
            }
            By::TokenOfTheBlock => {
                let block = Options::new().cancel(token.clone());
                with_options(block, async { case.spawn_with(options.cancel(CancelToken::new()), body) }).await
            }
        };
        Target { by: self, task, token }
    }
}

/// A task and the token that can cancel it.
struct Target {
    by: By,
    task: DTask<Output>,
    token: CancelToken,
}

impl Target {
    /// Cancels the task; its handle sees that at once.
    fn cancel(&self) {
        match self.by {
            By::Handle => self.task.cancel(),
            _ => self.token.cancel(),
        }
        assert!(self.task.is_finished(), "the handle sees the cancel at once");
    }
}

#[test]
fn a_task_that_waits_for_an_input_never_runs() {
    for_each_case(|case| async move {
        for by in By::ALL {
            let (input, body) = (Body::new().waits(), Body::new());
            let before = case.spawn(&input);
            let target = by.spawn(&case, named("target").syncdeps([&before]), &body).await;
            let next = spawn!(value_of(&target.task));
            target.cancel();
            assert_dependant(next.await, "target");
            assert_cancelled(target.task.await, "target");
            input.go.open();
            before.await.unwrap();
            case.rt.idle().await;
            assert_eq!((body.runs(), body.held.made(), body.held.dropped()), (0, 1, 1));
        }
    });
}

#[test]
fn a_task_that_is_queued_never_runs() {
    for_each_case(|case| async move {
        if case.kind == Kind::Blocking {
            return; // It is not queued behind workers.
        }
        for by in By::ALL {
            let busy = case.occupy().await;
            let body = Body::new();
            let target = by.spawn(&case, named("target"), &body).await;
            let next = spawn!(value_of(&target.task));
            target.cancel();
            assert_dependant(next.await, "target");
            assert_cancelled(target.task.await, "target");
            busy.open();
            case.rt.idle().await;
            assert_eq!((body.runs(), body.held.made(), body.held.dropped()), (0, 1, 1));
        }
    });
}

/// The handle ends at once. A sync body goes on and its late result is dropped once; an async body is dropped where it
/// waits, and has no result.
#[test]
fn a_task_that_runs_ends_at_once() {
    for_each_case(|case| async move {
        for by in By::ALL {
            let body = Body::new().waits().returns(7);
            let target = by.spawn(&case, named("target"), &body).await;
            body.started.pass().await;
            let next = spawn!(value_of(&target.task));
            target.cancel();
            assert_cancelled(target.task.await, "target");
            if case.kind.is_async() {
                assert_dependant(next.await, "target");
                case.rt.idle().await;
                assert!(!body.left.is_open());
                assert_eq!((body.results.made(), body.held.dropped()), (0, 1));
            } else {
                assert_dependant(next.await, "target");
                assert!(!body.left.is_open(), "the body is not interrupted");
                assert_eq!(body.held.dropped(), 0, "the body still has its arguments");
                body.go.open();
                case.rt.idle().await;
                assert!(body.left.is_open());
                assert_eq!((body.results.made(), body.results.dropped()), (1, 1));
                assert_eq!((body.held.made(), body.held.dropped()), (1, 1));
            }
        }
    });
}

#[test]
fn a_late_failure_of_a_cancelled_body_changes_nothing() {
    for_each_case(|case| async move {
        for body in [Body::new().waits().panics("late"), Body::new().waits().fails("late")] {
            let task = case.spawn_with(named("target"), &body);
            body.started.pass().await;
            task.cancel();
            body.go.open();
            case.rt.idle().await;
            assert_cancelled(task.await, "target");
            // The worker is as good as before.
            assert_eq!(case.spawn(&Body::new().returns(1)).await.unwrap().value, 1);
        }
    });
}

#[test]
fn a_cancel_after_the_end_does_nothing() {
    for_each_case(|case| async move {
        for by in By::ALL {
            let body = Body::new().returns(7);
            let target = by.spawn(&case, named("target"), &body).await;
            target.task.wait().await;
            target.cancel();
            target.task.cancel();
            assert_eq!(target.task.await.unwrap().value, 7);
            assert_eq!((body.results.made(), body.results.dropped()), (1, 1));
        }
    });
}

#[test]
fn a_cancel_after_a_failure_keeps_the_failure() {
    for_each_case(|case| async move {
        let task = case.spawn(&Body::new().panics("first"));
        task.wait().await;
        task.cancel();
        assert!(matches!(task.await, Err(Error::Panicked { .. } | Error::Task { .. })));
    });
}

#[test]
fn a_second_cancel_does_nothing() {
    for_each_case(|case| async move {
        let body = Body::new().waits();
        let target = By::Token.spawn(&case, named("target"), &body).await;
        target.cancel();
        target.cancel();
        target.task.cancel();
        assert_cancelled(target.task.await, "target");
        body.go.open();
    });
}

#[test]
fn what_is_spawned_with_a_cancelled_token_is_cancelled_at_once() {
    for_each_case(|case| async move {
        let token = CancelToken::new();
        assert!(!token.is_cancelled());
        token.cancel();
        assert!(token.is_cancelled() && token.clone().is_cancelled());
        let body = Body::new();
        let task = case.spawn_with(named("late").cancel(CancelToken::new()).cancel(token.clone()), &body);
        assert!(task.is_finished());
        assert_cancelled(task.await, "late");
        let task = with_options(Options::new().cancel(token), async {
            case.spawn_with(named("inside").cancel(CancelToken::new()), &body)
        })
        .await;
        assert!(task.is_finished());
        let next = spawn!(value_of(&task));
        assert_dependant(next.await, "inside");
        assert_cancelled(task.await, "inside");
        case.rt.idle().await;
        assert_eq!((body.runs(), body.held.dropped()), (0, 2));
    });
}

#[test]
fn a_dependant_submitted_after_the_cancel_fails_too() {
    for_each_case(|case| async move {
        let body = Body::new().waits();
        let task = case.spawn_with(named("target"), &body);
        task.cancel();
        let next = spawn!(value_of(&task); name = "next");
        let last = spawn!((|x: i32| x)(next); syncdeps = [&task]);
        let error = last.await.unwrap_err();
        assert_eq!(error.root().unwrap().id(), task.id());
        assert_dependant(Err::<(), _>(error), "target");
        body.go.open();
    });
}

#[test]
fn a_running_body_sees_that_it_is_cancelled() {
    for_each_case(|case| async move {
        let (go, seen) = (Gate::new(), Arc::new(Mutex::new(None)));
        let (wait, before, sees, at) = (go.clone(), Gate::new(), seen.clone(), Gate::new());
        let (started, ended) = (before.clone(), at.clone());
        let body = move || {
            let me = current().unwrap();
            assert!(!me.is_cancelled());
            started.open();
            wait.block();
            *sees.lock().unwrap() = Some(me.is_cancelled() && current().unwrap().is_cancelled());
            ended.open();
        };
        let task = match case.kind {
            // An async body that is being polled is not interrupted either.
            kind if kind.is_async() => named("target").spawn(async move { body() }),
            kind => spawn!((body)(); name = "target", blocking = kind == Kind::Blocking),
        };
        before.pass().await;
        task.cancel();
        assert_cancelled(task.await, "target");
        go.open();
        at.pass().await;
        assert_eq!(*seen.lock().unwrap(), Some(true));
    });
}

#[test]
fn children_are_not_cancelled_with_their_parent() {
    on_all_workers(|_rt| async {
        let (go, started) = (Gate::new(), Gate::new());
        let (door, has_child) = (go.clone(), started.clone());
        let (send, child) = oneshot::channel();
        let parent = spawn(async move {
            let grandchild = Arc::new(Mutex::new(None));
            let (slot, inner) = (grandchild.clone(), door.clone());
            let child = spawn(async move {
                let task = spawn(async move {
                    inner.pass().await;
                    2
                });
                *slot.lock().unwrap() = Some(task);
                door.pass().await;
                1
            });
            send.send((child.clone(), grandchild)).unwrap();
            has_child.open();
            child.await.unwrap()
        });
        started.pass().await;
        let (child, grandchild) = child.await.unwrap();
        parent.cancel();
        assert!(matches!(parent.await, Err(Error::Cancelled { .. })));
        go.open();
        assert_eq!(child.await.unwrap(), 1);
        let grandchild = grandchild.lock().unwrap().take().unwrap();
        assert_eq!(grandchild.await.unwrap(), 2);
    });
}

#[test]
fn a_token_of_a_block_reaches_children_and_grandchildren() {
    on_all_workers(|rt| async move {
        for inner_token in [false, true] {
            let token = CancelToken::new();
            let (send, receive) = mpsc::channel();
            let send = Mutex::new(send);
            let grandchild_runs = Gate::new();
            let runs = grandchild_runs.clone();
            let dropped = Census::new();
            let (in_parent, in_child, in_grandchild) = (dropped.item(), dropped.item(), dropped.item());
            let parent = with_options(Options::new().cancel(token.clone()), async {
                spawn(async move {
                    let _item = in_parent;
                    let own =
                        if inner_token { Options::new().cancel(CancelToken::new()) } else { Options::new() };
                    let child = own.spawn(async move {
                        let _item = in_child;
                        let grandchild = spawn(async move {
                            let _item = in_grandchild;
                            runs.open();
                            std::future::pending::<()>().await;
                        });
                        send.lock().unwrap().send(grandchild.clone()).unwrap();
                        grandchild.await
                    });
                    child.await
                })
            })
            .await;
            grandchild_runs.pass().await;
            let grandchild = receive.recv().unwrap();
            token.cancel();
            assert!(parent.is_finished() && grandchild.is_finished());
            assert!(matches!(parent.await, Err(Error::Cancelled { .. })));
            assert!(matches!(grandchild.await, Err(Error::Cancelled { .. })));
            rt.idle().await;
            assert_eq!(dropped.dropped(), 3);
        }
    });
}

#[test]
fn an_inline_token_is_not_inherited() {
    on_all_workers(|_rt| async {
        let token = CancelToken::new();
        let go = Gate::new();
        let door = go.clone();
        let (send, receive) = oneshot::channel();
        let parent = Options::new().cancel(token.clone()).spawn(async move {
            let child = spawn(async move {
                door.pass().await;
                1
            });
            send.send(child).unwrap();
            std::future::pending::<()>().await;
        });
        let child = receive.await.unwrap();
        token.cancel();
        assert!(parent.await.is_err());
        go.open();
        assert_eq!(child.await.unwrap(), 1);
    });
}

#[test]
fn a_task_can_cancel_itself() {
    for_each_case(|case| async move {
        let (send, receive) = mpsc::channel::<DTask<i32>>();
        let receive = Mutex::new(receive);
        let results = Census::new();
        let (made, after) = (results.clone(), Arc::new(AtomicBool::new(false)));
        let went_on = after.clone();
        let own = move || {
            let me = receive.lock().unwrap().recv().unwrap();
            me.cancel();
            assert!(me.is_finished() && current().unwrap().is_cancelled());
            went_on.store(true, SeqCst);
            let _item = made.item();
        };
        let task: DTask<i32> = if case.kind.is_async() {
            spawn(async move {
                own();
                std::future::pending::<i32>().await
            })
        } else {
            spawn!((move || {
                own();
                7
            })(); blocking = case.kind == Kind::Blocking)
        };
        send.send(task.clone()).unwrap();
        assert!(matches!(task.await, Err(Error::Cancelled { .. })));
        case.rt.idle().await;
        assert!(after.load(SeqCst), "the body goes on to its next suspension");
        assert_eq!(results.made(), results.dropped());
    });
}

#[test]
fn another_task_can_cancel_it() {
    for_each_case(|case| async move {
        let body = Body::new().waits();
        let task = case.spawn_with(named("victim"), &body);
        body.started.pass().await;
        let token = CancelToken::new();
        let second = case.spawn_with(named("victim").cancel(token.clone()), &body);
        let cancels = move || {
            task.cancel();
            token.cancel();
            task
        };
        // Beside the workers: the victims may keep all of them.
        let task = spawn!((cancels)(); blocking = true).await.unwrap();
        assert_cancelled(task.await, "victim");
        assert_cancelled(second.await, "victim");
        body.go.open();
    });
}

/// The body is dropped although nothing wakes it any more.
#[test]
fn a_suspended_body_is_dropped_without_being_woken() {
    on_all_workers(|rt| async move {
        for _ in 0..50 {
            let held = Census::new();
            let item = held.item();
            let polls = Arc::new(AtomicUsize::new(0));
            let polled = polls.clone();
            let suspended = Gate::new();
            let at = suspended.clone();
            let task = spawn(async move {
                let _item = item;
                std::future::poll_fn(|_| {
                    polled.fetch_add(1, SeqCst);
                    at.open();
                    std::task::Poll::<()>::Pending
                })
                .await;
            });
            suspended.pass().await;
            task.cancel();
            assert!(matches!(task.await, Err(Error::Cancelled { .. })));
            rt.idle().await;
            assert_eq!((held.dropped(), polls.load(SeqCst)), (1, 1));
        }
    });
}

/// A waker of a cancelled task may outlive it.
#[test]
fn a_late_wake_of_a_cancelled_task_does_nothing() {
    on_all_workers(|rt| async move {
        for _ in 0..50 {
            let slot = Arc::new(Mutex::new(None));
            let (place, at) = (slot.clone(), Gate::new());
            let suspended = at.clone();
            let task = spawn(std::future::poll_fn(move |cx| {
                *place.lock().unwrap() = Some(cx.waker().clone());
                suspended.open();
                std::task::Poll::<()>::Pending
            }));
            at.pass().await;
            task.cancel();
            let waker = slot.lock().unwrap().take();
            if let Some(waker) = waker {
                waker.wake_by_ref();
                rt.idle().await;
                waker.wake();
            }
            drop(task);
            rt.idle().await;
        }
    });
}

#[test]
fn cancel_races_with_the_end_and_one_of_them_wins() {
    for_each_case(|case| async move {
        for _ in 0..200 {
            let body = Body::new().waits().returns(7);
            let task = case.spawn(&body);
            body.started.pass().await;
            let handle = Arc::new(task);
            let (cancels, go) = (handle.clone(), body.go.clone());
            let thread = std::thread::spawn(move || cancels.cancel());
            go.open();
            thread.join().unwrap();
            let task = Arc::into_inner(handle).unwrap();
            match task.await {
                Ok(output) => assert_eq!(output.value, 7),
                Err(error) => assert!(matches!(error, Error::Cancelled { .. }), "{error}"),
            }
            case.rt.idle().await;
            assert_eq!(body.results.made(), body.results.dropped());
            assert_eq!(body.held.made(), body.held.dropped());
        }
    });
}

#[test]
fn a_token_cancelled_while_tasks_are_spawned_misses_none() {
    on_all_workers(|rt| async move {
        for _ in 0..100 {
            let token = CancelToken::new();
            let cancels = token.clone();
            let (send, receive) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                receive.recv().unwrap();
                cancels.cancel();
            });
            let tasks: Vec<DTask<()>> = (0..40)
                .map(|index| {
                    if index == 20 {
                        send.send(()).unwrap();
                    }
                    Options::new().cancel(token.clone()).spawn(std::future::pending())
                })
                .collect();
            for result in wait_all(tasks).await {
                assert!(matches!(result, Err(Error::Cancelled { .. })));
            }
            thread.join().unwrap();
            rt.idle().await;
        }
    });
}

#[test]
fn one_token_cancels_many_tasks_in_all_states() {
    on_all_workers(|rt| async move {
        let token = CancelToken::new();
        let pending = Gate::new();
        let door = pending.clone();
        let never = spawn(async move { door.pass().await });
        let block = Options::new().cancel(token.clone());
        let tasks: Vec<DTask<()>> = with_options(block, async {
            (0..3000)
                .map(|index| match index % 3 {
                    0 => spawn(std::future::pending()),
                    1 => spawn!((|&()| ())(&never)),
                    _ => spawn!((|| ())(); priority = -1),
                })
                .collect()
        })
        .await;
        token.cancel();
        assert!(tasks.iter().all(DTask::is_finished));
        for (index, result) in wait_all(tasks).await.into_iter().enumerate() {
            let cancelled = matches!(result, Err(Error::Cancelled { .. }));
            assert!(cancelled || index % 3 == 2 && result.is_ok(), "{index}: {result:?}");
        }
        pending.open();
        rt.idle().await;
    });
}

/// A chain whose first task is cancelled: everybody has that root, and no stack overflows.
#[test]
fn a_cancel_travels_down_a_long_chain() {
    on_all_workers(|rt| async move {
        let go = Gate::new();
        let door = go.clone();
        let mut task = named("root").spawn(async move {
            door.pass().await;
            0
        });
        let root = task.clone();
        for _ in 0..200_000 {
            task = spawn!((|x: i32| x + 1)(task));
        }
        root.cancel();
        assert!(task.is_finished());
        assert_dependant(task.await, "root");
        rt.idle().await;
    });
}

#[test]
fn a_cancelled_task_is_not_tried_again() {
    for_each_case(|case| async move {
        // In the pause between two attempts.
        let body = Body::new().panics("again");
        let task = case.kind.spawn_retrying(named("target"), &body, 1_000_000, Duration::from_secs(600));
        body.started.pass().await;
        task.cancel();
        assert_cancelled(task.await, "target");
        case.rt.idle().await;
        assert_eq!(body.runs(), 1);
        // While it runs: what it does then is no reason to try again.
        let body = Body::new().waits().panics("again");
        let task = case.kind.spawn_retrying(named("target"), &body, 1_000_000, Duration::ZERO);
        body.started.pass().await;
        task.cancel();
        body.go.open();
        assert_cancelled(task.await, "target");
        case.rt.idle().await;
        assert_eq!(body.runs(), 1);
    });
}

#[test]
fn dropping_a_handle_detaches() {
    for_each_case(|case| async move {
        let body = Body::new().waits();
        drop(case.spawn(&body));
        body.started.pass().await;
        body.go.open();
        body.left.pass().await;
        case.rt.idle().await;
        assert_eq!((body.results.made(), body.results.dropped()), (1, 1));
    });
}

#[test]
fn dropping_the_future_that_awaits_does_not_cancel() {
    for_each_case(|case| async move {
        let body = Body::new().waits().returns(3);
        let mut task = case.spawn(&body);
        body.started.pass().await;
        let waited = tokio::time::timeout(Duration::from_millis(1), &mut task).await;
        assert!(waited.is_err());
        body.go.open();
        assert_eq!(task.await.unwrap().value, 3);
    });
}

/// A cancelled sync body keeps its worker until it returns, and then gives it back.
#[test]
fn the_worker_of_a_cancelled_body_is_free_when_it_returns() {
    on_workers(1, |_rt| async {
        let body = Body::new().waits();
        let task = Kind::Sync.spawn(Options::new(), &body);
        body.started.pass().await;
        task.cancel();
        let next = spawn!((|| 1)());
        assert!(task.await.is_err());
        assert!(!next.is_finished());
        body.go.open();
        assert_eq!(next.await.unwrap(), 1);
    });
}

/// A blocking wait for a task that is cancelled ends, also on a worker.
#[test]
fn a_cancel_wakes_who_blocks() {
    on_all_workers(|_rt| async {
        let never: DTask<()> = spawn(std::future::pending());
        let (of_task, waits) = (never.clone(), Gate::new());
        let at = waits.clone();
        let inside = spawn!((move || {
            at.open();
            of_task.blocking_wait()
        })());
        let of_thread = never.clone();
        let outside = std::thread::spawn(move || of_thread.blocking_wait());
        waits.pass().await;
        never.cancel();
        assert!(matches!(inside.await.unwrap(), Err(Error::Cancelled { .. })));
        assert!(matches!(outside.join().unwrap(), Err(Error::Cancelled { .. })));
    });
}
