//! Machines made up as trees of files, and the one the tests run on.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

/// A tree of files under the temporary directory, removed when dropped.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn new() -> Tree {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        // Relaxed: the count only has to differ each time.
        let name = format!("dagger-core-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).unwrap();
        Tree { root }
    }

    fn file(self, path: &str, text: impl AsRef<[u8]>) -> Tree {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn cpu_file(self, cpu: usize, path: &str, text: &str) -> Tree {
        self.file(&format!("sys/devices/system/cpu/cpu{cpu}/{path}"), format!("{text}\n"))
    }

    fn online(self, list: &str) -> Tree {
        self.file("sys/devices/system/cpu/online", format!("{list}\n"))
    }

    fn mask(self, list: &str) -> Tree {
        self.file(
            "proc/self/status",
            format!("Name:\ttest\nCpus_allowed:\tff\nCpus_allowed_list:\t{list}\nMems:\t1\n"),
        )
    }

    fn node(self, node: usize, list: &str) -> Tree {
        self.file(&format!("sys/devices/system/node/node{node}/cpulist"), format!("{list}\n"))
    }

    /// A CPU with all its files; L1 data and instruction caches come first, as in the kernel.
    fn cpu(self, cpu: usize, package: &str, siblings: &str, l2: &str, l3: Option<&str>) -> Tree {
        let cache = |tree: Tree, index: usize, level: &str, kind: &str, list: &str| {
            tree.cpu_file(cpu, &format!("cache/index{index}/level"), level)
                .cpu_file(cpu, &format!("cache/index{index}/type"), kind)
                .cpu_file(cpu, &format!("cache/index{index}/shared_cpu_list"), list)
        };
        let tree = self.cpu_file(cpu, "topology/physical_package_id", package).cpu_file(
            cpu,
            "topology/thread_siblings_list",
            siblings,
        );
        let tree = cache(tree, 0, "1", "Data", siblings);
        let tree = cache(tree, 1, "1", "Instruction", siblings);
        let tree = cache(tree, 2, "2", "Unified", l2);
        match l3 {
            Some(l3) => cache(tree, 3, "3", "Unified", l3),
            None => tree,
        }
    }

    /// Two packages of two cores with two CPUs each; CPU i + 4 is the sibling of CPU i; one node per package.
    fn two_packages() -> Tree {
        let mut tree = Tree::new().online("0-7").mask("0-7").node(0, "0-1,4-5").node(1, "2-3,6-7");
        for cpu in 0..8 {
            let core = cpu % 4;
            let siblings = format!("{core},{}", core + 4);
            let (package, l3) = if core < 2 { ("0", "0-1,4-5") } else { ("1", "2-3,6-7") };
            tree = tree.cpu(cpu, package, &siblings, &siblings, Some(l3));
        }
        tree
    }

    fn topology(&self) -> Topology {
        read(&self.root, 3)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A tree that stays behind harms no later run: names hold the process id.
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn os(topology: &Topology) -> Vec<usize> {
    topology.cpus().iter().map(|cpu| cpu.os).collect()
}

fn column(topology: &Topology, of: impl Fn(&Cpu) -> usize) -> Vec<usize> {
    topology.cpus().iter().map(of).collect()
}

#[test]
fn each_core_is_used_once_before_any_sibling() {
    let tree = Tree::new().online("0-3").mask("0-3").node(0, "0-3");
    let tree = [("0-1", 0), ("0-1", 1), ("2-3", 2), ("2-3", 3)]
        .into_iter()
        .fold(tree, |tree, (siblings, cpu)| tree.cpu(cpu, "0", siblings, siblings, Some("0-3")));
    let topology = tree.topology();
    assert_eq!(os(&topology), [0, 2, 1, 3]);
    assert_eq!(column(&topology, |cpu| cpu.core), [0, 1, 0, 1]);
    assert_eq!(topology.usable(), 4);
}

#[test]
fn packages_nodes_and_caches_are_told_apart() {
    let topology = Tree::two_packages().topology();
    assert_eq!(os(&topology), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(column(&topology, |cpu| cpu.core), [0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(column(&topology, |cpu| cpu.l2), [0, 1, 2, 3, 0, 1, 2, 3]);
    for of in [|cpu: &Cpu| cpu.package, |cpu: &Cpu| cpu.numa, |cpu: &Cpu| cpu.l3] {
        assert_eq!(column(&topology, of), [0, 0, 1, 1, 0, 0, 1, 1]);
    }
    assert_eq!((topology.packages(), topology.numa_nodes()), (vec![0, 1], vec![0, 1]));
}

#[test]
fn neighbours_in_the_order_share_a_node() {
    // As many servers number them: even CPUs in package 0, odd ones in package 1.
    let mut tree = Tree::new().online("0-3").mask("0-3").node(0, "0,2").node(1, "1,3");
    for cpu in 0..4 {
        let (package, l3) = if cpu % 2 == 0 { ("0", "0,2") } else { ("1", "1,3") };
        tree = tree.cpu(cpu, package, &cpu.to_string(), &cpu.to_string(), Some(l3));
    }
    assert_eq!(os(&tree.topology()), [0, 2, 1, 3]);
}

#[test]
fn only_cpus_of_the_mask_that_are_online_count() {
    let tree = Tree::two_packages().mask("2-7").online("0-3,6,8");
    let topology = tree.topology();
    assert_eq!(os(&topology), [2, 3, 6]);
    assert_eq!(column(&topology, |cpu| cpu.core), [0, 1, 0], "cores are numbered over the CPUs that count");
    assert_eq!(
        (topology.packages(), topology.numa_nodes()),
        (vec![1], vec![1]),
        "these keep the system's numbers"
    );
}

#[test]
fn the_mask_of_the_calling_thread_wins_over_that_of_the_process() {
    let tree = Tree::two_packages().file("proc/thread-self/status", "Cpus_allowed_list:\t5\n");
    assert_eq!(os(&tree.topology()), [5]);
}

#[test]
fn a_quota_limits_what_is_used_but_not_what_is_there() {
    let topology = Tree::two_packages().topology();
    assert_eq!(
        (topology.clone().limited_to(2).usable(), topology.clone().limited_to(2).cpus().len()),
        (2, 8)
    );
    assert_eq!(topology.clone().limited_to(0).usable(), 1);
    assert_eq!(topology.limited_to(100).usable(), 8);
}

#[test]
fn threads_beyond_the_cpus_begin_again() {
    let topology = Tree::two_packages().mask("1,6").topology();
    let places = topology.processors(4, 3);
    let expected = [(0, 1, 0), (1, 6, 1), (2, 1, 0)];
    assert_eq!(places, expected.map(|(thread, cpu, numa)| Processor::cpu_thread(4, thread, Some(cpu), numa)));
    assert_eq!(topology.processors(0, 0), []);
}

#[test]
fn nothing_to_read_gives_bare_cpus() {
    let topology = Tree::new().topology();
    assert_eq!(os(&topology), [0, 1, 2], "as many as the program may use");
    assert_eq!(column(&topology, |cpu| cpu.core), [0, 1, 2]);
    assert_eq!(column(&topology, |cpu| cpu.l2), [0, 1, 2]);
    assert_eq!(column(&topology, |cpu| cpu.l3), [0, 0, 0]);
    assert_eq!((topology.packages(), topology.numa_nodes()), (vec![0], vec![0]));
    assert_eq!(os(&read(Path::new("/nonexistent"), 0)), [0], "at least one");
}

#[test]
fn without_a_list_of_online_cpus_the_mask_is_taken_as_far_as_it_may_be_used() {
    assert_eq!(os(&Tree::new().mask("4-127").topology()), [4, 5, 6]);
}

#[test]
fn without_a_mask_all_online_cpus_count() {
    assert_eq!(os(&Tree::new().online("0-4").topology()), [0, 1, 2, 3, 4]);
    assert_eq!(os(&Tree::new().file("sys/devices/system/cpu/present", "0-1").topology()), [0, 1]);
}

#[test]
fn a_mask_that_contradicts_the_online_cpus_is_as_nothing() {
    assert_eq!(os(&Tree::new().online("0-1").mask("5").topology()), [0, 1, 2]);
}

#[test]
fn core_numbers_are_used_within_their_package_where_siblings_are_missing() {
    let mut tree = Tree::new().online("0-5");
    for (cpu, package, core) in [(0, "0", "7"), (1, "0", "7"), (2, "1", "7"), (3, "1", "8"), (4, "-1", "8")] {
        tree = tree.cpu_file(cpu, "topology/physical_package_id", package).cpu_file(
            cpu,
            "topology/core_id",
            core,
        );
    }
    let topology = tree.topology();
    let mut cpus = topology.cpus().to_vec();
    cpus.sort_by_key(|cpu| cpu.os);
    assert_eq!(cpus.iter().map(|cpu| cpu.core).collect::<Vec<_>>(), [0, 0, 1, 2, 3, 4]);
    assert_eq!(cpus.iter().map(|cpu| cpu.package).collect::<Vec<_>>(), [0, 0, 1, 1, 0, 0]);
}

#[test]
fn a_machine_without_an_l3_shares_by_package() {
    let tree = Tree::new().online("0-1").cpu(0, "0", "0", "0-1", None).cpu(1, "0", "1", "0-1", None);
    let topology = tree.topology();
    assert_eq!(column(&topology, |cpu| cpu.l2), [0, 0]);
    assert_eq!(column(&topology, |cpu| cpu.l3), [0, 0]);
}

#[test]
fn an_l2_for_instructions_only_is_passed_over() {
    let tree = Tree::new().online("0-1").cpu(0, "0", "0", "0", None).cpu(1, "0", "1", "1", None);
    let tree = tree.cpu_file(1, "cache/index0/level", "2").cpu_file(1, "cache/index0/type", "Instruction");
    let tree = tree.cpu_file(1, "cache/index0/shared_cpu_list", "0-1");
    assert_eq!(column(&tree.topology(), |cpu| cpu.l2), [0, 1]);
}

#[test]
fn a_list_that_does_not_hold_its_own_cpu_is_not_believed() {
    let tree = Tree::new().online("0-1").cpu(0, "0", "1", "1", Some("1")).cpu(1, "0", "1", "1", Some("1"));
    let topology = tree.topology();
    assert_eq!(column(&topology, |cpu| cpu.core), [0, 1]);
    assert_eq!(column(&topology, |cpu| cpu.l2), [0, 1]);
}

#[test]
fn a_node_without_cpus_is_none_of_ours() {
    let topology = Tree::new().online("0-1").node(0, "").node(1, "0-1").node(2, "garbage").topology();
    assert_eq!(topology.numa_nodes(), [1]);
}

#[test]
fn a_directory_in_place_of_a_file_says_nothing() {
    let tree = Tree::new().file("sys/devices/system/cpu/online/surprise", "").mask("0-1");
    assert_eq!(os(&tree.topology()), [0, 1]);
}

/// What the numbered invariants of the module promise of every topology.
fn check(topology: &Topology) {
    let cpus = topology.cpus();
    assert!((1..=cpus.len()).contains(&topology.usable()));
    assert_eq!(os(topology).iter().collect::<BTreeSet<_>>().len(), cpus.len(), "each CPU once");
    let rank = |i: usize| cpus[..i].iter().filter(|cpu| cpu.core == cpus[i].core).count();
    assert!((0..cpus.len()).is_sorted_by_key(rank), "cores before siblings");
    for of in [|cpu: &Cpu| cpu.core, |cpu: &Cpu| cpu.l2, |cpu: &Cpu| cpu.l3] {
        let groups: BTreeSet<usize> = cpus.iter().map(of).collect();
        assert!(groups.iter().copied().eq(0..groups.len()), "numbered from 0");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn garbage_in_any_file_still_gives_a_machine(
        damage in proptest::collection::vec((0usize..64, proptest::collection::vec(any::<u8>(), 0..12)), 1..8),
        digits in proptest::collection::vec((0usize..64, "[0-9,-]{0,6}"), 0..8),
    ) {
        let mut tree = Tree::two_packages();
        let mut paths = vec!["proc/self/status".to_owned(), "sys/devices/system/cpu/online".to_owned()];
        paths.extend((0..2).map(|node| format!("sys/devices/system/node/node{node}/cpulist")));
        for cpu in 0..8 {
            let files = ["topology/thread_siblings_list", "topology/physical_package_id"];
            let caches = ["cache/index2/level", "cache/index2/shared_cpu_list", "cache/index3/type", "cache/index3/shared_cpu_list"];
            let files = files.into_iter().chain(caches);
            paths.extend(files.map(|file| format!("sys/devices/system/cpu/cpu{cpu}/{file}")));
        }
        let digits = digits.into_iter().map(|(at, text)| (at, text.into_bytes()));
        for (at, bytes) in damage.into_iter().chain(digits) {
            tree = tree.file(&paths[at % paths.len()], bytes);
        }
        check(&tree.topology());
    }
}

#[test]
fn this_machine_is_detected() {
    let topology = Topology::detect();
    check(&topology);
    assert!(topology.usable() <= parallelism());
    assert_eq!(topology.processors(0, topology.usable()).len(), topology.usable());
    check(&Topology::from_root("/"));
}

/// Both sources name groups alike, so that they must agree on every field, not only on which CPUs share.
#[cfg(feature = "hwloc")]
#[test]
fn sysfs_and_hwloc_agree() {
    let hwloc = Topology::detect_hwloc().unwrap();
    let sysfs = read(Path::new("/"), parallelism()).limited_to(parallelism());
    assert_eq!(hwloc, sysfs);
    check(&hwloc);
}
