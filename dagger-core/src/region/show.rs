//! Regions as a user would write them.

use std::fmt::{self, Display, Formatter};

use super::{Area, Axis, Band, Grid, Outside, Progression};

impl Display for Progression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let &Progression { start, step, len } = self;
        let many = if step == 1 { 2 } else { 0 };
        match (self.is_resolved(), step == 1 || len == 1) {
            (false, true) if start == 0 => f.write_str(".."),
            (false, true) => write!(f, "{start}.."),
            (false, false) => write!(f, "({start}..).step_by({step})"),
            (true, _) if len < many || len <= 1 => write!(f, "{start}..{}", start.saturating_add(len)),
            (true, true) => write!(f, "{start}..{}", start.saturating_add(len)),
            (true, false) => write!(f, "({start}..{}).step_by({step})", self.last().saturating_add(1)),
        }
    }
}

impl Display for Axis {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Axis::Step(progression) => progression.fmt(f),
            Axis::List(list) => write!(f, "{:?}", &**list),
        }
    }
}

impl Display for Band {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let &Band { row_step, col_step, lo, hi } = self;
        if (row_step, col_step) != (1, 1) {
            if lo != i64::MIN {
                write!(f, "{lo} <= ")?;
            }
            write!(f, "{col_step}*col - {row_step}*row")?;
            return if hi != i64::MAX { write!(f, " <= {hi}") } else { Ok(()) };
        }
        match (lo, hi) {
            (i64::MIN, 0) => f.write_str("lower"),
            (i64::MIN, -1) => f.write_str("lower.strict"),
            (0, i64::MAX) => f.write_str("upper"),
            (1, i64::MAX) => f.write_str("upper.strict"),
            (0, 0) => f.write_str("diag"),
            (i64::MIN, i64::MAX) => f.write_str("band(..)"),
            (i64::MIN, hi) => write!(f, "band(..={hi})"),
            (lo, i64::MAX) => write!(f, "band({lo}..)"),
            (lo, hi) if lo == hi => write!(f, "band({lo})"),
            (lo, hi) => write!(f, "band({lo}..={hi})"),
        }
    }
}

impl Display for Grid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, band) in self.bands().iter().enumerate() {
            write!(f, "{}{band}", if i == 0 { "" } else { " & " })?;
        }
        if !self.bands().is_empty() {
            if self.axes().iter().all(|axis| *axis == Axis::all()) {
                return Ok(());
            }
            f.write_str(" of ")?;
        }
        for (i, axis) in self.axes().iter().enumerate() {
            write!(f, "{}{axis}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Display for Area {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Area::Whole => f.write_str("whole"),
            Area::Grid(grid) => grid.fmt(f),
            Area::Bytes(bytes) => write!(f, "bytes {}..{}", bytes.start, bytes.end),
            Area::Custom(region) => region.fmt(f),
        }
    }
}

impl Display for Outside {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Outside::Bounds { axis: 0, what, len } => write!(f, "{what} of a length of {len}"),
            Outside::Bounds { axis, what, len } => write!(f, "{what} of a length of {len} (axis {axis})"),
            Outside::Rank { asked, has } => write!(f, "a region of rank {asked} where the rank is {has}"),
            Outside::Reversed { start, end } => write!(f, "{start}..{end} ends before it starts"),
            Outside::Step => f.write_str("a step of 0"),
            Outside::TooLarge => f.write_str("a position that does not fit in 64 bits"),
            Outside::Unsupported(what) => write!(f, "not possible as a region: {what}"),
        }
    }
}
