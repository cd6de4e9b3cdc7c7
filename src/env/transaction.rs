//! What a body gets: the transaction it runs in.
//!
//! Neither type can be made, committed or kept by an application (lmdbsync refuses `BeginTxn` for the same reason): the
//! environment begins and ends them, so that it always knows who is on the map.

use std::cell::RefCell;
use std::time::Instant;

use heed::{AnyTls, MdbError, RoTxn, RwTxn, WithTls};

use crate::env::EnvId;
use crate::error::{StorageError, duplicate};

/// What a database handle has to know of the transaction it is used in.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    pub(crate) env: EnvId,
    /// Grows with each deletion of a database and each recovery: handles of the same epoch need no look-up.
    pub(crate) epoch: u64,
    /// The number of databases that had been opened when the transaction began.
    pub(crate) opened: u64,
    pub(crate) max_key: usize,
}

mod sealed {
    pub trait Sealed {
        fn ro(&self) -> &heed::RoTxn<'_, heed::AnyTls>;
        fn scope(&self) -> &super::Scope;
        fn registry(&self) -> &crate::env::Registry;
        /// Remembers an error after which the transaction, or the environment, cannot go on.
        fn note(&self, error: &heed::Error);
    }
}
pub(crate) use sealed::Sealed;

/// A transaction that can be read from: [`ReadTxn`] and [`WriteTxn`].
pub trait Readable: sealed::Sealed {
    /// The number of the snapshot: LMDB's transaction id.
    fn snapshot_id(&self) -> usize {
        self.ro().id()
    }
}

/// What the body of a view reads from: one consistent snapshot.
pub struct ReadTxn<'e> {
    // Borrowed, since moving one costs as much as entering the gate.
    txn: &'e RoTxn<'e, WithTls>,
    scope: Scope,
    registry: &'e crate::env::Registry,
    fault: Fault,
}

impl<'e> ReadTxn<'e> {
    #[inline]
    pub(crate) fn new(
        txn: &'e RoTxn<'e, WithTls>,
        scope: Scope,
        registry: &'e crate::env::Registry,
    ) -> Self {
        Self {
            txn,
            scope,
            registry,
            fault: Fault::default(),
        }
    }

    /// An error that the environment cannot go on after, if the body met one.
    pub(crate) fn fatal(&self) -> Option<StorageError> {
        let (_, error) = self.fault.take()?;
        // LMDB's first look for a named database may meet damage and not say so: what is said then is that the transaction is
        // broken, which nothing but damage does to a view.
        let fatal =
            super::writer::is_fatal(&error) || matches!(error, heed::Error::Mdb(MdbError::BadTxn));
        fatal.then(|| StorageError::new("reading", error))
    }
}

impl sealed::Sealed for ReadTxn<'_> {
    #[inline]
    fn ro(&self) -> &RoTxn<'_, AnyTls> {
        self.txn
    }
    #[inline]
    fn scope(&self) -> &Scope {
        &self.scope
    }
    fn registry(&self) -> &crate::env::Registry {
        self.registry
    }
    fn note(&self, error: &heed::Error) {
        self.fault.note(error);
    }
}

impl Readable for ReadTxn<'_> {}

/// What the body of an update reads from and writes to.
///
/// It shares LMDB's write transaction with the other bodies of its batch, and sees what those before it wrote; what it
/// writes itself is kept only if it returns `Ok`.
pub struct WriteTxn<'e> {
    txn: RwTxn<'e>,
    scope: Scope,
    registry: &'e crate::env::Registry,
    run: BodyRun,
}

/// What is known of the body that runs.
#[derive(Debug, Default)]
pub(crate) struct BodyRun {
    pub attempt: u32,
    pub deadline: Option<Instant>,
    /// It has written, or tried to.
    pub wrote: bool,
    pub outside: Option<u64>,
    pub fault: Fault,
}

/// The first error after which LMDB's transaction is unusable, also if the body swallowed it.
#[derive(Debug, Default)]
pub(crate) struct Fault(RefCell<Option<(Spoiled, heed::Error)>>);

impl Fault {
    #[cold]
    fn note(&self, error: &heed::Error) {
        let mut first = self.0.borrow_mut();
        if first.is_none() {
            *first = Spoiled::from_heed(error).map(|spoiled| (spoiled, duplicate(error)));
        }
    }

    pub(crate) fn take(&self) -> Option<(Spoiled, heed::Error)> {
        self.0.borrow_mut().take()
    }
}

/// Why LMDB's transaction cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoiled {
    MapFull,
    TxnFull,
    Corrupted,
    Other,
}

impl Spoiled {
    pub(crate) fn from_heed(error: &heed::Error) -> Option<Self> {
        match error {
            heed::Error::Mdb(MdbError::MapFull) => Some(Self::MapFull),
            heed::Error::Mdb(MdbError::TxnFull) => Some(Self::TxnFull),
            heed::Error::Mdb(
                MdbError::Corrupted
                | MdbError::PageNotFound
                | MdbError::Panic
                | MdbError::Invalid
                | MdbError::VersionMismatch,
            ) => Some(Self::Corrupted),
            heed::Error::Mdb(
                MdbError::BadTxn | MdbError::Problem | MdbError::CursorFull | MdbError::PageFull,
            ) => Some(Self::Other),
            heed::Error::Io(error) if error.raw_os_error().is_some_and(|errno| errno != EINVAL) => {
                Some(Self::Other)
            }
            _ => None,
        }
    }
}

const EINVAL: i32 = 22;

impl<'e> WriteTxn<'e> {
    pub(crate) fn new(txn: RwTxn<'e>, scope: Scope, registry: &'e crate::env::Registry) -> Self {
        Self {
            txn,
            scope,
            registry,
            run: BodyRun::default(),
        }
    }

    /// Which run of this body it is: 1 for the first. A body runs again when the map has grown, when another body of its
    /// batch failed, or when the transaction is retried; whatever it does outside the transaction has to be idempotent.
    pub fn attempt(&self) -> u32 {
        self.run.attempt
    }

    /// When the caller is answered at the latest. A body that is still running then is undone when it returns.
    pub fn deadline(&self) -> Option<Instant> {
        self.run.deadline
    }

    /// The mark of outside writes for this body: one that was taken before the first read and is the same says that nobody has
    /// written outside since. `None`: a plain update has, earlier in the same batch.
    pub(crate) fn outside(&self) -> Option<u64> {
        self.run.outside
    }

    pub(crate) fn begin_body(&mut self, attempt: u32, deadline: Instant, outside: Option<u64>) {
        self.run = BodyRun {
            attempt,
            deadline: Some(deadline),
            wrote: false,
            outside,
            fault: Fault::default(),
        };
    }

    pub(crate) fn body(&self) -> &BodyRun {
        &self.run
    }

    /// For a handle that is about to write.
    #[inline]
    pub(crate) fn rw(&mut self) -> &mut RwTxn<'e> {
        self.run.wrote = true;
        &mut self.txn
    }

    /// A transaction inside this one, which can be undone by itself.
    pub(crate) fn child<'p>(&'p mut self, env: &'p heed::Env) -> heed::Result<WriteTxn<'p>> {
        let txn = env.nested_write_txn(&mut self.txn)?;
        Ok(WriteTxn::new(txn, self.scope, self.registry))
    }

    pub(crate) fn commit(self) -> heed::Result<()> {
        self.txn.commit()
    }

    pub(crate) fn abort(self) {
        self.txn.abort();
    }
}

impl sealed::Sealed for WriteTxn<'_> {
    #[inline]
    fn ro(&self) -> &RoTxn<'_, AnyTls> {
        &self.txn
    }
    #[inline]
    fn scope(&self) -> &Scope {
        &self.scope
    }
    fn registry(&self) -> &crate::env::Registry {
        self.registry
    }
    fn note(&self, error: &heed::Error) {
        self.run.fault.note(error);
    }
}

impl Readable for WriteTxn<'_> {}
