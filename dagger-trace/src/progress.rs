//! Progress bars: [`WithProgress::with_progress`].
//!
//! ```text
//!   factor ━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸──────────── 812/1,140 tasks  4,213/s  77.9 ms left
//! ```
//! 1. Nobody counts and no thread is started unless standard error is a terminal.
//! 2. A thread of its own draws, ten times a second; it ends with the future, before the future's owner goes on.
//! 3. The total is what was spawned so far: it grows until the body of the block has spawned all.

use std::fmt;
use std::future::Future;
use std::io::IsTerminal;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::Duration;

use dagger_async::{Count, Counted, Counter, counted};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::show::{count, short};

const EVERY: Duration = Duration::from_millis(100);
/// Longer labels lose their middle.
const LABEL_CHARS_MAX: usize = 40;

/// Shows how far a future has come: a datadeps block, or whatever spawns tasks while it is polled.
pub trait WithProgress: Future + Sized {
    /// Draws a bar on standard error while the future is polled: its label, tasks ended and spawned, tasks a second, and the
    /// time until all that were spawned so far have ended. Draws nothing, and counts nothing, where that is no terminal.
    ///
    /// Counted are the tasks that the future itself spawns, in datadeps blocks inside it too, not those that its tasks spawn.
    /// The output is that of the future. When it ends the bar stays, with its last figures; when it is dropped before that,
    /// the bar stays as it is.
    ///
    /// ```
    /// use dagger_async::prelude::*;
    /// use dagger_trace::prelude::*;
    /// # #[tokio::main] async fn main() -> dagger_async::Result<()> {
    /// datadeps(async {
    ///     for i in 0..100 {
    ///         spawn!((|i: u64| i * i)(i));
    ///     }
    /// })
    /// .with_progress("squares")
    /// .await?;
    /// # Ok(()) }
    /// ```
    fn with_progress(self, label: &str) -> Progress<Self> {
        if std::io::stderr().is_terminal() {
            Progress::on(self, label, ProgressDrawTarget::stderr())
        } else {
            Progress { state: State::Silent(Box::pin(self)) }
        }
    }
}

impl<F: Future> WithProgress for F {}

/// The future of [`WithProgress::with_progress`].
#[must_use = "futures do nothing unless awaited"]
pub struct Progress<F> {
    state: State<F>,
}

enum State<F> {
    Silent(Pin<Box<F>>),
    Shown(Box<Shown<F>>),
}

struct Shown<F> {
    body: Counted<Pin<Box<F>>>,
    bar: Bar,
}

impl<F: Future> Progress<F> {
    fn on(body: F, label: &str, target: ProgressDrawTarget) -> Self {
        let body = counted(Box::pin(body));
        let bar = Bar::new(body.counter(), label, target);
        Progress { state: State::Shown(Box::new(Shown { body, bar })) }
    }
}

impl<F: Future> Future for Progress<F> {
    type Output = F::Output;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match &mut self.state {
            State::Silent(body) => body.as_mut().poll(cx),
            State::Shown(shown) => {
                shown.bar.start();
                let output = ready!(Pin::new(&mut shown.body).poll(cx));
                shown.bar.end();
                Poll::Ready(output)
            }
        }
    }
}

/// The bar and the thread that draws it.
struct Bar {
    counter: Counter,
    bar: ProgressBar,
    ended: Arc<(Mutex<bool>, Condvar)>,
    drawing: Option<JoinHandle<()>>,
}

impl Bar {
    fn new(counter: Counter, label: &str, target: ProgressDrawTarget) -> Bar {
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style =
            ProgressStyle::with_template("{prefix} {wide_bar:.cyan/dim} {counts} tasks  {rate}/s  {rest}")
                .expect("the template is one of ours")
                .progress_chars("━╸─")
                .with_key("counts", |state: &ProgressState, text: &mut dyn fmt::Write| {
                    let part = |number: u64| count(usize::try_from(number).unwrap_or(usize::MAX));
                    let _ = write!(text, "{}/{}", part(state.pos()), part(state.len().unwrap_or_default()));
                })
                .with_key("rate", |state: &ProgressState, text: &mut dyn fmt::Write| {
                    let _ = text.write_str(&count(state.per_sec().max(0.0) as usize));
                })
                .with_key("rest", |state: &ProgressState, text: &mut dyn fmt::Write| {
                    let shown = |time: Duration| {
                        crate::show::time(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
                    };
                    let _ = match state.is_finished() {
                        true => write!(text, "in {}", shown(state.elapsed())),
                        false => write!(text, "{} left", shown(state.eta())),
                    };
                });
        let bar = bar.with_style(style).with_prefix(short(label, LABEL_CHARS_MAX));
        Bar { counter, bar, ended: Arc::default(), drawing: None }
    }

    /// Begins to draw, once.
    fn start(&mut self) {
        if self.drawing.is_some() || self.bar.is_finished() {
            return;
        }
        let (counter, bar, ended) = (self.counter.clone(), self.bar.clone(), self.ended.clone());
        bar.reset_elapsed();
        let draw = move || {
            let (ended, changed) = &*ended;
            let mut over = ended.lock().unwrap_or_else(PoisonError::into_inner);
            while !*over {
                show(&bar, counter.count());
                bar.tick();
                let waited = changed.wait_timeout(over, EVERY);
                over = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        // Without a thread there is no bar until the end: no reason to fail what it belongs to.
        self.drawing = std::thread::Builder::new().name("dagger-progress".into()).spawn(draw).ok();
    }

    /// Draws the last figures, and no more.
    fn end(&mut self) {
        let (ended, changed) = &*self.ended;
        *ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_one();
        let Some(drawing) = self.drawing.take() else { return };
        let _ = drawing.join();
        show(&self.bar, self.counter.count());
        self.bar.abandon();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.end();
    }
}

fn show(bar: &ProgressBar, Count { spawned, ended, .. }: Count) {
    bar.set_length(spawned);
    bar.set_position(ended);
}

#[cfg(test)]
mod tests {
    use super::*;
    use dagger_async::prelude::*;
    use indicatif::InMemoryTerm;

    fn runtime() -> Runtime {
        Runtime::builder().threads(2).pin(false).build().unwrap()
    }

    fn on<F: Future>(body: F, term: &InMemoryTerm) -> Progress<F> {
        Progress::on(body, "fa\nctor", ProgressDrawTarget::term_like(Box::new(term.clone())))
    }

    #[test]
    fn a_bar_shows_what_was_spawned_and_what_has_ended() {
        let term = InMemoryTerm::new(5, 100);
        let (go, went) = tokio::sync::oneshot::channel::<()>();
        let (seen, look) = (term.clone(), Mutex::new(Some(go)));
        let bar = runtime().block_on(async {
            let block = datadeps(async {
                for _ in 0..1233 {
                    spawn!((|| ())());
                }
                spawn(async move { went.await.unwrap() });
            });
            // Looked at by a task: it goes on when the one that waits is all that is left to be shown.
            let looker = spawn(async move {
                let until = std::time::Instant::now() + Duration::from_secs(20); // to fail, not to hang
                while !seen.contents().contains("1,233/1,234 tasks") && std::time::Instant::now() < until {
                    tokio::task::yield_now().await;
                }
                let line = seen.contents();
                look.lock().unwrap().take().unwrap().send(()).unwrap();
                line
            });
            on(block, &term).await.unwrap();
            looker.await.unwrap()
        });
        assert!(bar.contains("1,233/1,234 tasks"), "{bar}");
        assert!(bar.starts_with("fa ctor ━") && bar.ends_with(" left"), "{bar}");
        let last = term.contents();
        assert!(last.contains("1,234/1,234 tasks  ") && last.contains("/s  in "), "{last}");
        assert_eq!(last.lines().count(), 1, "{last}");
    }

    #[test]
    fn a_block_that_is_dropped_leaves_its_bar_and_no_thread() {
        let term = InMemoryTerm::new(5, 100);
        let rt = runtime();
        rt.block_on(async {
            let block = datadeps(async {
                spawn(std::future::pending::<()>()).await.unwrap();
            });
            let mut bar = Box::pin(on(block, &term));
            assert!(futures_poll(&mut bar).await.is_pending());
            drop(bar);
        });
        assert!(term.contents().contains("/1 tasks"), "{}", term.contents());
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
    }

    #[test]
    fn nothing_is_counted_or_written_where_there_is_no_terminal() {
        let bar = async {}.with_progress("quiet");
        match &bar.state {
            State::Silent(_) => assert!(!std::io::stderr().is_terminal()),
            State::Shown(..) => assert!(std::io::stderr().is_terminal()),
        }
    }
}
