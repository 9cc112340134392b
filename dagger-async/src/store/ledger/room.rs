//! Who leaves memory, and what is written down for that.

use super::settlement::Settlement;
use super::{Activity, Entry, Ledger, Victim};
use crate::chunk::CorePtr;
use crate::store::residence::Residence;
use crate::store::word::Leaving;
use crate::store::{Store, jobs};
use dagger_core::record::Move;
use dagger_core::{Eviction, Resident};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// A store that has refused to write is asked again after this.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// A choice that has found too few is not made again before.
const CHOSEN_FOR: Duration = Duration::from_millis(1);
/// Victims are chosen by the dozen: each choice looks at all that is in memory.
const CHOSEN: u64 = 32;

impl Ledger {
    /// Makes values leave, or begin to, until `bytes` more are free or will be: values whose next use is by the task `from` or a
    /// later one, as far as that is known.
    pub(super) fn make_room(
        &mut self,
        store: &Arc<Store>,
        mut bytes: u64,
        from: u64,
        needed: &HashSet<usize>,
        settlement: &mut Settlement,
    ) {
        if self.refused.as_ref().is_some_and(|(_, since)| since.elapsed() > REFUSED_FOR) {
            self.forget_refusal(settlement);
        }
        let mut has_chosen = false;
        while bytes > 0 {
            let Some(victim) = self.victims.pop_front() else {
                if has_chosen {
                    return;
                }
                self.choose(store, bytes, needed, settlement);
                has_chosen = true;
                continue;
            };
            let Victim { key, next_use, last_use } = victim;
            if needed.contains(&key) {
                continue;
            }
            if next_use.is_some_and(|(next_use, _)| next_use < from) {
                // And so are the uses of all that come after it, unless others have become better victims since.
                if has_chosen || self.chosen.is_some_and(|since| since.elapsed() < CHOSEN_FOR) {
                    self.victims.push_front(victim);
                    return;
                }
                self.victims.clear();
                continue;
            }
            let can_leave = |entry: &&Entry| entry.can_leave() || entry.is_written_ahead();
            let Some(entry) = self.entries.get(key).filter(can_leave) else { continue };
            let residence = entry.residence.clone();
            // It was used since, or somebody has come to need it.
            if residence.last_use() != last_use
                || !has_chosen && self.next_use(store, &residence, settlement) != next_use
            {
                continue;
            }
            let size = residence.bytes();
            let begun = match residence.word.leaving() {
                _ if entry.is_written_ahead() => self.leave_when_written(key),
                Leaving::Clean => self.evict(store, key, false, settlement),
                Leaving::Dirty => {
                    // Few at a time: more would only wait, and could not be chosen otherwise.
                    if self.writes >= super::JOBS_MAX {
                        self.victims.push_front(victim);
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
        let (mut candidates, mut residents) = (Vec::new(), Vec::new());
        for (key, entry) in &self.entries {
            let residence = &entry.residence;
            let leaving = residence.word.leaving();
            let can_leave = leaving != Leaving::Not && entry.can_leave() || entry.is_written_ahead();
            if !can_leave || needed.contains(&key) {
                continue;
            }
            let next_use = self.next_use(store, residence, settlement);
            let last_use = residence.last_use();
            residents.push(Resident {
                bytes: residence.bytes(),
                next_use: next_use.map(|(task, _)| task),
                last_use,
                clean: leaving != Leaving::Dirty,
            });
            candidates.push(Some(Victim { key, next_use, last_use }));
        }
        let mean =
            residents.iter().map(|resident| resident.bytes).sum::<u64>() / residents.len().max(1) as u64;
        let bytes = bytes.saturating_add(mean * CHOSEN);
        self.chosen = Some(Instant::now());
        self.barren = residents.is_empty().then(Instant::now);
        let chosen = store.eviction.choose(&residents, bytes).into_iter();
        self.victims = chosen.filter_map(|index| candidates[index].take()).collect();
    }

    /// A clean value leaves; `was_written` just now, to do that.
    pub(super) fn evict(
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

    /// What is being written ahead leaves then.
    fn leave_when_written(&mut self, key: usize) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let (bytes, last_use) = (entry.residence.bytes(), entry.residence.last_use());
        if let Activity::Writing { leaves: leaves @ None } = &mut entry.activity {
            *leaves = Some(last_use);
            self.leaving += bytes;
            return true;
        }
        false
    }

    /// A dirty value is written down.
    fn write(&mut self, store: &Store, key: usize, leaves: bool, settlement: &mut Settlement) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        let Some(owner) = entry.residence.chunk.upgrade() else { return false };
        let begun = entry.residence.word.write();
        if begun {
            entry.activity = Activity::Writing { leaves: leaves.then(|| entry.residence.last_use()) };
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
    pub(super) fn write_ahead(&mut self, store: &Arc<Store>, settlement: &mut Settlement) {
        let used = store.resident.load(SeqCst) + self.reserved;
        if used < store.limit - store.limit / 4 || self.refused.is_some() {
            return;
        }
        let mut ahead = 0;
        let mut at = 0;
        while self.writes < super::JOBS_MAX && ahead < store.limit / 8 {
            let Some(&Victim { key, next_use, last_use }) = self.victims.get(at) else { return };
            at += 1;
            // What is written to again would have to be written down again.
            if next_use.is_some_and(|(_, writes)| writes) {
                continue;
            }
            let Some(entry) = self.entries.get(key).filter(|entry| entry.can_leave()) else { continue };
            if entry.residence.last_use() != last_use {
                continue;
            }
            ahead += entry.residence.bytes();
            if entry.residence.word.leaving() == Leaving::Dirty {
                self.write(store, key, false, settlement);
            }
        }
    }
}
