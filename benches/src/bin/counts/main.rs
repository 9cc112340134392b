//! A loop of tasks to count instructions of, under `valgrind --tool=callgrind` (see `benches/counts.sh`): `counts CASE N`.
//!
//! One worker does everything: the loop is a task of its own, so that spawning, running and completing are all on its thread.
//! Two runs with different `N` have start and end in common; their difference is what the tasks cost.

use dagger_async::prelude::*;
use dagger_async::spawn;
use std::process::ExitCode;

const CASES: [(&str, &str); 10] = [
    ("spawn", "spawned without data, its handle dropped"),
    ("named", "the same with a name"),
    ("priority", "the same with one of three priorities"),
    ("options", "the same in a `with_options` with a name"),
    ("await", "spawned and awaited, one by one"),
    ("chain", "the one before as argument"),
    ("write", "one access, to the same chunk"),
    ("random", "three accesses, In, In, InOut, to 64 chunks"),
    ("replay", "the same by the graph of a plan, in runs of 1000"),
    ("frozen", "the same frozen"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parsed = match arguments.as_slice() {
        [case, count] => count.parse().ok().map(|count: u64| (case.as_str(), count)),
        _ => None,
    };
    let Some((case, count)) = parsed.filter(|(case, _)| CASES.iter().any(|(name, _)| name == case)) else {
        eprintln!("usage: counts CASE N");
        CASES.iter().for_each(|(name, what)| eprintln!("  {name:8} {what}"));
        return ExitCode::from(2);
    };
    let runtime = Runtime::builder().threads(1).pin(false).build().expect("the system gives us a thread");
    let case = case.to_owned();
    let done = runtime.block_on(async move { spawn(async move { run(&case, count).await }).await });
    match done.and_then(|done| done) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn nothing() {}

fn increment(x: &mut u64) {
    *x += 1;
}

fn update(a: &u64, b: &u64, x: &mut u64) {
    *x = x.wrapping_add(a ^ b);
}

async fn run(case: &str, count: u64) -> dagger_async::Result<()> {
    match case {
        "spawn" => {
            datadeps(async {
                for n in 0..count {
                    now_and_then(n).await;
                    spawn!(nothing());
                }
            })
            .await
        }
        "named" => {
            datadeps(async {
                for n in 0..count {
                    now_and_then(n).await;
                    spawn!(nothing(); name = "a name");
                }
            })
            .await
        }
        "priority" => {
            datadeps(async {
                for n in 0..count {
                    now_and_then(n).await;
                    spawn!(nothing(); priority = n as i32 % 3);
                }
            })
            .await
        }
        "options" => {
            with_options(Options::new().name("a name"), async {
                datadeps(async {
                    for n in 0..count {
                        now_and_then(n).await;
                        spawn!(nothing());
                    }
                })
                .await
            })
            .await
        }
        "await" => {
            for _ in 0..count {
                spawn!(nothing()).await?;
            }
            Ok(())
        }
        "chain" => {
            let first = spawn!((|| 1u64)());
            (1..count).fold(first, |before, _| spawn!((|x: u64| x + 1)(before))).await?;
            Ok(())
        }
        "write" => {
            let chunk = Chunk::new(0u64);
            datadeps(async {
                for n in 0..count {
                    now_and_then(n).await;
                    spawn!(increment(InOut(&chunk)));
                }
            })
            .await
        }
        "replay" => {
            let (chunks, plan) = (chunks(), Plan::new());
            for _ in 0..count / RUN {
                plan.run(random(&chunks, RUN)).await?;
            }
            Ok(())
        }
        "frozen" => {
            let chunks = chunks();
            let ((), frozen) = Frozen::record(random(&chunks, RUN)).await?;
            for _ in 0..count / RUN {
                frozen.run().await?;
            }
            Ok(())
        }
        _ => datadeps(random(&chunks(), count)).await,
    }
}

/// Tasks in one run of a plan, or of what is frozen.
const RUN: u64 = 1000;

fn chunks() -> Vec<Chunk<u64>> {
    (0..64).map(Chunk::new).collect()
}

async fn random(chunks: &[Chunk<u64>], count: u64) {
    for n in 0..count {
        now_and_then(n).await;
        let (a, b, c) = (n % 64, (n * 7 + 1) % 64, (n * 13 + 3) % 64);
        let [a, b, c] = distinct([a as usize, b as usize, c as usize]);
        spawn!(update(In(&chunks[a]), In(&chunks[b]), InOut(&chunks[c])); repeatable = true);
    }
}

/// Three different indices below 64.
fn distinct([a, mut b, mut c]: [usize; 3]) -> [usize; 3] {
    while b == a {
        b = (b + 1) % 64;
    }
    while c == a || c == b {
        c = (c + 1) % 64;
    }
    [a, b, c]
}

/// So that no more tasks than the window allows are unfinished at once.
async fn now_and_then(n: u64) {
    if n.is_multiple_of(64) {
        room().await;
    }
}
