//! The errors that a caller can meet: one enum for each boundary, and a classification that needs no parsing of text.

mod env;
mod lease;
mod lock;
mod open;
mod panicked;
mod pool;
mod txn;

use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

pub use env::{DatabaseError, DbError, EnvError, MapBusy, NoRecords, SizeLimit, StorageError};
pub use lease::{LeaseError, MaybeStillHeld};
pub use lock::LockError;
pub use open::{OpenError, ShutdownError};
pub use panicked::{ActorPanicked, Part};
pub use pool::PoolError;
pub use txn::{ErrorClass, Stage, TxnError};

/// Where a transaction was asked for.
pub type Site = &'static Location<'static>;

/// The name of a transaction, as logs and errors show it.
pub(crate) type Name = Option<Arc<str>>;

/// heed's errors are not `Clone`: what cannot be cloned keeps its text.
pub(crate) fn duplicate(error: &heed::Error) -> heed::Error {
    match error {
        heed::Error::Mdb(error) => heed::Error::Mdb(*error),
        heed::Error::Io(error) => heed::Error::Io(match error.raw_os_error() {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::new(error.kind(), error.to_string()),
        }),
        heed::Error::Encoding(error) => heed::Error::Encoding(error.to_string().into()),
        heed::Error::Decoding(error) => heed::Error::Decoding(error.to_string().into()),
        heed::Error::EnvAlreadyOpened => heed::Error::EnvAlreadyOpened,
    }
}

pub(crate) fn body_name(name: Option<&str>, site: Site) -> String {
    match name {
        Some(name) => format!("\"{name}\" from {site}"),
        None => format!("the update from {site}"),
    }
}

/// A duration as people write it, without digits that nobody reads.
pub(crate) fn brief(span: Duration) -> String {
    let rounded = if span >= Duration::from_secs(1) {
        Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    } else {
        Duration::from_micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    };
    humantime::format_duration(rounded).to_string()
}
