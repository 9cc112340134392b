//! What fails, whom it reaches, what it says, and what it costs.

use dagger_async::prelude::*;
use dagger_tests::{Body, Failure, Gate, Kind, Output, for_each_case, isolated, on_all_workers, on_workers};
use std::error::Error as StdError;
use std::fmt;
use std::num::ParseIntError;
use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use tracing::field::{Field, Visit};
use tracing::span;

fn parse(text: &str) -> Result<i64, ParseIntError> {
    text.parse()
}
fn inc(x: i64) -> i64 {
    x + 1
}
fn value_of(output: &Output) -> i32 {
    output.value
}
fn named(name: &str) -> Options {
    Options::new().name(name)
}

/// `file:line` of the line after the one that calls this.
#[track_caller]
fn next_line() -> String {
    let here = std::panic::Location::caller();
    format!("{}:{}", here.file(), here.line() + 1)
}

fn assert_send_sync<T: Send + Sync + Clone + 'static>(_: &T) {}

// What fails, and how.

#[test]
fn an_err_or_a_panic_fails_the_task_with_its_text() {
    for_each_case(|case| async move {
        let task = case.spawn_with(named("bad"), &Body::new().fails("no luck"));
        let id = task.id();
        let error = task.await.unwrap_err();
        if case.kind.is_fallible() {
            assert!(matches!(error, Error::Task { .. }), "{error:?}");
            assert_eq!(error.downcast_ref::<Failure>().unwrap().0, "no luck");
        } else {
            assert!(matches!(error, Error::Panicked { .. }), "{error:?}");
        }
        assert!(error.to_string().contains("no luck") && error.to_string().contains("bad"), "{error}");
        assert_eq!((error.root().unwrap().name(), error.root().unwrap().id()), ("bad", id));
        assert!(
            error.root().unwrap().site().contains("lib.rs:")
                || error.root().unwrap().site().contains("failure.rs:")
        );
        assert!(error.others().is_empty());

        let error = case.spawn_with(named("bad"), &Body::new().panics("out of luck")).await.unwrap_err();
        assert!(matches!(error, Error::Panicked { .. }), "{error:?}");
        assert!(error.to_string().contains("out of luck") && error.to_string().contains("bad"), "{error}");
        assert_eq!(error.source().unwrap().to_string(), "out of luck");
    });
}

#[test]
fn without_a_question_mark_a_result_is_a_plain_value() {
    on_all_workers(|_rt| async {
        assert!(spawn!(parse("x")).await.unwrap().is_err());
        assert!(spawn(async { parse("x") }).await.unwrap().is_err());
        let task = spawn!(parse("x"));
        let next = spawn!((|result: Result<i64, ParseIntError>| result.is_err())(task));
        assert!(next.await.unwrap());
    });
}

#[test]
fn panics_keep_their_text_whatever_the_payload() {
    #[derive(Debug)]
    struct Custom;
    type Boxed = Box<dyn StdError + Send + Sync>;
    let payloads: [(fn(), &str); 8] = [
        (|| panic!("plain"), "plain"),
        (|| panic!("formatted {}", 7), "formatted 7"),
        (|| panic_any("str"), "str"),
        (|| panic_any(String::from("string")), "string"),
        (|| panic_any(-17i32), "-17"),
        (|| panic_any::<Boxed>(Boxed::from("boxed error")), "boxed error"),
        (|| panic_any::<Box<dyn StdError + Send>>(Box::new(Failure("sendable".into()))), "sendable"),
        (|| panic_any(Custom), "panicked"),
    ];
    on_all_workers(move |_rt| async move {
        for (body, text) in payloads {
            for error in [
                spawn!((body)(); name = "bad").await.unwrap_err(),
                named("bad").spawn(async move { body() }).await.unwrap_err(),
                spawn!((body)(); name = "bad", blocking = true).await.unwrap_err(),
            ] {
                assert!(matches!(error, Error::Panicked { .. }));
                assert!(error.to_string().contains(text), "{text}: {error}");
                assert!(error.source().is_some());
            }
        }
    });
}

#[test]
fn an_empty_panic_text_stays_empty() {
    on_workers(1, |_rt| async {
        let error = spawn!((|| -> () { panic!("") })()).await.unwrap_err();
        let Error::Panicked { text, .. } = &error else { panic!("{error}") };
        assert_eq!(text.as_str(), "");
    });
}

#[test]
fn an_error_of_an_inner_task_can_be_passed_on() {
    on_all_workers(|_rt| async {
        let outer = Options::new().name("outer").try_spawn(async {
            let x = spawn!(parse("x")?; name = "inner").await?;
            Ok::<_, Error>(x)
        });
        let error = outer.await.unwrap_err();
        assert_eq!(error.root().unwrap().name(), "outer", "a task that fails first is its own root");
        assert!(error.downcast_ref::<ParseIntError>().is_some());
        assert!(error.to_string().contains("inner"), "{error}");
    });
}

// Whom it reaches.

#[test]
fn the_root_has_its_name_id_and_site() {
    on_all_workers(|_rt| async {
        let site = next_line();
        let call = spawn!(parse("x")?);
        let (id, name) = (call.id(), call.name().to_owned());
        let error = spawn!(inc(call)).await.unwrap_err();
        let root = error.root().unwrap();
        assert_eq!((root.name(), root.id(), root.site()), (name.as_str(), id, site.as_str()));
        assert_eq!(name, "parse");

        let site = next_line();
        let future = try_spawn(async { parse("x") });
        let id = future.id();
        let error = spawn!(inc(future)).await.unwrap_err();
        assert_eq!((error.root().unwrap().id(), error.root().unwrap().site()), (id, site.as_str()));

        let site = next_line();
        let optioned = Options::new().name("optioned").try_spawn(async { parse("x") });
        let error = optioned.await.unwrap_err();
        assert_eq!((error.root().unwrap().name(), error.root().unwrap().site()), ("optioned", site.as_str()));
    });
}

#[test]
fn a_chain_and_a_diamond_keep_the_root() {
    for_each_case(|case| async move {
        for before in [true, false] {
            let body = Body::new().waits().panics("first");
            let root = case.spawn_with(named("root"), &body);
            if before {
                body.go.open();
                root.wait().await;
            }
            let left = spawn!(value_of(&root); name = "left");
            let right = spawn!(value_of(&root); name = "right");
            let join = spawn!((|a: i32, b: i32| a + b)(left.clone(), right); name = "join");
            let last = spawn!((|a: i32| a)(join); name = "last");
            body.go.open();
            let error = last.await.unwrap_err();
            let Error::Dependency { root: of, task, cause, .. } = &error else { panic!("{error:?}") };
            assert_eq!((of.name(), of.id(), task.name()), ("root", root.id(), "last"));
            assert!(matches!(**cause, Error::Panicked { .. }));
            assert!(error.source().unwrap().to_string().contains("first"));
            let text = error.to_string();
            assert!(text.contains("last") && text.contains("root") && text.contains("first"), "{text}");
            assert!(text.contains(of.site()) && text.contains(task.site()), "{text}");
            let error = left.await.unwrap_err();
            assert_eq!(error.root().unwrap().id(), root.id());
        }
    });
}

#[test]
fn the_source_chain_ends_at_the_users_error() {
    #[derive(Debug)]
    struct Outer(ParseIntError);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }
    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }
    on_all_workers(|_rt| async {
        let bad = spawn!((|| parse("x").map_err(Outer))()?; name = "bad");
        let next = spawn!(inc(bad));
        let error = spawn!(inc(next)).await.unwrap_err();
        assert_send_sync(&error);
        assert!(error.downcast_ref::<Outer>().is_some());
        assert!(error.downcast_ref::<ParseIntError>().is_some());
        assert!(error.downcast_ref::<fmt::Error>().is_none());
        let mut chain = Vec::new();
        let mut next: Option<&(dyn StdError + 'static)> = error.source();
        while let Some(source) = next {
            chain.push(source.to_string());
            next = source.source();
        }
        assert!(chain[0].contains("bad"), "the source of Dependency is the root's error: {chain:?}");
        assert_eq!(chain.last().unwrap(), &parse("x").unwrap_err().to_string());
        assert_eq!(error.clone().to_string(), error.to_string());
    });
}

#[test]
fn errors_that_are_no_types_of_their_own_can_fail_a_task() {
    on_workers(2, |_rt| async {
        let error = spawn!((|| Err::<i32, &str>("text"))()?).await.unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "text");
        let error = try_spawn(async { Err::<i32, String>("owned".into()) }).await.unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "owned");
        type Boxed = Box<dyn StdError + Send + Sync>;
        let error = try_spawn(async { Err::<i32, Boxed>(Box::new(Failure("f".into()))) }).await.unwrap_err();
        assert_eq!(error.downcast_ref::<Failure>(), Some(&Failure("f".into())));
    });
}

#[test]
fn a_failed_syncdep_fails_the_task() {
    for_each_case(|case| async move {
        let bad = case.spawn_with(named("bad"), &Body::new().panics("first"));
        let good = case.spawn(&Body::new());
        let body = Body::new();
        let options = named("after").syncdeps([&good, &bad]);
        let error = case.spawn_with(options, &body).await.unwrap_err();
        assert!(matches!(error, Error::Dependency { .. }));
        assert_eq!(error.root().unwrap().id(), bad.id());
        // When it has failed long since.
        let error = case.spawn_with(named("after").syncdeps([&bad]), &body).await.unwrap_err();
        assert_eq!(error.root().unwrap().id(), bad.id());
        case.rt.idle().await;
        assert_eq!(body.runs(), 0);
    });
}

#[test]
fn other_tasks_are_not_affected() {
    for_each_case(|case| async move {
        for _ in 0..20 {
            let good = Body::new().waits().returns(3);
            let before = case.spawn(&good);
            let bad: Vec<_> = (0..5)
                .map(|_| case.spawn(&Body { go: good.go.clone(), ..Body::new().panics("bad") }))
                .collect();
            good.go.open();
            let after = case.spawn(&Body::new().returns(4));
            assert_eq!((before.await.unwrap().value, after.await.unwrap().value), (3, 4));
            for task in bad {
                assert!(task.await.is_err());
            }
        }
    });
}

#[test]
fn a_dependant_is_told_at_once_though_its_other_input_lasts() {
    on_all_workers(|rt| async move {
        let slow = Body::new().waits();
        let other = Kind::Future.spawn(Options::new(), &slow);
        let bad = spawn!(parse("x")?; name = "bad");
        let both = spawn!((|x: i64, _: &Output| x)(bad, &other));
        assert_eq!(both.await.unwrap_err().root().unwrap().name(), "bad");
        slow.go.open();
        rt.idle().await;
    });
}

#[test]
fn a_failure_travels_down_a_chain_of_a_million() {
    isolated("a_failure_travels_down_a_chain_of_a_million", || {
        on_workers(2, |rt| async move {
            let body = Body::new().waits().panics("first");
            let first = Kind::Sync.spawn(named("root"), &body);
            let mut task = spawn!(value_of(&first));
            for _ in 0..1_000_000 {
                task = spawn!((|x: i32| x)(task));
            }
            body.go.open();
            assert_eq!(task.await.unwrap_err().root().unwrap().name(), "root");
            rt.idle().await;
        });
    });
}

#[test]
fn a_failure_travels_down_a_chain_of_syncdeps() {
    isolated("a_failure_travels_down_a_chain_of_syncdeps", || {
        on_workers(2, |rt| async move {
            let body = Body::new().waits().panics("first");
            let first = Kind::Sync.spawn(named("root"), &body);
            let mut task = spawn!(value_of(&first));
            for _ in 0..300_000 {
                task = spawn!((|| 0)(); syncdeps = [&task]);
            }
            body.go.open();
            assert_eq!((&task).await.unwrap_err().root().unwrap().name(), "root");
            drop(task);
            rt.idle().await;
        });
    });
}

// What it costs.

/// Panics when it is dropped.
struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a drop that panics");
    }
}

/// Runs a task on every worker, so that a lost one shows.
async fn all_workers_live(rt: &Runtime) {
    for processor in rt.processors() {
        let task =
            spawn!((|| current().unwrap().processor().thread)(); scope = Scope::thread(processor.thread));
        assert_eq!(task.await.unwrap(), processor.thread);
    }
}

#[test]
fn a_result_whose_drop_panics_costs_nothing() {
    on_all_workers(|rt| async move {
        for _ in 0..20 {
            drop(spawn!((|| Bomb)()));
            drop(spawn(async { Bomb }));
            drop(spawn!((|| Bomb)(); blocking = true));
            let kept = spawn!((|| Bomb)());
            kept.wait().await;
            drop(kept);
            let used = spawn!((|| Bomb)());
            assert_eq!(spawn!((|_: &Bomb| 1)(&used)).await.unwrap(), 1);
            drop(used);
            let cancelled = spawn(async { Bomb });
            cancelled.cancel();
            drop(cancelled);
            rt.idle().await;
        }
        all_workers_live(&rt).await;
    });
}

#[test]
fn an_argument_whose_drop_panics_costs_nothing() {
    on_all_workers(|rt| async move {
        let bomb = spawn!((|| Bomb)());
        // The callee drops it: its own panic. By reference, or never run: the runtime drops it.
        assert!(spawn!((|_: Bomb| 1)(Bomb)).await.is_err());
        assert_eq!(spawn!((|_: &Bomb| 1)(&bomb)).await.unwrap(), 1);
        assert!(spawn!((|_: Bomb| 1)(bomb)).await.is_err());
        for cancelled in [false, true] {
            let go = Gate::new();
            let door = go.clone();
            let input = spawn(async move {
                door.pass().await;
                assert!(cancelled, "no input");
                1
            });
            let task = spawn!((|_: Bomb, x: i32| x)(Bomb, input));
            if cancelled {
                task.cancel();
            }
            go.open();
            assert!(task.await.is_err());
            rt.idle().await;
        }
        all_workers_live(&rt).await;
    });
}

/// Two of them would abort the process if they were dropped in one go.
#[test]
fn two_arguments_whose_drops_panic_cost_nothing() {
    isolated("two_arguments_whose_drops_panic_cost_nothing", || {
        on_workers(1, |rt| async move {
            let go = Gate::new();
            let door = go.clone();
            let input = spawn(async move { door.pass().await });
            let task = spawn!((|_: Bomb, _: Bomb, _: ()| ())(Bomb, Bomb, input));
            task.cancel();
            go.open();
            assert!(task.await.is_err());
            rt.idle().await;
            all_workers_live(&rt).await;
        });
    });
}

#[test]
fn a_captured_value_whose_drop_panics_costs_nothing() {
    on_all_workers(|rt| async move {
        for _ in 0..20 {
            let bomb = Bomb;
            let kept = spawn!((move || {
                let _kept = &bomb;
            })());
            assert!(kept.await.is_err(), "the closure drops it when it returns: its own panic");
            let bomb = Bomb;
            let (go, at) = (Gate::new(), Gate::new());
            let (door, started) = (go.clone(), at.clone());
            let suspended = spawn(async move {
                let _bomb = bomb;
                started.open();
                door.pass().await;
            });
            at.pass().await;
            suspended.cancel();
            assert!(matches!(suspended.await, Err(Error::Cancelled { .. })));
            rt.idle().await;
        }
        all_workers_live(&rt).await;
    });
}

#[test]
fn a_panic_payload_whose_drop_panics_costs_nothing() {
    on_all_workers(|rt| async move {
        for _ in 0..20 {
            for blocking in [false, true] {
                let task = spawn!((|| panic_any(Bomb))(); blocking = blocking);
                assert!(matches!(task.await, Err(Error::Panicked { .. })));
            }
            assert!(matches!(spawn(async { panic_any(Bomb) }).await, Err(Error::Panicked { .. })));
            drop(spawn!((|| panic_any(Bomb))()));
            rt.idle().await;
        }
        all_workers_live(&rt).await;
    });
}

#[test]
fn a_clone_that_panics_is_the_users_panic() {
    struct Uncloneable(i32);
    impl Clone for Uncloneable {
        fn clone(&self) -> Self {
            panic!("no clone of {}", self.0)
        }
    }
    on_all_workers(|rt| async move {
        let task = spawn!((|| Uncloneable(7))(); name = "made");
        let other = task.clone();
        let error = task.await.err().expect("the clone panics");
        assert!(matches!(error, Error::Panicked { .. }), "{error}");
        assert!(error.to_string().contains("no clone of 7"), "{error}");
        // As argument the panic is that of the task that needs the clone.
        let (first, keep) = (other.clone(), other.clone());
        let next = spawn!((|x: Uncloneable| x.0)(first); name = "next");
        let error = next.await.unwrap_err();
        assert!(error.to_string().contains("no clone of 7"), "{error}");
        drop(other);
        rt.idle().await;
        // The last use moves.
        assert_eq!(keep.await.unwrap().0, 7);
        all_workers_live(&rt).await;
    });
}

#[test]
fn an_error_whose_display_panics_costs_nothing() {
    #[derive(Debug)]
    struct Mute;
    impl fmt::Display for Mute {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("no words")
        }
    }
    impl StdError for Mute {}
    isolated("an_error_whose_display_panics_costs_nothing", || {
        logged();
        on_workers(1, |rt| async move {
            let seen = try_spawn(async { Err::<i32, _>(Mute) });
            assert!(seen.await.unwrap_err().downcast_ref::<Mute>().is_some());
            drop(try_spawn(async { Err::<i32, _>(Mute) }));
            drop(spawn!((|| Err::<i32, _>(Mute))()?));
            let payload = spawn!((|| panic_any::<Box<dyn StdError + Send + Sync>>(Box::new(Mute)))());
            assert!(matches!(payload.await, Err(Error::Panicked { .. })));
            rt.idle().await;
            all_workers_live(&rt).await;
        });
    });
}

// How one waits.

#[test]
fn wait_reports_no_error() {
    for_each_case(|case| async move {
        let task = case.spawn(&Body::new().panics("bad"));
        task.wait().await;
        assert!(task.is_finished());
        task.wait().await;
        let () = task.wait().await;
        assert!(task.await.is_err());
    });
}

#[test]
fn every_handle_of_a_failed_task_gets_the_error() {
    on_all_workers(|_rt| async {
        let task = spawn!(parse("x")?; name = "bad");
        let handles: Vec<_> = (0..5).map(|_| task.clone()).collect();
        assert!((&task).await.is_err());
        assert!((&task).await.is_err());
        for result in wait_all(handles).await {
            assert_eq!(result.unwrap_err().root().unwrap().id(), task.id());
        }
        assert!(task.clone().blocking_wait().is_err());
        assert!(task.await.is_err());
    });
}

#[test]
fn wait_all_keeps_the_order() {
    for_each_case(|case| async move {
        let slow = Body::new().waits().returns(0);
        let mut tasks = vec![case.spawn(&slow)];
        if case.workers > 1 || !case.kind.occupies_worker() {
            for value in 1..=5 {
                let body = if value == 3 { Body::new().panics("three") } else { Body::new().returns(value) };
                tasks.push(case.spawn(&body));
            }
            for task in &tasks[1..] {
                task.wait().await;
            }
        }
        slow.go.open();
        for (index, result) in wait_all(tasks).await.into_iter().enumerate() {
            match index {
                3 => assert!(result.unwrap_err().to_string().contains("three")),
                _ => assert_eq!(result.unwrap().value, index as i32),
            }
        }
        assert!(wait_all(Vec::<DTask<i32>>::new()).await.is_empty());
    });
}

#[test]
fn wait_any_says_which_ended() {
    for_each_case(|case| async move {
        let nobody: &[DTask<Output>] = &[];
        assert_eq!(wait_any(nobody).await, None);
        if case.kind.occupies_worker() && case.workers < 8 {
            return;
        }
        let bodies: Vec<Body> = (0..3).map(|_| Body::new().waits()).collect();
        let mut tasks: Vec<_> = bodies.iter().map(|body| case.spawn(body)).collect();
        bodies[1].go.open();
        assert_eq!(wait_any(&tasks).await, Some(1));
        assert_eq!(wait_any(&tasks).await, Some(1), "it does not use the value up");
        let done = tasks.remove(1);
        done.await.unwrap();
        bodies[2].go.open();
        assert_eq!(wait_any(&tasks).await, Some(1));
        bodies[0].go.open();
        assert!(wait_all(tasks).await.iter().all(Result::is_ok));
        // A failure is an end.
        let failed = [case.spawn(&Body::new().panics("bad"))];
        assert_eq!(wait_any(&failed).await, Some(0));
    });
}

// What is logged.

/// One event of the log.
#[derive(Clone, Debug)]
struct Line {
    level: tracing::Level,
    text: String,
}

/// The log of this process, from the first call on.
fn logged() -> &'static Mutex<Vec<Line>> {
    static LOG: OnceLock<&'static Mutex<Vec<Line>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let log: &'static Mutex<Vec<Line>> = Box::leak(Box::default());
        tracing::subscriber::set_global_default(Log(log)).unwrap();
        log
    })
}

/// Keeps every event with all its fields.
struct Log(&'static Mutex<Vec<Line>>);

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!(" {}={value:?}", field.name()));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(Line { level: *event.metadata().level(), text: text.0 });
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The errors in the log that name `task`.
fn lines_of(task: &str) -> Vec<Line> {
    let log = logged().lock().unwrap();
    log.iter()
        .filter(|line| line.level == tracing::Level::ERROR && line.text.contains(task))
        .cloned()
        .collect()
}

#[test]
fn a_failure_that_nobody_sees_is_logged_once() {
    logged();
    for_each_case(|case| async move {
        for early in [true, false] {
            let name = format!("unseen-{:?}-{}-{early}", case.kind, case.workers);
            let body = Body::new().waits().panics("lost words");
            let task = case.spawn_with(named(&name), &body);
            if early {
                drop(task);
                body.go.open();
            } else {
                body.go.open();
                task.wait().await;
                drop(task);
            }
            case.rt.idle().await;
            let lines = lines_of(&name);
            assert_eq!(lines.len(), 1, "{lines:?}");
            let line = &lines[0].text;
            assert!(line.contains("lost words"), "{line}");
            assert!(line.contains("lib.rs:") || line.contains("failure.rs:"), "no site: {line}");
        }
    });
}

#[test]
fn a_failure_that_somebody_sees_is_not_logged() {
    logged();
    for_each_case(|case| async move {
        let name = format!("looked-at-{:?}-{}", case.kind, case.workers);
        let task = case.spawn_with(named(&name), &Body::new().panics("seen"));
        assert!((&task).await.is_err());
        assert!(task.await.is_err());
        let task = case.spawn_with(named(&name), &Body::new().panics("seen"));
        assert!(wait_all([task]).await[0].is_err());
        let task = case.spawn_with(named(&name), &Body::new().panics("seen"));
        assert!(task.blocking_wait().is_err());
        // The dependant is awaited, so the root was seen.
        let task = case.spawn_with(named(&name), &Body::new().panics("seen"));
        assert!(spawn!(value_of(&task)).await.is_err());
        drop(task);
        case.rt.idle().await;
        assert!(lines_of(&name).is_empty(), "{:?}", lines_of(&name));
    });
}

#[test]
fn a_root_is_logged_once_whoever_fails_unseen_with_it() {
    logged();
    for_each_case(|case| async move {
        for early in [true, false] {
            let name = format!("fan-{:?}-{}-{early}", case.kind, case.workers);
            let body = Body::new().waits().panics("fan");
            let task = case.spawn_with(named(&name), &body);
            let spawn_all = || {
                for _ in 0..10 {
                    let next = spawn!(value_of(&task));
                    drop(spawn!((|x: i32| x)(next)));
                }
            };
            if early {
                spawn_all();
                body.go.open();
            } else {
                body.go.open();
                task.wait().await;
                spawn_all();
            }
            drop(task);
            case.rt.idle().await;
            let lines = lines_of(&name);
            assert_eq!(lines.len(), 1, "{lines:?}");
        }
    });
}

#[test]
fn a_cancelled_task_is_not_logged() {
    logged();
    for_each_case(|case| async move {
        let name = format!("cancelled-{:?}-{}", case.kind, case.workers);
        let body = Body::new().waits().panics("late");
        let task = case.spawn_with(named(&name), &body);
        body.started.pass().await;
        drop(spawn!(value_of(&task)));
        task.cancel();
        drop(task);
        body.go.open();
        case.rt.idle().await;
        assert!(lines_of(&name).is_empty(), "{:?}", lines_of(&name));
    });
}

/// A panic in a waker of the user's, called by a worker.
#[test]
fn a_waker_that_panics_costs_nothing() {
    struct Loud(AtomicBool);
    impl std::task::Wake for Loud {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
            panic!("a waker that panics");
        }
    }
    on_all_workers(|rt| async move {
        let body = Body::new().waits();
        let mut task = Kind::Future.spawn(Options::new(), &body);
        let loud = Arc::new(Loud(AtomicBool::new(false)));
        let waker = std::task::Waker::from(loud.clone());
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(std::pin::Pin::new(&mut task).poll(&mut cx).is_pending());
        let second = spawn!(value_of(&task));
        body.go.open();
        assert_eq!(second.await.unwrap(), 0);
        rt.idle().await;
        assert!(loud.0.load(SeqCst));
        all_workers_live(&rt).await;
    });
}
