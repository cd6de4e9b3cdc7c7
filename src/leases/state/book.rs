//! All leases of a process in one store, and all who wait for them.
//!
//! For each name one waiter at a time talks to the store; the others wait behind it in order. A lease that is given back while
//! somebody waits is handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::life::LifeChange;
use super::turns::Turns;
use super::{Effect, LeaseKey, Life, Moment, Phase, SendId, Timing, WaiterId};
use crate::backoff::RetryRng;
use crate::leases::{LeaseName, LeaseRecord, LostReason, StoreError};

/// What a waiter wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The times of the lease.
    pub timing: Timing,
    /// How often the store is asked.
    pub poll: Duration,
    /// When the waiter's time is over.
    pub until: Option<Moment>,
    /// Whether it is asked for once, without waiting.
    pub once: bool,
}

/// Why a waiter does not get the lease.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// Somebody holds it, and the waiter did not want to wait. In this process: without a record.
    Busy {
        by: Option<LeaseKey>,
        record: Option<LeaseRecord>,
        remaining: Option<Duration>,
    },
    /// Its time was over.
    TimedOut {
        waited: Duration,
        by: Option<LeaseKey>,
        record: Option<LeaseRecord>,
        errors: u32,
        last: Option<Arc<StoreError>>,
    },
    /// The store failed, and nobody wants to go on or the time was over.
    Unreachable {
        waited: Duration,
        errors: u32,
        last: Arc<StoreError>,
    },
    /// The store cannot be used.
    Unusable(Arc<StoreError>),
    /// So many wait already.
    TooMany { limit: usize },
    /// The leases are shut down.
    ShuttingDown,
}

/// What does not differ from lease to lease.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most waiters for one name.
    pub waiters: usize,
    /// After so long a claim whose answer was lost has happened, or never will.
    pub call_timeout: Duration,
    /// What jitter is drawn from.
    pub seed: u64,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub name: LeaseName,
    pub wish: Wish,
    pub since: Moment,
    pub errors: u32,
    /// How the store failed when it was asked last; none if it answered then.
    pub failing: bool,
    pub last: Option<Arc<StoreError>>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub name: LeaseName,
    pub life: Life,
    pub poll: Duration,
    /// Who it is for; nobody, if it was withdrawn.
    pub waiter: Option<WaiterId>,
    /// The claim that is under way.
    pub claim: Option<SendId>,
    /// When the store is asked again for it.
    pub wake: Option<Moment>,
    /// When its end is looked for.
    pub watched: Option<Moment>,
    /// When it is refreshed, and whether by itself.
    pub due: Option<(Moment, bool)>,
    /// Nobody holds a guard of it: it may be forgotten when it is over.
    pub unowned: bool,
    /// A release is under way, or will be tried again.
    pub releasing: bool,
    /// A claim of unknown fate may come late: it is given back twice.
    pub again: bool,
    /// The store is expected to tell of its release.
    pub told: bool,
    /// The lease may have become free after the claim that is under way was decided.
    pub woken: bool,
}

impl Entry {
    /// Whether something is still to come of it.
    fn is_active(&self) -> bool {
        let is_over = matches!(
            self.life.phase(),
            Phase::Releasing | Phase::Released | Phase::Lost(_)
        );
        self.releasing || !is_over
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Of a lease: its end.
    End(LeaseKey),
    /// Of an asker: the next claim. Of a release: the next try.
    Wake(LeaseKey),
    /// Of a waiter: its time is over.
    Waiter(WaiterId),
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    pub(super) bounds: Bounds,
    pub(super) names: BTreeMap<LeaseName, Turns>,
    pub(super) waiters: BTreeMap<WaiterId, Waiter>,
    pub(super) leases: BTreeMap<LeaseKey, Entry>,
    pub(super) timers: BTreeSet<(Moment, Timer)>,
    /// Refreshes that are due together, and those that are due by themselves.
    pub(super) dues: BTreeSet<(Moment, LeaseKey)>,
    pub(super) soon: BTreeSet<(Moment, LeaseKey)>,
    pub(super) closed: bool,
    pub(super) rng: RetryRng,
    next_key: u64,
    next_waiter: u64,
    swept: Moment,
}

impl Book {
    /// A book without leases.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            names: BTreeMap::new(),
            waiters: BTreeMap::new(),
            leases: BTreeMap::new(),
            timers: BTreeSet::new(),
            dues: BTreeSet::new(),
            soon: BTreeSet::new(),
            closed: false,
            rng: RetryRng::new(bounds.seed),
            next_key: 0,
            next_waiter: 0,
            swept: Moment(0),
        }
    }

    /// Somebody wants a lease. What becomes of it comes as [`Effect::Granted`] or [`Effect::Refused`].
    ///
    /// # Errors
    /// [`Refusal::TooMany`] and [`Refusal::ShuttingDown`], at once.
    pub fn ask(&mut self, now: Moment, name: &LeaseName, wish: Wish) -> Result<WaiterId, Refusal> {
        if self.closed {
            return Err(Refusal::ShuttingDown);
        }
        let limit = self.bounds.waiters;
        let turns = self.names.entry(name.clone()).or_default();
        if turns.waiting() >= limit {
            return Err(Refusal::TooMany { limit });
        }
        let id = WaiterId(self.next_waiter);
        self.next_waiter += 1;
        turns.queue.push_back(id);
        if wish.once {
            turns.impatient.push(id);
        }
        if let Some(until) = wish.until {
            self.timers.insert((until, Timer::Waiter(id)));
        }
        let waiter = Waiter {
            name: name.clone(),
            wish,
            since: now,
            errors: 0,
            failing: false,
            last: None,
        };
        self.waiters.insert(id, waiter);
        Ok(id)
    }

    /// Has whoever is next for a name talk to the store. Called after [`ask`](Self::ask), when the waiter can be answered.
    pub fn advance(&mut self, now: Moment, name: &LeaseName, fx: &mut Vec<Effect>) {
        loop {
            let Some(turns) = self.names.get_mut(name) else {
                return;
            };
            if turns.holder.is_some() || turns.asker.is_some() {
                return self.refuse_impatient(now, name, fx);
            }
            let Some(id) = turns.queue.pop_front() else {
                if turns.is_idle(now) {
                    self.names.remove(name);
                }
                return;
            };
            let stand_back = turns.stand_back.filter(|at| now < *at);
            let Some(key) = self.new_asker(name, id) else {
                continue;
            };
            let once = self.waiters.get(&id).is_some_and(|waiter| waiter.wish.once);
            match stand_back {
                Some(at) if !once => {
                    self.wake_at(key, at);
                    let name = name.clone();
                    fx.push(Effect::Waits { waiter: id, name });
                    fx.push(Effect::Listen);
                }
                _ => self.send_claim(now, key, fx),
            }
        }
    }

    /// Whether a waiter is behind others of this process.
    #[must_use]
    pub fn is_behind(&self, name: &LeaseName, waiter: WaiterId) -> bool {
        let turns = self.names.get(name);
        turns.is_some_and(|turns| turns.queue.back() == Some(&waiter))
    }

    /// A waiter has gone away.
    pub fn abandon(&mut self, now: Moment, waiter: WaiterId, fx: &mut Vec<Effect>) {
        if let Some(waiter) = self.take_waiter(waiter) {
            self.withdraw(now, &waiter.0, waiter.1, fx);
        }
    }

    /// The time of a waiter is over.
    pub(super) fn waiter_due(&mut self, now: Moment, id: WaiterId, fx: &mut Vec<Effect>) {
        let Some((id, waiter)) = self.take_waiter(id) else {
            return;
        };
        let name = waiter.name.clone();
        let waited = now.since(waiter.since);
        let turns = self.names.get(&waiter.name);
        let (by, seen) = turns.map_or((None, None), |turns| (turns.holder, turns.seen.clone()));
        let refusal = match &waiter.last {
            Some(last) if waiter.failing => Refusal::Unreachable {
                waited,
                errors: waiter.errors,
                last: Arc::clone(last),
            },
            _ => Refusal::TimedOut {
                waited,
                by,
                record: seen.map(|(record, at)| aged(record, now.since(at))),
                errors: waiter.errors,
                last: waiter.last.clone(),
            },
        };
        fx.push(Effect::Refused {
            waiter: id,
            name: name.clone(),
            refusal,
        });
        self.withdraw(now, &id, waiter, fx);
    }

    /// The store told that the lease of this name was released; without a name, that any may have been, unseen.
    pub fn woken(&mut self, now: Moment, name: Option<&LeaseName>, fx: &mut Vec<Effect>) {
        let all = name.is_none();
        let names: Vec<LeaseName> = match name {
            Some(name) => vec![name.clone()],
            None => self.names.keys().cloned().collect(),
        };
        for name in names {
            let Some(turns) = self.names.get_mut(&name) else {
                continue;
            };
            let worthwhile = match all {
                true => turns.listens(now),
                false => turns.told(now),
            };
            if worthwhile {
                self.ask_again_politely(now, &name, fx);
            }
        }
    }

    /// The same as [`ask_again`](Self::ask_again), after those who have waited longer in other processes.
    fn ask_again_politely(&mut self, now: Moment, name: &LeaseName, fx: &mut Vec<Effect>) {
        let asker = self.names.get(name).and_then(|turns| turns.asker);
        let waits = asker.and_then(|key| {
            let entry = self.leases.get(&key)?;
            entry.wake.map(|_| (key, entry.poll))
        });
        if let Some((key, poll)) = waits
            && let Some(turns) = self.names.get_mut(name)
        {
            let defers = turns.defers(now, poll);
            if !defers.is_zero() {
                return self.wake_at(key, now.after(defers));
            }
        }
        self.ask_again(now, name, fx);
    }

    /// Has whoever waits for a name ask the store now: it may be free.
    pub(super) fn ask_again(&mut self, now: Moment, name: &LeaseName, fx: &mut Vec<Effect>) {
        if let Some(turns) = self.names.get_mut(name) {
            let asker = turns
                .asker
                .and_then(|key| Some((key, self.leases.get_mut(&key)?)));
            match asker {
                Some((key, entry)) if entry.wake.is_some() => self.send_claim(now, key, fx),
                Some((_, entry)) => entry.woken = true,
                None => {}
            }
        }
    }

    /// Nothing new is begun: waiters are refused, leases are lost and given back, each on its own.
    pub fn close(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        self.closed = true;
        let waiters: Vec<_> = self.waiters.keys().copied().collect();
        for id in waiters {
            let Some((id, waiter)) = self.take_waiter(id) else {
                continue;
            };
            let (refusal, name) = (Refusal::ShuttingDown, waiter.name.clone());
            fx.push(Effect::Refused {
                waiter: id,
                name: name.clone(),
                refusal,
            });
            self.withdraw(now, &id, waiter, fx);
        }
        let keys: Vec<_> = self.leases.keys().copied().collect();
        for key in keys {
            self.lose(now, key, LostReason::Shutdown, fx);
            self.give_back(now, key, fx);
        }
    }

    /// Whether nothing is held, wanted or being given back.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiters.is_empty() && !self.leases.values().any(Entry::is_active)
    }

    /// Names that may be held in the store still. A guard may outlive the release of its lease.
    pub fn held_names(&self) -> impl Iterator<Item = &LeaseName> {
        let held = |entry: &&Entry| *entry.life.phase() != Phase::Released;
        self.leases.values().filter(held).map(|entry| &entry.name)
    }

    /// When [`tick`](Self::tick) has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let due = self.dues.first().map(|(at, _)| *at);
        let soon = self.soon.first().map(|(at, _)| *at);
        [timer, due, soon].into_iter().flatten().min()
    }

    /// How many wait for a name, and whether it is held here.
    #[must_use]
    pub fn local(&self, name: &LeaseName) -> (usize, Option<LeaseKey>) {
        self.names
            .get(name)
            .map_or((0, None), |turns| (turns.waiting(), turns.holder))
    }

    /// Carries out what is due.
    pub fn tick(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Waiter(id) => self.waiter_due(now, id, fx),
                Timer::End(key) => self.end_due(now, key, fx),
                Timer::Wake(key) => self.wake_due(now, key, fx),
            }
        }
        self.refresh_due(now, fx);
        if now.since(self.swept) >= SWEEP {
            self.swept = now;
            self.names.retain(|_, turns| !turns.is_idle(now));
        }
    }

    pub(super) fn new_asker(&mut self, name: &LeaseName, waiter: WaiterId) -> Option<LeaseKey> {
        let wish = self.waiters.get(&waiter)?.wish.clone();
        let key = LeaseKey(self.next_key);
        self.next_key += 1;
        let entry = Entry {
            name: name.clone(),
            life: Life::new(wish.timing),
            poll: wish.poll,
            waiter: Some(waiter),
            claim: None,
            wake: None,
            watched: None,
            due: None,
            unowned: false,
            releasing: false,
            again: false,
            told: false,
            woken: false,
        };
        self.leases.insert(key, entry);
        self.names.entry(name.clone()).or_default().asker = Some(key);
        Some(key)
    }

    pub(super) fn send_claim(&mut self, now: Moment, key: LeaseKey, fx: &mut Vec<Effect>) {
        self.clear_wake(key);
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        let send = entry.life.send_claim(now);
        entry.claim = Some(send);
        entry.woken = false;
        let turns = self.names.get(&entry.name);
        fx.push(Effect::Claim {
            key,
            waiter: entry.waiter,
            name: entry.name.clone(),
            send,
            left_with: turns.and_then(Turns::left_with),
        });
    }

    /// The asker of a name goes without a lease. If the store may hold it for it nevertheless, it is given back.
    pub(super) fn drop_asker(&mut self, now: Moment, key: LeaseKey, fx: &mut Vec<Effect>) {
        self.clear_wake(key);
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        entry.waiter = None;
        entry.unowned = true;
        let name = entry.name.clone();
        let maybe_held = entry.life.is_claim_of_unknown_fate();
        if let Some(turns) = self.names.get_mut(&name)
            && turns.asker == Some(key)
        {
            turns.asker = None;
        }
        match maybe_held {
            true => self.give_back(now, key, fx),
            false => self.forget(key, fx),
        }
        self.advance(now, &name, fx);
    }

    /// Its waiter is first again.
    pub(super) fn requeue(&mut self, key: LeaseKey) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        entry.unowned = true;
        let waiter = entry.waiter.take();
        if let Some(turns) = self.names.get_mut(&entry.name) {
            if turns.asker == Some(key) {
                turns.asker = None;
            }
            if let Some(waiter) = waiter {
                turns.queue.push_front(waiter);
            }
        }
    }

    /// A waiter was taken out: what was done for it is undone.
    fn withdraw(&mut self, now: Moment, id: &WaiterId, waiter: Waiter, fx: &mut Vec<Effect>) {
        let Some(turns) = self.names.get_mut(&waiter.name) else {
            return;
        };
        turns.queue.retain(|other| other != id);
        let asker = turns
            .asker
            .and_then(|key| Some((key, self.leases.get_mut(&key)?)));
        if let Some((key, entry)) = asker
            && entry.waiter == Some(*id)
        {
            entry.waiter = None;
            entry.unowned = true;
            if *entry.life.phase() == Phase::Verifying {
                if let Some(turns) = self.names.get_mut(&waiter.name) {
                    turns.asker = None;
                    turns.holder = Some(key);
                }
                self.give_back(now, key, fx);
            } else if entry.claim.is_none() {
                self.drop_asker(now, key, fx);
            }
            // Else its answer decides: what is granted to nobody is given back.
        }
        self.advance(now, &waiter.name, fx);
    }

    /// Those who do not want to wait are told what is known.
    pub(super) fn refuse_impatient(&mut self, now: Moment, name: &LeaseName, fx: &mut Vec<Effect>) {
        let Some(turns) = self
            .names
            .get(name)
            .filter(|turns| !turns.impatient.is_empty())
        else {
            return;
        };
        let (by, seen) = match (turns.holder, &turns.seen) {
            (Some(key), _) => (Some(key), None),
            // The store is just being asked for the first time: what it answers is for them too.
            (None, None) => return,
            (None, Some((record, at))) => (None, Some(aged(record.clone(), now.since(*at)))),
        };
        let remaining = match by.and_then(|key| self.leases.get(&key)?.life.deadline()) {
            Some(deadline) => Some(deadline.since(now)),
            None => seen.as_ref().and_then(|record| record.remaining),
        };
        let waits = |id: &WaiterId| turns.queue.contains(id);
        let impatient: Vec<_> = turns.impatient.iter().copied().filter(waits).collect();
        for id in impatient {
            self.take_waiter(id);
            if let Some(turns) = self.names.get_mut(name) {
                turns.queue.retain(|other| *other != id);
            }
            let refusal = Refusal::Busy {
                by,
                record: seen.clone(),
                remaining,
            };
            fx.push(Effect::Refused {
                waiter: id,
                name: name.clone(),
                refusal,
            });
        }
    }

    pub(super) fn take_waiter(&mut self, id: WaiterId) -> Option<(WaiterId, Waiter)> {
        let waiter = self.waiters.remove(&id)?;
        if let Some(until) = waiter.wish.until {
            self.timers.remove(&(until, Timer::Waiter(id)));
        }
        if waiter.wish.once
            && let Some(turns) = self.names.get_mut(&waiter.name)
        {
            turns.impatient.retain(|other| *other != id);
        }
        Some((id, waiter))
    }

    pub(super) fn wake_at(&mut self, key: LeaseKey, at: Moment) {
        self.clear_wake(key);
        if let Some(entry) = self.leases.get_mut(&key) {
            entry.wake = Some(at);
            self.timers.insert((at, Timer::Wake(key)));
        }
    }

    pub(super) fn clear_wake(&mut self, key: LeaseKey) {
        if let Some(entry) = self.leases.get_mut(&key)
            && let Some(at) = entry.wake.take()
        {
            self.timers.remove(&(at, Timer::Wake(key)));
        }
    }

    /// Between half and the whole of a poll interval: those who began together do not stay together.
    pub(super) fn jittered(&mut self, poll: Duration) -> Duration {
        poll.mul_f64(0.5 + self.rng.next_unit() / 2.0)
    }

    pub(super) fn tell_deadline(
        &self,
        key: LeaseKey,
        confirmed: Option<SendId>,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(at) = self
            .leases
            .get(&key)
            .and_then(|entry| entry.life.deadline())
        {
            fx.push(Effect::Deadline { key, at, confirmed });
        }
    }

    /// What follows when a life has changed.
    pub(super) fn changed(
        &mut self,
        now: Moment,
        key: LeaseKey,
        change: Option<LifeChange>,
        fx: &mut Vec<Effect>,
    ) {
        match change {
            None => {}
            Some(LifeChange::Doubtful) => fx.push(Effect::Doubtful { key }),
            Some(LifeChange::HeldAgain) => fx.push(Effect::HeldAgain { key }),
            Some(LifeChange::Held) => {
                let waiter = self.leases.get(&key).and_then(|entry| entry.waiter);
                match waiter {
                    Some(waiter) => self.granted(now, key, waiter, fx),
                    None => self.disown(now, key, fx),
                }
            }
            Some(LifeChange::Lost(reason)) => self.after_loss(now, key, reason, fx),
        }
    }
}

/// A record as it is now, if nobody has refreshed it since.
fn aged(mut record: LeaseRecord, age: Duration) -> LeaseRecord {
    record.remaining = record
        .remaining
        .map(|remaining| remaining.saturating_sub(age));
    record
}

/// How often names that nobody uses are forgotten.
const SWEEP: Duration = Duration::from_secs(10);
