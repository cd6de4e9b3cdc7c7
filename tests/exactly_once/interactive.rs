//! The same for transactions that span awaits.

use std::future::IntoFuture;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::U64;
use lockkeeper::{Isolation, Keeper, Records, RunTxn, Txn, TxnError, abort};

use crate::senders::elsewhere;
use crate::support::{NUMBERS, Sent, assert_idle, block_on, folder, get, open, until};
use crate::{ANSWERS, Runs};

type Cells = Records<U64<BigEndian>, U64<BigEndian>>;

fn cells(keeper: &Keeper) -> Cells {
    block_on(keeper.records(NUMBERS)).unwrap()
}

async fn add(txn: &Txn, cells: Cells, number: u64) -> Result<u64, TxnError<&'static str>> {
    let next = txn.get_as(cells, &number).await?.unwrap_or(0) + 1;
    txn.put(cells, &number, &next).await?;
    Ok(next)
}

const LEVELS: [Isolation; 5] = [
    Isolation::Serializable,
    Isolation::RepeatableRead,
    Isolation::ReadCommitted,
    Isolation::Snapshot,
    Isolation::Optimistic,
];

#[test]
fn in_each_level_and_through_both_doors_the_closure_runs_once() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let cells = cells(&keeper);
    for (number, level) in (1..).zip(LEVELS) {
        let runs = Runs::default();
        for _ in 0..2 {
            let counted = runs.clone();
            let closure = move |txn: Txn| {
                counted.ran();
                async move { add(&txn, cells, number).await }
            };
            let key = [number as u8];
            let sent = RunTxn::try_interactive(closure.clone());
            let sent = sent.name("add").isolation(level).idempotent(key);
            assert_eq!(block_on(keeper.send(sent)).unwrap(), 1, "{level:?}");
            let called = keeper.transaction("add", closure).isolation(level);
            assert_eq!(block_on(called.idempotent(key).into_future()).unwrap(), 1);
        }
        assert_eq!(runs.count(), 1, "{level:?}");
        assert_eq!(get(&keeper, numbers, number), Some(1));
    }
    assert_idle(&keeper);
}

#[test]
fn an_answer_without_a_write_is_stored_too() {
    let dir = folder();
    let (keeper, _) = open(dir.path());
    let cells = cells(&keeper);
    for now in [7, 8] {
        let txn = keeper.transaction("look", |txn| async move {
            let found = txn.get_as(cells, &1).await?.unwrap_or(0);
            Ok::<u64, TxnError>(found + now)
        });
        assert_eq!(block_on(txn.idempotent("key").into_future()).unwrap(), 7);
    }
}

#[test]
fn an_abort_is_not_stored_and_another_request_is_refused() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let cells = cells(&keeper);
    let send = |request: &str, fails: bool| {
        let txn = keeper.transaction("add", move |txn| async move {
            let next = add(&txn, cells, 1).await?;
            if fails { Err(abort("no")) } else { Ok(next) }
        });
        block_on(txn.idempotent("key").request(request).into_future())
    };
    assert!(matches!(send("one", true), Err(TxnError::Abort("no"))));
    assert_eq!(send("one", false).unwrap(), 1);
    assert_eq!(send("one", true).unwrap(), 1);
    assert!(matches!(
        send("two", false),
        Err(TxnError::KeyReused { .. })
    ));
    assert_eq!(get(&keeper, numbers, 1), Some(1));
}

#[test]
fn what_another_process_has_stored_meanwhile_is_the_answer_and_the_writes_are_undone() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let (cells, runs, path) = (cells(&keeper), Runs::default(), dir.path().to_owned());
    // It reads nothing that the other writes: only the key tells.
    let counted = runs.clone();
    let txn = RunTxn::interactive(move |txn: Txn| {
        counted.ran();
        let path = path.clone();
        async move {
            txn.put(cells, &9, &9).await?;
            elsewhere(path);
            Ok(99_u64)
        }
    });
    assert_eq!(block_on(keeper.run(txn.idempotent("key"))).unwrap(), 1);
    assert_eq!(runs.count(), 1);
    assert_eq!(get(&keeper, numbers, 9), None, "undone");
    assert_eq!(get(&keeper, numbers, 1), Some(1));
    assert_idle(&keeper);
}

#[test]
fn of_two_that_send_at_once_one_runs_and_the_other_gets_its_answer() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let cells = cells(&keeper);
    let runs = Runs::default();
    keeper
        .blocking_run(runs.bump(numbers, 2).idempotent("other"))
        .unwrap();
    let (go, gone) = tokio::sync::watch::channel(false);
    let sent = |level| {
        let (runs, gone) = (runs.clone(), gone.clone());
        let txn = RunTxn::try_interactive(move |txn: Txn| {
            runs.ran();
            let mut gone = gone.clone();
            async move {
                gone.wait_for(|gone| *gone).await.ok();
                add(&txn, cells, 1).await
            }
        });
        Sent::new(keeper.run(txn.isolation(level).idempotent("key")))
    };
    let first = sent(Isolation::Optimistic);
    let second = sent(Isolation::Serializable);
    until("the second waits for the key", || {
        keeper.locks().stats().waiting == 1
    });
    let locks = keeper.locks().snapshot();
    assert_eq!(locks.waiting[0].object.namespace(), ANSWERS);
    go.send(true).unwrap();
    let (first, second) = (first.in_thread(), second.in_thread());
    assert_eq!(first.join().unwrap().unwrap(), 1);
    assert_eq!(second.join().unwrap().unwrap(), 1);
    assert_eq!(runs.count(), 2, "the other and this");
    assert_idle(&keeper);
}
