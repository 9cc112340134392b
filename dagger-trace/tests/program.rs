//! The program `dagger-trace`, as a user runs it.

use dagger_core::record::{End, Lane, Log, Name, Record, What};
use dagger_trace::Trace;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::UNIX_EPOCH;

fn run(args: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dagger-trace")).args(args).output().expect("it starts")
}

/// A saved trace of one task that ran for so long.
fn saved(file: &str, nanos: u64) -> PathBuf {
    let spawn = What::Spawn { task: 1, parent: 0, name: Name::Callee("double"), site: Location::caller() };
    let records =
        [(0, spawn), (10, What::Start { task: 1 }), (10 + nanos, What::End { task: 1, end: End::Done })];
    let records = records.into_iter().map(|(at, what)| Record { at, what }).collect();
    let lanes = vec![Lane { name: "worker 0".into(), worker: Some(0), records }];
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
    Trace::from_log(&Log { began: UNIX_EPOCH, nanos: 10_000, lanes, lost: 0 })
        .save(&path)
        .expect("the folder is there");
    path
}

#[test]
fn each_command_does_what_the_help_says() {
    let (before, after) = (saved("before.trace", 1000), saved("after.trace", 3000));
    let text = |output: Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let help = text(run(&["--help".as_ref()]));
    for command in ["describe FILE", "chrome FILE OUT", "diff BEFORE AFTER"] {
        assert!(help.contains(command), "{command}");
    }
    let page = text(run(&["describe".as_ref(), &before]));
    assert!(page.starts_with("1 task in 10.0 µs on 1 worker: 1 done\n") && page.contains("double"), "{page}");
    let by_category = text(run(&[
        "describe".as_ref(),
        "--category".as_ref(),
        "sums=^sum".as_ref(),
        &before,
        "--category".as_ref(),
        "the rest=.".as_ref(),
    ]));
    assert!(
        by_category.contains("run time by category") && by_category.contains("\nthe rest "),
        "{by_category}"
    );
    assert!(!by_category.contains("double"), "{by_category}");
    let diff = text(run(&["diff".as_ref(), &before, &after]));
    assert!(diff.lines().nth(1).is_some_and(|line| line.ends_with("3.00")), "{diff}");
    let out = before.with_extension("json");
    assert_eq!(text(run(&["chrome".as_ref(), &before, &out])), "");
    assert_eq!(std::fs::read_to_string(out).unwrap(), Trace::load(before).unwrap().to_chrome());
}

#[test]
fn what_is_wrong_is_said_and_told_by_the_exit_status() {
    let trace = saved("fine.trace", 1000);
    let cut = trace.with_file_name("cut.trace");
    std::fs::write(&cut, &std::fs::read(&trace).unwrap()[..30]).unwrap();
    let nowhere = Path::new("/nowhere/at/all");
    let cases: [(&[&Path], i32, &str); 11] = [
        (&[], 2, "a command is missing"),
        (&["fly".as_ref()], 2, "no command fly"),
        (&["describe".as_ref()], 2, "describe takes one file"),
        (&["describe".as_ref(), &trace, "--category".as_ref()], 2, "--category takes LABEL=REGEX"),
        (
            &["describe".as_ref(), &trace, "--category".as_ref(), "solve".as_ref()],
            2,
            "LABEL=REGEX, found \"solve\"",
        ),
        (
            &["describe".as_ref(), &trace, "--category".as_ref(), "a=(".as_ref()],
            2,
            "the pattern \"(\" of a: ",
        ),
        (&["describe".as_ref(), "--category".as_ref(), "a=b".as_ref()], 2, "describe takes one file"),
        (&["diff".as_ref(), &trace], 2, "diff takes two files"),
        (&["describe".as_ref(), nowhere], 1, "/nowhere/at/all: "),
        (&["describe".as_ref(), &cut], 1, "cut.trace: not a trace that can be read: at byte 30, "),
        (&["chrome".as_ref(), &trace, "out.png".as_ref()], 1, "out.png: unknown suffix; supported: .json"),
    ];
    for (args, status, says) in cases {
        let output = run(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {error}");
        assert!(error.starts_with("dagger-trace: ") && error.contains(says), "{args:?}: {error}");
    }
}
