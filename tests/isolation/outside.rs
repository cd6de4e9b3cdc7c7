//! Plain updates are outside writes, whatever they lock, and whether or not they share a batch with the commit.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use lockkeeper::{Isolation, Keeper, RunTxn, TxnError, abort};
use tokio::sync::Semaphore;

use super::{PATIENCE, Sent, Shop, Stock, is_lost, until};

/// Who writes without having announced it.
#[derive(Clone, Copy, Debug)]
enum Writer {
    /// A plain update, with a declared lock on another record.
    Update,
    Optimistic,
}

/// Keeps the writer until it is let go.
struct Held {
    leave: mpsc::Sender<()>,
    thread: JoinHandle<Result<(), TxnError>>,
}

impl Held {
    fn writer(keeper: &Keeper) -> Self {
        let keeper = keeper.clone();
        let (entered, is_inside) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            keeper.blocking_run(RunTxn::update(move |_| {
                entered.send(()).unwrap();
                may_leave.recv().unwrap();
                Ok(())
            }))
        });
        is_inside.recv_timeout(PATIENCE).unwrap();
        Self { leave, thread }
    }

    fn release(self) {
        self.leave.send(()).unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

impl Shop {
    /// A write of `x` by `writer`, and the commit of a transaction that has read `x`: both in one batch, in this order or in
    /// the other. Whether the transaction is lost.
    async fn in_one_batch(&self, isolation: Isolation, writer: Writer, writer_first: bool) -> bool {
        let stock = self.stock;
        // The last commit before is the keeper's own: only what happens in the batch itself can tell.
        let settle = self.begin(isolation).await;
        settle.put(stock, "x", &1).await.unwrap();
        settle.put(stock, "z", &0).await.unwrap();
        settle.commit().await.unwrap();

        let txn = self.begin(isolation).await;
        assert_eq!(txn.get_for_update_as(stock, "x").await.unwrap(), Some(1));
        txn.put(stock, "z", &1).await.unwrap();
        let write: Pin<Box<dyn Future<Output = Result<(), TxnError>>>> = match writer {
            Writer::Update => {
                let declared = self.keeper.object(stock, "declared").unwrap();
                let update = RunTxn::update(move |txn| Ok(stock.put(txn, "x", &2)?));
                let keeper = self.keeper.clone();
                Box::pin(async move { keeper.run(update.write_lock(declared)).await })
            }
            Writer::Optimistic => {
                let other = self.begin(Isolation::Optimistic).await;
                other.put(stock, "x", &2).await.unwrap();
                Box::pin(other.commit())
            }
        };
        let before = self.keeper.stats().await.environment;

        let held = Held::writer(&self.keeper);
        let (updated, committed);
        if writer_first {
            updated = Sent::new(write);
            committed = Sent::new(txn.commit());
        } else {
            committed = Sent::new(txn.commit());
            updated = Sent::new(write);
        }
        held.release();
        updated.answer().await.unwrap();
        let outcome = committed.answer().await;
        let after = self.keeper.stats().await.environment;
        assert_eq!(after.batches - before.batches, 2, "the holder, and both");
        let lost = is_lost(&outcome);
        assert!(lost || outcome.is_ok(), "{outcome:?}");
        assert_eq!(self.value("x").await, Some(2));
        assert_eq!(self.value("z").await, Some(u64::from(!lost)));
        lost
    }
}

#[tokio::test]
async fn a_plain_update_earlier_in_the_batch_is_seen_in_spite_of_its_declared_locks() {
    let shop = Shop::open();
    for isolation in Isolation::ALL {
        let lost = shop.in_one_batch(isolation, Writer::Update, true).await;
        assert!(lost, "{isolation}");
        let lost = shop.in_one_batch(isolation, Writer::Update, false).await;
        assert!(!lost, "{isolation}");
    }
}

#[tokio::test]
async fn an_optimistic_transaction_earlier_in_the_batch_is_seen_too() {
    let shop = Shop::open();
    for isolation in Isolation::ALL {
        let lost = shop.in_one_batch(isolation, Writer::Optimistic, true).await;
        assert!(lost, "{isolation}");
        let lost = shop
            .in_one_batch(isolation, Writer::Optimistic, false)
            .await;
        assert!(!lost, "{isolation}");
    }
}

#[tokio::test]
async fn a_database_that_was_cleared_in_between_is_a_conflict() {
    let shop = Shop::open();
    let stock = shop.stock;
    for isolation in Isolation::ALL {
        let other: Stock = shop.keeper.records("other").await.unwrap();
        let settle = shop.begin(isolation).await;
        settle.put(other, "x", &1).await.unwrap();
        settle.commit().await.unwrap();
        let txn = shop.begin(isolation).await;
        assert_eq!(txn.get_for_update_as(other, "x").await.unwrap(), Some(1));
        let clear = lockkeeper::ClearDatabase("other".into());
        shop.keeper
            .environment()
            .send(clear)
            .await
            .unwrap()
            .unwrap();
        let _ = txn.put(stock, "z", &1).await;
        let outcome = txn.commit().await;
        let ousted = matches!(outcome, Err(TxnError::SnapshotTooOld));
        assert!(is_lost(&outcome) || ousted, "{isolation}: {outcome:?}");
        assert_eq!(shop.value("z").await, None, "{isolation}");
    }
}

#[derive(Debug)]
struct DoesNotAddUp;

/// Reads two values that are always equal, with an outside write of both in between the first time.
async fn reads_between(
    shop: &Shop,
    isolation: Isolation,
) -> (Result<u64, TxnError<DoesNotAddUp>>, u32) {
    shop.write("x", 1).await;
    shop.write("y", 1).await;
    let (has_read, goes_on) = (Semaphore::new(0), Semaphore::new(0));
    let attempts = std::sync::atomic::AtomicU32::new(0);
    let (keeper, stock) = (&shop.keeper, shop.stock);
    let (is_read, go_on, count) = (&has_read, &goes_on, &attempts);
    let run = async {
        keeper
            .transaction("adds up", |txn| async move {
                count.store(txn.attempt(), std::sync::atomic::Ordering::Relaxed);
                let x = txn.get_as(stock, "x").await?;
                if txn.attempt() == 1 {
                    is_read.add_permits(1);
                    go_on.acquire().await.unwrap().forget();
                }
                let y = txn.get_as(stock, "y").await?;
                if x != y {
                    return Err(abort(DoesNotAddUp));
                }
                Ok(x.unwrap())
            })
            .isolation(isolation)
            .await
    };
    let write = async {
        is_read.acquire().await.unwrap().forget();
        let both = keeper.update(move |txn| {
            stock.put(txn, "x", &2)?;
            Ok(stock.put(txn, "y", &2)?)
        });
        both.await.unwrap();
        go_on.add_permits(1);
    };
    let (outcome, ()) = tokio::join!(run, write);
    (outcome, attempts.into_inner())
}

#[tokio::test]
async fn a_no_that_came_of_reads_that_do_not_agree_is_not_the_last_word() {
    let shop = Shop::open();
    for isolation in [
        Isolation::Serializable,
        Isolation::RepeatableRead,
        Isolation::Optimistic,
    ] {
        let (outcome, attempts) = reads_between(&shop, isolation).await;
        assert_eq!((outcome.unwrap(), attempts), (2, 2), "{isolation}");
    }
    // Here it saw one moment …
    let (outcome, attempts) = reads_between(&shop, Isolation::Snapshot).await;
    assert_eq!((outcome.unwrap(), attempts), (1, 1));
    // … and here nothing else was promised.
    let (outcome, attempts) = reads_between(&shop, Isolation::ReadCommitted).await;
    assert!(matches!(outcome, Err(TxnError::Abort(DoesNotAddUp))));
    assert_eq!(attempts, 1);
}

#[tokio::test]
async fn a_plain_update_that_declares_the_lock_of_a_record_waits_for_who_has_read_it() {
    let shop = Shop::open();
    let stock = shop.stock;
    shop.write("x", 1).await;
    let txn = shop.begin(Isolation::Serializable).await;
    assert_eq!(txn.get_as(stock, "x").await.unwrap(), Some(1));
    let record = shop.keeper.object(stock, "x").unwrap();
    let update = RunTxn::update(move |txn| Ok(stock.put(txn, "x", &2)?)).write_lock(record);
    let keeper = shop.keeper.clone();
    let updated = tokio::spawn(async move { keeper.run(update).await });
    let locks = shop.keeper.locks();
    until("it waits", || !locks.snapshot().waiting.is_empty()).await;
    txn.put(stock, "z", &1).await.unwrap();
    txn.commit().await.unwrap();
    updated.await.unwrap().unwrap();
    assert_eq!(shop.value("x").await, Some(2));
}
