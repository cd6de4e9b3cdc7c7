//! What can be asked of the model, and what it answers.

use lockkeeper::{Mode, VictimPolicy};

use super::model::Model;
use super::universe::{Obj, UNIVERSE};
use super::words::{Answer, Event, Held, Locker, SLOTS, Slot, Time, Timeouts, Wait, Which, Why};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    Default,
    No,
    For(Time),
    Until(Time),
    Forever,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    pub locker: Slot,
    pub object: Obj,
    pub mode: Mode,
    pub from: Option<Mode>,
}

/// What a new locker is like. Its number and age are the core's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    pub priority: u32,
    pub lock_timeout: Option<Time>,
    pub txn_timeout: Option<Time>,
}

impl Model {
    /// Of lockers, locks and objects.
    pub fn usage(&self) -> [usize; 3] {
        let mut objects: Vec<Obj> = self
            .held
            .iter()
            .map(|held| held.object)
            .chain(self.waiting.iter().map(|wait| wait.object))
            .collect();
        objects.sort_unstable();
        objects.dedup();
        [
            self.lockers.iter().flatten().count(),
            self.held.len() + self.waiting.len(),
            objects.len(),
        ]
    }

    fn is_full(&self, which: Which) -> Option<Answer> {
        let value = self.config.limits[which as usize];
        (self.usage()[which as usize] >= value).then_some(Answer::Limit(which, value))
    }

    /// Warns when a mark is reached from below; again only when use has been under 90 % of it.
    pub fn warn(&mut self, which: Which) {
        let (at, used) = (which as usize, self.usage()[which as usize]);
        let mark = self.mark(which);
        if mark > 0 && used >= mark {
            if !self.warned[at] {
                self.warned[at] = true;
                self.warnings
                    .push_back((which, used, self.config.limits[at]));
            }
        } else if used * 10 < mark * 9 {
            self.warned[at] = false;
        }
    }

    fn mark(&self, which: Which) -> usize {
        (self.config.limits[which as usize] * usize::from(self.config.warning)).div_ceil(100)
    }

    /// Puts a locker into the slot. `number` and `age` are what the core gave it.
    pub fn begin(
        &mut self,
        slot: Slot,
        parent: Option<Slot>,
        spec: Spec,
        core: impl FnOnce() -> (u64, u64),
    ) -> Answer {
        if let Some(dead) = parent.and_then(|parent| self.death(parent)) {
            return Answer::Dead(dead);
        }
        if let Some(full) = self.is_full(Which::Lockers) {
            return full;
        }
        let (number, age) = core();
        // The table's transaction timeout is for roots; zero is none.
        let txn_timeout = match (spec.txn_timeout, parent) {
            (None, None) => self.config.timeouts.txn,
            (timeout, _) => timeout.unwrap_or(0),
        };
        self.lockers[usize::from(slot)] = Some(Locker {
            number,
            parent,
            root: parent.map_or(slot, |parent| self.root(parent)),
            age,
            priority: spec.priority,
            lock_timeout: spec.lock_timeout,
            txn_deadline: (txn_timeout > 0).then(|| self.now + txn_timeout),
            dead: None,
            to_be_told: None,
        });
        self.warn(Which::Lockers);
        Answer::Done
    }

    /// The locker and its children end: waits refused, locks released.
    pub fn end(&mut self, slot: Slot) -> Answer {
        let subtree = self.subtree(slot);
        for one in &subtree {
            self.refuse(*one, Why::Ended);
        }
        self.held.retain(|held| !subtree.contains(&held.locker));
        self.forget(&subtree);
        self.settle();
        Answer::Yes(true)
    }

    fn forget(&mut self, lockers: &[Slot]) {
        for slot in lockers.iter().rev() {
            self.events.push(Event::Ended(self.locker(*slot).number));
            self.lockers[usize::from(*slot)] = None;
            self.warn(Which::Lockers);
        }
    }

    /// A child passes its locks and its children's up; a root ends. Neither with a child that is dead:
    /// what that one did is to be undone first.
    pub fn commit(&mut self, slot: Slot) -> Answer {
        let below = self.subtree(slot);
        let dead = below.iter().find_map(|one| self.locker(*one).dead);
        if let Some(dead) = self.death(slot).or(dead) {
            return Answer::Dead(dead);
        }
        let Some(parent) = self.locker(slot).parent else {
            self.end(slot);
            return Answer::Done;
        };
        let subtree = self.subtree(slot);
        for one in &subtree {
            self.refuse(*one, Why::Ended);
        }
        for one in subtree.iter().rev() {
            while let Some(at) = self.held.iter().position(|held| held.locker == *one) {
                let held = self.held.remove(at);
                self.give_since(parent, held.object, held.mode, held.since);
                if let Some(at) = self.lock_of(parent, held.object, held.mode) {
                    self.held[at].count += held.count - 1;
                    self.held[at].said |= held.said;
                }
            }
            let to_be_told = self.locker(*one).to_be_told;
            let heir = &mut self.locker_mut(parent).to_be_told;
            *heir = heir.or(to_be_told);
        }
        self.forget(&subtree);
        self.settle();
        Answer::Done
    }

    /// Who may not ask for anything, and what is said.
    fn refused(&mut self, slot: Slot) -> Option<Answer> {
        if let Some(dead) = self.death(slot) {
            return Some(Answer::Dead(dead));
        }
        let locker = self.locker_mut(slot);
        locker.to_be_told.take().map(|_| Answer::HeldTooLong)
    }

    pub fn request(&mut self, ask: Ask, patience: Option<Patience>) -> Answer {
        match self.checked(ask) {
            Some(refused) => refused,
            None => {
                let answer = self.decide(ask, patience);
                self.settle();
                answer
            }
        }
    }

    /// Whether it is refused whatever others hold.
    fn checked(&mut self, ask: Ask) -> Option<Answer> {
        if let Some(refused) = self.refused(ask.locker) {
            return Some(refused);
        }
        if !UNIVERSE.knows(ask.object, ask.mode) {
            return Some(Answer::UnknownMode);
        }
        let lacks = |from: Mode| self.lock_of(ask.locker, ask.object, from).is_none();
        ask.from.is_some_and(lacks).then_some(Answer::NotHeld)
    }

    fn decide(&mut self, ask: Ask, patience: Option<Patience>) -> Answer {
        let Ask {
            locker,
            object,
            mode,
            from,
        } = ask;
        let mut wait = Wait {
            arrival: self.arrivals,
            object,
            locker,
            mode,
            from,
            deadline: None,
            whose: None,
        };
        let again = self.lock_of(locker, object, mode).is_some();
        // The lock that is given up makes room for the one that is granted at once.
        let given_up = from.and_then(|from| self.lock_of(locker, object, from));
        let in_place = given_up.is_some_and(|at| self.held[at].count == 1);
        // A new object has to find room before it is looked at who is in its way.
        if !self.is_known(object)
            && let Some(full) = self.has_room(object)
        {
            return full;
        }
        if !again && self.must_wait(&wait, self.rank(&wait), &self.ranks()) {
            let Some(patience) = patience else {
                return Answer::Blocked;
            };
            let Some((deadline, whose)) = self.deadline(locker, patience) else {
                return Answer::NotAvailable;
            };
            if let Some(full) = self.has_room(object) {
                return full;
            }
            (wait.deadline, wait.whose) = (deadline, whose);
            self.arrivals += 1;
            self.waiting.push(wait);
            self.asker = Some(self.root(locker));
            return Answer::Waits;
        }
        if !again
            && !in_place
            && let Some(full) = self.has_room(object)
        {
            return full;
        }
        self.give(locker, object, mode, from);
        Answer::Granted
    }

    fn is_known(&self, object: Obj) -> bool {
        self.held.iter().any(|held| held.object == object)
            || self.waiting.iter().any(|wait| wait.object == object)
    }

    fn has_room(&self, object: Obj) -> Option<Answer> {
        let objects = || match self.is_known(object) {
            true => None,
            false => self.is_full(Which::Objects),
        };
        self.is_full(Which::Locks).or_else(objects)
    }

    pub fn downgrade(&mut self, locker: Slot, object: Obj, from: Mode, to: Mode) -> Answer {
        if let Some(dead) = self.death(locker) {
            return Answer::Dead(dead);
        }
        let Some(at) = self.lock_of(locker, object, from) else {
            return Answer::NotHeld;
        };
        if !UNIVERSE.knows(object, to) {
            return Answer::UnknownMode;
        }
        if !UNIVERSE.is_no_stronger(object, to, from) {
            return Answer::NotWeaker;
        }
        let held = self.held[at];
        let is_new = self.lock_of(locker, object, to).is_none();
        if is_new
            && held.count > 1
            && let Some(full) = self.is_full(Which::Locks)
        {
            return full;
        }
        // It is as old as it was, and is not told again.
        let to_be_told = self.locker(locker).to_be_told;
        self.give_since(locker, object, to, held.since);
        if let Some(at) = self.lock_of(locker, object, to).filter(|_| is_new) {
            self.held[at].said = held.said;
        }
        self.take(locker, object, from);
        self.locker_mut(locker).to_be_told = to_be_told;
        self.settle();
        Answer::Done
    }

    pub fn unlock(&mut self, locker: Slot, object: Obj, mode: Mode) -> Answer {
        let known = self.is_known(object);
        let done = self.take(locker, object, mode);
        if known {
            self.settle();
        }
        Answer::Yes(done)
    }

    pub fn unlock_object(&mut self, locker: Slot, object: Obj) -> Answer {
        match self.is_known(object) {
            true => self.release(locker, |other, _| other == object),
            false => Answer::Count(0),
        }
    }

    /// Releases those of the locker's locks that are chosen; answers how many.
    pub fn release(&mut self, locker: Slot, chosen: impl Fn(Obj, Mode) -> bool) -> Answer {
        let gone = |held: &Held| held.locker == locker && chosen(held.object, held.mode);
        let told: Vec<Obj> = self
            .held
            .iter()
            .filter(|held| gone(held) && held.said)
            .map(|held| held.object)
            .collect();
        let before = self.held.len();
        self.held.retain(|held| !gone(held));
        let released = before - self.held.len();
        for object in told {
            self.is_gone(locker, object);
        }
        self.settle();
        Answer::Count(released)
    }

    pub fn release_reads(&mut self, locker: Slot) -> Answer {
        self.release(locker, |_, mode| {
            matches!(mode, Mode::IntentRead | Mode::Read)
        })
    }

    pub fn release_all(&mut self, locker: Slot) -> Answer {
        self.locker_mut(locker).dead = None;
        // It holds nothing too long any more.
        self.locker_mut(locker).to_be_told = None;
        self.release(locker, |_, _| true)
    }

    pub fn withdraw(&mut self, arrival: u64) -> Answer {
        let before = self.waiting.len();
        self.waiting.retain(|wait| wait.arrival != arrival);
        let found = self.waiting.len() < before;
        if found {
            self.settle();
        }
        Answer::Yes(found)
    }

    pub fn detect(&mut self, policy: VictimPolicy) -> Answer {
        let waiting = self.waiting.len();
        let policy = match policy {
            VictimPolicy::Default => self.config.policy,
            other => other,
        };
        let victims = self.break_cycles(policy, None);
        self.settle();
        Answer::Detected { waiting, victims }
    }

    pub fn set_detect(&mut self, on_block: bool, policy: VictimPolicy) -> Answer {
        let turned_on = on_block && !self.config.on_block;
        self.config.on_block = on_block;
        self.config.policy = policy;
        if turned_on {
            self.settle();
        }
        Answer::Done
    }

    pub fn set_timeouts(&mut self, timeouts: Timeouts) -> Answer {
        self.config.timeouts = timeouts;
        Answer::Done
    }

    pub fn set_limits(&mut self, limits: [usize; 3]) -> Answer {
        let used = self.usage();
        if (0..3).any(|at| limits[at] < used[at]) {
            return Answer::LimitInUse;
        }
        self.config.limits = limits;
        // Below the new mark it can be reached anew.
        for which in [Which::Lockers, Which::Locks, Which::Objects] {
            self.warned[which as usize] &= used[which as usize] >= self.mark(which);
        }
        Answer::Done
    }

    /// No lock is held beside one of another family that it conflicts with: invariant 5, in the model's
    /// own words.
    pub fn has_conflicting_locks(&self) -> bool {
        self.held.iter().any(|one| {
            self.held.iter().any(|other| {
                self.root(one.locker) != self.root(other.locker)
                    && UNIVERSE.conflict((one.object, one.mode), (other.object, other.mode))
                    && UNIVERSE.conflict((other.object, other.mode), (one.object, one.mode))
            })
        })
    }

    /// Slots that have a locker.
    pub fn live(&self) -> impl Iterator<Item = Slot> + use<'_> {
        (0..SLOTS as Slot).filter(|slot| self.lockers[usize::from(*slot)].is_some())
    }
}
