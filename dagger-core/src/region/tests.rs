use std::any::Any;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::model::{Tape, stated};
use super::progression::common;
use super::*;

fn tapes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..64)
}

fn line(start: usize, len: usize) -> Grid {
    Grid::line(Progression::range(start, len).into())
}

fn plane(band: Band) -> Grid {
    Grid::plane_band(Axis::all(), Axis::all(), band)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_grid_has_the_elements_of_its_definition_and_composition(tape in tapes()) {
        let mut tape = Tape(tape.iter());
        let shape = tape.shape();
        let (grid, model) = tape.grid(&shape);
        let clipped = grid.clip(&shape).unwrap();
        prop_assert_eq!(stated(&clipped), model.elements(), "{}", grid);
        prop_assert_eq!(clipped.is_empty(), model.elements().is_empty(), "{}", grid);
        prop_assert!(clipped.is_resolved());
        prop_assert_eq!(clipped.clip(&shape).unwrap(), clipped);
    }

    #[test]
    fn overlaps_and_covers_are_those_of_the_sets(tape in tapes()) {
        let mut tape = Tape(tape.iter());
        let shape = tape.shape();
        let ((a, of_a), (b, of_b)) = (tape.area(&shape), tape.area(&shape));
        let comparable = matches!(
            (&a, &b),
            (Area::Whole, _) | (_, Area::Whole) | (Area::Grid(_), Area::Grid(_)) | (Area::Bytes(_), Area::Bytes(_))
        );
        let overlaps = if comparable {
            // Everything lies in `Whole`, bytes too.
            (a == Area::Whole && !of_b.is_empty()) || (b == Area::Whole && !of_a.is_empty()) || !of_a.is_disjoint(&of_b)
        } else {
            !of_a.is_empty() && !of_b.is_empty()
        };
        prop_assert_eq!(a.overlaps(&b), overlaps, "{} and {}", a, b);
        prop_assert_eq!(b.overlaps(&a), overlaps, "{} and {}", b, a);
        let covers = a == Area::Whole || of_b.is_subset(&of_a);
        prop_assert_eq!(a.covers(&b), covers, "{} of {}", b, a);
        prop_assert!(a.covers(&a) && a.overlaps(&a) != a.is_empty(), "{}", a);
    }

    #[test]
    fn what_is_not_resolved_is_never_apart_from_what_it_becomes(tape in tapes()) {
        let mut tape = Tape(tape.iter());
        let shape = tape.shape();
        let ((a, _), (b, _)) = (tape.grid(&shape), tape.grid(&shape));
        let (resolved_a, resolved_b) = (a.clip(&shape).unwrap(), b.clip(&shape).unwrap());
        for (a_now, b_now) in [(&a, &b), (&resolved_a, &b), (&a, &resolved_b)] {
            if resolved_a.overlaps(&resolved_b) {
                prop_assert!(a_now.overlaps(b_now), "{} and {}", a_now, b_now);
            }
            if a_now.covers(b_now) {
                prop_assert!(resolved_a.covers(&resolved_b), "{} of {}", b_now, a_now);
            }
        }
        prop_assert!(resolved_a.is_empty() || !a.is_empty(), "{}", a);
    }

    #[test]
    fn parts_of_one_part_compare_like_their_sets(tape in tapes()) {
        let mut tape = Tape(tape.iter());
        let shape = tape.shape();
        let (whole, model) = tape.grid(&shape);
        let of_whole = model.shape();
        let mut pick = || {
            let (inner, inner_model) = tape.grid(&of_whole);
            whole.sub(&inner).map(|grid| (grid.clip(&shape).unwrap(), grid, model.sub(&inner_model).elements()))
        };
        // Refused only for lists that pick from a band, which `model` checks.
        let (Ok((a, early_a, of_a)), Ok((b, early_b, of_b))) = (pick(), pick()) else { return Ok(()) };
        prop_assert_eq!(a.overlaps(&b), !of_a.is_disjoint(&of_b), "{} and {}", a, b);
        prop_assert_eq!(a.covers(&b), of_b.is_subset(&of_a), "{} of {}", b, a);
        prop_assert!(whole.clip(&shape).unwrap().covers(&a), "{} of {}", a, whole);
        prop_assert!(early_a.overlaps(&early_b) || of_a.is_disjoint(&of_b), "{} and {}", early_a, early_b);
        prop_assert!(!early_a.covers(&early_b) || of_b.is_subset(&of_a), "{} of {}", early_b, early_a);
    }

    #[test]
    fn endless_grids_overlap_where_long_ones_do(tape in tapes()) {
        let mut tape = Tape(tape.iter());
        let (a, _) = tape.grid(&Shape::plane(8, 8));
        let (b, _) = tape.grid(&Shape::plane(8, 8));
        let long = Shape::plane(300, 300);
        // Bands of one of them only, and in the usual direction: the case that is exact without an end.
        let bands = a.bands().len() + b.bands().len();
        let usual = a.bands().iter().chain(b.bands()).all(|band| band.row_step > 0 && band.col_step > 0);
        if bands <= 1 && usual {
            let overlap = a.clip(&long).unwrap().overlaps(&b.clip(&long).unwrap());
            prop_assert_eq!(a.overlaps(&b), overlap, "{} and {}", a, b);
        }
    }

    #[test]
    fn clip_refuses_exactly_what_has_an_element_outside(
        start in 0..12usize, step in 1..4usize, len in 0..6usize, n in 0..12usize, list in vec(0..12usize, 0..6),
    ) {
        let last = (len > 0).then(|| start + (len - 1) * step);
        let fits = last.map_or(start <= n, |last| last < n);
        prop_assert_eq!(Progression { start, step, len }.clip(n).is_ok(), fits);
        let listed = Axis::list(list.clone());
        prop_assert_eq!(listed.clip(n).is_ok(), list.iter().all(|&value| value < n));
        let tail = Progression { start, step, len: Progression::TO_END };
        prop_assert_eq!(tail.clip(n).is_ok(), start < n + step);
        if let Ok(clipped) = tail.clip(n) {
            prop_assert_eq!(Axis::from(clipped).part().iter().collect::<Vec<_>>(), (start..n).step_by(step).collect::<Vec<_>>());
        }
    }

    #[test]
    fn progressions_far_out_meet_where_their_elements_do(
        base in prop_oneof![Just(0_u128), Just(1 << 40), Just((1 << 64) - 3000)],
        a in (0..60u128, 1..40u128, 1..30u128), b in (0..60u128, 1..40u128, 1..30u128),
        scale in prop_oneof![Just(1_u128), Just(1 << 50), Just((1 << 57) - 1)],
    ) {
        // Where the numbers are scaled up, they start low, so as to stay below 2^64.
        let base = if scale > 1 { 0 } else { base };
        let value = |start: u128, step: u128, pos: u128| base + scale * (start + step * pos);
        let fit = |(start, step, len): (u128, u128, u128)| {
            let len = (0..len).take_while(|&pos| value(start, step, pos) <= u128::from(u64::MAX)).count();
            let (start, step) = (value(start, step, 0), scale * step);
            Progression { start: start as usize, step: step as usize, len }
        };
        let (a, b) = (fit(a), fit(b));
        let shared: Vec<usize> = Part::Step(a).iter().filter(|&value| b.position(value).is_some()).collect();
        let found = common(a, b).map_or(vec![], |found| Part::Step(found.left).iter().map(|pos| a.at(pos).unwrap()).collect());
        let right = common(a, b).map_or(vec![], |found| Part::Step(found.right).iter().map(|pos| b.at(pos).unwrap()).collect());
        prop_assert_eq!(&found, &shared);
        prop_assert_eq!(&right, &shared);
        prop_assert_eq!(a.covers(b), Part::Step(b).iter().all(|value| a.position(value).is_some()));
    }
}

#[test]
fn triangles_are_apart_before_the_length_is_known() {
    assert!(!plane(Band::lower()).overlaps(&plane(Band::strict_upper())));
    assert!(plane(Band::lower()).overlaps(&plane(Band::upper())));
    assert!(!plane(Band::diagonal(1)).overlaps(&plane(Band::diagonal(-1))));
    assert!(plane(Band::upper()).covers(&plane(Band::strict_upper())));
    assert!(!plane(Band::strict_upper()).covers(&plane(Band::upper())));
    let every_second_row = plane(Band::diagonal(0))
        .sub(&Grid::plane(Progression { start: 0, step: 2, len: Progression::TO_END }.into(), Axis::all()));
    let odd_column =
        Grid::plane(Axis::all(), Progression { start: 1, step: 2, len: Progression::TO_END }.into());
    assert!(!every_second_row.unwrap().overlaps(&odd_column));
}

/// Random pairs rarely have parallel bands on planes that lie in each other; these all have.
#[test]
fn bands_on_planes_with_equal_and_other_steps_compare_like_their_sets() {
    let steps = |start, step, len| Axis::from(Progression { start, step, len });
    let planes = [
        (steps(0, 1, 6), steps(0, 1, 6)),
        (steps(1, 2, 3), steps(0, 1, 6)),
        (steps(1, 2, 3), steps(0, 2, 3)),
        (steps(1, 4, 2), steps(2, 2, 2)),
    ];
    let mut all = vec![];
    for (rows, cols) in &planes {
        for lo in [i64::MIN, -1, 0, 1, 2] {
            for hi in [i64::MAX, -1, 0, 1, 2] {
                let grid = Grid::plane_band(rows.clone(), cols.clone(), Band::diagonals(lo, hi));
                all.push((stated(&grid), grid));
            }
        }
    }
    for (of_a, a) in &all {
        for (of_b, b) in &all {
            assert_eq!(a.overlaps(b), !of_a.is_disjoint(of_b), "{a} and {b}");
            assert_eq!(a.covers(b), of_b.is_subset(of_a), "{b} of {a}");
        }
    }
}

#[test]
fn a_triangle_of_every_second_row_of_a_triangle_keeps_both_bands() {
    let rows = Grid::plane(Progression { start: 0, step: 2, len: 3 }.into(), Progression::range(0, 6).into());
    let both = plane(Band::lower()).sub(&rows).unwrap().sub(&plane(Band::lower())).unwrap();
    assert_eq!(both.bands().len(), 2);
    assert_eq!((0..3).map(|row| both.columns(row)).collect::<Vec<_>>(), [0..1, 0..2, 0..3]);
}

#[test]
fn a_list_that_picks_from_a_band_gives_the_exact_set_or_an_error() {
    let values = [0, 1, 3, 4, 7];
    let list = Axis::list(values);
    let picked = Grid::plane(list.clone(), list.clone());
    let mut exact = 0;
    for (row_step, col_step) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        for lo in [i64::MIN, -2, -1, 0, 1, 2] {
            for hi in [i64::MAX, -2, -1, 0, 1, 2] {
                let band = Band { row_step, col_step, lo, hi };
                let Ok(grid) = plane(band).sub(&picked) else { continue };
                exact += 1;
                let cross = values.into_iter().flat_map(|row| values.map(|col| [row, col]));
                let inside = |at: &[usize; 2]| {
                    let value = col_step * at[1] as i64 - row_step * at[0] as i64;
                    lo <= value && value <= hi
                };
                let expected = cross.filter(inside).map(|at| at.to_vec()).collect();
                assert_eq!(stated(&grid), expected, "{band}");
            }
        }
    }
    assert!(exact >= 9, "triangles and the diagonal are exact");
}

#[test]
fn a_list_is_compared_with_what_has_no_end() {
    let rows = Grid::plane_band(Axis::list([1, 5, 6]), Axis::all(), Band::lower());
    let beyond = Grid::plane(Axis::all(), Progression { start: 3, step: 1, len: Progression::TO_END }.into());
    // The rows 1, 5 and 6 stand at positions 0 to 2: that triangle has no column beyond 2.
    assert!(!rows.overlaps(&beyond) && !beyond.overlaps(&rows));
    let (rows, beyond) = (rows.transpose().unwrap(), beyond.transpose().unwrap());
    assert!(!rows.overlaps(&beyond) && !beyond.overlaps(&rows));
    assert!(!beyond.covers(&rows) && !rows.covers(&beyond));
}

#[test]
fn the_same_list_picks_a_diagonal_and_other_lists_are_refused() {
    let same = Grid::plane(Axis::list([1, 5, 9]), Axis::list([1, 5, 9]));
    let picked = Axis::list([0, 1, 5]);
    let diagonal = plane(Band::diagonal(0)).sub(&Grid::plane(picked.clone(), picked.clone())).unwrap();
    assert_eq!(diagonal.bands(), [Band::diagonal(0)]);
    let band = plane(Band::diagonal(1)).sub(&Grid::plane(picked.clone(), picked.clone()));
    assert!(matches!(band, Err(Outside::Unsupported(_))));
    let other = plane(Band::lower()).sub(&Grid::plane(picked, Axis::list([0, 1, 6])));
    assert!(matches!(other, Err(Outside::Unsupported(_))));
    assert!(same.axes().iter().all(|axis| matches!(axis, Axis::Step(_))), "1, 5, 9 are in equal steps");
}

#[test]
fn an_empty_tail_of_a_progression_with_gaps_fits() {
    let even = Grid::line(Progression { start: 0, step: 2, len: Progression::TO_END }.into());
    let tail = |from| Grid::line(Progression::range(from, Progression::TO_END).into());
    // Of five elements, three are at even positions: a tail from 3 is empty, one from 4 is outside.
    assert!(even.sub(&tail(3)).unwrap().clip(&Shape::line(5)).unwrap().is_empty());
    assert!(even.sub(&tail(4)).unwrap().clip(&Shape::line(5)).is_err());
    let clipped = even.clip(&Shape::line(5)).unwrap();
    assert!(clipped.sub(&tail(3)).unwrap().is_empty());
    assert!(clipped.sub(&tail(4)).is_err());
}

#[test]
fn regions_are_printed_as_they_are_written() {
    let shown = |grid: Grid| Area::Grid(grid).to_string();
    let steps = |start, step, len| Axis::from(Progression { start, step, len });
    assert_eq!(shown(line(0, 3)), "0..3");
    assert_eq!(shown(Grid::line(Axis::all())), "..");
    assert_eq!(shown(line(4, Progression::TO_END)), "4..");
    assert_eq!(shown(line(4, 0)), "4..4");
    assert_eq!(shown(Grid::line(steps(0, 2, 5))), "(0..9).step_by(2)");
    assert_eq!(shown(Grid::line(steps(1, 3, Progression::TO_END))), "(1..).step_by(3)");
    assert_eq!(shown(Grid::line(Axis::list([1, 5, 10]))), "[1, 5, 10]");
    let tile = Grid::plane(steps(2, 1, 4), steps(1, 1, 3));
    assert_eq!(shown(tile.clone()), "2..6, 1..4");
    assert_eq!(shown(plane(Band::lower())), "lower");
    assert_eq!(shown(plane(Band::strict_upper())), "upper.strict");
    assert_eq!(shown(plane(Band::diagonal(0))), "diag");
    assert_eq!(shown(plane(Band::diagonal(-2))), "band(-2)");
    assert_eq!(shown(plane(Band::lower()).sub(&tile).unwrap()), "band(..=1) of 2..6, 1..4");
    assert_eq!(Area::Bytes(8..16).to_string(), "bytes 8..16");
    assert_eq!(Area::Whole.to_string(), "whole");
}

#[test]
fn errors_name_the_range_and_the_length() {
    let error = |grid: Grid, shape: Shape| grid.clip(&shape).unwrap_err().to_string();
    assert_eq!(error(line(3, 6), Shape::line(6)), "3..9 of a length of 6");
    let steps = Progression { start: 0, step: 2, len: 5 };
    assert_eq!(error(Grid::line(steps.into()), Shape::line(6)), "(0..9).step_by(2) of a length of 6");
    assert_eq!(error(line(0, 1), Shape::plane(2, 2)), "a region of rank 1 where the rank is 2");
    let wide = Grid::plane(Axis::all(), Progression::range(0, 3).into());
    assert_eq!(error(wide, Shape::plane(2, 2)), "0..3 of a length of 2 (axis 1)");
    let reversed = Progression::from_bounds(std::ops::Range { start: 5, end: 3 }).unwrap_err();
    assert_eq!(reversed.to_string(), "5..3 ends before it starts");
    assert_eq!(Progression::all().step_by(0), Err(Outside::Step));
    assert_eq!(Progression { start: 0, step: 0, len: 2 }.clip(5), Err(Outside::Step));
    assert!(Shape::new(&[1; 7]).is_err() && Shape::new(&[]).is_err() && Grid::boxed([]).is_err());
}

#[test]
fn rust_ranges_mean_what_they_mean_to_slices() {
    assert_eq!(Progression::from_bounds(2..5), Ok(Progression::range(2, 3)));
    assert_eq!(Progression::from_bounds(2..=5), Ok(Progression::range(2, 4)));
    assert_eq!(Progression::from_bounds(..), Ok(Progression::all()));
    assert_eq!(Progression::from_bounds(..3), Ok(Progression::range(0, 3)));
    assert_eq!(Progression::from_bounds(3..), Ok(Progression::range(3, Progression::TO_END)));
    assert_eq!(Progression::from_bounds(0..=usize::MAX), Err(Outside::TooLarge));
    assert_eq!(Progression::from_bounds(..usize::MAX), Err(Outside::TooLarge));
}

#[test]
fn numbers_at_the_limits_are_errors_or_cautious_answers() {
    let far =
        Grid::plane(Progression::range(usize::MAX - 2, 2).into(), Progression::one(usize::MAX - 1).into());
    assert!(far.overlaps(&Grid::plane(Axis::all(), Axis::all())));
    assert!(far.overlaps(&plane(Band::lower())));
    assert!(far.clip(&Shape::plane(5, 5)).is_err());
    let huge = Progression { start: 0, step: usize::MAX / 2, len: Progression::TO_END };
    assert_eq!(huge.then(huge), Err(Outside::TooLarge));
    let sparse = Grid::plane(huge.into(), huge.into());
    let banded = plane(Band::lower()).sub(&sparse);
    assert!(banded.is_ok_and(|grid| grid.overlaps(&plane(Band::diagonal(0)))));
    let odd = Band { row_step: i64::MIN, col_step: i64::MIN, lo: i64::MIN, hi: 0 };
    assert!(plane(odd).overlaps(&plane(Band::diagonal(0))));
}

/// A region that a user could add: the residues of a colouring.
#[derive(Debug)]
struct Colour(u8);

impl Region for Colour {
    fn overlaps(&self, other: &dyn Region) -> bool {
        other.as_any().downcast_ref::<Colour>().is_none_or(|other| other.0 == self.0)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[test]
fn a_users_region_is_asked_about_its_own_kind_only() {
    let colour = |value| Area::Custom(Arc::new(Colour(value)));
    assert!(colour(1).overlaps(&colour(1)) && !colour(1).overlaps(&colour(2)));
    assert!(colour(1).overlaps(&Area::Whole) && colour(1).overlaps(&Area::Grid(line(0, 1))));
    assert!(!colour(1).overlaps(&Area::Grid(line(0, 0))));
    let one = colour(1);
    assert!(one.covers(&one.clone()) && one == one.clone() && one != colour(1));
    assert!(!one.covers(&colour(1)), "`covers` was not written");
    assert_eq!(one.to_string(), "Colour(1)");
}
