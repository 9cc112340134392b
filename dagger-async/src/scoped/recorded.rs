//! [`recorded`]: a recording of one block.

use super::queue::{Frame, Looks, Queue};
use crate::record::{self, Recording};
use dagger_core::record::Log;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Polls `body`, and records what the tasks that it spawns do, with their children and grandchildren: see
/// [`Log::retain_tasks`].
///
/// The recording begins with the first poll and ends with the body. It waits for no task: one that still runs lacks its end.
/// Dropping the future ends the recording and forgets it.
///
/// ```
/// use dagger_async::prelude::*;
/// use dagger_async::record::recorded;
/// use dagger_core::record::What;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let (answer, log) = recorded(async { spawn!((|| 42)()).await }).await;
/// let ends = log.lanes.iter().flat_map(|lane| &lane.records).filter(|record| matches!(record.what, What::End { .. }));
/// assert_eq!((answer?, ends.count()), (42, 1));
/// # Ok(()) }
/// ```
pub fn recorded<F: Future>(body: F) -> Recorded<F> {
    Recorded { queue: Queue::looking(Looks::Notices(RefCell::default())), recording: None, body }
}

/// The future of [`recorded`].
#[must_use = "futures do nothing unless awaited"]
pub struct Recorded<F> {
    queue: Queue,
    recording: Option<Recording>,
    body: F,
}

impl<F: Future> Future for Recorded<F> {
    type Output = (F::Output, Log);
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: `body` is pinned when `self` is and only projected; the other fields are `Unpin`.
        let (queue, recording, body) = unsafe {
            let this = self.get_unchecked_mut();
            (&this.queue, &mut this.recording, Pin::new_unchecked(&mut this.body))
        };
        recording.get_or_insert_with(record::start);
        let output = ready!(Frame::around(queue, || body.poll(cx)));
        // It was just put there, if it was not there before.
        let Some(recording) = recording.take() else { return Poll::Pending };
        let mut log = recording.stop();
        if let Looks::Notices(noticed) = &queue.looks {
            log.retain_tasks(noticed.take());
        }
        Poll::Ready((output, log))
    }
}
