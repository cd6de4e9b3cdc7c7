//! Jobs of a pool under a lease: they wait where it is not, and none is lost when it goes.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use lockkeeper::{
    Job, JobError, JobPool, LeaseView, LmdbLeases, OnFull, PoolBuilder, PoolLeaseState, PoolState,
};
use parking_lot::Mutex;

use crate::jobs_support::{Do, MS, Stage, patient, send, soon, until_queued};
use crate::leases::{Door, keeper_on, leases};
use crate::support::{LONG, lease_folder, until};

const HOLD: Do = Do::Hold(9);

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_while_the_lease_is_elsewhere_and_are_served_when_it_comes() {
    let folder = lease_folder();
    let (_one, elsewhere) = keeper_on(LmdbLeases::open(folder.path()).unwrap());
    let (_two, here) = keeper_on(LmdbLeases::open(folder.path()).unwrap());
    let guard = soon(elsewhere.lease("jobs").acquire()).await.unwrap();
    let stage = Stage::new();
    let builder = patient(&here, "jobs").workers(2).queue(3);
    let jobs = stage.serve(builder.when_full(OnFull::Refuse).under_lease("jobs"));
    until("it waits", || {
        leases(&jobs).state == PoolLeaseState::WaitingForLease
    });
    // It waits no longer than it is to.
    let late = soon(jobs.submit(HOLD).deadline(5 * MS)).await.unwrap_err();
    assert!(
        matches!(late, JobError::DeadlinePassed { job: HOLD, .. }),
        "{late:?}"
    );
    let waits: Vec<_> = (0..3).map(|n| send(&jobs, Do::Echo(n))).collect();
    until_queued(&jobs, 3, 0);
    let refused = soon(jobs.submit(Do::Echo(3))).await.unwrap_err();
    assert!(
        matches!(
            refused,
            JobError::Full {
                job: Do::Echo(3),
                ..
            }
        ),
        "{refused:?}"
    );
    assert_eq!((jobs.state(), stage.begun().len()), (PoolState::Running, 0));
    soon(guard.release()).await.unwrap();
    for (n, answer) in (0..).zip(waits) {
        assert_eq!(soon(answer).await.unwrap().unwrap(), n);
    }
    assert_eq!(jobs.job_stats().done, 3);

    // Where it is not, nobody does what is queued: a drain hands it back, as a stop does.
    soon(jobs.pause()).await.unwrap();
    let left = send(&jobs, Do::Echo(4));
    until_queued(&jobs, 1, 0);
    soon(jobs.stop(LONG)).await.unwrap();
    let left = soon(left).await.unwrap().unwrap_err();
    assert!(
        matches!(left, JobError::Stopped { job: Do::Echo(4) }),
        "{left:?}"
    );
    assert_eq!(leases(&jobs).given_back, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_without_the_lease_hands_back_what_nobody_here_can_do() {
    let folder = lease_folder();
    let (_one, elsewhere) = keeper_on(LmdbLeases::open(folder.path()).unwrap());
    let (_two, here) = keeper_on(LmdbLeases::open(folder.path()).unwrap());
    let _guard = soon(elsewhere.lease("jobs").acquire()).await.unwrap();
    let jobs = Stage::new().serve(patient(&here, "jobs").under_lease("jobs"));
    let left = send(&jobs, Do::Echo(1));
    until_queued(&jobs, 1, 0);
    soon(jobs.drain(100 * LONG)).await.unwrap();
    let left = soon(left).await.unwrap().unwrap_err();
    assert!(
        matches!(left, JobError::Stopped { job: Do::Echo(1) }),
        "{left:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i09_what_runs_when_the_lease_is_lost_is_interrupted_and_what_is_queued_stays() {
    let folder = lease_folder();
    let door = Door::before(LmdbLeases::open(folder.path()).unwrap());
    let shut = Arc::clone(&door.shut);
    let (_own, keeper) = keeper_on(door);
    let stage = Stage::new();
    // Nothing but the loss of the lease ends the job that holds.
    let jobs = stage.serve(
        patient(&keeper, "jobs")
            .grace(100 * LONG)
            .under_lease("jobs"),
    );
    let holds = send(&jobs, HOLD);
    stage.until_begun(HOLD);
    let mut waits: Vec<_> = (0..2).map(|n| send(&jobs, Do::Echo(n))).collect();
    until_queued(&jobs, 2, 0);
    shut.store(true, Ordering::SeqCst);
    let cut = soon(holds).await.unwrap();
    assert!(matches!(cut, Err(JobError::Interrupted)), "{cut:?}");
    until("it is lost", || {
        leases(&jobs).state == PoolLeaseState::WaitingForLease
    });
    waits.push(send(&jobs, Do::Echo(2)));
    until_queued(&jobs, 3, 0);
    assert_eq!(stage.begun(), [HOLD]);
    shut.store(false, Ordering::SeqCst);
    for (n, answer) in (0..).zip(waits) {
        assert_eq!(soon(answer).await.unwrap().unwrap(), n);
    }
    let stats = jobs.job_stats();
    assert_eq!((stats.done, stats.interrupted, stats.begun), (3, 1, 4));
    assert_eq!(jobs.stats().failures, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_jobs_is_answered_once_though_the_lease_comes_and_goes() {
    const JOBS: u32 = 300;
    let folder = lease_folder();
    let (_own, keeper) = keeper_on(LmdbLeases::open(folder.path()).unwrap());
    let jobs = patient(&keeper, "jobs").workers(4).under_lease("jobs");
    let jobs = jobs
        .serve(|job: lockkeeper::Job<u32>| async move {
            tokio::time::sleep(MS).await;
            Ok::<_, ()>(*job)
        })
        .unwrap();
    let answers: Vec<_> = (0..JOBS).map(|n| tokio::spawn(jobs.submit(n))).collect();
    for part in 1..4 {
        until("it goes on", || {
            jobs.job_stats().done >= u64::from(part * JOBS / 5)
        });
        let forced = keeper.leases().unwrap().force_release("jobs");
        soon(forced).await.unwrap();
    }
    let mut interrupted = 0;
    for (n, answer) in (0..).zip(answers) {
        match soon(answer).await.unwrap() {
            Ok(answer) => assert_eq!(answer, n),
            Err(JobError::Interrupted) => interrupted += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    let (stats, lost) = (jobs.job_stats(), leases(&jobs).lost);
    assert!(lost >= 1 && interrupted <= 4 * lost, "{lost} {stats:?}");
    assert_eq!(
        (stats.done, stats.interrupted),
        (u64::from(JOBS) - interrupted, interrupted)
    );
    assert_eq!(
        (stats.begun, stats.queued, stats.running),
        (u64::from(JOBS), 0, 0)
    );
}

/// Waits for a place in the queue. When it gets one, on the thread of the worker that has taken a job from there, the lease is over
/// before the worker goes on.
struct EndsTheLease {
    lease: Mutex<Option<LeaseView>>,
    shut: Arc<AtomicBool>,
}

impl Wake for EndsTheLease {
    fn wake(self: Arc<Self>) {
        self.shut.store(true, Ordering::SeqCst);
        let lease = self.lease.lock().clone().unwrap();
        until("it is over", || !lease.is_held());
    }
}

/// What a handler calls with each of its jobs.
type Begin = Arc<dyn Fn(&Job<u32>) + Send + Sync>;

async fn a_lease_ends_while_a_job_is_taken(
    serve: impl FnOnce(PoolBuilder, Begin) -> JobPool<u32, (), ()>,
) {
    let folder = tempfile::tempdir().unwrap();
    let door = Door::before(LmdbLeases::open(folder.path()).unwrap());
    let shut = Arc::clone(&door.shut);
    let (_own, keeper) = keeper_on(door);
    let waits = Arc::new(EndsTheLease {
        lease: Mutex::default(),
        shut: Arc::clone(&shut),
    });
    let begun = Arc::new(Mutex::new(Vec::new()));
    let (go_on, told) = flume::bounded::<()>(1);
    let (seen, log) = (Arc::clone(&waits), Arc::clone(&begun));
    let begin: Begin = Arc::new(move |job| {
        log.lock().push(**job);
        if **job == 0 {
            *seen.lease.lock() = job.worker().lease().cloned();
            told.recv().unwrap();
        }
    });
    let builder = patient(&keeper, "jobs").queue(1).under_lease("jobs");
    let jobs = serve(builder.when_full(OnFull::Wait(LONG)), begin);

    let first = tokio::spawn(jobs.submit(0));
    until("it runs", || *begun.lock() == [0]);
    let second = tokio::spawn(jobs.submit(1));
    until("it is queued", || jobs.job_stats().queued == 1);
    let mut third = pin!(jobs.submit_and_forget(2));
    let waker = Waker::from(waits);
    let polled = third.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    go_on.send(()).unwrap();
    soon(first).await.unwrap().unwrap();
    until("it is lost", || {
        leases(&jobs).state == PoolLeaseState::WaitingForLease
    });
    until("it is queued again", || jobs.job_stats().queued == 2);
    let polled = third.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(polled, Poll::Ready(Ok(_))), "{polled:?}");
    assert_eq!((&*begun.lock(), jobs.job_stats().begun), (&vec![0], 1));

    // It is the next, before the one that got its place.
    shut.store(false, Ordering::SeqCst);
    soon(second).await.unwrap().unwrap();
    until("the third runs", || *begun.lock() == [0, 1, 2]);
    assert_eq!(jobs.job_stats().interrupted, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn i09_no_job_begins_whose_lease_ended_while_it_was_taken() {
    a_lease_ends_while_a_job_is_taken(|builder, begin| {
        let handler = move |job| {
            begin(&job);
            async { Ok(()) }
        };
        builder.serve(handler).unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i09_no_job_begins_on_a_thread_whose_lease_ended_while_it_was_taken() {
    a_lease_ends_while_a_job_is_taken(|builder, begin| {
        let handler = move |job: Job<u32>| {
            begin(&job);
            Ok(())
        };
        builder.serve_blocking(handler).unwrap()
    })
    .await;
}
