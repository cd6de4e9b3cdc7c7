//! The lock table through its doors: what is left when a future is dropped or a table shut down, what is called
//! under its mutex, and the locks that a transaction declares.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use lockkeeper::{
    Acquire, CommitLocker, Keeper, LockConfig, LockError, LockEvent, LockGuard, LockMany, LockOps,
    Locker, LockerSpec, Locks, Mode, Object, RunTxn, SetDetect, SetTimeouts, TxnError, Upgrade,
    Wait,
};

use crate::support::{Plug, SOON, Sent, block_on, folder, get, open, putting, until};

fn object(name: &str) -> Object {
    Object::new("n", name.as_bytes())
}

fn locker(locks: &Locks) -> Arc<Locker> {
    Arc::new(locks.locker(LockerSpec::new()).unwrap())
}

#[track_caller]
fn take(locker: &Locker, name: &str, mode: Mode) {
    locker.blocking_lock(&object(name), mode, Wait::No).unwrap();
}

#[test]
fn several_operations_end_with_the_table() {
    // "Refuses everything that waits, and everything that comes": what was granted unseen goes on to its next request.
    let locks = Locks::start(LockConfig::default());
    let (holder, asker) = (locker(&locks), locker(&locks));
    for name in ["a", "b"] {
        take(&holder, name, Mode::Write);
    }
    let ops = LockOps::new()
        .lock_wait(object("a"), Mode::Write, Wait::Forever)
        .lock_wait(object("b"), Mode::Write, Wait::Forever);
    let mut run = Sent::new(async move { asker.run(ops).await.map(|_| ()) });
    assert!(holder.unlock(&object("a"), Mode::Write));
    locks.shutdown();
    match run.poll() {
        Some(Err(failed)) => assert!(matches!(failed.error, LockError::ShuttingDown)),
        Some(Ok(())) => panic!("b is held"),
        None => panic!("it waits in a table that is shut down, for ever"),
    }
}

/// Runs it on a thread of its own, and says whether it came to its end.
fn comes_to_its_end(run: impl FnOnce() + Send + 'static) -> bool {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        run();
        let _ = done.send(());
    });
    is_done.recv_timeout(SOON).is_ok()
}

/// Whatever is told, it asks the table something.
struct Curious(Locks);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Curious {
    fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let _ = self.0.stats();
    }
}

#[test]
fn a_subscriber_of_the_log_may_ask_the_table_when_settings_change() {
    use tracing_subscriber::layer::SubscriberExt;

    let ended = comes_to_its_end(|| {
        let locks = Locks::start(LockConfig {
            detect_on_block: false,
            detect_interval: Duration::ZERO,
            ..LockConfig::default()
        });
        crate::listening::beside_others();
        let curious = tracing_subscriber::registry().with(Curious(locks.clone()));
        tracing::subscriber::with_default(curious, || {
            locks.set_timeouts(SetTimeouts {
                lock: Some(Duration::ZERO),
                ..SetTimeouts::default()
            });
        });
    });
    assert!(ended, "the warning is given under the table's mutex");
}

impl metrics::Recorder for Curious {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        let _ = self.0.stats();
        metrics::Counter::noop()
    }
    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }
    fn register_histogram(
        &self,
        _: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

#[test]
fn a_recorder_of_metrics_may_ask_the_table() {
    let ended = comes_to_its_end(|| {
        let locks = Locks::start(LockConfig::default());
        let (holder, asker) = (locker(&locks), locker(&locks));
        take(&holder, "a", Mode::Write);
        metrics::with_local_recorder(&Curious(locks.clone()), || {
            let ops = LockOps::new().lock(object("a"), Mode::Write);
            drop(Sent::new(async move { asker.run(ops).await.map(|_| ()) }));
        });
    });
    assert!(ended, "the wait is counted under the table's mutex");
}

/// A guard of `locker`, as the front door gives it.
fn guard(keeper: &Keeper, locker: &Arc<Locker>, name: &str, mode: Mode) -> LockGuard {
    let acquire = Acquire::new(object(name), mode).locker(Arc::clone(locker));
    keeper.blocking_send(acquire).unwrap()
}

/// Begins an upgrade, which waits for `other`.
macro_rules! waits_for {
    ($upgrade:expr) => {
        let polled = block_on(std::future::poll_fn(|context| {
            std::task::Poll::Ready($upgrade.as_mut().poll(context))
        }));
        assert!(polled.is_pending());
    };
}

#[track_caller]
fn holds_nothing(locks: &Locks, owner: &Locker) {
    let snapshot = locks.snapshot();
    let held = snapshot.held.iter();
    let left: Vec<_> = held.filter(|held| held.locker == owner.id()).collect();
    assert!(left.is_empty(), "its only guard is gone: {left:?}");
}

#[test]
fn i12_an_upgrade_that_a_dead_locker_did_not_see_leaves_nothing_behind_its_guard() {
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let (owner, other) = (locker(keeper.locks()), locker(keeper.locks()));
    let mut held = guard(&keeper, &owner, "a", Mode::Read);
    take(&other, "a", Mode::Read);
    take(&other, "b", Mode::Write);
    let mut upgrade = Box::pin(held.upgrade(Mode::Write, Wait::Forever));
    waits_for!(upgrade);
    // Granted, and nobody looks; another wait of the same locker kills it.
    assert!(other.unlock(&object("a"), Mode::Read));
    let waited = owner.blocking_lock(
        &object("b"),
        Mode::Write,
        Wait::For(Duration::from_nanos(1)),
    );
    assert!(matches!(waited, Err(LockError::LockTimeout(_))));
    drop(upgrade);
    drop(held);
    holds_nothing(keeper.locks(), &owner);
}

#[test]
fn i12_an_upgrade_whose_way_back_is_barred_leaves_nothing_behind_its_guard() {
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let (owner, other) = (locker(keeper.locks()), locker(keeper.locks()));
    let mut held = guard(&keeper, &owner, "a", Mode::Read);
    take(&other, "a", Mode::Read);
    let mut upgrade = Box::pin(held.upgrade(Mode::IntentWrite, Wait::Forever));
    waits_for!(upgrade);
    assert!(other.unlock(&object("a"), Mode::Read));
    take(&other, "a", Mode::IntentWrite);
    drop(upgrade);
    drop(held);
    holds_nothing(keeper.locks(), &owner);
}

#[test]
fn i12_who_goes_away_while_messages_wait_leaves_nothing() {
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let locks = keeper.locks();
    let (owner, other) = (locker(locks), locker(locks));
    take(&other, "b", Mode::Write);
    let ops = LockOps::new().lock(object("a"), Mode::Write).lock_wait(
        object("b"),
        Mode::Write,
        Wait::Forever,
    );
    let many = Sent::new(keeper.send(LockMany::new(Arc::clone(&owner), ops)));
    until("it waits for b", || locks.stats().waiting == 1);
    drop(many);
    until("its sender has gone", || {
        locks.stats().waiting == 0 && locks.stats().locks.now == 1
    });
    let held = guard(&keeper, &owner, "c", Mode::Read);
    take(&other, "c", Mode::Read);
    let upgrade = Upgrade::new(held, Mode::Write).wait(Wait::Forever);
    let upgrade = Sent::new(keeper.lock_table().send(upgrade));
    until("it waits for c", || locks.stats().waiting == 1);
    drop(upgrade);
    until("its sender has gone", || {
        locks.stats().waiting == 0 && locks.stats().locks.now == 2
    });
}

#[test]
fn a_dead_child_that_is_committed_by_message_has_ended_as_by_its_method() {
    // "See `Locker::commit`": "it ends all the same, and its locks are released".
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let locks = keeper.locks();
    let (parent, other) = (locker(locks), locker(locks));
    let child = Arc::new(parent.child(LockerSpec::new()).unwrap());
    take(&child, "a", Mode::Write);
    take(&other, "b", Mode::Write);
    let waited = child.blocking_lock(
        &object("b"),
        Mode::Write,
        Wait::For(Duration::from_nanos(1)),
    );
    assert!(matches!(waited, Err(LockError::LockTimeout(_))));
    let commit = CommitLocker {
        locker: Arc::clone(&child),
    };
    assert!(matches!(
        keeper.blocking_send(commit),
        Err(LockError::Dead(_))
    ));
    let again = other.blocking_lock(&object("a"), Mode::Write, Wait::No);
    assert!(again.is_ok(), "its locks are released: {again:?}");
}

#[test]
fn a_declared_lock_is_not_lost_to_another_that_does_not_cover_it() {
    // Intent-write keeps readers of the whole out; read and update do not.
    for beside in [Mode::Read, Mode::Update] {
        let folder = folder();
        let keeper = Keeper::open(folder.path()).unwrap();
        let locks = keeper.locks().clone();
        let txn = RunTxn::update(move |_| {
            let other = locks.locker(LockerSpec::new()).unwrap();
            let read = other.blocking_lock(&object("whole"), Mode::Read, Wait::No);
            Ok(read.is_ok())
        });
        let txn = txn
            .lock(object("whole"), Mode::IntentWrite)
            .lock(object("whole"), beside);
        let read_beside = keeper.blocking_send(txn).unwrap();
        assert!(!read_beside, "intent-write and {beside}");
    }
}

#[test]
fn transactions_that_deadlock_over_a_range_both_end() {
    // Sorted declarations cannot deadlock over keys. Over a range they can, as the documentation of `in_order` says: the
    // range waits for the first key, and the next key behind the range.
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let locks = keeper.locks();
    let holder = locker(locks);
    take(&holder, "n0", Mode::Write);
    let points = RunTxn::update(|_| Ok(()))
        .write_lock(object("m"))
        .write_lock(object("n0"))
        .write_lock(object("n1"));
    let points = Sent::new(keeper.send(points));
    until("it holds m and waits for n0", || locks.stats().waiting == 1);
    let range = RunTxn::update(|_| Ok(())).write_lock(Object::whole("n"));
    let range = Sent::new(keeper.send(range));
    until("the other waits for m and n0", || {
        locks.stats().waiting == 2
    });
    assert!(holder.unlock(&object("n0"), Mode::Write));
    drop(holder);
    points.answer().unwrap();
    range.answer().unwrap();
    assert_eq!(locks.stats().deadlocks, 1, "{:?}", locks.history());
}

#[test]
fn a_transaction_timeout_is_retried() {
    // DESIGN: "What is retried is a closed list: a deadlock, a lock or transaction timeout".
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let locks = keeper.locks();
    let holder = locker(locks);
    take(&holder, "a", Mode::Write);
    locks.set_timeouts(SetTimeouts {
        lock: Some(Duration::ZERO),
        txn: Some(Duration::from_millis(20)),
        ..SetTimeouts::default()
    });
    let txn = RunTxn::update(|_| Ok(())).write_lock(object("a"));
    let mut sent = Sent::new(keeper.send(txn));
    let mut answer = None;
    until("it waits again, or has been answered", || {
        answer = answer.take().or_else(|| sent.poll());
        answer.is_some() || locks.stats().waits > 1
    });
    assert!(answer.is_none(), "{answer:?}");
}

#[test]
fn a_lock_held_too_long_is_told_and_no_more() {
    // DESIGN: "with `abort_on_max_hold` its transaction is aborted"; without it, it is told.
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let locks = keeper.locks();
    let holder = locker(locks);
    take(&holder, "b", Mode::Write);
    locks.set_timeouts(SetTimeouts {
        lock: Some(Duration::ZERO),
        max_hold: Some(Duration::from_millis(20)),
        ..SetTimeouts::default()
    });
    let txn = RunTxn::update(|_| Ok(()))
        .write_lock(object("a"))
        .write_lock(object("b"))
        .write_lock(object("c"));
    let sent = Sent::new(keeper.send(txn));
    until("both have held a lock too long", || {
        locks.stats().held_too_long == 2
    });
    assert!(holder.unlock(&object("b"), Mode::Write));
    let answer: Result<(), TxnError> = sent.answer();
    assert!(answer.is_ok(), "{answer:?}");
}

#[test]
fn no_lock_is_told_to_be_held_too_long_before_its_time() {
    let longest = Duration::from_millis(20);
    let locks = Locks::start(LockConfig {
        max_hold: longest,
        ..LockConfig::default()
    });
    let mut events = locks.subscribe();
    let holder = locker(&locks);
    let mut earliest = longest * 2;
    for round in 0..20 {
        // Somewhere between two ticks of the coarse clock.
        let next = Instant::now() + Duration::from_micros(1000 + 370 * round);
        while Instant::now() < next {}
        let begun = Instant::now();
        take(&holder, "a", Mode::Write);
        let told = block_on(events.recv()).unwrap();
        assert!(matches!(told, LockEvent::HeldTooLong(_)));
        earliest = earliest.min(begun.elapsed());
        holder.release_all();
    }
    assert!(
        earliest >= longest,
        "told after {earliest:?} of {longest:?}"
    );
}

#[test]
fn detection_and_deadlines_begin_while_the_clock_sleeps() {
    // Two who wait for each other for ever, in a table whose clock has nothing to wake for.
    let locks = Locks::start(LockConfig {
        detect_on_block: false,
        detect_interval: Duration::ZERO,
        ..LockConfig::default()
    });
    let (one, two) = (locker(&locks), locker(&locks));
    take(&one, "a", Mode::Write);
    take(&two, "b", Mode::Write);
    let asks = |locker: &Arc<Locker>, name: &'static str, wait| {
        let locker = Arc::clone(locker);
        Sent::new(async move { locker.lock(&object(name), Mode::Write, wait).await })
    };
    let mut first = asks(&one, "b", Wait::Forever);
    let second = asks(&two, "a", Wait::Forever);
    locks.set_detect(SetDetect {
        interval: Some(Duration::from_millis(1)),
        ..SetDetect::default()
    });
    assert!(matches!(second.answer(), Err(LockError::Deadlock(_))));
    assert!(first.poll().is_none());
    // A deadline that is nearer than the one it sleeps until.
    let far = locker(&locks);
    let far = asks(&far, "a", Wait::For(Duration::from_secs(1000)));
    let near = locker(&locks);
    let near = asks(&near, "a", Wait::For(Duration::from_millis(1)));
    assert!(matches!(near.answer(), Err(LockError::LockTimeout(_))));
    drop((first, far));
    assert_eq!(locks.stats().waiting, 0);
}

#[test]
fn a_transaction_that_holds_a_lock_too_long_is_aborted_where_that_is_wanted() {
    // DESIGN: "with `abort_on_max_hold` its transaction is aborted".
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let locks = keeper.locks();
    locks.set_timeouts(SetTimeouts {
        max_hold: Some(Duration::from_millis(20)),
        abort_on_max_hold: Some(true),
        ..SetTimeouts::default()
    });
    let plug = Plug::hold(&keeper);
    let txn = putting(numbers, 1, 1).write_lock(object("a"));
    let sent = Sent::new(keeper.send(txn));
    until("it was aborted before its body ran", || {
        let lockers = locks.snapshot().lockers;
        lockers.iter().any(|locker| locker.dead)
    });
    plug.release().unwrap();
    let answer: Result<(), TxnError> = sent.answer();
    assert!(answer.is_err(), "its locker is dead");
    assert_eq!(get(&keeper, numbers, 1), None);
}
