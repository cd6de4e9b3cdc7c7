//! Databases whose records interactive transactions can lock one by one, and those that are refused.

use std::cmp::Ordering;

use lockkeeper::heed::types::{Bytes, Str, U32};
use lockkeeper::heed::{
    self, CommitOrAbort, Comparator, DatabaseFlags, EnvOpenOptions, IntegerComparator,
};
use lockkeeper::{
    ClearDatabase, DatabaseError, DbError, DeleteDatabase, Keeper, NoRecords, Object, Records,
};

use super::{folder, peer, wait};

type Texts = Records<Str, Str>;

fn why<T>(refused: Result<T, DatabaseError>) -> NoRecords {
    match refused {
        Err(DatabaseError::NotRecords { why, .. }) => why,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn a_database_of_records_is_a_database() {
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let texts: Texts = keeper.blocking_records("texts").unwrap();
    keeper
        .blocking_update(move |txn| Ok(texts.put(txn, "a", "b")?))
        .unwrap();
    let again: Texts = wait(keeper.records("texts")).unwrap();
    let read = keeper.blocking_view(move |txn| Ok(again.get(txn, "a")?.map(str::to_owned)));
    assert_eq!(read.unwrap().unwrap(), "b");
}

#[test]
#[expect(deprecated, reason = "such databases exist")]
fn databases_whose_records_cannot_be_locked_one_by_one_are_refused() {
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    for (name, flags, reason) in [
        ("dup", DatabaseFlags::DUP_SORT, NoRecords::Duplicates),
        (
            "fixed",
            DatabaseFlags::DUP_SORT | DatabaseFlags::DUP_FIXED,
            NoRecords::Duplicates,
        ),
        ("int", DatabaseFlags::INTEGER_KEY, NoRecords::IntegerKeys),
        (
            "reverse",
            DatabaseFlags::REVERSE_KEY,
            NoRecords::ReversedKeys,
        ),
    ] {
        let db = wait(keeper.database_with::<Bytes, Bytes, _>(name, flags)).unwrap();
        let db: lockkeeper::Db<Bytes, Bytes> = db;
        let refused = keeper.records_of(db);
        let Err(error) = &refused else {
            panic!("{name} was accepted")
        };
        assert!(error.to_string().contains(name), "{error}");
        assert!(!error.is_retryable());
        assert_eq!(why(refused), reason);
    }
    let flags = DatabaseFlags::empty();
    let numbers = keeper.database_with::<U32<heed::byteorder::NativeEndian>, Bytes, _>("n", flags);
    let numbers: lockkeeper::Db<_, _, IntegerComparator> = wait(numbers).unwrap();
    assert_eq!(why(keeper.records_of(numbers)), NoRecords::IntegerKeys);
}

#[test]
fn what_counts_is_how_the_database_is_in_the_file() {
    let folder = folder();
    let mut options = EnvOpenOptions::new();
    let env = peer::plain(folder.path(), options.map_size(1 << 20).max_dbs(2));
    let txn = env.write_txn().unwrap();
    env.create_databases_and_commit(txn, |opener, txn| {
        let mut options = opener.database_options().types::<Bytes, Bytes>();
        options.flags(DatabaseFlags::DUP_SORT);
        let made = options.name("theirs").create(txn)?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(made))
    })
    .unwrap();
    env.prepare_for_closing().wait();
    let keeper = Keeper::open(folder.path()).unwrap();
    // LMDB opens it without a word about its flags.
    let refused = keeper.blocking_records::<Bytes, Bytes>("theirs");
    assert_eq!(why(refused), NoRecords::Duplicates);
}

#[test]
fn the_main_database_of_another_process_is_looked_at_too() {
    let folder = folder();
    let mut options = EnvOpenOptions::new();
    let env = peer::plain(folder.path(), options.map_size(1 << 20));
    let txn = env.write_txn().unwrap();
    env.create_databases_and_commit(txn, |opener, txn| {
        let mut options = opener.database_options().types::<Bytes, Bytes>();
        options.flags(DatabaseFlags::DUP_SORT);
        let made = options.create(txn)?;
        made.put(txn, b"k", b"v")?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(made))
    })
    .unwrap();
    env.prepare_for_closing().wait();
    let keeper = Keeper::open(folder.path()).unwrap();
    let main = wait(keeper.main_database::<Bytes, Bytes>()).unwrap();
    assert_eq!(why(keeper.records_of(main)), NoRecords::Duplicates);
}

#[test]
fn handles_of_another_keeper_and_of_deleted_databases_are_refused() {
    let (here, there) = (folder(), folder());
    let keeper = Keeper::open(here.path()).unwrap();
    let other = Keeper::open(there.path()).unwrap();
    let texts: Texts = keeper.blocking_records("texts").unwrap();
    assert_eq!(why(other.records_of(*texts)), NoRecords::OtherKeeper);
    assert!(matches!(other.object(texts, "a"), Err(DbError::Foreign)));
    keeper
        .blocking_send(DeleteDatabase("texts".into()))
        .unwrap();
    assert_eq!(why(keeper.records_of(*texts)), NoRecords::Deleted);
    let deleted = keeper.object(texts, "a");
    assert!(matches!(deleted, Err(DbError::Deleted { name }) if &*name == "texts"));
    // Made anew it is another one.
    let anew: Texts = keeper.blocking_records("texts").unwrap();
    assert!(keeper.object(anew, "a").is_ok());
    assert!(keeper.object(texts, "a").is_err());
}

/// From the largest to the smallest.
enum Down {}
impl Comparator for Down {
    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        b.cmp(a)
    }
}

#[test]
fn the_lock_of_a_record_is_its_key_in_the_namespace_of_its_database() {
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    let texts: Texts = keeper.blocking_records("texts").unwrap();
    assert_eq!(
        keeper.object(texts, "a").unwrap(),
        Object::new("texts", b"a")
    );
    let main = wait(keeper.main_database::<Str, Str>()).unwrap();
    let main = keeper.records_of(main).unwrap();
    assert_eq!(
        keeper.object(main, "a").unwrap(),
        Object::new("(main)", b"a")
    );
    let down = keeper.database_with::<Str, Str, Down>("down", DatabaseFlags::empty());
    let down = keeper.records_of(wait(down).unwrap()).unwrap();
    assert_eq!(keeper.object(down, "a").unwrap(), Object::new("down", b"a"));
    let long = "a".repeat(600);
    for key in ["", &long] {
        let refused = keeper.object(texts, key);
        assert!(matches!(refused, Err(DbError::KeySize { len, .. }) if len == key.len()));
    }
}

#[test]
fn names_of_the_keeper_are_refused() {
    let folder = folder();
    let keeper = Keeper::open(folder.path()).unwrap();
    for name in ["__lockkeeper", "__lockkeeper.answers", "__lockkeeper.mine"] {
        let reserved = |refused| match refused {
            Err(DatabaseError::Reserved { name: of }) => assert_eq!(&*of, name),
            other => panic!("{other:?}"),
        };
        reserved(keeper.blocking_database::<Str, Str>(name).map(drop));
        reserved(keeper.blocking_records::<Str, Str>(name).map(drop));
        reserved(wait(keeper.existing_database::<Str, Str>(name)).map(drop));
        reserved(keeper.blocking_send(ClearDatabase(name.into())).map(drop));
        reserved(keeper.blocking_send(DeleteDatabase(name.into())));
    }
    assert!(keeper.blocking_database::<Str, Str>("_lockkeeper").is_ok());
}
