//! What others can see of the table: metrics.

use metrics_util::debugging::{DebugValue, DebuggingRecorder};

use super::*;

#[test]
fn waits_and_deadlocks_are_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let locks = Locks::start(LockConfig {
            lock_timeout: Duration::ZERO,
            ..LockConfig::default()
        });
        let [one, two] = [(); 2].map(|()| locks.locker(LockerSpec::new()).unwrap());
        one.blocking_lock(&object("a"), Mode::Write, Wait::No)
            .unwrap();
        two.blocking_lock(&object("b"), Mode::Write, Wait::No)
            .unwrap();
        let (a, b) = (object("a"), object("b"));
        let mut waiting = Box::pin(one.lock(&b, Mode::Write, Wait::Forever));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let error = two
            .blocking_lock(&a, Mode::Write, Wait::Forever)
            .unwrap_err();
        assert!(matches!(error, LockError::Deadlock(_)));
        drop(two);
        assert!(matches!(
            waiting.as_mut().poll(&mut context),
            Poll::Ready(Ok(()))
        ));
    });
    let mut seen: Vec<(String, u64)> = Vec::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let count = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(values) => values.len() as u64,
            DebugValue::Gauge(_) => continue,
        };
        seen.push((key.key().name().to_owned(), count));
    }
    seen.sort();
    let expected = [
        ("lockkeeper_deadlocks_total", 1),
        // Who closed the cycle was told at once, and did not wait.
        ("lockkeeper_lock_wait_seconds", 1),
        ("lockkeeper_lock_waits_total", 1),
    ];
    assert_eq!(seen, expected.map(|(name, count)| (name.to_owned(), count)));
}

/// Several operations wait as a single request does, and are seen as it is.
#[test]
fn waits_of_several_operations_are_measured_too() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let locks = Locks::start(LockConfig::default());
        let [one, two] = [(); 2].map(|()| locks.locker(LockerSpec::new()).unwrap());
        one.blocking_lock(&object("a"), Mode::Write, Wait::No)
            .unwrap();
        let ops = LockOps::new().lock_wait(object("a"), Mode::Write, Wait::Forever);
        let mut running = Box::pin(two.run(ops));
        let mut context = Context::from_waker(Waker::noop());
        assert!(running.as_mut().poll(&mut context).is_pending());
        drop(one);
        assert!(running.as_mut().poll(&mut context).is_ready());
    });
    let mut waited = 0;
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        if let (DebugValue::Histogram(values), "lockkeeper_lock_wait_seconds") =
            (value, key.key().name())
        {
            waited += values.len();
        }
    }
    assert_eq!(waited, 1, "lockkeeper_lock_waits_total counts it");
}
