//! An application that puts something of its own in the place of the keeper.

use std::sync::Mutex;

use lockkeeper::{RunTxn, TxnError, TxnRunner};

use crate::rt::{block_on, bump, open};

/// Sees what is asked and refuses it as often as told; then hands it on.
struct Flaky<R> {
    inner: R,
    refusals: Mutex<u32>,
    seen: Mutex<Vec<String>>,
}

impl<R: TxnRunner> TxnRunner for Flaky<R> {
    async fn run_txn<T: Send + 'static, E: Send + 'static>(
        &self,
        txn: RunTxn<T, E>,
    ) -> Result<T, TxnError<E>> {
        let name = txn.given_name().unwrap_or("?").to_owned();
        self.seen.lock().unwrap().push(name);
        let refuse = {
            let mut left = self.refusals.lock().unwrap();
            let refuse = *left > 0;
            *left = left.saturating_sub(1);
            refuse
        };
        if refuse {
            return Err(TxnError::Overloaded { limit: 0 });
        }
        self.inner.run_txn(txn).await
    }
}

/// The application: tries again whatever may be tried again.
async fn next(runner: &impl TxnRunner, counters: crate::rt::Counters) -> Result<u64, TxnError> {
    loop {
        match runner.run_txn(bump(counters, "next").name("next")).await {
            Err(error) if error.is_retryable() => {}
            outcome => return outcome,
        }
    }
}

#[test]
fn the_application_can_be_tested_without_the_keeper() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    assert_eq!(block_on(next(&keeper, counters)).unwrap(), 1);
    let flaky = Flaky {
        inner: keeper,
        refusals: Mutex::new(3),
        seen: Mutex::default(),
    };
    assert_eq!(block_on(next(&flaky, counters)).unwrap(), 2);
    assert_eq!(*flaky.seen.lock().unwrap(), ["next"; 4]);
}
