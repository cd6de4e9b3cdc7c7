//! I14: what would wait for itself is an error that names the body it was begun in.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use lockkeeper::{
    BodyKind, ClearDatabase, CopyTo, DatabaseError, DeleteDatabase, EnvError, EnvStatsQuery,
    ErrorClass, Keeper, Recover, RunTxn, SetMapSize, Site, Sync, TxnError,
};

use crate::support::{SOON, assert_idle, folder, get, open, open_with, put};

type Found = Vec<(&'static str, TxnError)>;

/// Begins everything that can be begun, blocking and not, on the calling thread; answers what each was answered.
fn begin_everything(keeper: &Keeper) -> Found {
    let mut found = Found::new();
    let mut say = |what, answer: Option<Result<(), TxnError>>| {
        let answer = answer.unwrap_or_else(|| panic!("{what} waits, inside a body"));
        found.push((what, answer.expect_err(what)));
    };
    let of_database = |error| match error {
        DatabaseError::Txn(error) => error,
        other => panic!("{other:?}"),
    };
    let of_env = |error| match error {
        EnvError::Txn(error) => error,
        other => panic!("{other:?}"),
    };
    say("blocking_view", Some(keeper.blocking_view(|_| Ok(()))));
    say("blocking_update", Some(keeper.blocking_update(|_| Ok(()))));
    say(
        "blocking_database",
        Some(
            keeper
                .blocking_database::<(), ()>("new")
                .map(drop)
                .map_err(of_database),
        ),
    );
    let txn = || RunTxn::update(|_| Ok(()));
    say("blocking_run", Some(keeper.blocking_run(txn())));
    say("blocking_send", Some(keeper.blocking_send(txn())));
    say("view", keeper.view(|_| Ok(())).now_or_never());
    say("update", keeper.update(|_| Ok(())).now_or_never());
    say("try_update", keeper.try_update(|_| Ok(())).now_or_never());
    say(
        "database",
        keeper
            .database::<(), ()>("new")
            .now_or_never()
            .map(|answer| answer.map(drop).map_err(of_database)),
    );
    say(
        "run a view",
        keeper.run(RunTxn::view(|_| Ok(()))).now_or_never(),
    );
    say("send an update", keeper.send(txn()).now_or_never());
    say(
        "send a view",
        keeper.send(RunTxn::view(|_| Ok(()))).now_or_never(),
    );
    let size = keeper.send(SetMapSize(2 << 30)).now_or_never();
    say(
        "SetMapSize",
        size.map(|answer| answer.map(drop).map_err(of_env)),
    );
    let sync = keeper.send(Sync).now_or_never();
    say("Sync", sync.map(|answer| answer.map_err(of_env)));
    let recover = keeper.send(Recover).now_or_never();
    say("Recover", recover.map(|answer| answer.map_err(of_env)));
    let copy = keeper.send(CopyTo::new("nowhere")).now_or_never();
    say(
        "CopyTo",
        copy.map(|answer| answer.map(drop).map_err(of_env)),
    );
    let query = keeper.send(EnvStatsQuery).now_or_never();
    say("EnvStatsQuery", query.map(|answer| answer.map(drop)));
    let clear = keeper.send(ClearDatabase("numbers".into())).now_or_never();
    say(
        "ClearDatabase",
        clear.map(|answer| answer.map(drop).map_err(of_database)),
    );
    let delete = keeper.send(DeleteDatabase("numbers".into())).now_or_never();
    say(
        "DeleteDatabase",
        delete.map(|answer| answer.map_err(of_database)),
    );
    found
}

fn assert_named(found: Found, kind: BodyKind, line: u32) {
    assert_eq!(found.len(), 19);
    for (what, error) in found {
        match &error {
            TxnError::NestedTransaction { outer, outer_site } => {
                assert_eq!(*outer, kind, "{what}");
                assert_eq!(outer_site.line(), line, "{what}");
                assert!(outer_site.file().ends_with("nested.rs"), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(error.class(), ErrorClass::Usage);
        let text = error.to_string();
        assert!(
            text.contains(&kind.to_string()) && text.contains("end it first"),
            "{text}"
        );
    }
}

#[test]
fn i14_whatever_is_begun_inside_a_body_names_that_body() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let inner = keeper.clone();
    let line = line!() + 1;
    let found = keeper.blocking_view(move |_| Ok(begin_everything(&inner)));
    assert_named(found.unwrap(), BodyKind::View, line);

    let inner = keeper.clone();
    let line = line!() + 1;
    let shipped = RunTxn::view(move |_| Ok(begin_everything(&inner)));
    assert_named(keeper.blocking_run(shipped).unwrap(), BodyKind::View, line);

    let inner = keeper.clone();
    let line = line!() + 1;
    let found = keeper.blocking_update(move |_| Ok(begin_everything(&inner)));
    assert_named(found.unwrap(), BodyKind::Update, line);

    let inner = keeper.clone();
    let line = line!() + 1;
    let sent = RunTxn::update(move |_| Ok(begin_everything(&inner)));
    assert_named(keeper.blocking_send(sent).unwrap(), BodyKind::Update, line);

    put(&keeper, numbers, 1, 1).unwrap();
    assert_eq!(get(&keeper, numbers, 1), Some(1));
    assert_idle(&keeper);
}

#[test]
fn i14_a_body_may_use_another_keeper() {
    let (one, other) = (folder(), folder());
    let (keeper, numbers) = open(one.path());
    let (second, others) = open(other.path());
    let inner = second.clone();
    keeper
        .blocking_update(move |txn| {
            numbers.put(txn, &1, &1)?;
            inner.blocking_update(move |txn| Ok(others.put(txn, &2, &2)?))
        })
        .unwrap();
    assert_eq!(get(&second, others, 2), Some(2));
}

/// The thread that was asked cannot know whose body waits for it: the writer is busy, and the deadline says with what.
#[test]
fn i14_a_body_that_waits_for_another_thread_to_send_is_named_at_the_deadline() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let found: Arc<Mutex<Option<TxnError>>> = Arc::default();
    let (inner, tell) = (keeper.clone(), Arc::clone(&found));
    let outer = RunTxn::update(move |txn| {
        numbers.put(txn, &1, &10)?;
        let inner = inner.clone();
        let asked = thread::spawn(move || {
            // Reads do not wait for the writer.
            inner.blocking_view(|_| Ok(())).unwrap();
            let txn = RunTxn::update(|_| Ok(())).deadline(Duration::from_millis(100));
            inner.blocking_send(txn)
        });
        *tell.lock().unwrap() = Some(asked.join().unwrap().unwrap_err());
        Ok(())
    });
    let line = line!();
    keeper.blocking_run(outer.name("outer")).unwrap();
    let error = found.lock().unwrap().take().unwrap();
    match &error {
        TxnError::WriterStalled { name, site, since } => {
            assert_eq!(name.as_deref(), Some("outer"));
            assert!(named_here(site, line), "{site}");
            assert!(*since < SOON);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(get(&keeper, numbers, 1), Some(10));
    put(&keeper, numbers, 2, 20).unwrap();
    assert_idle(&keeper);
}

fn named_here(site: &Site, line: u32) -> bool {
    site.file().ends_with("nested.rs") && site.line() < line && site.line() + 15 > line
}

/// The map cannot change under a view, and the view waits for the one who needs the change: both are named.
#[test]
fn i14_a_view_that_waits_for_an_update_that_needs_a_larger_map_is_told_so() {
    let folder = folder();
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(folder.path())
            .map_size(256 << 10)
            .grow_ahead(0)
            .resize_timeout(Duration::from_millis(100)),
    );
    let greedy = move || {
        RunTxn::update(move |txn| {
            for key in 0..20_000 {
                numbers.put(txn, &key, &key)?;
            }
            Ok(())
        })
        .name("greedy")
    };
    let inner = keeper.clone();
    let line = line!() + 1;
    let view = RunTxn::view(move |_| {
        let inner = inner.clone();
        Ok(thread::spawn(move || inner.blocking_run(greedy())).join())
    });
    let answer = keeper.blocking_run(view.name("reader")).unwrap();
    let error = answer.unwrap().unwrap_err();
    match &error {
        TxnError::MapBusy(busy) => {
            assert!(busy.update.as_deref().unwrap().contains("greedy"), "{busy}");
            assert_eq!(busy.views.len(), 1, "{busy}");
            assert_eq!(busy.views[0].name.as_deref(), Some("reader"));
            assert_eq!(busy.views[0].site.line(), line);
            assert!(busy.waited >= Duration::from_millis(100), "{busy}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(error.class(), ErrorClass::MapBusy);
    let text = error.to_string();
    assert!(text.contains("greedy") && text.contains("reader"), "{text}");
    assert!(text.contains("end the view before the update"), "{text}");
    // The gate is open again, and without the view there is room.
    assert_eq!(get(&keeper, numbers, 0), None);
    keeper.blocking_run(greedy()).unwrap();
    assert_eq!(get(&keeper, numbers, 19_999), Some(19_999));
    assert_idle(&keeper);
}
