//! Properties of the whole: random traces and logs, against what is said slowly and plainly.

mod analysis;
mod chrome;
mod data;
mod file;
mod log;
mod moves;
mod pattern;

use crate::model::{
    Access, At, Edge, EdgeCause, Idle, LaneInfo, Moved, Place, Run, Sample, Steal, Task, Trace,
};
use dagger_core::record::{End, Move};
use proptest::prelude::*;
use std::time::{Duration, UNIX_EPOCH};

/// Spawn time, waits before runs and their lengths, parent, whether it ended.
type RawTask = (u64, Vec<(u64, u64)>, usize, bool);

const LANES: usize = 3;
const MOVES: [Move; 4] = [Move::Spilled, Move::Dropped, Move::Reloaded, Move::Made];

/// Traces of up to `tasks` tasks whose edges agree with their times; lanes may do several things at once. What stores did is
/// made of the same numbers as the edges.
fn traces(tasks: usize) -> impl Strategy<Value = Trace> {
    let raw = (0..50u64, prop::collection::vec((1..10u64, 0..10u64), 0..4), any::<usize>(), any::<bool>());
    let edges = prop::collection::vec((any::<usize>(), any::<usize>(), 0..4u8), 0..tasks * 3);
    (prop::collection::vec(raw, 0..tasks), edges, any::<u32>(), 0..3u64)
        .prop_map(|(raw, edges, began, lost)| trace(raw, &edges, began, lost))
}

fn trace(mut raw: Vec<RawTask>, edges: &[(usize, usize, u8)], began: u32, lost: u64) -> Trace {
    raw.sort();
    let names = ["potrf", "trsm", "a \"quoted\" \\ name\n\u{1}", "größer"];
    let mut tasks: Vec<Task> = Vec::new();
    for (index, (at, waits, parent, ends)) in raw.into_iter().enumerate() {
        let mut now = at;
        let mut runs = Vec::new();
        for (wait, len) in waits {
            let (start, end) = (now + wait, now + wait + len);
            runs.push(Run { lane: end as usize % LANES, start, end });
            now = end;
        }
        // A parent that has begun by then, and not ended.
        let spawns = |parent: &Task| {
            parent.runs.first().is_some_and(|run| run.start <= at)
                && parent.ended.is_none_or(|ended| at <= ended)
        };
        let access = Access { chunk: at % 3, turn: index as u64, writes: ends, part: "0..3".into() };
        tasks.push(Task {
            id: 100 + index as u64,
            name: names[parent % names.len()].into(),
            site: format!("src/main.rs:{at}"),
            parent: Some(parent % (index + 2)).filter(|&parent| tasks.get(parent).is_some_and(spawns)),
            spawned: Some(At { lane: 0, at }),
            ready: runs.first().map(|run| run.start - 1).filter(|_| parent % 2 == 0),
            runs,
            ended: ends.then_some(now + 1),
            end: ends.then_some([End::Done, End::Failed, End::Refused, End::Cancelled][parent % 4]),
            place: (parent % 5 == 0).then(|| Place {
                workers: (parent % 2 == 0).then(|| vec![parent % 7, 300]),
                priority: at as i32 - 25,
                blocking: ends,
            }),
            retries: (parent % 4) as u32,
            accesses: if parent % 3 == 0 { vec![access] } else { vec![] },
        });
    }
    let mut kept: Vec<Edge> = Vec::new();
    for &(from, to, cause) in edges.iter().filter(|_| !tasks.is_empty()) {
        let (from, to) = (from % tasks.len(), to % tasks.len());
        let cause = match cause {
            0 => EdgeCause::Argument,
            1 => EdgeCause::Order,
            2 => EdgeCause::Awaited,
            _ => EdgeCause::Data { chunk: to as u64 },
        };
        let begun = tasks[to].runs.first().map_or(tasks[to].spawned.unwrap().at, |run| run.start);
        let ended = tasks[from].ended;
        if from != to && (cause == EdgeCause::Awaited || ended.is_some_and(|ended| ended < begun)) {
            kept.push(Edge { from, to, cause });
        }
    }
    kept.sort();
    kept.dedup();
    let moved = |&(chunk, bytes, how): &(usize, usize, u8)| {
        let (start, how) = (chunk as u64 % 150, MOVES[usize::from(how) % MOVES.len()]);
        let (lane, end, chunk) = (chunk % LANES, start + bytes as u64 % 50, chunk as u64 % 7);
        Moved { lane, start, end, chunk, bytes: bytes as u64, how }
    };
    let mut moves: Vec<Moved> = edges.iter().map(moved).collect();
    moves.sort_by_key(|moved| (moved.start, moved.end));
    let sample = |moved: &Moved| {
        let &Moved { start: at, bytes, chunk, .. } = moved;
        Sample { store: chunk % 3, at, bytes, pinned: bytes / 2 }
    };
    let samples = moves.iter().map(sample).collect();
    let lane = |lane: usize| LaneInfo { name: format!("lane {lane}"), worker: (lane > 0).then_some(lane) };
    Trace {
        began: UNIX_EPOCH + Duration::from_nanos(u64::from(began) << 30),
        nanos: 200,
        lanes: (0..LANES).map(lane).collect(),
        tasks,
        edges: kept,
        idle: vec![Idle { lane: 1, start: 3, end: 90 }, Idle { lane: 2, start: 0, end: 200 }],
        steals: vec![Steal { lane: 1, at: 95, from: 2 }],
        moves,
        samples,
        lost,
    }
}
