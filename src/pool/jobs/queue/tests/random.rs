//! Random sequences of calls: the queue decides as the model does, and tells the same in the same order.

use proptest::prelude::*;

use super::super::{Closed, Queue, Rules, Watch};
use super::model::Model;
use super::{at, effects, ms};
use crate::pool::jobs::id::JobId;
use crate::pool::jobs::on_full::OnFull;

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Time goes on by so many milliseconds.
    Pass(u64),
    Tick,
    Submit {
        deadline: Option<u64>,
        watch: Watch,
    },
    Begin,
    /// One of those that run, counted around.
    Finish(usize, bool),
    Panic(usize),
    Interrupt(usize),
    NotBegun(usize),
    /// One of those that are alive.
    Gone(usize),
    /// One that is put aside.
    Retry(usize),
    Discard(usize),
    Drain,
    Shut(Closed),
    Close(Closed),
    Reopen,
}

fn any_watch() -> impl Strategy<Value = Watch> {
    prop_oneof![Just(Watch::Answer), Just(Watch::Place), Just(Watch::Nobody)]
}

fn any_step() -> impl Strategy<Value = Step> {
    let deadline = prop_oneof![2 => Just(None), 1 => (0..20_u64).prop_map(Some)];
    prop_oneof![
        6 => (0..8_u64).prop_map(Step::Pass),
        1 => Just(Step::Tick),
        12 => (deadline, any_watch()).prop_map(|(deadline, watch)| Step::Submit { deadline, watch }),
        8 => Just(Step::Begin),
        4 => (0..8_usize, any::<bool>()).prop_map(|(n, well)| Step::Finish(n, well)),
        6 => (0..8_usize).prop_map(Step::Panic),
        1 => (0..8_usize).prop_map(Step::Interrupt),
        2 => (0..8_usize).prop_map(Step::NotBegun),
        3 => (0..8_usize).prop_map(Step::Gone),
        3 => (0..4_usize).prop_map(Step::Retry),
        1 => (0..4_usize).prop_map(Step::Discard),
    ]
}

fn any_rules() -> impl Strategy<Value = Rules> {
    let on_full = prop_oneof![
        (0..15_u64).prop_map(|time| OnFull::Wait(ms(time))),
        Just(OnFull::Refuse),
        Just(OnFull::DropOldest),
        Just(OnFull::DropNewest),
    ];
    let after = prop_oneof![Just(None), (1..4_u32).prop_map(Some)];
    (1..4_usize, on_full, after, 0..4_usize).prop_map(|(capacity, on_full, after, limit)| Rules {
        capacity,
        on_full,
        quarantine_after: after,
        quarantine_limit: limit,
    })
}

fn any_end() -> impl Strategy<Value = Vec<Step>> {
    prop_oneof![
        Just(vec![]),
        Just(vec![Step::Drain]),
        Just(vec![Step::Close(Closed::Stopped)]),
        Just(vec![Step::Close(Closed::Failed)]),
        Just(vec![Step::Close(Closed::Failed), Step::Reopen]),
        Just(vec![
            Step::Close(Closed::Finished),
            Step::Begin,
            Step::Reopen
        ]),
        Just(vec![Step::Drain, Step::Close(Closed::Stopped)]),
        Just(vec![
            Step::Shut(Closed::Stopped),
            Step::Panic(0),
            Step::NotBegun(0),
            Step::Close(Closed::Stopped)
        ]),
    ]
}

fn pick<T: Copy>(from: &[T], n: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[n % from.len()])
}

/// A queue and its model, side by side.
pub(super) struct Pair {
    rules: Rules,
    queue: Queue<u64>,
    model: Model,
    now: u64,
    submitted: u64,
    most_running: usize,
}

impl Pair {
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            queue: Queue::new(rules),
            model: Model::new(rules),
            now: 0,
            submitted: 0,
            most_running: 0,
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        let Self {
            queue, model, now, ..
        } = self;
        let time = at(*now);
        match step {
            Step::Pass(by) => *now += by,
            Step::Tick => {
                queue.tick(time);
                model.tick(*now);
            }
            Step::Submit { deadline, watch } => {
                self.submitted += 1;
                let deadline = deadline.map(|deadline| *now + deadline);
                let id = queue.submit(time, deadline.map(at), watch, self.submitted);
                assert_eq!(id, JobId(self.submitted));
                model.submit(*now, deadline, watch);
            }
            Step::Begin => assert_eq!(queue.begin(time), model.begin(*now)),
            Step::Finish(n, well) => {
                if let Some(id) = pick(&model.running(), n) {
                    assert_eq!(queue.finished(JobId(id), well), model.finished(id));
                }
            }
            Step::Panic(n) => {
                if let Some(id) = pick(&model.running(), n) {
                    assert_eq!(queue.panicked(time, JobId(id)), model.panicked(*now, id));
                }
            }
            Step::Interrupt(n) => {
                if let Some(id) = pick(&model.running(), n) {
                    queue.interrupted(time, JobId(id));
                    model.interrupted(*now, id);
                }
            }
            Step::NotBegun(n) => {
                if let Some(id) = pick(&model.running(), n) {
                    queue.not_begun(time, JobId(id));
                    model.not_begun(*now, id);
                }
            }
            Step::Gone(n) => {
                if let Some(id) = pick(&model.alive(), n) {
                    queue.gone(time, JobId(id));
                    model.gone(*now, id);
                }
            }
            Step::Retry(n) => {
                if let Some((id, _)) = pick(model.aside(), n) {
                    assert_eq!(queue.retry(time, JobId(id)), model.retry(*now, id));
                }
            }
            Step::Discard(n) => {
                if let Some((id, _)) = pick(model.aside(), n) {
                    assert_eq!(queue.discard(JobId(id)), model.discard(id));
                }
            }
            Step::Drain => {
                queue.drain(time);
                model.drain(*now);
            }
            Step::Shut(closed) => {
                queue.shut(time, closed);
                model.shut(*now, closed);
            }
            Step::Close(closed) => {
                queue.close(time, closed);
                model.close(*now, closed);
            }
            Step::Reopen => {
                queue.reopen();
                model.reopen();
            }
        }
        self.compare();
    }

    fn compare(&mut self) {
        let Self { queue, model, .. } = self;
        assert_eq!(effects(queue), std::mem::take(&mut model.told));
        assert_eq!(queue.queued(), model.queued());
        assert_eq!(queue.waiting(), model.waiting());
        assert_eq!(queue.running(), model.running().len());
        let aside: Vec<_> = queue
            .aside()
            .map(|(id, _, panics)| (id.0, panics))
            .collect();
        assert_eq!(aside, model.aside());
        assert_eq!(queue.next_deadline(), model.next_deadline().map(at));
        // What always holds, said once more without the model.
        self.most_running = self.most_running.max(queue.running());
        assert!(queue.queued() <= self.rules.capacity + self.most_running);
        assert!(queue.waiting() == 0 || queue.queued() >= self.rules.capacity);
        assert!(queue.aside().count() <= self.rules.quarantine_limit);
        let counts = queue.stats();
        let ended = counts.done
            + counts.failed
            + counts.refused
            + counts.dropped
            + counts.expired
            + counts.gone
            + counts.stopped
            + counts.interrupted;
        assert!(ended <= counts.submitted + counts.retried);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_decides_as_the_model_does(
        rules in any_rules(),
        steps in prop::collection::vec(any_step(), 0..80),
        end in any_end(),
        after in prop::collection::vec(any_step(), 0..20),
    ) {
        let mut pair = Pair::new(rules);
        for step in steps.into_iter().chain(end).chain(after) {
            pair.step(step);
        }
    }

    #[test]
    fn each_job_ends_exactly_once(
        rules in any_rules(),
        steps in prop::collection::vec(any_step(), 0..80),
    ) {
        let mut ends = vec![0_u32; 200];
        let mut queue = Queue::new(rules);
        let (mut now, mut submitted, mut running) = (0, 0_u64, Vec::new());
        let mut discarded = 0;
        for step in steps {
            match step {
                Step::Pass(by) => now += by,
                Step::Submit { deadline, watch } => {
                    submitted += 1;
                    let deadline = deadline.map(|deadline| at(now + deadline));
                    queue.submit(at(now), deadline, watch, submitted);
                }
                Step::Begin => running.extend(queue.begin(at(now)).map(|begun| begun.id)),
                Step::Finish(n, well) if !running.is_empty() => {
                    let id = running.swap_remove(n % running.len());
                    let held = queue.finished(id, well);
                    prop_assert_eq!(held, Some(id.0));
                    ends[usize::try_from(id.0).unwrap()] += 1;
                }
                Step::Panic(n) if !running.is_empty() => {
                    let id = running.swap_remove(n % running.len());
                    match queue.panicked(at(now), id) {
                        super::super::AfterPanic::NoRoom(held) | super::super::AfterPanic::Over(held) => {
                            ends[usize::try_from(held).unwrap()] += 1;
                        }
                        _ => {}
                    }
                }
                Step::NotBegun(n) if !running.is_empty() => {
                    let id = running.swap_remove(n % running.len());
                    queue.not_begun(at(now), id);
                }
                Step::Gone(n) => queue.gone(at(now), JobId(n as u64)),
                Step::Discard(_) => {
                    let first = queue.aside().next().map(|(id, ..)| id);
                    discarded += usize::from(first.and_then(|id| queue.discard(id)).is_some());
                }
                Step::Retry(_) => {
                    let first = queue.aside().next().map(|(id, ..)| id);
                    let _ = first.map(|id| queue.retry(at(now), id));
                }
                _ => queue.tick(at(now)),
            }
        }
        queue.close(at(now), Closed::Stopped);
        for effect in effects(&mut queue) {
            if let super::super::Effect::Ended(id, held, _) = effect {
                prop_assert_eq!(id.0, held);
                ends[usize::try_from(held).unwrap()] += 1;
            }
        }
        let aside = queue.aside().count();
        prop_assert!(ends.iter().all(|&times| times <= 1));
        let ended = ends.iter().filter(|&&times| times == 1).count();
        prop_assert_eq!(ended + aside + discarded, usize::try_from(submitted).unwrap());
        prop_assert!(queue.is_idle());
        prop_assert_eq!(queue.next_deadline(), None);
    }
}
