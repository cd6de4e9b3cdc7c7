//! Random transactions, many at once and with everything in between that can go wrong, and a checker that looks whether
//! some order of them explains what they read.

mod brute;
mod checker;
mod history;
mod known;
mod memory;
mod properties;
mod random;
mod recorder;
mod script;
mod store;
mod trial;
mod workload;
