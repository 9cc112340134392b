//! The same through a runtime with little memory.

use crate::disk::Folder;
use crate::options::Options;
use dagger_array::{Tile, TileMatrix, tiled};
use dagger_async::prelude::*;
use dagger_async::store::Memory;
use std::io;
use std::ops::Range;
use std::time::Instant;

/// What went through, in which time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// More objects than memory holds, on a runtime of their own.
pub(crate) struct Objects {
    runtime: Runtime,
    chunks: Vec<Chunk<Tile<f64>>>,
    object: u64,
}

fn runtime(options: &Options, folder: &Folder, limit: u64) -> Runtime {
    let runtime = Runtime::builder().threads(options.threads).memory_limit(limit);
    runtime.spill_folder(folder.path()).build().expect("the system gives us threads")
}

impl Objects {
    pub(crate) fn new(options: &Options, folder: &Folder) -> Objects {
        let runtime = runtime(options, folder, options.limit);
        Objects { runtime, chunks: Vec::new(), object: options.object }
    }

    /// Makes them all, each with its number in it: what does not fit is written.
    pub(crate) fn spill(&mut self, count: usize) -> Moved {
        let (object, start) = (self.object, Instant::now());
        let chunks = &mut self.chunks;
        let made = self.runtime.block_on(async {
            // One column: no padding.
            let make = move || {
                let mut tile = Tile::zeros(object as usize / 8, 1);
                tile.fill(1.0);
                tile
            };
            chunks.extend((0..count).map(|_| Chunk::lazy(object, make)));
            datadeps(async {
                for (i, chunk) in chunks.iter().enumerate() {
                    spawn!((|tile: &mut Tile<f64>, i: usize| tile[(0, 0)] = i as f64)(InOut(chunk), i); name = "make");
                }
            })
            .await
        });
        made.expect("what does not fit is written");
        Moved { bytes: self.runtime.memory().bytes_out, seconds: start.elapsed().as_secs_f64() }
    }

    /// Has them all looked at: those that were written come back.
    pub(crate) fn reload(&self) -> Moved {
        let (before, start) = (self.runtime.memory(), Instant::now());
        let read = self.runtime.block_on(datadeps(async {
            for (i, chunk) in self.chunks.iter().enumerate() {
                let look = |tile: &Tile<f64>, i: usize| match tile[(0, 0)] == i as f64 {
                    true => Ok(()),
                    false => Err(io::Error::other("another object")),
                };
                spawn!(look(In(chunk), i)?; name = "look");
            }
        }));
        read.expect("what was written comes back");
        let seconds = start.elapsed().as_secs_f64();
        Moved { bytes: self.runtime.memory().bytes_in - before.bytes_in, seconds }
    }
}

/// One factorisation, with making the matrix.
pub(crate) struct Factored {
    pub(crate) seconds: f64,
    pub(crate) memory: Memory,
}

/// An order of which the tiles on and below the diagonal have four times so many bytes.
pub(crate) fn order(limit: u64) -> usize {
    (limit.isqrt() as usize).next_multiple_of(16)
}

/// Factors a matrix of order `n` within a limit.
pub(crate) fn factor(options: &Options, folder: &Folder, n: usize, limit: u64) -> Factored {
    let tile = tiled::cholesky_tile(n, options.threads);
    let runtime = runtime(options, folder, limit);
    let make = move |rows: Range<usize>, cols: Range<usize>| {
        let element = |i: usize, j: usize| if i == j { n as f64 } else { ((i ^ j) & 7) as f64 / 8.0 };
        Tile::from_fn(rows.len(), cols.len(), |r, c| element(rows.start + r, cols.start + c))
    };
    runtime.block_on(async {
        let m = TileMatrix::lower_lazy(n, tile, make);
        let start = Instant::now();
        tiled::cholesky_within(&m, limit).await.expect("the diagonal outweighs every row");
        Factored { seconds: start.elapsed().as_secs_f64(), memory: runtime.memory() }
    })
}
