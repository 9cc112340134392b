//! What a failed writer leaves behind: who is refused, with which root, until when; and what leaves nothing behind.

use dagger_async::prelude::*;
use dagger_tests::{Census, Failure, Gate, Item, WORKERS, on_all_workers, on_workers, runtime, watched};
use futures::FutureExt;
use std::collections::HashSet;
use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

type Numbers = Chunk<Vec<i64>>;

fn numbers(len: usize) -> Numbers {
    Chunk::new(vec![0; len])
}
fn fill(x: &mut [i64], v: i64) {
    x.fill(v)
}
fn sum(x: &[i64]) -> i64 {
    x.iter().sum()
}
fn fail(x: &mut [i64]) -> Result<(), Failure> {
    x.fill(-1);
    Err(Failure("no luck".into()))
}
fn two(x: &mut [i64], y: &mut [i64]) {
    x.fill(1);
    y.fill(1);
}

/// Says that it runs, waits, ends.
fn write(x: &mut [i64], started: Gate, go: Gate, fails: bool) -> Result<(), Failure> {
    x.fill(-1);
    started.open();
    go.block();
    if fails { Err(Failure("no luck".into())) } else { Ok(()) }
}
async fn write_async(x: &mut [i64], started: Gate, go: Gate, fails: bool) -> Result<(), Failure> {
    x.fill(-1);
    started.open();
    go.pass().await;
    if fails { Err(Failure("no luck".into())) } else { Ok(()) }
}
fn wait_and_sum(x: &[i64], started: Gate, go: Gate) -> i64 {
    started.open();
    go.block();
    sum(x)
}

/// Why a writer does not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Fails,
    Panic,
    AsyncErr,
    BlockingErr,
    AnArgumentFailed,
    ASyncdepFailed,
    CancelledBeforeItsTurn,
    CancelledByItsTokenBeforeItsTurn,
    CancelledAtOnce,
    CancelledWhileItRuns,
    CancelledWhileItRunsAndFails,
    CancelledWhileSuspended,
    TimedOutWhileItRuns,
    TimedOutWhileSuspended,
}

use Cause::*;

impl Cause {
    const ALL: [Cause; 14] = [
        Fails,
        Panic,
        AsyncErr,
        BlockingErr,
        AnArgumentFailed,
        ASyncdepFailed,
        CancelledBeforeItsTurn,
        CancelledByItsTokenBeforeItsTurn,
        CancelledAtOnce,
        CancelledWhileItRuns,
        CancelledWhileItRunsAndFails,
        CancelledWhileSuspended,
        TimedOutWhileItRuns,
        TimedOutWhileSuspended,
    ];
    /// The user's error can be found.
    fn is_users(self) -> bool {
        matches!(self, Fails | AsyncErr | BlockingErr | AnArgumentFailed | ASyncdepFailed)
    }
    /// The handle has ended, but the body or a reader before it has not.
    fn lasts(self) -> bool {
        matches!(
            self,
            CancelledBeforeItsTurn
                | CancelledByItsTokenBeforeItsTurn
                | CancelledWhileItRuns
                | CancelledWhileItRunsAndFails
                | TimedOutWhileItRuns
        )
    }
}

/// A writer whose handle has ended with this error; what still runs ends when `go` is opened.
struct Failed {
    error: Error,
    go: Gate,
    /// A reader that was before it in the queue.
    front: Option<DTask<i64>>,
}

/// Has a writer of `2..6` fail; `out` chooses its access mode.
async fn make_fail(cause: Cause, chunk: &Numbers, out: bool) -> Failed {
    let (started, go) = (Gate::new(), Gate::new());
    let region = chunk.slice(2..6);
    let mut front = None;
    let mut options = Options::new().name("writer");
    // Spawns the writer, in either mode.
    macro_rules! writer {
        ($fails:expr) => {{
            let (started, go, options) = (started.clone(), go.clone(), std::mem::take(&mut options));
            match out {
                true => spawn!(write(Out(&region), started, go, $fails)?; ..options),
                false => spawn!(write(InOut(&region), started, go, $fails)?; ..options),
            }
        }};
    }
    macro_rules! async_writer {
        ($fails:expr) => {{
            let (started, go, options) = (started.clone(), go.clone(), std::mem::take(&mut options));
            match out {
                true => spawn!(async write_async(Out(&region), started, go, $fails)?; ..options),
                false => spawn!(async write_async(InOut(&region), started, go, $fails)?; ..options),
            }
        }};
    }
    let bad = || spawn!((|| Err::<i64, _>(Failure("no luck".into())))()?; name = "bad");
    let task = match cause {
        Fails => {
            go.open();
            writer!(true)
        }
        BlockingErr => {
            go.open();
            options = options.blocking(true);
            writer!(true)
        }
        AsyncErr => {
            go.open();
            async_writer!(true)
        }
        Panic => match out {
            true => spawn!((|x: &mut [i64]| -> () { panic!("{}", x.len()) })(Out(&region)); name = "writer"),
            false => {
                spawn!((|x: &mut [i64]| -> () { panic!("{}", x.len()) })(InOut(&region)); name = "writer")
            }
        },
        AnArgumentFailed => match out {
            true => spawn!(fill(Out(&region), bad()); name = "writer"),
            false => spawn!(fill(InOut(&region), bad()); name = "writer"),
        },
        ASyncdepFailed => {
            options = options.syncdeps([&bad()]);
            writer!(false)
        }
        CancelledBeforeItsTurn | CancelledByItsTokenBeforeItsTurn => {
            let token = CancelToken::new();
            front = Some(spawn!(wait_and_sum(In(&chunk.slice(..)), started.clone(), go.clone())));
            started.pass().await;
            options = options.cancel(token.clone());
            let task = writer!(false);
            if cause == CancelledBeforeItsTurn {
                task.cancel()
            } else {
                token.cancel()
            }
            task
        }
        CancelledAtOnce => {
            let token = CancelToken::new();
            token.cancel();
            options = options.cancel(token);
            writer!(false)
        }
        CancelledWhileItRuns | CancelledWhileItRunsAndFails => {
            let task = writer!(cause == CancelledWhileItRunsAndFails);
            started.pass().await;
            task.cancel();
            task
        }
        CancelledWhileSuspended => {
            let task = async_writer!(false);
            started.pass().await;
            task.cancel();
            task
        }
        TimedOutWhileItRuns => {
            options = options.timeout(Duration::from_millis(10));
            writer!(false)
        }
        TimedOutWhileSuspended => {
            options = options.timeout(Duration::from_millis(10));
            async_writer!(false)
        }
    };
    let (id, error) = (task.id(), task.await.unwrap_err());
    let root = error.root().unwrap();
    match cause {
        AnArgumentFailed | ASyncdepFailed => assert_eq!(root.name(), "bad"),
        _ => assert_eq!((root.name(), root.id()), ("writer", id)),
    }
    Failed { error, go, front }
}

/// `error` says that a task did not run because of what `failed` did.
#[track_caller]
fn assert_refused(error: &Error, failed: &Error) {
    let Error::Dependency { cause, .. } = error else { panic!("not refused: {error:?}") };
    assert_same_root(error, failed);
    let of_root = match failed {
        Error::Dependency { cause, .. } => cause,
        own => own,
    };
    assert_eq!(cause.to_string(), of_root.to_string());
}

#[track_caller]
fn assert_poisoned(error: &Error, failed: &Error) {
    assert!(matches!(error, Error::Poisoned { .. }), "not poisoned: {error:?}");
    assert_same_root(error, failed);
}

#[track_caller]
fn assert_same_root(error: &Error, failed: &Error) {
    let (root, expected) = (error.root().unwrap(), failed.root().unwrap());
    assert_eq!(
        (root.id(), root.name(), root.site()),
        (expected.id(), expected.name(), expected.site()),
        "{error} has another root than {failed}"
    );
    assert!(root.site().contains("poison.rs:"), "{}", root.site());
    assert!(error.to_string().contains(root.name()) && error.to_string().contains(root.site()), "{error}");
    let (user, expected) = (error.downcast_ref::<Failure>(), failed.downcast_ref::<Failure>());
    assert_eq!(user, expected);
    assert!(error.others().is_empty());
}

async fn read_error(chunk: &Numbers) -> Error {
    chunk.read().await.map(|guard| guard.to_vec()).unwrap_err()
}

// Who is refused.

/// The full product of causes, access modes and numbers of workers.
fn for_each_failure<F, M>(test: M)
where
    M: Fn(Numbers, Failed, Cause) -> F + Clone + Send + 'static,
    F: Future<Output = ()>,
{
    for cause in Cause::ALL {
        for out in [false, true] {
            let test = test.clone();
            on_all_workers(move |_rt| {
                let test = test.clone();
                async move {
                    eprintln!("{cause:?} of an {}", if out { "Out" } else { "InOut" });
                    let chunk = numbers(10);
                    let failed = make_fail(cause, &chunk, out).await;
                    test(chunk, failed, cause).await;
                }
            });
        }
    }
}

#[test]
fn a_writer_that_does_not_succeed_poisons_exactly_what_it_declared_when_its_body_is_over() {
    for_each_failure(|chunk, failed, cause| async move {
        let inside = [chunk.slice(2..3), chunk.slice(5..9), chunk.slice(0..3), chunk.slice(..)]
            .map(|region| spawn!(sum(In(&region))));
        let guard = chunk.slice(5..6).read();
        let outside = [0..2, 6..10].map(|range| spawn!(sum(In(&chunk.slice(range)))));
        let beside = chunk.slice(6..).read();
        if cause.lasts() {
            assert!(inside.iter().all(|task| !task.is_finished()), "refused before the body was over");
        }
        failed.go.open();
        for task in inside {
            let error = task.await.unwrap_err();
            assert_refused(&error, &failed.error);
            assert_eq!(error.downcast_ref::<Failure>().is_some(), cause.is_users());
        }
        assert_poisoned(&guard.await.map(drop).unwrap_err(), &failed.error);
        for task in outside {
            assert_eq!(task.await.unwrap(), 0);
        }
        assert_eq!(beside.await.unwrap()[..], [0; 4]);
        if let Some(front) = failed.front {
            assert_eq!(front.await.unwrap(), 0, "a reader before the writer was refused");
        }
        // And for those who come when all is over.
        assert_poisoned(&read_error(&chunk).await, &failed.error);
        assert_poisoned(&chunk.write().await.map(drop).unwrap_err(), &failed.error);
        assert_poisoned(&access((In(&chunk),)).await.map(drop).unwrap_err(), &failed.error);
        assert_poisoned(&access((InOut(&chunk),)).await.map(drop).unwrap_err(), &failed.error);
        assert_refused(&spawn!((|x: &Vec<i64>| x.len())(&chunk)).await.unwrap_err(), &failed.error);
        assert_poisoned(&chunk.into_inner().await.unwrap_err(), &failed.error);
    });
}

#[test]
fn an_inout_on_a_poisoned_region_fails_and_keeps_the_root() {
    for_each_failure(|chunk, failed, _| async move {
        // A chain of refusals, each of which poisons more.
        for range in [5..7, 6..8, 7..9] {
            let task = spawn!(fill(InOut(&chunk.slice(range)), 3); name = "next");
            failed.go.open();
            assert_refused(&task.await.unwrap_err(), &failed.error);
        }
        assert_refused(&spawn!(sum(In(&chunk.slice(8..9)))).await.unwrap_err(), &failed.error);
        assert_eq!(spawn!(sum(In(&chunk.slice(9..)))).await.unwrap(), 0);
    });
}

#[test]
fn an_out_that_covers_the_poison_heals_it() {
    for_each_failure(|chunk, failed, _| async move {
        let heals = spawn!(fill(Out(&chunk.slice(1..7)), 5));
        let after = spawn!(sum(In(&chunk.slice(..))));
        failed.go.open();
        heals.await.unwrap();
        assert_eq!(after.await.unwrap(), 30);
        assert_eq!(*chunk.read().await.unwrap(), [0, 5, 5, 5, 5, 5, 5, 0, 0, 0]);
    });
}

#[test]
fn recover_takes_its_place_when_called_and_clears_all_poison() {
    for_each_failure(|chunk, failed, _| async move {
        let before = spawn!(sum(In(&chunk.slice(..))));
        let also_bad = spawn!(fail(InOut(&chunk.slice(8..)))?);
        let recover = chunk.recover();
        let after = spawn!(sum(In(&chunk.slice(..))));
        failed.go.open();
        assert_refused(&before.await.unwrap_err(), &failed.error);
        assert!(also_bad.await.is_err());
        let mut guard = recover.await.unwrap();
        assert!(!after.is_finished());
        assert_eq!(guard.len(), 10);
        guard.fill(2);
        drop(guard);
        assert_eq!(after.await.unwrap(), 20);
        assert_eq!(spawn!(sum(In(&chunk.slice(2..6)))).await.unwrap(), 8);
    });
}

#[test]
fn the_root_of_a_poison_is_the_line_that_spawned_the_writer() {
    on_all_workers(|_rt| async {
        let chunk = numbers(4);
        let (line, task) = (line!(), spawn!(fail(InOut(&chunk.slice(..)))?));
        let (id, site) = (task.id(), format!("{}:{line}", file!()));
        drop(task);
        let error = read_error(&chunk).await;
        let root = error.root().unwrap();
        assert_eq!((root.name(), root.id(), root.site()), ("fail", id, site.as_str()));
        assert_eq!(error.downcast_ref::<Failure>().unwrap().0, "no luck");
    });
}

#[test]
fn every_chunk_that_a_failed_task_writes_is_poisoned_and_none_that_it_reads() {
    on_all_workers(|_rt| async {
        let (a, b, c) = (numbers(4), numbers(4), numbers(4));
        let task = spawn!((|x: &mut [i64], y: &mut Vec<i64>, z: &[i64]| -> () {
            panic!("{}", x.len() + y.len() + z.len())
        })(InOut(&a.slice(1..2)), Out(&b), In(&c.slice(..))));
        let error = task.await.unwrap_err();
        assert_poisoned(&read_error(&a).await, &error);
        assert_poisoned(&read_error(&b).await, &error);
        assert_eq!(*c.read().await.unwrap(), [0; 4]);
        assert_eq!(spawn!(sum(In(&a.slice(2..)))).await.unwrap(), 0);
    });
}

#[test]
fn a_failed_reader_poisons_nothing() {
    on_all_workers(|_rt| async {
        let a = numbers(4);
        let reader = spawn!((|_: &[i64]| -> () { panic!("x") })(In(&a.slice(..))));
        let cancelled = spawn!((|_: &[i64], _: ()| ())(In(&a.slice(..)), Await(pending::<()>())));
        cancelled.cancel();
        assert!(reader.await.is_err() && cancelled.await.is_err());
        spawn!(fill(InOut(&a.slice(..)), 1)).await.unwrap();
    });
}

/// The writer waits for its argument as well as for its turn; the readers before it are still out.
#[test]
fn readers_before_a_cancelled_writer_go_on_and_those_after_it_wait_for_them() {
    on_all_workers(|_rt| async {
        let (chunk, go) = (numbers(4), Gate::new());
        let readers: Vec<_> =
            (0..5).map(|_| spawn!(async pass_and_sum(In(&chunk.slice(..)), go.clone()))).collect();
        let writer = spawn!(fill(InOut(&chunk.slice(..)), Await(pending::<i64>())));
        let after = spawn!(sum(In(&chunk.slice(..))));
        writer.cancel();
        let error = writer.await.unwrap_err();
        assert!(!after.is_finished());
        go.open();
        for reader in readers {
            assert_eq!(reader.await.unwrap(), 0);
        }
        assert_refused(&after.await.unwrap_err(), &error);
    });
}

async fn pass_and_sum(x: &[i64], go: Gate) -> i64 {
    go.pass().await;
    sum(x)
}

// Until when.

#[test]
fn poison_lasts_in_the_parts_that_no_successful_out_has_covered() {
    on_all_workers(|_rt| async {
        let chunk = numbers(10);
        let error = spawn!(fail(InOut(&chunk.slice(2..8)))?).await.unwrap_err();
        let read = |range: std::ops::Range<usize>| spawn!(sum(In(&chunk.slice(range))));
        spawn!(fill(Out(&chunk.slice(4..6)), 1)).await.unwrap();
        assert_eq!(read(4..6).await.unwrap(), 2);
        for range in [2..4, 3..5, 5..7, 6..8, 0..10] {
            assert_refused(&read(range).await.unwrap_err(), &error);
        }
        // A write guard is no `Out`, and an `Out` that fails heals nothing.
        assert_poisoned(&chunk.slice(2..4).write().await.map(drop).unwrap_err(), &error);
        let again = spawn!(fail(Out(&chunk.slice(0..4)))?).await.unwrap_err();
        let refused = read(0..2).await.unwrap_err();
        assert_refused(&refused, &again);
        assert!(read(2..4).await.is_err());
        assert_refused(&read(6..7).await.unwrap_err(), &error);
        spawn!(fill(Out(&chunk.slice(0..4)), 1));
        assert_eq!(read(0..6).await.unwrap(), 6);
        assert_refused(&read(0..10).await.unwrap_err(), &error);
        // What lies between the elements that are stepped over stays poisoned.
        spawn!((|mut x: VecMut<i64>| x.for_each_mut(|x| *x = 1))(Out(&chunk.slice(step(6..8, 2)))));
        assert_eq!(read(6..7).await.unwrap(), 1);
        assert_refused(&read(7..8).await.unwrap_err(), &error);
        spawn!((|mut x: VecMut<i64>| x.for_each_mut(|x| *x = 1))(Out(&chunk.slice(index([9, 7])))));
        assert_eq!(read(0..10).await.unwrap(), 9);
    });
}

#[test]
fn an_out_of_the_whole_chunk_heals_all_of_it_and_may_change_its_length() {
    on_all_workers(|_rt| async {
        for _ in 0..20 {
            let chunk = numbers(10);
            for range in [0..2, 1..5, 9..10] {
                spawn!(fail(InOut(&chunk.slice(range)))?);
            }
            spawn!((|x: &mut Vec<i64>| *x = vec![1; 30])(Out(&chunk)));
            assert_eq!(spawn!(sum(In(&chunk.slice(..)))).await.unwrap(), 30);
            // Poison of the whole, too.
            spawn!((|_: &mut Vec<i64>| Err::<(), _>(Failure("all".into())))(InOut(&chunk))?);
            assert!(spawn!(sum(In(&chunk.slice(29..)))).await.is_err());
            spawn!(fill(Out(&chunk.slice(10..)), 2));
            assert_eq!(spawn!(sum(In(&chunk.slice(10..)))).await.unwrap(), 40);
            assert!(spawn!(sum(In(&chunk.slice(..11)))).await.is_err());
            spawn!(fill(Out(&chunk.slice(..10)), 2));
            assert_eq!(spawn!(sum(In(&chunk.slice(..)))).await.unwrap(), 60);
        }
    });
}

/// A generator of numbers, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

/// Random writers that fail or succeed, against a set of roots for each element.
#[test]
fn poison_is_exact_for_slices_steps_and_lists() {
    const LEN: usize = 12;
    let seeds = if cfg!(debug_assertions) { 60 } else { 400 };
    on_all_workers(move |_rt| async move {
        for seed in 0..seeds {
            let mut dice = Dice(seed);
            let chunk = numbers(LEN);
            let mut model: Vec<HashSet<TaskId>> = vec![HashSet::new(); LEN];
            let mut said: Vec<(DTask<()>, HashSet<TaskId>, bool, String)> = Vec::new();
            for at in 0..40 {
                let start = dice.below(LEN);
                let end = start + 1 + dice.below(LEN - start);
                let kind = dice.below(3);
                let elements: Vec<usize> = match kind {
                    0 => (start..end).collect(),
                    1 => (start..end).step_by(3).collect(),
                    _ => [start, end - 1].into_iter().collect::<HashSet<_>>().into_iter().collect(),
                };
                let mode = dice.below(3);
                let fails = mode != 0 && dice.below(3) == 0;
                let body = move || if fails { Err(Failure("no".into())) } else { Ok(()) };
                macro_rules! spawn_on {
                    ($region:expr, $Ref:ty, $Mut:ty) => {{
                        let region = $region;
                        match mode {
                            0 => spawn!((move |_: $Ref| body())(In(&region))?),
                            1 => spawn!((move |_: $Mut| body())(InOut(&region))?),
                            _ => spawn!((move |_: $Mut| body())(Out(&region))?),
                        }
                    }};
                }
                let task = match kind {
                    0 => spawn_on!(chunk.slice(start..end), &[i64], &mut [i64]),
                    1 => spawn_on!(chunk.slice(step(start..end, 3)), VecRef<i64>, VecMut<i64>),
                    _ => spawn_on!(chunk.slice(index(elements.clone())), VecRef<i64>, VecMut<i64>),
                };
                let found: HashSet<TaskId> = elements.iter().flat_map(|&e| model[e].clone()).collect();
                let refused = mode != 2 && !found.is_empty();
                for &e in &elements {
                    match () {
                        () if refused && mode != 0 => model[e].extend(&found),
                        () if fails && !refused => _ = model[e].insert(task.id()),
                        () if mode == 2 => model[e].clear(),
                        () => {}
                    }
                }
                let story = format!("seed {seed}, task {at}: mode {mode} of kind {kind} on {elements:?}");
                said.push((task, if refused { found } else { HashSet::new() }, fails, story));
            }
            for (task, roots, fails, story) in said {
                let id = task.id();
                match task.await {
                    Ok(()) => assert!(roots.is_empty() && !fails, "it ran: {story}"),
                    Err(error @ Error::Dependency { .. }) => {
                        assert!(roots.contains(&error.root().unwrap().id()), "{story}: {error}");
                    }
                    Err(error) => {
                        assert!(roots.is_empty() && fails, "{story}: {error}");
                        assert_eq!(error.root().unwrap().id(), id);
                    }
                }
            }
        }
    });
}

#[test]
fn recover_clears_the_poison_of_several_writers_and_gives_a_guard_of_a_clean_chunk_too() {
    on_all_workers(|_rt| async {
        let chunk = numbers(6);
        chunk.recover().await.unwrap()[0] = 1;
        for range in [0..1, 2..4, 5..6] {
            spawn!(fail(InOut(&chunk.slice(range)))?);
        }
        let recover = chunk.recover();
        let behind = spawn!(sum(In(&chunk.slice(..))));
        // A writer that fails after it poisons again.
        let bad = spawn!(fail(InOut(&chunk.slice(4..)))?);
        {
            let guard = recover.await.unwrap();
            assert_eq!(*guard, [-1, 0, -1, -1, 0, -1]);
        }
        assert_eq!(behind.await.unwrap(), -4);
        assert_poisoned(&read_error(&chunk).await, &bad.await.unwrap_err());
        assert_eq!(spawn!(sum(In(&chunk.slice(..4)))).await.unwrap(), -3);
    });
}

#[test]
fn a_recover_that_is_dropped_lets_those_behind_it_go_on() {
    on_all_workers(|_rt| async {
        let (chunk, started, go) = (numbers(4), Gate::new(), Gate::new());
        let writer = spawn!(write(InOut(&chunk.slice(..)), started.clone(), go.clone(), true)?);
        started.pass().await;
        let mut recover = chunk.recover();
        assert!((&mut recover).now_or_never().is_none());
        let behind = spawn!(fill(Out(&chunk.slice(..)), 1));
        drop(recover);
        go.open();
        assert!(writer.await.is_err());
        behind.await.unwrap();
        assert_eq!(*chunk.read().await.unwrap(), [1; 4]);
    });
}

// What leaves nothing behind.

#[test]
fn a_region_out_of_bounds_at_spawn_poisons_nothing_and_says_range_and_length() {
    on_all_workers(|_rt| async {
        let (a, b) = (numbers(10), numbers(10));
        let line = line!() + 1;
        let task = spawn!(two(InOut(&b.slice(..)), InOut(&a.slice(4..20))); name = "wide");
        let error = task.await.unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { .. }), "{error:?}");
        let root = error.root().unwrap();
        assert_eq!((root.name(), root.site()), ("wide", format!("{}:{line}", file!()).as_str()));
        let text = error.to_string();
        assert!(text.contains("4..20") && text.contains("10"), "{text}");
        let error = spawn!(fill(Out(&a.slice(11..=12)), 1)).await.unwrap_err().to_string();
        assert!((error.contains("11..13") || error.contains("11..=12")) && error.contains("10"), "{error}");
        let error = a.slice(..11).read().await.map(drop).unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { root: None, .. }), "{error:?}");
        assert!(error.to_string().contains("..11") && error.to_string().contains("10"), "{error}");
        assert_eq!(*a.read().await.unwrap(), [0; 10]);
        assert_eq!(*b.read().await.unwrap(), [0; 10]);
        // The dependants of the task are refused all the same.
        let bad = spawn!((|x: &mut [i64]| x.len())(InOut(&a.slice(9..11))); name = "bad");
        let error = spawn!((|x: usize| x)(bad)).await.unwrap_err();
        assert!(matches!(error, Error::Dependency { .. }), "{error:?}");
        assert_eq!(error.root().unwrap().name(), "bad");
    });
}

#[test]
fn a_region_out_of_bounds_at_its_turn_poisons_nothing() {
    on_all_workers(|_rt| async {
        for out in [false, true] {
            let (a, b, go) = (numbers(10), numbers(10), Gate::new());
            let gate = go.clone();
            spawn!((move |x: &mut Vec<i64>| {
                gate.block();
                x.truncate(3);
            })(InOut(&a)));
            let region = a.slice(2..8);
            let bad = match out {
                true => spawn!(two(Out(&b.slice(..)), Out(&region)); name = "bad"),
                false => spawn!(two(InOut(&b.slice(..)), InOut(&region)); name = "bad"),
            };
            let guard = a.slice(3..4).write();
            let (of_a, of_b) = (spawn!(sum(In(&a.slice(..)))), spawn!(sum(In(&b.slice(..)))));
            assert!(!bad.is_finished());
            go.open();
            let error = bad.await.unwrap_err();
            assert!(matches!(error, Error::OutOfBounds { .. }), "{error:?}");
            assert_eq!(error.root().unwrap().name(), "bad");
            assert!(error.to_string().contains("2..8") && error.to_string().contains('3'), "{error}");
            let error = guard.await.map(drop).unwrap_err();
            assert!(matches!(error, Error::OutOfBounds { .. }), "{error:?}");
            assert_eq!((of_a.await.unwrap(), of_b.await.unwrap()), (0, 0));
            assert_eq!((a.read().await.unwrap().len(), b.read().await.unwrap().len()), (3, 10));
        }
    });
}

#[test]
fn a_region_that_a_whole_write_before_it_makes_room_for_is_fine() {
    on_all_workers(|_rt| async {
        for _ in 0..50 {
            let a = numbers(2);
            spawn!((|x: &mut Vec<i64>| x.resize(10, 1))(InOut(&a)));
            assert_eq!(spawn!(sum(In(&a.slice(2..10)))).await.unwrap(), 8);
        }
    });
}

#[test]
fn aliased_arguments_are_both_named_and_poison_nothing() {
    on_all_workers(|_rt| async {
        let (a, b) = (numbers(10), numbers(4));
        fn three(x: &mut [i64], y: &[i64], z: &mut [i64]) {
            x.fill(1);
            z.fill(y[0]);
        }
        let error =
            spawn!(three(InOut(&b.slice(..)), In(&a.slice(0..4)), InOut(&a.slice(3..6))); name = "both")
                .await
                .unwrap_err();
        assert!(matches!(error, Error::Aliased { .. }), "{error:?}");
        assert_eq!(error.root().unwrap().name(), "both");
        let text = error.to_string();
        for part in ["argument 2", "argument 3", "0..4", "3..6", "In ", "InOut", "both"] {
            assert!(text.contains(part), "no `{part}` in {text}");
        }
        for error in [
            spawn!(two(InOut(&a.slice(..)), Out(&a.slice(9..)))).await.unwrap_err(),
            spawn!((|_: &mut Vec<i64>, _: &Vec<i64>| ())(Out(&a), In(&a))).await.unwrap_err(),
            spawn!((|_: &Vec<i64>, _: &mut [i64]| ())(&a, InOut(&a.slice(0..1)))).await.unwrap_err(),
            spawn!((|_: VecMut<i64>| ())(InOut(&a.slice(index([4, 1, 4]))))).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::Aliased { .. }), "{error:?}");
        }
        // Readers may overlap, and so may regions that only look alike.
        spawn!((|x: &[i64], y: &[i64]| x.len() + y.len())(In(&a.slice(..)), In(&a.slice(..)))).await.unwrap();
        spawn!((|_: VecMut<i64>, _: VecMut<i64>| ())(
            InOut(&a.slice(step(0..10, 2))),
            InOut(&a.slice(step(1..10, 2)))
        ))
        .await
        .unwrap();
        assert_eq!(*a.read().await.unwrap(), [0; 10]);
        assert_eq!(*b.read().await.unwrap(), [0; 4]);
    });
}

#[test]
fn an_alias_that_shows_only_at_its_turn_poisons_nothing() {
    on_all_workers(|_rt| async {
        for (len, aliased) in [(10, true), (6, false)] {
            let (a, b, go) = (numbers(8), numbers(4), Gate::new());
            let gate = go.clone();
            spawn!((move |x: &mut Vec<i64>| {
                gate.block();
                x.resize(len, 0);
            })(InOut(&a)));
            // Elements 5 and 9: with a length of six the second region ends before them.
            let task = spawn!((|_: &mut [i64], _: &mut [i64], _: &mut [i64]| ())(
                InOut(&b.slice(..)),
                InOut(&a.slice(..6)),
                InOut(&a.slice(if aliased { 5..10 } else { 6..6 }))
            ));
            go.open();
            match task.await {
                Err(error) => {
                    assert!(aliased && matches!(error, Error::Aliased { .. }), "{error:?}");
                    assert!(error.to_string().contains("argument 2"), "{error}");
                    assert!(error.to_string().contains("argument 3"), "{error}");
                }
                Ok(()) => assert!(!aliased),
            }
            assert_eq!(a.read().await.unwrap().len(), len);
            assert_eq!(*b.read().await.unwrap(), [0; 4]);
        }
    });
}

// Where a chunk lives.

#[test]
fn a_task_runs_where_its_chunks_live() {
    for workers in [2, 8] {
        on_workers(workers, move |_rt| async move {
            for _ in 0..50 {
                for i in [0, workers - 1] {
                    let a = Chunk::new_in(Scope::thread(i), 0i64);
                    let thread = |_: &mut i64| current().unwrap().processor().thread;
                    assert_eq!(spawn!(thread(InOut(&a))).await.unwrap(), i);
                }
            }
        });
    }
}

#[test]
fn chunks_that_live_nowhere_together_leave_no_processor() {
    on_workers(2, |_rt| async {
        let a = Chunk::new_in(Scope::thread(0), vec![0i64; 4]);
        let b = Chunk::new_in(Scope::thread(1), vec![0i64; 4]);
        for error in [
            spawn!((|x: &[i64], y: &[i64]| sum(x) + sum(y))(In(&a.slice(..)), In(&b.slice(..))); name = "torn")
                .await
                .unwrap_err(),
            spawn!(sum(In(&a.slice(..))); name = "torn", scope = Scope::thread(1)).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::NoProcessor { .. }), "{error:?}");
            assert_eq!(error.root().unwrap().name(), "torn");
        }
        assert_eq!(spawn!(sum(In(&a.slice(..))); scope = Scope::threads([0, 1])).await.unwrap(), 0);
        assert_eq!(*a.read().await.unwrap(), [0; 4]);
    });
}

#[test]
fn a_chunk_placed_in_another_runtime_is_foreign() {
    watched(|| {
        let (left, right) = (runtime(1), runtime(1));
        let a = left.block_on(async { Chunk::new_in(Scope::thread(0), vec![0i64; 4]) });
        right.block_on(async {
            let b = numbers(4);
            let task = spawn!(two(InOut(&b.slice(..)), InOut(&a.slice(..))); name = "stranger");
            let error = task.await.unwrap_err();
            assert!(matches!(error, Error::Foreign { .. }), "{error:?}");
            assert_eq!(error.root().unwrap().name(), "stranger");
        });
        left.block_on(async {
            spawn!(fill(Out(&a.slice(..)), 1)).await.unwrap();
            assert_eq!(spawn!(sum(In(&a.slice(..)))).await.unwrap(), 4);
            assert_eq!(*a.read().await.unwrap(), [1; 4]);
        });
    });
}

#[test]
fn a_chunk_orders_the_tasks_of_two_runtimes_and_carries_poison_between_them() {
    for workers in WORKERS {
        watched(move || {
            let (left, right) = (runtime(workers), runtime(1));
            let a = Chunk::new(Vec::<i64>::new());
            for i in 0..2000 {
                let rt = if i % 3 == 0 { &left } else { &right };
                rt.block_on(async { spawn!((move |x: &mut Vec<i64>| x.push(i))(InOut(&a))) });
            }
            let sum = left.block_on(async { spawn!(sum(In(&a.slice(..)))).await });
            assert_eq!(sum.unwrap(), 1999 * 1000);
            assert!(left.block_on(a.read()).unwrap().is_sorted());
            let bad = left.block_on(async { spawn!(fail(InOut(&a.slice(3..5)))?) });
            let refused =
                right.block_on(async { spawn!((|x: &[i64]| x.len())(In(&a.slice(..)))).await }).unwrap_err();
            assert_refused(&refused, &left.block_on(bad).unwrap_err());
            right.block_on(async { spawn!(fill(Out(&a.slice(3..5)), 0)) });
            assert!(left.block_on(a.read()).is_ok());
        });
    }
}

// into_inner

#[test]
fn into_inner_waits_for_what_came_before_and_leaves_nothing_for_what_comes_after() {
    on_all_workers(|_rt| async {
        let (a, census, go) = (numbers(3), Census::new(), Gate::new());
        let kept = Chunk::new((census.item(), 7));
        let other = a.clone();
        let gate = go.clone();
        let before = spawn!((move |x: &mut [i64]| {
            gate.block();
            x.fill(4);
        })(InOut(&a.slice(..))));
        let mut inner = a.into_inner();
        // Its place is taken when it is called.
        let after = spawn!(sum(In(&other.slice(..))));
        let guard = other.read();
        assert!((&mut inner).now_or_never().is_none());
        go.open();
        assert_eq!(inner.await.unwrap(), [4; 3]);
        before.await.unwrap();
        let error = after.await.unwrap_err();
        assert!(matches!(error, Error::Taken { root: Some(_), .. }), "{error:?}");
        assert!(matches!(guard.await.map(drop), Err(Error::Taken { .. })));
        for error in [
            spawn!((|x: &mut Vec<i64>| *x = vec![1])(Out(&other))).await.unwrap_err(),
            spawn!(fill(InOut(&other.slice(..)), 1)).await.unwrap_err(),
            other.write().await.map(drop).unwrap_err(),
            other.recover().await.map(drop).unwrap_err(),
            access((In(&other),)).await.map(drop).unwrap_err(),
            other.into_inner().await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::Taken { .. }), "{error:?}");
        }
        // The value is dropped by whoever took it, once.
        let handle = kept.clone();
        let (item, _) = kept.into_inner().await.unwrap();
        drop(handle);
        assert_eq!(census.dropped(), 0);
        drop(item);
        assert_eq!((census.made(), census.dropped()), (1, 1));
    });
}

#[test]
fn an_into_inner_that_is_dropped_leaves_the_value() {
    on_all_workers(|_rt| async {
        let (a, go) = (numbers(3), Gate::new());
        drop(a.clone().into_inner());
        let gate = go.clone();
        let before = spawn!((move |x: &mut [i64]| {
            gate.block();
            x.fill(2);
        })(InOut(&a.slice(..))));
        let mut inner = a.clone().into_inner();
        assert!((&mut inner).now_or_never().is_none());
        let after = spawn!(sum(In(&a.slice(..))));
        drop(inner);
        go.open();
        before.await.unwrap();
        assert_eq!(after.await.unwrap(), 6);
        assert_eq!(a.into_inner().await.unwrap(), [2; 3]);
    });
}

// from_task

#[test]
fn a_chunk_from_a_task_has_what_the_task_gives() {
    on_all_workers(|_rt| async {
        // The task ends before the chunk is made, or after.
        let task = spawn!((|| vec![2i64; 3])());
        task.wait().await;
        let a = Chunk::from_task(task);
        assert_eq!(spawn!(sum(In(&a.slice(..)))).await.unwrap(), 6);
        let go = Gate::new();
        let gate = go.clone();
        let a = Chunk::from_task(spawn!((move || {
            gate.block();
            vec![3i64; 3]
        })()));
        let (read, guard) = (spawn!(sum(In(&a.slice(1..)))), a.read());
        let wrote = spawn!(fill(Out(&a.slice(..1)), 1));
        let all = spawn!(sum(In(&a.slice(..))));
        let outside = spawn!(sum(In(&a.slice(..4))));
        assert!(!read.is_finished() && !wrote.is_finished());
        go.open();
        drop(guard.await.unwrap());
        assert_eq!((read.await.unwrap(), wrote.await.unwrap(), all.await.unwrap()), (6, (), 7));
        assert!(matches!(outside.await, Err(Error::OutOfBounds { .. })));
        assert_eq!(a.into_inner().await.unwrap(), [1, 3, 3]);
    });
}

#[test]
fn a_chunk_from_a_task_that_failed_has_no_value_for_anybody() {
    on_all_workers(|_rt| async {
        for way in 0..5 {
            let go = Gate::new();
            let gate = go.clone();
            let task: DTask<Vec<i64>> = spawn!(async (|| async move {
                gate.pass().await;
                Err(Failure("no luck".into()))
            })()?; name = "source");
            let id = task.id();
            if way == 1 {
                go.open();
                task.wait().await;
            }
            if way == 2 {
                task.cancel();
            }
            let a = Chunk::from_task(task.clone());
            let readers = [spawn!(sum(In(&a.slice(..)))), spawn!(sum(In(&a.slice(1..2))))];
            let writers = [
                spawn!(fill(Out(&a.slice(..)), 1)),
                spawn!((|x: &mut Vec<i64>| *x = vec![])(Out(&a))),
                spawn!((|x: &mut Vec<i64>| x.push(1))(InOut(&a))),
            ];
            let (guard, recover) = (a.read(), a.recover());
            match way {
                3 => task.cancel(),
                4 => drop(task), // The chunk uses it: it goes on.
                _ => {}
            }
            go.open();
            let mut errors = Vec::new();
            for task in readers {
                errors.push(task.await.unwrap_err());
            }
            for task in writers {
                errors.push(task.await.unwrap_err());
            }
            for error in &errors {
                assert!(matches!(error, Error::Dependency { .. }), "{error:?}");
            }
            errors.push(guard.await.map(drop).unwrap_err());
            errors.push(recover.await.map(drop).unwrap_err());
            errors.push(a.into_inner().await.unwrap_err());
            for error in &errors[5..] {
                assert!(matches!(error, Error::Poisoned { .. }), "{error:?}");
            }
            for error in errors {
                assert_eq!(
                    (error.root().unwrap().id(), error.root().unwrap().name()),
                    (id, "source"),
                    "way {way}"
                );
                let cancelled = way == 2 || way == 3;
                assert_eq!(error.downcast_ref::<Failure>().is_some(), !cancelled, "way {way}: {error}");
            }
        }
    });
}

#[test]
fn the_value_of_a_chunk_is_dropped_once_however_it_came_there() {
    on_all_workers(|rt| async move {
        for _ in 0..20 {
            let census = Census::new();
            let make = census.clone();
            let a: Chunk<Item> = Chunk::from_task(spawn!((move || make.item())()));
            spawn!((|_: &mut Item| -> () { panic!("x") })(InOut(&a)));
            spawn!((|_: &Item| ())(In(&a)));
            drop(a);
            rt.idle().await;
            assert_eq!((census.made(), census.dropped()), (1, 1));
        }
    });
}

// Retries.

#[test]
fn with_retry_mutated_an_inout_is_tried_again_on_what_it_left() {
    on_all_workers(|_rt| async {
        let a = Chunk::new(vec![0i64; 1]);
        fn again(x: &mut [i64], enough: i64) -> Result<i64, Failure> {
            x[0] += 1;
            if x[0] < enough { Err(Failure(format!("try {}", x[0]))) } else { Ok(x[0]) }
        }
        let task = spawn!(again(InOut(&a.slice(..)), 3)?; retries = 5, retry_mutated = true);
        let after = spawn!(sum(In(&a.slice(..))));
        assert_eq!((task.await.unwrap(), after.await.unwrap()), (3, 3));
        // One that never succeeds poisons when the last try has failed.
        let task = spawn!(again(InOut(&a.slice(..)), 100)?; retries = 2, retry_mutated = true);
        let error = task.await.unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>().unwrap().0, "try 6");
        assert_poisoned(&read_error(&a).await, &error);
        let guard = a.recover().await.unwrap();
        assert_eq!(*guard, [6]);
    });
}

#[test]
fn with_retry_mutated_an_async_inout_is_tried_again_after_a_panic() {
    on_all_workers(|_rt| async {
        let a = Chunk::new(0i64);
        async fn again(x: &mut i64) -> i64 {
            tokio::task::yield_now().await;
            *x += 1;
            assert!(*x > 2, "too early");
            *x
        }
        let task = spawn!(async again(InOut(&a)); retries = 5, retry_mutated = true);
        assert_eq!(task.await.unwrap(), 3);
        assert_eq!(*a.read().await.unwrap(), 3);
    });
}

#[test]
fn in_and_out_are_tried_again_without_a_word() {
    on_all_workers(|_rt| async {
        let (a, b) = (numbers(3), numbers(3));
        let tries = Arc::new(AtomicU32::new(0));
        let count = tries.clone();
        let task = spawn!((move |x: &[i64], y: &mut [i64]| {
            y.fill(7);
            match count.fetch_add(1, SeqCst) {
                0 => panic!("first"),
                1 => Err(Failure("second".into())),
                _ => Ok(sum(x) + sum(y)),
            }
        })(In(&a.slice(..)), Out(&b.slice(1..)))?; retries = 4);
        assert_eq!((task.await.unwrap(), tries.load(SeqCst)), (14, 3));
        assert_eq!(*b.read().await.unwrap(), [0, 7, 7]);
        // A refused task is not tried: what it needs does not come back.
        spawn!(fail(InOut(&a.slice(..)))?);
        let runs = Arc::new(AtomicU32::new(0));
        let count = runs.clone();
        let task = spawn!((move |_: &[i64]| count.fetch_add(1, SeqCst))(In(&a.slice(..))); retries = 4);
        assert!(matches!(task.await, Err(Error::Dependency { .. })));
        assert_eq!(runs.load(SeqCst), 0);
    });
}

#[test]
fn a_writer_cancelled_between_two_tries_poisons() {
    on_all_workers(|_rt| async {
        let (a, started) = (numbers(3), Gate::new());
        let gate = started.clone();
        let task = spawn!((move |_: &mut [i64]| -> () {
            gate.open();
            panic!("x")
        })(Out(&a.slice(..))); retries = 5, retry_delay = Duration::from_secs(3600));
        started.pass().await;
        task.cancel();
        let error = task.await.unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error:?}");
        assert_poisoned(&read_error(&a).await, &error);
        ready(()).await;
    });
}

#[test]
fn an_access_that_fails_in_part_heals_nothing() {
    on_all_workers(|_rt| async {
        let (c, d) = (numbers(4), numbers(4));
        let _ = spawn!(fail(InOut(&c.slice(0..2)))?).await;
        // While it is written the length of `d` is not known: its bounds are checked at the turn.
        let write = d.write();
        let both = access((Out(&c.slice(0..2)), In(&d.slice(0..99))));
        drop(write);
        assert!(matches!(both.await.map(drop), Err(Error::OutOfBounds { .. })));
        assert!(
            matches!(c.slice(0..2).read().await.map(drop), Err(Error::Poisoned { .. })),
            "nobody wrote it"
        );
    });
}

#[test]
fn a_whole_write_that_fails_poisons_what_it_has_made_and_all_its_elements_heal_it() {
    on_all_workers(|_rt| async {
        let c = numbers(4);
        spawn!(fill(InOut(&c.slice(0..4)), 3)).await.unwrap(); // Its length is known from here on.
        let grow = |x: &mut Vec<i64>| -> Result<(), Failure> {
            x.extend([1; 4]);
            Err(Failure("no luck".into()))
        };
        let _ = spawn!((grow)(InOut(&c))?).await;
        spawn!(fill(Out(&c.slice(0..4)), 5)).await.unwrap();
        assert_eq!(*c.slice(0..4).read().await.unwrap(), [5; 4]);
        assert!(c.slice(6..8).read().await.is_err(), "beyond the length that it had before");
        assert!(c.read().await.is_err());
        spawn!(fill(Out(&c.slice(4..)), 6)).await.unwrap();
        assert_eq!(*c.read().await.unwrap(), [5, 5, 5, 5, 6, 6, 6, 6]);
    });
}

/// An error whose drop panics.
#[derive(Debug)]
struct Bomb;

impl std::fmt::Display for Bomb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a bomb")
    }
}

impl std::error::Error for Bomb {}

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the drop of an error");
    }
}

#[test]
fn an_error_that_panics_when_its_chunk_is_dropped_costs_nobody_else() {
    on_all_workers(|_| async {
        let chunk = Chunk::new(vec![0u64; 4]);
        let gate = Gate::new();
        let fails = spawn!((|_: &mut Vec<u64>| -> Result<(), Bomb> { Err(Bomb) })(InOut(&chunk))?);
        fails.wait().await;
        let held = gate.clone();
        // Heals a part: the error stays with the rest, and the queue is the last owner of the chunk.
        let heals = spawn!((move |_: &mut [u64]| held.block())(Out(&chunk.slice(0..1))));
        drop(chunk);
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(fails)));
        gate.open();
        heals.await.unwrap();
    });
}
