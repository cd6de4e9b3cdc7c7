//! The core and the model side by side: the same calls to both, and everything compared after each.

use super::calls::Ask;
use super::compare::{Difference, same};
use super::core::Core;
use super::fault::Plan;
use super::model::Model;
use super::step::Step;
use super::tally::Tally;
use super::universe::Obj;
use super::words::{Answer, Config, Event, Kind, Slot, Time, Why};

pub struct Pair {
    pub core: Core,
    pub model: Model,
    pub now: Time,
    /// The objects of all waits there have been, by arrival.
    pub objects: Vec<Obj>,
    /// Waits that have had their answer, and whether it was a grant.
    pub answers: Vec<(u64, bool)>,
    /// The arrival of the wait that this step withdraws.
    withdrawn: Option<u64>,
    /// The youngest age there has been.
    youngest: u64,
    pub tally: Tally,
    /// Only answers and effects are compared, not the state: for the beginning of a history that is
    /// compared in full elsewhere.
    pub brief: bool,
    /// Faults that are put in on purpose, to see that they are found.
    pub plan: Plan,
}

impl Pair {
    pub fn new(config: Config) -> Self {
        Self::with(Core::new(config), config, Plan::default())
    }

    pub fn with(core: Core, config: Config, plan: Plan) -> Self {
        Self {
            core,
            model: Model::new(config),
            now: 0,
            objects: Vec::new(),
            answers: Vec::new(),
            withdrawn: None,
            youngest: 0,
            tally: Tally::default(),
            brief: false,
            plan,
        }
    }

    /// Takes the step on both sides. A step that means nothing now is passed over.
    pub fn run(&mut self, step: &Step) -> Result<(), Difference> {
        let Some(step) = &step.resolve(&self.model) else {
            return Ok(());
        };
        if let Step::Advance(by, most) = *step {
            return self.advance(by, most);
        }
        let core = self.on_core(step);
        let Some(answer) = core else { return Ok(()) };
        let withdrawn = self.withdrawn.take();
        self.compare(step, answer, |model, core, now| {
            on_model(model, core, now, withdrawn, step)
        })?;
        match *step {
            Step::Begin {
                slot,
                parent: None,
                age_of,
                ..
            } if answer == Answer::Done => self.compare_age(slot, age_of),
            _ => Ok(()),
        }
    }

    /// A new root has the age that was asked for, or is younger than all that have been.
    fn compare_age(&mut self, slot: Slot, age_of: Option<Slot>) -> Result<(), Difference> {
        let age = |slot: Slot| self.model.lockers[usize::from(slot)].map(|locker| locker.age);
        let asked = age_of.filter(|other| *other != slot).and_then(age);
        let is_right = match (age(slot), asked) {
            (Some(age), Some(asked)) => age == asked,
            (age, _) => age > Some(self.youngest),
        };
        same!("a new age is right", is_right, true);
        self.youngest = self.youngest.max(age(slot).unwrap_or(0));
        Ok(())
    }

    /// Lets time pass, and what is due expire, in as many calls as it takes.
    fn advance(&mut self, by: Time, most: usize) -> Result<(), Difference> {
        self.now += by;
        if most == 0 {
            return Ok(());
        }
        loop {
            let now = super::core::moment(self.now);
            let more = self.core.table.expire(now, most, &mut self.core.effects);
            self.compare(
                &Step::Advance(by, most),
                Answer::Yes(more),
                |model, _, now| {
                    model.now = now;
                    model.expire(most)
                },
            )?;
            same!("warnings not given", 0, self.model.warnings.len());
            if !more {
                return Ok(());
            }
        }
    }

    fn on_core(&mut self, step: &Step) -> Option<Answer> {
        let now = self.now;
        let id = |core: &Core, slot: Slot| core.ids[usize::from(slot)];
        let core = &mut self.core;
        Some(match *step {
            Step::Begin {
                slot,
                parent,
                age_of,
                spec,
            } => {
                let parent = match parent {
                    Some(parent) => Some(id(core, parent)?),
                    None => None,
                };
                let age_of = age_of.and_then(|slot| id(core, slot));
                core.begin(now, slot, parent, age_of, spec)
            }
            Step::Request {
                slot,
                object,
                mode,
                from,
                patience,
            } => {
                let ask = Ask {
                    locker: slot,
                    object,
                    mode,
                    from,
                };
                let answer = {
                    let id = id(core, slot)?;
                    self.plan.request(core, &self.model, now, id, ask, patience)
                };
                if answer == Answer::Waits {
                    self.objects.push(object);
                }
                answer
            }
            Step::Downgrade {
                slot,
                object,
                from,
                to,
            } => core.downgrade(id(core, slot)?, object, from, to),
            Step::Unlock { slot, object, mode } => {
                self.plan.unlock(core, id(core, slot)?, object, mode)
            }
            Step::UnlockObject { slot, object } => core.unlock_object(id(core, slot)?, object),
            Step::ReleaseReads(slot) => {
                let id = id(core, slot)?;
                Answer::Count(core.table.release_reads(id, &mut core.effects))
            }
            Step::ReleaseAll(slot) => {
                let id = id(core, slot)?;
                Answer::Count(core.table.release_all(id, &mut core.effects))
            }
            Step::Commit(slot) => core.commit(id(core, slot)?),
            Step::End(slot) => {
                let id = id(core, slot)?;
                Answer::Yes(core.table.end(id, &mut core.effects))
            }
            Step::Withdraw(back) => {
                let answer = core.withdraw(usize::from(back))?;
                self.withdrawn = core.last.map(|(_, arrival)| arrival);
                answer
            }
            Step::Advance(..)
            | Step::UnlockHeld(_)
            | Step::DowngradeHeld(..)
            | Step::UpgradeHeld(..)
            | Step::Bury(..) => return None,
            Step::Detect(policy) => core.detect(now, policy),
            Step::SetDetect(on_block, policy) => {
                let now = super::core::moment(now);
                core.table
                    .set_detect(now, on_block, policy, &mut core.effects);
                Answer::Done
            }
            Step::SetTimeouts(timeouts) => core.set_timeouts(now, timeouts),
            Step::SetLimits(more) => core.set_limits(limits(&self.model, more)),
        })
    }

    /// Runs the model's side of a call, and compares.
    pub fn compare(
        &mut self,
        step: &Step,
        answer: Answer,
        model_side: impl FnOnce(&mut Model, &mut Core, Time) -> Answer,
    ) -> Result<(), Difference> {
        let mut seen = match self.brief {
            true => self.core.listen(answer),
            false => self.core.look(answer),
        };
        self.plan.tamper(&mut seen, &self.model, &self.objects);
        let model = &mut self.model;
        model.events.clear();
        model.hints = seen
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Doomed(number, Kind::Deadlock) => Some(*number),
                _ => None,
            })
            .collect();
        model.told = seen
            .events
            .iter()
            .filter_map(|event| match event {
                Event::HeldTooLong(number, object, mode) => Some((*number, *object, *mode)),
                _ => None,
            })
            .collect();
        let expected = model_side(model, &mut self.core, self.now);
        for event in &model.events {
            match event {
                Event::Granted(arrival) => self.answers.push((*arrival, true)),
                Event::Refused(arrival, _) => self.answers.push((*arrival, false)),
                _ => (),
            }
        }
        same!("the answer", seen.answer, expected);
        self.tally.note(step, expected, &self.model);
        self.compare_events(&seen)?;
        match self.brief {
            true => Ok(()),
            false => self.compare_state(&seen),
        }
    }

    /// Liveness: when everybody ends, every wait has had its answer and nothing is left.
    pub fn finish(&mut self) -> Result<(), Difference> {
        for slot in 0..self.model.lockers.len() {
            self.run(&Step::End(slot as Slot))?;
        }
        same!("waits without an answer", self.core.waits.len(), 0);
        same!("what is left", self.core.look(Answer::Done).used, [0; 3]);
        self.compare_counters()
    }

    /// The table is closed: all that waits is refused, and nothing is granted on the way.
    pub fn close(&mut self) -> Result<(), Difference> {
        let waiting = self.model.waiting.len();
        self.core.table.refuse_all(&mut self.core.effects);
        let seen = self.core.look(Answer::Done);
        let refused = |event: &&Event| matches!(event, Event::Refused(_, Why::ShuttingDown));
        same!(
            "refused",
            seen.events.iter().filter(refused).count(),
            waiting
        );
        same!("waits without an answer", self.core.waits.len(), 0);
        same!("waits that are left", seen.waiting.len(), 0);
        same!("what is held", seen.held.len(), self.model.held.len());
        self.compare_counters()
    }
}

fn limits(model: &Model, more: [i8; 3]) -> [usize; 3] {
    let used = model.usage();
    [0, 1, 2].map(|at| used[at].saturating_add_signed(isize::from(more[at])))
}

/// The same call on the model. What the core made up (numbers and ages of lockers) is taken over.
fn on_model(
    model: &mut Model,
    core: &mut Core,
    now: Time,
    withdrawn: Option<u64>,
    step: &Step,
) -> Answer {
    let is_live = |model: &Model, slot: Slot| model.lockers[usize::from(slot)].is_some();
    match *step {
        Step::Begin {
            slot, parent, spec, ..
        } => {
            model.now = now;
            if parent.is_some_and(|parent| !is_live(model, parent)) {
                return Answer::Ended;
            }
            let id = core.ids[usize::from(slot)];
            model.begin(slot, parent, spec, || {
                let id = id.expect("the core has made it");
                let age = core.table.age(id).expect("it exists");
                (id.number(), age.number())
            })
        }
        Step::Request {
            slot,
            object,
            mode,
            from,
            patience,
        } => {
            if patience.is_some() {
                model.now = now;
            }
            if !is_live(model, slot) {
                return Answer::Ended;
            }
            let ask = Ask {
                locker: slot,
                object,
                mode,
                from,
            };
            model.request(ask, patience)
        }
        Step::Downgrade { slot, .. } | Step::Commit(slot) if !is_live(model, slot) => Answer::Ended,
        Step::Unlock { slot, .. } | Step::End(slot) if !is_live(model, slot) => Answer::Yes(false),
        Step::UnlockObject { slot, .. } | Step::ReleaseReads(slot) | Step::ReleaseAll(slot)
            if !is_live(model, slot) =>
        {
            Answer::Count(0)
        }
        Step::Downgrade {
            slot,
            object,
            from,
            to,
        } => model.downgrade(slot, object, from, to),
        Step::Commit(slot) => model.commit(slot),
        Step::Unlock { slot, object, mode } => model.unlock(slot, object, mode),
        Step::UnlockObject { slot, object } => model.unlock_object(slot, object),
        Step::ReleaseReads(slot) => model.release_reads(slot),
        Step::ReleaseAll(slot) => model.release_all(slot),
        Step::End(slot) => model.end(slot),
        Step::Withdraw(_) => model.withdraw(withdrawn.expect("the core's side has named it")),
        Step::Advance(..)
        | Step::UnlockHeld(_)
        | Step::DowngradeHeld(..)
        | Step::UpgradeHeld(..)
        | Step::Bury(..) => unreachable!("resolved before"),
        Step::Detect(policy) => {
            model.now = now;
            model.detect(policy)
        }
        Step::SetDetect(on_block, policy) => {
            model.now = now;
            model.set_detect(on_block, policy)
        }
        Step::SetTimeouts(timeouts) => {
            model.now = now;
            model.set_timeouts(timeouts)
        }
        Step::SetLimits(more) => model.set_limits(limits(model, more)),
    }
}
