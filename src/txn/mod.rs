//! What can be decided about a transaction without running it, and the handlers that an application adds to it.

pub(crate) mod answers;
pub(crate) mod handler;
pub(crate) mod retry;
