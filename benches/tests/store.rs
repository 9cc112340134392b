//! The program `store` runs and says what it promises.

use serde_json::Value;
use std::process::Command;

fn store(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_store")).args(arguments).output().expect("the program starts")
}

#[test]
fn every_sample_is_a_line_of_json_and_nothing_stays() {
    let folder = std::env::temp_dir().join(format!("dagger-store-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let dir = folder.to_str().unwrap();
    let output = store(&[
        "--json",
        "--dir",
        dir,
        "--mib",
        "24",
        "--object-mib",
        "1",
        "--limit-mib",
        "8",
        "--samples",
        "2",
        "--threads",
        "2",
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.iter().all(|row| row["value"].as_f64().unwrap() > 0.0), "{text}");
    let count = |peer: &str, bench: &str| {
        rows.iter().filter(|row| row["peer"] == peer && row["bench"] == bench).count()
    };
    for bench in ["spill", "reload"] {
        // Two ways to flush, two samples.
        assert_eq!((count("dagger", bench), count("files", bench)), (4, 4), "{text}");
    }
    assert_eq!((count("dagger", "cholesky"), count("in-core", "cholesky")), (2, 2), "{text}");
    for bench in ["cholesky-written", "cholesky-read", "cholesky-disk"] {
        assert_eq!((count("dagger", bench), count("in-core", bench)), (2, 0), "{text}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_wrong_argument_is_refused_with_the_usage() {
    let output = store(&["--fast"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: store"));
    let output = store(&["--dir", "/dev/null/nowhere", "--mib", "16", "--object-mib", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/dev/null/nowhere"));
}
