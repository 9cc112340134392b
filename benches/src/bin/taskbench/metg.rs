//! The minimum effective task granularity: how long a task has to be for the runtime to keep the CPUs busy.
//!
//! Slaughter et al., "Task Bench", SC20.

/// Longer tasks than this, in seconds, are not tried.
const GRANULARITY_MAX: f64 = 0.3e-3;

/// What a search is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    /// The efficiency to reach, as a part of 1.
    pub(crate) target: f64,
    pub(crate) threads: usize,
    pub(crate) tasks: u64,
    /// Kernel iterations a second of all threads at their best.
    pub(crate) peak: f64,
}

impl Search {
    /// The granularity `threads × wall / tasks` in µs at which the efficiency reaches the target: doubling the kernel until
    /// above, then bisecting on a logarithmic scale. `run` gives the wall seconds of all tasks with so many kernel iterations
    /// each. `None` if it takes more than 0.3 ms a task.
    pub(crate) fn granularity_us(self, mut run: impl FnMut(u64) -> f64) -> Option<f64> {
        let tasks = self.tasks as f64;
        let seconds_per_task = |wall: f64| self.threads as f64 * wall / tasks;
        let mut measure = |iterations: f64| {
            let wall = run(iterations as u64);
            (seconds_per_task(wall), tasks * iterations / self.peak / wall)
        };
        let (mut low, mut high) = (1.0, 1.0);
        loop {
            let (granularity, efficiency) = measure(high);
            if efficiency >= self.target {
                break;
            }
            if granularity > GRANULARITY_MAX {
                return None;
            }
            (low, high) = (high, 2.0 * high);
        }
        for _ in 0..6 {
            if high - low <= 1.0 {
                break;
            }
            let middle = (low * high).sqrt().round();
            if measure(middle).1 < self.target {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(measure(high).0 * 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search = Search { target: 0.5, threads: 2, tasks: 1000, peak: 2e9 };

    /// Two threads; each task costs so many seconds beside its kernel.
    fn overhead(seconds: f64) -> impl FnMut(u64) -> f64 {
        move |iterations| SEARCH.tasks as f64 / 2.0 * (seconds + iterations as f64 / 1e9)
    }

    #[test]
    fn at_half_efficiency_half_of_a_task_is_overhead() {
        let found = SEARCH.granularity_us(overhead(3e-6)).unwrap();
        assert!((found - 6.0).abs() < 0.1, "{found}");
        let strict = Search { target: 0.8, ..SEARCH }.granularity_us(overhead(3e-6)).unwrap();
        assert!((strict - 15.0).abs() < 0.3, "{strict}");
    }

    #[test]
    fn a_search_that_leads_nowhere_ends() {
        // Twice as long as it should be, however long it is.
        let mut calls = 0;
        let slow = |iterations: u64| {
            calls += 1;
            SEARCH.tasks as f64 * iterations as f64 / 1e9 * 1.1
        };
        assert_eq!(SEARCH.granularity_us(slow), None);
        assert!(calls < 30, "{calls}");
    }

    #[test]
    fn no_overhead_is_found_at_the_shortest_kernel() {
        let found = SEARCH.granularity_us(overhead(0.0)).unwrap();
        assert!((found - 0.001).abs() < 1e-9, "{found}");
    }
}
