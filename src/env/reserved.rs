//! The databases that are the keeper's own.
//!
//! They are opened when they are needed first, as any other: by the writer thread, between batches, under their names, so
//! that a recovery opens them anew. LMDB is opened with room for them beside those of the application.

use std::sync::Arc;

use heed::types::Bytes;
use heed::{DatabaseFlags, DefaultComparator};

use crate::env::core::Core;
use crate::env::gate::Entry;
use crate::env::registry::OpenSpec;
use crate::env::shared::{Command, Shared};
use crate::env::table::RawTable;
use crate::error::DatabaseError;

/// A database of the keeper's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// What the keeper writes into its own commits, to know them again.
    Meta,
    /// The stored answers of transactions that are run exactly once.
    Answers,
    /// The largest fencing tokens that have been seen.
    Fences,
}

/// How many there are.
pub(crate) const RESERVED: u32 = 3;

/// What their names begin with, and no other's.
const PREFIX: &str = "__lockkeeper";

/// Whether a name is the keeper's own.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Refuses a name that an application must not use.
pub(crate) fn not_reserved(name: &Arc<str>) -> Result<(), DatabaseError> {
    if is_reserved(name) {
        let name = Arc::clone(name);
        return Err(DatabaseError::Reserved { name });
    }
    Ok(())
}

impl Reserved {
    /// Also the namespace of the locks on what is in it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Meta => "__lockkeeper",
            Self::Answers => "__lockkeeper.answers",
            Self::Fences => "__lockkeeper.fences",
        }
    }

    /// What is being done when it is opened, for errors.
    pub(super) fn opening(self) -> &'static str {
        match self {
            Self::Meta => "opening the database of the keeper",
            Self::Answers => "opening the database of the answers",
            Self::Fences => "opening the database of the fencing tokens",
        }
    }

    pub(crate) fn spec(self) -> OpenSpec {
        let flags = DatabaseFlags::empty();
        OpenSpec::new::<Bytes, Bytes, DefaultComparator>(Some(self.name()), flags, true)
    }

    /// The same to be opened only if it is there.
    pub(crate) fn existing(self) -> OpenSpec {
        let mut spec = self.spec();
        spec.create = false;
        spec
    }
}

impl Shared {
    /// A database of the keeper's own, if it is open. It outlives recoveries.
    pub(crate) fn reserved(&self, which: Reserved) -> Option<RawTable> {
        let found = self.registry.find::<DefaultComparator>(&which.spec())?;
        let table = self
            .registry
            .table::<DefaultComparator>(self.id, found.ok()?.id);
        table.ok()
    }
}

impl Core {
    /// A database of the keeper's own, which is opened and made if need be. Transactions and views that begin from now on can
    /// use it, and only those. Also while the keeper shuts down, for transactions that are under way.
    ///
    /// # Errors
    ///
    /// What can keep any database from being opened; and inside a body, where nothing can be opened (I14).
    pub(crate) async fn reserved(&self, which: Reserved) -> Result<RawTable, DatabaseError> {
        if let Some(table) = self.shared.reserved(which) {
            return Ok(table);
        }
        let open = |question| Command::Open(which.spec(), question);
        self.shared.ask_writer(Entry::Admitted, open).await?;
        let name = || which.name().into();
        let opened = self.shared.reserved(which);
        opened.ok_or_else(|| DatabaseError::NoSuchDatabase { name: name() })
    }
}
