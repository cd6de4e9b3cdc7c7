//! Giving leases back.

use std::sync::Arc;
use std::time::Duration;

use super::book::settle;
use super::{Book, ClaimAnswer, Effect, LeaseKey, Moment, Phase, SendId};
use crate::leases::{LeaseVerdict, LostReason, Released, StoreError};

/// What came of a release.
pub type ReleaseAnswer = Result<Released, (Arc<StoreError>, LeaseVerdict)>;

/// The first pause before a release that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);

impl Book {
    /// The owner of a lease gives it back: [`Effect::Released`] or [`Effect::ReleaseStopped`] follows. Asked for again after
    /// that, it is tried again.
    pub fn release(&mut self, now: Moment, key: LeaseKey, fx: &mut Vec<Effect>) {
        self.give_back(now, key, fx);
    }

    /// The guard of a lease is gone: it is given back, and forgotten then.
    pub fn disown(&mut self, now: Moment, key: LeaseKey, fx: &mut Vec<Effect>) {
        if let Some(entry) = self.leases.get_mut(&key) {
            entry.unowned = true;
            self.give_back(now, key, fx);
        }
    }

    pub(super) fn give_back(&mut self, now: Moment, key: LeaseKey, fx: &mut Vec<Effect>) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        if entry.releasing {
            return;
        }
        match entry.life.phase() {
            // The store has said so: there is nothing to give back, but what a claim that was given up has taken, or may take.
            Phase::Lost(LostReason::Stolen { .. } | LostReason::Forced) if entry.late.is_none() => {
                return self.has_released(now, key, Released::WasLost, fx);
            }
            Phase::Released => {
                if entry.unowned {
                    self.forget(key, fx);
                }
                return;
            }
            _ => {}
        }
        let was_held = entry.life.is_held(now);
        entry.asked = now;
        entry.believed = entry.life.deadline().or(entry.believed);
        entry.life.release();
        entry.releasing = true;
        entry.kept = false;
        self.trailing += 1;
        let name = entry.name.clone();
        fx.push(Effect::DropRefresh { key });
        self.rearm(key, false);
        let closed = self.closed;
        let Some(turns) = self.names.get_mut(&name) else {
            fx.push(Effect::Release { key });
            return;
        };
        let next = turns.queue.front().copied();
        let mut told = false;
        if let Some(waiter) = next
            && was_held
            && !closed
            && turns.holder == Some(key)
            && turns.asker.is_none()
            && turns.may_hand_over()
        {
            turns.queue.pop_front();
            turns.handed_over();
            if let Some(to) = self.new_asker(&name, waiter) {
                self.hand_over(now, key, to, waiter, fx);
                return;
            }
        } else {
            turns.gives_back(now);
            told = true;
        }
        if let Some(entry) = self.leases.get_mut(&key) {
            entry.told = told;
        }
        fx.push(Effect::Release { key });
    }

    fn hand_over(
        &mut self,
        now: Moment,
        from: LeaseKey,
        to: LeaseKey,
        waiter: super::WaiterId,
        fx: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.leases.get_mut(&to) else {
            return;
        };
        let send = entry.life.send_claim(now);
        entry.claim = Some(send);
        fx.push(Effect::HandOver {
            from,
            to,
            waiter,
            name: entry.name.clone(),
            send,
        });
    }

    /// What came of a hand-over.
    pub fn handed_over(
        &mut self,
        now: Moment,
        (from, to): (LeaseKey, LeaseKey),
        send: SendId,
        released: ReleaseAnswer,
        claimed: ClaimAnswer,
        fx: &mut Vec<Effect>,
    ) {
        if let Some(entry) = self.leases.get(&from)
            && let Some(turns) = self.names.get_mut(&entry.name)
            && turns.holder == Some(from)
        {
            turns.holder = None;
        }
        self.released(now, from, released, fx);
        self.claimed(now, to, send, claimed, fx);
    }

    /// Another process asked for a lease while it was held here. Told before [`released`](Self::released).
    pub fn wanted_by_others(&mut self, now: Moment, key: LeaseKey) {
        if let Some(entry) = self.leases.get(&key)
            && let Some(turns) = self.names.get_mut(&entry.name)
        {
            turns.contended(now, entry.poll);
        }
    }

    /// What came of a release.
    pub fn released(
        &mut self,
        now: Moment,
        key: LeaseKey,
        answer: ReleaseAnswer,
        fx: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        if !entry.releasing {
            return;
        }
        match answer {
            Ok(outcome)
                if let Some(late) = entry.late
                    && entry.asked < late
                    && now < entry.life.gone_by() =>
            {
                // A claim that is on its way still would be granted to nobody.
                let name = entry.name.clone();
                self.wake_at(key, late.max(now));
                if outcome == Released::WasOurs {
                    self.tell_released(now, key, outcome, fx);
                    self.advance(now, &name, fx);
                }
            }
            // Nobody can have taken it yet: it was done when it was asked for before.
            Ok(Released::WasLost)
                if entry.unanswered && entry.believed.is_some_and(|until| now < until) =>
            {
                self.has_released(now, key, Released::WasOurs, fx);
            }
            Ok(outcome) => self.has_released(now, key, outcome, fx),
            Err((error, verdict)) => {
                entry.unanswered = true;
                let name = entry.name.clone();
                if now >= entry.life.gone_by() || (entry.is_told && verdict.ends(&error)) {
                    self.has_released(now, key, Released::WasLost, fx);
                } else if verdict.ends(&error) {
                    entry.releasing = false;
                    settle(&mut self.trailing);
                    fx.push(Effect::ReleaseStopped { key, error });
                    if entry.unowned {
                        self.forget(key, fx);
                    }
                } else {
                    let wait = self.jittered(RETRY.saturating_mul(2));
                    self.wake_at(key, now.after(wait));
                }
                // Whoever waits here may find it free before this one can be told.
                self.leave(&name, key);
                self.advance(now, &name, fx);
            }
        }
    }

    /// An asker asks again, a release is tried again, what was left to the store has expired.
    pub(super) fn wake_due(&mut self, now: Moment, key: LeaseKey, fx: &mut Vec<Effect>) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        entry.wake = None;
        if entry.releasing {
            if now >= entry.life.gone_by() {
                self.has_released(now, key, Released::WasLost, fx);
            } else {
                entry.asked = now;
                fx.push(Effect::Release { key });
            }
        } else if entry.kept && entry.unowned {
            self.forget(key, fx);
        } else if entry.claim.is_none() && *entry.life.phase() == Phase::Asked {
            self.send_claim(now, key, fx);
        }
    }

    fn has_released(
        &mut self,
        now: Moment,
        key: LeaseKey,
        outcome: Released,
        fx: &mut Vec<Effect>,
    ) {
        self.clear_wake(key);
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        entry.life.released();
        if std::mem::take(&mut entry.releasing) {
            settle(&mut self.trailing);
        }
        let (name, unowned) = (entry.name.clone(), entry.unowned);
        self.rearm(key, false);
        self.tell_released(now, key, outcome, fx);
        if unowned {
            self.forget(key, fx);
        }
        self.advance(now, &name, fx);
    }

    /// Its owner is told, once; and whoever is next for its name may have it.
    fn tell_released(
        &mut self,
        now: Moment,
        key: LeaseKey,
        outcome: Released,
        fx: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        let (name, poll) = (entry.name.clone(), entry.poll);
        let told = std::mem::take(&mut entry.told);
        if !std::mem::replace(&mut entry.is_told, true) {
            fx.push(Effect::Released { key, outcome });
        }
        // Two who stood back exactly one poll each would meet at the same two distances for ever.
        let stand_back = self.jittered(poll);
        if let Some(turns) = self.names.get_mut(&name) {
            if told && outcome == Released::WasLost {
                turns.gave_nothing_back();
            }
            if turns.holder == Some(key) {
                turns.holder = None;
                turns.given_back(now, poll, stand_back);
            } else if let Some(asker) = turns.asker
                && outcome == Released::WasOurs
                && self
                    .leases
                    .get(&asker)
                    .is_some_and(|entry| entry.wake.is_some())
            {
                // It stood in the way of whoever waits here.
                self.send_claim(now, asker, fx);
            }
        }
    }

    fn leave(&mut self, name: &crate::leases::LeaseName, key: LeaseKey) {
        if let Some(turns) = self.names.get_mut(name)
            && turns.holder == Some(key)
        {
            turns.holder = None;
        }
    }

    pub(super) fn forget(&mut self, key: LeaseKey, fx: &mut Vec<Effect>) {
        self.clear_wake(key);
        if let Some(mut entry) = self.leases.remove(&key) {
            if let Some((at, alone)) = entry.due.take() {
                let from = if alone {
                    &mut self.soon
                } else {
                    &mut self.dues
                };
                from.remove(&(at, key));
            }
            if let Some(at) = entry.watched.take() {
                self.timers.remove(&(at, super::book::Timer::End(key)));
            }
            fx.push(Effect::Forget { key });
        }
    }
}
