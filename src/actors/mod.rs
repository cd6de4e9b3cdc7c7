//! The actors, and the second doors that they lend to callers of their process.

pub mod lock_table;
