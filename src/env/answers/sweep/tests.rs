use crate::clock::block_on;
use crate::config::Settings;
use crate::env::outside::tests::{LONG, World, answer};
use crate::txn::answers::{Fingerprint, Seen};

use super::*;

const INTERACTIVE: Kind = Kind::Interactive {
    first: false,
    announced: true,
};

fn request() -> Fingerprint {
    Fingerprint::new(None, None)
}

fn keep(world: &World, store: &AnswerStore, kind: Kind) {
    let store = store.clone();
    answer(world.send(kind, move |txn| {
        Ok(store.keep(txn, b"key", request(), b"answer")?)
    }));
}

/// Has the sweep look until it has removed the answer, of which a body of that kind asks.
fn until_swept(world: &World, store: &AnswerStore, kind: Kind) {
    let limit = Instant::now() + LONG;
    loop {
        world.core.look_for_expired(store.clone());
        let store = store.clone();
        let gone = world.send(kind, move |txn| {
            let gone = |seen: Seen<&[u8]>| matches!(seen, Seen::Fresh);
            Ok(store.look(txn, b"key", request(), gone)?)
        });
        if answer(gone) {
            return;
        }
        assert!(Instant::now() < limit, "not swept");
    }
}

fn short() -> Settings {
    Settings::default().idempotency_window(Duration::from_millis(10))
}

#[test]
fn what_the_sweep_removes_is_no_outside_write() {
    let world = World::with(&short());
    let store = block_on(world.core.answers()).unwrap();
    answer(world.writing(INTERACTIVE));
    let mark = world.core.shared.outside();
    keep(&world, &store, INTERACTIVE);
    until_swept(&world, &store, INTERACTIVE);
    // Whoever reads now and has its mark from before need not compare: neither on the writer, nor here.
    assert_eq!(answer(world.writing(INTERACTIVE)), Some(mark));
    let env = world.core.shared.env.load_full().unwrap();
    let last = env.info().last_txn_id as u64;
    assert!(world.core.shared.is_undisturbed(mark, last));
}

#[test]
fn a_plain_update_that_stores_its_answer_is_an_outside_write() {
    let world = World::new();
    let store = block_on(world.core.answers()).unwrap();
    answer(world.writing(INTERACTIVE));
    let mark = world.core.shared.outside();
    keep(&world, &store, Kind::Plain);
    assert!(world.core.shared.outside() > mark);
}

#[test]
fn the_sweep_alone_makes_no_record_of_the_keeper() {
    let world = World::with(&short());
    let store = block_on(world.core.answers()).unwrap();
    keep(&world, &store, Kind::Plain);
    until_swept(&world, &store, Kind::Plain);
    assert!(world.core.shared.reserved(Reserved::Meta).is_none());
}

#[test]
fn a_look_for_answers_makes_no_database() {
    let world = World::new();
    let last = || {
        let env = world.core.shared.env.load_full().unwrap();
        env.info().last_txn_id
    };
    let before = last();
    let looked = block_on(ask(&world.core).unwrap()).unwrap();
    assert!(matches!(
        looked,
        Err(DatabaseError::NoSuchDatabase { name }) if &*name == "__lockkeeper.answers"
    ));
    assert!(world.core.shared.reserved(Reserved::Answers).is_none());
    assert_eq!(last(), before);
}
