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
fn what_is_repeatable_is_clone_and_called_at_once() {
    let right = "let s = String::new(); spawn!((move |x: i32| x + s.len() as i32)(1); repeatable = true);";
    let wrong = "spawn!(take(Single(1)); repeatable = true);";
    refuses("repeatable_argument", TAKES, wrong, &["Single", "Clone"], right);
    let wrong = "let s = Single(1); spawn!((move || take(s))(); repeatable = true);";
    refuses("repeatable_callee", TAKES, wrong, &["Clone"], right);
    let wrong = "let t = spawn!(inc(1)); spawn!(inc(t); repeatable = true);";
    refuses("repeatable_result", TAKES, wrong, &["TaskArg<i32>", "Clone"], right);
    let wrong = "spawn!(inc(1); repeatable = true, retries = 2);";
    refuses("repeatable_retries", TAKES, wrong, &["a task with `retries`, cannot be `repeatable`"], right);
    let wrong = "spawn!(inc(1); retries = 2, retry_mutated = true, repeatable = true);";
    refuses("repeatable_mutated", TAKES, wrong, &["a task with `retries`, cannot be `repeatable`"], right);
    let wrong = "async fn later() {} spawn!(async later(); repeatable = true);";
    refuses(
        "repeatable_async",
        TAKES,
        wrong,
        &["an `async fn`, or a task with `retries`, cannot be `repeatable`"],
        right,
    );
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

const DATA: &str = "
    use dagger_async::region::*;
    use std::cell::Cell;
    use std::sync::Mutex;
    static KEPT: Mutex<Option<&'static [i64]>> = Mutex::new(None);
    static KEPT_VIEW: Mutex<Option<VecRef<'static, i64>>> = Mutex::new(None);
    fn clear(x: &mut Vec<i64>) { x.clear() }
    fn fill(x: &mut [i64], v: i64) { x.fill(v) }
    fn sum(x: &[i64]) -> i64 { x.iter().sum() }
    fn line() -> Chunk<Vec<i64>> { Chunk::new(vec![0; 6]) }
    struct Inner { deep: Box<u64>, pair: [u32; 2] }
    struct Plain { byte: u8, word: u32, inner: Inner }
    impl Plain { fn chunk() -> Chunk<Plain> {
        Chunk::new(Plain { byte: 1, word: 2, inner: Inner { deep: Box::new(3), pair: [4, 5] } })
    } }
";

#[test]
fn what_is_declared_in_is_not_written() {
    let right = "let c = line(); spawn!(clear(InOut(&c)));";
    refuses("in_whole", DATA, "let c = line(); spawn!(clear(In(&c)));", &["&mut Vec<i64>"], right);
    refuses("plain_whole", DATA, "let c = line(); spawn!(clear(&c));", &["&mut Vec<i64>"], right);
    let right = "let c = line(); spawn!(fill(Out(&c.slice(..)), 1)); spawn!(sum(In(&c.slice(..))));";
    refuses("in_slice", DATA, "let c = line(); spawn!(fill(In(&c.slice(..)), 1));", &["&mut [i64]"], right);
    let right = "let c = line(); spawn!((|mut v: VecMut<'_, i64>| v[0] = 1)(InOut(&c.slice(step(.., 2)))));";
    let wrong = "let c = line(); spawn!((|mut v: VecMut<'_, i64>| v[0] = 1)(In(&c.slice(step(.., 2)))));";
    refuses("in_step", DATA, wrong, &["VecMut", "VecRef"], right);
    let right = "let c = line(); let mut g = c.write().await.unwrap(); g[0] = 1;";
    refuses(
        "read_guard",
        DATA,
        "let c = line(); let mut g = c.read().await.unwrap(); g[0] = 1;",
        &["E0596"],
        right,
    );
}

#[test]
fn views_to_read_have_nothing_to_write_with() {
    for (name, index) in [("VecRef", "0"), ("MatRef", "(0, 0)"), ("TriRef", "(0, 0)")] {
        let written = name.replace("Ref", "Mut");
        let right = format!(
            "fn f(mut v: {written}<'_, i64>) {{ v[{index}] = 1; v.for_each_mut(|x| *x = 1); v.for_each(|x| ()); }}"
        );
        let wrong = format!("fn f(mut v: {name}<'_, i64>) {{ v[{index}] = 1; }}");
        refuses(&format!("{name}_index"), DATA, &wrong, &["IndexMut", name], &right);
        let wrong = format!("fn f(mut v: {name}<'_, i64>) {{ v.for_each_mut(|x| *x = 1); }}");
        refuses(&format!("{name}_each"), DATA, &wrong, &["for_each_mut", name], &right);
        // One element at a time is out of a view to write.
        let right = format!(
            "fn f(mut v: {written}<'_, i64>) {{ let a = &mut v[{index}]; *a = 1; let b = &v[{index}]; }}"
        );
        let wrong = format!(
            "fn f(mut v: {written}<'_, i64>) {{ let a = &mut v[{index}]; let b = &v[{index}]; *a = 1; }}"
        );
        refuses(&format!("{written}_two"), DATA, &wrong, &["cannot borrow `v`"], &right);
        let right = format!("fn f(v: {name}<'_, i64>) {{ let (a, b) = (v, v); }}");
        let wrong = format!("fn f(v: {written}<'_, i64>) {{ let (a, b) = (v, v); }}");
        refuses(&format!("{written}_copy"), DATA, &wrong, &["use of moved value"], &right);
    }
}

#[test]
fn a_view_ends_with_the_call() {
    let right = "let c = line(); spawn!((|x: &[i64]| x.to_vec())(In(&c.slice(..))));";
    let wrong = "let c = line(); spawn!((|x: &[i64]| x)(In(&c.slice(..))));";
    refuses("slice_returned", DATA, wrong, &["lifetime"], right);
    let wrong =
        "let c = line(); spawn!((|x: &[i64]| { *KEPT.lock().unwrap() = Some(x); })(In(&c.slice(..))));";
    refuses("slice_kept", DATA, wrong, &["'static"], right);
    let right = "let c = line(); spawn!((|x: VecRef<'_, i64>| x.len())(In(&c.slice(step(.., 2)))));";
    let wrong = "let c = line(); spawn!((|x: VecRef<'_, i64>| x)(In(&c.slice(step(.., 2)))));";
    refuses("view_returned", DATA, wrong, &["lifetime"], right);
    let wrong = "let c = line(); spawn!((|x: VecRef<'_, i64>| { *KEPT_VIEW.lock().unwrap() = Some(x); })(In(&c.slice(step(.., 2)))));";
    refuses("view_kept", DATA, wrong, &["'static"], right);
    let wrong = "let c = line(); spawn!((|x: VecRef<'_, i64>| { std::thread::spawn(move || x.len()); })(In(&c.slice(step(.., 2)))));";
    refuses("view_to_thread", DATA, wrong, &["'static"], right);
    let right =
        "let c = line(); let g = c.slice(..).read().await.unwrap(); let x = g.get(); x.len(); drop(g);";
    let wrong =
        "let c = line(); let g = c.slice(..).read().await.unwrap(); let x = g.get(); drop(g); x.len();";
    refuses("guard_outlived", DATA, wrong, &["cannot move out of `g`"], right);
    let wrong = "let c = line(); let mut g = c.slice(..).write().await.unwrap(); let x = g.get_mut(); let y = g.get(); x[0] = 1;";
    refuses("guard_twice", DATA, wrong, &["cannot borrow `g`"], right);
}

#[test]
fn a_field_is_a_field_of_a_struct_and_has_its_type() {
    let right = "let c = Plain::chunk(); spawn!((|x: &u32| *x)(In(&c.field(field!(Plain, word)))));
        spawn!((|x: &u64, y: &mut [u32; 2]| y[0] = *x as u32)(
            In(&c.field(field!(Plain, inner)).field(field!(Inner, deep))), InOut(&c.field(field!(Plain, inner.pair)))));";
    let right = &right.replace("|x: &u64,", "|x: &Box<u64>,").replace("*x as", "**x as");
    let wrong = "#[repr(packed)] struct Packed { a: u8, b: u32 }
        let c = Chunk::new(Packed { a: 1, b: 2 }); c.field(field!(Packed, b));";
    refuses("field_packed", DATA, wrong, &["packed"], right);
    let wrong = "#[derive(Clone, Copy)] union Either { a: u8, b: bool }
        let c = Chunk::new(Either { a: 7 }); c.field(field!(Either, b));";
    refuses("field_union", DATA, wrong, &["E0133", "union"], right);
    let wrong = "let c = Plain::chunk(); c.field::<u64>(field!(Plain, inner.deep));";
    refuses("field_coerced", DATA, wrong, &["E0308"], right);
    let wrong = "let c = Plain::chunk(); c.field(field!(Plain, none));";
    refuses("field_none", DATA, wrong, &["no field `none`"], right);
    let wrong = "let c = Plain::chunk(); c.field(field!(Inner, deep));";
    refuses("field_of_other", DATA, wrong, &["mismatched types", "Inner"], right);
    let wrong = "struct Together { a: Rc<u8>, b: Rc<u8> }
        // SAFETY: both stay together, and are never sent apart: what `field!` would undo.
        unsafe impl Send for Together {} unsafe impl Sync for Together {}
        let a = Rc::new(1); let c = Chunk::new(Together { b: a.clone(), a }); c.field(field!(Together, a));";
    refuses("field_not_send", DATA, wrong, &["Rc<u8>", "between threads safely"], right);
}

#[test]
fn the_result_of_a_task_is_only_read() {
    let right = "let t = spawn!((|| vec![1i64])()); spawn!(sum(In(&t.slice(..)))); spawn!((|x: &Vec<i64>| x.len())(In(&t)));";
    let wrong = "let t = spawn!((|| vec![1i64])()); spawn!(clear(InOut(&t)));";
    refuses("task_inout", DATA, wrong, &["InOut<&DTask<Vec<i64>>>", "&mut Vec<i64>"], right);
    let wrong = "let t = spawn!((|| vec![1i64])()); spawn!(fill(Out(&t.slice(..)), 1));";
    refuses("task_out", DATA, wrong, &["Out<&", "&mut [i64]"], right);
    let wrong = "let x = 5i64; spawn!((|x: &i64| *x)(In(&x)));";
    refuses("in_plain", DATA, wrong, &["In<&i64>"], right);
}

#[test]
fn retries_of_what_is_changed_are_asked_for() {
    let right = "let c = line(); spawn!(fill(InOut(&c.slice(..)), 1); retries = 2, retry_mutated = true);
        spawn!(fill(Out(&c.slice(..)), 1); retries = 2); spawn!(sum(In(&c.slice(..))); retries = 2);";
    let wrong = "let c = line(); spawn!(fill(InOut(&c.slice(..)), 1); retries = 2);";
    refuses("retry_inout", DATA, wrong, &["retry_mutated = true"], right);
}

#[test]
fn what_is_in_a_chunk_is_send_and_sync() {
    let right = "Chunk::new(1i64);";
    refuses(
        "chunk_not_send",
        DATA,
        "Chunk::new(Rc::new(1));",
        &["Rc<{integer}>", "between threads safely"],
        right,
    );
    refuses(
        "chunk_not_sync",
        DATA,
        "Chunk::new(Cell::new(1i64));",
        &["Cell<i64>", "shared between threads"],
        right,
    );
    refuses(
        "chunk_not_static",
        DATA,
        "let x = 5; Chunk::new(&x).read().await;",
        &["borrowed value does not live"],
        right,
    );
}

#[test]
fn containers_have_the_regions_that_they_have() {
    let right = "let c = line(); c.slice(..).slice(step(1.., 2)).slice(index([0])); 
        fn f<T: Matrix + Send + Sync>(c: &Chunk<T>) { c.lower().strict(); c.upper().unit(); c.band(1); c.view(.., ..).row(0); }";
    refuses("slice_of_number", DATA, "Chunk::new(5i64).slice(..);", &["slice", "i64"], right);
    refuses("row_of_line", DATA, "line().row(0);", &["row", "Vec<i64>"], right);
    let generic = |body: &str| format!("fn f<T: Matrix + Send + Sync>(c: &Chunk<T>) {{ {body} }}");
    refuses("strict_band", DATA, &generic("c.band(1).strict();"), &["no method named `strict`"], right);
    refuses(
        "strict_view",
        DATA,
        &generic("c.lower().view(.., ..).strict();"),
        &["no method named `strict`"],
        right,
    );
    refuses("slice_of_matrix", DATA, &generic("c.slice(..);"), &["slice"], right);
    refuses("list_of_rows", DATA, &generic("c.view(index([1]), ..);"), &["IndexList", "Ranges"], right);
    refuses("slice_of_part_of_triangle", DATA, &generic("c.lower().row(1).slice(..);"), &["slice"], right);
}

#[test]
fn a_chunk_lives_until_its_task_is_submitted() {
    // The task counts no owner of its own, so nothing that is evaluated in between may drop the chunk.
    let right =
        "let c = line(); spawn!((|x: &Vec<i64>| x.len())(In(&c)); name = { drop(c.clone()); \"x\" });";
    let wrong = "let c = line(); spawn!((|x: &Vec<i64>| x.len())(In(&c)); name = { drop(c); \"x\" });";
    refuses("dropped_by_option", DATA, wrong, &["cannot move out of `c` because it is borrowed"], right);
    let right = "let c = line(); spawn!((|x: &Vec<i64>| x.len())(In(&c)); retries = { drop(c.clone()); 1 });";
    let wrong = "let c = line(); spawn!((|x: &Vec<i64>| x.len())(In(&c)); retries = { drop(c); 1 });";
    refuses("dropped_by_retries", DATA, wrong, &["cannot move out of `c` because it is borrowed"], right);
    let wrong = "let c = line(); let _ = dagger_async::IntoArg::into_arg(In(&c));";
    let right = "let c = line(); let _ = dagger_async::In(&c);";
    refuses("taken_apart", DATA, wrong, &["takes 2 arguments but 1 argument was supplied"], right);
}
