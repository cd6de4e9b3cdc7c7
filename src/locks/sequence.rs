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
    ops: Vec<Op>,
    all_or_nothing: bool,
    next: usize,
    outcomes: Vec<OpOutcome>,
    /// What it took and still holds: one entry for each reference, in the order of the operations.
    taken: Vec<TakenBy>,
    /// What is to be released at the end, in references.
    due: References,
    /// Locks that were there before and have another mode now.
    changed: Vec<TakenBy>,
    /// Whether all that the locker holds is to be released, so that it may be used again.
    revives: bool,
    done: bool,
}

/// A reference that is held, by the operation that took it: its object stays where it is meanwhile.
#[derive(Debug, Clone, Copy)]
struct TakenBy {
    op: usize,
    lock: Option<LockId>,
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
            next: 0,
            taken: Vec::with_capacity(ops.len()),
            due: References::new(),
            changed: Vec::new(),
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
            let held = self.taken.iter_mut().chain(&mut self.changed);
            held.for_each(|own| own.lock = None);
        }
        progress
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
            Some(Op::Lock(..)) => own.took(None),
            Some(Op::Upgrade(object, from, ..)) => own.exchanged(ops, object, *from, None),
            _ => {}
        });
        self.outcomes.push(OpOutcome::Granted);
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
        for changed in std::mem::take(&mut self.changed).into_iter().rev() {
            if let Some(Op::Upgrade(object, from, to, _) | Op::Downgrade(object, from, to)) =
                ops.get(changed.op)
            {
                // If others bar the way back it keeps its new mode.
                table.take_back(self.locker, object, *to, Some(*from), effects);
            }
        }
        for taken in std::mem::take(&mut self.taken).into_iter().rev() {
            if let Some((object, mode)) = taken.what(ops) {
                table.unlock(self.locker, object, mode, effects);
            }
        }
        self.done = true;
    }

    /// Finds out which locks they are that it took and still holds, for [`finish`](Self::finish). To be
    /// called when it is done.
    pub fn find_locks(&mut self, table: &Table) {
        for taken in self.taken.iter_mut().chain(&mut self.changed) {
            if taken.lock.is_none()
                && let Some((object, mode)) = taken.what(&self.ops)
            {
                taken.lock = table.lock_id(self.locker, object, mode);
            }
        }
    }

    /// What became of each operation, and what is made of what it took and still holds: an entry for each
    /// reference.
    #[must_use]
    pub fn finish<T>(self, mut make: impl FnMut(Taken) -> T) -> (Vec<OpOutcome>, Vec<T>) {
        let changed: Vec<Taken> = (self.changed.iter())
            .filter_map(|changed| {
                let (object, mode) = changed.what(&self.ops)?;
                let (object, lock) = (object.clone(), changed.lock);
                Some(Taken { object, mode, lock })
            })
            .collect();
        let mut taken = self.taken.into_iter().peekable();
        let ops = self.ops.into_iter().enumerate();
        // In the place of the operations, where there is room for it.
        let mut made: Vec<T> = ops
            .filter_map(|(at, op)| {
                let TakenBy { lock, .. } = taken.next_if(|taken| taken.op == at)?;
                let (object, mode) = op.into_target()?;
                Some(make(Taken { object, mode, lock }))
            })
            .collect();
        made.extend(changed.into_iter().map(make));
        (self.outcomes, made)
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
        match op {
            Op::Lock(object, mode, patience) => {
                let request = self.request(object, *mode, None);
                match table.request_among_others(now, request, *patience, effects)? {
                    Ok(lock) => self.took(Some(lock)),
                    Err(wait) => return Ok(Some(wait)),
                }
                self.outcomes.push(OpOutcome::Granted);
            }
            Op::Upgrade(object, from, to, patience) => {
                self.check_held(table, object, *from)?;
                let request = self.request(object, *to, (!later).then_some(*from));
                match table.request_among_others(now, request, *patience, effects)? {
                    Ok(lock) => self.exchanged(ops, object, *from, Some(lock)),
                    Err(wait) => return Ok(Some(wait)),
                }
                self.outcomes.push(OpOutcome::Granted);
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
                self.outcomes.push(OpOutcome::Granted);
            }
            Op::Unlock(object, mode) if later => {
                self.check_held(table, object, *mode)?;
                *self.due.entry((object.clone(), *mode)).or_default() += 1;
                self.outcomes.push(OpOutcome::Released(1));
            }
            Op::Unlock(object, mode) => {
                if !table.unlock(locker, object, *mode, effects) {
                    return Err(Denied::NotHeld);
                }
                self.forget(ops, object, *mode);
                self.outcomes.push(OpOutcome::Released(1));
            }
            Op::UnlockObject(only) => {
                self.release(ops, table, later, effects, |object, _| object == only);
            }
            Op::ReleaseReads => self.release(ops, table, later, effects, |_, mode| {
                matches!(mode, Mode::IntentRead | Mode::Read)
            }),
            Op::ReleaseAll => {
                self.revives = true;
                self.release(ops, table, later, effects, |_, _| true);
                if !later {
                    table.revive(locker);
                }
            }
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
        self.taken.push(TakenBy {
            op: self.next,
            lock,
        });
    }

    /// The operation that comes next has changed the mode of one reference, or is going to.
    fn exchanged(&mut self, ops: &[Op], object: &Object, from: Mode, lock: Option<LockId>) {
        if self.all_or_nothing {
            *self.due.entry((object.clone(), from)).or_default() += 1;
            self.took(lock);
        } else if self.forget(ops, object, from) {
            self.took(lock);
        } else {
            self.changed.push(TakenBy {
                op: self.next,
                lock,
            });
        }
    }

    fn release(
        &mut self,
        ops: &[Op],
        table: &mut Table,
        later: bool,
        effects: &mut Vec<Effect>,
        which: impl Fn(&Object, Mode) -> bool,
    ) {
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
            let stays = |own: &TakenBy| {
                let what = own.what(ops);
                what.is_some_and(|(object, mode)| !which(object, mode))
            };
            self.taken.retain(stays);
            self.changed.retain(stays);
        }
        self.outcomes.push(OpOutcome::Released(released));
    }

    /// Releases what is due; of its own references the latest go first.
    fn release_due(&mut self, ops: &[Op], table: &mut Table, effects: &mut Vec<Effect>) {
        let mut due = std::mem::take(&mut self.due);
        if due.is_empty() {
            return;
        }
        for ((object, mode), count) in &due {
            table.unlock_many(self.locker, object, *mode, *count, effects);
        }
        let mut kept = Vec::with_capacity(self.taken.len());
        while let Some(own) = self.taken.pop() {
            let name = own.what(ops).map(|(object, mode)| (object.clone(), mode));
            let left = name.and_then(|name| due.get_mut(&name));
            match left.filter(|left| **left > 0) {
                Some(left) => *left -= 1,
                None => kept.push(own),
            }
        }
        kept.reverse();
        self.taken = kept;
    }

    /// A reference is gone; whether it was one that it had taken itself.
    fn forget(&mut self, ops: &[Op], object: &Object, mode: Mode) -> bool {
        let is_it = |own: &TakenBy| own.what(ops) == Some((object, mode));
        match self.taken.iter().rposition(is_it) {
            Some(at) => {
                self.taken.remove(at);
                true
            }
            None => {
                self.changed.retain(|own| !is_it(own));
                false
            }
        }
    }

    fn fail(&mut self, ops: &[Op], failure: Failure, table: &mut Table, effects: &mut Vec<Effect>) {
        if self.all_or_nothing {
            self.undo(ops, table, effects);
            self.due.clear();
            self.outcomes.fill(OpOutcome::Undone);
        }
        self.outcomes.push(OpOutcome::Failed(failure));
        self.outcomes.resize(ops.len(), OpOutcome::NotReached);
        self.done = true;
    }
}

impl TakenBy {
    fn what(self, ops: &[Op]) -> Option<(&Object, Mode)> {
        match ops.get(self.op)? {
            Op::Lock(object, mode, _)
            | Op::Upgrade(object, _, mode, _)
            | Op::Downgrade(object, _, mode) => Some((object, *mode)),
            _ => None,
        }
    }
}

impl Op {
    /// What it takes.
    fn into_target(self) -> Option<(Object, Mode)> {
        match self {
            Op::Lock(object, mode, _)
            | Op::Upgrade(object, _, mode, _)
            | Op::Downgrade(object, _, mode) => Some((object, mode)),
            _ => None,
        }
    }
}
