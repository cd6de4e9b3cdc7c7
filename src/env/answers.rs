//! The stored answers in their database, read and written inside the transactions of others, and their sweep.
//!
//! What is decided about them is decided in [`txn::answers`](crate::txn::answers); here are the pages, the clock of this process,
//! and an update that removes what has expired while nobody stores anything.

mod moment;
mod sweep;

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::Core;
use crate::env::fences::not_opened;
use crate::env::job::{Ask, ViewBody, guarded};
use crate::env::reserved::Reserved;
use crate::env::table::RawTable;
use crate::env::transaction::{ReadTxn, Readable, WriteTxn};
use crate::env::view::{Tried, try_view};
use crate::error::{DbError, TxnError};
use crate::txn::answers::{
    self, Anchor, AnswerClock, Fingerprint, Pages, PagesMut, Reading, Seen, Ticks,
};

/// How many expired answers a commit takes along: more than it adds, so that they become fewer under load, and few enough that
/// nobody notices.
const WITH_A_COMMIT: usize = 16;

/// What is known of the answers of one environment.
pub(crate) struct Answers {
    window: Duration,
    /// When the environment was opened.
    opened: Reading,
    /// Begins with the first look.
    clock: Mutex<Option<AnswerClock>>,
    /// A sweep is queued or runs.
    sweeping: AtomicBool,
}

impl Answers {
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            window,
            opened: moment::now(),
            clock: Mutex::new(None),
            sweeping: AtomicBool::new(false),
        }
    }

    /// What the clock shows now, to be persisted.
    fn now<P: Pages>(&self, pages: &P) -> Result<Anchor, P::Error> {
        let persisted = answers::persisted_clock(pages)?;
        let reading = moment::now();
        let mut clock = self.clock.lock();
        let clock = clock.get_or_insert_with(|| AnswerClock::start(persisted, self.opened));
        if let Some(persisted) = persisted {
            clock.follow(persisted, reading);
        }
        Ok(clock.anchor(reading))
    }
}

/// The answers, to be used in a transaction.
#[derive(Clone)]
pub(crate) struct AnswerStore {
    answers: Arc<Answers>,
    table: RawTable,
}

impl AnswerStore {
    /// What there is under a key; `read` is shown it in place.
    pub(crate) fn look<A>(
        &self,
        txn: &impl Readable,
        key: &[u8],
        fingerprint: Fingerprint,
        read: impl FnOnce(Seen<&[u8]>) -> A,
    ) -> Result<A, DbError> {
        let pages = self.pages(txn);
        let now = self.answers.now(&pages)?.ticks;
        Ok(read(answers::look(&pages, key, fingerprint, now)?))
    }

    /// Stores an answer with the effect that the transaction has written, or will write.
    pub(crate) fn keep(
        &self,
        txn: &mut WriteTxn<'_>,
        key: &[u8],
        fingerprint: Fingerprint,
        answer: &[u8],
    ) -> Result<(), DbError> {
        let mut pages = self.pages_mut(txn);
        let clock = self.answers.now(&pages)?;
        let window = self.answers.window;
        let what = (fingerprint, answer);
        answers::keep(&mut pages, key, what, &clock, window, WITH_A_COMMIT)
    }

    /// Removes at most `most` that have expired; answers how many there were.
    fn sweep(&self, txn: &mut WriteTxn<'_>, most: usize) -> Result<usize, DbError> {
        let mut pages = self.pages_mut(txn);
        let clock = self.answers.now(&pages)?;
        answers::sweep(&mut pages, &clock, most)
    }

    fn anything_expired(&self, txn: &impl Readable) -> Result<bool, DbError> {
        let pages = self.pages(txn);
        let Ticks(now) = self.answers.now(&pages)?.ticks;
        answers::anything_expired(&pages, Ticks(now))
    }

    fn pages<'t>(&'t self, txn: &'t dyn Readable) -> In<'t> {
        let table = &self.table;
        In { table, txn }
    }

    fn pages_mut<'t, 'e>(&'t self, txn: &'t mut WriteTxn<'e>) -> Into<'t, 'e> {
        let table = &self.table;
        Into { table, txn }
    }
}

impl Core {
    /// The answers of this environment, whose database is made at the first use.
    pub(crate) async fn answers(&self) -> Result<AnswerStore, TxnError> {
        let table = self.reserved(Reserved::Answers).await;
        table
            .map(|table| self.answers_in(table))
            .map_err(|error| not_opened(error, Reserved::Answers))
    }

    /// The same if the database is open.
    fn find_answers(&self) -> Option<AnswerStore> {
        let table = self.shared.reserved(Reserved::Answers)?;
        Some(self.answers_in(table))
    }

    fn answers_in(&self, table: RawTable) -> AnswerStore {
        let answers = Arc::clone(&self.shared.answers);
        AnswerStore { answers, table }
    }

    /// Runs a short view for a transaction that has been admitted: in place, or where that cannot be, on a reader thread.
    pub(crate) async fn look<T, F>(&self, ask: Ask, mut body: F) -> Result<T, TxnError>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError> + Send + 'static,
        T: Send + 'static,
    {
        let mut result = None;
        let tried = try_view(&self.shared, ask.site, &ask.name, ask.entry(), |txn| {
            result = Some(guarded(ask.site, || body(txn)));
        });
        match (result, tried) {
            (Some(result), _) => result,
            (None, Tried::Refused(error)) => Err(error),
            (None, _) => {
                let body: ViewBody<T, std::convert::Infallible> = Box::new(body);
                self.ship_view(ask, body).await?.result
            }
        }
    }
}

/// The pages as a transaction reads them.
struct In<'t> {
    table: &'t RawTable,
    txn: &'t dyn Readable,
}

/// The pages as an update reads and writes them.
struct Into<'t, 'e> {
    table: &'t RawTable,
    txn: &'t mut WriteTxn<'e>,
}

impl Pages for In<'_> {
    type Error = DbError;

    fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, DbError> {
        self.table.get(self.txn, key)
    }

    fn keys(&self, from: &[u8], below: &[u8], most: usize) -> Result<Vec<Vec<u8>>, DbError> {
        let (from, below) = (Bound::Included(from), Bound::Excluded(below));
        let mut keys = Vec::new();
        self.table
            .walk(self.txn, from, below, false, &mut |key, _| {
                if keys.len() == most {
                    return ControlFlow::Break(());
                }
                keys.push(key.to_vec());
                ControlFlow::Continue(())
            })?;
        Ok(keys)
    }

    fn last(&self, from: &[u8], below: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        let (from, below) = (Bound::Included(from), Bound::Excluded(below));
        let mut last = None;
        self.table
            .walk(self.txn, from, below, true, &mut |key, _| {
                last = Some(key.to_vec());
                ControlFlow::Break(())
            })?;
        Ok(last)
    }
}

impl Into<'_, '_> {
    fn read(&self) -> In<'_> {
        In {
            table: self.table,
            txn: self.txn,
        }
    }
}

impl Pages for Into<'_, '_> {
    type Error = DbError;

    fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, DbError> {
        self.table.get(self.txn, key)
    }

    fn keys(&self, from: &[u8], below: &[u8], most: usize) -> Result<Vec<Vec<u8>>, DbError> {
        self.read().keys(from, below, most)
    }

    fn last(&self, from: &[u8], below: &[u8]) -> Result<Option<Vec<u8>>, DbError> {
        self.read().last(from, below)
    }
}

impl PagesMut for Into<'_, '_> {
    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), DbError> {
        self.table.put(self.txn, key, value)
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), DbError> {
        self.table.delete(self.txn, key).map(drop)
    }
}
