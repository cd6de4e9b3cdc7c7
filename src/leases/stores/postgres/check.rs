//! The check inside a transaction of PostgreSQL.

use sqlx::{AssertSqlSafe, PgConnection};

use super::super::sql::{CheckLease, Checking, quoted};
use super::statements::QUOTE;
use crate::leases::{Fence, LeaseName, TableName};

impl CheckLease for PgConnection {
    fn check_lease<'a>(
        &'a mut self,
        table: &'a TableName,
        name: &'a LeaseName,
        holder_id: &'a str,
        token: Fence,
    ) -> Checking<'a> {
        // The lock comes before the time: the condition is looked at once more when it had to wait for a change, and the
        // outer one when it had to wait at all.
        let sql = format!(
            "with mine as materialized (select expires_at from {} where name = $1 and locked and locker_id = $2 and \
             locked_count = $3 for share) select 1 from mine where expires_at > clock_timestamp()",
            quoted(table, QUOTE)
        );
        Box::pin(async move {
            let token = i64::try_from(token.0).unwrap_or(i64::MAX);
            let check = sqlx::query(AssertSqlSafe(sql))
                .bind(name.as_str())
                .bind(holder_id)
                .bind(token);
            Ok(check.fetch_optional(self).await?.is_some())
        })
    }
}
