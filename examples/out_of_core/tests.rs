//! The program as a whole, on real threads and files.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::Failure;

fn run(line: &str) -> Result<String, Failure> {
    crate::run(line.split_whitespace().map(OsString::from))
}

fn json(line: &str) -> Value {
    let text = run(&format!("{line} --json")).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn number(json: &Value, name: &str) -> u64 {
    json[name].as_u64().unwrap_or_else(|| panic!("{name} of {json}"))
}

/// A folder of one test, deleted at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("out-of-core-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn four_times_the_memory_gives_the_bits_that_memory_gives() {
    let folder = Folder::new("bits");
    for threads in [1, 2, 4] {
        let line = format!("--threads {threads} --spill {}", folder.0.display());
        let small = json(&format!("{line} --memory-limit 2MiB --tile 64"));
        let (bytes, limit) = (number(&small, "bytes"), number(&small, "memory_limit"));
        assert!((4.0..4.4).contains(&(bytes as f64 / limit as f64)), "{small}");
        assert!(number(&small, "peak_bytes") <= limit && number(&small, "over_budget") == 0, "{small}");
        // What is not in memory at the end was written, and what was written has gone through twice at least.
        assert!(number(&small, "spilled_bytes") >= bytes - limit, "{small}");
        assert!(number(&small, "reloaded_bytes") > number(&small, "least_bytes") / 4, "{small}");
        assert!(number(&small, "made_bytes") >= bytes, "{small}");
        let residual = small["scaled_residual"].as_f64().unwrap();
        assert!(residual > 0.0 && residual < 1.0 && small["residual"].as_f64().unwrap() < 1e-13, "{small}");

        let order = number(&small, "order");
        let large = json(&format!("{line} --memory-limit 64MiB --tile 64 --order {order}"));
        assert_eq!((number(&large, "spilled_bytes"), number(&large, "reloaded_bytes")), (0, 0), "{large}");
        for name in ["checksum", "bytes", "residual"] {
            assert_eq!(small[name], large[name], "{name}, {threads} threads");
        }
    }
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0, "nothing stays on the disk");
}

#[test]
fn every_policy_gives_the_same_factor() {
    let found = ["next-use", "lru", "mru"].map(|policy| {
        let json = json(&format!("--memory-limit 600KB --tile 32 --threads 2 --eviction {policy}"));
        assert_eq!(json["eviction"], policy);
        json["checksum"].clone()
    });
    assert!(found.iter().all(|checksum| *checksum == found[0]), "{found:?}");
}

#[test]
fn the_table_has_what_was_moved() {
    let text = run("--memory-limit 1MB --threads 2").unwrap();
    for part in [
        "A = L·Lᵀ of order",
        "2 threads; who leaves memory: next-use",
        "spilled",
        "GFLOP/s",
        "in units of n·ε",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_cannot_be_done_is_one_sentence_and_a_status() {
    let cases: [(&str, u8, &str); 5] = [
        ("--tile 0", 2, "--tile needs a number from 1 on"),
        ("--memory-limit 1.5", 2, "--memory-limit needs a size such as 256MiB"),
        ("--yaml", 2, "unknown option"),
        (
            "--memory-limit 1MiB --tile 512 --threads 2",
            2,
            "--memory-limit of 1048576 B is too small: 2 threads",
        ),
        ("--order 100000 --tile 16", 2, "order 100000 in tiles of 16 would make"),
    ];
    for (line, status, expected) in cases {
        let failure = run(line).unwrap_err();
        let message = failure.to_string();
        assert!(message.starts_with(expected) && !message.contains('\n'), "{message}");
        assert_eq!(failure.status(), status, "{message}");
    }
    assert!(run("--help").unwrap().contains("--memory-limit SIZE"));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = Folder::new("no-folder");
    let file = folder.0.join("file");
    std::fs::write(&file, "").unwrap();
    let failure = run(&format!("--memory-limit 300KB --threads 1 --spill {}", file.display())).unwrap_err();
    assert_eq!(failure.status(), 1);
    let message = failure.to_string();
    assert!(message.contains(file.to_str().unwrap()), "{message}");
}

/// What the program run as another process says, and the most that it occupied by then, in bytes: as the system counts it.
#[cfg(target_os = "linux")]
fn measured(line: &str) -> (Value, u64) {
    /// Ends the process whatever happens to the test.
    struct Running(Child);
    impl Drop for Running {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            let _ = self.0.wait();
        }
    }
    let program = std::env::current_exe().unwrap();
    let child = Command::new(program)
        .args(["--exact", "tests::as_another_process", "--nocapture", "--include-ignored"])
        .env("OUT_OF_CORE", format!("--json {line}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = Running(child.unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let report = lines.find(|line| line.starts_with('{')).expect("it prints what it found");
    // It waits for its input to end.
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.0.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    // Let it end, and take what it still says.
    drop(child.0.stdin.take());
    lines.for_each(drop);
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap();
    (serde_json::from_str(&report).unwrap(), peak << 10)
}

/// The program of [`measured`].
#[test]
#[ignore = "a part of another test"]
fn as_another_process() {
    let Ok(line) = std::env::var("OUT_OF_CORE") else { return };
    println!("\n{}", run(&line).unwrap().trim_end());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_stays_within_the_limit_and_its_scratch() {
    const MIB: u64 = 1 << 20;
    /// What a process has besides: the program, stacks, the graph, the store's buffers.
    const BESIDES: u64 = 64 * MIB;
    /// What a kernel packs of its operands on each worker.
    const SCRATCH: u64 = 4 * MIB;
    let threads = 2;
    let line = format!("--threads {threads} --order 4016 --tile 176");
    let (small, peak) = measured(&format!("{line} --memory-limit 16MiB"));
    assert!(peak <= 16 * MIB + BESIDES + threads * SCRATCH, "{} KiB: {small}", peak >> 10);
    assert!(number(&small, "bytes") > 64 * MIB, "{small}");
    // In memory it takes the matrix: so what is measured above is worth something.
    let (large, peak) = measured(&format!("{line} --memory-limit 200MiB"));
    assert!(peak > number(&large, "bytes"), "{} KiB: {large}", peak >> 10);
    assert_eq!(small["checksum"], large["checksum"]);
}
