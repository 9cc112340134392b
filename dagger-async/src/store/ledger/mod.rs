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
//! Who asks is in `request.rs`, who leaves in `room.rs`, what is done without the lock in `settlement.rs`.
//!
//! Locks: the ledger, then one task's state or one chunk's queue; never the other way round.

mod request;
mod room;
mod settlement;

pub(crate) use request::GuardPin;
pub(super) use request::{GuardWaiting, Who};
pub(super) use settlement::Settlement;

use super::objects::Object;
use super::residence::Residence;
use super::spill::SMALL;
use super::{Store, jobs};
use crate::chunk::AnyChunk;
use crate::error::Error;
use dagger_core::record::Move;
use request::{Admitted, Need, grant, needs_of, unpin};
use slab::Slab;
use smallvec::SmallVec;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// So many loads, and so many writes, are under way at once.
const JOBS_MAX: usize = 4;
/// When there is nobody who could leave, and nobody waits for that, it is looked again after this.
const BARREN_FOR: Duration = Duration::from_millis(5);

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

/// One that was chosen to leave, with what was known of it then.
struct Victim {
    key: usize,
    /// The task, and whether it writes.
    next_use: Option<(u64, bool)>,
    last_use: u64,
}

enum Activity {
    Still,
    /// Being loaded, for these.
    Loading(SmallVec<[usize; 2]>),
    /// Being written. It is to leave then, unless it was used since this task did.
    Writing {
        leaves: Option<u64>,
    },
}

/// Larger priority first, then the older; the last makes it unique.
pub(super) type Turn = (Reverse<i32>, u64, u64);

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
    /// Chunks of other stores that the first who waits has asked for, with what went wrong.
    asked: Vec<(Arc<Residence>, Option<Error>)>,
    /// When there was nobody who could leave.
    barren: Option<Instant>,
    /// When victims were chosen.
    chosen: Option<Instant>,
    /// Who leaves next.
    victims: VecDeque<Victim>,
    /// The store has refused to write.
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

    /// Values are on their way out, or will be able to leave.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving > 0 || self.writes > 0
    }

    /// Some value is in use.
    fn has_pins(&self) -> bool {
        self.entries.iter().any(|(_, entry)| entry.residence.word.is_pinned())
    }

    /// Bytes of values in use.
    pub(super) fn pinned(&self) -> u64 {
        let residences = self.entries.iter().map(|(_, entry)| &entry.residence);
        residences.filter(|residence| residence.word.is_pinned()).map(|residence| residence.bytes()).sum()
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
        // What nobody waits for is not looked for all the time, as long as there is a use whose end looks again.
        let is_barren = self.waiting.is_empty()
            && self.barren.is_some_and(|since| since.elapsed() < BARREN_FOR)
            && self.has_pins();
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
            if entry.residence.word.is_absent() && !matches!(entry.activity, Activity::Loading(_)) {
                missing += bytes;
            }
        }
        if footprint > store.limit
            && let Who::Task(task, pool) = who
        {
            let (root, budget) = (Some(task.info().into()), store.limit);
            settlement.fail(*task, pool.clone(), Error::TooLarge { root, bytes: footprint, budget });
            return Verdict::Over;
        }
        let mut is_let_in = false;
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
                    settlement.fail(*task, pool.clone(), error.with_root(task.info().into()));
                    self.forget_refusal(settlement);
                    return Verdict::Over;
                }
                is_let_in = true;
            }
        }
        // All that is present first: if one is being written and cannot be pinned, nothing has begun.
        for index in 0..needs.len() {
            let need = &mut needs[index];
            need.pinned = need.residence.word.pin(need.writes);
            if need.pinned || is_ours(need) && need.residence.word.is_absent() {
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
        if is_let_in {
            self.over_budget += 1;
            settlement.let_in = Some(missing);
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
                    entry.residence.word.load();
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
        residence.word.stay();
        // It may have come back, or have been written, before we told.
        if residence.word.pin(true) {
            residence.word.unpin(true, false);
            settlement.others.push(store.clone());
            return Verdict::Waits;
        }
        let known = self.asked.iter_mut().find(|(asked, _)| Arc::ptr_eq(asked, &residence));
        match (known.map(|(_, failed)| failed.take()), who) {
            (Some(Some(error)), Who::Task(task, pool)) => {
                settlement.fail(*task, pool.clone(), error.with_root(task.info().into()));
                settlement.errors.push(error);
                return Verdict::Over;
            }
            (None, _) if residence.word.is_absent() => {
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
    pub(super) fn answered(
        &mut self,
        residence: &Arc<Residence>,
        failed: Option<Error>,
        settlement: &mut Settlement,
    ) {
        match self.asked.iter_mut().find(|(asked, _)| Arc::ptr_eq(asked, residence)) {
            Some((_, known)) => settlement.errors.extend(std::mem::replace(known, failed)),
            None => settlement.errors.extend(failed),
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
        residence.word.loaded(failed.is_none());
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
                        need.pinned = need.residence.word.pin(need.writes);
                    }
                }
            }
            if admitted.missing == 0 {
                let admitted = self.admitted.remove(number);
                grant(store, admitted, &mut self.reserved, settlement);
            }
        }
        settlement.errors.extend(failed);
    }

    fn forget_refusal(&mut self, settlement: &mut Settlement) {
        settlement.errors.extend(self.refused.take().map(|(error, _)| error));
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
        if leaves.is_some() {
            self.leaving -= residence.bytes();
        }
        self.barren = None; // It can leave again.
        residence.word.written(result.is_ok());
        match result {
            Ok(object) => {
                self.spilled += object.stored_bytes();
                store.note_move(self, &**owner, residence.bytes(), Move::Spilled, took);
                let Some(entry) = self.entries.get_mut(key) else { return };
                let before = std::mem::replace(&mut entry.copy, Source::Object(Arc::new(object)));
                settlement.copies.extend(self.forget_copy(before));
                if leaves == Some(residence.last_use()) {
                    self.evict(store, key, true, settlement);
                }
            }
            Err(error) => {
                settlement.refused = Some(error.clone());
                self.forget_refusal(settlement);
                self.refused = Some((error, Instant::now()));
            }
        }
        settlement.others.extend(residence.listeners());
    }
}

impl Entry {
    /// It is being written, stays then, and could leave, as nobody needs it.
    fn is_written_ahead(&self) -> bool {
        matches!(self.activity, Activity::Writing { leaves: None })
            && self.residence.word.may_leave_when_written()
    }

    fn can_leave(&self) -> bool {
        let is_made_again = matches!(self.copy, Source::Recipe(_)) && !self.residence.word.is_dirty();
        (is_made_again || self.residence.of().moves.is_some())
            && matches!(self.activity, Activity::Still)
            && self.residence.bytes() >= SMALL as u64
    }
}
