//! Deep, wide and many: chains of a million, waits nested by the thousand, random graphs against their sequential run.
//!
//! One test runs at a time: some measure memory, all of them want the machine.
#![allow(
    clippy::unwrap_used,
    clippy::async_yields_async,
    reason = "helpers of tests; blocks that hand out handles"
)]

use dagger_async::prelude::*;
use futures::FutureExt;
use futures::executor::block_on;
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tokio::sync::oneshot;

/// Runs a test alone, on a thread of its own with a small stack, and fails by its name when it hangs.
fn guarded(body: impl FnOnce() + Send + 'static) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let (done, ended) = mpsc::channel();
    let body = move || {
        body();
        let _ = done.send(());
    };
    let thread = std::thread::Builder::new().name(name.clone()).stack_size(256 << 10).spawn(body).unwrap();
    if ended.recv_timeout(Duration::from_secs(120)) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("{name} hangs");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn runtime(threads: usize) -> Runtime {
    Runtime::builder().threads(threads).pin(false).name("scale").build().unwrap()
}

const MILLION: usize = 1_000_000;

// Nested waits.

fn nest_blocking(depth: u32) -> u32 {
    match depth {
        0 => 0,
        _ => spawn!(nest_blocking(depth - 1)).blocking_wait().unwrap() + 1,
    }
}

fn nest_await(depth: u32) -> BoxFuture<'static, u32> {
    async move {
        match depth {
            0 => 0,
            _ => spawn(nest_await(depth - 1)).await.unwrap() + 1,
        }
    }
    .boxed()
}

#[test]
fn blocking_waits_nest_a_thousand_deep() {
    guarded(|| {
        for threads in [1, 2] {
            let rt = runtime(threads);
            for _ in 0..5 {
                assert_eq!(rt.block_on(async { spawn!(nest_blocking(1000)).await }).unwrap(), 1000);
            }
            block_on(rt.shutdown());
        }
    });
}

#[test]
fn awaits_nest_ten_thousand_deep() {
    guarded(|| {
        for threads in [1, 2, 8] {
            let rt = runtime(threads);
            for _ in 0..3 {
                assert_eq!(rt.block_on(async { spawn(nest_await(10_000)).await }).unwrap(), 10_000);
            }
            block_on(rt.shutdown());
        }
    });
}

#[test]
fn awaits_by_reference_nest_ten_thousand_deep() {
    fn nest(depth: u32) -> BoxFuture<'static, u32> {
        async move {
            match depth {
                0 => 0,
                _ => {
                    let child = spawn(nest(depth - 1));
                    let value = (&child).await.unwrap();
                    *value + 1
                }
            }
        }
        .boxed()
    }
    guarded(|| {
        let rt = runtime(1);
        assert_eq!(rt.block_on(async { spawn(nest(10_000)).await }).unwrap(), 10_000);
    });
}

#[test]
fn bodies_that_cannot_run_in_place_use_spare_threads_up_to_the_cap() {
    // Each of eight bodies blocks on a task that has started and is suspended: four spare threads carry four of them,
    // the others are told. Nobody hangs, and who waits goes on when the gate opens.
    guarded(|| {
        for threads in [1, 2] {
            for _ in 0..20 {
                let rt = Runtime::builder().threads(threads).pin(false).spare_threads(4).build().unwrap();
                let (open, gate) = oneshot::channel::<u32>();
                let (tell, told) = mpsc::channel();
                let tasks = rt.block_on(async {
                    let gate = spawn(async move { gate.await.unwrap() });
                    let started = spawn(async {});
                    started.await.unwrap();
                    let bodies = (0..8).map(|_| {
                        let (gate, tell) = (gate.clone(), tell.clone());
                        spawn!((move || {
                            let waited = gate.blocking_wait();
                            tell.send(waited.clone()).unwrap();
                            waited
                        })(); name = "blocks")
                    });
                    bodies.collect::<Vec<_>>()
                });
                for _ in 0..4 {
                    let error = told.recv().unwrap().unwrap_err();
                    assert!(matches!(error, Error::TooManyThreads { limit: 4, .. }), "{error}");
                    assert_eq!(error.root().unwrap().name(), "blocks");
                }
                open.send(5).unwrap();
                for _ in 0..4 {
                    assert_eq!(told.recv().unwrap().unwrap(), 5);
                }
                block_on(wait_all(tasks));
            }
        }
    });
}

#[test]
fn one_spare_thread_is_enough_for_bodies_that_block_one_after_the_other() {
    // The body before has returned (its handle says so) when the next one blocks: its thread is spare again.
    guarded(|| {
        let rt = Runtime::builder().threads(1).pin(false).spare_threads(1).build().unwrap();
        for round in 0..2000 {
            let (open, gate) = oneshot::channel::<u32>();
            let (tell, told) = mpsc::channel();
            let body = rt.block_on(async {
                let gate = spawn(async move { gate.await.unwrap() });
                spawn!((|| ())()).await.unwrap();
                spawn!((move || {
                    tell.send(()).unwrap();
                    gate.blocking_wait()
                })())
            });
            told.recv().unwrap();
            open.send(round).unwrap();
            assert_eq!(
                body.blocking_wait().unwrap().unwrap_or_else(|error| panic!("round {round}: {error}")),
                round
            );
        }
    });
}

#[test]
fn a_thousand_blocked_bodies_over_the_cap_end_with_the_stated_error() {
    fn nest(depth: u32) -> dagger_async::Result<u32> {
        // Another task is suspended between each two bodies: nothing can be run in place.
        let inner = match depth {
            0 => return Ok(0),
            _ => spawn(async move {
                tokio::time::sleep(Duration::from_micros(1)).await;
                spawn!(nest(depth - 1)).await
            }),
        };
        Ok(inner.blocking_wait()??? + 1)
    }
    guarded(|| {
        let rt = Runtime::builder().threads(1).pin(false).spare_threads(4).build().unwrap();
        assert_eq!(rt.block_on(async { spawn!(nest(4)).await }).unwrap().unwrap(), 4);
        let error = rt.block_on(async { spawn!(nest(1000)).await }).unwrap().unwrap_err();
        assert!(matches!(error, Error::TooManyThreads { .. }), "{error}");
        assert_eq!(rt.block_on(async { spawn!((|| 1)()).await }).unwrap(), 1);
    });
}

#[test]
fn five_hundred_parents_wait_for_five_hundred_children_each() {
    fn parents_await(parents: usize, children: usize) -> Vec<DTask<usize>> {
        let parent = move || async move {
            let children = (0..children).map(|i| spawn!((|i: usize| i)(i))).collect::<Vec<_>>();
            wait_all(children).await.into_iter().map(|x| x.unwrap()).sum()
        };
        (0..parents).map(|_| spawn(parent())).collect()
    }
    fn parents_block(parents: usize, children: usize) -> Vec<DTask<usize>> {
        let parent = move || {
            let children = (0..children).map(|i| spawn!((|i: usize| i)(i))).collect::<Vec<_>>();
            children.into_iter().map(|child| child.blocking_wait().unwrap()).sum()
        };
        (0..parents).map(|_| spawn!(parent())).collect()
    }
    guarded(|| {
        for threads in [1, 2, 8] {
            let rt = runtime(threads);
            for round in 0..20 {
                // All of the size at each round where the build is fast, at the first round where it is not.
                let children = if cfg!(debug_assertions) && round > 0 { 25 } else { 500 };
                let sum: usize = (0..children).sum();
                for spawn_parents in [parents_await, parents_block] {
                    let parents = rt.block_on(async move { spawn_parents(500, children) });
                    assert!(block_on(wait_all(parents)).into_iter().all(|x| x.unwrap() == sum));
                }
            }
            rt.block_on(rt.idle());
            block_on(rt.shutdown());
        }
    });
}

#[test]
fn children_that_spawn_children_are_waited_for_by_awaits_and_by_blocking() {
    fn tree(depth: u32, width: u32) -> BoxFuture<'static, u32> {
        async move {
            if depth == 0 {
                return 1;
            }
            let children: Vec<_> = (0..width)
                .map(|i| match i % 2 {
                    0 => spawn(tree(depth - 1, width)),
                    _ => spawn!(tree_blocking(depth - 1, width)),
                })
                .collect();
            wait_all(children).await.into_iter().map(|x| x.unwrap()).sum()
        }
        .boxed()
    }
    fn tree_blocking(depth: u32, width: u32) -> u32 {
        if depth == 0 {
            return 1;
        }
        let children: Vec<_> = (0..width)
            .map(|i| match i % 2 {
                0 => spawn(tree(depth - 1, width)),
                _ => spawn!(tree_blocking(depth - 1, width)),
            })
            .collect();
        children.into_iter().map(|child| child.blocking_wait().unwrap()).sum()
    }
    guarded(|| {
        for threads in [1, 2, 8] {
            let rt = runtime(threads);
            for _ in 0..5 {
                assert_eq!(rt.block_on(async { spawn(tree(5, 5)).await }).unwrap(), 3125);
                assert_eq!(rt.block_on(async { spawn!(tree_blocking(5, 5)).await }).unwrap(), 3125);
            }
        }
    });
}

// Chains.

/// A chain by value behind a gate: the gate, and the last link.
fn chain(rt: &Runtime, links: usize) -> (oneshot::Sender<u64>, DTask<u64>, DTask<u64>) {
    let (open, gate) = oneshot::channel();
    rt.block_on(async {
        let head = try_spawn(gate);
        let mut last = spawn!((|x: &u64| *x)(&head));
        for _ in 1..links {
            last = spawn!((|x: u64| x + 1)(last));
        }
        (open, head, last)
    })
}

#[test]
fn a_chain_of_a_million_runs() {
    guarded(|| {
        for threads in [1, 2] {
            let rt = runtime(threads);
            let (open, _head, last) = chain(&rt, MILLION);
            open.send(5).unwrap();
            assert_eq!(last.blocking_wait().unwrap(), MILLION as u64 + 4);
        }
    });
}

#[test]
fn the_failure_of_a_head_reaches_each_link_of_a_million_with_its_root() {
    guarded(|| {
        let rt = runtime(1);
        let (open, gate) = oneshot::channel::<u64>();
        let (head, links) = rt.block_on(async {
            let head = Options::new().name("head").try_spawn(gate);
            let mut links = vec![spawn!((|x: &u64| x + 1)(&head))];
            for i in 1..MILLION {
                let next = spawn!((|x: &u64| x + 1)(&links[i - 1]));
                links.push(next);
            }
            (head, links)
        });
        drop(open); // The head fails.
        for link in links {
            let error = link.blocking_wait().unwrap_err();
            let root = error.root().unwrap();
            assert!(root.id() == head.id() && root.name() == "head", "{error}");
            assert!(matches!(error, Error::Dependency { .. }));
        }
        assert!(matches!(head.blocking_wait(), Err(Error::Task { .. })));
    });
}

#[test]
fn a_chain_of_a_million_whose_head_failed_before_is_refused_link_by_link() {
    guarded(|| {
        let rt = runtime(1);
        let last = rt.block_on(async {
            let mut last =
                spawn!((|| -> u64 { std::panic::resume_unwind(Box::new("head")) })(); name = "head");
            last.wait().await;
            for _ in 0..MILLION / 4 {
                last = spawn!((|x: u64| x + 1)(last));
            }
            last
        });
        assert_eq!(last.blocking_wait().unwrap_err().root().unwrap().name(), "head");
    });
}

#[test]
fn a_chain_of_a_million_may_be_dropped() {
    guarded(|| {
        let rt = runtime(1);
        // Before it runs, and while it runs.
        let (open, head, last) = chain(&rt, MILLION);
        drop((head, last));
        open.send(1).unwrap();
        rt.block_on(rt.idle());
        // When its head has failed.
        let (open, head, last) = chain(&rt, MILLION);
        drop((open, head, last));
        rt.block_on(rt.idle());
    });
}

#[test]
fn cancelling_the_head_ends_a_chain_of_a_million() {
    guarded(|| {
        let rt = runtime(1);
        let (_open, head, last) = chain(&rt, MILLION);
        head.cancel(); // On this thread, with its small stack.
        let error = last.blocking_wait().unwrap_err();
        assert_eq!(error.root().unwrap().id(), head.id());
        rt.block_on(rt.idle());
    });
}

#[test]
fn a_shutdown_in_the_middle_of_a_chain_of_a_million_ends_it() {
    guarded(|| {
        for threads in [1, 2] {
            let rt = runtime(threads);
            let (middle, reached) = mpsc::channel();
            let ran = Arc::new(AtomicUsize::new(0));
            let (open, gate) = oneshot::channel::<()>();
            let last = rt.block_on(async {
                let mut last = spawn(async move { gate.await.unwrap() });
                for i in 0..MILLION {
                    let (ran, middle) = (ran.clone(), middle.clone());
                    last = spawn!((move |(): ()| {
                        ran.fetch_add(1, Relaxed);
                        if i == MILLION / 4 {
                            middle.send(()).unwrap();
                        }
                    })(last));
                }
                last
            });
            open.send(()).unwrap();
            reached.recv().unwrap();
            block_on(rt.shutdown());
            assert!(last.is_finished());
            match last.blocking_wait() {
                Ok(()) => assert_eq!(ran.load(Relaxed), MILLION),
                Err(error) => assert!(matches!(error, Error::Shutdown { .. }), "{error}"),
            }
            // Every body is gone: its closure is.
            assert_eq!(Arc::strong_count(&ran), 1);
        }
    });
}

#[test]
fn a_shutdown_ends_a_chain_of_a_million_that_waits() {
    guarded(|| {
        let rt = runtime(1);
        let (_open, head, last) = chain(&rt, MILLION);
        block_on(rt.shutdown());
        assert!(matches!(last.blocking_wait(), Err(Error::Shutdown { .. })));
        assert!(matches!(head.blocking_wait(), Err(Error::Shutdown { .. })));
    });
}

#[test]
fn a_hundred_thousand_tasks_wait_for_one() {
    guarded(|| {
        for fails in [false, true] {
            let rt = runtime(2);
            let (open, gate) = oneshot::channel::<usize>();
            let tasks: Vec<_> = rt.block_on(async {
                let head = try_spawn(gate);
                (0..100_000)
                    .map(|i| match i % 2 {
                        0 => spawn!((|x: &usize| *x)(&head)),
                        _ => {
                            let head = head.clone();
                            try_spawn(head)
                        }
                    })
                    .collect()
            });
            match fails {
                true => drop(open),
                false => open.send(3).unwrap(),
            }
            let ended = block_on(wait_all(tasks));
            assert!(ended.into_iter().all(|x| if fails { x.is_err() } else { x.unwrap() == 3 }));
        }
    });
}

#[test]
fn one_task_waits_for_a_hundred_thousand() {
    guarded(|| {
        let rt = runtime(2);
        let count = Arc::new(AtomicUsize::new(0));
        let all = rt.block_on(async {
            let tasks: Vec<_> = (0..100_000)
                .map(|_| {
                    let count = count.clone();
                    spawn!((move || _ = count.fetch_add(1, Relaxed))())
                })
                .collect();
            let count = count.clone();
            spawn!((move || count.load(Relaxed))(); syncdeps = &tasks)
        });
        assert_eq!(all.blocking_wait().unwrap(), 100_000);
    });
}

// Many.

#[test]
fn a_million_independent_tasks_each_run_once() {
    guarded(|| {
        for (threads, inside) in [(1, false), (2, true), (8, false)] {
            let rt = runtime(threads);
            let count = Arc::new(AtomicUsize::new(0));
            let counted = count.clone();
            let spawn_all = move || {
                for _ in 0..MILLION {
                    let count = counted.clone();
                    spawn!((move || count.fetch_add(1, Relaxed))());
                }
            };
            rt.block_on(async {
                match inside {
                    true => spawn!(spawn_all()).await.unwrap(),
                    false => spawn_all(),
                }
            });
            rt.block_on(rt.idle());
            assert_eq!(count.load(Relaxed), MILLION);
            assert_eq!(Arc::strong_count(&count), 1);
        }
    });
}

#[test]
fn eight_threads_outside_spawn_at_once_on_two_workers() {
    guarded(|| {
        let rt = Arc::new(runtime(2));
        let count = Arc::new(AtomicUsize::new(0));
        let tasks_each: usize = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (rt, count) = (rt.clone(), count.clone());
                let body = move || {
                    rt.block_on(async {
                        let mut last = spawn!((|| 0usize)());
                        for i in 0..tasks_each {
                            let count = count.clone();
                            let task = spawn!((move |x: &usize| {
                                count.fetch_add(1, Relaxed);
                                x + 1
                            })(&last));
                            if i % 16 == 0 {
                                last = task;
                            }
                            if i % 1000 == 0 {
                                assert!(*(&last).await.unwrap() > 0);
                            }
                        }
                        last.await.unwrap()
                    })
                };
                std::thread::spawn(body)
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), tasks_each.div_ceil(16));
        }
        rt.block_on(rt.idle());
        assert_eq!(count.load(Relaxed), 8 * tasks_each);
    });
}

/// The resident bytes of the process; `None` where the system does not tell.
fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

#[test]
fn memory_does_not_grow_with_the_tasks_that_have_been() {
    guarded(|| {
        let rt = runtime(2);
        let round = |tasks: usize| {
            rt.block_on(async {
                let token = CancelToken::new();
                for i in 0..tasks / 100 {
                    let batch: Vec<DTask<usize>> = (0..100)
                        .map(|j| match j % 10 {
                            0 => spawn(async move {
                                tokio::task::yield_now().await;
                                i
                            }),
                            1 => spawn!((|i: usize| i)(i); cancel = token.clone(), name = "named"),
                            2 => spawn(std::future::pending::<usize>()),
                            3 => Options::new().timeout(Duration::from_secs(3600)).spawn(async move { i }),
                            _ => spawn!((|i: usize| i)(i)),
                        })
                        .collect();
                    for (j, task) in batch.into_iter().enumerate() {
                        match j % 10 {
                            2 => task.cancel(),
                            _ => drop(task.await),
                        }
                    }
                }
                rt.idle().await;
            });
        };
        let tasks = if cfg!(debug_assertions) { MILLION / 10 } else { MILLION };
        round(tasks);
        let Some(before) = resident_bytes() else { return };
        for _ in 0..4 {
            round(tasks);
        }
        let grown = resident_bytes().unwrap_or_default().saturating_sub(before);
        // 16 bytes for each task would be far more.
        assert!(grown < tasks * 4 * 8 + (4 << 20), "{grown} bytes more after {} tasks", tasks * 4);
    });
}

// Random graphs.

/// A sequence of numbers that is the same on each run (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// What a node computes from its inputs; the order of the inputs matters.
fn mix(node: usize, inputs: &[u64]) -> u64 {
    inputs.iter().fold(Random(node as u64).next(), |hash, &x| Random(hash ^ x.rotate_left(17)).next())
}

trait Number: Send + Sync + 'static {
    fn new(value: u64) -> Self;
    fn get(&self) -> u64;
}

#[derive(Clone)]
struct Cloneable(Box<u64>);
struct Unique(Box<u64>);

impl Number for Cloneable {
    fn new(value: u64) -> Self {
        Cloneable(Box::new(value))
    }
    fn get(&self) -> u64 {
        *self.0
    }
}
impl Number for Unique {
    fn new(value: u64) -> Self {
        Unique(Box::new(value))
    }
    fn get(&self) -> u64 {
        *self.0
    }
}

/// A node of a graph: whom it uses, and how it is written.
struct Node {
    inputs: Vec<usize>,
    shape: usize,
}

fn random_graph(random: &mut Random, nodes: usize) -> Vec<Node> {
    // Near inputs make long graphs, far ones wide graphs.
    let reach = 1 + random.below(nodes);
    (0..nodes)
        .map(|node| {
            let inputs = if node == 0 { 0 } else { random.below(4) };
            let near = reach.min(node);
            let inputs = (0..inputs).map(|_| node - 1 - random.below(near)).collect();
            Node { inputs, shape: random.below(64) }
        })
        .collect()
}

/// The oracle: every `spawn!` removed.
fn in_sequence(graph: &[Node]) -> Vec<u64> {
    let mut values: Vec<u64> = Vec::with_capacity(graph.len());
    for (node, Node { inputs, .. }) in graph.iter().enumerate() {
        let inputs: Vec<u64> = inputs.iter().map(|&input| values[input]).collect();
        values.push(mix(node, &inputs));
    }
    values
}

/// The handles of a graph that is being spawned; who uses a value last takes its handle.
struct Handles<T: Number> {
    tasks: Vec<Option<DTask<T>>>,
    uses_left: Vec<usize>,
}

/// How an input is given to a callee or a body.
enum Input<T: Number> {
    ByValue(DTask<T>),
    ByReference(usize),
}

impl<T: Number> Handles<T> {
    fn new(graph: &[Node]) -> Self {
        let mut uses_left = vec![0; graph.len()];
        graph.iter().flat_map(|node| &node.inputs).for_each(|&input| uses_left[input] += 1);
        Handles { tasks: Vec::with_capacity(graph.len()), uses_left }
    }
    fn get(&self, input: usize) -> &DTask<T> {
        self.tasks[input].as_ref().unwrap()
    }
    /// The last use is by value if `clone` knows no better; the others as `clone` can.
    fn take(
        &mut self,
        input: usize,
        by_value: bool,
        clone: impl Fn(&DTask<T>) -> Option<DTask<T>>,
    ) -> Input<T> {
        self.uses_left[input] -= 1;
        match (by_value, self.uses_left[input]) {
            (true, 0) => Input::ByValue(self.tasks[input].take().unwrap()),
            (true, _) => clone(self.get(input)).map_or(Input::ByReference(input), Input::ByValue),
            (false, _) => Input::ByReference(input),
        }
    }
}

/// Spawns the graph and gives what each body computed, and what the handles that are left hold.
async fn in_tasks<T: Number>(
    graph: &[Node],
    clone: impl Fn(&DTask<T>) -> Option<DTask<T>> + Copy,
) -> Vec<u64> {
    let computed: Arc<Vec<AtomicU64>> = Arc::new(graph.iter().map(|_| AtomicU64::new(0)).collect());
    let mut handles = Handles::<T>::new(graph);
    for (node, Node { inputs, shape }) in graph.iter().enumerate() {
        let computed = computed.clone();
        let finish = move |inputs: &[u64]| {
            let value = mix(node, inputs);
            assert_eq!(computed[node].swap(value, SeqCst), 0, "node {node} ran twice");
            T::new(value)
        };
        let by_value = |i: usize| shape >> i & 1 == 0;
        // A use by value of a value that is not `Clone` waits for uses by reference: not for one in the same call.
        let twice = (1..inputs.len()).any(|i| inputs[..i].contains(&inputs[i]));
        let given: Vec<Input<T>> = inputs
            .iter()
            .enumerate()
            .map(|(i, &input)| handles.take(input, by_value(i) && !twice, clone))
            .collect();
        let task = match shape >> 3 {
            // A function, each argument by value or by reference.
            0..4 => {
                use Input::{ByReference as Ref, ByValue as Val};
                let mut given = given.into_iter();
                let h = &handles;
                match (given.next(), given.next(), given.next()) {
                    (None, ..) => spawn!((move || finish(&[]))()),
                    (Some(Val(a)), None, _) => spawn!((move |a: T| finish(&[a.get()]))(a)),
                    (Some(Ref(a)), None, _) => spawn!((move |a: &T| finish(&[a.get()]))(h.get(a))),
                    (Some(Val(a)), Some(Val(b)), None) => {
                        spawn!((move |a: T, b: T| finish(&[a.get(), b.get()]))(a, b))
                    }
                    (Some(Ref(a)), Some(Val(b)), None) => {
                        spawn!((move |a: &T, b: T| finish(&[a.get(), b.get()]))(h.get(a), b))
                    }
                    (Some(Val(a)), Some(Ref(b)), None) => {
                        spawn!((move |a: T, b: &T| finish(&[a.get(), b.get()]))(a, h.get(b)); priority = 2)
                    }
                    (Some(Ref(a)), Some(Ref(b)), None) => {
                        spawn!((move |a: &T, b: &T| finish(&[a.get(), b.get()]))(h.get(a), h.get(b)))
                    }
                    (Some(Val(a)), Some(Val(b)), Some(Ref(c))) => {
                        spawn!((move |a: T, b: T, c: &T| finish(&[a.get(), b.get(), c.get()]))(
                            a,
                            b,
                            h.get(c)
                        ))
                    }
                    (Some(Ref(a)), Some(Ref(b)), Some(Ref(c))) => {
                        spawn!((move |a: &T, b: &T, c: &T| finish(&[a.get(), b.get(), c.get()]))(
                            h.get(a),
                            h.get(b),
                            h.get(c)
                        ); scope = Scope::thread(0))
                    }
                    (a, b, c) => {
                        // The mixtures left: an async body over what each of them gives.
                        let parts = [a, b, c].map(|input| input.map(|input| number(h, input)));
                        spawn(async move {
                            let mut numbers = Vec::new();
                            for part in parts.into_iter().flatten() {
                                numbers.push(part.await);
                            }
                            finish(&numbers)
                        })
                    }
                }
            }
            // A future that awaits its inputs, one after the other or together.
            4 | 5 => {
                let parts: Vec<_> = given.into_iter().map(|input| number(&handles, input)).collect();
                let together = shape >> 3 == 5;
                spawn(async move {
                    let numbers = match together {
                        true => futures::future::join_all(parts).await,
                        false => {
                            let mut numbers = Vec::new();
                            for part in parts {
                                numbers.push(part.await);
                                tokio::task::yield_now().await;
                            }
                            numbers
                        }
                    };
                    finish(&numbers)
                })
            }
            // A function that spawns a child, and blocks on it where inputs are there.
            6 => {
                let parts: Vec<_> = given.into_iter().map(|input| number(&handles, input)).collect();
                let inputs = Await(futures::future::join_all(parts));
                spawn!((move |numbers: Vec<u64>| {
                    spawn!((move || finish(&numbers))()).blocking_wait().unwrap()
                })(inputs))
            }
            // A future that spawns a child and awaits it.
            _ => {
                let parts: Vec<_> = given.into_iter().map(|input| number(&handles, input)).collect();
                spawn(async move {
                    let numbers = futures::future::join_all(parts).await;
                    spawn(async move { finish(&numbers) }).await.unwrap()
                })
            }
        };
        handles.tasks.push(Some(task));
    }
    let expected_from_handles: Vec<_> =
        handles.tasks.into_iter().enumerate().filter_map(|(i, t)| Some((i, t?))).collect();
    let mut left = Vec::new();
    for (node, task) in expected_from_handles.into_iter().rev() {
        left.push((node, task.await.unwrap().get()));
    }
    let computed: Vec<u64> = computed.iter().map(|value| value.load(SeqCst)).collect();
    for (node, value) in left {
        assert_eq!(computed[node], value, "node {node}: the handle gives something else than the body did");
    }
    computed
}

/// The number of an input, awaited by value or by reference. The use by reference is taken out when this is called.
fn number<T: Number>(handles: &Handles<T>, input: Input<T>) -> BoxFuture<'static, u64> {
    match input {
        Input::ByValue(task) => async move { task.await.unwrap().get() }.boxed(),
        Input::ByReference(input) => {
            let read = spawn!((|x: &T| x.get())(handles.get(input)));
            async move { read.await.unwrap() }.boxed()
        }
    }
}

#[test]
fn random_graphs_compute_what_their_sequential_run_computes() {
    guarded(|| {
        let runtimes = [1, 2, 8].map(runtime);
        for seed in 0..320 {
            let mut random = Random(seed);
            let nodes = match seed % 40 {
                0 => 2000,
                1..10 => 200 + random.below(200),
                _ => 2 + random.below(60),
            };
            let graph = random_graph(&mut random, nodes);
            let expected = in_sequence(&graph);
            for rt in &runtimes {
                let found = rt.block_on(in_tasks::<Cloneable>(&graph, |task| Some(task.clone())));
                assert_eq!(found, expected, "seed {seed}, values that are `Clone`, {rt:?}");
                let found = rt.block_on(in_tasks::<Unique>(&graph, |_| None));
                assert_eq!(found, expected, "seed {seed}, values that are not `Clone`, {rt:?}");
            }
        }
        for rt in runtimes {
            rt.block_on(rt.idle());
            block_on(rt.shutdown());
        }
    });
}

#[test]
fn a_diamond_lattice_computes_its_binomials() {
    guarded(|| {
        for threads in [1, 2, 8] {
            let rt = runtime(threads);
            let row = rt.block_on(async {
                let mut row = vec![spawn!((|| 1u64)())];
                for _ in 0..200 {
                    let middle = row
                        .windows(2)
                        .map(|pair| spawn!((|x: &u64, y: u64| x.wrapping_add(y))(&pair[0], pair[1].clone())));
                    let middle: Vec<_> = middle.collect();
                    let ends = [spawn!((|x: &u64| *x)(&row[0])), spawn!((|x: u64| x)(row.pop().unwrap()))];
                    let [first, last] = ends;
                    row = std::iter::once(first).chain(middle).chain([last]).collect();
                }
                wait_all(row).await
            });
            let mut expected = vec![1u64];
            for _ in 0..200 {
                let mut next = vec![1];
                next.extend(expected.windows(2).map(|pair| pair[0].wrapping_add(pair[1])));
                next.push(1);
                expected = next;
            }
            assert_eq!(row.into_iter().map(|x| x.unwrap()).collect::<Vec<_>>(), expected);
        }
    });
}
