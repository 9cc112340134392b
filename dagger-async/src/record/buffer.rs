//! What threads write down: words in segments, of which the one that stops reads as many as are published.
//!
//! ```text
//!   the thread          segment                                  whoever stops
//!   store words  ─▶     [ used | words .................. ]
//!   used: Release ─▶    [ used | ####### .............. ]  ─▶    used: Acquire, then that many words
//!   full: a new one, into the lane's list under the lock
//! ```
//! 1. Only its thread writes to a segment that is in a lane, and never again to words below `used`.
//! 2. Lanes are of one generation: from the first of the recordings that overlap to the end of the last. A thread that comes
//!    late from an older one finds its segment in no lane, or sees that the generation is over, and its record is gone.
//! 3. A segment is in one lane, once, and is not used again. After the last recording each thread that has written keeps one,
//!    until it ends or writes again.
//!
//! Segments that later recordings use again, so that their memory is mapped, were tried and gave nothing: the allocator does so.
//!
//! The words are atomics, so none of this is unsafe: a mistake would show as a wrong record, not as undefined behaviour.

use super::ticks;
use super::words::{self, Aside, Sink, WORDS_MAX};
use crate::pool::local;
use crate::task::Origin;
use dagger_core::record::{Lane, Record, What};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// Words of a segment, of which the first is how many are used: 32 KiB, for 250 tasks with three accesses.
const SEGMENT_WORDS: usize = 4096;

/// The generation of the recordings that are on; 0 while none is.
static ON: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);
/// Records that a thread keeps.
static RECORDS_MAX: AtomicUsize = AtomicUsize::new(0);
static LANES: Mutex<Lanes> = Mutex::new(Lanes { all: Vec::new(), recordings: 0, generation: 0 });

/// The first word is how many are used, itself included.
type Segment = Arc<[AtomicU64]>;

struct Lanes {
    all: Vec<Written>,
    recordings: u32,
    generation: u64,
}

/// What one thread has written down.
#[derive(Clone)]
struct Written {
    name: Arc<str>,
    worker: Option<usize>,
    /// In the order of their times; only the last one may be empty.
    segments: Vec<Segment>,
    asides: Arc<Mutex<Vec<Aside>>>,
}

/// The thread's side of it.
struct Writer {
    generation: u64,
    segment: Segment,
    /// As in the segment.
    used: usize,
    records: usize,
    records_max: usize,
    spawning: u64,
    /// The number of its lane.
    lane: usize,
    asides: Arc<Mutex<Vec<Aside>>>,
    labels: Box<[Option<Label>; LABELS]>,
}

/// Labels that a thread remembers. Others that fall on the same place are kept again, so that a lookup is one comparison.
const LABELS: usize = 64;

/// The aside of a label, by the address of its origin and the name that its body has.
#[derive(Clone, Copy)]
struct Label {
    origin: usize,
    body: *const str,
    aside: u64,
}

thread_local!(static WRITER: RefCell<Option<Writer>> = const { RefCell::new(None) });

/// True while something records.
#[inline]
pub(super) fn is_on() -> bool {
    ON.load(Relaxed) != 0
}

/// Writes something down. `what` is made where there is room for it, and records nothing itself. A closure, so that each caller
/// has code of its own, in which the kind is known.
#[inline(always)]
pub(super) fn write(what: impl FnOnce() -> What) {
    with_writer(|writer| words::put(writer, what()));
}

/// Writes the spawn of a task down.
pub(super) fn write_spawn(task: u64, parent: u64, origin: Origin, body: &'static str) {
    with_writer(|writer| {
        let label = writer.label(origin, body);
        words::put_spawn(writer, task, parent, label);
    });
}

#[inline(always)]
fn with_writer(write: impl FnOnce(&mut Writer)) {
    // Who sees a generation here that is over writes where nobody looks (invariant 2).
    let generation = ON.load(Relaxed);
    let tried = WRITER.try_with(|own| {
        let mut own = own.borrow_mut();
        let ready = own.as_ref().is_some_and(|writer| writer.has_room(generation));
        if (ready || make_room(&mut own, generation))
            && let Some(writer) = &mut *own
        {
            write(writer);
        }
    });
    if tried.is_err() {
        // While the thread is torn down there is nowhere to write.
        LOST.fetch_add(1, Relaxed);
    }
}

/// Gives the writer of this thread room for one record, if there may be one more.
#[cold]
#[inline(never)]
fn make_room(own: &mut Option<Writer>, generation: u64) -> bool {
    match own {
        Some(writer) if writer.generation == generation => {
            if writer.records >= writer.records_max {
                // Another recording may have asked for more by now.
                writer.records_max = RECORDS_MAX.load(Relaxed);
                if writer.records >= writer.records_max {
                    LOST.fetch_add(1, Relaxed);
                    return false;
                }
            }
            writer.used <= SEGMENT_WORDS - WORDS_MAX || writer.turn_page()
        }
        _ => {
            *own = Writer::enter(generation);
            own.is_some()
        }
    }
}

impl Writer {
    /// Opens this thread's lane; `None` if the generation is over.
    fn enter(generation: u64) -> Option<Writer> {
        let name: Arc<str> = std::thread::current().name().unwrap_or("a thread").into();
        let worker = local::with(|local| local.place().map(|place| place.index));
        let asides = Arc::default();
        let labels = Box::new([None; LABELS]);
        let segment = new_segment();
        let mut lanes = LANES.lock();
        if lanes.recordings == 0 || lanes.generation != generation {
            return None;
        }
        let lane = lanes.all.len();
        let segments = vec![segment.clone()];
        lanes.all.push(Written { name, worker, segments, asides: Arc::clone(&asides) });
        let records_max = RECORDS_MAX.load(Relaxed);
        drop(lanes);
        Some(Writer {
            generation,
            segment,
            used: 1,
            records: 0,
            records_max,
            spawning: 0,
            lane,
            asides,
            labels,
        })
    }

    #[inline(always)]
    fn has_room(&self, generation: u64) -> bool {
        self.generation == generation
            && self.used <= SEGMENT_WORDS - WORDS_MAX
            && self.records < self.records_max
    }

    /// Goes on in another segment; false if the generation is over.
    fn turn_page(&mut self) -> bool {
        let segment = new_segment();
        let mut lanes = LANES.lock();
        if lanes.recordings == 0 || lanes.generation != self.generation {
            return false;
        }
        lanes.all[self.lane].segments.push(segment.clone());
        drop(lanes);
        self.segment = segment;
        self.used = 1;
        self.spawning = 0; // `words.rs`, invariant 1.
        true
    }

    /// The number of the label of a task that is spawned by `origin` with this body.
    fn label(&mut self, origin: Origin, body: &'static str) -> u64 {
        let address = origin.address();
        let mixed = (address ^ body.as_ptr().addr().rotate_left(20)) as u64;
        let place = (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % LABELS;
        match self.labels[place] {
            Some(label) if label.origin == address && std::ptr::eq(label.body, body) => label.aside,
            _ => {
                let aside = self.aside(Aside::Label(origin.record_name(body), origin.location()));
                self.labels[place] = Some(Label { origin: address, body, aside });
                aside
            }
        }
    }
}

impl Sink for Writer {
    #[inline(always)]
    fn put<const N: usize>(&mut self, words: [u64; N]) {
        let end = self.used + N;
        for (cell, word) in self.segment[self.used..end].iter().zip(words) {
            cell.store(word, Relaxed);
        }
        // Release: who reads this number (Acquire, in `read`) sees the words, and the asides that they name.
        self.segment[0].store(end as u64, Release);
        self.used = end;
        self.records += 1;
    }

    #[cold]
    fn aside(&mut self, aside: Aside) -> u64 {
        let mut asides = self.asides.lock();
        asides.push(aside);
        asides.len() as u64 - 1
    }

    #[inline(always)]
    fn ticks(&self) -> u64 {
        ticks()
    }

    #[inline(always)]
    fn spawning(&mut self) -> &mut u64 {
        &mut self.spawning
    }
}

/// A segment with nothing in it.
fn new_segment() -> Segment {
    let words = std::iter::once(1).chain(std::iter::repeat_n(0, SEGMENT_WORDS - 1));
    words.map(AtomicU64::new).collect()
}

/// Turns recording on, and gives how many records were lost before.
pub(super) fn begin(records_max: usize) -> u64 {
    let mut lanes = LANES.lock();
    if lanes.recordings == 0 {
        lanes.generation += 1;
        RECORDS_MAX.store(0, Relaxed);
    }
    lanes.recordings += 1;
    RECORDS_MAX.fetch_max(records_max, Relaxed);
    ON.store(lanes.generation, Relaxed);
    LOST.load(Relaxed)
}

/// Turns recording off. The last one clears the lanes.
pub(super) fn end() {
    let mut garbage = Vec::new();
    let mut lanes = LANES.lock();
    lanes.recordings -= 1;
    if lanes.recordings == 0 {
        ON.store(0, Relaxed);
        garbage = std::mem::take(&mut lanes.all);
    }
    drop(lanes);
    drop(garbage);
}

/// What was written down since a moment in ticks, by lane, and how much was lost since the process began. `nanos` turns ticks
/// since then into nanoseconds.
pub(super) fn read(start: u64, nanos: impl Fn(u64) -> u64) -> (Vec<Lane>, u64) {
    let all: Vec<Written> = LANES.lock().all.iter().map(|lane| lane.since(start)).collect();
    let lanes = all.iter().map(|lane| lane.read(start, &nanos));
    let mut lanes: Vec<Lane> = lanes.filter(|lane| !lane.records.is_empty()).collect();
    lanes.sort_by_key(|lane| lane.worker.unwrap_or(usize::MAX));
    (lanes, LOST.load(Relaxed))
}

/// The words of a segment that are there.
fn words(segment: &Segment) -> impl Iterator<Item = u64> {
    // Acquire: pairs with the Release in `put`.
    let used = segment[0].load(Acquire) as usize;
    segment[1..used].iter().map(|word| word.load(Relaxed))
}

impl Written {
    /// Without the segments that end before a moment.
    fn since(&self, start: u64) -> Written {
        let is_earlier =
            |segment: &Segment| words(segment).next().is_some_and(|word| words::since(word, start) < 0);
        // The last one that begins earlier may go on until then.
        let first = self.segments.partition_point(is_earlier).saturating_sub(1);
        Written { segments: self.segments[first..].to_vec(), ..self.clone() }
    }

    fn read(&self, start: u64, nanos: impl Fn(u64) -> u64) -> Lane {
        let mut records = Vec::new();
        for segment in &self.segments {
            let words = words(segment);
            // After `used` was read: what words name was kept before they were published.
            let asides = self.asides.lock();
            let read = words::read(words, start, &asides, |at, what| {
                if let Ok(at) = u64::try_from(at) {
                    records.push(Record { at: nanos(at), what });
                }
            });
            debug_assert!(read.is_some(), "words are read as they were written");
        }
        Lane { name: self.name.to_string(), worker: self.worker, records }
    }
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;
    use crate::record;
    use dagger_core::record::{Move, Name};
    use std::sync::atomic::AtomicBool;

    /// Recordings see the whole process: one test at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    /// What this test's threads have written: others' tests may run tasks meanwhile.
    fn retries(log: &dagger_core::record::Log, of: u64) -> Vec<Vec<u32>> {
        let lanes = log.lanes.iter().map(|lane| {
            let records = lane.records.iter().filter_map(|record| match record.what {
                What::Retry { task, attempt } if task == of => Some(attempt),
                _ => None,
            });
            records.collect()
        });
        lanes.filter(|lane: &Vec<u32>| !lane.is_empty()).collect()
    }

    /// ```text
    /// writers            who stops, 10 times
    /// n, n+1, n+2 ..     start .. stop: some n..m of each, without a gap
    /// ```
    #[test]
    fn a_stop_reads_what_is_there_without_gaps_while_threads_write() {
        let _alone = ALONE.lock();
        let over = AtomicBool::new(false);
        std::thread::scope(|threads| {
            for of in [u64::MAX - 1, u64::MAX - 2] {
                let over = &over;
                threads.spawn(move || {
                    let mut attempt = 0;
                    while !over.load(Relaxed) {
                        record::note(|| What::Retry { task: of, attempt });
                        // Asides too, published after them.
                        record::note(|| {
                            let workers = Some([attempt as usize].into());
                            What::Place { task: of, workers, priority: attempt as i32, blocking: false }
                        });
                        attempt += 1;
                    }
                });
            }
            let mut seen = 0;
            for round in 0..10 {
                let outer = record::start_with(1 << 24);
                let mut inner = None;
                for of in [u64::MAX - 1, u64::MAX - 2] {
                    // Until each thread has filled segments.
                    while retries_so_far(of) < SEGMENT_WORDS {
                        std::thread::yield_now();
                    }
                    inner.get_or_insert_with(|| record::start_with(1 << 24));
                }
                for recording in [inner.expect("it was started"), outer] {
                    let log = recording.stop();
                    assert_eq!(log.lost, 0);
                    for of in [u64::MAX - 1, u64::MAX - 2] {
                        let lanes = retries(&log, of);
                        assert!(lanes.len() <= 1, "round {round}: one thread, one lane");
                        for lane in lanes {
                            assert!(lane.windows(2).all(|pair| pair[1] == pair[0] + 1), "round {round}");
                            seen += lane.len();
                        }
                    }
                    for record in log.lanes.iter().flat_map(|lane| &lane.records) {
                        if let What::Place { task, workers, priority, .. } = &record.what
                            && *task >= u64::MAX - 2
                        {
                            assert_eq!(workers.as_deref(), Some(&[*priority as usize][..]));
                        }
                    }
                    assert!(
                        log.lanes.iter().all(|lane| lane.records.is_sorted_by_key(|record| record.at)),
                        "round {round}"
                    );
                }
            }
            assert!(seen > 10 * SEGMENT_WORDS);
            over.store(true, Relaxed);
        });
    }

    /// How many records of a task are in the lanes.
    fn retries_so_far(of: u64) -> usize {
        let (lanes, _) = read(ticks().wrapping_sub(1 << 50), |ticks| ticks);
        let log =
            dagger_core::record::Log { began: std::time::SystemTime::UNIX_EPOCH, nanos: 0, lanes, lost: 0 };
        retries(&log, of).iter().map(Vec::len).sum()
    }

    #[test]
    fn a_spawn_that_meets_the_end_of_a_segment_keeps_its_accesses() {
        let _alone = ALONE.lock();
        let tasks = u64::MAX - (SEGMENT_WORDS as u64 * 2)..u64::MAX - 9;
        let recording = record::start();
        for task in tasks.clone() {
            let (name, site) = (Name::Callee("a"), std::panic::Location::caller());
            record::note(|| What::Spawn { task, parent: 0, name, site });
            for turn in 0..3 {
                record::note(|| What::Access { task, chunk: 7, turn, writes: false, part: None });
            }
        }
        let log = recording.stop();
        let records = log.lanes.iter().flat_map(|lane| &lane.records);
        let accesses: Vec<(u64, u64)> = records
            .filter_map(|record| match record.what {
                What::Access { task, turn, chunk: 7, .. } => Some((task, turn)),
                _ => None,
            })
            .collect();
        let expected: Vec<(u64, u64)> = tasks.flat_map(|task| (0..3).map(move |turn| (task, turn))).collect();
        assert_eq!(accesses, expected);
    }

    /// Whoever moves data: the lane is that of its thread, by name.
    #[test]
    fn a_thread_that_is_no_worker_has_a_lane_for_what_it_moves() {
        let _alone = ALONE.lock();
        let recording = record::start();
        let (chunk, store) = (u64::MAX - 7, u64::MAX - 8);
        let moves = move || {
            for (nanos, how) in [(0, Move::Dropped), (1 << 60, Move::Spilled), (7, Move::Reloaded)] {
                record::note(|| What::Moved { chunk, bytes: 64, how, nanos });
                record::note(|| What::Resident { store, bytes: nanos, pinned: 3 });
            }
        };
        let thread =
            std::thread::Builder::new().name("store 8".into()).spawn(moves).expect("there is a thread");
        thread.join().expect("it moves");
        let log = recording.stop();
        let lane = log.lanes.iter().find(|lane| lane.name == "store 8").expect("it has a lane");
        assert!(lane.worker.is_none() && lane.records.is_sorted_by_key(|record| record.at));
        let seen: Vec<u64> = lane
            .records
            .iter()
            .filter_map(|record| match record.what {
                What::Moved { chunk: of, bytes: 64, nanos, .. } if of == chunk => Some(nanos),
                What::Resident { store: of, bytes, pinned: 3 } if of == store => Some(bytes),
                _ => None,
            })
            .collect();
        assert_eq!(seen, [0, 0, 1 << 60, 1 << 60, 7, 7]);
    }

    #[test]
    fn a_thread_that_comes_late_writes_where_nobody_looks() {
        let _alone = ALONE.lock();
        let old = record::start();
        let generation = ON.load(Relaxed);
        let mut late = Writer::enter(generation).expect("this generation is on");
        drop(old);
        assert!(Writer::enter(generation).is_none());
        let new = record::start();
        let of = u64::MAX - 5;
        words::put(&mut late, What::Retry { task: of, attempt: 1 });
        assert!(Writer::enter(generation).is_none() && !late.turn_page());
        assert_eq!(retries(&new.stop(), of), [[0; 0]; 0]);
    }

    #[test]
    fn a_later_recording_of_more_records_goes_on_in_a_full_lane() {
        let _alone = ALONE.lock();
        let of = u64::MAX - 4;
        let some = |from: u32| {
            (from..from + 10).for_each(|attempt| record::note(|| What::Retry { task: of, attempt }));
        };
        let outer = record::start_with(5);
        some(0);
        let inner = record::start_with(12);
        some(100);
        assert_eq!(retries(&inner.stop(), of), [(100..107).collect::<Vec<_>>()]);
        let log = outer.stop();
        assert_eq!(retries(&log, of), [(0..5).chain(100..107).collect::<Vec<_>>()]);
        assert!(log.lost >= 8, "{}", log.lost);
        let fresh = record::start_with(12);
        some(200);
        assert_eq!(retries(&fresh.stop(), of), [(200..210).collect::<Vec<_>>()]);
    }
}
