//! Handles of databases.
//!
//! They may be asked for at any time, from any thread: LMDB wants openings one after the other and outside of other
//! transactions, and the writer sees to that.

use std::future::Future;
use std::sync::Arc;

use heed::{Comparator, DatabaseFlags, DefaultComparator};

use super::Keeper;
use crate::env::{Db, OpenSpec};
use crate::error::DatabaseError;

impl Keeper {
    /// A typed handle of a named database, which is made if it is missing. Any time is a good time; a name that is open costs
    /// one look into a table.
    ///
    /// # Errors
    ///
    /// See [`DatabaseError`].
    pub fn database<KC, DC>(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Db<KC, DC>, DatabaseError>> + Send + use<KC, DC>
    where
        KC: 'static,
        DC: 'static,
    {
        self.database_with(name, DatabaseFlags::empty())
    }

    /// A database with LMDB's flags, such as `DUP_SORT`, and perhaps another order `C` of its keys.
    ///
    /// # Errors
    ///
    /// See [`DatabaseError`].
    pub fn database_with<KC, DC, C>(
        &self,
        name: &str,
        flags: DatabaseFlags,
    ) -> impl Future<Output = Result<Db<KC, DC, C>, DatabaseError>> + Send + use<KC, DC, C>
    where
        KC: 'static,
        DC: 'static,
        C: Comparator + Send + Sync + 'static,
    {
        self.open_database(OpenSpec::new::<KC, DC, C>(Some(name), flags, true))
    }

    /// A database that has to be there already: [`DatabaseError::NoSuchDatabase`] otherwise.
    ///
    /// # Errors
    ///
    /// See [`DatabaseError`].
    pub fn existing_database<KC, DC>(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Db<KC, DC>, DatabaseError>> + Send + use<KC, DC>
    where
        KC: 'static,
        DC: 'static,
    {
        self.open_database(OpenSpec::new::<KC, DC, DefaultComparator>(
            Some(name),
            DatabaseFlags::empty(),
            false,
        ))
    }

    /// LMDB's main database, which has no name and holds the names of the others.
    ///
    /// # Errors
    ///
    /// See [`DatabaseError`].
    pub fn main_database<KC, DC>(
        &self,
    ) -> impl Future<Output = Result<Db<KC, DC>, DatabaseError>> + Send + use<KC, DC>
    where
        KC: 'static,
        DC: 'static,
    {
        self.open_database(OpenSpec::new::<KC, DC, DefaultComparator>(
            None,
            DatabaseFlags::empty(),
            true,
        ))
    }

    fn open_database<KC, DC, C>(
        &self,
        spec: OpenSpec,
    ) -> impl Future<Output = Result<Db<KC, DC, C>, DatabaseError>> + Send + use<KC, DC, C>
    where
        C: Comparator + Send + Sync + 'static,
    {
        let runtime = Arc::clone(&self.inner.runtime);
        async move { runtime.env.database(spec).await }
    }
}
