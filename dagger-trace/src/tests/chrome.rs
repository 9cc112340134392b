use super::{LANES, traces};
use crate::{Run, Trace, moves};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

fn events(trace: &Trace) -> Vec<Value> {
    let all: Value = serde_json::from_str(&trace.to_chrome()).expect("it is JSON");
    assert_eq!(all["displayTimeUnit"], "ns");
    all["traceEvents"].as_array().expect("it has events").clone()
}

/// Nanoseconds again.
fn nanos(event: &Value, field: &str) -> u64 {
    let micros = event[field].as_f64().expect("a number");
    assert!(micros >= 0.0);
    (micros * 1000.0).round() as u64
}

fn kind<'a>(events: &'a [Value], phase: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["ph"] == phase).collect()
}

proptest! {
    /// The fields that the description of the format requires, by phase.
    #[test]
    fn events_have_the_fields_of_the_format(trace in traces(20)) {
        let events = events(&trace);
        for event in &events {
            let phase = event["ph"].as_str().expect("a phase");
            prop_assert!(event["name"].is_string() && event["tid"].is_u64());
            prop_assert!(event["pid"] == 1 || event["pid"] == 2 && "MXC".contains(phase));
            nanos(event, "ts");
            match phase {
                "M" => prop_assert!(event["args"].is_object()),
                "X" => {
                    nanos(event, "dur");
                    let of = if event["pid"] == 1 { "task" } else { "chunk" };
                    prop_assert!(event["args"][of].is_u64() && event["cat"].is_string());
                }
                "s" | "f" | "b" | "e" => prop_assert!(event["id"].is_u64() && event["cat"].is_string()),
                "C" => {
                    let unit = if event["pid"] == 1 { "tasks" } else { "bytes" };
                    prop_assert!(event["args"][unit].is_u64());
                }
                other => panic!("phase {other}"),
            }
            if phase == "f" {
                prop_assert_eq!(&event["bp"], "e");
            }
        }

        let (events, store): (Vec<Value>, Vec<Value>) = events.into_iter().partition(|event| event["pid"] == 1);
        let lanes = kind(&events, "M").into_iter().filter(|event| event["name"] == "thread_name");
        let lanes: HashMap<u64, &str> =
            lanes.map(|event| (event["tid"].as_u64().unwrap(), event["args"]["name"].as_str().unwrap())).collect();
        prop_assert_eq!(lanes.len(), LANES);
        let slices: Vec<(&str, u64, u64, u64)> = kind(&events, "X").into_iter().map(|event| {
            let (start, dur) = (nanos(event, "ts"), nanos(event, "dur"));
            (event["name"].as_str().unwrap(), event["tid"].as_u64().unwrap(), start, start + dur)
        }).collect();
        let runs: Vec<(&str, u64, u64, u64)> = trace.tasks.iter().flat_map(|task| {
            task.runs.iter().map(|&Run { lane, start, end }| (task.name.as_str(), lane as u64 + 1, start, end))
        }).collect();
        prop_assert_eq!(&slices, &runs);

        // A flow leaves from inside a slice, arrives where one begins, and does not go back in time.
        let (sources, targets) = (kind(&events, "s"), kind(&events, "f"));
        prop_assert_eq!(sources.len(), targets.len());
        let mut ids = HashSet::new();
        for (source, target) in sources.into_iter().zip(targets) {
            prop_assert_eq!(&source["id"], &target["id"]);
            prop_assert!(ids.insert(source["id"].as_u64().unwrap()));
            let place = |event: &Value| (event["tid"].as_u64().unwrap(), nanos(event, "ts"));
            let ((lane, at), (to_lane, to)) = (place(source), place(target));
            let inside = |run: &&(&str, u64, u64, u64)| run.1 == lane && run.2 <= at && (at < run.3 || run.2 == run.3);
            prop_assert!(at <= to && slices.iter().find(inside).is_some());
            prop_assert!(slices.iter().any(|run| (run.1, run.2) == (to_lane, to)));
        }

        // Waits come in pairs, by task, and counters are what they count.
        let (begins, ends) = (kind(&events, "b"), kind(&events, "e"));
        prop_assert_eq!(begins.len(), ends.len());
        for (begin, end) in begins.into_iter().zip(ends) {
            prop_assert!(begin["id"] == end["id"] && begin["name"] == end["name"]);
            prop_assert!(nanos(begin, "ts") < nanos(end, "ts"));
        }
        let counted = kind(&events, "C").into_iter().filter(|event| event["name"] == "running");
        let counted: Vec<(u64, u64)> =
            counted.map(|event| (nanos(event, "ts"), event["args"]["tasks"].as_u64().unwrap())).collect();
        for at in 0..trace.nanos {
            let running = runs.iter().filter(|run| run.2 <= at && at < run.3).count() as u64;
            let shown = counted.iter().rev().find(|&&(since, _)| since <= at).map_or(0, |&(_, value)| value);
            prop_assert_eq!(shown, running, "at {}", at);
        }
        check_store(&trace, &store)?;
    }
}

/// What the second process shows is what stores did.
fn check_store(trace: &Trace, events: &[Value]) -> Result<(), TestCaseError> {
    let slices: Vec<(u64, u64, u64, &str)> = kind(events, "X")
        .into_iter()
        .map(|event| {
            let (start, name) = (nanos(event, "ts"), event["name"].as_str().unwrap());
            assert!(event["args"]["thread"].as_str().is_some_and(|name| name.starts_with("lane ")));
            (event["args"]["chunk"].as_u64().unwrap(), start, start + nanos(event, "dur"), name)
        })
        .collect();
    let moves: Vec<(u64, u64, u64, &str)> = trace
        .moves
        .iter()
        .map(|moved| (moved.chunk, moved.start, moved.end, moves::verb(moved.how)))
        .collect();
    prop_assert_eq!(slices, moves);

    let stores: HashSet<u64> = trace.samples.iter().map(|sample| sample.store).collect();
    for &store in &stores {
        let of = if stores.len() == 1 { String::new() } else { format!(" in store {store}") };
        for (which, name) in ["resident", "pinned"].into_iter().enumerate() {
            let counter =
                kind(events, "C").into_iter().filter(|event| event["name"] == format!("{name}{of}"));
            let shown: Vec<(u64, u64)> =
                counter.map(|event| (nanos(event, "ts"), event["args"]["bytes"].as_u64().unwrap())).collect();
            prop_assert!(shown.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
            for at in 0..trace.nanos {
                let samples = trace.samples.iter().rev();
                let held = samples.filter(|sample| sample.store == store).find(|sample| sample.at <= at);
                let level = shown.iter().rev().find(|&&(since, _)| since <= at).map(|&(_, level)| level);
                prop_assert_eq!(
                    level,
                    held.map(|held| [held.bytes, held.pinned][which]),
                    "{} at {}",
                    name,
                    at
                );
            }
        }
    }
    Ok(())
}

#[test]
fn edges_become_arrows() {
    let trace =
        super::trace(vec![(0, vec![(1, 5)], 0, true), (1, vec![(20, 3)], 6, true)], &[(0, 1, 3)], 1, 0);
    let events = events(&trace);
    let [source] = kind(&events, "s")[..] else { panic!("one arrow") };
    let [target] = kind(&events, "f")[..] else { panic!("one arrow") };
    assert_eq!((nanos(source, "ts"), nanos(target, "ts")), (5, 21));
    assert_eq!((&source["name"], &source["tid"], &target["tid"]), (&"chunk 1".into(), &1.into(), &1.into()));
}

#[test]
fn slices_and_tips_say_where_a_task_may_run_and_how_often_it_was_tried_again() {
    let mut trace = super::trace(vec![(0, vec![(1, 5)], 1, true)], &[], 1, 0);
    trace.nanos = 20;
    (trace.tasks[0].place, trace.tasks[0].retries) = (None, 0);
    assert!(!trace.to_chrome().contains("retries") && !trace.describe().contains("retries"));
    trace.tasks[0].place = Some(crate::Place { workers: Some(vec![0, 2]), priority: -1, blocking: false });
    trace.tasks[0].retries = 2;
    let events = events(&trace);
    let args = &kind(&events, "X")[0]["args"];
    assert_eq!((&args["place"], &args["retries"]), (&"workers 0, 2, priority -1".into(), &2.into()));
    let gantt = trace.gantt(crate::Lane::Task).to_svg();
    assert!(gantt.contains("\nmay run on workers 0, 2, priority -1\ntried again 2 times"), "{gantt}");
    assert!(trace.describe().lines().next().is_some_and(|line| line.ends_with("1 failed, 2 retries")));
}
