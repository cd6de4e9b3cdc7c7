//! Refreshing many leases at once in MySQL and MariaDB.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection, MySqlConnection};

use super::super::sql::{Kind, Row, micros};
use super::statements::Statements;
use super::{read, server};
use crate::leases::{Refresh, Refreshed};

/// On servers that can neither skip locked rows nor refuse to wait for them: how many are waited for in one pass.
const WAITS: usize = 2;
/// Less than such a server waits.
const A_WAIT: Duration = Duration::from_millis(500);
/// What such a server answers to the words that it does not know.
pub(super) const SYNTAX_ERROR: u16 = 1064;

/// Extends what can be: the rows are locked in the order of the key, those that somebody has locked left out, then looked at,
/// then written.
pub(super) async fn extend(
    statements: &Statements,
    cannot_skip: &AtomicBool,
    connection: &mut MySqlConnection,
    leases: &[Refresh],
) -> sqlx::Result<Vec<Refreshed>> {
    if leases.is_empty() {
        return Ok(Vec::new());
    }
    if cannot_skip.load(Ordering::Relaxed) {
        return one_by_one(statements, connection, leases).await;
    }
    let mut transaction = connection.begin().await?;
    let all = || leases.iter().map(|lease| lease.name.as_str());
    let found = match rows(
        statements,
        &mut transaction,
        all(),
        "for update skip locked",
    )
    .await
    {
        Ok(found) => found,
        Err(error) if server::number(&error) == Some(SYNTAX_ERROR) => {
            transaction.rollback().await?;
            cannot_skip.store(true, Ordering::Relaxed);
            return one_by_one(statements, connection, leases).await;
        }
        Err(error) => return Err(error),
    };
    let mut groups: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for lease in leases {
        let row = found.get(lease.name.as_str());
        if row.is_some_and(|row| is_held(row, lease)) {
            let group = groups.entry(micros(lease.expiration)).or_default();
            group.push(lease.name.as_str());
        }
    }
    for (expiration, names) in groups {
        let padded = padded(names.into_iter());
        let sql = statements.extend(padded.len());
        let mut extend = sqlx::query(AssertSqlSafe(sql)).bind(expiration);
        for name in padded {
            extend = extend.bind(name);
        }
        // The rows are there, and locked: what keeps them from being written is that the server has come to read only since.
        if extend.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Err(server::reads_only());
        }
    }
    let mut others = HashMap::new();
    let missing = || all().filter(|name| !found.contains_key(*name));
    if missing().next().is_some() {
        others = rows(statements, &mut transaction, missing(), "").await?;
        // A row that is nowhere says nothing of the server.
        if missing().any(|name| !others.contains_key(name)) {
            server::must_write(&mut transaction).await?;
        }
    }
    transaction.commit().await?;
    let outcome = |lease: &Refresh| {
        let name = lease.name.as_str();
        match (found.get(name), others.get(name)) {
            (Some(row), _) if is_held(row, lease) => Refreshed::Held,
            (None, Some(row)) if is_held(row, lease) => Refreshed::Skipped,
            (row, other) => Refreshed::Lost(row.or(other).cloned().and_then(Row::record)),
        }
    };
    Ok(leases.iter().map(outcome).collect())
}

fn is_held(row: &Row, lease: &Refresh) -> bool {
    let token = u64::try_from(row.count).ok();
    row.locked && row.left > 0 && row.is_of(&lease.holder.id) && token == Some(lease.token.0)
}

/// The rows of these names, by their exact names.
async fn rows<'a>(
    statements: &Statements,
    connection: &mut MySqlConnection,
    names: impl Iterator<Item = &'a str>,
    end: &str,
) -> sqlx::Result<HashMap<String, Row>> {
    let padded = padded(names);
    let mut rows = sqlx::query(AssertSqlSafe(statements.several(padded.len(), end)));
    for name in padded {
        rows = rows.bind(name);
    }
    let rows = rows.fetch_all(connection).await?;
    let named = |row| read(row).map(|row| (row.name.clone(), row));
    rows.iter().map(named).collect()
}

/// With the last name repeated up to a power of two, so that there are few different statements to prepare.
fn padded<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut names: Vec<&str> = names.collect();
    if let Some(last) = names.last().copied() {
        names.resize(names.len().next_power_of_two(), last);
    }
    names
}

/// For servers that cannot skip rows: each by itself, with the shortest wait that they have. For MariaDB that is none; MySQL
/// makes a second of it.
async fn one_by_one(
    statements: &Statements,
    connection: &mut MySqlConnection,
    leases: &[Refresh],
) -> sqlx::Result<Vec<Refreshed>> {
    let wait = |seconds: u32| format!("set session innodb_lock_wait_timeout = {seconds}");
    let set = sqlx::raw_sql(AssertSqlSafe(wait(0)));
    set.execute(&mut *connection).await?;
    let mut waits = 0;
    let mut outcomes = Vec::with_capacity(leases.len());
    for lease in leases {
        if waits == WAITS {
            outcomes.push(Refreshed::Skipped);
            continue;
        }
        let name = lease.name.as_str();
        let extend = sqlx::query(AssertSqlSafe(statements.extend_one()))
            .bind(micros(lease.expiration))
            .bind(name)
            .bind(name)
            .bind(&*lease.holder.id)
            .bind(lease.token.0);
        let began = Instant::now();
        let is_locked = match extend.execute(&mut *connection).await {
            Ok(done) if done.rows_affected() > 0 => {
                outcomes.push(Refreshed::Held);
                continue;
            }
            Ok(_) => false,
            Err(error) if server::kind(&error) == Kind::LockTimeout => true,
            Err(error) => return Err(error),
        };
        waits += usize::from(is_locked && began.elapsed() > A_WAIT);
        let mut found = rows(statements, connection, std::iter::once(name), "").await?;
        if found.is_empty() {
            server::must_write(connection).await?;
        }
        outcomes.push(match found.remove(name) {
            Some(row) if is_locked && is_held(&row, lease) => Refreshed::Skipped,
            row => Refreshed::Lost(row.and_then(Row::record)),
        });
    }
    let reset = sqlx::raw_sql(AssertSqlSafe(wait(server::LOCK_TIMEOUT)));
    reset.execute(connection).await?;
    Ok(outcomes)
}
