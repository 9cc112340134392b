//! One term of a scope: a box in the space *worker × unit*.
//!
//! ```text
//!                units:  CPU threads (thread × numa)      devices (kind, index)
//!   workers      ┌──────────────────────────────────┬──────────────────────────┐
//!    0, 2, ..    │  Unit::Threads { threads, numa } │ Unit::Devices { kind, .. }│
//!                └──────────────────────────────────┴──────────────────────────┘
//!                 └────────────────────── Unit::Any ──────────────────────────┘
//! ```
//! 1. Thread index and NUMA index are independent coordinates: which threads sit on which node is not known here.
//! 2. A part that is kept in a scope is never empty.

use super::set::Set;
use crate::{Processor, ProcessorKind};

/// The processors of `workers` that are one of `unit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) workers: Set,
    pub(crate) unit: Unit,
}

/// A set of processors within a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Any,
    Threads { threads: Set, numa: Set },
    Devices { kind: ProcessorKind, indices: Set },
}

impl Part {
    /// Whether `processor` is in. A blocking thread never is.
    pub(crate) fn contains(&self, processor: &Processor) -> bool {
        let index = Some(processor.thread);
        self.workers.has(Some(processor.worker))
            && self.unit.has_kind(processor.kind)
            && match &self.unit {
                Unit::Any => true,
                Unit::Threads { threads, numa } => threads.has(index) && numa.has(Some(processor.numa)),
                Unit::Devices { indices, .. } => indices.has(index),
            }
    }

    /// The processors in both, or `None` if there are none.
    pub(crate) fn intersection(&self, other: &Part) -> Option<Part> {
        let part = Part {
            workers: self.workers.intersection(&other.workers),
            unit: self.unit.intersection(&other.unit)?,
        };
        (!part.is_empty()).then_some(part)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.workers.is_empty() || self.unit.is_empty()
    }

    pub(crate) fn is_subset(&self, other: &Part) -> bool {
        self.workers.is_subset(&other.workers) && self.unit.is_subset(&other.unit)
    }

    /// Whether the union of both is one part again: they differ in one coordinate only.
    pub(crate) fn joins(&self, other: &Part) -> bool {
        self.unit == other.unit || (self.workers == other.workers && self.unit.joins(&other.unit))
    }

    /// Becomes the union of both, which `joins` has allowed.
    pub(crate) fn join(&mut self, other: &Part) {
        if self.unit == other.unit {
            self.workers.unite(&other.workers);
        } else {
            self.unit.join(&other.unit);
        }
    }
}

impl Unit {
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Unit::Any => false,
            Unit::Threads { threads, numa } => threads.is_empty() || numa.is_empty(),
            Unit::Devices { indices, .. } => indices.is_empty(),
        }
    }

    /// Whether some unit of kind `kind` is in.
    pub(crate) fn has_kind(&self, kind: ProcessorKind) -> bool {
        match self {
            Unit::Any => kind != ProcessorKind::Blocking,
            Unit::Threads { .. } => kind == ProcessorKind::Cpu,
            Unit::Devices { kind: own, .. } => kind == *own,
        }
    }

    fn intersection(&self, other: &Unit) -> Option<Unit> {
        match (self, other) {
            (Unit::Any, unit) | (unit, Unit::Any) => Some(unit.clone()),
            (Unit::Threads { threads: t1, numa: n1 }, Unit::Threads { threads: t2, numa: n2 }) => {
                Some(Unit::Threads { threads: t1.intersection(t2), numa: n1.intersection(n2) })
            }
            (Unit::Devices { kind: k1, indices: i1 }, Unit::Devices { kind: k2, indices: i2 })
                if k1 == k2 =>
            {
                Some(Unit::Devices { kind: *k1, indices: i1.intersection(i2) })
            }
            _ => None,
        }
    }

    /// Box by box: `Any` is in no union of smaller boxes that a part could hold.
    fn is_subset(&self, other: &Unit) -> bool {
        match (self, other) {
            (_, Unit::Any) => true,
            (Unit::Threads { threads: t1, numa: n1 }, Unit::Threads { threads: t2, numa: n2 }) => {
                t1.is_subset(t2) && n1.is_subset(n2)
            }
            (Unit::Devices { kind: k1, indices: i1 }, Unit::Devices { kind: k2, indices: i2 }) => {
                k1 == k2 && i1.is_subset(i2)
            }
            _ => false,
        }
    }

    fn joins(&self, other: &Unit) -> bool {
        match (self, other) {
            (Unit::Threads { threads: t1, numa: n1 }, Unit::Threads { threads: t2, numa: n2 }) => {
                t1 == t2 || n1 == n2
            }
            (Unit::Devices { kind: k1, .. }, Unit::Devices { kind: k2, .. }) => k1 == k2,
            _ => false,
        }
    }

    fn join(&mut self, other: &Unit) {
        match (self, other) {
            (Unit::Threads { threads: t1, numa: n1 }, Unit::Threads { threads: t2, numa: n2 }) => {
                if t1 == t2 {
                    n1.unite(n2);
                } else {
                    t1.unite(t2);
                }
            }
            (Unit::Devices { indices: i1, .. }, Unit::Devices { indices: i2, .. }) => i1.unite(i2),
            _ => debug_assert!(false, "`joins` allows only units of one kind"),
        }
    }
}
