//! Actors that are started alone.

use std::time::Duration;

use actix::System;
use lockkeeper::{
    Acquire, EnvStatsQuery, Environment, LockConfig, LockError, LockTable, Mode, NoSystem, Object,
    OpenError, Release, RunTxn, SetMapSize, Settings, TxnError, Wait,
};

use crate::rt::{builder, until};

#[test]
fn an_environment_alone_runs_transactions_and_is_closed_with_its_actor() {
    let folder = tempfile::tempdir().unwrap();
    System::new().block_on(async {
        let settings = Settings::default().map_size(1 << 20);
        let environment = Environment::open_alone(folder.path(), &settings).unwrap();
        let txn = RunTxn::update(|_| Ok(7)).name("alone");
        assert_eq!(environment.send(txn).await.unwrap().unwrap(), 7);
        let txn = RunTxn::view(|_| Ok(8));
        assert_eq!(environment.send(txn).await.unwrap().unwrap(), 8);
        let size = environment.send(SetMapSize(2 << 20)).await.unwrap();
        assert_eq!(size.unwrap(), 2 << 20);
        let stats = environment.send(EnvStatsQuery).await.unwrap().unwrap();
        assert_eq!(stats.map_size, 2 << 20);

        // It has no locks to take, and says so rather than going on without.
        let locked = RunTxn::update(|_| Ok(())).write_lock(Object::new("n", b"1"));
        let refused = environment.send(locked).await.unwrap();
        assert!(matches!(refused, Err(TxnError::NoLockTable)), "{refused:?}");

        let again = builder(folder.path()).open();
        assert!(matches!(again, Err(OpenError::AlreadyOpen { .. })));
        drop(environment);
        // Its actor stops once nobody can send to it.
        let begun = std::time::Instant::now();
        loop {
            match Environment::open_alone(folder.path(), &settings) {
                Ok(_) => break,
                Err(OpenError::AlreadyOpen { .. }) if begun.elapsed() < crate::rt::PATIENCE => {
                    actix::clock::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    // And when its system stops under it.
    until(|| builder(folder.path()).open().is_ok());
}

#[test]
fn a_lock_table_alone_needs_no_environment() {
    System::new().block_on(async {
        let (table, locks) = LockTable::start_alone(LockConfig::default()).unwrap();
        let object = Object::new("boats", b"1");
        let guard = table
            .send(Acquire::new(object.clone(), Mode::Write))
            .await
            .unwrap()
            .unwrap();
        let refused = table
            .send(Acquire::new(object.clone(), Mode::Read).wait(Wait::No))
            .await
            .unwrap();
        assert!(
            matches!(refused, Err(LockError::NotAvailable(_))),
            "{refused:?}"
        );
        let waits = tokio::task::spawn_local(table.send(Acquire::new(object, Mode::Read)));
        while locks.stats().waiting == 0 {
            tokio::task::yield_now().await;
        }
        assert!(table.send(Release::Guard(guard)).await.unwrap());
        drop(waits.await.unwrap().unwrap().unwrap());
        assert_eq!(locks.stats().locks.now, 0);
    });
}

#[test]
fn actors_alone_need_a_system() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment::open_alone(folder.path(), &Settings::default());
    assert!(matches!(environment, Err(OpenError::NoSystem)));
    let table = LockTable::start_alone(LockConfig::default());
    assert_eq!(table.map(drop).unwrap_err(), NoSystem);
    // Refused before anything was opened.
    builder(folder.path()).open().unwrap();
}
