use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use heed::types::Str;

use super::*;
use crate::clock::block_on;
use crate::env::{Db, Records};
use crate::error::{ErrorClass, TxnError};
use crate::keeper::Keeper;
use crate::leases::{Fence, LeaseName, StoreId};
use crate::messages::environment::ForgetToken;

/// A lease as its holder sees it.
struct Lease {
    held: Arc<AtomicBool>,
    under: Under,
}

fn lease_of(store: &str, name: &str, token: u64) -> Lease {
    let held = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&held);
    Lease {
        held,
        under: Under {
            store: StoreId::new(store),
            name: LeaseName::new(name).unwrap(),
            token: Fence(token),
            held: Arc::new(move || asked.load(Ordering::SeqCst)),
        },
    }
}

fn lease(token: u64) -> Lease {
    lease_of("store", "leader", token)
}

impl Lease {
    fn under(&self) -> Under {
        self.under.clone()
    }

    fn lose(&self) {
        self.held.store(false, Ordering::SeqCst);
    }
}

struct World {
    folder: tempfile::TempDir,
    keeper: Keeper,
    texts: Db<Str, Str>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper::open(folder.path()).unwrap();
        let texts = keeper.blocking_database("texts").unwrap();
        Self {
            folder,
            keeper,
            texts,
        }
    }

    fn reopened(self) -> Self {
        self.keeper
            .blocking_shutdown(std::time::Duration::from_secs(30))
            .unwrap();
        let keeper = Keeper::open(self.folder.path()).unwrap();
        let texts = keeper.blocking_database("texts").unwrap();
        Self {
            folder: self.folder,
            keeper,
            texts,
        }
    }

    fn writing(&self, text: &'static str) -> RunTxn<()> {
        let texts = self.texts;
        RunTxn::update(move |txn| Ok(texts.put(txn, "text", text)?))
    }

    fn text(&self) -> Option<String> {
        let texts = self.texts;
        self.keeper
            .blocking_view(move |txn| Ok(texts.get(txn, "text")?.map(str::to_owned)))
            .unwrap()
    }

    fn records(&self) -> Records<Str, Str> {
        self.keeper.records_of(self.texts).unwrap()
    }

    /// The four ways of writing under a lease.
    fn write(&self, way: usize, lease: &Lease, text: &'static str) -> Result<(), TxnError> {
        let (keeper, records) = (&self.keeper, self.records());
        let update = self.writing(text).under_lease(lease.under());
        match way {
            0 => keeper.blocking_run(update),
            1 => keeper.blocking_send(update),
            2 => block_on(
                keeper
                    .transaction("write", |txn| async move {
                        txn.put(records, "text", text).await?;
                        Ok::<_, TxnError>(())
                    })
                    .under_lease(lease.under())
                    .into_future(),
            ),
            3 => {
                let message = RunTxn::interactive(move |txn| async move {
                    txn.put(records, "text", text).await?;
                    Ok(())
                });
                keeper.blocking_send(message.under_lease(lease.under()))
            }
            _ => block_on(async {
                let txn = keeper.begin().under_lease(lease.under()).await?;
                txn.put(records, "text", text).await?;
                txn.commit().await
            }),
        }
    }
}

const WAYS: usize = 5;

#[track_caller]
fn assert_too_small(outcome: Result<(), TxnError>, ours: u64, theirs: u64) {
    let Err(error) = outcome else {
        panic!("a stale token has written");
    };
    assert!(!error.is_retryable() && error.class() == ErrorClass::LeaseLost);
    let text = error.to_string();
    assert!(
        text.contains("leader") && text.contains("ForgetToken"),
        "{text}"
    );
    let TxnError::FenceTooSmall { token, seen, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!((token, seen), (Fence(ours), Fence(theirs)));
}

#[test]
fn i10_a_stale_token_is_refused_after_a_later_holder_has_written_also_after_a_restart() {
    for way in 0..WAYS {
        let world = World::new();
        // Each believes that it holds the lease: only the tokens tell.
        let (first, second) = (lease(7), lease(8));
        world.write(way, &first, "first").unwrap();
        world.write(way, &first, "again").unwrap();
        world.write(way, &second, "second").unwrap();
        assert_too_small(world.write(way, &first, "late"), 7, 8);
        assert_eq!(world.text().as_deref(), Some("second"), "way {way}");

        let world = world.reopened();
        assert_too_small(world.write(way, &first, "later"), 7, 8);
        world.write(way, &second, "on").unwrap();
        assert_eq!(world.text().as_deref(), Some("on"), "way {way}");
    }
}

#[test]
fn under_a_lost_lease_nothing_runs_and_nothing_is_tried_again() {
    for way in 0..WAYS {
        let world = World::new();
        let lost = lease(1);
        lost.lose();
        let error = world.write(way, &lost, "no").unwrap_err();
        assert!(matches!(error, TxnError::LeaseLost { .. }), "{error:?}");
        assert!(!error.is_retryable() && error.class() == ErrorClass::LeaseLost);
        assert_eq!(world.text(), None);
    }
}

#[test]
fn a_lease_that_is_lost_while_the_body_runs_undoes_it() {
    let world = World::new();
    let lost = Arc::new(lease(1));
    let (texts, losing) = (world.texts, Arc::clone(&lost));
    let update = RunTxn::update(move |txn| {
        texts.put(txn, "text", "no")?;
        losing.lose();
        Ok(())
    });
    let error = world.keeper.blocking_run(update.under_lease(lost.under()));
    assert!(matches!(error, Err(TxnError::LeaseLost { .. })));
    assert_eq!(world.text(), None);
    // What was undone has not been seen.
    world.write(0, &lease(1), "yes").unwrap();
}

#[test]
fn a_lease_that_is_lost_before_an_interactive_transaction_is_applied_undoes_it() {
    let world = World::new();
    let lost = lease(1);
    let records = world.records();
    block_on(async {
        let txn = world
            .keeper
            .begin()
            .under_lease(lost.under())
            .await
            .unwrap();
        txn.put(records, "text", "no").await.unwrap();
        lost.lose();
        let error = txn.commit().await.unwrap_err();
        assert!(matches!(error, TxnError::LeaseLost { .. }), "{error:?}");
    });
    assert_eq!(world.text(), None);
    // Its locks are gone with it.
    world.write(2, &lease(2), "yes").unwrap();
}

#[test]
fn a_view_under_a_lease_is_answered_only_if_it_is_held_at_the_end() {
    let world = World::new();
    let held = Arc::new(lease(3));
    world.write(0, &lease(9), "theirs").unwrap();
    let losing = Arc::clone(&held);
    let look = move |lose: bool| {
        let losing = Arc::clone(&losing);
        RunTxn::view(move |_| {
            if lose {
                losing.lose();
            }
            Ok(())
        })
    };
    // Tokens are for writes: whoever reads spoils nothing.
    let (keeper, under) = (&world.keeper, || held.under());
    keeper
        .blocking_run(look(false).under_lease(under()))
        .unwrap();
    let error = keeper.blocking_run(look(true).under_lease(under()));
    assert!(matches!(error, Err(TxnError::LeaseLost { .. })));
}

#[test]
fn leases_of_two_names_or_two_stores_have_tokens_of_their_own_and_both_count() {
    let world = World::new();
    world.write(0, &lease_of("store", "a", 10), "a").unwrap();
    world.write(0, &lease_of("store", "b", 2), "b").unwrap();
    world.write(0, &lease_of("another", "a", 1), "c").unwrap();

    let both = |a: &Lease, b: &Lease| {
        let update = world.writing("both").under_lease(a.under());
        world.keeper.blocking_run(update.under_lease(b.under()))
    };
    both(&lease_of("store", "a", 11), &lease_of("store", "b", 3)).unwrap();
    let (new, stale) = (lease_of("store", "a", 12), lease_of("store", "b", 2));
    assert!(matches!(
        both(&new, &stale),
        Err(TxnError::FenceTooSmall { .. })
    ));
    // What was refused has left nothing: 11 is the largest that was seen of the first.
    world.write(0, &lease_of("store", "a", 11), "on").unwrap();
    stale.lose();
    assert!(matches!(
        both(&new, &stale),
        Err(TxnError::LeaseLost { .. })
    ));
}

#[test]
fn i03_whoever_is_refused_takes_nobody_of_its_batch_along() {
    let world = World::new();
    world.write(0, &lease(5), "first").unwrap();
    let keeper = world.keeper.clone();
    let texts = world.texts;
    // Holds the writer while the batch gathers.
    let (go, wait) = mpsc::channel::<()>();
    let (inside, is_inside) = mpsc::channel();
    let plug = keeper.clone();
    let plug = thread::spawn(move || {
        plug.blocking_run(RunTxn::update(move |_| {
            let _ = inside.send(());
            let _ = wait.recv();
            Ok(())
        }))
    });
    is_inside.recv().unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..16)
        .map(|nth: usize| {
            let (keeper, runs) = (keeper.clone(), Arc::clone(&runs));
            thread::spawn(move || {
                let key = nth.to_string();
                let update = RunTxn::update(move |txn| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    Ok(texts.put(txn, &key, "there")?)
                });
                let token = if nth.is_multiple_of(2) { 5 } else { 4 };
                keeper.blocking_run(update.under_lease(lease(token).under()))
            })
        })
        .collect();
    let queued = &keeper.inner.runtime.env.shared.counters.queued;
    while queued.load(Ordering::SeqCst) < 16 {
        thread::yield_now();
    }
    go.send(()).unwrap();
    plug.join().unwrap().unwrap();
    for (nth, sender) in senders.into_iter().enumerate() {
        let outcome = sender.join().unwrap();
        assert_eq!(outcome.is_ok(), nth % 2 == 0, "{nth}: {outcome:?}");
    }
    // Nobody ran twice, and who was refused not at all.
    assert_eq!(runs.load(Ordering::SeqCst), 8);
}

#[test]
fn a_token_is_forgotten_by_an_explicit_message_alone() {
    let world = World::new();
    world.write(0, &lease(90), "before").unwrap();
    // The store was restored: its tokens begin again.
    assert_too_small(world.write(0, &lease(3), "after"), 3, 90);
    let forget = || ForgetToken::new(StoreId::new("store"), LeaseName::new("leader").unwrap());
    let seen = world.keeper.blocking_send(forget()).unwrap();
    assert_eq!(seen, Some(Fence(90)));
    assert_eq!(world.keeper.blocking_send(forget()).unwrap(), None);
    world.write(0, &lease(3), "after").unwrap();
    assert_eq!(world.text().as_deref(), Some("after"));
}

#[test]
fn an_answer_that_is_stored_and_its_token_come_with_one_commit() {
    let world = World::new();
    let order = |token| {
        let order = world.writing("order").idempotent("order-1");
        world
            .keeper
            .blocking_run(order.under_lease(lease(token).under()))
    };
    order(6).unwrap();
    // Answered as before, and the body does not run.
    order(6).unwrap();
    assert_too_small(world.write(0, &lease(5), "late"), 5, 6);
}
