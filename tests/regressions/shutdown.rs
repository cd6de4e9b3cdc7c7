//! What a shutdown answers: inside a body, and when it is asked again.

use std::time::Duration;

use lockkeeper::{Keeper, RunTxn, ShutdownError, TxnError};

use crate::support::{Plug, SOON, block_on, folder, open, put};

#[test]
fn i14_a_shutdown_inside_a_body_is_an_error_and_nothing_is_shut_down() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    let ask = {
        let keeper = keeper.clone();
        move || {
            for answer in [
                keeper.blocking_shutdown(SOON),
                block_on(keeper.shutdown(SOON)),
            ] {
                assert!(
                    matches!(answer, Err(ShutdownError::InsideBody)),
                    "{answer:?}"
                );
            }
        }
    };
    let inside = || {
        let ask = ask.clone();
        move || {
            ask();
            Ok::<_, TxnError>(())
        }
    };
    let body = inside();
    keeper.blocking_update(move |_| body()).unwrap();
    let body = inside();
    keeper.blocking_view(move |_| body()).unwrap();
    let body = inside();
    keeper.blocking_run(RunTxn::view(move |_| body())).unwrap();
    let body = inside();
    keeper
        .blocking_send(RunTxn::update(move |_| body()))
        .unwrap();
    put(&keeper, numbers, 1, 10).unwrap();
    keeper.blocking_shutdown(SOON).unwrap();
    assert!(matches!(
        put(&keeper, numbers, 2, 20),
        Err(TxnError::ShuttingDown)
    ));
}

#[test]
fn a_second_shutdown_tells_the_truth_about_what_still_runs() {
    let folder = folder();
    let (keeper, _) = open(folder.path());
    let plug = Plug::hold_as(
        &keeper,
        |body| RunTxn::update(body).name("runs on"),
        |_| Ok(()),
    );
    let answer = keeper.blocking_shutdown(Duration::from_millis(20));
    assert!(
        matches!(&answer, Err(ShutdownError::BodyRunsOn { name, .. }) if name.as_deref() == Some("runs on")),
        "{answer:?}"
    );
    let answer = block_on(keeper.shutdown(Duration::from_millis(20)));
    assert!(
        matches!(&answer, Err(ShutdownError::BodyRunsOn { .. })),
        "{answer:?}"
    );
    let _ = plug.release();
    keeper.blocking_shutdown(SOON).unwrap();
    keeper.blocking_shutdown(SOON).unwrap();
    open(folder.path());
}

/// A reader that had been told to end took the word that was another's with it.
#[test]
fn every_reader_is_told_to_end() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..30 {
        let keeper = Keeper::builder()
            .path(folder.path())
            .reader_threads(16)
            .open()
            .unwrap();
        block_on(keeper.shutdown(Duration::from_secs(10))).unwrap();
    }
}
