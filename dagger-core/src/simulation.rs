//! A run of an order on processors that do not exist: how long would it take, if steps were placed so?
//!
//! ```text
//!   a step is   waiting ──▶ ready ──▶ placed ──────▶ there ──────────▶ running ──▶ over
//!               for its     for a     at a processor its data is,      for as long as it takes,
//!               predecessors          by the policy  in that memory    not as long as was expected
//! ```
//! 1. A step runs on one processor, after all its predecessors are over and what they have made is in that processor's memory.
//! 2. A processor runs one step at a time, of those that are there the one with the largest rank, the oldest of equals. It
//!    never rests while one is there.
//! 3. What a step has made is brought into a memory once, and stays there. What one step needs is brought one after the other,
//!    from when the step is placed; what different steps need does not get in each other's way.
//! 4. The policy sees expected times only. The actual ones depend on the seed and the step, not on the policy.
//! 5. The schedule depends on the arguments alone.
//!
//! It knows no chunks: each step makes so many bytes, which all its successors need. What the first steps need is there.

use crate::{Candidate, Order, Transfers, earliest_end};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// An order of steps and the processors to run it on; all times are in nanoseconds.
///
/// ```
/// use dagger_core::{Area, Order, Policy, Simulation};
///
/// let steps = [vec![('a', true)], vec![('b', true)], vec![('c', true)], vec![('c', true)]];
/// let order = Order::of(steps.map(|step| step.into_iter().map(|(key, writes)| (key, writes, &Area::Whole))));
/// let simulation = Simulation::new(&order, 2, |_step, _processor| 1_000);
/// assert_eq!(simulation.run(Policy::Idle, &[]).makespan, 3_000); // a and b, c, c
///
/// let ranks = order.ranks(|_step| 1_000);
/// assert_eq!(simulation.run(Policy::Idle, &ranks).makespan, 2_000); // c and a, c and b
/// ```
pub struct Simulation<'a> {
    order: &'a Order,
    processors: usize,
    run: Box<dyn Fn(usize, usize) -> u64 + 'a>,
    memory: Option<Memory<'a>>,
    fraction: f64,
    seed: u64,
}

struct Memory<'a> {
    transfers: &'a Transfers<usize>,
    space: Box<dyn Fn(usize) -> usize + 'a>,
    bytes: Box<dyn Fn(usize) -> u64 + 'a>,
}

/// How steps come to processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// A processor that has nothing takes the ready step with the largest rank, the oldest of equals; the first processor first.
    Idle,
    /// A step that is ready goes to where it is expected to end first, as [`earliest_end`] says: steps that are ready at the same
    /// time by their ranks, the largest first.
    EarliestEnd,
    /// Step i goes to processor i modulo their number, whatever it is: a baseline.
    RoundRobin,
}

/// Which step ran where, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Schedule {
    /// For each step.
    pub slots: Vec<Slot>,
    /// When the last step is over, in nanoseconds from the start.
    pub makespan: u64,
}

/// The time of one step on its processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slot {
    /// Which of the processors, from 0.
    pub processor: usize,
    /// When the step starts, in nanoseconds from the start of the run.
    pub start: u64,
    /// When it is over, in nanoseconds from the start of the run.
    pub end: u64,
}

impl<'a> Simulation<'a> {
    /// So many processors (at least one) with a common memory, where `run(step, processor)` takes exactly so many nanoseconds.
    #[must_use]
    pub fn new(order: &'a Order, processors: usize, run: impl Fn(usize, usize) -> u64 + 'a) -> Self {
        let processors = processors.max(1);
        Simulation { order, processors, run: Box::new(run), memory: None, fraction: 0.0, seed: 0 }
    }

    /// Gives each processor a memory space, which it may share with others. What a step makes has so many bytes.
    #[must_use]
    pub fn with_spaces(
        mut self,
        transfers: &'a Transfers<usize>,
        space: impl Fn(usize) -> usize + 'a,
        bytes: impl Fn(usize) -> u64 + 'a,
    ) -> Self {
        self.memory = Some(Memory { transfers, space: Box::new(space), bytes: Box::new(bytes) });
        self
    }

    /// Lets the actual run time of each step differ from the expected one, by up to `fraction` (from 0 to 1) of it, more or less.
    #[must_use]
    pub fn with_variation(mut self, fraction: f64, seed: u64) -> Self {
        (self.fraction, self.seed) = (fraction.clamp(0.0, 1.0), seed);
        self
    }

    /// Runs all steps. Those without a rank come last, in the order in which they become ready: with no ranks at all the
    /// oldest comes first.
    #[must_use]
    pub fn run(&self, policy: Policy, ranks: &[u64]) -> Schedule {
        let steps = self.order.len();
        let mut run = Run {
            simulation: self,
            now: 0,
            waiting_for: (0..steps).map(|step| self.order.predecessors(step).len()).collect(),
            ranks,
            became_ready: 0,
            ready: BinaryHeap::new(),
            processors: (0..self.processors).map(|_| State::default()).collect(),
            copies: FxHashMap::default(),
            events: BinaryHeap::new(),
            slots: vec![Slot::default(); steps],
        };
        (0..steps)
            .filter(|&step| self.order.predecessors(step).is_empty())
            .for_each(|step| run.is_ready(step));
        loop {
            run.place(policy);
            run.start();
            let Some(Reverse((time, _))) = run.events.peek() else { break };
            run.now = *time;
            while let Some(&Reverse((time, event))) = run.events.peek()
                && time == run.now
            {
                run.events.pop();
                run.happens(event);
            }
        }
        Schedule { makespan: run.slots.iter().map(|slot| slot.end).max().unwrap_or(0), slots: run.slots }
    }

    fn actual(&self, step: usize, processor: usize) -> u64 {
        let expected = (self.run)(step, processor);
        if self.fraction.is_nan() || self.fraction == 0.0 {
            return expected;
        }
        let from_0_to_1 = splitmix64(self.seed ^ splitmix64(step as u64)) as f64 / u64::MAX as f64;
        (expected as f64 * (1.0 + self.fraction * (2.0 * from_0_to_1 - 1.0))).round() as u64
    }
}

/// # Source
/// Steele, Lea, Flood, OOPSLA 2014, 453–472.
fn splitmix64(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A step, greater if it goes first: its rank, when it became ready, which it is.
type Ready = (Option<u64>, Reverse<usize>, usize);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ends(usize),
    Arrives { step: Ready, processor: usize },
}

#[derive(Default)]
struct State {
    /// Steps whose data is there.
    there: BinaryHeap<Ready>,
    running: Option<usize>,
    /// How many steps are placed there that are not over, and how long they are expected to take together.
    placed: usize,
    expected: u64,
}

struct Run<'r> {
    simulation: &'r Simulation<'r>,
    now: u64,
    /// How many predecessors of each step are not over.
    waiting_for: Vec<usize>,
    ranks: &'r [u64],
    became_ready: usize,
    ready: BinaryHeap<Ready>,
    processors: Vec<State>,
    /// When what a step has made is in another memory space.
    copies: FxHashMap<(usize, usize), u64>,
    events: BinaryHeap<Reverse<(u64, Event)>>,
    slots: Vec<Slot>,
}

impl Run<'_> {
    fn is_ready(&mut self, step: usize) {
        self.ready.push((self.ranks.get(step).copied(), Reverse(self.became_ready), step));
        self.became_ready += 1;
    }

    fn place(&mut self, policy: Policy) {
        while let Some(&ready) = self.ready.peek() {
            let (.., step) = ready;
            let processor = match policy {
                Policy::Idle => self.processors.iter().position(|state| state.placed == 0),
                Policy::EarliestEnd => {
                    let candidates =
                        (0..self.processors.len()).map(|processor| self.candidate(step, processor));
                    earliest_end(&candidates.collect::<Vec<_>>())
                }
                Policy::RoundRobin => Some(step % self.processors.len()),
            };
            let Some(processor) = processor else { return };
            self.ready.pop();
            let copies = self.copies(step, processor);
            let there = copies.iter().map(|&(_, there)| there).max().unwrap_or(self.now);
            self.copies.extend(copies);
            let state = &mut self.processors[processor];
            state.placed += 1;
            state.expected = state.expected.saturating_add((self.simulation.run)(step, processor));
            if there > self.now {
                self.events.push(Reverse((there, Event::Arrives { step: ready, processor })));
            } else {
                state.there.push(ready);
            }
        }
    }

    fn candidate(&self, step: usize, processor: usize) -> Candidate {
        let state = &self.processors[processor];
        let run = |step| (self.simulation.run)(step, processor);
        let gone = state.running.map_or(0, |running| run(running).min(self.now - self.slots[running].start));
        let there = self.copies(step, processor).iter().map(|&(_, there)| there).max();
        Candidate {
            queued: state.expected.saturating_sub(gone),
            transfer: there.map_or(0, |there| there.saturating_sub(self.now)),
            run: Some(run(step)),
        }
    }

    /// When what the predecessors of a step have made will be in a processor's memory, where it was not made there.
    fn copies(&self, step: usize, processor: usize) -> Vec<((usize, usize), u64)> {
        let Some(Memory { transfers, space, bytes }) = &self.simulation.memory else { return Vec::new() };
        let (to, mut brought) = (space(processor), self.now);
        let before = self.simulation.order.predecessors(step).iter().map(|&before| before as usize);
        let elsewhere = before
            .map(|before| (before, space(self.slots[before].processor)))
            .filter(|&(_, from)| from != to);
        let copy = |(before, from)| {
            let there = self.copies.get(&(before, to)).copied().unwrap_or_else(|| {
                brought = brought.saturating_add(transfers.expected(&from, &to, bytes(before)));
                brought
            });
            ((before, to), there)
        };
        elsewhere.map(copy).collect()
    }

    fn start(&mut self) {
        for (processor, state) in
            self.processors.iter_mut().enumerate().filter(|(_, state)| state.running.is_none())
        {
            if let Some((.., step)) = state.there.pop() {
                state.running = Some(step);
                let end = self.now.saturating_add(self.simulation.actual(step, processor));
                self.slots[step] = Slot { processor, start: self.now, end };
                self.events.push(Reverse((end, Event::Ends(step))));
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives { step, processor } => self.processors[processor].there.push(step),
            Event::Ends(step) => {
                let processor = self.slots[step].processor;
                let state = &mut self.processors[processor];
                state.running = None;
                state.placed -= 1;
                state.expected = state.expected.saturating_sub((self.simulation.run)(step, processor));
                for &after in self.simulation.order.successors(step) {
                    let waiting_for = &mut self.waiting_for[after as usize];
                    *waiting_for -= 1;
                    if *waiting_for == 0 {
                        self.is_ready(after as usize);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Area, Rate};
    use proptest::collection::vec;
    use proptest::prelude::*;

    const POLICIES: [Policy; 3] = [Policy::Idle, Policy::EarliestEnd, Policy::RoundRobin];

    fn order_of<K: Copy + Eq + std::hash::Hash>(steps: &[Vec<(K, bool)>]) -> Order {
        Order::of(steps.iter().map(|step| step.iter().map(|&(key, writes)| (key, writes, &Area::Whole))))
    }

    /// Three memory spaces in turn, between which it takes 3 + bytes to 5 + 2·bytes nanoseconds.
    fn transfers() -> Transfers<usize> {
        let mut transfers = Transfers::new(Rate { latency: 5, bytes_per_second: 500_000_000 });
        [10, 20].iter().for_each(|&bytes| transfers.observe(0, 1, bytes, 3 + bytes));
        transfers
    }

    fn space(processor: usize) -> usize {
        processor % 3
    }

    prop_compose! {
        /// Steps, what each costs, what each makes, and how slow each processor is.
        fn programs()(
            steps in vec((vec((0..5_usize, any::<bool>()), 0..4), 0..20_u64, 0..30_u64), 0..40),
            slowness in vec(1..5_u64, 1..6),
        ) -> (Order, Vec<u64>, Vec<u64>, Vec<u64>) {
            let (accesses, rest): (Vec<_>, Vec<_>) = steps.into_iter().map(|(accesses, cost, bytes)| (accesses, (cost, bytes))).unzip();
            let (costs, bytes) = rest.into_iter().unzip();
            (order_of(&accesses), costs, bytes, slowness)
        }
    }

    proptest! {
        #[test]
        fn every_schedule_is_possible(
            (order, costs, bytes, slowness) in programs(), seed in any::<u64>(), percent in 0..101_u64, ranked in any::<bool>(),
        ) {
            let transfers = transfers();
            let run = |step: usize, processor: usize| costs[step] * slowness[processor];
            let fraction = percent as f64 / 100.0;
            let simulation = || Simulation::new(&order, slowness.len(), run)
                .with_spaces(&transfers, space, |step| bytes[step])
                .with_variation(fraction, seed);
            let ranks = if ranked { order.ranks(|step| costs[step]) } else { vec![] };
            for policy in POLICIES {
                let schedule = simulation().run(policy, &ranks);
                prop_assert_eq!(&schedule, &simulation().run(policy, &ranks), "the same again");
                prop_assert_eq!(schedule.slots.len(), order.len());
                prop_assert_eq!(schedule.makespan, schedule.slots.iter().map(|slot| slot.end).max().unwrap_or(0));
                for (step, slot) in schedule.slots.iter().enumerate() {
                    let expected = run(step, slot.processor);
                    let most = (expected as f64 * fraction).round() as u64;
                    prop_assert!((slot.end - slot.start).abs_diff(expected) <= most, "{:?}", slot);
                    for &before in order.predecessors(step) {
                        let made = schedule.slots[before as usize];
                        let (from, to) = (space(made.processor), space(slot.processor));
                        let transfer = transfers.expected(&from, &to, bytes[before as usize]);
                        prop_assert!(slot.start >= made.end + transfer, "{} before {}", before, step);
                    }
                    let alone = |other: &Slot| other.processor != slot.processor || other.end <= slot.start || slot.end <= other.start;
                    let mut others = schedule.slots[..step].iter();
                    prop_assert!(others.all(alone), "{} is not alone", step);
                }
                // However steps are placed, it cannot take less than this.
                let actual = |step: usize| schedule.slots[step].end - schedule.slots[step].start;
                prop_assert!(schedule.makespan >= order.ranks(actual).into_iter().max().unwrap_or(0));
                prop_assert!(schedule.makespan * slowness.len() as u64 >= (0..order.len()).map(actual).sum::<u64>());
                let fastest = slowness.iter().min().unwrap();
                let least = |step: usize| costs[step] * fastest;
                if percent == 0 {
                    prop_assert!(schedule.makespan >= order.ranks(least).into_iter().max().unwrap_or(0));
                    prop_assert!(schedule.makespan * slowness.len() as u64 >= (0..order.len()).map(least).sum::<u64>());
                }
            }
        }

        /// Graham, SIAM Journal on Applied Mathematics 17 (1969) 416–429.
        #[test]
        fn who_never_rests_while_a_step_is_ready_keeps_grahams_bound(
            (order, costs, ..) in programs(), processors in 1..6_usize, seed in any::<u64>(), ranked in any::<bool>(),
        ) {
            let simulation = Simulation::new(&order, processors, |step, _| costs[step]).with_variation(0.5, seed);
            let ranks = if ranked { order.ranks(|step| costs[step]) } else { vec![] };
            let schedule = simulation.run(Policy::Idle, &ranks);
            let actual = |step: usize| schedule.slots[step].end - schedule.slots[step].start;
            let work = (0..order.len()).map(actual).sum::<u64>();
            let critical = order.ranks(actual).into_iter().max().unwrap_or(0);
            let processors = processors as u64;
            prop_assert!(schedule.makespan * processors <= work + critical * (processors - 1));
        }
    }

    #[test]
    fn what_one_step_made_is_brought_into_a_memory_once() {
        // Step 0 runs on processor 0; 1 and then 3 on processor 1, in the other memory.
        let order = order_of(&[
            vec![('a', true)],
            vec![('a', false), ('b', true)],
            vec![],
            vec![('a', false), ('b', false)],
        ]);
        let transfers = Transfers::new(Rate { latency: 0, bytes_per_second: 1_000_000_000 });
        let simulation =
            Simulation::new(&order, 2, |_, _| 10).with_spaces(&transfers, |processor| processor, |_| 100);
        let starts =
            simulation.run(Policy::RoundRobin, &[]).slots.iter().map(|slot| slot.start).collect::<Vec<_>>();
        assert_eq!(starts, [0, 110, 10, 120]);
    }

    #[test]
    fn what_one_step_needs_comes_one_after_the_other() {
        let order =
            order_of(&[vec![('a', true)], vec![], vec![('b', true)], vec![('a', false), ('b', false)]]);
        let transfers = Transfers::new(Rate { latency: 0, bytes_per_second: 1_000_000_000 });
        let simulation =
            Simulation::new(&order, 2, |_, _| 10).with_spaces(&transfers, |processor| processor, |_| 100);
        assert_eq!(simulation.run(Policy::RoundRobin, &[]).slots[3].start, 20 + 200);
    }

    #[test]
    fn a_step_follows_its_data_unless_it_is_done_sooner_elsewhere() {
        let order = order_of(&[vec![('a', true)], vec![('a', false)]]);
        let transfers = Transfers::new(Rate { latency: 0, bytes_per_second: 1_000_000_000 });
        // The first step is best done on processor 0, the second one by 5 nanoseconds on processor 1.
        let run = |step: usize, processor: usize| [[10, 50], [10, 5]][step][processor];
        let second_runs_on = |bytes| {
            let simulation = Simulation::new(&order, 2, run).with_spaces(
                &transfers,
                |processor| processor,
                move |_| bytes,
            );
            simulation.run(Policy::EarliestEnd, &[]).slots[1].processor
        };
        assert_eq!([4, 5, 6].map(second_runs_on), [1, 0, 0]);
    }

    #[test]
    fn the_seed_varies_each_step_by_the_fraction_and_no_more() {
        let order = order_of(&vec![vec![('a', true)]; 1000]);
        let took = |fraction, seed| -> Vec<u64> {
            let simulation = Simulation::new(&order, 1, |_, _| 1_000_000).with_variation(fraction, seed);
            simulation.run(Policy::Idle, &[]).slots.iter().map(|slot| slot.end - slot.start).collect()
        };
        assert!(took(0.0, 7).iter().chain(&took(f64::NAN, 7)).all(|&nanos| nanos == 1_000_000));
        let varied = took(0.3, 7);
        assert_ne!(varied, took(0.3, 8));
        let (least, most) = (varied.iter().min().unwrap(), varied.iter().max().unwrap());
        assert!(
            (700_000..710_000).contains(least) && (1_290_000..=1_300_000).contains(most),
            "{least} {most}"
        );
        let mean = varied.iter().sum::<u64>() / 1000;
        assert!((980_000..1_020_000).contains(&mean), "{mean}");
    }

    #[test]
    fn no_steps_no_processors_and_endless_times_are_no_trouble() {
        let nothing = Simulation::new(&Order::default(), 0, |_, _| 1).run(Policy::EarliestEnd, &[]);
        assert_eq!((nothing.makespan, nothing.slots.len()), (0, 0));
        let order = order_of(&vec![vec![('a', true)]; 3]);
        for policy in POLICIES {
            assert_eq!(Simulation::new(&order, 0, |_, _| u64::MAX).run(policy, &[]).makespan, u64::MAX);
        }
    }

    /// The kernels of a tiled Cholesky factorization.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Kernel {
        Potrf,
        Trsm,
        Syrk,
        Gemm,
    }

    impl Kernel {
        /// Floating-point operations, in thirds of the cube of the size of a tile.
        fn flops(self) -> u64 {
            match self {
                Kernel::Potrf => 1,
                Kernel::Trsm | Kernel::Syrk => 3,
                Kernel::Gemm => 6,
            }
        }
    }

    /// Its steps on tiles × tiles tiles, in the order of the loops.
    fn cholesky(tiles: usize) -> (Order, Vec<Kernel>) {
        let (mut kernels, mut accesses) = (vec![], vec![]);
        let mut step = |kernel, reads: &[(usize, usize)], writes| {
            kernels.push(kernel);
            accesses.push(reads.iter().map(|&tile| (tile, false)).chain([(writes, true)]).collect());
        };
        for k in 0..tiles {
            step(Kernel::Potrf, &[], (k, k));
            (k + 1..tiles).for_each(|i| step(Kernel::Trsm, &[(k, k)], (i, k)));
            for i in k + 1..tiles {
                step(Kernel::Syrk, &[(i, k)], (i, i));
                (k + 1..i).for_each(|j| step(Kernel::Gemm, &[(i, k), (j, k)], (i, j)));
            }
        }
        (order_of(&accesses), kernels)
    }

    #[test]
    fn on_equal_processors_ranks_shorten_a_cholesky_factorization() {
        let (order, kernels) = cholesky(16);
        let cost = |step: usize| kernels[step].flops() * 1_000;
        let ranks = order.ranks(cost);
        let work = (0..order.len()).map(cost).sum::<u64>();
        // Of ten runs the mean, where run times vary.
        for (processors, fraction, percent_at_least) in [(8, 0.0, 1), (8, 0.3, 1), (32, 0.0, 8), (32, 0.3, 7)]
        {
            let makespan = |policy, ranks: &[u64]| {
                let simulation = |seed| {
                    Simulation::new(&order, processors, |step, _| cost(step)).with_variation(fraction, seed)
                };
                (0..10).map(|seed| simulation(seed).run(policy, ranks).makespan).sum::<u64>() / 10
            };
            let [oldest, ranked] = [&[], &ranks[..]].map(|ranks| makespan(Policy::Idle, ranks));
            let figures = format!(
                "{processors} processors ±{fraction}: oldest first {oldest} ns, by ranks {ranked} ns, at least {}",
                work / processors as u64
            );
            assert!(ranked * 100 <= oldest * (100 - percent_at_least), "{figures}");
            assert!(
                ranked <= makespan(Policy::EarliestEnd, &ranks),
                "nothing is gained by placing early: {figures}"
            );
        }
    }

    #[test]
    fn on_processors_that_differ_the_earliest_end_beats_turns() {
        let (order, kernels) = cholesky(16);
        // Tiles of 2 MiB: 13.5 ms for the cube of their size on one of four CPUs, a twentieth on the device but for potrf.
        let run = |step: usize, processor: usize| {
            let on_cpu = kernels[step].flops() * 4_500_000;
            match (processor, kernels[step]) {
                (0..4, _) => on_cpu,
                (_, Kernel::Potrf) => 2 * on_cpu,
                _ => on_cpu / 20,
            }
        };
        let transfers = Transfers::new(Rate { latency: 10_000, bytes_per_second: 16_000_000_000 });
        let ranks = order.ranks(|step| (0..5).map(|processor| run(step, processor)).sum::<u64>() / 5);
        // Nothing is faster than all processors with all that they do best.
        let least = kernels.iter().map(|kernel| kernel.flops() * 4_500_000).sum::<u64>() / (4 + 20);
        for fraction in [0.0, 0.3] {
            let [idle, earliest, turns] = POLICIES.map(|policy| {
                let simulation = Simulation::new(&order, 5, run)
                    .with_spaces(&transfers, |processor| processor / 4, |_| 2 << 20)
                    .with_variation(fraction, 1);
                simulation.run(policy, &ranks).makespan
            });
            let figures = format!(
                "±{fraction}: idle {idle} ns, earliest end {earliest} ns, turns {turns} ns, at least {least} ns"
            );
            assert!(turns >= 2 * earliest, "{figures}");
            assert!(earliest < idle, "{figures}");
            assert!(earliest < least + least / 10, "{figures}");
        }
    }
}
