//! Bad days of a store, one by one: what a task is told, what goes on, and that nothing is lost that was in memory.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use dagger_async::prelude::*;
use dagger_async::store::{Eviction, SizeOf, Spill, register, register_size};
use dagger_tests::faulty::{Faulty, Injury, Op, Trouble};
use dagger_tests::{Census, Gate, Item, Scratch, WORKERS, until, watched};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const KIB: u64 = 1 << 10;
const WORDS: usize = 8192;

type Data = Vec<u64>;

/// 64 KiB that say which ones they are.
fn block(i: u64) -> Data {
    (0..WORDS as u64).map(|k| i * 100_000 + k).collect()
}

fn add(x: &mut Data, n: u64) {
    x.iter_mut().for_each(|x| *x += n);
}

#[allow(clippy::ptr_arg, reason = "what is in the chunk")]
fn sum(x: &Data) -> u64 {
    x.iter().sum()
}

fn sum_of(i: u64) -> u64 {
    sum(&block(i))
}

fn on(store: &Faulty, workers: usize, bytes: u64) -> Runtime {
    let builder = Runtime::builder().threads(workers).pin(false).memory_limit(bytes).eviction(Eviction::Lru);
    builder.spill_to(store.clone()).build().unwrap()
}

/// So many chunks of 64 KiB, of which the last two at most are in memory: the budget of `rt` is 128 KiB.
fn spilled(rt: &Runtime, count: u64) -> Vec<Chunk<Data>> {
    rt.block_on(async {
        let chunks: Vec<_> = (0..count).map(|i| Chunk::new(block(i))).collect();
        for chunk in &chunks {
            spawn!(sum(In(chunk))).await.unwrap();
        }
        until("what is over the budget leaves", || rt.memory().resident <= 128 * KIB);
        chunks
    })
}

/// Nothing is left of what was in chunks.
#[track_caller]
fn assert_gone(rt: &Runtime, store: &Faulty) {
    until("no chunk is left", || {
        let memory = rt.memory();
        [memory.resident, memory.spilled, memory.reserved, memory.pinned, memory.chunks as u64] == [0; 5]
    });
    store.wait_empty();
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

// A store that does not take anything.

#[test]
fn a_store_that_refuses_to_write_fails_who_needs_room_and_loses_nothing() {
    for (trouble, cause) in [
        (Trouble::Full, "No space left on device"),
        (Trouble::Denied, "not for you"),
        (Trouble::Passing, "a bad day"),
    ] {
        for workers in WORKERS {
            watched(move || {
                let store = Faulty::in_memory();
                store.refuse(Op::Put, trouble);
                let rt = on(&store, workers, 128 * KIB);
                rt.block_on(async {
                    let here: Vec<_> = (0..4).map(|i| Chunk::new(block(i))).collect();
                    let absent = Chunk::lazy(64 * KIB, || block(9));
                    let told = Chunk::new(0u64);
                    // Needs room, and there is none.
                    let fails = spawn!((|sum: &mut u64, x: &Data| *sum = x[0])(InOut(&told), In(&absent)); name = "fails");
                    let after = spawn!((|sum: &u64| *sum)(In(&told)); name = "after");
                    let error = fails.await.unwrap_err();
                    let Error::Spill { chunk, path, source, .. } = &error else { panic!("{error:?}") };
                    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), source.to_string());
                    assert!(chunk.contains("Vec<u64>") && chunk.contains("store_faults.rs:"), "{chunk}");
                    assert!(path.contains("/object-"), "{path}");
                    assert!(store.has_refused(Op::Put, path), "{path}");
                    let text = error.to_string();
                    for part in [&**chunk, &**path, cause, "`fails`", "stays in memory"] {
                        assert!(text.contains(part), "`{part}` is not in: {text}");
                    }
                    assert_eq!(error.root().unwrap().name(), "fails");
                    // Who needs what it should have written gets the same root.
                    let error = after.await.unwrap_err();
                    assert_eq!((error.root().unwrap().name(), matches!(error, Error::Dependency { .. })), ("fails", true));
                    assert!(error.to_string().contains(cause), "{error}");
                    // Nothing has left, and who needs no room goes on.
                    assert_eq!(rt.memory().evictions, 0);
                    for (i, chunk) in (0..).zip(&here) {
                        spawn!(add(InOut(chunk), 1)).await.unwrap();
                        assert_eq!(spawn!(sum(In(chunk))).await.unwrap(), sum_of(i) + WORDS as u64);
                    }
                    assert_eq!(rt.memory().evictions, 0);
                    // The store recovers: so do those that come later.
                    store.heal();
                    let end = Instant::now() + Duration::from_secs(20);
                    let last = loop {
                        match spawn!(sum(In(&absent))).await {
                            Err(Error::Spill { .. }) if Instant::now() < end => {}
                            other => break other,
                        }
                    };
                    assert_eq!(last.unwrap(), sum_of(9));
                    assert!(rt.memory().evictions > 0);
                    for (i, chunk) in (0..).zip(&here) {
                        assert_eq!(chunk.read().await.unwrap().iter().sum::<u64>(), sum_of(i) + WORDS as u64);
                    }
                });
                assert_gone(&rt, &store);
            });
        }
    }
}

#[test]
fn a_store_where_one_request_in_three_fails_is_only_slower() {
    for workers in WORKERS {
        watched(move || {
            let store = Faulty::in_memory();
            store.one_in(3, workers as u64);
            let rt = on(&store, workers, 128 * KIB);
            rt.block_on(async {
                let chunks: Vec<_> = (0..12).map(|i| Chunk::new(block(i))).collect();
                for round in 0..3 {
                    for chunk in &chunks {
                        spawn!(add(InOut(chunk), round));
                    }
                }
                for (i, chunk) in (0..).zip(&chunks) {
                    assert_eq!(spawn!(sum(In(chunk))).await.unwrap(), sum_of(i) + 3 * WORDS as u64);
                }
            });
            assert!(store.failed() > 10, "{}", store.failed());
            assert_gone(&rt, &store);
        });
    }
}

#[test]
fn while_a_store_is_slow_others_go_on() {
    for workers in WORKERS {
        watched(move || {
            let store = Faulty::in_memory();
            let rt = on(&store, workers, 128 * KIB);
            let chunks = spilled(&rt, 6);
            rt.block_on(async {
                // A load takes long.
                let gate = store.hold(Op::Get);
                let waits = spawn!(sum(In(&chunks[0])));
                store.wait_held(Op::Get, 1);
                for _ in 0..20 {
                    assert_eq!(spawn!(sum(In(&chunks[5]))).await.unwrap(), sum_of(5));
                    assert_eq!(spawn!((|| 1)()).await.unwrap(), 1);
                }
                assert!(!waits.is_finished());
                gate.open();
                assert_eq!(waits.await.unwrap(), sum_of(0));
            });
            store.heal();
            rt.block_on(async {
                // What is in memory has to be written before another one fits, and that takes long.
                let mut written = Vec::new();
                for chunk in &chunks[3..5] {
                    let mut guard = chunk.write().await.unwrap();
                    guard.iter_mut().for_each(|x| *x += 2);
                    written.push(guard);
                }
                // Nobody writes down what is in use, so this one is the first to be held.
                let gate = store.hold(Op::Put);
                let puts = store.requests(Op::Put);
                drop(written);
                let waits = spawn!(sum(In(&chunks[1])));
                until("something is written", || store.requests(Op::Put) > puts);
                // It can be read while it is written.
                for _ in 0..20 {
                    assert_eq!(spawn!((|| 1)()).await.unwrap(), 1);
                }
                assert!(!waits.is_finished());
                gate.open();
                assert_eq!(waits.await.unwrap(), sum_of(1));
                for at in [3, 4] {
                    assert_eq!(
                        spawn!(sum(In(&chunks[at]))).await.unwrap(),
                        sum_of(at as u64) + 2 * WORDS as u64
                    );
                }
            });
            drop(chunks);
            assert_gone(&rt, &store);
        });
    }
}

#[test]
fn what_is_used_while_it_is_written_stays() {
    watched(|| {
        let store = Faulty::in_memory();
        let rt = on(&store, 2, 128 * KIB);
        let chunks = spilled(&rt, 6);
        rt.block_on(async {
            // These two are all that is in memory, and nowhere else; the first was used less lately.
            let mut written = Vec::new();
            for chunk in &chunks[4..6] {
                let mut guard = chunk.write().await.unwrap();
                guard.iter_mut().for_each(|x| *x += 1);
                written.push(guard);
            }
            let gate = store.hold(Op::Put);
            drop(written);
            let waits = spawn!(sum(In(&chunks[1])));
            store.wait_held(Op::Put, 1);
            assert_eq!(spawn!(sum(In(&chunks[4]))).await.unwrap(), sum_of(4) + WORDS as u64);
            gate.open();
            assert_eq!(waits.await.unwrap(), sum_of(1));
            let gets = store.requests(Op::Get);
            assert_eq!(spawn!(sum(In(&chunks[4]))).await.unwrap(), sum_of(4) + WORDS as u64);
            assert_eq!(store.requests(Op::Get), gets, "the other one has left");
        });
        drop(chunks);
        assert_gone(&rt, &store);
    });
}

// Objects that are not what was written.

#[test]
fn a_lost_cut_or_altered_object_fails_who_needs_it_and_nobody_else() {
    for (injury, cause) in [
        (Injury::Lost, "it is gone"),
        (Injury::Cut, "32788 B are stored where 65576 B were written"),
        (Injury::Altered, "checksum"),
    ] {
        for workers in WORKERS {
            watched(move || {
                let store = Faulty::in_memory();
                let rt = on(&store, workers, 128 * KIB);
                let chunks = spilled(&rt, 6);
                store.injure_all(injury);
                rt.block_on(async {
                    assert_eq!(spawn!(sum(In(&chunks[5]))).await.unwrap(), sum_of(5));
                    let told = Chunk::new(vec![7u64; 10]);
                    let fails =
                        spawn!((|to: &mut Data, x: &Data| to[0] = x[0])(InOut(&told), In(&chunks[0])); name = "fails");
                    let after = spawn!(sum(In(&told)); name = "after");
                    let error = fails.await.unwrap_err();
                    let Error::Reload { chunk, path, .. } = &error else { panic!("{error:?}") };
                    assert!(chunk.contains("Vec<u64>") && chunk.contains("store_faults.rs:"), "{chunk}");
                    assert!(store.has_injured(path), "{path}");
                    let text = error.to_string();
                    for part in [&**chunk, &**path, cause, "`fails`"] {
                        assert!(text.contains(part), "`{part}` is not in: {text}");
                    }
                    let error = after.await.unwrap_err();
                    assert_eq!((error.root().unwrap().name(), matches!(error, Error::Dependency { .. })), ("fails", true));
                    assert!(matches!(told.read().await, Err(Error::Poisoned { .. })));
                    assert_eq!(spawn!((|| 1)()).await.unwrap(), 1);
                    // A guard says the same, by itself.
                    let error = chunks[0].read().await.map(drop).unwrap_err();
                    assert!(matches!(error, Error::Reload { root: None, .. }), "{error:?}");
                    assert!(error.to_string().contains(cause), "{error}");
                    // A reader poisons nothing: when the store is well again the value is there.
                    store.heal();
                    assert_eq!(spawn!(sum(In(&chunks[0]))).await.unwrap(), sum_of(0));
                    let healed = told.recover().await.unwrap();
                    assert_eq!(*healed, vec![7; 10]);
                    drop(healed);
                    for (i, chunk) in (0..).zip(&chunks) {
                        assert_eq!(*chunk.read().await.unwrap(), block(i));
                    }
                });
                drop(chunks);
                assert_gone(&rt, &store);
            });
        }
    }
}

#[test]
fn a_lost_chunk_fails_each_kind_of_access_and_can_still_be_dropped() {
    watched(|| {
        let store = Faulty::in_memory();
        let rt = on(&store, 2, 128 * KIB);
        let chunks = spilled(&rt, 12);
        store.injure_all(Injury::Lost);
        rt.block_on(async {
            let is_reload = |error: Error| assert!(matches!(error, Error::Reload { .. }), "{error:?}");
            is_reload(spawn!(sum(In(&chunks[0]))).await.unwrap_err());
            is_reload(spawn!(add(InOut(&chunks[1]), 1)).await.unwrap_err());
            is_reload(spawn!((|x: &[u64]| x[0])(In(&chunks[2].slice(0..3)))).await.unwrap_err());
            is_reload(chunks[3].write().await.map(drop).unwrap_err());
            is_reload(chunks[4].recover().await.map(drop).unwrap_err());
            is_reload(chunks[5].clone().into_inner().await.map(drop).unwrap_err());
            is_reload(access((In(&chunks[6]), In(&chunks[10]))).await.map(drop).unwrap_err());
            let is_async = spawn!(async (async |x: &Data| x[0])(In(&chunks[7])));
            is_reload(is_async.await.unwrap_err());
            is_reload(datadeps(async { spawn!(add(InOut(&chunks[8]), 1)) }).await.map(drop).unwrap_err());
            // A writer poisons; who comes next is refused by that, and asks nobody for the value.
            let gets = store.requests(Op::Get);
            let root = |error: Error| error.root().unwrap().name().to_owned();
            let error = spawn!(sum(In(&chunks[1]))).await.unwrap_err();
            assert!(matches!(error, Error::Dependency { .. }), "{error:?}");
            assert_eq!(root(error), "add");
            let error =
                spawn!((|_: &Data, x: &[u64]| x[0])(In(&chunks[6]), In(&chunks[1].slice(1..3)))).await;
            assert!(matches!(error, Err(Error::Dependency { .. })), "{error:?}");
            let error = chunks[1].read().await.map(drop).unwrap_err();
            assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
            assert_eq!((root(error), store.requests(Op::Get)), ("add".to_owned(), gets));
        });
        drop(chunks);
        store.heal();
        assert_gone(&rt, &store);
    });
}

#[test]
fn a_task_of_another_runtime_is_told_of_a_lost_chunk() {
    watched(|| {
        let store = Faulty::in_memory();
        let (one, other) = (on(&store, 2, 128 * KIB), on(&store, 2, 128 * KIB));
        let chunks = spilled(&one, 6);
        store.injure_all(Injury::Cut);
        other.block_on(async {
            let error = spawn!(sum(In(&chunks[0])); name = "fails").await.unwrap_err();
            assert!(matches!(error, Error::Reload { .. }), "{error:?}");
            assert_eq!(error.root().unwrap().name(), "fails");
            store.heal();
            assert_eq!(spawn!(sum(In(&chunks[0]))).await.unwrap(), sum_of(0));
        });
        drop(chunks);
        assert_gone(&one, &store);
    });
}

// The folder of spilled chunks.

#[test]
fn a_folder_that_is_deleted_under_the_runtime_costs_what_was_in_it_only() {
    for workers in WORKERS {
        watched(move || {
            let scratch = Scratch::new("store-faults");
            let builder = Runtime::builder().threads(workers).pin(false).memory_limit(128 * KIB);
            let rt = builder.eviction(Eviction::Lru).spill_folder(&scratch.0).build().unwrap();
            let chunks = spilled(&rt, 6);
            let [folder] = &entries(&scratch.0)[..] else { panic!("{:?}", entries(&scratch.0)) };
            std::fs::remove_dir_all(folder).unwrap();
            rt.block_on(async {
                let error = spawn!(sum(In(&chunks[0]))).await.unwrap_err();
                let Error::Reload { path, .. } = &error else { panic!("{error:?}") };
                assert!(Path::new(&**path).starts_with(folder), "{path}");
                assert!(error.to_string().contains("No such file"), "{error}");
                assert_eq!(spawn!(sum(In(&chunks[5]))).await.unwrap(), sum_of(5));
                // It goes on in a new one.
                let others: Vec<_> = (0..6).map(|i| Chunk::new(block(20 + i))).collect();
                for chunk in &others {
                    spawn!(add(InOut(chunk), 1));
                }
                for (i, chunk) in (20..).zip(&others) {
                    assert_eq!(spawn!(sum(In(chunk))).await.unwrap(), sum_of(i) + WORDS as u64);
                }
            });
            assert!(!entries(&scratch.0).is_empty(), "there is a new folder");
            drop(chunks);
            drop(rt);
            until("nothing is left", || entries(&scratch.0).is_empty());
        });
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    watched(|| {
        let scratch = Scratch::new("store-faults");
        let file = scratch.0.join("a file");
        std::fs::write(&file, "x").unwrap();
        let rt = Runtime::builder().threads(2).pin(false).memory_limit(128 * KIB);
        let rt = rt.spill_folder(file.join("spilled")).build().unwrap();
        rt.block_on(async {
            let here: Vec<_> = (0..3).map(|i| Chunk::new(block(i))).collect();
            let absent = Chunk::lazy(64 * KIB, || block(9));
            let error = spawn!(sum(In(&absent))).await.unwrap_err();
            assert!(matches!(error, Error::Spill { .. }), "{error:?}");
            assert!(error.to_string().contains("a file/spilled"), "{error}");
            for (i, chunk) in (0..).zip(&here) {
                assert_eq!(*chunk.read().await.unwrap(), block(i));
            }
        });
    });
}

// Those who wait are ended while the store is at it.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "they are read as `Waits::ForRoom`")]
enum Waits {
    /// For a body that has all the room.
    ForRoom,
    /// For a value on its way back.
    ForALoad,
    /// For others to be written.
    ForAWrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::enum_variant_names, reason = "they are read as `Ended::ByCancel`")]
enum Ended {
    ByCancel,
    ByToken,
    ByShutdown,
    ByDrop,
}

#[test]
fn who_waits_for_memory_can_be_ended_at_once() {
    for waits in [Waits::ForRoom, Waits::ForALoad, Waits::ForAWrite] {
        for ended in [Ended::ByCancel, Ended::ByToken, Ended::ByShutdown, Ended::ByDrop] {
            for workers in [2, 8] {
                watched(move || {
                    println!("{waits:?} {ended:?} {workers}");
                    end_while_waiting(waits, ended, workers)
                });
            }
        }
    }
}

fn end_while_waiting(waits: Waits, ended: Ended, workers: usize) {
    let store = Faulty::in_memory();
    let rt = on(&store, workers, 128 * KIB);
    let chunks = spilled(&rt, 6);
    let held = Census::new();
    let (started, go) = (Gate::new(), Gate::new());
    let (gate, occupier) = match waits {
        Waits::ForRoom => {
            let (started, go) = (started.clone(), go.clone());
            let occupier = rt.block_on(async {
                spawn!((move |_: &mut Data, _: &mut Data| {
                    started.open();
                    go.block();
                })(InOut(&chunks[4]), InOut(&chunks[5])))
            });
            (None, Some(occupier))
        }
        Waits::ForALoad => (Some(store.hold(Op::Get)), None),
        Waits::ForAWrite => {
            rt.block_on(async {
                for chunk in &chunks[4..6] {
                    spawn!(add(InOut(chunk), 0)).await.unwrap();
                }
            });
            (Some(store.hold(Op::Put)), None)
        }
    };
    if waits == Waits::ForRoom {
        started.block();
    }
    let token = CancelToken::new();
    let options = match ended {
        Ended::ByToken => Options::new().cancel(token.clone()),
        _ => Options::new(),
    };
    let item = held.item();
    let waiting = rt.block_on(async {
        spawn!((move |x: &mut Data, _: Item| x[0])(InOut(&chunks[0]), item); name = "waits", ..options)
    });
    // One that waits for it, a guard behind it, and one that nobody awaits.
    let behind = rt.block_on(async { spawn!(sum(In(&chunks[0]))) });
    if waits == Waits::ForALoad {
        store.wait_held(Op::Get, 1);
    }
    let mut rt = Some(rt);
    match ended {
        Ended::ByCancel => waiting.cancel(),
        Ended::ByToken => token.cancel(),
        Ended::ByShutdown | Ended::ByDrop => {
            let rt = rt.take().unwrap();
            // Functions that run are waited for: by another thread, for the gates are closed.
            let end = move || match ended {
                Ended::ByShutdown => futures::executor::block_on(rt.shutdown()),
                _ => drop(rt),
            };
            let ends = std::thread::spawn(end);
            if waits != Waits::ForRoom {
                // The store is not waited for.
                ends.join().unwrap();
            }
        }
    }
    let gave = futures::executor::block_on(waiting);
    match ended {
        Ended::ByCancel | Ended::ByToken => assert!(matches!(gave, Err(Error::Cancelled { .. })), "{gave:?}"),
        Ended::ByShutdown | Ended::ByDrop => assert!(matches!(gave, Err(Error::Shutdown { .. })), "{gave:?}"),
    }
    let open = || {
        go.open();
        gate.iter().for_each(Gate::open);
    };
    // What it held is dropped though the store has not moved.
    until("what it held is dropped", || held.dropped() == 1);
    if rt.is_none() {
        let gave = futures::executor::block_on(behind);
        assert!(matches!(gave, Err(Error::Shutdown { .. })), "{gave:?}");
        open();
    } else {
        // It waits for room before it looks whether it is refused.
        open();
        let error = futures::executor::block_on(behind).unwrap_err();
        assert!(matches!(error, Error::Dependency { .. }), "{error:?}");
    }
    if let (Some(occupier), Some(_)) = (occupier, &rt) {
        futures::executor::block_on(occupier).unwrap();
    }
    store.heal();
    if let Some(rt) = &rt {
        // Those who come later go on.
        rt.block_on(async {
            assert_eq!(chunks[0].recover().await.unwrap()[1], 1);
            for (i, chunk) in (0..).zip(&chunks) {
                assert_eq!(spawn!(sum(In(chunk))).await.unwrap(), sum_of(i));
            }
        });
    }
    drop(chunks);
    if let Some(rt) = &rt {
        assert_gone(rt, &store);
    }
    drop(rt);
    store.wait_empty();
}

#[test]
fn a_guard_that_waits_for_its_chunk_can_be_dropped() {
    for workers in WORKERS {
        watched(move || {
            let store = Faulty::in_memory();
            let rt = on(&store, workers, 128 * KIB);
            let chunks = spilled(&rt, 6);
            rt.block_on(async {
                let gate = store.hold(Op::Get);
                let mut place = chunks[0].write();
                assert!(futures::poll!(&mut place).is_pending());
                store.wait_held(Op::Get, 1);
                drop(place);
                gate.open();
                for (i, chunk) in (0..).zip(&chunks) {
                    assert_eq!(spawn!(sum(In(chunk))).await.unwrap(), sum_of(i));
                }
                store.heal();
                // Of two that are taken together one is there.
                let gate = store.hold(Op::Get);
                let mut both = access((InOut(&chunks[5]), In(&chunks[1])));
                assert!(futures::poll!(&mut both).is_pending());
                store.wait_held(Op::Get, 1);
                drop(both);
                assert_eq!(spawn!(sum(In(&chunks[5]))).await.unwrap(), sum_of(5));
                gate.open();
            });
            drop(chunks);
            assert_gone(&rt, &store);
            assert_eq!(rt.memory().over_budget, 0);
        });
    }
}

#[test]
fn the_runtime_may_end_before_its_chunks_and_before_its_store_has_answered() {
    for op in [Op::Put, Op::Get, Op::Delete, Op::List] {
        watched(move || {
            println!("{op:?}");
            let store = Faulty::in_memory();
            let rt = on(&store, 2, 128 * KIB);
            let chunks = spilled(&rt, 6);
            let gate = store.hold(op);
            let tasks: Vec<_> =
                rt.block_on(async { chunks.iter().map(|chunk| spawn!(add(InOut(chunk), 1))).collect() });
            drop(rt);
            for task in tasks {
                match futures::executor::block_on(task) {
                    Ok(()) | Err(Error::Shutdown { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            drop(chunks);
            gate.open();
            store.heal();
            store.wait_empty();
        });
    }
}

// Code of the user's that panics.

/// Panics where it is told.
struct Bad {
    values: Data,
    _item: Item,
}

static BAD: [AtomicBool; 4] = [const { AtomicBool::new(false) }; 4];
static BAD_ITEMS: std::sync::LazyLock<Census> = std::sync::LazyLock::new(Census::new);
const SPILL: usize = 0;
const RELOAD: usize = 1;
const BYTES: usize = 2;
const DROP: usize = 3;

fn bad(where_: usize) {
    assert!(!BAD[where_].load(SeqCst), "bad at {where_}");
}

impl Bad {
    fn new(i: u64) -> Bad {
        Bad { values: block(i), _item: BAD_ITEMS.item() }
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        bad(DROP);
    }
}

impl Spill for Bad {
    fn bytes(&self) -> usize {
        bad(BYTES);
        self.values.capacity() * 8
    }
    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        self.values[..100].iter().try_for_each(|x| to.write_all(&x.to_le_bytes()))?;
        bad(SPILL);
        self.values[100..].iter().try_for_each(|x| to.write_all(&x.to_le_bytes()))
    }
    fn reload(from: &mut dyn Read) -> io::Result<Self> {
        let mut values = vec![0; WORDS];
        let mut word = [0; 8];
        for x in &mut values {
            from.read_exact(&mut word)?;
            *x = u64::from_le_bytes(word);
        }
        let value = Bad { values, _item: BAD_ITEMS.item() };
        bad(RELOAD);
        Ok(value)
    }
}

#[test]
fn code_of_the_users_that_panics_costs_nobody_else() {
    watched(|| {
        register::<Bad>();
        let store = Faulty::in_memory();
        let rt = on(&store, 2, 128 * KIB);
        let first = |x: &Bad| x.values[1];
        rt.block_on(async {
            let chunks: Vec<_> = (0..4).map(|i| Chunk::new(Bad::new(i))).collect();
            let others: Vec<_> = (0..4).map(|i| Chunk::new(block(10 + i))).collect();
            for which in [SPILL, RELOAD, BYTES, DROP] {
                // Values are written in one round, and read in the next.
                for chunk in &chunks {
                    let end = Instant::now() + Duration::from_secs(20);
                    loop {
                        match spawn!((|x: &mut Bad| x.values[0] += 1)(InOut(chunk))).await {
                            // The store is asked again a second after it has refused; what it refused is poisoned.
                            Err(Error::Spill { .. }) if Instant::now() < end => {
                                drop(chunk.recover().await.unwrap())
                            }
                            other => break other.unwrap(),
                        }
                    }
                }
                BAD[which].store(true, SeqCst);
                // What the round before was refused counts for a second.
                let end = Instant::now() + Duration::from_secs(20);
                let again = |error: &Error| {
                    which != SPILL && matches!(error, Error::Spill { .. }) && Instant::now() < end
                };
                for (i, chunk) in (0..).zip(&chunks) {
                    let result = loop {
                        match spawn!((first)(In(chunk))).await {
                            Err(error) if again(&error) => {}
                            result => break result,
                        }
                    };
                    match result {
                        Ok(value) => assert_eq!(value, i * 100_000 + 1),
                        Err(error @ Error::Spill { .. }) if which == SPILL => {
                            assert!(error.to_string().contains("bad at 0"), "{error}");
                        }
                        Err(error @ Error::Reload { .. }) if which == RELOAD => {
                            assert!(error.to_string().contains("bad at 1"), "{error}");
                        }
                        Err(error) => panic!("{which}: {error:?}"),
                    }
                }
                for (i, chunk) in (10..).zip(&others) {
                    let result = loop {
                        match spawn!(sum(In(chunk))).await {
                            Err(error) if again(&error) => {}
                            result => break result,
                        }
                    };
                    match result {
                        Ok(value) => assert_eq!(value, sum_of(i)),
                        // It needs room.
                        Err(Error::Spill { .. }) if which == SPILL => {}
                        Err(error) => panic!("{which}: {error:?}"),
                    }
                }
                BAD[which].store(false, SeqCst);
            }
            for (i, chunk) in (0..).zip(&chunks) {
                let end = Instant::now() + Duration::from_secs(20);
                let value = loop {
                    match spawn!((|x: &Bad| (x.values[0], x.values[1]))(In(chunk))).await {
                        Err(Error::Spill { .. }) if Instant::now() < end => {}
                        other => break other.unwrap(),
                    }
                };
                assert_eq!(value, (i * 100_000 + 4, i * 100_000 + 1));
            }
            BAD[DROP].store(true, SeqCst);
            drop(chunks);
            rt.idle().await;
            until("all values are dropped", || BAD_ITEMS.made() == BAD_ITEMS.dropped());
            BAD[DROP].store(false, SeqCst);
        });
        assert_gone(&rt, &store);
    });
}

#[test]
fn a_lazy_value_whose_making_panics_is_tried_again() {
    watched(|| {
        let store = Faulty::in_memory();
        let rt = on(&store, 2, 128 * KIB);
        rt.block_on(async {
            let tries = Arc::new(AtomicUsize::new(0));
            let counted = tries.clone();
            let chunk = Chunk::lazy(64 * KIB, move || {
                assert!(counted.fetch_add(1, SeqCst) > 1, "not yet");
                block(3)
            });
            for _ in 0..2 {
                let error = spawn!(sum(In(&chunk)); name = "needs it").await.unwrap_err();
                assert!(matches!(error, Error::Reload { .. }), "{error:?}");
                let text = error.to_string();
                for part in ["`needs it`", "not yet", "store_faults.rs:", "what `store_faults::"] {
                    assert!(text.contains(part), "`{part}` is not in: {text}");
                }
            }
            assert_eq!(spawn!(sum(In(&chunk))).await.unwrap(), sum_of(3));
            assert_eq!(tries.load(SeqCst), 3);
            // One that makes more than it has said counts as what it is.
            let large = Chunk::lazy(KIB, || block(4));
            assert_eq!(spawn!(sum(In(&large))).await.unwrap(), sum_of(4));
            assert!(rt.memory().resident >= 64 * KIB, "{:?}", rt.memory());
            // And one that makes less.
            let small = Chunk::lazy(100 * KIB, || vec![1u64; 1000]);
            assert_eq!(spawn!(sum(In(&small))).await.unwrap(), 1000);
            until("it counts as what it is", || rt.memory().resident <= 128 * KIB + 8000);
        });
        assert_gone(&rt, &store);
    });
}

#[test]
fn a_store_that_panics_is_a_store_that_fails() {
    for op in [Op::Put, Op::Get, Op::Delete] {
        watched(move || {
            let store = Faulty::in_memory();
            let rt = on(&store, 2, 128 * KIB);
            let chunks = spilled(&rt, 6);
            store.refuse(op, Trouble::Panic);
            rt.block_on(async {
                for chunk in &chunks {
                    match spawn!(add(InOut(chunk), 1)).await {
                        Ok(()) | Err(Error::Spill { .. } | Error::Reload { .. }) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
                store.heal();
                for chunk in &chunks {
                    let end = Instant::now() + Duration::from_secs(20);
                    while let Err(error) = chunk.recover().await {
                        assert!(matches!(error, Error::Reload { .. }) && Instant::now() < end, "{error:?}");
                    }
                }
            });
            drop(chunks);
            if op == Op::Delete {
                drop(rt); // What could not be deleted goes with the session.
                store.wait_empty();
            } else {
                assert_gone(&rt, &store);
            }
        });
    }
}

// What counts.

#[derive(Clone)]
struct Large([u64; 1024]);

struct Sized_(Data);

impl SizeOf for Sized_ {
    fn bytes(&self) -> usize {
        self.0.capacity() * 8
    }
}

#[test]
fn values_count_as_the_documentation_says() {
    watched(|| {
        register_size::<Sized_>();
        let store = Faulty::in_memory();
        let rt = on(&store, 2, 128 * KIB);
        rt.block_on(async {
            let resident = || rt.memory().resident;
            // Of an unknown type: its `size_of`, if that is worth counting.
            let plain = Chunk::new(7u64);
            spawn!((|x: &mut u64| *x += 1)(InOut(&plain))).await.unwrap();
            assert_eq!((rt.memory().chunks, resident()), (0, 0));
            let large = Chunk::new(Large([1; 1024]));
            assert_eq!((rt.memory().chunks, resident()), (1, 8192));
            // A small one of a known type counts, and stays.
            let small = Chunk::new(vec![1u64; 10]);
            assert_eq!(resident(), 8272);
            // One whose size is told, beside itself.
            let sized = Chunk::new(Sized_(vec![1; 4096]));
            let sized_bytes = 32 * KIB + size_of::<Sized_>() as u64;
            assert_eq!(resident(), 8272 + sized_bytes);
            // Nothing of this can leave; what can does.
            let others: Vec<_> = (0..6).map(|i| Chunk::new(block(i))).collect();
            until("there is room again", || resident() <= 128 * KIB);
            for (i, chunk) in (0..).zip(&others) {
                assert_eq!(spawn!(sum(In(chunk))).await.unwrap(), sum_of(i));
            }
            until("there is room again", || resident() <= 128 * KIB);
            assert!(resident() >= 8272 + sized_bytes);
            let before = rt.memory().misses;
            assert_eq!(spawn!((|x: &Large| x.0[3])(In(&large))).await.unwrap(), 1);
            assert_eq!(spawn!((|x: &Sized_| x.0.len())(In(&sized))).await.unwrap(), 4096);
            assert_eq!(spawn!(sum(In(&small))).await.unwrap(), 10);
            assert_eq!(rt.memory().misses, before, "they were there");
            assert_eq!(*plain.read().await.unwrap(), 8);
            assert_eq!(rt.memory().over_budget, 0);
        });
        assert_gone(&rt, &store);
    });
}

#[test]
fn a_value_that_grows_and_shrinks_counts_as_what_it_is() {
    for workers in WORKERS {
        watched(move || {
            let store = Faulty::in_memory();
            let rt = on(&store, workers, 256 * KIB);
            rt.block_on(async {
                let chunk = Chunk::new(vec![1u64; 1024]);
                let other = Chunk::new(block(1));
                for words in [16_384usize, 10, 4096, 31_000, 0, 1, 8192] {
                    let grown = spawn!((move |x: &mut Data| *x = vec![words as u64; words])(Out(&chunk)));
                    grown.await.unwrap();
                    // What was over the budget has left.
                    until("it fits", || rt.memory().resident <= 256 * KIB);
                    let other_now = spawn!(sum(In(&other)));
                    assert_eq!(other_now.await.unwrap(), sum_of(1));
                    let read = chunk.read().await.unwrap();
                    assert_eq!((read.len(), read.iter().all(|&x| x == words as u64)), (words, true));
                    drop(read);
                }
                // By a guard.
                *chunk.write().await.unwrap() = vec![3; 20_000];
                assert_eq!(chunk.read().await.unwrap().len(), 20_000);
                // More than the budget: it can be made, but no task gets it again.
                spawn!((|x: &mut Data| *x = vec![0; 40_000])(Out(&chunk))).await.unwrap();
                let error = spawn!(sum(In(&chunk))).await.unwrap_err();
                let Error::TooLarge { bytes, budget, .. } = error else { panic!("{error:?}") };
                assert_eq!((bytes, budget), (320_000, 256 * KIB));
                // A guard makes it smaller.
                chunk.write().await.unwrap().truncate(100);
                chunk.write().await.unwrap().shrink_to_fit();
                assert_eq!(spawn!(sum(In(&chunk))).await.unwrap(), 0);
                until("it counts as it is", || rt.memory().resident <= 65 * KIB);
            });
            assert_gone(&rt, &store);
        });
    }
}

// Processes that are killed.

const CHILD: &str = "DAGGER_TESTS_SPILLING_CHILD";

/// In the child: spills into the folder, says so, and waits for its end.
fn spilling_child(folder: &str) -> ! {
    let builder = Runtime::builder().threads(2).pin(false).memory_limit(128 * KIB).eviction(Eviction::Lru);
    let rt = builder.spill_folder(folder).build().unwrap();
    let chunks = spilled(&rt, 6);
    println!("SPILLED");
    let mut line = String::new();
    let _ = io::stdin().read_line(&mut line);
    // Nobody has touched what it needs.
    rt.block_on(async {
        for (i, chunk) in (0..).zip(&chunks) {
            assert_eq!(spawn!(sum(In(chunk))).await.unwrap(), sum_of(i));
        }
    });
    println!("GOOD");
    std::process::exit(0)
}

#[test]
fn what_a_killed_process_leaves_is_swept_and_what_a_living_one_has_is_not() {
    const NAME: &str = "what_a_killed_process_leaves_is_swept_and_what_a_living_one_has_is_not";
    if let Ok(folder) = std::env::var(CHILD) {
        spilling_child(&folder);
    }
    watched(|| {
        let scratch = Scratch::new("store-faults");
        let child = || {
            let own = std::env::current_exe().unwrap();
            let mut command = Command::new(own);
            command.args(["--exact", NAME, "--nocapture"]).env(CHILD, &scratch.0);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut out = BufReader::new(child.stdout.take().unwrap());
            wait_line(&mut out, "SPILLED");
            (child, out)
        };
        let (mut killed, _) = child();
        let left = entries(&scratch.0);
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(entries(&left[0]).len() > 2, "objects and a lock: {:?}", entries(&left[0]));
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert_eq!(entries(&scratch.0), left, "nobody has removed it yet");
        // The next one removes it, and the one after that leaves the living alone.
        let (mut living, mut out) = child();
        let now = entries(&scratch.0);
        assert_eq!(now.len(), 1, "{now:?}");
        assert_ne!(now, left);
        let builder =
            Runtime::builder().threads(2).pin(false).memory_limit(128 * KIB).eviction(Eviction::Lru);
        let rt = builder.spill_folder(&scratch.0).build().unwrap();
        let chunks = spilled(&rt, 6);
        assert_eq!(entries(&scratch.0).len(), 2);
        drop(chunks);
        drop(rt);
        until("only the living one is left", || entries(&scratch.0) == now);
        living.stdin.take().unwrap().write_all(b"go\n").unwrap();
        wait_line(&mut out, "GOOD");
        assert!(living.wait().unwrap().success());
    });
}

#[track_caller]
fn wait_line(out: &mut impl BufRead, expected: &str) {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "the child ended without {expected}");
        if line.trim_end().ends_with(expected) {
            return;
        }
    }
}

#[test]
fn values_that_tasks_give_are_counted_and_dropped_once() {
    static ITEMS: std::sync::LazyLock<Census> = std::sync::LazyLock::new(Census::new);
    struct Counted(Data, #[allow(dead_code, reason = "it counts")] Item);
    impl Spill for Counted {
        fn bytes(&self) -> usize {
            self.0.capacity() * 8
        }
        fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
            self.0.spill(to)
        }
        fn reload(from: &mut dyn Read) -> io::Result<Self> {
            Ok(Counted(Spill::reload(from)?, ITEMS.item()))
        }
    }
    watched(|| {
        register::<Counted>();
        let store = Faulty::in_memory();
        let rt = on(&store, 8, 8 * KIB);
        rt.block_on(async {
            for round in 0..40 {
                let make = move |i: u64| Counted(vec![round * 100 + i; 600], ITEMS.item());
                let chunks: Vec<_> = (0..30).map(|i| Chunk::from_task(spawn!((make)(i)))).collect();
                for (i, chunk) in (0..).zip(&chunks) {
                    let first = spawn!((|x: &Counted| x.0[7])(In(chunk)));
                    assert_eq!(first.await.unwrap(), round * 100 + i);
                }
            }
        });
        assert_gone(&rt, &store);
        until("each value is dropped once", || ITEMS.made() == ITEMS.dropped());
    });
}
