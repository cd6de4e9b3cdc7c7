//! Outside writes: those that no record lock announced, by a plain update, by an optimistic transaction or by another process
//! (DESIGN §6).
//!
//! An interactive transaction that nobody wrote around need not compare again what it read. Whether somebody did is told by a
//! number that grows with outside writes, the mark, and not by LMDB's transaction ids: LMDB skips an empty commit, so another
//! process can take the very id that ours announced. Only a commit that carries a record of the keeper's is known to be ours.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::batch::Item;
use crate::env::reserved::Reserved;
use crate::env::shared::Shared;
use crate::env::table::RawTable;
use crate::env::transaction::{Readable, WriteTxn};
use crate::env::writer::{Writer, is_fatal};
use crate::error::{DbError, StorageError};

/// What wrote a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Kind {
    /// An update: what it writes no record lock has announced, whatever locks it declared.
    #[default]
    Plain,
    /// The commit of an interactive transaction.
    Interactive {
        /// It runs before the plain bodies of its batch (I8).
        first: bool,
        /// Record locks have announced what it writes. Not so where none were taken: then it is as an update to all who trust
        /// in theirs.
        announced: bool,
    },
    /// The keeper, in a database of its own, which no transaction reads: nothing that others have to compare.
    Keeper,
}

impl Kind {
    fn is_interactive(self) -> bool {
        matches!(self, Self::Interactive { .. })
    }

    pub(crate) fn is_first(self) -> bool {
        matches!(self, Self::Interactive { first: true, .. })
    }

    /// Whether it makes way for those that go first.
    pub(crate) fn makes_way(self) -> bool {
        !self.is_announced() && !self.is_first()
    }

    /// Whether what it writes is no outside write.
    pub(crate) fn is_announced(self) -> bool {
        match self {
            Self::Plain => false,
            Self::Interactive { announced, .. } => announced,
            Self::Keeper => true,
        }
    }
}

/// What is known of outside writes; changed by the writer thread alone.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    marks: AtomicU64,
    last_ours: AtomicU64,
}

impl Outside {
    /// There was an outside write, or may have been; what it wrote can be read by now.
    pub(crate) fn grow(&self) {
        self.marks.fetch_add(1, Ordering::Release);
    }

    /// A commit of ours has returned that is known to be ours. What else it carried has been counted.
    fn committed(&self, id: u64) {
        self.last_ours.store(id, Ordering::Release);
    }
}

impl Shared {
    /// The mark: while it stays the same, no body meets an outside write that was not there when it was taken.
    ///
    /// To be taken *before* the first read. It grows only when an outside write can be read already: after the commit that
    /// carried it, or when the writer begins a transaction and finds what others committed. So whoever sees it grown reads
    /// what it stands for (the load acquires what the writer released), and whoever reads before that write has a mark from
    /// before it. Taken after the read, it could count a write that the read has missed.
    pub(crate) fn outside(&self) -> u64 {
        self.outside.marks.load(Ordering::Acquire)
    }

    /// The id of the last commit that is known to be ours.
    pub(crate) fn last_ours(&self) -> u64 {
        self.outside.last_ours.load(Ordering::Acquire)
    }

    /// Whether all that was committed between the first read, before which `mark` was taken, and `snapshot` is ours, and
    /// announced by record locks: for those who read from several snapshots and write nothing.
    ///
    /// `false` may also mean that nobody knows: another process's commit counts only once the writer begins a transaction.
    pub(crate) fn is_undisturbed(&self, mark: u64, snapshot: u64) -> bool {
        // In this order: whatever was committed up to `last_ours` is in the marks before it is in `last_ours`.
        self.last_ours() >= snapshot && self.outside() == mark
    }
}

/// Where the keeper's record is kept. Its value is the id of the commit that it is in.
const RECORD: &[u8] = b"commit";

/// Why the keeper's record was not written.
pub(super) enum Unsigned {
    /// LMDB's transaction cannot go on.
    Failed(heed::Error),
    /// Nor can this one, but without the record it might have.
    Again,
}

impl Writer {
    /// To be called when a transaction of LMDB has begun: whoever committed since the last one of ours that is known to be
    /// ours, it was outside.
    pub(super) fn look_outside(&mut self, txn: &WriteTxn<'_>) {
        // Nobody else writes now: this is the id that was committed last, whoever did it.
        let last = (txn.snapshot_id() as u64).saturating_sub(1);
        if last != self.accounted {
            self.accounted = last;
            self.shared.outside.grow();
        }
    }

    /// What a body is told, that runs next.
    pub(super) fn mark(&self) -> Option<u64> {
        (!self.outside_wrote).then(|| self.shared.outside())
    }

    /// Opens the keeper's own database before the first commit that needs it.
    pub(super) fn prepare_record(&mut self, items: &[Item]) {
        // What the keeper writes needs no record as long as no transaction has needed one.
        let needed = items.iter().any(|item| item.ask.kind.is_interactive());
        if needed && !self.recordless && self.shared.reserved(Reserved::Meta).is_none() {
            let opened = self.open_database(&Reserved::Meta.spec());
            if let Err(error) = opened {
                // Without the record the commit counts as an outside write, which costs time and nothing else.
                tracing::debug!(target: "lockkeeper", %error, "no record of the keeper's in this batch");
                self.recordless = true;
            }
        }
    }

    /// Writes the keeper's record, if something is in the commit that is not to count as outside; answers the id that the commit
    /// will have.
    pub(super) fn sign(
        &mut self,
        txn: &mut WriteTxn<'_>,
        items: &[Item],
    ) -> Result<Option<u64>, Unsigned> {
        let needed = items
            .iter()
            .any(|item| item.ask.kind != Kind::Plain && item.has_kept_writes());
        let table = if needed && !self.recordless {
            self.shared.reserved(Reserved::Meta)
        } else {
            None
        };
        let Some(table) = table else { return Ok(None) };
        match self.put_record(txn, &table) {
            Ok(id) => Ok(Some(id)),
            Err(DbError::Heed(error)) => Err(self.unsigned(error, items.len())),
            // It was deleted, or opened after the transaction began: nothing was written.
            Err(_) => Ok(None),
        }
    }

    fn put_record(&self, txn: &mut WriteTxn<'_>, table: &RawTable) -> Result<u64, DbError> {
        // The record makes sure that the commit is not an empty one, so that the id will be its own.
        let id = txn.snapshot_id() as u64;
        table.put(txn, RECORD, &id.to_be_bytes())?;
        Ok(id)
    }

    fn unsigned(&mut self, error: heed::Error, bodies: usize) -> Unsigned {
        use heed::MdbError::{MapFull, TxnFull};
        match error {
            heed::Error::Mdb(MapFull) => {
                self.record_in_the_way = true;
                Unsigned::Failed(error)
            }
            heed::Error::Mdb(TxnFull) if bodies > 1 => Unsigned::Failed(error),
            error if is_fatal(&error) => {
                self.shared.poison(StorageError::new("writing", error));
                Unsigned::Again
            }
            // A body must not fail for the sake of the record.
            error => {
                tracing::debug!(target: "lockkeeper", %error, "no record of the keeper's in this batch");
                self.recordless = true;
                Unsigned::Again
            }
        }
    }

    /// A commit has returned: what it means to those who read. The order counts, see [`Shared::is_undisturbed`].
    pub(super) fn account(&mut self, items: &[Item], signed: Option<u64>) {
        let outside = |item: &Item| !item.ask.kind.is_announced() && item.has_kept_writes();
        if items.iter().any(outside) {
            self.shared.outside.grow();
        }
        if let Some(id) = signed {
            self.accounted = id;
            self.shared.outside.committed(id);
        }
    }
}

/// Before the first commit that is known to be ours, and when nobody knows what was committed.
pub(super) const UNKNOWN: u64 = u64::MAX;

#[cfg(test)]
pub(super) mod tests;
