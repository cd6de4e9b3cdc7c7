//! The SQL servers that tests start.

pub mod mariadb;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
