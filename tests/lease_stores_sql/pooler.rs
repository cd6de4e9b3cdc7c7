//! A pooler between the store and PostgreSQL.

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use lockkeeper::{IgnoreStoreErrors, LeaseConfig, LeaseStore, Leases, Released, StoreError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use tracing_subscriber::fmt::MakeWriter;

use crate::ground::{Ground, Kind, MINUTE, PATIENCE, claim, ours, run};
use crate::servers::pgbouncer::{Mode, Pgbouncer};

/// So few sessions that connections share them all the time.
const FEW: u32 = 3;

static TRANSACTIONS: LazyLock<Pgbouncer> = LazyLock::new(|| {
    let pooler = Pgbouncer::start(server(), Mode::Transaction, FEW);
    crate::ground::block_on(strangers(&pooler));
    pooler
});
static SESSIONS: LazyLock<Pgbouncer> =
    LazyLock::new(|| Pgbouncer::start(server(), Mode::Session, 60));

/// The port of the server that all share.
fn server() -> u16 {
    port(&Ground::shared(Kind::Postgres).url)
}

fn port(url: &str) -> u16 {
    let (_, rest) = url.split_once("127.0.0.1:").unwrap();
    rest.split_once('/').unwrap().0.parse().unwrap()
}

fn ground(pooler: &Pgbouncer) -> Ground {
    let direct = Ground::shared(Kind::Postgres).url;
    let through = format!(":{}/", pooler.port());
    let url = direct.replace(&format!(":{}/", port(&direct)), &through);
    Ground::through(Kind::Postgres, url, direct)
}

/// Another client of the pooler, who leaves statements behind in every session, under the names that ours would have.
async fn strangers(pooler: &Pgbouncer) {
    let options: PgConnectOptions = ground(pooler).url.parse().unwrap();
    let options = options.extra_float_digits(None);
    let run = async |connection: &mut PgConnection, sql: String| {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql));
        sql.execute(connection).await.unwrap();
    };
    let mut all = Vec::new();
    for _ in 0..FEW {
        let mut stranger = options.connect().await.unwrap();
        // Each keeps a session until all have one.
        run(&mut stranger, "begin".to_owned()).await;
        for number in 1..=20 {
            let left = format!("prepare sqlx_s_{number} as select 'of a stranger'");
            run(&mut stranger, left).await;
        }
        all.push(stranger);
    }
    for stranger in &mut all {
        run(stranger, "commit".to_owned()).await;
    }
}

/// Runs tests that take a [`Ground`] through poolers.
macro_rules! through_poolers {
    ($($module:ident: $pooler:ident),+ => $tests:tt) => {
        $(through_poolers! { @one $module, $pooler, $tests })+
    };
    (@one $module:ident, $pooler:ident, { $($from:ident: $test:ident),+ $(,)? }) => {
        mod $module {
            $(#[test]
            fn $test() {
                let ground = super::ground(&super::$pooler);
                crate::ground::run(crate::$from::$test(ground));
            })+
        }
    };
}

through_poolers! {
    transactions: TRANSACTIONS, sessions: SESSIONS => {
        basics: a_lease_is_held_by_one_and_says_by_whom_and_for_how_long,
        basics: a_claim_whose_answer_was_lost_is_recognised,
        basics: a_release_is_told_from_one_that_came_too_late,
        basics: a_refresh_extends_what_is_held_and_names_what_is_lost,
        basics: a_forced_release_moves_the_token_on,
        basics: a_lease_is_handed_over_in_one_step,
        basics: i10_tokens_grow_over_a_thousand_hand_overs,
        basics: names_compare_byte_for_byte,
        basics: five_hundred_leases_are_refreshed_at_once,
        basics: two_handles_of_one_table_have_the_same_id,
        contention: i09_only_one_of_sixteen_contenders_is_inside,
        contention: as_many_new_names_as_connections_do_not_disturb_each_other,
        transactions: a_row_that_somebody_has_locked_is_skipped_and_no_other,
    }
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().clone()).unwrap()
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn behind_a_pooler_that_shares_sessions_it_is_said_once_that_waiters_poll_and_nobody_listens() {
    let ground = ground(&TRANSACTIONS);
    let log = Log::default();
    let logging = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    // Of two subscribers every one is asked what it wants to hear. Of a single one the thread that comes first decides, and
    // other tests are there.
    let _second = tracing::Dispatch::new(
        tracing_subscriber::fmt()
            .with_writer(std::io::sink)
            .finish(),
    );
    let _logging = tracing::subscriber::set_default(logging);
    crate::ground::block_on(async {
        let store = ground.store().await;
        for _ in 0..2 {
            assert!(store.wakeups().is_none(), "it would be tried for ever");
        }
        let said =
            "waiters for leases are not woken, but poll PostgreSQL: there is a pooler between";
        assert_eq!(log.text().matches(said).count(), 1, "{}", log.text());
        ours(store.claim(&claim("job", "a", MINUTE)).await);
    });
}

#[test]
fn a_pooler_that_has_not_been_used_yet_is_noticed_before_anybody_listens() {
    let pooler = Pgbouncer::start(server(), Mode::Transaction, FEW);
    let ground = ground(&pooler);
    run(async {
        // Its first session is as new as the connection to it.
        let store = ground.store().await;
        for _ in 0..2 {
            if let Some(listening) = store.wakeups() {
                let deaf = listening.await.map(|_| ());
                assert!(matches!(deaf, Err(StoreError::Failed(_))), "{deaf:?}");
            }
        }
        assert!(store.wakeups().is_none());
        ours(store.claim(&claim("job", "a", MINUTE)).await);
    });
}

#[test]
fn a_lease_is_handed_over_between_waiters_behind_any_pooler() {
    let grounds = [&*TRANSACTIONS, &*SESSIONS].map(ground);
    run(async {
        for ground in grounds {
            let (one, two) = (start(ground.store().await), start(ground.store().await));
            let mut held = one.acquire("job").await.unwrap();
            for turn in 0..20 {
                let next = if turn % 2 == 0 { &two } else { &one };
                let next = tokio::spawn(next.acquire("job"));
                let token = held.token();
                assert_eq!(held.release().await.unwrap(), Released::WasOurs);
                let got = tokio::time::timeout(PATIENCE, next).await;
                held = got.unwrap().unwrap().unwrap();
                assert!(held.token() > token);
            }
            // Refreshes arrive, too.
            let before = held.remaining();
            held.extend(2 * MINUTE).await.unwrap();
            assert!(held.remaining() > before);
        }
    });
}

fn start(store: Arc<dyn LeaseStore>) -> Leases {
    let mut config = LeaseConfig::default();
    config.expiration = MINUTE;
    config.poll = Duration::from_millis(20);
    config.handler = Arc::new(IgnoreStoreErrors);
    Leases::start_shared(store, config).unwrap()
}
