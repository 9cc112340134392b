//! The JSON against the "Trace Event Format" of the Chromium project, as its description has it: nothing here knows how a
//! trace is made.

use dagger_async::prelude::*;
use dagger_core::record::{Cause, End, Lane, Log, Move, Name, Record, What};
use dagger_trace::{Trace, trace};
use serde_json::Value;
use std::collections::HashMap;
use std::panic::Location;
use std::time::{Instant, UNIX_EPOCH};

/// Category and id.
type Id = (String, String);
/// Process and thread.
type Thread = (u64, u64);

/// What a file holds, by phase.
#[derive(Default, Debug, PartialEq)]
struct Counted {
    slices: usize,
    flows: usize,
    waits: usize,
    counters: usize,
    threads: usize,
    processes: usize,
}

fn micros(event: &Value, field: &str) -> Result<f64, String> {
    event[field].as_f64().filter(|at| at.is_finite() && *at >= 0.0).ok_or(format!("{field} in {event}"))
}

/// Reads a file as a viewer would, and says what no viewer could make sense of.
fn check(json: &str) -> Result<Counted, String> {
    let file: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let events = file["traceEvents"].as_array().ok_or("no list of events")?;
    if !["ns", "ms"].contains(&file["displayTimeUnit"].as_str().unwrap_or("ms")) {
        return Err("displayTimeUnit".into());
    }
    let mut counted = Counted::default();
    // By process and thread: when slices begin and end. By (category, id): what is open. By counter: its last moment.
    let mut slices: HashMap<Thread, Vec<(f64, f64)>> = HashMap::new();
    let mut flows: HashMap<Id, Vec<(f64, Thread, bool)>> = HashMap::new();
    let mut waits: HashMap<Id, Option<f64>> = HashMap::new();
    let mut counters: HashMap<(u64, String), f64> = HashMap::new();
    for event in events {
        let bad = |what: &str| format!("{what} in {event}");
        let phase = event["ph"].as_str().ok_or(bad("ph"))?;
        let text = |field: &str| event[field].as_str().map(str::to_owned).ok_or(bad(field));
        let (name, pid) = (text("name")?, event["pid"].as_u64().ok_or(bad("pid"))?);
        let tid = (pid, event["tid"].as_u64().ok_or(bad("tid"))?);
        let id = || match &event["id"] {
            id @ (Value::Number(_) | Value::String(_)) => Ok((text("cat")?, id.to_string())),
            _ => Err(bad("id")),
        };
        match phase {
            "M" => {
                let field = match name.as_str() {
                    "process_name" | "thread_name" => event["args"]["name"].is_string(),
                    "thread_sort_index" | "process_sort_index" => event["args"]["sort_index"].is_i64(),
                    _ => false,
                };
                field.then_some(()).ok_or(bad("args"))?;
                counted.threads += usize::from(name == "thread_name");
                counted.processes += usize::from(name == "process_name");
            }
            "X" => {
                let (at, dur) = (micros(event, "ts")?, micros(event, "dur")?);
                event.get("args").is_none_or(Value::is_object).then_some(()).ok_or(bad("args"))?;
                slices.entry(tid).or_default().push((at, at + dur));
                counted.slices += 1;
            }
            "s" | "f" => {
                if phase == "f" && event["bp"] != "e" {
                    return Err(bad("bp")); // without it the arrow would lead to the next slice
                }
                flows.entry(id()?).or_default().push((micros(event, "ts")?, tid, phase == "s"));
            }
            "b" => {
                let before = waits.entry(id()?).or_default().replace(micros(event, "ts")?);
                before.is_none().then_some(()).ok_or(bad("a second begin"))?;
                counted.waits += 1;
            }
            "e" => {
                let begun = waits.entry(id()?).or_default().take().ok_or(bad("no begin"))?;
                (begun <= micros(event, "ts")?).then_some(()).ok_or(bad("an end before its begin"))?;
            }
            "C" => {
                let at = micros(event, "ts")?;
                let args = event["args"].as_object().filter(|args| !args.is_empty()).ok_or(bad("args"))?;
                args.values().all(Value::is_number).then_some(()).ok_or(bad("args"))?;
                let last = counters.insert((pid, name), at);
                last.is_none_or(|last| last < at).then_some(()).ok_or(bad("ts"))?;
                counted.counters += 1;
            }
            other => return Err(format!("phase {other}")),
        }
    }
    if let Some((id, _)) = waits.iter().find(|(_, open)| open.is_some()) {
        return Err(format!("{id:?} never ends"));
    }
    for (lane, slices) in &mut slices {
        slices.sort_by(|a, b| a.partial_cmp(b).expect("they are finite"));
        // Complete events of one thread nest or stand apart; here a thread does one thing at a time. Times have three decimals.
        if let Some(pair) = slices.windows(2).find(|pair| pair[0].1 > pair[1].0 + 0.0005) {
            return Err(format!("{pair:?} overlap on {lane:?}"));
        }
    }
    for (id, ends) in flows {
        let [(from, lane, true), (to, to_lane, false)] = ends[..] else {
            return Err(format!("{id:?} is no pair: {ends:?}"));
        };
        let bound = |lane: Thread, at: f64| {
            let Some(all) = slices.get(&lane) else { return false };
            let begun = all.partition_point(|&(start, _)| start <= at);
            begun > 0 && at <= all[begun - 1].1
        };
        if from > to || !bound(lane, from) || !bound(to_lane, to) {
            return Err(format!(
                "{id:?} leads from {lane:?} at {from} to {to_lane:?} at {to}: no slices there"
            ));
        }
        counted.flows += 1;
    }
    Ok(counted)
}

#[test]
fn a_recorded_run_is_what_the_format_says() {
    let rt = Runtime::builder().threads(3).pin(false).build().unwrap();
    let recorder = trace::start();
    let chunk = Chunk::new(vec![0i64; 8]);
    rt.block_on(async {
        datadeps(async {
            for at in 0..8 {
                spawn!((|x: &mut [i64]| x[0] += 1)(InOut(&chunk.slice(at..=at))));
            }
            spawn!((|x: &Vec<i64>| x.len())(&chunk); name = "a \"quoted\" name\n");
        })
        .await
        .unwrap();
        let waits = spawn(async {
            let inner = Options::new().syncdeps([&spawn!((|| ())())]).spawn(async {
                tokio::task::yield_now().await;
                7
            });
            inner.await.unwrap()
        });
        assert_eq!(spawn!((|x: i64| x + 1)(waits)).await.unwrap(), 8);
        assert!(spawn!((|| -> i32 { panic!("it fails") })()).await.is_err());
        let never = spawn(std::future::pending::<()>());
        never.cancel();
        assert!(never.await.is_err());
    });
    rt.block_on(rt.idle());
    let trace = recorder.finish_now();
    let counted = check(&trace.to_chrome()).unwrap();
    let runs: usize = trace.tasks.iter().map(|task| task.runs.len()).sum();
    assert_eq!((counted.slices, counted.threads, counted.processes), (runs, trace.lanes.len(), 1));
    // The whole read comes after eight writes; two arguments, one order, one await.
    assert!(counted.flows >= 11 && counted.waits >= 2 && counted.counters >= 4, "{counted:?}");
}

/// Three moves of one thread, of which two overlap, and samples of two stores, also at the same time.
#[test]
fn what_stores_moved_is_a_process_of_its_own() {
    let moved = |chunk, how, nanos| What::Moved { chunk, bytes: 1 << 20, how, nanos };
    let records = [
        (400, moved(1, Move::Spilled, 300)),
        (400, What::Resident { store: 1, bytes: 5, pinned: 2 }),
        (400, What::Resident { store: 1, bytes: 4, pinned: 2 }),
        (401, What::Resident { store: 2, bytes: 3, pinned: 3 }),
        (500, moved(2, Move::Reloaded, 200)),
        (500, What::Resident { store: 1, bytes: 7, pinned: 2 }),
        (700, moved(3, Move::Made, 200)),
        (700, moved(4, Move::Dropped, 0)),
    ];
    let records = records.into_iter().map(|(at, what)| Record { at, what }).collect();
    let lanes = vec![Lane { name: "store".into(), worker: None, records }];
    let trace = Trace::from_log(&Log { began: UNIX_EPOCH, nanos: 1000, lanes, lost: 0 });
    let json = trace.to_chrome();
    let counted = check(&json).unwrap();
    // One lane of tasks, two of moves; of the counters two in each store, of which one changes.
    let expected = Counted { slices: 4, counters: 5, threads: 3, processes: 2, ..Counted::default() };
    assert_eq!(counted, expected, "{json}");
    for name in ["spill", "reload", "make", "drop", "resident in store 1", "pinned in store 2"] {
        assert!(json.contains(&format!("\"name\":\"{name}\"")), "{name} in {json}");
    }
}

#[test]
fn what_is_not_the_format_is_noticed() {
    let good = r#"{"ph":"X","pid":1,"tid":1,"ts":1,"dur":2,"name":"a","cat":"task"}"#;
    let file = |events: &[&str]| {
        let all = [&[good], events].concat().join(",");
        check(&format!(r#"{{"displayTimeUnit":"ns","traceEvents":[{all}]}}"#))
    };
    assert_eq!(file(&[]).unwrap().slices, 1);
    let flow = |phase: &str, ts: u32| {
        format!(r#"{{"ph":"{phase}","pid":1,"tid":1,"ts":{ts},"id":3,"cat":"c","bp":"e","name":"n"}}"#)
    };
    assert_eq!(file(&[&flow("s", 1), &flow("f", 2)]).unwrap().flows, 1);
    for events in [
        vec![flow("s", 1)],
        vec![flow("f", 2)],
        vec![flow("s", 2), flow("f", 1)],
        vec![flow("s", 1), flow("f", 9)],
        vec![flow("b", 1)],
        vec![flow("e", 1)],
        vec![flow("e", 1), flow("b", 1)],
        vec![flow("C", 1)],
        vec![flow("q", 1)],
        vec![good.replace(":2", ":\"2\"")],
        vec![good.replace("\"ts\":1", "\"ts\":2")],
        vec![good.replace("\"tid\":1,", "")],
    ] {
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        assert!(file(&events).is_err(), "{events:?}");
    }
}

/// Tasks in a grid: each takes the result of one and writes a chunk after another one.
fn large(tasks: u64) -> Trace {
    const LANES: u64 = 8;
    let mut lanes: Vec<Vec<Record>> = vec![Vec::new(); LANES as usize];
    let mut spawns = Vec::new();
    for task in 1..=tasks {
        let at = task * 100;
        let mut spawn = |what| spawns.push(Record { at, what });
        spawn(What::Spawn { task, parent: 0, name: Name::Callee("gemm"), site: Location::caller() });
        if task > LANES {
            spawn(What::After { task, input: task - LANES, cause: Cause::Argument });
        }
        let (chunk, turn, writes, part) = (task % 1000, task / 1000 + 1, true, None);
        spawn(What::Access { task, chunk, turn, writes, part });
        spawn(What::Ready { task });
        let lane = &mut lanes[(task % LANES) as usize];
        lane.push(Record { at: at + 10, what: What::Start { task } });
        lane.push(Record { at: at + 90, what: What::End { task, end: End::Done } });
    }
    let lane = |(index, records)| Lane { name: format!("worker {index}"), worker: Some(index), records };
    let mut lanes: Vec<Lane> = lanes.into_iter().enumerate().map(lane).collect();
    lanes.push(Lane { name: "main".into(), worker: None, records: spawns });
    Trace::from_log(&Log { began: UNIX_EPOCH, nanos: (tasks + 1) * 100, lanes, lost: 0 })
}

/// `cargo test --release -p dagger-trace --test chrome_format -- --nocapture` shows the figure.
#[test]
fn a_hundred_thousand_tasks_are_written_in_less_than_a_second() {
    // Without optimisation the time says nothing about what a user waits for, and reading all of it back takes long.
    let tasks = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
    let trace = large(tasks as u64);
    let clock = Instant::now();
    let json = trace.to_chrome();
    let took = clock.elapsed();
    println!("{} tasks, {} edges: {} bytes in {took:.2?}", trace.tasks.len(), trace.edges.len(), json.len());
    let counted = check(&json).unwrap();
    assert_eq!((counted.slices, counted.flows), (tasks, tasks - 8 + tasks - 1000));
    assert!(took.as_secs_f64() < 1.0, "{took:?}");
}
