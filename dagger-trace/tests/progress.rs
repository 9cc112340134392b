//! A progress bar where nobody looks: not a byte.
#![cfg(feature = "progress")]

use dagger_async::prelude::*;
use dagger_trace::prelude::*;
use std::process::Command;

/// The program that the other test runs.
#[test]
#[ignore = "run by the test below"]
fn a_program_with_a_bar() {
    let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
    let block = datadeps(async { (0..100).for_each(|_| drop(spawn!((|| ())()))) });
    rt.block_on(block.with_progress("quiet")).unwrap();
    println!("it has run");
}

#[test]
fn standard_error_stays_empty_where_it_is_no_terminal() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_program_with_a_bar", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("it has run"));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
