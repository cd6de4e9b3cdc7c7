//! A hundred starts and stops in each way of stopping, under load, leave no thread, no descriptor and no reader slot.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use actix::System;
use lockkeeper::{
    Job, Keeper, LeaseGuard, LockerSpec, Mode, Object, RunTxn, TxnError, Wait, Worker,
};

use crate::alone::{alone, told};
use crate::begun::{LONG, counts, deaf, until_free};
use crate::rt::{Counters, PATIENCE, aside, block_on, builder, bump, get, until};
use crate::server::Server;

const ROUNDS: usize = 100;
const LEAKS: &str = "leaks::nothing_is_left_of_a_hundred_starts_and_stops_in_each_way";

/// What a process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Has {
    threads: usize,
    descriptors: usize,
    slots: usize,
}

impl Has {
    fn now(folder: &Path) -> Self {
        let count = |what: &str| std::fs::read_dir(what).unwrap().count();
        Self {
            threads: count("/proc/self/task"),
            descriptors: count("/proc/self/fd"),
            slots: own_slots(&folder.join("data/lock.mdb"))
                + own_slots(&folder.join("data/leases.mdb-lock")),
        }
    }
}

/// A transaction that has been asked for.
type Started = std::pin::Pin<Box<dyn Future<Output = Result<(), TxnError>> + Send>>;
/// A way to stop, and its name.
type Way = (&'static str, fn(&Path));

/// The reader slots of this process in LMDB's table: lines of 64 bytes with a transaction, a pid and a thread.
fn own_slots(table: &Path) -> usize {
    let Ok(table) = std::fs::read(table) else {
        return 0;
    };
    let own = std::process::id().to_ne_bytes();
    let slots = table.chunks_exact(64);
    let of_us = |slot: &&[u8]| slot[8..12] == own && slot[16..24] != [0; 8];
    slots.filter(of_us).count()
}

/// Another process that has the environment open, so that the table of readers is not made anew each time.
struct Neighbour(Child);

impl Neighbour {
    fn of(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", LEAKS, "--nocapture", "--test-threads", "1"])
            .env(
                "LOCKKEEPER_TEST_CHILD",
                format!("neighbour:{}", folder.display()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.contains("neighbour is there")));
        Self(child)
    }

    fn be(folder: &str) {
        let keeper = builder(Path::new(folder)).open().unwrap();
        println!("neighbour is there");
        std::io::stdout().flush().unwrap();
        let _ = std::io::stdin().read_line(&mut String::new());
        keeper.blocking_shutdown(LONG).unwrap();
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// What goes on while a keeper stops.
struct Load {
    threads: Vec<JoinHandle<()>>,
    /// Kept until the keeper has stopped.
    lease: LeaseGuard,
    snapshot: lockkeeper::Snapshot,
}

fn until_refused(mut run: impl FnMut() -> Result<(), TxnError> + Send + 'static) -> JoinHandle<()> {
    aside(move || {
        loop {
            match run() {
                Ok(()) | Err(TxnError::MaybeCommitted { .. }) => {}
                Err(TxnError::ShuttingDown) => return,
                Err(error) => panic!("{error:?}"),
            }
        }
    })
}

impl Load {
    /// Its threads have futures of the keeper, and no handle: some ways of stopping are to drop the last one.
    fn on(keeper: &Keeper, counters: Counters, with_handles: bool) -> Self {
        let lease = block_on(keeper.lease("job").acquire()).unwrap();
        let snapshot = block_on(keeper.hold_snapshot("held", LONG)).unwrap();
        let pool = keeper.pool("tasks").workers(2);
        let pool = pool.start(move |worker: Worker| async move {
            while !worker.is_stopping() {
                worker.keeper().run(bump(counters, "n")).await?;
            }
            Ok(())
        });
        drop(pool.unwrap());
        let pool = keeper.pool("threads").start_blocking(|worker: Worker| {
            block_on(worker.stopped());
            Ok(())
        });
        drop(pool.unwrap());
        let pool = keeper.pool("leased").under_lease("pool");
        let pool = pool.start(|worker: Worker| async move {
            worker.stopped().await;
            Ok(())
        });
        drop(pool.unwrap());
        let pool = keeper.pool("parts").workers(2).partitioned("parts");
        let pool = pool.start(|worker: Worker| async move {
            worker.stopped().await;
            Ok(())
        });
        drop(pool.unwrap());
        // A thread that nobody waited for any longer ends while the keeper stops, or before.
        let (pool, mut latch) = deaf(keeper);
        drop(pool.stop(Duration::ZERO));
        until(|| pool.stats().abandoned == 1);
        let mut threads = vec![aside(move || latch.open())];
        let jobs = keeper.pool("jobs").workers(2);
        let jobs = jobs.serve(|job: Job<u64>| async move { Ok::<u64, String>(*job) });
        let job = jobs.unwrap().submit(7);
        threads.push(aside(move || drop(block_on(job))));
        let locks = keeper.locks().clone();
        threads.push(aside(move || {
            let object = Object::new("boats", b"1");
            while let Ok(locker) = locks.locker(LockerSpec::new()) {
                let _ = locker.blocking_lock(&object, Mode::Write, Wait::Default);
            }
        }));
        // One of each is under way in any case.
        let once: [Started; 3] = {
            let run = keeper.run(bump(counters, "n"));
            let send = keeper.send(bump(counters, "n"));
            let view = keeper.run(RunTxn::view(|_| Ok(())));
            [
                Box::pin(async { run.await.map(drop) }),
                Box::pin(async { send.await.map(drop) }),
                Box::pin(view),
            ]
        };
        for once in once {
            let mut once = Some(once);
            threads.push(until_refused(move || match once.take() {
                Some(once) => block_on(once),
                None => Err(TxnError::ShuttingDown),
            }));
        }
        if with_handles {
            let records = counts(keeper);
            let at = keeper.clone();
            threads.push(until_refused(move || {
                at.blocking_run(bump(counters, "n")).map(drop)
            }));
            let at = keeper.clone();
            threads.push(until_refused(move || {
                at.blocking_send(bump(counters, "n")).map(drop)
            }));
            let at = keeper.clone();
            threads.push(until_refused(move || {
                at.blocking_view(move |txn| Ok(counters.get(txn, "n")?))
                    .map(drop)
            }));
            let at = keeper.clone();
            threads.push(until_refused(move || {
                block_on(async {
                    at.transaction("interactive", |txn| async move {
                        txn.get(records, "m").await?;
                        Ok(txn.put(records, "m", &1_u64).await?)
                    })
                    .await
                })
            }));
        }
        Self {
            threads,
            lease,
            snapshot,
        }
    }

    fn end(self) {
        for thread in self.threads {
            thread.join().unwrap();
        }
        drop((self.lease, self.snapshot));
    }
}

fn start(folder: &Path) -> (Keeper, Counters) {
    let keeper = builder(&folder.join("data"))
        .reader_threads(1)
        .open()
        .unwrap();
    let counters = crate::rt::counters(&keeper);
    (keeper, counters)
}

/// In time and by a thread that blocks, and in a hurry and by a task, in turn.
fn by_shutdown(folder: &Path) {
    static TURN: AtomicUsize = AtomicUsize::new(0);
    let (keeper, counters) = start(folder);
    let load = Load::on(&keeper, counters, true);
    if TURN.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
        keeper.blocking_shutdown(LONG).unwrap();
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let hurried = runtime.block_on(keeper.shutdown(Duration::ZERO));
        // On a busy machine some may run on still.
        if hurried.is_err() {
            keeper.blocking_shutdown(LONG).unwrap();
        }
    }
    load.end();
}

fn dropped(folder: &Path) {
    let (keeper, counters) = start(folder);
    let load = Load::on(&keeper, counters, false);
    drop(keeper);
    load.end();
}

fn system_gone(folder: &Path) {
    let runner = System::new();
    let (keeper, load) = runner.block_on(async {
        let data = folder.join("data");
        let keeper = builder(&data).in_current_system().open().unwrap();
        let counters = keeper.database("counters").await.unwrap();
        let load = Load::on(&keeper, counters, true);
        System::current().stop();
        (keeper, load)
    });
    runner.run().unwrap();
    until(|| keeper.blocking_view(|_| Ok(())).is_err());
    drop(keeper);
    load.end();
}

fn web_server_first(folder: &Path) {
    let (keeper, counters) = start(folder);
    let load = Load::on(&keeper, counters, true);
    let state = actix_web::web::Data::new((keeper.clone(), counters));
    let server = Server::start(1, move |config| {
        type State = actix_web::web::Data<(Keeper, Counters)>;
        let count = |state: State| async move {
            let counted = state.0.send(bump(state.1, "web")).await?;
            Ok::<_, TxnError>(counted.to_string())
        };
        config
            .app_data(state.clone())
            .route("/", actix_web::web::get().to(count));
    });
    assert_eq!(get(server.address, "/").status, 200);
    server.stop();
    keeper.blocking_shutdown(LONG).unwrap();
    load.end();
}

#[test]
#[cfg(target_os = "linux")]
fn nothing_is_left_of_a_hundred_starts_and_stops_in_each_way() {
    if let Some(folder) = told()
        .as_deref()
        .and_then(|told| told.strip_prefix("neighbour:"))
    {
        return Neighbour::be(folder);
    }
    if !alone(LEAKS) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    start(folder).0.blocking_shutdown(LONG).unwrap();
    let _neighbour = Neighbour::of(&folder.join("data"));
    let ways: [Way; 4] = [
        ("shutdown", by_shutdown),
        ("dropped", dropped),
        ("system gone", system_gone),
        ("web server first", web_server_first),
    ];
    // What the process makes once and keeps.
    for (_, way) in ways.iter().chain(&ways) {
        way(folder);
        until_free(&folder.join("data"));
    }
    // Threads that were not joined may have their last step to take.
    thread::sleep(Duration::from_millis(100));
    let before = Has::now(folder);
    assert_eq!(before.slots, 0, "{before:?}");
    for (name, way) in ways {
        let begun = Instant::now();
        for round in 0..ROUNDS {
            way(folder);
            let asked = Instant::now();
            while Has::now(folder) != before {
                let now = Has::now(folder);
                assert!(
                    asked.elapsed() < PATIENCE,
                    "{name}, {round}: {before:?} has become {now:?}"
                );
                thread::sleep(Duration::from_micros(200));
            }
        }
        println!("{name}: {ROUNDS} in {:?}", begun.elapsed());
    }
}
