//! What each transaction read of others, its own writes taken away, and who wrote what.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::anomaly::{Anomaly, Kind};
use super::possible;
use crate::history::{History, Key, Op, Outcome, Txn, Value};

/// What a transaction has to do with one key.
#[derive(Debug, Default)]
pub struct Touch {
    /// What was there before the transaction's own writes, if it looked.
    pub base: Option<Value>,
    /// Whether a scan looked, and no plain read.
    pub scanned: bool,
    /// What it wrote, in order.
    pub writes: Vec<Option<u64>>,
}

/// The history, key by key.
pub struct Seen {
    /// For each transaction.
    pub touches: Vec<HashMap<Key, Touch>>,
    /// Who wrote an element or value, and whether it replaced it itself later.
    pub writers: HashMap<(Key, u64), (usize, bool)>,
    /// Who deleted, or tried to.
    pub deleters: HashMap<Key, Vec<usize>>,
    /// When the register's first writer had ended, for those that are deleted.
    pub made: HashMap<Key, (usize, u64)>,
    /// Transactions that contradict themselves: it matters only of those that are taken.
    inconsistent: HashMap<usize, String>,
}

impl Seen {
    pub fn of(history: &History) -> Result<Self, Box<Anomaly>> {
        let mut seen = Self {
            touches: Vec::with_capacity(history.txns.len()),
            writers: HashMap::new(),
            deleters: HashMap::new(),
            made: HashMap::new(),
            inconsistent: HashMap::new(),
        };
        for (id, txn) in history.txns.iter().enumerate() {
            let touches = seen.touches(id, txn)?;
            for (key, touch) in &touches {
                seen.note_writes(id, *key, touch)?;
            }
            seen.touches.push(touches);
        }
        let keys: Vec<Key> = seen.deleters.keys().copied().collect();
        for key in keys {
            let made = seen.maker(history, key)?;
            seen.made.insert(key, made);
        }
        Ok(seen)
    }

    /// The transactions that must be explained: the committed ones, and those of an unknown outcome that one of these saw.
    pub fn taken(&self, history: &History) -> Result<Vec<bool>, Box<Anomaly>> {
        let committed = |txn: &Txn| txn.outcome == Outcome::Committed;
        let mut taken: Vec<bool> = history.txns.iter().map(committed).collect();
        let mut left: Vec<usize> = (0..taken.len()).filter(|id| taken[*id]).collect();
        while let Some(reader) = left.pop() {
            if let Some(text) = self.inconsistent.get(&reader) {
                return Err(Anomaly::new(Kind::Internal, vec![reader], text.clone()));
            }
            for (key, touch) in &self.touches[reader] {
                let Some(base) = &touch.base else { continue };
                for writer in self.seen_in(history, reader, *key, base)? {
                    if !taken[writer] {
                        taken[writer] = true;
                        left.push(writer);
                    }
                }
            }
        }
        Ok(taken)
    }

    /// Who put there what a transaction found; none if it found what was there before all.
    fn seen_in(
        &self,
        history: &History,
        reader: usize,
        key: Key,
        base: &Value,
    ) -> Result<Vec<usize>, Box<Anomaly>> {
        let elements = match base {
            Value::List(elements) => elements.as_slice(),
            Value::Register(Some(value)) => std::slice::from_ref(value),
            Value::Register(None) => {
                return Ok(self.deleter(history, reader, key)?.into_iter().collect());
            }
        };
        let mut found = Vec::new();
        for (place, element) in elements.iter().enumerate() {
            let Some((writer, replaced)) = self.writers.get(&(key, *element)) else {
                let text = format!("T{reader} read {element} in {key}, which nobody wrote");
                return Err(Anomaly::new(Kind::Invented, vec![reader], text));
            };
            if !possible(history.txns[*writer].outcome) {
                let text =
                    format!("T{reader} read {element} in {key}, written by T{writer}, aborted");
                let txns = vec![reader, *writer];
                return Err(Anomaly::new(Kind::AbortedRead, txns, text));
            }
            if *writer == reader {
                let text = format!("T{reader} read {element} in {key} before it wrote it itself");
                return Err(Anomaly::new(Kind::Internal, vec![reader], text));
            }
            // In the middle of a list everybody's elements are, so only its end is intermediate.
            if *replaced && place + 1 == elements.len() {
                let text = format!(
                    "T{reader} read {key} with {element} at its end, to which T{writer} had more to write"
                );
                let txns = vec![reader, *writer];
                return Err(Anomaly::new(Kind::IntermediateRead, txns, text));
            }
            found.push(*writer);
        }
        Ok(found)
    }

    /// Who deleted a register that was found absent; nobody if it had not been made, or if it cannot be told.
    pub fn deleter(
        &self,
        history: &History,
        reader: usize,
        key: Key,
    ) -> Result<Option<usize>, Box<Anomaly>> {
        let Some((maker, made)) = self.made.get(&key) else {
            return Ok(None);
        };
        if *maker == reader {
            return Ok(None);
        }
        if history.txns[reader].begin <= *made {
            let text = format!("T{reader} looked for {key} before it was made");
            return Err(Anomaly::new(Kind::Malformed, vec![reader], text));
        }
        let by = |outcome| {
            let deleters = self.deleters[&key].iter();
            deleters
                .copied()
                .filter(move |id| *id != reader && history.txns[*id].outcome == outcome)
        };
        if let Some(committed) = by(Outcome::Committed).next() {
            return Ok(Some(committed));
        }
        let mut unknown = by(Outcome::Unknown);
        match (unknown.next(), unknown.next()) {
            (Some(only), None) => Ok(Some(only)),
            (Some(_), Some(_)) => Ok(None),
            (None, _) => {
                let text = format!("T{reader} missed {key}, which only aborted ones deleted");
                Err(Anomaly::new(Kind::AbortedRead, vec![reader], text))
            }
        }
    }

    /// Goes through a transaction's operations, and holds what it reads against what it did before.
    fn touches(&mut self, id: usize, txn: &Txn) -> Result<HashMap<Key, Touch>, Box<Anomaly>> {
        let mut touches: HashMap<Key, Touch> = HashMap::new();
        for op in &txn.ops {
            let scanned = matches!(op, Op::Scan { .. });
            if let Op::Scan { from, to, seen } = op {
                ordered(id, *from, *to, seen)?;
            }
            for (key, value) in op.reads() {
                let touch = touches.entry(key).or_insert_with(|| Touch {
                    scanned,
                    ..Touch::default()
                });
                touch.scanned &= scanned;
                if !touch.read(value.clone()) {
                    let text = format!(
                        "T{id} read {key} as {value}, against its own operations:\n  {txn}"
                    );
                    self.inconsistent.insert(id, text);
                }
            }
            match op {
                Op::Append { key, element } => {
                    touches.entry(*key).or_default().writes.push(Some(*element));
                }
                Op::Write { key, value } => {
                    let touch = touches.entry(*key).or_default();
                    if touch.base.is_none() {
                        let text = format!("T{id} writes {key} without having read it");
                        return Err(Anomaly::new(Kind::Malformed, vec![id], text));
                    }
                    touch.writes.push(*value);
                }
                Op::Read { .. } | Op::Scan { .. } => {}
            }
        }
        Ok(touches)
    }

    fn note_writes(&mut self, id: usize, key: Key, touch: &Touch) -> Result<(), Box<Anomaly>> {
        let last = touch.writes.len().saturating_sub(1);
        for (place, value) in touch.writes.iter().enumerate() {
            let Some(value) = value else {
                if place != last {
                    let text = format!("T{id} writes {key} after it deleted it");
                    return Err(Anomaly::new(Kind::Malformed, vec![id], text));
                }
                self.deleters.entry(key).or_default().push(id);
                continue;
            };
            match self.writers.entry((key, *value)) {
                Entry::Vacant(entry) => entry.insert((id, place != last)),
                Entry::Occupied(other) => {
                    let other = other.get().0;
                    let text = format!("T{other} and T{id} both write {value} to {key}");
                    return Err(Anomaly::new(Kind::Malformed, vec![other, id], text));
                }
            };
        }
        Ok(())
    }

    /// Who made a register that somebody deletes, and when that had ended.
    fn maker(&self, history: &History, key: Key) -> Result<(usize, u64), Box<Anomaly>> {
        let made = |(id, txn): (usize, &Txn)| {
            let touch = self.touches[id].get(&key)?;
            let first = txn.outcome == Outcome::Committed && !touch.writes.is_empty();
            let absent = touch.base == Some(Value::Register(None));
            (first && absent).then_some((txn.end, id))
        };
        let first = history.txns.iter().enumerate().filter_map(made).min();
        let Some((end, id)) = first else {
            let text = format!("{key} is deleted, and nobody made it");
            return Err(Anomaly::new(Kind::Malformed, Vec::new(), text));
        };
        Ok((id, end))
    }
}

impl Touch {
    /// Takes a read in; false if it does not fit what the transaction has read and written before.
    fn read(&mut self, value: Value) -> bool {
        let base = match value {
            Value::List(mut elements) => {
                let own = self.writes.len();
                let Some(others) = elements.len().checked_sub(own) else {
                    return false;
                };
                let at_the_end = elements.split_off(others);
                if !at_the_end
                    .into_iter()
                    .map(Some)
                    .eq(self.writes.iter().copied())
                {
                    return false;
                }
                Value::List(elements)
            }
            // A register is read before it is written, so there is a base already.
            Value::Register(value) => match self.writes.last() {
                Some(own) => return *own == value,
                None => Value::Register(value),
            },
        };
        match &self.base {
            Some(before) => *before == base,
            None => {
                self.base = Some(base);
                true
            }
        }
    }
}

/// Whether a scan answered what scans may answer: each key once, in one direction, within the range.
fn ordered(id: usize, from: Key, to: u32, seen: &[(Key, Value)]) -> Result<(), Box<Anomaly>> {
    let keys = || seen.iter().map(|(key, _)| *key);
    let rising = keys().is_sorted_by(|a, b| a < b);
    let falling = keys().is_sorted_by(|a, b| a > b);
    let within = keys().all(|key| key >= from && key < from.with(to));
    let present = seen.iter().all(|(key, value)| *value != key.absent());
    if (rising || falling) && within && present {
        return Ok(());
    }
    let keys: Vec<String> = keys().map(|key| key.to_string()).collect();
    let text = format!(
        "T{id} scanned {from}..{} and was answered {keys:?}",
        from.with(to)
    );
    Err(Anomaly::new(Kind::BadScan, vec![id], text))
}
