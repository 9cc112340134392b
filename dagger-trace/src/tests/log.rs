use super::MOVES;
use crate::model::{Edge, EdgeCause, Run, Trace};
use dagger_core::record::{Cause, End, Lane, Log, Name, Record, What};
use dagger_core::{Area, Axis, Grid, Progression};
use proptest::prelude::*;
use std::panic::Location;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Records of one lane, written one after the other.
pub(super) struct ByHand(Vec<Record>);

impl ByHand {
    pub(super) fn note(&mut self, at: u64, what: What) -> &mut ByHand {
        self.0.push(Record { at, what });
        self
    }
    pub(super) fn spawn(&mut self, at: u64, task: u64, parent: u64) -> &mut ByHand {
        self.note(at, What::Spawn { task, parent, name: Name::Callee("task"), site: Location::caller() })
    }
    pub(super) fn after(&mut self, at: u64, task: u64, input: u64) -> &mut ByHand {
        self.note(at, What::After { task, input, cause: Cause::Awaited })
    }
    pub(super) fn start(&mut self, at: u64, task: u64) -> &mut ByHand {
        self.note(at, What::Start { task })
    }
    pub(super) fn suspend(&mut self, at: u64, task: u64) -> &mut ByHand {
        self.note(at, What::Suspend { task })
    }
    pub(super) fn resume(&mut self, at: u64, task: u64) -> &mut ByHand {
        self.note(at, What::Resume { task })
    }
    pub(super) fn end(&mut self, at: u64, task: u64) -> &mut ByHand {
        self.note(at, What::End { task, end: End::Done })
    }
}

fn log(nanos: u64, lanes: Vec<Vec<Record>>, lost: u64) -> Log {
    let lane = |(lane, records)| Lane { name: format!("worker {lane}"), worker: Some(lane), records };
    Log { began: UNIX_EPOCH, nanos, lanes: lanes.into_iter().enumerate().map(lane).collect(), lost }
}

/// The trace of one lane.
pub(super) fn by_hand(nanos: u64, write: impl FnOnce(&mut ByHand)) -> Trace {
    let mut hand = ByHand(Vec::new());
    write(&mut hand);
    Trace::from_log(&log(nanos, vec![hand.0], 0))
}

fn runs(trace: &Trace, task: usize) -> Vec<(u64, u64)> {
    trace.tasks[task].runs.iter().map(|run| (run.start, run.end)).collect()
}

#[test]
fn a_task_that_runs_another_one_inside_stands_still() {
    let trace = by_hand(100, |log| {
        log.spawn(0, 1, 0).start(5, 1).spawn(10, 2, 1).start(20, 2).end(30, 2).end(50, 1);
    });
    assert_eq!(runs(&trace, 0), [(5, 20), (30, 50)]);
    assert_eq!(runs(&trace, 1), [(20, 30)]);
    assert_eq!(trace.tasks[1].parent, Some(0));
    assert!(trace.tasks[0].site.starts_with(file!()), "{}", trace.tasks[0].site);
}

#[test]
fn a_run_that_the_recording_cuts_counts_as_far_as_it_saw() {
    let trace = by_hand(100, |log| {
        log.end(20, 1).spawn(30, 2, 0).start(40, 2);
    });
    assert_eq!((trace.tasks[0].name.as_str(), runs(&trace, 0)), ("?", vec![(0, 20)]));
    assert_eq!(runs(&trace, 1), [(40, 100)]);
    assert_eq!(trace.tasks[1].ended, None);
}

#[test]
fn what_began_inside_a_body_stops_with_it() {
    let trace = by_hand(100, |log| {
        log.start(10, 1).start(20, 2).suspend(30, 1).start(40, 3).end(50, 3);
    });
    assert_eq!([runs(&trace, 0), runs(&trace, 1), runs(&trace, 2)], [[(10, 20)], [(20, 30)], [(40, 50)]]);
}

#[test]
fn where_records_were_lost_nothing_is_added_to_the_last_one() {
    let mut hand = ByHand(Vec::new());
    hand.spawn(10, 1, 0).start(20, 1).spawn(30, 2, 1);
    let trace = Trace::from_log(&log(1000, vec![hand.0], 5));
    assert_eq!((runs(&trace, 0), trace.lost), (vec![(20, 30)], 5));
}

#[test]
fn a_task_that_is_refused_did_not_run() {
    let trace = by_hand(100, |log| {
        log.spawn(0, 1, 0).note(10, What::End { task: 1, end: End::Refused });
        log.note(20, What::End { task: 2, end: End::Cancelled });
        log.spawn(30, 3, 2).end(40, 3);
    });
    assert!(trace.tasks.iter().all(|task| task.runs.is_empty()));
    let ends: Vec<Option<End>> = trace.tasks.iter().map(|task| task.end).collect();
    assert_eq!(ends, [Some(End::Cancelled), Some(End::Refused), Some(End::Done)]);
    assert_eq!(trace.tasks[2].parent, Some(0));
}

#[test]
fn edges_say_why() {
    let line =
        |start, len| Some(Arc::new(Area::Grid(Grid::line(Axis::from(Progression::range(start, len))))));
    let trace = by_hand(100, |log| {
        log.spawn(0, 1, 0).spawn(1, 2, 0).spawn(2, 3, 0);
        log.note(3, What::After { task: 2, input: 1, cause: Cause::Argument });
        log.note(3, What::After { task: 2, input: 99, cause: Cause::Order });
        log.note(3, What::After { task: 3, input: 1, cause: Cause::Order });
        log.after(4, 3, 2);
        log.note(5, What::Access { task: 1, chunk: 7, turn: 1, writes: true, part: None });
        log.note(5, What::Access { task: 2, chunk: 7, turn: 2, writes: true, part: line(0, 3) });
        log.note(5, What::Access { task: 3, chunk: 7, turn: 3, writes: false, part: line(3, 3) });
    });
    let edge = |from, to, cause| Edge { from, to, cause };
    let expected = [
        edge(0, 1, EdgeCause::Argument),
        edge(0, 1, EdgeCause::Data { chunk: 7 }),
        edge(0, 2, EdgeCause::Order),
        edge(0, 2, EdgeCause::Data { chunk: 7 }),
        edge(1, 2, EdgeCause::Awaited),
    ];
    assert_eq!(trace.edges, expected);
    let parts: Vec<&str> = trace.tasks.iter().map(|task| task.accesses[0].part.as_str()).collect();
    assert_eq!(parts, ["whole", "0..3", "3..6"]);
}

#[test]
fn what_came_after_a_joint_came_after_its_inputs() {
    let spawn = |task, name: &'static str| {
        let name = if name == "joint" { Name::Joint(name) } else { Name::Callee(name) };
        What::Spawn { task, parent: 0, name, site: Location::caller() }
    };
    let after = |task, input, cause| What::After { task, input, cause };
    let ran = |task| [What::Start { task }, What::End { task, end: End::Done }];
    // 1 and 2 before a joint, that and 3 before another, which 6 awaits; and a step after each of very many.
    let mut whats = vec![
        spawn(6, "waits"),
        What::Start { task: 6 },
        spawn(1, "a"),
        spawn(2, "b"),
        spawn(3, "c"),
        spawn(4, "joint"),
        after(4, 1, Cause::Order),
        after(4, 2, Cause::Order),
        spawn(5, "joint"),
        after(5, 4, Cause::Order),
        after(5, 3, Cause::Order),
        after(6, 5, Cause::Awaited),
    ];
    whats.extend((1..=5).flat_map(ran));
    whats.push(What::End { task: 6, end: End::Done });
    const MANY: u64 = 200;
    let many = 100..100 + MANY;
    whats.extend(many.clone().map(|task| spawn(task, "many")));
    whats.push(spawn(99, "joint"));
    whats.extend(many.clone().map(|task| after(99, task, Cause::Order)));
    whats.extend(many.clone().rev().chain([99]).flat_map(ran)); // the first one ends last
    let then = 1000..1000 + MANY;
    whats.extend(then.clone().flat_map(|task| [spawn(task, "then"), after(task, 99, Cause::Order)]));
    let records = whats.into_iter().enumerate().map(|(at, what)| Record { at: at as u64, what }).collect();
    let trace = Trace::from_log(&log(1_000_000, vec![records], 0));
    assert_eq!(trace.tasks.len() as u64, 4 + 2 * MANY);
    assert!(trace.tasks.iter().all(|task| task.name != "joint"));
    let edges: Vec<(u64, u64, EdgeCause)> = trace
        .edges
        .iter()
        .map(|edge| (trace.tasks[edge.from].id, trace.tasks[edge.to].id, edge.cause))
        .collect();
    let awaited = [1, 2, 3].map(|input| (input, 6, EdgeCause::Awaited));
    let last = then.map(|task| (100, task, EdgeCause::Order));
    assert_eq!(edges, awaited.into_iter().chain(last).collect::<Vec<_>>());
    check(&trace);
}

/// One worker's day: what it runs, one task inside another, and its sleep. Written down only from `from` until `until`.
fn day(steps: &[(u64, u8)], from: u64, until: u64) -> Log {
    let mut records = Vec::new();
    let (mut at, mut next, mut stack) = (1, 1, Vec::new());
    for &(wait, step) in steps {
        at += wait;
        let what = match (step, stack.last().copied()) {
            (0 | 1, top) if top != Some(0) => {
                records.push(Record {
                    at,
                    what: What::Spawn {
                        task: next,
                        parent: top.unwrap_or(0),
                        name: Name::Callee("task"),
                        site: Location::caller(),
                    },
                });
                stack.push(next);
                next += 1;
                What::Start { task: next - 1 }
            }
            (2, None) => {
                stack.push(0);
                What::Sleep
            }
            (_, Some(top)) => {
                stack.pop();
                if top == 0 { What::Wake } else { What::End { task: top, end: End::Done } }
            }
            _ => What::Steal { from: 0 },
        };
        records.push(Record { at, what });
    }
    let records = records.into_iter().filter(|record| (from..until).contains(&record.at));
    let records = records.map(|record| Record { at: record.at - from, what: record.what }).collect();
    log(until - from, vec![records], 0)
}

/// Records that make no sense.
fn chaos() -> impl Strategy<Value = Log> {
    let record = (0..120u64, 0..13u8, 0..6u64, 0..6u64).prop_map(|(at, what, task, other)| {
        let what = match what {
            0 => What::Spawn {
                task,
                parent: other,
                name: if other == 5 { Name::Joint("joint") } else { Name::Given("given".into()) },
                site: Location::caller(),
            },
            1 => What::After { task, input: other, cause: Cause::Awaited },
            2 => What::Access { task, chunk: other % 2, turn: at, writes: other > 3, part: None },
            3 => What::Ready { task },
            4 => What::Start { task },
            5 => What::Suspend { task },
            6 => What::Resume { task },
            7 => What::End { task, end: if other > 3 { End::Cancelled } else { End::Done } },
            8 => What::Steal { from: 1 },
            9 => What::Sleep,
            10 => What::Wake,
            11 => What::Resident { store: task % 2, bytes: other, pinned: u64::MAX - other },
            _ => What::Moved { chunk: task, bytes: u64::MAX / 3, how: MOVES[other as usize % 4], nanos: at },
        };
        Record { at, what }
    });
    (prop::collection::vec(prop::collection::vec(record, 0..30), 0..4), 0..2u64)
        .prop_map(|(lanes, lost)| log(100, lanes, lost))
}

/// The invariants of `model.rs`.
fn check(trace: &Trace) {
    let mut lanes: Vec<Vec<(u64, u64)>> = vec![Vec::new(); trace.lanes.len()];
    for task in &trace.tasks {
        assert!(task.parent.is_none_or(|parent| parent < trace.tasks.len()));
        assert!(task.runs.windows(2).all(|pair| pair[0].end <= pair[1].start));
        for &Run { lane, start, end } in &task.runs {
            assert!(start <= end && end <= trace.nanos && task.ended.is_none_or(|ended| end <= ended));
            lanes[lane].push((start, end));
        }
    }
    trace.idle.iter().for_each(|idle| lanes[idle.lane].push((idle.start, idle.end)));
    for lane in &mut lanes {
        lane.sort();
        assert!(lane.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{lane:?}");
    }
    let moves = &trace.moves;
    assert!(moves.iter().all(|moved| moved.start <= moved.end && moved.end <= trace.nanos));
    assert!(
        moves.is_sorted_by_key(|moved| moved.start) && moves.iter().all(|moved| moved.lane < lanes.len())
    );
    assert!(trace.samples.is_sorted_by_key(|sample| sample.at));
    assert!(trace.samples.iter().all(|sample| sample.at <= trace.nanos));
    let spawned: Vec<Option<u64>> = trace.tasks.iter().map(|task| task.spawned.map(|at| at.at)).collect();
    assert!(spawned.is_sorted());
    assert!(
        trace.edges.iter().all(|edge| edge.from.max(edge.to) < trace.tasks.len() && edge.from != edge.to)
    );
}

proptest! {
    #[test]
    fn records_that_make_no_sense_still_give_a_trace(log in chaos()) {
        let trace = Trace::from_log(&log);
        check(&trace);
        prop_assert_eq!(&Trace::from_bytes(&trace.to_bytes()).unwrap(), &trace);
        let _ = (trace.describe(), trace.to_chrome());
        let busy: u64 = trace.analysis().workers.iter()
            .map(|worker| worker.running + worker.overhead + worker.waiting + worker.starved).sum();
        prop_assert_eq!(busy, 100 * trace.lanes.len() as u64);
    }

    /// What a recording sees of a task that it saw from its spawn on is what a longer recording sees of it.
    #[test]
    fn a_window_shows_the_same_runs_cut_to_it(
        steps in prop::collection::vec((1..9u64, 0..5u8), 1..30), from in 0..80u64, len in 1..80u64,
    ) {
        let (full, until) = (Trace::from_log(&day(&steps, 0, 400)), from + len);
        let part = Trace::from_log(&day(&steps, from, until));
        check(&full);
        check(&part);
        for task in part.tasks.iter() {
            let whole = full.tasks.iter().find(|whole| whole.id == task.id).unwrap();
            let cut: Vec<(u64, u64)> = whole.runs.iter()
                .filter(|run| run.start < until && run.end >= from)
                .map(|run| (run.start.max(from) - from, run.end.min(until) - from)).collect();
            let seen: Vec<(u64, u64)> = task.runs.iter().map(|run| (run.start, run.end)).collect();
            if task.spawned.is_some() {
                prop_assert_eq!(seen, cut);
            } else {
                // Of what began before, only what is known counts.
                let within = |run: &(u64, u64)| cut.iter().any(|whole| whole.0 <= run.0 && run.1 <= whole.1);
                prop_assert!(seen.iter().all(within), "{:?} in {:?}", seen, cut);
            }
        }
    }
}
