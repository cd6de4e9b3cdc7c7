//! What a key may not be used for, and what cannot be stored or read: typed errors, and nothing runs.

use lockkeeper::{AnswerError, DbError, Environment, ErrorClass, RunTxn, Settings, TxnError};

use crate::support::{folder, get, open};
use crate::{Runs, add, assert_once, in_answers, with_keeper};

#[test]
fn another_request_with_the_same_key_is_key_reused() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    let pay = |name: Option<&'static str>, request: Option<&'static str>| {
        let txn = runs.bump(numbers, 1).idempotent("key");
        let txn = match name {
            Some(name) => txn.name(name),
            None => txn,
        };
        keeper.blocking_run(match request {
            Some(request) => txn.request(request),
            None => txn,
        })
    };
    assert_eq!(pay(Some("pay"), Some("ten")).unwrap(), 1);
    for (name, request) in [
        (Some("pay"), Some("eleven")),
        (Some("refund"), Some("ten")),
        (Some("pay"), None),
        (None, Some("ten")),
        (None, None),
    ] {
        let error = pay(name, request).unwrap_err();
        assert!(
            matches!(&error, TxnError::KeyReused { key } if **key == *b"key"),
            "{error:?}"
        );
        assert_eq!(error.class(), ErrorClass::Usage);
        assert!(!error.is_retryable());
    }
    assert_eq!(pay(Some("pay"), Some("ten")).unwrap(), 1);
    assert_eq!(runs.count(), 1);
    assert_eq!(get(&keeper, numbers, 1), Some(1));
}

#[test]
fn a_record_that_cannot_be_read_is_an_error_and_never_a_second_run() {
    let dir = folder();
    let runs = Runs::default();
    with_keeper(dir.path(), |keeper, numbers| {
        assert_once(keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
    });
    let record = [b"\x01key".to_vec()];
    let good = in_answers(dir.path(), |entries| entries[&record[0]].clone());
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let cut = good[..good.len() - 1].to_vec();
    let later = [&[2], &good[1..]].concat();
    for garbage in [vec![], b"garbage".to_vec(), flipped, cut, later] {
        in_answers(dir.path(), |entries| {
            entries.insert(record[0].clone(), garbage);
        });
        with_keeper(dir.path(), |keeper, numbers| {
            let txn = runs.bump(numbers, 1).idempotent("key");
            let error = keeper.blocking_run(txn).unwrap_err();
            let TxnError::AnswerUnreadable { key, source } = &error else {
                panic!("{error:?}");
            };
            assert_eq!(**key, *b"key");
            assert!(
                matches!(source, AnswerError::Damaged | AnswerError::UnknownFormat(_)),
                "{source:?}"
            );
            assert_eq!(error.class(), ErrorClass::Storage);
            assert!(!error.is_retryable());
        });
    }
    assert_eq!(runs.count(), 1);
    in_answers(dir.path(), |entries| {
        entries.insert(record[0].clone(), good)
    });
    with_keeper(dir.path(), |keeper, numbers| {
        assert_once(keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
    });
    assert_eq!(runs.count(), 1);
}

#[test]
fn an_answer_of_another_type_is_an_error_and_never_a_second_run() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    assert_once(&keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
    let text = RunTxn::update(move |txn| {
        add(txn, numbers, 1)?;
        Ok(String::new())
    });
    let error = keeper.blocking_run(text.idempotent("key")).unwrap_err();
    let TxnError::AnswerUnreadable { source, .. } = error else {
        panic!("{error:?}");
    };
    assert!(matches!(source, AnswerError::OtherType(_)), "{source:?}");
    assert_eq!(get(&keeper, numbers, 1), Some(1));
}

#[test]
fn what_would_not_be_read_back_is_refused_before_the_commit() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let nan = RunTxn::update(move |txn| {
        add(txn, numbers, 1)?;
        Ok(f64::NAN)
    });
    let large = RunTxn::update(move |txn| {
        add(txn, numbers, 1)?;
        Ok("x".repeat(1 << 20))
    });
    let not_json = RunTxn::update(move |txn| {
        add(txn, numbers, 1)?;
        Ok(std::collections::BTreeMap::from([((1, 2), 3)]))
    });
    let errors = [
        keeper.blocking_run(nan.idempotent("key")).unwrap_err(),
        keeper.blocking_run(large.idempotent("key")).unwrap_err(),
        keeper.blocking_run(not_json.idempotent("key")).unwrap_err(),
    ];
    for error in &errors {
        assert!(
            matches!(error, TxnError::AnswerNotStorable { .. }),
            "{error:?}"
        );
        assert_eq!(error.class(), ErrorClass::Usage);
    }
    let source = |error: &TxnError| std::error::Error::source(error).unwrap().to_string();
    assert_eq!(
        source(&errors[1]),
        "the answer has more than 1048576 bytes of JSON"
    );
    assert_eq!(get(&keeper, numbers, 1), None, "nothing was written");
    // Nor was anything stored.
    let runs = Runs::default();
    assert_once(&keeper, numbers, runs.bump(numbers, 1).idempotent("key"));
}

/// Numbers come back to the last bit.
#[test]
fn what_was_answered_is_what_comes_back() {
    let dir = folder();
    let (keeper, _) = open(dir.path());
    let value = (
        0.1_f64 + 0.2,
        f64::MIN_POSITIVE,
        u64::MAX,
        i128::MIN,
        "ß\0".to_owned(),
    );
    for (times, expected) in [value.clone(), Default::default()].into_iter().enumerate() {
        let txn = RunTxn::update(move |_| Ok(expected.clone())).idempotent("key");
        assert_eq!(keeper.blocking_run(txn).unwrap(), value, "{times}");
    }
}

#[test]
fn a_key_has_1_to_255_bytes() {
    let dir = folder();
    let (keeper, numbers) = open(dir.path());
    let runs = Runs::default();
    for length in [0, 256, 100_000] {
        let txn = runs.bump(numbers, 1).idempotent(vec![b'k'; length]);
        let error = keeper.blocking_run(txn).unwrap_err();
        assert!(
            matches!(error, TxnError::Database(DbError::KeySize { len, max: 255 }) if len == length),
            "{error:?}"
        );
        assert_eq!(error.class(), ErrorClass::Usage);
    }
    assert_eq!(runs.count(), 0);
    for _ in 0..2 {
        assert_once(
            &keeper,
            numbers,
            runs.bump(numbers, 1).idempotent([b'k'; 255]),
        );
    }
    assert_eq!(runs.count(), 1);
}

#[test]
fn a_view_takes_no_key() {
    let dir = folder();
    let (keeper, _) = open(dir.path());
    let error = keeper
        .blocking_run(RunTxn::view(|_| Ok(1)).idempotent("key"))
        .unwrap_err();
    assert!(matches!(error, TxnError::KeyOnView), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Usage);
}

#[test]
fn without_a_lock_table_a_key_is_refused() {
    let dir = folder();
    let folder = dir.path().to_owned();
    actix_rt::System::new().block_on(async move {
        let environment = Environment::open_alone(&folder, &Settings::default()).unwrap();
        let txn = RunTxn::update(|_| Ok(1)).idempotent("key");
        let error = environment.send(txn).await.unwrap().unwrap_err();
        assert!(matches!(error, TxnError::NoLockTable), "{error:?}");
    });
}
