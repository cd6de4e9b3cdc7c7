//! The signals that ask a process to end, as a future for any executor.
//!
//! A thread of its own listens to them: the application may have no runtime, or one that ends first.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

/// A signal that asks the process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signal {
    /// SIGINT: somebody at a terminal wants it to end (Ctrl-C).
    Interrupt,
    /// SIGTERM: a service manager or an orchestrator wants it to end.
    Terminate,
}

/// The next SIGTERM or SIGINT, for [`Keeper::shutdown_on`](crate::Keeper::shutdown_on), under any executor or none.
///
/// From this call on these signals do not end the process any more, also after the answer was dropped: whoever asks for them has
/// to see to the end. On systems without these signals it is Ctrl-C alone.
///
/// # Errors
///
/// What the system answers: no thread is left, or a handler cannot be set.
pub fn termination() -> io::Result<Termination> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (send, received) = mpsc::channel(UNSEEN);
    let (stop, stopped) = oneshot::channel();
    // Before this returns, so that none is missed.
    let signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    let thread = thread::Builder::new()
        .name("lockkeeper-signal".into())
        .spawn(move || runtime.block_on(listen(signals, send, stopped)))?;
    Ok(Termination {
        received,
        stop: Some(stop),
        thread: Some(thread),
    })
}

/// The signals that ask the process to end; see [`termination`].
///
/// As a future it ends with the next one, and can be polled again for the one after: whoever presses Ctrl-C twice is in a hurry.
///
/// ```no_run
/// use std::time::Duration;
/// use lockkeeper::{Keeper, termination};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let keeper = Keeper::open("data")?;
/// let mut signals = termination()?;
/// (&mut signals).await;
/// tokio::select! {
///     stopped = keeper.shutdown(Duration::from_secs(30)) => stopped?,
///     _ = &mut signals => keeper.shutdown(Duration::ZERO).await?,
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "it tells of signals when it is awaited"]
pub struct Termination {
    received: mpsc::Receiver<Signal>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Future for Termination {
    type Output = Signal;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Signal> {
        match self.received.poll_recv(context) {
            Poll::Ready(Some(signal)) => Poll::Ready(signal),
            // The thread goes on as long as this is here.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Termination {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to do but end.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Termination").finish_non_exhaustive()
    }
}

async fn listen(
    mut signals: Signals,
    received: mpsc::Sender<Signal>,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        let next = std::future::poll_fn(|cx| match Pin::new(&mut stopped).poll(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => signals.poll_next(cx).map(Some),
        });
        let Some(signal) = next.await else { return };
        tracing::info!(target: "lockkeeper", ?signal, "a signal asks for the end");
        // More than anybody looks at say nothing new.
        let _ = received.try_send(signal);
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        if self.terminate.poll_recv(cx).is_ready() {
            return Poll::Ready(Signal::Terminate);
        }
        self.interrupt.poll_recv(cx).map(|_| Signal::Interrupt)
    }
}

#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn listen() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        self.0.poll_recv(cx).map(|_| Signal::Interrupt)
    }
}

/// So many signals are kept for somebody who does not look.
const UNSEEN: usize = 8;
