//! The end of the window. Jumps of the clocks are tested where time is a parameter; here it passes.

use std::time::{Duration, Instant};

use lockkeeper::{Durability, Keeper, KeeperBuilder};

use crate::support::{SOON, folder, open, open_with, put, stats, until};
use crate::{ANSWERS, Runs, in_answers, stored};

fn builder(folder: &std::path::Path, window: Duration) -> KeeperBuilder {
    Keeper::builder().path(folder).idempotency_window(window)
}

/// How many entries the database of the answers has, its index and its clock included.
fn entries(keeper: &Keeper) -> Option<usize> {
    let databases = stats(keeper).environment.databases;
    let found = databases
        .iter()
        .find(|db| db.name.as_deref() == Some(ANSWERS));
    found.map(|db| db.entries)
}

#[test]
fn after_the_window_the_key_is_free_again() {
    let window = Duration::from_millis(400);
    let dir = folder();
    let (keeper, numbers) = open_with(builder(dir.path(), window));
    let runs = Runs::default();
    let send = |request: &str| {
        keeper.blocking_run(runs.bump(numbers, 1).idempotent("key").request(request))
    };
    let before = Instant::now();
    assert_eq!(send("one").unwrap(), 1);
    let after = Instant::now();
    // Other requests are refused until then, and run after it.
    let mut sent = Instant::now();
    while let Err(error) = send("two") {
        assert!(
            matches!(error, lockkeeper::TxnError::KeyReused { .. }),
            "{error:?}"
        );
        assert!(after.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(1));
        sent = Instant::now();
    }
    assert!(before.elapsed() >= window, "not before the window is over");
    assert_eq!(runs.count(), 2);
    // On a slow disk its own window may be over when it is answered.
    let again = send("two").unwrap();
    assert!(again == 2 || again == 3 && sent.elapsed() >= window);
    assert_eq!(runs.count() as u64, again);
}

#[test]
fn a_day_is_the_default() {
    let dir = folder();
    let (keeper, _) = open(dir.path());
    assert_eq!(
        keeper.config().idempotency_window(),
        Duration::from_secs(24 * 3600)
    );
}

#[test]
fn a_window_goes_on_over_a_restart_and_a_quiet_keeper_removes_what_it_finds() {
    let window = Duration::from_secs(3);
    let dir = folder();
    // All of them have to be there within the window.
    let (keeper, numbers) = open_with(builder(dir.path(), window).durability(Durability::NoSync));
    let runs = Runs::default();
    let begun = Instant::now();
    for key in 0..100_u64 {
        let txn = runs.bump(numbers, key).idempotent(key.to_be_bytes());
        keeper.blocking_run(txn).unwrap();
    }
    keeper.blocking_shutdown(SOON).unwrap();
    drop(keeper);
    let stored = stored(dir.path());
    assert!(
        stored == 100 || begun.elapsed() >= window,
        "{stored} are left before the window is over"
    );
    // Nobody sends anything with a key to this one.
    let (keeper, _) = open_with(builder(dir.path(), window));
    until("only the clock is left", || entries(&keeper) == Some(1));
    assert_eq!(runs.count(), 100);
}

/// An entry of an environment whose clock was destroyed lives on, and new keys work.
#[test]
fn a_destroyed_clock_lets_nothing_expire_early() {
    let dir = folder();
    let runs = Runs::default();
    for round in 0..3 {
        let (keeper, numbers) = open(dir.path());
        assert_eq!(
            keeper
                .blocking_run(runs.bump(numbers, 1).idempotent("key"))
                .unwrap(),
            1
        );
        let other = runs.bump(numbers, 2).idempotent([round]);
        keeper.blocking_run(other).unwrap();
        keeper.blocking_shutdown(SOON).unwrap();
        in_answers(dir.path(), |entries| match round {
            0 => drop(entries.remove(&[0][..])),
            _ => drop(entries.insert(vec![0], vec![9; 40])),
        });
    }
    assert_eq!(runs.count(), 4);
}

#[test]
fn ten_thousand_keys_expire_in_many_small_updates() {
    const KEYS: u64 = 10_000;
    let window = Duration::from_secs(4);
    let dir = folder();
    let (keeper, numbers) = open_with(
        builder(dir.path(), window)
            .durability(Durability::NoSync)
            .map_size(1 << 26),
    );
    let runs = Runs::default();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for sender in 0..8 {
            let (keeper, runs) = (&keeper, &runs);
            scope.spawn(move || {
                for key in (sender..KEYS).step_by(8) {
                    keeper
                        .blocking_run(runs.bump(numbers, key).idempotent(key.to_be_bytes()))
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(runs.count() as u64, KEYS);
    let stored_in = begun.elapsed();
    let before = stats(&keeper).environment;
    // Meanwhile others get their turn.
    let mut longest = Duration::ZERO;
    let mut updates = 0;
    until_within(window + SOON, || {
        let sent = Instant::now();
        put(&keeper, numbers, 1, 1).unwrap();
        updates += 1;
        longest = longest.max(sent.elapsed());
        entries(&keeper) == Some(1)
    });
    let after = stats(&keeper).environment;
    let sweeps = after.bodies - before.bodies - updates;
    if stored_in < window {
        // At most 64 at a time.
        assert!(sweeps >= KEYS / 64, "{sweeps} sweeps");
    }
    assert!(longest < SOON, "an update waited {longest:?}");
}

fn until_within(limit: Duration, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < limit, "not reached");
    }
}
