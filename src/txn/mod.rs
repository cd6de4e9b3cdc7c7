//! What can be decided about a transaction without running it: values in, decisions out.

pub mod retry;
