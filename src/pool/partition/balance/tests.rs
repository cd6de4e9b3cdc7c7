//! The simulation, and single decisions.

use proptest::prelude::*;

use super::super::sight::Live;
use super::model::{EXPIRATION, Fault, MS, POLL, World};
use super::*;

/// Faults have ended for so long: every lease of the dead has expired, and what was kept beyond a share is a surplus again.
const HEALED: Duration = Duration::from_millis(1_000 + 100 * 45);

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::Start),
        2 => any::<usize>().prop_map(Fault::Stop),
        2 => any::<usize>().prop_map(Fault::Kill),
        2 => (any::<usize>(), 1..3_000_u64).prop_map(|(nth, time)| Fault::Freeze(nth, time)),
        1 => (1..2_500_u64).prop_map(Fault::StoreAway),
        1 => (0..4_u32).prop_map(Fault::ForceMember),
        1 => (0..12_u32).prop_map(Fault::Resize),
    ]
}

/// All faults have ended: everything must heal, and then nothing may move any more.
fn heals(world: &mut World) {
    world.run(3_000 * MS);
    if world.alive().next().is_none() {
        world.fault(Fault::Start);
    }
    world.run(HEALED);
    let (loads, partitions) = (world.loads(), world.partitions());
    let least = partitions / u32::try_from(loads.len()).unwrap();
    assert_eq!(loads.iter().sum::<u32>(), partitions, "{loads:?}");
    assert!(loads.iter().all(|load| load - least <= 1), "{loads:?}");
    for process in &world.processes {
        assert!(!process.leaving || !process.alive || process.balancer.is_done());
    }

    let moves = world.moves;
    world.run(60 * POLL);
    assert_eq!(world.moves, moves, "something moves though nothing happens");
    assert_eq!(world.loads(), loads);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 2_000 }))]

    #[test]
    fn i09_no_partition_is_held_twice_and_all_are_held_evenly_when_faults_end(
        partitions in 0..12_u32,
        seed: u64,
        faults in proptest::collection::vec((any_fault(), 0..1_500_u64), 0..14),
    ) {
        let mut world = World::new(partitions, seed);
        world.fault(Fault::Start);
        for (fault, pause) in faults {
            world.run(Duration::from_millis(pause));
            world.fault(fault);
        }
        heals(&mut world);
    }
}

fn started(partitions: u32, processes: usize) -> World {
    let mut world = World::new(partitions, 7);
    for _ in 0..processes {
        world.fault(Fault::Start);
    }
    world.run(HEALED);
    world
}

#[test]
fn what_a_dead_process_held_is_taken_over_within_the_expiration_and_a_poll() {
    for seed in 0..50 {
        let mut world = started(8, 3);
        world.run(Duration::from_millis(seed * 7));
        world.fault(Fault::Kill(usize::try_from(seed).unwrap()));
        world.run(EXPIRATION + POLL);
        let mut loads = world.loads();
        loads.sort_unstable();
        assert_eq!(loads, [4, 4], "{seed}");
    }
}

#[test]
fn one_that_joins_gets_its_share_and_no_more_than_that_moves() {
    let mut world = started(9, 2);
    let before = world.gives;
    world.fault(Fault::Start);
    world.run(10 * POLL);
    assert_eq!(world.loads(), [3, 3, 3]);
    assert_eq!(world.gives - before, 3);
}

#[test]
fn a_process_that_is_away_for_less_than_its_expiration_moves_nothing() {
    let mut world = started(8, 3);
    let moves = world.moves;
    for nth in 0..3 {
        world.fault(Fault::Freeze(nth, 700));
        world.run(1_500 * MS);
    }
    assert_eq!(world.moves, moves);
}

#[test]
fn more_processes_than_partitions_leave_some_in_reserve() {
    let mut world = started(3, 5);
    let loads = world.loads();
    assert_eq!(loads.iter().sum::<u32>(), 3);
    assert!(loads.iter().all(|load| *load <= 1), "{loads:?}");
    world.fault(Fault::Kill(
        loads.iter().position(|load| *load == 1).unwrap(),
    ));
    world.run(EXPIRATION + POLL);
    assert_eq!(world.loads().iter().sum::<u32>(), 3);
}

#[test]
fn the_store_is_asked_for_the_list_once_a_poll_when_nothing_happens() {
    let mut world = started(8, 3);
    let looks = world.looks;
    world.run(100 * POLL);
    let looks = world.looks - looks;
    assert!((240..=300).contains(&looks), "{looks}");
}

#[test]
fn those_who_start_together_fight_little() {
    // Each has an order of its own, so that most find what they try for free.
    let mut world = World::new(32, 3);
    for _ in 0..4 {
        world.fault(Fault::Start);
    }
    world.run(HEALED);
    assert_eq!(world.loads(), [8, 8, 8, 8]);
    assert!(world.moves < 32 * 5, "{}", world.moves);
}

fn live(by: &str) -> Live {
    Live {
        by: Some(by.into()),
        remaining: Duration::from_secs(300),
    }
}

fn sight(members: &[&str], partitions: &[(u32, &str)]) -> Sight {
    Sight {
        members: (0..).zip(members.iter().map(|by| live(by))).collect(),
        partitions: partitions.iter().map(|(at, by)| (*at, live(by))).collect(),
    }
}

/// A balancer that has joined in slot 0 at this moment.
fn joined(partitions: u32) -> (Balancer, Moment) {
    let mut fx = Vec::new();
    let mut balancer = Balancer::new("me".into(), partitions, POLL, 1);
    let now = Moment(0);
    balancer.tick(now, &mut fx);
    balancer.looked(now, Some(Sight::default()), &mut fx);
    assert_eq!(fx, [Effect::Look, Effect::Join(0)]);
    balancer.joined(now, 0, Tried::Got, &mut fx);
    (balancer, now)
}

fn look(balancer: &mut Balancer, now: Moment, seen: Sight) -> Vec<Effect> {
    let mut fx = Vec::new();
    balancer.tick(now, &mut fx);
    assert_eq!(fx, [Effect::Look]);
    fx.clear();
    balancer.looked(now, Some(seen), &mut fx);
    fx
}

#[test]
fn a_slot_that_somebody_was_quicker_to_take_is_followed_by_the_next_at_once() {
    let mut fx = Vec::new();
    let mut balancer = Balancer::new("me".into(), 4, POLL, 1);
    balancer.tick(Moment(0), &mut fx);
    balancer.looked(Moment(0), Some(sight(&["a"], &[])), &mut fx);
    balancer.joined(Moment(0), 1, Tried::Busy, &mut fx);
    balancer.joined(Moment(0), 2, Tried::Failed, &mut fx);
    assert_eq!(fx, [Effect::Look, Effect::Join(1), Effect::Join(2)]);
}

#[test]
fn a_surplus_that_one_look_shows_is_kept() {
    let (mut balancer, mut now) = joined(2);
    let fx = look(&mut balancer, now, sight(&["me"], &[]));
    let tries: Vec<u32> = fx
        .iter()
        .map(|effect| match effect {
            Effect::Try(partition) => *partition,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tries.len(), 2);
    for partition in &tries {
        balancer.tried(now, *partition, Tried::Got, &mut Vec::new());
    }
    let mine = [(0, "me"), (1, "me")];
    for seen in [&["me", "you"][..], &["me"], &["me", "you"], &["me"]] {
        now = now.after(POLL);
        assert_eq!(look(&mut balancer, now, sight(seen, &mine)), []);
    }
    for _ in 0..2 {
        now = now.after(POLL);
        let fx = look(&mut balancer, now, sight(&["me", "you"], &mine));
        if !fx.is_empty() {
            // What it tried for first it keeps.
            assert_eq!(fx, [Effect::Give(tries[1])]);
            return;
        }
    }
    panic!("the surplus was kept for ever");
}

#[test]
fn a_partition_that_those_whose_turn_it_is_do_not_take_is_taken_by_another() {
    let (mut balancer, mut now) = joined(2);
    // The other one lives, and does nothing.
    let mut taken = Vec::new();
    for polls in 0..50 {
        let mine: Vec<_> = taken.iter().map(|partition| (*partition, "me")).collect();
        for effect in look(&mut balancer, now, sight(&["me", "you"], &mine)) {
            let Effect::Try(partition) = effect else {
                panic!("{effect:?} after {polls} polls")
            };
            balancer.tried(now, partition, Tried::Got, &mut Vec::new());
            taken.push(partition);
            assert!(taken.len() == 1 || polls >= 5, "too early");
        }
        now = now.after(POLL);
        if taken.len() == 2 && polls > 30 {
            return;
        }
    }
    panic!("{taken:?}");
}

#[test]
fn nothing_is_concluded_from_a_store_that_does_not_answer() {
    let (mut balancer, now) = joined(2);
    let mut fx = Vec::new();
    balancer.tick(now, &mut fx);
    balancer.looked(now, None, &mut fx);
    assert_eq!(fx, [Effect::Look]);
    assert_eq!(balancer.next_deadline(), Some(now.after(POLL)));
}

#[test]
fn what_was_granted_while_it_stopped_is_given_back() {
    let (mut balancer, now) = joined(1);
    assert_eq!(
        look(&mut balancer, now, sight(&["me"], &[])),
        [Effect::Try(0)]
    );
    let mut fx = Vec::new();
    balancer.stop(now, &mut fx);
    assert_eq!(fx, [Effect::Leave]);
    balancer.left(now);
    balancer.tried(now, 0, Tried::Got, &mut fx);
    assert_eq!(fx, [Effect::Leave, Effect::Give(0)]);
    assert!(!balancer.is_done());
    balancer.gone(now, 0, &mut fx);
    assert!(balancer.is_done());
    assert_eq!(balancer.next_deadline(), None);
}

#[test]
fn fewer_partitions_are_given_back_at_once_and_more_are_looked_for_at_once() {
    let (mut balancer, now) = joined(2);
    for effect in look(&mut balancer, now, sight(&["me"], &[])) {
        let Effect::Try(partition) = effect else {
            panic!("{effect:?}")
        };
        balancer.tried(now, partition, Tried::Got, &mut Vec::new());
    }
    let mut fx = Vec::new();
    balancer.resize(now, 1, &mut fx);
    assert_eq!(fx, [Effect::Give(1)]);
    balancer.gone(now, 1, &mut fx);
    balancer.resize(now, 3, &mut fx);
    let fx = look(&mut balancer, now, sight(&["me"], &[(0, "me")]));
    assert_eq!(fx.len(), 2, "{fx:?}");
}

#[test]
fn one_that_withdraws_keeps_what_it_holds_and_tries_for_nothing_until_it_stops() {
    let (mut balancer, now) = joined(3);
    let mut fx = look(&mut balancer, now, sight(&["me"], &[]));
    assert_eq!(fx.len(), 3, "{fx:?}");
    fx.clear();
    balancer.tried(now, 0, Tried::Got, &mut fx);
    balancer.tried(now, 1, Tried::Busy, &mut fx);
    balancer.withdraw(&mut fx);
    balancer.withdraw(&mut fx);
    assert_eq!(fx, [Effect::Leave]);
    balancer.left(now);
    // It is somebody else's turn.
    balancer.tried(now, 2, Tried::Got, &mut fx);
    assert_eq!(fx, [Effect::Leave, Effect::Give(2)]);
    balancer.gone(now, 2, &mut fx);
    assert_eq!(balancer.next_deadline(), None);
    assert_eq!((fx.len(), balancer.is_done()), (2, false));
    balancer.stop(now, &mut fx);
    assert_eq!(fx[2..], [Effect::Give(0)]);
    balancer.gone(now, 0, &mut fx);
    assert!(balancer.is_done());
}

#[test]
fn what_a_look_shows_after_a_withdrawal_leads_to_nothing() {
    for seen in [sight(&["me"], &[]), sight(&[], &[])] {
        let (mut balancer, now) = joined(2);
        let mut fx = Vec::new();
        balancer.tick(now, &mut fx);
        balancer.withdraw(&mut fx);
        balancer.looked(now, Some(seen), &mut fx);
        balancer.left(now);
        assert_eq!(fx, [Effect::Look, Effect::Leave]);
    }
}
