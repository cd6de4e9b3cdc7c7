//! Environments that others have made.

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Bytes, Str, U64};
use lockkeeper::heed::{self, CommitOrAbort, DatabaseFlags, DefaultComparator, EnvOpenOptions};
use lockkeeper::{OpenError, TxnError};

use super::peer::{entries, plain};
use super::{LONG, MIB, builder, folder, has, open, stats, store, value, wait};

/// An environment of plain heed: a record of the main database, numbers, and strings with duplicates.
fn made_by_heed(folder: &std::path::Path) {
    let mut options = EnvOpenOptions::new();
    let env = plain(folder, options.map_size(4 << 20).max_dbs(4));
    let mut txn = env.write_txn().unwrap();
    let (numbers, words) = env
        .create_databases_and_commit(txn, |opener, txn| {
            let mut numbers = opener.database_options().types::<U64<BigEndian>, Bytes>();
            let numbers = numbers.name("blobs").create(txn)?;
            let mut words = opener.database_options().types::<Str, Str>();
            words.flags(DatabaseFlags::DUP_SORT);
            let words = words.name("words").create(txn)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit((numbers, words)))
        })
        .unwrap()
        .commit()
        .unwrap();
    txn = env.write_txn().unwrap();
    for key in 0..30 {
        numbers.put(&mut txn, &key, &value(key, 60_000)).unwrap();
    }
    for word in ["b", "a", "c"] {
        words.put(&mut txn, "k", word).unwrap();
    }
    txn.commit().unwrap();
    env.prepare_for_closing().wait();
}

#[test]
fn an_environment_made_by_plain_heed_opens_as_it_is() {
    let folder = folder();
    made_by_heed(folder.path());
    let (keeper, blobs) = open(builder(folder.path()));
    assert_eq!(stats(&keeper).map_size, 4 * MIB, "the larger of both sizes");
    assert!((0..30).all(|key| has(&keeper, blobs, key, 60_000)));
    let flags = DatabaseFlags::DUP_SORT;
    let words = wait(keeper.database_with::<Str, Str, DefaultComparator>("words", flags)).unwrap();
    let found = keeper.blocking_view(move |txn| {
        let words = words.get_duplicates(txn, "k")?.unwrap();
        Ok(words
            .map(|entry| entry.unwrap().1.to_owned())
            .collect::<Vec<_>>())
    });
    assert_eq!(found.unwrap(), ["a", "b", "c"]);
    let main = wait(keeper.main_database::<Str, Bytes>()).unwrap();
    let names = keeper.blocking_view(move |txn| {
        let names = main.iter(txn)?;
        Ok(names
            .map(|entry| entry.unwrap().0.to_owned())
            .collect::<Vec<_>>())
    });
    assert_eq!(names.unwrap(), ["blobs", "words"]);

    // It is written to, grows, and heed reads it again.
    for key in 30..80 {
        keeper.blocking_update(store(blobs, key, 60_000)).unwrap();
    }
    keeper.blocking_shutdown(LONG).unwrap();
    assert_eq!(entries(folder.path(), "blobs").len(), 80);
}

#[test]
fn a_file_that_has_grown_is_opened_as_large_as_it_is() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    keeper.blocking_update(store(blobs, 1, 3 * MIB)).unwrap();
    keeper.blocking_shutdown(LONG).unwrap();
    let (keeper, blobs) = open(builder(folder.path()));
    assert!(has(&keeper, blobs, 1, 3 * MIB));
    let stats = stats(&keeper);
    assert_eq!(
        (stats.map_size, stats.map_resizes, stats.resizes_adopted),
        (4 * MIB, 0, 0)
    );
}

#[test]
fn folders_that_come_and_go_are_never_taken_for_each_other() {
    // The file of a folder that was removed may have the number of the next one's.
    for n in 0..40 {
        let folder = folder();
        let (keeper, blobs) = open(builder(folder.path()));
        keeper.blocking_update(store(blobs, n, 10)).unwrap();
        if n % 2 == 0 {
            keeper.blocking_shutdown(LONG).unwrap();
        }
    }
}

#[test]
fn after_a_shutdown_the_folder_can_be_opened_at_once_whoever_still_has_a_handle() {
    let folder = folder();
    let (old, of_old) = open(builder(folder.path()));
    old.blocking_update(store(of_old, 1, 10)).unwrap();
    let twice = builder(folder.path()).open();
    assert!(
        matches!(twice, Err(OpenError::AlreadyOpen { .. })),
        "{twice:?}"
    );
    old.blocking_shutdown(LONG).unwrap();
    for no_lock in [false, true, false] {
        let (new, blobs) = open(builder(folder.path()).no_lock(no_lock));
        assert!(has(&new, blobs, 1, 10));
        let late = old.blocking_update(store(of_old, 1, 10));
        assert!(matches!(late, Err(TxnError::ShuttingDown)), "{late:?}");
        new.blocking_shutdown(LONG).unwrap();
    }
}
