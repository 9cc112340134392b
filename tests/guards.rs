//! `read`, `write`, `recover`, `access`: places taken outside tasks, in which order they come, who waits for them, and what a
//! wait that could not end says.

use dagger_async::prelude::*;
use dagger_tests::{Failure, Gate, isolated, keep_log, logged, on_all_workers, on_workers, runtime, watched};
use futures::executor::block_on;
use futures::future::{BoxFuture, join_all};
use futures::{FutureExt, poll};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

type Numbers = Chunk<Vec<i64>>;

fn numbers(len: usize) -> Numbers {
    Chunk::new(vec![0; len])
}
fn add(x: &mut [i64], v: i64) {
    x.iter_mut().for_each(|x| *x += v)
}
fn sum(x: &[i64]) -> i64 {
    x.iter().sum()
}
fn wait_and_add(x: &mut [i64], started: Gate, go: Gate) {
    started.open();
    go.block();
    add(x, 1);
}

/// A writer of the chunk that runs until the gate is opened.
async fn occupy(chunk: &Numbers) -> (DTask<()>, Gate) {
    let (started, go) = (Gate::new(), Gate::new());
    let task = spawn!(wait_and_add(InOut(&chunk.slice(..)), started.clone(), go.clone()); blocking = true);
    started.pass().await;
    (task, go)
}

/// Lets every other task of this thread's runtime have a turn.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

// When their turn comes.

#[test]
fn a_guard_stands_where_it_was_called_for_not_where_it_is_awaited() {
    on_all_workers(|_rt| async {
        let chunk = numbers(3);
        let write = chunk.write();
        let after = spawn!(sum(In(&chunk.slice(..))));
        let read = chunk.read();
        let last = spawn!(add(InOut(&chunk.slice(..)), 1));
        settle().await;
        assert!(!after.is_finished() && !last.is_finished());
        let mut guard = write.await.unwrap();
        guard.fill(5);
        settle().await;
        assert!(!after.is_finished());
        drop(guard);
        assert_eq!(after.await.unwrap(), 15);
        settle().await;
        assert!(!last.is_finished(), "it overtook a reader that nobody awaits yet");
        assert_eq!(*read.await.unwrap(), [5; 3]);
        last.await.unwrap();
        assert_eq!(*chunk.read().await.unwrap(), [6; 3]);
    });
}

#[test]
fn one_end_lets_many_readers_and_guards_in_and_its_successors_go_on() {
    on_all_workers(|_rt| async {
        let chunk = numbers(3);
        let (writer, go) = occupy(&chunk).await;
        let dependent = spawn!((|_: &()| 7)(&writer));
        let before: Vec<_> = (0..10).map(|_| spawn!(sum(In(&chunk.slice(..))))).collect();
        let guards = [chunk.read(), chunk.read()];
        let after: Vec<_> = (0..10).map(|_| spawn!(sum(In(&chunk.slice(..))))).collect();
        let last = spawn!(add(InOut(&chunk.slice(..)), 1));
        settle().await;
        assert!(!before[0].is_finished() && !dependent.is_finished());
        go.open();
        writer.await.unwrap();
        assert_eq!(dependent.await.unwrap(), 7);
        for reader in before.into_iter().chain(after) {
            assert_eq!(reader.await.unwrap(), 3);
        }
        for guard in join_all(guards).await {
            assert_eq!(guard.unwrap().iter().sum::<i64>(), 3);
        }
        last.await.unwrap();
        assert_eq!(chunk.read().await.unwrap().iter().sum::<i64>(), 6);
    });
}

/// Write, read, read, write, called for in this order and awaited in every order.
#[test]
fn guards_come_in_the_order_of_their_calls_whatever_the_order_of_their_awaits() {
    on_all_workers(|_rt| async {
        for order in permutations(4) {
            let chunk = Chunk::new(Vec::<usize>::new());
            // The readers hold until both have come: they are out together.
            let (second, third) = (Gate::new(), Gate::new());
            let mut turns: Vec<Option<BoxFuture<'static, usize>>> = Vec::new();
            let (first, read2, read3, last) = (chunk.write(), chunk.read(), chunk.read(), chunk.write());
            turns.push(Some(
                first.map(|guard| guard.map(|mut guard| guard.push(0)).map(|()| 0).unwrap()).boxed(),
            ));
            for (read, mine, other) in
                [(read2, second.clone(), third.clone()), (read3, third.clone(), second.clone())]
            {
                turns.push(Some(
                    async move {
                        let guard = read.await.unwrap();
                        mine.open();
                        other.pass().await;
                        guard.len()
                    }
                    .boxed(),
                ));
            }
            turns.push(Some(
                async move {
                    let mut guard = last.await.unwrap();
                    guard.push(3);
                    guard.len()
                }
                .boxed(),
            ));
            let awaited = order.iter().map(|&at| spawn(turns[at].take().unwrap()));
            let awaited: Vec<usize> =
                wait_all(awaited.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).collect();
            let mut found = [0; 4];
            order.iter().zip(awaited).for_each(|(&at, len)| found[at] = len);
            assert_eq!(found, [0, 1, 1, 2], "{order:?}");
        }
    });
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    match n {
        0 => vec![vec![]],
        n => permutations(n - 1)
            .into_iter()
            .flat_map(|shorter| {
                (0..n).map(move |at| {
                    let mut longer = shorter.clone();
                    longer.insert(at, n - 1);
                    longer
                })
            })
            .collect(),
    }
}

#[test]
fn access_takes_all_its_places_at_once_when_it_is_called() {
    on_all_workers(|_rt| async {
        let (a, b) = (numbers(2), numbers(2));
        let both = access((In(&a), InOut(&b.slice(..1))));
        let (write_a, write_b) = (spawn!(add(InOut(&a.slice(..)), 1)), spawn!(add(InOut(&b.slice(..)), 1)));
        let beside = spawn!(sum(In(&b.slice(1..))));
        settle().await;
        assert!(!write_a.is_finished() && !write_b.is_finished() && !beside.is_finished());
        let (read, mut write) = both.await.unwrap();
        assert_eq!(*read, [0; 2]);
        write[0] = 7;
        drop(read);
        write_a.await.unwrap();
        assert!(!write_b.is_finished());
        drop(write);
        write_b.await.unwrap();
        assert_eq!(beside.await.unwrap(), 1);
        assert_eq!(*b.read().await.unwrap(), [8, 1]);
    });
}

#[test]
fn accesses_of_the_same_chunks_in_any_order_from_many_threads_end() {
    watched(|| {
        let rt = runtime(2);
        let chunks: [Numbers; 3] = std::array::from_fn(|_| numbers(2));
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (rt, chunks) = (rt.clone(), chunks.clone());
                std::thread::spawn(move || {
                    rt.block_on(async {
                        for i in 0..300 {
                            let (x, y) = (&chunks[(thread + i) % 3], &chunks[(thread + 2 * i + 1) % 3]);
                            match access((InOut(x), InOut(&y.slice(..)))).await {
                                Ok((mut x, mut y)) => {
                                    add(&mut x, 1);
                                    add(&mut y, -1);
                                }
                                Err(error) => assert!(matches!(error, Error::Aliased { .. }), "{error:?}"),
                            }
                            spawn!((|x: &mut [i64], y: &mut Vec<i64>| {
                                add(x, 1);
                                add(y, -1);
                            })(
                                InOut(&chunks[i % 3].slice(..)), InOut(&chunks[(i + 1) % 3])
                            ));
                        }
                    })
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let all = chunks.iter().map(|chunk| sum(&block_on(chunk.read()).unwrap())).sum::<i64>();
        assert_eq!(all, 0);
    });
}

#[test]
fn guards_of_disjoint_regions_are_out_together_and_give_slices() {
    on_all_workers(|_rt| async {
        let chunk = numbers(8);
        let mut low = chunk.slice(0..3).write().await.unwrap();
        let mut high = chunk.slice(3..=5).write().now_or_never().unwrap().unwrap();
        let top = chunk.slice(6..).read().now_or_never().unwrap().unwrap();
        let crossing = chunk.slice(2..4).read();
        let slice: &mut [i64] = &mut low;
        slice.fill(1);
        high[0] = 2;
        assert_eq!((low.len(), high.iter().sum::<i64>(), top.first()), (3, 2, Some(&0)));
        let task = spawn!(add(InOut(&chunk.slice(..)), 10));
        drop((low, top));
        settle().await;
        assert!(!task.is_finished());
        drop(high);
        assert_eq!(crossing.await.unwrap()[..], [1, 2]);
        task.await.unwrap();
        // Other kinds of regions by `get`.
        let mut steps = chunk.slice(step(0..8, 3)).write().await.unwrap();
        assert_eq!(steps.get().iter().copied().collect::<Vec<_>>(), [11, 12, 10]);
        steps.get_mut().for_each_mut(|x| *x = 0);
        drop(steps);
        let listed = chunk.slice(index([7, 0])).read().await.unwrap();
        assert_eq!((listed.get().len(), listed.get()[0], listed.get()[1]), (2, 10, 0));
        assert_eq!(listed.chunk().read().await.unwrap()[3], 0);
        let whole = chunk.slice(..).read().await.unwrap();
        assert_eq!(whole.len(), 8);
    });
}

#[test]
fn a_guard_needs_no_runtime_and_outlives_the_handles() {
    watched(|| {
        let chunk = numbers(4);
        let mut guard = block_on(chunk.write()).unwrap();
        let read = chunk.read();
        drop(chunk);
        guard[0] = 3;
        drop(guard);
        let guard = block_on(read).unwrap();
        assert_eq!(guard[0], 3);
    });
}

#[test]
fn a_chunk_accessed_twice_by_one_access_is_aliased_if_one_of_them_writes() {
    on_all_workers(|_rt| async {
        let chunk = numbers(8);
        let (x, y) = access((In(&chunk), In(&chunk.slice(1..)))).await.unwrap();
        assert_eq!((x.len(), y.len()), (8, 7));
        drop((x, y));
        drop(access((InOut(&chunk.slice(..4)), Out(&chunk.slice(4..)))).await.unwrap());
        for error in [
            access((In(&chunk), InOut(&chunk))).await.map(drop).unwrap_err(),
            access((Out(&chunk), Out(&chunk))).await.map(drop).unwrap_err(),
            access((In(&chunk.slice(2..5)), InOut(&chunk.slice(4..6)))).await.map(drop).unwrap_err(),
        ] {
            let Error::Aliased { root, first, second, .. } = &error else { panic!("{error:?}") };
            assert!(
                root.is_none() && first.contains("argument 1") && second.contains("argument 2"),
                "{error}"
            );
        }
        let error = access((In(&chunk), In(&chunk.slice(3..9)))).await.map(drop).unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { root: None, .. }), "{error:?}");
        // None of them has kept a place.
        drop(chunk.write().now_or_never().unwrap().unwrap());
    });
}

// Given back.

/// How far a future got before it was dropped.
#[derive(Clone, Copy, Debug)]
enum Dropped {
    Unpolled,
    Polled,
    GrantedUnpolled,
    GrantedAfterPoll,
    AsAGuard,
}

fn futures_of(chunk: &Numbers) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
    vec![
        ("read", chunk.read().map(|guard| drop(guard.unwrap())).boxed()),
        ("write", chunk.write().map(|guard| drop(guard.unwrap())).boxed()),
        ("recover", chunk.recover().map(|guard| drop(guard.unwrap())).boxed()),
        ("slice read", chunk.slice(1..3).read().map(|guard| drop(guard.unwrap())).boxed()),
        ("slice write", chunk.slice(1..3).write().map(|guard| drop(guard.unwrap())).boxed()),
        ("into_inner", chunk.clone().into_inner().map(drop).boxed()),
        ("access", access((In(chunk),)).map(|guard| drop(guard.unwrap())).boxed()),
        (
            "access twice",
            access((InOut(&chunk.slice(..1)), In(&chunk.slice(2..))))
                .map(|guard| drop(guard.unwrap()))
                .boxed(),
        ),
    ]
}

#[test]
fn dropping_a_future_gives_its_place_back_however_far_it_got() {
    on_all_workers(|_rt| async {
        for dropped in [
            Dropped::Unpolled,
            Dropped::Polled,
            Dropped::GrantedUnpolled,
            Dropped::GrantedAfterPoll,
            Dropped::AsAGuard,
        ] {
            for nth in 0..8 {
                let chunk = numbers(4);
                let waits =
                    matches!(dropped, Dropped::Unpolled | Dropped::Polled | Dropped::GrantedAfterPoll);
                let front = if waits { Some(chunk.write().await.unwrap()) } else { None };
                let (name, mut future) = futures_of(&chunk).swap_remove(nth);
                if name == "into_inner" && matches!(dropped, Dropped::AsAGuard) {
                    continue;
                }
                let before = spawn!(sum(In(&chunk.slice(..))));
                if waits {
                    assert!(!before.is_finished());
                }
                match dropped {
                    Dropped::Unpolled | Dropped::GrantedUnpolled => {}
                    Dropped::Polled | Dropped::GrantedAfterPoll => assert!(poll!(&mut future).is_pending()),
                    Dropped::AsAGuard => assert!(poll!(&mut future).is_ready()),
                }
                let behind = spawn!(add(InOut(&chunk.slice(..)), 1));
                let guard = chunk.read();
                if matches!(dropped, Dropped::GrantedAfterPoll) {
                    drop(front);
                    drop(future);
                } else {
                    drop(future);
                    drop(front);
                }
                eprintln!("{name}, {dropped:?}");
                assert_eq!(before.await.unwrap(), 0);
                behind.await.unwrap();
                assert_eq!(*guard.await.unwrap(), [1; 4]);
            }
        }
    });
}

#[test]
fn dropping_an_access_that_has_one_place_and_waits_for_the_other_gives_both_back() {
    on_all_workers(|_rt| async {
        for polled in [false, true] {
            for swapped in [false, true] {
                let (a, b) = (numbers(2), numbers(2));
                let (occupier, go) = occupy(&b).await;
                let (x, y) = if swapped { (&b, &a) } else { (&a, &b) };
                let mut both = access((InOut(x), InOut(y)));
                if polled {
                    assert!((&mut both).now_or_never().is_none());
                }
                let (on_a, on_b) = (spawn!(add(InOut(&a.slice(..)), 1)), spawn!(add(InOut(&b.slice(..)), 1)));
                settle().await;
                assert!(!on_a.is_finished(), "it overtook a place that was granted");
                drop(both);
                on_a.await.unwrap();
                assert!(!on_b.is_finished());
                go.open();
                occupier.await.unwrap();
                on_b.await.unwrap();
                assert_eq!(*b.read().await.unwrap(), [2; 2]);
            }
        }
    });
}

#[test]
fn a_grant_may_race_with_the_drop_of_its_future() {
    // thread                caller
    // drop the front  ╳     drop the future behind it
    watched(|| {
        let rt = runtime(2);
        for round in 0..2000u32 {
            let (a, b) = (numbers(1), numbers(1));
            let (front_a, front_b) = (block_on(a.write()).unwrap(), block_on(b.read()).unwrap());
            let mut behind = access((InOut(&a), InOut(&b)));
            assert!((&mut behind).now_or_never().is_none());
            let last = rt.block_on(async {
                spawn!((|x: &mut [i64], y: &mut [i64]| x.len() + y.len())(
                    InOut(&a.slice(..)),
                    InOut(&b.slice(..))
                ))
            });
            let other = std::thread::spawn(move || {
                drop(front_a);
                drop(front_b);
            });
            (0..(round * 37) % 700).for_each(|_| std::hint::spin_loop());
            drop(behind);
            other.join().unwrap();
            assert_eq!(last.blocking_wait().unwrap(), 2);
        }
    });
}

#[test]
fn a_hundred_thousand_abandoned_futures_are_passed_over() {
    isolated("a_hundred_thousand_abandoned_futures_are_passed_over", || {
        let rt = runtime(1);
        for way in 0..4 {
            let (a, b) = (numbers(4), numbers(4));
            let front = block_on(a.write()).unwrap();
            let waiting: Vec<_> = (0..100_000)
                .map(|i| match (way, i % 2) {
                    (0, _) => a.write().map(drop).boxed(),
                    (1, 0) => a.read().map(drop).boxed(),
                    (2, _) => access((InOut(&a), In(&b))).map(drop).boxed(),
                    (3, _) => a.slice(i % 4..i % 4 + 1).write().map(drop).boxed(),
                    _ => a.write().map(drop).boxed(),
                })
                .collect();
            let last = rt.block_on(async { spawn!(add(InOut(&a.slice(..)), 1)) });
            drop(waiting);
            drop(front);
            last.blocking_wait().unwrap();
            assert_eq!(*block_on(a.read()).unwrap(), [1; 4]);
            drop(block_on(b.write()).unwrap());
        }
    });
}

#[test]
fn a_hundred_thousand_futures_may_be_polled_and_abandoned() {
    isolated("a_hundred_thousand_futures_may_be_polled_and_abandoned", || {
        for backwards in [false, true] {
            let chunk = numbers(4);
            let front = block_on(chunk.write()).unwrap();
            let mut waiting: Vec<_> = (0..100_000).map(|_| chunk.write()).collect();
            let last = chunk.read();
            waiting.iter_mut().for_each(|future| assert!(future.now_or_never().is_none()));
            if backwards {
                waiting.reverse();
            }
            drop(waiting);
            drop(front);
            drop(block_on(last).unwrap());
        }
    });
}

#[test]
fn a_hundred_thousand_cancelled_tasks_are_passed_over() {
    isolated("a_hundred_thousand_cancelled_tasks_are_passed_over", || {
        let rt = runtime(1);
        let a = numbers(4);
        let front = block_on(a.write()).unwrap();
        let token = CancelToken::new();
        let (tasks, last) = rt.block_on(async {
            let options = Options::new().cancel(token.clone());
            let tasks: Vec<_> =
                (0..100_000).map(|_| spawn!(add(InOut(&a.slice(..)), 1); ..options.clone())).collect();
            (tasks, spawn!(add(Out(&a.slice(..)), 1)))
        });
        token.cancel();
        drop(tasks);
        drop(front);
        last.blocking_wait().unwrap();
        assert_eq!(*block_on(a.read()).unwrap(), [1; 4]);
    });
}

// Across tasks and threads.

#[test]
fn a_future_may_be_awaited_in_a_task_and_its_guard_dropped_in_another() {
    on_all_workers(|_rt| async {
        let chunk = numbers(3);
        for round in 0..50 {
            let read = chunk.read();
            let write = chunk.write();
            let reader = spawn(async move { sum(&read.await.unwrap()) });
            let writer = spawn(async move {
                let mut guard = write.await.unwrap();
                tokio::task::yield_now().await;
                add(&mut guard, 1);
                guard
            });
            let behind = spawn!(sum(In(&chunk.slice(..))));
            // The guard is a value of a task like any other.
            let dropper = spawn!((|guard: WriteGuard<Vec<i64>>| guard.len())(writer));
            assert_eq!(dropper.await.unwrap(), 3);
            assert_eq!((reader.await.unwrap(), behind.await.unwrap()), (3 * round, 3 * round + 3));
        }
    });
}

#[test]
fn a_guard_may_be_moved_to_another_thread_and_dropped_there() {
    on_all_workers(|_rt| async {
        let chunk = numbers(3);
        for round in 1..30 {
            let mut guard = chunk.write().await.unwrap();
            let read = chunk.read();
            let (release, released) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                released.recv().unwrap();
                add(&mut guard, 1);
            });
            let behind = spawn!(sum(In(&chunk.slice(..))));
            assert!(!behind.is_finished());
            release.send(()).unwrap();
            assert_eq!(behind.await.unwrap(), 3 * round);
            let guard = read.await.unwrap();
            thread.join().unwrap();
            // And a reader: the writer behind it is told from that thread.
            let behind = chunk.write();
            let thread = std::thread::spawn(move || drop(guard));
            drop(behind.await.unwrap());
            thread.join().unwrap();
        }
    });
}

#[test]
fn a_future_that_is_polled_in_one_place_and_awaited_in_another_wakes_the_latter() {
    on_all_workers(|_rt| async {
        let chunk = numbers(3);
        for _ in 0..50 {
            let front = chunk.write().await.unwrap();
            let mut read = chunk.read();
            assert!(poll!(&mut read).is_pending());
            let (ready, go) = (Gate::new(), Gate::new());
            let polls = ready.clone();
            let task = spawn(async move {
                assert!(poll!(&mut read).is_pending());
                polls.open();
                sum(&read.await.unwrap())
            });
            ready.pass().await;
            go.open();
            drop(front);
            assert_eq!(task.await.unwrap(), 0);
        }
    });
}

#[test]
fn a_write_guard_that_is_dropped_by_a_panic_poisons_nothing() {
    on_all_workers(|_rt| async {
        let chunk = numbers(3);
        let mut guard = chunk.write().await.unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            guard[0] = 1;
            panic!("with a guard")
        }));
        assert!(panicked.is_err());
        assert_eq!(spawn!(sum(In(&chunk.slice(..)))).await.unwrap(), 1);
        let write = chunk.write();
        write.await.unwrap()[1] = 1;
        let write = chunk.write();
        let task = spawn(async move {
            let mut guard = write.await.unwrap();
            guard[2] = 1;
            if guard.len() == 3 {
                panic!("with a guard");
            }
        });
        assert!(matches!(task.await, Err(Error::Panicked { .. })));
        assert_eq!(spawn!(sum(In(&chunk.slice(..)))).await.unwrap(), 3);
        // One that is cancelled with a guard gives it back, too.
        let (write, has_it) = (chunk.write(), Gate::new());
        let has = has_it.clone();
        let task = spawn(async move {
            let _guard = write.await.unwrap();
            has.open();
            std::future::pending::<()>().await;
        });
        has_it.pass().await;
        let behind = spawn!(sum(In(&chunk.slice(..))));
        task.cancel();
        assert_eq!(behind.await.unwrap(), 3);
    });
}

// Waits that nothing would end.

fn is_deadlock<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Deadlock { .. }))
}

#[test]
fn a_task_that_awaits_a_guard_of_what_it_holds_is_told_so_and_goes_on() {
    async fn while_writing(x: &mut [i64], chunk: Numbers) -> usize {
        for error in [
            chunk.read().await.map(drop).unwrap_err(),
            chunk.write().await.map(drop).unwrap_err(),
            chunk.recover().await.map(drop).unwrap_err(),
            chunk.slice(1..2).read().await.map(drop).unwrap_err(),
            access((In(&chunk.slice(2..)), InOut(&chunk.slice(..1)))).await.map(drop).unwrap_err(),
            chunk.clone().into_inner().await.map(drop).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Deadlock { .. }), "{error:?}");
            assert!(error.to_string().contains("while_writing"), "{error}");
            assert!(error.to_string().contains("guards.rs:"), "{error}");
        }
        add(x, 1);
        x.len()
    }
    async fn while_reading(x: &[i64], chunk: Numbers) -> usize {
        let also = chunk.read().await.unwrap();
        assert!(is_deadlock(&chunk.write().await));
        also.len() + x.len()
    }
    async fn beside(x: &mut [i64], chunk: Numbers) -> usize {
        let other = chunk.slice(2..).read().await.unwrap();
        x.len() + other.len()
    }
    on_all_workers(|_rt| async {
        let chunk = numbers(4);
        assert_eq!(spawn!(async while_writing(InOut(&chunk.slice(..)), chunk.clone())).await.unwrap(), 4);
        assert_eq!(spawn!(async while_reading(In(&chunk.slice(..)), chunk.clone())).await.unwrap(), 8);
        assert_eq!(spawn!(async beside(InOut(&chunk.slice(..2)), chunk.clone())).await.unwrap(), 4);
        assert_eq!(*chunk.read().await.unwrap(), [1; 4]);
    });
}

/// The wait of the child, or that of the parent, closes the cycle, whichever comes last.
#[test]
fn a_task_whose_child_awaits_a_guard_of_what_it_holds_ends() {
    async fn parent(x: &mut [i64], chunk: Numbers, depth: usize) -> bool {
        fn child(chunk: Numbers, depth: usize) -> BoxFuture<'static, Result<usize, Error>> {
            async move {
                match depth {
                    0 => chunk.read().await.map(|guard| guard.len()),
                    _ => spawn(child(chunk, depth - 1)).await.and_then(|result| result),
                }
            }
            .boxed()
        }
        let told = is_deadlock(&spawn(child(chunk, depth)).await.and_then(|result| result));
        add(x, 1);
        told
    }
    on_all_workers(|rt| async move {
        let chunk = numbers(4);
        for depth in [0, 1, 5] {
            for _ in 0..20 {
                assert!(spawn!(async parent(InOut(&chunk.slice(..)), chunk.clone(), depth)).await.unwrap());
            }
        }
        rt.idle().await;
        assert_eq!(*chunk.read().await.unwrap(), [60; 4]);
    });
}

#[test]
fn a_child_that_nobody_awaits_gets_its_guard_when_its_parent_has_ended() {
    async fn parent(x: &mut [i64], chunk: Numbers, asked: Gate) -> DTask<i64> {
        let tell = asked.clone();
        let child = spawn(async move {
            let mut read = chunk.read();
            assert!(poll!(&mut read).is_pending());
            tell.open();
            sum(&read.await.unwrap())
        });
        asked.pass().await;
        add(x, 1);
        child
    }
    on_all_workers(|_rt| async {
        let chunk = numbers(4);
        let child = spawn!(async parent(InOut(&chunk.slice(..)), chunk.clone(), Gate::new())).await.unwrap();
        assert_eq!(child.await.unwrap(), 4);
    });
}

/// How a parent waits for a child that writes what the parent has.
#[derive(Clone, Copy, Debug)]
enum Wait {
    Await,
    ByReference,
    Blocking,
    Grandchild,
    Block,
    BlockOfGrandchild,
    Argument,
}

const WAITS: [Wait; 7] = [
    Wait::Await,
    Wait::ByReference,
    Wait::Blocking,
    Wait::Grandchild,
    Wait::Block,
    Wait::BlockOfGrandchild,
    Wait::Argument,
];

/// Waits in this way for a task that adds to the chunk; gives whether somebody was told, and the task.
async fn wait_for_child(wait: Wait, chunk: Numbers) -> (bool, DTask<()>) {
    let child = || spawn!(add(InOut(&chunk.slice(..)), 10); name = "child");
    match wait {
        Wait::Await => {
            let child = child();
            (is_deadlock(&child.clone().await), child)
        }
        Wait::ByReference => {
            let child = child();
            (is_deadlock(&(&child).await.map(drop)), child)
        }
        Wait::Blocking => {
            let child = child();
            (is_deadlock(&child.clone().blocking_wait()), child)
        }
        Wait::Grandchild => {
            let child = child();
            let awaited = child.clone();
            let between = spawn(awaited);
            (is_deadlock(&between.await.and_then(|result| result)), child)
        }
        Wait::Block => {
            let mut kept = None;
            let block = datadeps(async { kept = Some(child()) }).await;
            (is_deadlock(&block), kept.unwrap())
        }
        Wait::BlockOfGrandchild => {
            let child = child();
            let awaited = child.clone();
            let between =
                spawn(async move { datadeps(async { spawn!((|(): ()| ())(awaited)) }).await.map(drop) });
            (is_deadlock(&between.await.and_then(|result| result)), child)
        }
        Wait::Argument => {
            let child = child();
            let next = spawn!((|(): ()| ())(child.clone()));
            (is_deadlock(&next.await), child)
        }
    }
}

#[test]
fn a_task_that_waits_for_a_child_that_writes_what_it_holds_is_told_so_and_the_child_runs_after_it() {
    async fn writer(x: &mut [i64], wait: Wait, chunk: Numbers) -> (bool, DTask<()>) {
        let said = wait_for_child(wait, chunk).await;
        assert!(!said.1.is_finished());
        add(x, 1);
        said
    }
    async fn reader(x: &[i64], wait: Wait, chunk: Numbers) -> (bool, DTask<()>) {
        let before = sum(x);
        let said = wait_for_child(wait, chunk).await;
        assert_eq!(sum(x), before);
        said
    }
    on_all_workers(|rt| async move {
        let (chunk, mut expected) = (numbers(4), 0);
        for wait in WAITS {
            for _ in 0..10 {
                eprintln!("{wait:?}");
                let (told, child) =
                    spawn!(async writer(InOut(&chunk.slice(..)), wait, chunk.clone())).await.unwrap();
                assert!(told, "{wait:?}");
                child.await.unwrap();
                let (told, child) =
                    spawn!(async reader(In(&chunk.slice(..)), wait, chunk.clone())).await.unwrap();
                assert!(told, "{wait:?}");
                child.await.unwrap();
                expected += 21;
                assert_eq!(*chunk.read().await.unwrap(), [expected; 4]);
            }
        }
        rt.idle().await;
    });
}

#[test]
fn a_function_that_blocks_on_a_child_that_writes_what_it_holds_is_told_so() {
    on_all_workers(|_rt| async {
        for blocking in [false, true] {
            let chunk = numbers(4);
            let handle = chunk.clone();
            let parent = spawn!((move |x: &mut [i64]| {
                let child = spawn!(add(InOut(&handle.slice(1..2)), 10); name = "child");
                let beside = handle.clone();
                let error = child.clone().blocking_wait().unwrap_err();
                assert!(matches!(error, Error::Deadlock { .. }), "{error:?}");
                assert!(error.to_string().contains("`child`") && error.to_string().contains("`parent`"), "{error}");
                // A child of what the parent has not is fine.
                spawn!(add(InOut(&beside.slice(2..)), 5)).blocking_wait().unwrap();
                add(x, 1);
                child
            })(InOut(&chunk.slice(..2))); name = "parent", blocking = blocking);
            parent.await.unwrap().await.unwrap();
            assert_eq!(*chunk.read().await.unwrap(), [1, 11, 5, 5]);
        }
    });
}

#[test]
fn readers_may_wait_for_readers_of_the_same_chunk() {
    fn nest(x: &[i64], chunk: Numbers, depth: usize) -> i64 {
        match depth {
            0 => sum(x),
            _ => spawn!(nest(In(&chunk.slice(..)), chunk.clone(), depth - 1)).blocking_wait().unwrap(),
        }
    }
    async fn parent(x: &[i64], chunk: Numbers) -> i64 {
        let inside = datadeps(async { spawn!(sum(In(&chunk.slice(1..)))) }).await.unwrap().await.unwrap();
        let child = spawn!((|x: &Vec<i64>| sum(x))(&chunk)).await.unwrap();
        inside + child + sum(x) + sum(&chunk.read().await.unwrap())
    }
    on_all_workers(|_rt| async {
        let chunk = Chunk::new(vec![1i64; 4]);
        assert_eq!(spawn!(nest(In(&chunk.slice(..)), chunk.clone(), 20)).await.unwrap(), 4);
        assert_eq!(spawn!(async parent(In(&chunk.slice(..)), chunk.clone())).await.unwrap(), 15);
    });
}

/// A writer stands between the parent and the child: the child waits for it, and it waits for the parent.
#[test]
fn a_reader_that_waits_for_a_reader_behind_a_writer_is_told_so() {
    async fn parent(_: &[i64], chunk: Numbers) -> (bool, DTask<()>, DTask<i64>) {
        let writer = spawn!(add(InOut(&chunk.slice(..)), 1); name = "between");
        let child = spawn!(sum(In(&chunk.slice(..))); name = "child");
        let told = is_deadlock(&child.clone().await);
        assert!(is_deadlock(&chunk.read().await), "a guard stands behind the writer, too");
        (told, writer, child)
    }
    on_all_workers(|_rt| async {
        let chunk = numbers(4);
        let (told, writer, child) = spawn!(async parent(In(&chunk.slice(..)), chunk.clone())).await.unwrap();
        assert!(told);
        writer.await.unwrap();
        assert_eq!(child.await.unwrap(), 4);
    });
}

// Guards that stay.

/// A task of this kind that waits, at its end or inside its body, for a chunk that somebody outside holds for ever.
fn waiting_by_order(kind: &str, chunk: &Chunk<Vec<i64>>) -> BoxFuture<'static, DTask<()>> {
    let (chunk, plan) = (chunk.clone(), Plan::new());
    let all = move |chunk: &Chunk<Vec<i64>>| spawn!(add(InOut(&chunk.slice(..)), 1));
    let block = move |chunk: Chunk<Vec<i64>>| async move { datadeps(async { all(&chunk) }).await.map(drop) };
    let ended =
        |result: Result<(), Error>| assert!(matches!(result, Err(Error::Shutdown { .. })), "{result:?}");
    match kind {
        "block" => async move { spawn(async move { ended(block(chunk).await) }) }.boxed(),
        "block in a block" => {
            let outer = async move { datadeps(async { block(chunk).await.map(drop) }).await.map(drop) };
            async move { spawn(async move { ended(outer.await) }) }.boxed()
        }
        "plan" => async move { spawn(async move { ended(plan.run(async { all(&chunk) }).await.map(drop)) }) }
            .boxed(),
        "blocked" => async move { spawn!((move || ended(block_on(block(chunk))))()) }.boxed(),
        _ => async move {
            in_order(async {
                all(&chunk);
                spawn!((|| ())())
            })
            .await
        }
        .boxed(),
    }
}

/// Some thread of the process has a name that begins so, where that can be seen.
fn has_threads(name: &str) -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
        .any(|comm| comm.starts_with(name))
}

#[test]
fn what_waits_by_order_behind_a_leaked_guard_ends_with_its_runtime() {
    for way in ["shutdown", "drop"] {
        for kind in ["block", "block in a block", "plan", "blocked", "in order"] {
            watched(move || {
                // One that blocks its thread has that worker for itself.
                let workers = if kind == "blocked" { 2 } else { 1 };
                let rt = Runtime::builder().threads(workers).pin(false).name("leaked").build().unwrap();
                let chunk = numbers(4);
                let guard = block_on(chunk.write()).unwrap();
                let waiting = rt.block_on(waiting_by_order(kind, &chunk));
                // The worker has come to the end of what the body does before.
                rt.block_on(async { spawn!((|| ())()).await.unwrap() });
                match way {
                    "shutdown" => block_on(rt.shutdown()),
                    _ => drop(rt),
                }
                let result = waiting.blocking_wait();
                assert!(matches!(result, Ok(()) | Err(Error::Shutdown { .. })), "{way} {kind}: {result:?}");
                while has_threads("leaked-worker") {
                    std::thread::yield_now();
                }
                drop(guard);
            });
        }
    }
}

#[test]
fn very_many_tasks_behind_a_leaked_guard_end_with_their_runtime() {
    watched(|| {
        let rt = runtime(2);
        let chunk = numbers(1);
        let guard = block_on(chunk.write()).unwrap();
        let tasks: Vec<DTask<()>> =
            rt.block_on(async { (0..30_000).map(|_| spawn!(add(InOut(&chunk.slice(..)), 1))).collect() });
        drop(rt);
        for task in tasks {
            assert!(matches!(task.blocking_wait(), Err(Error::Shutdown { .. })));
        }
        drop(guard);
    });
}

#[test]
fn tasks_behind_a_leaked_guard_end_with_their_runtime() {
    for way in ["shutdown", "drop"] {
        for kind in ["read", "write", "future"] {
            watched(move || {
                let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
                let other = runtime(1);
                let chunk = numbers(4);
                match kind {
                    "read" => std::mem::forget(block_on(chunk.read()).unwrap()),
                    "write" => std::mem::forget(block_on(chunk.write()).unwrap()),
                    _ => std::mem::forget(chunk.write()),
                }
                let innocent = other.block_on(async { spawn!(add(InOut(&chunk.slice(..)), 1)) });
                let (tasks, block) = rt.block_on(async {
                    let mut tasks: Vec<DTask<()>> =
                        (0..50).map(|_| spawn!(add(InOut(&chunk.slice(..)), 1))).collect();
                    tasks.push(spawn!((|(): ()| ())(tasks[0].clone())));
                    let awaited = tasks[1].clone();
                    tasks.push(spawn(async move { awaited.await.unwrap() }));
                    let read = chunk.read();
                    tasks.push(spawn(async move { drop(read.await) }));
                    let inside = chunk.clone();
                    let block = spawn(async move {
                        datadeps(async { spawn!(add(InOut(&inside.slice(..2)), 1)) }).await.map(drop)
                    });
                    (tasks, block)
                });
                match way {
                    "shutdown" => block_on(rt.shutdown()),
                    _ => drop(rt),
                }
                for task in tasks {
                    let result = task.blocking_wait();
                    assert!(matches!(result, Err(Error::Shutdown { .. })), "{way} {kind}: {result:?}");
                }
                // A body that was being polled when the runtime ended returns what its block said.
                let block = block.blocking_wait();
                assert!(
                    matches!(block, Err(Error::Shutdown { .. }) | Ok(Err(Error::Shutdown { .. }))),
                    "{way} {kind}: {block:?}"
                );
                assert!(!innocent.is_finished(), "the task of another runtime still waits");
                block_on(Arc::into_inner(other).unwrap().shutdown());
                assert!(matches!(innocent.blocking_wait(), Err(Error::Shutdown { .. })));
            });
        }
    }
}

#[test]
fn a_guard_that_outlives_a_runtime_lets_the_tasks_of_another_go_on() {
    watched(|| {
        let (left, right) = (runtime(1), runtime(2));
        let chunk = numbers(4);
        let guard = left.block_on(chunk.write()).unwrap();
        let (mut ended, mut alive) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            left.block_on(async { ended.push(spawn!(sum(In(&chunk.slice(..))))) });
            right.block_on(async { alive.push(spawn!(sum(In(&chunk.slice(..))))) });
        }
        block_on(Arc::into_inner(left).unwrap().shutdown());
        for task in ended {
            assert!(matches!(task.blocking_wait(), Err(Error::Shutdown { .. })));
        }
        assert!(alive.iter().all(|task| !task.is_finished()));
        drop(guard);
        for task in alive {
            assert_eq!(task.blocking_wait().unwrap(), 0);
        }
    });
}

/// Waits for the first report of the runtime of this name; the time is the subject here.
fn first_report(name: &str) -> String {
    let start = Instant::now();
    loop {
        if let Some(report) = logged(name).into_iter().next() {
            return report;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "no report although nothing moved for long");
        std::thread::yield_now();
    }
}

fn stall_watched(name: &str) -> Runtime {
    keep_log();
    let after = Duration::from_millis(100);
    Runtime::builder().threads(2).pin(false).name(name).stall_after(after).build().unwrap()
}

#[test]
fn guards_that_wait_for_guards_are_named_by_the_stall_watch() {
    watched(|| {
        let rt = stall_watched("guard-behind-guard");
        let (a, b) = (numbers(1), numbers(1));
        let ((), frozen) = rt
            .block_on(Frozen::record(async {
                spawn!(add(InOut(&a.slice(..)), 1); repeatable = true);
            }))
            .unwrap();
        // Its own, one of another that waits for it in turn, and a run of a frozen graph.
        let (own, other, frozen_behind) = rt.block_on(async {
            let (a, b, c) = (a.clone(), b.clone(), numbers(1));
            let own = spawn(async move {
                let _held = c.write().await.unwrap();
                drop(c.read().await);
            });
            let _held_outside = std::mem::ManuallyDrop::new(a.read());
            let first = b.write().await.unwrap();
            let other = spawn(async move {
                let _first = first;
                drop(a.write().await);
            });
            (own, other, spawn(async move { frozen.run().await }))
        });
        // One that came between the spawns has less.
        first_report("guard-behind-guard");
        let of_three = |report: &String| report.matches("waits for a guard of a chunk of").count() == 3;
        let first = loop {
            if let Some(report) = logged("guard-behind-guard").into_iter().find(of_three) {
                break report;
            }
            std::thread::yield_now();
        };
        assert!(first.contains("guards.rs:"), "{first}");
        drop((own, other, frozen_behind));
        drop(rt);
        drop(b);
    });
}

#[test]
fn a_guard_held_across_a_block_that_writes_its_chunk_is_named_by_the_stall_watch() {
    watched(move || {
        let name = "held-outside";
        let rt = stall_watched(name);
        let chunk = numbers(4);
        let guard_line = Arc::new(Mutex::new(0));
        let line = guard_line.clone();
        let program = async move {
            *line.lock().unwrap() = line!() + 1;
            let guard = chunk.read().await.unwrap();
            let mut block = Box::pin(datadeps(async {
                spawn!(add(InOut(&chunk.slice(..)), 1); name = "starved");
            }));
            // What ends it is the report itself.
            let block = loop {
                let timeout = tokio::time::timeout(Duration::from_millis(5), &mut block);
                match timeout.await {
                    Ok(block) => break Ok(block),
                    Err(_) if !logged(name).is_empty() => break Err(block),
                    Err(_) => {}
                }
            };
            let Err(block) = block else { panic!("it ended beside a guard") };
            drop(guard);
            block.await.unwrap();
        };
        rt.block_on(program);
        let report = first_report(name);
        let line = guard_line.lock().unwrap();
        for part in ["read guard", "`starved`", &format!("guards.rs:{line}")] {
            assert!(report.contains(part), "the report does not say {part}: {report}");
        }
    });
}

#[test]
fn a_task_that_holds_a_guard_and_awaits_a_block_behind_it_is_a_stall_not_a_deadlock() {
    watched(|| {
        let rt = stall_watched("guard-in-task");
        let chunk = numbers(4);
        let inside = chunk.clone();
        let line = line!() + 2;
        let task = rt.block_on(async {
            let write = inside.write();
            let kept = Arc::new(Mutex::new(None));
            let holder = kept.clone();
            let task = spawn(async move {
                *holder.lock().unwrap() = Some(write.await.unwrap());
                let block =
                    datadeps(async { spawn!(add(InOut(&inside.slice(..)), 1); name = "starved") }).await;
                block.map(drop)
            });
            (task, kept)
        });
        let report = first_report("guard-in-task");
        for part in ["write guard", "`starved`", &format!("guards.rs:{line}")] {
            assert!(report.contains(part), "the report does not say {part}: {report}");
        }
        let (task, kept) = task;
        assert!(!task.is_finished(), "a stall is not ended");
        drop(kept.lock().unwrap().take());
        task.blocking_wait().unwrap().unwrap();
        assert_eq!(*block_on(chunk.read()).unwrap(), [1; 4]);
    });
}

#[test]
fn many_guards_at_once_from_one_thread() {
    on_workers(2, |_rt| async {
        let chunk = numbers(1);
        let guards = (0..1000).map(|_| chunk.read());
        assert_eq!(join_all(guards).await.into_iter().filter(Result::is_ok).count(), 1000);
        let writes = (0..1000).map(|_| {
            let write = chunk.write();
            async move { write.await.map(|mut guard| guard[0] += 1) }
        });
        join_all(writes).await.into_iter().for_each(|write| write.unwrap());
        let failed = spawn!((|_: &mut [i64]| Err::<(), _>(Failure("x".into())))(InOut(&chunk.slice(..)))?);
        assert!(failed.await.is_err());
        assert!(chunk.read().await.is_err());
        assert_eq!(*chunk.recover().await.unwrap(), [1000]);
    });
}

#[test]
fn a_chunk_that_was_placed_is_read_outside_any_runtime() {
    watched(|| {
        let chunk = Chunk::new_in(Scope::any(), 5);
        assert_eq!(*block_on(chunk.read()).unwrap(), 5);
    });
}

/// A task of one runtime holds the chunk, one of another waits for it: that one's shutdown does not wait for the first.
#[test]
fn a_shutdown_ends_what_waits_behind_a_task_of_another_runtime() {
    async fn hold(x: &mut [i64], go: Gate) {
        go.pass().await;
        add(x, 1);
    }
    watched(|| {
        let (left, right) = (runtime(1), runtime(1));
        let (chunk, go) = (numbers(2), Gate::new());
        let holds = left.block_on(async { spawn!(async hold(InOut(&chunk.slice(..)), go.clone())) });
        let (first, second) = right.block_on(async {
            // The second waits for the first only.
            let other = numbers(2);
            let both = |x: &mut [i64], y: &mut [i64]| [x, y].into_iter().for_each(|x| add(x, 1));
            let first = spawn!((both)(InOut(&chunk.slice(..)), InOut(&other.slice(..))));
            (first, spawn!(add(InOut(&other.slice(..)), 1)))
        });
        block_on(Arc::into_inner(right).unwrap().shutdown());
        for task in [first, second] {
            assert!(matches!(task.blocking_wait(), Err(Error::Shutdown { .. })));
        }
        go.open();
        holds.blocking_wait().unwrap();
        assert!(block_on(chunk.read()).is_err(), "a writer that was ended poisons");
    });
}
