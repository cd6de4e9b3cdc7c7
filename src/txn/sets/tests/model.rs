//! Random transactions against a naive model: a state that is copied at each savepoint.

use std::collections::BTreeMap;
use std::ops::Bound;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::txn::sets::{Check, Content, Gone, Mark, Own, TooMuch};

/// Keys of each table.
const KEYS: usize = 8;
/// Places on the line of a table: each key, the gaps between, and the two ends.
const PLACES: usize = 2 * KEYS + 1;

/// The two tables, of which the second is in reverse order.
fn table(number: usize) -> TableRef {
    [forwards(), backwards()][number]
}

/// The key at a rank in the order of a table. Of different lengths.
fn key(table: usize, rank: usize) -> Vec<u8> {
    let letter = if table == 0 { rank } else { KEYS - 1 - rank };
    vec![b'a' + u8::try_from(letter).unwrap(); 1 + letter % 3]
}

/// An end of a range: no end, or at the key of this rank, and whether with it.
type End = Option<(usize, bool)>;

fn bound(table: usize, end: End) -> Bound<Box<[u8]>> {
    match end {
        None => Bound::Unbounded,
        Some((rank, true)) => Bound::Included(key(table, rank).into()),
        Some((rank, false)) => Bound::Excluded(key(table, rank).into()),
    }
}

/// The places of a range: the key of rank r is at 2r + 1.
fn places(from: End, to: End) -> std::ops::Range<usize> {
    let first = from.map_or(0, |(rank, is_in)| 2 * rank + 1 + usize::from(!is_in));
    let last = to.map_or(PLACES, |(rank, is_in)| 2 * rank + 1 + usize::from(is_in));
    first..last
}

#[derive(Clone, Debug)]
enum Op {
    Put(usize, usize, Vec<u8>),
    Delete(usize, usize),
    Clear(usize, End, End),
    Savepoint,
    /// The mark that so many have followed; of those that are gone if there are not so many.
    Rollback(usize),
    Release(usize),
    /// Batch sizes; the scan is given up when there are no more.
    Scan(usize, End, End, bool, Vec<usize>),
}

fn ops() -> impl Strategy<Value = Op> {
    let end = || prop::option::weighted(0.8, (0..KEYS, any::<bool>()));
    let (t, k) = (0..2usize, 0..KEYS);
    prop_oneof![
        6 => (t.clone(), k.clone(), vec(any::<u8>(), 0..20)).prop_map(|(t, k, v)| Op::Put(t, k, v)),
        3 => (t.clone(), k).prop_map(|(t, k)| Op::Delete(t, k)),
        3 => (t.clone(), end(), end()).prop_map(|(t, from, to)| Op::Clear(t, from, to)),
        3 => Just(Op::Savepoint),
        2 => (0..4usize).prop_map(Op::Rollback),
        2 => (0..4usize).prop_map(Op::Release),
        3 => (t, end(), end(), any::<bool>(), vec(0..4usize, 0..8))
            .prop_map(|(t, from, to, reverse, sizes)| Op::Scan(t, from, to, reverse, sizes)),
    ]
}

/// Entries by rank.
type Base = [BTreeMap<usize, Vec<u8>>; 2];

#[derive(Clone, Debug, Default)]
struct State {
    keyed: [BTreeMap<usize, Option<Vec<u8>>>; 2],
    cleared: [[bool; PLACES]; 2],
}

impl State {
    fn own(&self, table: usize, rank: usize) -> Own<'_> {
        match self.keyed[table].get(&rank) {
            Some(Some(value)) => Own::Put(value),
            Some(None) => Own::Gone,
            None if self.cleared[table][2 * rank + 1] => Own::Gone,
            None => Own::Untouched,
        }
    }

    fn sees<'a>(&'a self, base: &'a Base, table: usize, rank: usize) -> Option<&'a [u8]> {
        match self.own(table, rank) {
            Own::Put(value) => Some(value),
            Own::Gone => None,
            Own::Untouched => base[table].get(&rank).map(Vec::as_slice),
        }
    }

    /// Keys, values, the ends of each run of cleared places, and the overhead of each.
    fn bytes(&self) -> usize {
        let mut bytes = 0;
        for t in 0..2 {
            for (rank, value) in &self.keyed[t] {
                bytes += ENTRY_OVERHEAD + key(t, *rank).len() + value.as_ref().map_or(0, Vec::len);
            }
            for place in 0..PLACES {
                let at = |place: Option<usize>| {
                    place.is_some_and(|at| self.cleared[t].get(at) == Some(&true))
                };
                if !at(Some(place)) {
                    continue;
                }
                // A run that begins or ends at a gap has the key beside it as its end.
                if !at(place.checked_sub(1)) {
                    bytes += ENTRY_OVERHEAD;
                    if place > 0 {
                        bytes += key(t, (place - 1) / 2).len();
                    }
                }
                if !at(Some(place + 1)) && place + 1 < PLACES {
                    bytes += key(t, place / 2).len();
                }
            }
        }
        bytes
    }

    fn clear(&mut self, table: usize, from: End, to: End) {
        for place in places(from, to) {
            self.cleared[table][place] = true;
            if place % 2 == 1 {
                self.keyed[table].remove(&(place / 2));
            }
        }
    }
}

struct Run {
    sets: Sets,
    limit: usize,
    base: Base,
    state: State,
    open: Vec<(Mark, State)>,
    gone: Vec<Mark>,
}

impl Run {
    fn step(&mut self, op: Op) {
        match op {
            Op::Put(t, rank, value) => {
                let mut next = self.state.clone();
                next.keyed[t].insert(rank, Some(value.clone()));
                let (before, done) = (
                    told(&self.sets),
                    self.sets.put(table(t), key(t, rank), value),
                );
                self.expect(&before, done, next);
            }
            Op::Delete(t, rank) => {
                let mut next = self.state.clone();
                next.keyed[t].insert(rank, None);
                let (before, done) = (told(&self.sets), self.sets.delete(table(t), key(t, rank)));
                self.expect(&before, done, next);
            }
            Op::Clear(t, from, to) => {
                let mut next = self.state.clone();
                next.clear(t, from, to);
                let before = told(&self.sets);
                let done = self.sets.clear(table(t), bound(t, from), bound(t, to));
                self.expect(&before, done, next);
            }
            Op::Savepoint => {
                let mark = self.sets.savepoint();
                self.open.push((mark, self.state.clone()));
            }
            Op::Rollback(back) => match self.nth(back) {
                Ok(at) => {
                    let (mark, state) = self.open[at].clone();
                    assert_eq!(self.sets.rollback_to(mark), Ok(()));
                    self.state = state;
                    self.gone
                        .extend(self.open.drain(at + 1..).map(|(mark, _)| mark));
                    if at == 0 {
                        assert_eq!(self.sets.kept_bytes(), 0);
                    }
                }
                Err(Some(mark)) => assert_eq!(self.sets.rollback_to(mark), Err(Gone)),
                Err(None) => {}
            },
            Op::Release(back) => match self.nth(back) {
                Ok(at) => {
                    assert_eq!(self.sets.release(self.open[at].0), Ok(()));
                    self.gone
                        .extend(self.open.drain(at..).map(|(mark, _)| mark));
                }
                Err(Some(mark)) => assert_eq!(self.sets.release(mark), Err(Gone)),
                Err(None) => {}
            },
            Op::Scan(t, from, to, reverse, sizes) => self.scan(t, from, to, reverse, &sizes),
        }
        self.compare();
    }

    fn nth(&self, back: usize) -> Result<usize, Option<Mark>> {
        let at = self.open.len().checked_sub(back + 1);
        at.ok_or_else(|| self.gone.get(back % self.gone.len().max(1)).copied())
    }

    /// The write was done, or refused for a reason and without a trace.
    fn expect(&mut self, before: &[String], done: Result<(), TooMuch>, next: State) {
        if done.is_ok() {
            self.state = next;
            assert!(self.sets.write_bytes() + self.sets.kept_bytes() <= self.limit);
        } else {
            assert_eq!(told(&self.sets), before);
            assert!(!self.open.is_empty() || next.bytes() > self.limit);
        }
    }

    fn scan(&mut self, t: usize, from: End, to: End, reverse: bool, sizes: &[usize]) {
        let span = span(table(t), bound(t, from), bound(t, to), reverse);
        let range = self
            .sets
            .begin_range(span.clone(), Content::Entries)
            .unwrap();
        let in_range = |rank: &usize| places(from, to).contains(&(2 * rank + 1));
        let ranks = |reverse| {
            let ranks = (0..KEYS).filter(in_range);
            if reverse {
                ranks.rev().collect::<Vec<_>>()
            } else {
                ranks.collect()
            }
        };
        let base: Vec<_> = ranks(reverse)
            .into_iter()
            .filter_map(|rank| Some((key(t, rank), self.base[t].get(&rank)?.clone())))
            .collect();
        let expected: Vec<_> = ranks(reverse)
            .into_iter()
            .filter_map(|rank| Some((key(t, rank), self.state.sees(&self.base, t, rank)?.to_vec())))
            .collect();

        let (mut seen, mut rest, mut left) = (Vec::new(), Some(span), &base[..]);
        let mut sizes = sizes.iter();
        while let Some(here) = rest.take() {
            let Some(&size) = sizes.next() else {
                // Given up: what was seen is the beginning of what is there.
                assert_eq!(seen[..], expected[..seen.len()]);
                break;
            };
            // The end is known only when a batch comes up short.
            let (batch, after) = left.split_at(size.min(left.len()));
            let end = batch.len() < size;
            for (key, value) in batch {
                self.sets.extend_range(range, key, value);
            }
            if end {
                self.sets.end_range(range);
            }
            let overlaid = self.sets.overlay(here, batch.to_vec(), end);
            assert_eq!(overlaid.rest.is_none(), end);
            seen.extend(overlaid.entries.into_iter().map(|entry| match entry {
                Visible::Base(key, value) => (key, value),
                Visible::Own(key, value) => (key.to_vec(), value.to_vec()),
            }));
            if end {
                assert_eq!(seen, expected);
            }
            (rest, left) = (overlaid.rest, after);
        }
    }

    /// Everything that can be asked.
    fn compare(&self) {
        assert_eq!(self.sets.write_bytes(), self.state.bytes());
        if self.open.is_empty() {
            assert_eq!(self.sets.kept_bytes(), 0);
        }
        for t in 0..2 {
            for rank in 0..KEYS {
                let own = self.sets.own(table(t), &key(t, rank));
                assert_eq!(own, self.state.own(t, rank));
            }
        }
        assert_eq!(self.sets.is_read_only(), self.state.bytes() == 0);
        assert_eq!(self.applied(), self.visible());
    }

    fn visible(&self) -> Vec<(usize, Vec<u8>, Vec<u8>)> {
        let all = (0..2).flat_map(|t| (0..KEYS).map(move |rank| (t, rank)));
        let seen = all.filter_map(|(t, rank)| {
            let value = self.state.sees(&self.base, t, rank)?;
            Some((t, key(t, rank), value.to_vec()))
        });
        seen.collect()
    }

    /// The database after the writes, one by one in the order in which they come.
    fn applied(&self) -> Vec<(usize, Vec<u8>, Vec<u8>)> {
        let mut after = self.base.clone();
        let rank_of =
            |t: usize, wanted: &[u8]| (0..KEYS).find(|rank| key(t, *rank) == wanted).unwrap();
        let number = |table: TableRef| usize::from(table == backwards());
        for write in self.sets.writes() {
            match write {
                Write::Clear { table, from, to } => {
                    let t = number(table);
                    let end = |bound| match bound {
                        Bound::Included(key) => Some((rank_of(t, key), true)),
                        Bound::Excluded(key) => Some((rank_of(t, key), false)),
                        Bound::Unbounded => None,
                    };
                    let places = places(end(from), end(to));
                    after[t].retain(|rank, _| !places.contains(&(2 * rank + 1)));
                }
                Write::Put { table, key, value } => {
                    let t = number(table);
                    after[t].insert(rank_of(t, key), value.to_vec());
                }
                Write::Delete { table, key } => {
                    let t = number(table);
                    after[t].remove(&rank_of(t, key));
                }
            }
        }
        let after = after.into_iter().enumerate();
        let after = after.flat_map(|(t, entries)| {
            let entry = move |(rank, value)| (t, key(t, rank), value);
            entries.into_iter().map(entry)
        });
        after.collect()
    }

    /// Every scan agrees with the database as it is, and with no database that differs where it looked.
    fn check_ranges(&self) {
        for check in self.sets.checks() {
            let Check::Range(check) = check else {
                continue;
            };
            let t = usize::from(check.table == backwards());
            let covered = |rank: &usize| {
                let (key, order) = (key(t, *rank), check.table.order);
                let after_start = match check.from {
                    Bound::Included(from) => order(from, &key).is_le(),
                    Bound::Excluded(from) => order(from, &key).is_lt(),
                    Bound::Unbounded => true,
                };
                let before_end = match check.to {
                    Bound::Included(to) => order(&key, to).is_le(),
                    Bound::Excluded(to) => order(&key, to).is_lt(),
                    Bound::Unbounded => true,
                };
                after_start && before_end
            };
            let agrees = |base: &Base| {
                let mut entries: Vec<_> =
                    base[t].iter().filter(|(rank, _)| covered(rank)).collect();
                if check.reverse {
                    entries.reverse();
                }
                let mut fold = check.fold();
                let _ = entries
                    .into_iter()
                    .try_for_each(|(rank, value)| fold.entry(&key(t, *rank), value));
                fold.agrees()
            };
            assert!(agrees(&self.base));
            for rank in 0..KEYS {
                let mut other = self.base.clone();
                if other[t].remove(&rank).is_none() {
                    other[t].insert(rank, Vec::new());
                }
                assert_eq!(agrees(&other), !covered(&rank));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_transactions_are_what_a_naive_model_says(
        ops in vec(ops(), 1..60),
        base in prop::array::uniform2(prop::collection::btree_map(0..KEYS, vec(any::<u8>(), 0..4), 0..KEYS)),
        limit in prop_oneof![Just(1 << 20), 100..1_000usize],
    ) {
        let mut run = Run {
            sets: limited(1_000, limit),
            limit,
            base,
            state: State::default(),
            open: Vec::new(),
            gone: Vec::new(),
        };
        for op in ops {
            run.step(op);
        }
        run.check_ranges();
    }
}
