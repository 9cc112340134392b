//! Threads that are no workers submit tasks, many at once, to several runtimes, and end before these run.

use dagger_async::prelude::*;
use dagger_tests::{Gate, runtime, watched};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// Many more than workers.
const THREADS: usize = 40;

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
        let gate = Gate::new();
        let held = gate.clone();
        // The only worker is busy, so all of it is queued when the threads end.
        let busy = rt.block_on(async { spawn!((move || held.block())()) });
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
