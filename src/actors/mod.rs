//! The actors, and the second doors that they lend to callers of their process.

pub(crate) mod environment;
pub(crate) mod lease;
pub(crate) mod lock_table;
pub(crate) mod supervised;
pub(crate) mod supervisor;
pub(crate) mod worker_pool;
