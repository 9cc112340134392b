//! What executes tasks: a pinned CPU thread, a thread for blocking bodies, or a device.
//!
//! 1. `(worker, kind, thread)` names a processor of a runtime; `cpu` and `numa` only describe it.
//! 2. A processor of kind [`ProcessorKind::Blocking`] is in no scope: a body goes there because it was declared
//!    blocking, not because a scope named it.
//!
//! It is a description, not a handle: nothing here runs or pins anything.

use std::fmt;

/// A place that executes tasks.
///
/// ```
/// use dagger_core::Processor;
///
/// let place = Processor::cpu_thread(0, 1, Some(1), 0);
/// assert_eq!(place.to_string(), "worker 0 thread 1 (cpu 1, numa 0)");
/// ```
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Index of the worker (the process) that owns it, from 0.
    pub worker: usize,
    /// Index among the worker's processors of the same kind, from 0: the `i` of `Scope::thread(i)` for a CPU
    /// thread, the device index (the `i` of `Scope::cuda_gpu(i)`) for a device.
    pub thread: usize,
    /// What it is.
    pub kind: ProcessorKind,
    /// Number, as the operating system counts, of the CPU it is pinned to, or would be if pinning is off.
    /// `None` where that is not known, and for blocking threads and devices.
    pub cpu: Option<usize>,
    /// NUMA node, as the operating system counts. 0 where that is not known, and for blocking threads and devices.
    pub numa: usize,
}

/// What kind of thing executes tasks.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessorKind {
    /// A worker thread, one per CPU, on which bodies compute.
    Cpu,
    /// A thread beside the pinned workers, on which bodies that may block run. It is in no scope.
    Blocking,
    /// An NVIDIA GPU.
    Cuda,
    /// An AMD GPU.
    Rocm,
    /// An Intel GPU.
    Intel,
    /// An Apple GPU.
    Metal,
    /// A GPU reached through wgpu.
    Wgpu,
}

impl Processor {
    /// CPU thread `thread` of `worker`, on CPU `cpu` (if known) of NUMA node `numa`.
    #[must_use]
    pub fn cpu_thread(worker: usize, thread: usize, cpu: Option<usize>, numa: usize) -> Processor {
        Processor { worker, thread, kind: ProcessorKind::Cpu, cpu, numa }
    }

    /// Thread `thread` of `worker` among those for bodies that may block. It is pinned nowhere.
    #[must_use]
    pub fn blocking(worker: usize, thread: usize) -> Processor {
        Processor { worker, thread, kind: ProcessorKind::Blocking, cpu: None, numa: 0 }
    }

    /// Device `index` of `kind` that `worker` owns; `index` becomes the field `thread`.
    ///
    /// A `kind` that is no device gives a processor of that kind with unknown CPU.
    #[must_use]
    pub fn device(worker: usize, kind: ProcessorKind, index: usize) -> Processor {
        Processor { worker, thread: index, kind, cpu: None, numa: 0 }
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Processor { worker, thread, kind, cpu, numa } = self;
        match (kind, cpu) {
            (ProcessorKind::Cpu, Some(cpu)) => {
                write!(f, "worker {worker} thread {thread} (cpu {cpu}, numa {numa})")
            }
            (ProcessorKind::Cpu, None) => {
                write!(f, "worker {worker} thread {thread} (numa {numa})")
            }
            (kind, _) => write!(f, "worker {worker} {kind} {thread}"),
        }
    }
}

impl ProcessorKind {
    /// The kinds that are devices.
    pub(crate) const DEVICES: [ProcessorKind; 5] = [
        ProcessorKind::Cuda,
        ProcessorKind::Rocm,
        ProcessorKind::Intel,
        ProcessorKind::Metal,
        ProcessorKind::Wgpu,
    ];
}

impl fmt::Display for ProcessorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProcessorKind::Cpu => "CPU thread",
            ProcessorKind::Blocking => "blocking thread",
            ProcessorKind::Cuda => "CUDA GPU",
            ProcessorKind::Rocm => "ROCm GPU",
            ProcessorKind::Intel => "Intel GPU",
            ProcessorKind::Metal => "Metal GPU",
            ProcessorKind::Wgpu => "wgpu GPU",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_prints_what_a_user_would_say() {
        let shown = |processor: Processor| processor.to_string();
        assert_eq!(shown(Processor::cpu_thread(0, 1, Some(5), 1)), "worker 0 thread 1 (cpu 5, numa 1)");
        assert_eq!(shown(Processor::cpu_thread(0, 1, None, 0)), "worker 0 thread 1 (numa 0)");
        assert_eq!(shown(Processor::blocking(2, 3)), "worker 2 blocking thread 3");
        assert_eq!(shown(Processor::device(1, ProcessorKind::Cuda, 0)), "worker 1 CUDA GPU 0");
    }

    #[test]
    fn a_device_keeps_its_index_in_thread() {
        assert_eq!(Processor::device(0, ProcessorKind::Metal, 4).thread, 4);
    }
}
