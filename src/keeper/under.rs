//! Transactions under a lease: what they are asked with.

use super::transaction::{Begin, Transaction};
use crate::env::Under;
use crate::messages::supervisor::RunTxn;

impl<T, E> RunTxn<T, E> {
    pub(crate) fn under_lease(mut self, lease: Under) -> Self {
        self.options.under.push(lease);
        self
    }
}

impl<T, E, F> Transaction<'_, T, E, F> {
    pub(crate) fn under_lease(mut self, lease: Under) -> Self {
        self.options.under.push(lease);
        self
    }
}

impl Begin {
    pub(crate) fn under_lease(mut self, lease: Under) -> Self {
        self.options.under.push(lease);
        self
    }
}

#[cfg(test)]
mod tests;
