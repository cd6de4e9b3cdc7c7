//! Whose turn it is for one name, among the callers of this process and towards other processes.

use std::collections::VecDeque;
use std::time::Duration;

use super::{LeaseKey, Moment, WaiterId};
use crate::leases::{Fence, LeaseRecord};

/// After so many local hand-overs in a row other processes get their turn.
const MOST_IN_A_ROW: u32 = 16;
/// For so many poll intervals after another process was seen, a lease that was given back is left to others for one.
const CONTENDED: u32 = 10;
/// A lease that nobody else was seen to want is left to others for one poll interval after so many.
const UNDISTURBED: u32 = 20;

/// More releases of ours than this are not expected to be told at once.
const MOST_ECHOES: u32 = 2;

/// What is known of one name.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those who wait, but for the one that talks to the store.
    pub queue: VecDeque<WaiterId>,
    /// Those who do not want to wait, in the queue or talking to the store.
    pub impatient: Vec<WaiterId>,
    /// The acquisition that talks to the store.
    pub asker: Option<LeaseKey>,
    /// The lease that is held here, or is being given back.
    pub holder: Option<LeaseKey>,
    /// Who was in the way when the store was asked last, and when that was.
    pub seen: Option<(LeaseRecord, Moment)>,
    /// Until when it is left to others.
    pub stand_back: Option<Moment>,
    /// Releases of ours that the store will tell us about.
    echoes: u32,
    in_a_row: u32,
    since: Option<Moment>,
    contended_until: Moment,
    last_token: Option<Fence>,
    /// Until when something of this is worth knowing.
    pub keep_until: Moment,
}

impl Turns {
    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.len() + usize::from(self.asker.is_some())
    }

    /// Another process has it, or had it.
    pub(super) fn contended(&mut self, now: Moment, poll: Duration) {
        self.contended_until = now.after(poll.saturating_mul(CONTENDED));
        self.keep_until = self.keep_until.max(self.contended_until);
    }

    /// It was granted to this process.
    pub(super) fn won(&mut self, now: Moment, poll: Duration, token: Fence) {
        let ours_before = self
            .last_token
            .is_some_and(|last| token.0 == last.0.saturating_add(1));
        if !ours_before {
            if self.last_token.is_some() {
                self.contended(now, poll);
            }
            self.in_a_row = 0;
            self.since = Some(now);
        }
        self.last_token = Some(token);
        self.stand_back = None;
        self.seen = None;
    }

    /// Whether the next waiter of this process may have it without others being asked.
    pub(super) fn may_hand_over(&self) -> bool {
        self.in_a_row < MOST_IN_A_ROW && !self.queue.is_empty()
    }

    /// It goes to the next waiter of this process.
    pub(super) fn handed_over(&mut self) {
        self.in_a_row += 1;
    }

    /// It was given back: it is left to others for one poll interval, if they want it, or may be waiting unseen.
    pub(super) fn given_back(&mut self, now: Moment, poll: Duration) {
        let undisturbed = poll.saturating_mul(UNDISTURBED);
        let long = self
            .since
            .is_some_and(|since| now.since(since) >= undisturbed);
        if now < self.contended_until || self.in_a_row >= MOST_IN_A_ROW || long {
            let until = now.after(poll);
            self.stand_back = Some(until);
            self.keep_until = self.keep_until.max(until);
            self.in_a_row = 0;
            self.since = None;
        } else {
            self.keep_until = self.keep_until.max(now.after(undisturbed));
        }
        self.echoes = (self.echoes + 1).min(MOST_ECHOES);
    }

    /// The store told of a release. Whether it may have been another process's.
    pub(super) fn woken(&mut self) -> bool {
        if self.echoes > 0 {
            self.echoes -= 1;
            return false;
        }
        self.stand_back = None;
        true
    }

    /// Whether nothing of this is worth knowing any more.
    pub(super) fn is_idle(&self, now: Moment) -> bool {
        self.queue.is_empty()
            && self.asker.is_none()
            && self.holder.is_none()
            && now >= self.keep_until
    }
}
