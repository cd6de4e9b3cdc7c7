//! The methods of a keeper for threads that may block.
//!
//! Each does what its namesake does and parks the calling thread meanwhile, which must not be an executor's: the tasks of
//! that executor would wait with it.

use std::panic::Location;

use super::{Keeper, Request};
use crate::clock::block_on;
use crate::env::{Db, ReadTxn, Records, WriteTxn};
use crate::error::{DatabaseError, TxnError};
use crate::messages::supervisor::RunTxn;

impl Keeper {
    /// [`Keeper::send`] from a thread that may block: it parks the calling thread, which must not be an executor's.
    ///
    /// # Errors
    ///
    /// Those of the message.
    pub fn blocking_send<M: Request>(&self, message: M) -> M::Result {
        block_on(message.send_to(self))
    }

    /// [`Keeper::run`] from a thread that may block.
    ///
    /// # Errors
    ///
    /// See [`TxnError`].
    pub fn blocking_run<T, E>(&self, txn: RunTxn<T, E>) -> Result<T, TxnError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        block_on(self.run(txn))
    }

    /// [`Keeper::update`] from a thread that may block.
    ///
    /// # Errors
    ///
    /// See [`TxnError`].
    #[track_caller]
    pub fn blocking_update<T, F>(&self, body: F) -> Result<T, TxnError>
    where
        F: FnMut(&mut WriteTxn<'_>) -> Result<T, TxnError> + Send + 'static,
        T: Send + 'static,
    {
        self.blocking_run(RunTxn::update(body))
    }

    /// [`Keeper::try_update`] from a thread that may block.
    ///
    /// # Errors
    ///
    /// As [`Keeper::try_update`].
    #[track_caller]
    pub fn blocking_try_update<T, E, F>(&self, body: F) -> Result<T, TxnError<E>>
    where
        F: FnMut(&mut WriteTxn<'_>) -> Result<T, TxnError<E>> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        self.blocking_run(RunTxn::try_update(body))
    }

    /// [`Keeper::view`] from a thread that may block: the body runs on it.
    ///
    /// # Errors
    ///
    /// See [`TxnError`].
    #[track_caller]
    pub fn blocking_view<T, F>(&self, body: F) -> Result<T, TxnError>
    where
        F: FnMut(&ReadTxn<'_>) -> Result<T, TxnError> + Send + 'static,
        T: Send + 'static,
    {
        let runtime = &self.inner.runtime;
        runtime.blocking_view_in_place(Location::caller(), body)
    }

    /// [`Keeper::database`] from a thread that may block.
    ///
    /// # Errors
    ///
    /// See [`DatabaseError`].
    pub fn blocking_database<KC, DC>(&self, name: &str) -> Result<Db<KC, DC>, DatabaseError>
    where
        KC: 'static,
        DC: 'static,
    {
        block_on(self.database(name))
    }

    /// [`Keeper::records`] from a thread that may block.
    ///
    /// # Errors
    ///
    /// As [`Keeper::records`].
    pub fn blocking_records<KC, DC>(&self, name: &str) -> Result<Records<KC, DC>, DatabaseError>
    where
        KC: 'static,
        DC: 'static,
    {
        block_on(self.records(name))
    }
}
