//! The locks of a transaction, before its body runs.

use std::time::Instant;

use super::admission::Admitted;
use super::attempts::Attempts;
use super::keyed::Keyed;
use super::runtime::Runtime;
use crate::actors::lock_table::{Locker, Locks};
use crate::env::Holding;
use crate::error::LockError;
use crate::error::{Site, Stage, TxnError};
use crate::locks::{Age, LockerSpec, Mode, Object};
use crate::messages::supervisor::TxnOptions;

impl Runtime {
    /// Takes the locks, one after the other: that of the key first, and the declared ones only if there is no answer for it.
    pub(super) async fn take_locks<T>(
        &self,
        options: &mut TxnOptions,
        keyed: Option<&Keyed<T>>,
        admitted: &Admitted,
        attempts: &mut Attempts,
    ) -> Result<Taken<T>, TxnError> {
        if options.locks.is_empty() && keyed.is_none() {
            return Ok(Taken::Locks(None));
        }
        let Some(table) = &self.locks else {
            return Err(TxnError::NoLockTable);
        };
        order_locks(options, table);
        let age = attempts.age;
        let locker = match keyed {
            None => locker(table, options, age)?,
            Some(keyed) => match self.take_key(options, keyed, admitted, attempts).await? {
                Taken::Locks(Some(locker)) => locker,
                taken => return Ok(taken),
            },
        };
        attempts.age = Some(locker.age());
        let deadline = admitted.deadline;
        for wanted in &options.locks {
            // Failing, it leaves its locks here: others wait for them.
            self.lock(&locker, wanted, options.site, deadline, attempts)
                .await?;
        }
        Ok(Taken::Locks(Some(locker)))
    }

    /// Locks the key of an attempt, with a locker of its own, and looks for its answer.
    pub(super) async fn take_key<T>(
        &self,
        options: &TxnOptions,
        keyed: &Keyed<T>,
        admitted: &Admitted,
        attempts: &mut Attempts,
    ) -> Result<Taken<T>, TxnError> {
        let Some(table) = &self.locks else {
            return Err(TxnError::NoLockTable);
        };
        let locker = locker(table, options, attempts.age)?;
        let key = (keyed.object(), Mode::Write);
        self.lock(&locker, &key, options.site, admitted.deadline, attempts)
            .await?;
        match keyed.look_up(&self.env, admitted.ask(options)).await? {
            Some(answer) => Ok(Taken::Answer(answer)),
            None => Ok(Taken::Locks(Some(locker))),
        }
    }

    pub(super) async fn lock(
        &self,
        locker: &Locker,
        (object, mode): &(Object, Mode),
        site: Site,
        deadline: Instant,
        attempts: &mut Attempts,
    ) -> Result<(), TxnError> {
        let lock = locker.lock_for_transaction(object, *mode, site);
        match self.env.shared.clock.until(deadline, lock).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) => {
                attempts.lost(&error);
                Err(conflict(error))
            }
            None => Err(TxnError::DeadlineExceeded {
                deadline: attempts.span,
                stage: Stage::WaitedForLocks,
            }),
        }
    }
}

/// Puts the declared locks into the order in which they are taken.
pub(super) fn order_locks(options: &mut TxnOptions, table: &Locks) {
    if options.in_order {
        return;
    }
    order(&mut options.locks, table);
}

/// Puts locks into the one order for all.
pub(super) fn order(locks: &mut Vec<(Object, Mode)>, table: &Locks) {
    // Of those for one object the strongest comes first, so that none needs an upgrade.
    locks.sort_by(|(one, mode), (other, other_mode)| one.cmp(other).then(other_mode.cmp(mode)));
    // One that the stronger covers is not taken at all.
    locks.dedup_by(|(object, weaker), (other, stronger)| {
        object == other && table.covers(object, *stronger, *weaker)
    });
}

/// A locker for an attempt; a first one has no age yet.
pub(super) fn locker(
    table: &Locks,
    options: &TxnOptions,
    age: Option<Age>,
) -> Result<Locker, TxnError> {
    let spec = LockerSpec {
        name: options.name.clone().map(Into::into),
        age,
        priority: options.priority,
        site: options.site,
        lock_timeout: options.lock_timeout,
        txn_timeout: options.txn_timeout,
    };
    table.locker_in_flight(spec).map_err(conflict)
}

/// What an attempt has before its body runs.
pub(super) enum Taken<T> {
    Locks(Option<Locker>),
    /// The answer that is stored for its key: nothing is to run.
    Answer(T),
}

impl Holding for Locker {
    /// Who holds a lock for too long can be aborted while it waits for the writer.
    fn check(&self) -> Result<(), TxnError> {
        self.is_usable().map_err(conflict)
    }
}

/// A lock table that goes down is no conflict: the keeper does.
pub(super) fn conflict(error: LockError) -> TxnError {
    match error {
        LockError::ShuttingDown => TxnError::ShuttingDown,
        error => TxnError::Conflict(error),
    }
}
