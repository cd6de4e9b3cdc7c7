//! What SQLite says of itself and of its errors.

use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row as _, SqliteConnection};

use super::super::sql::{Column, Kind, Shape, fault};
use crate::leases::StoreError;

/// Opens the file.
pub(super) async fn open(
    file: &SqliteConnectOptions,
    patience: Duration,
) -> Result<SqliteConnection, StoreError> {
    match tokio::time::timeout(patience, connect(file)).await {
        Ok(opened) => opened.map_err(|error| fault(kind(&error), error)),
        Err(late) => Err(StoreError::Unreachable(Box::new(late))),
    }
}

/// A file that is new gets a write-ahead log: readers do not wait then, and a commit is flushed once. One that is somebody's
/// is left as it is.
async fn connect(file: &SqliteConnectOptions) -> sqlx::Result<SqliteConnection> {
    let mut connection = file.connect().await?;
    let pages = sqlx::query("select page_count from pragma_page_count");
    let pages: i64 = pages.fetch_one(&mut connection).await?.try_get(0)?;
    if pages == 0 {
        // It may fail when several open the new file at once; one of them succeeds.
        let log = sqlx::raw_sql("pragma journal_mode = wal");
        let _ = log.execute(&mut connection).await;
    }
    Ok(connection)
}

/// What kind of failure an error is.
pub(super) fn kind(error: &sqlx::Error) -> Kind {
    let code = match error {
        sqlx::Error::Database(error) => error.code().and_then(|code| code.parse::<i32>().ok()),
        sqlx::Error::Configuration(_) => return Kind::BadConfig,
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => return Kind::Unreachable,
        _ => return Kind::Other,
    };
    // The low byte is the kind, the rest says more.
    match code.unwrap_or_default() & 0xff {
        5 | 6 => Kind::LockTimeout,
        8 => Kind::ReadOnly,
        10 | 14 => Kind::Unreachable,
        3 | 23 => Kind::Forbidden,
        17 => Kind::Again,
        26 => Kind::BadConfig,
        _ => Kind::Other,
    }
}

/// The file, with symbolic links resolved.
pub(super) async fn identity(
    connection: &mut SqliteConnection,
    table: &str,
) -> sqlx::Result<String> {
    let file = "select file from pragma_database_list where name = 'main'";
    let file: String = sqlx::query(file).fetch_one(connection).await?.try_get(0)?;
    Ok(format!("sqlite:{file}:{table}"))
}

/// What the table looks like.
pub(super) async fn shape(
    connection: &mut SqliteConnection,
    table: &str,
) -> sqlx::Result<Option<Shape>> {
    let columns = "select name, lower(type), \"notnull\" and dflt_value is null and pk = 0 from pragma_table_info(?1)";
    let key = "select count(*) from pragma_index_list(?1) as i where i.\"unique\" and not i.partial and \
         (select group_concat(name) from pragma_index_info(i.name)) = 'name'";
    let ask = |sql: &'static str| sqlx::query(sql).bind(table.to_owned());
    let mut shape = Shape::default();
    for column in ask(columns).fetch_all(&mut *connection).await? {
        shape.columns.push(Column {
            name: column.try_get(0)?,
            kind: column.try_get(1)?,
            needed: column.try_get::<i64, _>(2)? != 0,
        });
    }
    if shape.columns.is_empty() {
        return Ok(None);
    }
    let keys: i64 = ask(key).fetch_one(connection).await?.try_get(0)?;
    shape.one_row_a_name = keys > 0;
    Ok(Some(shape))
}

/// Which types can hold which column: SQLite turns what it stores into what the type's name says.
pub(super) fn fits(column: &str, kind: &str) -> Result<(), &'static str> {
    let (fits, expected) = match column {
        "name" | "locker_host" | "locker_id" => {
            (kind.contains("char") || kind.contains("text"), "varchar")
        }
        "locked" => (kind.contains("bool") || kind.contains("int"), "boolean"),
        "locked_seconds" => {
            let real = ["doub", "real", "floa"];
            (real.iter().any(|real| kind.contains(real)), "double")
        }
        _ => (kind.contains("int"), "bigint"),
    };
    if fits { Ok(()) } else { Err(expected) }
}
