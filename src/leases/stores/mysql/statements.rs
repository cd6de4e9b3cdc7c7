//! The statements for MySQL and MariaDB.

use std::sync::Arc;

use super::super::sql::quoted;
use crate::leases::TableName;

/// Stands before and behind a name.
pub(super) const QUOTE: char = '`';

/// What they are made of once, so that the server prepares each once for a connection.
pub(super) struct Statements {
    pub(super) table: String,
    pub(super) ddl: Arc<str>,
    pub(super) take: Arc<str>,
    pub(super) hand: Arc<str>,
    pub(super) add: Arc<str>,
    pub(super) row: Arc<str>,
    pub(super) row_for_update: Arc<str>,
    pub(super) rows: Arc<str>,
    pub(super) unnoted: Arc<str>,
    pub(super) want: Arc<str>,
    pub(super) free: Arc<str>,
    pub(super) force: Arc<str>,
}

/// Whether the server is one to write to. Some users may write to a replica: what counts is whether others may, and it may have
/// become one since the connection was made. It is in each statement that writes, since it cannot change while one does.
pub(super) const WRITES: &str = "cast(@@global.read_only as char) in ('0', 'OFF')";
/// A row as it is read. `sysdate` is the time of the moment, not of the statement.
const COLUMNS: &str = "convert(name using utf8mb4), cast(locked as signed), cast(locked_count as signed), \
     convert(locker_host using utf8mb4), cast(locker_pid as signed), convert(locker_id using utf8mb4), \
     cast(timestampdiff(microsecond, sysdate(6), expires_at) as signed), cast(ifnull(updated_at < locked_at, 0) as signed)";
/// The first part finds the row by the key, whose collation may take several names for one; the second compares bytes.
const THIS_NAME: &str =
    "name = ? and cast(convert(name using utf8mb4) as binary) = cast(? as binary)";
/// The order of the bytes, as the caller has it.
const BY_NAME: &str = "cast(convert(name using utf8mb4) as binary)";
const THIS_HOLDER: &str = "cast(convert(locker_id using utf8mb4) as binary) = cast(? as binary)";
const FREED: &str = "locked_seconds = locked_seconds + \
     greatest(0, ifnull(timestampdiff(microsecond, locked_at, sysdate(6)), 0)) / 1000000, \
     locked = false, released_at = sysdate(6)";
/// What the answer to a release has for its number if somebody was noted to want the lease.
pub(super) const NOTED: u64 = 2;

impl Statements {
    pub(super) fn new(name: &TableName) -> Self {
        let table = quoted(name, QUOTE);
        let row =
            format!("select {COLUMNS}, cast({WRITES} as signed) from {table} where {THIS_NAME}");
        Self {
            ddl: ddl(&table).into(),
            // Assignments are carried out from the left. `last_insert_id` brings the token with the statement's own answer.
            take: format!(
                "update {table} set \
                 locked_count = last_insert_id(locked_count + if(locked and ifnull({THIS_HOLDER}, false), 0, 1)), \
                 locked = true, locker_host = ?, locker_pid = ?, locker_id = ?, locked_at = sysdate(6), \
                 refresh_at = sysdate(6), expires_at = date_add(sysdate(6), interval ? microsecond), \
                 updated_at = greatest(locked_at, sysdate(6)) \
                 where {THIS_NAME} and {WRITES} and (not locked or {THIS_HOLDER} \
                 or expires_at < date_sub(sysdate(6), interval ? microsecond))"
            )
            .into(),
            hand: format!(
                "update {table} set {FREED}, locked_count = last_insert_id(locked_count + 1), locked = true, \
                 locker_host = ?, locker_pid = ?, locker_id = ?, locked_at = sysdate(6), refresh_at = sysdate(6), \
                 expires_at = date_add(sysdate(6), interval ? microsecond), \
                 updated_at = greatest(locked_at, sysdate(6)) \
                 where {THIS_NAME} and {WRITES} and locked and {THIS_HOLDER}"
            )
            .into(),
            add: format!("insert into {table} (name) select ? from dual where {WRITES}").into(),
            row_for_update: format!("{row} for update").into(),
            row: row.into(),
            rows: format!("select {COLUMNS}, cast({WRITES} as signed) from {table} order by {BY_NAME}").into(),
            // Whoever wants it sets the time of the last change before that of the claim, where it never is otherwise.
            unnoted: format!(
                "select 1 from {table} where {THIS_NAME} and {WRITES} and locked and updated_at >= locked_at \
                 for update skip locked"
            )
            .into(),
            want: format!(
                "update {table} set updated_at = date_sub(locked_at, interval 1 microsecond) where {THIS_NAME}"
            )
            .into(),
            free: format!(
                "update {table} set locked_count = locked_count + 0 * last_insert_id(if(updated_at < locked_at, {NOTED}, 1)), \
                 {FREED}, updated_at = sysdate(6) where {THIS_NAME} and {WRITES} and locked and {THIS_HOLDER}"
            )
            .into(),
            force: format!(
                "update {table} set {FREED}, updated_at = sysdate(6), locker_id = null, locked_count = locked_count + 1 \
                 where {THIS_NAME} and {WRITES} and locked"
            )
            .into(),
            table,
        }
    }

    /// The rows of so many names.
    pub(super) fn several(&self, names: usize, end: &str) -> String {
        let names = placeholders(names);
        let table = &self.table;
        format!(
            "select {COLUMNS}, cast({WRITES} as signed) from {table} where name in ({names}) order by name {end}"
        )
    }

    /// Extends the rows of so many names, whose locks are held.
    pub(super) fn extend(&self, names: usize) -> String {
        let (table, names) = (&self.table, placeholders(names));
        format!(
            "update {table} set refresh_at = sysdate(6), \
             expires_at = date_add(sysdate(6), interval ? microsecond), \
             updated_at = if(updated_at < locked_at, updated_at, sysdate(6)) \
             where name in ({names}) and {WRITES}"
        )
    }

    /// Extends one row without having its lock.
    pub(super) fn extend_one(&self) -> String {
        let table = &self.table;
        format!(
            "update {table} set refresh_at = sysdate(6), \
             expires_at = date_add(sysdate(6), interval ? microsecond), \
             updated_at = if(updated_at < locked_at, updated_at, sysdate(6)) \
             where {THIS_NAME} and {WRITES} and locked and {THIS_HOLDER} and locked_count = ? and expires_at > sysdate(6)"
        )
    }
}

fn placeholders(names: usize) -> String {
    vec!["?"; names].join(",")
}

/// The two kinds of server call the collation that compares bytes by different names; each reads only its own comment.
fn ddl(table: &str) -> String {
    format!(
        "create table if not exists {table} (\n  \
         name varchar(256) character set utf8mb4 /*M! collate utf8mb4_nopad_bin */ /*!80017 collate utf8mb4_0900_bin */ \
         not null primary key,\n  \
         locked boolean not null default false,\n  \
         locked_count bigint not null default 0,\n  \
         locked_seconds double not null default 0,\n  \
         locker_host varchar(256),\n  \
         locker_pid bigint,\n  \
         locker_id varchar(256),\n  \
         locked_at timestamp(6) null default null,\n  \
         refresh_at timestamp(6) null default null,\n  \
         expires_at timestamp(6) not null default current_timestamp(6),\n  \
         released_at timestamp(6) null default null,\n  \
         created_at timestamp(6) not null default current_timestamp(6),\n  \
         updated_at timestamp(6) not null default current_timestamp(6)\n\
         ) engine = InnoDB"
    )
}
