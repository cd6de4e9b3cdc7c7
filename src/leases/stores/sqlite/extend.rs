//! Refreshing many leases at once in SQLite.

use std::collections::HashMap;

use sqlx::{Connection, Row as _, SqliteConnection};

use super::super::sql::{Kind, Row, micros};
use super::statements::Statements;
use super::{query, read, server};
use crate::leases::{Fence, Refresh, Refreshed};

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
        serde_json::json!([
            lease.name.as_str(),
            &*lease.holder.id,
            number(lease.token),
            micros(lease.expiration)
        ])
    };
    let json = |leases: &mut dyn Iterator<Item = &Refresh>| {
        serde_json::Value::Array(leases.map(wanted).collect()).to_string()
    };
    let mut transaction = connection.begin_with("begin immediate").await?;
    let extend = query(&statements.extend).bind(json(&mut leases.iter()));
    let extended = extend.fetch_all(&mut *transaction).await?;
    let whose = |row: &sqlx::sqlite::SqliteRow| -> sqlx::Result<(String, (String, i64))> {
        Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))
    };
    let held: HashMap<_, _> = extended.iter().map(whose).collect::<sqlx::Result<_>>()?;
    let is_held = |lease: &&Refresh| {
        let holder = held.get(lease.name.as_str());
        holder.is_some_and(|(id, token)| **id == *lease.holder.id && *token == number(lease.token))
    };
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
    let outcome = |lease: &Refresh| match is_held(&lease) {
        true => Refreshed::Held,
        false => {
            let row = others.get(lease.name.as_str()).cloned();
            Refreshed::Lost(row.and_then(Row::record))
        }
    };
    Ok(leases.iter().map(outcome).collect())
}

fn number(token: Fence) -> i64 {
    i64::try_from(token.0).unwrap_or(i64::MAX)
}
