//! Programs of several threads over the same chunks: as if their tasks had run one after the other.

use super::call::{Body, End, Log};
use super::oracle::{Area, areas, replay};
use super::run::{Maker, Order, Program, Task, chunks};
use dagger_async::prelude::*;
use dagger_tests::watched;
use std::collections::HashMap;
use std::sync::{Arc, Barrier, Mutex};

const THREADS: usize = 8;

fn program(seed: u64) -> Program {
    Program {
        no: 0,
        lens: [5, 6],
        dims: [(4, 4), (3, 5)][seed as usize % 2],
        columns_first: seed % 4 < 2,
        made: [false; 5],
        order: Order::Free,
        stmts: Vec::new(),
    }
}

/// The tasks of one thread, in its program order. They change no length.
fn tasks(seed: u64, thread: usize, program: &Program) -> Vec<Task> {
    let mut maker = Maker::of_accesses(seed * 100 + thread as u64, program.lens, program.dims);
    (0..12)
        .map(|nth| Task { no: 1000 * (thread + 1) + nth, arg: None, resize: None, ..maker.plain_task() })
        .collect()
}

fn round(rt: &Arc<Runtime>, seed: u64) -> Result<usize, String> {
    let program = program(seed);
    let all: Vec<Vec<Task>> = (0..THREADS).map(|thread| tasks(seed, thread, &program)).collect();
    let (shared, log) = (rt.block_on(async { chunks(&program) }), Arc::<Log>::default());
    let results = Mutex::new(HashMap::new());
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for own in &all {
            scope.spawn(|| {
                start.wait();
                rt.block_on(async {
                    let ready = spawn!((|| 7)());
                    let spawn = |task: &Task| {
                        let modes = task.accesses.iter().map(|access| access.mode).collect();
                        let body = Body {
                            no: task.no,
                            modes,
                            end: End::Value,
                            resize: None,
                            log: log.clone(),
                            hook: None,
                        };
                        (task.no, task.table.spawn(&shared, &task.accesses, &ready, body, Options::new()))
                    };
                    let (outer, inner) = own.split_at(own.len() / 3);
                    let (inner, last) = inner.split_at(inner.len() / 2);
                    let mut handles = Vec::new();
                    datadeps(async {
                        handles.extend(outer.iter().map(spawn));
                        datadeps(async { handles.extend(inner.iter().map(spawn)) }).await.unwrap();
                        handles.extend(last.iter().map(spawn));
                    })
                    .await
                    .unwrap();
                    for (no, task) in handles {
                        let result = task.await.unwrap();
                        results.lock().unwrap().insert(no, result);
                    }
                });
            });
        }
    });
    let mut ran = log.ran.lock().unwrap().clone();
    ran.sort_by_key(|ran| ran.start);
    let by_number: HashMap<usize, &Task> = all.iter().flatten().map(|task| (task.no, task)).collect();
    let touched: HashMap<usize, Vec<Area>> =
        by_number.iter().map(|(no, task)| (*no, areas(&program, &task.accesses))).collect();
    let mut pairs = 0;
    for (at, later) in ran.iter().enumerate() {
        for earlier in &ran[..at] {
            if !touched[&later.no]
                .iter()
                .any(|one| touched[&earlier.no].iter().any(|other| one.conflicts(other)))
            {
                continue;
            }
            pairs += 1;
            if earlier.end > later.start {
                return Err(format!("{} and {} ran at once", by_number[&earlier.no], by_number[&later.no]));
            }
            if earlier.no / 1000 == later.no / 1000 && earlier.no > later.no {
                return Err(format!("{} ran before {}", by_number[&earlier.no], by_number[&later.no]));
            }
        }
    }
    let order: Vec<&Task> = ran.iter().map(|ran| by_number[&ran.no]).collect();
    let (expected, contents) = replay(&program, &order);
    let results = results.into_inner().unwrap();
    if results != expected {
        return Err("the results are those of no order".to_owned());
    }
    let found = rt.block_on(super::run::contents(&shared));
    if found != contents {
        return Err(format!("{found:?} is left, not {contents:?}"));
    }
    Ok(pairs)
}

#[test]
fn what_eight_threads_do_at_once_could_have_been_done_in_turn() {
    watched(|| {
        let mut pairs = 0;
        for workers in [1, 2, 4] {
            let rt = Arc::new(Runtime::builder().threads(workers).pin(false).build().unwrap());
            for seed in 0..20 {
                match round(&rt, seed * 3 + workers as u64) {
                    Ok(found) => pairs += found,
                    Err(text) => panic!("on {workers} workers, seed {seed}: {text}"),
                }
            }
        }
        println!("{pairs} conflicting pairs in order");
    });
}
