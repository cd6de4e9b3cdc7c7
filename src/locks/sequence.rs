//! Several operations of one locker, in order (Berkeley DB's `lock_vec`).
//!
//! What is asked for is taken at once, and held while later requests wait. When all or nothing is
//! wanted, releases and downgrades take effect only when the last request has been granted: what is
//! released could not be taken back. If anything fails, exactly what the sequence took is released again.

use std::panic::Location;

use super::{
    Denied, Effect, LockerId, Mode, Moment, Object, Patience, Reason, Request, Table, WaitId,
};

/// One operation.
#[derive(Debug, Clone)]
pub enum Op {
    /// Lock the object.
    Lock(Object, Mode, Patience),
    /// Change one reference of a lock from the first mode to the second, waiting if need be.
    Upgrade(Object, Mode, Mode, Patience),
    /// Weaken one reference of a lock.
    Downgrade(Object, Mode, Mode),
    /// Release one reference of a lock.
    Unlock(Object, Mode),
    /// Release all locks of the locker on the object.
    UnlockObject(Object),
    /// Release what is held for reading.
    ReleaseReads,
    /// Release everything.
    ReleaseAll,
}

/// What became of one operation.
#[derive(Debug, Clone)]
pub enum OpOutcome {
    /// The lock is granted, or changed.
    Granted,
    /// So many locks, or references of one, were released.
    Released(usize),
    /// It failed.
    Failed(Failure),
    /// It was done, and undone because a later one failed.
    Undone,
    /// An earlier one failed.
    NotReached,
}

/// Why an operation failed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// It was refused at once.
    Denied(Denied),
    /// It waited, and was refused.
    Refused(Reason),
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It goes on when this request has been granted or refused.
    Waits(WaitId),
    /// It has come to its end, or failed.
    Done,
}

/// A sequence of operations on its way.
#[derive(Debug)]
pub struct Sequence {
    locker: LockerId,
    site: &'static Location<'static>,
    ops: Vec<Op>,
    all_or_nothing: bool,
    next: usize,
    outcomes: Vec<OpOutcome>,
    /// What it took and still holds: one entry for each reference.
    taken: Vec<(Object, Mode)>,
    /// References that are to be released at the end.
    due: Vec<(Object, Mode)>,
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
            outcomes: Vec::with_capacity(ops.len()),
            ops,
            all_or_nothing,
            next: 0,
            taken: Vec::new(),
            due: Vec::new(),
            done: false,
        }
    }

    /// Goes on until it has to wait, or to its end.
    pub fn run(&mut self, table: &mut Table, now: Moment, effects: &mut Vec<Effect>) -> Progress {
        // Out of the way while its steps change the sequence.
        let ops = std::mem::take(&mut self.ops);
        let progress = self.run_all(&ops, table, now, effects);
        self.ops = ops;
        progress
    }

    fn run_all(
        &mut self,
        ops: &[Op],
        table: &mut Table,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> Progress {
        while !self.done {
            let Some(op) = ops.get(self.next) else {
                for (object, mode) in std::mem::take(&mut self.due) {
                    table.unlock(self.locker, &object, mode, effects);
                    self.forget(&object, mode);
                }
                self.done = true;
                break;
            };
            match self.step(op, table, now, effects) {
                Ok(Ok(outcome)) => {
                    self.outcomes.push(outcome);
                    self.next += 1;
                }
                Ok(Err(wait)) => return Progress::Waits(wait),
                Err(denied) => self.fail(Failure::Denied(denied), ops.len(), table, effects),
            }
        }
        Progress::Done
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
        match self.ops.get(self.next) {
            Some(Op::Lock(object, mode, _)) => self.taken.push((object.clone(), *mode)),
            Some(Op::Upgrade(object, from, to, _)) => {
                let (object, from, to) = (object.clone(), *from, *to);
                self.exchanged(object, from, to);
            }
            _ => {}
        }
        self.outcomes.push(OpOutcome::Granted);
        self.next += 1;
    }

    /// The request that it waited for has been refused: the sequence has failed.
    pub fn refused(&mut self, reason: Reason, table: &mut Table, effects: &mut Vec<Effect>) {
        self.fail(Failure::Refused(reason), self.ops.len(), table, effects);
    }

    /// Undoes what it took, because nobody waits for it any more.
    pub fn abandon(&mut self, table: &mut Table, effects: &mut Vec<Effect>) {
        for (object, mode) in std::mem::take(&mut self.taken).into_iter().rev() {
            table.unlock(self.locker, &object, mode, effects);
        }
        self.done = true;
    }

    /// What became of each operation, and what it took and still holds: an entry for each reference.
    #[must_use]
    pub fn finish(self) -> (Vec<OpOutcome>, Vec<(Object, Mode)>) {
        (self.outcomes, self.taken)
    }

    fn step(
        &mut self,
        op: &Op,
        table: &mut Table,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> Result<Result<OpOutcome, WaitId>, Denied> {
        let locker = self.locker;
        let later = self.all_or_nothing;
        Ok(Ok(match op {
            Op::Lock(object, mode, patience) => {
                let request = self.request(object, *mode, None);
                if let Some(wait) = table.request(now, request, *patience, effects)? {
                    return Ok(Err(wait));
                }
                self.taken.push((object.clone(), *mode));
                OpOutcome::Granted
            }
            Op::Upgrade(object, from, to, patience) => {
                self.check_held(table, object, *from)?;
                let request = self.request(object, *to, (!later).then_some(*from));
                if let Some(wait) = table.request(now, request, *patience, effects)? {
                    return Ok(Err(wait));
                }
                self.exchanged(object.clone(), *from, *to);
                OpOutcome::Granted
            }
            Op::Downgrade(object, from, to) => {
                self.check_held(table, object, *from)?;
                if later {
                    table.add_weaker(locker, object, *from, *to)?;
                    table.promote(effects);
                } else {
                    table.downgrade(locker, object, *from, *to, effects)?;
                }
                self.exchanged(object.clone(), *from, *to);
                OpOutcome::Granted
            }
            Op::Unlock(object, mode) if later => {
                self.check_held(table, object, *mode)?;
                self.due.push((object.clone(), *mode));
                OpOutcome::Released(1)
            }
            Op::Unlock(object, mode) => {
                if !table.unlock(locker, object, *mode, effects) {
                    return Err(Denied::NotHeld);
                }
                self.forget(object, *mode);
                OpOutcome::Released(1)
            }
            Op::UnlockObject(only) => {
                self.release(table, later, effects, |object, _| object == only)
            }
            Op::ReleaseReads => self.release(table, later, effects, |_, mode| {
                matches!(mode, Mode::IntentRead | Mode::Read)
            }),
            Op::ReleaseAll => self.release(table, later, effects, |_, _| true),
        }))
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

    /// Whether a reference is held that is not going to be released anyway.
    fn check_held(&self, table: &Table, object: &Object, mode: Mode) -> Result<(), Denied> {
        let held = table.references(self.locker, object, mode);
        let due = self
            .due
            .iter()
            .filter(|due| due.0 == *object && due.1 == mode);
        match held > due.count() as u64 {
            true => Ok(()),
            false => Err(Denied::NotHeld),
        }
    }

    /// One reference has changed its mode, or is going to.
    fn exchanged(&mut self, object: Object, from: Mode, to: Mode) {
        if self.all_or_nothing {
            self.due.push((object.clone(), from));
        } else {
            self.forget(&object, from);
        }
        self.taken.push((object, to));
    }

    fn release(
        &mut self,
        table: &mut Table,
        later: bool,
        effects: &mut Vec<Effect>,
        which: impl Fn(&Object, Mode) -> bool,
    ) -> OpOutcome {
        let mut released = 0;
        for (object, mode, count) in table.held_by(self.locker) {
            if !which(&object, mode) {
                continue;
            }
            let due = self
                .due
                .iter()
                .filter(|due| due.0 == object && due.1 == mode);
            let left = count.saturating_sub(due.count() as u64);
            released += usize::from(left > 0);
            for _ in 0..left {
                if later {
                    self.due.push((object.clone(), mode));
                } else {
                    table.unlock(self.locker, &object, mode, effects);
                    self.forget(&object, mode);
                }
            }
        }
        OpOutcome::Released(released)
    }

    /// A reference is gone: one of its own, if it took any.
    fn forget(&mut self, object: &Object, mode: Mode) {
        let mut taken = self.taken.iter();
        if let Some(at) = taken.rposition(|own| own.0 == *object && own.1 == mode) {
            self.taken.remove(at);
        }
    }

    fn fail(
        &mut self,
        failure: Failure,
        operations: usize,
        table: &mut Table,
        effects: &mut Vec<Effect>,
    ) {
        if self.all_or_nothing {
            self.abandon(table, effects);
            self.due.clear();
            self.outcomes.fill(OpOutcome::Undone);
        }
        self.outcomes.push(OpOutcome::Failed(failure));
        self.outcomes.resize(operations, OpOutcome::NotReached);
        self.done = true;
    }
}
