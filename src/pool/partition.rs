//! Pools under leases: which process may run which workers.
//!
//! `balance` decides which of several partitions a process should hold, by what `sight` makes of the list of leases in the store.
//! `alone` gets the one lease of a pool, `spread` those of its partitions, on the thread of the leases, where nothing of the
//! application's runs. `tending` is the life of one lease that was granted: it lets the workers in, ends them, and only then gives the lease
//! back. `overrun` counts those that do not end. `gates` is what the pool sees of all that, and `held` keeps a worker from beginning, and
//! its future from being polled, without its lease.

mod alone;
mod balance;
mod figures;
mod gates;
mod held;
mod overrun;
mod sight;
mod spread;
mod tending;
mod wish;

pub use figures::{PoolLeaseState, PoolLeaseStats};
pub(super) use gates::LeaseGates;
pub(super) use held::{has_its_lease, may_begin, while_held};
pub use wish::PoolLease;
