//! Every task has a `tracing` span, so what listens to spans elsewhere listens here too. This program has `tracing-chrome`
//! write a timeline; any other layer goes in its place.
//!
//! ```text
//! cargo run --release --example spans -- spans.json     then open the file in ui.perfetto.dev or chrome://tracing
//! ```
//! The spans have the target `dagger`, the level debug, and the fields `name`, `id`, `scope` and `site`. A span is entered
//! each time that the body of its task runs: a task that waits shows as several slices.

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;

use dagger_async::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Level, Subscriber};
use tracing_chrome::{ChromeLayerBuilder, EventOrSpan};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::{LookupSpan, SpanRef};
use tracing_subscriber::{Layer, Registry};

/// What is shown: a task for each number, one that waits for another inside its body, and a sum on a processor of its own.
async fn program() -> dagger_async::Result<u64> {
    let squares: Vec<_> = (1..=4u64).map(|n| spawn!((|n: u64| n * n)(n); name = "square")).collect();
    let sum = Options::new().name("sum").spawn(async {
        let mut sum = 0;
        for square in squares {
            sum += square.await?; // waiting frees the processor
        }
        dagger_async::Result::Ok(sum)
    });
    let sum = sum.await??;
    spawn!((|sum: u64| sum + 12)(sum); name = "finish", scope = Scope::thread(0)).await
}

/// Runs `program` while `tracing-chrome` writes the spans of its tasks to `out`.
fn with_timeline<R>(out: impl Write + Send + 'static, program: impl FnOnce() -> R) -> R {
    let name = |shown: &EventOrSpan<Registered>| match shown {
        EventOrSpan::Span(span) => name_of(span),
        EventOrSpan::Event(event) => event.metadata().name().to_owned(),
    };
    let chrome = ChromeLayerBuilder::new().writer(out).include_args(true).name_fn(Box::new(name));
    let (chrome, guard) = chrome.build();
    let tasks = Targets::new().with_target("dagger", Level::DEBUG);
    // For the whole process: tasks run on threads of their own.
    tracing_subscriber::registry()
        .with(Names.with_filter(tasks.clone()))
        .with(chrome.with_filter(tasks))
        .init();
    let result = program();
    drop(guard); // writes what is left
    result
}

/// The subscriber below `tracing-chrome`.
type Registered = tracing_subscriber::layer::Layered<
    tracing_subscriber::filter::Filtered<Names, Targets, Registry>,
    Registry,
>;

/// Keeps the names of tasks beside their spans, so that slices are called as their tasks and not all of them `task`.
struct Names;

struct TaskName(String);

impl Visit for TaskName {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            self.0 = value.to_owned();
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Names {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut name = TaskName(attributes.metadata().name().to_owned());
        attributes.record(&mut name);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(name);
        }
    }
}

fn name_of<S: for<'span> LookupSpan<'span>>(span: &SpanRef<'_, S>) -> String {
    span.extensions().get::<TaskName>().map_or_else(|| span.name().to_owned(), |name| name.0.clone())
}

fn main() -> ExitCode {
    let path = std::env::args().nth(1).unwrap_or_else(|| "spans.json".to_owned());
    let run = || -> Result<u64, Box<dyn std::error::Error>> {
        let file = File::create(&path).map_err(|error| format!("{path}: {error}"))?;
        let runtime = Runtime::builder().name("spans").build()?;
        Ok(with_timeline(file, || runtime.block_on(program()))?)
    };
    match run() {
        Ok(answer) => {
            // A reader that has gone is no failure.
            let _ = writeln!(io::stdout(), "{answer}; the timeline is in {path}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "spans: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::{HashMap, HashSet};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_timeline_has_a_span_for_every_task_with_name_id_and_scope() {
        let kept = Kept::default();
        let runtime = Runtime::builder().threads(2).pin(false).build().unwrap();
        let answer = with_timeline(kept.clone(), || {
            let answer = runtime.block_on(program());
            runtime.block_on(runtime.idle());
            answer
        });
        assert_eq!(answer.unwrap(), 42);
        let json: Value = serde_json::from_slice(&kept.0.lock().unwrap()).unwrap();
        let events = json.as_array().unwrap();
        let phase = |wanted: &'static str| events.iter().filter(move |event| event["ph"] == wanted);

        // What is entered is left, on the same thread, in the order of time.
        let mut open: HashMap<u64, Vec<&Value>> = HashMap::new();
        for event in events.iter().filter(|event| event["ph"] != "M") {
            assert!(event["ts"].is_f64() && event["pid"].is_u64() && event["cat"] == "dagger", "{event}");
            let stack = open.entry(event["tid"].as_u64().unwrap()).or_default();
            match event["ph"].as_str().unwrap() {
                "B" => stack.push(event),
                "E" => {
                    let begun = stack.pop().expect("what ends has begun on this thread");
                    assert_eq!(begun["name"], event["name"]);
                    assert!(begun["ts"].as_f64() <= event["ts"].as_f64());
                }
                other => panic!("phase {other}"),
            }
        }
        assert!(open.values().all(Vec::is_empty));

        let mut tasks: HashMap<String, HashSet<u64>> = HashMap::new();
        for event in phase("B") {
            let args = &event["args"];
            let text = |field: &str| args[field].as_str().unwrap().trim_matches('"').to_owned();
            let name = text("name");
            assert_eq!(event["name"], name.as_str());
            let scope = if name == "finish" { "thread(0)" } else { "cpu threads" };
            assert_eq!(text("scope"), scope);
            assert!(text("site").contains("main.rs:"), "{args}");
            let id = args["id"].as_str().map_or_else(|| args["id"].as_u64(), |id| id.parse().ok());
            tasks.entry(name).or_default().insert(id.expect("an id"));
        }
        let count = |name: &str| tasks[name].len();
        assert_eq!((tasks.len(), count("square"), count("sum"), count("finish")), (3, 4, 1, 1));
    }
}
