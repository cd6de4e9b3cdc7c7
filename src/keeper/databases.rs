//! Handles of databases.
//!
//! They may be asked for at any time, from any thread: LMDB wants openings one after the other and outside of other
//! transactions, and the writer sees to that.

use std::future::Future;
use std::sync::Arc;

use heed::{BytesEncode, Comparator, DatabaseFlags, DefaultComparator};

use super::Keeper;
use crate::env::{Db, OpenSpec, Records};
use crate::error::{DatabaseError, DbError};
use crate::locks::Object;

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

    /// A database for interactive transactions, which is made if it is missing: [`Keeper::database`], then
    /// [`Keeper::records_of`].
    ///
    /// # Errors
    ///
    /// [`DatabaseError::NotRecords`] if its records cannot be locked one by one; otherwise see [`DatabaseError`].
    pub fn records<KC, DC>(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Records<KC, DC>, DatabaseError>> + Send + use<KC, DC>
    where
        KC: 'static,
        DC: 'static,
    {
        let opened = self.database(name);
        let runtime = Arc::clone(&self.inner.runtime);
        async move { Records::new(&runtime.env.shared, opened.await?) }
    }

    /// A handle of a database for interactive transactions, made of a handle that was opened with
    /// [`Keeper::database_with`] or [`Keeper::main_database`]. It looks at how the database is in the file, not at how it was
    /// opened.
    ///
    /// # Errors
    ///
    /// [`DatabaseError::NotRecords`] for a database with `DUP_SORT`, `INTEGER_KEY` or `REVERSE_KEY`, for one that was deleted,
    /// and for a handle of another keeper.
    pub fn records_of<KC, DC, C>(
        &self,
        db: Db<KC, DC, C>,
    ) -> Result<Records<KC, DC, C>, DatabaseError>
    where
        C: Comparator + Send + Sync + 'static,
    {
        Records::new(&self.inner.runtime.env.shared, db)
    }

    /// The lock of a record: its namespace is the name of the database, `"(main)"` for LMDB's main database, and its key the
    /// encoded key. Interactive transactions lock it when they use the record; a plain update that declares it, with
    /// [`RunTxn::write_lock`](crate::RunTxn::write_lock), waits for them.
    ///
    /// ```
    /// # use lockkeeper::{Keeper, RunTxn};
    /// # use lockkeeper::heed::types::Str;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let keeper = Keeper::open(folder.path())?;
    /// let pets = keeper.blocking_records::<Str, Str>("pets")?;
    /// let rename = RunTxn::update(move |txn| Ok(pets.put(txn, "cat", "Tom")?));
    /// keeper.blocking_run(rename.write_lock(keeper.object(pets, "cat")?))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`DbError`] if the handle belongs to another keeper, its database was deleted, or the key cannot be encoded or has no
    /// length that a key may have.
    pub fn object<'a, KC, DC, C>(
        &self,
        records: Records<KC, DC, C>,
        key: &'a KC::EItem,
    ) -> Result<Object, DbError>
    where
        KC: BytesEncode<'a>,
        C: Comparator + Send + Sync + 'static,
    {
        let (namespace, key) = records.lock(&self.inner.runtime.env.shared, key)?;
        Ok(Object::new(namespace, key))
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
