//! The example of Berkeley DB's guide: one adds 3 and another adds 5 to one record, whatever happens in between. Here plain
//! updates add 7 in between as well.

use std::convert::Infallible;

use lockkeeper::{Isolation, Keeper, RunTxn, TxnError};

use super::{Shop, Stock};

const TIMES: u64 = 1000;
const OUTSIDE: u64 = 150;

/// How the number is read before it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Read {
    Plain,
    ForUpdate,
}

async fn add(keeper: &Keeper, stock: Stock, isolation: Isolation, read: Read, number: u64) {
    for _ in 0..TIMES {
        let run = keeper.transaction("add", |txn| async move {
            let sum: Option<u64> = match read {
                Read::Plain => txn.get_as(stock, "sum").await?,
                Read::ForUpdate => txn.get_for_update_as(stock, "sum").await?,
            };
            tokio::task::yield_now().await;
            txn.put(stock, "sum", &(sum.unwrap_or(0) + number)).await?;
            Ok::<_, TxnError<Infallible>>(())
        });
        // Where nobody waits for anybody, one of the two loses at each collision.
        run.isolation(isolation).retries(1000).await.unwrap();
    }
}

/// Adds 7 by plain updates; every other one declares the lock of the record.
async fn add_outside(keeper: &Keeper, stock: Stock) {
    for round in 0..OUTSIDE {
        let mut update = RunTxn::update(move |txn| {
            let sum = stock.get(txn, "sum")?.unwrap_or(0);
            Ok(stock.put(txn, "sum", &(sum + 7))?)
        });
        if round % 2 == 0 {
            update = update.write_lock(keeper.object(stock, "sum").unwrap());
        }
        keeper.run(update).await.unwrap();
        // The others have to come to commit something, too: some of these for each of theirs.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
}

async fn sum_is_right(isolation: Isolation, read: Read) {
    let shop = Shop::open();
    let stock = shop.stock;
    let adders = [3, 5].map(|number| {
        let keeper = shop.keeper.clone();
        tokio::spawn(async move { add(&keeper, stock, isolation, read, number).await })
    });
    let keeper = shop.keeper.clone();
    let outside = tokio::spawn(async move { add_outside(&keeper, stock).await });
    for adder in adders {
        adder.await.unwrap();
    }
    outside.await.unwrap();
    let sum = shop.value("sum").await;
    assert_eq!(sum, Some(TIMES * 8 + OUTSIDE * 7), "{isolation} {read:?}");
    assert!(shop.keeper.locks().snapshot().held.is_empty());
}

macro_rules! sums {
    ($($name:ident: $isolation:ident, $read:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
        async fn $name() {
            sum_is_right(Isolation::$isolation, Read::$read).await;
        }
    )*};
}

sums! {
    threes_and_fives_add_up_when_serializable: Serializable, Plain;
    threes_and_fives_add_up_when_serializable_and_read_for_update: Serializable, ForUpdate;
    threes_and_fives_add_up_at_repeatable_read: RepeatableRead, Plain;
    threes_and_fives_add_up_at_repeatable_read_for_update: RepeatableRead, ForUpdate;
    threes_and_fives_add_up_at_read_committed_when_read_for_update: ReadCommitted, ForUpdate;
    threes_and_fives_add_up_in_snapshots: Snapshot, Plain;
    threes_and_fives_add_up_in_snapshots_when_read_for_update: Snapshot, ForUpdate;
    threes_and_fives_add_up_optimistically: Optimistic, Plain;
    threes_and_fives_add_up_optimistically_when_read_for_update: Optimistic, ForUpdate;
}
