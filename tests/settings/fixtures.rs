//! The two files with every keyword make exactly this configuration.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lockkeeper::{Durability, VictimPolicy};
use parking_lot::Mutex;

use super::*;

#[test]
fn a_keeper_has_all_that_its_db_config_says() {
    let folder = folder(&[(DB_CONFIG, &fixture(DB_CONFIG))]);
    let keeper = Keeper::open(folder.path()).unwrap();
    let config = keeper.config();
    let from = |at| line(DB_CONFIG, at);
    assert_eq!(
        set(config),
        [
            ("durability", "\"no-meta-sync\"".into(), from(12)),
            ("queue", "500".into(), from(7)),
            ("detect_on_block", "true".into(), from(8)),
            ("detect_policy", "\"min-write\"".into(), from(8)),
            ("lock_timeout", "250ms".into(), from(9)),
            ("no_wait", "true".into(), from(13)),
            ("txn_timeout", "2s 500ms".into(), from(10)),
            ("max_lockers", "3000".into(), from(5)),
            ("max_locks", "20000".into(), from(4)),
            ("max_objects", "40000".into(), from(6)),
        ]
    );
    assert_eq!(
        without(config),
        [
            ("set_flags db_txn_snapshot", "on", from(16)),
            ("set_flags db_time_notgranted", "on", from(17)),
            ("set_lk_partitions", "40", from(18)),
            ("set_lk_tablesize", "4096", from(19)),
            ("mutex_set_max", "100000", from(20)),
            ("mutex_set_tas_spins", "50", from(21)),
            ("log_set_config", "db_log_auto_remove on", from(22)),
            ("set_memory_init", "DB_MEM_LOCK 10000", from(23)),
            ("set_memory_max", "0 268435456", from(24)),
            ("set_thread_count", "64", from(25)),
            ("set_verbose", "db_verb_deadlock on", from(26)),
            ("set_cachesize", "0 67108864 1", from(27)),
            ("set_open_flags", "db_init_txn on", from(28)),
        ]
    );
    let locks = keeper.locks().config();
    assert_eq!(locks.detect_policy, VictimPolicy::MinWrite);
    assert_eq!(locks.lock_timeout, Duration::from_micros(250_000));
    assert_eq!(locks.txn_timeout, Duration::from_micros(2_500_000));
    assert_eq!(
        (locks.max_lockers, locks.max_locks, locks.max_objects),
        (3_000, 20_000, 40_000)
    );
    assert!(locks.no_wait && locks.detect_on_block);
}

#[test]
fn a_keeper_has_all_that_its_je_properties_say() {
    let folder = folder(&[(JE, &fixture(JE))]);
    let keeper = Keeper::open(folder.path()).unwrap();
    let config = keeper.config();
    let from = |at| line(JE, at);
    assert_eq!(
        set(config),
        [
            ("durability", "\"no-meta-sync\"".into(), from(8)),
            ("detect_on_block", "false".into(), from(6)),
            ("detect_interval", "20ms".into(), from(6)),
            ("lock_timeout", "750ms".into(), from(3)),
            ("txn_timeout", "3s".into(), from(4)),
        ]
    );
    assert_eq!(config.durability(), Durability::NoMetaSync);
    assert_eq!(
        without(config),
        [
            (
                "je.txn.durability",
                "WRITE_NO_SYNC,NO_SYNC,SIMPLE_MAJORITY",
                from(8)
            ),
            ("je.txn.serializableIsolation", "true", from(11)),
            ("je.txn.deadlockStackTrace", "true", from(12)),
            ("je.txn.dumpLocks", "false", from(13)),
            ("je.lock.nLockTables", "7", from(14)),
            ("je.lock.oldLockExceptions", "false", from(15)),
        ]
    );
    let locks = keeper.locks().config();
    assert_eq!(locks.lock_timeout, Duration::from_millis(750));
    assert_eq!(locks.txn_timeout, Duration::from_secs(3));
    assert_eq!(locks.detect_interval, Duration::from_millis(20));
    assert!(!locks.detect_on_block);
}

#[test]
fn every_reason_says_something_and_none_that_it_is_only_not_there_yet() {
    for (name, chosen_elsewhere) in [
        (DB_CONFIG, "set_flags db_txn_snapshot"),
        (JE, "je.txn.serializableIsolation"),
    ] {
        let folder = folder(&[(name, &fixture(name))]);
        let config = Settings::default().resolve(folder.path()).unwrap();
        for one in config.without_counterpart() {
            assert!(!one.reason.starts_with("not yet"), "{one}");
            // What is set for everything there and for each transaction here says how.
            assert_eq!(
                one.reason.contains("`.isolation("),
                one.keyword == chosen_elsewhere,
                "{one}"
            );
            assert!(one.reason.len() > 15, "{one}");
            let text = one.to_string();
            for part in [&one.keyword, &one.value, one.reason, name] {
                assert!(text.contains(part), "{part:?} is not in {text}");
            }
        }
    }
}

#[test]
fn each_keyword_without_a_counterpart_is_logged_once_when_a_keeper_is_opened() {
    let folder = folder(&[(DB_CONFIG, &fixture(DB_CONFIG)), (JE, &fixture(JE))]);
    let log = Arc::new(Mutex::new(Vec::<u8>::new()));
    struct Writer(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Writer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    crate::listening::beside_others();
    let written = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || Writer(Arc::clone(&written)))
        .finish();
    let keeper = tracing::subscriber::with_default(subscriber, || Keeper::open(folder.path()));
    let keeper = keeper.unwrap();
    let log = String::from_utf8(log.lock().clone()).unwrap();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("has no counterpart"))
        .collect();
    let missing = keeper.config().without_counterpart();
    assert_eq!(told.len(), missing.len(), "{log}");
    let places: BTreeSet<_> = missing.iter().map(|one| one.source.to_string()).collect();
    assert_eq!(places.len(), missing.len());
    for (line, one) in told.iter().zip(missing) {
        assert!(line.contains("WARN"), "{line}");
        for part in [&one.keyword, &one.source.to_string(), one.reason] {
            assert!(line.contains(part), "{part:?} is not in {line}");
        }
    }
}
