//! The whole core that the actor of leases drives, in several processes at once, against a store that has a clock of its own: any
//! order of wishes, dropped futures, sends, answers, delays, losses, clock steps, suspends and crashes; and then all faults end.

use std::time::Duration;

use lockkeeper::lease_core::{Book, Bounds, ClaimAnswer, Effect, Moment, Wish};
use lockkeeper::{Claimed, Fence, LeaseName};
use proptest::prelude::*;

use crate::book_store::{MS, NAMES, SKEW_MS};
use crate::book_world::{EXPIRATIONS, Learns, PROCESSES, Step, Wanted, World, timing};

/// So many histories; `PROPTEST_CASES` says otherwise.
const HISTORIES: u32 = 1_000;

fn cases() -> u32 {
    let told = std::env::var("PROPTEST_CASES").ok();
    told.map_or(HISTORIES, |told| {
        told.parse().expect("PROPTEST_CASES is a number")
    })
}

/// Takes numbers out of one.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        let taken = self.0 % most;
        self.0 /= most;
        taken
    }

    fn index(&mut self, most: usize) -> usize {
        let most = u64::try_from(most).expect("there are few");
        usize::try_from(self.below(most)).expect("it is below")
    }

    fn learns(&mut self) -> Learns {
        match self.below(9) {
            0..4 => Learns::ByItsClock,
            4..8 => Learns::AtOnce,
            _ => Learns::AndStops,
        }
    }

    fn wanted(&mut self) -> Wanted {
        match self.below(7) {
            0..4 => Wanted::Acquire,
            4 => Wanted::Try,
            _ => Wanted::Timeout(1 + self.below(3_000)),
        }
    }
}

/// What a number stands for. A strategy for each kind of step would take most of the time of the test.
fn step(number: u64) -> Step {
    let mut dice = Dice(number);
    match dice.below(100) {
        0..16 => Step::Ask {
            process: dice.index(PROCESSES),
            name: dice.index(NAMES),
            expiration: dice.index(EXPIRATIONS.len()),
            slow: dice.below(2) == 1,
            wish: dice.wanted(),
        },
        16..28 => Step::Arrive(dice.index(64)),
        28..40 => Step::Answer(dice.index(64)),
        40..52 => Step::Deliver(1 + dice.index(5)),
        52..58 => Step::Pass(dice.below(300), dice.below(2) == 1),
        58..62 => Step::Pass(dice.below(3_000), dice.below(2) == 1),
        62 => Step::Pass(20_000, dice.below(2) == 1),
        63..69 => Step::Release(dice.index(64)),
        69..74 => Step::DropGuard(dice.index(64)),
        74..77 => Step::DropFuture(dice.index(64)),
        77..80 => Step::Tick(dice.index(PROCESSES)),
        80..83 => Step::LoseAnswer(dice.index(64), dice.learns()),
        83..85 => Step::LoseQuestion(dice.index(64), dice.learns()),
        85..87 => Step::Break(dice.index(64), dice.below(10) == 0),
        87..89 => Step::Jump(dice.below(SKEW_MS + 1)),
        89..91 => Step::Extend(dice.index(64), dice.index(EXPIRATIONS.len())),
        91 | 92 => Step::Resume(dice.index(PROCESSES)),
        93 => Step::Suspend(dice.index(PROCESSES)),
        94 => Step::Crash(dice.index(PROCESSES)),
        95 => Step::Force(dice.index(PROCESSES), dice.index(NAMES)),
        96 => Step::Lock(dice.index(NAMES)),
        97 => Step::Listen(dice.index(PROCESSES)),
        _ => Step::Use(dice.index(64)),
    }
}

/// A close, if there is one, comes late: nothing much happens in a process after it.
fn history() -> impl Strategy<Value = Vec<Step>> {
    let numbers = prop::collection::vec(any::<u64>(), 1..150);
    (numbers, 0..12_usize).prop_map(|(numbers, close)| {
        let mut steps: Vec<Step> = numbers.into_iter().map(step).collect();
        if close < PROCESSES {
            steps.insert(steps.len() - steps.len() / 5, Step::Close(close));
        }
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn i09_i10_i12_whatever_happens_nobody_is_forgotten_and_no_two_believe(
        steps in history(),
        // Clocks gain or lose up to 1 %.
        rates in prop::array::uniform4(-10..=10_i64),
        seed in any::<u32>(),
    ) {
        let [store_rate, rates @ ..] = rates;
        let mut world = World::new(store_rate, rates, u64::from(seed));
        for step in &steps {
            world.step(step);
        }
        world.comes_to_rest();
    }
}

/// One who waits, with a lease that lasts a minute.
fn one(process: usize) -> Step {
    Step::Ask {
        process,
        name: 0,
        wish: Wanted::Acquire,
        expiration: 2,
        slow: false,
    }
}

#[track_caller]
fn comes_to_rest_after(steps: &[Step]) {
    let mut world = World::new(0, [0; PROCESSES], 1);
    for step in steps {
        world.step(step);
    }
    world.comes_to_rest();
}

#[test]
fn i12_a_lease_that_was_left_to_expire_is_forgotten() {
    comes_to_rest_after(&[one(0), Step::Deliver(2), Step::Use(0), Step::DropGuard(0)]);
}

#[test]
fn i12_a_claim_that_comes_after_the_release_of_what_a_later_one_got_leaves_nothing_held() {
    comes_to_rest_after(&[
        one(0),
        Step::Break(0, false), // given up, and on its way still
        Step::Pass(150, true), // asked again
        Step::Arrive(1),
        Step::Answer(0),
        Step::Tick(0),
        Step::Arrive(1), // the refresh that verifies it
        Step::Answer(0),
        Step::DropGuard(0),
        Step::Arrive(1), // given back
        Step::Answer(0),
        Step::Arrive(0), // and now the first claim comes
    ]);
}

/// The store says that it was stolen, and it is a claim of ours that has it.
#[test]
fn i12_what_a_late_claim_of_ours_took_is_given_back_though_a_refresh_found_it_stolen() {
    let short = Step::Ask {
        process: 0,
        name: 0,
        wish: Wanted::Acquire,
        expiration: 0,
        slow: false,
    };
    comes_to_rest_after(&[
        short,
        Step::Arrive(0),
        Step::LoseAnswer(0, Learns::AtOnce), // held for 2 s, and nobody knows
        Step::Pass(150, false),
        Step::Pass(1_200, true), // a second claim is given up, and on its way still; a third is sent
        Step::Pass(550, false),
        Step::Arrive(1), // the third: it is ours
        Step::Pass(120, false),
        Step::Answer(0), // to be verified by a refresh
        Step::Arrive(0), // what was held has expired, and the second claim takes it anew
        Step::Arrive(0), // the refresh finds another token
        Step::Pass(150, false),
        Step::Answer(0), // no claim can come late any more
    ]);
}

/// A pass is cut into questions of at most 500 leases, ordered by name, and takes every lease along.
#[test]
fn a_pass_of_many_leases_goes_in_chunks_of_at_most_five_hundred() {
    const MANY: usize = 1_201;
    let at = |millis: u64| Moment(millis * MS);
    let bounds = Bounds {
        waiters: 1,
        call_timeout: Duration::from_secs(1),
        seed: 1,
    };
    let mut book = Book::new(bounds);
    let mut fx = Vec::new();
    let wish = Wish {
        timing: timing(EXPIRATIONS[2]),
        poll: Duration::from_secs(1),
        until: None,
        once: false,
        fail_fast: false,
    };
    for n in 0..MANY {
        let name = LeaseName::new(format!("job{n:04}")).unwrap();
        book.ask(at(1), &name, wish.clone()).unwrap();
        book.advance(at(1), &name, &mut fx);
    }
    for claim in std::mem::take(&mut fx) {
        if let Effect::Claim { key, send, .. } = claim {
            let claimed = Claimed::Ours { token: Fence(1) };
            let foreign = false;
            let answer = ClaimAnswer::Claimed { claimed, foreign };
            book.claimed(at(2), key, send, answer, &mut Vec::new());
        }
    }
    book.tick(at(600), &mut fx);
    let mut refreshed = Vec::new();
    for effect in fx {
        if let Effect::Refresh(items) = effect {
            assert!(items.len() <= 500, "{}", items.len());
            refreshed.extend(items.into_iter().map(|item| item.name));
        }
    }
    assert_eq!(refreshed.len(), MANY);
    assert!(refreshed.is_sorted());
}
