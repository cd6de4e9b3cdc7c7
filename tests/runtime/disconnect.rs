//! What happens when the client of a web server goes away: its handler's future is dropped.
//!
//! Actix-web drops it when it notices. With its default settings it notices a connection that was reset; one that was only
//! closed may be half-closed, with a client that still waits for its answer. `h1_allow_half_closed(false)` counts both as gone.

use std::net::TcpStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use actix_web::web::{self, Data};
use lockkeeper::{Keeper, LockerSpec, Mode, Object, RunTxn, TxnError, TxnStatsQuery, Wait};

use crate::rt::{
    Counters, Latch, Latched, PATIENCE, ask, block_on, get, hold_writer, in_flight, latch, open,
    read, until,
};
use crate::server::Server;

struct State {
    keeper: Keeper,
    counters: Counters,
    bodies: Arc<AtomicU32>,
    /// Where a handler's future says that it was dropped.
    dropped: mpsc::Sender<()>,
    /// For the body of `/slow`.
    latched: Mutex<Option<Latched>>,
}

struct Dropped(mpsc::Sender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// `/{door}/{speed}`: writes under a lock, by method or by message.
async fn write(
    state: Data<State>,
    path: web::Path<(String, String)>,
) -> Result<&'static str, TxnError> {
    let _dropped = Dropped(state.dropped.clone());
    let (counters, bodies) = (state.counters, Arc::clone(&state.bodies));
    let latched = match path.1.as_str() {
        "slow" => state.latched.lock().unwrap().take(),
        _ => None,
    };
    let txn = RunTxn::update(move |txn| {
        bodies.fetch_add(1, Ordering::Relaxed);
        counters.put(txn, "n", &1)?;
        if let Some(latched) = &latched {
            latched.pass();
        }
        Ok(())
    });
    let txn = txn.write_lock(Object::new("n", b"n"));
    match path.0.as_str() {
        "method" => state.keeper.run(txn).await?,
        _ => state.keeper.send(txn).await?,
    }
    Ok("written")
}

/// How a client goes away.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Close,
    Reset,
}

impl Leave {
    fn leave(self, client: TcpStream) {
        if let Self::Reset = self {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .unwrap();
            let _context = runtime.enter();
            client.set_nonblocking(true).unwrap();
            let client = tokio::net::TcpStream::from_std(client).unwrap();
            client.set_zero_linger().unwrap();
        }
    }
}

struct Setting {
    keeper: Keeper,
    counters: Counters,
    server: Server,
    bodies: Arc<AtomicU32>,
    dropped: mpsc::Receiver<()>,
    latch: Latch,
    _folder: tempfile::TempDir,
}

fn setting(leave: Leave) -> Setting {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, counters) = open(folder.path());
    let (dropped, was_dropped) = mpsc::channel();
    let (latch, latched) = latch();
    let bodies = Arc::new(AtomicU32::new(0));
    let state = Data::new(State {
        keeper: keeper.clone(),
        counters,
        bodies: Arc::clone(&bodies),
        dropped,
        latched: Mutex::new(Some(latched)),
    });
    let server = Server::start_with(1, matches!(leave, Leave::Reset), move |config| {
        config
            .app_data(state.clone())
            .route("/{door}/{speed}", web::get().to(write));
    });
    Setting {
        keeper,
        counters,
        server,
        bodies,
        dropped: was_dropped,
        latch,
        _folder: folder,
    }
}

impl Setting {
    fn nothing_is_left(&self) {
        until(|| in_flight(&self.keeper) == 0);
        let locks = self.keeper.locks().stats();
        assert_eq!(
            (locks.lockers.now, locks.locks.now, locks.waiting),
            (0, 0, 0)
        );
        // Whoever comes next gets its turn.
        let answer = get(self.server.address, "/method/fast");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn each(test: impl Fn(Leave, &str)) {
    for leave in [Leave::Close, Leave::Reset] {
        for door in ["method", "message"] {
            test(leave, door);
        }
    }
}

#[test]
fn a_body_that_had_not_begun_never_runs() {
    each(|leave, door| {
        let setting = setting(leave);
        let held = hold_writer(&setting.keeper);
        let client = ask(setting.server.address, &format!("/{door}/fast"));
        until(|| block_on(setting.keeper.stats()).environment.queued == 1);
        leave.leave(client);
        setting.dropped.recv_timeout(PATIENCE).unwrap();
        // By message, the supervisor is told; it has seen to it when it answers something later.
        for _ in 0..3 {
            block_on(setting.keeper.supervisor().send(TxnStatsQuery)).unwrap();
        }
        held.release().unwrap();
        setting.keeper.blocking_update(|_| Ok(())).unwrap();
        assert_eq!(
            setting.bodies.load(Ordering::Relaxed),
            0,
            "{leave:?} {door}"
        );
        assert_eq!(read(&setting.keeper, setting.counters, "n"), None);
        setting.nothing_is_left();
        setting.server.stop();
    });
}

#[test]
fn a_body_that_had_begun_may_commit_and_nothing_leaks() {
    each(|leave, door| {
        let mut setting = setting(leave);
        let client = ask(setting.server.address, &format!("/{door}/slow"));
        setting.latch.entered();
        leave.leave(client);
        setting.dropped.recv_timeout(PATIENCE).unwrap();
        let locker = setting.keeper.locks().locker(LockerSpec::new()).unwrap();
        let lock = |wait| locker.blocking_lock(&Object::new("n", b"n"), Mode::Write, wait);
        assert!(
            lock(Wait::No).is_err(),
            "its lock goes with it to the commit"
        );
        setting.latch.open();
        lock(Wait::Forever).unwrap();
        drop(locker);
        // All of it or nothing of it; here nothing stands in its way.
        assert_eq!(setting.bodies.load(Ordering::Relaxed), 1);
        assert_eq!(read(&setting.keeper, setting.counters, "n"), Some(1));
        setting.nothing_is_left();
        setting.server.stop();
    });
}

#[test]
fn a_client_that_waits_for_a_lock_and_goes_away_leaves_the_queue() {
    each(|leave, door| {
        let setting = setting(leave);
        let locker = setting.keeper.locks().locker(LockerSpec::new()).unwrap();
        locker
            .blocking_lock(&Object::new("n", b"n"), Mode::Write, Wait::No)
            .unwrap();
        let client = ask(setting.server.address, &format!("/{door}/fast"));
        until(|| setting.keeper.locks().stats().waiting == 1);
        leave.leave(client);
        setting.dropped.recv_timeout(PATIENCE).unwrap();
        until(|| setting.keeper.locks().stats().waiting == 0);
        drop(locker);
        until(|| in_flight(&setting.keeper) == 0);
        assert_eq!(setting.bodies.load(Ordering::Relaxed), 0);
        setting.nothing_is_left();
        setting.server.stop();
    });
}
