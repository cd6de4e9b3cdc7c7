//! Histories written by hand: each anomaly is found under its name, and what only looks like one is not.

mod rules;

use crate::brute;
use crate::checker::{Anomaly, Kind, check};
use crate::history::{History, Key, Op, Outcome, Txn, Value};

const X: Key = Key::List(0);
const Y: Key = Key::List(1);
const R: Key = Key::Register(0);
const S: Key = Key::Register(1);

fn append(key: Key, element: u64) -> Op {
    Op::Append { key, element }
}

fn list(key: Key, elements: &[u64]) -> Op {
    Op::Read {
        key,
        value: Value::List(elements.to_vec()),
    }
}

fn read(key: Key, value: impl Into<Option<u64>>) -> Op {
    Op::Read {
        key,
        value: Value::Register(value.into()),
    }
}

fn write(key: Key, value: impl Into<Option<u64>>) -> Op {
    Op::Write {
        key,
        value: value.into(),
    }
}

fn scan(from: Key, to: u32, seen: &[(Key, &[u64])]) -> Op {
    let seen = seen.iter();
    Op::Scan {
        from,
        to,
        seen: seen
            .map(|(key, list)| (*key, Value::List(list.to_vec())))
            .collect(),
    }
}

/// A transaction that ran from `begin` to `end`.
fn txn(begin: u64, end: u64, outcome: Outcome, ops: impl IntoIterator<Item = Op>) -> Txn {
    Txn {
        session: 0,
        begin,
        end,
        outcome,
        ops: ops.into_iter().collect(),
    }
}

/// One that ran at the same time as all the others, and was committed.
fn beside(ops: impl IntoIterator<Item = Op>) -> Txn {
    txn(0, 100, Outcome::Committed, ops)
}

/// One that began when all those had ended, and was committed.
fn last(ops: impl IntoIterator<Item = Op>) -> Txn {
    txn(101, 102, Outcome::Committed, ops)
}

fn history(txns: impl IntoIterator<Item = Txn>) -> History {
    History {
        txns: txns.into_iter().collect(),
    }
}

#[track_caller]
fn bad(kind: Kind, txns: impl IntoIterator<Item = Txn>) -> Anomaly {
    let history = history(txns);
    let anomaly = *check(&history).expect_err("it cannot be explained");
    assert_eq!(anomaly.kind, kind, "{anomaly}");
    assert!(!brute::serializable(&history), "{anomaly}");
    anomaly
}

#[track_caller]
fn good(txns: impl IntoIterator<Item = Txn>) {
    let history = history(txns);
    if let Err(anomaly) = check(&history) {
        panic!("{anomaly}");
    }
    assert!(brute::serializable(&history));
}

#[test]
fn dirty_writes() {
    let anomaly = bad(
        Kind::G0,
        [
            beside([append(X, 1), append(Y, 1)]),
            beside([append(X, 2), append(Y, 2)]),
            last([list(X, &[1, 2]), list(Y, &[2, 1])]),
        ],
    );
    assert!(!anomaly.real_time);
    let mut txns = anomaly.txns.clone();
    txns.sort_unstable();
    assert_eq!(txns, [0, 1], "{anomaly}");
}

#[test]
fn one_transaction_between_two_appends_of_another() {
    bad(
        Kind::G0,
        [
            beside([append(X, 1), append(X, 3)]),
            beside([append(X, 2)]),
            last([list(X, &[1, 2, 3])]),
        ],
    );
}

#[test]
fn dirty_reads() {
    bad(
        Kind::AbortedRead,
        [
            txn(0, 100, Outcome::Aborted, [append(X, 1)]),
            beside([list(X, &[1])]),
        ],
    );
    bad(
        Kind::AbortedRead,
        [
            txn(0, 100, Outcome::Aborted, [read(R, None), write(R, 1)]),
            beside([read(R, 1)]),
        ],
    );
}

#[test]
fn intermediate_reads() {
    bad(
        Kind::IntermediateRead,
        [
            beside([append(X, 1), append(X, 2)]),
            beside([list(X, &[1])]),
        ],
    );
    bad(
        Kind::IntermediateRead,
        [
            beside([read(R, None), write(R, 1), write(R, 2)]),
            beside([read(R, 1)]),
        ],
    );
}

#[test]
fn circular_reads() {
    bad(
        Kind::G1c,
        [
            beside([append(X, 1), list(Y, &[1])]),
            beside([append(Y, 1), list(X, &[1])]),
        ],
    );
}

#[test]
fn lost_updates() {
    let anomaly = bad(
        Kind::G2,
        [
            beside([read(R, None), write(R, 1)]),
            beside([read(R, None), write(R, 2)]),
        ],
    );
    assert_eq!(anomaly.txns.len(), 2, "{anomaly}");
    bad(
        Kind::GSingle,
        [
            beside([list(X, &[]), append(X, 1)]),
            beside([append(X, 2)]),
            last([list(X, &[2, 1])]),
        ],
    );
    bad(
        Kind::LostAppend,
        [
            beside([append(X, 1)]),
            beside([append(X, 2)]),
            last([list(X, &[2])]),
        ],
    );
    bad(
        Kind::G2,
        [
            beside([list(X, &[]), append(X, 1)]),
            beside([list(X, &[]), append(X, 2)]),
        ],
    );
    bad(
        Kind::IncompatibleOrder,
        [
            beside([append(X, 1)]),
            beside([append(X, 2)]),
            beside([list(X, &[1])]),
            beside([list(X, &[2])]),
        ],
    );
}

#[test]
fn an_element_that_is_there_twice() {
    bad(
        Kind::Duplicate,
        [beside([append(X, 1)]), last([list(X, &[1, 1])])],
    );
}

#[test]
fn appends_of_one_transaction_turned_round() {
    bad(
        Kind::IncompatibleOrder,
        [
            beside([append(X, 1), append(X, 2)]),
            beside([append(X, 3)]),
            last([list(X, &[2, 1, 3])]),
        ],
    );
}

#[test]
fn read_skew() {
    let anomaly = bad(
        Kind::GSingle,
        [
            beside([append(X, 1), append(Y, 1)]),
            beside([list(X, &[]), list(Y, &[1])]),
        ],
    );
    let text = anomaly.to_string();
    assert!(
        text.contains("T1 read l0 as it was before T0 wrote it"),
        "{text}"
    );
    assert!(text.contains("T0 wrote what T1 read in l1"), "{text}");
    bad(
        Kind::GSingle,
        [
            beside([read(R, None), read(S, None), write(R, 1), write(S, 1)]),
            beside([read(R, 1), read(S, None)]),
        ],
    );
}

#[test]
fn fuzzy_reads() {
    bad(
        Kind::Internal,
        [
            beside([append(X, 1)]),
            beside([list(X, &[]), list(X, &[1])]),
        ],
    );
    bad(
        Kind::Internal,
        [
            beside([read(R, None), write(R, 1)]),
            beside([read(R, None), read(R, 1)]),
        ],
    );
}

#[test]
fn own_writes_that_are_not_seen() {
    bad(Kind::Internal, [beside([append(X, 1), list(X, &[])])]);
    bad(
        Kind::Internal,
        [beside([read(R, None), write(R, 1), read(R, None)])],
    );
    bad(Kind::Internal, [beside([list(X, &[1]), append(X, 1)])]);
}

#[test]
fn write_skew() {
    let anomaly = bad(
        Kind::G2,
        [
            beside([list(X, &[]), append(Y, 1)]),
            beside([list(Y, &[]), append(X, 1)]),
            last([list(X, &[1]), list(Y, &[1])]),
        ],
    );
    assert_eq!(anomaly.txns.len(), 2, "{anomaly}");
}

#[test]
fn phantoms() {
    let anomaly = bad(
        Kind::G2,
        [
            beside([scan(X, 8, &[]), append(Key::List(3), 1)]),
            beside([scan(X, 8, &[]), append(Key::List(5), 2)]),
        ],
    );
    assert!(anomaly.to_string().contains("scanned"), "{anomaly}");
    bad(
        Kind::GSingle,
        [
            beside([append(Key::List(3), 1), append(Key::List(9), 1)]),
            beside([scan(X, 8, &[]), list(Key::List(9), &[1])]),
        ],
    );
    bad(
        Kind::Internal,
        [
            beside([append(Key::List(3), 1)]),
            beside([scan(X, 8, &[]), scan(X, 8, &[(Key::List(3), &[1])])]),
        ],
    );
}

#[test]
fn scans_that_answer_what_was_not_asked() {
    let appends = || beside([append(X, 1), append(Y, 1)]);
    let x: (Key, &[u64]) = (X, &[1]);
    let y: (Key, &[u64]) = (Y, &[1]);
    good([appends(), last([scan(X, 2, &[x, y])])]);
    good([appends(), last([scan(X, 2, &[y, x])])]);
    let answers: [&[(Key, &[u64])]; 3] = [&[x, x, y], &[x, y, (Key::List(2), &[])], &[x, (Y, &[])]];
    for answer in answers {
        let history = history([appends(), last([scan(X, 2, answer)])]);
        let anomaly = check(&history).expect_err("it was not asked");
        assert_eq!(anomaly.kind, Kind::BadScan, "{anomaly}");
    }
}

#[test]
fn a_read_of_what_was_replaced_before_it_began() {
    let anomaly = bad(
        Kind::GSingle,
        [
            txn(1, 2, Outcome::Committed, [read(R, None), write(R, 1)]),
            txn(3, 4, Outcome::Committed, [read(R, None)]),
        ],
    );
    assert!(anomaly.real_time, "{anomaly}");
    assert!(
        anomaly.to_string().contains("T0 had ended before T1 began"),
        "{anomaly}"
    );
    good([
        txn(1, 3, Outcome::Committed, [read(R, None), write(R, 1)]),
        txn(2, 4, Outcome::Committed, [read(R, None)]),
    ]);
}

#[test]
fn writes_out_of_their_order_in_time() {
    let anomaly = bad(
        Kind::G0,
        [
            txn(1, 2, Outcome::Committed, [append(X, 1)]),
            txn(3, 4, Outcome::Committed, [append(X, 2)]),
            last([list(X, &[2, 1])]),
        ],
    );
    assert!(anomaly.real_time, "{anomaly}");
}

#[test]
fn what_nobody_wrote() {
    bad(Kind::Invented, [beside([list(X, &[7])])]);
    bad(Kind::Invented, [beside([read(R, 7)])]);
}
