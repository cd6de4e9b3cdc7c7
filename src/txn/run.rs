//! Interactive transactions: what spans awaits with record locks, buffers its writes, and is applied by the writer in one go.
//!
//! While such a transaction waits for the outside world it holds record locks, never LMDB's writer. It reads the newest
//! committed state, each read under its lock; at its end the writer compares what it has read with what is there, if
//! anybody wrote whom its locks do not keep out, and applies all its writes or none.

mod attempt;
mod commit;
mod current;
mod error;
mod fetched;
mod isolation;
mod nested;
mod ops;
mod records;
mod scan;
mod state;

pub(crate) use attempt::{Attempt, Lent, Locked, Start};
pub(crate) use commit::WithCommit;
pub(crate) use current::{Inside, transaction as current_transaction};
pub use error::OpError;
pub use fetched::Fetched;
pub use isolation::Isolation;
pub use nested::Savepoint;
pub use ops::Txn;
pub use scan::Scan;

use crate::error::TxnError;

/// The domain error of a transaction: `return Err(abort(SoldOut))` ends it, undoes it, and answers [`TxnError::Abort`].
///
/// ```
/// use lockkeeper::{TxnError, abort};
///
/// #[derive(Debug)]
/// struct SoldOut;
/// let error: TxnError<SoldOut> = abort(SoldOut);
/// assert!(matches!(error, TxnError::Abort(SoldOut)));
/// ```
pub fn abort<E>(error: E) -> TxnError<E> {
    TxnError::Abort(error)
}
