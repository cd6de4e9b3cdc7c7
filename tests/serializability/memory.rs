//! Stores in memory, one that is right and several that are wrong in a known way, to try the workloads on.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::yield_now;

use crate::history::{Key, Value};
use crate::store::{Failure, Handle, Store};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nobody begins before the one before has ended: right.
    OneAtATime,
    /// Reads are from a snapshot, and the first of two that write the same key wins: write skew and phantoms.
    Snapshot,
    /// Reads show what is committed, and nobody looks again: lost updates, too.
    ReadCommitted,
    /// Writes are seen at once, and stay if the transaction does not.
    Dirty,
}

type State = BTreeMap<Key, (Value, u64)>;

#[derive(Clone)]
pub struct Memory {
    level: Level,
    /// The values, each with the number of the commit that wrote it.
    state: Arc<Mutex<(State, u64)>>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

pub struct Attempt {
    memory: Memory,
    snapshot: Option<State>,
    own: Arc<Mutex<BTreeMap<Key, Value>>>,
}

#[derive(Debug)]
pub struct Refused;

impl Memory {
    pub fn new(level: Level) -> Self {
        Self {
            level,
            state: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// Applies what a transaction wrote; false if somebody else was first.
    fn commit(&self, own: &BTreeMap<Key, Value>, began: u64) -> bool {
        let mut state = self.state.lock();
        let (state, commits) = &mut *state;
        let newer = |key| state.get(key).is_some_and(|(_, commit)| *commit > began);
        if self.level == Level::Snapshot && own.keys().any(newer) {
            return false;
        }
        *commits += 1;
        for (key, value) in own {
            state.insert(*key, (value.clone(), *commits));
        }
        true
    }
}

impl Store for Memory {
    type Handle = Attempt;

    async fn transact<F, Fut>(&self, mut body: F) -> Result<(), Failure>
    where
        F: FnMut(Attempt) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Refused>> + Send + 'static,
    {
        loop {
            let turn = match self.level {
                Level::OneAtATime => Some(self.turn.lock().await),
                _ => None,
            };
            let own = Arc::default();
            let (began, snapshot) = {
                let state = self.state.lock();
                let snapshot = (self.level == Level::Snapshot).then(|| state.0.clone());
                (state.1, snapshot)
            };
            let attempt = Attempt {
                memory: self.clone(),
                snapshot,
                own: Arc::clone(&own),
            };
            if body(attempt).await.is_err() {
                return Err(Failure::RolledBack);
            }
            yield_now().await;
            let committed = self.commit(&own.lock(), began);
            drop(turn);
            yield_now().await;
            if committed {
                return Ok(());
            }
        }
    }
}

impl Attempt {
    fn now(&self, key: Key) -> Value {
        if let Some(own) = self.own.lock().get(&key) {
            return own.clone();
        }
        let found = match &self.snapshot {
            Some(snapshot) => snapshot.get(&key).cloned(),
            None => self.memory.state.lock().0.get(&key).cloned(),
        };
        found.map_or_else(|| key.absent(), |(value, _)| value)
    }
}

impl Handle for Attempt {
    type Error = Refused;

    fn refusal() -> Refused {
        Refused
    }

    async fn read(&self, key: Key, _for_update: bool) -> Result<Value, Refused> {
        yield_now().await;
        Ok(self.now(key))
    }

    async fn write(&self, key: Key, value: Value) -> Result<(), Refused> {
        yield_now().await;
        if self.memory.level == Level::Dirty {
            self.memory.commit(&BTreeMap::from([(key, value)]), 0);
        } else {
            self.own.lock().insert(key, value);
        }
        Ok(())
    }

    async fn scan(
        &self,
        from: Key,
        to: u32,
        backwards: bool,
    ) -> Result<Vec<(Key, Value)>, Refused> {
        yield_now().await;
        let all = (from.number()..to).map(|number| from.with(number));
        let mut seen: Vec<(Key, Value)> = all.map(|key| (key, self.now(key))).collect();
        seen.retain(|(key, value)| *value != key.absent());
        if backwards {
            seen.reverse();
        }
        Ok(seen)
    }
}
