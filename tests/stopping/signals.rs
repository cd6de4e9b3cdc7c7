//! Signals, under each kind of main, and a web server that stops first.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::web::Data;
use actix_web::{App, HttpServer, web};
use lockkeeper::{Keeper, RunTxn, Signal, TxnError, termination};
use rustix::process::{self, kill_process};

use crate::alone::alone;
use crate::begun::{LONG, counts, waits_outside};
use crate::rt::{
    Counters, PATIENCE, aside, block_on, builder, bump, counters, in_flight, latch, open, read,
    until, until_closed,
};

fn signal(signal: process::Signal) {
    kill_process(process::getpid(), signal).unwrap();
}

/// A keeper stops at a signal, after the body that ran when it came.
async fn stops_at(keeper: &Keeper, counters: Counters, sent: process::Signal) {
    let (mut latch, latched) = latch();
    let running = keeper.run(RunTxn::update(move |txn| {
        latched.pass();
        Ok(counters.put(txn, "n", &1)?)
    }));
    let running = aside(move || block_on(running));
    latch.entered();
    let stops = keeper.shutdown_on(termination().unwrap(), LONG);
    let opener = {
        let keeper = keeper.clone();
        aside(move || {
            signal(sent);
            until_closed(&keeper);
            // Whoever asks again neither ends the process nor hurries what runs.
            signal(sent);
            latch.open();
        })
    };
    stops.await.unwrap();
    opener.join().unwrap();
    running.join().unwrap().unwrap();
}

fn stopped_in_order(folder: &std::path::Path) {
    let (again, counters) = open(folder);
    assert_eq!(read(&again, counters, "n"), Some(1));
    again.blocking_shutdown(LONG).unwrap();
}

#[test]
fn under_a_tokio_main_of_either_kind_and_under_none() {
    if !alone("signals::under_a_tokio_main_of_either_kind_and_under_none") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tokio = [
        tokio::runtime::Builder::new_multi_thread(),
        tokio::runtime::Builder::new_current_thread(),
    ];
    for mut runtime in tokio {
        let (keeper, counters) = open(folder.path());
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(stops_at(&keeper, counters, process::Signal::TERM));
        stopped_in_order(folder.path());
    }
    let (keeper, counters) = open(folder.path());
    block_on(stops_at(&keeper, counters, process::Signal::INT));
    stopped_in_order(folder.path());
    // Inside an actix system that is the keeper's own too.
    actix::System::new().block_on(async {
        let keeper = builder(folder.path()).in_current_system().open().unwrap();
        let counters = keeper.database("counters").await.unwrap();
        stops_at(&keeper, counters, process::Signal::TERM).await;
    });
    stopped_in_order(folder.path());
}

#[test]
fn each_signal_is_told_and_the_next_one_too() {
    if !alone("signals::each_signal_is_told_and_the_next_one_too") {
        return;
    }
    let mut signals = termination().unwrap();
    signal(process::Signal::TERM);
    assert_eq!(block_on(&mut signals), Signal::Terminate);
    signal(process::Signal::INT);
    assert_eq!(block_on(&mut signals), Signal::Interrupt);

    // Whoever asks twice is in a hurry.
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let stuck = waits_outside(&keeper, counts(&keeper), "n");
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        let second = async {
            signal(process::Signal::INT);
            (&mut signals).await
        };
        tokio::select! {
            _ = keeper.shutdown(Duration::MAX) => panic!("somebody is in flight"),
            _ = second => keeper.shutdown(Duration::ZERO).await.unwrap(),
        }
    });
    assert!(matches!(block_on(stuck), Err(TxnError::ShuttingDown)));
}

#[test]
fn a_second_signal_hurries_the_stop_if_somebody_listens_for_it() {
    if !alone("signals::a_second_signal_hurries_the_stop_if_somebody_listens_for_it") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let stuck = waits_outside(&keeper, counts(&keeper), "n");
    let pool = keeper.pool("deaf").start(|_| async {
        std::future::pending::<()>().await;
        Ok(())
    });
    let pool = pool.unwrap();
    until(|| pool.stats().workers.running == 1);
    let first = keeper.shutdown_on(termination().unwrap(), Duration::MAX);
    let mut signals = termination().unwrap();
    let second = async move {
        (&mut signals).await;
        signals.await
    };
    let second = keeper.shutdown_on(second, Duration::ZERO);
    let (first, second) = (
        aside(move || block_on(first)),
        aside(move || block_on(second)),
    );
    signal(process::Signal::TERM);
    until_closed(&keeper);
    until(|| pool.stats().workers.stopping == 1);
    assert!(!first.is_finished() && !second.is_finished());
    signal(process::Signal::TERM);
    second.join().unwrap().unwrap();
    first.join().unwrap().unwrap();
    assert!(matches!(block_on(stuck), Err(TxnError::ShuttingDown)));
    assert_eq!(pool.stats().abandoned, 1);
}

#[test]
fn whoever_waits_for_a_signal_learns_that_the_keeper_has_stopped_without_one() {
    let folder = tempfile::tempdir().unwrap();
    for dropped in [false, true] {
        let (keeper, _) = open(folder.path());
        let waits = keeper.shutdown_on(std::future::pending::<()>(), LONG);
        let waits = aside(move || block_on(waits));
        if !dropped {
            keeper.blocking_shutdown(LONG).unwrap();
        }
        drop(keeper);
        waits.join().unwrap().unwrap();
        builder(folder.path())
            .open()
            .unwrap()
            .blocking_shutdown(LONG)
            .unwrap();
    }
}

struct Gate {
    keeper: Keeper,
    counters: Counters,
    entered: AtomicBool,
    go_on: tokio::sync::Notify,
}

/// Is at work when the signal comes, and needs the keeper after that.
async fn slow(gate: Data<Gate>) -> Result<String, TxnError> {
    gate.entered.store(true, Ordering::Release);
    gate.go_on.notified().await;
    let counted = gate.keeper.send(bump(gate.counters, "n")).await?;
    Ok(format!("counted {counted}"))
}

fn gate(keeper: &Keeper) -> Data<Gate> {
    Data::new(Gate {
        keeper: keeper.clone(),
        counters: counters(keeper),
        entered: AtomicBool::new(false),
        go_on: tokio::sync::Notify::new(),
    })
}

/// Has a request under way when the signal comes, and lets it go on afterwards; answers what the client got.
fn a_request_at_the_signal(
    address: std::net::SocketAddr,
    gate: &Data<Gate>,
) -> std::thread::JoinHandle<String> {
    let gate = Arc::clone(gate);
    aside(move || {
        let mut stream = crate::rt::ask(address, "/slow");
        until(|| gate.entered.load(Ordering::Acquire));
        signal(process::Signal::TERM);
        // The server does not take connections any more when it has seen the signal.
        until(|| std::net::TcpStream::connect(address).is_err());
        gate.go_on.notify_one();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn a_web_server_that_sees_the_signal_itself_stops_first() {
    if !alone("signals::a_web_server_that_sees_the_signal_itself_stops_first") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    actix_web::rt::System::new().block_on(async {
        let (keeper, _) = open(folder.path());
        let gate = gate(&keeper);
        let data = gate.clone();
        let server = HttpServer::new(move || {
            let slow = web::get().to(slow);
            App::new().app_data(data.clone()).route("/slow", slow)
        });
        let server = server.workers(1).bind(("127.0.0.1", 0)).unwrap();
        let client = a_request_at_the_signal(server.addrs()[0], &gate);
        // It handles SIGTERM by itself, and answers what it has taken.
        server.run().await.unwrap();
        assert!(keeper.view(|_| Ok(())).await.is_ok());
        keeper.shutdown(LONG).await.unwrap();
        let answer = client.join().unwrap();
        assert!(answer.contains("counted 1"), "{answer}");
    });
    stopped_in_order(folder.path());
}

#[test]
fn a_signal_for_the_keeper_stops_the_web_server_first() {
    if !alone("signals::a_signal_for_the_keeper_stops_the_web_server_first") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    actix_web::rt::System::new().block_on(async {
        let (keeper, _) = open(folder.path());
        let gate = gate(&keeper);
        let data = gate.clone();
        let server = HttpServer::new(move || {
            let slow = web::get().to(slow);
            App::new().app_data(data.clone()).route("/slow", slow)
        });
        let server = server
            .workers(1)
            .disable_signals()
            .bind(("127.0.0.1", 0))
            .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let (handle, signal) = (server.handle(), termination().unwrap());
        let first = async move {
            signal.await;
            handle.stop(true).await;
        };
        let stops = actix_web::rt::spawn(keeper.shutdown_on(first, LONG));
        let client = a_request_at_the_signal(address, &gate);
        server.await.unwrap();
        let stopped = actix_web::rt::time::timeout(PATIENCE, stops).await;
        stopped.unwrap().unwrap().unwrap();
        let answer = client.join().unwrap();
        assert!(answer.contains("counted 1"), "{answer}");
        assert_eq!(in_flight(&keeper), 0);
    });
    stopped_in_order(folder.path());
}
