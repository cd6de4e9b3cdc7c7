//! Taking the application's error out, and the same error once more.

use std::sync::Arc;

use super::TxnError;

impl<E> TxnError<E> {
    /// Takes the application's error out.
    ///
    /// # Errors
    ///
    /// Every other error, unchanged.
    pub fn into_abort(self) -> Result<E, TxnError> {
        self.split()
    }

    /// Every variant but [`TxnError::Abort`] is the same whatever the application's error is.
    fn split<F>(self) -> Result<E, TxnError<F>> {
        macro_rules! same {
            ($($name:ident $({ $($field:ident),* })? $(($inner:ident))?),* $(,)?) => {
                match self {
                    Self::Abort(error) => Ok(error),
                    $(Self::$name $({ $($field),* })? $(($inner))? => Err(TxnError::$name $({ $($field),* })? $(($inner))?),)*
                }
            };
        }
        same!(
            Conflict(error),
            RetriesExhausted {
                attempts,
                waited,
                last
            },
            Overloaded { limit },
            DeadlineExceeded { deadline, stage },
            MaybeCommitted { cause },
            WriterStalled { name, site, since },
            EnvironmentFull { size, max },
            TooLarge,
            MapBusy(error),
            MapChanging {
                attempts,
                ours,
                theirs
            },
            RecoveryNeeded(event),
            ShuttingDown,
            BodyPanicked { message, site },
            ActorPanicked(panicked),
            NestedTransaction { outer, outer_site },
            ReadersFull { max },
            ReadChanged { database },
            WriteConflict { database },
            GaveWay { database },
            TransactionEnded,
            ChildOpen,
            InsideTransaction { outer_site },
            TooMuch { which, limit },
            NoSnapshot { max },
            SnapshotTooOld,
            SnapshotUnderNoLock,
            NoLockTable,
            Forked,
            KeyReused { key },
            AnswerUnreadable { key, source },
            AnswerNotStorable { key, source },
            KeyOnView,
            LeaseLost { store, name, token },
            FenceTooSmall {
                store,
                name,
                token,
                seen
            },
            Database(error),
            Storage(error),
        )
    }
}

impl TxnError {
    /// The same error once more, for several callers, or for a handler and the caller. What cannot be cloned keeps its text.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Self::Abort(never) => match *never {},
            Self::Conflict(error) => Self::Conflict(error.clone()),
            Self::RetriesExhausted {
                attempts,
                waited,
                last,
            } => Self::RetriesExhausted {
                attempts: *attempts,
                waited: *waited,
                last: Box::new(last.duplicate()),
            },
            &Self::Overloaded { limit } => Self::Overloaded { limit },
            &Self::DeadlineExceeded { deadline, stage } => {
                Self::DeadlineExceeded { deadline, stage }
            }
            Self::MaybeCommitted { cause } => Self::MaybeCommitted {
                cause: cause.clone(),
            },
            Self::WriterStalled { name, site, since } => Self::WriterStalled {
                name: name.clone(),
                site,
                since: *since,
            },
            &Self::EnvironmentFull { size, max } => Self::EnvironmentFull { size, max },
            Self::TooLarge => Self::TooLarge,
            Self::MapBusy(busy) => Self::MapBusy(busy.clone()),
            &Self::MapChanging {
                attempts,
                ours,
                theirs,
            } => Self::MapChanging {
                attempts,
                ours,
                theirs,
            },
            Self::RecoveryNeeded(event) => Self::RecoveryNeeded(Arc::clone(event)),
            Self::ShuttingDown => Self::ShuttingDown,
            Self::BodyPanicked { message, site } => Self::BodyPanicked {
                message: message.clone(),
                site,
            },
            Self::ActorPanicked(panicked) => Self::ActorPanicked(panicked.clone()),
            &Self::NestedTransaction { outer, outer_site } => {
                Self::NestedTransaction { outer, outer_site }
            }
            &Self::ReadersFull { max } => Self::ReadersFull { max },
            Self::ReadChanged { database } => Self::ReadChanged {
                database: Arc::clone(database),
            },
            Self::WriteConflict { database } => Self::WriteConflict {
                database: Arc::clone(database),
            },
            Self::GaveWay { database } => Self::GaveWay {
                database: Arc::clone(database),
            },
            Self::TransactionEnded => Self::TransactionEnded,
            Self::ChildOpen => Self::ChildOpen,
            &Self::InsideTransaction { outer_site } => Self::InsideTransaction { outer_site },
            &Self::TooMuch { which, limit } => Self::TooMuch { which, limit },
            &Self::NoSnapshot { max } => Self::NoSnapshot { max },
            Self::SnapshotTooOld => Self::SnapshotTooOld,
            Self::SnapshotUnderNoLock => Self::SnapshotUnderNoLock,
            Self::NoLockTable => Self::NoLockTable,
            Self::Forked => Self::Forked,
            Self::KeyReused { key } => Self::KeyReused {
                key: Arc::clone(key),
            },
            Self::AnswerUnreadable { key, source } => Self::AnswerUnreadable {
                key: Arc::clone(key),
                source: source.clone(),
            },
            Self::AnswerNotStorable { key, source } => Self::AnswerNotStorable {
                key: Arc::clone(key),
                source: source.clone(),
            },
            Self::KeyOnView => Self::KeyOnView,
            Self::LeaseLost { store, name, token } => Self::LeaseLost {
                store: store.clone(),
                name: name.clone(),
                token: *token,
            },
            Self::FenceTooSmall {
                store,
                name,
                token,
                seen,
            } => Self::FenceTooSmall {
                store: store.clone(),
                name: name.clone(),
                token: *token,
                seen: *seen,
            },
            Self::Database(error) => Self::Database(error.duplicate()),
            Self::Storage(error) => Self::Storage(error.clone()),
        }
    }

    /// The same error where an application error could be.
    pub fn widen<E>(self) -> TxnError<E> {
        match self.split() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}
