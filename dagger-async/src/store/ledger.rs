//! Who may use memory, who waits for it, and what leaves it.
//!
//! ```text
//!   defer ─▶ waiting (by priority, then the oldest) ─▶ admitted: room is reserved, what is present is pinned
//!                 ▲                                       │ what is absent is loaded
//!   consider ─────┘ on each load, write, end, wait        ▼
//!                                                     granted: queued (a task), woken (a guard)
//! ```
//! 1. Only the first of those that wait is admitted: nobody is overtaken for ever by smaller ones.
//! 2. What is admitted needs nothing more to run: it has its pins, and the bytes of its loads are reserved.
//! 3. If the first cannot be admitted, somebody will look again: a load or write is under way, or what has pins runs and
//!    will end or wait ([`Store::pause`]). Else it is admitted over the budget, or gets the error that stands in its way.
//! 4. Nothing of the user's is run or dropped under the lock, and no chunk is given up: all that is in [`Settlement`].
//!
//! Locks: the ledger, then one task's state or one chunk's queue; never the other way round.

use super::objects::Object;
use super::residence::{Leaving, Residence};
use super::spill::SMALL;
use super::{Store, jobs};
use crate::chunk::{AnyChunk, CorePtr};
use crate::error::Error;
use crate::pool::{Pool, local};
use crate::task::{self, RawTask};
use dagger_core::record::Move;
use dagger_core::{Eviction, Resident};
use parking_lot::Mutex;
use slab::Slab;
use smallvec::SmallVec;
use std::any::Any;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::{Duration, Instant};

/// So many loads, and so many writes, are under way at once.
const JOBS_MAX: usize = 4;
/// A store that has refused to write is asked again after this.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// When there is nobody who could leave, and nobody waits for that, it is looked again after this.
const BARREN_FOR: Duration = Duration::from_millis(5);
/// A choice that has found too few is not made again before.
const CHOSEN_FOR: Duration = Duration::from_millis(1);
/// Victims are chosen by the dozen: each choice looks at all that is in memory.
const CHOSEN: u64 = 32;

/// Another copy of a value, from which it can come back.
#[derive(Clone)]
pub(super) enum Source {
    /// Nowhere but in memory.
    Nothing,
    /// Written down.
    Object(Arc<Object>),
    /// In a file of the user's, or to be computed.
    Recipe(Arc<dyn Recipe>),
}

/// How to make a value that is not in memory.
pub(super) trait Recipe: Send + Sync {
    /// # Safety
    /// `room` is that of a value of the type that this was made for, and the caller's.
    unsafe fn make(&self, room: *mut u8) -> std::io::Result<()>;
    /// What an error names.
    fn path(&self) -> String;
}

/// What the ledger knows of one chunk.
pub(super) struct Entry {
    pub(super) residence: Arc<Residence>,
    pub(super) copy: Source,
    activity: Activity,
}

enum Activity {
    Still,
    /// Being loaded, for these.
    Loading(SmallVec<[usize; 2]>),
    /// Being written; it is to leave then.
    Writing {
        leaves: bool,
    },
}

/// Who asks for values in memory.
#[derive(Clone)]
pub(super) enum Who {
    /// A task whose queue entry the ledger has, and its pool.
    Task(RawTask, Arc<Pool>),
    Guard(Arc<GuardPin>),
    /// A chunk that a task of another runtime needs: its store looks again then.
    Foreign(Arc<dyn AnyChunk>, Arc<Residence>, Weak<Store>),
    /// A task that was let go while these were on their way.
    Nobody(Vec<Arc<dyn AnyChunk>>),
}

/// Larger priority first, then the older; the last makes it unique.
pub(super) type Turn = (Reverse<i32>, u64, u64);

/// One that is admitted, and whose loads are under way.
struct Admitted {
    who: Who,
    needs: Vec<Need>,
    missing: usize,
    memory: u64,
    failed: Option<Error>,
}

/// A chunk that somebody needs.
struct Need {
    residence: Arc<Residence>,
    writes: bool,
    pinned: bool,
}

/// A guard that waits for its chunk to be in memory.
pub(crate) struct GuardPin {
    pub(super) residence: Arc<Residence>,
    pub(super) writes: bool,
    pub(super) wait: Mutex<GuardWaiting>,
    /// A chunk that is being loaded is not dropped.
    pub(super) _owner: Arc<dyn AnyChunk>,
}

#[derive(Default)]
pub(super) struct GuardWaiting {
    /// It has its pin.
    pub(super) granted: bool,
    pub(super) failed: Option<Error>,
    pub(super) abandoned: bool,
    pub(super) waker: Option<Waker>,
}

/// See the module.
pub(super) struct Ledger {
    pub(super) entries: Slab<Entry>,
    waiting: BTreeMap<Turn, Who>,
    /// The runtime ends: its tasks wait for nothing.
    is_closed: bool,
    admitted: Slab<Admitted>,
    turns: u64,
    loads: usize,
    load_queue: VecDeque<usize>,
    writes: usize,
    /// Bytes being written that are to leave.
    leaving: u64,
    /// For what is being loaded, and what tasks have declared.
    pub(super) reserved: u64,
    /// Who leaves next, with the next use that was known then.
    /// Chunks of other stores that the first who waits has asked for, with what went wrong.
    asked: Vec<(Arc<Residence>, Option<Error>)>,
    /// When there was nobody who could leave.
    barren: Option<Instant>,
    /// When victims were chosen.
    chosen: Option<Instant>,
    victims: VecDeque<(usize, Option<(u64, bool)>)>,
    refused: Option<(Error, Instant)>,
    /// Objects that nobody needs any more.
    pub(super) doomed: Vec<Arc<Object>>,
    pub(super) deleting: bool,
    pub(super) spilled: u64,
    /// Counts of what is gone.
    pub(super) past_hits: u64,
    pub(super) over_budget: u64,
    pub(super) evictions: u64,
}

/// A chunk of another store, and the store that needs it.
type Ask = (Arc<dyn AnyChunk>, Arc<Residence>, Weak<Store>);

/// What is done once the lock is given back.
#[derive(Default)]
pub(super) struct Settlement {
    queued: Vec<(RawTask, Arc<Pool>)>,
    failed: Vec<(RawTask, Arc<Pool>, Error)>,
    /// Entries of tasks that were run or are in a queue without them.
    stale: Vec<(RawTask, Arc<Pool>)>,
    /// Who waits no more: what they keep may end with them.
    over: Vec<Who>,
    wakers: Vec<Waker>,
    values: Vec<Box<dyn Any + Send>>,
    asked: Vec<(Arc<Residence>, Option<Error>)>,
    copies: Vec<Source>,
    pub(super) owners: Vec<Arc<dyn AnyChunk>>,
    loads: Vec<jobs::Load>,
    writes: Vec<jobs::Write>,
    others: Vec<Arc<Store>>,
    /// Chunks of other stores that are to come back.
    asks: Vec<Ask>,
    /// What others have asked for.
    answers: Vec<(Arc<Store>, Arc<Residence>, Option<Error>)>,
    deletes: bool,
}

impl Settlement {
    /// The entry of a task goes where it belongs, if the task still needs one. Under no lock of the task.
    fn queue(&mut self, task: RawTask, pool: Arc<Pool>) {
        match task.state.load().waits_to_start() {
            true => self.queued.push((task, pool)),
            false => self.stale.push((task, pool)),
        }
    }

    /// Does it.
    pub(super) fn settle(self, store: &Arc<Store>) {
        // Values first: what comes next may need their memory.
        for value in self.values {
            crate::error::quietly(|| drop(value));
        }
        crate::error::quietly(|| drop(self.copies));
        for owner in self.owners {
            crate::error::quietly(|| drop(owner));
        }
        for load in self.loads {
            jobs::start_load(store, load);
        }
        for write in self.writes {
            jobs::start_write(store, write);
        }
        if self.deletes {
            jobs::start_deletes(store);
        }
        local::with(|local| {
            for (task, pool, error) in self.failed {
                task::end(task, |_| error);
                pool.enqueue(task, local);
            }
            for (task, pool) in self.queued {
                pool.enqueue(task, local);
            }
        });
        crate::error::quietly(|| drop((self.over, self.asked)));
        for (task, _pool) in self.stale {
            task.release_holder();
        }
        for waker in self.wakers {
            crate::error::quietly(|| waker.wake());
        }
        for (owner, residence, store) in self.asks {
            let who = Who::Foreign(owner, residence.clone(), store);
            residence.store.change(|ledger, _, settlement| ledger.wait(i32::MAX, 0, who, settlement));
        }
        for (store, residence, failed) in self.answers {
            store.change(|ledger, _, _| ledger.answered(&residence, failed));
        }
        for other in self.others {
            other.consider();
        }
    }
}

/// What became of a look at one that waits.
enum Verdict {
    /// It waits no more.
    Over,
    Waits,
}

impl Ledger {
    pub(super) fn new() -> Self {
        Ledger {
            entries: Slab::new(),
            waiting: BTreeMap::new(),
            is_closed: false,
            admitted: Slab::new(),
            turns: 0,
            loads: 0,
            load_queue: VecDeque::new(),
            writes: 0,
            leaving: 0,
            reserved: 0,
            asked: Vec::new(),
            barren: None,
            chosen: None,
            victims: VecDeque::new(),
            refused: None,
            doomed: Vec::new(),
            deleting: false,
            spilled: 0,
            past_hits: 0,
            over_budget: 0,
            evictions: 0,
        }
    }

    /// How many wait for memory.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Values are on their way out.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Bytes of values in use.
    pub(super) fn pinned(&self) -> u64 {
        let residences = self.entries.iter().map(|(_, entry)| &entry.residence);
        residences.filter(|residence| residence.is_pinned()).map(|residence| residence.bytes()).sum()
    }

    pub(super) fn add(&mut self, residence: &Arc<Residence>, copy: Source) -> usize {
        self.entries.insert(Entry { residence: residence.clone(), copy, activity: Activity::Still })
    }

    /// Takes out what is known of a chunk that is dropped. What it gives is to be dropped without the lock.
    #[must_use]
    pub(super) fn remove(&mut self, key: usize) -> Option<Source> {
        let entry = self.entries.try_remove(key)?;
        self.past_hits += entry.residence.hits();
        self.forget_copy(entry.copy)
    }

    /// Nobody needs this copy any more. What it gives is a user's, to be dropped without the lock.
    #[must_use]
    fn forget_copy(&mut self, copy: Source) -> Option<Source> {
        match copy {
            Source::Object(object) => {
                self.spilled -= object.stored_bytes();
                self.doomed.push(object);
                None
            }
            Source::Recipe(_) => Some(copy),
            Source::Nothing => None,
        }
    }

    /// There is no value any more, and no copy is needed. What it gives is to be dropped without the lock.
    #[must_use]
    pub(super) fn taken(&mut self, key: usize) -> Option<Source> {
        let entry = self.entries.get_mut(key)?;
        let copy = std::mem::replace(&mut entry.copy, Source::Nothing);
        self.forget_copy(copy)
    }

    pub(super) fn wait(&mut self, priority: i32, order: u64, who: Who, settlement: &mut Settlement) {
        match who {
            Who::Task(task, pool) if self.is_closed => settlement.queue(task, pool),
            who => {
                self.turns += 1;
                self.waiting.insert((Reverse(priority), order, self.turns), who);
            }
        }
    }

    /// All that wait are let go as they are: the runtime ends.
    pub(super) fn let_go(&mut self, settlement: &mut Settlement) {
        self.is_closed = true;
        for (_, admitted) in &mut self.admitted {
            self.reserved -= admitted.let_go(settlement);
        }
        let waiting = std::mem::take(&mut self.waiting);
        for (turn, who) in waiting {
            match who {
                Who::Task(task, pool) => settlement.queue(task, pool),
                other => _ = self.waiting.insert(turn, other),
            }
        }
    }

    /// One that waits is let go: it was ended.
    pub(super) fn let_go_one(&mut self, priority: i32, order: u64, settlement: &mut Settlement) {
        let turns = (Reverse(priority), order, 0)..=(Reverse(priority), order, u64::MAX);
        let turn = match self.waiting.range(turns).next() {
            Some((&turn, Who::Task(..))) => turn,
            _ => {
                let is_it = |admitted: &Admitted| matches!(&admitted.who, Who::Task(task, _) if task.id.get() == order);
                if let Some((_, admitted)) = self.admitted.iter_mut().find(|(_, admitted)| is_it(admitted)) {
                    self.reserved -= admitted.let_go(settlement);
                }
                return;
            }
        };
        if let Some(Who::Task(task, pool)) = self.waiting.remove(&turn) {
            settlement.queue(task, pool);
        }
    }

    /// Admits who can be, makes room, and starts what that needs.
    pub(super) fn consider(&mut self, store: &Arc<Store>, settlement: &mut Settlement) {
        // Before the look: who ends a use afterwards sees it, and has it looked at again.
        store.hungry.store(true, SeqCst);
        while let Some((&turn, who)) = self.waiting.first_key_value() {
            let who = who.clone();
            match self.admit(store, &who, settlement) {
                Verdict::Over => {
                    settlement.over.extend(self.waiting.remove(&turn));
                    // Only the first asks other stores.
                    settlement.asked.append(&mut self.asked);
                }
                Verdict::Waits => {
                    settlement.over.push(who);
                    break;
                }
            }
        }
        let used = store.resident.load(SeqCst) + self.reserved;
        let excess = used.saturating_sub(store.limit);
        // What nobody waits for is not looked for all the time.
        let is_barren =
            self.waiting.is_empty() && self.barren.is_some_and(|since| since.elapsed() < BARREN_FOR);
        if excess > 0 && !is_barren {
            self.make_room(store, excess.saturating_sub(self.leaving), 0, &HashSet::new(), settlement);
        }
        self.write_ahead(store, settlement);
        self.start_loads(store, settlement);
        settlement.deletes |= !self.doomed.is_empty() && !self.deleting;
        let mut tasks = self.waiting.iter().filter(|(_, who)| matches!(who, Who::Task(..)));
        store.first.store(tasks.next().map_or(u64::MAX, |(&(_, id, _), _)| id), SeqCst);
        let is_over = |ledger: &Ledger| store.resident.load(SeqCst) + ledger.reserved > store.limit;
        if self.waiting.is_empty() && !is_over(self) {
            store.hungry.store(false, SeqCst);
            // A value that has grown meanwhile may have seen `true`.
            if is_over(self) {
                store.hungry.store(true, SeqCst);
            }
        }
    }

    fn admit(&mut self, store: &Arc<Store>, who: &Who, settlement: &mut Settlement) -> Verdict {
        let Some((mut needs, memory)) = needs_of(who, settlement) else { return Verdict::Over };
        let is_ours = |need: &Need| Arc::ptr_eq(&need.residence.store, store);
        let keys: HashSet<usize> = needs
            .iter()
            .filter(|need| is_ours(need))
            .filter_map(|need| need.residence.key.get().copied())
            .collect();
        let (mut footprint, mut missing) = (memory, memory);
        for entry in keys.iter().filter_map(|&key| self.entries.get(key)) {
            let bytes = entry.residence.bytes();
            footprint += bytes;
            if entry.residence.is_absent() && !matches!(entry.activity, Activity::Loading(_)) {
                missing += bytes;
            }
        }
        if footprint > store.limit
            && let Who::Task(task, pool) = who
        {
            let (root, budget) = (Some(task.info().into()), store.limit);
            settlement.failed.push((*task, pool.clone(), Error::TooLarge { root, bytes: footprint, budget }));
            return Verdict::Over;
        }
        let shortage = |ledger: &Ledger| {
            missing.saturating_sub(store.limit.saturating_sub(store.resident.load(SeqCst) + ledger.reserved))
        };
        if missing > 0 && shortage(self) > 0 {
            // First only what nobody older needs: else those who prefetch would push out what runs next.
            let own = if let Who::Task(task, _) = who { task.id.get() } else { 0 };
            let mut wanted = shortage(self).saturating_sub(self.leaving);
            self.make_room(store, wanted, own, &keys, settlement);
            let comes = |ledger: &Ledger| {
                ledger.leaving > 0 || ledger.loads > 0 || ledger.writes > 0 || !ledger.load_queue.is_empty()
            };
            if shortage(self) > 0 && !comes(self) && store.active.load(SeqCst) <= 0 {
                wanted = shortage(self);
                self.make_room(store, wanted, 0, &keys, settlement);
            }
            if shortage(self) > 0 {
                if comes(self) || store.active.load(SeqCst) > 0 {
                    return Verdict::Waits;
                }
                if let (Some((error, _)), Who::Task(task, pool)) = (&self.refused, who) {
                    let error = error.with_root(task.info().into());
                    self.refused = None;
                    settlement.failed.push((*task, pool.clone(), error));
                    return Verdict::Over;
                }
                self.over_budget += 1;
                tracing::debug!(
                    target: "dagger",
                    needed = missing,
                    "let in over the memory limit: nothing else could go on"
                );
            }
        }
        // All that is present first: if one is being written and cannot be pinned, nothing has begun.
        for index in 0..needs.len() {
            let need = &mut needs[index];
            need.pinned = need.residence.pin(need.writes);
            if need.pinned || is_ours(need) && need.residence.is_absent() {
                continue;
            }
            let other = (!is_ours(need)).then(|| need.residence.clone());
            unpin(&needs);
            // Told when it is written, or back in the other store.
            return match other {
                Some(residence) => self.wait_for_other(store, who, residence, settlement),
                None => Verdict::Waits,
            };
        }
        let mut admitted = Admitted { who: who.clone(), needs, missing: 0, memory, failed: None };
        self.reserved += memory;
        let number = self.admitted.vacant_key();
        let absent: HashSet<usize> = admitted
            .needs
            .iter()
            .filter(|need| !need.pinned)
            .filter_map(|need| need.residence.key.get().copied())
            .collect();
        for key in absent {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            admitted.missing += 1;
            match &mut entry.activity {
                Activity::Loading(waiters) => waiters.push(number),
                activity => {
                    *activity = Activity::Loading(SmallVec::from_slice(&[number]));
                    entry.residence.load();
                    self.reserved += entry.residence.bytes();
                    self.load_queue.push_back(key);
                }
            }
        }
        if admitted.missing == 0 {
            grant(store, admitted, &mut self.reserved, settlement);
        } else {
            self.admitted.insert(admitted);
        }
        Verdict::Over
    }

    /// Somebody needs a chunk of another store, which is not in memory or is being written there.
    fn wait_for_other(
        &mut self,
        store: &Arc<Store>,
        who: &Who,
        residence: Arc<Residence>,
        settlement: &mut Settlement,
    ) -> Verdict {
        residence.tell(store);
        residence.stay();
        // It may have come back, or have been written, before we told.
        if residence.pin(true) {
            residence.unpin(true, false);
            settlement.others.push(store.clone());
            return Verdict::Waits;
        }
        let known = self.asked.iter_mut().find(|(asked, _)| Arc::ptr_eq(asked, &residence));
        match (known.map(|(_, failed)| failed.take()), who) {
            (Some(Some(error)), Who::Task(task, pool)) => {
                settlement.failed.push((*task, pool.clone(), error.with_root(task.info().into())));
                return Verdict::Over;
            }
            (None, _) if residence.is_absent() => {
                if let Some(owner) = residence.chunk.upgrade() {
                    settlement.asks.push((owner, residence.clone(), Arc::downgrade(store)));
                    self.asked.push((residence, None));
                }
            }
            _ => {}
        }
        Verdict::Waits
    }

    /// Another store has brought a chunk back, or cannot.
    pub(super) fn answered(&mut self, residence: &Arc<Residence>, failed: Option<Error>) {
        if let Some((_, known)) = self.asked.iter_mut().find(|(asked, _)| Arc::ptr_eq(asked, residence)) {
            *known = failed;
        }
    }

    /// Makes values leave, or begin to, until `bytes` more are free or will be: values whose next use is by the task `from` or a
    /// later one, as far as that is known.
    fn make_room(
        &mut self,
        store: &Arc<Store>,
        mut bytes: u64,
        from: u64,
        needed: &HashSet<usize>,
        settlement: &mut Settlement,
    ) {
        if self.refused.as_ref().is_some_and(|(_, since)| since.elapsed() > REFUSED_FOR) {
            self.refused = None;
        }
        let mut has_chosen = false;
        while bytes > 0 {
            let Some((key, next_use)) = self.victims.pop_front() else {
                if has_chosen {
                    return;
                }
                self.choose(store, bytes, needed, settlement);
                has_chosen = true;
                continue;
            };
            if needed.contains(&key) {
                continue;
            }
            if next_use.is_some_and(|(next_use, _)| next_use < from) {
                // And so are the uses of all that come after it, unless others have become better victims since.
                if has_chosen || self.chosen.is_some_and(|since| since.elapsed() < CHOSEN_FOR) {
                    self.victims.push_front((key, next_use));
                    return;
                }
                self.victims.clear();
                continue;
            }
            let Some(entry) = self.entries.get(key).filter(|entry| entry.can_leave()) else { continue };
            let residence = entry.residence.clone();
            // Somebody has come to need it since.
            if !has_chosen && self.next_use(store, &residence, settlement) != next_use {
                continue;
            }
            let size = residence.bytes();
            let begun = match residence.leaving() {
                Leaving::Clean => self.evict(store, key, false, settlement),
                Leaving::Dirty => {
                    // Few at a time: more would only wait, and could not be chosen otherwise.
                    if self.writes >= JOBS_MAX {
                        self.victims.push_front((key, next_use));
                        return;
                    }
                    self.refused.is_none() && self.write(store, key, true, settlement)
                }
                Leaving::Not => false,
            };
            if begun {
                bytes = bytes.saturating_sub(size);
            }
        }
    }

    /// When a chunk is used next, as far as the policy wants to know.
    fn next_use(
        &self,
        store: &Store,
        residence: &Residence,
        settlement: &mut Settlement,
    ) -> Option<(u64, bool)> {
        if store.eviction != Eviction::NextUse {
            return None;
        }
        let chunk = residence.chunk.upgrade()?;
        let next_use = chunk.core().next_use();
        settlement.keep(chunk); // It may be the last owner.
        next_use
    }

    /// Chooses who leaves next.
    fn choose(
        &mut self,
        store: &Arc<Store>,
        bytes: u64,
        needed: &HashSet<usize>,
        settlement: &mut Settlement,
    ) {
        let (mut keys, mut residents, mut uses) = (Vec::new(), Vec::new(), Vec::new());
        for (key, entry) in &self.entries {
            let residence = &entry.residence;
            let leaving = residence.leaving();
            if leaving == Leaving::Not || !entry.can_leave() || needed.contains(&key) {
                continue;
            }
            let next_use = self.next_use(store, residence, settlement);
            residents.push(Resident {
                bytes: residence.bytes(),
                next_use: next_use.map(|(task, _)| task),
                last_use: residence.last_use(),
                clean: leaving == Leaving::Clean,
            });
            uses.push(next_use);
            keys.push(key);
        }
        let mean =
            residents.iter().map(|resident| resident.bytes).sum::<u64>() / residents.len().max(1) as u64;
        let bytes = bytes.saturating_add(mean * CHOSEN);
        self.chosen = Some(Instant::now());
        self.barren = residents.is_empty().then(Instant::now);
        let chosen = store.eviction.choose(&residents, bytes).into_iter();
        self.victims = chosen.map(|index| (keys[index], uses[index])).collect();
    }

    /// A clean value leaves; `was_written` just now, to do that.
    fn evict(
        &mut self,
        store: &Arc<Store>,
        key: usize,
        was_written: bool,
        settlement: &mut Settlement,
    ) -> bool {
        let Some(entry) = self.entries.get(key) else { return false };
        let residence = entry.residence.clone();
        let Some(owner) = residence.chunk.upgrade() else { return false };
        let value = CorePtr::of(&owner).evict(&residence);
        let left = value.is_some();
        if left {
            settlement.values.extend(value);
            store.resident.fetch_sub(residence.bytes(), SeqCst);
            store.absent.fetch_add(1, SeqCst);
            self.evictions += 1;
            if !was_written {
                store.note_move(self, &*owner, residence.bytes(), Move::Dropped, Duration::ZERO);
            }
        }
        settlement.owners.push(owner);
        left
    }

    /// A dirty value is written down.
    fn write(&mut self, store: &Store, key: usize, leaves: bool, settlement: &mut Settlement) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let Some(owner) = entry.residence.chunk.upgrade() else { return false };
        let begun = entry.residence.write();
        if begun {
            entry.activity = Activity::Writing { leaves };
            self.writes += 1;
            store.busy.fetch_add(1, SeqCst);
            if leaves {
                self.leaving += entry.residence.bytes();
            }
            owner.core().lend(true);
            settlement.writes.push(jobs::Write { key, residence: entry.residence.clone(), owner });
        } else {
            settlement.owners.push(owner);
        }
        begun
    }

    /// Writes down who would leave next, so that there is room at once when it is needed.
    fn write_ahead(&mut self, store: &Arc<Store>, settlement: &mut Settlement) {
        let used = store.resident.load(SeqCst) + self.reserved;
        if used < store.limit - store.limit / 4 || self.refused.is_some() {
            return;
        }
        let mut ahead = 0;
        let mut at = 0;
        while self.writes < JOBS_MAX && ahead < store.limit / 8 {
            let Some(&(key, next_use)) = self.victims.get(at) else { return };
            at += 1;
            // What is written to again would have to be written down again.
            if next_use.is_some_and(|(_, writes)| writes) {
                continue;
            }
            let Some(entry) = self.entries.get(key).filter(|entry| entry.can_leave()) else { continue };
            ahead += entry.residence.bytes();
            if entry.residence.leaving() == Leaving::Dirty {
                self.write(store, key, false, settlement);
            }
        }
    }

    fn start_loads(&mut self, store: &Store, settlement: &mut Settlement) {
        while self.loads < JOBS_MAX {
            let Some(key) = self.load_queue.pop_front() else { return };
            let Some(entry) = self.entries.get(key) else { continue };
            // Somebody who has a place in its queue waits for it.
            let Some(owner) = entry.residence.chunk.upgrade() else { continue };
            self.loads += 1;
            store.busy.fetch_add(1, SeqCst);
            let (residence, source) = (entry.residence.clone(), entry.copy.clone());
            settlement.loads.push(jobs::Load { key, residence, source, owner });
        }
    }

    /// A value is back, with so many bytes, or is not.
    pub(super) fn loaded(
        &mut self,
        store: &Arc<Store>,
        key: usize,
        owner: &Arc<dyn AnyChunk>,
        result: Result<u64, Error>,
        took: Duration,
        settlement: &mut Settlement,
    ) {
        self.loads -= 1;
        store.busy.fetch_sub(1, SeqCst);
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Activity::Loading(waiters) = std::mem::replace(&mut entry.activity, Activity::Still) else {
            return;
        };
        let residence = entry.residence.clone();
        self.reserved -= residence.bytes();
        let failed = match result {
            Ok(bytes) => {
                residence.set_bytes(bytes);
                store.add_resident(bytes);
                store.absent.fetch_sub(1, SeqCst);
                owner.core().back();
                let how = if matches!(entry.copy, Source::Recipe(_)) { Move::Made } else { Move::Reloaded };
                store.note_move(self, &**owner, bytes, how, took);
                None
            }
            Err(error) => Some(error),
        };
        residence.loaded(failed.is_none());
        settlement.others.extend(residence.listeners());
        for number in waiters {
            let Some(admitted) = self.admitted.get_mut(number) else { continue };
            admitted.missing -= 1;
            match &failed {
                Some(error) => _ = admitted.failed.get_or_insert_with(|| error.clone()),
                None => {
                    for need in
                        admitted.needs.iter_mut().filter(|need| Arc::ptr_eq(&need.residence, &residence))
                    {
                        // Nothing can have begun with it since: we have the lock.
                        need.pinned = need.residence.pin(need.writes);
                    }
                }
            }
            if admitted.missing == 0 {
                let admitted = self.admitted.remove(number);
                grant(store, admitted, &mut self.reserved, settlement);
            }
        }
    }

    /// A value is written down, or is not.
    pub(super) fn written(
        &mut self,
        store: &Arc<Store>,
        key: usize,
        owner: &Arc<dyn AnyChunk>,
        result: Result<Object, Error>,
        took: Duration,
        settlement: &mut Settlement,
    ) {
        self.writes -= 1;
        store.busy.fetch_sub(1, SeqCst);
        owner.core().lend(false);
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Activity::Writing { leaves } = std::mem::replace(&mut entry.activity, Activity::Still) else {
            return;
        };
        let residence = entry.residence.clone();
        if leaves {
            self.leaving -= residence.bytes();
        }
        residence.written(result.is_ok());
        match result {
            Ok(object) => {
                self.spilled += object.stored_bytes();
                store.note_move(self, &**owner, residence.bytes(), Move::Spilled, took);
                let Some(entry) = self.entries.get_mut(key) else { return };
                let before = std::mem::replace(&mut entry.copy, Source::Object(Arc::new(object)));
                settlement.copies.extend(self.forget_copy(before));
                if leaves {
                    self.evict(store, key, true, settlement);
                }
            }
            Err(error) => {
                tracing::warn!(target: "dagger", "{error}");
                self.refused = Some((error, Instant::now()));
            }
        }
        settlement.others.extend(residence.listeners());
    }
}

impl Admitted {
    /// Lets a task go before all that it needs is there. Gives the memory that it had declared.
    fn let_go(&mut self, settlement: &mut Settlement) -> u64 {
        let Who::Task(task, pool) = &self.who else { return 0 };
        settlement.queue(*task, pool.clone());
        // What is on its way is not dropped before it is there. The task has places at them until it is queued.
        let owners = self.needs.iter().filter_map(|need| need.residence.chunk.upgrade()).collect();
        settlement.over.push(std::mem::replace(&mut self.who, Who::Nobody(owners)));
        std::mem::take(&mut self.memory)
    }
}

impl Entry {
    fn can_leave(&self) -> bool {
        let is_made_again = matches!(self.copy, Source::Recipe(_)) && !self.residence.is_dirty();
        (is_made_again || self.residence.of().moves.is_some())
            && matches!(self.activity, Activity::Still)
            && self.residence.bytes() >= SMALL as u64
    }
}

fn unpin(needs: &[Need]) {
    needs.iter().filter(|need| need.pinned).for_each(|need| need.residence.unpin(need.writes, false));
}

/// What somebody needs, and the memory that it has declared; `None` if it waits no more.
fn needs_of(who: &Who, settlement: &mut Settlement) -> Option<(Vec<Need>, u64)> {
    let need =
        |residence: &Arc<Residence>, writes| Need { residence: residence.clone(), writes, pinned: false };
    match who {
        Who::Task(task, pool) => {
            let lock = task.state.lock();
            if !lock.can_start_first() {
                drop(lock);
                settlement.queue(*task, pool.clone());
                return None;
            }
            let accesses = task.accesses(&lock).iter();
            let needs = accesses.filter_map(|held| Some(need(held.core().residence()?, held.mode.writes())));
            Some((needs.collect(), task.declared_memory()))
        }
        Who::Guard(guard) if guard.wait.lock().abandoned => None,
        Who::Guard(guard) => Some((vec![need(&guard.residence, guard.writes)], 0)),
        Who::Foreign(_, residence, _) => Some((vec![need(residence, false)], 0)),
        Who::Nobody(_) => None,
    }
}

/// One who was admitted has all that it needs, or will never have.
fn grant(store: &Arc<Store>, admitted: Admitted, reserved: &mut u64, settlement: &mut Settlement) {
    let Admitted { who, needs, memory, failed, .. } = admitted;
    let complete = failed.is_none() && needs.iter().all(|need| need.pinned);
    match who {
        Who::Task(task, pool) => {
            let lock = task.state.lock();
            let starts = lock.can_start_first();
            if starts && complete {
                store.active.fetch_add(1, SeqCst);
                task.set_admitted(&lock);
                for need in &needs {
                    need.residence.note_use(task.id.get());
                }
                drop(lock);
                return settlement.queued.push((task, pool));
            }
            drop(lock);
            unpin(&needs);
            *reserved -= memory;
            match failed {
                Some(error) if starts => {
                    settlement.failed.push((task, pool, error.with_root(task.info().into())));
                }
                // Ended meanwhile, or run in place.
                _ => settlement.queue(task, pool),
            }
        }
        Who::Guard(guard) => {
            let mut waiting = guard.wait.lock();
            if waiting.abandoned || !complete {
                unpin(&needs);
            }
            waiting.granted = complete;
            waiting.failed = failed;
            settlement.wakers.extend(waiting.waker.take());
            drop(waiting);
            settlement.over.push(Who::Guard(guard));
        }
        Who::Nobody(owners) => {
            unpin(&needs);
            settlement.owners.extend(owners);
        }
        Who::Foreign(owner, residence, listener) => {
            unpin(&needs);
            settlement.owners.push(owner);
            settlement.others.extend(residence.listeners());
            settlement.answers.extend(listener.upgrade().map(|listener| (listener, residence, failed)));
        }
    }
}
