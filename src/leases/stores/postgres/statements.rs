//! The statements for PostgreSQL.

use std::sync::Arc;

use super::super::sql::quoted;
use crate::leases::TableName;

/// How long a statement waits for the lock of a row, in milliseconds. It is said in the statement, for the statement alone,
/// since behind a pooler a session is shared with strangers.
const LOCK_TIMEOUT: &str = "2000";

/// Stands before and behind a name.
pub(super) const QUOTE: char = '"';

/// What they are made of once, so that the server prepares each once for a connection.
pub(super) struct Statements {
    /// The table, quoted.
    pub(super) table: String,
    pub(super) ddl: Arc<str>,
    pub(super) take: Arc<str>,
    pub(super) hand: Arc<str>,
    pub(super) add: Arc<str>,
    pub(super) row: Arc<str>,
    pub(super) rows: Arc<str>,
    pub(super) extend: Arc<str>,
    pub(super) free: Arc<str>,
    pub(super) force: Arc<str>,
}

/// A row as it is read; `left_micros` by the clock of the moment, not of the transaction.
const COLUMNS: &str = "t.name, t.locked, t.locked_count, t.locker_host, t.locker_pid, t.locker_id, \
     (extract(epoch from t.expires_at - clock_timestamp()) * 1000000)::bigint as left_micros";

/// The channel on which releases are told: one for each table, named by its number in the database.
pub(super) const CHANNEL: &str = "lockkeeper_";

impl Statements {
    pub(super) fn new(name: &TableName) -> Self {
        let table = quoted(name, QUOTE);
        let notify = format!("pg_notify('{CHANNEL}' || freed.tableoid::text, freed.name)");
        let seconds = "greatest(0, date_part('epoch', clock_timestamp() - t.locked_at))";
        // In the condition, where it costs a third of what a join with it does. It is reckoned before the row is locked.
        let patience = format!("set_config('lock_timeout', '{LOCK_TIMEOUT}', true) is not null");
        Self {
            ddl: ddl(&table).into(),
            // Whoever has the row locked, but does not change it, lets the statement go on with a time read before the wait.
            take: format!(
                "update {table} as t set locked = true, \
                 locked_count = t.locked_count + case when t.locked and t.locker_id = $4 then 0 else 1 end, \
                 locker_host = $2, locker_pid = $3, locker_id = $4, locked_at = clock_timestamp(), \
                 refresh_at = clock_timestamp(), \
                 expires_at = clock_timestamp() + $5::bigint * interval '1 microsecond', \
                 updated_at = clock_timestamp() \
                 where t.name = $1 and {patience} and (not t.locked or t.locker_id = $4 \
                 or t.expires_at < clock_timestamp() - $6::bigint * interval '1 microsecond') \
                 returning t.locked_count, \
                 clock_timestamp() - t.locked_at > interval '20 milliseconds'"
            )
            .into(),
            hand: format!(
                "update {table} as t set locked_seconds = t.locked_seconds + coalesce({seconds}, 0), \
                 locked_count = t.locked_count + 1, locker_host = $2, locker_pid = $3, locker_id = $4, \
                 released_at = clock_timestamp(), locked_at = clock_timestamp(), refresh_at = clock_timestamp(), \
                 expires_at = clock_timestamp() + $5::bigint * interval '1 microsecond', \
                 updated_at = clock_timestamp() \
                 where t.name = $1 and {patience} and t.locked and t.locker_id = $6 \
                 returning t.locked_count, \
                 clock_timestamp() - t.locked_at > interval '20 milliseconds'"
            )
            .into(),
            add: format!("insert into {table} (name) values ($1) on conflict (name) do nothing")
                .into(),
            row: format!("select {COLUMNS} from {table} as t where t.name = $1").into(),
            rows: format!("select {COLUMNS} from {table} as t order by t.name collate \"C\"").into(),
            extend: extend(&table).into(),
            free: format!(
                "update {table} as t set locked = false, \
                 released_at = clock_timestamp(), updated_at = clock_timestamp(), \
                 locked_seconds = t.locked_seconds + coalesce({seconds}, 0) \
                 where t.name = $1 and t.locked and t.locker_id = $2 \
                 returning pg_notify('{CHANNEL}' || t.tableoid::text, t.name)"
            )
            .into(),
            force: format!(
                "with old as materialized (select {COLUMNS} from {table} as t \
                 where t.name = $1 and t.locked for update), \
                 freed as (update {table} as t set locked = false, locker_id = null, \
                 locked_count = t.locked_count + 1, released_at = clock_timestamp(), \
                 updated_at = clock_timestamp(), \
                 locked_seconds = t.locked_seconds + coalesce({seconds}, 0) \
                 from old where t.name = old.name returning t.name, t.tableoid) \
                 select old.*, {notify} from old, freed"
            )
            .into(),
            table,
        }
    }
}

/// Which rows can be extended is decided under their locks, in the order of their names. Of the others the snapshot of the
/// statement tells whether they are lost, or only locked by somebody. Those that were extended are looked up in a set: a join
/// with them, of whose number the server knows nothing, would compare each with each.
fn extend(table: &str) -> String {
    let matches = "t.locked and t.locker_id = w.id and t.locked_count = w.token \
                   and t.expires_at > clock_timestamp()";
    format!(
        "with w as materialized (select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) \
         with ordinality as w (name, id, token, micros, place)), \
         mine as materialized (select t.name, w.micros from {table} as t join w on t.name = w.name \
         where {matches} order by t.name for update of t skip locked), \
         extended as (update {table} as t set refresh_at = clock_timestamp(), \
         expires_at = clock_timestamp() + mine.micros * interval '1 microsecond', \
         updated_at = clock_timestamp() from mine where t.name = mine.name \
         returning t.name, t.locker_id, t.locked_count) \
         select (w.name, w.id, w.token) in (select * from extended) as held, \
         coalesce({matches}, false) as matches, {COLUMNS} \
         from w left join {table} as t on t.name = w.name order by w.place"
    )
}

fn ddl(table: &str) -> String {
    format!(
        "create table if not exists {table} (\n  \
         name varchar(256) primary key,\n  \
         locked boolean not null default false,\n  \
         locked_count bigint not null default 0,\n  \
         locked_seconds double precision not null default 0,\n  \
         locker_host varchar(256),\n  \
         locker_pid bigint,\n  \
         locker_id varchar(256),\n  \
         locked_at timestamptz,\n  \
         refresh_at timestamptz,\n  \
         expires_at timestamptz not null default now(),\n  \
         released_at timestamptz,\n  \
         created_at timestamptz not null default now(),\n  \
         updated_at timestamptz not null default now()\n)"
    )
}
