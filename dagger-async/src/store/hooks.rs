//! Where tasks, guards and chunks meet the store. Without the feature `store` those of `store_absent.rs` stand in.
//!
//! 1. A task is admitted before its first start, by its worker if all is in memory, else by the ledger; `ADMITTED` says so.
//! 2. Each of its accesses that has a residence then has a pin, until the access is released.

use super::Store;
use super::ledger::{GuardPin, GuardWaiting, Recipe, Source, Who};
use super::residence::{HUGE, Residence};
use super::spill::{SMALL, known};
use crate::chunk::{self, CorePtr, Held, Outcome};
use crate::error::Error;
use crate::pool::{Pool, local};
use crate::task::{self, Locked, RawTask};
use parking_lot::Mutex;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};

/// By how many ids a task may be younger than the first that waits for memory, and start before it.
const OVERTAKING_MAX: u64 = 4096;

/// Where a chunk keeps its residence.
#[derive(Default)]
pub(crate) struct Slot {
    residence: OnceLock<Arc<Residence>>,
    /// It will never have one.
    is_plain: AtomicBool,
}

impl Slot {
    #[inline]
    pub(crate) fn get(&self) -> Option<&Arc<Residence>> {
        self.residence.get()
    }

    /// False if it has one.
    pub(crate) fn set(&self, residence: &Arc<Residence>) -> bool {
        self.residence.set(residence.clone()).is_ok()
    }

    pub(crate) fn take(&mut self) -> Option<Arc<Residence>> {
        self.residence.take()
    }
}

/// Its value may leave memory while nobody has a pin.
#[inline]
pub(crate) fn is_managed(chunk: CorePtr) -> bool {
    chunk.slot().get().is_some()
}

/// A chunk is accessed by a task or guard of a runtime: it is counted there from now on.
#[inline]
pub(crate) fn bind<T: Send + Sync + 'static>(chunk: CorePtr, pool: &Pool) {
    match chunk.slot().get() {
        Some(residence) if Arc::ptr_eq(&residence.store, &pool.store) => {}
        Some(residence) => bind_foreign(residence, pool),
        None if chunk.slot().is_plain.load(Relaxed) => {}
        None => bind_first::<T>(chunk, pool),
    }
}

/// As [`bind`], for the current runtime, if there is one.
pub(crate) fn bind_here<T: Send + Sync + 'static>(chunk: CorePtr) {
    local::with(|local| {
        if let Some(pool) = local.pool() {
            bind::<T>(chunk, pool);
        }
    });
}

#[cold]
fn bind_first<T: Send + Sync + 'static>(chunk: CorePtr, pool: &Pool) {
    // Without a drop it has nothing beside itself. Of a value that is still to come, the type may come to be known with it.
    let is_small = size_of::<T>() < SMALL
        && (!std::mem::needs_drop::<T>() || known::<T>().is_unknown && !chunk.awaits_value());
    if is_small {
        return chunk.slot().is_plain.store(true, Relaxed); // Not worth counting.
    }
    let owner = chunk.owner();
    let store = &pool.store;
    let residence = Arc::new(Residence::new(store.clone(), known::<T>, Arc::downgrade(&owner), true, 0));
    let key = store.ledger.lock().add(&residence, Source::Nothing);
    let _ = residence.key.set(key);
    // `residence.rs`: nobody has a place in its queue.
    match chunk.move_in(&residence) {
        true => {
            if store.is_over() {
                store.hungry.store(true, SeqCst);
                store.consider();
                store.wait_for_room();
            }
        }
        false => _ = store.ledger.lock().remove(key), // No recipe.
    }
}

/// Gives a new chunk to a store, whose value is made or read when it is needed.
pub(super) fn bind_absent<T: Send + Sync + 'static>(chunk: CorePtr, bytes: u64, recipe: Arc<dyn Recipe>) {
    local::with(|local| {
        let pool = local.pool().unwrap_or_else(|| crate::runtime::default_pool());
        let (store, weak) = (pool.store.clone(), Arc::downgrade(&chunk.owner()));
        let residence = Arc::new(Residence::new(store, known::<T>, weak, false, bytes.min(HUGE)));
        pool.store.absent.fetch_add(1, SeqCst);
        let key = pool.store.ledger.lock().add(&residence, Source::Recipe(recipe));
        let _ = residence.key.set(key);
        chunk.move_in_absent(&residence);
    });
}

/// A task of another runtime needs it: it stays in memory from now on, so that two stores never wait for each other.
#[cold]
fn bind_foreign(residence: &Arc<Residence>, pool: &Pool) {
    residence.tell(&pool.store);
    residence.word.stay();
}

/// The chunk is dropped: nothing is left of it.
pub(crate) fn dropped(residence: Option<Arc<Residence>>, was_here: bool) {
    let Some(residence) = residence else { return };
    let Some(&key) = residence.key.get() else { return };
    let store = &residence.store;
    if was_here {
        store.resident.fetch_sub(residence.bytes(), SeqCst);
    }
    if residence.word.is_absent() {
        store.absent.fetch_sub(1, SeqCst);
    }
    let (copy, has_to_delete) = {
        let mut ledger = store.ledger.lock();
        let copy = ledger.remove(key);
        (copy, !ledger.doomed.is_empty() && !ledger.deleting)
    };
    crate::error::quietly(|| drop(copy));
    if has_to_delete || store.hungry.load(SeqCst) {
        store.consider();
    }
}

/// The value was moved out of its chunk, by somebody who has a pin.
pub(crate) fn taken(chunk: CorePtr) {
    if let Some(residence) = chunk.slot().get() {
        residence.store.resident.fetch_sub(residence.set_bytes(0), SeqCst);
        if let Some(&key) = residence.key.get() {
            let copy = residence.store.ledger.lock().taken(key);
            crate::error::quietly(|| drop(copy));
        }
    }
}

/// The task has to be looked at before its first start.
#[inline]
pub(crate) fn is_limited(task: RawTask) -> bool {
    task.may_need_admission()
}

/// Admits a task whose chunks are all in memory. Under its lock.
pub(crate) fn admit(task: RawTask, lock: &Locked<'_>) -> bool {
    if task.declared_memory() != 0 {
        return false;
    }
    let store = store_of(task);
    let accesses = task.accesses(lock);
    let mut pinned = false;
    let mut bytes = 0;
    let mut before: *const Residence = std::ptr::null();
    for (index, held) in accesses.iter().enumerate() {
        let Some(residence) = held.core().residence() else { continue };
        pinned = true;
        if !residence.word.pin(held.mode.writes()) {
            unpin(&accesses[..index]);
            return false;
        }
        if !std::ptr::eq(before, Arc::as_ptr(residence)) {
            before = Arc::as_ptr(residence);
            bytes += residence.bytes();
        }
    }
    if !pinned {
        return true;
    }
    // Whoever is much younger than the first that waits does not overtake it: that one may wait for what these keep in use.
    let is_too_young = task.id.get() > store.first.load(Relaxed).saturating_add(OVERTAKING_MAX);
    if bytes > store.limit || is_too_young {
        unpin(accesses);
        return false; // The ledger says what becomes of it.
    }
    for residence in accesses.iter().filter_map(|held| held.core().residence()) {
        residence.note_use(task.id.get());
    }
    store.active.fetch_add(1, SeqCst);
    task.set_admitted(lock);
    true
}

fn unpin(accesses: &[Held]) {
    for held in accesses {
        if let Some(residence) = held.core().residence() {
            residence.word.unpin(held.mode.writes(), false);
        }
    }
}

fn turn_of(task: RawTask) -> (i32, u64) {
    (task.spec.as_deref().map_or(0, |spec| spec.placement.priority), task.id.get())
}

fn store_of<'a>(task: RawTask) -> &'a Arc<Store> {
    // SAFETY: `cell.rs`, invariant 5: callers own the body, or have the lock of a task that is not retired.
    unsafe { &(*task.pool).store }
}

/// Leaves a queued task that cannot start yet to the ledger.
#[cold]
pub(crate) fn defer(task: RawTask) {
    // SAFETY: `cell.rs`, invariant 5: the caller has the entry of a task that has not started.
    let pool = unsafe { &*task.pool }.keep();
    let store = pool.store.clone();
    // What cannot run anyway makes nobody leave memory.
    if let Some(cause) = known_poison(task) {
        let error = cause.passed_to(|| task.info());
        crate::error::quietly(|| drop(cause));
        return store.change(|_, _, settlement| settlement.fail(task, pool, error));
    }
    store.misses.fetch_add(1, Relaxed);
    let (priority, order) = turn_of(task);
    store.change(|ledger, _, settlement| ledger.wait(priority, order, Who::Task(task, pool), settlement));
}

fn known_poison(task: RawTask) -> Option<Arc<Error>> {
    let lock = task.state.lock();
    if !lock.can_start_first() {
        return None;
    }
    task.accesses(&lock).iter().find_map(Held::known_poison)
}

/// Leaves a task that has just become ready to the ledger if it needs what is not in memory: that is loaded while others run.
#[inline]
pub(crate) fn defer_if_absent(task: RawTask) -> bool {
    // SAFETY: `cell.rs`, invariant 5: the caller has brought its last input.
    let nothing_is_away = || unsafe { &*task.pool }.store.absent.load(Relaxed) == 0;
    if !task.may_need_admission() || nothing_is_away() || !needs_absent(task) {
        return false;
    }
    defer(task);
    true
}

fn needs_absent(task: RawTask) -> bool {
    let lock = task.state.lock();
    let mut residences = task.accesses(&lock).iter().filter_map(|held| held.core().residence());
    residences.any(|residence| residence.word.is_absent())
}

/// The accesses of an admitted task whose body is gone give their pins back.
///
/// # Safety
/// The caller has set `GONE`, and takes them afterwards.
pub(crate) unsafe fn leave_all(task: RawTask, outcome: Outcome<'_>) {
    // SAFETY: the caller's promise.
    for held in unsafe { task.gone_accesses() } {
        leave(held, !matches!(outcome, Outcome::Void), outcome);
    }
}

/// An access gives its pin back before its place; `used` if it may have been written to.
fn leave(held: &Held, used: bool, outcome: Outcome<'_>) {
    let Some(residence) = held.core().residence() else { return };
    let writes = held.mode.writes();
    let wrote = writes && used;
    if held.fills() && matches!(outcome, Outcome::Wrote) {
        held.has_filled();
    }
    // Parts of a value may be written by others at this moment: only a write of the whole is measured.
    if wrote
        && held.is_whole()
        && let Some(value) = held.value_to_measure()
    {
        // SAFETY: the access is to the whole, to write it, and has not been released; there is a value.
        let bytes = unsafe { residence.measure(value) };
        let store = &residence.store;
        residence.count(bytes);
        if store.is_over() {
            store.hungry.store(true, SeqCst);
        }
    }
    residence.word.unpin(writes, wrote);
}

/// All accesses of an admitted task are released, or are about to be.
pub(crate) fn left(task: RawTask) {
    let store = store_of(task);
    if task.set_active(false) {
        store.active.fetch_sub(1, SeqCst);
    }
    let memory = task.declared_memory();
    if memory != 0 {
        store.ledger.lock().reserved -= memory;
    }
    store.consider_if_hungry();
}

/// An admitted body is suspended, or blocks its thread: what it waits for may need room.
pub(crate) fn pause(task: RawTask) {
    if task.is_admitted() && task.set_active(false) {
        let store = store_of(task);
        store.active.fetch_sub(1, SeqCst);
        store.consider_if_hungry();
    }
}

/// It goes on.
pub(crate) fn resume(task: RawTask) {
    if task.is_admitted() && !task.set_active(true) {
        store_of(task).active.fetch_add(1, SeqCst);
    }
}

/// A queued task was ended: if it waits in the ledger, for room or for its loads, it need not wait any more.
pub(crate) fn ended(task: RawTask, pool: &Pool) {
    if task.may_need_admission() && (pool.store.hungry.load(SeqCst) || is_busy(pool)) {
        let (priority, order) = turn_of(task);
        pool.store.change(|ledger, _, settlement| ledger.let_go_one(priority, order, settlement));
    }
}

/// The runtime ends: its tasks wait for no room any more.
pub(crate) fn close(pool: &Pool) {
    pool.store.change(|ledger, _, settlement| ledger.let_go(settlement));
}

/// Ends when the chunk of a guard whose turn has come is in memory, and keeps it there.
pub(crate) fn poll_pin(
    held: &mut Held,
    recovers: bool,
    request: &mut Option<Arc<GuardPin>>,
    waker: &Waker,
) -> Poll<Result<(), Error>> {
    if held.is_pinned() {
        return Poll::Ready(Ok(()));
    }
    let Some(residence) = held.core().residence().cloned() else { return Poll::Ready(Ok(())) };
    if let Some(pin) = request {
        let mut waiting = pin.wait.lock();
        if waiting.granted {
            note_use_by_guard(&pin.residence);
            held.set_pinned(true);
        } else if let Some(error) = waiting.failed.take() {
            drop(waiting);
            *request = None;
            return Poll::Ready(Err(error));
        } else {
            let old = waiting.waker.replace(task::clone_to_leave(waker));
            drop(waiting);
            drop(old);
            return Poll::Pending;
        }
        drop(waiting);
        *request = None;
        return Poll::Ready(Ok(()));
    }
    let writes = held.mode.writes();
    if residence.word.pin(writes) {
        note_use_by_guard(&residence);
        held.set_pinned(true);
        return Poll::Ready(Ok(()));
    }
    if let Some(cause) = held.known_poison().filter(|_| !recovers) {
        return Poll::Ready(Err(chunk::poisoned(&cause)));
    }
    let store = residence.store.clone();
    store.misses.fetch_add(1, Relaxed);
    let waker = Some(task::clone_to_leave(waker));
    let wait = Mutex::new(GuardWaiting { waker, ..GuardWaiting::default() });
    let pin = Arc::new(GuardPin { residence, writes, wait, _owner: held.core_ptr().owner() });
    *request = Some(pin.clone());
    store.change(|ledger, _, settlement| ledger.wait(i32::MAX, 0, Who::Guard(pin), settlement));
    // Granted or not: its waker is called.
    Poll::Pending
}

/// A guard uses the value as late as the task that has it.
fn note_use_by_guard(residence: &Residence) {
    let id = local::with(|local| local.task().map_or(0, |task| task.id.get()));
    residence.note_use(residence.last_use().max(id));
}

/// The guard is not wanted any more.
pub(crate) fn abandon(request: Option<Arc<GuardPin>>) {
    let Some(pin) = request else { return };
    let (granted, waker) = {
        let mut waiting = pin.wait.lock();
        waiting.abandoned = true;
        (waiting.granted, waiting.waker.take())
    };
    crate::error::quietly(|| drop(waker));
    if granted {
        pin.residence.word.unpin(pin.writes, false);
    }
    pin.residence.store.consider_if_hungry();
}

/// A place of a guard is given back.
pub(crate) fn leave_guard(held: &mut Held, used: bool) {
    if held.is_pinned() {
        held.set_pinned(false);
        let store = held.core().residence().map(|residence| residence.store.clone());
        // Whether or not it has poisoned anything: what is there is what the next one sees.
        leave(held, used, Outcome::Void);
        if let Some(store) = store {
            store.consider_if_hungry();
        }
    }
}

/// Values are on their way into memory or out of it: somebody will be able to go on.
pub(crate) fn is_busy(pool: &Pool) -> bool {
    pool.store.busy.load(SeqCst) != 0
}

/// What the stall watch says of those who wait for memory.
pub(crate) fn describe_waiting(pool: &Pool) -> Option<String> {
    let waiting = pool.store.ledger.lock().waiting();
    (waiting != 0).then(|| format!("{waiting} tasks wait for memory: {}", pool.store.memory()))
}

/// The store has admitted it.
#[inline]
pub(crate) fn is_admitted(task: RawTask) -> bool {
    task.is_admitted()
}
