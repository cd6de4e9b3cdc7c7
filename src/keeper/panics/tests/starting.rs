//! While starting and while stopping.

use super::*;
use crate::error::{OpenError, ShutdownError};

const ACTORS: [Part; 5] = [
    Part::Environment,
    Part::Supervisor,
    Part::LockTable,
    Part::Leases,
    Part::WorkerPool,
];

fn fails_to_open(folder: &TempDir, part: Part, in_current_system: bool) {
    let mut builder = Keeper::builder().path(folder.path());
    if in_current_system {
        builder = builder.in_current_system();
    }
    builder.bombs.push((part, "starting"));
    match builder.open() {
        Err(OpenError::ActorPanicked(panicked)) => {
            assert_eq!(panicked.part, part);
            assert_eq!(&*panicked.message, "a bomb in starting");
        }
        other => panic!("{part}: {other:?}"),
    }
}

#[test]
fn a_panic_while_an_actor_starts_is_answered_and_the_folder_is_free_again() {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ACTORS {
        fails_to_open(&folder, part, false);
        let keeper = Keeper::open(folder.path()).expect("it can be opened at once");
        run(keeper.shutdown(LONG)).expect("stopped");
    }
}

#[test]
fn a_panic_while_an_actor_starts_in_the_applications_system_is_answered_too() {
    let folder = tempfile::tempdir().expect("a folder");
    actix::System::new().block_on(async {
        for part in ACTORS {
            fails_to_open(&folder, part, true);
        }
    });
    Keeper::open(folder.path()).expect("it can be opened at once");
}

#[test]
fn a_panic_while_an_actor_stops_neither_ends_the_process_nor_keeps_the_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    for part in ACTORS {
        let keeper = Keeper::open(folder.path()).expect("a keeper");
        keeper.bombs(part).set("stopping");
        run(keeper.shutdown(LONG)).expect("stopped in order");
        let is_spent = || keeper.bombs(part).are_spent();
        until("the actor has stopped", is_spent);
        run(Keeper::open(folder.path())
            .expect("it can be opened at once")
            .shutdown(LONG))
        .expect("stopped");
    }
}

#[test]
fn a_panic_while_an_actor_stops_with_the_applications_system_keeps_the_folder_from_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let system = actix::System::new();
    let keeper = system.block_on(async {
        Keeper::builder()
            .path(folder.path())
            .in_current_system()
            .open()
            .expect("a keeper")
    });
    for part in ACTORS {
        keeper.bombs(part).set("stopping");
    }
    actix::System::current().stop();
    system.run().expect("it ends");
    until("the environment is closed", || {
        keeper.inner.runtime.env.has_ended()
    });
    drop(keeper);
    until("the folder is free", || Keeper::open(folder.path()).is_ok());
}

#[test]
fn a_stop_that_the_system_has_no_thread_for_hurries_none_that_is_asked_for_later() {
    let (_folder, keeper) = keeper();
    let (told, was_told) = std::sync::mpsc::channel();
    let (let_go, may_end) = tokio::sync::watch::channel(false);
    let pool = keeper.pool("patient").start(move |worker| {
        let (told, mut may_end) = (told.clone(), may_end.clone());
        async move {
            worker.stopped().await;
            let _ = told.send(());
            may_end.wait_for(|may| *may).await?;
            Ok(())
        }
    });
    let pool = pool.expect("a pool");
    until("it runs", || pool.stats().workers.running == 1);
    keeper.bombs(Part::Supervisor).set("the thread of the stop");
    let refused = run(keeper.shutdown(Duration::ZERO)).expect_err("no thread");
    assert!(matches!(refused, ShutdownError::Thread(_)), "{refused}");
    // Nothing was begun.
    put(&keeper, numbers(&keeper), "still").expect("it is served");
    assert_eq!(pool.stats().workers.running, 1);
    run(async {
        let stops = tokio::spawn(keeper.shutdown(LONG));
        tokio::task::spawn_blocking(move || was_told.recv_timeout(LONG))
            .await
            .expect("no panic")
            .expect("it is told");
        let_go.send_replace(true);
        stops.await.expect("no panic").expect("stopped");
    });
    // It was given its time.
    assert_eq!(pool.stats().abandoned, 0);
}
