//! Leases of a keeper that was given no store: they are beside its environment.

use std::time::Duration;

use lockkeeper::{Keeper, LeaseConfig, LeaseError, Leases, LmdbLeases};

use crate::peer::Peer;
use crate::support::block_on;

const LONG: Duration = Duration::from_secs(600);

#[test]
fn a_keeper_without_a_store_excludes_other_processes_by_the_file_in_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    assert!(!folder.path().join("leases.mdb").exists(), "not asked yet");
    let guard = block_on(keeper.lease("job").acquire()).unwrap();
    assert!(folder.path().join("leases.mdb").is_file());

    let mut peer = Peer::start(folder.path());
    assert_eq!(peer.claim("job", "them", LONG), None);
    let store = LmdbLeases::open(folder.path()).unwrap();
    let leases = Leases::start(store, LeaseConfig::default()).unwrap();
    let refused = block_on(leases.try_acquire("job")).unwrap_err();
    assert!(matches!(refused, LeaseError::Busy { .. }), "{refused:?}");
    let ours = guard.token();
    block_on(guard.release()).unwrap();
    let theirs = peer.claim("job", "them", LONG).unwrap();
    assert!(theirs > ours);
    let refused = block_on(keeper.lease("job").try_acquire()).unwrap_err();
    assert!(matches!(refused, LeaseError::Busy { .. }), "{refused:?}");
    assert_eq!(peer.ask("release job them"), "was ours");
    let guard = block_on(leases.acquire("job")).unwrap();
    let refused = block_on(keeper.lease("job").try_acquire()).unwrap_err();
    assert!(matches!(refused, LeaseError::Busy { .. }), "{refused:?}");
    drop(guard);
}

#[test]
fn keepers_of_two_folders_have_nothing_to_do_with_each_other() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let keepers = folders
        .each_ref()
        .map(|folder| Keeper::open(folder.path()).unwrap());
    let guards = keepers
        .each_ref()
        .map(|keeper| block_on(keeper.lease("job").try_acquire()).unwrap());
    let [one, two] = guards.each_ref().map(|guard| guard.store_id());
    assert_ne!(one, two);
}
