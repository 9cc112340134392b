use super::{MOVES, traces};
use crate::model::{Moved, Sample};
use crate::moves::apart;
use dagger_core::record::{Move, What};
use proptest::prelude::*;

proptest! {
    #[test]
    fn lanes_are_as_few_as_keep_overlapping_moves_apart(trace in traces(20)) {
        let moves = &trace.moves;
        let (lanes, many) = apart(moves);
        prop_assert!(lanes.iter().all(|&lane| lane < many));
        for (at, (a, lane)) in moves.iter().zip(&lanes).enumerate() {
            let others = moves.iter().zip(&lanes).skip(at + 1).filter(|&(_, other)| other == lane);
            prop_assert!(others.map(|(b, _)| b).all(|b| a.end <= b.start));
        }
        let under_way = |now: usize| {
            1 + moves[..now].iter().filter(|before| moves[now].start < before.end).count()
        };
        prop_assert_eq!((0..moves.len()).map(under_way).max().unwrap_or(0), many);
    }

    #[test]
    fn rows_are_the_sums_of_moves(trace in traces(20)) {
        let rows = trace.by_move();
        let kinds = MOVES.into_iter().filter(|&how| trace.moves.iter().any(|moved| moved.how == how));
        prop_assert!(rows.iter().map(|row| row.how).eq(kinds));
        for row in &rows {
            let of: Vec<&Moved> = trace.moves.iter().filter(|moved| moved.how == row.how).collect();
            let bytes = of.iter().map(|moved| u128::from(moved.bytes)).sum::<u128>();
            prop_assert_eq!((row.count, u128::from(row.bytes)), (of.len(), bytes.min(u64::MAX.into())));
            prop_assert_eq!(row.total, of.iter().map(|moved| moved.nanos()).sum::<u64>());
            prop_assert_eq!(row.mean, row.total / of.len() as u64);
            prop_assert_eq!(Some(row.max), of.iter().map(|moved| moved.nanos()).max());
        }
    }
}

#[test]
fn what_several_stores_hold_adds_up() {
    let mut trace = super::log::by_hand(100, |_| ());
    assert_eq!(trace.resident_max(), None);
    let samples = [(1, 10, 4), (2, 5, 0), (1, 3, 3), (2, 6, 6), (1, 0, 0), (2, u64::MAX, 0), (1, 1, 0)];
    let sample = |(at, (store, bytes, pinned))| Sample { store, at: at as u64, bytes, pinned };
    trace.samples = samples.into_iter().enumerate().map(sample).collect();
    assert_eq!(trace.resident_max(), Some((u64::MAX, 9)));
    trace.samples.truncate(5);
    assert_eq!(trace.resident_max(), Some((15, 9)));
}

#[test]
fn the_page_says_what_moved_if_anything_did() {
    let empty = super::log::by_hand(1_000_000, |log| {
        log.spawn(0, 1, 0).start(0, 1).end(10, 1);
    });
    assert!(!empty.describe().contains("stores") && !empty.describe().contains("most bytes"));
    assert!(!empty.to_chrome().contains("\"pid\":2"));

    let moved = |chunk, bytes, how, nanos| What::Moved { chunk, bytes, how, nanos };
    let trace = super::log::by_hand(10_000_000, |log| {
        log.spawn(0, 1, 0).start(0, 1);
        log.note(500, moved(7, 1 << 20, Move::Spilled, 2_000)); // it began before the recording
        log.note(500, What::Resident { store: 1, bytes: 3 << 20, pinned: 1 << 20 });
        log.note(3_000_000, moved(8, 2 << 20, Move::Spilled, 2_000_000));
        log.note(3_000_000, What::Resident { store: 1, bytes: 1 << 20, pinned: 2 << 10 });
        log.note(4_000_000, moved(7, 1 << 20, Move::Reloaded, 10_000));
        log.note(4_000_001, moved(9, 17, Move::Dropped, 0));
        log.end(5_000_000, 1);
    });
    // The thread that moves has a task under way: that goes on.
    assert_eq!(trace.tasks[0].run_nanos(), 5_000_000);
    let starts: Vec<(u64, u64, u64)> =
        trace.moves.iter().map(|moved| (moved.chunk, moved.start, moved.end)).collect();
    let expected =
        [(7, 0, 500), (8, 1_000_000, 3_000_000), (7, 3_990_000, 4_000_000), (9, 4_000_001, 4_000_001)];
    assert_eq!(starts, expected);
    let page = trace.describe();
    let lines: Vec<&str> = page.lines().rev().take(6).collect();
    let expected = [
        "most bytes at a time: 3.00 MiB resident, 1.00 MiB pinned",
        "reloaded: read back                         1   10.0 µs  1.00 MiB   10.0 µs   10.0 µs",
        "dropped: a copy was elsewhere               1      0 ns      17 B      0 ns      0 ns",
        "spilled: written out                        2   2.00 ms  3.00 MiB   1.00 ms   2.00 ms",
        "moved by stores                         count     total     bytes      mean       max",
        "",
    ];
    assert_eq!(lines, expected, "{page}");
}
