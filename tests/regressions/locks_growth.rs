//! What a call of the lock table costs while the table stands still for it, with four times as much in it.
//!
//! All of these measure time by the clock on the wall, which says nothing on a machine that does something else besides. So they
//! are not among the tests that always run (`scripts/test`), but run alone:
//! `cargo test --release --test regressions locks_growth -- --ignored --test-threads 1`. The table keeps no count of its
//! steps that could stand for the time; what the benchmark (`cargo bench --bench locks`) measures is in the README.

use std::time::{Duration, Instant};

use lockkeeper::lock_core::{
    Denied, Effect, LockerSpec, Moment, Op, Patience, Sequence, Table, TableConfig,
};
use lockkeeper::{LockerId, Mode, Object};

use super::locks_core::{Driver, request};

/// Linear, and what an index adds, but far from the square.
const LINEAR: f64 = 8.0;
/// Whatever the size is.
const CONSTANT: f64 = 2.0;

/// Asserts how much longer it takes with four times as much: 1 for what does not depend on it, 4 for what grows
/// with it, 16 for its square. Of each the shortest of several runs counts, and more of them are made as long as
/// a busy machine could be the reason.
#[track_caller]
fn grows(at_most: f64, few: usize, run: impl Fn(usize) -> Duration) {
    let (mut one, mut four) = (Duration::MAX, Duration::MAX);
    let mut growth = f64::MAX;
    for _ in 0..8 {
        (one, four) = (one.min(run(few)), four.min(run(few * 4)));
        growth = four.as_secs_f64() / one.as_secs_f64();
        if growth < at_most {
            return;
        }
    }
    panic!(
        "{few} take {one:?}, {} take {four:?}: {growth:.1} times as long",
        few * 4
    );
}

fn point(number: usize) -> Object {
    Object::new("n", (number as u64).to_be_bytes())
}

fn took(run: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    run();
    begun.elapsed()
}

#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn a_detection_with_a_range_over_many_waited_for_points() {
    grows(LINEAR, 500, |points| {
        let mut driver = Driver::new(TableConfig {
            detect_on_block: false,
            ..TableConfig::default()
        });
        let auditor = driver.begin();
        for number in 0..points {
            let (holder, waiter) = (driver.begin(), driver.begin());
            driver.take(holder, &point(number), Mode::Write);
            assert!(driver.ask(waiter, &point(number), Mode::Write).is_some());
        }
        assert!(
            driver
                .ask(auditor, &Object::whole("n"), Mode::Read)
                .is_some()
        );
        took(|| {
            driver
                .table
                .detect(Moment(0), Default::default(), &mut driver.effects);
        })
    });
}

#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn a_sequence_that_releases_many_locks() {
    grows(LINEAR, 500, |locks| {
        let mut driver = Driver::new(TableConfig::default());
        let locker = driver.begin();
        for number in 0..locks {
            driver.take(locker, &point(number), Mode::Write);
        }
        let mut sequence = Sequence::new(
            locker,
            vec![Op::ReleaseAll],
            true,
            std::panic::Location::caller(),
        );
        took(|| {
            sequence.run(&mut driver.table, || Moment(0), &mut driver.effects);
        })
    });
}

/// A request that blocks while somebody waits for a range over many points.
#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn a_request_that_blocks_beneath_a_range_that_is_waited_for() {
    grows(CONSTANT, 2000, |points| {
        let mut driver = Driver::new(TableConfig::default());
        let (holder, auditor, one) = (driver.begin(), driver.begin(), driver.begin());
        for number in 0..points {
            driver.take(holder, &point(number), Mode::Write);
        }
        // Somewhere else, so that it holds more locks than there are objects with waiters.
        for number in 0..3 {
            let elsewhere = Object::new("elsewhere", [number]);
            driver.take(one, &elsewhere, Mode::Write);
        }
        assert!(
            driver
                .ask(auditor, &Object::whole("n"), Mode::Read)
                .is_some()
        );
        let mut shortest = Duration::MAX;
        for _ in 0..10 {
            let mut wait = None;
            shortest = shortest.min(took(|| wait = driver.ask(one, &point(7), Mode::Write)));
            let wait = wait.unwrap();
            assert!(driver.table.withdraw(wait, &mut driver.effects));
        }
        shortest
    });
}

/// A range over many points is asked for by somebody for whom others wait.
#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn a_range_asked_for_by_a_family_for_which_many_wait() {
    let ask = |waiting: usize| {
        let mut driver = Driver::new(TableConfig::default());
        let auditor = driver.begin();
        let hot = Object::new("elsewhere", "hot");
        driver.take(auditor, &hot, Mode::Write);
        for _ in 0..waiting {
            let waiter = driver.begin();
            assert!(driver.ask(waiter, &hot, Mode::Write).is_some());
        }
        for number in 0..3000 {
            let holder = driver.begin();
            driver.take(holder, &point(number), Mode::Write);
        }
        let mut waits = None;
        let took = took(|| waits = driver.ask(auditor, &Object::whole("n"), Mode::Read));
        assert!(waits.is_some());
        took
    };
    grows(CONSTANT, 30, ask);
}

#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn ranges_that_overlap_each_other() {
    grows(LINEAR, 250, |ranges| {
        let mut driver = Driver::new(TableConfig::default());
        let lockers: Vec<LockerId> = (0..ranges).map(|_| driver.begin()).collect();
        took(|| {
            for (number, locker) in lockers.into_iter().enumerate() {
                let from = Object::range("n", (number as u64).to_be_bytes()..).unwrap();
                driver.take(locker, &from, Mode::Read);
            }
        })
    });
}

/// Readers go while somebody waits for a range above them, who has to wait for one writer all the time.
#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn releases_beneath_a_range_that_is_waited_for() {
    grows(LINEAR, 500, |points| {
        let mut driver = Driver::new(TableConfig::default());
        let (reader, writer, auditor) = (driver.begin(), driver.begin(), driver.begin());
        for number in 0..points {
            driver.take(reader, &point(number), Mode::Read);
        }
        driver.take(writer, &point(points), Mode::Write);
        assert!(
            driver
                .ask(auditor, &Object::whole("n"), Mode::Read)
                .is_some()
        );
        took(|| {
            for number in 0..points {
                let table = &mut driver.table;
                assert!(table.unlock(reader, &point(number), Mode::Read, &mut driver.effects));
            }
        })
    });
}

/// A range that is not available at once, in a table with many objects that are elsewhere.
#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn the_refusal_of_a_range() {
    grows(CONSTANT, 5000, |objects| {
        let mut table = Table::new(TableConfig::default());
        let mut effects: Vec<Effect> = Vec::new();
        let mut begin = || table.begin(Moment(0), LockerSpec::new()).unwrap();
        let (holder, asker) = (begin(), begin());
        for number in 0..objects {
            let elsewhere = Object::new("elsewhere", (number as u64).to_be_bytes());
            let asked = request(holder, &elsewhere, Mode::Write, None);
            table.try_lock(asked, &mut effects).unwrap();
        }
        let one = point(1);
        table
            .try_lock(request(holder, &one, Mode::Write, None), &mut effects)
            .unwrap();
        let whole = Object::whole("n");
        let mut refuse = || {
            let asked = request(asker, &whole, Mode::Read, None);
            let refused = table.request(Moment(0), asked, Patience::No, &mut effects);
            assert!(matches!(refused, Err(Denied::NotAvailable(_))));
        };
        refuse();
        (0..10).map(|_| took(&mut refuse)).min().unwrap()
    });
}

#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn a_family_whose_children_all_wait_for_one_object() {
    grows(LINEAR, 250, |children| {
        let mut driver = Driver::new(TableConfig::default());
        let (holder, parent) = (driver.begin(), driver.begin());
        driver.take(holder, &point(0), Mode::Write);
        for _ in 0..children {
            let child = driver.child(parent);
            assert!(driver.ask(child, &point(0), Mode::Read).is_some());
        }
        took(|| {
            driver.table.end(holder, &mut driver.effects);
        })
    });
}

#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn a_family_that_ends_with_all_its_children() {
    grows(LINEAR, 500, |children| {
        let mut driver = Driver::new(TableConfig::default());
        let parent = driver.begin();
        for number in 0..children {
            let child = driver.child(parent);
            driver.take(child, &point(number), Mode::Read);
        }
        took(|| {
            driver.table.end(parent, &mut driver.effects);
        })
    });
}

#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn waits_that_all_end_at_one_deadline() {
    grows(LINEAR, 1000, |waiters| {
        let mut driver = Driver::new(TableConfig::default());
        let holder = driver.begin();
        driver.take(holder, &point(0), Mode::Read);
        for number in 0..waiters {
            let waiter = driver.begin();
            let mode = [Mode::Write, Mode::Read][number % 2];
            let patience = Patience::For(std::time::Duration::from_nanos(5));
            assert!(driver.ask_for(waiter, &point(0), mode, patience).is_some());
        }
        took(|| while driver.table.expire(Moment(5), 64, &mut driver.effects) {})
    });
}

#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn a_detection_with_one_family_that_waits_many_times() {
    grows(LINEAR, 500, |waits| {
        let mut driver = Driver::new(TableConfig {
            detect_on_block: false,
            ..TableConfig::default()
        });
        let parent = driver.begin();
        for number in 0..waits {
            let (holder, child) = (driver.begin(), driver.child(parent));
            driver.take(holder, &point(number), Mode::Write);
            assert!(driver.ask(child, &point(number), Mode::Write).is_some());
        }
        took(|| {
            driver
                .table
                .detect(Moment(0), Default::default(), &mut driver.effects);
        })
    });
}

#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn a_detection_with_a_long_queue() {
    grows(LINEAR, 1000, |waiters| {
        let mut driver = Driver::new(TableConfig {
            detect_on_block: false,
            ..TableConfig::default()
        });
        let holder = driver.begin();
        driver.take(holder, &point(0), Mode::Write);
        for _ in 0..waiters {
            let waiter = driver.begin();
            assert!(driver.ask(waiter, &point(0), Mode::Write).is_some());
        }
        took(|| {
            driver
                .table
                .detect(Moment(0), Default::default(), &mut driver.effects);
        })
    });
}

#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn a_request_withdrawn_from_many_of_one_locker() {
    grows(LINEAR, 500, |waits| {
        let mut driver = Driver::new(TableConfig::default());
        let (holder, locker) = (driver.begin(), driver.begin());
        let mut all = Vec::new();
        for number in 0..waits {
            driver.take(holder, &point(number), Mode::Write);
            all.extend(driver.ask(locker, &point(number), Mode::Write));
        }
        let table = &mut driver.table;
        took(|| {
            for wait in all {
                assert!(table.withdraw(wait, &mut driver.effects));
            }
        })
    });
}

#[test]
#[ignore = "it measures time: run it alone, on a quiet machine"]
fn a_release_of_what_many_of_one_locker_wait_for() {
    grows(LINEAR, 500, |waits| {
        let mut driver = Driver::new(TableConfig::default());
        let (holder, locker) = (driver.begin(), driver.begin());
        for number in 0..waits {
            driver.take(holder, &point(number), Mode::Write);
            assert!(driver.ask(locker, &point(number), Mode::Write).is_some());
        }
        let table = &mut driver.table;
        took(|| {
            table.end(holder, &mut driver.effects);
        })
    });
}
