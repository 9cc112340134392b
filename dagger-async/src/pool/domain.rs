//! Tasks that not every worker may run, or that others must let pass: lanes by scope and priority.
//!
//! Plain tasks (any CPU thread, priority 0, rank 0) never come here: they live in the workers' own queues. Each distinct set
//! of workers that some scope denotes is a *domain*; a domain has a *lane* (first in, first out) for each priority and
//! rank in use.
//!
//! 1. `best` is the highest lane with a task in it, or `EMPTY`: workers look at it without the lock.
//! 2. Domains are found by their set, made on first need and kept as long as the pool: programs use few scopes.
//! 3. The domain of all workers is the first; it holds the plain-scope tasks with a priority or rank other than 0.
//! 4. A lane from which nothing was taken for [`OVERDUE`] picks goes before all others; one such is looked for each [`EVERY`] picks. So a
//!    lane waits for 61 picks at most, and eight for each other one that has waited as long; until then the order is that of priorities.

use crate::task::RawTask;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::atomic::{
    AtomicI64, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock};

/// The tasks of one priority and rank. Those of higher priority are greater, and among them those of higher rank.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane(i64);

/// Overdue lanes are looked for each time so many picks have been made.
pub(super) const EVERY: u32 = 8;
/// So many picks after it was served last a lane with tasks is overdue.
pub(super) const OVERDUE: u32 = 61 - EVERY;
/// Lanes that are looked at each time, in turn.
const LOOKS: usize = 16;

/// No task at all.
pub(crate) const EMPTY: Lane = Lane(i64::MIN);

impl Lane {
    pub(crate) fn of(priority: i32, rank: u8) -> Lane {
        Lane(i64::from(priority) << 8 | i64::from(rank))
    }

    /// That of `EMPTY` is less than all others.
    pub(crate) fn priority(self) -> i64 {
        self.0 >> 8
    }
}

/// The tasks of one set of workers.
pub(crate) struct Domain {
    /// How many tasks lie in all domains of the pool.
    total: Arc<AtomicUsize>,
    /// Worker indices, ascending.
    pub(crate) workers: Box<[usize]>,
    best: AtomicI64,
    lanes: Mutex<Lanes>,
}

/// The tasks of a domain.
struct Lanes {
    /// None is empty.
    by_lane: BTreeMap<Lane, Waiting>,
    /// Picks of its workers so far, as far as they were told.
    picks: u64,
    /// The lane that was looked at last.
    hand: Lane,
}

/// The tasks of a lane.
struct Waiting {
    tasks: VecDeque<RawTask>,
    /// How many picks there had been when it was served last, or came to have tasks.
    since: u64,
}

impl Lanes {
    /// The oldest task of a lane.
    fn take(&mut self, lane: Lane) -> Option<RawTask> {
        let waiting = self.by_lane.get_mut(&lane)?;
        let task = waiting.tasks.pop_front();
        waiting.since = self.picks;
        if waiting.tasks.is_empty() {
            self.by_lane.remove(&lane);
        }
        task
    }

    /// The next lane that has waited for too long.
    fn overdue(&mut self) -> Option<Lane> {
        let (after, up_to) = ((Excluded(self.hand), Unbounded), ..=self.hand);
        let in_turn = self.by_lane.range(after).chain(self.by_lane.range(up_to));
        for (&lane, waiting) in in_turn.take(LOOKS) {
            self.hand = lane;
            if self.picks.saturating_sub(waiting.since) >= u64::from(OVERDUE) {
                return Some(lane);
            }
        }
        None
    }
}

impl Domain {
    /// Lanes for these workers.
    pub(crate) fn new(workers: Box<[usize]>, total: Arc<AtomicUsize>) -> Self {
        Domain {
            total,
            workers,
            best: AtomicI64::new(EMPTY.0),
            lanes: Mutex::new(Lanes { by_lane: BTreeMap::new(), picks: 0, hand: EMPTY }),
        }
    }

    /// The highest lane that has a task, or [`EMPTY`].
    #[inline]
    pub(crate) fn best(&self) -> Lane {
        Lane(self.best.load(Acquire))
    }

    pub(crate) fn push(&self, task: RawTask, lane: Lane) {
        let mut lanes = self.lanes.lock();
        let since = lanes.picks;
        let waiting = lanes.by_lane.entry(lane).or_insert_with(|| Waiting { tasks: VecDeque::new(), since });
        waiting.tasks.push_back(task);
        self.total.fetch_add(1, Relaxed); // Before `best` says so.
        self.publish(&lanes);
    }

    /// The oldest task of the highest lane.
    pub(crate) fn pop(&self) -> Option<RawTask> {
        self.take(|lanes| lanes.by_lane.last_key_value().map(|(&lane, _)| lane))
    }

    /// Another [`EVERY`] picks were made. The oldest task of a lane that has waited for too long, if one `is_wanted`.
    pub(super) fn pop_overdue(&self, is_wanted: bool) -> Option<RawTask> {
        self.take(|lanes| {
            lanes.picks += u64::from(EVERY);
            if is_wanted { lanes.overdue() } else { None }
        })
    }

    fn take(&self, choose: impl FnOnce(&mut Lanes) -> Option<Lane>) -> Option<RawTask> {
        if self.best() == EMPTY {
            return None;
        }
        let mut lanes = self.lanes.lock();
        let lane = choose(&mut lanes)?;
        let task = lanes.take(lane);
        self.total.fetch_sub(1, Relaxed);
        self.publish(&lanes);
        task
    }

    fn publish(&self, lanes: &Lanes) {
        let best = lanes.by_lane.last_key_value().map_or(EMPTY, |(&lane, _)| lane);
        self.best.store(best.0, Release);
    }
}

/// A domain of a pool, by number: an `Arc` in each task would be a count that two cores change all the time.
#[derive(Clone, Copy)]
pub(crate) struct DomainKey(u32);

impl DomainKey {
    const EVERYONE: DomainKey = DomainKey(0);

    /// Of one that is not `EVERYONE`, in rows of 1, 2, 4 and so on: which row, and where in it.
    #[inline]
    fn place(self) -> (usize, usize) {
        let row = self.0.ilog2();
        (row as usize, (self.0 - (1 << row)) as usize)
    }
}

/// Domains that come into being one by one, and stay where they are.
type Row = Box<[OnceLock<Arc<Domain>>]>;

/// All domains of a pool.
pub(crate) struct Domains {
    total: Arc<AtomicUsize>,
    everyone: Arc<Domain>,
    /// The others by key, to be read without a lock. None ever moves.
    rows: [OnceLock<Row>; 32],
    /// How many there are, with `everyone`.
    len: AtomicU32,
    /// Held by who adds one.
    adding: Mutex<()>,
}

impl Domains {
    pub(crate) fn new(workers: usize) -> Self {
        let total = Arc::new(AtomicUsize::new(0));
        let everyone = Arc::new(Domain::new((0..workers).collect(), total.clone()));
        let rows = [const { OnceLock::new() }; 32];
        Domains { total, everyone, rows, len: AtomicU32::new(1), adding: Mutex::new(()) }
    }

    /// True if no domain has a task, as far as this thread can see.
    #[inline]
    pub(crate) fn are_empty(&self) -> bool {
        self.total.load(Relaxed) == 0
    }

    /// The domain of all workers.
    #[inline]
    pub(crate) fn everyone(&self) -> DomainKey {
        DomainKey::EVERYONE
    }

    /// The domain with this key, which is of this pool.
    #[inline]
    pub(crate) fn get(&self, key: DomainKey) -> &Domain {
        let known = self.known(key);
        debug_assert!(known.is_some(), "keys come from here");
        known.unwrap_or(&self.everyone)
    }

    #[inline]
    fn known(&self, key: DomainKey) -> Option<&Arc<Domain>> {
        if key.0 == DomainKey::EVERYONE.0 {
            return Some(&self.everyone);
        }
        let (row, at) = key.place();
        self.rows[row].get()?.get(at)?.get()
    }

    fn all(&self) -> impl Iterator<Item = (DomainKey, &Arc<Domain>)> {
        (0..self.version()).map(DomainKey).filter_map(|key| Some((key, self.known(key)?)))
    }

    /// The domain of exactly these workers (ascending).
    pub(crate) fn of(&self, workers: &[usize]) -> DomainKey {
        let find = || self.all().find(|(_, domain)| *domain.workers == *workers).map(|(key, _)| key);
        if let Some(found) = find() {
            return found;
        }
        let _adding = self.adding.lock();
        if let Some(found) = find() {
            return found;
        }
        let key = DomainKey(self.version());
        let (row, at) = key.place();
        let row = self.rows[row].get_or_init(|| (0..1 << row).map(|_| OnceLock::new()).collect());
        row[at].get_or_init(|| Arc::new(Domain::new(workers.into(), self.total.clone())));
        // Release: who sees the number finds the domain.
        self.len.store(key.0 + 1, Release);
        key
    }

    /// Changes when a domain is added: it is their number.
    #[inline]
    pub(crate) fn version(&self) -> u32 {
        self.len.load(Acquire)
    }

    /// The domains that `worker` belongs to.
    pub(crate) fn with(&self, worker: usize) -> Vec<Arc<Domain>> {
        let holds = |domain: &&Arc<Domain>| domain.workers.binary_search(&worker).is_ok();
        self.all().map(|(_, domain)| domain).filter(holds).cloned().collect()
    }
}

#[cfg(all(test, not(dagger_loom)))]
#[test]
fn domains_are_found_by_their_workers_and_by_their_keys() {
    let domains = Domains::new(8);
    let sets: Vec<Vec<usize>> =
        (1..200usize).map(|set| (0..8).filter(|worker| set >> worker & 1 == 1).collect()).collect();
    let keys: Vec<DomainKey> = sets.iter().map(|workers| domains.of(workers)).collect();
    for (workers, &key) in sets.iter().zip(&keys) {
        assert_eq!(*domains.get(key).workers, **workers);
        assert_eq!(domains.of(workers).0, key.0, "made once");
    }
    assert_eq!(*domains.get(domains.everyone()).workers, [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(domains.with(0).len(), 1 + sets.iter().filter(|workers| workers.contains(&0)).count());
}

#[cfg(all(test, not(dagger_loom)))]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
mod order {
    use super::*;

    /// Tasks that are only looked at, by number.
    fn task(number: usize) -> RawTask {
        RawTask::from_data(std::ptr::without_provenance((number + 1) * 64))
    }

    /// The lanes of so many picks from a domain in which none of these ever runs out, as a worker makes them.
    fn picks(lanes: &[Lane], picks: usize) -> Vec<Lane> {
        let domain = Domain::new([0].into(), Arc::default());
        let number = |task: RawTask| task.as_ptr().addr() / 64 - 1;
        (0..lanes.len()).for_each(|lane| domain.push(task(lane), lanes[lane]));
        let pick = |at: usize| {
            let overdue = (at as u32).is_multiple_of(EVERY).then(|| domain.pop_overdue(true)).flatten();
            let lane = number(overdue.or_else(|| domain.pop()).unwrap());
            domain.push(task(lane), lanes[lane]);
            lanes[lane]
        };
        (0..picks).map(pick).collect()
    }

    #[test]
    fn priorities_are_an_order_and_each_lane_has_its_turn() {
        for count in [1, 2, 5, 20, 100, 1000] {
            let lanes: Vec<Lane> = (0..count).map(|lane| Lane::of(lane, 0)).collect();
            let picks = picks(&lanes, 50_000);
            let highest = *lanes.last().unwrap();
            let early = picks.iter().position(|&lane| lane != highest).unwrap_or(picks.len());
            assert!(early >= 48, "{count} lanes: pick {early} was not of the highest priority");
            let others = picks.iter().filter(|&&lane| lane != highest).count();
            let most = picks.len() / EVERY as usize;
            assert!(
                others <= most.min(picks.len() * (count as usize - 1) / 48),
                "{others} with {count} lanes"
            );
            let bound = 61 + EVERY as usize * count as usize + count as usize / LOOKS * EVERY as usize;
            for lane in lanes {
                let mut last = 0;
                for (at, _) in picks.iter().enumerate().filter(|&(_, &picked)| picked == lane) {
                    assert!(at - last <= bound, "{count} lanes: one waited for {} picks", at - last);
                    last = at;
                }
                assert!(picks.len() - last <= bound, "{count} lanes: one waits for ever");
            }
        }
    }
}
