//! JE's `je.properties`.

use std::time::Duration;

use super::keyword::{Keyword, Takes};
use super::properties;
use super::{ForeignFile, Garbled, Line, whole};
use crate::config::{Durability, millis};

pub const FILE: ForeignFile = ForeignFile {
    name: "je.properties",
    owner: "JE",
    keywords: KEYWORDS,
    lines,
};

fn lines(bytes: &[u8]) -> Result<Vec<Line>, Garbled> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    // Java reads such a file as Latin-1; many are UTF-8 all the same, and no keyword has others than ASCII.
    let text = std::str::from_utf8(bytes).map_or_else(
        |_| bytes.iter().copied().map(char::from).collect(),
        str::to_owned,
    );
    properties::parse(&text)
}

const DURATION: &str = "one whole number with its unit (ns, us, ms, s, min, h), or of microseconds";
const BOOLEAN: &str = "true or false";

/// A number and its unit; without one it is microseconds.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.strip_prefix(digits)?.trim().to_ascii_lowercase();
    let nanos: u64 = match unit.as_str() {
        "ns" | "nanoseconds" => 1,
        "" | "us" | "microseconds" => 1_000,
        "ms" | "milliseconds" => 1_000_000,
        "s" | "seconds" => 1_000_000_000,
        "min" | "minutes" => 60_000_000_000,
        "h" | "hours" => 3_600_000_000_000,
        _ => return None,
    };
    whole(digits)?.checked_mul(nanos).map(Duration::from_nanos)
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The local part of a durability, and whether there are parts for replicas.
fn durability(text: &str) -> Option<(Durability, bool)> {
    let text = text.to_ascii_uppercase();
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    let sync = |part: &str| match part {
        "SYNC" => Some(Durability::Full),
        // JE loses commits without a flush, and never the file: `no-sync` would put the file at risk.
        "NO_SYNC" | "WRITE_NO_SYNC" => Some(Durability::NoMetaSync),
        _ => None,
    };
    let replicas = match parts.get(1..)? {
        [] => true,
        [replica] => sync(replica).is_some(),
        [replica, acknowledged] => {
            sync(replica).is_some() && matches!(*acknowledged, "ALL" | "NONE" | "SIMPLE_MAJORITY")
        }
        _ => false,
    };
    let local = sync(parts.first()?)?;
    replicas.then_some((local, parts.len() > 1))
}

/// A switch without a counterpart.
const fn switch(name: &'static str, reason: &'static str) -> Keyword {
    let takes = Takes {
        name: BOOLEAN,
        allow: |value| boolean(value).is_some(),
    };
    Keyword::nothing_for(name, takes, reason)
}

const LOG: &str = "LMDB has no log, so nothing cleans or checkpoints it";
const CACHE: &str = "LMDB has no cache of its own; the kernel's serves it, and `map_size` says how large the map is";
const TREE: &str = "LMDB's tree has pages of the system's size";
const REPLICATION: &str = "there is no replication";
const TOLD: &str =
    "what happens is told by `tracing`, filtered by its subscriber, and by `metrics`";
const OWN: &str = "a property of JE's own files";

const KEYWORDS: &[Keyword] = &[
    Keyword::ranged("je.lock.timeout", &["lock_timeout"], DURATION,
        "0 is none; a file without this line means 500 ms in JE, and here the default", |value, _, to| {
        to.lock_timeout = Some(duration(value)?);
        Some(())
    }),
    Keyword::ranged("je.txn.timeout", &["txn_timeout"], DURATION, "0 is none", |value, _, to| {
        to.txn_timeout = Some(duration(value)?);
        Some(())
    }),
    Keyword::sets("je.lock.deadlockDetectDelay", &["detect_on_block", "detect_interval"],
        "one whole number with its unit (ns, us, ms, s, min, h), or of microseconds: at most 1h",
        "less than 1 ms is detection on block; more is detection every so often instead, which finds a deadlock no later than after that time",
        |value, _, to| {
        let delay = duration(value)?;
        to.detect_on_block = Some(delay < millis(1));
        if delay >= millis(1) {
            to.detect_interval = Some(delay);
        }
        Some(())
    }),
    Keyword::sets("je.lock.deadlockDetect", &["detect_on_block", "detect_interval"], BOOLEAN,
        "true is detection on block, unless `je.lock.deadlockDetectDelay` asks for a delay; false is none, and none every so often",
        |value, so_far, to| {
        if !boolean(value)? {
            to.detect_on_block = Some(false);
            to.detect_interval = Some(Duration::ZERO);
        } else if so_far.detect_on_block.is_none() {
            to.detect_on_block = Some(true);
        }
        Some(())
    }),
    Keyword::sets("je.txn.durability", &["durability"],
        "SYNC, NO_SYNC or WRITE_NO_SYNC; after a comma the same for replicas, and after another ALL, NONE or SIMPLE_MAJORITY",
        "its first part: `SYNC` is `full`; `NO_SYNC` and `WRITE_NO_SYNC` are `no-meta-sync`, where power loss may cost commits and never \
         the file, as in JE, and the end of the process costs nothing. The parts for replicas have no counterpart", |value, _, to| {
        to.durability = Some(durability(value)?.0);
        Some(())
    }).beside(|value| matches!(durability(value), Some((_, true))).then_some("its first part is taken; the others are for replicas, and there is no replication")),
    switch("je.txn.serializableIsolation", "isolation is chosen for each transaction, with `.isolation(…)`, and is serialisable by default; updates always are"),
    switch("je.txn.deadlockStackTrace", "a conflict always names the line of code of each who takes part"),
    switch("je.txn.dumpLocks", "a conflict always names those who hold and those who wait; the whole table is shown on demand"),
    Keyword::nothing("je.lock.nLockTables", "the lock table is one, behind one short mutex"),
    switch("je.lock.oldLockExceptions", "each kind of conflict always has an error of its own"),
    Keyword::nothing("je.adler32.chunkSize", LOG),
    Keyword::nothing("je.checkpointer.*", LOG),
    Keyword::nothing("je.cleaner.*", LOG),
    Keyword::nothing("je.log.*", LOG),
    Keyword::nothing("je.erase.*", LOG),
    Keyword::nothing("je.compressor.*", TREE),
    Keyword::nothing("je.tree.*", TREE),
    Keyword::nothing("je.nodeMaxEntries", TREE),
    Keyword::nothing("je.nodeDupTreeMaxEntries", TREE),
    Keyword::nothing("je.evictor.*", CACHE),
    Keyword::nothing("je.offHeap.*", CACHE),
    Keyword::nothing("je.maxMemory", CACHE),
    Keyword::nothing("je.maxMemoryPercent", CACHE),
    Keyword::nothing("je.maxOffHeapMemory", CACHE),
    Keyword::nothing("je.sharedCache", CACHE),
    Keyword::nothing("je.maxDisk", "`max_map_size` bounds the file"),
    Keyword::nothing("je.freeDisk", "`max_map_size` bounds the file"),
    Keyword::nothing("je.rep.*", REPLICATION),
    Keyword::nothing("je.file.*", TOLD),
    Keyword::nothing("je.stats.*", TOLD),
    Keyword::nothing("java.util.logging.*", TOLD),
    Keyword::nothing("com.sleepycat.je.*", TOLD),
    Keyword::nothing("je.env.*", OWN),
    Keyword::nothing("je.haltOnCommitAfterChecksumException", OWN),
    Keyword::nothing("je.dos.*", OWN),
    Keyword::nothing("je.sequence.*", OWN),
    Keyword::nothing("je.latch.*", OWN),
];
