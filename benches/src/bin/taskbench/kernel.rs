//! What a task computes where one does: floating-point operations in registers, after Task Bench's "compute bound".

use pulp::{Arch, Simd, WithSimd};
use std::hint::black_box;
use std::time::Instant;

/// Fused multiply-adds of an iteration.
const OPERATIONS: usize = 64;
/// Vectors that are kept in registers: enough for the CPU to have work while a result is on its way.
const VECTORS: usize = 8;

struct Kernel(u64);

impl WithSimd for Kernel {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rounds = OPERATIONS / (VECTORS * S::F64_LANES);
        let (scale, shift) = (simd.splat_f64s(0.999), simd.splat_f64s(0.001));
        let mut x: [S::f64s; VECTORS] = std::array::from_fn(|i| simd.splat_f64s(1.0 + i as f64));
        for _ in 0..self.0 {
            for _ in 0..rounds {
                for x in &mut x {
                    *x = simd.mul_add_e_f64s(*x, scale, shift);
                }
            }
        }
        let sum = x.into_iter().fold(simd.splat_f64s(0.0), |sum, x| simd.add_f64s(sum, x));
        black_box(simd.reduce_sum_f64s(sum));
    }
}

/// Computes for a while, in proportion to `iterations`.
pub(crate) fn kernel(iterations: u64) {
    Arch::new().dispatch(Kernel(iterations));
}

/// Kernel iterations a second of `threads` threads that run nothing else: the best of several looks, all of the efficiency.
pub(crate) fn peak_iterations_per_second(threads: usize, looks: usize) -> f64 {
    const ITERATIONS: u64 = 2_000_000;
    let look = |_| {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| kernel(ITERATIONS));
            }
        });
        threads as f64 * ITERATIONS as f64 / start.elapsed().as_secs_f64()
    };
    (0..looks).map(look).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_iterations_take_longer() {
        let best = |iterations| {
            let time = |_| {
                let start = Instant::now();
                kernel(iterations);
                start.elapsed()
            };
            (0..5).map(time).min().unwrap()
        };
        assert!(best(100_000) > 10 * best(1_000));
    }
}
