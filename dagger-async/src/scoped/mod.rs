//! Blocks that change what `spawn!` does inside them: [`with_options`], [`in_order`], [`bulk`], [`datadeps`], [`counted`].
//!
//! ```text
//!   in_order { a  b  bulk { c  d }  e }      a ─▶ b ─┬─▶ c ─┬─▶ e
//!                                                    └─▶ d ─┘
//! ```
//! 1. A block is in effect while its body is polled, on whichever thread that is: a pointer in the thread's
//!    [`Local`](crate::pool::Local) that is set for the length of the poll.
//! 2. Options reach tasks, their children and grandchildren; order and holding back end with the block's own spawns.
//! 3. A task spawned in a `bulk` waits for the block's end as for one more input.
//! 4. A datadeps block does not order anything (the chunks do): it owns its tasks, waits for them and collects failures.
//! 5. What only counts or records changes nothing else.

mod block;
mod counted;
mod failures;
mod queue;
mod recorded;

pub(crate) use block::Ending;
pub use block::{Datadeps, datadeps};
pub use counted::{Count, Counted, Counter, counted};
pub(crate) use failures::Failures;
pub(crate) use queue::Frame;
pub use queue::{Bulk, InOrder, bulk, in_order};
pub use recorded::{Recorded, recorded};

use crate::options::Options;
use crate::pool::local;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Polls `body` with `options` for every spawn inside, also in the tasks that it spawns, their children and
/// grandchildren. Where blocks nest, the inner one wins option by option; `syncdeps` and `cancel` add up.
///
/// Dropping the future drops the body; tasks that it has spawned go on.
///
/// ```
/// use dagger_async::prelude::*;
/// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
/// let y = with_options(Options::new().scope(Scope::worker(0)).name("scoped-task"), async {
///     spawn!(f64::sqrt(81.0)).await
/// }).await?;
/// assert_eq!(y, 9.0);
/// # Ok(()) }
/// ```
pub fn with_options<F: Future>(options: Options, body: F) -> WithOptions<F> {
    #[cfg(feature = "store")]
    if let Some(key) = &options.of_checkpoint().key {
        tracing::warn!(target: "dagger", "`checkpoint({key:?})` names one task: in `with_options` it does nothing");
    }
    WithOptions { options: Arc::new(options), merged: None, body }
}

/// The future of [`with_options`].
#[must_use = "futures do nothing unless awaited"]
pub struct WithOptions<F> {
    options: Arc<Options>,
    /// With the options around it, which are those of its first poll.
    merged: Option<Arc<Options>>,
    body: F,
}

impl<F: Future> Future for WithOptions<F> {
    type Output = F::Output;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // SAFETY: `body` is pinned when `self` is and only projected; the other fields are `Unpin`.
        let (options, merged, body) = unsafe {
            let this = self.get_unchecked_mut();
            (&this.options, &mut this.merged, Pin::new_unchecked(&mut this.body))
        };
        local::with(|local| {
            let layer = merged.get_or_insert_with(|| match local.layer() {
                Some(outer) => Arc::new(Options::merge(options, outer)),
                None => options.clone(),
            });
            let _entered = local.enter_layer(layer);
            body.poll(cx)
        })
    }
}
