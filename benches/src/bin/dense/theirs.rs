//! Programs of a directory: OpenBLAS on the whole matrix, and tiles of OpenBLAS in other runtimes.

use crate::options::Algorithm;
use dagger_benches::line::Line;
use dagger_benches::peers::{Call, Programs};
use std::collections::BTreeMap;

/// The runtimes with tiles.
const TILED: [&str; 4] = ["peer_omp_gcc", "peer_omp_clang", "peer_tbb", "peer_starpu"];
/// The BLAS alone.
const WHOLE: &str = "blas_mono";

/// A program with one way to call it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Way<'a> {
    program: &'static str,
    bench: String,
    blas_core: Option<&'a str>,
}

/// Every way to measure the algorithm at order `n`, with each of the cores' kernels.
pub(crate) fn ways<'a>(
    programs: &Programs,
    algorithm: Algorithm,
    n: usize,
    cores: &[Option<&'a str>],
) -> Vec<Way<'a>> {
    let mut ways = Vec::new();
    for &blas_core in cores {
        let whole = match algorithm {
            Algorithm::Cholesky => "potrf",
            Algorithm::Matmul => "gemm",
        };
        if programs.has(WHOLE) {
            ways.push(Way { program: WHOLE, bench: format!("{whole}:{n}"), blas_core });
        }
        for program in TILED.into_iter().filter(|program| programs.has(program)) {
            let bench = |tile| format!("{}:{n}:{tile}", algorithm.name());
            ways.extend(tiles(algorithm, n).map(|tile| Way { program, bench: bench(tile), blas_core }));
        }
    }
    ways
}

/// Tiles that divide `n`, and that give each worker enough of them.
fn tiles(algorithm: Algorithm, n: usize) -> impl Iterator<Item = usize> {
    let (all, least): (&[usize], _) = match algorithm {
        Algorithm::Cholesky => (&[128, 256, 512, 1024], 8),
        Algorithm::Matmul => (&[512], 2),
    };
    all.iter().copied().filter(move |tile| n.is_multiple_of(*tile) && (least..=32).contains(&(n / tile)))
}

/// One sample, called by the name of the algorithm.
pub(crate) fn sample(programs: &Programs, way: &Way<'_>, algorithm: Algorithm, threads: usize) -> Vec<Line> {
    let Way { program, bench, blas_core } = way;
    let blas_threads = if *program == WHOLE { threads } else { 1 };
    let call =
        Call { program, threads, benches: std::slice::from_ref(bench), blas_threads, blas_core: *blas_core };
    let mut lines = programs.run(call);
    lines.iter_mut().for_each(|line| line.bench = algorithm.name().to_owned());
    lines
}

/// Of the ways that were tried, the fastest of each program and core: what tile is best is the peer's choice.
pub(crate) fn best<'a>(tried: Vec<(Way<'a>, f64)>) -> Vec<Way<'a>> {
    let mut best: BTreeMap<(&str, Option<&str>), (Way<'a>, f64)> = BTreeMap::new();
    for (way, speed) in tried {
        let place = best.entry((way.program, way.blas_core)).or_insert_with(|| (way.clone(), speed));
        if speed > place.1 {
            *place = (way, speed);
        }
    }
    best.into_values().map(|(way, _)| way).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_divide_the_matrix_into_enough_of_them() {
        let of = |n| tiles(Algorithm::Cholesky, n).collect::<Vec<_>>();
        assert_eq!(
            (of(2048), of(4096), of(8192)),
            (vec![128, 256], vec![128, 256, 512], vec![256, 512, 1024])
        );
        assert!(of(1000).is_empty());
        assert_eq!(tiles(Algorithm::Matmul, 4096).collect::<Vec<_>>(), [512]);
    }

    #[test]
    fn each_program_goes_on_with_its_fastest_tile() {
        let way = |program, bench: &str, blas_core| Way { program, bench: bench.to_owned(), blas_core };
        let tried = vec![
            (way("peer_tbb", "a", None), 1.0),
            (way("peer_tbb", "b", None), 2.0),
            (way("peer_tbb", "c", Some("Haswell")), 1.5),
            (way("blas_mono", "d", None), 9.0),
        ];
        let benches: Vec<String> = best(tried).into_iter().map(|way| way.bench).collect();
        assert_eq!(benches, ["d", "b", "c"]);
    }
}
