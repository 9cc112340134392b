//! Tasks that not every worker may run, or that others must let pass: lanes by scope and priority.
//!
//! Plain tasks (any CPU thread, priority 0, rank 0) never come here: they live in the workers' own queues. Each distinct set
//! of workers that some scope denotes is a *domain*; a domain has a *lane* (first in, first out) for each priority and
//! rank in use.
//!
//! 1. `best` is the highest lane with a task in it, or `EMPTY`: workers look at it without the lock.
//! 2. Domains are found by their set, made on first need and kept as long as the pool: programs use few scopes.
//! 3. The domain of all workers is the first; it holds the plain-scope tasks with a priority or rank other than 0.

use crate::task::RawTask;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{
    AtomicI64, AtomicU32, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock};

/// The tasks of one priority and rank. Those of higher priority are greater, and among them those of higher rank.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane(i64);

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
    lanes_len: AtomicUsize,
    lanes: Mutex<BTreeMap<Lane, VecDeque<RawTask>>>,
}

impl Domain {
    /// Lanes for these workers.
    pub(crate) fn new(workers: Box<[usize]>, total: Arc<AtomicUsize>) -> Self {
        Domain {
            total,
            workers,
            best: AtomicI64::new(EMPTY.0),
            lanes_len: AtomicUsize::new(0),
            lanes: Mutex::new(BTreeMap::new()),
        }
    }

    /// The highest lane that has a task, or [`EMPTY`].
    #[inline]
    pub(crate) fn best(&self) -> Lane {
        Lane(self.best.load(Acquire))
    }

    /// How many lanes have tasks.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes_len.load(Relaxed)
    }

    pub(crate) fn push(&self, task: RawTask, lane: Lane) {
        let mut lanes = self.lanes.lock();
        lanes.entry(lane).or_default().push_back(task);
        self.total.fetch_add(1, Relaxed); // Before `best` says so.
        self.publish(&lanes);
    }

    /// The oldest task of the highest lane.
    pub(crate) fn pop(&self) -> Option<RawTask> {
        if self.best() == EMPTY {
            return None;
        }
        let mut lanes = self.lanes.lock();
        let mut lane = lanes.last_entry()?;
        let task = lane.get_mut().pop_front();
        if lane.get().is_empty() {
            lane.remove();
        }
        self.total.fetch_sub(1, Relaxed);
        self.publish(&lanes);
        task
    }

    /// The oldest task of the lane with this index, counted from the lowest.
    pub(crate) fn pop_lane(&self, index: usize) -> Option<RawTask> {
        let mut lanes = self.lanes.lock();
        let which = *lanes.keys().nth(index)?;
        let lane = lanes.get_mut(&which)?;
        let task = lane.pop_front();
        if lane.is_empty() {
            lanes.remove(&which);
        }
        self.total.fetch_sub(1, Relaxed);
        self.publish(&lanes);
        task
    }

    fn publish(&self, lanes: &BTreeMap<Lane, VecDeque<RawTask>>) {
        self.lanes_len.store(lanes.len(), Relaxed);
        let best = lanes.last_key_value().map_or(EMPTY, |(&lane, _)| lane);
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
