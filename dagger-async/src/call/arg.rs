//! What may stand between the parentheses of `spawn!(f(..))`.

use super::{Stop, Turn};
use crate::DTask;
use crate::error::quietly;
use crate::task::{Claim, Edge, Linker, RawTask};
use dagger_core::Scope;
use std::cell::Cell;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A value that `spawn!` hands to its callee in another form: a task's result, an awaited future.
///
/// Everything else goes to the callee as it is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of `spawn!`",
    note = "an argument is a plain value (`Send + 'static`), a `DTask<T>`, a `&DTask<T>`, an access (`In(&chunk)`, `Out`, `InOut`, `Deps`, `&chunk`), `Await(future)` or `Value(x)`"
)]
pub trait IntoArg {
    /// The argument as the task keeps it.
    type Arg: Arg;
    /// Takes the argument into the task.
    #[doc(hidden)]
    fn into_arg(self, turn: Turn) -> Self::Arg;
}

/// An argument inside a task.
pub trait Arg: Send + 'static {
    /// What the callee gets.
    type Ref<'a>
    where
        Self: 'a;

    /// It is ready once its inputs are: nothing of the user's is polled for it.
    #[doc(hidden)]
    const IMMEDIATE: bool = true;
    /// How many accesses it links.
    #[doc(hidden)]
    const ACCESSES: usize = 0;
    /// One of them writes.
    #[doc(hidden)]
    const WRITES: bool = false;

    #[doc(hidden)]
    fn link(&self, linker: &mut Linker) {
        let _ = linker;
    }
    #[doc(hidden)]
    fn inputs(&self, turn: Turn, visit: &mut dyn FnMut(RawTask)) {
        let _ = (turn, visit);
    }
    /// Narrows the scope of the task to where its data is.
    #[doc(hidden)]
    fn scope(&self, scopes: &mut Option<Scope>) {
        let _ = scopes;
    }
    /// Ends when [`Arg::get`] may be called. Polled after the linked input is done.
    #[doc(hidden)]
    fn poll_ready(&mut self, turn: Turn, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        let _ = (turn, cx);
        Poll::Ready(Ok(()))
    }
    /// Finds anew where its elements lie, for another call whose turn has come at a chunk that can be used.
    #[doc(hidden)]
    #[inline(always)]
    fn locate_again(&mut self, turn: Turn) -> Result<(), Stop> {
        let _ = turn;
        Ok(())
    }
    /// Drops what is left of it.
    #[doc(hidden)]
    fn clear(&mut self, turn: Turn) {
        let _ = turn;
    }
    /// What the callee gets. Called once, after `poll_ready` ended.
    #[doc(hidden)]
    fn get(&mut self, turn: Turn) -> Self::Ref<'_>;
}

/// Hands the value over as it is: `Value(task)` gives the callee the handle instead of the result, and
/// `Value(x.into())` tells the compiler that a plain value is meant.
#[derive(Clone, Copy, Debug)]
pub struct Value<T>(pub T);

/// Awaits any future and gives its output to the callee.
///
/// The future is polled on a worker, inside the task, once the other inputs are there.
#[derive(Clone, Copy, Debug)]
pub struct Await<F>(pub F);

/// A plain value inside a task.
#[derive(Clone)]
pub struct Plain<T>(Option<T>);

impl<T> Plain<T> {
    pub(crate) fn new(value: T) -> Self {
        Plain(Some(value))
    }
    /// The value, before it is handed over.
    pub(crate) fn peek(&self) -> &T {
        self.0.as_ref().expect("an argument is handed over once (`Arg::get`)")
    }
}

impl<T: Send + 'static> Arg for Plain<T> {
    type Ref<'a> = T;
    fn clear(&mut self, _: Turn) {
        let value = self.0.take();
        quietly(|| drop(value));
    }
    fn get(&mut self, _: Turn) -> T {
        self.0.take().expect("an argument is handed over once (`Arg::get`)")
    }
}

impl<T: Send + 'static> IntoArg for Value<T> {
    type Arg = Plain<T>;
    fn into_arg(self, _: Turn) -> Plain<T> {
        Plain::new(self.0)
    }
}

/// A task's result by value.
pub struct TaskArg<T: Send + Sync + 'static> {
    claim: Claim<T>,
    edge: Edge,
}

impl<T: Send + Sync + 'static> IntoArg for DTask<T> {
    type Arg = TaskArg<T>;
    fn into_arg(self, _: Turn) -> TaskArg<T> {
        TaskArg { claim: self.into_claim(), edge: Edge::new() }
    }
}

impl<T: Send + Sync + 'static> Arg for TaskArg<T> {
    type Ref<'a> = T;
    fn link(&self, linker: &mut Linker) {
        linker.after(self.claim.raw(), &self.edge);
    }
    fn inputs(&self, _: Turn, visit: &mut dyn FnMut(RawTask)) {
        visit(self.claim.raw());
    }
    fn scope(&self, scopes: &mut Option<Scope>) {
        super::note_result_scope(self.claim.raw(), scopes);
    }
    fn poll_ready(&mut self, _: Turn, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        self.claim.poll_takeable(cx.waker()).map_err(Stop::input)
    }
    fn get(&mut self, _: Turn) -> T {
        self.claim.take()
    }
}

impl<T: Send + Sync + 'static> TaskArg<T> {
    /// The value, before it is handed over.
    pub(crate) fn peek(&self) -> &T {
        self.claim.get()
    }
}

/// A task's result by reference.
pub struct TaskRefArg<T: Send + Sync + 'static> {
    claim: Claim<T>,
    edge: Edge,
}

impl<T: Send + Sync + 'static> IntoArg for &DTask<T> {
    type Arg = TaskRefArg<T>;
    fn into_arg(self, _: Turn) -> TaskRefArg<T> {
        TaskRefArg { claim: self.claim().clone(), edge: Edge::new() }
    }
}

impl<T: Send + Sync + 'static> IntoArg for &mut DTask<T> {
    type Arg = TaskRefArg<T>;
    fn into_arg(self, turn: Turn) -> TaskRefArg<T> {
        (&*self).into_arg(turn)
    }
}

impl<T: Send + Sync + 'static> Arg for TaskRefArg<T> {
    type Ref<'a> = &'a T;
    fn link(&self, linker: &mut Linker) {
        linker.after(self.claim.raw(), &self.edge);
    }
    fn inputs(&self, _: Turn, visit: &mut dyn FnMut(RawTask)) {
        visit(self.claim.raw());
    }
    fn scope(&self, scopes: &mut Option<Scope>) {
        super::note_result_scope(self.claim.raw(), scopes);
    }
    fn poll_ready(&mut self, _: Turn, _cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        Poll::Ready(self.claim.check_value().map_err(Stop::input))
    }
    fn get(&mut self, _: Turn) -> &T {
        self.claim.get()
    }
}

/// An awaited future inside a task.
pub struct AwaitArg<F: Future> {
    future: Option<Pin<Box<F>>>,
    output: Option<F::Output>,
}

impl<F: Future> AwaitArg<F> {
    /// The output, before it is handed over.
    pub(crate) fn peek(&self) -> &F::Output {
        self.output.as_ref().expect("an argument is handed over once, when it is ready (`Arg::get`)")
    }
}

impl<F> IntoArg for Await<F>
where
    F: IntoFuture,
    F::IntoFuture: Send + 'static,
    F::Output: Send + 'static,
{
    type Arg = AwaitArg<F::IntoFuture>;
    fn into_arg(self, _: Turn) -> Self::Arg {
        AwaitArg { future: Some(Box::pin(self.0.into_future())), output: None }
    }
}

impl<F> Arg for AwaitArg<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    type Ref<'a> = F::Output;
    const IMMEDIATE: bool = false;
    fn clear(&mut self, _: Turn) {
        let (future, output) = (self.future.take(), self.output.take());
        quietly(|| drop(future));
        quietly(|| drop(output));
    }
    fn poll_ready(&mut self, _: Turn, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        if let Some(future) = &mut self.future {
            match future.as_mut().poll(cx) {
                Poll::Ready(output) => self.output = Some(output),
                Poll::Pending => return Poll::Pending,
            }
            self.future = None;
        }
        Poll::Ready(Ok(()))
    }
    fn get(&mut self, _: Turn) -> F::Output {
        self.output.take().expect("an argument is handed over once, when it is ready (`Arg::get`)")
    }
}

/// Tells the kinds of arguments apart at compile time: `(&Probe::new(x)).arg()` finds [`ViaTask`] where
/// `x: IntoArg`, else [`ViaPlain`], which needs one more reference.
#[doc(hidden)]
pub struct Probe<T>(Cell<Option<T>>);

impl<T> Probe<T> {
    pub fn new(value: T) -> Self {
        Probe(Cell::new(Some(value)))
    }
    fn value(&self) -> T {
        self.0.take().expect("`spawn!` probes an argument once")
    }
}

/// See [`Probe`].
#[doc(hidden)]
pub trait ViaTask<T> {
    fn arg(&self) -> T;
}

impl<T: IntoArg> ViaTask<T> for Probe<T> {
    fn arg(&self) -> T {
        self.value()
    }
}

/// See [`Probe`].
#[doc(hidden)]
pub trait ViaPlain<T> {
    fn arg(&self) -> Value<T>;
}

impl<T> ViaPlain<T> for &Probe<T> {
    fn arg(&self) -> Value<T> {
        Value(self.value())
    }
}
