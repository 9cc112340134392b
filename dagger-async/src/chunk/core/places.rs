//! Taking places: all those of a task or guard at once, or one for the run of a plan.

use super::{Asker, CorePtr, Held, Refusal, State, Ticket, Tickets, clip, drop_owner, is_opaque};
use crate::plan::Run;
use crate::pool::Pool;
use crate::record;
use crate::residency;
use crate::sync::SpinGuard;
use crate::task::Work;
use dagger_core::{Area, Place};
use smallvec::SmallVec;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Takes places for all accesses at once (invariant 1), and says how many are still to be granted, each of which is told
/// once by its ticket.
#[inline(always)]
pub(crate) fn take_places(held: &mut [Held], asker: Asker<'_>) -> Result<Taken, Box<Refusal>> {
    // Its drop would be a call, and do nothing: where a run is listed, `contest` takes it.
    let mut taking =
        ManuallyDrop::new(Taking { taken: Taken { waiting: 0, foreign: false }, behind: Vec::new() });
    match (lock_wholes(held), asker) {
        // Apart, so that each is compiled for one of them.
        (true, Asker::Task(_)) => take_wholes(held, asker, &mut taking),
        (true, Asker::Guard(_)) => take_wholes(held, asker, &mut taking),
        (false, _) => take_regions(held, asker, &mut taking)?,
    }
    if !taking.behind.is_empty() {
        taking.contest();
    }
    Ok(taking.taken)
}

/// Locks the chunks of accesses to different chunks as a whole, which any task of any runtime may have. False: they are not such, and
/// nothing is locked.
#[inline]
fn lock_wholes(held: &[Held]) -> bool {
    // Most locks are free, and then their order does not matter: nobody is waited for.
    for (count, one) in held.iter().enumerate() {
        let is_whole = one.part.is_none() && !one.chunk.is_placed;
        if !is_whole || !one.chunk.state.try_lock_to_keep() {
            unlock(&held[..count]);
            return is_whole && lock_in_order(held);
        }
    }
    true
}

/// As [`lock_wholes`], by address. One of the locks was taken: by somebody else, or for another access of the same task.
#[cold]
fn lock_in_order(held: &[Held]) -> bool {
    if held.iter().any(|one| one.part.is_some() || one.chunk.is_placed) {
        return false;
    }
    let mut order: SmallVec<[CorePtr; 8]> = held.iter().map(|one| one.chunk).collect();
    order.sort_unstable();
    if order.windows(2).any(|two| two[0] == two[1]) {
        return false;
    }
    order.iter().for_each(|chunk| chunk.state.lock_to_keep());
    true
}

/// Gives back locks that are kept.
fn unlock(held: &[Held]) {
    for one in held {
        // SAFETY: taken by `lock_wholes`, on this thread.
        drop(unsafe { one.chunk.state.taken() });
    }
}

/// Takes the places for plain accesses, whose chunks are locked: what most tasks do, and what cannot be refused.
#[inline(always)]
fn take_wholes(held: &mut [Held], asker: Asker<'_>, taking: &mut Taking) {
    // Nothing in here unwinds.
    let (pool, is_recorded) = (asker.pool(), record::is_on());
    // Each lock is given back when its queue is done with.
    for held in held {
        let chunk = held.chunk;
        // SAFETY: taken by `lock_wholes`, on this thread.
        let mut state = unsafe { chunk.state.taken() };
        let writes = held.mode.writes();
        let place = state.take(chunk, asker.ticket(held.argument), writes, &Area::Whole, pool, taking);
        held.turn = Some(place.number());
        if is_recorded && let Asker::Task(task) = asker {
            state.record(held, task, writes);
        }
        let next = state.next_entry();
        drop(state);
        crate::sync::prefetch(next);
    }
}

/// Takes any places. Those of the same chunk stand side by side afterwards.
#[inline(never)]
fn take_regions(held: &mut [Held], asker: Asker<'_>, taking: &mut Taking) -> Result<(), Refusal> {
    held.sort_by_key(|held| held.chunk);
    let pool = asker.pool();
    let chunks: SmallVec<[CorePtr; 4]> =
        held.chunk_by(Held::is_same_chunk).map(|group| group[0].chunk).collect();
    let mut locks: SmallVec<[SpinGuard<'_, State>; 4]> = chunks.iter().map(|chunk| chunk.lock()).collect();
    // First all that can be refused: a task that is refused takes no place anywhere.
    let mut coarse: SmallVec<[bool; 4]> = SmallVec::new();
    for (state, group) in locks.iter_mut().zip(held.chunk_by_mut(Held::is_same_chunk)) {
        group.iter_mut().try_for_each(|held| held.prepare(state, pool))?;
        coarse.push(group.len() > 1 && (overlap(group)? || is_mixed(group)));
        if coarse.last() == Some(&true) && pool.is_null() {
            // Guards end one by one, and could not share a place.
            return Err(aliased(&group[0], &group[1]));
        }
    }
    let groups = held.chunk_by_mut(Held::is_same_chunk);
    for ((state, group), coarse) in locks.iter_mut().zip(groups).zip(coarse) {
        if coarse {
            // The length is not known yet, and neither is whether they overlap. They share one place, which covers all,
            // and the turn decides.
            group.iter_mut().for_each(Held::merge);
            group[0].core().look();
        }
        let places = if coarse { 1 } else { group.len() };
        let has_elements = group.iter().any(|held| !held.has_no_elements());
        for held in &mut group[..places] {
            // One without elements needs no place of its own beside one with some.
            if !coarse && has_elements && held.has_no_elements() {
                held.merge();
                continue;
            }
            state.enqueue(held, asker.ticket(held.argument), pool, taking);
            if let Asker::Task(task) = asker
                && record::is_on()
            {
                let writes = held.is_merged() || !held.has_no_elements() && held.mode.writes();
                state.record(held, task, writes);
            }
        }
    }
    Ok(())
}

/// Takes a place for the run of a plan at a chunk, if nobody is there: it is granted then. The run keeps the chunk, and the ticket
/// is of the run.
pub(crate) fn take_idle(
    chunk: CorePtr,
    run: &Arc<Run>,
    ticket: &Ticket,
    writes: bool,
    pool: *const Pool,
) -> Option<Place> {
    let mut state = chunk.lock();
    if !state.queue.is_idle() {
        return None;
    }
    state.note_pool(pool);
    state.run = NonNull::new(Arc::as_ptr(run).cast_mut());
    Some(state.take_first(ticket, writes))
}

/// Takes a place at a chunk that nobody accesses, and that can be used as it is: it is granted then, and nobody is told. The caller
/// keeps the chunk.
pub(crate) fn take_at_rest(chunk: CorePtr, ticket: &Ticket, writes: bool) -> Option<Place> {
    let mut state = chunk.lock();
    if !state.queue.is_idle() || !state.is_sound() || residency::is_managed(chunk) {
        return None;
    }
    // Whatever it was for is past: nobody is here, and who comes says it anew.
    chunk.look.store(false, Relaxed);
    Some(state.take_first(ticket, writes))
}

/// Gives the place of a run, of a plan or of what is frozen, back, if nothing has failed.
pub(crate) fn give_idle(chunk: CorePtr, place: Place, writes: bool, tickets: &mut Tickets) {
    let mut state = chunk.lock();
    if writes {
        state.parts = None;
    }
    state.run = None;
    let keep = state.give(place, tickets);
    drop(state);
    drop_owner(keep);
}

/// True if accesses of one task to one chunk are to fields (or regions of a user's kind) and to no elements: the one may
/// move what the other measures.
fn is_mixed(group: &[Held]) -> bool {
    group.iter().any(|held| is_opaque(held.area())) && group.iter().any(Held::has_no_elements)
}

/// True if accesses of one task to one chunk may overlap, one of them writing.
///
/// # Errors
/// If they do.
fn overlap(group: &[Held]) -> Result<bool, Refusal> {
    let mut may = false;
    for (at, one) in group.iter().enumerate() {
        for other in &group[at + 1..] {
            if (one.mode.writes() || other.mode.writes()) && one.area().overlaps(other.area()) {
                if one.is_exact() && other.is_exact() {
                    return Err(aliased(one, other));
                }
                may = true;
            }
        }
    }
    Ok(may)
}

/// What taking places came to.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    /// How many are still to be granted.
    pub(crate) waiting: u32,
    /// Some of those wait where tasks of another runtime do.
    pub(crate) foreign: bool,
}

/// Taking places, so far.
pub(super) struct Taking {
    pub(super) taken: Taken,
    /// Runs of plans that have a place before: they are to be told.
    pub(super) behind: Vec<Arc<Run>>,
}

impl Taking {
    /// Tells the runs that somebody waits behind them, without any lock.
    #[cold]
    fn contest(&mut self) {
        for run in std::mem::take(&mut self.behind) {
            let mut work = Work::new();
            run.contest(&mut work.tickets);
            work.drain();
            crate::error::quietly(|| drop(run)); // Perhaps the last to have it, and its chunks.
        }
    }
}

fn aliased(one: &Held, other: &Held) -> Refusal {
    let (first, second) = if one.argument <= other.argument { (one, other) } else { (other, one) };
    Refusal::Aliased { first: first.describe(), second: second.describe() }
}

/// Checks what could not be checked when the places were taken. The places are granted.
pub(crate) fn check_merged<'a>(held: impl Iterator<Item = &'a Held>) -> Result<(), Refusal> {
    let merged: SmallVec<[&Held; 4]> = held.filter(|held| held.is_merged()).collect();
    for (at, one) in merged.iter().enumerate() {
        for other in merged[at + 1..].iter().filter(|other| other.is_same_chunk(one)) {
            if !one.mode.writes() && !other.mode.writes() {
                continue;
            }
            let mut state = one.core().lock();
            let mut resolve = |held: &Held| match held.measure() {
                Some(measure) => {
                    let parts = state.measured(held.chunk.value(), measure, false);
                    clip(held.area(), &parts.shape)
                }
                None => Ok(held.area().clone()),
            };
            let (first, second) = (resolve(one)?, resolve(other)?);
            drop(state);
            if first.overlaps(&second) {
                return Err(aliased(one, other));
            }
        }
    }
    Ok(())
}

#[cfg(all(test, not(dagger_loom)))]
#[allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#[test]
fn locks_of_some_chunks_are_taken_in_any_order_by_one_at_a_time() {
    use crate::chunk::{Chunk, ChunkCell};
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    let chunks: Arc<Vec<Chunk<()>>> = Arc::new((0..4).map(|_| Chunk::new(())).collect());
    let inside: Arc<[AtomicU32; 4]> = Arc::default();
    let (ended, wait) = std::sync::mpsc::channel();
    for thread in 0..4_usize {
        let (chunks, inside, ended) = (chunks.clone(), inside.clone(), ended.clone());
        std::thread::spawn(move || {
            for round in 0..20_000 {
                let of = |at: usize| (thread * 5 + round * 3 + at * if round % 2 == 0 { 1 } else { 3 }) % 4;
                let held =
                    |at| Held::new(ChunkCell::core_of(&chunks[of(at)].0), super::Mode::InOut, None, false);
                let held: Vec<Held> = (0..3).map(held).collect();
                assert!(lock_wholes(&held));
                for at in 0..3 {
                    assert_eq!(inside[of(at)].fetch_add(1, Relaxed), 0, "two have one lock");
                }
                for at in 0..3 {
                    inside[of(at)].fetch_sub(1, Relaxed);
                }
                unlock(&held);
            }
            let twice: Vec<Held> = [0, 1, 0]
                .map(|at| {
                    let chunk = ChunkCell::core_of(&chunks[at].0);
                    Held::new(chunk, super::Mode::In, None, false)
                })
                .into();
            assert!(!lock_wholes(&twice), "one chunk twice is for the regions");
            ended.send(()).unwrap();
        });
    }
    for _ in 0..4 {
        let ended = wait.recv_timeout(std::time::Duration::from_secs(60));
        ended.expect("nobody waits for ever, and nobody has failed");
    }
    assert!(chunks.iter().all(|chunk| ChunkCell::core_of(&chunk.0).state.try_lock_to_keep()), "all are free");
}
