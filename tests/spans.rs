//! Every task has a `tracing` span, from its first poll to its last.

use dagger_async::prelude::*;
use dagger_async::spawn;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// What happened to a span.
#[derive(Default, Debug, Clone)]
struct Seen {
    fields: HashMap<&'static str, String>,
    enters: u32,
    exits: u32,
    closed: bool,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Collects the spans of tasks.
#[derive(Default, Clone)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

impl Spans {
    fn with(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.lock().unwrap()[id.into_u64() as usize - 1]);
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "dagger" && *metadata.level() <= Level::DEBUG
    }
    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut seen = Seen::default();
        attributes.record(&mut seen);
        let mut all = self.0.lock().unwrap();
        all.push(seen);
        Id::from_u64(all.len() as u64)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, id: &Id) {
        self.with(id, |seen| seen.enters += 1);
    }
    fn exit(&self, id: &Id) {
        self.with(id, |seen| seen.exits += 1);
    }
    fn try_close(&self, id: Id) -> bool {
        self.with(&id, |seen| seen.closed = true);
        true
    }
}

#[test]
fn a_span_is_entered_for_each_poll_and_closed_with_the_task() {
    let spans = Spans::default();
    tracing::subscriber::set_global_default(spans.clone()).unwrap();
    let rt = Runtime::builder().threads(2).pin(false).build().unwrap();
    let site = rt.block_on(async {
        let plain = spawn!((|| 1)(); name = "plain");
        let line = line!();
        let polled = Options::new().name("polled").spawn(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            2
        });
        let placed = Options::new().name("placed").scope(Scope::thread(1)).spawn(async {});
        placed.await.unwrap();
        let cancelled = Options::new().name("cancelled").spawn(std::future::pending::<()>());
        let unnamed = spawn(async { spawn!(i32::abs(-3)).await.unwrap() });
        assert_eq!((plain.await.unwrap(), polled.await.unwrap(), unnamed.await.unwrap()), (1, 2, 3));
        cancelled.cancel();
        let _ = cancelled.await;
        format!("{}:{}", file!(), line - 1)
    });
    rt.block_on(rt.idle());
    let spans = spans.0.lock().unwrap().clone();
    let named = |name: &str| {
        let found: Vec<&Seen> = spans.iter().filter(|span| span.fields["name"] == name).collect();
        assert!(found.len() <= 1, "{found:?}");
        found.first().copied().cloned()
    };
    let plain = named("plain").unwrap();
    assert_eq!((plain.enters, plain.exits, plain.closed), (1, 1, true));
    assert!(plain.fields["site"].starts_with(&site), "{} {site}", plain.fields["site"]);
    assert!(plain.fields["id"].parse::<u64>().unwrap() > 0);
    let polled = named("polled").unwrap();
    assert_eq!((polled.enters, polled.exits, polled.closed), (4, 4, true));
    let scopes = [("plain", "cpu threads"), ("placed", "thread(1)")];
    for (name, scope) in scopes {
        assert_eq!(named(name).unwrap().fields["scope"], scope);
    }
    assert!(named("i32::abs").unwrap().closed);
    // It may have been cancelled before its first poll.
    assert!(named("cancelled").is_none_or(|span| span.closed));
}
