//! What leaving memory costs: spill and reload beside plain files, and a factorisation out of core beside in core.
//!
//! ```text
//!   cargo run --release -p dagger-benches --features store --bin store -- --dir DIR
//!
//!   for each way to flush, samples times, in turn:
//!     ours, plain files:  write all ─▶ forget what the system has in memory ─▶ read all
//!   samples times, in turn:
//!     factor within the limit, factor with memory for all
//! ```
//!
//! * Ours: tiles of one column in chunks of a runtime, made by its store and touched by a task; what does not fit in the limit is
//!   written. The bytes are those that were written and read, so what stays in memory does not count; making each value (and new
//!   memory for each that comes back) is part of the time.
//! * `files`: as many bytes in files of the same size, from and into buffers that are used again, on as many threads as a store uses
//!   for reads and for writes.
//! * `--flush none`: the clock stops when the system has the bytes, `disk`: when each file is on the disk, by fdatasync, for both.
//!   Before reads all is flushed, and the page cache of these files dropped, for both.
//! * `cholesky`: GFLOP/s of n³/3 operations, with making the tiles, for both. `cholesky-moved` is what was written and read, and
//!   `cholesky-disk` how long the disk takes for it, at the speed of plain files measured here.

mod disk;
mod options;
mod ours;

use dagger_benches::arguments;
use dagger_benches::line::Line;
use dagger_benches::log::Log;
use dagger_benches::machine::cpu_model;
use dagger_benches::report::{self, Better, OURS};
use dagger_benches::spread::Spread;
use disk::Folder;
use options::{Flush, Options, Part};
use ours::{Moved, Objects};
use std::io;
use std::process::ExitCode;
use std::time::Instant;

/// Threads of a store that write, and that read.
const STORE_THREADS: usize = 4;
const GB: f64 = 1e9;

fn main() -> ExitCode {
    let mut status = ExitCode::SUCCESS;
    let parsed = arguments::run(options::USAGE, Options::parse, |options| {
        if let Err(error) = measure(options) {
            eprintln!("{}: {error}", options.dir.display());
            status = ExitCode::FAILURE;
        }
    });
    if parsed == ExitCode::SUCCESS { status } else { parsed }
}

fn measure(options: &Options) -> io::Result<()> {
    let mut log = Log::new();
    if options.only.contains(&Part::Files) {
        files(options, &mut log)?;
    }
    if options.only.contains(&Part::Cholesky) {
        cholesky(options, &mut log)?;
    }
    if !options.json {
        eprintln!(
            "median [min–max]; better by: ours ÷ the other; *: other processes ran too; {}",
            cpu_model()
        );
        let (times, speeds): (Vec<Line>, Vec<Line>) =
            log.lines().iter().cloned().partition(|line| ["GB", "s"].contains(&line.unit.as_str()));
        eprint!(
            "\n{}",
            report::table(&speeds, Better::More, |line| format!("{} ({})", line.bench, line.unit))
        );
        eprint!(
            "\n{}",
            report::table(&times, Better::Less, |line| format!("{} ({})", line.bench, line.unit))
        );
    }
    Ok(())
}

fn files(options: &Options, log: &mut Log) -> io::Result<()> {
    let (object, count) = (options.object, options.bytes.div_ceil(options.object) as usize);
    let line = |peer: &str, bench: &str, flush: Flush, moved: Moved| {
        let line = Line::new(peer, bench, Some(moved.bytes as f64 / GB / moved.seconds), "GB/s");
        let line = line.with("mib", options.bytes >> 20).with("object_mib", object >> 20);
        line.with("flush", flush.name())
    };
    let written = |folder: &Folder, flush: Flush, moved: Moved| -> io::Result<Moved> {
        let start = Instant::now();
        let flushed = if flush == Flush::Disk { folder.flush() } else { Ok(()) };
        flushed.map(|()| Moved { seconds: moved.seconds + start.elapsed().as_secs_f64(), ..moved })
    };
    for &flush in &options.flush {
        for rep in 0..options.samples {
            let of_ours = |log: &mut Log| {
                let folder = Folder::new(&options.dir, "ours")?;
                let mut objects = Objects::new(options, &folder);
                add(log, rep, || {
                    Ok(line(OURS, "spill", flush, written(&folder, flush, objects.spill(count))?))
                })?;
                folder.forget()?;
                add(log, rep, || Ok(line(OURS, "reload", flush, objects.reload())))
            };
            // Who is first has the emptier disk: by turns.
            if rep % 2 == 0 {
                of_ours(log)?;
            }
            let folder = Folder::new(&options.dir, "files")?;
            let bytes = object * count as u64;
            let plain = |seconds| Moved { bytes, seconds };
            add(log, rep, || {
                let seconds = disk::write(&folder, STORE_THREADS, count, object as usize)?;
                Ok(line("files", "spill", flush, written(&folder, flush, plain(seconds))?))
            })?;
            folder.forget()?;
            add(log, rep, || {
                let seconds = disk::read(&folder, STORE_THREADS, count, object as usize)?;
                Ok(line("files", "reload", flush, plain(seconds)))
            })?;
            drop(folder);
            if rep % 2 == 1 {
                of_ours(log)?;
            }
        }
    }
    Ok(())
}

/// A sample that may fail.
fn add(log: &mut Log, rep: usize, sample: impl FnOnce() -> io::Result<Line>) -> io::Result<()> {
    let mut result = Ok(());
    log.add(rep, || match sample() {
        Ok(line) => vec![line],
        Err(error) => {
            result = Err(error);
            Vec::new()
        }
    });
    result
}

fn cholesky(options: &Options, log: &mut Log) -> io::Result<()> {
    let n = ours::order(options.limit);
    let folder = Folder::new(&options.dir, "cholesky")?;
    let speed = |bench: &str| {
        let of = |flush: &str| {
            let lines = log.lines().iter().filter(|line| line.peer == "files" && line.bench == bench);
            let lines = lines.filter(|line| line.text("flush") == Some(flush));
            Spread::of(lines.filter_map(|line| line.value).collect()).map(|spread| spread.median)
        };
        of(Flush::Disk.name()).or_else(|| of(Flush::None.name()))
    };
    let speeds = speed("spill").zip(speed("reload"));
    for rep in 0..options.samples {
        let line = |peer: &str, bench: &str, value: f64, unit: &str| {
            Line::new(peer, bench, Some(value), unit).with("n", n).with("threads", options.threads)
        };
        let run = |peer: &str, limit| {
            let factored = ours::factor(options, &folder, n, limit);
            let speed = (n as f64).powi(3) / 3.0 / factored.seconds * 1e-9;
            let mut lines = vec![line(peer, "cholesky", speed, "GFLOP/s")];
            if factored.memory.bytes_out > 0 {
                let (written, read) =
                    (factored.memory.bytes_out as f64 / GB, factored.memory.bytes_in as f64 / GB);
                lines.push(line(peer, "cholesky-written", written, "GB"));
                lines.push(line(peer, "cholesky-read", read, "GB"));
                lines.push(line(peer, "cholesky-seconds", factored.seconds, "s"));
                lines.extend(speeds.map(|(write_speed, read_speed)| {
                    line(peer, "cholesky-disk", written / write_speed + read / read_speed, "s")
                }));
            }
            lines
        };
        log.add(rep, || run(OURS, options.limit));
        log.add(rep, || run("in-core", 8 * options.limit));
    }
    Ok(())
}
