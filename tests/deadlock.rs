//! Waits that would never end are errors, and waits that will end are not.

use dagger_async::prelude::*;
use dagger_tests::{Gate, on_all_workers, on_workers};
use futures::stream::{FuturesUnordered, StreamExt};
use futures::task::noop_waker_ref;
use futures::{FutureExt, future};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::Context;
use std::time::Duration;
use tokio::sync::oneshot;

/// What a task of these tests gives: a number, or why its wait failed.
type Said = Result<i32, Error>;
type Talker = DTask<Said>;

/// A number from a task that waited, or the first failure.
fn flat(result: Result<Said, Error>) -> Said {
    result.and_then(|said| said)
}

#[track_caller]
fn assert_deadlock(said: &Said, names: &[&str]) {
    let Err(error @ Error::Deadlock { path, root, .. }) = said else { panic!("no deadlock, but {said:?}") };
    let text = error.to_string();
    for name in names {
        assert!(path.iter().any(|task| task.name() == *name), "{name} is not in the path: {text}");
        assert!(text.contains(&format!("`{name}`")), "{name} is not in the text: {text}");
    }
    for task in path.iter() {
        assert!(task.site().contains("deadlock.rs:"), "no spawn site of {}: {text}", task.name());
        assert!(text.contains(task.site()), "no spawn site of {}: {text}", task.name());
    }
    assert_eq!(path.len(), names.len(), "{text}");
    assert!(names.contains(&root.name()), "the root is {root}");
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Await,
    AwaitRef,
    WaitAll,
    Timeout,
    Boxed,
    Block,
}

impl Way {
    const ASYNC: [Way; 5] = [Way::Await, Way::AwaitRef, Way::WaitAll, Way::Timeout, Way::Boxed];

    async fn wait(self, task: Talker) -> Said {
        match self {
            Way::Await => flat(task.await),
            Way::AwaitRef => (&task).await.and_then(|said| (*said).clone()),
            Way::WaitAll => flat(wait_all([task]).await.remove(0)),
            Way::Timeout => match tokio::time::timeout(Duration::from_secs(600), task).await {
                Ok(result) => flat(result),
                Err(elapsed) => panic!("{elapsed}"),
            },
            Way::Boxed => flat(task.boxed().await),
            Way::Block => flat(task.blocking_wait()),
        }
    }
}

/// A task that waits for the one it is sent, and says how that went.
#[track_caller]
fn waiter(name: &str, way: Way) -> (Talker, oneshot::Sender<Talker>) {
    let (send, receive) = oneshot::channel::<Talker>();
    (Options::new().name(name).spawn(async move { way.wait(receive.await.unwrap()).await }), send)
}

/// The same with a synchronous body.
#[track_caller]
fn blocker(name: &str, blocking: bool) -> (Talker, mpsc::Sender<Talker>) {
    let (send, receive) = mpsc::channel::<Talker>();
    let receive = Mutex::new(receive);
    let body = move || {
        let task = receive.lock().unwrap().recv().unwrap();
        flat(task.blocking_wait())
    };
    (spawn!((body)(); name = name, blocking = blocking), send)
}

#[test]
fn a_task_that_awaits_itself_is_told_so_and_goes_on() {
    on_all_workers(|_rt| async {
        for way in [&Way::ASYNC[..], &[Way::Block]].concat() {
            let (task, send) = waiter("ouroboros", way);
            send.send(task.clone()).unwrap();
            assert_deadlock(&task.await.unwrap(), &["ouroboros"]);
        }
    });
}

#[test]
fn a_task_that_blocks_on_itself_is_told_so_and_goes_on() {
    on_all_workers(|_rt| async {
        for blocking in [false, true] {
            let (task, send) = blocker("ouroboros", blocking);
            send.send(task.clone()).unwrap();
            assert_deadlock(&task.await.unwrap(), &["ouroboros"]);
        }
    });
}

#[test]
fn wait_on_oneself_returns() {
    on_all_workers(|_rt| async {
        let (send, receive) = oneshot::channel::<DTask<i32>>();
        let task = spawn(async move {
            receive.await.unwrap().wait().await;
            7
        });
        send.send(task.clone()).unwrap();
        assert_eq!(task.await.unwrap(), 7);
    });
}

#[test]
fn a_task_that_awaits_its_dependant_is_told_so_and_both_end() {
    on_all_workers(|_rt| async {
        for way in [&Way::ASYNC[..], &[Way::Block]].concat() {
            for edge in ["value", "reference", "syncdep", "two edges away"] {
                let (first, send) = waiter("first", way);
                let next = |task: &Talker| {
                    let name = "next";
                    match edge {
                        "value" => spawn!((|_: Said| Ok(2))(task.clone()); name = name),
                        "reference" => spawn!((|_: &Said| Ok(2))(task); name = name),
                        "syncdep" => spawn!((|| Ok(2))(); name = name, syncdeps = [task]),
                        _ => {
                            let middle = spawn!((|_: &Said| ())(task); name = "middle");
                            spawn!((|_: ()| Ok(2))(middle); name = name)
                        }
                    }
                };
                let next = next(&first);
                send.send(next.clone()).unwrap();
                let said = first.await.unwrap();
                match edge {
                    "two edges away" => assert_deadlock(&said, &["first", "middle", "next"]),
                    _ => assert_deadlock(&said, &["first", "next"]),
                }
                assert_eq!(flat(next.await).unwrap(), 2, "{way:?} {edge}");
            }
        }
    });
}

#[test]
fn a_sync_body_that_blocks_on_its_dependant_is_told_so_and_both_end() {
    on_all_workers(|_rt| async {
        for blocking in [false, true] {
            let (first, send) = blocker("first", blocking);
            let next = spawn!((|_: &Said| Ok(2))(&first); name = "next");
            send.send(next.clone()).unwrap();
            assert_deadlock(&first.await.unwrap(), &["first", "next"]);
            assert_eq!(flat(next.await).unwrap(), 2);
        }
    });
}

#[test]
fn an_earlier_step_that_awaits_a_later_one_is_told_so() {
    on_all_workers(|_rt| async {
        let (first, send, next) = in_order(async {
            let (first, send) = waiter("first", Way::Await);
            let next: Talker = spawn!((|| Ok(2))(); name = "next");
            (first, send, next)
        })
        .await;
        send.send(next.clone()).unwrap();
        assert_deadlock(&first.await.unwrap(), &["first", "next"]);
        assert_eq!(flat(next.await).unwrap(), 2);
    });
}

/// A ring of tasks, each awaiting the next: they all end, and somebody is told.
async fn ring(tasks: Vec<(Talker, oneshot::Sender<Talker>)>) {
    let handles: Vec<Talker> = tasks.iter().map(|(task, _)| task.clone()).collect();
    for (index, (_, send)) in tasks.into_iter().enumerate() {
        send.send(handles[(index + 1) % handles.len()].clone()).unwrap();
    }
    check_ring(handles).await;
}

async fn check_ring(handles: Vec<Talker>) {
    let all: Vec<Said> = wait_all(handles).await.into_iter().map(|said| said.unwrap()).collect();
    let told = |said: &Said| matches!(said, Err(Error::Deadlock { .. }));
    // One is told; the others get its answer, which is the same error.
    assert!(all.iter().all(told), "{all:?}");
    let Err(error) = &all[0] else { unreachable!() };
    for name in ["a", "b", "c"].iter().take(all.len()) {
        assert!(error.to_string().contains(&format!("`{name}`")), "{name} is not in {error}");
    }
}

#[test]
fn two_tasks_that_await_each_other_end() {
    on_all_workers(|_rt| async {
        for _ in 0..100 {
            // A timer may end a wait, so a ring of waits with timeouts is none for ever.
            for way in [Way::Await, Way::AwaitRef, Way::WaitAll, Way::Boxed] {
                ring(vec![waiter("a", way), waiter("b", way)]).await;
            }
        }
    });
}

#[test]
fn a_ring_of_three_ends() {
    on_all_workers(|_rt| async {
        for _ in 0..100 {
            for way in [Way::Await, Way::AwaitRef] {
                ring(vec![waiter("a", way), waiter("b", way), waiter("c", way)]).await;
            }
        }
    });
}

#[test]
fn a_ring_of_async_bodies_that_block_ends() {
    on_all_workers(|_rt| async {
        for _ in 0..50 {
            ring(vec![waiter("a", Way::Block), waiter("b", Way::Await), waiter("c", Way::Block)]).await;
        }
    });
}

#[test]
fn sync_bodies_that_block_on_each_other_at_once_end() {
    for workers in [2, 8] {
        for blocking in [false, true] {
            on_workers(workers, move |_rt| async move {
                for _ in 0..500 {
                    let barrier = Arc::new(Barrier::new(2));
                    let spawn_one = |name: &str| {
                        let (send, receive) = mpsc::channel::<Talker>();
                        let (receive, barrier) = (Mutex::new(receive), barrier.clone());
                        let body = move || {
                            let other = receive.lock().unwrap().recv().unwrap();
                            barrier.wait();
                            flat(other.blocking_wait())
                        };
                        (spawn!((body)(); name = name, blocking = blocking), send)
                    };
                    let ((a, to_a), (b, to_b)) = (spawn_one("a"), spawn_one("b"));
                    to_a.send(b.clone()).unwrap();
                    to_b.send(a.clone()).unwrap();
                    check_ring(vec![a, b]).await;
                }
            });
        }
    }
}

/// The awaited task is queued behind the waiting one, so it runs on the waiting one's stack.
#[test]
fn a_body_run_in_place_that_blocks_on_the_one_below_it_is_told_so() {
    on_all_workers(|_rt| async {
        for _ in 0..20 {
            let (send, receive) = mpsc::channel::<Talker>();
            let receive = Mutex::new(receive);
            let a: Talker = spawn!((move || {
                let me = receive.lock().unwrap().recv().unwrap();
                let b: Talker = spawn!((move || flat(me.blocking_wait()))(); name = "b");
                flat(b.blocking_wait())
            })(); name = "a");
            send.send(a.clone()).unwrap();
            check_ring(vec![a]).await;
        }
    });
}

#[test]
fn an_async_body_run_in_place_that_awaits_the_one_below_it_is_told_so() {
    on_all_workers(|_rt| async {
        for _ in 0..20 {
            let (send, receive) = mpsc::channel::<Talker>();
            let receive = Mutex::new(receive);
            let a: Talker = spawn!((move || {
                let me = receive.lock().unwrap().recv().unwrap();
                let b: Talker = Options::new().name("b").spawn(async move { flat(me.await) });
                flat(b.blocking_wait())
            })(); name = "a");
            send.send(a.clone()).unwrap();
            check_ring(vec![a]).await;
        }
    });
}

/// `a` awaits `b`, `b` awaits `c`, and `c` comes after `a` as a syncdep: the syncdep must not hide the cycle.
#[test]
fn a_ring_through_awaits_and_a_syncdep_ends() {
    on_all_workers(|_rt| async {
        for _ in 0..20 {
            let at_b = Gate::new();
            let (a, to_a) = waiter("a", Way::Await);
            let (send, receive) = oneshot::channel::<Talker>();
            let gate = at_b.clone();
            let b: Talker = Options::new().name("b").spawn(async move {
                gate.pass().await;
                flat(receive.await.unwrap().await)
            });
            let c: Talker = spawn!((|| Ok(3))(); name = "c", syncdeps = [&a]);
            to_a.send(b.clone()).unwrap();
            // With one worker `a` waits for `b` now, since `b` cannot run before that.
            at_b.open();
            send.send(c.clone()).unwrap();
            // Whichever of the two began to wait last is told, and `b` gives what `c` gave otherwise.
            match flat(b.await) {
                Ok(given) => assert_eq!(given, 3),
                said => assert_deadlock(&said, &["a", "b", "c"]),
            }
            assert_deadlock(&flat(a.await), &["a", "b", "c"]);
            assert_eq!(flat(c.await).unwrap(), 3);
        }
    });
}

/// A body may look at `current()` and keep it; that is no reason to wait for ever.
#[test]
fn a_ring_of_tasks_that_keep_current_ends() {
    on_all_workers(|_rt| async {
        for _ in 0..20 {
            let make = |name: &str| {
                let (send, receive) = oneshot::channel::<Talker>();
                let task: Talker = Options::new().name(name).spawn(async move {
                    let me = current().unwrap();
                    let said = flat(receive.await.unwrap().await);
                    assert_eq!(me.attempt(), 0);
                    said
                });
                (task, send)
            };
            ring(vec![make("a"), make("b")]).await;
        }
    });
}

#[test]
fn awaiting_a_task_of_a_bulk_inside_it_is_a_deadlock_and_the_task_goes_on() {
    on_all_workers(|_rt| async {
        let task = bulk(async {
            let task: Talker = spawn!((|| Ok(5))(); name = "held");
            for way in Way::ASYNC {
                assert_deadlock(&way.wait(task.clone()).await, &["held"]);
            }
            assert_deadlock(&flat(task.clone().blocking_wait()), &["held"]);
            task.wait().await;
            assert!(!task.is_finished());
            task
        })
        .await;
        assert_eq!(flat(task.await).unwrap(), 5);
    });
}

#[test]
fn awaiting_a_held_task_inside_a_task_of_its_own_and_in_nested_bulks_is_a_deadlock() {
    on_all_workers(|_rt| async {
        let outer = spawn(async {
            bulk(async {
                let inner = bulk(async { spawn!((|| 1)(); name = "inner") }).await;
                assert!(matches!(inner.clone().await, Err(Error::Deadlock { .. })));
                let next = spawn!((|x: i32| x + 1)(inner); name = "next");
                assert!(matches!(next.clone().await, Err(Error::Deadlock { .. })));
                next
            })
            .await
            .await
        });
        assert_eq!(outer.await.unwrap().unwrap(), 2);
    });
}

/// `t` is not held back, but it waits for a task that is.
#[test]
fn awaiting_what_waits_for_a_held_task_is_a_deadlock_in_a_task() {
    // With one worker `t` waits as soon as the body goes on after its `at`.
    on_workers(1, |_rt| async {
        let outer: Talker = spawn(async {
            let (at, (send, receive)) = (Gate::new(), oneshot::channel::<Talker>());
            let waits = at.clone();
            let t: Talker = Options::new().name("t").spawn(async move {
                let held = receive.await.unwrap();
                waits.open();
                flat(held.await)
            });
            let (held, said) = bulk(async {
                let held: Talker = spawn!((|| Ok(5))(); name = "held");
                send.send(held.clone()).unwrap();
                at.pass().await;
                let said = flat((&t).await.map(|said| (*said).clone()));
                (held, said)
            })
            .await;
            assert_eq!(flat(held.await).unwrap(), 5);
            assert_eq!(flat(t.await).unwrap(), 5);
            said
        });
        assert!(matches!(outer.await.unwrap(), Err(Error::Deadlock { .. })));
    });
}

// Waits that end.

#[test]
fn deep_nesting_of_awaits_is_no_deadlock() {
    fn nest(depth: u32) -> DTask<u32> {
        spawn(async move { if depth == 0 { 0 } else { nest(depth - 1).await.unwrap() + 1 } })
    }
    on_all_workers(|_rt| async {
        assert_eq!(nest(1000).await.unwrap(), 1000);
    });
}

#[test]
fn deep_nesting_of_blocking_waits_is_no_deadlock() {
    fn nest(depth: u32) -> u32 {
        if depth == 0 { 0 } else { spawn!(nest(depth - 1)).blocking_wait().unwrap() + 1 }
    }
    on_all_workers(|_rt| async {
        assert_eq!(spawn!(nest(300)).await.unwrap(), 300);
    });
}

#[test]
fn a_diamond_of_awaits_is_no_deadlock() {
    on_all_workers(|_rt| async {
        for _ in 0..200 {
            let top = spawn(async {
                tokio::task::yield_now().await;
                1
            });
            let (left, right) = (top.clone(), top.clone());
            let left = spawn(async move { left.await.unwrap() + 1 });
            let right = spawn!((move || right.blocking_wait().unwrap() + 2)());
            let bottom = spawn(async move { left.await.unwrap() + right.await.unwrap() });
            assert_eq!(bottom.await.unwrap(), 5);
            assert_eq!(top.await.unwrap(), 1);
        }
    });
}

#[test]
fn many_tasks_may_await_one() {
    on_all_workers(|_rt| async {
        let gate = Gate::new();
        let door = gate.clone();
        let one = spawn(async move {
            door.pass().await;
            7
        });
        let many: Vec<_> = (0..2000)
            .map(|_| {
                let one = one.clone();
                spawn(async move { one.await.unwrap() })
            })
            .collect();
        gate.open();
        assert!(wait_all(many).await.into_iter().all(|x| x.unwrap() == 7));
    });
}

/// `a` waits for `b` or the gate, so it ends although `b` awaits `a`.
async fn wait_with_alternative<F, M>(select: M)
where
    M: Fn(Talker, Gate) -> F + Clone + Send + 'static,
    F: Future<Output = i32> + Send + 'static,
{
    for _ in 0..20 {
        let (gate, b_may) = (Gate::new(), Gate::new());
        let (send, receive) = oneshot::channel::<Talker>();
        let (select, door, may) = (select.clone(), gate.clone(), b_may.clone());
        let a: Talker = Options::new().name("a").spawn(async move {
            let b = receive.await.unwrap();
            may.open();
            Ok(select(b, door).await)
        });
        let (of_a, asking) = (a.clone(), Gate::new());
        let asks = asking.clone();
        let b: Talker = Options::new().name("b").spawn(async move {
            b_may.pass().await;
            asks.open();
            flat(of_a.await)
        });
        send.send(b.clone()).unwrap();
        asking.pass().await;
        tokio::task::yield_now().await;
        gate.open();
        assert_eq!(flat(a.await).unwrap(), 1);
        let said = flat(b.await);
        assert!(matches!(said, Ok(1)), "`b` waits for `a`, which ends: {said:?}");
    }
}

/// Whichever of the two begins to wait last closes the cycle; if that is `a` it may be told so.
fn first(said: Result<Said, Error>) -> i32 {
    match said {
        Err(Error::Deadlock { .. }) => 1,
        other => panic!("{other:?}"),
    }
}

#[test]
fn select_with_an_alternative_is_no_deadlock() {
    on_all_workers(|_rt| async {
        wait_with_alternative(|b, gate| async move {
            tokio::select! {
                said = b => first(said),
                () = gate.pass() => 1,
            }
        })
        .await;
    });
}

#[test]
fn a_timeout_around_a_wait_is_no_deadlock() {
    on_all_workers(|_rt| async {
        wait_with_alternative(|b, _gate| async move {
            match tokio::time::timeout(Duration::from_millis(5), b).await {
                Ok(said) => first(said),
                Err(_) => 1,
            }
        })
        .await;
    });
}

#[test]
fn an_alternative_in_futures_unordered_is_no_deadlock() {
    on_all_workers(|_rt| async {
        wait_with_alternative(|b, gate| async move {
            let mut any = FuturesUnordered::new();
            any.push(b.map(first).boxed());
            any.push(async move { gate.pass().await }.map(|()| 1).boxed());
            any.next().await.unwrap()
        })
        .await;
    });
}

#[test]
fn an_alternative_behind_a_shared_future_is_no_deadlock() {
    on_all_workers(|_rt| async {
        wait_with_alternative(|b, gate| async move {
            let b = b.map(first).boxed();
            let gate = async move { gate.pass().await }.map(|()| 1).boxed();
            future::select(b, gate).map(|either| either.factor_first().0).boxed().shared().await
        })
        .await;
    });
}

/// `a` looks whether `b` has ended, then waits for something else: it does not wait for `b` any more.
#[test]
fn a_task_that_only_looked_does_not_wait() {
    on_all_workers(|_rt| async {
        wait_with_alternative(|b, gate| async move {
            // If `b` waits already, this returns at once.
            let _ = b.wait().now_or_never();
            drop(b);
            gate.pass().await;
            1
        })
        .await;
    });
}

#[test]
fn a_task_that_gave_up_waiting_does_not_wait() {
    on_all_workers(|_rt| async {
        wait_with_alternative(|b, gate| async move {
            if let Ok(said) = tokio::time::timeout(Duration::ZERO, b).await {
                first(said);
            }
            gate.pass().await;
            1
        })
        .await;
    });
}

#[test]
fn a_task_that_took_the_other_branch_does_not_wait() {
    on_all_workers(|_rt| async {
        wait_with_alternative(|b, gate| async move {
            tokio::select! {
                biased;
                said = b => { first(said); }
                () = std::future::ready(()) => {}
            }
            gate.pass().await;
            1
        })
        .await;
    });
}

#[test]
fn a_wait_outside_tasks_is_never_a_deadlock() {
    on_all_workers(|_rt| async {
        let (task, send) = waiter("t", Way::Await);
        let outside = task.clone();
        let other: Talker = spawn!((|| Ok(4))());
        send.send(other).unwrap();
        assert_eq!(flat(outside.await).unwrap(), 4);
        assert_eq!(flat(task.await).unwrap(), 4);
    });
}

/// A task whose places were granted at once is known to its chunks: a search may lock it while it is being queued.
#[test]
fn a_search_that_looks_at_a_task_while_it_is_queued_does_not_lose_it() {
    async fn search(_: &mut i64, chunk: Chunk<i64>, rounds: u32) {
        for _ in 0..rounds {
            // It holds a chunk, so each of its awaits looks for a cycle, through the tasks before this one.
            spawn!((|x: &mut i64| *x += 1)(InOut(&chunk))).await.unwrap();
        }
    }
    on_workers(2, |rt| async move {
        let (held, chunk) = (Chunk::new(0), Chunk::new(0));
        let searches = spawn!(async search(InOut(&held), Value(chunk.clone()), 20_000));
        let spawner = {
            let (rt, chunk) = (rt.clone(), chunk.clone());
            std::thread::spawn(move || {
                for _ in 0..20_000 {
                    rt.block_on(async { spawn!((|x: &mut i64| *x += 1)(InOut(&chunk))).await.unwrap() });
                }
            })
        };
        searches.await.unwrap();
        while !spawner.is_finished() {
            tokio::task::yield_now().await;
        }
        spawner.join().unwrap();
        assert_eq!(*chunk.read().await.unwrap(), 40_000);
    });
}

#[test]
fn a_task_that_others_take_from_the_one_that_awaits_it_is_not_looked_at_any_more() {
    // A handle that is polled inside a task, and dropped outside of it or polled by another one: its task may be gone while the
    // first still sleeps.
    on_workers(2, |_rt| async {
        let suspended = async |task: &Talker| {
            while !format!("{task:?}").contains("Suspended") {
                tokio::task::yield_now().await;
            }
        };
        for round in 0..40 {
            let gate = Gate::new();
            let passed = gate.clone();
            let task = spawn(async move { passed.pass().await });
            let shared = Arc::new(Mutex::new(Some(task)));
            let handle = shared.clone();
            let sleeper: Talker = spawn(future::poll_fn(move |cx| {
                let mut handle = handle.lock().unwrap();
                assert!(handle.as_mut().is_none_or(|task| task.poll_unpin(cx).is_pending()));
                std::task::Poll::Pending
            }));
            suspended(&sleeper).await;
            let mut task = shared.lock().unwrap().take().unwrap();
            if round % 2 == 0 {
                // Another's waker takes the place of the sleeper's.
                let other = spawn(async move {
                    let poll = task.poll_unpin(&mut Context::from_waker(noop_waker_ref()));
                    poll.is_pending()
                });
                assert!(other.await.unwrap());
            } else {
                drop(task);
            }
            gate.open();
            // Its memory is another's now.
            for _ in 0..100 {
                spawn!((|| vec![1u8; 64])()).await.unwrap();
            }
            // Who waits for the sleeper, and is waited for, searches from it.
            let (give, given) = oneshot::channel::<Talker>();
            let (tell, searched) = oneshot::channel();
            let middle: Talker = spawn(async move {
                let mut sleeper = given.await.unwrap();
                assert!(futures::poll!(&mut sleeper).is_pending());
                tell.send(()).unwrap();
                flat(sleeper.await)
            });
            let outer: Talker = spawn(async move { flat(middle.await) });
            suspended(&outer).await;
            let canceller = sleeper.clone();
            give.send(sleeper).unwrap();
            searched.await.unwrap();
            canceller.cancel();
            assert!(outer.await.unwrap().is_err());
        }
    });
}
