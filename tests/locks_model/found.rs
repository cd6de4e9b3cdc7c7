//! What the histories have found, each as short as it gets.

use lockkeeper::{Mode, VictimPolicy};

use super::calls::Patience;
use super::pair::Pair;
use super::small::{CONFIG, ask, begin, child};
use super::step::Step;
use super::words::{Config, Timeouts};

fn agree(config: Config, steps: &[Step]) {
    let mut pair = Pair::new(config);
    for (at, step) in steps.iter().enumerate() {
        if let Err(difference) = pair.run(step) {
            panic!("step {at}, {step:?}: {}", difference.0);
        }
    }
}

fn patiently(slot: u8, object: u8, patience: Patience) -> Step {
    Step::Request {
        slot,
        object,
        mode: Mode::Write,
        from: None,
        patience: Some(patience),
    }
}

/// `Denied::Dead` names the conflict that killed the locker, not a later one that killed its parent.
#[test]
fn who_is_dead_is_not_killed_again() {
    let steps = [
        begin(0),
        begin(1),
        child(2, 1),
        ask(0, 0, Mode::Write),
        patiently(2, 0, Patience::For(5)),
        Step::Advance(6, 1),
        ask(1, 1, Mode::Write),
        ask(0, 1, Mode::Write),
        ask(1, 0, Mode::Write),
        ask(2, 2, Mode::Read),
    ];
    agree(CONFIG, &steps);
}

/// Every call that brings a moment tells the table the time: here when a lock was granted.
#[test]
fn set_detect_tells_the_time() {
    let timeouts = Timeouts {
        max_hold: 50,
        ..CONFIG.timeouts
    };
    let steps = [
        begin(0),
        begin(1),
        ask(0, 0, Mode::Write),
        ask(1, 0, Mode::Write),
        Step::Advance(15, 0),
        Step::SetDetect(true, VictimPolicy::Oldest),
        Step::End(0),
    ];
    agree(Config { timeouts, ..CONFIG }, &steps);
}

/// A timeout of zero is none, for a request too.
#[test]
fn a_request_that_waits_at_most_zero_waits_for_ever() {
    let steps = [
        begin(0),
        begin(1),
        ask(0, 0, Mode::Write),
        patiently(1, 0, Patience::For(0)),
        Step::Advance(1, 1),
    ];
    agree(CONFIG, &steps);
}
