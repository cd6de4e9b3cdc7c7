//! Small cases gone through exhaustively, each call compared with the model as everywhere.
//!
//! - One object: all modes of four lockers, in all orders of arrival and end.
//! - All histories of up to four calls of three lockers on three objects, each call a request in any of the six modes or
//!   the release of everything. Histories that differ in names of lockers or objects only are gone through once.
//! - All histories of three requests, then any end, over two points, a range over both, and one over one of them.
//! - All rings of three: each holds one object in any mode and asks for the next in any mode; where all three
//!   conflict, so that it is a deadlock, in all orders of asking with detection on block, and once on demand.
//! - All histories of three such calls of a parent, its child and a stranger on two objects; then the child commits,
//!   or the stranger ends.
//! - All pairs of modes held by two lockers and upgraded to any two modes.

use lockkeeper::{Mode, VictimPolicy};

use super::calls::{Patience, Spec};
use super::compare::Difference;
use super::pair::Pair;
use super::step::Step;
use super::universe::{Obj, UNIVERSE};
use super::words::{Config, Slot, Timeouts};

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

pub fn begin(slot: Slot) -> Step {
    family(slot, None)
}

pub fn child(slot: Slot, parent: Slot) -> Step {
    family(slot, Some(parent))
}

fn family(slot: Slot, parent: Option<Slot>) -> Step {
    Step::Begin {
        slot,
        parent,
        age_of: None,
        spec: Spec {
            priority: 100,
            lock_timeout: None,
            txn_timeout: None,
        },
    }
}

pub fn ask(slot: Slot, object: Obj, mode: Mode) -> Step {
    upgrade(slot, object, None, mode)
}

fn upgrade(slot: Slot, object: Obj, from: Option<Mode>, mode: Mode) -> Step {
    Step::Request {
        slot,
        object,
        mode,
        from,
        patience: Some(Patience::Forever),
    }
}

/// Answers and effects are compared in all steps; the state from the step `from` on, since what is
/// before is the beginning of other histories too.
fn run(config: Config, lockers: &[Step], steps: &[Step], from: usize) {
    let mut pair = Pair::new(config);
    pair.brief = true;
    for locker in lockers {
        check(pair.run(locker), steps);
    }
    for (at, step) in steps.iter().enumerate() {
        pair.brief = at < from;
        check(pair.run(step), steps);
    }
    pair.brief = true;
    check(pair.finish(), steps);
}

fn check(outcome: Result<(), Difference>, steps: &[Step]) {
    if let Err(difference) = outcome {
        panic!("{difference:?} in {steps:#?}");
    }
}

/// All lists of so many of `all`.
fn lists<T: Copy>(all: &[T], length: usize) -> Vec<Vec<T>> {
    let mut lists = vec![Vec::new()];
    for _ in 0..length {
        lists = lists
            .iter()
            .flat_map(|list| {
                all.iter().map(move |one| {
                    let mut longer = list.clone();
                    longer.push(*one);
                    longer
                })
            })
            .collect();
    }
    lists
}

fn orders(count: Slot) -> Vec<Vec<Slot>> {
    let all: Vec<Slot> = (0..count).collect();
    let mut orders = lists(&all, all.len());
    orders.retain(|order| all.iter().all(|one| order.contains(one)));
    orders
}

/// Each arrives and ends once; the lockers arrive in the order of their slots, as names make no
/// difference. All ways to put the ends in between.
fn arrivals_and_ends(lockers: Slot) -> Vec<Vec<(Slot, bool)>> {
    fn further(lockers: Slot, story: &mut Vec<(Slot, bool)>, all: &mut Vec<Vec<(Slot, bool)>>) {
        if story.len() == usize::from(lockers) * 2 {
            all.push(story.clone());
            return;
        }
        let arrived = story.iter().filter(|(_, arrives)| *arrives).count() as Slot;
        if arrived < lockers {
            story.push((arrived, true));
            further(lockers, story, all);
            story.pop();
        }
        for slot in 0..arrived {
            if !story.contains(&(slot, false)) {
                story.push((slot, false));
                further(lockers, story, all);
                story.pop();
            }
        }
    }
    let mut all = Vec::new();
    further(lockers, &mut Vec::new(), &mut all);
    all
}

#[test]
fn i05_i06_four_lockers_on_one_object_in_all_modes_and_orders() {
    let roots: Vec<Step> = (0..4).map(begin).collect();
    let stories = arrivals_and_ends(4);
    assert_eq!(stories.len(), 105);
    for modes in lists(&Mode::ALL, 4) {
        for (at, story) in stories.iter().enumerate() {
            // What this story has in common with the one before it has been compared.
            let before = stories.get(at.wrapping_sub(1)).into_iter().flatten();
            let common = before.zip(story).take_while(|(a, b)| a == b).count();
            let steps: Vec<Step> = story
                .iter()
                .map(|(slot, arrives)| match arrives {
                    true => ask(*slot, 0, modes[usize::from(*slot)]),
                    false => Step::End(*slot),
                })
                .collect();
            run(CONFIG, &roots, &steps, common);
        }
    }
}

/// Calls `each` with every history of `left` more calls. Lockers and objects get their numbers when they first come up.
fn each_history(
    left: usize,
    most_objects: Obj,
    known: (Slot, Obj),
    steps: &mut Vec<Step>,
    each: &mut impl FnMut(&[Step]),
) {
    if left == 0 {
        each(steps);
        return;
    }
    let (lockers, objects) = known;
    for slot in 0..(lockers + 1).min(3) {
        for object in 0..(objects + 1).min(most_objects) {
            let known = (lockers.max(slot + 1), objects.max(object + 1));
            for mode in Mode::ALL {
                steps.push(ask(slot, object, mode));
                each_history(left - 1, most_objects, known, steps, each);
                steps.pop();
            }
        }
        if slot < lockers {
            steps.push(Step::ReleaseAll(slot));
            each_history(left - 1, most_objects, known, steps, each);
            steps.pop();
        }
    }
}

#[test]
fn i05_i06_i07_three_lockers_on_three_objects_in_all_modes_and_histories_of_four() {
    let roots: Vec<Step> = (0..3).map(begin).collect();
    let mut count = 0;
    for length in 1..=4 {
        each_history(length, 3, (0, 0), &mut Vec::new(), &mut |steps| {
            count += 1;
            run(CONFIG, &roots, steps, length - 1);
        });
    }
    println!("{count} histories");
}

#[test]
fn i05_i06_i07_points_and_ranges_in_all_modes_and_orders() {
    let roots: Vec<Step> = (0..3).map(begin).collect();
    // a, b, [a, b], and the prefix b.
    let objects: [Obj; 4] = [0, 1, 4, 7];
    for wanted in lists(&objects, 3) {
        for modes in lists(&Mode::ALL, 3) {
            for last in 0..3 {
                let mut steps: Vec<Step> = (0..3)
                    .map(|slot| ask(slot as Slot, wanted[slot], modes[slot]))
                    .collect();
                steps.push(Step::End(last));
                run(CONFIG, &roots, &steps, 0);
            }
        }
    }
}

/// The youngest is always the third; who that is in the ring, and who of the others is where, follows from
/// the order in which they ask.
#[test]
fn i07_rings_of_three_in_all_modes_and_orders() {
    let roots: Vec<Step> = (0..3).map(begin).collect();
    let held_and_wanted = lists(&Mode::ALL, 3);
    for held in &held_and_wanted {
        for wanted in &held_and_wanted {
            let waits = |slot: Slot| {
                let next = (slot + 1) % 3;
                let held = (next, held[usize::from(next)]);
                UNIVERSE.conflict(held, (next, wanted[usize::from(slot)]))
            };
            let is_deadlock = (0..3).all(waits);
            let count = if is_deadlock { 6 } else { 1 };
            for order in orders(3).into_iter().take(count) {
                let hold = (0..3).map(|slot| ask(slot, slot, held[usize::from(slot)]));
                let want = order
                    .iter()
                    .map(|slot| ask(*slot, (slot + 1) % 3, wanted[usize::from(*slot)]));
                let steps: Vec<Step> = hold.chain(want).collect();
                run(CONFIG, &roots, &steps, 3);
            }
            if is_deadlock {
                let on_block = false;
                let hold = (0..3).map(|slot| ask(slot, slot, held[usize::from(slot)]));
                let want = (0..3).map(|slot| ask(slot, (slot + 1) % 3, wanted[usize::from(slot)]));
                let mut steps: Vec<Step> = hold.chain(want).collect();
                steps.push(Step::Detect(VictimPolicy::Default));
                run(Config { on_block, ..CONFIG }, &roots, &steps, 5);
            }
        }
    }
}

#[test]
fn i05_i07_all_upgrades_of_two_beside_one_who_waits() {
    let roots: Vec<Step> = (0..3).map(begin).collect();
    for modes in lists(&Mode::ALL, 5) {
        let steps = [
            ask(0, 0, modes[0]),
            ask(1, 0, modes[1]),
            ask(2, 0, modes[2]),
            upgrade(0, 0, Some(modes[0]), modes[3]),
            upgrade(1, 0, Some(modes[1]), modes[4]),
            Step::ReleaseAll(1),
        ];
        run(CONFIG, &roots, &steps, 3);
    }
}

#[test]
fn i05_i06_i07_two_of_a_family_and_a_stranger_in_all_modes_and_histories_of_three() {
    // Parent and child, by the order in which the three were made.
    for (parent, of_family) in [(0, 1), (0, 2), (1, 2)] {
        let lockers: Vec<Step> = (0..3)
            .map(|slot| family(slot, (slot == of_family).then_some(parent)))
            .collect();
        // 0 + 1 + 2, less the two.
        let stranger = 3 - parent - of_family;
        for last in [Step::Commit(of_family), Step::End(stranger)] {
            each_history(3, 2, (3, 0), &mut Vec::new(), &mut |steps| {
                let mut steps = steps.to_vec();
                steps.push(last);
                run(CONFIG, &lockers, &steps, 2);
            });
        }
    }
}
