//! Deadlines that work under any executor.
//!
//! The callers of a keeper live in actix, in tokio of either kind, or on plain threads, and an actor's own timers starve
//! while its mailbox is full. So deadlines are kept by one thread that does nothing else: it parks until the next one. Nearly
//! every deadline is taken back long before it passes, which must cost little: a deadline is an entry in one of a few ordered
//! maps, each behind a short mutex, and the thread is woken only for one that is earlier than it would wake up anyway.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

use crate::env::quietly;

/// The timer thread; cheap to clone.
#[derive(Clone)]
pub(crate) struct Clock {
    owner: Arc<Owner>,
}

/// Ends the thread with the last clock and the last sleep.
struct Owner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    start: Instant,
    shards: [CachePadded<Mutex<BTreeMap<Key, Waker>>>; SHARDS],
    periodic: Mutex<Vec<Periodic>>,
    /// When the thread wakes up, in nanoseconds since the start; while it looks around, never.
    next: AtomicU64,
    ids: AtomicU64,
    thread: OnceLock<Thread>,
    stop: AtomicBool,
}

/// The deadline, in nanoseconds since the start, and a number that makes it unique.
type Key = (u64, u64);

struct Periodic {
    period: Duration,
    next: u64,
    tick: Box<dyn FnMut() -> bool + Send>,
}

/// Enough that callers on several threads rarely meet.
const SHARDS: usize = 8;
/// The thread looks around at least so often, so that ordinary deadlines, which are later, do not have to wake it.
const LONGEST_PARK: Duration = Duration::from_secs(1);

impl Clock {
    /// Starts the timer thread.
    pub(crate) fn start() -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            start: Instant::now(),
            shards: std::array::from_fn(|_| CachePadded::default()),
            periodic: Mutex::default(),
            next: AtomicU64::new(u64::MAX),
            ids: AtomicU64::new(0),
            thread: OnceLock::new(),
            stop: AtomicBool::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("lockkeeper-timer".into())
            .spawn(move || for_thread.run())?;
        // Set before anybody has the clock to wait on.
        let _ = shared.thread.set(thread.thread().clone());
        Ok(Self {
            owner: Arc::new(Owner {
                shared,
                thread: Mutex::new(Some(thread)),
            }),
        })
    }

    /// A future that ends at `at`.
    pub(crate) fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep {
            owner: Arc::clone(&self.owner),
            at,
            entry: None,
        }
    }

    /// Ends the thread and waits for its end. From here on nothing waits: every sleep is over.
    pub(crate) fn stop(&self) {
        self.owner.stop();
        for shard in &self.owner.shared.shards {
            let late = std::mem::take(&mut *shard.lock());
            late.into_values()
                .for_each(|waker| quietly(|| waker.wake()));
        }
    }

    /// Runs `future` until `at`; `None` when the time ran out first.
    pub(crate) async fn until<F: Future>(&self, at: Instant, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
        // Made when it is needed: most futures are ready at their first poll.
        let mut sleep = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(out) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(out));
            }
            let sleep = sleep.get_or_insert_with(|| self.sleep_until(at));
            Pin::new(sleep).poll(cx).map(|()| None)
        })
        .await
    }

    /// Calls `tick` every `period` on the timer thread until it answers `false`. It must be short.
    pub(crate) fn every(&self, period: Duration, tick: impl FnMut() -> bool + Send + 'static) {
        let shared = &self.owner.shared;
        let next = shared.nanos(far(Instant::now(), period));
        shared.periodic.lock().push(Periodic {
            period,
            next,
            tick: Box::new(tick),
        });
        shared.wake_for(next);
    }
}

impl Shared {
    fn nanos(&self, at: Instant) -> u64 {
        let span = at.saturating_duration_since(self.start);
        u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Wakes the thread if it would sleep beyond `deadline`. The entry is in its map already: whoever looks next sees it.
    fn wake_for(&self, deadline: u64) {
        if deadline < self.next.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    fn run(&self) {
        while !self.stop.load(Ordering::Acquire) {
            // Whoever comes while the thread looks around wakes it: it then looks again instead of parking.
            self.next.store(u64::MAX, Ordering::SeqCst);
            let now = self.nanos(Instant::now());
            let longest = u64::try_from(LONGEST_PARK.as_nanos()).unwrap_or(u64::MAX);
            let mut next = now.saturating_add(longest);
            for shard in &self.shards {
                let (late, earliest) = {
                    let mut entries = shard.lock();
                    let rest = entries.split_off(&(now.saturating_add(1), 0));
                    let late = std::mem::replace(&mut *entries, rest);
                    (late, entries.keys().next().map(|&(at, _)| at))
                };
                // They are the application's executor's: one that panics must not take everybody's deadlines along.
                late.into_values()
                    .for_each(|waker| quietly(|| waker.wake()));
                next = next.min(earliest.unwrap_or(u64::MAX));
            }
            next = next.min(self.tick(now));
            self.next.store(next, Ordering::SeqCst);
            let now = self.nanos(Instant::now());
            if next > now {
                thread::park_timeout(Duration::from_nanos(next - now));
            }
        }
    }

    /// Runs what is due and answers when something is due next.
    fn tick(&self, now: u64) -> u64 {
        let mut due = {
            let mut periodic = self.periodic.lock();
            periodic
                .extract_if(.., |periodic| periodic.next <= now)
                .collect::<Vec<_>>()
        };
        // Outside of the lock: a tick may add another.
        due.retain_mut(|periodic| {
            let mut goes_on = true;
            quietly(|| goes_on = (periodic.tick)());
            goes_on
        });
        for periodic in &mut due {
            periodic.next = self.nanos(far(Instant::now(), periodic.period));
        }
        let mut periodic = self.periodic.lock();
        periodic.append(&mut due);
        periodic
            .iter()
            .map(|periodic| periodic.next)
            .min()
            .unwrap_or(u64::MAX)
    }
}

impl Owner {
    fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        thread.thread().unpark();
        if thread.thread().id() != thread::current().id() {
            // The thread has nothing to do but end.
            let _ = thread.join();
        }
        self.shared.periodic.lock().clear();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// See [`Clock::sleep_until`]. It costs nothing until it has to wait.
pub(crate) struct Sleep {
    owner: Arc<Owner>,
    at: Instant,
    entry: Option<(usize, Key, Waker)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let shared = &this.owner.shared;
        let Some((shard, key, waker)) = &mut this.entry else {
            let key = (
                shared.nanos(this.at),
                shared.ids.fetch_add(1, Ordering::Relaxed),
            );
            let shard = own_shard();
            let waker = cx.waker().clone();
            if let Some(entries) = shared.shards.get(shard) {
                entries.lock().insert(key, waker.clone());
            }
            shared.wake_for(key.0);
            this.entry = Some((shard, key, waker));
            // The thread may have ended before the entry was there.
            return match shared.stop.load(Ordering::Acquire) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            };
        };
        if Instant::now() >= this.at || shared.stop.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        let Some(entries) = shared.shards.get(*shard) else {
            return Poll::Pending;
        };
        let mut entries = entries.lock();
        // An entry that was taken out a moment too early, by a clock that rounds, is put back.
        let gone = !entries.contains_key(key);
        if gone || !waker.will_wake(cx.waker()) {
            waker.clone_from(cx.waker());
            entries.insert(*key, waker.clone());
            drop(entries);
            if gone {
                shared.wake_for(key.0);
            }
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some((shard, key, _)) = &self.entry
            && let Some(entries) = self.owner.shared.shards.get(*shard)
        {
            entries.lock().remove(key);
        }
    }
}

/// The shard of the calling thread.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    OWN.with(|own| *own)
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

/// A monotonic time that is cheap to read and exact to a few milliseconds.
#[cfg(target_os = "linux")]
pub(crate) fn coarse_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// A monotonic time.
#[cfg(not(target_os = "linux"))]
pub(crate) fn coarse_now() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}

/// The time of [`coarse_now`], exactly.
#[cfg(target_os = "linux")]
pub(crate) fn exact_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// The time of [`coarse_now`], exactly.
#[cfg(not(target_os = "linux"))]
pub(crate) fn exact_now() -> Duration {
    coarse_now()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

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
    fn sleeps_on_many_threads_end_in_time_and_leave_nothing_behind() {
        let clock = Clock::start().unwrap();
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let clock = clock.clone();
                thread::spawn(move || {
                    for n in 0..100_u64 {
                        let at = Instant::now() + Duration::from_micros((n * 37 + thread) % 900);
                        block_on(clock.sleep_until(at));
                        assert!(Instant::now() >= at);
                        drop(clock.sleep_until(at + Duration::from_secs(9)));
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let shards = &clock.owner.shared.shards;
        assert!(shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[test]
    fn an_early_deadline_wakes_a_thread_that_sleeps_towards_a_late_one() {
        let clock = Clock::start().unwrap();
        let late = clock.sleep_until(Instant::now() + Duration::from_secs(600));
        let mut late = Box::pin(late);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(late.as_mut().poll(&mut cx).is_pending());
        block_on(clock.sleep_until(Instant::now() + Duration::from_millis(1)));
    }

    #[test]
    fn what_is_periodic_goes_on_until_it_says_stop() {
        let clock = Clock::start().unwrap();
        let (ticked, ticks) = mpsc::channel();
        let mut left = 3;
        clock.every(Duration::from_millis(1), move || {
            left -= 1;
            ticked.send(left).unwrap();
            left > 0
        });
        assert_eq!(ticks.iter().collect::<Vec<_>>(), [2, 1, 0]);
    }

    #[test]
    fn an_endless_span_does_not_overflow() {
        assert!(far(Instant::now(), Duration::MAX) > Instant::now());
    }
}
