//! Berkeley DB's `DB_CONFIG`.

use std::time::Duration;

use super::keyword::{Keyword, Takes};
use super::{ForeignFile, Line, count, whole};
use crate::config::Durability;
use crate::config::Settings;
use crate::locks::VictimPolicy;

pub const FILE: ForeignFile = ForeignFile {
    name: "DB_CONFIG",
    owner: "Berkeley DB",
    keywords: KEYWORDS,
    lines: |bytes| Ok(lines(bytes)),
};

/// The keyword whose first value says what it sets.
const FLAGS: &str = "set_flags";

/// One keyword and its values a line; `#` begins a comment only at the beginning of a line, as in Berkeley DB.
fn lines(bytes: &[u8]) -> Vec<Line> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let line = |(at, bytes): (usize, &[u8])| {
        // In a comment or a folder's name any bytes may stand; no keyword has others than ASCII.
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_ascii();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        let (mut name, mut value) = (word(text).0.to_owned(), word(text).1);
        if name == FLAGS && !value.is_empty() {
            let (flag, rest) = word(value);
            name = format!("{FLAGS} {}", flag.to_ascii_lowercase());
            value = if rest.is_empty() { "on" } else { rest };
        }
        Some(Line {
            name,
            value: value.to_owned(),
            number: at + 1,
        })
    };
    bytes
        .split(|&b| b == b'\n')
        .enumerate()
        .filter_map(line)
        .collect()
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text
        .split_once(|c: char| c.is_ascii_whitespace())
        .unwrap_or((text, ""));
    (word, rest.trim_ascii())
}

const NUMBER: &str = "one whole number";
const MICROSECONDS: &str = "one whole number of microseconds";
const ON_OFF: &str = "\"on\", \"off\" or nothing";

fn micros(text: &str) -> Option<Duration> {
    whole(text).map(Duration::from_micros)
}

fn on(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

const POLICIES: &str = "one of db_lock_default, db_lock_expire, db_lock_maxlocks, db_lock_maxwrite, db_lock_minlocks, \
     db_lock_minwrite, db_lock_oldest, db_lock_random, db_lock_youngest";

fn policy(text: &str) -> Option<VictimPolicy> {
    let text = text.to_ascii_lowercase();
    let name = text.strip_prefix("db_lock_")?;
    VictimPolicy::ALL
        .into_iter()
        .find(|policy| policy.name().replace('-', "") == name)
}

/// Berkeley DB loses commits without a flush, and never the file: `no-sync` would put the file at risk.
fn without_flush(value: &str, so_far: &Settings, to: &mut Settings) -> Option<()> {
    to.durability = match (on(value)?, so_far.durability) {
        (true, _) | (false, Some(Durability::NoMetaSync)) => Some(Durability::NoMetaSync),
        (false, _) => Some(Durability::Full),
    };
    Some(())
}

/// A flag without a counterpart.
const fn flag(name: &'static str, reason: &'static str) -> Keyword {
    let takes = Takes {
        name: ON_OFF,
        allow: |value| on(value).is_some(),
    };
    Keyword::nothing_for(name, takes, reason)
}

const GROWS: &str = "the lock table grows as it is used";
const MUTEXES: &str = "no mutex is allocated from a region";
const LOG: &str = "LMDB has no log, a commit writes its pages beside the old ones";
const CACHE: &str = "LMDB has no cache of its own; the kernel's serves it, and `map_size` says how large the map is";
const FOLDERS: &str = "all files are in the environment's folder";
const REPLICATION: &str = "there is no replication";
const TUNING: &str = "LMDB has no such thing to set";

const KEYWORDS: &[Keyword] = &[
    Keyword::ranged(
        "set_lk_max_locks",
        &["max_locks"],
        NUMBER,
        "",
        |value, _, to| {
            to.max_locks = Some(count(value)?);
            Some(())
        },
    ),
    Keyword::ranged(
        "set_lk_max_lockers",
        &["max_lockers"],
        NUMBER,
        "",
        |value, _, to| {
            to.max_lockers = Some(count(value)?);
            Some(())
        },
    ),
    Keyword::ranged(
        "set_lk_max_objects",
        &["max_objects"],
        NUMBER,
        "",
        |value, _, to| {
            to.max_objects = Some(count(value)?);
            Some(())
        },
    ),
    Keyword::ranged(
        "set_tx_max",
        &["queue"],
        NUMBER,
        "in Berkeley DB one transaction more is an error; here it waits for its turn, unless `when_full` is `refuse`",
        |value, _, to| {
            to.queue = Some(count(value)?);
            Some(())
        },
    ),
    Keyword::sets(
        "set_lk_detect",
        &["detect_on_block", "detect_policy"],
        POLICIES,
        "the policy of the same name, and detection on block; without this line nothing is detected in Berkeley DB, here the \
         defaults hold. With `db_lock_expire` Berkeley DB leaves a cycle alone while nobody on it is past its time; here it is broken all the same",
        |value, _, to| {
            to.detect_policy = Some(policy(value)?);
            to.detect_on_block = Some(true);
            Some(())
        },
    ),
    Keyword::ranged(
        "set_lock_timeout",
        &["lock_timeout"],
        MICROSECONDS,
        "0 is none; it ends a wait by itself, without a detector that has to run",
        |value, _, to| {
            to.lock_timeout = Some(micros(value)?);
            Some(())
        },
    ),
    Keyword::ranged(
        "set_txn_timeout",
        &["txn_timeout"],
        MICROSECONDS,
        "0 is none; it ends a wait by itself, without a detector that has to run",
        |value, _, to| {
            to.txn_timeout = Some(micros(value)?);
            Some(())
        },
    ),
    Keyword::sets(
        "set_flags db_txn_nosync",
        &["durability"],
        ON_OFF,
        "on is `no-meta-sync`, where power loss may cost commits and never the file, as in Berkeley DB; off is `full`",
        without_flush,
    ),
    Keyword::sets(
        "set_flags db_txn_write_nosync",
        &["durability"],
        ON_OFF,
        "the same; with both flags one that is on is enough. The end of the process costs no commit, with either",
        without_flush,
    ),
    Keyword::sets(
        "set_flags db_txn_nowait",
        &["no_wait"],
        ON_OFF,
        "",
        |value, _, to| {
            to.no_wait = Some(on(value)?);
            Some(())
        },
    ),
    flag(
        "set_flags db_txn_snapshot",
        "isolation is chosen for each transaction, with `.isolation(Isolation::Snapshot)`; a view always reads one snapshot",
    ),
    flag(
        "set_flags db_time_notgranted",
        "a timeout and a deadlock are always different errors",
    ),
    flag(
        "set_flags db_auto_commit",
        "every operation is always in a transaction",
    ),
    flag(
        "set_flags db_cdb_alldb",
        "one writer at a time for the whole environment is how LMDB works, always",
    ),
    flag(
        "set_flags db_multiversion",
        "LMDB always keeps versions for as long as a view reads them",
    ),
    flag(
        "set_flags db_nolocking",
        "locks cannot be turned off; who wants none takes none",
    ),
    flag(
        "set_flags db_nommap",
        "LMDB always maps its file into memory",
    ),
    flag(
        "set_flags db_nopanic",
        "after a fatal error nothing goes on; see `on_fatal`",
    ),
    flag(
        "set_flags db_panic_environment",
        "an environment is not made to fail by a setting; see `on_fatal`",
    ),
    flag("set_flags db_direct_db", TUNING),
    flag("set_flags db_dsync_db", "`durability` says what is flushed"),
    flag(
        "set_flags db_hotbackup_in_progress",
        "a copy needs no preparation; see `CopyTo`",
    ),
    flag("set_flags db_noflush", TUNING),
    flag(
        "set_flags db_overwrite",
        "no file is overwritten before it is removed",
    ),
    flag("set_flags db_region_init", TUNING),
    flag("set_flags db_yieldcpu", TUNING),
    flag("set_flags db_log_*", LOG),
    flag("set_flags db_direct_log", LOG),
    flag("set_flags db_dsync_log", LOG),
    Keyword::nothing(
        "set_lk_partitions",
        "the lock table is one, behind one short mutex",
    ),
    Keyword::nothing("set_lk_tablesize", GROWS),
    Keyword::nothing("set_memory_*", GROWS),
    Keyword::nothing(
        "set_thread_count",
        "threads are not registered; `max_readers` bounds the readers",
    ),
    Keyword::nothing(
        "set_verbose",
        "what happens is told by `tracing`, filtered by its subscriber, and by `metrics`",
    ),
    Keyword::nothing("set_open_flags", "the keeper opens all that it needs"),
    Keyword::nothing("set_cachesize", CACHE),
    Keyword::nothing("set_cache_max", CACHE),
    Keyword::nothing("mutex_*", MUTEXES),
    Keyword::nothing("set_tas_spins", MUTEXES),
    Keyword::nothing("log_*", LOG),
    Keyword::nothing("set_lg_*", LOG),
    Keyword::nothing("set_mp_*", CACHE),
    Keyword::nothing("rep_*", REPLICATION),
    Keyword::nothing("repmgr_*", REPLICATION),
    Keyword::nothing("add_data_dir", FOLDERS),
    Keyword::nothing("set_data_dir", FOLDERS),
    Keyword::nothing("set_create_dir", FOLDERS),
    Keyword::nothing("set_metadata_dir", FOLDERS),
    Keyword::nothing("set_tmp_dir", "LMDB makes no temporary files"),
    Keyword::nothing("set_intermediate_dir_mode", FOLDERS),
    Keyword::nothing("set_data_len", TUNING),
    Keyword::nothing("set_shm_key", "no region is shared but LMDB's lock file"),
    Keyword::nothing(
        "set_reg_timeout",
        "processes are not registered; see `stale_reader_interval`",
    ),
];
