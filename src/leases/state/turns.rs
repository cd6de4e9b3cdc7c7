//! Whose turn it is for one name, among the callers of this process and towards other processes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{LeaseKey, Moment, WaiterId};
use crate::leases::{Fence, Holder, LeaseRecord, StoreError};

/// After so many local hand-overs in a row other processes get their turn.
const MOST_IN_A_ROW: u32 = 16;
/// For so many poll intervals after another process was seen, a lease that was given back is left to others for one.
const CONTENDED: u32 = 10;
/// A lease that nobody else was seen to want is left to others for one poll interval after so many.
const UNDISTURBED: u32 = 20;

/// Where a release is told to all who wait, whoever had his turn lately lets each of those that had theirs before him go first,
/// for so long: as a claim takes. Else those who hear of it first would have it among themselves.
const HEAD_START: Duration = Duration::from_millis(2);
/// Other processes that are told apart.
const MOST_OTHERS: usize = 32;

/// A store that tells of releases tells of ours too, within so long: what comes later is taken for another process's, and what
/// never came costs that no more than one poll interval.
const ECHO: Duration = Duration::from_secs(1);
/// More releases of ours than this are not expected to be told at once.
const MOST_ECHOES: usize = 16;

/// What is known of one name.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those who wait, but for the one that talks to the store.
    pub queue: VecDeque<WaiterId>,
    /// How many do not want to wait, in the queue or talking to the store.
    pub impatient: usize,
    /// The acquisition that talks to the store.
    pub asker: Option<LeaseKey>,
    /// The lease that is held here, or is being given back.
    pub holder: Option<LeaseKey>,
    /// Who was in the way when the store was asked last, and when that was.
    pub seen: Option<(LeaseRecord, Moment)>,
    /// How the store failed when it was asked, whoever of those who wait was the one to ask.
    pub failures: Failures,
    /// Until when it is left to others.
    pub stand_back: Option<Moment>,
    /// Releases of ours that the store will tell us about, and until when that is expected.
    echoes: VecDeque<Moment>,
    in_a_row: u32,
    since: Option<Moment>,
    contended_until: Moment,
    /// Another process was seen since the lease was won last.
    disturbed: bool,
    poll: Duration,
    last_token: Option<Fence>,
    /// Other processes that were in the way, and when they were last.
    others: Vec<(Arc<str>, u32, Moment)>,
    /// Releases of others that were told since this process had its turn, if it had one.
    told_since: Option<usize>,
    /// Until when something of this is worth knowing.
    pub keep_until: Moment,
}

/// How the store has failed when it was asked for a name.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pub count: u32,
    pub last: Option<Arc<StoreError>>,
    /// It failed when it was asked last.
    pub are_going_on: bool,
}

impl Turns {
    /// Another process has it, or had it.
    pub(super) fn contended(&mut self, now: Moment, poll: Duration) {
        self.disturbed = true;
        self.contended_until = now.after(poll.saturating_mul(CONTENDED));
        self.keep_until = self.keep_until.max(self.contended_until);
    }

    /// A holder in another process is in the way.
    pub(super) fn saw(&mut self, now: Moment, holder: &Holder) {
        let same = |(host, pid, _): &&mut (Arc<str>, u32, Moment)| {
            (host.as_ref(), *pid) == (holder.host.as_ref(), holder.pid)
        };
        let full = self.others.len() >= MOST_OTHERS;
        match self.others.iter_mut().find(same) {
            Some((.., at)) => *at = now,
            None if !full => {
                self.others
                    .push((Arc::clone(&holder.host), holder.pid, now));
            }
            None => {}
        }
    }

    /// For how long this process lets others go first when a release is told.
    pub(super) fn defers(&mut self, now: Moment, poll: Duration) -> Duration {
        let lately = poll.saturating_mul(CONTENDED);
        self.others.retain(|(.., at)| now.since(*at) < lately);
        let before_us = match self.told_since {
            Some(told) => self.others.len().saturating_sub(told),
            None => 0,
        };
        HEAD_START * u32::try_from(before_us).unwrap_or_default()
    }

    /// It was granted to this process.
    pub(super) fn won(&mut self, now: Moment, token: Fence) {
        let disturbed = std::mem::take(&mut self.disturbed);
        if disturbed || self.since.is_none() {
            self.in_a_row = 0;
            self.since = Some(now);
        }
        self.failures.are_going_on = false;
        self.last_token = Some(token);
        self.told_since = Some(0);
        self.stand_back = None;
        self.seen = None;
    }

    /// After it was left to others: the token by which the store's record tells whether somebody took it meanwhile. Tokens only
    /// grow, by how much is the store's affair.
    pub(super) fn left_with(&self) -> Option<Fence> {
        self.stand_back.and(self.last_token)
    }

    /// Whether it is left to others now.
    pub(super) fn stands_back(&self, now: Moment) -> bool {
        self.stand_back.is_some_and(|until| now < until)
    }

    /// Whether the next waiter of this process may have it without others being asked.
    pub(super) fn may_hand_over(&self) -> bool {
        self.in_a_row < MOST_IN_A_ROW && !self.queue.is_empty()
    }

    /// It goes to the next waiter of this process.
    pub(super) fn handed_over(&mut self) {
        self.in_a_row += 1;
    }

    /// It was given back: it is left to others for `stand_back`, the time to one's next poll, if they want it, or may be waiting
    /// unseen.
    pub(super) fn given_back(&mut self, now: Moment, poll: Duration, stand_back: Duration) {
        let undisturbed = poll.saturating_mul(UNDISTURBED);
        let long = self
            .since
            .is_some_and(|since| now.since(since) >= undisturbed);
        if now < self.contended_until || self.in_a_row >= MOST_IN_A_ROW || long {
            let until = now.after(stand_back);
            self.stand_back = Some(until);
            self.keep_until = self.keep_until.max(until);
            self.in_a_row = 0;
            self.since = None;
        } else {
            self.keep_until = self.keep_until.max(now.after(undisturbed));
        }
        self.poll = poll;
    }

    /// A release is about to be sent: the store may tell of it before it answers.
    pub(super) fn gives_back(&mut self, now: Moment) {
        self.drop_echoes(now);
        if self.echoes.len() < MOST_ECHOES {
            self.echoes.push_back(now.after(ECHO));
        }
    }

    /// There was nothing to release, and so there is nothing to tell.
    pub(super) fn gave_nothing_back(&mut self) {
        self.echoes.pop_back();
    }

    fn drop_echoes(&mut self, now: Moment) {
        self.echoes.retain(|until| now < *until);
    }

    /// The store told of a release. Whether it is worth asking for the lease: not while it is left to others, if it was our own.
    pub(super) fn told(&mut self, now: Moment) -> bool {
        self.drop_echoes(now);
        let is_echo = self.echoes.pop_front().is_some();
        if !is_echo && let Some(told) = &mut self.told_since {
            *told = told.saturating_add(1);
        }
        if !self.stands_back(now) {
            return true;
        }
        if is_echo {
            return false;
        }
        // Somebody took his turn, and is done.
        self.contended(now, self.poll);
        self.stand_back = None;
        true
    }

    /// From now on the store tells of releases, or does so again: of none before. Whether it is worth asking for the lease.
    pub(super) fn listens(&mut self, now: Moment) -> bool {
        self.echoes.clear();
        !self.stands_back(now)
    }

    /// Whether nobody holds it here, or wants it.
    pub(super) fn is_unused(&self) -> bool {
        self.queue.is_empty() && self.asker.is_none() && self.holder.is_none()
    }

    /// Whether nothing of this is worth knowing any more.
    pub(super) fn is_idle(&self, now: Moment) -> bool {
        self.is_unused() && now >= self.keep_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Moment {
        Moment(millis * 1_000_000)
    }

    fn holder(pid: u32) -> Holder {
        Holder {
            id: format!("id {pid}").into(),
            host: "here".into(),
            pid,
        }
    }

    #[test]
    fn whoever_had_his_turn_lets_each_that_is_known_go_first_and_then_none() {
        let mut turns = Turns::default();
        for pid in [1, 2, 3, 2] {
            turns.saw(at(0), &holder(pid));
        }
        assert_eq!(turns.defers(at(1), POLL), Duration::ZERO, "it had none yet");
        turns.won(at(2), Fence(1));
        let mut deferred = vec![turns.defers(at(3), POLL)];
        for _ in 0..4 {
            turns.told(at(4));
            deferred.push(turns.defers(at(4), POLL));
        }
        let expected = [3, 2, 1, 0, 0].map(|others| HEAD_START * others);
        assert_eq!(deferred, expected);
    }

    #[test]
    fn others_that_were_not_seen_for_long_are_not_waited_for() {
        let mut turns = Turns::default();
        turns.saw(at(0), &holder(1));
        turns.saw(at(9_000), &holder(2));
        turns.won(at(9_000), Fence(1));
        assert_eq!(turns.defers(at(9_999), POLL), HEAD_START * 2);
        assert_eq!(turns.defers(at(10_000), POLL), HEAD_START);
        assert_eq!(turns.defers(at(19_000), POLL), Duration::ZERO);
    }

    #[test]
    fn no_crowd_is_waited_for_longer_than_its_bound() {
        let mut turns = Turns::default();
        for pid in 0..1_000 {
            turns.saw(at(0), &holder(pid));
        }
        turns.won(at(0), Fence(1));
        let most = u32::try_from(MOST_OTHERS).unwrap_or_default();
        assert_eq!(turns.defers(at(1), POLL), HEAD_START * most);
    }
}
