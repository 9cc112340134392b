//! What stores moved, as numbers and as lanes of a picture.

use crate::model::{Moved, Trace};
use dagger_core::record::Move;
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// The moves of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MoveRow {
    /// The kind.
    pub how: Move,
    /// How many there were.
    pub count: usize,
    /// The sizes of all of them, in memory.
    pub bytes: u64,
    /// How long they took, those that overlapped one after the other.
    pub total: u64,
    /// The same per move.
    pub mean: u64,
    /// None of them took longer.
    pub max: u64,
}

impl Trace {
    /// What was moved, by the kind of the move; a kind without moves has no row.
    ///
    /// ```
    /// use dagger_core::record::{Lane, Log, Move, Record, What};
    /// use dagger_trace::Trace;
    ///
    /// let moved = |at, nanos| Record { at, what: What::Moved { chunk: 7, bytes: 1024, how: Move::Reloaded, nanos } };
    /// let lanes = vec![Lane { name: "store".into(), worker: None, records: vec![moved(50, 20), moved(90, 10)] }];
    /// let trace = Trace::from_log(&Log { began: std::time::SystemTime::now(), nanos: 100, lanes, lost: 0 });
    ///
    /// let [reloads] = trace.by_move()[..] else { panic!("nothing else has moved") };
    /// assert_eq!((reloads.how, reloads.count, reloads.bytes), (Move::Reloaded, 2, 2048));
    /// assert_eq!((reloads.total, reloads.mean, reloads.max), (30, 15, 20));
    /// ```
    #[must_use]
    pub fn by_move(&self) -> Vec<MoveRow> {
        let mut rows: BTreeMap<Move, MoveRow> = BTreeMap::new();
        for moved in &self.moves {
            let how = moved.how;
            let none = MoveRow { how, count: 0, bytes: 0, total: 0, mean: 0, max: 0 };
            let row = rows.entry(how).or_insert(none);
            row.count += 1;
            row.bytes = row.bytes.saturating_add(moved.bytes);
            row.total = row.total.saturating_add(moved.nanos());
            row.mean = row.total / row.count as u64;
            row.max = row.max.max(moved.nanos());
        }
        rows.into_values().collect()
    }

    /// The most bytes that all stores together held, and the most that were pinned; `None` if nobody counted.
    #[must_use]
    pub fn resident_max(&self) -> Option<(u64, u64)> {
        let mut held: FxHashMap<u64, (u64, u64)> = FxHashMap::default();
        // Of 128 bits: the sizes are whatever a file says.
        let (mut bytes, mut pinned) = (0u128, 0u128);
        let mut most = None;
        for sample in &self.samples {
            let before = held.insert(sample.store, (sample.bytes, sample.pinned)).unwrap_or_default();
            bytes = bytes - u128::from(before.0) + u128::from(sample.bytes);
            pinned = pinned - u128::from(before.1) + u128::from(sample.pinned);
            let (most_bytes, most_pinned) = most.unwrap_or_default();
            most = Some((bytes.max(most_bytes), pinned.max(most_pinned)));
        }
        let shown = |bytes| u64::try_from(bytes).unwrap_or(u64::MAX);
        most.map(|(bytes, pinned)| (shown(bytes), shown(pinned)))
    }
}

/// What was done.
pub(crate) fn verb(how: Move) -> &'static str {
    match how {
        Move::Spilled => "spill",
        Move::Dropped => "drop",
        Move::Reloaded => "reload",
        Move::Made => "make",
        _ => "move",
    }
}

/// A lane for each move, such that those in one do not overlap, and how many lanes that takes: the fewest if the moves are in
/// order (invariant 5 of `model.rs`).
pub(crate) fn apart(moves: &[Moved]) -> (Vec<usize>, usize) {
    // By the end of its last move.
    let mut lanes: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let places = moves.iter().map(|moved| {
        let free = lanes.peek().filter(|Reverse((end, _))| *end <= moved.start).copied();
        let lane = match free {
            Some(Reverse((_, lane))) => {
                lanes.pop();
                lane
            }
            None => lanes.len(),
        };
        lanes.push(Reverse((moved.end, lane)));
        lane
    });
    let places = places.collect();
    (places, lanes.len())
}
