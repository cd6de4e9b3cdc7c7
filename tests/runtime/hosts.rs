//! Where a keeper works: in every runtime, in none, in the application's system, under web servers that come and go.

use std::thread;
use std::time::Duration;

use actix::System;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use lockkeeper::{
    EnvStatsQuery, Keeper, LockStatsQuery, OpenError, RunTxn, SetMapSize, TxnError, TxnStatsQuery,
};

use crate::rt::{
    Counters, aside, block_on, builder, bump, get, hold_writer, open, read, until, until_closed,
};
use crate::server::Server;

/// Both doors, views of both kinds, a database and the statistics, side by side.
async fn everything(keeper: &Keeper) {
    let counters: Counters = keeper.database("everything").await.unwrap();
    let run = join_all((0..8).map(|_| keeper.run(bump(counters, "n"))));
    let sent = join_all((0..8).map(|_| keeper.send(bump(counters, "n"))));
    let mut all: Vec<u64> = run.await.into_iter().map(Result::unwrap).collect();
    all.extend(sent.await.into_iter().map(Result::unwrap));
    all.sort_unstable();
    assert_eq!(all, (1..=16).collect::<Vec<_>>());
    let view = keeper.view(move |txn| Ok(counters.get(txn, "n")?));
    assert_eq!(view.await.unwrap(), Some(16));
    let long = RunTxn::view(move |txn| Ok(counters.get(txn, "n")?));
    assert_eq!(keeper.send(long).await.unwrap(), Some(16));
    // A deadline needs a timer, whatever the executor has.
    let late = RunTxn::update(|_| Ok(())).deadline(Duration::from_millis(20));
    let locker = keeper
        .locks()
        .locker(lockkeeper::LockerSpec::new())
        .unwrap();
    let object = lockkeeper::Object::new("everything", b"n");
    let lock = locker.lock(&object, lockkeeper::Mode::Write, lockkeeper::Wait::Default);
    lock.await.unwrap();
    let late = keeper.run(late.write_lock(object)).await;
    assert!(
        matches!(late, Err(TxnError::DeadlineExceeded { .. })),
        "{late:?}"
    );
    assert_eq!(keeper.stats().await.transactions.committed, 17);
}

#[test]
fn it_works_in_tokio_with_many_threads_and_no_actix_system() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        everything(&keeper).await;
        let tasks = (0..32).map(|_| tokio::spawn(keeper.send(bump(counters, "spawned"))));
        for task in join_all(tasks).await {
            task.unwrap().unwrap();
        }
        // Opened and shut down inside of the runtime, too.
        let other = tempfile::tempdir().unwrap();
        let inner = Keeper::open(other.path()).unwrap();
        everything(&inner).await;
        inner.shutdown(Duration::from_secs(5)).await.unwrap();
    });
    assert_eq!(read(&keeper, counters, "spawned"), Some(32));
}

#[test]
fn it_works_in_tokio_with_one_thread() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let keeper = Keeper::open(folder.path()).unwrap();
        everything(&keeper).await;
        keeper.shutdown(Duration::from_secs(5)).await.unwrap();
    });
}

#[test]
fn it_works_on_an_executor_that_is_not_tokio() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::open(folder.path()).unwrap();
    block_on(everything(&keeper));
    block_on(keeper.shutdown(Duration::from_secs(5))).unwrap();
}

#[test]
fn it_works_from_threads_without_any_runtime() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let keeper = keeper.clone();
            aside(move || {
                keeper.blocking_run(bump(counters, "n")).unwrap();
                keeper.blocking_send(bump(counters, "n")).unwrap();
                keeper
                    .blocking_update(move |txn| Ok(counters.put(txn, "seen", &1)?))
                    .unwrap();
                let refused = keeper.blocking_try_update(|_| Err::<(), _>(TxnError::Abort("no")));
                assert!(matches!(refused, Err(TxnError::Abort("no"))));
                keeper
                    .blocking_view(move |txn| Ok(counters.get(txn, "seen")?))
                    .unwrap()
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Some(1));
    }
    assert_eq!(read(&keeper, counters, "n"), Some(16));
    keeper.blocking_shutdown(Duration::from_secs(5)).unwrap();
}

#[test]
fn it_works_inside_the_applications_system_and_ends_with_shutdown_alone() {
    let folder = tempfile::tempdir().unwrap();
    System::new().block_on(async {
        let keeper = builder(folder.path()).in_current_system().open().unwrap();
        everything(&keeper).await;
        keeper.shutdown(Duration::from_secs(5)).await.unwrap();
        let refused = keeper.send(RunTxn::update(|_| Ok(()))).await;
        assert!(matches!(refused, Err(TxnError::ShuttingDown)));
        // The system goes on, and takes another keeper on the same folder.
        let again = builder(folder.path()).in_current_system().open().unwrap();
        let counters: Counters = again.database("everything").await.unwrap();
        let view = again.view(move |txn| Ok(counters.get(txn, "n")?));
        assert_eq!(view.await.unwrap(), Some(16));
        again.shutdown(Duration::from_secs(5)).await.unwrap();
    });
}

#[test]
fn in_the_applications_system_without_one_is_an_error_that_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let refused = builder(folder.path()).in_current_system().open();
    assert!(matches!(refused, Err(OpenError::NoSystem)), "{refused:?}");
    // What had been opened is closed in the background.
    until(|| match builder(folder.path()).open() {
        Ok(_) => true,
        Err(OpenError::AlreadyOpen { .. }) => false,
        Err(error) => panic!("{error}"),
    });
}

#[test]
fn it_ends_in_order_when_the_applications_system_is_stopped_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters, system, thread) = {
        let path = folder.path().to_owned();
        let (opened, has_opened) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runner = System::new();
            runner.block_on(async {
                let keeper = builder(&path).in_current_system().open().unwrap();
                let counters: Counters = keeper.database("counters").await.unwrap();
                opened.send((keeper, counters, System::current())).unwrap();
            });
            runner.run().unwrap();
        });
        let (keeper, counters, system) = has_opened.recv().unwrap();
        (keeper, counters, system, thread)
    };
    // One body runs and one waits behind it when the system goes.
    let held = hold_writer(&keeper);
    let waits = {
        let keeper = keeper.clone();
        aside(move || keeper.blocking_run(bump(counters, "n")))
    };
    until(|| crate::rt::in_flight(&keeper) == 2);
    system.stop();
    thread.join().unwrap();
    until_closed(&keeper);
    let late = keeper.blocking_run(RunTxn::update(|_| Ok(())));
    assert!(matches!(late, Err(TxnError::ShuttingDown)), "{late:?}");
    held.release().unwrap();
    assert_eq!(waits.join().unwrap().unwrap(), 1);
    // A second request to stop waits for the end of the first.
    keeper.blocking_shutdown(Duration::from_secs(5)).unwrap();
    let sent = keeper.blocking_send(RunTxn::update(|_| Ok(())));
    assert!(matches!(sent, Err(TxnError::ShuttingDown)), "{sent:?}");
    let (again, counters) = open(folder.path());
    assert_eq!(read(&again, counters, "n"), Some(1));
}

fn routes(keeper: &Keeper, counters: Counters) -> impl Fn(&mut ServiceConfig) + Clone + use<> {
    async fn by_message(state: Data<(Keeper, Counters)>) -> Result<HttpResponse, TxnError> {
        let (keeper, counters) = &**state;
        let n = keeper.send(bump(*counters, "n")).await?;
        Ok(HttpResponse::Ok().body(n.to_string()))
    }
    async fn by_method(state: Data<(Keeper, Counters)>) -> Result<HttpResponse, TxnError> {
        let (keeper, counters) = &**state;
        let n = keeper.run(bump(*counters, "n")).await?;
        Ok(HttpResponse::Ok().body(n.to_string()))
    }
    let state = Data::new((keeper.clone(), counters));
    move |config| {
        config
            .app_data(state.clone())
            .route("/message", web::get().to(by_message))
            .route("/method", web::get().to(by_method));
    }
}

/// 8 clients, 8 requests each, half of them by message.
fn drive(server: &Server) -> Vec<u64> {
    let address = server.address;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            aside(move || {
                (0..8)
                    .map(|n| {
                        let path = if n % 2 == 0 { "/message" } else { "/method" };
                        let answer = get(address, path);
                        assert_eq!(answer.status, 200, "{answer:?}");
                        answer.body.parse::<u64>().unwrap()
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut numbers: Vec<u64> = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

fn under_a_server(workers: usize) {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let server = Server::start(workers, routes(&keeper, counters));
    assert_eq!(drive(&server), (1..=64).collect::<Vec<_>>());
    server.stop();
}

#[test]
fn it_works_under_a_web_server_with_one_worker() {
    under_a_server(1);
}

#[test]
fn it_works_under_a_web_server_with_four_workers() {
    under_a_server(4);
}

#[test]
fn it_works_in_the_system_of_the_web_server_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    System::new().block_on(async move {
        let keeper = builder(&path).in_current_system().open().unwrap();
        let counters: Counters = keeper.database("counters").await.unwrap();
        let routes = routes(&keeper, counters);
        let server =
            actix_web::HttpServer::new(move || actix_web::App::new().configure(routes.clone()))
                .workers(2)
                .disable_signals()
                .bind(("127.0.0.1", 0))
                .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        let client = aside(move || {
            let status = get(address, "/message").status;
            block_on(handle.stop(true));
            status
        });
        server.await.unwrap();
        assert_eq!(client.join().unwrap(), 200);
        keeper.shutdown(Duration::from_secs(5)).await.unwrap();
    });
}

#[test]
fn it_goes_on_when_the_web_server_and_its_system_are_stopped_and_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let first = Server::start(2, routes(&keeper, counters));
    assert_eq!(drive(&first).last(), Some(&64));
    first.stop();
    assert_eq!(keeper.blocking_run(bump(counters, "n")).unwrap(), 65);
    let second = Server::start(2, routes(&keeper, counters));
    assert_eq!(drive(&second).first(), Some(&66));
    second.stop();
    assert_eq!(read(&keeper, counters, "n"), Some(129));
}

#[test]
fn two_keepers_live_in_one_process_on_two_folders() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, first_counters) = open(one.path());
    let (second, second_counters) = open(two.path());
    // The writer of one does not keep the other, nor do its locks.
    let held = hold_writer(&first);
    let object = lockkeeper::Object::new("n", b"n");
    assert_eq!(
        second
            .blocking_run(bump(second_counters, "n").write_lock(object))
            .unwrap(),
        1
    );
    held.release().unwrap();
    assert_eq!(read(&first, first_counters, "n"), None);
    first.blocking_shutdown(Duration::from_secs(5)).unwrap();
    assert_eq!(second.blocking_run(bump(second_counters, "n")).unwrap(), 2);
}

#[test]
fn the_same_folder_twice_is_a_clear_error_and_the_first_keeper_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let link = folder.path().with_extension("link");
    std::os::unix::fs::symlink(folder.path(), &link).unwrap();
    for path in [folder.path(), &link] {
        let refused = builder(path).open();
        let Err(OpenError::AlreadyOpen { path }) = &refused else {
            panic!("{refused:?}");
        };
        let text = refused.as_ref().unwrap_err().to_string();
        assert!(text.contains(path.to_str().unwrap()), "{text}");
    }
    std::fs::remove_file(link).unwrap();
    assert_eq!(keeper.blocking_run(bump(counters, "n")).unwrap(), 1);
}

#[test]
fn actors_can_be_asked_at_their_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    System::new().block_on(async {
        let bumped = keeper.supervisor().send(bump(counters, "n")).await.unwrap();
        assert_eq!(bumped.unwrap(), 1);
        // Nobody waits for this one; it runs all the same.
        keeper.supervisor().do_send(bump(counters, "n"));
        until(|| read(&keeper, counters, "n") == Some(2));
        let stats = keeper.supervisor().send(TxnStatsQuery).await.unwrap();
        assert_eq!(stats.committed, 2);
        let size = keeper.environment().send(SetMapSize(4 << 20)).await;
        assert_eq!(size.unwrap().unwrap(), 4 << 20);
        let environment = keeper.environment().send(EnvStatsQuery).await.unwrap();
        assert_eq!(environment.unwrap().map_size, 4 << 20);
        let object = lockkeeper::Object::new("n", b"n");
        let acquire = lockkeeper::Acquire::new(object, lockkeeper::Mode::Write);
        let guard = keeper.lock_table().send(acquire).await.unwrap().unwrap();
        let locks = keeper
            .lock_table()
            .send(LockStatsQuery::default())
            .await
            .unwrap();
        assert_eq!(locks.locks.now, 1);
        drop(guard);
    });
    assert_eq!(keeper.locks().stats().locks.now, 0);
    // The system that asked has gone; the keeper's own has not.
    assert_eq!(keeper.blocking_send(bump(counters, "n")).unwrap(), 3);
}
