//! Leases in PostgreSQL.

mod ask;
mod check;
mod server;
mod statements;
mod wakeups;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row as _};

use super::sql::{
    Backend, Kind, Options, Row, Shape, Taken, connect_to_one_of, micros, store_of_leases,
};
use crate::leases::{
    Claim, Fence, Holder, LeaseName, Refresh, Refreshed, StoreError, StoreFuture, Wakeups,
};
use ask::Ask;
use statements::Statements;

store_of_leases! {
    /// Leases in a table of PostgreSQL, the one that Go's `dbmutex` uses: both exclude each other on the same row.
    ///
    /// Releases are told by `NOTIFY`. There may be a pooler between (pgbouncer, in session or in transaction mode, of any
    /// version): where one is noticed, statements are not prepared, nothing is set for a session, and since notifications do not
    /// pass it, the store is polled, which is said once as a warning.
    ///
    /// Several servers can be given, as `postgres://user@one,two/db`, as URLs with commas between them, or by several calls of
    /// [`PostgresLeasesBuilder::url`]: the first that can be written to is used. TLS is by `sslmode` in the URL.
    ///
    /// A token is never given out twice as long as the server loses no commit that it acknowledged: for a failover that means
    /// synchronous replication.
    PostgresLeases,
    /// The options of [`PostgresLeases`].
    PostgresLeasesBuilder,
    backend: PostgresBackend, pool: sqlx::PgPool, connect: sqlx::postgres::PgConnectOptions
}

/// PostgreSQL, as a store of leases needs it.
struct PostgresBackend {
    servers: Vec<sqlx::postgres::PgConnectOptions>,
    last: AtomicUsize,
    statements: Statements,
    deaf: AtomicBool,
    /// There is a pooler between, whose sessions are shared with others.
    pooled: AtomicBool,
}

impl PostgresBackend {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the other databases refuse some options"
    )]
    fn new(
        servers: Vec<sqlx::postgres::PgConnectOptions>,
        options: &Options,
    ) -> Result<Self, StoreError> {
        let ours = |server: sqlx::postgres::PgConnectOptions| {
            // No number that we read has a fraction, and poolers refuse parameters that they do not know.
            let server = server.extra_float_digits(None);
            server.disable_statement_logging()
        };
        Ok(Self {
            servers: servers.into_iter().map(ours).collect(),
            last: AtomicUsize::new(0),
            statements: Statements::new(&options.table),
            deaf: AtomicBool::new(false),
            pooled: AtomicBool::new(false),
        })
    }

    /// Whether statements are sent as plain text, and not prepared.
    fn plainly(&self) -> bool {
        self.pooled.load(Ordering::Relaxed)
    }
}

fn ask(sql: &std::sync::Arc<str>) -> Ask<'static> {
    Ask::of(std::sync::Arc::clone(sql))
}

impl Backend for PostgresBackend {
    type Connection = PgConnection;
    const UPDATES_WAIT: bool = false;

    async fn open(&self, patience: Duration) -> Result<PgConnection, StoreError> {
        let open = |server| server::open(server, &self.pooled);
        connect_to_one_of(&self.servers, &self.last, patience, open).await
    }

    async fn close(&self, connection: PgConnection) {
        let _ = connection.close().await;
    }

    fn kind(&self, error: &sqlx::Error) -> Kind {
        if server::is_of_another_session(error) {
            server::say_pooled(&self.pooled);
        }
        server::kind(error)
    }

    async fn identity(&self, connection: &mut PgConnection) -> sqlx::Result<String> {
        server::identity(connection, &self.statements.table, self.plainly()).await
    }

    async fn shape(&self, connection: &mut PgConnection) -> sqlx::Result<Option<Shape>> {
        server::shape(connection, &self.statements.table, self.plainly()).await
    }

    fn fits(column: &str, kind: &str) -> Result<(), &'static str> {
        server::fits(column, kind)
    }

    fn ddl(&self) -> &str {
        &self.statements.ddl
    }

    async fn create(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let ddl = sqlx::raw_sql(AssertSqlSafe(std::sync::Arc::clone(&self.statements.ddl)));
        ddl.execute(connection).await.map(drop)
    }

    async fn take(
        &self,
        connection: &mut PgConnection,
        claim: &Claim,
    ) -> sqlx::Result<Option<Taken>> {
        let take = ask(&self.statements.take)
            .bind(claim.name.as_str())
            .bind(&*claim.holder.host)
            .bind(i64::from(claim.holder.pid))
            .bind(&*claim.holder.id)
            .bind(micros(claim.expiration))
            .bind(micros(claim.unclean_delay));
        let row = take.row(connection, self.plainly()).await?;
        row.as_ref().map(taken).transpose()
    }

    async fn hand(
        &self,
        connection: &mut PgConnection,
        from: &Holder,
        claim: &Claim,
    ) -> sqlx::Result<Option<Taken>> {
        let hand = ask(&self.statements.hand)
            .bind(claim.name.as_str())
            .bind(&*claim.holder.host)
            .bind(i64::from(claim.holder.pid))
            .bind(&*claim.holder.id)
            .bind(micros(claim.expiration))
            .bind(&*from.id);
        let row = hand.row(connection, self.plainly()).await?;
        row.as_ref().map(taken).transpose()
    }

    async fn add(&self, connection: &mut PgConnection, name: &LeaseName) -> sqlx::Result<()> {
        let add = ask(&self.statements.add).bind(name.as_str());
        add.rows(connection, self.plainly()).await.map(drop)
    }

    async fn row(
        &self,
        connection: &mut PgConnection,
        name: &LeaseName,
    ) -> sqlx::Result<Option<Row>> {
        let row = ask(&self.statements.row).bind(name.as_str());
        let row = row.row(connection, self.plainly()).await?;
        row.as_ref().map(read).transpose()
    }

    async fn rows(&self, connection: &mut PgConnection) -> sqlx::Result<Vec<Row>> {
        let rows = ask(&self.statements.rows)
            .rows(connection, self.plainly())
            .await?;
        rows.iter().map(read).collect()
    }

    async fn extend(
        &self,
        connection: &mut PgConnection,
        leases: &[Refresh],
    ) -> sqlx::Result<Vec<Refreshed>> {
        let names: Vec<&str> = leases.iter().map(|lease| lease.name.as_str()).collect();
        let ids: Vec<&str> = leases.iter().map(|lease| &*lease.holder.id).collect();
        let token = |lease: &Refresh| i64::try_from(lease.token.0).unwrap_or(i64::MAX);
        let tokens: Vec<i64> = leases.iter().map(token).collect();
        let expirations: Vec<i64> = leases.iter().map(|l| micros(l.expiration)).collect();
        let extend = ask(&self.statements.extend)
            .bind(names)
            .bind(ids)
            .bind(tokens)
            .bind(expirations);
        let rows = extend.rows(connection, self.plainly()).await?;
        rows.iter().map(outcome).collect()
    }

    async fn free(
        &self,
        connection: &mut PgConnection,
        name: &LeaseName,
        holder: &Holder,
    ) -> sqlx::Result<Option<bool>> {
        let free = ask(&self.statements.free)
            .bind(name.as_str())
            .bind(&*holder.id);
        let freed = free.row(connection, self.plainly()).await?;
        // Those who want it are woken.
        Ok(freed.map(|_| false))
    }

    async fn force(
        &self,
        connection: &mut PgConnection,
        name: &LeaseName,
    ) -> sqlx::Result<Option<Row>> {
        let force = ask(&self.statements.force).bind(name.as_str());
        let row = force.row(connection, self.plainly()).await?;
        row.as_ref().map(read).transpose()
    }

    fn wakeups(&self, patience: Duration) -> Option<StoreFuture<'_, Box<dyn Wakeups>>> {
        self.listen(patience)
    }
}

fn taken(row: &PgRow) -> sqlx::Result<Taken> {
    Ok(Taken {
        token: Fence(row.try_get::<i64, _>(0)?.unsigned_abs()),
        waited: row.try_get(1)?,
    })
}

/// A row as [`Statements`] selects it.
fn read(row: &PgRow) -> sqlx::Result<Row> {
    Ok(Row {
        name: row.try_get("name")?,
        locked: row.try_get("locked")?,
        count: row.try_get("locked_count")?,
        host: row.try_get("locker_host")?,
        pid: row.try_get("locker_pid")?,
        id: row.try_get("locker_id")?,
        left: row.try_get("left_micros")?,
        // Those who want it are woken.
        noted: true,
    })
}

/// What became of one lease in a refresh.
fn outcome(row: &PgRow) -> sqlx::Result<Refreshed> {
    if row.try_get("held")? {
        return Ok(Refreshed::Held);
    }
    if row.try_get("matches")? {
        return Ok(Refreshed::Skipped);
    }
    let exists: Option<String> = row.try_get("name")?;
    Ok(Refreshed::Lost(match exists {
        Some(_) => read(row)?.record(),
        None => None,
    }))
}
