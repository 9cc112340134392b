//! Our tiled algorithms, inside a task.

use crate::matrix::{check_factor, check_product, general, positive};
use crate::options::Algorithm;
use dagger_array::{TileMatrix, tiled};
use dagger_async::prelude::*;
use dagger_async::spawn;
use dagger_trace::prelude::*;
use std::time::Instant;

/// A runtime, and the tiles that it works in.
pub(crate) struct Ours {
    runtime: Runtime,
    threads: usize,
    tile: Option<usize>,
}

impl Ours {
    pub(crate) fn start(threads: usize, tile: Option<usize>) -> Ours {
        let runtime = Runtime::builder().threads(threads).build().expect("the system gives us threads");
        Ours { runtime, threads, tile }
    }

    /// The order of the tiles: what the user says, else what the library chooses.
    pub(crate) fn tile(&self, algorithm: Algorithm, n: usize) -> usize {
        self.tile.unwrap_or_else(|| match algorithm {
            Algorithm::Cholesky => tiled::cholesky_tile(n, self.threads),
            Algorithm::Matmul => tiled::matmul_tile(n, self.threads),
        })
    }

    /// Seconds of one run on new matrices; checks the result if asked to.
    pub(crate) fn seconds(&self, algorithm: Algorithm, n: usize, check: bool) -> f64 {
        let tile = self.tile(algorithm, n);
        self.runtime.block_on(async {
            match algorithm {
                Algorithm::Cholesky => {
                    let m = TileMatrix::lower_from_fn(n, tile, move |i, j| positive(n, i, j));
                    filled(&m).await;
                    let (seconds, m) = inside(async move { tiled::cholesky(&m).await.map(|()| m) }).await;
                    if check {
                        let l = m.collect().await.expect("no tile is poisoned");
                        check_factor("ours", n, |i, j| l[i][j]);
                    }
                    seconds
                }
                Algorithm::Matmul => {
                    let of = |which| TileMatrix::from_fn(n, n, tile, move |i, j| general(which, i, j));
                    let all = [of(1), of(2), TileMatrix::from_fn(n, n, tile, |_, _| 0.0)];
                    for m in &all {
                        filled(m).await;
                    }
                    let [a, b, c] = all;
                    let product = async move { tiled::add_product(&a, &b, &c).await.map(|()| c) };
                    let (seconds, c) = inside(product).await;
                    if check {
                        let c = c.collect().await.expect("no tile is poisoned");
                        check_product("ours", n, |i, j| c[i][j]);
                    }
                    seconds
                }
            }
        })
    }

    /// Where the time of one run goes.
    pub(crate) fn describe(&self, algorithm: Algorithm, n: usize) -> String {
        self.seconds(algorithm, n, false);
        let recorder = trace::start();
        self.seconds(algorithm, n, false);
        let (tile, trace) = (self.tile(algorithm, n), recorder.finish_now());
        format!("{} of order {n} in tiles of {tile}, with filling\n{}", algorithm.name(), trace.describe())
    }
}

/// Waits until every tile has its elements.
async fn filled(m: &TileMatrix<f64>) {
    for tile in m.chunks() {
        tile.read().await.expect("every tile is filled");
    }
}

/// Runs a program as a task on a worker, with the clock in it.
async fn inside<T, F>(program: F) -> (f64, T)
where
    T: Send + Sync + 'static,
    F: Future<Output = dagger_async::Result<T>> + Send + 'static,
{
    let timed = async move {
        let start = Instant::now();
        let result = program.await.expect("no task fails");
        (start.elapsed().as_secs_f64(), result)
    };
    spawn(timed).await.expect("the program ends")
}
