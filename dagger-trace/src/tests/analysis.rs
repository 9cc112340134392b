use super::traces;
use crate::model::{EdgeCause, Trace};
use proptest::prelude::*;

/// The run time of a task within these times.
fn work(trace: &Trace, task: usize, from: u64, until: u64) -> u64 {
    let runs = trace.tasks[task].runs.iter();
    runs.map(|run| run.end.min(until).saturating_sub(run.start.max(from))).sum()
}

/// The longest chain that ends with what a task ran until then: the rules, one chain after the other.
fn chain(trace: &Trace, task: usize, until: u64) -> u64 {
    let own = &trace.tasks[task];
    let mut longest = work(trace, task, 0, until);
    if let (Some(parent), Some(spawned)) = (own.parent, own.spawned) {
        longest = longest.max(chain(trace, parent, spawned.at) + work(trace, task, 0, until));
    }
    for edge in trace.edges.iter().filter(|edge| edge.to == task) {
        let ended = trace.tasks[edge.from].ended;
        let since = match (edge.cause, ended) {
            (EdgeCause::Awaited, Some(ended)) if ended < until && own.ended.is_none_or(|end| ended < end) => {
                ended
            }
            (EdgeCause::Awaited, _) => continue,
            _ => 0,
        };
        longest = longest.max(chain(trace, edge.from, u64::MAX) + work(trace, task, since, until));
    }
    longest
}

proptest! {
    #[test]
    fn work_and_span_equal_brute_force(trace in traces(9)) {
        let analysis = trace.analysis();
        let span = (0..trace.tasks.len()).map(|task| chain(&trace, task, u64::MAX)).max();
        prop_assert_eq!(analysis.span, span.unwrap_or(0));
        let all: u64 = (0..trace.tasks.len()).map(|task| work(&trace, task, 0, u64::MAX)).sum();
        prop_assert_eq!(analysis.work, all);
        prop_assert!(analysis.span <= analysis.elapsed);
        prop_assert_eq!(analysis.critical_path.iter().map(|step| step.nanos).sum::<u64>(), analysis.span);
        prop_assert_eq!(analysis.no_wait, all.div_ceil(2));
    }

    #[test]
    fn the_steps_of_the_path_follow_each_other(trace in traces(20)) {
        for pair in trace.analysis().critical_path.windows(2) {
            let (a, b) = (pair[0].task, pair[1].task);
            let edge = trace.edges.iter().any(|edge| (edge.from, edge.to) == (a, b));
            prop_assert!(edge || trace.tasks[b].parent == Some(a), "{} then {}", a, b);
        }
    }

    #[test]
    fn rows_add_up_and_the_page_is_short(trace in traces(60)) {
        let (analysis, rows) = (trace.analysis(), trace.by_name());
        prop_assert_eq!(rows.iter().map(|row| row.total).sum::<u64>(), analysis.work);
        for row in &rows {
            let mut times: Vec<u64> = trace.tasks.iter().filter(|task| task.name == row.name && !task.runs.is_empty())
                .map(|task| task.run_nanos()).collect();
            times.sort();
            let at_most = |percent: u64| *times.iter().find(|&&time| {
                times.iter().filter(|&&other| other <= time).count() as u64 * 100 >= percent * times.len() as u64
            }).unwrap();
            prop_assert_eq!((row.count, row.max), (times.len(), times[times.len() - 1]));
            prop_assert_eq!((row.p50, row.p99), (at_most(50), at_most(99)));
        }
        let store_lines = match (trace.by_move().len(), trace.samples.len()) {
            (0, 0) => 0,
            (kinds, samples) => kinds + 1 + usize::from(kinds > 0) + usize::from(samples > 0),
        };
        prop_assert!(store_lines < 10 && trace.describe().lines().count() < 40 + store_lines);
        // Waiting by its definition, moment by moment.
        for worker in &analysis.workers {
            let idle = trace.idle.iter().find(|idle| idle.lane == worker.lane).unwrap();
            let held = |at: u64| trace.tasks.iter().zip(trace.ready_times()).any(|(task, ready)| {
                let until = ready.or(task.ended).unwrap_or(trace.nanos);
                task.spawned.unwrap().at <= at && at < until
            });
            let waiting = (idle.start..idle.end).filter(|&at| held(at)).count() as u64;
            prop_assert_eq!((worker.waiting, worker.starved), (waiting, idle.end - idle.start - waiting));
        }
    }
}

/// A task that awaits its own child runs before and after it, not beside it.
#[test]
fn parent_child_and_parent_again_are_a_chain() {
    let trace = super::log::by_hand(100, |log| {
        log.spawn(0, 1, 0).start(0, 1).spawn(10, 2, 1).after(10, 1, 2).suspend(10, 1);
        log.start(10, 2).end(30, 2).resume(30, 1).end(35, 1);
    });
    let analysis = trace.analysis();
    assert_eq!((analysis.work, analysis.span), (35, 35));
    let path: Vec<(usize, u64)> = analysis.critical_path.iter().map(|step| (step.task, step.nanos)).collect();
    assert_eq!(path, [(0, 10), (1, 20), (0, 5)]);
}

#[test]
fn tasks_that_come_before_themselves_do_not_hang_it() {
    let mut trace = super::log::by_hand(100, |log| {
        log.spawn(0, 1, 0).start(0, 1).end(10, 1).spawn(10, 2, 0).start(10, 2).end(30, 2);
    });
    for (from, to) in [(0, 1), (1, 0), (1, 1), (0, 7)] {
        trace.edges.push(crate::Edge { from, to, cause: EdgeCause::Order });
    }
    assert_eq!(trace.analysis().span, 30);
}

#[test]
fn many_names_and_workers_fit_on_a_page() {
    let mut trace = super::log::by_hand(1_000_000, |log| {
        for task in 1..100 {
            log.spawn(task, task, 0);
        }
        for task in 1..100 {
            log.start(task * 1000, task).end(task * 1000 + 900, task);
        }
    });
    for task in &mut trace.tasks {
        task.name = format!("a_function_with_a_very_long_name_{}_of_many", task.id);
    }
    for worker in 1..64 {
        trace.lanes.push(crate::LaneInfo { name: format!("dagger worker {worker}"), worker: Some(worker) });
    }
    trace.lost = 12;
    let page = trace.describe();
    assert!(!page.contains("\n\n\n") && page.lines().all(|line| line.trim_end() == line), "{page}");
    assert!(page.lines().count() < 40, "{}", page.lines().count());
    assert!(page.lines().all(|line| line.chars().count() < 120));
    assert!(page.contains("and 90 more names") && page.contains("and 58 more"), "{page}");
    let diff = trace.describe_diff(&trace);
    assert_eq!(diff.lines().count(), 100);
    assert!(diff.lines().skip(1).all(|line| line.ends_with("1.00")));
}

#[test]
fn what_became_slower_is_first() {
    let run = |times: [u64; 3]| {
        let mut trace = super::log::by_hand(1000, |log| {
            for (task, time) in (1..).zip(times) {
                log.spawn(0, task, 0).start(task * 100, task).end(task * 100 + time, task);
            }
        });
        for (task, name) in trace.tasks.iter_mut().zip(["a", "b", "c"]) {
            task.name = name.into();
        }
        trace
    };
    let (before, mut after) = (run([10, 20, 30]), run([20, 20, 90]));
    after.tasks[1].name = "d".into();
    let changes = before.diff(&after);
    let shown: Vec<(&str, Option<f64>)> =
        changes.iter().map(|change| (change.name.as_str(), change.ratio())).collect();
    assert_eq!(shown, [("c", Some(3.0)), ("a", Some(2.0)), ("b", None), ("d", None)]);
}
