//! Binding threads to processors. Where the system forbids it or has no such call, threads stay where it puts them:
//! slower at worst.

/// Binds the calling thread to one CPU.
pub(super) fn bind(cpu: usize) {
    #[cfg(target_os = "linux")]
    {
        linux::first_mask();
        let mut mask = rustix::thread::CpuSet::new();
        if cpu < rustix::thread::CpuSet::MAX_CPU {
            mask.set(cpu);
            let _ = rustix::thread::sched_setaffinity(None, &mask);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = cpu;
}

/// The CPU that the calling thread runs on at this moment.
pub(super) fn here() -> Option<usize> {
    #[cfg(target_os = "linux")]
    {
        Some(rustix::thread::sched_getcpu())
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Lets the calling thread run on every CPU that the process had when the first thread was bound.
pub(super) fn release() {
    #[cfg(target_os = "linux")]
    if let Some(mask) = linux::first_mask() {
        let _ = rustix::thread::sched_setaffinity(None, mask);
    }
}

/// Remembers the mask of a thread that is not bound yet: called where runtimes are built.
pub(super) fn remember() {
    #[cfg(target_os = "linux")]
    linux::first_mask();
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::thread::{CpuSet, sched_getaffinity};
    use std::sync::OnceLock;

    /// The mask of the first thread that asked: one that builds the first runtime, before any is bound.
    pub(super) fn first_mask() -> Option<&'static CpuSet> {
        static MASK: OnceLock<Option<CpuSet>> = OnceLock::new();
        MASK.get_or_init(|| sched_getaffinity(None).ok()).as_ref()
    }
}
