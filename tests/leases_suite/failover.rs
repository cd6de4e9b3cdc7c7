//! Servers that die and are followed by others: what guards believe, and which tokens they see.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use lockkeeper::{LeaseError, Released};
use sqlx::{Connection, PgConnection, Row};

use crate::etcd_server::Etcd;
use crate::ground::{PATIENCE, Pace, block_on, held, soon, until};
use crate::peer::released;
use crate::servers::postgres::Postgres;

/// Hand-overs that were made.
#[derive(Default)]
struct Made(AtomicU64);

impl Made {
    /// Waits for some more.
    fn more(&self) {
        let goal = self.0.load(Ordering::SeqCst) + 20;
        until("more hand-overs", || {
            (self.0.load(Ordering::SeqCst) >= goal).then_some(())
        });
    }
}

/// One lease is held all the time, another is handed over all the time.
fn test(url: &str, disaster: impl FnOnce(&Made) + Send) {
    let pace = Pace {
        refresh: Pace::SHORT.refresh,
        ..Pace::LONG
    };
    let both = [pace.leases(url), pace.leases(url)];
    let kept = block_on(soon("the lease", both[0].acquire("kept"))).unwrap();
    let made = Made::default();
    thread::scope(|scope| {
        let disaster = scope.spawn(|| {
            made.more();
            disaster(&made);
            made.more();
        });
        let mut last = 0;
        for turn in 0.. {
            let next = both[turn % 2].acquire("handed over");
            let guard = block_on(soon("the next hand-over", next)).unwrap();
            let token = guard.token().0;
            assert!(token > last, "{token} after {last}");
            last = token;
            assert_eq!(released(guard), Released::WasOurs);
            assert!(kept.is_held(), "{:?}", kept.standing());
            made.0.fetch_add(1, Ordering::SeqCst);
            if disaster.is_finished() {
                break;
            }
        }
    });
    // Whoever answers now has confirmed it.
    until("a refresh", || {
        let extended = block_on(kept.extend(2 * pace.expiration));
        extended
            .map_err(|error| assert!(error.is_retryable(), "{error:?}"))
            .ok()
    });
    let record = held(&both[1], "kept").unwrap();
    let shown = (record.token, record.holder.as_ref());
    assert_eq!(shown, (kept.token(), Some(kept.holder())));
    until("a refusal", || {
        match block_on(both[1].try_acquire("kept")) {
            Err(LeaseError::Busy { .. }) => Some(()),
            Err(LeaseError::Unreachable { .. }) => None,
            other => panic!("{other:?}"),
        }
    });
    let token = kept.token();
    assert_eq!(released(kept), Released::WasOurs);
    let next = block_on(both[1].acquire_timeout("kept", PATIENCE)).unwrap();
    assert!(next.token() > token);
}

#[test]
fn i10_a_synchronous_standby_that_takes_over_keeps_guards_and_tokens() {
    let mut primary = Postgres::start();
    let standby = primary.standby();
    block_on(async {
        let mut first = PgConnection::connect(&primary.url()).await.unwrap();
        for statement in [
            "alter system set synchronous_standby_names = '*'",
            "select pg_reload_conf()",
        ] {
            let statement = sqlx::raw_sql(statement);
            statement.execute(&mut first).await.unwrap();
        }
    });
    until("the standby", || {
        block_on(async {
            let mut first = PgConnection::connect(&primary.url()).await.unwrap();
            let states = "select count(*) from pg_stat_replication where sync_state = 'sync'";
            let row = sqlx::query(states).fetch_one(&mut first).await.unwrap();
            (row.get::<i64, _>(0) == 1).then_some(())
        })
    });
    let (one, other) = (primary.port(), standby.port());
    let url = format!("postgres://postgres@127.0.0.1:{one},127.0.0.1:{other}/postgres");
    test(&format!("{url}?sslmode=disable"), |_| {
        primary.kill();
        block_on(async {
            let mut second = PgConnection::connect(&standby.url()).await.unwrap();
            let promote = sqlx::query("select pg_promote()");
            let row = promote.fetch_one(&mut second).await.unwrap();
            assert!(row.get::<bool, _>(0));
        });
    });
}

#[test]
fn i10_etcd_keeps_guards_and_tokens_when_one_of_three_dies_and_then_the_leader() {
    let mut etcd = Etcd::start(3);
    test(&etcd.url("suite"), |made| {
        let follower = (etcd.leader() + 1) % 3;
        etcd.kill(follower);
        made.more();
        etcd.restart(follower);
        let leader = etcd.leader();
        etcd.kill(leader);
        made.more();
        etcd.restart(leader);
    });
}
