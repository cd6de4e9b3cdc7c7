//! Several operations of one locker, in order (Berkeley DB's `lock_vec`).
//!
//! What is asked for is taken at once, and held while later requests wait. When all or nothing is
//! wanted, releases and downgrades take effect only when the last request has been granted: what is
//! released could not be taken back. If anything fails, exactly what the sequence took is released again.

use std::collections::BTreeMap;
use std::panic::Location;

use super::{
    Denied, Effect, LockId, LockerId, Mode, Moment, Object, Patience, Reason, Request, Table,
    WaitId,
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

/// A reference that a sequence took and still holds.
#[derive(Debug)]
pub struct Taken {
    /// What is locked.
    pub object: Object,
    /// How.
    pub mode: Mode,
    /// Which lock it is, as far as that is known.
    pub lock: Option<LockId>,
}

type References = BTreeMap<(Object, Mode), u64>;

/// A sequence of operations on its way.
#[derive(Debug)]
pub struct Sequence {
    locker: LockerId,
    site: &'static Location<'static>,
    /// How many there are in all.
    operations: usize,
    /// Those that have not been begun.
    ops: std::vec::IntoIter<Op>,
    /// The one that waits.
    waits: Option<Op>,
    all_or_nothing: bool,
    outcomes: Vec<OpOutcome>,
    /// What it took and still holds: one entry for each reference.
    taken: Vec<Taken>,
    /// What is to be released at the end, in references.
    due: References,
    /// Locks that were there before and have another mode now: from which, to which.
    changed: Vec<(Object, Mode, Mode)>,
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
            outcomes: Vec::with_capacity(ops.len()),
            all_or_nothing,
            waits: None,
            taken: Vec::with_capacity(ops.len()),
            due: References::new(),
            changed: Vec::new(),
            revives: false,
            done: false,
            operations: ops.len(),
            ops: ops.into_iter(),
        }
    }

    /// Goes on until it has to wait, or to its end.
    pub fn run(&mut self, table: &mut Table, now: Moment, effects: &mut Vec<Effect>) -> Progress {
        let progress = self.run_all(table, now, effects);
        table.finish(effects);
        progress
    }

    fn run_all(&mut self, table: &mut Table, now: Moment, effects: &mut Vec<Effect>) -> Progress {
        while !self.done {
            let Some(op) = self.ops.next() else {
                self.release_due(table, effects);
                if self.revives {
                    table.revive(self.locker);
                }
                self.done = true;
                break;
            };
            match self.step(op, table, now, effects) {
                Ok(Ok(outcome)) => self.outcomes.push(outcome),
                Ok(Err(wait)) => return Progress::Waits(wait),
                Err(denied) => self.fail(Failure::Denied(denied), table, effects),
            }
        }
        Progress::Done
    }

    /// Whether nothing is left to be done but the releases.
    #[must_use]
    pub fn is_at_its_end(&self) -> bool {
        self.done || (self.waits.is_none() && self.ops.as_slice().is_empty())
    }

    /// What the request that it waits for wants.
    #[must_use]
    pub fn wanted(&self) -> Option<(&Object, Mode)> {
        match self.waits.as_ref()? {
            Op::Lock(object, mode, _) | Op::Upgrade(object, _, mode, _) => Some((object, *mode)),
            _ => None,
        }
    }

    /// The request that it waited for has been granted; [`run`](Self::run) goes on.
    pub fn granted(&mut self) {
        match self.waits.take() {
            Some(Op::Lock(object, mode, _)) => self.took(object, mode, None),
            Some(Op::Upgrade(object, from, to, _)) => self.exchanged(object, from, to, None),
            _ => {}
        }
        self.outcomes.push(OpOutcome::Granted);
    }

    /// The request that it waited for has been refused: the sequence has failed.
    pub fn refused(&mut self, reason: Reason, table: &mut Table, effects: &mut Vec<Effect>) {
        self.fail(Failure::Refused(reason), table, effects);
    }

    /// Undoes what it took, because nobody waits for it any more.
    pub fn abandon(&mut self, table: &mut Table, effects: &mut Vec<Effect>) {
        for (object, from, to) in std::mem::take(&mut self.changed).into_iter().rev() {
            // If others bar the way back it keeps its new mode.
            table.take_back(self.locker, &object, to, Some(from), effects);
        }
        for taken in std::mem::take(&mut self.taken).into_iter().rev() {
            table.unlock(self.locker, &taken.object, taken.mode, effects);
        }
        self.done = true;
    }

    /// Finds out which locks they are that it took and still holds, for [`finish`](Self::finish). To be called
    /// when it is done.
    pub fn find_locks(&mut self, table: &Table) {
        self.keep_changed();
        for Taken { object, mode, lock } in &mut self.taken {
            // Its locker may have let one go and taken another like it while the sequence waited.
            if lock.is_none_or(|lock| !table.is_held(lock)) {
                *lock = table.lock_id(self.locker, object, *mode);
            }
        }
    }

    /// What became of each operation, and what it took and still holds: an entry for each reference.
    #[must_use]
    pub fn finish(mut self) -> (Vec<OpOutcome>, Vec<Taken>) {
        self.keep_changed();
        (self.outcomes, self.taken)
    }

    /// Counts what has changed its mode as taken.
    fn keep_changed(&mut self) {
        let changed = self.changed.drain(..).map(|(object, _, mode)| Taken {
            object,
            mode,
            lock: None,
        });
        self.taken.extend(changed);
    }

    fn step(
        &mut self,
        op: Op,
        table: &mut Table,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> Result<Result<OpOutcome, WaitId>, Denied> {
        let locker = self.locker;
        let later = self.all_or_nothing;
        Ok(Ok(match op {
            Op::Lock(object, mode, patience) => {
                let request = self.request(&object, mode, None);
                match table.request_among_others(now, request, patience, effects)? {
                    Ok(lock) => self.took(object, mode, Some(lock)),
                    Err(wait) => {
                        self.waits = Some(Op::Lock(object, mode, patience));
                        return Ok(Err(wait));
                    }
                }
                OpOutcome::Granted
            }
            Op::Upgrade(object, from, to, patience) => {
                self.check_held(table, &object, from)?;
                let request = self.request(&object, to, (!later).then_some(from));
                match table.request_among_others(now, request, patience, effects)? {
                    Ok(lock) => self.exchanged(object, from, to, Some(lock)),
                    Err(wait) => {
                        self.waits = Some(Op::Upgrade(object, from, to, patience));
                        return Ok(Err(wait));
                    }
                }
                OpOutcome::Granted
            }
            Op::Downgrade(object, from, to) => {
                self.check_held(table, &object, from)?;
                if later {
                    table.add_weaker(locker, &object, from, to, true)?;
                    table.promote(effects);
                } else {
                    table.downgrade(locker, &object, from, to, effects)?;
                }
                self.exchanged(object, from, to, None);
                OpOutcome::Granted
            }
            Op::Unlock(object, mode) if later => {
                self.check_held(table, &object, mode)?;
                *self.due.entry((object, mode)).or_default() += 1;
                OpOutcome::Released(1)
            }
            Op::Unlock(object, mode) => {
                if !table.unlock(locker, &object, mode, effects) {
                    return Err(Denied::NotHeld);
                }
                self.forget(&object, mode);
                OpOutcome::Released(1)
            }
            Op::UnlockObject(only) => {
                self.release(table, later, effects, |object, _| *object == only)
            }
            Op::ReleaseReads => self.release(table, later, effects, |_, mode| {
                matches!(mode, Mode::IntentRead | Mode::Read)
            }),
            Op::ReleaseAll => {
                self.revives = true;
                let released = self.release(table, later, effects, |_, _| true);
                if !later {
                    table.revive(locker);
                }
                released
            }
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

    fn took(&mut self, object: Object, mode: Mode, lock: Option<LockId>) {
        self.taken.push(Taken { object, mode, lock });
    }

    /// One reference has changed its mode, or is going to.
    fn exchanged(&mut self, object: Object, from: Mode, to: Mode, lock: Option<LockId>) {
        if self.all_or_nothing {
            *self.due.entry((object.clone(), from)).or_default() += 1;
            self.took(object, to, lock);
        } else if self.forget(&object, from) {
            self.took(object, to, lock);
        } else {
            self.changed.push((object, from, to));
        }
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
            let left = count.saturating_sub(self.due(&object, mode));
            released += usize::from(left > 0);
            if later {
                *self.due.entry((object, mode)).or_default() += left;
            } else {
                table.unlock_many(self.locker, &object, mode, left, effects);
            }
        }
        if !later {
            self.taken.retain(|own| !which(&own.object, own.mode));
            self.changed.retain(|(object, _, to)| !which(object, *to));
        }
        OpOutcome::Released(released)
    }

    /// Releases what is due; of its own references the latest go first.
    fn release_due(&mut self, table: &mut Table, effects: &mut Vec<Effect>) {
        let mut due = std::mem::take(&mut self.due);
        if due.is_empty() {
            return;
        }
        for ((object, mode), count) in &due {
            table.unlock_many(self.locker, object, *mode, *count, effects);
        }
        let mut kept: Vec<Taken> = Vec::with_capacity(self.taken.len());
        while let Some(Taken { object, mode, lock }) = self.taken.pop() {
            let own = (object, mode);
            match due.get_mut(&own).filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None => kept.push(Taken {
                    object: own.0,
                    mode,
                    lock,
                }),
            }
        }
        kept.reverse();
        self.taken = kept;
    }

    /// A reference is gone; whether it was one that it had taken itself.
    fn forget(&mut self, object: &Object, mode: Mode) -> bool {
        let mut taken = self.taken.iter();
        match taken.rposition(|own| own.mode == mode && own.object == *object) {
            Some(at) => {
                self.taken.remove(at);
                true
            }
            None => {
                self.changed
                    .retain(|(changed, _, to)| changed != object || *to != mode);
                false
            }
        }
    }

    fn fail(&mut self, failure: Failure, table: &mut Table, effects: &mut Vec<Effect>) {
        if self.all_or_nothing {
            self.abandon(table, effects);
            self.due.clear();
            self.outcomes.fill(OpOutcome::Undone);
        }
        self.outcomes.push(OpOutcome::Failed(failure));
        self.outcomes.resize(self.operations, OpOutcome::NotReached);
        self.done = true;
    }
}
