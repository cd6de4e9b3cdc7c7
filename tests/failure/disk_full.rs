//! No space: in the map, and on the disk. Neither is fatal.

use lockkeeper::{ErrorClass, Growth, Keeper, TxnError};

use crate::stage::{Disk, on_stage, read_elsewhere};
use crate::support::{Plug, Sent, folder, get, open_with, put, putting, stats};

#[test]
fn a_full_disk_fails_the_commit_and_the_environment_goes_on() {
    let Some(stage) =
        on_stage("disk_full::a_full_disk_fails_the_commit_and_the_environment_goes_on")
    else {
        return;
    };
    let (keeper, numbers) = open_with(Keeper::builder().path(&stage.folder));
    put(&keeper, numbers, 1, 10).unwrap();
    for round in 0..3 {
        let plug = Plug::hold(&keeper);
        let callers: Vec<_> = (100..108)
            .map(|key| Sent::new(keeper.run(putting(numbers, key, key))))
            .collect();
        stage.tell(Disk::FailData);
        plug.release().unwrap();
        for sent in callers {
            let error = sent.answer().unwrap_err();
            match &error {
                TxnError::Storage(error) => {
                    assert!(error.is_full(), "{error:?}");
                    assert_eq!(error.errno(), Some(libc::ENOSPC));
                    assert_eq!(error.doing(), "commit");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(error.class(), ErrorClass::Full);
        }
        // Views go on while there is no space, and nothing was lost or half done.
        assert_eq!(get(&keeper, numbers, 1), Some(10 + round));
        assert_eq!(get(&keeper, numbers, 100), None);
        stage.heal(Disk::FailData);
        put(&keeper, numbers, 1, 11 + round).unwrap();
    }
    let environment = stats(&keeper).environment;
    assert_eq!((environment.poisonings, environment.recoveries), (0, 0));
    assert_eq!(read_elsewhere(&stage.folder), [(1, 13)].into());
}

#[test]
fn a_map_that_may_not_grow_is_an_error_of_the_update_that_needs_more() {
    let folder = folder();
    let size = 256 << 10;
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(folder.path())
            .map_size(size)
            .max_map_size(size)
            .growth(Growth::Doubling),
    );
    put(&keeper, numbers, 1, 10).unwrap();
    let greedy = lockkeeper::RunTxn::update(move |txn| {
        for key in 1000..100_000 {
            numbers.put(txn, &key, &key)?;
        }
        Ok(())
    });
    let plug = Plug::hold(&keeper);
    let before = Sent::new(keeper.run(putting(numbers, 2, 20)));
    let full = Sent::new(keeper.run(greedy));
    let after = Sent::new(keeper.run(putting(numbers, 3, 30)));
    plug.release().unwrap();
    let error = full.answer().unwrap_err();
    assert!(
        matches!(error, TxnError::EnvironmentFull { size: is, max } if is == size && max == size),
        "{error:?}"
    );
    assert_eq!(error.class(), ErrorClass::Full);
    before.answer().unwrap();
    after.answer().unwrap();
    for (key, value) in [(1, Some(10)), (2, Some(20)), (3, Some(30)), (1000, None)] {
        assert_eq!(get(&keeper, numbers, key), value);
    }
    put(&keeper, numbers, 4, 40).unwrap();
    assert_eq!(stats(&keeper).environment.poisonings, 0);
}

#[test]
fn a_growth_policy_that_panics_is_one_that_says_no() {
    let folder = folder();
    let size = 256 << 10;
    let (keeper, numbers) = open_with(
        Keeper::builder()
            .path(folder.path())
            .map_size(size)
            .growth(Growth::function(|_| panic!("no idea"))),
    );
    for _ in 0..2 {
        let error = keeper
            .blocking_update(move |txn| {
                for key in 1000..100_000 {
                    numbers.put(txn, &key, &key)?;
                }
                Ok(())
            })
            .unwrap_err();
        assert!(
            matches!(error, TxnError::EnvironmentFull { size: is, .. } if is == size),
            "{error:?}"
        );
        put(&keeper, numbers, 1, 10).unwrap();
    }
}
