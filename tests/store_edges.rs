//! The store at its edges: regions without elements, waits inside bodies, guards and wakers that end at odd moments.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(clippy::ptr_arg, reason = "what is in the chunk")]

use dagger_async::prelude::*;
use dagger_async::store::{Spill, register};
use dagger_tests::{Gate, until, watched};
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};

const KIB: u64 = 1 << 10;
fn limited(workers: usize, bytes: u64) -> Arc<Runtime> {
    Arc::new(Runtime::builder().threads(workers).pin(false).memory_limit(bytes).build().unwrap())
}
fn block(i: u64) -> Vec<u64> {
    (0..8192).map(|k| i * 100_000 + k).collect()
}
fn add(x: &mut Vec<u64>, n: u64) {
    x.iter_mut().for_each(|x| *x += n);
}

#[test]
fn a_region_without_elements_beside_another_of_a_chunk_that_goes_with_its_task() {
    watched(|| {
        let rt = limited(2, 1024 * KIB);
        rt.block_on(async {
            for _ in 0..20 {
                let c = Chunk::new(block(1));
                let gate = Gate::new();
                let g = gate.clone();
                let t = spawn!((|_e: &[u64], x: &mut [u64], g: Gate| {
                    g.block();
                    x[0] = 1;
                })(In(&c.slice(0..0)), InOut(&c.slice(0..3)), g));
                drop(c);
                gate.open();
                t.await.unwrap();
            }
            rt.idle().await;
            let m = rt.memory();
            assert_eq!((m.resident, m.chunks), (0, 0), "{m:?}");
        });
    });
}

fn two(a: &mut Vec<u64>, b: &mut Vec<u64>, rt: Arc<Runtime>, c: Chunk<Vec<u64>>) {
    rt.block_on(async { spawn!(add(InOut(&c), 1)).await.unwrap() });
    a[0] += b[0];
}

#[test]
fn a_body_that_drives_a_future_lets_others_have_its_memory() {
    watched(|| {
        let rt = limited(2, 160 * KIB);
        let r = rt.clone();
        rt.block_on(async move {
            let chunks: Vec<_> = (0..3).map(|i| Chunk::new(block(i))).collect();
            let c = chunks[2].clone();
            spawn!(two(InOut(&chunks[0]), InOut(&chunks[1]), r.clone(), c)).await.unwrap();
        });
    });
}

fn middle(c: Chunk<Vec<u64>>) {
    spawn!(add(InOut(&c), 1)).blocking_wait().unwrap();
}
fn outer(a: &mut Vec<u64>, b: &mut Vec<u64>, c: Chunk<Vec<u64>>) {
    spawn!(middle(c)).blocking_wait().unwrap();
    a[0] += b[0];
}

#[test]
fn a_body_below_one_that_runs_in_place_lets_others_have_its_memory() {
    watched(|| {
        let rt = limited(1, 160 * KIB);
        rt.block_on(async move {
            let chunks: Vec<_> = (0..3).map(|i| Chunk::new(block(i))).collect();
            let c = chunks[2].clone();
            spawn!(outer(InOut(&chunks[0]), InOut(&chunks[1]), c)).await.unwrap();
        });
    });
}

#[test]
fn what_a_guard_wrote_before_a_panic_is_not_lost() {
    watched(|| {
        let rt = limited(2, 128 * KIB);
        rt.block_on(async move {
            let c = Chunk::lazy(64 * KIB, || block(0));
            assert_eq!(c.read().await.unwrap()[0], 0);
            let guard = c.write().await.unwrap();
            let _ = catch_unwind(AssertUnwindSafe(move || {
                let mut guard = guard;
                guard[0] = 77;
                panic!("on purpose");
            }));
            assert_eq!(c.read().await.unwrap()[0], 77);
            let others: Vec<_> = (0..4).map(|i| Chunk::new(block(i))).collect();
            for o in &others {
                spawn!(add(InOut(o), 1)).await.unwrap();
            }
            assert_eq!(c.read().await.unwrap()[0], 77);
        });
    });
}

struct Pair {
    a: Vec<u64>,
    b: Vec<u64>,
}
static WRITES_B: AtomicBool = AtomicBool::new(false);
static RACED: AtomicBool = AtomicBool::new(false);
impl Spill for Pair {
    fn bytes(&self) -> usize {
        if WRITES_B.load(SeqCst) {
            RACED.store(true, SeqCst);
        }
        (self.a.capacity() + self.b.capacity()) * 8
    }
    fn spill(&self, to: &mut dyn Write) -> io::Result<()> {
        self.a.spill(to)?;
        self.b.spill(to)
    }
    fn reload(from: &mut dyn Read) -> io::Result<Self> {
        Ok(Pair { a: Vec::reload(from)?, b: Vec::reload(from)? })
    }
}

#[test]
fn a_value_is_not_measured_while_a_field_of_it_is_written() {
    watched(|| {
        register::<Pair>();
        let rt = limited(2, 1024 * KIB);
        rt.block_on(async move {
            let c = Chunk::new(Pair { a: block(0), b: block(1) });
            let (began, end) = (Gate::new(), Gate::new());
            let (bg, e) = (began.clone(), end.clone());
            let slow = spawn!((|b: &mut Vec<u64>, bg: Gate, e: Gate| {
                WRITES_B.store(true, SeqCst);
                bg.open();
                e.block();
                b.push(1);
                WRITES_B.store(false, SeqCst);
            })(InOut(&c.field(field!(Pair, b))), bg, e));
            began.pass().await;
            spawn!((|a: &mut Vec<u64>| a.push(1))(InOut(&c.field(field!(Pair, a))))).await.unwrap();
            // Its body is gone when what comes after it has run.
            spawn!((|a: &mut Vec<u64>| a.push(1))(InOut(&c.field(field!(Pair, a))))).await.unwrap();
            end.open();
            slow.await.unwrap();
            assert!(!RACED.load(SeqCst));
        });
    });
}

struct Noop;
impl Wake for Noop {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_guard_that_is_dropped_while_its_chunk_waits_to_be_loaded_leaves_nothing() {
    watched(|| {
        let rt = limited(2, 1 << 30);
        rt.block_on(async {
            let gate = Gate::new();
            let slow: Vec<_> = (0..4)
                .map(|i| {
                    let gate = gate.clone();
                    Chunk::lazy(64 * KIB, move || {
                        gate.block();
                        block(i)
                    })
                })
                .collect();
            let waker = Waker::from(Arc::new(Noop));
            let mut cx = Context::from_waker(&waker);
            let mut reads: Vec<_> = slow.iter().map(|c| c.read()).collect();
            for r in &mut reads {
                assert!(Pin::new(r).poll(&mut cx).is_pending());
            }
            let fifth = Chunk::lazy(64 * KIB, || block(5));
            let mut read = fifth.read();
            assert!(Pin::new(&mut read).poll(&mut cx).is_pending());
            drop(read);
            drop(fifth);
            let made = Arc::new(AtomicUsize::new(0));
            let m = made.clone();
            let sixth = Chunk::lazy(64 * KIB, move || {
                m.fetch_add(1, SeqCst);
                block(6)
            });
            let mut read = sixth.read();
            assert!(Pin::new(&mut read).poll(&mut cx).is_pending());
            gate.open();
            for r in reads {
                drop(r.await.unwrap());
            }
            drop(read.await.unwrap());
            assert_eq!(made.load(SeqCst), 1);
            // The fifth may be on its way for nobody.
            until("nothing is on its way", || rt.memory().reserved == 0);
        });
    });
}

struct Teller(Arc<Runtime>);
impl Wake for Teller {
    fn wake(self: Arc<Self>) {}
}
impl Drop for Teller {
    fn drop(&mut self) {
        self.0.memory();
    }
}

#[test]
fn a_waker_may_ask_the_store_when_it_is_dropped() {
    watched(|| {
        let rt = limited(2, 128 * KIB);
        let r = rt.clone();
        rt.block_on(async move {
            let (a, b) = (Chunk::new(block(0)), Chunk::new(block(1)));
            let (began, end) = (Gate::new(), Gate::new());
            let (bg, e) = (began.clone(), end.clone());
            let t = spawn!((|_: &mut Vec<u64>, _: &mut Vec<u64>, bg: Gate, e: Gate| {
                bg.open();
                e.block();
            })(InOut(&a), InOut(&b), bg, e));
            began.pass().await;
            let before = Chunk::lazy(64 * KIB, || block(5));
            let mut first = before.read();
            let noop = Waker::from(Arc::new(Noop));
            assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&noop)).is_pending());
            let c = Chunk::lazy(64 * KIB, || block(5));
            let mut read = c.read();
            {
                let waker = Waker::from(Arc::new(Teller(r.clone())));
                assert!(Pin::new(&mut read).poll(&mut Context::from_waker(&waker)).is_pending());
            }
            drop(read);
            end.open();
            t.await.unwrap();
        });
    });
}

#[test]
fn no_sum_of_sizes_overflows() {
    watched(|| {
        let rt = limited(2, 128 * KIB);
        rt.block_on(async move {
            let a = Chunk::new(block(0));
            let e = spawn!((|x: &Vec<u64>| x[0])(&a); memory = u64::MAX).await;
            assert!(matches!(e, Err(Error::TooLarge { .. })), "{e:?}");
        });
    });
}

#[test]
fn a_body_that_yields_has_not_stopped() {
    watched(|| {
        let rt = limited(1, 160 * KIB);
        let r = rt.clone();
        rt.block_on(async move {
            let chunks: Vec<_> = (0..3).map(|i| Chunk::new(block(i))).collect();
            async fn busy(a: &mut Vec<u64>, b: &mut Vec<u64>) {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                a[0] += b[0];
            }
            let p = spawn!(async busy(InOut(&chunks[0]), InOut(&chunks[1])));
            let q = spawn!(add(InOut(&chunks[2]), 1));
            p.await.unwrap();
            q.await.unwrap();
            assert_eq!(r.memory().over_budget, 0);
        });
    });
}
