//! Access outside tasks: futures that hold places in the queues from the moment they are made, and the guards they give.
//!
//! ```text
//!   c.read()  ─▶ place taken ─▶ .await ─▶ ReadGuard ─▶ drop: place given back
//!      └── dropped before: what was granted is given back, the rest when its turn comes
//! ```
//! 1. A place is released once: by the guard, or by the dropped future, or (not granted yet then) by the grant.
//! 2. Guards never poison: they are not tasks, and have no outcome.
//! 3. Every place is listed while it lives, so that the stall watch can name it and a shutdown finds who waits behind it.

use super::core::{self, AnyChunk, Asker, Denied, Held, Mode, Outcome, Tickets};
use super::select::{At, Contiguous, Kind, Whole};
use super::{Chunk, ChunkCell};
use crate::error::{Error, Result};
use crate::pool::{Local, local};
use crate::residency;
use crate::scoped::Frame;
use crate::task::{self, RawTask, TaskRef, Work};
use parking_lot::Mutex;
use slab::Slab;
use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

/// The wait for some places, and who uses them afterwards.
pub(crate) struct GuardWait(Mutex<Waiting>, OnceLock<Weak<dyn Users>>);

/// Tasks that use what is held outside tasks, and so are waited for by who waits for it.
pub(crate) trait Users: Send + Sync {
    fn visit(&self, visit: &mut dyn FnMut(RawTask));
}

struct Waiting {
    /// Places that are not granted yet.
    pending: u32,
    waker: Option<Waker>,
    /// Places that were given up before they were granted, by number.
    abandoned: Vec<Option<Held>>,
}

impl GuardWait {
    pub(crate) fn new() -> Arc<Self> {
        let waiting = Waiting { pending: 0, waker: None, abandoned: Vec::new() };
        Arc::new(GuardWait(Mutex::new(waiting), OnceLock::new()))
    }

    /// From now on these use the places.
    pub(crate) fn set_users(&self, users: Weak<dyn Users>) {
        let is_first = self.1.set(users).is_ok();
        debug_assert!(is_first, "places are used by one run");
    }

    /// The tasks that use the places, for those who look for cycles.
    pub(crate) fn visit_users(&self, visit: &mut dyn FnMut(RawTask)) {
        if let Some(users) = self.1.get().and_then(Weak::upgrade) {
            users.visit(visit);
        }
    }

    /// The turn of a place came. Called outside the locks of chunks.
    pub(crate) fn granted(&self, index: u32, tickets: &mut Tickets) {
        let (abandoned, waker) = {
            let mut waiting = self.0.lock();
            // May be told before the one who took the places has counted them.
            waiting.pending = waiting.pending.wrapping_sub(1);
            let abandoned = waiting.abandoned.get_mut(index as usize).and_then(Option::take);
            (abandoned, if waiting.pending == 0 { waiting.waker.take() } else { None })
        };
        if let Some(held) = abandoned {
            held.release(Outcome::Void, tickets);
        }
        if let Some(waker) = waker {
            crate::error::quietly(|| waker.wake());
        }
    }
}

/// A place that is listed while it lives, or all those of somebody.
pub(crate) struct Listed {
    shard: usize,
    key: usize,
}

/// Who holds or waits for which chunk outside tasks.
pub(crate) struct Entry {
    places: Listing,
    site: &'static Location<'static>,
}

#[derive(Clone)]
enum Listing {
    One(Weak<dyn AnyChunk>, Mode),
    Many(Weak<dyn Chunks>),
}

/// Chunks that are held together.
pub(crate) trait Chunks: Send + Sync {
    fn visit(&self, visit: &mut dyn FnMut(&core::Core, Mode));
}

impl Listing {
    fn visit(&self, visit: &mut dyn FnMut(&core::Core, Mode)) {
        match self {
            Listing::One(chunk, mode) => {
                chunk.upgrade().into_iter().for_each(|chunk| visit(chunk.core(), *mode))
            }
            Listing::Many(chunks) => {
                if let Some(chunks) = chunks.upgrade() {
                    chunks.visit(visit);
                    // Perhaps the last owner of what is a user's.
                    crate::error::quietly(|| drop(chunks));
                }
            }
        }
    }
}

const SHARDS: usize = 16;
static LISTED: [Mutex<Slab<Entry>>; SHARDS] = [const { Mutex::new(Slab::new()) }; SHARDS];

impl Listed {
    fn new(held: &Held, site: &'static Location<'static>) -> Self {
        Self::list(Listing::One(Arc::downgrade(&held.chunk.owner()), held.mode), site)
    }

    pub(crate) fn many(chunks: Weak<dyn Chunks>, site: &'static Location<'static>) -> Self {
        Self::list(Listing::Many(chunks), site)
    }

    fn list(places: Listing, site: &'static Location<'static>) -> Self {
        thread_local!(static SHARD: Cell<usize> = const { Cell::new(usize::MAX) });
        let shard = SHARD.with(|shard| {
            if shard.get() == usize::MAX {
                static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
                shard.set(NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % SHARDS);
            }
            shard.get()
        });
        Listed { shard, key: LISTED[shard].lock().insert(Entry { places, site }) }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let entry = LISTED[self.shard].lock().remove(self.key);
        drop(entry); // May be the end of the chunk's memory: not under the lock.
    }
}

fn listed() -> impl Iterator<Item = (Listing, &'static Location<'static>)> {
    let copies = |shard: &Mutex<Slab<Entry>>| -> Vec<_> {
        shard.lock().iter().map(|(_, entry)| (entry.places.clone(), entry.site)).collect()
    };
    LISTED.iter().flat_map(copies)
}

/// Where the guards of this chunk were taken, of those that hold it and of those that wait for it.
pub(crate) fn sites_at(chunk: &core::Core) -> Vec<&'static Location<'static>> {
    let mut sites = Vec::new();
    for (places, site) in listed() {
        places.visit(&mut |core, _| sites.extend(std::ptr::eq(core, chunk).then_some(site)));
    }
    sites
}

/// Calls `visit` with each task that waits for a chunk that somebody outside tasks holds or waits for, and what that is.
pub(crate) fn visit_waiting_behind_guards(visit: &mut dyn FnMut(RawTask, &dyn fmt::Display)) {
    for (places, site) in listed() {
        places.visit(&mut |core, mode| {
            let what = if mode.writes() { "write" } else { "read" };
            let (content, made) = (core.content, core.site);
            let text = format!("the {what} guard of a chunk of `{content}` (made at {made}) taken at {site}");
            core.visit_waiting_tasks(&mut |task| visit(task, &text));
        });
    }
}

/// What a place is taken for.
#[doc(hidden)]
pub(crate) struct Placed<T: 'static, K> {
    pub(crate) cell: Arc<ChunkCell<T>>,
    pub(crate) kind: K,
    pub(crate) mode: Mode,
}

impl<T: Send + Sync + 'static, K: Kind<T>> Placed<T, K> {
    fn held(&self, argument: u16) -> Result<Held, core::Refusal> {
        residency::bind_here::<T>(ChunkCell::core_of(&self.cell));
        let mut held = super::held(ChunkCell::core_of(&self.cell), &self.kind, self.mode)?;
        held.set_argument(argument);
        Ok(held)
    }
}

/// Places that are taken together.
#[doc(hidden)]
pub trait Places: Sized {
    type Guards;
    fn held(&self) -> Result<Vec<Held>, core::Refusal>;
    fn guards(self, held: Vec<Hold>) -> Result<Self::Guards>;
}

/// A granted place, released when dropped.
#[doc(hidden)]
pub struct Hold {
    held: Option<Held>,
    /// A guard was made of it.
    given: bool,
    _listed: Listed,
}

impl Hold {
    fn given(mut self) -> Self {
        self.given = true;
        self
    }

    /// The chunk that it holds.
    pub(crate) fn chunk(&self) -> Option<core::CorePtr> {
        self.held.as_ref().map(|held| held.chunk)
    }

    /// Gives the place back, used as it says.
    pub(crate) fn end(mut self, outcome: Outcome<'_>) {
        self.given = true;
        self.release(outcome);
    }

    fn release(&mut self, outcome: Outcome<'_>) {
        if let Some(mut held) = self.held.take() {
            residency::leave_guard(&mut held, self.given);
            let mut work = Work::new();
            held.release(outcome, &mut work.tickets);
            work.drain();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A panic may have come before everything was written: then an `Out` heals nothing.
        let wrote = self.given && !std::thread::panicking();
        let outcome = if wrote { Outcome::Wrote } else { Outcome::Void };
        self.release(outcome);
    }
}

/// A future that holds its places from the moment it is made: what [`access`], [`Chunk::read`] and [`Chunk::write`] give.
///
/// Dropping it gives the places back.
#[must_use = "it holds its places until it is awaited or dropped"]
pub struct Access<P> {
    places: Option<P>,
    held: Vec<(Held, Listed)>,
    wait: Arc<GuardWait>,
    refused: Option<Error>,
    recovers: bool,
    /// Polled at least once.
    polled: bool,
    /// What it waits for to be in memory.
    pin: Option<Arc<residency::GuardPin>>,
}

impl<P: Places> Access<P> {
    #[track_caller]
    pub(super) fn new(places: P) -> Self {
        Self::taken_at(places, Location::caller())
    }

    /// As [`new`](Self::new), for a caller elsewhere.
    pub(crate) fn taken_at(places: P, site: &'static Location<'static>) -> Self {
        let wait = GuardWait::new();
        let mut access = Access {
            places: None,
            held: Vec::new(),
            wait: wait.clone(),
            refused: None,
            recovers: false,
            polled: false,
            pin: None,
        };
        let taken = places.held().and_then(|mut held| {
            // A guard runs nowhere: no runtime.
            let taken = core::take_places(&mut held, Asker::Guard(&wait)).map_err(|refusal| *refusal)?;
            held.sort_by_key(Held::argument); // As the caller has listed them.
            Ok((held, taken))
        });
        match taken {
            Ok((held, taken)) => {
                let mut waiting = wait.0.lock();
                waiting.pending = waiting.pending.wrapping_add(taken.waiting);
                drop(waiting);
                access.held = held
                    .into_iter()
                    .map(|held| {
                        let listed = Listed::new(&held, site);
                        (held, listed)
                    })
                    .collect();
                access.places = Some(places);
            }
            Err(refusal) => access.refused = Some(refusal.into_error(None)),
        }
        access
    }

    /// What its places are told by.
    pub(crate) fn wait(&self) -> &Arc<GuardWait> {
        &self.wait
    }

    pub(super) fn recovering(mut self) -> Self {
        self.recovers = true;
        self
    }

    fn poll_places(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Hold>>> {
        if let Some(error) = self.refused.take() {
            return Poll::Ready(Err(error));
        }
        {
            let mut waiting = self.wait.0.lock();
            if waiting.pending != 0 {
                let waker = task::clone_to_leave(cx.waker());
                let old = waiting.waker.replace(waker);
                drop(waiting);
                drop(old);
                self.polled = true;
                return match self.closes_cycle() {
                    Some(error) => Poll::Ready(Err(error)),
                    None => Poll::Pending,
                };
            }
        }
        let Access { held, pin, recovers, .. } = &mut *self;
        for (held, _) in held {
            std::task::ready!(residency::poll_pin(held, *recovers, pin, cx.waker()))?;
        }
        for (held, _) in &self.held {
            let mut state = held.core().lock();
            let recovered = self.recovers.then(|| state.recover());
            let denied = held.denied(&mut state);
            drop(state);
            crate::error::quietly(|| drop(recovered));
            match denied {
                None => {}
                Some(Denied::Taken) => return Poll::Ready(Err(Error::Taken { root: None })),
                Some(Denied::Poisoned(cause)) => return Poll::Ready(Err(poisoned(&cause))),
            }
        }
        let held = std::mem::take(&mut self.held);
        Poll::Ready(Ok(held
            .into_iter()
            .map(|(held, listed)| Hold { held: Some(held), given: false, _listed: listed })
            .collect()))
    }

    /// The task that waits here, or one that waits for it, holds what it waits for, or a block around that waits for who waits here.
    fn closes_cycle(&self) -> Option<Error> {
        let holds = |local: &Local| local.queue().is_some_and(Frame::holds_any);
        if local::with(|local| local.task().is_none() && !holds(local)) {
            return None;
        }
        let mut blockers = Vec::new();
        for (held, _) in &self.held {
            held.visit_blockers(&mut |task| blockers.push(TaskRef::new(task)));
        }
        let places = || Arc::new(self.held.iter().filter_map(|(held, _)| held.waiting_place()).collect());
        task::await_guard(places, &blockers)
    }
}

/// What a guard says of a chunk that a task has poisoned.
pub(crate) fn poisoned(cause: &Arc<Error>) -> Error {
    let own = Arc::new(cause.of_root().clone());
    match cause.root() {
        Some(root) => Error::Poisoned { root: root.clone(), cause: own },
        None => Error::clone(cause),
    }
}

impl<P> Drop for Access<P> {
    fn drop(&mut self) {
        residency::abandon(self.pin.take());
        let held = std::mem::take(&mut self.held);
        if held.is_empty() {
            return;
        }
        if self.polled {
            task::stop_awaiting_guard();
        }
        let mut granted = Vec::new();
        {
            let mut waiting = self.wait.0.lock();
            let count = held.len();
            waiting.abandoned.resize_with(count, || None);
            for (index, (held, _)) in held.into_iter().enumerate() {
                let is_granted = {
                    let state = held.core().lock();
                    held.is_granted(&state)
                };
                // Its grant, if it comes, waits for the lock of `waiting` and then finds it abandoned, or granted, which
                // leaves nothing to do.
                if is_granted {
                    granted.push(held);
                } else {
                    waiting.abandoned[index] = Some(held);
                }
            }
        }
        let mut work = Work::new();
        for mut held in granted {
            residency::leave_guard(&mut held, false);
            held.release(Outcome::Void, &mut work.tickets);
        }
        work.drain();
    }
}

// Nothing in it is pinned.
impl<P> Unpin for Access<P> {}

impl<P: Places> Future for Access<P> {
    type Output = Result<P::Guards>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let holds = std::task::ready!(self.poll_places(cx))?;
        // Gone only if it gave its guards before.
        let Some(places) = self.places.take() else { return Poll::Ready(Err(Error::Taken { root: None })) };
        Poll::Ready(places.guards(holds))
    }
}

/// Read access to a chunk, or to a region of it, outside tasks. Derefs to what it reads; other kinds of regions than the
/// whole and slices by [`get`](Self::get).
pub struct ReadGuard<T: Send + Sync + 'static, K: Kind<T> = Whole> {
    /// Given back while `cell` keeps the chunk.
    _hold: Hold,
    cell: Arc<ChunkCell<T>>,
    kind: K,
    at: K::At,
}

/// Write access to a chunk, or to a region of it, outside tasks. Derefs to what it writes; other kinds of regions than
/// the whole and slices by [`get`](Self::get) and [`get_mut`](Self::get_mut).
pub struct WriteGuard<T: Send + Sync + 'static, K: Kind<T> = Whole> {
    /// Given back while `cell` keeps the chunk.
    hold: Hold,
    cell: Arc<ChunkCell<T>>,
    kind: K,
    at: K::At,
}

macro_rules! guard {
    ($Guard:ident) => {
        impl<T: Send + Sync + 'static, K: Kind<T>> $Guard<T, K> {
            /// The region, to read.
            pub fn get(&self) -> K::Ref<'_> {
                // SAFETY: the place is held (`Hold`), so nobody writes the region while the guard lives; the result
                // borrows the guard.
                unsafe { self.kind.view(&self.at) }
            }
            /// The chunk that it guards.
            pub fn chunk(&self) -> Chunk<T> {
                Chunk(self.cell.clone())
            }
        }

        impl<T: Send + Sync + 'static> Deref for $Guard<T, Whole> {
            type Target = T;
            fn deref(&self) -> &T {
                self.get()
            }
        }

        impl<T: super::Container> Deref for $Guard<T, Contiguous> {
            type Target = [T::Elem];
            fn deref(&self) -> &[T::Elem] {
                self.get()
            }
        }

        impl<T: Send + Sync + 'static, K: Kind<T>> fmt::Debug for $Guard<T, K> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($Guard), "({})"), std::any::type_name::<T>())
            }
        }
    };
}
guard!(ReadGuard);
guard!(WriteGuard);

impl<T: Send + Sync + 'static, K: Kind<T>> WriteGuard<T, K> {
    /// The region, to write.
    pub fn get_mut(&mut self) -> K::Mut<'_> {
        // SAFETY: the place is held for writing, so nobody else accesses the region; the result borrows the guard
        // exclusively.
        unsafe { self.kind.view_mut(&self.at) }
    }
}

impl<T: Send + Sync + 'static> DerefMut for WriteGuard<T, Whole> {
    fn deref_mut(&mut self) -> &mut T {
        self.get_mut()
    }
}

impl<T: super::Container> DerefMut for WriteGuard<T, Contiguous> {
    fn deref_mut(&mut self) -> &mut [T::Elem] {
        self.get_mut()
    }
}

impl<T: Send + Sync + 'static> WriteGuard<T, Whole> {
    /// Moves the value out of the chunk.
    pub(super) fn take(mut self) -> T {
        // SAFETY: exclusive access to the whole, and there is a value (`deny`); it is marked as taken before anybody
        // else's turn, and nobody drops it again.
        let value = unsafe { self.at.value().cast::<T>().read() };
        self.cell.core.lock().presence = core::Presence::Taken;
        residency::taken(ChunkCell::core_of(&self.cell));
        self.cell.core.look();
        self.hold.release(Outcome::Void);
        value
    }
}

/// One place to read.
#[doc(hidden)]
pub struct Reading<T: 'static, K>(pub(crate) Placed<T, K>);

/// One place to write.
#[doc(hidden)]
pub struct Writing<T: 'static, K>(pub(crate) Placed<T, K>);

/// One of the places of an access.
#[doc(hidden)]
pub trait OnePlace {
    type Guard;
    type At;
    fn one(&self, argument: u16) -> Result<Held, core::Refusal>;
    fn located(&self) -> Result<Self::At>;
    fn guard(self, hold: Hold, at: Self::At) -> Self::Guard;
}

macro_rules! one_place {
    ($Place:ident, $Guard:ident, $hold:ident) => {
        impl<T: Send + Sync + 'static, K: Kind<T>> OnePlace for $Place<T, K> {
            type Guard = $Guard<T, K>;
            type At = K::At;
            fn one(&self, argument: u16) -> Result<Held, core::Refusal> {
                self.0.held(argument)
            }
            fn located(&self) -> Result<K::At> {
                let Placed { cell, kind, mode } = &self.0;
                super::locate(ChunkCell::core_of(cell), kind, *mode)
                    .map_err(|refusal| refusal.into_error(None))
            }
            fn guard(self, hold: Hold, at: K::At) -> $Guard<T, K> {
                let Placed { cell, kind, .. } = self.0;
                $Guard { cell, kind, at, $hold: hold.given() }
            }
        }
        impl<T: Send + Sync + 'static, K: Kind<T>> Places for $Place<T, K> {
            type Guards = $Guard<T, K>;
            fn held(&self) -> Result<Vec<Held>, core::Refusal> {
                Ok(vec![self.one(1)?])
            }
            fn guards(self, mut holds: Vec<Hold>) -> Result<$Guard<T, K>> {
                let at = self.located()?;
                let hold = holds.pop().ok_or(Error::Taken { root: None })?;
                Ok(self.guard(hold, at))
            }
        }
    };
}
one_place!(Reading, ReadGuard, _hold);
one_place!(Writing, WriteGuard, hold);

/// What [`access`] takes: a tuple of `In`, `Out` and `InOut`.
#[doc(hidden)]
pub trait AccessList {
    type Places: Places;
    fn places(self) -> Self::Places;
}

/// One of the list.
#[doc(hidden)]
pub trait AccessItem {
    type Place: OnePlace;
    fn place(self) -> Self::Place;
}

macro_rules! tuples {
    ($($name:ident)+) => {
        #[allow(non_snake_case, reason = "one identifier names the type and its value")]
        impl<$($name: OnePlace),+> Places for ($($name,)+) {
            type Guards = ($($name::Guard,)+);
            fn held(&self) -> Result<Vec<Held>, core::Refusal> {
                let ($($name,)+) = self;
                let mut argument = 0;
                Ok(vec![$({ argument += 1; $name.one(argument)? }),+])
            }
            fn guards(self, holds: Vec<Hold>) -> Result<Self::Guards> {
                let ($($name,)+) = self;
                // All of them first: no guard is made of an access that fails.
                let mut granted = holds.into_iter();
                $(let $name = ($name.located()?, granted.next().ok_or(Error::Taken { root: None })?, $name);)+
                Ok(($({
                    let (at, hold, place) = $name;
                    place.guard(hold, at)
                },)+))
            }
        }
        #[allow(non_snake_case, reason = "one identifier names the type and its value")]
        impl<$($name: AccessItem),+> AccessList for ($($name,)+) {
            type Places = ($($name::Place,)+);
            fn places(self) -> Self::Places {
                let ($($name,)+) = self;
                ($($name.place(),)+)
            }
        }
    };
}
tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

/// Takes places for several accesses at once and gives a guard for each: `access((In(&a), InOut(&b))).await?`.
///
/// The places are taken when it is called, all at once, like those of a task; the future holds them, and dropping it gives
/// them back. Up to eight accesses. Two parts of one chunk that could overlap, depending on a length that tasks before may
/// still change, are refused, as guards end one by one and cannot share a place.
///
/// # Errors
/// [`Error::Poisoned`], [`Error::OutOfBounds`], [`Error::Aliased`], [`Error::Foreign`], [`Error::Taken`]; and
/// [`Error::Deadlock`] inside a task that holds, by its own arguments, what it would wait for, and inside a `bulk` block that holds back
/// a task for which it would wait.
#[track_caller]
pub fn access<L: AccessList>(list: L) -> Access<L::Places> {
    Access::new(list.places())
}
