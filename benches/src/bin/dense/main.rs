//! Dense linear algebra: our tiled Cholesky and product beside whole-matrix libraries and tiles in other runtimes.
//!
//! ```text
//!   cargo run --release -p dagger-benches --features faer --bin dense -- --peers DIR
//!
//!   for each number of workers, algorithm and order:
//!     all once, checked and not counted; then (ours, faer, OpenBLAS, OpenMP, TBB, StarPU) × samples, in turn
//! ```
//!
//! * Ours runs inside a task, in tiles of the size that `tiled::cholesky_tile` and `tiled::matmul_tile` choose. Matrices are new and
//!   in memory before the clock starts. Results are checked on a vector.
//! * faer: its own parallel algorithm on the whole matrix (feature `faer`).
//! * With `--peers DIR`: OpenBLAS on the whole matrix (`blas_mono`), and its kernels on tiles in OpenMP, TBB and StarPU. Each goes on
//!   with the tile that was fastest in the first round. They check their results themselves.
//! * GFLOP/s: n³/3 operations for a factorisation, 2·n³ for a product.

mod matrix;
mod options;
mod ours;
#[cfg(feature = "faer")]
mod own_faer;
mod theirs;

use dagger_benches::arguments;
use dagger_benches::line::Line;
use dagger_benches::log::Log;
use dagger_benches::machine::cpu_model;
use dagger_benches::peers::Programs;
use dagger_benches::report::{self, Better, OURS};
use options::{Algorithm, Options};
use ours::Ours;
use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    arguments::run(options::USAGE, Options::parse, |options| {
        if options.describe { describe(options) } else { measure(options) }
    })
}

/// Where the time of one run of each goes.
fn describe(options: &Options) {
    for (threads, algorithm, n) in each(options) {
        println!("{}", Ours::start(threads, options.tile).describe(algorithm, n));
    }
}

/// Everything that is asked for, in order.
fn each(options: &Options) -> impl Iterator<Item = (usize, Algorithm, usize)> {
    options.threads.iter().flat_map(move |&threads| {
        let of = move |algorithm| options.sizes.iter().map(move |&n| (threads, algorithm, n));
        options.algorithms.iter().copied().flat_map(of)
    })
}

fn measure(options: &Options) {
    if cfg!(not(feature = "faer")) {
        eprintln!("faer's own algorithms are left out: build with `--features faer`");
    }
    let programs = Programs::or_none(options.peers.as_deref());
    let mut cores = vec![None];
    cores.extend(options.blas_core.as_deref().map(Some));
    let mut log = Log::new();
    let mut said = Vec::new();
    for (threads, algorithm, n) in each(options) {
        let ours = Ours::start(threads, options.tile);
        let line = |peer: &str, seconds: f64| {
            let speed = algorithm.flops(n) / seconds * 1e-9;
            let line = Line::new(peer, algorithm.name(), Some(speed), "GFLOP/s");
            line.with("threads", threads).with("n", n)
        };
        let sample_ours = |check| {
            let seconds = ours.seconds(algorithm, n, check);
            vec![line(OURS, seconds).with("tile", ours.tile(algorithm, n)).with("from", "inside")]
        };
        sample_ours(true);
        #[cfg(feature = "faer")]
        own_faer::seconds(algorithm, n, threads, true);
        let mut ways =
            programs.iter().flat_map(|all| theirs::ways(all, algorithm, n, &cores)).collect::<Vec<_>>();
        for rep in 0..options.samples {
            log.add(rep, || sample_ours(false));
            #[cfg(feature = "faer")]
            log.add(rep, || vec![line("faer", own_faer::seconds(algorithm, n, threads, false))]);
            let mut tried = Vec::new();
            for way in ways {
                let before = log.lines().len();
                log.add(rep, || {
                    programs.iter().flat_map(|all| theirs::sample(all, &way, algorithm, threads)).collect()
                });
                let new = &log.lines()[before..];
                for core in new.iter().filter_map(|line| line.text("blas")) {
                    if !said.contains(&core.to_owned()) {
                        eprintln!("OpenBLAS {core}");
                        said.push(core.to_owned());
                    }
                }
                // What has failed is not called again.
                tried.extend(new.last().and_then(|line| line.value).map(|speed| (way, speed)));
            }
            ways = theirs::best(tried);
        }
    }
    if !options.json {
        eprintln!(
            "GFLOP/s, median [min–max]; better by: ours ÷ the best peer; *: other processes ran too; {}",
            cpu_model()
        );
        if !said.is_empty() {
            eprintln!("OpenBLAS (version/core whose kernels it uses): {}", said.join(", "));
        }
        eprint!("\n{}", report::table(log.lines(), Better::More, |line| line.bench.clone()));
    }
}
