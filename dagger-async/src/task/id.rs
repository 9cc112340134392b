//! Ids and origins: which task is this, and which line of the program made it.

use dagger_core::record::Name;
use std::cell::Cell;
use std::fmt;
use std::num::NonZeroU64;
use std::panic::Location;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The id of a task, unique in the process and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(NonZeroU64);

impl TaskId {
    /// The id as a number, for logs.
    pub fn get(self) -> u64 {
        self.0.get()
    }

    /// The next id. Threads take them in runs, so that ids cost no shared cache line.
    #[inline]
    pub(crate) fn next() -> Self {
        const RUN: u64 = 4096;
        static RUNS: AtomicU64 = AtomicU64::new(0);
        thread_local!(static NEXT: Cell<u64> = const { Cell::new(0) });
        let id = NEXT.with(|next| {
            let mut id = next.get();
            if id % RUN == 0 {
                id = RUNS.fetch_add(1, Relaxed) * RUN;
            }
            next.set(id + 1);
            id + 1
        });
        TaskId(NonZeroU64::new(id).unwrap_or(NonZeroU64::MIN))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({})", self.0)
    }
}

/// The place of one `spawn!` in the program.
#[doc(hidden)]
pub struct CallSite {
    callee: &'static str,
    location: &'static Location<'static>,
}

impl CallSite {
    /// Made by `spawn!`, once for each place where it is written.
    #[track_caller]
    pub const fn new(callee: &'static str) -> Self {
        CallSite { callee, location: Location::caller() }
    }
}

/// Where a task comes from. One word, as every task has one: a pointer whose low bits say to what.
#[derive(Clone, Copy)]
pub(crate) struct Origin(NonNull<()>);

// SAFETY: what it points to is `Sync` and there for ever.
unsafe impl Send for Origin {}
// SAFETY: as above.
unsafe impl Sync for Origin {}

/// In the low bits of an [`Origin`].
const CALL: usize = 0;
const FILLED: usize = 1;
const FUTURE: usize = 2;
const JOINT: usize = 3;
const KINDS: usize = 3;
const _: () = assert!(align_of::<CallSite>() > KINDS && align_of::<Location<'static>>() > KINDS);

impl Origin {
    /// `spawn!(callee(..))`.
    #[inline]
    pub(crate) fn call(site: &'static CallSite) -> Self {
        Origin(NonNull::from(site).cast())
    }
    /// A task of the runtime's own that only comes after others.
    pub(crate) fn joint(site: &'static CallSite) -> Self {
        Origin(NonNull::from(site).cast().map_addr(|address| address | JOINT))
    }
    /// `Chunk::from_task`, called here.
    pub(crate) fn filled(location: &'static Location<'static>) -> Self {
        Self::tagged(location, FILLED)
    }
    /// `spawn(future)`: the place; the type of the future is known by its vtable.
    pub(crate) fn future(location: &'static Location<'static>) -> Self {
        Self::tagged(location, FUTURE)
    }

    fn tagged(location: &'static Location<'static>, kind: usize) -> Self {
        Origin(NonNull::from(location).cast().map_addr(|address| address | kind))
    }

    fn kind(self) -> usize {
        self.0.addr().get() & KINDS
    }

    /// The call site, or else the location.
    fn parts(self) -> Result<&'static CallSite, &'static Location<'static>> {
        let pointer = self.0.as_ptr().map_addr(|address| address & !KINDS);
        match self.kind() {
            // SAFETY: made by `call` or `joint` of such a reference.
            CALL | JOINT => Ok(unsafe { &*pointer.cast() }),
            // SAFETY: made by `tagged` of such a reference.
            _ => Err(unsafe { &*pointer.cast() }),
        }
    }

    pub(crate) fn location(self) -> &'static Location<'static> {
        self.parts().map_or_else(|location| location, |site| site.location)
    }

    /// The address of what says where it was spawned: the same for each run of one `spawn!`.
    pub(crate) fn address(self) -> usize {
        self.0.addr().get() & !KINDS
    }

    /// As a recording has it.
    pub(crate) fn record_name(self, future: &'static str) -> Name {
        let name = self.name(future);
        if self.kind() == JOINT { Name::Joint(name) } else { Name::Callee(name) }
    }

    /// The name of a task that was given none: the callee as written, or for a future the function that made it.
    pub(crate) fn name(self, future: &'static str) -> &'static str {
        match self.parts() {
            Ok(site) => site.callee,
            Err(_) if self.kind() == FILLED => "Chunk::from_task",
            Err(_) => function_of(future),
        }
    }
}

/// `app::load::{{closure}}` is the async block in `app::load`; generic arguments say nothing to a reader.
fn function_of(type_name: &'static str) -> &'static str {
    let path = type_name.split('<').next().unwrap_or_default();
    let path = path.trim_end_matches("::{{closure}}");
    if path.is_empty() { "future" } else { path }
}

#[cfg(all(test, not(dagger_loom)))]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_across_threads() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..10_000).map(|_| TaskId::next()).collect::<Vec<_>>()))
            .collect();
        let all: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn a_future_is_named_after_the_function_that_made_it() {
        assert_eq!(function_of("app::load::{{closure}}::{{closure}}"), "app::load");
        assert_eq!(function_of("a::Retry<b::main::{{closure}}, c>"), "a::Retry");
        assert_eq!(function_of("<x as y>::z"), "future");
    }
}
