//! The core of the lock table against a naive model of it, call by call.
//!
//! The model keeps flat lists, decides by looking at everything, and finds cycles by transitive
//! closure: slow, and short enough to be seen right. It is written from the rules, and where they leave
//! a choice (which of several separate cycles is broken first, the draw of the random policy) it takes
//! the core's choice if that is one of those allowed.
//!
//! After each call everything has to agree: the answer; all effects, and for objects that overlap the
//! order of grants; what is held, how often, and who waits in which order; the next deadline; lockers, locks and
//! objects in use. A history that fails is cut down to a few steps before it is shown.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

mod calls;
mod clocks;
mod compare;
mod core;
mod fault;
mod found;
mod known;
mod known_clocks;
mod model;
mod pair;
mod planted;
mod scenes;
mod sequences;
mod small;
mod step;
mod tally;
mod telling;
mod universe;
mod victims;
mod words;

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use compare::Difference;
use pair::Pair;
use scenes::Theme;
use step::Step;
use tally::Tally;

/// Of each of the four themes: together 1,000 histories of 1,000 steps, unless more are asked for.
const HISTORIES: u32 = 250;
const STEPS: usize = 1000;

fn run(theme: Theme, seed: u64, steps: &[Step]) -> Result<Tally, (usize, Difference)> {
    let mut pair = Pair::new(scenes::config(theme, seed));
    for (at, step) in steps.iter().enumerate() {
        pair.run(step).map_err(|difference| (at, difference))?;
    }
    let end = match seed % 4 {
        0 => pair.close(),
        _ => pair.finish(),
    };
    end.map_err(|difference| (steps.len(), difference))?;
    Ok(pair.tally)
}

/// The steps as they were taken.
fn told(theme: Theme, seed: u64, steps: &[Step]) -> Vec<Step> {
    let mut pair = Pair::new(scenes::config(theme, seed));
    let mut taken = Vec::new();
    for step in steps {
        taken.extend(step.resolve(&pair.model));
        let outcome = catch_unwind(AssertUnwindSafe(|| pair.run(step)));
        if !matches!(outcome, Ok(Ok(()))) {
            break;
        }
    }
    taken
}

/// Takes steps out, in ever smaller pieces, as long as the history still fails.
fn shortest(theme: Theme, seed: u64, mut steps: Vec<Step>) -> Vec<Step> {
    let fails = |steps: &[Step]| {
        let outcome = catch_unwind(|| run(theme, seed, steps));
        !matches!(outcome, Ok(Ok(_)))
    };
    if let Ok(Err((at, _))) = catch_unwind(|| run(theme, seed, &steps)) {
        steps.truncate(at + 1);
    }
    let mut piece = steps.len() / 2;
    while piece > 0 {
        let before = steps.len();
        let mut at = 0;
        while at < steps.len() {
            let mut without = steps.clone();
            without.drain(at..(at + piece).min(steps.len()));
            match fails(&without) {
                true => steps = without,
                false => at += piece,
            }
        }
        // Once more one by one, as long as that helps.
        piece = match piece {
            1 if steps.len() < before => 1,
            _ => piece / 2,
        };
    }
    steps
}

/// The histories of a theme. The seed is printed; with `LOCKS_MODEL_SEED` set, it is that one, and with
/// `LOCKS_MODEL_HISTORIES` set there are so many of each theme.
fn histories(theme: Theme) -> Tally {
    let count = match std::env::var("LOCKS_MODEL_HISTORIES") {
        Ok(text) => text.parse().expect("LOCKS_MODEL_HISTORIES is a number"),
        Err(_) => HISTORIES,
    };
    let number: u64 = match std::env::var("LOCKS_MODEL_SEED") {
        Ok(text) => text.parse().expect("LOCKS_MODEL_SEED is a number"),
        // The standard library's hash maps are seeded by the system, and this is how to get at it.
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    println!("{theme:?}: LOCKS_MODEL_SEED={number}");
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let config = ProptestConfig {
        cases: count,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let numbers = proptest::collection::vec(any::<u64>(), STEPS);
    let total = RefCell::new(Tally::default());
    let outcome = runner.run(&(any::<u64>(), numbers), |(seed, numbers)| {
        let steps = scenes::history(theme, &numbers, STEPS);
        assert_eq!(steps.len(), STEPS);
        let failed = catch_unwind(|| run(theme, seed, &steps));
        if let Ok(Ok(tally)) = failed {
            total.borrow_mut().add(&tally);
            return Ok(());
        }
        let steps = shortest(theme, seed, steps);
        let config = scenes::config(theme, seed);
        let difference = match catch_unwind(|| run(theme, seed, &steps)) {
            Ok(Err((at, difference))) => format!("step {at}: {}", difference.0),
            Ok(Ok(_)) => "nothing, when run again".to_owned(),
            Err(_) => "a panic".to_owned(),
        };
        let mut story = format!("{difference}\n{config:?}\n");
        for step in told(theme, seed, &steps) {
            story += &format!("    {step:?},\n");
        }
        Err(TestCaseError::fail(story))
    });
    if let Err(error) = outcome {
        match error {
            TestError::Fail(why, _) => {
                panic!("{theme:?}, LOCKS_MODEL_SEED={number}: {why}")
            }
            TestError::Abort(why) => panic!("{why}"),
        }
    }
    let total = total.into_inner();
    println!("{theme:?}: {total:?}");
    total
}

/// Histories in which nothing happens would find nothing.
fn assert_is_lively(total: &Tally) {
    assert!(total.grants > 20_000, "{total:?}");
    assert!(total.waits > 10_000, "{total:?}");
    assert!(total.crowded > 4_000, "{total:?}");
    assert!(total.deadlocks > 1_000, "{total:?}");
}

#[test]
fn i05_i06_i07_the_core_agrees_with_the_model_on_hot_objects() {
    let total = histories(Theme::Hot);
    assert_is_lively(&total);
    assert!(total.upgrade_waits > 500, "{total:?}");
}

#[test]
fn i05_i06_i07_the_core_agrees_with_the_model_on_families() {
    let total = histories(Theme::Families);
    assert_is_lively(&total);
    assert!(total.child_victims > 100, "{total:?}");
}

#[test]
fn i05_i06_i07_the_core_agrees_with_the_model_on_ranges() {
    let total = histories(Theme::Ranges);
    assert_is_lively(&total);
    assert!(total.range_waits > 5_000, "{total:?}");
}

#[test]
fn i05_i06_i07_i13_the_core_agrees_with_the_model_on_clocks_and_limits() {
    let total = histories(Theme::Clocks);
    assert_is_lively(&total);
    let timeouts = [
        total.lock_timeouts,
        total.txn_timeouts,
        total.held_too_long,
        total.limits_met,
    ];
    assert!(timeouts.iter().all(|count| *count > 200), "{total:?}");
}
