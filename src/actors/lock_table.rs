//! The lock table's two doors: an actor for messages, and [`Locks`] for callers of its process.
//!
//! Both make the same transition of the same core, which stands behind one short mutex.

mod clock;
mod config;
mod ended;
mod events;
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

use actix::{Actor, Addr, Arbiter, Context, Handler, Message, MessageResult, System};

pub use config::LockConfig;
pub use ended::Ended;
pub use events::LockEvent;
pub(crate) use in_place::InPlace;
pub use later::Later;
pub use lock::Lock;
pub use locker::{LockGuard, Locker};
pub use locks::Locks;
pub use reply::LockReply;
pub use several::{GuardedRun, LocksDone, LocksFailed, LocksRun};

use super::supervised::{Started, Watched};
use crate::error::{ActorPanicked, LockError};
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
    started: Option<Started>,
}

impl LockTable {
    /// An actor in front of a lock table that somebody else shuts down.
    #[must_use]
    pub fn new(locks: Locks) -> Self {
        Self {
            locks,
            alone: false,
            started: None,
        }
    }

    pub(crate) fn of_keeper(locks: Locks, started: Started) -> Self {
        Self {
            started: Some(started),
            ..Self::new(locks)
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
            alone: true,
            ..Self::new(locks.clone())
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
        let started = self.started.take();
        let set = || context.set_mailbox_capacity(MAILBOX);
        self.locks.supervision().start(started, set);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let supervision = self.locks.supervision();
        supervision.stop(|| {
            if self.alone {
                self.locks.shutdown();
            }
        });
        if self.alone {
            Arbiter::current().stop();
        }
    }
}

impl Handler<Acquire> for LockTable {
    type Result = Watched<LockReply>;

    fn handle(&mut self, mut acquire: Acquire, context: &mut Self::Context) -> Self::Result {
        let ask = || {
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
        };
        let refused = |panicked| Some(LockReply::refused(LockError::ActorPanicked(panicked)));
        (self.locks.supervision()).handle(context, "Acquire", ask, refused)
    }
}

/// An [`Upgrade`], and what [`Downgrade`] asks for, give a guard away: after a panic it is gone, its lock released, and the
/// sender is told that the mailbox is closed. A keeper does both in the sender's task.
impl Handler<Upgrade> for LockTable {
    type Result = Watched<Later<Result<LockGuard, ChangeFailed>>>;

    fn handle(&mut self, upgrade: Upgrade, context: &mut Self::Context) -> Self::Result {
        let run = || Later::new(upgrade.run());
        (self.locks.supervision()).handle(context, "Upgrade", run, |_| None)
    }
}

impl Handler<LockMany> for LockTable {
    type Result = Watched<Later<Result<LocksHeld, LocksRefused>, GuardedRun>>;

    fn handle(&mut self, many: LockMany, context: &mut Self::Context) -> Self::Result {
        let operations = many.ops.len();
        let run = || Later::unboxed(GuardedRun::new(many));
        let refused = |panicked| {
            let refused = LocksRefused::all(operations, LockError::ActorPanicked(panicked));
            Some(Later::answered(Err(refused)))
        };
        (self.locks.supervision()).handle(context, "LockMany", run, refused)
    }
}

impl Handler<LockSnapshotQuery> for LockTable {
    type Result = Watched<Later<LockSnapshot>>;

    /// The picture is of the moment when it is the message's turn. It is put in order on a thread for work that takes long,
    /// so that it holds up nobody else's message.
    fn handle(&mut self, _: LockSnapshotQuery, context: &mut Self::Context) -> Self::Result {
        let copy = || {
            let copy = self.locks.copy();
            let sorted = tokio::task::spawn_blocking(|| copy.sorted());
            Later::new(async {
                match sorted.await {
                    Ok(sorted) => sorted,
                    Err(error) => match error.try_into_panic() {
                        // Ends this task, and whoever asked is told that the mailbox is closed.
                        Ok(panic) => std::panic::resume_unwind(panic),
                        // The runtime comes to its end, and this with it: whoever asked is told that the actor is gone.
                        Err(_) => std::future::pending().await,
                    },
                }
            })
        };
        (self.locks.supervision()).handle(context, "LockSnapshotQuery", copy, |_| None)
    }
}

impl Handler<Release> for LockTable {
    type Result = Watched<MessageResult<Release>>;

    fn handle(&mut self, release: Release, context: &mut Self::Context) -> Self::Result {
        let done = || MessageResult(release.in_place());
        (self.locks.supervision()).handle(context, "Release", done, |_| None)
    }
}

/// Messages that are answered at once, by a method of the message that needs the table alone; each with its answer after a panic,
/// if it has any.
macro_rules! answered_at_once {
    ($($message:ident => $answer:expr),* $(,)?) => {
        $(impl Handler<$message> for LockTable {
            type Result = Watched<MessageResult<$message>>;

            fn handle(&mut self, message: $message, context: &mut Self::Context) -> Self::Result {
                let locks = &self.locks;
                let done = || MessageResult(message.in_place(locks));
                let answer: fn(ActorPanicked) -> Option<<$message as Message>::Result> = $answer;
                let answer = |panicked| answer(panicked).map(MessageResult);
                locks.supervision().handle(context, stringify!($message), done, answer)
            }
        })*
    };
}

answered_at_once!(
    Downgrade => |_| None,
    NewLocker => |panicked| Some(Err(LockError::ActorPanicked(panicked))),
    CommitLocker => |panicked| Some(Err(LockError::ActorPanicked(panicked))),
    EndLocker => |_| None,
    Detect => |_| None,
    SetDetect => |_| None,
    SetTimeouts => |_| None,
    SetLimits => |_| None,
    LockStatsQuery => |_| None,
    DeadlockHistory => |_| None,
    LockConfigQuery => |_| None,
);
