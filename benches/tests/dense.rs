//! The program `dense` runs and says what it promises.

use serde_json::Value;
use std::process::Command;

fn dense(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_dense")).args(arguments).output().expect("the program starts")
}

#[test]
fn every_sample_is_a_line_of_json() {
    let output = dense(&["--json", "--sizes", "60,33", "--threads", "1,2", "--tile", "16", "--samples", "2"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ours: Vec<&Value> = rows.iter().filter(|row| row["peer"] == "dagger").collect();
    assert_eq!(rows.len(), if cfg!(feature = "faer") { 2 * ours.len() } else { ours.len() });
    let mut expected = Vec::new();
    for threads in [1, 2] {
        for bench in ["cholesky", "matmul"] {
            expected.extend([33, 60].into_iter().flat_map(|n| [0, 1].map(|rep| (threads, bench, n, rep))));
        }
    }
    let seen = ours.iter().map(|row| {
        let number = |key: &str| row["params"][key].as_u64().unwrap();
        assert_eq!((row["unit"].as_str(), number("tile")), (Some("GFLOP/s"), 16));
        assert!(row["value"].as_f64().unwrap() > 0.0);
        (number("threads"), row["bench"].as_str().unwrap(), number("n"), number("rep"))
    });
    assert_eq!(seen.collect::<Vec<_>>(), expected);
}

#[test]
fn without_peers_there_is_a_table_of_ours() {
    let output =
        dense(&["--sizes", "50", "--samples", "1", "--only", "cholesky", "--peers", "no/such/directory"]);
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(!lines.is_empty() && lines.lines().all(|line| line.starts_with('{')), "{lines}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("| cholesky n=50 threads="), "{text}");
    assert!(text.contains("no peers of no/such/directory"));
}

#[test]
fn where_the_time_goes_is_described() {
    let output =
        dense(&["--describe", "--sizes", "96", "--tile", "32", "--only", "cholesky", "--threads", "2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("cholesky of order 96 in tiles of 32") && text.contains("potrf"), "{text}");
}

#[test]
fn a_wrong_argument_is_refused_with_the_usage() {
    let output = dense(&["--fast"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: dense"));
}
