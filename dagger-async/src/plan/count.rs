//! The counts that a run by a graph stands on: what a step still waits for, how many steps are left, and, of a frozen run, who runs
//! steps.
//!
//! 1. Of those that count a step down one is told that it is ready, and sees what all of them have done.
//! 2. A step counts from the start again as soon as it is ready: the next to count it down comes in another run, after this one.
//! 3. The count of runners rises only by who is counted in it, so it reaches zero once, and whoever brings it there sees what
//!    all of them have done.
//! 4. A step that is made ready for others has somebody who looks for it: publish, fence, look at the other side, on both sides.
//! 5. A run that was closed comes to its end once, and whoever brings it there sees what all steps have done. Whoever is not told that
//!    it was he does not look at the run again: it may be gone.

use crate::sync::{AtomicU32, fence};
use crossbeam_utils::CachePadded;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};

/// How many inputs of a step are not there: predecessors that are not over, and its issue, where it is issued.
pub(super) struct Missing {
    count: AtomicU32,
    inputs: u32,
}

impl Missing {
    pub(super) fn new(inputs: u32) -> Missing {
        Missing { count: AtomicU32::new(inputs), inputs }
    }

    /// It waits for nobody, ever.
    pub(super) fn is_source(&self) -> bool {
        self.inputs == 0
    }

    /// One of its inputs is there. True: that was the last one.
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
        self.count.store(self.inputs, Relaxed);
    }
}

/// Who runs steps.
pub(super) struct Runners {
    /// Those that were spawned and have not left.
    count: AtomicU32,
    /// Those that take steps, or will: not one that is about to leave.
    hands: AtomicU32,
}

impl Runners {
    pub(super) fn new(count: u32) -> Runners {
        Runners { count: AtomicU32::new(count), hands: AtomicU32::new(count) }
    }

    /// The caller is the only one: what it sees now is all there is.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        self.count.load(Acquire) == 1
    }

    /// After a step was made ready for others: true if there are fewer hands than that.
    #[inline]
    pub(super) fn are_few(&self, most: u32) -> bool {
        fence(SeqCst); // Either we see who rests, or who rests sees the step (invariant 4).
        self.hands.load(Relaxed) < most
    }

    /// Counts another one in, for the caller to spawn, who is one of them; unless there are so many hands.
    pub(super) fn add(&self, most: u32) -> bool {
        let mut hands = self.hands.load(Relaxed);
        while hands < most {
            match self.hands.compare_exchange_weak(hands, hands + 1, AcqRel, Relaxed) {
                Ok(_) => {
                    self.count.fetch_add(1, Relaxed); // Not zero: the caller is in it.
                    return true;
                }
                Err(now) => hands = now,
            }
        }
        false
    }

    /// One takes no more steps. It looks once more, for others, before it leaves.
    pub(super) fn rest(&self) {
        self.hands.fetch_sub(1, AcqRel);
        fence(SeqCst);
    }

    /// One that rests is counted out. True: it was the last.
    pub(super) fn leave(&self) -> bool {
        self.count.fetch_sub(1, AcqRel) == 1
    }
}

/// How many steps of a run are issued and not completed, and whether more may be issued (invariant 5).
///
/// Each thread counts what it completes for itself, until the run is closed: one count for all would be a cache line that two threads
/// want for every step.
pub(super) struct Unfinished {
    /// Completed while it was open, by thread; then `CLOSED`.
    completed: Box<[CachePadded<AtomicU32>]>,
    /// `OPEN` until the close is over, less what is completed at counts that are closed already; then what is left.
    left: CachePadded<AtomicU32>,
}

/// More than a run has steps.
const OPEN: u32 = 1 << 31;
const CLOSED: u32 = 1 << 31;
/// Counts of a run, at most, as a close looks at each: threads beyond share one with another.
const THREADS_MAX: usize = 16;

impl Unfinished {
    /// Of a run with so many steps.
    pub(super) fn new(threads: usize, steps: usize) -> Unfinished {
        let counts = threads.min(steps).clamp(1, THREADS_MAX).next_power_of_two();
        Unfinished {
            completed: (0..counts).map(|_| CachePadded::new(AtomicU32::new(0))).collect(),
            left: CachePadded::new(AtomicU32::new(OPEN)),
        }
    }

    /// For another run, after the end of this one.
    pub(super) fn reopen(&mut self) {
        self.completed.iter_mut().for_each(|completed| set(completed, 0));
        set(&mut self.left, OPEN);
    }

    /// A step is completed, by the thread with this number (of any number there may be several). True: the run is over.
    ///
    /// # Safety
    /// It lives until the step is counted; it may be gone when this returns, which a reference as an argument would forbid.
    #[inline]
    pub(super) unsafe fn complete(this: NonNull<Unfinished>, thread: usize) -> bool {
        let this = this.as_ptr();
        // SAFETY: it lives. After the counting only the one who is told that the run is over uses it, and the counts themselves, which are
        // passed on by reference, may be freed meanwhile: they are atomic throughout.
        let (completed, left): (&AtomicU32, &AtomicU32) = unsafe {
            let completed = &(*this).completed;
            (&completed[thread & (completed.len() - 1)], &(*this).left)
        };
        // It is not opened again meanwhile: this step is not counted yet.
        let is_closed = completed.load(Relaxed) & CLOSED != 0;
        if !is_closed && completed.fetch_add(1, AcqRel) & CLOSED == 0 {
            return false; // Who closes the run adds it up.
        }
        left.fetch_sub(1, AcqRel) == 1
    }

    /// No more than so many steps are issued. True: the run is over.
    pub(super) fn close(&self, issued: u32) -> bool {
        let completed: u32 = self.completed.iter().map(|completed| completed.swap(CLOSED, AcqRel)).sum();
        let rest = OPEN - (issued - completed);
        self.left.fetch_sub(rest, AcqRel) == rest
    }
}

/// Sets a count that nobody else looks at.
fn set(count: &mut AtomicU32, value: u32) {
    #[cfg(dagger_loom)]
    count.with_mut(|count| *count = value);
    #[cfg(not(dagger_loom))]
    {
        *count.get_mut() = value;
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
        this.runners.rest();
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

    /// ```text
    ///   pusher                     the other runner
    ///   a step, ready for others   rests
    ///   fence               ╳      fence
    ///   few hands? spawn           looks once more: spawn
    /// ```
    /// The pusher then calls something that takes for ever.
    #[test]
    fn loom_a_ready_step_is_not_left_alone() {
        use loom::sync::atomic::{AtomicBool, AtomicU32 as Shared};
        loom::model(|| {
            // The step is relaxed on purpose: the fences are what orders it.
            let shared = Arc::new((Runners::new(2), Shared::new(0), AtomicBool::new(false)));
            let other = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (runners, step, is_seen) = &*shared;
                    runners.rest();
                    if step.load(Relaxed) == 1 && runners.add(2) {
                        is_seen.store(true, Relaxed);
                    }
                    runners.leave();
                })
            };
            let (runners, step, is_seen) = &*shared;
            step.store(1, Relaxed);
            if runners.are_few(2) && runners.add(2) {
                is_seen.store(true, Relaxed);
            }
            other.join().unwrap();
            assert!(is_seen.load(Relaxed));
        });
    }

    /// Steps are completed by two threads, with a count for each or one for both, while a third one closes. Whoever is told that it is
    /// over opens it again: nobody else looks at it from then on, or loom says so.
    #[test]
    fn loom_a_closed_run_ends_once_and_whoever_ends_it_sees_all_steps() {
        struct Shared {
            unfinished: UnsafeCell<Unfinished>,
            steps: [UnsafeCell<u32>; 2],
            ends: Mutex<u32>,
        }
        fn over(shared: &Shared) {
            *shared.ends.lock().unwrap() += 1;
            for step in &shared.steps {
                // SAFETY: a model: loom reports what is not so.
                assert_eq!(step.with(|step| unsafe { *step }), 1, "it ends after each step");
            }
            // SAFETY: as above. Of the counts themselves: they are what may be looked at by others.
            shared.unfinished.with(|unfinished| unsafe { (*unfinished.cast_mut()).reopen() });
        }
        for threads in [1, 2] {
            loom::model(move || {
                let shared = Arc::new(Shared {
                    unfinished: UnsafeCell::new(Unfinished::new(threads, 2)),
                    steps: [(); 2].map(|()| UnsafeCell::new(0)),
                    ends: Mutex::new(0),
                });
                let complete = |at: usize| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        // SAFETY: as above.
                        shared.steps[at].with_mut(|step| unsafe { *step += 1 });
                        let unfinished = NonNull::new(shared.unfinished.with(<*const _>::cast_mut)).unwrap();
                        // SAFETY: as above.
                        if unsafe { Unfinished::complete(unfinished, at) } {
                            over(&shared);
                        }
                    })
                };
                let steps = [complete(0), complete(1)];
                // SAFETY: as above.
                if shared.unfinished.with(|unfinished| unsafe { (*unfinished).close(2) }) {
                    over(&shared);
                }
                steps.into_iter().for_each(|step| step.join().unwrap());
                assert_eq!(*shared.ends.lock().unwrap(), 1);
            });
        }
    }
}
