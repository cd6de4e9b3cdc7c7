//! The stores of leases in SQL databases, on servers that the tests start.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod basics;
mod contention;
mod dbmutex;
mod failover;
mod ground;
mod guards;
mod mariadb_only;
mod mixed;
mod old_mysql;
mod pooler;
mod postgres_only;
mod tables;
mod tls;
mod transactions;
mod trouble;

#[path = "../support/peer.rs"]
mod process;
#[path = "../support/servers/sql.rs"]
mod servers;
