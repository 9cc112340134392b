//! A stencil of three points in one dimension, step after step, on two fields that are written in turn.
//!
//! ```text
//!   step t     .  ▢  ▢  ▢  .     a task reads its column and both neighbours in the field of the step before,
//!               ╲  │  ╱          and writes its column in the other field
//!   step t+1        ▢
//! ```
//! A cell holds the step that wrote it, so that every task checks that its inputs are those of the step before.

use super::{Graph, Pace};
use crate::kernel::kernel;
use dagger_async::prelude::*;
use std::sync::Arc;

/// The cells: column by column, of both fields.
pub(crate) struct Grid([Vec<Chunk<i64>>; 2]);

impl Grid {
    pub(crate) fn new(width: usize) -> Arc<Grid> {
        assert!(width >= 2, "a stencil has two borders");
        Arc::new(Grid([0, 1].map(|_| (0..width).map(|_| Chunk::new(-1)).collect())))
    }
}

/// The stencil, with a kernel of so many iterations in each task.
pub(crate) struct Stencil {
    grid: Arc<Grid>,
    steps: usize,
    iterations: u64,
}

/// What a task does beside looking at its inputs.
#[derive(Clone, Copy)]
struct Point {
    step: i64,
    iterations: u64,
}

impl Point {
    /// Another step before it, if there is one.
    fn sees(self, inputs: &[i64]) {
        let before = self.step - 1;
        assert!(
            self.step == 0 || inputs.iter().all(|&step| step == before),
            "a task ran before its inputs were ready"
        );
    }

    fn compute(self) -> i64 {
        if self.iterations > 0 {
            kernel(self.iterations);
        }
        self.step
    }
}

fn border(a: &i64, b: &i64, cell: &mut i64, point: Point) {
    point.sees(&[*a, *b]);
    *cell = point.compute();
}

fn inner(a: &i64, b: &i64, c: &i64, cell: &mut i64, point: Point) {
    point.sees(&[*a, *b, *c]);
    *cell = point.compute();
}

impl Stencil {
    pub(crate) fn new(grid: &Arc<Grid>, steps: usize, iterations: u64) -> Stencil {
        Stencil { grid: grid.clone(), steps, iterations }
    }
}

impl Graph for Stencil {
    fn tasks(&self) -> u64 {
        (self.steps * self.grid.0[0].len()) as u64
    }

    async fn issue(&self) {
        let mut pace = Pace::default();
        for step in 0..self.steps {
            let (now, old) = (&self.grid.0[step % 2], &self.grid.0[(step + 1) % 2]);
            let (last, point) = (now.len() - 1, Point { step: step as i64, iterations: self.iterations });
            for i in 0..=last {
                pace.step().await;
                if i == 0 {
                    spawn!(border(In(&old[0]), In(&old[1]), Out(&now[0]), point); repeatable = true);
                } else if i == last {
                    spawn!(border(In(&old[i - 1]), In(&old[i]), Out(&now[i]), point); repeatable = true);
                } else {
                    spawn!(inner(In(&old[i - 1]), In(&old[i]), In(&old[i + 1]), Out(&now[i]), point); repeatable = true);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::runs;
    use super::*;

    #[test]
    fn every_task_sees_the_step_before() {
        for (width, iterations) in [(2, 0), (3, 10), (4, 0), (17, 3)] {
            runs(
                || Stencil::new(&Grid::new(width), 9, iterations),
                async |stencil, _| {
                    for (field, last) in stencil.grid.0.iter().zip([8, 7]) {
                        for cell in field {
                            assert_eq!(*cell.read().await.unwrap(), last);
                        }
                    }
                },
            );
        }
    }

    #[test]
    #[should_panic(expected = "before its inputs were ready")]
    fn a_wrong_input_is_noticed() {
        let mut cell = 0;
        inner(&4, &3, &4, &mut cell, Point { step: 5, iterations: 0 });
    }
}
