//! Histories made at random, held against the answer of trying every order.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use crate::brute;
use crate::checker::check;
use crate::history::{History, Key, Op, Outcome, Txn, Value};
use crate::random::Random;

/// What the reads of a made-up store show, besides a transaction's own writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// One transaction runs after the other.
    Alone,
    /// The state when the transaction began.
    Snapshot,
    /// The newest that was committed.
    Committed,
    /// What others have written and not committed, too.
    Dirty,
}

/// A transaction of the made-up store that has begun.
struct Running {
    txn: Txn,
    snapshot: BTreeMap<Key, Value>,
    /// What it appended and wrote.
    own: Vec<(Key, Option<u64>)>,
    left: u32,
}

struct Made {
    random: Random,
    sees: Sees,
    keys: u32,
    committed: BTreeMap<Key, Value>,
    dirty: BTreeMap<Key, Value>,
    clock: u64,
    next: u64,
    txns: Vec<Txn>,
}

/// Lets up to `count` transactions run over a few keys, `width` of them at once, and ends with a read of everything.
fn made(seed: u64, count: u32, width: u32, sees: Sees, faults: u32) -> History {
    let mut random = Random::new(seed);
    let keys = 1 + random.below(3);
    let mut made = Made {
        random,
        sees,
        keys,
        committed: BTreeMap::new(),
        dirty: BTreeMap::new(),
        clock: 0,
        next: 0,
        txns: Vec::new(),
    };
    let mut running: Vec<Running> = Vec::new();
    let mut to_begin = count;
    while to_begin > 0 || !running.is_empty() {
        let most = if sees == Sees::Alone {
            1
        } else {
            width as usize
        };
        let begins = running.len() < most && made.random.percent(50);
        if to_begin > 0 && (running.is_empty() || begins) {
            to_begin -= 1;
            running.push(made.begin());
            continue;
        }
        let chosen = made.random.below(running.len() as u32) as usize;
        if running[chosen].left > 0 {
            made.step(&mut running[chosen]);
        } else {
            let ended = running.swap_remove(chosen);
            made.end(ended, faults);
        }
    }
    if made.random.percent(70) {
        let mut last = made.begin();
        for first in [Key::List(0), Key::Register(0)] {
            made.scan(&mut last, first, keys);
        }
        made.end(last, 0);
    }
    History { txns: made.txns }
}

impl Made {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn begin(&mut self) -> Running {
        let begin = self.tick();
        Running {
            txn: Txn {
                session: 0,
                begin,
                end: 0,
                outcome: Outcome::Unknown,
                ops: Vec::new(),
            },
            snapshot: self.committed.clone(),
            own: Vec::new(),
            left: 1 + self.random.below(4),
        }
    }

    fn read(&self, running: &Running, key: Key) -> Value {
        let state = match self.sees {
            Sees::Snapshot => &running.snapshot,
            Sees::Alone | Sees::Committed => &self.committed,
            Sees::Dirty => &self.dirty,
        };
        let mut value = state.get(&key).cloned().unwrap_or_else(|| key.absent());
        if self.sees != Sees::Dirty {
            for (_, own) in running.own.iter().filter(|(other, _)| *other == key) {
                apply(&mut value, *own);
            }
        }
        value
    }

    fn write(&mut self, running: &mut Running, key: Key) {
        self.next += 1;
        running.own.push((key, Some(self.next)));
        let value = self.dirty.entry(key).or_insert_with(|| key.absent());
        apply(value, Some(self.next));
        running.txn.ops.push(match key {
            Key::List(_) => Op::Append {
                key,
                element: self.next,
            },
            Key::Register(_) => Op::Write {
                key,
                value: Some(self.next),
            },
        });
    }

    fn step(&mut self, running: &mut Running) {
        running.left -= 1;
        let number = self.random.below(self.keys);
        let (list, register) = (Key::List(number), Key::Register(number));
        match self.random.below(6) {
            0 | 1 => self.write(running, list),
            2 => self.plain_read(running, list),
            3 => self.plain_read(running, register),
            4 => {
                self.plain_read(running, register);
                self.write(running, register);
            }
            _ => {
                let first = if self.random.percent(50) {
                    list
                } else {
                    register
                };
                self.scan(running, first.with(0), self.keys);
            }
        }
    }

    fn plain_read(&self, running: &mut Running, key: Key) {
        let value = self.read(running, key);
        running.txn.ops.push(Op::Read { key, value });
    }

    fn scan(&self, running: &mut Running, from: Key, to: u32) {
        let seen = (0..to)
            .map(|number| (from.with(number), self.read(running, from.with(number))))
            .filter(|(key, value)| *value != key.absent());
        let seen = seen.collect();
        running.txn.ops.push(Op::Scan { from, to, seen });
    }

    fn end(&mut self, mut running: Running, faults: u32) {
        let fate = self.random.below(100);
        running.txn.outcome = match fate {
            _ if fate >= faults => Outcome::Committed,
            _ if fate.is_multiple_of(2) => Outcome::Aborted,
            _ => Outcome::Unknown,
        };
        let happens = match running.txn.outcome {
            Outcome::Committed => true,
            Outcome::Aborted => false,
            Outcome::Unknown => self.random.percent(50),
        };
        if happens {
            for (key, own) in &running.own {
                let value = self.committed.entry(*key).or_insert_with(|| key.absent());
                apply(value, *own);
            }
        }
        running.txn.end = self.tick();
        self.txns.push(running.txn);
    }
}

fn apply(value: &mut Value, own: Option<u64>) {
    match value {
        Value::List(elements) => elements.extend(own),
        Value::Register(value) => *value = own,
    }
}

/// Puts an older version in the place of what one read answered. Answers whether there was one.
fn grow_old(history: &mut History, random: &mut Random) -> bool {
    let mut values: HashMap<Key, Vec<u64>> = HashMap::new();
    for op in history.txns.iter().flat_map(|txn| &txn.ops) {
        if let Op::Write {
            key,
            value: Some(value),
        } = op
        {
            values.entry(*key).or_default().push(*value);
        }
    }
    let mut older: Vec<(usize, usize, Value)> = Vec::new();
    for (id, txn) in history.txns.iter().enumerate() {
        for (place, op) in txn.ops.iter().enumerate() {
            match op {
                Op::Read {
                    value: Value::List(elements),
                    ..
                } => {
                    let shorter = elements.split_last().map(|(_, rest)| rest.to_vec());
                    older.extend(shorter.map(|list| (id, place, Value::List(list))));
                }
                Op::Read {
                    key,
                    value: Value::Register(Some(value)),
                } => {
                    let before = values.get(key).into_iter().flatten();
                    let before = before.copied().filter(|other| other < value).max();
                    older.push((id, place, Value::Register(before)));
                }
                _ => {}
            }
        }
    }
    if older.is_empty() {
        return false;
    }
    let (id, place, old) = older.swap_remove(random.below(older.len() as u32) as usize);
    if let Op::Read { value, .. } = &mut history.txns[id].ops[place] {
        *value = old;
    }
    true
}

/// The checker and the trial of every order answer the same.
fn agree(history: &History) -> Result<bool, TestCaseError> {
    let serializable = brute::serializable(history);
    match check(history) {
        Ok(_) => prop_assert!(serializable, "not found in {history:#?}"),
        Err(anomaly) => prop_assert!(!serializable, "{anomaly}\nin {history:#?}"),
    }
    Ok(serializable)
}

fn sees() -> impl Strategy<Value = Sees> {
    prop_oneof![
        Just(Sees::Snapshot),
        Just(Sees::Committed),
        Just(Sees::Dirty)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_after_the_other_is_always_good(seed: u64, count in 0_u32..200) {
        let history = made(seed, count, 1, Sees::Alone, 20);
        if let Err(anomaly) = check(&history) {
            prop_assert!(false, "{anomaly}");
        }
    }

    #[test]
    fn an_old_read_is_found_whenever_no_order_explains_it(seed: u64, count in 1_u32..6) {
        let mut history = made(seed, count, 1, Sees::Alone, 20);
        if grow_old(&mut history, &mut Random::new(seed)) {
            agree(&history)?;
        }
    }

    #[test]
    fn what_runs_at_once_is_judged_as_by_trying_every_order(
        seed: u64, count in 1_u32..6, width in 2_u32..5, sees in sees(),
    ) {
        agree(&made(seed, count, width, sees, 20))?;
    }
}

/// The histories above are no good if they are nearly all good, or nearly all bad.
#[test]
fn the_random_histories_are_of_both_kinds() {
    for sees in [Sees::Snapshot, Sees::Committed, Sees::Dirty] {
        let good = (0..1_000).filter(|seed| check(&made(*seed, 4, 3, sees, 20)).is_ok());
        let good = good.count();
        assert!((100..=900).contains(&good), "{sees:?}: {good} of 1,000");
    }
    let mut found = BTreeMap::new();
    for seed in 0..3_000 {
        let sees = [Sees::Snapshot, Sees::Committed, Sees::Dirty][seed as usize % 3];
        if let Err(anomaly) = check(&made(seed, 5, 4, sees, 20)) {
            *found.entry(anomaly.kind).or_insert(0) += 1;
        }
    }
    println!("{found:?}");
}
