//! Random programs whose data does not fit into memory, on stores with bad days, against the same programs without their spawns.
//!
//! ```text
//!   seed ─▶ case ─▶ program ─┬─▶ run it: budget, faults, workers ─▶ what was seen ─┐
//!                            └─▶ one task after the other ───────────────────────┴─▶ equal, or the error that a fault
//!                                                                                    deserves? else: a smaller one, printed
//! ```
//! `DAGGER_PROGRAMS=100000` runs so many; `DAGGER_SEED=7` begins with that one, `DAGGER_SHOW=1` names each
//! before it runs.

mod store_programs {
    pub mod call;
    pub mod oracle;
    pub mod program;
    pub mod run;
}

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use std::cell::{Cell, RefCell};
use std::sync::mpsc;
use std::time::Duration;
use store_programs::oracle::{Tally, check};
use store_programs::program::{Case, case, program};
use store_programs::run::run;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs a case on a thread of its own, which is left behind if it hangs.
fn try_once(case: &Case, patience: Duration) -> Result<Tally, String> {
    let (done, ended) = mpsc::channel();
    let program = program(case);
    std::thread::spawn(move || {
        let mut tally = Tally::default();
        let tried = run(&program).and_then(|run| check(&program, &run, &mut tally));
        let _ = done.send(tried.map(|()| tally));
    });
    match ended.recv_timeout(patience) {
        Ok(tried) => tried,
        Err(mpsc::RecvTimeoutError::Timeout) => Err("it has not ended".to_owned()),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("panicked".to_owned()),
    }
}

#[test]
fn random_programs_beyond_memory_give_what_they_give_without_their_spawns() {
    let (count, first) = (number("DAGGER_PROGRAMS", 150), number("DAGGER_SEED", 1));
    let tally = RefCell::new(Tally::default());
    let shows = number("DAGGER_SHOW", 0) != 0;
    for seed in first..first + count {
        if shows {
            eprintln!("seed {seed}");
        }
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let config = Config {
            cases: 1,
            failure_persistence: None,
            max_shrink_iters: 1000,
            max_shrink_time: 60_000,
            ..Config::default()
        };
        // Once it has gone wrong, smaller ones get more chances to do so.
        let wrong = Cell::new(false);
        let tried = TestRunner::new_with_rng(config, rng).run(&case(), |case| {
            let (times, seconds) = if wrong.get() { (20, 2) } else { (1, 20) };
            for _ in 0..times {
                match try_once(&case, Duration::from_secs(seconds)) {
                    Ok(own) if !wrong.get() => tally.borrow_mut().add(own),
                    Ok(_) => {}
                    Err(text) => {
                        if !wrong.replace(true) {
                            eprintln!("seed {seed}: {text}\n{}", program(&case));
                        }
                        return Err(TestCaseError::fail(text));
                    }
                }
            }
            Ok(())
        });
        match tried {
            Ok(()) => {}
            Err(TestError::Fail(reason, case)) => {
                panic!("seed {seed}, made smaller: {reason}\n{}", program(&case))
            }
            Err(TestError::Abort(reason)) => panic!("seed {seed}: {reason}"),
        }
    }
    println!("{:?}", tally.into_inner());
}
