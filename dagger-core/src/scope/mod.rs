//! The set of processors that a task may run on, written without knowing the machine.
//!
//! ```text
//!   worker(0) & thread(1)  |  cuda_gpus([0, 1])  |  numa(3)
//!   └───── part ─────────┘    └──── part ─────┘     └part─┘      a flat union of boxes, worker × unit
//! ```
//! 1. A scope is a list of parts (boxes), never an expression tree: `|` and `&` of any number of scopes neither
//!    recurse nor nest.
//! 2. No part is empty, and none lies in another; two that differ in one coordinate only are one part.
//!    So a loop over `|` that adds threads, workers or devices keeps one part.
//! 3. Equality and subset are those of the sets, over an unbounded number of workers, threads, nodes and devices,
//!    however the scopes were written.
//! 4. Blocking threads are in no scope, and GPUs only in those that name them, or `any()`, or a worker.
//!
//! It does not ask which processors exist; [`Scope::contains`] answers for each that the caller has.

mod compare;
mod part;
mod set;
mod show;
#[cfg(test)]
mod tests;

use std::ops::{BitAnd, BitOr};

use crate::{Processor, ProcessorKind};
use part::{Part, Unit};
use set::Set;

/// A set of processors: where a task may run, or a chunk may live.
///
/// Indices start at 0. `|` is the union and `&` the intersection. The default is every CPU thread of every worker,
/// and no GPU. `Display` and `Debug` print it as it would be written.
///
/// ```
/// use dagger_core::{Processor, ProcessorKind, Scope};
///
/// let scope = Scope::worker(0) & Scope::thread(1) | Scope::cuda_gpu(0);
/// assert!(scope.contains(&Processor::cpu_thread(0, 1, None, 0)));
/// assert!(!scope.contains(&Processor::cpu_thread(1, 1, None, 0)));
/// assert!(scope.contains(&Processor::device(1, ProcessorKind::Cuda, 0)));
/// assert_eq!(scope.to_string(), "worker(0) & thread(1) | cuda_gpu(0)");
/// ```
#[derive(Clone)]
pub struct Scope {
    parts: Vec<Part>,
}

impl Scope {
    /// Every processor of every worker, GPUs included.
    #[must_use]
    pub fn any() -> Scope {
        Scope::one(Set::All, Unit::Any)
    }

    /// Every processor of worker `i`: its CPU threads and its devices.
    #[must_use]
    pub fn worker(i: usize) -> Scope {
        Scope::workers([i])
    }

    /// Every processor of these workers: their CPU threads and their devices.
    #[must_use]
    pub fn workers(indices: impl IntoIterator<Item = usize>) -> Scope {
        Scope::one(Set::of(indices), Unit::Any)
    }

    /// CPU thread `i` of every worker.
    #[must_use]
    pub fn thread(i: usize) -> Scope {
        Scope::threads([i])
    }

    /// These CPU threads of every worker. An empty list gives the empty scope.
    #[must_use]
    pub fn threads(indices: impl IntoIterator<Item = usize>) -> Scope {
        Scope::one(Set::All, Unit::Threads { threads: Set::of(indices), numa: Set::All })
    }

    /// The CPU threads on NUMA node `i` of every worker's machine, as its operating system counts them.
    #[must_use]
    pub fn numa(i: usize) -> Scope {
        Scope::one(Set::All, Unit::Threads { threads: Set::All, numa: Set::of([i]) })
    }

    /// CUDA GPU `i` of every worker.
    #[must_use]
    pub fn cuda_gpu(i: usize) -> Scope {
        Scope::cuda_gpus([i])
    }

    /// These CUDA GPUs of every worker.
    #[must_use]
    pub fn cuda_gpus(indices: impl IntoIterator<Item = usize>) -> Scope {
        Scope::devices(ProcessorKind::Cuda, indices)
    }

    /// ROCm GPU `i` of every worker.
    #[must_use]
    pub fn rocm_gpu(i: usize) -> Scope {
        Scope::rocm_gpus([i])
    }

    /// These ROCm GPUs of every worker.
    #[must_use]
    pub fn rocm_gpus(indices: impl IntoIterator<Item = usize>) -> Scope {
        Scope::devices(ProcessorKind::Rocm, indices)
    }

    /// Intel GPU `i` of every worker.
    #[must_use]
    pub fn intel_gpu(i: usize) -> Scope {
        Scope::intel_gpus([i])
    }

    /// These Intel GPUs of every worker.
    #[must_use]
    pub fn intel_gpus(indices: impl IntoIterator<Item = usize>) -> Scope {
        Scope::devices(ProcessorKind::Intel, indices)
    }

    /// Metal GPU `i` of every worker.
    #[must_use]
    pub fn metal_gpu(i: usize) -> Scope {
        Scope::metal_gpus([i])
    }

    /// These Metal GPUs of every worker.
    #[must_use]
    pub fn metal_gpus(indices: impl IntoIterator<Item = usize>) -> Scope {
        Scope::devices(ProcessorKind::Metal, indices)
    }

    /// GPU `i` of every worker among those reached through wgpu.
    #[must_use]
    pub fn wgpu_gpu(i: usize) -> Scope {
        Scope::wgpu_gpus([i])
    }

    /// These GPUs of every worker among those reached through wgpu.
    #[must_use]
    pub fn wgpu_gpus(indices: impl IntoIterator<Item = usize>) -> Scope {
        Scope::devices(ProcessorKind::Wgpu, indices)
    }

    /// Whether `processor` is in the set. A blocking thread is in none.
    #[must_use]
    pub fn contains(&self, processor: &Processor) -> bool {
        self.parts.iter().any(|part| part.contains(processor))
    }

    /// Whether no processor of any machine is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether every processor of this set, on any machine, is in `other`.
    ///
    /// Cost: for each worker that one of the two mentions, and for one that neither does, the sets of threads and
    /// devices of that worker are compared, in the same way thread by thread.
    #[must_use]
    pub fn is_subset(&self, other: &Scope) -> bool {
        compare::is_subset(&self.parts, &other.parts)
    }

    /// Why `processor` is not in the set, as a phrase about it; `None` if it is.
    ///
    /// ```
    /// use dagger_core::{Processor, Scope};
    ///
    /// let place = Processor::cpu_thread(0, 1, None, 0);
    /// assert_eq!(Scope::thread(7).explain(&place).as_deref(), Some("is not thread 7"));
    /// assert_eq!(Scope::cuda_gpu(0).explain(&place).as_deref(), Some("is a CPU thread, not a CUDA GPU"));
    /// assert_eq!(Scope::thread(1).explain(&place), None);
    /// ```
    #[must_use]
    pub fn explain(&self, processor: &Processor) -> Option<String> {
        (!self.contains(processor)).then(|| show::reason(&self.parts, processor))
    }

    fn devices(kind: ProcessorKind, indices: impl IntoIterator<Item = usize>) -> Scope {
        Scope::one(Set::All, Unit::Devices { kind, indices: Set::of(indices) })
    }

    fn one(workers: Set, unit: Unit) -> Scope {
        let mut scope = Scope { parts: Vec::new() };
        scope.add(Part { workers, unit });
        scope
    }

    /// Adds the processors of `part`, keeping invariant 2: each round but the last takes one part out.
    fn add(&mut self, mut part: Part) {
        if part.is_empty() {
            return;
        }
        let mut at = self.parts.len();
        loop {
            if self.parts.iter().any(|kept| part.is_subset(kept)) {
                return;
            }
            self.parts.retain(|kept| !kept.is_subset(&part));
            at = at.min(self.parts.len());
            let Some(i) = self.parts.iter().position(|kept| kept.joins(&part)) else {
                // Where the first of what was joined stood, so that a scope prints in the order it was written.
                self.parts.insert(at, part);
                return;
            };
            let mut joined = self.parts.remove(i);
            joined.join(&part);
            part = joined;
            at = at.min(i);
        }
    }
}

/// Every CPU thread of every worker: a task runs on a GPU only when that is named.
impl Default for Scope {
    fn default() -> Scope {
        Scope::one(Set::All, Unit::Threads { threads: Set::All, numa: Set::All })
    }
}

/// The union.
impl BitOr for Scope {
    type Output = Scope;

    fn bitor(mut self, other: Scope) -> Scope {
        for part in other.parts {
            self.add(part);
        }
        self
    }
}

/// The intersection.
impl BitAnd for Scope {
    type Output = Scope;

    fn bitand(self, other: Scope) -> Scope {
        let mut both = Scope { parts: Vec::new() };
        for mine in &self.parts {
            for part in other.parts.iter().filter_map(|theirs| mine.intersection(theirs)) {
                both.add(part);
            }
        }
        both
    }
}

/// Equality of the sets, not of how they were written.
impl PartialEq for Scope {
    fn eq(&self, other: &Scope) -> bool {
        self.parts == other.parts || (self.is_subset(other) && other.is_subset(self))
    }
}

impl Eq for Scope {}
