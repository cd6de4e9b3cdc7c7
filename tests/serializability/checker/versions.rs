//! From the versions of each key to who must come before whom.

use std::collections::{BTreeMap, HashMap};

use super::anomaly::{Anomaly, Kind};
use super::graph::{Graph, Why};
use super::reads::{Seen, Touch};
use crate::history::{History, Key, Value};

/// The touches of the transactions that are taken, key by key and in the order of the history.
fn by_key<'a>(seen: &'a Seen, taken: &[bool]) -> BTreeMap<Key, Vec<(usize, &'a Touch)>> {
    let mut keys: BTreeMap<Key, Vec<(usize, &Touch)>> = BTreeMap::new();
    for (id, touches) in seen.touches.iter().enumerate() {
        if taken[id] {
            for (key, touch) in touches {
                keys.entry(*key).or_default().push((id, touch));
            }
        }
    }
    keys
}

/// Lists show in which order they were written: the longest that anybody read has all the others as beginnings.
pub fn lists(
    history: &History,
    seen: &Seen,
    taken: &[bool],
    graph: &mut Graph<'_>,
) -> Result<(), Box<Anomaly>> {
    for (key, touches) in by_key(seen, taken) {
        if matches!(key, Key::List(_)) {
            let (order, reader) = longest(key, &touches)?;
            let places = places(key, &order, reader)?;
            in_program_order(key, &touches, &places)?;
            lost(history, key, &touches, &places)?;
            list_edges(seen, key, &touches, &order, graph);
        }
    }
    Ok(())
}

/// The longest version of a list that somebody found, and who that was.
fn longest(
    key: Key,
    touches: &[(usize, &Touch)],
) -> Result<(Vec<u64>, Option<usize>), Box<Anomaly>> {
    let mut longest: (Vec<u64>, Option<usize>) = (Vec::new(), None);
    for (id, touch) in touches {
        let Some(Value::List(base)) = &touch.base else {
            continue;
        };
        let fits = base.iter().zip(&longest.0).all(|(a, b)| a == b);
        if !fits {
            let text = format!(
                "T{id} saw {key} as {}, and T{} as {}: neither is the beginning of the other",
                Value::List(base.clone()),
                longest.1.unwrap_or(*id),
                Value::List(longest.0),
            );
            let txns = longest.1.into_iter().chain([*id]).collect();
            return Err(Anomaly::new(Kind::IncompatibleOrder, txns, text));
        }
        if base.len() > longest.0.len() {
            longest = (base.clone(), Some(*id));
        }
    }
    Ok(longest)
}

fn places(
    key: Key,
    order: &[u64],
    reader: Option<usize>,
) -> Result<HashMap<u64, usize>, Box<Anomaly>> {
    let mut places = HashMap::with_capacity(order.len());
    for (place, element) in order.iter().enumerate() {
        if places.insert(*element, place).is_some() {
            let text = format!("{element} is in {key} twice");
            let txns = reader.into_iter().collect();
            return Err(Anomaly::new(Kind::Duplicate, txns, text));
        }
    }
    Ok(places)
}

/// What one transaction appended is in the list in its order.
fn in_program_order(
    key: Key,
    touches: &[(usize, &Touch)],
    places: &HashMap<u64, usize>,
) -> Result<(), Box<Anomaly>> {
    for (id, touch) in touches {
        let own = touch.writes.iter().flatten();
        // What nobody saw comes after all that was seen.
        let own = own.map(|element| places.get(element).copied().unwrap_or(usize::MAX));
        if !own.is_sorted() {
            let text = format!("{key} has what T{id} appended, but not in its order");
            return Err(Anomaly::new(Kind::IncompatibleOrder, vec![*id], text));
        }
    }
    Ok(())
}

/// What was committed is seen by whoever begins later.
fn lost(
    history: &History,
    key: Key,
    touches: &[(usize, &Touch)],
    places: &HashMap<u64, usize>,
) -> Result<(), Box<Anomaly>> {
    let readers = touches.iter().filter(|(_, touch)| touch.base.is_some());
    let Some(last) = readers
        .map(|(id, _)| *id)
        .max_by_key(|id| history.txns[*id].begin)
    else {
        return Ok(());
    };
    for (id, touch) in touches {
        let mut own = touch.writes.iter().flatten();
        let Some(element) = own.find(|element| !places.contains_key(element)) else {
            continue;
        };
        if history
            .answered(*id)
            .is_some_and(|end| end < history.txns[last].begin)
        {
            let text = format!(
                "T{id} appended {element} to {key} and was committed, and T{last}, begun later, does not see it:\n  {}",
                history.txns[*id]
            );
            return Err(Anomaly::new(Kind::LostAppend, vec![*id, last], text));
        }
    }
    Ok(())
}

fn list_edges(
    seen: &Seen,
    key: Key,
    touches: &[(usize, &Touch)],
    order: &[u64],
    graph: &mut Graph<'_>,
) {
    let writer = |element: &u64| seen.writers.get(&(key, *element)).map(|(id, _)| *id);
    for pair in order.windows(2) {
        if let (Some(before), Some(after)) = (writer(&pair[0]), writer(&pair[1])) {
            graph.edge(before, after, Why::Ww, key);
        }
    }
    let unseen: Vec<usize> = touches
        .iter()
        .filter(|(_, touch)| touch.writes.iter().flatten().any(|e| !order.contains(e)))
        .map(|(id, _)| *id)
        .collect();
    if let Some(last) = order.last().and_then(writer) {
        for after in &unseen {
            graph.edge(last, *after, Why::Ww, key);
        }
    }
    for (id, touch) in touches {
        let Some(Value::List(base)) = &touch.base else {
            continue;
        };
        if let Some(before) = base.last().and_then(writer) {
            graph.edge(before, *id, Why::Wr, key);
        }
        let why = Why::rw(touch.scanned);
        match order.get(base.len()) {
            Some(next) => {
                if let Some(after) = writer(next) {
                    graph.edge(*id, after, why, key);
                }
            }
            None => {
                for after in &unseen {
                    graph.edge(*id, *after, why, key);
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Version {
    Initial,
    Value(u64),
    Deleted,
}

/// Registers are written by those who read what they replace: each version knows the one before it.
pub fn registers(
    history: &History,
    seen: &Seen,
    taken: &[bool],
    graph: &mut Graph<'_>,
) -> Result<(), Box<Anomaly>> {
    for (key, touches) in by_key(seen, taken) {
        if matches!(key, Key::Register(_)) {
            register_edges(history, seen, key, &touches, graph)?;
        }
    }
    Ok(())
}

fn register_edges(
    history: &History,
    seen: &Seen,
    key: Key,
    touches: &[(usize, &Touch)],
    graph: &mut Graph<'_>,
) -> Result<(), Box<Anomaly>> {
    let mut reads = Vec::new();
    let mut next: HashMap<Version, Vec<usize>> = HashMap::new();
    for (id, touch) in touches {
        let (version, writer) = match &touch.base {
            Some(Value::Register(Some(value))) => {
                let writer = seen.writers.get(&(key, *value));
                (Version::Value(*value), writer.map(|(id, _)| *id))
            }
            Some(Value::Register(None)) => match seen.made.get(&key) {
                Some((maker, _)) if maker != id => {
                    if !touch.writes.is_empty() {
                        let text = format!("T{id} writes {key} again, which is deleted");
                        return Err(Anomaly::new(Kind::Malformed, vec![*id], text));
                    }
                    (Version::Deleted, seen.deleter(history, *id, key)?)
                }
                _ => (Version::Initial, None),
            },
            _ => continue,
        };
        reads.push((*id, version, writer, touch.scanned));
        if !touch.writes.is_empty() {
            next.entry(version).or_default().push(*id);
        }
    }
    for (id, version, writer, scanned) in reads {
        let after = next.get(&version).map_or(&[][..], Vec::as_slice);
        if let Some(before) = writer {
            graph.edge(before, id, Why::Wr, key);
            if after.contains(&id) {
                graph.edge(before, id, Why::Ww, key);
            }
        }
        for after in after {
            graph.edge(id, *after, Why::rw(scanned), key);
        }
    }
    Ok(())
}
