//! Transactions without a lock, made of views and one update: outside writes to the interactive ones beside them. With a
//! look at what they had read, within the update, they are serialisable; without it they are what is left of an interactive
//! transaction when locking is switched off.

use std::collections::BTreeMap;
use std::sync::Arc;

use lockkeeper::{Keeper, Readable, TxnError};
use parking_lot::Mutex;

use crate::history::{Key, Value};
use crate::lockkeeper_store::{Error, Tables, decode, encode};

#[derive(Clone)]
pub struct Plain {
    keeper: Keeper,
    tables: Tables,
    state: Arc<Mutex<State>>,
}

/// A second read answers what the first one saw; own writes are seen.
#[derive(Default, Clone)]
struct State {
    read: BTreeMap<Key, Value>,
    own: BTreeMap<Key, Value>,
}

impl Plain {
    pub fn new(keeper: &Keeper, tables: Tables) -> Self {
        Self {
            keeper: keeper.clone(),
            tables,
            state: Arc::default(),
        }
    }

    pub async fn read(&self, key: Key) -> Result<Value, Error> {
        let keys = self.fetch(key, key.number() + 1).await?;
        Ok(keys.into_iter().next().map_or(key.absent(), |(_, v)| v))
    }

    pub fn write(&self, key: Key, value: Value) {
        self.state.lock().own.insert(key, value);
    }

    pub async fn scan(
        &self,
        from: Key,
        to: u32,
        backwards: bool,
    ) -> Result<Vec<(Key, Value)>, Error> {
        let mut seen = self.fetch(from, to).await?;
        seen.retain(|(key, value)| *value != key.absent());
        if backwards {
            seen.reverse();
        }
        Ok(seen)
    }

    /// Applies what was written; false, and nothing, if it looks and something that was read has changed.
    pub async fn commit(&self, checked: bool) -> Result<bool, Error> {
        let (tables, state) = (self.tables, self.state.lock().clone());
        let update = self.keeper.update(move |txn| {
            for (key, value) in state.read.iter().filter(|_| checked) {
                if now(tables, txn, *key)? != *value {
                    return Ok(false);
                }
            }
            for (key, value) in &state.own {
                match encode(value) {
                    Some(bytes) => tables.of(*key).put(txn, &key.number(), &bytes)?,
                    None => {
                        tables.of(*key).delete(txn, &key.number())?;
                    }
                }
            }
            Ok(true)
        });
        update.await.map_err(TxnError::widen)
    }

    /// All keys of a range, those that are absent included.
    async fn fetch(&self, from: Key, to: u32) -> Result<Vec<(Key, Value)>, Error> {
        let tables = self.tables;
        let keys = move || (from.number()..to).map(move |number| from.with(number));
        let view = self.keeper.view(move |txn| {
            let read = keys().map(|key| Ok((key, now(tables, txn, key)?)));
            read.collect::<Result<Vec<_>, TxnError>>()
        });
        let found = view.await.map_err(TxnError::widen)?;
        let mut state = self.state.lock();
        let answer = found.into_iter().map(|(key, value)| {
            let first = state.read.entry(key).or_insert(value).clone();
            (key, state.own.get(&key).cloned().unwrap_or(first))
        });
        Ok(answer.collect())
    }
}

fn now(tables: Tables, txn: &impl Readable, key: Key) -> Result<Value, TxnError> {
    Ok(decode(key, tables.of(key).get(txn, &key.number())?))
}
