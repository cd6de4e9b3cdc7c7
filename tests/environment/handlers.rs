//! What an application puts between an outcome and the caller.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockkeeper::{
    Backoff, Growth, HandlerChain, HandlerContext, Keeper, Outcome, RunTxn, TxnError,
};

use super::{KeeperBuilder, MIB, builder, folder, has, open, stats, store};

/// What handlers saw, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// A handler that notes what it sees and passes it on.
    fn note(
        &self,
        who: &'static str,
    ) -> impl Fn(&mut HandlerContext, Outcome) -> Outcome + Send + Sync + 'static {
        self.deciding(who, |_, outcome| outcome)
    }

    /// A handler that notes what it sees and decides.
    fn deciding(
        &self,
        who: &'static str,
        decide: impl Fn(&mut HandlerContext, Outcome) -> Outcome + Send + Sync + 'static,
    ) -> impl Fn(&mut HandlerContext, Outcome) -> Outcome + Send + Sync + 'static {
        let log = self.clone();
        move |context, outcome| {
            let what = match &outcome {
                Outcome::Committed => "committed",
                Outcome::Aborted => "aborted",
                Outcome::Failed(_) => "failed",
                Outcome::Retry => "retry",
                _ => "?",
            };
            let line = format!("{who} {} {what}", context.attempt());
            log.0.lock().unwrap().push(line);
            decide(context, outcome)
        }
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn hasty(builder: KeeperBuilder) -> KeeperBuilder {
    let moment = Duration::from_micros(100);
    builder.retry_backoff(Backoff::new(moment, moment, 1.0))
}

#[test]
fn each_handler_runs_once_for_an_outcome_those_for_all_before_those_for_one() {
    let folder = folder();
    let log = Log::default();
    let (keeper, blobs) = open(
        hasty(builder(folder.path()))
            .growth(Growth::Fixed)
            .handler(log.note("all"))
            .handlers(&HandlerChain::new().append(log.note("more"))),
    );
    log.take();
    let one = |txn: RunTxn<(), &'static str>| txn.handler(log.note("one"));
    let update = |len| {
        RunTxn::<()>::try_update::<_, &str>({
            let mut put = store(blobs, 1, len);
            move |txn| put(txn).map_err(TxnError::widen)
        })
    };

    keeper.blocking_run(one(update(10))).unwrap();
    assert_eq!(
        log.take(),
        ["all 1 committed", "more 1 committed", "one 1 committed"]
    );

    let no = keeper.blocking_run(one(RunTxn::<()>::try_update(|_| {
        Err(TxnError::Abort("no"))
    })));
    assert!(matches!(no, Err(TxnError::Abort("no"))));
    assert_eq!(
        log.take(),
        ["all 1 aborted", "more 1 aborted", "one 1 aborted"]
    );

    let full = keeper.blocking_run(one(update(2 * MIB)));
    assert!(matches!(full, Err(TxnError::EnvironmentFull { .. })));
    assert_eq!(
        log.take(),
        ["all 1 failed", "more 1 failed", "one 1 failed"]
    );

    let view = RunTxn::<()>::try_view::<_, &str>(|_| Ok(()));
    keeper.blocking_run(one(view)).unwrap();
    assert_eq!(
        log.take(),
        ["all 1 committed", "more 1 committed", "one 1 committed"]
    );

    // Without handlers of its own; and by message.
    keeper.blocking_send(update(10)).unwrap();
    assert_eq!(log.take(), ["all 1 committed", "more 1 committed"]);
}

#[test]
fn handlers_for_all_see_short_views_too() {
    let folder = folder();
    let log = Log::default();
    let keeper = hasty(builder(folder.path()))
        .handler(log.deciding("all", |context, outcome| match outcome {
            Outcome::Aborted if context.attempt() < 3 => Outcome::Retry,
            outcome => outcome,
        }))
        .open()
        .unwrap();
    keeper.blocking_view(|_| Ok(())).unwrap();
    super::wait(keeper.view(|_| Ok(()))).unwrap();
    assert_eq!(log.take(), ["all 1 committed", "all 1 committed"]);

    let mut runs = 0;
    let view = keeper.try_view(move |_| {
        runs += 1;
        if runs < 3 {
            Err(TxnError::Abort("not yet"))
        } else {
            Ok(runs)
        }
    });
    assert_eq!(super::wait(view).unwrap(), 3);
    assert_eq!(
        log.take(),
        ["all 1 aborted", "all 2 aborted", "all 3 committed"]
    );
}

#[test]
fn a_handler_sees_what_the_one_before_it_decided_and_may_replace_the_error() {
    let folder = folder();
    let log = Log::default();
    let (keeper, _) = open(hasty(builder(folder.path())));
    let chain = HandlerChain::new()
        .append(log.deciding("first", |_, _| Outcome::Retry))
        .append(log.deciding("second", |_, outcome| match outcome {
            Outcome::Retry => Outcome::Failed(TxnError::ShuttingDown),
            other => other,
        }))
        .append(log.note("third"));
    let answer = keeper
        .blocking_run(RunTxn::<()>::try_update(|_| Err(TxnError::Abort("no"))).handlers(&chain));
    assert!(matches!(answer, Err(TxnError::ShuttingDown)), "{answer:?}");
    assert_eq!(
        log.take(),
        ["first 1 aborted", "second 1 retry", "third 1 failed"]
    );
}

#[test]
fn what_is_committed_stays_committed_whatever_a_handler_answers() {
    let folder = folder();
    let (keeper, blobs) = open(hasty(builder(folder.path())));
    for decide in [
        (|_: &mut HandlerContext, _| Outcome::Retry) as fn(&mut HandlerContext, Outcome) -> Outcome,
        |_, _| Outcome::Aborted,
        |_, _| Outcome::Failed(TxnError::ShuttingDown),
    ] {
        let commits = stats(&keeper).commits;
        let update = RunTxn::update(store(blobs, 1, 10)).handler(decide);
        keeper.blocking_run(update).unwrap();
        assert_eq!(stats(&keeper).commits, commits + 1);
    }
    assert!(has(&keeper, blobs, 1, 10));
}

/// Asks for another attempt whenever the body says no, and counts in the context how often.
fn stubborn(
    seen: &Arc<AtomicU32>,
) -> impl Fn(&mut HandlerContext, Outcome) -> Outcome + Send + Sync + 'static {
    #[derive(Default)]
    struct Count(u32);
    let seen = Arc::clone(seen);
    move |context, outcome| {
        let attempt = context.attempt();
        let count = context.value::<Count>();
        count.0 += 1;
        assert_eq!(count.0, attempt, "the context lasts over the attempts");
        seen.store(count.0, Ordering::Relaxed);
        match outcome {
            Outcome::Aborted => Outcome::Retry,
            outcome => outcome,
        }
    }
}

/// A body that says no so often.
fn reluctant(keeper: &Keeper, times: u32) -> RunTxn<u32, &'static str> {
    let blobs: super::Blobs = keeper.blocking_database("blobs").unwrap();
    let mut put = store(blobs, 9, 10);
    RunTxn::<u32>::try_update(move |txn| {
        put(txn).map_err(TxnError::widen)?;
        if txn.attempt() <= times {
            return Err(TxnError::Abort("not yet"));
        }
        Ok(txn.attempt())
    })
}

#[test]
fn a_handler_can_ask_for_another_attempt() {
    let folder = folder();
    let (keeper, blobs) = open(hasty(builder(folder.path())));
    let seen = Arc::default();
    let answer = keeper.blocking_run(reluctant(&keeper, 4).handler(stubborn(&seen)));
    assert_eq!(answer.unwrap(), 5);
    assert_eq!(seen.load(Ordering::Relaxed), 5);
    assert!(has(&keeper, blobs, 9, 10));
    // Another transaction has a context of its own.
    let answer = keeper.blocking_run(reluctant(&keeper, 0).handler(stubborn(&seen)));
    assert_eq!(answer.unwrap(), 1);
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[test]
fn retries_that_a_handler_asks_for_are_bounded() {
    let folder = folder();
    let (keeper, blobs) = open(hasty(builder(folder.path())));
    let seen = Arc::default();
    let endless = || reluctant(&keeper, u32::MAX).handler(stubborn(&seen));
    let answer = keeper.blocking_run(endless().retries(4));
    assert!(
        matches!(
            answer,
            Err(TxnError::RetriesExhausted { attempts: 4, .. } | TxnError::Abort("not yet"))
        ),
        "{answer:?}"
    );
    assert_eq!(seen.load(Ordering::Relaxed), 4);

    let answer = keeper.blocking_run(endless());
    assert!(answer.is_err());
    assert_eq!(seen.load(Ordering::Relaxed), 10, "the default budget");

    let span = Duration::from_millis(50);
    let answer = keeper.blocking_run(endless().retries(1_000_000).deadline(span));
    assert!(
        matches!(answer, Err(TxnError::DeadlineExceeded { deadline, .. }) if deadline == span),
        "{answer:?}"
    );
    assert!(!has(&keeper, blobs, 9, 10));
}

#[test]
fn chains_are_values() {
    let log = Log::default();
    let short = HandlerChain::new().append(log.note("a"));
    let long = short.append(log.note("b"));
    let joined = long.then(&short);
    assert_eq!((short.len(), long.len(), joined.len()), (1, 2, 3));
    assert!(HandlerChain::new().is_empty());

    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let run = |chain: &HandlerChain| {
        keeper
            .blocking_run(RunTxn::update(|_| Ok(())).handlers(chain))
            .unwrap();
        log.take()
    };
    assert_eq!(run(&short), ["a 1 committed"]);
    assert_eq!(run(&long), ["a 1 committed", "b 1 committed"]);
    assert_eq!(
        run(&joined),
        ["a 1 committed", "b 1 committed", "a 1 committed"]
    );
    assert_eq!(run(&short), ["a 1 committed"]);
}

#[test]
fn a_handler_can_use_the_keeper() {
    // It runs outside of the gate, inside of no body.
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    let inner = keeper.clone();
    let audit = move |_: &mut HandlerContext, outcome| {
        inner.blocking_update(store(blobs, 100, 10)).unwrap();
        inner.blocking_view(|_| Ok(())).unwrap();
        outcome
    };
    keeper
        .blocking_run(RunTxn::update(store(blobs, 1, 10)).handler(audit))
        .unwrap();
    assert!(has(&keeper, blobs, 1, 10) && has(&keeper, blobs, 100, 10));
}
