//! What the documentation promises, scene by scene.

use super::super::{AfterPanic, Closed, Effect, End, Queue, RetryRefused, Rules, Watch};
use super::{at, effects, ms, rules};
use crate::pool::jobs::id::JobId;
use crate::pool::jobs::on_full::OnFull;

const FIRST: JobId = JobId(1);
const SECOND: JobId = JobId(2);
const THIRD: JobId = JobId(3);

fn ended<T>(id: JobId, held: T, end: End) -> Effect<T> {
    Effect::Ended(id, held, end)
}

fn careful(after: u32) -> Rules {
    Rules {
        quarantine_after: Some(after),
        ..rules(8, OnFull::Refuse)
    }
}

#[test]
fn a_full_queue_does_what_it_was_told_to() {
    let table = [
        (
            OnFull::Refuse,
            ended(SECOND, "b", End::Full { waited: ms(0) }),
        ),
        (OnFull::DropNewest, ended(SECOND, "b", End::Newest)),
        (
            OnFull::Wait(ms(0)),
            ended(SECOND, "b", End::Full { waited: ms(0) }),
        ),
    ];
    for (on_full, expected) in table {
        let mut queue = Queue::new(rules(1, on_full));
        queue.submit(at(0), None, Watch::Answer, "a");
        assert_eq!(effects(&mut queue), [Effect::Ready]);
        queue.submit(at(0), None, Watch::Answer, "b");
        assert_eq!(effects(&mut queue), [expected], "{on_full:?}");
    }
    let mut queue = Queue::new(rules(1, OnFull::DropOldest));
    queue.submit(at(0), None, Watch::Answer, "a");
    effects(&mut queue);
    queue.submit(at(0), None, Watch::Answer, "b");
    assert_eq!(
        effects(&mut queue),
        [ended(FIRST, "a", End::Oldest), Effect::Ready]
    );
}

#[test]
fn who_waits_for_a_place_gets_it_in_order_or_is_told_how_long_it_waited() {
    let mut queue = Queue::new(rules(1, OnFull::Wait(ms(10))));
    queue.submit(at(0), None, Watch::Answer, "a");
    queue.submit(at(1), None, Watch::Place, "b");
    queue.submit(at(2), None, Watch::Answer, "c");
    assert_eq!((queue.queued(), queue.waiting()), (1, 2));
    assert_eq!(queue.next_deadline(), Some(at(11)));
    effects(&mut queue);
    assert_eq!(queue.begin(at(3)).map(|begun| begun.id), Some(FIRST));
    assert_eq!(effects(&mut queue), [Effect::Taken(SECOND), Effect::Ready]);
    queue.tick(at(12));
    let waited = ms(10);
    assert_eq!(
        effects(&mut queue),
        [ended(THIRD, "c", End::Full { waited })]
    );
}

#[test]
fn a_job_whose_deadline_passed_is_not_begun_and_gives_its_place_to_others() {
    let mut queue = Queue::new(rules(1, OnFull::Refuse));
    queue.submit(at(0), Some(at(5)), Watch::Nobody, "a");
    // Nobody's timer runs for it: whoever comes next finds out.
    queue.submit(at(5), None, Watch::Answer, "b");
    let waited = ms(5);
    assert_eq!(
        effects(&mut queue),
        [
            Effect::Ready,
            ended(FIRST, "a", End::Expired { waited }),
            Effect::Ready
        ]
    );
    assert_eq!(queue.begin(at(6)).map(|begun| begun.id), Some(SECOND));
    assert_eq!(queue.begin(at(6)), None);
}

#[test]
fn whoever_waits_for_a_job_that_runs_is_answered_at_its_deadline_and_it_runs_on() {
    let mut queue = Queue::new(careful(2));
    queue.submit(at(0), Some(at(5)), Watch::Answer, "a");
    queue.begin(at(4));
    effects(&mut queue);
    queue.tick(at(5));
    assert_eq!(effects(&mut queue), [Effect::RunsOn(FIRST)]);
    assert_eq!(queue.running(), 1);
    // And it is not begun again.
    assert_eq!(queue.panicked(at(6), FIRST), AfterPanic::Over("a"));
}

#[test]
fn a_job_that_nobody_waits_for_any_more_is_not_begun() {
    let mut queue = Queue::new(careful(3));
    queue.submit(at(0), None, Watch::Answer, "a");
    queue.submit(at(0), None, Watch::Nobody, "b");
    effects(&mut queue);
    queue.gone(at(1), FIRST);
    queue.gone(at(1), SECOND);
    assert_eq!(effects(&mut queue), [ended(FIRST, "a", End::Gone)]);
    assert_eq!(queue.begin(at(1)).map(|begun| begun.id), Some(SECOND));
    // Nor again.
    queue.submit(at(2), None, Watch::Answer, "c");
    queue.begin(at(2));
    queue.gone(at(2), THIRD);
    assert_eq!(queue.panicked(at(3), THIRD), AfterPanic::Over("c"));
    assert_eq!(queue.panicked(at(3), SECOND), AfterPanic::Again);
}

#[test]
fn a_job_that_panics_goes_behind_the_others_and_after_so_many_in_a_row_aside() {
    let mut queue = Queue::new(careful(2));
    queue.submit(at(0), None, Watch::Answer, "bad");
    queue.submit(at(0), None, Watch::Answer, "good");
    assert_eq!(queue.begin(at(0)).unwrap().attempt, 1);
    assert_eq!(queue.panicked(at(1), FIRST), AfterPanic::Again);
    assert_eq!(queue.begin(at(1)).unwrap().id, SECOND);
    let again = queue.begin(at(1)).unwrap();
    assert_eq!((again.id, again.attempt), (FIRST, 2));
    assert_eq!(queue.panicked(at(2), FIRST), AfterPanic::Aside);
    let aside: Vec<_> = queue.aside().collect();
    assert_eq!(aside, [(FIRST, &"bad", 2)]);
    assert_eq!(queue.stats().put_aside, 1);
}

#[test]
fn without_a_quarantine_the_first_panic_is_the_end() {
    let mut queue = Queue::new(rules(8, OnFull::Refuse));
    queue.submit(at(0), None, Watch::Nobody, "bad");
    queue.begin(at(0));
    assert_eq!(queue.panicked(at(1), FIRST), AfterPanic::Over("bad"));
    assert_eq!(queue.aside().count(), 0);
}

#[test]
fn what_finds_the_quarantine_full_is_not_put_aside_and_what_was_stays() {
    let mut queue = Queue::new(careful(1));
    for job in ["a", "b", "c"] {
        queue.submit(at(0), None, Watch::Answer, job);
        queue.begin(at(0));
    }
    assert_eq!(queue.panicked(at(1), FIRST), AfterPanic::Aside);
    assert_eq!(queue.panicked(at(2), SECOND), AfterPanic::Aside);
    assert_eq!(queue.panicked(at(3), THIRD), AfterPanic::NoRoom("c"));
    let aside: Vec<_> = queue.aside().map(|(id, ..)| id).collect();
    assert_eq!(aside, [FIRST, SECOND]);
    assert_eq!(queue.stats().not_put_aside, 1);
}

#[test]
fn a_job_that_is_retried_keeps_its_place_in_the_quarantine_until_it_is_done() {
    let mut queue = Queue::new(Rules {
        quarantine_limit: 1,
        ..careful(1)
    });
    for job in ["a", "b"] {
        queue.submit(at(0), None, Watch::Answer, job);
        queue.begin(at(0));
    }
    assert_eq!(queue.panicked(at(1), FIRST), AfterPanic::Aside);
    assert_eq!(queue.retry(at(2), FIRST), Ok(()));
    assert_eq!(queue.retry(at(2), FIRST), Err(RetryRefused::Unknown));
    assert_eq!(queue.panicked(at(2), SECOND), AfterPanic::NoRoom("b"));
    // It fails again, and in all twice.
    assert_eq!(queue.begin(at(3)).unwrap().attempt, 1);
    assert_eq!(queue.panicked(at(4), FIRST), AfterPanic::Aside);
    assert_eq!(queue.aside().collect::<Vec<_>>(), [(FIRST, &"a", 2)]);
    // Stopped while it runs: it is there still.
    assert_eq!(queue.retry(at(5), FIRST), Ok(()));
    queue.begin(at(5));
    effects(&mut queue);
    queue.close(at(6), Closed::Stopped);
    assert_eq!(effects(&mut queue), []);
    assert_eq!(queue.aside().count(), 1);
    assert_eq!(
        queue.retry(at(7), FIRST),
        Err(RetryRefused::Closed(Closed::Stopped))
    );
    assert_eq!(queue.discard(FIRST), Some(("a", 2)));
    assert_eq!(queue.discard(FIRST), None);
}

#[test]
fn a_full_queue_refuses_a_retry_and_a_retry_that_is_done_leaves() {
    let mut queue = Queue::new(Rules {
        capacity: 1,
        ..careful(1)
    });
    queue.submit(at(0), None, Watch::Answer, "a");
    queue.begin(at(0));
    assert_eq!(queue.panicked(at(1), FIRST), AfterPanic::Aside);
    queue.submit(at(1), None, Watch::Answer, "b");
    assert_eq!(
        queue.retry(at(2), FIRST),
        Err(RetryRefused::Full { capacity: 1 })
    );
    queue.begin(at(2));
    assert_eq!(queue.retry(at(2), FIRST), Ok(()));
    queue.begin(at(2));
    assert_eq!(queue.finished(FIRST, true), Some("a"));
    assert_eq!(queue.aside().count(), 0);
}

#[test]
fn draining_takes_nothing_new_and_does_what_is_queued() {
    let mut queue = Queue::new(rules(1, OnFull::Wait(ms(100))));
    for job in ["runs", "queued", "waits"] {
        queue.submit(at(0), None, Watch::Answer, job);
        if job == "runs" {
            queue.begin(at(0));
        }
    }
    effects(&mut queue);
    let closed = End::Closed(Closed::Draining);
    queue.drain(at(1));
    assert_eq!(effects(&mut queue), [ended(THIRD, "waits", closed)]);
    queue.submit(at(2), None, Watch::Answer, "late");
    assert_eq!(effects(&mut queue), [ended(JobId(4), "late", closed)]);
    assert_eq!(queue.begin(at(3)).map(|begun| begun.id), Some(SECOND));
    queue.finished(FIRST, true);
    assert!(!queue.is_idle());
    queue.finished(SECOND, true);
    assert!(queue.is_idle());
}

#[test]
fn a_pool_that_failed_takes_jobs_again_when_it_is_resumed_and_one_that_was_stopped_does_not() {
    for (closed, again) in [
        (Closed::Failed, true),
        (Closed::Finished, true),
        (Closed::Stopped, false),
        (Closed::Draining, false),
    ] {
        let mut queue = Queue::new(rules(1, OnFull::Refuse));
        match closed {
            Closed::Draining => queue.drain(at(0)),
            _ => queue.close(at(0), closed),
        }
        queue.reopen();
        queue.submit(at(1), None, Watch::Answer, "a");
        let told = effects(&mut queue);
        assert_eq!(told == [Effect::Ready], again, "{closed:?}: {told:?}");
    }
}

#[test]
fn closing_answers_everything_and_says_of_each_how_far_it_got() {
    let mut queue = Queue::new(Rules {
        capacity: 3,
        on_full: OnFull::Wait(ms(100)),
        ..careful(2)
    });
    for (n, job) in ["runs", "panicked", "queued", "more", "waits"]
        .into_iter()
        .enumerate()
    {
        queue.submit(at(0), None, Watch::Answer, job);
        if n < 2 {
            queue.begin(at(0));
        }
    }
    queue.panicked(at(1), SECOND);
    assert_eq!(queue.waiting(), 0);
    queue.submit(at(1), None, Watch::Answer, "waits indeed");
    assert_eq!((queue.queued(), queue.waiting()), (4, 1));
    effects(&mut queue);
    queue.close(at(2), Closed::Failed);
    let closed = End::Closed(Closed::Failed);
    assert_eq!(
        effects(&mut queue),
        [
            ended(SECOND, "panicked", End::NotAgain),
            ended(THIRD, "queued", closed),
            ended(JobId(4), "more", closed),
            ended(JobId(5), "waits", closed),
            ended(JobId(6), "waits indeed", closed),
            ended(FIRST, "runs", End::Interrupted),
        ]
    );
    // The worker that ran on has nothing to tell any more.
    assert_eq!(queue.finished(FIRST, true), None);
    assert_eq!(queue.panicked(at(3), FIRST), AfterPanic::Unknown);
    assert_eq!(queue.begin(at(3)), None);
}
