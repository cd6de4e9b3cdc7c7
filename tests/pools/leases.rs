//! Pools under leases, within one process: two keepers are as two processes to the store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lockkeeper::{
    Claim, Claimed, ErrorClass, Fence, Holder, Keeper, LeaseName, LeaseRecord, LeaseStore,
    LmdbLeases, Pool, PoolLeaseState, PoolLeaseStats, PoolState, Refresh, Refreshed, Released,
    RunTxn, StoreError, StoreFuture, StoreId, Worker,
};
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::support::{LONG, block_on, lease_folder, quick, running, until};

pub const REFRESH: Duration = Duration::from_millis(100);
pub const EXPIRATION: Duration = Duration::from_millis(1_500);
pub const POLL: Duration = Duration::from_millis(100);

/// A keeper of its own whose leases are in `store`.
pub fn keeper_on(store: impl LeaseStore) -> (TempDir, Keeper) {
    let folder = tempfile::tempdir().unwrap();
    let keeper = Keeper::builder()
        .path(folder.path())
        .lease_store(store)
        .lease_refresh(REFRESH)
        .lease_expiration(EXPIRATION)
        .lease_poll(POLL)
        .lease_max_clock_skew(Duration::from_millis(100))
        .open()
        .unwrap();
    (folder, keeper)
}

fn keeper(leases: &Path) -> (TempDir, Keeper) {
    keeper_on(LmdbLeases::open(leases).unwrap())
}

pub fn leases(pool: &Pool) -> PoolLeaseStats {
    pool.stats().lease.unwrap()
}

/// A worker that does nothing until it is told to stop.
async fn idle(worker: Worker) -> Result<(), lockkeeper::BoxError> {
    worker.stopped().await;
    Ok(())
}

#[test]
fn a_pool_runs_in_one_process_and_in_another_when_the_first_has_stopped() {
    let folder = lease_folder();
    let (_one, first) = keeper(folder.path());
    let (_two, second) = keeper(folder.path());
    let start = |keeper: &Keeper| {
        let pool = quick(keeper, "import").workers(3).under_lease("import");
        pool.start(idle).unwrap()
    };
    let one = start(&first);
    until("the first runs", || running(&one) == 3);
    let two = start(&second);
    until("the second waits", || {
        leases(&two).state == PoolLeaseState::WaitingForLease
    });
    assert_eq!((two.state(), running(&two)), (PoolState::Running, 0));
    assert_eq!(leases(&one).state, PoolLeaseState::Held);

    block_on(one.stop(LONG)).unwrap();
    // It is over when its lease has been given back.
    let stats = leases(&one);
    assert_eq!((stats.state, stats.given_back), (PoolLeaseState::Idle, 1));
    until("the second runs", || running(&two) == 3);
    assert_eq!(leases(&two).acquired, 1);
    block_on(second.shutdown(LONG)).unwrap();
    assert_eq!(leases(&two).given_back, 1);
    block_on(first.shutdown(LONG)).unwrap();
}

#[test]
fn i09_a_lease_is_given_back_only_when_the_last_worker_has_ended() {
    let folder = lease_folder();
    let (_own, keeper) = keeper(folder.path());
    let held_at_end = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&held_at_end);
    let pool = quick(&keeper, "import")
        .workers(2)
        .grace(Duration::from_millis(10))
        .under_lease("import")
        .start_blocking(move |worker: Worker| {
            while !worker.is_stopping() {
                let _ = worker.pause_for(LONG);
            }
            // Longer than the grace, and longer than the lease would last without a refresh.
            std::thread::sleep(
                (EXPIRATION + EXPIRATION / 4) * u32::try_from(worker.number()).unwrap(),
            );
            seen.lock().push(worker.lease().unwrap().is_held());
            Ok(())
        })
        .unwrap();
    until("it runs", || running(&pool) == 2);
    let stopping = pool.stop(Duration::from_millis(20));
    assert_eq!(
        block_on(stopping).unwrap_err().class(),
        ErrorClass::OutOfTime
    );
    assert_eq!(leases(&pool).given_back, 0);
    until("it is given back", || leases(&pool).given_back == 1);
    assert_eq!(*held_at_end.lock(), [true, true]);
    assert_eq!(leases(&pool).overrun, 0);
}

#[test]
fn workers_see_their_lease_and_write_under_it() {
    let folder = lease_folder();
    let (_own, keeper) = keeper(folder.path());
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&tokens);
    let pool = quick(&keeper, "import").under_lease("import");
    let pool = pool.start(move |worker: Worker| {
        let seen = Arc::clone(&seen);
        async move {
            let lease = worker.lease().unwrap().clone();
            let write = || RunTxn::update(|_txn| Ok(())).under(&lease);
            worker.keeper().run(write()).await?;
            seen.lock().push(lease.token());
            worker.stopped().await;
            // It is lost, and nothing is done under it any more.
            let refused = worker.keeper().run(write()).await;
            assert_eq!(refused.unwrap_err().class(), ErrorClass::LeaseLost);
            Ok(())
        }
    });
    let pool = pool.unwrap();
    for round in 1..=3_u64 {
        until("it writes", || {
            tokens.lock().len() == usize::try_from(round).unwrap()
        });
        block_on(keeper.leases().unwrap().force_release("import")).unwrap();
    }
    until("it writes", || tokens.lock().len() == 4);
    assert!(tokens.lock().is_sorted_by(|one, other| one < other));
    let stats = pool.stats();
    // What happens to workers whose lease is lost is no failure.
    assert_eq!((stats.failures, stats.restarts), (0, 0));
    assert_eq!((leases(&pool).lost, leases(&pool).acquired), (3, 4));
}

#[test]
fn i09_an_async_worker_is_dropped_at_its_next_await_when_its_lease_is_lost() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let folder = lease_folder();
    let (_own, keeper) = keeper(folder.path());
    let dropped = Arc::new(AtomicBool::new(false));
    let (told, runs) = (Arc::clone(&dropped), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&runs);
    let pool = quick(&keeper, "import").grace(LONG).under_lease("import");
    let pool = pool.start(move |worker: Worker| {
        let guard =
            (counted.fetch_add(1, Ordering::SeqCst) == 0).then(|| Dropped(Arc::clone(&told)));
        async move {
            let _guard = guard;
            // It is told, and does not care.
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert!(
                    worker.lease().unwrap().is_held(),
                    "polled without its lease"
                );
            }
        }
    });
    let pool = pool.unwrap();
    until("it runs", || runs.load(Ordering::SeqCst) == 1);
    block_on(keeper.leases().unwrap().force_release("import")).unwrap();
    until("it is dropped", || dropped.load(Ordering::SeqCst));
    until("it runs again", || runs.load(Ordering::SeqCst) == 2);
    assert_eq!((leases(&pool).overrun, pool.stats().failures), (0, 0));
}

#[test]
fn a_blocking_worker_that_runs_on_without_its_lease_is_counted_and_keeps_others_from_starting_here()
{
    let folder = lease_folder();
    let (_own, keeper) = keeper(folder.path());
    let go_on = Arc::new(AtomicBool::new(true));
    let (stubborn, runs) = (Arc::clone(&go_on), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&runs);
    let pool = quick(&keeper, "import").under_lease("import");
    let pool = pool.start_blocking(move |worker: Worker| {
        counted.fetch_add(1, Ordering::SeqCst);
        while stubborn.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        while !worker.pause_for(LONG) {}
        Ok(())
    });
    let pool = pool.unwrap();
    until("it runs", || runs.load(Ordering::SeqCst) == 1);
    block_on(keeper.leases().unwrap().force_release("import")).unwrap();
    until("it is counted", || leases(&pool).overrun == 1);
    assert_eq!(leases(&pool).lost, 1);
    // The lease is free, and not asked for: somebody else can have it.
    let other = keeper.lease("import").try_acquire();
    let guard = block_on(other).unwrap();
    block_on(guard.release()).unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 1);

    go_on.store(false, Ordering::SeqCst);
    until("it runs again", || runs.load(Ordering::SeqCst) == 2);
    assert_eq!(pool.stats().ended_late, 1);
}

#[test]
fn partitions_are_shared_evenly_and_taken_over_from_one_that_stops() {
    let folder = lease_folder();
    let (_one, first) = keeper(folder.path());
    let (_two, second) = keeper(folder.path());
    let start = |keeper: &Keeper| {
        let pool = quick(keeper, "import").workers(5).partitioned("import");
        let body = |worker: Worker| async move {
            let name = worker.lease().unwrap().name().to_string();
            assert_eq!(name, format!("import/{}", worker.number()));
            worker.stopped().await;
            Ok(())
        };
        pool.start(body).unwrap()
    };
    let one = start(&first);
    until("one has all", || running(&one) == 5);
    assert_eq!(leases(&one).partitions, [0, 1, 2, 3, 4]);
    let two = start(&second);
    until("both have their share", || {
        (running(&one), running(&two)) == (3, 2)
    });
    let both = [leases(&one), leases(&two)];
    let mut all = [both[0].partitions.clone(), both[1].partitions.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4]);
    until("what it has given back is counted", || {
        leases(&one).given_back == 2
    });
    assert_eq!(leases(&one).lost, 0);
    until("both know", || {
        [leases(&one), leases(&two)].map(|of| (of.members, of.share))
            == [(2, Some(3)), (2, Some(2))]
    });

    block_on(one.stop(LONG)).unwrap();
    until("the other has all", || running(&two) == 5);
    // Nobody is left who does not take part.
    until("it is alone", || leases(&two).members == 1);
    let records = block_on(second.leases().unwrap().list()).unwrap();
    let members = records
        .iter()
        .filter(|record| record.name.as_str().contains("member-"));
    assert_eq!(members.count(), 2, "{records:?}");
    assert_eq!(two.stats().failures, 0);
}

#[test]
fn a_partitioned_pool_that_is_scaled_gives_partitions_back_and_takes_more() {
    let folder = lease_folder();
    let (_own, keeper) = keeper(folder.path());
    let pool = quick(&keeper, "import").workers(4).partitioned("import");
    let pool = pool.start(idle).unwrap();
    until("it has all", || running(&pool) == 4);
    pool.scale(2).unwrap();
    until("it has two", || leases(&pool).partitions == [0, 1]);
    until("two were given back", || leases(&pool).given_back == 2);
    pool.scale(6).unwrap();
    until("it has six", || running(&pool) == 6);
    // So quickly that nobody sees it.
    pool.scale(1).unwrap();
    pool.scale(6).unwrap();
    until("it has six again", || running(&pool) == 6);
    // A pool that pauses keeps what it has.
    block_on(pool.pause()).unwrap();
    assert_eq!((running(&pool), leases(&pool).partitions.len()), (0, 6));
    pool.scale(1).unwrap();
    pool.scale(6).unwrap();
    pool.resume().unwrap();
    until("it goes on", || running(&pool) == 6);
}

#[test]
fn a_pool_that_gives_up_gives_its_lease_back_and_asks_again_when_it_is_resumed() {
    let folder = lease_folder();
    let (_own, keeper) = keeper(folder.path());
    // Resumed when everything has been given back, or as soon as it has failed.
    for (n, at_once) in [false, true, true, true].into_iter().enumerate() {
        let whole = quick(&keeper, "whole").under_lease(format!("whole {n}"));
        let parts = quick(&keeper, "parts").partitioned(format!("parts {n}"));
        for builder in [whole, parts] {
            let fails = Arc::new(AtomicBool::new(true));
            let failing = Arc::clone(&fails);
            let pool = builder.intensity(1, LONG).start(move |worker: Worker| {
                let fails = failing.load(Ordering::SeqCst);
                async move {
                    if fails {
                        return Err("no".into());
                    }
                    worker.stopped().await;
                    Ok(())
                }
            });
            let pool = pool.unwrap();
            until("it fails", || pool.state() == PoolState::Failed);
            if !at_once {
                until("it is given back", || leases(&pool).given_back == 1);
                until("it is over", || leases(&pool).state == PoolLeaseState::Idle);
            }
            fails.store(false, Ordering::SeqCst);
            pool.resume().unwrap();
            until("it runs", || running(&pool) == 1);
            assert_eq!(leases(&pool).state, PoolLeaseState::Held);
            block_on(pool.stop(LONG)).unwrap();
        }
    }
}

#[test]
fn a_lease_that_cannot_be_is_refused_when_the_pool_is_started() {
    let (_own, keeper) = crate::support::keeper();
    let refused = |builder: lockkeeper::PoolBuilder| {
        let error = builder.start(idle).unwrap_err();
        assert_eq!(error.class(), ErrorClass::BadConfig, "{error}");
    };
    refused(keeper.pool("a").under_lease(""));
    refused(keeper.pool("a").under_lease("n".repeat(256)));
    refused(keeper.pool("a").partitioned("n".repeat(250)));
    refused(
        keeper
            .pool("a")
            .under_lease(keeper.lease("a").expiration(Duration::from_secs(2))),
    );
    // The name of the pool is free still.
    let own = keeper.lease("a").expiration(Duration::from_secs(60));
    let pool = keeper.pool("a").under_lease(own).start(idle).unwrap();
    until("it runs", || running(&pool) == 1);
}

/// Leases in a file, behind a door that can be shut.
#[derive(Clone)]
pub struct Door {
    pub inner: LmdbLeases,
    pub shut: Arc<AtomicBool>,
    /// Whoever comes to the door while this is held stands before it, thread and all.
    pub blocked: Arc<Mutex<()>>,
}

impl Door {
    pub fn before(inner: LmdbLeases) -> Self {
        Self {
            inner,
            shut: Arc::default(),
            blocked: Arc::default(),
        }
    }

    fn pass<'a, T: Send + 'a>(&self, through: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        drop(self.blocked.lock());
        match self.shut.load(Ordering::SeqCst) {
            true => Box::pin(async { Err(StoreError::Unreachable("the door is shut".into())) }),
            false => through,
        }
    }
}

impl LeaseStore for Door {
    fn id(&self) -> StoreFuture<'_, StoreId> {
        self.inner.id()
    }
    fn prepare(&self) -> StoreFuture<'_, ()> {
        self.pass(self.inner.prepare())
    }
    fn claim<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Claimed> {
        self.pass(self.inner.claim(claim))
    }
    fn refresh<'a>(&'a self, leases: &'a [Refresh]) -> StoreFuture<'a, Vec<Refreshed>> {
        self.pass(self.inner.refresh(leases))
    }
    fn release<'a>(&'a self, name: &'a LeaseName, holder: &'a Holder) -> StoreFuture<'a, Released> {
        self.pass(self.inner.release(name, holder))
    }
    fn look<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        self.pass(self.inner.look(name))
    }
    fn list(&self) -> StoreFuture<'_, Vec<LeaseRecord>> {
        self.pass(self.inner.list())
    }
    fn force_release<'a>(&'a self, name: &'a LeaseName) -> StoreFuture<'a, Option<LeaseRecord>> {
        self.pass(self.inner.force_release(name))
    }
}

#[test]
fn a_store_that_is_away_stops_workers_in_time_and_the_pool_goes_on_trying() {
    let folder = lease_folder();
    let door = Door::before(LmdbLeases::open(folder.path()).unwrap());
    let shut = Arc::clone(&door.shut);
    shut.store(true, Ordering::SeqCst);
    let (_own, keeper) = keeper_on(door);
    // Whether each run was told while it held its lease; without an answer, it was dropped before.
    struct Run(Option<bool>, Arc<Mutex<Vec<Option<bool>>>>);
    impl Drop for Run {
        fn drop(&mut self) {
            self.1.lock().push(self.0);
        }
    }
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let start = |name: &'static str, partitioned: bool| {
        let pool = quick(&keeper, name);
        let pool = match partitioned {
            true => pool.partitioned(name),
            false => pool.under_lease(name),
        };
        let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
        let body = move |worker: Worker| {
            begun.fetch_add(1, Ordering::SeqCst);
            let mut run = Run(None, Arc::clone(&ended));
            async move {
                let run = &mut run;
                worker.stopped().await;
                run.0 = Some(worker.lease().unwrap().is_held());
                Ok(())
            }
        };
        pool.start(body).unwrap()
    };
    let pools = [start("whole", false), start("parts", true)];
    until("the store has failed", || {
        pools.iter().all(|pool| leases(pool).store_errors > 0)
    });
    for pool in &pools {
        let stats = leases(pool);
        assert_eq!(stats.state, PoolLeaseState::WaitingForLease);
        assert!(stats.last_error.unwrap().contains("the door is shut"));
    }
    let both_run = || {
        shut.store(false, Ordering::SeqCst);
        until("both run", || {
            let ended = ended.lock().len();
            begun.load(Ordering::SeqCst) == ended + 2 && pools.iter().all(|pool| running(pool) == 1)
        });
    };
    let both_end = || {
        shut.store(true, Ordering::SeqCst);
        until("both have ended", || {
            ended.lock().len() == begun.load(Ordering::SeqCst)
        });
    };
    // The notice is 0.3 s, which a busy machine may miss.
    let in_time = (1..=20).filter(|_| {
        both_run();
        let lost = pools.each_ref().map(|pool| leases(pool).lost);
        let before = ended.lock().len();
        both_end();
        until("both are lost", || {
            let mut pools = pools.iter().zip(lost);
            pools.all(|(pool, lost)| leases(pool).lost > lost)
        });
        ended.lock()[before..].iter().all(Option::is_some)
    });
    assert_eq!(in_time.take(2).count(), 2);
    // They were told before the end.
    assert!(!ended.lock().contains(&Some(false)));
    assert!(pools.iter().all(|pool| leases(pool).overrun == 0));
    // A store that comes back within the notice starts the workers again under the lease that they had.
    let kept = (1..=20).any(|_| {
        both_run();
        let acquired = pools.each_ref().map(|pool| leases(pool).acquired);
        both_end();
        both_run();
        acquired == pools.each_ref().map(|pool| leases(pool).acquired)
    });
    assert!(kept);
}

#[test]
fn a_keeper_that_is_shut_down_gives_back_what_its_pools_hold() {
    let folder = lease_folder();
    let store = LmdbLeases::open(folder.path()).unwrap();
    for _ in 0..3 {
        let (_own, keeper) = keeper(folder.path());
        let whole = quick(&keeper, "whole").under_lease("whole");
        let whole = whole.start(idle).unwrap();
        let parts = quick(&keeper, "parts").workers(4).partitioned("parts");
        let parts = parts.start(idle).unwrap();
        until("both run", || running(&whole) + running(&parts) == 5);
        let began = Instant::now();
        block_on(keeper.shutdown(LONG)).unwrap();
        assert!(began.elapsed() < LONG / 2);
        let held: Vec<LeaseRecord> = block_on(store.list())
            .unwrap()
            .into_iter()
            .filter(|record| record.remaining.is_some())
            .collect();
        assert!(held.is_empty(), "{held:?}");
    }
    let records = block_on(store.list()).unwrap();
    assert!(
        records.iter().all(|record| record.token >= Fence(3)),
        "{records:?}"
    );
    // What a start leaves in the store, the next one uses.
    assert_eq!(records.len(), 6);
}
