//! The program `taskbench` runs and says what it promises.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// Small sizes of everything.
const NAMES: &str = "spawn:500,chain:300,fanout:20:2,random:300:10,cholesky_dag:6,stencil:4:10,metg:4:10,\
    trivial:4:10,no_comm:4:10,stencil_1d_periodic:4:10,dom:4:10,tree:4:10,fft:4:10,all_to_all:4:10,nearest:8:10,\
    spread:16:10,random_nearest:8:10";

#[test]
fn every_sample_is_a_line_of_json() {
    let output = Command::new(env!("CARGO_BIN_EXE_taskbench"))
        .args(["--quick", "--json", "--samples", "2", "--threads", "1,2", "--only", NAMES])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut seen = BTreeSet::new();
    let cpus = std::thread::available_parallelism().unwrap().get();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            BTreeSet::from_iter(keys),
            BTreeSet::from(["peer", "bench", "params", "value", "unit"]),
            "{line}"
        );
        let (params, bench) = (&row["params"], row["bench"].as_str().unwrap().to_owned());
        assert_eq!(row["peer"], "dagger");
        assert_eq!(row["unit"], if bench.starts_with("metg") { "us" } else { "ns/task" });
        assert!(
            row["value"].is_null() && bench.starts_with("metg") || row["value"].as_f64().unwrap() > 0.0,
            "{line}"
        );
        if cpus > 1 && cfg!(target_os = "linux") {
            assert!(params["pingpong_ns"].as_f64().unwrap() >= params["pingpong_least_ns"].as_f64().unwrap());
            assert!(["near", "far", "mixed"].contains(&params["state"].as_str().unwrap()), "{line}");
        }
        let of = |key: &str| params[key].as_u64().unwrap();
        let from = params["from"].as_str().unwrap().to_owned();
        let mode = params.get("mode").map_or("", |mode| mode.as_str().unwrap()).to_owned();
        assert!(seen.insert((bench, mode, from, of("threads"), of("rep"))), "twice: {line}");
    }
    let mut benches: Vec<&str> =
        NAMES.split(',').map(|name| name.trim().split(':').next().unwrap()).collect();
    benches.retain(|&bench| bench != "metg");
    benches.extend(["metg50", "metg80"]);
    for bench in benches {
        for (threads, rep) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            for (from, mode) in ["inside", "outside"]
                .into_iter()
                .flat_map(|from| ["", "rerun", "frozen"].map(|mode| (from, mode)))
            {
                let row = (bench.to_owned(), mode.to_owned(), from.to_owned(), threads, rep);
                // What accesses nothing has no graph, and is measured from both sides.
                let is_there = if bench == "spawn" { mode.is_empty() } else { from == "inside" };
                assert_eq!(seen.contains(&row), is_there, "{row:?}");
            }
        }
    }
}

#[test]
fn without_json_a_table_follows_beside_the_lines() {
    let output = Command::new(env!("CARGO_BIN_EXE_taskbench"))
        .args(["--quick", "--samples", "1", "--threads", "1", "--from", "outside", "chain:50"])
        .args(["--peers", "no/such/directory"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{lines}");
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("| chain n=50 threads=1 |") && text.contains("| dagger outside"), "{text}");
    assert!(text.contains("no peers of no/such/directory"));
}

#[test]
fn a_wrong_argument_is_refused_with_the_usage() {
    let output = Command::new(env!("CARGO_BIN_EXE_taskbench")).arg("--fast").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: taskbench"));
}
