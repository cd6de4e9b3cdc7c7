//! What can be decided about a transaction without running it, the handlers that an application adds to it, and interactive
//! transactions.

pub(crate) mod answers;
pub(crate) mod handler;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod sets;
