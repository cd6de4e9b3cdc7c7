//! The only file with `unsafe`: what heed marks as unsafe, and the hook that notices a fork.
#![allow(unsafe_code)]

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

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
    // The first look takes a reader slot.
    watch_exit();
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

/// Opens the file of leases at `path`, whose lock file is beside it. It is always flushed, and its map never changes its size.
pub(crate) fn open_leases(path: &Path, map_size: usize, max_readers: u32) -> heed::Result<Env> {
    watch_exit();
    let mut options = EnvOpenOptions::new();
    options.map_size(map_size).max_readers(max_readers);
    // SAFETY: the path is that of a file, not of a folder: no more than a name.
    unsafe { options.flags(EnvFlags::NO_SUB_DIR) };
    // SAFETY: the file is only changed through LMDB, its locks are on, heed refuses to open it twice in one process, and the
    // docs forbid network file systems and foreign writers.
    unsafe { options.open(path) }
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

// LMDB frees the reader slot of a thread that ends from a destructor of pthread's, and closing an environment unmaps the
// slots: a thread that is inside that destructor at this moment would write to memory that is gone. So threads on their way
// out and closings keep each other waiting, for the microseconds that either takes.

/// Threads between the end of their Rust code and the end of pthread's destructors.
static LEAVING: AtomicUsize = AtomicUsize::new(0);
/// Environments that are being closed.
static CLOSING: AtomicUsize = AtomicUsize::new(0);
/// Has a value on threads that are leaving; `None` if the system has no key left.
static LEFT: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();
/// Nobody waits longer for the other side: whoever is stuck there is not inside LMDB.
const EXIT_PATIENCE: Duration = Duration::from_secs(1);

struct Leave;

thread_local! {
    static LEAVE: Leave = const { Leave };
}

/// To be called on each thread before it can own a reader slot.
pub(crate) fn watch_exit() {
    LEFT.get_or_init(|| {
        let mut key = 0;
        // SAFETY: `key` is written before it is read; the destructor is a plain function that lives as long as the program.
        (unsafe { libc::pthread_key_create(&mut key, Some(left)) } == 0).then_some(key)
    });
    // A thread that is past this point already has no environment to read from any more.
    let _ = LEAVE.try_with(|_| {});
}

impl Drop for Leave {
    /// Runs before pthread's destructors: Rust registers its own with the C library's thread exit.
    fn drop(&mut self) {
        let Some(&Some(key)) = LEFT.get() else { return };
        LEAVING.fetch_add(1, Ordering::SeqCst);
        let patience = Instant::now();
        while CLOSING.load(Ordering::SeqCst) > 0 && patience.elapsed() < EXIT_PATIENCE {
            LEAVING.fetch_sub(1, Ordering::SeqCst);
            thread::sleep(EXIT_LOOK);
            LEAVING.fetch_add(1, Ordering::SeqCst);
        }
        arm(key, 1);
    }
}

const EXIT_LOOK: Duration = Duration::from_micros(20);

/// Has [`left`] called in the next round of pthread's destructors.
fn arm(key: libc::pthread_key_t, round: usize) {
    // SAFETY: the key was made and is never deleted; its value is a number, never followed.
    if unsafe { libc::pthread_setspecific(key, std::ptr::without_provenance(round)) } != 0 {
        LEAVING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The destructors of one round run in no known order: only after a whole one has LMDB's been among them.
extern "C" fn left(round: *mut libc::c_void) {
    match (round.addr(), LEFT.get()) {
        (1, Some(&Some(key))) => arm(key, 2),
        _ => {
            LEAVING.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// While an environment is being closed, no thread is inside LMDB's destructor.
pub(crate) struct Closing(());

impl Closing {
    /// Waits for the threads that are on their way out.
    pub(crate) fn begin() -> Self {
        CLOSING.fetch_add(1, Ordering::SeqCst);
        let patience = Instant::now();
        while LEAVING.load(Ordering::SeqCst) > 0 && patience.elapsed() < EXIT_PATIENCE {
            thread::sleep(EXIT_LOOK);
        }
        Self(())
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        CLOSING.fetch_sub(1, Ordering::SeqCst);
    }
}
