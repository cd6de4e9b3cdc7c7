//! What a commit survives: chosen for a transaction or for the environment.
//!
//! Whether a page has reached the disk cannot be seen from here; which flushes LMDB is told to make can: it keeps that in
//! its flags.

use std::time::Duration;

use lockkeeper::{Durability, Keeper, RunTxn, Sync};

use super::peer::entries;
use super::{Begun, LONG, builder, folder, has, hold_writer, open, stats, store};

const NO_SYNC: u32 = 0x1_0000;
const NO_META_SYNC: u32 = 0x4_0000;

fn meta_is_flushed(keeper: &Keeper) -> bool {
    stats(keeper).flags & NO_META_SYNC == 0
}

#[test]
fn a_transaction_can_do_without_the_flush_of_the_meta_page() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    assert_eq!(
        stats(&keeper).flags & (NO_SYNC | NO_META_SYNC),
        0,
        "full is the default"
    );
    let put = |key, durability| {
        let update = RunTxn::update(store(blobs, key, 10)).durability(durability);
        keeper.blocking_run(update).unwrap();
        meta_is_flushed(&keeper)
    };
    assert!(!put(1, Durability::NoMetaSync));
    assert!(put(2, Durability::Full));
    // No-sync is not a transaction's to choose.
    assert!(!put(3, Durability::NoSync));
    assert_eq!(stats(&keeper).flags & NO_SYNC, 0);
    keeper.blocking_update(store(blobs, 4, 10)).unwrap();
    assert!(
        meta_is_flushed(&keeper),
        "the next one is as the environment is set"
    );
    keeper.blocking_shutdown(LONG).unwrap();
    assert_eq!(entries(folder.path(), "blobs").len(), 4);
}

#[test]
fn an_environment_can_do_without_it_and_a_transaction_ask_for_it() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).durability(Durability::NoMetaSync));
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
    assert!(!meta_is_flushed(&keeper));
    let strict = RunTxn::update(store(blobs, 2, 10)).durability(Durability::Full);
    keeper.blocking_run(strict).unwrap();
    assert!(meta_is_flushed(&keeper));
}

#[test]
fn i02_a_batch_takes_the_strictest_durability_of_those_that_wrote_in_it() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).durability(Durability::NoMetaSync));
    let batch = |strict_ends: fn(bool) -> Result<(), lockkeeper::TxnError<()>>, wrote: bool| {
        let holder = hold_writer(&keeper);
        let mut sent: Vec<_> = (0..5)
            .map(|key| Begun::new(keeper.update(store(blobs, key, 10))))
            .collect();
        let strict = RunTxn::<()>::try_update(move |txn| {
            if wrote {
                blobs.put(txn, &50, b"x")?;
            }
            strict_ends(true)
        });
        let strict = Begun::new(keeper.run(strict.durability(Durability::Full)));
        sent.push(Begun::new(keeper.update(store(blobs, 99, 10))));
        holder.release().unwrap();
        let _ = strict.answer();
        sent.into_iter().for_each(|update| update.answer().unwrap());
        meta_is_flushed(&keeper)
    };
    assert!(batch(|_| Ok(()), true));
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
    assert!(
        !batch(|_| Err(lockkeeper::TxnError::Abort(())), true),
        "it is not in the commit"
    );
}

#[test]
fn without_sync_a_flush_can_be_had_on_demand() {
    let folder = folder();
    let (keeper, blobs) = open(
        builder(folder.path())
            .durability(Durability::NoSync)
            .flush_interval(Duration::from_millis(1)),
    );
    assert_ne!(stats(&keeper).flags & NO_SYNC, 0);
    for key in 0..50 {
        keeper.blocking_update(store(blobs, key, 100)).unwrap();
        if key % 10 == 0 {
            keeper.blocking_send(Sync).unwrap();
        }
    }
    // Nothing asked of one transaction changes that.
    let strict = RunTxn::update(store(blobs, 50, 100)).durability(Durability::Full);
    keeper.blocking_run(strict).unwrap();
    assert_ne!(stats(&keeper).flags & NO_SYNC, 0);
    assert!((0..=50).all(|key| has(&keeper, blobs, key, 100)));
    keeper.blocking_shutdown(LONG).unwrap();
    assert_eq!(entries(folder.path(), "blobs").len(), 51);
}

#[test]
fn a_flush_is_answered_in_every_environment() {
    for durability in [Durability::Full, Durability::NoMetaSync, Durability::NoSync] {
        let folder = folder();
        let (keeper, blobs) = open(builder(folder.path()).durability(durability));
        keeper.blocking_send(Sync).unwrap();
        keeper.blocking_update(store(blobs, 1, 10)).unwrap();
        keeper.blocking_send(Sync).unwrap();
        let holder = hold_writer(&keeper);
        let waits = Begun::new(keeper.send(Sync));
        holder.release().unwrap();
        waits.answer().unwrap();
    }
}
