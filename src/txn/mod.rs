//! Transactions: what can be decided about them without running them, and the runtime that runs, locks and retries them.

pub(crate) mod handler;
pub(crate) mod retry;
mod runtime;

pub(crate) use runtime::Runtime;
pub use runtime::TxnStats;
