//! A record as the words that a thread writes down, and back.
//!
//! ```text
//!   63                        8 7      4 3    0
//!   [ ticks                    | detail | kind ] [ task ] [ .. ]     with a time and a task of its own
//!   [ chunk, or the input      | detail | kind ] [ .. ]              in a spawn: task and ticks are those of the `Spawn` before
//!   [ ticks                    | detail | kind ] [ chunk, or store ] [ .. ]         of a store, which has no task
//! ```
//! 1. The first record of a segment has a time of its own: segments are read one by one.
//! 2. What takes more than words lies in the asides of the lane, and is there before the words that name it.
//! 3. Ticks are cut to 56 bits and compared by their difference, so that a counter may wrap: 277 days at 3 GHz are half of that.
//!
//! It knows nothing of threads.

use dagger_core::Area;
use dagger_core::record::{Cause, End, Move, Name, What};
use std::panic::Location;
use std::sync::Arc;

/// As many words as a record may take.
pub(super) const WORDS_MAX: usize = 5;

/// Bits of a first word that are not ticks.
const TAG_BITS: u32 = 8;
const KIND: u64 = 0xf;
const DETAIL_SHIFT: u32 = 4;

const SPAWN: u64 = 1;
const PLACE: u64 = 2;
const AFTER: u64 = 3;
const AFTER_IN_SPAWN: u64 = 4;
const ACCESS: u64 = 5;
const ACCESS_IN_SPAWN: u64 = 6;
const READY: u64 = 7;
const START: u64 = 8;
const SUSPEND: u64 = 9;
const RESUME: u64 = 10;
const END: u64 = 11;
const RETRY: u64 = 12;
const STEAL: u64 = 13;
const SLEEP: u64 = 14;
const STORE: u64 = 15;

/// Details of an access: it writes; there is a word for its part.
const WRITES: u64 = 1;
const PARTLY: u64 = 2;

/// Detail of a sleep: it is over.
const WOKEN: u64 = 1;

/// Details of what a store did: how it moved something, or what it holds.
const SPILLED: u64 = 0;
const DROPPED: u64 = 1;
const RELOADED: u64 = 2;
const MADE: u64 = 3;
const RESIDENT: u64 = 4;

/// What a word cannot hold.
pub(super) enum Aside {
    /// What a spawn is called, and where it stands.
    Label(Name, &'static Location<'static>),
    /// Which workers a task may run on.
    Workers(Arc<[usize]>),
    /// Which part of a chunk is accessed.
    Area(Arc<Area>),
}

/// Where words go.
pub(super) trait Sink {
    /// Adds one record.
    fn put<const N: usize>(&mut self, words: [u64; N]);
    /// Keeps something beside the words, and gives its number.
    fn aside(&mut self, aside: Aside) -> u64;
    /// The time.
    fn ticks(&self) -> u64;
    /// The task whose spawn is being written, and nothing else since; 0 if there is none.
    fn spawning(&mut self) -> &mut u64;
}

fn first(rest: u64, detail: u64, kind: u64) -> u64 {
    rest << TAG_BITS | detail << DETAIL_SHIFT | kind
}

/// True if a number has room beside the tag.
fn is_short(number: u64) -> bool {
    number >> (u64::BITS - TAG_BITS) == 0
}

/// Writes the spawn of a task. What it comes after and accesses follows, with no time of its own.
#[inline(always)]
pub(super) fn put_spawn(sink: &mut impl Sink, task: u64, parent: u64, label: u64) {
    let at = sink.ticks();
    sink.put([first(at, 0, SPAWN), task, parent, label]);
    *sink.spawning() = task;
}

/// Writes a record that names nothing but its task.
#[inline(always)]
fn plain(sink: &mut impl Sink, kind: u64, detail: u64, task: u64) {
    let at = sink.ticks();
    sink.put([first(at, detail, kind), task]);
    *sink.spawning() = 0;
}

/// Writes what a store did.
fn store(sink: &mut impl Sink, detail: u64, [of, bytes, last]: [u64; 3]) {
    let at = sink.ticks();
    sink.put([first(at, detail, STORE), of, bytes, last]);
    *sink.spawning() = 0;
}

/// Writes a record down. Inlined, so that only the code of the kind at hand is left.
#[inline(always)]
pub(super) fn put(sink: &mut impl Sink, what: What) {
    match what {
        What::Spawn { task, parent, name, site } => {
            let label = sink.aside(Aside::Label(name, site));
            put_spawn(sink, task, parent, label);
        }
        What::Place { task, workers, priority, blocking } => {
            // One more than its number; 0 is none.
            let workers = workers.map_or(0, |workers| 1 + sink.aside(Aside::Workers(workers)));
            let at = sink.ticks();
            let rest = workers << 32 | u64::from(priority.cast_unsigned());
            sink.put([first(at, u64::from(blocking), PLACE), task, rest]);
            *sink.spawning() = 0;
        }
        What::After { task, input, cause } => {
            let detail = match cause {
                Cause::Argument => 0,
                Cause::Order => 1,
                // `Cause` may grow; the test of all causes fails then.
                _ => 2,
            };
            if *sink.spawning() == task && cause != Cause::Awaited && is_short(input) {
                return sink.put([first(input, detail, AFTER_IN_SPAWN)]);
            }
            let at = sink.ticks();
            sink.put([first(at, detail, AFTER), task, input]);
            *sink.spawning() = 0;
        }
        What::Access { task, chunk, turn, writes, part } => {
            let part = part.map(|part| sink.aside(Aside::Area(part)));
            let detail = u64::from(writes) * WRITES + u64::from(part.is_some()) * PARTLY;
            if *sink.spawning() == task && is_short(chunk) {
                let first = first(chunk, detail, ACCESS_IN_SPAWN);
                return match part {
                    None => sink.put([first, turn]),
                    Some(part) => sink.put([first, turn, part]),
                };
            }
            let first = first(sink.ticks(), detail, ACCESS);
            match part {
                None => sink.put([first, task, chunk, turn]),
                Some(part) => sink.put([first, task, chunk, turn, part]),
            }
            *sink.spawning() = 0;
        }
        What::Ready { task } => plain(sink, READY, 0, task),
        What::Start { task } => plain(sink, START, 0, task),
        What::Suspend { task } => plain(sink, SUSPEND, 0, task),
        What::Resume { task } => plain(sink, RESUME, 0, task),
        What::End { task, end } => {
            let detail = match end {
                End::Done => 0,
                End::Failed => 1,
                End::Refused => 2,
                // As for `Cause`.
                _ => 3,
            };
            plain(sink, END, detail, task);
        }
        What::Retry { task, attempt } => {
            let at = sink.ticks();
            sink.put([first(at, 0, RETRY), task, u64::from(attempt)]);
            *sink.spawning() = 0;
        }
        What::Steal { from } => plain(sink, STEAL, 0, from as u64),
        What::Wake => plain(sink, SLEEP, WOKEN, 0),
        What::Moved { chunk, bytes, how, nanos } => {
            let detail = match how {
                Move::Spilled => SPILLED,
                Move::Dropped => DROPPED,
                Move::Reloaded => RELOADED,
                // As for `Cause`.
                _ => MADE,
            };
            store(sink, detail, [chunk, bytes, nanos]);
        }
        What::Resident { store: of, bytes, pinned } => store(sink, RESIDENT, [of, bytes, pinned]),
        // `What` may grow; the test of all kinds fails then.
        _ => plain(sink, SLEEP, 0, 0),
    }
}

/// Ticks from `start` to a first word's, negative if it is earlier.
pub(super) fn since(first: u64, start: u64) -> i64 {
    ((first & (!0 << TAG_BITS)).wrapping_sub(start << TAG_BITS)).cast_signed() >> TAG_BITS
}

/// Reads the words of one segment: `each` gets the ticks since `start` of every record, and what it is.
///
/// `None` if these are not words that were written here.
pub(super) fn read(
    mut words: impl Iterator<Item = u64>,
    start: u64,
    asides: &[Aside],
    mut each: impl FnMut(i64, What),
) -> Option<()> {
    let (mut spawning, mut spawned) = (0, 0);
    while let Some(word) = words.next() {
        let (rest, detail, kind) = (word >> TAG_BITS, word >> DETAIL_SHIFT & KIND, word & KIND);
        let in_spawn = matches!(kind, AFTER_IN_SPAWN | ACCESS_IN_SPAWN);
        let (at, task) = if in_spawn { (spawned, spawning) } else { (since(word, start), words.next()?) };
        let cause = || match detail {
            0 => Cause::Argument,
            1 => Cause::Order,
            _ => Cause::Awaited,
        };
        let what = match kind {
            SPAWN => {
                (spawning, spawned) = (task, at);
                let parent = words.next()?;
                let Aside::Label(name, site) = asides.get(words.next()? as usize)? else { return None };
                What::Spawn { task, parent, name: name.clone(), site }
            }
            PLACE => {
                let rest = words.next()?;
                let workers = match (rest >> 32).checked_sub(1) {
                    None => None,
                    Some(aside) => match asides.get(aside as usize)? {
                        Aside::Workers(workers) => Some(workers.clone()),
                        _ => return None,
                    },
                };
                What::Place { task, workers, priority: (rest as u32).cast_signed(), blocking: detail != 0 }
            }
            AFTER => What::After { task, input: words.next()?, cause: cause() },
            AFTER_IN_SPAWN => What::After { task, input: rest, cause: cause() },
            ACCESS | ACCESS_IN_SPAWN => {
                let chunk = if in_spawn { rest } else { words.next()? };
                let turn = words.next()?;
                let part = match detail & PARTLY {
                    0 => None,
                    _ => match asides.get(words.next()? as usize)? {
                        Aside::Area(area) => Some(area.clone()),
                        _ => return None,
                    },
                };
                What::Access { task, chunk, turn, writes: detail & WRITES != 0, part }
            }
            READY => What::Ready { task },
            START => What::Start { task },
            SUSPEND => What::Suspend { task },
            RESUME => What::Resume { task },
            END => {
                let end = match detail {
                    0 => End::Done,
                    1 => End::Failed,
                    2 => End::Refused,
                    _ => End::Cancelled,
                };
                What::End { task, end }
            }
            RETRY => What::Retry { task, attempt: words.next()? as u32 },
            STEAL => What::Steal { from: task as usize },
            SLEEP if detail == WOKEN => What::Wake,
            SLEEP => What::Sleep,
            STORE => {
                let (of, bytes, last) = (task, words.next()?, words.next()?);
                let moved = |how| What::Moved { chunk: of, bytes, how, nanos: last };
                match detail {
                    SPILLED => moved(Move::Spilled),
                    DROPPED => moved(Move::Dropped),
                    RELOADED => moved(Move::Reloaded),
                    MADE => moved(Move::Made),
                    RESIDENT => What::Resident { store: of, bytes, pinned: last },
                    _ => return None,
                }
            }
            _ => return None,
        };
        each(at, what);
    }
    Some(())
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;

    /// A sink with a clock that counts.
    #[derive(Default)]
    struct Page {
        words: Vec<u64>,
        asides: Vec<Aside>,
        lengths: Vec<usize>,
        ticks: std::cell::Cell<u64>,
        spawning: u64,
    }

    impl Sink for Page {
        fn put<const N: usize>(&mut self, words: [u64; N]) {
            self.words.extend(words);
            self.lengths.push(N);
        }
        fn aside(&mut self, aside: Aside) -> u64 {
            self.asides.push(aside);
            self.asides.len() as u64 - 1
        }
        fn ticks(&self) -> u64 {
            self.ticks.replace(self.ticks.get().wrapping_add(1))
        }
        fn spawning(&mut self) -> &mut u64 {
            &mut self.spawning
        }
    }

    /// What is read of what is written, by a clock that starts at `ticks`; and the words that each took.
    fn round(ticks: u64, whats: &[What]) -> (Vec<i64>, Vec<usize>) {
        let mut page = Page { ticks: ticks.into(), ..Page::default() };
        whats.iter().for_each(|what| put(&mut page, what.clone()));
        let (mut ats, mut read_back) = (Vec::new(), Vec::new());
        let each = |at, what| {
            ats.push(at);
            read_back.push(what);
        };
        assert_eq!(read(page.words.iter().copied(), ticks, &page.asides, each), Some(()));
        assert_eq!(format!("{read_back:?}"), format!("{whats:?}"));
        assert!(page.lengths.iter().all(|&length| length <= WORDS_MAX));
        // Cut anywhere, it is read to there, or refused.
        for end in 0..page.words.len() {
            let mut count = 0;
            let is_whole =
                read(page.words[..end].iter().copied(), ticks, &page.asides, |_, _| count += 1).is_some();
            let ends: Vec<usize> = page
                .lengths
                .iter()
                .scan(0, |sum, length| {
                    *sum += length;
                    Some(*sum)
                })
                .collect();
            assert_eq!(is_whole, end == 0 || ends.contains(&end));
            assert_eq!(count, ends.iter().filter(|&&it| it <= end).count());
        }
        (ats, page.lengths)
    }

    fn spawn(task: u64) -> What {
        What::Spawn { task, parent: 3, name: Name::Callee("a"), site: Location::caller() }
    }

    fn access(task: u64, chunk: u64, part: Option<Arc<Area>>) -> What {
        What::Access { task, chunk, turn: u64::MAX, writes: part.is_none(), part }
    }

    const BIG: u64 = u64::MAX - 1;

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        let mut all = vec![
            What::Place { task: 1, workers: None, priority: i32::MIN, blocking: true },
            What::Place { task: 1, workers: Some([0, 7].into()), priority: -1, blocking: false },
            What::Ready { task: 4 },
            What::Start { task: 5 },
            What::Suspend { task: 6 },
            What::Resume { task: BIG },
            What::Retry { task: 8, attempt: u32::MAX },
            What::Steal { from: 9 },
            What::Sleep,
            What::Wake,
            What::Resident { store: 0, bytes: BIG, pinned: 3 },
            What::Resident { store: BIG, bytes: 3, pinned: BIG },
        ];
        for how in [Move::Spilled, Move::Dropped, Move::Reloaded, Move::Made] {
            all.push(What::Moved { chunk: 1, bytes: BIG, how, nanos: 0 });
            all.push(What::Moved { chunk: BIG, bytes: 0, how, nanos: BIG });
        }
        for task in [2, 5, BIG] {
            for (other, part) in [(0, None), (7, Some(Arc::new(Area::Whole))), (1 << 56, None), (BIG, None)] {
                let after = |cause| What::After { task, input: other, cause };
                all.extend([spawn(2), access(task, other, part.clone()), after(Cause::Argument)]);
                all.extend([after(Cause::Order), access(task, other, part), after(Cause::Awaited)]);
            }
            all.extend(
                [End::Done, End::Failed, End::Refused, End::Cancelled].map(|end| What::End { task, end }),
            );
        }
        // Also with a clock that wraps meanwhile.
        for ticks in [0, 1 << 40, (1 << 56) - 20, u64::MAX - 20] {
            let (ats, _) = round(ticks, &all);
            assert!(ats[0] == 0 && ats.is_sorted());
        }
    }

    #[test]
    fn what_a_spawn_names_has_its_time_and_takes_two_words() {
        let (ready, after) =
            (What::Ready { task: 1 }, What::After { task: 1, input: 9, cause: Cause::Argument });
        let whats = [spawn(1), access(1, 5, None), after, access(1, 6, None), ready, access(1, 7, None)];
        assert_eq!(round(100, &whats), (vec![0, 0, 0, 0, 1, 2], vec![4, 2, 1, 2, 2, 4]));
        // Not so after something else, and what belongs to another task, or comes from the body.
        let moved = What::Moved { chunk: 5, bytes: 1, how: Move::Made, nanos: 2 };
        let whats = [spawn(1), access(1, 5, None), moved, access(1, 6, None)];
        assert_eq!(round(100, &whats), (vec![0, 0, 1, 2], vec![4, 2, 4, 4]));
        let awaited = What::After { task: 1, input: 9, cause: Cause::Awaited };
        assert_eq!(round(100, &[spawn(1), access(2, 5, None)]).0, [0, 1]);
        assert_eq!(round(100, &[spawn(1), awaited]).0, [0, 1]);
    }
}
