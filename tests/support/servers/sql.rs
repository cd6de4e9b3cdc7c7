//! The SQL servers that tests start.

pub mod mariadb;
pub mod postgres;
pub mod process;
