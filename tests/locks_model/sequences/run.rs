//! One sequence on both sides, and what it is in the model's words: calls made one after the other.

use std::panic::Location;

use lockkeeper::Mode;
use lockkeeper::lock_core::{Failure, Op, OpOutcome, Patience as CorePatience, Sequence, WaitId};

use super::Bug;
use crate::calls::{Ask, Patience};
use crate::compare::{Difference, same};
use crate::core::object;
use crate::model::Model;
use crate::pair::Pair;
use crate::telling::refusal;
use crate::universe::{Obj, UNIVERSE};
use crate::words::{Answer, Slot, Wait};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Lock(Obj, Mode, bool),
    Upgrade(Obj, Mode, Mode),
    Downgrade(Obj, Mode, Mode),
    Unlock(Obj, Mode),
    UnlockObject(Obj),
    ReleaseReads,
    ReleaseAll,
}

impl Act {
    fn for_core(self) -> Op {
        match self {
            Act::Lock(at, mode, waits) => Op::Lock(named(at), mode, core_patience(waits)),
            Act::Upgrade(at, from, to) => Op::Upgrade(named(at), from, to, core_patience(true)),
            Act::Downgrade(at, from, to) => Op::Downgrade(named(at), from, to),
            Act::Unlock(at, mode) => Op::Unlock(named(at), mode),
            Act::UnlockObject(at) => Op::UnlockObject(named(at)),
            Act::ReleaseReads => Op::ReleaseReads,
            Act::ReleaseAll => Op::ReleaseAll,
        }
    }

    pub fn is_request(&self) -> bool {
        matches!(self, Act::Lock(..) | Act::Upgrade(..))
    }

    /// Whether one that releases several locks releases this one.
    fn releases(self, object: Obj, mode: Mode) -> bool {
        match self {
            Act::UnlockObject(only) => object == only,
            Act::ReleaseReads => matches!(mode, Mode::IntentRead | Mode::Read),
            Act::ReleaseAll => true,
            _ => false,
        }
    }
}

/// Where a sequence stands, in the model's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    Waits,
    Done,
    Failed(Answer),
}

/// What an act that was done came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Granted,
    Released(usize),
}

pub struct Run {
    pub slot: Slot,
    /// The locker's number: the slot can be given to another meanwhile.
    number: u64,
    pub acts: Vec<Act>,
    /// All or nothing; otherwise each takes effect at once, up to the first error.
    pub all_or_nothing: bool,
    pub next: usize,
    came: Vec<Came>,
    /// References that it took and holds.
    taken: Vec<(Obj, Mode)>,
    /// Those that were there before and have another mode now: object, old and new mode.
    changed: Vec<(Obj, Mode, Mode)>,
    due: Vec<(Obj, Mode)>,
    pub sequence: Sequence,
    pub wait: Option<(WaitId, u64)>,
    /// What its locker held at the beginning; none if another call has been made since.
    pub before: Option<Vec<(Obj, Mode, u64)>>,
    /// How many waits had been granted then, and its own since.
    pub grants: usize,
}

impl Run {
    pub fn new(pair: &Pair, slot: Slot, acts: Vec<Act>, all_or_nothing: bool, bug: Bug) -> Self {
        let mut ops: Vec<Op> = acts.iter().map(|act| act.for_core()).collect();
        let mut all = all_or_nothing;
        match bug {
            Bug::None => {}
            Bug::KeepsWhatFailed => all = false,
            Bug::UndoesWhatWasDone => all = true,
            Bug::ForgetsARelease => {
                let is_release =
                    |op: &Op| matches!(op, Op::UnlockObject(_) | Op::ReleaseReads | Op::ReleaseAll);
                if let Some(at) = ops.iter().position(is_release) {
                    ops[at] = Op::UnlockObject(lockkeeper::Object::new("nobody's", "a"));
                }
            }
            Bug::StaysStrong => {
                for op in &mut ops {
                    if let Op::Downgrade(_, from, to) = op {
                        *to = *from;
                    }
                }
            }
        }
        let id = pair.core.ids[usize::from(slot)].expect("a locker that lives");
        Self {
            slot,
            number: id.number(),
            sequence: Sequence::new(id, ops, all, Location::caller()),
            acts,
            all_or_nothing,
            next: 0,
            came: Vec::new(),
            taken: Vec::new(),
            changed: Vec::new(),
            due: Vec::new(),
            wait: None,
            before: Some(own(&pair.model, slot)),
            grants: super::grants(pair),
        }
    }

    fn lives(&self, model: &Model) -> bool {
        model.lockers[usize::from(self.slot)].is_some_and(|it| it.number == self.number)
    }

    /// The model goes on, call by call.
    pub fn on_model(&mut self, model: &mut Model) -> Stand {
        while let Some(act) = self.acts.get(self.next).copied() {
            let answer = match act {
                Act::Upgrade(object, from, _)
                | Act::Downgrade(object, from, _)
                | Act::Unlock(object, from)
                    if self.lacks(model, object, from) =>
                {
                    Answer::NotHeld
                }
                Act::Lock(object, mode, true) => {
                    self.ask(model, object, mode, None, Patience::Forever)
                }
                Act::Lock(object, mode, false) => self.ask(model, object, mode, None, Patience::No),
                Act::Upgrade(object, from, to) => {
                    // All or nothing: the old mode stays until the end.
                    let from = (!self.all_or_nothing).then_some(from);
                    self.ask(model, object, to, from, Patience::Forever)
                }
                Act::Downgrade(object, from, to) => match self.all_or_nothing {
                    true => add_weaker(model, self.slot, object, from, to),
                    false => model.downgrade(self.slot, object, from, to),
                },
                Act::Unlock(object, mode) => {
                    if self.all_or_nothing {
                        self.due.push((object, mode));
                    } else {
                        model.unlock(self.slot, object, mode);
                        self.forget(object, mode);
                    }
                    Answer::Count(1)
                }
                Act::UnlockObject(_) | Act::ReleaseReads | Act::ReleaseAll => {
                    self.release(model, act)
                }
            };
            match answer {
                Answer::Granted | Answer::Done => self.granted(),
                Answer::Count(count) => {
                    self.came.push(Came::Released(count));
                    self.next += 1;
                }
                Answer::Waits => {
                    model.settle();
                    return Stand::Waits;
                }
                refused => return self.failed(model, refused),
            }
        }
        self.release_due(model);
        let holds = model.held.iter().any(|held| held.locker == self.slot);
        if self.all_or_nothing && self.acts.contains(&Act::ReleaseAll) && !holds {
            let locker = model.locker_mut(self.slot);
            (locker.dead, locker.to_be_told) = (None, None);
        }
        model.settle();
        Stand::Done
    }

    fn ask(
        &self,
        model: &mut Model,
        object: Obj,
        mode: Mode,
        from: Option<Mode>,
        patience: Patience,
    ) -> Answer {
        let ask = Ask {
            locker: self.slot,
            object,
            mode,
            from,
        };
        model.goes_on = true;
        let answer = model.request(ask, Some(patience));
        model.goes_on = false;
        answer
    }

    fn due(&self, object: Obj, mode: Mode) -> u64 {
        self.due
            .iter()
            .filter(|due| **due == (object, mode))
            .count() as u64
    }

    fn lacks(&self, model: &Model, object: Obj, mode: Mode) -> bool {
        let held = model.lock_of(self.slot, object, mode);
        held.map_or(0, |at| model.held[at].count) <= self.due(object, mode)
    }

    /// The act that comes next, which takes something, has been granted.
    pub fn granted(&mut self) {
        match self.acts[self.next] {
            Act::Lock(object, mode, _) => self.taken.push((object, mode)),
            Act::Upgrade(object, from, to) | Act::Downgrade(object, from, to) => {
                if self.all_or_nothing {
                    self.due.push((object, from));
                    self.taken.push((object, to));
                } else if self.forget(object, from) {
                    self.taken.push((object, to));
                } else {
                    self.changed.push((object, from, to));
                }
            }
            act => unreachable!("{act:?} needs no grant"),
        }
        self.came.push(Came::Granted);
        self.next += 1;
    }

    /// A reference is gone; whether it was one that it had taken itself.
    fn forget(&mut self, object: Obj, mode: Mode) -> bool {
        let own = self.taken.iter().rposition(|own| *own == (object, mode));
        match own {
            Some(at) => drop(self.taken.remove(at)),
            None => self
                .changed
                .retain(|(at, _, to)| (*at, *to) != (object, mode)),
        }
        own.is_some()
    }

    fn release(&mut self, model: &mut Model, act: Act) -> Answer {
        if self.all_or_nothing {
            let mut released = 0;
            for (object, mode, count) in own(model, self.slot) {
                if act.releases(object, mode) {
                    let left = count.saturating_sub(self.due(object, mode));
                    released += usize::from(left > 0);
                    self.due.extend((0..left).map(|_| (object, mode)));
                }
            }
            return Answer::Count(released);
        }
        self.taken
            .retain(|(object, mode)| !act.releases(*object, *mode));
        self.changed
            .retain(|(object, _, mode)| !act.releases(*object, *mode));
        match act {
            Act::UnlockObject(object) => model.unlock_object(self.slot, object),
            Act::ReleaseReads => model.release_reads(self.slot),
            _ => model.release_all(self.slot),
        }
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
        if self.all_or_nothing {
            self.undo(model);
        }
        model.settle();
        Stand::Failed(answer)
    }

    /// Gives back what it took, the latest first; and what it changed, if nobody bars the way.
    pub fn undo(&mut self, model: &mut Model) {
        let lives = self.lives(model);
        while let Some((object, from, to)) = self.changed.pop() {
            if lives {
                take_back(model, self.slot, object, from, to);
            }
        }
        while let Some((object, mode)) = self.taken.pop() {
            if lives {
                model.unlock(self.slot, object, mode);
            }
        }
    }

    /// What the core says at the end is what the model did.
    pub fn compare_outcomes(self, stand: Stand) -> Result<(), Difference> {
        let next = self.next;
        let (outcomes, held) = self.sequence.finish(OpOutcome::clone);
        let left = held.each().map(|taken| (taken.object, taken.mode));
        let left: Vec<_> = left.collect();
        for (at, outcome) in outcomes.iter().enumerate() {
            let came = self.came.get(at).copied();
            let undone = self.all_or_nothing && stand != Stand::Done;
            let is_right = match outcome {
                OpOutcome::Granted => !undone && came == Some(Came::Granted),
                OpOutcome::Released(count) => !undone && came == Some(Came::Released(*count)),
                OpOutcome::Undone => undone && came.is_some(),
                OpOutcome::Failed(Failure::Denied(denied)) => {
                    at == next && stand == Stand::Failed(refusal(denied))
                }
                OpOutcome::Failed(Failure::Refused(_)) => at == next && stand != Stand::Done,
                OpOutcome::NotReached => at > next && stand != Stand::Done,
            };
            same!(
                format!("{outcome:?} at {at} of {:?}", self.acts),
                is_right,
                true
            );
        }
        same!("outcomes", outcomes.len(), self.acts.len());
        let changed = self.changed.iter().map(|(at, _, to)| (*at, *to));
        let own = self.taken.iter().copied().chain(changed);
        let own = own.map(|(at, mode)| (named(at), mode));
        same!("what it took and holds", left, own.collect::<Vec<_>>());
        Ok(())
    }
}

/// The weaker mode beside the stronger one, which is given up later.
fn add_weaker(model: &mut Model, slot: Slot, object: Obj, from: Mode, to: Mode) -> Answer {
    if let Some(dead) = model.death(slot) {
        return Answer::Dead(dead);
    }
    let held = model.lock_of(slot, object, from);
    let since = held.map(|at| model.held[at].since);
    let since = since.expect("it has been looked at that it is held");
    if !UNIVERSE.knows(object, to) {
        return Answer::UnknownMode;
    }
    if !UNIVERSE.is_no_stronger(object, to, from) {
        return Answer::NotWeaker;
    }
    model.give_since(slot, object, to, since);
    model.promote();
    Answer::Done
}

/// The lock has its old mode again, unless that excludes more and somebody is in its way.
fn take_back(model: &mut Model, slot: Slot, object: Obj, from: Mode, to: Mode) {
    let Some(at) = model.lock_of(slot, object, to) else {
        return model.settle();
    };
    let again = Wait {
        arrival: model.arrivals,
        object,
        locker: slot,
        mode: from,
        from: None,
        deadline: None,
        whose: None,
    };
    let is_barred = || model.must_wait(&again, model.rank(&again), &model.ranks());
    if !UNIVERSE.is_no_stronger(object, from, to) && is_barred() {
        return;
    }
    model.give_since(slot, object, from, model.held[at].since);
    model.take(slot, object, to);
    model.settle();
}

pub fn named(at: Obj) -> lockkeeper::Object {
    object(UNIVERSE.objects[usize::from(at)])
}

fn core_patience(waits: bool) -> CorePatience {
    match waits {
        true => CorePatience::Forever,
        false => CorePatience::No,
    }
}

pub fn own(model: &Model, slot: Slot) -> Vec<(Obj, Mode, u64)> {
    let own = model.held.iter().filter(|held| held.locker == slot);
    let mut own: Vec<_> = own
        .map(|held| (held.object, held.mode, held.count))
        .collect();
    own.sort_unstable();
    own
}
