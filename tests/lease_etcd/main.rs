//! Leases in etcd, on real servers: one member, and clusters that lose some.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod common;
mod failure;
mod hand_over;
mod names;
mod tokens;
mod users;

#[path = "../support/servers/etcd.rs"]
mod etcd;
#[path = "../support/proxy.rs"]
mod proxy;
