//! Deadlines that work under any executor.
//!
//! The callers of a keeper live in actix, in tokio of either kind, or on plain threads, and an actor's own timers starve
//! while its mailbox is full. So deadlines are kept by one thread that does nothing else: a tokio runtime with nothing but
//! the timer in it. A [`Sleep`] made here may be polled anywhere; its runtime lives as long as any clone of the [`Clock`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The timer thread; cheap to clone.
#[derive(Clone)]
pub(crate) struct Clock {
    inner: Arc<Inner>,
}

struct Inner {
    handle: Handle,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Clock {
    /// Starts the timer thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name("lockkeeper-timer".into())
            .spawn(move || {
                // The sender is dropped with the last clock: both answers mean "stop".
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            inner: Arc::new(Inner {
                handle,
                stop: Mutex::new(Some(stop)),
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// A future that ends at `at`.
    pub(crate) fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep {
            clock: self.clone(),
            at,
            timer: None,
        }
    }

    /// Runs `future` until `at`; `None` when the time ran out first.
    pub(crate) async fn until<F: Future>(&self, at: Instant, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        let mut sleep = std::pin::pin!(self.sleep_until(at));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(out) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(out));
            }
            sleep.as_mut().poll(cx).map(|()| None)
        })
        .await
    }

    /// Calls `tick` every `period` on the timer thread until it answers `false`. It must be short.
    pub(crate) fn every(&self, period: Duration, mut tick: impl FnMut() -> bool + Send + 'static) {
        self.inner.handle.spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                if !tick() {
                    return;
                }
            }
        });
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.stop.lock().take());
        if let Some(thread) = self.thread.lock().take()
            && thread.thread().id() != thread::current().id()
        {
            // The thread has nothing to do but end.
            let _ = thread.join();
        }
    }
}

/// See [`Clock::sleep_until`]. The timer itself is made at the first poll that has to wait.
pub(crate) struct Sleep {
    clock: Clock,
    at: Instant,
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let timer = this.timer.get_or_insert_with(|| {
            let _context = this.clock.inner.handle.enter();
            Box::pin(tokio::time::sleep_until(this.at.into()))
        });
        // Polled outside of any runtime's budget, so that a busy task does not miss its deadline.
        let timer = std::pin::pin!(tokio::task::coop::unconstrained(timer.as_mut()));
        timer.poll(cx)
    }
}

/// `start + span`, or a time so far away that nobody waits for it.
pub(crate) fn far(start: Instant, span: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    start.checked_add(span.min(CENTURY)).unwrap_or(start)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on the calling thread, which is parked while it waits. It needs no runtime, and works inside one.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(out) => return out,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_passes_without_a_runtime() {
        let clock = Clock::start().unwrap();
        let start = Instant::now();
        let out = block_on(clock.until(
            start + Duration::from_millis(20),
            std::future::pending::<()>(),
        ));
        assert!(out.is_none());
        assert!(start.elapsed() >= Duration::from_millis(20));
    }

    #[test]
    fn a_sleep_outlives_every_other_owner_of_its_clock() {
        let clock = Clock::start().unwrap();
        let sleep = clock.sleep_until(Instant::now() + Duration::from_millis(10));
        drop(clock);
        block_on(sleep);
    }

    #[test]
    fn an_endless_span_does_not_overflow() {
        assert!(far(Instant::now(), Duration::MAX) > Instant::now());
    }
}
