//! The two statements that take a lease and give it back, without anything around them.

use std::time::{Duration, Instant};

use sqlx::{Connection, MySqlConnection, PgConnection, Row, SqliteConnection};

use crate::ground::Kind;
use crate::work::Failure;

/// One connection with a table of its own, made as the store makes its own.
pub enum Bare {
    Postgres(PgConnection),
    Mariadb(MySqlConnection),
    Sqlite(SqliteConnection),
}

/// What a claim and a release say and answer at the least: who it is for, and which token it has.
const TAKE: &str = "locked = TRUE_, locked_count = TOKEN, locker_host = 'here', locker_pid = 1, \
     locker_id = ID, locked_at = NOW, refresh_at = NOW, expires_at = LATER, updated_at = NOW \
     where name = NAME and (not locked or expires_at < NOW)";
const FREE: &str = "locked = FALSE_, released_at = NOW, updated_at = NOW, locked_seconds = locked_seconds + 1 \
     where name = NAME and locked and locker_id = ID";
const NAME: &str = "bare";
const ID: &str = "somebody on a machine, 12345, 0123456789abcdef";

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
        let (take, free) = (self.statement(TAKE, true), self.statement(FREE, false));
        let begun = Instant::now();
        let (mut pairs, mut last) = (0_u64, 0);
        while begun.elapsed() < round {
            let token = self.take(take.clone()).await?;
            if token <= last {
                return Err("the token of a bare statement did not grow".into());
            }
            last = token;
            if self.free(free.clone()).await? != 1 {
                return Err("a bare statement changed nothing".into());
            }
            pairs += 1;
        }
        Ok(pairs as f64 / begun.elapsed().as_secs_f64())
    }

    fn statement(&self, changes: &str, takes: bool) -> String {
        let (now, later, token, id, name, end) = match self {
            Self::Postgres(_) => (
                "clock_timestamp()",
                "clock_timestamp() + interval '300 s'",
                "locked_count + 1",
                "$1",
                "$2",
                " returning locked_count",
            ),
            Self::Mariadb(_) => (
                "sysdate(6)",
                "sysdate(6) + interval 300 second",
                "last_insert_id(locked_count + 1)",
                "?",
                "?",
                "",
            ),
            Self::Sqlite(_) => (
                "strftime('%Y-%m-%d %H:%M:%f', 'now')",
                "strftime('%Y-%m-%d %H:%M:%f', 'now', '+300 seconds')",
                "locked_count + 1",
                "?1",
                "?2",
                " returning locked_count",
            ),
        };
        let changes = changes
            .replace("NOW", now)
            .replace("LATER", later)
            .replace("TOKEN", token)
            .replace("NAME", name)
            .replace("= ID", &format!("= {id}"))
            .replace("TRUE_", "true")
            .replace("FALSE_", "false");
        format!("update bare set {changes}{}", if takes { end } else { "" })
    }

    /// Answers the token.
    async fn take(&mut self, statement: String) -> Result<i64, Failure> {
        let query = sqlx::AssertSqlSafe(statement);
        Ok(match self {
            Self::Postgres(c) => {
                let row = sqlx::query(query).bind(ID).bind(NAME).fetch_one(c).await?;
                row.try_get(0)?
            }
            Self::Mariadb(c) => {
                let done = sqlx::query(query).bind(ID).bind(NAME).execute(c).await?;
                i64::try_from(done.last_insert_id())?
            }
            // To the end, where the commit may fail.
            Self::Sqlite(c) => {
                let rows = sqlx::query(query).bind(ID).bind(NAME).fetch_all(c).await?;
                rows.first().ok_or("not taken")?.try_get(0)?
            }
        })
    }

    /// Answers how many rows it freed. Where a place has no number, they come in the order of the text.
    async fn free(&mut self, statement: String) -> Result<u64, Failure> {
        let query = sqlx::AssertSqlSafe(statement);
        Ok(match self {
            Self::Postgres(c) => {
                let free = sqlx::query(query).bind(ID).bind(NAME);
                free.execute(c).await?.rows_affected()
            }
            Self::Mariadb(c) => {
                let free = sqlx::query(query).bind(NAME).bind(ID);
                free.execute(c).await?.rows_affected()
            }
            Self::Sqlite(c) => {
                let free = sqlx::query(query).bind(ID).bind(NAME);
                free.execute(c).await?.rows_affected()
            }
        })
    }

    /// Prepared once for each connection.
    async fn run(&mut self, statement: String) -> Result<(), Failure> {
        let query = sqlx::AssertSqlSafe(statement);
        let ran = match self {
            Self::Postgres(c) => sqlx::query(query).execute(c).await.map(|_| ()),
            Self::Mariadb(c) => sqlx::query(query).execute(c).await.map(|_| ()),
            Self::Sqlite(c) => sqlx::query(query).execute(c).await.map(|_| ()),
        };
        Ok(ran?)
    }
}
