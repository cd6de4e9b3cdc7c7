//! Who talks to the store for a name, and when.

use super::book::Entry;
use super::turns::Turns;
use super::{Book, Effect, LeaseKey, Life, Moment, WaiterId};
use crate::leases::LeaseName;

impl Book {
    /// Has whoever is next for a name talk to the store. Called after [`ask`](Self::ask), when the waiter can be answered.
    pub fn advance(&mut self, now: Moment, name: &LeaseName, fx: &mut Vec<Effect>) {
        if self.closed {
            return;
        }
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
            let wish = self.waiters.get(&id).map(|waiter| &waiter.wish);
            let once = wish.is_some_and(|wish| wish.once);
            let until = wish.and_then(|wish| wish.until);
            match stand_back {
                Some(at) if !once => {
                    // Whoever has less time than that is not refused what may be free without having asked for it.
                    let half = until.map(|until| now.after(until.since(now) / 2));
                    self.wake_at(key, half.map_or(at, |half| half.min(at)));
                    let name = name.clone();
                    fx.push(Effect::Waits { waiter: id, name });
                    fx.push(Effect::Listen);
                }
                _ => self.send_claim(now, key, fx),
            }
        }
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
            entry.wake.map(|at| (key, entry.poll, at))
        });
        if let Some((key, poll, at)) = waits
            && let Some(turns) = self.names.get_mut(name)
        {
            let defers = turns.defers(now, poll);
            if !defers.is_zero() {
                return self.wake_at(key, now.after(defers).min(at));
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

    pub(super) fn new_asker(&mut self, name: &LeaseName, waiter: WaiterId) -> Option<LeaseKey> {
        let wish = self.waiters.get(&waiter)?.wish.clone();
        let key = LeaseKey(self.next_key);
        self.next_key += 1;
        let entry = Entry {
            name: name.clone(),
            life: Life::new(wish.timing, self.bounds.call_timeout),
            poll: wish.poll,
            waiter: Some(waiter),
            claim: None,
            wake: None,
            watched: None,
            due: None,
            unowned: false,
            releasing: false,
            late: None,
            asked: Moment(0),
            is_told: false,
            believed: None,
            unanswered: false,
            told: false,
            woken: false,
            kept: false,
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
}
