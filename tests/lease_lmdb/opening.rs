//! Opening the leases of a keeper may wait for another process. Whoever wants one must not.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::heed::{Env, EnvFlags, EnvOpenOptions, RwTxn};
use lockkeeper::{AcquireLease, Keeper, LeaseError, LeaseStore, ListLeases, LmdbLeases, OpenError};

use crate::peer::Peer;
use crate::support::{PATIENCE, block_on, taken, until, wish};

/// Makes the file, and keeps LMDB's writer of it: nobody can say that it is one of leases meanwhile.
#[expect(unsafe_code, reason = "heed marks opening as unsafe")]
pub fn keep_the_writer(folder: &Path) -> RwTxn<'static> {
    let mut options = EnvOpenOptions::new();
    options.map_size(1 << 20);
    // SAFETY: this process opens the file once, and has no other flags.
    let env: Env = unsafe {
        options.flags(EnvFlags::NO_SUB_DIR);
        options.open(folder.join("leases.mdb")).unwrap()
    };
    Box::leak(Box::new(env)).write_txn().unwrap()
}

#[test]
fn who_wants_a_lease_is_not_kept_by_an_opening_that_waits_for_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let mut peer = Peer::idle(folder.path());
    assert_eq!(peer.ask("keep the writer"), "kept");

    // On this thread, and through the actor, whose other messages are answered meanwhile.
    let late = Duration::from_millis(50);
    let began = Instant::now();
    block_on(async {
        let lease = keeper.lease("job").acquire_timeout(late);
        let message = keeper.send(AcquireLease::new("other").timeout(late));
        let (one, other) = tokio::join!(lease, message);
        for refused in [one.unwrap_err(), other.unwrap_err()] {
            let in_time = matches!(
                refused,
                LeaseError::TimedOut { .. } | LeaseError::Unreachable { .. }
            );
            assert!(in_time, "{refused:?}");
        }
        // A caller who goes away leaves nothing behind that would keep the next.
        drop(tokio::time::timeout(late, keeper.send(ListLeases)).await);
        drop(tokio::time::timeout(late, keeper.lease("job").acquire()).await);
    });
    assert!(began.elapsed() < PATIENCE / 10, "{:?}", began.elapsed());

    assert_eq!(peer.ask("let it go"), "gone");
    let guard = block_on(keeper.lease("job").acquire_timeout(PATIENCE)).unwrap();
    assert!(guard.is_held());
    block_on(guard.release()).unwrap();
}

#[test]
fn a_keeper_ends_in_time_while_its_leases_are_being_opened() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let mut peer = Peer::idle(folder.path());
    assert_eq!(peer.ask("keep the writer"), "kept");
    let mut waiting = Box::pin(keeper.lease("job").acquire());
    block_on(async {
        let late = Duration::from_millis(50);
        assert!(tokio::time::timeout(late, &mut waiting).await.is_err());
    });
    let began = Instant::now();
    let _ = keeper.blocking_shutdown(Duration::from_secs(1));
    assert!(began.elapsed() < PATIENCE / 10, "{:?}", began.elapsed());
    let refused = block_on(waiting).unwrap_err();
    assert!(matches!(refused, LeaseError::ShuttingDown), "{refused:?}");

    // What was opened after all is closed: the folder is free for another keeper.
    assert_eq!(peer.ask("let it go"), "gone");
    drop(keeper);
    let began = Instant::now();
    let keeper = loop {
        match Keeper::open(folder.path()) {
            Err(OpenError::AlreadyOpen { .. }) if began.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            opened => break opened.unwrap(),
        }
    };
    drop(block_on(keeper.lease("job").acquire_timeout(PATIENCE)).unwrap());
}

#[test]
fn an_opening_that_waits_for_another_process_keeps_no_other_folder_waiting() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [stuck, free] = folders.each_ref().map(|folder| folder.path().to_owned());
    let mut peer = Peer::idle(&stuck);
    assert_eq!(peer.ask("keep the writer"), "kept");
    let open = |folder: &Path| {
        let folder = folder.to_owned();
        thread::spawn(move || LmdbLeases::open(folder))
    };
    let mut waiting = vec![open(&stuck)];
    let its_file = stuck.join("leases.mdb");
    until("the opening", || {
        let ours = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut ours = ours.filter_map(|ours| std::fs::read_link(ours.unwrap().path()).ok());
        ours.any(|ours| ours == its_file).then_some(())
    });
    // Nor does one that comes second to the same.
    waiting.push(open(&stuck));
    let other = open(&free);
    until("the other folder", || other.is_finished().then_some(()));
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    let other = other.join().unwrap().unwrap();
    taken(&other, &wish("job", "one", PATIENCE));

    assert_eq!(peer.ask("let it go"), "gone");
    for waiting in waiting {
        let store = waiting.join().unwrap().unwrap();
        assert!(block_on(store.list()).unwrap().is_empty());
    }
}
