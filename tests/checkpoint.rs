//! Results that outlive the process: what is kept and what is not, what is found, what is skipped, what is told.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "checkpoint/killed.rs"]
mod killed;
#[path = "checkpoint/support.rs"]
mod support;

use dagger_async::prelude::*;
use dagger_async::store::register;
use dagger_tests::{Failure, Gate, keep_log, logged, watched};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use support::{Folder, Place, Slow, Unique};

/// Counts the bodies that run.
#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn count(&self) {
        self.0.fetch_add(1, SeqCst);
    }
    /// How many there were since the last look.
    fn take(&self) -> usize {
        self.0.swap(0, SeqCst)
    }
}

fn numbers(runs: Runs, from: u64) -> Vec<u64> {
    runs.count();
    (from..from + 100).collect()
}

fn parsed(runs: Runs, text: &str) -> Result<u64, std::num::ParseIntError> {
    runs.count();
    text.parse()
}

async fn later(runs: Runs, from: u64) -> Vec<u64> {
    tokio::task::yield_now().await;
    numbers(runs, from)
}

async fn parsed_later(runs: Runs, text: &'static str) -> Result<u64, std::num::ParseIntError> {
    tokio::task::yield_now().await;
    parsed(runs, text)
}

/// The whole text of an `Error::Options`.
fn options_text(error: Error) -> String {
    assert!(matches!(error, Error::Options { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn every_kind_of_body_is_restored_in_the_next_run() {
    for place in Place::all() {
        watched(move || {
            let runs = Runs::default();
            for run in 0..3 {
                let rt = place.run(2);
                let runs = runs.clone();
                rt.block_on(async {
                    let r = || runs.clone();
                    let a = spawn!(numbers(r(), 1); checkpoint = "sync");
                    let b = spawn!(parsed(r(), "42")?; checkpoint = "try");
                    let c = spawn!(async later(r(), 2); checkpoint = "async");
                    let d = spawn!(async parsed_later(r(), "43")?; checkpoint = "async try");
                    let e = Options::new().checkpoint("future").spawn(later(r(), 3));
                    let f = Options::new().checkpoint("try future").try_spawn(parsed_later(r(), "44"));
                    let g = spawn!(numbers(r(), 4); checkpoint = "blocking", blocking = true, priority = 3);
                    let h = spawn!((|runs: Runs| { runs.count(); "text".to_owned() })(r()); checkpoint = "closure");
                    let tried = Arc::new(AtomicBool::new(false));
                    let i = spawn!((|runs: Runs, tried: Arc<AtomicBool>| {
                        assert!(tried.swap(true, SeqCst), "the first attempt");
                        numbers(runs, 5)
                    })(r(), tried); retries = 1, checkpoint = "retries");
                    let j = spawn!((|runs: Runs, a: &Vec<u64>| { runs.count(); a.iter().sum::<u64>() })(r(), &a); checkpoint = "sum");
                    let k = spawn!((|runs: Runs| runs.count())(r()); checkpoint = "unit");
                    assert_eq!(a.await.unwrap(), (1..101).collect::<Vec<_>>());
                    assert_eq!(c.await.unwrap(), (2..102).collect::<Vec<_>>());
                    assert_eq!(e.await.unwrap(), (3..103).collect::<Vec<_>>());
                    assert_eq!(g.await.unwrap(), (4..104).collect::<Vec<_>>());
                    assert_eq!(i.await.unwrap(), (5..105).collect::<Vec<_>>());
                    assert_eq!((b.await.unwrap(), d.await.unwrap(), f.await.unwrap()), (42, 43, 44));
                    assert_eq!((h.await.unwrap().as_str(), j.await.unwrap()), ("text", 5050));
                    k.await.unwrap();
                    rt.idle().await;
                });
                let counts = rt.checkpoints();
                let expected = if run == 0 { (0, 0, 11, 0) } else { (11, 11, 0, 0) };
                assert_eq!((counts.found, counts.restored, counts.saved, counts.failed), expected);
                assert_eq!(runs.take(), if run == 0 { 11 } else { 0 });
            }
        });
    }
}

#[test]
fn the_same_runtime_finds_what_it_has_saved_itself() {
    keep_log();
    for place in Place::all() {
        watched(move || {
            let (rt, runs) = (place.run(2), Runs::default());
            rt.block_on(async {
                for round in 0..3 {
                    datadeps(async {
                        for i in 0..10 {
                            spawn!(numbers(runs.clone(), i); checkpoint = format!("itself/{i}"));
                        }
                    })
                    .await
                    .unwrap();
                    assert_eq!(runs.take(), if round == 0 { 10 } else { 0 });
                }
            });
            let text = "0 checkpoints found, 20 tasks restored, 10 saved";
            assert_eq!(rt.checkpoints().to_string(), text);
            // Once for each runtime, in case that was not meant.
            let said = logged("the key `itself/0` is used for the second time").len();
            assert_eq!(said, if place.is_local() { 1 } else { 2 });
        });
    }
}

#[test]
fn a_restored_task_has_its_name_and_its_place() {
    watched(|| {
        let place = Place::local();
        let mut names = Vec::new();
        for _ in 0..2 {
            let rt = place.run(1);
            names.push(rt.block_on(async {
                let a = spawn!(numbers(Runs::default(), 1); checkpoint = "a");
                let b = spawn!(numbers(Runs::default(), 1); checkpoint = "b", name = "bee");
                let c = Options::new().checkpoint("c").spawn(later(Runs::default(), 1));
                let options = Options::new().name("from the block");
                let d = with_options(options, async {
                    Options::new().checkpoint("d").spawn(later(Runs::default(), 1))
                });
                let d = d.await;
                let names = [&a, &b, &c, &d].map(|task| task.name().to_owned());
                rt.idle().await;
                names
            }));
            assert_eq!(rt.checkpoints().restored, if names.len() == 1 { 0 } else { 4 });
        }
        assert_eq!(names[0], names[1]);
        assert_eq!(names[1][..2], ["numbers", "bee"]);
        assert_eq!(names[1][3], "from the block");
    });
}

#[test]
fn another_version_is_another_result() {
    for place in Place::all() {
        watched(move || {
            let runs = Runs::default();
            let go = |version: &str, inner: Option<&str>, of_task: Option<&str>| {
                let rt = place.builder(2).checkpoint_version(version).build().unwrap();
                let with = |version: Option<&str>| {
                    version.map_or(Options::new(), |v| Options::new().checkpoint_version(v))
                };
                rt.block_on(async {
                    let options = with(of_task);
                    let task = with_options(with(inner), async {
                        spawn!(numbers(runs.clone(), 7); checkpoint = "x", ..options)
                    });
                    assert_eq!(task.await.await.unwrap()[0], 7);
                    rt.idle().await;
                });
                runs.take()
            };
            assert_eq!(go("1", None, None), 1);
            assert_eq!(go("1", None, None), 0);
            assert_eq!(go("2", None, None), 1);
            assert_eq!(go("", None, None), 1);
            assert_eq!(go("3", Some("2"), None), 0); // Inherited.
            assert_eq!(go("3", Some("4"), Some("1")), 0); // The inner one wins.
            assert_eq!(go("3", Some("4"), None), 1);
            assert_eq!(go("4", None, None), 0);
        });
    }
}

/// A child inherits the version of its parent's block, but not the key of its parent.
#[test]
fn children_inherit_the_version_and_not_the_key() {
    watched(|| {
        let (place, runs) = (Place::local(), Runs::default());
        for expected in [2, 0] {
            let rt = place.run(2);
            rt.block_on(async {
                let options = Options::new().checkpoint_version("child");
                let parent = with_options(options, async {
                    spawn!(async (async |runs: Runs| {
                        spawn!(numbers(runs.clone(), 1); checkpoint = "inner").await.unwrap();
                        spawn!((|runs: Runs| runs.count())(runs)).await.unwrap();
                    })(runs.clone()); checkpoint = "outer")
                });
                parent.await.await.unwrap();
                rt.idle().await;
            });
            assert_eq!(runs.take(), expected);
        }
        assert_eq!(
            place.folder().files(),
            ["checkpoints/vchild/inner.ckpt", "checkpoints/vchild/outer.ckpt"]
        );
    });
}

#[test]
fn a_result_of_another_type_is_not_used() {
    keep_log();
    for place in Place::all() {
        watched(move || {
            let rt = place.run(1);
            rt.block_on(async { spawn!((|| 5u64)(); checkpoint = "retyped").await }).unwrap();
            rt.block_on(rt.idle());
            let rt = place.run(1);
            let again = rt.block_on(async { spawn!((|| 6i64)(); checkpoint = "retyped").await });
            if place.is_local() {
                assert_eq!(again.unwrap(), 6);
                rt.block_on(rt.idle());
                assert_eq!(rt.checkpoints().saved, 1);
                assert!(logged("is a `u64`, and its task gives a `i64` now").len() == 1);
                let rt = place.run(1);
                assert_eq!(
                    rt.block_on(async { spawn!((|| 7i64)(); checkpoint = "retyped").await }).unwrap(),
                    6
                );
            } else {
                // Its names are all that is known before it is read.
                let error = again.unwrap_err();
                assert!(matches!(error, Error::Reload { .. }), "{error:?}");
                for part in [
                    "checkpoints/v/retyped.ckpt",
                    "it is a `u64`",
                    "not a `i64`",
                    "delete it to have the task run again",
                ] {
                    assert!(error.to_string().contains(part), "{error}");
                }
            }
        });
    }
}

/// One saved vector, then `damage` to its file, then another run.
fn damaged(
    damage: impl FnOnce(&Folder, Vec<u8>),
) -> (Result<Vec<u64>, Error>, usize, dagger_async::store::Checkpoints, Place) {
    let (place, runs) = (Place::local(), Runs::default());
    let go = || {
        let rt = place.run(1);
        let result = rt.block_on(async { spawn!(numbers(runs.clone(), 1); checkpoint = "it").await });
        rt.block_on(rt.idle());
        (result, rt.checkpoints())
    };
    go().0.unwrap();
    let bytes = std::fs::read(place.folder().file("v/it.ckpt")).unwrap();
    runs.take();
    damage(place.folder(), bytes);
    let (result, counts) = go();
    (result, runs.take(), counts, place)
}

#[test]
fn what_is_not_whole_or_not_ours_is_not_read() {
    keep_log();
    watched(|| {
        fn put(folder: &Folder, bytes: &[u8]) {
            std::fs::write(folder.file("v/it.ckpt"), bytes).unwrap();
        }
        type Damage = Box<dyn FnOnce(&Folder, Vec<u8>)>;
        let damages: Vec<(&str, Damage)> = vec![
            ("empty", Box::new(|folder, _| put(folder, &[]))),
            ("cut by one byte", Box::new(|folder, bytes| put(folder, &bytes[..bytes.len() - 1]))),
            ("cut in the middle", Box::new(|folder, bytes| put(folder, &bytes[..bytes.len() / 2]))),
            ("cut in the head", Box::new(|folder, bytes| put(folder, &bytes[..20]))),
            ("longer", Box::new(|folder, bytes| put(folder, &[bytes, vec![0]].concat()))),
            (
                "foreign",
                Box::new(|folder, _| {
                    put(folder, b"what somebody else has written here, long enough to be one")
                }),
            ),
            ("zeros", Box::new(|folder, bytes| put(folder, &vec![0; bytes.len()]))),
            (
                "altered in its head",
                Box::new(|folder, mut bytes| {
                    bytes[30] ^= 1;
                    put(folder, &bytes)
                }),
            ),
            (
                "altered at its end",
                Box::new(|folder, mut bytes| {
                    *bytes.last_mut().unwrap() ^= 1;
                    put(folder, &bytes)
                }),
            ),
            (
                "of another key",
                Box::new(|folder, _| {
                    let rt = Runtime::builder().threads(1).checkpoint_to(
                        object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap(),
                    );
                    let rt = rt.build().unwrap();
                    rt.block_on(async { spawn!((|| vec![9u64])(); checkpoint = "other").await }).unwrap();
                    rt.block_on(rt.idle());
                    std::fs::rename(folder.file("v/other.ckpt"), folder.file("v/it.ckpt")).unwrap();
                }),
            ),
            ("gone", Box::new(|folder, _| std::fs::remove_file(folder.file("v/it.ckpt")).unwrap())),
        ];
        for (what, damage) in damages {
            let is_there = what != "gone";
            let (result, runs, counts, place) = damaged(damage);
            assert_eq!(result.unwrap(), (1..101).collect::<Vec<_>>(), "{what}");
            assert_eq!((runs, counts.found, counts.saved), (1, 0, 1), "{what}");
            let path = place.folder().file("v/it.ckpt");
            let lines = logged(path.to_str().unwrap());
            assert_eq!(lines.len(), usize::from(is_there), "{what}: {lines:?}");
            assert!(
                lines.iter().all(|line| line.contains("no usable checkpoint, its task runs again")),
                "{lines:?}"
            );
            // It was replaced by a good one.
            let rt = place.run(1);
            assert_eq!(
                rt.block_on(async { spawn!(numbers(Runs::default(), 0); checkpoint = "it").await }).unwrap()
                    [0],
                1
            );
        }
        // What a killed process has left half written, beside things that are none of ours.
        let (result, runs, counts, place) = damaged(|folder, bytes| {
            std::fs::write(folder.file("v/it.ckpt.0123456789abcdef.dagger-part"), &bytes[..50]).unwrap();
            std::fs::write(folder.file("v/README"), "mine").unwrap();
            std::fs::write(folder.file("notes.ckpt"), "mine").unwrap();
        });
        assert_eq!((result.unwrap().len(), runs, counts.found), (100, 0, 1));
        assert_eq!(
            place.folder().files(),
            ["checkpoints/notes.ckpt", "checkpoints/v/README", "checkpoints/v/it.ckpt"]
        );
    });
}

#[test]
fn what_is_altered_behind_its_head_fails_the_task_with_its_path() {
    watched(|| {
        let (result, runs, counts, place) = damaged(|folder, mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(folder.file("v/it.ckpt"), bytes).unwrap();
        });
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Reload { .. }), "{error:?}");
        let path = place.folder().file("v/it.ckpt");
        for part in [
            "`numbers`",
            "did not run: the checkpoint `it` could not be read back from",
            path.to_str().unwrap(),
            "checksum",
            "delete it to have the task run again",
        ] {
            assert!(error.to_string().contains(part), "no `{part}` in {error}");
        }
        assert_eq!(error.root().unwrap().name(), "numbers");
        assert_eq!((runs, counts.restored), (0, 0));
        // And so it is, in a block too.
        let rt = place.run(1);
        let in_block =
            rt.block_on(datadeps(async { drop(spawn!(numbers(Runs::default(), 1); checkpoint = "it")) }));
        assert!(matches!(in_block, Err(Error::Reload { .. })));
        std::fs::remove_file(path).unwrap();
        let rt = place.run(1);
        assert_eq!(
            rt.block_on(async { spawn!(numbers(Runs::default(), 1); checkpoint = "it").await })
                .unwrap()
                .len(),
            100
        );
    });
}

#[test]
fn what_goes_while_it_is_needed_says_so() {
    watched(|| {
        let place = Place::local();
        let rt = place.run(1);
        rt.block_on(async {
            spawn!(numbers(Runs::default(), 1); checkpoint = "it", checkpoint_version = "7").await
        })
        .unwrap();
        rt.block_on(rt.idle());
        let rt = place.run(1);
        std::fs::remove_file(place.folder().file("v7/it.ckpt")).unwrap();
        let error = rt.block_on(async {
            spawn!(numbers(Runs::default(), 1); checkpoint = "it", checkpoint_version = "7").await
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the checkpoint `it` of version `7` could not be read back"), "{error}");
        assert!(
            error.contains("it was there when the runtime was built; the next run computes it again"),
            "{error}"
        );
    });
}

/// Nobody has told how it is written down.
#[derive(Clone)]
struct Unknown;

#[test]
fn what_cannot_have_a_checkpoint_says_why() {
    for place in Place::all() {
        watched(move || {
            let rt = place.run(2);
            rt.block_on(async {
                let error = options_text(spawn!((|| 1u64)(); checkpoint = "").await.unwrap_err());
                assert!(error.contains("an empty key names no task"), "{error}");

                let error = options_text(spawn!((|| Unknown)(); checkpoint = "unknown").await.err().unwrap());
                assert!(error.contains("store::register::<checkpoint::Unknown>()"), "{error}");
                assert!(error.contains("implement `store::Spill` for it"), "{error}");

                let chunk = Chunk::new(vec![1u64]);
                for error in [
                    spawn!((|x: &mut Vec<u64>| x[0] = 2)(InOut(&chunk)); checkpoint = "writes").await.unwrap_err(),
                    spawn!((|x: &mut [u64]| x[0] = 2)(Out(&chunk.slice(..))); checkpoint = "writes").await.unwrap_err(),
                    spawn!((|(x,): (&mut [u64],)| x[0] = 2)(Deps(&chunk, (InOut(dagger_async::region::slice(..)),))); checkpoint = "writes").await.unwrap_err(),
                    spawn!(async (async |x: &mut Vec<u64>| x[0] = 2)(InOut(&chunk)); checkpoint = "writes").await.unwrap_err(),
                    spawn!((|x: &mut Vec<u64>| { x[0] = 2; Ok::<(), Failure>(()) })(Out(&chunk))?; retries = 2, checkpoint = "writes").await.unwrap_err(),
                ] {
                    let error = options_text(error);
                    assert!(error.contains("`Chunk::from_task`"), "{error}");
                    assert!(error.contains("`checkpoint = \"writes\"`"), "{error}");
                }
                // Reading is fine.
                let chunk = Chunk::new(vec![1u64]);
                assert_eq!(spawn!((|x: &Vec<u64>| x[0])(In(&chunk)); checkpoint = "reads").await.unwrap(), 1);

                let version = "v".repeat(300);
                let error = spawn!((|| 1u64)(); checkpoint = "x", checkpoint_version = version.as_str()).await.unwrap_err();
                let error = options_text(error);
                assert!(error.contains("a version has at most about 190 bytes"), "{error}");
                rt.idle().await;
            });
            assert_eq!(rt.checkpoints().saved, 1);

            let error = place.builder(1).checkpoint_version("v".repeat(300)).build().unwrap_err();
            assert!(options_text(error).contains("a version has at most about 190 bytes"));
        });
    }
    watched(|| {
        let rt = Runtime::builder().threads(1).pin(false).build().unwrap();
        let error = rt.block_on(async { spawn!((|| 1u64)(); checkpoint = "homeless").await }).unwrap_err();
        let error = options_text(error);
        assert!(error.contains("`checkpoint = \"homeless\"` needs a store"), "{error}");
        assert!(error.contains("`Builder::checkpoint_to`"), "{error}");
        assert_eq!(rt.checkpoints(), dagger_async::store::Checkpoints::default());
        let error = options_text(rt.block_on(rt.remove_checkpoints(|_| true)).unwrap_err());
        assert!(error.contains("the runtime has no `Builder::checkpoint_to`"), "{error}");
    });
    watched(|| {
        let store = Slow::new(Gate::opened());
        store.hides.store(true, SeqCst);
        let error = Runtime::builder().threads(1).checkpoint_to(store).build().unwrap_err();
        let error = options_text(error);
        assert!(error.contains("`checkpoint_to`: the store cannot be listed: checkpoints:"), "{error}");
    });
}

#[test]
fn a_key_names_one_task() {
    for place in Place::all() {
        watched(move || {
            let runs = Runs::default();
            for _ in 0..2 {
                let rt = place.run(2);
                rt.block_on(async {
                    let gate = Gate::new();
                    let wait = |gate: Gate, runs: Runs| async move {
                        gate.pass().await;
                        numbers(runs, 1)
                    };
                    // The same place, while the first is not over. (In the second run that would be read, so it is held back.)
                    let two = bulk(async {
                        let spawn_one =
                            |_| Options::new().checkpoint("same").spawn(wait(gate.clone(), runs.clone()));
                        [0, 1].map(spawn_one)
                    });
                    let [first, second] = two.await;
                    let error = options_text(second.await.unwrap_err());
                    assert!(error.contains("`checkpoint = \"same\"`: the unfinished task"), "{error}");
                    assert!(
                        error.contains("checkpoint.rs:") && error.contains("a key names one task"),
                        "{error}"
                    );
                    gate.open();
                    assert_eq!(first.await.unwrap()[0], 1);
                    rt.idle().await;
                    // Another place, when it is.
                    let error = options_text(
                        spawn!(numbers(runs.clone(), 2); checkpoint = "same").await.unwrap_err(),
                    );
                    assert!(error.contains("the other task that was spawned at"), "{error}");
                    // Another version is another key.
                    let fine =
                        spawn!(numbers(runs.clone(), 2); checkpoint = "same", checkpoint_version = "2");
                    assert_eq!(fine.await.unwrap()[0], 2);
                    rt.idle().await;
                });
            }
            assert_eq!(runs.take(), 2);
        });
    }
}

#[test]
fn failed_and_cancelled_tasks_are_not_saved_and_give_their_keys_back() {
    for place in Place::all() {
        watched(move || {
            for _ in 0..2 {
                let rt = place.run(2);
                rt.block_on(async {
                    let fails = spawn!(parsed(Runs::default(), "x")?; checkpoint = "k");
                    assert!(matches!(fails.await, Err(Error::Task { .. })));
                    // It never had its key: another one may have it, at once and elsewhere.
                    let panics = spawn!((|| -> u64 { panic!("no") })(); checkpoint = "k");
                    assert!(matches!(panics.await, Err(Error::Panicked { .. })));
                    let depends = spawn!((|x: u64| x)(spawn!(parsed(Runs::default(), "x")?)); checkpoint = "k");
                    assert!(matches!(depends.await, Err(Error::Dependency { .. })));
                    let waits = Options::new().checkpoint("k").spawn(std::future::pending::<u64>());
                    waits.cancel();
                    assert!(matches!(waits.await, Err(Error::Cancelled { .. })));
                    let slow = Options::new().checkpoint("k").timeout(Duration::from_millis(1)).spawn(std::future::pending::<u64>());
                    assert!(matches!(slow.await, Err(Error::TimedOut { .. })));
                    // One that is cancelled while it runs returns a value that nobody sees.
                    let (started, go) = (Gate::new(), Gate::new());
                    let runs = spawn!((|started: Gate, go: Gate| { started.open(); go.block(); 5u64 })(started.clone(), go.clone()); checkpoint = "k");
                    started.pass().await;
                    runs.cancel();
                    go.open();
                    rt.idle().await;
                });
                let counts = rt.checkpoints();
                assert_eq!((counts.found, counts.restored, counts.saved, counts.failed), (0, 0, 0, 0));
            }
            if place.is_local() {
                assert!(place.folder().files().is_empty());
            }
        });
    }
}

#[test]
fn a_failure_that_nobody_looks_at_is_logged_beside_a_checkpoint() {
    keep_log();
    watched(|| {
        let rt = Place::local().run(1);
        rt.block_on(async {
            drop(spawn!((|| -> u64 { panic!("unseen beside a checkpoint") })(); checkpoint = "k"));
            rt.idle().await;
        });
        assert_eq!(logged("unseen beside a checkpoint").len(), 1);
        // Nor does what only comes after it in order look at it.
        rt.block_on(async {
            let go = Gate::new();
            in_order(async {
                let fails = |go: Gate| -> u64 {
                    go.block();
                    panic!("unseen before a step")
                };
                drop(spawn!(fails(go.clone())));
                drop(spawn!((|| ())()));
            })
            .await;
            go.open();
            rt.idle().await;
        });
        assert_eq!(logged("unseen before a step").len(), 1);
    });
}

fn add(runs: Runs, x: u64) -> u64 {
    runs.count();
    x + 1
}

fn add_to(runs: Runs, x: &u64) -> u64 {
    add(runs, *x)
}

#[test]
fn what_only_fed_a_restored_task_does_not_run() {
    for place in Place::all() {
        watched(move || {
            let runs = Runs::default();
            for run in 0..2 {
                let rt = place.run(2);
                rt.block_on(async {
                    // A chain, in blocks that own their tasks: nobody has failed.
                    let last = datadeps(bulk(async {
                        let mut task = spawn!(add(runs.clone(), 0));
                        for _ in 0..100 {
                            task = spawn!(add(runs.clone(), task));
                        }
                        spawn!(add(runs.clone(), task); checkpoint = "chain")
                    }));
                    assert_eq!(last.await.unwrap().await.unwrap(), 102);
                    assert_eq!(runs.take(), if run == 0 { 102 } else { 0 });

                    // A diamond, and one that is used twice.
                    let last = datadeps(bulk(async {
                        let root = spawn!(add(runs.clone(), 0));
                        let (left, right) = (spawn!(add(runs.clone(), root.clone())), spawn!(add(runs.clone(), root)));
                        let both = spawn!((|a: u64, b: &u64, runs: Runs| { runs.count(); a + b })(left.clone(), &left, runs.clone()));
                        drop(left);
                        spawn!((|a: u64, b: u64, runs: Runs| { runs.count(); a + b })(both, right, runs.clone()); checkpoint = "diamond")
                    }));
                    assert_eq!(last.await.unwrap().await.unwrap(), 6);
                    assert_eq!(runs.take(), if run == 0 { 5 } else { 0 });

                    // What somebody else uses runs: by a handle, by another task.
                    let (kept, other, last) = datadeps(bulk(async {
                        let kept = spawn!(add(runs.clone(), 0));
                        let (a, b) = (spawn!(add_to(runs.clone(), &kept)), spawn!(add_to(runs.clone(), &kept)));
                        let other = spawn!(add_to(runs.clone(), &b));
                        let last = spawn!((|a: u64, b: u64, runs: Runs| { runs.count(); a + b })(a, b, runs.clone()); checkpoint = "partly");
                        (kept, other, last)
                    })).await.unwrap();
                    assert_eq!((kept.await.unwrap(), other.await.unwrap(), last.await.unwrap()), (1, 3, 4));
                    assert_eq!(runs.take(), if run == 0 { 5 } else { 3 });

                    // What writes to a chunk, or is waited for in order, runs.
                    let chunk = Chunk::new(0u64);
                    datadeps(bulk(async {
                        let writes = spawn!((|x: &mut u64, runs: Runs| { runs.count(); *x += 1; *x })(InOut(&chunk), runs.clone()));
                        let reads = spawn!((|x: &u64, runs: Runs| { runs.count(); *x })(In(&chunk), runs.clone()));
                        let step = spawn!(add(runs.clone(), 5));
                        let after = Options::new().syncdeps([&step]);
                        spawn!((|w: u64, r: u64, s: u64, runs: Runs| { runs.count(); w + r + s })(writes, reads, step, runs.clone()); checkpoint = "effects");
                        // It comes after one that was not needed: that is no reason not to run.
                        spawn!(add(runs.clone(), 0); ..after);
                    })).await.unwrap();
                    assert_eq!(runs.take(), if run == 0 { 5 } else { 2 });
                    assert_eq!(*chunk.read().await.unwrap(), 1);
                    rt.idle().await;
                });
            }
        });
    }
}

/// A million would need no stack either, but a minute.
#[test]
fn a_long_chain_that_only_fed_needs_no_stack() {
    watched(|| {
        let place = Place::local();
        for expected in [20_001, 0] {
            let (rt, runs) = (place.run(2), Runs::default());
            rt.block_on(async {
                let last = bulk(async {
                    let mut task = spawn!(add(runs.clone(), 0));
                    for _ in 1..20_000 {
                        task = spawn!(add(runs.clone(), task));
                    }
                    spawn!(add(runs.clone(), task); checkpoint = "long")
                });
                assert_eq!(last.await.await.unwrap(), 20_001);
                rt.idle().await;
            });
            assert_eq!(runs.take(), expected);
        }
    });
}

/// The first stage was lost, but the second, which it only fed, was not.
#[test]
fn a_missing_checkpoint_that_only_fed_another_is_not_made_again() {
    watched(|| {
        let (place, runs) = (Place::local(), Runs::default());
        for (run, expected) in [2, 0, 0, 2].into_iter().enumerate() {
            if run == 2 {
                std::fs::remove_file(place.folder().file("v/first.ckpt")).unwrap();
            } else if run == 3 {
                std::fs::remove_file(place.folder().file("v/second.ckpt")).unwrap();
            }
            let rt = place.run(2);
            rt.block_on(async {
                let second = datadeps(bulk(async {
                    let first = spawn!(add(runs.clone(), 0); checkpoint = "first");
                    spawn!(add(runs.clone(), first); checkpoint = "second")
                }));
                assert_eq!(second.await.unwrap().await.unwrap(), 2);
            });
            assert_eq!(runs.take(), expected, "run {run}");
            let counts = rt.checkpoints();
            // The first is not even read when it is there.
            assert_eq!(counts.restored, u64::from(run == 1 || run == 2), "run {run}");
        }
    });
}

#[test]
fn tasks_that_have_begun_or_ended_are_left_alone() {
    watched(|| {
        let place = Place::local();
        for run in 0..2 {
            let (rt, runs) = (place.run(1), Runs::default());
            rt.block_on(async {
                let (started, go) = (Gate::new(), Gate::new());
                let result = datadeps(async {
                    let begun = spawn!((|started: Gate, go: Gate, runs: Runs| {
                        started.open();
                        go.block();
                        add(runs, 0)
                    })(started.clone(), go.clone(), runs.clone()));
                    started.pass().await;
                    let last = spawn!(add(runs.clone(), begun); checkpoint = "last");
                    go.open();
                    last
                });
                assert_eq!(result.await.unwrap().await.unwrap(), 2);
            });
            assert_eq!(runs.take(), if run == 0 { 2 } else { 1 });
        }
    });
}

#[test]
fn chunks_come_from_restored_tasks_and_plans_run_with_them() {
    for place in Place::all() {
        watched(move || {
            let runs = Runs::default();
            for run in 0..2 {
                let rt = place.run(2);
                rt.block_on(async {
                    let parts: Vec<_> = (0..4)
                        .map(|i| {
                            Chunk::from_task(
                                spawn!(numbers(runs.clone(), i); checkpoint = format!("part/{i}")),
                            )
                        })
                        .collect();
                    let plan = Plan::new();
                    for round in 0..3 {
                        plan.run(async {
                            for part in &parts {
                                spawn!((|x: &mut Vec<u64>| x[0] += 1)(InOut(part)));
                            }
                            let sum = |x: &Vec<u64>, runs: Runs| {
                                runs.count();
                                x.iter().sum::<u64>()
                            };
                            spawn!(sum(In(&parts[0]), runs.clone()); checkpoint = format!("sum/{round}"));
                        })
                        .await
                        .unwrap();
                    }
                    assert_eq!(parts[2].read().await.unwrap()[..2], [5, 3]);
                    rt.idle().await;
                });
                assert_eq!(runs.take(), if run == 0 { 7 } else { 0 });
                assert_eq!(rt.checkpoints().restored, if run == 0 { 0 } else { 7 });
            }
        });
    }
}

#[test]
fn a_block_waits_for_its_writes_and_no_worker_does() {
    watched(|| {
        register::<Unique>();
        let store = Slow::new(Gate::new());
        let rt = Runtime::builder().threads(1).pin(false).checkpoint_to(store.clone()).build().unwrap();
        rt.block_on(async {
            let (taker, sent) = (Gate::new(), Gate::new());
            let mut block = Box::pin(datadeps(async {
                let unique = spawn!((|| Unique(7))(); checkpoint = "unique");
                // By value, of what is not `Clone`: when it is written.
                spawn!((|x: Unique, taken: Gate| {
                    taken.open();
                    x.0
                })(unique, taker.clone()))
            }));
            sent.open();
            assert!(futures::poll!(&mut block).is_pending());
            store.came.0.pass().await;
            // The only worker has nothing to wait for.
            assert_eq!(spawn!((|| 1)()).await.unwrap(), 1);
            assert!(futures::poll!(&mut block).is_pending());
            assert!(!taker.is_open());
            assert_eq!(rt.checkpoints().saved, 0);
            store.gate.0.open();
            let task = block.await.unwrap();
            assert_eq!(rt.checkpoints().saved, 1);
            assert_eq!(task.await.unwrap(), 7);
        });
        // It is there for the next one.
        let rt = Runtime::builder().threads(1).pin(false).checkpoint_to(store).build().unwrap();
        assert_eq!(
            rt.block_on(async { spawn!((|| Unique(8))(); checkpoint = "unique").await }).unwrap(),
            Unique(7)
        );
    });
}

/// While the value of the first is being written, a second one at the same place runs: there is nothing to read yet.
#[test]
fn a_task_whose_value_is_being_written_can_be_spawned_again() {
    watched(|| {
        let (store, runs) = (Slow::new(Gate::new()), Runs::default());
        let rt = Runtime::builder().threads(1).pin(false).checkpoint_to(store.clone()).build().unwrap();
        rt.block_on(async {
            for i in 0..3 {
                assert_eq!(spawn!(numbers(runs.clone(), i); checkpoint = "k").await.unwrap()[0], i);
                if i == 0 {
                    store.came.0.pass().await;
                }
            }
            store.gate.0.open();
            rt.idle().await;
        });
        assert_eq!((runs.take(), rt.checkpoints().saved), (3, 1));
    });
}

#[test]
fn a_dropped_block_and_a_dropped_runtime_lose_nothing_that_is_there() {
    watched(|| {
        let (store, go) = (Slow::new(Gate::opened()), Gate::new());
        let rt = Runtime::builder().threads(1).pin(false).checkpoint_to(store.clone()).build().unwrap();
        rt.block_on(async {
            let started = Gate::new();
            let mut block = Box::pin(datadeps(async {
                drop(spawn!((|started: Gate, go: Gate| { started.open(); go.block(); 5u64 })(started.clone(), go.clone()); checkpoint = "k"));
                std::future::pending::<()>().await;
            }));
            assert!(futures::poll!(&mut block).is_pending());
            started.pass().await;
            drop(block);
            go.open();
            rt.idle().await;
        });
        assert_eq!(rt.checkpoints().saved, 1);
        drop(rt);
        // A value that is being written when its runtime goes is written, and freed once.
        for _ in 0..20 {
            let store = Slow::new(Gate::new());
            let rt = Runtime::builder().threads(2).pin(false).checkpoint_to(store.clone()).build().unwrap();
            rt.block_on(async {
                drop((&spawn!(numbers(Runs::default(), 3); checkpoint = "k")).await.unwrap())
            });
            rt.block_on(store.came.0.pass());
            let ended = rt.shutdown();
            store.gate.0.open();
            futures::executor::block_on(ended);
        }
    });
}

#[test]
fn a_full_store_only_warns() {
    keep_log();
    watched(|| {
        let store = Slow::new(Gate::opened());
        let runs = Runs::default();
        for run in 0..3 {
            let rt = Runtime::builder().threads(2).pin(false).checkpoint_to(store.clone()).build().unwrap();
            store.is_full.store(run == 0, SeqCst);
            rt.block_on(async {
                let task = datadeps(async { spawn!(numbers(runs.clone(), 1); checkpoint = "too much") });
                assert_eq!(task.await.unwrap().await.unwrap().len(), 100);
            });
            let counts = rt.checkpoints();
            let expected = [(1, 0, 1, 0), (1, 1, 0, 0), (0, 0, 0, 1)][run];
            assert_eq!((runs.take(), counts.saved, counts.failed, counts.restored), expected);
            if run == 0 {
                assert_eq!(
                    counts.to_string(),
                    "0 checkpoints found, 0 tasks restored, 0 saved, 1 could not be saved"
                );
            }
        }
        let lines = logged("too much");
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in
            ["the result of `numbers`", "`too much` at checkpoints/v/too%20much.ckpt", "storage space"]
        {
            assert!(lines[0].contains(part), "no `{part}` in {}", lines[0]);
        }
    });
    // A disk that does not take it: there is a file where the folder of the version should be.
    watched(|| {
        let place = Place::local();
        std::fs::create_dir_all(place.folder().file("")).unwrap();
        std::fs::write(place.folder().file("v"), "in the way").unwrap();
        let rt = place.run(2);
        rt.block_on(async {
            assert_eq!(
                datadeps(async { spawn!((|| 3u64)(); checkpoint = "no way") }).await.unwrap().await.unwrap(),
                3
            );
        });
        assert_eq!((rt.checkpoints().failed, logged("no way").len()), (1, 1));
    });
}

#[test]
fn odd_keys_are_found_again() {
    for place in Place::all() {
        watched(move || {
            let long = "x".repeat(3000);
            let keys = [
                "a",
                "a/b",
                "a//b",
                "a/",
                "/a",
                "/",
                "..",
                "../..",
                "a/../b",
                ".",
                "a.ckpt",
                "a.ckpt/b",
                "%",
                "a%2Fb",
                "ä/ö",
                " ",
                "a\nb",
                "a\\b",
                "C:\\x",
                "x.dagger-part",
                "\0",
                &long,
                &long[1..],
            ];
            let deep = "d/".repeat(1000);
            let keys: Vec<String> =
                keys.iter().map(|&key| key.to_owned()).chain([deep.clone(), deep + "e"]).collect();
            for version in ["", "1", "../..", "a/b"] {
                for run in 0..2 {
                    let rt = place.builder(2).checkpoint_version(version).build().unwrap();
                    let found = rt.checkpoints().found;
                    rt.block_on(async {
                        let tasks = keys.iter().enumerate().map(|(i, key)| {
                            spawn!((|i: usize, run: u64| i as u64 + 1000 * run)(i, run); checkpoint = key.as_str())
                        });
                        for (i, task) in tasks.collect::<Vec<_>>().into_iter().enumerate() {
                            assert_eq!(task.await.unwrap(), i as u64, "{:?} of {version:?}", keys[i]);
                        }
                        rt.idle().await;
                    });
                    let counts = rt.checkpoints();
                    assert_eq!(counts.saved + counts.restored, keys.len() as u64);
                    assert_eq!(
                        (counts.failed, counts.saved == 0),
                        (0, run == 1),
                        "{version:?}, {found} found"
                    );
                }
            }
        });
    }
}

#[test]
fn versions_are_removed() {
    for place in Place::all() {
        watched(move || {
            for version in ["1", "2", "a/b", ""] {
                let rt = place.builder(1).checkpoint_version(version).build().unwrap();
                rt.block_on(async {
                    datadeps(async {
                        for i in 0..5 {
                            spawn!((|i: u64| i)(i); checkpoint = format!("deep/er/{i}"));
                        }
                    })
                    .await
                    .unwrap();
                });
            }
            let rt = place.builder(1).checkpoint_version("2").build().unwrap();
            let removed = |which: fn(&str) -> bool| rt.block_on(rt.remove_checkpoints(which)).unwrap();
            assert_eq!(rt.checkpoints().found, 20);
            assert_eq!(removed(|version| version == "a/b"), 5);
            assert_eq!(removed(|version| version != "2"), 10);
            assert_eq!(removed(|version| version != "2"), 0);
            let one = || rt.block_on(async { spawn!((|| 77u64)(); checkpoint = "deep/er/3").await }).unwrap();
            assert_eq!(one(), 3);
            // What is removed is not looked for any more.
            assert_eq!(removed(|_| true), 5);
            assert_eq!(one(), 77);
            rt.block_on(rt.idle());
            assert_eq!(place.run(1).checkpoints().found, 1);
            assert_eq!(removed(|_| true), 1);
            if place.is_local() {
                assert_eq!(std::fs::read_dir(place.folder().path()).unwrap().count(), 0, "no folder is left");
            }
        });
    }
}

#[test]
fn in_with_options_a_key_does_nothing_but_warn() {
    keep_log();
    watched(|| {
        let place = Place::local();
        let rt = place.run(1);
        rt.block_on(async {
            let options = Options::new().checkpoint("for nobody");
            with_options(options, async { spawn!((|| 1u64)()).await.unwrap() }).await;
            rt.idle().await;
        });
        assert_eq!((rt.checkpoints().saved, logged("for nobody").len()), (0, 1));
    });
}

#[test]
fn what_counts_tasks_counts_those_of_the_program() {
    watched(|| {
        let rt = Place::local().run(2);
        rt.block_on(async {
            let counted = dagger_async::counted(datadeps(async {
                for i in 0..10 {
                    spawn!((|i: u64| i)(i); checkpoint = format!("{i}"));
                }
            }));
            let counter = counted.counter();
            counted.await.unwrap();
            assert_eq!((counter.count().spawned, counter.count().ended), (10, 10));
        });
    });
}

/// Many tasks at once from many threads, in two runs: each value is the right one.
#[test]
fn many_at_once() {
    watched(|| {
        let place = Place::local();
        for run in 0..2u64 {
            let rt = Arc::new(place.run(4));
            let sum = Arc::new(AtomicU64::new(0));
            let threads: Vec<_> = (0..4u64)
                .map(|thread| {
                    let (rt, sum) = (rt.clone(), sum.clone());
                    std::thread::spawn(move || {
                        rt.block_on(async {
                            let tasks = (0..250u64).map(|i| {
                                spawn!((|x: u64, run: u64| vec![x + 1_000_000 * run; 20])(thread * 250 + i, run); checkpoint = format!("{thread}/{i}"))
                            });
                            for task in wait_all(tasks.collect::<Vec<_>>()).await {
                                sum.fetch_add(task.unwrap()[19], SeqCst);
                            }
                        });
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            rt.block_on(rt.idle());
            assert_eq!(sum.load(SeqCst), (0..1000).sum::<u64>());
            let counts = rt.checkpoints();
            let expected = if run == 0 { (0, 0, 1000) } else { (1000, 1000, 0) };
            assert_eq!((counts.found, counts.restored, counts.saved), expected);
        }
    });
}
