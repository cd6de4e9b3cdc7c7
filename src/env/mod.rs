//! The environment: LMDB, its one writer thread, its readers, and the gate that keeps everybody out while the map changes.

mod answers;
mod asking;
mod batch;
pub(crate) mod beside;
mod claims;
mod copy;
mod core;
mod database;
mod fences;
mod first;
pub(crate) mod gate;
mod gather;
mod growth;
mod inside;
mod job;
mod map;
mod opening;
mod outside;
mod poison;
mod raw;
mod records;
mod recovery;
mod registry;
mod reserved;
mod shared;
mod sites;
mod snapshot;
mod stats;
mod stopping;
mod table;
mod transaction;
mod view;
mod writer;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use answers::AnswerStore;
pub(crate) use asking::Wait;
pub(crate) use claims::file_id;
pub(crate) use core::Core;
pub use database::Db;
pub(crate) use fences::{Fenced, Under};
pub(crate) use first::GoesFirst;
pub use gate::Occupant;
pub use inside::BodyKind;
pub(crate) use job::{
    Answer, Ask, Held, Holding, Reply, Ticket, Typed, UpdateBody, ViewBody, Waiting, panic_message,
    quietly,
};
pub(crate) use opening::prepare_folder;
pub(crate) use outside::Kind;
pub(crate) use poison::Listener;
pub use poison::PanicEvent;
pub(crate) use raw::{Closing, forks, open_leases, watch_forks};
pub use records::Records;
pub(crate) use registry::{OpenSpec, Registry};
pub(crate) use reserved::Reserved;
pub use snapshot::Snapshot;
pub use stats::{DatabaseStats, EnvStats};
pub(crate) use table::RawTable;
pub use transaction::{ReadTxn, Readable, WriteTxn};
pub(crate) use writer::random_seed;

/// Which environment of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct EnvId(u64);

impl EnvId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    #[cfg(test)]
    const fn test(id: u64) -> Self {
        Self(id)
    }
}
