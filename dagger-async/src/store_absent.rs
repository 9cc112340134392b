//! What stands in for the store without the feature `store`: everything is in memory, and nothing is counted.

use crate::chunk::{CorePtr, Held, Outcome};
use crate::error::Error;
use crate::pool::Pool;
use crate::task::{Locked, RawTask};
use std::task::{Poll, Waker};

/// Where a chunk would keep what its store knows of it.
#[derive(Default)]
pub(crate) struct Slot(());

/// What nobody has.
pub(crate) enum Nothing {}

pub(crate) type GuardPin = Nothing;

impl Slot {
    pub(crate) fn take(&mut self) -> Option<Nothing> {
        let Slot(()) = self;
        None
    }
}

#[inline(always)]
pub(crate) fn bind<T>(_: CorePtr, _: &Pool) {}
#[inline(always)]
pub(crate) fn bind_here<T>(_: CorePtr) {}
#[inline(always)]
pub(crate) fn dropped(_: Option<Nothing>, _: bool) {}
#[inline(always)]
pub(crate) fn taken(_: CorePtr) {}
#[inline(always)]
pub(crate) fn is_limited(_: RawTask) -> bool {
    false
}
#[inline(always)]
pub(crate) fn admit(_: RawTask, _: &Locked<'_>) -> bool {
    true
}
#[inline(always)]
pub(crate) fn defer(_: RawTask) {}
#[inline(always)]
pub(crate) fn defer_if_absent(_: RawTask) -> bool {
    false
}
#[inline(always)]
pub(crate) unsafe fn leave_all(_: RawTask, _: Outcome<'_>) {}
#[inline(always)]
pub(crate) fn left(_: RawTask) {}
#[inline(always)]
pub(crate) fn pause(_: RawTask) {}
#[inline(always)]
pub(crate) fn resume(_: RawTask) {}
#[inline(always)]
pub(crate) fn ended(_: RawTask, _: &Pool) {}
#[inline(always)]
pub(crate) fn close(_: &Pool) {}
#[inline(always)]
pub(crate) fn poll_pin(
    _: &mut Held,
    _: bool,
    _: &mut Option<std::sync::Arc<GuardPin>>,
    _: &Waker,
) -> Poll<Result<(), Error>> {
    Poll::Ready(Ok(()))
}
#[inline(always)]
pub(crate) fn is_managed(_: CorePtr) -> bool {
    false
}
#[inline(always)]
pub(crate) fn abandon(_: Option<std::sync::Arc<GuardPin>>) {}
#[inline(always)]
pub(crate) fn leave_guard(_: &mut Held, _: bool) {}
#[inline(always)]
pub(crate) fn is_admitted(_: RawTask) -> bool {
    false
}
#[inline(always)]
pub(crate) fn is_busy(_: &Pool) -> bool {
    false
}
#[inline(always)]
pub(crate) fn describe_waiting(_: &Pool) -> Option<String> {
    None
}
