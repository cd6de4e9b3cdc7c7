//! The model alone, against outcomes worked out by hand: times and limits.

use lockkeeper::Mode;

use super::calls::{Patience, Spec};
use super::known::{A, B, C, CONFIG, SPEC, asks, effects, family, patiently, roots};
use super::words::{Answer, Config, Event, Kind, Timeouts, Which};

use Answer::{Done, Granted, NotAvailable, Yes};
use Mode::{Read, Write};

#[test]
fn the_nearest_timeout_of_the_lineage_counts_and_the_transactions_caps_it() {
    let timeouts = Timeouts {
        lock: 40,
        ..CONFIG.timeouts
    };
    let mut model = roots(1, Config { timeouts, ..CONFIG });
    asks(&mut model, 0, A, Write);
    let txn_timeout = Some(30);
    family(
        &mut model,
        1,
        None,
        Spec {
            txn_timeout,
            ..SPEC
        },
    );
    family(
        &mut model,
        2,
        Some(1),
        Spec {
            lock_timeout: Some(10),
            ..SPEC
        },
    );
    family(&mut model, 3, Some(2), SPEC);
    family(
        &mut model,
        4,
        Some(2),
        Spec {
            lock_timeout: Some(0),
            ..SPEC
        },
    );
    family(&mut model, 5, None, SPEC);
    let mut deadline = |locker, patience| {
        patiently(&mut model, locker, A, Read, patience);
        model.waiting.last().map(|wait| (wait.deadline, wait.whose))
    };
    assert_eq!(deadline(3, Patience::Default), Some((Some(10), None)));
    assert_eq!(deadline(4, Patience::Default), Some((Some(30), Some(1))));
    assert_eq!(deadline(3, Patience::For(50)), Some((Some(30), Some(1))));
    assert_eq!(deadline(3, Patience::Until(7)), Some((Some(7), None)));
    assert_eq!(deadline(5, Patience::Default), Some((Some(40), None)));
    assert_eq!(deadline(5, Patience::Forever), Some((None, None)));
    assert_eq!(
        patiently(&mut model, 5, A, Read, Patience::No),
        NotAvailable
    );

    // A lock timeout kills the one who waits and its children; the transaction's, all of the family here.
    model.now = 10;
    model.expire(9);
    assert_eq!(model.death(3), Some(Kind::LockTimeout));
    assert_eq!(
        (model.death(1), model.death(2), model.death(4)),
        (None, None, None)
    );
    model.now = 30;
    model.expire(9);
    for locker in [1, 2, 4] {
        assert_eq!(model.death(locker), Some(Kind::TransactionTimeout));
    }
    assert_eq!(model.death(3), Some(Kind::LockTimeout), "dead before");
    assert_eq!(model.death(5), None);
}

#[test]
fn who_holds_too_long_is_told_once_or_dies() {
    let mut timeouts = Timeouts {
        max_hold: 10,
        ..CONFIG.timeouts
    };
    let mut model = roots(1, Config { timeouts, ..CONFIG });
    asks(&mut model, 0, A, Read);
    assert_eq!(model.next_deadline(), Some(10));
    model.now = 10;
    assert_eq!(model.expire(9), Yes(false));
    assert_eq!(effects(&mut model), [Event::HeldTooLong(1, A, Read)]);
    assert_eq!(model.next_deadline(), None);
    assert_eq!(asks(&mut model, 0, B, Read), Answer::HeldTooLong);
    assert_eq!(asks(&mut model, 0, B, Read), Granted);

    timeouts.abort_on_max_hold = true;
    let mut model = roots(1, Config { timeouts, ..CONFIG });
    asks(&mut model, 0, A, Read);
    model.now = 11;
    model.expire(9);
    assert_eq!(
        asks(&mut model, 0, B, Read),
        Answer::Dead(Kind::HeldTooLong)
    );
}

#[test]
fn limits_are_exact_and_warned_of_once() {
    let mut model = roots(
        2,
        Config {
            limits: [2, 10, 3],
            warning: 50,
            ..CONFIG
        },
    );
    assert_eq!(
        model.begin(5, None, SPEC, || (9, 9)),
        Answer::Limit(Which::Lockers, 2)
    );
    for object in [A, B, C] {
        assert_eq!(asks(&mut model, 0, object, Write), Granted);
    }
    assert_eq!(
        asks(&mut model, 0, 3, Write),
        Answer::Limit(Which::Objects, 3)
    );
    asks(&mut model, 1, A, Write);
    // Half of 2, of 3 and of 10.
    let warnings: Vec<_> = model.warnings.drain(..).collect();
    assert_eq!(warnings, [(Which::Lockers, 1, 2), (Which::Objects, 2, 3)]);
    asks(&mut model, 1, B, Write);
    model.unlock(0, C, Write);
    asks(&mut model, 0, C, Write);
    let warnings: Vec<_> = model.warnings.drain(..).collect();
    let locks = (Which::Locks, 5, 10);
    assert_eq!(
        warnings,
        [locks, locks],
        "4 is under nine tenths of the mark"
    );
    assert_eq!(model.set_limits([2, 4, 3]), Answer::LimitInUse);
    assert_eq!(model.set_limits([2, 5, 3]), Done);
    assert_eq!(
        asks(&mut model, 1, C, Write),
        Answer::Limit(Which::Locks, 5)
    );
}
