//! What clearing and deleting databases leaves behind, also when it fails or comes too late.

use std::fmt::Debug;
use std::time::Duration;

use lockkeeper::heed::types::{Bytes, Str, U32};
use lockkeeper::heed::{Comparator, DatabaseFlags, DefaultComparator, byteorder::BigEndian};
use lockkeeper::{
    ClearDatabase, DatabaseError, Db, DbError, DeleteDatabase, Durability, ErrorClass, Growth,
    Keeper, RunTxn, TxnError,
};

use crate::stage::{Disk, on_stage};
use crate::support::{Plug, SOON, block_on, folder, stats};

type Blobs = Db<Str, Bytes>;

fn put(keeper: &Keeper, blobs: Blobs, key: &'static str) -> Result<(), TxnError> {
    keeper.blocking_update(move |txn| Ok(blobs.put(txn, key, b"1")?))
}

fn len(keeper: &Keeper, blobs: Blobs) -> Result<u64, TxnError> {
    keeper.blocking_view(move |txn| Ok(blobs.len(txn)?))
}

fn has(keeper: &Keeper, blobs: Blobs, key: &'static str) -> bool {
    keeper
        .blocking_view(move |txn| Ok(blobs.get(txn, key)?.is_some()))
        .unwrap()
}

/// The handle works, and what is put through it is in no other database.
fn assert_usable(keeper: &Keeper, blobs: Blobs, entries: u64) {
    assert_eq!(len(keeper, blobs).unwrap(), entries);
    let others = ["y", "z"].map(|name| keeper.blocking_database::<Str, Bytes>(name).unwrap());
    put(keeper, blobs, "mine").unwrap();
    assert!(has(keeper, blobs, "mine"));
    for other in others {
        assert!(!has(keeper, other, "mine"));
        assert_eq!(len(keeper, other).unwrap(), 0);
    }
    let again: Blobs = keeper.blocking_database("blobs").unwrap();
    assert!(has(keeper, again, "mine"));
    // It can still be deleted.
    keeper
        .blocking_send(DeleteDatabase("blobs".into()))
        .unwrap();
    let gone = len(keeper, blobs);
    assert!(
        matches!(&gone, Err(TxnError::Database(DbError::Deleted { name })) if &**name == "blobs"),
        "{gone:?}"
    );
}

#[test]
fn a_deletion_whose_commit_fails_leaves_the_handle_to_its_own_database() {
    let Some(stage) =
        on_stage("databases::a_deletion_whose_commit_fails_leaves_the_handle_to_its_own_database")
    else {
        return;
    };
    let keeper = Keeper::open(&stage.folder).unwrap();
    let blobs: Blobs = keeper.blocking_database("blobs").unwrap();
    put(&keeper, blobs, "early").unwrap();
    stage.tell(Disk::FailData);
    for _ in 0..2 {
        let failed = keeper.blocking_send(DeleteDatabase("blobs".into()));
        assert!(
            matches!(&failed, Err(DatabaseError::Txn(error)) if error.class() == ErrorClass::Full),
            "{failed:?}"
        );
        assert!(has(&keeper, blobs, "early"), "readable at once");
    }
    stage.heal(Disk::FailData);
    assert_usable(&keeper, blobs, 1);
    assert_eq!(stats(&keeper).environment.poisonings, 0);
    keeper.blocking_shutdown(SOON).unwrap();
}

#[test]
fn a_deletion_for_which_the_map_is_too_small_leaves_the_handle_to_its_own_database() {
    let mut failures = 0;
    for entries in [600, 900] {
        let folder = folder();
        let keeper = Keeper::builder()
            .path(folder.path())
            .map_size(4 << 20)
            .growth(Growth::Fixed)
            .durability(Durability::NoSync)
            .open()
            .unwrap();
        let blobs: Blobs = keeper.blocking_database("blobs").unwrap();
        let filler: Blobs = keeper.blocking_database("filler").unwrap();
        keeper
            .blocking_update(move |txn| {
                for nth in 0..entries {
                    blobs.put(txn, &format!("{nth:05}"), &[1; 3000])?;
                }
                Ok(())
            })
            .unwrap();
        let mut nth = 0;
        for size in [3000, 100] {
            let fill = |nth| {
                keeper.blocking_update(move |txn| {
                    filler.put(txn, &format!("{nth:05}"), &vec![1; size])?;
                    Ok(())
                })
            };
            while fill(nth).is_ok() {
                nth += 1;
            }
        }
        let deleted = keeper.blocking_send(DeleteDatabase("blobs".into()));
        if let Err(error) = deleted {
            assert!(
                matches!(error, DatabaseError::Txn(TxnError::EnvironmentFull { .. })),
                "{error:?}"
            );
            failures += 1;
            eprintln!("FAIL {entries}");
            assert_eq!(len(&keeper, blobs).unwrap(), entries);
            keeper
                .blocking_send(lockkeeper::SetMapSize(8 << 20))
                .unwrap();
            assert_usable(&keeper, blobs, entries);
        }
    }
    assert!(failures > 0, "no deletion has failed");
}

#[test]
fn what_timed_out_behind_a_stalled_writer_is_not_carried_out_later() {
    let folder = folder();
    // With the usual time for what goes to the disk.
    let open = |keeper: &Keeper| -> Blobs { keeper.blocking_database("blobs").unwrap() };
    let keeper = Keeper::open(folder.path()).unwrap();
    put(&keeper, open(&keeper), "early").unwrap();
    keeper.blocking_shutdown(SOON).unwrap();
    drop(keeper);

    let keeper = Keeper::builder()
        .path(folder.path())
        .deadline(Duration::from_millis(150))
        .open()
        .unwrap();
    let plug = Plug::hold_as(
        &keeper,
        |body| RunTxn::update(body).name("stalls").deadline(SOON),
        |_| Ok(()),
    );
    fn late<T: Debug>(answer: Result<T, DatabaseError>) {
        assert!(
            matches!(
                &answer,
                Err(DatabaseError::Txn(
                    TxnError::WriterStalled { .. } | TxnError::DeadlineExceeded { .. }
                ))
            ),
            "{answer:?}"
        );
    }
    std::thread::scope(|scope| {
        let clear = scope.spawn(|| keeper.blocking_send(ClearDatabase("blobs".into())));
        let delete = scope.spawn(|| keeper.blocking_send(DeleteDatabase("blobs".into())));
        let create = scope.spawn(|| keeper.blocking_database::<Str, Bytes>("late"));
        late(clear.join().unwrap());
        late(delete.join().unwrap());
        late(create.join().unwrap());
    });
    plug.release().unwrap();
    // Behind all of them.
    let behind = RunTxn::update(|_| Ok(())).deadline(SOON);
    keeper.blocking_run(behind).unwrap();
    keeper.blocking_shutdown(SOON).unwrap();
    drop(keeper);

    let keeper = Keeper::open(folder.path()).unwrap();
    let blobs = open(&keeper);
    put(&keeper, blobs, "next").unwrap();
    assert!(has(&keeper, blobs, "early"));
    assert_eq!(len(&keeper, blobs).unwrap(), 2);
    let missing = block_on(keeper.existing_database::<Str, Bytes>("late"));
    assert!(
        matches!(missing, Err(DatabaseError::NoSuchDatabase { .. })),
        "{missing:?}"
    );
}

#[test]
fn i02_what_one_transaction_does_without_the_next_command_does_not() {
    const NO_META_SYNC: u32 = 0x4_0000;
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let blobs: Blobs = keeper.blocking_database("blobs").unwrap();
    let meta_is_flushed = || stats(&keeper).environment.flags & NO_META_SYNC == 0;
    let commands: [(&str, &dyn Fn()); 4] = [
        ("clear", &|| {
            keeper.blocking_send(ClearDatabase("blobs".into())).unwrap();
        }),
        ("create", &|| {
            keeper.blocking_database::<Str, Bytes>("new").unwrap();
        }),
        ("clear, not open", &|| {
            let _ = keeper.blocking_send(ClearDatabase("missing".into()));
        }),
        ("delete", &|| {
            keeper.blocking_send(DeleteDatabase("new".into())).unwrap();
        }),
    ];
    for (what, command) in commands {
        let update = RunTxn::update(move |txn| Ok(blobs.put(txn, "k", b"1")?));
        keeper
            .blocking_run(update.durability(Durability::NoMetaSync))
            .unwrap();
        assert!(!meta_is_flushed(), "asked for");
        command();
        assert!(meta_is_flushed(), "{what}");
    }
}

/// The order of strings from their end.
#[derive(Debug)]
enum Backwards {}

impl Comparator for Backwards {
    fn compare(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
        a.iter().rev().cmp(b.iter().rev())
    }
}

#[test]
fn a_database_that_was_cleared_before_it_was_open_opens_as_what_it_is() {
    let folder = folder();
    let dup = DatabaseFlags::DUP_SORT;
    let open_all = |keeper: &Keeper| {
        let blobs = keeper.blocking_database::<Str, Bytes>("blobs").unwrap();
        let numbers = keeper.database_with::<Str, U32<BigEndian>, DefaultComparator>("dup", dup);
        let ordered =
            keeper.database_with::<Str, Str, Backwards>("ordered", DatabaseFlags::empty());
        (
            blobs,
            block_on(numbers).unwrap(),
            block_on(ordered).unwrap(),
        )
    };
    let fill = |keeper: &Keeper| {
        let (blobs, numbers, ordered) = open_all(keeper);
        let found = keeper.blocking_update(move |txn| {
            blobs.put(txn, "k", b"1")?;
            numbers.put(txn, "k", &2)?;
            numbers.put(txn, "k", &1)?;
            for key in ["ab", "ba", "cc"] {
                ordered.put(txn, key, "")?;
            }
            let keys = ordered.iter(txn)?;
            let keys: Vec<_> = keys.map(|entry| entry.unwrap().0.to_owned()).collect();
            Ok((blobs.len(txn)?, numbers.len(txn)?, keys))
        });
        let (blobs, numbers, ordered) = found.unwrap();
        assert_eq!((blobs, numbers), (1, 2));
        assert_eq!(ordered, ["ba", "ab", "cc"]);
    };
    let keeper = Keeper::open(folder.path()).unwrap();
    fill(&keeper);
    keeper.blocking_shutdown(SOON).unwrap();

    let keeper = Keeper::open(folder.path()).unwrap();
    for (name, entries) in [("blobs", 1), ("dup", 2), ("ordered", 3)] {
        let cleared = keeper.blocking_send(ClearDatabase(name.into()));
        assert_eq!(cleared.unwrap(), entries, "{name}");
    }
    fill(&keeper);
    // From here on it is what it was opened as.
    let otherwise = keeper.blocking_database::<Str, U32<BigEndian>>("blobs");
    assert!(
        matches!(otherwise, Err(DatabaseError::OpenedOtherwise { .. })),
        "{otherwise:?}"
    );
    let missing = keeper.blocking_send(ClearDatabase("missing".into()));
    assert!(
        matches!(missing, Err(DatabaseError::NoSuchDatabase { .. })),
        "{missing:?}"
    );
    keeper.blocking_shutdown(SOON).unwrap();

    // So it is with a deletion: the name is free.
    let keeper = Keeper::open(folder.path()).unwrap();
    for name in ["blobs", "dup", "ordered"] {
        keeper.blocking_send(DeleteDatabase(name.into())).unwrap();
    }
    fill(&keeper);
}
