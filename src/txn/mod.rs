//! What can be decided about a transaction without running it, and the handlers that an application adds to it.

pub(crate) mod handler;
pub(crate) mod retry;
#[allow(dead_code, reason = "only interactive transactions use it")]
pub(crate) mod sets;
