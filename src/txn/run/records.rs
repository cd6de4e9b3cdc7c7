//! What an operation on one record does: it takes the lock that the isolation asks for, looks at what the transaction has written
//! itself, reads what is committed, and buffers what is written.
//!
//! Most reads need no wait, and then no future either: each has a form that answers at once or not at all.

use super::attempt::{Node, Read, table_ref, too_much};
use super::isolation::Isolation;
use super::state::State;
use crate::env::{RawTable, ReadTxn};
use crate::error::{DbError, Site, TxnError};
use crate::locks::Mode;
use crate::txn::sets::Own;

impl Node {
    pub(super) async fn get(
        &self,
        table: &RawTable,
        key: &[u8],
        for_update: bool,
        site: Site,
    ) -> Result<Option<Box<[u8]>>, TxnError> {
        match self.get_now(table, key, for_update, site) {
            Some(got) => got,
            // Boxed: it is large, and hardly ever needed.
            None => Box::pin(self.get_slowly(table, key, for_update, site)).await,
        }
    }

    /// [`get`](Self::get), if that needs no wait.
    fn get_now(
        &self,
        table: &RawTable,
        key: &[u8],
        for_update: bool,
        site: Site,
    ) -> Option<Result<Option<Box<[u8]>>, TxnError>> {
        let own = match self.mode_to_read(for_update) {
            None => self.own(table, key),
            Some(mode) => self
                .lock_now(Self::record(table, key), mode, site)?
                .map(|state| state.own(table, key)),
        };
        match own {
            Err(error) => Some(Err(error)),
            Ok(Some(own)) => Some(Ok(own)),
            Ok(None) => self.fetch_now(table, key, self.compares(for_update)),
        }
    }

    async fn get_slowly(
        &self,
        table: &RawTable,
        key: &[u8],
        for_update: bool,
        site: Site,
    ) -> Result<Option<Box<[u8]>>, TxnError> {
        if let Some(mode) = self.mode_to_read(for_update) {
            self.lock(&Self::record(table, key), mode, site).await?;
        }
        match self.own(table, key)? {
            Some(own) => Ok(own),
            None => self.fetch(table, key, self.compares(for_update)).await,
        }
    }

    /// The lock that a read needs.
    fn mode_to_read(&self, for_update: bool) -> Option<Mode> {
        let locks_reads = self.attempt.start.isolation.locks_reads();
        match (self.locker(), for_update) {
            (None, _) => None,
            (Some(_), true) => Some(Mode::Write),
            (Some(_), false) => locks_reads.then_some(Mode::Read),
        }
    }

    fn compares(&self, for_update: bool) -> bool {
        for_update || self.attempt.start.isolation.compares_reads()
    }

    /// What the transaction itself has made of a key, if anything.
    fn own(&self, table: &RawTable, key: &[u8]) -> Result<Option<Option<Box<[u8]>>>, TxnError> {
        let mut state = self.attempt.state();
        state.usable(self.id)?;
        Ok(state.own(table, key))
    }

    /// What is committed, without what the transaction has written itself; perhaps to be compared at the commit.
    pub(super) async fn fetch(
        &self,
        table: &RawTable,
        key: &[u8],
        compared: bool,
    ) -> Result<Option<Box<[u8]>>, TxnError> {
        if let Some(fetched) = self.fetch_now(table, key, compared) {
            return fetched;
        }
        let (raw, owned): (RawTable, Box<[u8]>) = (table.clone(), key.into());
        let read = move |txn: &ReadTxn<'_>| bytes_at(&raw, txn, &owned);
        let read = Box::pin(self.attempt.read(read)).await?;
        self.fetched(table, key, compared, read)
    }

    /// [`fetch`](Self::fetch), if it can be read right now and right here: nothing has to be copied for that.
    fn fetch_now(
        &self,
        table: &RawTable,
        key: &[u8],
        compared: bool,
    ) -> Option<Result<Option<Box<[u8]>>, TxnError>> {
        let read = self.attempt.read_now(|txn| bytes_at(table, txn, key))?;
        Some(read.and_then(|read| self.fetched(table, key, compared, read)))
    }

    fn fetched(
        &self,
        table: &RawTable,
        key: &[u8],
        compared: bool,
        read: Read<Option<Box<[u8]>>>,
    ) -> Result<Option<Box<[u8]>>, TxnError> {
        let mut state = self.attempt.state();
        state.usable(self.id)?;
        state.read_from(read.snapshot, read.mark);
        if !compared {
            return Ok(read.value);
        }
        let seen = state
            .sets
            .read(table_ref(table), key, read.value.as_deref());
        drop(state);
        self.noted(table, seen).map(|()| read.value)
    }

    /// Takes the write lock; in a snapshot, what is there has to be there still at the commit.
    pub(super) async fn lock_to_write(
        &self,
        table: &RawTable,
        key: &[u8],
        site: Site,
    ) -> Result<(), TxnError> {
        if self.locker().is_some() {
            self.lock(&Self::record(table, key), Mode::Write, site)
                .await?;
        }
        if self.attempt.start.isolation == Isolation::Snapshot && self.own(table, key)?.is_none() {
            Box::pin(self.fetch(table, key, true)).await?;
        }
        self.check()
    }

    /// Buffers a write; `None` deletes.
    pub(super) fn write(
        &self,
        table: &RawTable,
        key: &[u8],
        value: Option<Box<[u8]>>,
    ) -> Result<(), TxnError> {
        let mut state = self.attempt.state();
        state.usable(self.id)?;
        state.write(table, key, value)
    }

    /// Buffers a write unless another operation of the transaction has made it needless since; says whether it did.
    pub(super) fn write_if(
        &self,
        table: &RawTable,
        key: &[u8],
        value: Option<Box<[u8]>>,
    ) -> Result<bool, TxnError> {
        let mut state = self.attempt.state();
        state.usable(self.id)?;
        match (state.sets.own(table_ref(table), key), &value) {
            (Own::Put(_), Some(_)) | (Own::Gone, None) => Ok(false),
            _ => state.write(table, key, value).map(|()| true),
        }
    }
}

impl State {
    fn own(&self, table: &RawTable, key: &[u8]) -> Option<Option<Box<[u8]>>> {
        match self.sets.own(table_ref(table), key) {
            Own::Put(value) => Some(Some(value.into())),
            Own::Gone => Some(None),
            Own::Untouched => None,
        }
    }

    fn write(
        &mut self,
        table: &RawTable,
        key: &[u8],
        value: Option<Box<[u8]>>,
    ) -> Result<(), TxnError> {
        self.changed();
        let written = match value {
            Some(value) => self.sets.put(table_ref(table), key, value),
            None => self.sets.delete(table_ref(table), key),
        };
        written.map_err(too_much)
    }
}

/// The value of a key, as bytes.
fn bytes_at(table: &RawTable, txn: &ReadTxn<'_>, key: &[u8]) -> Result<Option<Box<[u8]>>, DbError> {
    Ok(table.get(txn, key)?.map(Box::from))
}
