//! Asks the C library hwloc for what shares what (feature `hwloc`).
//!
//! 1. Only packages, L3, L2, cores and PUs are asked for: the wrapper reads hwloc's special depths with their meaning
//!    of hwloc 1, so that asking for NUMA nodes panics. Nodes come from `/sys`.
//! 2. Only CPUs of the inherited affinity mask are reported, as hwloc knows cgroup sets but not the mask.
//! 3. The hwloc topology lives for the length of one call; nothing is bound with it.

use std::collections::BTreeMap;
use std::path::Path;

use hwloc2::{ObjectType, Topology, TopologyObject};

use super::{Found, sysfs};

/// Why hwloc gave no topology. [`Topology::detect`](crate::Topology::detect) then reads `/sys`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// The library could not look at this machine: see what its own program `lstopo` says.
    #[error("hwloc could not load the topology of this machine")]
    Load,
    /// The library knows none of the CPUs that this thread may run on: it was told of another machine
    /// (`HWLOC_XMLFILE`, `HWLOC_SYNTHETIC`), or the mask changed meanwhile.
    #[error("hwloc knows {known} CPUs, but none of those that this thread may run on")]
    NoCpu {
        /// How many CPUs it knows.
        known: usize,
    },
}

/// The CPUs that hwloc knows and the mask under `root` allows; at least one.
pub(crate) fn read(root: &Path) -> Result<Vec<Found>, TopologyError> {
    let topology = Topology::new().ok_or(TopologyError::Load)?;
    let mask = sysfs::mask(root);
    let nodes = sysfs::numa_nodes(root);
    let packages: BTreeMap<usize, usize> = objects(&topology, &ObjectType::Package)
        .into_iter()
        .flat_map(|package| cpus(package).map(|cpu| (cpu, package.os_index())))
        // An unknown number is `unsigned` -1.
        .filter(|&(_, package)| package != u32::MAX)
        .map(|(cpu, package)| (cpu, package as usize))
        .collect();
    let cores = groups(&topology, &ObjectType::Core);
    let l2s = groups(&topology, &ObjectType::L2Cache);
    let l3s = groups(&topology, &ObjectType::L3Cache);
    let pus = objects(&topology, &ObjectType::PU);
    let found: Vec<Found> = pus
        .iter()
        .map(|pu| pu.os_index() as usize)
        .filter(|os| mask.as_ref().is_none_or(|mask| mask.contains(os)))
        .map(|os| Found {
            os,
            core: cores.get(&os).copied().unwrap_or(os),
            package: packages.get(&os).copied().unwrap_or(0),
            numa: nodes.get(&os).copied().unwrap_or(0),
            l2: l2s.get(&os).copied(),
            l3: l3s.get(&os).copied(),
        })
        .collect();
    if found.is_empty() { Err(TopologyError::NoCpu { known: pus.len() }) } else { Ok(found) }
}

/// For each CPU under an object of `kind`, the least CPU of that object, as [`Found`] names groups.
fn groups(topology: &Topology, kind: &ObjectType) -> BTreeMap<usize, usize> {
    let objects = objects(topology, kind).into_iter();
    objects.flat_map(|object| cpus(object).filter_map(|cpu| Some((cpu, cpus(object).next()?)))).collect()
}

/// The objects of `kind`, one of those of invariant 1; none where the machine has none.
fn objects<'a>(topology: &'a Topology, kind: &ObjectType) -> Vec<&'a TopologyObject> {
    topology.objects_with_type(kind).unwrap_or_default()
}

/// Increasing.
fn cpus(object: &TopologyObject) -> impl Iterator<Item = usize> {
    object.cpuset().into_iter().flatten().map(|cpu| cpu as usize)
}
