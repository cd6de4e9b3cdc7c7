//! Other processes on a folder, and what they do when they are told to.

use std::collections::BTreeMap;
use std::path::Path;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Bytes, Str, U64};
use lockkeeper::heed::{self, CommitOrAbort, Database, Env, EnvOpenOptions, RoTxn, RwTxn, WithTls};
use lockkeeper::{Growth, Keeper, RunTxn, TxnError};

use super::{KIB, process, stats, value};

/// Another process on a folder. It is killed when dropped.
pub struct Peer(process::Peer);

impl Peer {
    /// Starts a process, which does nothing yet.
    pub fn start(folder: &Path) -> Self {
        let folder = folder.to_str().unwrap();
        Self(process::Peer::start("peer::another_process", &[folder]))
    }

    /// Starts a process that uses plain heed.
    pub fn heed(folder: &Path, map_size: u64) -> Self {
        let mut peer = Self::start(folder);
        peer.ask(&format!("heed {map_size}"));
        peer
    }

    pub fn order(&mut self, order: &str) {
        self.0.tell(order);
    }

    /// The answer to the oldest order that has none yet.
    pub fn answer(&mut self) -> String {
        self.0.answer()
    }

    pub fn ask(&mut self, order: &str) -> String {
        self.0.ask(order)
    }

    pub fn ask_number(&mut self, order: &str) -> u64 {
        self.ask(order).parse().unwrap()
    }

    pub fn kill(self) {
        self.0.kill();
    }
}

/// Plain heed, for the process of the test itself. Nobody else has the folder open.
#[expect(unsafe_code, reason = "heed marks opening as unsafe")]
pub fn plain(folder: &Path, options: &mut EnvOpenOptions) -> Env {
    // SAFETY: the folder is the test's own, and on a local disk.
    unsafe { options.open(folder) }.unwrap()
}

/// Every entry of a database, as plain heed sees it in this process; the keeper has been shut down.
pub fn entries(folder: &Path, name: &str) -> BTreeMap<u64, Vec<u8>> {
    let mut options = EnvOpenOptions::new();
    let env = plain(folder, options.map_size(256 << 20).max_dbs(32));
    let found = read_all(&env, name);
    env.prepare_for_closing().wait();
    found
}

/// Every entry of a database of strings, in the same way.
pub fn markers(folder: &Path, name: &str) -> Vec<(String, String)> {
    let mut options = EnvOpenOptions::new();
    let env = plain(folder, options.map_size(256 << 20).max_dbs(80));
    let strings = database(&env, name).unwrap().remap_types::<Str, Str>();
    let txn = env.read_txn().unwrap();
    let entries = strings.iter(&txn).unwrap().map(|entry| entry.unwrap());
    let found = entries
        .map(|(key, text)| (key.to_owned(), text.to_owned()))
        .collect();
    drop(txn);
    env.prepare_for_closing().wait();
    found
}

fn database<'e>(env: &'e Env, name: &str) -> Option<Database<'e, U64<BigEndian>, Bytes>> {
    let txn = env.read_txn().unwrap();
    env.open_databases_and_commit(txn, |opener, txn| {
        let mut options = opener.database_options().types();
        let found = options.name(name).open(txn)?;
        Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(found))
    })
    .unwrap()
    .commit()
    .unwrap()
}

fn read_all(env: &Env, name: &str) -> BTreeMap<u64, Vec<u8>> {
    let Some(numbers) = database(env, name) else {
        return BTreeMap::new();
    };
    let txn = env.read_txn().unwrap();
    let all = numbers.iter(&txn).unwrap();
    all.map(|entry| entry.unwrap())
        .map(|(key, bytes)| (key, bytes.to_vec()))
        .collect()
}

/// What an [`Peer`] runs; in the test run itself it does nothing.
#[test]
fn another_process() {
    let Some(told) = process::told() else {
        return;
    };
    let mut role = Role::None;
    process::obey(|order| {
        let words: Vec<_> = order.split(' ').collect();
        obey(&mut role, Path::new(&told[0]), &words)
    })
}

enum Role {
    None,
    Heed(Plain),
    Keeper(Keeper),
}

struct Plain {
    env: &'static Env,
    numbers: Database<'static, U64<BigEndian>, Bytes>,
    writing: Option<RwTxn<'static>>,
    reading: Option<RoTxn<'static, WithTls>>,
}

fn obey(role: &mut Role, folder: &Path, words: &[&str]) -> String {
    let number = |nth: usize| words[nth].parse::<u64>().unwrap();
    match (words[0], &mut *role) {
        ("heed", _) => {
            *role = Role::Heed(Plain::open(folder, number(1)));
            "open".into()
        }
        ("keeper", _) => {
            let opened = Keeper::builder()
                .path(folder)
                .map_size(number(1))
                .growth(Growth::Step(number(2)))
                .grow_ahead(0)
                // Two others may be faster more than twice in a row.
                .adopt_retries(50)
                .no_lock(words.get(3) == Some(&"no_lock"))
                .open();
            match opened {
                Ok(keeper) => {
                    *role = Role::Keeper(keeper);
                    "open".into()
                }
                Err(error) => format!("{error:?}"),
            }
        }
        (_, Role::Heed(plain)) => plain.obey(words),
        ("put", Role::Keeper(keeper)) => put(keeper, number(1), number(2)),
        ("put_until_grown", Role::Keeper(keeper)) => put_until_grown(keeper, number(1)).to_string(),
        ("resizes", Role::Keeper(keeper)) => stats(keeper).map_resizes.to_string(),
        ("adopted", Role::Keeper(keeper)) => stats(keeper).resizes_adopted.to_string(),
        (order, _) => panic!("{order}?"),
    }
}

impl Plain {
    fn open(folder: &Path, map_size: u64) -> Self {
        let mut options = EnvOpenOptions::new();
        let map_size = usize::try_from(map_size).unwrap();
        let env = plain(
            folder,
            options.map_size(map_size).max_dbs(32).max_readers(126),
        );
        let env: &'static Env = Box::leak(Box::new(env));
        let txn = env.write_txn().unwrap();
        let numbers = env
            .create_databases_and_commit(txn, |opener, txn| {
                let mut options = opener.database_options().types();
                let numbers = options.name("peer").create(txn)?;
                Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(numbers))
            })
            .unwrap()
            .commit()
            .unwrap();
        Self {
            env,
            numbers,
            writing: None,
            reading: None,
        }
    }

    fn obey(&mut self, words: &[&str]) -> String {
        let number = |nth: usize| words[nth].parse::<u64>().unwrap();
        match words[0] {
            // Gives the map a size and writes so much, without a commit.
            "begin" => {
                self.resize(number(1));
                let mut txn = self.env.write_txn().unwrap();
                let key = self.numbers.len(&txn).unwrap();
                let bytes = value(key, number(2));
                self.numbers.put(&mut txn, &key, &bytes).unwrap();
                self.writing = Some(txn);
            }
            "commit" => self.writing.take().unwrap().commit().unwrap(),
            // Holds a snapshot from now on.
            "read" => self.reading = Some(self.env.read_txn().unwrap()),
            // Counts the items that `put` of a keeper process stored, and looks at each.
            "count" => {
                self.resize(256 << 20);
                let items = read_all(self.env, "items");
                let sound = |(&key, bytes): (&u64, &Vec<u8>)| *bytes == value(key, ITEM);
                assert!(items.iter().all(sound), "an item is not what was stored");
                return items.len().to_string();
            }
            order => panic!("{order}?"),
        }
        "done".into()
    }

    #[expect(unsafe_code, reason = "heed marks a change of the map as unsafe")]
    fn resize(&self, bytes: u64) {
        assert!(self.reading.is_none() && self.writing.is_none());
        // SAFETY: this process has no transaction, as was just looked at, and one thread.
        unsafe { self.env.resize(usize::try_from(bytes).unwrap()) }.unwrap();
    }
}

/// The length of an item that keeper processes store.
const ITEM: u64 = 100;
const CHUNK: u64 = 100;

fn put_chunk(keeper: &Keeper, from: u64, to: u64) -> Result<(), TxnError> {
    let items: super::Blobs = keeper
        .blocking_database("items")
        .map_err(|error| match error {
            lockkeeper::DatabaseError::Txn(error) => error,
            error => panic!("{error}"),
        })?;
    keeper.blocking_run(RunTxn::update(move |txn| {
        for key in from..to {
            items.put(txn, &key, &value(key, ITEM))?;
        }
        Ok(())
    }))
}

/// Stores items, 100 in a transaction; answers "stored", or the error.
fn put(keeper: &Keeper, from: u64, to: u64) -> String {
    let mut next = from;
    while next < to {
        let end = to.min(next + CHUNK);
        if let Err(error) = put_chunk(keeper, next, end) {
            return format!("at {next}: {error}");
        }
        next = end;
    }
    "stored".into()
}

/// Stores items until this process has made the map larger itself, and some that need it; answers the first item that is
/// not stored.
fn put_until_grown(keeper: &Keeper, from: u64) -> u64 {
    let mut next = from;
    let mut put = || {
        assert!(
            next < from + 50 * CHUNK,
            "{} KiB",
            stats(keeper).map_size / KIB
        );
        put_chunk(keeper, next, next + CHUNK).unwrap();
        next += CHUNK;
    };
    while stats(keeper).map_resizes == 0 {
        put();
    }
    put();
    next
}
