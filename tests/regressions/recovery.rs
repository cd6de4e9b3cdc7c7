//! I11: which files a recovery accepts, and which errors are taken for fatal ones.

use std::fs;

use lockkeeper::heed::{self, MdbError};
use lockkeeper::{DbError, EnvError, OnFatal, Recover, RunTxn, TxnError};

use crate::stage::{Disk, on_stage};
use crate::support::{Plug, SOON, Sent, folder, get, open, open_with, put, putting, stats};

#[test]
fn i11_recovery_is_refused_when_the_file_is_gone_or_another_one() {
    let Some(stage) =
        on_stage("recovery::i11_recovery_is_refused_when_the_file_is_gone_or_another_one")
    else {
        return;
    };
    for policy in [OnFatal::Wait, OnFatal::Recover] {
        let folder = stage.folder.join(format!("{policy:?}"));
        let (keeper, numbers) =
            open_with(lockkeeper::Keeper::builder().path(&folder).on_fatal(policy));
        put(&keeper, numbers, 1, 10).unwrap();
        let (data, away) = (folder.join("data.mdb"), folder.join("away"));
        fs::rename(&data, &away).unwrap();
        stage.tell(Disk::FailMeta);
        let answer = put(&keeper, numbers, 2, 20);
        assert!(
            matches!(answer, Err(TxnError::MaybeCommitted { .. })),
            "{answer:?}"
        );
        stage.heal(Disk::FailMeta);

        let refused = || {
            let answer = keeper.blocking_send(Recover);
            assert!(
                matches!(&answer, Err(EnvError::RecoveryRefused(why)) if why.contains("data.mdb")),
                "{answer:?}"
            );
            let answer = keeper.blocking_update(|_| Ok(()));
            assert!(
                matches!(answer, Err(TxnError::RecoveryNeeded(_))),
                "{answer:?}"
            );
            assert!(keeper.blocking_view(|_| Ok(())).is_err());
        };
        refused();
        assert!(!data.exists(), "no empty environment is made in its place");
        // The same content, but not the file that was opened.
        fs::copy(&away, &data).unwrap();
        refused();
        // As after a restore of something empty.
        fs::write(&data, b"").unwrap();
        refused();
        assert_eq!(fs::metadata(&data).unwrap().len(), 0);
        assert_eq!(stats(&keeper).environment.recoveries, 0);

        fs::rename(&away, &data).unwrap();
        keeper.blocking_send(Recover).unwrap();
        assert_eq!(get(&keeper, numbers, 1), Some(10));
        put(&keeper, numbers, 3, 30).unwrap();
        assert_eq!(stats(&keeper).environment.recoveries, 1);
        keeper.blocking_shutdown(SOON).unwrap();
    }
}

#[test]
fn an_error_that_a_body_made_up_poisons_nothing() {
    let folder = folder();
    let (keeper, numbers) = open(folder.path());
    fn made_up<T>() -> Result<T, TxnError> {
        Err(heed::Error::Mdb(MdbError::Corrupted).into())
    }
    let own = |answer: Result<(), TxnError>| {
        assert!(
            matches!(
                &answer,
                Err(TxnError::Database(DbError::Heed(heed::Error::Mdb(
                    MdbError::Corrupted
                ))))
            ),
            "{answer:?}"
        );
    };
    own(keeper.blocking_view(|_| made_up()));
    own(keeper.blocking_run(RunTxn::view(|_| made_up())));
    own(keeper.blocking_update(|_| made_up()));
    own(keeper.blocking_send(RunTxn::update(|_| made_up())));
    // Among neighbours, after it has written.
    let plug = Plug::hold(&keeper);
    let before = Sent::new(keeper.run(putting(numbers, 1, 10)));
    let lies = Sent::new(keeper.update(move |txn| {
        numbers.put(txn, &2, &20)?;
        made_up()
    }));
    let after = Sent::new(keeper.run(putting(numbers, 3, 30)));
    plug.release().unwrap();
    before.answer().unwrap();
    own(lies.answer());
    after.answer().unwrap();
    let found = [1, 2, 3].map(|key| get(&keeper, numbers, key));
    assert_eq!(found, [Some(10), None, Some(30)]);
    assert_eq!(stats(&keeper).environment.poisonings, 0);
}
