//! Refreshes: one pass for all leases of the process.

use std::time::Duration;

use super::book::Timer;
use super::effect::RefreshItem;
use super::{Book, Effect, LeaseKey, Moment, Phase, RefreshAnswer, SendId};
use crate::leases::{LeaseRecord, LostReason, Refreshed};

/// Most leases in one question.
const CHUNK: usize = 500;

impl Book {
    /// Sends what is due. A pass takes along whatever of the like is due within a refresh interval, so that leases that were acquired at
    /// different times share one from then on; what found its record locked goes by itself.
    pub(super) fn refresh_due(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        let mut keys = Vec::new();
        if let Some(&(at, key)) = self.dues.first()
            && at <= now
        {
            let refresh_of = |key: &LeaseKey| {
                let entry = self.leases.get(key);
                entry.map_or(Duration::ZERO, |entry| entry.life.timing().refresh())
            };
            let refresh = refresh_of(&key);
            let until = now.after(refresh);
            // The whole pass is waited for as long as the shortest of them allows: one that is refreshed seldom goes apart.
            let alike = |key: &LeaseKey| {
                let own = refresh_of(key);
                own <= refresh * 2 && refresh <= own * 2
            };
            let due = self.dues.range(..=(until, LeaseKey(u64::MAX)));
            keys.extend(
                due.filter(|(at, key)| *at <= now || alike(key))
                    .map(|(_, key)| *key),
            );
        }
        self.send_refreshes(now, keys, fx);
        let keys: Vec<_> = self
            .soon
            .range(..=(now, LeaseKey(u64::MAX)))
            .map(|(_, key)| *key)
            .collect();
        self.send_refreshes(now, keys, fx);
    }

    fn send_refreshes(&mut self, now: Moment, keys: Vec<LeaseKey>, fx: &mut Vec<Effect>) {
        let mut items = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(entry) = self.leases.get_mut(&key) else {
                continue;
            };
            let sent = entry.life.send_refresh(now);
            if let Some((send, expiration)) = sent {
                items.push(RefreshItem {
                    key,
                    name: entry.name.clone(),
                    send,
                    expiration,
                });
            }
            self.rearm(key, false);
            // A shorter expiration than before may count from now on.
            self.tell_deadline(key, None, fx);
            if sent.is_none() {
                self.end_due(now, key, fx);
            }
        }
        items.sort_by(|one, other| one.name.cmp(&other.name));
        while !items.is_empty() {
            let rest = items.split_off(items.len().min(CHUNK));
            fx.push(Effect::Refresh(std::mem::replace(&mut items, rest)));
        }
    }

    /// What came of the refresh of one lease.
    pub fn refreshed(
        &mut self,
        now: Moment,
        key: LeaseKey,
        send: SendId,
        answer: RefreshAnswer,
        fx: &mut Vec<Effect>,
    ) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        let mut alone = false;
        let mut confirmed = None;
        let change = match answer {
            RefreshAnswer::Refreshed(Refreshed::Held) => {
                confirmed = Some(send);
                let change = entry.life.refresh_held(now, send);
                // It was ours all the time until now, and what could have come late has come.
                let is_late = |late: &Moment| now < *late || !entry.life.is_held(now);
                entry.late = entry.late.filter(is_late);
                change
            }
            RefreshAnswer::Refreshed(Refreshed::Lost(record)) => {
                let reason = why(entry.life.token(), record);
                entry.life.refresh_lost(send, reason)
            }
            RefreshAnswer::Refreshed(Refreshed::Skipped) => {
                alone = entry.life.refresh_skipped(now, send);
                None
            }
            RefreshAnswer::Failed { error, verdict } => {
                let stop = verdict.ends_refresh(&error);
                let fault = LostReason::StoreError(error);
                entry.life.refresh_failed(now, send, fault, stop)
            }
        };
        self.rearm(key, alone);
        self.tell_deadline(key, confirmed, fx);
        self.changed(now, key, change, fx);
    }

    /// Puts a lease where it belongs by its times: among those that are due, and those whose end is looked for.
    pub(super) fn rearm(&mut self, key: LeaseKey, alone: bool) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        let due = entry.life.refresh_due().map(|at| (at, alone));
        if due != entry.due {
            if let Some((at, alone)) = entry.due {
                let from = if alone {
                    &mut self.soon
                } else {
                    &mut self.dues
                };
                from.remove(&(at, key));
            }
            if let Some((at, alone)) = due {
                let to = if alone {
                    &mut self.soon
                } else {
                    &mut self.dues
                };
                to.insert((at, key));
            }
            entry.due = due;
        }
        // A deadline mostly moves on: it is looked for again when the old one has come.
        let end = entry.life.deadline();
        let is_sooner = match (end, entry.watched) {
            (Some(end), Some(watched)) => end < watched,
            (Some(_), None) | (None, Some(_)) => true,
            (None, None) => false,
        };
        if is_sooner {
            if let Some(watched) = entry.watched {
                self.timers.remove(&(watched, Timer::End(key)));
            }
            entry.watched = end;
            if let Some(end) = end {
                self.timers.insert((end, Timer::End(key)));
            }
        }
    }

    /// The time at which the end of a lease is looked for has come.
    pub(super) fn end_due(&mut self, now: Moment, key: LeaseKey, fx: &mut Vec<Effect>) {
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        if entry.watched.is_some_and(|watched| watched <= now) {
            entry.watched = None;
        }
        let change = entry.life.tick(now);
        self.rearm(key, false);
        self.changed(now, key, change, fx);
    }

    /// A lease ends for a reason that the store did not tell.
    pub(super) fn lose(
        &mut self,
        now: Moment,
        key: LeaseKey,
        reason: LostReason,
        fx: &mut Vec<Effect>,
    ) {
        let change = self
            .leases
            .get_mut(&key)
            .and_then(|entry| entry.life.end(reason));
        self.rearm(key, false);
        self.changed(now, key, change, fx);
    }

    /// Somebody of this process took a lease away by force: its record was this.
    pub fn forced(&mut self, now: Moment, record: &LeaseRecord, fx: &mut Vec<Effect>) {
        let key = self.names.get(&record.name).and_then(|turns| turns.holder);
        let is_it = |key: &LeaseKey| {
            let life = self.leases.get(key).map(|entry| &entry.life);
            life.is_some_and(|life| life.token() == Some(record.token))
        };
        if let Some(key) = key.filter(is_it) {
            self.lose(now, key, LostReason::Forced, fx);
        }
        if let Some(turns) = self.names.get_mut(&record.name) {
            turns.stand_back = None;
        }
        self.ask_again(now, &record.name, fx);
    }

    /// From now on a lease lasts so long after each refresh. The id of the refresh that makes it so; `None` if it is not held.
    pub fn extend(
        &mut self,
        now: Moment,
        key: LeaseKey,
        timing: super::Timing,
        fx: &mut Vec<Effect>,
    ) -> Option<SendId> {
        let entry = self.leases.get_mut(&key)?;
        if !matches!(entry.life.phase(), Phase::Held | Phase::Doubtful) {
            return None;
        }
        let send = entry.life.extend(now, timing);
        self.rearm(key, true);
        self.refresh_due(now, fx);
        Some(send)
    }

    pub(super) fn after_loss(
        &mut self,
        now: Moment,
        key: LeaseKey,
        reason: LostReason,
        fx: &mut Vec<Effect>,
    ) {
        self.rearm(key, false);
        let Some(entry) = self.leases.get_mut(&key) else {
            return;
        };
        let name = entry.name.clone();
        fx.push(Effect::DropRefresh { key });
        if entry.waiter.is_some() {
            // It was granted, and gone before that was known: its waiter begins anew.
            self.requeue(key);
            self.give_back(now, key, fx);
        } else {
            fx.push(Effect::Lost { key, reason });
            if let Some(turns) = self.names.get_mut(&name)
                && turns.holder == Some(key)
            {
                turns.holder = None;
            }
        }
        self.advance(now, &name, fx);
    }
}

/// What a record says about whoever held the lease with this token before.
fn why(token: Option<crate::leases::Fence>, record: Option<LeaseRecord>) -> LostReason {
    let Some(record) = record else {
        return LostReason::Expired;
    };
    let moved_on = token.is_some_and(|token| record.token > token);
    match record.remaining {
        Some(_) if moved_on => LostReason::Stolen { by: record.holder },
        // Nobody took it, and yet it has gone on: that is what taking it by force does.
        None if moved_on => LostReason::Forced,
        _ => LostReason::Expired,
    }
}
