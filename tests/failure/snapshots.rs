//! Snapshots held over awaits when the environment breaks, and across a fork.

use std::sync::mpsc;

use lockkeeper::{Keeper, Snapshot, TxnError};

use crate::stage::{Disk, on_stage};
use crate::support::{Numbers, SOON, Sent, block_on, get, open_with, put, stats, until};

fn read(snapshot: &Snapshot, numbers: Numbers, key: u64) -> Result<Option<u64>, TxnError> {
    block_on(snapshot.ask(move |txn| numbers.get(txn, &key).unwrap()))
}

fn needs_recovery<T: std::fmt::Debug>(answer: Result<T, TxnError>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, TxnError::RecoveryNeeded(_)), "{error:?}");
}

#[test]
fn i11_a_fatal_error_ends_them_and_the_recovery_waits_for_the_one_that_is_busy() {
    let Some(stage) = on_stage(
        "snapshots::i11_a_fatal_error_ends_them_and_the_recovery_waits_for_the_one_that_is_busy",
    ) else {
        return;
    };
    let (keeper, numbers) = open_with(Keeper::builder().path(&stage.folder).snapshots(2));
    put(&keeper, numbers, 1, 10).unwrap();
    let hold = || block_on(keeper.hold_snapshot("held", SOON)).unwrap();
    let (idle, busy) = (hold(), hold());
    let (entered, runs) = mpsc::channel();
    let (leave, left) = mpsc::channel::<()>();
    let running = Sent::new(busy.ask(move |txn| {
        entered.send(()).unwrap();
        let _ = left.recv();
        numbers.get(txn, &1).unwrap()
    }));
    runs.recv_timeout(SOON).unwrap();
    let behind = Sent::new(busy.ask(|_| ()));
    let waiting = Sent::new(keeper.hold_snapshot("waits", SOON));

    stage.tell(Disk::FailMeta);
    put(&keeper, numbers, 1, 11).unwrap_err();
    until("the idle one has ended", || {
        read(&idle, numbers, 1).is_err()
    });
    needs_recovery(read(&idle, numbers, 1));
    needs_recovery(waiting.answer());
    needs_recovery(block_on(keeper.hold_snapshot("late", SOON)));
    stage.heal(Disk::FailMeta);
    // The busy one is on the old map, which cannot be closed under it.
    needs_recovery(put(&keeper, numbers, 2, 20));
    assert_eq!(stats(&keeper).environment.recoveries, 0);
    drop(leave);
    assert_eq!(running.answer().unwrap(), Some(10));
    needs_recovery(behind.answer());
    until("recovered", || put(&keeper, numbers, 2, 20).is_ok());

    // Those of before stay ended; new ones are held by the same threads.
    needs_recovery(read(&idle, numbers, 1));
    needs_recovery(read(&busy, numbers, 1));
    let again = [hold(), hold()];
    for snapshot in &again {
        assert_eq!(read(snapshot, numbers, 2).unwrap(), Some(20));
    }
    assert_eq!(stats(&keeper).environment.snapshots_ousted, 0);
    assert_eq!(get(&keeper, numbers, 2), Some(20));
    keeper.blocking_shutdown(SOON).unwrap();
}
