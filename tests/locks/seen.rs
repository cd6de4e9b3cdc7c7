//! What others can see of the table: metrics, and what it warns of.

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

/// What is logged meanwhile.
fn log_of<R>(run: impl FnOnce() -> R) -> (String, R) {
    struct Writer(Arc<parking_lot::Mutex<Vec<u8>>>);
    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Arc::new(parking_lot::Mutex::new(Vec::new()));
    crate::listening::beside_others();
    let written = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || Writer(Arc::clone(&written)))
        .finish();
    let answer = tracing::subscriber::with_default(subscriber, run);
    let log = String::from_utf8(log.lock().clone()).unwrap();
    (log, answer)
}

const ENDLESS: &str = "a deadlock would last for ever";

#[test]
fn the_start_warns_when_nothing_would_end_a_deadlock_and_only_then() {
    let (log, _locks) = log_of(|| Locks::start(without_detection()));
    let warning = log.lines().find(|line| line.contains(ENDLESS)).unwrap();
    assert!(warning.contains("WARN"), "{warning}");
    for setting in [
        "lock_timeout",
        "txn_timeout",
        "detect_interval",
        "detect_on_block",
    ] {
        assert!(warning.contains(setting), "{warning}");
    }
    // Each of the four alone is enough, and so are the defaults.
    let some_time = Duration::from_secs(60);
    for config in [
        LockConfig {
            lock_timeout: some_time,
            ..without_detection()
        },
        LockConfig {
            txn_timeout: some_time,
            ..without_detection()
        },
        LockConfig {
            detect_interval: some_time,
            ..without_detection()
        },
        LockConfig {
            detect_on_block: true,
            ..without_detection()
        },
        LockConfig::default(),
    ] {
        let (log, _locks) = log_of(|| Locks::start(config));
        assert_eq!(log, "");
    }
}

#[test]
fn a_change_that_leaves_nothing_to_end_a_deadlock_warns_too() {
    let locks = Locks::start(LockConfig::default());
    let no_detection = SetDetect {
        on_block: Some(false),
        interval: Some(Duration::ZERO),
        ..SetDetect::default()
    };
    let (log, ()) = log_of(|| locks.set_detect(no_detection));
    assert_eq!(log, "", "there is a timeout");
    let no_timeout = SetTimeouts {
        lock: Some(Duration::ZERO),
        ..SetTimeouts::default()
    };
    let (log, ()) = log_of(|| locks.set_timeouts(no_timeout));
    assert!(log.contains(ENDLESS), "{log}");
}
