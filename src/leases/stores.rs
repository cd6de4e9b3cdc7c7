//! The stores of leases that we have, one file or folder for each.

#[cfg(feature = "etcd")]
mod etcd;

#[cfg(feature = "etcd")]
pub use etcd::{EtcdLeases, EtcdOptions};
