//! Reads what Linux says of its CPUs from files under a root.
//!
//! ```text
//!   <root>/proc/thread-self/status (else self)     Cpus_allowed_list
//!   <root>/sys/devices/system/cpu/online           (else present)
//!                                 cpu<n>/topology/thread_siblings_list physical_package_id die_id core_id
//!                                 cpu<n>/cache/index<k>/level type shared_cpu_list
//!                            node/node<m>/cpulist
//! ```
//! 1. A file that is missing or malformed counts as saying nothing; the others still count.
//! 2. A list of CPUs that share something is believed only if it holds the CPU it belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{Found, cpulist};

/// No CPU has more cache directories than this.
const CACHES_MAX: usize = 32;

/// The CPUs that may be used; none if no file says.
///
/// `parallelism` bounds them only where no file tells which CPUs are online: the mask may name those that are not.
pub(crate) fn read(root: &Path, parallelism: usize) -> Vec<Found> {
    let system = root.join("sys/devices/system");
    let listed = |name: &str| text(&system.join("cpu").join(name)).and_then(|list| cpulist::parse(&list));
    let online = listed("online").or_else(|| listed("present"));
    let cpus: Vec<usize> = match (online, mask(root)) {
        (Some(online), Some(mask)) => online.intersection(&mask).copied().collect(),
        (Some(online), None) => online.into_iter().collect(),
        (None, Some(mask)) => mask.into_iter().take(parallelism).collect(),
        (None, None) => Vec::new(),
    };
    let nodes = numa_nodes(root);
    let mut by_core_id = BTreeMap::new();
    cpus.into_iter()
        .map(|os| {
            let place = system.join("cpu").join(format!("cpu{os}"));
            let id = |name: &str| text(&place.join("topology").join(name))?.parse::<usize>().ok();
            // An architecture without packages writes -1, which is no `usize`.
            let package = id("physical_package_id").unwrap_or(0);
            let siblings = shared(&place.join("topology/thread_siblings_list"), os);
            let core = siblings.or_else(|| {
                let name = (package, id("die_id"), id("core_id")?);
                Some(*by_core_id.entry(name).or_insert(os))
            });
            Found {
                os,
                core: core.unwrap_or(os),
                package,
                numa: nodes.get(&os).copied().unwrap_or(0),
                l2: cache(&place, os, 2),
                l3: cache(&place, os, 3),
            }
        })
        .collect()
}

/// The affinity mask of the calling thread, which threads it starts inherit.
pub(crate) fn mask(root: &Path) -> Option<BTreeSet<usize>> {
    let status =
        ["proc/thread-self/status", "proc/self/status"].iter().find_map(|path| text(&root.join(path)))?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    cpulist::parse(list).filter(|mask| !mask.is_empty())
}

/// The NUMA node of each CPU that has one.
pub(crate) fn numa_nodes(root: &Path) -> BTreeMap<usize, usize> {
    let system = root.join("sys/devices/system/node");
    let entries = fs::read_dir(&system).into_iter().flatten().flatten();
    let numbers: BTreeSet<usize> =
        entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()).collect();
    let mut nodes = BTreeMap::new();
    for node in numbers {
        let list = text(&system.join(format!("node{node}/cpulist"))).and_then(|list| cpulist::parse(&list));
        for cpu in list.unwrap_or_default() {
            nodes.entry(cpu).or_insert(node);
        }
    }
    nodes
}

/// The group of `os` that shares its data or unified cache of `level`.
fn cache(place: &Path, os: usize, level: usize) -> Option<usize> {
    let indices =
        (0..CACHES_MAX).map(|k| place.join(format!("cache/index{k}"))).take_while(|index| index.is_dir());
    let mut fitting = indices.filter(|index| {
        text(&index.join("level")).is_some_and(|text| text.parse() == Ok(level))
            && text(&index.join("type")).is_none_or(|kind| kind != "Instruction")
    });
    shared(&fitting.next()?.join("shared_cpu_list"), os)
}

/// The group that the list in `path` names, by its least member (invariant 2).
fn shared(path: &Path, os: usize) -> Option<usize> {
    let group = cpulist::parse(&text(path)?)?;
    if group.contains(&os) { group.first().copied() } else { None }
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}
