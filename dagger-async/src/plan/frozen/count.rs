//! The two counts that a run of a frozen graph stands on: what a step still waits for, and who runs steps.
//!
//! 1. Of those that count a step down one is told that it is ready, and sees what all of them have done.
//! 2. A step counts from the start again as soon as it is ready: the next to count it down comes in another run, after this one.
//! 3. The count of runners rises only by who is counted in it, so it reaches zero once, and whoever brings it there sees what
//!    all of them have done.

use crate::sync::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// How many predecessors of a step are not over.
pub(super) struct Missing {
    count: AtomicU32,
    predecessors: u32,
}

impl Missing {
    pub(super) fn new(predecessors: u32) -> Missing {
        Missing { count: AtomicU32::new(predecessors), predecessors }
    }

    /// It waits for nobody, ever.
    pub(super) fn is_source(&self) -> bool {
        self.predecessors == 0
    }

    /// One of its predecessors is over. True: that was the last one.
    #[inline]
    pub(super) fn count_down(&self) -> bool {
        // A count that reads 1 needs no locked operation: nobody else is left to change it.
        let is_ready = self.count.load(Acquire) == 1 || self.count.fetch_sub(1, AcqRel) == 1;
        if is_ready {
            self.reset();
        }
        is_ready
    }

    /// Counts from the start again. Relaxed: who counts next has seen the end of this run.
    pub(super) fn reset(&self) {
        self.count.store(self.predecessors, Relaxed);
    }
}

/// How many runners there are, with those that were spawned and have not begun.
pub(super) struct Runners(AtomicU32);

impl Runners {
    pub(super) fn new(count: u32) -> Runners {
        Runners(AtomicU32::new(count))
    }

    /// The caller is the only one: what it sees now is all there is.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.0.load(Acquire) == 1
    }

    /// A hint: there are fewer than that.
    #[inline]
    pub(super) fn are_fewer_than(&self, most: usize) -> bool {
        (self.0.load(Relaxed) as usize) < most
    }

    /// Counts another one in, for the caller to spawn, who is one of them; unless there are so many.
    pub(super) fn add(&self, most: usize) -> bool {
        let count = self.0.load(Relaxed);
        (count as usize) < most && self.0.compare_exchange(count, count + 1, AcqRel, Relaxed).is_ok()
    }

    /// One is counted out. True: it was the last.
    pub(super) fn leave(&self) -> bool {
        self.0.fetch_sub(1, AcqRel) == 1
    }
}

#[cfg(all(test, dagger_loom))]
mod models {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    /// ```text
    ///   0 ─▶ 1 ─▶ 3      0 makes two steps ready: the second is for whoever comes
    ///   └──▶ 2 ───┘
    /// ```
    const SUCCESSORS: [&[usize]; 4] = [&[1, 2], &[3], &[3], &[]];

    struct Run {
        missing: [Missing; 4],
        runners: Runners,
        /// Stands in for the shared end of the queues.
        shared: Mutex<Vec<usize>>,
        /// What the steps do, unlocked: loom sees who comes too early, or twice.
        calls: [UnsafeCell<u32>; 4],
        ends: UnsafeCell<u32>,
    }

    fn run(this: &Arc<Run>, first: Option<usize>) {
        let mut helper = None;
        let mut next = first.or_else(|| this.shared.lock().unwrap().pop());
        while let Some(step) = next.take() {
            for before in (0..4).filter(|&before| SUCCESSORS[before].contains(&step)) {
                // SAFETY: a model: loom reports what is not so.
                assert_eq!(this.calls[before].with(|calls| unsafe { *calls }), 1, "{before} before {step}");
            }
            // SAFETY: as above.
            this.calls[step].with_mut(|calls| unsafe { *calls += 1 });
            for &successor in SUCCESSORS[step] {
                if this.missing[successor].count_down()
                    && let Some(other) = next.replace(successor)
                {
                    this.shared.lock().unwrap().push(other);
                    if this.runners.add(2) {
                        let this = this.clone();
                        helper = Some(thread::spawn(move || run(&this, None)));
                    }
                }
            }
            next = next.or_else(|| this.shared.lock().unwrap().pop());
        }
        if this.runners.leave() {
            // SAFETY: as above.
            this.ends.with_mut(|ends| unsafe { *ends += 1 });
            // All of them are over, and the graph is as it was.
            for (step, calls) in this.calls.iter().enumerate() {
                // SAFETY: as above.
                assert_eq!(calls.with_mut(|calls| unsafe { *calls }), 1, "step {step}");
            }
        }
        if let Some(helper) = helper {
            helper.join().unwrap();
        }
    }

    #[test]
    fn loom_each_step_is_called_once_and_the_last_runner_ends_the_run() {
        loom::model(|| {
            let this = Arc::new(Run {
                missing: [0, 1, 1, 2].map(Missing::new),
                runners: Runners::new(1),
                shared: Mutex::new(Vec::new()),
                calls: [(); 4].map(|()| UnsafeCell::new(0)),
                ends: UnsafeCell::new(0),
            });
            run(&this, Some(0));
            // SAFETY: as above.
            assert_eq!(this.ends.with_mut(|ends| unsafe { *ends }), 1);
            assert!(
                [0, 1, 1, 2]
                    .iter()
                    .zip(&this.missing)
                    .all(|(&count, missing)| missing.count.load(Relaxed) == count)
            );
        });
    }
}
