use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::region::model::{Elements, Tape};

fn part(start: usize, len: usize) -> Area {
    Area::Grid(Grid::line(Progression::range(start, len).into()))
}

/// Every element with its first cause.
type Oracle = BTreeMap<Vec<usize>, usize>;

fn find(oracle: &Oracle, elements: &Elements) -> Option<usize> {
    elements.iter().filter_map(|element| oracle.get(element)).min().copied()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn poison_is_what_no_success_has_covered_since(
        shape in vec(any::<u8>(), 12), steps in vec((any::<u8>(), vec(any::<u8>(), 0..24)), 0..24),
    ) {
        let shape = Tape(shape.iter()).shape();
        let (mut poison, mut oracle) = (Poison::new(), Oracle::new());
        for (cause, (kind, tape)) in steps.into_iter().enumerate() {
            // Parts of one chunk: its elements, and everything. `Whole` stands for its elements here.
            let (area, mut elements) = Tape(tape.iter()).area(&shape);
            elements.remove(&vec![]);
            if matches!(area, Area::Bytes(_)) || (area == Area::Whole && elements.is_empty()) {
                continue;
            }
            match kind % 3 {
                0 => {
                    for element in elements {
                        oracle.entry(element).or_insert(cause);
                    }
                    poison.add(area, Some(&shape), cause);
                }
                1 => {
                    poison.heal(&area);
                    oracle.retain(|element, _| !elements.contains(element));
                }
                _ => prop_assert_eq!(poison.find(&area).copied(), find(&oracle, &elements), "{}", area),
            }
            prop_assert_eq!(poison.is_clean(), oracle.is_empty());
            for element in oracle.keys() {
                let point = Grid::boxed(element.iter().map(|&i| Axis::from(Progression::one(i)))).unwrap();
                prop_assert_eq!(poison.find(&Area::Grid(point)), oracle.get(element));
            }
        }
    }

    #[test]
    fn a_write_that_fails_over_and_over_takes_memory_for_its_elements_only(
        steps in vec((any::<bool>(), 0..20usize, 0..20usize), 200),
    ) {
        let mut poison = Poison::new();
        for (fails, start, len) in steps {
            if fails {
                poison.add(part(start, len), Some(&Shape::line(40)), ());
                poison.add(Area::Whole, Some(&Shape::line(40)), ());
            }
            poison.heal(&part(start + 1, len));
            prop_assert!(poison.entries.len() <= 41);
        }
    }
}

#[test]
fn pieces_heal_a_failure_and_the_whole_of_a_known_shape() {
    let mut poison = Poison::new();
    poison.add(Area::Whole, Some(&Shape::plane(4, 4)), 1);
    let plane = |band| Area::Grid(Grid::plane_band(Axis::all(), Axis::all(), band));
    poison.heal(&plane(crate::region::Band::lower()));
    assert_eq!(poison.find(&plane(crate::region::Band::diagonal(0))), None);
    assert_eq!(poison.find(&plane(crate::region::Band::diagonal(1))), Some(&1));
    poison.heal(&plane(crate::region::Band::strict_upper()));
    assert!(poison.is_clean());
}

#[test]
fn what_is_poisoned_already_is_not_added_again() {
    let mut poison = Poison::new();
    poison.add(part(0, 10), None, 0);
    poison.heal(&part(0, 1));
    for cause in 1..100 {
        poison.add(part(0, 10), None, cause);
        poison.add(part(5, 10), None, cause);
    }
    assert_eq!(poison.entries.len(), 3);
    let causes = [part(0, 10), part(1, 9), part(10, 5)].map(|area| poison.find(&area).copied());
    assert_eq!(causes, [Some(0), Some(0), Some(1)]);
    assert_eq!(poison.find(&part(0, 1)), Some(&1));
}

#[test]
fn without_a_shape_only_whole_heals_whole() {
    let mut poison = Poison::new();
    poison.add(Area::Whole, None, 1);
    poison.heal(&part(0, 100));
    poison.add(part(3, 2), None, 2);
    assert_eq!(poison.find(&part(3, 1)), Some(&1), "the first cause");
    poison.heal(&Area::Whole);
    assert!(poison.is_clean());
}

#[test]
fn a_failed_write_of_an_empty_chunk_is_not_forgotten() {
    let mut poison = Poison::new();
    poison.add(Area::Whole, Some(&Shape::line(0)), 1);
    poison.heal(&part(0, 0));
    assert_eq!(poison.find(&Area::Whole), Some(&1));
}

#[test]
fn fields_heal_byte_by_byte() {
    let mut poison = Poison::new();
    poison.add(Area::Bytes(0..16), None, 1);
    poison.heal(&Area::Bytes(0..8));
    poison.heal(&part(0, 16));
    assert_eq!(poison.find(&Area::Bytes(4..8)), None);
    assert_eq!(poison.find(&Area::Bytes(4..9)), Some(&1));
    assert_eq!(poison.find(&Area::Whole), Some(&1));
    assert_eq!(poison.find(&part(0, 1)), Some(&1), "cannot be compared");
    poison.heal(&Area::Bytes(8..16));
    assert!(poison.is_clean());
}

#[test]
fn recovery_clears_all() {
    let mut poison = Poison::new();
    poison.add(part(0, 3), None, 1);
    poison.clear();
    assert_eq!(poison.find(&Area::Whole), None);
}

#[test]
fn a_whole_whose_shape_is_known_later_is_healed_by_its_elements() {
    let part = |start, len| Area::Grid(Grid::line(Progression::range(start, len).into()));
    let mut poison = Poison::new();
    poison.add(Area::Whole, None, "torn");
    poison.measured(&Shape::line(6));
    poison.heal(&part(0, 4));
    assert_eq!((poison.find(&part(0, 4)), poison.find(&part(3, 2))), (None, Some(&"torn")));
    assert_eq!(poison.find(&Area::Whole), Some(&"torn"));
    poison.heal(&part(4, 2));
    assert!(poison.is_clean());
}
