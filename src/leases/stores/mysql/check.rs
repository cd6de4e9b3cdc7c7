//! The check inside a transaction of MySQL or MariaDB.

use sqlx::{AssertSqlSafe, MySqlConnection, Row as _};

use super::super::sql::{CheckLease, Checking, quoted};
use super::statements::QUOTE;
use crate::leases::{Fence, LeaseName, TableName};

impl CheckLease for MySqlConnection {
    fn check_lease<'a>(
        &'a mut self,
        table: &'a TableName,
        name: &'a LeaseName,
        holder_id: &'a str,
        token: Fence,
    ) -> Checking<'a> {
        // The row as it is now, whatever the transaction has seen before, and locked against changes. The session's time zone
        // does not matter: both times are in it.
        let sql = format!(
            "select cast(locked and cast(convert(locker_id using utf8mb4) as binary) = cast(? as binary) \
             and locked_count = ? and expires_at > sysdate(6) as signed) from {} \
             where name = ? and cast(convert(name using utf8mb4) as binary) = cast(? as binary) lock in share mode",
            quoted(table, QUOTE)
        );
        Box::pin(async move {
            let check = sqlx::query(AssertSqlSafe(sql))
                .bind(holder_id)
                .bind(token.0)
                .bind(name.as_str())
                .bind(name.as_str());
            let Some(row) = check.fetch_optional(self).await? else {
                return Ok(false);
            };
            Ok(row.try_get::<Option<i64>, _>(0)? == Some(1))
        })
    }
}
