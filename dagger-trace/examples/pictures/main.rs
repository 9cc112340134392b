//! Draws graphs and Gantt charts of invented runs at several sizes: `cargo run -p dagger-trace --example pictures -- DIRECTORY`
//! (with `--features raster` as `.png` and `.pdf` too).

mod samples;

use dagger_trace::{Colour, Lane, Trace, TraceError};
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), TraceError> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let runs = [
        ("10", samples::cholesky(3, 2)),
        ("300", samples::cholesky(11, 4)),
        ("20000", samples::cholesky(48, 16)),
        ("fan", samples::fan(200, 8)),
        ("chain", samples::chain(12)),
        ("pipeline", samples::pipeline(8, 4, 3)),
        ("names", samples::many_names(5_000, 8)),
    ];
    for (name, trace) in &runs {
        draw(Path::new(&directory), name, trace)?;
    }
    let trace = &runs[0].1;
    trace.graph().chunks(true).save(Path::new(&directory).join("graph-chunks.svg"))?;
    let trace = &runs[1].1;
    trace.graph().colour(Colour::Processor).save(Path::new(&directory).join("graph-lanes.svg"))
}

fn draw(directory: &Path, name: &str, trace: &Trace) -> Result<(), TraceError> {
    let begin = Instant::now();
    trace.graph().save(directory.join(format!("graph-{name}.svg")))?;
    let graph = begin.elapsed();
    trace.graph().save(directory.join(format!("graph-{name}.dot")))?;
    let begin = Instant::now();
    trace.gantt(Lane::Processor).save(directory.join(format!("gantt-{name}.svg")))?;
    let gantt = begin.elapsed();
    trace.gantt(Lane::Task).save(directory.join(format!("tasks-{name}.svg")))?;
    trace.gantt(Lane::Scheduler).save(directory.join(format!("scheduler-{name}.svg")))?;
    if cfg!(feature = "raster") {
        for suffix in ["png", "pdf"] {
            trace.graph().save(directory.join(format!("graph-{name}.{suffix}")))?;
            trace.gantt(Lane::Processor).save(directory.join(format!("gantt-{name}.{suffix}")))?;
        }
    }
    println!(
        "{name}: {} tasks, {} edges, graph in {graph:.1?}, gantt in {gantt:.1?}",
        trace.tasks.len(),
        trace.edges.len()
    );
    Ok(())
}
