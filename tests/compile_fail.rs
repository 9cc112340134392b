//! Programs that must not compile, and what the compiler says of them; beside each, one that differs little and does.
//!
//! Each program is a file of a package of its own, in the folder that Cargo gives to tests, and is checked by Cargo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Checks `body` as the body of `async fn main`, after `items`. The messages of the compiler, if it fails.
fn check(name: &str, items: &str, body: &str) -> Result<(), String> {
    let package = package();
    let bin = package.join("src/bin").join(format!("{name}.rs"));
    let program = format!(
        "#![allow(unused)]\nuse dagger_async::prelude::*;\nuse std::rc::Rc;\n{items}\n\
         #[tokio::main]\nasync fn main() {{\n{body}\n}}\n"
    );
    std::fs::write(&bin, program).unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["check", "--quiet", "--offline", "--bin", name])
        .current_dir(&package)
        .env("CARGO_TARGET_DIR", package.join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(messages) }
}

/// The folder of the package, made once.
fn package() -> PathBuf {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    let made = PACKAGE.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let package = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
        let _ = std::fs::remove_dir_all(package.join("src"));
        std::fs::create_dir_all(package.join("src/bin")).unwrap();
        let manifest = format!(
            "[package]\nname = \"compile-fail\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
             dagger-async = {{ path = {:?} }}\ntokio = {{ version = \"1\", features = [\"macros\", \"rt-multi-thread\"] }}\n",
            workspace.join("dagger-async")
        );
        std::fs::write(package.join("Cargo.toml"), manifest).unwrap();
        std::fs::copy(workspace.join("Cargo.lock"), package.join("Cargo.lock")).unwrap();
        package
    });
    made.clone()
}

/// The program fails, with all of these phrases; the other one compiles.
#[track_caller]
fn refuses(name: &str, items: &str, wrong: &str, phrases: &[&str], right: &str) {
    let fine = check(&format!("{name}_right"), items, right);
    assert!(fine.is_ok(), "{name}: the correct program fails:\n{}", fine.unwrap_err());
    let Err(messages) = check(name, items, wrong) else { panic!("{name}: it compiles:\n{wrong}") };
    if std::env::var_os("DAGGER_TESTS_MESSAGES").is_some() {
        eprintln!("=== {name}: {}\n{messages}", wrong.trim());
    }
    for phrase in phrases {
        assert!(messages.contains(phrase), "{name}: no `{phrase}` in\n{messages}");
    }
}

const TAKES: &str = "
    struct Single(i32);
    fn single() -> Single { Single(1) }
    fn take(x: Single) -> i32 { x.0 }
    fn look(x: &Single) -> i32 { x.0 }
    fn inc(x: i32) -> i32 { x + 1 }
    fn len(x: &str) -> usize { x.len() }
    fn count(x: &String) -> usize { x.len() }
    fn of_rc(x: Rc<i32>) -> i32 { *x }
";

#[test]
fn a_handle_of_what_is_not_clone_is_not_clone() {
    let (wrong, right) =
        ("let t = spawn!(single()); let u = t.clone();", "let t = spawn!(inc(1)); let u = t.clone();");
    refuses("clone", TAKES, wrong, &["clone", "Single"], right);
}

#[test]
fn retries_need_arguments_that_are_clone() {
    let wrong = "spawn!(take(Single(1)); retries = 2);";
    let right = "spawn!(take(Single(1))); let t = spawn!(single()); spawn!(look(&t); retries = 2);";
    refuses("retries_argument", TAKES, wrong, &["Single", "Clone"], right);
    let wrong = "let t = spawn!(single()); spawn!(take(t); retries = 2);";
    refuses("retries_result", TAKES, wrong, &["Single", "Clone"], right);
}

#[test]
fn retries_need_a_callee_that_is_clone() {
    let wrong = "let s = Single(1); spawn!((move || take(s))(); retries = 2);";
    let right = "let s = Single(1); spawn!((move || take(s))());";
    refuses("retries_callee", TAKES, wrong, &["Clone"], right);
}

#[test]
fn arguments_are_send() {
    let right = "spawn!(inc(1));";
    refuses(
        "argument_not_send",
        TAKES,
        "spawn!(of_rc(Rc::new(1)));",
        &["Rc<i32>", "cannot be sent between threads safely"],
        right,
    );
    let wrong = "let r = Rc::new(1); spawn!((move || *r)());";
    refuses("capture_not_send", TAKES, wrong, &["Rc<i32>", "cannot be sent between threads safely"], right);
    let wrong = "let r = Rc::new(1); spawn(async move { *r });";
    refuses("future_not_send", TAKES, wrong, &["Rc<i32>", "be sent between threads safely"], right);
    let wrong = "spawn(async { let r = Rc::new(1); spawn!(inc(1)).await; drop(r); });";
    refuses("future_holds_not_send", TAKES, wrong, &["Rc<i32>", "future"], right);
}

#[test]
fn outputs_are_send_and_sync() {
    let right = "spawn!((|| 1)());";
    let wrong = "spawn!((|| std::cell::Cell::new(1i32))());";
    refuses(
        "output_not_sync",
        TAKES,
        wrong,
        &["Cell<i32>", "cannot be shared between threads safely"],
        right,
    );
    let wrong = "spawn!((|| Rc::new(1i32))());";
    refuses("output_not_send", TAKES, wrong, &["Rc<i32>", "between threads safely"], right);
    let wrong = "spawn(async { std::cell::Cell::new(1i32) });";
    refuses(
        "future_output_not_sync",
        TAKES,
        wrong,
        &["Cell<i32>", "cannot be shared between threads safely"],
        right,
    );
}

#[test]
fn borrowed_locals_are_no_arguments() {
    let right = "let s = String::from(\"x\"); spawn!(len(\"static\")); spawn!((|s: String| s.len())(s));";
    let wrong = "let s = String::from(\"x\"); spawn!(count(&s));";
    refuses("borrowed_argument", TAKES, wrong, &["`s` does not live long enough"], right);
    let wrong = "let s = String::from(\"x\"); spawn!((|| s.len())());";
    refuses("borrowed_capture", TAKES, wrong, &["closure may outlive", "move"], right);
    let wrong = "let s = String::from(\"x\"); spawn(async { s.len() });";
    refuses("borrowed_by_future", TAKES, wrong, &["async block may outlive", "move"], right);
}

#[test]
fn there_are_at_most_12_arguments() {
    let items = format!(
        "{TAKES}\nfn f12(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8, j: u8, k: u8, l: u8) {{}}"
    );
    let right = "spawn!(f12(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12));";
    let wrong = "spawn!(f12(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13));";
    refuses("thirteen", &items, wrong, &["at most 12 arguments"], right);
}

#[test]
fn spawn_takes_a_call() {
    let right = "spawn!(inc(42));";
    for (name, wrong) in [("number", "spawn!(42);"), ("path", "spawn!(inc);"), ("operator", "spawn!(1 + 1);")]
    {
        refuses(name, TAKES, wrong, &["spawn! takes a call"], right);
    }
}

#[test]
fn options_are_spelled_right() {
    let right = "spawn!(inc(1); name = \"x\", priority = 2);";
    refuses("unknown_option", TAKES, "spawn!(inc(1); nam = \"x\");", &["nam"], right);
    refuses(
        "no_equals",
        TAKES,
        "spawn!(inc(1); name);",
        &["spawn! does not understand the options `name`"],
        right,
    );
    refuses("value_first", TAKES, "spawn!(inc(1); ..Options::new(), name = \"x\");", &["name"], right);
    refuses(
        "wrong_type",
        TAKES,
        "spawn!(inc(1); priority = \"high\");",
        &["expected `i32`, found `&str`"],
        right,
    );
}

#[test]
fn retry_delay_needs_retries() {
    let wrong = "spawn!(inc(1); retry_delay = std::time::Duration::ZERO);";
    let right = "spawn!(inc(1); retries = 1, retry_delay = std::time::Duration::ZERO);";
    refuses("delay_alone", TAKES, wrong, &["`retry_delay` needs `retries`"], right);
}

#[test]
fn retries_are_no_method_of_options() {
    let right = "spawn!(inc(1); retries = 1, ..Options::new());";
    refuses("options_retries", TAKES, "Options::new().retries(3);", &["retries", "Options"], right);
}

#[test]
fn try_spawn_takes_a_future_of_a_result() {
    let right = "try_spawn(async { Ok::<_, std::fmt::Error>(1) });";
    refuses("try_plain", TAKES, "try_spawn(async { 1 });", &["Result"], right);
    let wrong = "try_spawn(async { Err::<i32, _>(5) });";
    refuses("try_no_error", TAKES, wrong, &["{integer}", "Error"], right);
}

#[test]
fn a_question_mark_takes_a_result() {
    let right = "spawn!((|| \"1\".parse::<i32>())()?);";
    refuses("question_plain", TAKES, "spawn!(inc(1)?);", &["Result"], right);
}

#[test]
fn argument_types_are_those_of_the_callee() {
    let right = "let t = spawn!(inc(1)); spawn!(inc(t));";
    refuses("mismatch", TAKES, "spawn!(inc(\"text\"));", &["&str", "i32"], right);
    refuses("mismatch_task", TAKES, "let t = spawn!(single()); spawn!(inc(t));", &["Single", "i32"], right);
    refuses("too_few", TAKES, "spawn!(inc());", &["argument"], right);
    refuses("by_reference", TAKES, "let t = spawn!(inc(1)); spawn!(inc(&t));", &["&", "i32"], right);
}

#[test]
fn a_moved_handle_is_gone() {
    let right = "let t = spawn!(inc(1)); spawn!(inc(t.clone())); t.await;";
    refuses(
        "moved",
        TAKES,
        "let t = spawn!(inc(1)); spawn!(inc(t)); t.await;",
        &["use of moved value: `t`"],
        right,
    );
}
