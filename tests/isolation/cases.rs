//! How each anomaly shows, if it can: the transactions, an order of their steps that would bring it about, and how to tell.

use super::matrix::Anomaly;
use super::script::Step::{Count, Delete, Get, GetForUpdate, Put, Scan, Undo};
use super::script::{ABSENT, Case};

pub const CASES: &[Case] = &[
    Case {
        anomaly: Anomaly::DirtyRead,
        name: "what is undone later",
        before: &[("x", 0)],
        scripts: &[&[Put("x", |_| Some(1)), Undo], &[Get("x")]],
        schedule: "00 111 0",
        happened: |outcome| outcome.glimpses[1].iter().any(|seen| seen.last("x") == 1),
    },
    Case {
        anomaly: Anomaly::DirtyRead,
        name: "what is written over before the commit",
        before: &[("x", 0)],
        scripts: &[&[Put("x", |_| Some(1)), Put("x", |_| Some(2))], &[Get("x")]],
        schedule: "00 111 00",
        happened: |outcome| outcome.glimpses[1].iter().any(|seen| seen.last("x") == 1),
    },
    Case {
        anomaly: Anomaly::FuzzyRead,
        name: "a value",
        before: &[("x", 0)],
        scripts: &[&[Get("x"), Get("x")], &[Put("x", |_| Some(1))]],
        schedule: "00 111 00",
        happened: |outcome| {
            let reads = outcome.seen(0).all("x");
            reads[0] != reads[1]
        },
    },
    Case {
        anomaly: Anomaly::FuzzyRead,
        name: "a record that goes away, in a transaction that writes",
        before: &[("x", 0)],
        scripts: &[&[Get("x"), Get("x"), Put("z", |_| Some(1))], &[Delete("x")]],
        schedule: "00 111 000",
        happened: |outcome| {
            let reads = outcome.seen(0).all("x");
            reads[0] != reads[1]
        },
    },
    Case {
        anomaly: Anomaly::FuzzyRead,
        name: "a value that a scan has met",
        before: &[("k1", 0), ("k2", 0)],
        scripts: &[&[Scan, Get("k1")], &[Put("k1", |_| Some(1))]],
        schedule: "00 111 00",
        happened: |outcome| {
            let reads = outcome.seen(0).all("k1");
            reads[0] != reads[1]
        },
    },
    Case {
        anomaly: Anomaly::LostUpdate,
        name: "two add 1",
        before: &[("x", 0)],
        scripts: &[
            &[Get("x"), Put("x", |seen| Some(seen.last("x") + 1))],
            &[Get("x"), Put("x", |seen| Some(seen.last("x") + 1))],
        ],
        schedule: "00 1111 00",
        happened: |outcome| outcome.after("x") != 2,
    },
    Case {
        anomaly: Anomaly::LostUpdate,
        name: "two add 1, the other way round",
        before: &[("x", 0)],
        scripts: &[
            &[Get("x"), Put("x", |seen| Some(seen.last("x") + 1))],
            &[Get("x"), Put("x", |seen| Some(seen.last("x") + 1))],
        ],
        schedule: "00 111 00 1",
        happened: |outcome| outcome.after("x") != 2,
    },
    Case {
        anomaly: Anomaly::LostForUpdate,
        name: "two add 1",
        before: &[("x", 0)],
        scripts: &[
            &[GetForUpdate("x"), Put("x", |seen| Some(seen.last("x") + 1))],
            &[GetForUpdate("x"), Put("x", |seen| Some(seen.last("x") + 1))],
        ],
        schedule: "00 1111 00",
        happened: |outcome| outcome.after("x") != 2,
    },
    Case {
        anomaly: Anomaly::ReadSkew,
        name: "who only reads",
        before: &[("x", 0), ("y", 0)],
        scripts: &[
            &[Get("x"), Get("y")],
            &[Put("x", |_| Some(1)), Put("y", |_| Some(1))],
        ],
        schedule: "00 1111 00",
        happened: |outcome| outcome.seen(0).last("x") != outcome.seen(0).last("y"),
    },
    Case {
        anomaly: Anomaly::ReadSkew,
        name: "who writes what it saw",
        before: &[("x", 0), ("y", 0)],
        scripts: &[
            &[
                Get("x"),
                Get("y"),
                Put("z", |seen| Some(10 * seen.last("x") + seen.last("y"))),
            ],
            &[Put("x", |_| Some(1)), Put("y", |_| Some(1))],
        ],
        schedule: "00 1111 000",
        happened: |outcome| ![0, 11].contains(&outcome.after("z")),
    },
    Case {
        anomaly: Anomaly::WriteSkew,
        name: "two on call, each goes off while the other is on",
        before: &[("x", 1), ("y", 1)],
        scripts: &[
            &[
                Get("x"),
                Get("y"),
                Put("x", |seen| (seen.last("y") == 1).then_some(0)),
            ],
            &[
                Get("x"),
                Get("y"),
                Put("y", |seen| (seen.last("x") == 1).then_some(0)),
            ],
        ],
        schedule: "000 11111 00",
        happened: |outcome| outcome.after("x") == 0 && outcome.after("y") == 0,
    },
    Case {
        anomaly: Anomaly::WriteSkew,
        name: "two each write what the other found absent",
        before: &[],
        scripts: &[
            &[
                Get("y"),
                Put("x", |seen| (seen.last("y") == ABSENT).then_some(1)),
            ],
            &[
                Get("x"),
                Put("y", |seen| (seen.last("x") == ABSENT).then_some(1)),
            ],
        ],
        schedule: "00 1111 00",
        happened: |outcome| outcome.after("x") == 1 && outcome.after("y") == 1,
    },
    Case {
        anomaly: Anomaly::Phantom,
        name: "a second scan",
        before: &[("k1", 1), ("k9", 1)],
        scripts: &[&[Scan, Scan], &[Put("k5", |_| Some(1))]],
        schedule: "00 111 00",
        happened: |outcome| {
            let scans = &outcome.seen(0).scans;
            scans[0] != scans[1]
        },
    },
    Case {
        anomaly: Anomaly::Phantom,
        name: "a second count, in a transaction that writes",
        before: &[("k1", 1)],
        scripts: &[
            &[Count, Count, Put("z", |_| Some(1))],
            &[Put("k5", |_| Some(1)), Put("k2", |_| Some(1))],
        ],
        schedule: "00 1111 000",
        happened: |outcome| {
            let counts = &outcome.seen(0).counts;
            counts[0] != counts[1]
        },
    },
    Case {
        anomaly: Anomaly::RangeSkew,
        name: "two book what each found free",
        before: &[],
        scripts: &[
            &[
                Scan,
                Put("k1", |seen| seen.scans[0].is_empty().then_some(1)),
            ],
            &[
                Scan,
                Put("k2", |seen| seen.scans[0].is_empty().then_some(1)),
            ],
        ],
        schedule: "00 1111 00",
        happened: |outcome| outcome.after("k1") == 1 && outcome.after("k2") == 1,
    },
    Case {
        anomaly: Anomaly::ReadOnly,
        name: "a deposit is seen, and then a fee that it would have saved",
        before: &[("x", 0), ("y", 0)],
        scripts: &[
            &[
                Get("x"),
                Get("y"),
                // 1 is with the fee, 2 is without.
                Put("x", |seen| Some(if seen.last("y") == 0 { 1 } else { 2 })),
            ],
            &[Get("y"), Put("y", |_| Some(20))],
            &[Get("x"), Get("y")],
        ],
        schedule: "000 1111 2222 00",
        happened: |outcome| {
            let reader = outcome.seen(2);
            (reader.last("x"), reader.last("y")) == (0, 20) && outcome.after("x") == 1
        },
    },
];
