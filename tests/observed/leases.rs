//! Leases.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lockkeeper::{LeaseError, LeaseGuard, Leases, LeasesBuilder};
use tokio::runtime::Runtime;
use tracing::Instrument;

use crate::layer::{Seen, events, forget_events, spans, the_span, watch};
use crate::rt::until;
use crate::store::{Fault, Memory, Op};

const MS: Duration = Duration::from_millis(1);

/// What these tests count is the whole process's.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Held for far longer than a machine is away.
fn builder(store: &Memory) -> LeasesBuilder<Memory> {
    Leases::builder(store.clone())
        .refresh(50 * MS)
        .expiration(20_000 * MS)
        .poll(20 * MS)
        .max_clock_skew(10 * MS)
}

/// Has moved every figure of leases, and holds one lease.
pub struct Traffic {
    _held: LeaseGuard,
    _alone: MutexGuard<'static, ()>,
}

impl Traffic {
    pub fn new() -> Self {
        let alone = alone();
        let store = Memory::new();
        let leases = builder(&store).start().unwrap();
        let held = runtime().block_on(async {
            let given_back = leases.acquire("given back").await.unwrap();
            given_back.release().await.unwrap();
            let lost = leases.acquire("lost").await.unwrap();
            store.steal("lost", "thief", Duration::from_secs(60));
            lost.lost().await;
            drop(leases.acquire("dropped").await.unwrap());
            store.next(Op::Claim, &[Fault::Fail]);
            leases.acquire("held").await.unwrap()
        });
        Self {
            _held: held,
            _alone: alone,
        }
    }
}

fn wait_for(lease: &'static str) -> impl Fn(&Seen) -> bool {
    move |seen| seen.name == "lease_wait" && seen.fields["lease"] == lease
}

#[test]
fn an_acquisition_has_a_span_inside_its_callers_only_if_it_waits() {
    let _alone = alone();
    watch();
    let store = Memory::new();
    let leases = builder(&store).start().unwrap();
    runtime().block_on(async {
        for lease in ["granted", "timeout", "abandoned"] {
            let guard = leases.acquire(lease).await.unwrap();
            assert!(spans(wait_for(lease)).is_empty(), "it was free");
            let request = tracing::info_span!("request", of = lease);
            match lease {
                "granted" => {
                    let waiting = leases.acquire(lease).instrument(request);
                    let release = async {
                        tokio::time::sleep(20 * MS).await;
                        drop(guard);
                    };
                    let (granted, ()) = tokio::join!(waiting, release);
                    drop(granted.unwrap());
                }
                "timeout" => {
                    let waiting = leases.acquire_timeout(lease, 20 * MS);
                    let error = waiting.instrument(request).await.unwrap_err();
                    assert!(matches!(error, LeaseError::TimedOut { .. }), "{error:?}");
                }
                _ => {
                    let waiting = leases.acquire(lease).instrument(request);
                    tokio::time::timeout(20 * MS, waiting).await.unwrap_err();
                }
            }
            let (_, seen) = the_span(wait_for(lease));
            assert_eq!(seen.fields["outcome"], lease);
            assert_eq!((seen.target, seen.level.as_str()), ("lockkeeper", "DEBUG"));
            let parent = spans(|seen| seen.name == "request" && seen.fields["of"] == lease);
            assert_eq!(seen.parent, Some(parent[0].0), "{seen:#?}");
        }
        // One that another process has.
        store.steal("elsewhere", "somebody", 100 * MS);
        drop(leases.acquire("elsewhere").await.unwrap());
        let (_, seen) = the_span(wait_for("elsewhere"));
        assert_eq!(seen.fields["outcome"], "granted");
    });
}

#[test]
fn an_outage_logs_ten_warnings_a_second_and_how_many_more_there_were() {
    const LEASES: usize = 1_000;
    let _alone = alone();
    watch();
    let store = Memory::new();
    let leases = builder(&store)
        .refresh(500 * MS)
        .expiration(3_000 * MS)
        .start()
        .unwrap();
    let guards: Vec<LeaseGuard> = runtime().block_on(async {
        let all = (0..LEASES).map(|n| leases.acquire(format!("job{n:04}")));
        let all = futures_util::future::join_all(all).await;
        all.into_iter().map(Result::unwrap).collect()
    });
    forget_events();
    let begun = Instant::now();
    store.always(Op::Refresh, Some(Fault::Fail));
    until(|| guards.iter().all(|guard| !guard.is_held()));
    let more = |message: &str| -> usize {
        let counts = events(message).into_iter();
        counts
            .map(|event| event["more"].parse::<usize>().unwrap())
            .sum()
    };
    let lost = "a lease was lost";
    until(|| events(lost).len() + more("more leases were lost") == LEASES);
    until(|| more("the store of leases failed more often") >= LEASES);
    let most = 10 * (begun.elapsed().as_secs_f64().ceil() as usize + 1);
    for message in [lost, "the store of leases failed"] {
        let logged = events(message).len();
        assert!((10..=most).contains(&logged), "{logged}: {message}");
    }
}
