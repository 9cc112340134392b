//! Whether one union of boxes lies in another, exactly, however both are cut into boxes.
//!
//! ```text
//!   worker 0: threads 0, 1 | worker 0: thread 2      in      worker 0: threads 0, 2 | all: thread 1  ?
//!
//!   for each worker mentioned, and one other:      ▶ the units of that worker in both
//!     for each kind of device:                     ▶ the indices in both             ⊆ ?
//!     for each thread mentioned, and one other:    ▶ the NUMA nodes in both          ⊆ ?
//! ```
//! 1. The lists cannot tell apart two indices that none of them mentions, so one of those, `None`, stands for all.
//! 2. Once worker and thread are fixed, what is left is one coordinate, where a union of sets is a set.

use std::collections::BTreeSet;

use super::part::{Part, Unit};
use super::set::Set;
use crate::ProcessorKind;

/// Whether every processor of `few` is in `many`.
pub(crate) fn is_subset(few: &[Part], many: &[Part]) -> bool {
    let workers = representatives(few.iter().chain(many).map(|part| &part.workers));
    workers.into_iter().all(|worker| {
        let (few, many) = (units_of(few, worker), units_of(many, worker));
        ProcessorKind::DEVICES.into_iter().all(|kind| devices(&few, kind).is_subset(&devices(&many, kind)))
            && threads_subset(&boxes(&few), &boxes(&many))
    })
}

/// Each index that is mentioned, and `None` for all others.
fn representatives<'a>(sets: impl Iterator<Item = &'a Set>) -> BTreeSet<Option<usize>> {
    sets.flat_map(Set::mentioned).map(|&index| Some(index)).chain([None]).collect()
}

/// What `parts` hold of one worker.
fn units_of(parts: &[Part], worker: Option<usize>) -> Vec<&Unit> {
    parts.iter().filter(|part| part.workers.has(worker)).map(|part| &part.unit).collect()
}

/// The devices of kind `wanted` in the union of `units`.
fn devices(units: &[&Unit], wanted: ProcessorKind) -> Set {
    united(units.iter().filter_map(|unit| match unit {
        Unit::Any => Some(&Set::All),
        Unit::Devices { kind, indices } if *kind == wanted => Some(indices),
        _ => None,
    }))
}

/// The CPU threads of `units`, as pairs of thread indices and NUMA nodes.
fn boxes<'a>(units: &[&'a Unit]) -> Vec<(&'a Set, &'a Set)> {
    let pairs = units.iter().filter_map(|unit| match unit {
        Unit::Any => Some((&Set::All, &Set::All)),
        Unit::Threads { threads, numa } => Some((threads, numa)),
        Unit::Devices { .. } => None,
    });
    pairs.collect()
}

fn threads_subset(few: &[(&Set, &Set)], many: &[(&Set, &Set)]) -> bool {
    let nodes_of = |boxes: &[(&Set, &Set)], thread| {
        united(boxes.iter().filter(|(threads, _)| threads.has(thread)).map(|&(_, numa)| numa))
    };
    let threads = representatives(few.iter().chain(many).map(|&(threads, _)| threads));
    threads.into_iter().all(|thread| nodes_of(few, thread).is_subset(&nodes_of(many, thread)))
}

fn united<'a>(sets: impl Iterator<Item = &'a Set>) -> Set {
    sets.fold(Set::Of(Vec::new()), |mut all, set| {
        all.unite(set);
        all
    })
}
