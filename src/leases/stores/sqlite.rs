//! Leases in SQLite.

mod check;
mod extend;
mod server;
mod statements;

use std::sync::Arc;
use std::time::Duration;

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row as _, Sqlite, SqliteConnection};

use super::sql::{Backend, Kind, Options, Row, Shape, Taken, micros, store_of_leases};
use crate::leases::{Claim, Fence, Holder, LeaseName, Refresh, Refreshed, StoreError};
use statements::Statements;

store_of_leases! {
    /// Leases in a table of an SQLite file, for processes of one machine. The file is made if it is missing: with a
    /// write-ahead log if it was given by a URL, and with the journal that the application's pool says if by that.
    ///
    /// Each commit is on the disk before it is answered, also where the application's pool is content with less; what its own
    /// connections do stays as it is. With `synchronous = OFF`, though, they may leave the whole file damaged after a power loss,
    /// and the leases in it: then give these a file of their own.
    ///
    /// Time is the machine's clock, in milliseconds. There is one writer: a transaction of the application that writes to the
    /// same file for long keeps leases from being refreshed. A file of its own has no such neighbours. Waiters poll. A file
    /// that lives in memory, or on a network, is of no use.
    SqliteLeases,
    /// The options of [`SqliteLeases`].
    SqliteLeasesBuilder,
    backend: SqliteBackend, pool: sqlx::SqlitePool, connect: sqlx::sqlite::SqliteConnectOptions
}

/// How long a statement waits for another writer: less than the usual refresh interval, after which nobody waits for it.
const BUSY_TIMEOUT: Duration = Duration::from_millis(800);

/// SQLite, as a store of leases needs it.
struct SqliteBackend {
    /// Nobody but this store says which journal a new file has.
    ours: bool,
    file: SqliteConnectOptions,
    statements: Statements,
}

impl SqliteBackend {
    fn new(servers: Vec<SqliteConnectOptions>, options: &Options) -> Result<Self, StoreError> {
        let wrong = |what: &str| StoreError::BadConfig(what.to_owned());
        let mut servers = servers.into_iter();
        let (Some(file), None) = (servers.next(), servers.next()) else {
            return Err(wrong("SQLite has one file"));
        };
        let path = file.get_filename().to_string_lossy().into_owned();
        if path.is_empty() || path.contains(":memory:") || path.contains("sqlx-in-memory") {
            return Err(wrong(
                "a database in memory is another one for each connection",
            ));
        }
        if !matches!(options.table.parts().0, None | Some("main")) {
            return Err(wrong("nothing is attached to the store's own connections"));
        }
        let file = file.create_if_missing(true).busy_timeout(BUSY_TIMEOUT);
        // Whatever the application's pool is content with: a token that is lost with the power would be given out again.
        let file = file.synchronous(SqliteSynchronous::Extra);
        Ok(Self {
            ours: !options.urls.is_empty(),
            file: file.disable_statement_logging(),
            statements: Statements::new(&options.table),
        })
    }
}

fn query(sql: &Arc<str>) -> Query<'static, Sqlite, SqliteArguments> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql)))
}

impl Backend for SqliteBackend {
    type Connection = SqliteConnection;
    const UPDATES_WAIT: bool = true;
    const ONE_LOCK: bool = true;

    async fn open(&self, patience: Duration) -> Result<SqliteConnection, StoreError> {
        server::open(&self.file, self.ours, patience).await
    }

    async fn close(&self, connection: SqliteConnection) {
        let _ = connection.close().await;
    }

    fn kind(&self, error: &sqlx::Error) -> Kind {
        server::kind(error)
    }

    async fn identity(&self, connection: &mut SqliteConnection) -> sqlx::Result<String> {
        server::identity(connection, &self.statements.name).await
    }

    async fn shape(&self, connection: &mut SqliteConnection) -> sqlx::Result<Option<Shape>> {
        server::shape(connection, &self.statements.name).await
    }

    fn fits(column: &str, kind: &str) -> Result<(), &'static str> {
        server::fits(column, kind)
    }

    fn ddl(&self) -> &str {
        &self.statements.ddl
    }

    async fn create(&self, connection: &mut SqliteConnection) -> sqlx::Result<()> {
        let ddl = sqlx::raw_sql(AssertSqlSafe(Arc::clone(&self.statements.ddl)));
        ddl.execute(connection).await.map(drop)
    }

    async fn take(
        &self,
        connection: &mut SqliteConnection,
        claim: &Claim,
    ) -> sqlx::Result<Option<Taken>> {
        let take = query(&self.statements.take)
            .bind(claim.name.as_str().to_owned())
            .bind(claim.holder.host.to_string())
            .bind(i64::from(claim.holder.pid))
            .bind(claim.holder.id.to_string())
            .bind(micros(claim.expiration))
            .bind(micros(claim.unclean_delay));
        taken(take, connection).await
    }

    async fn hand(
        &self,
        connection: &mut SqliteConnection,
        from: &Holder,
        claim: &Claim,
    ) -> sqlx::Result<Option<Taken>> {
        let hand = query(&self.statements.hand)
            .bind(claim.name.as_str().to_owned())
            .bind(claim.holder.host.to_string())
            .bind(i64::from(claim.holder.pid))
            .bind(claim.holder.id.to_string())
            .bind(micros(claim.expiration))
            .bind(from.id.to_string());
        taken(hand, connection).await
    }

    async fn add(&self, connection: &mut SqliteConnection, name: &LeaseName) -> sqlx::Result<()> {
        let add = query(&self.statements.add).bind(name.as_str().to_owned());
        add.execute(connection).await.map(drop)
    }

    async fn row(
        &self,
        connection: &mut SqliteConnection,
        name: &LeaseName,
    ) -> sqlx::Result<Option<Row>> {
        let row = query(&self.statements.row).bind(name.as_str().to_owned());
        let row = row.fetch_optional(connection).await?;
        row.as_ref().map(read).transpose()
    }

    async fn rows(&self, connection: &mut SqliteConnection) -> sqlx::Result<Vec<Row>> {
        let rows = query(&self.statements.rows).fetch_all(connection).await?;
        rows.iter().map(read).collect()
    }

    async fn extend(
        &self,
        connection: &mut SqliteConnection,
        leases: &[Refresh],
    ) -> sqlx::Result<Vec<Refreshed>> {
        extend::extend(&self.statements, connection, leases).await
    }

    async fn want(&self, connection: &mut SqliteConnection, name: &LeaseName) -> sqlx::Result<()> {
        let set = |millis| AssertSqlSafe(format!("pragma busy_timeout = {millis}"));
        sqlx::raw_sql(set(0)).execute(&mut *connection).await?;
        let want = query(&self.statements.want).bind(name.as_str().to_owned());
        let wanted = want.execute(&mut *connection).await;
        let patience = BUSY_TIMEOUT.as_millis();
        sqlx::raw_sql(set(patience)).execute(connection).await?;
        match wanted {
            Err(error) if server::kind(&error) != Kind::LockTimeout => Err(error),
            _ => Ok(()),
        }
    }

    async fn free(
        &self,
        connection: &mut SqliteConnection,
        name: &LeaseName,
        holder: &Holder,
    ) -> sqlx::Result<Option<bool>> {
        // Mostly nobody else wants it. A statement that answers rows wakes its caller for them, and again at its end.
        let statements = [
            (&self.statements.free_unwanted, false),
            (&self.statements.free, true),
        ];
        for (statement, wanted) in statements {
            let free = query(statement)
                .bind(name.as_str().to_owned())
                .bind(holder.id.to_string());
            if free.execute(&mut *connection).await?.rows_affected() > 0 {
                return Ok(Some(wanted));
            }
        }
        Ok(None)
    }

    async fn force(
        &self,
        connection: &mut SqliteConnection,
        name: &LeaseName,
    ) -> sqlx::Result<Option<Row>> {
        let mut transaction = connection.begin_with("begin immediate").await?;
        let row = self.row(&mut transaction, name).await?;
        let row = row.filter(|row| row.locked);
        if row.is_some() {
            let force = query(&self.statements.force).bind(name.as_str().to_owned());
            force.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(row)
    }
}

/// What a statement that returns the token brings. It is run to its end: the driver's `fetch_optional` stops at the row, and
/// would not tell if the commit, which comes after it, failed.
async fn taken(
    statement: Query<'static, Sqlite, SqliteArguments>,
    connection: &mut SqliteConnection,
) -> sqlx::Result<Option<Taken>> {
    let rows = statement.fetch_all(connection).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Taken {
        token: Fence(row.try_get::<i64, _>(0)?.unsigned_abs()),
        // The lock comes before the clock.
        waited: false,
    }))
}

/// A row as [`Statements`] selects it.
fn read(row: &SqliteRow) -> sqlx::Result<Row> {
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

#[cfg(test)]
mod tests;
