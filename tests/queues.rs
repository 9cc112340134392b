//! `in_order` and `bulk`: when what is spawned inside them runs.

use dagger_async::prelude::*;
use dagger_tests::{Body, Gate, Kind, Output, for_each_case, isolated, on_all_workers, on_workers};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use futures::FutureExt;

/// What happened, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<String>>>);

impl Diary {
    fn write(&self, line: &str) {
        self.0.lock().unwrap().push(line.to_owned());
    }
    fn read(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
    fn position(&self, line: &str) -> usize {
        let lines = self.read();
        lines.iter().position(|l| l == line).unwrap_or_else(|| panic!("no {line} in {lines:?}"))
    }
    /// Spawns a task that notes its begin and, after a yield if it is async, its end.
    #[track_caller]
    fn spawn(&self, name: &str, kind: Kind) -> DTask<()> {
        let (diary, name) = (self.clone(), name.to_owned());
        let (begin, end) = (format!("{name} begins"), format!("{name} ends"));
        if kind.is_async() {
            spawn(async move {
                diary.write(&begin);
                tokio::task::yield_now().await;
                diary.write(&end);
            })
        } else {
            spawn!((move || {
                diary.write(&begin);
                std::thread::yield_now();
                diary.write(&end);
            })(); blocking = kind == Kind::Blocking)
        }
    }
    /// `first` had ended before `second` began.
    #[track_caller]
    fn assert_order(&self, first: &str, second: &str) {
        let (end, begin) =
            (self.position(&format!("{first} ends")), self.position(&format!("{second} begins")));
        assert!(end < begin, "{first} before {second}: {:?}", self.read());
    }
}

fn value_of(output: &Output) -> i32 {
    output.value
}

// in_order

#[test]
fn in_order_runs_each_task_after_the_one_before() {
    for_each_case(|case| async move {
        let diary = Diary::default();
        let given = in_order(async {
            for step in 0..50 {
                diary.spawn(&step.to_string(), case.kind);
                if step % 7 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            "the output of the body"
        })
        .await;
        assert_eq!(given, "the output of the body");
        case.rt.idle().await;
        let expected: Vec<String> =
            (0..50).flat_map(|i| [format!("{i} begins"), format!("{i} ends")]).collect();
        assert_eq!(diary.read(), expected);
    });
}

#[test]
fn in_order_does_not_wait_for_its_tasks() {
    for_each_case(|case| async move {
        let body = Body::new().waits().returns(1);
        let (first, second) =
            in_order(async { (case.spawn(&body), case.spawn(&Body::new().returns(2))) }).await;
        assert!(!first.is_finished() && !second.is_finished());
        body.started.pass().await;
        body.go.open();
        assert_eq!((first.await.unwrap().value, second.await.unwrap().value), (1, 2));
    });
}

#[test]
fn a_failed_step_does_not_fail_the_next() {
    for_each_case(|case| async move {
        let (bad, good) =
            in_order(async { (case.spawn(&Body::new().panics("bad")), case.spawn(&Body::new().returns(2))) })
                .await;
        assert_eq!(good.await.unwrap().value, 2);
        assert!(bad.await.is_err());
    });
}

#[test]
fn a_step_can_be_awaited_inside() {
    for_each_case(|case| async move {
        let sum = in_order(async {
            let mut sum = 0;
            for value in 0..10 {
                sum += case.spawn(&Body::new().returns(value)).await.unwrap().value;
            }
            sum
        })
        .await;
        assert_eq!(sum, 45);
    });
}

#[test]
fn a_step_may_take_an_earlier_one_as_argument() {
    on_all_workers(|_rt| async {
        let last = in_order(async {
            let mut task = spawn!((|| 0)());
            for _ in 0..100 {
                task = spawn!((|x: i32| x + 1)(task));
            }
            task
        })
        .await;
        assert_eq!(last.await.unwrap(), 100);
    });
}

/// Bodies beside the workers that are ready now have begun after this: later ones have run.
async fn give_blocking_bodies_a_chance() {
    for _ in 0..100 {
        spawn!((|| ())(); blocking = true).await.unwrap();
    }
}

/// A cancelled step must not let the steps after it overtake those before it.
#[test]
fn a_cancelled_step_does_not_let_the_next_overtake() {
    for_each_case(|case| async move {
        let body = Body::new().waits();
        let (first, middle, last) = in_order(async {
            (case.spawn(&body), case.spawn(&Body::new()), spawn!((|| ())(); blocking = true))
        })
        .await;
        body.started.pass().await;
        middle.cancel();
        assert!(middle.await.is_err());
        give_blocking_bodies_a_chance().await;
        let overtook = last.is_finished();
        body.go.open();
        assert!(first.await.is_ok());
        assert!(last.await.is_ok());
        assert!(!overtook, "the last step ran while the first did");
    });
}

#[test]
fn a_failed_argument_of_a_step_does_not_let_the_next_overtake() {
    on_all_workers(|_rt| async {
        let bad = spawn!((|| -> i32 { panic!("bad") })());
        bad.wait().await;
        let body = Body::new().waits();
        let (first, refused, last) = in_order(async {
            let first = Kind::Future.spawn(Options::new(), &body);
            (first, spawn!((|x: i32| x)(bad)), spawn!((|| ())(); blocking = true))
        })
        .await;
        body.started.pass().await;
        assert!(refused.await.is_err());
        give_blocking_bodies_a_chance().await;
        let overtook = last.is_finished();
        body.go.open();
        assert!(first.await.is_ok() && last.await.is_ok());
        assert!(!overtook, "the last step ran while the first did");
    });
}

#[test]
fn in_order_is_not_inherited_by_tasks() {
    on_all_workers(|_rt| async {
        let step = in_order(async {
            spawn(async {
                let (first, second) = (Gate::new(), Gate::new());
                let (opens, waits) = (first.clone(), second.clone());
                // The first child needs the second: in order this would never end.
                let a = spawn(async move {
                    waits.pass().await;
                    opens.open();
                });
                let b = spawn(async move { second.open() });
                first.pass().await;
                (a.await.is_ok(), b.await.is_ok())
            })
        })
        .await;
        assert_eq!(step.await.unwrap(), (true, true));
    });
}

#[test]
fn in_order_across_join_orders_by_spawn() {
    for_each_case(|case| async move {
        let diary = Diary::default();
        in_order(async {
            let half = |name: &'static str| {
                let (diary, kind) = (&diary, case.kind);
                async move {
                    for step in 0..10 {
                        diary.write(&format!("spawn {name}{step}"));
                        diary.spawn(&format!("{name}{step}"), kind);
                        tokio::task::yield_now().await;
                    }
                }
            };
            tokio::join!(half("a"), half("b"));
        })
        .await;
        case.rt.idle().await;
        let lines = diary.read();
        let of = |what: &str| -> Vec<String> {
            lines
                .iter()
                .filter(|line| line.contains(what))
                .map(|line| line.replace(what, "").trim().to_owned())
                .collect()
        };
        let spawned: Vec<_> =
            lines.iter().filter_map(|line| line.strip_prefix("spawn ")).map(str::to_owned).collect();
        assert_eq!(spawned.len(), 20);
        assert_eq!(of("begins"), spawned);
        for pair in spawned.windows(2) {
            diary.assert_order(&pair[0], &pair[1]);
        }
    });
}

#[test]
fn two_blocks_at_once_do_not_order_each_other() {
    on_all_workers(|_rt| async {
        let gate = Gate::new();
        let door = gate.clone();
        let one = in_order(async { spawn(async move { door.pass().await }) });
        let other = in_order(async { spawn(async move { gate.open() }) });
        let (one, other) = tokio::join!(one, other);
        assert!(one.await.is_ok() && other.await.is_ok());
    });
}

#[test]
fn nested_in_order_keeps_both_orders() {
    for_each_case(|case| async move {
        let diary = Diary::default();
        in_order(async {
            diary.spawn("a", case.kind);
            in_order(async {
                diary.spawn("b", case.kind);
                diary.spawn("c", case.kind);
            })
            .await;
            diary.spawn("d", case.kind);
        })
        .await;
        case.rt.idle().await;
        for pair in [("a", "b"), ("b", "c"), ("c", "d")] {
            diary.assert_order(pair.0, pair.1);
        }
    });
}

#[test]
fn dropping_in_order_leaves_what_was_spawned_in_order() {
    for_each_case(|case| async move {
        let diary = Diary::default();
        let mut block = Box::pin(in_order(async {
            for step in 0..5 {
                diary.spawn(&step.to_string(), case.kind);
            }
            std::future::pending::<()>().await;
        }));
        assert!((&mut block).now_or_never().is_none());
        drop(block);
        case.rt.idle().await;
        for step in 0..4 {
            diary.assert_order(&step.to_string(), &(step + 1).to_string());
        }
    });
}

/// Memory and stack do not grow with the length of the queue.
#[test]
fn in_order_takes_half_a_million_steps() {
    isolated("in_order_takes_half_a_million_steps", || {
        on_workers(1, |rt| async move {
            let count = Arc::new(Mutex::new(0u32));
            let last = in_order(async {
                for step in 0..500_000 {
                    let count = count.clone();
                    spawn!((move || {
                        let mut count = count.lock().unwrap();
                        assert_eq!(*count, step);
                        *count += 1;
                    })());
                }
                spawn!((|| 7)())
            })
            .await;
            assert_eq!(last.await.unwrap(), 7);
            rt.idle().await;
            assert_eq!(*count.lock().unwrap(), 500_000);
        });
    });
}

// bulk

#[test]
fn nothing_of_a_bulk_starts_until_its_end() {
    for_each_case(|case| async move {
        let outside = Body::new().returns(1);
        let bodies: Vec<Body> = (0..20).map(|value| Body::new().returns(value)).collect();
        let tasks = bulk(async {
            let tasks: Vec<_> = bodies.iter().map(|body| case.spawn(body)).collect();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            // Everything that was outside has had its turn.
            assert!(bodies.iter().all(|body| body.runs() == 0));
            assert!(tasks.iter().all(|task| !task.is_finished()));
            tasks
        })
        .await;
        case.spawn(&outside).await.unwrap();
        for (value, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap().value, value as i32);
        }
        assert!(bodies.iter().all(|body| body.runs() == 1));
    });
}

/// A task from before the bulk runs meanwhile.
#[test]
fn a_bulk_lets_others_run() {
    for_each_case(|case| async move {
        let body = Body::new().returns(1);
        let before = case.spawn(&body);
        let held = bulk(async {
            let held = spawn!((|| 2)());
            assert_eq!(before.await.unwrap().value, 1);
            held
        })
        .await;
        assert_eq!(held.await.unwrap(), 2);
    });
}

#[test]
fn a_bulk_gives_its_output_and_does_not_wait() {
    for_each_case(|case| async move {
        let body = Body::new().waits();
        let (task, text) = bulk(async { (case.spawn(&body), "out") }).await;
        assert_eq!(text, "out");
        assert!(!task.is_finished());
        body.started.pass().await;
        body.go.open();
        task.await.unwrap();
        // Empty ones are fine.
        bulk(async {}).await;
    });
}

#[test]
fn edges_inside_a_bulk_hold() {
    on_all_workers(|_rt| async {
        let last = bulk(async {
            let mut task = spawn!((|| 0)());
            for _ in 0..1000 {
                task = spawn!((|x: i32| x + 1)(task));
            }
            task
        })
        .await;
        assert_eq!(last.await.unwrap(), 1000);
    });
}

#[test]
fn a_dropped_bulk_cancels_its_tasks() {
    for_each_case(|case| async move {
        let bodies = [Body::new(), Body::new()];
        let tasks = Mutex::new(Vec::new());
        let mut block = Box::pin(bulk(async {
            for body in &bodies {
                tasks.lock().unwrap().push(case.spawn(body));
            }
            std::future::pending::<()>().await;
        }));
        assert!((&mut block).now_or_never().is_none());
        drop(block);
        let tasks = tasks.into_inner().unwrap();
        let next = spawn!(value_of(&tasks[0]));
        assert!(matches!(next.await, Err(Error::Dependency { .. })));
        assert_eq!(tasks.len(), 2);
        for task in tasks {
            assert!(matches!(task.await, Err(Error::Cancelled { .. })));
        }
        case.rt.idle().await;
        assert!(bodies.iter().all(|body| body.runs() == 0 && body.held.dropped() == 1));
    });
}

#[test]
fn a_bulk_that_panics_cancels_its_tasks() {
    for_each_case(|case| async move {
        let body = Body::new();
        let task = Mutex::new(None);
        let block = bulk(async {
            *task.lock().unwrap() = Some(case.spawn(&body));
            panic!("in the bulk");
        });
        assert!(AssertUnwindSafe(block).catch_unwind().await.is_err());
        let task = task.lock().unwrap().take().unwrap();
        assert!(matches!(task.await, Err(Error::Cancelled { .. })));
        case.rt.idle().await;
        assert_eq!((body.runs(), body.held.dropped()), (0, 1));
        // The thread is no longer inside the block.
        assert_eq!(case.spawn(&Body::new().returns(3)).await.unwrap().value, 3);
    });
}

#[test]
fn a_bulk_in_a_cancelled_task_cancels_its_tasks() {
    on_all_workers(|rt| async move {
        let body = Body::new();
        let (held, at) = (body.clone(), Gate::new());
        let inside = at.clone();
        let outer = spawn(async move {
            bulk(async {
                let task = Kind::Future.spawn(Options::new(), &held);
                inside.open();
                std::future::pending::<()>().await;
                drop(task);
            })
            .await;
        });
        at.pass().await;
        outer.cancel();
        rt.idle().await;
        assert_eq!((body.runs(), body.held.dropped()), (0, 1));
    });
}

#[test]
fn a_bulk_is_not_inherited_by_tasks() {
    on_all_workers(|_rt| async {
        let before = spawn(async { spawn!((|| 1)()).await });
        let outcome = bulk(async {
            // Its child is no task of the bulk, so awaiting it is fine.
            before.await.unwrap()
        })
        .await;
        assert_eq!(outcome.unwrap(), 1);
        let task = bulk(async { spawn(async { spawn!((|| 2)()).await.unwrap() }) }).await;
        assert_eq!(task.await.unwrap(), 2);
    });
}

#[test]
fn a_task_of_a_bulk_can_be_cancelled_before_it_starts() {
    for_each_case(|case| async move {
        let bodies = [Body::new(), Body::new()];
        let tasks = bulk(async {
            let tasks: Vec<_> = bodies.iter().map(|body| case.spawn(body)).collect();
            tasks[0].cancel();
            assert!(tasks[0].is_finished());
            tasks
        })
        .await;
        let results = wait_all(tasks).await;
        assert!(matches!(results[0], Err(Error::Cancelled { .. })));
        assert!(results[1].is_ok());
        case.rt.idle().await;
        assert_eq!((bodies[0].runs(), bodies[0].held.dropped(), bodies[1].runs()), (0, 1, 1));
    });
}

// Both

#[test]
fn a_bulk_inside_in_order_is_one_step() {
    for_each_case(|case| async move {
        let diary = Diary::default();
        in_order(async {
            diary.spawn("a", case.kind);
            diary.spawn("b", case.kind);
            bulk(async {
                diary.spawn("c", case.kind);
                diary.spawn("d", case.kind);
                tokio::task::yield_now().await;
                diary.spawn("e", case.kind);
            })
            .await;
            diary.spawn("f", case.kind);
            bulk(async {}).await;
            diary.spawn("g", case.kind);
        })
        .await;
        case.rt.idle().await;
        for (first, second) in
            [("a", "b"), ("b", "c"), ("b", "d"), ("b", "e"), ("c", "f"), ("d", "f"), ("e", "f"), ("f", "g")]
        {
            diary.assert_order(first, second);
        }
    });
}

/// The tasks of the bulk do run beside each other: each waits for the other to begin.
#[test]
fn the_tasks_of_a_bulk_inside_in_order_run_together() {
    on_all_workers(|_rt| async {
        let tasks = in_order(async {
            bulk(async {
                let (here, there) = (Gate::new(), Gate::new());
                let (a, b) = (here.clone(), there.clone());
                let first = spawn(async move {
                    a.open();
                    b.pass().await;
                });
                let second = spawn(async move {
                    there.open();
                    here.pass().await;
                });
                [first, second]
            })
            .await
        })
        .await;
        assert!(wait_all(tasks).await.iter().all(Result::is_ok));
    });
}

#[test]
fn in_order_inside_a_bulk_starts_at_its_end_and_in_order() {
    for_each_case(|case| async move {
        let diary = Diary::default();
        bulk(async {
            diary.spawn("z", case.kind);
            in_order(async {
                diary.spawn("a", case.kind);
                diary.spawn("b", case.kind);
                tokio::task::yield_now().await;
                diary.spawn("c", case.kind);
            })
            .await;
            tokio::task::yield_now().await;
            assert!(diary.read().is_empty());
        })
        .await;
        case.rt.idle().await;
        diary.assert_order("a", "b");
        diary.assert_order("b", "c");
        diary.position("z ends");
    });
}

#[test]
fn a_bulk_inside_a_bulk_starts_with_the_outer_one() {
    for_each_case(|case| async move {
        let body = Body::new().returns(1);
        let task = bulk(async {
            let task = bulk(async { case.spawn(&body) }).await;
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            assert_eq!(body.runs(), 0);
            task
        })
        .await;
        assert_eq!(task.await.unwrap().value, 1);
    });
}

#[test]
fn a_dropped_bulk_inside_in_order_does_not_stop_the_next_step() {
    for_each_case(|case| async move {
        let diary = Diary::default();
        in_order(async {
            diary.spawn("a", case.kind);
            let mut inner = Box::pin(bulk(async {
                diary.spawn("dropped", case.kind);
                std::future::pending::<()>().await;
            }));
            assert!((&mut inner).now_or_never().is_none());
            drop(inner);
            diary.spawn("b", case.kind);
        })
        .await;
        case.rt.idle().await;
        diary.assert_order("a", "b");
        assert!(!diary.read().iter().any(|line| line.contains("dropped")), "{:?}", diary.read());
    });
}

/// Options and queues are independent of each other, whichever is inside.
#[test]
fn queues_and_options_nest_both_ways() {
    for_each_case(|case| async move {
        let diary = Diary::default();
        let options = Options::new().name("named");
        let (first, second) = in_order(async {
            with_options(options.clone(), async {
                (diary.spawn("a", case.kind), diary.spawn("b", case.kind))
            })
            .await
        })
        .await;
        assert_eq!((first.name(), second.name()), ("named", "named"));
        let third = with_options(options, async { bulk(async { diary.spawn("c", case.kind) }).await }).await;
        assert_eq!(third.name(), "named");
        case.rt.idle().await;
        diary.assert_order("a", "b");
        assert!(wait_all([first, second, third]).await.iter().all(Result::is_ok));
    });
}

#[test]
fn a_bulk_that_is_a_step_ends_with_the_option_inline_too() {
    on_all_workers(|_| async {
        let done = Arc::new(AtomicUsize::new(0));
        let count = || {
            let done = done.clone();
            spawn!((move || done.fetch_add(1, SeqCst))())
        };
        with_options(Options::new().inline(), async {
            in_order(async {
                bulk(async { (count(), count()) }).await;
                count();
            })
            .await;
        })
        .await;
        assert_eq!(done.load(SeqCst), 3);
    });
}
