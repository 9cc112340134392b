//! What is drawn: which boxes, which links, and what the title says.
//!
//! ```text
//!   tasks ──forward──▶ levels ──┬─ few ──▶ a box each ─┬─▶ reduce ──▶ Sketch
//!   edges                       └─ many ─▶ fold ───────┘
//! ```
//! 1. A link leads from a row to a later one, or, where boxes are folded, to the right within a row.
//! 2. The sum over boxes of their tasks is the number of tasks of the trace.

use super::fold::Fold;
use super::order::{forward, levels, mark, pull_down, reduce, simple};
use super::{Colour, Graph};
use crate::draw::{self, Key, Names, many};
use crate::model::{EdgeCause, Task, Trace};
use crate::show::{count, time};
use dagger_core::record::End;
use rustc_hash::{FxHashMap, FxHashSet};

/// A box.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) label: String,
    /// A second line; empty for none.
    pub(super) detail: String,
    /// What it says when it is pointed at.
    pub(super) tip: String,
    /// Its entry in the key; a chunk has none.
    pub(super) colour: Option<usize>,
    pub(super) critical: bool,
    /// Something in it failed, was refused or cancelled.
    pub(super) broken: bool,
    pub(super) tasks: usize,
    pub(super) row: usize,
}

/// A line between boxes.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) why: Why,
    /// How many edges it stands for.
    pub(super) edges: usize,
    pub(super) critical: bool,
}

/// How a link is drawn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Why {
    Argument,
    Data,
    Order,
    Awaited,
}

/// A picture before anything has its place.
#[derive(Debug)]
pub(super) struct Sketch {
    pub(super) nodes: Vec<Node>,
    pub(super) links: Vec<Link>,
    pub(super) title: String,
    pub(super) notes: Vec<String>,
    pub(super) key: Vec<(String, String)>,
    /// Boxes stand for several tasks.
    pub(super) folded: bool,
}

impl Sketch {
    pub(super) fn new(graph: &Graph<'_>) -> Self {
        let trace = graph.trace;
        let links = simple(&trace.edges, trace.tasks.len());
        let order = forward(trace.tasks.len(), &links);
        let before = links.len();
        let links: Vec<Link> = links.into_iter().filter(|link| order[link.from] < order[link.to]).collect();
        let circles = before - links.len();
        let mut sequence: Vec<usize> = (0..order.len()).collect();
        sequence.sort_unstable_by_key(|&task| order[task]);
        let analysis = trace.analysis();
        let mut path: Vec<usize> = analysis.critical_path.iter().map(|step| step.task).collect();
        path.dedup();

        let names = Names::new(trace);
        let mut tasks = Tasks::new(graph, &names, &path);
        let mut links = mark(links, &path);
        let total = links.iter().map(|link| link.edges).sum::<usize>();
        let mut notes = Vec::new();
        if !path.is_empty() {
            notes.push(format!(
                "Critical path: {} that ran {} one after the other, of {} in all",
                many(path.len(), "task", "tasks"),
                time(analysis.span),
                time(analysis.work)
            ));
        }
        if circles > 0 {
            notes.push(format!("{} would close a circle and are not drawn", many(circles, "link", "links")));
        }
        if trace.lost > 0 {
            notes.push(format!(
                "{} lost: the buffers were full",
                many(usize::try_from(trace.lost).unwrap_or(usize::MAX), "record was", "records were")
            ));
        }

        let levels = levels(&sequence, &links);
        let mut nodes: Vec<Node>;
        let folded = trace.tasks.len() > graph.boxes_max;
        if folded {
            let fold = Fold::new(&names, trace, &levels, graph.boxes_max);
            nodes = tasks.groups(&fold);
            let (kept, inside) = fold.links(links);
            links = kept;
            notes.push(fold.note(trace.tasks.len(), inside));
            if graph.chunks {
                notes.push("Chunks are not drawn where tasks share boxes".to_owned());
            }
        } else {
            nodes = (0..trace.tasks.len()).map(|task| tasks.single(task, levels[task])).collect();
            if graph.chunks {
                add_chunks(trace, &mut nodes, &mut links);
                let links: Vec<Link> = links.clone();
                let order = forward(nodes.len(), &links);
                let mut sequence: Vec<usize> = (0..order.len()).collect();
                sequence.sort_unstable_by_key(|&node| order[node]);
                for (node, level) in nodes.iter_mut().zip(super::order::levels(&sequence, &links)) {
                    node.row = level;
                }
            }
            pull_down(&mut nodes, &links);
        }
        if !graph.implied {
            let left_out = reduce(nodes.as_slice(), &mut links);
            if left_out > 0 {
                notes.push(format!(
                    "{} follow from others and are not drawn",
                    many(left_out, "link", "links")
                ));
            }
        }
        debug_assert_eq!(
            nodes.iter().map(|node| node.tasks).sum::<usize>(),
            trace.tasks.len(),
            "invariant 2"
        );
        // Rows without boxes take no room.
        let mut used: Vec<usize> = nodes.iter().map(|node| node.row).collect();
        used.sort_unstable();
        used.dedup();
        for node in &mut nodes {
            node.row = used.partition_point(|&row| row < node.row);
        }
        let title = match trace.tasks.len() {
            0 => "Task graph: no task was recorded".to_owned(),
            count => {
                format!(
                    "Task graph: {}, {}",
                    many(count, "task", "tasks"),
                    many(total, "dependency", "dependencies")
                )
            }
        };
        let mut shown = vec![false; tasks.key.entries.len()];
        for node in &nodes {
            if let Some(colour) = node.colour {
                shown[colour] = true;
            }
        }
        let mut place = vec![0; shown.len()];
        let mut key = Vec::new();
        for (entry, text) in tasks.key.entries.into_iter().enumerate() {
            place[entry] = key.len();
            if shown[entry] {
                key.push(text);
            }
        }
        for node in &mut nodes {
            node.colour = node.colour.map(|colour| place[colour]);
        }
        Self { nodes, links, title, notes, key, folded }
    }
}

/// How tasks become boxes.
struct Tasks<'t> {
    trace: &'t Trace,
    by: Colour,
    durations: bool,
    names: &'t Names<'t>,
    key: Key,
    critical: Vec<bool>,
}

impl<'t> Tasks<'t> {
    fn new(graph: &Graph<'t>, names: &'t Names<'t>, path: &[usize]) -> Self {
        let trace = graph.trace;
        let key = match graph.colour {
            Colour::Name => Key::names(names, trace),
            Colour::Processor => Key::lanes(trace),
        };
        let mut critical = vec![false; trace.tasks.len()];
        path.iter().for_each(|&task| critical[task] = true);
        Self { trace, by: graph.colour, durations: graph.durations, names, key, critical }
    }

    /// The entry of the key for these tasks.
    fn colour(&self, tasks: &[usize]) -> usize {
        match self.by {
            Colour::Name => self.key.of[self.names.of[tasks[0]]],
            Colour::Processor => {
                let mut time: Vec<(u64, bool)> = vec![(0, false); self.trace.lanes.len()];
                for run in tasks.iter().flat_map(|&task| &self.trace.tasks[task].runs) {
                    if let Some(slot) = time.get_mut(run.lane) {
                        *slot = (slot.0.saturating_add(run.nanos()), true);
                    }
                }
                let lanes = (0..time.len()).rev().filter(|&lane| time[lane].1);
                lanes.max_by_key(|&lane| time[lane].0).unwrap_or(self.key.entries.len() - 1)
            }
        }
    }

    fn single(&mut self, task: usize, row: usize) -> Node {
        let info = &self.trace.tasks[task];
        let label = draw::line(&info.name);
        let fate = fate(info);
        let mut detail = match (info.runs.is_empty(), self.durations) {
            (true, _) => if fate.is_empty() { "did not run" } else { "" }.to_owned(),
            (false, true) => time(info.run_nanos()),
            (false, false) => String::new(),
        };
        if !fate.is_empty() {
            if !detail.is_empty() {
                detail.push_str(", ");
            }
            detail.push_str(fate);
        }
        Node {
            detail,
            tip: self.tip(task),
            colour: Some(self.colour(&[task])),
            critical: self.critical[task],
            broken: !fate.is_empty(),
            tasks: 1,
            row,
            label,
        }
    }

    fn tip(&self, task: usize) -> String {
        let info = &self.trace.tasks[task];
        let mut tip = format!("{} (task {})", draw::head(&draw::line(&info.name), 200), info.id);
        if !info.site.is_empty() {
            tip.push_str(&format!("\nspawned at {}", draw::head(&info.site, 200)));
        }
        if let Some(first) = info.runs.first() {
            tip.push_str(&format!("\nran {}", time(info.run_nanos())));
            if info.runs.len() > 1 {
                tip.push_str(&format!(" in {} parts", info.runs.len()));
            }
            if let Some(lane) = self.trace.lanes.get(first.lane) {
                tip.push_str(&format!(" on {}", draw::head(&lane.name, 100)));
            }
            if let Some(ready) = info.ready {
                tip.push_str(&format!(
                    "\nstarted {} after it was ready",
                    time(first.start.saturating_sub(ready))
                ));
            }
        }
        if self.critical[task] {
            tip.push_str("\non the critical path");
        }
        tip
    }

    fn groups(&mut self, fold: &Fold) -> Vec<Node> {
        let mut members = vec![Vec::new(); fold.rows.len()];
        for (task, &group) in fold.of.iter().enumerate() {
            members[group].push(task);
        }
        let mut nodes = Vec::with_capacity(members.len());
        for (group, tasks) in members.into_iter().enumerate() {
            let mut names: Vec<usize> = tasks.iter().map(|&task| self.names.of[task]).collect();
            names.sort_unstable();
            names.dedup();
            let mut label = match names[..] {
                [name] => draw::line(self.names.names[name]),
                _ => many(names.len(), "other name", "other names"),
            };
            if tasks.len() > 1 {
                label = format!("{} × {label}", count(tasks.len()));
            }
            let total =
                tasks.iter().fold(0u64, |sum, &task| sum.saturating_add(self.trace.tasks[task].run_nanos()));
            let ended = tasks.iter().filter(|&&task| !fate(&self.trace.tasks[task]).is_empty()).count();
            let on = tasks.iter().filter(|&&task| self.critical[task]).count();
            let mut detail = if self.durations { time(total) } else { String::new() };
            if ended > 0 {
                detail = format!("{detail}{}{ended} failed", if detail.is_empty() { "" } else { ", " });
            }
            let mut tip = format!("{}\nran {} in all", draw::head(&label, 200), time(total));
            if on > 0 {
                tip.push_str(&format!("\n{} on the critical path", many(on, "task", "tasks")));
            }
            nodes.push(Node {
                label,
                detail,
                tip,
                colour: Some(self.colour(&tasks)),
                critical: on > 0,
                broken: ended > 0,
                tasks: tasks.len(),
                row: fold.rows[group],
            });
        }
        nodes
    }
}

/// How a task ended, unless it ended well.
fn fate(task: &Task) -> &'static str {
    match task.end {
        None | Some(End::Done) => "",
        Some(End::Failed) => "failed",
        Some(End::Refused) => "refused",
        Some(End::Cancelled) => "cancelled",
        Some(_) => "ended otherwise",
    }
}

/// A small box for each version of a chunk, between the task that made it and those that take it.
fn add_chunks(trace: &Trace, nodes: &mut Vec<Node>, links: &mut Vec<Link>) {
    let mut version: FxHashMap<(Option<usize>, u64), usize> = FxHashMap::default();
    let mut node = |nodes: &mut Vec<Node>, maker: Option<usize>, chunk: u64| {
        *version.entry((maker, chunk)).or_insert_with(|| {
            let tip = match maker {
                Some(maker) => format!(
                    "chunk {chunk} as {} left it",
                    draw::head(&draw::line(&trace.tasks[maker].name), 200)
                ),
                None => format!("chunk {chunk} as it was at first"),
            };
            nodes.push(Node {
                label: format!("chunk {chunk}"),
                detail: String::new(),
                tip,
                colour: None,
                critical: false,
                broken: false,
                tasks: 0,
                row: 0,
            });
            nodes.len() - 1
        })
    };
    let writes = |task: usize, chunk: u64| {
        trace.tasks[task].accesses.iter().any(|access| access.chunk == chunk && access.writes)
    };
    let direct: FxHashMap<(usize, usize), usize> =
        links.iter().enumerate().map(|(at, link)| ((link.from, link.to), at)).collect();
    let mut through = vec![false; links.len()];
    let mut added: FxHashMap<(usize, usize), usize> = FxHashMap::default();
    let mut fed = FxHashSet::default();
    let mut join = |links: &mut Vec<Link>, from: usize, to: usize, critical: bool| {
        let at = *added.entry((from, to)).or_insert_with(|| {
            links.push(Link { from, to, why: Why::Data, edges: 1, critical: false });
            links.len() - 1
        });
        links[at].critical |= critical;
    };
    for edge in &trace.edges {
        let EdgeCause::Data { chunk } = edge.cause else { continue };
        let Some(&at) = direct.get(&(edge.from, edge.to)) else { continue };
        if !writes(edge.from, chunk) {
            continue;
        }
        let middle = node(nodes, Some(edge.from), chunk);
        let critical = links[at].critical;
        nodes[middle].critical |= critical;
        through[at] = links[at].why == Why::Data;
        join(links, edge.from, middle, critical);
        join(links, middle, edge.to, critical);
        fed.insert((edge.to, chunk));
    }
    let follows = trace.edges.iter().filter_map(|edge| match edge.cause {
        EdgeCause::Data { chunk } => Some((edge.to, chunk)),
        _ => None,
    });
    let follows: FxHashSet<(usize, u64)> = follows.collect();
    for (task, info) in trace.tasks.iter().enumerate() {
        for access in &info.accesses {
            if !follows.contains(&(task, access.chunk)) && fed.insert((task, access.chunk)) {
                let first = node(nodes, None, access.chunk);
                join(links, first, task, false);
            }
        }
    }
    let mut through = through.into_iter();
    links.retain(|_| !through.next().unwrap_or(false));
}
