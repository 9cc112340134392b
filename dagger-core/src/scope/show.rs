//! How a scope is printed, and how it says no.
//!
//! A scope prints as code that would build it: `threads([0, 2]) | worker(1) & cuda_gpu(0)`. `&` binds tighter than
//! `|`, so only several NUMA nodes beside another term need parentheses: `thread(1) & (numa(0) | numa(1))`. The CPU
//! threads of the default have no constructor and print as `cpu threads`; the empty scope prints as `threads([])`.

use std::fmt;

use super::Scope;
use super::part::{Part, Unit};
use super::set::Set;
use crate::{Processor, ProcessorKind};

/// The longest list of reasons, or of indices, that a reader is shown in full.
const SHOWN_MAX: usize = 8;

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parts.is_empty() {
            return f.write_str("threads([])");
        }
        f.write_str(&self.parts.iter().map(written).collect::<Vec<_>>().join(" | "))
    }
}

/// As `Display`.
impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why no part holds `processor`. The parts that want another kind are only named if all do.
pub(crate) fn reason(parts: &[Part], processor: &Processor) -> String {
    if processor.kind == ProcessorKind::Blocking {
        return "is a thread for blocking bodies, which is in no scope".to_owned();
    }
    if parts.is_empty() {
        return "the scope is empty".to_owned();
    }
    let near = parts.iter().filter(|part| part.unit.has_kind(processor.kind));
    let reasons = distinct(near.map(|part| misses(part, processor)));
    if reasons.is_empty() {
        let wanted = distinct(parts.iter().map(|part| with_article(wanted_kind(&part.unit))));
        return format!("is {}, not {}", with_article(processor.kind), wanted.join(" or "));
    }
    let more = reasons.len().saturating_sub(SHOWN_MAX);
    let shown = reasons[..reasons.len() - more].join("; ");
    if more > 0 { format!("{shown}; and {more} more such reasons") } else { shown }
}

/// The coordinates in which `processor`, of a kind that `part` has, is outside it.
fn misses(part: &Part, processor: &Processor) -> String {
    let mut misses = Vec::new();
    let mut check = |set: &Set, index, what: &str| {
        if !set.has(Some(index)) {
            misses.push(format!("is not {what} {}", one_of(set.mentioned())));
        }
    };
    check(&part.workers, processor.worker, "on worker");
    match &part.unit {
        Unit::Any => {}
        Unit::Threads { threads, numa } => {
            check(threads, processor.thread, "thread");
            check(numa, processor.numa, "on NUMA node");
        }
        Unit::Devices { kind, indices } => check(indices, processor.thread, &kind.to_string()),
    }
    misses.join(" and ")
}

fn written(part: &Part) -> String {
    let (unit, nodes) = match &part.unit {
        Unit::Any => (None, &Set::All),
        Unit::Threads { threads: Set::All, numa: Set::All } => (Some("cpu threads".to_owned()), &Set::All),
        Unit::Threads { threads, numa } => (call("thread", threads), numa),
        Unit::Devices { kind, indices } => {
            (Some(call(constructor(*kind), indices).unwrap_or_else(|| format!("every {kind}"))), &Set::All)
        }
    };
    let mut terms: Vec<String> = call("worker", &part.workers).into_iter().chain(unit).collect();
    // `numa` has no plural: several nodes print as a union, in parentheses beside other terms.
    match nodes.mentioned() {
        [] => {}
        [node] => terms.push(format!("numa({node})")),
        nodes => {
            let union = nodes.iter().map(|node| format!("numa({node})")).collect::<Vec<_>>().join(" | ");
            terms.push(if terms.is_empty() { union } else { format!("({union})") });
        }
    }
    if terms.is_empty() { "any()".to_owned() } else { terms.join(" & ") }
}

/// `thread(1)`, `threads([0, 2])`, `threads(0..=63)`, or nothing for all indices.
fn call(name: &str, set: &Set) -> Option<String> {
    match set {
        Set::All => None,
        Set::Of(list) => Some(match list.as_slice() {
            [index] => format!("{name}({index})"),
            [first, .., last] if list.len() > SHOWN_MAX && last - first + 1 == list.len() => {
                format!("{name}s({first}..={last})")
            }
            list => format!("{name}s({list:?})"),
        }),
    }
}

fn constructor(kind: ProcessorKind) -> &'static str {
    match kind {
        ProcessorKind::Cuda => "cuda_gpu",
        ProcessorKind::Rocm => "rocm_gpu",
        ProcessorKind::Intel => "intel_gpu",
        ProcessorKind::Metal => "metal_gpu",
        ProcessorKind::Wgpu => "wgpu_gpu",
        ProcessorKind::Cpu | ProcessorKind::Blocking => "thread",
    }
}

fn wanted_kind(unit: &Unit) -> ProcessorKind {
    match unit {
        Unit::Any | Unit::Threads { .. } => ProcessorKind::Cpu,
        Unit::Devices { kind, .. } => *kind,
    }
}

fn with_article(kind: ProcessorKind) -> String {
    let article = if kind == ProcessorKind::Intel { "an" } else { "a" };
    format!("{article} {kind}")
}

/// `7`, `0 or 2`, `0, 2 or 4`, `0 to 63`, `0, 2, .. or 14`.
fn one_of(list: &[usize]) -> String {
    let words = |list: &[usize]| list.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    match list {
        [only] => only.to_string(),
        [first, .., last] if list.len() > SHOWN_MAX && last - first + 1 == list.len() => {
            format!("{first} to {last}")
        }
        [shown @ .., last] if list.len() > SHOWN_MAX => {
            format!("{}, .. or {last}", words(&shown[..SHOWN_MAX - 1]))
        }
        [rest @ .., last] => format!("{} or {last}", words(rest)),
        [] => "any".to_owned(),
    }
}

/// In order of first appearance.
fn distinct(items: impl Iterator<Item = String>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
    list
}
