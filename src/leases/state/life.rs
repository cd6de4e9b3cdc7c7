//! The life of one lease.
//!
//! Invariant I9 is the theorem of this file: a lease is believed in only until the instant before the last successful refresh was
//! *sent*, plus the expiration, less the margin. What was sent and never answered may still happen, at any time: it cannot take
//! the lease away, since it names this holder, but it could shorten it if it carried a shorter expiration. So the shortest
//! expiration of unknown fate bounds what is believed.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Moment, Timing};
use crate::leases::{Fence, LostReason};

/// A question to the store about one lease; never used twice by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(pub u64);

/// Where a lease is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The store is being asked for it.
    Asked,
    /// The store says that it is ours since a claim whose answer was lost: a refresh has to confirm it before it is held.
    Verifying,
    /// Held, and every refresh since has gone well, or none has been due.
    Held,
    /// Still believed in, but the store failed, and has not confirmed it since.
    Doubtful,
    /// It is being given back. It is not believed in, and never refreshed again.
    Releasing,
    /// It was given back, or never held.
    Released,
    /// It is not held any more.
    Lost(LostReason),
}

/// What changed for those who look at a lease from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LifeChange {
    /// Held for the first time.
    Held,
    /// Confirmed after it was doubtful.
    HeldAgain,
    /// Doubtful from now on.
    Doubtful,
    /// Lost.
    Lost(LostReason),
}

/// What a claim that the store granted means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimWon {
    /// The lease is held.
    Held,
    /// It has to be confirmed by a refresh first.
    Verify,
    /// The answer came so late that it may have expired again: give it back.
    TooLate,
    /// Nobody waits for this answer: an old one, or the lease has gone on.
    Stale,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    id: SendId,
    at: Moment,
    expiration: Duration,
    /// The shortest expiration among this one and what was on its way when it was sent: the store may have acted in any order.
    shortest: Duration,
}

/// One lease, from the wish to the end. A new acquisition is a new life.
#[derive(Debug, Clone)]
pub struct Life {
    timing: Timing,
    call_timeout: Duration,
    phase: Phase,
    token: Option<Fence>,
    deadline: Moment,
    outstanding: SmallVec<[Sent; 2]>,
    /// The shortest expiration among what was sent and will never be answered.
    shortest_lost: Option<Duration>,
    next_send: u64,
    /// The latest refresh that the store has confirmed.
    confirmed: Option<SendId>,
    due: Moment,
    doubtful_since: Moment,
    last_fault: Option<LostReason>,
    claim_of_unknown_fate: bool,
    /// By then the store has let it go, whatever became of what was sent.
    gone_by: Moment,
}

impl Life {
    /// A lease that is wished for. What was sent for it is given up after `call_timeout`, and happens within as long again, or never.
    #[must_use]
    pub fn new(timing: Timing, call_timeout: Duration) -> Self {
        Self {
            timing,
            call_timeout,
            phase: Phase::Asked,
            token: None,
            deadline: Moment(0),
            outstanding: SmallVec::new(),
            shortest_lost: None,
            next_send: 0,
            confirmed: None,
            due: Moment(0),
            doubtful_since: Moment(0),
            last_fault: None,
            claim_of_unknown_fate: false,
            gone_by: Moment(0),
        }
    }

    /// A claim is about to be sent.
    pub fn send_claim(&mut self, now: Moment) -> SendId {
        self.send(now)
    }

    /// The store has granted a claim.
    pub fn claim_won(&mut self, now: Moment, id: SendId, token: Fence) -> ClaimWon {
        let Some(sent) = self.take(id) else {
            return ClaimWon::Stale;
        };
        if self.phase != Phase::Asked {
            return ClaimWon::Stale;
        }
        self.token = Some(token);
        if self.claim_of_unknown_fate {
            // Nobody knows which of the claims it was, and from when on its expiry counts.
            self.phase = Phase::Verifying;
            self.due = now;
            return ClaimWon::Verify;
        }
        let deadline = sent.at.after(self.timing.usable());
        if now >= deadline {
            return ClaimWon::TooLate;
        }
        self.deadline = deadline;
        self.due = sent.at.after(self.timing.refresh());
        self.phase = Phase::Held;
        ClaimWon::Held
    }

    /// The store has refused a claim.
    pub fn claim_refused(&mut self, id: SendId) {
        self.take(id);
    }

    /// Nothing is known of a claim: it failed, or its answer did not come in time.
    pub fn claim_failed(&mut self, id: SendId) {
        if let Some(sent) = self.take(id) {
            self.lose(sent);
            self.claim_of_unknown_fate = true;
        }
    }

    /// A refresh is about to be sent; `None` if it must not be: before the lease is granted, after its release was asked for,
    /// after its end. Answers the question's id and the expiration to ask for.
    pub fn send_refresh(&mut self, now: Moment) -> Option<(SendId, Duration)> {
        match self.phase {
            Phase::Held | Phase::Doubtful if now < self.deadline => {
                // It may shorten the lease from this instant on.
                self.deadline = self.deadline.min(now.after(self.timing.usable()));
            }
            Phase::Verifying => {}
            _ => return None,
        }
        let id = self.send(now);
        self.due = now.after(self.timing.refresh());
        Some((id, self.timing.expiration()))
    }

    /// The store has extended the lease.
    pub fn refresh_held(&mut self, now: Moment, id: SendId) -> Option<LifeChange> {
        let sent = self.take(id)?;
        let others = self.outstanding.iter().map(|other| other.expiration);
        let shortest = others
            .chain(self.shortest_lost)
            .fold(sent.shortest, Duration::min);
        // What was sent later and is confirmed already may have come later too, and may be shorter.
        let is_newest = self.confirmed.is_none_or(|confirmed| id > confirmed);
        let deadline = match is_newest {
            true => sent.at.after(self.timing.usable_of(shortest)),
            false => Moment(0),
        };
        self.confirmed = self.confirmed.max(Some(id));
        match self.phase {
            Phase::Held | Phase::Doubtful if now < self.deadline => {
                self.deadline = self.deadline.max(deadline);
                // An answer to what was sent before the store failed says nothing about the time since.
                if self.phase == Phase::Doubtful && sent.at >= self.doubtful_since {
                    self.phase = Phase::Held;
                    self.last_fault = None;
                    return Some(LifeChange::HeldAgain);
                }
                None
            }
            Phase::Verifying if now < deadline => {
                self.deadline = deadline;
                self.phase = Phase::Held;
                Some(LifeChange::Held)
            }
            Phase::Verifying => self.end(LostReason::Expired),
            _ => self.tick(now),
        }
    }

    /// The store says that the lease is not held by this holder any more.
    pub fn refresh_lost(&mut self, id: SendId, reason: LostReason) -> Option<LifeChange> {
        self.take(id)?;
        self.end(reason)
    }

    /// The record was locked by somebody: nothing was done, and nothing is known. Tried again soon.
    pub fn refresh_skipped(&mut self, now: Moment, id: SendId) -> bool {
        if self.take(id).is_none() {
            return false;
        }
        self.due = self.due.min(now.after(self.timing.refresh() / SOONER));
        true
    }

    /// Nothing is known of a refresh: it failed with this error, or was given up. The lease is doubtful until a later one
    /// confirms it; if `stop`, it is given up.
    pub fn refresh_failed(
        &mut self,
        now: Moment,
        id: SendId,
        fault: LostReason,
        stop: bool,
    ) -> Option<LifeChange> {
        let sent = self.take(id)?;
        self.lose(sent);
        if stop {
            return self.end(fault);
        }
        self.doubtful_since = now;
        self.last_fault = Some(fault);
        if self.phase == Phase::Held {
            self.phase = Phase::Doubtful;
            return Some(LifeChange::Doubtful);
        }
        None
    }

    /// From the next refresh on it lasts so long. Answers the id of that refresh.
    pub fn extend(&mut self, now: Moment, timing: Timing) -> SendId {
        self.timing = timing;
        self.due = now;
        SendId(self.next_send)
    }

    /// It is not wanted any more. Nothing that was sent counts from here on, and no refresh is sent again.
    pub fn release(&mut self) {
        self.phase = Phase::Releasing;
        self.deadline = Moment(0);
        self.outstanding.clear();
    }

    /// It was given back, or needs not be.
    pub fn released(&mut self) {
        self.phase = Phase::Released;
        self.deadline = Moment(0);
        self.outstanding.clear();
    }

    /// It ends for a reason that did not come with an answer: a shutdown, a forced release.
    pub fn end(&mut self, reason: LostReason) -> Option<LifeChange> {
        match self.phase {
            Phase::Verifying | Phase::Held | Phase::Doubtful => {
                self.phase = Phase::Lost(reason.clone());
                self.deadline = Moment(0);
                self.outstanding.clear();
                Some(LifeChange::Lost(reason))
            }
            _ => None,
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment) -> Option<LifeChange> {
        let is_over = matches!(self.phase, Phase::Held | Phase::Doubtful) && now >= self.deadline;
        if !is_over {
            return None;
        }
        let reason = self.last_fault.take().unwrap_or(LostReason::Expired);
        self.end(reason)
    }

    /// Until when it is believed in; `None` if it is not.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        matches!(self.phase, Phase::Held | Phase::Doubtful).then_some(self.deadline)
    }

    /// When the next refresh is due; `None` if none is.
    #[must_use]
    pub fn refresh_due(&self) -> Option<Moment> {
        matches!(self.phase, Phase::Held | Phase::Doubtful | Phase::Verifying).then_some(self.due)
    }

    /// When something has to be done next: a refresh, or the end.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        [self.deadline(), self.refresh_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether it may be believed in at this instant.
    #[must_use]
    pub fn is_held(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|deadline| now < deadline)
    }

    /// Where it is.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Its times.
    #[must_use]
    pub const fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Its token, once the store has granted it.
    #[must_use]
    pub const fn token(&self) -> Option<Fence> {
        self.token
    }

    /// Whether the store may hold it for us although nobody knows: a claim was sent, and no answer came.
    #[must_use]
    pub const fn is_claim_of_unknown_fate(&self) -> bool {
        self.claim_of_unknown_fate
    }

    /// By then the store has let it go, also if nobody gives it back.
    #[must_use]
    pub const fn gone_by(&self) -> Moment {
        self.gone_by
    }

    fn send(&mut self, now: Moment) -> SendId {
        let id = SendId(self.next_send);
        self.next_send += 1;
        let expiration = self.timing.expiration();
        if self.outstanding.len() >= MOST_OUTSTANDING {
            let oldest = self.outstanding.remove(0);
            self.lose(oldest);
        }
        let others = self.outstanding.iter().map(|other| other.expiration);
        let shortest = others.fold(expiration, Duration::min);
        self.outstanding.push(Sent {
            id,
            at: now,
            expiration,
            shortest,
        });
        let gone_after = self.timing.gone_after(expiration, expiration);
        self.gone_by = self.gone_by.max(now.after(gone_after));
        id
    }

    fn take(&mut self, id: SendId) -> Option<Sent> {
        let at = self.outstanding.iter().position(|sent| sent.id == id)?;
        Some(self.outstanding.remove(at))
    }

    fn lose(&mut self, sent: Sent) {
        let shortest = self.shortest_lost.unwrap_or(sent.expiration);
        self.shortest_lost = Some(shortest.min(sent.expiration));
        let way = self.call_timeout.saturating_mul(2);
        let gone_after = self.timing.gone_after(sent.expiration, way);
        self.gone_by = self.gone_by.max(sent.at.after(gone_after));
    }
}

/// A refresh that found its record locked is tried again after this part of the refresh interval.
const SOONER: u32 = 4;
/// Of more questions without an answer the oldest are given up.
const MOST_OUTSTANDING: usize = 16;
