//! Leases in MySQL and MariaDB.

mod check;
mod extend;
mod server;
mod statements;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::mysql::{MySqlArguments, MySqlConnectOptions, MySqlQueryResult, MySqlRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, MySql, MySqlConnection, Row as _};

use super::sql::{
    Backend, Kind, Options, Row, Shape, Taken, connect_to_one_of, micros, store_of_leases,
};
use crate::leases::{Claim, Fence, Holder, LeaseName, Refresh, Refreshed, StoreError, TableName};
use statements::{NOTED, Statements};

store_of_leases! {
    /// Leases in a table of MySQL (8.0) or MariaDB (10.6), the one that Go's `dbmutex` uses: both exclude each other on the
    /// same row. Older servers work too, with a statement for each lease. MySQL 5.7 cannot but wait a second for each of at
    /// most two rows that somebody has locked, and skips the rest of its pass: there, refresh every three seconds or more.
    ///
    /// These servers cannot tell of releases: waiters poll. Binary logs must be by row or mixed, since the statements read the
    /// clock of the moment. A replica is recognised by `read_only`. Several servers can be given, as `mysql://user@one,two/db`
    /// or by several calls of [`MysqlLeasesBuilder::url`]: the first that can be written to is used. TLS is by `ssl-mode` in
    /// the URL.
    ///
    /// Whoever remembers tokens (as `RunTxn::under` does) tells these stores apart by database and table alone, since a replica
    /// that takes over has to be the same store: give tables of two servers whose leases guard one thing different names.
    ///
    /// If the table was made by dbmutex, the server's collation may take two names for one that differ in case or accents. Such
    /// names are never treated as one: whoever comes second gets [`StoreError::WrongTable`].
    MysqlLeases,
    /// The options of [`MysqlLeases`].
    MysqlLeasesBuilder,
    backend: MysqlBackend, pool: sqlx::MySqlPool, connect: sqlx::mysql::MySqlConnectOptions
}

/// MySQL or MariaDB, as a store of leases needs it.
struct MysqlBackend {
    servers: Vec<MySqlConnectOptions>,
    last: AtomicUsize,
    table: TableName,
    statements: Statements,
    /// The server cannot skip rows that are locked.
    cannot_skip: AtomicBool,
}

impl MysqlBackend {
    fn new(servers: Vec<MySqlConnectOptions>, options: &Options) -> Result<Self, StoreError> {
        let nowhere = |server: &MySqlConnectOptions| server.get_database().is_none();
        if options.table.parts().0.is_none() && servers.iter().any(nowhere) {
            let missing = "neither the URL nor the table's name says which database";
            return Err(StoreError::BadConfig(missing.to_owned()));
        }
        // Times are compared inside the server, but written by other clients too: all as UTC.
        let ours = |server: MySqlConnectOptions| {
            let server = server.timezone(Some("+00:00".to_owned()));
            server.set_names(true).disable_statement_logging()
        };
        Ok(Self {
            servers: servers.into_iter().map(ours).collect(),
            last: AtomicUsize::new(0),
            table: options.table.clone(),
            statements: Statements::new(&options.table),
            cannot_skip: AtomicBool::new(false),
        })
    }
}

fn query(sql: &Arc<str>) -> Query<'static, MySql, MySqlArguments> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql)))
}

impl Backend for MysqlBackend {
    type Connection = MySqlConnection;
    const UPDATES_WAIT: bool = true;

    async fn open(&self, patience: Duration) -> Result<MySqlConnection, StoreError> {
        connect_to_one_of(&self.servers, &self.last, patience, server::open).await
    }

    async fn close(&self, connection: MySqlConnection) {
        let _ = connection.close().await;
    }

    fn kind(&self, error: &sqlx::Error) -> Kind {
        server::kind(error)
    }

    async fn identity(&self, connection: &mut MySqlConnection) -> sqlx::Result<String> {
        server::identity(connection, &self.table).await
    }

    async fn shape(&self, connection: &mut MySqlConnection) -> sqlx::Result<Option<Shape>> {
        server::shape(connection, &self.table).await
    }

    fn fits(column: &str, kind: &str) -> Result<(), &'static str> {
        server::fits(column, kind)
    }

    fn ddl(&self) -> &str {
        &self.statements.ddl
    }

    async fn create(&self, connection: &mut MySqlConnection) -> sqlx::Result<()> {
        let ddl = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&self.statements.ddl)));
        ddl.execute(connection).await.map(drop)
    }

    async fn take(
        &self,
        connection: &mut MySqlConnection,
        claim: &Claim,
    ) -> sqlx::Result<Option<Taken>> {
        let id = &*claim.holder.id;
        let take = query(&self.statements.take)
            .bind(id)
            .bind(&*claim.holder.host)
            .bind(i64::from(claim.holder.pid))
            .bind(id)
            .bind(micros(claim.expiration))
            .bind(claim.name.as_str())
            .bind(claim.name.as_str())
            .bind(id)
            .bind(micros(claim.unclean_delay));
        let done = take.execute(&mut *connection).await?;
        self.taken(connection, &done, claim).await
    }

    async fn hand(
        &self,
        connection: &mut MySqlConnection,
        from: &Holder,
        claim: &Claim,
    ) -> sqlx::Result<Option<Taken>> {
        let hand = query(&self.statements.hand)
            .bind(&*claim.holder.host)
            .bind(i64::from(claim.holder.pid))
            .bind(&*claim.holder.id)
            .bind(micros(claim.expiration))
            .bind(claim.name.as_str())
            .bind(claim.name.as_str())
            .bind(&*from.id);
        let done = hand.execute(&mut *connection).await?;
        self.taken(connection, &done, claim).await
    }

    async fn add(&self, connection: &mut MySqlConnection, name: &LeaseName) -> sqlx::Result<()> {
        let add = query(&self.statements.add).bind(name.as_str());
        match add.execute(connection).await {
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(()),
            added => added.map(drop),
        }
    }

    async fn row(
        &self,
        connection: &mut MySqlConnection,
        name: &LeaseName,
    ) -> sqlx::Result<Option<Row>> {
        let row = query(&self.statements.row)
            .bind(name.as_str())
            .bind(name.as_str());
        match row.fetch_optional(&mut *connection).await? {
            Some(row) => read(&row).map(Some),
            None => server::must_write(connection).await.map(|()| None),
        }
    }

    async fn rows(&self, connection: &mut MySqlConnection) -> sqlx::Result<Vec<Row>> {
        let rows = query(&self.statements.rows);
        let rows = rows.fetch_all(&mut *connection).await?;
        if rows.is_empty() {
            server::must_write(connection).await?;
        }
        rows.iter().map(read).collect()
    }

    async fn extend(
        &self,
        connection: &mut MySqlConnection,
        leases: &[Refresh],
    ) -> sqlx::Result<Vec<Refreshed>> {
        extend::extend(&self.statements, &self.cannot_skip, connection, leases).await
    }

    async fn want(&self, connection: &mut MySqlConnection, name: &LeaseName) -> sqlx::Result<()> {
        if self.cannot_skip.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut transaction = connection.begin().await?;
        match self.note(&mut transaction, name).await {
            Ok(()) => transaction.commit().await,
            Err(error) => {
                // At once: as long as the row is locked, its holder's refresh skips it.
                transaction.rollback().await?;
                Err(error)
            }
        }
    }

    async fn free(
        &self,
        connection: &mut MySqlConnection,
        name: &LeaseName,
        holder: &Holder,
    ) -> sqlx::Result<Option<bool>> {
        let free = query(&self.statements.free)
            .bind(name.as_str())
            .bind(name.as_str())
            .bind(&*holder.id);
        let freed = free.execute(&mut *connection).await?;
        if freed.rows_affected() == 0 {
            return server::must_write(connection).await.map(|()| None);
        }
        Ok(Some(freed.last_insert_id() == NOTED))
    }

    async fn force(
        &self,
        connection: &mut MySqlConnection,
        name: &LeaseName,
    ) -> sqlx::Result<Option<Row>> {
        let mut transaction = connection.begin().await?;
        let row = query(&self.statements.row_for_update)
            .bind(name.as_str())
            .bind(name.as_str());
        let row = row.fetch_optional(&mut *transaction).await?;
        let row = match row {
            Some(row) => Some(read(&row)?).filter(|row| row.locked),
            None => server::must_write(&mut transaction).await.map(|()| None)?,
        };
        if row.is_some() {
            let force = query(&self.statements.force)
                .bind(name.as_str())
                .bind(name.as_str());
            let forced = force.execute(&mut *transaction).await?;
            if forced.rows_affected() == 0 {
                return Err(server::reads_only());
            }
        }
        transaction.commit().await?;
        Ok(row)
    }
}

impl MysqlBackend {
    async fn note(&self, connection: &mut MySqlConnection, name: &LeaseName) -> sqlx::Result<()> {
        let unnoted = query(&self.statements.unnoted)
            .bind(name.as_str())
            .bind(name.as_str());
        match unnoted.fetch_optional(&mut *connection).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                let want = query(&self.statements.want)
                    .bind(name.as_str())
                    .bind(name.as_str());
                want.execute(connection).await.map(drop)
            }
            Err(error) if server::number(&error) == Some(extend::SYNTAX_ERROR) => {
                self.cannot_skip.store(true, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What a statement that takes the lease brings.
    async fn taken(
        &self,
        connection: &mut MySqlConnection,
        done: &MySqlQueryResult,
        claim: &Claim,
    ) -> sqlx::Result<Option<Taken>> {
        if done.rows_affected() == 0 {
            return Ok(None);
        }
        let mut token = Some(done.last_insert_id());
        if token == Some(0) {
            // The table has a trigger, with which the server keeps the number for itself. The row is ours, and keeps it.
            let row = self.row(connection, &claim.name).await?;
            let ours = row.filter(|row| row.locked && row.is_of(&claim.holder.id));
            token = ours.map(|row| row.count.unsigned_abs());
        }
        Ok(Some(Taken {
            token: Fence(token.unwrap_or_default()),
            // The lock of the row comes before the clock. What is gone already is looked at again.
            waited: token.is_none(),
        }))
    }
}

/// A row as [`Statements`] selects it; an error if the server only reads by now.
fn read(row: &MySqlRow) -> sqlx::Result<Row> {
    if row.try_get::<i64, _>(8)? == 0 {
        return Err(server::reads_only());
    }
    Ok(Row {
        name: row.try_get(0)?,
        locked: row.try_get::<i64, _>(1)? != 0,
        count: row.try_get(2)?,
        host: row.try_get(3)?,
        pid: row.try_get(4)?,
        id: row.try_get(5)?,
        left: row.try_get(6)?,
        noted: row.try_get::<i64, _>(7)? != 0,
    })
}
