//! The trace in the JSON of Chrome and Perfetto.
//!
//! ```text
//!   lane           ▕ X potrf ▏──s─╮        ▕ X syrk ▏       X  complete event: a run       s ─▶ f  flow: an edge
//!   lane                          ╰─f▶▕ X trsm ▏            M  the name of a lane
//!   async track                    b ── download ── e       b, e  a task that waits inside its body
//!   counters       ready ▁▂▅▂▁  running ▁▁▂▂▁               C
//!
//!   store  moves   ▕ X spill ▏   ▕ X reload ▏               the second process, if anything moved
//!          moves        ▕ X reload ▏
//!   counters       resident ▁▃▇▇▅  pinned ▁▁▂▂▁
//! ```
//! 1. Tasks are in one process, one lane per thread; times are microseconds with three decimals. Moves are in another, in as
//!    few lanes as keep those apart that overlap: a thread may have several under way.
//! 2. A flow starts in the last run of the earlier task and ends in a run of the later one; an edge between tasks of which one
//!    never ran has none, nor has one that would lead back in time.
//!
//! The format: "Trace Event Format" of the Chromium project, read by `chrome://tracing`, ui.perfetto.dev and Speedscope.

use crate::error::TraceError;
use crate::model::{EdgeCause, Run, Sample, Task, Trace};
use crate::moves;
use std::collections::BTreeMap;
use std::path::Path;

/// The processes that events are of.
const TASKS: u64 = 1;
const STORE: u64 = 2;

impl Trace {
    /// Writes [`Trace::to_chrome`] to a `.json` file; open it in ui.perfetto.dev or `chrome://tracing`.
    ///
    /// # Errors
    /// [`TraceError::UnknownSuffix`], before anything is written, or [`TraceError::Io`].
    pub fn save_chrome(&self, path: impl AsRef<Path>) -> Result<(), TraceError> {
        let path = path.as_ref();
        if path.extension().is_none_or(|suffix| !suffix.eq_ignore_ascii_case("json")) {
            return Err(TraceError::UnknownSuffix { path: path.to_owned(), supported: ".json" });
        }
        std::fs::write(path, self.to_chrome()).map_err(TraceError::io(path))
    }

    /// The trace as a JSON object in the Trace Event Format: runs as slices of their threads, edges as flow arrows, tasks that
    /// wait inside their bodies as asynchronous slices, and the numbers of ready and of running tasks as counters. What stores
    /// moved is in a process of its own, as slices, with the bytes that they held as counters.
    ///
    /// About 0.5 KB per task, and 0.2 KB per edge, move and sample.
    #[must_use]
    pub fn to_chrome(&self) -> String {
        let mut json = Json {
            text: String::with_capacity(
                512 + 512 * self.tasks.len()
                    + 224 * (self.edges.len() + self.moves.len() + self.samples.len()),
            ),
            first: true,
            process: TASKS,
        };
        json.text.push_str("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
        self.write_lanes(&mut json);
        for (index, task) in self.tasks.iter().enumerate() {
            self.write_slices(&mut json, task);
            self.write_waits(&mut json, index, task);
        }
        self.write_flows(&mut json);
        self.write_counters(&mut json);
        if !self.moves.is_empty() || !self.samples.is_empty() {
            json.process = STORE;
            self.write_moves(&mut json);
            self.write_samples(&mut json);
        }
        json.text.push_str("\n]}\n");
        json.text
    }

    fn write_lanes(&self, json: &mut Json) {
        json.process_name("dagger");
        for (lane, info) in self.lanes.iter().enumerate() {
            json.lane(lane, &info.name);
        }
    }

    fn write_slices(&self, json: &mut Json, task: &Task) {
        for run in &task.runs {
            json.event("X", Some(run.lane), run.start);
            json.text.push_str(",\"dur\":");
            json.micros(run.nanos());
            json.text.push_str(",\"cat\":\"task\",\"name\":");
            json.string(&task.name);
            json.text.push_str(",\"args\":{\"task\":");
            json.number(task.id);
            if !task.site.is_empty() {
                json.text.push_str(",\"site\":");
                json.string(&task.site);
            }
            if let Some(parent) = task.parent.and_then(|parent| self.tasks.get(parent)) {
                json.text.push_str(",\"parent\":");
                json.number(parent.id);
            }
            if let Some(place) = &task.place {
                json.text.push_str(",\"place\":");
                json.string(&place.to_string());
            }
            if task.retries > 0 {
                json.text.push_str(",\"retries\":");
                json.number(u64::from(task.retries));
            }
            for access in &task.accesses {
                json.text.push_str(if access.writes { ",\"writes chunk " } else { ",\"reads chunk " });
                json.number(access.chunk);
                json.text.push_str(", turn ");
                json.number(access.turn);
                json.text.push_str("\":");
                json.string(&access.part);
            }
            json.text.push_str("}}");
        }
    }

    fn write_waits(&self, json: &mut Json, index: usize, task: &Task) {
        let between = task.runs.windows(2).map(|pair| (pair[0].end, pair[1].start));
        let last = task.runs.last().and_then(|run| match task.ended {
            Some(ended) => Some((run.end, ended)),
            None if self.lost == 0 => Some((run.end, self.nanos)),
            None => None, // it may have ended
        });
        for (start, end) in between.chain(last).filter(|(start, end)| start < end) {
            for (phase, at) in [("b", start), ("e", end)] {
                json.event(phase, None, at);
                json.text.push_str(",\"cat\":\"suspended\",\"id\":");
                json.number(index as u64);
                json.text.push_str(",\"name\":");
                json.string(&task.name);
                json.text.push('}');
            }
        }
    }

    fn write_flows(&self, json: &mut Json) {
        for (index, edge) in self.edges.iter().enumerate() {
            let (Some(from), Some(to)) = (self.tasks.get(edge.from), self.tasks.get(edge.to)) else {
                continue;
            };
            let Some(source) = from.runs.last() else { continue };
            // Inside the slice: its very end may belong to the next one.
            let leaves = source.end.saturating_sub(1).max(source.start);
            let arrives = |run: &&Run| edge.cause != EdgeCause::Awaited || run.start >= leaves;
            let Some(target) = to.runs.iter().find(arrives).filter(|run| run.start >= leaves) else {
                continue;
            };
            for (phase, lane, at) in [("s", source.lane, leaves), ("f", target.lane, target.start)] {
                json.event(phase, Some(lane), at);
                json.text.push_str(if phase == "f" { ",\"bp\":\"e\",\"id\":" } else { ",\"id\":" });
                json.number(index as u64);
                json.text.push_str(",\"cat\":\"edge\",\"name\":");
                match edge.cause {
                    EdgeCause::Argument => json.text.push_str("\"argument\"}"),
                    EdgeCause::Order => json.text.push_str("\"order\"}"),
                    EdgeCause::Awaited => json.text.push_str("\"awaited\"}"),
                    EdgeCause::Data { chunk } => {
                        json.text.push_str("\"chunk ");
                        json.number(chunk);
                        json.text.push_str("\"}");
                    }
                }
            }
        }
    }

    fn write_counters(&self, json: &mut Json) {
        let mut ready = Vec::new();
        let mut running = Vec::new();
        for (task, since) in self.tasks.iter().zip(self.ready_times()) {
            let until = task.runs.first().map(|run| run.start).or(task.ended).unwrap_or(self.nanos);
            if let Some(since) = since {
                ready.extend([(since, 1), (until.max(since), -1)]);
            }
            running.extend(task.runs.iter().flat_map(|run| [(run.start, 1), (run.end.max(run.start), -1)]));
        }
        json.counter("ready", ready);
        json.counter("running", running);
    }

    fn write_moves(&self, json: &mut Json) {
        json.process_name("store");
        let (lanes, many) = moves::apart(&self.moves);
        (0..many).for_each(|lane| json.lane(lane, "moves"));
        for (moved, lane) in self.moves.iter().zip(lanes) {
            json.event("X", Some(lane), moved.start);
            json.text.push_str(",\"dur\":");
            json.micros(moved.nanos());
            json.text.push_str(",\"cat\":\"move\",\"name\":");
            json.string(moves::verb(moved.how));
            json.text.push_str(",\"args\":{\"chunk\":");
            json.number(moved.chunk);
            json.text.push_str(",\"bytes\":");
            json.number(moved.bytes);
            if let Some(info) = self.lanes.get(moved.lane) {
                json.text.push_str(",\"thread\":");
                json.string(&info.name);
            }
            json.text.push_str("}}");
        }
    }

    fn write_samples(&self, json: &mut Json) {
        let mut stores: BTreeMap<u64, Vec<&Sample>> = BTreeMap::new();
        for sample in &self.samples {
            stores.entry(sample.store).or_default().push(sample);
        }
        for (store, samples) in &stores {
            let of = if stores.len() == 1 { String::new() } else { format!(" in store {store}") };
            json.levels(&format!("resident{of}"), samples.iter().map(|sample| (sample.at, sample.bytes)));
            json.levels(&format!("pinned{of}"), samples.iter().map(|sample| (sample.at, sample.pinned)));
        }
    }
}

/// Events, one per line.
struct Json {
    text: String,
    first: bool,
    process: u64,
}

impl Json {
    /// The fields that each event has, and the brace that opens it. Lanes are numbered from one: zero means none.
    fn event(&mut self, phase: &str, lane: Option<usize>, at: u64) {
        self.text.push_str(if std::mem::take(&mut self.first) { "\n" } else { ",\n" });
        self.text.push_str("{\"ph\":\"");
        self.text.push_str(phase);
        self.text.push_str("\",\"pid\":");
        self.number(self.process);
        self.text.push_str(",\"tid\":");
        self.number(lane.map_or(0, |lane| lane as u64 + 1));
        self.text.push_str(",\"ts\":");
        self.micros(at);
    }

    /// The name of the process.
    fn process_name(&mut self, name: &str) {
        self.event("M", None, 0);
        self.text.push_str(",\"name\":\"process_name\",\"args\":{\"name\":");
        self.string(name);
        self.text.push_str("}}");
    }

    /// The name and the place of a lane.
    fn lane(&mut self, lane: usize, name: &str) {
        self.event("M", Some(lane), 0);
        self.text.push_str(",\"name\":\"thread_name\",\"args\":{\"name\":");
        self.string(name);
        self.text.push_str("}}");
        self.event("M", Some(lane), 0);
        self.text.push_str(",\"name\":\"thread_sort_index\",\"args\":{\"sort_index\":");
        self.number(lane as u64);
        self.text.push_str("}}");
    }

    /// A counter from its steps; one event for each time at which it changes.
    fn counter(&mut self, name: &str, mut steps: Vec<(u64, i64)>) {
        steps.sort_unstable();
        let (mut value, mut shown) = (0, 0);
        for at in steps.chunk_by(|a, b| a.0 == b.0) {
            value += at.iter().map(|&(_, step)| step).sum::<i64>();
            if value == shown {
                continue;
            }
            shown = value;
            // Never negative: each step down follows its step up.
            self.count(name, at[0].0, "tasks", value.unsigned_abs());
        }
    }

    /// A counter of bytes from what it shows, in the order of time; of several at once the last one counts.
    fn levels(&mut self, name: &str, levels: impl Iterator<Item = (u64, u64)>) {
        let mut levels = levels.peekable();
        let mut shown = None;
        while let Some((at, level)) = levels.next() {
            let is_last = levels.peek().is_none_or(|&(next, _)| at < next);
            if is_last && shown.replace(level) != Some(level) {
                self.count(name, at, "bytes", level);
            }
        }
    }

    fn count(&mut self, name: &str, at: u64, unit: &str, value: u64) {
        self.event("C", None, at);
        self.text.push_str(",\"name\":");
        self.string(name);
        self.text.push_str(",\"args\":{");
        self.string(unit);
        self.text.push(':');
        self.number(value);
        self.text.push_str("}}");
    }

    fn micros(&mut self, nanos: u64) {
        self.number(nanos / 1000);
        let rest = nanos % 1000;
        if rest > 0 {
            self.text.push('.');
            for digit in [rest / 100, rest / 10 % 10, rest % 10] {
                self.text.push(char::from(b'0' + digit as u8));
            }
        }
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.text.extend(digits[start..].iter().map(|&digit| char::from(digit)));
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| c < ' ' || matches!(c, '"' | '\\')) {
            let (plain, from) = rest.split_at(at);
            self.text.push_str(plain);
            match from.as_bytes()[0] {
                b'"' => self.text.push_str("\\\""),
                b'\\' => self.text.push_str("\\\\"),
                b'\n' => self.text.push_str("\\n"),
                b'\t' => self.text.push_str("\\t"),
                byte => {
                    self.text.push_str("\\u00");
                    for digit in [byte >> 4, byte & 15] {
                        self.text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
                    }
                }
            }
            rest = &from[1..];
        }
        self.text.push_str(rest);
        self.text.push('"');
    }
}
