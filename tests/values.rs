//! What happens to the value of a task: who moves it, who clones it, who waits for it, and that it is dropped once.
#![allow(
    clippy::unwrap_used,
    clippy::async_yields_async,
    reason = "helpers of tests; blocks that hand out handles"
)]
#![deny(unused_must_use)]

use dagger_async::prelude::*;
use futures::FutureExt;
use futures::task::noop_waker;
use std::future::Future;
use std::marker::PhantomPinned;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Runs a test on a thread of its own and fails by its name when it hangs.
fn guarded(body: impl FnOnce() + Send + 'static) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let (done, ended) = mpsc::channel();
    let body = move || {
        body();
        let _ = done.send(());
    };
    let thread = std::thread::Builder::new().name(name.clone()).stack_size(32 << 20).spawn(body).unwrap();
    if ended.recv_timeout(Duration::from_secs(120)) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("{name} hangs");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn runtime(threads: usize) -> Runtime {
    Runtime::builder().threads(threads).pin(false).name("values").build().unwrap()
}

/// Counts its instances.
#[derive(Default)]
struct Counts {
    made: AtomicUsize,
    cloned: AtomicUsize,
    dropped: AtomicUsize,
    dropped_again: AtomicUsize,
}

impl Counts {
    fn make(self: &Arc<Self>) -> Tracked {
        self.made.fetch_add(1, SeqCst);
        Tracked(self.make_unique())
    }
    fn make_unique(self: &Arc<Self>) -> Unique {
        Unique { magic: Box::new(ALIVE), counts: self.clone() }
    }
    fn cloned(&self) -> usize {
        self.cloned.load(SeqCst)
    }
    #[track_caller]
    fn assert_all_dropped_once(&self) {
        let all = self.made.load(SeqCst) + self.cloned();
        assert_eq!(self.dropped.load(SeqCst), all, "{all} instances were made");
        assert_eq!(self.dropped_again.load(SeqCst), 0, "instances were dropped twice");
    }
}

const ALIVE: u64 = 0x0A11_7E00_0A11_7E00;

/// Not `Clone`.
struct Unique {
    magic: Box<u64>,
    counts: Arc<Counts>,
}

impl Drop for Unique {
    fn drop(&mut self) {
        self.counts.dropped.fetch_add(1, SeqCst);
        if std::mem::replace(&mut *self.magic, 0) != ALIVE {
            self.counts.dropped_again.fetch_add(1, SeqCst);
        }
    }
}

struct Tracked(Unique);

impl Tracked {
    fn is_alive(&self) -> bool {
        *self.0.magic == ALIVE
    }
}

impl Clone for Tracked {
    fn clone(&self) -> Self {
        assert!(self.is_alive());
        self.0.counts.cloned.fetch_add(1, SeqCst);
        Tracked(self.0.counts.make_unique())
    }
}

fn look(value: &Tracked) -> bool {
    value.is_alive()
}
fn eat(value: Tracked) -> bool {
    value.is_alive()
}

/// A waker that remembers whether it was used.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

fn flag_waker() -> (Arc<Flag>, Waker) {
    let flag = Arc::new(Flag::default());
    (flag.clone(), Waker::from(flag))
}

fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

// Bounds.

fn is_send<T: Send>() {}
fn is_sync<T: Sync>() {}
fn is_unpin<T: Unpin>() {}
fn is_static<T: 'static>() {}
fn is_clone<T: Clone>() {}

/// `Send + Sync`, neither `Unpin` nor `Clone`.
struct Pinned(PhantomPinned);

#[test]
fn handles_are_unpin_send_and_sync_whatever_the_value() {
    is_unpin::<DTask<Pinned>>();
    is_send::<DTask<Pinned>>();
    is_sync::<DTask<Pinned>>();
    is_static::<DTask<Pinned>>();
    is_send::<Shared<Pinned>>();
    is_sync::<Shared<Pinned>>();
    is_clone::<DTask<String>>();
    is_clone::<Shared<Pinned>>();
    is_send::<Error>();
    is_sync::<Error>();
    is_clone::<Error>();
    is_send::<Runtime>();
    is_sync::<Runtime>();
    is_send::<Options>();
    is_sync::<Options>();
    is_send::<CancelToken>();
    is_sync::<CancelToken>();
    is_send::<Current>();
    // `spawn` takes `Send` futures: those of awaiting a handle, by value and by reference, must be.
    fn send_future<F: Future + Send>(_: &F) {}
    let task = spawn!((|| Pinned(PhantomPinned))());
    send_future(&async {
        let shared = (&task).await;
        task.wait().await;
        drop(shared);
        task.await.map(drop)
    });
}

#[test]
fn a_handle_may_be_ignored() {
    // Does not compile (see the top of the file) if `DTask` is `#[must_use]`.
    spawn!((|| 1)());
    spawn(async {});
}

// By value: moved if last, else cloned.

#[test]
fn the_last_use_by_value_moves() {
    guarded(|| {
        for threads in [1, 2] {
            let rt = runtime(threads);
            let counts = Arc::new(Counts::default());
            rt.block_on(async {
                let c = counts.clone();
                assert!(spawn!((move || c.make())()).await.unwrap().is_alive());
                let c = counts.clone();
                let task = spawn!((move || c.make())());
                assert!(spawn!(eat(task)).await.unwrap());
                // Uses by reference that have ended count no more.
                let c = counts.clone();
                let task = spawn!((move || c.make())());
                assert!(spawn!(look(&task)).await.unwrap());
                rt.idle().await;
                assert!(spawn!(eat(task)).await.unwrap());
                // A clone of the handle that was dropped, too.
                let c = counts.clone();
                let task = spawn!((move || c.make())());
                drop(task.clone());
                assert!(spawn!(eat(task)).await.unwrap());
                rt.idle().await;
            });
            assert_eq!(counts.cloned(), 0);
            counts.assert_all_dropped_once();
        }
    });
}

#[test]
fn of_n_uses_by_value_all_but_the_last_clone() {
    guarded(|| {
        let rt = runtime(1);
        let counts = Arc::new(Counts::default());
        rt.block_on(async {
            let c = counts.clone();
            let task = spawn!((move || c.make())());
            let eaters: Vec<_> =
                (0..9).map(|_| spawn!(eat(task.clone()))).chain([spawn!(eat(task.clone()))]).collect();
            drop(task);
            assert!(wait_all(eaters).await.into_iter().all(|ok| ok.unwrap()));
            rt.idle().await;
        });
        assert_eq!(counts.cloned(), 9);
        counts.assert_all_dropped_once();
    });
}

#[test]
fn a_use_by_value_clones_while_the_handle_lives() {
    guarded(|| {
        let rt = runtime(2);
        let counts = Arc::new(Counts::default());
        rt.block_on(async {
            let c = counts.clone();
            let task = spawn!((move || c.make())());
            let other = task.clone();
            assert!(spawn!(eat(other)).await.unwrap());
            assert_eq!(counts.cloned(), 1);
            let shared = (&task).await.unwrap();
            assert!(task.clone().await.unwrap().is_alive());
            assert_eq!(counts.cloned(), 2);
            // A live `Shared` is a use as well: the value is cloned out, not waited for.
            assert!(task.await.unwrap().is_alive());
            assert_eq!(counts.cloned(), 3);
            assert!(shared.is_alive());
        });
        counts.assert_all_dropped_once();
    });
}

#[test]
fn awaiting_by_reference_clones_nothing() {
    guarded(|| {
        let rt = runtime(2);
        let counts = Arc::new(Counts::default());
        rt.block_on(async {
            let c = counts.clone();
            let task = spawn!((move || c.make())());
            for _ in 0..3 {
                assert!((&task).await.unwrap().is_alive());
                assert!(spawn!(look(&task)).await.unwrap());
            }
            let shared = (&task).await.unwrap();
            let again = shared.clone();
            drop((task, shared));
            assert!(again.is_alive());
            assert_eq!(counts.dropped.load(SeqCst), 0);
        });
        assert_eq!(counts.cloned(), 0);
        counts.assert_all_dropped_once();
    });
}

#[test]
fn the_borrowed_and_the_moved_value_of_one_call_are_one_clone_apart() {
    guarded(|| {
        let rt = runtime(2);
        let counts = Arc::new(Counts::default());
        let (same, alive) = rt.block_on(async {
            let c = counts.clone();
            let task = spawn!((move || c.make())());
            spawn!((|by_ref: &Tracked, by_value: Tracked| {
                (std::ptr::eq(by_ref, &by_value), by_ref.is_alive() && by_value.is_alive())
            })(&task.clone(), task))
            .await
            .unwrap()
        });
        assert!(alive && !same);
        rt.block_on(rt.idle());
        counts.assert_all_dropped_once();
    });
}

// Values that are not `Clone`.

#[test]
fn a_use_by_value_waits_for_a_running_use_by_reference() {
    guarded(|| {
        for by_await in [false, true] {
            let rt = runtime(2);
            let (started, has_started) = mpsc::channel();
            let (release, released) = mpsc::channel::<()>();
            let released = std::sync::Mutex::new(released);
            let reader_ended = Arc::new(AtomicBool::new(false));
            let order = reader_ended.clone();
            rt.block_on(async {
                let task = spawn!((|| Pinned(PhantomPinned))());
                let reader = spawn!((move |_: &Pinned| {
                    started.send(()).unwrap();
                    released.lock().unwrap().recv().unwrap();
                    order.store(true, SeqCst);
                })(&task));
                has_started.recv().unwrap();
                let seen = reader_ended.clone();
                let taker = match by_await {
                    false => spawn!((move |_: Pinned| seen.load(SeqCst))(task)),
                    true => spawn(async move { task.await.map(|_| seen.load(SeqCst)).unwrap() }),
                };
                // Give the taker every chance to go wrong: the other worker is free.
                for _ in 0..100 {
                    spawn!((|| ())()).await.unwrap();
                }
                assert!(!taker.is_finished());
                release.send(()).unwrap();
                assert!(taker.await.unwrap(), "taken while it was borrowed");
                reader.await.unwrap();
            });
        }
    });
}

#[test]
fn a_use_by_value_waits_for_a_live_shared() {
    guarded(|| {
        let rt = runtime(1);
        let (shared, mut task) = rt.block_on(async {
            let task = spawn!((|| Pinned(PhantomPinned))());
            ((&task).await.unwrap(), task)
        });
        let (flag, waker) = flag_waker();
        assert!(poll_once(&mut task, &waker).is_pending());
        let second = shared.clone();
        drop(shared);
        assert!(poll_once(&mut task, &waker).is_pending());
        assert!(!flag.0.load(SeqCst), "woken although a `Shared` lives");
        drop(second);
        assert!(flag.0.load(SeqCst), "not woken by the end of the last use by reference");
        assert!(matches!(poll_once(&mut task, &waker), Poll::Ready(Ok(_))));
    });
}

#[test]
fn only_the_last_waker_is_told_of_the_last_shared() {
    guarded(|| {
        let rt = runtime(1);
        let (shared, mut task) = rt.block_on(async {
            let task = spawn!((|| Pinned(PhantomPinned))());
            ((&task).await.unwrap(), task)
        });
        let (_, first) = flag_waker();
        assert!(poll_once(&mut task, &first).is_pending());
        let (flag, second) = flag_waker();
        assert!(poll_once(&mut task, &second).is_pending());
        drop(shared);
        assert!(flag.0.load(SeqCst));
        assert!(poll_once(&mut task, &second).is_ready());
    });
}

#[test]
fn the_end_of_the_last_shared_races_with_polls_of_the_owner() {
    // thread A            thread B
    // drop(shared)   ╳    poll the handle until it takes the value, then drop it: the cell is freed
    guarded(|| {
        let rt = runtime(1);
        let counts = Arc::new(Counts::default());
        let rounds = if cfg!(debug_assertions) { 30_000 } else { 60_000 };
        let (give, shares) = mpsc::sync_channel::<Shared<Unique>>(0);
        let dropper = std::thread::spawn(move || shares.into_iter().for_each(drop));
        for _ in 0..rounds {
            counts.made.fetch_add(1, SeqCst);
            let c = counts.clone();
            let (shared, mut task) = rt.block_on(async {
                let task = spawn!((move || c.make_unique())());
                ((&task).await.unwrap(), task)
            });
            let waker = noop_waker();
            assert!(poll_once(&mut task, &waker).is_pending());
            give.send(shared).unwrap();
            let mut polls = 0;
            let value = loop {
                if let Poll::Ready(value) = poll_once(&mut task, &waker) {
                    break value.unwrap();
                }
                polls += 1;
                if polls % 256 == 0 {
                    std::thread::yield_now(); // On a single core the other thread has to come in.
                }
            };
            drop(task);
            assert_eq!(*value.magic, ALIVE);
        }
        drop(give);
        dropper.join().unwrap();
        counts.assert_all_dropped_once();
    });
}

#[test]
fn the_end_of_the_last_shared_races_with_the_drop_of_the_owner() {
    guarded(|| {
        let rt = runtime(1);
        let counts = Arc::new(Counts::default());
        let rounds = if cfg!(debug_assertions) { 30_000 } else { 60_000 };
        let (give, shares) = mpsc::sync_channel::<Shared<Unique>>(0);
        let dropper = std::thread::spawn(move || shares.into_iter().for_each(drop));
        for _ in 0..rounds {
            counts.made.fetch_add(1, SeqCst);
            let c = counts.clone();
            let (shared, mut task) = rt.block_on(async {
                let task = spawn!((move || c.make_unique())());
                ((&task).await.unwrap(), task)
            });
            assert!(poll_once(&mut task, &noop_waker()).is_pending());
            give.send(shared).unwrap();
            drop(task); // As a timeout around the await does.
        }
        drop(give);
        dropper.join().unwrap();
        counts.assert_all_dropped_once();
    });
}

#[test]
fn many_shareds_dropped_at_once_let_the_owner_go_on() {
    guarded(|| {
        let rt = runtime(2);
        for _ in 0..500 {
            rt.block_on(async {
                let task = spawn!((|| Pinned(PhantomPinned))());
                let shared = (&task).await.unwrap();
                let holders: Vec<_> =
                    (0..8).map(|_| shared.clone()).map(|shared| spawn!((drop)(shared))).collect();
                drop(shared);
                task.await.unwrap();
                wait_all(holders).await;
            });
        }
    });
}

// Shared.

#[test]
fn a_shared_outlives_its_handle_and_its_runtime() {
    guarded(|| {
        let rt = runtime(2);
        let shared = rt.block_on(async {
            let task = spawn!((|| vec![1, 2, 3])());
            (&task).await.unwrap()
        });
        assert_eq!(shared.iter().sum::<i32>(), 6);
        futures::executor::block_on(rt.shutdown());
        assert_eq!(*shared, [1, 2, 3]);
        assert_eq!(format!("{shared:?}"), "[1, 2, 3]");
        let other = std::thread::spawn(move || shared.len()).join().unwrap();
        assert_eq!(other, 3);
    });
}

// Wrappers.

#[test]
fn value_hands_over_the_handle_itself() {
    guarded(|| {
        let rt = runtime(1);
        rt.block_on(async {
            let (open, gate) = tokio::sync::oneshot::channel::<i32>();
            let inner = spawn(async move { gate.await.unwrap() });
            let id = inner.id();
            // No edge: the outer task runs although the inner one cannot end yet.
            let outer = spawn!((move |task: DTask<i32>| {
                assert!(!task.is_finished());
                (task.id() == id, task)
            })(Value(inner)));
            let (same, inner) = outer.await.unwrap();
            assert!(same);
            open.send(5).unwrap();
            assert_eq!(inner.await.unwrap(), 5);
        });
    });
}

#[test]
fn await_gives_the_output_as_it_is() {
    guarded(|| {
        let rt = runtime(1);
        rt.block_on(async {
            let good = spawn!((|x: Result<i32, String>| x)(Await(async { Ok::<i32, String>(3) })));
            assert_eq!(good.await.unwrap(), Ok(3));
            // An `Err` is a value like any other: the callee runs.
            let bad = spawn!((|x: Result<i32, String>| x.unwrap_err())(Await(async {
                Err::<i32, _>("no".to_owned())
            })));
            assert_eq!(bad.await.unwrap(), "no");
            let failed = spawn!((|| -> i32 { panic!("no value") })());
            let looked = spawn!((|x: dagger_async::Result<i32>| x.is_err())(Await(failed)));
            assert!(looked.await.unwrap());
            let late = spawn!((|x: i32, y: i32| x + y)(
                Await(async {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    1
                }),
                spawn!((|| 2)())
            ));
            assert_eq!(late.await.unwrap(), 3);
            let panicked = spawn!((|x: i32| x)(Await(async { panic!("in the argument") })));
            assert!(panicked.await.unwrap_err().to_string().contains("in the argument"));
        });
    });
}

// Layouts.

#[derive(Clone, PartialEq, Debug)]
struct Nothing;

#[derive(Clone)]
#[repr(align(128))]
struct Aligned(u8);

/// A mebibyte. Unoptimised code copies it on the stack several times, so that a worker's 4 MiB do not take it.
const LARGE: usize = if cfg!(debug_assertions) { 1 << 16 } else { 1 << 20 };

fn is_aligned<T>(value: &T) -> bool {
    std::ptr::from_ref(value).addr().is_multiple_of(align_of::<T>())
}

#[test]
fn values_of_every_layout_arrive() {
    guarded(|| {
        let rt = runtime(2);
        rt.block_on(async {
            let zst = spawn!((|| Nothing)());
            assert!(spawn!((|x: &Nothing| is_aligned(x))(&zst)).await.unwrap());
            assert_eq!(zst.await.unwrap(), Nothing);
            let unit = spawn!((|| ())());
            spawn!((|(): ()| ())(unit)).await.unwrap();

            let aligned = spawn!((|| Aligned(7))());
            let shared = (&aligned).await.unwrap();
            assert!(is_aligned(&*shared) && shared.0 == 7);
            let by_ref = spawn!((|x: &Aligned| is_aligned(x) && x.0 == 7)(&aligned));
            let by_value = spawn!((|x: Aligned| is_aligned(&x) && x.0 == 7)(aligned));
            assert!(by_ref.await.unwrap() && by_value.await.unwrap());
            // Aligned captures and aligned futures, too.
            let capture = Aligned(9);
            assert!(spawn!((move || is_aligned(&capture) && capture.0 == 9)()).await.unwrap());
            let held = Aligned(3);
            let future = spawn(async move {
                tokio::task::yield_now().await;
                is_aligned(&held) && held.0 == 3
            });
            assert!(future.await.unwrap());

            let large = spawn!((|| [7u8; LARGE])());
            let sum = spawn!((|x: &[u8; LARGE]| x.iter().map(|&x| usize::from(x)).sum::<usize>())(&large));
            let first = spawn!((|x: [u8; LARGE]| x[LARGE / 2])(large.clone()));
            assert_eq!((sum.await.unwrap(), first.await.unwrap()), (7 * LARGE, 7));
            assert_eq!(large.await.unwrap()[12345], 7);

            let never: DTask<Result<std::convert::Infallible, u8>> = spawn!((|| Err(3))());
            assert_eq!(never.await.unwrap(), Err(3));
        });
    });
}

// Taking twice.

#[test]
fn a_second_await_through_a_mutable_borrow_is_taken() {
    guarded(|| {
        let rt = runtime(1);
        rt.block_on(async {
            let mut task = spawn!((|| "once".to_owned())(); name = "giver");
            assert_eq!((&mut task).await.unwrap(), "once");
            let error = (&mut task).await.unwrap_err();
            assert!(matches!(error, Error::Taken { .. }), "{error}");
            assert_eq!(error.root().unwrap().name(), "giver");
            assert!(matches!((&task).await.unwrap_err(), Error::Taken { .. }));
            assert!(task.is_finished());
            let dependant = spawn!((|text: String| text.len())(task));
            assert!(dependant.await.is_err());
        });
    });
}

#[test]
fn a_clone_of_the_handle_still_gives_the_value_after_an_await_through_a_borrow() {
    guarded(|| {
        let rt = runtime(1);
        rt.block_on(async {
            let mut task = spawn!((|| "twice".to_owned())());
            let other = task.clone();
            assert_eq!((&mut task).await.unwrap(), "twice");
            assert_eq!(other.await.unwrap(), "twice");
        });
    });
}

#[test]
fn a_failed_task_tells_its_error_each_time() {
    guarded(|| {
        let rt = runtime(1);
        rt.block_on(async {
            let mut task = spawn!((|| -> i32 { panic!("again and again") })());
            for _ in 0..3 {
                assert!(matches!((&mut task).await, Err(Error::Panicked { .. })));
                assert!(matches!((&task).await, Err(Error::Panicked { .. })));
            }
        });
    });
}

// Dropped once, in every interleaving.

#[derive(Clone, Copy, Debug)]
enum Fate {
    HandleDroppedAtOnce,
    HandleDroppedAfterTheEnd,
    Awaited,
    Borrowed,
    CancelledAtOnce,
    CancelledWhileSuspended,
    PassedOn,
    PassedToFailing,
    PassedToPanicking,
    PassedToCancelled,
    PassedBesideFailed,
    TakenByTwo,
    HeldAsShared,
    InsideBulkDropped,
    NeverPolledFuture,
    PolledOnceThenDropped,
}

const FATES: [Fate; 16] = {
    use Fate::*;
    [
        HandleDroppedAtOnce,
        HandleDroppedAfterTheEnd,
        Awaited,
        Borrowed,
        CancelledAtOnce,
        CancelledWhileSuspended,
        PassedOn,
        PassedToFailing,
        PassedToPanicking,
        PassedToCancelled,
        PassedBesideFailed,
        TakenByTwo,
        HeldAsShared,
        InsideBulkDropped,
        NeverPolledFuture,
        PolledOnceThenDropped,
    ]
};

/// Makes a value in a task, as a function or as a future that suspends, and lets it meet its fate. The closure owns
/// values, too.
async fn meet(fate: Fate, asynchronous: bool, counts: &Arc<Counts>) {
    let capture = counts.make();
    let make = {
        let counts = counts.clone();
        move || {
            assert!(capture.is_alive());
            counts.make()
        }
    };
    let start = || match asynchronous {
        false => spawn!(make()),
        true => spawn(async move {
            tokio::task::yield_now().await;
            make()
        }),
    };
    fn fail(_: Tracked) -> Result<u8, std::fmt::Error> {
        Err(std::fmt::Error)
    }
    match fate {
        Fate::HandleDroppedAtOnce => drop(start()),
        Fate::HandleDroppedAfterTheEnd => {
            let task = start();
            task.wait().await;
            drop(task);
        }
        Fate::Awaited => assert!(start().await.unwrap().is_alive()),
        Fate::Borrowed => assert!((&start()).await.unwrap().is_alive()),
        Fate::CancelledAtOnce => {
            let task = start();
            task.cancel();
            drop(task);
        }
        Fate::CancelledWhileSuspended => {
            let held = counts.make();
            let task = spawn(async move {
                let _held = held;
                std::future::pending::<()>().await;
            });
            tokio::task::yield_now().await;
            task.cancel();
            assert!(matches!(task.await, Err(Error::Cancelled { .. })));
            drop(start());
        }
        Fate::PassedOn => drop(spawn!(eat(start()))),
        Fate::PassedToFailing => drop(spawn!(fail(start())?).await),
        Fate::PassedToPanicking => drop(spawn!((|_: Tracked| -> u8 { panic!("fate") })(start())).await),
        Fate::PassedToCancelled => {
            let task = spawn!(eat(start()));
            task.cancel();
        }
        Fate::PassedBesideFailed => {
            let failed = spawn!((|| -> Result<u8, std::fmt::Error> { Err(std::fmt::Error) })()?);
            let both = spawn!((|_: u8, _: Tracked| ())(failed, start()));
            assert!(both.await.is_err());
        }
        Fate::TakenByTwo => {
            let task = start();
            let one = spawn!(eat(task.clone()));
            let two = spawn!(eat(task));
            assert!(one.await.unwrap() && two.await.unwrap());
        }
        Fate::HeldAsShared => {
            let task = start();
            let shared = (&task).await.unwrap();
            let taker = spawn!(eat(task));
            assert!(shared.is_alive());
            drop(taker);
            assert!(shared.is_alive());
        }
        Fate::InsideBulkDropped => {
            let mut block = Box::pin(bulk(async {
                let task = start();
                let _next = spawn!(eat(task));
                std::future::pending::<()>().await
            }));
            assert!(futures::poll!(&mut block).is_pending());
            drop(block);
        }
        Fate::NeverPolledFuture => {
            let task = start();
            drop(async move { task.await.is_ok() });
        }
        Fate::PolledOnceThenDropped => {
            let mut task = start();
            let _ = futures::poll!(&mut task);
            let mut by_ref = std::future::IntoFuture::into_future(&task);
            let _ = futures::poll!(&mut by_ref);
            drop(by_ref);
            drop(task);
        }
    }
}

#[test]
fn each_value_is_dropped_once_whatever_its_fate() {
    guarded(|| {
        let rounds = if cfg!(debug_assertions) { 40 } else { 200 };
        for threads in [1, 2, 4] {
            let rt = runtime(threads);
            for fate in FATES {
                for asynchronous in [false, true] {
                    let counts = Arc::new(Counts::default());
                    rt.block_on(async {
                        for _ in 0..rounds {
                            meet(fate, asynchronous, &counts).await;
                        }
                        rt.idle().await;
                    });
                    let all = counts.made.load(SeqCst) + counts.cloned();
                    assert_eq!(
                        counts.dropped.load(SeqCst),
                        all,
                        "{fate:?}, {threads} workers, async: {asynchronous}"
                    );
                    counts.assert_all_dropped_once();
                    // Nothing keeps what closures and futures owned.
                    assert_eq!(
                        Arc::strong_count(&counts),
                        1,
                        "{fate:?}, {threads} workers, async: {asynchronous}"
                    );
                }
            }
        }
    });
}

#[test]
fn each_value_is_dropped_once_when_fates_meet_from_many_threads() {
    guarded(|| {
        let rt = Arc::new(runtime(2));
        let counts = Arc::new(Counts::default());
        let rounds = if cfg!(debug_assertions) { 100 } else { 500 };
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (rt, counts) = (rt.clone(), counts.clone());
                std::thread::spawn(move || {
                    for round in 0..rounds {
                        let fate = FATES[(thread * 5 + round * 7) % FATES.len()];
                        rt.block_on(meet(fate, round % 2 == 0, &counts));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        rt.block_on(rt.idle());
        counts.assert_all_dropped_once();
        assert_eq!(Arc::strong_count(&counts), 1);
    });
}

#[test]
fn a_cancel_races_with_the_body_and_the_handle() {
    // canceller       worker          owner
    // cancel()   ╳    body returns ╳  drop / await
    guarded(|| {
        let rt = runtime(2);
        let counts = Arc::new(Counts::default());
        let (give, handles) = mpsc::sync_channel::<DTask<Tracked>>(0);
        let canceller = std::thread::spawn(move || handles.into_iter().for_each(|task| task.cancel()));
        let rounds = if cfg!(debug_assertions) { 15_000 } else { 40_000 };
        for round in 0..rounds {
            let c = counts.clone();
            rt.block_on(async {
                let task = spawn!((move || c.make())());
                let next = (round % 3 == 0).then(|| spawn!(look(&task)));
                give.send(task.clone()).unwrap();
                match round % 4 {
                    0 => drop(task),
                    1 => match task.await {
                        Ok(value) => assert!(value.is_alive()),
                        Err(error) => assert!(matches!(error, Error::Cancelled { .. }), "{error}"),
                    },
                    2 => match (&task).await {
                        Ok(value) => assert!(value.is_alive()),
                        Err(error) => assert!(matches!(error, Error::Cancelled { .. }), "{error}"),
                    },
                    _ => task.wait().await,
                }
                if let Some(next) = next
                    && let Err(error) = next.await
                {
                    assert!(matches!(error, Error::Dependency { .. }), "{error}");
                }
            });
        }
        drop(give);
        canceller.join().unwrap();
        rt.block_on(rt.idle());
        counts.assert_all_dropped_once();
    });
}

#[test]
fn an_arc_in_a_closure_is_freed_when_the_task_ends_not_when_its_handle_goes() {
    guarded(|| {
        let rt = runtime(2);
        let owned = Arc::new(());
        let (sync, asynchronous) = rt.block_on(async {
            let (one, two) = (owned.clone(), owned.clone());
            let sync = spawn!((move || Arc::strong_count(&one))());
            let asynchronous = spawn(async move {
                tokio::task::yield_now().await;
                Arc::strong_count(&two)
            });
            sync.wait().await;
            asynchronous.wait().await;
            (sync, asynchronous)
        });
        assert_eq!(Arc::strong_count(&owned), 1);
        drop((sync, asynchronous));
    });
}

// User code that panics in between.

/// Panics when it is cloned or dropped, as asked.
struct Touchy {
    in_clone: bool,
    in_drop: bool,
}

impl Clone for Touchy {
    fn clone(&self) -> Self {
        assert!(!self.in_clone, "in clone");
        Touchy { ..*self }
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        if self.in_drop && !std::thread::panicking() {
            panic!("in drop");
        }
    }
}

#[test]
fn a_panic_in_clone_fails_the_use_and_nothing_else() {
    guarded(|| {
        let rt = runtime(1);
        rt.block_on(async {
            let task = spawn!((|| Touchy { in_clone: true, in_drop: false })());
            let dependant = spawn!((|_: Touchy| ())(task.clone()));
            let error = dependant.await.unwrap_err();
            assert!(error.to_string().contains("in clone"), "{error}");
            let error = task.clone().await.err().unwrap();
            assert!(error.to_string().contains("in clone"), "{error}");
            assert!((&task).await.is_ok());
            assert!(spawn!((|x: &Touchy| x.in_clone)(&task)).await.unwrap());
            rt.idle().await;
            assert!(task.await.is_ok(), "the last use moves");
            assert_eq!(spawn!((|| 1)()).await.unwrap(), 1);
        });
    });
}

#[test]
fn a_panic_in_the_drop_of_a_result_costs_no_worker() {
    guarded(|| {
        let rt = runtime(1);
        rt.block_on(async {
            for _ in 0..20 {
                drop(spawn!((|| Touchy { in_clone: false, in_drop: true })()));
                let task = spawn!((|| Touchy { in_clone: false, in_drop: true })());
                task.wait().await;
                drop(task); // Here, on the caller's thread: caught as well.
                let capture = Touchy { in_clone: false, in_drop: true };
                spawn!((move || drop(capture))());
                let capture = Touchy { in_clone: false, in_drop: true };
                let cancelled = spawn(async move {
                    let _capture = capture;
                    std::future::pending::<()>().await;
                });
                tokio::task::yield_now().await;
                cancelled.cancel();
            }
            rt.idle().await;
            assert_eq!(spawn!((|| 1)()).await.unwrap(), 1);
        });
        futures::executor::block_on(rt.shutdown());
    });
}

#[test]
fn a_panic_in_the_drop_of_an_argument_costs_no_worker() {
    guarded(|| {
        let rt = runtime(1);
        rt.block_on(async {
            let task = spawn!((|| Touchy { in_clone: false, in_drop: true })());
            // The callee borrows; the value is dropped with the argument, after the callee has returned.
            let dependant = spawn!((|x: &Touchy| x.in_drop)(&task));
            drop(task);
            assert!(dependant.await.unwrap());
            let unused = Touchy { in_clone: false, in_drop: true };
            let failed = spawn!((|| -> i32 { panic!("before") })());
            let never = spawn!((|_: i32, _: Touchy| ())(failed, unused));
            assert!(matches!(never.await, Err(Error::Dependency { .. })));
            rt.idle().await;
            assert_eq!(spawn!((|| 1)()).await.unwrap(), 1);
        });
    });
}

#[test]
fn a_value_may_own_handles_of_other_tasks() {
    guarded(|| {
        let rt = runtime(2);
        let total = rt.block_on(async {
            let tree =
                spawn(async { (0..10).map(|i| spawn!((|i: u32| i * i)(i))).collect::<Vec<DTask<u32>>>() });
            let mut sum = 0;
            for leaf in tree.await.unwrap() {
                sum += leaf.await.unwrap();
            }
            // Dropped with what they own, too.
            drop(spawn(async { (0..10).map(|i| spawn!((|i: u32| i)(i))).collect::<Vec<_>>() }));
            rt.idle().await;
            sum
        });
        assert_eq!(total, 285);
    });
}

#[test]
fn a_long_list_of_values_that_own_handles_is_built_and_taken_apart() {
    /// A list through the values of tasks.
    struct Node(Option<DTask<Node>>, u32);
    guarded(|| {
        let rt = runtime(2);
        rt.block_on(async {
            let mut head: Option<DTask<Node>> = None;
            for i in 0..10_000 {
                let next = head.take();
                head = Some(spawn!((move || Node(next, i))()));
            }
            rt.idle().await;
            let mut sum = 0u64;
            while let Some(task) = head {
                let Node(next, i) = task.await.unwrap();
                sum += u64::from(i);
                head = next;
            }
            assert_eq!(sum, 9_999 * 5_000);
        });
    });
}

#[test]
fn now_or_never_leaves_the_handle_usable() {
    guarded(|| {
        let rt = runtime(1);
        rt.block_on(async {
            let (open, gate) = tokio::sync::oneshot::channel::<()>();
            let mut task = spawn(async move {
                gate.await.unwrap();
                "late".to_owned()
            });
            assert!((&mut task).now_or_never().is_none());
            assert!(task.wait().now_or_never().is_none());
            assert!(std::future::IntoFuture::into_future(&task).now_or_never().is_none());
            open.send(()).unwrap();
            assert_eq!(task.await.unwrap(), "late");
        });
    });
}
