//! What handlers cannot do, and how a transaction ends that they have run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lockkeeper::{HandlerContext, Keeper, OnFatal, Outcome, Recover, RunTxn, TxnError};

use crate::stage::{Disk, on_stage};
use crate::support::{Numbers, SOON, folder, get, open, open_with, put, stats};

/// Adds one to a number; counts its runs.
fn adding(numbers: Numbers, runs: &Arc<AtomicU32>) -> RunTxn<u64> {
    let runs = Arc::clone(runs);
    RunTxn::update(move |txn| {
        runs.fetch_add(1, Ordering::SeqCst);
        let next = numbers.get(txn, &1)?.unwrap_or(0) + 1;
        numbers.put(txn, &1, &next)?;
        Ok(next)
    })
}

#[test]
fn i02_what_may_be_committed_is_not_run_again_whatever_a_handler_says() {
    let Some(stage) =
        on_stage("handlers::i02_what_may_be_committed_is_not_run_again_whatever_a_handler_says")
    else {
        return;
    };
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(&stage.folder)
            .on_fatal(OnFatal::Wait),
    );
    type Say = fn(&mut HandlerContext, Outcome) -> Outcome;
    let retry: Say = |_, _| Outcome::Retry;
    let hide: Say = |_, _| Outcome::Failed(TxnError::ShuttingDown);
    let says = [retry, hide];
    let seen = Arc::new(AtomicU32::new(0));
    let watched = |say: Say, txn: RunTxn<u64>| {
        let seen = Arc::clone(&seen);
        txn.handler(move |context: &mut HandlerContext, outcome| {
            assert!(
                matches!(outcome, Outcome::Failed(TxnError::MaybeCommitted { .. })),
                "{outcome:?}"
            );
            seen.fetch_add(1, Ordering::SeqCst);
            say(context, outcome)
        })
    };
    // The deadline passes while the commit waits for the disk, and then it is committed.
    for (nth, say) in (1..).zip(says) {
        let runs = Arc::default();
        stage.tell(Disk::HoldFlush);
        let txn = adding(numbers, &runs).deadline(Duration::from_secs(1));
        let answer = keeper.blocking_run(watched(say, txn));
        assert!(
            matches!(answer, Err(TxnError::MaybeCommitted { cause: None })),
            "{answer:?}"
        );
        stage.heal(Disk::HoldFlush);
        keeper.blocking_update(|_| Ok(())).unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert_eq!(get(&keeper, numbers, 1), Some(nth));
    }
    // The commit fails, and nobody knows what the disk has.
    for say in says {
        let runs = Arc::default();
        stage.tell(Disk::FailMeta);
        let answer = keeper.blocking_run(watched(say, adding(numbers, &runs)));
        assert!(
            matches!(answer, Err(TxnError::MaybeCommitted { cause: Some(_) })),
            "{answer:?}"
        );
        stage.heal(Disk::FailMeta);
        keeper.blocking_send(Recover).unwrap();
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        let found = get(&keeper, numbers, 1);
        assert!(matches!(found, Some(2..=4)), "{found:?}");
    }
    assert_eq!(seen.load(Ordering::SeqCst), 4);
    keeper.blocking_shutdown(SOON).unwrap();
}

#[test]
fn a_handler_that_panics_leaves_the_outcome_as_it_was() {
    let folder = folder();
    let (keeper, numbers) = open_with(Keeper::builder().path(folder.path()).handler(
        |context: &mut HandlerContext, outcome: Outcome| match context.name() {
            Some("for one") => outcome,
            _ => panic!("a handler for all, on purpose"),
        },
    ));
    let panics = |_: &mut HandlerContext, _: Outcome| -> Outcome { panic!("on purpose") };
    // What the one before has decided goes with it.
    let decides = |_: &mut HandlerContext, _: Outcome| Outcome::Retry;
    for by_message in [false, true] {
        for for_one in [false, true] {
            let dress = |txn: RunTxn<u64, &'static str>| match for_one {
                true => txn.name("for one").handler(decides).handler(panics),
                false => txn,
            };
            let run = |txn: RunTxn<u64, &'static str>| {
                if by_message {
                    keeper.blocking_send(dress(txn))
                } else {
                    keeper.blocking_run(dress(txn))
                }
            };
            let committed = run(RunTxn::<u64>::try_update(move |txn| {
                numbers.put(txn, &1, &10)?;
                Ok(7)
            }));
            assert!(matches!(committed, Ok(7)), "{committed:?}");
            let read = run(RunTxn::<u64>::try_view(move |txn| {
                Ok(numbers.get(txn, &1)?.unwrap_or(0))
            }));
            assert!(matches!(read, Ok(10)), "{read:?}");
            let aborted = run(RunTxn::<u64>::try_update(|_| Err(TxnError::Abort("no"))));
            assert!(matches!(aborted, Err(TxnError::Abort("no"))), "{aborted:?}");
            let failed = run(RunTxn::<u64>::try_update(move |txn| {
                numbers.put(txn, &0, &1)?;
                panic!("a body, on purpose");
            }));
            assert!(
                matches!(&failed, Err(TxnError::BodyPanicked { message, .. }) if message == "a body, on purpose"),
                "{failed:?}"
            );
        }
    }
    let view = keeper.blocking_view(move |txn| Ok(numbers.get(txn, &0)?));
    assert!(matches!(view, Ok(None)), "{view:?}");
    let stats = stats(&keeper).transactions;
    assert_eq!((stats.retries, stats.in_flight), (0, 0));
}

#[test]
fn retrying_until_the_budget_ends_is_an_error_with_the_last_real_one() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let retry = |_: &mut HandlerContext, _: Outcome| Outcome::Retry;
    let fails = move || {
        RunTxn::<()>::update(move |txn| {
            numbers.put(txn, &1, &10)?;
            panic!("attempt {}", txn.attempt())
        })
        .handler(retry)
        .retries(3)
    };
    for answer in [keeper.blocking_run(fails()), keeper.blocking_send(fails())] {
        let Err(TxnError::RetriesExhausted {
            attempts: 3, last, ..
        }) = &answer
        else {
            panic!("{answer:?}");
        };
        assert!(
            matches!(&**last, TxnError::BodyPanicked { message, .. } if message == "attempt 3"),
            "{last:?}"
        );
    }
    // An error of the application's own says more.
    let says_no = RunTxn::<()>::try_update(move |txn| Err(TxnError::Abort(txn.attempt())));
    let answer = keeper.blocking_run(says_no.handler(retry).retries(3));
    assert!(matches!(answer, Err(TxnError::Abort(3))), "{answer:?}");
    // What is committed is not run again, and what a handler answers for it is not asked.
    let runs = Arc::default();
    let answer = keeper.blocking_run(adding(numbers, &runs).handler(retry));
    assert!(matches!(answer, Ok(1)), "{answer:?}");
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    put(&keeper, numbers, 2, 20).unwrap();
}
