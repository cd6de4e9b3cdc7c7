//! The core of supervision, one rule of Erlang/OTP at a time, with time moved by hand.

use std::time::{Duration, Instant};

use lockkeeper::pool_core::{Cause, Effect, End, Gating, RunId, Spec, Supervision, Who};
use lockkeeper::{Backoff, OnSilence, PoolState, Restart, Strategy, WorkerState};

pub const SECOND: Duration = Duration::from_secs(1);

/// Three workers whose restarts do not wait.
pub fn spec() -> Spec {
    Spec {
        workers: 3,
        restart: Restart::Permanent,
        strategy: Strategy::OneForOne,
        restarts: 3,
        within: 10 * SECOND,
        backoff: Backoff::new(Duration::ZERO, Duration::ZERO, 1.0),
        heartbeat: None,
        grace: 5 * SECOND,
        fed: false,
        gating: Gating::None,
        seed: 7,
    }
}

pub fn fails() -> End {
    End::Failed(Cause::Error("no".into()))
}

/// A core with a clock that is moved by hand.
struct Pool {
    core: Supervision,
    now: Instant,
}

impl Pool {
    fn new(spec: Spec) -> Self {
        let now = Instant::now();
        let core = Supervision::start(spec, now);
        Self { core, now }
    }

    /// What is to be done, shortly: starts as numbers and runs, and so on.
    fn effects(&mut self) -> Vec<String> {
        let effects = self.core.take_effects().into_iter();
        effects
            .filter_map(|effect| match effect {
                Effect::Start {
                    worker,
                    run,
                    restarts,
                } => Some(format!("start {worker} as {} after {restarts}", run.0)),
                Effect::Stop { run } => Some(format!("stop {}", run.0)),
                Effect::Abandon { run, silent, .. } => Some(format!(
                    "abandon {} {}",
                    run.0,
                    if silent { "silent" } else { "late" }
                )),
                Effect::EndedLate { run, .. } => Some(format!("ended late {}", run.0)),
                Effect::Silent { run, silence, .. } => {
                    Some(format!("silent {} for {silence:?}", run.0))
                }
                Effect::HeardAgain { run, .. } => Some(format!("heard {}", run.0)),
                Effect::GaveUp { restarts, last } => {
                    Some(format!("gave up at {restarts} with {}", last.worker))
                }
                Effect::Drain => Some("drain".into()),
                Effect::Over => Some("over".into()),
                Effect::Failed(_) | Effect::Restarts { .. } => None,
            })
            .collect()
    }

    fn ends(&mut self, run: u64, end: End) -> Vec<String> {
        self.core.ended(RunId(run), end, self.now);
        self.effects()
    }

    fn passes(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.core.tick(self.now);
        self.effects()
    }

    fn started(mut self) -> Self {
        self.core.take_effects();
        self
    }
}

#[test]
fn workers_start_from_the_first_to_the_last() {
    let mut pool = Pool::new(spec());
    let starts = [
        "start 0 as 1 after 0",
        "start 1 as 2 after 0",
        "start 2 as 3 after 0",
    ];
    assert_eq!(pool.effects(), starts);
}

#[test]
fn who_is_started_again_depends_on_the_restart_type_and_how_it_ended() {
    let again = ["start 1 as 4 after 1"].as_slice();
    let table = [
        (Restart::Permanent, fails(), again),
        (Restart::Permanent, End::Normal, again),
        (Restart::Transient, fails(), again),
        (Restart::Transient, End::Normal, &[]),
        (Restart::Temporary, fails(), &[]),
        (Restart::Temporary, End::Normal, &[]),
    ];
    for (restart, end, expected) in table {
        let mut pool = Pool::new(Spec { restart, ..spec() }).started();
        assert_eq!(pool.ends(2, end.clone()), expected, "{restart:?} {end:?}");
    }
}

#[test]
fn one_for_all_stops_the_others_in_reverse_one_after_another_and_starts_all_in_order() {
    let strategy = Strategy::OneForAll;
    let mut pool = Pool::new(Spec { strategy, ..spec() }).started();
    assert_eq!(pool.ends(2, fails()), ["stop 3"]);
    assert_eq!(pool.ends(3, End::Normal), ["stop 1"]);
    let all = [
        "start 0 as 4 after 1",
        "start 1 as 5 after 1",
        "start 2 as 6 after 1",
    ];
    assert_eq!(pool.ends(1, End::Normal), all);
}

#[test]
fn rest_for_one_leaves_the_earlier_ones_alone() {
    let strategy = Strategy::RestForOne;
    let mut pool = Pool::new(Spec { strategy, ..spec() }).started();
    assert_eq!(pool.ends(2, fails()), ["stop 3"]);
    let rest = ["start 1 as 4 after 1", "start 2 as 5 after 1"];
    assert_eq!(pool.ends(3, End::Normal), rest);
    assert_eq!(pool.ends(5, fails()), ["start 2 as 6 after 2"]);
}

#[test]
fn an_earlier_failure_makes_a_group_larger_that_is_coming_down() {
    let strategy = Strategy::RestForOne;
    let mut pool = Pool::new(Spec { strategy, ..spec() }).started();
    assert_eq!(pool.ends(2, fails()), ["stop 3"]);
    assert_eq!(pool.ends(1, fails()), [""; 0]);
    let all = [
        "start 0 as 4 after 1",
        "start 1 as 5 after 1",
        "start 2 as 6 after 1",
    ];
    assert_eq!(pool.ends(3, End::Normal), all);
}

#[test]
fn transient_workers_that_had_ended_are_started_again_with_their_group_and_temporary_ones_are_not()
{
    let strategy = Strategy::OneForAll;
    let restart = Restart::Transient;
    let mut pool = Pool::new(Spec {
        strategy,
        restart,
        ..spec()
    })
    .started();
    assert_eq!(pool.ends(1, End::Normal), [""; 0]);
    assert_eq!(pool.ends(2, fails()), ["stop 3"]);
    let all = [
        "start 0 as 4 after 1",
        "start 1 as 5 after 1",
        "start 2 as 6 after 1",
    ];
    assert_eq!(pool.ends(3, End::Normal), all);

    let restart = Restart::Temporary;
    let mut pool = Pool::new(Spec {
        strategy,
        restart,
        ..spec()
    })
    .started();
    assert_eq!(pool.ends(1, End::Normal), [""; 0]);
    assert_eq!(pool.ends(2, fails()), [""; 0]);
    assert_eq!(pool.core.state(), PoolState::Running);
    assert_eq!(pool.ends(3, fails()), [""; 0]);
    assert_eq!(pool.core.state(), PoolState::Finished);
}

#[test]
fn one_restart_more_than_allowed_in_the_window_and_the_pool_gives_up_with_the_last_failure() {
    let mut pool = Pool::new(Spec {
        restarts: 2,
        ..spec()
    })
    .started();
    pool.ends(1, fails());
    pool.passes(4 * SECOND);
    pool.ends(2, fails());
    // The first is older than the window now.
    pool.passes(7 * SECOND);
    assert_eq!(pool.ends(3, fails()), ["start 2 as 6 after 1"]);
    let gives_up = ["gave up at 3 with 0", "stop 6", "stop 5"];
    assert_eq!(pool.ends(4, fails()), gives_up);
    assert_eq!(pool.core.state(), PoolState::Failing);
    pool.ends(5, fails());
    assert_eq!(pool.ends(6, End::Normal), ["over"]);
    assert_eq!(pool.core.state(), PoolState::Failed);
    let counted: Vec<_> = pool
        .core
        .failures()
        .map(|note| (note.worker, note.counted))
        .collect();
    assert_eq!(
        counted,
        [(0, true), (1, true), (2, true), (0, true), (1, false)]
    );
    assert_eq!(pool.core.next_deadline(), None);

    let anew = [
        "start 0 as 7 after 1",
        "start 1 as 8 after 1",
        "start 2 as 9 after 1",
    ];
    pool.core.resume(pool.now).unwrap();
    assert_eq!(pool.effects(), anew);
    assert_eq!(
        pool.ends(7, fails()),
        ["start 0 as 10 after 2"],
        "the window is empty"
    );
}

#[test]
fn a_group_counts_one_restart_however_many_workers_it_has() {
    let strategy = Strategy::OneForAll;
    let mut pool = Pool::new(Spec {
        strategy,
        restarts: 1,
        ..spec()
    })
    .started();
    pool.ends(1, fails());
    pool.ends(3, fails());
    pool.ends(2, End::Normal);
    assert_eq!(pool.core.counts().restarts, 3);
    assert_eq!(pool.core.state(), PoolState::Running);
    assert_eq!(pool.ends(5, fails())[0], "gave up at 2 with 1");
}

#[test]
fn delays_grow_with_a_workers_own_failures_and_a_long_run_ends_the_row() {
    let backoff = Backoff::new(SECOND, 8 * SECOND, 2.0);
    let within = 100 * SECOND;
    let mut pool = Pool::new(Spec {
        backoff,
        within,
        restarts: 100,
        workers: 1,
        ..spec()
    });
    let mut run = 1;
    for attempt in [0, 1, 2, 3, 4, 5] {
        pool.core.take_effects();
        pool.core.ended(RunId(run), fails(), pool.now);
        let effects = pool.core.take_effects();
        let [Effect::Failed(_), Effect::Restarts { delay, .. }] = *effects else {
            panic!("{effects:?}");
        };
        assert!(delay <= backoff.ceiling(attempt), "{delay:?} at {attempt}");
        assert_eq!(pool.core.next_deadline(), Some(pool.now + delay));
        assert_eq!(pool.core.workers().next(), Some(WorkerState::Waiting));
        if !delay.is_zero() {
            assert_eq!(pool.passes(delay - Duration::from_nanos(1)), [""; 0]);
            pool.passes(Duration::from_nanos(1));
        }
        run += 1;
        assert_eq!(pool.core.workers().next(), Some(WorkerState::Running));
    }
    pool.passes(within + SECOND);
    pool.core.ended(RunId(run), fails(), pool.now);
    let waits = pool.core.next_deadline().map(|due| due - pool.now);
    assert!(
        waits.is_some_and(|delay| delay <= backoff.ceiling(0)),
        "{waits:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_delays() {
    let backoff = Backoff::new(SECOND, 60 * SECOND, 2.0);
    let delay = |seed| {
        let mut pool = Pool::new(Spec {
            backoff,
            seed,
            ..spec()
        });
        pool.core.ended(RunId(1), fails(), pool.now);
        pool.core.next_deadline().unwrap() - pool.now
    };
    assert_eq!(delay(1), delay(1));
    assert_ne!(delay(1), delay(2));
}

#[test]
fn a_worker_that_was_told_and_does_not_end_is_abandoned_and_its_late_end_noted() {
    let mut pool = Pool::new(spec()).started();
    pool.core.pause(pool.now).unwrap();
    assert_eq!(pool.effects(), ["stop 3", "stop 2", "stop 1"]);
    pool.ends(1, End::Normal);
    pool.ends(3, End::Normal);
    assert_eq!(pool.core.state(), PoolState::Pausing);
    assert_eq!(pool.core.next_deadline(), Some(pool.now + 5 * SECOND));
    assert_eq!(pool.passes(5 * SECOND), ["abandon 2 late"]);
    assert_eq!(pool.core.state(), PoolState::Paused);
    pool.core.resume(pool.now).unwrap();
    assert_eq!(pool.effects().len(), 3);
    assert_eq!(pool.ends(2, fails()), ["ended late 2"]);
    assert_eq!(pool.ends(2, fails()), [""; 0], "told twice");
    let counts = pool.core.counts();
    assert_eq!(
        (counts.abandoned, counts.abandoned_total, counts.ended_late),
        (0, 1, 1)
    );
    assert_eq!(counts.failures, 0);
}

#[test]
fn silence_is_told_once_until_the_worker_is_heard_again() {
    let heartbeat = Some((2 * SECOND, OnSilence::Report));
    let mut pool = Pool::new(Spec {
        heartbeat,
        workers: 1,
        ..spec()
    })
    .started();
    pool.passes(SECOND);
    pool.core.beat(RunId(1), pool.now);
    assert_eq!(pool.passes(SECOND), [""; 0]);
    assert_eq!(pool.core.next_deadline(), Some(pool.now + SECOND));
    assert_eq!(pool.passes(SECOND), ["silent 1 for 2s"]);
    assert_eq!(pool.passes(9 * SECOND), [""; 0]);
    assert_eq!(pool.core.workers().next(), Some(WorkerState::Silent));
    pool.core.beat(RunId(1), pool.now);
    assert_eq!(pool.effects(), ["heard 1"]);
    assert_eq!(pool.passes(2 * SECOND), ["silent 1 for 2s"]);
}

#[test]
fn a_silent_worker_is_replaced_as_one_that_failed() {
    let heartbeat = Some((2 * SECOND, OnSilence::Replace));
    let mut pool = Pool::new(Spec {
        heartbeat,
        strategy: Strategy::RestForOne,
        ..spec()
    })
    .started();
    pool.passes(SECOND);
    pool.core.beat(RunId(1), pool.now);
    pool.core.beat(RunId(3), pool.now);
    let replaced = ["silent 2 for 2s", "abandon 2 silent", "stop 3"];
    assert_eq!(pool.passes(SECOND), replaced);
    let rest = ["start 1 as 4 after 1", "start 2 as 5 after 1"];
    assert_eq!(pool.ends(3, End::Normal), rest);
    assert_eq!(pool.ends(2, End::Normal), ["ended late 2"]);
    let causes: Vec<_> = pool
        .core
        .failures()
        .map(|note| note.cause.clone())
        .collect();
    assert_eq!(causes, [Cause::Silence(2 * SECOND)]);
}

#[test]
fn scaling_down_tells_the_last_numbers_and_scaling_up_starts_fresh_ones() {
    let mut pool = Pool::new(spec()).started();
    pool.ends(3, fails());
    pool.core.scale(1, pool.now).unwrap();
    assert_eq!(pool.effects(), ["stop 4", "stop 2"]);
    pool.core.scale(2, pool.now).unwrap();
    assert_eq!(pool.effects(), [""; 0], "it has not ended yet");
    assert_eq!(
        pool.ends(2, fails()),
        ["start 1 as 5 after 0"],
        "it had been told"
    );
    pool.ends(4, End::Normal);
    pool.core.scale(3, pool.now).unwrap();
    assert_eq!(pool.effects(), ["start 2 as 6 after 0"]);
}

#[test]
fn workers_that_are_not_fed_are_told_to_drain_and_abandoned_at_the_deadline() {
    let mut pool = Pool::new(spec()).started();
    pool.core.drain(pool.now + 9 * SECOND, pool.now);
    assert_eq!(pool.effects(), ["stop 3", "stop 2", "stop 1"]);
    assert_eq!(pool.core.state(), PoolState::Draining);
    pool.ends(1, End::Normal);
    pool.ends(2, fails());
    let mut late = Pool {
        core: pool.core.clone(),
        now: pool.now,
    };
    assert_eq!(pool.ends(3, End::Normal), ["over"]);
    assert_eq!(pool.core.state(), PoolState::Drained);
    assert_eq!(late.passes(9 * SECOND), ["abandon 3 late", "over"]);
    assert_eq!(late.core.state(), PoolState::Stopped);
}

#[test]
fn workers_that_are_fed_end_by_themselves_and_are_replaced_while_there_is_more_to_do() {
    let mut pool = Pool::new(Spec {
        fed: true,
        workers: 2,
        ..spec()
    })
    .started();
    pool.core.drain(pool.now + 9 * SECOND, pool.now);
    assert_eq!(pool.effects(), ["drain"]);
    assert_eq!(pool.ends(1, fails()), ["start 0 as 3 after 1"]);
    assert_eq!(pool.ends(2, End::Normal), [""; 0]);
    let mut late = Pool {
        core: pool.core.clone(),
        now: pool.now,
    };
    assert_eq!(pool.ends(3, End::Normal), ["over"]);
    assert_eq!(pool.core.state(), PoolState::Drained);
    // At the deadline it is told to stop, and has its grace.
    assert_eq!(late.passes(9 * SECOND), ["stop 3"]);
    assert_eq!(late.passes(5 * SECOND), ["abandon 3 late", "over"]);
    assert_eq!(late.core.state(), PoolState::Stopped);
}

#[test]
fn a_stop_leaves_a_drain_no_more_time_than_it_had() {
    for fed in [true, false] {
        let mut pool = Pool::new(Spec {
            fed,
            workers: 1,
            ..spec()
        })
        .started();
        pool.core.drain(pool.now + 9 * SECOND, pool.now);
        pool.core.stop(pool.now + 1000 * SECOND, pool.now);
        assert!(pool.effects().contains(&"stop 1".to_owned()));
        // Those that are fed had their grace beyond the deadline.
        let end = if fed { 14 * SECOND } else { 9 * SECOND };
        assert_eq!(pool.core.next_deadline(), Some(pool.now + end));
        assert_eq!(pool.passes(end), ["abandon 1 late", "over"]);
    }
}

#[test]
fn a_drain_of_a_paused_pool_has_fed_workers_finish_what_is_there() {
    let mut pool = Pool::new(Spec {
        fed: true,
        workers: 1,
        ..spec()
    })
    .started();
    pool.core.pause(pool.now).unwrap();
    assert_eq!(pool.effects(), ["stop 1"]);
    assert_eq!(pool.ends(1, End::Normal), [""; 0]);
    pool.core.drain(pool.now + 9 * SECOND, pool.now);
    assert_eq!(pool.effects(), ["drain", "start 0 as 2 after 0"]);
    assert_eq!(pool.ends(2, End::Normal), ["over"]);
}

#[test]
fn where_workers_stop_one_after_another_each_has_an_equal_part_of_the_time() {
    let mut pool = Pool::new(Spec {
        strategy: Strategy::OneForAll,
        ..spec()
    })
    .started();
    pool.core.stop(pool.now + 9 * SECOND, pool.now);
    assert_eq!(pool.effects(), ["stop 3"]);
    assert_eq!(pool.passes(3 * SECOND), ["abandon 3 late", "stop 2"]);
    assert_eq!(pool.passes(3 * SECOND), ["abandon 2 late", "stop 1"]);
    assert_eq!(pool.passes(3 * SECOND), ["abandon 1 late", "over"]);
}

#[test]
fn a_deadline_that_comes_nearer_counts_for_those_who_were_told_before() {
    let mut pool = Pool::new(Spec {
        workers: 1,
        ..spec()
    })
    .started();
    pool.core.stop(pool.now + 1000 * SECOND, pool.now);
    assert_eq!(pool.core.next_deadline(), Some(pool.now + 1000 * SECOND));
    pool.core.stop(pool.now + SECOND, pool.now);
    pool.effects();
    assert_eq!(pool.passes(SECOND), ["abandon 1 late", "over"]);
}

#[test]
fn a_closed_gate_stops_those_behind_it_at_once_whatever_the_strategy() {
    let by = |pool: &Pool| pool.now + SECOND;
    let mut pool = Pool::new(Spec {
        strategy: Strategy::OneForAll,
        gating: Gating::All,
        ..spec()
    });
    assert_eq!(pool.effects(), [""; 0], "it is closed at first");
    assert_eq!(pool.core.counts().idle, 3);
    pool.core.open_gate(Who::All, pool.now);
    assert_eq!(pool.effects().len(), 3);
    pool.core.close_gate(Who::All, by(&pool), pool.now);
    assert_eq!(pool.effects(), ["stop 3", "stop 2", "stop 1"]);
    pool.ends(1, fails());
    assert_eq!(pool.core.live(Who::All), (2, 0));
    assert_eq!(pool.passes(SECOND), ["abandon 3 late", "abandon 2 late"]);
    assert_eq!(pool.core.live(Who::All), (0, 2));
    pool.core.open_gate(Who::All, pool.now);
    let again = [
        "start 0 as 4 after 0",
        "start 1 as 5 after 0",
        "start 2 as 6 after 0",
    ];
    assert_eq!(pool.effects(), again, "nothing had failed by itself");
}

#[test]
fn each_worker_may_have_a_gate_of_its_own() {
    let mut pool = Pool::new(Spec {
        gating: Gating::Each,
        ..spec()
    });
    pool.core.open_gate(Who::One(2), pool.now);
    pool.core.open_gate(Who::One(0), pool.now);
    assert_eq!(
        pool.effects(),
        ["start 2 as 1 after 0", "start 0 as 2 after 0"]
    );
    pool.core
        .close_gate(Who::One(2), pool.now + SECOND, pool.now);
    assert_eq!(pool.effects(), ["stop 1"]);
    assert_eq!(
        (pool.core.live(Who::One(2)), pool.core.live(Who::One(0))),
        ((1, 0), (1, 0))
    );
    assert_eq!(pool.ends(1, End::Normal), [""; 0]);
    assert_eq!(pool.core.live(Who::One(2)), (0, 0));
    assert_eq!(pool.ends(2, fails()), ["start 0 as 3 after 1"]);
    // A gate whose time is over already leaves none.
    pool.core.close_gate(Who::One(0), pool.now, pool.now);
    assert_eq!(pool.effects(), ["stop 3", "abandon 3 late"]);
}
