//! What the stores in SQL databases share.
//!
//! All of them keep the table of Go's `dbmutex`, so that a Go service and a Rust service exclude each other on the same row.
//! `locked` and `expires_at` decide, by the database's clock alone; `locked_count` is the fencing token.
//!
//! `store` holds what is the same everywhere: which statement comes after which, connections, retries, what becomes of a
//! claim nobody waits for any more. A `Backend` holds what differs: the statements and the meaning of errors.

mod backend;
mod check;
mod claim;
mod connections;
mod options;
mod row;
mod seen_busy;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod servers;
mod store;
mod table;
mod undo;

pub use check::CheckLease;

pub(super) use backend::{Backend, Kind, Taken};
pub(super) use check::Checking;
pub(super) use options::{Options, store_of_leases};
pub(super) use row::{Row, micros};
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(super) use servers::{connect_to_one_of, connecting, kind_by};
pub(super) use store::SqlStore;
pub(super) use store::fault;
pub(super) use table::{Column, Shape, quoted};
