//! A forecast of the CO₂ in the air of Mauna Loa: Gaussian-process regression on 44 years of weekly values, with a tiled
//! Cholesky factorisation of their covariances.
//!
//! ```text
//! read ─▶ parse ─▶ plan ─▶ tiles of K ─▶ factor ─┬─▶ z, α ──────┬─▶ means ───┬─▶ gather ─▶ draw ─▶ save
//!                           tiles of k ──────────┴─▶ v (in place) ─▶ squares ┘
//! ```
//! Read `forecast` first: it is the whole graph, and reads as the formulas in `regression.rs` do. Nobody says which task
//! waits for which: that follows from the tiles they read and write. The other files are plain functions that know of
//! no tasks: `record.rs` (the file), `covariance.rs`, `regression.rs`, `picture.rs` and `report.rs` (what is printed).
//!
//! ```text
//! cargo run --release -p dagger-example-co2 --example co2 -- --help
//! ```
//! The record is that of C. D. Keeling and T. P. Whorf, weekly means from March 1958 to December 2001; it is in the public
//! domain. The covariances are those of C. E. Rasmussen and C. K. I. Williams (2006).

mod arguments;
mod covariance;
mod picture;
mod record;
mod regression;
mod report;
#[path = "../out_of_core/size.rs"]
mod size;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use dagger_array::{NotPositiveDefinite, TileMatrix, tiled};
use dagger_async::prelude::*;
use dagger_trace::prelude::*;

use arguments::{Command, Settings, UsageError};
use record::InputError;
use regression::{Plan, TooManyTasks, add_products, add_squares, gather, of};
use report::Forecast;

/// Spawns the tasks and waits for their results. Dropping the future stops what has not started.
async fn forecast(settings: Settings) -> dagger_async::Result<Forecast> {
    let out = settings.out.clone();
    let source = try_spawn(record::read(settings.csv.clone()));
    let record = spawn!(record::parse(&source)?);
    let plan = Arc::new(spawn!(Plan::new(record, settings)?).await?); // the data decides how many tasks follow
    let (n, m, tile) = (plan.record.values.len(), plan.years.len(), plan.tile);

    // K = L·Lᵀ in place, in tiles, once tasks have filled them: waited for only to time the factorisation alone.
    let k = TileMatrix::lower_from_fn(n, tile, of(&plan, Plan::covariance));
    filled(&k).await?;
    let clock = Instant::now();
    tiled::cholesky(&k).await?;
    let factor_time = clock.elapsed();

    // What overwrites a tile waits for the tasks that read it before: `z` for `α`, the means for `v`.
    let alpha = TileMatrix::from_fn(n, 1, tile, of(&plan, Plan::value));
    let cross = TileMatrix::from_fn(n, m, tile, of(&plan, Plan::cross_covariance));
    let (fit, products, squares) = (sums(1), sums(m), sums(m));
    let log_determinant = datadeps(async {
        tiled::solve_lower_in_place(&k, &alpha).await?; // z = L⁻¹·y
        for i in 0..alpha.tile_rows() {
            spawn!(add_squares(In(&alpha[(i, 0)]), InOut(&fit.slice(..))));
        }
        tiled::solve_lower_transposed_in_place(&k, &alpha).await?; // α = L⁻ᵀ·z
        for (i, j, years) in tiles(&cross) {
            spawn!(add_products(In(&cross[(i, j)]), In(&alpha[(i, 0)]), InOut(&products.slice(years))));
        }
        tiled::solve_lower_in_place(&k, &cross).await?; // v = L⁻¹·k
        for (i, j, years) in tiles(&cross) {
            spawn!(add_squares(In(&cross[(i, j)]), InOut(&squares.slice(years))));
        }
        tiled::log_determinant(&k).await
    })
    .await??;

    let (fit, products, squares) = (fit.slice(..), products.slice(..), squares.slice(..));
    let posterior = spawn!(gather(plan.clone(), log_determinant, In(&fit), In(&products), In(&squares)));
    let picture = spawn!(picture::draw(plan.clone(), &posterior));
    let path = try_spawn(save(out, picture.await?)).await?;
    Ok(Forecast::new(&plan, &posterior.await?, path, factor_time))
}

/// Waits until every tile has its elements.
async fn filled(matrix: &TileMatrix<f64>) -> dagger_async::Result<()> {
    for tile in matrix.chunks() {
        tile.read().await?;
    }
    Ok(())
}

/// A sum for each of `len` columns, to be added to by tasks.
fn sums(len: usize) -> Chunk<Vec<f64>> {
    Chunk::new(vec![0.0; len])
}

/// Where the tiles are: row and column in tiles, and the columns of the matrix that they hold.
fn tiles(matrix: &TileMatrix<f64>) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
    let columns = |j: usize| j * matrix.tile()..matrix.cols().min((j + 1) * matrix.tile());
    let rows = 0..matrix.tile_rows();
    rows.flat_map(move |i| (0..matrix.tile_cols()).map(move |j| (i, j, columns(j))))
}

/// Writes the picture, and says where. Dropping the future may leave a part of it.
async fn save(folder: PathBuf, picture: String) -> Result<PathBuf, SaveError> {
    let path = folder.join("forecast.svg");
    let written = match tokio::fs::create_dir_all(&folder).await {
        Ok(()) => tokio::fs::write(&path, picture).await,
        Err(reason) => Err(reason),
    };
    written.map(|()| path.clone()).map_err(|reason| SaveError { path, reason })
}

/// The picture is not there.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be written: {reason}", path.display())]
struct SaveError {
    path: PathBuf,
    reason: io::Error,
}

/// The program without its surroundings: from arguments to the text to print.
fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<String, Failure> {
    let settings = match arguments::parse(arguments)? {
        Command::Help => return Ok(arguments::HELP.to_owned()),
        Command::Forecast(settings) => settings,
    };
    let (json, pictures) = (settings.json, settings.trace.clone());
    let is_limited = settings.memory_limit.is_some();
    let runtime = runtime(&settings)?;
    let recorder = pictures.as_ref().map(|_| trace::start());
    let start = Instant::now();
    let forecast = runtime.block_on(forecast(settings).with_progress("co2"))?;
    let seconds = start.elapsed().as_secs_f64();
    if let (Some(recorder), Some(folder)) = (recorder, pictures) {
        show(&recorder.finish_now(), &folder)?;
    }
    if json {
        return Ok(forecast.json(seconds));
    }
    let memory = if is_limited { format!("memory: {}\n", runtime.memory()) } else { String::new() };
    Ok(forecast.table(seconds) + &memory)
}

/// Writes all that a recorded run shows.
fn show(trace: &Trace, folder: &Path) -> Result<(), Failure> {
    let file = |name: &str| folder.join(name);
    let describe = |reason| SaveError { path: file("describe.txt"), reason };
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(file("describe.txt"), trace.describe()))
        .map_err(describe)?;
    trace.graph().save(file("graph.svg"))?;
    trace.gantt(Lane::Processor).save(file("gantt.svg"))?;
    trace.save_chrome(file("trace.json"))?;
    trace.save(file("run.trace"))?;
    Ok(())
}

/// A runtime of its own.
fn runtime(settings: &Settings) -> dagger_async::Result<Runtime> {
    let mut runtime = Runtime::builder().name("co2");
    if let Some(threads) = settings.threads {
        runtime = runtime.threads(threads);
    }
    if let Some(bytes) = settings.memory_limit {
        runtime = runtime.memory_limit(bytes);
    }
    runtime.build()
}

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}; --help lists the options")]
    Usage(#[from] UsageError),
    /// A task failed, or the runtime could not start.
    #[error("{}", explain(.0))]
    Run(#[from] dagger_async::Error),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error(transparent)]
    Text(#[from] SaveError),
    #[error(transparent)]
    Trace(#[from] TraceError),
}

/// The error that a task gave says it best, where it is one of ours.
fn explain(error: &Error) -> String {
    if let Some(bad) = error.downcast_ref::<NotPositiveDefinite>() {
        let row = bad.pivot;
        return format!(
            "the covariance matrix is not positive definite: see row {row}; take a larger --noise"
        );
    }
    if let Error::TooLarge { bytes, budget, .. } = error {
        return format!(
            "--memory-limit of {budget} B is too small: one task needs {bytes} B; take a smaller --tile or more memory"
        );
    }
    let input = error.downcast_ref::<InputError>().map(ToString::to_string);
    let sizes = || error.downcast_ref::<TooManyTasks>().map(ToString::to_string);
    let save = || error.downcast_ref::<SaveError>().map(ToString::to_string);
    input.or_else(sizes).or_else(save).unwrap_or_else(|| error.to_string())
}

impl Failure {
    /// The exit status: 2 for a command line that makes no sense, 1 for the rest.
    fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Run(error) if error.downcast_ref::<TooManyTasks>().is_some() => 2,
            Failure::Run(Error::TooLarge { .. }) => 2,
            Failure::Run(_) | Failure::Print(_) | Failure::Text(_) | Failure::Trace(_) => 1,
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
            let _ = writeln!(io::stderr(), "co2: {failure}");
            ExitCode::from(failure.status())
        }
    }
}
