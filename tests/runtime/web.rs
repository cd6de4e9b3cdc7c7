//! `?` in a handler: what a client over HTTP sees of an error.

use std::fmt;
use std::time::Duration;

use actix_web::web::{self, Data};
use lockkeeper::{
    Db, Growth, Keeper, LockerSpec, Mode, Object, RunTxn, TxnError, Wait, WhenFull,
    heed::types::{Bytes, Str},
};

use crate::rt::{Answer, aside, block_on, builder, get, hold_writer, latch, open, until};
use crate::server::Server;

#[derive(Debug)]
struct SoldOut;

impl fmt::Display for SoldOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sold out")
    }
}

type State = Data<Keeper>;

async fn sold_out(keeper: State) -> Result<String, TxnError<SoldOut>> {
    keeper
        .try_update(|_| Err::<(), _>(TxnError::Abort(SoldOut)))
        .await?;
    Ok("sold".into())
}

async fn locked(keeper: State) -> Result<String, TxnError> {
    let txn = RunTxn::update(|_| Ok(()))
        .write_lock(Object::new("n", b"n"))
        .retry_timeouts(false);
    keeper.send(txn).await?;
    Ok("locked".into())
}

async fn exhausted(keeper: State) -> Result<String, TxnError> {
    let txn = RunTxn::update(|_| Ok(()))
        .write_lock(Object::new("n", b"n"))
        .retries(2);
    keeper.send(txn).await?;
    Ok("locked".into())
}

async fn impatient(keeper: State) -> Result<String, TxnError> {
    let txn = RunTxn::update(|_| Ok(()))
        .write_lock(Object::new("n", b"n"))
        .deadline(Duration::from_millis(2));
    keeper.send(txn).await?;
    Ok("in time".into())
}

async fn refused(keeper: State) -> Result<String, TxnError> {
    keeper
        .send(RunTxn::update(|_| Ok(())).when_full(WhenFull::Refuse))
        .await?;
    Ok("room".into())
}

async fn grow(keeper: State) -> Result<String, TxnError> {
    let big: Db<Str, Bytes> = match keeper.database("big").await {
        Ok(big) => big,
        Err(error) => panic!("{error}"),
    };
    keeper
        .update(move |txn| {
            let value = vec![0; 64 << 10];
            for n in 0..64 {
                big.put(txn, &n.to_string(), &value)?;
            }
            Ok(())
        })
        .await?;
    Ok("grown".into())
}

fn serve(keeper: &Keeper) -> Server {
    let state = Data::new(keeper.clone());
    Server::start(1, move |config| {
        config
            .app_data(state.clone())
            .route("/sold-out", web::get().to(sold_out))
            .route("/locked", web::get().to(locked))
            .route("/exhausted", web::get().to(exhausted))
            .route("/impatient", web::get().to(impatient))
            .route("/refused", web::get().to(refused))
            .route("/grow", web::get().to(grow));
    })
}

#[track_caller]
fn answers(answer: &Answer, status: u16, retry_after: bool, text: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(
        answer.head.contains("\r\nretry-after: "),
        retry_after,
        "{answer:?}"
    );
    assert!(answer.body.contains(text), "{answer:?}");
}

#[test]
fn conflicts_and_refusals_are_409_and_no_time_left_is_504() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path())
        .lock_timeout(Duration::from_millis(5))
        .open()
        .unwrap();
    let server = serve(&keeper);
    answers(&get(server.address, "/sold-out"), 409, false, "sold out");
    let locker = keeper.locks().locker(LockerSpec::new()).unwrap();
    locker
        .blocking_lock(&Object::new("n", b"n"), Mode::Write, Wait::No)
        .unwrap();
    answers(&get(server.address, "/locked"), 409, false, "timeout");
    answers(&get(server.address, "/exhausted"), 409, false, "2 attempts");
    answers(&get(server.address, "/impatient"), 504, false, "deadline");
    drop(locker);
    let answer = get(server.address, "/locked");
    answers(&answer, 200, false, "locked");
    server.stop();
}

#[test]
fn too_many_in_flight_and_a_keeper_that_goes_down_are_503_with_retry_after() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path()).queue(1).open().unwrap();
    let server = serve(&keeper);
    let held = hold_writer(&keeper);
    answers(&get(server.address, "/refused"), 503, true, "limit");
    held.release().unwrap();
    until(|| crate::rt::in_flight(&keeper) == 0);
    answers(&get(server.address, "/refused"), 200, false, "room");
    keeper.blocking_shutdown(Duration::from_secs(5)).unwrap();
    answers(&get(server.address, "/refused"), 503, true, "shutting down");
    server.stop();
}

#[test]
fn a_map_that_a_view_keeps_from_growing_is_423() {
    let folder = tempfile::tempdir().unwrap();
    let keeper = builder(folder.path())
        .growth(Growth::Doubling)
        .resize_timeout(Duration::from_millis(20))
        .open()
        .unwrap();
    let server = serve(&keeper);
    let (mut latch, latched) = latch();
    let view = {
        let keeper = keeper.clone();
        aside(move || {
            keeper.blocking_view(move |_| {
                latched.pass();
                Ok(())
            })
        })
    };
    latch.entered();
    answers(&get(server.address, "/grow"), 423, true, "view");
    latch.open();
    view.join().unwrap().unwrap();
    answers(&get(server.address, "/grow"), 200, false, "grown");
    server.stop();
}

#[test]
fn the_keeper_itself_is_not_bothered_by_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(folder.path());
    let server = serve(&keeper);
    for _ in 0..10 {
        answers(&get(server.address, "/sold-out"), 409, false, "sold out");
    }
    server.stop();
    assert_eq!(block_on(keeper.stats()).transactions.aborted, 10);
}
