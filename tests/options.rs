//! Which options a task has: inline, of a block, of the blocks around it, by default.

use dagger_async::prelude::*;
use dagger_tests::{Body, Gate, Kind, for_each_case, on_all_workers, on_workers};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn own_name() -> String {
    current().unwrap().name().to_owned()
}
fn own_thread() -> usize {
    current().unwrap().processor().thread
}
async fn own_name_later() -> String {
    tokio::task::yield_now().await;
    own_name()
}
fn named(name: &str) -> Options {
    Options::new().name(name)
}

// Names.

#[test]
fn the_default_name_is_the_callee_as_written() {
    trait Named {
        fn run() -> String;
    }
    struct A;
    impl Named for A {
        fn run() -> String {
            own_name()
        }
    }
    mod inner {
        pub(super) fn generic<T: Default>(_: T) -> String {
            super::own_name()
        }
    }
    on_all_workers(|_rt| async {
        let check = async |task: DTask<String>, name: &str| {
            assert_eq!(task.name(), name);
            assert_eq!(task.await.unwrap(), name, "current().name()");
        };
        check(spawn!(own_name()), "own_name").await;
        check(spawn!(async own_name_later()), "own_name_later").await;
        check(spawn!(inner::generic::<u8>(3)), "inner::generic::<u8>").await;
        check(spawn!(<A as Named>::run()), "<A as Named>::run").await;
        check(spawn!(own_name(); priority = 2), "own_name").await;
        let closure = spawn!((|| own_name())());
        assert!(closure.name().contains("own_name"), "{}", closure.name());
        assert!(!spawn(async {}).name().is_empty());
    });
}

#[test]
fn the_given_name_is_seen_everywhere() {
    on_all_workers(|_rt| async {
        const CONSTANT: &str = "of a constant";
        let owned = String::from("of a string");
        for (task, name) in [
            (spawn!(own_name(); name = "inline"), "inline"),
            (spawn!(own_name(); name = owned), "of a string"),
            (spawn!(own_name(); name = CONSTANT), "of a constant"),
            (spawn!(own_name(); priority = 1, name = "not first", timeout = Duration::MAX), "not first"),
            (spawn!(own_name(); name = format!("{}-{}", "made", 1)), "made-1"),
            (named("of a future").spawn(own_name_later()), "of a future"),
            (named("tried").try_spawn(async { Ok::<_, Error>(own_name()) }), "tried"),
            (spawn!(async own_name_later(); name = "async"), "async"),
            (spawn!(own_name(); name = ""), ""),
        ] {
            assert_eq!(task.name(), name);
            assert_eq!(task.await.unwrap(), name);
        }
    });
}

#[test]
fn current_has_the_id_of_the_handle() {
    for_each_case(|case| async move {
        let id = || current().unwrap().id();
        let task = match case.kind {
            kind if kind.is_async() => spawn(async move { id() }),
            kind => spawn!((id)(); blocking = kind == Kind::Blocking),
        };
        let handle = task.id();
        assert_eq!(task.await.unwrap(), handle);
        assert_ne!(spawn!((|| 1)()).id(), handle);
        assert!(current().is_none(), "the future of block_on is no task");
    });
}

// Who wins.

#[test]
fn inline_beats_the_block_and_the_inner_block_the_outer() {
    on_all_workers(|_rt| async {
        with_options(named("outer").scope(Scope::thread(0)), async {
            assert_eq!(spawn!(own_name()).name(), "outer");
            assert_eq!(spawn!(own_name(); name = "inline").name(), "inline");
            assert_eq!(spawn!(own_name(); ..named("value")).name(), "value");
            assert_eq!(named("future").spawn(async {}).name(), "future");
            with_options(named("inner"), async {
                let task = spawn!((|| (own_name(), own_thread()))());
                assert_eq!(
                    task.await.unwrap(),
                    ("inner".to_owned(), 0),
                    "the scope is that of the outer block"
                );
                assert_eq!(spawn!(own_name(); name = "inline").name(), "inline");
            })
            .await;
            assert_eq!(spawn!(own_name()).name(), "outer", "the inner block has ended");
        })
        .await;
        assert_eq!(spawn!(own_name()).name(), "own_name", "the outer block has ended");
    });
}

#[test]
fn each_field_is_taken_from_the_innermost_that_says_it() {
    on_workers(8, |_rt| async {
        let kind = || current().unwrap().processor().kind;
        let pending = std::future::pending::<()>;
        let limit = Duration::from_millis(20);
        let outer = named("outer").blocking(true).timeout(limit);
        with_options(outer, async {
            with_options(Options::new().timeout(Duration::from_secs(600)), async {
                let task = spawn!((kind)());
                assert_eq!(task.name(), "outer");
                assert_eq!(task.await.unwrap(), ProcessorKind::Blocking);
                assert_eq!(spawn!((kind)(); blocking = false).await.unwrap(), ProcessorKind::Cpu);
                let slow = spawn(pending());
                for _ in 0..10 {
                    tokio::time::sleep(limit / 4).await;
                }
                assert!(!slow.is_finished(), "the inner timeout wins");
                slow.cancel();
            })
            .await;
            assert!(matches!(spawn(pending()).await, Err(Error::TimedOut { .. })));
        })
        .await;
    });
}

#[test]
fn syncdeps_and_cancel_add_up() {
    for_each_case(|case| async move {
        if case.kind.occupies_worker() && case.workers < 8 {
            return;
        }
        // Every one of the dependencies is waited for, whoever said it.
        for missing in 0..3 {
            let bodies: Vec<Body> = (0..3).map(|_| Body::new().waits()).collect();
            let deps: Vec<_> = bodies.iter().map(|body| case.spawn(body)).collect();
            let of_i32 = spawn!((|| 1)());
            let (outer, inner) = (Options::new().syncdeps([&deps[0]]), Options::new().syncdeps(&deps[1..2]));
            let task = with_options(
                outer,
                with_options(inner, async {
                    let inline = Options::new().syncdeps(vec![&deps[2]]).syncdeps([&of_i32]);
                    spawn!((|| 7)(); blocking = true, ..inline)
                }),
            )
            .await;
            for (index, body) in bodies.iter().enumerate() {
                if index != missing {
                    body.go.open();
                    deps[index].wait().await;
                }
            }
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            assert!(!task.is_finished(), "dependency {missing} is not there");
            bodies[missing].go.open();
            assert_eq!(task.await.unwrap(), 7);
        }
        // Each of the tokens cancels.
        for which in 0..3 {
            let tokens: Vec<CancelToken> = (0..3).map(|_| CancelToken::new()).collect();
            let token = |index: usize| Options::new().cancel(tokens[index].clone());
            let body = Body::new().waits();
            let task =
                with_options(token(0), with_options(token(1), async { case.spawn_with(token(2), &body) }))
                    .await;
            body.started.pass().await;
            tokens[which].cancel();
            assert!(matches!(task.await, Err(Error::Cancelled { .. })));
            body.go.open();
        }
    });
}

#[test]
fn several_syncdeps_inline() {
    on_all_workers(|_rt| async {
        let (a, b) = (spawn!((|| 1)()), spawn!((|| "two")()));
        let many: Vec<_> = (0..100).map(|i| spawn!((|i: i32| i)(i))).collect();
        let task = spawn!((|| 7)(); syncdeps = [&a], syncdeps = [&b], syncdeps = &many);
        assert_eq!(task.await.unwrap(), 7);
        assert!(a.is_finished() && b.is_finished() && many.iter().all(DTask::is_finished));
        let none: [&DTask<i32>; 0] = [];
        assert_eq!(spawn!((|| 8)(); syncdeps = none).await.unwrap(), 8);
        // The same task twice, and also as argument.
        assert_eq!(spawn!((|x: &i32| *x)(&a); syncdeps = [&a, &a]).await.unwrap(), 1);
    });
}

#[test]
fn a_whole_value_and_more_inline() {
    on_all_workers(|_rt| async {
        let opts = named("of the value").scope(Scope::thread(0));
        let both = || (own_name(), own_thread());
        assert_eq!(spawn!((both)(); ..opts.clone()).await.unwrap(), ("of the value".to_owned(), 0));
        let task = spawn!((both)(); name = "inline", ..opts.clone());
        assert_eq!(task.await.unwrap(), ("inline".to_owned(), 0), "what is inline wins over the value");
        let task = spawn!((both)(); priority = 1, name = "inline", blocking = false, ..opts.clone());
        assert_eq!(task.name(), "inline");
        let task = spawn!((both)(); retries = 2, ..opts.clone());
        assert_eq!(task.name(), "of the value");
        let task = spawn!(own_name(); name = "with a comma at the end",);
        assert_eq!(task.name(), "with a comma at the end");
        assert_eq!(spawn!(own_name(); ..Options::new()).await.unwrap(), "own_name");
    });
}

// Who inherits.

#[test]
fn inline_options_are_not_inherited() {
    on_all_workers(|_rt| async {
        let parent =
            spawn!(async (async || spawn!(own_name()).await.unwrap())(); name = "parent", priority = 3);
        assert_eq!(parent.await.unwrap(), "own_name");
        let parent = named("parent").spawn(async { spawn!(own_name()).await.unwrap() });
        assert_eq!(parent.await.unwrap(), "own_name");
        let parent = spawn!((|| spawn!(own_name()).blocking_wait().unwrap())(); name = "parent");
        assert_eq!(parent.await.unwrap(), "own_name");
    });
}

#[test]
fn options_of_a_block_reach_children_and_grandchildren() {
    inherited(|options| options);
}

/// The same by the way of options that refer to others, which a task lets go of when it is over.
#[test]
fn options_that_refer_to_others_reach_children_and_grandchildren() {
    inherited(|options| options.cancel(CancelToken::new()));
    inherited(|options| options.syncdeps([&spawn!((|| ())())]));
}

/// Also when its handle is kept: a loop that hands each task to the next would keep all of them.
#[test]
fn a_task_that_is_over_lets_go_of_what_the_options_of_its_block_refer_to() {
    on_all_workers(|rt| async move {
        let name: Arc<str> = "before".into();
        let before = spawn!((|| ())(); name = name.clone());
        let known = Arc::downgrade(&name);
        drop(name);
        let kept = with_options(Options::new().syncdeps([&before]), async { spawn!((|| 1)()) }).await;
        drop(before);
        kept.wait().await;
        rt.idle().await;
        assert!(known.upgrade().is_none(), "its name is gone, and with it the task");
        assert_eq!(kept.await.unwrap(), 1);
    });
}

fn inherited(more: impl Fn(Options) -> Options + Copy + Send + 'static) {
    for_each_case(move |case| async move {
        let grandchild = || (own_name(), own_thread());
        let kind = case.kind;
        let family = with_options(more(named("family").scope(Scope::thread(0))), async {
            if kind.is_async() {
                spawn(async move {
                    // Also what is spawned after a suspension.
                    tokio::task::yield_now().await;
                    let child = spawn(async move {
                        tokio::task::yield_now().await;
                        (spawn!((grandchild)()).await.unwrap(), own_name())
                    });
                    child.await.unwrap()
                })
            } else {
                spawn!((move || {
                    let child =
                        spawn!((move || (spawn!((grandchild)()).blocking_wait().unwrap(), own_name()))());
                    child.blocking_wait().unwrap()
                })())
            }
        })
        .await;
        let ((name, thread), child) = family.await.unwrap();
        assert_eq!((name.as_str(), child.as_str(), thread), ("family", "family", 0));
    });
}

/// A child of a task with inline options has those of the block, not those.
#[test]
fn children_have_the_options_of_the_block_and_not_the_inline_ones() {
    on_all_workers(|_rt| async {
        let name = with_options(named("block"), async {
            spawn!((|| spawn!(own_name()).blocking_wait().unwrap())(); name = "inline")
        })
        .await;
        assert_eq!(name.name(), "inline");
        assert_eq!(name.await.unwrap(), "block");
    });
}

#[test]
fn a_block_in_a_task_adds_to_what_it_inherited() {
    on_all_workers(|_rt| async {
        let task = with_options(named("outer").scope(Scope::thread(0)), async {
            spawn(async {
                let inner =
                    with_options(named("inner"), async { spawn!((|| (own_name(), own_thread()))()) }).await;
                (inner.await.unwrap(), spawn!(own_name()).await.unwrap())
            })
        })
        .await;
        assert_eq!(task.await.unwrap(), (("inner".to_owned(), 0), "outer".to_owned()));
    });
}

#[test]
fn options_hold_across_awaits_and_do_not_leak_in_join() {
    on_all_workers(|_rt| async {
        let half = |name: &'static str| {
            with_options(named(name), async move {
                for _ in 0..50 {
                    assert_eq!(spawn!(own_name()).name(), name);
                    tokio::task::yield_now().await;
                    let task = spawn!(own_name());
                    assert_eq!(task.await.unwrap(), name);
                }
            })
        };
        let outside = async {
            for _ in 0..50 {
                assert_eq!(spawn!(own_name()).await.unwrap(), "own_name");
            }
        };
        tokio::join!(half("a"), outside, half("b"), with_options(named("c"), half("d")));
        let both = spawn(async move {
            tokio::join!(half("a"), half("b"), async {
                tokio::task::yield_now().await;
                assert_eq!(spawn!(own_name()).name(), "own_name");
            })
        });
        both.await.unwrap();
    });
}

#[test]
fn a_panic_or_a_drop_inside_ends_the_block() {
    use futures::FutureExt;
    on_all_workers(|_rt| async {
        let block = with_options(named("block"), async { panic!("inside") });
        assert!(std::panic::AssertUnwindSafe(block).catch_unwind().await.is_err());
        assert_eq!(spawn!(own_name()).name(), "own_name");
        let mut block = Box::pin(with_options(named("block"), std::future::pending::<()>()));
        assert!((&mut block).now_or_never().is_none());
        drop(block);
        assert_eq!(spawn!(own_name()).name(), "own_name");
    });
}

#[test]
fn a_block_gives_its_output() {
    on_workers(1, |_rt| async {
        let text = with_options(Options::new(), async { "text" }).await;
        assert_eq!(text, "text");
        let borrowed = String::from("borrowed");
        let len = with_options(Options::new(), async { borrowed.len() }).await;
        assert_eq!(len, borrowed.len());
    });
}

// blocking

#[test]
fn a_blocking_body_runs_beside_the_workers() {
    on_all_workers(|rt| async move {
        let kind = || current().unwrap().processor().kind;
        let go = Gate::new();
        let started: Vec<Gate> = (0..20).map(|_| Gate::new()).collect();
        let held: Vec<_> = started
            .iter()
            .map(|gate| {
                let (at, door) = (gate.clone(), go.clone());
                spawn!((move || {
                    at.open();
                    door.block();
                    kind()
                })(); blocking = true)
            })
            .collect();
        // More of them than workers run at once, and the workers are free.
        for gate in &started {
            gate.pass().await;
        }
        for processor in rt.processors() {
            let task = spawn!((kind)(); scope = Scope::thread(processor.thread));
            assert_eq!(task.await.unwrap(), ProcessorKind::Cpu);
        }
        go.open();
        for kind in wait_all(held).await {
            assert_eq!(kind.unwrap(), ProcessorKind::Blocking);
        }
        let task = Options::new().blocking(true).spawn(async move {
            let before = kind();
            tokio::time::sleep(Duration::from_millis(1)).await;
            (before, kind())
        });
        assert_eq!(task.await.unwrap(), (ProcessorKind::Blocking, ProcessorKind::Blocking));
        assert!(rt.processors().iter().all(|processor| processor.kind == ProcessorKind::Cpu));
    });
}

// priority

/// Lets the worker pick so many times, so that rounds begin at different places of its 61 picks.
async fn picks(count: usize) {
    spawn(async move {
        for _ in 0..count {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

/// Runs tasks of these priorities on one worker that is busy until all of them are ready; the order in which they ran.
async fn order_of(rt: &Runtime, priorities: &[i32]) -> Vec<i32> {
    let order = Arc::new(Mutex::new(Vec::new()));
    let gate = Body::new().waits();
    let holder = Kind::Sync.spawn(Options::new(), &gate);
    gate.started.pass().await;
    let tasks: Vec<_> = priorities
        .iter()
        .enumerate()
        .map(|(index, &priority)| {
            let order = order.clone();
            let run = move || order.lock().unwrap().push(priority);
            // Also as successors of the holder: both kinds are ready when it ends.
            match index % 3 {
                0 => spawn!((run)(); priority = priority, syncdeps = [&holder]),
                1 => Options::new().priority(priority).spawn(async move { run() }),
                _ => spawn!((run)(); priority = priority),
            }
        })
        .collect();
    gate.go.open();
    for result in wait_all(tasks).await {
        result.unwrap();
    }
    rt.idle().await;
    Arc::into_inner(order).unwrap().into_inner().unwrap()
}

/// How many must be taken away so that the rest falls.
fn out_of_order(order: &[i32]) -> usize {
    let mut best: Vec<usize> = Vec::new();
    for (i, x) in order.iter().enumerate() {
        let before = (0..i).filter(|&j| order[j] >= *x).map(|j| best[j]).max().unwrap_or(0);
        best.push(before + 1);
    }
    order.len() - best.into_iter().max().unwrap_or(0)
}

/// In 61 picks each lane gives its oldest task once out of turn, and so may the other sources; the rest is in order.
#[test]
fn ready_tasks_run_by_priority() {
    on_workers(1, |rt| async move {
        let priorities = [0, 3, -5, 10, 3, 0, -5, 10, i32::MAX, 1, i32::MIN, 0, 3, 10];
        let lanes = 7;
        let mut exact = 0;
        for round in 0..61 {
            picks(round).await;
            let order = order_of(&rt, &priorities).await;
            assert_eq!(order.len(), priorities.len());
            let out = out_of_order(&order);
            assert!(out <= lanes + 2, "{out} tasks out of order: {order:?}");
            exact += usize::from(out == 0);
        }
        assert!(exact >= 20, "only {exact} of 61 rounds ran in order");
    });
}

#[test]
fn a_successor_does_not_pass_a_higher_priority() {
    on_workers(1, |rt| async move {
        let mut kept = 0;
        for round in 0..61 {
            picks(round).await;
            let order = Arc::new(Mutex::new(Vec::new()));
            let note = |name: &'static str| {
                let order = order.clone();
                move || order.lock().unwrap().push(name)
            };
            let gate = Body::new().waits();
            let holder = Kind::Sync.spawn(Options::new(), &gate);
            gate.started.pass().await;
            let successor = spawn!((note("successor"))(); syncdeps = [&holder]);
            let high = spawn!((note("high"))(); priority = 1);
            gate.go.open();
            assert!(successor.await.is_ok() && high.await.is_ok());
            rt.idle().await;
            kept += usize::from(*order.lock().unwrap() == ["high", "successor"]);
        }
        assert!(kept >= 40, "the higher priority went first in {kept} of 61 rounds");
    });
}

/// What has run, in its order.
type Order = Arc<Mutex<Vec<&'static str>>>;

/// Takes the only worker until the gate opens, after so many picks.
async fn occupied(round: usize) -> (Body, Order) {
    picks(round).await;
    let gate = Body::new().waits();
    Kind::Sync.spawn(Options::new(), &gate);
    gate.started.pass().await;
    (gate, Order::default())
}

/// A body that notes its name.
fn noted(order: &Order, name: &'static str) -> impl FnOnce() + Send + 'static {
    let order = order.clone();
    move || order.lock().unwrap().push(name)
}

/// `low` is awaited by a task of high priority and stays low.
#[test]
fn a_task_does_not_take_the_priority_of_one_that_waits_for_it() {
    on_workers(1, |rt| async move {
        let mut kept = 0;
        for round in 0..61 {
            let (gate, order) = occupied(round).await;
            let note = |name| noted(&order, name);
            let low = spawn!((note("low"))(); priority = 1);
            let high = spawn!((|_: &(), note: Note| note())(&low, note("high").boxed()); priority = 100);
            let middle = spawn!((note("middle"))(); priority = 50);
            gate.go.open();
            assert!(high.await.is_ok() && middle.await.is_ok() && low.await.is_ok());
            rt.idle().await;
            kept += usize::from(*order.lock().unwrap() == ["middle", "low", "high"]);
        }
        assert!(kept >= 40, "in order in {kept} of 61 rounds");
    });
}

type Note = Box<dyn FnOnce() + Send>;
trait Boxed {
    fn boxed(self) -> Note;
}
impl<F: FnOnce() + Send + 'static> Boxed for F {
    fn boxed(self) -> Note {
        Box::new(self)
    }
}

#[test]
fn with_options_hands_priority_on() {
    on_workers(1, |rt| async move {
        let mut kept = 0;
        for round in 0..61 {
            let (gate, order) = occupied(round).await;
            let note = |name| noted(&order, name);
            let low = spawn!((note("low"))(); priority = 1);
            let child = note("child");
            let parent = with_options(Options::new().priority(9), async {
                spawn(async move { spawn!((child)()).await })
            })
            .await;
            gate.go.open();
            assert!(low.await.is_ok() && parent.await.unwrap().is_ok());
            rt.idle().await;
            kept += usize::from(*order.lock().unwrap() == ["child", "low"]);
        }
        assert!(kept >= 40, "in order in {kept} of 61 rounds");
    });
}

#[test]
fn ranks_are_an_order_within_a_priority() {
    on_workers(1, |rt| async move {
        let mut kept = 0;
        for round in 0..61 {
            let (gate, order) = occupied(round).await;
            let note = |name| noted(&order, name);
            spawn!((note("low 8"))(); rank = 8, priority = -1);
            with_options(Options::new().rank(2).priority(1), async {
                drop(spawn!((note("high 2"))()));
                drop(spawn!((note("high 9"))(); rank = 200));
                drop(spawn!((note("high 3"))(); rank = 3));
            })
            .await;
            gate.go.open();
            rt.idle().await;
            kept += usize::from(*order.lock().unwrap() == ["high 9", "high 3", "high 2", "low 8"]);
        }
        assert!(kept >= 30, "in order in {kept} of 61 rounds");
    });
}

/// Also those that are bound to a worker, beside others whose rank is larger.
#[test]
fn tasks_without_a_rank_have_their_turns_beside_those_with_one() {
    on_workers(1, |rt| async move {
        for round in 0..61 {
            let (gate, order) = occupied(round).await;
            let note = |name| noted(&order, name);
            for _ in 0..100 {
                spawn!((note("ranked"))(); rank = 8);
            }
            for _ in 0..4 {
                spawn!((note("plain"))());
                spawn!((note("bound"))(); scope = Scope::thread(0));
            }
            gate.go.open();
            rt.idle().await;
            let order = order.lock().unwrap();
            let last = |name| order.iter().rposition(|&at| at == name).unwrap();
            assert!(last("plain") < 24 && last("bound") < 40, "round {round}: {order:?}");
        }
    });
}

/// The same for those that only this worker may run, in a domain of their own.
#[test]
fn tasks_of_one_worker_have_their_turns_beside_those_with_a_rank() {
    on_workers(2, |rt| async move {
        for round in 0..61 {
            picks(round).await;
            let order = Arc::new(Mutex::new(Vec::new()));
            let note = |name: &'static str| {
                let order = order.clone();
                move || order.lock().unwrap().push(name)
            };
            let gates = [Body::new().waits(), Body::new().waits()];
            for (worker, gate) in gates.iter().enumerate() {
                Kind::Sync.spawn(Options::new().scope(Scope::thread(worker)), gate);
                gate.started.pass().await;
            }
            for _ in 0..100 {
                spawn!((note("ranked"))(); rank = 8);
            }
            let bound: Vec<_> = (0..4).map(|_| spawn!((note("bound"))(); scope = Scope::thread(0))).collect();
            gates[0].go.open();
            for task in bound {
                task.await.unwrap();
            }
            // The other worker is still at its gate.
            let last = order.lock().unwrap().iter().rposition(|&at| at == "bound").unwrap();
            assert!(last < 40, "round {round}: {last}");
            gates[1].go.open();
            rt.idle().await;
        }
    });
}

#[test]
fn a_low_priority_is_not_starved() {
    fn high(done: Gate, runs: Arc<AtomicU32>, priority: i32) {
        if !done.is_open() && runs.fetch_add(1, SeqCst) < 100_000 {
            for _ in 0..(if runs.load(SeqCst) < 200 { 2 } else { 1 }) {
                spawn!(high(done.clone(), runs.clone(), priority); priority = priority);
            }
        }
    }
    on_workers(1, |rt| async move {
        for (low, priority) in [(-1, 0), (0, 5), (-5, 5), (i32::MIN, i32::MAX)] {
            let (done, runs) = (Gate::new(), Arc::new(AtomicU32::new(0)));
            let gate = Body::new().waits();
            Kind::Sync.spawn(Options::new(), &gate);
            gate.started.pass().await;
            spawn!(high(done.clone(), runs.clone(), priority); priority = priority);
            let opens = done.clone();
            let task = spawn!((move || opens.open())(); priority = low);
            gate.go.open();
            task.await.unwrap();
            let ran = runs.load(SeqCst);
            rt.idle().await;
            assert!(ran <= 2 * 61, "{ran} tasks of priority {priority} ran before one of {low}");
        }
    });
}
