//! What may stand in a `DB_CONFIG`, and what may not.

use std::time::Duration;

use lockkeeper::{Durability, VictimPolicy};
use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Config {
    config(&[(DB_CONFIG, text)]).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

#[test]
fn each_policy_is_known_in_any_case_and_turns_on_detection_on_block() {
    for (word, policy) in [
        ("db_lock_default", VictimPolicy::Default),
        ("db_lock_expire", VictimPolicy::Expire),
        ("db_lock_maxlocks", VictimPolicy::MaxLocks),
        ("db_lock_maxwrite", VictimPolicy::MaxWrite),
        ("db_lock_minlocks", VictimPolicy::MinLocks),
        ("db_lock_minwrite", VictimPolicy::MinWrite),
        ("db_lock_oldest", VictimPolicy::Oldest),
        ("db_lock_random", VictimPolicy::Random),
        ("db_lock_youngest", VictimPolicy::Youngest),
    ] {
        for word in [
            word.to_owned(),
            word.to_uppercase(),
            word.replace("lock", "Lock"),
        ] {
            let folder = folder(&[(DB_CONFIG, format!("set_lk_detect {word}").as_bytes())]);
            let code = Settings::default().detect_on_block(false);
            let config = code.resolve(folder.path()).unwrap();
            assert_eq!(config.detect_policy(), policy, "{word}");
            assert!(config.detect_on_block(), "{word}");
        }
    }
}

#[test]
fn blanks_comments_crlf_bom_and_bytes_that_are_no_text_are_passed_over() {
    for text in [
        &b"\n# a comment\n   \n\t set_lk_max_locks \t 7  \n"[..],
        b"# one\r\n\r\nset_lk_max_locks 7\r\n",
        b"\xEF\xBB\xBFset_lk_max_locks 7",
        b"\xEF\xBB\xBF# set_lk_max_locks 8\nset_lk_max_locks 7",
        b"  # f\xFCr alle\nset_lk_max_locks 7\n#set_lk_max_locks 8",
        b"set_lk_max_locks 0000000000000000000000000000007",
    ] {
        let folder = folder(&[(DB_CONFIG, text)]);
        let config = Settings::default().resolve(folder.path()).unwrap();
        assert_eq!(config.max_locks(), 7, "{text:?}");
        assert!(config.without_counterpart().is_empty(), "{text:?}");
    }
    assert_eq!(set(&read("")), []);
}

#[test]
fn times_are_microseconds_and_0_is_none() {
    for (number, time) in [
        ("0", Duration::ZERO),
        ("1", Duration::from_micros(1)),
        ("1000000", Duration::from_secs(1)),
        ("4294967295", Duration::from_micros(u64::from(u32::MAX))),
    ] {
        let config = read(&format!(
            "set_lock_timeout {number}\nset_txn_timeout {number}"
        ));
        assert_eq!(
            (config.lock_timeout(), config.txn_timeout()),
            (time, time),
            "{number}"
        );
    }
}

#[test]
fn flags_are_on_unless_they_are_off() {
    for (lines, no_wait) in [
        ("set_flags db_txn_nowait", true),
        ("set_flags DB_TXN_NOWAIT ON", true),
        ("set_flags db_txn_nowait off", false),
        (
            "set_flags db_txn_nowait on\nset_flags db_txn_nowait off",
            false,
        ),
    ] {
        let folder = folder(&[(DB_CONFIG, lines.as_bytes())]);
        let code = Settings::default().no_wait(!no_wait);
        assert_eq!(
            code.resolve(folder.path()).unwrap().no_wait(),
            no_wait,
            "{lines}"
        );
    }
}

/// Berkeley DB's flags cost commits and never the file, so neither becomes `no-sync`.
#[test]
fn a_commit_without_a_flush_never_puts_the_file_at_risk() {
    for (lines, durability) in [
        ("set_flags db_txn_nosync", Durability::NoMetaSync),
        ("set_flags db_txn_write_nosync on", Durability::NoMetaSync),
        ("set_flags db_txn_nosync off", Durability::Full),
        ("set_flags db_txn_write_nosync off", Durability::Full),
        (
            "set_flags db_txn_nosync on\nset_flags db_txn_write_nosync off",
            Durability::NoMetaSync,
        ),
        (
            "set_flags db_txn_nosync off\nset_flags db_txn_write_nosync on",
            Durability::NoMetaSync,
        ),
        (
            "set_flags db_txn_write_nosync off\nset_flags db_txn_nosync off",
            Durability::Full,
        ),
    ] {
        let folder = folder(&[(DB_CONFIG, lines.as_bytes())]);
        let code = Settings::default().durability(Durability::NoSync);
        assert_eq!(
            code.resolve(folder.path()).unwrap().durability(),
            durability,
            "{lines}"
        );
    }
}

#[test]
fn of_two_lines_the_last_wins_and_what_has_no_counterpart_is_told_once() {
    let config = read(
        "set_lk_max_locks 5\nset_verbose db_verb_deadlock\nset_lk_max_locks 6\n\
         set_lk_detect db_lock_oldest\nset_verbose db_verb_waitsfor on\nset_lk_detect db_lock_random\n",
    );
    assert_eq!(
        set(&config),
        [
            ("detect_on_block", "true".into(), line(DB_CONFIG, 6)),
            ("detect_policy", "\"random\"".into(), line(DB_CONFIG, 6)),
            ("max_locks", "6".into(), line(DB_CONFIG, 3)),
        ]
    );
    assert_eq!(
        without(&config),
        [("set_verbose", "db_verb_waitsfor on", line(DB_CONFIG, 5))]
    );
}

#[test]
fn families_of_keywords_are_known_and_what_only_looks_like_one_is_not() {
    let config = read(
        "mutex_set_align 8\nlog_set_config db_log_direct\nset_memory_max 1 0\nset_lg_dir my logs\n\
         rep_set_nsites 3\nset_flags db_log_inmemory",
    );
    let names: Vec<_> = without(&config).iter().map(|(name, ..)| *name).collect();
    assert_eq!(
        names,
        [
            "mutex_set_align",
            "log_set_config",
            "set_memory_max",
            "set_lg_dir",
            "rep_set_nsites",
            "set_flags db_log_inmemory"
        ]
    );
    for name in [
        "mutex_",
        "mutexes",
        "logs",
        "set_memory",
        "set_lk_max",
        "xlog_set_config",
    ] {
        let complaint = complaint(DB_CONFIG, format!("{name} 1").as_bytes());
        assert!(
            complaint.starts_with(&format!("unknown setting {name} = 1 at DB_CONFIG:1: ")),
            "{complaint}"
        );
    }
}

#[test]
fn what_is_not_right_is_an_error_with_file_line_and_what_was_expected() {
    for (text, expected) in [
        (
            "# first\nset_lk_max_lokcs 5",
            "unknown setting set_lk_max_lokcs = 5 at DB_CONFIG:2: expected a keyword of Berkeley DB; did you mean set_lk_max_locks?",
        ),
        (
            "Set_Lk_Max_Locks 5",
            "unknown setting Set_Lk_Max_Locks = 5 at DB_CONFIG:1: expected a keyword of Berkeley DB; did you mean set_lk_max_locks?",
        ),
        (
            "set_lk_max_locks many",
            "setting set_lk_max_locks = many at DB_CONFIG:1: expected one whole number: 1 to 100000000",
        ),
        (
            "set_lk_max_locks 0",
            "setting set_lk_max_locks = 0 at DB_CONFIG:1: expected one whole number: 1 to 100000000",
        ),
        (
            "set_lk_max_locks -5",
            "setting set_lk_max_locks = -5 at DB_CONFIG:1: expected one whole number: 1 to 100000000",
        ),
        (
            "set_lk_max_locks +5",
            "setting set_lk_max_locks = +5 at DB_CONFIG:1: expected one whole number: 1 to 100000000",
        ),
        (
            "set_lk_max_lockers 99999999999999999999999999",
            "setting set_lk_max_lockers = 99999999999999999999999999 at DB_CONFIG:1: expected one whole number: 1 to 100000000",
        ),
        (
            "set_lk_max_objects 5 # five",
            "setting set_lk_max_objects = 5 # five at DB_CONFIG:1: expected one whole number: 1 to 100000000",
        ),
        (
            "set_tx_max 1000001",
            "setting set_tx_max = 1000001 at DB_CONFIG:1: expected one whole number: 1 to 1000000",
        ),
        (
            "\n\nset_tx_max",
            "DB_CONFIG:3: expected a value after set_tx_max: one whole number: 1 to 1000000",
        ),
        (
            "set_lock_timeout 5s",
            "setting set_lock_timeout = 5s at DB_CONFIG:1: expected one whole number of microseconds: 0 (none), or 1us to 30days",
        ),
        (
            "set_txn_timeout 18446744073709551615",
            "setting set_txn_timeout = 18446744073709551615 at DB_CONFIG:1: expected one whole number of microseconds: 0 (none), or 1us to 30days",
        ),
        (
            "set_lk_detect oldest",
            "setting set_lk_detect = oldest at DB_CONFIG:1: expected one of db_lock_default, db_lock_expire, db_lock_maxlocks, \
             db_lock_maxwrite, db_lock_minlocks, db_lock_minwrite, db_lock_oldest, db_lock_random, db_lock_youngest",
        ),
        (
            "set_flags db_txn_nowiat",
            "unknown setting set_flags db_txn_nowiat = on at DB_CONFIG:1: expected a keyword of Berkeley DB; did you mean db_txn_nowait?",
        ),
        (
            "set_flags db_txn_nowait maybe",
            "setting set_flags db_txn_nowait = maybe at DB_CONFIG:1: expected \"on\", \"off\" or nothing",
        ),
        (
            "set_flags db_txn_nowait db_txn_nosync",
            "setting set_flags db_txn_nowait = db_txn_nosync at DB_CONFIG:1: expected \"on\", \"off\" or nothing",
        ),
        (
            "set_flags db_txn_snapshot 1",
            "setting set_flags db_txn_snapshot = 1 at DB_CONFIG:1: expected \"on\", \"off\" or nothing",
        ),
        (
            "set_cachesize",
            "DB_CONFIG:1: expected a value after set_cachesize",
        ),
        (
            "set_lk_max_locks 0\nset_lk_max_locks 5",
            "setting set_lk_max_locks = 0 at DB_CONFIG:1: expected one whole number: 1 to 100000000",
        ),
    ] {
        assert_eq!(complaint(DB_CONFIG, text.as_bytes()), expected);
    }
    let flags = complaint(DB_CONFIG, b"set_flags\n");
    assert!(
        flags.starts_with("DB_CONFIG:1: expected a value after set_flags: one of db_txn_nosync, "),
        "{flags}"
    );
    let all = complaint(DB_CONFIG, b"lock_timeout = 5");
    assert!(
        all.starts_with("unknown setting lock_timeout = = 5 at DB_CONFIG:1: expected a keyword of Berkeley DB; did you mean set_lock_timeout?"),
        "{all}"
    );
    assert!(
        complaint(DB_CONFIG, b"port 80")
            .contains("expected one of set_lk_max_locks, set_lk_max_lockers, ")
    );
}

#[test]
fn nonsense_is_refused_in_one_readable_line() {
    let long = format!("{} {}", "x".repeat(100_000), "y".repeat(100_000));
    for bytes in [
        &b"\x00\x01\xFF\xFE\x1B[31mred\n"[..],
        b"\xFF\xFEs\0e\0t\0",
        long.as_bytes(),
    ] {
        let complaint = complaint(DB_CONFIG, bytes);
        assert!(complaint.starts_with("unknown setting "), "{complaint}");
        assert!(complaint.contains(" at DB_CONFIG:1: "), "{complaint}");
        assert!(!complaint.contains(char::is_control), "{complaint:?}");
        assert!(complaint.len() < 3_000, "{complaint}");
    }
    let folder = folder(&[]);
    fs::create_dir(folder.path().join(DB_CONFIG)).unwrap();
    let error = Settings::default().resolve(folder.path()).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains(DB_CONFIG), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_make_a_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        keyword in "set_flags|set_lk_detect|set_lock_timeout|je\\.lock\\.timeout|je\\.txn\\.durability",
        value in "\\PC{0,20}",
    ) {
        for name in [DB_CONFIG, JE] {
            let _ = Settings::default().resolve(folder(&[(name, &bytes)]).path());
            let text = format!("{keyword} {value}");
            let _ = Settings::default().resolve(folder(&[(name, text.as_bytes())]).path());
        }
    }
}
