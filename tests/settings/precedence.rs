//! Which of several values wins: code, then each file over those before it.

use std::time::Duration;

use super::*;

#[test]
fn each_file_wins_over_those_before_it_and_over_code() {
    let folder = folder(&[
        (TOML, b"lock_timeout = \"4s\""),
        (DB_CONFIG, b"\nset_lock_timeout 3000000"),
        (JE, b"\n\nje.lock.timeout = 2 s"),
    ]);
    let code = |folder: &TempDir| {
        Keeper::builder()
            .path(folder.path())
            .lock_timeout(Duration::from_secs(1))
            .open()
            .unwrap()
    };
    for (seconds, source, shown, next) in [
        (4, line(TOML, 1), "lockkeeper.toml:1", Some(TOML)),
        (3, line(DB_CONFIG, 2), "DB_CONFIG:2", Some(DB_CONFIG)),
        (2, line(JE, 3), "je.properties:3", Some(JE)),
        (1, Source::Code, "code", None),
    ] {
        let keeper = code(&folder);
        assert_eq!(
            keeper.locks().config().lock_timeout,
            Duration::from_secs(seconds)
        );
        let text = format!("{seconds}s");
        assert_eq!(set(keeper.config()), [("lock_timeout", text, source)]);
        assert_eq!(source.to_string(), shown);
        keeper
            .blocking_shutdown(Duration::from_secs(10))
            .expect("the folder is free again");
        if let Some(file) = next {
            fs::remove_file(folder.path().join(file)).unwrap();
        }
    }
}

#[test]
fn files_win_setting_by_setting() {
    let config = config(&[
        (TOML, "detect_policy = \"oldest\""),
        (DB_CONFIG, "set_lk_detect db_lock_random\nset_tx_max 9"),
        (
            JE,
            "je.lock.deadlockDetect=false\nje.txn.timeout=1 s\nje.txn.durability=NO_SYNC",
        ),
    ])
    .unwrap();
    assert_eq!(
        set(&config),
        [
            ("durability", "\"no-meta-sync\"".into(), line(JE, 3)),
            ("queue", "9".into(), line(DB_CONFIG, 2)),
            ("detect_on_block", "true".into(), line(DB_CONFIG, 1)),
            ("detect_interval", "0s".into(), line(JE, 1)),
            ("detect_policy", "\"oldest\"".into(), line(TOML, 1)),
            ("txn_timeout", "1s".into(), line(JE, 2)),
        ]
    );
}

#[test]
fn a_wrong_line_is_an_error_also_where_another_file_wins() {
    let error = config(&[
        (TOML, "max_locks = 5"),
        (DB_CONFIG, "# \nset_lk_max_locks none"),
    ])
    .unwrap_err();
    assert!(error.to_string().contains("DB_CONFIG:2"), "{error}");
}

#[test]
fn a_value_of_a_file_that_does_not_go_with_another_names_its_place() {
    let error = config(&[(TOML, "map_size = \"2TiB\"")]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("lockkeeper.toml:1: expected at most max_map_size, which is 1TiB by default"),
        "{text}"
    );
}

#[test]
fn lockkeeper_toml_may_have_crlf_and_a_byte_order_mark() {
    let config = config(&[(TOML, "\u{FEFF}# ours\r\nqueue = 7\r\nbatch = 8\r\n")]).unwrap();
    assert_eq!(
        set(&config),
        [
            ("queue", "7".into(), line(TOML, 2)),
            ("batch", "8".into(), line(TOML, 3)),
        ]
    );
}
