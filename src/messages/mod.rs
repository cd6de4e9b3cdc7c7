//! What may be asked of each actor, and what is answered.

pub mod lock_table;
