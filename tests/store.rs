//! Data larger than memory: what leaves, what comes back, what waits, and what is told.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(clippy::ptr_arg, reason = "what is in the chunk")]

use dagger_async::prelude::*;
use dagger_async::store::{Eviction, Spill, register};
use dagger_tests::{Gate, Scratch, until, watched};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

const KIB: u64 = 1 << 10;

fn limited(workers: usize, bytes: u64) -> Arc<Runtime> {
    Arc::new(Runtime::builder().threads(workers).pin(false).memory_limit(bytes).build().unwrap())
}

/// A vector of 64 KiB that says which one it is.
fn block(i: u64) -> Vec<u64> {
    (0..8192).map(|k| i * 100_000 + k).collect()
}

fn add(x: &mut Vec<u64>, n: u64) {
    x.iter_mut().for_each(|x| *x += n);
}

fn add_to(sum: &mut Vec<u64>, x: &Vec<u64>) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}

#[test]
fn many_times_the_budget_gives_what_memory_gives() {
    for workers in [1, 2, 8] {
        for eviction in [Eviction::NextUse, Eviction::Lru, Eviction::Mru] {
            watched(move || {
                let rt = Runtime::builder().threads(workers).pin(false).memory_limit(512 * KIB);
                let rt = rt.eviction(eviction).build().unwrap();
                rt.block_on(async {
                    let chunks: Vec<_> = (0..64).map(|i| Chunk::new(block(i))).collect();
                    for round in 0..3 {
                        datadeps(async {
                            for chunk in &chunks {
                                spawn!(add(InOut(chunk), round));
                            }
                            for i in 1..64 {
                                spawn!(add_to(InOut(&chunks[i]), In(&chunks[i - 1])));
                            }
                        })
                        .await
                        .unwrap();
                    }
                    let mut expected: Vec<Vec<u64>> = (0..64).map(block).collect();
                    for round in 0..3 {
                        expected.iter_mut().for_each(|x| add(x, round));
                        for i in 1..64 {
                            let (before, rest) = expected.split_at_mut(i);
                            add_to(&mut rest[0], &before[i - 1]);
                        }
                    }
                    for (chunk, expected) in chunks.iter().zip(&expected) {
                        assert_eq!(*chunk.read().await.unwrap(), *expected);
                    }
                    let memory = rt.memory();
                    assert!(memory.evictions > 64 && memory.misses > 64, "{memory:?}");
                    assert!(memory.resident <= memory.limit, "{memory:?}");
                    assert_eq!((memory.pinned, memory.reserved, memory.over_budget), (0, 0, 0), "{memory:?}");
                    drop(chunks);
                    // One may be on its way to the disk still.
                    until("all chunks are gone", || rt.memory().chunks == 0);
                    let memory = rt.memory();
                    assert_eq!((memory.resident, memory.spilled), (0, 0), "{memory:?}");
                });
            });
        }
    }
}

fn child(c: &mut Vec<u64>, d: &Vec<u64>) {
    c[0] += d[1];
}

async fn parent(a: &mut Vec<u64>, b: &Vec<u64>, c: Chunk<Vec<u64>>, d: Chunk<Vec<u64>>) {
    spawn!(child(InOut(&c), In(&d))).await.unwrap();
    a[0] += b[0];
}

#[test]
fn a_parent_that_waits_for_its_child_is_let_in_over_the_budget() {
    for workers in [1, 2] {
        watched(move || {
            let rt = limited(workers, 160 * KIB);
            rt.block_on(async {
                let chunks: Vec<_> = (0..4).map(|i| Chunk::new(block(i))).collect();
                // The parent has two of them while its child needs the others.
                let (a, b, c, d) = (&chunks[0], &chunks[1], chunks[2].clone(), chunks[3].clone());
                let parent = spawn!(async parent(InOut(a), In(b), c, d));
                parent.await.unwrap();
                assert_eq!(chunks[2].read().await.unwrap()[0], 500_001);
                assert_eq!(chunks[0].read().await.unwrap()[0], 100_000);
                assert!(rt.memory().over_budget > 0, "{:?}", rt.memory());
            });
        });
    }
}

#[test]
fn a_task_that_can_never_fit_says_so() {
    watched(|| {
        let rt = limited(2, 100 * KIB);
        rt.block_on(async {
            let (a, b) = (Chunk::new(block(1)), Chunk::new(block(2)));
            let sum = spawn!(add_to(InOut(&a), In(&b)));
            let error = sum.await.unwrap_err();
            let Error::TooLarge { bytes, budget, .. } = &error else { panic!("{error:?}") };
            assert_eq!((*bytes, *budget), (128 * KIB, 100 * KIB));
            assert!(error.to_string().contains("memory_limit"), "{error}");
            // It was to write: what it should have left is not there.
            assert!(matches!(a.read().await, Err(Error::Poisoned { .. })));
            assert_eq!(*b.read().await.unwrap(), block(2));
            // What one task declares counts too.
            let declared = spawn!((|x: &Vec<u64>| x[0])(&b); memory = 64 * KIB);
            assert!(matches!(declared.await, Err(Error::TooLarge { bytes: 131_072, .. })));
            let alone = spawn!((|| 1)(); memory = 101 * KIB);
            assert!(matches!(alone.await, Err(Error::TooLarge { .. })));
            assert_eq!(spawn!((|| 1)(); memory = 99 * KIB).await.unwrap(), 1);
            // By its block, and by that of its parent, whether or not that refers to others.
            for more in [Options::new(), Options::new().cancel(CancelToken::new())] {
                with_options(more.memory(40 * KIB), async {
                    let family = spawn!((|| spawn!((|x: &Vec<u64>| x[0])(In(&Chunk::new(block(3))))))());
                    let child = family.await.unwrap();
                    assert!(matches!(child.await, Err(Error::TooLarge { bytes: 106_496, .. })));
                })
                .await;
            }
            assert_eq!(rt.memory().reserved, 0);
        });
    });
}

/// A type that becomes known when its first value is made, as tiles do.
struct Late(Vec<u64>);

impl Spill for Late {
    fn bytes(&self) -> usize {
        self.0.bytes()
    }
    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        self.0.spill(to)
    }
    fn reload(from: &mut dyn Read) -> io::Result<Self> {
        Vec::reload(from).map(Late)
    }
}

#[test]
fn chunks_whose_type_becomes_known_with_their_values_count_too() {
    watched(|| {
        let rt = limited(2, 256 * KIB);
        rt.block_on(async {
            let gate = Arc::new(Gate::new());
            let made: Vec<_> = (0..16)
                .map(|i| {
                    let gate = gate.clone();
                    let make = move || {
                        gate.block();
                        register::<Late>();
                        Late(block(i))
                    };
                    Chunk::from_task(spawn!((make)(); blocking = true))
                })
                .collect();
            gate.open();
            for (i, chunk) in (0..).zip(&made) {
                spawn!((|x: &mut Late, i: u64| assert_eq!(x.0[1], i * 100_000 + 1))(InOut(chunk), i))
                    .await
                    .unwrap();
            }
            let memory = rt.memory();
            assert!(
                memory.chunks == 16 && memory.resident <= 256 * KIB && memory.evictions >= 12,
                "{memory:?}"
            );
        });
    });
}

#[test]
fn a_hundred_thousand_chunks_leave_nothing_behind() {
    fn objects(folder: &Path) -> usize {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| if path.is_dir() { objects(&path) } else { usize::from(!path.ends_with("lock")) })
            .sum()
    }
    watched(|| {
        let scratch = Scratch::new("store");
        let rt = Runtime::builder().threads(2).memory_limit(640 * KIB).spill_folder(&scratch.0);
        let rt = rt.build().unwrap();
        rt.block_on(async {
            let mut most = 0;
            for round in 0..1000 {
                let chunks: Vec<_> = (0..100).map(|i| Chunk::new(vec![i; 1024])).collect();
                for chunk in &chunks {
                    spawn!((|x: &mut Vec<u64>| x[0] += 1)(InOut(chunk)));
                }
                if round % 100 == 0 {
                    rt.idle().await;
                    most = most.max(objects(&scratch.0));
                }
            }
            assert!(most > 5, "{most}");
            rt.idle().await;
            until("all chunks are gone", || rt.memory().chunks == 0);
            let memory = rt.memory();
            assert_eq!((memory.resident, memory.spilled), (0, 0), "{memory:?}");
            assert!(memory.evictions > 5_000, "{memory:?}");
        });
        // Objects are deleted beside the program.
        until("all are deleted", || objects(&scratch.0) == 0);
    });
}

#[test]
fn guards_take_and_chunks_go_back_and_forth() {
    watched(|| {
        let rt = limited(2, 128 * KIB);
        rt.block_on(async {
            let chunks: Vec<_> = (0..16).map(|i| Chunk::new(block(i))).collect();
            for (i, chunk) in chunks.iter().enumerate() {
                assert_eq!(chunk.read().await.unwrap()[1], i as u64 * 100_000 + 1);
                chunk.write().await.unwrap()[1] = i as u64;
            }
            for (i, chunk) in chunks.iter().enumerate() {
                assert_eq!(chunk.slice(1..2).read().await.unwrap()[0], i as u64);
            }
            for (i, chunk) in chunks.into_iter().enumerate() {
                assert_eq!(chunk.into_inner().await.unwrap()[1], i as u64);
            }
            until("all chunks are gone", || rt.memory().chunks == 0);
            let memory = rt.memory();
            assert_eq!((memory.resident, memory.spilled), (0, 0), "{memory:?}");
        });
    });
}

#[test]
fn a_task_of_another_runtime_gets_what_was_spilled() {
    watched(|| {
        let (one, other) = (limited(2, 128 * KIB), limited(2, 1024 * KIB));
        let chunks: Vec<_> = one.block_on(async { (0..16).map(|i| Chunk::new(block(i))).collect() });
        one.block_on(async { spawn!(add(InOut(&chunks[0]), 1)).await.unwrap() });
        other.block_on(async {
            for chunk in &chunks {
                spawn!(add(InOut(chunk), 7)).await.unwrap();
            }
        });
        drop(one);
        other.block_on(async {
            for (i, chunk) in chunks.iter().enumerate() {
                assert_eq!(chunk.read().await.unwrap()[3], i as u64 * 100_000 + 10 + u64::from(i == 0));
            }
        });
    });
}

#[test]
fn a_lazy_value_is_made_when_it_is_needed_and_again_while_nobody_has_written_to_it() {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    watched(|| {
        let rt = limited(2, 128 * KIB);
        rt.block_on(async {
            let made = Arc::new(AtomicU64::new(0));
            let chunks: Vec<_> = (0..8)
                .map(|i| {
                    let made = made.clone();
                    Chunk::lazy(64 * KIB, move || {
                        made.fetch_add(1, SeqCst);
                        block(i)
                    })
                })
                .collect();
            assert_eq!((made.load(SeqCst), rt.memory().resident), (0, 0));
            for _ in 0..2 {
                for (i, chunk) in chunks.iter().enumerate() {
                    let first = spawn!((|x: &Vec<u64>| x[1])(chunk));
                    assert_eq!(first.await.unwrap(), i as u64 * 100_000 + 1);
                }
            }
            assert_eq!(made.load(SeqCst), 16);
            assert_eq!(rt.memory().bytes_out, 0);
            spawn!(add(InOut(&chunks[0]), 1)).await.unwrap();
            for chunk in &chunks {
                chunk.read().await.unwrap();
            }
            let so_far = made.load(SeqCst);
            assert_eq!(chunks[0].read().await.unwrap()[1], 2);
            assert_eq!(made.load(SeqCst), so_far);
            assert_eq!(rt.memory().bytes_out, rt.memory().spilled);
            let refused: Chunk<Vec<u64>> = Chunk::lazy(64 * KIB, || panic!("no such value"));
            let error = spawn!((|x: &Vec<u64>| x[0])(&refused)).await.unwrap_err();
            assert!(
                matches!(error, Error::Reload { .. }) && error.to_string().contains("no such value"),
                "{error}"
            );
        });
    });
}

#[test]
fn who_fills_chunks_in_a_loop_does_not_outrun_the_disk() {
    watched(|| {
        let rt = limited(2, 256 * KIB);
        rt.block_on(async {
            let chunks: Vec<_> = (0..200).map(|i| Chunk::new(block(i))).collect();
            assert!(rt.memory().peak <= 256 * KIB + 64 * KIB, "{:?}", rt.memory());
            for (i, chunk) in chunks.iter().enumerate() {
                assert_eq!(chunk.read().await.unwrap()[1], i as u64 * 100_000 + 1);
            }
        });
    });
}

#[test]
fn files_are_chunks_and_chunks_become_files() {
    use dagger_async::store::{Npy, Raw};
    watched(|| {
        let folder = std::env::temp_dir().join(format!("dagger-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let rt = limited(2, 128 * KIB);
        rt.block_on(async {
            let (npy, raw) = (folder.join("a.npy"), folder.join("a.raw"));
            let chunk = Chunk::new(block(3));
            // In order with the tasks around it.
            spawn!(add(InOut(&chunk), 1));
            let written = chunk.to_file(&npy, Npy);
            spawn!(add(InOut(&chunk), 1));
            written.await.unwrap();
            chunk.to_file(&raw, Raw).await.unwrap();
            assert_eq!(std::fs::metadata(&raw).unwrap().len(), 64 * KIB);
            let (one, other) =
                (Chunk::<Vec<u64>>::from_file(&npy, Npy), Chunk::from_temporary_file(&raw, Raw));
            assert_eq!(one.read().await.unwrap()[0], 300_001);
            spawn!(add_to(InOut(&other), In(&one))).await.unwrap();
            assert_eq!(other.read().await.unwrap()[1], 300_002 + 300_003);
            drop((one, other));
            // The one stays, the other has gone with its chunk.
            assert!(npy.exists() && !raw.exists());
            let missing: Chunk<Vec<u64>> = Chunk::from_file(&raw, Raw);
            let error = spawn!((|x: &Vec<u64>| x[0])(&missing)).await.unwrap_err();
            assert!(matches!(&error, Error::Reload { path, .. } if path.ends_with("a.raw")), "{error:?}");
            let other_type: Chunk<Vec<f32>> = Chunk::from_file(&npy, Npy);
            let error = other_type.read().await.map(drop).unwrap_err();
            assert!(matches!(&error, Error::Reload { .. }) && error.to_string().contains("f32"), "{error}");
            let nowhere = folder.join("nowhere/a.npy");
            let error = chunk.to_file(&nowhere, Npy).await.unwrap_err();
            assert!(
                matches!(&error, Error::Spill { .. }) && error.to_string().contains("nowhere"),
                "{error}"
            );
            let left: Vec<_> =
                std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
            assert_eq!(left, ["a.npy"]);
        });
        std::fs::remove_dir_all(&folder).unwrap();
    });
}
