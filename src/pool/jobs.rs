//! Pools that serve a queue of jobs.

/// What a pool is told about its jobs.
#[derive(Default)]
pub(super) struct JobOptions {}
