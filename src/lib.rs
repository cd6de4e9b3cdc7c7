//! Transactions, locks and leases on LMDB for actix applications.
#![warn(missing_docs)]
pub use heed;
