//! Which partitions one process of several should hold.
//!
//! Nobody leads. Each process takes part by holding a member's lease, looks at the list of leases in the store once every poll, and
//! goes by what it sees there: how many processes live, and who holds what ([`Sight`]). It tries for partitions that nobody holds
//! while it has less than its share, and gives some back while it has more. That no partition ever has two holders is the store's
//! doing, and does not depend on anything here; what is decided here is only who *tries*.
//!
//! - **Bound**: when all live processes have seen the same members for some polls, each holds `floor(m / n)` or `ceil(m / n)` of the m
//!   partitions, and nothing moves any more.
//! - **Taking is quick, giving is slow.** A partition that nobody holds is tried for at once; the end of a dead holder's lease is
//!   foreseen in the list, and looked at when it comes. A surplus has to be seen in two looks in a row, a poll apart, before
//!   anything is given back, so that a process that is away for a moment, or several that start together, move nothing twice.
//! - **No fighting.** Each process tries in an order of its own, and gives back from the end of it; what it finds busy it does not try
//!   again before the next look.
//! - **Nothing lies idle.** A partition that those whose turn it is have not taken for [`ORPHANED`] polls is taken by anybody, beyond
//!   its share; that is kept for [`TOLERATED`] polls before it counts as a surplus.
//!
//! No clock, no I/O: time and the list are inputs, and what is to be done comes out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::sight::Sight;
use crate::backoff::RetryRng;
use crate::leases::state::Moment;

/// After so many polls a partition that nobody holds is anybody's.
const ORPHANED: u32 = 5;
/// For so many polls a process keeps what it took beyond its share because nobody else did.
const TOLERATED: u32 = 30;
/// A surplus is given back when so many looks in a row have shown it.
const SETTLED: u32 = 2;
/// The end of a lease is looked at when it comes, but not more often than so many times in a poll.
const MOST_LOOKS: u32 = 8;
/// What is looked for at an instant is seen just after it.
const JUST_AFTER: Duration = Duration::from_millis(2);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// List the leases of the store, and say what was [`seen`](Balancer::looked).
    Look,
    /// Try for the lease of this member, and say whether it was [`granted`](Balancer::joined).
    Join(u32),
    /// Give the member's lease back.
    Leave,
    /// Try once for the lease of this partition, and say what [`came`](Balancer::tried) of it.
    Try(u32),
    /// End the worker of this partition, then give its lease back, then say that it is [`gone`](Balancer::gone).
    Give(u32),
}

/// What came of trying for a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tried {
    /// It is ours.
    Got,
    /// Somebody holds it.
    Busy,
    /// The store did not say.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    Trying,
    Held,
    Giving,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Membership {
    Out,
    Joining(u32),
    In(u32),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Balancer {
    me: Arc<str>,
    partitions: u32,
    poll: Duration,
    seed: u64,
    membership: Membership,
    mine: BTreeMap<u32, Hold>,
    sight: Option<Sight>,
    /// What was found busy, or not answered, since the last look; and slots of members.
    refused: BTreeSet<u32>,
    slots_refused: BTreeSet<u32>,
    /// Whether the store failed when a slot was tried for: not again before the next look.
    join_later: bool,
    free_since: BTreeMap<u32, Moment>,
    /// Since when, and in how many looks in a row, there was a surplus.
    surplus: Option<(Moment, u32)>,
    tolerated_until: Moment,
    /// What is being tried for beyond the share.
    orphan: Option<u32>,
    looking: bool,
    next_look: Moment,
    withdrawn: bool,
    stopping: bool,
}

impl Balancer {
    /// A process with this label, which is unique among all that take part. `seed`: what the order of trying is drawn from.
    pub(crate) fn new(me: Arc<str>, partitions: u32, poll: Duration, seed: u64) -> Self {
        Self {
            me,
            partitions,
            poll,
            seed,
            membership: Membership::Out,
            mine: BTreeMap::new(),
            sight: None,
            refused: BTreeSet::new(),
            slots_refused: BTreeSet::new(),
            join_later: false,
            free_since: BTreeMap::new(),
            surplus: None,
            tolerated_until: Moment(0),
            orphan: None,
            looking: false,
            next_look: Moment(0),
            withdrawn: false,
            stopping: false,
        }
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        (!self.looking && !self.withdrawn).then_some(self.next_look)
    }

    /// Carries out what is due.
    pub(crate) fn tick(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        if self.next_deadline().is_some_and(|at| at <= now) {
            self.looking = true;
            fx.push(Effect::Look);
        }
    }

    /// What a look has shown; `None` if the store failed: nothing is concluded from that.
    pub(crate) fn looked(&mut self, now: Moment, seen: Option<Sight>, fx: &mut Vec<Effect>) {
        self.looking = false;
        self.next_look = now.after(self.poll);
        let Some(sight) = seen else { return };
        if let Some(end) = sight.soonest_end(&self.me) {
            let least = self.poll / MOST_LOOKS;
            let at = now.after(end.saturating_add(JUST_AFTER).max(least));
            self.next_look = self.next_look.min(at);
        }
        let is_free = |partition: &u32| !sight.partitions.contains_key(partition);
        let free: Vec<u32> = (0..self.partitions).filter(is_free).collect();
        self.free_since
            .retain(|partition, _| free.contains(partition));
        for partition in free {
            self.free_since.entry(partition).or_insert(now);
        }
        let before = self.sight.replace(sight);
        if !self
            .sight
            .as_ref()
            .is_some_and(|sight| sight.has_members_of(before.as_ref()))
        {
            // Those who come may take what those who were there did not.
            self.tolerated_until = Moment(0);
        }
        self.refused.clear();
        self.slots_refused.clear();
        self.join_later = false;
        self.note_surplus(now);
        self.decide(now, fx);
    }

    /// What came of [`Effect::Join`].
    pub(crate) fn joined(&mut self, now: Moment, slot: u32, came: Tried, fx: &mut Vec<Effect>) {
        if self.membership != Membership::Joining(slot) {
            return;
        }
        self.membership = Membership::Out;
        match came {
            Tried::Got => {
                self.membership = Membership::In(slot);
                if self.withdrawn {
                    fx.push(Effect::Leave);
                }
                // The others are seen anew, and see us: what is our share shows in a list that we are in.
                self.next_look = now;
            }
            Tried::Busy => drop(self.slots_refused.insert(slot)),
            Tried::Failed => self.join_later = true,
        }
        self.decide(now, fx);
    }

    /// The member's lease is lost, or has been given back.
    pub(crate) fn left(&mut self, now: Moment) {
        self.membership = Membership::Out;
        self.next_look = now;
    }

    /// What came of [`Effect::Try`].
    pub(crate) fn tried(&mut self, now: Moment, partition: u32, came: Tried, fx: &mut Vec<Effect>) {
        if self.mine.get(&partition) != Some(&Hold::Trying) {
            return;
        }
        let is_orphan = self.orphan.take_if(|orphan| *orphan == partition).is_some();
        match came {
            Tried::Got => {
                self.mine.insert(partition, Hold::Held);
                self.free_since.remove(&partition);
                if is_orphan {
                    self.tolerated_until = now.after(self.poll.saturating_mul(TOLERATED));
                }
                if self.withdrawn {
                    self.give(vec![partition], fx);
                }
            }
            Tried::Busy | Tried::Failed => {
                self.mine.remove(&partition);
                self.refused.insert(partition);
            }
        }
        self.decide(now, fx);
    }

    /// A partition is not held any more, and its worker has ended: given back, or lost.
    pub(crate) fn gone(&mut self, now: Moment, partition: u32, fx: &mut Vec<Effect>) {
        if self.mine.remove(&partition).is_some() {
            // It is somebody else's turn, or nobody knows yet.
            self.refused.insert(partition);
            self.decide(now, fx);
        }
    }

    /// From now on there are so many partitions.
    pub(crate) fn resize(&mut self, now: Moment, partitions: u32, fx: &mut Vec<Effect>) {
        if self.partitions != partitions {
            self.partitions = partitions;
            self.surplus = None;
            self.next_look = now;
            self.decide(now, fx);
        }
    }

    /// Takes part no more: nothing is tried for, and others are due what becomes free. What is held is kept until it is to
    /// [`stop`](Self::stop), so that what runs may finish.
    pub(crate) fn withdraw(&mut self, fx: &mut Vec<Effect>) {
        if !std::mem::replace(&mut self.withdrawn, true)
            && matches!(self.membership, Membership::In(_))
        {
            fx.push(Effect::Leave);
        }
    }

    /// Everything is given back, and nothing is tried for any more. Membership goes first, so that the others know that what is
    /// given back is theirs.
    pub(crate) fn stop(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        self.withdraw(fx);
        if !std::mem::replace(&mut self.stopping, true) {
            self.decide(now, fx);
        }
    }

    /// Whether nothing is held, or being tried for.
    pub(crate) fn is_done(&self) -> bool {
        self.stopping && self.mine.is_empty() && self.membership == Membership::Out
    }

    /// How many this process should hold, as far as it knows.
    pub(crate) fn share(&self) -> Option<u32> {
        let Membership::In(slot) = self.membership else {
            return None;
        };
        self.sight.as_ref()?.share(&self.me, slot, self.partitions)
    }

    /// How many processes took part when the store was looked at last.
    pub(crate) fn members(&self) -> usize {
        self.sight.as_ref().map_or(0, |sight| sight.members.len())
    }

    fn decide(&mut self, now: Moment, fx: &mut Vec<Effect>) {
        if self.stopping {
            let held: Vec<u32> = self.with(Hold::Held).collect();
            return self.give(held, fx);
        }
        if self.withdrawn {
            return;
        }
        let beyond = self
            .with(Hold::Held)
            .filter(|number| *number >= self.partitions);
        let beyond: Vec<u32> = beyond.collect();
        self.give(beyond, fx);
        self.join(fx);
        if let Some(share) = self.share() {
            let share = usize::try_from(share).unwrap_or(usize::MAX);
            self.take(share, fx);
            self.take_orphan(now, share, fx);
            self.give_surplus(now, share, fx);
        }
    }

    fn join(&mut self, fx: &mut Vec<Effect>) {
        let Some(sight) = &self.sight else { return };
        if self.membership != Membership::Out || self.join_later {
            return;
        }
        let mut slot = sight.free_slot();
        while self.slots_refused.contains(&slot) || sight.members.contains_key(&slot) {
            slot = slot.saturating_add(1);
        }
        self.membership = Membership::Joining(slot);
        fx.push(Effect::Join(slot));
    }

    fn take(&mut self, share: usize, fx: &mut Vec<Effect>) {
        let missing = share.saturating_sub(self.kept());
        let mut wanted: Vec<u32> = self.free().collect();
        self.sort(&mut wanted);
        wanted.truncate(missing);
        for partition in wanted {
            self.mine.insert(partition, Hold::Trying);
            fx.push(Effect::Try(partition));
        }
    }

    /// One at a time: that all do is soon over.
    fn take_orphan(&mut self, now: Moment, share: usize, fx: &mut Vec<Effect>) {
        if self.kept() < share || self.with(Hold::Trying).next().is_some() {
            return;
        }
        let patience = self.poll.saturating_mul(ORPHANED);
        let is_orphan = |partition: &u32| {
            let since = self.free_since.get(partition);
            since.is_some_and(|since| now.since(*since) >= patience)
        };
        let mut orphans: Vec<u32> = self.free().filter(is_orphan).collect();
        self.sort(&mut orphans);
        if let Some(partition) = orphans.first().copied() {
            self.orphan = Some(partition);
            self.mine.insert(partition, Hold::Trying);
            fx.push(Effect::Try(partition));
        }
    }

    fn note_surplus(&mut self, now: Moment) {
        let share = self.share().and_then(|share| usize::try_from(share).ok());
        let is_over = share.is_some_and(|share| self.with(Hold::Held).count() > share);
        self.surplus = match self.surplus {
            _ if !is_over => None,
            None => Some((now, 1)),
            Some((since, looks)) => Some((since, looks.saturating_add(1))),
        };
    }

    fn give_surplus(&mut self, now: Moment, share: usize, fx: &mut Vec<Effect>) {
        let settled = |(since, looks): (Moment, u32)| {
            looks >= SETTLED && now.since(since) >= self.poll && now >= self.tolerated_until
        };
        if !self.surplus.is_some_and(settled) {
            return;
        }
        let mut held: Vec<u32> = self.with(Hold::Held).collect();
        self.sort(&mut held);
        let over = held.split_off(share.min(held.len()));
        self.give(over, fx);
    }

    fn give(&mut self, partitions: Vec<u32>, fx: &mut Vec<Effect>) {
        for partition in partitions {
            self.mine.insert(partition, Hold::Giving);
            fx.push(Effect::Give(partition));
        }
    }

    /// The partitions that nobody held when the store was looked at, but for those that were found busy since.
    fn free(&self) -> impl Iterator<Item = u32> {
        let is_free = |partition: &&u32| {
            **partition < self.partitions
                && !self.mine.contains_key(partition)
                && !self.refused.contains(partition)
        };
        self.free_since.keys().filter(is_free).copied()
    }

    /// How many are held, or may be in a moment.
    fn kept(&self) -> usize {
        let kept = |hold: &&Hold| **hold != Hold::Giving;
        self.mine.values().filter(kept).count()
    }

    fn with(&self, hold: Hold) -> impl Iterator<Item = u32> {
        let entries = self.mine.iter();
        entries
            .filter(move |(_, other)| **other == hold)
            .map(|(partition, _)| *partition)
    }

    /// The order of this process, from what it tries for first to what it gives back first.
    fn sort(&self, partitions: &mut [u32]) {
        let place = |partition: &u32| {
            let mixed = self.seed ^ RetryRng::new(u64::from(*partition)).next_u64();
            RetryRng::new(mixed).next_u64()
        };
        partitions.sort_by_cached_key(|partition| (place(partition), *partition));
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
