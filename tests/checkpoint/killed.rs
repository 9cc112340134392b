//! A run that is killed, and the next one.

use crate::support::Folder;
use dagger_async::prelude::*;
use dagger_tests::watched;
use object_store::local::LocalFileSystem;
use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const TASKS: usize = 40;
/// Says to the test that it is the program that is killed, and where it works.
const INSIDE: &str = "DAGGER_TESTS_KILLED";
const NAME: &str = "killed::only_what_is_missing_runs_after_a_kill";

/// Waits for leave from the other side of the pipe, says that it has run, gives its value.
fn work(i: usize) -> Vec<u64> {
    let mut leave = [0];
    std::io::stdin().read_exact(&mut leave).unwrap();
    // One write: the line is there whole.
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\nran {i}\n").as_bytes()).unwrap();
    out.flush().unwrap();
    value(i)
}

/// Of different sizes, so that some are written when others are.
fn value(i: usize) -> Vec<u64> {
    (0..(i as u64 % 5) * 40_000 + 10).map(|k| i as u64 * 1_000_003 + k).collect()
}

fn program(folder: &Path) {
    let store = LocalFileSystem::new_with_prefix(folder).unwrap();
    let rt = Runtime::builder().threads(4).pin(false).checkpoint_to(store).build().unwrap();
    rt.block_on(async {
        let parts = datadeps(async {
            let spawn_one = |i: usize| spawn!(work(i); checkpoint = format!("part/{i}"));
            (0..TASKS).map(spawn_one).collect::<Vec<_>>()
        });
        for (i, part) in wait_all(parts.await.unwrap()).await.into_iter().enumerate() {
            assert_eq!(part.unwrap(), value(i));
        }
    });
    let counts = rt.checkpoints();
    println!("\nall right: {} restored, {} saved, {} failed", counts.restored, counts.saved, counts.failed);
}

struct Run {
    child: Child,
    lines: Box<dyn Iterator<Item = String>>,
}

fn start(folder: &Path) -> Run {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", NAME, "--nocapture"]).env(INSIDE, folder);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    Run { child, lines: Box::new(lines) }
}

/// The task that a line tells of.
fn ran(line: &str) -> Option<usize> {
    line.strip_prefix("ran ")?.parse().ok()
}

fn finish(folder: &Path) -> (BTreeSet<usize>, String) {
    let Run { mut child, lines } = start(folder);
    child.stdin.take().unwrap().write_all(&[0; TASKS]).unwrap();
    let lines: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{lines:?}");
    let all: Vec<usize> = lines.iter().filter_map(|line| ran(line)).collect();
    let set: BTreeSet<usize> = all.iter().copied().collect();
    assert_eq!(set.len(), all.len(), "none runs twice");
    (set, lines.into_iter().find(|line| line.starts_with("all right")).unwrap())
}

/// The parts that are saved.
fn saved(folder: &Folder) -> BTreeSet<usize> {
    let number = |path: &str| path.strip_prefix("checkpoints/v/part/")?.strip_suffix(".ckpt")?.parse().ok();
    folder.files().iter().filter_map(|path| number(path)).collect()
}

#[test]
fn only_what_is_missing_runs_after_a_kill() {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return watched(move || program(Path::new(&folder)));
    }
    watched(|| {
        let mut partly = 0;
        for round in 0..3 {
            let folder = Folder::new();
            let dice = RandomState::new().hash_one(round) as usize;
            let leaves = 10 + dice % 25;
            let last_line = 10 + dice / 100 % (leaves - 9);
            println!("round {round}: {leaves} may run, killed after {last_line}");
            let mut run = start(folder.path());
            // It stays open, so that the others wait, and the program goes on for as long as it is not killed.
            let mut leave = run.child.stdin.take().unwrap();
            leave.write_all(&vec![0; leaves]).unwrap();
            let mut first = BTreeSet::new();
            while first.len() < last_line {
                first.extend(ran(&run.lines.next().unwrap()));
            }
            run.child.kill().unwrap();
            assert!(!run.child.wait().unwrap().success());
            first.extend(run.lines.filter_map(|line| ran(&line)));
            let there = saved(&folder);
            assert!(there.is_subset(&first), "{there:?} of {first:?}");
            partly += usize::from(!there.is_empty() && there.len() < first.len());

            let (second, summary) = finish(folder.path());
            let missing: BTreeSet<usize> = (0..TASKS).filter(|i| !there.contains(i)).collect();
            assert_eq!(second, missing);
            let (restored, saved) = (there.len(), missing.len());
            assert_eq!(summary, format!("all right: {restored} restored, {saved} saved, 0 failed"));
            // What the killed one has left half written is gone.
            assert_eq!(folder.files().len(), TASKS, "{:?}", folder.files());

            let (third, _) = finish(folder.path());
            assert!(third.is_empty(), "{third:?}");
        }
        println!("{partly} of 3 kills came while some were not saved");
    });
}
