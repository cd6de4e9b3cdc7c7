//! Several operations of one locker, in order (Berkeley DB's `lock_vec`).
//!
//! What is asked for is taken at once, and held while later requests wait. When all or nothing is
//! wanted, releases and downgrades take effect only when the last request has been granted: what is
//! released could not be taken back. If anything fails, exactly what the sequence took is released again.

use std::collections::BTreeMap;
use std::panic::Location;

use super::held::{Changed, Held, Step};
use super::op::{Failure, Op, OpOutcome, Progress};
use super::{
    Denied, Effect, LockId, LockerId, Mode, Moment, Object, Reason, Request, Table, WaitId,
};

type References = BTreeMap<(Object, Mode), u64>;

/// A sequence of operations on its way.
#[derive(Debug)]
pub struct Sequence {
    locker: LockerId,
    site: &'static Location<'static>,
    ops: Vec<Op>,
    all_or_nothing: bool,
    next: usize,
    /// What has become of each operation so far.
    steps: Vec<Step>,
    /// What is to be released at the end, in references.
    due: References,
    /// Locks that were there before and have another mode now.
    changed: Vec<Changed>,
    /// Whether it knows of all that it took which locks they are.
    knows_locks: bool,
    /// Whether all that the locker holds is to be released, so that it may be used again.
    revives: bool,
    done: bool,
}

impl Sequence {
    /// A sequence that has not begun.
    #[must_use]
    pub fn new(
        locker: LockerId,
        ops: Vec<Op>,
        all_or_nothing: bool,
        site: &'static Location<'static>,
    ) -> Self {
        Self {
            locker,
            site,
            steps: Vec::with_capacity(ops.len()),
            all_or_nothing,
            next: 0,
            due: References::new(),
            changed: Vec::new(),
            knows_locks: true,
            revives: false,
            done: false,
            ops,
        }
    }

    /// Goes on until it has to wait, or to its end. The time is asked for only when it has to wait.
    pub fn run(
        &mut self,
        table: &mut Table,
        now: impl Fn() -> Moment,
        effects: &mut Vec<Effect>,
    ) -> Progress {
        let progress = self.with_ops(|own, ops| own.run_all(ops, table, &now, effects));
        table.finish(effects);
        if let Progress::Waits(_) = progress {
            // Its locker can let one go and take another like it before it goes on.
            self.locks_mut().for_each(|lock| *lock = None);
            self.knows_locks = false;
        }
        progress
    }

    fn locks_mut(&mut self) -> impl Iterator<Item = &mut Option<LockId>> {
        let held = self.steps.iter_mut().filter_map(|step| match step {
            Step::Holds(lock) => Some(lock),
            Step::Came(_) => None,
        });
        held.chain(self.changed.iter_mut().map(|changed| &mut changed.lock))
    }

    /// Its operations are out of the way while its steps change it.
    fn with_ops<R>(&mut self, step: impl FnOnce(&mut Self, &[Op]) -> R) -> R {
        let ops = std::mem::take(&mut self.ops);
        let answer = step(self, &ops);
        self.ops = ops;
        answer
    }

    fn run_all(
        &mut self,
        ops: &[Op],
        table: &mut Table,
        now: &impl Fn() -> Moment,
        effects: &mut Vec<Effect>,
    ) -> Progress {
        while !self.done {
            let Some(op) = ops.get(self.next) else {
                self.release_due(ops, table, effects);
                if self.revives {
                    table.revive(self.locker);
                }
                self.done = true;
                break;
            };
            match self.step(ops, op, table, now, effects) {
                Ok(None) => self.next += 1,
                Ok(Some(wait)) => return Progress::Waits(wait),
                Err(denied) => self.fail(ops, Failure::Denied(denied), table, effects),
            }
        }
        Progress::Done
    }

    /// Whether nothing is left to be done but the releases.
    #[must_use]
    pub fn is_at_its_end(&self) -> bool {
        self.done || self.next >= self.ops.len()
    }

    /// What the request that it waits for wants.
    #[must_use]
    pub fn wanted(&self) -> Option<(&Object, Mode)> {
        match self.ops.get(self.next)? {
            Op::Lock(object, mode, _) | Op::Upgrade(object, _, mode, _) => Some((object, *mode)),
            _ => None,
        }
    }

    /// The request that it waited for has been granted; [`run`](Self::run) goes on.
    pub fn granted(&mut self) {
        self.with_ops(|own, ops| match ops.get(own.next) {
            Some(Op::Upgrade(object, from, ..)) => own.exchanged(ops, object, *from, None),
            _ => own.took(None),
        });
        self.next += 1;
    }

    /// The request that it waited for has been refused: the sequence has failed.
    pub fn refused(&mut self, reason: Reason, table: &mut Table, effects: &mut Vec<Effect>) {
        self.with_ops(|own, ops| own.fail(ops, Failure::Refused(reason), table, effects));
    }

    /// Undoes what it took, because nobody waits for it any more.
    pub fn abandon(&mut self, table: &mut Table, effects: &mut Vec<Effect>) {
        self.with_ops(|own, ops| own.undo(ops, table, effects));
    }

    fn undo(&mut self, ops: &[Op], table: &mut Table, effects: &mut Vec<Effect>) {
        table.count_use();
        for changed in std::mem::take(&mut self.changed).into_iter().rev() {
            if let Some(Op::Upgrade(object, from, to, _) | Op::Downgrade(object, from, to)) =
                ops.get(changed.op)
            {
                // If others bar the way back it keeps its new mode.
                table.take_back(self.locker, object, *to, Some(*from), effects);
            }
        }
        for (step, op) in self.steps.iter_mut().zip(ops).rev() {
            if let (Step::Holds(_), Some((object, mode))) = (&step, op.target()) {
                *step = Step::Came(OpOutcome::Undone);
                table.unlock(self.locker, object, mode, effects);
            }
        }
        self.done = true;
    }

    /// Finds out which locks they are that it took and still holds, for [`finish`](Self::finish). To be
    /// called when it is done.
    pub fn find_locks(&mut self, table: &Table) {
        if self.knows_locks {
            return;
        }
        let find = |lock: &mut Option<LockId>, op: Option<&Op>| {
            if lock.is_none()
                && let Some((object, mode)) = op.and_then(Op::target)
            {
                *lock = table.lock_id(self.locker, object, mode);
            }
        };
        for (step, op) in self.steps.iter_mut().zip(&self.ops) {
            if let Step::Holds(lock) = step {
                find(lock, Some(op));
            }
        }
        for changed in &mut self.changed {
            find(&mut changed.lock, self.ops.get(changed.op));
        }
        self.knows_locks = true;
    }

    /// What is made of the outcome of each operation, and what it took and still holds.
    #[must_use]
    pub fn finish<T>(self, mut came: impl FnMut(&OpOutcome) -> T) -> (Vec<T>, Held) {
        let mut outcomes = Vec::with_capacity(self.steps.len());
        outcomes.extend(self.steps.iter().map(|step| match step {
            Step::Holds(_) => came(&OpOutcome::Granted),
            Step::Came(outcome) => came(outcome),
        }));
        // As they stand: most are released without another look at each.
        let held = Held {
            ops: self.ops,
            steps: self.steps,
            changed: self.changed,
        };
        (outcomes, held)
    }

    /// Does one operation. `None` if it is done, or else what it waits for.
    fn step(
        &mut self,
        ops: &[Op],
        op: &Op,
        table: &mut Table,
        now: &impl Fn() -> Moment,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<WaitId>, Denied> {
        let locker = self.locker;
        let later = self.all_or_nothing;
        if !later && !matches!(op, Op::Lock(..) | Op::Upgrade(..)) {
            table.count_use();
        }
        match op {
            Op::Lock(object, mode, patience) => {
                let request = self.request(object, *mode, None);
                match table.request_among_others(now, request, *patience, effects)? {
                    Ok(lock) => self.took(Some(lock)),
                    Err(wait) => return Ok(Some(wait)),
                }
            }
            Op::Upgrade(object, from, to, patience) => {
                self.check_held(table, object, *from)?;
                let request = self.request(object, *to, (!later).then_some(*from));
                match table.request_among_others(now, request, *patience, effects)? {
                    Ok(lock) => self.exchanged(ops, object, *from, Some(lock)),
                    Err(wait) => return Ok(Some(wait)),
                }
            }
            Op::Downgrade(object, from, to) => {
                self.check_held(table, object, *from)?;
                if later {
                    table.add_weaker(locker, object, *from, *to, true)?;
                    table.promote(effects);
                } else {
                    table.downgrade(locker, object, *from, *to, effects)?;
                }
                self.exchanged(ops, object, *from, None);
                self.knows_locks = false;
            }
            Op::Unlock(object, mode) if later => {
                self.check_held(table, object, *mode)?;
                *self.due.entry((object.clone(), *mode)).or_default() += 1;
                self.came(OpOutcome::Released(1));
            }
            Op::Unlock(object, mode) => {
                if !table.unlock(locker, object, *mode, effects) {
                    return Err(Denied::NotHeld);
                }
                self.forget(ops, object, *mode);
                self.came(OpOutcome::Released(1));
            }
            Op::UnlockObject(only) => {
                let which = |object: &Object, _| object == only;
                match later {
                    true => self.release_later(table, which),
                    false => {
                        let released = table.unlock_object(locker, only, effects);
                        self.released(ops, released, which);
                    }
                }
            }
            Op::ReleaseReads => {
                let which = |_: &Object, mode| matches!(mode, Mode::IntentRead | Mode::Read);
                match later {
                    true => self.release_later(table, which),
                    false => {
                        let released = table.release_reads(locker, effects);
                        self.released(ops, released, which);
                    }
                }
            }
            Op::ReleaseAll => match later {
                true => {
                    self.revives = true;
                    self.release_later(table, |_, _| true);
                }
                false => {
                    let released = table.release_all(locker, effects);
                    self.released(ops, released, |_, _| true);
                }
            },
        }
        Ok(None)
    }

    fn request<'a>(&self, object: &'a Object, mode: Mode, from: Option<Mode>) -> Request<'a> {
        Request {
            locker: self.locker,
            object,
            mode,
            from,
            site: self.site,
        }
    }

    /// How many references are going to be released anyway.
    fn due(&self, object: &Object, mode: Mode) -> u64 {
        match self.due.is_empty() {
            true => 0,
            false => self.due.get(&(object.clone(), mode)).copied().unwrap_or(0),
        }
    }

    /// Whether a reference is held that is not going to be released anyway.
    fn check_held(&self, table: &Table, object: &Object, mode: Mode) -> Result<(), Denied> {
        match table.references(self.locker, object, mode) > self.due(object, mode) {
            true => Ok(()),
            false => Err(Denied::NotHeld),
        }
    }

    /// The operation that comes next has taken a lock.
    fn took(&mut self, lock: Option<LockId>) {
        self.steps.push(Step::Holds(lock));
    }

    fn came(&mut self, outcome: OpOutcome) {
        self.steps.push(Step::Came(outcome));
    }

    /// The operation that comes next has changed the mode of one reference, or is going to.
    fn exchanged(&mut self, ops: &[Op], object: &Object, from: Mode, lock: Option<LockId>) {
        if self.all_or_nothing {
            *self.due.entry((object.clone(), from)).or_default() += 1;
            self.took(lock);
        } else if self.forget(ops, object, from) {
            self.took(lock);
        } else {
            let op = self.next;
            self.changed.push(Changed { op, lock });
            self.came(OpOutcome::Granted);
        }
    }

    /// What the locker holds of these is to be released at the end.
    fn release_later(&mut self, table: &Table, which: impl Fn(&Object, Mode) -> bool) {
        let mut released = 0;
        for (object, mode, count) in table.held_by(self.locker) {
            if !which(&object, mode) {
                continue;
            }
            let left = count.saturating_sub(self.due(&object, mode));
            released += usize::from(left > 0);
            *self.due.entry((object, mode)).or_default() += left;
        }
        self.came(OpOutcome::Released(released));
    }

    /// What the locker held of these has been released.
    fn released(&mut self, ops: &[Op], count: usize, which: impl Fn(&Object, Mode) -> bool) {
        let goes = |op: Option<&Op>| {
            let what = op.and_then(Op::target);
            what.is_none_or(|(object, mode)| which(object, mode))
        };
        for (step, op) in self.steps.iter_mut().zip(ops) {
            if matches!(step, Step::Holds(_)) && goes(Some(op)) {
                *step = Step::Came(OpOutcome::Granted);
            }
        }
        self.changed.retain(|changed| !goes(ops.get(changed.op)));
        self.came(OpOutcome::Released(count));
    }

    /// Releases what is due; of its own references the latest go first.
    fn release_due(&mut self, ops: &[Op], table: &mut Table, effects: &mut Vec<Effect>) {
        let mut due = std::mem::take(&mut self.due);
        if due.is_empty() {
            return;
        }
        table.count_use();
        for ((object, mode), count) in &due {
            table.unlock_many(self.locker, object, *mode, *count, effects);
        }
        for (step, op) in self.steps.iter_mut().zip(ops).rev() {
            if let (Step::Holds(_), Some((object, mode))) = (&step, op.target())
                && let Some(left) = due.get_mut(&(object.clone(), mode))
                && *left > 0
            {
                *left -= 1;
                *step = Step::Came(OpOutcome::Granted);
            }
        }
    }

    /// A reference is gone; whether it was one that it had taken itself.
    fn forget(&mut self, ops: &[Op], object: &Object, mode: Mode) -> bool {
        let is_it = |op: Option<&Op>| op.and_then(Op::target) == Some((object, mode));
        let mut own = self.steps.iter_mut().zip(ops).rev();
        let own = own.find(|(step, op)| matches!(step, Step::Holds(_)) && is_it(Some(op)));
        match own {
            Some((step, _)) => {
                *step = Step::Came(OpOutcome::Granted);
                true
            }
            None => {
                self.changed.retain(|changed| !is_it(ops.get(changed.op)));
                false
            }
        }
    }

    fn fail(&mut self, ops: &[Op], failure: Failure, table: &mut Table, effects: &mut Vec<Effect>) {
        if self.all_or_nothing {
            self.undo(ops, table, effects);
            self.due.clear();
            self.steps.fill(Step::Came(OpOutcome::Undone));
        }
        self.came(OpOutcome::Failed(failure));
        let left = Step::Came(OpOutcome::NotReached);
        self.steps.resize(ops.len(), left);
        self.done = true;
    }
}
