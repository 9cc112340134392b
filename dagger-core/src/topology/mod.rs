//! The CPUs that this process may use, and what they share.
//!
//! ```text
//!   package 0                          package 1
//!   ├─ L3 0 ── numa 0                  ├─ L3 1 ── numa 1
//!   │  ├─ L2 0 ── core 0 ── cpu 0, 4   │  ├─ L2 2 ── core 2 ── cpu 2, 6
//!   │  └─ L2 1 ── core 1 ── cpu 1, 5   │  └─ L2 3 ── core 3 ── cpu 3, 7
//!
//!   order of work:  0 1 2 3 (one CPU of each core)  4 5 6 7 (their siblings)
//! ```
//! 1. There is at least one CPU, and `1 <= usable() <= cpus().len()`.
//! 2. The CPUs are those of the affinity mask that a new thread would inherit, as far as they are online.
//! 3. They stand in the order in which workers should take them: one of each core before any sibling, and neighbours
//!    (same package, node, L3) next to each other.
//! 4. Detection neither fails nor panics. What cannot be read is filled in with the simplest machine that agrees
//!    with the rest: a CPU is a core, a core has an L2, a package has an L3, everything is package 0 and node 0.
//!
//! It pins nothing, and says nothing of memory sizes or devices.

mod cpulist;
#[cfg(feature = "hwloc")]
mod hwloc;
mod memory;
mod sysfs;
#[cfg(test)]
mod tests;

pub use memory::usable_memory;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

#[cfg(feature = "hwloc")]
pub use hwloc::TopologyError;

use crate::Processor;

/// The CPUs of this machine that this process may use.
///
/// ```
/// use dagger_core::Topology;
///
/// let machine = Topology::detect();
/// println!("{} of {} CPUs, {} NUMA nodes", machine.usable(), machine.cpus().len(), machine.numa_nodes().len());
/// for place in machine.processors(0, 2) {
///     println!("{place}");
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    cpus: Vec<Cpu>,
    usable: usize,
}

/// One CPU (a hardware thread) and what it shares with which others.
///
/// Two CPUs share a core, an L2 or an L3 when the number is the same. These three are numbered from 0 over the CPUs
/// of the topology; package and node keep the numbers of the operating system.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its number as the operating system counts: what a thread is pinned to.
    pub os: usize,
    /// Physical core. CPUs of one core are SMT siblings.
    pub core: usize,
    /// Package (socket).
    pub package: usize,
    /// NUMA node.
    pub numa: usize,
    /// Group that shares an L2 cache; the core where that is not known.
    pub l2: usize,
    /// Group that shares an L3 cache; the package where there is none or it is not known.
    pub l3: usize,
}

impl Topology {
    /// This machine, as the calling thread may use it.
    ///
    /// Reads `/sys` and `/proc` (a few small files per CPU), or asks hwloc where the feature is on and it works.
    /// Elsewhere than on Linux, and where nothing can be read, as many CPUs as
    /// [`available_parallelism`](std::thread::available_parallelism) says, in one package and node.
    ///
    /// A thread that is pinned sees only the CPUs it is pinned to, as new threads inherit its mask: call this where
    /// the program starts.
    #[must_use]
    pub fn detect() -> Topology {
        #[cfg(feature = "hwloc")]
        if let Ok(topology) = Topology::detect_hwloc() {
            return topology;
        }
        let parallelism = parallelism();
        read(Path::new("/"), parallelism).limited_to(parallelism)
    }

    /// The machine that the files under `root` describe: `<root>/sys/devices/system` and `<root>/proc`.
    ///
    /// For tests, and for looking at a machine from a copy of its files. All its CPUs are usable, as a quota is not
    /// among these files: see [`limited_to`](Topology::limited_to). Like `detect`, it neither fails nor panics; an
    /// empty tree has as many CPUs as this process may use.
    #[must_use]
    pub fn from_root(root: impl AsRef<Path>) -> Topology {
        read(root.as_ref(), parallelism())
    }

    /// This machine as the C library hwloc sees it, within the inherited affinity mask. NUMA nodes come from `/sys`.
    ///
    /// # Errors
    /// [`TopologyError`] when hwloc cannot load, or knows none of the CPUs of the mask; [`Topology::detect`] then
    /// reads `/sys` alone.
    #[cfg(feature = "hwloc")]
    pub fn detect_hwloc() -> Result<Topology, TopologyError> {
        Ok(assemble(hwloc::read(Path::new("/"))?, parallelism()).limited_to(parallelism()))
    }

    /// The same CPUs, of which at most `cpus` (but at least one) are usable: a quota.
    #[must_use]
    pub fn limited_to(mut self, cpus: usize) -> Topology {
        self.usable = self.usable.min(cpus).max(1);
        self
    }

    /// The CPUs in the order in which workers should take them; at least one.
    #[must_use]
    pub fn cpus(&self) -> &[Cpu] {
        &self.cpus
    }

    /// How many workers to start by default: the CPUs, or fewer under a cgroup quota; at least one.
    #[must_use]
    pub fn usable(&self) -> usize {
        self.usable
    }

    /// The numbers of the packages that have CPUs here, increasing.
    #[must_use]
    pub fn packages(&self) -> Vec<usize> {
        self.distinct(|cpu| cpu.package)
    }

    /// The numbers of the NUMA nodes that have CPUs here, increasing.
    #[must_use]
    pub fn numa_nodes(&self) -> Vec<usize> {
        self.distinct(|cpu| cpu.numa)
    }

    /// CPU threads `0..threads` of `worker`, thread `i` on the `i`-th CPU; beyond the last CPU they begin again with
    /// the first.
    #[must_use]
    pub fn processors(&self, worker: usize, threads: usize) -> Vec<Processor> {
        let places = self.cpus.iter().cycle().take(threads).enumerate();
        places.map(|(thread, cpu)| Processor::cpu_thread(worker, thread, Some(cpu.os), cpu.numa)).collect()
    }

    fn distinct(&self, of: impl Fn(&Cpu) -> usize) -> Vec<usize> {
        let numbers: BTreeSet<usize> = self.cpus.iter().map(of).collect();
        numbers.into_iter().collect()
    }
}

/// What a source says of one CPU. A group of CPUs is named by one of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    os: usize,
    core: usize,
    package: usize,
    numa: usize,
    l2: Option<usize>,
    l3: Option<usize>,
}

impl Found {
    /// A CPU of which only the number is known.
    fn bare(os: usize) -> Found {
        Found { os, core: os, package: 0, numa: 0, l2: None, l3: None }
    }
}

fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// From what a source has found, each CPU once; from nothing, `parallelism` CPUs of which nothing is known.
fn assemble(mut found: Vec<Found>, parallelism: usize) -> Topology {
    if found.is_empty() {
        found = (0..parallelism.max(1)).map(Found::bare).collect();
    }
    found.sort_by_key(|cpu| cpu.os);
    let (mut cores, mut l2s, mut l3s) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut taken = BTreeMap::new();
    let mut ranked: Vec<(usize, Cpu)> = found
        .into_iter()
        .map(|Found { os, core, package, numa, l2, l3 }| {
            // `Ok` is a cache that the source knows, `Err` what stands in for it (invariant 4).
            let l2 = number(&mut l2s, l2.ok_or(core));
            let l3 = number(&mut l3s, l3.ok_or(package));
            let core = number(&mut cores, core);
            let rank: &mut usize = taken.entry(core).or_default();
            *rank += 1;
            (*rank, Cpu { os, core, package, numa, l2, l3 })
        })
        .collect();
    ranked.sort_by_key(|(rank, cpu)| (*rank, cpu.package, cpu.numa, cpu.l3, cpu.os));
    let cpus: Vec<Cpu> = ranked.into_iter().map(|(_, cpu)| cpu).collect();
    Topology { usable: cpus.len(), cpus }
}

/// The number of the group `name`: 0 for the first one met, and so on.
fn number<K: Ord>(groups: &mut BTreeMap<K, usize>, name: K) -> usize {
    let next = groups.len();
    *groups.entry(name).or_insert(next)
}

fn read(root: &Path, parallelism: usize) -> Topology {
    assemble(sysfs::read(root, parallelism), parallelism)
}
