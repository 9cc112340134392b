//! The program as a whole: from arguments to the text it prints, on real threads.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::Failure;

fn run(arguments: &[&str]) -> Result<String, Failure> {
    crate::run(arguments.iter().map(OsString::from))
}

/// A file of this test run, deleted at the end of the test.
struct Csv(PathBuf);

impl Csv {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("quickstart-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Csv {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_record_is_found_and_the_graph_is_the_one_that_ran() {
    let text = run(&[]).unwrap();
    let graph = "\
read ─▶ parse ─▶ 44 × year ─┬─▶ 6 × decade
                            └─▶ means ─┬─▶ fastest growth
                                       ├─▶ linear fit
                                       └─▶ quadratic fit
";
    assert!(text.ends_with(graph), "{text}");
    // 1 + 1 + 44 + 6 + 1 + 3 tasks; 1 + 44 + 44 + 44 + 3 edges.
    assert!(text.contains(" ms: 56 tasks, 136 edges\n"), "{text}");
    assert!(text.contains("fastest growth  1998, +2.85 ppm over the mean of 1997\n"), "{text}");
}

#[test]
fn every_number_of_threads_prints_the_same() {
    let figures = |threads| {
        let json = run(&["--json", "--threads", threads]).unwrap();
        json.split_once(",\"seconds\":").unwrap().0.to_owned()
    };
    let alone = figures("1");
    assert!(alone.ends_with("\"tasks\":56"), "{alone}");
    assert_eq!(figures("2"), alone);
    assert_eq!(figures("7"), alone);
}

#[test]
fn a_short_record_has_a_smaller_graph() {
    let csv = Csv::new("short.csv", b"date,co2\n19590103,315.0\n19600102,316.0\n");
    let text = run(&["--csv", csv.0.to_str().unwrap()]).unwrap();
    assert!(text.contains("read ─▶ parse ─▶ 2 × year ─┬─▶ 2 × decade\n"), "{text}");
}

#[test]
fn bad_input_fails_with_its_place() {
    let cases: [(&str, &[u8], &str); 5] = [
        ("empty", b"", "the file is empty"),
        ("row", b"date,co2\n19590103\n", "line 2: a row must be a date and a value"),
        ("date", b"date,co2\n19590103,315\n19990230,368\n", "line 3: the date 19990230 does not exist"),
        ("nan", b"date,co2\n19590103,NaN\n", "line 2: the value \"NaN\" is not finite"),
        ("latin", b"date,co2\n19590103,\xb5\n", "line 2: not UTF-8 text"),
    ];
    for (name, bytes, expected) in cases {
        let csv = Csv::new(name, bytes);
        let failure = run(&["--csv", csv.0.to_str().unwrap()]).unwrap_err();
        let message = failure.to_string();
        assert!(message.starts_with(&format!("{}: {expected}", csv.0.display())), "{message}");
        assert_eq!(failure.status(), 1);
    }
}

#[test]
fn a_missing_file_and_a_folder_are_named() {
    let folder = std::env::temp_dir();
    let missing = folder.join("quickstart-no-such-file.csv");
    for path in [missing, folder] {
        let failure = run(&["--csv", path.to_str().unwrap()]).unwrap_err();
        let message = failure.to_string();
        assert!(message.starts_with(&format!("{}: cannot be read: ", path.display())), "{message}");
        assert_eq!(failure.status(), 1);
    }
}

#[test]
fn usage_is_status_two() {
    for arguments in [&["--threads", "0"][..], &["--yaml"], &["--csv"]] {
        let failure = run(arguments).unwrap_err();
        assert_eq!(failure.status(), 2);
        assert!(failure.to_string().ends_with("; --help lists the options"), "{failure}");
    }
    assert!(run(&["--help"]).unwrap().contains("--threads N"));
}
