use super::Lane;
use crate::draw::{self, width};
use crate::graph::tests::{hostile, trace};
use crate::samples;
use crate::{Idle, Run, Steal, Trace, TraceError};
use roxmltree::{Document, Node};

const LANES: [Lane; 3] = [Lane::Task, Lane::Processor, Lane::Scheduler];

fn number(node: &Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).unwrap_or("0").parse().unwrap()
}

/// Reads the picture again: bars on the sheet, texts apart from each other. How many bars and shapes of columns it has.
fn check(svg: &str) -> (usize, usize) {
    let document = Document::parse(svg).expect("well-formed XML");
    let root = document.root_element();
    let sheet = (number(&root, "width"), number(&root, "height"));
    let mut texts: Vec<(f64, f64, f64, f64)> = Vec::new();
    for text in document.descendants().filter(|node| node.has_tag_name("text") && node.has_attribute("class"))
    {
        let size = number(&text, "font-size");
        let wide = width(text.text().unwrap_or_default(), size)
            * if text.has_attribute("font-weight") { 1.1 } else { 1.0 };
        let x = number(&text, "x");
        let left = match text.attribute("text-anchor") {
            Some("end") => x - wide,
            Some("middle") => x - wide / 2.0,
            _ => x,
        };
        texts.push((left, left + wide, number(&text, "y") - size, number(&text, "y")));
    }
    for (at, a) in texts.iter().enumerate() {
        for b in &texts[at + 1..] {
            let apart = a.1 <= b.0 || b.1 <= a.0 || a.3 <= b.2 || b.3 <= a.2;
            assert!(apart, "{a:?} overlaps {b:?}");
        }
    }
    let plot = document.descendants().rfind(|node| node.has_tag_name("g")).unwrap();
    let mut bars = 0;
    for bar in plot.children().filter(|node| node.has_tag_name("rect")) {
        let (x, y, w, h) =
            (number(&bar, "x"), number(&bar, "y"), number(&bar, "width"), number(&bar, "height"));
        assert!(x >= 0.0 && x + w <= super::canvas::PLOT + 0.2 && y >= -3.0 && y + h < sheet.1);
        bars += usize::from(bar.has_children());
    }
    (bars, plot.children().filter(|node| node.attribute("class") == Some("columns")).count())
}

#[test]
fn every_run_is_a_bar_or_in_a_column() {
    let trace = samples::pipeline(8, 4, 3);
    let runs: usize = trace.tasks.iter().map(|task| task.runs.len()).sum();
    for lane in LANES {
        // The scheduler's columns are the tasks that were ready.
        let columns = usize::from(lane == Lane::Scheduler);
        assert_eq!(check(&trace.gantt(lane).to_svg()), (runs, columns), "{lane:?}");
    }
    let (bars, columns) = check(&samples::cholesky(48, 16).gantt(Lane::Processor).to_svg());
    assert!(bars == 0 && columns >= 16, "{bars} bars, {columns} columns");
}

#[test]
fn long_runs_give_small_files() {
    for trace in [samples::cholesky(48, 16), samples::many_names(20_000, 64), samples::fan(30_000, 200)] {
        for lane in LANES {
            let svg = trace.gantt(lane).to_svg();
            check(&svg);
            assert!(svg.len() < 2_000_000, "{lane:?}: {} bytes", svg.len());
        }
    }
}

#[test]
fn columns_show_the_share_of_time_that_was_busy() {
    // Runs of 1 ns every 2 ns: half of the height.
    let mut trace = trace(vec![], &[]);
    let mut task = samples::chain(1).tasks.remove(0);
    task.spawned = None;
    task.ready = None;
    task.runs = (0..100_000).map(|at| Run { lane: 0, start: 2 * at, end: 2 * at + 1 }).collect();
    task.ended = Some(200_000);
    trace.tasks.push(task);
    let svg = trace.gantt(Lane::Processor).to_svg();
    assert!(svg.contains("50 % busy"));
    assert!(svg.contains("h1000v10h-1000z"), "one shape, half as high as the row");
}

#[test]
fn odd_traces_are_drawn() {
    let mut odd = hostile();
    odd.idle = vec![Idle { lane: 70, start: 3, end: 4 }, Idle { lane: 0, start: 9, end: u64::MAX }];
    odd.steals = vec![Steal { lane: 70, at: 3, from: 9 }, Steal { lane: 0, at: u64::MAX, from: 0 }];
    odd.lost = 7;
    let mut nothing = trace(Vec::new(), &[]);
    nothing.lanes.clear();
    nothing.nanos = 0;
    let alone = samples::chain(1);
    for trace in [odd, nothing, trace(Vec::new(), &[]), alone] {
        for lane in LANES {
            check(&trace.gantt(lane).to_svg());
        }
    }
}

#[test]
fn idle_gaps_are_hatched_and_steals_are_marked() {
    let trace = samples::cholesky(11, 4);
    let processors = trace.gantt(Lane::Processor).to_svg();
    assert!(processors.matches("class=\"asleep\"").count() == 4);
    let scheduler = trace.gantt(Lane::Scheduler).to_svg();
    for text in ["286 spawned", "stolen", "sleeps", "was woken", "ready tasks"] {
        assert!(scheduler.contains(text), "{text}");
    }
}

#[test]
fn ticks_are_round_and_their_labels_do_not_touch() {
    let label = |span| draw::ticks(span, 10).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
    assert_eq!(label(7), ["0 ns", "1 ns", "2 ns", "3 ns", "4 ns", "5 ns", "6 ns", "7 ns"]);
    assert_eq!(
        label(1_000),
        [
            "0.0 µs", "0.1 µs", "0.2 µs", "0.3 µs", "0.4 µs", "0.5 µs", "0.6 µs", "0.7 µs", "0.8 µs",
            "0.9 µs", "1.0 µs"
        ]
    );
    assert_eq!(label(13_100_000), ["0 ms", "2 ms", "4 ms", "6 ms", "8 ms", "10 ms", "12 ms"]);
    let mut span = 1u64;
    while span < u64::MAX / 6 {
        let ticks = draw::ticks(span, 10);
        assert!((2..=11).contains(&ticks.len()), "{span}: {ticks:?}");
        let room = ticks[1].0 as f64 / span as f64 * super::canvas::PLOT;
        let widest = ticks.iter().map(|(_, label)| width(label, 10.5)).fold(0.0, f64::max);
        assert!(widest + 6.0 < room, "{span}: {ticks:?}");
        span += span / 3 * 2 + 1;
    }
}

#[test]
fn an_unknown_suffix_names_the_known_one() {
    let trace: Trace = trace(Vec::new(), &[]);
    let error = trace.gantt(Lane::Task).save("gantt.dot").unwrap_err();
    assert!(matches!(error, TraceError::UnknownSuffix { .. }) && error.to_string().contains(".svg"));
    let error = trace.gantt(Lane::Task).save("/no such folder/gantt.svg").unwrap_err();
    assert!(error.to_string().contains("/no such folder/gantt.svg"));
}
