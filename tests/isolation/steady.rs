//! I8: a plain writer that never stops does not starve a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use lockkeeper::Isolation;

use super::{Shop, until};

/// Adds 1 to `x` without end, until it is dropped.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(shop: &Shop) -> Self {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (keeper, stock) = (shop.keeper.clone(), shop.stock);
        let (is_over, count) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let add = keeper.blocking_update(move |txn| {
                    let next = stock.get(txn, "x")?.unwrap_or(0) + 1;
                    Ok(stock.put(txn, "x", &next)?)
                });
                add.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Self {
            stop,
            written,
            thread: Some(thread),
        }
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

#[tokio::test]
async fn i08_a_plain_writer_that_never_stops_does_not_starve_a_transaction() {
    let shop = Shop::open();
    let stock = shop.stock;
    shop.write("x", 0).await;
    let writer = Writer::start(&shop);
    for isolation in [
        Isolation::Serializable,
        Isolation::RepeatableRead,
        Isolation::Optimistic,
    ] {
        let (mut first_attempts, writer) = (0, &writer);
        let run = shop.keeper.transaction("reader of what changes", |txn| {
            first_attempts = txn.attempt();
            async move {
                let x: Option<u64> = txn.get_as(stock, "x").await?;
                if txn.attempt() <= 3 {
                    // Long enough for a write in between, each time: all of these are lost.
                    let since = writer.written();
                    until("a write", || writer.written() > since + 1).await;
                }
                txn.put(stock, "seen", &x.unwrap()).await?;
                Ok::<_, lockkeeper::TxnError>(x)
            }
        });
        let seen = run.isolation(isolation).await.unwrap();
        assert!(first_attempts >= 4, "{isolation}: {first_attempts}");
        assert_eq!(shop.value("seen").await, seen);
        let since = writer.written();
        until("it still writes", || writer.written() > since).await;
    }
}

#[tokio::test]
async fn i08_nor_those_that_take_their_time_with_one_short_await_in_between() {
    let shop = Shop::open();
    let stock = shop.stock;
    shop.write("x", 0).await;
    let writer = Writer::start(&shop);
    for _ in 0..20 {
        let run = shop.keeper.transaction("copy", |txn| async move {
            let x: u64 = txn.get_as(stock, "x").await?.unwrap_or(0);
            tokio::task::yield_now().await;
            txn.put(stock, "seen", &x).await?;
            Ok::<_, lockkeeper::TxnError>(())
        });
        run.await.unwrap();
    }
    drop(writer);
}
