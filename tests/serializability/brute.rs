//! The same question, answered by trying every order: for histories of a few transactions, to hold the checker against.

use std::collections::HashMap;

use crate::history::{History, Key, Op, Outcome, Txn, Value};

/// Whether some order of the committed transactions, and of any of those of an unknown outcome, explains all reads and
/// keeps the order in time.
pub fn serializable(history: &History) -> bool {
    let all = 0..history.txns.len();
    let of = |outcome| {
        all.clone()
            .filter(move |id| history.txns[*id].outcome == outcome)
    };
    let committed: Vec<usize> = of(Outcome::Committed).collect();
    let unknown: Vec<usize> = of(Outcome::Unknown).collect();
    (0..1_u32 << unknown.len()).any(|choice| {
        let chosen = unknown.iter().enumerate();
        let chosen = chosen.filter(|(bit, _)| choice & (1 << bit) != 0);
        let mut left = committed.clone();
        left.extend(chosen.map(|(_, id)| *id));
        explained(history, &mut left, &HashMap::new())
    })
}

fn explained(history: &History, left: &mut Vec<usize>, state: &HashMap<Key, Value>) -> bool {
    if left.is_empty() {
        return true;
    }
    for place in 0..left.len() {
        let id = left[place];
        let begin = history.txns[id].begin;
        let late = |other: &usize| history.answered(*other).is_some_and(|end| end < begin);
        if left.iter().any(late) {
            continue;
        }
        let mut after = state.clone();
        if run(&history.txns[id], &mut after) {
            left.remove(place);
            let explained = explained(history, left, &after);
            left.insert(place, id);
            if explained {
                return true;
            }
        }
    }
    false
}

/// Runs a transaction on a state; false if it would have read something else.
fn run(txn: &Txn, state: &mut HashMap<Key, Value>) -> bool {
    for op in &txn.ops {
        let now = |key: Key| state.get(&key).cloned().unwrap_or_else(|| key.absent());
        if op.reads().into_iter().any(|(key, value)| now(key) != value) {
            return false;
        }
        match op {
            Op::Append { key, element } => {
                let mut list = now(*key);
                if let Value::List(elements) = &mut list {
                    elements.push(*element);
                }
                state.insert(*key, list);
            }
            Op::Write { key, value } => {
                state.insert(*key, Value::Register(*value));
            }
            Op::Read { .. } | Op::Scan { .. } => {}
        }
    }
    true
}
