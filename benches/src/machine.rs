//! What runs the measurements, and what else it runs meanwhile.

use std::time::Instant;

/// The CPUs, as the system names them.
pub fn cpu_model() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{cpus} CPUs ({})", model.map_or(std::env::consts::ARCH, |(_, model)| model.trim()))
}

/// Ticks a second in `/proc`: a constant of Linux's interface, whatever the kernel's own clock.
const TICKS: f64 = 100.0;

/// How much of the machine's CPU time other processes use: a figure taken while they use much is worth nothing.
pub struct Others {
    since: Instant,
    busy: f64,
    own: f64,
}

impl Others {
    /// From now on.
    #[expect(clippy::new_without_default, reason = "the time of the call matters")]
    pub fn new() -> Others {
        Others { since: Instant::now(), busy: busy_seconds(), own: own_seconds() }
    }

    /// Percent of all CPUs since the last call. Precise to a tick of 10 ms, so ask every 0.1 s or more. 0 where the
    /// system does not say.
    pub fn percent(&mut self) -> f64 {
        let now = Others::new();
        let cpus = std::thread::available_parallelism().map_or(1.0, |cpus| cpus.get() as f64);
        let seconds = (now.since - self.since).as_secs_f64();
        let others = (now.busy - self.busy) - (now.own - self.own);
        *self = now;
        (100.0 * others / (cpus * seconds)).max(0.0)
    }
}

/// All CPU time but idle and waiting for disks.
fn busy_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = numbers(stat.lines().next().unwrap_or_default().trim_start_matches("cpu"));
    ticks.iter().take(8).enumerate().filter(|(at, _)| ![3, 4].contains(at)).map(|(_, t)| t).sum::<f64>()
        / TICKS
}

/// This process and the children that it has waited for.
fn own_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything: state, then 10 fields, then four times.
    let fields =
        numbers(stat.rsplit_once(')').map_or("", |(_, rest)| rest.trim_start_matches([' ', 'R', 'S'])));
    fields.iter().skip(10).take(4).sum::<f64>() / TICKS
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_uses_is_its_own() {
        let (busy, own) = (busy_seconds(), own_seconds());
        let start = Instant::now();
        while start.elapsed().as_millis() < 200 {
            std::hint::black_box(start);
        }
        let (busy, own) = (busy_seconds() - busy, own_seconds() - own);
        assert!(own > 0.0, "{own} s of 0.2 s");
        assert!(busy + 0.05 > own, "{busy} s in all, {own} s of them ours");
    }
}
