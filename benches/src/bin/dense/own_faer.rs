//! Faer's own parallel algorithms, on the whole matrix.

use crate::matrix::{check_factor, check_product, general, positive};
use crate::options::Algorithm;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use std::time::Instant;

/// Seconds of one run on new matrices; checks the result if asked to.
pub(crate) fn seconds(algorithm: Algorithm, n: usize, threads: usize, check: bool) -> f64 {
    let par = if threads > 1 { Par::rayon(threads) } else { Par::Seq };
    match algorithm {
        Algorithm::Cholesky => {
            let mut a = Mat::from_fn(n, n, |i, j| positive(n, i, j));
            let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(n, par, Default::default()));
            let start = Instant::now();
            let stack = MemStack::new(&mut memory);
            cholesky_in_place(a.as_mut(), Default::default(), par, stack, Default::default())
                .expect("the matrix is positive definite");
            let seconds = start.elapsed().as_secs_f64();
            if check {
                check_factor("faer", n, |i, j| a[(i, j)]);
            }
            seconds
        }
        Algorithm::Matmul => {
            let [a, b] = [1, 2].map(|which| Mat::from_fn(n, n, |i, j| general(which, i, j)));
            let mut c = Mat::from_fn(n, n, |_, _| 0.0);
            let start = Instant::now();
            matmul(c.as_mut(), Accum::Add, a.as_ref(), b.as_ref(), 1.0, par);
            let seconds = start.elapsed().as_secs_f64();
            if check {
                check_product("faer", n, |i, j| c[(i, j)]);
            }
            seconds
        }
    }
}
