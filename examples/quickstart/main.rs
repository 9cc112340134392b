//! A first program: the weekly CO₂ record of Mauna Loa, summarised by a graph of tasks.
//!
//! ```text
//! read ─▶ parse ─▶ 44 × year ─┬─▶ 6 × decade
//!                             └─▶ means ─┬─▶ fastest growth
//!                                        ├─▶ linear fit
//!                                        └─▶ quadratic fit
//! ```
//! Read `analyse` first: it is the whole graph. Nobody writes the arrows down: a task that is an argument
//! of another, or is awaited in it, is an arrow. The other files are plain functions that know of no tasks:
//! `record.rs` (the file), `statistics.rs`, `report.rs` (what is printed) and `arguments.rs`.
//!
//! ```text
//! cargo run --release --example quickstart -- --help
//! ```
//! The record is that of C. D. Keeling and T. P. Whorf, weekly means from March 1958 to December 2001; it is
//! in the public domain.

mod arguments;
mod record;
mod report;
mod statistics;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use dagger_async::prelude::*;

use arguments::{Command, UsageError};
use record::InputError;
use report::{Analysis, Graph, Json, Table};
use statistics::{Decade, Means, YearSummary, fastest_growth, fit_line, fit_parabola, summarise};

/// Spawns the tasks and waits for their results.
async fn analyse(csv: PathBuf) -> dagger_async::Result<(Analysis, Graph<TaskId>)> {
    let mut graph = Graph::new(); // only to be printed

    // A future becomes a task, which starts at once. If it gives an `Err`, the task fails.
    let source = try_spawn(record::read(csv));
    graph.add("read", source.id(), []);

    // A call becomes a task: it starts when its arguments are there. `?`: here too an `Err` is a failure.
    let record = spawn!(record::parse(&source)?);
    graph.add("parse", record.id(), [source.id()]);

    // How many tasks follow depends on the data, so wait for them; `&` leaves them to the tasks below.
    let years = (&record).await?.years();

    // One task a year, all at the same time. Each borrows the one record.
    let mut summaries = Vec::new();
    for year in years {
        let summary = spawn!(summarise(&record, year); name = format!("year {year}"));
        graph.add("year", summary.id(), [record.id()]);
        summaries.push((year, summary));
    }

    // A task a decade: an async function that awaits as many tasks as it likes.
    let mut decades = Vec::new();
    for years in summaries.chunk_by(|(a, _), (b, _)| a / 10 == b / 10) {
        let from = years[0].0 / 10 * 10;
        let decade = try_spawn(decade_of(from, handles(years)));
        graph.add("decade", decade.id(), years.iter().map(|(_, summary)| summary.id()));
        decades.push(decade);
    }

    // Three views of the same means. They do not wait for the decades, nor for each other.
    let means = try_spawn(means_of(handles(&summaries)));
    graph.add("means", means.id(), summaries.iter().map(|(_, summary)| summary.id()));
    let fastest = spawn!(fastest_growth(&means));
    graph.add("fastest growth", fastest.id(), [means.id()]);
    let line = spawn!(fit_line(&means));
    graph.add("linear fit", line.id(), [means.id()]);
    let parabola = spawn!(fit_parabola(&means));
    graph.add("quadratic fit", parabola.id(), [means.id()]);

    let analysis = Analysis {
        years: gather(handles(&summaries)).await?,
        decades: gather(decades).await?,
        fastest: fastest.await?,
        line: line.await?,
        parabola: parabola.await?,
    };
    Ok((analysis, graph))
}

async fn decade_of(from: i32, years: Vec<DTask<YearSummary>>) -> dagger_async::Result<Decade> {
    Ok(Decade::of(from, &gather(years).await?))
}

async fn means_of(years: Vec<DTask<YearSummary>>) -> dagger_async::Result<Means> {
    Ok(Means::of(&gather(years).await?))
}

/// The results of all the tasks, in their order, or the first failure among them.
async fn gather<T: Send + Sync + 'static>(tasks: Vec<DTask<T>>) -> dagger_async::Result<Vec<T>> {
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await?);
    }
    Ok(results)
}

/// Further handles of the same tasks: a clone of a handle starts nothing.
fn handles(years: &[(i32, DTask<YearSummary>)]) -> Vec<DTask<YearSummary>> {
    years.iter().map(|(_, summary)| summary.clone()).collect()
}

/// The program without its surroundings: from arguments to the text to print.
fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<String, Failure> {
    let settings = match arguments::parse(arguments)? {
        Command::Help => return Ok(arguments::HELP.to_owned()),
        Command::Analyse(settings) => settings,
    };
    let mut runtime = Runtime::builder();
    if let Some(threads) = settings.threads {
        runtime = runtime.threads(threads);
    }
    let runtime = runtime.build()?;

    let start = Instant::now();
    let (analysis, graph) = runtime.block_on(analyse(settings.csv))?;
    let seconds = start.elapsed().as_secs_f64();

    Ok(if settings.json {
        Json { analysis: &analysis, tasks: graph.tasks(), seconds }.to_string()
    } else {
        let table = Table(&analysis);
        format!("{table}\nThe graph it ran as, in {:.1} ms: {graph}", seconds * 1e3)
    })
}

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}; --help lists the options")]
    Usage(#[from] UsageError),
    /// A task failed, or the runtime could not start. The user's own error is inside and says it best.
    #[error("{}", match .0.downcast_ref::<InputError>() {
        Some(input) => input as &dyn std::error::Error,
        None => .0,
    })]
    Run(#[from] dagger_async::Error),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl Failure {
    /// The exit status: 2 for a command line that makes no sense, 1 for the rest.
    fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Run(_) | Failure::Print(_) => 1,
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
            let _ = writeln!(io::stderr(), "quickstart: {failure}");
            ExitCode::from(failure.status())
        }
    }
}
