//! What PostgreSQL says of itself and of its errors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection, Row as _};

use super::super::sql::{Column, Kind, Shape, connecting, fault, kind_by};
use super::ask::Ask;
use crate::leases::state::Moment;
use crate::leases::{StoreError, boottime};

/// Opens a connection, if it is one to a server that can be written to.
pub(super) async fn open(
    server: &PgConnectOptions,
    pooled: &AtomicBool,
) -> Result<PgConnection, StoreError> {
    let failed = |error| fault(connecting(kind(&error)), error);
    let began = boottime::now();
    let mut connection = server.connect().await.map_err(failed)?;
    // Nothing is prepared before it is known whose session it is.
    let reads_only =
        "select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean";
    let row = sqlx::raw_sql(reads_only).fetch_one(&mut connection).await;
    if row.and_then(|row| row.try_get(0)).map_err(failed)? {
        return Err(StoreError::ReadOnly(None));
    }
    let looked = look_for_pooler(&mut connection, began, pooled).await;
    looked.map_err(failed)?;
    if !pooled.load(Ordering::Relaxed) {
        // So that a statement that waits ends soon after its client has gone. Servers before 14 do not know it.
        let _ = sqlx::raw_sql("set client_connection_check_interval = '500ms'")
            .execute(&mut connection)
            .await;
    }
    Ok(connection)
}

/// Whether there is a pooler: a session that is older than the connection to it is one of a pooler's, and others may have it
/// between two statements of ours. It is remembered for good: what is prepared in sessions that others have would be mistaken
/// for theirs without an error, while a store that is wrong about it is slower, and polls.
pub(super) async fn look_for_pooler(
    connection: impl sqlx::PgExecutor<'_>,
    began: Moment,
    pooled: &AtomicBool,
) -> sqlx::Result<()> {
    let age = "select coalesce((select extract(epoch from clock_timestamp() - backend_start) * 1000000 \
         from pg_stat_get_activity(pg_backend_pid())), 0)::bigint";
    let row = match sqlx::raw_sql(age).fetch_one(connection).await {
        // Whoever may not look is taken for one who is alone.
        Err(sqlx::Error::Database(_)) => return Ok(()),
        row => row?,
    };
    let age = u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or_default();
    if is_older(Duration::from_micros(age), boottime::now().since(began)) {
        say_pooled(pooled);
    }
    Ok(())
}

/// Whether a session was there before the connection, which was begun so long ago. Both are measured through suspend, and the
/// server's clock may run faster by 1 %.
fn is_older(session: Duration, connection: Duration) -> bool {
    session > connection + connection / 100
}

/// Remembers that there is a pooler.
pub(super) fn say_pooled(pooled: &AtomicBool) {
    if !pooled.swap(true, Ordering::Relaxed) {
        tracing::info!("there is a pooler before PostgreSQL: statements are not prepared");
    }
}

/// Whether a statement that was prepared is not there, or one is there that was not: the session is another one.
pub(super) fn is_of_another_session(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("26000" | "42P05"))
}

/// What kind of failure an error is.
pub(super) fn kind(error: &sqlx::Error) -> Kind {
    kind_by(error, |said| kind_of(&said.code().unwrap_or_default()))
}

fn kind_of(code: &str) -> Kind {
    match code {
        // Lost, shutting down, crashed, starting up, too many connections.
        "57P01" | "57P02" | "57P03" | "57P05" | "53300" => Kind::Unreachable,
        code if code.starts_with("08") => Kind::Unreachable,
        "25006" => Kind::ReadOnly,
        // Serialization failure, deadlock, a table or type that somebody made meanwhile, a plan that it made old; a prepared
        // statement that a pooler lost, or brought along.
        "40001" | "40P01" | "42P07" | "42710" | "26000" | "42P05" | "XX000" => Kind::Again,
        "55P03" => Kind::LockTimeout,
        // A right that is lacking; no such user, or none that may come from here; a wrong password.
        "42501" | "28000" | "28P01" => Kind::Forbidden,
        // No such database, no such schema; a letter that the database's encoding does not have.
        "3D000" | "3F000" | "22P05" => Kind::BadConfig,
        _ => Kind::Other,
    }
}

/// The number that a cluster keeps, also on its replicas and after they are promoted; where that may not be read, what the
/// database is called.
pub(super) async fn identity(
    connection: &mut PgConnection,
    table: &str,
    plainly: bool,
) -> sqlx::Result<String> {
    let system = sqlx::raw_sql("select system_identifier::text from pg_control_system()")
        .fetch_one(&mut *connection)
        .await
        .and_then(|row| row.try_get::<String, _>(0));
    let system = match system {
        Ok(system) => system,
        Err(error) if kind(&error) == Kind::Unreachable => return Err(error),
        Err(_) => "unnamed".to_owned(),
    };
    let names = "select current_database()::text || '#' || (select oid::text from pg_database where datname = \
         current_database()), coalesce((select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on \
         n.oid = c.relnamespace where c.oid = to_regclass($1)), $1)";
    let row = Ask::of(names).bind(table).row(connection, plainly).await?;
    let row = row.ok_or(sqlx::Error::RowNotFound)?;
    let (database, table): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(format!("postgres:{system}:{database}:{table}"))
}

/// What the table looks like.
pub(super) async fn shape(
    connection: &mut PgConnection,
    table: &str,
    plainly: bool,
) -> sqlx::Result<Option<Shape>> {
    let columns = "select a.attname::text, t.typname::text, a.attnotnull and not a.atthasdef and a.attidentity = '' \
         from pg_attribute a join pg_type t on t.oid = a.atttypid \
         where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped";
    // Servers before 12 have none of these.
    let loose = "select l.collname::text from pg_attribute a join pg_collation l on l.oid = a.attcollation \
         where a.attrelid = to_regclass($1) and a.attname = 'name' and not a.attisdropped \
         and not coalesce((to_jsonb(l) ->> 'collisdeterministic')::boolean, true)";
    let relation = "select c.relkind in ('r', 'p'), exists (select 1 from pg_index i join pg_attribute a on a.attrelid = \
         i.indrelid and a.attnum = i.indkey[0] where i.indrelid = c.oid and i.indisunique and i.indisvalid and \
         i.indimmediate and i.indnkeyatts = 1 and i.indpred is null and a.attname = 'name'), \
         c.relpersistence = 'p' from pg_class c where c.oid = to_regclass($1)";
    let relation = Ask::of(relation).bind(table);
    let Some(relation) = relation.row(connection, plainly).await? else {
        return Ok(None);
    };
    let mut shape = Shape {
        one_row_a_name: relation.try_get(1)?,
        ..Shape::default()
    };
    if !relation.try_get::<bool, _>(0)? {
        shape.unfit = Some("it is not a table".to_owned());
    } else if !relation.try_get::<bool, _>(2)? {
        shape.unfit = Some("it is unlogged or temporary, and would forget its tokens".to_owned());
    }
    let loose = Ask::of(loose).bind(table).row(connection, plainly).await?;
    if let Some(loose) = loose {
        let collation: String = loose.try_get(0)?;
        shape.unfit = Some(format!(
            "its column name has the collation {collation}, which takes several names for one"
        ));
    }
    for column in Ask::of(columns)
        .bind(table)
        .rows(connection, plainly)
        .await?
    {
        shape.columns.push(Column {
            name: column.try_get(0)?,
            kind: column.try_get(1)?,
            needed: column.try_get(2)?,
        });
    }
    Ok(Some(shape))
}

/// Which types can hold which column.
pub(super) fn fits(column: &str, kind: &str) -> Result<(), &'static str> {
    let (fits, expected) = match column {
        "name" | "locker_host" | "locker_id" => (matches!(kind, "varchar" | "text"), "varchar"),
        "locked" => (kind == "bool", "boolean"),
        "locked_count" | "locker_pid" => (kind == "int8", "bigint"),
        "locked_seconds" => (kind == "float8", "double precision"),
        _ => (kind == "timestamptz", "timestamptz"),
    };
    if fits { Ok(()) } else { Err(expected) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_poolers_only_if_it_is_older_by_more_than_a_clock_may_gain() {
        let seconds = Duration::from_secs;
        // It took long to log in, and the server's clock is being corrected.
        assert!(!is_older(
            seconds(10) + Duration::from_millis(20),
            seconds(10)
        ));
        assert!(!is_older(seconds(0), seconds(0)));
        assert!(is_older(seconds(11), seconds(10)));
        assert!(is_older(Duration::from_millis(5), Duration::from_millis(4)));
    }

    #[test]
    fn what_waiting_heals_is_told_from_what_it_does_not() {
        let table = [
            (Kind::Forbidden, &["28P01", "28000", "42501"][..]),
            (Kind::BadConfig, &["3D000", "3F000", "22P05"]),
            // Too many connections, starting up, shutting down, a connection that broke.
            (
                Kind::Unreachable,
                &["53300", "57P03", "57P01", "08006", "08P01"],
            ),
            (Kind::ReadOnly, &["25006"]),
            (Kind::Again, &["40001", "40P01"]),
            (Kind::LockTimeout, &["55P03"]),
            (Kind::Other, &["42P01", "53100", ""]),
        ];
        for (kind, codes) in table {
            for code in codes {
                assert_eq!(kind_of(code), kind, "{code}");
            }
        }
    }
}
