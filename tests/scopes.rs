//! Where tasks run, and what they are told when they cannot run anywhere.

use dagger_async::prelude::*;
use dagger_tests::{Body, Kind, for_each_case, on_all_workers, on_workers};
use std::collections::HashSet;

fn own_thread() -> usize {
    current().unwrap().processor().thread
}
fn value_of<T>(_: &T) -> usize {
    own_thread()
}

#[test]
fn processors_are_numbered_from_0() {
    on_all_workers(|rt| async move {
        let processors = rt.processors();
        for (index, processor) in processors.iter().enumerate() {
            assert_eq!((processor.worker, processor.thread, processor.kind), (0, index, ProcessorKind::Cpu));
        }
        let name = format!("test-{}", processors.len());
        assert!(format!("{rt:?}").contains(&name), "{rt:?}");
    });
}

#[test]
fn a_task_runs_on_its_thread() {
    for_each_case(|case| async move {
        for thread in 0..case.workers {
            let scope = Scope::thread(thread);
            for _ in 0..20 {
                let seen = match case.kind {
                    Kind::Blocking => return,
                    kind if kind.is_async() => Options::new().scope(scope.clone()).spawn(async {
                        let mut seen = HashSet::new();
                        for _ in 0..10 {
                            seen.insert(own_thread());
                            tokio::task::yield_now().await;
                        }
                        seen
                    }),
                    _ => spawn!((|| HashSet::from([own_thread()]))(); scope = scope.clone()),
                };
                assert_eq!(seen.await.unwrap(), HashSet::from([thread]));
            }
        }
    });
}

/// A body that has blocked, and one that runs in the place of such a wait.
#[test]
fn a_blocking_wait_leaves_nobodys_scope() {
    on_workers(8, |_rt| async {
        for outer in 0..8 {
            for inner in 0..8 {
                let task = spawn!((move || {
                    let before = own_thread();
                    let inside = spawn!(own_thread(); scope = Scope::thread(inner)).blocking_wait().unwrap();
                    let free = spawn!(own_thread()).blocking_wait().unwrap();
                    assert!(free < 8);
                    (before, inside, own_thread())
                })(); scope = Scope::thread(outer));
                assert_eq!(task.await.unwrap(), (outer, inner, outer));
            }
        }
    });
}

#[test]
fn a_task_runs_on_one_of_its_threads() {
    on_workers(8, |_rt| async {
        for (scope, allowed) in [
            (Scope::threads([1, 3, 5]), vec![1, 3, 5]),
            (Scope::thread(2) | Scope::thread(6), vec![2, 6]),
            (Scope::worker(0) & Scope::thread(4), vec![4]),
            (Scope::threads([1, 2, 3]) & Scope::threads([3, 4]), vec![3]),
            (Scope::threads([0, 99]), vec![0]),
            (Scope::cuda_gpu(0) | Scope::thread(7), vec![7]),
            (Scope::workers([0, 5]) & Scope::threads(2..4), vec![2, 3]),
        ] {
            let tasks: Vec<_> = (0..100).map(|_| spawn!(own_thread(); scope = scope.clone())).collect();
            for thread in wait_all(tasks).await {
                let thread = thread.unwrap();
                assert!(allowed.contains(&thread), "{thread} is not in {scope}");
            }
        }
        let tasks: Vec<_> = (0..100)
            .map(|i| {
                let scope = [Scope::any(), Scope::worker(0), Scope::default(), Scope::any() & Scope::any()];
                spawn!(own_thread(); scope = scope[i % 4].clone())
            })
            .collect();
        assert!(wait_all(tasks).await.into_iter().all(|thread| thread.unwrap() < 8));
    });
}

/// All of a scope's threads are used when all are needed.
#[test]
fn every_thread_of_a_scope_is_used() {
    on_workers(8, |_rt| async {
        let scope = Scope::threads([1, 3, 5]);
        let bodies: Vec<Body> = (0..3).map(|_| Body::new().waits()).collect();
        let tasks: Vec<_> =
            bodies.iter().map(|body| Kind::Sync.spawn(Options::new().scope(scope.clone()), body)).collect();
        for body in &bodies {
            body.started.pass().await;
        }
        // A fourth waits, although other workers idle.
        let fourth = spawn!(own_thread(); scope = scope);
        assert_eq!(spawn!((|| 1)(); scope = Scope::thread(0)).await.unwrap(), 1);
        assert!(!fourth.is_finished());
        bodies.iter().for_each(|body| body.go.open());
        assert!([1, 3, 5].contains(&fourth.await.unwrap()));
        assert!(wait_all(tasks).await.iter().all(Result::is_ok));
    });
}

#[test]
fn numa_nodes_are_scopes() {
    on_workers(8, |rt| async move {
        for processor in rt.processors() {
            let task =
                spawn!((|| current().unwrap().processor().numa)(); scope = Scope::numa(processor.numa));
            assert_eq!(task.await.unwrap(), processor.numa);
        }
        let error = spawn!((|| ())(); scope = Scope::numa(4096)).await.unwrap_err();
        assert!(matches!(error, Error::NoProcessor { .. }));
    });
}

// Nowhere.

#[test]
fn scopes_that_have_nothing_in_common_are_all_named() {
    on_all_workers(|_| async {
        let options = Options::new().scope(Scope::thread(0)).result_scope(Scope::thread(1));
        let chunk = Chunk::new_in(Scope::default(), 7_u64);
        let error = options.spawn(async {}).await.unwrap_err();
        let text = error.to_string();
        let first = text.lines().next().unwrap();
        let (scope, result_scope) = (Scope::thread(0), Scope::thread(1));
        assert!(
            first.ends_with(&format!("{scope} by its scope and {result_scope} by its result scope")),
            "{text}"
        );
        let Error::NoProcessor { processors, .. } = &error else { panic!("{error}") };
        // Each is excluded by one of them, not by what they have in common.
        assert!(processors.iter().all(|(_, reason)| !reason.contains("empty")), "{text}");
        let task = spawn!((|x: &u64| *x)(In(&chunk)); scope = Scope::thread(77));
        let text = task.await.unwrap_err().to_string();
        assert!(text.lines().next().unwrap().ends_with("by what it takes"), "{text}");
    });
}

#[test]
fn a_scope_without_processors_fails_the_task_and_says_why() {
    for_each_case(|case| async move {
        for (scope, names) in [
            (Scope::threads([]), vec![]),
            (Scope::workers([]), vec![]),
            (Scope::thread(0) & Scope::thread(1), vec![]),
            (Scope::thread(99), vec!["99"]),
            (Scope::worker(1), vec!["worker", "1"]),
            (Scope::cuda_gpu(0), vec!["CUDA"]),
            (Scope::rocm_gpu(0), vec!["ROCm"]),
            (Scope::intel_gpu(0), vec!["Intel"]),
            (Scope::metal_gpu(0), vec!["Metal"]),
            (Scope::wgpu_gpus([0, 1]), vec!["wgpu"]),
        ] {
            let body = Body::new();
            let task = case.spawn_with(Options::new().name("homeless").scope(scope.clone()), &body);
            assert!(task.is_finished(), "it is known at once");
            let next = spawn!(value_of(&task));
            let error = task.await.unwrap_err();
            let Error::NoProcessor { root, asked, processors, .. } = &error else {
                panic!("{scope}: {error}")
            };
            assert_eq!((root.name(), asked), ("homeless", &scope));
            let text = error.to_string();
            assert!(text.contains("homeless") && text.contains(&scope.to_string()), "{text}");
            for name in names {
                assert!(text.contains(name), "{name} is not in: {text}");
            }
            assert_eq!(processors.len(), case.workers);
            for (processor, reason) in processors.iter() {
                assert!(!reason.is_empty());
                assert!(text.contains(&format!("{processor}: {reason}")), "{processor} is not in: {text}");
            }
            let error = next.await.unwrap_err();
            assert_eq!(error.root().unwrap().name(), "homeless");
            case.rt.idle().await;
            assert_eq!((body.runs(), body.held.dropped()), (0, 1));
        }
    });
}

#[test]
fn a_gpu_only_when_named() {
    on_workers(2, |_rt| async {
        // The default is CPU threads; the result scope alone names no GPU for the task.
        let error = spawn!((|| ())(); result_scope = Scope::cuda_gpu(0)).await.unwrap_err();
        assert!(matches!(error, Error::NoProcessor { .. }), "{error}");
    });
}

#[test]
fn blocking_contradicts_a_narrow_scope() {
    on_workers(2, |_rt| async {
        let task = spawn!((|| ())(); scope = Scope::thread(1), blocking = true, name = "torn");
        let error = task.await.unwrap_err();
        let Error::Options { root, message, .. } = &error else { panic!("{error}") };
        assert_eq!(root.as_ref().unwrap().name(), "torn");
        assert!(message.contains("blocking") && message.contains("thread(1)"), "{message}");
        assert!(error.to_string().contains("torn"), "{error}");
        // The inherited scope counts as well.
        let task = with_options(Options::new().scope(Scope::thread(0)), async {
            spawn!((|| ())(); blocking = true)
        });
        assert!(matches!(task.await.await, Err(Error::Options { .. })));
        // A scope that has all of them, and one that has none.
        assert!(spawn!((|| ())(); scope = Scope::any(), blocking = true).await.is_ok());
        let none = spawn!((|| ())(); scope = Scope::threads([]), blocking = true);
        assert!(matches!(none.await, Err(Error::NoProcessor { .. })));
    });
}

// Where results may be used.

#[test]
fn a_task_and_those_that_take_its_result_run_in_the_result_scope() {
    on_workers(8, |_rt| async {
        for _ in 0..30 {
            let made = spawn!(own_thread(); result_scope = Scope::threads([2, 3]));
            let thread = (&made).await.unwrap();
            assert!([2, 3].contains(&*thread));
            drop(thread);
            let by_reference = spawn!(value_of(&made)).await.unwrap();
            assert!([2, 3].contains(&by_reference));
            let both = spawn!(value_of(&made); scope = Scope::threads([3, 4])).await.unwrap();
            assert_eq!(both, 3);
            let syncdep = spawn!(own_thread(); syncdeps = [&made], scope = Scope::thread(5)).await.unwrap();
            assert_eq!(syncdep, 5, "a syncdep takes no result");
            let by_value = spawn!((|_: usize| own_thread())(made)).await.unwrap();
            assert!([2, 3].contains(&by_value));
        }
    });
}

#[test]
fn a_result_of_a_future_has_a_result_scope_too() {
    on_workers(8, |_rt| async {
        let made = Options::new().result_scope(Scope::thread(6)).spawn(async { own_thread() });
        assert_eq!(spawn!(value_of(&made)).await.unwrap(), 6);
        assert_eq!(made.await.unwrap(), 6);
        let made =
            with_options(Options::new().result_scope(Scope::thread(5)), async { spawn!(own_thread()) }).await;
        assert_eq!(spawn!(value_of(&made)).await.unwrap(), 5);
    });
}

#[test]
fn results_that_may_not_meet_fail_the_task() {
    on_workers(2, |_rt| async {
        let here = spawn!(own_thread(); result_scope = Scope::thread(0));
        let there = spawn!(own_thread(); result_scope = Scope::thread(1));
        let error = spawn!((|a: usize, b: usize| a + b)(here, there); name = "torn").await.unwrap_err();
        assert!(matches!(error, Error::NoProcessor { .. }), "{error}");
        assert_eq!(error.root().unwrap().name(), "torn");
        let elsewhere = spawn!(own_thread(); result_scope = Scope::thread(0), scope = Scope::thread(1));
        assert!(matches!(elsewhere.await, Err(Error::NoProcessor { .. })));
    });
}

// Scopes as sets.

/// Every processor that the scopes below can tell apart, and some more.
fn universe() -> Vec<Processor> {
    let mut all = Vec::new();
    for worker in 0..4 {
        for thread in 0..5 {
            for numa in 0..3 {
                all.push(Processor::cpu_thread(worker, thread, None, numa));
            }
        }
        for index in 0..4 {
            for kind in [
                ProcessorKind::Cuda,
                ProcessorKind::Rocm,
                ProcessorKind::Intel,
                ProcessorKind::Metal,
                ProcessorKind::Wgpu,
            ] {
                all.push(Processor::device(worker, kind, index));
            }
        }
    }
    all
}

fn simple() -> Vec<Scope> {
    vec![
        Scope::any(),
        Scope::default(),
        Scope::threads([]),
        Scope::worker(0),
        Scope::workers([1, 2]),
        Scope::thread(1),
        Scope::threads([0, 1, 3]),
        Scope::numa(1),
        Scope::cuda_gpu(0),
        Scope::cuda_gpus([1, 2]),
        Scope::wgpu_gpu(0),
    ]
}

#[test]
fn scopes_are_equal_when_they_denote_the_same_set() {
    let universe = universe();
    let set = |scope: &Scope| -> Vec<bool> { universe.iter().map(|p| scope.contains(p)).collect() };
    let mut scopes = simple();
    for a in simple() {
        for b in simple() {
            scopes.push(a.clone() | b.clone());
            scopes.push(a.clone() & b.clone());
            scopes.push((a.clone() | b.clone()) & Scope::worker(0));
            scopes.push(a.clone() & b.clone() | Scope::thread(0));
        }
    }
    let sets: Vec<_> = scopes.iter().map(set).collect();
    for (a, of_a) in scopes.iter().zip(&sets) {
        assert_eq!(a.is_empty(), of_a.iter().all(|inside| !inside), "{a}");
        for (b, of_b) in scopes.iter().zip(&sets) {
            assert_eq!(a == b, of_a == of_b, "{a} and {b}");
            let subset = of_a.iter().zip(of_b).all(|(a, b)| !a || *b);
            assert_eq!(a.is_subset(b), subset, "{a} in {b}");
        }
    }
}

#[test]
fn scopes_obey_the_laws_of_sets() {
    let all = simple();
    let none = Scope::threads([]);
    for a in &all {
        let a = || a.clone();
        assert_eq!(a() | a(), a());
        assert_eq!(a() & a(), a());
        assert_eq!(a() | none.clone(), a());
        assert_eq!(a() & none.clone(), none);
        assert_eq!(a() & Scope::any(), a());
        assert_eq!(a() | Scope::any(), Scope::any());
        for b in &all {
            let b = || b.clone();
            assert_eq!(a() | b(), b() | a());
            assert_eq!(a() & b(), b() & a());
            assert_eq!(a() | (a() & b()), a());
            assert_eq!(a() & (a() | b()), a());
            for c in &all {
                let c = || c.clone();
                assert_eq!((a() | b()) | c(), a() | (b() | c()));
                assert_eq!((a() & b()) & c(), a() & (b() & c()));
                assert_eq!(a() & (b() | c()), a() & b() | a() & c());
                assert_eq!(a() | b() & c(), (a() | b()) & (a() | c()));
            }
        }
    }
    assert_eq!(Scope::threads([2, 1, 1]), Scope::thread(1) | Scope::thread(2));
    assert_ne!(Scope::thread(0), Scope::thread(1));
    assert_ne!(Scope::any(), Scope::default());
    let blocking = Processor::blocking(0, 3);
    assert!(all.iter().all(|scope| !scope.contains(&blocking)));
}
