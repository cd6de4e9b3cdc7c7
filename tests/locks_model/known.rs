//! The model alone, against outcomes worked out by hand from the rules: a model that is wrong in the
//! same way as the core would agree with it.

use lockkeeper::{Mode, VictimPolicy};

use super::calls::{Ask, Patience, Spec};
use super::model::Model;
use super::universe::Obj;
use super::words::{Answer, Config, Event, Kind, Slot, Timeouts, Why};

use Answer::{Done, Granted, Waits, Yes};
use Mode::{IntentWrite, Read, Update, Write};

pub const A: Obj = 0;
pub const B: Obj = 1;
pub const C: Obj = 2;
/// Both a and b.
pub const A_TO_B: Obj = 4;

pub const CONFIG: Config = Config {
    on_block: true,
    policy: VictimPolicy::Youngest,
    timeouts: Timeouts {
        lock: 0,
        no_wait: false,
        txn: 0,
        max_hold: 0,
        abort_on_max_hold: false,
    },
    limits: [100; 3],
    warning: 0,
};

pub const SPEC: Spec = Spec {
    priority: 100,
    lock_timeout: None,
    txn_timeout: None,
};

pub fn family(model: &mut Model, slot: Slot, parent: Option<Slot>, spec: Spec) {
    let number = u64::from(slot) + 1;
    assert_eq!(model.begin(slot, parent, spec, || (number, number)), Done);
}

/// A model with this many lockers, each a family of its own; the locker in slot n has number and age n + 1.
pub fn roots(count: Slot, config: Config) -> Model {
    let mut model = Model::new(config);
    for slot in 0..count {
        family(&mut model, slot, None, SPEC);
    }
    model
}

pub fn asks(model: &mut Model, locker: Slot, object: Obj, mode: Mode) -> Answer {
    patiently(model, locker, object, mode, Patience::Forever)
}

pub fn patiently(
    model: &mut Model,
    locker: Slot,
    object: Obj,
    mode: Mode,
    patience: Patience,
) -> Answer {
    let ask = Ask {
        locker,
        object,
        mode,
        from: None,
    };
    model.request(ask, Some(patience))
}

pub fn upgrades(model: &mut Model, locker: Slot, object: Obj, from: Mode, mode: Mode) -> Answer {
    let ask = Ask {
        locker,
        object,
        mode,
        from: Some(from),
    };
    model.request(ask, Some(Patience::Forever))
}

pub fn effects(model: &mut Model) -> Vec<Event> {
    std::mem::take(&mut model.events)
}

pub fn deadlock(arrival: u64) -> Event {
    Event::Refused(arrival, Why::Conflict(Kind::Deadlock))
}

#[test]
fn a_reader_does_not_pass_a_writer_that_waits() {
    let mut model = roots(3, CONFIG);
    assert_eq!(asks(&mut model, 0, A, Read), Granted);
    assert_eq!(asks(&mut model, 1, A, Write), Waits);
    assert_eq!(asks(&mut model, 2, A, Read), Waits);
    assert_eq!(model.unlock(0, A, Read), Yes(true));
    assert_eq!(effects(&mut model), [Event::Granted(0)]);
    assert_eq!(model.unlock(1, A, Write), Yes(true));
    assert_eq!(effects(&mut model), [Event::Granted(1)]);
}

#[test]
fn a_later_request_that_does_not_conflict_passes() {
    let mut model = roots(4, CONFIG);
    asks(&mut model, 0, A, Read);
    assert_eq!(asks(&mut model, 1, A, IntentWrite), Waits);
    assert_eq!(asks(&mut model, 2, A, Mode::IntentRead), Granted);
    assert_eq!(asks(&mut model, 3, A, Read), Waits);
}

#[test]
fn a_holder_comes_before_those_who_wait() {
    let mut model = roots(3, CONFIG);
    asks(&mut model, 0, A, Read);
    asks(&mut model, 1, A, Read);
    assert_eq!(asks(&mut model, 2, A, Write), Waits);
    assert_eq!(upgrades(&mut model, 0, A, Read, Update), Granted);
    assert_eq!(upgrades(&mut model, 0, A, Update, Write), Waits);
    model.unlock(1, A, Read);
    assert_eq!(effects(&mut model), [Event::Granted(1)]);
    let held = model.held[0];
    assert_eq!((model.held.len(), held.mode, held.count), (1, Write, 1));
}

#[test]
fn two_who_upgrade_are_a_deadlock_and_the_younger_dies() {
    let mut model = roots(2, CONFIG);
    asks(&mut model, 0, A, Read);
    asks(&mut model, 1, A, Read);
    assert_eq!(upgrades(&mut model, 1, A, Read, Write), Waits);
    assert_eq!(upgrades(&mut model, 0, A, Read, Write), Waits);
    // Its read lock stays until it is released: nothing is granted yet.
    let doomed = Event::Doomed(2, Kind::Deadlock);
    assert_eq!(effects(&mut model), [deadlock(0), doomed]);
    assert_eq!(asks(&mut model, 1, B, Read), Answer::Dead(Kind::Deadlock));
    assert_eq!(model.release_all(1), Answer::Count(1));
    assert_eq!(effects(&mut model), [Event::Granted(1)]);
    assert_eq!(asks(&mut model, 1, B, Read), Granted);
}

#[test]
fn nothing_conflicts_inside_a_family() {
    let mut model = roots(1, CONFIG);
    family(&mut model, 1, Some(0), SPEC);
    family(&mut model, 2, Some(0), SPEC);
    assert_eq!(asks(&mut model, 1, A, Write), Granted);
    assert_eq!(asks(&mut model, 2, A, Write), Granted);
    assert_eq!(asks(&mut model, 0, A, Write), Granted);
    // Committed, the child's lock is its parent's: one lock with two references.
    assert_eq!(model.commit(1), Done);
    assert_eq!(model.held.len(), 2);
    assert!(
        model
            .held
            .iter()
            .any(|held| held.locker == 0 && held.count == 2)
    );
}

#[test]
fn a_family_that_is_granted_one_lock_comes_first_with_its_next() {
    let mut model = roots(3, CONFIG);
    asks(&mut model, 0, A, Write);
    asks(&mut model, 1, A, Read);
    asks(&mut model, 2, A, Read);
    asks(&mut model, 1, A, Write);
    model.end(0);
    // 1 reads, so it holds; its write comes before 2's read, and nobody else holds.
    let events = effects(&mut model);
    assert_eq!(events[1..], [Event::Granted(0), Event::Granted(2)]);
}

/// `child_waits_while_parent_holds`: the child is on the cycle, but its death alone would not break it.
#[test]
fn the_victim_is_the_smallest_subtree_that_holds_what_is_waited_for() {
    let mut model = roots(1, CONFIG);
    family(&mut model, 1, None, SPEC);
    family(&mut model, 2, Some(1), SPEC);
    family(&mut model, 3, Some(1), SPEC);
    asks(&mut model, 0, A, Write);
    asks(&mut model, 1, B, Write);
    asks(&mut model, 2, A, Write);
    effects(&mut model);
    asks(&mut model, 0, B, Write);
    assert_eq!(
        effects(&mut model),
        [deadlock(0), Event::Doomed(2, Kind::Deadlock)]
    );

    // Here a child holds it and waits, and its death is enough: its sister and its parent live.
    let mut model = roots(2, CONFIG);
    family(&mut model, 2, Some(1), SPEC);
    family(&mut model, 3, Some(1), SPEC);
    asks(&mut model, 0, A, Write);
    asks(&mut model, 2, B, Write);
    asks(&mut model, 2, A, Write);
    asks(&mut model, 0, B, Write);
    assert_eq!(
        effects(&mut model),
        [deadlock(0), Event::Doomed(3, Kind::Deadlock)]
    );
    assert_eq!(model.death(3), None);
    assert_eq!(model.waiting.len(), 1);
    model.release_all(2);
    assert_eq!(effects(&mut model), [Event::Granted(1)]);

    // Here one child holds, and its sister waits: she has to be told, so their parent goes.
    let mut model = roots(2, CONFIG);
    family(&mut model, 2, Some(1), SPEC);
    family(&mut model, 3, Some(1), SPEC);
    asks(&mut model, 0, A, Write);
    asks(&mut model, 2, B, Write);
    asks(&mut model, 3, A, Write);
    asks(&mut model, 0, B, Write);
    assert_eq!(
        effects(&mut model),
        [deadlock(0), Event::Doomed(2, Kind::Deadlock)]
    );
}

#[test]
fn a_bystander_of_a_cycle_is_not_its_victim() {
    let mut model = roots(
        4,
        Config {
            on_block: false,
            ..CONFIG
        },
    );
    for (locker, object) in [(0, A), (1, B), (3, C), (0, B), (1, A), (3, A), (2, C)] {
        asks(&mut model, locker, object, Write);
    }
    // 4 waits for the cycle and is waited for, but does not keep it waiting: 2 dies, not the youngest.
    let report = model.detect(VictimPolicy::Default);
    assert_eq!(
        report,
        Answer::Detected {
            waiting: 4,
            victims: 1
        }
    );
    assert_eq!(
        effects(&mut model),
        [deadlock(1), Event::Doomed(2, Kind::Deadlock)]
    );
}

#[test]
fn the_lowest_priority_dies_before_the_youngest() {
    let mut model = Model::new(CONFIG);
    let low = Spec {
        priority: 50,
        ..SPEC
    };
    family(&mut model, 0, None, low);
    family(&mut model, 1, None, SPEC);
    asks(&mut model, 0, A, Write);
    asks(&mut model, 1, B, Write);
    asks(&mut model, 0, B, Write);
    asks(&mut model, 1, A, Write);
    assert_eq!(
        effects(&mut model),
        [deadlock(0), Event::Doomed(1, Kind::Deadlock)]
    );
}

#[test]
fn by_default_who_closes_a_cycle_is_its_victim_unless_it_is_the_oldest() {
    for (last, victim) in [(0, 2), (1, 1), (2, 2)] {
        let mut model = roots(
            3,
            Config {
                policy: VictimPolicy::Default,
                ..CONFIG
            },
        );
        for slot in 0..3 {
            asks(&mut model, slot, slot, Write);
        }
        for slot in [last + 1, last + 2, last].map(|slot| slot % 3) {
            asks(&mut model, slot, (slot + 1) % 3, Write);
        }
        let doomed = Event::Doomed(victim + 1, Kind::Deadlock);
        assert!(effects(&mut model).contains(&doomed), "{last}");
    }
}

#[test]
fn each_policy_has_its_own_victim() {
    // A ring of four; 1 and 2 hold more locks, 3 more write locks, none of them the oldest or youngest.
    for (policy, victim) in [
        (VictimPolicy::Oldest, 0),
        (VictimPolicy::MaxLocks, 1),
        (VictimPolicy::MinLocks, 3),
        (VictimPolicy::MaxWrite, 2),
        (VictimPolicy::MinWrite, 3),
        (VictimPolicy::Youngest, 3),
        (VictimPolicy::Default, 3),
        (VictimPolicy::Expire, 1),
    ] {
        let mut model = Model::new(Config {
            on_block: false,
            ..CONFIG
        });
        for slot in 0..4 {
            let txn_timeout = (slot == 1).then_some(5);
            family(
                &mut model,
                slot,
                None,
                Spec {
                    txn_timeout,
                    ..SPEC
                },
            );
        }
        for slot in 0..4 {
            asks(&mut model, slot, slot, Write);
        }
        for object in [9, 10] {
            asks(&mut model, 1, object, Read);
        }
        asks(&mut model, 0, 9, Read);
        asks(&mut model, 2, 9, IntentWrite);
        for slot in 0..4 {
            asks(&mut model, slot, (slot + 1) % 4, Write);
        }
        model.now = 6;
        let report = model.detect(policy);
        assert_eq!(
            report,
            Answer::Detected {
                waiting: 4,
                victims: 1
            }
        );
        let doomed = Event::Doomed(victim + 1, Kind::Deadlock);
        assert!(effects(&mut model).contains(&doomed), "{policy}");
    }
}

#[test]
fn a_range_waits_for_its_points_and_they_for_it() {
    let mut model = roots(3, CONFIG);
    asks(&mut model, 0, B, Write);
    assert_eq!(asks(&mut model, 1, A_TO_B, Read), Waits);
    assert_eq!(asks(&mut model, 2, A, Write), Waits, "behind the range");
    assert_eq!(asks(&mut model, 2, C, Write), Granted, "outside of it");
    assert_eq!(
        asks(&mut model, 0, A, Write),
        Waits,
        "holds b, not a: no holder there"
    );
    // The cycles are 1-2 and 1-3-2. The youngest on them dies first, and what is left of them has one more victim.
    let victims = [
        deadlock(1),
        Event::Doomed(3, Kind::Deadlock),
        deadlock(0),
        Event::Doomed(2, Kind::Deadlock),
        Event::Granted(2),
    ];
    assert_eq!(effects(&mut model), victims);
}

#[test]
fn a_namespace_may_have_a_table_of_its_own() {
    let mut model = roots(3, CONFIG);
    assert_eq!(asks(&mut model, 0, 9, Update), Answer::UnknownMode);
    assert_eq!(asks(&mut model, 0, 9, Read), Granted);
    assert_eq!(
        asks(&mut model, 1, 9, IntentWrite),
        Granted,
        "lets a reader be"
    );
    assert_eq!(
        asks(&mut model, 2, 9, Read),
        Waits,
        "but keeps new ones out"
    );
    assert_eq!(model.downgrade(1, 9, IntentWrite, Read), Answer::NotWeaker);
    assert_eq!(model.downgrade(0, A, Write, Read), Answer::NotHeld);
}
