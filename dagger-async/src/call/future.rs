//! `spawn(future)`.

use super::{Body, Stop};
use crate::task::{Linker, RawTask};
use dagger_core::Scope;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A future as the body of a task.
pub(crate) struct FutureBody<F>(pub(crate) F);

impl<F: Future + Send + 'static> Body for FutureBody<F> {
    type Output = F::Output;
    type Name = F;
    const ACCESSES: usize = 0;
    const WRITES: bool = false;

    fn link(&self, _linker: &mut Linker) {}
    fn inputs(&self, _visit: &mut dyn FnMut(RawTask)) {}
    fn scope(&self, _scopes: &mut Option<Scope>) {}
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<F::Output, Stop>> {
        // SAFETY: the field is pinned when the wrapper is; the wrapper has no `Drop` and never moves it.
        let future = unsafe { self.map_unchecked_mut(|this| &mut this.0) };
        future.poll(cx).map(Ok)
    }
}
