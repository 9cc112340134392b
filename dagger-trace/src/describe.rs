//! The analysis as a page of text.

use crate::analysis::{Analysis, WorkerTime};
use crate::model::{Task, Trace};
use crate::show::{bytes, count, percent, short, time};
use dagger_core::record::{End, Move};
use rustc_hash::FxHashMap;
use std::fmt::Write;

/// How many rows each table shows; what is more is counted.
const WORKERS_MAX: usize = 6;
const NAMES_MAX: usize = 9;
const PATH_MAX: usize = 6;
/// Longer names lose their middle.
const NAME_CHARS_MAX: usize = 36;

impl Trace {
    /// What a run shows, on less than 40 lines: bounds, where the time of the workers went, run time by name, critical path; and
    /// what stores moved, on less than 10 more, if they did.
    ///
    /// ```text
    /// 100,000 tasks in 10.0 ms on 8 workers: 100,000 done
    ///
    /// run time of all tasks, T1                  37.0 ms  3.70 workers busy on average
    /// critical path, T∞                          4.62 ms  at most 8.00 workers busy
    /// without waiting, T1 / workers              4.62 ms
    /// elapsed                                    10.0 ms  2.16 × the larger of both bounds
    ///
    /// where the time went                     running   overhead    waiting    starved
    /// all 8 worker threads                     46.2 %     53.8 %      0.0 %      0.0 %
    /// ..
    /// run time by name                        count     total    share      mean       p50       p99       max
    /// gemm                                   25,000   9.25 ms   25.0 %    370 ns    380 ns    380 ns    380 ns
    /// ..
    /// critical path by name                   steps     total    share
    /// trsm                                   12,500   4.62 ms  100.0 %
    ///
    /// moved by stores                         count     total     bytes      mean       max
    /// spilled: written out                      768    1.72 s  1.50 GiB   2.24 ms   9.10 ms
    /// reloaded: read back                     1,024    1.31 s  2.00 GiB   1.28 ms   4.40 ms
    /// most bytes at a time: 256 MiB resident, 12.0 MiB pinned
    /// ```
    ///
    /// What the columns say: [`Analysis`], [`WorkerTime`], [`Row`](crate::Row) and [`MoveRow`](crate::MoveRow).
    #[must_use]
    pub fn describe(&self) -> String {
        self.describe_as(["name", "names"], &|task| &task.name)
    }

    /// The page, with tables by what `key` says of tasks; `kind` is what that is, one and several.
    pub(crate) fn describe_as<'a>(&'a self, kind: [&str; 2], key: &dyn Fn(&'a Task) -> &'a str) -> String {
        let analysis = self.analysis();
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_head(&mut text, &analysis);
        let _ = self.write_workers(&mut text, &analysis.workers);
        let _ = self.write_names(&mut text, &analysis, kind, key);
        let _ = self.write_path(&mut text, &analysis, kind, key);
        let _ = self.write_stores(&mut text);
        text
    }

    fn write_head(&self, text: &mut String, analysis: &Analysis) -> std::fmt::Result {
        let &Analysis { work, span, no_wait, elapsed, .. } = analysis;
        let workers = self.worker_count();
        let ended = |end| self.tasks.iter().filter(|task| task.end == end).count();
        let ends = [
            (Some(End::Done), "done"),
            (Some(End::Failed), "failed"),
            (Some(End::Refused), "refused"),
            (Some(End::Cancelled), "cancelled"),
            (None, "not ended"),
        ];
        let ends = ends.map(|(end, how)| (ended(end), how));
        let ends = ends.iter().filter(|&&(many, _)| many > 0);
        let ends: Vec<String> = ends.map(|&(many, how)| format!("{} {how}", count(many))).collect();
        let retries = self.tasks.iter().fold(0usize, |sum, task| sum.saturating_add(task.retries as usize));
        let retries = if retries > 0 { format!(", {}", tried_again(retries)) } else { String::new() };
        let colon = if ends.is_empty() { "" } else { ": " };
        writeln!(
            text,
            "{} in {} on {}{colon}{}{retries}",
            many(self.tasks.len(), "task"),
            time(elapsed),
            many(workers, "worker"),
            ends.join(", ")
        )?;
        if self.lost > 0 {
            let lost = usize::try_from(self.lost).unwrap_or(usize::MAX);
            writeln!(
                text,
                "{} lost, buffers were full: what is said below is too little",
                many(lost, "record")
            )?;
        }
        writeln!(text)?;
        let ratio = |a: u64, b: u64| a as f64 / b.max(1) as f64;
        let mut line = |what: &str, nanos, note: String| {
            writeln!(text, "{}", format!("{what:<40}{:>10}  {note}", time(nanos)).trim_end())
        };
        line(
            "run time of all tasks, T1",
            work,
            format!("{:.2} workers busy on average", ratio(work, elapsed)),
        )?;
        line("critical path, T∞", span, format!("at most {:.2} workers busy", ratio(work, span)))?;
        line("without waiting, T1 / workers", no_wait, String::new())?;
        let bound = span.max(no_wait);
        line("elapsed", elapsed, format!("{:.2} × the larger of both bounds", ratio(elapsed, bound)))
    }

    fn write_workers(&self, text: &mut String, workers: &[WorkerTime]) -> std::fmt::Result {
        if workers.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\n{:<NAME_CHARS_MAX$}{:>11}{:>11}{:>11}{:>11}",
            "where the time went", "running", "overhead", "waiting", "starved"
        )?;
        let mut row = |name: &str, parts: [u64; 4]| {
            let parts = parts.map(|part| format!("{:>11}", percent(part, self.nanos)));
            writeln!(text, "{name:<NAME_CHARS_MAX$}{}", parts.concat())
        };
        let parts = |worker: &WorkerTime| [worker.running, worker.overhead, worker.waiting, worker.starved];
        let mean = [0, 1, 2, 3].map(|part| {
            let sum = workers.iter().map(|worker| parts(worker)[part]).fold(0, u64::saturating_add);
            sum / workers.len() as u64
        });
        row(&format!("all {}", many(workers.len(), "worker thread")), mean)?;
        if workers.len() == 1 {
            return Ok(());
        }
        for worker in workers.iter().take(WORKERS_MAX) {
            let name = short(&self.lanes[worker.lane].name, NAME_CHARS_MAX - 2);
            row(&format!("  {name}"), parts(worker))?;
        }
        if workers.len() > WORKERS_MAX {
            writeln!(text, "  and {} more", count(workers.len() - WORKERS_MAX))?;
        }
        Ok(())
    }

    fn write_names<'a>(
        &'a self,
        text: &mut String,
        analysis: &Analysis,
        kind: [&str; 2],
        key: &dyn Fn(&'a Task) -> &'a str,
    ) -> std::fmt::Result {
        let rows = self.rows(|task| Some(key(task)));
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\n{:<NAME_CHARS_MAX$}{:>9}{:>10}{:>9}{:>10}{:>10}{:>10}{:>10}",
            format!("run time by {}", kind[0]),
            "count",
            "total",
            "share",
            "mean",
            "p50",
            "p99",
            "max"
        )?;
        for row in rows.iter().take(NAMES_MAX) {
            let [total, mean, p50, p99, max] = [row.total, row.mean, row.p50, row.p99, row.max].map(time);
            let (name, share) = (short(&row.name, NAME_CHARS_MAX), percent(row.total, analysis.work));
            let many = count(row.count);
            writeln!(
                text,
                "{name:<NAME_CHARS_MAX$}{many:>9}{total:>10}{share:>9}{mean:>10}{p50:>10}{p99:>10}{max:>10}"
            )?;
        }
        if rows.len() > NAMES_MAX {
            let rest = &rows[NAMES_MAX..];
            let total = time(rest.iter().map(|row| row.total).fold(0, u64::saturating_add));
            let tasks = count(rest.iter().map(|row| row.count).sum());
            let what = format!("and {}", more(rest.len(), kind));
            writeln!(text, "{what:<NAME_CHARS_MAX$}{tasks:>9}{total:>10}")?;
        }
        Ok(())
    }

    fn write_path<'a>(
        &'a self,
        text: &mut String,
        analysis: &Analysis,
        kind: [&str; 2],
        key: &dyn Fn(&'a Task) -> &'a str,
    ) -> std::fmt::Result {
        let path = &analysis.critical_path;
        if path.is_empty() {
            return Ok(());
        }
        let mut by_key: FxHashMap<&str, (usize, u64)> = FxHashMap::default();
        for step in path {
            let entry = by_key.entry(key(&self.tasks[step.task])).or_default();
            *entry = (entry.0 + 1, entry.1.saturating_add(step.nanos));
        }
        let mut rows: Vec<(&str, usize, u64)> =
            by_key.into_iter().map(|(name, (n, t))| (name, n, t)).collect();
        rows.sort_unstable_by(|a, b| b.2.cmp(&a.2).then(a.0.cmp(b.0)));
        let heading = format!("critical path by {}", kind[0]);
        writeln!(text, "\n{heading:<NAME_CHARS_MAX$}{:>9}{:>10}{:>9}", "steps", "total", "share")?;
        for &(name, steps, total) in rows.iter().take(PATH_MAX) {
            let (name, steps, share) =
                (short(name, NAME_CHARS_MAX), count(steps), percent(total, analysis.span));
            writeln!(text, "{name:<NAME_CHARS_MAX$}{steps:>9}{:>10}{share:>9}", time(total))?;
        }
        if rows.len() > PATH_MAX {
            writeln!(text, "and {}", more(rows.len() - PATH_MAX, kind))?;
        }
        Ok(())
    }

    fn write_stores(&self, text: &mut String) -> std::fmt::Result {
        let rows = self.by_move();
        if !rows.is_empty() {
            writeln!(
                text,
                "\n{:<NAME_CHARS_MAX$}{:>9}{:>10}{:>10}{:>10}{:>10}",
                "moved by stores", "count", "total", "bytes", "mean", "max"
            )?;
        }
        for row in &rows {
            let how = match row.how {
                Move::Spilled => "spilled: written out",
                Move::Dropped => "dropped: a copy was elsewhere",
                Move::Reloaded => "reloaded: read back",
                Move::Made => "made: by the first who needed it",
                _ => "moved in another way",
            };
            let [total, mean, max] = [row.total, row.mean, row.max].map(time);
            let (many, bytes) = (count(row.count), bytes(row.bytes));
            writeln!(text, "{how:<NAME_CHARS_MAX$}{many:>9}{total:>10}{bytes:>10}{mean:>10}{max:>10}")?;
        }
        if let Some((resident, pinned)) = self.resident_max() {
            let line_before = if rows.is_empty() { "\n" } else { "" };
            let [resident, pinned] = [resident, pinned].map(bytes);
            writeln!(text, "{line_before}most bytes at a time: {resident} resident, {pinned} pinned")?;
        }
        Ok(())
    }
}

fn many(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

fn more(number: usize, [one, several]: [&str; 2]) -> String {
    format!("{} more {}", count(number), if number == 1 { one } else { several })
}

fn tried_again(times: usize) -> String {
    if times == 1 { "1 retry".to_owned() } else { format!("{} retries", count(times)) }
}
