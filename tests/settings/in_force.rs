//! What a file says is what the keeper's lock table does, not only what its settings answer.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use lockkeeper::{LockError, Locker, LockerSpec, Mode, Object, Wait};

use super::*;

fn keeper(name: &str, text: &str) -> (TempDir, Keeper) {
    let folder = folder(&[(name, text.as_bytes())]);
    let keeper = Keeper::open(folder.path()).expect("a keeper");
    (folder, keeper)
}

fn locker(keeper: &Keeper) -> Arc<Locker> {
    Arc::new(keeper.locks().locker(LockerSpec::new()).expect("a locker"))
}

fn take(locker: &Locker, name: &str, wait: Wait) -> Result<(), LockError> {
    let object = Object::new("test", name.as_bytes());
    locker.blocking_lock(&object, Mode::Write, wait)
}

#[test]
fn a_limit_of_a_db_config_is_kept() {
    let (_folder, keeper) = keeper(DB_CONFIG, "set_lk_max_locks 2");
    let locker = locker(&keeper);
    take(&locker, "a", Wait::Default).unwrap();
    take(&locker, "b", Wait::Default).unwrap();
    let refused = take(&locker, "c", Wait::Default).unwrap_err();
    assert!(
        matches!(refused, LockError::Limit { value: 2, .. }),
        "{refused}"
    );
}

#[test]
fn the_victim_is_the_one_that_set_lk_detect_says() {
    for (word, oldest) in [("db_lock_oldest", true), ("DB_LOCK_YOUNGEST", false)] {
        let (_folder, keeper) = keeper(DB_CONFIG, &format!("set_lk_detect {word}"));
        let lockers = [locker(&keeper), locker(&keeper)];
        take(&lockers[0], "0", Wait::No).unwrap();
        take(&lockers[1], "1", Wait::No).unwrap();
        // Whichever of the two waits first: the cycle is closed when both do.
        let crossing = |(locker, other): (&Arc<Locker>, &'static str)| {
            let locker = Arc::clone(locker);
            thread::spawn(move || {
                let outcome = take(&locker, other, Wait::Forever);
                locker.release_all();
                outcome
            })
        };
        let threads: Vec<_> = lockers.iter().zip(["1", "0"]).map(crossing).collect();
        let outcomes: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
        let (victim, other) = if oldest { (0, 1) } else { (1, 0) };
        assert!(
            matches!(outcomes[victim], Err(LockError::Deadlock(_))),
            "{word}: {outcomes:?}"
        );
        assert!(outcomes[other].is_ok(), "{word}: {outcomes:?}");
    }
}

#[test]
fn the_lock_timeout_of_a_je_properties_ends_a_wait() {
    let (_folder, keeper) = keeper(JE, "je.lock.timeout = 40 ms");
    let (holder, waiter) = (locker(&keeper), locker(&keeper));
    take(&holder, "a", Wait::No).unwrap();
    let begun = Instant::now();
    let error = take(&waiter, "a", Wait::Default).unwrap_err();
    let waited = begun.elapsed();
    assert!(error.to_string().starts_with("lock timeout"), "{error}");
    assert!(waited >= Duration::from_millis(40), "{waited:?}");
    assert!(waited < Duration::from_secs(4), "{waited:?}");
}

#[test]
fn with_db_txn_nowait_a_request_that_does_not_say_otherwise_is_refused_at_once() {
    let (_folder, keeper) = keeper(DB_CONFIG, "set_flags db_txn_nowait on");
    let (holder, asker) = (locker(&keeper), locker(&keeper));
    take(&holder, "a", Wait::No).unwrap();
    let error = take(&asker, "a", Wait::Default).unwrap_err();
    assert!(matches!(error, LockError::NotAvailable(_)), "{error}");
    take(&asker, "b", Wait::Default).expect("a refusal leaves the locker usable");
}
