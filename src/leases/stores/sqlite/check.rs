//! The check inside a transaction of SQLite.

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::super::sql::{CheckLease, Checking, quoted};
use super::statements::{NOW, QUOTE};
use crate::leases::{Fence, LeaseName, TableName};

impl CheckLease for SqliteConnection {
    fn check_lease<'a>(
        &'a mut self,
        table: &'a TableName,
        name: &'a LeaseName,
        holder_id: &'a str,
        token: Fence,
    ) -> Checking<'a> {
        let sql = format!(
            "select 1 from {} where name = ?1 collate binary and locked and locker_id = ?2 and locked_count = ?3 \
             and expires_at > {NOW}",
            quoted(table, QUOTE)
        );
        Box::pin(async move {
            let token = i64::try_from(token.0).unwrap_or(i64::MAX);
            let check = sqlx::query(AssertSqlSafe(sql))
                .bind(name.as_str().to_owned())
                .bind(holder_id.to_owned())
                .bind(token);
            Ok(check.fetch_optional(self).await?.is_some())
        })
    }
}
