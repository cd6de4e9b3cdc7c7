//! Refreshing many leases at once in SQLite.

use std::collections::{HashMap, HashSet};

use sqlx::{Connection, Row as _, SqliteConnection};

use super::super::sql::{Kind, Row, micros};
use super::statements::Statements;
use super::{query, read, server};
use crate::leases::{Refresh, Refreshed};

/// Extends what is held, in one statement. There is one lock, that of the file: if another has it for long, all are skipped.
pub(super) async fn extend(
    statements: &Statements,
    connection: &mut SqliteConnection,
    leases: &[Refresh],
) -> sqlx::Result<Vec<Refreshed>> {
    match try_extend(statements, connection, leases).await {
        Err(error) if server::kind(&error) == Kind::LockTimeout => {
            Ok(leases.iter().map(|_| Refreshed::Skipped).collect())
        }
        outcomes => outcomes,
    }
}

async fn try_extend(
    statements: &Statements,
    connection: &mut SqliteConnection,
    leases: &[Refresh],
) -> sqlx::Result<Vec<Refreshed>> {
    let wanted = |lease: &Refresh| {
        let token = i64::try_from(lease.token.0).unwrap_or(i64::MAX);
        serde_json::json!([
            lease.name.as_str(),
            &*lease.holder.id,
            token,
            micros(lease.expiration)
        ])
    };
    let json = |leases: &mut dyn Iterator<Item = &Refresh>| {
        serde_json::Value::Array(leases.map(wanted).collect()).to_string()
    };
    let mut transaction = connection.begin_with("begin immediate").await?;
    let extend = query(&statements.extend).bind(json(&mut leases.iter()));
    let extended = extend.fetch_all(&mut *transaction).await?;
    let name = |row: &sqlx::sqlite::SqliteRow| row.try_get::<String, _>(0);
    let held: HashSet<String> = extended.iter().map(name).collect::<sqlx::Result<_>>()?;
    let is_held = |lease: &&Refresh| held.contains(lease.name.as_str());
    let mut others: HashMap<String, Row> = HashMap::new();
    if held.len() < leases.len() {
        let mut lost = leases.iter().filter(|lease| !is_held(lease));
        let rows = query(&statements.several).bind(json(&mut lost));
        for row in rows.fetch_all(&mut *transaction).await? {
            let row = read(&row)?;
            others.insert(row.name.clone(), row);
        }
    }
    transaction.commit().await?;
    let mut outcome = |lease: &Refresh| match is_held(&lease) {
        true => Refreshed::Held,
        false => Refreshed::Lost(others.remove(lease.name.as_str()).and_then(Row::record)),
    };
    Ok(leases.iter().map(&mut outcome).collect())
}
