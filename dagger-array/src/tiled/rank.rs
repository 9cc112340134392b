//! What goes first in a tiled algorithm, where the user has not said it: the ranks of its tasks.
//!
//! ```text
//!   of 6 tile columns    the longest way from a kernel to the end of a factorization, in (tile size)³ / 3 flops
//!   potrf (0,0)  ─▶ trsm (i,0) ─▶ gemm (i,1) ─▶ trsm (i,1) ─▶ ..    9 for each column
//!         44           43           40           34
//! ```
//! 1. A kernel costs what its flops are: potrf 1, a triangular solve or syrk 3, gemm 6.
//! 2. The rank of a kernel is its cost and the largest rank of those after it; in these loops it has a closed form.
//! 3. A priority is a rank in eighths of the critical path, not the rank: each lane has its turn now and then, so more of
//!    them would order less. In a simulated factorization of 16 × 16 tiles on 32 processors eight lanes save 6 % of the time,
//!    all ranks 8 %, and only potrf and trsm before others 1 %.

/// How many priorities there are.
const LANES: usize = 8;

fn priority(rank: usize, critical_path: usize) -> i32 {
    (rank * LANES / (critical_path + 1)) as i32
}

/// The priorities of a factorization of `n` × `n` tiles. Tiles are named by row and column, updates by the column that they
/// come from, too.
#[derive(Clone, Copy)]
pub(super) struct Factorization {
    pub(super) n: usize,
}

impl Factorization {
    pub(super) fn potrf(self, k: usize) -> i32 {
        self.priority(self.potrf_rank(k))
    }
    /// The same for each tile of a column.
    pub(super) fn trsm(self, k: usize) -> i32 {
        self.priority(self.trsm_rank(k))
    }
    pub(super) fn syrk(self, j: usize, k: usize) -> i32 {
        self.priority(self.syrk_rank(j, k))
    }
    /// The same for each tile of a column.
    pub(super) fn gemm(self, j: usize, k: usize) -> i32 {
        self.priority(self.gemm_rank(j, k))
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
    fn priority(self, rank: usize) -> i32 {
        priority(rank, self.potrf_rank(0))
    }
}

/// The priorities of a triangular solve in `n` tile rows, which are numbered as they are solved.
#[derive(Clone, Copy)]
pub(super) struct Substitution {
    pub(super) n: usize,
}

impl Substitution {
    pub(super) fn solve(self, k: usize) -> i32 {
        priority(self.solve_rank(k), self.solve_rank(0))
    }
    /// What row `k` does to row `i`.
    pub(super) fn update(self, i: usize, k: usize) -> i32 {
        priority(self.update_rank(i, k), self.solve_rank(0))
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
    fn priorities_go_from_seven_to_nothing() {
        let factorization = Factorization { n: 20 };
        let first: Vec<i32> = (0..20).map(|k| factorization.potrf(k)).collect();
        assert!(first.is_sorted_by(|a, b| a >= b) && first[0] == 7 && first[19] == 0, "{first:?}");
        assert_eq!(Factorization { n: 1 }.potrf(0), 4);
        let substitution = Substitution { n: 20 };
        assert_eq!((substitution.solve(0), substitution.solve(19), substitution.update(19, 0)), (7, 0, 5));
    }
}
