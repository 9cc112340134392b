//! The dependence patterns of Task Bench: a grid of points, step after step, each reading some of the step before.
//!
//! Slaughter et al., "Task Bench: A Parameterized Benchmark for Evaluating Parallel Runtime Performance", SC20, and the
//! program of that name. As there: `dom` sweeps a diamond, `tree` doubles its width each step, `fft`, `spread` and
//! `random_nearest` read other points in other steps, `nearest`, `spread` and `random_nearest` have a radix (here 5) and the
//! last two a period (3); a point of `random_nearest` reads itself and each of its neighbours with probability 0.25.

use super::{Graph, Pace};
use dagger_async::prelude::*;

/// Which points of the step before a point reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Trivial,
    NoComm,
    Stencil1dPeriodic,
    Dom,
    Tree,
    Fft,
    AllToAll,
    Nearest,
    Spread,
    RandomNearest,
}

const RADIX: usize = 5;
const PERIOD: usize = 3;

/// The most inputs that a task has here: a call takes 12 arguments, one is the output and one the point.
pub(crate) const INPUTS_MAX: usize = 10;

impl Pattern {
    pub(crate) const ALL: [Pattern; 10] = [
        Pattern::Trivial,
        Pattern::NoComm,
        Pattern::Stencil1dPeriodic,
        Pattern::Dom,
        Pattern::Tree,
        Pattern::Fft,
        Pattern::AllToAll,
        Pattern::Nearest,
        Pattern::Spread,
        Pattern::RandomNearest,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Pattern::Trivial => "trivial",
            Pattern::NoComm => "no_comm",
            Pattern::Stencil1dPeriodic => "stencil_1d_periodic",
            Pattern::Dom => "dom",
            Pattern::Tree => "tree",
            Pattern::Fft => "fft",
            Pattern::AllToAll => "all_to_all",
            Pattern::Nearest => "nearest",
            Pattern::Spread => "spread",
            Pattern::RandomNearest => "random_nearest",
        }
    }

    /// The widest that its tasks can be written for.
    pub(crate) fn width_max(self) -> usize {
        if self == Pattern::AllToAll { INPUTS_MAX } else { usize::MAX }
    }

    /// The points of a step, of `width` at most.
    fn points(self, step: usize, width: usize, steps: usize) -> std::ops::Range<usize> {
        match self {
            Pattern::Dom => {
                let first = (step + width).saturating_sub(steps);
                first..first + width.min(step + 1).min(steps - step)
            }
            Pattern::Tree => 0..width.min(1usize.checked_shl(step as u32).unwrap_or(usize::MAX)),
            _ => 0..width,
        }
    }

    /// The points of the step before that a point reads, ascending, if they all exist.
    fn reads(self, step: usize, point: usize, width: usize) -> Vec<usize> {
        let near = |below: usize, above: usize| point.saturating_sub(below)..=(point + above).min(width - 1);
        let mut reads: Vec<usize> = match self {
            Pattern::Trivial => Vec::new(),
            Pattern::NoComm => vec![point],
            Pattern::Stencil1dPeriodic => vec![(point + width - 1) % width, point, (point + 1) % width],
            Pattern::Dom => near(1, 0).collect(),
            Pattern::Tree => vec![point / 2],
            Pattern::Fft => {
                let sets = width.next_power_of_two().trailing_zeros().max(1) as usize;
                let stride = 1 << ((step + sets - 1) % sets);
                [point.checked_sub(stride), Some(point), Some(point + stride).filter(|&x| x < width)]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Pattern::AllToAll => (0..width).collect(),
            Pattern::Nearest => near(RADIX / 2, (RADIX - 1) / 2).collect(),
            Pattern::Spread => {
                let shift = |i: usize| if i > 0 { step % PERIOD } else { 0 };
                (0..RADIX).map(|i| (point + i * width / RADIX + shift(i)) % width).collect()
            }
            Pattern::RandomNearest => {
                let chosen = |&x: &usize| x == point || uniform([step % PERIOD, x, point]) < 0.25;
                near(RADIX / 2, (RADIX - 1) / 2).filter(chosen).collect()
            }
        };
        reads.sort_unstable();
        reads.dedup();
        reads
    }
}

/// A number in 0..1 that depends on these only.
fn uniform(of: [usize; 3]) -> f64 {
    let mixed = of.into_iter().fold(0, |state, x| mix(state, x as u64));
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

/// SplitMix64's finaliser, of the state and one more number.
fn mix(state: u64, x: u64) -> u64 {
    let mut z = state.wrapping_add(x).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A point of a step.
#[derive(Clone, Copy)]
struct Point {
    step: u32,
    at: u32,
}

impl Point {
    /// What it writes: a number that depends on the point and, in their order, on what it read.
    fn value<const INPUTS: usize>(self, inputs: [&u64; INPUTS]) -> u64 {
        self.value_of(inputs.into_iter().copied())
    }

    fn value_of(self, inputs: impl Iterator<Item = u64>) -> u64 {
        let start = u64::from(self.step) << 32 | u64::from(self.at);
        inputs.fold(start, |value, input| value.rotate_left(7).wrapping_mul(0xD1B5_4A32_D192_ED03) ^ input)
    }
}

/// A pattern with its data: two fields, written in turn.
pub(crate) struct Points {
    fields: [Vec<Chunk<u64>>; 2],
    /// In program order: the point, and where its inputs end in `inputs`.
    tasks: Vec<(Point, usize)>,
    inputs: Vec<usize>,
}

impl Points {
    pub(crate) fn new(pattern: Pattern, width: usize, steps: usize) -> Points {
        assert!((1..=pattern.width_max()).contains(&width), "{} is not that wide", pattern.name());
        let (mut tasks, mut inputs) = (Vec::new(), Vec::new());
        for step in 0..steps {
            let before = match step {
                0 => 0..0,
                _ => pattern.points(step - 1, width, steps),
            };
            for at in pattern.points(step, width, steps) {
                inputs
                    .extend(pattern.reads(step, at, width).into_iter().filter(|read| before.contains(read)));
                tasks.push((Point { step: step as u32, at: at as u32 }, inputs.len()));
            }
        }
        Points { fields: [0, 1].map(|_| super::chunks(width)), tasks, inputs }
    }

    /// Each task in program order, with the points that it reads.
    fn each(&self) -> impl Iterator<Item = (Point, &[usize])> {
        let mut start = 0;
        self.tasks.iter().map(move |&(point, end)| {
            let inputs = &self.inputs[start..end];
            start = end;
            (point, inputs)
        })
    }
}

impl Graph for Points {
    fn tasks(&self) -> u64 {
        self.tasks.len() as u64
    }

    async fn issue(&self) {
        let mut pace = Pace::default();
        for (point, inputs) in self.each() {
            pace.step().await;
            let [now, old] = [0, 1].map(|ago| &self.fields[(point.step as usize + ago) % 2]);
            let cell = &now[point.at as usize];
            // A closure of as many references as there are inputs.
            macro_rules! task {
                ($($x:ident)*) => {{
                    spawn!((|$($x: &u64,)* cell: &mut u64, point: Point| *cell = point.value([$($x),*]))(
                        $(In(&old[$x]),)* Out(cell), point
                    ); repeatable = true);
                }};
            }
            match *inputs {
                [] => task!(),
                [a] => task!(a),
                [a, b] => task!(a b),
                [a, b, c] => task!(a b c),
                [a, b, c, d] => task!(a b c d),
                [a, b, c, d, e] => task!(a b c d e),
                [a, b, c, d, e, f] => task!(a b c d e f),
                [a, b, c, d, e, f, g] => task!(a b c d e f g),
                [a, b, c, d, e, f, g, h] => task!(a b c d e f g h),
                [a, b, c, d, e, f, g, h, i] => task!(a b c d e f g h i),
                [a, b, c, d, e, f, g, h, i, j] => task!(a b c d e f g h i j),
                _ => unreachable!("no pattern has more inputs (`Pattern::width_max`)"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::runs;
    use super::*;

    #[test]
    fn every_pattern_computes_what_the_sequential_loops_compute() {
        for pattern in Pattern::ALL {
            for (width, steps) in [(1, 3), (2, 5), (8, 12), (16, 9)] {
                let width = width.min(pattern.width_max());
                runs(
                    || Points::new(pattern, width, steps),
                    async |points, run| {
                        let mut fields = [vec![0; width], vec![0; width]];
                        for _ in 0..run {
                            for (point, inputs) in points.each() {
                                let [now, old] = [0, 1].map(|ago| (point.step as usize + ago) % 2);
                                let value = point.value_of(inputs.iter().map(|&x| fields[old][x]));
                                fields[now][point.at as usize] = value;
                            }
                        }
                        for (field, expected) in points.fields.iter().zip(fields) {
                            for (cell, expected) in field.iter().zip(expected) {
                                assert_eq!(
                                    *cell.read().await.unwrap(),
                                    expected,
                                    "{pattern:?} {width} x {steps}"
                                );
                            }
                        }
                    },
                );
            }
        }
    }

    /// What the points of a step read of the step before.
    fn reads(pattern: Pattern, step: usize, width: usize, steps: usize) -> Vec<(usize, Vec<usize>)> {
        let points = Points::new(pattern, width, steps);
        let of_step = points.each().filter(|(point, _)| point.step as usize == step);
        of_step.map(|(point, inputs)| (point.at as usize, inputs.to_vec())).collect()
    }

    #[test]
    fn the_patterns_are_those_of_task_bench() {
        let inputs = |pattern, step| {
            reads(pattern, step, 8, 8).into_iter().map(|(_, reads)| reads).collect::<Vec<_>>()
        };
        assert!(inputs(Pattern::Trivial, 3).iter().all(Vec::is_empty));
        assert_eq!(inputs(Pattern::NoComm, 3)[5], [5]);
        assert_eq!(inputs(Pattern::Stencil1dPeriodic, 1)[0], [0, 1, 7]);
        assert_eq!(inputs(Pattern::AllToAll, 1)[3], [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(
            (&inputs(Pattern::Nearest, 1)[4][..], &inputs(Pattern::Nearest, 1)[0][..]),
            (&[2, 3, 4, 5, 6][..], &[0, 1, 2][..])
        );
        // A diamond: it grows by a point to each step, then loses its first ones.
        assert_eq!(reads(Pattern::Dom, 1, 3, 5), [(0, vec![0]), (1, vec![0])]);
        assert_eq!(reads(Pattern::Dom, 3, 3, 5), [(1, vec![0, 1]), (2, vec![1, 2])]);
        assert_eq!(reads(Pattern::Dom, 4, 3, 5), [(2, vec![1, 2])]);
        assert_eq!(reads(Pattern::Tree, 2, 8, 8), [(0, vec![0]), (1, vec![0]), (2, vec![1]), (3, vec![1])]);
        assert_eq!(reads(Pattern::Tree, 4, 8, 8)[7], (7, vec![3]));
        // Strides 1, 2, 4, then 1 again.
        let fft = [1, 2, 3, 4].map(|step| inputs(Pattern::Fft, step)[4].clone());
        assert_eq!(fft, [vec![3, 4, 5], vec![2, 4, 6], vec![0, 4], vec![3, 4, 5]]);
        let spread = [0, 1, 2].map(|step| inputs(Pattern::Spread, step + 3)[0].clone());
        assert_eq!(spread, [vec![0, 1, 3, 4, 6], vec![0, 2, 4, 5, 7], vec![0, 3, 5, 6]]);
        let random = [1, 2, 4].map(|step| inputs(Pattern::RandomNearest, step));
        assert_eq!(random[0], random[2], "a period of three steps");
        assert_ne!(random[0], random[1]);
        for (at, reads) in random[0].iter().enumerate() {
            assert!(
                reads.contains(&at) && reads.iter().all(|read| read.abs_diff(at) <= 2),
                "{at}: {reads:?}"
            );
        }
    }
}
