use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::region::model::{Elements, Tape};
use crate::region::{Axis, Grid, Progression};

fn part(start: usize, len: usize) -> Area {
    Area::Grid(Grid::line(Progression::range(start, len).into()))
}

/// The queue by its definition: a list of all accesses, each compared with all before it.
#[derive(Default)]
struct Oracle {
    live: Vec<(usize, bool, Elements, Place)>,
}

impl Oracle {
    fn blockers(&self, i: usize) -> Vec<usize> {
        let (_, writes, elements, _) = &self.live[i];
        let earlier = self.live[..i].iter();
        let conflicting = earlier.filter(|other| (other.1 || *writes) && !other.2.is_disjoint(elements));
        conflicting.map(|other| other.0).collect()
    }

    /// One that writes, or those that come before the first that does. What writes no elements does not write.
    fn oldest(&self) -> Vec<(usize, bool)> {
        let first = self.live.iter().position(|(_, writes, elements, _)| *writes && !elements.is_empty());
        let count = first.map_or(self.live.len(), |first| first.max(1));
        self.live[..count].iter().map(|(ticket, writes, ..)| (*ticket, *writes)).collect()
    }

    /// What is visited, sorted: it must come in program order, but for what only reads with nothing live that writes between.
    fn in_order(&self, visit_all: impl Fn(&mut dyn FnMut(&usize))) -> Vec<usize> {
        let mut visited = vec![];
        visit_all(&mut |&ticket| visited.push(ticket));
        let writers = self.live.iter().filter(|(_, writes, elements, _)| *writes && !elements.is_empty());
        let writers: Vec<usize> = writers.map(|access| access.0).collect();
        for (at, &one) in visited.iter().enumerate() {
            for &later in &visited[at + 1..] {
                let is_between = |&writer: &usize| (later..=one).contains(&writer);
                assert!(one < later || !writers.iter().any(is_between), "{later} came before {one}");
            }
        }
        visited.sort_unstable();
        visited
    }

    fn granted(&self) -> Vec<usize> {
        (0..self.live.len()).filter(|&i| self.blockers(i).is_empty()).map(|i| self.live[i].0).collect()
    }
}

/// Runs a program on the queue and the oracle, and compares them after each step. An access of `areas` comes with
/// `choose` until `steps` are done, then all are released.
fn compare(
    areas: &[(Area, Elements)],
    steps: usize,
    mut choose: impl FnMut(usize) -> usize,
) -> AccessQueue<usize> {
    let (mut queue, mut oracle, mut granted) = (AccessQueue::new(), Oracle::default(), BTreeSet::new());
    // Counters are about to wrap, which must not matter.
    queue.whole = Fragment::about_to_wrap();
    queue.nothings = u64::from(u32::MAX) - 10;
    let (begun, mut accesses) = (queue.accesses(), 0);
    for step in 0.. {
        let enqueue = step < steps && (granted.is_empty() || (oracle.live.len() < 30 && choose(2) == 0));
        if enqueue {
            let ((area, elements), writes) = (&areas[choose(areas.len())], choose(3) == 0);
            let (place, now) = queue.enqueue(step, writes, area);
            accesses += 1;
            oracle.live.push((step, writes, elements.clone(), place));
            if now {
                granted.insert(step);
            }
            assert_eq!(queue.is_granted(place), now);
        } else if let Some(&ticket) = granted.iter().nth(choose(granted.len().max(1))) {
            granted.remove(&ticket);
            let i = oracle.live.iter().position(|access| access.0 == ticket).unwrap();
            let (.., place) = oracle.live.remove(i);
            queue.release(place, &mut |&ready| assert!(granted.insert(ready), "{ready} is granted twice"));
        } else {
            break;
        }
        assert_eq!(granted.iter().copied().collect::<Vec<_>>(), oracle.granted(), "after step {step}");
        assert_eq!(queue.is_idle(), oracle.live.is_empty());
        assert_eq!(queue.accesses(), begun + accesses);
        let waiting = oracle.in_order(|visit| queue.waiting(visit));
        assert_eq!(oracle.in_order(|visit| queue.granted(visit)), oracle.granted());
        assert_eq!(waiting.len() + granted.len(), oracle.live.len());
        for (i, (.., place)) in oracle.live.iter().enumerate() {
            let blockers = oracle.in_order(|visit| queue.blockers(*place, visit));
            assert_eq!(blockers, oracle.blockers(i));
            assert_eq!(queue.is_granted(*place), blockers.is_empty());
        }
        let mut oldest = vec![];
        queue.oldest(&mut |&ticket, writes| oldest.push((ticket, writes)));
        oldest.sort_unstable();
        assert_eq!(oldest, oracle.oldest());
        let whole = oracle.live.iter().any(|(_, writes, elements, _)| *writes && elements.contains(&vec![]));
        assert_eq!(queue.live_whole_write(), whole);
    }
    assert!(queue.is_idle());
    queue
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn exactly_the_accesses_without_earlier_conflicts_are_granted(
        shape in vec(any::<u8>(), 12), areas in vec(vec(any::<u8>(), 0..32), 1..8), steps in vec(any::<u8>(), 0..240),
    ) {
        let shape = Tape(shape.iter()).shape();
        let all = |(area, mut elements): (Area, Elements)| {
            if area == Area::Whole {
                // The empty index stands for what is no element; every area but an empty one shares it with `Whole`
                // through its elements, which a chunk of a shape without elements does not have.
                elements.extend((0..10).map(|byte| vec![byte; 8]));
            }
            (area, elements)
        };
        let areas = areas.iter().map(|tape| all(Tape(tape.iter()).area(&shape)));
        // Fields and grids of one chunk cannot be compared: they are left to their own test.
        let areas: Vec<_> = areas.filter(|(area, _)| !matches!(area, Area::Bytes(_))).collect();
        if areas.is_empty() {
            return Ok(());
        }
        let mut tape = Tape(steps.iter());
        compare(&areas, steps.len() / 3, |n| tape.below(n));
    }
}

#[test]
fn fragments_come_and_go_without_changing_who_waits() {
    let areas: Vec<(Area, Elements)> = (0..40_usize)
        .flat_map(|start| (1..12_usize).map(move |len| (start, len)))
        .map(|(start, len)| (part(start, len), (start..start + len).map(|i| vec![i]).collect()))
        .chain([(Area::Whole, (0..60).map(|i| vec![i]).chain([vec![]]).collect())])
        .collect();
    let mut state = 1_u64;
    let random = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    let queue = compare(&areas, 4000, random);
    let parts = queue.parts.unwrap();
    assert!(parts.slots.len() < areas.len() / 2, "{} of {} are kept", parts.slots.len(), areas.len());
    assert_eq!(parts.slots.len(), parts.known.len());
}

#[test]
fn dead_fragments_are_dropped_when_they_are_many() {
    let mut queue = AccessQueue::new();
    let (held, _) = queue.enqueue(0, true, &part(0, 5000));
    for i in 0..5000 {
        let (place, granted) = queue.enqueue(i, false, &part(5000 + i, 1));
        assert!(granted);
        queue.release(place, &mut |_| {});
        assert!(queue.parts.as_ref().unwrap().slots.len() <= DEAD_KEPT + 3);
    }
    assert!(!queue.enqueue(1, false, &part(4999, 2)).1, "the live one is still there");
    queue.release(held, &mut |_| {});
}

#[test]
fn readers_between_two_writers_run_together() {
    let mut queue = AccessQueue::new();
    let (w, _) = queue.enqueue("w", true, &Area::Whole);
    let (a, _) = queue.enqueue("a", false, &Area::Whole);
    let (b, _) = queue.enqueue("b", false, &part(0, 2));
    let (last, _) = queue.enqueue("last", true, &Area::Whole);
    let release = |queue: &mut AccessQueue<&'static str>, place| {
        let mut ready = vec![];
        queue.release(place, &mut |&ticket| ready.push(ticket));
        ready.sort_unstable();
        ready
    };
    assert_eq!(release(&mut queue, w), ["a", "b"]);
    assert!(release(&mut queue, b).is_empty());
    assert_eq!(release(&mut queue, a), ["last"]);
    assert!(queue.live_whole_write());
    assert!(release(&mut queue, last).is_empty());
    assert!(queue.is_idle() && !queue.live_whole_write());
}

#[test]
fn nothing_waits_for_nothing() {
    let mut queue = AccessQueue::new();
    let (whole, _) = queue.enqueue(1, true, &Area::Whole);
    let (empty, granted) = queue.enqueue(2, true, &part(3, 0));
    assert!(granted && queue.is_granted(empty));
    assert!(queue.enqueue(3, true, &Area::Bytes(4..4)).1);
    let mut blockers = vec![];
    queue.blockers(empty, &mut |&ticket| blockers.push(ticket));
    assert!(blockers.is_empty());
    queue.release(whole, &mut |_| panic!("nobody waits"));
    queue.release(empty, &mut |_| panic!("nobody waits"));
    assert!(!queue.is_idle());
}

#[test]
fn fields_wait_for_the_same_bytes_and_for_what_cannot_be_compared() {
    let mut queue = AccessQueue::new();
    assert!(queue.enqueue(1, true, &Area::Bytes(0..8)).1);
    assert!(queue.enqueue(2, true, &Area::Bytes(8..16)).1);
    assert!(!queue.enqueue(3, false, &Area::Bytes(4..12)).1);
    assert!(!queue.enqueue(4, false, &Area::Grid(Grid::line(Axis::all()))).1);
    assert_eq!(format!("{queue:?}"), "AccessQueue { granted: 2, waiting: 2, fragments: 4 }");
}

#[test]
fn an_access_may_outlive_more_others_than_a_count_counts() {
    const OTHERS: u32 = u32::MAX;
    let mut queue = AccessQueue::new();
    assert!(queue.enqueue("old", true, &part(0, 2)).1);
    // So many others have written a part meanwhile, each after the other.
    let begun = queue.accesses();
    queue.whole.pass_foreign_writes(OTHERS);
    queue.epoch += 1; // From 1 on, that is once through all.
    queue.parts.as_mut().unwrap().last_writes += u64::from(OTHERS);
    assert_eq!(queue.accesses(), begun + u64::from(OTHERS));

    let (waits, granted) = queue.enqueue("new", true, &part(1, 2));
    let mut blockers = vec![];
    queue.blockers(waits, &mut |&ticket| blockers.push(ticket));
    assert!(!granted && blockers == ["old"], "{blockers:?}");
    let mut oldest = vec![];
    queue.oldest(&mut |&ticket, writes| oldest.push((ticket, writes)));
    assert_eq!(oldest, [("old", true)]);
}

#[test]
fn a_place_that_has_come_to_mean_another_kind_of_access_is_not_released() {
    // Debug builds say so loudly.
    let refuses = |queue: &mut AccessQueue<u32>, place| {
        let release = || queue.release(place, &mut |_| panic!("nobody waits"));
        let released = std::panic::catch_unwind(std::panic::AssertUnwindSafe(release));
        assert_eq!(released.is_err(), cfg!(debug_assertions));
    };
    for (writes, area) in
        [true, false].into_iter().flat_map(|writes| [(writes, Area::Whole), (writes, part(0, 2))])
    {
        let mut queue = AccessQueue::new();
        let (first, _) = queue.enqueue(1, writes, &area);
        queue.release(first, &mut |_| {});
        refuses(&mut queue, first);
        let (second, _) = queue.enqueue(2, !writes, &area);
        assert_eq!(first.key(), second.key());
        refuses(&mut queue, first);
        assert!(queue.is_granted(second) && !queue.is_granted(first));
        assert!(!queue.enqueue(3, true, &Area::Whole).1, "the second is there still");
    }
}
