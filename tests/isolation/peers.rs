//! What another process writes between a read and the commit.

use std::path::Path;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Str, U64};
use lockkeeper::heed::{self, CommitOrAbort, Database, Env, EnvOpenOptions};
use lockkeeper::{Isolation, TxnError};
use parking_lot::Mutex;

use super::matrix::MATRIX;
use super::script::SCANNED;
use super::{Shop, is_lost, process};

/// Another process, with plain heed, on a folder. It is killed when dropped.
struct Peer(process::Peer);

impl Peer {
    fn start(folder: &Path) -> Self {
        let folder = folder.to_str().unwrap();
        Self(process::Peer::start("peers::another_process", &[folder]))
    }

    /// Stores a value; answered when it is committed, with the id of the transaction.
    fn write(&mut self, key: &str, value: u64) -> u64 {
        self.0.ask(&format!("{key} {value}")).parse().unwrap()
    }
}

/// What a [`Peer`] runs; in the test run itself it does nothing.
#[test]
fn another_process() {
    let Some(told) = process::told() else {
        return;
    };
    let (env, stock) = open(Path::new(&told[0]));
    process::obey(|order| {
        let (key, value) = order.split_once(' ').unwrap();
        let mut txn = env.write_txn().unwrap();
        stock.put(&mut txn, key, &value.parse().unwrap()).unwrap();
        txn.commit().unwrap();
        env.info().last_txn_id.to_string()
    })
}

#[expect(unsafe_code, reason = "heed marks opening as unsafe")]
fn open(folder: &Path) -> (&'static Env, Database<'static, Str, U64<BigEndian>>) {
    let mut options = EnvOpenOptions::new();
    let options = options.map_size(1 << 24).max_dbs(32);
    // SAFETY: the folder is the test's own, and on a local disk.
    let env = unsafe { options.open(folder) }.unwrap();
    let env: &'static Env = Box::leak(Box::new(env));
    let txn = env.write_txn().unwrap();
    let stock = env
        .create_databases_and_commit(txn, |opener, txn| {
            let mut options = opener.database_options().types();
            let stock = options.name("stock").create(txn)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(stock))
        })
        .unwrap()
        .commit()
        .unwrap();
    (env, stock)
}

#[tokio::test]
async fn what_another_process_writes_between_read_and_commit_is_a_conflict() {
    let shop = Shop::open();
    let stock = shop.stock;
    let mut peer = Peer::start(shop.path());
    for (round, (isolation, _)) in (0..).zip(MATRIX) {
        shop.write("x", 100 * round).await;
        let txn = shop.begin(isolation).await;
        txn.get_for_update(stock, "x").await.unwrap();
        peer.write("x", 100 * round + 1);
        txn.put(stock, "x", &0).await.unwrap();
        assert!(is_lost(&txn.commit().await), "{isolation}");
        assert_eq!(shop.value("x").await, Some(100 * round + 1), "{isolation}");

        // A new record in a range.
        let txn = shop.begin(isolation).await;
        let count = txn.count(stock, &SCANNED).await.unwrap();
        assert_eq!(count, round);
        peer.write(&format!("k{round}"), 0);
        txn.put(stock, "z", &count).await.unwrap();
        let ranges = [Isolation::Serializable, Isolation::Optimistic];
        let lost = is_lost(&txn.commit().await);
        assert_eq!(lost, ranges.contains(&isolation), "{isolation}");

        // What was not read may change.
        let txn = shop.begin(isolation).await;
        txn.get(stock, "x").await.unwrap();
        peer.write("other", round);
        txn.put(stock, "z", &round).await.unwrap();
        txn.commit().await.unwrap();
    }
}

#[tokio::test]
async fn an_empty_commit_of_ours_does_not_hide_the_other_process_that_takes_its_id() {
    let shop = Shop::open();
    let stock = shop.stock;
    let mut peer = Peer::start(shop.path());
    peer.write("x", 0);
    for (round, (isolation, _)) in (1..).zip(MATRIX) {
        let settle = shop.begin(isolation).await;
        settle.put(stock, "z", &0).await.unwrap();
        settle.commit().await.unwrap();
        let ours = shop.keeper.stats().await.environment.last_txn_id;

        let txn = shop.begin(isolation).await;
        let read = txn.get_for_update_as(stock, "x").await.unwrap();
        assert_eq!(read, Some(round - 1));
        // A body without a write: its commit answers Ok, under the next id, and LMDB leaves it out …
        shop.keeper.update(|_| Ok(())).await.unwrap();
        let after = shop.keeper.stats().await.environment.last_txn_id;
        assert_eq!(after, ours);
        // … so that the other process takes the same one.
        assert_eq!(peer.write("x", round), ours + 1);
        txn.put(stock, "z", &1).await.unwrap();
        assert!(is_lost(&txn.commit().await), "{isolation}");
        assert_eq!(shop.value("z").await, Some(0), "{isolation}");
    }
}

#[tokio::test]
async fn a_closure_is_run_again_until_no_process_is_in_between() {
    let shop = Shop::open();
    let stock = shop.stock;
    for isolation in [
        Isolation::Serializable,
        Isolation::RepeatableRead,
        Isolation::Snapshot,
        Isolation::Optimistic,
    ] {
        shop.write("x", 0).await;
        let peer = Mutex::new(Peer::start(shop.path()));
        let peer = &peer;
        let run = shop.keeper.transaction("add", |txn| async move {
            let x: u64 = txn.get_as(stock, "x").await?.unwrap();
            if txn.attempt() <= 2 {
                peer.lock().write("x", x + 10);
            }
            txn.put(stock, "x", &(x + 1)).await?;
            Ok::<_, TxnError>(txn.attempt())
        });
        assert_eq!(run.isolation(isolation).await.unwrap(), 3, "{isolation}");
        assert_eq!(shop.value("x").await, Some(21), "{isolation}");
    }
}
