//! Which accesses to a chunk had to wait for which.
//!
//! ```text
//!   turn        1          2         3         4          5
//!   accesses  write all  read a    read b    write a    write all
//!   edges       1 ──────▶ 2 ───────────────▶ 4 ───────▶ 5
//!               └─────────────────▶ 3 ──────────────────▶┘         not 1 ▶ 4, 1 ▶ 5, 2 ▶ 5: they follow
//! ```
//! 1. Two accesses conflict if their parts overlap, one of them writes, and they are of different tasks.
//! 2. The edges lead from earlier turns to later ones, between conflicting accesses only, and what can be reached along them
//!    is what can be reached along all conflicting pairs.
//! 3. An access that a later write covers is forgotten: whatever conflicts with it conflicts with that write too.
//!
//! The cost of an access is the number of live accesses to parts that overlap its own; each pair of different parts is
//! compared once.

use dagger_core::Area;
use rustc_hash::{FxHashMap, FxHashSet};

/// One access to the chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touch<'a> {
    pub(crate) task: usize,
    pub(crate) turn: u64,
    pub(crate) writes: bool,
    pub(crate) part: &'a Area,
}

/// A part of the chunk, and the accesses to it that no later write covers.
#[derive(Default)]
struct Part {
    /// The parts that overlap this one, itself included unless it is empty, and whether this one covers them.
    meets: Vec<(usize, bool)>,
    writers: Vec<(u64, usize)>,
    readers: Vec<(u64, usize)>,
}

/// The pairs (earlier task, later task), from accesses in the order of their turns. Equal turns say nothing of their order.
pub(crate) fn immediate(touches: &[Touch]) -> Vec<(usize, usize)> {
    let mut chunk = Chunk::default();
    for turn in touches.chunk_by(|a, b| a.turn == b.turn) {
        for touch in turn {
            let part = chunk.part(touch.part);
            chunk.find(touch, part);
        }
        for touch in turn {
            let part = chunk.part(touch.part);
            chunk.enter(touch, part);
        }
    }
    chunk.pairs
}

#[derive(Default)]
struct Chunk<'a> {
    areas: Vec<&'a Area>,
    parts: Vec<Part>,
    part_of: FxHashMap<&'a Area, usize>,
    pairs: Vec<(usize, usize)>,
    /// The same, by the later task.
    before: FxHashMap<usize, Vec<usize>>,
}

impl<'a> Chunk<'a> {
    /// The number of this part.
    fn part(&mut self, area: &'a Area) -> usize {
        let Chunk { areas, parts, part_of, .. } = self;
        *part_of.entry(area).or_insert_with(|| {
            let new = areas.len();
            areas.push(area);
            parts.push(Part::default());
            for (other, &there) in areas.iter().enumerate() {
                if area.overlaps(there) {
                    parts[new].meets.push((other, area.covers(there)));
                    if other != new {
                        parts[other].meets.push((new, there.covers(area)));
                    }
                }
            }
            new
        })
    }

    /// Adds the edges to this access.
    fn find(&mut self, touch: &Touch, part: usize) {
        let mut found: Vec<(u64, usize)> = Vec::new();
        for &(other, _) in &self.parts[part].meets {
            found.extend(&self.parts[other].writers);
            if touch.writes {
                found.extend(&self.parts[other].readers);
            }
        }
        found.retain(|&(_, other)| other != touch.task);
        // The newest first: what it comes after need not be said again.
        found.sort_unstable_by(|a, b| b.cmp(a));
        let mut follows: FxHashSet<usize> = FxHashSet::default();
        for &(_, other) in &found {
            if !follows.insert(other) {
                continue;
            }
            self.pairs.push((other, touch.task));
            self.before.entry(touch.task).or_default().push(other);
            if found.len() > 1
                && let Some(earlier) = self.before.get(&other)
            {
                follows.extend(earlier);
            }
        }
    }

    /// From here on it is an earlier access.
    fn enter(&mut self, touch: &Touch, part: usize) {
        if !touch.writes {
            self.parts[part].readers.push((touch.turn, touch.task));
            return;
        }
        let meets = std::mem::take(&mut self.parts[part].meets);
        for &(other, _) in meets.iter().filter(|&&(_, covers)| covers) {
            let stays = |&(turn, _): &(u64, usize)| turn == touch.turn;
            self.parts[other].writers.retain(stays);
            self.parts[other].readers.retain(stays);
        }
        self.parts[part].meets = meets;
        self.parts[part].writers.push((touch.turn, touch.task));
    }
}
