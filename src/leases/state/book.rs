//! All leases of a process in one store, and all who wait for them.
//!
//! For each name one waiter at a time talks to the store; the others wait behind it in order. A lease that is given back while
//! somebody waits is handed over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::life::LifeChange;
use super::turns::Turns;
use super::waiters::Waiter;
use super::{Effect, LeaseKey, Life, Moment, Phase, Refusal, SendId, WaiterId};
use crate::backoff::RetryRng;
use crate::leases::{LeaseName, LostReason};

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
    /// Until then a claim that was given up may come late: what is given back before is given back once more. Whoever has it then,
    /// as the store says, may be this one, by that claim; none if a refresh has made sure since that no claim came late.
    pub late: Option<Moment>,
    /// When it was asked for a release last.
    pub asked: Moment,
    /// Its release was told.
    pub is_told: bool,
    /// Until when it was believed in, when it was given back.
    pub believed: Option<Moment>,
    /// It was asked for a release before, and the answer did not come.
    pub unanswered: bool,
    /// The store is expected to tell of its release.
    pub told: bool,
    /// The lease may have become free after the claim that is under way was decided.
    pub woken: bool,
    /// It has ended here, and is not given back as long as somebody runs under it.
    pub kept: bool,
}

impl Entry {
    /// It is not given back, and may be held in the store still.
    fn is_kept(&self, now: Moment) -> bool {
        self.kept && matches!(self.life.phase(), Phase::Lost(_)) && now < self.life.gone_by()
    }

    /// The store is asked whether it is ours since a claim whose answer was lost.
    pub(super) fn is_verifying(&self) -> bool {
        *self.life.phase() == Phase::Verifying
    }

    /// Whether something is still to come of it.
    fn is_active(&self, now: Moment) -> bool {
        let is_over = matches!(
            self.life.phase(),
            Phase::Releasing | Phase::Released | Phase::Lost(_)
        );
        self.releasing || self.is_kept(now) || !is_over
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Of a lease: its end.
    End(LeaseKey),
    /// Of an asker: the next claim. Of a release: the next try. Of what is left to the store: its end there.
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
    /// What the store is asked though nobody waits for it: claims of those who went away, and releases.
    pub(super) trailing: usize,
    pub(super) closed: bool,
    pub(super) rng: RetryRng,
    pub(super) next_key: u64,
    pub(super) next_waiter: u64,
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
            trailing: 0,
            closed: false,
            rng: RetryRng::new(bounds.seed),
            next_key: 0,
            next_waiter: 0,
            swept: Moment(0),
        }
    }

    /// Nothing new is begun: waiters are refused, leases are lost and given back, each on its own, except those in use: somebody
    /// runs under them still, and whoever got them next would run beside him. They are given back when their guard says so, or
    /// else they expire.
    pub fn close(&mut self, now: Moment, in_use: impl Fn(LeaseKey) -> bool, fx: &mut Vec<Effect>) {
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
            let entry = self.leases.get(&key);
            if entry
                .is_some_and(|entry| entry.claim.is_some() && *entry.life.phase() == Phase::Asked)
            {
                // A release could come before its claim. The answer decides: what is granted to nobody is given back.
                continue;
            }
            self.lose(now, key, LostReason::Shutdown, fx);
            if !(in_use(key) && self.keep(key)) {
                self.give_back(now, key, fx);
            }
        }
    }

    /// The guard of a lease is gone while somebody runs under it: it ends here, is left to the store until it expires, and
    /// forgotten then.
    pub fn let_expire(&mut self, now: Moment, key: LeaseKey, fx: &mut Vec<Effect>) {
        self.lose(now, key, LostReason::Released, fx);
        if !self.keep(key) {
            return self.disown(now, key, fx);
        }
        if let Some(entry) = self.leases.get_mut(&key) {
            entry.unowned = true;
            let gone_by = entry.life.gone_by();
            self.wake_at(key, gone_by);
        }
    }

    /// Whether it may be held in the store, and is from now on kept from being given back.
    fn keep(&mut self, key: LeaseKey) -> bool {
        let Some(entry) = self.leases.get_mut(&key) else {
            return false;
        };
        entry.kept = match entry.life.phase() {
            Phase::Lost(LostReason::Stolen { .. } | LostReason::Forced) => entry.late.is_some(),
            Phase::Lost(_) => true,
            _ => false,
        };
        entry.kept
    }

    /// Whether nothing is held, wanted or being given back.
    #[must_use]
    pub fn is_idle(&self, now: Moment) -> bool {
        self.waiters.is_empty() && !self.leases.values().any(|entry| entry.is_active(now))
    }

    /// Names that may be held in the store still. A guard may outlive the release of its lease.
    pub fn held_names(&self, now: Moment) -> impl Iterator<Item = &LeaseName> {
        let held = move |entry: &&Entry| {
            let has_expired = entry.kept && !entry.is_kept(now);
            *entry.life.phase() != Phase::Released && !has_expired
        };
        self.leases.values().filter(held).map(|entry| &entry.name)
    }

    /// How much it remembers: names, waiters, leases, times, and what trails behind.
    #[must_use]
    pub fn size(&self) -> [usize; 5] {
        let times = self.timers.len() + self.dues.len() + self.soon.len();
        [
            self.names.len(),
            self.waiters.len(),
            self.leases.len(),
            times,
            self.trailing,
        ]
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
        let holder = self.names.get(name).and_then(|turns| turns.holder);
        (self.waiting(name), holder)
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
            // What may be worth knowing for long is not kept for however many names.
            let are_many = self.names.len() > MOST_IDLE;
            let is_over = |turns: &Turns| turns.is_unused() && (are_many || turns.is_idle(now));
            self.names.retain(|_, turns| !is_over(turns));
        }
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

/// How often names that nobody uses are forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// Of more names than this, those that nobody uses are forgotten at once. Then a process may have the lease again before others.
const MOST_IDLE: usize = 100_000;

/// One that [trails behind](Book::trailing) has come to its end.
pub(super) fn settle(trailing: &mut usize) {
    debug_assert!(*trailing > 0, "it ends once");
    *trailing = trailing.saturating_sub(1);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::leases::state::{ClaimAnswer, Timing, Wish};
    use crate::leases::{Claimed, Fence, LeaseVerdict, Released, StoreError};

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: Moment = Moment(1);

    fn book() -> Book {
        Book::new(Bounds {
            waiters: 1,
            call_timeout: SECOND,
            seed: 1,
        })
    }

    /// Takes a lease.
    fn take(book: &mut Book, name: &LeaseName, poll: Duration) -> LeaseKey {
        let mut fx = Vec::new();
        let wish = Wish {
            timing: Timing::new(SECOND, 60 * SECOND, SECOND).unwrap(),
            poll,
            until: None,
            once: false,
            fail_fast: false,
        };
        book.ask(NOW, name, wish).unwrap();
        book.advance(NOW, name, &mut fx);
        let Some(Effect::Claim { key, send, .. }) = fx.pop() else {
            panic!("{fx:?}")
        };
        let claimed = Claimed::Ours { token: Fence(1) };
        let foreign = false;
        let granted = ClaimAnswer::Claimed { claimed, foreign };
        book.claimed(NOW, key, send, granted, &mut fx);
        key
    }

    #[test]
    fn what_is_left_to_the_store_is_forgotten_when_it_has_expired_there() {
        let (mut book, mut fx) = (book(), Vec::new());
        let key = take(&mut book, &LeaseName::new("job").unwrap(), SECOND);
        book.let_expire(NOW, key, &mut fx);
        let held = |book: &Book, at| book.held_names(at).count();
        book.tick(NOW.after(60 * SECOND), &mut fx);
        assert_eq!((held(&book, NOW), book.leases.len()), (1, 1));
        book.tick(NOW.after(123 * SECOND), &mut fx);
        assert_eq!((book.leases.len(), book.next_deadline()), (0, None));
        let is_told = |effect: &Effect| matches!(effect, Effect::Forget { key: of } if *of == key);
        assert_eq!(fx.iter().filter(|effect| is_told(effect)).count(), 1);
        let is_release = |effect: &Effect| matches!(effect, Effect::Release { .. });
        assert!(!fx.iter().any(is_release));
    }

    #[test]
    fn what_is_given_back_after_all_may_be_held_until_the_store_has_answered() {
        let (mut book, mut fx) = (book(), Vec::new());
        let key = take(&mut book, &LeaseName::new("job").unwrap(), SECOND);
        book.close(NOW, |_| true, &mut fx);
        // Whoever ran under it has ended.
        book.disown(NOW, key, &mut fx);
        assert!(matches!(fx.last(), Some(Effect::Release { .. })), "{fx:?}");
        assert_eq!(book.held_names(NOW).count(), 1);
        book.released(NOW, key, Ok(Released::WasOurs), &mut fx);
        assert_eq!((book.held_names(NOW).count(), book.leases.len()), (0, 0));
    }

    #[test]
    fn i12_a_claim_that_is_under_way_for_longer_than_a_lease_lasts_is_given_back_all_the_same() {
        let mut book = Book::new(Bounds {
            waiters: 1,
            call_timeout: 10 * SECOND,
            seed: 1,
        });
        let (name, mut fx) = (LeaseName::new("job").unwrap(), Vec::new());
        let wish = Wish {
            timing: Timing::new(SECOND, 3 * SECOND, SECOND).unwrap(),
            poll: SECOND,
            until: None,
            once: true,
            fail_fast: false,
        };
        let at = |seconds| NOW.after(seconds * SECOND);
        book.ask(at(0), &name, wish).unwrap();
        book.advance(at(0), &name, &mut fx);
        let Some(Effect::Claim { key, send, .. }) = fx.pop() else {
            panic!("{fx:?}")
        };
        let error = || Arc::new(StoreError::Unreachable("no answer".into()));
        let failed = ClaimAnswer::Failed {
            error: error(),
            verdict: LeaseVerdict::GoOn,
        };
        book.claimed(at(10), key, send, failed, &mut fx);
        book.released(at(11), key, Err((error(), LeaseVerdict::GoOn)), &mut fx);
        book.tick(at(12), &mut fx);
        book.released(at(13), key, Ok(Released::WasLost), &mut fx);
        // The claim may have come at any time until now.
        book.tick(at(20), &mut fx);
        let is_release = |effect: &&Effect| matches!(effect, Effect::Release { .. });
        assert_eq!(fx.iter().filter(is_release).count(), 3, "{fx:?}");
        book.released(at(20), key, Ok(Released::WasOurs), &mut fx);
        assert_eq!(book.leases.len(), 0);
    }

    #[test]
    fn names_that_nobody_uses_are_bounded_however_seldom_is_polled() {
        let poll = Duration::from_secs(86_400);
        for (names, kept) in [(10, 10), (MOST_IDLE + 1, 0)] {
            let (mut book, mut fx) = (book(), Vec::new());
            for n in 0..names {
                let name = LeaseName::new(n.to_string()).unwrap();
                let key = take(&mut book, &name, poll);
                book.disown(NOW, key, &mut fx);
                book.released(NOW, key, Ok(Released::WasOurs), &mut fx);
                fx.clear();
            }
            book.tick(NOW.after(SWEEP), &mut fx);
            assert_eq!((book.names.len(), book.leases.len()), (kept, 0));
        }
    }
}
