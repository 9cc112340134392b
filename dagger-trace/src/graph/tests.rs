use super::layout::{self, Plan, Rect, Route};
use super::sketch::Sketch;
use super::{Colour, Graph};
use crate::draw::width;
use crate::samples::{self, Dice, plan, simulate};
use crate::{Edge, EdgeCause, LaneInfo, Run, Task, Trace, TraceError};
use dagger_core::record::End;
use roxmltree::{Document, Node};
use std::time::SystemTime;

const HOSTILE: [&str; 9] = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'quoted' ]]> -->",
    "",
    " \t\n ",
    "a\u{0}b\u{1b}[31m\u{ffff}",
    "任务 ядро Ünïcödé 🚀🚀🚀 \u{202e}rtl",
    "WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW",
    "n0 [label=\"x\"]; \\",
    "e\u{301}\u{301}\u{301}\u{301}",
];

fn task(name: &str, runs: &[u64]) -> Task {
    let mut at = 0u64;
    let run = |nanos: &u64| {
        let start = at + 1;
        at = start.saturating_add(*nanos);
        Run { lane: 0, start, end: at }
    };
    Task {
        id: 1,
        name: name.to_owned(),
        site: "a.rs:1".to_owned(),
        parent: None,
        spawned: None,
        ready: None,
        runs: runs.iter().map(run).collect(),
        ended: None,
        end: Some(End::Done),
        place: None,
        retries: 0,
        accesses: Vec::new(),
    }
}

pub(crate) fn trace(tasks: Vec<Task>, edges: &[(usize, usize)]) -> Trace {
    let edge = |&(from, to): &(usize, usize)| Edge { from, to, cause: EdgeCause::Argument };
    Trace {
        began: SystemTime::UNIX_EPOCH,
        nanos: 1_000,
        lanes: vec![LaneInfo { name: "worker 0".to_owned(), worker: Some(0) }],
        tasks,
        edges: edges.iter().map(edge).collect(),
        idle: Vec::new(),
        steals: Vec::new(),
        moves: Vec::new(),
        samples: Vec::new(),
        lost: 0,
    }
}

pub(crate) fn hostile() -> Trace {
    let long = "very_long_name_".repeat(100_000);
    let mut tasks: Vec<Task> = HOSTILE.iter().map(|name| task(name, &[100])).collect();
    tasks.push(task(&long, &[5, u64::MAX]));
    tasks.push(task("nothing ran", &[]));
    for (at, end) in [End::Failed, End::Refused, End::Cancelled].into_iter().enumerate() {
        tasks[at].end = Some(end);
        tasks[at].site = tasks[at].name.clone();
    }
    let mut trace =
        trace(tasks, &[(0, 1), (1, 2), (2, 0), (3, 3), (4, 5), (5, 4), (6, 99), (77, 1), (0, 9), (9, 10)]);
    trace.lanes[0].name = HOSTILE.concat();
    trace.tasks[8].runs = vec![Run { lane: 40, start: 9, end: 3 }];
    trace
}

fn number(node: &Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).unwrap_or("0").parse().unwrap()
}

fn rect(node: &Node<'_, '_>) -> Rect {
    Rect { x: number(node, "x"), y: number(node, "y"), w: number(node, "width"), h: number(node, "height") }
}

fn apart(boxes: &[Rect]) {
    let mut boxes = boxes.to_vec();
    boxes.sort_by(|a, b| a.y.total_cmp(&b.y));
    for (at, a) in boxes.iter().enumerate() {
        for b in boxes[at + 1..].iter().take_while(|b| b.y < a.y + a.h) {
            assert!(a.x + a.w < b.x || b.x + b.w < a.x, "{a:?} overlaps {b:?}");
        }
    }
}

/// Reads the picture again: boxes apart, text within, everything on the sheet. How many boxes there are.
fn check_svg(svg: &str) -> usize {
    let document = Document::parse(svg).expect("well-formed XML");
    let root = document.root_element();
    let sheet = (number(&root, "width"), number(&root, "height"));
    assert!(root.descendants().all(|node| node.tag_name().name() != "script"));
    let mut boxes = Vec::new();
    for group in
        document.descendants().filter(|node| matches!(node.attribute("class"), Some("box" | "chunk")))
    {
        let place = rect(&group.children().find(|node| node.has_tag_name("rect")).unwrap());
        let texts: Vec<_> = group.children().filter(|node| node.has_tag_name("text")).collect();
        assert!(!texts.is_empty() && group.children().any(|node| node.has_tag_name("title")));
        let mut floor = place.y;
        for text in texts {
            let (x, base, size) = (number(&text, "x"), number(&text, "y"), number(&text, "font-size"));
            let half = width(text.text().unwrap_or_default(), size) / 2.0;
            assert!(x - half >= place.x && x + half <= place.x + place.w, "{:?} leaves its box", text.text());
            assert!(
                base - size * 0.8 >= floor && base + size * 0.22 <= place.y + place.h,
                "line of text too high or low"
            );
            floor = base;
        }
        boxes.push(place);
    }
    apart(&boxes);
    // Title, notes and legend stay on the sheet, above the boxes.
    for text in root.children().filter(|node| node.has_tag_name("text")) {
        let (size, bold) = (number(&text, "font-size"), text.has_attribute("font-weight"));
        let wide = width(text.text().unwrap_or_default(), size) * if bold { 1.1 } else { 1.0 };
        assert!(number(&text, "x") + wide <= sheet.0, "{:?} leaves the sheet", text.text());
    }
    boxes.len()
}

/// Checks the places before they are written: lines go down, and cross no box.
fn check_layout(sketch: &Sketch) {
    let sizes: Vec<(f64, f64)> =
        sketch.nodes.iter().map(|node| (60.0 + (node.label.len() % 90) as f64, 40.0)).collect();
    let rows: Vec<usize> = sketch.nodes.iter().map(|node| node.row).collect();
    let links: Vec<(usize, usize)> = sketch.links.iter().map(|link| (link.from, link.to)).collect();
    let layout = layout::layout(&Plan { sizes: &sizes, rows: &rows, links: &links, ordered: sketch.folded });
    apart(&layout.boxes);
    assert_eq!(layout.routes.len(), links.len());
    for (route, &(from, to)) in layout.routes.iter().zip(&links) {
        match route {
            Route::Right { from: left, to: right, .. } => assert!(left < right),
            Route::Below { from, to, .. } => assert!(from.0 < to.0),
            Route::Down(points) => {
                assert!(points.windows(2).all(|pair| pair[0].1 <= pair[1].1 + 1e-9), "a line goes up");
                assert!(layout.boxes[from].y + layout.boxes[from].h <= layout.boxes[to].y);
                let straight = points.chunks(2).map(|pair| (pair[0], pair[1]));
                let mut straight: Vec<_> = straight.collect();
                straight.retain(|(a, b)| b.1 - a.1 > 1e-9);
                for ((x, top), (_, bottom)) in straight {
                    let hit = layout.boxes.iter().enumerate().filter(|&(at, place)| {
                        let beside = x < place.x || x > place.x + place.w;
                        at != from && at != to && !beside && top < place.y + place.h && bottom > place.y
                    });
                    assert_eq!(hit.count(), 0, "a line crosses a box");
                }
            }
        }
    }
    assert!(layout.boxes.iter().all(|place| place.x >= -1e-6 && place.x + place.w <= layout.width + 1e-6));
}

fn check(graph: &Graph<'_>) -> usize {
    let sketch = Sketch::new(graph);
    let count: usize = sketch.nodes.iter().map(|node| node.tasks).sum();
    assert_eq!(count, graph.trace.tasks.len(), "every task is in a box");
    for link in &sketch.links {
        let (from, to) = (&sketch.nodes[link.from], &sketch.nodes[link.to]);
        assert!(from.row < to.row || sketch.folded && from.row == to.row && link.from < link.to);
    }
    check_layout(&sketch);
    let dot = graph.to_dot();
    assert_eq!(dot.matches("fillcolor").count(), sketch.nodes.len());
    assert_eq!(dot.lines().filter(|line| line.contains(" -> n")).count(), sketch.links.len());
    let boxes = check_svg(&graph.to_svg());
    assert_eq!(boxes, sketch.nodes.len());
    boxes
}

#[test]
fn pictures_are_sound_for_all_options() {
    let traces = [
        samples::cholesky(3, 2),
        samples::cholesky(7, 4),
        samples::fan(90, 8),
        samples::chain(12),
        samples::pipeline(8, 4, 3),
        samples::many_names(900, 8),
        hostile(),
        trace(Vec::new(), &[]),
        trace(vec![task("alone", &[1])], &[]),
        trace(vec![task("a", &[]), task("b", &[])], &[(0, 1)]),
    ];
    for trace in &traces {
        for colour in [Colour::Name, Colour::Processor] {
            for (chunks, durations) in [(false, true), (true, false), (true, true)] {
                for boxes_max in [300, 20] {
                    let graph =
                        trace.graph().colour(colour).chunks(chunks).durations(durations).boxes_max(boxes_max);
                    let boxes = check(&graph.clone().implied(chunks));
                    assert!(chunks || boxes <= boxes_max);
                    if !chunks && trace.tasks.len() <= boxes_max {
                        assert_eq!(boxes, trace.tasks.len());
                    }
                }
            }
        }
    }
}

#[test]
fn twenty_thousand_tasks_are_folded_and_it_says_so() {
    let trace = samples::cholesky(48, 16);
    let boxes = check(&trace.graph());
    assert!((20..=300).contains(&boxes));
    let svg = trace.graph().to_svg();
    assert!(svg.contains("Folded: 19,600 tasks by name and level") && svg.len() < 300_000);
    let dot = trace.graph().boxes_max(usize::MAX).to_dot();
    assert_eq!(dot.matches("fillcolor").count(), trace.tasks.len());
}

#[test]
fn folds_stay_small_whatever_the_shape() {
    let mut dice = Dice::new(1);
    let shapes: [(u64, u64); 4] = [(5_000, 1), (5_000, 3), (1, 200), (40, 7)];
    for (names, reach) in shapes {
        let plans: Vec<_> = (0..2_000usize)
            .map(|at| {
                let input = at.checked_sub(1 + dice.roll(reach) as usize);
                plan(&format!("n{}", dice.roll(names)), 100, input.into_iter().collect())
            })
            .collect();
        let trace = simulate(&plans, 4);
        for boxes_max in [2, 10, 300] {
            let boxes = check(&trace.graph().boxes_max(boxes_max));
            assert!(
                boxes <= boxes_max,
                "{boxes} boxes for {names} names, {reach} reach, at most {boxes_max}"
            );
        }
    }
    // As wide as it gets: nothing waits for anything.
    let trace = trace((0..1_000).map(|at| task(&format!("n{at}"), &[at])).collect(), &[]);
    assert!(check(&trace.graph()) <= 300);
}

/// The longest path to the end of `at`, by trying all.
fn longest(at: usize, trace: &Trace) -> u64 {
    let before = trace.edges.iter().filter(|edge| edge.to == at).map(|edge| longest(edge.from, trace));
    trace.tasks[at].run_nanos() + before.max().unwrap_or(0)
}

#[test]
fn the_critical_path_that_is_marked_is_the_longest() {
    let mut dice = Dice::new(2);
    for _ in 0..200 {
        let count = 1 + dice.roll(9) as usize;
        let plans: Vec<_> = (0..count)
            .map(|at| {
                let inputs = (0..at).filter(|_| dice.roll(3) == 0).collect();
                plan(&format!("t{at}"), 1_000 + dice.roll(1_000_000), inputs)
            })
            .collect();
        let trace = simulate(&plans, 1 + dice.roll(3) as usize);
        let sketch = Sketch::new(&trace.graph());
        let marked = sketch.nodes.iter().enumerate().filter(|(_, node)| node.critical).map(|(at, _)| at);
        let marked: Vec<usize> = marked.collect();
        let sum: u64 = marked.iter().map(|&at| trace.tasks[at].run_nanos()).sum();
        assert_eq!(Some(sum), (0..count).map(|at| longest(at, &trace)).max());
        let steps = sketch.links.iter().filter(|link| link.critical).count();
        assert_eq!(steps, marked.len() - 1, "the boxes of the path are joined by marked lines");
    }
}

#[test]
fn links_left_out_follow_from_those_that_are_drawn() {
    let mut dice = Dice::new(3);
    for _ in 0..50 {
        let plans: Vec<_> =
            (0..30usize).map(|at| plan("t", 10, (0..at).filter(|_| dice.roll(4) == 0).collect())).collect();
        let trace = simulate(&plans, 2);
        let reach = |implied| {
            let sketch = Sketch::new(&trace.graph().implied(implied));
            let mut reach = vec![0u32; 30];
            for to in 0..30 {
                for link in sketch.links.iter().filter(|link| link.to == to) {
                    reach[to] |= reach[link.from] | 1 << link.from;
                }
            }
            (reach, sketch.links.len())
        };
        let (all, drawn) = (reach(true), reach(false));
        assert_eq!(all.0, drawn.0);
        assert!(drawn.1 < all.1);
    }
}

#[test]
fn circles_and_edges_to_nowhere_do_not_hang() {
    let mut dice = Dice::new(4);
    for tasks in [2usize, 10, 400] {
        let edges: Vec<(usize, usize)> = (0..tasks * 5)
            .map(|_| (dice.roll(tasks as u64 + 2) as usize, dice.roll(tasks as u64 + 2) as usize))
            .collect();
        let trace = trace((0..tasks).map(|at| task(&format!("t{}", at % 7), &[at as u64])).collect(), &edges);
        check(&trace.graph());
        check(&trace.graph().boxes_max(5));
    }
}

#[test]
fn a_long_chain_needs_no_deep_stack() {
    let edges: Vec<(usize, usize)> = (1..50_000).map(|to| (to - 1, to)).collect();
    let trace = trace((0..50_000).map(|_| task("step", &[3])).collect(), &edges);
    assert!(check(&trace.graph()) <= 300);
    assert_eq!(trace.graph().boxes_max(usize::MAX).to_svg().matches("class=\"box\"").count(), 50_000);
}

#[test]
fn an_unknown_suffix_names_the_known_ones_and_a_bad_path_is_named() {
    let trace = trace(Vec::new(), &[]);
    for path in ["graph.jpg", "graph", "graph.svg.gz", ""] {
        let error = trace.graph().save(path).unwrap_err();
        assert!(matches!(error, TraceError::UnknownSuffix { .. }));
        assert!(error.to_string().contains(".svg, .dot"), "{error}");
    }
    if cfg!(not(feature = "raster")) {
        for path in ["graph.png", "graph.pdf"] {
            let error = trace.graph().save(path).unwrap_err().to_string();
            assert!(
                error.ends_with("supported: .svg, .dot (.png and .pdf with the feature `raster`)"),
                "{error}"
            );
        }
    }
    let error = trace.graph().save("/no such folder/graph.svg").unwrap_err();
    assert!(
        matches!(error, TraceError::Io { .. }) && error.to_string().contains("/no such folder/graph.svg")
    );
}
