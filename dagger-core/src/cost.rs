//! What a step is expected to cost, learnt from what was measured: run times, and transfers between memory spaces.
//!
//! ```text
//!   observation   1   2    3    ..  16    17    18       the plain mean of the first 16,
//!   weight        1   1/2  1/3  ..  1/16  1/16  1/16     after which older ones fade
//!
//!   nanos │         ·  ╱
//!         │      ╱  ·              one line for each pair of memory spaces:
//!         │ · ╱                    nanos = latency + bytes · slope
//!         └─────────────── bytes
//! ```
//! 1. All times are in nanoseconds, observed and expected ones.
//! 2. A run time that was never observed is `None`, not a number; a transfer that was never observed takes what the user
//!    said that it takes.
//! 3. What was observed on one kind of processor says nothing of another, and what was observed from one memory space to
//!    another nothing of the way back.
//! 4. Estimates are finite and not negative, whatever was observed. To bring more bytes never takes less.
//!
//! It has no clock and chooses nothing: others measure, and [`earliest_end`](crate::earliest_end) chooses.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::hash::Hash;

/// What tasks have taken: by signature `S` (what they do, on what) and kind of processor `P`.
///
/// ```
/// use dagger_core::{ProcessorKind, RunTimes};
///
/// let mut times = RunTimes::new();
/// times.observe("gemm", ProcessorKind::Cpu, 2_000_000); // nanoseconds
/// times.observe("gemm", ProcessorKind::Cpu, 4_000_000);
/// assert_eq!(times.expected(&"gemm", &ProcessorKind::Cpu), Some(3_000_000));
/// assert_eq!(times.expected(&"gemm", &ProcessorKind::Cuda), None, "never ran there");
/// ```
#[derive(Clone, Debug)]
pub struct RunTimes<S, P> {
    means: Pairs<S, P, Mean>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    seen: Seen,
    nanos: f64,
}

impl<S: Eq + Hash, P: Eq + Hash> RunTimes<S, P> {
    /// Nothing was observed yet.
    #[must_use]
    pub fn new() -> RunTimes<S, P> {
        RunTimes { means: Pairs::default() }
    }

    /// A task of `signature` has taken `nanos` on a processor of kind `on`.
    pub fn observe(&mut self, signature: S, on: P, nanos: u64) {
        let mean = self.means.entry(signature, on);
        mean.nanos += (nanos as f64 - mean.nanos) * mean.seen.weight_of_next();
    }

    /// How many nanoseconds a task of `signature` will take on a processor of kind `on`: the mean of the first 16
    /// observations, where each later one weighs 1/16. `None` if there was none.
    #[must_use]
    pub fn expected(&self, signature: &S, on: &P) -> Option<u64> {
        self.means.get(signature, on).map(|mean| mean.nanos.round() as u64)
    }
}

impl<S: Eq + Hash, P: Eq + Hash> Default for RunTimes<S, P> {
    fn default() -> Self {
        RunTimes::new()
    }
}

/// How fast bytes come from one memory space to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds that a transfer takes however small it is.
    pub latency: u64,
    /// Bytes per second; 0 is taken as 1.
    pub bytes_per_second: u64,
}

/// How long it takes to bring bytes from one memory space `M` to another.
///
/// For each pair of spaces, in one direction, a line `nanos = latency + bytes · slope` is fitted by least squares to what was
/// observed, where older observations fade as those of [`RunTimes`] do. A line that would begin below 0 is replaced by the
/// best one through 0. Where the sizes tell nothing (they differ by less than about a tenth, or larger ones were not slower)
/// the assumed rate is taken, latency and all, times the factor by which it misses the mean of what was observed.
///
/// ```
/// use dagger_core::{Rate, Transfers};
///
/// let mut transfers = Transfers::new(Rate { latency: 10_000, bytes_per_second: 1_000_000_000 });
/// assert_eq!(transfers.expected(&"host", &"gpu", 1_000_000), 1_010_000); // nanoseconds, as assumed
/// transfers.observe("host", "gpu", 1_000_000, 105_000);
/// transfers.observe("host", "gpu", 2_000_000, 205_000);
/// assert_eq!(transfers.expected(&"host", &"gpu", 10_000_000), 1_005_000);
/// assert_eq!(transfers.expected(&"gpu", &"host", 1_000_000), 1_010_000, "as assumed: never measured");
/// assert_eq!(transfers.expected(&"gpu", &"gpu", 1_000_000), 0);
/// ```
///
/// # Source
/// West, Communications of the ACM 22 (1979) 532–535: means and variances of weighted data, updated.
#[derive(Clone, Debug)]
pub struct Transfers<M> {
    assumed: Line,
    fits: Pairs<M, M, Fit>,
}

/// Nanoseconds by bytes.
#[derive(Clone, Copy, Debug)]
struct Line {
    latency: f64,
    slope: f64,
}

/// Means of bytes and nanoseconds, the variance of the bytes, and the covariance of both.
#[derive(Clone, Copy, Debug, Default)]
struct Fit {
    seen: Seen,
    bytes: f64,
    nanos: f64,
    variance: f64,
    covariance: f64,
}

impl<M: Eq + Hash> Transfers<M> {
    /// Nothing was observed yet: each transfer from one space to another is at the rate `assumed`.
    #[must_use]
    pub fn new(assumed: Rate) -> Transfers<M> {
        let slope = 1e9 / assumed.bytes_per_second.max(1) as f64;
        Transfers { assumed: Line { latency: assumed.latency as f64, slope }, fits: Pairs::default() }
    }

    /// It has taken `nanos` to bring `bytes` from one space to another.
    pub fn observe(&mut self, from: M, to: M, bytes: u64, nanos: u64) {
        self.fits.entry(from, to).observe(bytes as f64, nanos as f64);
    }

    /// How many nanoseconds it will take to bring `bytes` from one space to another: 0 if both are the same,
    /// whatever was observed.
    #[must_use]
    pub fn expected(&self, from: &M, to: &M, bytes: u64) -> u64 {
        if from == to {
            return 0;
        }
        let line = self.fits.get(from, to).map_or(self.assumed, |fit| fit.line(self.assumed));
        line.at(bytes as f64).round() as u64
    }
}

impl Line {
    fn at(self, bytes: f64) -> f64 {
        self.latency + bytes * self.slope
    }
}

impl Fit {
    /// Less variance of the sizes than this, as a share of their mean squared, tells nothing of the slope.
    const VARIANCE_MIN: f64 = 0.01;

    fn observe(&mut self, bytes: f64, nanos: f64) {
        let weight = self.seen.weight_of_next();
        let (more_bytes, more_nanos) = (bytes - self.bytes, nanos - self.nanos);
        self.bytes += weight * more_bytes;
        self.nanos += weight * more_nanos;
        self.variance = (1.0 - weight) * (self.variance + weight * more_bytes * more_bytes);
        self.covariance = (1.0 - weight) * (self.covariance + weight * more_bytes * more_nanos);
    }

    fn line(&self, assumed: Line) -> Line {
        let &Fit { bytes, nanos, variance, covariance, .. } = self;
        let missed = nanos / assumed.at(bytes);
        if variance > Fit::VARIANCE_MIN * bytes * bytes && covariance > 0.0 {
            let slope = covariance / variance;
            let latency = nanos - bytes * slope;
            let through_zero = (covariance + bytes * nanos) / (variance + bytes * bytes);
            if latency >= 0.0 { Line { latency, slope } } else { Line { latency: 0.0, slope: through_zero } }
        } else if missed.is_finite() {
            Line { latency: assumed.latency * missed, slope: assumed.slope * missed }
        } else {
            Line { latency: nanos, ..assumed } // only empty transfers were seen, which were assumed to take no time
        }
    }
}

/// How many observations there were, as far as that matters.
#[derive(Clone, Copy, Debug, Default)]
struct Seen(u8);

impl Seen {
    const REMEMBERED: u8 = 16;

    fn weight_of_next(&mut self) -> f64 {
        self.0 = (self.0 + 1).min(Seen::REMEMBERED);
        1.0 / f64::from(self.0)
    }
}

/// Values by two keys, found by references to them. There are few second keys to a first one.
#[derive(Clone, Debug)]
struct Pairs<A, B, V>(FxHashMap<A, SmallVec<[(B, V); 2]>>);

impl<A, B, V> Default for Pairs<A, B, V> {
    fn default() -> Self {
        Pairs(FxHashMap::default())
    }
}

impl<A: Eq + Hash, B: Eq, V: Default> Pairs<A, B, V> {
    fn get(&self, a: &A, b: &B) -> Option<&V> {
        self.0.get(a)?.iter().find(|(key, _)| key == b).map(|(_, value)| value)
    }

    fn entry(&mut self, a: A, b: B) -> &mut V {
        let values = self.0.entry(a).or_default();
        let at = values.iter().position(|(key, _)| *key == b).unwrap_or(values.len());
        if at == values.len() {
            values.push((b, V::default()));
        }
        &mut values[at].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const ASSUMED: Rate = Rate { latency: 10_000, bytes_per_second: 1_000_000_000 };

    fn seen(observations: impl IntoIterator<Item = (u64, u64)>) -> Transfers<u8> {
        let mut transfers = Transfers::new(ASSUMED);
        observations.into_iter().for_each(|(bytes, nanos)| transfers.observe(0, 1, bytes, nanos));
        transfers
    }

    #[test]
    fn each_kind_of_processor_and_each_signature_has_its_own_run_time() {
        let mut times = RunTimes::new();
        times.observe("potrf", 'c', 10);
        times.observe("potrf", 'g', 1000);
        times.observe("potrf", 'm', 7);
        times.observe("gemm", 'c', 500);
        assert_eq!(["potrf", "gemm"].map(|name| times.expected(&name, &'c')), [Some(10), Some(500)]);
        assert_eq!(['g', 'm'].map(|on| times.expected(&"potrf", &on)), [Some(1000), Some(7)]);
        assert_eq!(times.expected(&"gemm", &'g'), None);
        assert_eq!(times.expected(&"syrk", &'c'), None);
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut times = RunTimes::new();
        (0..1000).for_each(|_| times.observe((), (), 1_000_000));
        times.observe((), (), 2_000_000);
        assert_eq!(times.expected(&(), &()), Some(1_062_500), "a later one weighs 1/16");
        (0..100).for_each(|_| times.observe((), (), 2_000_000));
        assert!(times.expected(&(), &()).unwrap() > 1_990_000);

        let sizes = |many| (0..many).map(|at| at % 10 * 1000);
        let slow = sizes(1000).map(|bytes| (bytes, 8 * bytes));
        let fast = sizes(200).map(|bytes| (bytes, 5000 + bytes));
        let expected = seen(slow.chain(fast)).expected(&0, &1, 100_000);
        assert!((104_000..106_000).contains(&expected), "{expected}");
    }

    #[test]
    fn the_extremes_neither_overflow_nor_panic() {
        let mut times = RunTimes::new();
        for nanos in [u64::MAX, u64::MAX, u64::MAX] {
            times.observe((), (), nanos);
            assert_eq!(times.expected(&(), &()), Some(u64::MAX));
        }
        (0..2000).for_each(|_| times.observe((), (), 0));
        assert_eq!(times.expected(&(), &()), Some(0));

        let never = Transfers::new(Rate { latency: u64::MAX, bytes_per_second: 0 });
        assert_eq!(never.expected(&0, &1, u64::MAX), u64::MAX);
        let slowest = Transfers::new(Rate { latency: 5, bytes_per_second: 0 });
        assert_eq!([0, 1].map(|bytes| slowest.expected(&0, &1, bytes)), [5, 1_000_000_005]);
        let at_once = || Transfers::new(Rate { latency: 0, bytes_per_second: u64::MAX });
        assert_eq!(at_once().expected(&0, &1, 1_000_000), 0);
        let mut empty = at_once();
        empty.observe(0, 1, 0, 300);
        assert_eq!([0, 1_000_000].map(|bytes| empty.expected(&0, &1, bytes)), [300, 300]);
    }

    #[test]
    fn where_sizes_tell_nothing_the_assumed_rate_is_scaled() {
        // Assumed: 10 µs + 1 ns per byte, so 20 µs for 10 kB. It was thrice that.
        let thrice = seen([(10_000, 50_000), (10_000, 70_000)]);
        assert_eq!([0, 10_000, 20_000].map(|bytes| thrice.expected(&0, &1, bytes)), [30_000, 60_000, 90_000]);
        let nearly_equal = seen([(9_900, 50_000), (10_100, 70_000)]);
        assert_eq!(nearly_equal.expected(&0, &1, 20_000), 90_000);
        let larger_was_faster = seen([(5_000, 70_000), (15_000, 50_000)]);
        assert_eq!(larger_was_faster.expected(&0, &1, 20_000), 90_000);
        assert_eq!(seen([(0, 20_000)]).expected(&0, &1, 10_000), 40_000);
    }

    #[test]
    fn a_line_that_would_begin_below_zero_goes_through_it() {
        // Least squares through 0: (1·1 + 2·5) / (1·1 + 2·2) = 2.2 nanoseconds per byte.
        let transfers = seen([(1_000, 1_000), (2_000, 5_000)]);
        assert_eq!([0, 1_000, 3_000].map(|bytes| transfers.expected(&0, &1, bytes)), [0, 2_200, 6_600]);
    }

    #[test]
    fn directions_are_apart_and_a_space_has_what_it_has() {
        let mut transfers = seen([(1_000, 400), (2_000, 500)]);
        transfers.observe(1, 1, 1_000, 77);
        assert_eq!(
            [(0, 1), (1, 0), (1, 1)].map(|(a, b)| transfers.expected(&a, &b, 1_000)),
            [400, 11_000, 0]
        );
    }

    proptest! {
        #[test]
        fn sixteen_observations_have_their_mean(all in vec(0..1u64 << 40, 1..17)) {
            let mut times = RunTimes::new();
            all.iter().for_each(|&nanos| times.observe((), (), nanos));
            let mean = all.iter().sum::<u64>() / all.len() as u64;
            prop_assert!(times.expected(&(), &()).unwrap().abs_diff(mean) <= 1);
        }

        #[test]
        fn later_observations_weigh_a_sixteenth_each(all in vec(0..1u64 << 40, 17..60)) {
            let mut times = RunTimes::new();
            all.iter().for_each(|&nanos| times.observe((), (), nanos));
            let faded = |age: usize| (15.0f64 / 16.0).powi(age as i32);
            let (old, new) = all.split_at(16);
            let old = old.iter().map(|&nanos| nanos as f64).sum::<f64>() / 16.0 * faded(new.len());
            let new: f64 =
                new.iter().rev().enumerate().map(|(age, &nanos)| nanos as f64 / 16.0 * faded(age)).sum();
            prop_assert!((times.expected(&(), &()).unwrap() as f64 - old - new).abs() <= 1.0);
        }

        #[test]
        fn the_line_is_that_of_least_squares(
            all in vec((0..1u64 << 30, 0..1u64 << 20), 2..17), latency in 1u64 << 20..1 << 22, bytes in 0..1u64 << 32,
        ) {
            let all: Vec<(u64, u64)> = all.into_iter().map(|(bytes, late)| (bytes, latency + bytes / 4 + late)).collect();
            let many = all.len() as f64;
            let sum = |of: &dyn Fn(f64, f64) -> f64| all.iter().map(|&(x, y)| of(x as f64, y as f64)).sum::<f64>();
            let (x, y) = (sum(&|x, _| x) / many, sum(&|_, y| y) / many);
            let (xx, xy) = (sum(&|a, _| (a - x) * (a - x)) / many, sum(&|a, b| (a - x) * (b - y)) / many);
            let slope = xy / xx;
            prop_assume!(xx > 0.02 * x * x && slope > 0.0 && y - slope * x >= 1.0);
            let expected = seen(all.iter().copied()).expected(&0, &1, bytes) as f64;
            let wanted = y + slope * (bytes as f64 - x);
            prop_assert!((expected - wanted).abs() <= 1.0 + 1e-6 * wanted, "{} {}", expected, wanted);
        }

        #[test]
        fn to_bring_more_never_takes_less(
            all in vec((size(), size()), 0..60), latency in size(), bytes_per_second in size(), a in size(), b in size(),
        ) {
            let mut transfers = Transfers::new(Rate { latency, bytes_per_second });
            all.into_iter().for_each(|(bytes, nanos)| transfers.observe(0, 1, bytes, nanos));
            let expected = |bytes| transfers.expected(&0, &1, bytes);
            prop_assert!(expected(a.min(b)) <= expected(a.max(b)));
        }
    }

    fn size() -> impl Strategy<Value = u64> {
        prop_oneof![0..9u64, 0..1u64 << 40, Just(u64::MAX)]
    }
}
