//! Neither too little order nor too much: pairs of tasks that conflict never meet, and all others can.

use super::call::{Access, Body, Chunks, End, Hook, Kind, Log, Mode, Table};
use super::run::{Maker, Order, Program, chunks, is_faulty};
use dagger_async::prelude::*;
use dagger_tests::{Gate, watched};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Where two bodies wait for each other.
#[derive(Default)]
struct Meeting(Mutex<usize>, Condvar);

impl Meeting {
    /// True if the other one came too.
    fn come(&self) -> bool {
        let mut count = self.0.lock().unwrap();
        *count += 1;
        self.1.notify_all();
        let missing = |count: &mut usize| *count < 2;
        let (count, _) = self.1.wait_timeout_while(count, Duration::from_secs(5), missing).unwrap();
        *count == 2
    }
}

const DIMS: (usize, usize) = (4, 4);

fn program() -> Program {
    Program {
        no: 0,
        lens: [6, 6],
        dims: DIMS,
        columns_first: false,
        made: [false; 5],
        order: Order::Free,
        stmts: Vec::new(),
    }
}

fn spawn_one(
    c: &Chunks,
    no: usize,
    access: &Access,
    log: &Arc<Log>,
    ready: &DTask<i64>,
    hook: Hook,
) -> DTask<i64> {
    let body = Body {
        no,
        modes: vec![access.mode],
        end: End::Value,
        resize: None,
        log: log.clone(),
        hook: Some(hook),
    };
    Table::One.spawn(c, std::slice::from_ref(access), ready, body, Options::new().name(format!("t{no}")))
}

/// Two compatible tasks run at once.
async fn meet(one: &Access, other: &Access) -> bool {
    let chunks = chunks(&program());
    let (log, ready) = (Arc::default(), spawn!((|| 7)()));
    let meeting = Arc::new(Meeting::default());
    let met = Arc::new(AtomicBool::new(true));
    let hook = || -> Hook {
        let (meeting, met) = (meeting.clone(), met.clone());
        Arc::new(move || _ = met.fetch_and(meeting.come(), SeqCst))
    };
    datadeps(async {
        spawn_one(&chunks, 1, one, &log, &ready, hook());
        spawn_one(&chunks, 2, other, &log, &ready, hook());
    })
    .await
    .unwrap();
    met.load(SeqCst)
}

/// While the first runs, the second does not start, though a worker is free: a third one runs there.
async fn wait_for_each_other(one: &Access, other: &Access) -> bool {
    let chunks = chunks(&program());
    let (log, ready): (Arc<Log>, _) = (Arc::default(), spawn!((|| 7)()));
    let (third_ran, second_started) = (Gate::new(), Arc::new(AtomicBool::new(false)));
    let apart = Arc::new(AtomicBool::new(false));
    datadeps(async {
        let (gate, started, apart) = (third_ran.clone(), second_started.clone(), apart.clone());
        let first: Hook = Arc::new(move || {
            gate.block();
            apart.store(!started.load(SeqCst), SeqCst);
        });
        spawn_one(&chunks, 1, one, &log, &ready, first);
        let started = second_started.clone();
        spawn_one(&chunks, 2, other, &log, &ready, Arc::new(move || started.store(true, SeqCst)));
        spawn!((|gate: Gate| gate.open())(third_ran.clone()));
    })
    .await
    .unwrap();
    let ran = log.ran.lock().unwrap();
    let at = |no: usize| *ran.iter().find(|ran| ran.no == no).unwrap();
    apart.load(SeqCst) && at(1).end < at(2).start
}

#[test]
fn every_pair_of_kinds_is_ordered_if_it_conflicts_and_meets_if_not() {
    watched(|| {
        let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
        let container = |kind: Kind| format!("{kind:?}").chars().next();
        let modes = [
            (Mode::In, Mode::In),
            (Mode::Ref, Mode::In),
            (Mode::In, Mode::InOut),
            (Mode::InOut, Mode::In),
            (Mode::Out, Mode::InOut),
            (Mode::InOut, Mode::Out),
        ];
        let (mut met, mut apart, mut never) = (0, 0, Vec::new());
        for (nth, one) in Kind::ALL.into_iter().enumerate() {
            for (mth, other) in
                Kind::ALL.into_iter().enumerate().filter(|(_, other)| container(*other) == container(one))
            {
                let mut disjoint = false;
                for (which, modes) in modes.into_iter().enumerate() {
                    for seed in 0..4 {
                        let mut maker = Maker::of_accesses(
                            (((nth * 19 + mth) * 6 + which) * 4 + seed) as u64,
                            [6, 6],
                            DIMS,
                        );
                        let mut pick = |mode: Mode, kind: Kind| loop {
                            let mut access = maker.access(mode, kind);
                            if access.chunk == 1 {
                                access.chunk = 0;
                            }
                            let area = access.region.resolve(maker.dims_of(access.chunk));
                            let alone = std::slice::from_ref(&access);
                            if !area.elements.is_empty() && !is_faulty(alone, &|chunk| maker.dims_of(chunk)) {
                                return (access, area);
                            }
                        };
                        let (first, second) = (pick(modes.0, one), pick(modes.1, other));
                        let writes = modes.0.writes() || modes.1.writes();
                        let conflict = writes && first.1.meets(&second.1);
                        disjoint |= writes && !conflict;
                        let right = match conflict {
                            true => rt.block_on(wait_for_each_other(&first.0, &second.0)),
                            false => rt.block_on(meet(&first.0, &second.0)),
                        };
                        let what = if conflict { "ran together" } else { "did not meet" };
                        assert!(right, "{} and {} {what}", first.0, second.0);
                        *(if conflict { &mut apart } else { &mut met }) += 1;
                    }
                }
                if !disjoint && one != other {
                    never.push((one, other));
                }
            }
        }
        println!("{met} pairs met, {apart} were kept apart; only conflicts between {never:?}");
        assert!(met > 500 && apart > 500);
    });
}

/// The parts that tile algorithms rest on, by name.
#[test]
fn opposite_triangles_blocks_and_diagonals_meet() {
    use super::region::{Bandy, Bounds, Of, Op, Region, Stepped};
    let matrix = |of: Of| Region::Matrix(Vec::new(), of);
    let banded = |bandy: Bandy| matrix(Of::Banded(bandy, Vec::new(), None));
    let block = |rows: Bounds, cols: Bounds| {
        Region::Matrix(vec![(Stepped(rows, None), Stepped(cols, None))], Of::Block)
    };
    let stepped = |by: Stepped| Region::Matrix(vec![(by, Stepped(Bounds::All, None))], Of::Block);
    let row = |at: usize| matrix(Of::Row(at, Vec::new()));
    let col = |at: usize, ops: Vec<Op>| matrix(Of::Col(at, ops));
    use Kind::*;
    let pairs = [
        ((MTri, matrix(Of::Triangle(false))), (MBand, banded(Bandy::Strict(true)))),
        ((MTri, matrix(Of::Triangle(true))), (MBand, banded(Bandy::Strict(false)))),
        ((MTri, matrix(Of::Triangle(true))), (MBand, banded(Bandy::Unit(false)))),
        ((MBand, banded(Bandy::Strict(true))), (MBand, banded(Bandy::Strict(false)))),
        ((MLine, matrix(Of::Diag(Vec::new()))), (MBand, banded(Bandy::Unit(true)))),
        ((MBlock, block(Bounds::To(2), Bounds::To(2))), (MBlock, block(Bounds::From(2), Bounds::To(2)))),
        ((MBlock, block(Bounds::To(2), Bounds::From(2))), (MBlock, block(Bounds::From(2), Bounds::To(2)))),
        ((MBlock, block(Bounds::To(2), Bounds::From(2))), (MBand, banded(Bandy::Strict(false)))),
        (
            (MBlock, stepped(Stepped(Bounds::All, Some(2)))),
            (MBlock, stepped(Stepped(Bounds::From(1), Some(2)))),
        ),
        ((MLine, row(0)), (MLine, row(3))),
        ((MLine, row(0)), (MLine, col(1, vec![Op::Range(Bounds::From(1))]))),
    ];
    watched(move || {
        let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
        for (one, other) in pairs {
            for modes in [(Mode::InOut, Mode::InOut), (Mode::In, Mode::Out), (Mode::Out, Mode::In)] {
                let access = |mode: Mode, (kind, region): &(Kind, Region)| Access {
                    chunk: 3,
                    mode,
                    kind: *kind,
                    region: region.clone(),
                };
                let (first, second) = (access(modes.0, &one), access(modes.1, &other));
                assert!(rt.block_on(meet(&first, &second)), "{first} and {second} did not meet");
            }
        }
    });
}
