//! Matrices in a runtime with little memory. One test: it is the first in its process to make a tile.
#![cfg(feature = "store")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use dagger_array::{Tile, TileMatrix};
use dagger_async::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const ORDER: usize = 96;
const ROOM: usize = 3;

#[test]
fn as_many_tiles_are_filled_at_once_as_there_is_room_for() {
    let limit = (ROOM * Tile::<f64>::bytes_for(ORDER, ORDER)) as u64;
    let rt = Runtime::builder().threads(8).pin(false).memory_limit(limit).build().unwrap();
    let (filling, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let element = {
        let most = most.clone();
        move |i: usize, j: usize| {
            if (i % ORDER, j % ORDER) == (0, 0) {
                most.fetch_max(filling.fetch_add(1, SeqCst) + 1, SeqCst);
            } else if (i % ORDER, j % ORDER) == (ORDER - 1, ORDER - 1) {
                filling.fetch_sub(1, SeqCst);
            } else if i.is_multiple_of(ORDER) {
                std::thread::yield_now(); // Others could begin.
            }
            (i * 10_000 + j) as f64
        }
    };
    rt.block_on(async {
        let matrix = TileMatrix::from_fn(6 * ORDER, 6 * ORDER, ORDER, element);
        for (i, j) in (0..6).flat_map(|i| (0..6).map(move |j| (i, j))) {
            assert_eq!(
                matrix[(i, j)].read().await.unwrap()[(1, 2)],
                ((i * ORDER + 1) * 10_000 + j * ORDER + 2) as f64
            );
        }
        // The last one may still be on its way out: tiles are written beside the tasks.
        let begun = Instant::now();
        let memory = loop {
            let memory = rt.memory();
            if memory.resident <= limit {
                break memory;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{memory:?}");
            std::thread::yield_now();
        };
        assert_eq!(memory.chunks, 36, "all are counted: {memory:?}");
        assert!(memory.evictions >= 33, "{memory:?}");
    });
    assert!((1..=ROOM).contains(&most.load(SeqCst)), "{most:?} at once");
}
