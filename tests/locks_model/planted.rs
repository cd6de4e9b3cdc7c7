//! That the comparison finds what is wrong: faults planted on purpose, and cores that go by other rules.

use lockkeeper::{ConflictTable, Mode, VictimPolicy};

use super::core::Core;
use super::fault::{ALL, Fault, Plan};
use super::pair::Pair;
use super::scenes::{self, Theme};
use super::words::Config;

const STEPS: usize = 250;
const HISTORIES: u64 = 40;

fn numbers(seed: u64) -> Vec<u64> {
    (0..STEPS as u64).map(|at| (seed << 32) + at).collect()
}

/// Runs the histories with a fault; answers in how many it was done, and in how many of these found.
fn found(make: impl Fn(Config) -> Pair, change: impl Fn(&mut Config)) -> (usize, usize) {
    let (mut done, mut found) = (0, 0);
    for seed in 0..HISTORIES {
        let theme = match seed % 2 {
            0 => Theme::Hot,
            _ => Theme::Clocks,
        };
        let mut config = scenes::config(theme, seed);
        change(&mut config);
        let mut pair = make(config);
        let steps = scenes::history(theme, &numbers(seed), STEPS);
        let difference = steps.iter().find_map(|step| pair.run(step).err());
        let difference = difference.or_else(|| pair.finish().err());
        done += usize::from(pair.plan.done);
        found += usize::from(difference.is_some());
    }
    (done, found)
}

#[test]
fn every_planted_fault_is_found() {
    for fault in ALL {
        let make = |config| Pair::with(Core::new(config), config, Plan::of(fault));
        let (done, found) = found(make, |config| {
            config.on_block = fault != Fault::SkipQueue && config.on_block;
            config.policy = VictimPolicy::Youngest;
        });
        assert!(
            done >= 3,
            "{fault:?} could be done in {done} histories only"
        );
        assert_eq!(found, done, "{fault:?}");
    }
}

/// Without a fault the same histories show no difference: what is found above is the fault.
#[test]
fn without_a_fault_nothing_is_found() {
    let (done, found) = found(Pair::new, |_| ());
    assert_eq!((done, found), (0, 0));
}

/// A core that goes by another policy, does not look for deadlocks, or shares what it must not share.
#[test]
fn a_core_with_other_rules_is_found() {
    let youngest = |config: &mut Config| {
        config.on_block = true;
        config.policy = VictimPolicy::Youngest;
    };
    let other_policy = |config| {
        let policy = VictimPolicy::Oldest;
        Pair::with(
            Core::new(Config { policy, ..config }),
            config,
            Plan::default(),
        )
    };
    let blind = |config| {
        let on_block = false;
        Pair::with(
            Core::new(Config { on_block, ..config }),
            config,
            Plan::default(),
        )
    };
    let lax = |config| {
        let (all, none) = ([true; 6], [false, false, false, false, false, true]);
        let rows: [&[bool]; 6] = [&none, &none, &none, &none, &none, &all];
        let table = ConflictTable::new(&Mode::ALL, &rows).expect("a square table");
        Pair::with(Core::with_conflicts(config, table), config, Plan::default())
    };
    for (what, (_, found)) in [
        ("another policy", found(other_policy, youngest)),
        ("no detection", found(blind, youngest)),
        ("another conflict table", found(lax, youngest)),
    ] {
        assert!(
            found > HISTORIES as usize * 3 / 4,
            "{what}: {found} of {HISTORIES}"
        );
    }
}
