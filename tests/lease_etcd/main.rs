//! Leases in etcd, on real servers: one member, and clusters that lose some.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod common;
mod failure;
mod hand_over;
mod names;
mod tls;
mod tokens;
mod users;

#[path = "../support/servers/certificates.rs"]
mod certificates;
#[path = "../support/servers/etcd.rs"]
mod etcd;
#[path = "../support/servers/process.rs"]
mod process;
#[path = "../support/proxy.rs"]
mod proxy;
