//! What SQLite says of itself and of its errors.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row as _, SqliteConnection};

use super::super::sql::{Column, Kind, Shape, fault};
use crate::leases::StoreError;

/// The kind of error for a file that cannot be opened, for whatever reason.
const CANNOT_OPEN: i32 = 14;
/// The file was opened to be read alone, since it may not be written, or the folder may not. Other reasons for which it is only
/// read pass: it was moved, or somebody has to repair it first.
const READS_ONLY: [i32; 2] = [8, 8 | 6 << 8];

/// Opens the file.
pub(super) async fn open(
    file: &SqliteConnectOptions,
    ours: bool,
    patience: Duration,
) -> Result<SqliteConnection, StoreError> {
    match tokio::time::timeout(patience, connect(file, ours)).await {
        Ok(Err(error)) if code(&error) & 0xff == CANNOT_OPEN => {
            Err(why_not(file.get_filename()).unwrap_or_else(|| fault(kind(&error), error)))
        }
        Ok(opened) => opened.map_err(|error| fault(kind(&error), error)),
        Err(late) => Err(StoreError::Unreachable(Box::new(late))),
    }
}

/// SQLite says that it cannot open a file, and not why. What passes by itself is left over: no descriptor is free, say. The
/// file is not opened here: closing it again would end SQLite's locks on it.
fn why_not(path: &Path) -> Option<StoreError> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            return Some(StoreError::BadConfig(format!("{shown} is a folder")));
        }
        Ok(_) => return denied(path, false),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Some(StoreError::Denied(Box::new(error)));
        }
        Err(_) => {}
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        let missing = format!("the folder of {shown} is not there");
        return Some(StoreError::BadConfig(missing));
    }
    denied(folder, true)
}

#[cfg(unix)]
fn denied(path: &Path, is_folder: bool) -> Option<StoreError> {
    use rustix::fs::Access;
    use rustix::io::Errno;
    let wanted = match is_folder {
        true => Access::WRITE_OK | Access::EXEC_OK,
        false => Access::READ_OK | Access::WRITE_OK,
    };
    let refused = rustix::fs::access(path, wanted).err()?;
    let for_good = [Errno::ACCESS, Errno::PERM, Errno::ROFS].contains(&refused);
    for_good.then(|| StoreError::Denied(Box::new(std::io::Error::from(refused))))
}

#[cfg(not(unix))]
fn denied(_: &Path, _: bool) -> Option<StoreError> {
    None
}

/// A file that is new and nobody else's gets a write-ahead log: readers do not wait then, and a commit is flushed once. One that
/// is somebody's is left as it is: a pool that says another journal could set it back only while nobody has the file open.
async fn connect(file: &SqliteConnectOptions, ours: bool) -> sqlx::Result<SqliteConnection> {
    let mut connection = file.connect().await?;
    if !ours {
        return Ok(connection);
    }
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
    match error {
        sqlx::Error::Database(_) => {}
        sqlx::Error::Configuration(_) => return Kind::BadConfig,
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => return Kind::Unreachable,
        _ => return Kind::Other,
    }
    // The low byte is the kind, the rest says more.
    match code(error) & 0xff {
        5 | 6 => Kind::LockTimeout,
        _ if READS_ONLY.contains(&code(error)) => Kind::Forbidden,
        8 => Kind::ReadOnly,
        10 | CANNOT_OPEN => Kind::Unreachable,
        3 | 23 => Kind::Forbidden,
        17 => Kind::Again,
        // Damaged, or none of SQLite's.
        11 | 26 => Kind::BadConfig,
        _ => Kind::Other,
    }
}

fn code(error: &sqlx::Error) -> i32 {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.and_then(|code| code.parse().ok()).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(path: &Path) -> StoreError {
        let file = SqliteConnectOptions::new().filename(path);
        let opened = open(&file.create_if_missing(true), true, Duration::from_secs(5)).await;
        opened.err().unwrap()
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_is_not_tried_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("nowhere/leases.db");
        let foreign = folder.path().join("foreign.db");
        std::fs::write(&foreign, [b'x'; 4096]).unwrap();
        for path in [folder.path(), &nowhere, &foreign] {
            let error = refusal(path).await;
            assert!(matches!(error, StoreError::BadConfig(_)), "{error:?}");
            assert!(!error.is_retryable());
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_may_not_be_opened_is_denied() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("leases.db");
        std::fs::write(&path, b"").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
        if std::fs::File::open(&path).is_ok() {
            // To root nothing is forbidden: then it is the file that decides, and it can be opened.
            assert!(why_not(&path).is_none());
            return;
        }
        assert!(matches!(refusal(&path).await, StoreError::Denied(_)));
    }
}
