use std::collections::BTreeMap;

use heed::DatabaseFlags;
use tempfile::TempDir;

use super::*;
use crate::env::EnvId;
use crate::env::raw::{self, OpenPlan};
use crate::env::registry::{OpenSpec, Registry};
use crate::env::transaction::{ReadTxn, Scope};

const ENV: EnvId = EnvId::test(7);

/// An environment with one database, without a keeper around it.
struct World {
    env: heed::Env,
    registry: Registry,
    table: RawTable,
    _folder: TempDir,
}

impl World {
    fn new<C: Comparator + Send + Sync + 'static>() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plan = OpenPlan {
            map_size: 64 << 20,
            max_readers: 8,
            max_databases: 4,
            no_sync: true,
            no_lock: false,
        };
        let env = raw::open(folder.path(), &plan).unwrap();
        let registry = Registry::new();
        let spec = OpenSpec::new::<Bytes, Bytes, C>(Some("t"), DatabaseFlags::empty(), true);
        assert!(registry.open(&env, &spec).unwrap());
        let found = registry.find::<C>(&spec).unwrap().unwrap();
        let table = registry.table::<C>(ENV, found.id).unwrap();
        Self {
            env,
            registry,
            table,
            _folder: folder,
        }
    }

    fn scope(&self) -> Scope {
        Scope {
            env: ENV,
            epoch: self.registry.epoch(),
            opened: self.registry.opened(),
            max_key: 511,
        }
    }

    fn write<T>(&self, body: impl FnOnce(&mut WriteTxn<'_>) -> T) -> T {
        let txn = self.env.write_txn().unwrap();
        let mut txn = WriteTxn::new(txn, self.scope(), &self.registry);
        let answer = body(&mut txn);
        txn.commit().unwrap();
        answer
    }

    fn read<T>(&self, body: impl FnOnce(&ReadTxn<'_>) -> T) -> T {
        let txn = self.env.read_txn().unwrap();
        body(&ReadTxn::new(&txn, self.scope(), &self.registry))
    }

    fn fill(&self, keys: &[Vec<u8>]) {
        self.write(|txn| {
            for key in keys {
                self.table.put(txn, key, &value(key)).unwrap();
            }
        });
    }

    fn keys(&self, from: Bound<&[u8]>, to: Bound<&[u8]>, reverse: bool) -> Vec<Vec<u8>> {
        self.read(|txn| {
            let mut found = Vec::new();
            self.table
                .walk(txn, from, to, reverse, &mut |key, found_value| {
                    assert_eq!(found_value, value(key));
                    found.push(key.to_vec());
                    ControlFlow::Continue(())
                })
                .unwrap();
            found
        })
    }
}

fn value(key: &[u8]) -> Vec<u8> {
    key.iter().rev().copied().collect()
}

enum Backwards {}
impl Comparator for Backwards {
    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        b.cmp(a)
    }
}

/// Holds different bytes for equal.
enum AnyCase {}
impl Comparator for AnyCase {
    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase())
    }
}

/// A key as the order `C` sees it.
struct Ordered<C>(Vec<u8>, std::marker::PhantomData<C>);

impl<C: Comparator> Ordered<C> {
    fn new(key: &[u8]) -> Self {
        Self(key.to_vec(), std::marker::PhantomData)
    }
}
impl<C: Comparator> Ord for Ordered<C> {
    fn cmp(&self, other: &Self) -> Ordering {
        C::compare(&self.0, &other.0)
    }
}
impl<C: Comparator> PartialOrd for Ordered<C> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<C: Comparator> PartialEq for Ordered<C> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<C: Comparator> Eq for Ordered<C> {}

type Model<C> = BTreeMap<Ordered<C>, ()>;

/// What a `BTreeMap` has within the bounds; it panics at those that nothing can be within.
fn expected<C: Comparator>(model: &Model<C>, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Vec<Vec<u8>> {
    use Bound::{Excluded, Included, Unbounded};
    let none = match (from, to) {
        (Unbounded, _) | (_, Unbounded) => false,
        (Excluded(from), Excluded(to)) => C::compare(from, to).is_ge(),
        (Included(from) | Excluded(from), Included(to) | Excluded(to)) => {
            C::compare(from, to).is_gt()
        }
    };
    if none {
        return Vec::new();
    }
    let range = (from.map(Ordered::new), to.map(Ordered::new));
    model.range(range).map(|(key, ())| key.0.clone()).collect()
}

fn bounds(keys: &[Vec<u8>]) -> Vec<Bound<&[u8]>> {
    let mut bounds = vec![Bound::Unbounded];
    for key in keys {
        bounds.extend([Bound::Included(&key[..]), Bound::Excluded(&key[..])]);
    }
    bounds
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Every pair of bounds, in both directions, and what a deletion leaves.
fn holds_for_all_bounds<C: Comparator + Send + Sync + 'static>() {
    let stored = texts(&["B", "a", "ab", "c", "cc", "d"]);
    let named = texts(&[
        "", "A", "B", "a", "aB", "ab", "abc", "b", "c", "cc", "d", "e",
    ]);
    for there in [0, 1, stored.len()] {
        let world = World::new::<C>();
        let stored = &stored[..there];
        world.fill(stored);
        let model: Model<C> = stored.iter().map(|key| (Ordered::new(key), ())).collect();
        for from in bounds(&named) {
            for to in bounds(&named) {
                let mut within = expected(&model, from, to);
                assert_eq!(world.keys(from, to, false), within, "{from:?} to {to:?}");
                let removed = world.write(|txn| {
                    let removed = world.table.delete_range(txn, from, to).unwrap();
                    for key in &within {
                        assert_eq!(world.table.get(txn, key).unwrap(), None);
                    }
                    removed
                });
                assert_eq!(removed, within.len() as u64, "{from:?} to {to:?}");
                let left: Vec<_> = model
                    .keys()
                    .filter(|key| !within.contains(&key.0))
                    .map(|key| key.0.clone())
                    .collect();
                let all = world.keys(Bound::Unbounded, Bound::Unbounded, false);
                assert_eq!(all, left, "{from:?} to {to:?}");
                world.fill(&within);
                within.reverse();
                assert_eq!(world.keys(from, to, true), within, "{from:?} to {to:?}");
            }
        }
    }
}

#[test]
fn ranges_are_those_of_a_btreemap_in_both_directions() {
    holds_for_all_bounds::<DefaultComparator>();
}

#[test]
fn ranges_go_by_the_order_of_the_application() {
    holds_for_all_bounds::<Backwards>();
}

#[test]
fn keys_that_are_equal_in_other_bytes_end_a_range() {
    holds_for_all_bounds::<AnyCase>();
}

#[test]
fn ranges_over_many_pages_are_walked_and_deleted() {
    let world = World::new::<DefaultComparator>();
    let key = |n: usize| format!("{n:0300}").into_bytes();
    let keys: Vec<_> = (0..2000).map(|n| key(n * 2)).collect();
    for (from, to) in [(0, 4000), (1, 3999), (777, 778), (500, 3001), (3999, 9999)] {
        world.fill(&keys);
        let (start, end) = (key(from), key(to));
        let range = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let within = |n: usize| (from..to).contains(&(n * 2));
        let (inside, outside): (Vec<_>, Vec<_>) = (0..2000).partition(|&n| within(n));
        let mut found = world.keys(range.0, range.1, true);
        found.reverse();
        assert_eq!(
            found,
            inside.iter().map(|&n| key(n * 2)).collect::<Vec<_>>()
        );
        let removed = world.write(|txn| world.table.delete_range(txn, range.0, range.1).unwrap());
        assert_eq!(removed, inside.len() as u64);
        let left = world.keys(Bound::Unbounded, Bound::Unbounded, false);
        assert_eq!(
            left,
            outside.iter().map(|&n| key(n * 2)).collect::<Vec<_>>()
        );
    }
}

#[test]
fn whoever_visits_may_stop() {
    let world = World::new::<DefaultComparator>();
    world.fill(&texts(&["a", "b", "c"]));
    for (reverse, first) in [(false, b"a"), (true, b"c")] {
        let mut seen = Vec::new();
        world.read(|txn| {
            let all = Bound::Unbounded;
            let mut visit = |key: &[u8], _: &[u8]| {
                seen.push(key.to_vec());
                ControlFlow::Break(())
            };
            world
                .table
                .walk(txn, all, all, reverse, &mut visit)
                .unwrap();
        });
        assert_eq!(seen, [first]);
    }
}

#[test]
fn a_key_that_lmdb_does_not_take_is_named() {
    let world = World::new::<DefaultComparator>();
    let refused = world.write(|txn| world.table.put(txn, b"", b"x"));
    assert!(matches!(
        refused,
        Err(DbError::KeySize { len: 0, max: 511 })
    ));
    let refused = world.write(|txn| world.table.put(txn, &[1; 512], b"x"));
    assert!(matches!(refused, Err(DbError::KeySize { len: 512, .. })));
}

#[test]
fn a_foreign_transaction_is_refused_and_a_recovery_survived() {
    let world = World::new::<DefaultComparator>();
    world.fill(&texts(&["a"]));
    let txn = world.env.read_txn().unwrap();
    let scope = Scope {
        env: EnvId::test(8),
        ..world.scope()
    };
    let foreign = ReadTxn::new(&txn, scope, &world.registry);
    assert!(matches!(
        world.table.get(&foreign, b"a"),
        Err(DbError::Foreign)
    ));
    drop(txn);
    world.registry.reopen_all(&world.env).unwrap();
    let value = world.read(|txn| world.table.get(txn, b"a").unwrap().map(<[u8]>::to_vec));
    assert_eq!(value.unwrap(), b"a");
}
