//! What of the application's panics, wakers, subscriber or recorder, takes no lease along, and nobody's news of one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use lockkeeper::{LeaseFault, LeaseHandler, LeaseStanding, LeaseVerdict, LeaseView, LostReason};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use parking_lot::Mutex;

use crate::store::{Fault, Memory, Op, broken, soon, until};
use crate::{MS, builder, leases};

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(soon(future))
}

struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        panic!("a waker that panics");
    }
}

#[derive(Default)]
struct Told(AtomicBool);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Looks at the lease where it is woken.
struct Looks(LeaseView, Mutex<Option<LeaseStanding>>);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        *self.1.lock() = Some(self.0.standing());
    }
}

/// Polls a future that is not ready.
fn arm<F: Future>(
    mut future: Pin<Box<F>>,
    waker: Arc<impl Wake + Send + Sync + 'static>,
) -> Pin<Box<F>> {
    let polled = future
        .as_mut()
        .poll(&mut Context::from_waker(&Waker::from(waker)));
    assert!(polled.is_pending());
    future
}

#[test]
fn a_waker_that_panics_takes_along_neither_the_news_of_a_loss_nor_another_lease() {
    let store = Memory::new();
    let leases = leases(&store);
    let lost = block_on(leases.acquire("lost")).unwrap();
    let kept = block_on(leases.acquire("kept")).unwrap();
    let _token = arm(
        Box::pin(lost.cancellation().cancelled_owned()),
        Arc::new(Bomb),
    );
    let _before = arm(Box::pin(lost.lost()), Arc::new(Bomb));
    let told = Arc::new(Told::default());
    let mut waits = arm(Box::pin(lost.lost()), Arc::clone(&told));
    let _after = arm(Box::pin(lost.lost()), Arc::new(Bomb));
    block_on(leases.force_release("lost")).unwrap();
    block_on(until(|| told.0.load(Ordering::SeqCst)));
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(
        waits.as_mut().poll(&mut cx),
        Poll::Ready(LostReason::Forced)
    );
    assert!(lost.cancellation().is_cancelled());
    assert!(kept.is_held());
    assert!(block_on(leases.try_acquire("another")).unwrap().is_held());
}

#[test]
fn whoever_is_woken_by_a_loss_may_look_at_the_lease() {
    let store = Memory::new();
    let leases = leases(&store);
    let guard = block_on(leases.acquire("job")).unwrap();
    let looks = [(), ()].map(|()| Arc::new(Looks(guard.claim_view(), Mutex::default())));
    let _token = arm(
        Box::pin(guard.cancellation().cancelled_owned()),
        Arc::clone(&looks[0]),
    );
    let _waits = arm(Box::pin(guard.lost()), Arc::clone(&looks[1]));
    // On a thread of its own, so that one that waits for itself is seen.
    let forced = std::thread::spawn(move || block_on(leases.force_release("job")));
    let lost = Some(LeaseStanding::Lost(LostReason::Forced));
    block_on(until(|| looks.iter().all(|looks| *looks.1.lock() == lost)));
    forced.join().unwrap().unwrap();
}

/// A subscriber that panics over whatever happens.
struct Panicking;

impl tracing::Subscriber for Panicking {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "lockkeeper"
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        panic!("a subscriber that panics over {}", event.metadata().name());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// A recorder that panics over whatever is counted.
impl Recorder for Panicking {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        panic!("a recorder that panics over {}", key.name());
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        panic!("a recorder that panics over {}", key.name());
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("a recorder that panics over {}", key.name());
    }
}

#[test]
fn a_subscriber_that_panics_over_a_loss_breaks_no_other_lease() {
    let store = Memory::new();
    let leases = leases(&store);
    let lost = block_on(leases.acquire("lost")).unwrap();
    let kept = block_on(leases.acquire("kept")).unwrap();
    let record =
        tracing::subscriber::with_default(Panicking, || block_on(leases.force_release("lost")));
    assert!(record.unwrap().is_some());
    assert_eq!(block_on(lost.lost()), LostReason::Forced);
    assert!(kept.is_held());
    assert!(block_on(leases.try_acquire("another")).is_ok());
}

#[test]
fn a_recorder_that_panics_over_a_grant_or_an_end_breaks_no_lease() {
    let store = Memory::new();
    let leases = leases(&store);
    let kept = block_on(leases.acquire("kept")).unwrap();
    let granted = metrics::with_local_recorder(&Panicking, || {
        let guard = block_on(leases.try_acquire("job")).unwrap();
        block_on(guard.release()).unwrap();
        let guard = block_on(leases.try_acquire("job")).unwrap();
        block_on(leases.force_release("job")).unwrap();
        assert_eq!(block_on(guard.lost()), LostReason::Forced);
        block_on(leases.try_acquire("job"))
    });
    assert!(granted.unwrap().is_held() && kept.is_held());
}

#[test]
fn wake_ups_of_a_store_that_panic_and_a_subscriber_that_panics_over_them_break_no_lease() {
    let store = Memory::waking();
    let leases = builder(&store).start().unwrap();
    let kept = block_on(leases.acquire("kept")).unwrap();
    store.steal("job", "somebody", Duration::from_secs(60));
    block_on(async {
        let waiting = tokio::spawn(leases.acquire("job"));
        until(|| store.listeners() == 1).await;
        store.wake(|| panic!("a store whose wake-ups panic"));
        until(|| store.listeners() == 0).await;
        until(|| store.listeners() == 1).await;
        store.wake(|| {
            let subscriber = tracing::subscriber::set_default(Panicking);
            // On the thread of the leases, for good.
            std::mem::forget(subscriber);
            Err(broken())
        });
        until(|| store.listeners() == 0).await;
        until(|| store.listeners() == 1).await;
        let refreshes = store.asked(Op::Refresh);
        until(|| store.asked(Op::Refresh) > refreshes).await;
        assert!(kept.is_held() && !waiting.is_finished());
        waiting.abort();
    });
}

/// A handler that panics wherever it can, over and over.
struct Burns(Arc<AtomicBool>);

impl LeaseHandler for Burns {
    fn store_failed(&self, _: &LeaseFault<'_>) -> LeaseVerdict {
        std::panic::panic_any(PanicsOnceMore);
    }
}

impl Drop for Burns {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
        panic!("a handler that panics while it is dropped");
    }
}

struct PanicsOnceMore;

impl Drop for PanicsOnceMore {
    fn drop(&mut self) {
        panic!("a panic that panics");
    }
}

#[test]
fn a_handler_that_panics_when_it_is_asked_and_dropped_breaks_no_lease() {
    let store = Memory::new();
    // Saying where it panics takes long.
    let leases = builder(&store).expiration(60_000 * MS).start().unwrap();
    let kept = block_on(leases.acquire("kept")).unwrap();
    let gone = Arc::new(AtomicBool::new(false));
    let handler = Burns(Arc::clone(&gone));
    let guard = block_on(leases.lease("job").handler(handler).acquire()).unwrap();
    store.next(Op::Refresh, &[Fault::Fail]);
    let refreshes = store.asked(Op::Refresh);
    block_on(until(|| store.asked(Op::Refresh) > refreshes + 1));
    assert!(guard.is_held());
    // Its last trace is dropped by the thread of the leases, when the store has answered.
    drop(guard);
    block_on(until(|| gone.load(Ordering::SeqCst)));
    assert!(kept.is_held());
    assert!(block_on(leases.try_acquire("another")).unwrap().is_held());
}
