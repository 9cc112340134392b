//! What is printed: a table that people read, or a line of JSON for each figure.

use crate::options::Options;
use crate::work::{Bench, Side};
use dagger_benches::machine::cpu_model;
use dagger_benches::pingpong::State;
use dagger_benches::spread::Spread;
use std::fmt::Write;

/// One line, printed above the table.
const LEGEND: &str = "independent: spawn all, await all; chain: each takes the handle of the one before; fan: 100 × \
    (1 → 1000 → 1); one_by_one: spawn, await, again; submitters: four threads outside, as independent; block: of empty tasks, plain or with options; inside: the program is a task on a worker; outside: it runs on \
    another thread; ping-pong: ns of a cache line between two CPUs, before–after";

/// What `dagger` costs at most from inside, as a part of `tokio`.
const TARGET: f64 = 0.5;

/// All peers on one bench.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) bench: Bench,
    pub(crate) side: Side,
    pub(crate) threads: usize,
    /// Before and after; `None` on one CPU.
    pub(crate) pingpong_ns: Option<(f64, f64)>,
    /// Nanoseconds per task, of the peers that can express the bench.
    pub(crate) spreads: Vec<(&'static str, Spread)>,
}

impl Row {
    fn of(&self, peer: &str) -> Option<Spread> {
        self.spreads.iter().find(|(name, _)| *name == peer).map(|&(_, spread)| spread)
    }

    /// Above 1 ours is faster.
    fn tokio_per_dagger(&self) -> Option<f64> {
        Some(self.of("tokio")?.median / self.of("dagger")?.median)
    }

    /// A line of JSON for each peer.
    fn json(&self) -> String {
        let Row { bench, side, threads, .. } = self;
        let (bench, from) = (bench.name(), side.name());
        let pingpong = match self.pingpong_ns {
            Some((before, after)) => format!("[{before:.1}, {after:.1}]"),
            None => "null".to_owned(),
        };
        self.spreads.iter().fold(String::new(), |mut lines, (peer, Spread { median, min, max })| {
            // Writing to a string does not fail.
            let _ = writeln!(
                lines,
                r#"{{"bench": "{bench}", "peer": "{peer}", "threads": {threads}, "from": "{from}", "median_ns": {median:.2}, "min_ns": {min:.2}, "max_ns": {max:.2}, "pingpong_ns": {pingpong}}}"#
            );
            lines
        })
    }

    fn cells(&self, peers: &[&str]) -> Vec<String> {
        let pingpong = self
            .pingpong_ns
            .map(|(before, after)| format!("{} {before:.0}–{after:.0}", State::of(before, after).name()));
        let or_dash = |cell: Option<String>| cell.unwrap_or("–".to_owned());
        let mut cells = vec![
            self.bench.name().to_owned(),
            self.side.name().to_owned(),
            self.threads.to_string(),
            or_dash(pingpong),
        ];
        cells.extend(peers.iter().map(|peer| or_dash(self.of(peer).map(Spread::cell))));
        cells.push(or_dash(self.tokio_per_dagger().map(|ratio| format!("{ratio:.2}"))));
        cells
    }

    /// Bench, threads and ratio, if this row should reach the target and does not.
    fn miss(&self) -> Option<String> {
        let ratio = self.tokio_per_dagger()?;
        (self.side == Side::Inside && ratio * TARGET < 1.0)
            .then(|| format!("{} on {}: {:.2} × tokio", self.bench.name(), self.threads, 1.0 / ratio))
    }
}

/// Prints the rows as they come.
pub(crate) struct Report<'a> {
    options: &'a Options,
    misses: Vec<String>,
    inside: usize,
}

impl<'a> Report<'a> {
    pub(crate) fn new(options: &'a Options) -> Self {
        Report { options, misses: Vec::new(), inside: 0 }
    }

    pub(crate) fn open(&self) {
        if self.options.json {
            return;
        }
        let allocator = if cfg!(feature = "mimalloc") { "mimalloc" } else { "the system's allocator" };
        let size = if self.options.quick { "; quick: fewer tasks" } else { "" };
        println!(
            "ns per task, median [min–max] of {}{size}; {allocator}; {}\n{LEGEND}\n",
            self.options.reps,
            cpu_model()
        );
        let peers = &self.options.peers;
        let head = ["bench", "from", "threads", "ping-pong"].into_iter().chain(peers.iter().copied());
        let head: Vec<String> = head.chain(["tokio ÷ dagger"]).map(str::to_owned).collect();
        let rule: Vec<String> = head.iter().map(|_| "---".to_owned()).collect();
        println!("{}\n{}", line(&head), line(&rule));
    }

    pub(crate) fn row(&mut self, row: Row) {
        if self.options.json {
            print!("{}", row.json());
        } else {
            println!("{}", line(&row.cells(&self.options.peers)));
        }
        if row.side == Side::Inside && row.tokio_per_dagger().is_some() {
            self.inside += 1;
        }
        self.misses.extend(row.miss());
    }

    pub(crate) fn close(&self) {
        if self.options.json || self.inside == 0 {
            return;
        }
        let reached = self.inside - self.misses.len();
        println!("\nat or below {TARGET} × tokio from inside: {reached} of {} rows", self.inside);
        for miss in &self.misses {
            println!("  not {miss}");
        }
    }
}

/// A line of the table, in columns wide enough for most cells.
fn line(cells: &[String]) -> String {
    const WIDTHS: [usize; 4] = [14, 7, 7, 16];
    cells.iter().enumerate().fold("|".to_owned(), |mut line, (column, cell)| {
        let width = WIDTHS.get(column).copied().unwrap_or(18);
        let _ = write!(line, " {cell:<width$} |");
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(side: Side, dagger: f64, tokio: f64) -> Row {
        let exactly = |ns| Spread { median: ns, min: ns, max: ns };
        Row {
            bench: Bench::Chain,
            side,
            threads: 2,
            pingpong_ns: Some((40.04, 50.0)),
            spreads: vec![("dagger", exactly(dagger)), ("tokio", exactly(tokio))],
        }
    }

    #[test]
    fn a_row_is_a_line_of_json_for_each_peer() {
        let json = row(Side::Inside, 50.0, 125.5).json();
        let expected = r#"{"bench": "chain", "peer": "tokio", "threads": 2, "from": "inside", "median_ns": 125.50, "min_ns": 125.50, "max_ns": 125.50, "pingpong_ns": [40.0, 50.0]}"#;
        assert_eq!(json.lines().count(), 2);
        assert_eq!(json.lines().nth(1), Some(expected));
        let one_cpu = Row { pingpong_ns: None, ..row(Side::Inside, 50.0, 125.5) };
        assert!(one_cpu.json().lines().all(|line| line.ends_with(r#""pingpong_ns": null}"#)));
    }

    #[test]
    fn a_peer_without_figure_is_a_dash() {
        let cells = row(Side::Outside, 50.0, 125.0).cells(&["dagger", "tokio", "rayon"]);
        assert_eq!(
            cells,
            ["chain", "outside", "2", "near 40–50", "50 [50–50]", "125 [125–125]", "–", "2.50"]
        );
    }

    #[test]
    fn only_slow_rows_from_inside_miss_the_target() {
        assert_eq!(row(Side::Inside, 60.0, 100.0).miss(), Some("chain on 2: 0.60 × tokio".to_owned()));
        assert_eq!(row(Side::Inside, 50.0, 100.0).miss(), None);
        assert_eq!(row(Side::Outside, 60.0, 100.0).miss(), None);
    }
}
