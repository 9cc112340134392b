//! Warnings and errors of the process, kept to be looked at.

use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard, Once};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

fn lines() -> MutexGuard<'static, Vec<(Level, String)>> {
    LINES.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Begins to keep the log, of all threads: most of it comes from those of runtimes.
pub fn keep_log() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
}

/// The lines with this text.
pub fn logged(text: &str) -> Vec<String> {
    lines().iter().filter(|(_, line)| line.contains(text)).map(|(_, line)| line.clone()).collect()
}

/// As [`logged`], of one level.
pub fn logged_as(level: Level, text: &str) -> Vec<String> {
    let of_level = |line: &&(Level, String)| line.0 == level && line.1.contains(text);
    lines().iter().filter(of_level).map(|(_, line)| line.clone()).collect()
}

struct Log;

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= Level::WARN
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        lines().push((*event.metadata().level(), text.0));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
