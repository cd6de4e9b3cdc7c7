//! What is not known, what is deleted, what the checker refuses to judge, and histories that are good.

use super::*;

#[test]
fn an_unknown_outcome_counts_if_it_was_seen() {
    let unknown = |ops: [Op; 2]| txn(0, 0, Outcome::Unknown, ops);
    good([
        unknown([append(X, 1), append(Y, 1)]),
        last([list(X, &[1]), list(Y, &[1])]),
    ]);
    good([
        unknown([append(X, 1), append(Y, 1)]),
        last([list(X, &[]), list(Y, &[])]),
    ]);
    bad(
        Kind::GSingle,
        [
            unknown([append(X, 1), append(Y, 1)]),
            last([list(X, &[1]), list(Y, &[])]),
        ],
    );
    // What it read counts too, once it counts itself.
    bad(
        Kind::AbortedRead,
        [
            txn(0, 9, Outcome::Aborted, [append(Y, 1)]),
            unknown([list(Y, &[1]), append(X, 1)]),
            last([list(X, &[1])]),
        ],
    );
    // It may take effect after its caller was gone.
    good([
        txn(1, 2, Outcome::Unknown, [append(X, 1)]),
        txn(3, 4, Outcome::Committed, [list(X, &[])]),
        last([list(X, &[1])]),
    ]);
}

/// One transaction that makes two registers, ended before the others begin.
fn made() -> Txn {
    let ops = [read(R, None), write(R, 1), read(S, None), write(S, 2)];
    txn(0, 1, Outcome::Committed, ops)
}

/// One that began after that, and ran beside all the others.
fn then(ops: impl IntoIterator<Item = Op>) -> Txn {
    txn(2, 100, Outcome::Committed, ops)
}

#[test]
fn what_is_deleted_is_gone() {
    good([
        made(),
        then([read(R, 1), write(R, None)]),
        then([read(R, None), read(S, 2)]),
        then([read(R, 1), write(S, None)].into_iter().take(1)),
    ]);
    bad(
        Kind::G2,
        [
            made(),
            then([read(R, 1), write(R, None)]),
            then([read(R, 1), write(R, None)]),
        ],
    );
    bad(
        Kind::AbortedRead,
        [
            made(),
            txn(2, 100, Outcome::Aborted, [read(R, 1), write(R, None)]),
            then([read(R, None)]),
        ],
    );
    bad(
        Kind::GSingle,
        [
            made(),
            then([read(R, 1), write(R, None), read(S, 2), write(S, None)]),
            then([read(R, 1), read(S, None)]),
        ],
    );
    let stale = bad(
        Kind::GSingle,
        [
            made(),
            then([read(R, 1), write(R, None)]),
            last([read(R, 1)]),
        ],
    );
    assert!(stale.real_time, "{stale}");
}

#[test]
fn a_history_against_the_rules_is_refused() {
    let refused = [
        history([beside([write(R, 1)])]),
        history([beside([append(X, 1)]), beside([append(X, 1)])]),
        history([beside([read(R, 1), write(R, None)]), beside([])]),
    ];
    for history in refused {
        let anomaly = check(&history).expect_err("it says too little");
        assert_eq!(anomaly.kind, Kind::Malformed, "{anomaly}");
    }
}

#[test]
fn good_histories() {
    good([]);
    good([beside([])]);
    // The order of commits need not be that in which they began.
    good([
        txn(1, 9, Outcome::Committed, [list(X, &[2]), append(X, 1)]),
        txn(2, 8, Outcome::Committed, [list(X, &[]), append(X, 2)]),
        last([list(X, &[2, 1])]),
    ]);
    good([
        beside([list(X, &[]), append(Y, 1), list(Y, &[1])]),
        beside([list(Y, &[1]), append(X, 1), append(X, 2), list(X, &[1, 2])]),
        last([scan(X, 2, &[(X, &[1, 2]), (Y, &[1])])]),
    ]);
    // Neither saw the other's element, and nobody says which came first.
    good([beside([append(X, 1)]), beside([append(X, 2)])]);
}
