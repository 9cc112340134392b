//! Threads that are no workers submit tasks, many at once, to several runtimes, and end before these run.

use dagger_async::prelude::*;
use dagger_tests::{Gate, runtime, watched};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

/// More than there are queues of their own for.
const THREADS: usize = 100;

fn add(count: &AtomicUsize) {
    count.fetch_add(1, SeqCst);
}

/// Spawns tasks that count.
fn spawn_counting(rt: &Runtime, count: &Arc<AtomicUsize>, tasks: usize) {
    rt.block_on(async {
        for _ in 0..tasks {
            let count = count.clone();
            spawn!((move || add(&count))());
        }
    });
}

/// Occupies the only worker until the gate is opened.
fn occupy(rt: &Runtime) -> (Gate, DTask<()>) {
    let (gate, started) = (Gate::new(), Gate::new());
    let (held, starts) = (gate.clone(), started.clone());
    let hold = move || {
        starts.open();
        held.block();
    };
    let busy = rt.block_on(async { spawn!(hold()) });
    started.block();
    (gate, busy)
}

#[test]
fn many_threads_at_once_have_all_their_tasks_run() {
    for workers in [1, 2, 8] {
        watched(move || {
            let rt = runtime(workers);
            let count = Arc::new(AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        for _ in 0..10 {
                            spawn_counting(&rt, &count, 50);
                            std::thread::yield_now();
                        }
                    });
                }
            });
            rt.block_on(rt.idle());
            assert_eq!(count.load(SeqCst), THREADS * 500);
        });
    }
}

#[test]
fn what_a_thread_has_spawned_before_its_end_is_run() {
    watched(|| {
        let rt = runtime(1);
        let count = Arc::new(AtomicUsize::new(0));
        // All of it is queued when the threads end.
        let (gate, busy) = occupy(&rt);
        for _ in 0..3 * THREADS {
            std::thread::scope(|scope| {
                scope.spawn(|| spawn_counting(&rt, &count, 7));
            });
        }
        assert_eq!(count.load(SeqCst), 0);
        gate.open();
        busy.blocking_wait().unwrap();
        rt.block_on(rt.idle());
        assert_eq!(count.load(SeqCst), 3 * THREADS * 7);
    });
}

#[test]
fn more_than_a_queue_of_its_own_holds_is_run_as_well() {
    const TASKS: usize = 30_000;
    watched(|| {
        let rt = runtime(1);
        let count = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let (gate, busy) = occupy(&rt);
            let before = count.load(SeqCst);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| spawn_counting(&rt, &count, TASKS));
                }
            });
            assert_eq!(count.load(SeqCst), before);
            gate.open();
            busy.blocking_wait().unwrap();
            rt.block_on(rt.idle());
            assert_eq!(count.load(SeqCst), before + 2 * TASKS);
        }
    });
}

/// Spawns when its thread is about to be gone.
struct Last(Arc<Runtime>, Arc<AtomicUsize>);

impl Drop for Last {
    fn drop(&mut self) {
        let count = self.1.clone();
        // Polled by hand: Tokio has no context for a thread whose locals are gone.
        let body = self.0.run(async { drop(spawn!((move || add(&count))())) });
        let mut cx = Context::from_waker(Waker::noop());
        assert!(std::pin::pin!(body).poll(&mut cx).is_ready());
    }
}

thread_local!(static BEFORE: RefCell<Option<Last>> = const { RefCell::new(None) });
thread_local!(static AFTER: RefCell<Option<Last>> = const { RefCell::new(None) });

#[test]
fn a_thread_that_is_ending_may_submit() {
    watched(|| {
        let (rt, count) = (runtime(2), Arc::new(AtomicUsize::new(0)));
        let (here, other) = (rt.clone(), count.clone());
        let last = move || Last(here.clone(), other.clone());
        std::thread::spawn(move || {
            // What the runtime keeps for this thread is made between the two, so one of them goes when that is gone.
            BEFORE.with(|cell| *cell.borrow_mut() = Some(last()));
            drop(last());
            AFTER.with(|cell| *cell.borrow_mut() = Some(last()));
        })
        .join()
        .unwrap();
        rt.block_on(rt.idle());
        assert_eq!(count.load(SeqCst), 3);
    });
}

#[test]
fn a_thread_may_submit_to_several_runtimes_in_turn_and_one_after_the_other() {
    watched(|| {
        let count = Arc::new(AtomicUsize::new(0));
        for _ in 0..5 {
            let (one, other) = (runtime(1), runtime(2));
            for _ in 0..100 {
                spawn_counting(&one, &count, 3);
                spawn_counting(&other, &count, 3);
            }
            one.block_on(one.idle());
            other.block_on(other.idle());
            // The first goes; the other goes on.
            drop(one);
            spawn_counting(&other, &count, 3);
            other.block_on(other.idle());
        }
        assert_eq!(count.load(SeqCst), 5 * 603);
    });
}

#[test]
fn each_thread_that_has_submitted_has_its_turn() {
    const THREADS: usize = 6;
    const TASKS: usize = 2000;
    watched(|| {
        let rt = runtime(1);
        let (gate, busy) = occupy(&rt);
        let order = Arc::new(Mutex::new(Vec::new()));
        let submitted = std::sync::Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (rt, order, submitted) = (&rt, &order, &submitted);
                scope.spawn(move || {
                    rt.block_on(async {
                        for _ in 0..TASKS {
                            let order = order.clone();
                            spawn!((move || order.lock().unwrap().push(thread))());
                        }
                    });
                    submitted.wait(); // Each has a queue of its own.
                });
            }
        });
        gate.open();
        busy.blocking_wait().unwrap();
        rt.block_on(rt.idle());
        let order = std::mem::take(&mut *order.lock().unwrap());
        assert_eq!(order.len(), THREADS * TASKS);
        // Batches of at most 32, in turn: whoever has some left waits for one of each other thread.
        for thread in 0..THREADS {
            let at: Vec<usize> = (0..order.len()).filter(|&at| order[at] == thread).collect();
            let longest = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            assert!(at[0] < 33 * THREADS, "thread {thread} has its first turn at {}", at[0]);
            assert!(longest <= 33 * THREADS, "thread {thread} waits for {longest} others");
        }
    });
}

#[test]
fn nobody_who_submits_without_end_keeps_others_from_their_turn() {
    watched(|| {
        let rt = runtime(1);
        let (stop, spawned) = (AtomicBool::new(false), AtomicUsize::new(0));
        let count = Arc::new(AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(SeqCst) {
                        // There is always something of theirs, and never more than this.
                        if spawned.load(SeqCst) < count.load(SeqCst) + 5000 {
                            spawned.fetch_add(20, SeqCst);
                            spawn_counting(&rt, &count, 20);
                        } else {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            for i in 0..100 {
                let task = rt.block_on(async { spawn!((move || i)()) });
                assert_eq!(task.blocking_wait().unwrap(), i);
            }
            stop.store(true, SeqCst);
        });
        rt.block_on(rt.idle());
        assert_eq!(count.load(SeqCst), spawned.load(SeqCst));
    });
}
