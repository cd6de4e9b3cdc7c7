//! What may be asked of each actor, and what is answered.

pub(crate) mod environment;
pub(crate) mod lease;
pub(crate) mod lock_table;
pub(crate) mod supervisor;
pub(crate) mod worker_pool;
