//! Whatever the load, nothing that is ready waits for ever: order on one worker, shares between lanes, and that no
//! worker idles beside work.
#![allow(
    clippy::unwrap_used,
    clippy::async_yields_async,
    reason = "helpers of tests; blocks that hand out handles"
)]

use dagger_async::prelude::*;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

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
    Runtime::builder().threads(threads).pin(false).name("fair").build().unwrap()
}

/// A runtime, and a function that returns when all of its workers sleep (where that can be seen).
fn runtime_that_shows_its_sleep(threads: usize) -> (Runtime, impl Fn()) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("f{}", NUMBER.fetch_add(1, SeqCst));
    let rt = Runtime::builder().threads(threads).pin(false).name(&*name).build().unwrap();
    let prefix = format!("({name}-worker-");
    let awake = move || -> Option<bool> {
        let mut awake = false;
        for thread in std::fs::read_dir("/proc/self/task").ok()? {
            // `17 (f3-worker-0) S ..`
            let Ok(stat) = std::fs::read_to_string(thread.ok()?.path().join("stat")) else { continue };
            awake |= stat.contains(&prefix) && !stat.contains(") S ");
        }
        Some(awake)
    };
    (rt, move || while awake() == Some(true) {})
}

/// A name, and the options of a kind of tasks.
type Kind = (&'static str, fn() -> Options);

/// How long a body computes for what should happen at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Occupies the thread until `is_so`; false if that takes too long.
fn compute_until(is_so: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !is_so() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// A place where bodies meet: each computes until all are there.
#[derive(Clone)]
struct Meeting(Arc<AtomicUsize>, usize);

impl Meeting {
    fn of(bodies: usize) -> Self {
        Meeting(Arc::default(), bodies)
    }
    fn attend(&self) -> bool {
        self.0.fetch_add(1, SeqCst);
        compute_until(|| self.0.load(SeqCst) >= self.1)
    }
}

/// Keeps the only worker busy until the guard is dropped, so that what is spawned meanwhile queues.
fn occupy(rt: &Runtime) -> impl Drop {
    struct Release(mpsc::Sender<()>);
    impl Drop for Release {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (started, has_started) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    rt.block_on(async {
        spawn!((move || {
            started.send(()).unwrap();
            let _ = released.lock().unwrap().recv();
        })());
    });
    has_started.recv().unwrap();
    Release(release)
}

// No worker idles beside work.

#[test]
fn as_many_bodies_as_workers_run_at_once() {
    guarded(|| {
        for threads in [1, 2, 3, 8] {
            let (rt, sleep) = runtime_that_shows_its_sleep(threads);
            for round in 0..60 {
                if round % 2 == 0 {
                    sleep();
                }
                let meeting = Meeting::of(threads);
                let spawn_all = move || -> Vec<DTask<bool>> {
                    let attend = |thread: usize| {
                        let meeting = meeting.clone();
                        let attend = move || meeting.attend();
                        match round % 5 {
                            0 | 4 => spawn!(attend()),
                            1 => spawn!(attend(); scope = Scope::thread(thread)),
                            2 => spawn!(attend(); priority = thread as i32 - 1),
                            _ => spawn(async move { attend() }),
                        }
                    };
                    (0..threads).map(attend).collect()
                };
                let tasks = rt.block_on(async {
                    match round % 5 {
                        4 => spawn(async move { spawn_all() }).await.unwrap(),
                        _ => spawn_all(),
                    }
                });
                let met = futures::executor::block_on(wait_all(tasks));
                assert!(
                    met.into_iter().all(|met| met.unwrap()),
                    "{threads} workers, round {round}: one slept"
                );
            }
        }
    });
}

#[test]
fn a_worker_that_finds_a_task_leaves_no_other_task_behind() {
    // Two tasks are queued while both workers sleep; each computes until the other runs. Every pair of kinds.
    guarded(|| {
        let (rt, sleep) = runtime_that_shows_its_sleep(2);
        let kinds: [Kind; 4] = [
            ("plain", Options::new),
            ("priority -1", || Options::new().priority(-1)),
            ("priority 1", || Options::new().priority(1)),
            ("either thread", || Options::new().scope(Scope::threads([0, 1]))),
        ];
        for (first, first_options) in kinds {
            for (second, second_options) in kinds {
                for round in 0..40 {
                    let meeting = Meeting::of(2);
                    let attend = |options: Options| {
                        let meeting = meeting.clone();
                        options.spawn(async move { meeting.attend() })
                    };
                    sleep();
                    let tasks = rt.block_on(async { [attend(first_options()), attend(second_options())] });
                    let met = futures::executor::block_on(wait_all(tasks));
                    assert!(
                        met.into_iter().all(|met| met.unwrap()),
                        "{first} and {second}, round {round}: one waits in a queue while a worker sleeps"
                    );
                }
            }
        }
    });
}

#[test]
fn a_successor_does_not_wait_behind_a_long_body_of_its_worker() {
    // worker 0:  first ─▶ long (bound to worker 0, computes until the successor ran)
    // worker 1:  idle: the successor of `first` may run anywhere, so it runs here
    guarded(|| {
        let rt = runtime(2);
        for round in 0..61 {
            let ran = Arc::new(AtomicBool::new(false));
            let (set, seen) = (ran.clone(), ran.clone());
            let (long, successor) = rt.block_on(bulk(async {
                let first = spawn!((|| 1)(); scope = Scope::thread(0));
                let successor = spawn!((move |x: i32| {
                    set.store(true, SeqCst);
                    x
                })(first));
                let long = spawn!((move || compute_until(|| seen.load(SeqCst)))(); scope = Scope::thread(0));
                (long, successor)
            }));
            assert!(
                long.blocking_wait().unwrap(),
                "round {round}: the successor waited behind the long body"
            );
            successor.blocking_wait().unwrap();
        }
    });
}

#[test]
fn a_woken_task_does_not_wait_behind_a_long_body_of_its_worker() {
    guarded(|| {
        let rt = runtime(2);
        for round in 0..61 {
            let ran = Arc::new(AtomicBool::new(false));
            let (set, seen) = (ran.clone(), ran.clone());
            let (open, gate) = tokio::sync::oneshot::channel::<()>();
            let (woken, long) = rt.block_on(async {
                let woken = spawn(async move {
                    gate.await.unwrap();
                    set.store(true, SeqCst);
                });
                assert!(woken.wait().now_or_never().is_none());
                // The body wakes it and computes on.
                let long = spawn!((move || {
                    open.send(()).unwrap();
                    compute_until(|| seen.load(SeqCst))
                })());
                (woken, long)
            });
            assert!(long.blocking_wait().unwrap(), "round {round}");
            woken.blocking_wait().unwrap();
        }
    });
}

#[test]
fn tasks_spawned_by_a_body_that_computes_on_are_run_by_others() {
    guarded(|| {
        let rt = runtime(2);
        for children in [1, 2, 3, 5, 100, 1000] {
            for _ in 0..20 {
                let done = Arc::new(AtomicUsize::new(0));
                let all_ran = rt.block_on(async {
                    spawn!((move || {
                        for _ in 0..children {
                            let done = done.clone();
                            spawn!((move || done.fetch_add(1, SeqCst))());
                        }
                        compute_until(|| done.load(SeqCst) == children)
                    })())
                    .await
                    .unwrap()
                });
                assert!(all_ran, "{children} children");
            }
        }
    });
}

#[test]
fn tasks_behind_a_blocked_body_are_run() {
    // One worker; its body blocks on a task that needs everything queued behind it.
    guarded(|| {
        let rt = runtime(1);
        for _ in 0..50 {
            let sum = rt.block_on(async {
                spawn!((|| {
                    let parts: Vec<_> = (0..10).map(|i| spawn!((|i: i32| i)(i))).collect();
                    let total = spawn(async move {
                        let mut total = 0;
                        for part in parts {
                            total += part.await.unwrap();
                            tokio::task::yield_now().await;
                        }
                        total
                    });
                    total.blocking_wait().unwrap()
                })())
                .await
                .unwrap()
            });
            assert_eq!(sum, 45);
        }
    });
}

#[test]
fn blocking_bodies_that_wait_for_each_other_all_run() {
    // Far fewer than `blocking_threads`, so each has a thread, also where threads of an earlier round are unused.
    guarded(|| {
        let rt = runtime(1);
        for bodies in [1, 2, 1, 3, 8, 2, 8] {
            for round in 0..20 {
                let meeting = Meeting::of(bodies);
                let tasks: Vec<_> = rt.block_on(async {
                    (0..bodies)
                        .map(|_| {
                            let meeting = meeting.clone();
                            spawn!((move || meeting.attend())(); blocking = true)
                        })
                        .collect()
                });
                for task in tasks {
                    assert!(
                        task.blocking_wait().unwrap(),
                        "{bodies} blocking bodies, round {round}: one was not started"
                    );
                }
            }
        }
    });
}

#[test]
fn a_blocking_body_runs_although_a_worker_blocks_at_the_same_time() {
    // One thread beside the worker is unused. The worker's body spawns a body that may block, then blocks itself on a
    // task that meets it: the unused thread serves one of the two, so there must be another one.
    guarded(|| {
        for round in 0..20 {
            let rt = runtime(1);
            let met = rt.block_on(async {
                spawn!((|| ())(); blocking = true).await.unwrap();
                spawn!((|| {
                    let meeting = Meeting::of(2);
                    let (here, there) = (meeting.clone(), meeting);
                    let suspended = spawn(async move {
                        tokio::task::yield_now().await;
                        there.attend()
                    });
                    let beside = spawn!((move || here.attend())(); blocking = true);
                    let next = spawn!((|met: bool| met)(suspended));
                    next.blocking_wait().unwrap() && beside.blocking_wait().unwrap()
                })())
                .await
                .unwrap()
            });
            assert!(met, "round {round}: the blocking body was not started");
        }
    });
}

// Order on one worker.

#[test]
fn tasks_spawned_by_a_task_run_in_the_order_of_their_spawns() {
    guarded(|| {
        let rt = runtime(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = order.clone();
        rt.block_on(async move {
            spawn!((move || {
                for i in 0..2000 {
                    let seen = seen.clone();
                    spawn!((move || seen.lock().unwrap().push(i))());
                }
            })())
            .await
            .unwrap();
        });
        rt.block_on(rt.idle());
        assert_eq!(*order.lock().unwrap(), (0..2000).collect::<Vec<_>>());
    });
}

#[test]
fn tasks_of_one_priority_run_in_the_order_of_their_spawns() {
    guarded(|| {
        let rt = runtime(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let busy = occupy(&rt);
        rt.block_on(async {
            for i in 0..1000 {
                let seen = order.clone();
                spawn!((move || seen.lock().unwrap().push(i))(); priority = 3);
            }
        });
        drop(busy);
        rt.block_on(rt.idle());
        assert_eq!(*order.lock().unwrap(), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn a_few_tasks_run_in_the_order_of_their_priorities_whatever_ran_before() {
    guarded(|| {
        let rt = runtime(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        for before in 0..130 {
            let busy = occupy(&rt);
            let tasks = before % 40 + 1;
            rt.block_on(async {
                for i in 0..tasks {
                    // Each priority twice, not in order; 0 with and without a scope. In every other round those of 0 are the last.
                    let priority = ((i * 7 % tasks / 2) as i32 - 3).max(if before % 2 == 0 { -3 } else { 0 });
                    let seen = order.clone();
                    let note = move || seen.lock().unwrap().push(priority);
                    match (i % 2, priority) {
                        (0, 0) => spawn!(note(); scope = Scope::thread(0)),
                        (_, 0) => spawn!(note()),
                        _ => spawn!(note(); priority = priority),
                    };
                }
            });
            drop(busy);
            rt.block_on(rt.idle());
            let seen = std::mem::take(&mut *order.lock().unwrap());
            assert_eq!(seen.len(), tasks);
            assert!(seen.is_sorted_by(|a, b| a >= b), "in round {before}: {seen:?}");
        }
    });
}

#[test]
fn the_higher_priority_goes_first_but_for_one_pick_in_61() {
    guarded(|| {
        let rt = runtime(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let busy = occupy(&rt);
        rt.block_on(async {
            for i in 0..900 {
                let (seen, priority) = (order.clone(), [-4, 0, 7][i % 3]);
                spawn!((move || seen.lock().unwrap().push(priority))(); priority = priority);
            }
        });
        drop(busy);
        rt.block_on(rt.idle());
        let order = order.lock().unwrap();
        // Where the n-th task of the highest priority stands: n, and a few for the fairness rule in between.
        let last_high = order.iter().rposition(|&p| p == 7).unwrap();
        assert!(last_high < 300 + 300 * 4 / 61 + 8, "the last task of priority 7 ran as number {last_high}");
        let plain_before = order[..last_high].iter().filter(|&&p| p == 0).count();
        let low_before = order[..last_high].iter().filter(|&&p| p == -4).count();
        assert!(plain_before >= 1 && low_before >= 1, "{plain_before} and {low_before} of 600 in 300 picks");
        let last_plain = order.iter().rposition(|&p| p == 0).unwrap();
        assert!(order[last_plain..].len() > 250, "plain tasks go before those of priority -4");
    });
}

#[test]
fn yielding_tasks_alternate() {
    guarded(|| {
        let rt = runtime(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = order.clone();
        let spawn_both = move || {
            [0, 1].map(|me| {
                let order = seen.clone();
                spawn(async move {
                    for _ in 0..1000 {
                        order.lock().unwrap().push(me);
                        tokio::task::yield_now().await;
                    }
                })
            })
        };
        let tasks = rt.block_on(async { spawn!(spawn_both()).await.unwrap() });
        for task in tasks {
            task.blocking_wait().unwrap();
        }
        let order = order.lock().unwrap();
        let longest = order.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap();
        assert!(longest <= 2, "one of them ran {longest} times in a row");
    });
}

#[test]
fn a_task_that_yields_for_ever_starves_nobody() {
    guarded(|| {
        let rt = runtime(1);
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let yielding = rt.block_on(async {
            spawn(async move {
                let mut yields = 0u64;
                while !seen.load(SeqCst) {
                    tokio::task::yield_now().await;
                    yields += 1;
                }
                yields
            })
        });
        rt.block_on(async {
            for _ in 0..100 {
                spawn!((|| ())()).await.unwrap();
                spawn!((|| ())(); priority = -1).await.unwrap();
                spawn!((|| ())(); scope = Scope::thread(0)).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await; // The reactor gets through, too.
        });
        stop.store(true, SeqCst);
        assert!(yielding.blocking_wait().unwrap() > 0);
    });
}

#[test]
fn a_chain_of_successors_does_not_starve_what_is_queued() {
    guarded(|| {
        let rt = runtime(1);
        let picks = Arc::new(AtomicUsize::new(0));
        let busy = occupy(&rt);
        let (at, last) = rt.block_on(async {
            let mut last = spawn!((|| 0)());
            for _ in 0..10_000 {
                let picks = picks.clone();
                last = spawn!((move |x: usize| {
                    picks.fetch_add(1, SeqCst);
                    x + 1
                })(last));
            }
            let picks = picks.clone();
            (spawn!((move || picks.load(SeqCst))()), last)
        });
        drop(busy);
        let at = at.blocking_wait().unwrap();
        assert!(at <= 61, "{at} links of the chain ran before the task queued behind its head");
        assert_eq!(last.blocking_wait().unwrap(), 10_000);
    });
}

#[test]
fn two_tasks_that_wake_each_other_do_not_starve_what_is_queued() {
    guarded(|| {
        let rt = runtime(1);
        let rallies = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (ping, mut from_ping) = tokio::sync::mpsc::unbounded_channel::<()>();
        let (pong, mut from_pong) = tokio::sync::mpsc::unbounded_channel::<()>();
        let busy = occupy(&rt);
        let at = rt.block_on(async {
            let (count, seen) = (rallies.clone(), stop.clone());
            spawn(async move {
                ping.send(()).unwrap();
                while from_pong.recv().await.is_some() {
                    if seen.load(SeqCst) || count.fetch_add(1, SeqCst) > 100_000 || ping.send(()).is_err() {
                        return;
                    }
                }
            });
            spawn(async move {
                while from_ping.recv().await.is_some() {
                    if pong.send(()).is_err() {
                        return;
                    }
                }
            });
            let count = rallies.clone();
            spawn!((move || count.load(SeqCst))())
        });
        drop(busy);
        let at = at.blocking_wait().unwrap();
        stop.store(true, SeqCst);
        assert!(at <= 61, "{at} rallies came before a task that was queued all the time");
    });
}

// Shares between lanes.

/// The most picks that may pass until a ready task gets its turn, where there are two lanes and four tasks were submitted: a worker that has
/// tasks of its own takes half of those each time.
const PICKS_MAX: usize = 2 * 61 + 8;

/// Tasks that respawn themselves with the same options until stopped; counts how many were run.
#[derive(Clone)]
struct Stream {
    options: Options,
    picks: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Stream {
    fn start(options: Options, width: usize) -> Self {
        let stream = Stream { options, picks: Arc::default(), stop: Arc::default() };
        for _ in 0..width {
            stream.clone().next();
        }
        stream
    }
    fn next(self) {
        self.options.clone().spawn(self.run());
    }
    fn run(self) -> BoxFuture<'static, ()> {
        async move {
            if !self.stop.load(SeqCst) && self.picks.fetch_add(1, SeqCst) < 200_000 {
                self.next();
            }
        }
        .boxed()
    }
}

/// Spawns a task with `other` options behind an endless stream; how many of the stream ran before it.
fn picks_before(rt: &Runtime, stream: Options, other: Options) -> usize {
    let busy = occupy(rt);
    let (stream, other) = rt.block_on(async {
        let stream = Stream::start(stream, 3);
        let picks = stream.picks.clone();
        (stream, other.spawn(async move { picks.load(SeqCst) }))
    });
    drop(busy);
    let at = other.blocking_wait().unwrap();
    stream.stop.store(true, SeqCst);
    rt.block_on(rt.idle());
    at
}

#[test]
fn no_stream_of_tasks_starves_another_lane() {
    guarded(|| {
        let rt = runtime(1);
        let kinds: [Kind; 8] = [
            ("plain", Options::new),
            ("priority 9", || Options::new().priority(9)),
            ("priority 1", || Options::new().priority(1)),
            ("priority -1", || Options::new().priority(-1)),
            ("thread 0", || Options::new().scope(Scope::thread(0))),
            ("thread 0, priority 9", || Options::new().scope(Scope::thread(0)).priority(9)),
            ("thread 0, priority -1", || Options::new().scope(Scope::thread(0)).priority(-1)),
            ("lowest", || Options::new().priority(i32::MIN)),
        ];
        for (stream, stream_options) in kinds {
            for (other, other_options) in kinds {
                let at = picks_before(&rt, stream_options(), other_options());
                assert!(
                    at <= PICKS_MAX,
                    "{at} tasks of an endless stream ({stream}) ran before one task ({other})"
                );
            }
        }
    });
}

#[test]
fn each_of_many_sets_of_workers_gets_through_a_stream_of_a_priority() {
    guarded(|| {
        let rt = runtime(5);
        // Only worker 0 is left for what may run on it and on others.
        let (release, released) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let sets = (0..16u32).map(|others| {
            let others = (1..5).filter(move |worker| others >> (worker - 1) & 1 == 1);
            Scope::threads(std::iter::once(0).chain(others))
        });
        let (first, streams) = rt.block_on(async {
            for worker in 1..5 {
                let (release, held) = (release.clone(), released.clone());
                let hold = move || {
                    held.fetch_add(1, SeqCst);
                    compute_until(|| release.load(SeqCst))
                };
                spawn!(hold(); scope = Scope::thread(worker));
            }
            while released.load(SeqCst) < 4 {
                std::thread::yield_now();
            }
            let first = Stream::start(Options::new().scope(Scope::thread(0)).priority(9), 3);
            (first, sets.map(|set| Stream::start(Options::new().scope(set), 1)).collect::<Vec<_>>())
        });
        let is_over = compute_until(|| first.picks.load(SeqCst) >= 60_000);
        let picks: Vec<usize> = streams.iter().map(|stream| stream.picks.load(SeqCst)).collect();
        for stream in streams.iter().chain([&first]) {
            stream.stop.store(true, SeqCst);
        }
        release.store(true, SeqCst);
        rt.block_on(rt.idle());
        assert!(is_over, "{picks:?}");
        assert!(picks.iter().all(|&picks| picks > 50), "{picks:?}");
    });
}

#[test]
fn what_was_submitted_gets_through_a_stream_of_a_priority_and_a_plain_one_together() {
    guarded(|| {
        let rt = runtime(1);
        for _ in 0..20 {
            let busy = occupy(&rt);
            let (streams, at) = rt.block_on(async {
                let streams =
                    [Options::new().priority(9), Options::new()].map(|options| Stream::start(options, 3));
                let picks = streams.each_ref().map(|stream| stream.picks.clone());
                let count = move || picks.iter().map(|picks| picks.load(SeqCst)).sum::<usize>();
                (streams, spawn!(count()))
            });
            drop(busy);
            let at = at.blocking_wait().unwrap();
            streams.iter().for_each(|stream| stream.stop.store(true, SeqCst));
            rt.block_on(rt.idle());
            // Of seven that were submitted each turn takes half.
            assert!(at <= 4 * (61 + 8), "{at} picks came before a task that was submitted");
        }
    });
}

#[test]
fn tasks_from_outside_get_through_a_stream_from_inside() {
    guarded(|| {
        let rt = runtime(1);
        for priority in [0, 9] {
            let stream = rt.block_on(async { Stream::start(Options::new().priority(priority), 3) });
            for _ in 0..20 {
                let before = stream.picks.load(SeqCst);
                let picks = stream.picks.clone();
                let at = rt.block_on(async { spawn!((move || picks.load(SeqCst))()).await.unwrap() });
                // Some of the stream runs between our look and the spawn; a preempted thread makes it many.
                assert!(
                    at < 190_000,
                    "a task from outside ran only when the stream had ended ({before} to {at})"
                );
            }
            stream.stop.store(true, SeqCst);
            rt.block_on(rt.idle());
        }
    });
}

#[test]
fn tasks_bound_to_a_thread_run_although_all_workers_are_busy_with_plain_ones() {
    guarded(|| {
        let rt = runtime(2);
        let stream = rt.block_on(async { Stream::start(Options::new(), 16) });
        for thread in [0, 1] {
            let at = rt.block_on(async {
                let picks = stream.picks.clone();
                let task = spawn!((move || (current().unwrap().processor().thread, picks.load(SeqCst)))();
                    scope = Scope::thread(thread));
                task.await.unwrap()
            });
            assert_eq!(at.0, thread);
            assert!(at.1 < 190_000);
        }
        stream.stop.store(true, SeqCst);
        rt.block_on(rt.idle());
    });
}

#[test]
fn blocking_bodies_of_a_high_priority_do_not_starve_the_others() {
    guarded(|| {
        let rt = Runtime::builder().threads(1).pin(false).blocking_threads(1).build().unwrap();
        // Keep the one blocking thread busy until all is queued.
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let busy = rt.block_on(async {
            spawn!((move || released.lock().unwrap().recv().unwrap())(); blocking = true, priority = 9)
        });
        let (stream, other) = rt.block_on(async {
            let stream = Stream::start(Options::new().blocking(true).priority(9), 3);
            let picks = stream.picks.clone();
            (stream, spawn!((move || picks.load(SeqCst))(); blocking = true))
        });
        release.send(()).unwrap();
        busy.blocking_wait().unwrap();
        let at = other.blocking_wait().unwrap();
        stream.stop.store(true, SeqCst);
        rt.block_on(rt.idle());
        assert!(at <= PICKS_MAX, "{at} blocking bodies of priority 9 ran before one of priority 0");
    });
}

#[test]
fn a_waiting_task_does_not_lend_its_priority() {
    guarded(|| {
        let rt = runtime(1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let busy = occupy(&rt);
        rt.block_on(async {
            let note = |what: &'static str| {
                let order = order.clone();
                move || order.lock().unwrap().push(what)
            };
            let (low, mid, high) = (note("low"), note("mid"), note("high"));
            let low = spawn!(low(); priority = -1);
            spawn!((move |(): ()| high())(low); priority = 9);
            for _ in 0..20 {
                let mid = mid.clone();
                spawn!(mid(); priority = 1);
            }
        });
        drop(busy);
        rt.block_on(rt.idle());
        let order = order.lock().unwrap();
        let low = order.iter().position(|&x| x == "low").unwrap();
        assert_eq!(low, 20, "{order:?}");
        assert_eq!(order.iter().position(|&x| x == "high"), Some(low + 1), "{order:?}");
    });
}
