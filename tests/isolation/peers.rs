//! What another process writes between a read and the commit.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Str, U64};
use lockkeeper::heed::{self, CommitOrAbort, Database, Env, EnvOpenOptions};
use lockkeeper::{Isolation, TxnError};
use parking_lot::Mutex;

use super::matrix::MATRIX;
use super::script::SCANNED;
use super::{Shop, is_lost};

const FOLDER: &str = "LOCKKEEPER_TEST_ISOLATION_FOLDER";
const ANSWER: &str = "answer: ";

/// Another process, with plain heed, on a folder. It is killed when dropped.
struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "peers::another_process",
                "--exact",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            orders,
            answers,
        }
    }

    /// Stores a value; answered when it is committed, with the id of the transaction.
    fn write(&mut self, key: &str, value: u64) -> u64 {
        writeln!(self.orders, "{key} {value}").unwrap();
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.answers.read_line(&mut line).unwrap();
            assert!(read > 0, "the other process has ended");
            // The harness talks, too, and does not end its line before a test.
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.trim_end().parse().unwrap();
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a [`Peer`] runs; in the test run itself it does nothing.
#[test]
fn another_process() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else {
        return;
    };
    let (env, stock) = open(&folder);
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let (key, value) = order.split_once(' ').unwrap();
        let mut txn = env.write_txn().unwrap();
        stock.put(&mut txn, key, &value.parse().unwrap()).unwrap();
        txn.commit().unwrap();
        let id = env.info().last_txn_id;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{ANSWER}{id}").unwrap();
        out.flush().unwrap();
    }
    // Whatever it holds goes with the process.
    std::process::exit(0);
}

#[expect(unsafe_code, reason = "heed marks opening as unsafe")]
fn open(folder: &Path) -> (&'static Env, Database<'static, Str, U64<BigEndian>>) {
    let mut options = EnvOpenOptions::new();
    let options = options.map_size(1 << 24).max_dbs(32);
    // SAFETY: the folder is the test's own, and on a local disk.
    let env = unsafe { options.open(folder) }.unwrap();
    let env: &'static Env = Box::leak(Box::new(env));
    let txn = env.write_txn().unwrap();
    let stock = env
        .create_databases_and_commit(txn, |opener, txn| {
            let mut options = opener.database_options().types();
            let stock = options.name("stock").create(txn)?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(stock))
        })
        .unwrap()
        .commit()
        .unwrap();
    (env, stock)
}

#[tokio::test]
async fn what_another_process_writes_between_read_and_commit_is_a_conflict() {
    let shop = Shop::open();
    let stock = shop.stock;
    let mut peer = Peer::start(shop.path());
    for (round, (isolation, _)) in (0..).zip(MATRIX) {
        shop.write("x", 100 * round).await;
        let txn = shop.begin(isolation).await;
        txn.get_for_update(stock, "x").await.unwrap();
        peer.write("x", 100 * round + 1);
        txn.put(stock, "x", &0).await.unwrap();
        assert!(is_lost(&txn.commit().await), "{isolation}");
        assert_eq!(shop.value("x").await, Some(100 * round + 1), "{isolation}");

        // A new record in a range.
        let txn = shop.begin(isolation).await;
        let count = txn.count(stock, &SCANNED).await.unwrap();
        assert_eq!(count, round);
        peer.write(&format!("k{round}"), 0);
        txn.put(stock, "z", &count).await.unwrap();
        let ranges = [Isolation::Serializable, Isolation::Optimistic];
        let lost = is_lost(&txn.commit().await);
        assert_eq!(lost, ranges.contains(&isolation), "{isolation}");

        // What was not read may change.
        let txn = shop.begin(isolation).await;
        txn.get(stock, "x").await.unwrap();
        peer.write("other", round);
        txn.put(stock, "z", &round).await.unwrap();
        txn.commit().await.unwrap();
    }
}

#[tokio::test]
async fn an_empty_commit_of_ours_does_not_hide_the_other_process_that_takes_its_id() {
    let shop = Shop::open();
    let stock = shop.stock;
    let mut peer = Peer::start(shop.path());
    peer.write("x", 0);
    for (round, (isolation, _)) in (1..).zip(MATRIX) {
        let settle = shop.begin(isolation).await;
        settle.put(stock, "z", &0).await.unwrap();
        settle.commit().await.unwrap();
        let ours = shop.keeper.stats().await.environment.last_txn_id;

        let txn = shop.begin(isolation).await;
        let read = txn.get_for_update_as(stock, "x").await.unwrap();
        assert_eq!(read, Some(round - 1));
        // A body without a write: its commit answers Ok, under the next id, and LMDB leaves it out …
        shop.keeper.update(|_| Ok(())).await.unwrap();
        let after = shop.keeper.stats().await.environment.last_txn_id;
        assert_eq!(after, ours);
        // … so that the other process takes the same one.
        assert_eq!(peer.write("x", round), ours + 1);
        txn.put(stock, "z", &1).await.unwrap();
        assert!(is_lost(&txn.commit().await), "{isolation}");
        assert_eq!(shop.value("z").await, Some(0), "{isolation}");
    }
}

#[tokio::test]
async fn a_closure_is_run_again_until_no_process_is_in_between() {
    let shop = Shop::open();
    let stock = shop.stock;
    for isolation in [
        Isolation::Serializable,
        Isolation::RepeatableRead,
        Isolation::Snapshot,
        Isolation::Optimistic,
    ] {
        shop.write("x", 0).await;
        let peer = Mutex::new(Peer::start(shop.path()));
        let peer = &peer;
        let run = shop.keeper.transaction("add", |txn| async move {
            let x: u64 = txn.get_as(stock, "x").await?.unwrap();
            if txn.attempt() <= 2 {
                peer.lock().write("x", x + 10);
            }
            txn.put(stock, "x", &(x + 1)).await?;
            Ok::<_, TxnError>(txn.attempt())
        });
        assert_eq!(run.isolation(isolation).await.unwrap(), 3, "{isolation}");
        assert_eq!(shop.value("x").await, Some(21), "{isolation}");
    }
}
