//! The two statements that take a lease and give it back, with the same effect and nothing around them.

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

/// What changes in the row, what is answered (the token), and who is told of a release: as with a lease, without its checks.
struct Statements {
    take: &'static str,
    free: &'static str,
}

const POSTGRES: Statements = Statements {
    take: "update bare set locked = true, locked_count = locked_count + 1, locker_host = $1, locker_pid = $2, \
           locker_id = $3, locked_at = clock_timestamp(), refresh_at = clock_timestamp(), \
           expires_at = clock_timestamp() + interval '300 s', updated_at = clock_timestamp() \
           where name = $4 and (not locked or expires_at < clock_timestamp()) returning locked_count",
    free: "update bare set locked = false, released_at = clock_timestamp(), updated_at = clock_timestamp(), \
           locked_seconds = locked_seconds + date_part('epoch', clock_timestamp() - locked_at) \
           where name = $1 and locked and locker_id = $2 returning pg_notify('bare', name)",
};

const MARIADB: Statements = Statements {
    take: "update bare set locked = true, locked_count = last_insert_id(locked_count + 1), locker_host = ?, \
           locker_pid = ?, locker_id = ?, locked_at = sysdate(6), refresh_at = sysdate(6), \
           expires_at = sysdate(6) + interval 300 second, updated_at = sysdate(6) \
           where name = ? and (not locked or expires_at < sysdate(6))",
    free: "update bare set locked = false, released_at = sysdate(6), updated_at = sysdate(6), \
           locked_seconds = locked_seconds + timestampdiff(microsecond, locked_at, sysdate(6)) / 1000000 \
           where name = ? and locked and locker_id = ?",
};

const SQLITE: Statements = Statements {
    take: "update bare set locked = true, locked_count = locked_count + 1, locker_host = ?1, locker_pid = ?2, \
           locker_id = ?3, locked_at = unixepoch('subsec'), refresh_at = unixepoch('subsec'), \
           expires_at = unixepoch('subsec') + 300, updated_at = unixepoch('subsec') \
           where name = ?4 and (not locked or expires_at < unixepoch('subsec')) returning locked_count",
    free: "update bare set locked = false, released_at = unixepoch('subsec'), updated_at = unixepoch('subsec'), \
           locked_seconds = locked_seconds + unixepoch('subsec') - locked_at \
           where name = ?1 and locked and locker_id = ?2",
};

const HOST: &str = "a machine";
const NAME: &str = "bare";
const ID: &str = "somebody on a machine, 12345, 0123456789abcdef";

impl Bare {
    pub async fn connect(kind: Kind, url: &str) -> Result<Self, Failure> {
        let (text, number, time) = match kind {
            Kind::Postgres => ("varchar(256)", "bigint", "timestamptz"),
            Kind::Mariadb => ("varchar(256)", "bigint", "timestamp(6) null"),
            _ => ("text", "integer", "real"),
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
        let begun = Instant::now();
        let (mut pairs, mut last) = (0_u64, 0);
        while begun.elapsed() < round {
            let token = self.take().await?;
            if token <= last {
                return Err("the token of a bare statement did not grow".into());
            }
            last = token;
            if self.free().await? != 1 {
                return Err("a bare statement changed nothing".into());
            }
            pairs += 1;
        }
        Ok(pairs as f64 / begun.elapsed().as_secs_f64())
    }

    /// Answers the token.
    async fn take(&mut self) -> Result<i64, Failure> {
        macro_rules! take {
            ($of:ident) => {
                sqlx::query($of.take)
                    .bind(HOST)
                    .bind(1_i64)
                    .bind(ID)
                    .bind(NAME)
            };
        }
        Ok(match self {
            Self::Postgres(c) => take!(POSTGRES).fetch_one(c).await?.try_get(0)?,
            Self::Mariadb(c) => i64::try_from(take!(MARIADB).execute(c).await?.last_insert_id())?,
            // To the end, where the commit may fail.
            Self::Sqlite(c) => {
                let rows = take!(SQLITE).fetch_all(c).await?;
                rows.first().ok_or("not taken")?.try_get(0)?
            }
        })
    }

    /// Answers how many rows it freed.
    async fn free(&mut self) -> Result<u64, Failure> {
        macro_rules! free {
            ($of:ident, $c:ident) => {
                sqlx::query($of.free)
                    .bind(NAME)
                    .bind(ID)
                    .execute($c)
                    .await?
                    .rows_affected()
            };
        }
        Ok(match self {
            Self::Postgres(c) => free!(POSTGRES, c),
            Self::Mariadb(c) => free!(MARIADB, c),
            Self::Sqlite(c) => free!(SQLITE, c),
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
