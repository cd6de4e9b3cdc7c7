//! A map that is full only when the commit finds out: the list of free pages has no room.

use std::fs;
use std::path::Path;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Bytes, U64};
use lockkeeper::heed::{self, CommitOrAbort, Database, Env, EnvOpenOptions, MdbError, RwTxn};
use lockkeeper::{Growth, SetMapSize, TxnError, WriteTxn};
use tempfile::TempDir;

use super::peer::{entries, plain};
use super::{Begun, Blobs, builder, folder, has, hold_writer, open, stats, store, value};

const MAP: usize = 1 << 20;
const LEN: u64 = 4_000;

type Plain<'e> = Database<'e, U64<BigEndian>, Bytes>;

/// Uses plain heed on a folder that nobody has open.
fn with_heed<T>(folder: &Path, work: impl FnOnce(&Env, Plain<'_>) -> T) -> T {
    let mut options = EnvOpenOptions::new();
    let env = plain(folder, options.map_size(MAP).max_dbs(4));
    let txn = env.write_txn().unwrap();
    let created = env.create_databases_and_commit(txn, |opener, txn| {
        let mut options = opener.database_options().types();
        let blobs = options.name("blobs").create(txn)?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(blobs))
    });
    let blobs = created.unwrap().commit().unwrap();
    let answer = work(&env, blobs);
    env.prepare_for_closing().wait();
    answer
}

fn is_full<T>(outcome: &heed::Result<T>) -> bool {
    matches!(outcome, Err(heed::Error::Mdb(MdbError::MapFull)))
}

/// Fills the map to the last page that a small commit leaves; answers how many records there are.
fn fill(env: &Env, blobs: Plain<'_>) -> u64 {
    for key in 0.. {
        let mut txn = env.write_txn().unwrap();
        let put = blobs.put(&mut txn, &key, &value(key, LEN));
        if is_full(&put) || is_full(&txn.commit()) {
            return key;
        }
    }
    unreachable!("the map is bounded")
}

fn delete(blobs: Plain<'_>, txn: &mut RwTxn<'_>, from: u64, to: u64) -> heed::Result<()> {
    for key in from..to {
        blobs.delete(txn, &key)?;
    }
    Ok(())
}

/// Whether the deletion of the first `n` records works and its commit does not. It changes the folder if both do.
fn full_at_commit(folder: &Path, n: u64) -> bool {
    with_heed(folder, |env, blobs| {
        let mut txn = env.write_txn().unwrap();
        delete(blobs, &mut txn, 0, n).is_ok() && is_full(&txn.commit())
    })
}

/// A folder with such a map; answers how many records have to be deleted.
fn prepared() -> (TempDir, u64) {
    let made = folder();
    let records = with_heed(made.path(), fill);
    let copy = || {
        let copy = folder();
        fs::copy(made.path().join("data.mdb"), copy.path().join("data.mdb")).unwrap();
        copy
    };
    let n = (1..records).find(|&n| full_at_commit(copy().path(), n));
    (copy(), n.unwrap())
}

fn delete_first(
    blobs: Blobs,
    n: u64,
) -> impl FnMut(&mut WriteTxn<'_>) -> Result<(), TxnError> + Send + 'static {
    move |txn| {
        for key in 0..n {
            assert!(blobs.delete(txn, &key)?);
        }
        Ok(())
    }
}

#[test]
fn i02_a_map_that_is_full_at_the_commit_grows_and_the_batch_runs_again() {
    let (folder, n) = prepared();
    let (keeper, blobs) = open(builder(folder.path()));
    keeper.blocking_update(delete_first(blobs, n)).unwrap();
    let stats = stats(&keeper);
    assert_eq!((stats.map_fulls, stats.map_resizes), (1, 1));
    assert_eq!(stats.bodies_rerun, 1, "its deletions had worked");
    assert!(!has(&keeper, blobs, 0, LEN));
    keeper.blocking_shutdown(super::LONG).unwrap();
    let left = entries(folder.path(), "blobs");
    assert_eq!(left.keys().next(), Some(&n));
}

#[test]
fn i02_where_it_may_not_grow_those_that_do_not_fit_are_told_and_the_others_committed() {
    let (folder, n) = prepared();
    let (keeper, blobs) = open(builder(folder.path()).growth(Growth::Fixed));
    let refused = keeper.blocking_update(delete_first(blobs, n));
    assert!(
        matches!(
            refused,
            Err(TxnError::EnvironmentFull {
                size: 0x10_0000,
                ..
            })
        ),
        "{refused:?}"
    );
    assert!(has(&keeper, blobs, 0, LEN), "nothing was deleted");

    let holder = hold_writer(&keeper);
    let large = Begun::new(keeper.update(delete_first(blobs, n)));
    let nothing = Begun::new(keeper.update(move |txn| Ok(blobs.get(txn, &0)?.is_some())));
    holder.release().unwrap();
    let refused = large.answer();
    assert!(
        matches!(refused, Err(TxnError::EnvironmentFull { .. })),
        "{refused:?}"
    );
    assert!(nothing.answer().unwrap());

    keeper.blocking_send(SetMapSize(4 << 20)).unwrap();
    keeper.blocking_update(delete_first(blobs, n)).unwrap();
    keeper.blocking_update(store(blobs, 0, LEN)).unwrap();
}
