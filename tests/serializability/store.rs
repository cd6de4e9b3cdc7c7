//! What a workload needs of a store: few things, so that one file adapts any store to it.

use std::future::Future;

use crate::history::{Key, Value};

/// How a transaction ended that is not known to be committed.
#[derive(Debug)]
pub enum Failure {
    /// Nothing of it is kept, for certain.
    RolledBack,
    /// It may have been committed.
    Maybe,
    /// What must not happen: the test fails with it.
    Unexpected(String),
}

/// Where transactions run.
pub trait Store: Clone + Send + Sync + 'static {
    type Handle: Handle;

    /// Runs `body` in a transaction, again with a new one after a conflict, and commits it if it answers `Ok`.
    fn transact<F, Fut>(&self, body: F) -> impl Future<Output = Result<(), Failure>> + Send
    where
        F: FnMut(Self::Handle) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), Error<Self>>> + Send + 'static;
}

/// What the handles of a store answer.
pub type Error<S> = <<S as Store>::Handle as Handle>::Error;

/// One attempt of a transaction.
pub trait Handle: Send + Sync + 'static {
    type Error: Send + 'static;

    /// What a body answers that wants to be rolled back.
    fn refusal() -> Self::Error;

    /// What a key has; `for_update` if it is going to be written.
    fn read(
        &self,
        key: Key,
        for_update: bool,
    ) -> impl Future<Output = Result<Value, Self::Error>> + Send;

    /// Replaces what a key has; to write that it is absent deletes it.
    fn write(&self, key: Key, value: Value)
    -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// The keys of one kind that are there, from `from` to just before the number `to`.
    fn scan(
        &self,
        from: Key,
        to: u32,
        backwards: bool,
    ) -> impl Future<Output = Result<Vec<(Key, Value)>, Self::Error>> + Send;
}
