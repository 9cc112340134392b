//! Which tasks share a box where there are too many for one each.

use std::collections::hash_map::Entry as Slot;

use super::sketch::Link;
use crate::draw::{Names, many};
use crate::model::Trace;
use crate::show::count;
use rustc_hash::FxHashMap;

/// Which tasks share a box.
///
/// A row has the boxes of some neighbouring levels, from left to right by the mean level of their tasks: a picture that is
/// read like text.
pub(super) struct Fold {
    /// The box of each task.
    pub(super) of: Vec<usize>,
    /// The row of each box; boxes are in the order of rows, and of places in them.
    pub(super) rows: Vec<usize>,
    /// How many levels make one row.
    levels: usize,
    /// Names that ran little share boxes.
    names_merged: bool,
}

impl Fold {
    /// Folds by name and level; then by the names that ran longest; then more and more levels together.
    pub(super) fn new(names: &Names<'_>, trace: &Trace, levels: &[usize], most: usize) -> Self {
        /// A row of more names is not read as a row.
        const NAMES_MAX: usize = 10;
        /// What is folded anyway is folded to a picture that is seen at once.
        const BOXES_MAX: usize = 160;
        let most = most.min(BOXES_MAX);
        let deepest = levels.iter().max().map_or(1, |level| level + 1);
        let mut rank = vec![0; names.names.len()];
        for (place, name) in names.ranked(trace).into_iter().enumerate() {
            rank[name] = place;
        }
        let group = |own: usize, height: usize| Self::group(names, levels, &rank, own, height);
        let fold = group(usize::MAX, 1);
        if fold.rows.len() <= most {
            return fold;
        }
        let own = if rank.len() > NAMES_MAX { NAMES_MAX.min(most) - 1 } else { rank.len() };
        // Each step higher drops boxes by about a fifth: the first height that fits is near the least one.
        let mut height = 1;
        loop {
            let fold = group(own, height);
            if fold.rows.len() <= most {
                return fold;
            }
            if height >= deepest {
                return group(most - 1, deepest);
            }
            height += height.div_ceil(4);
        }
    }

    /// Groups by row and name, where names of a rank beyond `own` are one.
    fn group(names: &Names<'_>, levels: &[usize], rank: &[usize], own: usize, height: usize) -> Self {
        /// Boxes of a row; more go on in the next one.
        const WIDE: usize = 16;
        struct Group {
            band: usize,
            tasks: usize,
            depth: usize,
            at: usize,
        }
        let mut at: FxHashMap<(usize, usize), usize> = FxHashMap::default();
        let mut groups: Vec<Group> = Vec::new();
        let mut of = Vec::with_capacity(levels.len());
        for (&name, &level) in names.of.iter().zip(levels) {
            let band = level / height;
            let group = *at.entry((band, rank[name].min(own))).or_insert_with(|| {
                groups.push(Group { band, tasks: 0, depth: 0, at: groups.len() });
                groups.len() - 1
            });
            groups[group].tasks += 1;
            groups[group].depth += level;
            of.push(group);
        }
        let depth = |group: &Group| group.depth as f64 / group.tasks as f64;
        groups.sort_by(|a, b| a.band.cmp(&b.band).then(depth(a).total_cmp(&depth(b))));
        let mut place = vec![0; groups.len()];
        let mut rows: Vec<usize> = Vec::with_capacity(groups.len());
        let mut room = WIDE;
        for (now, group) in groups.iter().enumerate() {
            place[group.at] = now;
            let row = match rows.last() {
                None => 0,
                Some(&row) if groups[now - 1].band == group.band && room > 0 => row,
                Some(&row) => {
                    room = WIDE;
                    row + 1
                }
            };
            room -= 1;
            rows.push(row);
        }
        of.iter_mut().for_each(|group| *group = place[*group]);
        Self { of, rows, levels: height, names_merged: own < names.names.len() }
    }

    /// The links between boxes, and how many edges lead back or stay inside of one.
    pub(super) fn links(&self, links: Vec<Link>) -> (Vec<Link>, usize) {
        let mut at: FxHashMap<(usize, usize), usize> = FxHashMap::default();
        let mut kept: Vec<Link> = Vec::new();
        let mut inside = 0;
        for link in links {
            let (from, to) = (self.of[link.from], self.of[link.to]);
            if from >= to {
                inside += link.edges;
                continue;
            }
            match at.entry((from, to)) {
                Slot::Occupied(slot) => {
                    let sum = &mut kept[*slot.get()];
                    sum.edges += link.edges;
                    sum.critical |= link.critical;
                    sum.why = sum.why.min(link.why);
                }
                Slot::Vacant(slot) => {
                    slot.insert(kept.len());
                    kept.push(Link { from, to, ..link });
                }
            }
        }
        (kept, inside)
    }

    pub(super) fn note(&self, tasks: usize, inside: usize) -> String {
        let mut note = format!(
            "Folded: {} by name and level in {}",
            many(tasks, "task", "tasks"),
            many(self.rows.len(), "box", "boxes")
        );
        if self.names_merged {
            note.push_str(", rare names together");
        }
        if self.levels > 1 {
            note.push_str(&format!(", {} levels to a row", count(self.levels)));
        }
        if inside > 0 {
            let inside = many(inside, "dependency", "dependencies");
            note.push_str(&format!("; {inside} inside of boxes or back within a row are not drawn"));
        }
        note
    }
}
