//! Samples as they come: each with the state of the machine before and after it.

use crate::line::Line;
use crate::machine::Others;
use crate::pingpong::Probe;
use dagger_core::Topology;

/// What was measured, and with which state of the machine around it.
pub struct Log {
    probe: Option<Probe>,
    others: Others,
    lines: Vec<Line>,
}

impl Log {
    /// Each line goes to the standard output as it comes.
    #[allow(clippy::new_without_default, reason = "it measures the machine")]
    pub fn new() -> Log {
        Log { probe: Probe::new(&Topology::detect()), others: Others::new(), lines: Vec::new() }
    }

    /// All lines so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Takes a sample and notes what the machine was like.
    pub fn add(&mut self, rep: usize, sample: impl FnOnce() -> Vec<Line>) {
        let look = || self.probe.as_ref().map(Probe::transfer_ns);
        let before = look();
        self.others.percent();
        let lines = sample();
        let others = self.others.percent().round() as u64;
        let pingpong = before.zip(look());
        for line in lines {
            // Not what a peer's program says of itself: some count from the start of the machine in their first line.
            let line = line.with("others_pct", others).with("rep", rep).with_pingpong(pingpong);
            println!("{line}");
            self.lines.push(line);
        }
    }
}
