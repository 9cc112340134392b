use crate::data::{Touch, immediate};
use dagger_core::{Area, Axis, Band, Grid, Progression};
use proptest::prelude::*;
use std::collections::HashSet;

fn area((kind, a, b): (u8, usize, usize)) -> Area {
    let line = |start, len| Axis::from(Progression::range(start, len));
    let grid = match kind {
        0 => return Area::Whole,
        1 => return Area::Bytes(a..a + b),
        2 => Grid::plane_band(line(0, 6), line(0, 6), Band::lower()),
        3 => Grid::plane(line(a, b), line(0, 6)),
        4 => Grid::plane(line(0, 6), line(a, b)),
        _ => Grid::line(line(a, b)),
    };
    Area::Grid(grid)
}

/// Everything that can be reached, one edge after the other.
fn closure(tasks: usize, pairs: &HashSet<(usize, usize)>) -> HashSet<(usize, usize)> {
    let mut all = pairs.clone();
    for through in 0..tasks {
        for from in 0..tasks {
            for to in 0..tasks {
                if all.contains(&(from, through)) && all.contains(&(through, to)) {
                    all.insert((from, to));
                }
            }
        }
    }
    all
}

proptest! {
    /// Also when several tasks have the same turn, which says nothing of their order, and when a task has several accesses.
    #[test]
    fn immediate_edges_reach_what_all_conflicting_pairs_reach(
        raw in prop::collection::vec((0..8usize, 0..3u64, any::<bool>(), (0..8u8, 0..5usize, 0..4usize)), 0..24),
    ) {
        let mut turn = 0;
        let areas: Vec<Area> = raw.iter().map(|&(.., kind)| area(kind)).collect();
        let touches: Vec<Touch> = raw.iter().zip(&areas).map(|(&(task, later, writes, _), part)| {
            turn += later;
            Touch { task, turn, writes, part }
        }).collect();
        let mut all = HashSet::new();
        for a in &touches {
            for b in touches.iter().filter(|b| a.turn < b.turn && a.task != b.task && (a.writes || b.writes)) {
                if a.part.overlaps(b.part) {
                    all.insert((a.task, b.task));
                }
            }
        }
        let found: HashSet<(usize, usize)> = immediate(&touches).into_iter().collect();
        prop_assert!(found.is_subset(&all));
        prop_assert_eq!(closure(8, &found), closure(8, &all));
    }

    /// With whole accesses only, and each task once, nothing is said that follows from the rest.
    #[test]
    fn whole_accesses_have_no_edge_too_many(writes in prop::collection::vec(any::<bool>(), 0..12)) {
        let touches = writes.iter().enumerate().map(|(task, &writes)| {
            Touch { task, turn: task as u64, writes, part: &Area::Whole }
        });
        let found = immediate(&touches.collect::<Vec<_>>());
        let set: HashSet<(usize, usize)> = found.iter().copied().collect();
        prop_assert_eq!(set.len(), found.len());
        for edge in &found {
            let mut others = set.clone();
            others.remove(edge);
            prop_assert!(!closure(writes.len(), &others).contains(edge), "{:?}", edge);
        }
    }
}
