//! The last handle of a keeper is dropped where the keeper's own end has to wait for whoever drops it, and during a stop.

use std::sync::mpsc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, System};
use lockkeeper::{Job, Keeper, Outcome, RunTxn, TxnError, Worker};
use parking_lot::Mutex;

use crate::begun::{LONG, Later, counts, until_free};
use crate::rt::{
    Counters, PATIENCE, aside, begin, block_on, builder, bump, hold_writer, latch, open, read,
    until, until_closed,
};

/// What was counted before the end is there.
#[track_caller]
fn has_counted(folder: &std::path::Path, expected: u64) {
    until_free(folder);
    let (again, counters) = open(folder);
    assert_eq!(read(&again, counters, "n"), Some(expected));
    again.blocking_shutdown(LONG).unwrap();
}

/// Drops it, is told to stop, and is served until it has ended.
async fn drops(last: &Later, worker: &Worker, counters: Counters) -> Result<(), TxnError> {
    while last.get().is_none() {
        std::thread::sleep(Duration::from_micros(200));
    }
    drop(last.take());
    worker.stopped().await;
    worker.keeper().run(bump(counters, "n")).await.map(drop)
}

#[test]
fn in_a_worker_of_either_kind_which_is_served_until_it_has_ended() {
    for blocking in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (keeper, counters) = open(folder.path());
        let (last, (ended, has_ended)) = (Later::default(), mpsc::channel());
        let (drops_it, builder) = (last.clone(), keeper.pool("drops"));
        let pool = match blocking {
            false => builder.start(move |worker: Worker| {
                let (last, ended) = (drops_it.clone(), ended.clone());
                async move {
                    ended.send(drops(&last, &worker, counters).await)?;
                    Ok(())
                }
            }),
            true => builder.start_blocking(move |worker: Worker| {
                Ok(ended.send(block_on(drops(&drops_it, &worker, counters)))?)
            }),
        };
        last.is(keeper);
        has_ended.recv_timeout(PATIENCE).unwrap().unwrap();
        let pool = pool.unwrap();
        until(|| pool.state().is_over());
        assert_eq!(pool.stats().failures, 0);
        has_counted(folder.path(), 1);
    }
}

#[test]
fn with_jobs_queued_which_are_done_also_by_a_worker_that_had_to_start_again() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let (mut latch, latched) = latch();
    let latched = Mutex::new(latched);
    let jobs = keeper.pool("jobs").quarantine_after(1);
    let jobs = jobs.serve_blocking(move |job: Job<u8>| match *job {
        0 => {
            latched.lock().pass();
            panic!("it burns")
        }
        n => Ok::<u8, ()>(n),
    });
    let jobs = jobs.unwrap();
    let mut answers: Vec<_> = (0..5).map(|n| Box::pin(jobs.submit(n))).collect();
    for answer in &mut answers {
        begin(answer);
    }
    latch.entered();
    until(|| jobs.job_stats().queued == 4);
    drop(keeper);
    until(|| jobs.state() == lockkeeper::PoolState::Draining);
    // With the worker goes the last that has anything of the keeper.
    latch.open();
    for (n, answer) in answers.into_iter().enumerate().skip(1) {
        let answer = block_on(answer);
        assert!(
            matches!(answer, Ok(of) if usize::from(of) == n),
            "{n}: {answer:?}"
        );
    }
    until(|| jobs.state().is_over());
    assert!(jobs.stats().restarts >= 1);
    until_free(folder.path());
}

#[test]
fn in_a_body_which_is_finished_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    // On the writer's thread.
    let (keeper, counters) = open(folder.path());
    let mut last = Some(keeper.clone());
    let update = keeper.run(RunTxn::update(move |txn| {
        drop(last.take());
        Ok(counters.put(txn, "n", &1)?)
    }));
    drop(keeper);
    block_on(update).unwrap();
    has_counted(folder.path(), 1);

    // On a reader's thread, and on this one.
    for in_place in [false, true] {
        let (keeper, counters) = open(folder.path());
        let mut last = Some(keeper.clone());
        let view = move |txn: &lockkeeper::ReadTxn<'_>| {
            drop(last.take());
            Ok(counters.get(txn, "n")?)
        };
        let seen = match in_place {
            false => {
                let view = keeper.run(RunTxn::view(view));
                drop(keeper);
                block_on(view)
            }
            true => {
                let view = keeper.view(view);
                drop(keeper);
                block_on(view)
            }
        };
        assert_eq!(seen.unwrap(), Some(1));
        until_free(folder.path());
    }

    // In the closure of an interactive transaction.
    let (keeper, _) = open(folder.path());
    let (records, mut last) = (counts(&keeper), Some(keeper.clone()));
    let interactive: RunTxn<()> = RunTxn::interactive(move |txn| {
        let last = last.take();
        async move {
            drop(last);
            let n: u64 = txn.get_as(records, "n").await?.unwrap_or(0);
            Ok(txn.put(records, "n", &(n + 1)).await?)
        }
    });
    let run = keeper.run(interactive);
    drop(keeper);
    block_on(run).unwrap();
    has_counted(folder.path(), 2);
}

#[test]
fn in_a_handler_on_a_thread_of_the_keepers_own() {
    let folder = tempfile::tempdir().unwrap();
    let last = Later::default();
    let drops = last.clone();
    let keeper = builder(folder.path())
        .handler(move |_: &mut _, outcome: Outcome| {
            drop(drops.take());
            outcome
        })
        .open()
        .unwrap();
    let counters = crate::rt::counters(&keeper);
    let sent = keeper.send(bump(counters, "n"));
    last.is(keeper);
    assert_eq!(block_on(sent).unwrap(), 1);
    assert!(last.get().is_none());
    has_counted(folder.path(), 1);
}

/// An actor of the application's.
struct Application(Option<Keeper>);

impl Actor for Application {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "bool")]
struct LetGo;

impl Handler<LetGo> for Application {
    type Result = bool;

    fn handle(&mut self, _: LetGo, _: &mut Self::Context) -> bool {
        self.0.take().is_some()
    }
}

#[test]
fn in_an_actor_of_the_applications_system_which_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    System::new().block_on(async move {
        for (in_system, with_the_actor) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let builder = builder(&path);
            let keeper = match in_system {
                true => builder.in_current_system().open().unwrap(),
                false => builder.open().unwrap(),
            };
            let counters = keeper.database("counters").await.unwrap();
            keeper.send(bump(counters, "n")).await.unwrap();
            let actor = Application(Some(keeper)).start();
            match with_the_actor {
                // It stops when its last address is dropped.
                true => drop(actor),
                false => {
                    assert!(actor.send(LetGo).await.unwrap());
                    assert!(!actor.send(LetGo).await.unwrap(), "it goes on");
                }
            }
            let free = path.clone();
            tokio::task::spawn_blocking(move || until_free(&free))
                .await
                .unwrap();
        }
    });
    has_counted(folder.path(), 4);
}

#[test]
fn during_a_stop_which_goes_on_as_it_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for polled in [true, false] {
        // Whoever drops the last handle leaves nobody any time.
        let keeper = builder(folder.path()).shutdown_deadline(Duration::ZERO);
        let keeper = keeper.open().unwrap();
        let records = counts(&keeper);
        let begun = block_on(async { keeper.begin().await }).unwrap();
        block_on(begun.put(records, "n", &1)).unwrap();
        let held = hold_writer(&keeper);
        let mut stops = Box::pin(keeper.shutdown(LONG));
        if polled {
            begin(&mut stops);
            until_closed(&keeper);
        }
        let commits = aside(move || block_on(begun.commit()));
        drop(keeper);
        // It would have been aborted long since.
        std::thread::sleep(Duration::from_millis(50));
        assert!(!commits.is_finished(), "asked for already: {polled}");
        let stops = aside(move || block_on(stops));
        held.release().unwrap();
        commits.join().unwrap().unwrap();
        stops.join().unwrap().unwrap();
        has_counted(folder.path(), 1);
    }
}
