//! The statements for SQLite.

use std::sync::Arc;

use super::super::sql::quoted;
use crate::leases::TableName;

/// Stands before and behind a name.
pub(super) const QUOTE: char = '"';

/// What they are made of once.
pub(super) struct Statements {
    /// The table itself, without quotes.
    pub(super) name: String,
    pub(super) ddl: Arc<str>,
    pub(super) take: Arc<str>,
    pub(super) hand: Arc<str>,
    pub(super) add: Arc<str>,
    pub(super) row: Arc<str>,
    pub(super) rows: Arc<str>,
    pub(super) extend: Arc<str>,
    pub(super) several: Arc<str>,
    pub(super) want: Arc<str>,
    pub(super) free_unwanted: Arc<str>,
    pub(super) free: Arc<str>,
    pub(super) force: Arc<str>,
}

/// The time in microseconds since 1970, though it moves in milliseconds. It stands still within one step of a statement, and
/// is read only when the lock of the file was got.
pub(super) const NOW: &str = "(cast(round(unixepoch('subsec') * 1000) as integer) * 1000)";

impl Statements {
    pub(super) fn new(name: &TableName) -> Self {
        let table = quoted(name, QUOTE);
        let columns = format!(
            "cast(name as text), cast(locked as integer), cast(locked_count as integer), \
             cast(locker_host as text), cast(locker_pid as integer), cast(locker_id as text), \
             cast(expires_at - {NOW} as integer), coalesce(updated_at < locked_at, 0)"
        );
        let freed = format!(
            "locked = 0, released_at = {NOW}, updated_at = {NOW}, \
             locked_seconds = locked_seconds + max(0, coalesce({NOW} - locked_at, 0)) / 1000000.0"
        );
        let this = "name = ?1 collate binary";
        let wanted = "json_each(?1) as wanted";
        Self {
            name: name.parts().1.to_owned(),
            ddl: ddl(&table).into(),
            take: format!(
                "update {table} set locked = 1, \
                 locked_count = locked_count + case when locked and locker_id = ?4 then 0 else 1 end, \
                 locker_host = ?2, locker_pid = ?3, locker_id = ?4, locked_at = {NOW}, \
                 refresh_at = {NOW}, expires_at = {NOW} + ?5, updated_at = {NOW} \
                 where {this} and (not locked or locker_id = ?4 or expires_at < {NOW} - ?6) \
                 returning locked_count"
            )
            .into(),
            hand: format!(
                "update {table} set locked_count = locked_count + 1, locker_host = ?2, locker_pid = ?3, \
                 locker_id = ?4, released_at = {NOW}, locked_at = {NOW}, refresh_at = {NOW}, \
                 expires_at = {NOW} + ?5, updated_at = {NOW}, \
                 locked_seconds = locked_seconds + max(0, coalesce({NOW} - locked_at, 0)) / 1000000.0 \
                 where {this} and locked and locker_id = ?6 returning locked_count"
            )
            .into(),
            add: format!("insert into {table} (name) values (?1) on conflict (name) do nothing")
                .into(),
            row: format!("select {columns} from {table} where {this}").into(),
            rows: format!("select {columns} from {table} order by name collate binary").into(),
            extend: format!(
                "update {table} as t set refresh_at = {NOW}, expires_at = {NOW} + wanted.micros, \
                 updated_at = case when updated_at < locked_at then updated_at else {NOW} end \
                 from (select value ->> 0 as name, value ->> 1 as id, \
                 value ->> 2 as token, value ->> 3 as micros from {wanted}) as wanted \
                 where t.name = wanted.name and t.locked and t.locker_id = wanted.id \
                 and t.locked_count = wanted.token and t.expires_at > {NOW} \
                 returning name, locker_id, locked_count"
            )
            .into(),
            several: format!(
                "select {columns} from {table} \
                 where name in (select value ->> 0 from {wanted})"
            )
            .into(),
            // Whoever wants it sets the time of the last change before that of the claim, where it never is otherwise.
            want: format!(
                "update {table} set updated_at = locked_at - 1 \
                 where {this} and locked and updated_at >= locked_at"
            )
            .into(),
            free_unwanted: format!(
                "update {table} set {freed} \
                 where {this} and locked and locker_id = ?2 and updated_at >= locked_at"
            )
            .into(),
            free: format!(
                "update {table} set {freed} where {this} and locked and locker_id = ?2"
            )
            .into(),
            force: format!(
                "update {table} set {freed}, locker_id = null, locked_count = locked_count + 1 \
                 where {this} and locked"
            )
            .into(),
        }
    }
}

/// Times are microseconds since 1970.
fn ddl(table: &str) -> String {
    let now = NOW;
    format!(
        "create table if not exists {table} (\n  \
         name varchar(256) not null primary key,\n  \
         locked boolean not null default 0,\n  \
         locked_count bigint not null default 0,\n  \
         locked_seconds double not null default 0,\n  \
         locker_host varchar(256),\n  \
         locker_pid bigint,\n  \
         locker_id varchar(256),\n  \
         locked_at bigint,\n  \
         refresh_at bigint,\n  \
         expires_at bigint not null default {now},\n  \
         released_at bigint,\n  \
         created_at bigint not null default {now},\n  \
         updated_at bigint not null default {now}\n)"
    )
}
