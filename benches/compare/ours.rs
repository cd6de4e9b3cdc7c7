//! lockkeeper: by method and by message. Everything here that calls it is what its users write.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use lockkeeper::heed::byteorder::BigEndian;
use lockkeeper::heed::types::{Bytes, U64};
use lockkeeper::{Db, Durability, Growth, Keeper, RunTxn, TxnError, WhenFull, WriteTxn};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::growth::{self, Inserts, Map};
use crate::load::{Batches, Driven, Subject, Updates};
use crate::memory::{self, Stalls};
use crate::views::{self, Named, Viewer, Views};
use crate::work::{self, FRESH, Failure, INSERTS, LARGE_MAP, Op, Outcome, Safety, scatter};

/// Whether lockkeeper is measured at all.
pub const PRESENT: bool = true;

/// What a body says that is to fail.
const REFUSED: &str = "no";

/// Longer than any caller waits while the writer is held up.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Ours {
    keeper: Arc<Running>,
    table: Db<U64<BigEndian>, Bytes>,
}

/// Stops the keeper with its last user, so that its folder can be removed.
struct Running(Keeper);

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.0.blocking_shutdown(Duration::from_secs(10)) {
            eprintln!("compare: lockkeeper did not stop in order: {error}");
        }
    }
}

impl Ours {
    fn open(dir: &Path, safety: Safety, map: Map) -> Result<Self, Failure> {
        let durability = match safety {
            Safety::Durable => Durability::Full,
            // The other systems never flush while they are measured.
            Safety::NoSync => Durability::NoSync,
        };
        let map_size = match map {
            Map::DoublingFrom1MiB => 1 << 20,
            Map::Large => LARGE_MAP,
        };
        let mut keeper = Keeper::builder();
        // To see what waiting for company is worth: `COMPARE_GATHER=0s`, `COMPARE_GATHER=50us`.
        if let Ok(gather) = std::env::var("COMPARE_GATHER") {
            keeper = keeper.gather(humantime::parse_duration(&gather)?);
        }
        let keeper = keeper
            .path(dir)
            .map_size(map_size)
            .max_map_size(LARGE_MAP)
            // As the peer by hand: each name that could be open costs every transaction a little.
            .max_databases(1)
            .growth(Growth::Doubling)
            .durability(durability)
            .flush_interval(Duration::from_secs(3600))
            .open()?;
        let keeper = Arc::new(Running(keeper));
        let table = keeper.0.blocking_database(work::DATABASE)?;
        Ok(Self { keeper, table })
    }

    fn keeper(&self) -> &Keeper {
        &self.keeper.0
    }

    /// The body of an update that goes well.
    fn changing(
        &self,
        op: Op,
    ) -> impl FnMut(&mut WriteTxn<'_>) -> Result<bool, TxnError> + Send + 'static {
        let table = self.table;
        move |txn| change(&table, txn, op.key)
    }

    /// The body of one that returns an error after it has written.
    fn refusing(
        &self,
        op: Op,
    ) -> impl FnMut(&mut WriteTxn<'_>) -> Result<bool, TxnError<&'static str>> + Send + 'static
    {
        let table = self.table;
        move |txn| {
            change(&table, txn, op.key)?;
            Err(TxnError::Abort(REFUSED))
        }
    }

    async fn batches(&self) -> Result<Option<Batches>, Failure> {
        let environment = self.keeper().stats().await.environment;
        Ok(Some(Batches {
            batches: environment.batches,
            bodies: environment.bodies,
        }))
    }

    fn total(&self) -> Result<u64, Failure> {
        let table = self.table;
        let total = self.keeper().blocking_view(move |txn| {
            let mut total = Some(0);
            for entry in table.iter(txn)? {
                let count = work::counter(entry?.1).ok();
                total = total.zip(count).map(|(total, count)| total + count);
            }
            Ok(total)
        })?;
        Ok(total.ok_or("a value is malformed")?)
    }

    /// Returns when the writer is inside a body that waits for `until`.
    fn stall(&self, until: Receiver<()>) -> Result<(), Failure> {
        let (inside, begun) = mpsc::channel();
        let ours = self.clone();
        std::thread::spawn(move || {
            ours.keeper()
                .blocking_update(move |_| {
                    let _ = inside.send(());
                    let _ = until.recv();
                    Ok(())
                })
                .map_err(|e| eprintln!("compare: the stalling body: {e}"))
        });
        Ok(begun.recv_timeout(Duration::from_secs(10))?)
    }
}

/// Whether there was such a record to change.
fn change<E>(
    table: &Db<U64<BigEndian>, Bytes>,
    txn: &mut WriteTxn<'_>,
    key: u64,
) -> Result<bool, TxnError<E>> {
    let next = match table.get(txn, &key)?.map(work::bump) {
        Some(Ok(next)) => next,
        Some(Err(_)) | None => return Ok(false),
    };
    table.put(txn, &key, &next)?;
    Ok(true)
}

fn committed(answer: Result<bool, TxnError>) -> Result<Outcome, Failure> {
    match answer {
        Ok(true) => Ok(Outcome::Committed),
        Ok(false) => Err("a record is missing or malformed".into()),
        Err(error) => Err(error.into()),
    }
}

fn refused(answer: Result<bool, TxnError<&'static str>>) -> Result<Outcome, Failure> {
    match answer {
        Err(TxnError::Abort(REFUSED)) => Ok(Outcome::Refused),
        other => Err(format!("a body that refuses ended in {other:?}").into()),
    }
}

/// `keeper.update(…)`.
#[derive(Clone)]
struct ByMethod(Ours);

impl Updates for ByMethod {
    async fn update(&self, op: Op) -> Result<Outcome, Failure> {
        let keeper = self.0.keeper();
        if op.fail {
            let body = self.0.refusing(op);
            return refused(keeper.try_update::<_, &'static str, _>(body).await);
        }
        committed(keeper.update(self.0.changing(op)).await)
    }

    async fn batches(&self) -> Result<Option<Batches>, Failure> {
        self.0.batches().await
    }

    fn total(&self) -> Result<u64, Failure> {
        self.0.total()
    }
}

/// `keeper.send(RunTxn::update(…))`.
#[derive(Clone)]
struct ByMessage(Ours);

impl Updates for ByMessage {
    async fn update(&self, op: Op) -> Result<Outcome, Failure> {
        let keeper = self.0.keeper();
        if op.fail {
            let txn = RunTxn::try_update::<_, &'static str>(self.0.refusing(op));
            return refused(keeper.send(txn).await);
        }
        committed(keeper.send(RunTxn::update(self.0.changing(op))).await)
    }

    async fn batches(&self) -> Result<Option<Batches>, Failure> {
        self.0.batches().await
    }

    fn total(&self) -> Result<u64, Failure> {
        self.0.total()
    }
}

impl Stalls for ByMethod {
    fn stall(&self, until: Receiver<()>) -> Result<(), Failure> {
        self.0.stall(until)
    }

    async fn update_in_line(&self, op: Op) -> Result<Outcome, Failure> {
        let txn = RunTxn::update(self.0.changing(op))
            .when_full(WhenFull::Wait)
            .deadline(PATIENCE);
        committed(self.0.keeper().run(txn).await)
    }
}

impl Stalls for ByMessage {
    fn stall(&self, until: Receiver<()>) -> Result<(), Failure> {
        self.0.stall(until)
    }

    async fn update_in_line(&self, op: Op) -> Result<Outcome, Failure> {
        let txn = RunTxn::update(self.0.changing(op))
            .when_full(WhenFull::Wait)
            .deadline(PATIENCE);
        committed(self.0.keeper().send(txn).await)
    }
}

impl Views for Ours {
    #[inline]
    fn view(&self, key: u64) -> Result<u64, Failure> {
        let table = self.table;
        let seen = self
            .keeper()
            .blocking_view(move |txn| Ok(views::look_at(table.get(txn, &key)?).ok()))?;
        Ok(seen.ok_or("a record is missing or malformed")?)
    }

    #[inline]
    async fn view_async(&self, key: u64) -> Result<u64, Failure> {
        let table = self.table;
        let seen = self
            .keeper()
            .view(move |txn| Ok(views::look_at(table.get(txn, &key)?).ok()))
            .await?;
        Ok(seen.ok_or("a record is missing or malformed")?)
    }
}

impl Inserts for Ours {
    async fn insert(&self, first: u64) -> Result<(), Failure> {
        let table = self.table;
        let insert_all = move |txn: &mut WriteTxn<'_>| {
            for n in first..first + INSERTS {
                table.put(txn, &scatter(n), &FRESH)?;
            }
            Ok(())
        };
        Ok(self.keeper().update(insert_all).await?)
    }

    async fn finish(&self) -> Result<(u64, u64), Failure> {
        let table = self.table;
        let records = self.keeper().view(move |txn| Ok(table.len(txn)?)).await?;
        let resizes = self.keeper().stats().await.environment.map_resizes;
        Ok((records, resizes))
    }
}

/// Both ways into one keeper on the filled environment in `dir`.
pub fn subjects(dir: &Path, safety: Safety) -> Result<Vec<Box<dyn Subject>>, Failure> {
    let ours = Ours::open(dir, safety, Map::Large)?;
    let count = Arc::new(AtomicU64::new(0));
    let by_method = Driven::new("lockkeeper", ByMethod(ours.clone()), Arc::clone(&count));
    let by_message = Driven::new("lockkeeper-message", ByMessage(ours), count);
    Ok(vec![Box::new(by_method), Box::new(by_message)])
}

/// Views of the filled environment in `dir`.
pub fn viewer(dir: &Path) -> Result<Option<Box<dyn Viewer>>, Failure> {
    let ours = Ours::open(dir, Safety::Durable, Map::Large)?;
    Ok(Some(Box::new(Named("lockkeeper", ours))))
}

/// One run of `growth` in the empty `dir`: updates a second, and how often the map changed size.
pub fn grow(runtime: &Runtime, dir: &Path, map: Map, updates: u64) -> Result<(f64, u64), Failure> {
    let ours = Ours::open(dir, Safety::Durable, map)?;
    // This thread drops the last one: a task must not block on the end of the keeper.
    growth::run(runtime, ours.clone(), updates)
}

/// Weighs the callers that wait in the keeper on the filled environment in `dir`.
pub fn weigh(runtime: &Runtime, dir: &Path, system: &str) -> Result<Value, Failure> {
    let ours = Ours::open(dir, Safety::Durable, Map::Large)?;
    match system {
        "lockkeeper" => runtime.block_on(memory::weigh_system(ByMethod(ours.clone()))),
        "lockkeeper-message" => runtime.block_on(memory::weigh_system(ByMessage(ours.clone()))),
        _ => Err(format!("{system}: no such system").into()),
    }
}
