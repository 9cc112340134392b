//! What the program prints: a table, or JSON.

use std::time::Duration;

use dagger_async::store::Memory;

use crate::plan::Plan;

/// All that was found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) plan: Plan,
    pub(crate) threads: usize,
    pub(crate) policy: &'static str,
    /// At the end of the factorisation.
    pub(crate) memory: Memory,
    /// Of the factorisation, tiles made in it included.
    pub(crate) factor_time: Duration,
    pub(crate) check_time: Duration,
    /// ‖A·x − L·(Lᵀ·x)‖ ÷ (‖A‖·‖x‖), in the largest absolute values.
    pub(crate) residual: f64,
    pub(crate) checksum: u64,
}

impl Report {
    /// The residual in units of n·ε: below 1 for a factorisation that rounds and does nothing worse.
    pub(crate) fn scaled_residual(&self) -> f64 {
        self.residual / (self.plan.order as f64 * f64::EPSILON)
    }

    fn gflops(&self) -> f64 {
        self.plan.flops() / self.factor_time.as_secs_f64().max(1e-9) / 1e9
    }

    fn traffic(&self) -> u64 {
        self.memory.bytes_out + self.memory.bytes_in
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let Plan { order, tile, bytes, .. } = self.plan;
        let (memory, least) = (&self.memory, self.plan.least_traffic(self.memory.limit));
        let mib = |bytes: f64| format!("{:>10.1} MiB", bytes / f64::from(1 << 20));
        let rss = peak_rss().map_or("         ?".to_owned(), |bytes| mib(bytes as f64));
        format!(
            "\
A = L·Lᵀ of order {order}, in tiles of {tile}, on {} threads; who leaves memory: {}

matrix (tiles below and on the diagonal) {}
memory limit                             {}   {:.2} times less
most in tiles at once                    {}
most in the process at once              {}
spilled                                  {}   in {:.2} s of all threads, {} evictions
reloaded                                 {}   in {:.2} s of all threads, with making {}
both, of the least that any order needs  {:>10.2}

factored in {:.2} s, at {:.1} GFLOP/s; checked in {:.2} s
residual of A·x − L·(Lᵀ·x): {:.1e}, {:.1e} in units of n·ε
",
            self.threads,
            self.policy,
            mib(bytes as f64),
            mib(memory.limit as f64),
            bytes as f64 / memory.limit as f64,
            mib(memory.peak as f64),
            rss,
            mib(memory.bytes_out as f64),
            memory.write_time.as_secs_f64(),
            memory.evictions,
            mib(memory.bytes_in as f64),
            memory.read_time.as_secs_f64(),
            mib(memory.bytes_made as f64).trim_start(),
            self.traffic() as f64 / least.max(1.0),
            self.factor_time.as_secs_f64(),
            self.gflops(),
            self.check_time.as_secs_f64(),
            self.residual,
            self.scaled_residual(),
        )
    }

    /// For programs: one object on one line.
    pub(crate) fn json(&self) -> String {
        let memory = &self.memory;
        let integers = [
            ("bytes", self.plan.bytes),
            ("memory_limit", memory.limit),
            ("order", self.plan.order as u64),
            ("tile", self.plan.tile as u64),
            ("threads", self.threads as u64),
            ("tasks", self.plan.tasks()),
            ("spilled_bytes", memory.bytes_out),
            ("reloaded_bytes", memory.bytes_in),
            ("made_bytes", memory.bytes_made),
            ("least_bytes", self.plan.least_traffic(memory.limit) as u64),
            ("evictions", memory.evictions),
            ("over_budget", memory.over_budget),
            ("peak_bytes", memory.peak),
        ]
        .map(|(name, value)| format!(r#""{name}":{value}"#));
        let decimals = [
            ("residual", self.residual),
            ("scaled_residual", self.scaled_residual()),
            ("seconds", self.factor_time.as_secs_f64()),
            ("check_seconds", self.check_time.as_secs_f64()),
            ("gflops", self.gflops()),
            ("write_seconds", memory.write_time.as_secs_f64()),
            ("read_seconds", memory.read_time.as_secs_f64()),
        ]
        .map(|(name, value)| format!(r#""{name}":{}"#, number(value)));
        format!(
            "{{{},{},\"peak_rss_bytes\":{},\"eviction\":\"{}\",\"checksum\":\"{:016x}\"}}\n",
            integers.join(","),
            decimals.join(","),
            peak_rss().map_or("null".to_owned(), |bytes| bytes.to_string()),
            self.policy,
            self.checksum,
        )
    }
}

/// A JSON number, or `null` for what is none.
fn number(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { "null".to_owned() }
}

/// The most that this process has occupied, in bytes, where the system says it.
fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}
