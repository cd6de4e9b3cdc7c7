//! What may stand in a `je.properties`, and what may not.

use std::time::Duration;

use lockkeeper::Durability;

use super::*;

fn read(text: &str) -> Config {
    config(&[(JE, text)]).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

#[test]
fn a_property_is_read_however_java_lets_one_write_it() {
    for text in [
        &b"je.lock.timeout=9 ms"[..],
        b"je.lock.timeout:9 ms",
        b"je.lock.timeout 9 ms",
        b"je.lock.timeout\t=\t9 ms  ",
        b"  je.lock.timeout   9 ms\r\n",
        b"\xEF\xBB\xBFje.lock.timeout = 9 ms",
        b"# one\r! two\r\rje.lock.timeout = 9 ms\r",
        b"# a comment goes on with no backslash \\\nje.lock.timeout = 9 ms",
        b"je.lock.\\\n    timeout = \\\r\n\t9 \\\n  ms\n",
        b"je.lock.timeout = 9 ms\\",
        b"je.lock.timeout = 9\\u0020m\\u0073",
        b"je\\.lock.time\\u006fut = \\9 ms",
        b"# f\xFCr alle\nje.lock.timeout = 9 ms",
        "# für alle\nje.lock.timeout = 9 ms".as_bytes(),
    ] {
        let folder = folder(&[(JE, text)]);
        let config = Settings::default()
            .resolve(folder.path())
            .unwrap_or_else(|e| panic!("{:?}: {e}", String::from_utf8_lossy(text)));
        assert_eq!(
            config.lock_timeout(),
            Duration::from_millis(9),
            "{:?}",
            String::from_utf8_lossy(text)
        );
        assert_eq!(set(&config).len(), 1);
    }
    assert_eq!(set(&read("")), []);
    assert_eq!(set(&read("\\\n\n\\\n")), []);
}

#[test]
fn a_property_stands_on_the_first_of_its_lines() {
    let config = read("\\\n\nje.lock.\\\ntimeout=1 s\nje.txn.timeout=2 s\n");
    assert_eq!(
        set(&config),
        [
            ("lock_timeout", "1s".into(), line(JE, 3)),
            ("txn_timeout", "2s".into(), line(JE, 5)),
        ]
    );
}

#[test]
fn a_time_has_a_unit_or_is_in_microseconds() {
    for (text, time) in [
        ("0", Duration::ZERO),
        ("0 h", Duration::ZERO),
        ("500", Duration::from_micros(500)),
        ("5000 NS", Duration::from_micros(5)),
        ("500 us", Duration::from_micros(500)),
        ("500 ms", Duration::from_millis(500)),
        ("500ms", Duration::from_millis(500)),
        ("500 MILLISECONDS", Duration::from_millis(500)),
        ("5 s", Duration::from_secs(5)),
        ("5 Seconds", Duration::from_secs(5)),
        ("5 min", Duration::from_secs(300)),
        ("5 h", Duration::from_secs(18_000)),
    ] {
        let config = read(&format!("je.lock.timeout={text}\nje.txn.timeout={text}"));
        assert_eq!(
            (config.lock_timeout(), config.txn_timeout()),
            (time, time),
            "{text}"
        );
    }
}

#[test]
fn detection_is_on_block_or_after_a_delay_or_off_in_whatever_order_the_lines_stand() {
    let second = Duration::from_secs(1);
    for (detect, delay, expected) in [
        ("true", None, (true, second)),
        ("TRUE", Some("0"), (true, second)),
        ("true", Some("999"), (true, second)),
        ("true", Some("1 ms"), (false, Duration::from_millis(1))),
        ("true", Some("2 s"), (false, 2 * second)),
        ("false", None, (false, Duration::ZERO)),
        ("false", Some("0"), (false, Duration::ZERO)),
        ("False", Some("2 s"), (false, Duration::ZERO)),
    ] {
        let detect = format!("je.lock.deadlockDetect={detect}");
        let delay = delay.map(|delay| format!("je.lock.deadlockDetectDelay={delay}"));
        let delay = delay.unwrap_or_default();
        for text in [format!("{detect}\n{delay}"), format!("{delay}\n{detect}")] {
            let config = read(&text);
            assert_eq!(
                (config.detect_on_block(), config.detect_interval()),
                expected,
                "{text}"
            );
        }
    }
    let alone = read("je.lock.deadlockDetectDelay=2 s");
    assert_eq!(
        (alone.detect_on_block(), alone.detect_interval()),
        (false, 2 * second)
    );
}

#[test]
fn durability_is_that_of_this_process_and_the_rest_is_told() {
    for (text, durability, replicas) in [
        ("SYNC", Durability::Full, false),
        ("no_sync", Durability::NoMetaSync, false),
        ("WRITE_NO_SYNC", Durability::NoMetaSync, false),
        ("SYNC,SYNC,ALL", Durability::Full, true),
        ("NO_SYNC , SYNC", Durability::NoMetaSync, true),
        ("WRITE_NO_SYNC,NO_SYNC,NONE", Durability::NoMetaSync, true),
    ] {
        let config = read(&format!("je.txn.durability={text}"));
        assert_eq!(config.durability(), durability, "{text}");
        let told: Vec<_> = without(&config).iter().map(|(name, ..)| *name).collect();
        let expected: &[&str] = if replicas {
            &["je.txn.durability"]
        } else {
            &[]
        };
        assert_eq!(told, expected, "{text}");
    }
}

#[test]
fn of_two_lines_the_last_wins() {
    let config = read(
        "je.lock.timeout=1 s\nje.txn.durability=SYNC,SYNC,ALL\nje.lock.nLockTables=1\n\
         je.txn.durability=NO_SYNC\nje.lock.timeout=2 s\nje.lock.nLockTables=3",
    );
    assert_eq!(
        set(&config),
        [
            ("durability", "\"no-meta-sync\"".into(), line(JE, 4)),
            ("lock_timeout", "2s".into(), line(JE, 5)),
        ]
    );
    assert_eq!(
        without(&config),
        [("je.lock.nLockTables", "3", line(JE, 6))]
    );
}

#[test]
fn what_jes_own_files_need_is_known_and_what_is_misspelt_is_not() {
    let config = read(
        "je.maxMemoryPercent=20\nje.log.fileMax=100000000\nje.cleaner.minUtilization=50\n\
         java.util.logging.level=INFO\nje.env.runCleaner=false",
    );
    assert_eq!(config.without_counterpart().len(), 5);
    assert_eq!(set(&config), []);
    for name in [
        "je.lock",
        "je.lock.timeouts",
        "je.txn.",
        "je.log.",
        "je.lokc.timeout",
        "timeout",
    ] {
        let complaint = complaint(JE, format!("{name}=1").as_bytes());
        assert!(
            complaint.starts_with(&format!("unknown setting {name} = 1 at je.properties:1: ")),
            "{complaint}"
        );
    }
}

#[test]
fn what_is_not_right_is_an_error_with_file_line_and_what_was_expected() {
    const TIME: &str =
        "expected one whole number with its unit (ns, us, ms, s, min, h), or of microseconds";
    for (text, expected) in [
        (
            "! first\nje.lock.timeuot=5",
            "unknown setting je.lock.timeuot = 5 at je.properties:2: expected a keyword of JE; did you mean je.lock.timeout?"
                .to_owned(),
        ),
        (
            "JE.Lock.Timeout=5",
            "unknown setting JE.Lock.Timeout = 5 at je.properties:1: expected a keyword of JE; did you mean je.lock.timeout?"
                .to_owned(),
        ),
        (
            "je.lock.timeout",
            format!("je.properties:1: expected a value after je.lock.timeout: {}: 0 (none), or 1us to 30days", &TIME[9..]),
        ),
        (
            "je.lock.nLockTables=",
            "je.properties:1: expected a value after je.lock.nLockTables".to_owned(),
        ),
        (
            "je.lock.timeout=soon",
            format!("setting je.lock.timeout = soon at je.properties:1: {TIME}: 0 (none), or 1us to 30days"),
        ),
        (
            "je.lock.timeout=ms",
            format!("setting je.lock.timeout = ms at je.properties:1: {TIME}: 0 (none), or 1us to 30days"),
        ),
        (
            "je.txn.timeout=5 ms 3",
            format!("setting je.txn.timeout = 5 ms 3 at je.properties:1: {TIME}: 0 (none), or 1us to 30days"),
        ),
        (
            "je.txn.timeout=1.5 s",
            format!("setting je.txn.timeout = 1.5 s at je.properties:1: {TIME}: 0 (none), or 1us to 30days"),
        ),
        (
            "je.txn.timeout=-1",
            format!("setting je.txn.timeout = -1 at je.properties:1: {TIME}: 0 (none), or 1us to 30days"),
        ),
        (
            "je.txn.timeout=18446744073709551615 h",
            format!("setting je.txn.timeout = 18446744073709551615 h at je.properties:1: {TIME}: 0 (none), or 1us to 30days"),
        ),
        (
            "je.lock.deadlockDetectDelay=61 min",
            format!("setting je.lock.deadlockDetectDelay = 61 min at je.properties:1: {TIME}: at most 1h"),
        ),
        (
            "je.lock.deadlockDetect=yes",
            "setting je.lock.deadlockDetect = yes at je.properties:1: expected true or false".to_owned(),
        ),
        (
            "je.txn.dumpLocks=1",
            "setting je.txn.dumpLocks = 1 at je.properties:1: expected true or false".to_owned(),
        ),
        (
            "je.txn.durability=SYNC,SYNC,MOST",
            "setting je.txn.durability = SYNC,SYNC,MOST at je.properties:1: expected SYNC, NO_SYNC or WRITE_NO_SYNC; after a \
             comma the same for replicas, and after another ALL, NONE or SIMPLE_MAJORITY"
                .to_owned(),
        ),
        (
            "\n\nje.lock.timeout=\\\n\\u00g0",
            "je.properties:3: expected four hexadecimal digits after each \\u".to_owned(),
        ),
        (
            "je.lock.timeout=5\\u00",
            "je.properties:1: expected four hexadecimal digits after each \\u".to_owned(),
        ),
        (
            "je.lock.timeout=5\\n6",
            format!("setting je.lock.timeout = 5… at je.properties:1: {TIME}: 0 (none), or 1us to 30days"),
        ),
    ] {
        assert_eq!(complaint(JE, text.as_bytes()), expected);
    }
    let nonsense = complaint(JE, b"\x00\x01\xFF\xFE\x1B[31mred\n");
    assert!(nonsense.contains(" at je.properties:1: "), "{nonsense}");
    assert!(!nonsense.contains(char::is_control), "{nonsense:?}");
}
