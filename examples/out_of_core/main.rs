//! Cholesky factorisation of a matrix that is four times as large as the memory that it gets.
//!
//! ```text
//!   --memory-limit ─▶ plan ─▶ tiles of A, made when needed ─▶ factor, square by square ─▶ check ─▶ report
//!                                                              │ ▲
//!                                                        spill ▼ │ reload
//!                                                           files, by the store
//! ```
//! Read `factor` first: nothing in it says what is in memory when. A runtime with a memory limit sees to that; what the program
//! does for it is to make the tiles lazily, and to take them in an order that needs few at a time
//! ([`tiled::cholesky_within`](dagger_array::tiled::cholesky_within)).
//! The other files are plain functions: `plan.rs` (sizes), `matrix.rs` (elements, products), `report.rs` (what is printed).
//!
//! ```text
//! cargo run --release -p dagger-example-out-of-core --example out_of_core -- --memory-limit 256MiB
//! ```
//! The check works out of core too: it takes each tile of L once, and makes the elements of A again. On a vector x it compares
//! A·x with L·(Lᵀ·x), in n² operations. Comparing A with L·Lᵀ would cost as much as the factorisation.

mod arguments;
mod matrix;
mod plan;
mod report;
mod size;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use dagger_array::{Tile, TileMatrix, tiled};
use dagger_async::prelude::*;
use dagger_trace::prelude::*;

use arguments::{Command, Settings, UsageError};
use matrix::{add_product, add_transposed_product, checksum, largest, mix, probe, rows_of_product};
use plan::{Plan, PlanError};
use report::Report;

/// What n·ε may be exceeded by, as the High-Performance Linpack benchmark has it.
const SCALED_RESIDUAL_MAX: f64 = 16.0;

/// Makes A, factors it, checks the factor. Dropping the future stops what has not started.
async fn factor(runtime: &Runtime, plan: Plan, settings: &Settings) -> dagger_async::Result<Report> {
    let order = plan.order;
    let m = TileMatrix::lower_lazy(order, plan.tile, move |rows, cols| matrix::tile(order, rows, cols));

    let clock = Instant::now();
    shown(settings, "factor", tiled::cholesky_within(&m, settings.memory_limit)).await?;
    let (factor_time, memory) = (clock.elapsed(), runtime.memory());

    let clock = Instant::now();
    let (residual, checksum) = shown(settings, "check", check(&m)).await?;
    Ok(Report {
        plan,
        threads: runtime.processors().len(),
        policy: arguments::name(settings.eviction),
        memory,
        factor_time,
        check_time: clock.elapsed(),
        residual,
        checksum,
    })
}

/// The residual of the factor on one vector, relative to the size of A and the vector, and a checksum of L.
///
/// Column by column: for y = Lᵀ·x a column of tiles is gone through once, and then for z = L·y at once again.
async fn check(l: &TileMatrix<f64>) -> dagger_async::Result<(f64, u64)> {
    let (n, side) = (l.rows(), l.tile_rows());
    let x = Arc::new(probe(n));
    let rows = |i: usize| i * l.tile()..n.min((i + 1) * l.tile());
    let zeros = || (0..side).map(|i| Chunk::new(vec![0.0; rows(i).len()])).collect::<Vec<_>>();
    let (y, z) = (zeros(), zeros());
    let mut sums = Vec::new();
    let products = datadeps(async {
        for j in 0..side {
            for i in j..side {
                room().await;
                let (x, rows, on_diagonal) = (x.clone(), rows(i), i == j);
                let first = move |l: &Tile<f64>, y: &mut [f64]| {
                    add_transposed_product(l, on_diagonal, &x[rows.clone()], y);
                    checksum(l, on_diagonal)
                };
                sums.push(spawn!(first(In(&l[(i, j)]), InOut(&y[j].slice(..))); name = "y"));
            }
            for i in j..side {
                let second = move |l: &Tile<f64>, y: &[f64], z: &mut [f64]| add_product(l, i == j, y, z);
                spawn!(second(In(&l[(i, j)]), In(&y[j].slice(..)), InOut(&z[i].slice(..))); name = "z");
            }
        }
        let product = |i| {
            let (x, rows) = (x.clone(), rows(i));
            spawn!((move || rows_of_product(rows, &x))(); name = "A·x")
        };
        (0..side).map(product).collect::<Vec<_>>()
    })
    .await?;

    let (mut difference, mut norm, mut sum) = (0f64, 0f64, 0);
    for (product, z) in products.into_iter().zip(&z) {
        let ((product, of_rows), z) = (product.await?, z.read().await?);
        norm = norm.max(of_rows);
        // A NaN must not be lost in a maximum.
        let worst = product
            .iter()
            .zip(&*z)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |worst: f64, x| if x <= worst { worst } else { x });
        difference = if worst <= difference { difference } else { worst };
    }
    for part in sums {
        sum = mix(sum, part.await?);
    }
    Ok((difference / (norm * largest(&x)), sum))
}

/// With a progress bar, unless a program reads what is printed.
async fn shown<F: Future>(settings: &Settings, label: &str, future: F) -> F::Output {
    if settings.json { future.await } else { future.with_progress(label).await }
}

/// The program without its surroundings: from arguments to the text to print.
fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<String, Failure> {
    let settings = match arguments::parse(arguments)? {
        Command::Help => return Ok(arguments::HELP.to_owned()),
        Command::Factor(settings) => settings,
    };
    let mut runtime = Runtime::builder().name("out_of_core");
    runtime = runtime.memory_limit(settings.memory_limit).eviction(settings.eviction);
    if let Some(threads) = settings.threads {
        runtime = runtime.threads(threads);
    }
    if let Some(folder) = &settings.spill {
        runtime = runtime.spill_folder(folder);
    }
    let runtime = runtime.build()?;
    let plan = Plan::new(&settings, runtime.processors().len())?;
    let report = runtime.block_on(factor(&runtime, plan, &settings));
    // So that the files are gone when the program is.
    futures::executor::block_on(runtime.shutdown());
    let report = report?;
    let scaled = report.scaled_residual();
    if scaled.is_nan() || scaled > SCALED_RESIDUAL_MAX {
        return Err(Failure::Wrong { scaled });
    }
    Ok(if settings.json { report.json() } else { report.table() })
}

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}; --help lists the options")]
    Usage(#[from] UsageError),
    #[error("{0}; --help lists the options")]
    Plan(#[from] PlanError),
    /// A task failed, or the runtime could not start.
    #[error(transparent)]
    Run(#[from] dagger_async::Error),
    #[error(
        "the factor is wrong: its residual is {scaled:.1e} times n·ε, and at most {SCALED_RESIDUAL_MAX} is rounding"
    )]
    Wrong { scaled: f64 },
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl Failure {
    /// The exit status: 2 for a command line that makes no sense, 1 for the rest.
    fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Plan(_) => 2,
            Failure::Run(_) | Failure::Wrong { .. } | Failure::Print(_) => 1,
        }
    }
}

/// Prints `text`. A reader that has seen enough, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1)).and_then(|text| print(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing is left to be told if this cannot be written either.
            let _ = writeln!(io::stderr(), "out_of_core: {failure}");
            ExitCode::from(failure.status())
        }
    }
}
