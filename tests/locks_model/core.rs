//! The table under test, seen through the model's eyes: its answers, effects and state in the model's words.

use std::ops::Bound;
use std::panic::Location;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use lockkeeper::lock_core::{
    Attempt, Effect, Limits, LockerSpec, Moment, Patience as CorePatience, Request, Table,
    TableConfig, Timeouts as CoreTimeouts, WaitId,
};
use lockkeeper::{ConflictTable, LockConflict, LockerId, Mode, Object, VictimPolicy};

use super::calls::{Ask, Patience, Spec};
use super::telling::{assert_is_told_well, done, refusal};
use super::universe::{Extent, NAMESPACES, OWN_MODES, OWN_ROWS, Obj, UNIVERSE};
use super::words::{Answer, Config, Event, SLOTS, Slot, Time, Timeouts, Which};

/// What can be seen of the table after a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub answer: Answer,
    /// In the order in which they came.
    pub events: Vec<Event>,
    pub warnings: Vec<(Which, usize, usize)>,
    /// Object, locker, mode and count; sorted.
    pub held: Vec<(Obj, u64, Mode, u64)>,
    /// Object, locker and mode; by object, and for each in the order of its queue.
    pub waiting: Vec<(Obj, u64, Mode)>,
    /// And whether they are dead.
    pub lockers: Vec<(u64, bool)>,
    pub next_deadline: Option<Time>,
    /// Lockers, locks and objects, as the statistics say.
    pub used: [usize; 3],
}

pub struct Core {
    pub table: Table,
    objects: &'static [Object],
    /// Who is, or was last, in each slot.
    pub ids: [Option<LockerId>; SLOTS],
    /// Waits that have not had their answer, by arrival.
    pub waits: Vec<(WaitId, u64)>,
    /// The wait that had its answer last, or was withdrawn last.
    pub last: Option<(WaitId, u64)>,
    pub arrivals: u64,
    pub effects: Vec<Effect>,
    pub warnings: Vec<(Which, usize, usize)>,
    /// All victims of deadlocks there have been.
    pub victims: Vec<u64>,
    /// Reports that have not been looked at.
    pub deadlocks: Vec<Arc<LockConflict>>,
}

static OBJECTS: LazyLock<Vec<Object>> = LazyLock::new(|| UNIVERSE.objects.map(object).to_vec());

pub fn object((namespace, extent): (u8, Extent)) -> Object {
    let namespace = NAMESPACES[usize::from(namespace)];
    let bytes = |bound: Bound<&'static str>| bound.map(|key| key.as_bytes().to_vec());
    match extent {
        Extent::Point(key) => Object::new(namespace, key),
        Extent::Range(from, to) => Object::range(namespace, (bytes(from), bytes(to)))
            .expect("no range of the histories is empty"),
        Extent::Prefix(prefix) => Object::prefix(namespace, prefix),
        Extent::All => Object::whole(namespace),
    }
}

pub fn moment(nanos: Time) -> Moment {
    Moment(nanos)
}

fn time(nanos: Time) -> Duration {
    Duration::from_nanos(nanos)
}

fn core_timeouts(timeouts: Timeouts) -> CoreTimeouts {
    CoreTimeouts {
        lock: time(timeouts.lock),
        no_wait: timeouts.no_wait,
        txn: time(timeouts.txn),
        max_hold: time(timeouts.max_hold),
        abort_on_max_hold: timeouts.abort_on_max_hold,
    }
}

fn core_limits([lockers, locks, objects]: [usize; 3]) -> Limits {
    Limits {
        lockers,
        locks,
        objects,
    }
}

impl Core {
    pub fn new(config: Config) -> Self {
        Self::with_conflicts(config, ConflictTable::standard())
    }

    pub fn with_conflicts(config: Config, conflicts: ConflictTable) -> Self {
        let rows: Vec<&[bool]> = OWN_ROWS.iter().map(|row| &row[..]).collect();
        let own = ConflictTable::new(&OWN_MODES, &rows).expect("a square table");
        let config = TableConfig {
            limits: core_limits(config.limits),
            limit_warning: config.warning,
            detect_on_block: config.on_block,
            policy: config.policy,
            conflicts,
            own_conflicts: vec![(NAMESPACES[1].into(), own)],
            timeouts: core_timeouts(config.timeouts),
            // It tells more, and decides nothing.
            order_warnings: config.warning > 0,
            ..TableConfig::default()
        };
        Self {
            table: Table::new(config),
            objects: &OBJECTS,
            ids: [None; SLOTS],
            waits: Vec::new(),
            last: None,
            arrivals: 0,
            effects: Vec::new(),
            warnings: Vec::new(),
            victims: Vec::new(),
            deadlocks: Vec::new(),
        }
    }

    pub fn begin(
        &mut self,
        now: Time,
        slot: Slot,
        parent: Option<LockerId>,
        age_of: Option<LockerId>,
        spec: Spec,
    ) -> Answer {
        let mut core_spec = LockerSpec::new()
            .age(age_of.and_then(|locker| self.table.age(locker)))
            .priority(spec.priority);
        core_spec.lock_timeout = spec.lock_timeout.map(time);
        core_spec.txn_timeout = spec.txn_timeout.map(time);
        let made = match parent {
            None => self.table.begin(Moment(now), core_spec),
            Some(parent) => self.table.begin_child(Moment(now), parent, core_spec),
        };
        match made {
            Ok(id) => {
                self.ids[usize::from(slot)] = Some(id);
                Answer::Done
            }
            Err(denied) => refusal(&denied),
        }
    }

    pub fn request(
        &mut self,
        now: Time,
        id: LockerId,
        ask: Ask,
        patience: Option<Patience>,
    ) -> Answer {
        let request = Request {
            locker: id,
            object: &self.objects[usize::from(ask.object)],
            mode: ask.mode,
            from: ask.from,
            site: Location::caller(),
        };
        let Some(patience) = patience else {
            return match self.table.try_lock(request, &mut self.effects) {
                Ok(Attempt::Granted) => Answer::Granted,
                Ok(Attempt::Blocked) => Answer::Blocked,
                Err(denied) => refusal(&denied),
            };
        };
        let patience = match patience {
            Patience::Default => CorePatience::Default,
            Patience::No => CorePatience::No,
            Patience::For(timeout) => CorePatience::For(time(timeout)),
            Patience::Until(moment) => CorePatience::Until(Moment(moment)),
            Patience::Forever => CorePatience::Forever,
        };
        let answer = self
            .table
            .request(Moment(now), request, patience, &mut self.effects);
        match answer {
            Ok(None) => Answer::Granted,
            Ok(Some(wait)) => {
                self.waits.push((wait, self.arrivals));
                self.arrivals += 1;
                Answer::Waits
            }
            Err(denied) => refusal(&denied),
        }
    }

    pub fn downgrade(&mut self, id: LockerId, object: Obj, from: Mode, to: Mode) -> Answer {
        let object = &self.objects[usize::from(object)];
        done(
            self.table
                .downgrade(id, object, from, to, &mut self.effects),
        )
    }

    pub fn commit(&mut self, id: LockerId) -> Answer {
        done(self.table.commit(id, &mut self.effects))
    }

    pub fn unlock(&mut self, id: LockerId, object: Obj, mode: Mode) -> Answer {
        let object = &self.objects[usize::from(object)];
        Answer::Yes(self.table.unlock(id, object, mode, &mut self.effects))
    }

    pub fn unlock_object(&mut self, id: LockerId, object: Obj) -> Answer {
        let object = &self.objects[usize::from(object)];
        Answer::Count(self.table.unlock_object(id, object, &mut self.effects))
    }

    /// The wait so many places back from the latest; one that has its answer if there are not so many.
    pub fn withdraw(&mut self, back: usize) -> Option<Answer> {
        if let Some(at) = self.waits.len().checked_sub(1 + back) {
            self.last = Some(self.waits.remove(at));
        }
        let (wait, _) = self.last?;
        Some(Answer::Yes(self.table.withdraw(wait, &mut self.effects)))
    }

    pub fn detect(&mut self, now: Time, policy: VictimPolicy) -> Answer {
        let report = self.table.detect(Moment(now), policy, &mut self.effects);
        Answer::Detected {
            waiting: report.waiting,
            victims: report.victims.len(),
        }
    }

    pub fn set_timeouts(&mut self, now: Time, timeouts: Timeouts) -> Answer {
        self.table
            .set_timeouts(Moment(now), core_timeouts(timeouts));
        Answer::Done
    }

    pub fn set_limits(&mut self, limits: [usize; 3]) -> Answer {
        match self.table.set_limits(core_limits(limits)) {
            Ok(()) => Answer::Done,
            Err(_) => Answer::LimitInUse,
        }
    }

    /// What the effects since the last time say. Waits that have had their answer are forgotten.
    pub fn listen(&mut self, answer: Answer) -> Seen {
        let effects = std::mem::take(&mut self.effects);
        let events = effects
            .iter()
            .filter_map(|effect| self.event(effect))
            .collect();
        Seen {
            answer,
            events,
            warnings: std::mem::take(&mut self.warnings),
            held: Vec::new(),
            waiting: Vec::new(),
            lockers: Vec::new(),
            next_deadline: None,
            used: [0; 3],
        }
    }

    /// What the effects say, and the state.
    pub fn look(&mut self, answer: Answer) -> Seen {
        let mut seen = self.listen(answer);
        let snapshot = self.table.snapshot();
        let mut at = 0;
        let mut held: Vec<_> = snapshot
            .held
            .iter()
            .map(|held| {
                let object = self.number_of(&held.object, &mut at);
                (object, held.locker.number(), held.mode, held.count)
            })
            .collect();
        held.sort_unstable();
        at = 0;
        let mut waiting: Vec<_> = snapshot
            .waiting
            .iter()
            .map(|wait| {
                let object = self.number_of(&wait.object, &mut at);
                (object, wait.locker.number(), wait.mode)
            })
            .collect();
        waiting.sort_by_key(|(object, ..)| *object);
        let stats = self.table.stats();
        assert_eq!(stats.waiting, waiting.len());
        seen.held = held;
        seen.waiting = waiting;
        seen.lockers = snapshot
            .lockers
            .iter()
            .map(|info| (info.locker.number(), info.dead))
            .collect();
        seen.next_deadline = self.table.next_deadline().map(|moment| moment.0);
        seen.used = [stats.lockers.now, stats.locks.now, stats.objects.now];
        for conflict in std::mem::take(&mut self.deadlocks) {
            assert_is_told_well(&conflict, &snapshot);
        }
        seen
    }

    /// The object's number; `last` is where the one before was, since they come in order.
    pub fn number_of(&self, object: &Object, last: &mut usize) -> Obj {
        if self.objects[*last] != *object {
            *last = self
                .objects
                .iter()
                .position(|other| other == object)
                .expect("an object of the universe");
        }
        *last as Obj
    }

    /// The arrival of a wait that has its answer now. It gets no other.
    pub fn answered(&mut self, wait: WaitId) -> u64 {
        let at = self
            .waits
            .iter()
            .position(|(other, _)| *other == wait)
            .expect("a wait gets one answer");
        let answered = self.waits.remove(at);
        self.last = Some(answered);
        answered.1
    }
}
