//! Random transactions, many at once and with everything in between that can go wrong, and a checker that looks whether
//! some order of them explains what they read.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod brute;
mod checker;
mod history;
mod known;
mod lockkeeper_store;
mod memory;
mod plain;
mod properties;
mod random;
mod real;
mod recorder;
mod script;
mod store;
mod trial;
mod workload;
