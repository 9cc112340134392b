//! Graphs of tasks that do nothing: what is measured is the order.
//!
//! What a task does is a parameter ([`Body`]), so that the tests can look at the order of tasks that are empty otherwise.

use super::{Graph, Pace, chunks};
use dagger_async::prelude::*;
use std::marker::PhantomData;

/// What the tasks of a graph do with their data.
pub(crate) trait Body: Send + Sync + 'static {
    fn free() {}
    fn read(_: &u64) {}
    fn write(_: &mut u64) {}
    fn update(_: &u64, _: &mut u64) {}
    fn combine(_: &u64, _: &u64, _: &mut u64) {}
}

/// Nothing.
pub(crate) struct Empty;

impl Body for Empty {}

/// Independent tasks.
pub(crate) struct Spawn<B = Empty> {
    tasks: u64,
    body: PhantomData<B>,
}

impl<B: Body> Spawn<B> {
    pub(crate) fn new(tasks: u64) -> Self {
        Spawn { tasks, body: PhantomData }
    }
}

impl<B: Body> Graph for Spawn<B> {
    fn tasks(&self) -> u64 {
        self.tasks
    }

    async fn issue(&self) {
        let mut pace = Pace::default();
        for _ in 0..self.tasks {
            pace.step().await;
            spawn!(B::free());
        }
    }
}

/// Each task `InOut` on the same datum.
pub(crate) struct Chain<B = Empty> {
    tasks: u64,
    datum: Chunk<u64>,
    body: PhantomData<B>,
}

impl<B: Body> Chain<B> {
    pub(crate) fn new(tasks: u64) -> Self {
        Chain { tasks, datum: Chunk::new(0), body: PhantomData }
    }
}

impl<B: Body> Graph for Chain<B> {
    fn tasks(&self) -> u64 {
        self.tasks
    }

    async fn issue(&self) {
        let mut pace = Pace::default();
        for _ in 0..self.tasks {
            pace.step().await;
            spawn!(B::write(InOut(&self.datum)); repeatable = true);
        }
    }
}

/// Round after round 1 → width → 1 on one datum, the last task of a round preceding the first of the next.
pub(crate) struct Fanout<B = Empty> {
    width: u64,
    rounds: u64,
    datum: Chunk<u64>,
    body: PhantomData<B>,
}

impl<B: Body> Fanout<B> {
    pub(crate) fn new(width: u64, rounds: u64) -> Self {
        Fanout { width, rounds, datum: Chunk::new(0), body: PhantomData }
    }
}

impl<B: Body> Graph for Fanout<B> {
    fn tasks(&self) -> u64 {
        self.rounds * (self.width + 2)
    }

    async fn issue(&self) {
        let mut pace = Pace::default();
        for _ in 0..self.rounds {
            pace.step().await;
            spawn!(B::write(InOut(&self.datum)); repeatable = true);
            for _ in 0..self.width {
                pace.step().await;
                spawn!(B::read(In(&self.datum)); repeatable = true);
            }
            pace.step().await;
            spawn!(B::write(InOut(&self.datum)); repeatable = true);
        }
    }
}

/// `In`, `In`, `InOut` on three different ones of the data, picked pseudo-randomly, the same in each run.
pub(crate) struct Random<B = Empty> {
    tasks: u64,
    data: Vec<Chunk<u64>>,
    body: PhantomData<B>,
}

impl<B: Body> Random<B> {
    pub(crate) fn new(tasks: u64, data: usize) -> Self {
        assert!(data >= 3, "a task accesses three different data");
        Random { tasks, data: chunks(data), body: PhantomData }
    }

    /// What the tasks access, in order.
    fn picks(&self) -> impl Iterator<Item = [usize; 3]> {
        let (mut state, data) = (1u32, self.data.len());
        let mut pick = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % data
        };
        (0..self.tasks).map(move |_| {
            let (x, mut y, mut z) = (pick(), pick(), pick());
            while y == x {
                y = pick();
            }
            while z == x || z == y {
                z = pick();
            }
            [x, y, z]
        })
    }
}

impl<B: Body> Graph for Random<B> {
    fn tasks(&self) -> u64 {
        self.tasks
    }

    async fn issue(&self) {
        let mut pace = Pace::default();
        for [x, y, z] in self.picks() {
            pace.step().await;
            spawn!(B::combine(In(&self.data[x]), In(&self.data[y]), InOut(&self.data[z])); repeatable = true);
        }
    }
}

/// The tasks of a tile Cholesky factorisation, `tiles` to a side.
pub(crate) struct Cholesky<B = Empty> {
    tiles: usize,
    data: Vec<Chunk<u64>>,
    body: PhantomData<B>,
}

impl<B: Body> Cholesky<B> {
    pub(crate) fn new(tiles: usize) -> Self {
        Cholesky { tiles, data: chunks(tiles * (tiles + 1) / 2), body: PhantomData }
    }
}

/// Tile (i, j) of a lower triangle, `i >= j`.
fn lower(i: usize, j: usize) -> usize {
    i * (i + 1) / 2 + j
}

impl<B: Body> Graph for Cholesky<B> {
    fn tasks(&self) -> u64 {
        let tiles = self.tiles as u64;
        tiles * (tiles + 1) * (tiles + 2) / 6
    }

    async fn issue(&self) {
        let (tiles, m) = (self.tiles, |i, j| &self.data[lower(i, j)]);
        let mut pace = Pace::default();
        for k in 0..tiles {
            pace.step().await;
            spawn!(B::write(InOut(m(k, k))); repeatable = true);
            for i in k + 1..tiles {
                pace.step().await;
                spawn!(B::update(In(m(k, k)), InOut(m(i, k))); repeatable = true);
            }
            for i in k + 1..tiles {
                for j in k + 1..i {
                    pace.step().await;
                    spawn!(B::combine(In(m(i, k)), In(m(j, k)), InOut(m(i, j))); repeatable = true);
                }
                pace.step().await;
                spawn!(B::update(In(m(i, k)), InOut(m(i, i))); repeatable = true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::runs;
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// A number that depends on both, and on which is which.
    fn mix(a: u64, b: u64) -> u64 {
        (a ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xD1B5_4A32_D192_ED03).rotate_left(29).wrapping_add(b)
    }

    fn write(x: &mut u64) {
        *x = mix(*x, 1);
    }

    fn update(a: &u64, x: &mut u64) {
        *x = mix(*x, *a);
    }

    fn combine(a: &u64, b: &u64, x: &mut u64) {
        *x = mix(mix(*x, *a), *b);
    }

    /// A body that computes as the sequential program does, and adds up what is read: each test has its own sum.
    macro_rules! traced {
        ($Body:ident, $sum:ident) => {
            static $sum: AtomicU64 = AtomicU64::new(0);
            struct $Body;
            impl Body for $Body {
                fn free() {
                    $sum.fetch_add(1, Relaxed);
                }
                fn read(x: &u64) {
                    $sum.fetch_add(mix(*x, 0), Relaxed);
                }
                fn write(x: &mut u64) {
                    write(x);
                }
                fn update(a: &u64, x: &mut u64) {
                    update(a, x);
                }
                fn combine(a: &u64, b: &u64, x: &mut u64) {
                    combine(a, b, x);
                }
            }
        };
    }

    async fn all(data: &[Chunk<u64>]) -> Vec<u64> {
        let mut all = Vec::new();
        for datum in data {
            all.push(*datum.read().await.unwrap());
        }
        all
    }

    #[test]
    fn every_independent_task_runs() {
        traced!(Traced, SUM);
        runs(
            || {
                SUM.store(0, Relaxed);
                Spawn::<Traced>::new(1000)
            },
            async |graph, run| assert_eq!(SUM.load(Relaxed), run * graph.tasks()),
        );
    }

    #[test]
    fn a_chain_is_a_loop() {
        traced!(Traced, _SUM);
        runs(
            || Chain::<Traced>::new(500),
            async |graph, run| {
                let mut expected = 0;
                (0..run * graph.tasks()).for_each(|_| write(&mut expected));
                assert_eq!(*graph.datum.read().await.unwrap(), expected);
            },
        );
    }

    #[test]
    fn readers_see_what_the_writer_before_them_left() {
        traced!(Traced, SUM);
        runs(
            || {
                SUM.store(0, Relaxed);
                Fanout::<Traced>::new(70, 5)
            },
            async |graph, run| {
                let (mut datum, mut sum) = (0, 0u64);
                for _ in 0..run * graph.rounds {
                    write(&mut datum);
                    (0..graph.width).for_each(|_| sum = sum.wrapping_add(mix(datum, 0)));
                    write(&mut datum);
                }
                assert_eq!(*graph.datum.read().await.unwrap(), datum);
                assert_eq!(SUM.load(Relaxed), sum);
            },
        );
    }

    #[test]
    fn random_accesses_are_in_program_order() {
        traced!(Traced, _SUM);
        runs(
            || Random::<Traced>::new(1500, 7),
            async |graph, run| {
                let mut data = [0; 7];
                for _ in 0..run {
                    for [x, y, z] in graph.picks() {
                        let (a, b) = (data[x], data[y]);
                        combine(&a, &b, &mut data[z]);
                    }
                }
                assert_eq!(all(&graph.data).await, data);
            },
        );
    }

    #[test]
    fn picks_are_three_different_data() {
        let picks = || Random::<Empty>::new(10_000, 3).picks().collect::<Vec<_>>();
        assert!(picks().iter().all(|[x, y, z]| x != y && y != z && z != x));
        assert_eq!(picks(), picks());
    }

    #[test]
    fn a_factorisation_is_its_loops() {
        traced!(Traced, _SUM);
        runs(
            || Cholesky::<Traced>::new(8),
            async |graph, run| {
                let mut m = [0; 36];
                let mut tasks = 0;
                for _ in 0..run {
                    for k in 0..8 {
                        write(&mut m[lower(k, k)]);
                        tasks += 1;
                        for i in k + 1..8 {
                            let diagonal = m[lower(k, k)];
                            update(&diagonal, &mut m[lower(i, k)]);
                            tasks += 1;
                        }
                        for i in k + 1..8 {
                            for j in k + 1..=i {
                                let (a, b) = (m[lower(i, k)], m[lower(j, k)]);
                                match i == j {
                                    true => update(&a, &mut m[lower(i, i)]),
                                    false => combine(&a, &b, &mut m[lower(i, j)]),
                                }
                                tasks += 1;
                            }
                        }
                    }
                }
                assert_eq!(all(&graph.data).await, m);
                assert_eq!(tasks, run * graph.tasks());
            },
        );
        assert_eq!(Cholesky::<Empty>::new(40).tasks(), 11_480);
    }
}
