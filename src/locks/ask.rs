//! Asking for a lock.

use super::objects::Named;
use super::queue::{Queued, Rank};
use super::slab::{LockerSlot, ObjectSlot};
use super::table::WaitEntry;
use super::{Attempt, Denied, Effect, LimitKind, LockId, Moment, Patience, Request, Table, WaitId};

/// A request whose locker and mode have been checked.
struct Checked {
    locker: LockerSlot,
    hash: u64,
    /// Which conflict table the object goes by.
    rules: u16,
    object: Option<ObjectSlot>,
}

impl Table {
    /// Grants the lock if that needs no wait.
    ///
    /// # Errors
    /// [`Denied`] when the locker has ended, is dead or holds a lock too long, when a limit is met, when
    /// the mode is unknown, and for an upgrade of what is not held.
    pub fn try_lock(
        &mut self,
        request: Request<'_>,
        effects: &mut Vec<Effect>,
    ) -> Result<Attempt, Denied> {
        let checked = self.checked(&request)?;
        let granted = self.grant_at_once(&request, &checked, effects);
        self.finish(effects);
        Ok(match granted? {
            Some(_) => Attempt::Granted,
            None => Attempt::Blocked,
        })
    }

    /// Grants the lock, or queues the request: `None` is granted. A queued request may be refused by
    /// an effect of this very call, as the victim of the cycle that it closed.
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock); and [`Denied::NotAvailable`] for a request that does not wait.
    pub fn request(
        &mut self,
        now: Moment,
        request: Request<'_>,
        patience: Patience,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<WaitId>, Denied> {
        self.tell_time(now);
        let checked = self.checked(&request)?;
        let asked = self.ask(&request, &checked, patience, effects);
        self.finish(effects);
        Ok(asked?.err())
    }

    /// [`request`](Self::request) as one of several steps, with which lock is granted; the caller finishes the
    /// call after the last. The time is asked for only if the request has to wait.
    pub(super) fn request_among_others(
        &mut self,
        now: impl Fn() -> Moment,
        request: Request<'_>,
        patience: Patience,
        effects: &mut Vec<Effect>,
    ) -> Result<Result<LockId, WaitId>, Denied> {
        let checked = self.checked(&request)?;
        match self.grant_at_once(&request, &checked, effects)? {
            Some(lock) => Ok(Ok(lock)),
            None => {
                self.tell_time(now());
                self.enqueue(&request, &checked, patience).map(Err)
            }
        }
    }

    fn ask(
        &mut self,
        request: &Request<'_>,
        checked: &Checked,
        patience: Patience,
        effects: &mut Vec<Effect>,
    ) -> Result<Result<LockId, WaitId>, Denied> {
        match self.grant_at_once(request, checked, effects)? {
            Some(lock) => Ok(Ok(lock)),
            None => self.enqueue(request, checked, patience).map(Err),
        }
    }

    #[inline]
    fn checked(&mut self, request: &Request<'_>) -> Result<Checked, Denied> {
        let hash = self.hash(request.object);
        let object = self.find(request.object, hash);
        let rules = match object {
            Some(object) => self.objects[object].rules,
            None => self.rules_for(request.object),
        };
        let locker = self.check_request(request, object, rules)?;
        Ok(Checked {
            locker,
            hash,
            rules,
            object,
        })
    }

    /// The locker, if it may ask for this.
    #[inline]
    fn check_request(
        &mut self,
        request: &Request<'_>,
        object: Option<ObjectSlot>,
        rules: u16,
    ) -> Result<LockerSlot, Denied> {
        let locker = self.usable(request.locker)?;
        let overdue = &mut self.lockers[locker].overdue;
        if overdue.is_some()
            && let Some(conflict) = overdue.take()
        {
            return Err(Denied::HeldTooLong(conflict));
        }
        if !self.rules_at(rules).knows(request.mode) {
            return Err(Denied::UnknownMode(request.mode));
        }
        if let Some(from) = request.from {
            object
                .and_then(|object| self.held(locker, object, from))
                .ok_or(Denied::NotHeld)?;
        }
        if let Some(order) = &mut self.order {
            let root = self.lockers[locker].root;
            let asked = order.asked(root, request.object.namespace_text(), request.site);
            self.events
                .extend(asked.into_iter().map(Effect::OrderContradicted));
        }
        Ok(locker)
    }

    /// The lock, if it is granted; `None` if it has to wait, and then nothing has changed.
    fn grant_at_once(
        &mut self,
        request: &Request<'_>,
        checked: &Checked,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<LockId>, Denied> {
        let locker = checked.locker;
        if let Some(object) = checked.object {
            if self.held(locker, object, request.mode).is_none() {
                let family = self.lockers[locker].root;
                if self.must_wait(object, family, request.mode) {
                    return Ok(None);
                }
                self.check_room_for_lock(locker, object, request)?;
            }
            let lock = self.take(object, locker, request);
            if !self.recheck.is_empty() {
                self.promote(effects);
            }
            return Ok(Some(lock));
        }
        self.check(LimitKind::Locks)?;
        if self.is_apart(request.object) {
            let named = Named {
                object: request.object,
                hash: checked.hash,
                rules: checked.rules,
            };
            let lock = self.grant_unknown(named, locker, request.mode, request.site)?;
            return Ok(Some(lock));
        }
        let object = self.intern_new(request.object, checked.hash)?;
        // A range that nobody has asked for before may overlap what others hold.
        if self.objects[object].overlaps.is_some() {
            let family = self.lockers[locker].root;
            if self.must_wait(object, family, request.mode) {
                self.forget_unused(object);
                return Ok(None);
            }
        }
        let lock = self.take(object, locker, request);
        if !self.recheck.is_empty() {
            self.promote(effects);
        }
        Ok(Some(lock))
    }

    fn take(&mut self, object: ObjectSlot, locker: LockerSlot, request: &Request<'_>) -> LockId {
        let lock = self.grant(object, locker, request.mode, request.site);
        if let Some(from) = request.from {
            self.give_up(object, locker, from);
        }
        lock
    }

    /// An upgrade needs no room of its own if the lock that it gives up makes room.
    fn check_room_for_lock(
        &mut self,
        locker: LockerSlot,
        object: ObjectSlot,
        request: &Request<'_>,
    ) -> Result<(), Denied> {
        let given_up = request
            .from
            .and_then(|from| self.held(locker, object, from));
        match given_up {
            Some(lock) if self.locks[lock].count == 1 => Ok(()),
            _ => self.check(LimitKind::Locks),
        }
    }

    fn enqueue(
        &mut self,
        request: &Request<'_>,
        checked: &Checked,
        patience: Patience,
    ) -> Result<WaitId, Denied> {
        let locker = checked.locker;
        let no_wait = match patience {
            Patience::No => true,
            Patience::Default => self.config.timeouts.no_wait,
            _ => false,
        };
        if no_wait {
            self.stats.not_available += 1;
            return Err(Denied::NotAvailable(
                self.explain_refusal(request, locker).into(),
            ));
        }
        self.check(LimitKind::Locks)?;
        let object = self.intern(request.object, checked.hash)?;
        let family = self.lockers[locker].root;
        self.arrivals += 1;
        let rank = Rank {
            group: self.group(object, family),
            arrival: self.arrivals,
        };
        let id = WaitId {
            arrival: self.arrivals,
            slot: self.waits.next_slot(),
        };
        let deadline = self.deadline(locker, patience);
        let wait = self.waits.insert(WaitEntry {
            id,
            locker,
            object,
            mode: request.mode,
            from: request.from,
            site: request.site,
            rank,
            since: self.now,
            deadline,
            barred_by: None,
        });
        self.lockers[family].family.waits.push(wait);
        let queue = self.objects[object].queue.get_or_insert_default();
        queue.insert(
            rank,
            Queued {
                wait,
                family,
                mode: request.mode,
            },
        );
        self.contended.insert(object);
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline.at, id));
        }
        self.stats.waits += 1;
        self.suspects.push(family);
        self.asker = Some(family);
        Ok(id)
    }
}
