//! Whose turn at a chunk comes, in one word, as every access has one in its queue.

use crate::chunk::guard::GuardWait;
use crate::plan::Run;
use crate::task::RawTask;
use arrayvec::ArrayVec;
use smallvec::SmallVec;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;

/// A task, which its place keeps, or an [`Other`], counted: a pointer whose lowest bit says to which.
pub(crate) struct Ticket(NonNull<()>, PhantomData<Arc<Other>>);

/// In the lowest bit.
const OTHER: usize = 1;
const _: () = assert!(align_of::<crate::task::Header>() > OTHER && align_of::<Other>() > OTHER);

/// Who is not a task.
pub(crate) enum Other {
    /// A guard, and which of its places.
    Guard(Arc<GuardWait>, u32),
    /// The run of a plan, whose places are granted at once or not taken.
    Plan(Arc<Run>),
}

/// What a ticket says.
pub(crate) enum Whose<'a> {
    Task(RawTask),
    Other(&'a Other),
}

// SAFETY: both `RawTask` and `Arc<Other>` are.
unsafe impl Send for Ticket {}
// SAFETY: as above.
unsafe impl Sync for Ticket {}

impl Ticket {
    #[inline]
    pub(crate) fn task(task: RawTask) -> Self {
        Ticket(task.pointer().cast(), PhantomData)
    }

    /// Adds it to those that will soon be told here: asks for the memory of its task.
    #[inline(always)]
    pub(crate) fn tell_soon(&self, tickets: &mut Tickets) {
        if let Whose::Task(task) = self.whose() {
            task.prefetch();
            if tickets.tasks.try_push(task).is_ok() {
                return;
            }
        }
        tickets.add(self);
    }

    pub(crate) fn other(other: Other) -> Self {
        let pointer = Arc::into_raw(Arc::new(other)).cast_mut().cast::<()>();
        // No `Arc` points to nothing.
        let pointer = NonNull::new(pointer).unwrap_or(NonNull::dangling());
        Ticket(pointer.map_addr(|address| address | OTHER), PhantomData)
    }

    #[inline]
    pub(crate) fn whose(&self) -> Whose<'_> {
        match self.counted() {
            None => Whose::Task(RawTask::from_data(self.0.as_ptr())),
            // SAFETY: it came from `into_raw`, and we have a count.
            Some(other) => Whose::Other(unsafe { &*other }),
        }
    }

    #[inline]
    fn counted(&self) -> Option<*const Other> {
        let is_other = self.0.addr().get() & OTHER != 0;
        is_other.then(|| self.0.as_ptr().map_addr(|address| address & !OTHER).cast_const().cast())
    }
}

impl Clone for Ticket {
    #[inline]
    fn clone(&self) -> Self {
        if let Some(other) = self.counted() {
            // SAFETY: it came from `into_raw`, and we have a count.
            unsafe { Arc::increment_strong_count(other) };
        }
        Ticket(self.0, PhantomData)
    }
}

impl Drop for Ticket {
    #[inline]
    fn drop(&mut self) {
        if let Some(other) = self.counted() {
            // SAFETY: it came from `into_raw`, and this count is ours.
            drop(unsafe { Arc::from_raw(other) });
        }
    }
}

/// Those whose turn came, to be told outside the locks.
pub(crate) struct Tickets {
    /// Most of them.
    tasks: ArrayVec<RawTask, 6>,
    more: SmallVec<[Ticket; 1]>,
}

impl Tickets {
    #[inline]
    pub(crate) fn new() -> Self {
        Tickets { tasks: ArrayVec::new_const(), more: SmallVec::new() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.more.is_empty()
    }

    /// Its drop would do nothing.
    #[inline]
    pub(crate) fn owns_nothing(&self) -> bool {
        self.more.is_empty() && !self.more.spilled()
    }

    #[cold]
    fn add(&mut self, ticket: &Ticket) {
        self.more.push(ticket.clone());
    }

    /// The task at this place among the first that were added, if there is one.
    #[inline(always)]
    pub(crate) fn task(&self, at: usize) -> Option<RawTask> {
        self.tasks.get(at).copied()
    }

    /// All the tasks that [`task`](Self::task) has given have been told.
    #[inline(always)]
    pub(crate) fn clear_tasks(&mut self) {
        self.tasks.clear();
    }

    /// There are others.
    #[inline]
    pub(crate) fn has_more(&self) -> bool {
        !self.more.is_empty()
    }

    /// Takes the others.
    pub(crate) fn take_more(&mut self) -> SmallVec<[Ticket; 1]> {
        std::mem::take(&mut self.more)
    }
}
