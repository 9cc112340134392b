//! The state of the machine: how long a cache line takes from one CPU to another.
//!
//! On shared hosts it changes by 3–5 times every few minutes, as the host moves virtual CPUs about, and every figure with
//! two threads moves with it.

use dagger_core::Topology;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Release},
};
use std::time::Instant;

const SAMPLES: u64 = 15;
/// There and back again, in a sample.
const ROUNDS: u64 = 2000;

/// Two CPUs that a line can go between.
pub struct Probe {
    cpus: [usize; 2],
}

impl Probe {
    /// The CPUs of the first two workers, where there are two that a thread may be bound to.
    pub fn new(topology: &Topology) -> Option<Probe> {
        let cpus: Vec<usize> =
            topology.processors(0, 2).into_iter().filter_map(|processor| processor.cpu).collect();
        let two = topology.usable() >= 2 && cpus.len() == 2 && cpus[0] != cpus[1];
        let bindable = |cpu| std::thread::spawn(move || bind(cpu)).join().unwrap_or(false);
        (two && cpus.iter().all(|&cpu| bindable(cpu))).then(|| Probe { cpus: [cpus[0], cpus[1]] })
    }

    /// One way, in ns: the median of 15 samples. Keeps both CPUs busy for about 10 ms.
    pub fn transfer_ns(&self) -> f64 {
        let line = Line(AtomicU64::new(0));
        let [here, there] = self.cpus;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                bind(there);
                (0..SAMPLES * ROUNDS).for_each(|round| line.pass(2 * round + 1));
            });
            let first = scope.spawn(|| {
                bind(here);
                let sample = |sample| {
                    let start = Instant::now();
                    (sample * ROUNDS..(sample + 1) * ROUNDS).for_each(|round| line.pass(2 * round));
                    start.elapsed().as_secs_f64() * 1e9 / (2 * ROUNDS) as f64
                };
                let mut samples: Vec<f64> = (0..SAMPLES).map(sample).collect();
                samples.sort_by(f64::total_cmp);
                samples[samples.len() / 2]
            });
            first.join().unwrap_or(f64::NAN)
        })
    }
}

fn bind(cpu: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: cpu })
}

/// A cache line of its own (two, as neighbours are fetched in pairs).
#[repr(align(128))]
struct Line(AtomicU64);

impl Line {
    /// Waits for `turn` and hands over to the other side. No pause in the loop: it would be part of the time.
    fn pass(&self, turn: u64) {
        while self.0.load(Acquire) != turn {}
        self.0.store(turn + 1, Release);
    }
}

/// What two measurements, before and after something, say of the machine meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Both below 80 ns.
    Near,
    /// Both above 120 ns.
    Far,
    /// In between, or the state changed.
    Mixed,
}

impl State {
    /// What both say.
    pub fn of(before_ns: f64, after_ns: f64) -> State {
        if before_ns.max(after_ns) < 80.0 {
            State::Near
        } else if before_ns.min(after_ns) > 120.0 {
            State::Far
        } else {
            State::Mixed
        }
    }

    /// As it stands in tables and lines.
    pub fn name(self) -> &'static str {
        match self {
            State::Near => "near",
            State::Far => "far",
            State::Mixed => "mixed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_needs_both_measurements() {
        assert_eq!(State::of(40.0, 79.0), State::Near);
        assert_eq!(State::of(121.0, 300.0), State::Far);
        assert_eq!(State::of(40.0, 200.0), State::Mixed);
        assert_eq!(State::of(100.0, 100.0), State::Mixed);
    }
}
