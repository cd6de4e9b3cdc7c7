//! The two statements that take a lease and give it back, with nothing around them.

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

/// How much of a lease the statements are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// All of it: a wait for the lock of the row has an end, and what was waited is told, since the expiry counts from before
    /// it; a claim that is repeated keeps its token; a delay after an unclean end; names that compare byte for byte; only on
    /// a server that is to be written to; whether others want it.
    Same,
    /// What changes in the row, what is answered (the token), and who is told of a release: without all these checks.
    Least,
}

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

const POSTGRES_SAME: Statements = Statements {
    take: "update bare set locked = true, \
           locked_count = locked_count + case when locked and locker_id = $3 then 0 else 1 end, \
           locker_host = $1, locker_pid = $2, locker_id = $3, locked_at = clock_timestamp(), \
           refresh_at = clock_timestamp(), expires_at = clock_timestamp() + $5::bigint * interval '1 microsecond', \
           updated_at = clock_timestamp() \
           where name = $4 and set_config('lock_timeout', '2000', true) is not null and (not locked or locker_id = $3 \
           or expires_at < clock_timestamp() - $6::bigint * interval '1 microsecond') \
           returning locked_count, clock_timestamp() - locked_at > interval '20 milliseconds'",
    free: "update bare set locked = false, released_at = clock_timestamp(), updated_at = clock_timestamp(), \
           locked_seconds = locked_seconds + \
           coalesce(greatest(0, date_part('epoch', clock_timestamp() - locked_at)), 0) \
           where name = $1 and locked and locker_id = $2 returning pg_notify('bare_' || tableoid::text, name)",
};

const MARIADB_SAME: Statements = Statements {
    take: "update bare set locked_count = last_insert_id(locked_count + if(locked and ifnull( \
           cast(convert(locker_id using utf8mb4) as binary) = cast(? as binary), false), 0, 1)), locked = true, \
           locker_host = ?, locker_pid = ?, locker_id = ?, locked_at = sysdate(6), refresh_at = sysdate(6), \
           expires_at = date_add(sysdate(6), interval ? microsecond), updated_at = greatest(locked_at, sysdate(6)) \
           where name = ? and cast(convert(name using utf8mb4) as binary) = cast(? as binary) \
           and cast(@@global.read_only as char) in ('0', 'OFF') and (not locked \
           or cast(convert(locker_id using utf8mb4) as binary) = cast(? as binary) \
           or expires_at < date_sub(sysdate(6), interval ? microsecond))",
    free: "update bare set locked_count = locked_count + 0 * last_insert_id(if(updated_at < locked_at, 2, 1)), \
           locked_seconds = locked_seconds + \
           greatest(0, ifnull(timestampdiff(microsecond, locked_at, sysdate(6)), 0)) / 1000000, \
           locked = false, released_at = sysdate(6), updated_at = sysdate(6) \
           where name = ? and cast(convert(name using utf8mb4) as binary) = cast(? as binary) \
           and cast(@@global.read_only as char) in ('0', 'OFF') \
           and locked and cast(convert(locker_id using utf8mb4) as binary) = cast(? as binary)",
};

const SQLITE_SAME: Statements = Statements {
    take: "update bare set locked = 1, \
           locked_count = locked_count + case when locked and locker_id = ?3 then 0 else 1 end, \
           locker_host = ?1, locker_pid = ?2, locker_id = ?3, \
           locked_at = (cast(round(unixepoch('subsec') * 1000) as integer) * 1000), \
           refresh_at = (cast(round(unixepoch('subsec') * 1000) as integer) * 1000), \
           expires_at = (cast(round(unixepoch('subsec') * 1000) as integer) * 1000) + ?5, \
           updated_at = (cast(round(unixepoch('subsec') * 1000) as integer) * 1000) \
           where name = ?4 collate binary and (not locked or locker_id = ?3 \
           or expires_at < (cast(round(unixepoch('subsec') * 1000) as integer) * 1000) - ?6) returning locked_count",
    free: "update bare set locked = 0, \
           released_at = (cast(round(unixepoch('subsec') * 1000) as integer) * 1000), \
           updated_at = (cast(round(unixepoch('subsec') * 1000) as integer) * 1000), \
           locked_seconds = locked_seconds + max(0, coalesce( \
           (cast(round(unixepoch('subsec') * 1000) as integer) * 1000) - locked_at, 0)) / 1000000.0 \
           where name = ?1 collate binary and locked and locker_id = ?2 and updated_at >= locked_at",
};

const HOST: &str = "a machine";
const NAME: &str = "bare";
const ID: &str = "0123456789abcdef0123456789abcdef";
/// In microseconds.
const EXPIRATION: i64 = 300_000_000;
const DELAY: i64 = 0;

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
    pub async fn pairs(&mut self, effect: Effect, round: Duration) -> Result<f64, Failure> {
        let begun = Instant::now();
        let (mut pairs, mut last) = (0_u64, 0);
        while begun.elapsed() < round {
            let token = self.take(effect).await?;
            if token <= last {
                return Err("the token of a bare statement did not grow".into());
            }
            last = token;
            if self.free(effect).await? != 1 {
                return Err("a bare statement changed nothing".into());
            }
            pairs += 1;
        }
        Ok(pairs as f64 / begun.elapsed().as_secs_f64())
    }

    /// Answers the token.
    async fn take(&mut self, effect: Effect) -> Result<i64, Failure> {
        macro_rules! take {
            ($of:ident) => {
                sqlx::query($of.take)
                    .bind(HOST)
                    .bind(1_i64)
                    .bind(ID)
                    .bind(NAME)
            };
            ($of:ident, same) => {
                take!($of).bind(EXPIRATION).bind(DELAY)
            };
        }
        Ok(match (self, effect) {
            (Self::Postgres(c), Effect::Least) => take!(POSTGRES).fetch_one(c).await?.try_get(0)?,
            (Self::Postgres(c), Effect::Same) => {
                let row = take!(POSTGRES_SAME, same).fetch_one(c).await?;
                if row.try_get(1)? {
                    return Err("a bare statement waited".into());
                }
                row.try_get(0)?
            }
            (Self::Mariadb(c), Effect::Least) => {
                i64::try_from(take!(MARIADB).execute(c).await?.last_insert_id())?
            }
            (Self::Mariadb(c), Effect::Same) => {
                let take = sqlx::query(MARIADB_SAME.take).bind(ID);
                let take = take.bind(HOST).bind(1_i64).bind(ID).bind(EXPIRATION);
                let take = take.bind(NAME).bind(NAME).bind(ID).bind(DELAY);
                i64::try_from(take.execute(c).await?.last_insert_id())?
            }
            // To the end, where the commit may fail.
            (Self::Sqlite(c), effect) => {
                let rows = match effect {
                    Effect::Least => take!(SQLITE).fetch_all(c).await?,
                    Effect::Same => take!(SQLITE_SAME, same).fetch_all(c).await?,
                };
                rows.first().ok_or("not taken")?.try_get(0)?
            }
        })
    }

    /// Answers how many rows it freed.
    async fn free(&mut self, effect: Effect) -> Result<u64, Failure> {
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
        Ok(match (self, effect) {
            (Self::Postgres(c), Effect::Least) => free!(POSTGRES, c),
            (Self::Postgres(c), Effect::Same) => free!(POSTGRES_SAME, c),
            (Self::Mariadb(c), Effect::Least) => free!(MARIADB, c),
            (Self::Mariadb(c), Effect::Same) => {
                let free = sqlx::query(MARIADB_SAME.free);
                let freed = free.bind(NAME).bind(NAME).bind(ID).execute(c).await?;
                if freed.last_insert_id() == 2 {
                    return Err("nobody wants it, and it is said to be wanted".into());
                }
                freed.rows_affected()
            }
            (Self::Sqlite(c), Effect::Least) => free!(SQLITE, c),
            (Self::Sqlite(c), Effect::Same) => free!(SQLITE_SAME, c),
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
