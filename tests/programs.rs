//! Random programs against the same programs without their spawns.
//!
//! ```text
//!   seed ─▶ program ─┬─▶ run it: 1, 2, 4 workers ─▶ what was seen ─┐
//!                    └─▶ one task after the other ───────────────┴─▶ equal? else: a smaller program, printed
//! ```
//! `DAGGER_PROGRAMS=100000` runs so many; `DAGGER_SEED=7` begins with that one, `DAGGER_SHOW=1` shows each before it runs.

mod programs {
    pub mod call;
    pub mod oracle;
    mod order;
    pub mod region;
    pub mod run;
    mod threads;
}

use dagger_async::Runtime;
use programs::oracle::{Tally, check};
use programs::run::{Program, program, run, run_by_plan};
use std::sync::mpsc;
use std::time::{Duration, Instant};

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Workers and window of the runtimes to try programs on.
const BENCHES: [(usize, usize); 4] = [(1, 4096), (2, 4096), (4, 4096), (2, 3)];

fn bench(nth: usize) -> Runtime {
    let (workers, window) = BENCHES[nth];
    Runtime::builder().threads(workers).pin(false).window(window).build().unwrap()
}

enum Tried {
    Right,
    Wrong(String),
    Hangs,
}

/// Runs a program on a thread of its own, which is left behind if it hangs.
fn try_once(program: &Program, nth: usize, times: usize) -> Tried {
    let (done, ended) = mpsc::channel();
    let program = program.clone();
    std::thread::spawn(move || {
        let bench = bench(nth);
        let tried = (0..times).try_for_each(|_| {
            let seen = bench.block_on(run(&program));
            check(&program, &seen).map(drop)
        });
        let _ = done.send(tried);
    });
    match ended.recv_timeout(Duration::from_secs(3)) {
        Ok(Ok(())) => Tried::Right,
        Ok(Err(text)) => Tried::Wrong(text),
        Err(mpsc::RecvTimeoutError::Timeout) => Tried::Hangs, // With its runtime: the next one is fresh.
        Err(mpsc::RecvTimeoutError::Disconnected) => Tried::Wrong("panicked".to_owned()),
    }
}

/// Makes a program smaller for as long as it still goes wrong, and shows it.
fn explain(mut program: Program, first: String, nth: usize) -> String {
    let mut text = first;
    let until = Instant::now() + Duration::from_secs(40);
    'smaller: loop {
        for candidate in program.smaller() {
            if Instant::now() > until {
                break 'smaller;
            }
            let wrong = match try_once(&candidate, nth, 40) {
                Tried::Right => continue,
                Tried::Wrong(wrong) => wrong,
                Tried::Hangs => HANGS.to_owned(),
            };
            (program, text) = (candidate, wrong);
            continue 'smaller;
        }
        break;
    }
    format!("{text}\non {} workers:\n{program}", BENCHES[nth].0)
}

const HANGS: &str = "it has not ended";

#[test]
fn random_programs_give_what_they_give_without_their_spawns() {
    let count = number("DAGGER_PROGRAMS", 3000);
    let first = number("DAGGER_SEED", 1);
    let shows = number("DAGGER_SHOW", 0) != 0;
    let (at, next) = mpsc::channel::<Result<usize, (usize, String)>>();
    let size = |seed: usize| 2 + seed % 13;
    let runs = std::thread::spawn(move || {
        let mut tally = Tally::default();
        let benches: [Runtime; 4] = std::array::from_fn(bench);
        for seed in first..first + count {
            let _ = at.send(Ok(seed));
            let program = program(seed as u64, size(seed));
            if shows {
                println!("seed {seed}: {program}");
            }
            let seen = benches[seed % benches.len()].block_on(run(&program));
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
        let shown = explain(program, text.clone(), seed % BENCHES.len());
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

#[test]
fn random_programs_give_by_a_plan_what_they_give_without_their_spawns() {
    let (count, first) = (number("DAGGER_PROGRAMS", 1500), number("DAGGER_SEED", 1));
    let size = |seed: usize| 2 + seed % 13;
    let (at, next) = mpsc::channel::<usize>();
    let runs = std::thread::spawn(move || {
        let benches: [Runtime; 4] = std::array::from_fn(bench);
        let mut all = 0;
        for seed in first..first + count {
            let _ = at.send(seed);
            let program = program(seed as u64, size(seed));
            let (seen, replayed) =
                benches[seed % benches.len()].block_on(run_by_plan(&program, 3, seed.is_multiple_of(3)));
            all += replayed;
            for (nth, (program, seen)) in seen.iter().enumerate() {
                if let Err(text) = check(program, seen) {
                    panic!("seed {seed}, run {nth}: {text}\n{program}");
                }
            }
        }
        all
    });
    let mut last = first;
    loop {
        match next.recv_timeout(Duration::from_secs(10)) {
            Ok(seed) => last = seed,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("seed {last}: {HANGS}\n{}", program(last as u64, size(last)));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    match runs.join() {
        Ok(replayed) => {
            assert!(count < 100 || replayed as usize > count / 2, "{replayed} of {count} programs")
        }
        Err(payload) => std::panic::resume_unwind(payload),
    }
}
