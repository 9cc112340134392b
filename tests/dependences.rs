//! What a recording says of the order of random programs, against what their accesses say.
//!
//! ```text
//!   program ─▶ run it, recorded ─▶ edges of the trace ─┐   every edge is in the oracle's dependences, and
//!           └▶ oracle ─▶ pairs of accesses that conflict ┴▶ of every such pair the one can be reached from the other
//! ```
//! A program of its own, since a recording sees the whole process. `DAGGER_PROGRAMS=100000` runs so many.

// Some of it is used by `programs.rs` only.
#[allow(dead_code)]
mod programs {
    pub mod call;
    pub mod oracle;
    pub mod region;
    pub mod run;
}

use dagger_async::{Runtime, record};
use dagger_tests::watched;
use dagger_trace::{EdgeCause, Trace};
use programs::oracle::{Dependences, check};
use programs::run::{Order, Program, Stmt, Task, program, run};
use std::collections::{HashMap, HashSet};

/// A task of a program, and around it.
struct Known<'p> {
    task: &'p Task,
    /// The task whose body runs the program that it is in.
    inside: Option<usize>,
}

/// All tasks of a program and of those in it, by number.
fn tasks<'p>(stmts: &'p [Stmt], inside: Option<usize>, all: &mut HashMap<usize, Known<'p>>) {
    let mut add = |task: &'p Task| {
        if let Some(inner) = &task.inner {
            tasks(&inner.stmts, Some(task.no), all);
        }
        all.insert(task.no, Known { task, inside });
    };
    for stmt in stmts {
        match stmt {
            Stmt::Spawn(task) => add(task),
            Stmt::Guard { between, .. } => between.iter().for_each(&mut add),
            _ => {}
        }
    }
    for stmt in stmts {
        if let Stmt::Block(_, stmts) = stmt {
            tasks(stmts, inside, all);
        }
    }
}

#[derive(Default, Debug)]
struct Tally {
    programs: usize,
    tasks: usize,
    conflicts: usize,
    data: usize,
    arguments: usize,
    orders: usize,
    awaited: usize,
    /// Of the edges of data: between tasks that share no element, see `Dependences::wider`.
    wider: usize,
    /// Edges from or to a task of which it is not certain what it would have accessed.
    unclear: usize,
}

/// What is wrong with the edges of a recorded run.
fn compare(
    program: &Program,
    expected: &Dependences,
    trace: &Trace,
    tally: &mut Tally,
) -> Result<(), String> {
    let mut all = HashMap::new();
    tasks(&program.stmts, None, &mut all);
    let number = |at: usize| trace.tasks[at].name.strip_prefix('t').and_then(|no| no.parse().ok());
    let numbers: Vec<Option<usize>> = (0..trace.tasks.len()).map(number).collect();
    let conflicts: HashSet<(usize, usize)> = expected.conflicts.iter().copied().collect();
    let unclear: HashSet<usize> = expected.unclear.iter().copied().collect();
    tally.programs += 1;
    tally.tasks += all.len();
    tally.conflicts += conflicts.len();

    let mut follows: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut arguments = HashSet::new();
    for edge in &trace.edges {
        let (from, to) = (&trace.tasks[edge.from].name, &trace.tasks[edge.to].name);
        let (Some(earlier), Some(later)) = (numbers[edge.from], numbers[edge.to]) else {
            // Tasks that the programs and the runtime make for their own ends.
            let fine = match edge.cause {
                EdgeCause::Argument => ["(|| 7)", "maker"].contains(&from.as_str()),
                EdgeCause::Order => from == "gate" || program.order == Order::Linear,
                EdgeCause::Awaited => numbers[edge.to].is_some_and(|to| all[&to].task.inner.is_some()),
                // It writes the chunk before all others.
                EdgeCause::Data { .. } => from == "Chunk::from_task",
            };
            if !fine {
                return Err(format!("{from} ─▶ {to}: {:?}", edge.cause));
            }
            continue;
        };
        let fine = match edge.cause {
            EdgeCause::Data { .. } => {
                follows.entry(earlier).or_default().push(later);
                if unclear.contains(&earlier) || unclear.contains(&later) {
                    tally.unclear += 1;
                    continue;
                }
                let pair = (earlier, later);
                let is_wider = expected.wider.contains(&pair);
                tally.wider += usize::from(is_wider);
                tally.data += 1;
                conflicts.contains(&pair) || is_wider
            }
            EdgeCause::Argument => {
                tally.arguments += 1;
                arguments.insert(later);
                all[&later].task.arg == Some(earlier)
            }
            EdgeCause::Order => {
                tally.orders += 1;
                let same = all[&earlier].inside == all[&later].inside;
                program.order == Order::Linear && same && earlier < later
            }
            EdgeCause::Awaited => {
                tally.awaited += 1;
                all[&earlier].inside == Some(later)
            }
        };
        if !fine {
            return Err(format!("{from} ─▶ {to} is not in the program: {:?}", edge.cause));
        }
    }

    for &(earlier, later) in &conflicts {
        let places = |no: usize| {
            let at = numbers.iter().position(|&known| known == Some(no));
            at.is_some_and(|at| !trace.tasks[at].accesses.is_empty())
        };
        // What was refused at once has no place.
        if !places(earlier) || !places(later) {
            continue;
        }
        let (mut seen, mut next) = (HashSet::new(), vec![earlier]);
        while let Some(at) = next.pop() {
            next.extend(follows.get(&at).into_iter().flatten().filter(|&&to| seen.insert(to)));
        }
        if !seen.contains(&later) {
            return Err(format!("t{later} conflicts with t{earlier}, and no edges lead there"));
        }
    }
    for (no, known) in &all {
        let ran = numbers.contains(&Some(*no));
        if let Some(arg) =
            known.task.arg.filter(|_| ran && known.task.inner.is_none() && !arguments.contains(no))
        {
            return Err(format!("t{no} takes the result of t{arg}, and there is no edge"));
        }
    }
    Ok(())
}

#[test]
fn the_edges_of_a_recording_are_the_dependences_of_the_program() {
    watched(|| {
        let count = std::env::var("DAGGER_PROGRAMS").ok().and_then(|text| text.parse().ok()).unwrap_or(1500);
        let runtime = |workers| Runtime::builder().threads(workers).pin(false).build().unwrap();
        let runtimes = [runtime(1), runtime(3)];
        let mut tally = Tally::default();
        for seed in 1..=count {
            let program = program(seed as u64, 2 + seed % 13);
            let rt = &runtimes[seed % runtimes.len()];
            let recording = record::start();
            let seen = rt.block_on(run(&program));
            rt.block_on(rt.idle()); // What was cancelled may still run.
            let trace = Trace::from_log(&recording.stop());
            assert_eq!(trace.lost, 0);
            let found =
                check(&program, &seen).unwrap_or_else(|text| panic!("seed {seed}: {text}\n{program}"));
            if found.unclear > 0 {
                continue; // The run does not tell what its tasks would have accessed.
            }
            compare(&program, &found.dependences, &trace, &mut tally)
                .unwrap_or_else(|text| panic!("seed {seed}: {text}\n{program}"));
        }
        println!("{tally:?}");
        assert!(tally.conflicts > count && tally.data > count && tally.arguments > count / 4, "{tally:?}");
    });
}
