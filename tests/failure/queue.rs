//! I13: every queue has a bound, and a full one gives an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lockkeeper::{ErrorClass, Keeper, RunTxn, Stage, TxnError, WhenFull};

use crate::support::{Plug, SOON, Sent, assert_idle, folder, get, open_with, put, putting, stats};

#[test]
fn i13_a_full_queue_refuses_at_once_or_waits_until_the_deadline() {
    let folder = folder();
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(folder.path())
            .queue(2)
            .when_full(WhenFull::Refuse),
    );
    let plug = Plug::hold(&keeper);
    let second = Sent::new(keeper.run(putting(numbers, 1, 10)));
    for full in [
        keeper.blocking_run(putting(numbers, 2, 20)),
        keeper.blocking_send(putting(numbers, 2, 20)),
        keeper.blocking_run(RunTxn::view(|_| Ok(()))),
    ] {
        let error = full.unwrap_err();
        assert!(
            matches!(error, TxnError::Overloaded { limit: 2 }),
            "{error:?}"
        );
        assert_eq!(error.class(), ErrorClass::Overloaded);
        assert!(error.is_retryable());
        assert!(error.to_string().contains("`queue`"), "{error}");
    }
    // One transaction can say otherwise; its deadline counts from the send.
    let deadline = Duration::from_millis(100);
    let begun = Instant::now();
    let patient = putting(numbers, 3, 30)
        .when_full(WhenFull::Wait)
        .deadline(deadline);
    let error = keeper.blocking_run(patient).unwrap_err();
    assert!(begun.elapsed() >= deadline && begun.elapsed() < SOON);
    assert!(error.is_retryable(), "{error:?}");
    assert!(
        matches!(
            error,
            TxnError::DeadlineExceeded {
                stage: Stage::WaitedForAdmission,
                ..
            } | TxnError::WriterStalled { .. }
        ),
        "{error:?}"
    );
    // Short views in place need no place.
    assert_eq!(get(&keeper, numbers, 1), None);
    let patient = Sent::new(keeper.run(putting(numbers, 4, 40).when_full(WhenFull::Wait)));
    let transactions = stats(&keeper).transactions;
    assert_eq!(
        (
            transactions.in_flight,
            transactions.waiting,
            transactions.limit
        ),
        (2, 1, 2)
    );
    assert_eq!(transactions.overloaded, 3);
    plug.release().unwrap();
    second.answer().unwrap();
    patient.answer().unwrap();
    assert_eq!(get(&keeper, numbers, 4), Some(40));
    assert_eq!(get(&keeper, numbers, 2), None);
    put(&keeper, numbers, 5, 50).unwrap();
    assert_idle(&keeper);
}

#[test]
fn i13_ten_thousand_callers_at_once_are_all_answered_and_never_more_than_the_queue_in_flight() {
    const CALLERS: u64 = 10_000;
    const QUEUE: usize = 64;
    let folder = folder();
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(folder.path())
            .queue(QUEUE)
            .when_full(WhenFull::Wait),
    );
    let most = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let plug = Plug::hold(&keeper);
    let callers: Vec<_> = (0..CALLERS)
        .map(|key| {
            let (most, looked) = (Arc::clone(&most), keeper.clone());
            let body = move |txn: &mut lockkeeper::WriteTxn<'_>| {
                // Looked at from the inside, where as many as ever are in flight.
                if let Some(stats) = looked.stats().now_or_never() {
                    let now = stats.transactions.in_flight.max(stats.environment.queued);
                    most.fetch_max(now, Ordering::SeqCst);
                }
                Ok(numbers.put(txn, &key, &key)?)
            };
            // Every other one goes by message.
            let (keeper, by_message) = (keeper.clone(), key % 2 == 0);
            runtime.spawn(async move {
                let txn = RunTxn::update(body).deadline(Duration::from_secs(120));
                if by_message {
                    keeper.send(txn).await
                } else {
                    keeper.run(txn).await
                }
            })
        })
        .collect();
    crate::support::until("all but those with a place wait for one", || {
        stats(&keeper).transactions.waiting as u64 == CALLERS + 1 - QUEUE as u64
    });
    plug.release().unwrap();
    for caller in callers {
        runtime.block_on(caller).unwrap().unwrap();
    }
    let most = most.load(Ordering::SeqCst);
    assert!(most <= QUEUE, "{most} in flight");
    assert!(most > 1, "nobody was looked at");
    let found = keeper.blocking_view(move |txn| Ok(numbers.len(txn)?));
    assert_eq!(found.unwrap(), CALLERS);
    let transactions = stats(&keeper).transactions;
    assert_eq!(transactions.committed, CALLERS + 1);
    assert_eq!(transactions.overloaded, 0);
    assert_idle(&keeper);
}
