//! [`Memory`]: how much is where.

use super::Store;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What [`Runtime::memory`](crate::Runtime::memory) tells. Sizes are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// The budget.
    pub limit: u64,
    /// In memory, in values of chunks.
    pub resident: u64,
    /// Of that, in use at this moment: by tasks that run or wait inside, and by guards.
    pub pinned: u64,
    /// The most that was in memory at once.
    pub peak: u64,
    /// Reserved for what is being read back, and for what running tasks have declared by the option `memory`.
    pub reserved: u64,
    /// Written down, as it lies in the store.
    pub spilled: u64,
    /// How many values have left memory.
    pub evictions: u64,
    /// How often a chunk was in memory when it was needed.
    pub hits: u64,
    /// How often it was not, so that a task or guard waited for it.
    pub misses: u64,
    /// Read back from what was written down.
    pub bytes_in: u64,
    /// Computed, or read from files of the user's ([`Chunk::lazy`](crate::Chunk::lazy), [`from_file`](crate::Chunk::from_file)).
    pub bytes_made: u64,
    /// Written down.
    pub bytes_out: u64,
    /// Time spent reading back, all threads together.
    pub read_time: Duration,
    /// Time spent writing, all threads together.
    pub write_time: Duration,
    /// How often something was let in although it did not fit, because nothing else could go on.
    pub over_budget: u64,
    /// Chunks that are counted here.
    pub chunks: usize,
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = (1 << 20) as f64;
        let mib = |bytes: u64| bytes as f64 / MIB;
        write!(
            f,
            "{:.1} of {:.1} MiB in memory (peak {:.1}, in use {:.1}), {:.1} MiB spilled; {} evictions, {:.1} MiB written, \
             {:.1} MiB read back",
            mib(self.resident),
            mib(self.limit),
            mib(self.peak),
            mib(self.pinned),
            mib(self.spilled),
            self.evictions,
            mib(self.bytes_out),
            mib(self.bytes_in),
        )
    }
}

impl Store {
    pub(crate) fn memory(&self) -> Memory {
        let ledger = self.ledger.lock();
        let residences = || ledger.entries.iter().map(|(_, entry)| &entry.residence);
        Memory {
            limit: self.limit,
            resident: self.resident.load(Relaxed),
            pinned: ledger.pinned(),
            peak: self.peak.load(Relaxed),
            reserved: ledger.reserved,
            spilled: ledger.spilled,
            evictions: ledger.evictions,
            hits: ledger.past_hits + residences().map(|residence| residence.hits()).sum::<u64>(),
            misses: self.misses.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_made: self.bytes_made.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            read_time: Duration::from_nanos(self.load_nanos.load(Relaxed)),
            write_time: Duration::from_nanos(self.write_nanos.load(Relaxed)),
            over_budget: ledger.over_budget,
            chunks: ledger.entries.len(),
        }
    }
}
