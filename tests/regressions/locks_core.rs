//! The lock table's core, driven by hand: what it promises about cycles, limits, sequences, and what is told.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::time::Duration;

use lockkeeper::lock_core::{
    Attempt, ConflictTable, Denied, Effect, Limits, LockerSpec, Moment, Op, OpOutcome, Patience,
    Progress, Request, Sequence, Table, TableConfig, Timeouts, WaitId,
};
use lockkeeper::{ConflictKind, LockConflict, LockerId, Mode, Object, VictimPolicy};

/// A table with its effects.
pub struct Driver {
    pub table: Table,
    pub effects: Vec<Effect>,
}

impl Driver {
    pub fn new(config: TableConfig) -> Self {
        Self {
            table: Table::new(config),
            effects: Vec::new(),
        }
    }

    pub fn begin(&mut self) -> LockerId {
        self.table.begin(Moment(0), LockerSpec::new()).unwrap()
    }

    pub fn child(&mut self, parent: LockerId) -> LockerId {
        self.table
            .begin_child(Moment(0), parent, LockerSpec::new())
            .unwrap()
    }

    #[track_caller]
    pub fn ask(&mut self, locker: LockerId, object: &Object, mode: Mode) -> Option<WaitId> {
        self.ask_for(locker, object, mode, Patience::Forever)
    }

    #[track_caller]
    pub fn ask_for(
        &mut self,
        locker: LockerId,
        object: &Object,
        mode: Mode,
        patience: Patience,
    ) -> Option<WaitId> {
        let request = request(locker, object, mode, None);
        self.table
            .request(Moment(0), request, patience, &mut self.effects)
            .unwrap()
    }

    #[track_caller]
    pub fn take(&mut self, locker: LockerId, object: &Object, mode: Mode) {
        assert_eq!(self.ask(locker, object, mode), None, "{object} is free");
    }

    pub fn told_held_too_long(&self) -> usize {
        let told = |effect: &&Effect| matches!(effect, Effect::HeldTooLong(_));
        self.effects.iter().filter(told).count()
    }
}

#[track_caller]
pub fn request(locker: LockerId, object: &Object, mode: Mode, from: Option<Mode>) -> Request<'_> {
    Request {
        locker,
        object,
        mode,
        from,
        site: Location::caller(),
    }
}

pub fn object(name: &str) -> Object {
    Object::new("n", name)
}

const fn millis(millis: u64) -> Moment {
    Moment(millis * 1_000_000)
}

#[test]
fn i07_who_waits_on_a_broken_cycle_is_told() {
    // "Its abort breaks it": nobody may go on waiting for what only the victim's own family could end.
    let mut driver = Driver::new(TableConfig::default());
    let other = driver.begin();
    let parent = driver.begin();
    let child = driver.child(parent);
    let (a, b) = (object("a"), object("b"));
    driver.take(child, &a, Mode::Write);
    driver.take(other, &b, Mode::Write);
    let waits = driver.ask(other, &a, Mode::Write);
    assert!(waits.is_some());
    // The younger family is the victim; what it has in the way is the child's lock, what waits is the parent.
    let parents = driver.ask(parent, &b, Mode::Write);
    assert_eq!(driver.table.stats().deadlocks, 1);
    let ended = driver.effects.iter().any(|effect| match effect {
        Effect::Granted(_) => true,
        Effect::Refused(wait, _) => Some(*wait) == parents || Some(*wait) == waits,
        _ => false,
    });
    assert!(
        ended,
        "both wait for ever, and no graph has their cycle any more: {:?}",
        driver.effects
    );
}

#[test]
fn a_downgrade_of_one_reference_keeps_to_the_limit() {
    let config = TableConfig {
        limits: Limits {
            locks: 1,
            ..Limits::default()
        },
        ..TableConfig::default()
    };
    let mut driver = Driver::new(config);
    let locker = driver.begin();
    let a = object("a");
    driver.take(locker, &a, Mode::Write);
    driver.take(locker, &a, Mode::Write);
    let _ = driver
        .table
        .downgrade(locker, &a, Mode::Write, Mode::Read, &mut driver.effects);
    let locks = driver.table.stats().locks;
    assert!(locks.now <= locks.limit, "{locks:?}");
}

#[test]
fn a_dead_child_keeps_the_conflict_that_killed_it() {
    let mut driver = Driver::new(TableConfig::default());
    let other = driver.begin();
    let parent = driver.begin();
    let child = driver.child(parent);
    let (a, b) = (object("a"), object("b"));
    driver.take(other, &a, Mode::Write);
    driver.take(other, &b, Mode::Write);
    let patience = |millis| Patience::For(Duration::from_millis(millis));
    driver.ask_for(child, &a, Mode::Write, patience(10));
    driver.ask_for(parent, &b, Mode::Write, patience(20));
    driver.table.expire(millis(10), 10, &mut driver.effects);
    driver.table.expire(millis(20), 10, &mut driver.effects);
    let again = request(child, &a, Mode::Write, None);
    let Err(Denied::Dead(conflict)) = driver.table.try_lock(again, &mut driver.effects) else {
        panic!("it is dead");
    };
    assert_eq!(conflict.kind, ConflictKind::LockTimeout);
    assert_eq!(conflict.object, a, "what killed the child first");
}

#[test]
fn a_lock_that_is_held_too_long_is_told_once_though_it_is_weakened() {
    let mut driver = Driver::new(TableConfig {
        timeouts: Timeouts {
            max_hold: Duration::from_millis(10),
            ..Timeouts::default()
        },
        ..TableConfig::default()
    });
    let locker = driver.begin();
    let a = object("a");
    driver.take(locker, &a, Mode::Write);
    driver.table.expire(millis(10), 10, &mut driver.effects);
    assert_eq!(driver.told_held_too_long(), 1);
    driver
        .table
        .downgrade(locker, &a, Mode::Write, Mode::Read, &mut driver.effects)
        .unwrap();
    driver.table.expire(millis(11), 10, &mut driver.effects);
    assert_eq!(driver.told_held_too_long(), 1);
}

#[test]
fn who_has_released_what_it_held_too_long_is_not_refused_for_it() {
    // "The locker holds a lock too long": it holds none.
    let mut driver = Driver::new(TableConfig {
        timeouts: Timeouts {
            max_hold: Duration::from_millis(10),
            ..Timeouts::default()
        },
        ..TableConfig::default()
    });
    let locker = driver.begin();
    let (a, b) = (object("a"), object("b"));
    driver.take(locker, &a, Mode::Write);
    driver.table.expire(millis(10), 10, &mut driver.effects);
    assert_eq!(
        driver.table.unlock_object(locker, &a, &mut driver.effects),
        1
    );
    let asked = driver
        .table
        .try_lock(request(locker, &b, Mode::Read, None), &mut driver.effects);
    assert!(matches!(asked, Ok(Attempt::Granted)), "{asked:?}");
}

#[test]
fn each_pair_of_contradicting_classes_is_told() {
    let mut driver = Driver::new(TableConfig {
        order_warnings: true,
        ..TableConfig::default()
    });
    let class = |name: &'static str| Object::new(name, "k");
    for taken in [&["a", "b"][..], &["a", "c"], &["b", "c", "a"], &["c", "a"]] {
        let locker = driver.begin();
        for name in taken {
            driver.take(locker, &class(name), Mode::Read);
        }
        driver.table.end(locker, &mut driver.effects);
    }
    let pairs: BTreeSet<(String, String)> = driver
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::OrderContradicted(warning) => {
                let seen = &warning.seen;
                Some((seen.held.to_string(), seen.asked.to_string()))
            }
            _ => None,
        })
        .collect();
    let expected = [("b", "a"), ("c", "a")].map(|(one, two)| (one.into(), two.into()));
    assert_eq!(pairs, BTreeSet::from(expected));
}

#[test]
fn a_sequence_that_releases_everything_revives_a_dead_locker() {
    // As `release_all` does, of which it is the message.
    for all_or_nothing in [true, false] {
        let mut driver = Driver::new(TableConfig::default());
        let (holder, locker) = (driver.begin(), driver.begin());
        let (a, b) = (object("a"), object("b"));
        driver.take(holder, &a, Mode::Write);
        driver.take(locker, &b, Mode::Write);
        driver.ask_for(
            locker,
            &a,
            Mode::Write,
            Patience::For(Duration::from_nanos(1)),
        );
        driver.table.expire(millis(1), 10, &mut driver.effects);
        let mut run = |ops: Vec<Op>| {
            let mut sequence = Sequence::new(locker, ops, all_or_nothing, Location::caller());
            let progress = sequence.run(&mut driver.table, || millis(1), &mut driver.effects);
            assert_eq!(progress, Progress::Done);
            sequence.finish(|outcome| outcome.clone()).0
        };
        run(vec![Op::ReleaseAll]);
        let outcomes = run(vec![Op::Lock(b.clone(), Mode::Write, Patience::No)]);
        assert!(
            matches!(outcomes[..], [OpOutcome::Granted]),
            "all or nothing {all_or_nothing}: {outcomes:?}"
        );
    }
}

#[test]
fn a_sequence_that_is_given_up_leaves_the_lock_that_was_there_before() {
    for change in [
        Op::Upgrade(object("a"), Mode::Read, Mode::Write, Patience::Forever),
        Op::Downgrade(object("a"), Mode::Read, Mode::IntentRead),
    ] {
        for all_or_nothing in [true, false] {
            let mut driver = Driver::new(TableConfig::default());
            let (holder, locker) = (driver.begin(), driver.begin());
            let (a, b) = (object("a"), object("b"));
            driver.take(locker, &a, Mode::Read);
            driver.take(holder, &b, Mode::Write);
            let ops = vec![change.clone(), Op::Lock(b, Mode::Write, Patience::Forever)];
            let mut sequence = Sequence::new(locker, ops, all_or_nothing, Location::caller());
            let progress = sequence.run(&mut driver.table, || Moment(0), &mut driver.effects);
            let Progress::Waits(wait) = progress else {
                panic!("{progress:?}");
            };
            driver.table.withdraw(wait, &mut driver.effects);
            sequence.abandon(&mut driver.table, &mut driver.effects);
            let snapshot = driver.table.snapshot();
            let left = snapshot
                .held
                .iter()
                .filter(|held| held.locker == locker && held.object == a);
            assert_eq!(
                left.count(),
                1,
                "all or nothing {all_or_nothing}, {change:?}: it held the object before"
            );
        }
    }
}

#[test]
fn one_release_of_many_locks_looks_for_a_cycle_once() {
    let mut driver = Driver::new(TableConfig::default());
    let (holder, parent) = (driver.begin(), driver.begin());
    let (waiting, busy) = (driver.child(parent), driver.child(parent));
    let a = object("a");
    driver.take(holder, &a, Mode::Write);
    assert!(driver.ask(waiting, &a, Mode::Write).is_some());
    for number in 0..1000_u32 {
        driver.take(
            busy,
            &Object::new("many", number.to_be_bytes()),
            Mode::Write,
        );
    }
    let before = driver.table.stats().searches;
    driver.table.release_all(busy, &mut driver.effects);
    let searches = driver.table.stats().searches - before;
    assert!(searches <= 1, "{searches} searches for one family");
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// After each of many calls with families, ranges and upgrades: no cycle is left, nobody waits for
/// nothing, nothing is granted against another, the counts are exact.
#[test]
fn i05_i06_i07_hold_after_every_call() {
    let read_then_write = ConflictTable::new(
        &[Mode::Read, Mode::Write],
        &[&[false, true], &[false, false]],
    )
    .unwrap();
    // More of them on demand.
    let histories = std::env::var("LOCKS_HISTORIES").map_or(100, |number| number.parse().unwrap());
    let mut deadlocks = 0;
    for seed in 0..histories {
        let mut random = Random(seed);
        let mut config = TableConfig {
            timeouts: Timeouts {
                max_hold: Duration::from_nanos([0, 40][random.below(2)]),
                abort_on_max_hold: random.below(2) == 0,
                ..Timeouts::default()
            },
            order_warnings: true,
            ..TableConfig::default()
        };
        if random.below(4) == 0 {
            config.own_conflicts = vec![("n".into(), read_then_write)];
        }
        let mut driver = Driver::new(config.clone());
        let objects = [
            object("a"),
            object("b"),
            object("c"),
            object("d"),
            Object::range("n", "a".."c").unwrap(),
            Object::range("n", "b".."d").unwrap(),
            Object::whole("n"),
        ];
        let mut lockers: Vec<LockerId> = Vec::new();
        let mut waits: Vec<WaitId> = Vec::new();
        let mut sequences: Vec<(Sequence, WaitId)> = Vec::new();
        let mut on_block = true;
        for step in 0..300_u64 {
            let now = Moment(step);
            driver.effects.clear();
            let mut searched = on_block;
            let table = &mut driver.table;
            let effects = &mut driver.effects;
            table.tell_time(now);
            lockers.retain(|locker| table.is_live(*locker));
            let at = random.of(&objects).clone();
            let mode = *random.of(&Mode::ALL);
            let other = *random.of(&Mode::ALL);
            if lockers.len() < 3 {
                lockers.extend(table.begin(now, LockerSpec::new()));
                continue;
            }
            let locker = *random.of(&lockers);
            match random.below(40) {
                32 => {
                    let mut timeouts = config.timeouts;
                    timeouts.max_hold = Duration::from_nanos([0, 20, 60][random.below(3)]);
                    timeouts.abort_on_max_hold = random.below(3) == 0;
                    table.set_timeouts(now, timeouts);
                }
                33 => {
                    on_block = random.below(3) > 0;
                    let policy = *random.of(&VictimPolicy::ALL);
                    table.set_detect(now, on_block, policy, effects);
                    searched |= on_block;
                }
                34 => {
                    table.detect(now, *random.of(&VictimPolicy::ALL), effects);
                    searched = true;
                }
                35 | 36 => {
                    let ops = vec![
                        Op::Lock(at.clone(), mode, Patience::Forever),
                        Op::Upgrade(at.clone(), mode, other, Patience::Forever),
                        Op::Lock(random.of(&objects).clone(), other, Patience::Forever),
                    ];
                    let all = random.below(2) == 0;
                    let mut sequence = Sequence::new(locker, ops, all, Location::caller());
                    if let Progress::Waits(wait) = sequence.run(table, || now, effects) {
                        sequences.push((sequence, wait));
                    }
                }
                37 if !sequences.is_empty() => {
                    let (mut sequence, wait) = sequences.swap_remove(random.below(sequences.len()));
                    table.withdraw(wait, effects);
                    sequence.abandon(table, effects);
                }
                0 | 1 => lockers.extend(table.begin(now, LockerSpec::new())),
                2 | 3 => lockers.extend(table.begin_child(now, locker, LockerSpec::new())),
                4 => {
                    let _ = table.commit(locker, effects);
                }
                5 => {
                    table.end(locker, effects);
                }
                6 => {
                    table.release_all(locker, effects);
                }
                7 => {
                    table.release_reads(locker, effects);
                }
                8 => {
                    table.unlock_object(locker, &at, effects);
                }
                9..=11 => {
                    table.unlock(locker, &at, mode, effects);
                }
                12 => {
                    let _ = table.downgrade(locker, &at, mode, other, effects);
                }
                13 if !waits.is_empty() => {
                    let wait = waits.swap_remove(random.below(waits.len()));
                    table.withdraw(wait, effects);
                }
                14 => {
                    table.expire(now, 3, effects);
                }
                15 => {
                    let from = Some(other);
                    let asked = table.request(
                        now,
                        request(locker, &at, mode, from),
                        Patience::For(Duration::from_nanos(60)),
                        effects,
                    );
                    waits.extend(asked.ok().flatten());
                }
                16 => {
                    let ops = vec![
                        Op::Lock(at.clone(), mode, Patience::No),
                        Op::Downgrade(at.clone(), mode, other),
                        Op::ReleaseReads,
                        Op::Lock(random.of(&objects).clone(), other, Patience::No),
                    ];
                    let all = random.below(2) == 0;
                    let before = table.snapshot();
                    let mut sequence = Sequence::new(locker, ops, all, Location::caller());
                    assert_eq!(sequence.run(table, || now, effects), Progress::Done);
                    let (outcomes, _) = sequence.finish(|outcome| outcome.clone());
                    let failed = |one: &OpOutcome| matches!(one, OpOutcome::Failed(_));
                    // A request that waits already may be let in on the way: it moves up while its family holds
                    // something.
                    let granted = |effect: &Effect| matches!(effect, Effect::Granted(_));
                    let is_alone = !effects.iter().any(granted);
                    if all && is_alone && outcomes.iter().any(failed) {
                        let held = |snapshot: &lockkeeper::LockSnapshot| {
                            let own = snapshot.held.iter().filter(|held| held.locker == locker);
                            own.map(|held| {
                                (held.object.clone(), held.locker, held.mode, held.count)
                            })
                            .collect::<Vec<_>>()
                        };
                        assert_eq!(
                            held(&before),
                            held(&table.snapshot()),
                            "seed {seed} step {step}"
                        );
                    }
                }
                _ => {
                    let patience = *random.of(&[
                        Patience::Forever,
                        Patience::For(Duration::from_nanos(30)),
                        Patience::No,
                    ]);
                    let asked =
                        table.request(now, request(locker, &at, mode, None), patience, effects);
                    waits.extend(asked.ok().flatten());
                }
            }
            // Those whose wait has ended go on, which can end others.
            let mut told = 0;
            while let Some(effect) = driver.effects.get(told).cloned() {
                told += 1;
                let (wait, reason) = match effect {
                    Effect::Granted(wait) => (wait, None),
                    Effect::Refused(wait, reason) => (wait, Some(reason)),
                    _ => continue,
                };
                waits.retain(|other| *other != wait);
                let Some(at) = sequences.iter().position(|(_, waits)| *waits == wait) else {
                    continue;
                };
                let (mut sequence, _) = sequences.swap_remove(at);
                let (table, effects) = (&mut driver.table, &mut driver.effects);
                match reason {
                    None => sequence.granted(),
                    Some(reason) => sequence.refused(reason, table, effects),
                }
                if let Progress::Waits(wait) = sequence.run(table, || now, effects) {
                    sequences.push((sequence, wait));
                }
                searched = on_block;
            }
            let when = format!("seed {seed} step {step}");
            for effect in &driver.effects {
                if let Effect::Doomed(_, conflict) = effect
                    && !conflict.cycle.is_empty()
                {
                    deadlocks += 1;
                    is_closed(&driver.table, conflict, &when);
                }
            }
            check(&driver.table, &config, searched, &when);
        }
        for locker in lockers {
            driver.table.end(locker, &mut driver.effects);
        }
        let stats = driver.table.stats();
        let left = (
            stats.lockers.now,
            stats.locks.now,
            stats.objects.now,
            stats.waiting,
        );
        assert_eq!(left, (0, 0, 0, 0), "seed {seed}");
        assert_eq!(driver.table.next_deadline(), None, "seed {seed}");
    }
    assert!(
        deadlocks > 2 * histories,
        "only {deadlocks} cycles were closed"
    );
}

/// Each step of a cycle leads to the family of the next, and the last to that of the first.
fn is_closed(table: &Table, conflict: &LockConflict, when: &str) {
    let snapshot = table.snapshot();
    let family = |locker: LockerId| {
        let mut all = snapshot.lockers.iter();
        all.find(|info| info.locker == locker)
            .map(|info| info.family)
    };
    let next = conflict.cycle.iter().cycle().skip(1);
    for (step, next) in conflict.cycle.iter().zip(next) {
        let (to, from) = (family(step.blocker.locker), family(next.waiter.locker));
        assert_eq!(to, from, "{when}: {conflict}");
    }
    let victim = conflict.choice.map(|choice| family(choice.victim));
    let first = conflict
        .cycle
        .first()
        .map(|step| family(step.waiter.locker));
    assert_eq!(victim, first, "{when}: {conflict}");
}

fn check(table: &Table, config: &TableConfig, searched: bool, when: &str) {
    let snapshot = table.snapshot();
    let rules = config
        .own_conflicts
        .first()
        .map_or(config.conflicts, |own| own.1);
    let info: BTreeMap<LockerId, _> = snapshot
        .lockers
        .iter()
        .map(|info| (info.locker, info))
        .collect();
    let family = |locker: LockerId| info[&locker].family;
    // I5. Where a table is not symmetric, only the later of two is judged by it.
    for (at, one) in snapshot.held.iter().enumerate() {
        for other in &snapshot.held[at + 1..] {
            let apart = family(one.locker) != family(other.locker);
            let both =
                rules.conflicts(one.mode, other.mode) && rules.conflicts(other.mode, one.mode);
            assert!(
                !(apart && both && one.object.overlaps(&other.object)),
                "{when}: {one:?} and {other:?}"
            );
        }
    }
    // I6: nobody waits who is in nobody's way.
    let edges = snapshot.waits_for(usize::MAX);
    for waiting in &snapshot.waiting {
        let kept = edges.iter().any(|edge| {
            edge.waiter == waiting.locker
                && edge.object == waiting.object
                && edge.mode == waiting.mode
        });
        let by_the_dead = snapshot.held.iter().any(|held| {
            info[&held.locker].dead
                && family(held.locker) != family(waiting.locker)
                && held.object.overlaps(&waiting.object)
                && rules.conflicts(held.mode, waiting.mode)
        });
        assert!(kept || by_the_dead, "{when}: {waiting:?} waits for nobody");
    }
    // I7.
    let mut next: BTreeMap<LockerId, BTreeSet<LockerId>> = BTreeMap::new();
    for edge in &edges {
        next.entry(family(edge.waiter))
            .or_default()
            .insert(family(edge.blocker));
    }
    while let Some(ends) = next
        .iter()
        .find(|(_, to)| to.iter().all(|to| !next.contains_key(to)))
        .map(|(from, _)| *from)
    {
        next.remove(&ends);
    }
    assert!(
        !searched || next.is_empty(),
        "{when}: a cycle is left: {edges:#?}"
    );
    // Exact counts.
    let stats = table.stats();
    assert_eq!(
        stats.locks.now,
        snapshot.held.len() + snapshot.waiting.len(),
        "{when}"
    );
    assert_eq!(stats.lockers.now, snapshot.lockers.len(), "{when}");
    assert_eq!(stats.objects.now, snapshot.by_object().len(), "{when}");
}
