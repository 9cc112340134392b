//! Traces as files.
//!
//! ```text
//!   dagtrace   version    began, nanos, lost, texts, lanes, tasks, edges, idle, steals, moves, samples   checksum
//!   8 bytes    2 bytes    numbers: LEB128; texts: length and UTF-8, referred to by index                 8 bytes, FNV-1a
//! ```
//! 1. What is read back equals what was written, if it had the invariants of `model.rs` (and was not as in 2).
//! 2. Reading never panics, whatever the bytes; it takes memory in proportion to them. A trace whose texts take more than 256
//!    times the file (and 64 MiB) is refused: each of its tasks would have a name of kilobytes.
//! 3. What was read has invariants 2 to 5 of `model.rs`: indices and times are within bounds, runs, moves and samples in order.
//! 4. A changed byte is noticed, if not by what it says then by the checksum of all before it.

use crate::error::TraceError;
use crate::model::{
    Access, At, Edge, EdgeCause, Idle, LaneInfo, Moved, Place, Run, Sample, Steal, Task, Trace,
};
use dagger_core::record::{End, Move};
use rustc_hash::FxHashMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 8] = b"dagtrace";
const VERSION: u16 = 3; // 1 had no places and retries, 2 no moves and samples
/// How long the texts of a trace may be, all uses together, for a small file, and for each byte of a file.
const TEXT_BYTES_MAX: usize = 64 << 20;
const TEXT_BYTES_PER_BYTE: usize = 256;

impl Trace {
    /// Writes the trace to a file, for [`Trace::load`]. Any suffix will do.
    ///
    /// # Errors
    /// [`TraceError::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TraceError> {
        let path = path.as_ref();
        std::fs::write(path, self.to_bytes()).map_err(TraceError::io(path))
    }

    /// Reads what [`Trace::save`] wrote, with this version of the crate or an older one.
    ///
    /// # Errors
    /// [`TraceError::Io`], or [`TraceError::BadFile`] if the file is cut short, damaged, newer, or something else.
    pub fn load(path: impl AsRef<Path>) -> Result<Trace, TraceError> {
        let path = path.as_ref();
        Trace::from_bytes(&std::fs::read(path).map_err(TraceError::io(path))?)
    }

    /// The content of the file that [`Trace::save`] writes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        Writer::default().trace(self)
    }

    /// The trace that [`Trace::to_bytes`] made these of.
    ///
    /// # Errors
    /// [`TraceError::BadFile`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Trace, TraceError> {
        let text_bytes_left = TEXT_BYTES_MAX.saturating_add(bytes.len().saturating_mul(TEXT_BYTES_PER_BYTE));
        let mut reader = Reader { bytes, at: 0, version: 0, nanos: 0, text_bytes_left };
        reader.trace()
    }
}

/// FNV-1a: one changed byte always changes it, since each step is invertible.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

#[derive(Default)]
struct Writer<'a> {
    bytes: Vec<u8>,
    texts: Vec<&'a str>,
    text_of: FxHashMap<&'a str, usize>,
}

impl<'a> Writer<'a> {
    fn trace(mut self, trace: &'a Trace) -> Vec<u8> {
        self.lanes(trace);
        self.tasks(trace);
        self.rest(trace);
        let body = std::mem::take(&mut self.bytes);

        self.bytes.extend(MAGIC);
        self.bytes.extend(VERSION.to_le_bytes());
        let (late, since) = match trace.began.duration_since(UNIX_EPOCH) {
            Ok(since) => (true, since),
            Err(before) => (false, before.duration()),
        };
        self.bytes.push(u8::from(late));
        self.number(since.as_secs());
        self.number(u64::from(since.subsec_nanos()));
        self.number(trace.nanos);
        self.number(trace.lost);
        let texts = std::mem::take(&mut self.texts);
        self.count(texts.len());
        for text in texts {
            self.count(text.len());
            self.bytes.extend(text.as_bytes());
        }
        self.bytes.extend(body);
        let sum = checksum(&self.bytes);
        self.bytes.extend(sum.to_le_bytes());
        self.bytes
    }

    fn lanes(&mut self, trace: &'a Trace) {
        self.count(trace.lanes.len());
        for lane in &trace.lanes {
            self.text(&lane.name);
            self.option(lane.worker.map(|worker| worker as u64));
        }
    }

    fn tasks(&mut self, trace: &'a Trace) {
        self.count(trace.tasks.len());
        for task in &trace.tasks {
            self.number(task.id);
            self.text(&task.name);
            self.text(&task.site);
            self.option(task.parent.map(|parent| parent as u64));
            self.option(task.spawned.map(|spawned| spawned.at));
            if let Some(spawned) = task.spawned {
                self.count(spawned.lane);
            }
            self.option(task.ready);
            self.option(task.ended);
            self.bytes.push(match task.end {
                Some(End::Done) => 1,
                Some(End::Failed) => 2,
                Some(End::Refused) => 3,
                Some(End::Cancelled) => 4,
                _ => 0,
            });
            self.count(task.runs.len());
            let mut before = 0;
            for run in &task.runs {
                self.count(run.lane);
                self.number(run.start.saturating_sub(before));
                self.number(run.nanos());
                before = run.end;
            }
            self.bytes.push(u8::from(task.place.is_some()));
            if let Some(place) = &task.place {
                self.bytes.push(u8::from(place.workers.is_some()));
                if let Some(workers) = &place.workers {
                    self.count(workers.len());
                    workers.iter().for_each(|&worker| self.count(worker));
                }
                // Small ones of either sign are short.
                self.number(u64::from((place.priority << 1 ^ place.priority >> 31) as u32));
                self.bytes.push(u8::from(place.blocking));
            }
            self.number(u64::from(task.retries));
            self.count(task.accesses.len());
            for access in &task.accesses {
                self.number(access.chunk);
                self.number(access.turn);
                self.bytes.push(u8::from(access.writes));
                self.text(&access.part);
            }
        }
    }

    fn rest(&mut self, trace: &'a Trace) {
        self.count(trace.edges.len());
        for edge in &trace.edges {
            self.count(edge.from);
            self.count(edge.to);
            match edge.cause {
                EdgeCause::Argument => self.bytes.push(0),
                EdgeCause::Order => self.bytes.push(1),
                EdgeCause::Awaited => self.bytes.push(2),
                EdgeCause::Data { chunk } => {
                    self.bytes.push(3);
                    self.number(chunk);
                }
            }
        }
        self.count(trace.idle.len());
        for idle in &trace.idle {
            self.count(idle.lane);
            self.number(idle.start);
            self.number(idle.end.saturating_sub(idle.start));
        }
        self.count(trace.steals.len());
        for steal in &trace.steals {
            self.count(steal.lane);
            self.number(steal.at);
            self.count(steal.from);
        }
        self.store(trace);
    }

    fn store(&mut self, trace: &Trace) {
        self.count(trace.moves.len());
        let mut before = 0;
        for moved in &trace.moves {
            self.count(moved.lane);
            self.number(moved.start.saturating_sub(before));
            self.number(moved.nanos());
            before = moved.start;
            self.number(moved.chunk);
            self.number(moved.bytes);
            self.bytes.push(match moved.how {
                Move::Spilled => 0,
                Move::Dropped => 1,
                Move::Reloaded => 2,
                // `Move` may grow; the test of all kinds fails then.
                _ => 3,
            });
        }
        self.count(trace.samples.len());
        before = 0;
        for sample in &trace.samples {
            self.number(sample.store);
            self.number(sample.at.saturating_sub(before));
            before = sample.at;
            self.number(sample.bytes);
            self.number(sample.pinned);
        }
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn count(&mut self, count: usize) {
        self.number(count as u64);
    }

    fn option(&mut self, number: Option<u64>) {
        self.bytes.push(u8::from(number.is_some()));
        if let Some(number) = number {
            self.number(number);
        }
    }

    fn text(&mut self, text: &'a str) {
        let next = self.texts.len();
        let index = *self.text_of.entry(text).or_insert(next);
        if index == next {
            self.texts.push(text);
        }
        self.count(index);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    version: u16,
    /// How long the recording went on: no time is later.
    nanos: u64,
    /// How long all texts together may still become: a text is in the file once, and in the trace wherever it is used.
    text_bytes_left: usize,
}

type Read<T> = Result<T, TraceError>;

fn bad<T>(at: usize, what: impl Into<String>) -> Read<T> {
    Err(TraceError::BadFile { offset: at as u64, what: what.into() })
}

impl Reader<'_> {
    fn trace(&mut self) -> Read<Trace> {
        let magic = self.bytes.len().min(MAGIC.len());
        if self.bytes[..magic] != MAGIC[..magic] {
            return bad(0, "this is no trace");
        }
        self.take(MAGIC.len())?;
        let version_at = self.at;
        let version = self.take(2)?;
        let version = u16::from_le_bytes([version[0], version[1]]);
        if !(1..=VERSION).contains(&version) {
            return bad(
                version_at,
                format!("version {version} of the format; this program reads versions 1 to {VERSION}"),
            );
        }
        self.version = version;
        let began = self.began()?;
        self.nanos = self.number()?;
        let lost = self.number()?;
        let texts = self.list(|reader| {
            let len = reader.count()?;
            let at = reader.at;
            match std::str::from_utf8(reader.take(len)?) {
                Ok(text) => Ok(text.to_owned()),
                Err(error) => bad(at + error.valid_up_to(), "a text that is not UTF-8"),
            }
        })?;
        let lanes = self.list(|reader| {
            let name = reader.text(&texts)?;
            let at = reader.at;
            let worker = match reader.option(Reader::number)?.map(usize::try_from) {
                Some(Err(_)) => return bad(at, "the number of a worker that is too large"),
                worker => worker.and_then(Result::ok),
            };
            Ok(LaneInfo { name, worker })
        })?;
        let tasks = self.tasks(&texts, lanes.len())?;
        let edges = self.list(|reader| reader.edge(tasks.len()))?;
        let idle = self.list(|reader| {
            let lane = reader.index(lanes.len(), "lane")?;
            let start = reader.time(0)?;
            Ok(Idle { lane, start, end: reader.time(start)? })
        })?;
        let steals = self.list(|reader| {
            let lane = reader.index(lanes.len(), "lane")?;
            Ok(Steal { lane, at: reader.time(0)?, from: reader.index(usize::MAX, "worker")? })
        })?;
        let (moves, samples) = match self.version {
            1 | 2 => (Vec::new(), Vec::new()),
            _ => (self.moves(lanes.len())?, self.samples()?),
        };

        let sum_at = self.at;
        let sum = self.take(8)?.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        if sum != checksum(&self.bytes[..sum_at]) {
            return bad(sum_at, "the checksum is that of other bytes");
        }
        if self.at != self.bytes.len() {
            return bad(self.at, "more bytes than a trace has");
        }
        Ok(Trace { began, nanos: self.nanos, lanes, tasks, edges, idle, steals, moves, samples, lost })
    }

    fn began(&mut self) -> Read<SystemTime> {
        let at = self.at;
        let late = self.flag()?;
        let (secs, nanos) = (self.number()?, self.number()?);
        if nanos >= 1_000_000_000 {
            return bad(at, "a time with more than a second of nanoseconds");
        }
        let since = Duration::new(secs, nanos as u32);
        let began = if late { UNIX_EPOCH.checked_add(since) } else { UNIX_EPOCH.checked_sub(since) };
        began.map_or_else(|| bad(at, "a time beyond what this machine can tell"), Ok)
    }

    fn tasks(&mut self, texts: &[String], lanes: usize) -> Read<Vec<Task>> {
        let at = self.at;
        let count = self.count()?;
        if count > self.bytes.len() - self.at {
            return bad(at, "a list that is longer than the file");
        }
        let mut tasks = Vec::new();
        for _ in 0..count {
            tasks.push(self.task(texts, lanes, count)?);
        }
        Ok(tasks)
    }

    fn task(&mut self, texts: &[String], lanes: usize, tasks: usize) -> Read<Task> {
        let id = self.number()?;
        let (name, site) = (self.text(texts)?, self.text(texts)?);
        let parent = self.option(|reader| reader.index(tasks, "task"))?;
        let spawned = self.option(|reader| {
            let at = reader.time(0)?;
            Ok(At { lane: reader.index(lanes, "lane")?, at })
        })?;
        let ready = self.option(|reader| reader.time(0))?;
        let ended = self.option(|reader| reader.time(0))?;
        let end_at = self.at;
        let end = match self.take(1)?[0] {
            0 => None,
            1 => Some(End::Done),
            2 => Some(End::Failed),
            3 => Some(End::Refused),
            4 => Some(End::Cancelled),
            _ => return bad(end_at, "an unknown way to end"),
        };
        let runs_at = self.at;
        let mut before = 0;
        let runs = self.list(|reader| {
            let lane = reader.index(lanes, "lane")?;
            let start = reader.time(before)?;
            before = reader.time(start)?;
            Ok(Run { lane, start, end: before })
        })?;
        if ended.is_some_and(|ended| before > ended) {
            return bad(runs_at, "a task that runs after its end");
        }
        let (place, retries) = match self.version {
            1 => (None, 0),
            _ => (self.option(Reader::place)?, self.small()?),
        };
        let accesses = self.list(|reader| {
            let (chunk, turn, writes) = (reader.number()?, reader.number()?, reader.flag()?);
            let part = reader.text(texts)?;
            Ok(Access { chunk, turn, writes, part })
        })?;
        Ok(Task { id, name, site, parent, spawned, ready, place, retries, runs, ended, end, accesses })
    }

    fn place(&mut self) -> Read<Place> {
        let workers = self.option(|reader| reader.list(|reader| reader.index(usize::MAX, "worker")))?;
        let priority = self.small()?;
        let priority = (priority >> 1) as i32 ^ -((priority & 1) as i32);
        Ok(Place { workers, priority, blocking: self.flag()? })
    }

    /// A number of 32 bits.
    fn small(&mut self) -> Read<u32> {
        let at = self.at;
        u32::try_from(self.number()?).or_else(|_| bad(at, "a number of more than 32 bits"))
    }

    fn edge(&mut self, tasks: usize) -> Read<Edge> {
        let (from, to) = (self.index(tasks, "task")?, self.index(tasks, "task")?);
        let at = self.at;
        let cause = match self.take(1)?[0] {
            0 => EdgeCause::Argument,
            1 => EdgeCause::Order,
            2 => EdgeCause::Awaited,
            3 => EdgeCause::Data { chunk: self.number()? },
            _ => return bad(at, "an unknown cause of an edge"),
        };
        Ok(Edge { from, to, cause })
    }

    fn moves(&mut self, lanes: usize) -> Read<Vec<Moved>> {
        let mut before = 0;
        self.list(|reader| {
            let lane = reader.index(lanes, "lane")?;
            let start = reader.time(before)?;
            before = start;
            let end = reader.time(start)?;
            let (chunk, bytes, at) = (reader.number()?, reader.number()?, reader.at);
            let how = match reader.take(1)?[0] {
                0 => Move::Spilled,
                1 => Move::Dropped,
                2 => Move::Reloaded,
                3 => Move::Made,
                _ => return bad(at, "an unknown way to move"),
            };
            Ok(Moved { lane, start, end, chunk, bytes, how })
        })
    }

    fn samples(&mut self) -> Read<Vec<Sample>> {
        let mut before = 0;
        self.list(|reader| {
            let (store, at) = (reader.number()?, reader.time(before)?);
            before = at;
            Ok(Sample { store, at, bytes: reader.number()?, pinned: reader.number()? })
        })
    }

    fn take(&mut self, len: usize) -> Read<&[u8]> {
        let rest = &self.bytes[self.at..];
        if len > rest.len() {
            return bad(self.bytes.len(), "the file ends too early");
        }
        self.at += len;
        Ok(&rest[..len])
    }

    fn number(&mut self) -> Read<u64> {
        let at = self.at;
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        bad(at, "a number of more than 64 bits")
    }

    fn count(&mut self) -> Read<usize> {
        let at = self.at;
        usize::try_from(self.number()?).or_else(|_| bad(at, "a length that is too large"))
    }

    fn index(&mut self, len: usize, of: &str) -> Read<usize> {
        let at = self.at;
        let index = self.count()?;
        if index < len { Ok(index) } else { bad(at, format!("{of} {index} of {len}")) }
    }

    /// A text, by its index.
    fn text(&mut self, texts: &[String]) -> Read<String> {
        let at = self.at;
        let text = &texts[self.index(texts.len(), "text")?];
        match self.text_bytes_left.checked_sub(text.len()) {
            Some(left) => self.text_bytes_left = left,
            None => return bad(at, "texts that take too much memory"),
        }
        Ok(text.clone())
    }

    /// A time, written as that since an earlier one.
    fn time(&mut self, since: u64) -> Read<u64> {
        let at = self.at;
        match since.checked_add(self.number()?) {
            Some(time) if time <= self.nanos => Ok(time),
            _ => bad(at, "a time after the end of the recording"),
        }
    }

    fn flag(&mut self) -> Read<bool> {
        let at = self.at;
        match self.take(1)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            _ => bad(at, "neither yes nor no"),
        }
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Each entry takes at least a byte, so what is claimed beyond the file is noticed before it takes memory.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let at = self.at;
        let count = self.count()?;
        if count > self.bytes.len() - self.at {
            return bad(at, "a list that is longer than the file");
        }
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(read(self)?);
        }
        Ok(list)
    }
}
