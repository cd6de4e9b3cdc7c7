//! What MySQL and MariaDB say of themselves and of their errors.

use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError};
use sqlx::{AssertSqlSafe, ConnectOptions, MySqlConnection, Row as _};

use super::super::sql::{Column, Kind, Shape, connecting, fault, kind_by};
use super::statements::WRITES;
use crate::leases::{StoreError, TableName};

/// How long a statement waits for the lock of a row, in seconds.
pub(super) const LOCK_TIMEOUT: u32 = 2;

/// Opens a connection, if it is one to a server that can be written to.
pub(super) async fn open(server: &MySqlConnectOptions) -> Result<MySqlConnection, StoreError> {
    let failed = |error| fault(connecting(kind(&error)), error);
    let mut connection = server.connect().await.map_err(failed)?;
    must_write(&mut connection).await.map_err(failed)?;
    // Whatever the server begins transactions with: under `serializable` whoever only looks would wait for locks.
    let session = format!(
        "set session transaction isolation level repeatable read; \
         set session innodb_lock_wait_timeout = {LOCK_TIMEOUT}, session autocommit = 1"
    );
    let set = sqlx::raw_sql(AssertSqlSafe(session));
    set.execute(&mut connection).await.map_err(failed)?;
    Ok(connection)
}

/// Fails if the server only reads.
pub(super) async fn must_write(connection: &mut MySqlConnection) -> sqlx::Result<()> {
    let writes = format!("select cast({WRITES} as signed)");
    let row = sqlx::query(AssertSqlSafe(writes)).fetch_one(connection);
    match row.await?.try_get::<i64, _>(0)? {
        0 => Err(reads_only()),
        _ => Ok(()),
    }
}

/// The server says of itself that it only reads.
#[derive(Debug, thiserror::Error)]
#[error("the server is set to be read only")]
struct ReadsOnly;

pub(super) fn reads_only() -> sqlx::Error {
    sqlx::Error::Decode(Box::new(ReadsOnly))
}

/// The server's number for an error.
pub(super) fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?;
    let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

/// What kind of failure an error is.
pub(super) fn kind(error: &sqlx::Error) -> Kind {
    match error {
        sqlx::Error::Decode(why) if why.is::<ReadsOnly>() => Kind::ReadOnly,
        error => kind_by(error, |_| kind_of(number(error).unwrap_or_default())),
    }
}

fn kind_of(number: u16) -> Kind {
    match number {
        // Too many connections, shutting down, aborted, killed, timed out.
        1040 | 1053 | 1077 | 1079 | 1152 | 1203 | 1317 | 1927 | 2006 | 2013 | 4031 => {
            Kind::Unreachable
        }
        // --read-only, read-only mode, read-only transaction.
        1290 | 1792 | 1836 => Kind::ReadOnly,
        // A table that somebody made meanwhile, a deadlock, a record that changed, a statement to prepare again.
        1020 | 1050 | 1213 | 1412 | 1615 => Kind::Again,
        1205 | 3572 => Kind::LockTimeout,
        // A wrong password, or no user of this name from here; a right that is lacking; an account that is locked or whose
        // password has to be changed first.
        1044 | 1045 | 1130 | 1142 | 1143 | 1227 | 1698 | 1820 | 1862 | 3118 | 4151 => {
            Kind::Forbidden
        }
        // No database was named, or none of this name is there; a letter that the table's character set does not have.
        1046 | 1049 | 1267 | 1366 | 3988 => Kind::BadConfig,
        _ => Kind::Other,
    }
}

/// The database and the table. Whatever a server calls itself, a replica that takes over from it calls itself something else,
/// and has the same leases and tokens all the same.
pub(super) async fn identity(
    connection: &mut MySqlConnection,
    table: &TableName,
) -> sqlx::Result<String> {
    let (schema, table) = table.parts();
    let row = sqlx::query("select convert(coalesce(?, database()) using utf8mb4)")
        .bind(schema)
        .fetch_one(connection)
        .await?;
    let database: String = row.try_get(0)?;
    Ok(format!("mysql:{database}.{table}"))
}

/// What the table looks like.
pub(super) async fn shape(
    connection: &mut MySqlConnection,
    table: &TableName,
) -> sqlx::Result<Option<Shape>> {
    let engine = "select convert(coalesce(engine, 'none') using utf8mb4) from information_schema.tables \
         where table_schema = coalesce(?, database()) and table_name = ?";
    let key = "select cast(count(*) as signed) from (select index_name from information_schema.statistics \
         where table_schema = coalesce(?, database()) and table_name = ? and non_unique = 0 \
         group by index_name having count(*) = 1 and max(column_name) = 'name' and max(sub_part) is null) as one";
    let columns = "select convert(column_name using utf8mb4), \
         convert(concat(lower(data_type), ifnull(concat('(', datetime_precision, ')'), '')) using utf8mb4), \
         cast(is_nullable = 'NO' and column_default is null and extra not like '%auto_increment%' \
         and extra not like '%GENERATED%' as signed) from information_schema.columns \
         where table_schema = coalesce(?, database()) and table_name = ? order by ordinal_position";
    let (schema, name) = table.parts();
    let ask = |sql: &'static str| sqlx::query(sql).bind(schema).bind(name);
    let Some(row) = ask(engine).fetch_optional(&mut *connection).await? else {
        return Ok(None);
    };
    let engine: String = row.try_get(0)?;
    let keys: i64 = ask(key).fetch_one(&mut *connection).await?.try_get(0)?;
    let mut shape = Shape {
        one_row_a_name: keys > 0,
        ..Shape::default()
    };
    if !engine.eq_ignore_ascii_case("innodb") {
        shape.unfit = Some(format!("its engine is {engine}, and not InnoDB"));
    }
    for column in ask(columns).fetch_all(connection).await? {
        shape.columns.push(Column {
            name: column.try_get(0)?,
            kind: column.try_get(1)?,
            needed: column.try_get::<i64, _>(2)? != 0,
        });
    }
    Ok(Some(shape))
}

/// Which types can hold which column.
pub(super) fn fits(column: &str, kind: &str) -> Result<(), &'static str> {
    let (fits, expected) = match column {
        "name" | "locker_host" | "locker_id" => {
            (matches!(kind, "varchar" | "varbinary"), "varchar")
        }
        "locked" => (kind == "tinyint", "boolean"),
        "locked_count" | "locker_pid" => (kind == "bigint", "bigint"),
        "locked_seconds" => (kind == "double", "double"),
        _ => (kind == "timestamp(6)", "timestamp(6)"),
    };
    if fits { Ok(()) } else { Err(expected) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waiting_heals_is_told_from_what_it_does_not() {
        let table = [
            (Kind::Forbidden, &[1044, 1045, 1130, 1142, 1698, 3118][..]),
            (Kind::BadConfig, &[1046, 1049, 1267, 1366]),
            // Too many connections, of this user too, shutting down, a connection that broke.
            (Kind::Unreachable, &[1040, 1203, 1053, 2013]),
            (Kind::ReadOnly, &[1290, 1836]),
            (Kind::Again, &[1020, 1213]),
            (Kind::LockTimeout, &[1205]),
            (Kind::Other, &[0, 1114, 1146]),
        ];
        for (kind, numbers) in table {
            for &number in numbers {
                assert_eq!(kind_of(number), kind, "{number}");
            }
        }
    }
}
