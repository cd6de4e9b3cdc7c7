//! Faults that are put between the core and the comparison on purpose, to see that each is found.
//!
//! Some make the core tell something that is not so, some make it do something else than it was asked.

use lockkeeper::{LockerId, Mode};

use super::calls::{Ask, Patience};
use super::core::{Core, Seen};
use super::model::Model;
use super::universe::{Obj, UNIVERSE};
use super::words::{Answer, Event, Kind, Time, Wait, Why};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Two grants of objects that overlap are told in the other order.
    SwapGrants,
    /// A grant is not told.
    DropGrant,
    /// A refusal is not told.
    DropRefusal,
    /// Another locker is named as the victim.
    NameAnotherVictim,
    /// A deadlock is told as a timeout.
    WrongKind,
    /// A lock that was released is still there.
    LeaveLock,
    /// A reference too many.
    CountTwice,
    /// A request is granted although an earlier one that it conflicts with waits.
    GrantPastEarlier,
    /// The next deadline is told too late.
    LateDeadline,
    /// The statistics are one off.
    Miscount,
    /// Really done: an earlier waiter loses its place to a later one.
    SkipQueue,
    /// Really done: a lock that is to be released is kept.
    KeepLock,
}

pub const ALL: [Fault; 12] = [
    Fault::SwapGrants,
    Fault::DropGrant,
    Fault::DropRefusal,
    Fault::NameAnotherVictim,
    Fault::WrongKind,
    Fault::LeaveLock,
    Fault::CountTwice,
    Fault::GrantPastEarlier,
    Fault::LateDeadline,
    Fault::Miscount,
    Fault::SkipQueue,
    Fault::KeepLock,
];

#[derive(Debug, Default)]
pub struct Plan {
    pub fault: Option<Fault>,
    /// It has been done.
    pub done: bool,
    asked: Option<(u64, Ask)>,
    /// Of each wait there has been: who asked, for what, and how patiently.
    asks: Vec<(LockerId, Ask, Option<Patience>)>,
}

impl Plan {
    pub fn of(fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..Self::default()
        }
    }

    pub fn request(
        &mut self,
        core: &mut Core,
        model: &Model,
        now: Time,
        id: LockerId,
        ask: Ask,
        patience: Option<Patience>,
    ) -> Answer {
        let answer = core.request(now, id, ask, patience);
        self.asked = (answer == Answer::Waits).then_some((id.number(), ask));
        if self.fault.is_some() && answer == Answer::Waits {
            self.asks.push((id, ask, patience));
            if self.fault == Some(Fault::SkipQueue) {
                self.skip_queue(core, model, now, ask);
            }
        }
        answer
    }

    /// Has the waiter before the newest on the same object ask again, behind it.
    fn skip_queue(&mut self, core: &mut Core, model: &Model, now: Time, ask: Ask) {
        if self.done || model.config.on_block || ask.from.is_some() {
            return;
        }
        let rank = |ask: &Ask| model.rank(&wait(ask, 0));
        let Some(at) = core.waits.iter().rposition(|(_, arrival)| {
            let (_, other, _) = &self.asks[*arrival as usize];
            *arrival + 1 < core.arrivals
                && other.object == ask.object
                && rank(other) == rank(&ask)
                && model.root(other.locker) != model.root(ask.locker)
                && UNIVERSE.conflict((other.object, other.mode), (ask.object, ask.mode))
        }) else {
            return;
        };
        let (wait, arrival) = core.waits[at];
        let (id, ask, patience) = self.asks[arrival as usize];
        core.table.withdraw(wait, &mut core.effects);
        if core.request(now, id, ask, patience) == Answer::Waits {
            core.arrivals -= 1;
            if let Some((again, _)) = core.waits.pop() {
                core.waits[at] = (again, arrival);
            }
        }
        self.done = true;
    }

    pub fn unlock(&mut self, core: &mut Core, id: LockerId, object: Obj, mode: Mode) -> Answer {
        let keep = self.fault == Some(Fault::KeepLock) && !self.done;
        if keep
            && core
                .look(Answer::Done)
                .held
                .iter()
                .any(|held| (held.0, held.1, held.2) == (object, id.number(), mode))
        {
            self.done = true;
            return Answer::Yes(true);
        }
        core.unlock(id, object, mode)
    }

    /// Changes what the core is seen to say. `model` is as it was before the call, `objects` are those
    /// of all waits by arrival.
    pub fn tamper(&mut self, seen: &mut Seen, model: &Model, objects: &[Obj]) {
        let Some(fault) = self.fault.filter(|_| !self.done) else {
            return;
        };
        let grants = |event: &Event| matches!(event, Event::Granted(_));
        self.done = match fault {
            Fault::SwapGrants => swap_grants(seen, objects),
            Fault::DropGrant => drop_event(seen, grants),
            Fault::DropRefusal => drop_event(seen, |event| matches!(event, Event::Refused(..))),
            Fault::NameAnotherVictim => name_another(seen),
            Fault::WrongKind => mislabel(seen),
            Fault::LeaveLock => leave_lock(seen, model),
            Fault::CountTwice => seen.held.first_mut().map(|held| held.3 += 1).is_some(),
            Fault::GrantPastEarlier => self
                .asked
                .take()
                .is_some_and(|(id, ask)| grant_past(seen, model, id, &ask)),
            Fault::LateDeadline => seen.next_deadline.as_mut().map(|at| *at += 1).is_some(),
            Fault::Miscount => {
                seen.used[1] += 1;
                true
            }
            Fault::SkipQueue | Fault::KeepLock => return,
        };
    }
}

fn wait(ask: &Ask, arrival: u64) -> Wait {
    Wait {
        arrival,
        object: ask.object,
        locker: ask.locker,
        mode: ask.mode,
        from: ask.from,
        deadline: None,
        whose: None,
    }
}

fn drop_event(seen: &mut Seen, which: impl Fn(&Event) -> bool) -> bool {
    let at = seen.events.iter().position(which);
    at.map(|at| seen.events.remove(at)).is_some()
}

fn swap_grants(seen: &mut Seen, objects: &[Obj]) -> bool {
    for first in 0..seen.events.len() {
        for second in first + 1..seen.events.len() {
            if let (Event::Granted(one), Event::Granted(other)) =
                (seen.events[first], seen.events[second])
            {
                let [one, other] = [one, other].map(|arrival| objects[arrival as usize]);
                if UNIVERSE.overlap[usize::from(one)][usize::from(other)] {
                    seen.events.swap(first, second);
                    return true;
                }
            }
        }
    }
    false
}

fn name_another(seen: &mut Seen) -> bool {
    for event in &mut seen.events {
        if let Event::Doomed(number, Kind::Deadlock) = event
            && let Some(other) = seen.lockers.iter().find(|other| other.0 != *number)
        {
            *number = other.0;
            return true;
        }
    }
    false
}

fn mislabel(seen: &mut Seen) -> bool {
    for event in &mut seen.events {
        if let Event::Refused(_, Why::Conflict(kind @ Kind::Deadlock)) = event {
            *kind = Kind::LockTimeout;
            return true;
        }
    }
    false
}

fn leave_lock(seen: &mut Seen, model: &Model) -> bool {
    let left = model.held.iter().find_map(|held| {
        let number = model.locker(held.locker).number;
        let gone =
            |one: &(Obj, u64, Mode, u64)| (one.0, one.1, one.2) == (held.object, number, held.mode);
        let is_gone = !seen.held.iter().any(gone) && seen.lockers.iter().any(|one| one.0 == number);
        is_gone.then_some((held.object, number, held.mode, held.count))
    });
    seen.held.extend(left);
    seen.held.sort_unstable();
    left.is_some()
}

/// Only if nothing that is held is in the way: then it is an earlier waiter that is passed.
fn grant_past(seen: &mut Seen, model: &Model, id: u64, ask: &Ask) -> bool {
    let newest = wait(ask, u64::MAX);
    let only_a_waiter = !model.must_wait(&newest, model.rank(&newest), &[]);
    let at = seen
        .waiting
        .iter()
        .rposition(|one| *one == (ask.object, id, ask.mode));
    let Some(at) = at.filter(|_| only_a_waiter) else {
        return false;
    };
    seen.waiting.remove(at);
    seen.held.push((ask.object, id, ask.mode, 1));
    seen.held.sort_unstable();
    seen.answer = Answer::Granted;
    true
}
