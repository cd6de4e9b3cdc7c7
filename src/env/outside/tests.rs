use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use heed::types::Bytes;
use heed::{DatabaseFlags, DefaultComparator};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::clock::block_on;
use crate::config::Settings;
use crate::env::core::Core;
use crate::env::job::{Ask, Held, Holding, Reply, Typed, UpdateBody};
use crate::env::records::Records;
use crate::env::registry::OpenSpec;
use crate::error::{DatabaseError, StorageError, TxnError};

/// Nothing takes so long unless it is broken.
pub(in crate::env) const LONG: Duration = Duration::from_secs(60);
const INTERACTIVE: Kind = Kind::Interactive {
    first: false,
    announced: true,
};
const FIRST: Kind = Kind::Interactive {
    first: true,
    announced: true,
};

pub(in crate::env) type Answer<T> = oneshot::Receiver<Result<T, TxnError>>;

/// An environment with a database, used as the runtime of transactions uses it.
pub(in crate::env) struct World {
    pub core: Arc<Core>,
    pub table: RawTable,
    folder: TempDir,
}

impl World {
    pub fn new() -> Self {
        Self::with(&Settings::default())
    }

    pub fn with(settings: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // What is queued together is one batch, however slow the machine is.
        let settings = settings.clone().batch_time(LONG);
        let config = settings.resolve(folder.path()).unwrap();
        let core = Core::open(folder.path(), config, Vec::new()).unwrap();
        let spec = named("t");
        let db = core.database::<Bytes, Bytes, DefaultComparator>(spec);
        let db = Records::new(&core.shared, block_on(db).unwrap()).unwrap();
        let table = db.raw(&core.shared).unwrap();
        Self {
            core,
            table,
            folder,
        }
    }

    /// Queues a body.
    pub fn send<T: Send + 'static>(
        &self,
        kind: Kind,
        body: impl FnMut(&mut WriteTxn<'_>) -> Result<T, TxnError> + Send + 'static,
    ) -> Answer<T> {
        self.send_with(kind, None, body)
    }

    fn send_with<T: Send + 'static>(
        &self,
        kind: Kind,
        locks: Option<Held>,
        body: impl FnMut(&mut WriteTxn<'_>) -> Result<T, TxnError> + Send + 'static,
    ) -> Answer<T> {
        let site = std::panic::Location::caller();
        let mut ask = Ask::new(None, site, Instant::now() + LONG, LONG);
        ask.kind = kind;
        ask.locks = locks;
        let (reply, answer) = oneshot::channel();
        let body: UpdateBody<T, Infallible> = Box::new(body);
        let sent = self
            .core
            .submit(ask, Typed::new(body, Reply::Direct(reply)));
        assert!(sent.is_ok());
        answer
    }

    /// A body that writes.
    pub fn writing(&self, kind: Kind) -> Answer<Option<u64>> {
        let table = self.table.clone();
        self.send(kind, move |txn| {
            table.put(txn, b"key", b"value")?;
            Ok(txn.outside())
        })
    }

    fn write(&self, kind: Kind) -> Option<u64> {
        answer(self.writing(kind))
    }

    /// Keeps the writer until the sender is dropped; what is sent meanwhile makes one batch.
    pub fn hold_writer(&self, kind: Kind) -> mpsc::Sender<()> {
        let (entered, is_inside) = mpsc::channel();
        let (leave, may_leave) = mpsc::channel::<()>();
        drop(self.send(kind, move |_| {
            let _ = entered.send(());
            let _ = may_leave.recv();
            Ok(())
        }));
        is_inside.recv_timeout(LONG).unwrap();
        leave
    }

    fn mark(&self) -> u64 {
        self.core.shared.outside()
    }

    fn last_id(&self) -> u64 {
        let env = self.core.shared.env.load_full().unwrap();
        env.info().last_txn_id as u64
    }

    fn poison(&self) {
        let error = heed::Error::Io(std::io::Error::from_raw_os_error(5));
        self.core.shared.report_fatal(
            StorageError::new("testing", error),
            self.core.shared.generation.load(Ordering::Acquire),
        );
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.core.stop(|| ());
    }
}

fn named(name: &str) -> OpenSpec {
    OpenSpec::new::<Bytes, Bytes, DefaultComparator>(Some(name), DatabaseFlags::empty(), true)
}

pub(in crate::env) fn answer<T>(answer: Answer<T>) -> T {
    block_on(answer).unwrap().unwrap()
}

/// Another process with plain heed on the same folder: it commits once for each line it gets.
struct Foreign(Child);

const FOLDER: &str = "LOCKKEEPER_TEST_FOREIGN_FOLDER";

impl Foreign {
    fn on(folder: &Path) -> Self {
        let child = Process::new(std::env::current_exe().unwrap())
            .args([
                "env::outside::tests::a_foreign_process",
                "--exact",
                "--nocapture",
            ])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Has it commit, once, and end.
    fn commit(mut self) {
        let mut orders = self.0.stdin.take().unwrap();
        writeln!(orders, "commit").unwrap();
        drop(orders);
        let mut said = String::new();
        let out = self.0.stdout.take().unwrap();
        BufReader::new(out).read_to_string(&mut said).unwrap();
        assert!(said.contains("committed"), "{said}");
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What [`Foreign`] runs; in the test run itself it does nothing.
#[test]
fn a_foreign_process() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let plan = crate::env::raw::OpenPlan {
        map_size: 1 << 30,
        max_readers: 126,
        max_databases: 8,
        no_sync: false,
        no_lock: false,
    };
    let env = crate::env::raw::open(Path::new(&folder), &plan).unwrap();
    let registry = crate::env::Registry::new();
    for _ in std::io::stdin().lock().lines() {
        // A new name is one commit.
        assert!(registry.open(&env, &named("foreign")).unwrap());
        println!("committed");
    }
}

#[test]
fn interactive_commits_in_a_row_are_not_outside_for_each_other() {
    let world = World::new();
    world.write(INTERACTIVE);
    let mark = world.mark();
    for _ in 0..3 {
        assert_eq!(world.write(INTERACTIVE), Some(mark));
        assert_eq!(world.core.shared.last_ours(), world.last_id());
        assert!(world.core.shared.is_undisturbed(mark, world.last_id()));
    }
}

#[test]
fn a_plain_update_is_an_outside_write() {
    let world = World::new();
    world.write(INTERACTIVE);
    let mark = world.mark();
    world.write(Kind::Plain);
    assert!(world.mark() > mark);
    assert!(!world.core.shared.is_undisturbed(mark, world.last_id()));
    assert!(world.write(INTERACTIVE) > Some(mark));
    // And only once.
    let mark = world.mark();
    assert_eq!(world.write(INTERACTIVE), Some(mark));
}

#[test]
fn an_interactive_commit_that_no_lock_announced_is_an_outside_write() {
    const OPTIMISTIC: Kind = Kind::Interactive {
        first: false,
        announced: false,
    };
    let world = World::new();
    world.write(INTERACTIVE);
    let mark = world.mark();
    world.write(OPTIMISTIC);
    assert!(world.mark() > mark);
    assert!(!world.core.shared.is_undisturbed(mark, world.last_id()));
    // The commit was ours all the same: it counts once.
    let mark = world.mark();
    assert_eq!(world.write(INTERACTIVE), Some(mark));

    // And for those behind it in its batch.
    let hold = world.hold_writer(Kind::Plain);
    let before = world.writing(INTERACTIVE);
    let optimistic = world.writing(OPTIMISTIC);
    let behind = world.writing(INTERACTIVE);
    drop(hold);
    assert_eq!(answer(before), Some(mark));
    answer(optimistic);
    assert_eq!(answer(behind), None);
}

#[test]
fn a_plain_body_that_writes_nothing_is_not_outside() {
    let world = World::new();
    world.write(INTERACTIVE);
    let mark = world.mark();
    let table = world.table.clone();
    let hold = world.hold_writer(Kind::Plain);
    let reads = world.send(Kind::Plain, move |txn| {
        Ok(table.get(txn, b"key")?.map(<[u8]>::to_vec))
    });
    let writes = world.writing(INTERACTIVE);
    drop(hold);
    assert_eq!(answer(reads).unwrap(), b"value");
    assert_eq!(answer(writes), Some(mark));
    assert_eq!(world.mark(), mark);
}

#[test]
fn an_empty_commit_of_ours_and_then_a_foreign_one_is_an_outside_write() {
    let world = World::new();
    world.write(INTERACTIVE);
    let mark = world.mark();
    let ours = world.last_id();
    let foreign = Foreign::on(world.folder.path());
    // LMDB announces the next id to this transaction, and skips its commit.
    let id = answer(world.send(Kind::Plain, |txn| Ok(txn.snapshot_id())));
    assert_eq!((id as u64, world.last_id()), (ours + 1, ours));
    foreign.commit();
    assert_eq!(world.last_id(), ours + 1);
    // Nobody has begun a transaction since: a reader learns it by the id.
    assert!(!world.core.shared.is_undisturbed(mark, ours + 1));
    assert!(world.core.shared.is_undisturbed(mark, ours));
    assert!(world.write(INTERACTIVE) > Some(mark));
    assert!(!world.core.shared.is_undisturbed(mark, ours + 1));
}

struct Locks;

impl Holding for Locks {
    fn check(&self) -> Result<(), TxnError> {
        Ok(())
    }
}

#[test]
fn a_plain_update_with_declared_locks_counts_for_later_bodies_of_its_batch() {
    let world = World::new();
    world.write(INTERACTIVE);
    let mark = world.mark();
    let hold = world.hold_writer(INTERACTIVE);
    let before = world.writing(INTERACTIVE);
    let table = world.table.clone();
    let locked = world.send_with(Kind::Plain, Some(Box::new(Locks)), move |txn| {
        Ok(table.put(txn, b"other", b"value")?)
    });
    let after = world.writing(INTERACTIVE);
    drop(hold);
    answer(locked);
    assert_eq!(answer(before), Some(mark));
    assert_eq!(answer(after), None);
    assert_eq!(world.mark(), mark + 1);
    assert_eq!(world.write(INTERACTIVE), Some(mark + 1));
}

#[test]
fn a_plain_body_that_is_undone_does_not_count() {
    // Alone first, then where failures are so common that bodies share nested transactions.
    let world = World::new();
    world.write(INTERACTIVE);
    let failing = || {
        let table = world.table.clone();
        world.send(Kind::Plain, move |txn| {
            table.put(txn, b"undone", b"value")?;
            Err::<(), _>(TxnError::ShuttingDown)
        })
    };
    for round in 0..200 {
        let mark = world.mark();
        let hold = world.hold_writer(INTERACTIVE);
        let mut failed = vec![failing()];
        let early = world.writing(INTERACTIVE);
        failed.push(failing());
        let middle = world.writing(INTERACTIVE);
        let plain = world.writing(Kind::Plain);
        failed.push(failing());
        let late = world.writing(INTERACTIVE);
        drop(hold);
        assert!(
            failed
                .into_iter()
                .all(|failed| block_on(failed).unwrap().is_err())
        );
        assert_eq!(answer(early), Some(mark), "{round}");
        assert_eq!(answer(middle), Some(mark), "{round}");
        assert_eq!((answer(plain), answer(late)), (Some(mark), None), "{round}");
        assert_eq!(world.mark(), mark + 1, "{round}");
    }
}

#[test]
fn the_record_does_not_keep_bodies_from_growing_the_map() {
    let settings = Settings::default().map_size(1 << 20).grow_ahead(0);
    let world = World::with(&settings);
    world.write(INTERACTIVE);
    let mark = world.mark();
    let size = world.core.shared.map_size.load(Ordering::Acquire);
    for key in 0..400_u32 {
        let table = world.table.clone();
        let put = world.send(INTERACTIVE, move |txn| {
            table.put(txn, &key.to_be_bytes(), &[7; 10_000])?;
            Ok(txn.outside())
        });
        assert_eq!(answer(put), Some(mark));
    }
    assert!(world.core.shared.map_size.load(Ordering::Acquire) > size);
    assert_eq!(world.core.shared.last_ours(), world.last_id());
}

#[test]
fn no_body_is_refused_for_the_sake_of_the_record() {
    let settings = Settings::default()
        .map_size(1 << 18)
        .growth(crate::config::Growth::Fixed);
    let world = World::with(&settings);
    let put = |kind, key: u32| {
        let table = world.table.clone();
        let sent = world.send(kind, move |txn| {
            Ok(table.put(txn, &key.to_be_bytes(), &[7; 3000])?)
        });
        block_on(sent).unwrap()
    };
    let full = (0..).find(|&key| put(INTERACTIVE, key).is_err()).unwrap();
    assert!(full > 10);
    // The file is as it was before that one: what has no record finds no room either.
    assert!(put(Kind::Plain, full).is_err());
    answer(world.send(INTERACTIVE, |_| Ok(())));
}

#[test]
fn who_goes_first_runs_before_the_plain_bodies_of_its_batch() {
    let world = World::new();
    let (ran, order) = mpsc::channel();
    let hold = world.hold_writer(Kind::Plain);
    let say = |what: &'static str, kind| {
        let ran = ran.clone();
        world.send(kind, move |_| {
            ran.send(what).unwrap();
            Ok(())
        })
    };
    let all = [
        say("interactive", INTERACTIVE),
        say("plain", Kind::Plain),
        say("another", INTERACTIVE),
        say("first", FIRST),
        say("plain again", Kind::Plain),
        say("first again", FIRST),
    ];
    drop(hold);
    all.into_iter().for_each(answer);
    let order: Vec<_> = order.try_iter().collect();
    assert_eq!(
        order,
        [
            "interactive",
            "first",
            "first again",
            "plain",
            "another",
            "plain again"
        ]
    );
}

#[test]
fn a_recovery_counts_as_an_outside_write_and_keeps_the_databases_of_the_keeper() {
    let world = World::new();
    world.write(INTERACTIVE);
    let answers = block_on(world.core.reserved(Reserved::Answers)).unwrap();
    let kept = answers.clone();
    answer(world.send(Kind::Plain, move |txn| Ok(kept.put(txn, b"k", b"answer")?)));
    let mark = world.mark();
    world.poison();
    block_on(async {
        while world.core.recover().await.is_err() || world.core.shared.poison.event().is_some() {
            tokio::task::yield_now().await;
        }
    });
    assert!(world.mark() > mark);
    let found = answer(world.send(INTERACTIVE, move |txn| {
        Ok(answers.get(txn, b"k")?.map(<[u8]>::to_vec))
    }));
    assert_eq!(found.unwrap(), b"answer");
    world.write(INTERACTIVE);
    assert_eq!(world.core.shared.last_ours(), world.last_id());
}

#[test]
fn the_databases_of_the_keeper_take_no_places_and_no_names_of_the_application() {
    let world = World::with(&Settings::default().max_databases(2));
    world.write(INTERACTIVE);
    block_on(world.core.reserved(Reserved::Answers)).unwrap();
    let open = |name: &str| {
        let db = world
            .core
            .database::<Bytes, Bytes, DefaultComparator>(named(name));
        block_on(db).map(drop)
    };
    assert!(open("u").is_ok());
    assert!(matches!(
        open("v"),
        Err(DatabaseError::TooMany { max: 2, .. })
    ));
    assert!(open("u").is_ok());
    assert_eq!(world.core.shared.registry.open_count(), 2);
    for name in ["__lockkeeper", "__lockkeeper.answers", "__lockkeeper7"] {
        let reserved = |refused| {
            assert!(matches!(refused, Err(DatabaseError::Reserved { name: of }) if &*of == name));
        };
        reserved(open(name));
        reserved(block_on(world.core.clear(name.into())).map(drop));
        reserved(block_on(world.core.delete(name.into())));
    }
    assert!(block_on(world.core.reserved(Reserved::Answers)).is_ok());
}

#[test]
fn what_the_keeper_keeps_is_there_after_a_restart() {
    let world = World::new();
    let answers = block_on(world.core.reserved(Reserved::Answers)).unwrap();
    answer(world.send(Kind::Plain, move |txn| {
        Ok(answers.put(txn, b"k", b"answer")?)
    }));
    world.core.stop(|| ());
    let config = Settings::default().resolve(world.folder.path()).unwrap();
    let core = Core::open(world.folder.path(), config, Vec::new()).unwrap();
    assert!(core.shared.reserved(Reserved::Answers).is_none());
    let answers = block_on(core.reserved(Reserved::Answers)).unwrap();
    let site = std::panic::Location::caller();
    let found = core.view_now(site, crate::env::gate::Entry::New, |txn| {
        Ok::<_, TxnError>(answers.get(txn, b"k")?.map(<[u8]>::to_vec))
    });
    let Ok(found) = found else {
        panic!("the view did not run")
    };
    assert_eq!(found.unwrap().unwrap(), b"answer");
    core.stop(|| ());
}
