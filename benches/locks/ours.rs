//! The lock table by both doors. Everything here that calls it is what its users write.

use std::sync::Arc;

use actix::Addr;
use lockkeeper::{
    Acquire, LockConfig, LockError, LockMany, LockOps, LockTable, Locker, LockerSpec, Locks, Mode,
    Object, Release, Wait,
};

use crate::messages::{ByMessage, Caller};
use crate::transfers::Transfers;
use crate::uncontended::{Holder, InPlace};
use crate::work::Failure;

/// Room for more than a million of each: a limit is not what is measured.
pub fn roomy() -> LockConfig {
    LockConfig {
        max_lockers: 4_000_000,
        max_locks: 4_000_000,
        max_objects: 4_000_000,
        ..LockConfig::default()
    }
}

impl InPlace for Locks {
    type Holder = Locker;

    fn holder(&self) -> Result<Locker, Failure> {
        Ok(self.locker(LockerSpec::new())?)
    }
}

impl Holder for Locker {
    async fn pair(&mut self, object: &Object) -> Result<(), Failure> {
        self.lock(object, Mode::Write, Wait::Default).await?;
        match self.unlock(object, Mode::Write) {
            true => Ok(()),
            false => Err("what was locked is not held".into()),
        }
    }
}

/// The actor, and the locks behind it.
#[derive(Clone)]
pub struct Front {
    pub table: Addr<LockTable>,
    pub locks: Locks,
    pub release: ReleaseBy,
}

/// How a lock that was asked for by message is given back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ReleaseBy {
    /// Another message, and its answer.
    Message,
    /// The end of the guard, on the caller's thread.
    Guard,
}

/// A caller of the actor, with a locker for all of its locks.
pub struct Sender {
    front: Front,
    locker: Arc<Locker>,
}

impl ByMessage for Front {
    type Caller = Sender;

    fn caller(&self) -> Result<Sender, Failure> {
        Ok(Sender {
            front: self.clone(),
            locker: Arc::new(self.locks.locker(LockerSpec::new())?),
        })
    }
}

impl Caller for Sender {
    async fn one(&mut self, object: &Object) -> Result<(), Failure> {
        let acquire = Acquire::new(object.clone(), Mode::Write).locker(Arc::clone(&self.locker));
        let guard = self.front.table.send(acquire).await??;
        if self.front.release == ReleaseBy::Guard {
            return Ok(());
        }
        match self.front.table.send(Release::Guard(guard)).await? {
            true => Ok(()),
            false => Err("what was locked is not held".into()),
        }
    }

    async fn many(&mut self, objects: &[Object]) -> Result<(), Failure> {
        let ops = objects.iter().fold(LockOps::new(), |ops, object| {
            ops.lock(object.clone(), Mode::Write)
        });
        let many = LockMany::new(Arc::clone(&self.locker), ops);
        let held = self.front.table.send(many).await??;
        match self
            .front
            .table
            .send(Release::Together(held.guards))
            .await?
        {
            true => Ok(()),
            false => Err("what was locked is not held".into()),
        }
    }
}

impl Transfers for Locks {
    async fn transfer<F>(&self, from: &Object, to: &Object, work: F) -> Result<u64, Failure>
    where
        F: FnOnce() -> Result<(), Failure> + Send,
    {
        let mut age = None;
        let mut again = 0;
        loop {
            let locker = self.locker(LockerSpec::new().age(age))?;
            age = Some(locker.age());
            match both(&locker, from, to).await {
                Ok(()) => {
                    work()?;
                    return Ok(again);
                }
                Err(error) if error.is_retryable() => {
                    drop(locker);
                    self.ended(error.older()).await;
                    again += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

async fn both(locker: &Locker, from: &Object, to: &Object) -> Result<(), LockError> {
    locker.lock(from, Mode::Write, Wait::Default).await?;
    tokio::task::yield_now().await;
    locker.lock(to, Mode::Write, Wait::Default).await
}
