//! The SQL servers that tests start.

pub mod certificates;
pub mod mariadb;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
