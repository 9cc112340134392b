//! What is in the rows: threads, tasks, or what the scheduler did.

use super::canvas::{Bar, Canvas, Strip, asleep};
use crate::draw::{self, Entry, Key, Names, many};
use crate::model::{Run, Task, Trace};
use crate::show::{count, time};
use rustc_hash::FxHashMap;

/// Threads, at most.
const LANES_MAX: usize = 128;
/// Tasks with a row each, at most; rows of names, at most.
const TASKS_MAX: usize = 200;
const NAMES_MAX: usize = 40;

const AWAKE: &str = "#eef0f3";
const SPAWN: &str = "#0072b2";
const STEAL: &str = "#d55e00";
const SLEEP: &str = "#5b6670";
const WAKE: &str = "#117733";
const READY: &str = "#e69f00";

/// The runs of each lane, each with its task.
fn runs(trace: &Trace) -> Vec<Vec<(usize, Run)>> {
    let mut runs = vec![Vec::new(); trace.lanes.len()];
    for (at, task) in trace.tasks.iter().enumerate() {
        for run in &task.runs {
            if let Some(lane) = runs.get_mut(run.lane) {
                lane.push((at, *run));
            }
        }
    }
    runs
}

fn asleep_in(trace: &Trace) -> Vec<Vec<(u64, u64)>> {
    let mut idle = vec![Vec::new(); trace.lanes.len()];
    for stretch in &trace.idle {
        if let Some(lane) = idle.get_mut(stretch.lane) {
            lane.push((stretch.start, stretch.end));
        }
    }
    idle
}

/// The lanes that are drawn: workers first, in the order of their numbers; and a note on the others.
fn lanes(trace: &Trace, busy: &[u64]) -> (Vec<usize>, Option<String>) {
    let mut lanes: Vec<usize> = (0..trace.lanes.len()).collect();
    let left_out = lanes.len().saturating_sub(LANES_MAX);
    if left_out > 0 {
        lanes.sort_by_key(|&lane| (std::cmp::Reverse(busy[lane]), lane));
        lanes.truncate(LANES_MAX);
    }
    lanes.sort_by_key(|&lane| (trace.lanes[lane].worker.unwrap_or(usize::MAX), lane));
    let note = format!("{} that ran least are not drawn", many(left_out, "thread", "threads"));
    (lanes, (left_out > 0).then_some(note))
}

fn tip(trace: &Trace, task: &Task, run: &Run, start: u64) -> String {
    let mut tip = format!("{} (task {})", draw::head(&draw::line(&task.name), 120), task.id);
    tip.push_str(&format!("\nran {} from {}", time(run.nanos()), time(run.start.saturating_sub(start))));
    if let Some(lane) = trace.lanes.get(run.lane) {
        tip.push_str(&format!(" on {}", draw::head(&lane.name, 100)));
    }
    if task.runs.len() > 1 {
        tip.push_str(&format!(", one of {}", many(task.runs.len(), "run", "runs")));
    }
    if let Some(place) = &task.place {
        tip.push_str(&format!("\nmay run on {}", draw::head(&place.to_string(), 100)));
    }
    if task.retries > 0 {
        tip.push_str(&format!("\ntried again {}", many(task.retries as usize, "time", "times")));
    }
    tip
}

fn fills(key: &Key) -> Vec<String> {
    key.entries.iter().map(|(fill, _)| fill.clone()).collect()
}

fn legend(key: &Key) -> Vec<Entry> {
    key.entries.iter().map(|(fill, text)| Entry::colour(fill, text)).collect()
}

fn lost(trace: &Trace) -> Option<String> {
    let records = many(usize::try_from(trace.lost).unwrap_or(usize::MAX), "record was", "records were");
    (trace.lost > 0).then(|| format!("{records} lost: the buffers were full"))
}

fn percent(part: f64, of: f64) -> String {
    match part / of * 100.0 {
        share if share.is_nan() => "0 %".to_owned(),
        share if share > 0.0 && share < 1.0 => "< 1 %".to_owned(),
        share if share < 100.0 && share > 99.0 => "99 %".to_owned(),
        share => format!("{share:.0} %"),
    }
}

fn lengths(trace: &Trace) -> impl Iterator<Item = u64> {
    trace.tasks.iter().flat_map(|task| task.runs.iter().map(Run::nanos))
}

fn within(trace: &Trace) -> impl Fn(&str, usize, &Canvas) -> String {
    let tasks = trace.tasks.len();
    move |what, threads, canvas| match tasks {
        0 => format!("{what}: no task was recorded"),
        _ => format!(
            "{what}: {} on {} in {}",
            many(tasks, "task", "tasks"),
            many(threads, "thread", "threads"),
            time(canvas.window.span)
        ),
    }
}

pub(super) fn processors(trace: &Trace) -> String {
    let names = Names::new(trace);
    let key = Key::names(&names, trace);
    let (runs, asleep_in) = (runs(trace), asleep_in(trace));
    let busy: Vec<u64> = runs.iter().map(|runs| sum(runs.iter().map(|(_, run)| run.nanos()))).collect();
    let (mut lanes, left_out) = lanes(trace, &busy);
    lanes.retain(|&lane| trace.lanes[lane].worker.is_some() || busy[lane] > 0);
    let mut canvas = Canvas::new(trace, 150.0, lanes.len(), lengths(trace));
    let window = canvas.window;
    let span = window.span as f64;
    let clip = |&(start, end): &(u64, u64)| {
        let from = start.max(window.start);
        end.min(window.start.saturating_add(window.span)).saturating_sub(from)
    };
    let fills = fills(&key);
    for &lane in &lanes {
        let strip = Strip { y: canvas.y, high: 20.0 };
        let is_worker = trace.lanes[lane].worker.is_some();
        canvas.label(strip, &draw::line(&trace.lanes[lane].name), false);
        canvas.ground(strip, if is_worker { AWAKE } else { "#f7f8f9" });
        canvas.hatch(strip, asleep_in[lane].iter().copied());
        let tips: Vec<_> = runs[lane]
            .iter()
            .map(|(task, run)| move || tip(trace, &trace.tasks[*task], run, window.start))
            .collect();
        let bars = runs[lane].iter().zip(&tips).map(|((task, run), tip)| Bar {
            start: run.start,
            end: run.end,
            colour: key.of[names.of[*task]],
            tip,
        });
        canvas.bars(strip, bars, &fills);
        if is_worker || busy[lane] > 0 {
            canvas.figure(strip, &format!("{} busy", percent(busy[lane] as f64, span)));
        }
        canvas.y += 26.0;
    }
    let workers: Vec<usize> =
        (0..trace.lanes.len()).filter(|&lane| trace.lanes[lane].worker.is_some()).collect();
    let mut notes = Vec::new();
    if !workers.is_empty() && !trace.tasks.is_empty() {
        let all = span * workers.len() as f64;
        let ran = sum(workers.iter().map(|&lane| busy[lane])) as f64;
        let slept = sum(workers.iter().flat_map(|&lane| asleep_in[lane].iter().map(clip))) as f64;
        notes.push(format!(
            "{}: tasks ran {} of the time, {} asleep; else awake without a task: the runtime itself, or looking for work",
            many(workers.len(), "worker", "workers"),
            percent(ran, all),
            percent(slept, all)
        ));
    }
    notes.extend(left_out.into_iter().chain(lost(trace)));
    let mut legend = legend(&key);
    legend.push(asleep());
    legend.push(Entry::colour(AWAKE, "awake without a task"));
    let title = within(trace)("Processors", used(&runs), &canvas);
    canvas.finish(&title, &notes, &legend)
}

fn used(runs: &[Vec<(usize, Run)>]) -> usize {
    runs.iter().filter(|runs| !runs.is_empty()).count()
}

fn sum(times: impl Iterator<Item = u64>) -> u64 {
    times.fold(0, u64::saturating_add)
}

pub(super) fn tasks(trace: &Trace) -> String {
    if trace.tasks.len() <= TASKS_MAX { each_task(trace) } else { each_name(trace) }
}

fn each_task(trace: &Trace) -> String {
    let names = Names::new(trace);
    let key = Key::names(&names, trace);
    let fills = fills(&key);
    let mut canvas = Canvas::new(trace, 190.0, trace.tasks.len(), lengths(trace));
    let begins = |task: &Task| task.runs.first().map(|run| run.start).or(task.ended);
    let mut order: Vec<usize> = (0..trace.tasks.len()).collect();
    order.sort_by_key(|&at| (begins(&trace.tasks[at]).unwrap_or(u64::MAX), at));
    let start = canvas.window.start;
    for (row, at) in order.into_iter().enumerate() {
        let task = &trace.tasks[at];
        let strip = Strip { y: canvas.y, high: 13.0 };
        canvas.label(strip, &draw::line(&task.name), false);
        if row % 2 == 0 {
            canvas.ground(Strip { y: strip.y - 2.0, high: 17.0 }, "#f5f6f8");
        }
        let first = begins(task);
        if let (Some(spawned), Some(until)) = (task.spawned, task.ready.or(first)) {
            canvas.line(strip, spawned.at, until, r##"stroke="#9aa5b1" stroke-width="1.2""##);
        }
        if let (Some(ready), Some(first)) = (task.ready, first) {
            canvas.line(strip, ready, first, &format!(r#"stroke="{READY}" stroke-width="4""#));
        }
        if let (Some(first), Some(last)) = (task.runs.first(), task.runs.last()) {
            canvas.line(
                strip,
                first.end,
                last.start,
                &format!(r#"stroke="{PALE}" stroke-dasharray="2 2""#, PALE = draw::PALE),
            );
        }
        let tips: Vec<_> = task.runs.iter().map(|run| move || tip(trace, task, run, start)).collect();
        let bars = task.runs.iter().zip(&tips).map(|(run, tip)| Bar {
            start: run.start,
            end: run.end,
            colour: key.of[names.of[at]],
            tip,
        });
        canvas.bars(strip, bars, &fills);
        canvas.figure(
            strip,
            &if task.runs.is_empty() { "did not run".to_owned() } else { time(task.run_nanos()) },
        );
        canvas.y += 17.0;
    }
    let mut legend = legend(&key);
    let line = |style: &str| format!(r#"<path d="M-2 6H15" {style}/>"#);
    legend.push(Entry::mark(line(r##"stroke="#9aa5b1" stroke-width="1.2""##), "waits for others"));
    legend.push(Entry::mark(
        line(&format!(r#"stroke="{READY}" stroke-width="4""#)),
        "ready, waits for a thread",
    ));
    legend
        .push(Entry::mark(line(&format!(r#"stroke="{}" stroke-dasharray="2 2""#, draw::PALE)), "suspended"));
    let title = within(trace)("Tasks", used(&runs(trace)), &canvas);
    canvas.finish(&title, &lost(trace).into_iter().collect::<Vec<_>>(), &legend)
}

fn each_name(trace: &Trace) -> String {
    let names = Names::new(trace);
    let key = Key::names(&names, trace);
    let fills = fills(&key);
    let ranked = names.ranked(trace);
    let mut row = vec![NAMES_MAX - 1; ranked.len()];
    for (place, &name) in ranked.iter().enumerate() {
        row[name] = if ranked.len() > NAMES_MAX { place.min(NAMES_MAX - 1) } else { place };
    }
    let rows = ranked.len().min(NAMES_MAX);
    let mut members = vec![Vec::new(); rows];
    for (task, &name) in names.of.iter().enumerate() {
        members[row[name]].push(task);
    }
    let mut canvas = Canvas::new(trace, 210.0, rows, std::iter::empty());
    let threads = used(&runs(trace));
    for (place, tasks) in members.iter().enumerate() {
        let strip = Strip { y: canvas.y, high: 30.0 };
        let shared = ranked.len() > NAMES_MAX && place == NAMES_MAX - 1;
        let name = if shared {
            many(ranked.len() - place, "other name", "other names")
        } else {
            draw::line(names.names[ranked[place]])
        };
        canvas.label(strip, &format!("{} × {name}", count(tasks.len())), false);
        canvas.ground(strip, "#f5f6f8");
        let stretches = tasks.iter().flat_map(|&task| {
            let colour = key.of[names.of[task]];
            trace.tasks[task].runs.iter().map(move |run| (run.start, run.end, colour))
        });
        canvas.heap(strip, stretches, Some(threads as f64), &fills);
        canvas.figure(strip, &time(sum(tasks.iter().map(|&task| trace.tasks[task].run_nanos()))));
        canvas.y += 37.0;
    }
    let mut notes = vec![format!(
        "Folded: {} in a row for each name; a row is full when {} ran it at once",
        many(trace.tasks.len(), "task", "tasks"),
        if threads == 1 { "the thread".to_owned() } else { format!("all {threads} threads") }
    )];
    notes.extend(lost(trace));
    let title = within(trace)("Tasks", threads, &canvas);
    canvas.finish(&title, &notes, &legend(&key))
}

pub(super) fn scheduler(trace: &Trace) -> String {
    let (runs, asleep_in) = (runs(trace), asleep_in(trace));
    let busy: Vec<u64> = runs.iter().map(|runs| sum(runs.iter().map(|(_, run)| run.nanos()))).collect();
    let (lanes, left_out) = lanes(trace, &busy);
    let mut spawns: Vec<Vec<u64>> = vec![Vec::new(); trace.lanes.len()];
    for spawned in trace.tasks.iter().filter_map(|task| task.spawned) {
        if let Some(lane) = spawns.get_mut(spawned.lane) {
            lane.push(spawned.at);
        }
    }
    let mut steals: Vec<Vec<(u64, usize)>> = vec![Vec::new(); trace.lanes.len()];
    for steal in &trace.steals {
        if let Some(lane) = steals.get_mut(steal.lane) {
            lane.push((steal.at, steal.from));
        }
    }
    let mut canvas = Canvas::new(trace, 150.0, 2 * lanes.len(), lengths(trace));
    let window = canvas.window;

    if !trace.tasks.is_empty() {
        let waits = trace.tasks.iter().filter_map(|task| {
            let (ready, first) = (task.ready?, task.runs.first().map(|run| run.start).or(task.ended)?);
            (first > ready).then_some((ready, first, 0))
        });
        let strip = Strip { y: canvas.y, high: 44.0 };
        canvas.label(strip, "ready tasks", true);
        canvas.ground(strip, "#f5f6f8");
        let most = canvas.heap(strip, waits, None, &[READY.to_owned()]);
        canvas.figure(strip, &format!("up to {}", count(most.ceil() as usize)));
        canvas.y += 56.0;
    }
    const TRACK: f64 = 13.0;
    for &lane in &lanes {
        let info = &trace.lanes[lane];
        let top = canvas.y;
        let strip = |track: usize| Strip { y: top + track as f64 * (TRACK + 2.0), high: TRACK };
        let works = info.worker.is_some() || !runs[lane].is_empty() || !steals[lane].is_empty();
        let tracks = if works { 3 } else { 1 };
        canvas.label(strip(0), &draw::line(&info.name), true);
        for track in 0..tracks {
            canvas.ground(strip(track), "#f5f6f8");
        }
        canvas.marks(strip(0), spawns[lane].iter().copied(), SPAWN, 1.0);
        canvas.figure(strip(0), &format!("{} spawned", count(spawns[lane].len())));
        if !works {
            canvas.y += TRACK + 12.0;
            continue;
        }
        canvas.marks(strip(1), steals[lane].iter().map(|steal| steal.0), STEAL, 1.4);
        canvas.figure(strip(1), &format!("{} stolen", count(steals[lane].len())));
        canvas.label(strip(1), &victims(&steals[lane]), false);
        let on = strip(2);
        canvas.hatch(on, asleep_in[lane].iter().copied());
        let fill = ["#aebccb".to_owned()];
        let tips: Vec<_> = runs[lane]
            .iter()
            .map(|(task, run)| move || tip(trace, &trace.tasks[*task], run, window.start))
            .collect();
        let bars = runs[lane].iter().zip(&tips).map(|((_, run), tip)| Bar {
            start: run.start,
            end: run.end,
            colour: 0,
            tip,
        });
        canvas.bars(Strip { y: on.y + 3.0, high: TRACK - 6.0 }, bars, &fill);
        let shown = |&at: &u64| (window.start..=window.start.saturating_add(window.span)).contains(&at);
        canvas.marks(on, asleep_in[lane].iter().map(|idle| idle.0).filter(shown), SLEEP, 1.4);
        canvas.marks(on, asleep_in[lane].iter().map(|idle| idle.1).filter(shown), WAKE, 1.4);
        canvas.figure(on, &many(asleep_in[lane].len(), "sleep", "sleeps"));
        canvas.y += tracks as f64 * (TRACK + 2.0) + 10.0;
    }
    let mark = |colour: &str| format!(r#"<path d="M7 0V12" stroke="{colour}" stroke-width="2"/>"#);
    let legend = [
        Entry::mark(mark(SPAWN), "spawned a task"),
        Entry::mark(mark(STEAL), "took tasks from another worker"),
        Entry::mark(mark(SLEEP), "fell asleep"),
        Entry::mark(mark(WAKE), "was woken"),
        asleep(),
        Entry::colour("#aebccb", "ran a task"),
        Entry::colour(READY, "ready, waits for a thread"),
    ];
    let notes: Vec<String> = left_out.into_iter().chain(lost(trace)).collect();
    let title = within(trace)("Scheduler", used(&runs), &canvas);
    canvas.finish(&title, &notes, &legend)
}

/// From whom a worker took most.
fn victims(steals: &[(u64, usize)]) -> String {
    let mut victims: FxHashMap<usize, usize> = FxHashMap::default();
    for &(_, from) in steals {
        *victims.entry(from).or_default() += 1;
    }
    match victims.into_iter().max_by_key(|&(from, count)| (count, std::cmp::Reverse(from))) {
        Some((from, _)) => format!("mostly from {from}"),
        None => String::new(),
    }
}
