//! One transaction against a `BTreeMap`: random operations, with scans that run meanwhile.

use std::collections::BTreeMap;
use std::ops::Bound;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::U64;
use lockkeeper::{Scan, TxnError};

use crate::door::{Door, How, LEVELS, Numbers, World, all, block_on};

/// A small generator, so that a failure can be told by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct Running {
    scan: Scan<U64<BigEndian>, U64<BigEndian>>,
    from: u64,
    to: u64,
    reverse: bool,
    last: Option<u64>,
}

impl Running {
    fn expected(&self, model: &BTreeMap<u64, u64>) -> Option<(u64, u64)> {
        let mut from = Bound::Included(self.from);
        let mut to = Bound::Excluded(self.to.max(self.from));
        if let Some(last) = self.last {
            *if self.reverse { &mut to } else { &mut from } = Bound::Excluded(last);
        }
        let is_none = match (from, to) {
            (Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
            _ => false,
        };
        if is_none {
            return None;
        }
        let mut range = model.range((from, to)).map(|(key, value)| (*key, *value));
        if self.reverse {
            range.next_back()
        } else {
            range.next()
        }
    }
}

const KEYS: u64 = 120;

async fn walk(
    txn: lockkeeper::Txn,
    numbers: Numbers,
    mut model: BTreeMap<u64, u64>,
    seed: u64,
) -> Result<BTreeMap<u64, u64>, TxnError> {
    let mut dice = Dice(seed);
    let mut running: Vec<Running> = Vec::new();
    let mut points = Vec::new();
    for step in 0..300 {
        let (key, value) = (dice.roll(KEYS), dice.roll(1000));
        let told = format!("seed {seed}, step {step}, {:?}", txn.isolation());
        match dice.roll(13) {
            0 | 1 => {
                txn.put(numbers, &key, &value).await?;
                model.insert(key, value);
            }
            2 => assert_eq!(
                txn.delete(numbers, &key).await?,
                model.remove(&key).is_some(),
                "{told}"
            ),
            3 => {
                let absent = !model.contains_key(&key);
                assert_eq!(
                    txn.put_if_absent(numbers, &key, &value).await?,
                    absent,
                    "{told}"
                );
                model.entry(key).or_insert(value);
            }
            4 => assert_eq!(
                txn.get_as(numbers, &key).await?,
                model.get(&key).copied(),
                "{told}"
            ),
            5 => assert_eq!(
                txn.get_for_update_as(numbers, &key).await?,
                model.get(&key).copied(),
                "{told}"
            ),
            6 => {
                let to = key + dice.roll(12);
                txn.clear_range(numbers, &(key..to)).await?;
                model.retain(|at, _| !(key..to).contains(at));
            }
            7 => {
                let to = key + dice.roll(50);
                let there = model.range(key..to).map(|(key, value)| (*key, *value));
                let there: Vec<_> = there.collect();
                assert_eq!(all(txn.scan(numbers, &(key..to))).await?, there, "{told}");
                assert_eq!(
                    txn.count(numbers, &(key..to)).await?,
                    there.len() as u64,
                    "{told}"
                );
            }
            8 => {
                let (to, reverse) = (key + dice.roll(KEYS), dice.roll(2) == 0);
                let scan = txn.scan(numbers, &(key..to));
                let scan = if reverse { scan.rev() } else { scan };
                running.push(Running {
                    scan,
                    from: key,
                    to,
                    reverse,
                    last: None,
                });
                if running.len() > 4 {
                    running.remove(0);
                }
            }
            9 => {
                if points.len() < 3 {
                    points.push((txn.savepoint()?, model.clone()));
                } else if dice.roll(2) == 0 {
                    let at = dice.roll(3) as usize;
                    points.truncate(at + 1);
                    txn.rollback_to(&points[at].0)?;
                    model.clone_from(&points[at].1);
                } else {
                    let at = dice.roll(3) as usize;
                    txn.release(points.remove(at).0)?;
                    points.truncate(at);
                }
            }
            _ => {
                for one in &mut running {
                    let expected = one.expected(&model);
                    let found = match one.scan.next().await? {
                        Some((key, value)) => Some((key.decode()?, value.decode()?)),
                        None => None,
                    };
                    assert_eq!(
                        found, expected,
                        "{told}: after {:?} in {}..{}, reverse {}",
                        one.last, one.from, one.to, one.reverse
                    );
                    one.last = found.map(|(key, _)| key).or(one.last);
                }
                running.retain(|one| one.expected(&model).is_some());
            }
        }
    }
    Ok(model)
}

#[test]
fn a_transaction_is_a_map_with_scans_that_see_what_is_ahead_of_them() {
    let world = World::new();
    block_on(async {
        let mut model: BTreeMap<u64, u64> = (0..KEYS).step_by(2).map(|n| (n, n)).collect();
        world.fill(model.clone()).await;
        for seed in 0..40 {
            let how = How::level(LEVELS[seed as usize % LEVELS.len()]);
            let (numbers, before) = (world.numbers, model.clone());
            let walked = Door::Method.run(&world.keeper, how, move |txn| {
                walk(txn, numbers, before.clone(), seed)
            });
            model = walked.await.unwrap();
            let there: Vec<_> = model.iter().map(|(key, value)| (*key, *value)).collect();
            assert_eq!(world.committed().await, there, "seed {seed}");
        }
        world.is_idle().await;
    });
}
