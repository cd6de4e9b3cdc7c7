//! What would deadlock inside one process is an error that says who waits for whom (I14).

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::heed::types::Bytes;
use lockkeeper::{BodyKind, DatabaseError, RunTxn, TxnError};

use super::{
    Begun, LONG, MIB, builder, folder, gate_is_open, has, hold_named_view, open, stats, store,
};

#[test]
fn i14_a_view_that_waits_for_an_update_which_needs_a_larger_map_gets_an_error_that_names_both() {
    let folder = folder();
    let patience = Duration::from_millis(100);
    let (keeper, blobs) = open(builder(folder.path()).resize_timeout(patience));
    // Another thread makes the update, so that nobody can tell that the view waits for it.
    let (ask, asked) = mpsc::channel::<mpsc::Sender<Result<(), TxnError>>>();
    let importer = keeper.clone();
    let import = thread::spawn(move || {
        let reply = asked.recv().unwrap();
        let update = RunTxn::update(store(blobs, 1, 3 * MIB)).name("import");
        reply.send(importer.blocking_run(update)).unwrap();
    });

    let begun = Instant::now();
    let line = line!() + 2;
    let error = keeper
        .blocking_view(move |_| {
            let (reply, answer) = mpsc::channel();
            ask.send(reply).unwrap();
            Ok(answer.recv_timeout(LONG).unwrap())
        })
        .unwrap()
        .unwrap_err();
    assert!(begun.elapsed() < LONG / 2);
    import.join().unwrap();

    let text = error.to_string();
    let TxnError::MapBusy(busy) = error else {
        panic!("{text}");
    };
    let update = busy.update.unwrap();
    assert!(update.contains("\"import\"") && update.contains("blocked.rs"));
    let [view] = &busy.views[..] else {
        panic!("{text}");
    };
    assert!(view.site.file().ends_with("blocked.rs") && view.site.line().abs_diff(line) <= 1);
    assert!(text.contains("\"import\"") && text.contains("blocked.rs"));

    // The view has ended: now it works.
    keeper.blocking_update(store(blobs, 1, 3 * MIB)).unwrap();
    assert_eq!(stats(&keeper).map_size, 4 * MIB);
}

#[test]
fn i14_until_that_view_ends_the_gate_is_not_shut_for_the_same_reason_again() {
    let folder = folder();
    let patience = Duration::from_millis(300);
    let (keeper, blobs) = open(builder(folder.path()).resize_timeout(patience));
    let report = hold_named_view(&keeper, "report");
    let needy = |key| RunTxn::update(store(blobs, key, 3 * MIB)).name("needy");
    assert!(matches!(
        keeper.blocking_run(needy(1)),
        Err(TxnError::MapBusy(_))
    ));

    for key in 2..12 {
        let mut answer = Begun::try_new(keeper.run(needy(key))).map_err(Result::err);
        // Never shut: views get in at every moment until the answer is there.
        let error = loop {
            assert!(gate_is_open(&keeper));
            match &mut answer {
                Err(error) => break error.take().unwrap(),
                Ok(update) => {
                    if let Some(now) = update.poll() {
                        answer = Err(now.err());
                    }
                }
            }
        };
        let TxnError::MapBusy(busy) = error else {
            panic!("{error}");
        };
        assert_eq!(busy.waited, Duration::ZERO, "refused without a wait");
    }
    let Err(TxnError::MapBusy(busy)) = keeper.blocking_run(needy(20)) else {
        panic!("the view is still there");
    };
    assert_eq!(busy.waited, Duration::ZERO);
    assert_eq!(busy.views[0].name.as_deref(), Some("report"));
    assert!(busy.views[0].age >= patience);
    // What needs no larger map goes on.
    keeper.blocking_update(store(blobs, 30, 100)).unwrap();

    // A view that comes later is not the one that was in the way.
    let later = hold_named_view(&keeper, "later");
    report.release().unwrap();
    later.release().unwrap();
    keeper.blocking_run(needy(40)).unwrap();
    assert!(has(&keeper, blobs, 40, 3 * MIB));
}

#[test]
fn i14_transactions_inside_a_body_are_refused() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let inner = keeper.clone();
    let attempts = move || {
        let opened = inner.blocking_database::<Bytes, Bytes>("other");
        let Err(DatabaseError::Txn(opened)) = opened else {
            panic!("{opened:?}");
        };
        let update = store(blobs, 1, 10);
        [
            inner.blocking_view(|_| Ok(())).unwrap_err(),
            inner.blocking_run(RunTxn::view(|_| Ok(()))).unwrap_err(),
            inner.blocking_update(update).unwrap_err(),
            inner
                .blocking_send(RunTxn::update(store(blobs, 1, 10)))
                .unwrap_err(),
            opened,
        ]
    };
    let again = attempts.clone();
    let in_view = keeper.blocking_view(move |_| Ok(attempts())).unwrap();
    let in_update = keeper.blocking_update(move |_| Ok(again())).unwrap();
    for (kind, errors) in [(BodyKind::View, in_view), (BodyKind::Update, in_update)] {
        for error in errors {
            let text = error.to_string();
            let TxnError::NestedTransaction { outer, outer_site } = error else {
                panic!("{text}");
            };
            assert_eq!(outer, kind);
            assert!(outer_site.file().ends_with("blocked.rs"));
            assert!(text.contains("end it first"), "the remedy: {text}");
        }
    }
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
    let other = keeper.blocking_database::<Bytes, Bytes>("other").unwrap();
    assert_eq!(
        keeper
            .blocking_view(move |txn| Ok(other.len(txn)?))
            .unwrap(),
        0
    );
}
