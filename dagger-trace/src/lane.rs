//! What one thread does, cut into pieces that do not overlap.
//!
//! ```text
//!   records   Start 1        Start 2      End 2        End 1
//!   pieces      [ task 1    )[ task 2    )[ task 1    )
//! ```
//! 1. Inside a body that waits, a thread may run another one: the stack holds what is under way, and only the top advances.
//! 2. Pieces come out in the order of time and do not overlap.

/// What a thread does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doing {
    /// It runs this task.
    Task(usize),
    /// It sleeps.
    Sleep,
}

/// A time during which it did one thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) doing: Doing,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// The walk along one lane.
pub(crate) struct LaneWalk {
    /// What is under way, and whether a piece of it is out already.
    stack: Vec<(Doing, bool)>,
    /// Since when the top is under way; without one, since when nothing is.
    since: u64,
}

impl LaneWalk {
    pub(crate) fn new() -> LaneWalk {
        LaneWalk { stack: Vec::new(), since: 0 }
    }

    /// Whether this is under way.
    pub(crate) fn does(&self, doing: Doing) -> bool {
        self.stack.iter().any(|&(other, _)| other == doing)
    }

    /// From here on it does this, and what was under way stands still.
    pub(crate) fn begin(&mut self, doing: Doing, at: u64) -> Option<Piece> {
        let piece = self.cut(at);
        self.stack.push((doing, false));
        self.since = at;
        piece.filter(|piece| piece.start < piece.end)
    }

    /// It no longer does this, nor what it began inside. If it had not begun it, says since when it may have done it.
    pub(crate) fn finish(&mut self, doing: Doing, at: u64) -> Result<Option<Piece>, u64> {
        let Some(depth) = self.stack.iter().rposition(|&(other, _)| other == doing) else {
            if !self.stack.is_empty() {
                return Ok(None); // it cannot be below what is under way
            }
            return Err(std::mem::replace(&mut self.since, at));
        };
        // An empty piece counts if it is all there is: a task that ran for less than the clock can tell has run.
        let whole = self.stack.last().is_some_and(|&(_, out)| !out);
        let piece = self.cut(at);
        self.stack.truncate(depth);
        self.since = at;
        Ok(piece.filter(|piece| whole || piece.start < piece.end))
    }

    /// The lane ends here.
    pub(crate) fn close(&mut self, at: u64) -> Option<Piece> {
        self.cut(at)
    }

    fn cut(&mut self, at: u64) -> Option<Piece> {
        let (doing, out) = self.stack.last_mut()?;
        *out |= self.since < at;
        Some(Piece { doing: *doing, start: self.since, end: at })
    }
}
