//! The program `overhead` runs and says what it promises.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

const BENCHES: [&str; 4] = ["independent", "chain", "fan", "one_by_one"];
const KEYS: [&str; 8] = ["bench", "from", "max_ns", "median_ns", "min_ns", "peer", "pingpong_ns", "threads"];

#[test]
fn every_row_is_a_line_of_json() {
    let output = Command::new(env!("CARGO_BIN_EXE_overhead"))
        .args(["--quick", "--json", "--reps", "3"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut rows = BTreeSet::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let mut keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, KEYS, "{line}");
        let ns = |key: &str| row[key].as_f64().unwrap();
        assert!(
            0.0 < ns("min_ns") && ns("min_ns") <= ns("median_ns") && ns("median_ns") <= ns("max_ns"),
            "{line}"
        );
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        let fresh =
            rows.insert((text("bench"), text("from"), row["threads"].as_u64().unwrap(), text("peer")));
        assert!(fresh, "twice: {line}");
    }
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    for bench in BENCHES {
        for from in ["inside", "outside"] {
            for threads in [1, cpus] {
                for peer in ["dagger", "tokio", "async-executor", "rayon"] {
                    let row = (bench.to_owned(), from.to_owned(), threads, peer.to_owned());
                    let expressible = (peer, bench) != ("rayon", "chain");
                    assert_eq!(rows.contains(&row), expressible, "{row:?}");
                }
            }
        }
    }
}

#[test]
fn a_wrong_argument_is_refused_with_the_usage() {
    let output = Command::new(env!("CARGO_BIN_EXE_overhead")).arg("--fast").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: overhead"));
}
