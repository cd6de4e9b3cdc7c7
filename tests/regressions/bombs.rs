//! I3: what of the application's panics while it is dropped ends neither the writer nor a reader, and answers nobody wrongly.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use lockkeeper::{Keeper, RunTxn, TxnError};

use crate::support::{
    Numbers, Plug, SOON, Sent, assert_idle, folder, get, open, put, putting, stats,
};

/// A value whose drop panics, except while its thread panics already, which would end the process.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("the bomb goes off");
        }
    }
}

/// Defuses what an answer has brought.
fn defuse<E>(answer: Result<Bomb, TxnError<E>>) -> Result<(), TxnError<E>> {
    answer.map(std::mem::forget)
}

/// Queues a transaction between two others, has them run in one batch, and looks whether all is well afterwards.
fn among_neighbours<T>(
    keeper: &Keeper,
    numbers: Numbers,
    send: impl FnOnce() -> T,
    then: impl FnOnce(T),
) {
    let plug = Plug::hold(keeper);
    let before = Sent::new(keeper.run(putting(numbers, 1, 10)));
    let sent = send();
    let after = Sent::new(keeper.run(putting(numbers, 3, 30)));
    plug.release().unwrap();
    then(sent);
    before.answer().unwrap();
    after.answer().unwrap();
    assert_eq!(get(keeper, numbers, 1), Some(10));
    assert_eq!(get(keeper, numbers, 3), Some(30));
    put(keeper, numbers, 4, 40).unwrap();
    assert_eq!(stats(keeper).environment.poisonings, 0);
    assert_idle(keeper);
}

#[test]
fn i03_a_value_whose_drop_panics_does_not_end_the_writer_when_its_caller_has_gone() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let body = move |txn: &mut lockkeeper::WriteTxn<'_>| {
        numbers.put(txn, &2, &20)?;
        let _ = begun.send(());
        let _ = released.recv();
        Ok(Bomb)
    };
    let send = || Sent::new(keeper.update(body));
    among_neighbours(&keeper, numbers, send, |sent| {
        has_begun.recv_timeout(SOON).unwrap();
        drop(sent);
        drop(release);
    });
    // It had begun: it may commit, and here nothing kept it from that.
    assert_eq!(get(&keeper, numbers, 2), Some(20));
}

#[test]
fn i03_a_value_of_an_undone_run_whose_drop_panics_fails_its_own_body_alone() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let fails = || {
        let bomb = Sent::new(keeper.update(move |txn| {
            numbers.put(txn, &2, &20)?;
            Ok(Bomb)
        }));
        // It has written, so that everything before it is undone and runs again.
        let fails = Sent::new(keeper.try_update(move |txn| {
            numbers.put(txn, &5, &50)?;
            Err::<(), _>(TxnError::Abort("no"))
        }));
        (bomb, fails)
    };
    among_neighbours(&keeper, numbers, fails, |(bomb, fails)| {
        let answer = defuse(bomb.answer());
        let there = get(&keeper, numbers, 2).is_some();
        assert!(
            matches!(answer, Ok(()) | Err(TxnError::BodyPanicked { .. })),
            "{answer:?}"
        );
        assert_eq!(answer.is_ok(), there, "answered what was done: {answer:?}");
        let answer = fails.answer();
        assert!(matches!(answer, Err(TxnError::Abort("no"))), "{answer:?}");
    });
    assert_eq!(get(&keeper, numbers, 5), None);
}

#[test]
fn i03_a_panic_a_domain_error_and_a_body_whose_drops_panic_harm_nobody_else() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    // What it panics with.
    let panics = || {
        Sent::new(keeper.update(move |txn| {
            numbers.put(txn, &2, &20)?;
            if txn.deadline().is_some() {
                std::panic::panic_any(Bomb);
            }
            Ok(())
        }))
    };
    among_neighbours(&keeper, numbers, panics, |sent| {
        let answer = sent.answer();
        assert!(
            matches!(answer, Err(TxnError::BodyPanicked { .. })),
            "{answer:?}"
        );
    });
    // Its error, which nobody waits for any more.
    let (begun, has_begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let no = move |txn: &mut lockkeeper::WriteTxn<'_>| {
        numbers.put(txn, &2, &20)?;
        let _ = begun.send(());
        let _ = released.recv();
        Err::<(), _>(TxnError::Abort(Bomb))
    };
    let send = || Sent::new(keeper.try_update(no));
    among_neighbours(&keeper, numbers, send, |sent| {
        has_begun.recv_timeout(SOON).unwrap();
        drop(sent);
        drop(release);
    });
    // What it has moved into itself, by message: there it is dropped on the writer thread.
    let captured = Bomb;
    let send = || {
        Sent::new(keeper.update(move |txn| {
            let _captured = &captured;
            Ok(numbers.put(txn, &6, &60)?)
        }))
    };
    among_neighbours(&keeper, numbers, send, |sent| {
        // Answered before it is dropped, it has its body back, and the bomb goes off here.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(sent)));
    });
    assert_eq!(get(&keeper, numbers, 2), None);
}

#[test]
fn i03_a_reader_thread_outlives_such_a_value_too() {
    let folder = folder();
    let keeper = Keeper::builder()
        .path(folder.path())
        .reader_threads(1usize)
        .open()
        .unwrap();
    for _ in 0..3 {
        let (begun, has_begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let sent = Sent::new(keeper.run(RunTxn::view(move |_| {
            let _ = begun.send(());
            let _ = released.recv();
            Ok(Bomb)
        })));
        has_begun.recv_timeout(SOON).unwrap();
        drop(sent);
        drop(release);
        // The only reader answers.
        assert_eq!(keeper.blocking_run(RunTxn::view(|_| Ok(7))).unwrap(), 7);
    }
    assert_idle(&keeper);
}
