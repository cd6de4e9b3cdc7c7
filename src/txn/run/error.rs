//! Why an operation of an interactive transaction failed.

use std::error::Error;
use std::fmt;

use crate::error::{DbError, ErrorClass, TxnError};

/// Why an operation of an interactive transaction failed: a [`TxnError`], which `?` turns it into in a closure.
///
/// After a conflict the transaction is dead and holds nothing any more; each further use of it answers that conflict. Let the
/// error out of the closure, and the transaction is run again.
pub struct OpError(Box<TxnError>);

impl OpError {
    /// The error.
    #[must_use]
    pub fn error(&self) -> &TxnError {
        &self.0
    }

    /// The error itself.
    #[must_use]
    pub fn into_inner(self) -> TxnError {
        *self.0
    }

    /// What kind of error it is.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        self.0.class()
    }

    /// Whether the same transaction, begun anew, may well succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.is_retryable()
    }
}

impl<E> From<OpError> for TxnError<E> {
    fn from(error: OpError) -> Self {
        error.0.widen()
    }
}

impl From<TxnError> for OpError {
    fn from(error: TxnError) -> Self {
        Self(Box::new(error))
    }
}

impl From<DbError> for OpError {
    fn from(error: DbError) -> Self {
        Self::from(TxnError::Database(error))
    }
}

impl fmt::Debug for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for OpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
