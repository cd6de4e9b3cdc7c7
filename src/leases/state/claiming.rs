//! What becomes of claims.

use std::sync::Arc;
use std::time::Duration;

use super::book::settle;
use super::waiters::unreachable;
use super::{Book, ClaimAnswer, ClaimWon, Effect, LeaseKey, Moment, Refusal, SendId, WaiterId};
use crate::leases::{Claimed, Fence, LeaseRecord, LeaseVerdict, StoreError};

/// How long after the known expiry of a holder the store is asked: a part of the poll interval, within bounds.
const SOON_PART: u32 = 50;
const SOONEST: Duration = Duration::from_millis(1);
const SOON: Duration = Duration::from_millis(20);
/// After each failure in a row a store is left alone for so much longer, up to so many.
const FAILING: Duration = Duration::from_millis(50);
const MOST_FAILURES: u32 = 20;

impl Book {
    /// What came of a claim.
    pub fn claimed(
        &mut self,
        now: Moment,
        key: LeaseKey,
        send: SendId,
        answer: ClaimAnswer,
        fx: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        if entry.claim != Some(send) {
            return;
        }
        entry.claim = None;
        if entry.waiter.is_none() {
            settle(&mut self.trailing);
        }
        match answer {
            ClaimAnswer::Claimed {
                claimed: Claimed::Ours { token },
                foreign,
            } => {
                if foreign && let Some(turns) = self.names.get_mut(&entry.name) {
                    turns.contended(now, entry.poll);
                }
                self.claim_won(now, key, send, token, fx);
            }
            ClaimAnswer::Claimed {
                claimed: Claimed::Busy(record),
                foreign,
            } => {
                entry.life.claim_refused(send);
                self.claim_refused(now, key, record, foreign, fx);
            }
            ClaimAnswer::Failed { error, verdict } => {
                entry.life.claim_failed(send);
                entry.late = Some(now.after(self.bounds.call_timeout));
                self.claim_failed(now, key, error, verdict, fx);
            }
        }
    }

    fn claim_won(
        &mut self,
        now: Moment,
        key: LeaseKey,
        send: SendId,
        token: Fence,
        fx: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        let won = entry.life.claim_won(now, send, token);
        let (name, waiter) = (entry.name.clone(), entry.waiter);
        if let Some(turns) = self.names.get_mut(&name) {
            turns.won(now, token);
        }
        match (won, waiter) {
            (ClaimWon::Stale, _) => {}
            (ClaimWon::Held, Some(waiter)) => self.granted(now, key, waiter, fx),
            (ClaimWon::Verify, Some(_)) => {
                self.rearm(key, true);
                self.refresh_due(now, fx);
            }
            // Nobody waits for it any more: it is passed on, or given back.
            (ClaimWon::Held | ClaimWon::Verify, None) => {
                if let Some(turns) = self.names.get_mut(&name) {
                    turns.asker = None;
                    turns.holder = Some(key);
                }
                self.disown(now, key, fx);
            }
            (ClaimWon::TooLate, _) => {
                self.requeue(key);
                self.give_back(now, key, fx);
                self.advance(now, &name, fx);
            }
        }
    }

    /// The waiter gets the lease.
    pub(super) fn granted(
        &mut self,
        now: Moment,
        key: LeaseKey,
        waiter: WaiterId,
        fx: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        entry.waiter = None;
        let name = entry.name.clone();
        if let Some(turns) = self.names.get_mut(&name) {
            turns.asker = None;
            turns.holder = Some(key);
            turns.stand_back = None;
        }
        self.take_waiter(waiter);
        self.rearm(key, false);
        self.tell_deadline(key, None, fx);
        fx.push(Effect::Granted { waiter, key });
        self.refuse_impatient(now, &name, fx);
    }

    fn claim_refused(
        &mut self,
        now: Moment,
        key: LeaseKey,
        record: LeaseRecord,
        foreign: bool,
        fx: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        let (name, poll) = (entry.name.clone(), entry.poll);
        let remaining = record.remaining;
        if let Some(turns) = self.names.get_mut(&name) {
            if foreign {
                turns.contended(now, poll);
                if let Some(holder) = &record.holder {
                    turns.saw(now, holder);
                }
            }
            turns.seen = Some((record.clone(), now));
            turns.failures.are_going_on = false;
            turns.stand_back = None;
        }
        let waiter = entry
            .waiter
            .and_then(|id| Some((id, self.waiters.get_mut(&id)?)));
        let Some((id, waiter)) = waiter else {
            self.drop_asker(now, key, fx);
            return;
        };
        if waiter.wish.once {
            self.take_waiter(id);
            let refusal = Refusal::Busy {
                by: None,
                record: Some(record),
                remaining,
            };
            fx.push(Effect::Refused {
                waiter: id,
                name: name.clone(),
                refusal,
            });
            // It is the answer to the others, too.
            self.refuse_impatient(now, &name, fx);
            self.drop_asker(now, key, fx);
            return;
        }
        fx.push(Effect::Waits {
            waiter: id,
            name: name.clone(),
        });
        if self
            .leases
            .get_mut(&key)
            .is_some_and(|entry| std::mem::take(&mut entry.woken))
        {
            let defers = self
                .names
                .get_mut(&name)
                .map_or(Duration::ZERO, |turns| turns.defers(now, poll));
            match defers.is_zero() {
                true => self.send_claim(now, key, fx),
                false => self.wake_at(key, now.after(defers)),
            }
            return;
        }
        // Not later than the end of a holder that is dead, if it is sooner.
        let mut wait = self.jittered(poll);
        if let Some(remaining) = remaining {
            let soon = (poll / SOON_PART).clamp(SOONEST, SOON);
            wait = wait.min(remaining.saturating_add(soon));
        }
        self.wake_at(key, now.after(wait));
        fx.push(Effect::Listen);
        self.refuse_impatient(now, &name, fx);
    }

    fn claim_failed(
        &mut self,
        now: Moment,
        key: LeaseKey,
        error: Arc<StoreError>,
        verdict: LeaseVerdict,
        fx: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        let (name, poll) = (entry.name.clone(), entry.poll);
        let waiter = entry.waiter;
        if let Some(turns) = self.names.get_mut(&name) {
            let failures = &mut turns.failures;
            failures.count = failures.count.saturating_add(1);
            failures.last = Some(Arc::clone(&error));
            failures.are_going_on = true;
        }
        self.refuse_hasty(now, &name, &error, fx);
        let waiter = waiter.and_then(|id| Some((id, self.waiters.get(&id)?)));
        let Some((id, waiter)) = waiter else {
            self.drop_asker(now, key, fx);
            return;
        };
        let (errors, _) = self.errors_of(waiter);
        if !(waiter.wish.once || verdict.ends(&error)) {
            // Many who poll fast would keep a store from getting up again.
            let failures = errors.clamp(1, MOST_FAILURES);
            let wait = self.jittered(poll.max(FAILING * failures));
            self.wake_at(key, now.after(wait));
            return;
        }
        let refusal = unreachable(now.since(waiter.since), errors, &error);
        self.take_waiter(id);
        fx.push(Effect::Refused {
            waiter: id,
            name: name.clone(),
            refusal,
        });
        self.drop_asker(now, key, fx);
    }
}
