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

/// The pairs (earlier task, later task), from accesses in the order of their turns.
pub(crate) fn immediate<'a>(touches: impl Iterator<Item = Touch<'a>>) -> Vec<(usize, usize)> {
    let mut areas: Vec<&Area> = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    let mut part_of: FxHashMap<&Area, usize> = FxHashMap::default();
    let mut before: FxHashMap<usize, Vec<usize>> = FxHashMap::default(); // the edges found, by the later task
    let mut pairs = Vec::new();
    let mut found: Vec<(u64, usize)> = Vec::new();
    let mut follows: FxHashSet<usize> = FxHashSet::default();

    for Touch { task, turn, writes, part: area } in touches {
        let part = *part_of.entry(area).or_insert_with(|| {
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
        });

        found.clear();
        for &(other, _) in &parts[part].meets {
            found.extend(&parts[other].writers);
            if writes {
                found.extend(&parts[other].readers);
            }
        }
        found.retain(|&(earlier, other)| earlier < turn && other != task);
        // The newest first: what it comes after need not be said again.
        found.sort_unstable_by(|a, b| b.cmp(a));
        follows.clear();
        let several = found.len() > 1;
        for &(_, other) in &found {
            if follows.insert(other) {
                pairs.push((other, task));
                before.entry(task).or_default().push(other);
                if several && let Some(earlier) = before.get(&other) {
                    follows.extend(earlier);
                }
            }
        }

        if writes {
            let meets = std::mem::take(&mut parts[part].meets);
            for &(other, _) in meets.iter().filter(|&&(_, covers)| covers) {
                let forget = |&(earlier, _): &(u64, usize)| earlier >= turn;
                parts[other].writers.retain(forget);
                parts[other].readers.retain(forget);
            }
            parts[part].meets = meets;
            parts[part].writers.push((turn, task));
        } else {
            parts[part].readers.push((turn, task));
        }
    }
    pairs
}
