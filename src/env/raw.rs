//! The only file with `unsafe`: what heed marks as unsafe, and the hook that notices a fork.
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use heed::{Env, EnvFlags, EnvOpenOptions, FlagSetMode};

/// What LMDB is opened with.
pub(crate) struct OpenPlan {
    pub map_size: usize,
    pub max_readers: u32,
    pub max_databases: u32,
    pub no_sync: bool,
    pub no_lock: bool,
}

/// Opens the environment in `folder`.
pub(crate) fn open(folder: &Path, plan: &OpenPlan) -> heed::Result<Env> {
    let mut options = EnvOpenOptions::new();
    options
        .map_size(plan.map_size)
        .max_readers(plan.max_readers)
        .max_dbs(plan.max_databases);
    let mut flags = EnvFlags::empty();
    if plan.no_sync {
        flags |= EnvFlags::NO_SYNC;
    }
    if plan.no_lock {
        flags |= EnvFlags::NO_LOCK;
    }
    // SAFETY: NO_SYNC gives up durability, not memory safety. NO_LOCK is sound because the gate then excludes views from
    // updates inside this process (`Writer::transact` closes it around every batch) and `ProcessLock` keeps others out.
    unsafe { options.flags(flags) };
    // SAFETY: the map is only changed through LMDB: the folder belongs to the keeper (I1 guards every change of its size),
    // heed refuses to open it twice in one process, and the docs forbid network file systems and foreign writers to the file.
    unsafe { options.open(folder) }
}

/// Changes the size of the map; 0 adopts the size that is in the file.
///
/// The caller has closed the gate and seen it empty (I1): `gate::Closed` is the proof, and it lives on until this returns.
pub(crate) fn resize(
    env: &Env,
    bytes: usize,
    _proof: &crate::env::gate::Closed<'_>,
) -> heed::Result<()> {
    // SAFETY: I1: `Closed` exists only while the gate is shut and no transaction of this process is open on the map, and
    // only the writer thread makes one, so that it has no write transaction open either.
    unsafe { env.resize(bytes) }
}

/// Chooses whether the next commit flushes LMDB's meta page.
pub(crate) fn set_meta_sync(env: &Env, sync: bool) -> heed::Result<()> {
    let mode = if sync {
        FlagSetMode::Disable
    } else {
        FlagSetMode::Enable
    };
    // SAFETY: LMDB asks that no two threads change flags at once: only the writer thread calls this.
    unsafe { env.set_flags(EnvFlags::NO_META_SYNC, mode) }
}

/// Deletes a database.
///
/// The caller has closed the gate and seen it empty, and forgets the handle: `Registry::empty` is the only one.
pub(crate) fn remove<C>(
    handle: heed::Database<'_, heed::Unspecified, heed::Unspecified, C>,
    txn: &mut heed::RwTxn<'_>,
) -> heed::Result<()> {
    // SAFETY: heed asks that no other handle of the database is used any more. All of them resolve through the registry,
    // whose epoch changes with the deletion, and nobody is inside the gate while it does.
    unsafe { handle.remove(txn) }
}

static FORKS: AtomicU32 = AtomicU32::new(0);
static HOOK: Once = Once::new();

extern "C" fn count_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// How often this process is the child of a fork since the hook was set; LMDB must not be used across one.
pub(crate) fn forks() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Sets the hook that counts forks, once for the process.
pub(crate) fn watch_forks() {
    HOOK.call_once(|| {
        // SAFETY: the hook is a plain function that lives as long as the program and does nothing but add to an atomic,
        // which is allowed in the child of a process with many threads.
        unsafe { libc::pthread_atfork(None, None, Some(count_fork)) };
    });
}
