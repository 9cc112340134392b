//! `counted`: what it counts, and that it changes nothing else.

use dagger_async::counted;
use dagger_async::prelude::*;
use dagger_tests::{Gate, on_workers, watched};
use futures::poll;
use std::pin::pin;
use std::sync::{Arc, Mutex};

#[test]
fn it_counts_what_is_spawned_inside_and_in_blocks_inside_but_not_children() {
    on_workers(2, |_| async {
        let gate = Gate::new();
        let waits = gate.clone();
        let block = counted(async {
            let child = spawn(async { spawn!((|| 1)()).await.unwrap() });
            datadeps(async {
                for _ in 0..1000 {
                    spawn!((|| ())());
                }
                datadeps(async { spawn!((|| ())()) }).await.unwrap();
            })
            .await
            .unwrap();
            child.await.unwrap();
            spawn(async move { waits.pass().await })
        });
        let counter = block.counter();
        let last = block.await;
        assert_eq!((counter.count().spawned, counter.count().ended), (1003, 1002));
        gate.open();
        last.await.unwrap();
        while counter.count().ended < 1003 {
            tokio::task::yield_now().await; // its body is dropped after its result is there
        }
        assert_eq!(counter.count().spawned, 1003);
    });
}

#[test]
fn order_blocks_and_bulks_around_and_inside_are_as_without() {
    on_workers(2, |_| async {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |n: i32| {
            let seen = seen.clone();
            spawn!((move || seen.lock().unwrap().push(n))())
        };
        let last = in_order(counted(async {
            note(1);
            bulk(async { note(2) }).await;
            counted(in_order(async {
                note(3);
                note(4)
            }))
            .await
        }))
        .await;
        last.await.unwrap();
        assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 4]);

        // Failures are the block's, whether somebody counts around it or inside.
        let fail = || async { drop(spawn!((|| -> i32 { panic!("bad") })())) };
        assert!(matches!(counted(datadeps(fail())).await, Err(Error::Panicked { .. })));
        assert!(matches!(datadeps(counted(fail())).await, Err(Error::Panicked { .. })));
        let order = seen.clone();
        let linear = datadeps(counted(async {
            for n in 0..20 {
                let order = order.clone();
                spawn!((move || order.lock().unwrap().push(n))());
            }
        }));
        with_options(Options::new().linear(), linear).await.unwrap();
        assert_eq!(seen.lock().unwrap()[4..], (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn a_counter_outlives_its_block_and_its_runtime() {
    watched(|| {
        let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
        let counter = rt.block_on(async {
            let block = counted(async {
                spawn(std::future::pending::<()>());
                std::future::pending::<()>().await;
            });
            let counter = block.counter();
            assert!(poll!(pin!(block)).is_pending());
            counter
        });
        assert_eq!((counter.count().spawned, counter.count().ended), (1, 0));
        rt.block_on(async { rt.processors() });
        drop(rt); // ends what is suspended
        while counter.count().ended == 0 {
            std::thread::yield_now();
        }
    });
}
