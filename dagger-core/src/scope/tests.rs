//! Scopes against their meaning: a random expression, evaluated as a scope and point by point.

use proptest::prelude::*;

use super::*;

/// An expression of the user, kept as a tree, which is what the scope itself must not be.
#[derive(Clone, Debug)]
enum Expr {
    Default,
    Any,
    Workers(Vec<usize>),
    Threads(Vec<usize>),
    Numa(usize),
    Gpus(ProcessorKind, Vec<usize>),
    Or(Box<Expr>, Box<Expr>),
    And(Box<Expr>, Box<Expr>),
}

impl Expr {
    fn scope(&self) -> Scope {
        match self {
            Expr::Default => Scope::default(),
            Expr::Any => Scope::any(),
            Expr::Workers(list) => Scope::workers(list.iter().copied()),
            Expr::Threads(list) => Scope::threads(list.iter().copied()),
            Expr::Numa(node) => Scope::numa(*node),
            Expr::Gpus(kind, list) => gpus(*kind, list.clone()),
            Expr::Or(a, b) => a.scope() | b.scope(),
            Expr::And(a, b) => a.scope() & b.scope(),
        }
    }

    fn holds(&self, p: &Processor) -> bool {
        let cpu = p.kind == ProcessorKind::Cpu;
        match self {
            Expr::Default => cpu,
            Expr::Any => p.kind != ProcessorKind::Blocking,
            Expr::Workers(list) => p.kind != ProcessorKind::Blocking && list.contains(&p.worker),
            Expr::Threads(list) => cpu && list.contains(&p.thread),
            Expr::Numa(node) => cpu && p.numa == *node,
            Expr::Gpus(kind, list) => p.kind == *kind && list.contains(&p.thread),
            Expr::Or(a, b) => a.holds(p) || b.holds(p),
            Expr::And(a, b) => a.holds(p) && b.holds(p),
        }
    }
}

fn gpus(kind: ProcessorKind, list: Vec<usize>) -> Scope {
    match kind {
        ProcessorKind::Cuda => Scope::cuda_gpus(list),
        ProcessorKind::Rocm => Scope::rocm_gpus(list),
        ProcessorKind::Intel => Scope::intel_gpus(list),
        ProcessorKind::Metal => Scope::metal_gpus(list),
        ProcessorKind::Wgpu => Scope::wgpu_gpus(list),
        ProcessorKind::Cpu | ProcessorKind::Blocking => panic!("no device"),
    }
}

/// Indices of expressions are below this, so that the grid's last index stands for all others.
const MENTIONED: usize = 3;

/// Every point that some expression can tell from the others, and the blocking threads.
fn grid() -> Vec<Processor> {
    let indices = 0..=MENTIONED;
    let mut grid = Vec::new();
    for worker in indices.clone() {
        for thread in indices.clone() {
            grid.extend(indices.clone().map(|numa| Processor::cpu_thread(worker, thread, None, numa)));
            grid.extend(ProcessorKind::DEVICES.map(|kind| Processor::device(worker, kind, thread)));
            grid.push(Processor::blocking(worker, thread));
        }
    }
    grid
}

fn expressions() -> impl Strategy<Value = Expr> {
    let list = || proptest::collection::vec(0..MENTIONED, 0..4);
    let leaf = prop_oneof![
        Just(Expr::Default),
        Just(Expr::Any),
        list().prop_map(Expr::Workers),
        list().prop_map(Expr::Threads),
        (0..MENTIONED).prop_map(Expr::Numa),
        (prop_oneof![Just(ProcessorKind::Cuda), Just(ProcessorKind::Wgpu)], list())
            .prop_map(|(kind, list)| Expr::Gpus(kind, list)),
    ];
    leaf.prop_recursive(5, 24, 2, |inner| {
        let pair = || (inner.clone().prop_map(Box::new), inner.clone().prop_map(Box::new));
        prop_oneof![pair().prop_map(|(a, b)| Expr::Or(a, b)), pair().prop_map(|(a, b)| Expr::And(a, b)),]
    })
}

/// Reads back what `Display` wrote.
fn read(text: &str) -> Scope {
    if let Some((a, b)) = split_outside(text, " | ").or_else(|| split_outside(text, " & ")) {
        let union = split_outside(text, " | ").is_some();
        return if union { read(a) | read(b) } else { read(a) & read(b) };
    }
    if let Some(inner) = text.strip_prefix('(') {
        return read(inner.strip_suffix(')').unwrap());
    }
    if text == "cpu threads" {
        return Scope::default();
    }
    let (name, rest) = text.split_once('(').unwrap();
    let argument = rest.strip_suffix(')').unwrap().trim_matches(['[', ']']);
    let list: Vec<usize> = match argument.split_once("..=") {
        Some((first, last)) => (first.parse().unwrap()..=last.parse().unwrap()).collect(),
        None => argument.split(", ").filter(|n| !n.is_empty()).map(|n| n.parse().unwrap()).collect(),
    };
    match name {
        "any" => Scope::any(),
        "worker" | "workers" => Scope::workers(list),
        "thread" | "threads" => Scope::threads(list),
        "numa" => Scope::numa(list[0]),
        "cuda_gpu" | "cuda_gpus" => Scope::cuda_gpus(list),
        "wgpu_gpu" | "wgpu_gpus" => Scope::wgpu_gpus(list),
        _ => panic!("{text:?}"),
    }
}

/// The text before and after the first `mark` that stands in no brackets.
fn split_outside<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let outside = |at: &usize| text[..*at].matches('(').count() == text[..*at].matches(')').count();
    let at = text.match_indices(mark).map(|(at, _)| at).find(outside)?;
    Some((&text[..at], &text[at + mark.len()..]))
}

proptest! {
    #[test]
    fn a_scope_holds_what_its_expression_means(a in expressions()) {
        let scope = a.scope();
        for place in grid() {
            prop_assert_eq!(scope.contains(&place), a.holds(&place), "{} in {}", place, &scope);
        }
        prop_assert_eq!(scope.is_empty(), !grid().iter().any(|place| a.holds(place)));
    }

    #[test]
    fn equality_and_subset_are_those_of_the_sets(a in expressions(), b in expressions()) {
        let (scope_a, scope_b) = (a.scope(), b.scope());
        let subset = grid().iter().all(|place| !a.holds(place) || b.holds(place));
        let equal = grid().iter().all(|place| a.holds(place) == b.holds(place));
        prop_assert_eq!(scope_a.is_subset(&scope_b), subset);
        prop_assert_eq!(scope_a == scope_b, equal);
        // Two random sets are seldom comparable; these always are.
        let union = scope_a.clone() | scope_b.clone();
        prop_assert!(scope_a.is_subset(&union) && scope_b.is_subset(&union));
        prop_assert_eq!(union == scope_b, subset);
        prop_assert_eq!((scope_a.clone() & scope_b) == scope_a, subset);
    }

    #[test]
    fn or_and_and_form_a_distributive_lattice(a in expressions(), b in expressions(), c in expressions()) {
        let (a, b, c) = (a.scope(), b.scope(), c.scope());
        let (or, and) = (|a: &Scope, b: &Scope| a.clone() | b.clone(), |a: &Scope, b: &Scope| a.clone() & b.clone());
        prop_assert_eq!(or(&a, &b), or(&b, &a));
        prop_assert_eq!(and(&a, &b), and(&b, &a));
        prop_assert_eq!(or(&a, &or(&b, &c)), or(&or(&a, &b), &c));
        prop_assert_eq!(and(&a, &and(&b, &c)), and(&and(&a, &b), &c));
        prop_assert_eq!(and(&a, &or(&b, &c)), or(&and(&a, &b), &and(&a, &c)));
        prop_assert_eq!(or(&a, &and(&a, &b)), a.clone());
        prop_assert_eq!(and(&a, &Scope::any()), a.clone());
        prop_assert_eq!(or(&a, &Scope::threads([])), a);
    }

    #[test]
    fn what_is_printed_can_be_read_back(a in expressions()) {
        let scope = a.scope();
        prop_assert_eq!(&read(&scope.to_string()), &scope);
        prop_assert_eq!(format!("{scope:?}"), scope.to_string());
    }

    #[test]
    fn exactly_what_is_outside_is_explained(a in expressions()) {
        let scope = a.scope();
        for place in grid() {
            let reason = scope.explain(&place);
            prop_assert_eq!(reason.is_none(), scope.contains(&place));
            prop_assert!(reason.is_none_or(|reason| !reason.is_empty()));
        }
    }

    #[test]
    fn no_part_is_empty_or_lies_in_another(a in expressions()) {
        let parts = a.scope().parts;
        for (i, part) in parts.iter().enumerate() {
            prop_assert!(!part.is_empty());
            for (j, other) in parts.iter().enumerate().filter(|&(j, _)| j != i) {
                prop_assert!(!part.is_subset(other), "{} in {}", i, j);
                prop_assert!(!part.joins(other), "{} joins {}", i, j);
            }
        }
    }
}

#[test]
fn a_loop_over_or_keeps_one_part() {
    let threads = (0..10_000).map(Scope::thread).reduce(|all, next| all | next).unwrap();
    assert_eq!(threads.parts.len(), 1);
    assert_eq!(threads, Scope::threads((0..10_000).rev()));
    assert_eq!(threads.to_string(), "threads(0..=9999)");
    let workers = (0..1000).rev().map(Scope::worker).reduce(|all, next| all | next).unwrap();
    assert_eq!(workers.parts.len(), 1);
}

#[test]
fn parts_that_cannot_be_joined_stay_flat() {
    let diagonal = || (0..500).map(|i| Scope::worker(i) & Scope::thread(i));
    let forward = diagonal().reduce(|all, next| all | next).unwrap();
    let backward = diagonal().rev().reduce(|all, next| all | next).unwrap();
    assert_eq!(forward.parts.len(), 500);
    assert_eq!(forward, backward);
    assert_ne!(forward, backward | Scope::worker(7) & Scope::thread(8));
}

#[test]
fn a_box_equals_its_pieces_however_it_is_cut() {
    let whole = Scope::threads([0, 1]) & Scope::workers([0, 1]);
    let rows = Scope::worker(0) & Scope::threads([0, 1]) | Scope::threads([0, 1]) & Scope::worker(1);
    assert_eq!(whole, rows);
    // A cross of two overlapping bars has two parts in either direction, and neither pair equals the other's parts.
    let cross = Scope::thread(0) | Scope::numa(0);
    let cut = Scope::thread(0) & Scope::numa(0)
        | Scope::thread(0)
        | Scope::thread(1) & Scope::numa(0)
        | Scope::numa(0);
    assert_eq!(cross, cut);
    // Covered by two parts of the union, by neither alone.
    let left = Scope::threads([0, 1]) & Scope::numa(0);
    let right = Scope::threads([1, 2]) & Scope::numa(1);
    let middle = Scope::thread(1) & (Scope::numa(0) | Scope::numa(1));
    assert!(middle.is_subset(&(left.clone() | right.clone())));
    assert!(!middle.is_subset(&left) && !middle.is_subset(&right));
}

#[test]
fn the_default_is_every_cpu_thread_and_no_gpu() {
    let scope = Scope::default();
    assert!(scope.contains(&Processor::cpu_thread(3, 99, None, 7)));
    assert!(ProcessorKind::DEVICES.iter().all(|&kind| !scope.contains(&Processor::device(0, kind, 0))));
    assert!(scope.is_subset(&Scope::any()) && scope != Scope::any());
}

#[test]
fn a_worker_has_its_gpus() {
    assert!(Scope::worker(1).contains(&Processor::device(1, ProcessorKind::Metal, 0)));
    assert_eq!(Scope::worker(1) & Scope::cuda_gpu(0), Scope::cuda_gpu(0) & Scope::worker(1));
}

#[test]
fn empty_lists_give_the_empty_scope() {
    for empty in
        [Scope::threads([]), Scope::workers([]), Scope::cuda_gpus([]), Scope::thread(0) & Scope::thread(1)]
    {
        assert!(empty.is_empty());
        assert_eq!(empty, Scope::wgpu_gpus([]));
        assert_eq!(empty.to_string(), "threads([])");
    }
}

#[test]
fn a_scope_prints_as_it_is_written() {
    let shown = |scope: Scope| scope.to_string();
    assert_eq!(shown(Scope::worker(0) & Scope::thread(1)), "worker(0) & thread(1)");
    assert_eq!(shown(Scope::threads([2, 0]) | Scope::cuda_gpu(0)), "threads([0, 2]) | cuda_gpu(0)");
    assert_eq!(
        shown(Scope::thread(0) | Scope::intel_gpu(1) | Scope::thread(2)),
        "threads([0, 2]) | intel_gpu(1)"
    );
    assert_eq!(shown(Scope::numa(0) | Scope::numa(1)), "numa(0) | numa(1)");
    assert_eq!(
        shown(Scope::thread(1) & (Scope::numa(0) | Scope::numa(1))),
        "thread(1) & (numa(0) | numa(1))"
    );
    assert_eq!(shown(Scope::default()), "cpu threads");
    assert_eq!(shown(Scope::default() & Scope::workers([1, 2])), "workers([1, 2]) & cpu threads");
    assert_eq!(shown(Scope::any()), "any()");
    assert_eq!(shown(Scope::rocm_gpus([0, 1]) | Scope::metal_gpu(0)), "rocm_gpus([0, 1]) | metal_gpu(0)");
}

#[test]
fn the_reason_names_what_does_not_fit() {
    let thread = Processor::cpu_thread(0, 1, Some(1), 0);
    let gpu = Processor::device(0, ProcessorKind::Cuda, 0);
    let reason = |scope: Scope, place: &Processor| scope.explain(place).unwrap();
    assert_eq!(reason(Scope::thread(7), &thread), "is not thread 7");
    assert_eq!(reason(Scope::threads([0, 2]) | Scope::cuda_gpu(0), &thread), "is not thread 0 or 2");
    assert_eq!(reason(Scope::threads([0, 2, 4]), &thread), "is not thread 0, 2 or 4");
    assert_eq!(reason(Scope::threads(2..64), &thread), "is not thread 2 to 63");
    assert_eq!(
        reason(Scope::threads((0..64).step_by(2)), &thread),
        "is not thread 0, 2, 4, 6, 8, 10, 12, .. or 62"
    );
    assert_eq!(
        reason(Scope::worker(1) & Scope::thread(2), &thread),
        "is not on worker 1 and is not thread 2"
    );
    assert_eq!(reason(Scope::numa(1) | Scope::thread(2), &thread), "is not on NUMA node 1; is not thread 2");
    assert_eq!(reason(Scope::cuda_gpu(0), &thread), "is a CPU thread, not a CUDA GPU");
    assert_eq!(
        reason(Scope::intel_gpu(0) | Scope::wgpu_gpu(0), &thread),
        "is a CPU thread, not an Intel GPU or a wgpu GPU"
    );
    assert_eq!(reason(Scope::default(), &gpu), "is a CUDA GPU, not a CPU thread");
    assert_eq!(reason(Scope::cuda_gpus([1, 2]), &gpu), "is not CUDA GPU 1 or 2");
    assert_eq!(reason(Scope::threads([]), &thread), "the scope is empty");
    assert_eq!(
        reason(Scope::any(), &Processor::blocking(0, 0)),
        "is a thread for blocking bodies, which is in no scope"
    );
    let diagonal =
        (10..30).map(|i| Scope::worker(i) & Scope::thread(i)).reduce(|all, next| all | next).unwrap();
    assert!(reason(diagonal, &thread).ends_with("; and 12 more such reasons"));
}
