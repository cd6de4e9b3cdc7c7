//! Databases: opened at any time, by anyone, and handles that know when they may not be used.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::sync::atomic::{self, AtomicBool};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Bytes, Str, U32, U64};
use lockkeeper::heed::{Comparator, DatabaseFlags, DefaultComparator};
use lockkeeper::{
    ClearDatabase, DatabaseError, Db, DbError, DeleteDatabase, ErrorClass, RunTxn, TxnError,
};

use super::peer::markers;
use super::{LONG, builder, folder, hold_view, open, stats, store, wait};

type Text = Db<Str, Str>;

#[test]
fn sixty_four_threads_that_open_sixty_four_names_at_once_each_read_their_own_marker() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).max_databases(80));
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (keeper, stop) = (keeper.clone(), Arc::clone(&stop));
        thread::spawn(move || {
            let mut updates = 0;
            while !stop.load(atomic::Ordering::Relaxed) {
                keeper
                    .blocking_update(store(blobs, updates % 100, 1000))
                    .unwrap();
                updates += 1;
            }
            updates
        })
    };
    let start = Arc::new(Barrier::new(64));
    let threads: Vec<_> = (0..64)
        .map(|nth| {
            let (keeper, start) = (keeper.clone(), Arc::clone(&start));
            thread::spawn(move || {
                let name = format!("database {nth}");
                start.wait();
                let db: Text = keeper.blocking_database(&name).unwrap();
                let marker = name.clone();
                keeper
                    .blocking_update(move |txn| {
                        assert!(db.is_empty(txn)?, "somebody else's");
                        Ok(db.put(txn, "marker", &marker)?)
                    })
                    .unwrap();
                start.wait();
                let found = keeper.blocking_view(move |txn| {
                    Ok((db.len(txn)?, db.get(txn, "marker")?.map(str::to_owned)))
                });
                assert_eq!(found.unwrap(), (1, Some(name.clone())));
                // Opened again, it is the same.
                let again: Text = keeper.blocking_database(&name).unwrap();
                let found = keeper.blocking_view(move |txn| Ok(again.len(txn)?));
                assert_eq!(found.unwrap(), 1);
            })
        })
        .collect();
    threads.into_iter().for_each(|it| it.join().unwrap());
    stop.store(true, atomic::Ordering::Relaxed);
    assert!(writer.join().unwrap() > 0);
    assert_eq!(stats(&keeper).databases_open, 65);
    keeper.blocking_shutdown(LONG).unwrap();

    // And so it is for those who come later.
    for nth in 0..64 {
        let name = format!("database {nth}");
        let found = markers(folder.path(), &name);
        assert_eq!(found, [("marker".to_owned(), name)]);
    }
}

#[test]
fn a_handle_is_of_no_use_in_a_snapshot_older_than_it() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let (give, taken) = mpsc::channel::<Text>();
    let old = hold_view(&keeper, move |txn| {
        let db = taken.recv_timeout(LONG).unwrap();
        let get = db.get(txn, "k").map(|it| it.map(str::to_owned));
        Ok((get, db.len(txn)))
    });
    let db: Text = keeper.blocking_database("new").unwrap();
    keeper
        .blocking_update(move |txn| Ok(db.put(txn, "k", "v")?))
        .unwrap();
    give.send(db).unwrap();
    let (get, len) = old.release().unwrap();
    for error in [get.unwrap_err(), len.unwrap_err()] {
        assert!(
            matches!(&error, DbError::HandleNewerThanSnapshot { name } if &**name == "new"),
            "{error}"
        );
        assert_eq!(TxnError::<()>::from(error).class(), ErrorClass::Usage);
    }
    let now = keeper.blocking_view(move |txn| Ok(db.get(txn, "k")?.map(str::to_owned)));
    assert_eq!(now.unwrap().as_deref(), Some("v"));
}

#[test]
fn a_deleted_database_is_deleted_for_all_of_its_handles() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let keep: Text = keeper.blocking_database("keep").unwrap();
    let gone: Text = keeper.blocking_database("gone").unwrap();
    keeper
        .blocking_update(move |txn| {
            keep.put(txn, "k", "keep")?;
            Ok(gone.put(txn, "k", "gone")?)
        })
        .unwrap();
    keeper.blocking_send(DeleteDatabase("gone".into())).unwrap();
    // Another one takes its place in LMDB.
    let other: Text = keeper.blocking_database("other").unwrap();
    keeper
        .blocking_update(move |txn| Ok(other.put(txn, "k", "other")?))
        .unwrap();

    let check = |what: &str| {
        let read = keeper.blocking_view(move |txn| Ok(gone.get(txn, "k")?.map(str::to_owned)));
        let write = keeper.blocking_update(move |txn| Ok(gone.put(txn, "k", "x")?));
        for error in [read.map(drop).unwrap_err(), write.unwrap_err()] {
            assert!(
                matches!(&error, TxnError::Database(DbError::Deleted { name }) if &**name == "gone"),
                "{what}: {error}"
            );
        }
        let rest = keeper.blocking_view(move |txn| {
            Ok([keep, other].map(|db| db.get(txn, "k").unwrap().map(str::to_owned)))
        });
        assert_eq!(
            rest.unwrap(),
            [Some("keep".to_owned()), Some("other".to_owned())]
        );
    };
    check("deleted");
    // One of the same name is another one.
    let anew: Text = keeper.blocking_database("gone").unwrap();
    check("made anew");
    let empty = keeper.blocking_view(move |txn| Ok(anew.is_empty(txn)?));
    assert!(empty.unwrap());

    let missing = keeper.blocking_send(DeleteDatabase("never".into()));
    assert!(
        matches!(missing, Err(DatabaseError::NoSuchDatabase { .. })),
        "{missing:?}"
    );
}

#[test]
fn a_database_is_not_deleted_under_a_view() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()).resize_timeout(Duration::from_millis(50)));
    let db: Text = keeper.blocking_database("read").unwrap();
    keeper
        .blocking_update(move |txn| Ok(db.put(txn, "k", "v")?))
        .unwrap();
    let reader = hold_view(&keeper, move |txn| Ok(db.get(txn, "k")?.map(str::to_owned)));
    let refused = keeper.blocking_send(DeleteDatabase("read".into()));
    let Err(DatabaseError::Txn(TxnError::MapBusy(busy))) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(busy.views.len(), 1);
    assert_eq!(reader.release().unwrap().as_deref(), Some("v"));
    keeper.blocking_send(DeleteDatabase("read".into())).unwrap();
}

#[test]
fn a_database_can_be_cleared() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    for key in 0..10 {
        keeper.blocking_update(store(blobs, key, 10)).unwrap();
    }
    assert_eq!(
        keeper.blocking_send(ClearDatabase("blobs".into())).unwrap(),
        10
    );
    assert_eq!(
        keeper.blocking_send(ClearDatabase("blobs".into())).unwrap(),
        0
    );
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
    let missing = keeper.blocking_send(ClearDatabase("never".into()));
    assert!(matches!(missing, Err(DatabaseError::NoSuchDatabase { .. })));
    // In a transaction with other writes, too.
    keeper
        .blocking_update(move |txn| {
            blobs.clear(txn)?;
            Ok(blobs.put(txn, &7, b"new")?)
        })
        .unwrap();
    let entries = keeper.blocking_view(move |txn| Ok(blobs.len(txn)?));
    assert_eq!(entries.unwrap(), 1);
}

#[test]
fn a_handle_of_another_keeper_is_refused() {
    let (one, two) = (folder(), folder());
    let (one, of_one) = open(builder(one.path()));
    let (two, of_two) = open(builder(two.path()));
    one.blocking_update(store(of_one, 1, 10)).unwrap();
    let read = two.blocking_view(move |txn| Ok(of_one.len(txn)?));
    let write = two.blocking_update(store(of_one, 1, 10));
    for error in [read.map(drop).unwrap_err(), write.unwrap_err()] {
        assert!(
            matches!(error, TxnError::Database(DbError::Foreign)),
            "{error}"
        );
    }
    two.blocking_update(store(of_two, 1, 10)).unwrap();
}

#[test]
fn more_databases_than_configured_are_refused_and_the_others_work() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()).max_databases(3));
    for name in ["b", "c"] {
        keeper.blocking_database::<Str, Str>(name).unwrap();
    }
    for _ in 0..3 {
        let refused = keeper.blocking_database::<Str, Str>("d");
        assert!(
            matches!(&refused, Err(DatabaseError::TooMany { name, max: 3 }) if &**name == "d"),
            "{refused:?}"
        );
    }
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
    keeper.blocking_database::<Str, Str>("b").unwrap();
    // A place that is given back can be had.
    keeper.blocking_send(DeleteDatabase("c".into())).unwrap();
    let db: Text = keeper.blocking_database("d").unwrap();
    keeper
        .blocking_update(move |txn| Ok(db.put(txn, "k", "v")?))
        .unwrap();
    let stats = stats(&keeper);
    assert_eq!((stats.databases_open, stats.max_databases), (3, 3));
}

#[test]
fn names_that_cannot_be_are_refused() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    for name in ["", &"x".repeat(512), "a\0b"] {
        let refused = keeper.blocking_database::<Str, Str>(name);
        assert!(
            matches!(refused, Err(DatabaseError::BadName { len }) if len == name.len()),
            "{refused:?}"
        );
    }
    let longest: Text = keeper.blocking_database(&"x".repeat(511)).unwrap();
    keeper
        .blocking_update(move |txn| Ok(longest.put(txn, "k", "v")?))
        .unwrap();
    // A record of the main database is no database.
    let main: Text = wait(keeper.main_database()).unwrap();
    keeper
        .blocking_update(move |txn| Ok(main.put(txn, "record", "v")?))
        .unwrap();
    let refused = keeper.blocking_database::<Str, Str>("record");
    assert!(
        matches!(refused, Err(DatabaseError::Incompatible { .. })),
        "{refused:?}"
    );
    keeper.blocking_update(store(blobs, 1, 10)).unwrap();
}

#[test]
fn a_database_is_not_made_where_it_should_exist() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let missing = wait(keeper.existing_database::<Str, Str>("later"));
    assert!(
        matches!(&missing, Err(DatabaseError::NoSuchDatabase { name }) if &**name == "later"),
        "{missing:?}"
    );
    keeper.blocking_database::<Str, Str>("later").unwrap();
    wait(keeper.existing_database::<Str, Str>("later")).unwrap();
}

/// The order of strings by their last byte.
#[derive(Debug)]
enum ByLast {}

impl Comparator for ByLast {
    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        a.last().cmp(&b.last()).then_with(|| a.cmp(b))
    }
}

#[test]
fn a_comparator_orders_the_keys() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let opened = keeper.database_with::<Str, Str, ByLast>("ordered", DatabaseFlags::empty());
    let ordered = wait(opened).unwrap();
    keeper
        .blocking_update(move |txn| {
            for key in ["a3", "b1", "c2", "d1"] {
                ordered.put(txn, key, "")?;
            }
            Ok(())
        })
        .unwrap();
    let keys = keeper.blocking_view(move |txn| {
        let keys = ordered.iter(txn)?;
        Ok(keys
            .map(|entry| entry.unwrap().0.to_owned())
            .collect::<Vec<_>>())
    });
    assert_eq!(keys.unwrap(), ["b1", "d1", "c2", "a3"]);
    let next = keeper.blocking_view(move |txn| {
        let next = ordered.get_greater_than(txn, "b1")?;
        Ok(next.map(|(key, _)| key.to_owned()))
    });
    assert_eq!(next.unwrap().as_deref(), Some("d1"));
}

#[test]
fn a_database_is_open_as_one_thing_only() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let flags = DatabaseFlags::DUP_SORT;
    let dup = wait(keeper.database_with::<Str, U32<BigEndian>, DefaultComparator>("dup", flags));
    let dup = dup.unwrap();

    fn refused<T: Debug>(answer: Result<T, DatabaseError>) {
        let error = answer.unwrap_err();
        let text = error.to_string();
        let DatabaseError::OpenedOtherwise { name, open, asked } = error else {
            panic!("{text}");
        };
        assert_eq!(&*name, "dup");
        assert!(
            open != asked && text.contains(&open) && text.contains(&asked),
            "{text}"
        );
    }
    refused(keeper.blocking_database::<Str, U32<BigEndian>>("dup"));
    refused(keeper.blocking_database::<Str, U64<BigEndian>>("dup"));
    refused(keeper.blocking_database::<Bytes, U32<BigEndian>>("dup"));
    refused(wait(
        keeper.database_with::<Str, U32<BigEndian>, ByLast>("dup", flags),
    ));
    wait(keeper.database_with::<Str, U32<BigEndian>, DefaultComparator>("dup", flags)).unwrap();

    // It still works as what it is, and on purpose as something else.
    keeper
        .blocking_update(move |txn| {
            for number in [3, 1, 2] {
                dup.put(txn, "k", &number)?;
            }
            Ok(dup.delete_one_duplicate(txn, "k", &2)?)
        })
        .unwrap();
    let raw = dup.remap_types::<Str, Bytes>();
    let values = keeper.blocking_view(move |txn| {
        let values = raw.get_duplicates(txn, "k")?.unwrap();
        Ok(values
            .map(|entry| entry.unwrap().1.to_vec())
            .collect::<Vec<_>>())
    });
    assert_eq!(values.unwrap(), [[0, 0, 0, 1], [0, 0, 0, 3]]);
}

#[test]
fn keys_that_cannot_be_are_named_errors_and_what_comes_next_works() {
    let folder = folder();
    let (keeper, _) = open(builder(folder.path()));
    let db = keeper.blocking_database::<Bytes, Bytes>("keys").unwrap();
    assert_eq!(stats(&keeper).max_key_size, 511);
    for len in [0, 512, 100_000] {
        let key = vec![b'x'; len];
        let (get, put, delete) = (key.clone(), key.clone(), key);
        let errors = [
            keeper.blocking_view(move |txn| Ok(db.get(txn, &get).map(|_| ())?)),
            keeper.blocking_update(move |txn| Ok(db.put(txn, &put, b"v")?)),
            keeper.blocking_update(move |txn| Ok(db.delete(txn, &delete).map(|_| ())?)),
        ];
        for (what, answer) in errors.into_iter().enumerate() {
            // LMDB finds nothing under a key that is too long, and says so.
            if what != 1 && answer.is_ok() && len > 0 {
                continue;
            }
            let error = answer.unwrap_err();
            assert!(
                matches!(error, TxnError::Database(DbError::KeySize { len: named, max: 511 }) if named == len),
                "{what} {len}: {error}"
            );
            assert_eq!(error.class(), ErrorClass::Usage);
        }
    }
    keeper
        .blocking_run(RunTxn::update(move |txn| {
            // A body may live with it.
            assert!(db.put(txn, b"", b"v").is_err());
            Ok(db.put(txn, &[b'x'; 511], b"v")?)
        }))
        .unwrap();
    let entries = keeper.blocking_view(move |txn| Ok(db.len(txn)?));
    assert_eq!(entries.unwrap(), 1);
}

#[test]
fn each_database_has_its_statistics() {
    let folder = folder();
    let (keeper, blobs) = open(builder(folder.path()));
    keeper.blocking_database::<Str, Str>("empty").unwrap();
    for key in 0..20 {
        keeper.blocking_update(store(blobs, key, 10_000)).unwrap();
    }
    let stats = stats(&keeper);
    let of = |name: &str| {
        let found = stats
            .databases
            .iter()
            .find(|db| db.name.as_deref() == Some(name));
        found.unwrap()
    };
    assert_eq!((of("empty").entries, of("empty").depth), (0, 0));
    assert_eq!(of("blobs").entries, 20);
    assert_eq!(of("blobs").overflow_pages, 60);
    assert!(of("blobs").depth >= 1 && of("blobs").leaf_pages >= 1);
    assert_eq!(stats.databases_open, 2);
    assert_eq!(stats.path, folder.path().canonicalize().unwrap());
}
