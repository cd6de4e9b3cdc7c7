//! The two statements that take a lease and give it back, without anything around them.

use std::time::{Duration, Instant};

use sqlx::{Connection, MySqlConnection, PgConnection, SqliteConnection};

use crate::ground::Kind;
use crate::work::Failure;

/// One connection with a table of its own, made as the store makes its own.
pub enum Bare {
    Postgres(PgConnection),
    Mariadb(MySqlConnection),
    Sqlite(SqliteConnection),
}

const TAKE: &str = "locked = NOT_FALSE, locked_count = locked_count + 1, locker_host = 'here', locker_pid = 1, \
     locker_id = 'me', locked_at = NOW, refresh_at = NOW, expires_at = LATER, updated_at = NOW \
     where name = 'bare' and (not locked or expires_at < NOW)";
const FREE: &str = "locked = FALSE_, released_at = NOW, updated_at = NOW, locked_seconds = locked_seconds + 1 \
     where name = 'bare' and locked and locker_id = 'me'";

impl Bare {
    pub async fn connect(kind: Kind, url: &str) -> Result<Self, Failure> {
        let (text, number, time) = match kind {
            Kind::Postgres => ("varchar(256)", "bigint", "timestamptz"),
            Kind::Mariadb => ("varchar(256)", "bigint", "timestamp(6) null"),
            _ => ("text", "integer", "text"),
        };
        let drop = "drop table if exists bare".to_owned();
        let make = format!(
            "create table bare (name {text} primary key, locked boolean not null default false, \
             locked_count {number} not null default 0, locked_seconds double precision not null default 0, \
             locker_host {text}, locker_pid {number}, locker_id {text}, locked_at {time}, refresh_at {time}, \
             expires_at {time}, released_at {time}, updated_at {time})"
        );
        let fill = "insert into bare (name) values ('bare')".to_owned();
        let mut bare = match kind {
            Kind::Postgres => Self::Postgres(PgConnection::connect(url).await?),
            Kind::Mariadb => Self::Mariadb(MySqlConnection::connect(url).await?),
            // With SQLite's own settings, as the store has it.
            Kind::Sqlite => Self::Sqlite(SqliteConnection::connect(url).await?),
            Kind::Etcd | Kind::Lmdb => return Err("no SQL".into()),
        };
        for statement in [drop, make, fill] {
            bare.run(statement).await?;
        }
        Ok(bare)
    }

    /// Pairs in a second.
    pub async fn pairs(&mut self, round: Duration) -> Result<f64, Failure> {
        let take = self.statement(TAKE);
        let free = self.statement(FREE);
        let begun = Instant::now();
        let mut pairs = 0_u64;
        while begun.elapsed() < round {
            for statement in [&take, &free] {
                if self.run(statement.clone()).await? != 1 {
                    return Err("a bare statement changed nothing".into());
                }
            }
            pairs += 1;
        }
        Ok(pairs as f64 / begun.elapsed().as_secs_f64())
    }

    fn statement(&self, changes: &str) -> String {
        let (now, later) = match self {
            Self::Postgres(_) => ("clock_timestamp()", "clock_timestamp() + interval '300 s'"),
            Self::Mariadb(_) => ("sysdate(6)", "sysdate(6) + interval 300 second"),
            Self::Sqlite(_) => (
                "strftime('%Y-%m-%d %H:%M:%f', 'now')",
                "strftime('%Y-%m-%d %H:%M:%f', 'now', '+300 seconds')",
            ),
        };
        let changes = changes.replace("NOW", now).replace("LATER", later);
        let changes = changes
            .replace("NOT_FALSE", "true")
            .replace("FALSE_", "false");
        format!("update bare set {changes}")
    }

    /// Prepared once for each connection.
    async fn run(&mut self, statement: String) -> Result<u64, Failure> {
        let query = sqlx::AssertSqlSafe(statement);
        Ok(match self {
            Self::Postgres(c) => sqlx::query(query).execute(c).await?.rows_affected(),
            Self::Mariadb(c) => sqlx::query(query).execute(c).await?.rows_affected(),
            Self::Sqlite(c) => sqlx::query(query).execute(c).await?.rows_affected(),
        })
    }
}
