//! Damaged trace files, at every place: an error that says where, no panic, and no more memory than the file deserves.

use dagger_core::record::{Cause, End, Lane, Log, Move, Name, Record, What};
use dagger_trace::{Trace, TraceError};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::Location;
use std::time::{Duration, UNIX_EPOCH};

thread_local! {
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// Counts what the current thread has allocated: a damaged length must not become a huge list, even for a moment.
struct Counting;

fn allocated(bytes: usize) {
    // While a thread is torn down nobody counts.
    let _ = NOW.try_with(|now| {
        now.set(now.get().saturating_add(bytes));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        allocated(layout.size());
        // SAFETY: the caller keeps the promises of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let _ = NOW.try_with(|now| now.set(now.get().saturating_sub(layout.size())));
        // SAFETY: `memory` came from `System` with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Reads a file; the most bytes that were allocated at once meanwhile.
fn read(bytes: &[u8]) -> (Result<Trace, TraceError>, usize) {
    NOW.set(0);
    PEAK.set(0);
    let trace = Trace::from_bytes(bytes);
    (trace, PEAK.get())
}

/// A file in which every field of the format occurs.
fn file() -> Vec<u8> {
    let spawn = |task, parent, name| What::Spawn { task, parent, name, site: Location::caller() };
    let named = |name: &str| Name::Given(name.into());
    let access = |task, turn, writes| What::Access { task, chunk: 300, turn, writes, part: None };
    let main = [
        (10, spawn(1, 0, Name::Callee("potrf"))),
        (11, access(1, 1, true)),
        (12, What::Ready { task: 1 }),
        (20, spawn(2, 0, named("größer"))),
        (20, What::Place { task: 2, workers: Some([0, 2].into()), priority: -3, blocking: false }),
        (21, access(2, 2, false)),
        (22, What::After { task: 2, input: 1, cause: Cause::Argument }),
        (23, spawn(3, 0, named("never"))),
        (24, What::After { task: 3, input: 2, cause: Cause::Order }),
        (900, What::End { task: 3, end: End::Cancelled }),
    ];
    let worker = [
        (30, What::Start { task: 1 }),
        (300, What::End { task: 1, end: End::Done }),
        (310, What::Steal { from: 1 }),
        (320, What::Start { task: 2 }),
        (330, spawn(4, 2, Name::Callee("child"))),
        (340, What::After { task: 2, input: 4, cause: Cause::Awaited }),
        (350, What::Suspend { task: 2 }),
        (360, What::Start { task: 4 }),
        (500, What::End { task: 4, end: End::Failed }),
        (510, What::Resume { task: 2 }),
        (600, What::Retry { task: 2, attempt: 1 }),
        (700, What::End { task: 2, end: End::Done }),
        (710, What::Sleep),
        (800, What::Wake),
    ];
    let moved = |chunk, how, nanos| What::Moved { chunk, bytes: 1 << 20, how, nanos };
    let store = [
        (400, moved(300, Move::Spilled, 500)),
        (400, What::Resident { store: 1, bytes: 3 << 20, pinned: 1 << 20 }),
        (450, moved(301, Move::Dropped, 0)),
        (700, moved(300, Move::Reloaded, 200)),
        (710, What::Resident { store: 1, bytes: 300, pinned: 0 }),
        (711, moved(302, Move::Made, 7)),
    ];
    let lane = |name: &str, worker, records: Vec<(u64, What)>| {
        let records = records.into_iter().map(|(at, what)| Record { at, what }).collect();
        Lane { name: name.into(), worker, records }
    };
    let lanes = vec![
        lane("main", None, main.to_vec()),
        lane("worker 0", Some(0), worker.to_vec()),
        lane("store", None, store.to_vec()),
    ];
    let began = UNIX_EPOCH + Duration::new(1_800_000_000, 7);
    Trace::from_log(&Log { began, nanos: 1000, lanes, lost: 3 }).to_bytes()
}

/// FNV-1a, as the format says.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// An error with its place, in memory proportional to the file.
fn assert_refused(bytes: &[u8], what: impl Fn() -> String) {
    let (result, peak) = read(bytes);
    match result {
        Err(TraceError::BadFile { offset, .. }) => assert!(offset <= bytes.len() as u64, "{}", what()),
        other => panic!("{}: {other:?}", what()),
    }
    assert_small(bytes, peak, what);
}

/// The largest entry of a list is a task: about 200 bytes for at least 10 in the file. Lists double as they grow.
fn assert_small(bytes: &[u8], peak: usize, what: impl Fn() -> String) {
    assert!(peak <= 1024 + 100 * bytes.len(), "{}: {peak} bytes for a file of {}", what(), bytes.len());
}

/// The same but for places and retries, written when the format had none.
#[test]
fn files_of_the_first_version_are_read() {
    let old = Trace::from_bytes(include_bytes!("version-1.trace")).unwrap();
    let mut new = before_stores(&old);
    assert!(
        new.tasks[1].place.as_ref().is_some_and(|place| place.to_string() == "workers 0, 2, priority -3")
    );
    assert_eq!(new.tasks[1].retries, 1);
    (new.tasks[1].place, new.tasks[1].retries) = (None, 0);
    assert_eq!(old, new);
}

/// The same but for what stores did, written when the format had none of it.
#[test]
fn files_of_the_second_version_are_read() {
    let old = Trace::from_bytes(include_bytes!("version-2.trace")).unwrap();
    assert_eq!(old, before_stores(&old));
}

/// The file of today without what stores did, and with the lines that an older one was written at.
fn before_stores(old: &Trace) -> Trace {
    let mut new = Trace::from_bytes(&file()).expect("it was just written");
    assert_eq!((new.moves.len(), new.samples.len()), (4, 2));
    (new.moves, new.samples) = (Vec::new(), Vec::new());
    assert!(new.lanes.pop().is_some_and(|lane| lane.name == "store"));
    for task in new.tasks.iter_mut().zip(&old.tasks) {
        task.0.site.clone_from(&task.1.site);
    }
    new
}

#[test]
fn every_cut_is_refused() {
    let whole = file();
    let (trace, peak) = read(&whole);
    assert_eq!(trace.unwrap().tasks.len(), 4);
    assert_small(&whole, peak, || "whole".into());
    for len in 0..whole.len() {
        assert_refused(&whole[..len], || format!("cut to {len}"));
    }
}

#[test]
fn every_change_of_a_byte_is_refused() {
    let whole = file();
    for at in 0..whole.len() {
        for with in 1..=255 {
            let mut bytes = whole.clone();
            bytes[at] ^= with;
            assert_refused(&bytes, || format!("byte {at} ^ {with}"));
        }
    }
}

/// With a checksum that fits there is nothing but the decoder between the bytes and what uses the trace.
#[test]
fn what_is_changed_on_purpose_is_read_soundly_or_refused() {
    let whole = file();
    let body = whole.len() - 8;
    let (mut read_all, mut refused) = (0, 0);
    for at in 10..body {
        for with in
            [0, 1, 2, 3, 4, 0x7f, 0x80, 0xff].into_iter().chain((0..8).map(|bit| whole[at] ^ 1 << bit))
        {
            let mut bytes = whole[..body].to_vec();
            bytes[at] = with;
            // Once as it is, once with a number of ten digits in its place: a length, an index or a time beyond all bounds.
            for longer in [&[][..], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]] {
                let mut bytes = bytes.clone();
                bytes.splice(at..at + usize::from(!longer.is_empty()), longer.iter().copied());
                bytes.extend(checksum(&bytes).to_le_bytes());
                let what = || format!("byte {at} = {with} {longer:?}");
                let (result, peak) = read(&bytes);
                assert_small(&bytes, peak, what);
                match result {
                    Ok(trace) => {
                        read_all += 1;
                        let _ = (trace.describe(), trace.to_chrome(), trace.graph().to_dot());
                        assert_eq!(Trace::from_bytes(&trace.to_bytes()).unwrap(), trace, "{}", what());
                    }
                    Err(TraceError::BadFile { offset, .. }) => {
                        refused += 1;
                        assert!(offset <= bytes.len() as u64, "{}", what());
                    }
                    Err(other) => panic!("{}: {other:?}", what()),
                }
            }
        }
    }
    println!("{read_all} read, {refused} refused");
    assert!(read_all > 100 && refused > 1000);
}

/// A text is in the file once, and in the trace wherever it is used: 2000 tasks of one name of 100 kB are 200 MB.
#[test]
fn a_long_name_of_many_tasks_takes_no_memory() {
    let spawn = |task| What::Spawn { task, parent: 0, name: Name::Callee("QQQ"), site: Location::caller() };
    let records = (1..=2000).map(|task| Record { at: task, what: spawn(task) }).collect();
    let lanes = vec![Lane { name: "main".into(), worker: None, records }];
    let bytes = Trace::from_log(&Log { began: UNIX_EPOCH, nanos: 3000, lanes, lost: 0 }).to_bytes();
    let at = bytes.windows(4).position(|window| window == b"\x03QQQ").unwrap();
    let name = "Q".repeat(100_000);
    let long = [&bytes[..at], &[0xa0, 0x8d, 0x06], name.as_bytes(), &bytes[at + 4..bytes.len() - 8]].concat();
    let long = [&long[..], &checksum(&long).to_le_bytes()].concat();
    let (result, peak) = read(&long);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("texts that take too much memory"), "{error}");
    assert!(peak < 110 << 20, "{peak} bytes");
}
