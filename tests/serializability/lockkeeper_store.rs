//! Lockkeeper as a store: interactive transactions by each of their doors, and plain updates beside them.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Bytes, U32};
use lockkeeper::{
    ConflictTable, Isolation, Keeper, KeeperBuilder, Mode, Records, RunTxn, Txn, TxnError, abort,
};
use tokio::task::yield_now;

use crate::history::{Key, Value};
use crate::plain::Plain;
use crate::store::{Failure, Handle, Store};

/// By which door transactions come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `keeper.transaction`.
    Method,
    /// `RunTxn::try_interactive`, sent as a message.
    Message,
    /// `keeper.begin`, and again by hand after a conflict.
    ByHand,
    /// No interactive transaction: reads in views, and one update that looks whether they still hold.
    Plain,
    /// The same, and it does not look.
    PlainUnchecked,
}

/// The tables of a workload.
#[derive(Debug, Clone, Copy)]
pub struct Tables {
    lists: Records<U32<BigEndian>, Bytes>,
    registers: Records<U32<BigEndian>, Bytes>,
}

#[derive(Clone)]
pub struct Lockkeeper {
    pub keeper: Keeper,
    pub tables: Tables,
    pub isolation: Isolation,
    /// Transactions take them in turns.
    doors: &'static [Door],
    next: Arc<AtomicUsize>,
}

/// A body's own no.
#[derive(Debug)]
pub struct Refused;

pub type Error = TxnError<Refused>;

pub enum Attempt {
    Interactive(Txn, Tables),
    Plain(Plain),
}

/// How often a transaction driven by hand is begun anew. It has no seniority, so it may lose again and again.
const ATTEMPTS: usize = 100;

impl Lockkeeper {
    pub fn open(folder: &Path, isolation: Isolation, doors: &'static [Door]) -> Self {
        Self::over(Keeper::builder().path(folder), isolation, doors)
    }

    /// The same with the locks switched off: nobody's lock conflicts with another's.
    pub fn without_locks(folder: &Path, isolation: Isolation, doors: &'static [Door]) -> Self {
        let none = [false; Mode::ALL.len()];
        let none = ConflictTable::new(&Mode::ALL, &[&none[..]; Mode::ALL.len()]).unwrap();
        let builder = Keeper::builder().path(folder);
        let builder = builder
            .conflicts("lists", none)
            .conflicts("registers", none);
        Self::over(builder, isolation, doors)
    }

    fn over(builder: KeeperBuilder, isolation: Isolation, doors: &'static [Door]) -> Self {
        let keeper = builder.map_size(1 << 24).open().unwrap();
        let table = |name| {
            let db = keeper.blocking_database(name).unwrap();
            keeper.records_of(db).unwrap()
        };
        Self {
            tables: Tables {
                lists: table("lists"),
                registers: table("registers"),
            },
            keeper,
            isolation,
            doors,
            next: Arc::default(),
        }
    }

    async fn by_hand<F, Fut>(&self, body: &mut F) -> Result<(), Error>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let begun = self.keeper.begin().isolation(self.isolation);
            let begun = begun.await.map_err(TxnError::widen)?;
            let outcome = match body(Attempt::Interactive(begun.clone(), self.tables)).await {
                Ok(()) => begun.commit().await.map_err(TxnError::widen),
                Err(error) => {
                    begun.abort();
                    Err(error)
                }
            };
            match outcome {
                Err(error) if error.is_retryable() => last = Some(error),
                outcome => return outcome,
            }
            yield_now().await;
        }
        last.map_or(Ok(()), Err)
    }

    async fn plain<F, Fut>(&self, body: &mut F, checked: bool) -> Result<(), Error>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<(), Error>>,
    {
        for _ in 0..ATTEMPTS {
            let plain = Plain::new(&self.keeper, self.tables);
            body(Attempt::Plain(plain.clone())).await?;
            if plain.commit(checked).await? {
                return Ok(());
            }
        }
        Err(abort(Refused))
    }
}

impl Store for Lockkeeper {
    type Handle = Attempt;

    async fn transact<F, Fut>(&self, mut body: F) -> Result<(), Failure>
    where
        F: FnMut(Attempt) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        let tables = self.tables;
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let outcome = match self.doors[turn % self.doors.len()] {
            Door::Method => {
                self.keeper
                    .transaction("method", |txn| body(Attempt::Interactive(txn, tables)))
                    .isolation(self.isolation)
                    .await
            }
            Door::Message => {
                let message =
                    RunTxn::try_interactive(move |txn| body(Attempt::Interactive(txn, tables)));
                self.keeper.send(message.isolation(self.isolation)).await
            }
            Door::ByHand => self.by_hand(&mut body).await,
            Door::Plain => self.plain(&mut body, true).await,
            Door::PlainUnchecked => self.plain(&mut body, false).await,
        };
        outcome.map_err(failure)
    }
}

/// What a workload may meet; everything else must not happen.
fn failure(error: Error) -> Failure {
    match error {
        TxnError::MaybeCommitted { .. } => Failure::Maybe,
        TxnError::Abort(Refused)
        | TxnError::BodyPanicked { .. }
        | TxnError::RetriesExhausted { .. }
        | TxnError::DeadlineExceeded { .. } => Failure::RolledBack,
        error if error.is_retryable() => Failure::RolledBack,
        error => Failure::Unexpected(format!("{error}: {error:?}")),
    }
}

impl Tables {
    pub fn of(self, key: Key) -> Records<U32<BigEndian>, Bytes> {
        match key {
            Key::List(_) => self.lists,
            Key::Register(_) => self.registers,
        }
    }
}

/// What is stored for a value; nothing for one that is absent.
pub fn encode(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::List(elements) if elements.is_empty() => None,
        Value::List(elements) => Some(elements.iter().flat_map(|e| e.to_le_bytes()).collect()),
        Value::Register(value) => value.map(|value| value.to_le_bytes().to_vec()),
    }
}

pub fn decode(key: Key, bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else {
        return key.absent();
    };
    let (numbers, rest) = bytes.as_chunks();
    assert!(rest.is_empty(), "{key} has {} bytes", bytes.len());
    let mut numbers = numbers.iter().map(|number| u64::from_le_bytes(*number));
    match key {
        Key::List(_) => Value::List(numbers.collect()),
        Key::Register(_) => Value::Register(numbers.next()),
    }
}

impl Handle for Attempt {
    type Error = Error;

    fn refusal() -> Error {
        abort(Refused)
    }

    async fn read(&self, key: Key, for_update: bool) -> Result<Value, Error> {
        match self {
            Self::Interactive(txn, tables) => {
                let (table, number) = (tables.of(key), key.number());
                let found = match for_update {
                    true => txn.get_for_update(table, &number).await?,
                    false => txn.get(table, &number).await?,
                };
                Ok(decode(key, found.as_ref().map(|found| found.bytes())))
            }
            Self::Plain(plain) => plain.read(key).await,
        }
    }

    async fn write(&self, key: Key, value: Value) -> Result<(), Error> {
        match self {
            Self::Interactive(txn, tables) => {
                let (table, number) = (tables.of(key), key.number());
                match encode(&value) {
                    Some(bytes) => txn.put(table, &number, &bytes).await?,
                    None => {
                        txn.delete(table, &number).await?;
                    }
                }
            }
            Self::Plain(plain) => plain.write(key, value),
        }
        Ok(())
    }

    async fn scan(&self, from: Key, to: u32, backwards: bool) -> Result<Vec<(Key, Value)>, Error> {
        match self {
            Self::Interactive(txn, tables) => {
                let range = from.number()..to;
                let mut scan = txn.scan(tables.of(from), &range);
                if backwards {
                    scan = scan.rev();
                }
                let mut seen = Vec::new();
                while let Some((number, found)) = scan.next().await? {
                    let key = from.with(number.decode()?);
                    seen.push((key, decode(key, Some(found.bytes()))));
                }
                Ok(seen)
            }
            Self::Plain(plain) => plain.scan(from, to, backwards).await,
        }
    }
}
