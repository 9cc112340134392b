//! In which of two ways the runs of a frozen graph go: shared by all workers, or left to one while its steps are tiny.
//!
//! ```text
//!   this way   8 runs, then 32, 128, 512     the other way   2 runs     faster? ─▶ that way from now on
//!                                                                       not?    ─▶ longer until the next look
//! ```
//! Which is faster depends on the graph, on what its steps touch and on how far the cores are apart: shared, a step of 20 ns takes
//! four times as long where each needs what another core has just written, and half as long where the data of all
//! is more than one core keeps near. So it is measured, by the time of whole runs, of which the fastest counts.

use std::time::Duration;

/// Runs in a way before the other one is looked at: at first, and at most.
const SPAN: u32 = 8;
const SPAN_MOST: u32 = 512;
/// Runs in the other way at a look, unless the first shows that it is slower.
const TRIAL: u32 = 2;

/// Which way is better, as far as the runs have shown.
pub(super) struct Ways {
    is_shared: bool,
    /// Runs in this way since the last look, and how many there are to be.
    runs: u32,
    span: u32,
    /// Of the fastest of them.
    time: Duration,
    /// The same of the way that this one is on trial against.
    against: Option<Duration>,
}

impl Ways {
    pub(super) const NEW: Ways =
        Ways { is_shared: true, runs: 0, span: SPAN, time: Duration::MAX, against: None };

    /// No run is shared.
    #[cfg(all(test, not(dagger_loom)))]
    pub(super) const ALONE: Ways = Ways { is_shared: false, span: u32::MAX, ..Ways::NEW };

    /// How the next run is to go.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// A run that went so has ended well, after this time.
    pub(super) fn add(&mut self, time: Duration) {
        (self.runs, self.time) = (self.runs + 1, self.time.min(time));
        match self.against {
            None if self.runs >= self.span => {
                self.against = Some(self.time);
                self.turn();
            }
            None => {}
            Some(before) => {
                let percent = |percent: u32| before.saturating_mul(percent) / 100;
                if self.runs >= TRIAL && self.time < percent(95) {
                    (self.against, self.span, self.runs, self.time) = (None, SPAN, 0, Duration::MAX);
                } else if self.runs >= TRIAL || self.time > percent(120) {
                    self.against = None;
                    self.span = SPAN_MOST.min(4 * self.span);
                    self.turn();
                }
            }
        }
    }

    fn turn(&mut self) {
        (self.is_shared, self.runs, self.time) = (!self.is_shared, 0, Duration::MAX);
    }
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;

    /// How many of so many runs are shared, where runs take so long, shared and alone.
    fn shared(ways: &mut Ways, runs: u32, shared: u64, alone: u64) -> u32 {
        let mut count = 0;
        for run in 0..runs {
            count += u32::from(ways.is_shared());
            let time = if ways.is_shared() { shared } else { alone };
            // Now and then something else has the cores.
            ways.add(Duration::from_micros(if run % 7 == 3 { 10 * time } else { time }));
        }
        count
    }

    #[test]
    fn runs_go_the_faster_way_and_the_other_one_is_looked_at_now_and_then() {
        let mut ways = Ways::NEW;
        assert!(ways.is_shared(), "at first");
        let first = shared(&mut ways, 1000, 100, 50);
        assert!((8..60).contains(&first), "{first}");
        let next = shared(&mut ways, 2000, 100, 50);
        assert!((1..20).contains(&next), "{next}");
        // Things change.
        let later = shared(&mut ways, 3000, 50, 100);
        assert!(later > 2000, "{later}");
    }

    #[test]
    fn about_the_same_is_no_reason_to_change() {
        for alone in [97, 100, 200] {
            let mut ways = Ways::NEW;
            let count = shared(&mut ways, 1000, 100, alone);
            assert!((970..1000).contains(&count), "{count} with {alone}");
        }
    }
}
