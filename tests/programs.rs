//! Random programs against the same programs without their spawns.
//!
//! ```text
//!   seed ─▶ program ─┬─▶ run it: 1, 2, 4 workers ─▶ what was seen ─┐
//!                    └─▶ one task after the other ───────────────┴─▶ equal? else: a smaller program, printed
//! ```
//! `DAGGER_PROGRAMS=100000` runs so many; `DAGGER_SEED=7` begins with that one.

mod programs {
    pub mod call;
    pub mod oracle;
    pub mod region;
    pub mod run;
}

use dagger_async::Runtime;
use programs::oracle::{Tally, check};
use programs::run::{Program, program, run};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A runtime to try programs on.
struct Bench {
    workers: usize,
    rt: Runtime,
}

fn benches() -> Vec<Bench> {
    let bench = |(workers, window): (usize, usize)| {
        let builder = Runtime::builder().threads(workers).pin(false).window(window);
        Bench { workers, rt: builder.build().unwrap() }
    };
    [(1, 4096), (2, 4096), (4, 4096), (2, 3)].map(bench).into()
}

enum Tried {
    Right(Tally),
    Wrong(String),
    Hangs,
}

/// Runs a program on a thread of its own, which is left behind if it hangs.
fn try_once(program: &Program, bench: &Arc<Vec<Bench>>, nth: usize) -> Tried {
    let (done, ended) = mpsc::channel();
    let (program, bench) = (program.clone(), bench.clone());
    std::thread::spawn(move || {
        let seen = bench[nth].rt.block_on(run(&program));
        let _ = done.send(check(&program, &seen));
    });
    match ended.recv_timeout(Duration::from_secs(10)) {
        Ok(Ok(tally)) => Tried::Right(tally),
        Ok(Err(text)) => Tried::Wrong(text),
        Err(mpsc::RecvTimeoutError::Timeout) => Tried::Hangs,
        Err(mpsc::RecvTimeoutError::Disconnected) => Tried::Wrong("panicked".to_owned()),
    }
}

/// Makes a program smaller for as long as it still goes wrong, and shows it.
fn explain(mut program: Program, first: String, bench: &Arc<Vec<Bench>>, nth: usize) -> String {
    let hangs = first == HANGS;
    let tries = if hangs { 1 } else { 30 };
    let mut text = first;
    let mut budget = 3000;
    'smaller: loop {
        for candidate in program.smaller() {
            for _ in 0..tries {
                budget -= 1;
                if budget == 0 {
                    break 'smaller;
                }
                let wrong = match try_once(&candidate, bench, nth) {
                    Tried::Right(_) => None,
                    Tried::Wrong(wrong) => Some(wrong),
                    Tried::Hangs => Some(HANGS.to_owned()),
                };
                if let Some(wrong) = wrong {
                    (program, text) = (candidate, wrong);
                    continue 'smaller;
                }
                if hangs && budget < 2990 {
                    break 'smaller; // Each of them would take its time.
                }
            }
        }
        break;
    }
    format!("{text}\non {} workers:\n{program}", bench[nth].workers)
}

const HANGS: &str = "it has not ended after 10 s";

#[test]
fn random_programs_give_what_they_give_without_their_spawns() {
    let count = number("DAGGER_PROGRAMS", 1200);
    let first = number("DAGGER_SEED", 1);
    let benches = Arc::new(benches());
    let (at, next) = mpsc::channel::<Result<usize, (usize, String)>>();
    let size = |seed: usize| 2 + seed % 13;
    let runner = benches.clone();
    let runs = std::thread::spawn(move || {
        let mut tally = Tally::default();
        for seed in first..first + count {
            let _ = at.send(Ok(seed));
            let program = program(seed as u64, size(seed));
            let seen = runner[seed % runner.len()].rt.block_on(run(&program));
            match check(&program, &seen) {
                Ok(own) => tally.add(own),
                Err(text) => {
                    let _ = at.send(Err((seed, text)));
                    return tally;
                }
            }
        }
        tally
    });
    let mut last = first;
    loop {
        let (seed, text) = match next.recv_timeout(Duration::from_secs(10)) {
            Ok(Ok(seed)) => {
                last = seed;
                continue;
            }
            Ok(Err(wrong)) => wrong,
            Err(mpsc::RecvTimeoutError::Timeout) => (last, HANGS.to_owned()),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        };
        let program = program(seed as u64, size(seed));
        let original = program.to_string();
        let shown = explain(program, text.clone(), &benches, seed % benches.len());
        panic!("seed {seed}: {text}\n\nmade smaller: {shown}\n\nwhole:\n{original}");
    }
    match runs.join() {
        Ok(tally) => println!("{tally:?}"),
        Err(payload) => {
            eprintln!("seed {last}: panicked\n{}", program(last as u64, size(last)));
            std::panic::resume_unwind(payload)
        }
    }
}
