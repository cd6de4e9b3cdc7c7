//! The folder, and the handles of one process.

use std::fs;
use std::time::Duration;

use lockkeeper::{Claimed, Fence, Keeper, LeaseStore, LmdbLeases, Released, StoreError, TableName};

use crate::support::{block_on, holder, name, taken, wish};

const LONG: Duration = Duration::from_secs(600);

#[test]
fn all_handles_of_a_process_are_one_store_and_the_file_is_closed_with_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let one = LmdbLeases::open(folder.path()).unwrap();
    let same = LmdbLeases::open(folder.path().join(".")).unwrap();
    assert_eq!(block_on(one.id()).unwrap(), block_on(same.id()).unwrap());
    taken(&one, &wish("job", "one", LONG));
    let busy = block_on(same.claim(&wish("job", "two", LONG))).unwrap();
    assert!(matches!(busy, Claimed::Busy(_)));
    drop(one);
    let released = block_on(same.release(&name("job"), &holder("one"))).unwrap();
    assert_eq!(released, Released::WasOurs);
    // Again and again, also while the thread of the last one is about to end.
    drop(same);
    for round in 2..30 {
        let again = LmdbLeases::open(folder.path()).unwrap();
        let id = round.to_string();
        assert_eq!(taken(&again, &wish("job", &id, LONG)), Fence(round));
        block_on(again.release(&name("job"), &holder(&id))).unwrap();
    }
}

#[test]
fn it_lies_beside_the_environment_of_a_keeper() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    taken(&store, &wish("job", "one", LONG));
    assert_eq!(
        store.path(),
        folder.path().canonicalize().unwrap().join("leases.mdb")
    );
    keeper.blocking_shutdown(Duration::from_secs(30)).unwrap();
    assert_eq!(block_on(store.list()).unwrap().len(), 1);
}

#[test]
fn leases_of_one_name_in_two_tables_are_two() {
    let folder = tempfile::tempdir().unwrap();
    let table = |name| LmdbLeases::open_table(folder.path(), &TableName::new(name).unwrap());
    // One name is the beginning of the other.
    let (one, two) = (table("jobs").unwrap(), table("jobs2").unwrap());
    assert_ne!(block_on(one.id()).unwrap(), block_on(two.id()).unwrap());
    taken(&one, &wish("nightly", "one", LONG));
    taken(&two, &wish("nightly", "two", LONG));
    taken(&two, &wish("weekly", "two", LONG));
    assert_eq!(block_on(one.list()).unwrap().len(), 1);
    assert_eq!(block_on(two.list()).unwrap().len(), 2);
}

#[test]
fn names_compare_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    let long = "x".repeat(255);
    for lease in ["a", "A", "a ", "ä", "a\u{308}", &long] {
        assert_eq!(
            taken(&store, &wish(lease, "one", LONG)),
            Fence(1),
            "{lease:?}"
        );
    }
}

#[test]
fn a_lease_that_is_taken_away_is_gone_and_its_token_has_moved_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = LmdbLeases::open(folder.path()).unwrap();
    assert!(
        block_on(store.force_release(&name("job")))
            .unwrap()
            .is_none()
    );
    let first = taken(&store, &wish("job", "one", LONG));
    let was = block_on(store.force_release(&name("job")))
        .unwrap()
        .unwrap();
    assert_eq!((was.token, &*was.holder.unwrap().id), (first, "one"));
    let after = block_on(store.look(&name("job"))).unwrap().unwrap();
    assert!(after.remaining.is_none() && after.token > first);
    assert!(
        block_on(store.force_release(&name("job")))
            .unwrap()
            .is_none()
    );
    assert!(taken(&store, &wish("job", "two", LONG)) > after.token);
}

#[test]
fn what_is_no_file_of_leases_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("leases.mdb");
    fs::write(&file, "something else entirely\n".repeat(1000)).unwrap();
    let refused = LmdbLeases::open(folder.path()).unwrap_err();
    assert!(
        matches!(refused, StoreError::WrongTable { .. }),
        "{refused:?}"
    );
    assert!(fs::read(&file).unwrap().starts_with(b"something"));
    assert!(matches!(
        LmdbLeases::open(&file),
        Err(StoreError::BadConfig(_))
    ));
    fs::remove_file(&file).unwrap();
    LmdbLeases::open(folder.path()).unwrap();
}
