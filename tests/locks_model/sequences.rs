//! Several operations of one locker, all or nothing, against the model making the same calls one by one.
//!
//! The model's rule: requests are made in order, and deadlocks are looked for when it stops; what is to be released is released after the last; if one is refused, or
//! nobody wants the answer any more, the references that were taken are given back, the latest first.

use std::panic::Location;

use lockkeeper::Mode;
use lockkeeper::lock_core::{
    Failure, Moment, Op, OpOutcome, Patience as CorePatience, Progress, Reason, Sequence, WaitId,
};

use super::calls::{Ask, Patience};
use super::compare::{Difference, same};
use super::core::object;
use super::model::Model;
use super::pair::Pair;
use super::scenes::{self, Dice, Theme};
use super::step::Step;
use super::telling::refusal;
use super::universe::{Obj, UNIVERSE};
use super::words::{Answer, Slot};

const HISTORIES: u64 = 40;
const STEPS: usize = 600;

#[derive(Debug, Clone, Copy)]
enum Act {
    Lock(Obj, Mode, bool),
    Upgrade(Obj, Mode, Mode),
    Unlock(Obj, Mode),
}

/// Where a sequence stands, in the model's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stand {
    Waits,
    Done,
    Failed(Answer),
}

/// A sequence on both sides.
struct Run {
    slot: Slot,
    /// The locker's number: the slot can be given to another meanwhile.
    number: u64,
    acts: Vec<Act>,
    next: usize,
    taken: Vec<(Obj, Mode)>,
    due: Vec<(Obj, Mode)>,
    sequence: Sequence,
    wait: Option<(WaitId, u64)>,
    /// What its locker held at the beginning; none if another call has been made since.
    before: Option<Vec<(Obj, Mode, u64)>>,
    /// How many waits had been granted then, and its own since.
    grants: usize,
}

fn grants(pair: &Pair) -> usize {
    pair.answers.iter().filter(|(_, granted)| *granted).count()
}

impl Run {
    fn new(pair: &Pair, slot: Slot, acts: Vec<Act>) -> Self {
        let ops = acts.iter().map(|act| match *act {
            Act::Lock(at, mode, waits) => Op::Lock(named(at), mode, core_patience(waits)),
            Act::Upgrade(at, from, to) => Op::Upgrade(named(at), from, to, core_patience(true)),
            Act::Unlock(at, mode) => Op::Unlock(named(at), mode),
        });
        let id = pair.core.ids[usize::from(slot)].expect("a locker that lives");
        Self {
            slot,
            number: id.number(),
            sequence: Sequence::new(id, ops.collect(), true, Location::caller()),
            acts,
            next: 0,
            taken: Vec::new(),
            due: Vec::new(),
            wait: None,
            before: Some(own(&pair.model, slot)),
            grants: grants(pair),
        }
    }

    fn lives(&self, model: &Model) -> bool {
        model.lockers[usize::from(self.slot)].is_some_and(|it| it.number == self.number)
    }

    /// The model goes on, call by call.
    fn on_model(&mut self, model: &mut Model) -> Stand {
        while let Some(act) = self.acts.get(self.next).copied() {
            if let Act::Upgrade(object, mode, _) | Act::Unlock(object, mode) = act
                && self.lacks(model, object, mode)
            {
                return self.failed(model, Answer::NotHeld);
            }
            let (object, mode, patience) = match act {
                Act::Unlock(object, mode) => {
                    self.due.push((object, mode));
                    self.next += 1;
                    continue;
                }
                Act::Lock(object, mode, true) | Act::Upgrade(object, _, mode) => {
                    (object, mode, Patience::Forever)
                }
                Act::Lock(object, mode, false) => (object, mode, Patience::No),
            };
            let ask = Ask {
                locker: self.slot,
                object,
                mode,
                from: None,
            };
            model.goes_on = true;
            let answer = model.request(ask, Some(patience));
            model.goes_on = false;
            match answer {
                Answer::Granted => self.granted(),
                Answer::Waits => {
                    model.settle();
                    return Stand::Waits;
                }
                refused => return self.failed(model, refused),
            }
        }
        self.release_due(model);
        model.settle();
        Stand::Done
    }

    fn lacks(&self, model: &Model, object: Obj, mode: Mode) -> bool {
        let held = model.lock_of(self.slot, object, mode);
        let count = held.map_or(0, |at| model.held[at].count);
        let due = self.due.iter().filter(|due| **due == (object, mode));
        count <= due.count() as u64
    }

    /// The request that comes next has been granted.
    fn granted(&mut self) {
        match self.acts[self.next] {
            Act::Lock(object, mode, _) => self.taken.push((object, mode)),
            Act::Upgrade(object, from, to) => {
                self.taken.push((object, to));
                self.due.push((object, from));
            }
            Act::Unlock(..) => unreachable!("it needs no grant"),
        }
        self.next += 1;
    }

    fn release_due(&mut self, model: &mut Model) {
        let mut due = self.due.clone();
        // In the order of objects, as the table does; it decides who else is granted first.
        due.sort_by_cached_key(|(at, mode)| (named(*at), *mode));
        for (object, mode) in due {
            if let Some(at) = self.taken.iter().rposition(|own| *own == (object, mode)) {
                self.taken.remove(at);
            }
            model.unlock(self.slot, object, mode);
        }
    }

    fn failed(&mut self, model: &mut Model, answer: Answer) -> Stand {
        self.undo(model);
        model.settle();
        Stand::Failed(answer)
    }

    fn undo(&mut self, model: &mut Model) {
        while let Some((object, mode)) = self.taken.pop() {
            if self.lives(model) {
                model.unlock(self.slot, object, mode);
            }
        }
    }

    /// What the core says at the end is what the model did.
    fn compare_outcomes(self, stand: Stand) -> Result<(), Difference> {
        let next = self.next;
        let (outcomes, left) = self.sequence.finish(|taken| (taken.object, taken.mode));
        for (at, outcome) in outcomes.iter().enumerate() {
            let is_right = match (stand, outcome) {
                (Stand::Done, OpOutcome::Granted) => !matches!(self.acts[at], Act::Unlock(..)),
                (Stand::Done, OpOutcome::Released(1)) => matches!(self.acts[at], Act::Unlock(..)),
                (Stand::Failed(_), OpOutcome::Undone) => at < next,
                (Stand::Failed(answer), OpOutcome::Failed(Failure::Denied(denied))) => {
                    at == next && refusal(denied) == answer
                }
                (Stand::Failed(_), OpOutcome::Failed(Failure::Refused(_))) => at == next,
                (Stand::Failed(_), OpOutcome::NotReached) => at > next,
                _ => false,
            };
            same!(
                format!("{outcome:?} at {at} of {:?}", self.acts),
                is_right,
                true
            );
        }
        same!("outcomes", outcomes.len(), self.acts.len());
        let taken = self.taken.iter().map(|(at, mode)| (named(*at), *mode));
        same!("what it took and holds", left, taken.collect::<Vec<_>>());
        Ok(())
    }
}

fn named(at: Obj) -> lockkeeper::Object {
    object(UNIVERSE.objects[usize::from(at)])
}

fn core_patience(waits: bool) -> CorePatience {
    match waits {
        true => CorePatience::Forever,
        false => CorePatience::No,
    }
}

fn own(model: &Model, slot: Slot) -> Vec<(Obj, Mode, u64)> {
    let own = model.held.iter().filter(|held| held.locker == slot);
    let mut own: Vec<_> = own
        .map(|held| (held.object, held.mode, held.count))
        .collect();
    own.sort_unstable();
    own
}

/// How sequences ended.
#[derive(Debug, Default)]
struct Ends {
    done: usize,
    waited: usize,
    denied: usize,
    refused: usize,
    abandoned: usize,
    /// Undone with nothing in between, so that exactly what was before has to be back.
    restored: usize,
}

struct Story {
    pair: Pair,
    running: Vec<Run>,
    ends: Ends,
}

impl Story {
    fn step(&mut self, step: &Step) -> Result<(), Difference> {
        self.touch();
        self.pair.run(step)?;
        self.go_on()
    }

    fn touch(&mut self) {
        self.running.iter_mut().for_each(|run| run.before = None);
    }

    fn begin(&mut self, dice: &mut Dice) -> Result<(), Difference> {
        let live: Vec<Slot> = self.pair.model.live().collect();
        if live.is_empty() {
            return Ok(());
        }
        let slot = dice.of(&live);
        let own = own(&self.pair.model, slot);
        let acts = (0..2 + dice.below(4)).map(|_| {
            let (object, mode) = (dice.below(6) as Obj, dice.of(&Mode::ALL));
            match (dice.below(10), own.is_empty()) {
                (0..2, false) => {
                    let (object, mode, _) = dice.of(&own);
                    Act::Unlock(object, mode)
                }
                (2..4, false) => {
                    let (object, from, _) = dice.of(&own);
                    Act::Upgrade(object, from, mode)
                }
                (4, _) => Act::Unlock(object, mode),
                _ => Act::Lock(object, mode, !dice.percent(25)),
            }
        });
        let run = Run::new(&self.pair, slot, acts.collect());
        self.touch();
        self.run(run)?;
        self.go_on()
    }

    /// Both sides go on until the sequence has to wait, or to its end.
    fn run(&mut self, mut run: Run) -> Result<(), Difference> {
        let pair = &mut self.pair;
        let now = Moment(pair.now);
        let core = &mut pair.core;
        let progress = run.sequence.run(&mut core.table, || now, &mut core.effects);
        if let Progress::Waits(wait) = progress {
            let (waits_for, _) = run.sequence.wanted().expect("it waits for something");
            pair.objects.push(core.number_of(waits_for, &mut 0));
            run.wait = Some((wait, core.arrivals));
            core.waits.push((wait, core.arrivals));
            core.arrivals += 1;
        }
        let first = run.next;
        let mut stand = Stand::Done;
        pair.compare(&Step::Withdraw(0), Answer::Done, |model, _, now| {
            model.now = now;
            stand = run.on_model(model);
            Answer::Done
        })?;
        let tally = &mut pair.tally;
        let is_request = |act: &&Act| !matches!(act, Act::Unlock(..));
        tally.grants += run.acts[first..run.next].iter().filter(is_request).count() as u64;
        match stand {
            Stand::Waits => tally.waits += 1,
            Stand::Failed(Answer::NotAvailable) => tally.not_available += 1,
            Stand::Failed(Answer::Limit(..)) => tally.limits_met += 1,
            _ => {}
        }
        same!(
            "it waits",
            progress != Progress::Done,
            stand == Stand::Waits
        );
        match stand {
            Stand::Waits => {
                self.ends.waited += 1;
                self.running.push(run);
                return Ok(());
            }
            Stand::Done => self.ends.done += 1,
            Stand::Failed(_) => {
                self.ends.denied += 1;
                self.is_restored(&run)?;
            }
        }
        self.touch();
        run.compare_outcomes(stand)
    }

    /// Exactly what was held before is held again, if there was no other call in between, and nobody else's grant.
    fn is_restored(&mut self, run: &Run) -> Result<(), Difference> {
        if let Some(before) = &run.before
            && run.grants == grants(&self.pair)
        {
            same!("what is restored", own(&self.pair.model, run.slot), *before);
            self.ends.restored += 1;
        }
        Ok(())
    }

    /// Sequences whose requests have had their answers go on, or are undone.
    fn go_on(&mut self) -> Result<(), Difference> {
        while let Some((at, granted)) = self.next_answered() {
            let mut run = self.running.remove(at);
            run.wait = None;
            match granted {
                Some(true) => {
                    run.sequence.granted();
                    run.granted();
                    run.grants += 1;
                    self.run(run)?;
                }
                Some(false) => {
                    self.ends.refused += 1;
                    self.undo(run, true)?;
                }
                None => {
                    self.ends.abandoned += 1;
                    self.undo(run, false)?;
                }
            }
        }
        Ok(())
    }

    /// A sequence whose request has had its answer, or has been withdrawn.
    fn next_answered(&self) -> Option<(usize, Option<bool>)> {
        self.running.iter().enumerate().find_map(|(at, run)| {
            let wait = run.wait?;
            let answer = self
                .pair
                .answers
                .iter()
                .rev()
                .find(|(arrival, _)| *arrival == wait.1);
            match answer {
                Some((_, granted)) => Some((at, Some(*granted))),
                None => (!self.pair.core.waits.contains(&wait)).then_some((at, None)),
            }
        })
    }

    fn undo(&mut self, mut run: Run, refused: bool) -> Result<(), Difference> {
        let core = &mut self.pair.core;
        match refused {
            true => {
                let (table, effects) = (&mut core.table, &mut core.effects);
                run.sequence.refused(Reason::Ended, table, effects);
            }
            false => run.sequence.abandon(&mut core.table, &mut core.effects),
        }
        self.pair
            .compare(&Step::Withdraw(0), Answer::Done, |model, _, _| {
                run.undo(model);
                Answer::Done
            })?;
        self.is_restored(&run)?;
        self.touch();
        match refused {
            true => run.compare_outcomes(Stand::Failed(Answer::Ended)),
            false => Ok(()),
        }
    }

    /// Nobody wants the latest of those that wait any more.
    fn abandon(&mut self) -> Result<(), Difference> {
        let Some(wait) = self.running.last().and_then(|run| run.wait) else {
            return Ok(());
        };
        let waits = &self.pair.core.waits;
        let back = waits.iter().rev().position(|other| *other == wait);
        let back = back.expect("it waits") as u8;
        self.pair.run(&Step::Withdraw(back))?;
        self.go_on()
    }
}

fn history(theme: Theme, seed: u64, ends: &mut Ends) -> Result<(), Difference> {
    let mut story = Story {
        pair: Pair::new(scenes::config(theme, seed)),
        running: Vec::new(),
        ends: std::mem::take(ends),
    };
    let numbers: Vec<u64> = (0..STEPS as u64).map(|at| (seed << 32) + at).collect();
    let mut dice = Dice::new(seed);
    for step in scenes::history(theme, &numbers, STEPS) {
        if dice.percent(30) {
            story.begin(&mut dice)?;
            if dice.percent(30) {
                story.abandon()?;
            }
        }
        story.step(&step)?;
    }
    while !story.running.is_empty() {
        story.abandon()?;
    }
    *ends = std::mem::take(&mut story.ends);
    story.pair.finish()
}

#[test]
fn i05_i06_i12_sequences_that_are_refused_or_abandoned_are_undone_as_the_model_says() {
    for theme in [Theme::Hot, Theme::Families, Theme::Ranges] {
        let mut ends = Ends::default();
        for seed in 0..HISTORIES {
            if let Err(difference) = history(theme, seed, &mut ends) {
                panic!("{theme:?}, seed {seed}: {}", difference.0);
            }
        }
        println!("{theme:?}: {ends:?}");
        let Ends {
            done,
            waited,
            denied,
            refused,
            abandoned,
            restored,
        } = ends;
        let each = [done, waited, denied, refused, abandoned, restored];
        assert!(each.iter().all(|count| *count > 100), "{theme:?}: {each:?}");
    }
}
