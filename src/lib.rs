//! Transactions, locks and leases on LMDB for actix applications.
#![warn(missing_docs)]

mod backoff;
mod config;
#[allow(dead_code)]
mod env;
#[allow(dead_code)]
mod txn;

pub use backoff::{Backoff, Delay};
pub use config::{
    Change, Config, ConfigError, Durability, Growth, OnFatal, Place, SettingInfo, Settings, Source,
    WhenFull, settings_table,
};
pub use heed;
