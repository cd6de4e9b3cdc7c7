//! Go's dbmutex and ours on one row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{Claimed, LeaseConfig, Leases, Released};

use crate::ground::{Ground, Kind, MINUTE, Raw, claim, run};

/// How long they fight.
const LASTING: Duration = Duration::from_secs(30);
/// How long a holder keeps the lease without a refresh: dbmutex has no deadline of its own, and a contender that gets no
/// processor for so long would believe in a lease that another has by right.
const EXPIRATION: Duration = Duration::from_secs(2);
/// How often ours is refreshed.
const REFRESH: Duration = Duration::from_millis(200);
/// One in so many turns of a contender, if it gets the lease then, ends in a crash.
const CRASHES: u32 = 100;
/// In one of so many turns of ours the lease is held for longer than it lasts without a refresh.
const LONG: u32 = 40;

/// Both databases at the same time, since it takes long.
#[test]
fn i09_dbmutex_and_ours_exclude_each_other_on_one_row_of_postgres_and_of_mariadb() {
    let grounds = [Kind::Postgres, Kind::Mariadb].map(Ground::shared);
    run(async {
        let mut fights = tokio::task::JoinSet::new();
        for ground in grounds {
            fights.spawn(fight(ground));
        }
        fights.join_all().await;
    });
}

/// What all contenders look at, outside the database.
#[derive(Default)]
struct Outside {
    inside: AtomicBool,
    largest: AtomicU64,
    ours: AtomicU64,
    theirs: AtomicU64,
    crashed: AtomicU64,
    long: AtomicU64,
}

impl Outside {
    /// Whether they have fought for long enough; on a slow machine it takes longer until there is enough to be seen.
    fn is_over(&self, end: Instant) -> bool {
        let now = Instant::now();
        now > end && (self.has_seen_enough() || now > end + 2 * LASTING)
    }

    fn has_seen_enough(&self) -> bool {
        let figure = |figure: &AtomicU64| figure.load(Ordering::SeqCst);
        let (ours, theirs) = (figure(&self.ours), figure(&self.theirs));
        ours > 40 && theirs > 40 && figure(&self.crashed) > 0 && figure(&self.long) > 0
    }

    fn enter(&self, token: Option<u64>) {
        assert!(!self.inside.swap(true, Ordering::SeqCst), "two are inside");
        if let Some(token) = token {
            self.seen(token);
        }
    }

    fn seen(&self, token: u64) {
        let before = self.largest.swap(token, Ordering::SeqCst);
        assert!(token > before, "{token} after {before}");
    }

    fn leave(&self) {
        assert!(
            self.inside.swap(false, Ordering::SeqCst),
            "nobody was inside"
        );
    }
}

async fn fight(ground: Ground) {
    let ground = Arc::new(ground);
    let outside = Arc::new(Outside::default());
    let mut raw = ground.connect().await;
    raw.run(ddl(&ground)).await;
    let end = Instant::now() + LASTING;
    let mut tasks = tokio::task::JoinSet::new();
    for contender in 0..4_u32 {
        tasks.spawn(ours(
            contender,
            Arc::clone(&ground),
            Arc::clone(&outside),
            end,
        ));
        let connection = ground.connect().await;
        let theirs = Dbmutex {
            connection,
            kind: ground.kind,
            table: ground.table.clone(),
            pid: contender,
        };
        tasks.spawn(theirs.contend(Arc::clone(&outside), end));
    }
    tasks.join_all().await;
    let figure = |figure: &AtomicU64| figure.load(Ordering::SeqCst);
    let (ours, theirs) = (figure(&outside.ours), figure(&outside.theirs));
    let crashed = figure(&outside.crashed);
    let long = figure(&outside.long);
    println!(
        "{:?}: ours {ours}, {long} of them long, dbmutex {theirs}, crashed {crashed}",
        ground.kind
    );
    assert!(outside.has_seen_enough());
    // Every one of them moved the token on by one.
    let store = ground.store().await;
    let records = store.list().await.unwrap();
    assert_eq!(records[0].token.0, ours + theirs + crashed);
}

/// A process of ours: guards, refreshed in the background, and given back.
async fn ours(contender: u32, ground: Arc<Ground>, outside: Arc<Outside>, end: Instant) {
    let mut config = LeaseConfig::default();
    config.refresh = REFRESH;
    config.expiration = EXPIRATION;
    config.max_clock_skew = Duration::from_millis(100);
    config.poll = Duration::from_millis(6);
    let leases = Leases::start_shared(ground.store().await, config).unwrap();
    let store = ground.store().await;
    for turn in 1_u32.. {
        if outside.is_over(end) {
            break;
        }
        if turn % CRASHES == 5 {
            // Another one of ours, which dies as soon as it has the lease: others wait for the expiry.
            let wish = claim("job", &format!("dead {contender} {turn}"), EXPIRATION);
            if let Claimed::Ours { token } = store.claim(&wish).await.unwrap() {
                outside.seen(token.0);
                outside.crashed.fetch_add(1, Ordering::SeqCst);
            }
            continue;
        }
        let guard = leases.acquire("job").await.unwrap();
        assert!(guard.is_held());
        outside.enter(Some(guard.token().0));
        if turn % LONG == 10 {
            // Only refreshes keep it so long.
            tokio::time::sleep(EXPIRATION + 2 * REFRESH).await;
            outside.long.fetch_add(1, Ordering::SeqCst);
        }
        assert!(guard.is_held());
        outside.leave();
        outside.ours.fetch_add(1, Ordering::SeqCst);
        assert_eq!(guard.release().await.unwrap(), Released::WasOurs);
    }
    let ended = leases.shutdown(MINUTE).await;
    assert_eq!(ended.maybe_still_held, []);
}

/// A contender that acts on the row as Go's dbmutex does.
struct Dbmutex {
    connection: Raw,
    kind: Kind,
    table: String,
    pid: u32,
}

impl Dbmutex {
    async fn contend(mut self, outside: Arc<Outside>, end: Instant) {
        let insert = match self.kind {
            Kind::Postgres => "insert into T (name) values ('job') on conflict (name) do nothing",
            _ => "insert ignore into T (name) values ('job')",
        };
        self.run(insert).await;
        let mine = format!(
            "locker_host = 'go' and locker_pid = {} and locker_id = 'go'",
            self.pid
        );
        let now = self.now();
        for turn in 0_u32.. {
            if outside.is_over(end) {
                return;
            }
            if !self.lock(&mine).await {
                tokio::time::sleep(Duration::from_millis(3)).await;
                continue;
            }
            outside.enter(None);
            let expires = self.expires();
            let refreshed = self
                .run(format!(
                    "update T set refresh_at = {now}, expires_at = {expires}, updated_at = {now} \
                     where name = 'job' and locked and {mine}"
                ))
                .await;
            assert_eq!(refreshed, 1, "taken from a holder of dbmutex");
            outside.leave();
            if turn % CRASHES == 7 {
                outside.crashed.fetch_add(1, Ordering::SeqCst);
                // The same host, process and id would find it locked by itself.
                tokio::time::sleep(EXPIRATION + Duration::from_millis(50)).await;
                continue;
            }
            outside.theirs.fetch_add(1, Ordering::SeqCst);
            let unlocked = self
                .run(format!(
                    "update T set locked = false, released_at = {now}, updated_at = {now} \
                     where name = 'job' and locked and {mine}"
                ))
                .await;
            assert_eq!(unlocked, 1);
        }
    }

    /// The upsert, which adds 1 only if it changes the row.
    async fn lock(&mut self, mine: &str) -> bool {
        let (now, expires, pid) = (self.now(), self.expires(), self.pid);
        let insert = format!(
            "insert into T (name, locked, locked_count, locker_host, locker_pid, locker_id, locked_at, refresh_at, \
             expires_at) values ('job', true, 1, 'go', {pid}, 'go', {now}, {now}, {expires})"
        );
        if self.kind == Kind::Postgres {
            let changed = self
                .run(format!(
                    "{insert} on conflict (name) do update set locked = true, locked_count = T.locked_count + 1, \
                     locker_host = 'go', locker_pid = {pid}, locker_id = 'go', locked_at = {now}, refresh_at = {now}, \
                     expires_at = {expires}, updated_at = {now} where not T.locked or T.expires_at < {now}"
                ))
                .await;
            return changed == 1;
        }
        // Assignments are carried out from the left: what decides comes last.
        let when_free = |column: &str, value: &str| {
            format!("{column} = if(not locked or expires_at < {now}, {value}, {column})")
        };
        let pid = pid.to_string();
        let assignments = [
            when_free("locked_count", "locked_count + 1"),
            when_free("locker_host", "'go'"),
            when_free("locker_pid", &pid),
            when_free("locker_id", "'go'"),
            when_free("locked_at", now),
            when_free("expires_at", &expires),
            "locked = true".to_owned(),
        ];
        let upsert = format!(
            "{insert} on duplicate key update {}",
            assignments.join(", ")
        );
        self.run(upsert).await;
        let table = &self.table;
        let is_mine = format!("select 1 from {table} where name = 'job' and locked and {mine}");
        self.connection.count(is_mine).await == 1
    }

    fn now(&self) -> &'static str {
        match self.kind {
            Kind::Postgres => "now()",
            _ => "now(6)",
        }
    }

    fn expires(&self) -> String {
        let millis = EXPIRATION.as_millis();
        match self.kind {
            Kind::Postgres => format!("now() + interval '{millis} milliseconds'"),
            _ => format!("date_add(now(6), interval {millis}000 microsecond)"),
        }
    }

    async fn run(&mut self, sql: impl Into<String>) -> u64 {
        let sql = sql.into().replace("T.", &format!("{}.", self.table));
        let sql = sql.replace("into T ", &format!("into {} ", self.table));
        let sql = sql.replace("from T ", &format!("from {} ", self.table));
        let sql = sql.replace("update T ", &format!("update {} ", self.table));
        self.connection.run(sql).await
    }
}

/// The table as dbmutex makes it.
fn ddl(ground: &Ground) -> String {
    let (table, mysql) = (&ground.table, ground.kind != Kind::Postgres);
    let (time, double) = match mysql {
        true => ("timestamp(6)", "double"),
        false => ("timestamptz", "double precision"),
    };
    let (maybe, now) = match mysql {
        true => ("null default null", "current_timestamp(6)"),
        false => ("", "now()"),
    };
    format!(
        "create table if not exists {table} (name varchar(256) primary key, locked boolean not null default false, \
         locked_count bigint not null default 0, locked_seconds {double} not null default 0, locker_host varchar(256), \
         locker_pid bigint, locker_id varchar(256), locked_at {time} {maybe}, refresh_at {time} {maybe}, \
         expires_at {time} not null default {now}, released_at {time} {maybe}, \
         created_at {time} not null default {now}, updated_at {time} not null default {now})"
    )
}
