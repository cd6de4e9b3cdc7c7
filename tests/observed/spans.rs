//! The spans.

use std::time::Duration;

use lockkeeper::{Keeper, LockerSpec, Mode, Object, RunTxn, SetMapSize, TxnError, Wait};

use crate::layer::{Seen, spans, the_span, watch};
use crate::rt::{aside, block_on, hold_writer, open, until};

const PAUSE: Duration = Duration::from_millis(20);

fn named(name: &'static str) -> impl Fn(&Seen) -> bool {
    move |seen| {
        seen.name == "transaction" && seen.fields.get("name").is_some_and(|given| given == name)
    }
}

#[track_caller]
fn number(seen: &Seen, field: &str) -> u64 {
    let value = seen.fields.get(field);
    let value = value.unwrap_or_else(|| panic!("`{field}` is missing in {seen:#?}"));
    value.parse().unwrap()
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap()
}

/// Runs a transaction behind a body that keeps the writer for a while, and takes its time itself.
fn slow(keeper: &Keeper, name: &'static str, by_message: bool) {
    let held = hold_writer(keeper);
    let txn = RunTxn::update(move |_| {
        tracing::info!("in the body");
        std::thread::sleep(PAUSE);
        Ok(())
    });
    let txn = txn.name(name);
    let sender = keeper.clone();
    let run = aside(move || {
        let request = tracing::info_span!("request", of = name);
        let _request = request.enter();
        if by_message {
            sender.blocking_send(txn)
        } else {
            sender.blocking_run(txn)
        }
    });
    until(|| block_on(keeper.stats()).environment.queued == 1);
    std::thread::sleep(PAUSE);
    held.release().unwrap();
    run.join().unwrap().unwrap();
}

#[test]
fn a_transaction_has_a_span_with_name_attempt_wait_run_and_commit_inside_its_callers() {
    watch();
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    for (name, by_message) in [("slow run", false), ("slow send", true)] {
        slow(&keeper, name, by_message);
        let (_, seen) = the_span(named(name));
        assert_eq!((seen.target, seen.level.as_str()), ("lockkeeper", "DEBUG"));
        assert!(seen.fields["site"].contains("spans.rs"), "{seen:#?}");
        assert_eq!(number(&seen, "attempt"), 1);
        let pause = micros(PAUSE);
        assert!(number(&seen, "wait_us") >= pause, "{seen:#?}");
        assert!(number(&seen, "run_us") >= pause, "{seen:#?}");
        assert!(number(&seen, "run_us") < 100 * pause, "{seen:#?}");
        assert!(number(&seen, "commit_us") > 0, "{seen:#?}");
        assert_eq!(seen.events, ["in the body"], "the body is inside of it");
        let parent = spans(|seen| seen.name == "request" && seen.fields["of"] == name);
        assert_eq!(seen.parent, Some(parent[0].0), "{seen:#?}");
    }
}

#[test]
fn a_long_view_has_one_without_a_commit_and_a_body_that_says_no_as_well() {
    watch();
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let view = RunTxn::view(|_| {
        std::thread::sleep(PAUSE);
        Ok(())
    });
    keeper.blocking_send(view.name("long view")).unwrap();
    let (_, seen) = the_span(named("long view"));
    assert!(number(&seen, "run_us") >= micros(PAUSE), "{seen:#?}");
    number(&seen, "wait_us");
    assert!(!seen.fields.contains_key("commit_us"));

    let no = RunTxn::try_update(|_| Err::<(), _>(TxnError::Abort("no")));
    keeper.blocking_run(no.name("says no")).unwrap_err();
    let (_, seen) = the_span(named("says no"));
    number(&seen, "run_us");
    assert!(!seen.fields.contains_key("commit_us"));
}

#[test]
fn a_lock_wait_has_a_span_inside_its_transactions_only_if_there_was_a_wait() {
    watch();
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let object = || Object::new("observed", b"secret key");
    let txn = || RunTxn::update(|_| Ok(())).write_lock(object());
    keeper.blocking_run(txn().name("no wait")).unwrap();
    let (free, _) = the_span(named("no wait"));
    assert!(spans(|seen| seen.parent == Some(free)).is_empty());

    for (name, by_message) in [("waits in place", false), ("waits by message", true)] {
        let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
        locker
            .blocking_lock(&object(), Mode::Write, Wait::No)
            .unwrap();
        let run = {
            let (keeper, txn) = (keeper.clone(), txn().name(name));
            aside(move || {
                if by_message {
                    keeper.blocking_send(txn)
                } else {
                    keeper.blocking_run(txn)
                }
            })
        };
        until(|| keeper.locks().stats().waiting == 1);
        drop(locker);
        run.join().unwrap().unwrap();
        let (transaction, _) = the_span(named(name));
        let (_, wait) = the_span(|seen| seen.parent == Some(transaction));
        assert_eq!((wait.name, wait.target), ("lock_wait", "lockkeeper"));
        assert_eq!(wait.fields["namespace"], "observed");
        assert_eq!(wait.fields["mode"], "write");
        assert_eq!(wait.fields["outcome"], "granted");
        number(&wait, "locker");
        // Keys are not for logs.
        assert!(!format!("{wait:?}").contains("secret"), "{wait:?}");
    }
}

#[test]
fn a_retried_transaction_shows_its_last_attempt() {
    watch();
    let folder = tempfile::tempdir().unwrap();
    let keeper = crate::rt::builder(folder.path())
        .lock_timeout(Duration::from_millis(2))
        .open()
        .unwrap();
    let object = Object::new("observed", b"retried");
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    locker
        .blocking_lock(&object, Mode::Write, Wait::No)
        .unwrap();
    let txn = RunTxn::update(|_| Ok(()));
    let run = keeper.run(txn.write_lock(object).name("retried").retries(1000));
    let run = aside(move || block_on(run));
    until(|| block_on(keeper.stats()).transactions.retries >= 2);
    drop(locker);
    run.join().unwrap().unwrap();
    let (number_, seen) = the_span(named("retried"));
    assert!(number(&seen, "attempt") >= 3);
    let waits = spans(|seen| seen.parent == Some(number_));
    assert_eq!(waits[0].1.fields["outcome"], "timeout");
}

#[test]
fn a_change_of_the_map_has_a_span_with_both_sizes() {
    watch();
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (from, to) = (1 << 20, 37 << 20);
    keeper.blocking_send(SetMapSize(to)).unwrap();
    let (_, seen) =
        the_span(|seen| seen.name == "resize" && seen.fields.get("to") == Some(&to.to_string()));
    assert_eq!(seen.target, "lockkeeper");
    assert_eq!(number(&seen, "from"), from);
}
