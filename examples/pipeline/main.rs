//! I/O and compute in one graph: files are fetched by async tasks, worked on in place, and written back by async tasks,
//! each as soon as its own data is there. One source is missing; the others do not care.
//!
//! ```text
//! fetch ─▶ chunk ──InOut──▶ fill gaps ──InOut──▶ smooth ─┬─In──▶ summarise ─Out─▶ summary[i]
//!   (async)        (on the workers, in place)             └─read guard──▶ save (async)
//! ```
//! Read `run` first. Nobody says that `smooth` comes after `fill_gaps`, or `save` after both: that follows from what they
//! access, in the order in which they are written. Remove every `spawn!` and the result is the same.
//!
//! ```text
//! cargo run --release --example pipeline -- --out DIR
//! ```
//! The files are the decades of the weekly CO₂ record of Mauna Loa (C. D. Keeling and T. P. Whorf, public domain), which the
//! program cuts out of the whole record first; the decade that fails is one that the record does not have.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dagger_async::prelude::*;

const RECORD: &str = include_str!("../data/mauna_loa_co2.csv");
const DECADES: [&str; 6] = ["1950s", "1960s", "1970s", "1980s", "1990s", "2010s"];

type BoxError = Box<dyn StdError + Send + Sync>;

/// What one source has come to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Summary {
    weeks: usize,
    gaps: usize,
    mean: f64,
}

/// The weekly values of one decade; a missing week is `None`.
#[derive(Clone, Debug, PartialEq)]
struct Week {
    measured: Option<f64>,
    value: f64,
}

/// Reads a source: a value a line, an empty line for a missing week.
async fn fetch(path: PathBuf) -> Result<Vec<Week>, BoxError> {
    let text = match tokio::fs::read_to_string(&path).await {
        Ok(text) => text,
        Err(error) => return Err(format!("{}: {error}", path.display()).into()),
    };
    let week = |(number, line): (usize, &str)| match line {
        "" => Ok(Week { measured: None, value: f64::NAN }),
        line => match line.parse() {
            Ok(value) => Ok(Week { measured: Some(value), value }),
            Err(_) => Err(format!("{}:{}: {line:?} is no number", path.display(), number + 1).into()),
        },
    };
    text.lines().enumerate().map(week).collect()
}

/// Fills missing weeks on a straight line between their neighbours; at the ends with the nearest value.
fn fill_gaps(weeks: &mut [Week]) {
    let known: Vec<usize> = (0..weeks.len()).filter(|&at| weeks[at].measured.is_some()).collect();
    for at in 0..weeks.len() {
        let next = known.partition_point(|&week| week < at);
        let (before, after) = (next.checked_sub(1).map(|i| known[i]), known.get(next).copied());
        weeks[at].value = match (before, after) {
            (_, Some(after)) if after == at => continue,
            (Some(before), Some(after)) => {
                let share = (at - before) as f64 / (after - before) as f64;
                weeks[before].value + share * (weeks[after].value - weeks[before].value)
            }
            (Some(near), None) | (None, Some(near)) => weeks[near].value,
            (None, None) => f64::NAN,
        };
    }
}

/// Replaces each value by the mean of a year around it.
fn smooth(weeks: &mut [Week]) {
    let values: Vec<f64> = weeks.iter().map(|week| week.value).collect();
    for (at, week) in weeks.iter_mut().enumerate() {
        let window = &values[at.saturating_sub(26)..values.len().min(at + 26)];
        week.value = window.iter().sum::<f64>() / window.len() as f64;
    }
}

fn summarise(weeks: &[Week], summary: &mut [Summary]) {
    let gaps = weeks.iter().filter(|week| week.measured.is_none()).count();
    let mean = weeks.iter().map(|week| week.value).sum::<f64>() / weeks.len() as f64;
    summary[0] = Summary { weeks: weeks.len(), gaps, mean };
}

async fn save(weeks: &[Week], path: PathBuf) -> Result<PathBuf, BoxError> {
    let text: String = weeks.iter().map(|week| format!("{:.3}\n", week.value)).collect();
    tokio::fs::write(&path, text).await?;
    Ok(path)
}

/// What became of each source: its summary and the file it was written to, or why not.
type Outcome = dagger_async::Result<(Summary, PathBuf)>;

/// The whole graph.
async fn run(from: &Path, to: &Path) -> (Vec<Outcome>, dagger_async::Result<()>) {
    let summaries = Chunk::new(vec![Summary::default(); DECADES.len()]);
    let mut saved = Vec::new();
    let block = datadeps(async {
        for (i, decade) in DECADES.iter().enumerate() {
            // The chunk is there at once; what accesses it waits for the task that reads the file.
            let weeks = Chunk::from_task(try_spawn(fetch(from.join(format!("{decade}.txt")))));
            spawn!(fill_gaps(InOut(&weeks.slice(..))));
            spawn!(smooth(InOut(&weeks.slice(..))));
            spawn!(summarise(In(&weeks.slice(..)), Out(&summaries.slice(i..=i))));
            // A guard takes its place when it is asked for, so it sees what the tasks above have made of the data.
            let (data, path) = (weeks.read(), to.join(format!("{decade}.txt")));
            saved.push(try_spawn(async move { save(&data.await?, path).await }));
        }
    })
    .await;
    let mut outcomes = Vec::new();
    for (i, saved) in saved.into_iter().enumerate() {
        outcomes.push(match (summaries.slice(i..=i).read().await, saved.await) {
            (Ok(summary), Ok(path)) => Ok((summary[0].clone(), path)),
            (Err(error), _) | (_, Err(error)) => Err(error),
        });
    }
    (outcomes, block)
}

/// Cuts the record into a file for each decade.
fn write_sources(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for decade in DECADES {
        let weeks = RECORD.lines().skip(1).filter(|line| line.starts_with(&decade[..3]));
        let values: String =
            weeks.filter_map(|line| line.split_once(',')).map(|(_, value)| format!("{value}\n")).collect();
        if !values.is_empty() {
            std::fs::write(dir.join(format!("{decade}.txt")), values)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let out = match std::env::args_os().skip(1).collect::<Vec<_>>().as_slice() {
        [] => std::env::temp_dir().join("dagger-pipeline"),
        [option, dir] if option == "--out" => PathBuf::from(dir),
        _ => {
            eprintln!("Usage: pipeline [--out DIR]");
            return ExitCode::from(2);
        }
    };
    let (from, to) = (out.join("sources"), out.join("smooth"));
    if let Err(error) = write_sources(&from).and_then(|()| std::fs::create_dir_all(&to)) {
        eprintln!("{}: {error}", out.display());
        return ExitCode::FAILURE;
    }
    let runtime = match Runtime::builder().name("pipeline").build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let (outcomes, block) = runtime.block_on(run(&from, &to));
    for (decade, outcome) in DECADES.iter().zip(&outcomes) {
        match outcome {
            Ok((summary, path)) => println!(
                "{decade}  {:>4} weeks, {:>2} filled, mean {:.2} ppm  ─▶ {}",
                summary.weeks,
                summary.gaps,
                summary.mean,
                path.display()
            ),
            Err(error) => println!("{decade}  {error}"),
        }
    }
    match block {
        Ok(()) => println!("every source was there"),
        Err(error) => println!("the block says: {error}"),
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_lie_on_the_line_between_their_neighbours() {
        let week = |measured: Option<f64>| Week { measured, value: measured.unwrap_or(f64::NAN) };
        let mut weeks = [None, Some(1.0), None, None, Some(4.0), None].map(week);
        fill_gaps(&mut weeks);
        assert_eq!(weeks.map(|week| week.value), [1.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
    }

    #[test]
    fn the_sources_that_are_there_survive_the_one_that_is_not() {
        let out = std::env::temp_dir().join(format!("dagger-pipeline-test-{}", std::process::id()));
        let (from, to) = (out.join("sources"), out.join("smooth"));
        write_sources(&from).unwrap();
        std::fs::create_dir_all(&to).unwrap();
        let runtime = Runtime::builder().threads(2).build().unwrap();
        let (outcomes, block) = runtime.block_on(run(&from, &to));
        for (decade, outcome) in DECADES.iter().zip(&outcomes) {
            let weeks = runtime.block_on(fetch(from.join(format!("{decade}.txt"))));
            match (weeks, outcome) {
                (Ok(mut weeks), Ok((summary, path))) => {
                    fill_gaps(&mut weeks);
                    smooth(&mut weeks);
                    let mut expected = [Summary::default()];
                    summarise(&weeks, &mut expected);
                    assert_eq!(expected[0], *summary);
                    assert_eq!(std::fs::read_to_string(path).unwrap().lines().count(), weeks.len());
                }
                (Err(_), Err(error)) => assert!(error.to_string().contains("2010s.txt"), "{error}"),
                (weeks, outcome) => panic!("{decade}: {weeks:?} {outcome:?}"),
            }
        }
        let error = block.unwrap_err();
        assert!(error.to_string().contains("2010s.txt"), "{error}");
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 1);
        std::fs::remove_dir_all(out).unwrap();
    }
}
