//! How much memory the process may use.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes of memory that the process may use: that of the machine, or less where a cgroup limits it. `None` where the system
/// does not say (only Linux does).
#[must_use]
pub fn usable_memory() -> Option<u64> {
    usable(Path::new("/"))
}

fn usable(root: &Path) -> Option<u64> {
    let machine = machine(&fs::read_to_string(root.join("proc/meminfo")).ok()?)?;
    Some(groups(root).into_iter().flat_map(|folder| limits(root, &folder)).fold(machine, u64::min))
}

/// `MemTotal:       24689764 kB`
fn machine(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The folders of the groups that the process is in: of version 2 (`0::/a/b`), and of the memory controller of version 1
/// (`7:memory:/a/b`).
fn groups(root: &Path) -> Vec<PathBuf> {
    let list = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let folder = |line: &str| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let mount = match controllers {
            "" => "sys/fs/cgroup",
            _ if controllers.split(',').any(|name| name == "memory") => "sys/fs/cgroup/memory",
            _ => return None,
        };
        Some(Path::new(mount).join(path.trim_start_matches('/')))
    };
    list.lines().filter_map(folder).collect()
}

/// The limits of a group and of those around it. Inside a container the path may be one that is not mounted: then the mount
/// itself is the group.
fn limits(root: &Path, folder: &Path) -> Vec<u64> {
    let read = |folder: &Path| {
        let file = |name| fs::read_to_string(root.join(folder).join(name)).ok();
        file("memory.max").or_else(|| file("memory.limit_in_bytes"))?.trim().parse().ok() // `max`: no limit
    };
    folder.ancestors().filter(|folder| folder.starts_with("sys/fs/cgroup")).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str, files: &[(&str, &str)]) -> Machine {
            let root = std::env::temp_dir().join(format!("dagger-memory-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("a file lies in a folder"))
                    .expect("temp is writable");
                fs::write(path, text).expect("temp is writable");
            }
            Machine(root)
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 12 kB\n");

    #[test]
    fn without_a_group_it_is_that_of_the_machine() {
        assert_eq!(usable(&Machine::new("none", &[MEMINFO]).0), Some(1_024_000));
        assert_eq!(usable(&Machine::new("nothing", &[("proc/version", "")]).0), None);
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let machine = Machine::new(
            "v2",
            &[
                MEMINFO,
                ("proc/self/cgroup", "0::/a/b\n"),
                ("sys/fs/cgroup/a/memory.max", "4096\n"),
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ],
        );
        assert_eq!(usable(&machine.0), Some(4096));
    }

    #[test]
    fn version_one_and_a_path_outside_the_container() {
        let machine = Machine::new(
            "v1",
            &[
                MEMINFO,
                ("proc/self/cgroup", "3:cpu:/x\n7:memory:/docker/1234\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "8192\n"),
            ],
        );
        assert_eq!(usable(&machine.0), Some(8192));
    }

    #[test]
    fn this_machine_has_some() {
        assert!(usable_memory().is_none_or(|bytes| bytes > 1 << 20));
    }
}
