//! Links in order: none twice, none back, how deep each node is, and which of them follow from others.

use std::collections::VecDeque;
use std::collections::hash_map::Entry as Slot;

use super::sketch::{Link, Node, Why};
use crate::model::{Edge, EdgeCause};
use rustc_hash::{FxHashMap, FxHashSet};

/// One link for all edges between the same two tasks; none that leads nowhere.
pub(super) fn simple(edges: &[Edge], tasks: usize) -> Vec<Link> {
    let mut at: FxHashMap<(usize, usize), usize> = FxHashMap::default();
    let mut links: Vec<Link> = Vec::with_capacity(edges.len());
    for edge in edges {
        let Edge { from, to, cause } = *edge;
        if from >= tasks || to >= tasks || from == to {
            continue;
        }
        let why = match cause {
            EdgeCause::Argument => Why::Argument,
            EdgeCause::Data { .. } => Why::Data,
            EdgeCause::Order => Why::Order,
            EdgeCause::Awaited => Why::Awaited,
        };
        match at.entry((from, to)) {
            Slot::Occupied(link) => {
                let link = &mut links[*link.get()];
                link.why = link.why.min(why);
            }
            Slot::Vacant(slot) => {
                slot.insert(links.len());
                links.push(Link { from, to, why, edges: 1, critical: false });
            }
        }
    }
    links
}

/// The outgoing links of each node, as ranges of one list.
pub(super) fn outgoing(nodes: usize, links: &[Link]) -> (Vec<usize>, Vec<usize>) {
    let mut start = vec![0; nodes + 1];
    for link in links {
        start[link.from + 1] += 1;
    }
    for node in 0..nodes {
        start[node + 1] += start[node];
    }
    let mut next = start.clone();
    let mut list = vec![0; links.len()];
    for (at, link) in links.iter().enumerate() {
        list[next[link.from]] = at;
        next[link.from] += 1;
    }
    (start, list)
}

/// A place for each node such that links lead to later places, but for those that close a circle.
pub(super) fn forward(nodes: usize, links: &[Link]) -> Vec<usize> {
    let (start, list) = outgoing(nodes, links);
    let mut missing = vec![0usize; nodes];
    for link in links {
        missing[link.to] += 1;
    }
    let mut place = vec![usize::MAX; nodes];
    let mut ready: VecDeque<usize> = (0..nodes).filter(|&node| missing[node] == 0).collect();
    let (mut placed, mut forced) = (0, 0);
    while placed < nodes {
        let node = ready.pop_front().unwrap_or_else(|| {
            // A circle: it is opened at its first task.
            while place[forced] != usize::MAX {
                forced += 1;
            }
            forced
        });
        if place[node] != usize::MAX {
            continue;
        }
        place[node] = placed;
        placed += 1;
        for &link in &list[start[node]..start[node + 1]] {
            let to = links[link].to;
            missing[to] -= 1;
            if missing[to] == 0 && place[to] == usize::MAX {
                ready.push_back(to);
            }
        }
    }
    place
}

/// Marks the links of the critical path.
pub(super) fn mark(mut links: Vec<Link>, path: &[usize]) -> Vec<Link> {
    let steps: FxHashSet<(usize, usize)> = path.windows(2).map(|pair| (pair[0], pair[1])).collect();
    for link in &mut links {
        link.critical = steps.contains(&(link.from, link.to));
    }
    links
}

/// How deep each node is: the longest way to it from a node that waits for none.
pub(super) fn levels(sequence: &[usize], links: &[Link]) -> Vec<usize> {
    let (start, list) = outgoing(sequence.len(), links);
    let mut level = vec![0; sequence.len()];
    for &node in sequence {
        for &link in &list[start[node]..start[node + 1]] {
            let to = links[link].to;
            level[to] = level[to].max(level[node] + 1);
        }
    }
    level
}

/// What waits for nothing stands right above what waits for it.
pub(super) fn pull_down(nodes: &mut [Node], links: &[Link]) {
    let mut waits = vec![false; nodes.len()];
    let mut below = vec![usize::MAX; nodes.len()];
    for link in links {
        waits[link.to] = true;
        below[link.from] = below[link.from].min(nodes[link.to].row);
    }
    for (node, (waits, below)) in nodes.iter_mut().zip(waits.into_iter().zip(below)) {
        if !waits && below != usize::MAX {
            node.row = below - 1;
        }
    }
}

/// Drops links that follow from others, but for the critical ones; how many.
pub(super) fn reduce(nodes: &[Node], links: &mut Vec<Link>) -> usize {
    const NODES_MAX: usize = 4_000;
    if nodes.len() > NODES_MAX {
        return 0;
    }
    let (start, list) = outgoing(nodes.len(), links);
    let mut sequence: Vec<usize> = (0..nodes.len()).collect();
    sequence.sort_by_key(|&node| nodes[node].row);
    let mut place = vec![0; nodes.len()];
    for (at, &node) in sequence.iter().enumerate() {
        place[node] = at;
    }
    let words = nodes.len().div_ceil(64);
    let mut reach = vec![0u64; words * nodes.len()];
    let mut kept = vec![true; links.len()];
    for &node in sequence.iter().rev() {
        let mut out: Vec<usize> = list[start[node]..start[node + 1]].to_vec();
        out.sort_by_key(|&link| place[links[link].to]);
        for link in out {
            let to = links[link].to;
            if reach[node * words + to / 64] >> (to % 64) & 1 == 1 {
                kept[link] = links[link].critical;
                continue;
            }
            for word in 0..words {
                reach[node * words + word] |= reach[to * words + word];
            }
            reach[node * words + to / 64] |= 1 << (to % 64);
        }
    }
    let before = links.len();
    let mut kept = kept.into_iter();
    links.retain(|_| kept.next().unwrap_or(true));
    before - links.len()
}
