//! The lock table's two doors: an actor for messages, and [`Locks`] for callers of its process.
//!
//! Both make the same transition of the same core, which stands behind one short mutex.

mod clock;
mod config;
mod ended;
mod events;
mod guards;
mod in_place;
mod later;
mod lock;
mod locker;
mod locks;
mod reply;
mod several;
mod shared;
mod waiting;

use std::sync::Arc;

use actix::{Actor, Addr, Arbiter, Context, Handler, System};

pub use config::LockConfig;
pub use ended::Ended;
pub use events::LockEvent;
pub use guards::LockGuards;
pub(crate) use in_place::InPlace;
pub use later::Later;
pub use lock::Lock;
pub use locker::{LockGuard, Locker};
pub use locks::Locks;
pub use reply::LockReply;
pub use several::{GuardedRun, LocksDone, LocksFailed, LocksRun};

use crate::locks::{LockSnapshot, LockerSpec};
use crate::messages::lock_table::{
    Acquire, ChangeFailed, CommitLocker, DeadlockHistory, Detect, Downgrade, EndLocker,
    LockConfigQuery, LockMany, LockSnapshotQuery, LockStatsQuery, LocksHeld, LocksRefused,
    NewLocker, Release, SetDetect, SetLimits, SetTimeouts, Upgrade,
};

/// The mailbox holds this many messages before senders wait for room; each sender has one slot more.
const MAILBOX: usize = 1024;

/// The front door of the lock table: answers messages, and holds nothing of them.
#[derive(Debug)]
pub struct LockTable {
    locks: Locks,
    alone: bool,
}

impl LockTable {
    /// An actor in front of a lock table that somebody else shuts down.
    #[must_use]
    pub fn new(locks: Locks) -> Self {
        Self {
            locks,
            alone: false,
        }
    }

    /// Starts a lock table by itself, without an environment, on a thread (arbiter) of its own in the
    /// current actix system. The table is shut down when the actor stops.
    ///
    /// # Errors
    /// [`NoSystem`] when no actix system runs on the calling thread.
    pub fn start_alone(config: LockConfig) -> Result<(Addr<Self>, Locks), NoSystem> {
        if !System::is_registered() {
            return Err(NoSystem);
        }
        let locks = Locks::start(config);
        let actor = Self {
            locks: locks.clone(),
            alone: true,
        };
        let address = Self::start_in_arbiter(&Arbiter::new().handle(), |_| actor);
        Ok((address, locks))
    }
}

/// No actix system runs on the calling thread; start one (`actix::System::new`, `#[actix::main]`), or
/// use [`Locks`] in place, which needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no actix system runs on this thread")]
pub struct NoSystem;

impl Actor for LockTable {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if self.alone {
            self.locks.shutdown();
            Arbiter::current().stop();
        }
    }
}

impl Handler<Acquire> for LockTable {
    type Result = LockReply;

    fn handle(&mut self, mut acquire: Acquire, _: &mut Self::Context) -> LockReply {
        let locker = match acquire.locker.take() {
            Some(locker) => Ok(locker),
            None => {
                let spec = LockerSpec {
                    site: acquire.site,
                    ..LockerSpec::new()
                };
                self.locks.locker(spec).map(Arc::new)
            }
        };
        match locker {
            Ok(locker) => LockReply::ask(locker, acquire),
            Err(error) => LockReply::refused(error),
        }
    }
}

impl Handler<Release> for LockTable {
    type Result = bool;

    fn handle(&mut self, release: Release, _: &mut Self::Context) -> bool {
        release.in_place()
    }
}

impl Handler<Upgrade> for LockTable {
    type Result = Later<Result<LockGuard, ChangeFailed>>;

    fn handle(&mut self, upgrade: Upgrade, _: &mut Self::Context) -> Self::Result {
        Later::new(upgrade.run())
    }
}

impl Handler<LockMany> for LockTable {
    type Result = Later<Result<LocksHeld, LocksRefused>, GuardedRun>;

    fn handle(&mut self, many: LockMany, _: &mut Self::Context) -> Self::Result {
        Later::unboxed(GuardedRun::new(many))
    }
}

impl Handler<LockSnapshotQuery> for LockTable {
    type Result = Later<LockSnapshot>;

    /// The picture is of the moment when it is the message's turn. It is put in order on a thread for work that takes long,
    /// so that it holds up nobody else's message.
    fn handle(&mut self, _: LockSnapshotQuery, _: &mut Self::Context) -> Self::Result {
        let copy = self.locks.copy();
        let sorted = tokio::task::spawn_blocking(|| copy.sorted());
        Later::new(async {
            match sorted.await {
                Ok(sorted) => sorted,
                // The runtime comes to its end, and this with it: whoever asked is told that the actor is gone.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

/// Messages that are answered at once, by a method of the message that needs the table alone.
macro_rules! answered_at_once {
    ($($message:ty),* $(,)?) => {
        $(impl Handler<$message> for LockTable {
            type Result = actix::MessageResult<$message>;

            fn handle(&mut self, message: $message, _: &mut Self::Context) -> Self::Result {
                actix::MessageResult(message.in_place(&self.locks))
            }
        })*
    };
}

answered_at_once!(
    Downgrade,
    NewLocker,
    CommitLocker,
    EndLocker,
    Detect,
    SetDetect,
    SetTimeouts,
    SetLimits,
    LockStatsQuery,
    DeadlockHistory,
    LockConfigQuery,
);
