//! I3, I13: what neighbours in a batch, and views beside the writer, have no say in; and places in flight.

use std::sync::mpsc;
use std::time::Duration;

use lockkeeper::heed::types::{Bytes, Str};
use lockkeeper::{Growth, Keeper, RunTxn, Stage, TxnError, WhenFull};

use crate::support::{
    Plug, SOON, Sent, assert_idle, folder, get, open_with, putting, stats, until,
};

/// More than half of a map of 1 MiB.
const LARGE: usize = 600_000;

#[test]
fn i03_what_an_undone_neighbour_wrote_does_not_decide_that_the_environment_is_full() {
    // The neighbour says no when it runs again; or its caller's time ends while it does.
    for outgrows in [false, true] {
        let folder = folder();
        let keeper = Keeper::builder()
            .path(folder.path())
            .map_size(1 << 20)
            .growth(Growth::Fixed)
            // One batch, however slow the machine is.
            .batch_time(Duration::from_secs(60))
            .open()
            .unwrap();
        let blobs = keeper.blocking_database::<Str, Bytes>("blobs").unwrap();
        let (answered, is_answered) = mpsc::channel::<()>();
        let neighbour = RunTxn::<()>::try_update(move |txn| {
            blobs.put(txn, "neighbour", &[1; LARGE])?;
            match (txn.attempt(), outgrows) {
                (1, _) => Ok(()),
                (_, false) => Err(TxnError::Abort("on second thoughts")),
                (_, true) => {
                    let _ = is_answered.recv_timeout(SOON);
                    Ok(())
                }
            }
        });
        let neighbour = match outgrows {
            true => neighbour.deadline(Duration::from_millis(400)),
            false => neighbour,
        };
        let plug = Plug::hold(&keeper);
        let neighbour = Sent::new(keeper.run(neighbour));
        let fits = Sent::new(keeper.update(move |txn| Ok(blobs.put(txn, "fits", &[1; LARGE])?)));
        plug.release().unwrap();
        let answer = neighbour.answer();
        drop(answered);
        assert!(
            match &answer {
                Err(TxnError::Abort(_)) => !outgrows,
                Err(TxnError::DeadlineExceeded { .. }) => outgrows,
                _ => false,
            },
            "{answer:?}"
        );
        fits.answer().unwrap();
        // Now it is full.
        let more = keeper.blocking_update(move |txn| Ok(blobs.put(txn, "more", &[1; LARGE])?));
        assert!(
            matches!(more, Err(TxnError::EnvironmentFull { .. })),
            "{more:?}"
        );
        let found = keeper.blocking_view(move |txn| {
            let has = |key| Ok::<_, TxnError>(blobs.get(txn, key)?.is_some());
            Ok((has("neighbour")?, has("fits")?, has("more")?))
        });
        assert_eq!(found.unwrap(), (false, true, false));
    }
}

#[test]
fn i03_a_view_that_waited_for_a_reader_does_not_blame_the_writer() {
    let folder = folder();
    let keeper = Keeper::builder()
        .path(folder.path())
        .reader_threads(1usize)
        .open()
        .unwrap();
    let plug = Plug::hold(&keeper);
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let long = Sent::new(keeper.run(RunTxn::view(move |_| {
        let _ = begun.send(());
        let _ = released.recv();
        Ok(())
    })));
    has_begun.recv_timeout(SOON).unwrap();
    let span = Duration::from_millis(100);
    for by_message in [false, true] {
        let view = RunTxn::view(|_| Ok(())).deadline(span);
        let answer = if by_message {
            keeper.blocking_send(view)
        } else {
            keeper.blocking_run(view)
        };
        assert!(
            matches!(answer, Err(TxnError::DeadlineExceeded { deadline, stage: Stage::WasQueued }) if deadline == span),
            "{answer:?}"
        );
    }
    assert_eq!(stats(&keeper).environment.writer_stalls, 0);
    drop(release);
    long.answer().unwrap();
    plug.release().unwrap();
}

#[test]
fn i13_a_transaction_that_is_not_admitted_comes_back_and_can_be_run_later() {
    let folder = folder();
    let (keeper, numbers) = open_with(Keeper::builder().path(folder.path()).queue(1usize));
    let plug = Plug::hold(&keeper);
    let span = Duration::from_secs(2);
    let refused = keeper
        .try_admit(putting(numbers, 1, 10).name("put").deadline(span))
        .unwrap_err();
    assert!(
        matches!(refused.why, TxnError::Overloaded { limit: 1 }),
        "{refused:?}"
    );
    assert_eq!(refused.txn.given_name(), Some("put"));
    assert_eq!(stats(&keeper).transactions.overloaded, 1);
    // As it was: the time that it was given has not begun.
    std::thread::sleep(span);
    plug.release().unwrap();
    keeper.blocking_run(refused.txn).unwrap();

    // One that is admitted keeps its place until it is run, sent or dropped.
    for end in 0..3 {
        let admitted = keeper.try_admit(putting(numbers, 2, 20)).unwrap();
        let in_flight = stats(&keeper).transactions.in_flight;
        assert_eq!(in_flight, 1);
        let full = keeper.try_admit(putting(numbers, 3, 30));
        assert!(matches!(
            full.unwrap_err().why,
            TxnError::Overloaded { limit: 1 }
        ));
        let full = keeper.blocking_run(putting(numbers, 3, 30).when_full(WhenFull::Refuse));
        assert!(
            matches!(full, Err(TxnError::Overloaded { limit: 1 })),
            "{full:?}"
        );
        // Asked twice it has one place all the same.
        let admitted = keeper.try_admit(admitted).unwrap();
        match end {
            0 => keeper.blocking_run(admitted).unwrap(),
            1 => keeper.blocking_send(admitted).unwrap(),
            _ => drop(admitted),
        }
        assert_eq!(stats(&keeper).transactions.in_flight, 0);
    }
    assert_idle(&keeper);

    // The time of an admitted one has begun.
    let admitted = keeper.try_admit(putting(numbers, 4, 40).deadline(Duration::from_millis(20)));
    std::thread::sleep(Duration::from_millis(30));
    let late = keeper.blocking_run(admitted.unwrap());
    assert!(
        matches!(late, Err(TxnError::DeadlineExceeded { .. })),
        "{late:?}"
    );
}

#[test]
fn what_has_its_place_may_finish_while_the_keeper_goes_down_by_either_door() {
    let folder = folder();
    let (keeper, numbers) = open_with(Keeper::builder().path(folder.path()));
    let by_method = keeper.try_admit(putting(numbers, 1, 10)).unwrap();
    let by_message = keeper.try_admit(putting(numbers, 2, 20)).unwrap();
    let stops = Sent::new(keeper.shutdown(SOON)).in_thread();
    until("nothing new", || keeper.blocking_view(|_| Ok(())).is_err());
    let late = keeper.try_admit(putting(numbers, 3, 30)).unwrap_err();
    assert!(matches!(late.why, TxnError::ShuttingDown), "{late:?}");
    keeper.blocking_run(by_method).unwrap();
    keeper.blocking_send(by_message).unwrap();
    stops.join().unwrap().unwrap();
    let (keeper, numbers) = open_with(Keeper::builder().path(folder.path()));
    assert_eq!(get(&keeper, numbers, 1), Some(10));
    assert_eq!(get(&keeper, numbers, 2), Some(20));
}
