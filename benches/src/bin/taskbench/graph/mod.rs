//! Graphs of tasks that are issued in program order; what they access gives the edges.

pub(crate) mod basic;
pub(crate) mod pattern;
pub(crate) mod stencil;

use dagger_async::prelude::*;

/// A graph whose data is there: it can be issued again and again.
pub(crate) trait Graph: Send + Sync + 'static {
    /// How many tasks [`issue`](Self::issue) spawns.
    fn tasks(&self) -> u64;

    /// Spawns every task in program order, and waits for none. It is the body of a block: `datadeps(graph.issue())`, or of
    /// whatever else runs a block.
    fn issue(&self) -> impl Future<Output = ()> + Send;
}

/// Runs all tasks of a graph once.
pub(crate) async fn region(graph: &impl Graph) {
    datadeps(graph.issue()).await.expect("no task fails");
}

/// Keeps who submits from a worker, where `spawn!` never waits, from running ahead without bound.
#[derive(Default)]
struct Pace(u32);

impl Pace {
    /// Before each spawn.
    async fn step(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(64) {
            room().await;
        }
    }
}

fn chunks<T: Default + Send + Sync + 'static>(many: usize) -> Vec<Chunk<T>> {
    (0..many).map(|_| Chunk::new(T::default())).collect()
}

/// Runs a graph three times on each of several runtimes, and calls `check` after each with how many runs there were.
#[cfg(test)]
pub(crate) fn runs<G: Graph>(make: impl Fn() -> G, check: impl AsyncFn(&G, u64)) {
    for (threads, inside) in [(1, true), (2, true), (1, false), (2, false), (4, true)] {
        let runtime = Runtime::builder().threads(threads).build().unwrap();
        let graph = std::sync::Arc::new(make());
        for run in 1..=3 {
            let at = graph.clone();
            runtime.block_on(async {
                match inside {
                    true => dagger_async::spawn(async move { region(&*at).await }).await.unwrap(),
                    false => region(&*at).await,
                }
                check(&graph, run).await;
            });
        }
    }
}
