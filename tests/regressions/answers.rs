//! I4: who is answered finds its locks free, and its place too.

use lockkeeper::{Durability, Keeper, LockerSpec, Mode, Object, RunTxn, TxnError, Wait, WhenFull};

use crate::support::folder;

const ROUNDS: u32 = 3_000;

/// One round after the other through one door: each declares a write lock, has the only place in flight, and refuses to wait for
/// either.
fn rounds(by_message: bool, txn: impl Fn() -> RunTxn<()>) {
    let folder = folder();
    let keeper = Keeper::builder()
        .path(folder.path())
        .queue(1usize)
        .when_full(WhenFull::Refuse)
        .durability(Durability::NoSync)
        .open()
        .unwrap();
    let object = Object::new("n", b"n");
    let run = |txn: RunTxn<()>| {
        if by_message {
            keeper.blocking_send(txn)
        } else {
            keeper.blocking_run(txn)
        }
    };
    for round in 0..ROUNDS {
        // Every other one without a lock: that goes another way, for a message.
        let answer = match round % 2 {
            0 => run(txn().write_lock(object.clone())),
            _ => run(txn()),
        };
        answer.unwrap_or_else(|error: TxnError| panic!("round {round}: no place: {error}"));
        let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
        let free = locker.blocking_lock(&object, Mode::Write, Wait::No);
        free.unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
}

#[test]
fn i04_who_is_answered_by_method_finds_its_locks_and_its_place_free() {
    rounds(false, || RunTxn::update(|_| Ok(())));
}

#[test]
fn i04_who_is_answered_by_message_finds_its_locks_and_its_place_free() {
    rounds(true, || RunTxn::update(|_| Ok(())));
}

#[test]
fn i04_so_does_who_is_answered_by_a_reader_thread() {
    rounds(false, || RunTxn::view(|_| Ok(())));
}

#[test]
fn i04_so_does_who_is_answered_by_a_reader_thread_by_message() {
    rounds(true, || RunTxn::view(|_| Ok(())));
}
